"""Where encoders look and what they find alike: measured where a run's weights or its record are, then summed up.

A run without either is listed, not trained again: a page can be made wherever the records are.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from ..attribution import explained_images
from ..config import RuntimeConfig
from ..data import Dataset
from ..localisation import films_with_masks, localisation
from ..probe import Band, bootstrap_band, weighted_means
from ..retrieval import neighbours, relevance_table
from ..rivals.measure import controls, correlations
from ..runs import Run
from .lineage import family_of, run_label
from .tables import distinct_labels, identity_of

__all__ = [
    "Found",
    "beside_floor",
    "challenge",
    "control_summary",
    "correlate",
    "explain",
    "localisation_summary",
    "localise",
    "retrieval_summary",
    "retrieve",
]

MEASURED = ("hit", "hit_special", "iou", "iou_special")  # the others are what they compare to
SCORES = (*MEASURED, "hit_random", "hit_usual", "iou_random", "iou_usual", "iou_best")


@dataclass(frozen=True, eq=False)
class Found:
    """What was measured on each run, and the runs that have neither that record nor weights here."""

    parts: tuple[tuple[Run, pd.DataFrame], ...]
    absent: tuple[Run, ...]

    def __bool__(self) -> bool:
        return bool(self.parts)

    @property
    def tables(self) -> dict[str, pd.DataFrame]:
        """The tables by the encoders' names."""
        return {run_label(run): table for run, table in self.parts}

    @property
    def beside_random(self) -> dict[str, pd.DataFrame]:
        """The tables of `beside_floor`: what a figure has room for."""
        tables = {run.id: table for run, table in self.parts}
        return {run_label(run): tables[run.id] for run in beside_floor([run for run, _ in self.parts])}


def beside_floor(runs: Iterable[Run]) -> list[Run]:
    """The first encoder that is not an untrained one, and the first untrained one: what learning has to exceed."""
    runs = list(runs)
    first = (next((r for r in runs if (family_of(r.record) == "random") == wanted), None) for wanted in (False, True))
    return [run for run in first if run is not None]


def _gather(runs: Iterable[Run], measure: Callable[[Run], pd.DataFrame]) -> Found:
    parts: list[tuple[Run, pd.DataFrame]] = []
    absent: list[Run] = []
    for run in runs:
        try:
            parts.append((run, measure(run)))
        except FileNotFoundError:
            absent.append(run)
    return Found(tuple(parts), tuple(absent))


def explain(runs: Iterable[Run], dataset: Dataset, runtime: RuntimeConfig = RuntimeConfig()) -> Found:
    """`attribution.explained_images` of every run."""
    return _gather(runs, lambda run: explained_images(run, dataset, runtime))


def retrieve(runs: Iterable[Run], dataset: Dataset, runtime: RuntimeConfig = RuntimeConfig()) -> Found:
    """`retrieval.neighbours` of every run."""
    return _gather(runs, lambda run: neighbours(run, dataset, runtime))


def localise(runs: Iterable[Run], dataset: Dataset, runtime: RuntimeConfig = RuntimeConfig()) -> Found:
    """`attribution.localisation` of every run, on the data set's own masks or on drawn films of its task."""
    runs = list(runs)
    recorded = all((run.path / "localisation.csv").is_file() for run in runs)
    films = dataset if recorded else films_with_masks(dataset)  # drawing films takes seconds
    return Found((), ()) if films is None else _gather(runs, lambda run: localisation(run, dataset, films, runtime))


def challenge(runs: Iterable[Run], dataset: Dataset, runtime: RuntimeConfig = RuntimeConfig()) -> Found:
    """`rivals.controls` of every run."""
    return _gather(runs, lambda run: controls(run, dataset, runtime))


def correlate(runs: Iterable[Run], dataset: Dataset, runtime: RuntimeConfig = RuntimeConfig()) -> Found:
    """`rivals.correlations` of every run."""
    return _gather(runs, lambda run: correlations(run, dataset, runtime))


# ---- sums


def _means(table: pd.DataFrame, columns: Sequence[str], num_resamples: int = 2000) -> Band:
    """Mean of every column with its interval over patients."""
    values = table[list(columns)].to_numpy(dtype=np.float64)
    zeros = np.zeros(values.shape, dtype=np.int64)
    return bootstrap_band(zeros, values, table["group"], curve=weighted_means, num_resamples=num_resamples)


def localisation_summary(found: Found) -> pd.DataFrame:
    """One row per encoder and stage: pointing game and IoU with 95 % intervals over patients, and what they compare to.

    Returns:
        `label, family, films, stage, cells, findings, called, patients` and the mean scores, those of maps with `_low`
        and `_high`; `hit_called`, `hit_missed`: `hit_special` of findings that the probe called and of the others.
    """
    rows = []
    for run, table in found.parts:
        for (films, stage, cells), part in table.groupby(["films", "stage", "cells"], sort=False):
            band = _means(part, SCORES)
            row = {**identity_of(run), "films": films, "stage": stage, "cells": cells, "findings": len(part)}
            row |= {"patients": part["group"].nunique(), "called": int(part["called"].sum())}
            for i, name in enumerate(SCORES):
                row[name] = band.estimate[i]
                if name in MEASURED:
                    row |= {f"{name}_low": band.low[i], f"{name}_high": band.high[i]}
            hits = {called: members["hit_special"].mean() for called, members in part.groupby("called")}
            rows.append(row | {"hit_called": hits.get(True, np.nan), "hit_missed": hits.get(False, np.nan)})
    return pd.DataFrame(rows)


def retrieval_summary(found: Found, dataset: Dataset) -> pd.DataFrame:
    """One row per encoder: precision of the first and of the k nearest, with intervals over the queries' patients.

    Returns:
        `label, family, k, queries, patients, first, precision`, each with `_low` and `_high`, and `chance`.
    """
    rows = []
    for run, table in found.parts:
        measured = relevance_table(table, dataset)
        band = _means(measured, ("first", "precision", "chance"))
        row = {**identity_of(run), "k": sum(str(c).startswith("near_") for c in table), "queries": len(measured)}
        row |= {"patients": measured["group"].nunique(), "chance": band.estimate[2]}
        for i, name in enumerate(("first", "precision")):
            row |= {name: band.estimate[i], f"{name}_low": band.low[i], f"{name}_high": band.high[i]}
        rows.append(row)
    return pd.DataFrame(rows)


def control_summary(found: Found) -> pd.DataFrame:
    """`rivals.controls` (or `correlations`) of every run below each other: one row per run and control.

    Returns:
        What the run is (`label, family, seed, …`), `name` (its label, with the seed where several have it), the rows
        of its table, and `control_reads`: how often controls have read test with it.
    """
    tables = [
        part.assign(**identity_of(run), control_reads=run.metrics.get("control_reads", 0)) for run, part in found.parts
    ]
    if not tables:
        return pd.DataFrame()
    table = distinct_labels(pd.concat(tables, ignore_index=True))
    several = table.groupby("label")["seed"].transform("nunique") > 1
    table["name"] = table["label"] + np.where(several, ", seed " + table["seed"].astype(str), "")
    first = [*identity_of(found.parts[0][0]), "name"]
    return table[[*first, *(column for column in table if column not in first)]]
