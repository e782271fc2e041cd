"""Configurations are values: frozen dataclasses that say what is learnt, how it is executed and how it is probed.

No torch here, and no knowledge of any method. A declared default is for good: another one would rename published runs.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from .fields import Checked, declare

__all__ = ["DETECTOR", "SEVERAL", "DetectConfig", "PretrainConfig", "ProbeConfig", "RuntimeConfig"]

RECIPE = "None takes the method's recipe"
OPTIMIZERS = ("adamw", "sgd", "lars", "adamw95")
DETECTOR = "faster_rcnn"  # the `method` of a detector's record
SEVERAL = " + "  # between the encoder files of an `init`, or of a record


@dataclass(frozen=True, kw_only=True)
class PretrainConfig(Checked):
    """What is learnt, from which data, by which method; what differs in it from the defaults names the run."""

    dataset: str = declare("pneumoniamnist", "MedMNIST flag, cifar10, phantom[_multilabel], or a folder of images")
    size: int = declare(224, "side of the images; the root must hold this size", unit="px", low=8)
    method: str = declare("simclr", "simclr, vicreg, supervised, or a class of your own as my_module:Name")
    options: Mapping[str, Any] = declare(dict, "the method's own options, such as `--options temperature 0.1`")
    policy: str = declare("ssl", "augmentation policy by its name in POLICIES")
    policy_changes: Mapping[str, Any] = declare(dict, "changes of its fields, as in `--policy-changes gamma 0.1`")
    backbone: str = declare(
        "resnet18",
        "below 64 px a ResNet's stem is CIFAR's; a ViT's patch is 4 px below 48 px, 8 below 128, else 16",
        choices=("resnet18", "resnet50", "vit_tiny6", "vit_tiny", "vit_small"),
    )
    channels: int | None = declare(None, "of the network: 3 takes grey as colour; None the data's", low=1, high=3)
    init: str = declare("random", "initial weights: random, imagenet, or encoder files, with ' + ' between several")
    epochs: int = declare(50, "passes over the training images; the last partial batch of a pass is dropped", low=0)
    batch_size: int | None = declare(
        None, f"images, each in the method's views. {RECIPE}", unit="images per step", low=2
    )
    optimizer: str | None = declare(
        None, f"sgd and lars have momentum .9, adamw95 betas of .9 and .95. {RECIPE}", choices=OPTIMIZERS
    )
    lr: float | None = declare(
        None, f"peak; the rate used is lr * batch_size / 256. {RECIPE}", unit="per 256 images", low=0, above=True
    )
    weight_decay: float | None = declare(None, f"not on parameters with one dimension (norms, biases). {RECIPE}", low=0)
    warmup_epochs: float | None = declare(
        None, f"linear warm-up from 0 before the cosine; at most a third of the run. {RECIPE}", unit="epochs", low=0
    )
    backbone_lr_factor: float = declare(1.0, "rate of the backbone relative to the head's; below 1 to fine-tune", low=0)
    label_fraction: float = declare(
        1.0, "part of the training labels kept, by class and patient; probes see no others", low=0, above=True, high=1
    )
    keep: str = declare(
        "last", "the last epoch's weights, or those best on val by the run's own classifier", choices=("last", "best")
    )
    online_lr: float = declare(3e-3, "learning rate of the online probe's own AdamW", low=0, above=True)
    seed: int = declare(0, "seeds weights, batches, views and label draws", low=0, high=2**63, below=True)


@dataclass(frozen=True, kw_only=True)
class DetectConfig(Checked):
    """What a detector learns and from which films; its sizes are those that two cores can train."""

    method: str = declare(DETECTOR, "the detector", choices=(DETECTOR,))
    dataset: str = declare("vindr", "a folder of films as `convert` writes it, or phantom_multilabel")
    size: int = declare(256, "side of the films; 800 for a GPU", unit="px", low=64)
    backbone: str = declare("resnet18", "whose maps the detector reads", choices=("resnet18", "resnet50"))
    init: str = declare("random", "the backbone's initial weights: random, imagenet, or an encoder file")
    label_fraction: float = declare(1.0, "part of the labelled films used", low=0, above=True, high=1)
    policy: str = declare("detect", "augmentation policy by its name in POLICIES")
    policy_changes: Mapping[str, Any] = declare(dict, "changes of its fields, as in `--policy-changes gamma 0.1`")
    min_visible: float = declare(0.3, "a box with less of its area inside the view is dropped", low=0, high=1)
    repeat_below: float = declare(0.4, "films of findings in a smaller share of films are repeated", low=0, high=1)
    epochs: int = declare(12, "rounds of as many films at any label fraction, so that steps are equal", low=1)
    films_per_epoch: int = declare(216, "films of a round", low=2)
    batch_size: int = declare(8, "films of a step; BatchNorm takes their statistics", low=2)
    optimizer: str = declare("adamw", "sgd and lars have momentum .9", choices=OPTIMIZERS)
    lr: float = declare(1e-3, "peak, after a round of warm-up; then a cosine to 0", low=0, above=True)
    weight_decay: float = declare(0.05, "not on parameters with one dimension (norms, biases)", low=0)
    first_stage: str = declare("layer2", "first map that the pyramid reads", choices=("layer1", "layer2", "layer3"))
    pyramid_channels: int = declare(64, "channels of the feature pyramid; 256 for a GPU", low=8)
    head_width: int = declare(256, "of the two layers that look at a region; 1024 for a GPU", low=8)
    regions: int = declare(64, "regions of a film that the head learns from in a step; 512 for a GPU", low=4)
    seed: int = declare(0, "seeds weights, the labelled films, their order and views", low=0, high=2**63, below=True)


@dataclass(frozen=True, kw_only=True)
class RuntimeConfig(Checked):
    """How a run is executed (device, precision, folders). Recorded with the run, never part of its name."""

    device: str = declare("auto", "auto takes an accelerator when there is one", choices=("auto", "cpu", "cuda", "mps"))
    precision: str = declare(
        "auto", "auto takes bf16-mixed where it is faster, else 32-true", choices=("auto", "32-true", "bf16-mixed")
    )
    threads: int | None = declare(None, "CPU threads, torch's choice if None; equal ones repeat bit for bit", low=1)
    micro_batch: int | None = declare(
        None, "images of one pass through the network, with the gradient of the whole batch; None takes it whole", low=2
    )
    compile: bool = declare(False, "compile the backbone with torch.compile: slow to start, faster steps on a GPU")
    images_gib: float | None = declare(
        None, "most memory of the device for training images, half of what is free if None", unit="GiB", low=0
    )
    results: str | None = declare(None, "folder of results; None takes CXR_RESULTS, else ./results")
    root: str | None = declare(None, "folder of the data; None takes CXR_DATA, else medmnist's own")
    knn_bank: int = declare(1024, "a fixed draw for the per-epoch kNN probe", unit="training images", low=1)
    measure_every: int = declare(1, "look at val after every so many epochs, and after the last", unit="epochs", low=1)
    progress: bool = declare(True, "show a progress bar with live figures")


@dataclass(frozen=True, kw_only=True)
class ProbeConfig(Checked):
    """The offline probes on frozen features."""

    cs: tuple[float, ...] = declare(
        (1e-4, 1e-3, 1e-2, 1e-1, 1.0, 10.0), "strengths tried (C of 0.5 |w|^2 + C * sum of losses)", low=0, above=True
    )
    folds: int = declare(5, "cross-validation folds on train, grouped by patient where patients are known", low=2)
    seed: int = declare(0, "seeds the folds", low=0, high=2**32, below=True)
    max_iter: int = declare(1000, "iterations of L-BFGS after which a fit counts as not converged", low=1)
    knn_k: int = declare(20, "neighbours of the kNN probe", low=1)
    knn_temperature: float = declare(0.07, "of the kNN votes (Wu et al. 2018, arXiv 1805.01978)", low=0, above=True)
