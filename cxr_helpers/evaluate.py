"""An encoder probed on a data set: features once, probes on val, and on test only when asked for, into a record."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from safetensors import safe_open
from safetensors.torch import load_file

from .config import PretrainConfig, ProbeConfig, RuntimeConfig
from .data import Dataset, Split, keep_labels
from .environment import environment_record, now
from .fields import require
from .loop import make_fabric, mixed_precision
from .models import state_digest
from .probe import (
    Features,
    bootstrap_ci,
    classification_metrics,
    extract_features,
    fuse,
    knn_probe,
    linear_probe,
    mean_of_logits,
    predict,
    reduced,
    split_folds,
    threshold_from,
)
from .recipes import command_of_probe, find_probe
from .runs import TEST_COUNTS, Run, run_lock, start_run
from .writing import write_json, write_table, write_tensors

__all__ = ["Encoder", "evaluate", "prediction_table", "probe_of", "require_folds", "run_features", "summary_line"]

Encoder = Run | str | Path
JOINS = ("pca", "logits")


def probe_of(
    encoder: Encoder | Sequence[Encoder],
    dataset: Dataset,
    runtime: RuntimeConfig = RuntimeConfig(),
    *,
    backbone: str = "resnet18",
    seed: int = 0,
    stage: str | None = None,
    join: str | None = None,
) -> Run:
    """The record of an encoder on a data set: a run's own on the data it was trained on, else a folder of its own.

    The run may be probed or not; nothing is written.

    Args:
        encoder: a run, `random`, `imagenet`, the path of an encoder file, or several of these.
        backbone, seed: of a random or ImageNet encoder.
        stage: whose map is probed, by its mean over positions, such as layer3; None takes the features.
        join: of several encoders, `pca` (to as many features as the first has) or `logits` (the mean of what probes of
            each by itself say); None probes their features side by side.
    """
    return _records(encoder, dataset, runtime, backbone=backbone, seed=seed, stage=stage, join=join)[-1]


def _records(encoder: Encoder | Sequence[Encoder], dataset: Dataset, runtime: RuntimeConfig, **about: Any) -> list[Run]:
    """The record of each encoder by itself and, last, of several side by side."""
    several = [encoder] if isinstance(encoder, (Run, str, Path)) else list(encoder)
    alone = [
        one
        if isinstance(one, Run) and one.record["fingerprint"] == dataset.fingerprint and not about["stage"]
        else find_probe(one, dataset, runtime, **about)
        for one in several
    ]
    require(about["join"] in (None, *JOINS), "join", f"one of {', '.join(JOINS)}", about["join"])
    require(len(alone) > 1 or not about["join"], "join", "left out for a single encoder", about["join"])
    how = {name: about[name] for name in ("stage", "join")}
    return alone if len(alone) == 1 else [*alone, find_probe(alone, dataset, runtime, **how)]


def require_folds(dataset: Dataset, config: PretrainConfig, probe: ProbeConfig) -> None:
    """Refuse, before a training, labels that are too few for the probe's folds.

    Raises:
        ValueError: fewer than folds, or no fold with both classes.
    """
    train = keep_labels(dataset, config.label_fraction, config.seed).train
    known = train.labelled.numpy()
    groups = None if train.groups is None else train.groups[known]
    labels = train.labels.numpy()[known]
    held = [labels[rows] for _, rows in split_folds(labels, groups, folds=probe.folds, seed=probe.seed)]
    if not any((one != one[:1]).any() for one in held):
        raise ValueError("no fold of train has both classes: label more train images or use fewer folds")


def run_features(run: Run, split_name: str, split: Split, runtime: RuntimeConfig = RuntimeConfig()) -> Features:
    """Features of one split under the run's encoder, extracted once and kept in its folder.

    Args:
        split_name: train, val or test; names the cache file, which is used only for the same weights and images.
    Raises:
        FileNotFoundError: neither a fitting cache nor weights are there. ValueError: weights of another record.
    """
    cache = run.path / f"features_{split_name}.safetensors"
    images = hashlib.sha256(split.images.cpu().contiguous().numpy().data).hexdigest()
    x = _cached(cache, {"images_sha256": images, "weights_sha256": run.weights_sha256})
    if x is not None:
        return Features(x, split.labels.cpu().numpy(), split.groups)
    fabric = make_fabric(runtime)
    backbone = run.backbone()
    weights, colours = state_digest(backbone.net.state_dict()), split.images.shape[1]
    fits = backbone.in_channels >= colours
    require(fits, "images", f"with the {backbone.in_channels} channels of the encoder, or grey", colours)
    backbone = backbone.to(fabric.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    how: dict[str, Any] = {"precision": mixed_precision(fabric), "stage": run.record.get("stage")}
    features = extract_features(backbone, split, backbone.normalisation, **how)
    cache.parent.mkdir(parents=True, exist_ok=True)
    write_tensors(cache, {"x": torch.from_numpy(features.x)}, {"images_sha256": images, "weights_sha256": weights})
    return features


def _cached(cache: Path, made_of: Mapping[str, str | None]) -> Any:
    """Features [N, D] of a cache made from these weights and images; None where it is another's or cannot be read."""
    try:
        with safe_open(cache, "np") as file:
            return file.get_tensor("x") if file.metadata() == made_of else None
    except Exception:  # whatever is wrong with it, it is made anew
        return None


def evaluate(
    encoder: Encoder | Sequence[Encoder],
    dataset: Dataset,
    runtime: RuntimeConfig = RuntimeConfig(),
    probe: ProbeConfig = ProbeConfig(),
    *,
    test: bool = False,
    backbone: str = "resnet18",
    seed: int = 0,
    stage: str | None = None,
    join: str | None = None,
) -> dict[str, Any]:
    """Probe an encoder and record what was measured; a second call returns the record.

    Writes `metrics.json` (linear and kNN probes and, for supervised runs on their own data, the trained head; val, and
    test if asked for, AUC with its patient-clustered 95 % interval) and `predictions_<split>.csv.gz`. Everything is
    chosen on train and val; `test_reads` counts how often test was scored, and is written before anything that a
    reader could learn of test from. One process measures at a time; a record that is there is read by any.

    Args:
        encoder: as in `probe_of`; features of several are standardised block by block and stand side by side.
        dataset: any data set, labels unhidden; a run on part of the labels is probed on the same part of its own data.
        test: score test too.
        backbone, seed, stage, join: as in `probe_of`.
    Raises:
        ValueError: the data hold no label or a single class, or weights are not those of their record.
        FileNotFoundError: a new measurement is needed and the weights are not there.
        LockedError: a new measurement is needed and another process is at work on this record.
    """
    require(dataset.has_labels, f"train of {dataset.name}", "labelled to be probed", "no label")
    *blocks, run = _records(encoder, dataset, runtime, backbone=backbone, seed=seed, stage=stage, join=join)
    wanted = ["val", "test"] if test else ["val"]
    if _holds(run.metrics, probe, wanted):
        return run.metrics
    with run_lock(run, doing="probed"):
        stored = run.metrics  # now that nobody else writes it
        if _holds(stored, probe, wanted):
            return stored
        began = None if "encoder" not in run.record else _begin(run, dataset, runtime)
        fraction = float(run.record.get("label_fraction", 1.0))
        if fraction < 1:
            dataset = keep_labels(dataset, fraction, int(run.record["seed"]))
        measured, tables = _measure(run, blocks or [run], dataset, runtime, probe, wanted)
        counts = {key: int(stored.get(key, 0)) for key in TEST_COUNTS if key in stored}
        counts["test_reads"] = counts.get("test_reads", 0) + int(test)
        if counts["test_reads"] or stored:  # a kill before the record leaves no old figures beside new tables
            write_json(run.path / "metrics.json", counts)
        for name, table in tables.items():
            write_table(run.path / f"predictions_{name}.csv.gz", table)
        measured |= {"run": run.id, **counts}
        write_json(run.path / "metrics.json", measured)
        if began is not None:
            write_json(run.path / "environment.json", {**began, "finished": now()})
    return measured


def _begin(run: Run, dataset: Dataset, runtime: RuntimeConfig) -> dict[str, Any]:
    """Make the folder of an encoder that is probed as it is; its environment, like a training's."""
    fabric = make_fabric(runtime)
    start_run(run, fresh=False)
    digest = run.weights_sha256 or state_digest(run.backbone().net.state_dict())
    about = environment_record(fabric.device, mixed_precision(fabric))
    about |= {"command": command_of_probe(run, dataset), "data": dict(dataset.provenance), "backbone_sha256": digest}
    write_json(run.path / "environment.json", about)
    return about


def _plain(probe: ProbeConfig) -> dict[str, Any]:
    return {**asdict(probe), "cs": list(probe.cs)}


def _holds(stored: Mapping[str, Any], probe: ProbeConfig, wanted: list[str]) -> bool:
    """Whether a record answers what is asked: these splits, probed in this way."""
    how = stored.get("probe_config", {})
    return how == {**how, **_plain(probe)} and all(split in stored["linear"] for split in wanted)


def _measure(
    run: Run, blocks: list[Run], dataset: Dataset, runtime: RuntimeConfig, probe: ProbeConfig, wanted: list[str]
) -> tuple[dict[str, Any], dict[str, pd.DataFrame]]:
    """The record but for its counts, and the predictions of each split."""
    splits = {name: getattr(dataset, name) for name in ("train", *wanted)}
    read = [{name: run_features(block, name, split, runtime) for name, split in splits.items()} for block in blocks]
    joined = fuse(read) if len(read) > 1 else read[0]
    if run.record.get("join") == "pca":
        joined = reduced(joined, read[0]["train"].x.shape[1])
    features = {name: split.labelled() for name, split in joined.items()}
    train, val, test = features["train"], features["val"], features.get("test")
    options: dict[str, Any] = {"task": dataset.task, "num_outputs": dataset.num_outputs}
    measured: dict[str, Any] = {"probe_config": _plain(probe)}
    if run.record.get("join") == "logits":
        own = [linear_probe(*block.values(), config=probe, **options) for block in read]
        scores = {name: mean_of_logits([one.scores[name] for one in own], dataset.task) for name in wanted}
        chosen: dict[str, Any] = {"c": [one.c for one in own]}
    else:
        one = linear_probe(train, val, test, config=probe, **options)
        scores = one.scores
        chosen = {"c": one.c, "converged": one.converged, "cv": [*one.cv], "threshold": one.threshold.tolist()}
    measured["linear"] = chosen | _scored(dataset, features, scores)
    options |= {"k": probe.knn_k, "temperature": probe.knn_temperature}
    near = {name: knn_probe(train, features[name], **options) for name in wanted}
    measured["knn"] = _scored(dataset, features, near)
    primary, head = scores, run.path / "head.safetensors"
    if head.is_file():  # a supervised run's own classifier
        state = load_file(head)
        logits = {name: torch.from_numpy(features[name].x) @ state["weight"].T + state["bias"] for name in wanted}
        primary = {name: predict(of.double().numpy(), dataset.task) for name, of in logits.items()}
        measured["head"] = _scored(dataset, features, primary)
    return measured, {name: prediction_table(dataset, features[name], primary[name]) for name in wanted}


def _scored(dataset: Dataset, features: Mapping[str, Features], scores: Mapping[str, Any]) -> dict[str, Any]:
    """Metrics of scores on each split, the threshold chosen on val, with the interval of the main metric."""
    threshold = threshold_from(features["val"].labels, scores["val"])
    metric = "accuracy" if dataset.task == "multiclass" else "auc"
    found: dict[str, Any] = {}
    for name, values in scores.items():
        split = features[name]
        interval = bootstrap_ci(split.labels, values, split.groups, metric=metric)
        found[name] = classification_metrics(dataset.task, split.labels, values, threshold=threshold)
        found[name] |= {f"{metric}_low": interval.low, f"{metric}_high": interval.high}
        if split.groups is not None:
            found[name]["num_patients"] = interval.num_groups
    return found


def prediction_table(dataset: Dataset, split: Features, scores: Any) -> pd.DataFrame:
    """One row per labelled image: its label(s), scores and patient, in the split's order."""
    names = dataset.class_names[1:] if dataset.task == "binary" else dataset.class_names
    marked = [f"label/{name}" for name in names] if dataset.task == "multilabel" else ["label"]
    groups = np.arange(len(split)) if split.groups is None else split.groups
    labels, scores = (np.reshape(values, (len(split), -1)).T for values in (split.labels, scores))
    table = {"group": groups, **dict(zip(marked, labels, strict=True))}
    return pd.DataFrame(table | {f"score/{name}": column for name, column in zip(names, scores, strict=True)})


def summary_line(run: Run, metrics: Mapping[str, Any]) -> str:
    """One line: where the run lies and what its linear probe (or trained head) measured, with 95 % intervals.

    Without metrics, of data without labels, it has the pretext's own loss on val.
    """
    if not metrics:
        seen = run.history.get("val_loss")
        said = "not trained" if seen is None else f"val loss {seen.iloc[-1]:.4f}"
        return f"{run.status} {run.path} · no labels, nothing probed · {said}"
    parts, kind = [f"{run.status} {run.path}"], "trained head" if "head" in metrics else "linear probe"
    figures = metrics.get("head", metrics["linear"])
    for split in (name for name in ("val", "test") if name in figures):
        values = figures[split]
        name = "auc" if "auc_low" in values else "accuracy"
        ends = f"[{values[name + '_low']:.4f}, {values[name + '_high']:.4f}]"
        parts.append(f"{split} {name} {values[name]:.4f} {ends} ({kind})")
        parts.append(f"kNN {split} {name} {metrics['knn'][split][name]:.4f}")
    return " · ".join(parts)
