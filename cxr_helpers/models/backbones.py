"""ResNet backbones for grey or colour images: stem by image size, three kinds of initial weights, one file format.

The input normalisation belongs to the backbone: weights learnt under one mean and standard deviation are read under
the same, so it travels in the backbone's file and in `imagenet` overrides the policy's.
"""

from __future__ import annotations

import hashlib
import json
import os
import pickle
from pathlib import Path
from typing import Any

import torch
import torchvision
from safetensors import safe_open
from safetensors.torch import save
from torch import Tensor, nn

from ..augment import Normalisation

__all__ = [
    "Backbone",
    "backbone_bytes",
    "build_backbone",
    "imagenet_state",
    "load_backbone",
    "save_backbone",
    "stem_for",
]

CIFAR_STEM_BELOW_PX = 64
IMAGENET_GREY = Normalisation(mean=(0.449,), std=(0.226,))  # mean of the three channels' statistics
IMAGENET_RGB = Normalisation(mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))
_BUILDERS = {"resnet18": torchvision.models.resnet18, "resnet50": torchvision.models.resnet50}
_WEIGHTS = {
    "resnet18": torchvision.models.ResNet18_Weights.IMAGENET1K_V1,
    "resnet50": torchvision.models.ResNet50_Weights.IMAGENET1K_V1,
}


def stem_for(size: int) -> str:
    """`cifar` (3x3, stride 1, no pool) below 64 px, else `imagenet` (7x7, stride 2, max-pool)."""
    return "cifar" if size < CIFAR_STEM_BELOW_PX else "imagenet"


class Backbone(nn.Module):
    """A torchvision ResNet without its classifier: `[B, C, S, S]` normalised images to `[B, feature_dim]`.

    Args:
        name: `resnet18` (512 features) or `resnet50` (2048).
        channels: input channels, 1 or 3.
        stem: `cifar` or `imagenet`.
        normalisation: the input statistics this backbone is meant to see.
    """

    def __init__(self, name: str, channels: int, stem: str, normalisation: Normalisation) -> None:
        super().__init__()
        if name not in _BUILDERS:
            raise ValueError(f"backbone must be one of {', '.join(_BUILDERS)}, got {name!r}")
        if channels not in (1, 3):
            raise ValueError(f"channels must be 1 or 3, got {channels}")
        self.name, self.in_channels, self.stem, self.normalisation = name, channels, stem, normalisation
        self.net = _BUILDERS[name]()
        self.feature_dim: int = self.net.fc.in_features
        self.net.fc = nn.Identity()
        if stem == "cifar":
            self.net.conv1 = nn.Conv2d(channels, 64, 3, 1, 1, bias=False)
            self.net.maxpool = nn.Identity()
        elif channels != 3:
            self.net.conv1 = nn.Conv2d(channels, 64, 7, 2, 3, bias=False)
        nn.init.kaiming_normal_(self.net.conv1.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, x: Tensor) -> Tensor:
        """Features `[B, feature_dim]` of normalised images `[B, C, S, S]`."""
        return self.net(x)

    def describe(self) -> dict[str, Any]:
        """What a file must say to rebuild this module."""
        return {
            "backbone": self.name,
            "channels": self.in_channels,
            "stem": self.stem,
            "mean": list(self.normalisation.mean),
            "std": list(self.normalisation.std),
        }


def _grey_stem(weight: Tensor) -> Tensor:
    """RGB filters `[64, 3, 7, 7]` summed to `[64, 1, 7, 7]`: what grey copied to three channels would give."""
    return weight.sum(dim=1, keepdim=True)


def imagenet_state(name: str) -> tuple[dict[str, Tensor], str]:
    """torchvision's supervised ImageNet weights and the SHA-256 over their tensors.

    `CXR_IMAGENET_WEIGHTS` names a local state_dict, for machines that cannot download; otherwise torchvision
    downloads its own file and checks its hash.

    Raises:
        FileNotFoundError: neither the file nor a network is there.
        ValueError: the file is not a plain state_dict of this architecture.
    """
    local = os.environ.get("CXR_IMAGENET_WEIGHTS")
    state = _local_state(Path(local)) if local else _downloaded_state(name)
    state = {k: v for k, v in state.items() if not k.startswith("fc.")}
    return state, state_digest(state)


def _local_state(path: Path) -> dict[str, Tensor]:
    if not path.is_file():
        raise FileNotFoundError(f"CXR_IMAGENET_WEIGHTS must name a file, got {str(path)!r}")
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        raise ValueError(
            f"{path.name} must be a state_dict readable without running code ({_first_line(error)}): name "
            "torchvision's file in CXR_IMAGENET_WEIGHTS"
        ) from None
    if not isinstance(state, dict) or not all(isinstance(k, str) and _is_plain(v) for k, v in state.items()):
        raise ValueError(f"{path.name} must be a state_dict of names and tensors, got another object")
    return dict(state)


def _is_plain(value: object) -> bool:
    """Whether it is a dense tensor with values, not a quantised, sparse or empty-handed (meta) one."""
    return isinstance(value, Tensor) and value.layout == torch.strided and not (value.is_quantized or value.is_meta)


def _downloaded_state(name: str) -> dict[str, Tensor]:
    try:
        # torch.hub takes a file that lies in its cache as it is, and would run the code of one that was planted there
        return dict(_WEIGHTS[name].get_state_dict(progress=False, check_hash=True, weights_only=True))
    except pickle.UnpicklingError as error:
        file = Path(torch.hub.get_dir()) / "checkpoints" / _WEIGHTS[name].url.rpartition("/")[2]
        raise ValueError(
            f"{file} must be a state_dict readable without running code ({_first_line(error)}): remove it to have "
            "it downloaded again"
        ) from None
    except (OSError, RuntimeError) as error:  # the latter: a wrong hash
        raise FileNotFoundError(
            f"ImageNet weights of {name} could not be downloaded ({_first_line(error)}); put torchvision's file on "
            "this machine and name it in CXR_IMAGENET_WEIGHTS"
        ) from None


def _first_line(error: Exception) -> str:
    """What went wrong, without the paragraphs that torch writes below it."""
    return (str(error).strip() or type(error).__name__).splitlines()[0]


def state_digest(state: dict[str, Tensor]) -> str:
    """SHA-256 over names and values of a state_dict."""
    digest = hashlib.sha256()
    for key in sorted(state):
        digest.update(key.encode())
        values = state[key].detach().cpu().contiguous().reshape(-1)
        digest.update(values.view(torch.uint8).numpy().tobytes())  # bytes: numpy knows no bfloat16
    return digest.hexdigest()


def _load_imagenet(backbone: Backbone) -> None:
    if backbone.stem != "imagenet":
        raise ValueError(
            f"init 'imagenet' must be used from {CIFAR_STEM_BELOW_PX} px up (its stem is 7x7), got the CIFAR stem; "
            "use init 'random' or larger images"
        )
    state, _ = imagenet_state(backbone.name)
    if backbone.in_channels == 1 and "conv1.weight" in state:
        state["conv1.weight"] = _grey_stem(state["conv1.weight"])
    try:
        backbone.net.load_state_dict(state)
    except RuntimeError as error:
        first = str(error).splitlines()[-1].strip()
        raise ValueError(f"ImageNet weights must be a state_dict of {backbone.name}; {first}") from None


def build_backbone(
    name: str, *, channels: int, size: int, init: str, normalisation: Normalisation, seed: int
) -> Backbone:
    """A backbone ready to train.

    Args:
        init: `random` (He initialisation from `seed`), `imagenet`, or the path of a file from `save_backbone`.
        normalisation: input statistics of a random backbone; the other two kinds bring their own.
    Raises:
        ValueError: an init that does not fit channels, size or name; FileNotFoundError: no such file.
    """
    if init == "random":
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            return Backbone(name, channels, stem_for(size), normalisation)
    if init == "imagenet":
        backbone = Backbone(name, channels, stem_for(size), IMAGENET_GREY if channels == 1 else IMAGENET_RGB)
        _load_imagenet(backbone)
        return backbone
    backbone = load_backbone(init)
    wanted = {"backbone": name, "channels": channels, "stem": stem_for(size)}
    got = {key: backbone.describe()[key] for key in wanted}
    if wanted != got:
        raise ValueError(f"{Path(init).name} must hold a backbone with {wanted}, got {got}")
    return backbone


def backbone_bytes(backbone: Backbone) -> bytes:
    """A backbone as the bytes of a safetensors file, its description in the file's metadata."""
    state = {k: v.detach().cpu().contiguous() for k, v in backbone.net.state_dict().items()}
    return save(state, metadata={"cxr_helpers": json.dumps(backbone.describe())})


def save_backbone(backbone: Backbone, path: str | Path) -> None:
    """Write `backbone_bytes`; the file appears whole or not at all."""
    path = Path(path)
    part = path.with_suffix(".part")
    try:
        part.write_bytes(backbone_bytes(backbone))
        os.replace(part, path)
    except BaseException:
        part.unlink(missing_ok=True)
        raise


def load_backbone(path: str | Path) -> Backbone:
    """Read a file of `save_backbone`.

    Raises:
        FileNotFoundError: no such file. ValueError: not a backbone file of this package.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(
            f"init must be random, imagenet or a backbone file, got {str(path)!r}, which does not exist"
        )
    try:
        with safe_open(path, "pt") as file:
            about = json.loads((file.metadata() or {})["cxr_helpers"])
            state = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 - not a dict
        normalisation = Normalisation(mean=tuple(about["mean"]), std=tuple(about["std"]))
        backbone = Backbone(about["backbone"], about["channels"], about["stem"], normalisation)
        backbone.net.load_state_dict(state)
    except Exception as error:
        raise ValueError(
            f"{path.name} must be a backbone exported by a run (backbone.safetensors): {_first_line(error)}"
        ) from None
    return backbone
