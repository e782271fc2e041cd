"""Broken `.npz` files: each is refused in one sentence, and the file stays as it was."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from cxr_helpers.data import load_dataset

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


@fault("an .npz cut off at a random byte", category="data", tries=200, quick=10)
def cut_off(folder: Path, seed: int) -> None:
    path = write_archive(folder)
    whole = path.read_bytes()
    path.write_bytes(whole[: np.random.default_rng(seed).integers(len(whole))])
    broken = path.read_bytes()
    try:
        load_dataset("breastmnist", 28, folder)
    except ValueError as error:
        assert "breastmnist.npz" in said_in_one_sentence(error)
    else:
        raise AssertionError("half a file was taken for a whole one")
    assert path.read_bytes() == broken, "the user's file was changed"
