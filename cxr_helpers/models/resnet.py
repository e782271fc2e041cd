"""ResNets for grey or colour images: the stem by image size, weights drawn or ImageNet's."""

from __future__ import annotations

import os
from pathlib import Path
from textwrap import shorten

import torchvision
from torch import Tensor, nn

from ..augment import Normalisation
from .backbone import Backbone, place, read_state, state_digest

__all__ = ["IMAGENET", "ResNet", "imagenet_resnet", "imagenet_state", "stem_for"]

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
        if channels not in (1, 3):
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

    def depth(self, parameter_name: str) -> int:
        """0 in the stem, then one more with each residual block."""
        blocks = [f".{stage}.{i}." for stage in STAGES for i in range(len(getattr(self.net, stage)))]
        return next((i for i, block in enumerate(blocks, 1) if block in f".{parameter_name}"), 0)


def imagenet_state(name: str) -> tuple[dict[str, Tensor], str]:
    """torchvision's supervised ImageNet weights and the SHA-256 over their tensors.

    `CXR_IMAGENET_WEIGHTS` names a local state_dict, for machines that cannot download; otherwise torchvision
    downloads its own file and checks its hash.

    Raises:
        FileNotFoundError: neither the file nor a network is there. ValueError: the file is not a plain state_dict.
    """
    local = os.environ.get("CXR_IMAGENET_WEIGHTS")
    if local and not Path(local).is_file():
        raise FileNotFoundError(f"CXR_IMAGENET_WEIGHTS must name a file, got {local!r}")
    state = read_state(Path(local), " (of CXR_IMAGENET_WEIGHTS)") if local else _downloaded_state(name)
    state = {k: v for k, v in state.items() if not k.startswith("fc.")}
    return state, state_digest(state)


def _downloaded_state(name: str) -> dict[str, Tensor]:
    weights = torchvision.models.get_model_weights(name).IMAGENET1K_V1  # type: ignore[attr-defined]
    try:
        # torch.hub takes a file that lies in its cache as it is, and would run the code of one that was planted there
        return dict(weights.get_state_dict(progress=False, check_hash=True, weights_only=True))
    except Exception as error:  # no network, a wrong hash, a file that would run code
        raise FileNotFoundError(
            f"ImageNet weights of {name} could not be downloaded ({shorten(str(error), 100, placeholder=' …')}); put "
            "torchvision's file on this machine and name it in CXR_IMAGENET_WEIGHTS"
        ) from None


def imagenet_resnet(name: str, channels: int, size: int) -> ResNet:
    """A ResNet with ImageNet's weights and normalisation; raises as `imagenet_state`, and for images below its stem.

    On one channel the stem's RGB filters are summed: what grey copied to three channels would give.
    """
    if stem_for(size) != "imagenet":
        raise ValueError(
            f"init 'imagenet' must be used from {CIFAR_STEM_BELOW_PX} px up (its stem is 7x7), got the CIFAR stem; "
            "use init 'random' or larger images"
        )
    backbone = ResNet(name, channels, "imagenet", IMAGENET.get(channels, IMAGENET[3]))
    state, _ = imagenet_state(name)
    if channels == 1 and (weight := state.get("conv1.weight")) is not None:
        state["conv1.weight"] = weight.sum(dim=1, keepdim=True)  # [64, 3, 7, 7] to [64, 1, 7, 7]
    place(state, backbone, "ImageNet weights")
    return backbone
