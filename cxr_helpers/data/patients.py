"""The patient of each image of a folder, from `groups.csv` or `index.csv`."""

from __future__ import annotations

__all__ = ["read_groups"]

import csv
from collections import defaultdict
from pathlib import Path

import numpy as np


def read_groups(folder: Path, paths: list[str]) -> tuple[np.ndarray | None, list[str]]:
    """The patient of each image from the folder's CSV; an image without a row is its own patient.

    Args:
        folder: of the data set.
        paths: of the images, from the folder.

    Returns:
        Strings `[N]`, None without a CSV; and notes.

    Raises:
        ValueError: a CSV that cannot be read, lacks its columns, or does not fit the images.
    """
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
        try:
            with path.open(newline="", encoding="utf-8-sig") as handle:
                reader = csv.DictReader(handle)
                columns = list(reader.fieldnames or [])
                rows = [(row["file"] or "", row[column] or "") for row in reader if {"file", column} <= set(columns)]
        except (UnicodeDecodeError, csv.Error) as error:
            raise ValueError(f"{path} must be a CSV table in UTF-8, got {error}: save it as one") from None
        if {"file", column} <= set(columns):
            odd = next((group for _, group in rows if not group.isprintable()), None)
            if odd is not None:
                raise ValueError(f"{column} of {path} must be printable names of patients, got {odd!r}: rename it")
            return name, [row for row in rows if all(row)]
        if required:
            raise ValueError(
                f"{path} must have the columns file and {column}, got {', '.join(columns) or 'none'}: rename them"
            )
    return None
