"""A run's backbone for others: the weights as safetensors and a model card, every word of it from the run's record.

The card is Hugging Face's `README.md`: YAML that a hub reads, then what a person needs (data and their limits, recipe,
figures with intervals, how to load it). Source of the format: huggingface.co/docs/hub/model-cards.
"""

from __future__ import annotations

import inspect
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from medmnist import INFO

from .methods import METHODS
from .models import state_digest
from .runs import Run, whole_file

__all__ = ["CARD", "WEIGHTS", "export_run", "model_card", "require_target"]

CARD, WEIGHTS = "README.md", "backbone.safetensors"
MARK = "<!-- made by train.py --export: another export may replace this file and backbone.safetensors beside it -->"
LICENCE = "mit"  # of this package, whose training made the weights; the data's own stands in the text
_HUB_METRIC = {"auc": "roc_auc", "accuracy": "accuracy"}
_METRIC = {"auc": "ROC-AUC", "accuracy": "accuracy"}
_PROBES = {"head": "trained head", "linear": "linear probe on frozen features", "knn": "kNN on frozen features"}


def export_run(run: Run, folder: str | Path) -> Path:
    """Write a probed run's weights and model card into a folder; returns it.

    Both files are written whole beside their places and then renamed, the card last: whoever finds a card finds the
    weights it describes, whose digest it names. Other files of the folder are left alone.

    Args:
        run: finished and probed, its weights there.
        folder: a new or empty folder, an earlier export, or one that has neither file (such as a fresh repository).
    Raises:
        ValueError: the folder holds a README.md or backbone.safetensors that is no export's, or is a file; the run's
            weights are not those of its record. FileNotFoundError: the weights are not there.
    """
    folder = Path(folder)
    require_target(folder)
    backbone = run.backbone()
    recorded = run.environment.get("backbone_sha256")
    if recorded not in (None, state_digest(backbone.net.state_dict())):
        raise ValueError(f"weights of run {run.id} must be those of its record, got others: retrain it with --fresh")
    card = model_card(run, {**backbone.describe(), "features": backbone.feature_dim}).encode()
    new = not folder.exists()
    folder.mkdir(parents=True, exist_ok=True)
    try:
        with whole_file(folder / CARD) as text, whole_file(folder / WEIGHTS) as weights:  # the inner is renamed first
            text.write(card)
            weights.write(run.weights.read_bytes())
    except BaseException:
        if new and not any(folder.iterdir()):
            folder.rmdir()
        raise
    return folder


def require_target(folder: str | Path) -> None:
    """Refuse a target that an export would spoil.

    Raises:
        ValueError: as `export_run`.
    """
    folder = Path(folder)
    if folder.exists() and not folder.is_dir():
        raise ValueError(f"--export must name a folder, got the file {folder}: name another")
    there = [name for name in (CARD, WEIGHTS) if (folder / name).exists() or (folder / name).is_symlink()]
    card = folder / CARD
    own = card.is_file() and not card.is_symlink() and MARK in card.read_text("utf-8", errors="replace")
    if there and not own:
        raise ValueError(
            f"--export must name a new or empty folder or an earlier export, got {folder} with a "
            f"{' and a '.join(there)} that no export wrote: name another folder or move what is there away"
        )


# ---- the card


def model_card(run: Run, about: Mapping[str, Any]) -> str:
    """The model card of a probed run as Markdown with YAML before it.

    Args:
        run: its record, metrics and environment are what the card says.
        about: `Backbone.describe()` and `features`, the number of them.
    """
    record = run.record
    parts = [
        f"---\n{_yaml(_front_matter(run))}---\n{MARK}",
        f"# {run.id}",
        _what_it_is(record, about),
        "**Not a medical device.** For research and teaching; no decision about a patient may rest on it.",
        f"## Figures\n\n{_figures(run)}",
        f"## Data and their limits\n\n{_data(run)}",
        f"## Recipe\n\n{_recipe(run)}",
        f"## Input\n\n{_input(record, about)}",
        f"## Load it\n\n{_loading(record, about)}",
        f"## Where it is from\n\n{_origin(run)}",
        f"## Cite\n\n{_citation(run)}",
    ]
    return "\n\n".join(parts) + "\n"


def _measured(run: Run) -> Iterator[tuple[str, str, str, Mapping[str, Any]]]:
    """(probe, split, main metric, values) of everything in the run's metrics."""
    for probe in _PROBES:
        for split in ("val", "test"):
            values = run.metrics.get(probe, {}).get(split)
            if values:
                yield probe, split, "accuracy" if "accuracy_low" in values else "auc", values


def _front_matter(run: Run) -> dict[str, Any]:
    record = run.record
    trained = int(record["epochs"]) > 0
    kind = "supervised-learning" if METHODS[record["method"]].needs_labels else "self-supervised-learning"
    results = [
        {
            "task": {"type": "image-classification", "name": _PROBES[probe]},
            "dataset": {"name": f"{record['dataset']}, {record['size']} px", "type": record["dataset"], "split": split},
            "metrics": [
                {
                    "type": _HUB_METRIC[metric],
                    "value": float(values[metric]),
                    "name": f"{_METRIC[metric]}, 95 % interval {_interval(values, metric)}",
                }
            ],
        }
        for probe, split, metric, values in _measured(run)
    ]
    return {
        "license": LICENCE,
        "library_name": "torchvision",
        "pipeline_tag": "image-feature-extraction",
        "tags": [record["backbone"], *([record["method"], kind] if trained else [record["init"], "untrained"])],
        "datasets": [record["dataset"]],
        "metrics": sorted({_HUB_METRIC[metric] for _, _, metric, _ in _measured(run)}),
        "model-index": [{"name": run.id, "results": results}],
    }


def _yaml(value: Any, indent: int = 0) -> str:
    """Mappings and lists as block YAML, scalars as JSON (which YAML contains)."""
    space, lines = " " * indent, []
    for key, item in value.items() if isinstance(value, Mapping) else [("-", item) for item in value]:
        head = f"{space}-" if key == "-" else f"{space}{key}:"
        if isinstance(item, Mapping | list) and item:
            inner = _yaml(item, indent + 2)
            lines.append(f"{head} {inner[indent + 2 :]}" if key == "-" else f"{head}\n{inner}")
        else:
            lines.append(f"{head} {json.dumps(item, ensure_ascii=False)}\n")
    return "".join(lines)


def _interval(values: Mapping[str, Any], metric: str) -> str:
    return f"[{values[f'{metric}_low']:.4f}, {values[f'{metric}_high']:.4f}]"


def _what_it_is(record: Mapping[str, Any], about: Mapping[str, Any]) -> str:
    start = {"random": "random weights", "imagenet": "ImageNet weights"}.get(record["init"], f"`{record['init']}`")
    name = f"A {about['backbone']} without its classifier: {about['features']} features of an image"
    if not int(record["epochs"]):
        return f"{name}. It was not trained here: {start}, as a baseline."
    how = _first_line(METHODS[record["method"]])
    labels = "with its labels" if METHODS[record["method"]].needs_labels else "without labels"
    return (
        f"{name}, trained {labels} on {record['dataset']} at {record['size']} px by `{record['method']}` for "
        f"{record['epochs']} epochs from {start}. {how}"
    )


def _first_line(cls: type) -> str:
    return (inspect.getdoc(cls) or "").splitlines()[0]


def _figures(run: Run) -> str:
    lines = ["| what reads the features | split | metric | value | 95 % interval | images | patients |"]
    lines.append("|---|---|---|---:|---|---:|---:|")
    for probe, split, metric, values in _measured(run):
        cells = [_PROBES[probe], split, _METRIC[metric], f"{values[metric]:.4f}", _interval(values, metric)]
        counts = [f"{values[key]:.0f}" if key in values else "–" for key in ("num_images", "num_patients")]
        lines.append(f"| {' | '.join([*cells, *counts])} |")
    linear = run.metrics.get("linear", {})
    said = [
        "Intervals resample patients (images, where the data name no patients); they do not contain the spread over "
        "training seeds."
    ]
    if "c" in linear:
        said.append(f"The linear probe is a logistic regression, C = {linear['c']:g} chosen on folds of train.")
    reads = int(run.metrics.get("test_reads", 0))
    said.append(f"Test was read {reads} times; nothing was chosen on it." if reads else "Test has not been read.")
    return "\n".join([*lines, "", " ".join(said)])


def _data(run: Run) -> str:
    record, data = run.record, run.environment.get("data", {})
    lines = [f"- **{record['dataset']}**, {record['size']} px, content {record['fingerprint']}."]
    if record["dataset"] in INFO:
        lines.append(f"- MedMNIST's description: {INFO[record['dataset']]['description']}")
    names = {"source": "Source", "status": "Status of the file", "licence": "Licence of the data"}
    lines += [f"- {text}: {data[key]}." for key, text in names.items() if data.get(key)]
    lines += [f"- {note}." for note in data.get("notes", [])]
    if record["label_fraction"] < 1:
        lines.append(f"- {100 * record['label_fraction']:g} % of the training labels were seen.")
    lines.append(
        "- Train, val and test are of one source: figures on films of another hospital, age group or machine are lower "
        "as a rule and must be measured there. Images are small; what does not show at this size was not learnt."
    )
    return "\n".join(lines)


def _recipe(run: Run) -> str:
    record = run.record
    if not int(record["epochs"]):
        return "None: the weights were not trained here."
    keys = ("method", "options", "policy", "epochs", "batch_size", "optimizer", "lr", "weight_decay", "warmup_epochs")
    keys += ("backbone_lr_factor", "init", "seed")  # type: ignore[assignment]
    rows = [f"| {key} | `{json.dumps(record[key])}` |" for key in keys if key in record]
    rows.append(f"| augmentation | `{json.dumps(record.get('policy_fields', {}))}` |")
    return "\n".join(["| value | |", "|---|---|", *rows, "", "The learning rate is per 256 images."])


def _input(record: Mapping[str, Any], about: Mapping[str, Any]) -> str:
    return (
        f"Images of {record['size']} × {record['size']} px with {about['channels']} channel"
        f"{'s' if about['channels'] > 1 else ''}, grey levels 0 to 255 divided by 255, then normalised with mean "
        f"{about['mean']} and standard deviation {about['std']}. The stem is the {about['stem']} one."
    )


def _loading(record: Mapping[str, Any], about: Mapping[str, Any]) -> str:
    shape = f"uint8 [N, {about['channels']}, {record['size']}, {record['size']}]"
    package = f"""import torch
from cxr_helpers.augment import eval_transform
from cxr_helpers.models import load_backbone
backbone = load_backbone("{WEIGHTS}").eval()
with torch.inference_mode():  # images: {shape}
    features = backbone(eval_transform(images, backbone.normalisation))  # [N, {about["features"]}]"""
    plain = [
        "import torch, torchvision",
        "from safetensors.torch import load_file",
        f"net = torchvision.models.{about['backbone']}()",
        "net.fc = torch.nn.Identity()",
    ]
    if about["stem"] == "cifar":
        plain.append(f"net.conv1 = torch.nn.Conv2d({about['channels']}, 64, 3, 1, 1, bias=False)")
        plain.append("net.maxpool = torch.nn.Identity()")
    elif about["channels"] != 3:
        plain.append(f"net.conv1 = torch.nn.Conv2d({about['channels']}, 64, 7, 2, 3, bias=False)")
    plain += [
        f'net.load_state_dict(load_file("{WEIGHTS}"))',
        f"mean, std = (torch.tensor(v).view(-1, 1, 1) for v in ({about['mean']}, {about['std']}))",
        f"with torch.inference_mode():  # images: {shape}",
        f"    features = net.eval()((images.float() / 255 - mean) / std)  # [N, {about['features']}]",
    ]
    return (
        f"With this package:\n\n```python\n{package}\n```\n\nWith torchvision and safetensors alone:\n\n"
        f"```python\n{chr(10).join(plain)}\n```"
    )


def _origin(run: Run) -> str:
    environment = run.environment
    rows = {
        "run": run.id,
        "commit": str(environment.get("commit", "unknown")) + (" with changes" if environment.get("dirty") else ""),
        "command": environment.get("command", "unknown"),
        "device": environment.get("device_name", "unknown"),
        "torch": environment.get("torch", "unknown"),
        "finished": environment.get("finished", "unknown"),
        "SHA-256 over the weights": environment.get("backbone_sha256", "not recorded"),
    }
    return "\n".join(["| | |", "|---|---|", *(f"| {key} | `{value}` |" for key, value in rows.items())])


def _citation(run: Run) -> str:
    record, lines = run.record, []
    if int(record["epochs"]):
        lines.append(f"- The method, `{record['method']}`: {_first_line(METHODS[record['method']])}")
    if record["dataset"] in INFO:
        lines.append("- The data: MedMNIST v2, Yang et al. 2023 (10.1038/s41597-022-01721-8), and the source it names.")
    lines.append(
        f"- These weights: run `{run.id}` of cxr_helpers, commit `{run.environment.get('commit', 'unknown')}`."
    )
    return "\n".join(lines)
