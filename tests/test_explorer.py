"""The explorer without a browser: every control changes the picture, and what it says is true."""

from __future__ import annotations

import io
import re
from dataclasses import replace

import ipywidgets as widgets
import numpy as np
import pytest
import torch
from conftest import texture_dataset
from PIL import Image

from cxr_helpers import explore_augmentations
from cxr_helpers.augment import POLICIES, TwoViews, draw_table, magnitude_fields
from cxr_helpers.augment.parts import field_groups
from cxr_helpers.data import Dataset
from cxr_helpers.explorer import NUM_VIEWS, Explorer


@pytest.fixture
def explorer(textures: Dataset) -> Explorer:
    made = explore_augmentations(textures, policy="ssl")
    assert isinstance(made, Explorer)
    return made


def _code(explorer: Explorer) -> object:
    return eval(explorer.code.value, {"replace": replace, "POLICIES": POLICIES})


def test_the_picture_is_a_png_of_the_original_and_six_views(explorer: Explorer) -> None:
    picture = Image.open(io.BytesIO(explorer.picture.value))
    assert picture.format == "PNG" and 1000 < picture.width <= 1280
    assert len(explorer.sheet.after) == NUM_VIEWS == 6


def test_there_is_a_control_for_every_field_grouped_by_operation_and_reaching_every_policy(explorer: Explorer) -> None:
    assert set(explorer.controls) == {item.name for item in magnitude_fields()}
    (grid,) = explorer.children[-1].children
    assert len(grid.children) == len(field_groups())
    for policy in POLICIES.values():
        for name, control in explorer.controls.items():
            assert control.min <= getattr(policy, name) <= control.max, (policy.name, name)
    for item in magnitude_fields():
        assert item.metadata["minimum"] <= explorer.controls[item.name].min
        assert explorer.controls[item.name].max <= item.metadata["maximum"]


@pytest.mark.parametrize(
    ("field", "value"), [("invert_prob", 1.0), ("crop_scale_min", 0.9), ("rotation_deg", 20.0), ("randaugment_ops", 3)]
)
def test_a_moved_slider_changes_the_picture_and_the_policy(explorer: Explorer, field: str, value: float) -> None:
    before = explorer.picture.value
    explorer.controls[field].value = value
    assert explorer.picture.value != before
    assert explorer.policy == replace(POLICIES["ssl"], **{field: value})


@pytest.mark.parametrize("field", ["hue", "saturation", "gray_prob"])
def test_colour_on_one_channel_leaves_the_picture_as_it_is_and_says_so(explorer: Explorer, field: str) -> None:
    before = explorer.picture.value
    explorer.controls[field].value = 0.1
    assert explorer.picture.value == before
    assert "cannot change a one-channel image" in explorer.notes[field].value
    assert "one-channel" not in explorer.notes["gamma"].value


def test_colour_on_three_channels_changes_the_picture() -> None:
    made = explore_augmentations(texture_dataset(channels=3), policy="ref")
    before = made.picture.value
    made.controls["hue"].value = 0.1
    assert made.picture.value != before and "one-channel" not in made.notes["hue"].value


def test_class_image_and_seed_choose_what_is_shown(explorer: Explorer, textures: Dataset) -> None:
    seen = {explorer.picture.value}
    explorer.choose_class.value = "pneumonia"
    own = (textures.train.labels == 1).nonzero().flatten()
    assert explorer.index == int(own[0]) and explorer.choose_image.max == len(own) - 1
    explorer.choose_image.value = 3
    assert explorer.index == int(own[3])
    assert f"image {int(own[3])}: pneumonia" in explorer.about.value
    seen.add(explorer.picture.value)
    explorer.choose_seed.value = 5
    seen.add(explorer.picture.value)
    assert len(seen) == 3
    explorer.choose_class.value = "any class"
    assert explorer.choose_image.max == len(textures.train) - 1


def test_labels_that_may_occur_together_can_be_chosen_from_and_so_can_none() -> None:
    made = explore_augmentations(texture_dataset("multilabel"))
    assert list(made.choose_class.options) == ["any class", "x", "y", "z", "no finding"]
    made.choose_class.value = "no finding"
    assert "no finding" in made.about.value


def test_the_views_are_those_of_a_run_with_that_seed(textures: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    made = explore_augmentations(textures, policy="ref", index=7, seed=3)
    shown: list[torch.Tensor] = []
    monkeypatch.setattr(made.sheet, "show", lambda original, views, name: shown.append(views))
    made.resample.click()
    for later in range(3):
        draws = draw_table(len(textures.train), 2, 3, 3 + later)[7:8]
        expected = torch.cat(TwoViews(POLICIES["ref"], 64)(textures.train.images[7:8], draws))
        torch.testing.assert_close(shown[0][2 * later : 2 * later + 2], expected)


def test_resample_changes_the_views_and_nothing_else(explorer: Explorer) -> None:
    before, policy = explorer.picture.value, explorer.policy
    explorer.resample.click()
    assert explorer.picture.value != before and explorer.policy == policy


def test_reset_brings_every_slider_and_the_picture_back(explorer: Explorer) -> None:
    before = explorer.picture.value
    for field, value in (("gamma", 0.9), ("noise_std", 0.1), ("zoom_min", 0.8)):
        explorer.controls[field].value = value
    explorer.reset.click()
    assert explorer.policy == POLICIES["ssl"] and explorer.picture.value == before


def test_another_policy_sets_every_slider_and_draws_once(explorer: Explorer, monkeypatch: pytest.MonkeyPatch) -> None:
    drawn: list[int] = []
    draw = explorer._draw
    monkeypatch.setattr(explorer, "_draw", lambda: (drawn.append(1), draw()))
    explorer.choose_policy.value = "imagenet"
    assert explorer.policy == POLICIES["imagenet"] and len(drawn) == 1


def test_the_line_of_code_makes_the_very_policy(explorer: Explorer) -> None:
    assert _code(explorer) == POLICIES["ssl"]
    explorer.controls["gamma"].value = 0.30000000000000004  # what a slider's steps add up to
    explorer.controls["randaugment_ops"].value = 2
    assert explorer.code.value == 'replace(POLICIES["ssl"], gamma=0.3, randaugment_ops=2)'
    assert _code(explorer) == explorer.policy
    assert "gamma=0.3" in explorer.copy.value and 'data-code="replace(POLICIES[&quot;ssl&quot;]' in explorer.copy.value
    explorer.choose_policy.value = "imagenet"
    assert _code(explorer) == explorer.policy == POLICIES["imagenet"]


def test_a_value_outside_of_the_range_for_chest_films_is_said_with_its_reason(explorer: Explorer) -> None:
    assert "outside" not in explorer.notes["brightness"].value
    explorer.controls["brightness"].value = 0.8
    assert "outside 0 to 0.5" in explorer.notes["brightness"].value
    assert "above .5 lungs clip to white" in explorer.notes["brightness"].value
    for item in magnitude_fields():
        assert item.metadata["unit"] in explorer.notes[item.name].value


def test_numbers_that_contradict_each_other_are_said_in_place_and_the_picture_stays(explorer: Explorer) -> None:
    before, policy = explorer.picture.value, explorer.policy
    explorer.controls["zoom_min"].value = 1.1
    assert "zoom_min must be at most zoom_max=1, got 1.1" in explorer.message.value
    assert explorer.picture.value == before and explorer.policy == policy
    explorer.controls["zoom_max"].value = 1.2
    assert explorer.message.value == "" and explorer.policy.zoom_min == 1.1


def test_a_browser_that_moves_every_value_to_a_step_changes_no_policy(explorer: Explorer) -> None:
    for name, policy in POLICIES.items():
        explorer.choose_policy.value = name
        with explorer._together():
            for control in explorer.controls.values():
                assert control.min / control.step == pytest.approx(round(control.min / control.step))
                control.value = control.min + round((control.value - control.min) / control.step) * control.step
        assert explorer.policy == policy and explorer.code.value == f'replace(POLICIES["{name}"])'
    explorer.controls["crop_ratio_max"].value = 1.41  # one step from where a browser put 4/3
    assert explorer.policy.crop_ratio_max == 1.41


def test_a_pasted_line_moves_the_sliders_even_beyond_their_ends(explorer: Explorer) -> None:
    before = explorer.picture.value
    explorer.code.value = "replace(POLICIES['imagenet'], rotation_deg=90, noise_std=0.0333)"
    assert explorer.policy == replace(POLICIES["imagenet"], rotation_deg=90, noise_std=0.0333)
    assert explorer.choose_policy.value == "imagenet" and explorer.picture.value != before
    assert explorer.controls["rotation_deg"].max == explorer.controls["rotation_deg"].value == 90
    assert "outside 0 to 20" in explorer.notes["rotation_deg"].value
    explorer.reset.click()
    assert explorer.policy == POLICIES["imagenet"]


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ('replace(POLICIES["ssl"], rotation_deg=500)', "rotation_deg must be a number between 0 and 180, got 500.0?."),
        ('replace(POLICIES["ssl"], rotate=5)', "field must be one that has a slider, got rotate."),
        ('replace(POLICIES["sll"])', "policy must be one of none, .* got .*sll"),
        ("import os", "the line must be like replace"),
    ],
)
def test_a_wrong_line_is_answered_in_one_sentence_and_nothing_moves(explorer: Explorer, line: str, said: str) -> None:
    before, policy = explorer.picture.value, explorer.policy
    explorer.code.value = line
    assert re.search(f">Not taken over: {said}", explorer.message.value)
    assert explorer.picture.value == before and explorer.policy == policy
    explorer.controls["gamma"].value = 0.35
    assert explorer.message.value == "" and explorer.code.value.endswith("gamma=0.35)")


def test_views_may_be_larger_than_the_images_are(textures: Dataset) -> None:
    made = explore_augmentations(textures, size=224)
    assert "224 px" in made.about.value and len(made.picture.value) > 0


def test_one_image_can_be_explored_and_none_is_said_in_a_sentence(textures: Dataset) -> None:
    one = replace(textures, train=textures.train.take([4]))
    made = explore_augmentations(one, index=9)
    assert made.choose_image.max == 0 and made.choose_image.disabled and made.picture.value
    assert "the only image here: there is no other to choose" in made.about.value
    none = explore_augmentations(replace(textures, train=textures.train.take(torch.tensor([], dtype=torch.long))))
    assert isinstance(none, widgets.HTML) and "has no images" in none.value


def test_float_images_and_what_is_no_data_set_are_answered_in_one_sentence(textures: Dataset) -> None:
    split = replace(textures.train)
    object.__setattr__(split, "images", split.images / 255)
    for given, said in (
        (replace(textures, train=split), "the images of textures must be uint8 from 0 to 255, got torch.float32"),
        (split.images, "it takes a data set of load_dataset, whose images are uint8, got a Tensor of torch.float32"),
    ):
        made = explore_augmentations(given)
        assert isinstance(made, widgets.HTML) and said in made.value
        assert made.value.count(". ") == 0 and made.value.endswith(".")


def test_a_wrong_policy_or_split_is_refused(textures: Dataset) -> None:
    with pytest.raises(ValueError, match=r"policy must be one of none, .*got 'sll'"):
        explore_augmentations(textures, policy="sll")
    with pytest.raises(ValueError, match="split must be one of train, val, test, got 'dev'"):
        explore_augmentations(textures, split="dev")


def test_where_no_widget_can_live_it_says_what_it_is(explorer: Explorer) -> None:
    assert re.match(r"Explorer of textures, train: its sliders need a kernel", repr(explorer))


def test_the_difference_is_white_where_nothing_changed(textures: Dataset) -> None:
    made = explore_augmentations(textures, policy="none")
    drawn = np.asarray(made.sheet.drawn.get_array())
    side = (drawn.shape[0] - 3) // 2
    below = drawn[side + 3 :, :, :3].astype(int)  # the row of differences, behind the gap
    first = below[:, side + 3 : 2 * side + 3]
    assert np.abs(first - first[0, 0]).max() == 0 and first.min() > 240
