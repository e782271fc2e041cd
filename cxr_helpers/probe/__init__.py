"""Features of a frozen encoder, extracted once, and the probes that read them."""

from .features import Features, count_outputs, extract_features, labelled_rows, pixel_features
from .logistic import (
    LinearHead,
    Logistic,
    choose_c,
    cross_validate,
    fit_head,
    one_standard_error,
    predict,
    split_folds,
    standardisation,
    targets,
)
from .probes import OnlineProbe, ProbeResult, knn_probe, linear_probe, probabilities, sgd_probe

__all__ = [
    "Features",
    "LinearHead",
    "Logistic",
    "OnlineProbe",
    "ProbeResult",
    "choose_c",
    "count_outputs",
    "cross_validate",
    "extract_features",
    "fit_head",
    "knn_probe",
    "labelled_rows",
    "linear_probe",
    "one_standard_error",
    "pixel_features",
    "predict",
    "probabilities",
    "sgd_probe",
    "split_folds",
    "standardisation",
    "targets",
]
