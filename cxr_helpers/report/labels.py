"""How many labels an encoder saves: curves over parts of the labels, compared draw by draw."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd

from ..analysis import label_curve
from ..config import RuntimeConfig
from ..data import Dataset
from ..plans import MAX_STRETCH, plan_label_curve
from ..profiles import Profile
from ..runs import Run
from .choice import paired_interval
from .claims import PAGE, content_of, one_data_set
from .lineage import commit_text, dataset_name, family_of, label_of, run_label
from .tables import rows_of, runs_table
from .work import run_plan

__all__ = ["FewLabels", "few_labels", "label_curves", "label_summary"]


COLUMNS = [
    *("dataset", "data", "size", "content", "commit", "label", "family", "seed", "fraction", "draw", "num_labels"),
    *("val", "test"),
]


@dataclass(frozen=True, kw_only=True)
class FewLabels:
    """What encoders and supervised training reach with parts of the labels.

    Attributes:
        curves: see `label_curves`. missing: rows of the work list, supervised runs that are still to be trained.
        absent: encoders that could not be probed, for neither the rows nor the weights are here.
    """

    curves: pd.DataFrame
    missing: pd.DataFrame
    absent: tuple[Run, ...]

    def of(self, dataset: str) -> pd.DataFrame:
        """`label_summary` of one data set."""
        return label_summary(self.curves[self.curves["dataset"] == dataset])


def few_labels(
    profile: Profile,
    runs: Iterable[Run],
    datasets: Mapping[str, Dataset],
    runtime: RuntimeConfig,
    *,
    train_missing: bool = True,
) -> FewLabels:
    """Probe every frozen encoder on the profile's parts of the labels; train supervised from scratch on the same.

    Args:
        runs: finished, scored on test. Those of the profile's methods are probed; supervised ones from scratch are
            the comparison at all labels.
        train_missing: False leaves out supervised runs that are not finished.
    """
    runs = list(runs)
    frozen = [run for run in runs if run.record["method"] in profile.methods]
    curves, absent = [], []
    for run in frozen:
        asked = (profile.label_fractions, profile.label_draws, runtime)
        try:
            curves.append((run, label_curve(run, datasets[run.record["dataset"]], *asked, test=True)))
        except FileNotFoundError:  # trained elsewhere
            absent.append(run)
    seldom = replace(runtime, measure_every=MAX_STRETCH)  # few labels mean short epochs: val is seen as often in all
    fewer = run_plan(plan_label_curve(profile, datasets), datasets, seldom, train_missing=train_missing)
    supervised = [run for run in (*runs, *fewer.runs) if run.record["init"] == "random" and run not in frozen]
    return FewLabels(curves=label_curves(curves, supervised), missing=fewer.missing, absent=tuple(absent))


def label_curves(frozen: Iterable[tuple[Run, pd.DataFrame]], supervised: Iterable[Run]) -> pd.DataFrame:
    """One row per encoder, seed, fraction and draw.

    Args:
        frozen: runs with what `analysis.label_curve` measured on them.
        supervised: runs trained on the labels, wholly or in part; the seed of a part is its draw.
    Returns:
        `dataset, data, size, content, commit, label, family, seed, fraction, draw, num_labels, val, test`.
    """
    tables = []
    for run, curve in frozen:
        record, environment = run.record, run.environment
        PAGE.require_data(run)
        data = dataset_name(record["dataset"], environment.get("data", {}).get("notes", []))
        identity = {"dataset": record["dataset"], "data": data, "size": record["size"], "label": run_label(run)}
        identity |= {"content": content_of(record["fingerprint"]), "commit": commit_text(environment)}
        tables.append(curve.assign(**identity, family=family_of(record), seed=record["seed"]))
    known = pd.concat(tables, ignore_index=True) if tables else pd.DataFrame(columns=COLUMNS)
    counts = known.groupby(["dataset", "size", "content", "fraction", "draw"])["num_labels"].first()
    rows = []
    for run in supervised:
        measured, fraction = runs_table([run]).iloc[0], float(run.record["label_fraction"])
        draw = int(run.record["seed"]) if fraction < 1 else 0
        keys = ("dataset", "data", "size", "content", "commit", "seed", "val", "test")
        row = {key: measured[key] for key in keys if key in measured}
        whole = {**run.record, "label_fraction": 1.0}
        row |= {"label": label_of(whole, run.path.parent), "family": family_of(run.record), "fraction": fraction}
        same = (*(row[key] for key in ("dataset", "size", "content")), fraction, draw)
        rows.append(row | {"draw": draw, "num_labels": counts.get(same, np.nan)})
    parts = [part for part in (known, pd.DataFrame(rows)) if len(part)]
    return pd.concat(parts, ignore_index=True) if parts else known


def label_summary(curves: pd.DataFrame, reference: str = "Supervised", column: str = "test") -> pd.DataFrame:
    """One row per encoder and fraction: mean and sd over draws, and the difference to the reference draw by draw.

    Seeds of one draw are averaged first: they share its labels. The interval is Student's over draws, of the same test
    images; it says how the draw of labels matters, not the draw of patients.
    """
    by_draw = (
        one_data_set(curves).groupby(["label", "family", "fraction", "draw"], sort=False)[[column, "num_labels"]].mean()
    )
    by_draw = by_draw.reset_index()
    rows = []
    for (label, family, fraction), group in by_draw.groupby(["label", "family", "fraction"], sort=False):
        values = group.set_index("draw")[column]
        row = {"label": label, "family": family, "fraction": fraction, "num_labels": group["num_labels"].mean()}
        row |= {"draws": len(values), "mean": values.mean(), "sd": values.std(ddof=1) if len(values) > 1 else np.nan}
        same = (by_draw["label"] == reference) & (by_draw["fraction"] == fraction)
        other = by_draw[same].set_index("draw")[column]
        common = values.index.intersection(other.index)
        if label != reference and len(common):
            difference, low, high = paired_interval((values[common] - other[common]).to_numpy())
            row |= {"difference": difference, "low": low, "high": high, "common_draws": len(common)}
        rows.append(row)
    order = ["fraction", "mean"]
    table = pd.DataFrame(rows)
    return table.sort_values(order, ascending=[True, False], ignore_index=True) if len(table) else table


def crossing(summary: pd.DataFrame) -> list[str]:
    """For each encoder, at which fractions its interval against the reference excludes 0, in words."""
    lines = []
    for row in rows_of(summary[summary.get("difference", pd.Series(dtype=float)).notna()]) if len(summary) else []:
        if np.isfinite(row.low) and (row.low > 0 or row.high < 0):
            side = "ahead of" if row.low > 0 else "behind"
            lines.append(f"{row.label} is {side} supervised training at {100 * row.fraction:g} % of the labels")
    return lines
