"""Boxes of several readers become one truth: VinBigData's table in, fused boxes with votes, COCO files out."""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from PIL import Image
from torchvision.ops import box_iou

from ..data import on_square
from ..fields import require
from ..writing import read_json, write_bytes, write_json

__all__ = ["convert", "fuse", "readers_boxes"]

CORNERS = ["x_min", "y_min", "x_max", "y_max"]
COLUMNS = ("image_id", "class_name", "class_id", "rad_id", *CORNERS)
NO_FINDING = "No finding"
IMAGES = (".png", ".jpg", ".jpeg")
FEWEST = 10  # films: no part is empty
SHARES = {"test": 0.2, "unlabelled": 0.6, "val": 0.2}  # of the films, of the rest, of what is then left; else train


def fuse(boxes: np.ndarray, scores: np.ndarray, threshold: float) -> tuple[np.ndarray, list[list[int]]]:
    """Weighted box fusion of one class on one film: boxes that overlap become their mean, weighted by their scores.

    Best scores first, each box joins the fused box that it overlaps most, if that is more than the threshold, and moves
    it; else it begins one.

    Args:
        boxes: [N, 4] left, top, right, bottom. scores: [N]; of equal ones the first given comes first.
        threshold: of intersection over union.
    Returns:
        fused boxes [M, 4], and the rows that each is made of.
    Source:
        arXiv 1910.13302.
    """
    fused, members = np.empty((0, 4)), list[list[int]]()
    for row in np.argsort(-scores, kind="stable").tolist():
        overlaps = box_iou(torch.tensor(boxes[row : row + 1]), torch.tensor(fused))[0].numpy()
        best = int(overlaps.argmax()) if len(fused) else 0
        if not len(fused) or overlaps[best] <= threshold:
            best = len(fused)
            fused, members = np.vstack([fused, boxes[row]]), [*members, []]
        members[best].append(row)
        fused[best] = np.average(boxes[members[best]], axis=0, weights=scores[members[best]])
    return fused, members


def convert(source: Path, target: Path, threshold: float = 0.4, seed: int = 0) -> str:
    """Films and boxes in VinBigData's layout become a folder that `load_dataset` reads; returns what was done in words.

    The split is by film and written once, as `split.csv`: where `source_split.csv` says train and val, its val is test;
    else a fifth is. Of the rest 60 % stay unlabelled, and a fifth of what is then left is val.

    Args:
        source: with `train.csv` (one row per reader's box, in pixels of the image) and the images in `train/`.
        target: a new folder. threshold: see `fuse`. seed: of the split.
    Raises:
        ValueError: a table or an image that is not as it should be; nothing is written then.
        FileNotFoundError: table or images are missing. FileExistsError: the target is there.
    """
    if target.exists():
        raise FileExistsError(f"target must be a new folder, got {target.name}, which is there")
    table, counts = _read_boxes(source)
    films = _films(source, table)
    counts["boxes cut at the edge of their film"] = _count_beyond(table, films)
    part = _divide(source, list(films), seed)
    split = "image_id,split\n" + "".join(f"{name},{part[name]}\n" for name in films)
    names = table.groupby("class_id")["class_name"].first()
    about: dict[str, Any] = {
        "split_sha256": hashlib.sha256(split.encode()).hexdigest(),
        "fused_above_iou": threshold,
        "notes": [f"{count} {what}" for what, count in counts.items() if count],
    }
    aside = target.with_name(target.name + ".part")
    shutil.rmtree(aside, ignore_errors=True)
    (aside / "images").mkdir(parents=True)
    write_bytes(aside / "split.csv", split.encode())
    categories = [{"id": int(str(key)) + 1, "name": name} for key, name in names.items()]
    for name in ("train", "val", "test", "unlabelled"):
        chosen = {key: film for key, film in films.items() if part[key] == name}
        coco = {"info": about, "images": list(chosen.values()), "categories": categories}
        own = table[table["image_id"].isin(list(chosen))] if name != "unlabelled" else table[:0]
        write_json(aside / f"{name}.json", coco | _annotations(own, films, threshold))
    for film in films.values():
        shutil.copyfile(source / "train" / film["file_name"], aside / "images" / film["file_name"])
    os.replace(aside, target)
    sizes = ", ".join(f"{sum(of == name for of in part.values())} {name}" for name in dict.fromkeys(part.values()))
    return "; ".join([f"{len(films)} films in {target.name}: {sizes}", *about["notes"]])


def _read_boxes(source: Path) -> tuple[pd.DataFrame, dict[str, int]]:
    """The table's usable boxes, and how many rows were of no use, by reason."""
    file = source / "train.csv"
    if not file.is_file():
        raise FileNotFoundError(f"{source.name} must hold train.csv and train/, got no table")
    table = pd.read_csv(file, dtype={"image_id": str, "class_name": str, "rad_id": str})
    require(set(COLUMNS) <= set(table), "train.csv", f"a table with {', '.join(COLUMNS)}", list(table))
    empty = table["class_name"] == NO_FINDING
    counts = {"films without a finding left out": int(table[empty]["image_id"].nunique())}
    table = table[~empty]
    pairs = table[["class_id", "class_name"]].drop_duplicates()
    known = bool(pairs.notna().to_numpy().all()) and pairs["class_id"].is_unique and pairs["class_name"].is_unique
    require(known, "classes of train.csv", "one name for each class_id", pairs.to_dict("records")[:20])
    corners = table[CORNERS].to_numpy(float)
    require(bool(np.isfinite(corners).all()), "boxes of train.csv", "four numbers each", "some that are missing")
    flat = (corners[:, 2] <= corners[:, 0]) | (corners[:, 3] <= corners[:, 1])
    counts["boxes without area left out"] = int(flat.sum())
    return table[~flat].astype({"class_id": int}).reset_index(drop=True), counts


def _films(source: Path, table: pd.DataFrame) -> dict[str, dict[str, Any]]:
    """COCO's entry of every film that has a box, by its id, in the order of ids."""
    there = {path.stem: path for path in (source / "train").glob("*") if path.suffix.lower() in IMAGES}
    films: dict[str, dict[str, Any]] = {}
    for number, (key, own) in enumerate(table.groupby("image_id"), 1):
        name = str(key)
        if name not in there:
            raise FileNotFoundError(f"film {name} of train.csv must be in train/, got no image of that name")
        with Image.open(there[name]) as image:
            width, height = image.size
        if {"width", "height"} <= set(own):
            said = tuple(int(own[side].iloc[0]) for side in ("width", "height"))
            require(said == (width, height), f"film {name}", f"{said[0]} x {said[1]} px by train.csv", [width, height])
        left_top, right_bottom = own[CORNERS[:2]].to_numpy(), own[CORNERS[2:]].to_numpy()
        inside = bool((left_top < [width, height]).all() and (right_bottom > 0).all())
        require(inside, f"boxes of film {name}", f"on the film, {width} x {height} px", "one beside it")
        films[name] = {"id": number, "file_name": there[name].name, "width": width, "height": height}
    require(len(films) >= FEWEST, f"{source.name}", f"a folder of {FEWEST} films with boxes or more", len(films))
    return films


def _count_beyond(table: pd.DataFrame, films: Mapping[str, Mapping[str, Any]]) -> int:
    corners = table[CORNERS].to_numpy(float)
    ends = [[films[name]["width"], films[name]["height"]] for name in table["image_id"]]
    return int(((corners[:, :2] < 0) | (corners[:, 2:] > ends)).any(axis=1).sum())


def _divide(source: Path, names: list[str], seed: int) -> dict[str, str]:
    """The part of every film: test, unlabelled, val or train."""
    rng, given = np.random.default_rng(seed), source / "source_split.csv"
    left = [names[i] for i in rng.permutation(len(names))]
    part: dict[str, str] = {}
    if given.is_file():
        said = pd.read_csv(given, dtype=str).set_index("image_id")["split"]
        require(set(names) <= set(said.index), given.name, "a row for every film", len(set(names) - set(said.index)))
        part = {name: "test" for name in names if said[name] == "val"}
    for name, share in SHARES.items():
        if name not in part.values():
            part |= dict.fromkeys(left[: round(share * len(left))], name)
        left = [film for film in left if film not in part]
    return part | dict.fromkeys(left, "train")


def _annotations(table: pd.DataFrame, films: Mapping[str, Mapping[str, Any]], threshold: float) -> dict[str, Any]:
    """Fused boxes as COCO's annotations, with how many readers drew each; and the readers' own."""
    fused_boxes, readers = list[dict[str, Any]](), list[dict[str, Any]]()
    for (name, kind), own in table.groupby(["image_id", "class_id"]):
        film = films[str(name)]
        corners = own[CORNERS].to_numpy(float).clip(0, [film["width"], film["height"]] * 2)
        about = {"image_id": film["id"], "category_id": int(str(kind)) + 1}
        readers += [{**about, **_box(box), "reader": by} for box, by in zip(corners, own["rad_id"], strict=True)]
        boxes, members = fuse(corners, np.ones(len(corners)), threshold)
        for box, rows in zip(boxes, members, strict=True):
            votes = own["rad_id"].iloc[rows].nunique()
            fused_boxes.append({"id": len(fused_boxes) + 1, **about, **_box(box), "iscrowd": 0, "votes": votes})
    return {"annotations": fused_boxes, "readers": readers}


def _box(corners: np.ndarray) -> dict[str, Any]:
    left, top, right, bottom = corners.tolist()
    return {"bbox": [left, top, right - left, bottom - top], "area": (right - left) * (bottom - top)}


def readers_boxes(file: Path) -> pd.DataFrame:
    """Readers' own boxes from a converted JSON file: `film, finding, reader, left, top, right, bottom` (fractions)."""
    coco = read_json(file)
    films = {one["id"]: (row, one) for row, one in enumerate(coco["images"])}
    kinds = {one["id"]: column for column, one in enumerate(sorted(coco["categories"], key=lambda one: one["id"]))}
    lines = []
    for one in coco["readers"]:
        (row, film), (x, y, w, h) = films[one["image_id"]], one["bbox"]
        corners = on_square(np.array([x, y, x + w, y + h]), film)
        lines.append([row, kinds[one["category_id"]], one["reader"], *corners])
    return pd.DataFrame(lines, columns=["film", "finding", "reader", "left", "top", "right", "bottom"])
