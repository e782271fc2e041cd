"""Data sets as values, MedMNIST files, drawn films and draws by class: what is read, recorded and promised."""

import dataclasses
import hashlib
import json
import pickle
from itertools import pairwise
from pathlib import Path
from typing import Any

import medmnist
import numpy as np
import pytest
import torch
from conftest import Planted, texture_dataset
from datafiles import COUNTS, offline, write_archive  # noqa: F401  a fixture

from cxr_helpers.data import Dataset, draw_images, keep_labels, load_dataset
from cxr_helpers.data.phantom import draw_films
from cxr_helpers.data.stratify import carve, choose_labelled

pytestmark = pytest.mark.usefixtures("offline")


def test_a_file_is_read_as_it_is_and_its_status_is_its_md5s(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_archive(tmp_path)
    content, arrays = path.read_bytes(), np.load(path)
    local = load_dataset("breastmnist", 28, tmp_path)
    assert (local.task, local.num_outputs, local.class_names) == ("binary", 1, ("malignant", "normal, benign"))
    for name, split in local.splits.items():
        np.testing.assert_array_equal(split.images.numpy()[:, 0], arrays[f"{name}_images"])
        np.testing.assert_array_equal(split.labels.numpy(), arrays[f"{name}_labels"][:, 0])
    monkeypatch.setitem(medmnist.INFO["breastmnist"], "MD5", hashlib.md5(content).hexdigest())
    official = load_dataset("breastmnist", 28, tmp_path).provenance
    assert (local.provenance["status"], official["status"]) == ("local (not MedMNIST's MD5)", "official")
    assert official["sha256"] == hashlib.sha256(content).hexdigest()
    assert path.read_bytes() == content and str(tmp_path) not in json.dumps(official)
    colour = np.random.default_rng(0).integers(0, 256, (4, 28, 28, 3), np.uint8)
    write_archive(tmp_path, "bloodmnist", **{f"{s}_images": colour.repeat(n // 4, 0) for s, n in COUNTS.items()})
    blood = load_dataset("bloodmnist", 28, tmp_path)
    np.testing.assert_array_equal(blood.val.images[:, 2].numpy(), colour[..., 2])
    assert any("subset of 16/17092 images" in note for note in blood.provenance["notes"])


def test_patients_are_read_shared_ones_counted_and_missing_labels_told_from_none(tmp_path: Path) -> None:
    groups = {f"{s}_groups": np.array([f"p{i // 2}" for i in range(n)]) for s, n in (("train", 8), ("val", 4))}
    write_archive(tmp_path, train_labels=np.array([[-1], [0], [1], [-1]] * 2, np.int8), **groups)
    dataset = load_dataset("breastmnist", 28, tmp_path)
    assert np.array_equal(dataset.train.groups, groups["train_groups"]) and dataset.test.groups is None  # type: ignore[arg-type]
    assert "4 of 4 val images share a patient with train" in dataset.provenance["notes"]
    assert dataset.train.labelled.tolist() == [False, True, True, False] * 2 and dataset.has_labels


def test_a_pickle_is_refused_its_code_not_run_the_file_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PLANTED", str(tmp_path / "the-code-ran"))
    path = write_archive(tmp_path, val_groups=np.array([Planted()] * COUNTS["val"], dtype=object))
    batch, content = tmp_path / "cifar-10-batches-py" / "data_batch_1", path.read_bytes()
    batch.parent.mkdir()
    batch.write_bytes(pickle.dumps(Planted()))
    for name, size, said in (("breastmnist", 28, "breastmnist.npz"), ("cifar10", 32, "cifar-10-batches-py")):
        with pytest.raises(ValueError, match=said):
            load_dataset(name, size, tmp_path)
    assert path.read_bytes() == content and not (tmp_path / "the-code-ran").exists()


def changed(dataset: Dataset, name: str, **fields: Any) -> Dataset:
    """The data set with some fields of a split replaced."""
    return dataclasses.replace(dataset, **{name: dataclasses.replace(dataset.splits[name], **fields)})


DATA, MANY = texture_dataset(counts=(8, 8, 8)), texture_dataset("multilabel", counts=(8, 8, 8))


def test_splits_that_do_not_fit_their_images_each_other_or_the_task_are_refused() -> None:
    images, labels = MANY.val.images, MANY.val.labels
    with pytest.raises(ValueError, match=r"val images must be \[8, 1, 64, 64\], got \[8, 3,"):
        changed(MANY, "val", images=images.expand(-1, 3, -1, -1))
    with pytest.raises(ValueError, match="labels must be as many as images, 8, got 1"):
        changed(MANY, "val", labels=labels[:1])
    with pytest.raises(ValueError, match="val labels must be -1 in a whole row"):
        changed(MANY, "val", labels=labels.index_fill(1, torch.tensor([1]), -1))


def test_the_fingerprint_changes_with_any_pixel_label_or_patient_and_an_image_takes_them_along() -> None:
    images, labels = DATA.val.images.clone(), DATA.val.labels.clone()
    images[0, 0, 0, 0] += 1
    labels[0] = -1
    changes = [{"images": images}, {"labels": labels}, {"groups": np.array(list("ppqqrrst"))}, {"groups": None}]
    assert len({DATA.fingerprint, *(changed(DATA, "val", **change).fingerprint for change in changes)}) == 5
    assert texture_dataset(counts=(8, 8, 8)).fingerprint == DATA.fingerprint
    whole = dataclasses.replace(DATA.val, masks=torch.arange(8 * 64 * 64).reshape(8, 1, 64, 64) > 4 * 64 * 64)
    framed = dataclasses.replace(DATA.val, boxes=tuple(torch.full((1, 5), float(i)) for i in range(8)))
    assert [float(boxes[0, 0]) for boxes in framed.take([6, 1]).boxes or ()] == [6, 1]
    for name, values in vars(whole.take([6, 1])).items():
        assert name == "boxes" or np.array_equal(values, vars(whole)[name][[6, 1]]), name


def test_keep_labels_hides_train_only_and_says_so() -> None:
    hidden = keep_labels(MANY, 0.25, seed=0)
    assert 0 < hidden.train.labelled.sum() < 8
    assert (hidden.train.labels[~hidden.train.labelled] == -1).all()
    assert torch.equal(keep_labels(MANY, 1.0, seed=0).train.labels, MANY.train.labels)
    assert hidden.val is MANY.val and MANY.train.labelled.all()
    assert "labels kept for" in hidden.provenance["notes"][-1] and MANY.provenance["notes"] == []
    with pytest.raises(ValueError, match="train of textures must be labelled"):
        keep_labels(changed(DATA, "train", labels=torch.full((8,), -1)), 0.5, seed=0)


@pytest.mark.parametrize("name", ["breastmnist", "phantom"])
def test_a_draw_is_what_drawing_from_the_whole_gives_and_says_how_to_get_it_again(name: str, tmp_path: Path) -> None:
    write_archive(tmp_path)
    most = {"max_train_images": 5, "max_eval_images": None}
    whole, drawn = load_dataset(name, 28, tmp_path), load_dataset(name, 28, tmp_path, max_train_images=5)
    assert drawn.fingerprint == draw_images(whole, **most).fingerprint != whole.fingerprint
    assert len(drawn.train) == 5 and not torch.equal(drawn.train.images, whole.train.images[:5])
    counts = f"5 / {len(whole.val)} / {len(whole.test)}"
    assert drawn.provenance["notes"][-1] == f"a fixed draw of {counts} images" and drawn.provenance["drawn"] == most
    same = load_dataset(name, 28, tmp_path, max_train_images=len(whole.train), max_eval_images=10**6)
    assert same.fingerprint == whole.fingerprint and same.provenance == whole.provenance


def test_images_are_what_they_were() -> None:
    means = {"phantom": [99.80, 139.87, 122.00, 121.20], "phantom_multilabel": [119.97, 145.27, 103.74, 129.43]}
    for name, positives in (("phantom", 13), ("phantom_multilabel", 20)):
        test = load_dataset(name, 64, max_train_images=20, max_eval_images=20).test
        assert test.images[:4].double().mean((1, 2, 3)).tolist() == pytest.approx(means[name], abs=0.02)
        assert int(test.labels.sum()) == positives


def test_patients_are_in_one_split_labels_where_masks_are_and_brightness_alone_tells_nothing() -> None:
    films = load_dataset("phantom", 64, max_train_images=500)
    patients = [set(split.groups) for split in films.splits.values() if split.groups is not None]
    assert len(set.union(*patients)) == sum(map(len, patients)) and len(films.test) > 2 * len(patients[2])
    for split in (films.test, draw_films("phantom_multilabel", "train", 56, np.arange(200))):
        assert torch.equal(split.masks.flatten(2).any(2), split.labels.reshape(len(split), -1) == 1)  # type: ignore[union-attr]
    images, labels = films.test.images.double(), films.test.labels
    for scores in (images.mean((1, 2, 3)), images.std((1, 2, 3))):
        wins = float((scores[labels == 1][:, None] > scores[labels == 0][None]).double().mean())
        assert 0.35 < wins < 0.65


def test_labels_are_kept_by_class_never_lose_one_and_a_larger_fraction_keeps_all_of_a_smaller_one() -> None:
    labels = np.repeat([0, 1, 2], [900, 90, 10])
    kept = [choose_labelled(labels, None, fraction, seed=3) for fraction in (0.01, 0.1, 0.5, 1.0)]
    for part, fraction in zip(kept, (0.01, 0.1, 0.5, 1.0), strict=True):
        assert np.bincount(labels[part]).tolist() == [max(1, round(fraction * n)) for n in (900, 90, 10)]
    assert all((small <= large).all() for small, large in pairwise(kept))
    assert not np.array_equal(kept[1], choose_labelled(labels, None, 0.1, seed=1))
    labels = np.zeros((1000, 3), np.int64)
    labels[::2, 0] = labels[777, 2] = 1
    rare = choose_labelled(labels, None, 0.01, seed=0)
    assert labels[rare, 2].sum() == 1 and 10 <= rare.sum() <= 12


def test_an_image_without_a_label_keeps_none_and_a_fraction_is_of_images_however_many_a_patient_has() -> None:
    labels, groups = np.arange(60) % 3 - 1, np.array([f"p{i // 3}" for i in range(60)])
    kept = choose_labelled(labels, groups, 0.5, seed=0)
    assert kept.sum() == 20 and (labels[kept] >= 0).all()
    groups = np.repeat([f"p{i}" for i in range(40)], np.arange(40) + 1)
    kept = choose_labelled(np.zeros(820, np.int64), groups, 0.3, seed=0)
    assert set(groups[kept]).isdisjoint(groups[~kept])
    assert 0.3 * 820 <= kept.sum() < 0.3 * 820 + 40


def test_a_carved_split_has_its_share_of_each_class_in_patients_of_its_own_but_not_the_only_one() -> None:
    labels = np.repeat([0, 1], [600, 200])
    groups = np.array([f"{label}-{i // 7}" for i, label in enumerate(labels)])
    taken = carve(labels, groups, 0.2, seed=0)
    assert set(groups[taken]).isdisjoint(groups[~taken])
    assert 0.17 <= taken[:600].mean() <= 0.2 and 0.15 <= taken[600:].mean() <= 0.2
    labels, groups = np.repeat([0, 1], [10, 10]), np.array(["p"] * 10 + ["q"] * 9 + ["r"])
    assert carve(labels, groups, 0.2, seed=0).tolist() == [False] * 19 + [True]
