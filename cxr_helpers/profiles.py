"""Profiles: how much of the study a machine and an occasion allow. Values only; nothing is computed here."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from .config import PretrainConfig

__all__ = ["DEFAULT_PROFILE", "PROFILES", "PolicySearch", "Profile", "SanityCheck", "get_profile", "place_in_study"]

DEFAULT_PROFILE = "quick"
_PHANTOMS = {"pneumoniamnist": "phantom", "chestmnist": "phantom_multilabel"}


@dataclass(frozen=True, kw_only=True)
class SanityCheck:
    """Notebook 00: both methods on ten classes of small colour images, where published figures exist.

    Args:
        dataset: cifar10, or the colour shapes that stand in for it.
        fallback: the embedded stand-in where the data are neither on disk nor to be downloaded.
        epochs, seeds, max_train_images, max_eval_images: as in `Profile`.
        recipes: training values by method that differ from the method's own; learning rates are per 256 images.
        why: where those values are from.
    """

    dataset: str = "cifar10"
    fallback: str | None = None
    epochs: int
    seeds: tuple[int, ...] = (0,)
    max_train_images: int | None = None
    max_eval_images: int | None = None
    recipes: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    why: str = "The methods' own recipes: a few epochs leave no time for the long warm-up of the published ones."


@dataclass(frozen=True, kw_only=True)
class PolicySearch:
    """Notebook 03: one method per policy for a few epochs, watched by the online probe.

    Args:
        policies: names in POLICIES, the reference set first.
        epochs: of each run; the learning rate's schedule ends with it.
        seeds: of training; the choice is made on their mean.
        method: pretrained with each policy.
    """

    policies: tuple[str, ...] = ("ref", "imagenet", "student", "ssl", "soft", "randaugment")
    epochs: int
    seeds: tuple[int, ...]
    method: str = "simclr"


@dataclass(frozen=True, kw_only=True)
class Profile:
    """One size of the study; every notebook takes its data, lengths and seeds from here.

    Args:
        name: what `CXR_PROFILE` says.
        sanity: notebook 00's part.
        search: notebook 03's part.
        datasets: names for `load_dataset`, in the order of the report; policies are chosen on the first.
        fallbacks: the embedded data set that stands in where one is neither on disk nor to be downloaded.
        sizes: sides in px, tried in this order: the first that the root holds (or that can be downloaded) is taken.
        epochs: of pretraining and of supervised training.
        seeds: of training.
        methods: pretrained here.
        baselines: among random, imagenet (both frozen, untrained) and supervised.
        policy: augmentation of the pretraining where notebook 03 has not written its choice.
        fine_tune_epochs: of end-to-end training from each encoder; 0 leaves fine-tuning out.
        label_fractions: parts of the training labels of the label curve.
        label_draws: draws of each part; draw and training seed are one number.
        batch_size: None takes each method's own.
        max_train_images, max_eval_images: a fixed draw of at most so many images of train, and of val and test each.
        max_views: most views of images that one notebook may train on in all; None is no limit.
        knn_bank: training images in the bank of the per-epoch kNN probe.
        train_missing: train runs that are not there; False lists them with their commands.
        is_evidence: whether figures of this profile may be published.
        says: what its figures are evidence for.
        duration: about how long the whole report takes, and on what.
    """

    name: str
    sanity: SanityCheck
    search: PolicySearch
    datasets: tuple[str, ...]
    fallbacks: Mapping[str, str] = field(default_factory=dict)
    sizes: tuple[int, ...]
    epochs: int
    seeds: tuple[int, ...]
    methods: tuple[str, ...] = ("simclr", "vicreg")
    baselines: tuple[str, ...] = ("random", "imagenet", "supervised")
    policy: str = PretrainConfig.policy
    fine_tune_epochs: int = 10
    label_fractions: tuple[float, ...] = (0.01, 0.1, 1.0)
    label_draws: int = 5
    batch_size: int | None = None
    max_train_images: int | None = None
    max_eval_images: int | None = None
    max_views: int | None = None
    knn_bank: int = 1024
    train_missing: bool = True
    is_evidence: bool = False
    says: str
    duration: str


# Recipes for 100 epochs that others found (the project's recipe sheet): SGD with the best 100-epoch probe, and
# solo-learn's widths for VICReg. Shorter checks take the methods' own, which reach their rate within an epoch or two.
_CIFAR_100_EPOCHS: Mapping[str, Mapping[str, Any]] = {
    "simclr": {
        "optimizer": "sgd",
        "lr": 0.06,  # per 256 images, as the source has it
        "weight_decay": 5e-4,
        "batch_size": 512,
        "warmup_epochs": 10.0,
        "options": {"temperature": 0.5, "hidden_dim": 1024, "output_dim": 128},
    },
    "vicreg": {
        "optimizer": "adamw",
        "lr": 2e-3,
        "weight_decay": 1e-4,
        "batch_size": 256,
        "warmup_epochs": 10.0,
        "options": {"hidden_dim": 2048, "output_dim": 2048},
    },
}

PROFILES: dict[str, Profile] = {
    profile.name: profile
    for profile in (
        Profile(
            name="smoke",
            sanity=SanityCheck(dataset="phantom_shapes", epochs=2, max_train_images=32, max_eval_images=32),
            search=PolicySearch(policies=("ref", "ssl"), epochs=2, seeds=(0,)),
            datasets=("phantom", "phantom_multilabel"),
            sizes=(64,),
            epochs=2,  # a curve needs two points
            seeds=(0,),
            baselines=("random", "supervised"),  # no download in a smoke test
            fine_tune_epochs=1,
            label_fractions=(0.5, 1.0),
            label_draws=1,
            batch_size=16,
            max_train_images=32,
            max_eval_images=32,
            max_views=20_000,
            knn_bank=32,
            says="nothing about any method: drawn images, two epochs, one seed; it shows that the machinery runs",
            duration="a few minutes on two cores",
        ),
        Profile(
            name="quick",
            sanity=SanityCheck(fallback="phantom_shapes", epochs=4, max_train_images=256, max_eval_images=256),
            search=PolicySearch(epochs=3, seeds=(0,)),
            datasets=("pneumoniamnist", "chestmnist"),
            fallbacks=_PHANTOMS,
            sizes=(64,),
            epochs=6,
            seeds=(0,),
            fine_tune_epochs=2,
            label_fractions=(0.1, 1.0),
            batch_size=64,
            max_train_images=256,  # every epoch is followed by a look at val: more of it costs as much as training
            max_eval_images=256,
            max_views=120_000,
            says="nothing about which method is better: one seed, part of the images, few epochs",
            duration="about 45 minutes on two cores",
        ),
        Profile(
            name="cpu",
            sanity=SanityCheck(
                epochs=3,
                max_train_images=10_000,
                recipes={"simclr": {"batch_size": 128}},
                why=(
                    "The methods' own recipes, SimCLR's in batches of 128: a CPU affords three epochs of 10,000 images "
                    "(an hour and a half a method), and smaller batches make twice the steps of them."
                ),
            ),
            search=PolicySearch(epochs=5, seeds=(0, 1, 2)),
            datasets=("pneumoniamnist", "chestmnist"),
            sizes=(64,),
            epochs=30,
            seeds=(0, 1, 2),
            train_missing=False,
            is_evidence=True,
            says=(
                "PneumoniaMNIST and ChestMNIST as this machine holds them, at 64 px: the seeds each row names, "
                "patient-clustered intervals; figures at 224 px are another protocol"
            ),
            duration="minutes where the runs are there; 1.5 to 2.5 hours per missing pretraining run on one core",
        ),
        Profile(
            name="full",
            sanity=SanityCheck(
                epochs=100,
                seeds=(0, 1, 2),
                recipes=_CIFAR_100_EPOCHS,
                why=(
                    "SimCLR: the recipe of the best published 100-epoch probe (SGD, temperature .5). "
                    "VICReg: AdamW in place of LARS, which was published for 1,000 epochs; "
                    "expander as wide as solo-learn's."
                ),
            ),
            search=PolicySearch(epochs=10, seeds=(0, 1, 2)),
            datasets=("pneumoniamnist", "chestmnist"),
            sizes=(224, 128, 64),
            epochs=50,
            seeds=(0, 1, 2),
            fine_tune_epochs=20,
            is_evidence=True,
            says="PneumoniaMNIST and ChestMNIST at the largest size this machine holds: the seeds each row names",
            duration="a few hours on one data-centre GPU",
        ),
    )
}


def get_profile(name: str | None = None) -> Profile:
    """The profile of that name, else of `CXR_PROFILE`, else `quick`.

    Raises:
        ValueError: an unknown name; the message lists the known ones.
    """
    chosen = name or os.environ.get("CXR_PROFILE") or DEFAULT_PROFILE
    if chosen not in PROFILES:
        source = "profile" if name else "CXR_PROFILE"
        raise ValueError(f"{source} must be one of {', '.join(PROFILES)}, got {chosen!r}")
    return PROFILES[chosen]


def place_in_study(text: str) -> int:
    """Where the data set that a text names comes in the study's order; what names none comes last."""
    studied = PROFILES["full"].datasets
    return next((place for place, name in enumerate(studied) if name in text), len(studied))
