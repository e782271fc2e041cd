"""What each notebook trains: lists of configurations, in the order of the report. Nothing is run here."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace

from .augment import POLICIES
from .config import PretrainConfig
from .data import Dataset
from .methods import load_method
from .profiles import Profile
from .recipes import resolve
from .runs import Run

__all__ = [
    "FINE_TUNING",
    "MAX_STRETCH",
    "plan_fine_tuning",
    "plan_imagenet",
    "plan_label_curve",
    "plan_policies",
    "plan_runs",
    "plan_sanity",
    "plan_transfer",
    "planned_views",
]

FINE_TUNING = {
    "backbone_lr_factor": 0.1,  # pretrained weights move a tenth as fast as the new head
    "policy": "supervised",
}
MAX_STRETCH = 5  # most passes over few labels, in multiples of the epochs over all of them
SMALLEST_BATCH = 16  # BatchNorm needs company


def _base(profile: Profile, dataset: Dataset, **changes: object) -> PretrainConfig:
    config = PretrainConfig(
        dataset=dataset.name, size=dataset.size, epochs=profile.epochs, batch_size=profile.batch_size
    )
    return replace(config, **changes)  # type: ignore[arg-type]


def plan_sanity(profile: Profile, dataset: Dataset) -> list[PretrainConfig]:
    """Notebook 00: both methods for every seed, and the untrained encoder."""
    sanity, plan = profile.sanity, []
    base = _base(profile, dataset, policy="cifar", epochs=sanity.epochs)
    for method in profile.methods:
        recipe = sanity.recipes.get(method, {})
        plan += [replace(base, method=method, seed=seed, **recipe) for seed in sanity.seeds]
    return [*plan, replace(base, policy="none", epochs=0, seed=sanity.seeds[0])]


def plan_policies(profile: Profile, datasets: Mapping[str, Dataset]) -> list[PretrainConfig]:
    """Notebook 03: one method under every policy for every seed, on every data set."""
    search = profile.search
    return [
        _base(profile, dataset, method=search.method, policy=policy, epochs=search.epochs, seed=seed)
        for dataset in datasets.values()
        for policy in search.policies
        for seed in search.seeds
    ]


def plan_runs(
    profile: Profile, datasets: Mapping[str, Dataset], *, policy: str | None = None, imagenet: bool = True
) -> list[PretrainConfig]:
    """Notebook 04: both methods, the supervised encoder, and the frozen ones, by data set and seed.

    Args:
        policy: of the pretraining; None takes the profile's.
        imagenet: plan the frozen ImageNet encoder where the profile names it.
    """
    plan = []
    for dataset in datasets.values():
        base = _base(profile, dataset)
        plan += [
            replace(base, method=method, policy=policy or profile.policy, seed=seed)
            for method in profile.methods
            for seed in profile.seeds
        ]
        if "supervised" in profile.baselines:
            plan += [replace(base, method="supervised", policy="supervised", seed=seed) for seed in profile.seeds]
        frozen = replace(base, policy="none", epochs=0)  # nothing is learnt: the initial weights are the run
        if "random" in profile.baselines:
            plan += [replace(frozen, seed=seed) for seed in profile.seeds]
        if "imagenet" in profile.baselines and imagenet:
            plan.append(replace(frozen, init="imagenet", seed=profile.seeds[0]))
    return plan


def plan_imagenet(
    profile: Profile, datasets: Mapping[str, Dataset], *, policy: str | None = None
) -> list[PretrainConfig]:
    """Notebook 05: both methods from ImageNet's weights, by data set and seed; its other rows are notebook 04's."""
    return [
        _base(profile, dataset, method=method, policy=policy or profile.policy, seed=seed, init="imagenet")
        for dataset in datasets.values()
        for method in profile.methods
        for seed in profile.seeds
    ]


def plan_fine_tuning(profile: Profile, parents: Iterable[Run], seeds: Iterable[int] = ()) -> list[PretrainConfig]:
    """End-to-end training on the labels from each parent's weights, with the parent's seed.

    Args:
        parents: finished runs; supervised and untrained random ones are left out.
        seeds: of parents without training, whose weights have one seed while fine-tuning has several.
    """
    plan = []
    for parent in parents if profile.fine_tune_epochs else ():
        record = parent.record
        nothing_learnt = record["epochs"] == 0 and record["init"] == "random"  # that is training from scratch
        if load_method(record["method"]).needs_labels or nothing_learnt:
            continue
        given = record["epochs"] == 0 and record["init"] == "imagenet"
        base = PretrainConfig(
            dataset=record["dataset"],
            size=record["size"],
            method="supervised",
            init="imagenet" if given else str(parent.weights),
            epochs=profile.fine_tune_epochs,
            batch_size=profile.batch_size,
            **FINE_TUNING,  # type: ignore[arg-type]
        )
        plan += [replace(base, seed=seed) for seed in (tuple(seeds) if given else (record["seed"],))]
    return plan


def plan_transfer(parents: Iterable[Run], datasets: Mapping[str, Dataset]) -> list[PretrainConfig]:
    """Every encoder pretrained without labels, frozen, on the other data sets of its size and channels.

    Args:
        parents: finished runs; supervised, untrained and fine-tuned ones are left out.
        datasets: by name, the parents' own among them.
    """
    plan = []
    for parent in parents:
        record = parent.record
        if load_method(record["method"]).needs_labels or record["epochs"] == 0:
            continue
        own = datasets[record["dataset"]]
        plan += [
            PretrainConfig(
                dataset=other.name,
                size=other.size,
                policy="none",
                epochs=0,
                init=str(parent.weights),
                seed=record["seed"],
            )
            for other in datasets.values()
            if other is not own and (other.size, other.channels) == (own.size, own.channels)
        ]
    return plan


def plan_label_curve(profile: Profile, datasets: Mapping[str, Dataset]) -> list[PretrainConfig]:
    """Supervised training on parts of the labels: longer and in smaller batches, at the rate of the whole.

    Without that, one in a hundred labels would mean a hundredth of the steps, and the curve would show too few steps
    instead of too few labels.
    """
    plan = []
    for dataset in datasets.values():
        whole = resolve(_base(profile, dataset, method="supervised", policy="supervised"))
        assert whole.batch_size is not None and whole.lr is not None
        for fraction in profile.label_fractions if "supervised" in profile.baselines else ():
            if fraction == 1:
                continue  # those are the supervised runs of `plan_runs`
            count = int(fraction * int(dataset.train.labelled.sum()))
            batch = min(whole.batch_size, max(SMALLEST_BATCH, count // 4), count)
            part = replace(
                _base(profile, dataset, method="supervised", policy="supervised", label_fraction=fraction),
                epochs=round(profile.epochs * min(MAX_STRETCH, 1 / fraction)),
                batch_size=batch,
                lr=float(f"{whole.lr * whole.batch_size / batch:.4g}"),  # rates are per 256 images
            )
            plan += [replace(part, seed=draw) for draw in range(profile.label_draws)]
    return plan


def planned_views(plan: Iterable[PretrainConfig], datasets: Mapping[str, Dataset]) -> int:
    """Views of training images that the plan's runs make in all; a last partial batch is dropped."""
    total = 0
    for config in map(resolve, plan):
        data = datasets[config.dataset]
        assert config.batch_size is not None
        views = load_method(config.method).views
        per_image = views(None, POLICIES[config.policy], config.size).num_views  # type: ignore[arg-type]
        needs_labels = load_method(config.method).needs_labels
        images = int(config.label_fraction * int(data.train.labelled.sum())) if needs_labels else len(data.train)
        total += config.epochs * (images // config.batch_size * config.batch_size) * per_image
    return total
