"""Views: what is drawn, what each operation does with it, and that nothing else decides."""

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from samples import as_bytes, every_operation, inside, random_bytes, smooth_images
from torchvision.transforms.v2 import functional as tv

from cxr_helpers import augment
from cxr_helpers.augment import POLICIES, OneView, TwoViews, alone, draw_table
from cxr_helpers.augment import photometric as photo
from cxr_helpers.augment.views import Draw

OFF = POLICIES["none"]
QUIET = [name for name in POLICIES if POLICIES[name].noise_prob == 0]


def test_the_table_depends_on_seed_and_epoch_alone_and_every_pair_has_its_own() -> None:
    state = torch.get_rng_state()
    tables = {(seed, epoch): draw_table(5, 2, seed, epoch) for seed in (0, 1, 2) for epoch in (0, 1, 2)}
    assert torch.equal(torch.get_rng_state(), state)  # torch's own generator is left alone
    assert torch.equal(tables[1, 2], draw_table(5, 2, 1, 2))
    assert len({tuple(table.flatten().tolist()) for table in tables.values()}) == 9
    table = tables[0, 0]
    assert table.shape == (5, 2, augment.NUM_DRAWS) and table.min() >= 0 and table.max() < 1
    with pytest.raises(ValueError, match=r"draws must be \[2, 2, 40\], got \[5, 2, 40\]"):
        TwoViews(OFF, 16)(random_bytes(2), table)


@pytest.mark.parametrize("name", QUIET)
def test_a_view_does_not_depend_on_the_batch_it_is_made_in(name: str) -> None:
    images, draws = random_bytes(9, 32, 3), draw_table(9, 2, 0, 0)
    views = TwoViews(POLICIES[name], 32)
    together = torch.stack(views(images, draws), 1)
    order = torch.tensor([8, 2, 0, 5])
    torch.testing.assert_close(torch.stack(views(images[order], draws[order]), 1), together[order])
    alone = torch.cat([torch.stack(views(images[i : i + 1], draws[i : i + 1]), 1) for i in range(9)])
    torch.testing.assert_close(alone, together)
    (first,) = OneView(POLICIES[name], 32)(images, draws[:, :1])
    assert torch.equal(first, together[:, 0]) and torch.equal(first, together[:, 1]) == (name == "none")


def test_pixel_noise_comes_from_the_generator_given_and_has_the_policys_deviation() -> None:
    policy = replace(OFF, noise_prob=1.0, noise_std=0.05)
    images, draws = torch.full((4, 1, 64, 64), 128, dtype=torch.uint8), draw_table(4, 2, 0, 0)
    views = [TwoViews(policy, 64)(images, draws, torch.Generator().manual_seed(s))[0] for s in (0, 0, 1)]
    assert torch.equal(views[0], views[1]) and not torch.equal(views[0], views[2])
    assert (views[0] - 128 / 255).std().item() == pytest.approx(0.05, rel=0.03)
    torch.manual_seed(0)
    assert torch.equal(TwoViews(policy, 64)(images, draws)[0], views[0])  # torch's own where none is given


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("operation", augment.OPERATIONS)
def test_an_operation_changes_the_share_of_images_its_probability_says_if_any(operation: str, channels: int) -> None:
    policy, often = alone(every_operation(), operation), str(augment.OPERATIONS[operation].often)
    inert = policy.describe(channels)[0].effect == "none"
    images, drawn = random_bytes(1, 20, channels).expand(2000, -1, -1, -1), often.endswith("_prob")
    for share in (0.0, 0.3) if drawn else (1.0,):
        chosen = replace(policy, **{often: share}) if drawn else policy  # type: ignore[arg-type]
        (view,) = OneView(chosen, 20)(images, draw_table(2000, 1, 0, 0))
        changed = ((view - images / 255).abs().amax((1, 2, 3)) > 1e-4).float().mean().item()
        assert changed == pytest.approx(0 if inert else share, abs=0.035 * (share > 0))  # 3.4 standard errors


def test_gamma_brightens_as_often_as_it_darkens_and_shifts_to_right_and_bottom_are_drawn_apart() -> None:
    images, draws = as_bytes(smooth_images(9, 16)), draw_table(9, 1, 0, 0)
    draws[:, 0, Draw.GAMMA_EXPONENT] = torch.linspace(0, 1, 9)
    exponents = 1.4 ** torch.linspace(-1, 1, 9)
    (view,) = OneView(replace(OFF, gamma_prob=1.0, gamma=0.4), 16)(images, draws)
    torch.testing.assert_close(view, (images / 255) ** exponents.view(-1, 1, 1, 1), atol=1e-5, rtol=0)
    images, draws = as_bytes(smooth_images(1)).expand(2, -1, -1, -1), torch.full((2, 1, augment.NUM_DRAWS), 0.5)
    draws[0, 0, Draw.SHIFT_X] = draws[1, 0, Draw.SHIFT_Y] = 0.75  # an eighth of the side
    (view,) = OneView(replace(OFF, affine_prob=1.0, shift=0.25), 64)(images, draws)
    torch.testing.assert_close(view[0, :, :, 8:], images[0, :, :, :-8] / 255, atol=1e-4, rtol=0)
    torch.testing.assert_close(view[1, :, 8:], images[1, :, :-8] / 255, atol=1e-4, rtol=0)


@pytest.mark.parametrize("channels", [1, 3])
def test_the_jitter_follows_the_order_drawn_for_each_image(channels: int) -> None:
    policy = replace(OFF, jitter_prob=1.0, brightness=0.4, contrast=0.4, saturation=0.4, hue=0.1)
    images, draws = as_bytes(smooth_images(12, 16, channels)), draw_table(12, 1, 0, 0)
    (view,) = OneView(policy, 16)(images, draws)
    u = draws[:, 0]
    places = [p for p in torch.cartesian_prod(*[torch.arange(4)] * 4).tolist() if len(set(p)) == 4]  # 24, sorted
    steps = [
        (tv.adjust_brightness, 0.6 + 0.8 * u[:, Draw.BRIGHTNESS]),
        (tv.adjust_contrast, 0.6 + 0.8 * u[:, Draw.CONTRAST]),
        (tv.adjust_saturation, 0.6 + 0.8 * u[:, Draw.SATURATION]),
        (tv.adjust_hue, -0.1 + 0.2 * u[:, Draw.HUE]),
    ]
    for i in range(12):
        place, expected = places[int(u[i, Draw.JITTER_ORDER] * 24)], images[i] / 255
        for operation, values in [steps[s] for s in sorted(range(4), key=lambda s: place[s])]:
            expected = operation(expected, values[i].item())
        torch.testing.assert_close(view[i], expected, atol=2e-5, rtol=0)


def test_an_image_of_another_size_is_reduced_with_antialiasing_first_or_enlarged() -> None:
    large, small = random_bytes(2, 64), as_bytes(smooth_images(2, 32))
    (view,) = OneView(OFF, 32)(large, draw_table(2, 1, 0, 0))
    expected = F.interpolate(large / 255, size=(32, 32), mode="bicubic", antialias=True).clamp(0, 1)
    torch.testing.assert_close(view, expected)
    (view,) = OneView(OFF, 64)(small, draw_table(2, 1, 0, 0))
    expected = F.interpolate(small / 255, size=(64, 64), mode="bicubic", align_corners=False).clamp(0, 1)
    torch.testing.assert_close(inside(view), inside(expected), atol=1e-4, rtol=0)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("name", QUIET)
def test_views_on_a_gpu_are_those_on_the_cpu(name: str) -> None:
    images, draws = as_bytes(smooth_images(6, 64, 3)), draw_table(6, 2, 0, 0)
    with torch.autocast("cuda", dtype=torch.bfloat16):
        there = TwoViews(POLICIES[name], 64)(images.cuda(), draws)
    for here, view in zip(TwoViews(POLICIES[name], 64)(images, draws), there, strict=True):
        assert (here - view.cpu()).abs().mean() < 1e-4


def test_normalise_subtracts_the_mean_and_divides_by_the_deviation_of_each_channel() -> None:
    images, normalisation = random_bytes(2, 4, 3), augment.Normalisation((0.1, 0.2, 0.3), (0.4, 0.5, 0.6))
    expected = tv.normalize(images / 255, [0.1, 0.2, 0.3], [0.4, 0.5, 0.6])
    torch.testing.assert_close(augment.eval_transform(images, normalisation), expected)
    grey = augment.normalise(images[:, :1] / 255, normalisation)
    torch.testing.assert_close(grey, (images[:, :1] / 255 - 0.2) / 0.5)


def test_autocast_does_not_coarsen_the_views() -> None:
    images, draws = random_bytes(4, 32, 3), draw_table(4, 2, 0, 0)
    plain = TwoViews(POLICIES["imagenet"], 32)(images, draws)[0]
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(TwoViews(POLICIES["imagenet"], 32)(images, draws)[0], plain)


PARAMETERS = {
    "brightness": (photo.adjust_brightness, tv.adjust_brightness, [0.0, 0.6, 1.0, 1.7]),
    "contrast": (photo.adjust_contrast, tv.adjust_contrast, [0.0, 0.6, 1.0, 1.7]),
    "saturation": (photo.adjust_saturation, tv.adjust_saturation, [0.0, 0.6, 1.0, 1.7]),
    "hue": (photo.adjust_hue, tv.adjust_hue, [-0.5, -0.1, 0.0, 0.3]),
    "gamma": (photo.adjust_gamma, tv.adjust_gamma, [0.5, 0.8, 1.0, 2.0]),
    "grayscale": (
        lambda x, _: photo.grayscale(x),
        lambda x, _: tv.rgb_to_grayscale(x, num_output_channels=len(x)),
        [0.0] * 4,
    ),
    "invert": (lambda x, _: photo.invert(x), lambda x, _: tv.invert(x), [0.0] * 4),
    "solarize": (photo.solarize, tv.solarize, [0.0, 0.3, 0.5, 1.0]),
    "blur": (
        lambda x, sigma: photo.gaussian_blur(x, sigma, 5),
        lambda x, sigma: tv.gaussian_blur(x, [5, 5], [sigma, sigma]),
        [0.1, 0.5, 1.0, 2.0],
    ),
}


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("name", PARAMETERS)
def test_an_operation_equals_torchvisions_with_a_parameter_per_image(name: str, channels: int) -> None:
    ours, theirs, values = PARAMETERS[name]
    images = random_bytes(4, 24, channels) / 255
    images[:, :, :4] = images[:, :1, :4]  # grey pixels too, where hue is undefined
    images[:, :, 4] = 0
    expected = torch.stack([theirs(image, value) for image, value in zip(images, values, strict=True)])
    torch.testing.assert_close(ours(images, torch.tensor(values)), expected, atol=1e-5, rtol=0)


def test_the_blurs_kernel_is_the_largest_odd_tenth_of_the_side() -> None:
    assert [photo.blur_kernel_size(size) for size in (224, 128, 64, 28)] == [21, 11, 5, 3]


def test_a_motion_blur_is_the_mean_along_its_line() -> None:
    images = random_bytes(3, 32) / 255
    still, across, down = (photo.motion_blur(images, torch.full((3,), n), torch.full((3,), a), 5)
                           for n, a in ((1.0, 0.0), (3.0, 0.0), (3.0, 90.0)))  # fmt: skip
    torch.testing.assert_close(still, images)
    torch.testing.assert_close(across[..., 1:-1], images.unfold(3, 3, 1).mean(-1), atol=1e-6, rtol=0)
    torch.testing.assert_close(down[..., 1:-1, :], images.unfold(2, 3, 1).mean(-1), atol=1e-6, rtol=0)


@pytest.mark.parametrize("drawn", [[True, False, True], [False] * 3])
def test_an_operation_acts_on_the_images_drawn_only(drawn: list[bool]) -> None:
    images = random_bytes(3) / 255
    result = photo.apply_where(torch.tensor(drawn), photo.adjust_gamma, images.clone(), torch.tensor([0.5, 1.5, 2.0]))
    expected = torch.stack([x**g if d else x for x, g, d in zip(images, (0.5, 1.5, 2.0), drawn, strict=True)])
    torch.testing.assert_close(result, expected, atol=1e-5, rtol=0)
