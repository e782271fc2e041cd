"""What a row's runs scored, as recorded: stacked over seeds of one configuration, resampled once for all tables."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from joblib import hash as content_hash
from numpy.typing import NDArray

from ..config import SEVERAL
from ..probe import Resampled, resample
from ..recipes import differing
from ..runs import BUILT, Run
from ..writing import read_json
from .plan import Row

__all__ = ["Scores", "figures_of", "is_trained", "resampled", "resampled_scores", "same_images", "scores_of", "stacked",
           "start_of"]  # fmt: skip

RESAMPLES = 50_000  # draws of patients: a p of .05 is then known to .002


def figures_of(run: Run) -> tuple[str, str, dict[str, Any]]:
    """Protocol, metric and figures by split: the trained head's where the run has one, else the linear probe's."""
    head = run.metrics.get("head")
    figures = head or run.metrics["linear"]
    return "end to end" if head else "frozen", "accuracy" if "accuracy_low" in figures["val"] else "auc", figures


@dataclass(frozen=True, eq=False)
class Scores:
    """Recorded predictions on one split, stacked over seeds."""

    labels: NDArray[np.int64]  # [N] or [N, L]
    groups: NDArray[Any]  # [N], the patient
    stack: NDArray[np.float64]  # [S, N, ...]
    names: tuple[str, ...]  # of the score columns


def scores_of(run: Run, split: str = "test") -> Scores:
    """A run's own predictions, a stack of one."""
    table = run.predictions(split)
    labels, scores = table.filter(regex="^label").to_numpy(), table.filter(like="score/")
    names = tuple(str(name).removeprefix("score/") for name in scores)
    values = scores.to_numpy(dtype=np.float64)[None]
    labels, values = labels[:, 0] if "label" in table else labels, values[..., 0] if len(names) == 1 else values
    return Scores(labels, table["group"].to_numpy(), values, names)


def stacked(row: Row, split: str = "test") -> Scores:
    """The recorded predictions of a row's runs.

    Raises:
        ValueError: the runs are not seeds of one configuration, or were scored on different images.
    """
    if any(_without_seed(run) != _without_seed(row.runs[0]) for run in row.runs):
        raise ValueError(f"{row.label} must be seeds of one configuration, got {', '.join(run.id for run in row.runs)}")
    first, *others = parts = [scores_of(run, split) for run in row.runs]
    if not all(same_images(first, other) for other in others):
        raise ValueError(f"seeds of {row.label} must be scored on the same {split} images, got others")
    return replace(first, stack=np.concatenate([part.stack for part in parts]))


def same_images(a: Scores, b: Scores) -> bool:
    """Whether two stacks of scores are of the same images of the same patients."""
    return np.array_equal(a.labels, b.labels) and np.array_equal(a.groups, b.groups)


_DRAWN: dict[str, Resampled] = {}  # by what was resampled: a row is in many comparisons


def resampled(row: Row, num_resamples: int = RESAMPLES) -> Resampled:
    """The main metric of each of a row's runs, on test and on the same draws of its patients for every row."""
    return resampled_scores(stacked(row), figures_of(row.runs[0])[1], num_resamples)


def resampled_scores(scores: Scores, metric: str, num_resamples: int = RESAMPLES) -> Resampled:
    """A metric of each of a stack of scores; the same stack is resampled once."""
    key = content_hash((scores.labels, scores.groups, scores.stack, metric, num_resamples))
    if key not in _DRAWN:
        about = (scores.labels, scores.stack, scores.groups)
        _DRAWN[key] = resample(*about, metric=metric, num_resamples=num_resamples)  # type: ignore[arg-type]
    return _DRAWN[key]


def _without_seed(run: Run) -> dict[str, Any]:
    """All of a record but its seed; weights from another run are those of that run's seed."""
    names = ("init", "init_sha256", "encoder", "encoder_sha256") if start_of(run) == "file" else ()
    return {name: value for name, value in differing(run.record).items() if name not in ("seed", *names)}


def is_trained(run: Run) -> bool:
    """Whether an encoder was trained: in the run, or in that whose file it reads; a file without a record was."""
    if "encoder" not in run.record:
        return bool(run.record["epochs"])
    first = run.record["encoder"].split(SEVERAL)[0]
    return first not in BUILT and bool(read_json((run.path.parent / first).with_name("config.json")).get("epochs", 1))


def start_of(run: Run) -> str:
    """Where the weights are from: random, imagenet or file."""
    start = run.record.get("encoder") or run.record["init"]
    return str(start) if start in ("random", "imagenet") else "file"
