"""Do maps point at the finding? Pointing game and IoU against true masks, beside chance, habit and the grid's limit.

Films with masks are drawn ones (`phantom`): their truth is exact. The table is kept in the run's folder.
"""

from __future__ import annotations

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray

from .attribution import STAGES, Probed, columns_of, grad_cam, recorded_head, usual_map
from .config import ProbeConfig, RuntimeConfig
from .data import Dataset, Split, load_dataset
from .probe import extract_features, linear_probe, predict, threshold_from
from .runs import Run, write_table

__all__ = ["cell_overlaps", "films_with_masks", "localisation", "score_maps"]

_FILMS = {"binary": "phantom", "multilabel": "phantom_multilabel"}
_RANDOM_MAPS = 200  # the mean IoU of so many drawn regions is known to a hundredth

Floats = NDArray[np.float64]


# ---- where the truth is known


def films_with_masks(dataset: Dataset) -> Dataset | None:
    """The data set itself where its test images have masks, else drawn films of its task and size; None without."""
    if dataset.test.masks is not None:
        return dataset
    if dataset.channels != 1 or dataset.task not in _FILMS:
        return None
    return load_dataset(_FILMS[dataset.task], dataset.size)


def cell_overlaps(masks: NDArray[np.bool_], cells: tuple[int, int]) -> tuple[Floats, NDArray[np.bool_]]:
    """How many pixels of each mask lie in each cell of a grid, and whether the cell's centre does.

    Args:
        masks: [N, S, S]. cells: rows and columns of the grid laid over the image.
    Returns:
        Pixels [N, h * w], and bool [N, h * w].
    """
    side = masks.shape[-1]
    rows, columns = (np.arange(side) * n // side == np.arange(n)[:, None] for n in cells)  # [h, S], [w, S]
    pixels = np.einsum("hy,nyx,wx->nhw", rows.astype(float), masks.astype(float), columns.astype(float), optimize=True)
    centre_y, centre_x = ((2 * np.arange(n) + 1) * side // (2 * n) for n in cells)
    centres = masks[:, centre_y[:, None], centre_x[None, :]]
    return pixels.reshape(len(masks), -1), centres.reshape(len(masks), -1)


def _strongest(values: Floats, count: int) -> NDArray[np.bool_]:
    """The `count` largest of each row [N, cells] as a mask."""
    chosen = np.argsort(-values, axis=1, kind="stable")[:, :count]
    found = np.zeros(values.shape, dtype=bool)
    np.put_along_axis(found, chosen, True, axis=1)
    return found


def score_maps(maps: Floats, masks: NDArray[np.bool_], usual: NDArray[np.bool_], *, seed: int = 0) -> pd.DataFrame:
    """Pointing game and IoU of maps against masks, beside what chance, habit and the grid itself would give.

    A map points at the centre of its strongest cell (Zhang et al. 2016, arXiv 1608.00507, without their tolerance:
    these masks are exact). Its region is as many of its strongest cells as cover the area of an average training mask,
    at least one: a share of the maximum would mean another region for every encoder, because Grad-CAM has no zero.

    Args:
        maps: [N, h, w]. masks: [N, S, S], none empty. usual: training masks [M, S, S], none empty.
        seed: of the random regions.
    Returns:
        A row per map: `hit, iou`; `hit_random, iou_random`, the expectation for cells drawn at random; `hit_usual,
        iou_usual` of the cells where training masks lie most often, the same for every image; `iou_best`, of the best
        region on this grid.
    """
    cells, shape = maps[0].size, (maps.shape[1], maps.shape[2])
    (pixels, centres), (habit, _) = cell_overlaps(masks, shape), cell_overlaps(usual, shape)
    area_of_cell = masks.shape[-1] ** 2 / cells
    count = min(cells, max(1, round(usual.sum(axis=(1, 2)).mean() / area_of_cell)))
    sizes, area = pixels.sum(axis=1), count * area_of_cell

    def iou(regions: NDArray[np.bool_]) -> Floats:
        inside = (pixels * regions).sum(axis=1)
        return inside / (area + sizes - inside)

    flat, rng = maps.reshape(len(maps), -1), np.random.default_rng(seed)
    drawn = np.eye(cells, dtype=bool) if count == 1 else _strongest(rng.random((_RANDOM_MAPS, cells)), count)
    shared = pixels @ drawn.T.astype(float)  # [N, R]
    one, rows = habit.sum(axis=0)[None], np.arange(len(maps))
    return pd.DataFrame(
        {
            "hit": centres[rows, flat.argmax(axis=1)].astype(float),
            "hit_random": centres.mean(axis=1),
            "hit_usual": centres[:, one[0].argmax()].astype(float),
            "iou": iou(_strongest(flat, count)),
            "iou_random": (shared / (area + sizes[:, None] - shared)).mean(axis=1),
            "iou_usual": iou(_strongest(one, count)),
            "iou_best": iou(_strongest(pixels, count)),
        }
    )


def localisation(
    run: Run,
    dataset: Dataset,
    films: Dataset,
    runtime: RuntimeConfig = RuntimeConfig(),
    probe: ProbeConfig = ProbeConfig(),
) -> pd.DataFrame:
    """Grad-CAM of every finding in the test films against its true mask, stage by stage.

    On the run's own data the probe is that of its record; on other films it is fitted anew on their train split (C by
    cross-validation there), the backbone staying as it is. Kept in the run's `localisation.csv`.

    Args:
        dataset: the run's. films: `films_with_masks(dataset)`.
    Returns:
        A row per stage, film and finding: `films, stage, cells, image, group, name, called`, `score_maps`' columns, and
        `hit_special, iou_special` of the map less the usual one of val.
    Raises:
        FileNotFoundError: neither the table nor the weights are there.
    """
    file = run.path / "localisation.csv"
    if file.is_file():
        return pd.read_csv(file, dtype={"group": str})
    assert films.test.masks is not None and films.train.masks is not None
    backbone = run.backbone()
    if films.fingerprint == run.record["fingerprint"]:
        head, threshold = recorded_head(run, dataset, runtime), threshold_from(*columns_of(run.predictions("val")))
    else:
        features = [extract_features(backbone, split, backbone.normalisation) for split in (films.train, films.val)]
        fitted = linear_probe(*features, task=films.task, config=probe, num_outputs=films.num_outputs)
        head, threshold = fitted, fitted.threshold
    probed = Probed(backbone, head)
    logits = head.logits(extract_features(backbone, films.test, backbone.normalisation).x)
    called = predict(logits, "multilabel") >= threshold  # one column for a binary task
    parts = [
        _one_finding(probed, films, output, stage, called[:, output])
        for output in range(films.num_outputs)
        for stage in STAGES
        if hasattr(backbone.net, stage)
    ]
    table = pd.concat(parts, ignore_index=True)
    write_table(file, table)
    return table


def _one_finding(probed: Probed, films: Dataset, output: int, stage: str, called: NDArray[np.bool_]) -> pd.DataFrame:
    def shown(split: Split) -> NDArray[np.bool_]:
        assert split.masks is not None
        return split.masks[:, output].flatten(1).any(dim=1).numpy()

    test, train = films.test, films.train
    assert test.masks is not None and train.masks is not None
    rows = np.flatnonzero(shown(test))
    maps = grad_cam(probed, test.images[torch.from_numpy(rows)], output, stage)
    truth = test.masks[rows, output].numpy(), train.masks[shown(train), output].numpy()
    scores = score_maps(maps, *truth)
    special = score_maps(maps - usual_map(probed, films.val.images, output, stage), *truth)
    scores = scores.assign(hit_special=special["hit"], iou_special=special["iou"])
    groups = rows.astype(str) if test.groups is None else test.groups[rows]
    name = films.class_names[output if films.task == "multilabel" else 1]
    first = {"films": films.name, "stage": stage, "cells": maps.shape[1], "image": rows, "group": groups, "name": name}
    return pd.concat([pd.DataFrame(first).assign(called=called[rows]), scores], axis=1)
