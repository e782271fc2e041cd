"""Figures from records: every `plot_*` takes data and returns a figure."""

from .augmentations import plot_histograms, plot_policies, plot_sweeps
from .curves import plot_calibration, plot_confusion, plot_label_auc, plot_roc_precision
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
from .evidence import plot_grad_cam, plot_localisation, plot_neighbours
from .figures import plot_collapse, plot_online, plot_probe_curve, plot_table_forest, plot_training
from .progress import plot_progress
from .rivals import plot_controls
from .similarity import plot_operation_effects, plot_similarity
from .study import plot_feature_maps, plot_label_curve, plot_policy_scores
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
    "plot_balance",
    "plot_calibration",
    "plot_cardinality",
    "plot_collapse",
    "plot_confusion",
    "plot_controls",
    "plot_cooccurrence",
    "plot_duplicate_similarity",
    "plot_feature_maps",
    "plot_grad_cam",
    "plot_histograms",
    "plot_label_auc",
    "plot_label_curve",
    "plot_levels",
    "plot_localisation",
    "plot_neighbours",
    "plot_online",
    "plot_operation_effects",
    "plot_pairs",
    "plot_patients",
    "plot_pixels",
    "plot_policies",
    "plot_policy_scores",
    "plot_probe_curve",
    "plot_progress",
    "plot_roc_precision",
    "plot_samples",
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
