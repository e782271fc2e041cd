"""Rival explanations of an encoder's score, each given its best chance: what is left is what has to be believed.

Chance and selection (shuffled labels), the film's border, exposure and original size, copies and patients on both
sides of a split, and images that are not the data set's own. Controls read test, choose nothing on it, and are counted.
"""

from .inputs import ALONE, INPUTS, REMOVED, border_only, centre_only, changed, equalised, smoothed
from .labels import permuted_labels, shuffled_scores
from .measure import AS_MEASURED, NO_ENCODER, OWN_IMAGES, SHUFFLED, SHUFFLED_BEST, STRANGERS, controls, correlations
from .statistics import SUMMARIES, grey_statistics, sharpness_statistics, summary_statistics, within_class_products
from .subsets import is_medmnists_own, nearest_in_train, without_near_copies, without_train_patients

__all__ = [
    "ALONE",
    "AS_MEASURED",
    "INPUTS",
    "NO_ENCODER",
    "OWN_IMAGES",
    "REMOVED",
    "SHUFFLED",
    "SHUFFLED_BEST",
    "STRANGERS",
    "SUMMARIES",
    "border_only",
    "centre_only",
    "changed",
    "controls",
    "correlations",
    "equalised",
    "grey_statistics",
    "is_medmnists_own",
    "nearest_in_train",
    "permuted_labels",
    "sharpness_statistics",
    "shuffled_scores",
    "smoothed",
    "summary_statistics",
    "within_class_products",
    "without_near_copies",
    "without_train_patients",
]
