"""Data sets as values, MedMNIST files, roots and draws: what is read, and what is recorded."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import pickle
from pathlib import Path
from typing import Any

import medmnist
import numpy as np
import pytest
import torch
from conftest import texture_dataset
from datafiles import COUNTS, offline, write_archive  # noqa: F401  a fixture

from cxr_helpers.data import Dataset, data_root, draw_images, keep_labels, load_dataset

pytestmark = pytest.mark.usefixtures("offline")


# ---- MedMNIST files


def test_colour_keeps_each_channel_in_its_place_and_many_labels_their_columns(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    arrays = {f"{s}_images": rng.integers(0, 256, (n, 28, 28, 3), np.uint8) for s, n in COUNTS.items()}
    labels = {f"{s}_labels": rng.integers(0, 2, (n, 14)) for s, n in COUNTS.items()}
    write_archive(tmp_path, "chestmnist", **arrays, **labels)
    dataset = load_dataset("chestmnist", 28, tmp_path)
    assert (dataset.task, dataset.num_outputs, dataset.channels) == ("multilabel", 14, 3)
    np.testing.assert_array_equal(dataset.val.images[:, 2].numpy(), arrays["val_images"][..., 2])
    np.testing.assert_array_equal(dataset.test.labels.numpy(), labels["test_labels"])
    assert any("subset of 16/112120 images" in note for note in dataset.provenance["notes"])


def test_a_file_is_read_as_it_is_its_status_follows_its_md5_and_no_absolute_path_is_recorded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
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


def test_patients_are_read_and_missing_labels_told_from_none(tmp_path: Path) -> None:
    groups = {f"{s}_groups": np.array([f"p{i // 2}" for i in range(n)]) for s, n in (("train", 8), ("val", 4))}
    write_archive(tmp_path, train_labels=np.array([[-1], [0], [1], [-1]] * 2, np.int8), **groups)
    dataset = load_dataset("breastmnist", 28, tmp_path)
    assert dataset.train.groups is not None and dataset.train.groups.tolist()[:3] == ["p0", "p0", "p1"]
    assert dataset.test.groups is None
    assert dataset.train.labelled.tolist() == [False, True, True, False] * 2 and dataset.has_labels
    write_archive(tmp_path, "chestmnist", **{f"{s}_labels": np.full((n, 14), -1) for s, n in COUNTS.items()})
    assert not load_dataset("chestmnist", 28, tmp_path).has_labels


class Payload:
    """Unpickled, it would make a folder."""

    def __init__(self, mark: Path) -> None:
        self.mark = str(mark)

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (self.mark,)


@pytest.mark.parametrize("place", ["breastmnist.npz", "inside it", "cifar-10-batches-py/data_batch_1"])
def test_a_pickle_is_refused_its_code_does_not_run_and_the_file_is_left_as_it_is(place: str, tmp_path: Path) -> None:
    payload, path = Payload(tmp_path / "the-code-ran"), tmp_path / place
    if place == "inside it":
        path = write_archive(tmp_path, val_groups=np.array([payload] * COUNTS["val"], dtype=object))
    else:
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(pickle.dumps(payload))
    content = path.read_bytes()
    with pytest.raises(ValueError, match=r"breastmnist\.npz|cifar-10-batches-py"):
        load_dataset(*(("cifar10", 32) if "batch" in place else ("breastmnist", 28)), tmp_path)
    assert path.read_bytes() == content and not (tmp_path / "the-code-ran").exists()


# ---- roots


def test_the_root_is_the_argument_then_cxr_data_then_medmnists_default(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert data_root() == Path(medmnist.info.DEFAULT_ROOT)
    monkeypatch.setenv("CXR_DATA", "~/scans")
    assert data_root() == Path.home() / "scans"
    assert data_root(tmp_path) == tmp_path


def test_a_missing_size_without_a_network_names_file_folder_and_the_ways_out_and_leaves_nothing(tmp_path: Path) -> None:
    write_archive(tmp_path)
    with pytest.raises(FileNotFoundError) as error:
        load_dataset("breastmnist", 224, tmp_path)
    for part in ("breastmnist_224.npz", str(tmp_path), "network", "CXR_DATA", "phantom"):
        assert part in str(error.value)
    assert [p.name for p in tmp_path.iterdir()] == ["breastmnist.npz"]


# ---- values


def changed(dataset: Dataset, name: str, **fields: Any) -> Dataset:
    """The data set with some fields of a split replaced."""
    return dataclasses.replace(dataset, **{name: dataclasses.replace(dataset.splits[name], **fields)})


DATA, MANY = texture_dataset(counts=(8, 8, 8)), texture_dataset("multilabel", counts=(8, 8, 8))
PARTLY = MANY.val.labels.index_fill(1, torch.tensor([1]), -1)
MISFITS: dict[str, tuple[Dataset, str, dict[str, Any]]] = {
    "val images must be [8, 1, 64, 64], got [8, 3,": (DATA, "val", {"images": DATA.val.images.expand(-1, 3, -1, -1)}),
    "labels must be as many as images, 8, got 1": (DATA, "val", {"labels": DATA.val.labels[:1]}),
    "groups must be strings": (DATA, "val", {"groups": np.zeros(8)}),
    "masks must be as many as images, 8, got 7": (DATA, "val", {"masks": torch.zeros(7, 1, 64, 64) > 0}),
    "train labels must be 0 to 1": (DATA, "train", {"labels": torch.full((8,), 2)}),
    "val labels must be [8, 3] for a multilabel task": (MANY, "val", {"labels": DATA.val.labels}),
    "val labels must be -1 in a whole row": (MANY, "val", {"labels": PARTLY}),
}


@pytest.mark.parametrize("message", MISFITS)
def test_splits_that_do_not_fit_their_images_each_other_or_the_task_are_refused(message: str) -> None:
    dataset, name, fields = MISFITS[message]
    with pytest.raises(ValueError) as error:
        changed(dataset, name, **fields)
    assert message in str(error.value)


def test_take_keeps_everything_of_an_image_together() -> None:
    split = dataclasses.replace(DATA.train, masks=torch.arange(8 * 64 * 64).reshape(8, 1, 64, 64) > 4 * 64 * 64)
    taken = split.take([6, 1])
    assert taken.groups is not None and taken.masks is not None and split.groups is not None and split.masks is not None
    assert taken.groups.tolist() == split.groups[[6, 1]].tolist()
    assert torch.equal(taken.masks, split.masks[[6, 1]]) and torch.equal(taken.images, split.images[[6, 1]])
    assert torch.equal(split.take(split.labels == 1).images, split.images[split.labels == 1])
    assert len(split.take([])) == 0


def test_the_fingerprint_changes_with_any_pixel_label_or_patient() -> None:
    images, labels = DATA.val.images.clone(), DATA.val.labels.clone()
    images[0, 0, 0, 0] += 1
    labels[0] = -1
    changes = [{"images": images}, {"labels": labels}, {"groups": np.array(list("ppqqrrst"))}, {"groups": None}]
    assert len({DATA.fingerprint, *(changed(DATA, "val", **change).fingerprint for change in changes)}) == 5
    assert texture_dataset(counts=(8, 8, 8)).fingerprint == DATA.fingerprint


# ---- draws


def test_keep_labels_hides_train_only_and_says_so() -> None:
    hidden = keep_labels(MANY, 0.25, seed=0)
    assert 0 < hidden.train.labelled.sum() < 8
    assert (hidden.train.labels[~hidden.train.labelled] == -1).all()
    assert hidden.val is MANY.val and MANY.train.labelled.all()
    assert "labels kept for" in hidden.provenance["notes"][-1] and MANY.provenance["notes"] == []
    assert torch.equal(keep_labels(MANY, 1.0, seed=0).train.labels, MANY.train.labels)
    with pytest.raises(ValueError, match="train of textures must be labelled"):
        keep_labels(changed(DATA, "train", labels=torch.full((8,), -1)), 0.5, seed=0)
    with pytest.raises(ValueError, match="seed must be 0 or more, got -1"):
        keep_labels(DATA, 0.5, seed=-1)


@pytest.mark.parametrize("name", ["breastmnist", "phantom"])
def test_a_draw_is_what_drawing_from_the_whole_gives_and_says_how_to_get_it_again(name: str, tmp_path: Path) -> None:
    write_archive(tmp_path)
    most = {"max_train_images": 5, "max_eval_images": None}
    whole, drawn = load_dataset(name, 28, tmp_path), load_dataset(name, 28, tmp_path, max_train_images=5)
    assert drawn.fingerprint == draw_images(whole, **most).fingerprint != whole.fingerprint
    assert len(drawn.train) == 5 and len(drawn.val) == len(whole.val) and len(drawn.test) == len(whole.test)
    assert not torch.equal(drawn.train.images, whole.train.images[:5])
    counts = f"5 / {len(whole.val)} / {len(whole.test)}"
    assert drawn.provenance["notes"][-1] == f"a fixed draw of {counts} images" and drawn.provenance["drawn"] == most
    same = load_dataset(name, 28, tmp_path, max_train_images=len(whole.train), max_eval_images=10**6)
    assert same.fingerprint == whole.fingerprint and same.provenance == whole.provenance
