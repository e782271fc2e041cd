"""What predicting nothing scores, and the metric and loss that follow from it.

Constants are learnt on train and scored on val and test: "majority" answers the more frequent side of every question,
"prior" gives each class its share in train. "brightness" and "contrast" look at one number per image (mean and standard
deviation of its pixels): what ranks above them has seen more than exposure.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch.nn import functional as F

from ..data import Dataset, Task
from ..probe import OnlineProbe, auc_score, average_precision, classification_metrics, per_label_auc
from .labels import positives
from .pixels import LEVELS, Histograms

__all__ = ["Choice", "baseline_table", "choose", "label_support", "log_loss", "loss_weights"]

Floats = NDArray[np.float64]
MAJORITY, PRIOR, OWN_PRIOR = "majority", "prior of train", "prior of the split itself"


def log_loss(task: Task, labels: NDArray[Any], scores: Floats) -> float:
    """Mean negative log-likelihood in nats: per image, and for multi-label per image and label.

    Args:
        task: binary, multiclass or multilabel.
        labels, scores: as in `metrics`; a certain prediction that is wrong costs infinity.
    """
    y, s = torch.as_tensor(labels), torch.as_tensor(scores, dtype=torch.float64)
    if task == "multiclass":
        return float(F.nll_loss(s.log(), y))
    hits, misses = torch.special.xlogy(y, s), torch.special.xlogy(1 - y, 1 - s)
    return float(-(hits + misses).mean())


def _rates(dataset: Dataset, split: str) -> Floats:
    """Share of each output among the labelled images: [1], [K] or [L]."""
    rates = positives(dataset.splits[split], len(dataset.class_names)).mean(axis=0)
    return rates[1:] if dataset.task == "binary" else rates


def _constant(dataset: Dataset, rates: Floats, count: int) -> Floats:
    scores = np.tile(rates, (count, 1))
    return scores[:, 0] if dataset.task == "binary" else scores


def _majority(dataset: Dataset, rates: Floats) -> Floats:
    if dataset.task == "multiclass":
        return np.eye(len(rates))[rates.argmax()]
    return (rates > 0.5).astype(float)


def baseline_table(dataset: Dataset, histograms: Histograms) -> pd.DataFrame:
    """Scores of the baselines on val and test.

    Args:
        dataset: with labels of both classes in val and test.
        histograms: `pixel_histograms`'s, for the two baselines that look at one number per image.

    Returns:
        `split, baseline, auc, average_precision, accuracy, balanced_accuracy, weighted_f1, log_loss`. "prior of the
        split itself" cannot be known: it is the lowest log-loss of any constant. Baselines that only rank have nan
        for decisions; the log-loss of "majority" is infinite and left nan.
    """
    train = _rates(dataset, "train")
    rows = []
    for name in ("val", "test"):
        split = dataset.splits[name]
        labels = split.labels[split.labelled].cpu().numpy()
        constants = {MAJORITY: _majority(dataset, train), PRIOR: train, OWN_PRIOR: _rates(dataset, name)}
        for baseline, rates in constants.items():
            scores = _constant(dataset, rates, len(labels))
            found = classification_metrics(dataset.task, labels, scores)
            loss = np.nan if baseline == MAJORITY else log_loss(dataset.task, labels, scores)
            rows.append({"split": name, "baseline": baseline, **{k: found[k] for k in SHOWN}, "log_loss": loss})
        for baseline in ("brightness", "contrast"):
            ranking = _one_number(dataset, histograms, name, baseline)
            found = {"auc": auc_score(labels, ranking), "average_precision": average_precision(labels, ranking)}
            rows.append({"split": name, "baseline": baseline, **found})
    return pd.DataFrame(rows)


SHOWN = ("auc", "average_precision", "accuracy", "balanced_accuracy", "weighted_f1")


def _one_number(dataset: Dataset, histograms: Histograms, split: str, what: str) -> Floats:
    """Scores that rank images by one number, for each output in the direction in which it ranks train."""
    values = {}
    for name in ("train", split):
        counts = histograms[name][dataset.splits[name].labelled.cpu().numpy()].sum(axis=1)  # channels together
        shares = counts / counts.sum(axis=1, keepdims=True)
        mean = shares @ LEVELS
        values[name] = mean if what == "brightness" else np.sqrt(np.maximum(shares @ LEVELS**2 - mean**2, 0))
    columns = positives(dataset.train, len(dataset.class_names))
    columns = columns[:, 1:] if dataset.task == "binary" else columns
    direction = np.where(per_label_auc(columns, np.tile(values["train"][:, None], columns.shape[1])) < 0.5, -1.0, 1.0)
    scores = values[split][:, None] * direction
    return scores[:, 0] if dataset.task == "binary" else scores


# ---- the loss


def loss_weights(dataset: Dataset, *, max_weight: float | None = None) -> pd.DataFrame:
    """The weight of a positive image in the loss, as the online probe and supervised training compute it.

    Args:
        dataset: the labels of train count.
        max_weight: cap (its inverse is the floor); None takes the loop's own.

    Returns:
        `class, positives, ratio` (negatives per positive in train), `weight` (used), `capped`. Without a row for
        multi-class data, where the loop's cross-entropy has no weights.
    """
    if dataset.task == "multiclass":
        return pd.DataFrame(columns=["class", "positives", "ratio", "weight", "capped"])
    options = {} if max_weight is None else {"max_weight": max_weight}
    used = OnlineProbe(1, dataset.task, dataset.num_outputs, dataset.train.labels, **options).pos_weight.numpy()
    columns = positives(dataset.train, len(dataset.class_names))[:, -len(used) :]
    count = columns.sum(axis=0)
    ratio = np.divide(len(columns) - count, count, out=np.full(len(used), np.inf), where=count > 0)
    capped = ~np.isclose(ratio, used, rtol=1e-4)
    rows = {"class": dataset.class_names[-len(used) :], "positives": count, "ratio": ratio}
    return pd.DataFrame({**rows, "weight": used.astype(float), "capped": capped})


def label_support(dataset: Dataset) -> pd.DataFrame:
    """How many positives a score of each class rests on: `split, class, positives, negatives, half_width`.

    `half_width` is half the 95 % interval of the AUC of a scorer that knows nothing, by image: 1.96 sqrt((P + N + 1) /
    (12 P N)), the variance of the rank sum (Mann & Whitney 1947). By patient it is wider. nan without one side.
    """
    rows = []
    for name in ("val", "test"):
        columns = positives(dataset.splits[name], len(dataset.class_names))
        for label, column in zip(dataset.class_names, columns.T, strict=True):
            p, n = int(column.sum()), int((~column).sum())
            half = 1.96 * np.sqrt((p + n + 1) / (12 * p * n)) if p and n else np.nan
            rows.append({"split": name, "class": label, "positives": p, "negatives": n, "half_width": half})
    return pd.DataFrame(rows)


# ---- the choice


@dataclass(frozen=True, kw_only=True)
class Choice:
    """Metric and loss of one data set, and the figures they rest on.

    Args:
        metric: the headline.
        beside: reported with it.
        loss: of the online probe and of supervised training.
        task: of the data set.
        facts: numbers for the reasons, by name.
    """

    metric: str
    beside: tuple[str, ...]
    loss: str
    task: Task
    facts: dict[str, float]


def choose(dataset: Dataset, baselines: pd.DataFrame) -> Choice:
    """Metric and loss of a data set by its task, with the figures that speak for them.

    Yes-or-no questions are judged by ROC-AUC, which no constant raises and no change of prevalence moves. Classes that
    exclude each other are judged by accuracy, as the literature on CIFAR does and as the probes choose C; how far that
    is from a constant's, and how uneven the classes are, stands in the facts.

    Args:
        dataset: its train labels give the balance.
        baselines: `baseline_table`'s rows.
    """
    rates = positives(dataset.train, len(dataset.class_names)).mean(axis=0)
    test = baselines[baselines.split == "test"].set_index("baseline")
    support = label_support(dataset)
    on_test = support[support.split == "test"]
    facts = {
        "majority_accuracy": float(test.accuracy[MAJORITY]),
        "prior_auc": float(test.auc[PRIOR]),
        "prior_ap": float(test.average_precision[PRIOR]),
        "imbalance": float(rates.max() / rates.min()) if rates.min() else float("inf"),
        "fewest_positives": float(on_test.positives.min()),
        "widest_auc": float(on_test.half_width.max()),
    }
    at_threshold = ("balanced accuracy", "sensitivity and specificity at the val threshold", "calibration error")
    metric, beside, loss = {
        "multiclass": (
            "accuracy",
            ("AUC, one class against the rest", "balanced accuracy"),
            "cross-entropy, no weights",
        ),
        "binary": (
            "ROC-AUC",
            ("average precision", *at_threshold),
            "binary cross-entropy, positives weighted",
        ),
        "multilabel": (
            "macro ROC-AUC over labels",
            ("macro average precision", "AUC of each label", *at_threshold),
            "binary cross-entropy per label, positives weighted",
        ),
    }[dataset.task]
    return Choice(metric=metric, beside=tuple(beside), loss=loss, task=dataset.task, facts=facts)
