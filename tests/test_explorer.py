"""The explorer without a browser: every control changes the picture, and what it says is true."""

from __future__ import annotations

import html
import io
import re
from dataclasses import replace

import pytest
import torch
from conftest import texture_dataset
from PIL import Image

from cxr_helpers import explore_augmentations
from cxr_helpers.augment import POLICIES, TwoViews, draw_table, field_groups, magnitude_fields
from cxr_helpers.data import Dataset
from cxr_helpers.fields import spec_of
from cxr_helpers.report.explorer import Explorer


@pytest.fixture
def explorer(textures: Dataset) -> Explorer:
    return explore_augmentations(textures, policy="ssl")


def _code(explorer: Explorer) -> str:
    return html.unescape(re.sub("</?code>", "", explorer.code.value))


def test_there_is_a_control_for_every_field_and_it_reaches_every_policy_on_whole_steps(explorer: Explorer) -> None:
    assert set(explorer.controls) == {item.name for item in magnitude_fields()}
    (grid,) = explorer.children[-1].children
    assert len(grid.children) == len(field_groups())
    for policy in POLICIES.values():
        for name, control in explorer.controls.items():
            assert control.min <= getattr(policy, name) <= control.max, (policy.name, name)
    for item in magnitude_fields():
        control = explorer.controls[item.name]
        assert spec_of(item).low <= control.min < control.max <= spec_of(item).high
        assert control.min / control.step == pytest.approx(round(control.min / control.step))


@pytest.mark.parametrize(
    ("field", "value"), [("invert_prob", 1.0), ("crop_scale_min", 0.9), ("rotation_deg", 20.0), ("randaugment_ops", 3)]
)
def test_a_moved_slider_changes_the_picture_and_the_policy(explorer: Explorer, field: str, value: float) -> None:
    before = explorer.picture.value
    explorer.controls[field].value = value
    assert explorer.picture.value != before
    assert explorer.policy == replace(POLICIES["ssl"], **{field: value})
    assert Image.open(io.BytesIO(explorer.picture.value)).format == "PNG" and "need a kernel" in repr(explorer)


def test_colour_changes_three_channels_and_not_one_and_says_so(explorer: Explorer) -> None:
    for shown, changes in ((explorer, False), (explore_augmentations(texture_dataset(channels=3), policy="ssl"), True)):
        before = shown.picture.value
        shown.controls["jitter_prob"].value = shown.controls["jitter_prob"].max
        drawn = shown.picture.value
        shown.controls["hue"].value = 0.1
        assert (shown.picture.value != drawn) == changes and drawn != before
        assert ("cannot change a one-channel image" in shown.notes["hue"].value) != changes
        assert "one-channel" not in shown.notes["gamma"].value


def test_class_image_and_seed_choose_what_is_shown(explorer: Explorer, textures: Dataset) -> None:
    seen = {explorer.picture.value}
    explorer.choose_class.value = "pneumonia"
    own = (textures.train.labels == 1).nonzero().flatten()
    assert explorer.choose_image.max == len(own) - 1
    explorer.choose_image.value = 3
    assert f"image {int(own[3])}: pneumonia" in explorer.about.value
    seen.add(explorer.picture.value)
    explorer.choose_seed.value = 5
    seen.add(explorer.picture.value)
    assert len(seen) == 3
    several = explore_augmentations(texture_dataset("multilabel"), size=224, index=999)
    assert list(several.choose_class.options) == ["any class", "x", "y", "z", "no finding"]
    assert "224 px" in several.about.value and several.choose_image.value == several.choose_image.max == 39


def test_the_views_are_those_of_a_run_with_that_seed(textures: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    made = explore_augmentations(textures, policy="ref", index=7, seed=3)
    shown: list[torch.Tensor] = []
    monkeypatch.setattr("cxr_helpers.report.explorer.views_png", lambda original, views: shown.append(views) or b"")
    made.resample.click()
    for later in range(3):
        draws = draw_table(len(textures.train), 2, 3, 3 + later)[7:8]
        expected = torch.cat(TwoViews(POLICIES["ref"], 64)(textures.train.images[7:8], draws))
        torch.testing.assert_close(torch.stack(shown[0][2 * later : 2 * later + 2]), expected)


def test_reset_draws_the_policy_once_and_resample_changes_the_views_alone(
    explorer: Explorer, monkeypatch: pytest.MonkeyPatch
) -> None:
    before, draw, drawn = explorer.picture.value, explorer._draw, []
    for field, value in (("gamma", 0.9), ("noise_std", 0.1), ("zoom_min", 0.8)):
        explorer.controls[field].value = value
    monkeypatch.setattr(explorer, "_draw", lambda: (drawn.append(1), draw()))
    explorer.reset.click()
    assert explorer.policy == POLICIES["ssl"] and explorer.picture.value == before and len(drawn) == 1
    explorer.resample.click()
    assert explorer.policy == POLICIES["ssl"] and explorer.picture.value != before


def test_the_line_of_code_makes_the_very_policy_without_the_noise_of_steps(explorer: Explorer) -> None:
    explorer.controls["gamma"].value = 0.30000000000000004  # what a slider's steps add up to
    explorer.controls["randaugment_ops"].value = 2
    assert _code(explorer) == 'replace(POLICIES["ssl"], gamma=0.3, randaugment_ops=2)'
    assert eval(_code(explorer), {"replace": replace, "POLICIES": POLICIES}) == explorer.policy
    for name, policy in POLICIES.items():
        explorer.choose_policy.value = name
        for control in explorer.controls.values():  # as a browser does
            control.value = control.min + round((control.value - control.min) / control.step) * control.step
        assert explorer.policy == policy and _code(explorer) == f'replace(POLICIES["{name}"])'


def test_a_value_outside_of_the_range_for_chest_films_is_said_with_its_reason(explorer: Explorer) -> None:
    assert "factor in 1 ±" in explorer.notes["brightness"].value and "outside" not in explorer.notes["brightness"].value
    explorer.controls["brightness"].value = 0.8
    said = "outside 0 to 0.5, the range for chest X-rays: above .5 lungs clip to white"
    assert said in explorer.notes["brightness"].value


def test_numbers_that_contradict_each_other_are_said_in_place_and_the_picture_stays(explorer: Explorer) -> None:
    before, policy = explorer.picture.value, explorer.policy
    explorer.controls["zoom_min"].value = 1.1
    assert "zoom_min must be at most zoom_max=1, got 1.1" in explorer.message.value
    assert explorer.picture.value == before and explorer.policy == policy
    explorer.controls["zoom_max"].value = 1.2
    assert explorer.message.value == "" and explorer.policy.zoom_min == 1.1


def test_what_cannot_be_explored_is_refused_in_a_sentence(textures: Dataset) -> None:
    none = replace(textures, train=textures.train.take(torch.tensor([], dtype=torch.long)))
    for given, settings, said in (
        (textures, {"policy": "sll"}, r"policy must be one of none, .*got 'sll'"),
        (textures, {"split": "dev"}, "split must be one of train, val, test, got 'dev'"),
        (none, {}, "the train split of textures must have images, got none"),
        (textures.train.images, {}, r"dataset must be one of load_dataset, .*got a Tensor"),
    ):
        with pytest.raises(ValueError, match=said):
            explore_augmentations(given, **settings)
