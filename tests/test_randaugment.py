import pytest
import torch
import torch.nn.functional as F
from samples import smooth_images
from torch import Tensor
from torchvision.transforms import v2
from torchvision.transforms.v2 import functional as tv

from cxr_helpers.augment import geometry as geo
from cxr_helpers.augment.randaugment import CHANGING, MOVING, OPERATIONS, RandAugment


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
