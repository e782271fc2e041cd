"""Backbones: stages and depths, stem by size, initial weights, one file format, files of others, exports to others."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
import torchvision
from conftest import Planted, texture_config, texture_dataset
from datafiles import offline  # noqa: F401  a fixture
from safetensors.torch import load_file
from samples import one_sentence
from torch import nn
from torchvision.models import ResNet

from cxr_helpers.augment import Normalisation, normalise
from cxr_helpers.config import RuntimeConfig
from cxr_helpers.models import Backbone, build_backbone, export_run, imagenet_state, load_backbone, save_backbone
from cxr_helpers.models.resnet import IMAGENET
from cxr_helpers.pretrain import pretrain
from cxr_helpers.runs import Run

GREY = Normalisation((0.3,), (0.7,))


def random_backbone(size: int = 64, channels: int = 1, seed: int = 0, name: str = "resnet18") -> Backbone:
    """Under statistics of its own, so that those of ImageNet would show."""
    about: dict[str, Any] = {"channels": channels, "size": size, "normalisation": GREY.for_channels(channels)}
    backbone = build_backbone(name, init="random", seed=seed, **about)
    backbone.train()(torch.randn(2, channels, 64, 64))
    return backbone.eval()


def from_file(init: str | Path, channels: int = 1, size: int = 64, name: str = "resnet18") -> Backbone:
    return build_backbone(name, channels=channels, size=size, init=str(init), normalisation=GREY, seed=0)


@pytest.fixture(scope="module")
def resnet() -> ResNet:
    """A ResNet-18 whose running statistics are not the trivial ones, standing in for ImageNet's."""
    torch.manual_seed(0)
    net = torchvision.models.resnet18()
    with torch.no_grad():
        net.train()(torch.randn(4, 3, 64, 64))
    return net.eval()


@pytest.fixture
def imagenet_file(resnet: ResNet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    file = tmp_path / "resnet18.pth"
    torch.save(resnet.state_dict(), file)
    monkeypatch.setenv("CXR_IMAGENET_WEIGHTS", str(file))
    return file


@pytest.mark.parametrize(("name", "size", "blocks"), [("resnet18", 63, 9), ("resnet18", 64, 9), ("resnet50", 64, 17)])
@torch.no_grad()
def test_the_last_stages_mean_is_the_features_and_blocks_are_counted(name: str, size: int, blocks: int) -> None:
    backbone, x = random_backbone(size, name=name), torch.randn(2, 1, 64, 64)
    maps = list(backbone.stages(x).values())
    torch.testing.assert_close(maps[-1].mean((2, 3)), backbone(x))
    assert backbone(x).shape == (2, backbone.feature_dim)
    assert [64 // m.shape[-1] for m in maps] == ([1, 2, 4, 8] if size < 64 else [4, 8, 16, 32])
    depths = [backbone.depth(key) for key, _ in backbone.named_parameters()]
    assert depths == sorted(depths) and set(depths) == set(range(blocks))


def test_a_seed_decides_the_random_weights_and_leaves_torchs_generator_alone() -> None:
    state = torch.get_rng_state()
    about: dict[str, Any] = {"channels": 1, "size": 64, "init": "random", "normalisation": GREY}
    nets = [build_backbone("resnet18", **about, seed=seed) for seed in (0, 0, 1)]
    assert torch.equal(torch.get_rng_state(), state)
    first, same, other = ([p for p in net.parameters() if p.ndim > 1] for net in nets)
    assert all(torch.equal(a, b) and not torch.equal(a, c) for a, b, c in zip(first, same, other, strict=True))


@pytest.mark.parametrize("channels", [1, 3])
@torch.no_grad()
def test_imagenet_weights_see_grey_as_three_equal_channels(channels: int, resnet: ResNet, imagenet_file: Path) -> None:
    backbone = from_file("imagenet", channels).eval()
    x = torch.randn(3, channels, 64, 64)
    without_classifier = nn.Sequential(*list(resnet.children())[:-1], nn.Flatten())
    torch.testing.assert_close(backbone(x), without_classifier(x.expand(-1, 3, -1, -1)), rtol=1e-5, atol=1e-5)
    assert backbone.normalisation == IMAGENET[channels] and IMAGENET[1] == Normalisation((0.449,), (0.226,))


def test_imagenet_weights_are_told_apart(resnet: ResNet, imagenet_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ValueError, match=r"from 64 px up .* got the CIFAR stem"):
        from_file("imagenet", size=32)
    with pytest.raises(ValueError, match=r"must be a state_dict of resnet50, key by key; Missing key.*layer1.0.conv3"):
        from_file("imagenet", name="resnet50")
    state, digest = resnet.state_dict(), imagenet_state("resnet18")[1]
    for key, same in (("fc.bias", True), ("bn1.bias", False)):
        torch.save({**state, key: state[key] + 1}, imagenet_file)
        assert (imagenet_state("resnet18")[1] == digest) is same
    monkeypatch.setenv("CXR_IMAGENET_WEIGHTS", "none.pth")
    with pytest.raises(FileNotFoundError, match=r"CXR_IMAGENET_WEIGHTS must name a file, got 'none\.pth'"):
        imagenet_state("resnet18")


@pytest.mark.usefixtures("offline")
def test_without_a_network_the_message_names_the_way_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    with pytest.raises(FileNotFoundError, match=r"resnet18 could not be downloaded \(.*Name or serv.*\).*CXR_IMAGE"):
        imagenet_state("resnet18")


@pytest.mark.parametrize("read", [lambda file: imagenet_state("resnet18"), load_backbone])
def test_a_file_that_would_run_code_is_refused(read: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PLANTED", str(tmp_path / "harmed"))
    monkeypatch.setenv("CXR_IMAGENET_WEIGHTS", str(tmp_path / "evil.pth"))
    torch.save({"conv1.weight": Planted()}, tmp_path / "evil.pth")
    with pytest.raises(ValueError, match=r"evil\.pth .*must be a state_dict readable without running code"):
        read(tmp_path / "evil.pth")
    assert not (tmp_path / "harmed").exists()


@pytest.mark.parametrize(("size", "channels"), [(64, 1), (32, 3)])
def test_a_saved_backbone_is_read_back_by_torchvisions_keys(size: int, channels: int, tmp_path: Path) -> None:
    backbone, file = random_backbone(size, channels, seed=3), tmp_path / "backbone.safetensors"
    save_backbone(backbone, file, run="a run", command="python train.py")
    x = torch.randn(4, channels, size, size)
    for read in (load_backbone(file), from_file(file, channels, size)):
        assert read.describe() == backbone.describe() and read.normalisation == GREY.for_channels(channels)
        assert torch.equal(read.eval()(x), backbone(x))
    assert set(load_file(file)) | {"fc.weight", "fc.bias"} == set(torchvision.models.resnet18().state_dict())
    assert [p.name for p in tmp_path.iterdir()] == [file.name]


@torch.no_grad()
def test_a_file_of_others_comes_in_key_by_key(tmp_path: Path) -> None:
    backbone, x = random_backbone(channels=3), torch.randn(2, 3, 64, 64)
    state = backbone.net.state_dict()
    for form in (
        {**state, "fc.weight": torch.zeros(9, 512), "fc.bias": torch.zeros(9)},
        {f"module.backbone.{key}": value for key, value in state.items()},
        {"encoder_state_dict": state, "epoch": 3},
        {key: value for key, value in state.items() if "num_batches" not in key},
    ):
        torch.save(form, tmp_path / "foreign.pth")
        read = from_file(tmp_path / "foreign.pth", channels=3).eval()
        assert torch.equal(read(x), backbone(x)) and read.normalisation == IMAGENET[3]


def test_a_file_that_does_not_fit_is_refused_with_the_key_or_what_it_holds(tmp_path: Path) -> None:
    state = random_backbone().net.state_dict()
    two = {f"{part}.{key}": value for key, value in state.items() for part in "ab"}
    for odd, said in (
        ({key: value for key, value in state.items() if key != "conv1.weight"}, "Missing.*conv1.weight"),
        ({**state, "layer3.2.conv1.weight": torch.zeros(1)}, "Unexpected.*layer3.2.conv1.weight"),
        (two, "of one ResNet or ViT, got a.layer1.*b.layer"),
    ):
        torch.save(odd, tmp_path / "odd.pth")
        with pytest.raises(ValueError, match=rf"^odd.pth must be a state_dict.*{said}") as caught:
            load_backbone(tmp_path / "odd.pth")
        assert one_sentence(caught.value)
    file = tmp_path / "b.safetensors"
    save_backbone(random_backbone(), file)
    with pytest.raises(ValueError, match=r"b.safetensors must hold a backbone with .*'channels': 3.* got .*imagenet"):
        from_file(file, channels=3)
    with pytest.raises(FileNotFoundError, match="init must be random, imagenet or a backbone file, got 'imagenett'"):
        from_file("imagenett")


def test_encoders_side_by_side_are_one_network_that_a_file_holds(tmp_path: Path) -> None:
    parts, files = [], []
    for i, normalisation in enumerate((GREY, Normalisation((0.5,), (0.5,)))):
        part = random_backbone(seed=i)
        part.normalisation = normalisation
        parts.append(part)
        files.append(tmp_path / f"{i}.safetensors")
        save_backbone(part, files[-1])
    fused = from_file(" + ".join(map(str, files))).eval()
    x = torch.rand(2, 1, 64, 64)
    with torch.no_grad():
        alone = torch.cat([part(normalise(x, part.normalisation)) for part in parts], dim=1)
        torch.testing.assert_close(fused(normalise(x, fused.normalisation)), alone)
        maps = fused.stages(x)
    assert fused.feature_dim == 1024 and maps["layer3"].shape == (2, 512, 4, 4)
    torch.testing.assert_close(maps["layer4"].mean((2, 3)), alone)
    depths = {fused.depth(key) for key, _ in fused.named_parameters()}
    assert depths == set(range(9)) and fused.depth("net.1.layer2.0.conv1.weight") == 3
    save_backbone(fused, tmp_path / "both.safetensors")
    with torch.no_grad():
        torch.testing.assert_close(load_backbone(tmp_path / "both.safetensors").eval()(x), alone)
    save_backbone(random_backbone(size=32), tmp_path / "small.safetensors")
    with pytest.raises(ValueError, match=r"small.safetensors must hold a backbone with .*imagenet.* got .*cifar"):
        from_file(f"{files[0]} + {tmp_path / 'small.safetensors'}")


def run_of(runtime: RuntimeConfig, channels: int = 1) -> Run:
    data = texture_dataset(counts=(16, 12, 12), channels=channels)
    return pretrain(texture_config(epochs=0, policy="none"), data, runtime)


@pytest.mark.parametrize(("channels", "target"), [(1, "out"), (3, "out.pth")])
def test_torchvision_takes_every_key(channels: int, target: str, runtime: RuntimeConfig, tmp_path: Path) -> None:
    run = run_of(runtime, channels=channels)
    file = export_run(run, tmp_path / target)
    state = load_file(file) if file.suffix == ".safetensors" else torch.load(file, weights_only=True)
    net = torchvision.models.resnet18()
    if channels == 1:
        net.conv1 = nn.Conv2d(1, 64, 7, 2, 3, bias=False)
    assert net.load_state_dict(state, strict=False) == (["fc.weight", "fc.bias"], [])
    net.fc = nn.Identity()
    x = torch.randn(2, channels, 64, 64)
    with torch.inference_mode():
        assert torch.equal(net.eval()(x), run.backbone().eval()(x))
        assert torch.equal(load_backbone(file).eval()(x), net(x))
    said = json.loads(file.with_suffix(".json").read_text())
    assert said["run"] == run.id and said["command"] == run.environment["command"] and said["channels"] == channels


def test_only_an_export_is_replaced(tiny_net: None, runtime: RuntimeConfig, tmp_path: Path) -> None:
    run, before = run_of(runtime), run_of(runtime).weights.read_bytes()
    export_run(run, tmp_path / "out")
    export_run(run, tmp_path / "out")
    (tmp_path / "mine.json").write_text("my notes")
    for target in (run.path, tmp_path / "mine.pth"):
        with pytest.raises(ValueError, match=r"--export must name a new folder or \.pth file, or an earlier"):
            export_run(run, target)
    with pytest.raises(ValueError, match="--export must name a new folder"):
        export_run(run, tmp_path / "mine.json")
    assert run.weights.read_bytes() == before and (tmp_path / "mine.json").read_text() == "my notes"
