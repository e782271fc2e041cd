"""Training a detector, and what it finds on val and, when asked, on test: another `Task` for the loop."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
import pandas as pd
import torch
from lightning_fabric import Fabric
from safetensors.torch import load_file
from torch import Tensor, nn

from ..augment import Normalisation, OneView, draw_table, get_policy, move_boxes, normalise
from ..config import DetectConfig, RuntimeConfig
from ..data import Dataset, Split, boxes_of, load_dataset
from ..fields import require
from ..loop import build_optimizer, lr_at, make_fabric, seed_of, train_into
from ..models import build_backbone, state_digest
from ..probe import evaluating
from ..recipes import find_run, record_of
from ..runs import Run, results_root, run_lock
from ..writing import write_json, write_table, write_tensors
from .detector import Detector, Films
from .sampling import draw_films_of_round, labelled_part, repeat_factors
from .score import CORNERS, coco_ap, table_of, voc_ap

__all__ = ["films_of", "find_boxes", "score_detector", "train_detector"]

BATCH = 16  # films of a look at val or test
WEIGHTS = "detector.safetensors"
UNUSED = ("micro_batch", "compile", "images_gib", "knn_bank")  # of what is said of a run's execution


def train_detector(
    config: DetectConfig,
    dataset: Dataset | None = None,
    runtime: RuntimeConfig = RuntimeConfig(),
    *,
    fresh: bool = False,
    on_epoch: Callable[[pd.DataFrame], None] | None = None,
) -> Run:
    """Train the configured detector, or return the finished run of the same configuration and data.

    Args, returns and errors are those of `pretrain`. Test is left alone: `score_detector` reads it.
    """
    if dataset is None:
        dataset = load_dataset(config.dataset, config.size, runtime.root)
    require(dataset.size == config.size, "size", f"the data set's {dataset.size} px", config.size)
    run = find_run(results_root(runtime), record_of(config, dataset))
    if run.finished and not fresh:
        make_fabric(runtime)  # so that several processes leave together
        return run
    task = Detection(config, dataset, runtime, run.record["init_sha256"])
    return train_into(task, run, fresh=fresh, on_epoch=on_epoch)


def build_detector(
    config: DetectConfig, dataset: Dataset, digest: str | None = None, *, channels: int | None = None
) -> Detector:
    """A detector with its initial weights.

    Args:
        digest: of the encoder file's weights. channels: of the network, which may take colour where films are grey.
    Raises:
        ValueError: a backbone that is not the one of the file in every key.
    """
    normalisation = get_policy(config.policy, config.policy_changes).normalisation.for_channels(dataset.channels)
    about: dict[str, Any] = {"channels": channels or dataset.channels, "size": config.size}
    about |= {"normalisation": normalisation}
    backbone = build_backbone(config.backbone, init=config.init, seed=config.seed, **about)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed + 1)  # the same pyramid and head for every backbone
        detector = Detector(backbone, dataset.num_outputs, config)
    if config.init not in ("random", "imagenet"):
        placed = state_digest(backbone.net.state_dict())
        require(placed == digest, "the detector's backbone", f"the encoder file's in every key ({digest})", placed)
    return detector


class Detection:
    """A detector on labelled films as a `Task`.

    Raises:
        ValueError: films without boxes, a backbone without maps of several sizes, or weights that do not fit.
    """

    def __init__(self, config: DetectConfig, dataset: Dataset, runtime: RuntimeConfig, digest: str | None) -> None:
        self.config, self.dataset, self.runtime = config, dataset, runtime
        c, self.fabric = config, make_fabric(runtime)
        device, world = self.fabric.device, self.fabric.world_size
        require(c.batch_size % world == 0, "batch_size", "a multiple of the number of processes", c.batch_size)
        require(c.films_per_epoch >= c.batch_size, "films_per_epoch", "batch_size or more", c.films_per_epoch)
        require(dataset.task == "multilabel", "films", "with several findings each", dataset.task)
        for name in UNUSED:
            given = getattr(runtime, name)
            default = given == getattr(RuntimeConfig(), name)
            require(default, name, "left out, since a detector has no use for it", given)
        self.boxes = boxes_of(dataset.train)
        detector = build_detector(c, dataset, digest).to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        if world > 1 and device.type == "cuda":
            detector = nn.SyncBatchNorm.convert_sync_batchnorm(detector)
        wide, thin = ([p for p in detector.parameters() if (p.ndim > 1) is matrix] for matrix in (True, False))
        groups = [{"params": wide, "weight_decay": c.weight_decay}, {"params": thin, "weight_decay": 0.0}]
        self.model, self.optimizer = self.fabric.setup(detector, build_optimizer(c.optimizer, groups, c.lr))
        self.detector: Detector = detector
        self.rows = labelled_part(len(dataset.train), c.label_fraction, c.seed)
        self.factors = repeat_factors(dataset.train.labels.numpy()[self.rows], c.repeat_below)
        self.views = OneView(get_policy(c.policy, c.policy_changes), c.size)
        self.steps_per_epoch = c.films_per_epoch // c.batch_size
        self.stateful = {"detector": detector, "optimizer": self.optimizer}

    def batches(self, epoch: int, first: int = 0) -> Iterator[Films]:
        """This process's share of the batches of a round; films and views come from (seed, epoch, place) alone."""
        self.model.train()
        return self._batches(epoch, first)

    def _batches(self, epoch: int, first: int) -> Iterator[Films]:
        c, rank, world = self.config, self.fabric.global_rank, self.fabric.world_size
        films = self.rows[draw_films_of_round(self.factors, c.films_per_epoch, c.seed, epoch)]
        draws = draw_table(c.films_per_epoch, 1, c.seed, epoch)
        for step in range(first, self.steps_per_epoch):
            places = np.arange(step * c.batch_size, (step + 1) * c.batch_size).reshape(world, -1)[rank]
            seed = seed_of(c.seed, epoch, step, rank)
            torch.manual_seed(seed)  # for the detector, which learns from a draw of regions
            noise = torch.Generator(self.fabric.device).manual_seed(seed)
            yield self._batch(films[places], draws[places], noise)

    def _batch(self, films: np.ndarray, draws: Tensor, noise: torch.Generator) -> Films:
        device = self.fabric.device
        (views,) = self.views(self.dataset.train.images[films].to(device), draws, noise)
        images = _seen_by(self.detector, views)
        targets = []
        for film, map_ in zip(films, self.views.maps(draws[:, 0]), strict=True):
            boxes = self.boxes[film]
            moved, kept = move_boxes(boxes[:, :4], map_, self.config.min_visible)
            labels = boxes[kept, 4].long() + 1  # 0 is background
            targets.append({"boxes": (moved * self.config.size).to(device), "labels": labels.to(device)})
        return Films(list(images), targets)

    def step(self, batch: Films, number: int) -> dict[str, Tensor | float]:
        """One update of everything."""
        c, steps = self.config, self.steps_per_epoch
        warmup = min(steps, c.epochs * steps // 3)
        rate = lr_at(number, base_lr=c.lr, warmup_steps=warmup, total_steps=c.epochs * steps)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        self.optimizer.zero_grad()
        losses = self.model(batch)
        loss = torch.stack(list(losses.values())).sum()
        self.fabric.backward(loss)
        self.optimizer.step()
        return {"loss": loss, **losses, "lr": rate}

    def measure(self, row: Mapping[str, float]) -> dict[str, float]:
        """Speed, and AP on val when it is its turn and after the last round."""
        c = self.config
        figures = {"films_per_second": self.steps_per_epoch * c.batch_size / row["train_seconds"]}
        if row["epoch"] % self.runtime.measure_every == 0 or row["epoch"] == c.epochs:
            found = find_boxes(self.detector, self.dataset.val, self.fabric)
            val = self.dataset.val
            figures["val_ap40"] = _macro_ap(found, _truth(val), len(val))
        return figures

    def about(self) -> dict[str, Any]:
        """How many films, and how the network sees them."""
        body: Any = self.detector.backbone.body
        return {"normalisation": vars(body.normalisation), "films": len(self.rows)}

    def finish(self, run: Run) -> dict[str, Any]:
        """Write the detector."""
        write_tensors(run.path / WEIGHTS, self.detector.state_dict())
        return {}


def _seen_by(detector: Detector, films: Tensor) -> Tensor:
    """Films [B, C, S, S] in [0, 1] as the backbone takes them: its channels, its normalisation."""
    body: Any = detector.backbone.body
    return normalise(films.expand(-1, body.in_channels, -1, -1), body.normalisation)


@torch.no_grad()
def find_boxes(detector: Detector, split: Split, fabric: Fabric) -> pd.DataFrame:
    """What a detector finds on every film of a split: a table of boxes with scores."""
    parts = [pd.DataFrame(columns=["film", "finding", *CORNERS, "score"], dtype=float)]
    with evaluating(detector), fabric.autocast():
        for first in range(0, len(split), BATCH):
            chosen = split.images[first : first + BATCH]
            images = _seen_by(detector, chosen.to(fabric.device).float().div_(255))
            for film, found in enumerate(detector(Films(list(images))), first):
                corners = found["boxes"].float().cpu().numpy() / chosen.shape[-1]
                about = {"film": film, "finding": found["labels"].cpu().numpy() - 1}
                scores = found["scores"].float().cpu().numpy()
                parts.append(pd.DataFrame(corners, columns=CORNERS).assign(**about, score=scores))
    found = pd.concat(parts, ignore_index=True).astype({"film": int, "finding": int})
    return found[["film", "finding", "score", *CORNERS]].round(4)


def _truth(split: Split) -> pd.DataFrame:
    return table_of(boxes_of(split)).round(4)  # as it is recorded


def _macro_ap(found: pd.DataFrame, truth: pd.DataFrame, films: int) -> float:
    findings = sorted(truth["finding"].unique())
    return float(np.nanmean(voc_ap(found, truth, np.ones((1, films)), findings)))


def films_of(run: Run, runtime: RuntimeConfig = RuntimeConfig()) -> Dataset:
    """The data that a detector was trained on, a draw of them where it was one.

    Raises:
        ValueError: other data are there now.
    """
    drawn = run.environment["data"].get("drawn", {})
    dataset = load_dataset(run.record["dataset"], run.record["size"], runtime.root, **drawn)
    same = dataset.fingerprint == run.record["fingerprint"]
    require(same, "data", f"those of run {run.id}", dataset.name)
    return dataset


def score_detector(
    run: Run, dataset: Dataset, runtime: RuntimeConfig = RuntimeConfig(), *, test: bool = False
) -> dict[str, Any]:
    """AP on val and, if asked, on test, recorded with every box found and every true one; what is recorded is returned.

    Returns:
        metrics by split: `ap40` (VOC 2010, at an overlap of .4), `ap50` and `ap50_95` (COCO), means over findings.
    Raises:
        FileNotFoundError: the records are here without the weights. ValueError: other data than it was trained on.
    """
    same = dataset.fingerprint == run.record["fingerprint"]
    require(same, "data", f"those of run {run.id}", dataset.name)
    metrics = run.metrics
    wanted = [split for split in ("val", *["test"] * test) if split not in metrics.get("detection", {})]
    if not wanted:
        return metrics
    file = run.path / WEIGHTS
    if not file.is_file():
        command = run.environment.get("command", "python detect.py train")
        raise FileNotFoundError(
            f"run {run.id} has its records but not its weights here; make them anew with: {command}"
        )
    fabric = make_fabric(runtime)
    config = DetectConfig(**{k: run.record[k] for k in vars(DetectConfig()) if k in run.record} | {"init": "random"})
    state = load_file(file)
    detector = build_detector(config, dataset, channels=state["backbone.body.net.conv1.weight"].shape[1])
    detector.load_state_dict(state)
    detector.backbone.body.normalisation = Normalisation(**run.environment["normalisation"])  # type: ignore[union-attr]
    detector.to(fabric.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    figures = dict(metrics.get("detection", {}))
    with run_lock(run, doing="scored"):
        for name in wanted:
            split = dataset.splits[name]
            found, truth = find_boxes(detector, split, fabric), _truth(split)
            write_table(run.path / f"detections_{name}.csv.gz", found)
            write_table(run.path / f"boxes_{name}.csv.gz", truth)
            coco = coco_ap(found, truth, len(split), dataset.num_outputs)
            figures[name] = {
                "ap40": _macro_ap(found, truth, len(split)),
                **coco,
                "films": len(split),
                "boxes": len(truth),
            }
        reads = {"test_reads": metrics.get("test_reads", 0) + ("test" in wanted)} if test else {}
        write_json(run.path / "metrics.json", metrics | {"detection": figures} | reads)
    return run.metrics
