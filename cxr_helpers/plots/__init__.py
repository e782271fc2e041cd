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

__all__ = [
    "COLOURS",
    "OTHER_COLOUR",
    "End",
    "configurations",
    "draw_lines",
    "name_lines",
    "panel_grid",
    "plot_collapse",
    "plot_online",
    "plot_probe_curve",
    "plot_table_forest",
    "plot_training",
    "reference_line",
    "require",
    "share_axis",
    "styled",
]
