"""Image folders `<split>/<class>/<file>`: listed, decoded to squares of one size, patients read from a CSV.

How one file becomes an image, and which are skipped, stands in `images`; the set is grey where all its images are.
Names and reasons of skipped files stand in the provenance. What would change the task is refused: a class without a
readable image, a class folder that is a broken link or the same folder as another, names that are not printable, and
a set that does not fit into memory.
"""

from __future__ import annotations

__all__ = ["FolderData", "read_folder"]

import hashlib
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
from tqdm.auto import tqdm

from .archives import SPLITS, SplitArrays
from .images import EXTENSIONS, Decoded, decode_image
from .memory import require_memory
from .patients import read_groups

CHUNK = 64  # files a thread takes at a time
NUM_THREADS = 4  # Pillow holds the GIL while it decodes: threads hide the disk's waits, no more


@dataclass(frozen=True, eq=False, kw_only=True)
class FolderData:
    """An image folder, read.

    Args:
        class_names: the sorted names of train's class folders.
        splits: the splits that are there, train at least; labels -1 where there is but one class.
        sha256: digest over the names and bytes of all files used.
        skipped: files that could not be decoded, relative to the folder, with the reason, one of `SKIPPED`.
        notes: what was done to the images, in sentences.
    """

    class_names: tuple[str, ...]
    splits: dict[str, SplitArrays]
    sha256: str
    skipped: dict[str, str]
    notes: tuple[str, ...]


class _File(NamedTuple):
    split: str
    label: int
    path: Path


def read_folder(folder: Path, size: int) -> FolderData:
    """Read `<folder>/{train,val,test}/<class>/*.{png,jpg,jpeg,webp}`.

    Patients come from `groups.csv` (columns `file`, `group`) or `index.csv` (`file`, `patient`) in the
    folder; `file` is a path from the folder, from the split, or a bare name that no two images share.

    Args:
        folder: holds `train` at least.
        size: side the images are resized to, px.

    Returns:
        Arrays of the splits that exist, and a record.

    Raises:
        FileNotFoundError: no `train` folder with class folders in it.
        ValueError: a class folder without images, a class that train lacks, or a CSV that does not fit.
    """
    class_names, files = _list_files(folder)
    decoded = _decode_all(folder, files, size)
    read = list(zip(files, decoded, strict=True))
    kept = [(file, image) for file, image in read if isinstance(image, Decoded)]
    skipped = {_relative(file.path, folder): image for file, image in read if isinstance(image, str)}
    del decoded, read
    _check_none_empty(folder, class_names, files, [file for file, _ in kept])
    paths = [_relative(file.path, folder) for file, _ in kept]
    groups, notes = read_groups(folder, paths)
    digest = hashlib.sha256()
    for path, (_, image) in zip(paths, kept, strict=True):
        digest.update(f"{path}\n".encode() + image.digest)
    notes = [*_describe(paths, [image for _, image in kept], size, skipped), *notes, *_copies(kept)]
    if len(class_names) == 1:
        notes.append(f"one class folder ({class_names[0]}): images are read as not labelled")
    rgb = any(image.pixels.ndim == 3 for _, image in kept)
    splits = {}
    for split in dict.fromkeys(file.split for file, _ in kept):
        rows = [i for i, (file, _) in enumerate(kept) if file.split == split]
        labels = np.array([kept[i][0].label if len(class_names) > 1 else -1 for i in rows], np.int64)
        stack = _stack([kept[i][1].pixels for i in rows], rgb)
        splits[split] = SplitArrays(stack, labels, None if groups is None else groups[rows])
    return FolderData(
        class_names=class_names, splits=splits, sha256=digest.hexdigest(), skipped=skipped, notes=tuple(notes)
    )


def _relative(path: Path, folder: Path) -> str:
    """A file's place in the folder as text: what cannot be printed is written as an escape."""
    place = path.relative_to(folder).as_posix()
    return place if place.isprintable() else place.encode("ascii", "backslashreplace").decode().replace("\n", "\\n")


def _class_folders(split_folder: Path) -> list[Path]:
    found = []
    for path in sorted(split_folder.iterdir()):
        if path.name.startswith((".", "__")):
            continue
        if path.is_dir():
            if not path.name.isprintable():
                raise ValueError(
                    f"class folders must have printable names, got {path.name!r} in {split_folder}: rename it"
                )
            found.append(path)
        elif path.is_symlink() and not path.exists() and path.suffix.lower() not in EXTENSIONS:
            raise ValueError(
                f"class folder {path} must lead to a folder, got a broken or circular link: mend or remove it"
            )
    return found


def _list_files(folder: Path) -> tuple[tuple[str, ...], list[_File]]:
    train = folder / "train"
    class_names = tuple(p.name for p in _class_folders(train)) if train.is_dir() else ()
    if not class_names:
        raise FileNotFoundError(
            f"{folder} must hold train/<class>/ with images in it, got no class folder in train: name another folder"
        )
    files, seen = [], dict[Path, Path]()
    for split in SPLITS:
        split_folder = folder / split
        for class_folder in _class_folders(split_folder) if split_folder.is_dir() else ():
            if class_folder.name not in class_names:
                raise ValueError(
                    f"classes of {folder / split} must be among train's, {', '.join(class_names)}, "
                    f"got {class_folder.name}: rename it or add it to train"
                )
            other = seen.setdefault(class_folder.resolve(), class_folder)
            if other is not class_folder:
                raise ValueError(
                    f"class folders must be different folders, got {other} twice, also as {class_folder}: "
                    "give each its own images"
                )
            found = _image_paths(class_folder)
            if not found:
                raise ValueError(
                    f"class folder {class_folder} must hold images ({', '.join(EXTENSIONS)}), got none: "
                    "add some or remove the folder"
                )
            files += [_File(split, class_names.index(class_folder.name), path) for path in found]
    return class_names, files


def _image_paths(class_folder: Path) -> list[Path]:
    """Everything called like an image, whatever it is: what is none is skipped by name later."""
    return sorted(p for p in class_folder.iterdir() if p.suffix.lower() in EXTENSIONS and not p.name.startswith("."))


def _check_none_empty(folder: Path, class_names: tuple[str, ...], listed: list[_File], kept: list[_File]) -> None:
    lost = sorted({file[:2] for file in listed} - {file[:2] for file in kept})
    if lost:
        split, label = lost[0]
        class_folder = folder / split / class_names[label]
        raise ValueError(
            f"class folder {class_folder} must hold readable images, got only files that cannot be decoded: "
            "replace them or remove the folder"
        )


def _decode_all(folder: Path, files: list[_File], size: int) -> list[Decoded | str]:
    """Each file's image, or why it is skipped."""
    chunks = [files[i : i + CHUNK] for i in range(0, len(files), CHUNK)]
    decoded: list[Decoded | str] = []
    _require_memory(folder, len(files), size * size)
    with (
        ThreadPoolExecutor(NUM_THREADS) as pool,
        tqdm(desc=f"decoding {folder.name}", total=len(files), unit="img", disable=None, leave=False) as bar,
    ):
        for part in pool.map(lambda chunk: [decode_image(file.path, size) for file in chunk], chunks):
            if not decoded and any(isinstance(image, Decoded) and image.pixels.ndim == 3 for image in part):
                _require_memory(folder, len(files), 3 * size * size)
            decoded += part
            bar.update(len(part))
    return decoded


def _require_memory(folder: Path, count: int, bytes_each: int) -> None:
    """Each image is held twice: as it was decoded, and in the array of its split."""
    require_memory(f"{count:,} images of {folder.name}", 2 * count * bytes_each, "take a smaller size or fewer images")


def _stack(images: list[np.ndarray], rgb: bool) -> np.ndarray:
    """uint8 [N, S, S], or [N, S, S, 3] where rgb."""
    stack = np.empty((len(images), *images[0].shape[:2], *((3,) if rgb else ())), np.uint8)
    for i, image in enumerate(images):
        stack[i] = image[..., None] if rgb and image.ndim == 2 else image
    return stack


def _describe(paths: list[str], images: list[Decoded], size: int, skipped: dict[str, str]) -> Iterator[str]:
    yield f"centre-cropped to a square and resized to {size} px (bicubic)"
    enlarged = sum(image.side_px < size for image in images)
    if enlarged:
        yield f"{enlarged} of {len(images)} images are smaller than {size} px and were enlarged"
    coloured = [path for path, image in zip(paths, images, strict=True) if image.pixels.ndim == 3]
    if 0 < len(coloured) < len(images):
        share = f"{len(coloured)} of {len(images)} images"
        yield f"{share} are coloured (first {coloured[0]}), so all are kept as RGB"
    if skipped:
        reasons = ", ".join(f"{count} {reason}" for reason, count in Counter(skipped.values()).items())
        named = ", ".join(list(skipped)[:5]) + (", …" if len(skipped) > 5 else "")
        yield f"{len(skipped)} of {len(skipped) + len(images)} files were skipped ({reasons}): {named}"


def _copies(kept: list[tuple[_File, Decoded]]) -> Iterator[str]:
    """Files of val and test that are also in train, byte for byte: what is learnt there is not tested."""
    train = {image.digest for file, image in kept if file.split == "train"}
    for split in SPLITS[1:]:
        own = [image.digest in train for file, image in kept if file.split == split]
        if any(own):
            yield f"{sum(own)} of {len(own)} {split} files are also in train, byte for byte"
