"""One file format for every encoder: safetensors under the keys of its library, and what it is as text inside.

Files of others come in by key map, and are refused unless every key of the backbone lands.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors import safe_open
from safetensors.torch import save
from torch import Tensor

from ..augment import Normalisation
from .backbone import Backbone, place, read_state
from .resnet import IMAGENET, ResNet, imagenet_resnet, stem_for

if TYPE_CHECKING:
    from ..runs import Run

__all__ = ["backbone_bytes", "build_backbone", "export_run", "load_backbone", "require_target", "save_backbone"]

FIRST = "layer1.0.conv1.weight"  # every ResNet has it once: what stands before it stands before every key
CARD = "An encoder exported by train.py --export, for research and teaching; not a medical device."
LOADING = """
Keys are those of torchvision.models, without fc. Stem imagenet: conv1 is 7x7 / 2, of as many channels as said here;
stem cifar: conv1 is 3x3 / 1, and there is no maxpool. Input: grey levels / 255, minus mean, over std."""
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
            return ResNet(name, channels, stem_for(size), normalisation)
    if init == "imagenet":
        return imagenet_resnet(name, channels, size)
    backbone = load_backbone(init)
    wanted = {"backbone": name, "channels": channels, "stem": stem_for(size)}
    got = {key: backbone.describe()[key] for key in wanted}
    if wanted != got:
        raise ValueError(f"{Path(init).name} must hold a backbone with {wanted}, got {got}")
    return backbone


def load_backbone(path: str | Path) -> Backbone:
    """Read an encoder: a file of this package, or a ResNet's state_dict of others (.safetensors, .pth, .pt).

    A file of others does not say under which input statistics it was made: it is taken to be ImageNet's.

    Raises:
        FileNotFoundError: no such file. ValueError: not a backbone whose every key lands; the message lists which.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(
            f"init must be random, imagenet or a backbone file, got {str(path)!r}, which does not exist"
        )
    state, about = read_state(path), _text(path)
    try:
        if about is None:
            state = _own_keys(state, path.name)
            about = _seen(state)
        normalisation = Normalisation(tuple(about["mean"]), tuple(about["std"]))
        backbone = ResNet(about["backbone"], about["channels"], about["stem"], normalisation)
    except (KeyError, TypeError) as error:
        raise ValueError(f"{path.name} must be a state_dict with a description of it, got none of {error}") from None
    place(state, backbone, path.name)
    return backbone


def _text(path: Path) -> dict[str, Any] | None:
    """What this package wrote about an encoder into its file; None for a file of others."""
    if path.suffix != ".safetensors":
        return None
    with safe_open(path, "pt") as file:
        return json.loads((file.metadata() or {}).get("cxr_helpers", "null"))


def _own_keys(state: dict[str, Tensor], source: str) -> dict[str, Tensor]:
    """A ResNet's state without what stands before its keys (`module.`, `encoder.`), its classifier and other parts."""
    before = [key.removesuffix(FIRST) for key in state if key.endswith(FIRST)]
    if len(before) != 1:
        keys = ", ".join([f"{word}{FIRST}" for word in before] or list(state)[:6])
        raise ValueError(f"{source} must be a state_dict with the keys of one ResNet, got {keys}")
    own = {key.removeprefix(before[0]): value for key, value in state.items() if key.startswith(before[0])}
    return {key: value for key, value in own.items() if not key.startswith("fc.")}


def _seen(state: dict[str, Tensor]) -> dict[str, Any]:
    """What a ResNet's weights show of it."""
    _, channels, side, _ = state["conv1.weight"].shape if "conv1.weight" in state else (64, 3, 7, 7)
    name = "resnet50" if FIRST.replace("conv1", "conv3") in state else "resnet18"
    statistics = vars(IMAGENET.get(channels, IMAGENET[3]))
    return {"backbone": name, "channels": channels, "stem": "cifar" if side == 3 else "imagenet", **statistics}


def backbone_bytes(backbone: Backbone, **about: str) -> bytes:
    """A backbone as a safetensors file; `about`, such as `run` and `command`, joins its description in the metadata."""
    return save(_values(backbone), {"cxr_helpers": json.dumps({**backbone.describe(), **about}, indent=1)})


def _values(backbone: Backbone) -> dict[str, Tensor]:
    return {k: v.detach().cpu().contiguous() for k, v in backbone.net.state_dict().items()}


def save_backbone(backbone: Backbone, path: str | Path, **about: str) -> None:
    """Write an encoder whole or not at all: of a `.pth` or `.pt` the plain state_dict, else `backbone_bytes`."""
    path = Path(path)
    part = path.with_name(f"{path.name}.part")
    try:
        if path.suffix in PLAIN:
            torch.save(_values(backbone), part)
        else:
            part.write_bytes(backbone_bytes(backbone, **about))
        os.replace(part, path)
    except BaseException:
        part.unlink(missing_ok=True)
        raise


def export_run(run: Run, target: str | Path) -> Path:
    """Write a run's encoder for others, and ten lines of text beside it; returns the weights' file.

    Args:
        target: a folder, for `backbone.safetensors` in this package's format, or a `.pth` file, for a plain state_dict.
    Raises:
        ValueError: as `require_target`. FileNotFoundError: the run's weights are not there.
    """
    require_target(target)
    backbone, (weights, card) = run.backbone(), _places(target)
    about = {"run": run.id, **{key: str(run.environment.get(key, "unknown")) for key in ("command", "commit")}}
    weights.parent.mkdir(parents=True, exist_ok=True)
    lines = [f"{key}: {value}\n" for key, value in {**backbone.describe(), **about}.items()]
    card.write_text(f"{CARD}\n{''.join(lines)}{LOADING}\n", "utf-8")
    save_backbone(backbone, weights, **about)
    return weights


def require_target(target: str | Path) -> None:
    """Refuse a target that an export would spoil.

    Raises:
        ValueError: a file where a folder must be, or weights or text there that no export wrote.
    """
    weights, card = _places(target)
    if weights.parent.exists() and not weights.parent.is_dir():
        raise ValueError(f"--export must name a folder or a .pth file, got the file {weights.parent}: name another")
    own = card.is_file() and card.read_text("utf-8", errors="replace").startswith(CARD)
    if not own and (weights.exists() or card.exists()):
        raise ValueError(f"--export must name a new place or an earlier export, got {weights} of another: name another")


def _places(target: str | Path) -> tuple[Path, Path]:
    """Where an export's weights and their text are."""
    target = Path(target)
    weights = target if target.suffix in PLAIN else target / "backbone.safetensors"
    return weights, weights.with_suffix(".txt")
