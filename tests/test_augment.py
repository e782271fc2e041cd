from __future__ import annotations

import dataclasses

import pytest
import torch
import torch.nn.functional as F
from samples import as_bytes, inside, random_bytes, smooth_images
from torch import Tensor
from torchvision.transforms.v2 import functional as tv

from cxr_helpers.augment import (
    NUM_DRAWS,
    POLICIES,
    Draw,
    Normalisation,
    OneView,
    TwoViews,
    draw_table,
    eval_transform,
    normalise,
)

OFF = POLICIES["none"]


# --- draws -------------------------------------------------------------------------------------------------


def test_the_table_depends_on_seed_and_epoch_alone_and_every_pair_has_its_own() -> None:
    tables = {(seed, epoch): draw_table(5, 2, seed, epoch) for seed in (0, 1, 2) for epoch in (0, 1, 2)}
    assert torch.equal(tables[1, 2], draw_table(5, 2, 1, 2))
    assert len({tuple(table.flatten().tolist()) for table in tables.values()}) == 9
    table = tables[0, 0]
    assert table.shape == (5, 2, NUM_DRAWS)
    assert table.dtype == torch.float32
    assert table.device.type == "cpu"
    assert table.min() >= 0
    assert table.max() < 1


def test_drawing_a_table_leaves_torchs_own_generator_alone() -> None:
    torch.manual_seed(3)
    expected = torch.rand(1)
    torch.manual_seed(3)
    draw_table(10, 2, 0, 0)
    assert torch.equal(torch.rand(1), expected)


def test_a_negative_seed_is_refused() -> None:
    with pytest.raises(ValueError, match="at least 0, got -1 and 0"):
        draw_table(1, 1, -1, 0)


# --- views -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("name", POLICIES)
def test_views_of_every_policy_are_float_within_the_range_and_differ_unless_nothing_is_drawn(
    name: str, channels: int
) -> None:
    images = random_bytes(8, 32, channels)
    x_a, x_b = TwoViews(POLICIES[name], 32)(images, draw_table(8, 2, 0, 0))
    for view in (x_a, x_b):
        assert view.shape == images.shape
        assert view.dtype == torch.float32
        assert view.min() >= 0
        assert view.max() <= 1
        assert view.isfinite().all()
    assert torch.equal(x_a, x_b) == (name == "none")
    if name == "none":
        assert torch.equal(x_a, images / 255)


@pytest.mark.parametrize("name", [name for name in POLICIES if POLICIES[name].noise_prob == 0])
def test_a_view_does_not_depend_on_the_batch_it_is_made_in(name: str) -> None:
    images, draws = random_bytes(9, 32, 3), draw_table(9, 2, 0, 0)
    views = TwoViews(POLICIES[name], 32)
    together = torch.stack(views(images, draws), 1)
    order = torch.tensor([8, 2, 0, 5])
    torch.testing.assert_close(torch.stack(views(images[order], draws[order]), 1), together[order])
    alone = torch.cat([torch.stack(views(images[i : i + 1], draws[i : i + 1]), 1) for i in range(9)])
    torch.testing.assert_close(alone, together)


def test_one_view_with_the_first_views_draws_is_the_first_of_two() -> None:
    images, draws = random_bytes(4), draw_table(4, 2, 0, 0)
    (x,) = OneView(POLICIES["ref"], 16)(images, draws[:, :1])
    assert torch.equal(x, TwoViews(POLICIES["ref"], 16)(images, draws)[0])
    assert OneView(OFF, 16).num_views == 1
    assert TwoViews(OFF, 16).num_views == 2


def test_pixel_noise_comes_from_the_generator_given_and_has_the_policys_deviation() -> None:
    policy = dataclasses.replace(OFF, noise_prob=1.0, noise_std=0.05)
    images, draws = torch.full((4, 1, 64, 64), 128, dtype=torch.uint8), draw_table(4, 2, 0, 0)
    views = [TwoViews(policy, 64)(images, draws, torch.Generator().manual_seed(s)) for s in (0, 0, 1)]
    assert torch.equal(views[0][0], views[1][0])
    assert not torch.equal(views[0][0], views[2][0])
    assert (views[0][0] - 128 / 255).std().item() == pytest.approx(0.05, rel=0.03)
    torch.manual_seed(5)
    default = TwoViews(policy, 64)(images, draws)
    torch.manual_seed(5)
    assert torch.equal(default[0], TwoViews(policy, 64)(images, draws)[0])


SINGLE: dict[str, dict[str, float]] = {
    "affine": {"affine_prob": 1.0, "rotation_deg": 10.0},
    "crop": {"crop_scale_min": 0.5, "crop_ratio_min": 0.75, "crop_ratio_max": 4 / 3},
    "flip": {"flip_prob": 1.0},
    "brightness": {"jitter_prob": 1.0, "brightness": 0.4},
    "contrast": {"jitter_prob": 1.0, "contrast": 0.4},
    "saturation": {"jitter_prob": 1.0, "saturation": 0.4},
    "hue": {"jitter_prob": 1.0, "hue": 0.1},
    "grayscale": {"gray_prob": 1.0},
    "gamma": {"gamma_prob": 1.0, "gamma": 0.4},
    "blur": {"blur_prob": 1.0, "blur_sigma_min": 0.5},
    "noise": {"noise_prob": 1.0, "noise_std": 0.05},
    "solarize": {"solarize_prob": 1.0},
    "invert": {"invert_prob": 1.0},
    "randaugment": {"randaugment_ops": 4},
}


def test_each_operation_has_a_case_below() -> None:
    everything = {key: value for values in SINGLE.values() for key, value in values.items()}
    assert dataclasses.replace(OFF, **everything).enabled_operations() == tuple(SINGLE)  # type: ignore[arg-type]


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("operation", SINGLE)
def test_an_operation_changes_the_image_unless_reported_inert_and_probability_0_removes_it(
    operation: str, channels: int
) -> None:
    policy = dataclasses.replace(OFF, **SINGLE[operation])  # type: ignore[arg-type]
    assert policy.enabled_operations() == (operation,)
    images, draws = random_bytes(6, 32, channels), draw_table(6, 2, 0, 0)
    view, _ = TwoViews(policy, 32)(images, draws)
    changed = ((view - images / 255).abs().amax((1, 2, 3)) > 1e-4).all().item()
    assert changed == (operation not in policy.inert_operations(channels))
    never = {key: 0.0 for key in SINGLE[operation] if key.endswith("_prob") or key == "randaugment_ops"}
    if never:
        off = dataclasses.replace(policy, **never)  # type: ignore[arg-type]
        assert torch.equal(TwoViews(off, 32)(images, draws)[0], images / 255)


@pytest.mark.parametrize(
    "operation", ["gamma", "blur", "noise", "solarize", "invert", "flip", "grayscale", "brightness", "affine"]
)
def test_an_operation_acts_on_the_share_of_images_that_its_probability_says(operation: str) -> None:
    values = {key: 0.3 if key.endswith("_prob") else value for key, value in SINGLE[operation].items()}
    policy = dataclasses.replace(OFF, **values)  # type: ignore[arg-type]
    images = random_bytes(1, 8, 3).expand(2000, -1, -1, -1)
    (view,) = OneView(policy, 8)(images, draw_table(2000, 1, 0, 0))
    changed = ((view - images / 255).abs().amax((1, 2, 3)) > 1e-4).float().mean().item()
    assert changed == pytest.approx(0.3, abs=0.035)  # 3.4 standard errors


def test_changing_one_operation_leaves_the_draws_of_the_others_alone() -> None:
    images, draws = as_bytes(smooth_images(4)), draw_table(4, 2, 0, 0)
    base = dataclasses.replace(POLICIES["ref"], brightness=0.0, contrast=0.0, invert_prob=0.0)
    inverted = dataclasses.replace(base, invert_prob=1.0)
    plain, opposite = TwoViews(base, 64)(images, draws)[0], TwoViews(inverted, 64)(images, draws)[0]
    torch.testing.assert_close(1 - plain, opposite)


def test_the_jitter_of_one_channel_applies_brightness_and_contrast_in_either_order() -> None:
    policy = dataclasses.replace(OFF, jitter_prob=1.0, brightness=0.4, contrast=0.4)
    images, draws = as_bytes(smooth_images(32, 16)), draw_table(32, 1, 0, 0)
    (view,) = OneView(policy, 16)(images, draws)
    b, c = (0.6 + 0.8 * draws[:, 0, column] for column in (Draw.BRIGHTNESS, Draw.CONTRAST))
    orders = {"b first": 0, "c first": 0}
    for i in range(32):
        x = images[i] / 255
        b_first = tv.adjust_contrast(tv.adjust_brightness(x, b[i].item()), c[i].item())
        c_first = tv.adjust_brightness(tv.adjust_contrast(x, c[i].item()), b[i].item())
        distance = {"b first": (view[i] - b_first).abs().max(), "c first": (view[i] - c_first).abs().max()}
        best = min(distance, key=lambda key: distance[key].item())
        assert distance[best] < 1e-5
        orders[best] += 1
    assert min(orders.values()) > 5


def test_gamma_brightens_as_often_as_it_darkens_by_equal_factors() -> None:
    policy = dataclasses.replace(OFF, gamma_prob=1.0, gamma=0.4)
    images, draws = as_bytes(smooth_images(9, 16)), draw_table(9, 1, 0, 0)
    draws[:, 0, Draw.GAMMA_EXPONENT] = torch.linspace(0, 1, 9)
    exponents = 1.4 ** torch.linspace(-1, 1, 9)
    (view,) = OneView(policy, 16)(images, draws)
    torch.testing.assert_close(view, (images / 255) ** exponents.view(-1, 1, 1, 1), atol=1e-5, rtol=0)


def test_shifts_to_the_right_and_downwards_are_drawn_apart() -> None:
    policy = dataclasses.replace(OFF, affine_prob=1.0, shift=0.25)
    images, draws = as_bytes(smooth_images(1)).expand(2, -1, -1, -1), torch.full((2, 1, NUM_DRAWS), 0.5)
    draws[0, 0, Draw.SHIFT_X] = draws[1, 0, Draw.SHIFT_Y] = 0.75  # an eighth of the side
    (view,) = OneView(policy, 64)(images, draws)
    torch.testing.assert_close(view[0, :, :, 8:], images[0, :, :, :-8] / 255, atol=1e-4, rtol=0)
    torch.testing.assert_close(view[1, :, 8:], images[1, :, :-8] / 255, atol=1e-4, rtol=0)


def test_the_jitter_of_three_channels_follows_the_order_drawn() -> None:
    policy = dataclasses.replace(OFF, jitter_prob=1.0, brightness=0.4, contrast=0.4, saturation=0.4, hue=0.1)
    images, draws = as_bytes(smooth_images(12, 16, 3)), draw_table(12, 1, 0, 0)
    (view,) = OneView(policy, 16)(images, draws)
    u = draws[:, 0]
    places = list(torch.cartesian_prod(*[torch.arange(4)] * 4).tolist())
    places = [p for p in places if len(set(p)) == 4]  # the 24 orders, sorted
    for i in range(12):
        factors = [0.6 + 0.8 * u[i, column].item() for column in (Draw.BRIGHTNESS, Draw.CONTRAST, Draw.SATURATION)]
        turns = -0.1 + 0.2 * u[i, Draw.HUE].item()
        steps = [
            lambda x, f=factors[0]: tv.adjust_brightness(x, f),
            lambda x, f=factors[1]: tv.adjust_contrast(x, f),
            lambda x, f=factors[2]: tv.adjust_saturation(x, f),
            lambda x, f=turns: tv.adjust_hue(x, f),
        ]
        place = places[int(u[i, Draw.JITTER_ORDER] * 24)]
        expected = images[i] / 255
        for step in sorted(range(4), key=lambda s: place[s]):
            expected = steps[step](expected)
        torch.testing.assert_close(view[i], expected, atol=2e-5, rtol=0)


def test_an_image_larger_than_the_view_is_reduced_with_antialiasing_first() -> None:
    images = random_bytes(2, 64)
    (view,) = OneView(OFF, 32)(images, draw_table(2, 1, 0, 0))
    expected = F.interpolate(images / 255, size=(32, 32), mode="bicubic", antialias=True).clamp(0, 1)
    torch.testing.assert_close(view, expected)


def test_an_image_smaller_than_the_view_is_enlarged() -> None:
    images = as_bytes(smooth_images(2, 32))
    (view,) = OneView(OFF, 64)(images, draw_table(2, 1, 0, 0))
    expected = F.interpolate(images / 255, size=(64, 64), mode="bicubic", align_corners=False).clamp(0, 1)
    torch.testing.assert_close(inside(view), inside(expected), atol=1e-4, rtol=0)


@pytest.mark.parametrize(
    ("images", "draws", "message"),
    [
        (torch.zeros(2, 1, 8, 8), torch.zeros(2, 2, NUM_DRAWS), "images must be uint8, got torch.float32"),
        (
            random_bytes(2, 8, 2),
            torch.zeros(2, 2, NUM_DRAWS),
            r"images must be \[B, 1 or 3, S, S\], got \[2, 2, 8, 8\]",
        ),
        (random_bytes(2, 8)[:, :, :4], torch.zeros(2, 2, NUM_DRAWS), r"got \[2, 1, 4, 8\]"),
        (
            random_bytes(2, 8),
            torch.zeros(2, 1, NUM_DRAWS),
            rf"draws must be \[2, 2, {NUM_DRAWS}\], got \[2, 1,",
        ),
    ],
)
def test_wrong_input_is_refused_with_what_was_expected(images: Tensor, draws: Tensor, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        TwoViews(POLICIES["ref"], 8)(images, draws)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("name", [name for name in POLICIES if POLICIES[name].noise_prob == 0])
def test_views_on_a_gpu_are_those_on_the_cpu(name: str) -> None:
    images, draws = as_bytes(smooth_images(6, 64, 3)), draw_table(6, 2, 0, 0)
    with torch.autocast("cuda", dtype=torch.bfloat16):
        there = TwoViews(POLICIES[name], 64)(images.cuda(), draws)
    for here, view in zip(TwoViews(POLICIES[name], 64)(images, draws), there, strict=True):
        assert (here - view.cpu()).abs().mean() < 1e-4


def test_autocast_does_not_coarsen_the_views() -> None:
    images, draws = random_bytes(4, 32, 3), draw_table(4, 2, 0, 0)
    plain = TwoViews(POLICIES["imagenet"], 32)(images, draws)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        under = TwoViews(POLICIES["imagenet"], 32)(images, draws)
    assert torch.equal(plain[0], under[0])
    assert under[0].dtype == torch.float32


@pytest.mark.slow  # torch imports half of itself for the first "meta" tensor
def test_every_policy_makes_views_on_another_device() -> None:
    images, draws = torch.zeros(2, 3, 16, 16, dtype=torch.uint8, device="meta"), draw_table(2, 2, 0, 0)
    for name in ("ref", "imagenet", "ssl", "student"):
        for view in TwoViews(POLICIES[name], 16)(images, draws):
            assert view.device.type == "meta"
            assert view.shape == (2, 3, 16, 16)


# --- normalisation -----------------------------------------------------------------------------------------


def test_normalise_subtracts_the_mean_and_divides_by_the_deviation_of_each_channel() -> None:
    images = random_bytes(2, 4, 3) / 255
    normalisation = Normalisation((0.1, 0.2, 0.3), (0.4, 0.5, 0.6))
    expected = tv.normalize(images, [0.1, 0.2, 0.3], [0.4, 0.5, 0.6])
    torch.testing.assert_close(normalise(images, normalisation), expected)
    grey = normalise(images[:, :1], normalisation)
    torch.testing.assert_close(grey, (images[:, :1] - 0.2) / 0.5)


def test_the_eval_transform_scales_and_normalises_and_nothing_else() -> None:
    images = random_bytes(2)
    torch.testing.assert_close(eval_transform(images, Normalisation((0.5,), (0.5,))), images / 127.5 - 1)
    with pytest.raises(ValueError, match=r"uint8, got torch\.float32"):
        eval_transform(images.float(), Normalisation((0.5,), (0.5,)))
