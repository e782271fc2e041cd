"""The figure of controls: an AUC as it was measured, and what is left of it under each rival explanation."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ..report.tables import rows_of
from ..rivals.measure import AS_MEASURED, NO_ENCODER
from .drawing import COLOURS, OTHER_COLOUR, require, styled

__all__ = ["plot_controls"]

_KINDS = {
    "measured": "",
    "removed": "the objection removed: what stays is not due to it",
    "alone": "the objection alone: what it reaches by itself",
    "nothing": "nothing to learn from: what chance and choice reach",
}
_MARKERS = "osD^vP*X"  # tell encoders of one colour apart
_GREY = "#444444"


@styled
def plot_controls(summary: pd.DataFrame) -> Figure:
    """Test AUC of every encoder under every control with 95 % intervals, in three groups; dotted: chance.

    Thin lines behind shuffled labels span 95 % of the single shuffles.

    Args:
        summary: `control_summary`'s rows of one data set.
    """
    columns = ["name", "family", "control", "kind", "split", "auc", "low", "high", "draw_low", "draw_high"]
    require(summary, columns)
    test = summary[summary["split"] == "test"]
    names = list(dict.fromkeys(test["name"]))
    step, gap = 0.12, 0.1  # inches: of an encoder's dot, between controls
    placed = list(_placed(test))
    height = sum(_height(control, names, step, gap) for _, control in placed)
    figure = Figure(figsize=(7.2, height + 1.0), layout="constrained")
    ax = figure.subplots()
    looks = _looks(test, names)
    at, ticks = 0.0, []
    for kind, control in placed:
        size = _height(control, names, step, gap)
        if control is None:
            ax.annotate(_KINDS[kind], (0, at + size - 0.05), xycoords=("axes fraction", "data"), xytext=(3, 0),
                        textcoords="offset points", fontsize=8.5, color="#555555", va="bottom",
                        bbox={"facecolor": "white", "edgecolor": "none", "pad": 0.5}, zorder=1.5)  # fmt: skip
        else:
            _draw(ax, test[test["control"] == control], names, at + gap / 2, step, looks)
            ticks.append((at + size / 2, control))
        at += size
    ax.set_yticks([y for y, _ in ticks], [str(name) for _, name in ticks])
    ax.set_ylim(at, 0)
    ax.axvline(0.5, color="#555555", linewidth=0.9, linestyle=(0, (1, 2)), zorder=1)
    for name in names:
        measured = test.loc[(test["name"] == name) & (test["control"] == AS_MEASURED), "auc"].iloc[0]
        ax.axvline(measured, color=looks[name][0], linewidth=0.8, alpha=0.45, zorder=0.9)
    ax.set_xlabel("test AUC, 95 % interval over patients; dotted: chance; lines: as measured")
    ax.grid(axis="y", visible=False)
    handles = [ax.plot([], [], look[1], color=look[0], markersize=5, label=name)[0] for name, look in looks.items()]
    if set(NO_ENCODER) & set(test["control"]):
        handles += ax.plot([], [], "s", color=_GREY, markerfacecolor="white", markersize=5, label="no encoder")
    figure.legend(handles=handles, loc="outside upper center", ncols=3, frameon=False, fontsize=8.5)
    return figure


def _looks(test: pd.DataFrame, names: list[str]) -> dict[str, tuple[str, str]]:
    """(colour, marker) of each encoder."""
    families = test.groupby("name")["family"].first()
    seen: dict[str, int] = {}
    looks = {}
    for name in names:
        family = str(families[name])
        looks[name] = (COLOURS.get(family, OTHER_COLOUR), _MARKERS[seen.get(family, 0) % len(_MARKERS)])
        seen[family] = seen.get(family, 0) + 1
    return looks


def _placed(test: pd.DataFrame) -> Iterator[tuple[str, str | None]]:
    """(kind, control) from top to bottom; None is a group's heading."""
    for kind in _KINDS:
        members = list(dict.fromkeys(test.loc[test["kind"] == kind, "control"]))
        if members and kind != "measured":
            yield kind, None
        for control in members:
            yield kind, control


def _height(control: str | None, names: list[str], step: float, gap: float) -> float:
    """Inches of a row: as many dots as it has, or a heading."""
    if control is None:
        return 0.3
    return gap + step * (1 if control in NO_ENCODER else len(names))


def _draw(
    ax: Axes, rows: pd.DataFrame, names: list[str], top: float, step: float, looks: dict[str, tuple[str, str]]
) -> None:
    known: dict[str, Any] = {row.name: row for row in rows_of(rows)}
    if rows["control"].iloc[0] in NO_ENCODER:
        row = next(iter(known.values()))
        ax.plot([row.low, row.high], [top + step / 2] * 2, color=_GREY, linewidth=1.6, solid_capstyle="butt")
        ax.plot(row.auc, top + step / 2, "s", color=_GREY, markerfacecolor="white", markersize=5)
        return
    for i, name in enumerate(names):
        row = known.get(name)
        if row is None:
            continue
        (colour, marker), y = looks[name], top + step * (i + 0.5)
        if row.draw_low == row.draw_low:  # not nan: a mean over draws
            ax.plot([row.draw_low, row.draw_high], [y, y], color=colour, linewidth=0.7, alpha=0.7)
        ax.plot([row.low, row.high], [y, y], color=colour, linewidth=1.6, solid_capstyle="butt")
        ax.plot(row.auc, y, marker, color=colour, markersize=4.5)
