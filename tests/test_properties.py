"""Properties that hold for whatever comes: policies, configurations, losses.

`make test` tries a few dozen fixed examples of each; with `CXR_FUZZ=1000` a thousand new ones.
"""

from __future__ import annotations

import json
import os
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from samples import one_sentence

from cxr_helpers import AugmentationPolicy, PretrainConfig, TwoViews, nt_xent_loss, vicreg_loss
from cxr_helpers.augment import SPECS, draw_table
from cxr_helpers.recipes import run_id

THOROUGH = int(os.environ.get("CXR_FUZZ", "0"))
settings.register_profile(
    "here", max_examples=THOROUGH or 25, derandomize=not THOROUGH, deadline=None, database=None, print_blob=True
)
settings.load_profile("here")

NUMBERS = st.one_of(
    st.floats(), st.integers(-(10**6), 10**6), st.floats(0, 2), st.sampled_from([0, 1, True, 1e300, "a", None])
)


# ---- policies and configurations


@given(st.dictionaries(st.sampled_from(list(SPECS)), NUMBERS, max_size=6))
@example({"crop_scale_min": 0.9, "crop_ratio_min": 0.1, "crop_ratio_max": 0.2})
def test_a_policy_is_refused_by_the_name_of_a_field_or_describes_itself(changes: dict[str, Any]) -> None:
    try:
        policy = AugmentationPolicy(name="x", reason="y", **changes)
    except ValueError as error:
        said = one_sentence(error)
        assert " must be " in said and any(name in said for name in SPECS)
        return
    rows = policy.describe(3)
    assert all(0 < row.probability <= 1 for row in rows)
    assert json.loads(json.dumps(asdict(policy), allow_nan=False))["crop_scale_min"] == policy.crop_scale_min


LEGAL = {
    name: st.integers(int(spec.low), int(spec.high))
    if name.startswith("randaugment")
    else st.floats(spec.low, spec.high)
    for name, spec in SPECS.items()
}


@settings(max_examples=THOROUGH // 5 or 15)
@given(
    st.fixed_dictionaries({}, optional=LEGAL),
    st.integers(1, 24),
    st.integers(1, 24),
    st.sampled_from([1, 3]),
    st.integers(0, 99),
)
@example({"blur_prob": 1.0}, 1, 1, 1, 0)
def test_views_of_any_legal_policy_and_size_are_images_in_the_unit_range(
    changes: dict[str, Any], side: int, size: int, channels: int, seed: int
) -> None:
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


WHOLE = ("size", "epochs", "batch_size", "seed")
BROKEN = ("lr", "weight_decay", "warmup_epochs", "backbone_lr_factor", "label_fraction", "online_lr")
CHANGES = {name: st.one_of(st.integers(-9, 999), NUMBERS) for name in WHOLE} | dict.fromkeys(BROKEN, NUMBERS)


@given(st.fixed_dictionaries({}, optional=CHANGES), st.text(max_size=30))
def test_a_configuration_is_refused_by_the_name_of_a_field_or_names_a_folder(
    changes: dict[str, Any], dataset: str
) -> None:
    try:
        config = PretrainConfig(dataset=dataset, **changes)
    except ValueError as error:
        said = one_sentence(error)
        assert " must be " in said and any(said.startswith(name) for name in changes)
        return
    kept = json.loads(json.dumps(asdict(config), allow_nan=False))
    assert PretrainConfig(**kept) == config and all(type(kept[name]) is int for name in ("size", "epochs", "seed"))
    name = run_id({**asdict(config), "fingerprint": "content"})
    assert not set(name) & set("/\\\0. \n") and Path(name).name == name


# ---- losses


def embeddings(largest: float) -> Any:
    shape = st.tuples(st.integers(2, 6), st.integers(1, 5))
    values = st.floats(-largest, largest, width=32)
    return shape.flatmap(
        lambda s: st.tuples(hnp.arrays(np.float32, s, elements=values), hnp.arrays(np.float32, s, elements=values))
    )


@given(embeddings(1e6), st.floats(0.01, 10))
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
