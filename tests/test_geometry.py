import dataclasses
import math

import pytest
import torch
import torch.nn.functional as F
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from samples import as_bytes, full, inside, random_bytes, smooth_images
from scipy.stats import ks_2samp
from torch import Tensor
from torchvision import tv_tensors
from torchvision.transforms import v2
from torchvision.transforms.v2 import functional as tv

from cxr_helpers.augment import POLICIES, OneView, draw_table
from cxr_helpers.augment import geometry as geo
from cxr_helpers.augment.randaugment import CHANGING, MOVING, OPERATIONS, RandAugment
from cxr_helpers.augment.views import Draw


def test_the_resampling_is_grid_sample_of_the_composed_map_and_black_outside() -> None:
    images, draws = smooth_images(5), draw_table(5, 1, 0, 0)[:, 0]
    maps = geo.affine_map(40 * draws[:, 0] - 20, draws[:, 1] / 10, draws[:, 2] / 10, 1 + draws[:, 3] / 5)
    crop = geo.crop_map(draws[:, 4] / 2, draws[:, 5] / 2, full(0.9, 5), full(0.8, 5))
    maps = geo.compose(maps, crop, geo.flip_map(draws[:, 6] < 0.5))
    grid = F.affine_grid(maps[:, :2], [5, 1, 64, 64], align_corners=False)
    expected = F.grid_sample(images, grid, mode="bicubic", align_corners=False).clamp(0, 1)
    distance_px = 32 * (1 - grid.abs().amax(-1))[:, None]  # from the image's edge, positive inside
    view = geo.resample(images, maps, 64)
    inner, outer = distance_px > 2, distance_px < -1
    assert inner.float().mean() > 0.5 and outer.float().mean() > 0.02
    torch.testing.assert_close(view[inner], expected[inner], atol=1e-5, rtol=0)
    assert view[outer].abs().max() < 1e-5


def test_a_crop_is_torchvisions_on_whole_pixels_has_no_rim_on_white_and_is_what_it_says() -> None:
    white = torch.ones(1, 1, 64, 64)
    corner = geo.crop_map(full(-0.3, 1), full(-0.3, 1), full(0.7, 1), full(0.7, 1))
    torch.testing.assert_close(geo.resample(white, corner, 64), white)
    images, (top, left, height, width) = random_bytes(3, 64) / 255, (10, 5, 32, 40)
    bicubic = tv.InterpolationMode.BICUBIC
    expected = tv.resized_crop(images, top, left, height, width, [64, 64], bicubic, antialias=False).clamp(0, 1)
    centre = full((2 * left + width) / 64 - 1), full((2 * top + height) / 64 - 1)
    got = geo.resample(images, geo.crop_map(*centre, full(width / 64), full(height / 64)), 64)
    torch.testing.assert_close(inside(got), inside(expected), atol=1e-4, rtol=0)
    for scale, ratio in ((1.0, (1.0, 1.0)), (1.0, (0.75, 4 / 3)), (0.5, (1.0, 1.0))):
        _, _, width, height = geo.CropSampler((scale, scale), ratio)(torch.rand(50, 4))
        torch.testing.assert_close(torch.stack([width, height]), full(math.sqrt(scale), 100).view(2, 50))


def test_a_crops_place_is_drawn_to_the_middle_by_the_policys_number() -> None:
    draws = torch.rand(50, 4)
    anywhere, half, middle = (geo.CropSampler((0.5, 0.9), (0.75, 4 / 3), c)(draws) for c in (0.0, 0.5, 1.0))
    for axis in (0, 1):
        torch.testing.assert_close(half[axis], anywhere[axis] / 2)
        assert anywhere[axis].abs().max() > 0.1 and middle[axis].abs().max() == 0
    assert torch.equal(half[2], anywhere[2]) and torch.equal(half[3], anywhere[3])
    policy = dataclasses.replace(
        POLICIES["crops"], crop_centring=1.0, flip_prob=0.0, crop_ratio_min=1.0, crop_ratio_max=1
    )
    images = torch.zeros(4, 1, 64, 64, dtype=torch.uint8)
    images[:, :, 24:40, 24:40] = 255
    (view,) = OneView(policy, 64)(images, draw_table(4, 1, 0, 0))
    torch.testing.assert_close(view, view.rot90(1, (2, 3)), atol=1e-4, rtol=0)


def test_an_affine_map_moves_as_torchvisions_affine() -> None:
    images = smooth_images(3, 96)
    moved = geo.resample(images, geo.affine_map(full(-15.0), full(0.125), full(-0.0625), full(1.1)), 96)
    expected = tv.affine(images, 15.0, [12, -6], 1.1, [0.0, 0.0], tv.InterpolationMode.BILINEAR)
    assert (moved - expected).abs()[..., 24:-24, 24:-24].max() < 0.01


def test_a_view_rotates_first_then_crops_then_flips() -> None:
    policy = dataclasses.replace(POLICIES["ref"], affine_prob=1.0, flip_prob=1.0, jitter_prob=0.0, invert_prob=0.0)
    images, draws = as_bytes(smooth_images(3, 96)), draw_table(3, 1, 4, 0)
    (view,) = OneView(policy, 96)(images, draws)
    crops = geo.CropSampler((0.5, 1.0), (3 / 4, 4 / 3))
    crop = geo.crop_map(*crops(draws[:, 0, Draw.CROP_RATIO : Draw.CROP_Y + 1]))
    for i in range(3):
        angle = -10 + 20 * draws[i, 0, Draw.ROTATION].item()
        turned = tv.rotate(images[i : i + 1] / 255, angle, tv.InterpolationMode.BILINEAR)
        expected = tv.horizontal_flip(geo.resample(turned, crop[i : i + 1], 96))
        assert (view[i] - expected[0]).abs().mean() < 0.01


@pytest.mark.parametrize(("scale", "ratio"), [((0.08, 1.0), (3 / 4, 4 / 3)), ((0.5, 0.6), (0.5, 1.25))])
def test_crops_have_torchvisions_distribution(scale: tuple[float, float], ratio: tuple[float, float]) -> None:
    count, side = 4000, 10_000  # a side so large that torchvision's rounding does not show
    torch.manual_seed(0)
    reference = v2.RandomResizedCrop(8, scale=scale, ratio=ratio)
    blank = torch.empty(1, side, side, dtype=torch.uint8)
    rows = [reference.make_params([blank]) for _ in range(count)]
    theirs = torch.tensor([[row["width"], row["height"], row["left"], row["top"]] for row in rows]) / side
    x, y, width, height = geo.CropSampler(scale, ratio)(torch.rand(count, 4))
    ours = torch.stack([width, height, (x + 1 - width) / 2, (y + 1 - height) / 2], 1)
    assert ours[:, 2:].min() >= -1e-6 and (ours[:, 2:] + ours[:, :2]).max() <= 1 + 1e-6
    area, shape = (lambda c: c[:, 0] * c[:, 1]), (lambda c: c[:, 0] / c[:, 1])
    for statistic in (area, shape, *(lambda c, i=i: c[:, i] for i in range(4))):
        assert ks_2samp(statistic(ours), statistic(theirs)).pvalue > 0.001


def reference_randaugment(magnitude: int, name: str, sign: float, image: Tensor) -> Tensor:
    reference = v2.RandAugment()
    values, signed = reference._AUGMENTATION_SPACE[name]
    magnitudes = values(31, *image.shape[-2:])
    value = 0.0 if magnitudes is None else float(magnitudes[magnitude]) * (sign if signed else 1)
    mode = tv.InterpolationMode.BILINEAR
    return reference._apply_image_or_video_transform(image, name, value, interpolation=mode, fill={})


@pytest.mark.parametrize(("magnitude", "sign"), [(9, -1.0), (20, 1.0)])
@pytest.mark.parametrize("name", OPERATIONS)
def test_each_of_randaugments_operations_is_torchvisions(name: str, magnitude: int, sign: float) -> None:
    images, ours = smooth_images(2, 96, 3), RandAugment(1, magnitude, 96)
    draws = torch.tensor([(OPERATIONS.index(name) + 0.5) / len(OPERATIONS), 0.5 + sign / 4]).expand(2, 2)
    expected = reference_randaugment(magnitude, name, sign, images)
    if name in MOVING:  # bicubic against bilinear, off the edges of what is filled
        view = geo.resample(images, ours.maps(draws), 96)
        off_border = F.avg_pool2d((expected == 0).float(), 9, 1, 4).amax(1, keepdim=True) == 0
        assert off_border.float().mean() > 0.3
        assert ((view - expected) * off_border).abs()[..., 2:-2, 2:-2].max() < 0.01
        assert torch.equal(ours.pixels(view.clone(), draws), view)
    else:
        assert torch.equal(ours.maps(draws), torch.eye(3).expand(2, 3, 3))
        torch.testing.assert_close(ours.pixels(images.clone(), draws), expected, atol=1e-5, rtol=0)


def test_randaugment_draws_all_fourteen_operations_alike() -> None:
    assert set(OPERATIONS) == set(v2.RandAugment._AUGMENTATION_SPACE) == {"Identity", *MOVING, *CHANGING}
    drawn = RandAugment(2, 9, 32)._drawn(torch.rand(14_000, 8, generator=torch.Generator().manual_seed(0)))
    for index, sign in drawn:
        counts = torch.bincount(index, minlength=14)
        assert counts.min() > 850 and counts.max() < 1150 and sign.mean().abs() < 0.05


@settings(max_examples=60, deadline=None)
@given(angle=st.floats(-30, 30), shift=st.tuples(st.floats(-0.2, 0.2), st.floats(-0.2, 0.2)), zoom=st.floats(0.7, 1.4),
       flips=st.tuples(st.booleans(), st.booleans()), seed=st.integers(0, 99))  # fmt: skip
def test_boxes_move_as_torchvisions_do(
    angle: float, shift: tuple[float, float], zoom: float, flips: tuple[bool, bool], seed: int
) -> None:
    corners = torch.rand(8, 2, 2, generator=torch.Generator().manual_seed(seed)).sort(dim=1).values
    boxes = corners.reshape(8, 4)
    side = 1000  # torchvision shifts by whole pixels
    translate = [round(side * s) for s in shift]
    theirs = tv_tensors.BoundingBoxes(boxes * side, format="XYXY", canvas_size=(side, side))
    theirs = v2.functional.affine_bounding_boxes(
        theirs.as_subclass(torch.Tensor), theirs.format, theirs.canvas_size, -angle, translate, zoom, [0.0, 0.0],
        clamping_mode=None,
    )  # fmt: skip
    theirs = theirs.as_subclass(torch.Tensor) / side
    for flipped, (left, right) in zip(flips, ((0, 2), (1, 3)), strict=True):
        if flipped:
            theirs = theirs.clone()
            theirs[:, [left, right]] = 1 - theirs[:, [right, left]]
    moved = geo.affine_map(full(angle, 1), full(translate[0] / side, 1), full(translate[1] / side, 1), full(zoom, 1))
    map_ = geo.compose(moved, geo.flip_map(*(torch.tensor([flip]) for flip in flips)))[0]
    ours, kept = geo.move_boxes(boxes, map_, 0.3)
    area = (theirs[:, 2:] - theirs[:, :2]).prod(dim=1)
    seen = (theirs.clamp(0, 1)[:, 2:] - theirs.clamp(0, 1)[:, :2]).prod(dim=1)
    assume(bool(((seen / area - 0.3).abs() > 1e-3).all()))
    assert torch.equal(kept, seen > 0.3 * area)
    torch.testing.assert_close(ours, theirs.clamp(0, 1)[kept], atol=2e-4, rtol=0)


def test_a_box_frames_in_the_view_what_it_framed_in_the_image() -> None:
    policy = dataclasses.replace(POLICIES["detect"], affine_prob=1.0, flip_prob=0.5, vertical_flip_prob=0.5)
    images, box = torch.zeros(16, 1, 96, 96, dtype=torch.uint8), torch.tensor([[24.0, 36.0, 48.0, 54.0]]) / 96
    images[:, :, 36:54, 24:48] = 255
    draws = draw_table(16, 1, 0, 0)
    views = OneView(dataclasses.replace(policy, jitter_prob=0, gamma_prob=0, motion_prob=0, noise_prob=0), 96)
    (seen,) = views(images, draws)
    for view, map_ in zip(seen, views.maps(draws[:, 0]), strict=True):
        rows, columns = (view[0].amax(dim=dim) > 0.5 for dim in (1, 0))
        edges = [line.nonzero().flatten() for line in (columns, rows)]
        found = torch.tensor([edges[0][0], edges[1][0], edges[0][-1] + 1, edges[1][-1] + 1])
        moved, _ = geo.move_boxes(box, map_, 0.3)
        assert (96 * moved[0] - found).abs().max() < 2.5  # corners are a little rounder than the box around them
