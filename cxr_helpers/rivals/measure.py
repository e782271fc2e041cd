"""A finished run under every control: what is left of its test AUC, with what each image adds resampled by patient.

The probe, its features and its C are the run's own; a control on the images has features and a C of its own, chosen
on folds of train as always, so that each rival explanation gets its best chance.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from ..config import ProbeConfig, RuntimeConfig
from ..data import Dataset, Split, keep_labels
from ..evaluate import run_features
from ..probe import (
    Features,
    WeightedMetric,
    auc_score,
    bootstrap_band,
    choose_c,
    cross_validate,
    fit_head,
    predict,
    split_folds,
    weighted_macro_auc,
    weighted_means,
)
from ..runs import Run, run_lock, write_json, write_table
from .inputs import ALONE, INPUTS, changed
from .labels import shuffled_scores
from .statistics import SUMMARIES, grey_statistics, sharpness_statistics, summary_statistics, within_class_products
from .subsets import is_medmnists_own, without_near_copies, without_train_patients

__all__ = [
    "AS_MEASURED",
    "NO_ENCODER",
    "OWN_IMAGES",
    "SHUFFLED",
    "SHUFFLED_BEST",
    "STRANGERS",
    "controls",
    "correlations",
]

AS_MEASURED = "as measured"
SHUFFLED, SHUFFLED_BEST = "shuffled labels", "shuffled labels, best on val"
NO_ENCODER = ("grey levels alone", "sharpness alone", "grey levels and sharpness alone")
NO_COPIES, OWN_IMAGES, STRANGERS = "no near copy in train", "MedMNIST's own images", "no patient of train"
SHUFFLED_FITS = 40  # logistic regressions on shuffled labels: their mean is known to a sixth of their spread
FEWEST_DRAWS = 10  # with several labels a draw is as many fits
DRAW_RESAMPLES = 200  # of patients, for each draw: as many resamples in all as the others have, or more

Floats = NDArray[np.float64]


@dataclass(frozen=True, eq=False, kw_only=True)
class _Probed:
    """A run's probe: features and scores by split, of labelled rows."""

    dataset: Dataset
    features: dict[str, Features]
    scores: dict[str, Floats]
    c: float
    probe: ProbeConfig

    @property
    def options(self) -> dict[str, Any]:
        return {"task": self.dataset.task, "num_outputs": self.dataset.num_outputs, "max_iter": self.probe.max_iter}

    def labelled(self, name: str, mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
        """A mask over all images of a split as one over those with labels."""
        return mask[self.dataset.splits[name].labelled.numpy()]


def _require(run: Run, dataset: Dataset) -> None:
    if dataset.fingerprint != run.record["fingerprint"]:
        raise ValueError(f"dataset must be the one that run {run.id} was trained on, got other images or labels")
    if not run.metrics.get("test_reads"):
        raise ValueError(
            f"controls read test, so their run must have been scored on it, got {run.id}, which was not: "
            "evaluate it with test=True first"
        )


def _probed(run: Run, dataset: Dataset, runtime: RuntimeConfig, probe: ProbeConfig) -> _Probed:
    if float(run.record["label_fraction"]) < 1:
        dataset = keep_labels(dataset, float(run.record["label_fraction"]), int(run.record["seed"]))
    features = {name: run_features(run, name, split, runtime).labelled() for name, split in dataset.splits.items()}
    train, c = features["train"], float(run.metrics["linear"]["c"])
    options: dict[str, Any] = {"task": dataset.task, "num_outputs": dataset.num_outputs, "max_iter": probe.max_iter}
    head = fit_head(train.x, train.labels, c=c, **options)
    scores = {name: predict(head.logits(features[name].x), dataset.task) for name in ("val", "test")}
    return _Probed(dataset=dataset, features=features, scores=scores, c=c, probe=probe)


def controls(
    run: Run, dataset: Dataset, runtime: RuntimeConfig = RuntimeConfig(), probe: ProbeConfig = ProbeConfig()
) -> pd.DataFrame:
    """AUC under every control, with 95 % intervals over patients, and its difference to the probe as it was measured.

    Kept in the run's `controls.csv`; the record's `control_reads` counts how many AUCs of controls were read on test.

    Args:
        run: a finished run whose test has been scored.
    Returns:
        A row per control: `control, kind, split, auc, low, high, difference, difference_low, difference_high, images,
        patients, c` and, of shuffled labels, `draws` and the spread over them: `draw_sd, draw_low, draw_high` (95 %).
        The kinds: measured; removed (all but what the objection names); alone (that and no more); nothing (no label
        to learn from).
        A difference is paired: the same resampled patients on both sides, whose images may be fewer on one.
    Raises:
        ValueError: other data than the run's, or a run whose test has not been scored.
        FileNotFoundError: neither the table nor the weights are there.
        LockedError: the table is not there and another process trains or probes this run.
    """
    _require(run, dataset)
    file = run.path / "controls.csv"
    if file.is_file():
        return pd.read_csv(file)
    with run_lock(run, doing="probed"):
        probed = _probed(run, dataset, runtime, probe)
        rows = [_row(AS_MEASURED, "measured", "test", probed, probed.scores["test"], c=probed.c)]
        rows += _on_labels(probed)
        rows += _on_images(run, probed, runtime)
        rows += _without_encoder(probed)
        rows += _on_subsets(probed)
        table = pd.DataFrame(rows)
        on_test = (table["split"] == "test") & (table["control"] != AS_MEASURED)
        shuffles = table["draws"][on_test & (table["control"] == SHUFFLED)]
        looks = int(on_test.sum() + (shuffles - 1).sum())  # every shuffle is a look of its own
        counted = run.metrics.get("control_reads", 0) + looks
        write_json(run.path / "metrics.json", {**run.metrics, "control_reads": counted})
        write_table(file, table)
    return table


def _row(
    control: str,
    kind: str,
    split: str,
    probed: _Probed,
    scores: Floats,
    *,
    keep: NDArray[np.bool_] | None = None,
    resamples: int = 2000,
    **more: Any,
) -> dict[str, Any]:
    """One control's AUC on the images kept, and its difference to the run's own scores on all of the split."""
    features = probed.features[split]
    band = bootstrap_band(
        features.labels, scores, features.groups, curve=_against(probed.scores[split], keep), num_resamples=resamples
    )
    kept = np.ones(len(features), dtype=bool) if keep is None else keep
    patients = np.flatnonzero(kept) if features.groups is None else np.unique(features.groups[kept])
    row: dict[str, Any] = {"control": control, "kind": kind, "split": split}
    for i, name in enumerate(("auc", "difference")):
        low, high = ("low", "high") if i == 0 else (f"{name}_low", f"{name}_high")
        row |= {name: band.estimate[i], low: band.low[i], high: band.high[i]}
    return row | {"images": int(kept.sum()), "patients": len(patients), **more}


def _against(base: Floats, keep: NDArray[np.bool_] | None) -> WeightedMetric:
    """For the bootstrap: AUC of the images kept, and minus the AUC of the base scores on all, [R, 2]."""

    def curve(labels: NDArray[Any], scores: Floats, weights: NDArray[Any]) -> Floats:
        ours = weighted_macro_auc(labels, scores, weights if keep is None else weights * keep)
        return np.stack([ours, ours - weighted_macro_auc(labels, base, weights)], axis=1)

    return curve


def _on_labels(probed: _Probed) -> Iterator[dict[str, Any]]:
    """The mean of many probes of shuffled labels, and the one of them that val would have picked."""
    train, val, test = (probed.features[name] for name in ("train", "val", "test"))
    draws = max(FEWEST_DRAWS, SHUFFLED_FITS // probed.dataset.num_outputs)
    on_val, on_test = shuffled_scores(train, [val, test], c=probed.c, draws=draws, **probed.options)
    aucs = np.array([auc_score(test.labels, scores) for scores in on_test])
    low, high = np.quantile(aucs, [0.025, 0.975])
    spread = {"draws": draws, "draw_sd": aucs.std(ddof=1), "draw_low": low, "draw_high": high}
    yield _row(
        SHUFFLED, "nothing", "test", probed, on_test, resamples=DRAW_RESAMPLES, c=probed.c, **spread
    )  # fmt: skip
    best = int(np.argmax([auc_score(val.labels, scores) for scores in on_val]))
    for split, scores in (("val", on_val[best]), ("test", on_test[best])):
        yield _row(SHUFFLED_BEST, "nothing", split, probed, scores, c=probed.c, draws=draws)


def _fitted(train: Features, test: Features, probed: _Probed) -> tuple[Floats, float]:
    """Test scores of a probe of its own on these features, and the C that folds of train chose for it."""
    folds = split_folds(train.labels, train.groups, folds=probed.probe.folds, seed=probed.probe.seed)
    cs = sorted(probed.probe.cs)
    c, _ = choose_c(cs, cross_validate(train.x, train.labels, folds, cs=cs, **probed.options))
    head = fit_head(train.x, train.labels, c=c, **probed.options)
    return predict(head.logits(test.x), probed.dataset.task), c


def _on_images(run: Run, probed: _Probed, runtime: RuntimeConfig) -> Iterator[dict[str, Any]]:
    """The same encoder on changed images, train and test alike."""
    for name in INPUTS:
        slug = name.replace(" ", "_").replace("/", "_")  # of the features' cache
        splits: dict[str, Split] = {key: changed(probed.dataset.splits[key], name) for key in ("train", "test")}
        train, test = (run_features(run, f"{key}_{slug}", split, runtime).labelled() for key, split in splits.items())
        scores, c = _fitted(train, test, probed)
        yield _row(name, "alone" if name in ALONE else "removed", "test", probed, scores, c=c)


def _without_encoder(probed: _Probed) -> Iterator[dict[str, Any]]:
    """Probes of a handful of numbers per image; the same for every encoder, but for the difference."""
    splits = [probed.dataset.splits[name] for name in ("train", "test")]
    grey, sharp = (
        [measure(split).labelled() for split in splits] for measure in (grey_statistics, sharpness_statistics)
    )
    both = [Features(np.hstack([g.x, s.x]), g.labels, g.groups) for g, s in zip(grey, sharp, strict=True)]
    for name, parts in zip(NO_ENCODER, (grey, sharp, both), strict=True):
        scores, c = _fitted(parts[0], parts[1], probed)
        yield _row(name, "alone", "test", probed, scores, c=c)


def _on_subsets(probed: _Probed) -> Iterator[dict[str, Any]]:
    """The run's own scores on fewer images; the first row of val is what its second compares to."""
    data = probed.dataset
    masks = {NO_COPIES: without_near_copies(data), OWN_IMAGES: is_medmnists_own(data)}
    for name, mask in masks.items():
        if mask is not None:
            keep = probed.labelled("test", mask)
            yield _row(name, "removed", "test", probed, probed.scores["test"], keep=keep, c=probed.c)
    strangers = without_train_patients(data)
    if strangers is not None:
        keep = probed.labelled("val", strangers)
        yield _row(AS_MEASURED, "measured", "val", probed, probed.scores["val"], c=probed.c)
        yield _row(STRANGERS, "removed", "val", probed, probed.scores["val"], keep=keep, c=probed.c)


def correlations(
    run: Run, dataset: Dataset, runtime: RuntimeConfig = RuntimeConfig(), probe: ProbeConfig = ProbeConfig()
) -> pd.DataFrame:
    """Rank correlation of a run's test scores with exposure and sharpness among images of one class.

    Kept in the run's `control_correlations.csv`. Intervals resample patients; ranks stay those of the whole split.

    Returns:
        A row per statistic of `SUMMARIES`: `statistic, rho, low, high, images, patients`.
    Raises:
        As `controls`.
    """
    _require(run, dataset)
    file = run.path / "control_correlations.csv"
    if file.is_file():
        return pd.read_csv(file)
    probed = _probed(run, dataset, runtime, probe)
    test = probed.features["test"]
    statistics = summary_statistics(dataset.test)[dataset.test.labelled.numpy()]
    products = within_class_products(test.labels, probed.scores["test"], statistics)
    zeros = np.zeros(products.shape, dtype=np.int64)
    band = bootstrap_band(zeros, products, test.groups, curve=weighted_means, num_resamples=2000)
    patients = len(test) if test.groups is None else len(np.unique(test.groups))
    columns = {"statistic": SUMMARIES, "rho": band.estimate, "low": band.low, "high": band.high}
    table = pd.DataFrame({**columns, "images": len(test), "patients": patients})
    write_table(file, table)
    return table
