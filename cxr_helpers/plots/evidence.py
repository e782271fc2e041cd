"""Figures of what an encoder looks at and finds alike: maps over test images, their scores, nearest neighbours."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
import torch
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from torch import Tensor

from ..data import Dataset, Split
from ..report.tables import rows_of
from .drawing import COLOURS, OTHER_COLOUR, configurations, require, styled
from .images import TILE_END, Tile, draw_tiles, grey_tile, reduced

__all__ = ["plot_grad_cam", "plot_localisation", "plot_neighbours"]

_KINDS = {
    "tp": "{label},\ncalled",
    "fn": "{label},\nmissed",
    "fp": "no {label},\ncalled",
    "tn": "no {label},\nnot called",
}
_MARKS = {  # end of the column: marker, colour, meaning
    "random": ("|", "#555555", "chance"),
    "usual": ("x", "#555555", "habit (usual place)"),
    "best": ("D", "#999999", "best on this grid"),
}
_OVERLAY = 0.5  # opacity of a map: the film stays readable below it
_FEW_CELLS = 16  # up to so many, their figures are written into the map
_TILE_PX = 224  # an image is drawn no larger than this


# ---- maps


@styled
def plot_grad_cam(table: pd.DataFrame, split: Split) -> Figure:
    """Test images beside the probe's evidence in each cell, the four kinds of decision in four rows, one colour scale.

    Args:
        table: `attribution.explained_images`' rows of one run.
        split: test, whose rows the table names. Masks, where it has them, are outlined.
    """
    require(table, ["kind", "image", "name", "score", "threshold", "height", "width", "e0"])
    kinds = [kind for kind in _KINDS if kind in set(table["kind"])]
    most = int(table["kind"].value_counts().max())
    values = table.filter(regex=r"^e\d+$").to_numpy()
    limit = float(np.quantile(np.abs(values), 0.98))  # one cell in fifty may leave the scale
    tile, name_width, head, bar = 1.12, 1.25, 0.22, 0.55  # inches
    width, height = name_width + 2 * most * tile, len(kinds) * (tile + head) + bar
    figure, top, scale = Figure(figsize=(width, height)), height, Normalize(-limit, limit)
    for kind in kinds:
        rows = rows_of(table[table["kind"] == kind])
        top -= head + tile
        for i, row in enumerate(rows):
            film = split.images[int(row.image)].float() / 255
            place = (name_width + 2 * i * tile) / width, top / height, 1.86 * tile / width, 0.93 * tile / height
            ax = figure.add_axes(place)
            _pair(ax, film, np.array([getattr(row, f"e{c}") for c in range(row.height * row.width)]), row, scale)
            if split.masks is not None:
                _outline(ax, split.masks[int(row.image)].any(dim=0))
            ax.set_title(f"p = {row.score:.3f}", fontsize=8, pad=2, loc="left")
        name = _KINDS[kind].format(label=rows[0].name)
        figure.text((name_width - 0.1) / width, (top + tile / 2) / height, name, ha="right", va="center", fontsize=9)
    place = (name_width / width, 0.36 / height, min(0.6, 3.0 / width), 0.1 / height)
    axis = figure.add_axes(place)
    figure.colorbar(ScalarMappable(scale, "RdBu_r"), cax=axis, orientation="horizontal", extend="both")
    axis.tick_params(labelsize=8)
    axis.set_xlabel(
        f"log-odds of {rows_of(table)[0].name} that a cell adds (the image gets the mean of its cells)", fontsize=8.5
    )
    return figure


def _pair(ax: Axes, film: Tensor, evidence: np.ndarray, row: Any, scale: Normalize) -> None:
    """A film, and the same film under its map, on one pair of axes: x from 0 to 2, y from 0 down to 1."""
    cells = evidence.reshape(int(row.height), int(row.width))
    grey = grey_tile(film)
    for x in (0.0, 1.0):
        ax.imshow(grey, extent=(x + 0.01, x + 0.99, 0.99, 0.01), interpolation="nearest", aspect="auto")
    ax.imshow(
        cells, extent=(1.01, 1.99, 0.99, 0.01), cmap="RdBu_r", norm=scale, alpha=_OVERLAY, interpolation="nearest",
        aspect="auto",
    )  # fmt: skip
    ax.set_xlim(0, 2)
    ax.set_ylim(1, 0)
    ax.set_axis_off()
    if cells.size <= _FEW_CELLS:
        for (y, x), value in np.ndenumerate(cells):
            at = 1 + (x + 0.5) / cells.shape[1], (y + 0.5) / cells.shape[0]
            digits = 1 if (scale.vmax or 0) >= 1 else 2
            ax.text(*at, f"{value:+.{digits}f}".replace("-", "−"), ha="center", va="center", fontsize=7.5,
                    bbox={"facecolor": "white", "edgecolor": "none", "alpha": 0.65, "pad": 0.6})  # fmt: skip


def _outline(ax: Axes, mask: Tensor) -> None:
    """The true finding's edge on film and map."""
    if not bool(mask.any()):
        return
    side = mask.shape[-1]
    centres = (np.arange(side) + 0.5) / side
    for x in (0.0, 1.0):
        ax.contour(centres + x, centres, mask.float().numpy(), levels=[0.5], colors="#ffd400", linewidths=1.2)


@styled
def plot_localisation(summary: pd.DataFrame) -> Figure:
    """Pointing game and IoU of every encoder at every stage, beside chance, habit and the grid's own limit.

    Args:
        summary: `localisation_summary`'s rows of one data set.
    """
    require(
        summary, ["label", "family", "stage", "cells", "size", "hit", "hit_special", "iou", "iou_special", "iou_best"]
    )
    stages, drawn = list(summary["stage"].unique()), configurations(summary)
    step = 0.3  # inches of an encoder's row
    figure = Figure(figsize=(7.4, 1.15 + len(stages) * (0.14 + step * len(drawn))), layout="constrained")
    axes = figure.subplots(1, 2, sharey=True)
    for ax, score, text in zip(axes, ("hit", "iou"), ("pointing game: findings hit, %", "IoU, %"), strict=True):
        for y, row in enumerate(_placed(summary, stages, [label for label, _, _ in drawn])):
            if row is None:
                continue
            colour = COLOURS.get(row.family, OTHER_COLOUR)
            for name, face, shift in ((score, "white", -0.13), (f"{score}_special", colour, 0.13)):
                low, high = (100 * getattr(row, f"{name}_{end}") for end in ("low", "high"))
                ax.plot([low, high], [y + shift] * 2, color=colour, linewidth=1.6, solid_capstyle="butt")
                ax.plot(100 * getattr(row, name), y + shift, "o", color=colour, markersize=5, markerfacecolor=face)
            for end, (marker, grey, _) in _MARKS.items():
                at = getattr(row, f"{score}_{end}", None)
                if at is not None:
                    ax.plot(100 * at, y, marker, color=grey, markersize=5, markerfacecolor="none", markeredgewidth=1.2)
        ax.set_xlabel(text)
        ax.set_xlim(left=0)
        ax.grid(axis="y", visible=False)
    _name_rows(axes[0], summary, stages, [label for label, _, _ in drawn])
    handles = [
        axes[1].plot([], [], marker, color=grey, markerfacecolor="none", linestyle="none", label=name)[0]
        for marker, grey, name in _MARKS.values()
    ]
    for face, name in (("white", "Grad-CAM"), ("#333333", "less the usual map")):
        shown = axes[1].plot([], [], "o", color="#333333", markerfacecolor=face, markersize=5, label=name)
        handles.insert(0 if face == "white" else 1, shown[0])
    figure.legend(handles=handles, loc="outside upper center", ncols=5, frameon=False, fontsize=8)
    return figure


def _placed(summary: pd.DataFrame, stages: Sequence[str], labels: Sequence[str]) -> list[Any]:
    """The rows in the order of the axis: stage by stage, an empty place between stages."""
    placed: list[Any] = []
    for stage in stages:
        rows = {row.label: row for row in rows_of(summary[summary["stage"] == stage])}
        placed += [*(rows.get(label) for label in labels), None]
    return placed[:-1]


def _name_rows(ax: Axes, summary: pd.DataFrame, stages: Sequence[str], labels: Sequence[str]) -> None:
    ticks, names = [], []
    for i, stage in enumerate(stages):
        start = i * (len(labels) + 1)
        ticks += list(range(start, start + len(labels)))
        names += list(labels)
        row = summary[summary["stage"] == stage].iloc[0]
        text = f"{stage}: {row['cells']} × {row['cells']} cells of {row['size'] / row['cells']:.0f} px"
        ax.annotate(text, (0, start - 0.55), xycoords=("axes fraction", "data"), xytext=(3, 0), fontsize=8.5,
                    textcoords="offset points", color="#555555", va="bottom")  # fmt: skip
    ax.set_yticks(ticks, names)
    ax.set_ylim(len(stages) * (len(labels) + 1) - 1.4, -1.2)


# ---- neighbours


@styled
def plot_neighbours(tables: Mapping[str, pd.DataFrame], dataset: Dataset, queries: Sequence[int]) -> Figure:
    """Test images with the train images that each encoder finds nearest; those of another kind are framed and marked ≠.

    Args:
        tables: {encoder: `retrieval.neighbours`' rows}, all of this data set.
        queries: rows of test to show.
    """
    if not tables or not len(queries):
        raise ValueError(f"a plot must have encoders and queries to show, got {len(tables)} and {len(queries)}")
    k = sum(str(c).startswith("near_") for c in next(iter(tables.values())))
    tile, name_width, head, gap = 0.94, 1.35, 0.2, 0.14
    lines = len(queries) * len(tables)
    width, height = name_width + (k + 1.25) * tile, lines * (tile + head) + (len(queries) - 1) * gap + 0.25
    figure, top = Figure(figsize=(width, height)), height - 0.25
    figure.text(name_width / width, 1.0, "test image", ha="left", va="top", fontsize=9)
    head_text = f"its {k} nearest in train, by cosine; framed and ≠: of another kind"
    figure.text((name_width + 1.25 * tile) / width, 1.0, head_text, ha="left", va="top", fontsize=9)
    for number, query in enumerate(queries):
        top -= gap * (number > 0)
        for i, (label, table) in enumerate(tables.items()):
            top -= tile + head
            row = table[table["query"] == query].iloc[0]
            near = [int(row[f"near_{j}"]) for j in range(k)]
            found = [_tile(dataset.train, j) for j in near]
            if i == 0:
                ax = figure.add_axes(
                    (name_width / width, top / height, tile * TILE_END / width, tile * TILE_END / height)
                )
                draw_tiles(ax, [[_tile(dataset.test, query)]])
                _caption(ax, 0, _kind(dataset, dataset.test, query), "#222222")
            place = (name_width + 1.25 * tile) / width, top / height, k * tile / width, TILE_END * tile / height
            ax = figure.add_axes(place)
            draw_tiles(ax, [found])
            for j, other in enumerate(near):
                same = _alike(dataset, query, other)
                text = f"{'' if same else '≠ '}{_kind(dataset, dataset.train, other)}"
                _caption(ax, j, text, "#222222" if same else "#b3261e")
                if not same:
                    ax.add_patch(Rectangle((j, 0), TILE_END, TILE_END, fill=False, edgecolor="#b3261e", linewidth=2.4))
            figure.text((name_width - 0.12) / width, (top + tile / 2) / height, label.replace(" (", "\n("), ha="right",
                        va="center", fontsize=9)  # fmt: skip
    return figure


def _tile(split: Split, row: int) -> Tile:
    return grey_tile(reduced(split.images[row : row + 1].float() / 255, _TILE_PX)[0])


def _caption(ax: Axes, column: int, text: str, colour: str) -> None:
    ax.annotate(text, (column + TILE_END / 2, 0), xytext=(0, 1.5), textcoords="offset points", ha="center", va="bottom",
                fontsize=7, color=colour, annotation_clip=False)  # fmt: skip


def _kind(dataset: Dataset, split: Split, row: int) -> str:
    """Class of an image, or the first finding of several labels and how many more."""
    labels = split.labels[row]
    if dataset.task != "multilabel":
        return dataset.class_names[int(labels)]
    there = torch.nonzero(labels == 1).flatten().tolist()
    if not there:
        return "none"
    return dataset.class_names[there[0]] + (f" +{len(there) - 1}" if len(there) > 1 else "")


def _alike(dataset: Dataset, query: int, other: int) -> bool:
    a, b = dataset.test.labels[query], dataset.train.labels[other]
    if dataset.task != "multilabel":
        return bool(a == b)
    return bool(((a == 1) & (b == 1)).any()) or not (bool((a == 1).any()) or bool((b == 1).any()))
