"""RandAugment from a table of draws: torchvision's fourteen operations, its magnitudes and random signs.

Operations that move pixels become maps for the one resampling of `geometry`; those that change values follow, in the
order drawn, through torchvision's own functions, images of one group together. So all movements act first, and what
they uncover is the image around the crop where there is one.
Source: torchvision.transforms.v2.RandAugment (arXiv 1909.13719), 31 bins of magnitude.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torchvision.transforms.v2.functional as tv
from torch import Tensor

from . import geometry as geo

__all__ = ["OPERATIONS", "RandAugment"]

MOVING = ("ShearX", "ShearY", "TranslateX", "TranslateY", "Rotate")
SIGNED = ("Brightness", "Color", "Contrast", "Sharpness")
CHANGING = (*SIGNED, "Posterize", "Solarize", "AutoContrast", "Equalize")
OPERATIONS = ("Identity", *MOVING, *CHANGING)


class RandAugment:
    """Draws `num_ops` of the fourteen operations for each image, of a magnitude of 0 to 30, for views of `size` px."""

    def __init__(self, num_ops: int, magnitude: int, size: int) -> None:
        self.num_ops, self.strength, self.size = num_ops, magnitude / 30, size

    def _drawn(self, draws: Tensor) -> list[tuple[Tensor, Tensor]]:
        """For each operation in turn: its index among OPERATIONS and its sign, each [B]."""
        indices = (draws * len(OPERATIONS)).long().clamp(max=len(OPERATIONS) - 1)
        signs = torch.where(draws < 0.5, -1.0, 1.0)
        return [(indices[:, 2 * place], signs[:, 2 * place + 1]) for place in range(self.num_ops)]

    def maps(self, draws: Tensor) -> Tensor:
        """The composed map [B, 3, 3] of the moving operations, from draws [B, ≥ 2 · num_ops]."""
        maps = torch.eye(3, device=draws.device).expand(len(draws), 3, 3)
        shift = int(150 / 331 * self.size * self.strength) / self.size  # whole pixels, as torchvision's
        for index, sign in self._drawn(draws):
            shear_x, shear_y, shift_x, shift_y, rotation = (sign * (index == OPERATIONS.index(name)) for name in MOVING)
            shear = geo.shear_map(0.3 * self.strength * shear_x, 0.3 * self.strength * shear_y)
            angle = 30 * self.strength * rotation
            moved = geo.affine_map(angle, shift * shift_x, shift * shift_y, torch.ones_like(sign))
            maps = geo.compose(maps, shear, moved)
        return maps

    def pixels(self, view: Tensor, draws: Tensor) -> Tensor:
        """The changing operations on images [B, C, S, S] in [0, 1]; may write into them."""
        signed = [(name, sign) for name in CHANGING for sign in ((-1.0, 1.0) if name in SIGNED else (0.0,))]
        for index, signs in self._drawn(draws):
            for name, sign in signed:
                chosen = (index == OPERATIONS.index(name)) & ((signs == sign) | (sign == 0))
                rows = chosen.nonzero().flatten()
                if len(rows) > 0:
                    view[rows] = self.operation(name, sign)(view[rows])
        return view

    def operation(self, name: str, sign: float) -> Callable[[Tensor], Tensor]:
        """One of the changing operations at this magnitude, as a function of images."""
        factor = 1 + 0.9 * self.strength * sign
        bits = 8 - round(4 * self.strength)
        functions: dict[str, Callable[[Tensor], Tensor]] = {
            "Brightness": lambda x: tv.adjust_brightness(x, factor),
            "Color": lambda x: tv.adjust_saturation(x, factor),
            "Contrast": lambda x: tv.adjust_contrast(x, factor),
            "Sharpness": lambda x: tv.adjust_sharpness(x, factor),
            "Posterize": lambda x: tv.posterize(x, bits),
            "Solarize": lambda x: tv.solarize(x, 1 - self.strength),
            "AutoContrast": tv.autocontrast,
            "Equalize": tv.equalize,
        }
        return functions[name]
