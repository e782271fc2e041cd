"""Where a linear probe finds its evidence: Grad-CAM through the frozen backbone, and whether maps point at the finding.

Between the last stage and the probe lie an average over positions and a linear map, so Grad-CAM there is CAM (Zhou et
al. 2016, arXiv 1512.04150) in the probe's own unit: the log-odds that each cell adds. Earlier stages have finer cells
and no unit. Padding gives every cell a level of its own, the same in all images: the usual map, which is taken off.
What was measured lies in the run's folder as a table, so that a page can be made from records alone.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..augment import eval_transform
from ..config import RuntimeConfig
from ..data import Dataset, Split, load_dataset
from ..evaluate import run_features
from ..models import Backbone
from ..probe import (
    LinearHead,
    evaluating,
    extract_features,
    fit_head,
    linear_probe,
    per_label_auc,
    predict,
    threshold_from,
)  # fmt: skip
from ..runs import Run
from .records import require_data, stored
from .tables import Scores, scores_of

__all__ = ["explained_images", "grad_cam", "localisation", "recorded_head", "score_maps"]

FILMS = {"binary": "phantom", "multilabel": "phantom_multilabel"}  # whose findings are known to the pixel
RANDOM_REGIONS = 200  # the mean IoU of so many is known to a hundredth
USUAL_IMAGES = 128  # their mean map is known to an eleventh of what single maps vary by

Bools = NDArray[np.bool_]
Floats = NDArray[np.float64]


# ---- maps


def grad_cam(backbone: Backbone, head: LinearHead, images: Tensor, output: int, stage: str | None = None) -> Floats:
    """Grad-CAM of one output of a probe on one stage, signed: without the ReLU that hides counter-evidence.

    Args:
        images: uint8 [N, C, S, S]. output: column of the log-odds. stage: of `backbone.stages`; None takes the last.
    Returns:
        [N, h, w], the stage's cells; larger is more evidence for the output, the zero means nothing.
    Source: Selvaraju et al. 2017 (arXiv 1610.02391).
    """
    found, device = [], next(backbone.parameters()).device
    weights = torch.from_numpy(head.weights[:, output] / head.std).float().to(device)
    with evaluating(backbone), torch.enable_grad():
        for part in images.split(USUAL_IMAGES):
            maps = backbone.stages(eval_transform(part.to(device), backbone.normalisation))
            last = list(maps)[-1]
            slope = torch.autograd.grad((maps[last].mean((2, 3)) @ weights).sum(), maps[stage or last])[0]
            cells = (slope.mean((2, 3), keepdim=True) * maps[stage or last]).sum(dim=1)  # [B, h, w]
            found.append(cells.detach().double().cpu().numpy())
    return np.concatenate(found)


def _usual(backbone: Backbone, head: LinearHead, images: Tensor, output: int, stage: str | None = None) -> Floats:
    """Mean Grad-CAM [h, w] of at most 128 images, a fixed draw: what a cell shows whatever the image."""
    rows = np.sort(np.random.default_rng(0).permutation(len(images))[:USUAL_IMAGES])
    return np.asarray(grad_cam(backbone, head, images[torch.from_numpy(rows)], output, stage).mean(axis=0))


def recorded_head(run: Run, dataset: Dataset, runtime: RuntimeConfig) -> LinearHead:
    """The run's linear probe, fitted again with the C of its record."""
    train = run_features(run, "train", dataset.train, runtime).labelled()
    options: dict[str, Any] = {"task": dataset.task, "num_outputs": dataset.num_outputs}
    options |= {"c": run.metrics["linear"]["c"], "max_iter": run.metrics["probe_config"]["max_iter"]}
    return fit_head(train.x, train.labels, **options)


def explained_images(
    run: Run, dataset: Dataset, runtime: RuntimeConfig = RuntimeConfig(), per_kind: int = 3
) -> pd.DataFrame:
    """Test images drawn by lot among the rightly and wrongly classified, with the evidence in their cells.

    The decision is the record's at the threshold of val. With several labels the one is shown that val tells best.

    Returns:
        `kind` (tp, fn, fp, tn), `image` (row of test), `name` (of the label), `score, threshold, height, width`, the
        log-odds `usual` of the average val image and what each cell adds to it, `e0, e1, …` row by row.
    """

    def measure() -> pd.DataFrame:
        backbone, head, val = run.backbone(), recorded_head(run, dataset, runtime), scores_of(run, "val")
        output = int(np.nanargmax(per_label_auc(val.labels, val.stack[0])))
        table = _drawn(scores_of(run), output, float(threshold_from(val.labels, val.stack[0])[output]), per_kind)
        table["image"] = dataset.test.labelled.nonzero().flatten().numpy()[table["image"]]
        usual = _usual(backbone, head, dataset.val.images, output)
        maps = (grad_cam(backbone, head, dataset.test.images[table["image"].to_list()], output) - usual) * usual.size
        table["name"] = dataset.class_names[output if dataset.task == "multilabel" else 1]
        level = float(usual.sum() + head.bias[output] - head.mean @ (head.weights[:, output] / head.std))
        table = table.assign(height=maps.shape[1], width=maps.shape[2], usual=level)
        return table.join(pd.DataFrame(maps.reshape(len(maps), -1)).add_prefix("e"))

    require_data(run, dataset)
    return stored(run, "grad_cam", measure)


def _drawn(test: Scores, output: int, threshold: float, per_kind: int) -> pd.DataFrame:
    """A few of the test predictions of each kind: `kind, image, score, threshold`."""
    labels, scores = (values.reshape(len(test.labels), -1)[:, output] for values in (test.labels, test.stack[0]))
    called, ill, rng = scores >= threshold, labels == 1, np.random.default_rng(0)
    kinds = {"tp": called & ill, "fn": ~called & ill, "fp": called & ~ill, "tn": ~called & ~ill}
    rows = [(kind, row) for kind, of in kinds.items() for row in rng.permutation(np.flatnonzero(of))[:per_kind]]
    table = pd.DataFrame(rows, columns=["kind", "image"])
    return table.assign(score=scores[table["image"]], threshold=threshold)


# ---- do maps point at the finding?


def _cells(masks: Bools, shape: tuple[int, ...]) -> tuple[Floats, Bools]:
    """Pixels of each mask [N, S, S] in each cell of a grid, [N, cells], and whether the cell's centre is one."""
    side = masks.shape[-1]
    rows, columns = (np.arange(side) * n // side == np.arange(n)[:, None] for n in shape)  # [h, S], [w, S]
    pixels = np.einsum("hy,nyx,wx->nhw", rows.astype(float), masks.astype(float), columns.astype(float), optimize=True)
    y, x = ((2 * np.arange(n) + 1) * side // (2 * n) for n in shape)
    return pixels.reshape(len(masks), -1), masks[:, y[:, None], x[None, :]].reshape(len(masks), -1)


def _strongest(values: Floats, count: int) -> Bools:
    """The `count` largest of each row [N, cells] as a mask."""
    found = np.zeros(values.shape, dtype=bool)
    np.put_along_axis(found, np.argsort(-values, axis=1, kind="stable")[:, :count], True, axis=1)
    return found


def score_maps(maps: Floats, masks: Bools, usual: Bools, *, seed: int = 0) -> pd.DataFrame:
    """Pointing game and IoU of maps against masks, beside what chance, habit and the grid itself would give.

    A map points at the centre of its strongest cell (Zhang et al. 2016, arXiv 1608.00507, without their tolerance:
    these masks are exact). Its region is as many of its strongest cells as cover the area of an average training mask:
    a share of the maximum would mean another region for every encoder, because Grad-CAM has no zero.

    Args:
        maps: [N, h, w]. masks: [N, S, S], none empty. usual: training masks [M, S, S]. seed: of the random regions.
    Returns:
        `hit, iou`; `hit_random, iou_random`, expected of cells drawn at random; `hit_usual, iou_usual` of the cells
        where training masks lie most often, the same for every image; `iou_best`, of the best region on this grid.
    """
    (pixels, centres), (habit, _) = _cells(masks, maps.shape[1:]), _cells(usual, maps.shape[1:])
    cells, area = maps[0].size, masks.shape[-1] ** 2 / maps[0].size
    count = min(cells, max(1, round(usual.sum(axis=(1, 2)).mean() / area)))

    def iou(regions: Bools) -> Floats:  # [R, cells], of each mask and region: [N, R]
        inside = pixels @ regions.T.astype(float)
        return inside / (count * area + pixels.sum(axis=1, keepdims=True) - inside)

    flat, rng, place = maps.reshape(len(maps), -1), np.random.default_rng(seed), habit.sum(axis=0)[None]
    drawn = np.eye(cells, dtype=bool) if count == 1 else _strongest(rng.random((RANDOM_REGIONS, cells)), count)
    return pd.DataFrame(
        {
            "hit": np.take_along_axis(centres, flat.argmax(axis=1)[:, None], axis=1)[:, 0].astype(float),
            "hit_random": centres.mean(axis=1),
            "hit_usual": centres[:, place.argmax()].astype(float),
            "iou": iou(_strongest(flat, count)).diagonal(),
            "iou_random": iou(drawn).mean(axis=1),
            "iou_usual": iou(_strongest(place, count))[:, 0],
            "iou_best": iou(_strongest(pixels, count)).diagonal(),
        }
    )


def localisation(run: Run, dataset: Dataset, runtime: RuntimeConfig = RuntimeConfig()) -> pd.DataFrame:
    """Grad-CAM of every finding in test films with masks against its mask, stage by stage.

    Without masks in the run's own data they are drawn films of its task, on whose train split the probe is fitted.

    Returns:
        `films, stage, cells, image, group, name, called`, `score_maps`' columns, and `hit_special, iou_special` of the
        map less the usual one of val.
    """

    def measure() -> pd.DataFrame:
        backbone, films = run.backbone(), dataset
        if dataset.test.masks is not None:
            val, head = scores_of(run, "val"), recorded_head(run, dataset, runtime)
            threshold = threshold_from(val.labels, val.stack[0])
        else:
            films = load_dataset(FILMS[dataset.task], dataset.size)
            both = (extract_features(backbone, s, backbone.normalisation) for s in (films.train, films.val))
            fitted = linear_probe(*both, task=films.task, num_outputs=films.num_outputs)
            head, threshold = fitted, fitted.threshold
        logits = head.logits(extract_features(backbone, films.test, backbone.normalisation).x)
        called = predict(logits, "multilabel") >= threshold  # one column for a binary task
        side = torch.zeros(1, backbone.in_channels, films.size, films.size)
        stages = list(backbone.eval().stages(side))[:-4:-1]  # the last three, coarse to fine
        found = ((output, stage) for output in range(films.num_outputs) for stage in stages)
        parts = [_one_finding(backbone, head, films, output, stage, called[:, output]) for output, stage in found]
        return pd.concat(parts, ignore_index=True)

    require_data(run, dataset)
    return stored(run, "localisation", measure)


def _one_finding(
    backbone: Backbone, head: LinearHead, films: Dataset, output: int, stage: str, called: Bools
) -> pd.DataFrame:
    (rows, masks), (_, usual) = (_shown(split, output) for split in (films.test, films.train))
    maps = grad_cam(backbone, head, films.test.images[torch.from_numpy(rows)], output, stage)
    special = score_maps(maps - _usual(backbone, head, films.val.images, output, stage), masks, usual)
    groups = rows.astype(str) if films.test.groups is None else films.test.groups[rows]
    name = films.class_names[output if films.task == "multilabel" else 1]
    first = {"films": films.name, "stage": stage, "cells": maps.shape[1], "image": rows, "group": groups, "name": name}
    table = pd.DataFrame(first).assign(called=called[rows]).join(score_maps(maps, masks, usual))
    return table.assign(hit_special=special["hit"], iou_special=special["iou"])


def _shown(split: Split, output: int) -> tuple[NDArray[np.intp], Bools]:
    """Images that show a finding, and its masks in them."""
    assert split.masks is not None
    masks = split.masks[:, output].numpy()
    rows = np.flatnonzero(masks.any(axis=(1, 2)))
    return rows, masks[rows]
