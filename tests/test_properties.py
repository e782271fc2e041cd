"""Properties that hold for whatever comes: views of a policy, losses.

`make test` tries a few dozen fixed examples of each; with `CXR_FUZZ=1000` a thousand new ones.
"""

import os
from typing import Any

import numpy as np
import torch
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from cxr_helpers import AugmentationPolicy, TwoViews, nt_xent_loss, vicreg_loss
from cxr_helpers.augment import SPECS, draw_table

THOROUGH = int(os.environ.get("CXR_FUZZ", "0"))
settings.register_profile(
    "here", max_examples=THOROUGH or 25, derandomize=not THOROUGH, deadline=None, database=None, print_blob=True
)
settings.load_profile("here")

LEGAL = {
    name: st.integers(int(spec.low), int(spec.high))
    if name.startswith("randaugment")
    else st.floats(spec.low, spec.high)
    for name, spec in SPECS.items()
}
SIDES = st.integers(1, 24)


@settings(max_examples=THOROUGH // 5 or 15)
@given(st.fixed_dictionaries({}, optional=LEGAL), SIDES, SIDES, st.sampled_from([1, 3]), st.integers(0, 99))
@example({"blur_prob": 1.0}, 1, 1, 1, 0)
@example({"motion_prob": 1.0, "motion_px": 9.0}, 2, 2, 1, 0)
def test_legal_views_are_images(changes: dict[str, Any], side: int, size: int, channels: int, seed: int) -> None:
    try:
        policy = AugmentationPolicy(name="x", reason="y", **changes)
    except ValueError:
        assume(False)
        raise
    generator = torch.Generator().manual_seed(seed)
    images = torch.randint(0, 256, (3, channels, side, side), dtype=torch.uint8, generator=generator)
    for view in TwoViews(policy, size)(images, draw_table(3, 2, seed, 0)):
        assert view.shape == (3, channels, size, size)
        assert torch.isfinite(view).all() and view.min() >= 0 and view.max() <= 1


VALUES = st.floats(-1e6, 1e6, width=32)
PAIRS = st.tuples(st.integers(2, 6), st.integers(1, 5)).flatmap(
    lambda shape: st.tuples(*[hnp.arrays(np.float32, shape, elements=VALUES)] * 2)
)


@given(PAIRS, st.floats(0.01, 10))
@example((np.zeros((2, 3), np.float32), np.zeros((2, 3), np.float32)), 0.1)
def test_losses_and_their_gradients_are_finite_and_symmetric(pair: tuple[Any, Any], temperature: float) -> None:
    z_a, z_b = (torch.from_numpy(z.copy()).requires_grad_() for z in pair)
    contrast = nt_xent_loss(z_a, z_b, temperature=temperature)
    terms = vicreg_loss(z_a, z_b)
    assert contrast >= 0 and min(terms[name] for name in ("invariance", "variance", "covariance")) >= -1e-6
    (contrast + terms["loss"] * 1e-12).backward()
    for z in (z_a, z_b):
        assert z.grad is not None and torch.isfinite(z.grad).all()
    torch.testing.assert_close(nt_xent_loss(z_b, z_a, temperature=temperature), contrast, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(vicreg_loss(z_b, z_a)["loss"], terms["loss"], rtol=1e-4, atol=1e-4)
