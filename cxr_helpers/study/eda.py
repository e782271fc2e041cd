"""A look at the data before anything is trained: labels and pixels, and what predicting nothing scores.

Shares are of labelled images, with Wilson's 95 % interval at the effective number of images: films of one patient
resemble each other, so n is divided by the design effect, the variance of the share by patient over that by image.
Sources: Wilson 1927 (10.1080/01621459.1927.10502953); Kish 1965 for the design effect; Newcombe 1998
(10.1002/(SICI)1097-0258(19980430)17:8<873::AID-SIM779>3.0.CO;2-I) for the difference of two shares.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import combinations

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..data import Dataset, Split
from ..probe import classification_metrics

__all__ = [
    "baseline_table", "class_counts", "cooccurrence_table", "draw_samples", "pixel_table",
    "prevalence_shift", "share_interval",
]  # fmt: skip

ALL, NONE = "all images", "none of them"
Z2 = 1.959964**2  # square of the normal quantile of a two-sided 95 % interval
Bools = NDArray[np.bool_]


# ---- labels


def _shown(dataset: Dataset, split: Split) -> dict[str, Bools]:
    """Which labelled images show which class; where an image may have several, first which show none."""
    labels = split.labels[split.labelled].numpy()
    columns = labels == 1 if labels.ndim == 2 else labels[:, None] == np.arange(len(dataset.class_names))
    none = {NONE: ~columns.any(axis=1)} if dataset.task == "multilabel" else {}
    return none | dict(zip(dataset.class_names, columns.T, strict=True))


def _outputs(dataset: Dataset, split: Split) -> Bools:
    """What a classifier is asked for: bool [labelled images, num_outputs]."""
    return np.stack(list(_shown(dataset, split).values())[-dataset.num_outputs :], axis=1)


def _patients(split: Split) -> NDArray[np.int64]:
    """A number per labelled image's patient, from 0; each image its own where no patients are named."""
    rows = np.flatnonzero(split.labelled.numpy())
    return np.unique(rows if split.groups is None else split.groups[rows], return_inverse=True)[1]


def share_interval(positive: Bools, patients: NDArray[np.int64]) -> tuple[float, float, float]:
    """Share of positives [N] with its 95 % interval, from the patients' numbers [N], counted from 0.

    Where all or none are positive the number of patients is the effective one: the cautious end.
    """
    n, p = len(positive), float(positive.mean())
    sizes, hits = np.bincount(patients), np.bincount(patients, weights=positive)
    effective = float(len(sizes))
    if 0 < p < 1 and 1 < len(sizes) < n:
        by_patient = np.square(hits - p * sizes).sum() / n**2 * len(sizes) / (len(sizes) - 1)
        effective = n / max(by_patient / (p * (1 - p) / n), 1.0)
    centre = (p + Z2 / (2 * effective)) / (1 + Z2 / effective)
    half = np.sqrt(Z2 * (p * (1 - p) / effective + Z2 / (4 * effective**2))) / (1 + Z2 / effective)
    return p, float(np.clip(centre - half, 0, p)), float(np.clip(centre + half, p, 1))


def class_counts(dataset: Dataset) -> pd.DataFrame:
    """`split, class, images, of, share, low, high, patients`: images and patients that show a class."""
    lines = []
    for name, split in dataset.splits.items():
        patients = _patients(split)
        for label, column in _shown(dataset, split).items():
            share, low, high = share_interval(column, patients)
            line = {"split": name, "class": label, "images": int(column.sum()), "of": len(column), "share": share}
            lines.append(line | {"low": low, "high": high, "patients": len(np.unique(patients[column]))})
    return pd.DataFrame(lines)


def prevalence_shift(counts: pd.DataFrame) -> pd.DataFrame:
    """How far the shares of `class_counts` move from train: `class, to, share_train, share, difference, low, high`.

    Splits are taken as independent: where val shares patients with train the interval is too wide, not too narrow.
    """
    train = counts[counts["split"] == "train"].drop(columns="split")
    both = counts[counts["split"] != "train"].merge(train, on="class", suffixes=("", "_train"))
    difference = both["share"] - both["share_train"]
    low = difference - np.hypot(both["share"] - both["low"], both["high_train"] - both["share_train"])
    high = difference + np.hypot(both["high"] - both["share"], both["share_train"] - both["low_train"])
    both = both.rename(columns={"split": "to"})[["class", "to", "share_train", "share"]]
    return both.assign(difference=difference, low=low, high=high)


def cooccurrence_table(dataset: Dataset) -> pd.DataFrame:
    """Every pair of labels in train: `a, b, both, expected` (by chance), `phi` (correlation of the two columns).

    Raises:
        ValueError: classes exclude each other.
    """
    if dataset.task != "multilabel":
        raise ValueError(f"co-occurrence needs multi-label data, got {dataset.name}, whose classes exclude each other")
    columns, names = _outputs(dataset, dataset.train).astype(float), dataset.class_names
    both, phi = columns.T @ columns, pd.DataFrame(columns).corr().to_numpy()
    chance = np.outer(both.diagonal(), both.diagonal()) / len(columns)
    pairs = combinations(range(len(names)), 2)
    lines = [(names[i], names[j], int(both[i, j]), chance[i, j], phi[i, j]) for i, j in pairs]
    return pd.DataFrame(lines, columns=["a", "b", "both", "expected", "phi"])


def draw_samples(dataset: Dataset, per_class: int = 6, seed: int = 0) -> pd.DataFrame:
    """A draw of train images of every class, no two of a class from one patient, none twice while there are others.

    Returns:
        `class, index` (in train), `others` (the image's other labels, joined by commas).
    """
    columns, patients = _shown(dataset, dataset.train), _patients(dataset.train)
    rows, order = np.flatnonzero(dataset.train.labelled.numpy()), np.random.default_rng(seed).permutation(len(patients))
    lines: list[tuple[str, int, str]] = []
    shown: list[int] = []
    for label, column in columns.items():
        members = order[column[order]]
        members = members[np.argsort(np.isin(members, shown), kind="stable")]
        first = np.sort(np.unique(patients[members], return_index=True)[1])[:per_class]
        for row in members[first]:
            others = [name for name, other in columns.items() if other[row] and name != label]
            lines.append((label, int(rows[row]), ", ".join(others)))
        shown += members[first].tolist()
    return pd.DataFrame(lines, columns=["class", "index", "others"])


def baseline_table(dataset: Dataset) -> pd.DataFrame:
    """What answers learnt on train without a look at any image score: the argument for metric and loss.

    "majority" gives the more frequent answer to every question, "prior" each class its share.

    Returns:
        `split, baseline, auc, average_precision, accuracy, balanced_accuracy`.
    """
    rates, lines = _outputs(dataset, dataset.train).mean(axis=0), []
    majority = np.eye(len(rates))[rates.argmax()] if dataset.task == "multiclass" else (rates > 0.5).astype(float)
    for name in ("val", "test"):
        labels = dataset.splits[name].labels[dataset.splits[name].labelled].numpy()
        for baseline, constant in (("majority", majority), ("prior", rates)):
            scores = np.tile(constant, (len(labels), 1))
            found = classification_metrics(dataset.task, labels, scores[:, 0] if dataset.task == "binary" else scores)
            shown = ("auc", "average_precision", "accuracy", "balanced_accuracy")
            lines.append({"split": name, "baseline": baseline, **{key: found[key] for key in shown}})
    return pd.DataFrame(lines)


# ---- pixels


def _members(dataset: Dataset) -> Iterator[tuple[str, str, Tensor]]:
    """(split, class, its rows in the split): all images first, then each class that has any."""
    for name, split in dataset.splits.items():
        known = split.labelled.nonzero().flatten()
        yield name, ALL, torch.arange(len(split))
        shown = _shown(dataset, split).items()
        yield from ((name, label, known[torch.from_numpy(column)]) for label, column in shown if column.any())


def _moments(split: Split) -> NDArray[np.float64]:
    """Mean, mean square, share of black and of white of each image and channel, in [0, 1]: [N, C, 4]."""
    parts = []
    for block in split.images.cpu().split(256):
        x = block.flatten(2).double() / 255
        parts.append(torch.stack([part.double().mean(2) for part in (x, x.square(), x == 0, x == 1)], dim=2))
    return torch.cat(parts).numpy()


def pixel_table(dataset: Dataset) -> pd.DataFrame:
    """Moments of the pixels in [0, 1] by split, class and channel.

    Returns:
        `split, class, channel, images, mean, variance` (over all pixels), `mean_sd` (of the images' means), `contrast,
        contrast_sd` (of the images' standard deviations), `black, white` (shares of pixels at 0 and at 255).
    """
    moments, lines = {name: _moments(split) for name, split in dataset.splits.items()}, []
    for name, label, rows in _members(dataset):
        for c, channel in enumerate(("grey",) if dataset.channels == 1 else ("red", "green", "blue")):
            mean, square, black, white = moments[name][rows.numpy(), c].T
            contrast = np.sqrt(np.maximum(square - mean**2, 0))
            line = {"split": name, "class": label, "channel": channel, "images": len(mean), "mean": mean.mean()}
            line |= {"variance": square.mean() - mean.mean() ** 2, "mean_sd": mean.std(), "contrast": contrast.mean()}
            lines.append(line | {"contrast_sd": contrast.std(), "black": black.mean(), "white": white.mean()})
    return pd.DataFrame(lines)
