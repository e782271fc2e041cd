"""One look for every figure: a column's width, one colour per encoder, lines named at their ends, rows with intervals.

A panel's title says what its upright axis measures: it is read without turning the head, and takes no width.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import wraps
from textwrap import fill
from typing import Any

import matplotlib as mpl
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

__all__ = [
    *("DOTTED", "GREY", "WIDTH", "Ends", "colour_of", "heat", "draw_lines", "legend", "look_of"),
    *("name_lines", "panels", "require", "row_figure", "styled"),
]

WIDTH = 4.6  # inches, one column: on a phone, 350 px wide, the letters are still 9 px high
GREY, DOTTED = "#6f6f6f", (0, (1, 2))  # of what is compared with
_BLUE, _ORANGE, _GREEN, _PURPLE, _BROWN, _TEAL = "#0173b2", "#c85200", "#02815e", "#9c4f96", "#8a5a2b", "#2a8fa8"
_HUES = {
    **{"SimCLR": _BLUE, "VICReg": _ORANGE, "Supervised": _GREEN, "ImageNet": _PURPLE, "Untrained": GREY},
    **{"ref": "#333333", "imagenet": _PURPLE, "student": _BROWN, "ssl": _BLUE, "soft": _GREEN, "randaugment": _ORANGE},
    **{"train": "#333333", "val": _ORANGE, "test": _TEAL},
}
_VARIANTS: dict[str, tuple[Any, str]] = {  # what a name adds: line and marker in the same hue
    **{"fine-tuned": ((0, (5, 1, 1, 1)), "D"), "from ImageNet": ((0, (4, 1.5)), "s"), "(": ((0, (2, 1)), "^")},
    **{"covariance": ((0, (1, 1)), "o"), "invariance": ("-", "o"), "variance": ((0, (4, 1.5)), "o")},
}
_STYLE = {
    **sns.axes_style("ticks"),
    **{"font.family": "DejaVu Sans", "font.size": 8.5, "axes.titlesize": "medium", "axes.titlelocation": "left"},
    **{"figure.labelsize": "medium", "axes.spines.top": False, "axes.spines.right": False, "axes.grid": True},
    **{"grid.color": "#e8e8e8", "grid.linewidth": 0.6, "lines.linewidth": 1.6, "legend.frameon": False},
    **{"figure.dpi": 160, "savefig.dpi": 160},
}
Ends = dict[str, tuple[float, float]]  # where each line ends, in data


def colour_of(label: str) -> str:
    """The one colour of an encoder, policy or split, by what its label begins with."""
    return _HUES.get(max((name for name in _HUES if label.startswith(name)), key=len, default=""), "#444444")


def look_of(label: str) -> tuple[Any, str]:
    """Line and marker by what a label adds (`from ImageNet*`, `fine-tuned`, …)."""
    return next((look for word, look in _VARIANTS.items() if word in label), ("-", "o"))


def styled(plot: Callable[..., Figure]) -> Callable[..., Figure]:
    """A plot drawn in the one style, which is put back afterwards."""

    @wraps(plot)
    def wrapper(*arguments: Any, **options: Any) -> Figure:
        with mpl.rc_context(_STYLE):
            return plot(*arguments, **options)

    return wrapper


def require(data: pd.DataFrame, columns: str) -> pd.DataFrame:
    """The data themselves; ValueError without rows, without one of the columns, or with several data sets."""
    lacking = [name for name in columns.split() if name not in data]
    if lacking or data.empty:
        raise ValueError(f"a plot's data must have rows with {columns}, got {len(data)} rows without {lacking}")
    if "dataset" in data and data["dataset"].nunique() > 1:
        raise ValueError(f"a plot's data must be of one data set, got {', '.join(data['dataset'].unique())}")
    return data


def panels(count: int, *, columns: int = 2, height: float = 1.6, **options: Any) -> tuple[Figure, list[Axes]]:
    """A figure of one column's width with that many panels, each `height` inches; the last one fills its row."""
    rows, columns = -(-count // columns), min(columns, count)
    figure = Figure(figsize=(WIDTH, height * rows), layout="constrained")
    grid = figure.add_gridspec(rows, columns)
    axes = list(np.ravel(grid.subplots(squeeze=False, **options)))
    for spare in axes[count:]:
        spare.remove()
    axes[count - 1].set_subplotspec(grid[-1, (count - 1) % columns :])
    return figure, axes[:count]


def legend(figure: Figure, names: Iterable[str]) -> None:
    """Names in their colours above the panels, where lines have no room for names at their ends."""
    names = list(dict.fromkeys(names))
    looks = [(colour_of(name), *look_of(name)) for name in names]
    handles = [Line2D([], [], color=colour, ls=line, marker=marker, ms=4) for colour, line, marker in looks]
    columns = len(names) if sum(len(name) + 6 for name in names) < 60 else 2
    figure.legend(handles, names, loc="outside upper left", ncols=columns, labelcolor="linecolor", columnspacing=1)


def draw_lines(ax: Axes, data: pd.DataFrame, x: str, y: str, hue: str = "encoder", *, bars: bool = False) -> Ends:
    """A line per `hue`, with a band or `bars` from `low` to `high` where the data have them; where each line ends."""
    ends = {}
    for name, rows in data.groupby(hue, sort=False):
        colour, (line, marker) = colour_of(str(name)), look_of(str(name))
        spread = [rows[y] - rows["low"], rows["high"] - rows[y]] if bars else None
        mark = marker if bars or len(rows) < 4 else ""
        ax.errorbar(rows[x], rows[y], spread, color=colour, ls=line, marker=mark, ms=4, elinewidth=1)
        if "low" in rows and not bars:
            ax.fill_between(rows[x], rows["low"], rows["high"], color=colour, alpha=0.16, lw=0)
        ends[str(name)] = float(rows[x].iloc[-1]), float(rows[y].iloc[-1])
    return ends


def heat(ax: Axes, table: pd.DataFrame, title: str, **look: Any) -> None:
    """Cells with their figures, each in a colour; look: seaborn's."""
    sns.heatmap(table, **{"annot": True, "cbar": False, "ax": ax} | look)
    ax.set(xlabel="", ylabel="", title=title)
    ax.tick_params(length=0)
    ax.grid(visible=False)


def row_figure(
    data: pd.DataFrame, by: str, hue: str, text: str, *, step: float = 0.25, beside: Sequence[str] = ()
) -> tuple[Figure, Axes]:
    """A row per value of `by`, `step` inches high: `value` from `low` to `high` of each `hue` below each other.

    text: below the axis. beside: words at the right of each row.
    """
    names, alike = list(dict.fromkeys(data[by])), data.groupby(by, sort=False)[by]
    figure, (ax,) = panels(1, height=step * len(names) + 0.6 + 0.2 * (hue != by))
    apart = (alike.cumcount() - (alike.transform("size") - 1) / 2) * min(0.3, 0.66 / alike.size().max())
    for row, shift in zip(data.to_dict("records"), apart, strict=True):
        spread, y = [[row["value"] - row["low"]], [row["high"] - row["value"]]], names.index(row[by]) + shift
        ax.errorbar(row["value"], y, xerr=spread, fmt=look_of(row[hue])[1], ms=4.5, color=colour_of(row[hue]))
    ax.set_yticks(range(len(names)), names)
    ax.set_ylim(len(names) - 0.4, -0.6)
    ax.grid(axis="y", visible=False)
    for y, words in enumerate(beside):
        ax.text(1.02, y, words, transform=ax.get_yaxis_transform(), va="center")
    figure.supxlabel(text)
    return figure, ax


def name_lines(figure: Figure, panels: Mapping[Axes, Ends]) -> None:
    """Write each line's name beside its axes, in its colour and tied to its end, moved apart where two would touch."""
    figure.draw_without_rendering()  # fixes sizes and scales
    for ax, ends in panels.items():
        names = sorted(ends, key=lambda name: ends[name][1])
        texts = [fill(name, 15, break_on_hyphens=False) for name in names]
        heights = np.array([1 + text.count("\n") for text in texts]) * 8.5 * 1.25 * figure.dpi / 72
        apart = np.concatenate([[0], np.cumsum((heights[1:] + heights[:-1]) / 2)])
        wanted = np.array([ax.transData.transform(ends[name])[1] - ax.bbox.y0 for name in names]) - apart
        middle = (np.maximum.accumulate(wanted) + np.minimum.accumulate(wanted[::-1])[::-1]) / 2  # keeps their order
        places = apart + np.clip(middle, heights[0] / 2, ax.bbox.height - heights[-1] / 2 - apart[-1])
        for name, text, at in zip(names, texts, places / ax.bbox.height, strict=True):
            tie = {"arrowstyle": "-", "color": colour_of(name), "lw": 0.6, "ls": ":", "shrinkA": 0, "relpos": (0, 0.5)}
            ax.annotate(text, ends[name], xytext=(1.06, at), textcoords="axes fraction", va="center",
                        color=colour_of(name), annotation_clip=False, arrowprops=tie)  # fmt: skip
