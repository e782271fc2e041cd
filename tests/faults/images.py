"""Broken images in a folder: each is skipped by the stated rule, named and counted, and the others are untouched."""

from __future__ import annotations

import io
import os
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image

from cxr_helpers.data import load_dataset

from .archives import said_in_one_sentence
from .registry import fault

SIDE = 12


def picture(seed: int, mode: str = "L") -> Image.Image:
    """A smooth picture of its own."""
    rng = np.random.default_rng(seed)
    small = rng.integers(0, 256, (4, 4, 3), np.uint8)
    image = Image.fromarray(small).resize((SIDE, SIDE), Image.Resampling.BICUBIC)
    return image.convert(mode)


def write_scans(root: Path) -> Path:
    """A data set of two classes and three splits, three images each."""
    for i, split in enumerate(("train", "val", "test")):
        for j, name in enumerate(("ill", "well")):
            (root / "scans" / split / name).mkdir(parents=True)
            for k in range(3):
                picture(100 * i + 10 * j + k).save(root / "scans" / split / name / f"{k}.png")
    return root / "scans"


def encoded(kind: str, seed: int) -> bytes:
    buffer = io.BytesIO()
    picture(seed, "RGB" if kind != "PNG" else "L").save(buffer, kind)
    return buffer.getvalue()


def skipped_as(root: Path, reason: str, plant: Callable[[Path], object], suffix: str = ".png") -> None:
    """Plant one file; it alone must be missing from the data, and be named with its reason."""
    folder = write_scans(root)
    before = load_dataset("scans", SIDE, root)
    plant(folder / "train" / "ill" / f"planted{suffix}")
    after = load_dataset("scans", SIDE, root)
    assert after.provenance["skipped"] == {f"train/ill/planted{suffix}": reason}, after.provenance["skipped"]
    assert any(f"1 of 19 files were skipped (1 {reason}): " in note for note in after.provenance["notes"])
    assert after.fingerprint == before.fingerprint, "another image changed"


@fault("an image of zero bytes", category="data", tries=9, quick=1)
def empty(folder: Path, seed: int) -> None:
    skipped_as(folder, "empty", lambda path: path.touch(), (".png", ".jpg", ".webp")[seed % 3])


@fault("an image cut off at a random byte", category="data", tries=300, quick=6)
def cut_off(folder: Path, seed: int) -> None:
    kind = ("PNG", "JPEG", "WEBP")[seed % 3]
    whole = encoded(kind, seed)
    length = int(np.random.default_rng(seed).integers(1, len(whole) - 12))  # a PNG's last 12 bytes hold no pixel
    suffix = {"PNG": ".png", "JPEG": ".jpg", "WEBP": ".webp"}[kind]
    skipped_as(folder, "damaged or truncated", lambda path: path.write_bytes(whole[:length]), suffix)


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


@fault("an image turned by each EXIF orientation", category="data", tries=8, quick=2)
def turned(folder: Path, seed: int) -> None:
    target = write_scans(folder) / "train" / "ill" / "0.png"
    upright = np.asarray(Image.open(target))
    stored = (  # how orientations 1 to 8 lie in the file (TIFF 6.0: what row 0 and column 0 are)
        *(upright, upright[:, ::-1], upright[::-1, ::-1], upright[::-1]),
        *(upright.T, np.rot90(upright), upright[::-1, ::-1].T, np.rot90(upright, -1)),
    )[seed]
    exif = Image.Exif()
    exif[0x0112] = seed + 1
    Image.fromarray(np.ascontiguousarray(stored)).save(target, exif=exif)
    read = load_dataset("scans", SIDE, folder).train.images[0, 0].numpy()
    assert np.array_equal(read, upright), f"orientation {seed + 1} was not undone"


@fault("a class folder that is a broken link, or empty", category="data", tries=3, quick=3)
def bad_class(folder: Path, seed: int) -> None:
    third = write_scans(folder) / "train" / "third"
    third.symlink_to((third, "nowhere")[seed]) if seed < 2 else third.mkdir()
    try:
        load_dataset("scans", SIDE, folder)
    except ValueError as error:
        assert "third" in said_in_one_sentence(error)
    else:
        raise AssertionError("a class that is none was read")


@fault("a table of patients of random bytes", category="data", tries=60, quick=4)
def bad_table(folder: Path, seed: int) -> None:
    rng = np.random.default_rng(seed)
    begin = (b"", b"file,group\n", b"file,group\ntrain/ill/0.png,")[seed % 3]
    (write_scans(folder) / "groups.csv").write_bytes(begin + rng.bytes(int(rng.integers(1, 200))))
    try:
        groups = load_dataset("scans", SIDE, folder).train.groups
    except ValueError as error:
        assert "groups.csv" in said_in_one_sentence(error)
    else:
        assert groups is not None and len(set(groups.tolist())) == 6, "patients were made up"
