"""Frozen encoders, each read in the way that cross-validation on train chose for it, beside the protocol's own way."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from ..config import RuntimeConfig
from ..data import Dataset
from ..probe import bootstrap_ci, paired_bootstrap
from ..readouts import LAST_STAGE, choose_readout, readout_test_scores, readout_trials
from ..runs import Run
from .comparisons import paired_table
from .tables import Scores, distinct_labels, identity_of, measured, seeds_together, stack_scores, stack_tables

__all__ = ["Reread", "reread"]


@dataclass(frozen=True, eq=False)
class Reread:
    """What was tried and chosen for every encoder, and how the choice scores.

    Attributes:
        trials: one row per run and way: what the run is, and `readouts.readout_trials`. summary: one row per
            configuration, see `reread`. absent: runs with neither a record of trials nor weights here.
    """

    trials: pd.DataFrame
    summary: pd.DataFrame
    absent: tuple[Run, ...]
    members: tuple[tuple[Run, ...], ...]
    scores: Mapping[str, Scores]  # by the first member's name

    def pairs(self, pairs: Sequence[tuple[str, str]], *, num_resamples: int = 2000) -> pd.DataFrame:
        """`paired_table` of these encoders on test, each read in the way chosen for it."""
        runs = [run for members in self.members for run in members]
        return paired_table(runs, pairs, num_resamples=num_resamples, scores=lambda found: self.scores[found[0].id])


def reread(
    runs: Iterable[Run], dataset: Dataset, runtime: RuntimeConfig = RuntimeConfig(), *, num_resamples: int = 2000
) -> Reread:
    """Every way of reading each run, and test scores of the way with the best mean over a configuration's seeds.

    Args:
        runs: frozen encoders that have been scored on test.
    Returns:
        With one row per configuration in `summary`: what it is (`label, family, …`), `seeds, readout, dims`, the
        metric over folds of train and on val, `cv_last, cv, val_last, val`, and on test, with 95 % intervals over
        patients: `test_last, test, low, high, difference, difference_low, difference_high` (chosen minus last stage).
    """
    trials, rows, absent, known, scores = [], [], [], [], {}
    for members in seeds_together(runs).values():
        try:
            tables = [readout_trials(run, dataset, runtime) for run in members]
            chosen = choose_readout(tables)
            stacked = _chosen_scores(members, dataset, chosen, runtime)
        except FileNotFoundError:
            absent += members
            continue
        trials += [table.assign(**identity_of(run)) for run, table in zip(members, tables, strict=True)]
        rows.append(_row(members, pd.concat(tables), chosen, stacked, num_resamples))
        known.append(tuple(members))
        scores[members[0].id] = stacked
    return Reread(
        trials=distinct_labels(pd.concat(trials, ignore_index=True)) if trials else pd.DataFrame(),
        summary=distinct_labels(pd.DataFrame(rows)) if rows else pd.DataFrame(),
        absent=tuple(absent),
        members=tuple(known),
        scores=scores,
    )


def _chosen_scores(members: Sequence[Run], dataset: Dataset, chosen: str, runtime: RuntimeConfig) -> Scores:
    """Test is read again only for a way that is not the one already recorded."""
    if chosen == LAST_STAGE:
        return stack_scores(members, "test")
    return stack_tables(members, [readout_test_scores(run, dataset, chosen, runtime) for run in members], "test")


def _row(
    members: Sequence[Run], trials: pd.DataFrame, chosen: str, scores: Scores, num_resamples: int
) -> dict[str, Any]:
    last = stack_scores(members, "test")
    _, metric, _ = measured(members[0])
    options: dict[str, Any] = {"metric": metric, "num_resamples": num_resamples}
    interval = bootstrap_ci(scores.labels, scores.stack, scores.groups, **options)
    paired = paired_bootstrap(last.labels, scores.stack, last.stack, last.groups, **options)  # the same encoders
    means = trials.groupby("readout")[["cv", "val", "dims"]].mean()
    row = identity_of(members[0])
    del row["seed"]
    row |= {"metric": metric, "seeds": tuple(run.record["seed"] for run in members), "readout": chosen}
    row |= {"dims": int(means.dims[chosen])}
    for split in ("cv", "val"):
        row |= {f"{split}_last": means[split][LAST_STAGE], split: means[split][chosen]}
    row |= {"test_last": paired.estimate_b, "test": interval.estimate, "low": interval.low, "high": interval.high}
    row |= {"difference": paired.difference, "difference_low": paired.low, "difference_high": paired.high}
    return row | {"images": interval.num_images, "patients": interval.num_groups}
