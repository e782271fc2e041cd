"""Sentences about maps and neighbours; every number comes from a table of `report.evidence` or a run's record."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd

from ..runs import Run
from .evidence import Found
from .lineage import dataset_name, run_label
from .report import to_markdown
from .tables import rows_of

__all__ = ["absent_text", "reading_of_localisation", "reading_of_maps", "reading_of_retrieval"]

KINDS = {"tp": "rightly called", "fn": "missed", "fp": "wrongly called", "tn": "rightly not called"}


def absent_text(absent: Sequence[Run]) -> str:
    """The runs whose weights are not here and that nothing was recorded of, with the command that makes them anew."""
    if not absent:
        return ""
    names = dict.fromkeys(f"{run_label(run)} (seed {run.record['seed']})" for run in absent)
    command = absent[0].environment.get("command", "train.py")
    return (
        f"Left out, because only records and no weights are here: {', '.join(names)}. The command that makes the "
        f"first anew: `{command} --fresh`."
    )


def reading_of_maps(found: Found, size: int) -> str:
    """Which images are shown, by what rule, and what a cell's number means."""
    parts = [part for part in found.parts if len(part[1])]
    if not parts:
        return "\n\n".join(filter(None, ["No maps here.", absent_text(found.absent)]))
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
        text += f"({_signed(first.usual)}); the mean of the cells and that figure add up to the image's log-odds."
        lines.append(text)
    return "\n\n".join(filter(None, [*lines, absent_text(found.absent)]))


def _signed(value: float) -> str:
    return f"{value:+.1f}".replace("-", "−")


def reading_of_localisation(summary: pd.DataFrame, found: Found) -> str:
    """Whether maps point at the finding more often than chance and habit do, encoder by encoder and stage by stage.

    Chance draws a cell; habit always takes the place where training masks lie most often.
    """
    if summary.empty:
        return absent_text(found.absent) or "No films with masks fit this task."
    first = rows_of(summary)[0]
    head = f"{first.findings:,} findings in test films of {first.patients:,} patients"
    if first.films != first.dataset:
        head += f" ({dataset_name(first.films)}: drawn, so that the truth is known; the backbones have never seen such "
        head += "films, only the probe is fitted on them)"
    rows = [
        {
            "encoder": row.label,
            "stage": f"{row.stage}, {row.cells} × {row.cells}",
            "findings called": f"{100 * row.called / row.findings:.0f} %",
            "hits, plain map": _percent(row.hit, row.hit_low, row.hit_high),
            "hits, less the usual map": _percent(row.hit_special, row.hit_special_low, row.hit_special_high),
            "chance": f"{100 * row.hit_random:.0f} %",
            "habit": f"{100 * row.hit_usual:.0f} %",
            "IoU plain / less usual / best": f"{row.iou:.2f} / {row.iou_special:.2f} / {row.iou_best:.2f}",
            "better than": _against(row.hit_special_low, row.hit_random, row.hit_usual),
        }
        for row in rows_of(summary)
    ]
    best = rows_of(summary.sort_values("hit_special", ascending=False))[0]
    tail = f"Most often it is {best.label}'s map of {best.stage}, less the usual one, that points at the finding: "
    tail += f"{_percent(best.hit_special, best.hit_special_low, best.hit_special_high)} of the findings, "
    tail += f"{100 * best.hit_called:.0f} % of those the probe calls" if best.called else "though the probe calls none"
    if best.called < best.findings:
        tail += f" and {100 * best.hit_missed:.0f} % of those it misses"
    parts = [
        f"{head}. Better than chance or habit is said of the map less the usual one, where the 95 % interval is above.",
        to_markdown(pd.DataFrame(rows)),
        f"{tail}.",
        absent_text(found.absent),
    ]
    return "\n\n".join(filter(None, parts))


def _percent(value: float, low: float, high: float) -> str:
    return f"{100 * value:.0f} % [{100 * low:.0f}, {100 * high:.0f}]"


def _against(low: float, chance: float, habit: float) -> str:
    """What an interval's lower end lies above."""
    better = [name for name, value in (("chance", chance), ("habit", habit)) if low > value]
    return " and ".join(better) or "neither"


def reading_of_retrieval(summary: pd.DataFrame, found: Found, *, several_labels: bool) -> str:
    """How often what an encoder finds alike is alike, against a random pick and the untrained encoder."""
    if summary.empty:
        return absent_text(found.absent) or "No encoder to search with yet."
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
            text += f"; {_signed(gain)} points against the untrained encoder"
        lines.append(f"{text}.")
    return "\n".join(filter(None, [*lines, f"\n{absent_text(found.absent)}" if found.absent else ""]))
