"""Properties that hold for whatever comes: policies, configurations, losses, files, names.

`make test` tries a few dozen fixed examples of each; with `CXR_FUZZ=1000` a thousand new ones.
"""

from __future__ import annotations

import json
import os
import tempfile
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from datafiles import write_archive
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from samples import one_sentence

from cxr_helpers import AugmentationPolicy, PretrainConfig, TwoViews, nt_xent_loss, vicreg_loss
from cxr_helpers.augment import draw_table, magnitude_fields
from cxr_helpers.data import load_dataset
from cxr_helpers.data.folders import _decode, _File
from cxr_helpers.fields import spec_of
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


@given(st.dictionaries(st.sampled_from([item.name for item in magnitude_fields()]), NUMBERS, max_size=6))
@example({"crop_scale_min": 0.9, "crop_ratio_min": 0.1, "crop_ratio_max": 0.2})
def test_a_policy_is_refused_by_the_name_of_a_field_or_describes_itself(changes: dict[str, Any]) -> None:
    try:
        policy = AugmentationPolicy(name="x", reason="y", **changes)
    except ValueError as error:
        said = one_sentence(error)
        assert " must be " in said and any(item.name in said for item in magnitude_fields())
        return
    rows = policy.describe(3)
    assert [row.operation for row in rows] == list(policy.enabled_operations())
    assert all(0 < row.probability <= 1 for row in rows)
    assert json.loads(json.dumps(asdict(policy), allow_nan=False))["crop_scale_min"] == policy.crop_scale_min


LEGAL = {
    item.name: st.floats(spec_of(item).low, spec_of(item).high)
    if item.type == "float"
    else st.integers(int(spec_of(item).low), int(spec_of(item).high))
    for item in magnitude_fields()
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


# ---- files


ARRAYS = st.sampled_from(["train_images", "val_labels", "test_images", "test_labels", "val_groups"])
ANY_ARRAY = hnp.arrays(
    st.one_of(hnp.scalar_dtypes(), hnp.unicode_string_dtypes(max_len=4)),
    st.one_of(
        hnp.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=4), st.sampled_from([(4,), (4, 1), (4, 28, 28)])
    ),
)


@given(st.dictionaries(ARRAYS, ANY_ARRAY, min_size=1, max_size=2))
def test_an_archive_of_any_arrays_is_read_as_what_it_holds_or_refused(arrays: dict[str, Any]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        write_archive(Path(folder), **arrays)
        try:
            dataset = load_dataset("breastmnist", 28, folder)
        except ValueError as error:
            assert "breastmnist.npz" in one_sentence(error)
            return
        assert len(dataset.fingerprint) == 64
        for key, array in arrays.items():
            split, part = key.split("_")
            read = getattr(getattr(dataset, split), part)
            np.testing.assert_array_equal(np.asarray(read).ravel(), array.ravel())


MAGIC = (b"", b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff\xe0\x00\x10JFIF\x00", b"RIFF\x40\x00\x00\x00WEBPVP8 ", b"II*\x00")


@given(st.sampled_from(MAGIC), st.binary(max_size=200), st.integers(1, 9))
def test_any_bytes_called_an_image_are_an_image_or_skipped_for_a_reason(magic: bytes, rest: bytes, size: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "x.png"
        path.write_bytes(magic + rest)
        read = _decode(_File(path, "x.png", "train", 0), size)
        assert read in ("empty", "damaged or truncated") if isinstance(read, str) else len(read.pixels) == size


@given(st.text(max_size=40))
@example("../x")
@example("\\\0")
def test_any_name_of_a_data_set_is_answered_in_one_sentence(name: str) -> None:
    assume(name not in ("phantom", "phantom_multilabel", "phantom_shapes"))
    with tempfile.TemporaryDirectory() as folder, pytest.raises((ValueError, FileNotFoundError)) as error:
        load_dataset(name, 28, folder)
    one_sentence(error.value)
