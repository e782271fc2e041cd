"""Profiles are legal values, and what they plan fits what they promise."""

from __future__ import annotations

import dataclasses

import pytest
from conftest import texture_dataset

from cxr_helpers import study
from cxr_helpers.augment import POLICIES
from cxr_helpers.config import PretrainConfig
from cxr_helpers.data import draw_images, take_images
from cxr_helpers.data.sources import MEDMNIST_FLAGS, PHANTOMS
from cxr_helpers.methods import METHODS
from cxr_helpers.profiles import PROFILES, Profile, get_profile


@pytest.mark.parametrize("profile", PROFILES.values(), ids=lambda p: p.name)
def test_a_profile_names_only_what_exists(profile: Profile) -> None:
    assert {*profile.datasets, *profile.fallbacks.values()} <= {*MEDMNIST_FLAGS, *PHANTOMS}
    assert set(profile.fallbacks) <= set(profile.datasets)
    assert set(profile.methods) | {profile.search.method} <= set(METHODS)
    assert {profile.policy, *profile.search.policies} <= set(POLICIES)
    assert {profile.sanity.dataset, profile.sanity.fallback or "cifar10"} <= {"cifar10", *PHANTOMS}
    assert set(profile.baselines) <= {"random", "imagenet", "supervised"}
    for size in profile.sizes:
        PretrainConfig(size=size, epochs=profile.epochs, batch_size=profile.batch_size, seed=max(profile.seeds))


def test_profiles_that_are_evidence_have_three_seeds_whole_data_and_no_phantoms() -> None:
    for profile in PROFILES.values():
        whole = profile.max_train_images is None and profile.max_eval_images is None
        real = not {*profile.datasets, *profile.fallbacks.values()} & set(PHANTOMS)
        assert profile.is_evidence == (len(profile.seeds) >= 3 and whole and real), profile.name


def test_the_assignment_is_answered_by_20_to_50_epochs_wherever_a_profile_is_evidence() -> None:
    assert all(20 <= profile.epochs <= 50 for profile in PROFILES.values() if profile.is_evidence)


def test_without_a_variable_the_profile_is_quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CXR_PROFILE", raising=False)
    assert get_profile().name == "quick"
    monkeypatch.setenv("CXR_PROFILE", "cpu")
    assert get_profile().name == "cpu" and get_profile("smoke").name == "smoke"


def test_an_unknown_profile_is_refused_with_the_list(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ValueError, match="profile must be one of smoke, quick, cpu, full, got 'gpu'"):
        get_profile("gpu")
    monkeypatch.setenv("CXR_PROFILE", "Quick")
    with pytest.raises(ValueError, match="CXR_PROFILE must be one of"):
        get_profile()


def test_missing_data_fall_back_to_the_phantom_and_say_so(monkeypatch: pytest.MonkeyPatch) -> None:
    def load(name: str, size: int, root: str | None = None, **_: object) -> object:
        if name not in PHANTOMS:
            raise FileNotFoundError(name)
        return dataclasses.replace(texture_dataset(), name=name, size=size)

    monkeypatch.setattr(study, "load_dataset", load)
    datasets = study.load_profile_data(get_profile("quick"))
    assert list(datasets) == ["phantom", "phantom_multilabel"]
    assert "stands in for chestmnist" in str(datasets["phantom_multilabel"].provenance["notes"])
    with pytest.raises(FileNotFoundError, match="pneumoniamnist"):
        study.load_profile_data(get_profile("cpu"))


def test_a_shortened_split_is_a_fixed_draw_in_the_old_order_and_is_noted(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = texture_dataset()
    monkeypatch.setattr(study, "load_dataset", lambda *_, **most: draw_images(whole, **most))
    profile = dataclasses.replace(get_profile("smoke"), datasets=("textures",), max_train_images=10)
    data = study.load_profile_data(profile)["textures"]
    assert len(data.train) == 10 and "fixed draw of 10 / 24 / 24" in str(data.provenance["notes"])
    places = [int((whole.train.images == image).all((1, 2, 3)).nonzero()) for image in data.train.images]
    assert places == sorted(set(places)) and places != list(range(10))
    assert take_images(whole.train, 40) is whole.train
