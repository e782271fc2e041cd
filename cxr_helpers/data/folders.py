"""Image folders `<split>/<class>/<file>`, or `<split>/<file>` without labels, read as squares of one size.

Splits are `train`, `val` or `valid`, and `test`; what is missing is carved from train. Every image becomes 8-bit grey
or RGB: its EXIF orientation is applied; more than 8 bits are scaled by the range of all such images; palettes, CMYK
and the like become RGB; transparency is laid over black; of several frames the first counts. The set is grey where the
channels of every image differ by at most `GREY_TOLERANCE`. The largest centred square is kept and resized with Pillow's
antialiased bicubic filter. Files that are no images are skipped, and stand in the provenance with the reason.

Patients come from `groups.csv` or `index.csv` in the folder: columns `file` and `patient` or `group`; `file` is a path
from the folder, from the split, or a bare name that no two images share.
"""

from __future__ import annotations

import hashlib
import io
from collections import Counter, defaultdict
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import torch
from PIL import Image, ImageOps
from tqdm.auto import tqdm

from ..fields import require
from .dataset import Dataset, Split, carve_missing

__all__ = ["image_folder"]

EXTENSIONS = (".png", ".jpg", ".jpeg", ".webp", ".tif", ".tiff", ".gif", ".bmp")
FORMATS = ("PNG", "JPEG", "WEBP", "TIFF", "GIF", "BMP")
SPLIT_FOLDERS = {"train": "train", "val": "val", "valid": "val", "test": "test"}
NO_CLASS = "unlabelled"  # the one class of images without class folders
GREY_TOLERANCE = 3  # of 255: a lossy WebP of a grey image differs by 1
NUM_THREADS = 4  # Pillow holds the GIL while it decodes: threads hide the disk's waits, no more


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
    side_px: int  # of the square before resizing


def image_folder(folder: Path, size: int, name: str) -> Dataset:
    """Read an image folder as `size` px: binary where there are two classes; labels -1 where there are less.

    Raises:
        FileNotFoundError: no images in `train`, in class folders or without.
        ValueError: a class folder without images, a class that train lacks, a CSV that does not fit, or too few
            images to carve from.
    """
    class_names, listed = _list_files(folder)
    with ThreadPoolExecutor(NUM_THREADS) as pool:
        reading = pool.map(partial(_decode, size=size), listed)
        read = list(tqdm(reading, f"decoding {name}", len(listed), unit="img", disable=None, leave=False))
    images = [image for image in read if isinstance(image, _Image)]
    skipped = {file.name: image for file, image in zip(listed, read, strict=True) if isinstance(image, str)}
    for split, label in sorted({file[2:] for file in listed} - {image.file[2:] for image in images}):
        raise ValueError(
            f"class folder {split}/{class_names[label]} of {folder} must hold readable images, "
            "got only files that cannot be decoded: replace them or remove the folder"
        )
    groups, table_notes = _read_tables(folder, images, class_names)
    notes = [*_notes(images, size), *_left_out(folder, listed, skipped), *table_notes]
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
    places: dict[str, Path] = {}
    for name, split in SPLIT_FOLDERS.items():
        if (folder / name).is_dir():
            require(split not in places, f"{split} of {folder}", "one folder", [*SPLIT_FOLDERS])
            places[split] = folder / name
    classes = {split: _class_folders(place) for split, place in places.items()}
    if not classes.get("train"):
        if "train" not in places or not _images_in(places["train"]):
            raise FileNotFoundError(
                f"{folder} must hold train/<class>/ with images in it, or images in train, got neither: "
                "name another folder"
            )
        classes = {split: {NO_CLASS: place} for split, place in places.items()}
    class_names, files = tuple(classes["train"]), []
    for split, folders in classes.items():
        for name, class_folder in folders.items():
            among = f"among train's, {', '.join(class_names)}"
            require(name in class_names, f"classes of {places[split]}", among, name)
            found = _images_in(class_folder)
            if not found:
                raise ValueError(f"class folder {class_folder} must hold images, got none: add some or remove it")
            files += [_File(p, _name_in(folder, p), split, class_names.index(name)) for p in found]
    return class_names, files


def _class_folders(split_folder: Path) -> dict[str, Path]:
    found = {path.name: path for path in sorted(split_folder.iterdir()) if not path.name.startswith((".", "__"))}
    for name, path in found.items():
        if not path.exists() and path.suffix.lower() not in EXTENSIONS:
            raise ValueError(f"{path} must be a folder, got a broken link: mend or remove it")
        require(not path.is_dir() or name.isprintable(), f"class folder in {split_folder}", "of a printable name", name)
    return {name: path for name, path in found.items() if path.is_dir()}


def _images_in(folder: Path) -> list[Path]:
    return sorted(p for p in folder.iterdir() if p.suffix.lower() in EXTENSIONS and not p.name.startswith("."))


def _name_in(folder: Path, path: Path) -> str:
    name = path.relative_to(folder).as_posix()
    return name if name.isprintable() else ascii(name)[1:-1]


def _decode(file: _File, size: int) -> _Image | str:
    """A file as a square, or why it is skipped."""
    if not file.path.is_file():  # a folder, a pipe, a link that leads nowhere
        return "not a file"
    try:
        content = file.path.read_bytes()
    except OSError:
        return "not readable"
    try:
        with Image.open(io.BytesIO(content), formats=FORMATS) as opened:
            image = _grey_or_rgb(ImageOps.exif_transpose(opened))
    except Image.DecompressionBombError:
        return "too large"
    except Exception:  # Pillow's decoders raise a dozen kinds on a damaged file
        return "damaged or truncated" if content else "empty"
    side_px, extremes = min(image.size), image.getextrema()
    if image.size != (size, size):
        left, top = ((extent - side_px) // 2 for extent in image.size)
        square = image.crop((left, top, left + side_px, top + side_px))  # resize(box=…) would look beyond it
        image = square.resize((size, size), Image.Resampling.BICUBIC)
    pixels = np.asarray(image)
    if pixels.ndim == 3 and _is_grey(pixels[::8, ::8]) and _is_grey(pixels):  # few pixels tell most colours
        pixels = np.asarray(image.convert("L"))
    return _Image(file, pixels, extremes, hashlib.sha256(content).digest(), side_px)


def _is_grey(pixels: np.ndarray) -> bool:
    red, green, blue = pixels[..., 0], pixels[..., 1], pixels[..., 2]
    lowest, highest = np.minimum(np.minimum(red, green), blue), np.maximum(np.maximum(red, green), blue)
    return int((highest - lowest).max()) <= GREY_TOLERANCE


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


def _range_of(images: list[_Image]) -> tuple[float, float]:
    """Lowest and highest value of the images with more than 8 bits; 0 and 0 without any."""
    wide = [image.extremes for image in images if image.pixels.dtype == np.float32] or [(0, 0)]
    return float(np.min(wide)), float(np.max(wide))


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


def _notes(images: list[_Image], size: int) -> list[str]:
    """What was done to the images, and how many of val and test are in train byte for byte."""
    count, (low, high) = len(images), _range_of(images)
    enlarged, wide = sum(i.side_px < size for i in images), sum(i.pixels.dtype == np.float32 for i in images)
    coloured = [i.file.name for i in images if i.pixels.ndim == 3]
    notes = [f"centre-cropped to a square and resized to {size} px (bicubic)"]
    notes += [f"{enlarged} of {count} images are smaller than {size} px and were enlarged"] * bool(enlarged)
    if 0 < len(coloured) < count:
        notes += [f"{len(coloured)} of {count} images are coloured (first {coloured[0]}), so all are kept as RGB"]
    notes += [f"{wide} images have more than 8 bits: their range, {low:.0f} to {high:.0f}, became 0 to 255"] * bool(
        wide
    )
    train = {image.digest for image in images if image.file.split == "train"}
    for split in ("val", "test"):
        own = [image.digest in train for image in images if image.file.split == split]
        notes += [f"{sum(own)} of {len(own)} {split} files are also in train, byte for byte"] * any(own)
    return notes


def _left_out(folder: Path, listed: list[_File], skipped: dict[str, str]) -> list[str]:
    """How many files were skipped, and how many images lie where none are read."""
    reasons = ", ".join(f"{count} {reason}" for reason, count in Counter(skipped.values()).items())
    named = ", ".join(list(skipped)[:5]) + ", …" * (len(skipped) > 5)
    notes = [f"{len(skipped)} of {len(listed)} files were skipped ({reasons}): {named}"] * bool(skipped)
    images = {_name_in(folder, p) for p in folder.rglob("*") if p.suffix.lower() in EXTENSIONS}
    hidden = {name for name in images if any(part.startswith((".", "__")) for part in name.split("/"))}
    other = sorted(images - hidden - {file.name for file in listed})
    return notes + ([f"{len(other)} images lie elsewhere and are not read (first {other[0]})"] if other else [])


def _read_tables(
    folder: Path, images: list[_Image], class_names: tuple[str, ...]
) -> tuple[np.ndarray | None, list[str]]:
    """The patient of each image, if a table knows any; an image without a row is its own patient."""
    files, group_of, notes = defaultdict(list), dict[str, str](), list[str]()
    for file, *_ in images:
        for key in {file.name, file.name.partition("/")[2], file.name.rpartition("/")[2]}:
            files[key].append(file)
    for path in (folder / "groups.csv", folder / "index.csv"):
        rows = _read_table(path) if path.is_file() else []
        known = dict(group_of)
        for row in rows:
            found, patient = files[row["file"].replace("\\", "/").removeprefix("./")], row["patient"]
            require(len(found) < 2 or not patient, f"{row['file']} in {path}", "the path of one image", len(found))
            for file in found if len(found) == 1 else ():
                _check_label(f"label of {file.name} in {path}", row["label"], class_names, file.label)
                if patient and not known:
                    one = group_of.setdefault(file.name, patient) == patient
                    require(one, f"patient of {file.name} in {path}", group_of[file.name], patient)
        if not known and any(row["patient"] for row in rows):
            require(bool(group_of), f"{path}", "a table of the folder's images", f"{len(rows)} rows of others")
            alone = len(images) - len(group_of)
            notes = [f"patients from {path.name}"]
            notes += [f"{alone} images without a row in {path.name} count as a patient each"] * bool(alone)
    names = [image.file.name for image in images]
    return np.array([group_of.get(name, f"file:{name}") for name in names]) if group_of else None, notes


def _check_label(what: str, label: str, class_names: tuple[str, ...], own: int) -> None:
    """Refuse a label that is another folder's name; other labels say nothing of the folders."""
    require(label not in class_names or label == class_names[own], what, f"its folder's, {class_names[own]}", label)


def _read_table(path: Path) -> list[dict[str, str]]:
    """The rows of a table: file, patient and label, empty where unknown."""
    try:
        table = pd.read_csv(path, dtype=str, keep_default_na=False, encoding="utf-8-sig", index_col=False)
    except ValueError as error:  # pandas' own errors are ValueErrors, too
        said = " ".join(str(error).split())
        raise ValueError(f"{path} must be a CSV table in UTF-8, got {said}: save it as one") from None
    fits = path.name == "index.csv" or ("file" in table and ("patient" in table or "group" in table))
    require(fits, f"{path}", "a table with the columns file and patient (or group)", [*table.columns])
    table = table if "patient" in table else table.rename(columns={"group": "patient"})
    kept: Any = table.reindex(columns=["file", "patient", "label"], fill_value="").to_dict("records")
    return kept
