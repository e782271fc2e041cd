"""Bad inputs, each answered by one clear sentence: the value that was given, what was expected, and the way out.

Ranges of single fields are tested beside them (`test_config`, `test_policies`), words of a command in `test_train`.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from datafiles import COUNTS, offline, write_archive, write_folder  # noqa: F401  a fixture
from samples import one_sentence

from cxr_helpers import load_dataset
from cxr_helpers.study import get_profile

Case = tuple[Callable[[Path], Any], tuple[str, ...]]
SCANS = {f"{split}/{name}": 3 for split in ("train", "val", "test") for name in ("ill", "well")}
pytestmark = pytest.mark.usefixtures("offline")


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
        ("must be a complete .npz", "damaged or truncated", "move it away"),
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
