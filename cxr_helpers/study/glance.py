"""What the report asks of its rows on every page alike: the named comparisons, and the study in one table."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import pandas as pd

from ..data import Dataset
from .plan import Row

__all__ = ["FAMILY", "at_a_glance"]

FAMILY = (  # named before they were corrected together (Holm)
    ("SimCLR", "VICReg"),
    ("SimCLR from ImageNet*", "SimCLR"),
    ("VICReg from ImageNet*", "VICReg"),
    ("SimCLR", "Supervised"),
    ("VICReg", "Supervised"),
    ("SimCLR from ImageNet*", "Supervised"),
    ("VICReg from ImageNet*", "Supervised"),
    ("SimCLR from ImageNet*", "ImageNet*, fine-tuned"),
)


def at_a_glance(rows: Iterable[Row], data: Mapping[str, Dataset]) -> pd.DataFrame:
    """What the assignment asked and what was done: `what, asked, done`, read from the records of pretraining."""
    pretraining = [run for row in rows for run in row.runs if run.record.get("method", "supervised") != "supervised"]

    def values(name: str) -> str:
        return ", ".join(dict.fromkeys(str(run.record[name]) for run in pretraining)) or "–"

    minutes = [run.environment.get("seconds", 0) / 60 for run in pretraining]
    seeds = sorted({run.record["seed"] for run in pretraining})
    lines = [
        (name, "train / val / test", " / ".join(f"{len(s):,}" for s in d.splits.values())) for name, d in data.items()
    ]
    lines += [
        ("px", "224", values("size")),
        ("encoder", "ResNet-18", values("backbone")),
        ("epochs", "20 to 50", values("epochs")),
        ("batch", "–", values("batch_size")),
        ("optimizer", "LARS", values("optimizer")),
        ("seeds", "–", ", ".join(map(str, seeds)) or "–"),
        ("minutes a run", "–", f"{min(minutes):.0f} to {max(minutes):.0f}" if minutes else "–"),
        ("ImageNet weights", "torchvision's", "the last stage refitted"),
        ("CIFAR-10", "100 epochs", "3 epochs of 10,000 images"),
    ]
    return pd.DataFrame(lines, columns=["what", "asked", "done"])
