"""What is measured on a finished run stays in its folder as a table, so that a page can be made from records alone."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import pandas as pd

from ..data import Dataset
from ..runs import Run, run_lock
from ..writing import write_json, write_table
from .plan import Row

__all__ = ["count_reads", "gather", "recorded", "require_data", "stored"]


def recorded(run: Run, name: str) -> pd.DataFrame | None:
    """The table of that name in a run's folder, if it is there."""
    files = (run.path / f"{name}.csv", run.path / f"{name}.csv.gz")
    return next((pd.read_csv(file, dtype={"group": str}) for file in files if file.is_file()), None)


def stored(run: Run, name: str, measure: Callable[[], pd.DataFrame]) -> pd.DataFrame:
    """The table of that name in a run's folder; measured and written, by one process, where it is not there yet."""
    table = recorded(run, name)
    if table is None:
        with run_lock(run, doing="probed"):
            table = measure()
            write_table(run.path / f"{name}.csv", table)
    return table


def require_data(run: Run, dataset: Dataset) -> None:
    """Refuse data that are not the run's, with a ValueError."""
    if dataset.fingerprint != run.record["fingerprint"]:
        raise ValueError(f"dataset must be the one that run {run.id} was trained on, got other images or labels")


def count_reads(run: Run, name: str, looks: int) -> None:
    """Add to how often test was read, in the record."""
    metrics = run.metrics
    write_json(run.path / "metrics.json", {**metrics, name: metrics.get(name, 0) + looks})


def gather(
    rows: Iterable[Row], measure: Callable[..., pd.DataFrame], data: Mapping[str, Dataset], *options: Any, **more: Any
) -> pd.DataFrame:
    """What is measured on the first run of every row, below each other, beginning with `encoder, dataset, seed`.

    A run that has neither the record nor its weights here is left out.

    Args:
        measure: called with the run, its data set and the options.
    """
    tables = []
    for row in rows:
        for run in row.runs[:1]:
            try:
                table = measure(run, data[row.dataset], *options, **more)
            except FileNotFoundError:
                continue
            name = pd.DataFrame({"encoder": row.label, "dataset": row.dataset, "seed": run.record["seed"]}, table.index)
            tables.append(pd.concat([name, table], axis=1))
    return pd.concat(tables, ignore_index=True) if tables else pd.DataFrame(columns=["encoder", "dataset", "seed"])
