"""Features of a frozen encoder, extracted once, and the probes that read them."""

# isort: off
from .curves import CURVE_GRID, DECISION_RATES, calibrated_ece, decision_rates, precision_curves, reliability
from .curves import roc_curves, weighted_macro_average_precision, weighted_means
from .features import Features, evaluating, extract_features, fuse, labelled_rows, pixel_features, standardisation
from .intervals import Band, Interval, PairedDifference, WeightedMetric, bootstrap_band, bootstrap_ci, holm, mean_and_sd
from .intervals import paired_bootstrap
from .linear import LinearHead, ProbeResult, choose_c, cross_validate, fit_head, linear_probe, predict, split_folds
from .linear import targets
from .metrics import accuracy, alignment, auc_score, average_precision, classification_metrics, effective_rank
from .metrics import expected_calibration_error, feature_std, label_aucs, one_vs_rest, per_label_auc, projection_std
from .metrics import sensitivity_and_specificity, threshold_from, uniformity, weighted_accuracy, weighted_macro_auc
from .online import OnlineProbe, knn_probe, sgd_probe

__all__ = [
    "CURVE_GRID", "DECISION_RATES", "Band", "Features", "Interval", "LinearHead", "OnlineProbe", "PairedDifference",
    "ProbeResult", "WeightedMetric", "accuracy", "alignment", "auc_score", "average_precision", "bootstrap_band",
    "bootstrap_ci", "calibrated_ece", "choose_c", "classification_metrics", "cross_validate", "decision_rates",
    "effective_rank", "evaluating", "expected_calibration_error", "extract_features", "feature_std", "fit_head", "fuse",
    "holm", "knn_probe", "label_aucs", "labelled_rows", "linear_probe", "mean_and_sd", "one_vs_rest",
    "paired_bootstrap", "per_label_auc", "pixel_features", "precision_curves", "predict", "projection_std",
    "reliability", "roc_curves", "sensitivity_and_specificity", "sgd_probe", "split_folds", "standardisation",
    "targets", "threshold_from", "uniformity", "weighted_accuracy", "weighted_macro_auc",
    "weighted_macro_average_precision", "weighted_means",
]  # fmt: skip
