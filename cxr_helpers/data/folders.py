"""Image folders `<split>/<class>/<file>`: listed, decoded to squares of one size, patients read from a CSV.

Every image becomes 8-bit grey or RGB: the EXIF orientation is applied; 16-bit grey is divided by 257;
palettes, CMYK and the like become RGB; transparency is laid over black; of several frames the first counts.
An image is grey where its channels differ by at most `GREY_TOLERANCE`; the set is grey where all images are.
The largest centred square is kept and resized with Pillow's antialiased bicubic filter.
"""

from __future__ import annotations

__all__ = ["FolderData", "read_folder"]

import csv
import hashlib
import io
import struct
import zlib
from collections import defaultdict
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageOps
from tqdm.auto import tqdm

from .archives import SPLITS, SplitArrays

EXTENSIONS = (".png", ".jpg", ".jpeg", ".webp")
FORMATS = ("PNG", "JPEG", "WEBP")
GREY_TOLERANCE = 3  # of 255: a lossy WebP of a grey image differs by 1
BROKEN_IMAGE = (  # what Pillow's decoders raise, in practice, on a damaged file
    OSError,
    EOFError,
    SyntaxError,
    ValueError,
    TypeError,
    LookupError,
    ArithmeticError,
    struct.error,
    zlib.error,
    Image.DecompressionBombError,
)
CHUNK = 64  # files a thread takes at a time
NUM_THREADS = 4  # Pillow holds the GIL while it decodes: threads hide the disk's waits, no more


@dataclass(frozen=True, eq=False, kw_only=True)
class FolderData:
    """An image folder, read.

    Args:
        class_names: the sorted names of train's class folders.
        splits: the splits that are there, train at least; labels -1 where there is but one class.
        sha256: digest over the names and bytes of all files used.
        skipped: files that could not be decoded, relative to the folder.
        notes: what was done to the images, in sentences.
    """

    class_names: tuple[str, ...]
    splits: dict[str, SplitArrays]
    sha256: str
    skipped: tuple[str, ...]
    notes: tuple[str, ...]


class _File(NamedTuple):
    split: str
    label: int
    path: Path


class _Decoded(NamedTuple):
    pixels: np.ndarray  # uint8 [S, S] or [S, S, 3]
    digest: bytes
    side_px: int  # of the square before resizing


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
    kept = [(file, image) for file, image in zip(files, decoded, strict=True) if image is not None]
    skipped = tuple(_relative(f.path, folder) for f, image in zip(files, decoded, strict=True) if image is None)
    del decoded
    _check_none_empty(folder, class_names, files, [file for file, _ in kept])
    paths = [_relative(file.path, folder) for file, _ in kept]
    groups, notes = _read_groups(folder, paths)
    digest = hashlib.sha256()
    for path, (_, image) in zip(paths, kept, strict=True):
        digest.update(f"{path}\n".encode() + image.digest)
    notes = [*_describe(paths, [image for _, image in kept], size, skipped), *notes]
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
    return path.relative_to(folder).as_posix()


def _class_folders(split_folder: Path) -> list[Path]:
    return sorted(p for p in split_folder.iterdir() if p.is_dir() and not p.name.startswith((".", "__")))


def _list_files(folder: Path) -> tuple[tuple[str, ...], list[_File]]:
    train = folder / "train"
    class_names = tuple(p.name for p in _class_folders(train)) if train.is_dir() else ()
    if not class_names:
        raise FileNotFoundError(f"{folder} must hold train/<class>/ with images in it, got no class folder in train")
    files = []
    for split in SPLITS:
        split_folder = folder / split
        for class_folder in _class_folders(split_folder) if split_folder.is_dir() else ():
            if class_folder.name not in class_names:
                raise ValueError(
                    f"classes of {folder / split} must be among train's, {', '.join(class_names)}, "
                    f"got {class_folder.name}"
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
    return sorted(
        p
        for p in class_folder.iterdir()
        if p.suffix.lower() in EXTENSIONS and not p.name.startswith(".") and p.is_file()
    )


def _check_none_empty(folder: Path, class_names: tuple[str, ...], listed: list[_File], kept: list[_File]) -> None:
    lost = sorted({file[:2] for file in listed} - {file[:2] for file in kept})
    if lost:
        split, label = lost[0]
        class_folder = folder / split / class_names[label]
        raise ValueError(
            f"class folder {class_folder} must hold readable images, got only files that cannot be decoded"
        )


def _decode_all(folder: Path, files: list[_File], size: int) -> list[_Decoded | None]:
    chunks = [files[i : i + CHUNK] for i in range(0, len(files), CHUNK)]
    decoded: list[_Decoded | None] = []
    with (
        ThreadPoolExecutor(NUM_THREADS) as pool,
        tqdm(desc=f"decoding {folder.name}", total=len(files), unit="img", disable=None, leave=False) as bar,
    ):
        for part in pool.map(lambda chunk: [_decode(file.path, size) for file in chunk], chunks):
            decoded += part
            bar.update(len(part))
    return decoded


def _decode(path: Path, size: int) -> _Decoded | None:
    """A file as a square of uint8, or None where it cannot be read."""
    try:
        content = path.read_bytes()
        with Image.open(io.BytesIO(content), formats=FORMATS) as opened:
            opened.load()
            image = _eight_bit(ImageOps.exif_transpose(opened))
    except BROKEN_IMAGE:
        return None
    side_px = min(image.size)
    if image.size != (size, size):
        left, top = ((extent - side_px) // 2 for extent in image.size)
        square = image.crop((left, top, left + side_px, top + side_px))  # resize(box=…) would look beyond it
        image = square.resize((size, size), Image.Resampling.BICUBIC)
    pixels = np.asarray(image)
    if pixels.ndim == 3 and _is_grey(pixels[::8, ::8]) and _is_grey(pixels):  # few pixels tell most colours
        pixels = np.asarray(image.convert("L"))
    return _Decoded(pixels, hashlib.sha256(content).digest(), side_px)


def _is_grey(pixels: np.ndarray) -> bool:
    red, green, blue = (pixels[..., i].astype(np.int16) for i in range(3))
    lowest, highest = np.minimum(np.minimum(red, green), blue), np.maximum(np.maximum(red, green), blue)
    return int((highest - lowest).max()) <= GREY_TOLERANCE


def _eight_bit(image: Image.Image) -> Image.Image:
    """Any of Pillow's modes as "L" or "RGB"."""
    if image.mode.startswith("I"):  # "I;16" and its kin, or 16 bits in "I"
        wide = np.asarray(image).astype(np.int64).clip(0, 65535)
        return Image.fromarray(((wide + 128) // 257).astype(np.uint8))
    if image.mode in ("LA", "La", "PA", "RGBA", "RGBa") or "transparency" in image.info:
        with_alpha = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", image.size, (0, 0, 0, 255)), with_alpha).convert("RGB")
    if image.mode in ("1", "L"):
        return image.convert("L")
    return image.convert("RGB")


def _stack(images: list[np.ndarray], rgb: bool) -> np.ndarray:
    """uint8 [N, S, S], or [N, S, S, 3] where rgb."""
    stack = np.empty((len(images), *images[0].shape[:2], *((3,) if rgb else ())), np.uint8)
    for i, image in enumerate(images):
        stack[i] = image[..., None] if rgb and image.ndim == 2 else image
    return stack


def _describe(paths: list[str], images: list[_Decoded], size: int, skipped: tuple[str, ...]) -> Iterator[str]:
    yield f"centre-cropped to a square and resized to {size} px (bicubic)"
    enlarged = sum(image.side_px < size for image in images)
    if enlarged:
        yield f"{enlarged} of {len(images)} images are smaller than {size} px and were enlarged"
    coloured = [path for path, image in zip(paths, images, strict=True) if image.pixels.ndim == 3]
    if 0 < len(coloured) < len(images):
        share = f"{len(coloured)} of {len(images)} images"
        yield f"{share} are coloured (first {coloured[0]}), so all are kept as RGB"
    if skipped:
        named = ", ".join(skipped[:5]) + (", …" if len(skipped) > 5 else "")
        yield f"{len(skipped)} unreadable files were skipped: {named}"


def _read_groups(folder: Path, paths: list[str]) -> tuple[np.ndarray | None, list[str]]:
    """The patient of each image from the folder's CSV; an image without a row is its own patient."""
    table = _group_table(folder)
    if table is None:
        return None, []
    source, rows = table
    images_of = defaultdict(set)
    for i, path in enumerate(paths):
        for key in (path, path.split("/", 1)[1], path.rsplit("/", 1)[1]):
            images_of[key].add(i)
    group_of: dict[int, str] = {}
    for file, group in rows:
        matches = images_of.get(file.replace("\\", "/").removeprefix("./"), set())
        if len(matches) > 1:
            raise ValueError(
                f"file {file} of {source} in {folder} must name one image, got {len(matches)}: "
                "write its path from the data set's folder"
            )
        for i in matches:
            if group_of.setdefault(i, group) != group:
                raise ValueError(f"{source} in {folder} must give {file} one group, got {group_of[i]} and {group}")
    if not group_of:
        raise ValueError(f"{source} in {folder} must name images of the folder, got none of them in {len(rows)} rows")
    alone = len(paths) - len(group_of)
    notes = [f"patients from {source}"]
    if alone:
        notes.append(f"{alone} images without a row in {source} count as a patient each")
    return np.array([group_of.get(i, f"file:{path}") for i, path in enumerate(paths)], dtype=np.str_), notes


def _group_table(folder: Path) -> tuple[str, list[tuple[str, str]]] | None:
    """Name and (file, group) rows of the first CSV that knows patients."""
    for name, column, required in (("groups.csv", "group", True), ("index.csv", "patient", False)):
        path = folder / name
        if not path.is_file():
            continue
        with path.open(newline="", encoding="utf-8-sig") as handle:
            reader = csv.DictReader(handle)
            columns = reader.fieldnames or []
            if {"file", column} <= set(columns):
                rows = [(row["file"] or "", row[column] or "") for row in reader]
                return name, [row for row in rows if all(row)]
        if required:
            raise ValueError(f"{path} must have the columns file and {column}, got {', '.join(columns) or 'none'}")
    return None
