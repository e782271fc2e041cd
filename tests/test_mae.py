"""Masked autoencoding: the loss of a slow loop, nothing hidden seen, masks of the draws alone, what is refused."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import texture_config, texture_dataset
from torch import Tensor

from cxr_helpers.augment import POLICIES, Normalisation, draw_patches
from cxr_helpers.config import RuntimeConfig
from cxr_helpers.evaluate import evaluate
from cxr_helpers.methods import Batch, Target, get_options, load_method
from cxr_helpers.models import ViT, positions
from cxr_helpers.pretrain import Pretext, pretrain
from cxr_helpers.recipes import resolve

STD = 0.25


def mae(channels: int = 1, size: int = 32, **changes: Any) -> Any:
    """On a small ViT of patches of 8 px, in float64."""
    torch.manual_seed(0)
    statistics = Normalisation((0.5,) * channels, (STD,) * channels)
    backbone = ViT("vit_tiny6", channels, "patch8", statistics, size // 8)
    options = get_options("mae", {"decoder_dim": 64, "decoder_depth": 2} | changes)
    method = load_method("mae")(backbone, options, Target(task="", num_outputs=1)).double().eval()
    method.views(POLICIES["none"], size)
    return method


def batch_of(method: Any, count: int = 3, size: int = 32) -> Batch:
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(count, method.backbone.in_channels, size, size, generator=generator, dtype=torch.float64)
    x[0, :, :16] = 0.125 + 0.001 * x[0, :, :16]  # patches that are flat but for a little noise
    draws = torch.rand(count, method.num_draws, generator=generator, dtype=torch.float64)
    return Batch((x,), torch.arange(count), torch.zeros(count), draws)


def slow_errors(method: Any, batch: Batch) -> list[tuple[float, float]]:
    """Error and squared error of greys by image, one image and one patch at a time, by the paper's algorithm."""
    found, patch, options = [], 8, method.options
    (images,), grid = batch.views, batch.views[0].shape[-1] // 8
    hidden = draw_patches(batch.draws, grid, options.mask_ratio, options.centring)[:, 0].flatten(1)  # type: ignore[arg-type]
    decoder, net = method.head, method.backbone.net
    for image, away in zip(images, hidden, strict=True):
        cells = [image[:, 8 * r : 8 * r + 8, 8 * c : 8 * c + 8] for r in range(grid) for c in range(grid)]
        kernel, places = net.patch_embed.proj, net.pos_embed[0]
        tokens = [
            (kernel.weight * cell).sum((1, 2, 3)) + kernel.bias + place
            for cell, place in zip(cells, places, strict=True)
        ]
        x = torch.stack([token for token, gone in zip(tokens, away, strict=True) if not gone])[None]
        for block in net.blocks:
            x = block(x)
        read = iter(decoder.embed(net.norm(x))[0])
        full = torch.stack([decoder.mask_token[0, 0] if gone else next(read) for gone in away])
        said = decoder.last(decoder.norm(decoder.blocks((full + positions(grid, 64)[0].double())[None])))[0]
        errors, greys = [], []
        for cell, one, gone in zip(cells, said, away, strict=True):
            if gone:
                guess = one.view(-1, patch, patch)
                spread = (cell.var() + (0.01 / STD) ** 2).sqrt() if options.norm_pix else cell.new_tensor(1.0)
                target = (cell - cell.mean()) / spread if options.norm_pix else cell
                errors.append(float((guess - target).square().mean()))
                greys.append(float(((guess - target) * spread * STD).square().mean()))
        found.append((sum(errors) / len(errors), sum(greys) / len(greys)))
    return found


@pytest.mark.parametrize(("channels", "changes"), [(1, {}), (3, {"mask_ratio": 0.5, "centring": 2.0}),
                                                   (1, {"norm_pix": False, "mask_ratio": 0.9})])  # fmt: skip
@torch.no_grad()
def test_the_errors_are_those_of_a_loop_over_images_and_patches(channels: int, changes: dict[str, Any]) -> None:
    method = mae(channels, **changes)
    batch = batch_of(method)
    outputs, slow = method(batch), torch.tensor(slow_errors(method, batch), dtype=torch.float64)
    torch.testing.assert_close(torch.stack([outputs["error"], outputs["mse"]], 1).double(), slow, rtol=1e-5, atol=1e-7)
    terms = method.loss(outputs)
    assert float(terms["loss"]) == pytest.approx(float(slow[:, 0].mean()), rel=1e-5)
    assert float(terms["mse"]) == pytest.approx(float(slow[:, 1].mean()), rel=1e-5)


@torch.no_grad()
def test_what_is_hidden_cannot_reach_the_encoder_and_what_is_seen_is_no_part_of_the_error() -> None:
    method = mae(norm_pix=False)
    batch = batch_of(method)
    (x,), hidden = batch.views, method.hide(batch.draws, 32)
    features, painted = method.paint(x, hidden)
    other_features, other_painted = method.paint(torch.where(hidden, torch.randn_like(x), x), hidden)
    assert torch.equal(features, other_features) and torch.equal(painted, other_painted)
    assert not torch.allclose(method.paint(torch.where(hidden, x, x + 1), hidden)[0], features)
    torch.testing.assert_close(method(batch)["error"], ((painted - x).square() * hidden).sum((1, 2, 3)) / (12 * 64))
    seen = method.backbone.read(method.backbone.embed(x[:1])[:, ~hidden[0, 0, ::8, ::8].flatten()])
    torch.testing.assert_close(seen.mean(1), features[:1])


def test_a_gradient_reaches_every_parameter_but_the_positions_which_are_fixed() -> None:
    method = mae()
    method.loss(method(batch_of(method)))["loss"].backward()
    without = [name for name, p in method.named_parameters() if p.grad is None or not p.grad.abs().max() > 0]
    assert without == ["backbone.net.pos_embed"]


@torch.no_grad()
def test_an_image_is_masked_and_scored_the_same_in_any_batch() -> None:
    method = mae()
    batch = batch_of(method, 6)
    part = Batch((batch.views[0][2:4],), batch.indices[2:4], batch.labels[2:4], batch.draws[2:4])  # type: ignore[index]
    for name, values in method(part).items():
        torch.testing.assert_close(values, method(batch)[name][2:4])


@torch.no_grad()
def test_a_flat_patchs_noise_is_not_blown_up() -> None:
    method = mae()
    x = torch.full((1, 1, 32, 32), 0.3, dtype=torch.float64)
    x += torch.linspace(-0.5, 0.5, 32) * 4 / 255 / STD  # half a grey level within a patch
    _, spread = method._scale(x)
    assert ((x - 0.3).abs() / spread).max() < 1 and spread.min() == pytest.approx(0.01 / STD, rel=0.05)
    _, spread = method._scale(torch.randn(1, 1, 32, 32, dtype=torch.float64))
    assert spread.min() > 0.7


def config(**changes: Any) -> Any:
    small = {"decoder_dim": 32, "decoder_depth": 1} | changes.pop("options", {})
    return texture_config(method="mae", backbone="vit_tiny6", policy="crops", options=small, **changes)


def test_a_run_is_the_same_in_parts_says_what_val_holds_and_its_encoder_is_probed_and_fine_tuned(
    runtime: RuntimeConfig,
) -> None:
    data = texture_dataset(counts=(16, 12, 12))
    run = pretrain(config(epochs=2), data, runtime)
    assert {"loss", "mse", "val_loss", "val_mse", "online_auc"} <= set(run.history)
    assert "val" in evaluate(run, data, runtime)["linear"]
    tuned = texture_config(method="supervised", batch_size=8, backbone="vit_tiny6", init=str(run.weights))
    assert pretrain(tuned, data, runtime).finished
    parts = [Pretext(resolve(config()), data, replace(runtime, micro_batch=micro)) for micro in (None, 5)]
    losses = [task.step(next(iter(task.batches(0))), 0)["loss"] for task in parts]
    torch.testing.assert_close(*(torch.as_tensor(loss) for loss in losses))
    draws = [next(iter(task.batches(0))).draws for task in parts]
    assert isinstance(draws[0], Tensor) and draws[0].shape == (16, 64) and torch.equal(*draws)


@pytest.mark.parametrize(("changes", "said"), [
    ({"backbone": "resnet18"}, r"^backbone must be one of vit_tiny6, .* \(a CNN: inpainting .*, got 'resnet18'$"),
    ({"options": {"mask_ratio": 0.999}}, r"^mask_ratio must be such that one or more of the 64 .*, got 0\.999$"),
    ({"options": {"mask_ratio": 0.001}}, r"^mask_ratio must be such that one or more of the 64 .*, got 0\.001$"),
])  # fmt: skip
def test_what_cannot_be_masked_is_refused_before_anything_is_written(
    changes: dict[str, Any], said: str, runtime: RuntimeConfig, tmp_path: Path
) -> None:
    with pytest.raises(ValueError, match=said):
        pretrain(replace(config(options=changes.pop("options", {})), **changes), texture_dataset(), runtime)
    assert not list(tmp_path.rglob("*"))
