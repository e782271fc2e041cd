"""The contract of a backbone, and the state of one: read without running code, placed whole, named by a digest."""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from pathlib import Path
from textwrap import shorten
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from ..augment import Normalisation

__all__ = ["Backbone", "place", "read_state", "state_digest"]

HOLDERS = ("encoder_state_dict", "state_dict", "model_state_dict", "model")  # entries in which others keep the weights


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

    def describe(self) -> dict[str, Any]:
        """What a file must say to rebuild this module."""
        mean, std = list(self.normalisation.mean), list(self.normalisation.std)
        return {"backbone": self.name, "channels": self.in_channels, "stem": self.stem, "mean": mean, "std": std}


def read_state(path: Path, said_by: str = "") -> dict[str, Tensor]:
    """The tensors of a .safetensors file or of torch's; a ValueError refuses one that holds else or would run code."""
    source = path.name + said_by
    try:
        content = load_file(path) if path.suffix == ".safetensors" else torch.load(path, "cpu", weights_only=True)
    except Exception as error:
        said = shorten(str(error), 100, placeholder=" …")
        raise ValueError(f"{source} must be a state_dict readable without running code ({said})") from None
    held = [content[name] for name in HOLDERS if isinstance(content, dict) and isinstance(content.get(name), dict)]
    state = held[0] if held else content
    if not isinstance(state, dict) or not all(isinstance(k, str) and _is_plain(v) for k, v in state.items()):
        raise ValueError(f"{source} must be a state_dict of names and tensors, got another object")
    return dict(state)


def _is_plain(value: object) -> bool:
    """Whether it is a dense tensor with values, not a quantised, sparse or empty-handed (meta) one."""
    return isinstance(value, Tensor) and value.layout == torch.strided and not (value.is_quantized or value.is_meta)


def place(state: dict[str, Tensor], backbone: Backbone, source: str) -> None:
    """Load weights into a new backbone; every key must land, else a ValueError of their `source` lists those amiss."""
    try:
        backbone.net.load_state_dict(state)
    except RuntimeError as error:
        said = shorten(str(error).partition("\n")[2], 500, placeholder=" …")
        raise ValueError(f"{source} must be a state_dict of {backbone.name}, key by key; {said}") from None


def state_digest(state: dict[str, Tensor]) -> str:
    """SHA-256 over names and values of a state_dict."""
    digest = hashlib.sha256()
    for key in sorted(state):
        digest.update(key.encode())
        values = state[key].detach().cpu().contiguous().reshape(-1)
        digest.update(values.view(torch.uint8).numpy().tobytes())  # bytes: numpy knows no bfloat16
    return digest.hexdigest()
