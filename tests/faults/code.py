"""Files that would run code when read carelessly: each is refused, and its code does not run."""

from __future__ import annotations

import io
import os
import pickle
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch
import torchvision
from cxr_helpers.models import imagenet_state, load_backbone

from cxr_helpers.data import load_dataset
from cxr_helpers.loop import load_checkpoint
from cxr_helpers.runs import Run

from .archives import COUNTS, said_in_one_sentence, write_archive
from .registry import fault


class Payload:
    """Unpickled, it would write a file."""

    def __init__(self, mark: Path, how: int) -> None:
        self.mark, self.how = mark, how

    def __reduce__(self) -> tuple[object, tuple[object, ...]]:
        if self.how % 2:
            return os.system, (f"touch '{self.mark}'",)
        return exec, (f"open({str(self.mark)!r}, 'w').close()",)


@contextmanager
def set_variable(name: str, value: str | None) -> Iterator[None]:
    before = os.environ.pop(name, None)
    if value is not None:
        os.environ[name] = value
    try:
        yield
    finally:
        os.environ.pop(name, None)
        if before is not None:
            os.environ[name] = before


def planted(folder: Path, seed: int, *, torch_file: bool) -> tuple[bytes, Path]:
    """A hostile file in one of its forms, and the file that it would write. That it is hostile is made sure of."""
    mark = folder / "the-code-ran"
    content: object = {"conv1.weight": Payload(mark, seed), "epoch": 3}
    buffer = io.BytesIO()
    if torch_file:
        torch.save(content, buffer, _use_new_zipfile_serialization=seed % 3 != 0)
        torch.load(io.BytesIO(buffer.getvalue()), weights_only=False)
    else:
        pickle.dump(content, buffer, protocol=seed % (pickle.HIGHEST_PROTOCOL + 1))
        pickle.loads(buffer.getvalue())
    assert mark.exists(), "the planted file is harmless: the try shows nothing"
    mark.unlink()
    return buffer.getvalue(), mark


def nothing_ran(read: Callable[[], object], mark: Path) -> None:
    """Read a hostile file: one clear sentence, and no code."""
    try:
        read()
    except (ValueError, OSError) as error:
        said_in_one_sentence(error)
    else:
        raise AssertionError("a hostile file was accepted")
    finally:
        ran = mark.exists()
        mark.unlink(missing_ok=True)
    assert not ran, "code of a file ran"


@fault("a pickle that runs code as CXR_IMAGENET_WEIGHTS", category="code", tries=12, quick=2)
def as_weights(folder: Path, seed: int) -> None:
    content, mark = planted(folder, seed, torch_file=seed % 2 == 0)
    (folder / "resnet18.pth").write_bytes(content)
    with set_variable("CXR_IMAGENET_WEIGHTS", str(folder / "resnet18.pth")):
        nothing_ran(lambda: imagenet_state("resnet18"), mark)


@fault("a pickle that runs code in torch's cache of ImageNet files", category="code", tries=12, quick=3)
def in_the_cache(folder: Path, seed: int) -> None:
    content, mark = planted(folder, seed, torch_file=True)
    (folder / "checkpoints").mkdir()
    name = torchvision.models.ResNet18_Weights.IMAGENET1K_V1.url.rpartition("/")[2]
    (folder / "checkpoints" / name).write_bytes(content)
    before = torch.hub.get_dir()
    torch.hub.set_dir(str(folder))
    try:
        with set_variable("CXR_IMAGENET_WEIGHTS", None):
            nothing_ran(lambda: imagenet_state("resnet18"), mark)
    finally:
        torch.hub.set_dir(before)


@fault("a pickle that runs code as a run's checkpoint", category="code", tries=12, quick=2)
def as_checkpoint(folder: Path, seed: int) -> None:
    content, mark = planted(folder, seed, torch_file=seed % 2 == 0)
    (folder / "checkpoint.pt").write_bytes(content)
    nothing_ran(lambda: load_checkpoint(Run(path=folder, record={})), mark)


@fault("a pickle that runs code as a backbone file", category="code", tries=12, quick=2)
def as_backbone(folder: Path, seed: int) -> None:
    content, mark = planted(folder, seed, torch_file=seed % 2 == 0)
    (folder / "backbone.safetensors").write_bytes(content)
    nothing_ran(lambda: load_backbone(folder / "backbone.safetensors"), mark)


@fault("a pickle that runs code as an .npz, or inside one", category="code", tries=12, quick=3)
def as_archive(folder: Path, seed: int) -> None:
    content, mark = planted(folder, seed, torch_file=False)
    if seed % 3 == 0:
        (folder / "breastmnist.npz").write_bytes(content)
    else:
        objects = np.array([Payload(mark, seed)] * COUNTS["val"], dtype=object)
        write_archive(folder, **{("val_groups", "val_labels")[seed % 2]: objects})
        np.load(folder / "breastmnist.npz", allow_pickle=True)[("val_groups", "val_labels")[seed % 2]]
        assert mark.exists(), "the planted file is harmless"
        mark.unlink()
    nothing_ran(lambda: load_dataset("breastmnist", 28, folder), mark)


@fault("a pickle that runs code as a batch of CIFAR-10", category="code", tries=6, quick=1)
def as_batch(folder: Path, seed: int) -> None:
    content, mark = planted(folder, seed, torch_file=False)
    official = torchvision.datasets.CIFAR10
    (folder / official.base_folder).mkdir()
    for name, _ in [*official.train_list, *official.test_list, [official.meta["filename"], ""]]:
        (folder / official.base_folder / name).write_bytes(content)
    if seed % 2:
        (folder / official.filename).write_bytes(content)  # never unpacked, never downloaded over
    nothing_ran(lambda: load_dataset("cifar10", 32, folder), mark)
    if seed % 2:
        assert (folder / official.filename).read_bytes() == content, "the user's archive was overwritten"
