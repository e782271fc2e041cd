"""One image and its views with differences and histograms: laid out once, then given new pixels many times."""

from __future__ import annotations

import io
from typing import Any

import matplotlib as mpl
import numpy as np
import torch
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from PIL import Image
from torch import Tensor

from .drawing import styled
from .images import TILE_END, Tile, blank, draw_tiles, grey_tile, mosaic, reduced

__all__ = ["ViewsSheet", "difference_tile", "histogram", "plot_views"]

_BINS = 64  # of [0, 1]: four stored greys to a bin
_DIFFERENCES = (mpl.colormaps["RdBu_r"](np.linspace(0, 1, 256))[:, :3] * 255).round().astype(np.uint8)
_VIEW_COLOUR, _ORIGINAL_COLOUR = "#0173b2", "#c9c9c9"
_STEP = 1.5  # inches from one tile to the next
_HEAD, _FOOT, _HISTOGRAM, _MARGIN = 0.27, 0.43, 0.75, 0.08  # inches above, below, of the histograms, at the sides
_DPI = 110  # 7 columns are 1,172 px wide: whole at 1,280
_TILE_PX = round(_STEP * TILE_END * _DPI)  # larger tiles are reduced before they are drawn


def plot_views(original: Tensor, views: Tensor, *, name: str = "original") -> Figure:
    """One image and its views, each view's difference from it, and both's pixel histograms.

    Args:
        original: float [C, S, S] in [0, 1], at the views' size.
        views: float [V, C, S, S] in [0, 1].
        name: what is written above the original.
    """
    return ViewsSheet(len(views)).show(original, views, name=name)


@styled
def _empty_figure(columns: int) -> Figure:
    width = 2 * _MARGIN + (columns - 1 + TILE_END) * _STEP
    tiles = (1 + TILE_END) * _STEP
    height = _HEAD + tiles + 0.06 + _HISTOGRAM + _FOOT
    figure = Figure(figsize=(width, height), dpi=_DPI)
    FigureCanvasAgg(figure)
    left, across = _MARGIN / width, 1 - 2 * _MARGIN / width
    images = figure.add_axes((left, 1 - (_HEAD + tiles) / height, across, tiles / height))
    histograms = figure.add_axes((left, _FOOT / height, across, _HISTOGRAM / height), sharex=images)
    for c in range(columns):
        middle = c + TILE_END / 2
        images.text(middle, -0.025, f"view {c}" if c else "", ha="center", va="bottom", fontsize=9)
    for at, text, side in ((0.0, "0", "left"), (TILE_END / 2, ".5", "center"), (TILE_END, "1", "right")):
        histograms.text(at, -0.06, text, ha=side, va="top", fontsize=8)  # once: each text costs a millisecond
    images.text(TILE_END / 2, 1.43, "view − original", ha="center", va="bottom", fontsize=9)
    for at, text in ((0.2, "−1"), (0.5, "0"), (0.8, "1")):
        images.text(at * TILE_END, 1.6, text, ha="center", va="top", fontsize=8)
    figure.text(0.5, 0.012, "grey value; height: square root of the share of pixels; filled: the original's",
                ha="center", va="bottom", fontsize=8.5)  # fmt: skip
    return figure


class ViewsSheet:
    """The figure of `plot_views`, kept: showing other pixels costs a fraction of a new figure.

    What stays (most of the words) is drawn once and put below what changes, which matplotlib calls animated; it draws
    that with the rest only where a figure is saved.

    Args:
        num_views: views of the image.
    """

    def __init__(self, num_views: int) -> None:
        self.num_views = num_views
        self.figure = _empty_figure(1 + num_views)
        images, histograms = self.figure.axes
        self.name = images.texts[0]
        self.drawn = draw_tiles(images, [[blank(2)] * (1 + num_views)] * 2)
        edges = np.linspace(0, TILE_END, _BINS + 1)
        flat = np.zeros(_BINS)
        self.before = [
            histograms.stairs(flat, c + edges, fill=True, color=_ORIGINAL_COLOUR, linewidth=0)
            for c in range(1 + num_views)
        ]
        self.after = [
            histograms.stairs(flat, c + edges, color=_VIEW_COLOUR, linewidth=1.1) for c in range(1, 1 + num_views)
        ]
        for c in range(1 + num_views):
            histograms.plot([c, c + TILE_END], [0, 0], color="#333333", linewidth=0.8, clip_on=False)
        histograms.set_ylim(0, 1.04)
        histograms.set_xlim(0, num_views + TILE_END)
        histograms.set_axis_off()
        on_tiles = [text for text in images.texts if text.get_position()[1] > 0]
        self.moving = (self.name, self.drawn, *on_tiles, *self.before, *self.after, *histograms.lines)
        for artist in self.moving:
            artist.set_animated(True)
        self.still: Any = None  # the canvas' copy of what stays

    def show(self, original: Tensor, views: Tensor, *, name: str = "original") -> Figure:
        """Give the figure other pixels; arguments as for `plot_views`.

        Raises:
            ValueError: another number of views, or of another shape than the original.
        """
        if len(views) != self.num_views or views.shape[1:] != original.shape:
            raise ValueError(
                f"views must be {[self.num_views, *original.shape]} like the original, got {list(views.shape)}"
            )
        original, views = original.detach().cpu(), views.detach().cpu()
        self.name.set_text(name)
        shares = [histogram(image) for image in (original, *views)]
        highest = max(float(share.max()) for share in shares)
        for patch in self.before:
            patch.set_data(shares[0] / highest)
        for patch, share in zip(self.after, shares[1:], strict=True):
            patch.set_data(share / highest)
        small = reduced(torch.cat([original[None], views]), _TILE_PX)
        differences = [difference_tile(view, small[0]) for view in small[1:]]
        rows = [[grey_tile(image) for image in small], [_colour_key(small.shape[-1]), *differences]]
        self.drawn.set_data(mosaic(rows))
        return self.figure

    def png(self) -> bytes:
        """The figure as it is now, compressed little: time matters more than size between kernel and browser."""
        canvas = self.figure.canvas
        assert isinstance(canvas, FigureCanvasAgg)
        if self.still is None:
            canvas.draw()
            self.still = canvas.copy_from_bbox(self.figure.bbox)
        canvas.restore_region(self.still)
        for artist in self.moving:
            artist.draw(canvas.get_renderer())
        buffer = io.BytesIO()
        Image.fromarray(np.asarray(canvas.buffer_rgba())[..., :3]).save(buffer, format="png", compress_level=1)
        return buffer.getvalue()


def histogram(image: Tensor) -> np.ndarray:
    """Square roots of the shares of pixels per bin of [0, 1]; three channels are pooled."""
    return torch.histc(image, bins=_BINS, min=0, max=1).div_(image.numel()).sqrt_().numpy()


def difference_tile(view: Tensor, original: Tensor) -> Tile:
    """View − original, averaged over channels: red brighter, blue darker, white unchanged."""
    difference = (view - original).mean(dim=0)  # [S, S] in [-1, 1]
    return _DIFFERENCES[(127.5 + 127.5 * difference).round().clamp(0, 255).byte().numpy()]


def _colour_key(side: int) -> Tile:
    """What the colours of a difference mean, as a tile with a bar."""
    tile = blank(side)
    x = slice(side // 5, side - side // 5)
    tile[side // 2 : side // 2 + max(1, side // 12), x] = _DIFFERENCES[
        np.linspace(0, 255, x.stop - x.start).astype(int)
    ]
    return tile
