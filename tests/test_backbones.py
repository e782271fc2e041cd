"""Backbones: stem by size, initial weights, one file format that is safe to read."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
import torchvision
from cxr_helpers.models.backbones import (
    IMAGENET_GREY,
    Backbone,
    build_backbone,
    imagenet_state,
    load_backbone,
    save_backbone,
    stem_for,
)
from safetensors.torch import save_file
from torch import Tensor

from cxr_helpers.augment import Normalisation

GREY = Normalisation((0.3,), (0.7,))


def random_backbone(size: int = 64, channels: int = 1, seed: int = 0) -> Backbone:
    return build_backbone("resnet18", channels=channels, size=size, init="random", normalisation=GREY, seed=seed)


@pytest.fixture(scope="module")
def resnet() -> torchvision.models.ResNet:
    """A ResNet-18 whose running statistics are not the trivial ones, standing in for ImageNet's."""
    torch.manual_seed(0)
    net = torchvision.models.resnet18()
    with torch.no_grad():
        net.train()(torch.randn(4, 3, 64, 64))
    return net.eval()


@pytest.fixture
def imagenet_file(resnet: torchvision.models.ResNet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    file = tmp_path / "resnet18.pth"
    torch.save(resnet.state_dict(), file)
    monkeypatch.setenv("CXR_IMAGENET_WEIGHTS", str(file))
    return file


def imagenet_backbone(channels: int = 1, size: int = 64, name: str = "resnet18") -> Backbone:
    return build_backbone(name, channels=channels, size=size, init="imagenet", normalisation=GREY, seed=0)


@pytest.mark.parametrize(("size", "stem"), [(28, "cifar"), (63, "cifar"), (64, "imagenet"), (224, "imagenet")])
def test_the_stem_is_cifars_below_64_px(size: int, stem: str) -> None:
    assert stem_for(size) == stem


@pytest.mark.parametrize(
    ("size", "channels", "kernel", "stride", "pools"),
    [(32, 3, 3, 1, False), (32, 1, 3, 1, False), (64, 1, 7, 2, True), (64, 3, 7, 2, True)],
)
def test_the_stem_has_the_kernel_stride_pool_and_channels_it_is_named_for(
    size: int, channels: int, kernel: int, stride: int, pools: bool
) -> None:
    net = random_backbone(size, channels).net
    assert net.conv1.weight.shape == (64, channels, kernel, kernel)
    assert net.conv1.stride == (stride, stride)
    assert net.conv1.padding == (kernel // 2, kernel // 2)
    assert isinstance(net.maxpool, torch.nn.MaxPool2d) is pools


@pytest.mark.parametrize(("name", "width"), [("resnet18", 512), ("resnet50", 2048)])
def test_features_are_as_wide_as_feature_dim_says(name: str, width: int) -> None:
    backbone = Backbone(name, 1, "imagenet", GREY).eval()
    assert backbone.feature_dim == width
    assert backbone(torch.zeros(2, 1, 64, 64)).shape == (2, width)


def test_a_seed_decides_the_random_weights_and_leaves_torchs_generator_alone() -> None:
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    a, b, c = random_backbone(seed=0), random_backbone(seed=0), random_backbone(seed=1)
    assert torch.equal(torch.rand(3), expected)
    assert all(torch.equal(p, q) for p, q in zip(a.parameters(), b.parameters(), strict=True))
    assert not torch.equal(a.net.conv1.weight, c.net.conv1.weight)
    assert not torch.equal(a.net.layer3[0].conv1.weight, c.net.layer3[0].conv1.weight)


def test_imagenet_weights_on_grey_equal_the_grey_image_copied_to_three_channels(
    resnet: torchvision.models.ResNet, imagenet_file: Path
) -> None:
    backbone = imagenet_backbone().eval()
    resnet_without_classifier = torch.nn.Sequential(*list(resnet.children())[:-1], torch.nn.Flatten())
    x = torch.randn(3, 1, 64, 64)
    with torch.no_grad():
        torch.testing.assert_close(
            backbone(x), resnet_without_classifier(x.expand(-1, 3, -1, -1)), rtol=1e-5, atol=1e-5
        )


def test_imagenet_weights_bring_their_own_normalisation(imagenet_file: Path) -> None:
    assert imagenet_backbone().normalisation == IMAGENET_GREY == Normalisation((0.449,), (0.226,))
    assert imagenet_backbone(channels=3).normalisation.mean == (0.485, 0.456, 0.406)


def test_imagenet_weights_on_colour_are_taken_unchanged(resnet: torchvision.models.ResNet, imagenet_file: Path) -> None:
    state = imagenet_backbone(channels=3).net.state_dict()
    assert all(torch.equal(value, resnet.state_dict()[name]) for name, value in state.items())


def test_imagenet_weights_are_named_by_a_digest_of_their_values(
    resnet: torchvision.models.ResNet, imagenet_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    state, digest = imagenet_state("resnet18")
    assert not any(name.startswith("fc.") for name in state)
    changed = {**resnet.state_dict(), "bn1.bias": resnet.state_dict()["bn1.bias"] + 1}
    torch.save(changed, tmp_path / "other.pth")
    monkeypatch.setenv("CXR_IMAGENET_WEIGHTS", str(tmp_path / "other.pth"))
    assert imagenet_state("resnet18")[1] != digest


def test_imagenet_weights_on_the_cifar_stem_are_refused(imagenet_file: Path) -> None:
    with pytest.raises(ValueError, match=r"from 64 px up .* got the CIFAR stem"):
        imagenet_backbone(size=32)


def test_imagenet_weights_of_another_architecture_are_refused(imagenet_file: Path) -> None:
    with pytest.raises(ValueError, match="must be a state_dict of resnet50"):
        imagenet_backbone(name="resnet50")


@pytest.mark.parametrize("content", [torch.zeros(3), {"epoch": 3, "state_dict": {}}, {"layer.weight": torch.zeros(3)}])
@pytest.mark.parametrize("channels", [1, 3])
def test_a_weights_file_that_is_no_resnet_state_dict_is_refused(
    content: object, channels: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.save(content, tmp_path / "odd.pth")
    monkeypatch.setenv("CXR_IMAGENET_WEIGHTS", str(tmp_path / "odd.pth"))
    with pytest.raises(ValueError, match="must be a state_dict"):
        imagenet_backbone(channels)


class Malicious:
    """Unpickled, it would write a file."""

    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return exec, (f"open({str(self.target)!r}, 'w').close()",)


def test_a_weights_file_that_would_run_code_is_refused_without_running_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    harmed = tmp_path / "harmed"
    torch.save({"conv1.weight": Malicious(harmed)}, tmp_path / "evil.pth")
    monkeypatch.setenv("CXR_IMAGENET_WEIGHTS", str(tmp_path / "evil.pth"))
    with pytest.raises(ValueError, match=r"evil\.pth must be a state_dict readable without running code") as caught:
        imagenet_state("resnet18")
    assert "\n" not in str(caught.value)
    assert not harmed.exists()
    torch.load(tmp_path / "evil.pth", weights_only=False)  # the file is a real attack
    assert harmed.exists()


def test_a_missing_weights_file_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("CXR_IMAGENET_WEIGHTS", str(tmp_path / "none.pth"))
    with pytest.raises(FileNotFoundError, match=r"CXR_IMAGENET_WEIGHTS must name a file, got .*none\.pth"):
        imagenet_state("resnet18")


def test_without_a_network_the_message_names_the_way_out(monkeypatch: pytest.MonkeyPatch) -> None:
    def no_network(*args: object, **kwargs: object) -> None:
        raise OSError("Connection refused")

    monkeypatch.delenv("CXR_IMAGENET_WEIGHTS", raising=False)
    monkeypatch.setattr(torch.hub, "load_state_dict_from_url", no_network)
    monkeypatch.setattr("torchvision.models._api.load_state_dict_from_url", no_network)
    with pytest.raises(FileNotFoundError, match=r"resnet18 could not be downloaded \(Connection refused\).*CXR_IMAGE"):
        imagenet_state("resnet18")


def features(backbone: Backbone, x: Tensor) -> np.ndarray:
    with torch.no_grad():
        return backbone.eval()(x).numpy()


@pytest.mark.parametrize(("size", "channels"), [(64, 1), (32, 3)])
def test_a_saved_backbone_is_read_back_with_its_normalisation(size: int, channels: int, tmp_path: Path) -> None:
    backbone = random_backbone(size, channels, seed=3)
    x = torch.randn(4, channels, size, size)
    backbone.train()(x)  # running statistics of its own
    save_backbone(backbone, tmp_path / "backbone.safetensors")
    for read in (
        load_backbone(tmp_path / "backbone.safetensors"),
        build_backbone(
            "resnet18",
            channels=channels,
            size=size,
            init=str(tmp_path / "backbone.safetensors"),
            normalisation=Normalisation((0.5,), (0.5,)),
            seed=9,
        ),
    ):
        assert read.normalisation == GREY
        assert read.describe() == backbone.describe()
        np.testing.assert_array_equal(features(read, x), features(backbone, x))
    assert [p.name for p in tmp_path.iterdir()] == ["backbone.safetensors"]


@pytest.mark.parametrize(
    ("name", "channels", "size", "word"),
    [("resnet18", 3, 64, "'channels': 3"), ("resnet18", 1, 32, "'stem': 'cifar'"), ("resnet50", 1, 64, "resnet50")],
)
def test_a_backbone_file_that_does_not_fit_is_refused_with_what_it_holds(
    name: str, channels: int, size: int, word: str, tmp_path: Path
) -> None:
    file = tmp_path / "backbone.safetensors"
    save_backbone(random_backbone(), file)
    with pytest.raises(ValueError, match=r"backbone.safetensors must hold a backbone with .* got .*imagenet") as caught:
        build_backbone(name, channels=channels, size=size, init=str(file), normalisation=GREY, seed=0)
    assert word in str(caught.value)


def test_an_init_that_does_not_exist_is_named_with_the_choices() -> None:
    with pytest.raises(FileNotFoundError, match="init must be random, imagenet or a backbone file, got 'imagenett'"):
        build_backbone("resnet18", channels=1, size=64, init="imagenett", normalisation=GREY, seed=0)


def test_a_file_that_is_no_exported_backbone_is_refused_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "text.safetensors").write_text("not tensors")
    save_file({"a": torch.zeros(2)}, tmp_path / "bare.safetensors")
    save_file(
        {"a": torch.zeros(2)},
        tmp_path / "wrong.safetensors",
        metadata={
            "cxr_helpers": '{"backbone": "resnet18", "channels": 1, "stem": "cifar", "mean": [0.5], "std": [0.5]}'
        },
    )
    for name in ("text", "bare", "wrong"):
        with pytest.raises(ValueError, match=f"{name}.safetensors must be a backbone exported by a run") as caught:
            load_backbone(tmp_path / f"{name}.safetensors")
        assert "\n" not in str(caught.value)


def test_a_backbone_that_cannot_be_written_leaves_what_was_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "backbone.safetensors"
    save_backbone(random_backbone(seed=0), file)
    before = file.read_bytes()

    def full_disk(target: Path, content: bytes) -> int:
        with open(target, "wb") as handle:
            handle.write(content[: len(content) // 2])
        raise OSError("No space left on device")

    with monkeypatch.context() as patch, pytest.raises(OSError, match="No space"):
        patch.setattr(Path, "write_bytes", full_disk)
        save_backbone(random_backbone(seed=1), file)
    assert file.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == [file.name]


@pytest.mark.parametrize(("name", "channels"), [("resnet34", 1), ("resnet18", 2)])
def test_an_unknown_architecture_or_number_of_channels_is_refused(name: str, channels: int) -> None:
    with pytest.raises(ValueError, match="must be"):
        Backbone(name, channels, "imagenet", GREY)
