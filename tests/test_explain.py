"""Grad-CAM of a linear probe: the closed form at the last stage, the grid of an earlier one, a backbone left alone."""

import numpy as np
import torch
from conftest import texture_dataset

from cxr_helpers.augment import Normalisation, eval_transform
from cxr_helpers.models import resnet
from cxr_helpers.probe import LinearHead
from cxr_helpers.study.explain import grad_cam


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
