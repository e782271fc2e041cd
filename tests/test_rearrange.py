"""Rearrangements keep every pixel and move some; rectangles hide what they were asked to."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from samples import random_bytes

from cxr_helpers.augment import (
    CORRUPTIONS,
    KINDS,
    QUARTER_TURNS,
    count_patches,
    draw_corruption,
    draw_patches,
    draw_rectangles,
    rearrange,
)

EVERY = torch.arange(len(KINDS))


@settings(max_examples=30)
@given(side=st.integers(2, 40), channels=st.sampled_from([1, 3]))
def test_every_kind_is_a_bijection_of_the_pixels_alike_in_all_channels_and_only_one_leaves_them(
    side: int, channels: int
) -> None:
    start = torch.arange(side * side).view(1, 1, side, side).expand(len(KINDS), channels, side, side)
    moved = rearrange(start, EVERY)
    assert torch.equal(moved.flatten(2).sort(2).values, start.flatten(2))
    assert torch.equal(moved, moved[:, :1].expand_as(moved))
    assert [torch.equal(one, start[0]) for one in moved].count(True) == 1 and torch.equal(moved[0], start[0])
    if side > 2:  # of 2 x 2 pixels there are only 24 orders
        assert len({tuple(one.flatten().tolist()) for one in moved}) == len(KINDS)


def test_turns_flips_and_halves_are_torchs_own() -> None:
    image = random_bytes(1, 6, 3)
    expected = {name: torch.rot90(image, turns, (2, 3)) for turns, name in enumerate(QUARTER_TURNS)}
    expected |= {"flip left-right": image.flip(3), "flip up-down": image.flip(2)}
    expected |= {"halves left-right": image.roll(3, 3), "halves up-down": image.roll(3, 2)}
    expected["quadrants 3210"] = image.roll((3, 3), (2, 3))
    for name, wanted in expected.items():
        assert torch.equal(rearrange(image, torch.tensor([KINDS.index(name)])), wanted), name


def test_every_image_gets_the_kind_that_was_drawn_for_it() -> None:
    images = random_bytes(len(KINDS), 8)
    together = rearrange(images, EVERY)
    for kind, image in enumerate(images):
        assert torch.equal(together[kind], rearrange(image[None], torch.tensor([kind]))[0])


def test_kinds_of_corruption_are_drawn_alike_and_their_members_too() -> None:
    draws = torch.rand(20_000, 2, generator=torch.Generator().manual_seed(0))
    counts = torch.bincount(draw_corruption(draws, tuple(CORRUPTIONS)), minlength=len(KINDS)) / len(draws)
    assert counts[0] == 0
    for members in CORRUPTIONS.values():
        own = counts[KINDS.index(members[0]) :][: len(members)]
        assert own.sum() == pytest.approx(1 / len(CORRUPTIONS), abs=0.015)
        torch.testing.assert_close(own, own.mean().expand_as(own), atol=0.012, rtol=0)
    assert {KINDS[i] for i in draw_corruption(draws, ("flips",)).tolist()} == {*CORRUPTIONS["flips"]}


@settings(max_examples=30)
@given(st.integers(8, 80), st.floats(0.05, 0.5), st.floats(0, 0.4))
def test_a_rectangle_has_the_area_that_was_asked_for(side: int, low: float, more: float) -> None:
    draws = torch.rand(300, 4, generator=torch.Generator().manual_seed(side))
    hidden = draw_rectangles(draws, side, low, low + more)
    rows, columns = hidden.any(3).sum((1, 2)), hidden.any(2).sum((1, 2))
    assert torch.equal(hidden.sum((1, 2, 3)), rows * columns)  # nothing but a rectangle
    asked = (low + more * draws[:, 0]) * side**2
    assert ((rows * columns - asked).abs() <= (rows + columns) / 2 + 1).all()


def table(count: int, patches: int = 64, seed: int = 0) -> torch.Tensor:
    return torch.rand(count, patches, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize(("ratio", "hidden"), [(0.4, 26), (0.75, 48), (0.9, 58)])
def test_as_many_whole_patches_are_hidden_in_every_image_and_the_draws_alone_say_which(
    ratio: float, hidden: int
) -> None:
    masks = draw_patches(table(200), 32, ratio)
    cells = masks.unfold(2, 4, 4).unfold(3, 4, 4).float().mean((4, 5))  # [200, 1, 8, 8]
    assert set(cells.unique().tolist()) == {0.0, 1.0} and (cells.sum((1, 2, 3)) == hidden).all()
    assert torch.equal(draw_patches(table(200)[7:9], 32, ratio), masks[7:9])
    assert torch.equal(draw_patches(torch.zeros(1, 64), 32, ratio).sum(), torch.tensor(hidden * 16))  # ties


def test_uniform_masks_hide_every_patch_alike_and_centred_ones_the_middle() -> None:
    often = {c: draw_patches(table(4000), 8, 0.5, c).float().mean(0)[0] for c in (0.0, 1.0, 3.0)}
    assert (often[0.0] - 0.5).abs().max() < 0.035  # 4.4 standard errors
    middle = {c: float(shares[2:6, 2:6].mean()) for c, shares in often.items()}
    assert middle[0.0] < middle[1.0] - 0.1 < middle[3.0] - 0.2
    corner, centre = float(often[3.0][0, 0]), float(often[3.0][3, 3])
    assert corner < 0.1 and centre > 0.6 and abs(float(often[3.0][0, 7]) - corner) < 0.03


def test_the_first_patch_that_is_drawn_has_the_chance_of_its_weight() -> None:
    first = draw_patches(table(20_000, 16), 4, 1 / 16, 1.5).float().mean(0).flatten()
    places = torch.tensor([-0.75, -0.25, 0.25, 0.75])
    weights = (-1.5 * (places[:, None] ** 2 + places**2)).exp().flatten()
    assert (first - weights / weights.sum()).abs().max() < 0.01


def test_masks_that_leave_nothing_to_see_or_to_guess_are_refused() -> None:
    assert count_patches(64, 8, 0.98) == 64
    for ratio in (0.001, 0.995):
        with pytest.raises(
            ValueError, match=f"^mask_ratio must be such that one or more of the 64 .* seen, got {ratio}$"
        ):
            count_patches(64, 8, ratio)
    with pytest.raises(ValueError, match=r"^size must be a multiple of the patch, 16 px, got 100$"):
        count_patches(100, 16, 0.75)
