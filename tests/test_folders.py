"""Image folders, and CIFAR-10 in either of its forms: what is read, carved, converted and refused."""

from __future__ import annotations

import hashlib
import io
import json
import pickle
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from datafiles import offline, write_folder  # noqa: F401  a fixture
from PIL import Image
from torchvision.datasets import CIFAR10

from cxr_helpers.data import load_dataset

pytestmark = pytest.mark.usefixtures("offline")
BOTH = {"train/a": 20, "train/b": 20}


def test_a_name_is_looked_up_in_the_root_a_path_anywhere_and_a_slash_or_tilde_is_expanded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_folder(tmp_path / "home" / "scans", BOTH)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)
    root = tmp_path / "home"
    prints = {
        load_dataset(name, 8, root).fingerprint
        for name in ("scans", "scans/", "~/scans/", "./home/scans", "home/scans/")
    }
    assert len(prints) == 1
    with pytest.raises(FileNotFoundError, match=r"no folder at '\.\./outside'"):
        load_dataset("../outside", 8, root)
    with pytest.raises(ValueError, match=r"pneumoniamnist, .*\(scans\), got 'scan': did you mean scans\?"):
        load_dataset("scan", 8, root)
    write_folder(tmp_path / "x" / "pneumoniamnist", BOTH)
    assert load_dataset(str(tmp_path / "x" / "pneumoniamnist"), 8).name == "pneumoniamnist-folder"


@pytest.mark.parametrize("val", ["val", "valid"])
def test_a_folder_with_all_splits_keeps_them_and_its_sorted_classes(tmp_path: Path, val: str) -> None:
    counts = {"train/sick": 3, "train/normal": 4, f"{val}/normal": 2, "test/sick": 1, "test/normal": 2}
    write_folder(tmp_path / "scans", counts)
    dataset = load_dataset("scans", 8, tmp_path)
    assert str(tmp_path) not in json.dumps(dataset.provenance)
    assert (dataset.class_names, dataset.task, dataset.channels) == (("normal", "sick"), "binary", 1)
    assert [s.labels.tolist() for s in dataset.splits.values()] == [[0] * 4 + [1] * 3, [0, 0], [0, 0, 1]]
    first = np.asarray(Image.open(tmp_path / "scans" / "train" / "normal" / "000.png"))
    np.testing.assert_array_equal(dataset.train.images[0, 0].numpy(), first)


def test_missing_splits_are_carved_by_class_the_same_way_each_time(tmp_path: Path) -> None:
    write_folder(tmp_path / "scans", {"train/a": 50, "train/b": 100, "train/c": 200}, size=4)
    dataset, again = (load_dataset("scans", 4, tmp_path) for _ in range(2))
    assert dataset.task == "multiclass" and dataset.fingerprint == again.fingerprint
    counts = [np.bincount(split.labels).tolist() for split in dataset.splits.values()]
    assert counts == [[36, 72, 144], [4, 8, 16], [10, 20, 40]]
    images = torch.cat([split.images for split in dataset.splits.values()]).flatten(1)
    assert len(images.unique(dim=0)) == 350
    assert any("no patients are known" in note for note in dataset.provenance["notes"])


@pytest.mark.parametrize(
    ("table", "column"), [("groups.csv", "group"), ("groups.csv", "patient"), ("index.csv", "patient")]
)
def test_carved_splits_keep_patients_whole(tmp_path: Path, table: str, column: str) -> None:
    folder = write_folder(tmp_path / "scans", {"train/a": 40, "train/b": 40}, size=4)
    rows = [f"{name}/{i:03d}.png,x,p{i // 5}" for name in "ab" for i in range(40)]
    (folder / table).write_text("\n".join([f"file,note,{column}", *rows]))
    dataset = load_dataset("scans", 4, tmp_path)
    patients = [set(split.groups.tolist()) for split in dataset.splits.values() if split.groups is not None]
    assert len(patients) == 3 and all(patients)
    assert sum(map(len, patients)) == len(set.union(*patients)) == 8
    assert all(split.labels.unique().tolist() == [0, 1] for split in dataset.splits.values())
    (folder / table).write_text(f"file,{column}\ntrain/a/000.png,p\ntrain/a/001.png,p\n")
    dataset = load_dataset("scans", 4, tmp_path)
    groups = np.concatenate([s.groups for s in dataset.splits.values() if s.groups is not None])
    assert (len(groups), len(set(groups))) == (80, 79)
    assert f"78 images without a row in {table} count as a patient each" in dataset.provenance["notes"]


@pytest.mark.parametrize("place", ["train/images", "train"])
def test_images_of_one_class_or_without_class_folders_have_no_labels_and_are_carved(tmp_path: Path, place: str) -> None:
    write_folder(tmp_path / "scans", {place: 20})
    dataset = load_dataset("scans", 8, tmp_path)
    assert not dataset.has_labels and not any(split.labelled.any() for split in dataset.splits.values())
    assert (dataset.task, dataset.num_outputs) == ("multiclass", 1)
    assert [len(split) for split in dataset.splits.values()] == [14, 2, 4]
    assert any("not labelled" in note for note in dataset.provenance["notes"])


def test_images_that_are_skipped_or_in_two_splits_are_named_and_counted(tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "scans", BOTH | {"test/a": 1})
    whole = (folder / "train" / "a" / "000.png").read_bytes()
    (folder / "test" / "a" / "copy.png").write_bytes(whole)
    (folder / "train" / "a" / "empty.png").write_bytes(b"")
    (folder / "train" / "a" / "half.png").write_bytes(whole[: len(whole) // 2])
    (folder / "train" / "b" / "text.JPG").write_text("not an image")
    (folder / "train" / "b" / ".hidden.png").write_bytes(b"")
    (folder / "train" / "b" / "link.png").symlink_to("nowhere")
    dataset = load_dataset("scans", 8, tmp_path)
    assert sum(map(len, dataset.splits.values())) == 42
    names = "train/a/empty.png", "train/a/half.png", "train/b/link.png", "train/b/text.JPG"
    assert dataset.provenance["skipped"] == list(names)
    said = " ".join(dataset.provenance["notes"])
    assert f"4 of 46 files are no readable images and were skipped: {', '.join(names)}" in said
    assert "1 of 2 test files are also in train, byte for byte" in said


def saved(folder: Path, image: Image.Image, name: str, **options: Any) -> np.ndarray:
    """The image as `load_dataset` reads it at 4 px from a folder of its kind alone: [C, 4, 4]."""
    for split in ("train", "val", "test"):
        (folder / split / "a").mkdir(parents=True)
        image.save(folder / split / "a" / name, **options)
    return load_dataset(str(folder), 4).train.images[0].numpy()


def test_every_kind_of_image_becomes_grey_or_rgb_by_the_stated_rule(tmp_path: Path) -> None:
    ramp = np.arange(16, dtype=np.uint8).reshape(4, 4) * 17
    grey, turned = Image.fromarray(ramp), Image.Exif()
    turned[0x0112] = 3  # upside down and mirrored: a turn by 180 degrees
    for suffix in ("png", "tif", "gif", "bmp"):
        np.testing.assert_array_equal(saved(tmp_path / suffix, grey, f"x.{suffix}")[0], ramp)
    np.testing.assert_array_equal(saved(tmp_path / "rgb", grey.convert("RGB"), "x.png")[0], ramp)
    np.testing.assert_array_equal(saved(tmp_path / "palette", grey.convert("P"), "x.png")[0], ramp)
    np.testing.assert_array_equal(saved(tmp_path / "exif", grey, "x.png", exif=turned)[0], ramp[::-1, ::-1])
    see_through = Image.merge("LA", [grey, Image.new("L", (4, 4), 0)])
    np.testing.assert_array_equal(saved(tmp_path / "alpha", see_through, "x.png")[0], 0 * ramp)
    bits = saved(tmp_path / "bits", Image.fromarray(ramp > 99), "x.png")
    np.testing.assert_array_equal(bits[0], (ramp > 99) * 255)
    red = Image.new("RGB", (4, 4), (200, 10, 10))
    for mode, name in (("RGB", "x.webp"), ("CMYK", "x.jpg"), ("RGBA", "x.png"), ("P", "x.png")):
        read = saved(tmp_path / mode, red.quantize(4) if mode == "P" else red.convert(mode), name)
        assert read.shape == (3, 4, 4) and read[0].min() > 180 and read[1:].max() < 40, mode


def test_more_than_eight_bits_are_scaled_by_one_range_of_the_whole_data_set(tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "scans", {"train/a": 2, "val/a": 1, "test/a": 1}, size=4)
    eight = load_dataset("scans", 4, tmp_path)
    ramp = np.arange(16).reshape(4, 4)
    Image.fromarray((ramp * 100 + 1000).astype(np.uint16)).save(folder / "train" / "a" / "x.png")  # to 2500
    Image.fromarray((ramp * 273).astype(np.uint16)).save(folder / "test" / "a" / "y.tif")  # to 4095
    wide = load_dataset("scans", 4, tmp_path)
    assert torch.equal(wide.train.images[:2], eight.train.images)
    np.testing.assert_array_equal(wide.test.images[1, 0], ramp * 17)
    np.testing.assert_array_equal(wide.train.images[2, 0], np.rint((ramp * 100 + 1000) * 255 / 4095))
    assert "2 images have more than 8 bits: their range, 0 to 4095, became 0 to 255" in wide.provenance["notes"]


def test_the_centre_is_cropped_and_one_coloured_image_makes_all_rgb_and_is_named(tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "scans", {"train/a": 2, "val/a": 1, "test/a": 1})
    Image.fromarray(np.kron([[0, 200, 0]], np.ones((8, 8))).astype(np.uint8)).save(folder / "val" / "a" / "wide.png")
    Image.new("RGB", (8, 8), (255, 0, 0)).save(folder / "train" / "a" / "red.png")
    dataset = load_dataset("scans", 16, tmp_path)
    assert dataset.channels == 3 and (dataset.val.images[1] == 200).all()
    assert torch.equal(dataset.val.images[:, 0], dataset.val.images[:, 2])
    assert dataset.train.images[2, :, 0, 0].tolist() == [255, 0, 0]
    assert "1 of 6 images are coloured (first train/a/red.png)" in " ".join(dataset.provenance["notes"])


# ---- CIFAR-10


def test_cifar10_as_an_image_folder_says_so_and_gets_a_val_split(tmp_path: Path) -> None:
    counts = {f"{split}/{name}": 10 for split in ("train", "test") for name in ("cat", "dog", "frog")}
    write_folder(tmp_path / "cifar10", counts, size=32, channels=3)
    dataset = load_dataset("cifar10", root=tmp_path)
    assert [len(s) for s in dataset.splits.values()] == [27, 3, 30]
    assert (dataset.name, dataset.size, dataset.provenance["status"]) == ("cifar10", 32, "image folder")


def packed_cifar10(root: Path, monkeypatch: pytest.MonkeyPatch) -> np.ndarray:
    """A tiny CIFAR-10 in torchvision's format, with its MD5s; its first image."""
    digests, images = {}, np.random.default_rng(0).integers(0, 256, (20, 3072), np.uint8)
    with tarfile.open(root / CIFAR10.filename, "w:gz") as archive:
        for name, _ in [*CIFAR10.train_list, *CIFAR10.test_list, (CIFAR10.meta["filename"], "")]:
            content: dict[str, Any] = {"data": images, "labels": list(range(10)) * 2}
            packed = pickle.dumps({CIFAR10.meta["key"]: list("abcdefghij")} if "meta" in name else content)
            digests[name] = hashlib.md5(packed).hexdigest()
            info = tarfile.TarInfo(f"{CIFAR10.base_folder}/{name}")
            info.size = len(packed)
            archive.addfile(info, io.BytesIO(packed))
    for attribute in ("train_list", "test_list"):
        monkeypatch.setattr(CIFAR10, attribute, [[name, digests[name]] for name, _ in getattr(CIFAR10, attribute)])
    monkeypatch.setattr(CIFAR10, "meta", {**CIFAR10.meta, "md5": digests[CIFAR10.meta["filename"]]})
    monkeypatch.setattr(CIFAR10, "tgz_md5", hashlib.md5((root / CIFAR10.filename).read_bytes()).hexdigest())
    return images[0]


def test_official_cifar10_is_preferred_unpacked_and_checked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = packed_cifar10(tmp_path, monkeypatch)
    write_folder(tmp_path / "cifar10", {"train/cat": 2, "test/cat": 1}, size=32, channels=3)
    dataset = load_dataset("cifar10", root=tmp_path)
    assert [len(s) for s in dataset.splits.values()] == [90, 10, 20]
    assert dataset.provenance["status"] == "official" and dataset.class_names == tuple("abcdefghij")
    assert (dataset.test.images == torch.from_numpy(first.reshape(3, 32, 32))).flatten(1).all(dim=1).any()
    batch = tmp_path / CIFAR10.base_folder / "data_batch_1"
    batch.write_bytes(batch.read_bytes() + b".")
    with pytest.raises(ValueError, match="must hold CIFAR-10's official files, got damaged or missing"):
        load_dataset("cifar10", root=tmp_path)
