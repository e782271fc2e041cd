"""Policies: the assignment's numbers, what they say of themselves, one operation alone, one number swept."""

import pytest
import torch
from samples import as_bytes, every_operation, smooth_images

from cxr_helpers import augment
from cxr_helpers.augment import POLICIES, SPECS, AugmentationPolicy, Normalisation, alone, inert_fields

RATIO = {"crop_ratio_min": 3 / 4, "crop_ratio_max": 4 / 3}
REF = {"affine_prob": 0.5, "rotation_deg": 10, "crop_scale_min": 0.5, **RATIO, "flip_prob": 0.5, "invert_prob": 0.5}
REF |= {"jitter_prob": 0.5, "brightness": 0.2, "contrast": 0.2}
IMAGENET = {"crop_scale_min": 0.08, **RATIO, "flip_prob": 0.5, "gray_prob": 0.2, "blur_prob": 0.5}
IMAGENET |= {"jitter_prob": 0.8, "brightness": 0.4, "contrast": 0.4, "saturation": 0.2, "hue": 0.1}
IMAGENET |= {"blur_sigma_min": 0.1, "blur_sigma_max": 2, "solarize_prob": 0.1, "solarize_threshold": 0.5}


@pytest.mark.parametrize(("name", "numbers"), [("ref", REF), ("imagenet", IMAGENET)])
def test_the_assignments_sets_hold_its_numbers_and_nothing_else_is_enabled(name: str, numbers: dict) -> None:
    off = AugmentationPolicy()
    got = {key: getattr(POLICIES[name], key) for key in SPECS}
    assert got == pytest.approx({key: getattr(off, key) for key in SPECS} | numbers)


def test_the_assignments_normalisations_are_kept_including_its_std_of_228_and_fit_both_numbers_of_channels() -> None:
    assert POLICIES["ref"].normalisation == Normalisation((0.5,), (0.5,))
    assert POLICIES["imagenet"].normalisation == Normalisation((0.485, 0.456, 0.406), (0.228, 0.224, 0.225))
    grey = POLICIES["imagenet"].normalisation.for_channels(1)
    assert (*grey.mean, *grey.std) == pytest.approx((0.449, 0.677 / 3))
    assert Normalisation((0.5,), (0.25,)).for_channels(3) == Normalisation((0.5,) * 3, (0.25,) * 3)
    with pytest.raises(ValueError, match="must"):
        Normalisation((0.5,), (0.5, 0.5))


def test_every_policy_and_number_says_why_and_the_projects_own_policies_stay_within_the_sliders() -> None:
    assert all(policy.name == name and policy.reason for name, policy in POLICIES.items())
    for name, spec in SPECS.items():
        assert spec.unit and spec.why and spec.group and spec.slider
        assert spec.low <= spec.slider[0] < spec.slider[1] <= spec.high
        for own in ("ssl", "soft", "supervised"):
            value = getattr(POLICIES[own], name)
            assert value == getattr(POLICIES["none"], name) or spec.slider[0] <= value <= spec.slider[1]


def test_describe_lists_what_is_enabled_and_every_number_is_read_by_an_operation() -> None:
    rows = {row.operation: row for row in POLICIES["ref"].describe()}
    assert list(rows) == ["affine", "crop", "flip", "brightness", "contrast", "invert"]
    assert rows["affine"].probability == 0.5 and rows["affine"].magnitude == "rotation ±10°"
    assert inert_fields(1) == {"saturation", "hue", "gray_prob"} and inert_fields(3) == set()
    assert AugmentationPolicy(jitter_prob=1, gamma_prob=1, noise_prob=1, affine_prob=1).describe() == ()
    assert set().union(*(one.reads for one in augment.OPERATIONS.values())) == set(SPECS)
    for operation in augment.OPERATIONS:
        assert [row.operation for row in alone(every_operation(), operation).describe()] == [operation]
    contrast = alone(POLICIES["ssl"], "contrast")
    reason = POLICIES["ssl"].reason
    assert contrast == AugmentationPolicy(name="contrast of ssl", reason=reason, jitter_prob=0.8, contrast=0.4)
    assert not alone(POLICIES["soft"], "invert").describe()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"flip": 0.5}, r"field must be one of crop_scale_min, .*got 'flip'"),
        ({"flip_prob": 1.5}, r"flip_prob must be at least 0 and at most 1, got 1.5"),
        ({"randaugment_ops": "1.5"}, r"randaugment_ops must be a whole number .*got '1.5'"),
        ({"crop_ratio_max": 2, "crop_ratio_min": 2}, r"crop_scale_min must be at most 0.5 .*got 1"),
    ],
)
def test_changes_are_named_and_a_mistake_gets_one_sentence(changes: dict[str, float], message: str) -> None:
    name = "none with invert_prob=0.5, rotation_deg=3"
    expected = AugmentationPolicy(name=name, reason=POLICIES["none"].reason, rotation_deg=3.0, invert_prob=0.5)
    assert augment.get_policy("none", {"rotation_deg": "3", "invert_prob": 0.5}) == expected
    with pytest.raises(ValueError, match=message):
        augment.get_policy("none", changes)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("field", (*augment.SWEPT, *augment.TOGGLED))
def test_a_sweep_runs_from_the_film_or_between_opposites_and_changes_it_unless_inert(field: str, channels: int) -> None:
    (image,) = as_bytes(smooth_images(1, 32, channels))
    sweep = augment.sweep_operation(image, field, 32)
    moved = (sweep.views - image / 255).abs().amax((1, 2, 3))
    assert len(sweep.captions) == len(sweep.values) == len(moved) and sweep.inert == (field in inert_fields(channels))
    assert bool(moved.max() > 0.02) != sweep.inert
    plain = moved[min(range(len(moved)), key=lambda k: abs(sweep.values[k]))] if sweep.values[0] <= 0 else 0
    assert plain < 1e-4
    if sweep.values[0] < 0 and not sweep.inert:
        assert moved[0] > 0.01 < moved[-1] and not torch.equal(sweep.views[0], sweep.views[-1])
