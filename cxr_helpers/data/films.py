"""Films with boxes: a folder of COCO files, as `detect.py convert` writes it, or the masks of drawn films.

    <folder>/train.json, val.json, test.json    labelled films and their boxes; unlabelled.json: films to pretrain on
    <folder>/images/                             the films, grey, of any shape

A film is laid on a black square, about its centre; boxes `[n, 5]` are left, top, right, bottom as fractions of that
square's side, and the number of the finding.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from scipy import ndimage
from torch import Tensor

from ..fields import require
from .dataset import Dataset, Split

__all__ = ["UNLABELLED", "boxes_of", "film_folder", "is_film_folder", "on_square"]

UNLABELLED = "_unlabelled"  # behind a folder's name: train is then the films that nobody has labelled
PARTS = ("train", "val", "test")


def is_film_folder(folder: Path) -> bool:
    """Whether a folder holds films with boxes."""
    return all((folder / f"{part}.json").is_file() for part in PARTS)


def film_folder(folder: Path, size: int, *, unlabelled: bool = False) -> Dataset:
    """Read a folder of films with boxes as squares of that size.

    Args:
        unlabelled: take `unlabelled.json` for train, labels -1: films to pretrain on that no detector is trained on.
    Raises:
        ValueError: a file that is no such JSON, a film that cannot be read or has another size than the JSON says.
        FileNotFoundError: no films without labels, or an image is missing.
    """
    files = {part: folder / f"{part}.json" for part in PARTS}
    if unlabelled:
        files["train"] = folder / "unlabelled.json"
        if not files["train"].is_file():
            raise FileNotFoundError(f"{folder.name} must hold unlabelled.json, got none: leave out {UNLABELLED}")
    content = {part: file.read_bytes() for part, file in files.items()}
    try:
        read = {part: json.loads(text) for part, text in content.items()}
        names = {one["id"]: one["name"] for one in read["val"]["categories"]}
        splits = {part: _split(folder, coco, size, sorted(names)) for part, coco in read.items()}
    except (KeyError, TypeError, json.JSONDecodeError) as error:
        raise ValueError(
            f"{folder.name} must hold COCO files, got one without {error}: convert the films anew"
        ) from None
    if unlabelled:
        films = splits["train"]
        splits["train"] = Split(images=films.images, labels=torch.full_like(films.labels, -1))
    about = dict(read["val"].get("info", {}))
    notes = [f"films on black squares of {size} px", *about.pop("notes", [])]
    record: dict[str, Any] = {"source": f"films in {folder.name}", "status": "folder of films", **about, "notes": notes}
    record["sha256"] = hashlib.sha256(b"".join(content.values())).hexdigest()
    classes = tuple(names[key] for key in sorted(names))
    called = folder.name + UNLABELLED * unlabelled
    return Dataset(name=called, size=size, task="multilabel", class_names=classes, provenance=record, **splits)


def _split(folder: Path, coco: dict[str, Any], size: int, categories: list[int]) -> Split:
    films, place = coco["images"], {one["id"]: i for i, one in enumerate(coco["images"])}
    images = np.stack([_square(folder / "images" / one["file_name"], one, size) for one in films])
    found: list[list[list[float]]] = [[] for _ in films]
    for one in coco["annotations"]:
        film, (x, y, w, h) = films[place[one["image_id"]]], one["bbox"]
        corners = np.array([x, y, x + w, y + h])
        found[place[one["image_id"]]].append([*on_square(corners, film), categories.index(one["category_id"])])
    boxes = tuple(torch.tensor(of, dtype=torch.float32).reshape(-1, 5) for of in found)
    labels = torch.zeros(len(films), len(categories), dtype=torch.int64)
    for row, of in zip(labels, boxes, strict=True):
        row[of[:, 4].long()] = 1
    return Split(images=torch.from_numpy(images[:, None]), labels=labels, boxes=boxes)


def on_square(corners: np.ndarray, film: dict[str, Any], *, back: bool = False) -> np.ndarray:
    """Corners [..., 4] in pixels of a film as fractions of the square it lies on, or `back` to its pixels.

    Args:
        film: of COCO's images: `width, height`.
    """
    side = max(film["width"], film["height"])
    rim = np.tile([(side - film["width"]) / 2, (side - film["height"]) / 2], 2)
    return corners * side - rim if back else (corners + rim) / side


def _square(file: Path, film: dict[str, Any], size: int) -> np.ndarray:
    """uint8 [size, size]: the film as large as the square holds, black beside it."""
    if not file.is_file():
        raise FileNotFoundError(f"film {file.name} must be in {file.parent.name} of its folder, got none there")
    with Image.open(file) as opened:
        grey, expected = opened.convert("L"), (film["width"], film["height"])
    require(grey.size == expected, f"film {file.name}", f"{expected[0]} x {expected[1]} px", grey.size)
    side = max(grey.size)
    square = Image.new("L", (side, side))
    square.paste(grey, ((side - grey.width) // 2, (side - grey.height) // 2))
    return np.asarray(square.resize((size, size), Image.Resampling.BICUBIC))


def boxes_of(split: Split) -> tuple[Tensor, ...]:
    """The boxes of every image, `[n, 5]`; around each part of its masks where only these are known.

    Raises:
        ValueError: neither boxes nor masks are known.
    """
    if split.boxes is not None:
        return split.boxes
    require(split.masks is not None, "films", "with boxes or masks to detect findings in", "none")
    assert split.masks is not None
    return tuple(torch.tensor(_around(mask), dtype=torch.float32).reshape(-1, 5) for mask in split.masks.numpy())


def _around(masks: np.ndarray) -> list[tuple[float, ...]]:
    """A box around each connected part of masks [L, S, S]."""
    parts = [(i, rows, columns) for i, mask in enumerate(masks)
             for rows, columns in ndimage.find_objects(ndimage.label(mask)[0])]  # fmt: skip
    side = masks.shape[-1]
    return [(c.start / side, r.start / side, c.stop / side, r.stop / side, i) for i, r, c in parts]
