"""From a finished run to its record: features once, probes on val, and on test only when asked for."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from safetensors import safe_open
from safetensors.torch import load_file

from .config import ProbeConfig, RuntimeConfig
from .data import Dataset, Split, keep_labels
from .locks import run_lock
from .loop import make_fabric, mixed_precision
from .probe import (
    Features,
    ProbeResult,
    bootstrap_ci,
    classification_metrics,
    extract_features,
    knn_probe,
    linear_probe,
    predict,
    sgd_probe,
    threshold_from,
)
from .runs import TEST_COUNTS, Run, write_json, write_table, write_tensors

__all__ = ["evaluate", "prediction_table", "run_features", "summary_line"]


def run_features(run: Run, split_name: str, split: Split, runtime: RuntimeConfig = RuntimeConfig()) -> Features:
    """Features of one split under the run's backbone, extracted once and kept beside its weights.

    Args:
        split_name: train, val or test; names the cache file, which is used only for the very same images.
    Raises:
        FileNotFoundError: neither a fitting cache nor weights are there.
    """
    cache = run.path / f"features_{split_name}.safetensors"
    digest = hashlib.sha256(split.images.cpu().contiguous().numpy().data).hexdigest()
    if cache.is_file():
        with safe_open(cache, "np") as file:
            if (file.metadata() or {}).get("images_sha256") == digest:
                return Features(file.get_tensor("x"), split.labels.cpu().numpy(), split.groups)
    fabric = make_fabric(runtime)
    backbone = run.backbone().to(fabric.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    features = extract_features(backbone, split, backbone.normalisation, precision=mixed_precision(fabric))
    write_tensors(cache, {"x": torch.from_numpy(features.x)}, {"images_sha256": digest})
    return features


def evaluate(
    run: Run,
    dataset: Dataset,
    runtime: RuntimeConfig = RuntimeConfig(),
    probe: ProbeConfig = ProbeConfig(),
    *,
    test: bool = False,
) -> dict[str, Any]:
    """Probe a finished run and write what was measured into its folder; a second call returns the record.

    Writes `metrics.json` (linear and kNN probes and, for supervised runs, the trained head; val, and test if asked
    for, AUC with its patient-clustered 95 % interval), `predictions_<split>.csv` and `probe_curve.csv`. Everything is
    chosen on train and val; `test_reads` counts how often test was scored (`control_reads`: by controls), and is
    written before anything that a reader could learn of test from. One process measures at a time; a record that is
    there is read by any.

    Args:
        dataset: the run's data set, labels unhidden; a run on part of the labels is probed on the same part.
        test: score test too.
    Raises:
        ValueError: the data are not those of the run, or hold a single class.
        FileNotFoundError: a new measurement is needed and the weights are not there.
        LockedError: a new measurement is needed and another process trains or probes this run.
    """
    if dataset.fingerprint != run.record["fingerprint"]:
        raise ValueError(f"dataset must be the one that run {run.id} was trained on, got other images or labels")
    wanted = ["val", "test"] if test else ["val"]
    found = run.metrics
    if _holds(found, probe, wanted):
        return found
    with run_lock(run, doing="probed"):
        stored = run.metrics  # now that nobody else writes it
        if _holds(stored, probe, wanted):
            return stored
        fraction = float(run.record["label_fraction"])
        if fraction < 1:
            dataset = keep_labels(dataset, fraction, int(run.record["seed"]))
        measured, tables = _measure(run, dataset, runtime, probe, wanted)
        counts = {key: int(stored.get(key, 0)) for key in TEST_COUNTS if key in stored}
        counts["test_reads"] = counts.get("test_reads", 0) + int(test)
        if counts["test_reads"] or stored:  # a kill before the record leaves no old figures beside new tables
            write_json(run.path / "metrics.json", counts)
        for name, table in tables.items():
            write_table(run.path / name, table)
        measured |= {"run": run.id, **counts}
        write_json(run.path / "metrics.json", measured)
    return measured


def _holds(stored: Mapping[str, Any], probe: ProbeConfig, wanted: list[str]) -> bool:
    """Whether a record answers what is asked: these splits, probed in this way."""
    same = stored.get("probe_config") == _plain(probe)
    return same and all(split in stored["linear"] for split in wanted)


def _plain(probe: ProbeConfig) -> dict[str, Any]:
    return {key: list(value) if isinstance(value, tuple) else value for key, value in asdict(probe).items()}


def _measure(
    run: Run, dataset: Dataset, runtime: RuntimeConfig, probe: ProbeConfig, wanted: list[str]
) -> tuple[dict[str, Any], dict[str, pd.DataFrame]]:
    """The record but for its counts, and the tables beside it by their files' names."""
    splits = {name: getattr(dataset, name) for name in ("train", *wanted)}
    features = {name: run_features(run, name, split, runtime).labelled() for name, split in splits.items()}
    train, val, test = features["train"], features["val"], features.get("test")
    options: dict[str, Any] = {"task": dataset.task, "num_outputs": dataset.num_outputs}
    linear = linear_probe(train, val, test, config=probe, **options)
    tables = {"probe_curve.csv": pd.DataFrame(sgd_probe(train, val, config=probe, **options))}
    measured: dict[str, Any] = {"probe_config": _plain(probe), "linear": _linear_record(linear)}
    near = {
        name: knn_probe(train, features[name], k=probe.knn_k, temperature=probe.knn_temperature, **options)
        for name in wanted
    }
    measured["knn"] = _scored(dataset, features, near)
    primary = linear.scores
    if _head_file(run).is_file():
        primary = {name: _head_scores(run, dataset, features[name]) for name in wanted}
        measured["head"] = _scored(dataset, features, primary)
    for name in wanted:
        measured["linear"][name] |= _interval(dataset, features[name], linear.scores[name])
        tables[f"predictions_{name}.csv"] = prediction_table(dataset, features[name], primary[name])
    return measured, tables


def _head_file(run: Run) -> Path:
    return run.path / "head.safetensors"


def _head_scores(run: Run, dataset: Dataset, features: Features) -> NDArray[Any]:
    """Scores of a supervised run's own classifier on its features."""
    state = load_file(_head_file(run))
    logits = torch.from_numpy(features.x) @ state["weight"].T + state["bias"]
    return predict(logits.double().numpy(), dataset.task)


def _linear_record(result: ProbeResult) -> dict[str, Any]:
    return {
        "c": result.c,
        "converged": bool(result.converged),
        "cv": [dict(row) for row in result.cv],
        "threshold": [float(t) for t in np.atleast_1d(result.threshold)],
        **{name: dict(values) for name, values in result.metrics.items()},
    }


def _scored(dataset: Dataset, features: Mapping[str, Features], scores: Mapping[str, Any]) -> dict[str, Any]:
    """Metrics of scores on each split, the threshold chosen on val, with the interval of the main metric."""
    threshold = threshold_from(features["val"].labels, scores["val"])
    return {
        name: classification_metrics(dataset.task, features[name].labels, scores[name], threshold=threshold)
        | _interval(dataset, features[name], scores[name])
        for name in scores
    }


def _interval(dataset: Dataset, split: Features, scores: Any) -> dict[str, float]:
    metric = "accuracy" if dataset.task == "multiclass" else "auc"
    interval = bootstrap_ci(split.labels, scores, split.groups, metric=metric)
    return {f"{metric}_low": interval.low, f"{metric}_high": interval.high, "num_patients": interval.num_groups}


def prediction_table(dataset: Dataset, split: Features, scores: Any) -> pd.DataFrame:
    """One row per labelled image: its label(s), scores and patient, in the split's order."""
    table: dict[str, Any] = {"group": split.groups if split.groups is not None else np.arange(len(split))}
    labels = split.labels.reshape(len(split), -1)
    columns = dataset.class_names if dataset.task != "binary" else (dataset.class_names[1],)
    if dataset.task == "multilabel":
        table |= {f"label/{c}": labels[:, i] for i, c in enumerate(columns)}
    else:
        table["label"] = labels[:, 0]
    scores = np.asarray(scores).reshape(len(split), -1)
    table |= {f"score/{c}": scores[:, i] for i, c in enumerate(columns)}
    return pd.DataFrame(table)


def summary_line(run: Run, metrics: Mapping[str, Any]) -> str:
    """One line: where the run lies and what its linear probe measured, with 95 % intervals."""
    head = "head" if "head" in metrics else "linear"
    parts = [f"{run.status} {run.path}"]
    for split in ("val", "test"):
        if split in metrics[head]:
            values = metrics[head][split]
            name = "auc" if "auc_low" in values else "accuracy"
            parts.append(
                f"{split} {name} {values[name]:.4f} [{values[name + '_low']:.4f}, {values[name + '_high']:.4f}]"
                f" ({'trained head' if head == 'head' else 'linear probe'})"
            )
            parts.append(f"kNN {split} {name} {metrics['knn'][split][name]:.4f}")
    return " · ".join(parts)
