"""Image folders, and CIFAR-10 in either of its forms: what is read, carved, converted and refused."""

from __future__ import annotations

import hashlib
import io
import json
import pickle
import socket
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torchvision
from PIL import Image

from cxr_helpers.data import load_dataset

RNG = np.random.default_rng(0)


@pytest.fixture(autouse=True)
def without_network(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*args: Any, **kwargs: Any) -> None:
        raise socket.gaierror(-2, "Name or service not known")

    monkeypatch.setattr("socket.create_connection", refuse)
    monkeypatch.delenv("CXR_MIRROR", raising=False)
    monkeypatch.delenv("CXR_DATA", raising=False)


def write_folder(folder: Path, counts: dict[str, int], mode: str = "L", size: tuple[int, int] = (8, 8)) -> Path:
    """`counts` images in each `<split>/<class>`."""
    for place, num in counts.items():
        (folder / place).mkdir(parents=True)
        for i in range(num):
            pixels = RNG.integers(0, 256, (size[1], size[0], len(mode)), np.uint8)
            Image.fromarray(pixels.squeeze(), mode=None).save(folder / place / f"{i:03d}.png")
    return folder


def one_sentence(error: pytest.ExceptionInfo[Exception]) -> str:
    message = str(error.value)
    assert "\n" not in message
    assert 20 < len(message) < 700
    return message


# ---- names and paths


@pytest.mark.parametrize("name", ["pneumonia", "organmnist3d", "", ".", "..", "a\0b", "PneumoniaMNIST"])
def test_an_unknown_name_lists_what_there_is(tmp_path: Path, name: str) -> None:
    write_folder(tmp_path / "scans", {"train/a": 1})
    with pytest.raises(ValueError, match=r"pneumoniamnist, .*cifar10, phantom.*\(scans\), got") as error:
        load_dataset(name, 28, tmp_path)
    if name.lower().startswith("pneumonia"):
        assert "did you mean pneumoniamnist?" in one_sentence(error)


def test_a_name_with_a_separator_is_a_path_that_must_exist_and_never_a_way_out_of_the_root(
    tmp_path: Path,
) -> None:
    write_folder(tmp_path / "outside", {"train/a": 9, "train/b": 9})
    (tmp_path / "root").mkdir()
    with pytest.raises(FileNotFoundError, match=r"no folder at \.\./outside"):
        load_dataset("../outside", 8, tmp_path / "root")
    dataset = load_dataset(str(tmp_path / "outside"), 8, tmp_path / "root")
    assert dataset.name == "outside"
    assert dataset.task == "binary"


# ---- image folders


def test_a_folder_with_all_splits_keeps_them_and_its_sorted_classes(tmp_path: Path) -> None:
    counts = {"train/sick": 3, "train/normal": 4, "val/normal": 2, "test/sick": 1, "test/normal": 2}
    write_folder(tmp_path / "scans", counts)
    dataset = load_dataset("scans", 8, tmp_path)
    assert str(tmp_path) not in json.dumps(dataset.provenance)
    assert dataset.class_names == ("normal", "sick")
    assert dataset.task == "binary"
    assert dataset.channels == 1
    assert [s.labels.tolist() for s in dataset.splits.values()] == [[0] * 4 + [1] * 3, [0, 0], [0, 0, 1]]
    first = np.asarray(Image.open(tmp_path / "scans" / "train" / "normal" / "000.png"))
    np.testing.assert_array_equal(dataset.train.images[0, 0].numpy(), first)


def test_missing_splits_are_carved_by_class_the_same_way_each_time(tmp_path: Path) -> None:
    write_folder(tmp_path / "scans", {"train/a": 50, "train/b": 100, "train/c": 200}, size=(4, 4))
    dataset, again = (load_dataset("scans", 4, tmp_path) for _ in range(2))
    assert dataset.task == "multiclass"
    assert dataset.fingerprint == again.fingerprint
    assert np.bincount(dataset.test.labels).tolist() == [10, 20, 40]
    assert np.bincount(dataset.val.labels).tolist() == [4, 8, 16]
    assert np.bincount(dataset.train.labels).tolist() == [36, 72, 144]
    images = torch.cat([split.images for split in dataset.splits.values()]).flatten(1)
    assert len(images.unique(dim=0)) == 350


@pytest.mark.parametrize("table", ["groups.csv", "index.csv"])
def test_carved_splits_keep_patients_whole(tmp_path: Path, table: str) -> None:
    folder = write_folder(tmp_path / "scans", {"train/a": 40, "train/b": 40}, size=(4, 4))
    column, other = ("group", "note") if table == "groups.csv" else ("patient", "label")
    rows = [f"{name}/{i:03d}.png,x,p{i // 5}" for name in "ab" for i in range(40)]
    (folder / table).write_text("\n".join([f"file,{other},{column}", *rows]))
    dataset = load_dataset("scans", 4, tmp_path)
    patients = [set(split.groups.tolist()) for split in dataset.splits.values() if split.groups is not None]
    assert len(patients) == 3
    assert all(patients)
    assert sum(map(len, patients)) == len(set.union(*patients)) == 8
    assert all(split.labels.unique().tolist() == [0, 1] for split in dataset.splits.values())


def test_images_without_a_row_are_their_own_patients_and_counted(tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "scans", {"train/a": 10, "train/b": 10}, size=(4, 4))
    (folder / "groups.csv").write_text("file,group\ntrain/a/000.png,p\ntrain/a/001.png,p\n")
    dataset = load_dataset("scans", 4, tmp_path)
    groups = np.concatenate([s.groups for s in dataset.splits.values() if s.groups is not None])
    assert len(groups) == 20
    assert len(set(groups)) == 19
    assert "18 images without a row in groups.csv count as a patient each" in dataset.provenance["notes"]


BAD_TABLES = {
    "columns": ("name,group\n000.png,p\n", "must have the columns file and group"),
    "ambiguous": ("file,group\n000.png,p\n", r"file 000\.png .* must name one image, got 2"),
    "contradiction": ("file,group\na/000.png,p\na/000.png,q\n", r"one group, got p and q"),
    "stranger": ("file,group\nzzz.png,p\n", "must name images of the folder"),
}


@pytest.mark.parametrize("case", BAD_TABLES)
def test_a_table_of_groups_that_does_not_fit_is_refused(tmp_path: Path, case: str) -> None:
    folder = write_folder(tmp_path / "scans", {"train/a": 4, "train/b": 4})
    (folder / "groups.csv").write_text(BAD_TABLES[case][0])
    with pytest.raises(ValueError, match=BAD_TABLES[case][1]) as error:
        load_dataset("scans", 8, tmp_path)
    one_sentence(error)


def test_an_empty_class_folder_is_named(tmp_path: Path) -> None:
    write_folder(tmp_path / "scans", {"train/a": 3, "train/b": 0})
    (tmp_path / "scans" / "train" / "b" / "notes.txt").write_text("no image")
    with pytest.raises(ValueError, match=r"class folder .*train/b must hold images .* got none") as error:
        load_dataset("scans", 8, tmp_path)
    one_sentence(error)


def test_a_class_folder_with_nothing_readable_is_named(tmp_path: Path) -> None:
    write_folder(tmp_path / "scans", {"train/a": 3, "train/b": 0})
    (tmp_path / "scans" / "train" / "b" / "x.png").write_bytes(b"")
    with pytest.raises(ValueError, match=r"class folder .*train/b must hold readable images"):
        load_dataset("scans", 8, tmp_path)


def test_a_folder_without_train_and_a_class_train_lacks_are_refused(tmp_path: Path) -> None:
    write_folder(tmp_path / "flat", {"a": 3})
    with pytest.raises(FileNotFoundError, match="flat must hold train/<class>/"):
        load_dataset("flat", 8, tmp_path)
    write_folder(tmp_path / "odd", {"train/a": 3, "train/b": 3, "test/c": 1})
    with pytest.raises(ValueError, match="must be among train's, a, b, got c"):
        load_dataset("odd", 8, tmp_path)


def test_a_folder_too_small_to_carve_says_so(tmp_path: Path) -> None:
    write_folder(tmp_path / "tiny", {"train/a": 1, "train/b": 1})
    with pytest.raises(ValueError, match=r"tiny must hold two images .* to carve test"):
        load_dataset("tiny", 8, tmp_path)


def test_a_single_class_folder_is_read_as_not_labelled(tmp_path: Path) -> None:
    write_folder(tmp_path / "scans", {"train/images": 20})
    dataset = load_dataset("scans", 8, tmp_path)
    assert not dataset.train.labelled.any()
    assert len(dataset.test) == 4
    assert any("not labelled" in note for note in dataset.provenance["notes"])


def test_damaged_files_are_skipped_named_and_counted(tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "scans", {"train/a": 10, "train/b": 10})
    whole = (folder / "train" / "a" / "000.png").read_bytes()
    (folder / "train" / "a" / "empty.png").write_bytes(b"")
    (folder / "train" / "a" / "half.png").write_bytes(whole[: len(whole) // 2])
    (folder / "train" / "b" / "text.JPG").write_text("not an image")
    (folder / "train" / "b" / ".hidden.png").write_bytes(b"")
    dataset = load_dataset("scans", 8, tmp_path)
    assert sum(map(len, dataset.splits.values())) == 20
    assert dataset.provenance["skipped"] == {
        "train/a/empty.png": "empty",
        "train/a/half.png": "damaged or truncated",
        "train/b/text.JPG": "damaged or truncated",
    }
    note = "3 of 23 files were skipped (1 empty, 2 damaged or truncated): train/a/empty.png, train/a/half.png, "
    assert any(text.startswith(note) for text in dataset.provenance["notes"])


def saved(folder: Path, image: Image.Image, name: str, **options: Any) -> np.ndarray:
    """The image as `load_dataset` reads it at 4 px from a folder of its kind alone: [C, 4, 4]."""
    for split in ("train", "val", "test"):
        (folder / split / "a").mkdir(parents=True)
        image.save(folder / split / "a" / name, **options)
    return load_dataset(str(folder), 4).train.images[0].numpy()


def test_every_kind_of_image_becomes_grey_or_rgb_by_the_stated_rule(tmp_path: Path) -> None:
    ramp = np.arange(16, dtype=np.uint8).reshape(4, 4) * 17
    grey = Image.fromarray(ramp)
    turned = Image.Exif()
    turned[0x0112] = 3  # upside down and mirrored: a turn by 180 degrees
    wide = Image.fromarray(ramp.astype(np.uint16) * 257)
    see_through = Image.merge("LA", [grey, Image.new("L", (4, 4), 0)])
    np.testing.assert_array_equal(saved(tmp_path / "grey", grey, "x.png")[0], ramp)
    np.testing.assert_array_equal(saved(tmp_path / "rgb", grey.convert("RGB"), "x.png")[0], ramp)
    np.testing.assert_array_equal(saved(tmp_path / "palette", grey.convert("P"), "x.png")[0], ramp)
    np.testing.assert_array_equal(saved(tmp_path / "wide", wide, "x.png")[0], ramp)
    np.testing.assert_array_equal(saved(tmp_path / "exif", grey, "x.png", exif=turned)[0], ramp[::-1, ::-1])
    np.testing.assert_array_equal(saved(tmp_path / "alpha", see_through, "x.png")[0], 0 * ramp)
    bits = saved(tmp_path / "bits", Image.fromarray(ramp > 99), "x.png")
    np.testing.assert_array_equal(bits[0], (ramp > 99) * 255)
    red = Image.new("RGB", (4, 4), (200, 10, 10))
    for mode, name in (("RGB", "x.webp"), ("CMYK", "x.jpg"), ("RGBA", "x.png"), ("P", "x.png")):
        coloured = red.quantize(4) if mode == "P" else red.convert(mode)
        read = saved(tmp_path / mode, coloured, name)
        assert read.shape == (3, 4, 4), mode
        assert read[0].min() > 180, mode
        assert read[1:].max() < 40, mode


def test_one_coloured_image_makes_all_rgb_and_is_named(tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "scans", {"train/a": 2, "val/a": 1, "test/a": 1})
    Image.new("RGB", (8, 8), (255, 0, 0)).save(folder / "train" / "a" / "red.png")
    dataset = load_dataset("scans", 8, tmp_path)
    assert dataset.channels == 3
    assert torch.equal(dataset.val.images[:, 0], dataset.val.images[:, 2])
    assert any("1 of 5 images are coloured (first train/a/red.png)" in n for n in dataset.provenance["notes"])


def test_the_centre_is_cropped_to_a_square_and_resized(tmp_path: Path) -> None:
    pixels = np.zeros((20, 60), np.uint8)
    pixels[:, 20:40] = 200
    read = saved(tmp_path / "wide", Image.fromarray(pixels), "x.png")
    assert read.shape == (1, 4, 4)
    assert (read == 200).all()


def test_enlarged_images_are_counted(tmp_path: Path) -> None:
    write_folder(tmp_path / "scans", {"train/a": 2, "val/a": 1, "test/a": 1})
    notes = load_dataset("scans", 16, tmp_path).provenance["notes"]
    assert any("4 of 4 images are smaller than 16 px" in note for note in notes)


# ---- CIFAR-10


def test_cifar10_comes_in_one_size(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="size of cifar10 must be 32 px, its only one, got 224"):
        load_dataset("cifar10", 224, tmp_path)


def test_cifar10_as_an_image_folder_says_so_and_gets_a_val_split(tmp_path: Path) -> None:
    counts = {f"{split}/{name}": 10 for split in ("train", "test") for name in ("cat", "dog", "frog")}
    write_folder(tmp_path / "cifar10", counts, mode="RGB", size=(32, 32))
    dataset = load_dataset("cifar10", root=tmp_path)
    assert [len(s) for s in dataset.splits.values()] == [27, 3, 30]
    assert dataset.size == 32
    assert dataset.provenance["status"] == "image folder"


def test_cifar10_without_files_or_network_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"cifar-10-python\.tar\.gz is not in .*phantom_shapes") as error:
        load_dataset("cifar10", 32, tmp_path)
    one_sentence(error)


def packed_cifar10(root: Path, monkeypatch: pytest.MonkeyPatch) -> np.ndarray:
    """A tiny CIFAR-10 in torchvision's format, with its MD5s; the first training image."""
    official = torchvision.datasets.CIFAR10
    digests, first = {}, None
    with tarfile.open(root / official.filename, "w:gz") as archive:
        for name, _ in [*official.train_list, *official.test_list, (official.meta["filename"], "")]:
            data = RNG.integers(0, 256, (20, 3072), np.uint8)
            first = data[0] if first is None else first
            content: dict[str, Any] = {"data": data, "labels": list(range(10)) * 2}
            if name == official.meta["filename"]:
                content = {official.meta["key"]: list("abcdefghij")}
            packed = pickle.dumps(content)
            digests[name] = hashlib.md5(packed).hexdigest()
            info = tarfile.TarInfo(f"{official.base_folder}/{name}")
            info.size = len(packed)
            archive.addfile(info, io.BytesIO(packed))
    for attribute in ("train_list", "test_list"):
        monkeypatch.setattr(official, attribute, [[name, digests[name]] for name, _ in getattr(official, attribute)])
    monkeypatch.setattr(official, "meta", {**official.meta, "md5": digests[official.meta["filename"]]})
    monkeypatch.setattr(official, "tgz_md5", hashlib.md5((root / official.filename).read_bytes()).hexdigest())
    assert first is not None
    return first


def test_official_cifar10_is_preferred_unpacked_and_checked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = packed_cifar10(tmp_path, monkeypatch)
    write_folder(tmp_path / "cifar10", {"train/cat": 2, "test/cat": 1}, mode="RGB", size=(32, 32))
    dataset = load_dataset("cifar10", root=tmp_path)
    assert [len(s) for s in dataset.splits.values()] == [90, 10, 20]
    assert dataset.provenance["status"] == "official"
    assert dataset.class_names == tuple("abcdefghij")
    everything = torch.cat([dataset.train.images, dataset.val.images])
    assert (everything == torch.from_numpy(first.reshape(3, 32, 32))).flatten(1).all(dim=1).any()


def test_damaged_cifar10_batches_are_one_clear_sentence(tmp_path: Path) -> None:
    (tmp_path / "cifar-10-batches-py").mkdir()
    with pytest.raises(ValueError, match="must hold CIFAR-10's official files, got damaged or missing") as error:
        load_dataset("cifar10", 32, tmp_path)
    one_sentence(error)
