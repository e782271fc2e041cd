"""The explorer and the slider without a browser: each control changes the picture, and what is said is true."""

import base64
import html
import io
import json
import re
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from conftest import texture_dataset
from PIL import Image
from samples import as_bytes, smooth_images

from cxr_helpers import explore_augmentations
from cxr_helpers.augment import POLICIES, SPECS, TwoViews, draw_table, sweep_operation
from cxr_helpers.data import Dataset
from cxr_helpers.report import pictures
from cxr_helpers.report.explorer import Explorer


@pytest.fixture
def explorer(textures: Dataset) -> Explorer:
    return explore_augmentations(textures, policy="ssl")


def test_controls_make_every_policy_as_its_code_says(explorer: Explorer, monkeypatch: pytest.MonkeyPatch) -> None:
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


def test_a_moved_slider_changes_picture_and_policy_within_reason_and_reset_undoes_it(explorer: Explorer) -> None:
    before = explorer.picture.value
    explorer.controls["rotation_deg"].value = 20.0
    assert explorer.picture.value != before and explorer.picture.value[1:4] == b"PNG"
    assert explorer.policy == replace(POLICIES["ssl"], rotation_deg=20.0) and "need a kernel" in repr(explorer)
    explorer.reset.click()
    assert explorer.policy == POLICIES["ssl"] and explorer.picture.value == before
    explorer.controls["brightness"].value = 0.8
    said = "outside 0 to 0.5, the range for chest X-rays: above .5 lungs clip to white"
    assert said in explorer.notes["brightness"].value
    before, policy = explorer.picture.value, explorer.policy
    explorer.controls["zoom_min"].value = 1.1
    assert "zoom_min must be at most zoom_max=1, got 1.1" in explorer.message.value
    assert explorer.picture.value == before and explorer.policy == policy


def test_colour_changes_three_channels_and_not_one_and_says_so(explorer: Explorer) -> None:
    for shown, changes in ((explorer, False), (explore_augmentations(texture_dataset(channels=3), policy="ssl"), True)):
        shown.controls["jitter_prob"].value = shown.controls["jitter_prob"].max
        drawn = shown.picture.value
        shown.controls["hue"].value = 0.1
        assert (shown.picture.value != drawn) == changes
        assert ("cannot change a one-channel image" in shown.notes["hue"].value) != changes


def test_the_chosen_image_is_shown_with_its_label(explorer: Explorer, textures: Dataset) -> None:
    before = explorer.picture.value
    explorer.choose_image.value = 3
    assert explorer.choose_image.max == len(textures.train) - 1 and explorer.picture.value != before
    assert f"image 3 (label {int(textures.train.labels[3])})" in explorer.about.value
    with pytest.raises(ValueError, match=r"dataset must be one of load_dataset, such as .*, got 'phantom'"):
        explore_augmentations("phantom")  # type: ignore[arg-type]


def test_the_views_are_those_of_a_run(textures: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    made = explore_augmentations(textures, policy="ref", index=7)
    shown: list[torch.Tensor] = []
    monkeypatch.setattr("cxr_helpers.report.explorer.views_png", lambda original, views: shown.append(views) or b"")
    made.resample.click()
    for later in range(3):
        draws = draw_table(len(textures.train), 2, 0, 3 + later)[7:8]
        expected = torch.cat(TwoViews(POLICIES["ref"], 64)(textures.train.images[7:8], draws))
        torch.testing.assert_close(torch.stack(shown[0][2 * later : 2 * later + 2]), expected)


FIELDS = ("rotation_deg", "crop_scale_min", "hue", "flip_prob")
EVIL = '<b onclick="f()">&"film"'


def test_a_sheet_shows_stored_greys_under_their_names_and_captions() -> None:
    dark = torch.full((1, 8, 8), 0.2)
    rows = {"floats": [(dark, "a")], "bytes": [(np.full((3, 8, 8), 51, np.uint8), "")]}
    figure = pictures.film_sheet(rows, foot="below")
    assert {int(np.unique(ax.images[0].get_array())[0]) for ax in figure.axes} == {51}  # type: ignore[arg-type]
    assert figure.axes[0].images[0].get_clim() == (0, 255) and figure.axes[0].get_title() == "a"
    assert [text.get_text() for text in figure.texts] == ["floats", "bytes", "below"]


def test_what_the_explorer_shows_is_the_film_its_views_and_what_they_changed() -> None:
    film = torch.full((1, 16, 16), 0.5)
    picture = Image.open(io.BytesIO(pictures.views_png(film, [film + 0.3, film - 0.3], side=20)))
    shown = np.asarray(picture).astype(int)
    assert shown.shape == (40, 60, 3) and [int(shown[5, x, 0]) for x in (5, 25, 45)] == [128, 204, 51]
    same, brighter, darker = shown[30, 5], shown[30, 25], shown[30, 45]
    assert same.min() > 240 and brighter[0] > brighter[2] + 30 and darker[2] > darker[0] + 30


def test_the_slider_holds_every_view_and_marks_what_each_policy_uses() -> None:
    images = as_bytes(smooth_images(2, 64))
    first, ill = ([sweep_operation(image, field, 64) for field in FIELDS] for image in images)
    page = pictures.slider_html({EVIL: first, "ill": ill}, ("ref", "soft"))
    found = re.search(r'data-slider="([^"]*)"', page)
    data: dict[str, Any] = json.loads(html.unescape(found[1])) if found else {}
    assert list(data["films"]) == [EVIL, "ill"] and EVIL not in page and len(page) < 90_000
    for item, address in zip(ill, data["films"]["ill"], strict=True):
        strip = Image.open(io.BytesIO(base64.b64decode(address.removeprefix("data:image/webp;base64,"))))
        views = np.asarray(strip.convert("L")).astype(int)[:64].reshape(64, -1, 64).transpose(1, 0, 2)
        assert np.abs(views - 255 * item.views[:, 0].numpy()).mean() < 3
    marks = {one["name"]: [mark["at"] for mark in one["marks"]] for one in data["operations"]}
    np.testing.assert_allclose(marks["rotation"], [[0.25, 0.75], [0.375, 0.625]])  # ±10° and ±5° of ±20°
    np.testing.assert_allclose(marks["crop scale"], [[0.625, 0], [0.375, 0]], atol=1e-5)  # .5 and .7 of 1 to .2
    assert marks["hue"] == marks["flip"] == [[], []]
    assert data["operations"][2]["note"] == "Cannot change a one-channel image."
