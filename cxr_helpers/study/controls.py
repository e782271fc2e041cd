"""Rival explanations of a test score, each given its best chance: what is left without the lungs, or with nothing else.

A control on the images has features and a C of its own, chosen on folds of train; what each adds is resampled by
patient, on the same patients as the score itself. Exposure is the distribution of grey levels. The original size of a
film is gone, but shows in how much detail is left at the scale of a pixel, along both sides: energy of grey differences
one and two pixels apart against the variance. Noise and texture show there too, so what it explains, size need not.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..config import ProbeConfig, RuntimeConfig
from ..data import Dataset, Split
from ..evaluate import run_features
from ..probe import (
    Features,
    auc_score,
    bootstrap_band,
    fit_head,
    linear_probe,
    predict,
    weighted_macro_auc,
)  # fmt: skip
from ..runs import Run
from .leaks import COPY_R, nearest_in_train, own_images
from .records import count_reads, require_data, stored
from .tables import scores_of

__all__ = [
    "ALONE", "REMOVED", "challenge", "equalised", "frame", "grey_statistics", "permuted_labels", "sharpness_statistics",
    "shuffled_scores",
]  # fmt: skip

SHUFFLED_FITS, FEWEST_DRAWS = 40, 10  # logistic regressions on shuffled labels; with several labels a draw is as many
DRAW_RESAMPLES = 200  # of patients for each draw: as many in all as the other controls have, or more
PERCENTILES = (1, 10, 25, 50, 75, 90, 99)
DARK = 1e-6  # of the squared grey range: below any film's, keeps the logarithm of a blank image finite
Floats = NDArray[np.float64]


# ---- images from which one explanation was taken away, uint8 [N, C, S, S] to the same


def frame(images: Tensor, fraction: float, *, keep: bool) -> Tensor:
    """The frame of that part of the side around a black centre, or the centre in a black frame."""
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


Change = Callable[[Tensor], Tensor]
ALONE: dict[str, Change] = {  # nothing but what the objection names
    "border 1/16": partial(frame, fraction=1 / 16, keep=True),  # 23 % of the film: markers, text, edges of exposure
    "border 1/8": partial(frame, fraction=1 / 8, keep=True),  # 44 %: shoulders, flanks, abdomen come in
    "border 1/4": partial(frame, fraction=1 / 4, keep=True),  # 75 %: the outer lungs come in
}
REMOVED: dict[str, Change] = {  # all but what the objection names
    "border 1/4 removed": partial(frame, fraction=1 / 4, keep=False),  # the other 25 %: heart and inner lungs
    "grey levels equalised": equalised,
}


# ---- a handful of numbers per image, without any encoder


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


STATISTICS: dict[str, tuple[Change, ...]] = {
    "grey levels alone": (grey_statistics,),
    "sharpness alone": (sharpness_statistics,),
    "grey levels and sharpness alone": (grey_statistics, sharpness_statistics),
}


def statistics_of(measures: Sequence[Change], _: str, split: Split) -> Features:
    """These numbers side by side in an encoder's place."""
    blocks = split.images.cpu().split(512)
    x = torch.cat([torch.hstack([measure(block) for measure in measures]) for block in blocks]).float().numpy()
    return Features(x, split.labels.cpu().numpy(), split.groups).labelled()


# ---- labels with nothing to learn


def permuted_labels(
    labels: NDArray[np.int64], groups: NDArray[Any] | None, rng: np.random.Generator
) -> NDArray[np.int64]:
    """The same labels on other images, whole rows and patient by patient, so that a patient's images agree as they did.

    Where a patient has images of several labels, rows are laid out patient by patient and taken by the patients in
    another order: counts are exact and most of a patient's labels stay together.
    """
    if groups is None:
        return rng.permutation(labels, axis=0)
    _, first, patient = np.unique(groups, return_index=True, return_inverse=True)
    if np.array_equal(labels[first][patient], labels):
        return rng.permutation(labels[first], axis=0)[patient]
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


# ---- a finished run under every control


@dataclass(frozen=True, eq=False)
class _Probed:
    """A frozen encoder's features by split, and its linear probe's recorded scores of test."""

    run: Run
    dataset: Dataset
    features: dict[str, Features]
    scores: Floats

    def line(
        self, control: str, kind: str, scores: Floats, *, keep: NDArray[np.bool_] | None = None, resamples: int = 2000,
        **more: Any,
    ) -> dict[str, Any]:  # fmt: skip
        """A control's AUC on the test images kept, and its difference to the run's own scores on all of them."""
        test = self.features["test"]
        kept = np.ones(len(test), bool) if keep is None else keep[self.dataset.test.labelled.numpy()]

        def curve(labels: NDArray[Any], scores: Floats, weights: NDArray[Any]) -> Floats:
            ours = weighted_macro_auc(labels, scores, weights * kept)
            return np.stack([ours, ours - weighted_macro_auc(labels, self.scores, weights)], axis=1)

        band = bootstrap_band(test.labels, scores, test.groups, curve=curve, num_resamples=resamples)
        patients = np.arange(len(test)) if test.groups is None else test.groups
        line = {"control": control, "kind": kind, "split": "test", "images": int(kept.sum())}
        for i, names in enumerate((("auc", "low", "high"), ("difference", "difference_low", "difference_high"))):
            line |= dict(zip(names, (band.estimate[i], band.low[i], band.high[i]), strict=True))
        return line | {"patients": len(np.unique(patients[kept])), "c": self.run.metrics["linear"]["c"], **more}

    def fitted(self, control: str, kind: str, features: Callable[[str, Split], Features]) -> dict[str, Any]:
        """The line of a probe of its own on these features of a split by its name."""
        train, val, test = (features(name, split) for name, split in self.dataset.splits.items())
        found = linear_probe(train, val, test, task=self.dataset.task, num_outputs=self.dataset.num_outputs)
        return self.line(control, kind, found.scores["test"]) | {"c": found.c}


def challenge(run: Run, dataset: Dataset, runtime: RuntimeConfig = RuntimeConfig()) -> pd.DataFrame:
    """Test AUC under every control, with 95 % intervals over patients, and its difference to the probe as measured.

    `control_reads` of the run's record counts how many AUCs of controls were read on test.

    Args:
        run: of a frozen encoder whose test has been scored.
    Returns:
        `control, kind` (measured; removed: all but what the objection names; alone: that and no more; nothing: no
        label to learn from), `split, auc, low, high, difference, difference_low, difference_high, images, patients, c`
        and, of shuffled labels, `draws` and the spread over them: `draw_sd, draw_low, draw_high` (95 %).
    Raises:
        ValueError: other data than the run's, exclusive classes, or a run whose test has not been scored.
        FileNotFoundError: neither the table nor the weights are there.
    """
    require_data(run, dataset)
    if not run.metrics.get("test_reads") or dataset.task == "multiclass":
        raise ValueError(f"controls must be of a run whose labels are yes or no and scored on test, got {run.id}")

    def measure() -> pd.DataFrame:
        features = {
            name: run_features(run, name, dataset.splits[name], runtime).labelled() for name in ("train", "test")
        }
        probed = _Probed(run, dataset, features, scores_of(run).stack[0])
        lines = [probed.line("as measured", "measured", probed.scores), _on_labels(probed)]
        table = pd.DataFrame([*lines, *_on_images(probed, runtime), *_on_subsets(probed)])
        looks = len(table) - 2 + int(table["draws"].max())  # every shuffle is a look of its own
        count_reads(run, "control_reads", looks)
        return table

    return stored(run, "controls", measure)


def _on_labels(probed: _Probed) -> dict[str, Any]:
    """The mean of many probes of shuffled labels."""
    test, draws = probed.features["test"], max(FEWEST_DRAWS, SHUFFLED_FITS // probed.dataset.num_outputs)
    found = shuffled_scores(probed.features["train"], test, c=float(probed.run.metrics["linear"]["c"]), draws=draws)
    aucs = np.array([auc_score(test.labels, scores) for scores in found])
    low, high = np.quantile(aucs, [0.025, 0.975])
    spread = {"draws": draws, "draw_sd": aucs.std(ddof=1), "draw_low": low, "draw_high": high}
    return probed.line("shuffled labels", "nothing", found, resamples=DRAW_RESAMPLES, **spread)


def _on_images(probed: _Probed, runtime: RuntimeConfig) -> Iterator[dict[str, Any]]:
    """The same encoder on changed images, in train as in test; then no encoder at all."""
    for name, change in (ALONE | REMOVED).items():
        slug = name.replace(" ", "_").replace("/", "_")  # of the features' cache

        def read(key: str, split: Split, change: Change = change, slug: str = slug) -> Features:
            images = torch.cat([change(block) for block in split.images.cpu().split(512)])
            return run_features(probed.run, f"{key}_{slug}", replace(split, images=images), runtime).labelled()

        yield probed.fitted(name, "alone" if name in ALONE else "removed", read)
    for name, measures in STATISTICS.items():
        yield probed.fitted(name, "alone", partial(statistics_of, measures))


def _on_subsets(probed: _Probed) -> Iterator[dict[str, Any]]:
    """The run's own scores on fewer images."""
    own, unseen = own_images(probed.dataset), nearest_in_train(probed.dataset) < COPY_R
    yield probed.line("no near copy in train", "removed", probed.scores, keep=unseen)
    if own is not None:
        yield probed.line("MedMNIST's own images", "removed", probed.scores, keep=own)
