"""Broken `.npz` files: each is refused in one sentence, and the file stays as it was."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from datafiles import write_archive

from cxr_helpers.data import Dataset, load_dataset

from .registry import fault


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
