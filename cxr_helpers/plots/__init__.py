"""Figures from records: every `plot_*` takes data and returns a figure."""

from .augmentations import plot_histograms, plot_policies, plot_sweeps
from .drawing import (
    COLOURS,
    OTHER_COLOUR,
    End,
    configurations,
    draw_lines,
    name_lines,
    panel_grid,
    reference_line,
    require,
    share_axis,
    styled,
)
from .figures import plot_collapse, plot_online, plot_probe_curve, plot_table_forest, plot_training
from .similarity import plot_operation_effects, plot_similarity
from .views import ViewsSheet, plot_views

__all__ = [
    "COLOURS",
    "OTHER_COLOUR",
    "End",
    "ViewsSheet",
    "configurations",
    "draw_lines",
    "name_lines",
    "panel_grid",
    "plot_collapse",
    "plot_histograms",
    "plot_online",
    "plot_operation_effects",
    "plot_policies",
    "plot_probe_curve",
    "plot_similarity",
    "plot_sweeps",
    "plot_table_forest",
    "plot_training",
    "plot_views",
    "reference_line",
    "require",
    "share_axis",
    "styled",
]
