"""Grad-CAM of a linear probe: the closed form at the last stage, a reference at earlier ones, a backbone left alone."""

from typing import Any

import numpy as np
import pytest
import torch
from conftest import texture_dataset
from torch import Tensor, nn

from cxr_helpers.augment import Normalisation, eval_transform
from cxr_helpers.models import Backbone, ViT, resnet
from cxr_helpers.probe import LinearHead
from cxr_helpers.study import grad_cam


def test_the_last_stages_map_is_that_of_the_closed_form_and_maps_leave_the_backbone_as_it_was() -> None:
    rng, images, plain = np.random.default_rng(0), texture_dataset().test.images[:5], Normalisation((0.0,), (1.0,))
    about = {"mean": rng.normal(size=512), "std": rng.uniform(0.5, 2, 512), "converged": True}
    head = LinearHead(weights=rng.normal(size=(512, 2)), bias=rng.normal(size=2), **about)  # type: ignore[arg-type]
    backbone = resnet.ResNet("resnet18", 1, "imagenet", plain).train()
    before = {key: value.clone() for key, value in backbone.state_dict().items()}
    found = grad_cam(backbone, head, images, 1)
    assert grad_cam(backbone, head, images, 0, "layer3").shape == (5, 4, 4)
    assert all(torch.equal(value, before[key]) for key, value in backbone.state_dict().items())
    assert backbone.training and all(p.grad is None for p in backbone.parameters())
    with torch.no_grad():
        cells = backbone.eval().stages(eval_transform(images, plain))["layer4"].double().numpy()  # [5, 512, 2, 2]
    expected = np.einsum("d,ndhw->nhw", head.weights[:, 1] / head.std, cells) / 4
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4)
    odds = head.logits(cells.mean(axis=(2, 3)))[:, 1]
    level = head.bias[1] - head.mean @ (head.weights[:, 1] / head.std)
    np.testing.assert_allclose(found.sum(axis=(1, 2)) + level, odds, atol=1e-3)


PLAIN = Normalisation((0.5,), (0.5,))


def head_of(backbone: Backbone, outputs: int) -> LinearHead:
    rng, width = np.random.default_rng(1), backbone.feature_dim
    about: dict[str, Any] = {"mean": rng.normal(size=width), "std": rng.uniform(0.5, 2, width), "converged": True}
    return LinearHead(weights=rng.normal(size=(width, outputs)), bias=rng.normal(size=outputs), **about)


def by_hooks(backbone: Backbone, layer: nn.Module, head: LinearHead, x: Tensor, column: int) -> np.ndarray:
    """Grad-CAM by the book: the layer's output and its gradient, tokens [B, N, D] put back on their grid."""
    kept: list[Tensor] = []
    hook = layer.register_forward_hook(lambda module, args, output: kept.append(output) or output.retain_grad())
    logits = (backbone(x) - torch.tensor(head.mean)) / torch.tensor(head.std) @ torch.tensor(head.weights)
    logits[:, column].sum().backward()
    hook.remove()
    (act,), slope = kept, kept[0].grad
    assert slope is not None
    if act.ndim == 3:
        side = round(act.shape[1] ** 0.5)
        act, slope = (t.detach().permute(0, 2, 1).reshape(len(t), -1, side, side) for t in (act, slope))
    return (slope.mean((2, 3), keepdim=True) * act).sum(1).detach().numpy()


@pytest.mark.parametrize("name", ["cnn", "vit"])
def test_maps_of_both_architectures_are_those_of_the_definition(name: str) -> None:
    torch.manual_seed(0)
    backbone: Any = ViT("vit_tiny6", 1, "patch8", PLAIN, 8) if name == "vit" else resnet.ResNet(
        "resnet18", 1, "imagenet", PLAIN)  # fmt: skip
    backbone, images = backbone.eval(), texture_dataset().test.images[:3]
    x, head, net = eval_transform(images, PLAIN), head_of(backbone, 3), backbone.net
    layers = (
        {"block3": net.blocks[2], "block6": net.norm} if name == "vit" else {"layer3": net.layer3, "layer4": net.layer4}
    )
    for stage, layer in layers.items():
        for label in (0, 2):
            expected = by_hooks(backbone, layer, head, x, label)
            np.testing.assert_allclose(grad_cam(backbone, head, images, label, stage), expected, rtol=1e-3, atol=1e-5)
    if name == "cnn":
        captum = pytest.importorskip("captum.attr")
        weights, bias = torch.tensor(head.weights / head.std[:, None]).float(), torch.zeros(3)
        theirs = captum.LayerGradCam(lambda x: backbone(x) @ weights + bias, net.layer3).attribute(x, target=1)
        np.testing.assert_allclose(
            grad_cam(backbone, head, images, 1, "layer3"), theirs[:, 0].detach().numpy(), rtol=1e-3, atol=1e-5
        )


def test_a_binary_probes_classes_are_each_others_opposites_and_a_class_that_is_not_there_is_refused() -> None:
    backbone, images = ViT("vit_tiny6", 1, "patch8", PLAIN, 8), texture_dataset().test.images[:2]
    binary = head_of(backbone, 1)
    ill = grad_cam(backbone, binary, images, 1)
    np.testing.assert_allclose(grad_cam(backbone, binary, images, 0), -ill)
    maps = backbone.eval().stages(eval_transform(images, PLAIN))["block6"].detach().double()
    expected = np.einsum("d,ndhw->nhw", binary.weights[:, 0] / binary.std, maps) / 64
    np.testing.assert_allclose(ill, expected, rtol=1e-3, atol=1e-5)
    for head, label, classes in ((binary, 2, 2), (binary, -1, 2), (head_of(backbone, 14), 14, 14)):
        with pytest.raises(
            ValueError, match=rf"^label must be one of the probe's {classes} classes, from 0, got {label}$"
        ):
            grad_cam(backbone, head, images, label)
    with pytest.raises(ValueError, match=r"stage must be one of block1, .*, got 'layer4'"):
        grad_cam(backbone, binary, images, 1, "layer4")
