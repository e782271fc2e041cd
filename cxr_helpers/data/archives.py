"""MedMNIST's `.npz` files, checked and read as plain arrays."""

from __future__ import annotations

__all__ = ["SPLITS", "SplitArrays", "file_digests", "read_npz"]

import hashlib
import zipfile
import zlib
from pathlib import Path
from typing import NamedTuple

import numpy as np

SPLITS = ("train", "val", "test")


class SplitArrays(NamedTuple):
    """One split as it was read, before it becomes a `Split` (which see)."""

    images: np.ndarray  # uint8 [N, S, S] or [N, S, S, 3]
    labels: np.ndarray  # int64 [N] or [N, L]
    groups: np.ndarray | None = None  # str [N]
    masks: np.ndarray | None = None  # bool [N, L or 1, S, S]
    boxes: tuple[np.ndarray, ...] | None = None  # per image [n, 4]
    box_labels: tuple[np.ndarray, ...] | None = None  # per image [n]


def file_digests(path: Path) -> tuple[str, str]:
    """MD5 and SHA-256 of a file, both from one pass.

    Args:
        path: an existing file.

    Returns:
        Two hex strings: MD5, SHA-256.
    """
    md5, sha256 = hashlib.md5(usedforsecurity=False), hashlib.sha256()
    with path.open("rb") as handle:
        while block := handle.read(1 << 20):
            md5.update(block)
            sha256.update(block)
    return md5.hexdigest(), sha256.hexdigest()


def read_npz(path: Path, size: int, num_classes: int, multilabel: bool) -> dict[str, SplitArrays]:
    """Read a MedMNIST-like `.npz`, refusing anything that is not one.

    Args:
        path: the file; it holds `{train,val,test}_{images,labels}` and optionally `{split}_groups`.
        size: the side its images must have, px.
        num_classes: classes, or labels where `multilabel`.
        multilabel: whether labels are `[N, num_classes]` of 0 / 1 instead of class numbers.

    Returns:
        The arrays of each split; label -1 (a whole row where multilabel) means not labelled.

    Raises:
        ValueError: the file is damaged, lacks an array, or an array has the wrong dtype, shape or range.
    """
    arrays = _load_arrays(path)
    splits = {}
    for split in SPLITS:
        images = _checked_images(path, f"{split}_images", arrays, size)
        labels = _checked_labels(path, f"{split}_labels", arrays, num_classes, multilabel)
        groups = _checked_groups(path, f"{split}_groups", arrays)
        for key, other in ((f"{split}_labels", labels), (f"{split}_groups", groups)):
            if other is not None and len(other) != len(images):
                raise _wrong(path, key, f"as long as {split}_images, {len(images)}", len(other))
        splits[split] = SplitArrays(images, labels, groups)
    return splits


def _load_arrays(path: Path) -> dict[str, np.ndarray]:
    required = {f"{split}_{part}" for split in SPLITS for part in ("images", "labels")}
    optional = {f"{split}_groups" for split in SPLITS}
    with path.open("rb") as handle:  # outside the try: a permission error is not a damaged file
        try:
            archive = np.load(handle, allow_pickle=False)
            keys = archive.files
            arrays = {key: archive[key] for key in keys if key in required | optional}
        except (
            zipfile.BadZipFile,
            zlib.error,
            EOFError,
            AttributeError,
            ValueError,
            OSError,
            RuntimeError,
        ) as error:
            raise ValueError(
                f"{path.name} in {path.parent} must be a complete .npz of plain arrays, got one that is "
                f"damaged or truncated ({str(error) or type(error).__name__}): move it away to have it "
                "downloaded again"
            ) from error
    missing = sorted(required - set(keys))
    if missing:
        raise ValueError(
            f"{path.name} in {path.parent} must hold images and labels of {', '.join(SPLITS)}, "
            f"got no {', '.join(missing)}"
        )
    return arrays


def _checked_images(path: Path, key: str, arrays: dict[str, np.ndarray], size: int) -> np.ndarray:
    images = arrays[key]
    if images.dtype != np.uint8:
        raise _wrong(path, key, "uint8", images.dtype)
    if images.shape[1:] not in ((size, size), (size, size, 3)) or not len(images):
        raise _wrong(path, key, f"[N, {size}, {size}] or [N, {size}, {size}, 3], N at least 1", list(images.shape))
    return images


def _checked_labels(
    path: Path, key: str, arrays: dict[str, np.ndarray], num_classes: int, multilabel: bool
) -> np.ndarray:
    labels = arrays[key]
    if labels.dtype.kind not in "iu":
        raise _wrong(path, key, "integers", labels.dtype)
    width = num_classes if multilabel else 1
    if labels.shape[1:] != (width,) and not (labels.ndim == 1 and width == 1 and not multilabel):
        raise _wrong(path, key, f"[N, {width}]", list(labels.shape))
    highest = 1 if multilabel else num_classes - 1
    if len(labels) and (labels.min() < -1 or labels.max() > highest):
        extremes = f"{labels.min()} to {labels.max()}"
        raise _wrong(path, key, f"0 to {highest}, or -1 where not labelled", extremes)
    if multilabel and ((labels < 0).any(1) != (labels < 0).all(1)).any():
        raise _wrong(path, key, "-1 in a whole row or nowhere in it", "rows that are partly -1")
    return labels.astype(np.int64) if multilabel else labels.astype(np.int64).reshape(-1)


def _checked_groups(path: Path, key: str, arrays: dict[str, np.ndarray]) -> np.ndarray | None:
    groups = arrays.get(key)
    if groups is None:
        return None
    if groups.dtype.kind != "U" or groups.ndim != 1:
        raise _wrong(path, key, "strings [N]", f"{groups.dtype} {list(groups.shape)}")
    return groups


def _wrong(path: Path, key: str, expected: str, got: object) -> ValueError:
    return ValueError(f"{key} of {path.name} in {path.parent} must be {expected}, got {got}")
