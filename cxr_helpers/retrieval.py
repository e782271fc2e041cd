"""Nearest neighbours in feature space: which training images an encoder finds like a test image, and how well."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from .config import RuntimeConfig
from .data import Dataset, Split
from .evaluate import run_features
from .probe import Features
from .runs import Run, write_table

__all__ = ["NEIGHBOURS", "drawn_queries", "found_rows", "nearest", "neighbours", "relevance", "relevance_table"]

NEIGHBOURS = 5  # of a query: what a row of a figure can show
_BLOCK = 1024  # queries at once


def nearest(bank: Features, queries: Features, k: int = NEIGHBOURS) -> tuple[NDArray[np.intp], NDArray[np.float64]]:
    """The k rows of the bank of largest cosine similarity to each query, none of the query's own patient.

    Args:
        bank, queries: features; patients are left out of each other's results where both name them.
    Returns:
        Rows of the bank [N, k], most similar first, and their similarities.
    Raises:
        ValueError: a query for which the bank has fewer than k images of other patients.
    """
    keys, rows = (x / np.maximum(np.linalg.norm(x, axis=1, keepdims=True), 1e-12) for x in (bank.x, queries.x))
    found, similarities = [], []
    for start in range(0, len(rows), _BLOCK):
        part = slice(start, start + _BLOCK)
        similarity = (rows[part] @ keys.T).astype(np.float64)
        if bank.groups is not None and queries.groups is not None:
            similarity[queries.groups[part][:, None] == bank.groups[None, :]] = -np.inf
        order = np.argsort(-similarity, axis=1, kind="stable")[:, :k]
        best = np.take_along_axis(similarity, order, axis=1)
        if best.shape[1] < k or np.isneginf(best).any():
            raise ValueError(f"every query must have {k} images of other patients to find, got fewer: lower k")
        found.append(order)
        similarities.append(best)
    return np.concatenate(found), np.concatenate(similarities)


def relevance(query: NDArray[np.int64], found: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Whether a found image is of the query's kind.

    Args:
        query: labels of the queries [N], or [N, L] with several labels.
        found: labels of what was found for each [N, k], or [N, k, L].
    Returns:
        [N, k]: the same class; with several labels at least one finding in common, or none in either.
    """
    if query.ndim == 1:
        return query[:, None] == found
    shared = ((query[:, None, :] == 1) & (found == 1)).any(axis=2)
    return shared | ((query == 0).all(axis=1)[:, None] & (found == 0).all(axis=2))


def _labelled(split: Split) -> NDArray[np.intp]:
    return split.labelled.nonzero().flatten().numpy()


def neighbours(
    run: Run, dataset: Dataset, runtime: RuntimeConfig = RuntimeConfig(), k: int = NEIGHBOURS
) -> pd.DataFrame:
    """The k nearest labelled train images of every labelled test image under the run's backbone.

    Kept in the run's `neighbours.csv`, for one k.

    Returns:
        A row per test image: `query` (row of test), `near_0` to `near_{k-1}` (rows of train), `similarity_0`, …
    Raises:
        FileNotFoundError: neither the table nor the weights are there. ValueError: other data than the run's.
    """
    if dataset.fingerprint != run.record["fingerprint"]:
        raise ValueError(f"dataset must be the one that run {run.id} was trained on, got other images or labels")
    file = run.path / "neighbours.csv"
    if file.is_file():
        return pd.read_csv(file)
    bank, queries = (run_features(run, name, dataset.splits[name], runtime).labelled() for name in ("train", "test"))
    found, similarity = nearest(bank, queries, k)
    rows = _labelled(dataset.train)[found]
    columns: dict[str, Any] = {f"near_{i}": rows[:, i] for i in range(k)}
    columns |= {f"similarity_{i}": similarity[:, i].round(4) for i in range(k)}
    table = pd.DataFrame({"query": _labelled(dataset.test), **columns})
    write_table(file, table)
    return table


def drawn_queries(dataset: Dataset, per_kind: int = 2, seed: int = 0) -> list[int]:
    """Labelled test images drawn by lot, so many of every class; with several labels of those with and without any."""
    rows = _labelled(dataset.test)
    labels = dataset.test.labels.numpy()[rows]
    kinds = labels if labels.ndim == 1 else (labels == 1).any(axis=1).astype(np.int64)
    rng = np.random.default_rng(seed)
    return [int(row) for kind in np.unique(kinds)[::-1] for row in rng.permutation(rows[kinds == kind])[:per_kind]]


def found_rows(table: pd.DataFrame) -> NDArray[np.int64]:
    """`neighbours`' rows of train [N, k]."""
    return table[[c for c in table if str(c).startswith("near_")]].to_numpy()


def relevance_table(table: pd.DataFrame, dataset: Dataset) -> pd.DataFrame:
    """Per query: its patient, the share of its k found images that are of its kind, and of all it could have found.

    Args:
        table: `neighbours`' rows on this data set.
    Returns:
        `query, group, first` (the nearest is of its kind), `precision` (of the k), `chance` (of a random train image).
    """
    query, train = dataset.test.labels.numpy()[table["query"].to_numpy()], dataset.train.labels.numpy()
    hits = relevance(query, train[found_rows(table)])
    kinds, inverse = np.unique(query.reshape(len(query), -1), axis=0, return_inverse=True)
    bank: Any = train[_labelled(dataset.train)]
    kind = kinds[:, 0] if query.ndim == 1 else kinds
    by_kind = np.array([relevance(one[None], bank[None])[0].mean() for one in kind])
    groups = (
        table["query"].to_numpy() if dataset.test.groups is None else dataset.test.groups[table["query"].to_numpy()]
    )
    return pd.DataFrame(
        {
            "query": table["query"],
            "group": groups,
            "first": hits[:, 0].astype(float),
            "precision": hits.mean(axis=1),
            "chance": by_kind[inverse.ravel()],
        }
    )
