"""What is measured on a frozen run stays in its folder, so that pages need records alone; how few labels it needs."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd

from ..config import ProbeConfig, RuntimeConfig
from ..data import Dataset, keep_labels
from ..evaluate import prediction_table, run_features
from ..probe import Features, PairedDifference, Resampled, difference_of, linear_probe, seed_spread
from ..runs import Run, run_lock
from ..writing import PART, write_json, write_table
from .plan import Row
from .scores import RESAMPLES, figures_of, resampled_scores, same_images, scores_of
from .tables import paired

__all__ = ["gather", "label_curve", "label_curves", "label_summary", "record_reads", "recorded", "require_data"]


def recorded(run: Run, name: str) -> pd.DataFrame | None:
    """The table of that name in a run's folder, compressed or not, if it is there."""
    return next((pd.read_csv(file) for file in run.path.glob(f"{name}.csv*") if file.suffix != PART), None)


def record_reads(run: Run, name: str, table: pd.DataFrame, counter: str, looks: int) -> None:
    """Add to how often test was read in the run's record, then write the table that these looks made."""
    write_json(run.path / "metrics.json", run.metrics | {counter: run.metrics.get(counter, 0) + looks})
    write_table(run.path / f"{name}.csv", table)


def require_data(run: Run, dataset: Dataset) -> None:
    """Refuse data that are not the run's, with a ValueError."""
    if dataset.fingerprint != run.record["fingerprint"]:
        raise ValueError(f"dataset must be the one that run {run.id} was trained on, got other images or labels")


def gather(
    rows: Iterable[Row], measure: Callable[..., pd.DataFrame], data: Mapping[str, Dataset], *options: Any
) -> pd.DataFrame:
    """What is measured on the first run of every row, below each other, with `encoder, dataset, seed`.

    `measure` is called with the run, its data set and the options; FileNotFoundError of it leaves the run out.
    """
    tables = []
    for row in rows:
        for run in row.runs[:1]:
            with suppress(FileNotFoundError):
                table = measure(run, data[row.dataset], *options)
                tables.append(table.assign(encoder=row.label, dataset=row.dataset, seed=run.record["seed"]))
    return pd.concat(tables, ignore_index=True) if tables else pd.DataFrame(columns=["encoder", "dataset", "seed"])


def label_curve(
    run: Run, dataset: Dataset, fractions: Iterable[float], runtime: RuntimeConfig = RuntimeConfig(), draws: int = 5
) -> pd.DataFrame:
    """The linear probe on draws of parts of the training labels, the same for every run, scored on test.

    Rows that the run's folder has are not measured again; `label_reads` of its record counts the others. The scores
    that they were made of are kept as ranks (`label_predictions`), which is all that AUC and accuracy look at.

    Args:
        fractions: parts of the labels, above 0 and below 1, drawn by class and whole patients. draws: of each part.
    Returns:
        `fraction, draw, num_labels, num_patients, c` (chosen on these labels), `val, test`.
    """
    require_data(run, dataset)
    known, kept = recorded(run, "label_curve"), recorded(run, "label_predictions")
    there = set() if known is None else set(zip(known["fraction"], known["draw"], strict=True))
    wanted = [(float(fraction), draw) for fraction in fractions for draw in range(draws)]
    if asked := [pair for pair in wanted if pair not in there]:
        with run_lock(run, doing="probed"):
            features = {name: run_features(run, name, split, runtime) for name, split in dataset.splits.items()}
            rows, scores = zip(*(_one_draw(dataset, features, *pair) for pair in asked), strict=True)
            known = pd.concat([known, pd.DataFrame(rows)]).sort_values(["fraction", "draw"], ignore_index=True)
            record_reads(run, "label_curve", known, "label_reads", len(rows))
            write_table(run.path / "label_predictions.csv.gz", pd.concat([kept, *scores]))
    assert known is not None
    return known[[pair in wanted for pair in zip(known["fraction"], known["draw"], strict=True)]]


def _one_draw(dataset: Dataset, features: Mapping[str, Features], fraction: float, draw: int) -> tuple[Any, ...]:
    kept = keep_labels(dataset, fraction, draw).train
    train = Features(features["train"].x, kept.labels.numpy(), kept.groups).labelled()
    units = len(train) if train.groups is None else len(np.unique(train.groups))
    config = ProbeConfig(folds=max(2, min(ProbeConfig.folds, units)))
    about: dict[str, Any] = {"task": dataset.task, "num_outputs": dataset.num_outputs, "config": config}
    found = linear_probe(train, features["val"], features["test"], **about)
    metric = "accuracy" if dataset.task == "multiclass" else "auc"
    line = {"fraction": fraction, "draw": draw, "num_labels": len(train), "num_patients": units, "c": found.c}
    ranks = np.unique(found.scores["test"], return_inverse=True)[1].reshape(found.scores["test"].shape)
    said = prediction_table(dataset, features["test"].labelled(), ranks).filter(like="score/")
    line |= {name: values[metric] for name, values in found.metrics.items()}
    return line, said.assign(fraction=fraction, draw=draw)


def _scores_of_draws(run: Run, curve: pd.DataFrame) -> pd.Series:
    """What the probe of each line said of test, as ranks; None where that was not kept."""
    kept, own = recorded(run, "label_predictions"), scores_of(run)
    found = {} if kept is None else dict(list(kept.filter(like="score/").groupby([kept["fraction"], kept["draw"]])))
    said = (found.get(pair) for pair in zip(curve["fraction"], curve["draw"], strict=True))
    stacks = [None if t is None else replace(own, stack=t.to_numpy(float).reshape(own.stack.shape)) for t in said]
    return pd.Series(stacks, curve.index, dtype=object)


def label_curves(
    rows: Iterable[Row], data: Mapping[str, Dataset], fractions: Sequence[float],
    runtime: RuntimeConfig = RuntimeConfig(), draws: int = 5,
) -> pd.DataFrame:  # fmt: skip
    """`label_curve` of every frozen run that can be read here, and what every run reached on the labels it was given.

    Returns:
        `encoder, dataset, seed, fraction, draw, num_labels, test, metric, scores` (of test, None where they were not
        kept); the draw of end-to-end training is its seed.
    """
    parts, runs = [], [(row, run) for row in rows for run in row.runs]
    for row, run in runs:
        (protocol, metric, figures), dataset = figures_of(run), data[row.dataset]
        fraction, seed = float(run.record.get("label_fraction", 1.0)), run.record["seed"]
        kept = keep_labels(dataset, fraction, seed) if fraction < 1 else dataset
        line = {"fraction": fraction, "draw": seed if fraction < 1 else 0, "test": figures["test"][metric]}
        line |= {"num_labels": int(kept.train.labelled.sum()), "scores": scores_of(run)}
        tables = [pd.DataFrame([line])]
        if protocol == "frozen":
            with suppress(FileNotFoundError):
                curve = label_curve(run, dataset, fractions, runtime, draws)
                tables.append(curve.assign(scores=_scores_of_draws(run, curve)))
        parts += [table.assign(encoder=row.label, dataset=row.dataset, seed=seed, metric=metric) for table in tables]
    return pd.concat(parts, ignore_index=True)


def label_summary(curves: pd.DataFrame, against: str = "Supervised", num_resamples: int = RESAMPLES) -> pd.DataFrame:
    """Each encoder's mean over draws of one data set's labels, and its points above another, draw by draw.

    Seeds of one draw are averaged first. The interval is over test patients and draws of labels where scores were kept,
    of those seeds alone; else it is Student's over draws, of the same test images, and too narrow.

    Returns:
        `encoder, fraction, num_labels, mean, sd, difference, low, high, pairs, seeds, patients_resampled`.
    """
    lines = []
    for fraction, part in curves.groupby("fraction"):
        kept = part["scores"].notna()
        part = part[kept | ~kept.groupby(part["encoder"]).transform("any")]
        table = paired(part.assign(seed=part["draw"]), against, of="encoder", column="test")
        for line in table.rename(columns={"value": "mean"}).to_dict("records"):
            one, other = (part[part["encoder"] == name] for name in (line["encoder"], against))
            found = _draw_by_draw(one, other, num_resamples)
            line |= {} if found is None else {"low": 100 * found.low, "high": 100 * found.high}
            line |= {"seeds": one["seed"].nunique(), "patients_resampled": found is not None}
            lines.append({**line, "fraction": fraction, "num_labels": part["num_labels"].mean()})
    return pd.DataFrame(lines)


def _draw_by_draw(a: pd.DataFrame, b: pd.DataFrame, num_resamples: int) -> PairedDifference | None:
    """One encoder's lines minus another's over the draws of both, which vary as seeds do; None without kept scores."""
    both = set(a["draw"]) & set(b["draw"])
    a, b = (side[side["draw"].isin(both)] for side in (a, b))
    if len(both) < 2 or pd.concat([a["scores"], b["scores"]]).isna().any():
        return None
    left, right = (_resampled_draws(side, num_resamples) for side in (a, b))
    spread = seed_spread([replace(left, observed=left.observed - right.observed, draws=left.draws - right.draws)])
    return difference_of(left, right, spread._replace(variance=spread.variance / 2))  # half of it is each side's


def _resampled_draws(lines: pd.DataFrame, num_resamples: int) -> Resampled:
    """The metric on each draw of labels, the mean over seeds, and on the same draws of patients."""
    first, *others = lines["scores"]
    assert all(same_images(first, other) for other in others)
    scores = replace(first, stack=np.concatenate([one.stack for one in lines["scores"]]))
    found = resampled_scores(scores, lines["metric"].iloc[0], num_resamples)
    of = [np.flatnonzero(lines["draw"] == draw) for draw in sorted(set(lines["draw"]))]
    draws = np.stack([found.draws[:, i].mean(axis=1) for i in of], axis=1)
    return replace(found, observed=np.array([found.observed[i].mean() for i in of]), draws=draws)
