"""Data sets as values, MedMNIST files, roots and draws: what is read, and what is recorded."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from pathlib import Path
from typing import Any

import medmnist
import numpy as np
import pytest
import torch
from datafiles import COUNTS, offline, write_archive  # noqa: F401  a fixture

from cxr_helpers.data import Dataset, Split, data_root, draw_images, keep_labels, load_dataset

pytestmark = pytest.mark.usefixtures("offline")


# ---- MedMNIST files


def test_a_binary_file_becomes_uint8_channels_first_and_flat_int64_labels(tmp_path: Path) -> None:
    arrays = np.load(write_archive(tmp_path))
    dataset = load_dataset("breastmnist", 28, tmp_path)
    assert (dataset.task, dataset.num_outputs, dataset.channels) == ("binary", 1, 1)
    assert dataset.class_names == ("malignant", "normal, benign")
    for name, split in dataset.splits.items():
        np.testing.assert_array_equal(split.images.numpy()[:, 0], arrays[f"{name}_images"])
        np.testing.assert_array_equal(split.labels.numpy(), arrays[f"{name}_labels"][:, 0])


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


def test_the_status_follows_the_md5_the_file_is_not_touched_and_no_absolute_path_recorded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_archive(tmp_path)
    content = path.read_bytes()
    local = load_dataset("breastmnist", 28, tmp_path).provenance
    monkeypatch.setitem(medmnist.INFO["breastmnist"], "MD5", hashlib.md5(content).hexdigest())
    official = load_dataset("breastmnist", 28, tmp_path).provenance
    assert (local["status"], official["status"]) == ("local (not MedMNIST's MD5)", "official")
    assert official["sha256"] == hashlib.sha256(content).hexdigest()
    assert path.read_bytes() == content and str(tmp_path) not in json.dumps(official)


def test_patients_are_read_and_shared_ones_counted(tmp_path: Path) -> None:
    groups = {f"{s}_groups": np.array([f"p{i // 2}" for i in range(n)]) for s, n in (("train", 8), ("val", 4))}
    write_archive(tmp_path, **groups)
    dataset = load_dataset("breastmnist", 28, tmp_path)
    assert dataset.train.groups is not None and dataset.train.groups.tolist()[:3] == ["p0", "p0", "p1"]
    assert dataset.test.groups is None
    assert "4 of 4 val images share a patient with train" in dataset.provenance["notes"]


def test_a_file_whose_labels_are_all_missing_has_no_labels_and_one_with_some_has(tmp_path: Path) -> None:
    write_archive(tmp_path, train_labels=np.array([[-1], [0], [1], [-1]] * 2, np.int8))
    some = load_dataset("breastmnist", 28, tmp_path)
    assert some.train.labelled.tolist() == [False, True, True, False] * 2 and some.has_labels
    none = {f"{s}_labels": np.full((n, 14), -1) for s, n in COUNTS.items()}
    write_archive(tmp_path, "chestmnist", **none)
    assert not load_dataset("chestmnist", 28, tmp_path).has_labels


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
    for part in ("breastmnist_224.npz", str(tmp_path), "network", "CXR_DATA", "(28 px)", "phantom"):
        assert part in str(error.value)
    with pytest.raises(FileNotFoundError):
        load_dataset("breastmnist", 28, tmp_path / "new")
    assert [p.name for p in tmp_path.iterdir()] == ["breastmnist.npz"]


def test_a_missing_file_is_taken_from_the_mirror_once_its_md5_is_right(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_archive(tmp_path)
    monkeypatch.setenv("CXR_MIRROR", tmp_path.as_uri())
    with pytest.raises(FileNotFoundError, match="what was served has MD5"):
        load_dataset("breastmnist", 28, tmp_path / "root")
    monkeypatch.setitem(medmnist.INFO["breastmnist"], "MD5", hashlib.md5(path.read_bytes()).hexdigest())
    assert load_dataset("breastmnist", 28, tmp_path / "root").provenance["status"] == "official"


# ---- values


def tiny(task: str = "binary", groups: str = "ppqqrrss", **changes: Any) -> Dataset:
    many = task == "multilabel"
    labels = torch.arange(8).reshape(8, 1).expand(8, 3) % 2 if many else torch.arange(8) % 2
    images = torch.arange(8 * 16).reshape(8, 1, 4, 4).to(torch.uint8)
    split = Split(images=images, labels=labels.clone(), groups=np.array(list(groups)))
    names = ("a", "b") if task == "binary" else ("a", "b", "c")
    fields: dict[str, Any] = {"train": split, "val": split, "test": split, "task": task, "class_names": names}
    return Dataset(name="tiny", size=4, provenance={"notes": []}, **(fields | changes))


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("labels", torch.zeros(1, dtype=torch.int64), "labels must be as many as images, 8, got 1"),
        ("groups", np.zeros(8), "groups must be strings"),
        ("groups", np.array(list("abcdefgh"))[:7], "groups must be as many as images"),
        ("masks", torch.zeros(8, 1, 3, 3, dtype=torch.bool), "masks must be bool .*, 4, 4"),
        ("boxes", (torch.zeros(0, 4),), "boxes must be as many as images"),
    ],
)
def test_a_split_refuses_what_does_not_fit_its_images(field: str, value: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(tiny().train, **{field: value})


def test_a_dataset_refuses_splits_that_do_not_fit_each_other_or_the_task() -> None:
    good = tiny()
    other = dataclasses.replace(good.val, images=good.val.images.expand(-1, 3, -1, -1))
    with pytest.raises(ValueError, match=r"val images must be \[8, 1, 4, 4\], got \[8, 3, 4, 4\]"):
        dataclasses.replace(good, val=other)
    with pytest.raises(ValueError, match="train labels must be 0 to 1"):
        dataclasses.replace(good, train=dataclasses.replace(good.train, labels=torch.full((8,), 2)))
    with pytest.raises(ValueError, match=r"labels must be \[8, 2\] for a multilabel task"):
        dataclasses.replace(good, task="multilabel")
    with pytest.raises(ValueError, match=r"class_names must be \(negative, positive\)"):
        dataclasses.replace(good, class_names=("a", "b", "c"))
    with pytest.raises(ValueError, match="task must be one of binary, multiclass, multilabel"):
        dataclasses.replace(good, task="regression")  # type: ignore[arg-type]
    rows = tiny("multilabel").train
    labels = rows.labels.clone()
    labels[3, 1] = -1
    with pytest.raises(ValueError, match="val labels must be -1 in a whole row"):
        tiny("multilabel", val=dataclasses.replace(rows, labels=labels))


def test_take_keeps_everything_of_an_image_together() -> None:
    split = dataclasses.replace(
        tiny().train,
        masks=torch.arange(8).reshape(8, 1, 1, 1).expand(8, 1, 4, 4) > 3,
        boxes=tuple(torch.full((1, 4), float(i)) for i in range(8)),
    )
    taken = split.take([6, 1])
    assert taken.groups is not None and taken.masks is not None and taken.boxes is not None
    assert taken.groups.tolist() == ["s", "p"]
    assert taken.masks[:, 0, 0, 0].tolist() == [True, False]
    assert torch.equal(taken.images, split.images[[6, 1]])
    assert [float(boxes[0, 0]) for boxes in taken.boxes] == [6, 1]
    assert torch.equal(split.take(split.labels == 1).images, split.images[1::2])
    assert len(split.take([])) == 0


def test_the_fingerprint_changes_with_any_pixel_label_or_patient() -> None:
    dataset = tiny()
    images, labels = dataset.val.images.clone(), dataset.val.labels.clone()
    images[0, 0, 0, 0] += 1
    labels[0] = -1
    changed = [{"images": images}, {"labels": labels}, {"groups": np.array(list("ppqqrrst"))}, {"groups": None}]
    prints = {dataset.fingerprint}
    for change in changed:
        prints.add(dataclasses.replace(dataset, val=dataclasses.replace(dataset.val, **change)).fingerprint)  # type: ignore[arg-type]
    assert len(prints) == 5
    assert tiny().fingerprint == dataset.fingerprint


# ---- draws


def test_keep_labels_hides_train_only_and_says_so() -> None:
    dataset = tiny("multilabel")
    hidden = keep_labels(dataset, 0.25, seed=0)
    assert 0 < hidden.train.labelled.sum() < 8
    assert (hidden.train.labels[~hidden.train.labelled] == -1).all()
    assert hidden.val is dataset.val and dataset.train.labelled.all()
    assert "labels kept for" in hidden.provenance["notes"][-1] and dataset.provenance["notes"] == []
    assert torch.equal(keep_labels(dataset, 1.0, seed=0).train.labels, dataset.train.labels)


def test_train_without_labels_and_a_negative_seed_are_refused() -> None:
    dataset = tiny()
    blank = dataclasses.replace(dataset, train=dataclasses.replace(dataset.train, labels=torch.full((8,), -1)))
    with pytest.raises(ValueError, match="train of tiny must be labelled"):
        keep_labels(blank, 0.5, seed=0)
    with pytest.raises(ValueError, match="seed must be 0 or more, got -1"):
        keep_labels(dataset, 0.5, seed=-1)


@pytest.mark.parametrize("name", ["breastmnist", "phantom_shapes"])
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
