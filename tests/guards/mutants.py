"""Break the core line by line and see that a test notices: `python -m tests.guards.mutants [NAME ...] [--jobs 1]`.

`mutants.txt` lists them: a name and the tests that should fail, then the text that stands exactly once in the package,
in whatever file, and what takes its place. Each is made in a copy of the checkout; a mutant that its own tests let live
meets the rest of the core's. NAME is any part of a name.
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

import lightning_fabric  # noqa: F401  for the forks, as the next three
import matplotlib.pyplot  # noqa: F401
import medmnist  # noqa: F401
import pytest
import sklearn.metrics  # noqa: F401

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = ROOT / "cxr_helpers"
LONGEST = 1800  # seconds of tests, after which a mutant that hangs is dead
OPTIONS = ["-x", "-q", "-p", "no:cacheprovider", "-m", "not slow", "--durations=0", "--tb=no"]
CORE = (  # names of test files, those of rooms to come among them
    "losses optim step loop fit metrics intervals multiplicity probe linear knn sgd features online stratify data "
    "geometry photometric augment views randaugment methods backbones evaluate monitor properties pretrain resume "
    "reference curves"
)


@dataclass(frozen=True, kw_only=True)
class Mutant:
    """One change of one line, and the tests that should notice (`losses`: tests/test_losses.py; `losses::test_x`)."""

    name: str
    tests: tuple[str, ...]
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
    name, _, tests = head.partition(" | ")
    return Mutant(name=name, tests=tuple(tests.split()), old=old.removeprefix("- "), new=new.removeprefix("+ "))


MUTANTS = [_read(block) for block in Path(__file__).with_suffix(".txt").read_text().strip().split("\n\n")]


@contextmanager
def copy() -> Iterator[Path]:
    """A copy of what the tests of the core need."""
    with tempfile.TemporaryDirectory() as folder:
        for name in ("cxr_helpers", "tests"):
            shutil.copytree(ROOT / name, Path(folder) / name, ignore=shutil.ignore_patterns("__pycache__"))
        for name in ("pyproject.toml", "train.py"):
            shutil.copy(ROOT / name, folder)
        yield Path(folder)


def failure(folder: Path, tests: tuple[str, ...]) -> str:
    """The first test that fails in a copy, empty where none does; in a fork, which has its libraries already."""
    named = [f"tests/test_{name}".replace("::", ".py::") if "::" in name else f"tests/test_{name}.py" for name in tests]
    files = [name for name in named if (folder / name.partition("::")[0]).is_file()]
    child = os.fork() if files else 0
    if files and not child:
        os.chdir(folder)
        sys.path.insert(0, str(folder))
        signal.alarm(LONGEST)
        with open("said", "w") as said:
            os.dup2(said.fileno(), 1)
            os.dup2(said.fileno(), 2)
            os._exit(pytest.main([*OPTIONS, *files]))
    if not files or os.waitpid(child, 0)[1] == 0:
        return ""
    failed = [line for line in (folder / "said").read_text().splitlines() if line.startswith(("FAILED", "ERROR"))]
    return (failed or ["ERROR no test ran to its end"])[-1]


def killer(mutant: Mutant) -> str:
    """The test that notices the mutant, empty where it survives."""
    with copy() as folder:
        place = folder / mutant.file().relative_to(ROOT)
        place.write_text(place.read_text().replace(mutant.old, mutant.new))
        rest = tuple(name for name in CORE.split() if name not in mutant.tests)
        return failure(folder, mutant.tests) or failure(folder, rest)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*")
    parser.add_argument("--jobs", type=int, default=1)
    asked = parser.parse_args()
    chosen = [m for m in MUTANTS if not asked.names or any(name in m.name for name in asked.names)]
    for mutant in chosen:
        mutant.file()
    with copy() as folder:  # a test that fails anyway kills nothing
        if broken := failure(folder, tuple(sorted({name for mutant in chosen for name in mutant.tests}))):
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
