"""Runs to read: an untrained one, and synthetic folders in the real format with predictions of a chosen quality."""

from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from conftest import texture_config

from cxr_helpers.config import PretrainConfig, ProbeConfig, RuntimeConfig
from cxr_helpers.data import Dataset
from cxr_helpers.evaluate import evaluate
from cxr_helpers.pretrain import pretrain
from cxr_helpers.probe.intervals import bootstrap_ci
from cxr_helpers.recipes import resolve, run_id
from cxr_helpers.runs import Run
from cxr_helpers.writing import write_json, write_table

SPLITS = {"val": 80, "test": 120}


def probed(data: Dataset, runtime: RuntimeConfig, *, test: bool = True) -> Run:
    """An untrained network's run, probed."""
    run = pretrain(texture_config(epochs=0, policy="none"), data, runtime)
    evaluate(run, data, runtime, ProbeConfig(cs=(0.01, 1.0), folds=2), test=test)
    return run


def history(epochs: int, seed: int) -> pd.DataFrame:
    """Plausible curves: losses fall, AUC rises; the seed moves them a little."""
    decay, noise = np.exp(-np.arange(1, epochs + 1) / 5), 0.01 * np.random.default_rng(seed).normal(size=epochs)
    table = pd.DataFrame({"epoch": np.arange(1, epochs + 1), "loss": 4 + 2 * decay + noise})
    return table.assign(online_auc=0.95 - 0.4 * decay + noise, knn_auc=0.97 - 0.1 * decay)


def _predictions(split: str, labels: int, quality: float, noise: int) -> tuple[pd.DataFrame, Any, Any]:
    """Fixed patients and truths of a split; scores that separate them by `quality`, another draw per `noise`."""
    count = SPLITS[split]
    fixed = np.random.default_rng(count)
    truth = fixed.integers(0, 2, (count, labels))
    shared = fixed.normal(size=(count, labels))
    odds = quality * (truth - 0.5) + shared + 0.3 * np.random.default_rng(noise).normal(size=(count, labels))
    scores = 1 / (1 + np.exp(-odds))
    table = pd.DataFrame({"group": [f"p{i // 2}" for i in range(count)]})
    if labels == 1:
        return table.assign(**{"label": truth[:, 0], "score/ill": scores[:, 0]}), truth[:, 0], scores[:, 0]
    table = table.assign(**{f"label/c{i}": truth[:, i] for i in range(labels)})
    return table.assign(**{f"score/c{i}": scores[:, i] for i in range(labels)}), truth, scores


def make_run(root: Path, *, quality: float = 2.0, labels: int = 1, fingerprint: str = "data", **config: Any) -> Run:
    """A finished, probed run folder below `root/runs`."""
    resolved = resolve(PretrainConfig(**{"epochs": 6, "size": 64, **config}))
    record = {**asdict(resolved), "policy_fields": {}, "init_sha256": None, "fingerprint": fingerprint}
    path = root / "runs" / run_id(record)
    path.mkdir(parents=True)
    write_json(path / "config.json", record)
    if resolved.epochs:
        write_table(path / "history.csv", history(resolved.epochs, resolved.seed))
    metrics: dict[str, Any] = {"probe_config": {"cs": [1.0]}, "linear": {"c": 1.0}, "knn": {}, "test_reads": 1}
    for split in SPLITS:
        table, truth, scores = _predictions(split, labels, quality, resolved.seed)
        write_table(path / f"predictions_{split}.csv.gz", table)
        interval = bootstrap_ci(truth, scores, table["group"], num_resamples=50)
        metrics["linear"][split] = {"auc": interval.estimate, "auc_low": interval.low, "auc_high": interval.high}
        metrics["knn"][split] = {"auc": interval.estimate}
    if resolved.method == "supervised":
        metrics["head"] = {split: metrics["linear"][split] for split in SPLITS}
    write_json(path / "metrics.json", metrics)
    environment = {"device_name": "a processor", "commit": "0123456789abcdef", "dirty": False, "seconds": 60.0}
    write_json(path / "environment.json", environment | {"finished": "now", "command": "python train.py"})
    return Run(path=path, record=record)
