"""ViTs: the contract of a backbone, patches and positions by size, ImageNet's weights fitted, files of others."""

import math
from pathlib import Path
from typing import Any

import huggingface_hub
import pytest
import timm
import torch
import torch.nn.functional as F
from conftest import texture_config, texture_dataset
from samples import one_sentence, smooth_images
from torch import Tensor

from cxr_helpers.augment import Normalisation
from cxr_helpers.config import RuntimeConfig
from cxr_helpers.evaluate import evaluate
from cxr_helpers.models import SHAPES, Backbone, build_backbone, imagenet_state, load_backbone, positions, save_backbone
from cxr_helpers.pretrain import pretrain

GREY = Normalisation((0.3,), (0.7,))


def vit(size: int = 64, channels: int = 1, init: str = "random", name: str = "vit_tiny6", seed: int = 0) -> Any:
    about: dict[str, Any] = {"channels": channels, "size": size, "normalisation": GREY.for_channels(channels)}
    return build_backbone(name, init=init, seed=seed, **about).eval()


@pytest.fixture
def imagenet_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A ViT-Ti of timm's under its own keys, with a class token and weights that are not the trivial ones."""
    torch.manual_seed(0)
    net, file = timm.create_model("vit_tiny_patch16_224"), tmp_path / "vit.pth"
    torch.save({key: value + 0.02 * torch.randn_like(value) for key, value in net.state_dict().items()}, file)
    monkeypatch.setenv("CXR_VIT_WEIGHTS", str(file))
    return file


@pytest.mark.parametrize(("name", "size", "patch"), [("vit_tiny6", 32, 4), ("vit_tiny", 64, 8), ("vit_small", 128, 16)])
@torch.no_grad()
def test_the_last_stages_mean_is_the_features_and_the_patch_follows_the_size(name: str, size: int, patch: int) -> None:
    backbone, x = vit(size, name=name), torch.randn(2, 1, size, size)
    maps, blocks = backbone.stages(x), SHAPES[name][1]
    torch.testing.assert_close(maps[f"block{blocks}"].mean((2, 3)), backbone(x))
    assert len(maps) == blocks and {m.shape[1:] for m in maps.values()} == {(SHAPES[name][0], *[size // patch] * 2)}
    depths = [backbone.depth(key) for key, p in backbone.named_parameters()]
    assert depths == sorted(depths) and set(depths) == set(range(blocks + 1))
    assert backbone.depth("net.norm.bias") == backbone.depth(f"net.blocks.{blocks - 1}.attn.qkv.weight") == blocks
    assert [key for key, p in backbone.named_parameters() if not p.requires_grad] == ["net.pos_embed"]


@torch.no_grad()
def test_it_is_timms_vit_and_a_maps_cell_is_where_its_patch_is() -> None:
    backbone, x = vit(), torch.randn(2, 1, 64, 64)
    torch.testing.assert_close(backbone.net(x), backbone(x))
    other, changed = x.clone(), backbone.stages(x)["block1"]
    other[:, :, 16:24, 40:48] += 1
    tokens = (backbone.embed(other) - backbone.embed(x)).abs().sum(2) > 0
    assert tokens.nonzero()[:, 1].tolist() == [2 * 8 + 5] * 2
    largest = (backbone.stages(other)["block1"] - changed).abs().sum(1).flatten(1).argmax(1)
    assert largest.tolist() == [2 * 8 + 5] * 2


def slow_positions(grid: int, width: int) -> Tensor:
    """Sines of the row and of the column at D / 4 frequencies, then the cosines."""
    table = torch.zeros(grid * grid, width, dtype=torch.float64)
    quarter = width // 4
    for row in range(grid):
        for column in range(grid):
            for k in range(quarter):
                for part, place in enumerate((row, column)):
                    angle = place / 10_000 ** (k / quarter)
                    table[row * grid + column, part * quarter + k] = math.sin(angle)
                    table[row * grid + column, (part + 2) * quarter + k] = math.cos(angle)
    return table


@torch.no_grad()
def test_positions_are_the_papers_and_stretch_to_other_sizes() -> None:
    torch.testing.assert_close(positions(5, 12)[0].double(), slow_positions(5, 12), atol=1e-5, rtol=0)
    backbone = vit(64)
    backbone.net.patch_embed.proj.weight.zero_(), backbone.net.patch_embed.proj.bias.zero_()
    at = {size: backbone.embed(torch.zeros(1, 1, size, size)).unflatten(1, (size // 8, -1))[0] for size in (64, 96)}
    torch.testing.assert_close(at[64].flatten(0, 1)[None], positions(8, 192))
    expected = F.interpolate(at[64].permute(2, 0, 1)[None], size=(12, 12), mode="bicubic", antialias=True)[0]
    torch.testing.assert_close(at[96], expected.permute(1, 2, 0))


@torch.no_grad()
def test_imagenet_weights_at_their_own_size_are_timms_and_see_grey_as_three_equal_channels(imagenet_file: Path) -> None:
    theirs = timm.create_model("vit_tiny_patch16_224", class_token=False, global_pool="avg", fc_norm=False).eval()
    state = torch.load(imagenet_file, weights_only=True)
    state["pos_embed"] = state["pos_embed"][:, 1:]
    theirs.load_state_dict({key: value for key, value in state.items() if key != "cls_token"})
    x = torch.randn(1, 1, 224, 224)
    grey, colour = vit(224, init="imagenet", name="vit_tiny"), vit(224, 3, init="imagenet", name="vit_tiny")
    features = theirs.forward_features(x.expand(-1, 3, -1, -1)).mean(1)
    torch.testing.assert_close(colour(x.expand(-1, 3, -1, -1)), features)
    torch.testing.assert_close(grey(x), features, rtol=1e-3, atol=1e-4)
    assert colour.normalisation == Normalisation((0.5,) * 3, (0.5,) * 3) and grey.normalisation.mean == (0.5,)
    torch.testing.assert_close(load_backbone(imagenet_file).eval()(x.expand(-1, 3, -1, -1)), features)


@torch.no_grad()
def test_a_filter_for_smaller_patches_says_of_a_smaller_picture_what_it_said_of_the_large_one(
    imagenet_file: Path,
) -> None:
    large, small = vit(128, 1, init="imagenet", name="vit_tiny"), vit(64, 1, init="imagenet", name="vit_tiny")
    assert (large.patch, small.patch, small.grid) == (16, 8, 8)
    for backbone in (large, small):
        backbone.net.pos_embed.zero_()
    x = smooth_images(4, 64)
    enlarged = F.interpolate(x.unfold(2, 8, 8).unfold(3, 8, 8).flatten(0, 3)[:, None], size=(16, 16), mode="bicubic")
    kernels = [backbone.net.patch_embed.proj for backbone in (large, small)]
    seen = F.conv2d(enlarged, kernels[0].weight, stride=16).flatten(1)
    found = F.conv2d(x, kernels[1].weight, stride=8).flatten(2).transpose(1, 2).flatten(0, 1)
    assert torch.corrcoef(torch.stack([seen.flatten(), found.flatten()]))[0, 1] > 0.95


def test_what_is_none_of_imagenets_is_refused(imagenet_file: Path, tmp_path: Path) -> None:
    state, digest = torch.load(imagenet_file, weights_only=True), imagenet_state("vit_tiny")[1]
    for key, same in (("head.bias", True), ("cls_token", True), ("norm.bias", False)):
        torch.save({**state, key: state[key] + 1}, imagenet_file)
        assert (imagenet_state("vit_tiny")[1] == digest) is same
    for odd, name, said in (
        ({**state, "dist_token": state["cls_token"]}, "vit_tiny", 'Unexpected.*"dist_token"'),
        (state, "vit_tiny6", "state_dict of vit_tiny6, key by key; Unexpected.*blocks.6"),
        (torch.nn.Conv2d(1, 2, 3).state_dict(), "vit_tiny", "Missing.*pos_embed"),
    ):
        torch.save(odd, imagenet_file)
        with pytest.raises(ValueError, match=f"^ImageNet weights must be .*{said}") as caught:
            vit(64, init="imagenet", name=name)
        assert one_sentence(caught.value)
    wide = {
        key: torch.zeros(768, *value.shape[1:]) if key.startswith("patch") else value for key, value in state.items()
    }
    torch.save(wide, tmp_path / "wide.pth")
    with pytest.raises(
        ValueError, match=r"wide.pth must be a ViT's state_dict, vit_tiny6, .* got another of width 768"
    ):
        load_backbone(tmp_path / "wide.pth")


def test_without_a_network_the_message_names_the_way_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)  # else it tries for most of a minute
    with pytest.raises(FileNotFoundError, match=r"vit_tiny could not be downloaded \(.*timm's file.*CXR_VIT_WEIGHTS$"):
        imagenet_state("vit_tiny")


def test_sizes_that_the_patch_does_not_divide_are_refused_in_one_sentence() -> None:
    for size, patch in ((30, 4), (100, 8), (250, 16)):
        with pytest.raises(ValueError, match=rf"^size must be a multiple of the ViT's patch, {patch} px, got {size}$"):
            vit(size)
    with pytest.raises(ValueError, match=r"^size must be a multiple of the ViT's patch, 8 px, got 60$"):
        vit(64)(torch.zeros(1, 1, 60, 60))


@pytest.mark.parametrize(("size", "channels", "target"), [(64, 1, "b.safetensors"), (32, 3, "b.pth")])
def test_a_saved_vit_is_read_back_by_timms_keys(size: int, channels: int, target: str, tmp_path: Path) -> None:
    backbone, file, x = vit(size, channels, seed=3), tmp_path / target, torch.randn(4, channels, size, size)
    backbone.normalisation = (
        GREY.for_channels(channels) if target.endswith("s") else Normalisation((0.5,) * 3, (0.5,) * 3)
    )
    save_backbone(backbone, file, run="a run")
    for read in (load_backbone(file), vit(size, channels, str(file))):
        assert read.describe() == backbone.describe()
        assert torch.equal(read.eval()(x), backbone(x))
    with pytest.raises(ValueError, match=r"must hold a backbone with .*resnet18.* got .*vit_tiny6"):
        build_backbone("resnet18", channels=channels, size=64, init=str(file), normalisation=GREY, seed=0)
    with pytest.raises(ValueError, match=r"must hold a backbone with .*patch16.* got .*'stem': 'patch"):
        vit(224, channels, str(file))


def test_drop_path_leaves_out_branches_in_training_alone_and_more_of_them_further_up() -> None:
    backbone: Backbone = vit()
    x, plain = torch.randn(64, 1, 64, 64), vit()
    backbone.drop_path(0.6)
    rates = [block.drop_path2.drop_prob for block in backbone.net.blocks]  # type: ignore[union-attr]
    assert rates == pytest.approx([0, 0.12, 0.24, 0.36, 0.48, 0.6])
    with torch.no_grad():
        assert torch.equal(backbone(x), plain(x)) and not torch.allclose(backbone.train()(x), plain(x))
    assert backbone.state_dict().keys() == plain.state_dict().keys()
    resnet = build_backbone("resnet18", channels=1, size=64, init="random", normalisation=GREY, seed=0)
    with pytest.raises(ValueError, match=r"drop_path must be 0 for resnet18, .* got 0\.2$"):
        resnet.drop_path(0.2)


@pytest.mark.parametrize("method", ["simclr", "vicreg", "supervised", "rotation", "consistency"])
def test_every_method_trains_a_vit_and_the_probes_read_it(method: str, runtime: RuntimeConfig) -> None:
    data = texture_dataset(counts=(16, 12, 12))
    run = pretrain(texture_config(method=method, batch_size=8, backbone="vit_tiny6"), data, runtime)
    assert run.backbone().name == "vit_tiny6" and "val" in evaluate(run, data, runtime)["linear"]
    if method == "rotation":
        assert "val" in evaluate(run.weights, data, runtime, stage="block3")["linear"]
        assert "val" in evaluate("random", data, runtime, backbone="vit_tiny6")["knn"]


def test_inpainting_on_a_vit_is_refused_before_anything_is_written(runtime: RuntimeConfig, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="inpainting must have a backbone whose maps shrink, got vit_tiny6"):
        pretrain(texture_config(method="inpainting", backbone="vit_tiny6"), texture_dataset(), runtime)
    assert not list(tmp_path.rglob("*"))
