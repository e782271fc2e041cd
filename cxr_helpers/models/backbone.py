"""The contract of a backbone: what methods, probes and detectors may ask of a network."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

from torch import Tensor, nn

from ..augment import Normalisation
from ..fields import require

__all__ = ["Backbone"]


class Backbone(nn.Module, ABC):
    """Images to features, so that methods, probes and detectors need to know no architecture.

    Attributes:
        net: the network under the keys of its library (torchvision, timm), without a classifier.
        name: of the architecture. in_channels: of its input, 1 or 3. stem: the kind of its first layers.
        feature_dim: D. normalisation: the input statistics it is meant to see; they travel in its file.
    """

    net: nn.Module
    feature_dim: int

    def __init__(self, name: str, channels: int, stem: str, normalisation: Normalisation) -> None:
        super().__init__()
        self.name, self.in_channels, self.stem, self.normalisation = name, channels, stem, normalisation

    def forward(self, x: Tensor) -> Tensor:
        """Features `[B, D]` of normalised images `[B, C, S, S]`."""
        return self.net(x)

    @abstractmethod
    def stages(self, x: Tensor) -> dict[str, Tensor]:
        """Maps `[B, C, h, w]` by the name of their stage, early to late; the last one's mean over h, w is `forward`."""

    @abstractmethod
    def depth(self, parameter_name: str) -> int:
        """The number of a parameter's block, by its name in `named_parameters`: 0 in the stem, then from 1."""

    def drop_path(self, rate: float) -> None:
        """Leave residual branches out in training (arXiv 1603.09382), at a rate that grows with depth up to this one.

        Raises:
            ValueError: a rate above 0 for a network that has none to leave out.
        """
        require(rate == 0, "drop_path", f"0 for {self.name}, only a ViT leaves branches out", rate)

    def fitted(self, state: dict[str, Tensor]) -> dict[str, Tensor]:
        """ImageNet's colour weights, under their library's keys, for the channels and sizes of this network."""
        return state

    def describe(self) -> dict[str, Any]:
        """What a file must say to rebuild this module."""
        mean, std = list(self.normalisation.mean), list(self.normalisation.std)
        return {"backbone": self.name, "channels": self.in_channels, "stem": self.stem, "mean": mean, "std": std}
