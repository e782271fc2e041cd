"""Patients: how many per split, how many images each, who is in two splits, and what that does to a score on val."""

from __future__ import annotations

from itertools import permutations

import numpy as np
import pandas as pd

from ..data import Dataset, Split
from ..probe import Features, bootstrap_ci, knn_probe, pixel_features
from .options import EDA

__all__ = ["images_per_patient", "leak_check", "patient_table", "shared_patients"]


def _groups(dataset: Dataset) -> dict[str, pd.Series]:
    """The patient of every image by split; nothing where any split names none."""
    named = {name: split.groups for name, split in dataset.splits.items()}
    if any(groups is None for groups in named.values()):
        return {}
    return {name: pd.Series(groups, dtype=object) for name, groups in named.items()}


def patient_table(dataset: Dataset) -> pd.DataFrame:
    """Patients per split, with how many images they have; empty where the file names no patients.

    Returns:
        `split, images, patients, median_images, most_images` (of one patient), `images_of_repeated` (share of images
        whose patient has another one in that split), `mixed_labels` (patients with images of different labels).
    """
    rows = []
    for name, groups in _groups(dataset).items():
        per_patient = groups.value_counts()
        labels = pd.Series([tuple(row) for row in dataset.splits[name].labels.reshape(len(groups), -1).tolist()])
        rows.append(
            {
                "split": name,
                "images": len(groups),
                "patients": len(per_patient),
                "median_images": float(per_patient.median()),
                "most_images": int(per_patient.max()),
                "images_of_repeated": float(per_patient[per_patient > 1].sum() / len(groups)),
                "mixed_labels": int((labels.groupby(groups).nunique() > 1).sum()),
            }
        )
    return pd.DataFrame(rows)


def images_per_patient(dataset: Dataset) -> pd.DataFrame:
    """How many patients have how many images: `split, images_each, patients, share` (of that split's patients)."""
    rows = []
    for name, groups in _groups(dataset).items():
        tally = groups.value_counts().value_counts().sort_index()
        rows += [
            {"split": name, "images_each": k, "patients": n, "share": n / tally.sum()}
            for k, n in zip(tally.index.tolist(), tally.tolist(), strict=True)
        ]
    return pd.DataFrame(rows)


def shared_patients(dataset: Dataset) -> pd.DataFrame:
    """Images of one split whose patient is in another one, too: six rows, or none where no patients are named.

    Returns:
        `split, other, images, of, share, patients`: `images` of `split`'s `of` images show a patient of `other`.
    """
    rows = []
    groups = _groups(dataset)
    for a, b in permutations(groups, 2):
        shared = groups[a].isin(groups[b].unique())
        row = {"split": a, "other": b, "images": int(shared.sum()), "of": len(shared), "share": float(shared.mean())}
        rows.append({**row, "patients": int(groups[a][shared].nunique())})
    return pd.DataFrame(rows)


def leak_check(dataset: Dataset, *, num_resamples: int = 500) -> pd.DataFrame:
    """What a model that only remembers train's pixels scores, on val with and without shared patients, and on test.

    Neighbours among the train images vote (`knn_probe` on pixels averaged to `EDA.leak_side_px`): no encoder, so what
    it gains on images of known patients can only come from having seen them.

    Returns:
        `part` ("val, patient in train", "val, patient not in train", "val", "test"), `images, auc, low, high` (95 %,
        over patients), `nearest_same` (share of images whose nearest train image is of the same patient, nan without
        patients). Parts without both classes are left out; without shared patients "val" stands alone.
    """
    side = min(EDA.leak_side_px, dataset.size)
    train = _centred(pixel_features(dataset.train, side))
    known = _groups(dataset)
    rows = []
    for name in ("val", "test"):
        split = dataset.splits[name]
        features = _centred(pixel_features(split, side))
        inside = known[name].isin(known["train"].unique()).to_numpy() if known else np.zeros(len(split), dtype=bool)
        scores = knn_probe(
            train, features, task=dataset.task, k=EDA.leak_neighbours, num_outputs=dataset.num_outputs
        )  # fmt: skip
        near = _nearest_is_same(train, features)
        parts = {name: np.ones(len(split), dtype=bool)}
        if inside.any() and not inside.all():
            parts = {f"{name}, patient in train": inside, f"{name}, patient not in train": ~inside, **parts}
        for part, chosen in parts.items():
            rows += _scored(part, split, scores, chosen & split.labelled.numpy(), near, num_resamples)
    return pd.DataFrame(rows)


def _centred(features: Features) -> Features:
    """Each image without its own mean brightness, so that the cosine compares patterns."""
    return Features(features.x - features.x.mean(axis=1, keepdims=True), features.labels, features.groups)


def _nearest_is_same(train: Features, query: Features) -> np.ndarray | None:
    """Whether the most similar train image is of the same patient, bool [N]; None where no patients are named."""
    if train.groups is None or query.groups is None:
        return None
    keys, rows = (f.x / np.maximum(np.linalg.norm(f.x, axis=1, keepdims=True), 1e-12) for f in (train, query))
    blocks = [(rows[i : i + EDA.image_block] @ keys.T).argmax(axis=1) for i in range(0, len(rows), EDA.image_block)]
    return train.groups[np.concatenate(blocks)] == query.groups


def _scored(
    part: str, split: Split, scores: np.ndarray, chosen: np.ndarray, near: np.ndarray | None, num_resamples: int
) -> list[dict[str, object]]:
    labels = split.labels.numpy()[chosen]
    if not len(labels) or (labels.min(axis=0) == labels.max(axis=0)).all():
        return []
    groups = None if split.groups is None else split.groups[chosen]
    found = bootstrap_ci(labels, scores[chosen], groups, num_resamples=num_resamples)
    row = {"part": part, "images": len(labels), "auc": found.estimate, "low": found.low, "high": found.high}
    return [{**row, "nearest_same": np.nan if near is None else float(near[chosen].mean())}]
