"""Rivals of a pretext task, that learn nothing of films: pretext accuracy tells only by how much it beats them."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from sklearn.decomposition import PCA
from torch import Tensor

from ..augment import CORRUPTIONS, KINDS, count_patches, draw_corruption, draw_patches, draw_rectangles, rearrange
from ..config import ProbeConfig
from ..data import Dataset, Split
from ..fields import require
from ..probe import fit_head
from .controls import Floats, sharpness_statistics

__all__ = ["inpainting_rivals", "patch_rivals", "rival_accuracies"]

MOST_COMPONENTS, MOST_HELD, MASKS, SEED = 256, 50, 2, 0
FACTORS = (1.0, 10.0, 100.0, 1000.0)  # what PCA leaves of a film is smooth: each pixel tells less than white noise's
Measure = Callable[[Tensor], Tensor]


def thumbnail(images: Tensor, side: int) -> Tensor:
    """Means of grey, in [0, 1], over side x side fields of uint8 images [N, C, S, S]: [N, side * side]."""
    return F.adaptive_avg_pool2d(images.float() / 255, side).mean(1).flatten(1)


def sharpness_inside(images: Tensor) -> Tensor:
    """Sharpness 1 and 2 px apart, mean of both directions and all quadrants, [N, 2]: blind to all but interpolation."""
    half = images.shape[-1] // 2
    inside = [sharpness_statistics(torch.rot90(images, k, (2, 3))[..., :half, :half]) for k in range(4)]
    return torch.stack(inside).mean(0).unflatten(1, (2, 2)).mean(2)


RIVALS: dict[str, dict[str, Measure]] = {
    "rotation": {f"{side} x {side} means": partial(thumbnail, side=side) for side in (2, 4)},
    "consistency": {"8 x 8 means": partial(thumbnail, side=8), "sharpness": sharpness_statistics},  # with seams, ...
}
RIVALS["consistency"]["sharpness inside quadrants"] = sharpness_inside  # ... and without


def rival_accuracies(dataset: Dataset, method: str) -> pd.DataFrame:
    """Accuracy on val of logistic regressions, fitted on train, on a few numbers of each image, by `RIVALS`.

    Args:
        method: "rotation": which quarter turn. "consistency": intact or corrupted, each image once as each; the whole
            task, each family and each operation (of quadrants none) have a fit of their own.
    """
    require(method in RIVALS, "method", f"one of {', '.join(RIVALS)}", method)
    splits, lines = (dataset.train, dataset.val), []
    for rival, measure in RIVALS[method].items():
        intact = [measure_copies(measure, split, torch.zeros(len(split), 1, dtype=torch.long)) for split in splits]
        for operation, kinds in questions(method, list(map(len, splits))).items():
            copies = map(partial(measure_copies, measure), splits, kinds)
            train, val = (np.concatenate(pair, axis=1) for pair in zip(intact, copies, strict=True))  # [N, K, D]
            places = np.arange(train.shape[1])  # the classes
            x, y = np.concatenate(train), np.tile(places, len(train))
            head = fit_head(x, y, task="multiclass", num_outputs=len(places), c=1.0, max_iter=ProbeConfig.max_iter)
            right = (head.logits(val).argmax(axis=2) == places).mean(axis=0)
            found = {operation: right.mean()} | (dict(zip(KINDS, right, strict=False)) if method == "rotation" else {})
            lines += [(method, rival, name, float(accuracy), len(val)) for name, accuracy in found.items()]
    return pd.DataFrame(lines, columns=["pretext", "rival", "operation", "accuracy", "images"])


def questions(method: str, counts: list[int]) -> dict[str, list[Tensor]]:
    """What becomes of so many images of each split, places in `KINDS` [N, 3 or 1], by operation."""
    if method == "rotation":
        return {"all": [torch.arange(1, 4).expand(count, 3) for count in counts]}
    draws = [torch.rand(count, 2, generator=torch.Generator().manual_seed(SEED)) for count in counts]
    asked = {"all": tuple(CORRUPTIONS)} | {family: (family,) for family in CORRUPTIONS}
    drawn = {name: [draw_corruption(d, allowed)[:, None] for d in draws] for name, allowed in asked.items()}
    named = [name for family in CORRUPTIONS if family != "quadrants" for name in CORRUPTIONS[family]]
    return drawn | {name: [torch.full((count, 1), KINDS.index(name)) for count in counts] for name in named}


def measure_copies(measure: Measure, split: Split, kinds: Tensor) -> Floats:
    """What is measured of each image rearranged in the ways of its row of kinds [N, K]: [N, K, D]."""
    blocks = zip(split.images.cpu().split(256), kinds.split(256), strict=True)
    x = [measure(rearrange(b.repeat_interleave(kinds.shape[1], 0), ways.flatten())) for b, ways in blocks]
    return torch.cat(x).double().unflatten(0, kinds.shape).numpy()


def inpainting_rivals(dataset: Dataset, low: float, high: float) -> pd.DataFrame:
    """L1 inside rectangles of that part of the area (low to high) hidden in val: of train's mean image, and gappy PCA.

    A coefficient's ridge is noise over variance, times the factor that is best on train images held out of the fit
    (Tipping & Bishop 1999). `l1` is of grey in [0, 1], the mean within each rectangle, then over all.
    """
    table = _guesses(dataset, 4, lambda draws: draw_rectangles(draws, dataset.size, low, high), np.abs)
    return table.rename(columns={"error": "l1"}).assign(pretext="inpainting")


def patch_rivals(dataset: Dataset, patch: int, ratio: float, *, centring: float = 0.0) -> pd.DataFrame:
    """As `inpainting_rivals`, of patches hidden: `mse` of grey in [0, 1], and as a `share` of val's variance."""
    count = count_patches(dataset.size, patch, ratio)
    table = _guesses(dataset, count, lambda draws: draw_patches(draws, dataset.size, ratio, centring), np.square)
    variance = float(thumbnail(dataset.val.images, dataset.size).double().var())
    share, pretext = table["error"] / variance, f"patches of {patch} px, {ratio:g} hidden"
    return table.rename(columns={"error": "mse"}).assign(share=share, pretext=pretext)


def _guesses(dataset: Dataset, num_draws: int, mask: Measure, off: Callable[[Floats], Floats]) -> pd.DataFrame:
    """By rival, its mean error inside of what is hidden of each image of val, `MASKS` times; mask: by draws."""
    train, val = (thumbnail(split.images, dataset.size).double().numpy() for split in (dataset.train, dataset.val))
    require(len(train) >= 10, f"train of {dataset.name}", "ten images or more", len(train))
    held = np.isin(np.arange(len(train)), np.arange(9, len(train), 10)[:MOST_HELD])  # every tenth
    count = min(MOST_COMPONENTS, int((~held).sum()) - 1, dataset.size**2)
    pca = PCA(count, svd_solver="randomized", iterated_power=3, random_state=SEED).fit(train[~held])
    floor = 1e-9 * pca.explained_variance_[0] + 1e-12  # of components that train lacks
    ridge = (pca.noise_variance_ + floor) / (pca.explained_variance_ + floor)

    def error(x: Floats, factor: float | None) -> float:
        draws = torch.rand(len(x), num_draws, generator=torch.Generator().manual_seed(SEED))
        hidden = mask(draws).flatten(1).numpy()
        guess = fill(x, hidden, pca.mean_, pca.components_, ridge * factor) if factor else pca.mean_
        return float(np.average(off(guess - x), axis=1, weights=hidden).mean())

    factors = {"mean image": None, f"PCA of {count}": min(FACTORS, key=partial(error, train[held]))}
    errors = [error(val.repeat(MASKS, axis=0), factor) for factor in factors.values()]
    return pd.DataFrame({"pretext": "", "rival": list(factors), "error": errors, "images": len(val)})


def fill(x: Floats, hidden: NDArray[np.bool_], mean: Floats, components: Floats, ridge: Floats) -> Floats:
    """Images [N, D] as orthonormal components [K, D] have them, by what is not hidden (Everson & Sirovich 1995)."""
    columns, known = components.T.copy(), ((x - mean) * ~hidden) @ components.T  # [D, K], [N, K]
    parts = (columns[away] for away in hidden)  # products on seen pixels are I less those on these, which are fewer
    weights = [np.linalg.solve(np.diag(1 + ridge) - v.T @ v, k) for v, k in zip(parts, known, strict=True)]
    return mean + np.stack(weights) @ components
