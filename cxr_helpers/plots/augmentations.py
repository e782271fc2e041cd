"""Figures of views: one image's views with differences and histograms, policies side by side, one number swept."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray
from torch import Tensor

from ..augment.sweep import Sweep
from .drawing import OTHER_COLOUR, panel_grid, styled
from .images import Tile, blank, draw_tiles, grey_tile, sheet

__all__ = ["plot_histograms", "plot_policies", "plot_sweeps", "plot_views"]

_BINS = 64  # of [0, 1]: four stored greys to a bin
_DIFFERENCES = (mpl.colormaps["RdBu_r"](np.linspace(0, 1, 256))[:, :3] * 255).round().astype(np.uint8)
_VIEW_COLOUR = "#0173b2"
_ORIGINAL_COLOUR = "#9a9a9a"
_TILE = 0.85  # inches


def _histogram(images: Tensor) -> NDArray[np.float64]:
    """Shares of the pixels in each of the bins of [0, 1]; three channels are pooled."""
    counts = np.histogram(images.detach().cpu().numpy(), bins=_BINS, range=(0, 1))[0]
    return counts / counts.sum()


def _difference_tile(view: Tensor, original: Tensor) -> Tile:
    """View − original, averaged over channels: red brighter, blue darker, white unchanged."""
    difference = (view - original).mean(dim=0).detach().cpu().numpy()  # [S, S] in [-1, 1]
    return _DIFFERENCES[np.clip(np.rint(127.5 + 127.5 * difference), 0, 255).astype(np.uint8)]


def _colour_key(side: int) -> Tile:
    """What the colours of a difference mean, as a tile with a bar."""
    tile = blank(side)
    x = slice(side // 5, side - side // 5)
    values = np.linspace(0, 255, x.stop - x.start).astype(np.uint8)
    tile[side // 2 : side // 2 + max(2, side // 10), x] = _DIFFERENCES[values]
    return tile


@styled
def plot_views(original: Tensor, views: Tensor, *, name: str = "original") -> Figure:
    """One image and its views, each view's difference from it, and both's pixel histograms.

    Args:
        original: float [C, S, S] in [0, 1], at the views' size.
        views: float [V, C, S, S] in [0, 1].
        name: what is written above the original.
    """
    side, columns = original.shape[-1], 1 + len(views)
    width = 1.55 * columns
    figure = Figure(figsize=(width, 4.35), dpi=110)
    images = [grey_tile(original), *map(grey_tile, views)]
    differences = [_colour_key(side), *(_difference_tile(view, original) for view in views)]
    ax = figure.add_axes((0.035, 0.27, 0.955, 0.67))
    draw_tiles(ax, [images, differences])
    for c in range(columns):
        ax.text(c + 0.475, -0.03, name if c == 0 else f"view {c}", ha="center", va="bottom", fontsize=9)
    ax.text(0.475, 1.46, "view − original", ha="center", va="bottom", fontsize=9)
    for at, text in ((0.2, "−1"), (0.475, "0"), (0.75, "1")):
        ax.text(at, 1.66, text, ha="center", va="top", fontsize=8)
    figure.draw_without_rendering()
    box = ax.get_position()  # of the tiles, after their aspect has been kept
    below = figure.add_axes((box.x0, 0.085, box.width, 0.17))
    _draw_histograms(below, [_histogram(image) for image in (original, *views)], ax.get_xlim()[1])
    return figure


def _draw_histograms(ax: Axes, shares: Sequence[NDArray[np.float64]], right: float) -> None:
    """One histogram under each tile: grey the original's, in colour the view's."""
    at = (np.arange(_BINS) + 0.5) / _BINS * 0.952  # tiles end .048 before the next begins
    before = np.sqrt(shares[0])
    highest = max(float(np.sqrt(share).max()) for share in shares)
    for c, share in enumerate(shares):
        ax.fill_between(c + at, before / highest, step="mid", color=_ORIGINAL_COLOUR, alpha=0.55, linewidth=0)
        if c:
            ax.step(c + at, np.sqrt(share) / highest, where="mid", color=_VIEW_COLOUR, linewidth=1.1)
    ax.set_xlim(0, right)
    ax.set_ylim(0, 1.04)
    ax.grid(visible=False)
    ax.set_yticks([])
    ax.spines["left"].set_visible(False)
    places = [c + end for c in range(len(shares)) for end in (0.0, 0.476, 0.952)]
    ax.set_xticks(places, ["0", ".5", "1"] * len(shares), fontsize=7.5)
    ax.set_xlabel("grey value; height: square root of the share of pixels; grey: the original's", fontsize=8.5)


@styled
def plot_policies(originals: Tensor, views: Mapping[str, Tensor], names: Sequence[str]) -> Figure:
    """A row of views per policy, for each of a few images, below the images themselves.

    Args:
        originals: float [M, C, S, S] in [0, 1].
        views: {policy: float [M, V, C, S, S]}.
        names: of the images, [M].
    """
    per_image = next(iter(views.values())).shape[1]
    empty = blank(originals.shape[-1])
    top = [tile for image in originals for tile in (grey_tile(image), *[empty] * (per_image - 1))]
    rows = [top] + [[grey_tile(view) for block in blocks for view in block] for blocks in views.values()]
    head = [text for name in names for text in (name, *[""] * (per_image - 1))]
    captions = [head] + [[""] * len(head) for _ in views]
    return sheet(rows, ["the image", *views], captions, tile_inches=_TILE, name_inches=1.05)


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
        empty = blank(item.views.shape[-1])
        rows.append([*map(grey_tile, item.views), *[empty] * spare])
        captions.append([*item.captions, *[""] * spare])
        title = item.field.removesuffix("_max").removesuffix("_min").replace("_", " ")
        names.append(f"{title}\n{item.unit}".replace(" ±", " ±"))
        notes.append("nothing changes:\none channel" if item.inert else "")
    toggled = [item for item in sweeps if len(item.views) == 2]
    if toggled:
        empty = blank(toggled[0].views.shape[-1])
        spare = columns - len(toggled) - 1
        rows.append([grey_tile(toggled[0].views[0]), *(grey_tile(t.views[1]) for t in toggled), *[empty] * spare])
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
