"""Figures from records: every `plot_*` takes data and returns a figure."""

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
from .study import plot_feature_maps, plot_label_curve, plot_policy_scores

__all__ = [
    "COLOURS",
    "OTHER_COLOUR",
    "End",
    "configurations",
    "draw_lines",
    "name_lines",
    "panel_grid",
    "plot_collapse",
    "plot_feature_maps",
    "plot_label_curve",
    "plot_online",
    "plot_policy_scores",
    "plot_probe_curve",
    "plot_table_forest",
    "plot_training",
    "reference_line",
    "require",
    "share_axis",
    "styled",
]
