"""A plan is a dict whose keys are a table's rows; here it is gone through: runs are found, or trained, and probed.

`plan = {"SimCLR": sweep(base, method="simclr", seed=(0, 1)), "Untrained": probes("random", seed=(0, 1))}` names no
data: it is gone through once for each. What may not be trained stays in its row as the command that makes it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path
from typing import Any, TypeVar

import pandas as pd

from ..config import DetectConfig, PretrainConfig, RuntimeConfig
from ..data import Dataset
from ..detect import score_detector, train_detector
from ..evaluate import Encoder, evaluate, probe_of
from ..pretrain import pretrain
from ..recipes import command_of, find_run, record_of, resolve, resolve_for
from ..runs import Run, results_root

__all__ = ["FAMILY", "FineTune", "Probe", "Row", "few_labels", "finetune", "missing", "pick", "probes", "run_all",
           "sweep"]  # fmt: skip

MAX_STRETCH = 5  # most passes over few labels, in multiples of the epochs over all of them
SMALLEST_BATCH = 16  # BatchNorm needs company
FAMILY = (  # comparisons of keys that were named before any was made, and are corrected together (Holm)
    ("SimCLR", "VICReg"),
    ("SimCLR from ImageNet*", "SimCLR"),
    ("VICReg from ImageNet*", "VICReg"),
    ("SimCLR", "Supervised"),
    ("VICReg", "Supervised"),
    ("SimCLR from ImageNet*", "Supervised"),
    ("VICReg from ImageNet*", "Supervised"),
    ("SimCLR from ImageNet*", "ImageNet*, fine-tuned"),
)


@dataclass(frozen=True)
class Probe:
    """An encoder measured as it is: `random`, `imagenet`, a run, a backbone file, or several; seed: of random weights.

    `stage` and `join` are `evaluate`'s.
    """

    encoder: Encoder | tuple[Encoder, ...]
    seed: int = 0
    stage: str | None = None
    join: str | None = None


@dataclass(frozen=True)
class FineTune:
    """Training on the labels from the weights that `start` has on the same data."""

    start: PretrainConfig
    config: PretrainConfig


Entry = PretrainConfig | Probe | FineTune | DetectConfig
Plan = Mapping[str, Sequence[Entry]]


@dataclass(frozen=True)
class Row:
    """What a plan's key came to on one data set."""

    label: str  # the key
    dataset: str  # its name
    runs: tuple[Run, ...]  # finished and probed
    missing: tuple[str, ...] = ()  # commands of the others


Config = TypeVar("Config", PretrainConfig, DetectConfig)


def _listed(value: Any) -> Sequence[Any]:
    return value if isinstance(value, (tuple, list, range)) else (value,)


def sweep(base: Config, **changes: Any) -> tuple[Config, ...]:
    """The configuration with these changes; of a tuple, list or range every value is taken, in every combination."""
    values = product(*map(_listed, changes.values()))
    return tuple(replace(base, **dict(zip(changes, chosen, strict=True))) for chosen in values)


def probes(*encoders: Encoder | tuple[Encoder, ...], seed: int | Sequence[int] = 0, **how: str) -> tuple[Probe, ...]:
    """Encoders that are probed as they are, names and files with each seed, tuples as one; how: `stage` or `join`."""
    pairs = [(one, _listed(seed) if isinstance(one, (str, Path)) else [0]) for one in encoders]
    return tuple(Probe(encoder, each, **how) for encoder, seeds in pairs for each in seeds)


def finetune(starts: Sequence[PretrainConfig], epochs: int, **changes: Any) -> tuple[FineTune, ...]:
    """End-to-end training from the weights of a plan's entries, with their seeds, the backbone a tenth as fast."""
    tuned = PretrainConfig(method="supervised", policy="supervised", epochs=epochs, backbone_lr_factor=0.1)
    return tuple(FineTune(s, replace(tuned, **{"batch_size": s.batch_size, "seed": s.seed} | changes)) for s in starts)


def few_labels(base: PretrainConfig, dataset: Dataset, fraction: float, draws: int = 5) -> tuple[PretrainConfig, ...]:
    """Supervised training on draws of a part of the labels: longer and in smaller batches, at the rate of the whole.

    Without that, one in a hundred labels would mean a hundredth of the steps, and show too few steps, not labels.
    """
    base = replace(base, method="supervised", policy="supervised")
    whole = resolve(base)
    assert whole.batch_size is not None and whole.lr is not None
    count = int(fraction * int(dataset.train.labelled.sum()))
    batch = min(whole.batch_size, max(SMALLEST_BATCH, count // 4), count)
    lr = float(f"{whole.lr * whole.batch_size / batch:.4g}")  # rates are per 256 images
    few = replace(base, label_fraction=fraction, batch_size=batch, lr=lr)
    return sweep(few, epochs=round(base.epochs * min(MAX_STRETCH, 1 / fraction)), seed=range(draws))


def run_all(
    plan: Plan,
    data: Mapping[str, Dataset],
    runtime: RuntimeConfig = RuntimeConfig(),
    *,
    train: bool = True,
    test: bool = True,
    probe: bool = True,
) -> list[Row]:
    """Load or train every run of a plan on every data set, and probe it: a row per data set and key.

    Args:
        data: data sets by name.
        train: False leaves out what is not finished; encoders that are measured as they are need no training.
        test: score test too, once per run: everything is chosen on train and val.
        probe: False measures nothing of what is trained, which then need not be labelled.
    """
    rows = []
    for (name, dataset), (label, entries) in product(data.items(), plan.items()):
        found = [_measured(entry, dataset, runtime, train=train, test=test, probe=probe) for entry in entries]
        runs = tuple(one for one in found if isinstance(one, Run))
        rows.append(Row(label, name, runs, tuple(one for one in found if isinstance(one, str))))
    return rows


def _measured(
    entry: Entry, dataset: Dataset, runtime: RuntimeConfig, *, train: bool, test: bool, probe: bool
) -> Run | str:
    """The entry's run, finished and probed, or its command where that may not or cannot be done here."""
    with suppress(FileNotFoundError):  # of weights to start from or to probe
        if isinstance(entry, Probe):
            how: dict[str, Any] = {"seed": entry.seed, "stage": entry.stage, "join": entry.join}
            run = probe_of(entry.encoder, dataset, runtime, **how)
            evaluate(entry.encoder, dataset, runtime, test=test, **how)
            return run
        config = _config(entry, dataset, runtime)
        if train or _planned(config, dataset, runtime).finished:
            detects = isinstance(config, DetectConfig)
            trained, measure = (train_detector, score_detector) if detects else (pretrain, evaluate)
            run = trained(config, dataset, runtime)  # type: ignore[arg-type]
            if probe:
                measure(run, dataset, runtime, test=test)
            return run
    return _command(entry, dataset, runtime) + " --test" * test


def _config(
    entry: PretrainConfig | FineTune | DetectConfig, dataset: Dataset, runtime: RuntimeConfig
) -> PretrainConfig | DetectConfig:
    if not isinstance(entry, FineTune):
        return replace(entry, dataset=dataset.name, size=dataset.size)
    start = _planned(_config(entry.start, dataset, runtime), dataset, runtime)
    return replace(entry.config, dataset=dataset.name, size=dataset.size, init=str(start.weights))


def _planned(config: PretrainConfig | DetectConfig, dataset: Dataset, runtime: RuntimeConfig) -> Run:
    """The run of this configuration and data, begun or not; nothing is written."""
    resolved = config if isinstance(config, DetectConfig) else resolve_for(config, dataset)
    return find_run(results_root(runtime), record_of(resolved, dataset))


def _command(entry: Entry, dataset: Dataset, runtime: RuntimeConfig) -> str:
    if isinstance(entry, Probe):
        several = entry.encoder if isinstance(entry.encoder, tuple) else (entry.encoder,)
        files = [f"results/runs/{e.id}/backbone.safetensors" if isinstance(e, Run) else str(e) for e in several]
        how = "".join(f" --{n} {v}" for n, v in (("stage", entry.stage), ("join", entry.join)) if v)
        about = f"--seed {entry.seed} --dataset {dataset.name} --size {dataset.size}{how}"
        return f"python train.py --encoder {' '.join(files)} {about}"
    with suppress(FileNotFoundError):  # where the start's own weights are not here, it comes first
        return command_of(_config(entry, dataset, runtime), dataset, runtime)
    assert isinstance(entry, FineTune)
    return _command(entry.start, dataset, runtime)


def pick(rows: Iterable[Row], *labels: str, dataset: str | None = None) -> list[Row]:
    """The rows of these labels, in this order, or all of them; of one data set where it is named."""
    here = [row for row in rows if dataset in (None, row.dataset)]
    return [row for label in labels for row in here if row.label == label] if labels else here


def missing(rows: Iterable[Row]) -> pd.DataFrame:
    """Runs that are not there, with the command that makes each: `encoder, dataset, command`."""
    listed = [(row.label, row.dataset, command) for row in rows for command in row.missing]
    return pd.DataFrame(listed, columns=["encoder", "dataset", "command"])
