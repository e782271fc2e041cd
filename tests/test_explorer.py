"""The explorer without a browser: every control changes the picture, and what it says is true."""

import html
import re
from dataclasses import replace

import pytest
import torch
from conftest import texture_dataset

from cxr_helpers import explore_augmentations
from cxr_helpers.augment import POLICIES, SPECS, TwoViews, draw_table
from cxr_helpers.data import Dataset
from cxr_helpers.report.explorer import Explorer


@pytest.fixture
def explorer(textures: Dataset) -> Explorer:
    return explore_augmentations(textures, policy="ssl")


def test_there_is_a_control_for_every_number_and_every_policy_is_made_as_its_line_of_code_says(
    explorer: Explorer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(explorer, "_draw", lambda: None)
    assert set(explorer.controls) == set(SPECS)
    for name, policy in POLICIES.items():
        explorer.choose_policy.value = name
        for field, control in explorer.controls.items():  # as a browser does
            assert control.min <= getattr(policy, field) <= control.max, (name, field)
            control.value = control.min + round((control.value - control.min) / control.step) * control.step
        assert explorer.policy == policy and f'replace(POLICIES["{name}"])' in html.unescape(explorer.code.value)
    explorer.controls["gamma"].value = 0.30000000000000004  # what a slider's steps add up to
    explorer.controls["randaugment_ops"].value = 2
    code = html.unescape(re.sub("</?code>", "", explorer.code.value))
    assert code == 'replace(POLICIES["supervised"], gamma=0.3, randaugment_ops=2)'
    assert eval(code, {"replace": replace, "POLICIES": POLICIES}) == explorer.policy


def test_a_moved_slider_changes_picture_and_policy_and_reset_brings_both_back(explorer: Explorer) -> None:
    before = explorer.picture.value
    explorer.controls["rotation_deg"].value = 20.0
    assert explorer.picture.value != before and explorer.picture.value[1:4] == b"PNG"
    assert explorer.policy == replace(POLICIES["ssl"], rotation_deg=20.0) and "need a kernel" in repr(explorer)
    explorer.reset.click()
    assert explorer.policy == POLICIES["ssl"] and explorer.picture.value == before


def test_colour_changes_three_channels_and_not_one_and_says_so(explorer: Explorer) -> None:
    for shown, changes in ((explorer, False), (explore_augmentations(texture_dataset(channels=3), policy="ssl"), True)):
        shown.controls["jitter_prob"].value = shown.controls["jitter_prob"].max
        drawn = shown.picture.value
        shown.controls["hue"].value = 0.1
        assert (shown.picture.value != drawn) == changes
        assert ("cannot change a one-channel image" in shown.notes["hue"].value) != changes


def test_class_and_image_choose_what_is_shown(explorer: Explorer, textures: Dataset) -> None:
    before, own = explorer.picture.value, (textures.train.labels == 1).nonzero().flatten()
    explorer.choose_class.value = "pneumonia"
    explorer.choose_image.value = 3
    assert explorer.choose_image.max == len(own) - 1 and explorer.picture.value != before
    assert f"image {int(own[3])}: pneumonia" in explorer.about.value


def test_the_views_are_those_of_a_run(textures: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    made = explore_augmentations(textures, policy="ref", index=7)
    shown: list[torch.Tensor] = []
    monkeypatch.setattr("cxr_helpers.report.explorer.views_png", lambda original, views: shown.append(views) or b"")
    made.resample.click()
    for later in range(3):
        draws = draw_table(len(textures.train), 2, 0, 3 + later)[7:8]
        expected = torch.cat(TwoViews(POLICIES["ref"], 64)(textures.train.images[7:8], draws))
        torch.testing.assert_close(torch.stack(shown[0][2 * later : 2 * later + 2]), expected)


def test_what_is_out_of_range_or_contradictory_is_said_in_place(explorer: Explorer) -> None:
    explorer.controls["brightness"].value = 0.8
    said = "outside 0 to 0.5, the range for chest X-rays: above .5 lungs clip to white"
    assert said in explorer.notes["brightness"].value
    before, policy = explorer.picture.value, explorer.policy
    explorer.controls["zoom_min"].value = 1.1
    assert "zoom_min must be at most zoom_max=1, got 1.1" in explorer.message.value
    assert explorer.picture.value == before and explorer.policy == policy
