"""Configurations are values: frozen dataclasses that say what is learnt, how it is executed and how it is probed.

`PretrainConfig` holds everything that changes what is learnt and is hashed into the run's name.
`RuntimeConfig` holds how the same thing is executed (device, precision, folder) and is recorded, not hashed.
`ProbeConfig` holds the offline probes. No torch here, and no knowledge of any method.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any

__all__ = [
    "OPTIMIZERS",
    "PretrainConfig",
    "ProbeConfig",
    "RuntimeConfig",
    "canonical_json",
    "check_kinds",
    "is_number",
    "run_id",
]

OPTIMIZERS = ("adamw", "sgd", "lars")
BACKBONES = ("resnet18", "resnet50")
PRECISIONS = ("auto", "32-true", "bf16-mixed")
MOST_SEED, MOST_PROBE_SEED = 2**63, 2**32  # torch's generators take no seed beyond, scikit-learn's folds
SHOWN = 200  # characters of a refused value in a message


def is_number(value: object) -> bool:
    """Whether a value is a finite number as JSON knows them: an int or a float, no bool."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return False
    try:
        return math.isfinite(value)
    except OverflowError:  # an int beyond every float
        return False


def _is_whole(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


KINDS: dict[str, tuple[str, Callable[[Any], bool]]] = {  # by a field's annotation: what is expected, whether it is that
    "str": ("text (a str)", lambda value: isinstance(value, str)),
    "bool": ("True or False", lambda value: isinstance(value, bool)),
    "int": ("a whole number (an int)", _is_whole),
    "float": ("a finite number (an int or a float)", is_number),
    "tuple[float, ...]": (
        "a tuple of finite numbers",
        lambda value: isinstance(value, (tuple, list)) and all(map(is_number, value)),
    ),
    "Mapping[str, float]": (
        "names with their numbers, such as {'temperature': 0.1}",
        lambda value: isinstance(value, Mapping) and all(isinstance(name, str) for name in value),
    ),
}


def _require(condition: bool, name: str, expected: str, got: object) -> None:
    if not condition:
        shown = " ".join(repr(got).split())  # an array's takes several lines
        raise ValueError(f"{name} must be {expected}, got {shown if len(shown) <= SHOWN else shown[:SHOWN] + '…'}")


def check_kinds(config: Any) -> None:
    """Refuse a dataclass' value that is not of the kind that its field's annotation names; None where that allows it.

    Python takes any value for any field, and 0.0 for a seed of 0 would be hashed into another run's name.

    Raises:
        ValueError: a value of another kind, or a number that is not finite.
    """
    for f in fields(config):
        value, kind = getattr(config, f.name), str(f.type)
        if value is None and kind.endswith(" | None"):
            continue
        expected, holds = KINDS[kind.removesuffix(" | None")]
        _require(holds(value), f.name, expected, value)
        if isinstance(value, Mapping):
            for name, number in value.items():
                _require(is_number(number), f"{name} in {f.name}", KINDS["float"][0], number)


@dataclass(frozen=True, kw_only=True)
class PretrainConfig:
    """What is learnt, from which data, by which method. Every field is hashed into the run's name.

    A field left at None takes the method's own recipe (`METHODS[method].recipe`), which the run records.
    """

    dataset: str = "pneumoniamnist"
    """MedMNIST flag, cifar10, phantom, phantom_multilabel, phantom_shapes, or a folder of images."""
    size: int = 224
    """Side of the images in px; the root must hold this size."""
    method: str = "simclr"
    """Name in METHODS: simclr, vicreg, supervised."""
    options: Mapping[str, float] = field(default_factory=dict)
    """The method's own options, e.g. `--options temperature 0.1`; an unknown one is refused with the list."""
    policy: str = "ssl"
    """Augmentation policy by its name in POLICIES."""
    policy_changes: Mapping[str, float] = field(default_factory=dict)
    """Changes to single fields of the policy, e.g. `--policy-changes crop_scale_min 0.3`."""
    backbone: str = "resnet18"
    """resnet18 or resnet50; below 64 px the stem is CIFAR's."""
    init: str = "random"
    """Initial weights: random, imagenet, or the path of a backbone file that a run exported."""
    epochs: int = 50
    """Passes over the training images; the last partial batch of a pass is dropped."""
    batch_size: int | None = None
    """Images per step (each seen in as many views as the method wants)."""
    optimizer: str | None = None
    """adamw, sgd (momentum .9) or lars (momentum .9)."""
    lr: float | None = None
    """Peak learning rate per 256 images: the rate used is lr * batch_size / 256."""
    weight_decay: float | None = None
    """Weight decay; parameters with one dimension (norms, biases) are excluded."""
    warmup_epochs: float | None = None
    """Epochs of linear warm-up from 0 before the cosine; at most a third of the run is warmed up."""
    backbone_lr_factor: float = 1.0
    """Learning rate of the backbone relative to the head's (fine-tuning uses less than 1)."""
    label_fraction: float = 1.0
    """Part of the training labels kept, drawn by class and patient; the probes and `supervised` see only these."""
    online_lr: float = 3e-3
    """Learning rate of the online probe's own AdamW."""
    seed: int = 0
    """Seeds weights, batches, views and label draws."""

    def __post_init__(self) -> None:
        check_kinds(self)
        _require(self.size >= 8, "size", "at least 8 px", self.size)
        _require(self.backbone in BACKBONES, "backbone", f"one of {', '.join(BACKBONES)}", self.backbone)
        _require(self.epochs >= 0, "epochs", "0 or more", self.epochs)
        _require(
            self.batch_size is None or self.batch_size >= 2,
            "batch_size",
            "at least 2 (batch statistics and negatives need a second image)",
            self.batch_size,
        )
        _require(
            self.optimizer is None or self.optimizer in OPTIMIZERS,
            "optimizer",
            f"one of {', '.join(OPTIMIZERS)}",
            self.optimizer,
        )
        _require(self.lr is None or self.lr > 0, "lr", "above 0", self.lr)
        _require(self.weight_decay is None or self.weight_decay >= 0, "weight_decay", "0 or more", self.weight_decay)
        _require(
            self.warmup_epochs is None or self.warmup_epochs >= 0, "warmup_epochs", "0 or more", self.warmup_epochs
        )
        _require(self.backbone_lr_factor >= 0, "backbone_lr_factor", "0 or more", self.backbone_lr_factor)
        _require(0 < self.label_fraction <= 1, "label_fraction", "above 0 and at most 1", self.label_fraction)
        _require(self.online_lr > 0, "online_lr", "above 0", self.online_lr)
        _require(0 <= self.seed < MOST_SEED, "seed", "0 or more and below 2^63", self.seed)


@dataclass(frozen=True, kw_only=True)
class RuntimeConfig:
    """How a run is executed. Recorded with the run, never part of its name."""

    device: str = "auto"
    """auto (an accelerator when there is one), cpu, cuda or mps."""
    precision: str = "auto"
    """auto (bf16-mixed where the device multiplies bf16 faster, else 32-true), 32-true or bf16-mixed."""
    threads: int | None = None
    """CPU threads; None leaves torch's choice. Bit-identical repeats need the same number."""
    micro_batch: int | None = None
    """Images of one pass through the network; None takes the batch whole. The gradient is that of the whole batch."""
    compile: bool = False
    """Compile the backbone with torch.compile: slow to start, faster steps on a GPU."""
    images_gib: float | None = None
    """Most memory of the device that training images may take, in GiB, before they stay in host memory and are copied
    a batch ahead; None takes half of what is free."""
    results: str | None = None
    """Folder of results; None takes CXR_RESULTS, else ./results."""
    root: str | None = None
    """Folder of the data; None takes CXR_DATA, else medmnist's own."""
    knn_bank: int = 1024
    """Training images in the bank of the per-epoch kNN probe (a fixed draw)."""
    measure_every: int = 1
    """Look at val after every so many epochs, and after the last; more than 1 where an epoch is a few steps."""
    progress: bool = True
    """Show a progress bar with live figures."""

    def __post_init__(self) -> None:
        check_kinds(self)
        devices = ("auto", "cpu", "cuda", "mps")
        _require(self.device in devices, "device", f"one of {', '.join(devices)}", self.device)
        _require(self.precision in PRECISIONS, "precision", f"one of {', '.join(PRECISIONS)}", self.precision)
        _require(self.threads is None or self.threads >= 1, "threads", "at least 1", self.threads)
        _require(self.micro_batch is None or self.micro_batch >= 2, "micro_batch", "at least 2", self.micro_batch)
        _require(self.images_gib is None or self.images_gib >= 0, "images_gib", "0 or more", self.images_gib)
        _require(self.knn_bank >= 1, "knn_bank", "at least 1", self.knn_bank)
        _require(self.measure_every >= 1, "measure_every", "at least 1", self.measure_every)


@dataclass(frozen=True, kw_only=True)
class ProbeConfig:
    """The offline probes on frozen features."""

    cs: tuple[float, ...] = (1e-4, 1e-3, 1e-2, 1e-1, 1.0, 10.0)
    """Inverse regularisation strengths tried (scikit-learn's C: 0.5 |w|^2 + C * sum of losses)."""
    folds: int = 5
    """Cross-validation folds on train, grouped by patient where patients are known."""
    seed: int = 0
    """Seeds the folds and the SGD probe."""
    max_iter: int = 1000
    """Iterations of L-BFGS after which a fit counts as not converged."""
    knn_k: int = 20
    """Neighbours of the kNN probe."""
    knn_temperature: float = 0.07  # Wu et al. 2018, arXiv 1805.01978
    """Temperature of the kNN votes."""
    sgd_epochs: int = 30
    """Epochs of the SGD probe that draws the probe curve."""
    sgd_lr: float = 0.03
    """Peak learning rate of the SGD probe, cosine to 0."""
    sgd_batch_size: int = 256
    """Batch size of the SGD probe."""

    def __post_init__(self) -> None:
        check_kinds(self)
        _require(len(self.cs) > 0 and min(self.cs) > 0, "cs", "one or more values above 0", self.cs)
        _require(self.folds >= 2, "folds", "at least 2", self.folds)
        _require(0 <= self.seed < MOST_PROBE_SEED, "seed", "0 or more and below 2^32", self.seed)
        _require(self.max_iter >= 1, "max_iter", "at least 1", self.max_iter)
        _require(self.knn_k >= 1, "knn_k", "at least 1", self.knn_k)
        _require(self.knn_temperature > 0, "knn_temperature", "above 0", self.knn_temperature)
        _require(self.sgd_epochs >= 1, "sgd_epochs", "at least 1", self.sgd_epochs)
        _require(self.sgd_lr > 0, "sgd_lr", "above 0", self.sgd_lr)
        _require(self.sgd_batch_size >= 1, "sgd_batch_size", "at least 1", self.sgd_batch_size)


def canonical_json(value: Any) -> str:
    """One text for one value: sorted keys, no spaces, dataclasses and mappings as objects."""

    def plain(item: Any) -> Any:
        if hasattr(item, "__dataclass_fields__"):
            return asdict(item)
        if isinstance(item, Mapping):
            return dict(item)
        raise TypeError(f"cannot write {type(item).__name__} as JSON")

    return json.dumps(value, sort_keys=True, separators=(",", ":"), default=plain)


def run_id(resolved: Mapping[str, Any], fingerprint: str) -> str:
    """Name of a run: readable head, then ten hex digits over every resolved value and the data's fingerprint.

    Args:
        resolved: the resolved configuration, a JSON-able mapping with at least `PretrainConfig`'s fields.
        fingerprint: SHA-256 of the data (`Dataset.fingerprint`).
    """
    missing = {f.name for f in fields(PretrainConfig)} - set(resolved)
    assert not missing, f"unresolved fields {missing}"
    digest = hashlib.sha256(f"{canonical_json(resolved)}|{fingerprint}".encode()).hexdigest()[:10]
    dataset = "".join(
        ch if ch.isalnum() or ch in "_-" else "_" for ch in str(resolved["dataset"]).strip("/").split("/")[-1]
    )
    return f"{dataset}-{resolved['size']}-{resolved['method']}-s{resolved['seed']}-{digest}"
