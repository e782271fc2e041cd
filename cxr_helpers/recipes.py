"""From what was asked for to what is learnt: the method's recipe filled in; a run's record, its name and command."""

from __future__ import annotations

import hashlib
import json
import re
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from .augment import AugmentationPolicy, get_policy
from .config import DETECTOR, SEVERAL, DetectConfig, PretrainConfig, RuntimeConfig
from .methods import get_options, load_method, recipe_of
from .runs import BUILT, Run, results_root
from .writing import read_json

if TYPE_CHECKING:
    from .data import Dataset

__all__ = [
    "command_of", "command_of_probe", "find_probe", "find_run", "kept_data", "record_of", "resolve", "resolve_for",
    "run_id", "usable_rows",
]  # fmt: skip

FEWEST_STEPS = 4  # of an epoch, unless a batch is asked for


def resolve(config: PretrainConfig) -> PretrainConfig:
    """The configuration with the method's recipe in every field left at None.

    Raises:
        ValueError: an unknown method, option, policy or policy field, or one out of range.
    """
    policy = get_policy(config.policy, config.policy_changes)
    changes = {name: getattr(policy, name) for name in config.policy_changes}  # numbers, also from a command's words
    recipe = recipe_of(config.method)
    options = asdict(get_options(config.method, {**recipe.pop("options", {}), **config.options}))
    filled = {name: value for name, value in recipe.items() if getattr(config, name) is None}
    return replace(config, options=options, policy_changes=changes, **filled)


def resolve_for(config: PretrainConfig, dataset: Dataset) -> PretrainConfig:
    """`resolve`; where nobody asked for a batch, one that leaves `FEWEST_STEPS` an epoch of these data."""
    resolved = resolve(config)
    most = max(2, len(usable_rows(resolved, kept_data(resolved, dataset))) // FEWEST_STEPS)
    shrinks = config.batch_size is None and (resolved.batch_size or 0) > most and resolved.epochs > 0
    return replace(resolved, batch_size=most) if shrinks else resolved


def kept_data(config: PretrainConfig, dataset: Dataset) -> Dataset:
    """The data with the training labels that the configuration keeps."""
    from .data import keep_labels

    return keep_labels(dataset, config.label_fraction, config.seed) if config.label_fraction < 1 else dataset


def usable_rows(config: PretrainConfig, dataset: Dataset) -> NDArray[np.int64]:
    """Indices of the training images that the method can use."""
    labelled = dataset.train.labelled.numpy()
    return np.flatnonzero(labelled if load_method(config.method).needs_labels else np.ones_like(labelled))


def record_of(config: PretrainConfig | DetectConfig, dataset: Dataset) -> dict[str, Any]:
    """Everything that decides what is learnt, as plain values: this is hashed into the run's name and stored.

    Data and initial weights are named without their place on this machine; their digests say what they are.

    Args:
        config: resolved.
    """
    return {
        **asdict(config),
        "dataset": dataset.name,
        "init": _named(config.init),
        "policy_fields": _magnitudes(get_policy(config.policy, config.policy_changes)),
        "init_sha256": _digest_of(config.init, config.backbone),
        "fingerprint": dataset.fingerprint,
    }


def differing(record: Mapping[str, Any]) -> dict[str, Any]:
    """What in a record differs from the declared defaults: this and the data's fingerprint name the run."""
    if "encoder" in record:
        defaults: dict[str, Any] = {"encoder_sha256": None, "backbone": "resnet18", "channels": 1, "seed": 0}
    else:
        defaults = {"policy_fields": _magnitudes(AugmentationPolicy(name="", reason="")), "init_sha256": None}
        if record["method"] == DETECTOR:
            defaults |= asdict(DetectConfig())
        else:
            defaults |= {**asdict(PretrainConfig()), "options": asdict(get_options(record["method"], {}))}
    return _differing(*(json.loads(json.dumps(values, default=dict)) for values in (record, defaults)))


def _differing(record: Mapping[str, Any], defaults: Mapping[str, Any]) -> dict[str, Any]:
    """What a record holds that is not the default, mappings within it alike."""
    chosen: dict[str, Any] = {}
    for key, value in record.items():
        if key in defaults and isinstance(value, Mapping):
            value = _differing(value, defaults[key]) or defaults[key]
        if key not in defaults or value != defaults[key]:
            chosen[key] = value
    return chosen


def run_id(record: Mapping[str, Any]) -> str:
    """Name of a run: a readable head, then ten hex digits over every resolved value that is not the declared default.

    A field that is added later, with its default, renames no run.
    """
    digest = hashlib.sha256(json.dumps(differing(record), sort_keys=True, separators=(",", ":")).encode())
    dataset = re.sub(r"[^\w-]", "_", record["dataset"].strip("/").split("/")[-1])
    encoder = record.get("encoder")
    what = encoder if encoder in BUILT else "probe" if encoder else record["method"].split(":")[-1].lower()
    return f"{dataset}-{record['size']}-{what}-s{record['seed']}-{digest.hexdigest()[:10]}"


def find_run(root: Path, record: Mapping[str, Any]) -> Run:
    """The run of that record, finished or not; nothing is written.

    Raises:
        ValueError: the folder of its name holds another record.
    """
    path = root / "runs" / run_id(record)
    stored = read_json(path / "config.json")
    if stored and differing(stored) != differing(record):
        raise ValueError(f"run folder {path} must hold the configuration that names it, got another; move it away")
    return Run(path=path, record=record)


def find_probe(
    encoder: Run | str | Path | Sequence[Run],
    dataset: Dataset,
    runtime: RuntimeConfig = RuntimeConfig(),
    *,
    backbone: str = "resnet18",
    seed: int = 0,
    stage: str | None = None,
    join: str | None = None,
) -> Run:
    """The record of an encoder that is probed as it is, probed or not; nothing is written.

    Args:
        encoder: a run, `random`, `imagenet`, an encoder file, or the probes of several, which are read side by side.
        backbone, seed: of a random or ImageNet encoder; a file has its own, a run's file the seed of its run.
        stage: whose map's mean is probed. join: what becomes of several. None, as usual, stands in no record.
    Raises:
        FileNotFoundError: no such file.
    """
    from .models import load_backbone

    if isinstance(encoder, Run):
        encoder = encoder.weights
    source = None
    if isinstance(encoder, Sequence) and not isinstance(encoder, str):
        about: dict[str, Any] = {
            "encoder": SEVERAL.join(run.record.get("encoder", _named(run.weights)) for run in encoder),
            "encoder_sha256": hashlib.sha256(" ".join(map(_weights_of, encoder)).encode()).hexdigest(),
            "backbone": SEVERAL.join(run.record["backbone"] for run in encoder),
            "seed": encoder[0].record["seed"],
        }
    elif encoder in BUILT:
        digest, seed = _digest_of(encoder, backbone), seed if encoder == "random" else 0
        about = {"encoder": encoder, "encoder_sha256": digest, "backbone": backbone, "seed": seed}
    else:
        source = Path(encoder)
        parent = read_json(source.parent / "config.json")
        name = parent["backbone"] if parent else load_backbone(source).name
        about = {"encoder": _named(source), "encoder_sha256": _digest_of(source, name), "backbone": name}
        about["seed"] = parent.get("seed", 0)
    data = {"dataset": dataset.name, "size": dataset.size, "channels": dataset.channels}
    about |= {name: value for name, value in (("stage", stage), ("join", join)) if value}
    record = {**about, **data, "fingerprint": dataset.fingerprint}
    return replace(find_run(results_root(runtime), record), source=source)


def _weights_of(run: Run) -> str:
    """What names the weights of one of several encoders, whether or not it has been probed by itself."""
    digest = run.record["encoder_sha256"] if "encoder" in run.record else run.weights_sha256
    return str(digest or run.record["seed"])


def _named(file: str | Path) -> str:
    """Files without their place on this machine: the folder, which names the run, and the file."""
    return SEVERAL.join(one if one in BUILT else "/".join(Path(one).parts[-2:]) for one in str(file).split(SEVERAL))


def _magnitudes(policy: AugmentationPolicy) -> dict[str, Any]:
    """A policy's numbers, without its words: rewording a reason does not rename a run."""
    return {key: value for key, value in asdict(policy).items() if key not in ("name", "reason")}


def _digest_of(encoder: str | Path, backbone: str) -> str | None:
    """SHA-256 of the weights of an encoder; None of one that is drawn from a seed."""
    from .models import imagenet_state, load_backbone, state_digest

    if encoder in BUILT:
        return imagenet_state(backbone)[1] if encoder == "imagenet" else None
    if SEVERAL in str(encoder):
        digests = [str(_digest_of(one, backbone)) for one in str(encoder).split(SEVERAL)]
        return hashlib.sha256(" ".join(digests).encode()).hexdigest()
    file = Path(encoder)
    recorded = read_json(file.parent / "environment.json").get("backbone_sha256")
    if recorded and not file.is_file():  # the records of a run travel without its weights
        return str(recorded)
    return state_digest(load_backbone(file).net.state_dict())


def command_of(
    config: PretrainConfig | DetectConfig, dataset: Dataset | None = None, runtime: RuntimeConfig | None = None
) -> str:
    """The command line that repeats a run: every field that differs from its default, paths without this machine's.

    Args:
        dataset: where it is a draw of the images, this is part of the command.
        runtime: where it looks at val not every epoch, this is part of the command.
    """
    words, always = ["python train.py"], ["dataset", "size", "method", "policy", "epochs", "seed"]
    if isinstance(config, DetectConfig):
        words, always = ["python detect.py train"], ["dataset", "size", "epochs", "seed"]
    for name, default in vars(type(config)()).items():
        value = getattr(config, name)
        if name in always or value != default:
            said = [v for pair in value.items() for v in pair] if isinstance(value, Mapping) else [_portable(value)]
            words.append(f"--{name.replace('_', '-')} {shlex.join(map(str, said))}")
    words += _drawn(dataset)
    if runtime is not None and runtime.measure_every > 1:
        words.append(f"--measure-every {runtime.measure_every}")
    return " ".join(words)


def command_of_probe(run: Run, dataset: Dataset) -> str:
    """The command line that probes an encoder as it is on a data set."""
    record = run.record
    names = record["encoder"].split(SEVERAL)
    words = ["python train.py --encoder", *(shlex.quote(n if n in BUILT else f"results/runs/{n}") for n in names)]
    words += [f"--dataset {shlex.quote(str(record['dataset']))} --size {record['size']}"]
    words += [f"--backbone {record['backbone']}"] if record["backbone"] != "resnet18" and len(names) == 1 else []
    words += [f"--seed {record['seed']}"] if "random" in names else []
    words += [f"--{name} {record[name]}" for name in ("stage", "join") if name in record]
    return " ".join([*words, *_drawn(dataset)])


def _drawn(dataset: Dataset | None) -> list[str]:
    """The flags that draw the same images of a data set."""
    drawn = dataset.provenance.get("drawn", {}) if dataset is not None else {}
    return [f"--{name.replace('_', '-')} {most}" for name, most in drawn.items() if most is not None]


def _portable(value: Any) -> Any:
    """A run's file where a checkout has it, any other's last two parts; what is no absolute path stays."""
    if isinstance(value, str) and SEVERAL in value:
        return SEVERAL.join(map(_portable, value.split(SEVERAL)))
    if not isinstance(value, str) or not Path(value).is_absolute():
        return value
    place = "results/runs" if Path(value).parent.parent.name == "runs" else "..."
    return f"{place}/{_named(value)}"
