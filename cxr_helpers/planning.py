"""From a profile to runs: which data, which configurations, and which of them are finished."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

from .config import PretrainConfig, RuntimeConfig
from .data import Dataset, load_dataset
from .models import imagenet_state
from .profiles import Profile
from .recipes import record_of, resolve, run_id
from .runs import Run, results_root

__all__ = [
    "imagenet_weights",
    "load_profile_data",
    "load_sanity_data",
    "planned_run",
    "project_root",
    "study_runtime",
]


SANITY_SIZE = 32  # px, CIFAR-10's


def project_root() -> Path:
    """The checkout this package lies in, from wherever a notebook was started; without one, the current folder."""
    root = Path(__file__).resolve().parents[1]
    return root if (root / "pyproject.toml").is_file() else Path.cwd()


def study_runtime(profile: Profile, **changes: object) -> RuntimeConfig:
    """How a notebook's runs are executed, and where their records lie.

    `CXR_RESULTS`, else the checkout's `results` for profiles that are evidence and `report/<profile>` for the others.
    """
    own = "results" if profile.is_evidence else f"report/{profile.name}"
    results = os.environ.get("CXR_RESULTS") or str(project_root() / own)
    runtime = RuntimeConfig(results=results, knn_bank=profile.knn_bank, progress=False)
    return replace(runtime, **changes)  # type: ignore[arg-type]


# ---- data


def load_profile_data(profile: Profile, root: str | None = None) -> dict[str, Dataset]:
    """The profile's data sets by name, at the first size that is there, shortened if the profile says so.

    What was done to them (another size, a stand-in, fewer images) is appended to the notes of their provenance.

    Raises:
        FileNotFoundError: a data set that is not there at any size, has no download and no fallback.
    """
    train, rest = profile.max_train_images, profile.max_eval_images
    datasets = [_load(name, profile, root, max_train_images=train, max_eval_images=rest) for name in profile.datasets]
    return {dataset.name: dataset for dataset in datasets}


def load_sanity_data(profile: Profile, root: str | None = None) -> Dataset:
    """The data of notebook 00: CIFAR-10, or the stand-in that the profile names.

    Raises:
        FileNotFoundError: neither files nor a download, and no fallback.
    """
    sanity = profile.sanity
    most = {"max_train_images": sanity.max_train_images, "max_eval_images": sanity.max_eval_images}
    try:
        return load_dataset(sanity.dataset, SANITY_SIZE, root, **most)
    except FileNotFoundError:
        if sanity.fallback is None:
            raise
        stand_in = load_dataset(sanity.fallback, SANITY_SIZE, root, **most)
        return _noted(stand_in, f"stands in for {sanity.dataset}, which is not on this machine")


def _load(name: str, profile: Profile, root: str | None, **most: int | None) -> Dataset:
    missing: FileNotFoundError | None = None
    for size in profile.sizes:
        try:
            dataset = load_dataset(name, size, root, **most)
        except FileNotFoundError as error:
            missing = missing or error
            continue
        return dataset if size == profile.sizes[0] else _noted(dataset, f"not here at {profile.sizes[0]} px")
    if name not in profile.fallbacks:
        assert missing is not None
        raise missing
    stand_in = load_dataset(profile.fallbacks[name], profile.sizes[0], root, **most)
    return _noted(stand_in, f"stands in for {name}, which is not on this machine")


def _noted(dataset: Dataset, note: str) -> Dataset:
    notes = [*dataset.provenance.get("notes", []), note]
    return replace(dataset, provenance={**dataset.provenance, "notes": notes})


# ---- runs


def imagenet_weights(backbone: str = "resnet18") -> str | None:
    """SHA-256 of the ImageNet weights this machine has or can download; None without either."""
    try:
        return imagenet_state(backbone)[1]
    except FileNotFoundError:
        return None


def planned_run(config: PretrainConfig, dataset: Dataset, runtime: RuntimeConfig) -> Run:
    """The run of this configuration and data, begun or not: one that is not there has no history and is not finished.

    Nothing is written.
    """
    record = record_of(resolve(config), dataset)
    return Run(path=results_root(runtime) / "runs" / run_id(record), record=record)
