"""Exact rearrangements: an image's own pixels in other places, none made up, none lost; and what of it to hide.

Nothing is interpolated and no corner turns black, so that what was done leaves no trace but the places themselves.
"""

from __future__ import annotations

from functools import lru_cache
from itertools import permutations
from math import isqrt

import torch
from torch import Tensor

from ..fields import require

__all__ = [
    *("CORRUPTIONS", "KINDS", "QUARTER_TURNS"),
    *("count_patches", "draw_corruption", "draw_patches", "draw_rectangles", "rearrange"),
]

QUARTER_TURNS = ("rot0", "rot90", "rot180", "rot270")  # counter-clockwise
_SWAPS = [(1, 0, 3, 2), (2, 3, 0, 1)]  # of quadrants, which exchange the halves
_SHUFFLES = [p for p in permutations(range(4)) if p not in ((0, 1, 2, 3), *_SWAPS)]
CORRUPTIONS = {  # by kind, what an intact image becomes; no two of them, and none of them, leave it as it was
    "rotations": QUARTER_TURNS[1:],
    "flips": ("flip left-right", "flip up-down"),
    "halves": ("halves left-right", "halves up-down"),
    "quadrants": tuple(f"quadrants {''.join(map(str, p))}" for p in _SHUFFLES),
}
KINDS = (*QUARTER_TURNS, *(name for kind, names in CORRUPTIONS.items() if kind != "rotations" for name in names))


@lru_cache(maxsize=8)
def _places(size: int, device: torch.device) -> Tensor:
    """Where each pixel of a rearranged image comes from, int64 [len(KINDS), size * size]."""
    start = torch.arange(size * size, device=device).view(size, size)
    half, rest = size // 2, size - size // 2  # of an odd side the middle row and column stay
    blocks = [(slice(0, half), slice(0, half)), (slice(0, half), slice(rest, size))]
    blocks += [(slice(rest, size), slice(0, half)), (slice(rest, size), slice(rest, size))]
    tables = [torch.rot90(start, turns) for turns in range(4)] + [start.flip(1), start.flip(0)]
    for order in (*_SWAPS, *_SHUFFLES):
        table = start.clone()
        for place, source in zip(blocks, order, strict=True):
            table[place] = start[blocks[source]]
        tables.append(table)
    return torch.stack(tables).flatten(1)


def rearrange(images: Tensor, kinds: Tensor) -> Tensor:
    """Each image with its pixels in other places.

    Args:
        images: [B, C, S, S] of any type, S at least 2. kinds: int64 [B], places in `KINDS`.
    Returns:
        The same shape and type: a permutation of each image's pixels, the same in every channel.
    """
    require(images.ndim == 4 and images.shape[2] == images.shape[3] >= 2, "images", "[B, C, S, S]", [*images.shape])
    places = _places(images.shape[-1], images.device)[kinds]
    return images.flatten(2).gather(2, places[:, None].expand(-1, images.shape[1], -1)).view(images.shape)


def draw_corruption(draws: Tensor, allowed: tuple[str, ...]) -> Tensor:
    """A place in `KINDS` for each image, int64 [B]: each kind of corruption as often, then one of that kind.

    Args:
        draws: uniform in [0, 1), [B, 2]. allowed: among the keys of `CORRUPTIONS`.
    """
    kind = (draws[:, 0] * len(allowed)).long()
    counts = torch.tensor([len(CORRUPTIONS[name]) for name in allowed], device=draws.device)
    starts = torch.tensor([KINDS.index(CORRUPTIONS[name][0]) for name in allowed], device=draws.device)
    return starts[kind] + (draws[:, 1] * counts[kind]).long()


def draw_rectangles(draws: Tensor, size: int, low: float, high: float) -> Tensor:
    """A rectangle to hide in each image, bool [B, 1, size, size], True where hidden.

    Args:
        draws: uniform in [0, 1), [B, 4]: its area, shape and place. low, high: its area as parts of the image's; whole
            pixels keep it within half a row and column of what was drawn.
    """
    area = (low + (high - low) * draws[:, 0]) * size**2
    aspect = 2 ** (2 * draws[:, 1] - 1)  # height over width: from 1/2 to 2
    height = (area * aspect).sqrt().round().clamp(1, size)
    height = torch.maximum(height, (area / size).ceil().clamp(max=size))  # else it were wider than the image
    width = (area / height).round().clamp(1, size)
    top, left = (draws[:, 2] * (size - height + 1)).floor(), (draws[:, 3] * (size - width + 1)).floor()
    places = torch.arange(size, device=draws.device)
    rows = (places >= top[:, None]) & (places < (top + height)[:, None])  # [B, S]
    columns = (places >= left[:, None]) & (places < (left + width)[:, None])
    return (rows[:, :, None] & columns[:, None, :])[:, None]


def count_patches(size: int, patch: int, ratio: float) -> int:
    """How many patches of that side an image has.

    Raises:
        ValueError: the patch does not divide the size, or that ratio hides all of them or none.
    """
    require(size % patch == 0, "size", f"a multiple of the patch, {patch} px", size)
    count = (size // patch) ** 2
    expected = f"such that one or more of the {count} patches are hidden and one or more are seen"
    require(0 < round(ratio * count) < count, "mask_ratio", expected, ratio)
    return count


def draw_patches(draws: Tensor, size: int, ratio: float, centring: float = 0.0) -> Tensor:
    """Patches to hide in each image, the same number in all: bool [B, 1, size, size], True where hidden.

    Drawn one after the other without putting back, by Gumbel's top k (arXiv 1903.06059): a patch whose centre is at a
    distance r from the image's, whose side is at 1, has weight exp(-centring r²).

    Args:
        draws: uniform in [0, 1), [B, N], of the N = n x n patches. ratio: of them hidden. centring: 0 weighs all alike.
    """
    side = isqrt(draws.shape[1])
    places = (2 * torch.arange(side, device=draws.device) + 1) / side - 1
    weights = -centring * (places[:, None].square() + places.square()).flatten()  # their logarithms
    ranks = (weights - (-draws.log()).log()).argsort(dim=1, descending=True, stable=True).argsort(dim=1)
    hidden = (ranks < round(ratio * side**2)).unflatten(1, (1, side, side))
    return hidden.repeat_interleave(size // side, 2).repeat_interleave(size // side, 3)
