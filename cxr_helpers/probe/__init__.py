"""Features of a frozen encoder, extracted once, and the probes that read them."""

# isort: off
from .features import Features, evaluating, extract_features, fuse, labelled_rows, reduced, standardisation
from .intervals import Interval, PairedDifference, Resampled, SeedSpread, WeightedMetric, bootstrap_band, bootstrap_ci
from .intervals import difference_of, holm, interval_of, paired_bootstrap, redraw, resample, seed_spread, together
from .linear import LinearHead, ProbeResult, choose_c, cross_validate, fit_head, linear_probe, mean_of_logits
from .linear import predict, split_folds
from .metrics import accuracy, alignment, auc_score, average_precision, classification_metrics, effective_rank
from .metrics import expected_calibration_error, feature_std, label_aucs, per_label_auc, projection_std, reliability
from .metrics import sensitivity_and_specificity, threshold_from, uniformity, weighted_accuracy, weighted_macro_auc
from .online import OnlineProbe, knn_probe

__all__ = [
    "Features", "Interval", "LinearHead", "OnlineProbe", "PairedDifference", "ProbeResult", "Resampled",
    "SeedSpread", "WeightedMetric", "accuracy", "alignment", "auc_score", "average_precision", "bootstrap_band",
    "bootstrap_ci", "choose_c", "classification_metrics", "cross_validate", "difference_of", "effective_rank",
    "evaluating", "expected_calibration_error", "extract_features", "feature_std", "fit_head", "fuse", "holm",
    "interval_of", "knn_probe", "label_aucs", "labelled_rows", "linear_probe", "mean_of_logits", "paired_bootstrap",
    "per_label_auc", "predict", "projection_std", "redraw", "reduced", "reliability", "resample", "seed_spread",
    "sensitivity_and_specificity", "split_folds", "standardisation", "threshold_from", "together", "uniformity",
    "weighted_accuracy", "weighted_macro_auc",
]  # fmt: skip
