"""Broken images in a folder: each is skipped by the stated rule, named and counted, and the others are untouched."""

from __future__ import annotations

import io
import os
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
from datafiles import write_folder
from PIL import Image

from cxr_helpers.data import load_dataset

from .archives import said_in_one_sentence
from .registry import fault

SIDE = 12
SCANS = {f"{split}/{name}": 3 for split in ("train", "val", "test") for name in ("ill", "well")}


def skipped_as(root: Path, reason: str, plant: Callable[[Path], object], suffix: str = ".png") -> None:
    """Plant one file; it alone must be missing from the data, and be named with its reason."""
    folder = write_folder(root / "scans", SCANS, SIDE)
    before = load_dataset("scans", SIDE, root)
    plant(folder / "train" / "ill" / f"planted{suffix}")
    after = load_dataset("scans", SIDE, root)
    assert after.provenance["skipped"] == {f"train/ill/planted{suffix}": reason}, after.provenance["skipped"]
    assert any(f"1 of 19 files were skipped (1 {reason}): " in note for note in after.provenance["notes"])
    assert after.fingerprint == before.fingerprint, "another image changed"


@fault("an image cut off at a random byte", category="data", tries=300, quick=6)
def cut_off(folder: Path, seed: int) -> None:
    kind, suffix = (("PNG", ".png"), ("JPEG", ".jpg"), ("WEBP", ".webp"))[seed % 3]
    rng, buffer = np.random.default_rng(seed), io.BytesIO()
    Image.fromarray(rng.integers(0, 256, (SIDE, SIDE, 3), np.uint8)).save(buffer, kind)
    length = int(rng.integers(1, len(buffer.getvalue()) - 32))  # the last bytes of a PNG hold no pixel
    skipped_as(folder, "damaged or truncated", lambda path: path.write_bytes(buffer.getvalue()[:length]), suffix)


@fault("another kind of file called .png", category="data", tries=8, quick=2)
def not_an_image(folder: Path, seed: int) -> None:
    noise = np.random.default_rng(seed).bytes(500)
    contents = (b"<html>not found</html>", noise, b"II*\0" + noise, b"DICM" + noise, b"%PDF-1.4\n", b"\x80\x04K\x01.")
    skipped_as(folder, "damaged or truncated", lambda path: path.write_bytes(contents[seed % len(contents)]))


@fault("a link to itself, to nothing, to a folder, or a pipe, called like an image", category="data", tries=8, quick=4)
def not_a_file(folder: Path, seed: int) -> None:
    def plant(path: Path) -> None:
        if seed % 4 == 3:
            os.mkfifo(path)
        else:
            path.symlink_to((path, "nowhere", path.parent.parent)[seed % 4])

    skipped_as(folder, "not a file", plant)


@fault("a picture of 50,000 x 50,000 pixels in a small file", category="data", tries=2, quick=1)
def bomb(folder: Path, seed: int) -> None:
    def chunk(name: bytes, content: bytes) -> bytes:
        return len(content).to_bytes(4, "big") + name + content + zlib.crc32(name + content).to_bytes(4, "big")

    header = (50_000).to_bytes(4, "big") * 2 + (bytes((8, 0, 0, 0, 0)), bytes((16, 6, 0, 0, 0)))[seed]
    content = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(bytes(10**6))) + chunk(b"IEND", b"")
    skipped_as(folder, "too large", lambda path: path.write_bytes(b"\x89PNG\r\n\x1a\n" + content))


@fault("a table of patients of random bytes", category="data", tries=60, quick=4)
def bad_table(folder: Path, seed: int) -> None:
    rng = np.random.default_rng(seed)
    begin = (b"", b"file,group\n", b"file,group\ntrain/ill/000.png,")[seed % 3]
    content = begin + rng.bytes(int(rng.integers(1, 200)))
    (write_folder(folder / "scans", SCANS, SIDE) / "groups.csv").write_bytes(content)
    try:
        groups = load_dataset("scans", SIDE, folder).train.groups
    except ValueError as error:
        assert "groups.csv" in said_in_one_sentence(error)
    else:
        assert groups is None or len(set(groups.tolist())) == 6, "patients were made up"
