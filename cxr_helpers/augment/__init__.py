"""Batched random views with parameters of their own for each image, and the one deterministic transform."""

from typing import TYPE_CHECKING

from ..lazy import lazily
from .catalogue import POLICIES, get_policy
from .policy import OPERATIONS, SPECS, AugmentationPolicy, Normalisation, alone, inert_fields, range_of

if TYPE_CHECKING:
    from .geometry import move_boxes
    from .rearrange import (
        CORRUPTIONS,
        KINDS,
        QUARTER_TURNS,
        count_patches,
        draw_corruption,
        draw_patches,
        draw_rectangles,
        rearrange,
    )
    from .sweep import SWEPT, TOGGLED, Sweep, ends_of, sweep_operation
    from .views import NUM_DRAWS, OneView, TwoViews, Views, draw_table, eval_transform, normalise

lazily(
    __name__,
    {
        "geometry": "move_boxes",
        "rearrange": "CORRUPTIONS KINDS QUARTER_TURNS rearrange "
        "count_patches draw_corruption draw_patches draw_rectangles",
        "sweep": "SWEPT TOGGLED Sweep ends_of sweep_operation",
        "views": "NUM_DRAWS OneView TwoViews Views draw_table eval_transform normalise",
    },
)
