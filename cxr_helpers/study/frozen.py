"""What frozen features hold: which images are near each other, a map of them, and how few labels a probe needs.

What is measured on a run stays in its folder as a table, so that a page can be made from records alone.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from typing import Any

import numpy as np
import pandas as pd
from sklearn.decomposition import PCA
from sklearn.manifold import TSNE

from ..config import ProbeConfig, RuntimeConfig
from ..data import Dataset, keep_labels
from ..evaluate import run_features
from ..probe import Features, bootstrap_band, linear_probe, standardisation, weighted_means
from ..runs import Run, run_lock
from ..writing import write_table
from .plan import Row
from .records import count_reads, recorded, require_data, stored
from .tables import figures_of, paired

__all__ = [ "feature_map", "label_curve", "label_curves", "label_summary",
    "patient_means",
]  # fmt: skip

BLOCK = 1024  # queries at once
MAP_IMAGES = 1000  # more points hide each other
MAP_COMPONENTS, MAP_PERPLEXITY = 50, 30.0  # van der Maaten & Hinton 2008: PCA to 30-50 dimensions first


def patient_means(table: pd.DataFrame, columns: Sequence[str], by: str = "encoder") -> pd.DataFrame:
    """Mean of every column with its 95 % interval over patients, `_low, _high`; `group` names the patient."""
    lines = []
    for name, part in table.groupby(by, sort=False):
        values = part[list(columns)].to_numpy(dtype=np.float64)
        zeros = np.zeros(values.shape, dtype=np.int64)
        band = bootstrap_band(zeros, values, part["group"].astype(str), curve=weighted_means, num_resamples=2000)
        of = {"": band.estimate, "_low": band.low, "_high": band.high}
        line = {f"{column}{end}": found[i] for i, column in enumerate(columns) for end, found in of.items()}
        lines.append({by: name, "patients": part["group"].nunique(), **line})
    return pd.DataFrame(lines)


# ---- neighbours


def feature_map(run: Run, dataset: Dataset, runtime: RuntimeConfig = RuntimeConfig(), seed: int = 0) -> pd.DataFrame:
    """At most 1,000 val images in two dimensions by t-SNE: `x, y, label` (the class, or `finding` and `none`).

    Neighbours are kept together; distances between clusters and their sizes mean nothing.
    """

    def measure() -> pd.DataFrame:
        features = run_features(run, "val", dataset.val, runtime).labelled()
        chosen = features.take(np.sort(np.random.default_rng(seed).permutation(len(features))[:MAP_IMAGES]))
        mean, std = standardisation(chosen.x)
        x = (chosen.x - mean) / std
        x = PCA(min(MAP_COMPONENTS, *x.shape), random_state=seed).fit_transform(x)
        places = TSNE(perplexity=min(MAP_PERPLEXITY, (len(x) - 1) / 3), init="pca", random_state=seed).fit_transform(x)
        several = dataset.task == "multilabel"
        kinds = chosen.labels.any(axis=1).astype(int) if several else chosen.labels
        names = np.array(("none", "finding") if several else dataset.class_names)
        return pd.DataFrame({"x": places[:, 0], "y": places[:, 1], "label": names[kinds]})

    require_data(run, dataset)
    return stored(run, "feature_map", measure)


# ---- few labels


def label_curve(
    run: Run, dataset: Dataset, fractions: Iterable[float], runtime: RuntimeConfig = RuntimeConfig(), draws: int = 5
) -> pd.DataFrame:
    """The linear probe on parts of the training labels, drawn by class and by whole patients, scored on test.

    Draw and fraction name the same labels for every run. Rows that the run's folder has are not measured again;
    `label_reads` of its record counts the others, before they are written.

    Args:
        fractions: parts of the labels, above 0 and below 1. draws: of each part.
    Returns:
        `fraction, draw, num_labels, num_patients, c` (chosen on these labels), `val, test`.
    """
    require_data(run, dataset)
    known = recorded(run, "label_curve")
    there = set() if known is None else set(zip(known["fraction"], known["draw"], strict=True))
    wanted = [(float(fraction), draw) for fraction in fractions for draw in range(draws)]
    asked = [pair for pair in wanted if pair not in there]
    if asked:
        with run_lock(run, doing="probed"):
            features = {name: run_features(run, name, split, runtime) for name, split in dataset.splits.items()}
            rows = pd.DataFrame([_one_draw(dataset, features, *pair) for pair in asked])
            count_reads(run, "label_reads", len(rows))
            known = pd.concat([known, rows], ignore_index=True).sort_values(["fraction", "draw"])
            write_table(run.path / "label_curve.csv", known)
    assert known is not None
    return known[[pair in wanted for pair in zip(known["fraction"], known["draw"], strict=True)]]


def _one_draw(dataset: Dataset, features: Mapping[str, Features], fraction: float, draw: int) -> dict[str, Any]:
    kept = keep_labels(dataset, fraction, draw).train
    train = Features(features["train"].x, kept.labels.numpy(), kept.groups).labelled()
    units = len(train) if train.groups is None else len(np.unique(train.groups))
    options: dict[str, Any] = {"task": dataset.task, "num_outputs": dataset.num_outputs}
    config = ProbeConfig(folds=max(2, min(ProbeConfig.folds, units)))
    found = linear_probe(train, features["val"], features["test"], config=config, **options)
    metric = "accuracy" if dataset.task == "multiclass" else "auc"
    line = {"fraction": fraction, "draw": draw, "num_labels": len(train), "num_patients": units, "c": found.c}
    return line | {name: values[metric] for name, values in found.metrics.items()}


def label_curves(
    rows: Iterable[Row], data: Mapping[str, Dataset], fractions: Sequence[float],
    runtime: RuntimeConfig = RuntimeConfig(), draws: int = 5,
) -> pd.DataFrame:  # fmt: skip
    """`label_curve` of every frozen run, and what runs trained end to end on all or part of the labels reached.

    A run that has neither the rows nor its weights here has only that of all labels.

    Returns:
        `encoder, dataset, seed, fraction, draw, num_labels, test`; the draw of end-to-end training is its seed.
    """
    parts, runs = [], [(row, run) for row in rows for run in row.runs]
    for row, run in runs:
        (protocol, metric, figures), dataset = figures_of(run), data[row.dataset]
        fraction, seed = float(run.record.get("label_fraction", 1.0)), run.record["seed"]
        kept = keep_labels(dataset, fraction, seed) if fraction < 1 else dataset
        line = {"fraction": fraction, "draw": seed if fraction < 1 else 0, "test": figures["test"][metric]}
        tables = [pd.DataFrame([line | {"num_labels": int(kept.train.labelled.sum())}])]
        with suppress(FileNotFoundError):
            tables += [label_curve(run, dataset, fractions, runtime, draws)] if protocol == "frozen" else []
        parts += [table.assign(encoder=row.label, dataset=row.dataset, seed=seed) for table in tables]
    return pd.concat(parts, ignore_index=True)


def label_summary(curves: pd.DataFrame, against: str = "Supervised") -> pd.DataFrame:
    """Each encoder's mean over draws of one data set's labels, and its points above another, draw by draw.

    Returns:
        `encoder, fraction, num_labels, mean, sd, difference, low, high, pairs`; seeds of one draw are averaged first,
        the interval is Student's over draws, of the same test images.
    """
    parts = []
    for fraction, part in curves.assign(seed=curves["draw"]).groupby("fraction"):
        table = paired(part, against, of="encoder", column="test").rename(columns={"value": "mean"})
        parts.append(table.assign(fraction=fraction, num_labels=part["num_labels"].mean()))
    return pd.concat(parts, ignore_index=True)
