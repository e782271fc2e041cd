"""Profiles: how much of the study a machine and an occasion allow. Values only; nothing is computed here."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field

from .config import PretrainConfig

__all__ = [
    "DEFAULT_PROFILE",
    "PROFILES",
    "Profile",
    "get_profile",
]

DEFAULT_PROFILE = "quick"
_PHANTOMS = {"pneumoniamnist": "phantom", "chestmnist": "phantom_multilabel"}


@dataclass(frozen=True, kw_only=True)
class Profile:
    """One size of the study; every notebook takes its data, lengths and seeds from here.

    Args:
        name: what `CXR_PROFILE` says.
        datasets: names for `load_dataset`, in the order of the report.
        fallbacks: the embedded data set that stands in where one is neither on disk nor to be downloaded.
        sizes: sides in px, tried in this order: the first that the root holds (or that can be downloaded) is taken.
        epochs: of pretraining and of supervised training.
        seeds: of training.
        methods: pretrained here.
        baselines: among random, imagenet (both frozen, untrained) and supervised.
        policy: augmentation of the pretraining.
        batch_size: None takes each method's own.
        max_train_images, max_eval_images: a fixed draw of at most so many images of train, and of val and test each.
        max_views: most views of images that one notebook may train on in all; None is no limit.
        knn_bank: training images in the bank of the per-epoch kNN probe.
        train_missing: train runs that are not there; False lists them with their commands.
        is_evidence: whether figures of this profile may be published.
        says: what its figures are evidence for.
        duration: about how long notebook 04 takes, and on what.
    """

    name: str
    datasets: tuple[str, ...]
    fallbacks: Mapping[str, str] = field(default_factory=dict)
    sizes: tuple[int, ...]
    epochs: int
    seeds: tuple[int, ...]
    methods: tuple[str, ...] = ("simclr", "vicreg")
    baselines: tuple[str, ...] = ("random", "imagenet", "supervised")
    policy: str = PretrainConfig.policy
    batch_size: int | None = None
    max_train_images: int | None = None
    max_eval_images: int | None = None
    max_views: int | None = None
    knn_bank: int = 1024
    train_missing: bool = True
    is_evidence: bool = False
    says: str
    duration: str


PROFILES: dict[str, Profile] = {
    profile.name: profile
    for profile in (
        Profile(
            name="smoke",
            datasets=("phantom", "phantom_multilabel"),
            sizes=(64,),
            epochs=2,  # a curve needs two points
            seeds=(0,),
            baselines=("random", "supervised"),  # no download in a smoke test
            batch_size=48,
            max_train_images=96,
            max_eval_images=96,
            max_views=10_000,
            knn_bank=96,
            says="nothing about any method: drawn images, two epochs, one seed; it shows that the machinery runs",
            duration="one to two minutes on a free core",
        ),
        Profile(
            name="quick",
            datasets=("pneumoniamnist", "chestmnist"),
            fallbacks=_PHANTOMS,
            sizes=(64,),
            epochs=8,
            seeds=(0,),
            batch_size=128,
            max_train_images=1024,
            max_eval_images=1000,
            max_views=120_000,
            says="nothing about which method is better: one seed, part of the images, few epochs",
            duration="about a quarter of an hour on two cores",
        ),
        Profile(
            name="cpu",
            datasets=("pneumoniamnist", "chestmnist"),
            sizes=(64,),
            epochs=30,
            seeds=(0, 1, 2),
            train_missing=False,
            is_evidence=True,
            says=(
                "PneumoniaMNIST and ChestMNIST as this machine holds them, at 64 px: three seeds, "
                "patient-clustered intervals; figures at 224 px are another protocol"
            ),
            duration="minutes where the runs are there; about an hour per missing pretraining run on one core",
        ),
        Profile(
            name="full",
            datasets=("pneumoniamnist", "chestmnist"),
            sizes=(224, 128, 64),
            epochs=50,
            seeds=(0, 1, 2),
            is_evidence=True,
            says="PneumoniaMNIST and ChestMNIST at the largest size this machine holds: three seeds",
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
