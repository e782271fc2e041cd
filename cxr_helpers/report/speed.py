"""The README's speed section, written from the tables under `results/benchmarks`, losses included."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd

from ..runs import read_json
from .report import to_markdown
from .tables import rows_of

__all__ = ["speed_section"]

DEVICES = ("cuda", "cpu")
TABLES = {"throughput": "Beside its peers", "trials": "Variations of the step", "scale": "With the size of a study"}


def speed_section(results: Path) -> str:
    """Markdown of the throughput, trials and memory tables of a results folder; a device never measured is named."""
    parts = []
    for device in DEVICES:
        found = [part for name in TABLES if (part := _timed(results / "benchmarks", name, device))]
        parts += found or [f"On {device.upper()}: not measured.\n"]
    memory = results / "benchmarks" / "memory.csv"
    if memory.is_file():
        parts.append(_memory(pd.read_csv(memory)))
    return "\n".join(parts)


def _timed(folder: Path, name: str, device: str) -> str:
    file = folder / f"{name}-{device}.csv"
    if not file.is_file():
        return ""
    machine = read_json(file.with_suffix(".json"))
    parts = []
    table = pd.read_csv(file, keep_default_na=False, na_values=[""])
    if "block" not in table:
        table["block"] = [
            f"{size} px, batches of {batch}" for size, batch in zip(table["size"], table.batch, strict=True)
        ]
    for (what, block), rows in table.groupby(["what", "block"], sort=False):
        lines = [
            {
                "": row.contender,
                f"{what} (median of {int(rows.rounds.max())}, range)": _rate(row),
                "first row / it": "" if pd.isna(row.ours_over_it) else f"{row.ours_over_it:.2f}",
            }
            for row in rows_of(rows)
        ]
        parts.append(f"{str(block).capitalize()}:\n\n{to_markdown(pd.DataFrame(lines))}\n")
    return f"**{_place(machine, name)}**\n\n" + "\n".join(parts)


def _rate(row: Any) -> str:
    if pd.isna(row.per_second):
        return str(row.note)
    median, low, high = (_digits(row.per_second), _digits(row.slowest), _digits(row.fastest))
    return f"{median} [{low}, {high}]"


def _digits(rate: float) -> str:
    return f"{rate:,.0f}" if rate >= 100 else f"{rate:.3g}"


def _place(machine: dict, name: str) -> str:
    peers = ", ".join(f"{peer} {number}" for peer, number in machine.get("peers", {}).items())
    return (
        f"{TABLES[name]}: {machine['device_name']}, {machine['threads']} threads, {machine['precision']}, "
        f"torch {machine['torch']}, {peers}, {machine['started'][:10]} (`{machine['command']}`)"
    )


def _memory(table: pd.DataFrame) -> str:
    lines = []
    for (size, method, precision), rows in table.groupby(["size", "method", "precision"], sort=False):
        sums = {f"{passed:g} a pass": f"{gib:.2f}" for passed, gib in zip(rows.micro_batch, rows.sum_gib, strict=True)}
        measured = rows.measured_gib.notna()
        shown = f"{rows.measured_gib[measured].iloc[0]:.2f}" if measured.any() else "not measured"
        lines.append({"px": size, "method": method, "precision": precision, **sums, "peak on a GPU, whole": shown})
    head = (
        f"**Memory of a step on batches of {int(table.batch.iloc[0])}, GiB**: activations that autograd keeps "
        "(counted on the CPU), weights, gradients, moments and views; without workspace and allocator "
        "(`python -m benchmarks.cost`)"
    )
    return f"{head}\n\n{to_markdown(pd.DataFrame(lines))}\n"
