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
from .eda import (
    plot_balance,
    plot_cardinality,
    plot_cooccurrence,
    plot_duplicate_similarity,
    plot_levels,
    plot_patients,
    plot_pixels,
)
from .eda_sheets import plot_pairs, plot_samples
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
    "plot_balance",
    "plot_cardinality",
    "plot_collapse",
    "plot_cooccurrence",
    "plot_duplicate_similarity",
    "plot_feature_maps",
    "plot_label_curve",
    "plot_levels",
    "plot_online",
    "plot_pairs",
    "plot_patients",
    "plot_pixels",
    "plot_policy_scores",
    "plot_probe_curve",
    "plot_samples",
    "plot_table_forest",
    "plot_training",
    "reference_line",
    "require",
    "share_axis",
    "styled",
]
