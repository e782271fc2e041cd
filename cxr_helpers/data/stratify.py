"""Draws by class that keep patients whole: splits carved from train, and the labels that are kept."""

from __future__ import annotations

import numpy as np

__all__ = ["carve", "choose_labelled"]


def carve(labels: np.ndarray, groups: np.ndarray | None, fraction: float, seed: int) -> np.ndarray:
    """Choose a part of the images, bool [N], for another split.

    Each patient counts for the class most of its images have. Of each class with two patients or more, some are taken
    and some are left: as many as whole patients allow, drawn at random, without passing `fraction` of the class (one
    image or the smallest patient at least).

    Args:
        labels: int [N], one class each. groups: the patient of each image; None where every image is its own.
    """
    units, strata, sizes = _units(labels, groups, np.ones(len(labels), bool))
    taken = np.zeros(len(sizes), bool)
    order = np.random.default_rng(seed).permutation(len(sizes))
    for stratum in np.unique(strata):
        members = order[strata[order] == stratum]
        if len(members) < 2:
            continue
        room = max(1, round(fraction * int(sizes[members].sum())))
        for unit in members:
            if sizes[unit] <= room:
                taken[unit] = True
                room -= sizes[unit]
        if not taken[members].any():
            taken[members[np.argmin(sizes[members])]] = True
    return taken[units]


def choose_labelled(labels: np.ndarray, groups: np.ndarray | None, fraction: float, seed: int) -> np.ndarray:
    """Choose the images that keep their labels, bool [N]: of each class at least `fraction`, in (0, 1], by patients.

    A larger fraction with the same seed keeps all that a smaller one keeps. The first patient drawn that shows a class
    always keeps its labels, so no class is lost. Multi-label images, [N, L], are drawn as one class.
    """
    labelled = np.all(labels.reshape(len(labels), -1) >= 0, axis=1)
    units, strata, sizes = _units(labels, groups, labelled)
    kept = np.zeros(len(sizes), bool)
    order = np.random.default_rng(seed).permutation(len(sizes))
    order = order[sizes[order] > 0]
    for stratum in np.unique(strata[order]):
        members = order[strata[order] == stratum]
        reached = np.cumsum(sizes[members])
        kept[members[: np.searchsorted(reached, max(1, round(fraction * int(reached[-1])))) + 1]] = True
    classes = labels.T == 1 if labels.ndim == 2 else [labels == value for value in np.unique(labels[labels >= 0])]
    for shows_class in classes:
        showing = np.isin(order, units[shows_class & labelled])
        kept[order[showing][:1]] = True
    return kept[units] & labelled


def _units(
    labels: np.ndarray, groups: np.ndarray | None, counted: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The unit of each image [N], the most frequent class of each unit [U], and its counted images [U]."""
    units = np.arange(len(labels)) if groups is None else np.unique(groups, return_inverse=True)[1]
    columns = np.zeros(len(labels), np.int64) if labels.ndim == 2 else np.unique(labels, return_inverse=True)[1]
    table = np.zeros((units.max(initial=-1) + 1, columns.max(initial=0) + 1), np.int64)
    np.add.at(table, (units, columns), counted)
    return units, table.argmax(axis=1), table.sum(axis=1)
