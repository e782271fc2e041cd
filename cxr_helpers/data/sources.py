"""Where data sets come from: MedMNIST files, CIFAR-10, image folders, phantoms; each with its provenance."""

from __future__ import annotations

__all__ = ["MEDMNIST_FLAGS", "PHANTOMS", "Source", "cifar10", "image_folder", "medmnist_file", "phantom"]

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import medmnist
import numpy as np
import torchvision

from .archives import SPLITS, SplitArrays, file_digests, read_npz
from .dataset import fixed_draw
from .download import DownloadError, download
from .folders import read_folder
from .memory import require_memory
from .stratify import carve

MEDMNIST_FLAGS = tuple(flag for flag in medmnist.INFO if not flag.endswith("3d"))
PHANTOMS = ("phantom", "phantom_multilabel", "phantom_shapes")  # equal to PHANTOM_VARIANTS, imported late
CIFAR10_SIZE = 32
CIFAR10_BYTES = 2 * 60_000 * 3 * 32**2  # as torchvision reads it, and transposed
PHANTOM_IMAGES = 3 * 1000  # at least: a thousand images, each with masks and its share of the drawing
VAL_FRACTION = 0.1  # of train, where a data set has no val (MedMNIST's own ratio)
TEST_FRACTION = 0.2  # of train, where a folder has no test
CARVE_SEED = 0


@dataclass(frozen=True, eq=False, kw_only=True)
class Source:
    """A data set as plain arrays; the fields are those of `Dataset`, but for `drawn`: these are a draw already."""

    task: Literal["binary", "multiclass", "multilabel"]
    class_names: tuple[str, ...]
    splits: dict[str, SplitArrays]
    provenance: dict[str, Any]
    drawn: bool = False


def medmnist_file(flag: str, size: int, root: Path) -> Source:
    """Read `<flag>.npz` (28 px) or `<flag>_<size>.npz` from `root`, downloading it where it is missing.

    Args:
        flag: one of `MEDMNIST_FLAGS`.
        size: one of the sizes MedMNIST offers, px.
        root: the data folder.

    Returns:
        Arrays and provenance; status "official" where the MD5 is MedMNIST's.

    Raises:
        ValueError: a size MedMNIST does not offer, or a file that is not what its name says.
        FileNotFoundError: the file is not there and could not be downloaded.
    """
    info = medmnist.INFO[flag]
    offered = {28: "", **{int(key[4:]): f"_{key[4:]}" for key in info if key.startswith("url_")}}
    held = [s for s, suffix in offered.items() if (root / f"{flag}{suffix}.npz").is_file()]
    if size not in offered:
        sizes = ", ".join(map(str, offered))
        raise ValueError(f"size of {flag} must be one of {sizes} px, got {size}; {root} holds {_sizes(held)}")
    path = root / f"{flag}{offered[size]}.npz"
    _require(
        path,
        info[f"url{offered[size]}"],
        info[f"MD5{offered[size]}"],
        f"take a size that is there ({_sizes(held)}), " if held else "",
    )
    class_names = tuple(info["label"][str(i)] for i in range(len(info["label"])))
    multilabel = info["task"].startswith("multi-label")
    splits = read_npz(path, size, len(class_names), multilabel)
    md5, sha256 = file_digests(path)
    num_images, full = sum(len(part.images) for part in splits.values()), sum(info["n_samples"].values())
    notes = _shared_patients(splits)
    if num_images != full:
        notes.insert(0, f"subset of {num_images}/{full} images: not comparable with figures on all of {flag}")
    official = md5 == info[f"MD5{offered[size]}"]
    return Source(
        task="multilabel" if multilabel else "binary" if len(class_names) == 2 else "multiclass",
        class_names=class_names,
        splits=splits,
        provenance={
            "source": f"MedMNIST {path.name}",
            "status": "official" if official else "local (not MedMNIST's MD5)",
            "md5": md5,
            "sha256": sha256,
            "licence": info["license"],
            "notes": notes,
        },
    )


def _sizes(held: list[int]) -> str:
    return f"{', '.join(map(str, held))} px" if held else "none of them"


def _require(path: Path, url: str, md5: str, instead: str) -> None:
    """Have `path` on disk, or say in one sentence how to get there."""
    if path.is_file():
        return
    if path.exists():
        raise ValueError(f"{path.name} in {path.parent} must be a file, got something else: move it away")
    try:
        download(url, path, md5)
    except DownloadError as error:
        raise FileNotFoundError(
            f"{path.name} is not in {path.parent} and could not be downloaded ({error}): put the file there, "
            f"set CXR_DATA to a folder that holds it, {instead}or use an embedded data set "
            f"({', '.join(PHANTOMS)})"
        ) from error


def _shared_patients(splits: dict[str, SplitArrays]) -> list[str]:
    notes = []
    train = splits["train"].groups
    for name in ("val", "test"):
        groups = splits[name].groups
        if train is not None and groups is not None:
            shared = int(np.isin(groups, train).sum())
            if shared:
                notes.append(f"{shared} of {len(groups)} {name} images share a patient with train")
    return notes


def cifar10(size: int, root: Path) -> Source:
    """Read CIFAR-10: the official batches in `root`, else an image folder `<root>/cifar10`, else download.

    Args:
        size: 32, the only size there is.
        root: the data folder.

    Returns:
        Arrays with a val split carved from train, and provenance that says which of the two was read.

    Raises:
        ValueError: another size, or files that are damaged.
        FileNotFoundError: CIFAR-10 is not there and could not be downloaded.
    """
    if size != CIFAR10_SIZE:
        raise ValueError(f"size of cifar10 must be {CIFAR10_SIZE} px, its only one, got {size}")
    official = torchvision.datasets.CIFAR10
    packed = root / official.filename
    unpacked = root / official.base_folder
    if (root / "cifar10" / "train").is_dir() and not unpacked.is_dir() and not packed.is_file():
        return image_folder(root / "cifar10", size)
    if not unpacked.is_dir():
        _require(
            packed,
            official.url,
            official.tgz_md5,
            "",
        )
    require_memory(f"images of {official.base_folder}", CIFAR10_BYTES, "use phantom_shapes or a machine with more")
    unpack = not _is_intact(unpacked) and packed.is_file()
    if unpack and file_digests(packed)[0] != official.tgz_md5:  # torchvision would download over it
        raise ValueError(
            f"{packed.name} in {root} must have CIFAR-10's MD5 {official.tgz_md5}, got a damaged or another file: "
            "move it away to have it downloaded again"
        )
    try:
        parts = {name: official(root, train=name == "train", download=unpack) for name in ("train", "test")}
    except (RuntimeError, EOFError, OSError) as error:
        raise ValueError(
            f"{official.base_folder} in {root} must hold CIFAR-10's official files, got damaged or missing "
            f"ones ({' '.join(str(error).split())}): move the folder away to have it unpacked or downloaded again"
        ) from error
    splits, notes = _carve_missing(
        {name: SplitArrays(part.data, np.array(part.targets, np.int64)) for name, part in parts.items()}
    )
    digest = hashlib.sha256()
    for name, _ in sorted(official.train_list + official.test_list):
        digest.update((unpacked / name).read_bytes())
    return Source(
        task="multiclass",
        class_names=tuple(parts["train"].classes),
        splits=splits,
        provenance={
            "source": f"CIFAR-10, {official.base_folder}",
            "status": "official",
            "sha256": digest.hexdigest(),
            "notes": notes,
        },
    )


def _is_intact(unpacked: Path) -> bool:
    """Whether every batch has CIFAR-10's MD5: they are pickles, and no other is ever read."""
    official = torchvision.datasets.CIFAR10
    wanted = [*official.train_list, *official.test_list, [official.meta["filename"], official.meta["md5"]]]
    return all((unpacked / name).is_file() and file_digests(unpacked / name)[0] == digest for name, digest in wanted)


def image_folder(folder: Path, size: int) -> Source:
    """Read `<folder>/{train,val,test}/<class>/`; val and test are carved from train where they are missing.

    Args:
        folder: see `read_folder`.
        size: side the images are resized to, px.

    Returns:
        Arrays and provenance; binary where there are two classes.

    Raises:
        FileNotFoundError: no `train` folder with classes.
        ValueError: a class without images, or too few to carve from.
    """
    read = read_folder(folder, size)
    try:
        splits, notes = _carve_missing(dict(read.splits))
    except ValueError as error:
        raise ValueError(f"{folder} {error}") from error
    return Source(
        task="binary" if len(read.class_names) == 2 else "multiclass",
        class_names=read.class_names,
        splits=splits,
        provenance={
            "source": f"image folder {folder.resolve().name}",
            "status": "image folder",
            "sha256": read.sha256,
            "skipped": dict(read.skipped),
            "notes": [*read.notes, *notes, *_shared_patients(splits)],
        },
    )


def _carve_missing(splits: dict[str, SplitArrays]) -> tuple[dict[str, SplitArrays], list[str]]:
    """Carve test, then val, from train where they are missing, by class and whole patients."""
    notes = []
    for name, fraction in (("test", TEST_FRACTION), ("val", VAL_FRACTION)):
        if name in splits:
            continue
        train = splits["train"]
        taken = carve(train.labels, train.groups, fraction, CARVE_SEED)
        if not taken.any():
            raise ValueError(
                f"must hold two images (of two patients) of a class to carve {name} from train, got fewer: "
                f"add images, or a folder {name}"
            )
        splits[name], splits["train"] = _rows(train, taken), _rows(train, ~taken)
        how = "by class" if train.groups is None else "by class and whole patients"
        share = f"{int(taken.sum())} of {len(taken)} images"
        notes.append(f"{name} carved from train: {share}, {how}, seed {CARVE_SEED}")
    return {name: splits[name] for name in SPLITS}, notes


def _rows(part: SplitArrays, rows: np.ndarray) -> SplitArrays:
    groups = None if part.groups is None else part.groups[rows]
    return SplitArrays(part.images[rows], part.labels[rows], groups)


def phantom(variant: str, size: int, max_train_images: int | None = None, max_eval_images: int | None = None) -> Source:
    """Draw an embedded data set, always with seed 0.

    Args:
        variant: one of `PHANTOM_VARIANTS`.
        size: side of the images, px.
        max_train_images: render a fixed draw of train alone, if train has more; the rest would be thrown away.
        max_eval_images: the same for val and for test.

    Returns:
        Arrays, with patients, masks and boxes where the variant has them.

    Raises:
        ValueError: a size the phantom cannot be drawn at.
    """
    from .phantom import phantom_arrays, phantom_counts  # here: scipy is slow to import, and real data do not need it

    require_memory(f"{variant} at {size} px", PHANTOM_IMAGES * size * size, "take a smaller size")
    most = {"train": max_train_images, "val": max_eval_images, "test": max_eval_images}
    rows = {split: fixed_draw(count, most[split]) for split, count in phantom_counts(variant).items()}
    drawn = phantom_arrays(variant, size, seed=0, rows=rows)
    splits = {
        name: SplitArrays(part.images, part.labels, part.groups, part.masks, part.boxes, part.box_labels)
        for name, part in drawn.splits.items()
    }
    return Source(
        task=drawn.task,
        class_names=drawn.class_names,
        splits=splits,
        provenance={"source": f"{variant}, drawn with seed 0", "status": "phantom", "notes": []},
        drawn=any(len(rows[split]) < count for split, count in phantom_counts(variant).items()),
    )
