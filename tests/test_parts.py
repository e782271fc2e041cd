"""Policies taken apart: single operations, differences, the line of code, notes on ranges."""

from __future__ import annotations

from dataclasses import replace

import pytest

from cxr_helpers.augment import POLICIES, AugmentationPolicy, magnitude_fields
from cxr_helpers.augment.parts import (
    ALL_OPERATIONS,
    alone,
    changed_fields,
    code_line,
    every_operation,
    field_groups,
    fields_of,
    inert_fields,
    range_notes,
)


def test_every_operation_is_listed_and_together_they_read_every_field() -> None:
    assert len(ALL_OPERATIONS) == 14 and ALL_OPERATIONS[0] == "affine" and ALL_OPERATIONS[-1] == "randaugment"
    read = {name for operation in ALL_OPERATIONS for name in fields_of(operation)}
    assert read == {item.name for item in magnitude_fields()}
    assert sum(len(items) for items in field_groups().values()) == len(magnitude_fields())


@pytest.mark.parametrize("operation", ALL_OPERATIONS)
def test_an_operation_alone_is_all_that_its_policy_can_do(operation: str) -> None:
    single = alone(every_operation(), operation)
    assert single.enabled_operations() == (operation,)


def test_an_operation_alone_keeps_its_probability_or_always_acts() -> None:
    assert alone(POLICIES["ssl"], "contrast") == AugmentationPolicy(
        name="contrast of ssl", reason=POLICIES["ssl"].reason, jitter_prob=0.8, contrast=0.4
    )
    assert alone(POLICIES["ssl"], "invert", always=True).invert_prob == 1
    assert alone(POLICIES["soft"], "invert").enabled_operations() == ()


def test_an_unknown_operation_is_refused_with_the_known_ones() -> None:
    with pytest.raises(ValueError, match=r"operation must be one of affine, .*got 'jitter'"):
        fields_of("jitter")


def test_only_colour_is_inert_and_only_on_one_channel() -> None:
    assert inert_fields(1) == ("saturation", "hue", "gray_prob")
    assert inert_fields(3) == ()


def test_changes_name_field_unit_both_values_and_reason() -> None:
    (change,) = changed_fields(POLICIES["ref"], replace(POLICIES["ref"], rotation_deg=25))
    assert (change.field, change.before, change.after, change.unit) == ("rotation_deg", 10.0, 25.0, "degrees, ±")
    assert change.reason and change.operation == "affine"


@pytest.mark.parametrize("base", POLICIES)
def test_the_line_of_code_makes_the_policys_numbers_from_any_base(base: str) -> None:
    for target in POLICIES.values():
        made = eval(code_line(base, target), {"replace": replace, "POLICIES": POLICIES})
        assert changed_fields(made, target) == ()
    assert code_line("ssl", replace(POLICIES["ssl"], gamma=0.5)) == 'replace(POLICIES["ssl"], gamma=0.5)'


def test_a_number_outside_of_its_range_is_noted_with_range_and_reason_and_no_other_is() -> None:
    notes = range_notes(POLICIES["imagenet"])
    assert list(notes) == ["crop_scale_min"]
    assert "0.2 to 1" in notes["crop_scale_min"] and "may share no lung" in notes["crop_scale_min"]
    assert range_notes(POLICIES["ssl"]) == {}
