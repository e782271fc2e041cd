"""Pre-rendered views behind a slider: the pixels are those of the sweep, and a page shows what it is told, safely."""

from __future__ import annotations

import base64
import io
import json

import nbformat
import numpy as np
import pytest
import torch
from PIL import Image
from reports import assert_self_contained, code, head_output, notebook, picture, png, shown
from samples import as_bytes, smooth_images

from cxr_helpers.augment.sweep import Sweep, sweep
from cxr_helpers.plots.strips import TILE_PX, histogram_heights, view_strips
from cxr_helpers.profiles import get_profile
from cxr_helpers.report import with_slider
from cxr_helpers.report.pages import notebook_page
from cxr_helpers.report.slider import SLIDER, Sliding

NAME = '<b onclick="f()">&"x"'


@pytest.fixture(scope="module")
def sweeps() -> list[Sweep]:
    image = as_bytes(smooth_images(1, 64))[0]
    return [sweep(image, field, 64) for field in ("brightness", "hue", "flip_prob")]


def sheet() -> object:
    from IPython.display import Image as Shown

    return Shown(data=png(16), format="png", metadata={"alt": "all of them"})


@pytest.fixture(scope="module")
def sliding(sweeps: list[Sweep]) -> Sliding:
    return with_slider(sheet(), sweeps, about=NAME)  # type: ignore[arg-type]


def decoded(address: str) -> np.ndarray:
    kind, content = address.split(",")
    assert kind == "data:image/webp;base64"
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(content))).convert("RGB")).astype(int)


def pixels(webp: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(webp)).convert("RGB")).astype(int)


def test_strips_hold_the_views_in_order_and_their_differences() -> None:
    original = torch.full((1, 64, 64), 0.4)
    views = torch.stack([original, original + 0.3, original - 0.4])
    shown, differences = (pixels(content) for content in view_strips(original, views))
    assert shown.shape == differences.shape == (64, 192, 3)
    assert np.abs(shown[:, ::64].mean(axis=0) - np.array([[102], [178], [0]])).max() <= 1
    same, brighter, darker = differences[0, ::64]
    assert same.min() > 235 and brighter[0] > brighter[2] + 30 and darker[2] > darker[0] + 30


def test_small_views_keep_every_pixel_and_large_ones_are_reduced() -> None:
    noise = torch.randint(0, 256, (1, 64, 64), generator=torch.Generator().manual_seed(0)) / 255
    assert np.array_equal(pixels(view_strips(noise, noise[None])[0])[..., 0], (noise[0] * 255).round().int().numpy())
    large = smooth_images(1, TILE_PX + 32)[0]
    assert pixels(view_strips(large, large[None])[0]).shape == (TILE_PX, TILE_PX, 3)


def test_heights_are_square_roots_of_shares_that_sum_to_one() -> None:
    images = torch.stack([smooth_images(1, 64)[0], torch.full((1, 64, 64), 0.5)])
    smooth, flat = (np.array(heights) / 1000 for heights in histogram_heights(images))
    assert (smooth**2).sum() == pytest.approx(1, abs=0.02) and sorted(flat)[-2:] == [0, 1]


def test_a_notebook_keeps_the_sheet_for_those_who_cannot_slide(sliding: Sliding, sweeps: list[Sweep]) -> None:
    data, metadata = sliding._repr_mimebundle_()
    assert set(data) >= {"image/png", SLIDER} and "text/html" not in data
    nbformat.validate(notebook(code("f()", shown(json.loads(json.dumps(data)), **metadata))))
    operations = data[SLIDER]["operations"]
    assert [o["name"] for o in operations] == ["brightness", "hue", "flip"]
    for item, operation in zip(sweeps, operations, strict=True):
        views = decoded(operation["strips"][0]).reshape(64, len(item.views), 64, 3)[..., 0].transpose(1, 0, 2)
        assert np.abs(views - 255 * item.views[:, 0].numpy()).max() < 1
        assert len(operation["captions"]) == len(operation["heights"]) == len(item.views)
    original = decoded(data[SLIDER]["original"])[..., 0]
    assert np.abs(original - 255 * sweeps[2].views[0, 0].numpy()).max() < 1


def test_what_is_said_below_the_slider_is_the_fields_own(sliding: Sliding) -> None:
    brightness, hue, flip = (operation["note"] for operation in sliding.data["operations"])
    assert brightness == "factor in 1 ± value; range for chest X-rays 0 to 0.5: above .5 lungs clip to white."
    assert hue == "Cannot change a one-channel image." and flip.startswith("Applied or not, without a strength: either")


def test_sweeps_without_the_image_as_it_is_are_refused(sweeps: list[Sweep]) -> None:
    with pytest.raises(ValueError, match="one of flip_prob, invert_prob, gray_prob, got brightness, hue"):
        with_slider(sheet(), sweeps[:2], about="x")  # type: ignore[arg-type]


def test_a_page_holds_the_slider_and_the_sheet_and_obeys_no_name(sliding: Sliding) -> None:
    data, metadata = sliding._repr_mimebundle_()
    cells = [code("head()", head_output()), *[code("f()", shown(data, **metadata)) for _ in range(2)]]
    page = assert_self_contained(notebook_page(notebook(*cells, code("g()", picture(png()))), get_profile("cpu")).html)
    sliders = [attributes for attributes in page.named("div") if attributes.get("class") == "slider"]
    assert len(sliders) == 2 and len(page.named("select")) == 2 and len(page.named("option")) == 6
    stored = json.loads(str(sliders[0]["data-slider"]))
    assert stored["operations"][0]["captions"] == data[SLIDER]["operations"][0]["captions"]
    assert [a["alt"] for a in page.named("img")].count("all of them") == 2
    assert not page.named("b") and NAME in page.text and page.text.count("brightness") == 2
    ranges = [attributes for attributes in page.named("input") if attributes["type"] == "range"]
    assert len(ranges) == 2 and page.open.count("label") == 0
