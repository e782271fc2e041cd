"""The figure that follows a training run: small, quick to draw, honest about how far the run is."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from .drawing import COLOURS, OTHER_COLOUR, panel_grid, require, styled

__all__ = ["plot_progress"]

_EARLIER = "#bdbdbd"


@styled
def plot_progress(
    history: pd.DataFrame, *, epochs: int | None = None, family: str = "", earlier: Sequence[pd.DataFrame] = ()
) -> Figure:
    """Loss, labels and collapse of one run so far, on an axis as long as the run will be.

    Args:
        history: what `pretrain` hands to `on_epoch`, a row per epoch; what was not measured in one is not drawn there.
        epochs: of the whole run; None draws as far as the run is.
        family: its method, for the colour.
        earlier: histories of runs of the same configuration with other seeds, drawn in grey.
    """
    require(history, ["epoch", "loss"])
    online, near = (
        next((f"{probe}_{metric}" for metric in ("auc", "accuracy") if f"{probe}_{metric}" in history), "")
        for probe in ("online", "knn")
    )
    metric = "accuracy" if online.endswith("accuracy") else "AUC"
    figure, axes = panel_grid(3, panel=(2.6, 2.0))
    colour = COLOURS.get(family, OTHER_COLOUR)
    panels = (
        ((("loss", "-", ""),), "loss"),
        (((online, "-", "online probe"), (near, (0, (1, 1)), "kNN")), f"val {metric}"),
    )
    panels += (((("effective_rank", "-", ""),), "effective rank\nof features (val)"),)  # type: ignore[assignment]
    for ax, (columns, name) in zip(axes, panels, strict=True):
        for column, dashes, text in columns:
            if column in history:
                _line(ax, history, column, colour, dashes, text, earlier)
        ax.set_ylabel(name)
        ax.set_xlabel(f"epoch{f' of {epochs}' if epochs else ''}")
        ax.set_xlim(0, epochs or max(2, int(history["epoch"].max())))
        ax.xaxis.set_major_locator(MaxNLocator(nbins=4, integer=True))
    axes[2].set_ylim(bottom=0)
    return figure


def _line(
    ax: Axes,
    history: pd.DataFrame,
    column: str,
    colour: str,
    dashes: object,
    text: str,
    earlier: Sequence[pd.DataFrame],
) -> None:
    for other in earlier:
        if column in other:
            drawn = other[other[column].notna()]
            ax.plot(drawn["epoch"], drawn[column], color=_EARLIER, linewidth=0.8, linestyle=dashes, zorder=1)  # type: ignore[arg-type]
    rows = history[history[column].notna()]
    marker = "o" if len(rows) < 3 else ""
    ax.plot(rows["epoch"], rows[column], color=colour, linestyle=dashes, marker=marker, markersize=3)  # type: ignore[arg-type]
    if text and len(rows):
        last = rows.iloc[-1]
        ax.annotate(text, (last["epoch"], last[column]), xytext=(0, -3), textcoords="offset points", ha="right",
                    va="top", fontsize=7.5, color=colour)  # fmt: skip
