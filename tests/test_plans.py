"""Plans hold what each notebook promises, once, in legal configurations, within the profile's limits."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
from conftest import texture_dataset
from studies import make_run

from cxr_helpers import plans
from cxr_helpers.config import PretrainConfig
from cxr_helpers.data import Dataset
from cxr_helpers.plans import plan_fine_tuning, plan_imagenet, plan_label_curve, plan_policies, plan_runs, plan_sanity
from cxr_helpers.profiles import PROFILES, get_profile
from cxr_helpers.recipes import resolve
from cxr_helpers.runs import Run

QUICK_VIEWS = 600_000  # what the whole quick report may train on
WHOLE_TRAIN = 400


def stand_ins(profile_name: str) -> tuple[dict[str, Dataset], Dataset]:
    """Data sets of the profile's names and lengths, and one for the sanity check."""
    profile = get_profile(profile_name)
    data = texture_dataset(counts=(profile.max_train_images or WHOLE_TRAIN, 8, 8))
    sanity = texture_dataset(counts=(profile.sanity.max_train_images or WHOLE_TRAIN, 8, 8))
    return {n: dataclasses.replace(data, name=n) for n in profile.datasets}, sanity


def every_plan(profile_name: str, tmp_path: Path) -> dict[str, tuple[list[PretrainConfig], dict[str, Dataset]]]:
    profile = get_profile(profile_name)
    datasets, sanity = stand_ins(profile_name)
    full, from_imagenet = plan_runs(profile, datasets), plan_imagenet(profile, datasets)
    parents = [Run(path=tmp_path / str(i), record=vars(resolve(c))) for i, c in enumerate((*full, *from_imagenet))]
    tuned = plan_fine_tuning(profile, parents, profile.seeds)
    return {
        "00": (plan_sanity(profile, sanity), {sanity.name: sanity}),
        "03": (plan_policies(profile, datasets), datasets),
        "04": (full + plan_label_curve(profile, datasets), datasets),
        "05": (from_imagenet + tuned, datasets),
    }


@pytest.mark.parametrize("name", ["smoke", "quick"])
def test_a_limited_profile_stays_below_its_views_and_batches_fit_its_images(name: str, tmp_path: Path) -> None:
    profile, total = get_profile(name), 0
    assert profile.max_views is not None
    for plan, datasets in every_plan(name, tmp_path).values():
        views = plans.planned_views(plan, datasets)
        assert views > 0
        total += views
        assert all((resolve(c).batch_size or 0) <= len(datasets[c.dataset].train) for c in plan)
    assert total <= profile.max_views <= QUICK_VIEWS


@pytest.mark.parametrize("name", PROFILES)
def test_no_plan_names_a_run_twice(name: str, tmp_path: Path) -> None:
    for number, (plan, _) in every_plan(name, tmp_path).items():
        assert len({repr(config) for config in plan}) == len(plan), number


def test_views_are_counted_by_hand() -> None:
    data = {"textures": texture_dataset(counts=(40, 24, 24))}
    base = PretrainConfig(dataset="textures", size=64, epochs=3, batch_size=16)
    part = dataclasses.replace(base, method="supervised", label_fraction=0.5, batch_size=4)
    plan = [base, dataclasses.replace(base, method="supervised"), dataclasses.replace(base, epochs=0), part]
    assert plans.planned_views(plan, data) == 3 * 32 * (2 + 1) + 3 * 20


def test_a_plan_has_every_method_and_seed_once_and_frozen_encoders_without_epochs() -> None:
    profile = get_profile("cpu")
    data = dataclasses.replace(texture_dataset(), name="chestmnist")
    plan = plan_runs(profile, {"chestmnist": data})
    trained = [(config.method, config.seed) for config in plan if config.epochs]
    assert sorted(trained) == sorted((m, s) for m in ("simclr", "vicreg", "supervised") for s in profile.seeds)
    assert [config.init for config in plan if not config.epochs] == ["random"] * 3 + ["imagenet"]
    assert not [c for c in plan_runs(profile, {"chestmnist": data}, imagenet=False) if c.init == "imagenet"]


def test_every_policy_meets_every_seed_under_one_method() -> None:
    profile = get_profile("cpu")
    plan = plan_policies(profile, {"textures": texture_dataset()})
    wanted = [(p, s) for p in profile.search.policies for s in profile.search.seeds]
    assert [(c.policy, c.seed) for c in plan] == wanted
    assert {c.method for c in plan} == {profile.search.method}
    assert {c.epochs for c in plan} == {profile.search.epochs}


def test_fine_tuning_starts_from_each_parent_with_its_seed_and_from_imagenet_with_all(tmp_path: Path) -> None:
    profile = get_profile("cpu")
    parents = [make_run(tmp_path, method="simclr", seed=s) for s in (0, 1)]
    parents += [make_run(tmp_path, method="supervised", policy="supervised"), make_run(tmp_path, epochs=0)]
    parents += [make_run(tmp_path, epochs=0, init="imagenet")]
    plan = plan_fine_tuning(profile, parents, profile.seeds)
    assert [(Path(c.init).parent.name, c.seed) for c in plan[:2]] == [(parents[0].id, 0), (parents[1].id, 1)]
    assert [(c.init, c.seed) for c in plan[-3:]] == [("imagenet", 0), ("imagenet", 1), ("imagenet", 2)]
    assert {c.method for c in plan} == {"supervised"} and all(c.backbone_lr_factor < 1 for c in plan)
    assert not plan_fine_tuning(dataclasses.replace(profile, fine_tune_epochs=0), parents)


def test_few_labels_are_seen_longer_at_the_same_rate_in_batches_that_fit() -> None:
    profile = get_profile("cpu")
    data = {"textures": texture_dataset(counts=(4000, 8, 8))}
    plan = [resolve(c) for c in plan_label_curve(profile, data)]
    assert [(c.label_fraction, c.seed) for c in plan] == [(f, d) for f in (0.01, 0.1) for d in range(5)]
    whole = resolve(PretrainConfig(dataset="textures", method="supervised"))
    for c in plan:
        assert c.batch_size is not None and c.batch_size <= c.label_fraction * 4000
        assert c.lr * c.batch_size == pytest.approx(whole.lr * whole.batch_size, rel=1e-3)  # type: ignore[operator]
        assert c.epochs == 5 * profile.epochs


def test_the_sanity_check_takes_the_published_recipe_where_it_has_the_epochs() -> None:
    data = dataclasses.replace(texture_dataset(), name="cifar10")
    full = {c.method: resolve(c) for c in plan_sanity(get_profile("full"), data) if c.epochs}
    assert full["simclr"].optimizer == "sgd" and full["simclr"].options["temperature"] == 0.5
    assert full["simclr"].epochs == 100 and {c.policy for c in full.values()} == {"cifar"}
    assert plan_sanity(get_profile("smoke"), data)[-1].epochs == 0
