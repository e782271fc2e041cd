"""The README's result section, written from records: `python -m cxr_helpers.report.readme` (or `make readme`)."""

from __future__ import annotations

import re
import sys
from itertools import combinations, product
from pathlib import Path

import pandas as pd

from ..methods import METHODS
from ..profiles import SanityCheck
from ..runs import Run, write_bytes
from .comparisons import imagenet_pairs, paired_table, transfer_pairs
from .evidence import Found, control_summary
from .lineage import family_of, run_label
from .prose import verdict
from .prose_rivals import survivors
from .report import shown_summary
from .speed import speed_section
from .tables import collect_runs, rows_of, runs_table, summary_table

__all__ = ["result_section", "write_readme"]

METRICS = {"auc": "AUC", "accuracy": "accuracy"}


def _section(name: str) -> re.Pattern[str]:
    return re.compile(rf"(<!-- {name}:[^\n]*-->\n).*?(<!-- /{name} -->)", re.DOTALL)


def result_section(results: Path) -> str:
    """Markdown of every finished run under a results folder whose test split was read, by data set, size and content.

    Records on phantoms are left out: they are evidence for the machinery, not for X-rays.
    """
    runs = [run for run in collect_runs(results) if "test" in run.metrics.get("linear", {})]
    table = runs_table(runs) if runs else pd.DataFrame()
    if table.empty:
        return "No finished run with a test figure is recorded yet.\n"
    parts = []
    shown = table[~table.dataset.str.startswith("phantom")]
    contents = shown.groupby(["data", "size"])["content"].transform("nunique")
    shown = shown.assign(
        which=[f", content {c}" if n > 1 else "" for c, n in zip(shown.content, contents, strict=True)]
    )
    films_first = shown.assign(other=shown.dataset == SanityCheck.dataset)
    for (_, data, size, _, which), rows in films_first.groupby(
        ["other", "data", "size", "content", "which"], sort=True
    ):
        members = [run for run in runs if run.id in set(rows.run_id)]
        summary = summary_table(members)
        parts.append(
            f"**{data}, {size} px{which}, test {METRICS[summary.metric.iloc[0]]} by the protocol of each row** "
            f"({', '.join(dict.fromkeys(summary.devices))}):\n\n{shown_summary(summary)}\n"
        )
        parts += [_verdicts(members, summary) + _rivals(members)]
    return "\n".join(part for part in parts if part)


def _verdicts(members: list[Run], summary: pd.DataFrame) -> str:
    """The pretrained encoders against each other, then every trained one against frozen ImageNet and the untrained."""
    family = {run_label(run): family_of(run.record) for run in members}
    floors = [label for init in ("imagenet", "random") for label in summary.label if family[label] == init]
    pretrained = [
        row.label
        for row in rows_of(summary)
        if row.family in METHODS and not METHODS[row.family].needs_labels and row.init == "random"
    ]
    trained = [label for label in summary.label if label not in floors and family[label] != "file"]
    context = [*imagenet_pairs(summary), *product(trained, floors), *transfer_pairs(summary), *combinations(floors, 2)]
    pairs = list(dict.fromkeys([*combinations(pretrained, 2), *context]))
    if not pairs:
        return ""
    rows = rows_of(paired_table(members, pairs))
    return "".join(f"- {verdict(row, short=row is not rows[0])}\n" for row in rows)


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
