"""MedMNIST's `.npz` files, checked and read as plain arrays.

The headers are read first: an array of another dtype, shape or length than it must have, or one that does not fit
into memory, is refused before it is allocated, whatever its header claims. Pickled objects are never loaded.
"""

from __future__ import annotations

__all__ = ["SPLITS", "SplitArrays", "file_digests", "read_npz"]

import hashlib
import math
import zipfile
from pathlib import Path
from typing import BinaryIO, NamedTuple

import numpy as np

from .memory import require_memory

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
        ValueError: the file is damaged, lacks an array, or an array has the wrong dtype, shape, range or length, or
            more bytes than there is memory.
        OSError: the file cannot be read.
    """
    arrays = _load_arrays(path, size, num_classes, multilabel)
    splits = {}
    for split in SPLITS:
        labels = _checked_labels(path, f"{split}_labels", arrays[f"{split}_labels"], num_classes, multilabel)
        groups = _checked_groups(path, f"{split}_groups", arrays.get(f"{split}_groups"))
        splits[split] = SplitArrays(arrays[f"{split}_images"], labels, groups)
    return splits


class _Header(NamedTuple):
    """What an array says of itself before it is read; stands in for it in the checks of dtype and shape."""

    shape: tuple[int, ...]
    dtype: np.dtype

    @property
    def nbytes(self) -> int:
        return math.prod(self.shape) * self.dtype.itemsize


def _load_arrays(path: Path, size: int, num_classes: int, multilabel: bool) -> dict[str, np.ndarray]:
    try:
        handle = path.open("rb")  # outside the next try: a permission error is not a damaged file
    except OSError as error:
        raise OSError(
            f"{path.name} in {path.parent} must be readable, got {error.strerror}: change its permissions"
        ) from error
    with handle:
        try:
            headers = _read_headers(handle)
        except Exception as error:  # damaged bytes raise a dozen kinds in zipfile, zlib, tokenize and numpy
            raise _damaged(path, error) from error
        _check_headers(path, headers, size, num_classes, multilabel)
        largest = max(header.nbytes for key, header in headers.items() if key.endswith("_images"))
        needed = sum(header.nbytes for header in headers.values()) + largest  # colour is transposed: one split twice
        require_memory(f"images of {path.name} in {path.parent}", needed, "take a smaller size or a machine with more")
        handle.seek(0)
        try:
            archive = np.load(handle, allow_pickle=False)
            return {key: archive[key] for key in headers}
        except Exception as error:
            raise _damaged(path, error) from error


def _damaged(path: Path, error: BaseException) -> ValueError:
    reason = " ".join((str(error) or type(error).__name__).split())[:200]
    return ValueError(
        f"{path.name} in {path.parent} must be a complete .npz of plain arrays, got one that is "
        f"damaged or truncated ({reason}): move it away to have it downloaded again"
    )


def _read_headers(handle: BinaryIO) -> dict[str, _Header]:
    """Shape and dtype of each array that is ours, no array read; fields of the archive that are not ours are left."""
    ours = {f"{split}_{part}" for split in SPLITS for part in ("images", "labels", "groups")}
    headers = {}
    with zipfile.ZipFile(handle) as archive:
        for info in archive.infolist():
            key = info.filename.removesuffix(".npy")
            if key not in ours or not info.filename.endswith(".npy"):
                continue
            with archive.open(info) as member:
                version = np.lib.format.read_magic(member)
                read = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
                shape, _, dtype = read[version](member)
                header = _Header(tuple(int(n) for n in shape), dtype)
                if dtype.hasobject:
                    raise ValueError(f"{key} holds Python objects")
                if min(header.shape, default=0) < 0 or member.tell() + header.nbytes != info.file_size:
                    raise ValueError(f"{key} is not as long as its header says")
            headers[key] = header
    return headers


def _check_headers(path: Path, headers: dict[str, _Header], size: int, num_classes: int, multilabel: bool) -> None:
    missing = [f"{s}_{part}" for s in SPLITS for part in ("images", "labels") if f"{s}_{part}" not in headers]
    if missing:
        raise ValueError(
            f"{path.name} in {path.parent} must hold images and labels of {', '.join(SPLITS)}, "
            f"got no {', '.join(sorted(missing))}"
        )
    for split in SPLITS:
        images, labels = headers[f"{split}_images"], headers[f"{split}_labels"]
        groups = headers.get(f"{split}_groups")
        _check_images(path, f"{split}_images", images, size)
        _check_labels(path, f"{split}_labels", labels, num_classes, multilabel)
        if groups is not None and (groups.dtype.kind != "U" or len(groups.shape) != 1):
            raise _wrong(path, f"{split}_groups", "strings [N]", f"{groups.dtype} {list(groups.shape)}")
        for key, other in ((f"{split}_labels", labels), (f"{split}_groups", groups)):
            if other is not None and other.shape[0] != images.shape[0]:
                raise _wrong(path, key, f"as long as {split}_images, {images.shape[0]}", other.shape[0])


def _check_images(path: Path, key: str, images: _Header, size: int) -> None:
    if images.dtype != np.uint8:
        raise _wrong(path, key, "uint8", images.dtype)
    if images.shape[1:] not in ((size, size), (size, size, 3)) or not images.shape[0]:
        raise _wrong(path, key, f"[N, {size}, {size}] or [N, {size}, {size}, 3], N at least 1", list(images.shape))


def _check_labels(path: Path, key: str, labels: _Header, num_classes: int, multilabel: bool) -> None:
    if labels.dtype.kind not in "iu":
        raise _wrong(path, key, "integers", labels.dtype)
    width = num_classes if multilabel else 1
    if labels.shape[1:] != (width,) and not (len(labels.shape) == 1 and not multilabel):
        raise _wrong(path, key, f"[N, {width}]", list(labels.shape))


def _checked_labels(path: Path, key: str, labels: np.ndarray, num_classes: int, multilabel: bool) -> np.ndarray:
    highest = 1 if multilabel else num_classes - 1
    if labels.min() < -1 or labels.max() > highest:
        extremes = f"{labels.min()} to {labels.max()}"
        raise _wrong(path, key, f"0 to {highest}, or -1 where not labelled", extremes)
    if multilabel and ((labels < 0).any(1) != (labels < 0).all(1)).any():
        raise _wrong(path, key, "-1 in a whole row or nowhere in it", "rows that are partly -1")
    return labels.astype(np.int64) if multilabel else labels.astype(np.int64).reshape(-1)


def _checked_groups(path: Path, key: str, groups: np.ndarray | None) -> np.ndarray | None:
    if groups is None:
        return None
    try:
        names = groups.tolist()
    except ValueError:  # numbers that are no characters
        raise _wrong(path, key, "printable names of patients", "bytes that are no text") from None
    odd = [name for name in names if not name or not name.isprintable()]
    if odd:
        raise _wrong(path, key, "printable names of patients, none empty", f"{odd[0]!r}")
    return groups


def _wrong(path: Path, key: str, expected: str, got: object) -> ValueError:
    return ValueError(
        f"{key} of {path.name} in {path.parent} must be {expected}, got {got}: rewrite or replace the file"
    )
