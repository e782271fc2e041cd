"""A look at the data before anything is trained: labels, pixels, patients, and what predicting nothing scores.

Shares are of labelled images, with Wilson's 95 % interval at the effective number of images: films of one patient
resemble each other, so n is divided by the design effect, the variance of the share by patient over that by image.
Sources: Wilson 1927 (10.1080/01621459.1927.10502953); Kish 1965 for the design effect.
"""

from __future__ import annotations

from itertools import combinations, permutations

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray

from ..data import Dataset, Split
from ..probe import classification_metrics

__all__ = ["baseline_table", "class_counts", "cooccurrence_table", "draw_samples", "pixel_table", "share_interval",
           "shared_patients"]  # fmt: skip

ALL, NONE = "all images", "none of them"
Z2 = 1.959964**2  # square of the normal quantile of a two-sided 95 % interval
Bools = NDArray[np.bool_]


def _shown(dataset: Dataset, split: Split) -> dict[str, Bools]:
    """Which labelled images show which class; where an image may have several, first which show none."""
    labels = split.labels[split.labelled].numpy()
    columns = labels == 1 if labels.ndim == 2 else labels[:, None] == np.arange(len(dataset.class_names))
    none = {NONE: ~columns.any(axis=1)} if dataset.task == "multilabel" else {}
    return none | dict(zip(dataset.class_names, columns.T, strict=True))


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
            line = {"split": name, "class": label, "images": int(column.sum()), "of": len(column)}
            line |= zip(("share", "low", "high"), share_interval(column, patients), strict=True)
            lines.append(line | {"patients": len(np.unique(patients[column]))})
    return pd.DataFrame(lines)


def shared_patients(dataset: Dataset) -> pd.DataFrame:
    """`split, other, images, of, share, patients`: `images` of `split`'s `of` images show a patient of `other`."""
    groups = {name: split.groups for name, split in dataset.splits.items() if split.groups is not None}
    lines = []
    for a, b in permutations(groups, 2):
        both = np.isin(groups[a], groups[b])
        lines.append((a, b, both.sum(), len(both), both.mean(), len(np.unique(groups[a][both]))))
    return pd.DataFrame(lines, columns=["split", "other", "images", "of", "share", "patients"])


def cooccurrence_table(dataset: Dataset) -> pd.DataFrame:
    """Every pair of labels of multi-label data in train: `a, b, both` (images), `phi` (correlation of two columns)."""
    columns, names = np.stack(list(_shown(dataset, dataset.train).values())[1:]).astype(float), dataset.class_names
    both, phi = columns @ columns.T, pd.DataFrame(columns.T).corr().to_numpy()
    lines = [(names[i], names[j], int(both[i, j]), phi[i, j]) for i, j in combinations(range(len(names)), 2)]
    return pd.DataFrame(lines, columns=["a", "b", "both", "phi"])


def draw_samples(dataset: Dataset, per_class: int = 6, seed: int = 0) -> pd.DataFrame:
    """Train images of every class: `class, index`; no two of a class from one patient, none twice if it can be."""
    columns, patients = _shown(dataset, dataset.train), _patients(dataset.train)
    rows, order = np.flatnonzero(dataset.train.labelled.numpy()), np.random.default_rng(seed).permutation(len(patients))
    parts, shown = [], np.array([], dtype=np.intp)
    for label, column in columns.items():
        members = order[column[order]]
        members = members[np.argsort(np.isin(members, shown), kind="stable")]
        chosen = members[np.sort(np.unique(patients[members], return_index=True)[1])[:per_class]]
        parts.append(pd.DataFrame({"class": label, "index": rows[chosen]}))
        shown = np.append(shown, chosen)
    return pd.concat(parts, ignore_index=True)


def baseline_table(dataset: Dataset) -> pd.DataFrame:
    """What answers learnt on train without a look at any image score: the argument for metric and loss.

    Returns:
        `split, baseline` ("majority", the more frequent answer to every question; "prior", the share of each class),
        `auc, accuracy, balanced_accuracy`.
    """
    asked = list(_shown(dataset, dataset.train).values())[-dataset.num_outputs :]  # the last of two, all of several
    rates, lines = np.stack(asked, axis=1).mean(axis=0), []
    majority = np.eye(len(rates))[rates.argmax()] if dataset.task == "multiclass" else (rates > 0.5).astype(float)
    for name, split in (("val", dataset.val), ("test", dataset.test)):
        labels = split.labels[split.labelled].numpy()
        for baseline, constant in (("majority", majority), ("prior", rates)):
            scores = np.tile(constant, (len(labels), 1))
            found = classification_metrics(dataset.task, labels, scores[:, 0] if dataset.task == "binary" else scores)
            figures = {key: found[key] for key in ("auc", "accuracy", "balanced_accuracy")}
            lines.append({"split": name, "baseline": baseline} | figures)
    return pd.DataFrame(lines)


def pixel_table(dataset: Dataset) -> pd.DataFrame:
    """Moments of all pixels in [0, 1]: `split, class` (all images), `images, mean, variance, black, white`.

    `black` and `white` are the shares of pixels at 0 and at 255.
    """
    lines = []
    for name, split in dataset.splits.items():
        counts = torch.bincount(split.images.cpu().flatten(), minlength=256).double().numpy()
        share, greys = counts / counts.sum(), np.arange(256) / 255
        mean = share @ greys
        line = {"split": name, "class": ALL, "images": len(split), "mean": mean, "variance": share @ greys**2 - mean**2}
        lines.append(line | {"black": share[0], "white": share[255]})
    return pd.DataFrame(lines)
