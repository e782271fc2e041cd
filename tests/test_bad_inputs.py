"""Bad inputs, each answered by one clear sentence: the value that was given, what was expected, and the way out.

What is expected and the way out are one where the expected is a list or a range to choose from. Ranges of single fields
are tested beside them (`test_config`, `test_policies`).
"""

from __future__ import annotations

import pickle
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import pytest
import torch
from conftest import texture_dataset
from datafiles import COUNTS, offline, write_archive, write_folder  # noqa: F401  a fixture
from safetensors.torch import save_file
from samples import one_sentence

from cxr_helpers import (
    AugmentationPolicy,
    PretrainConfig,
    TwoViews,
    eval_transform,
    explore_augmentations,
    load_dataset,
    nt_xent_loss,
    vicreg_loss,
)
from cxr_helpers.augment import POLICIES, Normalisation, draw_table
from cxr_helpers.data.download import download
from cxr_helpers.models import build_backbone, load_backbone
from cxr_helpers.probe.metrics import classification_metrics
from cxr_helpers.recipes import resolve
from cxr_helpers.report.pages import build
from cxr_helpers.report.publish import publish
from cxr_helpers.study import get_profile

Case = tuple[Callable[[Path], Any], tuple[str, ...]]
GREY = Normalisation((0.5,), (0.5,))
Z, BYTES = torch.randn(4, 3), torch.zeros(2, 1, 8, 8, dtype=torch.uint8)
SCANS = {f"{split}/{name}": 3 for split in ("train", "val", "test") for name in ("ill", "well")}
pytestmark = pytest.mark.usefixtures("offline")


def load(name: str, size: int = 28, **more: Any) -> Callable[[Path], Any]:
    return lambda folder: load_dataset(name, size, folder, **more)


def npz(**changes: Any) -> Callable[[Path], Any]:
    """Load a MedMNIST-like file with some arrays changed."""
    return lambda folder: load_dataset(write_archive(folder, **changes).stem, 28, folder)


def bytes_as_npz(content: bytes) -> Callable[[Path], Any]:
    return lambda folder: ((folder / "breastmnist.npz").write_bytes(content), load("breastmnist")(folder))


def cut(share: float) -> Callable[[Path], Any]:
    """Load an archive of which only a part is there."""

    def read(folder: Path) -> Any:
        content = write_archive(folder).read_bytes()
        return bytes_as_npz(content[: int(share * len(content))])(folder)

    return read


def scans(change: Callable[[Path], Any], counts: dict[str, int] = SCANS) -> Callable[[Path], Any]:
    """Load an image folder after a change to it."""
    return lambda folder: (change(write_folder(folder / "scans", counts)), load("scans", 8)(folder))


def table(content: str, encoding: str = "utf-8") -> Callable[[Path], Any]:
    """Load an image folder with such a table of patients."""
    return scans(lambda folder: (folder / "groups.csv").write_text(content, encoding))


def encoder(name: str = "resnet18", channels: int = 1, init: str = "random") -> Callable[[Path], Any]:
    return lambda folder: build_backbone(name, channels=channels, size=64, init=init, normalisation=GREY, seed=0)


def weights(content: object) -> Callable[[Path], Any]:
    """Build an encoder from such ImageNet weights; None is no file."""

    def read(folder: Path) -> Any:
        if content is not None:
            torch.save(content, folder / "w.pth")
        with patch.dict("os.environ", CXR_IMAGENET_WEIGHTS=str(folder / "w.pth")):
            return encoder(init="imagenet")(folder)

    return read


def backbone_file(**metadata: str) -> Callable[[Path], Any]:
    """Load a backbone from a file of one tensor and this description."""

    def read(folder: Path) -> Any:
        save_file({"a": Z}, folder / "backbone.safetensors", metadata=metadata)
        return load_backbone(folder / "backbone.safetensors")

    return read


def views(images: torch.Tensor, draws: int = 2) -> Callable[[Path], Any]:
    return lambda folder: TwoViews(POLICIES["ssl"], 8)(images, draw_table(draws, 2, 0, 0))


def policy(**fields: Any) -> Callable[[Path], Any]:
    return lambda folder: AugmentationPolicy(**{"name": "x", "reason": "y"} | fields)


def config(**fields: Any) -> Callable[[Path], Any]:
    return lambda folder: resolve(PretrainConfig(**fields))


DAMAGED = ("must be a complete .npz", "damaged or truncated", "move it away")
REPLACE = ("breastmnist.npz", "replace the file")
CASES: dict[str, Case] = {
    # names and sizes
    "unknown data set": (load("retina"), ("'retina'", "must be one of", "did you mean")),
    "misspelt case": (load("ChestMNIST"), ("'ChestMNIST'", "did you mean chestmnist?")),
    "volumes": (load("organmnist3d"), ("'organmnist3d'", "must be one of pathmnist")),
    "no folder there": (load("./no/x"), ("./no/x", "image folder", "mend the path")),
    "an empty name": (load(""), ("got ''", "must be one of", "name a folder by its path")),
    "the root itself": (load(".."), ("got '..'", "must be one of", "by its path")),
    "a name with NUL": (load("a\0b"), ("'a\\x00b'", "must be one of")),
    "an endless name": (load("x" * 9999), ("xxx", "must be one of", "its path")),
    "a size not offered": (load("chestmnist", 96), ("got 96", "28, 64, 128, 224 px")),
    "half a pixel": (load("chestmnist", 64.5), ("got 64.5", "whole number of pixels, 1 or more")),  # type: ignore[arg-type]
    "cifar10 at 64 px": (load("cifar10", 64), ("got 64", "must be 32 px")),
    "a phantom of 8 px": (load("phantom", 8), ("got 8", "28 px or more")),
    "no train images": (load("phantom", max_train_images=0), ("max_train_images", "1 or more", "got 0")),
    "half an image": (load("phantom", max_eval_images=2.5), ("max_eval_images", "a whole number", "got 2.5")),
    "no file and no network": (load("breastmnist", 64), ("breastmnist_64.npz", "put the file there", "CXR_DATA")),
    "no CIFAR-10 and no network": (load("cifar10", 32), ("cifar-10-python.tar.gz", "could not be", "phantom_shapes")),
    # archives
    "an archive without its end": (cut(0.99), DAMAGED),
    "an error page": (bytes_as_npz(b"<html>404</html>"), DAMAGED),
    "a pickle": (bytes_as_npz(pickle.dumps([1])), DAMAGED),
    "something else": (
        lambda f: (np.savez(f / "breastmnist.npz", x=Z.numpy()), load("breastmnist")(f)),
        ("no train_images", "must hold images and labels of train, val, test", "replace the file"),
    ),
    "objects in an archive": (npz(val_groups=np.array([{}] * 4)), DAMAGED),
    "float images": (npz(train_images=np.zeros((8, 28, 28))), ("train_images must be uint8", "float64", *REPLACE)),
    "images of another size": (
        npz(**{f"{split}_images": np.zeros((n, 32, 32), np.uint8) for split, n in COUNTS.items()}),
        ("[8, 1, 32, 32]", "must be [8, 1, 28, 28]", *REPLACE),
    ),
    "two channels": (npz(val_images=np.zeros((4, 28, 28, 2), np.uint8)), ("[4, 2, 28, 28]", "must be [N, 1 or 3, S")),
    "no images": (npz(val_images=np.zeros((0, 28, 28), np.uint8)), ("0, 28, 28]", "N at least 1", *REPLACE)),
    "float labels": (npz(train_labels=np.zeros((8, 1))), ("float64", "train_labels must be integers", *REPLACE)),
    "a label too high": (npz(test_labels=np.full((4, 1), 9)), ("[9, 9]", "0 to 1, or -1", *REPLACE)),
    "a label below -1": (npz(test_labels=np.full((4, 1), -5)), ("[-5, -5]", "0 to 1, or -1", *REPLACE)),
    "fewer labels than images": (npz(val_labels=np.zeros((3, 1), int)), ("got 3", "as many as images, 4", *REPLACE)),
    "fewer patients than images": (npz(val_groups=np.array(["a"])), ("got 1", "val_groups must be as many as images")),
    "patients as numbers": (npz(val_groups=np.arange(4)), ("array([0, 1, 2, 3])", "must be strings [N]", *REPLACE)),
    "a patient without a name": (npz(val_groups=np.array(["a", "", "b", "c"])), ("none empty", *REPLACE)),
    # image folders
    "no train folder": (scans(lambda d: None, {"a": 1}), ("scans", "must hold train/<class>/", "name another folder")),
    "an empty class": (scans(lambda d: (d / "train/third").mkdir()), ("third", "must hold images", "got none: add")),
    "a class of unreadable files": (
        scans(lambda d: ((d / "train/third").mkdir(), (d / "train/third/x.png").write_bytes(b"no image"))),
        ("train/third", "must hold readable images", "replace them or remove"),
    ),
    "a class that train lacks": (scans(lambda d: (d / "test/new").mkdir()), ("got 'new'", "among train's, ill, well")),
    "both val and valid": (scans(lambda d: (d / "valid").mkdir()), ("val of", "must be one folder", "valid")),
    "too few to carve": (
        scans(lambda d: None, {"train/a": 1, "train/b": 1}),
        ("got fewer", "two images", "add images"),
    ),
    "a table without columns": (table("name,who\n1,2\n"), ("['name', 'who']", "must be a table with the columns file")),
    "a table of strangers": (table("file,group\nzzz.png,p\n"), ("1 rows of others", "a table of the folder's images")),
    "two images for one row": (table("file,group\n000.png,p\n"), ("000.png", "the path of one image, got 6")),
    "a table in UTF-16": (table("file,group\n", "utf-16"), ("groups.csv", "must be a CSV table in UTF-8")),
    # weights
    "no such init": (encoder(init="imagenett"), ("'imagenett'", "must be random, imagenet or a backbone file")),
    "an unknown backbone": (encoder("vgg16"), ("'vgg16'", "must be one of resnet18, resnet50")),
    "four channels": (encoder(channels=4), ("got 4", "must be 1 or 3")),
    "ImageNet weights that are a list": (weights([1, 2]), ("w.pth", "must be a state_dict of names and tensors")),
    "ImageNet weights of another network": (weights({"a.weight": Z}), ("must be a state_dict of resnet18",)),
    "a sparse tensor as weights": (weights({"a": torch.eye(3).to_sparse()}), ("another object", "a state_dict")),
    "no ImageNet file": (weights(None), ("w.pth", "CXR_IMAGENET_WEIGHTS must name a file")),
    "a backbone file without a description": (backbone_file(), ("backbone.safetensors must be a",)),
    # policies, views
    "a magnitude of text": (policy(gamma="strong"), ("'strong'", "a number between 0 and 4")),
    "one bare deviation": (lambda f: Normalisation((0.5,), 0.5), ("std must", "got 0.5", "(0.5,)")),  # type: ignore[arg-type]
    "a policy normalised by a pair": (policy(normalisation=(0.5, 0.2)), ("(0.5, 0.2)", "must be a Normalisation(mean")),
    "a policy without a name": (policy(name=7), ("name", "must be text", "got 7")),
    "float images as views": (views(BYTES.float()), ("torch.float32", "must be uint8")),
    "views of two channels": (views(BYTES.expand(2, 2, 8, 8)), ("[2, 2, 8, 8]", "[B, 1 or 3, S, S]")),
    "draws of other images": (views(BYTES, draws=3), ("got [3, 2", "must be [2, 2")),
    "float images to evaluate": (lambda f: eval_transform(BYTES.float(), GREY), ("float32", "must be uint8")),
    "no data to explore": (lambda f: explore_augmentations("phantom"), ("a str", "must be one of load_dataset")),  # type: ignore[arg-type]
    "a split to explore": (lambda f: explore_augmentations(texture_dataset(), split="x"), ("'x'", "train, val, test")),
    # methods, losses, schedules, scores
    "an unknown method": (config(method="byol"), ("'byol'", "one of simclr, vicreg, supervised")),
    "an unknown option": (config(options={"temp": 1}), ("got temp", "must be among temperature")),
    "a temperature of 0": (config(options={"temperature": 0.0}), ("got 0.0", "above 0")),
    "half a dimension": (config(options={"output_dim": 1.5}), ("got 1.5", "whole number")),
    "integers as embeddings": (lambda f: vicreg_loss(Z.long(), Z.long()), ("torch.int64", "must be floating")),
    "a loss at temperature nan": (lambda f: nt_xent_loss(Z, Z, temperature=float("nan")), ("got nan", "above 0")),
    "scores that are no numbers": (
        lambda f: classification_metrics("binary", np.array([0, 1]), np.array([0.5, np.nan])),
        ("1 that are not", "must be finite", "training diverged?"),
    ),
    # downloads, reports
    "an address that is none": (lambda f: download("nonsense", f / "x", "0" * 32), ("nonsense", "unknown url type")),
    "an unknown profile": (lambda f: get_profile("huge"), ("'huge'", "one of smoke, quick, cpu, full")),
    "no such notebook": (lambda f: build(get_profile("smoke"), only=["07"], root=f), ("got 07", "must be among")),
    "a study that was not built": (
        lambda f: publish(get_profile("cpu"), root=f),
        ("no build of profile cpu", "must not be published", "make report PROFILE=cpu"),
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_one_sentence_answers(case: str, tmp_path: Path) -> None:
    call, pieces = CASES[case]
    with pytest.raises((ValueError, OSError)) as error:
        call(tmp_path)
    said = one_sentence(error.value)
    assert [piece for piece in pieces if piece not in said] == [], said
    assert re.search("must|could not|unknown url", said), said
