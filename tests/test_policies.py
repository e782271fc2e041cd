from __future__ import annotations

import dataclasses
import json

import pytest

from cxr_helpers.augment import (
    POLICIES,
    AugmentationPolicy,
    Normalisation,
    describe,
    get_policy,
    magnitude_fields,
)
from cxr_helpers.fields import spec_of

RATIO = {"crop_ratio_min": 3 / 4, "crop_ratio_max": 4 / 3}
ASSIGNMENT = {
    "ref": {
        "affine_prob": 0.5,
        "rotation_deg": 10,
        "crop_scale_min": 0.5,
        **RATIO,
        "flip_prob": 0.5,
        "jitter_prob": 0.5,
        "brightness": 0.2,
        "contrast": 0.2,
        "invert_prob": 0.5,
    },
    "imagenet": {
        "crop_scale_min": 0.08,
        **RATIO,
        "flip_prob": 0.5,
        "jitter_prob": 0.8,
        "brightness": 0.4,
        "contrast": 0.4,
        "saturation": 0.2,
        "hue": 0.1,
        "gray_prob": 0.2,
        "blur_prob": 0.5,
        "blur_sigma_min": 0.1,
        "blur_sigma_max": 2,
        "solarize_prob": 0.1,
        "solarize_threshold": 0.5,
    },
}


@pytest.mark.parametrize("name", ASSIGNMENT)
def test_the_assignments_sets_hold_its_numbers_and_nothing_else_is_enabled(name: str) -> None:
    off = AugmentationPolicy(name=name, reason="")
    expected = {item.name: getattr(off, item.name) for item in magnitude_fields()} | ASSIGNMENT[name]
    got = {item.name: getattr(POLICIES[name], item.name) for item in magnitude_fields()}
    assert got == pytest.approx(expected)


def test_the_assignments_normalisations_are_kept_including_its_std_of_228() -> None:
    assert POLICIES["ref"].normalisation == Normalisation((0.5,), (0.5,))
    assert POLICIES["imagenet"].normalisation == Normalisation((0.485, 0.456, 0.406), (0.228, 0.224, 0.225))


def test_a_normalisation_of_three_channels_is_averaged_for_one_and_one_is_repeated_for_three() -> None:
    grey = POLICIES["imagenet"].normalisation.for_channels(1)
    assert grey.mean == pytest.approx((0.449,))
    assert grey.std == pytest.approx((0.677 / 3,))
    assert Normalisation((0.5,), (0.25,)).for_channels(3) == Normalisation((0.5,) * 3, (0.25,) * 3)


def test_every_policy_is_named_by_its_key_argued_and_survives_json() -> None:
    for key, policy in POLICIES.items():
        assert policy.name == key
        assert policy.reason
        stored = json.loads(json.dumps(dataclasses.asdict(policy)))
        stored["normalisation"] = Normalisation(**stored["normalisation"])
        assert AugmentationPolicy(**stored) == policy


def test_every_number_lies_within_the_sliders_range_or_is_off_in_the_projects_own_policies() -> None:
    for name in ("ssl", "soft", "supervised"):
        for item in magnitude_fields():
            value = getattr(POLICIES[name], item.name)
            unused = value == item.default
            low, high = spec_of(item).slider or (0, 1)
            assert unused or low <= value <= high, (name, item.name)


def test_every_number_carries_what_a_slider_needs_and_legal_limits_hold_its_range() -> None:
    for item in magnitude_fields():
        spec = spec_of(item)
        assert spec.unit and spec.why and spec.group and spec.slider
        assert spec.low <= spec.slider[0] < spec.slider[1] <= spec.high, item.name


def test_a_whole_number_given_for_a_float_makes_the_same_record() -> None:
    records = [
        json.dumps(dataclasses.asdict(get_policy("ssl", {"flip_prob": value}))["flip_prob"]) for value in (1, 1.0)
    ]
    assert records[0] == records[1]


def test_colour_operations_are_reported_inert_on_one_channel_and_active_on_three() -> None:
    policy = POLICIES["imagenet"]
    assert policy.inert_operations(1) == ("saturation", "hue", "grayscale")
    assert policy.inert_operations(3) == ()
    rows = {row.operation: row for row in describe(policy, channels=1)}
    assert rows["hue"].effect == "none"
    assert rows["contrast"].effect == "changes it"


def test_describe_lists_what_is_enabled_with_probability_and_units() -> None:
    rows = {row.operation: row for row in POLICIES["ref"].describe()}
    assert list(rows) == ["affine", "crop", "flip", "brightness", "contrast", "invert"]
    assert rows["affine"].probability == 0.5
    assert rows["affine"].magnitude == "rotation ±10°"
    assert rows["brightness"].magnitude == "factor 0.8–1.2"
    assert POLICIES["none"].describe() == ()


def test_an_operation_with_a_probability_but_no_magnitude_is_not_enabled() -> None:
    policy = AugmentationPolicy(name="x", reason="", jitter_prob=1, gamma_prob=1, noise_prob=1, affine_prob=1)
    assert policy.enabled_operations() == ()


def test_changes_alter_only_the_fields_named_and_the_name_tells_of_them() -> None:
    policy = get_policy("ssl", {"rotation_deg": 3, "invert_prob": 0})
    assert policy == dataclasses.replace(
        POLICIES["ssl"], name="ssl with invert_prob=0, rotation_deg=3", rotation_deg=3.0, invert_prob=0.0
    )
    assert get_policy("ssl") is POLICIES["ssl"]


@pytest.mark.parametrize(
    ("name", "changes", "message"),
    [
        ("sll", {}, r"policy must be one of none, ref, .*got 'sll'"),
        ("ssl", {"flip": 0.5}, r"field must be one of crop_scale_min, .*got 'flip'"),
        ("ssl", {"name": 1}, r"field must be one of .*got 'name'"),
        ("ssl", {"flip_prob": 1.5}, r"flip_prob must be a number between 0 and 1, got 1.5"),
        ("ssl", {"gamma": float("nan")}, r"gamma must be a number between 0 and 4, got nan"),
        ("ssl", {"randaugment_ops": 1.5}, r"randaugment_ops must be a whole number between 0 and 4, got 1.5"),
        ("ssl", {"zoom_min": 1.2}, r"zoom_min must be at most zoom_max=1, got 1.2"),
        ("none", {"crop_ratio_max": 2, "crop_ratio_min": 2}, r"crop_scale_min must be at most 0.5 .*got 1"),
    ],
)
def test_a_mistake_gets_one_sentence_with_the_value_and_what_was_expected(
    name: str, changes: dict[str, float], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        get_policy(name, changes)


@pytest.mark.parametrize(("mean", "std"), [((0.5,), (0.5, 0.5)), ((0.5, 0.5), (0.5, 0.5)), ((0.5,), (0.0,))])
def test_a_normalisation_of_odd_lengths_or_no_spread_is_refused(
    mean: tuple[float, ...], std: tuple[float, ...]
) -> None:
    with pytest.raises(ValueError, match="must"):
        Normalisation(mean, std)
