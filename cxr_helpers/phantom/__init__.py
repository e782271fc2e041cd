"""The embedded data sets: chest radiographs with known findings, and colour shapes in CIFAR-10's place."""

from .chest import Array, Parameters, draw_anatomy, draw_texture, render_chest
from .phantom import PHANTOM_VARIANTS, PhantomData, PhantomSplit, phantom_arrays, phantom_counts
from .shapes import SHAPE_CLASSES, render_shapes

__all__ = [
    "PHANTOM_VARIANTS",
    "SHAPE_CLASSES",
    "Array",
    "Parameters",
    "PhantomData",
    "PhantomSplit",
    "draw_anatomy",
    "draw_texture",
    "phantom_arrays",
    "phantom_counts",
    "render_chest",
    "render_shapes",
]
