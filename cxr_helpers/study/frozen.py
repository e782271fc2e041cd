"""What is measured on a frozen run stays in its folder, so that pages need records alone; how few labels it needs."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from typing import Any

import numpy as np
import pandas as pd

from ..config import ProbeConfig, RuntimeConfig
from ..data import Dataset, keep_labels
from ..evaluate import run_features
from ..probe import Features, linear_probe
from ..runs import Run, run_lock
from ..writing import write_json, write_table
from .plan import Row
from .scores import figures_of
from .tables import paired

__all__ = ["gather", "label_curve", "label_curves", "label_summary", "record_reads", "recorded", "require_data"]


def recorded(run: Run, name: str) -> pd.DataFrame | None:
    """The table of that name in a run's folder, if it is there."""
    file = run.path / f"{name}.csv"
    return pd.read_csv(file) if file.is_file() else None


def record_reads(run: Run, name: str, table: pd.DataFrame, counter: str, looks: int) -> None:
    """Add to how often test was read in the run's record, then write the table that these looks made."""
    write_json(run.path / "metrics.json", run.metrics | {counter: run.metrics.get(counter, 0) + looks})
    write_table(run.path / f"{name}.csv", table)


def require_data(run: Run, dataset: Dataset) -> None:
    """Refuse data that are not the run's, with a ValueError."""
    if dataset.fingerprint != run.record["fingerprint"]:
        raise ValueError(f"dataset must be the one that run {run.id} was trained on, got other images or labels")


def gather(
    rows: Iterable[Row], measure: Callable[..., pd.DataFrame], data: Mapping[str, Dataset], *options: Any
) -> pd.DataFrame:
    """What is measured on the first run of every row, below each other, with `encoder, dataset, seed`.

    Args:
        measure: called with the run, its data set and the options; FileNotFoundError of it leaves the run out.
    """
    tables = []
    for row in rows:
        for run in row.runs[:1]:
            with suppress(FileNotFoundError):
                table = measure(run, data[row.dataset], *options)
                tables.append(table.assign(encoder=row.label, dataset=row.dataset, seed=run.record["seed"]))
    return pd.concat(tables, ignore_index=True) if tables else pd.DataFrame(columns=["encoder", "dataset", "seed"])


def label_curve(
    run: Run, dataset: Dataset, fractions: Iterable[float], runtime: RuntimeConfig = RuntimeConfig(), draws: int = 5
) -> pd.DataFrame:
    """The linear probe on draws of parts of the training labels, the same for every run, scored on test.

    Rows that the run's folder has are not measured again; `label_reads` of its record counts the others.

    Args:
        fractions: parts of the labels, above 0 and below 1, drawn by class and whole patients. draws: of each part.
    Returns:
        `fraction, draw, num_labels, num_patients, c` (chosen on these labels), `val, test`.
    """
    require_data(run, dataset)
    known = recorded(run, "label_curve")
    there = set() if known is None else set(zip(known["fraction"], known["draw"], strict=True))
    wanted = [(float(fraction), draw) for fraction in fractions for draw in range(draws)]
    if asked := [pair for pair in wanted if pair not in there]:
        with run_lock(run, doing="probed"):
            features = {name: run_features(run, name, split, runtime) for name, split in dataset.splits.items()}
            rows = pd.DataFrame([_one_draw(dataset, features, *pair) for pair in asked])
            known = pd.concat([known, rows], ignore_index=True).sort_values(["fraction", "draw"])
            record_reads(run, "label_curve", known, "label_reads", len(rows))
    assert known is not None
    return known[[pair in wanted for pair in zip(known["fraction"], known["draw"], strict=True)]]


def _one_draw(dataset: Dataset, features: Mapping[str, Features], fraction: float, draw: int) -> dict[str, Any]:
    kept = keep_labels(dataset, fraction, draw).train
    train = Features(features["train"].x, kept.labels.numpy(), kept.groups).labelled()
    units = len(train) if train.groups is None else len(np.unique(train.groups))
    config = ProbeConfig(folds=max(2, min(ProbeConfig.folds, units)))
    about: dict[str, Any] = {"task": dataset.task, "num_outputs": dataset.num_outputs, "config": config}
    found = linear_probe(train, features["val"], features["test"], **about)
    metric = "accuracy" if dataset.task == "multiclass" else "auc"
    line = {"fraction": fraction, "draw": draw, "num_labels": len(train), "num_patients": units, "c": found.c}
    return line | {name: values[metric] for name, values in found.metrics.items()}


def label_curves(
    rows: Iterable[Row], data: Mapping[str, Dataset], fractions: Sequence[float],
    runtime: RuntimeConfig = RuntimeConfig(), draws: int = 5,
) -> pd.DataFrame:  # fmt: skip
    """`label_curve` of every frozen run that can be read here, and what every run reached on the labels it was given.

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
        if protocol == "frozen":
            with suppress(FileNotFoundError):
                tables.append(label_curve(run, dataset, fractions, runtime, draws))
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
