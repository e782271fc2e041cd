"""What a run is called and which runs belong together: names, families and configurations, across generations.

A run may start from another run's weights (fine-tuning). It is then named after that parent, and its seeds belong
together when their parents do, although each starts from a file of its own. A parent is one only if its weights have
the digest that the child started from.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from ..runs import Run, read_json

__all__ = [
    "commit_text",
    "configuration",
    "dataset_name",
    "family_of",
    "label_of",
    "parent_of",
    "run_label",
]

NAMES = {"simclr": "SimCLR", "vicreg": "VICReg", "supervised": "Supervised", "random": "Random encoder"}
_DATASETS = {
    "pneumoniamnist": "PneumoniaMNIST",
    "chestmnist": "ChestMNIST",
    "cifar10": "CIFAR-10",
    "phantom": "Phantom",
    "phantom_multilabel": "Multi-label phantom",
    "phantom_shapes": "Colour shapes",
}
LAYER4_REFIT = "7fbb204d483858f35de313173dbb99c498d023802b0b6b8f1df31a0b79f7514c"  # digest of those weights' tensors


def dataset_name(name: str, notes: Iterable[str] = ()) -> str:
    """How a text calls a data set; a part of one is always called a subset."""
    subset = any(str(note).startswith(("subset", "a fixed draw")) for note in notes)
    return _DATASETS.get(name, name) + (" (subset)" if subset else "")


def commit_text(environment: Mapping[str, Any]) -> str:
    """The commit of a record, ten digits, with a + where the code differed from it."""
    return str(environment.get("commit", "unknown"))[:10] + ("+" if environment.get("dirty") else "")


def family_of(record: Mapping[str, Any]) -> str:
    """What a figure colours by: the method, or for untrained encoders where the weights are from."""
    if record["epochs"] > 0:
        return str(record["method"])
    return str(record["init"]) if record["init"] in ("random", "imagenet") else "file"


def _parent_folder(record: Mapping[str, Any], runs: Path | None) -> Path | None:
    """The folder of the run whose weights a record started from, if it is there and still has those weights.

    Looked for as the record names it, else by its name in `runs`.
    """
    init, digest = str(record["init"]), record.get("init_sha256")
    if init in ("random", "imagenet"):
        return None
    folder = Path(init).parent
    for path in [folder] if runs is None else [folder, runs / folder.name]:
        there = read_json(path / "environment.json").get("backbone_sha256")
        if (path / "config.json").is_file() and (digest is None or there is None or digest == there):
            return path
    return None


def label_of(record: Mapping[str, Any], runs: Path | None = None) -> str:
    """Name of a configuration in figures and tables.

    Args:
        record: a run's record, or a configuration's fields with `init_sha256` (None where not known).
        runs: the folder of run folders in which a parent is looked up.
    """
    weights = "ImageNet (layer4 refit)" if record.get("init_sha256") == LAYER4_REFIT else "ImageNet"
    family = family_of(record)
    if family == "file":
        name = _carried_label(record, runs)
    elif record["epochs"] == 0:
        name = f"{weights}, frozen" if family == "imagenet" else NAMES.get(family, family)
    else:
        name = NAMES.get(family, family)
        if record["init"] != "random":
            start = weights if record["init"] == "imagenet" else _parent_label(record, runs)
            name = f"{start}, fine-tuned" if record["method"] == "supervised" else f"{name} from {start}"
    return name if record["label_fraction"] == 1 else f"{name}, {100 * record['label_fraction']:g} % of labels"


def _parent_label(record: Mapping[str, Any], runs: Path | None) -> str:
    folder = _parent_folder(record, runs)
    return "given weights" if folder is None else label_of(read_json(folder / "config.json"), folder.parent)


def _carried_label(record: Mapping[str, Any], runs: Path | None) -> str:
    """An encoder that was trained in another run and is probed here as it is: with the data it was trained on."""
    folder = _parent_folder(record, runs)
    if folder is None:
        return "Given weights, frozen"
    parent = read_json(folder / "config.json")
    return f"{label_of(parent, folder.parent)} ({dataset_name(parent['dataset'])})"


def run_label(run: Run) -> str:
    """`label_of` a run, its parent looked up beside it."""
    return label_of(run.record, run.path.parent)


def parent_of(run: Run) -> Run | None:
    """The run this one started from, None where it started from other weights or the parent is not there."""
    folder = _parent_folder(run.record, run.path.parent)
    return None if folder is None else Run(path=folder, record=read_json(folder / "config.json"))


def configuration(run: Run) -> str:
    """Ten hex digits over the run's whole record but its seed, and over how it was probed.

    A parent stands in the record by its own configuration, so that seeds of a fine-tuned encoder belong together.
    """
    text = json.dumps({"record": _seedless(run), "probe": run.metrics.get("probe_config")}, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:10]


def _seedless(run: Run) -> dict[str, Any]:
    record = {key: value for key, value in run.record.items() if key != "seed"}
    parent = parent_of(run)
    return record if parent is None else {**record, "init": _seedless(parent), "init_sha256": None}
