"""Broken data files: each is refused, or skipped by the stated rule, in one sentence; its code does not run."""

from __future__ import annotations

import io
import os
import pickle
from pathlib import Path
from typing import Any

import numpy as np
from datafiles import COUNTS, write_archive, write_folder
from PIL import Image
from samples import one_sentence, smooth_images
from torchvision.datasets import CIFAR10

from cxr_helpers.data import load_dataset

from .registry import fault

SIDE = 12


def refused(path: Path, name: str, size: int, root: Path) -> None:
    """Load what is broken, which must be refused and left as it is."""
    broken = path.read_bytes()
    try:
        load_dataset(name, size, root)
    except ValueError as error:
        assert path.relative_to(root).parts[0] in one_sentence(error)
    else:
        raise AssertionError("a broken file was taken for a whole one")
    assert path.read_bytes() == broken, "the user's file was changed"


@fault("an .npz cut off at a random byte", category="data", tries=100, quick=6)
def archive_cut_off(folder: Path, seed: int) -> None:
    path = write_archive(folder)
    whole = path.read_bytes()
    path.write_bytes(whole[: np.random.default_rng(seed).integers(len(whole))])
    refused(path, "breastmnist", 28, folder)


class Payload:
    """Unpickled, it would make a folder."""

    def __init__(self, mark: Path) -> None:
        self.mark = str(mark)

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (self.mark,)


@fault("a pickle that runs code: as an .npz, inside one, as a batch of CIFAR-10", category="data", tries=3, quick=3)
def hostile(folder: Path, seed: int) -> None:
    payload, path = Payload(folder / "the-code-ran"), folder / "breastmnist.npz"
    if seed == 0:
        write_archive(folder, val_groups=np.array([payload] * COUNTS["val"], dtype=object))
    else:
        path = (path, folder / CIFAR10.base_folder / "data_batch_1")[seed - 1]
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(pickle.dumps(payload))
    refused(path, *(("cifar10", 32) if seed == 2 else ("breastmnist", 28)), folder)
    assert not (folder / "the-code-ran").exists(), "code of a file ran"


@fault("an image cut off at a random byte", category="data", tries=100, quick=6)
def image_cut_off(folder: Path, seed: int) -> None:
    kind, buffer, (waves,) = ("png", "jpeg", "webp")[seed % 3], io.BytesIO(), smooth_images(1, SIDE, channels=3)
    Image.fromarray((255 * waves).byte().permute(1, 2, 0).numpy()).save(buffer, kind)
    whole = buffer.getvalue()
    length = int(np.random.default_rng(seed).integers(1, len(whole) - 12))  # a PNG's last 12 bytes hold no pixel
    scans = write_folder(folder / "scans", {f"{split}/a": 3 for split in ("train", "val", "test")}, SIDE)
    before = load_dataset("scans", SIDE, folder)
    (scans / f"train/a/x.{kind}").write_bytes(whole[:length])
    read = load_dataset("scans", SIDE, folder)
    assert read.provenance["skipped"] == {f"train/a/x.{kind}": "damaged or truncated"}
    assert read.fingerprint == before.fingerprint, "another image changed"
