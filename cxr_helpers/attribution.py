"""Where a linear probe finds its evidence: Grad-CAM through the frozen backbone, scored where the truth is known.

Between the last stage and the probe lie an average over positions and a linear map, so Grad-CAM there is CAM (Zhou et
al. 2016, arXiv 1512.04150) up to a constant, and the map can be given in the probe's own unit: the log-odds each cell
would give alone. Their mean is the image's log-odds. Earlier stages have finer cells and no such unit; their maps are
ranked only.

Everything is kept in the run's folder as small tables, so that a page can be made from records alone.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from .augment import eval_transform
from .backbones import Backbone
from .config import ProbeConfig, RuntimeConfig
from .data import Dataset, Split, load_dataset
from .evaluate import run_features
from .metrics import per_label_auc, threshold_from
from .probe import LinearHead, fit_head, linear_probe
from .probe.features import evaluating, extract_features
from .probe.logistic import predict
from .runs import Run, write_table

__all__ = [
    "STAGES",
    "Probed",
    "cell_overlaps",
    "evidence_maps",
    "explained_images",
    "films_with_masks",
    "grad_cam",
    "localisation",
    "recorded_head",
    "score_maps",
]

STAGES = ("layer4", "layer3", "layer2")  # a ResNet's last three, coarse to fine: cells of 32, 16 and 8 px
_FILMS = {"binary": "phantom", "multilabel": "phantom_multilabel"}
_BATCH = 128
_RANDOM_MAPS = 200  # the mean IoU of so many drawn regions is known to a hundredth
_AGREEMENT = 0.01  # of a probability: features differ in the fifth digit between processors, a wrong probe by far more

Floats = NDArray[np.float64]


class Probed(nn.Module):
    """A frozen backbone with a fitted linear probe on it: normalised images [B, C, S, S] to log-odds [B, L]."""

    def __init__(self, backbone: Backbone, head: LinearHead) -> None:
        super().__init__()
        self.backbone = backbone
        scaled = head.weights / head.std[:, None]
        self.classifier = nn.Linear(*scaled.shape)
        with torch.no_grad():
            self.classifier.weight.copy_(torch.from_numpy(scaled.T))
            self.classifier.bias.copy_(torch.from_numpy(head.bias - head.mean @ scaled))

    def forward(self, x: Tensor) -> Tensor:
        """Log-odds [B, L]."""
        return self.classifier(self.backbone(x))


def recorded_head(run: Run, dataset: Dataset, runtime: RuntimeConfig = RuntimeConfig()) -> LinearHead:
    """The run's linear probe, fitted again on train with the C of its record, and checked against its val predictions.

    Raises:
        FileNotFoundError: neither features nor weights are there.
        ValueError: other data, a run on part of the labels, or predictions that the probe does not give.
    """
    if dataset.fingerprint != run.record["fingerprint"] or run.record["label_fraction"] < 1:
        raise ValueError(f"dataset must be the one that run {run.id} was trained on, with all its labels")
    train = run_features(run, "train", dataset.train, runtime).labelled()
    iterations = run.metrics["probe_config"]["max_iter"]
    options: dict[str, Any] = {"task": dataset.task, "num_outputs": dataset.num_outputs, "max_iter": iterations}
    head = fit_head(train.x, train.labels, c=run.metrics["linear"]["c"], **options)
    val = run_features(run, "val", dataset.val, runtime).labelled()
    _, scores = _columns(run.predictions("val"))
    off = np.abs(predict(head.logits(val.x), dataset.task).reshape(scores.shape) - scores).max()
    if off > _AGREEMENT:
        raise ValueError(
            f"run {run.id} must give the val predictions of its record, got some that are {off:.3f} off: were its "
            "weights replaced? Evaluate it anew"
        )
    return head


def _columns(table: pd.DataFrame) -> tuple[NDArray[np.int64], Floats]:
    """Labels and scores [N, L] of a run's predictions."""
    labels = table[[c for c in table if str(c).startswith("label")]].to_numpy()
    return labels, table[[c for c in table if str(c).startswith("score/")]].to_numpy(dtype=np.float64)


# ---- maps


def grad_cam(probed: Probed, images: Tensor, output: int, stage: str = STAGES[0]) -> Floats:
    """Grad-CAM of one output on the activations of one stage, signed: without the ReLU that hides counter-evidence.

    Args:
        images: uint8 [N, C, S, S].
        output: column of the log-odds.
        stage: name of the ResNet's stage.
    Returns:
        [N, h, w], the stage's cells; larger is more evidence for the output, the zero means nothing.
    Raises:
        ValueError: no such stage.
    Source: Selvaraju et al. 2017 (arXiv 1610.02391), as captum computes it.
    """
    from captum.attr import LayerGradCam  # imported here: it takes seconds, and few pages need it

    layer = getattr(probed.backbone.net, stage, None)
    if not isinstance(layer, nn.Module):
        raise ValueError(f"stage must be a part of the backbone, such as {', '.join(STAGES)}, got {stage!r}")
    device = next(probed.parameters()).device
    maps = []
    with evaluating(probed), torch.enable_grad():
        method = LayerGradCam(probed, layer)
        for part in images.split(_BATCH):
            x = eval_transform(part.to(device), probed.backbone.normalisation)
            maps.append(method.attribute(x, target=output).detach().double().cpu().numpy()[:, 0])
    return np.concatenate(maps)


def evidence_maps(probed: Probed, images: Tensor, output: int) -> Floats:
    """Log-odds that each cell of the last stage would give if the whole image were like it, [N, h, w].

    Grad-CAM of the last stage, scaled and shifted alike for every image; the mean over an image's cells is its
    log-odds.
    """
    maps = grad_cam(probed, images, output)
    return maps * maps[0].size + float(probed.classifier.bias.detach()[output])


# ---- test images and their maps


def explained_images(
    run: Run, dataset: Dataset, runtime: RuntimeConfig = RuntimeConfig(), *, per_cell: int = 3, seed: int = 0
) -> pd.DataFrame:
    """Test images drawn by lot among the rightly and the wrongly classified, with the probe's evidence in each cell.

    The decision is the recorded prediction's at the threshold of val. With several labels the one is shown whose val
    AUC is highest. Kept in the run's `grad_cam.csv`.

    Args:
        per_cell: images of each of the four kinds tp, fn, fp, tn, as far as there are so many.
        seed: of the lot.
    Returns:
        A row per image: `kind, image` (row of test), `name` (of the label), `score, threshold, height, width` and the
        log-odds `e0, e1, …` of the cells, row by row.
    Raises:
        FileNotFoundError: neither the table nor the weights are there. ValueError: exclusive classes.
    """
    file = run.path / "grad_cam.csv"
    if file.is_file():
        return pd.read_csv(file)
    if dataset.task == "multiclass":
        raise ValueError(
            "dataset must be of a binary or a multi-label task for maps of one label, got exclusive classes"
        )
    head = recorded_head(run, dataset, runtime)
    val_labels, val_scores = _columns(run.predictions("val"))
    output = int(np.nanargmax(per_label_auc(val_labels, val_scores)))
    threshold = float(threshold_from(val_labels, val_scores)[output])
    labels, scores = (table[:, output] for table in _columns(run.predictions("test")))
    called, rng = scores >= threshold, np.random.default_rng(seed)
    cells = {"tp": called & (labels == 1), "fn": ~called & (labels == 1), "fp": called & (labels == 0)}
    cells["tn"] = ~called & (labels == 0)
    rows = [(kind, row) for kind, cell in cells.items() for row in rng.permutation(np.flatnonzero(cell))[:per_cell]]
    chosen = np.array([row for _, row in rows])
    places = dataset.test.labelled.nonzero().flatten().numpy()[chosen]
    maps = evidence_maps(Probed(run.backbone(), head), dataset.test.images[torch.from_numpy(places)], output)
    table = pd.DataFrame({"kind": [kind for kind, _ in rows], "image": places})
    table = table.assign(name=dataset.class_names[output if dataset.task == "multilabel" else 1])
    table = table.assign(score=scores[chosen], threshold=threshold, height=maps.shape[1], width=maps.shape[2])
    flat = maps.reshape(len(maps), -1)
    table = pd.concat([table, pd.DataFrame(flat, columns=[f"e{i}" for i in range(flat.shape[1])])], axis=1)
    write_table(file, table)
    return table


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
        A row per stage, film and finding: `films, stage, cells, image, group, name, called` and `score_maps`' columns.
    Raises:
        FileNotFoundError: neither the table nor the weights are there.
    """
    file = run.path / "localisation.csv"
    if file.is_file():
        return pd.read_csv(file, dtype={"group": str})
    assert films.test.masks is not None and films.train.masks is not None
    backbone = run.backbone()
    if films.fingerprint == run.record["fingerprint"]:
        head, threshold = recorded_head(run, dataset, runtime), threshold_from(*_columns(run.predictions("val")))
    else:
        features = [extract_features(backbone, split, backbone.normalisation) for split in (films.train, films.val)]
        fitted = linear_probe(*features, task=films.task, config=probe, num_outputs=films.num_outputs)
        head, threshold = fitted.head, fitted.threshold
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
    scores = score_maps(maps, test.masks[rows, output].numpy(), train.masks[shown(train), output].numpy())
    groups = rows.astype(str) if test.groups is None else test.groups[rows]
    name = films.class_names[output if films.task == "multilabel" else 1]
    first = {"films": films.name, "stage": stage, "cells": maps.shape[1], "image": rows, "group": groups, "name": name}
    return pd.concat([pd.DataFrame(first).assign(called=called[rows]), scores], axis=1)
