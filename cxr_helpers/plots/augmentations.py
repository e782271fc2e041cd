"""Figures of views: policies side by side, one number swept, histograms before and after."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

import numpy as np
import torch
from matplotlib.figure import Figure
from numpy.typing import NDArray
from torch import Tensor

from ..augment import Sweep
from .drawing import panel_grid, styled
from .images import Tile, blank, grey_tile, reduced, sheet

__all__ = ["plot_histograms", "plot_policies", "plot_sweeps", "sweep_title"]

_BINS = 64  # of [0, 1]: four stored greys to a bin
_VIEW_COLOUR = "#0173b2"
_ORIGINAL_COLOUR = "#9a9a9a"
_TILE = 0.85  # inches
_TILE_PX = 129  # at the 160 dots per inch at which figures are saved


def _histogram(images: Tensor) -> NDArray[np.float64]:
    """Shares of the pixels in each of the bins of [0, 1]; three channels are pooled."""
    counts = torch.histc(images.detach().float().cpu(), bins=_BINS, min=0, max=1).double().numpy()
    return counts / counts.sum()


@styled
def plot_policies(originals: Tensor, views: Mapping[str, Tensor], names: Sequence[str]) -> Figure:
    """A row of views per policy, for each of a few images, below the images themselves.

    Args:
        originals: float [M, C, S, S] in [0, 1].
        views: {policy: float [M, V, C, S, S]}.
        names: of the images, [M].
    """
    per_image = next(iter(views.values())).shape[1]
    originals = reduced(originals, _TILE_PX)
    empty = blank(originals.shape[-1])
    top = [tile for image in originals for tile in (grey_tile(image), *[empty] * (per_image - 1))]
    rows = [top] + [list(map(grey_tile, reduced(blocks.flatten(0, 1), _TILE_PX))) for blocks in views.values()]
    head = [text for name in names for text in (name, *[""] * (per_image - 1))]
    captions = [head] + [[""] * len(head) for _ in views]
    return sheet(rows, ["the image", *views], captions, tile_inches=_TILE, name_inches=1.05)


def sweep_title(item: Sweep) -> str:
    """What a sweep moves, in words: a field, or an operation that is applied or not."""
    if len(item.views) == 2:
        return item.operation
    return re.sub("_(min|max|deg|std)$", "", item.field).replace("_", " ")


@styled
def plot_sweeps(sweeps: Sequence[Sweep]) -> Figure:
    """A row per operation, its strength across the range for chest X-rays; those without strength share a row.

    Args:
        sweeps: of one image, from `augment.sweep`; those with two views are taken as off / on.
    """
    columns = max(len(item.views) for item in sweeps)
    rows: list[list[Tile]] = []
    names: list[str] = []
    captions: list[list[str]] = []
    notes: list[str] = []
    for item in (item for item in sweeps if len(item.views) > 2):
        spare = columns - len(item.views)
        shown = reduced(item.views, _TILE_PX)
        rows.append([*map(grey_tile, shown), *[blank(shown.shape[-1])] * spare])
        captions.append([*item.captions, *[""] * spare])
        names.append(f"{sweep_title(item)}\n{item.unit}")
        notes.append("nothing changes:\none channel" if item.inert else "")
    toggled = [item for item in sweeps if len(item.views) == 2]
    if toggled:
        spare = columns - len(toggled) - 1
        off_and_on = torch.stack([toggled[0].views[0], *(item.views[1] for item in toggled)])
        shown = reduced(off_and_on, _TILE_PX)
        rows.append([*map(grey_tile, shown), *[blank(shown.shape[-1])] * spare])
        words = [t.operation + (" (nothing)" if t.inert else "") for t in toggled]
        captions.append(["the image", *words, *[""] * spare])
        names.append("without a strength")
        notes.append("")
    return sheet(rows, names, captions, tile_inches=_TILE, name_inches=1.75, notes=notes)


@styled
def plot_histograms(originals: Tensor, views: Mapping[str, Tensor]) -> Figure:
    """Grey values of many images before and after each policy.

    Args:
        originals: float [N, C, S, S] in [0, 1].
        views: {policy: float [M, C, S, S] in [0, 1]}.
    """
    figure, axes = panel_grid(len(views), panel=(2.5, 1.75))
    at = (np.arange(_BINS) + 0.5) / _BINS
    before = 100 * _histogram(originals)
    after = {name: 100 * _histogram(x) for name, x in views.items()}
    # The outermost bins hold black borders and what was clipped: their height is written, not drawn.
    top = 1.15 * max(float(values[1:-1].max()) for values in (before, *after.values()))
    for i, (ax, (name, values)) in enumerate(zip(axes, after.items(), strict=True)):
        ax.fill_between(at, before, step="mid", color=_ORIGINAL_COLOUR, alpha=0.5, linewidth=0)
        ax.step(at, values, where="mid", color=_VIEW_COLOUR, linewidth=1.4)
        ax.set_xlim(0, 1)
        ax.set_ylim(0, top)
        ax.text(0.5, 0.98, name, transform=ax.transAxes, ha="center", va="top", fontsize=9.5, fontweight="bold")
        for x, share, side in ((0.02, values[0], "left"), (0.98, values[-1], "right")):
            if share > top:
                ax.text(x, 0.86, f"{share:.0f} %", transform=ax.transAxes, ha=side, va="top", fontsize=8,
                        color=_VIEW_COLOUR)  # fmt: skip
        ax.set_ylabel("% of pixels" if i % 3 == 0 else "")
        ax.set_xlabel("grey value" if i >= len(views) - 3 else "")
    axes[0].text(0.04, 0.52, "images", transform=axes[0].transAxes, color="#6f6f6f", fontsize=8.5)
    axes[0].text(0.04, 0.64, "views", transform=axes[0].transAxes, color=_VIEW_COLOUR, fontsize=8.5)
    return figure
