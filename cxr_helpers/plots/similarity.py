"""Figures of how alike views are: two views of one image against two images, crops' overlap, single operations."""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray
from scipy.stats import gaussian_kde

from ..augment import ALL_OPERATIONS
from .drawing import panel_grid, require, styled

__all__ = ["plot_operation_effects", "plot_similarity"]

_SAME, _DIFFERENT = "#0173b2", "#8c8c8c"
_RIDGE = 0.82  # height of a ridge in rows


def _ridge(ax: Axes, y: int, values: NDArray[np.float64], span: tuple[float, float], colour: str, filled: bool) -> None:
    """A smoothed distribution standing on row y, its mean as a tick."""
    grid = np.linspace(*span, 240)
    if values.std() < 1e-9:
        ax.plot([values[0]] * 2, [y, y - _RIDGE], color=colour, linewidth=1.6)
        return
    density = gaussian_kde(values, bw_method=0.2)(grid)
    top = y - _RIDGE * density / density.max()
    if filled:
        ax.fill_between(grid, y, top, color=colour, alpha=0.35, linewidth=0)
    ax.plot(grid, top, color=colour, linewidth=1.2, linestyle="-" if filled else (0, (2, 1)))
    ax.plot([values.mean()] * 2, [y, y - 0.3], color=colour, linewidth=2.2)


@styled
def plot_similarity(similarities: pd.DataFrame, overlaps: pd.DataFrame) -> Figure:
    """Per policy: similarity of two views of one image and of two images, in each measure, and the crops' overlap.

    Args:
        similarities: `view_similarities`' rows; the policies are drawn in the order in which they appear.
        overlaps: `crop_overlaps`' rows of the same policies.
    """
    require(similarities, ["policy", "measure", "same", "different", "found"])
    require(overlaps, ["policy", "iou"])
    policies = list(similarities.policy.unique())
    measures = list(similarities.measure.unique())
    figure, axes = panel_grid(len(measures) + 1, panel=(2.75, 0.7 + 0.42 * len(policies)))
    labels = {"pixels": "correlation of pixels", "untrained encoder": "cosine of centred features,\nuntrained encoder"}
    for ax, measure in zip(axes, measures, strict=False):
        rows = similarities[similarities.measure == measure]
        for y, policy in enumerate(policies):
            part = rows[rows.policy == policy]
            _ridge(ax, y, part.different.to_numpy(float), (-1, 1), _DIFFERENT, filled=False)
            _ridge(ax, y, part.same.to_numpy(float), (-1, 1), _SAME, filled=True)
            ax.text(1.02, y - 0.12, f"{100 * part.found.mean():.0f} %", transform=ax.get_yaxis_transform(), fontsize=8)
        ax.text(1.02, -1.4, "own view\nfound", transform=ax.get_yaxis_transform(), fontsize=8)
        ax.set_xlabel(labels.get(measure, measure))
        ax.set_xlim(-1, 1)
    for y, policy in enumerate(policies):
        _ridge(axes[-1], y, overlaps[overlaps.policy == policy].iou.to_numpy(float), (0, 1), _SAME, filled=True)
    axes[-1].set_xlim(0, 1)
    axes[-1].set_xlabel("overlap of the two crops\n(shared area over union)")
    for i, ax in enumerate(axes):
        ax.set_yticks(range(len(policies)), policies if i == 0 else [""] * len(policies))
        ax.set_ylim(len(policies) - 0.8, -1.75)
        ax.grid(axis="y", visible=False)
    axes[0].text(-0.97, -1.6, "one image", color=_SAME, fontsize=8.5, va="center")
    axes[0].text(-0.97, -1.25, "two images", color="#6f6f6f", fontsize=8.5, va="center")
    return figure


@styled
def plot_operation_effects(effects: pd.DataFrame) -> Figure:
    """Each operation of each policy alone: how much it changes greys, and how far it takes two views apart.

    Args:
        effects: `operation_effects`' rows; operations are drawn in the order in which they act.
    """
    require(effects, ["policy", "operation", "mean_change", "max_change", "apart"])
    policies = list(effects.policy.unique())
    shown = [name for name in ALL_OPERATIONS if name in set(effects.operation)]
    panels = (
        ("mean_change", 100.0, "mean change of a pixel when it acts,\n% of the range from black to white", "{:.1f}"),
        ("apart", 1.0, "two views drawn by it alone:\n1 − correlation of their pixels", "{:.2f}"),
    )
    still = effects[effects.max_change == 0]
    inert = set(zip(still.operation, still.policy, strict=True))
    figure, axes = panel_grid(2, panel=(0.9 + 0.56 * len(policies), 0.9 + 0.27 * len(shown)))
    for i, (ax, (column, scale, title, form)) in enumerate(zip(axes, panels, strict=True)):
        table = scale * effects.pivot_table(index="operation", columns="policy", values=column)
        table = table.reindex(index=shown, columns=policies)
        values = table.to_numpy(float)
        top = float(np.nanmax(values)) or 1.0
        ax.imshow(np.sqrt(np.nan_to_num(values) / top), cmap="Blues", vmin=0, vmax=1.25, aspect="auto")
        for (y, x), value in np.ndenumerate(values):
            text = _written(value, form, inert=(shown[y], policies[x]) in inert)
            dark = not np.isnan(value) and np.sqrt(value / top) > 0.75
            colour = "white" if dark else ("#b3261e" if text == "none" else "#222222")
            ax.text(x, y, text, ha="center", va="center", fontsize=8, color=colour)
        ax.set_xticks(range(len(policies)), policies, rotation=35, ha="right", rotation_mode="anchor")
        ax.set_yticks(range(len(shown)), shown if i == 0 else [""] * len(shown))
        ax.tick_params(length=0)
        ax.grid(visible=False)
        for spine in ax.spines.values():
            spine.set_visible(False)
        ax.set_xlabel(title)
    return figure


def _written(value: float, form: str, *, inert: bool) -> str:
    """A dot where there is no such operation, "none" where not one pixel moved, never a rounded zero."""
    if np.isnan(value):
        return "·"
    text = form.format(value)
    if inert:
        return "none"
    return f"<{text[:-1]}1" if not text.strip("0.") else text
