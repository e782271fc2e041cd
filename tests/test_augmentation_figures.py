"""Notebook 02's figures and sentences: what they draw and say is what was measured."""

from __future__ import annotations

import io
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from conftest import texture_dataset
from PIL import Image
from samples import as_bytes, random_bytes, smooth_images

from cxr_helpers import plots, similarity
from cxr_helpers.augment import POLICIES
from cxr_helpers.augment.parts import ALL_OPERATIONS
from cxr_helpers.augment.sweep import sweep
from cxr_helpers.plots.images import grey_tile, mosaic
from cxr_helpers.report import prose_augmentations as prose

SIZE = 32
TWO = [POLICIES["imagenet"], POLICIES["soft"]]


@pytest.fixture(scope="module")
def images() -> torch.Tensor:
    return as_bytes(smooth_images(12, SIZE))


@pytest.fixture(scope="module")
def effects(images: torch.Tensor) -> pd.DataFrame:
    return similarity.operation_effects(TWO, images, SIZE)


# ---- figures


def test_tiles_show_stored_greys_unstretched_and_apart() -> None:
    dark = torch.full((1, 20, 20), 0.2)
    assert np.unique(grey_tile(dark)).tolist() == [51]
    drawn = mosaic([[grey_tile(dark), grey_tile(dark + 0.2)]])
    assert drawn.shape == (20, 41, 4) and (drawn[:, 20, :3] == 255).all() and (drawn[:, 21, :3] == 102).all()


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("size", [28, 224])
def test_a_sheet_of_views_draws_any_size_and_shows_what_it_was_given_last(channels: int, size: int) -> None:
    original = smooth_images(1, size, channels)[0]
    sheet = plots.ViewsSheet(3)
    pictures = []
    for factor in (1.0, 0.5):
        sheet.show(original, (factor * original).expand(3, -1, -1, -1))
        pictures.append(sheet.png())
    assert pictures[0] != pictures[1]
    assert Image.open(io.BytesIO(pictures[0])).mode == "RGB"


def test_the_histogram_under_a_view_holds_its_shares_beside_the_originals() -> None:
    original = torch.full((1, 16, 16), 0.25)
    views = torch.stack([torch.full((1, 16, 16), 0.75), torch.cat([torch.zeros(1, 8, 16), torch.ones(1, 8, 16)], 1)])
    sheet = plots.ViewsSheet(2)
    sheet.show(original, views)
    before, first, second = (p.get_data().values for p in (sheet.before[1], *sheet.after))
    assert before.argmax() == 16 and before.max() == 1
    assert first.argmax() == 48
    assert second[0] == second[-1] == pytest.approx(np.sqrt(0.5))  # half of the pixels each, square roots of shares


def test_views_unlike_the_original_are_refused() -> None:
    with pytest.raises(ValueError, match=r"views must be \[2, 1, 8, 8\] like the original, got \[3, 1, 8, 8\]"):
        plots.ViewsSheet(2).show(torch.zeros(1, 8, 8), torch.zeros(3, 1, 8, 8))


def test_the_sheet_of_policies_has_a_row_for_each_and_one_for_the_images(images: torch.Tensor) -> None:
    views = {p.name: similarity.views_of(p, images[:2], SIZE, num_views=3) for p in TWO}
    figure = plots.plot_policies(images[:2] / 255, views, ["a", "b"])
    assert [text.get_text() for text in figure.texts] == ["the image", "imagenet", "soft"]
    assert [text.get_text() for text in figure.axes[0].texts] == ["a", "b"]
    last = np.asarray(figure.axes[-1].images[0].get_array())
    np.testing.assert_array_equal(last[:, :SIZE, :3], grey_tile(views["soft"][0, 0]))


def test_the_sheet_of_sweeps_names_units_and_marks_what_does_nothing(images: torch.Tensor) -> None:
    sweeps = [sweep(images[0], field, SIZE, steps=4) for field in ("gamma", "hue", "flip_prob", "gray_prob")]
    texts = [text.get_text() for text in plots.plot_sweeps(sweeps).texts]
    assert "gamma\nexponent to 1 + value" in texts and "without a strength" in texts
    assert sum("nothing changes" in text for text in texts) == 1
    captions = [t.get_text() for t in plots.plot_sweeps(sweeps).axes[-1].texts]
    assert captions == ["the image", "flip", "grayscale (nothing)"]


def test_histograms_before_and_after_are_shares_that_sum_to_one(images: torch.Tensor) -> None:
    inverted = {"inverted": 1 - images / 255}
    (axis,) = plots.plot_histograms(images / 255, inverted).axes
    (line,) = axis.lines
    expected = 100 * np.histogram(1 - images.numpy() / 255, bins=64, range=(0, 1))[0] / images.numel()
    np.testing.assert_allclose(np.asarray(line.get_ydata(), float), expected, atol=0.02)


def test_similarity_is_drawn_for_every_policy_and_measure_with_the_share_found(images: torch.Tensor) -> None:
    alike = similarity.view_similarities([POLICIES["none"], *TWO], images, SIZE)
    overlaps = similarity.crop_overlaps([POLICIES["none"], *TWO], 100)
    figure = plots.plot_similarity(alike, overlaps)
    figure.savefig(io.BytesIO(), format="png", dpi=40)
    assert len(figure.axes) == 2
    assert [t.get_text() for t in figure.axes[0].get_yticklabels()] == ["none", "imagenet", "soft"]
    assert "100 %" in [t.get_text() for t in figure.axes[0].texts]
    for axis in figure.axes:
        assert axis.get_xlabel()


def test_effects_are_written_and_nothing_is_called_none(effects: pd.DataFrame) -> None:
    figure = plots.plot_operation_effects(effects)
    written = [[t.get_text() for t in axis.texts] for axis in figure.axes]
    assert written[0].count("none") == written[1].count("none") == 3
    flip = effects[(effects.operation == "flip") & (effects.policy == "soft")].mean_change.item()
    assert f"{100 * flip:.1f}" in written[0]
    rows = [t.get_text() for t in figure.axes[0].get_yticklabels()]
    assert rows == [name for name in ALL_OPERATIONS if name in set(effects.operation)]
    assert not {"0.00", "0.0"} & {text for texts in written for text in texts}


# ---- tables


@pytest.mark.parametrize("channels", [1, 3])
def test_every_operation_has_its_lesson(channels: int) -> None:
    table = prose.lessons_table(channels)
    assert tuple(table.operation) == ALL_OPERATIONS == tuple(prose.LESSONS)
    assert (table.map(len) > 0).all(axis=None)
    assert list(table.iloc[:, -1]).count("none") == (3 if channels == 1 else 0)


def test_decisions_say_what_was_removed_added_changed_and_kept_with_a_reason() -> None:
    table = prose.decisions_table(POLICIES["imagenet"], POLICIES["ssl"]).set_index("operation")
    assert table.decision["solarize"] == table.decision["hue"] == "removed"
    assert table.decision["invert"] == table.decision["affine"] == "added"
    assert table.decision["crop"] == "changed" and table.decision["flip"] == table.decision["contrast"] == "kept"
    assert table.why["hue"] == "cannot change such an image" and "order of greys" in table.why["solarize"]
    assert "may share no lung" in table.why["crop"] and (table.why.str.len() > 0).all()
    assert "randaugment" not in table.index and table.ssl["invert"] == "1 - x; p 0.2"


def test_the_table_of_policies_has_the_used_fields_with_reasons_and_a_dash_elsewhere() -> None:
    table = prose.policies_table(TWO).set_index("field")
    assert table.imagenet["crop_scale_min"] == "0.08" and table.soft["blur_prob"] == "–"
    assert "randaugment_ops" not in table.index and (table["why this range"].str.len() > 0).all()


def test_examples_are_one_image_of_each_kind() -> None:
    data = texture_dataset()
    found = prose.example_images(data)
    assert list(found) == ["normal", "pneumonia"]
    assert [int(data.train.labels[i]) for i in found.values()] == [0, 1]
    many = texture_dataset("multilabel")
    found = prose.example_images(many)
    assert [bool(many.train.labels[i].any()) for i in found.values()] == [False, True]


# ---- sentences


def test_what_does_nothing_is_read_from_the_measurement_and_held_against_the_description(effects: pd.DataFrame) -> None:
    text = prose.reading_of_effects(effects, 12)
    assert "`saturation`, `hue` and `grayscale`, just as `describe` states" in text and "of 12 images" in text
    planted = effects.copy()
    planted.loc[planted.operation == "flip", "max_change"] = 0.0
    assert "one of the two is wrong" in prose.reading_of_effects(planted, 12)
    assert "none, and `describe` names none" in prose.reading_of_effects(effects[effects.policy == "soft"], 12)


def test_the_most_and_least_alike_policies_are_named_with_their_figures() -> None:
    rows = [("a", 0.9, 0.1, 0.75), ("b", -0.004, 0.2, 0.04), ("c", 0.5, -0.3, 0.5)]
    summary = pd.DataFrame(rows, columns=["policy", "same", "different", "found"]).assign(measure="pixels", images=50)
    text = prose.reading_of_similarity(summary)
    assert (
        "most alike under `a` (mean 0.90, against 0.10 for two images) and least under `b` (0.00 against 0.20)" in text
    )
    assert "75 % of the images under `a` and 4 % under `b`; guessing finds 2.0 %" in text


def test_overlaps_are_read_as_median_little_and_nothing() -> None:
    overlaps = pd.DataFrame({"policy": ["a"] * 4 + ["b"] * 4, "iou": [0, 0.05, 0.5, 0.6, 1, 1, 1, 1]})
    text = prose.reading_of_overlaps(overlaps)
    assert "over 4 pairs" in text and "`a` 0.28 (50.0 %, 25.0 %); `b` 1.00 (0.0 %, 0.0 %)" in text


def test_ranges_are_read_from_the_table() -> None:
    values = similarity.view_values(TWO, random_bytes(4, SIZE), SIZE)
    text = prose.reading_of_values(values, 4)
    assert "Views of 4 images under 2 policies lie between 0.00 and 1.00" in text and "−1.99 to 2.44 under" in text


def test_what_is_lost_at_black_and_white_is_counted() -> None:
    images = torch.full((2, 1, SIZE, SIZE), 100, dtype=torch.uint8)
    images[0, :, : SIZE // 2] = 255
    before = similarity.view_values([POLICIES["none"]], images, SIZE)
    burnt = replace(POLICIES["none"], name="inverts", invert_prob=1)
    text = prose.reading_of_greys(similarity.view_values([burnt], images, SIZE), before)
    assert "0.0 % and 25.0 % of the images' pixels" in text
    assert "`inverts` 25.0 % and 0.0 %. Most is lost under `inverts`, where 25.0 %" in text


def test_the_decision_names_every_operation_once(effects: pd.DataFrame) -> None:
    decisions = prose.decisions_table(POLICIES["imagenet"], POLICIES["soft"])
    text = prose.reading_of_decisions(decisions, effects)
    assert text.startswith("From `imagenet` to `soft`: removed `saturation`, `hue`, `grayscale`, `blur` and `solarize`")
    assert "added `affine` and `noise`" in text and "changed no pixel" in text
