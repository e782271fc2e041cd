"""Bad inputs, each answered by one clear sentence: the value that was given, what was expected, and the way out.

What is expected and the way out are one where the expected is a list or a range to choose from.
"""

from __future__ import annotations

import os
import pickle
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from conftest import texture_dataset
from datafiles import COUNTS, offline, write_archive, write_folder  # noqa: F401  a fixture
from safetensors.torch import save_file

import train
from cxr_helpers import (
    LARS,
    AugmentationPolicy,
    PretrainConfig,
    ProbeConfig,
    RuntimeConfig,
    TwoViews,
    eval_transform,
    load_dataset,
    lr_at,
    nt_xent_loss,
    vicreg_loss,
)
from cxr_helpers.augment import POLICIES, Normalisation, get_policy
from cxr_helpers.augment.views import draw_table
from cxr_helpers.command import run_command
from cxr_helpers.data import keep_labels
from cxr_helpers.data.download import download
from cxr_helpers.models import build_backbone, imagenet_state, load_backbone
from cxr_helpers.probe.metrics import classification_metrics
from cxr_helpers.recipes import resolve
from cxr_helpers.study import get_profile

Case = tuple[Callable[[Path], Any], tuple[str, ...]]
GREY = Normalisation((0.5,), (0.5,))
Z = torch.randn(4, 3)


pytestmark = pytest.mark.usefixtures("offline")


def npz(**changes: Any) -> Callable[[Path], Any]:
    """Load a MedMNIST-like file with some arrays changed."""
    return lambda folder: load_dataset(write_archive(folder, **changes).stem, 28, folder)


def bytes_as(name: str, content: bytes) -> Callable[[Path], Any]:
    """Load an .npz of these bytes."""

    def read(folder: Path) -> Any:
        (folder / name).write_bytes(content)
        return load_dataset(name.removesuffix(".npz"), 28, folder)

    return read


SCANS = {f"{split}/{name}": 3 for split in ("train", "val", "test") for name in ("ill", "well")}


def scans(change: Callable[[Path], Any]) -> Callable[[Path], Any]:
    """Load an image folder after a change to it."""

    def read(folder: Path) -> Any:
        change(write_folder(folder / "scans", SCANS))
        return load_dataset("scans", 8, folder)

    return read


def table(text: str | bytes) -> Callable[[Path], Any]:
    """Load an image folder with such a table of patients."""
    content = text if isinstance(text, bytes) else text.encode()
    return scans(lambda folder: (folder / "groups.csv").write_bytes(content))


def weights(content: object) -> Callable[[Path], Any]:
    """Build an encoder from such ImageNet weights."""

    def read(folder: Path) -> Any:
        if isinstance(content, bytes):
            (folder / "w.pth").write_bytes(content)
        else:
            torch.save(content, folder / "w.pth")
        os.environ["CXR_IMAGENET_WEIGHTS"] = str(folder / "w.pth")
        try:
            return build_backbone("resnet18", channels=1, size=64, init="imagenet", normalisation=GREY, seed=0)
        finally:
            del os.environ["CXR_IMAGENET_WEIGHTS"]

    return read


def command(*arguments: str) -> Callable[[Path], Any]:
    """`train.py` with these arguments, its results in the folder."""

    def call(folder: Path) -> None:
        before, sys.argv = sys.argv, ["train.py", *arguments, "--results", str(folder), "--no-progress"]
        try:
            run_command("train.py", train.train)
        except SystemExit as error:
            raise ValueError(error.code) from None
        finally:
            sys.argv = before

    return call


def cut(share: float) -> Callable[[Path], Any]:
    """Load an archive of which only a part is there."""

    def read(folder: Path) -> Any:
        path = write_archive(folder)
        path.write_bytes(path.read_bytes()[: int(share * path.stat().st_size)])
        return load_dataset("breastmnist", 28, folder)

    return read


def backbone_file(content: dict[str, torch.Tensor] | bytes, **metadata: str) -> Callable[[Path], Any]:
    """Load a backbone from such a file."""

    def read(folder: Path) -> Any:
        file = folder / "backbone.safetensors"
        file.write_bytes(content) if isinstance(content, bytes) else save_file(content, file, metadata=metadata)
        return load_backbone(file)

    return read


def policy(**fields: Any) -> Callable[[Path], Any]:
    return lambda folder: AugmentationPolicy(name="x", reason="y", **fields)


def config(**fields: Any) -> Callable[[Path], Any]:
    return lambda folder: resolve(PretrainConfig(**fields))


DAMAGED = ("must be a complete .npz", "damaged or truncated", "move it away")
REPLACE = ("breastmnist.npz", "replace the file")
CASES: dict[str, Case] = {
    # names and sizes
    "unknown data set": (lambda f: load_dataset("retina", root=f), ("'retina'", "must be one of", "did you mean")),
    "misspelt case": (lambda f: load_dataset("ChestMNIST", root=f), ("'ChestMNIST'", "did you mean chestmnist?")),
    "volumes": (lambda f: load_dataset("organmnist3d", root=f), ("'organmnist3d'", "must be one of pathmnist")),
    "no folder there": (lambda f: load_dataset("./no/x", root=f), ("./no/x", "image folder", "mend the path")),
    "an empty name": (lambda f: load_dataset("", root=f), ("got ''", "must be one of", "name a folder by its path")),
    "the root itself": (lambda f: load_dataset("..", root=f), ("got '..'", "must be one of", "by its path")),
    "a name with NUL": (lambda f: load_dataset("a\0b", root=f), ("'a\\x00b'", "must be one of")),
    "an endless name": (lambda f: load_dataset("x" * 9999, root=f), ("xxx", "must be one of", "its path")),
    "a size not offered": (lambda f: load_dataset("chestmnist", 96, f), ("got 96", "28, 64, 128, 224 px")),
    "a size of 0": (lambda f: load_dataset("chestmnist", 0, f), ("got 0", "whole number of pixels, 1 or more")),
    "half a pixel": (lambda f: load_dataset("chestmnist", 64.5, f), ("got 64.5", "whole number of pixels")),  # type: ignore[arg-type]
    "a size of True": (lambda f: load_dataset("chestmnist", True, f), ("got True", "whole number of pixels")),
    "cifar10 at 64 px": (lambda f: load_dataset("cifar10", 64, f), ("got 64", "must be 32 px")),
    "a phantom of 8 px": (lambda f: load_dataset("phantom", 8), ("got 8", "28 px or more")),
    "no train images": (
        lambda f: load_dataset("phantom", 28, max_train_images=0),
        ("max_train_images must be a whole number, 1 or more", "got 0"),
    ),
    "half an image": (
        lambda f: load_dataset("phantom", 28, max_eval_images=2.5),  # type: ignore[arg-type]
        ("max_eval_images must be a whole number, 1 or more", "got 2.5"),
    ),
    "no file and no network": (
        lambda f: load_dataset("breastmnist", 64, f),
        ("breastmnist_64.npz", "could not be downloaded", "put the file there", "CXR_DATA"),
    ),
    "no CIFAR-10 and no network": (
        lambda f: load_dataset("cifar10", 32, f),
        ("cifar-10-python.tar.gz", "could not be downloaded", "phantom_shapes"),
    ),
    "a folder called .npz": (
        lambda f: ((f / "breastmnist.npz").mkdir(), load_dataset("breastmnist", 28, f)),
        ("breastmnist.npz", "must be a file"),
    ),
    # archives
    "an empty archive": (cut(0), DAMAGED),
    "half an archive": (cut(0.5), DAMAGED),
    "an archive without its end": (cut(0.99), DAMAGED),
    "an error page": (bytes_as("breastmnist.npz", b"<html>404</html>"), DAMAGED),
    "a pickle": (bytes_as("breastmnist.npz", pickle.dumps([1])), DAMAGED),
    "one bare array": (
        lambda f: (
            (np.save(f / "x.npy", np.zeros(3)), (f / "x.npy").rename(f / "breastmnist.npz"))
            and load_dataset("breastmnist", 28, f)
        ),
        DAMAGED,
    ),
    "an archive of something else": (
        lambda f: (np.savez(f / "breastmnist.npz", x=Z.numpy()), load_dataset("breastmnist", 28, f)),
        ("no train_images", "must hold images and labels of train, val, test", "replace the file"),
    ),
    "objects in an archive": (npz(val_groups=np.array([{}] * 4)), DAMAGED),
    "float images": (npz(train_images=np.zeros((8, 28, 28))), ("train_images must be uint8", "float64", *REPLACE)),
    "images of another size": (
        npz(**{f"{split}_images": np.zeros((n, 32, 32), np.uint8) for split, n in COUNTS.items()}),
        ("[8, 1, 32, 32]", "must be [8, 1, 28, 28]", *REPLACE),
    ),
    "images with two channels": (
        npz(val_images=np.zeros((4, 28, 28, 2), np.uint8)),
        ("[4, 2, 28, 28]", "val_images must be [N, 1 or 3, S, S]"),
    ),
    "no images": (npz(val_images=np.zeros((0, 28, 28), np.uint8)), ("0, 28, 28]", "N at least 1", *REPLACE)),
    "float labels": (npz(train_labels=np.zeros((8, 1))), ("float64", "train_labels must be integers", *REPLACE)),
    "labels too wide": (npz(train_labels=np.zeros((8, 3), np.uint8)), ("[8, 3]", "train labels must be [8]", *REPLACE)),
    "a label too high": (npz(test_labels=np.full((4, 1), 9)), ("[9, 9]", "0 to 1, or -1", *REPLACE)),
    "a label below -1": (npz(test_labels=np.full((4, 1), -5)), ("[-5, -5]", "0 to 1, or -1", *REPLACE)),
    "fewer labels than images": (npz(val_labels=np.zeros((3, 1), int)), ("got 3", "as many as images, 4", *REPLACE)),
    "fewer patients than images": (npz(val_groups=np.array(["a"])), ("got 1", "val_groups must be as many as images")),
    "patients as numbers": (npz(val_groups=np.arange(4)), ("array([0, 1, 2, 3])", "must be strings [N]", *REPLACE)),
    "a patient without a name": (npz(val_groups=np.array(["a", "", "b", "c"])), ("none empty", *REPLACE)),
    # image folders
    "no train folder": (
        lambda f: ((f / "flat" / "a").mkdir(parents=True), load_dataset("flat", 8, f)),
        ("flat", "must hold train/<class>/", "name another folder"),
    ),
    "an empty class folder": (
        scans(lambda d: (d / "train/third").mkdir()),
        ("third", "must hold images", "got none: add"),
    ),
    "a class of unreadable files": (
        scans(lambda d: ((d / "train/third").mkdir(), (d / "train/third/x.png").write_bytes(b"no image"))),
        ("train/third", "must hold readable images", "replace them or remove"),
    ),
    "a class that train lacks": (scans(lambda d: (d / "test/new").mkdir()), ("got 'new'", "among train's, ill, well")),
    "both val and valid": (scans(lambda d: (d / "valid").mkdir()), ("val of", "must be one folder", "valid")),
    "a class that leads nowhere": (
        scans(lambda d: (d / "train/loop").symlink_to("loop")),
        ("loop", "must be a folder", "a broken link: mend or remove"),
    ),
    "a class of two lines": (
        scans(lambda d: (d / "train/ill").rename(d / "train/il\nl")),
        ("'il\\nl'", "must be of a printable name"),
    ),
    "too few to carve": (
        lambda f: (write_folder(f / "few", {"train/a": 1, "train/b": 1}), load_dataset("few", 8, f)),
        ("got fewer", "train of few must hold two images", "add images"),
    ),
    "a table without columns": (table("name,who\n1,2\n"), ("['name', 'who']", "must be a table with the columns file")),
    "a table of strangers": (table("file,group\nzzz.png,p\n"), ("1 rows of others", "a table of the folder's images")),
    "two images for one row": (table("file,group\n000.png,p\n"), ("000.png", "the path of one image, got 6")),
    "two patients for one image": (
        table("file,group\ntrain/ill/000.png,p\ntrain/ill/000.png,q\n"),
        ("patient of train/ill/000.png", "must be p, got 'q'"),
    ),
    "a table in UTF-16": (table("file,group\n".encode("utf-16")), ("groups.csv", "must be a CSV table in UTF-8")),
    "a label against its folder": (
        scans(lambda d: (d / "index.csv").write_text("file,label\ntrain/ill/000.png,well\n")),
        ("label of train/ill/000.png", "must be its folder's, ill, got 'well'"),
    ),
    # weights
    "no such init": (
        lambda f: build_backbone("resnet18", channels=1, size=64, init="imagenett", normalisation=GREY, seed=0),
        ("'imagenett'", "must be random, imagenet or a backbone file"),
    ),
    "an unknown backbone": (
        lambda f: build_backbone("vgg16", channels=1, size=64, init="random", normalisation=GREY, seed=0),
        ("'vgg16'", "must be one of resnet18, resnet50"),
    ),
    "four channels": (
        lambda f: build_backbone("resnet18", channels=4, size=64, init="random", normalisation=GREY, seed=0),
        ("got 4", "must be 1 or 3"),
    ),
    "ImageNet weights that are text": (
        weights(b"not weights"),
        ("w.pth", "must be a state_dict", "CXR_IMAGENET_WEIGHTS"),
    ),
    "ImageNet weights that are a list": (weights([1, 2]), ("w.pth", "must be a state_dict of names and tensors")),
    "ImageNet weights of another network": (
        weights({"a.weight": torch.zeros(3)}),
        ("must be a state_dict of resnet18",),
    ),
    "a sparse tensor as weights": (
        weights({"a": torch.eye(3).to_sparse()}),
        ("another object", "must be a state_dict"),
    ),
    "no ImageNet file": (
        lambda f: with_variable("CXR_IMAGENET_WEIGHTS", str(f / "none.pth"), lambda: imagenet_state("resnet18")),
        ("none.pth", "CXR_IMAGENET_WEIGHTS must name a file"),
    ),
    "a backbone file of text": (
        backbone_file(b"text"),
        ("backbone.safetensors", "must be a state_dict"),
    ),
    "a backbone file without a description": (backbone_file({"a": torch.zeros(2)}), ("must be a state_dict",)),
    "a backbone file whose description lies": (
        backbone_file({"a": torch.zeros(2)}, cxr_helpers='{"backbone": "resnet18", "channels": 1, "stem": "x"}'),
        ("must be a state_dict",),
    ),
    # policies
    "an unknown policy": (lambda f: get_policy("strong"), ("'strong'", "must be one of none, ref")),
    "an unknown field of a policy": (
        lambda f: get_policy("ssl", {"gama": 1}),
        ("gama", "must be one of crop_scale_min"),
    ),
    "a probability of 2": (policy(flip_prob=2.0), ("got 2.0", "a number between 0 and 1")),
    "a rotation that is no number": (policy(rotation_deg=float("nan")), ("got nan", "between 0 and 180")),
    "a magnitude of text": (policy(gamma="strong"), ("'strong'", "a number between 0 and 4")),
    "half an operation": (policy(randaugment_ops=1.5), ("got 1.5", "a whole number between 0 and 4")),
    "a minimum above its maximum": (policy(zoom_min=1.5, zoom_max=1.2), ("got 1.5", "at most zoom_max=1.2")),
    "a crop that never fits": (
        policy(crop_scale_min=0.9, crop_ratio_min=2.0, crop_ratio_max=3.0),
        ("got 0.9", "at most 0.5", "to fit a square"),
    ),
    "a normalisation by 0": (lambda f: Normalisation((0.5,), (0.0,)), ("(0.0,)", "must be positive")),
    "a mean of text": (lambda f: Normalisation("ab", (0.5,)), ("got 'ab'", "one number per channel", "(0.5,)")),  # type: ignore[arg-type]
    "one bare deviation": (lambda f: Normalisation((0.5,), 0.5), ("std must", "got 0.5", "one number per channel")),  # type: ignore[arg-type]
    "a policy normalised by a pair": (
        policy(normalisation=(0.5, 0.25)),
        ("got (0.5, 0.25)", "must be a Normalisation(mean, std)"),
    ),
    "a policy without a name": (lambda f: AugmentationPolicy(name=7, reason="x"), ("name", "must be text", "got 7")),  # type: ignore[arg-type]
    # configurations
    "images of 4 px": (config(size=4), ("got 4", "at least 8 px")),
    "a batch of one": (config(batch_size=1), ("got 1", "at least 2")),
    "an unknown optimizer": (config(optimizer="adam"), ("'adam'", "one of adamw, sgd, lars")),
    "a negative rate": (config(lr=-1.0), ("got -1.0", "above 0")),
    "a rate that is no number": (config(lr=float("nan")), ("got nan", "a finite number")),
    "an endless rate": (config(lr=float("inf")), ("lr must", "got inf", "a finite number")),
    "a seed of 0.0": (config(seed=0.0), ("seed must", "got 0.0", "a whole number (an int)")),
    "a seed beyond torch's": (config(seed=2**64), ("18446744073709551616", "below 9.2")),
    "True epochs": (config(epochs=True), ("epochs must", "got True", "a whole number (an int)")),
    "numpy's whole number": (config(batch_size=np.int64(8)), ("got np.int64(8)", "a whole number (an int)")),
    "an array as a size": (config(size=np.zeros((9, 9))), ("size must", "got array([[0., 0.", "a whole number")),
    "options as a list": (config(options=["temperature", 0.1]), ("['temperature', 0.1]", "names with their values")),
    "an option of text": (config(options={"temperature": "hot"}), ("temperature must be", "'hot'", "finite")),
    "a change of True": (config(policy_changes={"gamma": True}), ("gamma must be a number", "got True")),
    "no labels at all": (config(label_fraction=0.0), ("got 0.0", "above 0 and at most 1")),
    "an unknown method": (config(method="mae"), ("'mae'", "one of simclr, vicreg, supervised")),
    "an unknown option": (config(options={"temp": 1}), ("got temp", "must be among temperature")),
    "a temperature of 0": (config(options={"temperature": 0.0}), ("got 0.0", "above 0")),
    "an endless weight": (config(method="vicreg", options={"variance_weight": float("inf")}), ("got inf", "finite")),
    "half a dimension": (config(options={"output_dim": 1.5}), ("got 1.5", "whole number")),
    "an unknown device": (lambda f: RuntimeConfig(device="gpu"), ("'gpu'", "one of auto, cpu, cuda, mps")),
    "no threads": (lambda f: RuntimeConfig(threads=0), ("got 0", "at least 1")),
    "one fold": (lambda f: ProbeConfig(folds=1), ("got 1", "at least 2")),
    "half a fold": (lambda f: ProbeConfig(folds=2.5), ("folds must", "got 2.5", "a whole number")),  # type: ignore[arg-type]
    "an endless C": (lambda f: ProbeConfig(cs=(1.0, float("inf"))), ("(1.0, inf)", "a tuple of finite numbers")),
    "one bare C": (lambda f: ProbeConfig(cs=1.0), ("got 1.0", "a tuple of finite numbers")),  # type: ignore[arg-type]
    "results that are no text": (lambda f: RuntimeConfig(results=f), ("results must", "Path(", "text (a str)")),  # type: ignore[arg-type]
    "no C": (lambda f: ProbeConfig(cs=()), ("got ()", "above 0")),
    "an unknown profile": (lambda f: get_profile("huge"), ("'huge'", "one of smoke, quick, cpu, full")),
    # losses, schedules, views
    "embeddings of two shapes": (lambda f: nt_xent_loss(Z, Z[:2], temperature=0.1), ("[4, 3] and [2, 3]", "one shape")),
    "one embedding": (lambda f: vicreg_loss(Z[:1], Z[:1]), ("got 1", "at least 2")),
    "a loss at temperature 0": (lambda f: nt_xent_loss(Z, Z, temperature=0.0), ("got 0.0", "above 0")),
    "a loss at temperature nan": (lambda f: nt_xent_loss(Z, Z, temperature=float("nan")), ("got nan", "above 0")),
    "integers as embeddings": (lambda f: vicreg_loss(Z.long(), Z.long()), ("torch.int64", "must be floating")),
    "a negative rate of LARS": (lambda f: LARS([Z], lr=-1.0), ("got -1.0", "0 or more")),
    "a negative step": (lambda f: lr_at(-1, base_lr=1.0, warmup_steps=1, total_steps=2), ("got -1", "0 or more")),
    "a warm-up beyond the end": (
        lambda f: lr_at(0, base_lr=1.0, warmup_steps=3, total_steps=2),
        ("got 3", "between 0 and total_steps (2)"),
    ),
    "float images as views": (
        lambda f: TwoViews(POLICIES["ssl"], 8)(torch.zeros(2, 1, 8, 8), draw_table(2, 2, 0, 0)),
        ("torch.float32", "must be uint8"),
    ),
    "views of two channels": (
        lambda f: TwoViews(POLICIES["ssl"], 8)(torch.zeros(2, 2, 8, 8, dtype=torch.uint8), draw_table(2, 2, 0, 0)),
        ("[2, 2, 8, 8]", "[B, 1 or 3, S, S]"),
    ),
    "draws of other images": (
        lambda f: TwoViews(POLICIES["ssl"], 8)(torch.zeros(2, 1, 8, 8, dtype=torch.uint8), draw_table(3, 2, 0, 0)),
        ("got [3, 2", "must be [2, 2"),
    ),
    "views of 0 px": (lambda f: TwoViews(POLICIES["ssl"], 0), ("got 0", "at least 1")),
    "float images to evaluate": (lambda f: eval_transform(torch.zeros(1, 1, 8, 8), GREY), ("float32", "must be uint8")),
    "a fraction of 2": (lambda f: keep_labels(texture_dataset(), 2.0, 0), ("got 2.0", "above 0 and at most 1")),
    "scores that are no numbers": (
        lambda f: classification_metrics("binary", np.array([0, 1]), np.array([0.5, np.nan])),
        ("1 that are not", "must be finite", "has training diverged?"),
    ),
    "labels without scores": (
        lambda f: classification_metrics("binary", np.array([0, 1]), np.array([0.5])),
        ("[2] and [1]", "labels and scores must be"),
    ),
    # downloads and reports
    "no host": (
        lambda f: download("http://nowhere.invalid/x", f / "x", "0" * 32),
        ("nowhere.invalid", "host not found", "is there a network?"),
    ),
    "an address that is none": (lambda f: download("nonsense", f / "x", "0" * 32), ("nonsense", "unknown url type")),
    # the command line
    "train.py: unknown data": (command("--dataset", "nope"), ("'nope'", "must be one of", "train.py: ")),
    "train.py: unknown method": (command("--dataset", "phantom", "--method", "x"), ("'x'", "one of simclr, vicreg")),
    "train.py: unknown policy": (command("--dataset", "phantom", "--policy", "x"), ("'x'", "one of none, ref")),
    "train.py: size 4": (command("--size", "4"), ("got 4", "at least 8 px")),
    "train.py: no weights": (
        command("--dataset", "phantom_shapes", "--size", "32", "--init", "x.safetensors"),
        ("'x.safetensors'", "must be random, imagenet or a backbone file"),
    ),
    "train.py: unknown option": (command("--options", "t", "1"), ("got t", "must be among temperature")),
    "train.py: unknown device": (command("--device", "gpu"), ("'gpu'", "one of auto, cpu, cuda, mps")),
}


def with_variable(name: str, value: str, call: Callable[[], Any]) -> Any:
    """Call with an environment variable set."""
    os.environ[name] = value
    try:
        return call()
    finally:
        del os.environ[name]


def test_there_are_more_than_sixty_kinds() -> None:
    assert len(CASES) >= 100


@pytest.mark.parametrize("case", CASES)
def test_one_sentence_answers(case: str, tmp_path: Path) -> None:
    call, pieces = CASES[case]
    with pytest.raises((ValueError, OSError)) as error:
        call(tmp_path)
    said = str(error.value)
    assert said.isprintable() and 20 < len(said) < 900, said
    assert [piece for piece in pieces if piece not in said] == [], said
    assert pd.Series([said]).str.contains(r"must|could not|need|unknown url|host not found").all(), said
