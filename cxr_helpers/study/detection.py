"""Detectors as a plan's rows: trained or found, and their average precision with intervals over films.

A plan is a dict of labels and the configurations of a row's seeds. What needs no detector stands beside them: the same
boxes on every film, and a reader held against the others.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from ..config import RuntimeConfig
from ..data import Dataset, boxes_of, data_root
from ..detect import (
    constant_boxes,
    rare_findings,
    readers_boxes,
    readers_in_turn,
    resample_ap,
    score_detector,
    table_of,
)
from ..probe import Resampled, interval_of, seed_spread
from ..runs import Run
from .plan import Row
from .tables import Comparison, comparison_of

__all__ = [
    "CONSTANT", "READER", "Found", "ap_table", "compare_ap", "finding_table", "found_by", "found_of",
    "groups_of", "readers_of", "score_in_words",
]  # fmt: skip

CONSTANT, READER = "The same boxes on every film", "A reader, by the others"


ENOUGH = 10  # boxes of a finding: one box of three moves the mean over fourteen findings by two points


@dataclass(frozen=True, eq=False, kw_only=True)
class Found:
    """Boxes found on the films of a split, by training seed, and the true ones."""

    label: str
    seeds: tuple[pd.DataFrame, ...]
    truth: pd.DataFrame
    films: NDArray[np.int64]  # [N], which film each line is about: a reader's turn is one of several
    runs: tuple[Run, ...] = ()

    def ap(self, findings: Sequence[int]) -> Resampled:
        """Mean AP at .4 of these findings, on the films and on draws of them."""
        every, columns = _resampled(self)
        chosen = [columns.index(finding) for finding in findings if finding in columns]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", RuntimeWarning)  # a draw of films without any of the findings is nan
            observed, draws = (np.nanmean(values[..., chosen], axis=-1) for values in (every.observed, every.draws))
        return replace(every, observed=observed, draws=draws)


@cache
def _resampled(found: Found) -> tuple[Resampled, list[int]]:
    """AP of every finding, and which they are: a row is in many comparisons, and resampled once."""
    findings = sorted(int(one) for one in found.truth["finding"].unique())
    return resample_ap(found.seeds, found.truth, found.films, findings), findings


def found_of(rows: Iterable[Row], split: str = "test") -> list[Found]:
    """What the rows' detectors found, as recorded; rows without a run are left out."""
    return [
        Found(
            label=row.label,
            seeds=tuple(pd.read_csv(run.path / f"detections_{split}.csv.gz") for run in row.runs),
            truth=pd.read_csv(row.runs[0].path / f"boxes_{split}.csv.gz"),
            films=np.arange(row.runs[0].metrics["detection"][split]["films"]),
            runs=row.runs,
        )
        for row in rows
        if row.runs
    ]


def readers_of(dataset: Dataset, split: str = "test", root: str | None = None) -> pd.DataFrame:
    """What each reader drew (`detect.readers_boxes`); no line for drawn films, whose truth is known."""
    file = data_root(root) / dataset.name / f"{split}.json"
    return readers_boxes(file) if file.is_file() else pd.DataFrame(columns=["film", "finding", "reader"])


def found_by(dataset: Dataset, readers: pd.DataFrame | None = None, split: str = "test") -> list[Found]:
    """What needs no detector: the same boxes on every film and, where there are readers, each in turn."""
    train, shown = dataset.train, dataset.splits[split]
    truth = table_of(boxes_of(shown))
    constant = constant_boxes(table_of(boxes_of(train)), train.labels, len(shown))
    found = [Found(label=CONSTANT, seeds=(constant,), truth=truth, films=np.arange(len(shown)))]
    if readers is not None and readers.groupby("film")["reader"].nunique().max() > 1:
        turns, others, films = readers_in_turn(readers, float(dataset.provenance.get("fused_above_iou", 0.4)))
        found.append(Found(label=READER, seeds=(turns,), truth=others, films=films))
    return found


def groups_of(dataset: Dataset, truth: pd.DataFrame) -> dict[str, list[int]]:
    """Findings that the truth has: with `ENOUGH` boxes, all, the rarer half by labelled training films, the others."""
    counts, rare = truth["finding"].value_counts().sort_index(), rare_findings(dataset.train.labels)
    there, enough = ([int(str(k)) for k in of.index] for of in (counts, counts[counts >= ENOUGH]))
    groups = {"enough": enough or there, "all": there, "rare": [k for k in there if k in rare]}
    return groups | {"common": [k for k in there if k not in rare]}


def ap_table(found: Iterable[Found], groups: Mapping[str, Sequence[int]]) -> pd.DataFrame:
    """A line for each: `encoder, value, low, high` (AP at .4, 95 % over films, of the first group), `sd` (over seeds),
    `seeds, films`, COCO's `ap50, ap50_95`, and a column of AP for every other group."""
    lines = []
    for one in found:
        (_, first), *others = groups.items()
        drawn = one.ap(first)
        interval = interval_of(drawn)
        line: dict[str, Any] = {"encoder": one.label, "value": interval.estimate, "low": interval.low}
        line |= {"high": interval.high, "sd": np.std(drawn.observed, ddof=1) if len(one.seeds) > 1 else np.nan}
        line |= {"seeds": len(one.seeds), "films": len(set(one.films))}
        for name in ("ap50", "ap50_95"):
            line[name] = np.mean([run.metrics["detection"]["test"][name] for run in one.runs]) if one.runs else np.nan
        lines.append(line | {name: float(one.ap(kinds).observed.mean()) for name, kinds in others if kinds})
    return pd.DataFrame(lines)


def compare_ap(found: Sequence[Found], a: str, b: str, findings: Sequence[int]) -> Comparison:
    """AP of a minus AP of b in points, on the same draws of films and with what training seeds add."""
    sides = {one.label: one for one in found if one.label in (a, b)}
    if {a, b} - sides.keys():
        return Comparison(a=a, b=b)
    left, right = (sides[label].ap(findings) for label in (a, b))
    spread = seed_spread(one.ap(findings) for one in found if len(one.seeds) > 1)
    return comparison_of(a, b, left, right, spread)


def finding_table(found: Iterable[Found], dataset: Dataset) -> pd.DataFrame:
    """AP at .4 of every finding with its interval over films: `encoder, name, value, low, high, support` (boxes)."""
    lines = []
    for one in found:
        counts = one.truth["finding"].value_counts()
        for kind in sorted(counts.index):
            at = interval_of(one.ap([int(kind)]))
            about = {"encoder": one.label, "name": dataset.class_names[int(kind)], "support": int(counts[kind])}
            lines.append({**about, "value": at.estimate, "low": at.low, "high": at.high})
    return pd.DataFrame(lines)


def score_in_words(run: Run, dataset: Dataset, runtime: RuntimeConfig, *, test: bool = False) -> str:
    """Score a detector; print AP by finding on val or, if asked, test, and return the means in one line."""
    metrics, split = score_detector(run, dataset, runtime, test=test), "test" if test else "val"
    found, constant = found_of([Row("AP at .4", dataset.name, (run,))], split)[0], found_by(dataset, split=split)[0]
    own, floor = (finding_table([one], dataset).set_index("name") for one in (found, constant))
    shown = own[["support", "value", "low", "high"]].assign(floor=floor["value"])
    titles = {"support": "boxes", "value": found.label, "floor": "same boxes"}
    print(shown.rename(columns=titles).to_string(float_format="{:.3f}".format))
    groups, figures = groups_of(dataset, found.truth), metrics["detection"][split]
    means = ", ".join(f"{name} {found.ap(kinds).observed.mean():.3f}" for name, kinds in groups.items() if kinds)
    at = interval_of(found.ap(groups["all"]))
    score = f"AP at .4 {at.estimate:.4f} [{at.low:.4f}, {at.high:.4f}] ({means})"
    return f"{run.status} {run.path} · {split} {score} · AP50 {figures['ap50']:.4f} · AP50:95 {figures['ap50_95']:.4f}"
