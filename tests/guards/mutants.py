"""Break the core line by line and see that a test notices: `python -m tests.guards.mutants [NAME ...] [--jobs 1]`.

`mutants.txt` lists them: a name, the test files and words in the names of the tests that should fail, then the text
that stands exactly once in the package, in whatever file, and what takes its place. Each is made in a copy of the
checkout; one that its own tests let live meets all of the core's. NAME is any part of a name.
"""

from __future__ import annotations

import argparse
import os
import shutil
import signal
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path

import hypothesis  # noqa: F401  for the forks, which have not to import it again, as the next four
import lightning_fabric  # noqa: F401
import matplotlib.pyplot  # noqa: F401
import medmnist  # noqa: F401
import pytest
import sklearn.metrics  # noqa: F401

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = ROOT / "cxr_helpers"
LONGEST = 1800  # seconds of tests, after which a mutant that hangs is dead
OPTIONS = ["-x", "-q", "-p", "no:cacheprovider", "-m", "not slow", "--durations=0", "--tb=no"]
CORE = [  # the tests that a survivor meets, those of rooms to come among them
    *("losses", "methods", "optim", "step", "loop", "fit", "metrics", "intervals"),
    *("probe", "linear", "knn", "features", "online", "stratify", "data", "geometry", "photometric"),
    *("augment", "views", "randaugment", "backbones", "evaluate", "monitor", "pretrain", "resume", "reference"),
]


@dataclass(frozen=True, kw_only=True)
class Mutant:
    """One change of one line, and the tests that should notice it."""

    name: str
    files: list[str]  # `losses`: tests/test_losses.py, where there is one
    words: str  # pytest's -k
    old: str
    new: str

    def file(self) -> Path:
        """The only file of the package that holds the old text.

        Raises:
            ValueError: it stands nowhere, or in several places.
        """
        counts = {path: path.read_text().count(self.old) for path in PACKAGE.rglob("*.py")}
        if sum(counts.values()) != 1:
            places = [str(path.relative_to(ROOT)) for path, count in counts.items() if count]
            raise ValueError(f"{self.name}: {self.old!r} must stand once in the package, got {places}")
        return max(counts, key=lambda path: counts[path])


def _read(block: str) -> Mutant:
    head, old, new = block.splitlines()
    name, files, words = (part.strip() for part in f"{head} |".split("|")[:3])
    return Mutant(name=name, files=files.split(), words=words, old=old.removeprefix("- "), new=new.removeprefix("+ "))


MUTANTS = [_read(block) for block in Path(__file__).with_suffix(".txt").read_text().strip().split("\n\n")]


@contextmanager
def copy() -> Iterator[Path]:
    """A copy of what the tests of the core need."""
    with tempfile.TemporaryDirectory() as folder:
        for name in ("cxr_helpers", "tests"):
            shutil.copytree(ROOT / name, Path(folder) / name)
        for name in ("pyproject.toml", "train.py"):
            shutil.copy(ROOT / name, folder)
        yield Path(folder)


def failure(folder: Path, names: list[str], words: str = "") -> str:
    """The first test that fails in a copy, empty where none does; in a fork, which has its libraries already."""
    files = [file for name in names if (folder / (file := f"tests/test_{name}.py")).is_file()]
    if not files:
        return ""
    child = os.fork()
    if not child:
        os.chdir(folder)
        sys.path.insert(0, str(folder))
        signal.alarm(LONGEST)
        with open("said", "w") as said:
            os.dup2(said.fileno(), 1)
            os.dup2(said.fileno(), 2)
            os._exit(pytest.main([*OPTIONS, "-k", words, *files]))
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    assert code != pytest.ExitCode.USAGE_ERROR, f"-k {words} must be pytest's"
    if code in (0, pytest.ExitCode.NO_TESTS_COLLECTED):
        return ""
    failed = [line for line in (folder / "said").read_text().splitlines() if line.startswith(("FAILED", "ERROR"))]
    return (failed or ["ERROR no test ran to its end"])[-1]


def killer(mutant: Mutant) -> str:
    """The test that notices the mutant, empty where it survives."""
    with copy() as folder:
        place = folder / mutant.file().relative_to(ROOT)
        place.write_text(place.read_text().replace(mutant.old, mutant.new))
        return failure(folder, mutant.files, mutant.words) or failure(folder, CORE)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*")
    parser.add_argument("--jobs", type=int, default=1)
    asked = parser.parse_args()
    chosen = [m for m in MUTANTS if not asked.names or any(name in m.name for name in asked.names)]
    for mutant in chosen:
        mutant.file()
    with copy() as folder:  # a test that fails anyway kills nothing
        if broken := failure(folder, [name for name in CORE if any(name in mutant.files for mutant in chosen)]):
            sys.exit(f"unchanged code must pass, got {broken}")
    survivors = 0
    with get_context("fork").Pool(asked.jobs) as pool:
        for mutant, by in zip(chosen, pool.imap(killer, chosen), strict=True):
            survivors += not by
            noticed = f"killed by {by.split(' - ')[0].split('::')[-1]}" if by else "SURVIVED"
            print(f"{mutant.name}: {noticed}", flush=True)
    sys.exit(f"{survivors} of {len(chosen)} survived" if survivors else 0)


if __name__ == "__main__":
    main()
