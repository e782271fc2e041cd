"""From a name or a path to a data set: which source it means, and the source's arrays as splits."""

from __future__ import annotations

import difflib
import os
from pathlib import Path

import medmnist
import numpy as np
import torch

from .archives import SplitArrays
from .dataset import Dataset, Split, call_a_draw, draw_images
from .sources import MEDMNIST_FLAGS, PHANTOMS, cifar10, image_folder, medmnist_file, phantom

__all__ = ["data_root", "load_dataset"]

LONGEST_NAME = 100  # characters of a data set's name: it begins the names of run folders, which end at 255 bytes


def data_root(root: str | Path | None = None) -> Path:
    """The folder data sets are looked for in: the argument, else `CXR_DATA`, else medmnist's own default."""
    chosen = root or os.environ.get("CXR_DATA") or medmnist.info.DEFAULT_ROOT or "~/.medmnist"
    return Path(chosen).expanduser()


def load_dataset(
    name: str,
    size: int | None = None,
    root: str | Path | None = None,
    *,
    max_train_images: int | None = None,
    max_eval_images: int | None = None,
) -> Dataset:
    """Load a data set by name, or an image folder by path.

    Args:
        name: a 2-D MedMNIST flag (`pneumoniamnist`, `chestmnist`, …), `cifar10`, `phantom`,
            `phantom_multilabel`, `phantom_shapes`, the name of an image folder in the root, or a path (with a
            separator) to one.
        size: side of the images, px; by default 224, but 32 for `cifar10` and `phantom_shapes`. Only image
            folders are resized to it: MedMNIST's images are never.
        root: the data folder; else `CXR_DATA`, else medmnist's default.
        max_train_images: take a fixed draw of train if it holds more images than that.
        max_eval_images: the same for val and for test.

    Returns:
        The data set, with provenance.

    Raises:
        ValueError: an unknown name, a size that is not offered, or files that are not what they should be.
        FileNotFoundError: a file or folder that is not there and could not be downloaded.
    """
    if size is None:
        size = 32 if name in ("cifar10", "phantom_shapes") else 224
    if isinstance(size, bool) or not isinstance(size, int) or size < 1:
        raise ValueError(f"size must be a whole number of pixels, 1 or more, got {size!r}")
    most = {"max_train_images": max_train_images, "max_eval_images": max_eval_images}
    for limit, value in most.items():
        if value is not None and (isinstance(value, bool) or not isinstance(value, int) or value < 1):
            raise ValueError(f"{limit} must be a whole number, 1 or more, got {value!r}")
    folder = data_root(root)
    if name in PHANTOMS:
        source = phantom(name, size, max_train_images, max_eval_images)
    elif name in MEDMNIST_FLAGS:
        source = medmnist_file(name, size, folder)
    elif name == "cifar10":
        source = cifar10(size, folder)
    else:
        path = _find_folder(name, folder)
        taken = path.name in (*MEDMNIST_FLAGS, *PHANTOMS, "cifar10")
        name, source = path.name + "-folder" * taken, image_folder(path, size)  # never under another data set's name
    splits = {split: _to_split(part) for split, part in source.splits.items()}
    dataset = Dataset(
        name=name,
        size=size,
        task=source.task,
        class_names=source.class_names,
        provenance=source.provenance,
        **splits,
    )
    return call_a_draw(dataset, **most) if source.drawn else draw_images(dataset, **most)


def _find_folder(name: str, root: Path) -> Path:
    """The image folder a name or path stands for; a bare name never leaves the root."""
    if any(separator in name for separator in ("/", "\\")):
        path = Path(name).expanduser()
        if not _is_folder(path):
            shown = name if name.isprintable() else repr(name)
            raise FileNotFoundError(
                f"data set must be a name or the path of an image folder, got no folder at {shown}: mend the path"
            )
        return _checked_name(path.resolve())
    inside = sorted(p.name for p in root.iterdir() if (p / "train").is_dir()) if root.is_dir() else []
    if name not in inside and (name in ("", ".", "..") or not _is_folder(root / name)):
        known = [*MEDMNIST_FLAGS, "cifar10", *PHANTOMS]
        close = difflib.get_close_matches(name.lower(), [*known, *inside], n=1)
        raise ValueError(
            f"data set must be one of {', '.join(known)}, or an image folder in {root} "
            f"({', '.join(inside) or 'it has none'}), got {name[:LONGEST_NAME]!r}"
            + (f": did you mean {close[0]}?" if close else ": take one of these or name a folder by its path")
        )
    return _checked_name(root / name)


def _is_folder(path: Path) -> bool:
    try:
        return path.is_dir()
    except (OSError, ValueError):  # a name longer than the file system allows, or with a NUL in it
        return False


def _checked_name(folder: Path) -> Path:
    """The folder, if its name can stand in names of runs, in tables and on pages."""
    name = folder.name
    if not name.isprintable() or len(name.encode()) > LONGEST_NAME:
        shown = name if len(name) <= LONGEST_NAME else f"{name[:LONGEST_NAME]}…"
        raise ValueError(
            f"name of a data set's folder must be printable and at most {LONGEST_NAME} bytes long, got {shown!r} "
            f"({len(name.encode('utf-8', 'surrogateescape'))} bytes): rename it or link to it by a shorter name"
        )
    return folder


def _to_split(part: SplitArrays) -> Split:
    images = part.images[:, None] if part.images.ndim == 3 else part.images.transpose(0, 3, 1, 2)
    return Split(
        images=torch.from_numpy(np.ascontiguousarray(images)),  # [N, C, S, S]
        labels=torch.from_numpy(part.labels),
        groups=part.groups,
        masks=None if part.masks is None else torch.from_numpy(part.masks),
        boxes=None if part.boxes is None else tuple(map(torch.from_numpy, part.boxes)),
        box_labels=None if part.box_labels is None else tuple(map(torch.from_numpy, part.box_labels)),
    )
