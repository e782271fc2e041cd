"""Rival explanations of a test score, each given its best chance: what is left without the lungs, or with nothing else.

A control on the images has features and a C of its own, chosen on folds of train; what each adds is resampled by
patient, on the same patients as the score itself. Sharpness holds noise and texture as well as a film's original size.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..config import ProbeConfig, RuntimeConfig
from ..data import Dataset
from ..evaluate import run_features
from ..probe import Features, bootstrap_ci, fit_head, linear_probe, paired_bootstrap, predict
from ..runs import Run, run_lock
from .frozen import record_reads, recorded, require_data
from .scores import scores_of

__all__ = ["challenge", "equalised", "frame", "grey_statistics", "permuted_labels", "sharpness_statistics",
           "shuffled_scores"]  # fmt: skip

SHUFFLED_FITS, FEWEST_DRAWS = 40, 10  # logistic regressions on shuffled labels; with several labels a draw is as many
DRAW_RESAMPLES = 200  # of patients for each draw: as many in all as the other controls have, or more
PERCENTILES = (1, 10, 25, 50, 75, 90, 99)
DARK = 1e-6  # of the squared grey range: below any film's, keeps the logarithm of a blank image finite
Floats = NDArray[np.float64]
Change = Callable[[Tensor], Tensor]


def frame(images: Tensor, fraction: float, *, keep: bool) -> Tensor:
    """Of uint8 images [N, C, S, S] the frame, that part of the side wide, around black, or the centre in black."""
    width, side = max(1, round(images.shape[-1] * fraction)), images.shape[-1]
    inside = torch.zeros(side, side, dtype=torch.bool)
    inside[width : side - width, width : side - width] = True
    return images * (~inside if keep else inside)


def equalised(images: Tensor) -> Tensor:
    """The histogram of every image made flat: a pixel becomes its rank in its image, ties the middle one."""
    levels = images.reshape(len(images), -1).long()
    counts = torch.zeros(len(images), 256, dtype=torch.long).scatter_add_(1, levels, torch.ones_like(levels))
    grey = (counts.cumsum(1) - 0.5 * (counts + 1)) * (255 / max(levels.shape[1] - 1, 1))
    return grey.gather(1, levels).round().to(torch.uint8).reshape(images.shape)


CHANGES: dict[str, tuple[str, Change]] = {  # alone: nothing but what the objection names; removed: all but that
    "border 1/16": ("alone", partial(frame, fraction=1 / 16, keep=True)),  # 23 %: markers, text, edges of exposure
    "border 1/8": ("alone", partial(frame, fraction=1 / 8, keep=True)),  # 44 %: shoulders, flanks, abdomen come in
    "border 1/4": ("alone", partial(frame, fraction=1 / 4, keep=True)),  # 75 %: the outer lungs come in
    "border 1/4 removed": ("removed", partial(frame, fraction=1 / 4, keep=False)),  # 25 %: heart and inner lungs
    "grey levels equalised": ("removed", equalised),
}


def grey_statistics(images: Tensor) -> Tensor:
    """Mean, standard deviation and seven percentiles of each image's grey levels, in [0, 1]: [N, 9]."""
    levels = images.reshape(len(images), -1).sort(dim=1).values.float() / 255
    at = [round((levels.shape[1] - 1) * p / 100) for p in PERCENTILES]
    return torch.cat([levels.mean(1, keepdim=True), levels.std(1, keepdim=True), levels[:, at]], dim=1)


def sharpness_statistics(images: Tensor) -> Tensor:
    """Logarithm of the energy of grey differences across and down, 1 and 2 px apart, against the variance: [N, 4]."""
    x = images.float().mean(dim=1) / 255  # [N, S, S]
    pairs = [(x[:, :, k:] - x[:, :, :-k], x[:, k:] - x[:, :-k]) for k in (1, 2)]
    energy = torch.stack([d.square().mean(dim=(1, 2)) for pair in pairs for d in pair], dim=1)
    return torch.log((energy + DARK) / (x.var(dim=(1, 2))[:, None] + DARK))


STATISTICS: dict[str, Change] = {
    "grey levels alone": grey_statistics,
    "sharpness alone": sharpness_statistics,
    "grey levels and sharpness alone": lambda x: torch.hstack([grey_statistics(x), sharpness_statistics(x)]),
}


def permuted_labels(
    labels: NDArray[np.int64], groups: NDArray[Any] | None, rng: np.random.Generator
) -> NDArray[np.int64]:
    """The same labels on other images, whole rows and patient by patient: a patient's images agree as they did."""
    if groups is None:
        return rng.permutation(labels, axis=0)
    _, first, patient = np.unique(groups, return_index=True, return_inverse=True)
    if np.array_equal(labels[first][patient], labels):
        return rng.permutation(labels[first], axis=0)[patient]
    # Of patients with several labels counts are exact, and most of a patient's labels stay together.
    given, taken = (np.argsort(rng.permutation(len(first))[patient], kind="stable") for _ in range(2))
    moved = np.empty_like(labels)
    moved[taken] = labels[given]
    return moved


def shuffled_scores(train: Features, test: Features, *, c: float, draws: int) -> Floats:
    """Scores [draws, N] or [draws, N, L] of probes of permuted labels, all draws in one fit: their losses add up."""
    permuted = [permuted_labels(train.labels, train.groups, np.random.default_rng(draw)) for draw in range(draws)]
    y = np.concatenate([labels.reshape(len(train), -1) for labels in permuted], axis=1)
    head = fit_head(train.x, y, task="multilabel", num_outputs=y.shape[1], c=c, max_iter=ProbeConfig.max_iter)
    scores = predict(head.logits(test.x), "multilabel").reshape(len(test), draws, -1)
    return np.moveaxis(scores, 1, 0).reshape(draws, *test.labels.shape)


def challenge(run: Run, dataset: Dataset, runtime: RuntimeConfig = RuntimeConfig()) -> pd.DataFrame:
    """Test AUC of a frozen run under every control, with 95 % intervals over patients, and its difference to the probe.

    The table stays in the run's folder; `control_reads` of its record counts the AUCs of controls read on test.

    Returns:
        `control, kind` (measured; removed: all but what the objection names; alone: that and no more; nothing: the
        mean of many probes of shuffled labels), `split, auc, low, high, difference, difference_low, difference_high`.
    Raises:
        ValueError: other data than the run's, exclusive classes, or a run whose test has not been scored.
        FileNotFoundError: neither the table nor the weights are there.
    """
    require_data(run, dataset)
    if not run.metrics.get("test_reads") or dataset.task == "multiclass":
        raise ValueError(f"controls must be of a run whose labels are yes or no and scored on test, got {run.id}")
    if (table := recorded(run, "controls")) is not None:
        return table
    with run_lock(run, doing="probed"):
        draws = max(FEWEST_DRAWS, SHUFFLED_FITS // dataset.num_outputs)
        table = pd.DataFrame(_lines(run, dataset, runtime, draws))
        record_reads(run, "controls", table, "control_reads", len(table) - 2 + draws)  # every shuffle is a look
    return table


def _lines(run: Run, dataset: Dataset, runtime: RuntimeConfig, draws: int) -> Iterator[dict[str, Any]]:
    train, test = (run_features(run, name, dataset.splits[name], runtime).labelled() for name in ("train", "test"))
    measured, splits = scores_of(run).stack[0], dataset.splits
    line = partial(_line, test, measured)
    yield line("as measured", "measured", measured)
    shuffled = shuffled_scores(train, test, c=float(run.metrics["linear"]["c"]), draws=draws)
    yield line("shuffled labels", "nothing", shuffled, resamples=DRAW_RESAMPLES)
    for name, (kind, change) in CHANGES.items():  # in train as in test
        slug = name.replace(" ", "_").replace("/", "_")  # of the features' cache
        changed = ((key, replace(s, images=_in_blocks(change, s.images))) for key, s in splits.items())
        features = [run_features(run, f"{key}_{slug}", split, runtime) for key, split in changed]
        yield line(name, kind, _refitted(dataset, features))
    for name, measure in STATISTICS.items():
        numbers = ((_in_blocks(measure, s.images).numpy(), s) for s in splits.values())
        features = [Features(x, s.labels.cpu().numpy(), s.groups) for x, s in numbers]
        yield line(name, "alone", _refitted(dataset, features))


def _in_blocks(change: Change, images: Tensor) -> Tensor:
    return torch.cat([change(block) for block in images.cpu().split(512)])


def _refitted(dataset: Dataset, features: list[Features]) -> Floats:
    """Test scores of a probe of its own on these features of the three splits."""
    how: dict[str, Any] = {"task": dataset.task, "num_outputs": dataset.num_outputs}
    return linear_probe(*(part.labelled() for part in features), **how).scores["test"]


def _line(
    test: Features, measured: Floats, control: str, kind: str, scores: Floats, resamples: int = 2000
) -> dict[str, Any]:
    """A control's AUC on test, and its difference to that of the measured scores."""
    own = bootstrap_ci(test.labels, scores, test.groups, num_resamples=resamples)
    gap = paired_bootstrap(test.labels, scores, measured, test.groups, num_resamples=resamples)
    line = {"control": control, "kind": kind, "split": "test", "auc": own.estimate, "low": own.low, "high": own.high}
    return line | {"difference": gap.difference, "difference_low": gap.low, "difference_high": gap.high}
