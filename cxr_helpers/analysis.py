"""What a report asks of a finished run beyond its record: fewer labels, and a map of its features.

Both are kept in the run's folder as tables, so that a page can be made from records alone.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from sklearn.decomposition import PCA
from sklearn.manifold import TSNE

from .config import ProbeConfig, RuntimeConfig
from .data import Dataset, keep_labels
from .evaluate import run_features
from .probe import Features, linear_probe, standardisation
from .runs import Run, run_lock, write_json, write_table

__all__ = ["feature_map", "label_curve"]

MAP_IMAGES = 1000  # more points hide each other
MAP_COMPONENTS = 50  # van der Maaten & Hinton 2008: PCA to 30-50 dimensions first
MAP_PERPLEXITY = 30.0


def label_curve(
    run: Run,
    dataset: Dataset,
    fractions: Iterable[float],
    draws: int,
    runtime: RuntimeConfig = RuntimeConfig(),
    probe: ProbeConfig = ProbeConfig(),
    *,
    test: bool = False,
) -> pd.DataFrame:
    """The linear probe on parts of the training labels, drawn by class and by whole patients.

    Each draw chooses its own C on its own labels. Draw and fraction name the same labels for every run, so that two
    encoders can be compared draw by draw. Rows found in the run's `label_curve.csv` are not measured again;
    `label_reads` of its record counts the probes that were scored on test, and is written before the rows are.

    Args:
        run: a finished run on all labels of `dataset`.
        fractions: parts of the labels, in (0, 1]; 1 has a single draw.
        draws: draws of each smaller part.
        test: score test too; nothing is chosen on it.
    Returns:
        A row per fraction and draw: `fraction, draw, num_labels, num_patients, c, val` and, if asked for, `test`.
    Raises:
        ValueError: the data are not the run's. FileNotFoundError: rows are missing and so are the weights.
        LockedError: rows are missing and another process trains or probes this run.
    """
    if dataset.fingerprint != run.record["fingerprint"]:
        raise ValueError(f"dataset must be the one that run {run.id} was trained on, got other images or labels")
    file = run.path / "label_curve.csv"
    known = pd.read_csv(file) if file.is_file() else pd.DataFrame()
    columns = ["val", "test"] if test else ["val"]
    if not set(columns) <= set(known):
        known = pd.DataFrame()
    wanted = [(float(f), d) for f in fractions for d in range(draws if f < 1 else 1)]
    there = set(zip(known["fraction"], known["draw"], strict=True)) if len(known) else set()
    missing = [pair for pair in wanted if pair not in there]
    if any(fraction == 1 for fraction, _ in missing):  # the run's own record is that row
        known = pd.concat([known, _recorded(run, dataset, columns)], ignore_index=True)
        missing = [pair for pair in missing if pair not in set(zip(known["fraction"], known["draw"], strict=True))]
    if missing:
        with run_lock(run, doing="probed"):
            features = {name: run_features(run, name, dataset.splits[name], runtime) for name in ("train", *columns)}
            rows = [_one_draw(dataset, features, fraction, draw, probe) for fraction, draw in missing]
            known = pd.concat([known, pd.DataFrame(rows)], ignore_index=True).sort_values(["fraction", "draw"])
            if test:
                counted = run.metrics.get("label_reads", 0) + len(rows)
                write_json(run.path / "metrics.json", {**run.metrics, "label_reads": counted})
            write_table(file, known[known["fraction"] < 1])
    keep = [pair in set(wanted) for pair in zip(known["fraction"], known["draw"], strict=True)]
    return known[keep].reset_index(drop=True)


def _recorded(run: Run, dataset: Dataset, columns: list[str]) -> pd.DataFrame:
    """The row of all labels from the run's metrics, no row where they lack a split."""
    linear, train = run.metrics.get("linear", {}), dataset.train
    if not set(columns) <= set(linear):
        return pd.DataFrame()
    metric = "accuracy" if dataset.task == "multiclass" else "auc"
    labelled = train.labelled.numpy()
    units = int(labelled.sum()) if train.groups is None else len(np.unique(train.groups[labelled]))
    row = {"fraction": 1.0, "draw": 0, "num_labels": int(labelled.sum()), "num_patients": units, "c": linear["c"]}
    return pd.DataFrame([row | {name: linear[name][metric] for name in columns}])


def _one_draw(
    dataset: Dataset, features: dict[str, Features], fraction: float, draw: int, probe: ProbeConfig
) -> dict[str, Any]:
    kept = keep_labels(dataset, fraction, draw).train
    train = Features(features["train"].x, kept.labels.numpy(), kept.groups).labelled()
    units = len(train) if train.groups is None else len(np.unique(train.groups))
    config = replace(probe, folds=max(2, min(probe.folds, units)))
    result = linear_probe(
        train, features["val"], features.get("test"), task=dataset.task, config=config, num_outputs=dataset.num_outputs
    )
    metric = "accuracy" if dataset.task == "multiclass" else "auc"
    values = {name: result.metrics[name][metric] for name in result.metrics}
    return {"fraction": fraction, "draw": draw, "num_labels": len(train), "num_patients": units, "c": result.c} | values


def feature_map(run: Run, dataset: Dataset, runtime: RuntimeConfig = RuntimeConfig(), seed: int = 0) -> pd.DataFrame:
    """Val features in two dimensions by t-SNE (van der Maaten & Hinton 2008), kept in `feature_map.csv`.

    Neighbours are kept together; distances between clusters and their sizes mean nothing.

    Args:
        seed: of the draw of at most 1,000 images and of t-SNE.
    Returns:
        A row per image: `x, y` and `label`: the class, or for multi-label data `finding` or `none`.
    Raises:
        ValueError: the data are not the run's. FileNotFoundError: neither the table nor the weights are there.
    """
    if dataset.fingerprint != run.record["fingerprint"]:
        raise ValueError(f"dataset must be the one that run {run.id} was trained on, got other images or labels")
    file = run.path / "feature_map.csv"
    if file.is_file():
        return pd.read_csv(file)
    features = run_features(run, "val", dataset.val, runtime).labelled()
    rows = np.sort(np.random.default_rng(seed).permutation(len(features))[:MAP_IMAGES])
    chosen = features.take(rows)
    mean, std = standardisation(chosen.x)
    x = (chosen.x - mean) / std
    x = PCA(min(MAP_COMPONENTS, *x.shape), random_state=seed).fit_transform(x)
    perplexity = min(MAP_PERPLEXITY, (len(x) - 1) / 3)
    places = TSNE(perplexity=perplexity, init="pca", random_state=seed).fit_transform(x)
    table = pd.DataFrame({"x": places[:, 0], "y": places[:, 1], "label": _names(dataset, chosen.labels)})
    write_table(file, table)
    return table


def _names(dataset: Dataset, labels: NDArray[np.int64]) -> list[str]:
    if dataset.task == "multilabel":
        return ["finding" if row.any() else "none" for row in labels]
    return [dataset.class_names[int(value)] for value in labels]
