"""Where a linear probe finds its evidence: Grad-CAM through the frozen backbone.

Between the last stage and the probe lie an average over positions and a linear map, so Grad-CAM there is CAM (Zhou et
al. 2016, arXiv 1512.04150) up to a constant, and the map can be given in the probe's own unit: the log-odds each cell
would give alone. Their mean is the image's log-odds. Earlier stages have finer cells and no such unit; their maps are
ranked only. Padding gives every cell a level of its own, the same in all images, that can drown what is special about
one image; `usual_map` is that level.

What is shown is kept in the run's folder as a small table, so that a page can be made from records alone.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from .augment import eval_transform
from .config import RuntimeConfig
from .data import Dataset
from .evaluate import run_features
from .models import Backbone
from .probe import LinearHead, evaluating, fit_head, per_label_auc, predict, threshold_from
from .runs import Run, write_table

__all__ = [
    "STAGES",
    "Probed",
    "columns_of",
    "evidence_maps",
    "explained_images",
    "grad_cam",
    "recorded_head",
    "usual_map",
]

STAGES = ("layer4", "layer3", "layer2")  # a ResNet's last three, coarse to fine: cells of 32, 16 and 8 px
_BATCH = 128
_USUAL_IMAGES = 128  # their mean map is known to an eleventh of what single maps vary by
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
    _, scores = columns_of(run.predictions("val"))
    off = np.abs(predict(head.logits(val.x), dataset.task).reshape(scores.shape) - scores).max()
    if off > _AGREEMENT:
        raise ValueError(
            f"run {run.id} must give the val predictions of its record, got some that are {off:.3f} off: were its "
            "weights replaced? Evaluate it anew"
        )
    return head


def columns_of(table: pd.DataFrame) -> tuple[NDArray[np.int64], Floats]:
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


def evidence_maps(probed: Probed, images: Tensor, output: int, usual: Floats) -> tuple[Floats, float]:
    """Log-odds that each cell of the last stage adds to those of the usual map, [N, h, w], and the usual log-odds.

    Grad-CAM of the last stage less the usual map, times the number of cells. The mean over an image's cells and the
    usual log-odds add up to the image's own.

    Args:
        usual: `usual_map` of the last stage.
    """
    maps = grad_cam(probed, images, output)
    return (maps - usual) * usual.size, float(usual.sum()) + float(probed.classifier.bias.detach()[output])


def usual_map(probed: Probed, images: Tensor, output: int, stage: str = STAGES[0]) -> Floats:
    """Mean Grad-CAM [h, w] of at most 128 images, a fixed draw: what a cell shows whatever the image."""
    rows = np.sort(np.random.default_rng(0).permutation(len(images))[:_USUAL_IMAGES])
    return np.asarray(grad_cam(probed, images[torch.from_numpy(rows)], output, stage).mean(axis=0))


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
        A row per image: `kind, image` (row of test), `name` (of the label), `score, threshold, height, width`, the
        log-odds `usual` of the average val image and what each cell adds to it, `e0, e1, …` row by row.
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
    val_labels, val_scores = columns_of(run.predictions("val"))
    output = int(np.nanargmax(per_label_auc(val_labels, val_scores)))
    threshold = float(threshold_from(val_labels, val_scores)[output])
    labels, scores = (table[:, output] for table in columns_of(run.predictions("test")))
    called, rng = scores >= threshold, np.random.default_rng(seed)
    cells = {"tp": called & (labels == 1), "fn": ~called & (labels == 1), "fp": called & (labels == 0)}
    cells["tn"] = ~called & (labels == 0)
    rows = [(kind, row) for kind, cell in cells.items() for row in rng.permutation(np.flatnonzero(cell))[:per_cell]]
    chosen = np.array([row for _, row in rows])
    places = dataset.test.labelled.nonzero().flatten().numpy()[chosen]
    probed = Probed(run.backbone(), head)
    level = usual_map(probed, dataset.val.images, output)
    maps, usual = evidence_maps(probed, dataset.test.images[torch.from_numpy(places)], output, level)
    table = pd.DataFrame({"kind": [kind for kind, _ in rows], "image": places})
    table = table.assign(name=dataset.class_names[output if dataset.task == "multilabel" else 1])
    table = table.assign(score=scores[chosen], threshold=threshold, height=maps.shape[1], width=maps.shape[2])
    table = table.assign(usual=usual)
    flat = maps.reshape(len(maps), -1)
    table = pd.concat([table, pd.DataFrame(flat, columns=[f"e{i}" for i in range(flat.shape[1])])], axis=1)
    write_table(file, table)
    return table
