"""Sentences about maps and neighbours; every number comes from a table of `report.evidence` or a run's record."""

from __future__ import annotations

import pandas as pd

from ..runs import Run
from .evidence import Found
from .lineage import dataset_name, run_label
from .tables import rows_of

__all__ = ["absent_text", "reading_of_localisation", "reading_of_maps", "reading_of_retrieval"]

KINDS = {"tp": "rightly called", "fn": "missed", "fp": "wrongly called", "tn": "rightly not called"}


def absent_text(found: Found) -> str:
    """The runs whose weights are not here and that nothing was recorded of, with the command that makes them anew."""
    if not found.absent:
        return ""
    names = dict.fromkeys(f"{run_label(run)} (seed {run.record['seed']})" for run in found.absent)
    command = found.absent[0].environment.get("command", "train.py")
    return (
        f"Left out, because only records and no weights are here: {', '.join(names)}. The command that makes the "
        f"first anew: `{command} --fresh`."
    )


def reading_of_maps(found: Found, size: int) -> str:
    """Which images are shown, by what rule, and what a cell's number means."""
    parts = [part for part in found.parts if len(part[1])]
    if not parts:
        return "\n\n".join(filter(None, ["No maps here.", absent_text(found)]))
    lines = []
    for run, table in parts:
        counts = table["kind"].value_counts()
        kinds = ", ".join(f"{counts[kind]} {name}" for kind, name in KINDS.items() if kind in counts)
        none = [name for kind, name in KINDS.items() if kind not in counts]
        first = table.iloc[0]
        text = (
            f"**{run_label(run)}**, seed {run.record['seed']}, {first['name']}: test images drawn by lot, {kinds} at "
        )
        text += f"val's threshold of {first.threshold:.3f}"
        text += f" (test has none {' and none '.join(none)})" if none else ""
        text += f". The last stage has {first.height:.0f} × {first.width:.0f} cells of {size / first.height:.0f} px. A "
        text += "cell's figure is the log-odds it adds to those of the average val image at that place "
        text += f"({first.usual:+.1f}); the mean of the cells and that figure add up to the image's log-odds.".replace(
            "-", "−"
        )
        lines.append(text)
    return "\n\n".join(filter(None, [*lines, absent_text(found)]))


def reading_of_localisation(summary: pd.DataFrame, found: Found) -> str:
    """At which stage maps point at the finding more often than chance and habit do, encoder by encoder.

    Chance draws a cell; habit always takes the place where training masks lie most often.
    """
    if summary.empty:
        said = "No films with masks fit this task." if not found.absent else ""
        return "\n\n".join(filter(None, [said, absent_text(found)]))
    first = rows_of(summary)[0]
    other = first.films != first.dataset
    head = f"{first.findings:,} findings in test films of {first.patients:,} patients"
    if other:
        head += f" ({dataset_name(first.films)}: drawn, so that the truth is known; the backbones have never seen such "
        head += "films, only the probe is fitted on them)"
    lines = [f"{head}. Better than chance or habit is said where the 95 % interval lies above it.", ""]
    for label, rows in summary.groupby("label", sort=False):
        parts = []
        for row in rows_of(rows):
            worth = _against(row.hit_special_low, row.hit_special_high, row.hit_random, row.hit_usual)
            parts.append(
                f"{row.stage} ({row.cells} × {row.cells} cells) hits {100 * row.hit:.0f} % as it is and "
                f"{100 * row.hit_special:.0f} % [{100 * row.hit_special_low:.0f}, {100 * row.hit_special_high:.0f}] "
                f"less the usual map ({worth}; chance {100 * row.hit_random:.0f} %, habit "
                f"{100 * row.hit_usual:.0f} %), IoU {row.iou:.2f} and {row.iou_special:.2f} of at best "
                f"{row.iou_best:.2f}"
            )
        one = rows_of(rows)[0]
        lines.append(f"- **{label}** (calls {one.called:,} of the findings): {'; '.join(parts)}.")
    return "\n".join(filter(None, [*lines, f"\n{absent_text(found)}" if found.absent else ""]))


def _against(low: float, high: float, chance: float, habit: float) -> str:
    if low > max(chance, habit):
        return "better than either"
    if low > chance:
        return "better than chance, not than habit"
    return "worse than chance" if high < chance else "not better than chance"


def reading_of_retrieval(summary: pd.DataFrame, found: Found, *, several_labels: bool) -> str:
    """How often what an encoder finds alike is alike, against a random pick and the untrained encoder."""
    if summary.empty:
        return absent_text(found) or "No encoder to search with yet."
    first = rows_of(summary)[0]
    kind = "share a finding with it, or have none as it has none" if several_labels else "are of its class"
    lines = [
        f"{first.queries:,} test images of {first.patients:,} patients, each with its {first.k} nearest train images "
        f"of other patients (cosine similarity): how many {kind}. A random pick has {100 * first.chance:.1f} %.",
        "",
    ]
    floor = summary[summary["family"] == "random"]
    for row in rows_of(summary.sort_values("precision", ascending=False)):
        text = f"- **{row.label}**: {100 * row.precision:.1f} % of the {row.k} "
        text += (
            f"[{100 * row.precision_low:.1f}, {100 * row.precision_high:.1f}], {100 * row.first:.1f} % of the nearest "
        )
        text += f"[{100 * row.first_low:.1f}, {100 * row.first_high:.1f}]"
        if len(floor) and row.family != "random":
            gain = 100 * (row.precision - float(floor["precision"].iloc[0]))
            text += f"; {gain:+.1f} points against the untrained encoder".replace("-", "−")
        lines.append(f"{text}.")
    return "\n".join(filter(None, [*lines, f"\n{absent_text(found)}" if found.absent else ""]))


def map_label(run: Run) -> str:
    """What a figure of one run's maps calls it."""
    return f"{run_label(run)}, seed {run.record['seed']}"
