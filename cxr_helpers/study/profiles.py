"""Profiles: how much of the study a machine and an occasion allow, in eight numbers."""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ..config import RuntimeConfig
from ..data import Dataset, data_root, load_dataset
from ..fields import require

__all__ = ["PROFILES", "Profile", "get_profile", "load_data", "project_root", "runtime_for"]

SIZES_PX = (224, 128, 64)  # tried from a profile's own downwards
FOLDERS = {  # image folders in the data's root, and what stands in for them
    **{"imagenette_128": "phantom", "vindr": "phantom_multilabel", "vindr_unlabelled": "phantom"},
    "vindr_unlabelled + chestmnist": "phantom",
    **{"brain_stroke_ct_224": "phantom_multilabel", "mini_mias_512": "phantom_multilabel_anomaly"},
}
STAND_INS = FOLDERS | {"pneumoniamnist": "phantom", "chestmnist": "phantom_multilabel", "cifar10": "phantom"}
STAND_INS |= {f"chestmnist_{task}": f"phantom_multilabel_{task}" for task in ("anomaly", "pneumonia")}


@dataclass(frozen=True, kw_only=True)
class Profile:
    """One size of the study; every notebook takes its lengths and seeds from here."""

    name: str  # what `CXR_PROFILE` says
    size_px: int = 64  # side of the chest films; the largest at hand up to it is taken
    epochs: int  # of pretraining and of supervised training
    search_epochs: int  # of each run in the search for augmentations
    finetune_epochs: int  # of end-to-end training from an encoder
    seeds: tuple[int, ...] = (0,)  # of training
    max_train_images: int | None = None  # a fixed draw of at most so many of train; None takes all
    max_eval_images: int | None = None  # the same of val and of test, each
    batch_size: int | None = None  # None takes each method's recipe
    trains: bool = True  # whether missing runs are trained; else they are listed with their commands
    is_evidence: bool = False  # whether its figures may be published; else drawn films may stand in for missing data
    drawn: bool = False  # every data set is a drawn one: nothing is downloaded


_FEW: dict[str, Any] = {"max_train_images": 32, "max_eval_images": 32, "batch_size": 16}
_SOME: dict[str, Any] = {"max_train_images": 256, "max_eval_images": 256, "batch_size": 64}
_STUDY: dict[str, Any] = {"seeds": (0, 1, 2), "is_evidence": True}
PROFILES: dict[str, Profile] = {
    "smoke": Profile(name="smoke", epochs=2, search_epochs=2, finetune_epochs=1, drawn=True, **_FEW),
    "quick": Profile(name="quick", epochs=6, search_epochs=3, finetune_epochs=2, **_SOME),
    "cpu": Profile(name="cpu", epochs=30, search_epochs=5, finetune_epochs=10, trains=False, **_STUDY),
    "full": Profile(name="full", size_px=224, epochs=50, search_epochs=10, finetune_epochs=20, **_STUDY),
}


def get_profile(name: str | None = None) -> Profile:
    """The profile of that name, else of `CXR_PROFILE`, else `quick`; ValueError of an unknown one."""
    chosen = name or os.environ.get("CXR_PROFILE") or "quick"
    require(chosen in PROFILES, "profile" if name else "CXR_PROFILE", f"one of {', '.join(PROFILES)}", chosen)
    return PROFILES[chosen]


def project_root() -> Path:
    """The checkout this package lies in, from wherever a notebook was started; without one, the current folder."""
    root = Path(__file__).resolve().parents[2]
    return root if (root / "pyproject.toml").is_file() else Path.cwd()


def runtime_for(profile: Profile) -> RuntimeConfig:
    """Where a notebook's runs lie: `CXR_RESULTS`, else `results`, or `report/<profile>` of what is no evidence."""
    own = "results" if profile.is_evidence else f"report/{profile.name}"
    return RuntimeConfig(results=os.environ.get("CXR_RESULTS") or str(project_root() / own), progress=False)


def load_data(profile: Profile, *names: str, most: int | None = None, size: int | None = None) -> dict[str, Dataset]:
    """The study's data sets, or the named ones, by name; drawn ones that stand in for them have names of their own.

    Args:
        most: a fixed draw of at most so many images of each split, where the profile would take more.
        size: another side than the profile's, in pixels.
    Raises:
        FileNotFoundError: one is at no size here, nor to be downloaded, and nothing may stand in for it.
    """
    profile = replace(profile, size_px=size or profile.size_px)
    found = [_load(profile, name, most) for name in names or ("pneumoniamnist", "chestmnist")]
    return {dataset.name: dataset for dataset in found}


def _load(profile: Profile, name: str, most: int | None) -> Dataset:
    sizes = (32,) if name == "cifar10" else tuple(size for size in SIZES_PX if size <= profile.size_px)
    sizes = (profile.size_px,) if name == "vindr" else sizes  # its films are drawn at any size
    own = {"max_train_images": profile.max_train_images, "max_eval_images": profile.max_eval_images}
    limits: dict[str, Any] = {limit: min(filter(None, (count, most)), default=None) for limit, count in own.items()}
    lacks = name in FOLDERS and not (data_root() / name.split("_unlabelled")[0]).is_dir()
    if lacks and profile.is_evidence:
        raise FileNotFoundError(f"the data folder must hold the image folder {name}, got none: put it there")
    for size in () if profile.drawn or lacks else sizes:
        try:
            return load_dataset(name, size, **limits)
        except FileNotFoundError:
            if profile.is_evidence and size == sizes[-1]:
                raise
    return load_dataset(STAND_INS.get(name, name), sizes[0], **limits)
