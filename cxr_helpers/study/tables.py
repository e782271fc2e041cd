"""Rows into tables: scores with their intervals, differences on the same patients, histories. Nothing is measured here.

A row's interval is over test patients, its sd over training seeds; the interval of a difference is over both. Scores
are between 0 and 1, differences in points (hundredths of the metric).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike
from scipy import stats

from ..probe import Resampled, SeedSpread, difference_of, holm, interval_of, seed_spread, together
from .plan import Row, pick
from .scores import RESAMPLES, figures_of, is_trained, resampled, same_images, stacked, start_of

__all__ = [
    "Comparison", "compare", "comparison_of", "family", "histories", "mean_interval", "paired", "policy_scores",
    "summarise",
]  # fmt: skip

SAME_FIGURE = 5e-4  # half of the last digit shown: predictions are kept with seven digits
NAN = float("nan")


def summarise(rows: Iterable[Row], against: str | None = None, *, num_resamples: int = RESAMPLES) -> pd.DataFrame:
    """One line per row that has runs scored on test.

    Args:
        against: a label; `gain, gain_low, gain_high` are the points above that row of the same data.
    Returns:
        `encoder, dataset, metric, value` (also under the metric's name), `low, high` (95 %, over patients), `sd` (over
        seeds), `values` (by seed), `seeds` (their number), `knn, val`, `sensitivity, specificity` (at val's threshold,
        mean over labels), `protocol` (frozen or end to end), `init` (random, imagenet or file), `size_px, images,
        patients`, and where from: `run_ids, commits, devices`.
    Raises:
        ValueError: runs whose metrics and predictions disagree, or that are not seeds of one configuration.
    """
    rows, lines = [row for row in rows if row.runs and _tested(row)], []
    for row in rows:
        line = _summary(row, num_resamples)
        if against is not None and row.label != against:
            found = compare(rows, row.label, against, row.dataset, num_resamples=num_resamples)
            line |= {"gain": found.difference, "gain_low": found.low, "gain_high": found.high}
        lines.append(line)
    return pd.DataFrame(lines)


def _tested(row: Row) -> bool:
    return all("test" in figures_of(run)[2] for run in row.runs)


def _summary(row: Row, num_resamples: int) -> dict[str, Any]:
    protocol, metric, _ = figures_of(row.runs[0])
    figures = pd.DataFrame([figures_of(run)[2]["test"] for run in row.runs])
    mean, sd = figures[metric].mean(), figures[metric].std()
    found = interval_of(resampled(row, num_resamples))
    if abs(found.estimate - mean) > SAME_FIGURE:
        raise ValueError(
            f"metrics and predictions of {row.label} must agree, got {mean:.4f} and {found.estimate:.4f}: probe anew"
        )
    line = {"encoder": row.label, "dataset": row.dataset, "metric": metric, "value": mean, metric: mean}
    line |= {"low": found.low, "high": found.high, "sd": sd, "values": tuple(figures[metric]), "seeds": len(row.runs)}
    line |= {"knn": np.mean([run.metrics["knn"]["test"][metric] for run in row.runs])}
    line |= {"val": np.mean([figures_of(run)[2]["val"][metric] for run in row.runs])}
    line |= {name: figures[name].mean() if name in figures else NAN for name in ("sensitivity", "specificity")}
    line |= {"protocol": protocol, "init": start_of(row.runs[0]), "size_px": row.runs[0].record["size"]}
    line |= {"images": found.num_images, "patients": found.num_groups, "run_ids": tuple(run.id for run in row.runs)}
    made = [run.environment for run in row.runs]
    commits = [str(env.get("commit", "unknown"))[:10] + "+" * bool(env.get("dirty")) for env in made]
    devices = [str(env.get("device_name", "unknown")) for env in made]
    return line | {"commits": ", ".join(dict.fromkeys(commits)), "devices": ", ".join(dict.fromkeys(devices))}


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """Row a minus row b on the same images, in points, with its 95 % interval; nan where one of them has no runs."""

    a: str
    b: str
    difference: float = NAN
    low: float = NAN
    high: float = NAN
    p: float = NAN  # two-sided, of the same draws as the interval
    seeds_a: int = 0
    seeds_b: int = 0
    seeds_known: bool = False  # whether the interval holds what training seeds add, or is over patients alone

    @property
    def tie(self) -> bool | None:
        """Whether the interval holds 0; None where nothing was measured, as with `better` and `worse`."""
        return None if np.isnan(self.difference) else self.low <= 0 <= self.high

    @property
    def better(self) -> bool | None:
        """Whether the whole interval is above 0."""
        return None if np.isnan(self.difference) else self.low > 0

    @property
    def worse(self) -> bool | None:
        """Whether the whole interval is below 0."""
        return None if np.isnan(self.difference) else self.high < 0

    def within(self, points: float) -> bool | None:
        """Whether the whole interval is closer to 0 than so many points: equal for practical purposes."""
        return None if np.isnan(self.difference) else -points < self.low and self.high < points

    @property
    def text(self) -> str:
        """The difference and its interval in points, such as `+0.2 [−0.9, +1.2]`."""
        if np.isnan(self.difference):
            return "not measured"
        return f"{self.difference:+.1f} [{self.low:+.1f}, {self.high:+.1f}]".replace("-", "−")


def compare(
    rows: Sequence[Row],
    a: str | tuple[str, ...],
    b: str | tuple[str, ...],
    dataset: str | None = None,
    *,
    num_resamples: int = RESAMPLES,
) -> Comparison:
    """Row a minus row b on the same draws of test patients, with what training seeds add.

    That is pooled over the trained rows of the data set that have two seeds or more (`seed_spread`).

    Args:
        rows: all rows of the study: those not compared tell how much seeds differ.
        a, b: labels; of a tuple the mean over all its rows' runs.
        dataset: where the rows are of several.
    Raises:
        ValueError: rows of several data sets, or scored on different images.
    """
    labels = [label if isinstance(label, tuple) else (label,) for label in (a, b)]
    sides, (a, b) = [pick(rows, *names, dataset=dataset) for names in labels], map(", ".join, labels)
    every = [row for side in sides for row in side]
    if len(every) > len(labels[0] + labels[1]) or len({row.dataset for row in every}) > 1:
        raise ValueError(f"{a} and {b} must be rows of one data set, got several: name it with dataset=")
    if len(every) < len(labels[0] + labels[1]) or not all(row.runs for row in every):
        return Comparison(a=a, b=b)
    first, *others = (stacked(row) for row in every)
    if not all(same_images(first, other) for other in others):
        raise ValueError(f"{a} and {b} must be scored on the same test images, got others")
    several = [row for row in rows if row.dataset == every[0].dataset and len(row.runs) > 1 and is_trained(row.runs[0])]
    spread = seed_spread(resampled(row, num_resamples) for row in several if _tested(row))
    left, right = (together([resampled(row, num_resamples) for row in side]) for side in sides)
    return comparison_of(a, b, left, right, spread)


def comparison_of(a: str, b: str, left: Resampled, right: Resampled, spread: SeedSpread) -> Comparison:
    """`difference_of` in points, with the names of both sides."""
    found = difference_of(left, right, spread)
    points = {name: 100 * getattr(found, name) for name in ("difference", "low", "high")}
    seeds = {"seeds_a": len(left.observed), "seeds_b": len(right.observed)}
    return Comparison(a=a, b=b, **points, **seeds, p=found.p_value, seeds_known=spread.degrees > 0)


def family(
    rows: Sequence[Row], pairs: Iterable[tuple[str, str]], dataset: str | None = None, **options: Any
) -> pd.DataFrame:
    """Comparisons that were named together, their p-values corrected for how many there are (Holm).

    Returns:
        the fields of a `Comparison`, `tie` and `p_holm`, a line per pair of which both are measured.
    """
    found = [compare(rows, a, b, dataset, **options) for a, b in pairs]
    table = pd.DataFrame([{**vars(one), "tie": one.tie} for one in found if one.tie is not None])
    return table.assign(p_holm=holm(table["p"])) if len(table) else table


def histories(rows: Iterable[Row]) -> pd.DataFrame:
    """Every epoch of every run: `encoder, dataset, seed, epoch` and the history's columns."""
    runs = [(row, run) for row in rows for run in row.runs if not run.history.empty]
    parts = [run.history.assign(encoder=row.label, dataset=row.dataset, seed=run.record["seed"]) for row, run in runs]
    return pd.concat(parts, ignore_index=True) if parts else pd.DataFrame()


def policy_scores(rows: Iterable[Row]) -> pd.DataFrame:
    """What val said of each run, the rows being policies: `policy, dataset, seed, metric, online, knn, linear`.

    The online probe's figure is the mean of its last three: it chases a moving encoder.
    """
    lines, runs = [], [(row, run) for row in rows for run in row.runs]
    for row, run in runs:
        (_, metric, figures), history = figures_of(run), run.history
        line = {"policy": row.label, "dataset": row.dataset, "seed": run.record["seed"], "metric": metric}
        line |= {"online": history[f"online_{metric}"].tail(3).mean()}
        lines.append(line | {"knn": history[f"knn_{metric}"].iloc[-1], "linear": figures["val"][metric]})
    return pd.DataFrame(lines)


def mean_interval(values: ArrayLike) -> tuple[float, float, float]:
    """Mean of paired differences and Student's 95 % interval, nan for a single one."""
    v = np.asarray(values, dtype=np.float64)
    mean, n = float(v.mean()), len(v)
    half = float(stats.t.ppf(0.975, n - 1) * v.std(ddof=1) / np.sqrt(n)) if n > 1 else NAN
    return mean, mean - half, mean + half


def paired(scores: pd.DataFrame, against: str, *, of: str = "policy", column: str = "online") -> pd.DataFrame:
    """Each policy's mean, best first, and its points above another's, seed by seed.

    Args:
        scores: `seed`, names in the column `of`, figures in `column`, of one data set.
    Returns:
        `of, value, sd, difference, low, high, pairs`: Student's interval over the seeds that both have.
    """
    table = scores.pivot_table(index="seed", columns=of, values=column)
    lines, reference = [], table.get(against, pd.Series(np.nan, table.index))
    for name in table:
        above = 100 * (table[name] - reference).dropna().to_numpy()
        difference, low, high = mean_interval(above) if len(above) else (NAN, NAN, NAN)
        line = {of: name, "value": table[name].mean(), "sd": table[name].std(), "difference": difference}
        lines.append(line | {"low": low, "high": high, "pairs": len(above)})
    return pd.DataFrame(lines).sort_values("difference", ascending=False, ignore_index=True)
