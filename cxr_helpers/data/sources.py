"""From a name or a path to a data set: MedMNIST files, CIFAR-10, image folders, phantoms."""

from __future__ import annotations

import difflib
import os
from pathlib import Path
from typing import Any

import medmnist
import numpy as np
import torch
from torchvision.datasets import CIFAR10
from torchvision.datasets.utils import extract_archive

from ..fields import require
from .dataset import Dataset, Split, Task, carve_missing, draw_images, with_note
from .download import DownloadError, digest_of, download
from .films import UNLABELLED, film_folder, is_film_folder
from .folders import image_folder
from .phantom import PHANTOMS, phantom
from .tasks import JOINED, TASKS, join, relabel

__all__ = ["MEDMNIST_FLAGS", "data_root", "load_dataset"]

MEDMNIST_FLAGS = tuple(flag for flag in medmnist.INFO if not flag.endswith("3d"))
SPLITS = ("train", "val", "test")
RELABELLED = tuple(f"{name}_{task}" for name in ("chestmnist", "phantom_multilabel") for task in TASKS)
KNOWN = (*MEDMNIST_FLAGS, "cifar10", *PHANTOMS, *RELABELLED)


def data_root(root: str | Path | None = None) -> Path:
    """The folder data sets are looked for in: the argument, else `CXR_DATA`, else medmnist's own default."""
    return Path(root or os.environ.get("CXR_DATA") or medmnist.info.DEFAULT_ROOT or "~/.medmnist").expanduser()


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
        name: a 2-D MedMNIST flag (`pneumoniamnist`, …), `cifar10`, `phantom`, `phantom_multilabel`, films asked another
            question (`chestmnist_anomaly`, `chestmnist_pneumonia`, the same of `phantom_multilabel`), a folder of
            images or films in the root by its name, or anywhere by its path (with a slash); `_unlabelled` behind a
            folder of films takes those that nobody labelled, and " + " joins several sets.
        size: side of the images, px; by default 224, but 32 for `cifar10`. Only image folders are resized to it.
        root: the data folder; else `CXR_DATA`, else medmnist's default.
        max_train_images: take a fixed draw of train if it holds more images than that.
        max_eval_images: the same for val and for test.

    Raises:
        ValueError: an unknown name, a size that is not offered, or files that are not what they should be.
        FileNotFoundError: a file or folder that is not there and could not be downloaded.
    """
    size = (32 if name == "cifar10" else 224) if size is None else size
    require(type(size) is int and size >= 1, "size", "a whole number of pixels, 1 or more", size)
    most = {"max_train_images": max_train_images, "max_eval_images": max_eval_images}
    for limit, value in most.items():
        require(value is None or (type(value) is int and value >= 1), limit, "a whole number, 1 or more", value)
    folder = data_root(root)
    if JOINED in name:
        return draw_images(join([load_dataset(one, size, root) for one in name.split(JOINED)]), **most)
    if name in RELABELLED:
        base, _, task = name.rpartition("_")
        return relabel(load_dataset(base, size, root, **most), task)
    if name in PHANTOMS:
        return phantom(name, size, **most)
    if name in MEDMNIST_FLAGS:
        dataset = _medmnist(name, size, folder)
    elif name == "cifar10":
        dataset = _cifar10(size, folder)
    else:
        dataset = _folder(name, size, folder)
    return draw_images(_with_shared_patients(dataset), **most)


def _folder(name: str, size: int, root: Path) -> Dataset:
    """A folder of films with boxes, all or those without labels, or a folder of images."""
    base = name.removesuffix(UNLABELLED)
    unlabelled = base != name and is_film_folder(root / base)
    path = _find_folder(base if unlabelled else name, root)
    if is_film_folder(path):
        return film_folder(path, size, unlabelled=unlabelled)
    return image_folder(path, size, path.name + "-folder" * (path.name in KNOWN))


def _with_shared_patients(dataset: Dataset) -> Dataset:
    train = dataset.train.groups
    for name in ("val", "test"):
        groups = dataset.splits[name].groups
        if train is not None and groups is not None and (shared := int(np.isin(groups, train).sum())):
            dataset = with_note(dataset, f"{shared} of {len(groups)} {name} images share a patient with train")
    return dataset


def _find_folder(name: str, root: Path) -> Path:
    """The folder that a path (with a slash) or a name in the root stands for."""
    if "/" in name.rstrip("/"):
        path = Path(name).expanduser()
        if not path.is_dir():
            raise FileNotFoundError(f"data set must be a name or a folder's path, got no folder at {name!r}")
        return path.absolute()
    if (root / name).is_dir():
        return root / name
    inside = sorted(p.name for p in root.glob("*") if (p / "train").is_dir() or is_film_folder(p))
    known = ", ".join([*KNOWN, *inside])
    close = difflib.get_close_matches(name.lower(), [*KNOWN, *inside], n=1)
    expected = f"one of {known}, or a folder's path" + f" (did you mean {close[0]}?)" * bool(close)
    raise ValueError(f"data set must be {expected}, got {name!r}")


def _have_file(path: Path, url: str, md5: str, instead: str = "") -> None:
    """Have `path` on disk, or say in one sentence how to get there."""
    try:
        download(url, path, md5)
    except DownloadError as error:
        raise FileNotFoundError(
            f"{path.name} is not in {path.parent} and could not be downloaded ({error}): put the file there, set "
            f"CXR_DATA to a folder that holds it, {instead}or use an embedded data set ({', '.join(PHANTOMS)})"
        ) from error


def _medmnist(flag: str, size: int, root: Path) -> Dataset:
    """Read `<flag>.npz` (28 px) or `<flag>_<size>.npz`, downloaded where it is missing; "official" by its MD5."""
    info = medmnist.INFO[flag]
    suffixes = {28: "", **{int(key[4:]): key[3:] for key in info if key.startswith("url_")}}
    require(size in suffixes, f"size of {flag}", f"one of {', '.join(map(str, suffixes))} px", size)
    held = ", ".join(str(side) for side, suffix in suffixes.items() if (root / f"{flag}{suffix}.npz").is_file())
    path, official = root / f"{flag}{suffixes[size]}.npz", info[f"MD5{suffixes[size]}"]
    _have_file(path, info[f"url{suffixes[size]}"], official, f"take a size that is there ({held} px), " * bool(held))
    names, multilabel = tuple(info["label"].values()), info["task"].startswith("multi-label")
    md5 = digest_of(path, "md5")
    status = "official" if md5 == official else "local (not MedMNIST's MD5)"
    record: dict[str, Any] = {"source": f"MedMNIST {path.name}", "status": status, "licence": info["license"]}
    record |= {"md5": md5, "sha256": digest_of(path, "sha256"), "notes": []}
    task: Task = "multilabel" if multilabel else "binary" if len(names) == 2 else "multiclass"
    try:
        splits = _read_npz(path, multilabel)
        dataset = Dataset(name=flag, size=size, task=task, class_names=names, provenance=record, **splits)
    except ValueError as error:
        raise ValueError(f"{path.name} in {root}: {error}: replace the file, or move it away") from error
    count, full = sum(map(len, splits.values())), sum(info["n_samples"].values())
    subset = f"subset of {count}/{full} images: not comparable with figures on all of {flag}"
    return dataset if count == full else with_note(dataset, subset)


def _read_npz(path: Path, multilabel: bool) -> dict[str, Split]:
    """The splits of MedMNIST's layout, with `<split>_groups` where there are any; pickled objects are never loaded."""
    try:
        with np.load(path, allow_pickle=False) as archive:
            arrays = {key: archive[key] for key in archive.files if key.startswith(SPLITS)}
        parts = {s: (arrays[f"{s}_images"], arrays[f"{s}_labels"], arrays.get(f"{s}_groups")) for s in SPLITS}
    except Exception as error:  # damaged bytes raise a dozen kinds in zipfile, zlib, tokenize and numpy
        expected = f"a whole .npz with images and labels of {', '.join(SPLITS)}"
        raise ValueError(f"must be {expected}, got one damaged or incomplete ({type(error).__name__})") from error
    return {split: _as_split(multilabel, *part) for split, part in parts.items()}


def _as_split(multilabel: bool, images: np.ndarray, labels: np.ndarray, groups: np.ndarray | None = None) -> Split:
    """Arrays as MedMNIST and CIFAR-10 hold them: images [N, S, S] or [N, S, S, 3], labels [N] or [N, 1 or L]."""
    require(np.can_cast(labels.dtype, np.int64), "labels", "integers", labels.dtype)
    images = np.ascontiguousarray(images[:, None] if images.ndim == 3 else images.transpose(0, 3, 1, 2))
    labels = (labels[:, 0] if labels.shape[1:] == (1,) and not multilabel else labels).astype(np.int64)
    return Split(images=torch.from_numpy(images), labels=torch.from_numpy(labels), groups=groups)


def _cifar10(size: int, root: Path) -> Dataset:
    """Read CIFAR-10: the official batches, else an image folder `<root>/cifar10`, else download; val is carved."""
    require(size == 32, "size of cifar10", "32 px, its only one", size)
    packed, unpacked = root / CIFAR10.filename, root / CIFAR10.base_folder
    if not unpacked.is_dir() and not packed.is_file() and (root / "cifar10" / "train").is_dir():
        return image_folder(root / "cifar10", size, "cifar10")
    if not unpacked.is_dir():
        _have_file(packed, CIFAR10.url, CIFAR10.tgz_md5)
        right = digest_of(packed, "md5") == CIFAR10.tgz_md5
        require(right, f"{packed.name} in {root}", "CIFAR-10's (move it away to have it downloaded)", "another MD5")
        extract_archive(str(packed), str(root))
    try:  # every batch is a pickle: torchvision compares its MD5 before it is read
        parts = {name: CIFAR10(root, train=name == "train") for name in ("train", "test")}
    except RuntimeError as error:
        raise ValueError(
            f"{unpacked.name} in {root} must hold CIFAR-10's official files, got damaged or missing ones: "
            "move the folder away to have it unpacked or downloaded again"
        ) from error
    read = {name: _as_split(False, part.data, np.array(part.targets)) for name, part in parts.items()}
    splits, notes = carve_missing(read, "cifar10")
    record = {"source": f"CIFAR-10, {unpacked.name}", "status": "official", "md5": CIFAR10.tgz_md5, "notes": notes}
    names = tuple(parts["train"].classes)
    return Dataset(name="cifar10", size=size, task="multiclass", class_names=names, provenance=record, **splits)
