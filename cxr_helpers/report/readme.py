"""What the READMEs say of results, written from records: `python -m cxr_helpers.report.readme` (or `make readme`)."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Sequence
from itertools import combinations
from pathlib import Path

import pandas as pd

from ..methods import METHODS, load_method
from ..profiles import place_in_study
from ..runs import Run, write_bytes
from .comparisons import floor_pairs, imagenet_pairs, paired_table, transfer_pairs
from .evidence import Found, control_summary
from .goals import GOALS, best_of_sizes, goal_pairs, goal_table, reading_of_goals, shown_goals
from .labels import label_curves, label_summary
from .lineage import dataset_name
from .prose import after_correction, by_command, verdict
from .prose_rivals import survivors
from .prose_study import reading_of_labels
from .report import shown_summary
from .speed import speed_section
from .tables import collect_runs, rows_of, runs_table, summary_table

__all__ = ["films_first", "goal_section", "result_section", "run_section", "write_readme"]

METRICS = {"auc": "AUC", "accuracy": "accuracy"}


def _section(name: str) -> re.Pattern[str]:
    return re.compile(rf"(<!-- {name}:[^\n]*-->\n).*?(<!-- /{name} -->)", re.DOTALL)


Group = tuple[str, list[Run], pd.DataFrame]  # what the data are called, their runs, `summary_table` of these


def films_first(results: Path) -> list[Group]:
    """Every finished run of a results folder whose test split was read, by data set, size and content, in the study's
    order. Records on phantoms are left out: they are evidence for the machinery, not for X-rays."""
    runs = [run for run in collect_runs(results) if "test" in run.metrics.get("linear", {})]
    table = runs_table(run for run in runs if not run.record["dataset"].startswith("phantom"))
    if table.empty:
        return []
    contents = table.groupby(["data", "size"])["content"].transform("nunique")
    which = [f", content {c}" if n > 1 else "" for c, n in zip(table.content, contents, strict=True)]
    places = table.assign(which=which, place=table.dataset.map(place_in_study))
    found: list[Group] = []
    for (_, data, size, _, suffix), rows in places.groupby(["place", "data", "size", "content", "which"], sort=True):
        members = [run for run in runs if run.id in set(rows.run_id)]
        found.append((f"{data}, {size} px{suffix}", members, summary_table(members)))
    return found


def result_section(groups: Sequence[Group]) -> str:
    """Markdown of what `films_first` found: the first group is open, the others are folded."""
    parts: list[str] = []
    for name, members, summary in groups:
        text = (
            f"**{name}, test {METRICS[summary.metric.iloc[0]]} by the protocol of each row** "
            f"({', '.join(dict.fromkeys(summary.devices))}):\n\n"
            + shown_summary(summary, pairs=paired_table(members, floor_pairs(summary)), brief=True)
            + "\n\n"
            + _verdicts(members, summary) + _few_labels(members) + _rivals(members)
        )  # fmt: skip
        parts.append(_folded(f"{name}: {_count(len(summary), 'row')}", text) if parts else text)
    return "\n".join(parts) or "No finished run with a test figure is recorded yet.\n"


def goal_section(groups: Sequence[Group]) -> str:
    """Every goal of the study beside the best figure recorded for it, at the size it was set for or at any.

    Frozen encoders are read as the protocol has it; notebook 05 counts other ways of reading them too.
    """
    tables, asked = [], set()
    for name, members, summary in groups:
        dataset, size = members[0].record["dataset"], members[0].record["size"]
        asked.add((dataset, size))
        pairs, labels = paired_table(members, goal_pairs(dataset)), _label_summary(members)
        tables.append((name, goal_table(dataset, size, summary, pairs=pairs, labels=labels)))
    for dataset, size in dict.fromkeys((goal.dataset, goal.size) for goal in GOALS):
        if not any(dataset == other and size in (None, px) for other, px in asked):
            name = dataset_name(dataset) + (f", {size} px" if size else "")
            tables.append((name, goal_table(dataset, size, pd.DataFrame())))
    table = best_of_sizes(tables)
    return f"{reading_of_goals(table)}\n\n{shown_goals(table)}\n"


def run_section(groups: Sequence[Group]) -> str:
    """Every row's runs with their device, time and the command that repeats them, in the tables' order."""
    parts: list[str] = []
    for name, members, summary in groups:
        rows = runs_table(members)
        parts.append(f"## {name}\n")
        for label in summary.sort_values("test_mean", ascending=False)["label"]:
            for command, alike in by_command(rows[rows["label"] == label]):
                seeds = ", ".join(f"[{row.seed}](runs/{row.run_id})" for row in rows_of(alike))
                each = f"seed{'s' if len(alike) > 1 else ''} {seeds}; {_device_and_time(alike)}"
                parts.append(f"- **{label}**, {each}:\n  `{command} --test`")
        parts.append("")
    return "\n".join(parts) or "No finished run with a test figure is recorded yet.\n"


def _device_and_time(rows: pd.DataFrame) -> str:
    low, high = (max(1, round(float(value))) for value in (rows["minutes"].min(), rows["minutes"].max()))
    minutes = f"{low} min" if low == high else f"{low} to {high} min each"
    return f"{', '.join(dict.fromkeys(rows['device']))}, {minutes}"


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
        if row.family in METHODS and not load_method(row.family).needs_labels and row.init == "random"
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


def _label_summary(members: list[Run]) -> pd.DataFrame:
    """Frozen encoders against supervised training where both had the same few labels, draw by draw."""
    files = [(run, run.path / "label_curve.csv") for run in members]
    curves = [(run, pd.read_csv(file)) for run, file in files if file.is_file()]
    scratch = [
        run for run in members if load_method(run.record["method"]).needs_labels and run.record["init"] == "random"
    ]
    supervised = [run for run in scratch if run.record["label_fraction"] < 1]
    return label_summary(label_curves(curves, supervised)) if curves and supervised else pd.DataFrame()


def _few_labels(members: list[Run]) -> str:
    found = _label_summary(members)
    if "difference" not in found:
        return ""
    head, _, *lines = reading_of_labels(found).splitlines()
    return f"- **Few labels.** {head}\n" + "".join(f"  {line}\n" for line in lines)


def _rivals(members: list[Run]) -> str:
    """What survives of the encoders that were put under controls; nothing is measured here."""
    files = [(run, run.path / "controls.csv") for run in members]
    found = Found(tuple((run, pd.read_csv(file)) for run, file in files if file.is_file()), ())
    return "".join(f"- {line}\n" for line in survivors(control_summary(found))) if found else ""


SECTIONS: dict[str, Callable[[Sequence[Group]], str]] = {
    "results": result_section,
    "goals": goal_section,
    "runs": run_section,
}


def write_readme(readme: Path, results: Path, groups: Sequence[Group] | None = None) -> None:
    """Replace what stands between a page's markers: results, goals, runs and speed, each where it has a place.

    Args:
        groups: `films_first` of the results, where the caller has it.
    Raises:
        ValueError: the page has no markers at all.
    """
    text = readme.read_text()
    sections = [name for name in (*SECTIONS, "speed") if _section(name).search(text)]
    if not sections:
        raise ValueError(
            f"{readme.name} must hold the lines <!-- results: … --> and <!-- /results -->, or of another "
            f"section ({', '.join((*SECTIONS, 'speed'))})"
        )
    groups = films_first(results) if groups is None else groups
    for name in sections:
        new = SECTIONS[name](groups) if name in SECTIONS else speed_section(results)
        text = _section(name).sub(lambda found, new=new: f"{found[1]}\n{new}\n{found[2]}", text)  # type: ignore[misc]
    write_bytes(readme, text.encode())


def main(results: Path) -> None:
    """Write the repository's README and that of its results."""
    groups = films_first(results)
    for page in (Path("README.md"), results / "README.md"):
        if page.is_file():
            write_readme(page, results, groups)


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "results"))
