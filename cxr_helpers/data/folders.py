"""Image folders `<split>/<class>/<file>`, or `<split>/<file>` without labels, read as squares of one size.

Splits are `train`, `val` or `valid`, and `test`; what is missing is carved from train. Every image becomes 8-bit grey
or RGB, by its EXIF orientation: more than 8 bits are scaled by the range of all such images, transparency is laid over
black, of several frames the first counts. The largest centred square is resized with Pillow's antialiased bicubic
filter. DICOM films are read through their window (extra `dicom`). Files that are no images are skipped, and stand in
the provenance with the reason.

Patients come from `groups.csv` or `index.csv` in the folder: columns `file` and `patient` or `group`; `file` is a path
from the folder, from the split, or a bare name that no two images share.
"""

from __future__ import annotations

import hashlib
import io
from collections import Counter, defaultdict
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import torch
from PIL import Image, ImageOps
from tqdm.contrib.concurrent import thread_map

from ..fields import require
from .dataset import Dataset, Split, carve_missing
from .dicom import DICOM, decode_dicom, require_pydicom

__all__ = ["image_folder"]

EXTENSIONS = (".png", ".jpg", ".jpeg", ".webp", ".tif", ".tiff", ".gif", ".bmp", DICOM)
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
        FileNotFoundError: no images in `train`, in class folders or without.
        ValueError: a class folder without images, a class that train lacks, a CSV that does not fit, or too few
            images to carve from.
    """
    class_names, listed = _list_files(folder)
    if any(file.path.suffix.lower() == DICOM for file in listed):
        require_pydicom(folder)
    about: dict[str, Any] = {"desc": f"decoding {name}", "unit": "img", "disable": None, "leave": False}
    read = thread_map(partial(_decode, size=size), listed, max_workers=4, **about)  # threads hide the disk's waits
    images = [image for image in read if isinstance(image, _Image)]
    skipped = {file.name: reason for file, reason in zip(listed, read, strict=True) if isinstance(reason, str)}
    for split, label in sorted({file[2:] for file in listed} - {image.file[2:] for image in images}):
        raise ValueError(
            f"class folder {split}/{class_names[label]} of {folder} must hold readable images, "
            "got only files that cannot be decoded: replace them or remove the folder"
        )
    groups, table_notes = _read_tables(folder, [image.file for image in images], class_names)
    notes = [f"centre-cropped to a square and resized to {size} px (bicubic)"]
    notes += [*_notes(folder, listed, images, skipped), *table_notes]
    if len(class_names) == 1:
        notes.append(f"one class ({class_names[0]}): images are read as not labelled")
    splits, carved = carve_missing(_as_splits(images, groups, labelled=len(class_names) > 1), name)
    return Dataset(
        name=name,
        size=size,
        task="binary" if len(class_names) == 2 else "multiclass",
        class_names=class_names,
        provenance={
            "source": f"image folder {folder.resolve().name}",
            "status": "image folder",
            "sha256": hashlib.sha256(b"".join(f"{i.file.name}\n".encode() + i.digest for i in images)).hexdigest(),
            "skipped": skipped,
            "notes": [*notes, *carved],
        },
        **splits,
    )


def _list_files(folder: Path) -> tuple[tuple[str, ...], list[_File]]:
    """The sorted class folders of train, and what is called like an image in those of every split."""
    places = {name: folder / name for name in SPLIT_FOLDERS if (folder / name).is_dir()}
    require(not {"val", "valid"} <= {*places}, f"val of {folder}", "one folder", "val and valid")
    classes = {name: _class_folders(place) for name, place in places.items()}
    if not classes.get("train"):
        if "train" not in places or not _images_in(places["train"]):
            raise FileNotFoundError(
                f"{folder} must hold train/<class>/ with images in it, or images in train, got neither: "
                "name another folder"
            )
        classes = {name: {NO_CLASS: place} for name, place in places.items()}
    class_names, files = tuple(classes["train"]), []
    for name, folders in classes.items():
        for class_name, class_folder in folders.items():
            among = f"among train's, {', '.join(class_names)}"
            require(class_name in class_names, f"classes of {places[name]}", among, class_name)
            found = [(path, path.relative_to(folder).as_posix()) for path in _images_in(class_folder)]
            if not found:
                raise ValueError(f"class folder {class_folder} must hold images, got none: add some or remove it")
            files += [_File(*file, SPLIT_FOLDERS[name], class_names.index(class_name)) for file in found]
    return class_names, files


def _class_folders(split_folder: Path) -> dict[str, Path]:
    return {p.name: p for p in sorted(split_folder.iterdir()) if p.is_dir() and not p.name.startswith((".", "__"))}


def _images_in(folder: Path) -> list[Path]:
    return sorted(p for p in folder.iterdir() if p.suffix.lower() in EXTENSIONS and not p.name.startswith("."))


def _decode(file: _File, size: int) -> _Image | str:
    """A file as a square, or why it is skipped."""
    if not file.path.is_file():  # a folder, a pipe, a link that leads nowhere
        return "not a file"
    try:
        content = file.path.read_bytes()
        if file.path.suffix.lower() == DICOM:
            image = _grey_or_rgb(decode_dicom(content))
        else:
            with Image.open(io.BytesIO(content), formats=FORMATS) as opened:
                image = _grey_or_rgb(ImageOps.exif_transpose(opened))
    except PermissionError:
        return "not readable"
    except Image.DecompressionBombError:
        return "too large"
    except Exception:  # Pillow's decoders raise a dozen kinds on a damaged file
        return "damaged or truncated" if content else "empty"
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
        values = np.asarray(image, np.float32)
        require(bool(np.isfinite(values).all()), "values", "finite", "others")
        return Image.fromarray(values)
    if image.mode in ("LA", "La", "PA", "RGBA", "RGBa") or "transparency" in image.info:
        with_alpha = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", image.size, (0, 0, 0, 255)), with_alpha).convert("RGB")
    return image.convert("L" if image.mode in ("1", "L") else "RGB")


def _as_splits(images: list[_Image], groups: np.ndarray | None, labelled: bool) -> dict[str, Split]:
    low, high = _range_of(images)
    splits, side, channels = {}, len(images[0].pixels), 3 if any(i.pixels.ndim == 3 for i in images) else 1
    for name in dict.fromkeys(image.file.split for image in images):
        rows = [i for i, image in enumerate(images) if image.file.split == name]
        stack = np.empty((len(rows), channels, side, side), np.uint8)
        for place, row in zip(stack, rows, strict=True):
            pixels = images[row].pixels
            if pixels.dtype == np.float32:
                pixels = np.rint((pixels.clip(low, high) - low) * (255 / ((high - low) or 1)))
            place[:] = pixels if pixels.ndim == 2 else pixels.transpose(2, 0, 1)
        labels = torch.tensor([images[row].file.label if labelled else -1 for row in rows])
        of_rows = None if groups is None else groups[rows]
        splits[name] = Split(images=torch.from_numpy(stack), labels=labels, groups=of_rows)
    return splits


def _range_of(images: list[_Image]) -> tuple[float, float]:
    """Lowest and highest value of the images with more than 8 bits; 0 and 0 without any."""
    wide = [image.extremes for image in images if image.pixels.dtype == np.float32] or [(0, 0)]
    return float(np.min(wide)), float(np.max(wide))


def _notes(folder: Path, listed: list[_File], images: list[_Image], skipped: dict[str, str]) -> list[str]:
    """What was converted, is in train and another split byte for byte, was skipped, or lies where none is read."""
    notes, count, (low, high) = [], len(images), _range_of(images)
    coloured = [image.file.name for image in images if image.pixels.ndim == 3]
    if 0 < len(coloured) < count:
        notes.append(f"{len(coloured)} of {count} images are coloured (first {coloured[0]}), so all are kept as RGB")
    if wide := sum(image.pixels.dtype == np.float32 for image in images):
        notes.append(f"{wide} images have more than 8 bits: their range, {low:.0f} to {high:.0f}, became 0 to 255")
    train = {image.digest for image in images if image.file.split == "train"}
    for split in ("val", "test"):
        copies = [image.digest in train for image in images if image.file.split == split]
        if any(copies):
            notes.append(f"{sum(copies)} of {len(copies)} {split} files are also in train, byte for byte")
    if skipped:
        reasons = ", ".join(f"{times} {reason}" for reason, times in Counter(skipped.values()).items())
        named = ", ".join(list(skipped)[:5]) + ", …" * (len(skipped) > 5)
        notes.append(f"{len(skipped)} of {len(listed)} files were skipped ({reasons}): {named}")
    found = {path.relative_to(folder) for path in folder.rglob("*") if path.suffix.lower() in EXTENSIONS}
    seen = {path.as_posix() for path in found if not any(part.startswith((".", "__")) for part in path.parts)}
    if other := sorted(seen - {file.name for file in listed}):
        notes.append(f"{len(other)} images lie elsewhere and are not read (first {other[0]})")
    return notes


def _read_tables(
    folder: Path, images: list[_File], class_names: tuple[str, ...]
) -> tuple[np.ndarray | None, list[str]]:
    """The patient of each image, by the first table that knows any; an image without a row is its own patient."""
    named = defaultdict(list)
    for file in images:
        for key in {file.name, file.name.partition("/")[2], file.name.rpartition("/")[2]}:
            named[key].append(file)
    groups, notes = None, list[str]()
    for path in filter(Path.is_file, (folder / "groups.csv", folder / "index.csv")):
        patients, table = dict[str, str](), _read_table(path)
        for written, patient, label in table.itertuples(index=False):
            found = named[written.replace("\\", "/").removeprefix("./")]
            require(len(found) < 2 or not patient, f"{written} in {path}", "the path of one image", len(found))
            for file in found if len(found) == 1 else ():
                own = class_names[file.label]
                fits = label == own or label not in class_names  # other words say nothing of the folders
                require(fits, f"label of {file.name} in {path}", f"its folder's, {own}", label)
                if patient:
                    one = patients.setdefault(file.name, patient)
                    require(one == patient, f"patient of {file.name} in {path}", one, patient)
        if groups is None and table["patient"].any():
            require(bool(patients), f"{path}", "a table of the folder's images", f"{len(table)} rows of others")
            groups = np.array([patients.get(file.name, f"file:{file.name}") for file in images])
            alone = len(images) - len(patients)
            notes = [f"patients from {path.name}"]
            notes += [f"{alone} images without a row in {path.name} count as a patient each"] * bool(alone)
    return groups, notes


def _read_table(path: Path) -> pd.DataFrame:
    """The rows of a table: file, patient and label, empty where unknown."""
    try:
        table = pd.read_csv(path, dtype=str, keep_default_na=False, encoding="utf-8-sig", index_col=False)
    except ValueError as error:  # pandas' own errors are ValueErrors, too
        raise ValueError(f"{path} must be a CSV table in UTF-8, got {' '.join(str(error).split())}") from None
    fits = path.name == "index.csv" or ("file" in table and ("patient" in table or "group" in table))
    require(fits, f"{path}", "a table with the columns file and patient (or group)", [*table.columns])
    table = table if "patient" in table else table.rename(columns={"group": "patient"})
    return table.reindex(columns=["file", "patient", "label"], fill_value="")
