"""Other questions to the same films: many findings become one answer, several sets one to learn from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..fields import require
from .dataset import Dataset, Split, with_note

__all__ = ["JOINED", "TASKS", "join", "relabel"]

JOINED = " + "  # between the names of data sets that are learnt from together

TASKS = {"anomaly": ("no finding", "anomaly"), "pneumonia": ("no finding", "pneumonia", "other")}  # by their last word
PNEUMONIA = ("pneumonia", "consolidation")  # the label that counts as it: the first of these that there is


def relabel(dataset: Dataset, task: str) -> Dataset:
    """A multi-label data set asked another question; what is not labelled stays so.

    Args:
        task: `anomaly` (no finding, or any) or `pneumonia` (no finding, pneumonia, or others without it).
    Raises:
        ValueError: another task, or data without several labels or without pneumonia among them.
    """
    require(task in TASKS, "task", f"one of {', '.join(TASKS)}", task)
    require(dataset.task == "multilabel", f"{dataset.name}", "multi-label to be relabelled", dataset.task)
    column = None
    if task == "pneumonia":
        found = [name for name in PNEUMONIA if name in dataset.class_names]
        require(found != [], f"labels of {dataset.name}", "with pneumonia", dataset.class_names)
        column = dataset.class_names.index(found[0])
    parts, names = dataset.splits.items(), TASKS[task]
    about: dict[str, Any] = {part: replace(s, labels=_asked(s.labels, column), masks=None) for part, s in parts}
    about |= {"name": f"{dataset.name}_{task}", "task": "binary" if len(names) == 2 else "multiclass"}
    note = f"asked for {' / '.join(names)}, of the {len(dataset.class_names)} labels of {dataset.name}"
    return with_note(replace(dataset, class_names=names, **about), note)


def _asked(labels: Tensor, column: int | None) -> Tensor:
    """int64 [N] of labels [N, L]: any finding, or with a column 1 where it is there and 2 where only others are."""
    known, any_finding = (labels >= 0).all(dim=1), (labels > 0).any(dim=1)
    asked = any_finding.long() if column is None else torch.where(labels[:, column] > 0, 1, 2 * any_finding.long())
    return torch.where(known, asked, -1)


def join(datasets: Sequence[Dataset]) -> Dataset:
    """Train images of several data sets as one without labels; val and test are those of the first.

    Raises:
        ValueError: some are grey and some in colour.
    """
    first, name = datasets[0], JOINED.join(one.name for one in datasets)
    same = all(one.channels == first.channels for one in datasets)
    require(same, f"data sets of {name}", "all grey or all in colour", [one.channels for one in datasets])
    groups = np.concatenate([_patients(one) for one in datasets])
    splits: dict[str, Any] = {part: _without_labels(split.images) for part, split in first.splits.items()}
    splits["train"] = _without_labels(torch.cat([one.train.images for one in datasets]), groups)
    counts = ", ".join(f"{len(one.train)} of {one.name}" for one in datasets)
    record = {"source": name, "status": "joined", "parts": [one.provenance for one in datasets], "notes": []}
    about: dict[str, Any] = {"name": name, "size": first.size, "provenance": record}
    joined = Dataset(task="multiclass", class_names=("unlabelled",), **about, **splits)
    return with_note(joined, f"train images: {counts}")


def _without_labels(images: Tensor, groups: np.ndarray | None = None) -> Split:
    return Split(images=images, labels=torch.full((len(images),), -1), groups=groups)


def _patients(dataset: Dataset) -> np.ndarray:
    """The patient of each train image under a name that no other data set uses."""
    own = dataset.train.groups
    return np.array([f"{dataset.name}:{i if own is None else own[i]}" for i in range(len(dataset.train))])
