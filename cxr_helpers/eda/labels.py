"""Labels: how they are stored, how many of each, with intervals by patient, what moves between splits, what meets.

An image may have several labels, one class, or none known (-1); rows without a label are not counted. Shares are of
labelled images. Intervals are Wilson's at the effective number of images: images of one patient resemble each other, so
n is divided by the design effect, the variance of the share by patient over its variance by image.
Sources: Wilson 1927 (10.1080/01621459.1927.10502953); Newcombe 1998 (hybrid score interval of a difference,
10.1002/(SICI)1097-0258(19980430)17:8<873::AID-SIM779>3.0.CO;2-I); Kish 1965 for the design effect.
"""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from ..data import Dataset, Split
from .options import EDA

__all__ = [
    "cardinality_table",
    "class_counts",
    "cooccurrence_table",
    "label_format",
    "positives",
    "prevalence_shift",
    "share_interval",
]

Bools = NDArray[np.bool_]


def positives(split: Split, num_classes: int) -> Bools:
    """Which labelled images show which class: bool [labelled images, classes]."""
    labels = split.labels[split.labelled].cpu().numpy()
    return labels == 1 if labels.ndim == 2 else labels[:, None] == np.arange(num_classes)


def _patients(split: Split) -> NDArray[np.int64] | None:
    """A number per labelled image's patient, from 0; None where the file names no patients."""
    if split.groups is None:
        return None
    return np.unique(split.groups[split.labelled.cpu().numpy()], return_inverse=True)[1]


# ---- format


def label_format(dataset: Dataset) -> pd.DataFrame:
    """How images and labels lie in memory: one row per split.

    Returns:
        `split, images, image_dtype, labels, label_dtype, values, unlabelled` (images without a label), `example`
        (the first labelled row as numbers) and `means` (the same in words).
    """
    rows = []
    for name, split in dataset.splits.items():
        known = split.labels[split.labelled]
        first = known[0] if len(known) else None
        rows.append(
            {
                "split": name,
                "images": str(list(split.images.shape)),
                "image_dtype": str(split.images.dtype).removeprefix("torch."),
                "labels": str(list(split.labels.shape)),
                "label_dtype": str(split.labels.dtype).removeprefix("torch."),
                "values": ", ".join(str(int(v)) for v in known.unique()),
                "unlabelled": len(split) - len(known),
                "example": "–" if first is None else str(first.tolist()),
                "means": "–" if first is None else " + ".join(_named(dataset, first.numpy())) or "none of the labels",
            }
        )
    return pd.DataFrame(rows)


def _named(dataset: Dataset, label: NDArray[np.int64]) -> list[str]:
    """The names of one image's labels."""
    chosen = np.flatnonzero(label == 1) if label.ndim else [int(label)]
    return [dataset.class_names[i] for i in chosen]


# ---- counts


def share_interval(positive: Bools, patients: NDArray[np.int64] | None = None) -> tuple[float, float, float]:
    """Share of positives with its 95 % interval: Wilson's at the effective number of images.

    Args:
        positive: bool [N], N at least 1.
        patients: [N], numbers from 0; None takes images as independent.

    Returns:
        share, low, high. Without a positive (or a negative) the design effect has no estimate, and the number of
        patients is the effective one: the cautious end.
    """
    n, p = len(positive), float(positive.mean())
    effective = float(n)
    if patients is not None:
        sizes, hits = np.bincount(patients), np.bincount(patients, weights=positive)
        effective = float(len(sizes))
        if 0 < p < 1 and len(sizes) > 1:
            by_patient = np.square(hits - p * sizes).sum() / n**2 * len(sizes) / (len(sizes) - 1)
            effective = n / max(by_patient / (p * (1 - p) / n), 1.0)
    z2 = EDA.z**2 / effective
    centre = (p + z2 / 2) / (1 + z2)
    half = EDA.z * np.sqrt(p * (1 - p) / effective + z2 / (4 * effective)) / (1 + z2)
    return p, min(max(centre - half, 0.0), p), max(min(centre + half, 1.0), p)


def class_counts(dataset: Dataset) -> pd.DataFrame:
    """One row per split and class: images and patients that show it, and its share with a 95 % interval.

    Returns:
        `split, class, images, of, share, low, high, patients, of_patients`. The class `none of them` (multi-label
        data only) counts images without any label. Patients are missing (nan) where the file names none.
    """
    rows = []
    for name, split in dataset.splits.items():
        columns, patients = positives(split, len(dataset.class_names)), _patients(split)
        names = list(dataset.class_names)
        if dataset.task == "multilabel":
            columns, names = np.column_stack([columns, ~columns.any(axis=1)]), [*names, NONE]
        for label, column in zip(names, columns.T, strict=True):
            share, low, high = share_interval(column, patients) if len(column) else (np.nan,) * 3
            rows.append(
                {
                    "split": name,
                    "class": label,
                    "images": int(column.sum()),
                    "of": len(column),
                    "share": share,
                    "low": low,
                    "high": high,
                    "patients": np.nan if patients is None else float(len(np.unique(patients[column]))),
                    "of_patients": np.nan if patients is None else float(len(np.unique(patients))),
                }
            )
    return pd.DataFrame(rows)


NONE = "none of them"


def prevalence_shift(counts: pd.DataFrame) -> pd.DataFrame:
    """How far the share of each class moves from train to val and to test, with 95 % intervals.

    Splits are taken as independent; where val shares patients with train the interval is too wide, not too narrow.

    Args:
        counts: `class_counts`'s rows.

    Returns:
        `class, to, share_train, share, difference, low, high, moved` (the interval leaves out 0), one row per class
        and other split.
    """
    rows = []
    by_split = {str(name): part.set_index("class") for name, part in counts.groupby("split", sort=False)}
    for label in map(str, by_split["train"].index):
        for other in ("val", "test"):
            a, b = by_split["train"].loc[label], by_split[other].loc[label]
            difference = b.share - a.share
            low = difference - np.hypot(b.share - b.low, a.high - a.share)
            high = difference + np.hypot(b.high - b.share, a.share - a.low)
            row = {"class": label, "to": other, "share_train": a.share, "share": b.share, "difference": difference}
            rows.append({**row, "low": low, "high": high, "moved": bool(low > 0 or high < 0)})
    return pd.DataFrame(rows)


# ---- several labels at once


def cardinality_table(dataset: Dataset) -> pd.DataFrame:
    """How many labels an image has: `split, labels, images, share`, every number from 0 to the largest met.

    Raises:
        ValueError: classes exclude each other, so that every image has one.
    """
    _need_multilabel(dataset)
    per_split = {name: positives(s, len(dataset.class_names)).sum(axis=1) for name, s in dataset.splits.items()}
    most = max(int(counts.max(initial=0)) for counts in per_split.values())
    return pd.DataFrame(
        [
            {"split": name, "labels": k, "images": int((counts == k).sum()), "share": float((counts == k).mean())}
            for name, counts in per_split.items()
            for k in range(most + 1)
        ]
    )


def cooccurrence_table(dataset: Dataset, split: str = "train") -> pd.DataFrame:
    """Every pair of labels of one split: how often both, how often by chance, lift and phi.

    Returns:
        `a, b, both, patients, expected, lift, phi`, each unordered pair once. `expected` is the number of images with
        both if the labels were independent, `lift` both / expected (nan below `EDA.fewest_expected`), `phi` the
        correlation of the two columns (nan where one is constant).

    Raises:
        ValueError: classes exclude each other.
    """
    _need_multilabel(dataset)
    part = dataset.splits[split]
    columns, patients = positives(part, len(dataset.class_names)), _patients(part)
    n, totals, rates = len(columns), columns.sum(axis=0), columns.mean(axis=0)
    rows = []
    for i, j in combinations(range(columns.shape[1]), 2):
        together = columns[:, i] & columns[:, j]
        both, expected = int(together.sum()), float(totals[i] * totals[j] / n)
        spread = np.sqrt(rates[i] * (1 - rates[i]) * rates[j] * (1 - rates[j]))
        rows.append(
            {
                "a": dataset.class_names[i],
                "b": dataset.class_names[j],
                "both": both,
                "patients": np.nan if patients is None else float(len(np.unique(patients[together]))),
                "expected": expected,
                "lift": both / expected if expected >= EDA.fewest_expected else np.nan,
                "phi": (both / n - rates[i] * rates[j]) / spread if spread else np.nan,
            }
        )
    return pd.DataFrame(rows)


def _need_multilabel(dataset: Dataset) -> None:
    if dataset.task != "multilabel":
        raise ValueError(f"co-occurrence needs multi-label data, got {dataset.name}, whose classes exclude each other")
