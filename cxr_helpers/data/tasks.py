"""Other questions to the same films: many findings become one answer, patients and splits stay as they are."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from ..fields import require
from .dataset import Dataset, with_note

__all__ = ["TASKS", "relabel"]

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
    found = [name for name in PNEUMONIA if name in dataset.class_names]
    require(task != "pneumonia" or bool(found), f"labels of {dataset.name}", "with pneumonia", dataset.class_names)
    column = dataset.class_names.index(found[0]) if task == "pneumonia" else None
    parts = dataset.splits.items()
    splits = {name: replace(split, labels=_asked(split.labels, column), masks=None) for name, split in parts}
    names = TASKS[task]
    about = {"name": f"{dataset.name}_{task}", "task": "binary" if len(names) == 2 else "multiclass"}
    asked = replace(dataset, class_names=names, **about, **splits)  # type: ignore[arg-type]
    return with_note(
        asked, f"asked for {' / '.join(names)}, of the {len(dataset.class_names)} labels of {dataset.name}"
    )


def _asked(labels: Tensor, column: int | None) -> Tensor:
    """int64 [N] of labels [N, L]: any finding, or with a column 1 where it is there and 2 where only others are."""
    known, any_finding = (labels >= 0).all(dim=1), (labels > 0).any(dim=1)
    asked = any_finding.long() if column is None else torch.where(labels[:, column] > 0, 1, 2 * any_finding.long())
    return torch.where(known, asked, -1)
