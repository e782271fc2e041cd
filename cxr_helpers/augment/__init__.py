"""Batched random views with parameters of their own for each image, and the one deterministic transform."""

from typing import TYPE_CHECKING

from ..lazy import lazily
from .catalogue import POLICIES, get_policy
from .parts import alone, code_line, field_groups, inert_fields, range_notes
from .policy import AugmentationPolicy, Normalisation, describe, magnitude_fields

if TYPE_CHECKING:
    from .sweep import SWEPT, TOGGLED, Sweep, sweep_operation
    from .views import NUM_DRAWS, Draw, OneView, TwoViews, Views, draw_table, eval_transform, normalise

__all__ = [
    "NUM_DRAWS",
    "POLICIES",
    "SWEPT",
    "TOGGLED",
    "AugmentationPolicy",
    "Draw",
    "Normalisation",
    "OneView",
    "Sweep",
    "TwoViews",
    "Views",
    "alone",
    "code_line",
    "describe",
    "draw_table",
    "eval_transform",
    "field_groups",
    "geometry",
    "get_policy",
    "inert_fields",
    "magnitude_fields",
    "normalise",
    "photometric",
    "range_notes",
    "sweep_operation",
]

lazily(
    __name__,
    {
        "sweep": "SWEPT TOGGLED Sweep sweep_operation",
        "views": "NUM_DRAWS Draw OneView TwoViews Views draw_table eval_transform normalise",
    },
)
