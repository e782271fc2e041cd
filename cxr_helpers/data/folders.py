"""Image folders `<split>/<class>/<file>`, or `<split>/<file>` without labels, read as squares of one size.

Splits are `train`, `val` or `valid`, and `test`; what is missing is carved from train. Every image becomes 8-bit grey
or RGB, by its EXIF orientation: more than 8 bits are scaled by the range of all such images, transparency is laid over
black. The largest centred square is resized with Pillow's antialiased bicubic filter. Files that cannot be read are
skipped, and stand in the provenance.

Patients come from `groups.csv` or `index.csv` in the folder: columns `file` and `patient`; `file` is a path from the
folder, from the split, or a bare name that no two images share.
"""

from __future__ import annotations

import hashlib
import io
from collections import Counter
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import torch
from PIL import Image, ImageOps
from tqdm.contrib.concurrent import thread_map

from ..fields import require
from .dataset import Dataset, Split, Task, carve_missing

__all__ = ["image_folder"]

EXTENSIONS = (".png", ".jpg", ".jpeg", ".webp", ".tif", ".tiff", ".gif", ".bmp")
FORMATS = ("PNG", "JPEG", "WEBP", "TIFF", "GIF", "BMP")
SPLIT_FOLDERS = {"train": "train", "val": "val", "valid": "val", "test": "test"}
NO_CLASS = "unlabelled"  # the one class of images without class folders
GREY_TOLERANCE = 3  # of 255, between the channels of a grey image: a lossy WebP of one differs by 1


class _File(NamedTuple):
    path: Path
    name: str  # its path from the folder
    split: str
    label: int


class _Image(NamedTuple):
    file: _File
    pixels: np.ndarray  # [S, S] or [S, S, 3]; uint8, or float32 where it has more than 8 bits
    extremes: Any  # lowest and highest value before resizing
    digest: bytes


def image_folder(folder: Path, size: int, name: str) -> Dataset:
    """Read an image folder as `size` px: binary where there are two classes; labels -1 where there are less.

    Raises:
        FileNotFoundError: no folder `train` with class folders or images.
        ValueError: a class folder without images, a class that train lacks, a CSV that does not fit, or too few
            images to carve from.
    """
    class_names, listed = _list_files(folder)
    about: dict[str, Any] = {"desc": f"decoding {name}", "unit": "img", "disable": None, "leave": False}
    read = thread_map(partial(_decode, size=size), listed, max_workers=4, **about)  # threads hide the disk's waits
    images = [image for image in read if isinstance(image, _Image)]
    skipped = {file.name: reason for file, reason in zip(listed, read, strict=True) if isinstance(reason, str)}
    for split, label in sorted({file[2:] for file in listed} - {image.file[2:] for image in images}):
        place = f"class folder {split}/{class_names[label]} of {folder}"
        raise ValueError(f"{place} must hold readable images, got none: replace them or remove the folder")
    digest = hashlib.sha256(b"".join(f"{i.file.name}\n".encode() + i.digest for i in images)).hexdigest()
    groups, patients = _read_patients(folder, pd.Series([image.file.name for image in images]))
    notes = [f"centre-cropped to a square and resized to {size} px (bicubic)", *_notes(images, skipped), *patients]
    if len(class_names) == 1:
        notes.append(f"one class ({class_names[0]}): images are read as not labelled")
    splits, carved = carve_missing(_as_splits(images, groups, labelled=len(class_names) > 1), name)
    record: dict[str, Any] = {"source": f"image folder {folder.resolve().name}", "status": "image folder"}
    record |= {"sha256": digest, "skipped": skipped, "notes": [*notes, *carved]}
    task: Task = "binary" if len(class_names) == 2 else "multiclass"
    return Dataset(name=name, size=size, task=task, class_names=class_names, provenance=record, **splits)


def _list_files(folder: Path) -> tuple[tuple[str, ...], list[_File]]:
    """The sorted class folders of train, and what is called like an image in those of every split."""

    def find(pattern: str) -> list[Path]:
        paths = [p.relative_to(folder) for name in SPLIT_FOLDERS for p in sorted((folder / name).glob(pattern))]
        hidden = [any(part.startswith((".", "__")) for part in path.parts) for path in paths]
        return [p for p, hide in zip(paths, hidden, strict=True) if p.suffix.lower() in EXTENSIONS and not hide]

    paths = find("*/*")
    class_names = tuple(sorted({path.parts[1] for path in paths if path.parts[0] == "train"}))
    if not class_names:
        paths, class_names = find("*"), (NO_CLASS,)
        if not any(path.parts[0] == "train" for path in paths):
            raise FileNotFoundError(f"{folder} must hold images in train/<class>/ or in train: name another folder")
    files = []
    for path in paths:
        split, *classes, _ = path.parts
        own, among = (classes or [NO_CLASS])[0], f"among train's, {', '.join(class_names)}"
        require(own in class_names, f"classes of {folder / split}", among, own)
        files.append(_File(folder / path, path.as_posix(), SPLIT_FOLDERS[split], class_names.index(own)))
    return class_names, files


def _decode(file: _File, size: int) -> _Image | str:
    """A file as a square, or why it is skipped."""
    try:
        content = file.path.read_bytes()
        with Image.open(io.BytesIO(content), formats=FORMATS) as opened:
            image = _grey_or_rgb(ImageOps.exif_transpose(opened))
    except Exception as error:  # Pillow's decoders raise a dozen kinds on a damaged file
        return type(error).__name__
    extremes, side_px = image.getextrema(), min(image.size)
    if image.size != (size, size):
        left, top = ((extent - side_px) // 2 for extent in image.size)
        square = image.crop((left, top, left + side_px, top + side_px))  # resize(box=…) would look beyond it
        image = square.resize((size, size), Image.Resampling.BICUBIC)
    pixels = np.asarray(image)
    if pixels.ndim == 3 and np.ptp(pixels.transpose(2, 0, 1).copy(), axis=0).max() <= GREY_TOLERANCE:  # copied: fast
        pixels = np.asarray(image.convert("L"))
    return _Image(file, pixels, extremes, hashlib.sha256(content).digest())


def _grey_or_rgb(image: Image.Image) -> Image.Image:
    """Any of Pillow's modes as "L", "RGB" or, with more than 8 bits, "F"."""
    if image.mode[0] in "IF":
        return image.convert("F")
    if image.has_transparency_data:
        with_alpha = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", image.size, (0, 0, 0, 255)), with_alpha).convert("RGB")
    return image.convert("L" if image.mode in ("1", "L") else "RGB")


def _range_of(images: list[_Image]) -> tuple[float, float]:
    """Lowest and highest value of the images with more than 8 bits; 0 and 0 without any."""
    wide = [image.extremes for image in images if image.pixels.dtype == np.float32] or [(0, 0)]
    return float(np.min(wide)), float(np.max(wide))


def _as_splits(images: list[_Image], groups: np.ndarray | None, labelled: bool) -> dict[str, Split]:
    (low, high), colour = _range_of(images), any(image.pixels.ndim == 3 for image in images)

    def planes(pixels: np.ndarray) -> np.ndarray:
        if pixels.dtype == np.float32:
            pixels = np.rint((pixels.clip(low, high) - low) * (255 / ((high - low) or 1))).astype(np.uint8)
        return pixels.transpose(2, 0, 1) if pixels.ndim == 3 else np.stack([pixels] * (3 if colour else 1))

    splits = {}
    for name in dict.fromkeys(image.file.split for image in images):
        rows = [i for i, image in enumerate(images) if image.file.split == name]
        stack = torch.from_numpy(np.stack([planes(images[row].pixels) for row in rows]))
        labels = torch.tensor([images[row].file.label if labelled else -1 for row in rows])
        splits[name] = Split(images=stack, labels=labels, groups=None if groups is None else groups[rows])
    return splits


def _notes(images: list[_Image], skipped: dict[str, str]) -> list[str]:
    """What is coloured, was converted, is in train and another split byte for byte, or was skipped."""
    notes, count = [], len(images)
    coloured = [image.file.name for image in images if image.pixels.ndim == 3]
    if 0 < len(coloured) < count:
        notes.append(f"{len(coloured)} of {count} images are coloured (first {coloured[0]}), so all are kept as RGB")
    if wide := sum(image.pixels.dtype == np.float32 for image in images):
        low, high = _range_of(images)
        notes.append(f"{wide} images have more than 8 bits: their range, {low:.0f} to {high:.0f}, became 0 to 255")
    train = {image.digest for image in images if image.file.split == "train"}
    for split in ("val", "test"):
        copies = [image.digest in train for image in images if image.file.split == split]
        if any(copies):
            notes.append(f"{sum(copies)} of {len(copies)} {split} files are also in train, byte for byte")
    if skipped:
        reasons = ", ".join(f"{times} {reason}" for reason, times in Counter(skipped.values()).items())
        first = next(iter(skipped))
        notes.append(f"{len(skipped)} of {len(skipped) + count} files were skipped ({reasons}), first {first}")
    return notes


def _read_patients(folder: Path, files: pd.Series) -> tuple[np.ndarray | None, list[str]]:
    """The patient of each image, by the first table that knows any; an image without a row is its own patient."""
    for path in filter(Path.is_file, (folder / "groups.csv", folder / "index.csv")):
        table = pd.read_csv(path, dtype=str, keep_default_na=False, encoding="utf-8-sig", index_col=False)
        if path.name == "index.csv" and "patient" not in table:
            continue
        require({"file", "patient"} <= {*table}, f"{path}", "a table with the columns file and patient", [*table])
        rows = table[table["patient"] != ""].drop_duplicates(["file", "patient"])
        known = rows.set_index("file")["patient"]
        require(known.index.is_unique, f"{path}", "a table of one patient per file", "several")
        patients = files.map(known)
        for names in (files.str.partition("/")[2], files.str.rpartition("/")[2]):
            shared = names[names.isin(known.index) & names.duplicated()]
            require(shared.empty, f"names in {path}", "paths where two images share one", [*shared])
            patients = patients.fillna(names.map(known))
        alone = patients.isna()
        require(not alone.all(), f"{path}", "a table of the folder's images", f"{len(table)} rows of others")
        notes = [f"{alone.sum()} images without a row in {path.name} count as a patient each"] * bool(alone.any())
        groups = patients.fillna("file:" + files).to_numpy(dtype=str)
        return groups, [f"patients from {path.name}", *notes]
    return None, []
