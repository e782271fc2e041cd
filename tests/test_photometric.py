import pytest
import torch
from samples import random_bytes
from torchvision.transforms.v2 import functional as tv

from cxr_helpers.augment import photometric as photo

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


@pytest.mark.parametrize("drawn", [[True, False, True], [False] * 3])
def test_an_operation_acts_on_the_images_drawn_only(drawn: list[bool]) -> None:
    images = random_bytes(3) / 255
    result = photo.apply_where(torch.tensor(drawn), photo.adjust_gamma, images.clone(), torch.tensor([0.5, 1.5, 2.0]))
    expected = torch.stack([x**g if d else x for x, g, d in zip(images, (0.5, 1.5, 2.0), drawn, strict=True)])
    torch.testing.assert_close(result, expected, atol=1e-5, rtol=0)
