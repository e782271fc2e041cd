"""From what was asked for to what is learnt: the method's recipe filled in; a run's record, its name and command."""

from __future__ import annotations

import hashlib
import json
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import asdict, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .augment import AugmentationPolicy, get_policy
from .config import PretrainConfig, RuntimeConfig
from .methods import get_options, recipe_of
from .runs import Run, results_root
from .writing import read_json

if TYPE_CHECKING:
    from .data import Dataset

__all__ = ["command_of", "command_of_probe", "find_probe", "find_run", "record_of", "resolve", "run_id"]


def resolve(config: PretrainConfig) -> PretrainConfig:
    """The configuration with the method's recipe in every field left at None.

    Raises:
        ValueError: an unknown method, option, policy or policy field, or one out of range.
    """
    get_options(config.method, config.options)
    policy = get_policy(config.policy, config.policy_changes)
    changes = {name: getattr(policy, name) for name in config.policy_changes}  # numbers, also from a command's words
    recipe = recipe_of(config.method)
    options = asdict(get_options(config.method, {**recipe.pop("options", {}), **config.options}))
    filled = {name: value for name, value in recipe.items() if getattr(config, name) is None}
    return replace(config, options=options, policy_changes=changes, **filled)


def record_of(config: PretrainConfig, dataset: Dataset) -> dict[str, Any]:
    """Everything that decides what is learnt, as plain values: this is hashed into the run's name and stored.

    Data and initial weights are named without their place on this machine; their digests say what they are.
    """
    return {
        **asdict(config),
        "dataset": dataset.name,
        "init": config.init if config.init in ("random", "imagenet") else _named(Path(config.init)),
        "options": asdict(get_options(config.method, config.options)),
        "policy_fields": _magnitudes(get_policy(config.policy, config.policy_changes)),
        "init_sha256": _init_digest(config),
        "fingerprint": dataset.fingerprint,
    }


def defaults_of(record: Mapping[str, Any]) -> dict[str, Any]:
    """What every value of a run's record is by declaration: a field that a record lacks has this value."""
    if "encoder" in record:
        return {"encoder_sha256": None, "backbone": "resnet18", "channels": 1, "seed": 0}
    return {
        **asdict(PretrainConfig()),
        "options": asdict(get_options(record["method"], {})),
        "policy_fields": _magnitudes(AugmentationPolicy(name="", reason="")),
        "init_sha256": None,
    }


def _differing(record: Mapping[str, Any], defaults: Mapping[str, Any]) -> dict[str, Any]:
    """What a record holds that is not the default, mappings within it alike."""
    chosen: dict[str, Any] = {}
    for key, value in record.items():
        if key in defaults and isinstance(value, Mapping):
            value = _differing(value, defaults[key]) or defaults[key]
        if key not in defaults or value != defaults[key]:
            chosen[key] = value
    return chosen


def _plain(record: Mapping[str, Any]) -> dict[str, Any]:
    """A record as JSON holds it."""
    return json.loads(json.dumps(record, default=dict))


def differing(record: Mapping[str, Any]) -> dict[str, Any]:
    """What in a record differs from the declared defaults: this and the data's fingerprint name the run."""
    return _differing(_plain(record), _plain(defaults_of(record)))


def run_id(record: Mapping[str, Any]) -> str:
    """Name of a run: a readable head, then ten hex digits over every resolved value that is not the declared default.

    A field that is added later, with its default, renames no run.

    Args:
        record: of `record_of`.
    """
    digest = hashlib.sha256(json.dumps(differing(record), sort_keys=True, separators=(",", ":")).encode())
    dataset = "".join(ch if ch.isalnum() or ch in "_-" else "_" for ch in record["dataset"].strip("/").split("/")[-1])
    what = _word(record).split(":")[-1].lower()
    return f"{dataset}-{record['size']}-{what}-s{record['seed']}-{digest.hexdigest()[:10]}"


def _word(record: Mapping[str, Any]) -> str:
    """What a record is of, in a word: its method, or for an encoder that is probed as it is where that is from."""
    if "encoder" not in record:
        return record["method"]
    return record["encoder"] if record["encoder"] in ("random", "imagenet") else "probe"


def find_run(root: Path, record: Mapping[str, Any]) -> Run:
    """The run of that record, finished or not; nothing is written.

    Raises:
        ValueError: the folder of its name holds another record.
    """
    path = root / "runs" / run_id(record)
    stored = read_json(path / "config.json")
    if stored and (_word(stored) != _word(record) or differing(stored) != differing(record)):
        raise ValueError(f"run folder {path} must hold the configuration that names it, got another; move it away")
    return Run(path=path, record=record)


def find_probe(
    encoder: Run | str | Path | Sequence[Run],
    dataset: Dataset,
    runtime: RuntimeConfig = RuntimeConfig(),
    *,
    backbone: str = "resnet18",
    seed: int = 0,
) -> Run:
    """The record of an encoder that is probed as it is, probed or not; nothing is written.

    Args:
        encoder: a run, `random`, `imagenet`, the path of an encoder file, or the probes of several encoders, which
            are read side by side.
        backbone, seed: of a random or ImageNet encoder; a file has its own, a run's file the seed of its run.
    Raises:
        FileNotFoundError: no such file.
    """
    from .models import imagenet_state, load_backbone

    if isinstance(encoder, Run):
        encoder = encoder.weights
    source = None
    if isinstance(encoder, Sequence) and not isinstance(encoder, str):
        digests = [str(r["encoder_sha256"] or r["seed"]) for r in map(_identity, encoder)]
        about: dict[str, Any] = {
            "encoder": " + ".join(run.record.get("encoder", _named(run.weights)) for run in encoder),
            "encoder_sha256": hashlib.sha256(" ".join(digests).encode()).hexdigest(),
            "backbone": " + ".join(run.record["backbone"] for run in encoder),
            "seed": encoder[0].record["seed"],
        }
    elif encoder == "random":
        about = {"encoder": "random", "encoder_sha256": None, "backbone": backbone, "seed": seed}
    elif encoder == "imagenet":
        digest = imagenet_state(backbone)[1]
        about = {"encoder": "imagenet", "encoder_sha256": digest, "backbone": backbone, "seed": 0}
    else:
        source = Path(encoder)
        parent = read_json(source.parent / "config.json")
        about = {
            "encoder": _named(source),
            "encoder_sha256": _file_digest(source),
            "backbone": parent["backbone"] if parent else load_backbone(source).name,
            "seed": parent.get("seed", 0),
        }
    data = {"dataset": dataset.name, "size": dataset.size, "channels": dataset.channels}
    record = {**about, **data, "fingerprint": dataset.fingerprint}
    return replace(find_run(results_root(runtime), record), source=source)


def _identity(run: Run) -> dict[str, Any]:
    """What names the weights of one of several encoders, whether or not it has been probed by itself."""
    trained = {} if "encoder" in run.record else {"encoder_sha256": run.weights_sha256}
    return {**run.record, **trained}


def _named(file: Path) -> str:
    """A file without its place on this machine: its folder, which names the run, and itself."""
    return "/".join(file.parts[-2:])


def _magnitudes(policy: AugmentationPolicy) -> dict[str, Any]:
    """A policy's numbers, without its words: rewording a reason does not rename a run."""
    return {key: value for key, value in asdict(policy).items() if key not in ("name", "reason")}


def _init_digest(config: PretrainConfig) -> str | None:
    if config.init == "random":
        return None
    if config.init == "imagenet":
        from .models import imagenet_state

        return imagenet_state(config.backbone)[1]
    return _file_digest(Path(config.init))


def _file_digest(file: Path) -> str:
    recorded = read_json(file.parent / "environment.json").get("backbone_sha256")
    if recorded and not file.is_file():  # the records of a run travel without its weights
        return str(recorded)
    from .models import load_backbone, state_digest

    return state_digest(load_backbone(file).net.state_dict())


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
    words += _drawn(dataset)
    if runtime is not None and runtime.measure_every > 1:
        words.append(f"--measure-every {runtime.measure_every}")
    return " ".join(words)


def command_of_probe(run: Run, dataset: Dataset) -> str:
    """The command line that probes an encoder as it is on a data set."""
    record = run.record
    files = [
        name if name in ("random", "imagenet") else f"results/runs/{name}" for name in record["encoder"].split(" + ")
    ]
    words = ["python train.py --encoder", *map(shlex.quote, files)]
    words += [f"--dataset {shlex.quote(str(record['dataset']))} --size {record['size']}"]
    words += [f"--backbone {record['backbone']}"] if record["backbone"] == "resnet50" else []
    words += [f"--seed {record['seed']}"] if "random" in files else []
    return " ".join([*words, *_drawn(dataset)])


def _drawn(dataset: Dataset | None) -> list[str]:
    """The flags that draw the same images of a data set."""
    drawn = dataset.provenance.get("drawn", {}) if dataset is not None else {}
    return [f"--{name.replace('_', '-')} {most}" for name, most in drawn.items() if most is not None]


def _portable(value: Any) -> Any:
    """A path relative to this folder; elsewhere, a run's file where a checkout has it, any other's last two parts."""
    if not isinstance(value, str) or not Path(value).is_absolute():
        return value
    path = Path(value)
    if path.is_relative_to(Path.cwd()):
        return str(path.relative_to(Path.cwd()))
    *_, runs, run, file = ("", "", *path.parts)
    return f"results/runs/{run}/{file}" if runs == "runs" else f".../{run}/{file}"
