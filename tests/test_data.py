"""Data sets from files, folders and phantoms: what is read, what is recorded, and what is refused how."""

from __future__ import annotations

import dataclasses
import hashlib
import io
import json
import pickle
import socket
from pathlib import Path
from typing import Any

import medmnist
import numpy as np
import pytest
import torch

from cxr_helpers.data import Dataset, Split, data_root, draw_images, keep_labels, load_dataset
from cxr_helpers.data.sources import PHANTOMS

RNG = np.random.default_rng(0)
NUM = {"train": 12, "val": 6, "test": 7}


@pytest.fixture(autouse=True)
def without_network(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*args: Any, **kwargs: Any) -> None:
        raise socket.gaierror(-2, "Name or service not known")

    monkeypatch.setattr("socket.create_connection", refuse)
    monkeypatch.delenv("CXR_MIRROR", raising=False)
    monkeypatch.delenv("CXR_DATA", raising=False)


def npz_arrays(size: int = 28, num_labels: int = 1, rgb: bool = False, **changes: Any) -> dict[str, Any]:
    """What a MedMNIST file holds, with some arrays changed, or left out where None."""
    arrays: dict[str, Any] = {}
    for split, num in NUM.items():
        arrays[f"{split}_images"] = RNG.integers(0, 256, (num, size, size, *([3] if rgb else [])), np.uint8)
        arrays[f"{split}_labels"] = (np.arange(num * num_labels) % 2).reshape(num, num_labels).astype(np.uint8)
    return {key: value for key, value in (arrays | changes).items() if value is not None}


def write_npz(root: Path, name: str = "breastmnist", **changes: Any) -> Path:
    np.savez(root / f"{name}.npz", **npz_arrays(**changes))
    return root / f"{name}.npz"


def one_sentence(error: pytest.ExceptionInfo[Exception]) -> str:
    message = str(error.value)
    assert "\n" not in message
    assert 20 < len(message) < 700
    return message


# ---- MedMNIST files


def test_a_binary_file_becomes_uint8_channels_first_and_flat_int64_labels(tmp_path: Path) -> None:
    arrays = npz_arrays()
    np.savez(tmp_path / "breastmnist.npz", **arrays)
    dataset = load_dataset("breastmnist", 28, tmp_path)
    assert dataset.task == "binary"
    assert dataset.num_outputs == 1
    assert dataset.channels == 1
    assert dataset.class_names == ("malignant", "normal, benign")
    for name, split in dataset.splits.items():
        np.testing.assert_array_equal(split.images.numpy()[:, 0], arrays[f"{name}_images"])
        np.testing.assert_array_equal(split.labels.numpy(), arrays[f"{name}_labels"][:, 0])
        assert split.images.dtype == torch.uint8
        assert split.labels.dtype == torch.int64


def test_a_colour_file_keeps_each_channel_in_its_place(tmp_path: Path) -> None:
    arrays = npz_arrays(rgb=True)
    np.savez(tmp_path / "bloodmnist.npz", **arrays)
    dataset = load_dataset("bloodmnist", 28, tmp_path)
    assert dataset.task == "multiclass"
    assert dataset.num_outputs == 8
    assert dataset.channels == 3
    assert dataset.train.images.is_contiguous()
    np.testing.assert_array_equal(dataset.train.images[:, 2].numpy(), arrays["train_images"][..., 2])


def test_a_subset_of_chestmnist_loads_as_multilabel_and_says_subset(tmp_path: Path) -> None:
    write_npz(tmp_path, "chestmnist_64", size=64, num_labels=14)
    dataset = load_dataset("chestmnist", 64, tmp_path)
    assert dataset.task == "multilabel"
    assert dataset.num_outputs == 14
    assert tuple(dataset.val.labels.shape) == (6, 14)
    assert any("subset of 25/112120 images" in note for note in dataset.provenance["notes"])


def test_ordinal_labels_are_read_as_classes(tmp_path: Path) -> None:
    write_npz(tmp_path, "retinamnist", rgb=True)
    assert load_dataset("retinamnist", 28, tmp_path).task == "multiclass"


def test_the_status_follows_the_md5_and_the_file_is_not_touched(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_npz(tmp_path)
    content, stamp = path.read_bytes(), path.stat().st_mtime_ns
    local = load_dataset("breastmnist", 28, tmp_path).provenance
    monkeypatch.setitem(medmnist.INFO["breastmnist"], "MD5", hashlib.md5(content).hexdigest())
    official = load_dataset("breastmnist", 28, tmp_path).provenance
    assert (local["status"], official["status"]) == ("local (not MedMNIST's MD5)", "official")
    assert official["sha256"] == hashlib.sha256(content).hexdigest()
    assert (path.read_bytes(), path.stat().st_mtime_ns) == (content, stamp)


def test_provenance_is_json_and_names_no_absolute_path(tmp_path: Path) -> None:
    write_npz(tmp_path)
    assert str(tmp_path) not in json.dumps(load_dataset("breastmnist", 28, tmp_path).provenance)


def test_patients_are_read_and_shared_ones_counted(tmp_path: Path) -> None:
    groups: dict[str, Any] = {f"{split}_groups": np.array([f"p{i // 2}" for i in range(n)]) for split, n in NUM.items()}
    write_npz(tmp_path, **groups, test_labels=np.ones((7, 1), np.uint8))
    dataset = load_dataset("breastmnist", 28, tmp_path)
    assert dataset.train.groups is not None
    assert dataset.train.groups.tolist()[:3] == ["p0", "p0", "p1"]
    assert "6 of 6 val images share a patient with train" in dataset.provenance["notes"]


def test_missing_labels_are_marked_and_counted_as_not_labelled(tmp_path: Path) -> None:
    labels = np.array([[-1], [0], [1]] * 4, np.int8)
    write_npz(tmp_path, train_labels=labels)
    dataset = load_dataset("breastmnist", 28, tmp_path)
    assert dataset.train.labelled.tolist() == [False, True, True] * 4


BAD_ARRAYS: dict[str, tuple[dict[str, Any], str]] = {
    "float images": (
        {"train_images": np.zeros((12, 28, 28), np.float32)},
        "train_images .* must be uint8, got float32",
    ),
    "another size": (
        {"val_images": np.zeros((6, 32, 32), np.uint8)},
        r"val_images .* \[N, 28, 28\].*got \[6, 32, 32\]",
    ),
    "two channels": ({"val_images": np.zeros((6, 28, 28, 2), np.uint8)}, r"got \[6, 28, 28, 2\]"),
    "no image": ({"val_images": np.zeros((0, 28, 28), np.uint8)}, "N at least 1"),
    "flat images": ({"val_images": np.zeros(6, np.uint8)}, r"got \[6\]"),
    "no labels": ({"test_labels": None}, "got no test_labels"),
    "float labels": ({"train_labels": np.zeros((12, 1))}, "train_labels .* must be integers, got float64"),
    "wide labels": ({"train_labels": np.zeros((12, 3), np.uint8)}, r"must be \[N, 1\], got \[12, 3\]"),
    "label too high": ({"test_labels": np.full((7, 1), 2)}, "must be 0 to 1, .* got 2 to 2"),
    "label too low": ({"test_labels": np.full((7, 1), -2)}, "must be 0 to 1, .* got -2 to -2"),
    "fewer labels": (
        {"val_labels": np.zeros((5, 1), np.uint8)},
        "val_labels .* as long as val_images, 6, got 5",
    ),
    "fewer groups": ({"val_groups": np.array(["a"])}, "val_groups .* as long as val_images, 6, got 1"),
    "numeric groups": ({"val_groups": np.arange(6)}, "val_groups .* must be strings"),
    "pickled groups": ({"val_groups": np.array([{}] * 6)}, "must be a complete .npz of plain arrays"),
}


@pytest.mark.parametrize("case", BAD_ARRAYS)
def test_a_file_with_a_wrong_array_is_refused_by_name(tmp_path: Path, case: str) -> None:
    changes, message = BAD_ARRAYS[case]
    write_npz(tmp_path, **changes)
    with pytest.raises(ValueError, match=message) as error:
        load_dataset("breastmnist", 28, tmp_path)
    assert "breastmnist.npz" in one_sentence(error)


def test_a_multilabel_row_cannot_be_partly_labelled(tmp_path: Path) -> None:
    labels = np.zeros((12, 14), np.int8)
    labels[3, 4] = -1
    write_npz(tmp_path, "chestmnist", num_labels=14, train_labels=labels)
    with pytest.raises(ValueError, match=r"train_labels .* whole row"):
        load_dataset("chestmnist", 28, tmp_path)


@pytest.mark.parametrize("share", [0, 0.01, 0.5, 0.9, 0.999])
def test_a_truncated_file_is_one_clear_sentence(tmp_path: Path, share: float) -> None:
    path = write_npz(tmp_path)
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * share)])
    with pytest.raises(ValueError, match=r"breastmnist\.npz .* damaged or truncated") as error:
        load_dataset("breastmnist", 28, tmp_path)
    one_sentence(error)


@pytest.mark.parametrize("kind", ["one array", "text", "pickle", "flipped bytes"])
def test_a_file_that_is_no_archive_of_arrays_is_one_clear_sentence(tmp_path: Path, kind: str) -> None:
    path = write_npz(tmp_path)
    whole = path.read_bytes()
    single = io.BytesIO()
    np.save(single, np.zeros(3))
    middle = len(whole) // 2
    flipped = whole[:middle] + bytes(255 - b for b in whole[middle : middle + 9]) + whole[middle + 9 :]
    content = {"one array": single.getvalue(), "text": b"<html>not found</html>", "pickle": pickle.dumps([1])}
    path.write_bytes(content.get(kind, flipped))
    with pytest.raises(ValueError, match="damaged or truncated") as error:
        load_dataset("breastmnist", 28, tmp_path)
    one_sentence(error)


# ---- roots and sizes


def test_the_root_is_the_argument_then_cxr_data_then_medmnists_default(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert data_root() == Path(medmnist.info.DEFAULT_ROOT)
    monkeypatch.setenv("CXR_DATA", str(tmp_path))
    assert data_root() == tmp_path
    assert data_root("elsewhere") == Path("elsewhere")


def test_a_size_medmnist_does_not_offer_names_those_it_does_and_those_on_disk(tmp_path: Path) -> None:
    write_npz(tmp_path)
    write_npz(tmp_path, "breastmnist_64", size=64)
    with pytest.raises(ValueError, match=r"28, 64, 128, 224 px, got 96; .* holds 28, 64 px") as error:
        load_dataset("breastmnist", 96, tmp_path)
    one_sentence(error)


def test_a_missing_size_without_a_network_names_file_folder_and_the_ways_out(tmp_path: Path) -> None:
    write_npz(tmp_path)
    with pytest.raises(FileNotFoundError) as error:
        load_dataset("breastmnist", 224, tmp_path)
    message = one_sentence(error)
    for part in ("breastmnist_224.npz", str(tmp_path), "network", "CXR_DATA", "(28 px)", "phantom"):
        assert part in message
    assert [p.name for p in tmp_path.iterdir()] == ["breastmnist.npz"]


def test_a_missing_root_is_not_created_when_nothing_arrives(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="could not be downloaded"):
        load_dataset("breastmnist", 28, tmp_path / "new")
    assert list(tmp_path.iterdir()) == []


def test_a_missing_file_is_taken_from_the_mirror_once_its_md5_is_right(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "mirror").mkdir()
    path = write_npz(tmp_path / "mirror")
    monkeypatch.setenv("CXR_MIRROR", path.parent.as_uri())
    with pytest.raises(FileNotFoundError, match=r"has MD5 .* and was removed"):
        load_dataset("breastmnist", 28, tmp_path / "root")
    monkeypatch.setitem(medmnist.INFO["breastmnist"], "MD5", hashlib.md5(path.read_bytes()).hexdigest())
    assert load_dataset("breastmnist", 28, tmp_path / "root").provenance["status"] == "official"


@pytest.mark.parametrize("size", [0, -1, 28.0, "28", True])
def test_a_size_that_is_no_pixel_count_is_refused(tmp_path: Path, size: Any) -> None:
    with pytest.raises(ValueError, match="size must be a whole number of pixels"):
        load_dataset("breastmnist", size, tmp_path)


# ---- values


def tiny(task: str = "binary", num: int = 8, groups: list[str] | None = None, **changes: Any) -> Dataset:
    shape = (num, 3) if task == "multilabel" else (num,)
    labels = torch.arange(num).reshape(num, 1).expand(num, 3) % 2 if task == "multilabel" else torch.arange(num) % 2
    split = Split(
        images=torch.arange(num * 16).reshape(num, 1, 4, 4).to(torch.uint8),
        labels=labels.reshape(shape).clone(),
        groups=None if groups is None else np.array(groups),
    )
    names = ("a", "b") if task == "binary" else ("a", "b", "c")
    fields: dict[str, Any] = {"train": split, "val": split, "test": split, "task": task, "class_names": names}
    return Dataset(name="tiny", size=4, provenance={"notes": []}, **(fields | changes))


BAD_SPLITS: dict[str, tuple[dict[str, Any], str]] = {
    "float images": ({"images": torch.zeros(2, 1, 4, 4)}, "images must be uint8"),
    "two channels": (
        {"images": torch.zeros(2, 2, 4, 4, dtype=torch.uint8)},
        r"images must be \[N, 1 or 3, S, S\]",
    ),
    "oblong": ({"images": torch.zeros(2, 1, 4, 5, dtype=torch.uint8)}, r"got \[2, 1, 4, 5\]"),
    "int32 labels": ({"labels": torch.zeros(2, dtype=torch.int32)}, "labels must be int64"),
    "deep labels": ({"labels": torch.zeros(2, 1, 1, dtype=torch.int64)}, "labels must be int64"),
    "fewer labels": (
        {"labels": torch.zeros(1, dtype=torch.int64)},
        "labels must be as many as images, 2, got 1",
    ),
    "number groups": ({"groups": np.zeros(2)}, "groups must be strings"),
    "fewer groups": ({"groups": np.array(["a"])}, "groups must be as many as images"),
    "small masks": ({"masks": torch.zeros(2, 1, 3, 3, dtype=torch.bool)}, "masks must be bool"),
    "fewer boxes": ({"boxes": (torch.zeros(0, 4),)}, "boxes must be as many as images"),
}


@pytest.mark.parametrize("case", BAD_SPLITS)
def test_a_split_refuses_what_does_not_fit(case: str) -> None:
    fields: dict[str, Any] = {
        "images": torch.zeros(2, 1, 4, 4, dtype=torch.uint8),
        "labels": torch.zeros(2).long(),
    }
    Split(**fields)
    with pytest.raises(ValueError, match=BAD_SPLITS[case][1]):
        Split(**(fields | BAD_SPLITS[case][0]))


def test_a_dataset_refuses_splits_that_do_not_fit_each_other_or_the_task() -> None:
    good = tiny()
    other = dataclasses.replace(good.val, images=good.val.images.expand(-1, 3, -1, -1))
    with pytest.raises(ValueError, match=r"val images must be \[N, 1, 4, 4\], got \[8, 3, 4, 4\]"):
        dataclasses.replace(good, val=other)
    with pytest.raises(ValueError, match="train labels must be 0 to 1"):
        dataclasses.replace(good, train=dataclasses.replace(good.train, labels=torch.full((8,), 2)))
    with pytest.raises(ValueError, match=r"labels must be \[N, 2\] for a multilabel task"):
        dataclasses.replace(good, task="multilabel")
    with pytest.raises(ValueError, match=r"class_names must be \(negative, positive\)"):
        dataclasses.replace(good, class_names=("a", "b", "c"))
    with pytest.raises(ValueError, match="task must be one of binary, multiclass, multilabel"):
        dataclasses.replace(good, task="regression")  # type: ignore[arg-type]


def test_take_keeps_everything_of_an_image_together() -> None:
    split = dataclasses.replace(
        tiny(groups=list("ppqqrrss")).train,
        masks=torch.arange(8).reshape(8, 1, 1, 1).expand(8, 1, 4, 4) > 3,
        boxes=tuple(torch.full((1, 4), float(i)) for i in range(8)),
    )
    taken = split.take([6, 1])
    assert taken.groups is not None
    assert taken.masks is not None
    assert taken.boxes is not None
    assert taken.groups.tolist() == ["s", "p"]
    assert taken.masks[:, 0, 0, 0].tolist() == [True, False]
    assert torch.equal(taken.images, split.images[[6, 1]])
    assert float(taken.boxes[0][0, 0]) == 6
    assert torch.equal(split.take(split.labels == 1).images, split.images[1::2])
    assert len(split.take([])) == 0


def test_the_fingerprint_changes_with_any_pixel_label_or_patient() -> None:
    dataset = tiny(groups=list("ppqqrrss"))
    images, labels = dataset.val.images.clone(), dataset.val.labels.clone()
    images[0, 0, 0, 0] += 1
    labels[0] = -1
    changed: list[dict[str, Any]] = [
        {"images": images},
        {"labels": labels},
        {"groups": np.array(list("ppqqrrst"))},
        {"groups": None},
    ]
    prints = {dataset.fingerprint}
    for change in changed:
        prints.add(dataclasses.replace(dataset, val=dataclasses.replace(dataset.val, **change)).fingerprint)
    assert len(prints) == 5
    assert tiny(groups=list("ppqqrrss")).fingerprint == dataset.fingerprint


def test_keep_labels_hides_train_only_and_says_so() -> None:
    dataset = tiny("multilabel")
    hidden = keep_labels(dataset, 0.25, seed=0)
    assert hidden.train.labelled.sum() < 8
    assert (hidden.train.labels[~hidden.train.labelled] == -1).all()
    assert hidden.val is dataset.val
    assert dataset.train.labelled.all()
    assert "labels kept for" in hidden.provenance["notes"][-1]
    assert dataset.provenance["notes"] == []
    assert torch.equal(keep_labels(dataset, 1.0, seed=0).train.labels, dataset.train.labels)


@pytest.mark.parametrize("fraction", [0, -0.1, 1.1, float("nan")])
def test_a_fraction_out_of_range_is_refused(fraction: float) -> None:
    with pytest.raises(ValueError, match="fraction of labels must be above 0 and at most 1, got"):
        keep_labels(tiny(), fraction, seed=0)


def test_train_without_labels_and_a_negative_seed_are_refused() -> None:
    dataset = tiny()
    blank = dataclasses.replace(dataset, train=dataclasses.replace(dataset.train, labels=torch.full((8,), -1)))
    with pytest.raises(ValueError, match="train of tiny must hold labels"):
        keep_labels(blank, 0.5, seed=0)
    with pytest.raises(ValueError, match="seed must be 0 or more, got -1"):
        keep_labels(dataset, 0.5, seed=-1)


# ---- phantoms


@pytest.mark.slow
def test_a_phantom_loads_with_patients_masks_and_boxes() -> None:
    phantom = pytest.importorskip("cxr_helpers.data")
    assert phantom.PHANTOM_VARIANTS == PHANTOMS
    dataset = load_dataset("phantom_multilabel", 32)
    train, test = dataset.train, dataset.test
    assert dataset.provenance["status"] == "phantom"
    assert dataset.task == "multilabel"
    assert train.groups is not None
    assert test.groups is not None
    assert train.masks is not None
    assert train.boxes
    assert set(train.groups).isdisjoint(test.groups)
    assert torch.equal(train.masks.flatten(2).any(2), train.labels == 1)


# ---- draws


@pytest.mark.parametrize("name", ["breastmnist", "phantom_shapes"])
def test_a_draw_is_what_drawing_from_the_whole_gives_and_says_how_to_get_it_again(name: str, tmp_path: Path) -> None:
    write_npz(tmp_path)
    most = {"max_train_images": 5, "max_eval_images": None}
    whole, drawn = load_dataset(name, 28, tmp_path), load_dataset(name, 28, tmp_path, max_train_images=5)
    assert drawn.fingerprint == draw_images(whole, **most).fingerprint != whole.fingerprint
    assert len(drawn.train) == 5 and len(drawn.val) == len(whole.val) and len(drawn.test) == len(whole.test)
    counts = f"5 / {len(whole.val)} / {len(whole.test)}"
    assert drawn.provenance["notes"][-1] == f"a fixed draw of {counts} images" and drawn.provenance["drawn"] == most
    same = load_dataset(name, 28, tmp_path, max_train_images=len(whole.train), max_eval_images=10**6)
    assert same.fingerprint == whole.fingerprint and same.provenance == whole.provenance


@pytest.mark.parametrize("most", [0, -3, 2.0, True])
def test_a_draw_of_no_number_of_images_is_refused(most: Any, tmp_path: Path) -> None:
    for limit in ("max_train_images", "max_eval_images"):
        with pytest.raises(ValueError, match=f"{limit} must be a whole number, 1 or more, got {most!r}"):
            load_dataset("phantom", 28, tmp_path, **{limit: most})
