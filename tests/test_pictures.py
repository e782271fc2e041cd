"""Pictures show the films they are given; the slider holds every view of them, works offline and obeys no name."""

import base64
import html
import io
import json
import re
from typing import Any

import numpy as np
import torch
from PIL import Image
from samples import as_bytes, smooth_images

from cxr_helpers.augment import sweep_operation
from cxr_helpers.report import pictures

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
