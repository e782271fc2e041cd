"""Runs into tables: one row per run, one per configuration; for pairs of configurations see `comparisons`.

Runs are grouped by the whole record except the seed (and by how they were probed), so runs of another data set, size,
length, policy or weights can never share a row. Every row says of which data (`content`) and commit it is; what joins
rows without saying so (a sentence, a curve, a pair) takes one data set at one size with one content.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from ..probe import bootstrap_ci, mean_and_sd
from ..runs import Run, read_json
from .claims import PAGE, content_of, require_own_record
from .lineage import commit_text, configuration, dataset_name, family_of, run_label

__all__ = [
    "collect_runs",
    "history_table",
    "joined",
    "probe_curve_table",
    "resampled_unit",
    "runs_table",
    "stack_scores",
    "summary_table",
    "unit_of",
]


def collect_runs(results_root: str | Path) -> list[Run]:
    """The finished and probed runs of a results folder, by name.

    Raises:
        ValueError: a folder holds another record than the one it is named after.
    """
    folders = sorted((Path(results_root) / "runs").glob("*/config.json"))
    runs = [Run(path=file.parent, record=read_json(file)) for file in folders]
    finished = [run for run in runs if run.finished and "linear" in run.metrics]
    for run in finished:
        require_own_record(run)
    return finished


def identity_of(run: Run) -> dict[str, Any]:
    """What every row about a run says first: data, size, name, family, seed and the digest of its configuration."""
    record, environment = run.record, run.environment
    PAGE.require_data(run)
    return {
        "dataset": record["dataset"],
        "data": dataset_name(record["dataset"], environment.get("data", {}).get("notes", [])),
        "size": record["size"],
        "content": content_of(record["fingerprint"]),
        "commit": commit_text(environment),
        "label": run_label(run),
        "family": family_of(record),
        "seed": record["seed"],
        "configuration": configuration(run),
    }


def distinct_labels(table: pd.DataFrame) -> pd.DataFrame:
    """Different configurations under one name get their digest behind it, so that no figure joins them."""
    count = table.groupby(["dataset", "size", "label"])["configuration"].transform("nunique")
    same = count > 1
    table.loc[same, "label"] += " [" + table.loc[same, "configuration"].str[:4] + "]"
    return table


# ---- curves


def history_table(runs: Iterable[Run]) -> pd.DataFrame:
    """Every epoch of every run that was trained, with what the run is called."""
    return _stacked((run, run.history) for run in runs)


def probe_curve_table(runs: Iterable[Run]) -> pd.DataFrame:
    """Every epoch of the SGD probe of every probed run."""
    files = ((run, run.path / "probe_curve.csv") for run in runs)
    return _stacked((run, pd.read_csv(file)) for run, file in files if file.is_file())


def _stacked(parts: Iterable[tuple[Run, pd.DataFrame]]) -> pd.DataFrame:
    tables = [
        table.assign(**identity_of(run), batch_size=run.record["batch_size"]) for run, table in parts if len(table)
    ]
    return distinct_labels(pd.concat(tables, ignore_index=True)) if tables else pd.DataFrame()


def joined(*tables: pd.DataFrame) -> pd.DataFrame:
    """Tables below each other, those without rows left out."""
    filled = [table for table in tables if len(table)]
    return pd.concat(filled, ignore_index=True) if filled else tables[0]


def rows_of(table: pd.DataFrame) -> list[Any]:
    """The rows as named tuples, with the types that the columns have, not those that pandas' stubs allow."""
    return list(table.itertuples())


# ---- one row per run


def measured(run: Run) -> tuple[str, str, dict[str, Any]]:
    """(protocol, metric, values by split): the trained head's where there is one, else the linear probe's."""
    metrics = run.metrics
    if metrics.get("run", run.id) != run.id:
        raise ValueError(f"metrics of run {run.id} must be its own, got those of {metrics['run']}: probe it again")
    head = "head" in metrics
    values = metrics["head"] if head else metrics["linear"]
    splits = {name: values[name] for name in ("val", "test") if name in values}
    metric = "accuracy" if "accuracy_low" in splits["val"] else "auc"
    return "trained head" if head else "linear probe", metric, splits


_OF_RECORD = ("method", "policy", "init", "epochs", "label_fraction")


def runs_table(runs: Iterable[Run]) -> pd.DataFrame:
    """One row per finished run: what it is, what its probes measured with 95 % intervals, and where from."""
    rows = []
    for run in runs:
        protocol, metric, splits = measured(run)
        environment, record = run.environment, run.record
        row = {**identity_of(run), **{k: record[k] for k in _OF_RECORD}}
        row |= {"protocol": protocol, "metric": metric}
        for split, values in splits.items():
            row |= {split: values[metric], f"{split}_low": values[f"{metric}_low"]}
            row |= {f"{split}_high": values[f"{metric}_high"], f"{split}_knn": run.metrics["knn"][split][metric]}
        row |= {"linear_c": run.metrics["linear"]["c"], "test_reads": run.metrics.get("test_reads", 0)}
        row |= {"device": environment.get("device_name"), "run_id": run.id}
        rows.append(row | {"minutes": environment.get("seconds", 0) / 60, "command": environment.get("command")})
    return distinct_labels(pd.DataFrame(rows)) if rows else pd.DataFrame()


# ---- one row per configuration


SAME_FIGURE = 5e-4  # half of the last digit shown: predictions are kept with seven digits


@dataclass(frozen=True, eq=False)
class Scores:
    """Predictions of one configuration on one split, stacked over seeds."""

    labels: NDArray[np.int64]
    groups: NDArray[Any]
    stack: NDArray[np.float64]  # [S, N, ...]


def stack_scores(runs: Sequence[Run], split: str) -> Scores:
    """Predictions of seeds of one configuration on `val` or `test`, from their records alone."""
    return stack_tables(runs, [run.predictions(split) for run in runs], split)


def stack_tables(runs: Sequence[Run], tables: Sequence[pd.DataFrame], split: str) -> Scores:
    """Tables like `Run.predictions` has them, one per run, of the same images."""
    parts = [_arrays(table) for table in tables]
    labels, groups = parts[0][0], tables[0]["group"].to_numpy()
    for run, (other, _), table in zip(runs, parts, tables, strict=True):
        if not (np.array_equal(other, labels) and np.array_equal(table["group"], groups)):
            raise ValueError(f"predictions of {run.id} must be of the {split} images of {runs[0].id}, got others")
    return Scores(labels, groups, np.stack([scores for _, scores in parts]))


def _arrays(table: pd.DataFrame) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    label_columns = [c for c in table if c == "label" or str(c).startswith("label/")]
    score_columns = [c for c in table if str(c).startswith("score/")]
    labels, scores = table[label_columns].to_numpy(), table[score_columns].to_numpy(dtype=np.float64)
    return labels[:, 0] if label_columns == ["label"] else labels, scores[:, 0] if scores.shape[1] == 1 else scores


def seeds_together(runs: Iterable[Run]) -> dict[str, list[Run]]:
    """Runs by configuration, by seed within it; a seed that is there twice counts once."""
    groups: dict[str, dict[int, Run]] = {}
    for run in runs:
        groups.setdefault(configuration(run), {})[run.record["seed"]] = run
    return {key: [found[seed] for seed in sorted(found)] for key, found in groups.items()}


def summary_table(runs: Iterable[Run], *, num_resamples: int = 2000) -> pd.DataFrame:
    """One row per configuration: seeds, mean and sd over them, and the patient-clustered interval of their mean.

    The sd is of training (seeds), the interval is of the test patients; neither contains the other.
    """
    rows = []
    for members in seeds_together(runs).values():
        table = runs_table(members)
        first = table.iloc[0]
        row: dict[str, Any] = {**identity_of(members[0]), "seeds": tuple(table.seed), "num_seeds": len(table)}
        del row["seed"], row["commit"]
        row |= {k: first[k] for k in (*_OF_RECORD, "protocol", "metric")}
        for split in ("val", "test"):
            if all("test" in run.metrics["linear"] for run in members) or split == "val":
                row |= _summarised(members, table, split, first["metric"], num_resamples)
        row |= {"devices": _joined(table.device), "commits": _joined(table.commit)}
        rows.append(row)
    return distinct_labels(pd.DataFrame(rows)) if rows else pd.DataFrame()


def _summarised(
    members: Sequence[Run], table: pd.DataFrame, split: str, metric: str, num_resamples: int
) -> dict[str, Any]:
    mean, sd = mean_and_sd(table[split])
    scores = stack_scores(members, split)
    interval = bootstrap_ci(scores.labels, scores.stack, scores.groups, metric=metric, num_resamples=num_resamples)
    if abs(interval.estimate - mean) > SAME_FIGURE:
        names = ", ".join(run.id for run in members)
        raise ValueError(
            f"metrics and predictions of {names} must agree, got {split} {metric} {mean:.4f} and "
            f"{interval.estimate:.4f}: probe the run again"
        )
    row: dict[str, Any] = {
        "mean": mean,
        "sd": sd,
        "low": interval.low,
        "high": interval.high,
        "knn": table[f"{split}_knn"].mean(),
    }
    row |= {"images": interval.num_images, "patients": interval.num_groups, "by_seed": tuple(table[split])}
    return {f"{split}_{key}": value for key, value in row.items()}


def unit_of(images: float, patients: float) -> str:
    """What an interval over a split resamples: `patients`, or `images` where each is its own, for none are known."""
    return "images" if images == patients else "patients"


def resampled_unit(summary: pd.DataFrame) -> str:
    """`unit_of` all rows of `summary_table` together: there are never more patients than images."""
    return unit_of(summary["test_images"].sum(), summary["test_patients"].sum())


def _joined(values: pd.Series) -> str:
    return ", ".join(dict.fromkeys(values.astype(str)))
