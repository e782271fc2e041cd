"""Broken `.npz` files: each is refused in one sentence, and the file stays as it was."""

from __future__ import annotations

import zipfile
from pathlib import Path

import numpy as np

from cxr_helpers.data import Dataset, load_dataset

from .registry import fault

COUNTS = {"train": 8, "val": 4, "test": 4}


def write_archive(root: Path, name: str = "breastmnist", **changes: np.ndarray) -> Path:
    """A small file of MedMNIST's layout."""
    arrays = {}
    for split, count in COUNTS.items():
        arrays[f"{split}_images"] = np.arange(count * 784).reshape(count, 28, 28).astype(np.uint8)
        arrays[f"{split}_labels"] = (np.arange(count) % 2)[:, None].astype(np.uint8)
    np.savez(root / f"{name}.npz", **(arrays | changes))
    return root / f"{name}.npz"


def said_in_one_sentence(error: Exception) -> str:
    """What an error says, once it is a sentence a user can act on."""
    text = str(error)
    assert "\n" not in text, f"several lines: {text[:200]!r}"
    assert 20 < len(text) < 900, f"not a sentence: {text[:200]!r}"
    return text


def refused(path: Path) -> str:
    """Load a broken archive, which must be refused by name and left as it is; what was said."""
    broken = path.read_bytes()
    try:
        load_dataset(path.stem, 28, path.parent)
    except ValueError as error:
        said = said_in_one_sentence(error)
    else:
        raise AssertionError("a broken file was taken for a whole one")
    assert path.name in said, said
    assert path.read_bytes() == broken, "the user's file was changed"
    return said


@fault("an .npz cut off at a random byte", category="data", tries=300, quick=8)
def cut_off(folder: Path, seed: int) -> None:
    path = write_archive(folder)
    whole = path.read_bytes()
    path.write_bytes(whole[: np.random.default_rng(seed).integers(len(whole))])
    refused(path)


@fault("an .npz with a random run of bytes overwritten", category="data", tries=300, quick=8)
def overwritten(folder: Path, seed: int) -> None:
    path, rng = write_archive(folder), np.random.default_rng(seed)
    before = load_dataset("breastmnist", 28, folder).fingerprint
    content = bytearray(path.read_bytes())
    start = int(rng.integers(len(content)))
    noise = rng.integers(0, 256, int(rng.integers(1, 64)), np.uint8).tobytes()
    content[start : start + len(noise)] = noise[: len(content) - start]
    path.write_bytes(content)
    try:
        after: Dataset = load_dataset("breastmnist", 28, folder)
    except ValueError as error:
        assert path.name in said_in_one_sentence(error)
    else:  # a time stamp or another byte that no array depends on
        assert after.fingerprint == before, "changed bytes were read as data"


@fault("an .npz whose header claims a random shape and dtype", category="data", tries=100, quick=6)
def false_header(folder: Path, seed: int) -> None:
    path, rng = write_archive(folder), np.random.default_rng(seed)
    key = f"{rng.choice(list(COUNTS))}_{rng.choice(['images', 'labels'])}.npy"
    shape = tuple(int(n) for n in rng.integers(0, 10 ** int(rng.integers(1, 6)), int(rng.integers(0, 5))))
    kind = str(rng.choice(["|u1", "<u2", "<i8", "<f4", "|b1", "<U3", "|O", "|V5"]))
    with zipfile.ZipFile(path) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in members.items():
            header = str({"descr": kind, "fortran_order": False, "shape": shape}).encode().ljust(117) + b"\n"
            false = content[:8] + len(header).to_bytes(2, "little") + header + content[128:]
            archive.writestr(name, false if name == key else content)
    refused(path)
