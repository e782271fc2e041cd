"""A frozen encoder read in more ways than one: features of the last two stages, and of each image's mirror image.

Nothing but the probe is trained. Ways are compared by cross-validation on train; test is scored for the way that was
chosen alone, and all that were tried stay in the record.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from safetensors import safe_open
from torch import Tensor, nn
from torchvision.models.feature_extraction import create_feature_extractor
from torchvision.transforms.v2.functional import horizontal_flip

from .config import ProbeConfig, RuntimeConfig
from .data import Dataset, Split, keep_labels
from .evaluate import prediction_table
from .loop import make_fabric, mixed_precision
from .models import Backbone
from .probe import Features, extract_features, fit_head, linear_probe, predict
from .runs import Run, read_json, run_lock, write_json, write_table, write_tensors

__all__ = ["LAST_STAGE", "READOUTS", "Readout", "choose_readout", "readout_test_scores", "readout_trials"]

STAGES = ("layer3", "layer4")
VIEWS = {"whole": 1, "mirrored too": 2}  # how many of the views are averaged
LAST_STAGE = "last stage"
TRIALS = "readouts.json"


@dataclass(frozen=True, kw_only=True)
class Readout:
    """Which features of an image the probe gets.

    Args:
        stages: of the ResNet, each averaged over its cells and laid side by side.
        views: a name in `VIEWS`; their features are averaged, in train as in test.
    """

    stages: tuple[str, ...] = STAGES[-1:]
    views: str = "whole"


READOUTS: dict[str, Readout] = {
    name if views == "whole" else f"{name}, {views}": Readout(stages=stages, views=views)
    for views in VIEWS
    for name, stages in ((LAST_STAGE, STAGES[-1:]), ("last two stages", STAGES))
}


class _Stages(nn.Module):
    """Normalised images [B, C, S, S] to their features after each of `STAGES`, side by side: [B, sum of channels]."""

    def __init__(self, backbone: Backbone) -> None:
        super().__init__()
        self.net = create_feature_extractor(backbone.eval().net, return_nodes=list(STAGES))

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([h.mean(dim=(2, 3)) for h in self.net(x).values()], dim=1)

    @torch.no_grad()
    def widths(self, x: Tensor) -> list[int]:
        """Channels of every stage."""
        return [h.shape[1] for h in self.net(x).values()]


@dataclass(frozen=True, eq=False)
class _Read:
    """All that the ways need of one split: views [V, N, D], and the columns of each stage."""

    views: NDArray[np.float32]
    widths: tuple[int, ...]
    split: Split

    def features(self, readout: Readout) -> Features:
        """What one way makes of it, rows without a label left out."""
        ends = np.cumsum(self.widths)
        chosen = [np.arange(end - w, end) for end, w, s in zip(ends, self.widths, STAGES, strict=True)
                  if s in readout.stages]  # fmt: skip
        x = self.views[: VIEWS[readout.views]].mean(axis=0)[:, np.concatenate(chosen)]
        return Features(x, self.split.labels.cpu().numpy(), self.split.groups).labelled()


def _read(run: Run, name: str, split: Split, runtime: RuntimeConfig) -> _Read:
    """Features of all views after each of `STAGES`, kept beside the weights for the very same images."""
    cache = run.path / f"features_stages_{name}.safetensors"
    digest = hashlib.sha256(split.images.cpu().contiguous().numpy().data).hexdigest()
    if cache.is_file():
        with safe_open(cache, "np") as file:
            if (file.metadata() or {}).get("images_sha256") == digest:
                return _Read(file.get_tensor("views"), tuple(int(w) for w in file.get_tensor("widths")), split)
    fabric = make_fabric(runtime)
    backbone = run.backbone()
    encoder = _Stages(backbone).to(fabric.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    side = split.images.shape[-1]
    widths = encoder.widths(torch.zeros(1, backbone.in_channels, side, side, device=fabric.device))
    views = [
        extract_features(
            encoder, replace(split, images=view), backbone.normalisation, precision=mixed_precision(fabric)
        ).x
        for view in (split.images, horizontal_flip(split.images))
    ]
    tensors = {"views": torch.from_numpy(np.stack(views)), "widths": torch.tensor(widths)}
    write_tensors(cache, tensors, {"images_sha256": digest})
    return _Read(np.stack(views), tuple(widths), split)


def _data_of(run: Run, dataset: Dataset) -> Dataset:
    if dataset.fingerprint != run.record["fingerprint"]:
        raise ValueError(f"dataset must be the one that run {run.id} was trained on, got other images or labels")
    fraction = float(run.record["label_fraction"])
    return keep_labels(dataset, fraction, int(run.record["seed"])) if fraction < 1 else dataset


def readout_trials(
    run: Run, dataset: Dataset, runtime: RuntimeConfig = RuntimeConfig(), probe: ProbeConfig = ProbeConfig()
) -> pd.DataFrame:
    """The linear probe on every way of `READOUTS`, kept in the run's `readouts.json`; test is not touched.

    Returns:
        A row per way: `readout, dims, c, cv, cv_se` (the probe's metric over folds of train, at the C that was
        chosen), `val`.
    Raises:
        ValueError: the data are not the run's. FileNotFoundError: neither the record nor the weights are there.
        LockedError: the record is not there and another process trains or probes this run.
    """
    data, file = _data_of(run, dataset), run.path / TRIALS
    if not _same_probe(read_json(file), probe):
        with run_lock(run, doing="probed"):
            train, val = (_read(run, name, data.splits[name], runtime) for name in ("train", "val"))
            rows = [_trial(run, name, train, val, data, probe) for name in READOUTS]
            for scores in run.path.glob("readout_*_test.csv"):  # of another probe
                scores.unlink()
            write_json(file, {"probe_config": asdict(probe), "trials": rows})
    return pd.DataFrame(read_json(file)["trials"])


def _same_probe(record: Mapping[str, Any], probe: ProbeConfig) -> bool:
    return record.get("probe_config") == {**asdict(probe), "cs": list(probe.cs)}


def _trial(run: Run, name: str, train: _Read, val: _Read, data: Dataset, probe: ProbeConfig) -> dict[str, Any]:
    """One way, cross-validated; the last stage's is taken from the run's record where it was probed like that."""
    metric = "accuracy" if data.task == "multiclass" else "auc"
    x = train.features(READOUTS[name])
    row: dict[str, Any] = {"readout": name, "dims": x.x.shape[1]}
    if name == LAST_STAGE and _same_probe(run.metrics, probe):
        linear = run.metrics["linear"]
        c, cv, score = linear["c"], linear["cv"], linear["val"][metric]
    else:
        y = val.features(READOUTS[name])
        result = linear_probe(x, y, task=data.task, config=probe, num_outputs=data.num_outputs)
        c, cv, score = result.c, result.cv, result.metrics["val"][metric]
    folds = next(entry for entry in cv if entry["C"] == c)
    return row | {"c": c, "cv": folds["mean"], "cv_se": folds["se"], "val": score}


def choose_readout(trials: Iterable[pd.DataFrame]) -> str:
    """The way with the best mean over runs of the cross-validated metric on train; of equals the first tried."""
    table = pd.concat(list(trials))
    return str(table.groupby("readout", sort=False)["cv"].mean().idxmax())


def readout_test_scores(
    run: Run,
    dataset: Dataset,
    readout: str,
    runtime: RuntimeConfig = RuntimeConfig(),
    probe: ProbeConfig = ProbeConfig(),
) -> pd.DataFrame:
    """Test predictions of the linear probe on one way, as `Run.predictions` has them.

    Its C is the one of `readout_trials`. Kept in the run's `readout_<way>_test.csv`; `readout_reads` of its record
    counts the ways that were scored on test, and is written before the scores are.

    Raises:
        ValueError: an unknown way, or data that are not the run's.
        FileNotFoundError: neither the table nor the weights are there.
        LockedError: the table is not there and another process trains or probes this run.
    """
    if readout not in READOUTS:
        raise ValueError(f"readout must be one of {'; '.join(READOUTS)}, got {readout!r}")
    trials = readout_trials(run, dataset, runtime, probe)
    data = _data_of(run, dataset)
    file = run.path / f"readout_{readout.replace(', ', '_').replace(' ', '_')}_test.csv"
    if not file.is_file():
        c = float(trials.set_index("readout")["c"][readout])
        with run_lock(run, doing="probed"):
            train, test = (
                _read(run, n, data.splits[n], runtime).features(READOUTS[readout]) for n in ("train", "test")
            )
            options: dict[str, Any] = {"task": data.task, "num_outputs": data.num_outputs}
            head = fit_head(train.x, train.labels, c=c, max_iter=probe.max_iter, **options)
            counted = run.metrics.get("readout_reads", 0) + 1
            write_json(run.path / "metrics.json", {**run.metrics, "readout_reads": counted})
            write_table(file, prediction_table(data, test, predict(head.logits(test.x), data.task)))
    return pd.read_csv(file, dtype={"group": str})
