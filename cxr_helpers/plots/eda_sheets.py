"""Sheets of images: a draw of every class, and pairs that look alike; grey values are shown as they are stored."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ..data import Dataset, Split
from ..report.tables import rows_of
from .drawing import require, styled

__all__ = ["plot_pairs", "plot_samples"]

_MOST_ROWS = 5  # classes below one another; more stand in two blocks side by side
_SIDE = 1.08  # inches of one image


def _show(ax: Axes, split: Split, index: int) -> None:
    image = split.images[index].permute(1, 2, 0).cpu().numpy()
    ax.imshow(image.squeeze(), cmap="gray", vmin=0, vmax=255, interpolation="nearest")
    ax.set_xticks([])
    ax.set_yticks([])
    ax.grid(visible=False)
    for spine in ax.spines.values():
        spine.set_visible(False)


def _empty(ax: Axes) -> None:
    ax.set_axis_off()


@styled
def plot_samples(dataset: Dataset, samples: pd.DataFrame, split: str = "train") -> Figure:
    """Images of every class, one class to a row; the small print names an image's other labels.

    Args:
        dataset: whose images are shown.
        samples: `draw_samples`'s rows of that split.
        split: see `samples`.
    """
    require(samples, ["class", "index", "others"])
    names = [str(name) for name in samples["class"].unique()]
    blocks = 1 if len(names) <= _MOST_ROWS else 2
    per_row = -(-int(samples.groupby("class").size().max()) // blocks)
    rows = -(-len(names) // blocks)
    extra = 0.16 if samples.others.any() else 0.0
    figure = Figure(figsize=(_SIDE * per_row * blocks + 0.5, (_SIDE + extra) * rows), layout="constrained")
    grid = figure.subplots(rows, per_row * blocks, squeeze=False)
    for ax in grid.flat:
        _empty(ax)
    for i, name in enumerate(names):
        part = samples[samples["class"] == name].iloc[:per_row]
        at = (i // rows) * per_row
        for ax, row in zip(
            grid[i % rows, at : at + per_row], rows_of(part.rename(columns={"index": "at"})), strict=False
        ):
            ax.set_axis_on()
            _show(ax, dataset.splits[split], row.at)
            ax.set_xlabel(_small_print(row.others), fontsize=6.5, labelpad=1.5, color="#555555")
        grid[i % rows, at].set_ylabel(name, fontsize=8.5)
    return figure


def _small_print(others: str) -> str:
    names = others.split(", ") if others else []
    return "" if not names else f"+ {names[0]}" + (f", +{len(names) - 1}" if len(names) > 1 else "")


@styled
def plot_pairs(dataset: Dataset, pairs: pd.DataFrame, *, per_kind: int = 3) -> Figure:
    """Pairs of similar images: a row of each kind, identical ones first, pairs across splits before others.

    Args:
        dataset: whose images are shown.
        pairs: of `Similarities`.
        per_kind: pairs in a row.
    """
    require(pairs, ["split_a", "index_a", "split_b", "index_b", "r", "kind", "same_patient"])
    kinds = list(dict.fromkeys(pairs.kind))
    figure = Figure(figsize=(2.35 * per_kind, 1.55 * len(kinds)), layout="constrained")
    boxes = np.atleast_2d(np.array(figure.subfigures(len(kinds), per_kind, squeeze=False)))
    for kind, row in zip(kinds, boxes, strict=True):
        part = pairs[pairs.kind == kind]
        part = part.assign(across=part.split_a != part.split_b).sort_values("across", ascending=False, kind="stable")
        for box, pair in zip(row, rows_of(part.iloc[:per_kind]), strict=False):
            _draw_pair(box, dataset, pair)
    return figure


def _draw_pair(box: Any, dataset: Dataset, pair: Any) -> None:
    axes = box.subplots(1, 2)
    for ax, split, index in zip(axes, (pair.split_a, pair.split_b), (pair.index_a, pair.index_b), strict=True):
        _show(ax, dataset.splits[split], index)
        ax.set_xlabel(f"{split} {index}", fontsize=7.5, labelpad=2)
    whose = {True: "one patient", False: "two patients"}.get(pair.same_patient, "patients unknown")
    labels = "" if pair.same_label else ", other labels"
    box.suptitle(f"{pair.kind}, r = {pair.r:.3f}\n{whose}{labels}", fontsize=7.5)
