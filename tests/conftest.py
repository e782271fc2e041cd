"""What the tests of training share: a tiny data set, a tiny network in ResNet-18's place, quiet one-thread runs."""

import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from cxr_helpers.config import PretrainConfig, RuntimeConfig
from cxr_helpers.data import Dataset, Split, Task
from cxr_helpers.methods import get_options
from cxr_helpers.models import resnet
from cxr_helpers.runs import Run


class TinyNet(nn.Module):
    """The names that `Backbone` replaces in a torchvision ResNet, and 32 features at a thousandth of the cost."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 64, 7, 2, 3, bias=False)
        self.bn1 = nn.BatchNorm2d(64)
        self.maxpool = nn.MaxPool2d(4)
        self.conv2 = nn.Conv2d(64, 32, 3, 2, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(32)
        self.fc = nn.Linear(32, 1000)
        self.relu, self.layer1, self.layer3, self.layer4 = nn.ReLU(), nn.Identity(), nn.AvgPool2d(2), nn.AvgPool2d(2)

    def layer2(self, x: Tensor) -> Tensor:
        return self.bn2(self.conv2(x)).relu()

    def forward(self, x: Tensor) -> Tensor:
        h = self.maxpool(self.bn1(self.conv1(x)).relu())
        return self.fc(self.bn2(self.conv2(h)).relu().mean((2, 3)))


@pytest.fixture(autouse=True, scope="session")
def heard() -> Iterator[None]:
    """SIGINT as a program in a terminal has it: what a shell starts in the background is made to ignore it."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.fixture
def tiny_net(monkeypatch: pytest.MonkeyPatch) -> None:
    """ResNet-18 is `TinyNet` in this test."""
    monkeypatch.setitem(resnet.BUILDERS, "resnet18", TinyNet)


@pytest.fixture
def runtime(tmp_path: Path) -> RuntimeConfig:
    quiet: dict[str, Any] = {"threads": 1, "device": "cpu", "precision": "32-true", "progress": False}
    return RuntimeConfig(results=str(tmp_path / "results"), **quiet)


class Planted:
    """Unpickled, it makes a folder."""

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (os.environ["PLANTED"],)


def new_run(folder: Path) -> Run:
    """A run of that folder, which is there."""
    folder.mkdir(exist_ok=True)
    return Run(path=folder, record={})


def texture_dataset(task: Task = "binary", counts: tuple[int, int, int] = (40, 24, 24), channels: int = 1) -> Dataset:
    """Random textures, brighter where the (first) label is higher, two to a patient: a tenth of a second an epoch."""
    names = {"binary": ("normal", "pneumonia"), "multiclass": ("a", "b", "c"), "multilabel": ("x", "y", "z")}
    splits: dict[str, Any] = {}
    for seed, (name, count) in enumerate(zip(("train", "val", "test"), counts, strict=True)):
        told, generator = (torch.Generator().manual_seed(offset + seed) for offset in (100, 0))
        labels = torch.randperm(count, generator=told) % (3 if task == "multiclass" else 2)
        if task == "multilabel":
            labels = (torch.rand(count, 3, generator=told.manual_seed(100 + seed)) < 0.4).long()
        images = torch.randint(0, 160, (count, channels, 64, 64), generator=generator)
        images += labels.reshape(count, -1)[:, :1, None, None] * 20
        groups = (torch.arange(count) // 2 + 1000 * seed).numpy().astype(str)
        splits[name] = Split(images=images.to(torch.uint8), labels=labels, groups=groups)
    about: dict[str, Any] = {"provenance": {"source": "random textures", "notes": []}}
    return Dataset(name="textures", size=64, task=task, class_names=names[task], **splits, **about)


@pytest.fixture(scope="session")
def textures() -> Dataset:
    return texture_dataset()


def texture_config(**changes: Any) -> PretrainConfig:
    """One epoch over `texture_dataset`, small heads."""
    base: dict[str, Any] = {"dataset": "textures", "size": 64, "epochs": 1, "batch_size": 16, "warmup_epochs": 0.5}
    narrow = {"hidden_dim": 16, "output_dim": 8}
    base["options"] = {k: v for k, v in narrow.items() if k in vars(get_options(changes.get("method", "simclr"), {}))}
    return PretrainConfig(**base | changes)
