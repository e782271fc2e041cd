"""What every figure shares: style, colours, lines with seeds, names at the ends of lines, axes for shares.

Figures are built without pyplot, so none stays open behind a notebook.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import wraps
from typing import Any

import matplotlib as mpl
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, MaxNLocator, NullLocator

__all__ = [
    "COLOURS",
    "OTHER_COLOUR",
    "End",
    "configurations",
    "draw_lines",
    "name_lines",
    "panel_grid",
    "reference_line",
    "require",
    "share_axis",
    "styled",
]

_PALETTE = sns.color_palette("colorblind").as_hex()
COLOURS = {
    "simclr": _PALETTE[0],
    "vicreg": _PALETTE[3],
    "supervised": _PALETTE[2],
    "random": "#777777",
    "imagenet": _PALETTE[4],
    "file": _PALETTE[5],
}
_POLICIES = ("ref", "imagenet", "student", "ssl", "soft", "randaugment")
COLOURS |= {f"policy:{name}": _PALETTE[i] for name, i in zip(_POLICIES, (7, 4, 1, 0, 2, 3), strict=True)}
OTHER_COLOUR = _PALETTE[9]
_DASHES = ("-", (0, (4, 1.5)), (0, (1, 1)), (0, (4, 1, 1, 1)))
_STYLE = {
    **sns.axes_style("ticks"),
    "font.size": 9.5,
    "axes.labelsize": 9.5,
    "axes.titlesize": 9.5,
    "xtick.labelsize": 8.5,
    "ytick.labelsize": 8.5,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": "#e6e6e6",
    "grid.linewidth": 0.6,
    "lines.linewidth": 1.8,
    "savefig.dpi": 160,
    "figure.dpi": 110,
}
_PANEL = (2.75, 2.15)  # inches of one panel


def styled(plot: Callable[..., Figure]) -> Callable[..., Figure]:
    """A plot drawn in the one style, which is put back afterwards."""

    @wraps(plot)
    def wrapper(*arguments: Any, **options: Any) -> Figure:
        with mpl.rc_context(_STYLE):
            return plot(*arguments, **options)

    return wrapper


def panel_grid(panels: int, columns: int = 3, panel: tuple[float, float] = _PANEL) -> tuple[Figure, list[Axes]]:
    """A figure with that many panels in rows of at most `columns`, each `panel` inches."""
    columns = min(columns, panels)
    rows = -(-panels // columns)
    figure = Figure(figsize=(panel[0] * columns, panel[1] * rows), layout="constrained")
    axes = list(np.ravel(figure.subplots(rows, columns, squeeze=False)))
    for spare in axes[panels:]:
        spare.remove()
    return figure, axes[:panels]


def require(data: pd.DataFrame, columns: Iterable[str]) -> None:
    """Refuse data without rows or columns, and data of several data sets or sizes, in words."""
    lacking = [c for c in columns if c not in data]
    if lacking or data.empty:
        raise ValueError(
            f"a plot's data must have rows and columns {', '.join(columns)}, got {len(data)} rows without {lacking}"
        )
    if "dataset" in data and len(data[["dataset", "size"]].drop_duplicates()) > 1:
        raise ValueError("a figure must show one data set at one size, got several: filter the rows first")


# ---- lines with seeds


def configurations(data: pd.DataFrame) -> list[tuple[str, str, Any]]:
    """(label, colour, dashes) of each configuration, in order of appearance.

    Dashes tell equal colours apart. The plainest name of a colour has the solid line, whatever comes first, so that an
    encoder looks the same in every figure that shows it beside the same others.
    """
    named = list(data[["label", "family"]].drop_duplicates().itertuples(index=False))
    drawn = []
    for label, family in named:
        alike = sorted((other for other, its in named if its == family), key=lambda name: (len(name), name))
        drawn.append((label, COLOURS.get(family, OTHER_COLOUR), _DASHES[alike.index(label) % len(_DASHES)]))
    return drawn


@dataclass(frozen=True)
class End:
    """Where a line ends, and what it is called there."""

    ax: Axes
    name: str
    colour: str
    x: float
    y: float


def draw_lines(ax: Axes, data: pd.DataFrame, column: str) -> list[End]:
    """One configuration after the other over epochs; returns the lines' ends for `name_lines`."""
    ends = []
    for label, colour, dashes in configurations(data):
        rows = data[data.label == label]
        table = rows.pivot_table(index="epoch", columns="seed", values=column)
        if table.empty:
            continue
        mean = table.mean(axis=1)
        marker: dict[str, Any] = {"marker": "o", "markersize": 3} if len(mean) < 3 else {}
        if table.shape[1] > 1:
            ax.fill_between(mean.index, table.min(axis=1), table.max(axis=1), color=colour, alpha=0.15, linewidth=0)
            ax.plot(table.index, table, color=colour, linewidth=0.6, alpha=0.55)
        ax.plot(mean.index, mean, color=colour, linestyle=dashes, **marker)
        ends.append(End(ax, label, colour, float(mean.index[-1]), float(mean.iloc[-1])))
    if data.epoch.nunique() == 1:
        ax.set_xlim(0, 2 * float(data.epoch.iloc[0]))
    ax.set_xlabel("epoch")
    ax.xaxis.set_major_locator(MaxNLocator(nbins=5, steps=[1, 2, 5, 10], integer=True))
    return ends


def name_lines(figure: Figure, ends: Sequence[End]) -> Figure:
    """Write each line's name at its end, in its colour, moved apart where two would touch.

    Colours mean the same in every panel, so one panel of a row is enough and the others keep their width.
    """
    figure.draw_without_rendering()  # fixes sizes and scales
    gap = 1.25 * mpl.rcParams["font.size"] * figure.dpi / 72
    for ax in dict.fromkeys(end.ax for end in ends):
        height = ax.get_window_extent().height
        placed = sorted(
            (ax.transData.transform((e.x, e.y))[1] - ax.bbox.y0, e.name, e.colour) for e in ends if e.ax is ax
        )
        wanted = [min(max(at, 0.0), height) for at, _, _ in placed]
        for _ in range(50):
            for i in range(len(wanted) - 1):
                short = gap - (wanted[i + 1] - wanted[i])
                if short > 0:
                    wanted[i], wanted[i + 1] = wanted[i] - short / 2, wanted[i + 1] + short / 2
        for (_, name, colour), at in zip(placed, wanted, strict=True):
            ax.annotate(
                name, (1.0, at / height), xycoords="axes fraction", xytext=(4, 0), textcoords="offset points",
                color=colour, va="center", fontsize=8.5, annotation_clip=False,
            )  # fmt: skip
    return figure


def reference_line(ax: Axes, value: float, text: str, *, above: bool = True) -> None:
    """A dotted line with its meaning written on it, or none where the axis already says it."""
    ax.axhline(value, color="#555555", linewidth=0.9, linestyle=(0, (1, 2)), zorder=1)
    if not text:
        return
    ax.annotate(
        text, (0.98, value), xycoords=("axes fraction", "data"), xytext=(0, 2 if above else -2),
        textcoords="offset points", ha="right", va="bottom" if above else "top", fontsize=7.5, color="#555555",
        bbox={"facecolor": "white", "edgecolor": "none", "pad": 0.5}, zorder=1.5,  # below the data
    )  # fmt: skip


_AUC_TICKS = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.85, 0.9, 0.92, 0.94, 0.95, 0.96, 0.97, 0.975, 0.98, 0.985)
_AUC_TICKS += (0.99, 0.992, 0.994, 0.996, 0.998, 0.999)  # type: ignore[assignment]


def _spaced_ticks(low: float, high: float, parts: int = 9) -> list[float]:
    """Round values in a range, no two closer than a `parts`-th of it on the logit scale."""
    odds = [float(np.log(v / (1 - v))) for v in (low, high)]
    ticks: list[float] = []
    for tick in (t for t in _AUC_TICKS if low <= t <= high):
        at, last = np.log(tick / (1 - tick)), ticks[-1] if ticks else None
        if last is None or at - np.log(last / (1 - last)) >= (odds[1] - odds[0]) / parts:
            ticks.append(tick)
    return ticks


def share_axis(ax: Axes, values: pd.Series) -> None:
    """A logit axis for AUC and accuracy: .98 to .99 gets as much room as .5 to .67, where a linear axis saturates."""
    finite = values.dropna().clip(0.02, 0.9995)
    low, high = finite.min(), finite.max()
    if high - low < 0.25 and high < 0.9:  # nearly linear here: keep the plain axis
        ax.set_ylim(low - 0.1 * (high - low) - 0.005, high + 0.1 * (high - low) + 0.005)
        return
    odds_low, odds_high = np.log(low / (1 - low)), np.log(high / (1 - high))
    margin = 0.06 * (odds_high - odds_low) + 0.02
    ax.set_yscale("logit")
    ax.set_ylim(*(1 / (1 + np.exp(-np.array([odds_low - margin, odds_high + margin])))))
    ax.yaxis.set_major_locator(FixedLocator(_spaced_ticks(*ax.get_ylim())))
    ax.yaxis.set_minor_locator(NullLocator())
    ax.yaxis.set_major_formatter(FuncFormatter(lambda v, _: f"{v:g}"))
