"""A look at the data before anything is trained: data sets in, tables out; nothing is fitted but constants."""

from .baselines import Choice, baseline_table, choose, label_support, log_loss, loss_weights
from .duplicates import (
    Similarities,
    compare_images,
    confirm_pairs,
    detail_vectors,
    duplicate_summary,
    exact_duplicates,
    official_copy,
)
from .labels import (
    cardinality_table,
    class_counts,
    cooccurrence_table,
    label_format,
    positives,
    prevalence_shift,
    share_interval,
)
from .options import EDA, EdaOptions
from .patients import images_per_patient, leak_check, patient_table, shared_patients
from .pixels import Histograms, image_histograms, level_table, pixel_histograms, pixel_table
from .samples import draw_samples

__all__ = [
    "EDA",
    "Choice",
    "EdaOptions",
    "Histograms",
    "Similarities",
    "baseline_table",
    "cardinality_table",
    "choose",
    "class_counts",
    "compare_images",
    "confirm_pairs",
    "cooccurrence_table",
    "detail_vectors",
    "draw_samples",
    "duplicate_summary",
    "exact_duplicates",
    "image_histograms",
    "images_per_patient",
    "label_format",
    "label_support",
    "leak_check",
    "level_table",
    "log_loss",
    "loss_weights",
    "official_copy",
    "patient_table",
    "pixel_histograms",
    "pixel_table",
    "positives",
    "prevalence_shift",
    "share_interval",
    "shared_patients",
]
