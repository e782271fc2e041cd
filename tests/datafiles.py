"""Small data sets on disk, and a machine without a network or variables of its own."""

import socket
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

COUNTS = {"train": 8, "val": 4, "test": 4}


@pytest.fixture
def offline(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*args: Any, **kwargs: Any) -> None:
        raise socket.gaierror(-2, "Name or service not known")

    monkeypatch.setattr("socket.create_connection", refuse)
    for name in ("CXR_DATA", "CXR_MIRROR", "CXR_IMAGENET_WEIGHTS", "CXR_PROFILE", "CXR_REPORT"):
        monkeypatch.delenv(name, raising=False)


def write_archive(root: Path, name: str = "breastmnist", **changes: np.ndarray) -> Path:
    """A small file of MedMNIST's layout."""
    arrays = {}
    for split, count in COUNTS.items():
        arrays[f"{split}_images"] = np.arange(count * 784).reshape(count, 28, 28).astype(np.uint8)
        arrays[f"{split}_labels"] = (np.arange(count) % 2)[:, None].astype(np.uint8)
    np.savez(root / f"{name}.npz", **(arrays | changes))
    return root / f"{name}.npz"


def write_folder(folder: Path, counts: dict[str, int], size: int = 8, channels: int = 1) -> Path:
    """So many PNGs, all different, in each of these places of a folder."""
    rng = np.random.default_rng(0)
    for place, count in counts.items():
        (folder / place).mkdir(parents=True, exist_ok=True)
        for i in range(count):
            pixels = rng.integers(0, 256, (size, size, channels), np.uint8)
            Image.fromarray(pixels.squeeze()).save(folder / place / f"{i:03d}.png")
    return folder
