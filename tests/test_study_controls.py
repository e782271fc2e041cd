"""Rival explanations and label curves: the planted is found, curves are those by hand, looks at test are counted."""

import dataclasses

import numpy as np
import pandas as pd
import pytest
import torch
from conftest import texture_dataset
from samples import random_bytes
from studies import probed

from cxr_helpers.config import RuntimeConfig
from cxr_helpers.data import Dataset
from cxr_helpers.probe import Features, auc_score, fit_head, predict
from cxr_helpers.study import challenge
from cxr_helpers.study import controls as module


def test_frame_and_centre_are_halves_equalised_is_flat_and_statistics_by_hand_know_exposure_and_direction() -> None:
    images = random_bytes(3, 32)
    alone, gone = (module.frame(images, 1 / 8, keep=keep) for keep in (True, False))
    assert torch.equal(alone + gone, images) and not alone[..., 4:-4, 4:-4].any() and not gone[..., :4, :].any()
    flat = module.equalised(torch.cat([images, (images // 2)]))
    assert (flat[3:].float() - flat[:3].float()).abs().max() <= 2  # another exposure, the same ranks
    assert flat.float().mean((1, 2, 3)).numpy() == pytest.approx(127.5, abs=1)
    row = module.grey_statistics(torch.tensor([0, 0, 0, 255], dtype=torch.uint8).reshape(1, 1, 2, 2))[0]
    np.testing.assert_allclose(row, [0.25, 0.5, 0, 0, 0, 0, 0, 1, 1], atol=1e-6)  # the 75th percentile: 3 of 4 are 0
    image = torch.from_numpy(np.random.default_rng(0).integers(60, 120, (1, 1, 32, 32)).astype(np.uint8))
    across = image.float().repeat_interleave(2, dim=2)[..., :32, :].to(torch.uint8)  # soft from top to bottom
    x = module.sharpness_statistics(torch.cat([image, 2 * image, across]))
    np.testing.assert_allclose(x[0], x[1], atol=1e-3)  # twice the contrast
    np.testing.assert_allclose(x[0], np.log(2), atol=0.15)  # white noise: E (a - b)² = 2 var
    assert x[2, 1] < x[2, 0] - 0.4


def test_permuted_labels_keep_counts_and_patients_agreeing_and_many_at_once_are_probed_as_each_alone() -> None:
    rng, groups = np.random.default_rng(0), np.arange(30).repeat(2).astype(str)
    labels = rng.integers(0, 2, (30, 2)).repeat(2, axis=0)
    moved = module.permuted_labels(labels, groups, rng)
    assert moved.sum() == labels.sum() and not np.array_equal(moved, labels)
    assert np.array_equal(moved[::2], moved[1::2])  # both images of a patient still have one label
    labels[0] = 1 - labels[0]  # a patient with two kinds
    assert np.array_equal(np.sort(module.permuted_labels(labels, groups, rng), axis=0), np.sort(labels, axis=0))
    rng = np.random.default_rng(1)
    labels, x = rng.integers(0, 2, (60, 2)), rng.normal(size=(60, 5)).astype(np.float32)
    train = Features(x, labels, np.arange(60).astype(str))
    scores = module.shuffled_scores(train, train, c=0.1, draws=12)
    y = module.permuted_labels(labels, train.groups, np.random.default_rng(11))
    head = fit_head(x, y, task="multilabel", num_outputs=2, c=0.1, max_iter=500)
    np.testing.assert_allclose(scores[11], predict(head.logits(x), "multilabel"), atol=1e-4)
    aucs = [auc_score(labels, one) for one in scores]
    assert abs(np.mean(aucs) - 0.5) < 3 * np.std(aucs) / np.sqrt(len(aucs)) and max(aucs) < 0.95


def marked() -> Dataset:
    """Noise whose label shows as a brighter frame, as a marker of the ward would."""
    data = texture_dataset(counts=(60, 40, 60))
    splits = {}
    for name, split in data.splits.items():
        noise = torch.randint(60, 140, tuple(split.images.shape), generator=torch.Generator().manual_seed(len(name)))
        mark = module.frame(torch.full_like(split.images, 60), 1 / 8, keep=True) * split.labels[:, None, None, None]
        splits[name] = dataclasses.replace(split, images=(noise + mark).to(torch.uint8))
    return dataclasses.replace(data, **splits)


def test_a_planted_shortcut_is_found_and_looks_at_test_are_counted_once(tiny_net: None, runtime: RuntimeConfig) -> None:
    data = marked()
    with pytest.raises(ValueError, match="scored on test"):
        challenge(probed(data, runtime, test=False), data, runtime)
    run = probed(data, runtime)
    table = challenge(run, data, runtime)
    test = table.set_index("control")
    assert test.auc["as measured"] == pytest.approx(run.metrics["linear"]["test"]["auc"], abs=1e-6)
    assert test.difference["as measured"] == 0 and test.auc["as measured"] > 0.95
    there, gone = test.loc["border 1/8"], test.loc["border 1/4 removed"]
    assert there.auc > 0.95 and gone.auc < 0.75 and gone.difference_high < 0
    assert gone.low <= gone.auc <= gone.high and there.difference == pytest.approx(there.auc - test.auc.iloc[0])
    assert test.auc["shuffled labels"] == pytest.approx(0.5, abs=0.15) and test.auc["grey levels alone"] > 0.9
    assert run.metrics["control_reads"] == int((table["kind"] != "measured").sum()) - 1 + module.SHUFFLED_FITS == 48
    for file in run.path.glob("*.safetensors"):
        file.unlink()
    pd.testing.assert_frame_equal(challenge(run, data, runtime), table, check_dtype=False, rtol=1e-6)
    assert run.metrics["control_reads"] == 48
    with pytest.raises(ValueError, match="must be the one that run"):
        challenge(run, texture_dataset(counts=(38, 24, 24)), runtime)
