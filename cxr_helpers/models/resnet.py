"""ResNets for grey or colour images, with the stem that the image size asks for."""

from __future__ import annotations

import torchvision
from torch import Tensor, nn

from ..augment import Normalisation
from .backbone import Backbone

__all__ = ["IMAGENET", "ResNet", "stem_for"]

CIFAR_STEM_BELOW_PX = 64
IMAGENET = {  # by channels; grey has the mean of the three channels' statistics
    1: Normalisation(mean=(0.449,), std=(0.226,)),
    3: Normalisation(mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225)),
}
BUILDERS = {"resnet18": torchvision.models.resnet18, "resnet50": torchvision.models.resnet50}
STAGES = ("layer1", "layer2", "layer3", "layer4")


def stem_for(size: int) -> str:
    """`cifar` (3x3, stride 1, no pool) below 64 px, else `imagenet` (7x7, stride 2, max-pool)."""
    return "cifar" if size < CIFAR_STEM_BELOW_PX else "imagenet"


class ResNet(Backbone):
    """A torchvision ResNet without its classifier.

    Args:
        name: `resnet18` (512 features) or `resnet50` (2048).
        channels: 1 or 3. stem: `cifar` or `imagenet`. normalisation: of its input.
    """

    def __init__(self, name: str, channels: int, stem: str, normalisation: Normalisation) -> None:
        super().__init__(name, channels, stem, normalisation)
        if name not in BUILDERS:
            raise ValueError(f"backbone must be one of {', '.join(BUILDERS)}, got {name!r}")
        if channels not in IMAGENET:
            raise ValueError(f"channels must be 1 or 3, got {channels}")
        self.net = net = BUILDERS[name]()
        self.feature_dim = net.fc.in_features
        net.fc = nn.Identity()
        if stem == "cifar":
            net.conv1 = nn.Conv2d(channels, 64, 3, 1, 1, bias=False)
            net.maxpool = nn.Identity()
        elif channels != 3:
            net.conv1 = nn.Conv2d(channels, 64, 7, 2, 3, bias=False)
        nn.init.kaiming_normal_(net.conv1.weight, mode="fan_out", nonlinearity="relu")

    def stages(self, x: Tensor) -> dict[str, Tensor]:
        """The maps of `STAGES`, at 1/4 to 1/32 of the side (with CIFAR's stem 1 to 1/8)."""
        for name in ("conv1", "bn1", "relu", "maxpool"):
            x = getattr(self.net, name)(x)
        return {name: (x := getattr(self.net, name)(x)) for name in STAGES}

    def fitted(self, state: dict[str, Tensor]) -> dict[str, Tensor]:
        """For one channel the colour filters are summed, [64, 3, 7, 7] to [64, 1, 7, 7], as if grey were copied."""
        if self.in_channels == 1 and (weight := state.get("conv1.weight")) is not None:
            return state | {"conv1.weight": weight.sum(dim=1, keepdim=True)}
        return state

    def depth(self, parameter_name: str) -> int:
        """0 in the stem, then one more with each residual block."""
        blocks = [f".{stage}.{i}." for stage in STAGES for i in range(len(getattr(self.net, stage)))]
        return next((i for i, block in enumerate(blocks, 1) if block in f".{parameter_name}"), 0)
