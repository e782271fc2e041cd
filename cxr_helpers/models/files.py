"""Where weights come from and go to: one file format, safetensors under the library's keys with what it is inside.

Files of others come in by key map, and are refused unless every key of the backbone lands; no file may run code.
"""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path
from textwrap import shorten
from typing import TYPE_CHECKING, Any

import timm
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save
from torch import Tensor
from torchvision.models import get_model_weights

from ..augment import Normalisation
from ..config import SEVERAL
from .backbone import Backbone
from .fused import Fused
from .resnet import CIFAR_STEM_BELOW_PX, IMAGENET, ResNet, stem_for
from .vit import PATCHES, SHAPES, STATISTICS, ViT, as_vit, patch_for

if TYPE_CHECKING:
    from ..runs import Run

__all__ = [
    "backbone_bytes",
    "build_backbone",
    "export_run",
    "imagenet_state",
    "load_backbone",
    "require_target",
    "save_backbone",
    "state_digest",
]

HOLDERS = ("encoder_state_dict", "state_dict", "model_state_dict", "model")  # entries in which others keep the weights

FIRST = "layer1.0.conv1.weight"  # every ResNet has it once: what stands before it stands before every key
CLASSIFIERS = {"resnet": ("fc.",), "vit": ("head.", "cls_token")}  # by the library's key, left behind
PLAIN = (".pth", ".pt")  # a state_dict as torch writes it


def build_backbone(
    name: str, *, channels: int, size: int, init: str, normalisation: Normalisation, seed: int
) -> Backbone:
    """A backbone ready to train.

    Args:
        init: `random` (He initialisation from `seed`), `imagenet`, or the path of an encoder file (`load_backbone`).
        normalisation: input statistics of a random backbone; the other two kinds bring their own.
    Raises:
        ValueError: an init that does not fit channels, size or name; FileNotFoundError: no such file.
    """
    if init == "random":
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            return _unplaced(name, channels, size, normalisation)
    if init == "imagenet":
        return _imagenet(name, channels, size)
    files = init.split(SEVERAL)
    parts = [load_backbone(file) for file in files]
    for file, part in zip(files, parts, strict=True):
        takes = max(channels, part.in_channels)  # what takes colour takes grey
        wanted = {"backbone": name, "channels": takes, "stem": _stem(name, size)}
        got = {key: part.describe()[key] for key in wanted}
        if wanted != got:
            raise ValueError(f"{Path(file).name} must hold a backbone with {wanted}, got {got}")
    return parts[0] if len(parts) == 1 else Fused(parts)


def _stem(name: str, size: int) -> str:
    return f"patch{patch_for(size)}" if name in SHAPES else stem_for(size)


def _unplaced(name: str, channels: int, size: int, normalisation: Normalisation) -> Backbone:
    """A network for images of that size, its weights drawn."""
    about = {"backbone": name, "channels": channels, "stem": _stem(name, size), **vars(normalisation)}
    return _described(about | ({"grid": size // patch_for(size)} if name in SHAPES else {}))


def _classifier(name: str) -> tuple[str, ...]:
    return CLASSIFIERS["vit" if name in SHAPES else "resnet"]


def imagenet_state(name: str) -> tuple[dict[str, Tensor], str]:
    """Supervised ImageNet weights, a ResNet's of torchvision, a ViT's of timm, and the SHA-256 over their tensors.

    `CXR_IMAGENET_WEIGHTS` (a ResNet's) and `CXR_VIT_WEIGHTS` name a local state_dict, for machines that cannot
    download; otherwise the library downloads its own file and checks its hash.

    Raises:
        FileNotFoundError: neither the file nor a network is there. ValueError: the file is not a plain state_dict.
    """
    variable = "CXR_VIT_WEIGHTS" if name in SHAPES else "CXR_IMAGENET_WEIGHTS"
    local = os.environ.get(variable)
    if local and not Path(local).is_file():
        raise FileNotFoundError(f"{variable} must name a file, got {local!r}")
    state = _read_state(Path(local), f" (of {variable})") if local else _downloaded_state(name, variable)
    state = {k: v for k, v in state.items() if not k.startswith(_classifier(name))}
    return state, state_digest(state)


def _downloaded_state(name: str, variable: str) -> dict[str, Tensor]:
    try:
        if name in SHAPES:
            tag = f"{name}_patch16_224.augreg_in21k_ft_in1k"
            return dict(timm.create_model(tag, pretrained=True).state_dict())
        weights = get_model_weights(name).IMAGENET1K_V1  # type: ignore[attr-defined]
        return dict(weights.get_state_dict(progress=False, check_hash=True, weights_only=True))
    except Exception as error:  # no network, a wrong hash, a file in torch.hub's cache that would run code
        library = "timm" if name in SHAPES else "torchvision"
        raise FileNotFoundError(
            f"ImageNet weights of {name} could not be downloaded ({shorten(str(error), 100, placeholder=' …')}); put "
            f"{library}'s file on this machine and name it in {variable}"
        ) from None


def _imagenet(name: str, channels: int, size: int) -> Backbone:
    """ImageNet's weights and normalisation, fitted to channels and, a ViT's, to its patch and grid."""
    if _stem(name, size) == "cifar":
        raise ValueError(
            f"init 'imagenet' must be used from {CIFAR_STEM_BELOW_PX} px up (its stem is 7x7), got the CIFAR stem; "
            "use init 'random' or larger images"
        )
    statistics = STATISTICS.for_channels(channels) if name in SHAPES else IMAGENET.get(channels, IMAGENET[3])
    backbone = _unplaced(name, channels, size, statistics)
    _place(backbone.fitted(imagenet_state(name)[0]), backbone, "ImageNet weights")
    return backbone


def load_backbone(path: str | Path) -> Backbone:
    """Read an encoder: a file of this package, or a ResNet's or ViT's state_dict of others (.safetensors, .pth, .pt).

    A file of others does not say under which input statistics it was made: a ResNet's are taken to be ImageNet's, a
    ViT's .5 and .5.

    Raises:
        FileNotFoundError: no such file. ValueError: not a backbone whose every key lands; the message lists which.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"init must be random, imagenet or a backbone file, got {str(path)!r}, which is none")
    state, about = _read_state(path), None
    if path.suffix == ".safetensors":
        with safe_open(path, "pt") as file:
            about = json.loads((file.metadata() or {}).get("cxr_helpers", "null"))
    if about is None:
        state, about = _of_others(state, path.name)
    backbone = _described(about)
    _place(state, backbone, path.name)
    return backbone


def _described(about: dict[str, Any]) -> Backbone:
    """A network, its weights not yet placed, from what `Backbone.describe` said of it."""
    if parts := about.get("parts"):
        return Fused([_described(part) for part in parts])
    normalisation = Normalisation(tuple(about["mean"]), tuple(about["std"]))
    if about["backbone"] in SHAPES:
        return ViT(about["backbone"], about["channels"], about["stem"], normalisation, about["grid"])
    return ResNet(about["backbone"], about["channels"], about["stem"], normalisation)


def _of_others(state: dict[str, Tensor], source: str) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """A network's state by its own keys (no `module.`, `encoder.`, classifier, other parts), and what it is."""
    marks = [(key.removesuffix(first), first) for key in state for first in (FIRST, PATCHES) if key.endswith(first)]
    if len(marks) != 1:
        keys = ", ".join(["".join(mark) for mark in marks] or list(state)[:6])
        raise ValueError(f"{source} must be a state_dict with the keys of one ResNet or ViT, got {keys}")
    ((before, first),) = marks
    left = CLASSIFIERS["vit" if first == PATCHES else "resnet"]
    own = {key.removeprefix(before): value for key, value in state.items() if key.startswith(before)}
    own = {key: value for key, value in own.items() if not key.startswith(left)}
    if first == PATCHES:
        return _of_vit(own, source)
    _, channels, side, _ = own["conv1.weight"].shape if "conv1.weight" in own else (64, 3, 7, 7)
    name = "resnet50" if FIRST.replace("conv1", "conv3") in own else "resnet18"
    stem, statistics = "cifar" if side == 3 else "imagenet", vars(IMAGENET.get(channels, IMAGENET[3]))
    return own, {"backbone": name, "channels": channels, "stem": stem, **statistics}


def _of_vit(state: dict[str, Tensor], source: str) -> tuple[dict[str, Tensor], dict[str, Any]]:
    if (about := as_vit(state)) is None:
        width = state[PATCHES].shape[0]
        raise ValueError(f"{source} must be a ViT's state_dict, {', '.join(SHAPES)}, got another of width {width}")
    return _described(about).fitted(state), about


def _read_state(path: Path, said_by: str = "") -> dict[str, Tensor]:
    """The tensors of a .safetensors file or of torch's; a ValueError refuses one that holds else or would run code."""
    try:
        content = load_file(path) if path.suffix == ".safetensors" else torch.load(path, "cpu", weights_only=True)
    except Exception as error:
        said = shorten(str(error), 100, placeholder=" …")
        raise ValueError(f"{path.name}{said_by} must be a state_dict readable without running code ({said})") from None
    held = [content[name] for name in HOLDERS if isinstance(content, dict) and isinstance(content.get(name), dict)]
    state = held[0] if held else content
    values = state.values() if isinstance(state, dict) else [None]
    if not all(isinstance(value, Tensor) and value.layout == torch.strided for value in values):
        raise ValueError(f"{path.name}{said_by} must be a state_dict of names and tensors, got another object")
    return dict(state)


def _place(state: dict[str, Tensor], backbone: Backbone, source: str) -> None:
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


def backbone_bytes(backbone: Backbone, **about: str) -> bytes:
    """A backbone as a safetensors file; `about`, such as `run` and `command`, joins its description in the metadata."""
    return save(_values(backbone), {"cxr_helpers": json.dumps({**backbone.describe(), **about}, indent=1)})


def _values(backbone: Backbone) -> dict[str, Tensor]:
    return {k: v.detach().cpu().contiguous() for k, v in backbone.net.state_dict().items()}


def save_backbone(backbone: Backbone, path: str | Path, **about: str) -> None:
    """Write an encoder beside its place, then rename: of a `.pth` or `.pt` the plain state_dict, else our format."""
    path = Path(path)
    part = path.with_name(f"{path.name}.part")
    if path.suffix in PLAIN:
        torch.save(_values(backbone), part)
    else:
        part.write_bytes(backbone_bytes(backbone, **about))
    os.replace(part, path)


def export_run(run: Run, target: str | Path) -> Path:
    """Write a run's encoder for others, and what it is beside it as JSON; returns the weights' file.

    Keys are those of torchvision.models, without fc. Stem imagenet: conv1 is 7x7 / 2, of that many channels; stem
    cifar: conv1 is 3x3 / 1, and there is no maxpool. Input: grey levels / 255, minus mean, over std.

    Args:
        target: a folder, for `backbone.safetensors` in this package's format, or a `.pth` file, for a plain state_dict.
    Raises:
        ValueError: as `require_target`. FileNotFoundError: the run's weights are not there.
    """
    weights, backbone = require_target(target), run.backbone()
    about = {"run": run.id, **{key: str(run.environment.get(key, "unknown")) for key in ("command", "commit")}}
    weights.parent.mkdir(parents=True, exist_ok=True)
    save_backbone(backbone, weights, **about)
    weights.with_suffix(".json").write_text(json.dumps({**backbone.describe(), **about}, indent=1), "utf-8")
    return weights


def require_target(target: str | Path) -> Path:
    """The file that an export to a target writes; a ValueError where it would replace what no export wrote."""
    target = Path(target)
    weights = target if target.suffix in PLAIN else target / "backbone.safetensors"
    if weights.parent.is_file() or weights.exists() != weights.with_suffix(".json").exists():
        raise ValueError(f"--export must name a new folder or .pth file, or an earlier export, got {target}")
    return weights
