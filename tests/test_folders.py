"""Image folders, and CIFAR-10 in either of its forms: what is read, carved, converted and refused, in one sentence."""

import json
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from datafiles import offline, write_folder  # noqa: F401  a fixture
from PIL import Image
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian
from samples import one_sentence
from torchvision.datasets import CIFAR10

from cxr_helpers.data import load_dataset
from cxr_helpers.study import get_profile

pytestmark = pytest.mark.usefixtures("offline")
BATCHES = [name for name, _ in CIFAR10.train_list + CIFAR10.test_list]
BOTH = {"train/a": 20, "train/b": 20}


def test_a_name_is_looked_up_in_the_root_and_a_path_anywhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = write_folder(tmp_path / "home/scans", BOTH).parent
    monkeypatch.setenv("HOME", str(root))
    monkeypatch.chdir(tmp_path)
    assert len({load_dataset(name, 8, root).fingerprint for name in ("scans/", "~/scans/", "./home/scans")}) == 1
    with pytest.raises(FileNotFoundError, match=r"no folder at '\.\./outside'"):
        load_dataset("../outside", 8, root)


def test_a_folder_with_all_splits_keeps_them_and_its_sorted_classes(tmp_path: Path) -> None:
    counts = {"train/sick": 3, "train/normal": 4, "valid/normal": 2, "test/sick": 1, "test/normal": 2}
    first = np.asarray(Image.open(write_folder(tmp_path / "scans", counts) / "train" / "normal" / "000.png"))
    dataset = load_dataset("scans", 8, tmp_path)
    assert str(tmp_path) not in json.dumps(dataset.provenance)
    assert (dataset.class_names, dataset.task) == (("normal", "sick"), "binary")
    assert [s.labels.tolist() for s in dataset.splits.values()] == [[0] * 4 + [1] * 3, [0, 0], [0, 0, 1]]
    np.testing.assert_array_equal(dataset.train.images[0, 0].numpy(), first)


def test_missing_splits_are_carved_by_class_the_same_way_each_time(tmp_path: Path) -> None:
    write_folder(tmp_path / "scans", {"train/a": 50, "train/b": 100}, size=4)
    dataset, again = (load_dataset("scans", 4, tmp_path) for _ in range(2))
    assert dataset.fingerprint == again.fingerprint
    assert [np.bincount(s.labels).tolist() for s in dataset.splits.values()] == [[36, 72], [4, 8], [10, 20]]
    assert any("no patients are known" in note for note in dataset.provenance["notes"])


def test_carved_splits_keep_patients_whole_and_a_table_that_contradicts_the_folders_is_refused(tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "scans", {"train/a": 40, "train/b": 40}, size=4)
    rows = [f"{name}/{i:03d}.png,x,p{i // 5}" for name in "ab" for i in range(40)]
    (folder / "index.csv").write_text("\n".join(["file,note,patient", *rows]))
    dataset = load_dataset("scans", 4, tmp_path)
    patients = [set(split.groups.tolist()) for split in dataset.splits.values() if split.groups is not None]
    assert len(patients) == 3 and all(patients)
    assert sum(map(len, patients)) == len(set.union(*patients)) == 8
    (folder / "index.csv").unlink()
    (folder / "groups.csv").write_text("file,group\ntrain/a/000.png,p\ntrain/a/001.png,p\n")
    dataset = load_dataset("scans", 4, tmp_path)
    assert "78 images without a row in groups.csv count as a patient each" in dataset.provenance["notes"]
    (folder / "index.csv").write_text("file,label\na/000.png,b\n")
    (folder / "groups.csv").unlink()
    with pytest.raises(ValueError, match=r"label of train/a/000\.png in .*index\.csv must be its folder's, a, got 'b'"):
        load_dataset("scans", 4, tmp_path)


def test_images_that_are_skipped_left_out_or_in_two_splits_are_named_and_counted(tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "scans", BOTH | {"test/a": 1, "train/a/series": 2, "validation/a": 1})
    whole = (folder / "train" / "a" / "000.png").read_bytes()
    (folder / "test" / "a" / "copy.png").write_bytes(whole)
    (folder / "train" / "a" / "half.png").write_bytes(whole[: len(whole) // 2])
    (folder / "train" / "b" / "empty.JPG").write_bytes(b"")
    (folder / "train" / "b" / "link.png").symlink_to("nowhere")
    dataset = load_dataset("scans", 8, tmp_path)
    assert sum(map(len, dataset.splits.values())) == 42
    reasons = {"a/half.png": "damaged or truncated", "b/empty.JPG": "empty", "b/link.png": "not a file"}
    assert dataset.provenance["skipped"] == {f"train/{name}": reason for name, reason in reasons.items()}
    said = " ".join(dataset.provenance["notes"])
    assert "3 of 45 files were skipped (1 damaged or truncated, 1 empty, 1 not a file): train/a/half.png" in said
    assert "3 images lie elsewhere and are not read (first train/a/series/000.png)" in said
    assert "1 of 2 test files are also in train, byte for byte" in said


def test_every_kind_of_image_becomes_grey_or_rgb_by_the_stated_rule(tmp_path: Path) -> None:
    ramp = np.arange(16, dtype=np.uint8).reshape(4, 4) * 17
    grey, red, turned = Image.fromarray(ramp), Image.new("CMYK", (4, 4), (0, 255, 255, 0)), Image.Exif()
    turned[0x0112] = 3  # upside down and mirrored: a turn by 180 degrees
    kinds: dict[str, tuple[Image.Image, np.ndarray]] = {
        "rgb.png": (grey.convert("RGB"), ramp),
        "palette.gif": (grey.convert("P"), ramp),
        "turned.png": (grey, ramp[::-1, ::-1]),
        "alpha.png": (Image.merge("LA", [grey, Image.new("L", (4, 4), 0)]), 0 * ramp),
        "bits.png": (Image.fromarray(ramp > 99), (ramp > 99) * 255),
        "cmyk.tif": (red, np.array([255, 0, 0])[:, None, None].repeat(4, 1).repeat(4, 2)),
    }
    for name, (image, expected) in kinds.items():
        for split in ("train", "val", "test"):
            (tmp_path / name / split / "a").mkdir(parents=True)
            image.save(tmp_path / name / split / "a" / name, **({"exif": turned} if "turned" in name else {}))
        read = load_dataset(str(tmp_path / name), 4).train.images[0].numpy()
        np.testing.assert_allclose(read.squeeze(), expected, atol=3, err_msg=name)


def test_more_than_eight_bits_are_scaled_by_one_range_and_one_coloured_image_makes_all_rgb(tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "scans", {"train/a": 2, "val/a": 1, "test/a": 1}, size=4)
    ramp, wide = np.arange(16).reshape(4, 4), np.kron([[0, 200, 0]], np.ones((4, 4)))
    Image.fromarray((ramp * 100 + 1000).astype(np.uint16)).save(folder / "train" / "a" / "x.png")  # to 2500
    Image.fromarray((ramp * 273).astype(np.uint16)).save(folder / "test" / "a" / "y.tif")  # to 4095
    Image.fromarray(wide.astype(np.uint8)).save(folder / "val" / "a" / "wide.png")
    Image.new("RGB", (4, 4), (255, 0, 0)).save(folder / "train" / "a" / "y.png")
    dataset = load_dataset("scans", 4, tmp_path)
    np.testing.assert_array_equal(dataset.test.images[1, 0], ramp * 17)
    np.testing.assert_array_equal(dataset.train.images[2, 0], np.rint((ramp * 100 + 1000) * 255 / 4095))
    assert (dataset.val.images[1] == 200).all()  # the centre
    assert dataset.train.images[3, :, 0, 0].tolist() == [255, 0, 0]
    said = " ".join(dataset.provenance["notes"])
    assert "2 images have more than 8 bits: their range, 0 to 4095, became 0 to 255" in said
    assert "1 of 8 images are coloured (first train/a/y.png)" in said


def test_official_cifar10_is_checked_and_a_folder_named_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_folder(tmp_path / "cifar10", {"train/cat": 20, "test/cat": 1}, size=32, channels=3)
    folder = load_dataset("cifar10", root=tmp_path)
    assert (folder.name, len(folder.test), folder.provenance["status"]) == ("cifar10", 1, "image folder")
    images, batches = np.random.default_rng(0).integers(0, 256, (20, 3072), np.uint8), tmp_path / CIFAR10.base_folder
    contents: dict[str, Any] = {name: {"data": images, "labels": [*range(10)] * 2} for name in BATCHES}
    contents[CIFAR10.meta["filename"]] = {CIFAR10.meta["key"]: list("abcdefghij")}
    batches.mkdir()
    for name, content in contents.items():
        (batches / name).write_bytes(pickle.dumps(content))
    with pytest.raises(ValueError, match="must hold CIFAR-10's official files, got damaged or missing"):
        load_dataset("cifar10", root=tmp_path)
    monkeypatch.setattr("torchvision.datasets.cifar.check_integrity", lambda *_: True)
    dataset = load_dataset("cifar10", root=tmp_path)
    assert [len(s) for s in dataset.splits.values()] == [90, 10, 20]
    assert dataset.provenance["status"] == "official" and dataset.class_names == tuple("abcdefghij")
    assert (dataset.test.images == torch.from_numpy(images[0].reshape(3, 32, 32))).flatten(1).all(dim=1).any()


Case = tuple[Callable[[Path], Any], tuple[str, ...]]
SCANS = {f"{split}/{name}": 3 for split in ("train", "val", "test") for name in ("ill", "well")}


def load(name: str, size: int = 28, **more: Any) -> Callable[[Path], Any]:
    return lambda folder: load_dataset(name, size, folder, **more)


def scans(change: Callable[[Path], Any], counts: dict[str, int] = SCANS) -> Callable[[Path], Any]:
    """Load an image folder after a change to it."""
    return lambda folder: (change(write_folder(folder / "scans", counts)), load("scans", 8)(folder))


CASES: dict[str, Case] = {
    # names and sizes
    "unknown data set": (load("retina"), ("'retina'", "must be one of", "did you mean")),
    "a size not offered": (load("chestmnist", 96), ("got 96", "28, 64, 128, 224 px")),
    # archives
    "an error page": (
        lambda f: ((f / "breastmnist.npz").write_bytes(b"<html>404</html>"), load("breastmnist")(f)),
        ("must be a whole .npz", "damaged or incomplete (ValueError)", "move it away"),
    ),
    # image folders
    "no train folder": (scans(lambda d: None, {"a": 1}), ("scans", "must hold train/<class>/", "name another folder")),
    "a class of unreadable files": (
        scans(lambda d: ((d / "train/third").mkdir(), (d / "train/third/x.png").write_bytes(b"no image"))),
        ("train/third", "must hold readable images", "replace them or remove"),
    ),
    "a class that train lacks": (scans(lambda d: (d / "test/new").mkdir()), ("got 'new'", "among train's, ill, well")),
    "a table without columns": (
        scans(lambda d: (d / "groups.csv").write_text("name,who\n1,2\n")),
        ("['name', 'who']", "must be a table with the columns file"),
    ),
    # other things
    "an unknown profile": (lambda f: get_profile("huge"), ("'huge'", "one of smoke, quick, cpu, full")),
}


@pytest.mark.parametrize("case", CASES)
def test_one_sentence_answers(case: str, tmp_path: Path) -> None:
    call, pieces = CASES[case]
    with pytest.raises((ValueError, OSError)) as error:
        call(tmp_path)
    said = one_sentence(error.value)
    assert [piece for piece in pieces if piece not in said] == [], said


def write_dicom(path: Path, values: np.ndarray, kind: str = "MONOCHROME2", **tags: Any) -> None:
    """A 12-bit film as a scanner stores it."""
    film = Dataset()
    film.file_meta = FileMetaDataset()
    film.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    film.SOPClassUID, film.SOPInstanceUID = "1.2.840.10008.5.1.4.1.1.1.1", "1.2.3"
    film.Rows, film.Columns = values.shape
    film.BitsAllocated, film.BitsStored, film.HighBit, film.PixelRepresentation = 16, 12, 11, 0
    film.SamplesPerPixel, film.PhotometricInterpretation = 1, kind
    film.PixelData = values.astype(np.uint16).tobytes()
    for name, value in tags.items():
        setattr(film, name, value)
    path.parent.mkdir(parents=True, exist_ok=True)
    film.save_as(path, enforce_file_format=True)


def test_dicom_films_are_read_through_their_window_with_dense_tissue_bright(tmp_path: Path) -> None:
    ramp = np.arange(64 * 64).reshape(64, 64)  # 0 to 4095
    window = {"WindowCenter": 2048, "WindowWidth": 1025}
    for split in ("train", "val", "test"):
        for i in range(4):
            write_dicom(tmp_path / "films" / split / "a" / f"{i}.dcm", ramp, **window)
            write_dicom(tmp_path / "films" / split / "b" / f"{i}.dcm", 4095 - ramp, "MONOCHROME1", **window)
    films = load_dataset(str(tmp_path / "films"), 64)
    expected = np.rint(255 * np.clip((ramp - 2047.5) / 1024 + 0.5, 0, 1))
    normal, inverted = (films.train.images[films.train.labels == label][0, 0].numpy() for label in (0, 1))
    assert (normal == expected).all() and np.abs(inverted.astype(int) - expected).max() <= 1
    for file in (tmp_path / "films").rglob("*.dcm"):  # a window that is empty: the range of all films
        write_dicom(file, ramp // 2, "MONOCHROME2" if file.parent.name == "a" else "MONOCHROME1", WindowCenter="")
    films = load_dataset(str(tmp_path / "films"), 64)
    normal, inverted = (films.train.images[films.train.labels == label][0, 0].numpy() for label in (0, 1))
    assert (normal == np.rint(ramp // 2 * 255 / 4095)).all() and normal.max() == 127
    assert (inverted.astype(int) + normal == 255).all()
    assert any("more than 8 bits: their range, 0 to 4095" in note for note in films.provenance["notes"])


def test_dicom_films_without_pydicom_say_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_dicom(tmp_path / "films" / "train" / "a" / "0.dcm", np.zeros((8, 8)))
    monkeypatch.setattr("cxr_helpers.data.dicom.find_spec", lambda _: None)
    with pytest.raises(ValueError, match=r"holds DICOM films, which need pydicom: pip install 'cxr-helpers\[dicom\]'"):
        load_dataset(str(tmp_path / "films"), 64)
