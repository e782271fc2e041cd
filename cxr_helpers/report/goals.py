"""What the study set out to reach beside what it reached.

The values come from the study's task; they stand here only since some of its figures were known. That encoders started
from ImageNet may count for fine-tuning and for few labels was decided after the first of them was seen; that they may
count on ChestMNIST, while the first was being trained on it, before any figure of it was known.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import pandas as pd

from .claims import one_data_set
from .lineage import dataset_name
from .prose import points
from .report import to_markdown
from .tables import rows_of

__all__ = ["GOALS", "Goal", "best_of_sizes", "goal_pairs", "goal_table", "reading_of_goals", "shown_goals"]


@dataclass(frozen=True, kw_only=True)
class Goal:
    """Either a test figure to reach, or another encoder to be above of by an interval that excludes 0.

    Args:
        dataset: name of the data set.
        what: for readers.
        labels: rows of `summary_table` that may reach it, the best counts; none means every frozen encoder, in every
            way of reading it that was tried.
        value: of the test metric, or None.
        above: row of `summary_table`, or None.
        fraction: of the labels that both sides of `above` are given.
        size: in px, where the goal was set for one size.
        on_all: rows on a part of the data set do not count.
    """

    dataset: str
    what: str
    labels: tuple[str, ...] = ()
    value: float | None = None
    above: str | None = None
    fraction: float = 1.0
    size: int | None = None
    on_all: bool = False

    def __post_init__(self) -> None:
        if (self.value is None) == (self.above is None):
            raise ValueError(f"a goal must have either a value or a row to be above of, got {self}")


_VERDICTS = ("reached", "open", "missed", "not measured")  # best first
_METHODS = ("SimCLR", "VICReg")
_STARTS = ("", " from ImageNet", " from ImageNet (layer4 refit)")
_EITHER_START = tuple(f"{name}{start}" for name in _METHODS for start in _STARTS)
GOALS = (
    *(
        Goal(dataset="pneumoniamnist", what=f"{name}, frozen, linear probe", labels=(name,), value=value, size=size)
        for size, value in ((64, 0.970), (224, 0.980))
        for name in _METHODS
    ),
    Goal(dataset="pneumoniamnist", what="best frozen ResNet-18, however read", value=0.985),
    Goal(dataset="pneumoniamnist", what="pretrained by either method, then fine-tuned",
         labels=tuple(f"{label}, fine-tuned" for label in _EITHER_START), value=0.988),
    *(
        Goal(dataset="pneumoniamnist", what=f"{name}, either start, above supervised with {100 * part:g} % of labels",
             labels=tuple(f"{name}{start}" for start in _STARTS), above="Supervised", fraction=part)
        for part in (0.01, 0.1)
        for name in _METHODS
    ),
    Goal(dataset="chestmnist", what="pretrained by either method, either start, frozen", labels=_EITHER_START,
         value=0.745),
    Goal(dataset="chestmnist", what="pretrained by either method, either start, frozen, above supervised",
         labels=_EITHER_START, above="Supervised"),
    *(
        Goal(dataset="cifar10", what=f"{name}, linear probe, all training images", labels=(name,), value=0.86,
             on_all=True)
        for name in _METHODS
    ),
)  # fmt: skip


def goal_pairs(dataset: str) -> list[tuple[str, str]]:
    """Pairs for `paired_table` that the goals of a data set are judged by, where all labels are given."""
    asked = [goal for goal in GOALS if goal.dataset == dataset and goal.fraction == 1]
    return [(label, goal.above) for goal in asked if goal.above for label in goal.labels]


def goal_table(
    dataset: str,
    size: int | None,
    summary: pd.DataFrame,
    *,
    pairs: pd.DataFrame | None = None,
    labels: pd.DataFrame | None = None,
    rereads: pd.DataFrame | None = None,
) -> pd.DataFrame:
    """One row per goal for a data set at a size: how far the best row that may reach it came.

    Args:
        size: in px; None asks only what was set for no size. summary: `summary_table`'s rows of that data set.
            pairs: `paired_table`'s. labels: `label_summary`'s. rereads: `rereading.reread`'s summary.
    Returns:
        `dataset, what, goal, above, label, seeds, reached, low, high, short, verdict`; `reached` is the test metric,
        or the difference to the row that was to be beaten; `short` is what is missing of a value in the metric's unit.
        The verdict is `reached`, `missed`, `open` (a value inside the interval, a difference whose interval holds 0) or
        `not measured`.
    """
    rows = []
    for goal in GOALS:
        if goal.dataset == dataset and goal.size in (None, size):
            found = list(_figures(goal, summary, rereads) if goal.above is None else _differences(goal, pairs, labels))
            row: dict[str, Any] = {"dataset": dataset, "what": goal.what, "goal": goal.value, "above": goal.above or ""}
            best = max(found, key=lambda one: one["reached"], default=None)
            rows.append(row | ({"verdict": "not measured"} if best is None else best | _judged(goal, best)))
    columns = ["dataset", "what", "goal", "above", "label", "seeds", "unit", "reached", "low", "high"]
    columns += ["short", "verdict"]
    return pd.DataFrame(rows, columns=columns)


def best_of_sizes(tables: Iterable[tuple[str, pd.DataFrame]]) -> pd.DataFrame:
    """Goals of several data sets and sizes in the order of `GOALS`, each once: where more than one size was asked, the
    best verdict stands, and of equal ones the best figure.

    Args:
        tables: (what a table's data are called, `goal_table`).
    Returns:
        `goal_table`'s columns and `on`, the data's name.
    """
    stacked = pd.concat([table.assign(on=on) for on, table in tables], ignore_index=True)
    order = stacked.assign(
        place=[next(i for i, goal in enumerate(GOALS) if _same(goal, row)) for row in rows_of(stacked)],
        rank=stacked["verdict"].map(_VERDICTS.index),
    )
    best = order.sort_values(["place", "rank", "reached"], ascending=[True, True, False]).drop_duplicates("place")
    return best.drop(columns=["place", "rank"]).reset_index(drop=True)


def _same(goal: Goal, row: Any) -> bool:
    value = row.goal if goal.value is not None else None
    return (goal.dataset, goal.what, goal.value, goal.above or "") == (row.dataset, row.what, value, row.above)


def _figures(goal: Goal, summary: pd.DataFrame, rereads: pd.DataFrame | None) -> Iterator[dict[str, Any]]:
    for row in rows_of(one_data_set(summary)) if len(summary) else ():
        if goal.on_all and row.data != dataset_name(goal.dataset):
            continue
        if row.label in goal.labels or (not goal.labels and row.protocol == "linear probe"):
            figures = {"reached": row.test_mean, "low": row.test_low, "high": row.test_high}
            yield {"label": row.label, "seeds": row.num_seeds, "unit": "seed", **figures}
    if not goal.labels and rereads is not None:
        for row in rows_of(rereads):
            figures = {"reached": row.test, "low": row.low, "high": row.high}
            yield {"label": f"{row.label}, {row.readout}", "seeds": len(row.seeds), "unit": "seed", **figures}


def _differences(goal: Goal, pairs: pd.DataFrame | None, labels: pd.DataFrame | None) -> Iterator[dict[str, Any]]:
    if goal.fraction == 1:
        for row in rows_of(pairs) if pairs is not None else ():
            if row.a in goal.labels and row.b == goal.above:
                figures = {"reached": row.difference, "low": row.low, "high": row.high}
                yield {"label": row.a, "seeds": len(row.seeds_a), "unit": "seed", **figures}
    elif labels is not None and "difference" in labels:
        for row in rows_of(labels[(labels["fraction"] == goal.fraction) & labels["difference"].notna()]):
            if row.label in goal.labels:
                figures = {"reached": row.difference, "low": row.low, "high": row.high}
                yield {"label": row.label, "seeds": int(row.common_draws), "unit": "draw of labels", **figures}


def _judged(goal: Goal, best: dict[str, Any]) -> dict[str, Any]:
    if goal.value is None:
        verdict = "reached" if best["low"] > 0 else "missed" if best["high"] < 0 else "open"
        return {"verdict": verdict}
    short = max(0.0, goal.value - best["reached"])
    return {"short": short, "verdict": "reached" if not short else "open" if best["high"] >= goal.value else "missed"}


_MANY = {"seed": "seeds", "draw of labels": "draws of labels"}


def shown_goals(table: pd.DataFrame) -> str:
    """`goal_table` for readers; differences and what is missing are in points (hundredths) of the metric."""
    rows = []
    for row in rows_of(table):
        on = {"data": row.on} if "on" in table else {}
        asked = f"above {row.above}" if row.above else f"{row.goal:.3f}"
        cells = on | {
            "what was aimed at": row.what,
            "goal": asked,
            "reached, 95 % interval": "–",
            "by": "–",
        }
        if row.verdict == "not measured":
            rows.append(cells | {"so it is": row.verdict})
            continue
        if row.above:
            interval = f"[{points(row.low)}, {points(row.high)}]" if math.isfinite(row.low) else "(one draw)"
            came = f"{points(row.reached)} {interval}"
        else:
            came = f"{row.reached:.3f} [{row.low:.3f}, {row.high:.3f}]"
        said = f"**{row.verdict}**" + (f", {100 * row.short:.1f} short" if row.short > 0 else "")
        count = f"{row.seeds:.0f} {row.unit if row.seeds == 1 else _MANY[row.unit]}"
        cells |= {"reached, 95 % interval": came, "by": f"{row.label} ({count})"}
        rows.append(cells | {"so it is": said})
    return to_markdown(pd.DataFrame(rows)) if rows else ""


def reading_of_goals(table: pd.DataFrame) -> str:
    """How many goals were reached, and by how much the others were not."""
    if table.empty:
        return "No goal was set for these data at this size."
    counts = table["verdict"].value_counts()
    text = (
        f"Of {len(table)} goals: " + ", ".join(f"{counts[name]} {name}" for name in _VERDICTS if name in counts) + "."
    )
    if "open" in counts:
        text += " Open: the mean is short of the value, or the difference not shown, and the interval excludes neither."
    short = table[table["short"].fillna(0) > 0].sort_values("short", ascending=False)
    if len(short):
        names = short["on"] + ": " + short["what"] if "on" in short else short["what"]
        far = "; ".join(f"{name} by {100 * by:.1f}" for name, by in zip(names, short["short"], strict=True))
        text += f" Short of the value, in points: {far}."
    return text
