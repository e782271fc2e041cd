"""How alike views are: against planted truths, closed forms and torchvision's meaning of each number."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import torch
from samples import as_bytes, random_bytes, smooth_images

from cxr_helpers import similarity
from cxr_helpers.augment import POLICIES, AugmentationPolicy, Normalisation
from cxr_helpers.augment.sweep import SWEPT, TOGGLED, sweep
from cxr_helpers.models import build_backbone

NONE, SIZE = POLICIES["none"], 32


def _policy(**numbers: float) -> AugmentationPolicy:
    return AugmentationPolicy(name="planted", reason="", **numbers)  # type: ignore[arg-type]


# ---- one number swept


@pytest.mark.parametrize("field", [*SWEPT, *TOGGLED])
@pytest.mark.parametrize("channels", [1, 3])
def test_a_sweep_changes_the_image_unless_it_is_said_to_be_inert(field: str, channels: int) -> None:
    image = as_bytes(smooth_images(1, SIZE, channels))[0]
    swept = sweep(image, field, SIZE)
    assert swept.views.shape == (2 if field in TOGGLED else 7, channels, SIZE, SIZE)
    assert len(swept.values) == len(swept.captions) == len(swept.views)
    moved = float((swept.views - swept.views[0]).abs().max())
    assert (moved == 0) == swept.inert
    assert swept.inert == (channels == 1 and field in ("saturation", "hue", "gray_prob"))


def test_swept_brightness_multiplies_by_the_captions_factor() -> None:
    image = as_bytes(smooth_images(1, SIZE))[0]
    swept = sweep(image, "brightness", SIZE, steps=5)
    assert swept.values == (-0.5, -0.25, 0.0, 0.25, 0.5) and swept.captions[0] == "× 0.50"
    for value, view in zip(swept.values, swept.views, strict=True):
        torch.testing.assert_close(view, (image / 255 * (1 + value)).clamp(0, 1))


def test_swept_inversion_gamma_and_noise_do_what_their_captions_say() -> None:
    image = as_bytes(smooth_images(1, SIZE))[0]
    torch.testing.assert_close(sweep(image, "invert_prob", SIZE).views[1], 1 - image / 255)
    gamma = sweep(image, "gamma", SIZE, steps=3)
    assert gamma.captions == ("x^0.67", "x^1.00", "x^1.50")
    torch.testing.assert_close(gamma.views[2], (image / 255) ** 1.5, atol=1e-5, rtol=1e-5)
    noise = sweep(torch.full((1, 64, 64), 128, dtype=torch.uint8), "noise_std", 64, steps=3)
    assert noise.views.std((1, 2, 3)).numpy() == pytest.approx(noise.values, rel=0.05, abs=1e-6)


def test_sweeps_run_from_weak_to_strong_or_through_the_untouched_image_in_the_middle() -> None:
    image = as_bytes(smooth_images(1, SIZE))[0]
    for field in ("rotation_deg", "shift", "zoom_max", "contrast"):
        assert torch.allclose(sweep(image, field, SIZE).views[3], image / 255, atol=1e-4), field
    assert (
        sweep(image, "crop_scale_min", SIZE).values[0] == 1.0 and sweep(image, "crop_scale_min", SIZE).values[-1] == 0.2
    )


def test_an_unknown_field_and_a_single_step_are_refused() -> None:
    image = random_bytes(1)[0]
    with pytest.raises(ValueError, match=r"field must be one of .*got 'jitter_prob'"):
        sweep(image, "jitter_prob", 16)
    with pytest.raises(ValueError, match="steps must be at least 2, got 1"):
        sweep(image, "gamma", 16, steps=1)


# ---- two views


def test_identical_views_are_wholly_alike_and_every_own_view_is_found() -> None:
    table = similarity.view_similarities([NONE], random_bytes(8, SIZE), SIZE)
    assert table.same.to_numpy() == pytest.approx(1, abs=1e-5)
    assert table.found.all() and table.different.abs().max() < 0.2


def test_inversion_of_one_view_alone_turns_the_correlation_around() -> None:
    table = similarity.view_similarities([_policy(invert_prob=0.5)], random_bytes(64, SIZE), SIZE)
    np.testing.assert_allclose(table.same.abs(), 1, atol=1e-5)
    assert 0.25 < (table.same < 0).mean() < 0.75


def test_correlation_equals_numpys_and_is_zero_for_a_flat_view() -> None:
    images = random_bytes(3, SIZE)
    images[2] = 7
    table = similarity.view_similarities([NONE], images, SIZE)
    a, b = images[0].numpy().ravel(), images[1].numpy().ravel()
    assert table.different[0] == pytest.approx(np.corrcoef(a, b)[0, 1], abs=1e-5)
    assert table.same[2] == 0


def test_the_untrained_encoder_finds_identical_views_and_is_left_as_it_was(tiny_net: None) -> None:
    normalisation = Normalisation((0.5,), (0.5,))
    encoder = build_backbone("resnet18", channels=1, size=64, init="random", normalisation=normalisation, seed=0)
    encoder.train()
    images = as_bytes(smooth_images(6, 64))
    table = similarity.view_similarities([NONE], images, 64, encoder=encoder)
    rows = table[table.measure == "untrained encoder"]
    assert rows.found.all() and rows.same.to_numpy() == pytest.approx(1, abs=1e-4)
    assert rows.different.mean() < 0.5  # centred: not all nearly parallel
    assert encoder.training


def test_the_summary_means_over_images() -> None:
    table = pd.DataFrame(
        {
            "policy": "a",
            "measure": "pixels",
            "image": [0, 1],
            "same": [0.2, 0.6],
            "different": [0.0, 0.1],
            "found": [True, False],
        }
    )
    (row,) = similarity.similarity_summary(table).itertuples()
    assert (row.images, row.found) == (2, 0.5)
    assert (row.same, row.different) == pytest.approx((0.4, 0.05))


def test_one_image_has_nothing_to_be_compared_with() -> None:
    with pytest.raises(ValueError, match=r"images must be at least 2 .*got 1"):
        similarity.view_similarities([NONE], random_bytes(1, SIZE), SIZE)


# ---- single operations


def test_inversion_of_black_images_changes_every_pixel_by_the_whole_range() -> None:
    effects = similarity.operation_effects(
        [_policy(invert_prob=0.1, saturation=0.3, jitter_prob=1)], torch.zeros(4, 1, 16, 16, dtype=torch.uint8), 16
    ).set_index("operation")
    assert effects.mean_change["invert"] == effects.max_change["invert"] == 1
    assert effects.probability["invert"] == pytest.approx(0.1)
    assert effects.max_change["saturation"] == 0 and effects.apart["saturation"] == 0


@pytest.mark.parametrize("channels", [1, 3])
def test_what_describe_calls_inert_moves_no_pixel_and_everything_else_moves_some(channels: int) -> None:
    images = as_bytes(smooth_images(12, SIZE, channels))
    effects = similarity.operation_effects([POLICIES[n] for n in ("imagenet", "ssl", "student")], images, SIZE)
    assert ((effects.max_change == 0) == (effects.effect == "none")).all()
    assert (effects.effect == "none").sum() == (3 if channels == 1 else 0)


# ---- crops


def test_crops_of_the_whole_image_overlap_wholly() -> None:
    assert similarity.crop_overlaps([NONE], 50).iou.to_numpy() == pytest.approx(1, abs=1e-5)


def test_overlap_equals_counting_the_points_inside_both_windows(monkeypatch: pytest.MonkeyPatch) -> None:
    windows = iter([(0.0, 0.0, 0.5, 0.5), (0.5, 0.0, 0.5, 0.5), (-0.5, -0.5, 0.5, 0.5), (0.5, 0.5, 0.5, 0.5)])

    def planted(self: object, draws: torch.Tensor) -> tuple[torch.Tensor, ...]:
        return tuple(torch.full((len(draws),), value) for value in next(windows))

    monkeypatch.setattr(similarity.CropSampler, "__call__", planted)
    table = similarity.crop_overlaps([NONE, _policy(flip_prob=1)], 1)
    assert list(table.area_a) == [0.25, 0.25]
    assert list(table.shared) == pytest.approx([0.125, 0.0])  # half of the window; windows in opposite corners
    assert list(table.iou) == pytest.approx([1 / 3, 0.0])


def test_small_crops_share_less_than_large_ones_on_the_same_draws() -> None:
    table = similarity.crop_overlaps([POLICIES["imagenet"], POLICIES["soft"]], 2000)
    means = table.groupby("policy").iou.mean()
    assert means["imagenet"] < 0.6 < means["soft"]
    assert table.shared.max() <= table[["area_a", "area_b"]].min(axis=1).max() + 1e-6
    assert (table.shared <= table[["area_a", "area_b"]].min(axis=1) + 1e-6).all()


# ---- ranges


def test_views_are_within_zero_and_one_and_normalisation_can_be_undone() -> None:
    table = similarity.view_values([POLICIES["imagenet"], POLICIES["ref"]], random_bytes(6, SIZE), SIZE).set_index(
        "policy"
    )
    assert table.low.min() >= 0 and table.high.max() <= 1 and table.undone.max() < 1e-6
    assert table.encoder_low["ref"] == pytest.approx(2 * table.low["ref"] - 1)
    assert table.encoder_high["imagenet"] == pytest.approx((table.high["imagenet"] - 0.449) / (0.677 / 3), abs=1e-4)
