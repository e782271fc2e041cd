"""Sheets of small images: one picture made of tiles, captions above and names beside them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch.nn.functional as F
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.image import AxesImage
from numpy.typing import NDArray
from torch import Tensor

__all__ = ["TILE_END", "blank", "draw_tiles", "grey_tile", "mosaic", "reduced", "sheet"]

Tile = NDArray[np.uint8]  # [S, S, 3]
_GAP = 0.05  # of a tile's side, between tiles
TILE_END = 1 / (1 + _GAP)  # where a tile ends, in steps from one tile to the next


def grey_tile(image: Tensor) -> Tile:
    """An image [1 or 3, S, S] in [0, 1] as it is stored, black 0 and white 1; never stretched."""
    values = (image.detach().cpu().clamp(0, 1) * 255).round().byte().numpy().transpose(1, 2, 0)
    return np.broadcast_to(values, (*values.shape[:2], 3)).astype(np.uint8)


def reduced(images: Tensor, side: int) -> Tensor:
    """Images [B, C, S, S] no larger than they are drawn, so that nothing else has to shrink them."""
    if images.shape[-1] <= side:
        return images
    return F.interpolate(images, size=(side, side), mode="bilinear", antialias=True)


def blank(side: int) -> Tile:
    """A white tile, where a row has none."""
    return np.full((side, side, 3), 255, np.uint8)


def mosaic(rows: Sequence[Sequence[Tile]]) -> Tile:
    """Tiles of one side in rows of one length, with white gaps between them, as one opaque image [H, W, 4]."""
    side, columns = rows[0][0].shape[0], len(rows[0])
    step = side + gap_px(side)
    canvas = np.full((len(rows) * step - gap_px(side), columns * step - gap_px(side), 4), 255, np.uint8)
    for y, row in enumerate(rows):
        for x, tile in enumerate(row):
            canvas[y * step : y * step + side, x * step : x * step + side, :3] = tile
    return canvas


def gap_px(side: int) -> int:
    """Width of the white gap between tiles of that side."""
    return max(1, round(_GAP * side))


def draw_tiles(ax: Axes, rows: Sequence[Sequence[Tile]]) -> AxesImage:
    """The mosaic on axes whose units are tiles: tile (row r, column c) begins at (c, r) and ends `TILE_END` later.

    The axes are filled: their own proportions must be the mosaic's. Pixels are shown as squares where there is room:
    smoothed, a sheet would be four times as large a file and look sharper than what the encoder gets.
    """
    extent = (0, len(rows[0]) - 1 + TILE_END, len(rows) - 1 + TILE_END, 0)
    drawn = ax.imshow(mosaic(rows), extent=extent, interpolation="nearest", aspect="auto")
    ax.set_axis_off()
    return drawn


def sheet(
    rows: Sequence[Sequence[Tile]],
    names: Sequence[str],
    captions: Sequence[Sequence[str]],
    *,
    tile_inches: float,
    name_inches: float = 1.5,
    notes: Sequence[str] = (),
) -> Figure:
    """A figure of tiles: a name to the left of each row, a caption above each tile.

    Args:
        rows: tiles [R][C].
        names: [R], lines separated by newlines.
        captions: [R][C]; an empty one leaves no room if its whole row is empty.
        tile_inches: side of a tile.
        name_inches: width for the names.
        notes: [R] or empty: what is written below a row's name, in red.
    """
    columns = len(rows[0])
    heights = [0.22 if any(row) else 0.04 for row in captions]  # inches above each row of tiles
    width = name_inches + columns * tile_inches
    height = sum(heights) + len(rows) * tile_inches
    figure = Figure(figsize=(width, height))
    top = height
    for r, (row, head) in enumerate(zip(rows, heights, strict=True)):
        top -= head + tile_inches
        place = (name_inches / width, top / height, columns * tile_inches / width, TILE_END * tile_inches / height)
        ax = figure.add_axes(place)
        draw_tiles(ax, [row])
        for c, caption in enumerate(captions[r]):
            if caption:
                ax.annotate(caption, (c + TILE_END / 2, 0), xytext=(0, 2), textcoords="offset points", ha="center",
                            va="bottom", fontsize=7.5, annotation_clip=False)  # fmt: skip
        note = notes[r] if notes else ""
        _write_name(figure, names[r], note, (name_inches - 0.1) / width, (top + tile_inches / 2) / height)
    return figure


def _write_name(figure: Figure, name: str, note: str, x: float, y: float) -> None:
    text = figure.text(x, y, name, ha="right", va="center" if not note else "bottom", fontsize=9)
    text.set_linespacing(1.25)
    if note:
        figure.text(x, y, note, ha="right", va="top", fontsize=7.5, color="#b3261e")
