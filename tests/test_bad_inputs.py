"""Bad inputs, each answered by one clear sentence: the value that was given, what was expected, and the way out.

Ranges of single fields are tested beside them (`test_config`, `test_policies`), words of a command in `test_train`.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import pytest
import torch
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
from cxr_helpers.models import build_backbone, load_backbone
from cxr_helpers.probe.metrics import classification_metrics
from cxr_helpers.recipes import resolve
from cxr_helpers.report.pages import build, publish
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


def scans(change: Callable[[Path], Any], counts: dict[str, int] = SCANS) -> Callable[[Path], Any]:
    """Load an image folder after a change to it."""
    return lambda folder: (change(write_folder(folder / "scans", counts)), load("scans", 8)(folder))


def table(content: str) -> Callable[[Path], Any]:
    """Load an image folder with such a table of patients."""
    return scans(lambda folder: (folder / "groups.csv").write_text(content))


def encoder(name: str = "resnet18", channels: int = 1, init: str = "random") -> Callable[[Path], Any]:
    return lambda folder: build_backbone(name, channels=channels, size=64, init=init, normalisation=GREY, seed=0)


def weights(folder: Path) -> Any:
    """Build an encoder from an ImageNet file of another network."""
    torch.save({"a.weight": Z}, folder / "w.pth")
    return no_weights(folder)


def no_weights(folder: Path) -> Any:
    with patch.dict("os.environ", CXR_IMAGENET_WEIGHTS=str(folder / "w.pth")):
        return encoder(init="imagenet")(folder)


def undescribed(folder: Path) -> Any:
    save_file({"a": Z}, folder / "backbone.safetensors")
    return load_backbone(folder / "backbone.safetensors")


def views(images: torch.Tensor) -> Callable[[Path], Any]:
    return lambda folder: TwoViews(POLICIES["ssl"], 8)(images, draw_table(2, 2, 0, 0))


REPLACE = ("breastmnist.npz", "replace the file")
CASES: dict[str, Case] = {
    # names and sizes
    "unknown data set": (load("retina"), ("'retina'", "must be one of", "did you mean")),
    "a size not offered": (load("chestmnist", 96), ("got 96", "28, 64, 128, 224 px")),
    "cifar10 at 64 px": (load("cifar10", 64), ("got 64", "must be 32 px")),
    "a phantom of 8 px": (load("phantom", 8), ("got 8", "28 px or more")),
    "no file and no network": (load("breastmnist", 64), ("breastmnist_64.npz", "put the file there", "CXR_DATA")),
    "no CIFAR-10 and no network": (
        load("cifar10", 32),
        ("cifar-10-python.tar.gz", "could not be", "phantom_multilabel"),
    ),
    # archives
    "an error page": (
        lambda f: ((f / "breastmnist.npz").write_bytes(b"<html>404</html>"), load("breastmnist")(f)),
        ("must be a complete .npz", "damaged or truncated", "move it away"),
    ),
    "something else": (
        lambda f: (np.savez(f / "breastmnist.npz", x=Z.numpy()), load("breastmnist")(f)),
        ("no train_images", "must hold images and labels of train, val, test", "replace the file"),
    ),
    "float images": (npz(train_images=np.zeros((8, 28, 28))), ("train_images must be uint8", "float64", *REPLACE)),
    "images of another size": (
        npz(**{f"{split}_images": np.zeros((n, 32, 32), np.uint8) for split, n in COUNTS.items()}),
        ("[8, 1, 32, 32]", "must be [8, 1, 28, 28]", *REPLACE),
    ),
    "float labels": (npz(train_labels=np.zeros((8, 1))), ("float64", "train_labels must be integers", *REPLACE)),
    "a label too high": (npz(test_labels=np.full((4, 1), 9)), ("[9, 9]", "0 to 1, or -1", *REPLACE)),
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
    # weights
    "no such init": (encoder(init="imagenett"), ("'imagenett'", "must be random, imagenet or a backbone file")),
    "an unknown backbone": (encoder("vgg16"), ("'vgg16'", "must be one of resnet18, resnet50")),
    "four channels": (encoder(channels=4), ("got 4", "must be 1 or 3")),
    "ImageNet weights of another network": (weights, ("must be a state_dict of resnet18",)),
    "no ImageNet file": (no_weights, ("w.pth", "CXR_IMAGENET_WEIGHTS must name a file")),
    "a backbone file without a description": (undescribed, ("backbone.safetensors must be a",)),
    # policies, views
    "a magnitude of text": (
        lambda f: AugmentationPolicy(name="x", reason="y", gamma="strong"),
        ("'strong'", "a finite number"),
    ),
    "float images as views": (views(BYTES.float()), ("torch.float32", "must be uint8")),
    "views of two channels": (views(BYTES.expand(2, 2, 8, 8)), ("[2, 2, 8, 8]", "[B, 1 or 3, S, S]")),
    "float images to evaluate": (lambda f: eval_transform(BYTES.float(), GREY), ("float32", "must be uint8")),
    "no data to explore": (lambda f: explore_augmentations("phantom"), ("a str", "must be one of load_dataset")),  # type: ignore[arg-type]
    # methods, losses, schedules, scores
    "half a dimension": (lambda f: resolve(PretrainConfig(options={"output_dim": 1.5})), ("got 1.5", "whole number")),
    "integers as embeddings": (lambda f: vicreg_loss(Z.long(), Z.long()), ("torch.int64", "must be floating")),
    "a loss at temperature nan": (lambda f: nt_xent_loss(Z, Z, temperature=float("nan")), ("got nan", "above 0")),
    "scores that are no numbers": (
        lambda f: classification_metrics("binary", np.array([0, 1]), np.array([0.5, np.nan])),
        ("1 that are not", "must be finite", "training diverged?"),
    ),
    # downloads, reports
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
