"""From what was asked for to what is learnt: the method's recipe filled in, the record of a run, its command."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from dataclasses import asdict, fields, replace
from pathlib import Path
from typing import Any

from .augment import AugmentationPolicy, get_policy
from .config import PretrainConfig, RuntimeConfig
from .data import Dataset
from .methods import METHODS, get_options
from .models import imagenet_state, load_backbone, state_digest
from .runs import read_json

__all__ = ["command_of", "record_of", "resolve"]


def resolve(config: PretrainConfig) -> PretrainConfig:
    """The configuration with the method's recipe in every field left at None.

    Raises:
        ValueError: an unknown method, option, policy or policy field, or one out of range.
    """
    get_options(config.method, config.options)
    get_policy(config.policy, config.policy_changes)
    recipe = dict(METHODS[config.method].recipe)
    options = asdict(get_options(config.method, {**recipe.pop("options", {}), **config.options}))
    filled = {name: value for name, value in recipe.items() if getattr(config, name) is None}
    return replace(config, options=options, **filled)


def record_of(config: PretrainConfig, dataset: Dataset) -> dict[str, Any]:
    """Everything that decides what is learnt, as plain values: this is hashed into the run's name and stored.

    Data and initial weights are named without their place on this machine; their digests say what they are.
    """
    return {
        **_numbers(config),
        "dataset": dataset.name,
        "init": config.init if config.init in ("random", "imagenet") else "/".join(Path(config.init).parts[-2:]),
        "options": asdict(get_options(config.method, config.options)),
        "policy_fields": _magnitudes(get_policy(config.policy, config.policy_changes)),
        "init_sha256": _init_digest(config),
        "fingerprint": dataset.fingerprint,
    }


def _numbers(config: PretrainConfig) -> dict[str, Any]:
    """A configuration's fields, one number written one way: 1 and 1.0 name one run, from Python and from a command."""
    values = asdict(config)
    for name in (f.name for f in fields(config) if str(f.type).startswith("float")):
        values[name] = None if values[name] is None else float(values[name])
    warmup = values["warmup_epochs"]
    if warmup is not None and warmup.is_integer():  # the one that has always been written as a count
        values["warmup_epochs"] = int(warmup)
    return values


def _magnitudes(policy: AugmentationPolicy) -> dict[str, Any]:
    """A policy's numbers, without its words: rewording a reason does not rename a run."""
    return {key: value for key, value in asdict(policy).items() if key not in ("name", "reason")}


def _init_digest(config: PretrainConfig) -> str | None:
    if config.init == "random":
        return None
    if config.init == "imagenet":
        return imagenet_state(config.backbone)[1]
    recorded = read_json(Path(config.init).parent / "environment.json").get("backbone_sha256")
    if recorded and not Path(config.init).is_file():  # the records of a run travel without its weights
        return str(recorded)
    return state_digest(load_backbone(config.init).net.state_dict())


def command_of(config: PretrainConfig, dataset: Dataset | None = None, runtime: RuntimeConfig | None = None) -> str:
    """The command line that repeats a run: every field that differs from its default, paths without this machine's.

    Args:
        config: of the run.
        dataset: what it is trained on: the draw of its images is part of the command where it is only a part.
        runtime: how it is executed: how often val is looked at is part of the command where it is not every epoch.
    """
    words = ["python train.py"]
    default = PretrainConfig()
    for f in fields(config):
        value = getattr(config, f.name)
        if f.name in ("dataset", "size", "method", "policy", "epochs", "seed") or value != getattr(default, f.name):
            values = [v for pair in value.items() for v in pair] if isinstance(value, Mapping) else [_portable(value)]
            words.append(f"--{f.name.replace('_', '-')} {' '.join(shlex.quote(str(v)) for v in values)}")
    drawn = dataset.provenance.get("drawn", {}) if dataset is not None else {}
    words += [f"--{name.replace('_', '-')} {most}" for name, most in drawn.items() if most is not None]
    if runtime is not None and runtime.measure_every > 1:
        words.append(f"--measure-every {runtime.measure_every}")
    return " ".join(words)


def _portable(value: Any) -> Any:
    """A path relative to this folder; elsewhere, a run's file where a checkout has it, any other's last two parts."""
    if not isinstance(value, str) or not Path(value).is_absolute():
        return value
    path = Path(value)
    if path.is_relative_to(Path.cwd()):
        return str(path.relative_to(Path.cwd()))
    *_, runs, run, file = ("", "", *path.parts)
    return f"results/runs/{run}/{file}" if runs == "runs" else f".../{run}/{file}"
