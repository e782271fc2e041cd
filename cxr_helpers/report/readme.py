"""The README's result section, written from records: `python -m cxr_helpers.report.readme` (or `make readme`)."""

from __future__ import annotations

import re
import sys
from itertools import combinations
from pathlib import Path

import pandas as pd

from ..methods import METHODS
from ..profiles import place_in_study
from ..runs import Run, write_bytes
from .comparisons import floor_pairs, imagenet_pairs, paired_table, transfer_pairs
from .evidence import Found, control_summary
from .labels import label_curves, label_summary
from .prose import after_correction, verdict
from .prose_rivals import survivors
from .prose_study import reading_of_labels
from .report import shown_summary
from .speed import speed_section
from .tables import collect_runs, rows_of, runs_table, summary_table

__all__ = ["result_section", "write_readme"]

METRICS = {"auc": "AUC", "accuracy": "accuracy"}


def _section(name: str) -> re.Pattern[str]:
    return re.compile(rf"(<!-- {name}:[^\n]*-->\n).*?(<!-- /{name} -->)", re.DOTALL)


def result_section(results: Path) -> str:
    """Markdown of every finished run under a results folder whose test split was read, by data set, size and content.

    The first of them is open, the others are folded. Records on phantoms are left out: they are evidence for the
    machinery, not for X-rays.
    """
    runs = [run for run in collect_runs(results) if "test" in run.metrics.get("linear", {})]
    table = runs_table(runs) if runs else pd.DataFrame()
    if table.empty:
        return "No finished run with a test figure is recorded yet.\n"
    parts: list[str] = []
    shown = table[~table.dataset.str.startswith("phantom")]
    contents = shown.groupby(["data", "size"])["content"].transform("nunique")
    shown = shown.assign(
        which=[f", content {c}" if n > 1 else "" for c, n in zip(shown.content, contents, strict=True)]
    )
    films_first = shown.assign(place=shown.dataset.map(place_in_study))
    for (_, data, size, _, which), rows in films_first.groupby(
        ["place", "data", "size", "content", "which"], sort=True
    ):
        members = [run for run in runs if run.id in set(rows.run_id)]
        summary = summary_table(members)
        text = (
            f"**{data}, {size} px{which}, test {METRICS[summary.metric.iloc[0]]} by the protocol of each row** "
            f"({', '.join(dict.fromkeys(summary.devices))}):\n\n"
            + shown_summary(summary, pairs=paired_table(members, floor_pairs(summary)), brief=True)
            + "\n\n"
            + _verdicts(members, summary) + _few_labels(members) + _rivals(members)
        )  # fmt: skip
        parts.append(_folded(f"{data}, {size} px{which}: {_count(len(summary), 'row')}", text) if parts else text)
    return "\n".join(parts)


def _folded(summary: str, text: str) -> str:
    """A block of Markdown that a reader opens."""
    return f"<details><summary>{summary}</summary>\n\n{text}\n</details>\n"


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'s' if number > 1 else ''}"


def _verdicts(members: list[Run], summary: pd.DataFrame) -> str:
    """What the table's own columns do not say: pretrained encoders against each other, ImageNet's weights, labels."""
    frozen = [
        row.label
        for row in rows_of(summary)
        if row.family in METHODS and not METHODS[row.family].needs_labels and row.init == "random"
    ]
    tuned = [f"{name}, fine-tuned" for name in frozen]
    labels = [(label, "Supervised") for label in (*tuned, *frozen)]
    context = [*imagenet_pairs(summary), *labels, *transfer_pairs(summary)]
    in_columns = set(floor_pairs(summary))
    pairs = [*combinations(frozen, 2), *combinations(tuned, 2), *(pair for pair in context if pair not in in_columns)]
    table = paired_table(members, list(dict.fromkeys(pairs))) if pairs else pd.DataFrame()
    first, *others = [f"- {verdict(row, short=i > 0)}\n" for i, row in enumerate(rows_of(table))] or [""]
    more = f"{_count(len(others), 'more comparison')} of rows, pair by pair"
    corrected = after_correction(table)
    first += f"- {corrected}\n" if corrected else ""
    return first + (f"\n{_folded(more, ''.join(others))}\n" if others else "")


def _few_labels(members: list[Run]) -> str:
    """Frozen encoders against supervised training where both had the same few labels, draw by draw."""
    files = [(run, run.path / "label_curve.csv") for run in members]
    curves = [(run, pd.read_csv(file)) for run, file in files if file.is_file()]
    scratch = [run for run in members if METHODS[run.record["method"]].needs_labels and run.record["init"] == "random"]
    supervised = [run for run in scratch if run.record["label_fraction"] < 1]
    found = label_summary(label_curves(curves, supervised)) if curves and supervised else pd.DataFrame()
    if "difference" not in found:
        return ""
    head, _, *lines = reading_of_labels(found).splitlines()
    return f"- **Few labels.** {head}\n" + "".join(f"  {line}\n" for line in lines)


def _rivals(members: list[Run]) -> str:
    """What survives of the encoders that were put under controls; nothing is measured here."""
    files = [(run, run.path / "controls.csv") for run in members]
    found = Found(tuple((run, pd.read_csv(file)) for run, file in files if file.is_file()), ())
    return "".join(f"- {line}\n" for line in survivors(control_summary(found))) if found else ""


def write_readme(readme: Path, results: Path) -> None:
    """Replace what stands between the README's markers: the results, and the speed where it has a place for it.

    Raises:
        ValueError: the README has no markers for the results.
    """
    text = readme.read_text()
    if not _section("results").search(text):
        raise ValueError(f"{readme.name} must hold the lines <!-- results: … --> and <!-- /results -->")
    for name, section in (("results", result_section(results)), ("speed", speed_section(results))):
        text = _section(name).sub(lambda found, new=section: f"{found[1]}\n{new}\n{found[2]}", text)  # type: ignore[misc]
    write_bytes(readme, text.encode())


if __name__ == "__main__":
    write_readme(Path("README.md"), Path(sys.argv[1] if len(sys.argv) > 1 else "results"))
