"""What frozen features hold: which images are near each other, a map of them, and how few labels a probe needs.

What is measured on a run stays in its folder as a table, so that a page can be made from records alone.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from sklearn.decomposition import PCA
from sklearn.manifold import TSNE

from ..config import ProbeConfig, RuntimeConfig
from ..data import Dataset, Split, keep_labels
from ..evaluate import run_features
from ..probe import Features, bootstrap_band, linear_probe, standardisation, weighted_means
from ..runs import Run, run_lock
from ..writing import write_table
from .plan import Row
from .records import count_reads, recorded, require_data, stored
from .tables import figures_of, paired

__all__ = [
    "drawn_queries", "feature_map", "label_curve", "label_curves", "label_summary", "nearest", "neighbours",
    "patient_means", "relevance", "retrieved",
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


def nearest(bank: Features, queries: Features, k: int) -> tuple[NDArray[np.intp], NDArray[np.float64]]:
    """The k rows of the bank of largest cosine to each query, and the cosines: [N, k], none of the query's patient.

    Raises:
        ValueError: a query for which the bank has fewer than k images of other patients.
    """
    keys, rows = (x / np.maximum(np.linalg.norm(x, axis=1, keepdims=True), 1e-12) for x in (bank.x, queries.x))
    found, cosines = [], []
    for part in np.split(np.arange(len(rows)), np.arange(BLOCK, len(rows), BLOCK)):
        cosine = (rows[part] @ keys.T).astype(np.float64)
        if bank.groups is not None and queries.groups is not None:
            cosine[queries.groups[part][:, None] == bank.groups[None, :]] = -np.inf
        order = np.argsort(-cosine, axis=1, kind="stable")[:, :k]
        found.append(order)
        cosines.append(np.take_along_axis(cosine, order, axis=1))
    best = np.concatenate(cosines)
    if best.shape[1] < k or np.isneginf(best).any():
        raise ValueError(f"every query must have {k} images of other patients to find, got fewer: lower k")
    return np.concatenate(found), best


def _labelled(split: Split) -> NDArray[np.intp]:
    return np.flatnonzero(split.labelled.numpy())


def neighbours(run: Run, dataset: Dataset, runtime: RuntimeConfig = RuntimeConfig(), k: int = 5) -> pd.DataFrame:
    """The labelled train images nearest to every labelled test image: `query, near_0, …, similarity_0, …`."""

    def measure() -> pd.DataFrame:
        bank, queries = (run_features(run, n, dataset.splits[n], runtime).labelled() for n in ("train", "test"))
        rows, cosines = nearest(bank, queries, k)
        near = pd.DataFrame(_labelled(dataset.train)[rows]).add_prefix("near_")
        near.insert(0, "query", _labelled(dataset.test))
        return near.join(pd.DataFrame(cosines.round(4)).add_prefix("similarity_"))

    require_data(run, dataset)
    return stored(run, "neighbours", measure)


def relevance(query: NDArray[np.int64], found: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Whether what was found for each query, labels [N, k] or [N, k, L], is of its kind: labels [N] or [N, L].

    That is the same class; with several labels a finding in common, or none in either.
    """
    if query.ndim == 1:
        return query[:, None] == found
    shared = ((query[:, None, :] == 1) & (found == 1)).any(axis=2)
    return shared | ((query == 0).all(axis=1)[:, None] & (found == 0).all(axis=2))


def retrieved(run: Run, dataset: Dataset, runtime: RuntimeConfig = RuntimeConfig()) -> pd.DataFrame:
    """Per test image: `query, group`, whether the `first` of `neighbours` is of its kind, the `precision` of them all,
    and `chance`: the share of all train images that are."""
    table = neighbours(run, dataset, runtime)
    query, train = dataset.test.labels.numpy()[table["query"].to_numpy()], dataset.train.labels.numpy()
    hits = relevance(query, train[table.filter(regex="^near_").to_numpy()])
    kinds, kind = np.unique(query, axis=0, return_inverse=True)
    bank = train[_labelled(dataset.train)][None]
    chance = np.array([relevance(one[None], bank)[0].mean() for one in kinds])
    groups = table["query"] if dataset.test.groups is None else dataset.test.groups[table["query"].to_numpy()]
    first = {"query": table["query"], "group": groups, "first": hits[:, 0].astype(float)}
    return pd.DataFrame(first | {"precision": hits.mean(axis=1), "chance": chance[kind.ravel()]})


def drawn_queries(dataset: Dataset, per_kind: int = 2, seed: int = 0) -> list[int]:
    """Labelled test images drawn by lot, so many of every class; with several labels of those with and without any."""
    rows = _labelled(dataset.test)
    labels = dataset.test.labels.numpy()[rows]
    kinds, rng = labels if labels.ndim == 1 else (labels == 1).any(axis=1), np.random.default_rng(seed)
    return [int(row) for kind in np.unique(kinds)[::-1] for row in rng.permutation(rows[kinds == kind])[:per_kind]]


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
