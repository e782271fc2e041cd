"""Rivals of the pretext tasks: they solve what needs no learning, see no trace where none is, and nothing hidden."""

import numpy as np
import pytest
import torch
from torch import Tensor
from torchvision.transforms.functional import InterpolationMode, rotate

from cxr_helpers.augment import CORRUPTIONS, KINDS
from cxr_helpers.data import Dataset, Split, load_dataset
from cxr_helpers.probe import fit_head
from cxr_helpers.study import inpainting_rivals, patch_rivals, rival_accuracies
from cxr_helpers.study import rivals as module


def with_images(train: Tensor, val: Tensor) -> Dataset:
    splits = [Split(images=x, labels=torch.zeros(len(x), dtype=torch.long)) for x in (train, val, val)]
    named = dict(zip(("train", "val", "test"), splits, strict=True))
    return Dataset(name="own", size=train.shape[-1], task="binary", class_names=("a", "b"), provenance={}, **named)


def test_thumbnails_solve_rotation_of_gradients_and_nothing_of_noise() -> None:
    ramp = torch.linspace(60, 180, 16).view(1, 1, 16, 1).expand(90, 1, 16, 16)
    noise = torch.randint(0, 60, (90, 1, 16, 16), generator=torch.Generator().manual_seed(0))
    images = (ramp + noise).to(torch.uint8)
    table = rival_accuracies(with_images(images[:50], images[50:]), "rotation")
    assert (table.accuracy == 1).all() and (table.images == 40).all() and len(table) == 2 * (1 + 4)
    noise = noise.to(torch.uint8)
    table = rival_accuracies(with_images(noise[:50], noise[50:]), "rotation")
    assert table.accuracy[table.operation == "all"].max() < 0.45
    with pytest.raises(ValueError, match="method must be one of rotation, consistency, got 'simclr'"):
        rival_accuracies(with_images(images[:50], images[50:]), "simclr")


def test_sharpness_is_at_chance_on_exact_permutations_and_sees_five_degrees() -> None:
    data = load_dataset("phantom", 64, max_train_images=200, max_eval_images=150)
    table = rival_accuracies(data, "consistency").set_index(["rival", "operation"]).accuracy
    assert (table["sharpness inside quadrants"] - 0.5).abs().max() < 0.02 and len(table) == 3 * (5 + 7)
    assert (table["sharpness"][["flips", "rot180"]] - 0.5).abs().max() < 0.02
    assert table["sharpness"]["halves up-down"] > 0.8 and table["8 x 8 means"]["rotations"] > 0.95  # seams; places
    x = []
    for split in (data.train, data.val):
        turned = rotate(split.images, 5, InterpolationMode.BILINEAR)
        x.append(torch.cat([module.sharpness_inside(i[..., 8:-8, 8:-8]) for i in (split.images, turned)]).numpy())
    y, val_y = (np.repeat([0, 1], len(part) // 2) for part in x)
    head = fit_head(x[0], y, task="multiclass", num_outputs=2, c=1.0, max_iter=500)
    assert (head.logits(x[1]).argmax(axis=1) == val_y).mean() > 0.9


def test_a_question_is_of_the_operation_it_names() -> None:
    asked = module.questions("consistency", [60, 40])
    families = {"all", *CORRUPTIONS}
    for name, kinds in asked.items():
        found = {KINDS[k] for k in kinds[0].flatten()}
        assert "rot0" not in found and (name in families or found == {name})
        assert name not in CORRUPTIONS or found <= set(CORRUPTIONS[name])
    assert len({KINDS[k].split()[0][:3] for k in asked["all"][0].flatten()}) == 4


def test_gappy_pca_recovers_what_is_hidden_of_a_subspace() -> None:
    rng = np.random.default_rng(0)
    patterns, weights = rng.integers(0, 12, (4, 256)), rng.integers(0, 6, (80, 4))
    images = torch.from_numpy((weights @ patterns).astype(np.uint8)).view(80, 1, 16, 16)
    table = inpainting_rivals(with_images(images[:50], images[50:]), 0.2, 0.5).set_index("rival").l1
    assert table.iloc[1] < 1e-4 < 0.01 < table["mean image"]
    of_patches = patch_rivals(with_images(images[:50], images[50:]), 4, 0.5).set_index("rival")
    assert of_patches.mse.iloc[1] < 1e-6 and of_patches.share.iloc[1] < 1e-4 < of_patches.share["mean image"] < 2
    truth = (images[50:].double() / 255).flatten(1)
    off = (truth - (images[:50].double() / 255).flatten(1).mean(0)).square().mean()
    assert of_patches.mse["mean image"] == pytest.approx(float(off), rel=0.2)  # by half of the pixels, of most of train
    assert of_patches.share["mean image"] * float(truth.var()) == pytest.approx(of_patches.mse["mean image"])
    with pytest.raises(ValueError, match="mask_ratio must be such that one or more of the 16 patches"):
        patch_rivals(with_images(images[:50], images[50:]), 4, 0.99)


def test_a_fill_is_least_squares_on_what_is_seen_and_nothing_hidden_leaks() -> None:
    rng = np.random.default_rng(0)
    x, mean, hidden = rng.normal(size=(3, 60)), rng.normal(size=60), rng.random((3, 60)) < 0.4
    components = np.linalg.qr(rng.normal(size=(60, 5)))[0].T
    filled = module.fill(x, hidden, mean, components, np.zeros(5))
    seen = ~hidden[1]
    weights = np.linalg.lstsq(components[:, seen].T, (x[1] - mean)[seen], rcond=None)[0]
    np.testing.assert_allclose(filled[1], mean + weights @ components, atol=1e-12)
    other = np.where(hidden, rng.normal(size=x.shape), x)
    np.testing.assert_array_equal(module.fill(other, hidden, mean, components, np.zeros(5)), filled)
    assert np.abs(module.fill(x + ~hidden, hidden, mean, components, np.zeros(5)) - filled).max() > 0.1
