"""Bad inputs, each answered by one clear sentence: the value that was given, what was expected, and the way out.

Ranges of single fields are tested beside them (`test_config`, `test_policies`), words of a command in `test_train`.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from datafiles import COUNTS, offline, write_archive, write_folder  # noqa: F401  a fixture
from safetensors.torch import save_file
from samples import one_sentence

from cxr_helpers import (
    TwoViews,
    load_dataset,
    vicreg_loss,
)
from cxr_helpers.augment import POLICIES, draw_table
from cxr_helpers.models import load_backbone
from cxr_helpers.report.publish import publish
from cxr_helpers.study import get_profile

Case = tuple[Callable[[Path], Any], tuple[str, ...]]
Z = torch.zeros(4, 3)
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


def undescribed(folder: Path) -> Any:
    save_file({"a": Z}, folder / "backbone.safetensors")
    return load_backbone(folder / "backbone.safetensors")


REPLACE = ("breastmnist.npz", "replace the file")
CASES: dict[str, Case] = {
    # names and sizes
    "unknown data set": (load("retina"), ("'retina'", "must be one of", "did you mean")),
    "a size not offered": (load("chestmnist", 96), ("got 96", "28, 64, 128, 224 px")),
    "no file and no network": (load("breastmnist", 64), ("breastmnist_64.npz", "put the file there", "CXR_DATA")),
    # archives
    "an error page": (
        lambda f: ((f / "breastmnist.npz").write_bytes(b"<html>404</html>"), load("breastmnist")(f)),
        ("must be a complete .npz", "damaged or truncated", "move it away"),
    ),
    "images of another size": (
        npz(**{f"{split}_images": np.zeros((n, 32, 32), np.uint8) for split, n in COUNTS.items()}),
        ("[8, 1, 32, 32]", "must be [8, 1, 28, 28]", *REPLACE),
    ),
    "a label too high": (npz(test_labels=np.full((4, 1), 9)), ("[9, 9]", "0 to 1, or -1", *REPLACE)),
    # image folders
    "no train folder": (scans(lambda d: None, {"a": 1}), ("scans", "must hold train/<class>/", "name another folder")),
    "a class of unreadable files": (
        scans(lambda d: ((d / "train/third").mkdir(), (d / "train/third/x.png").write_bytes(b"no image"))),
        ("train/third", "must hold readable images", "replace them or remove"),
    ),
    "a class that train lacks": (scans(lambda d: (d / "test/new").mkdir()), ("got 'new'", "among train's, ill, well")),
    "both val and valid": (scans(lambda d: (d / "valid").mkdir()), ("val of", "must be one folder", "valid")),
    "a table without columns": (table("name,who\n1,2\n"), ("['name', 'who']", "must be a table with the columns file")),
    # weights
    "a backbone file without a description": (undescribed, ("backbone.safetensors must be a",)),
    # views and losses
    "float images as views": (
        lambda f: TwoViews(POLICIES["ssl"], 8)(torch.zeros(2, 1, 8, 8), draw_table(2, 2, 0, 0)),
        ("torch.float32", "must be uint8"),
    ),
    "integers as embeddings": (lambda f: vicreg_loss(Z.long(), Z.long()), ("torch.int64", "must be floating")),
    # downloads, reports
    "an unknown profile": (lambda f: get_profile("huge"), ("'huge'", "one of smoke, quick, cpu, full")),
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
