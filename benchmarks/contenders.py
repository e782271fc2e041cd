"""The contender table: a training step and two views of a batch, by this package and by its peers.

Each contender is built by one call, raises ImportError if it is not installed, and is then a function that takes one
step. Training contenders train a ResNet-18 on uint8 images in memory: one that reads files would measure the disk.
"""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
from PIL import Image
from torch import Tensor, nn
from torch.utils.data import DataLoader, default_collate
from torchvision.models import resnet18
from torchvision.transforms import v2

from cxr_helpers.augment import POLICIES, TwoViews, draw_table
from cxr_helpers.config import PretrainConfig, RuntimeConfig
from cxr_helpers.data import Dataset, Split
from cxr_helpers.methods import Batch
from cxr_helpers.pretrain import Pretext
from cxr_helpers.recipes import resolve

Step = Callable[[], object]
Build = Callable[[], Step]
HEADS = {"simclr": {"hidden_dim": 512, "output_dim": 128}, "vicreg": {"hidden_dim": 1024, "output_dim": 64}}
POLICY = "imagenet"  # of training: the nearest to lightly's own transforms (crop, flip, jitter, grey, blur)
REF = POLICIES["ref"]  # of augmentation alone: the assignment's reference
SCALE, RATIO = (REF.crop_scale_min, REF.crop_scale_max), (REF.crop_ratio_min, REF.crop_ratio_max)


@dataclass(frozen=True, kw_only=True)
class Case:
    """One setting: the method that trains, side of the images in px, images of a batch."""

    method: str = "simclr"
    size: int
    batch: int

    @property
    def channels(self) -> int:
        """Three below 64 px, where the stem is CIFAR's, else one."""
        return 3 if self.size < 64 else 1


def training(case: Case, runtime: RuntimeConfig, device: torch.device, precision: str) -> dict[str, Build]:
    """By name, how to build a training step: this package first, then lightly as it comes and in our precision.

    On a CPU lightly makes its views in the training process: no core is free for another.
    """
    rows: dict[str, Build] = {
        "this package": partial(ours, case, runtime),
        "its ceiling: views ready, model alone": partial(ours, case, runtime, ready=True),
        "its micro-batches of half the batch": partial(ours, case, replace(runtime, micro_batch=case.batch // 2)),
    }
    for workers in (4, 16) if device.type == "cuda" else (0,):
        for kind, layout in (("32-true", "its default"), (precision, "channels_last")):
            name = f"lightly, {kind}, {layout}, {workers} loader processes"
            rows[name] = partial(lightly, case, device, workers, kind, layout == "channels_last")
    return rows


def augmentation(case: Case, device: torch.device) -> dict[str, Build]:
    """By name, how to build two views of each image of a batch: this package first; on a GPU only what works there."""
    rows: dict[str, Build] = {
        "this package": partial(views_of_ours, case, device),
        "kornia": partial(views_of_kornia, case, device),
    }
    if device.type == "cpu":
        rows["torchvision v2, PIL"] = partial(views_of_torchvision, case, pil=True)
        rows["torchvision v2, tensor"] = partial(views_of_torchvision, case, pil=False)
        rows["albumentations"] = partial(views_of_albumentations, case)
    return rows


def images_of(case: Case, count: int) -> Tensor:
    """Smooth random images, uint8 [count, C, S, S]."""
    coarse = torch.rand(count, case.channels, 8, 8, generator=torch.Generator().manual_seed(0))
    smooth = nn.functional.interpolate(coarse, size=case.size, mode="bicubic", align_corners=False)
    return smooth.clamp(0, 1).mul(255).to(torch.uint8)


def pictures_of(case: Case, count: int) -> list[Image.Image]:
    """The same as PIL images."""
    return [Image.fromarray(image.permute(1, 2, 0).squeeze(2).numpy()) for image in images_of(case, count)]


# ---- a training step


def pretext(case: Case, runtime: RuntimeConfig) -> Pretext:
    """A training on eight batches of such images, ready for its first step."""
    labels = torch.arange(8 * case.batch) % 2
    train = Split(images=images_of(case, len(labels)), labels=labels)
    few = Split(images=train.images[:4], labels=labels[:4])
    about: dict[str, Any] = {"task": "binary", "class_names": ("a", "b"), "provenance": {}}
    dataset = Dataset(name="benchmark", size=case.size, train=train, val=few, test=few, **about)
    what: dict[str, Any] = {"method": case.method, "options": HEADS[case.method], "policy": POLICY, "epochs": 1}
    config = PretrainConfig(dataset="benchmark", size=case.size, batch_size=case.batch, **what)
    return Pretext(resolve(config), dataset, runtime)


def ours(case: Case, runtime: RuntimeConfig, *, ready: bool = False) -> Step:
    """From uint8: choice of the batch, two views, forward, loss, backward, update, online probe.

    `ready` takes the first batch's views again and again: what no input could make faster.
    """
    task = pretext(case, runtime)
    batches: Iterator[Batch] = itertools.chain.from_iterable(map(task.batches, itertools.count()))
    if ready:
        batches = itertools.repeat(next(batches))
    return lambda: task.step(next(batches), 1)


def lightly(case: Case, device: torch.device, workers: int, precision: str, channels_last: bool) -> Step:
    """lightly's step as its examples write it: its transform on PIL images, DataLoader, projection head, loss.

    Loader processes go on while others take their turn and begin the next one with full queues, in lightly's favour.
    """
    transform, head, criterion = _lightly_parts(case)
    pictures: Any = pictures_of(case, 8 * case.batch)
    how: dict[str, Any] = {"batch_size": case.batch, "num_workers": workers, "pin_memory": device.type == "cuda"}
    how |= {"sampler": itertools.cycle(range(len(pictures)))}  # no end of an epoch inside a measurement
    batches = iter(DataLoader(pictures, collate_fn=lambda some: default_collate([transform(x) for x in some]), **how))
    net: Any = resnet18()
    net.conv1, net.fc = nn.Conv2d(case.channels, 64, 7, 2, 3, bias=False), nn.Identity()
    if case.size < 64:
        net.conv1, net.maxpool = nn.Conv2d(case.channels, 64, 3, 1, 1, bias=False), nn.Identity()
    memory = torch.channels_last if channels_last else torch.contiguous_format
    model = nn.Sequential(net, head).to(device, memory_format=memory)  # type: ignore[call-overload]
    optimizer = torch.optim.SGD(model.parameters(), lr=0.06, momentum=0.9, weight_decay=5e-4)

    def step() -> None:
        x_a, x_b = (x.to(device, non_blocking=True, memory_format=memory) for x in next(batches))
        with torch.autocast(device.type, torch.bfloat16, enabled=precision == "bf16-mixed"):
            loss = criterion(model(x_a), model(x_b))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    return step


def _lightly_parts(case: Case) -> tuple[Any, nn.Module, nn.Module]:
    from lightly import loss, transforms
    from lightly.models.modules import heads

    how: dict[str, Any] = {
        "input_size": case.size,
        "gaussian_blur": 0.0 if case.size <= 32 else 0.5,  # as its CIFAR example does
        "normalize": {"mean": [0.5] * case.channels, "std": [0.25] * case.channels},
    }
    dims = {"input_dim": 512, **HEADS[case.method]}
    if case.method == "vicreg":
        return transforms.VICRegTransform(**how), heads.VICRegProjectionHead(**dims), loss.VICRegLoss()
    return transforms.SimCLRTransform(**how), heads.SimCLRProjectionHead(**dims), loss.NTXentLoss(temperature=0.5)


# ---- two views of each image of a batch, by policy `ref`


def views_of_ours(case: Case, device: torch.device) -> Step:
    """This package's batched views, draws included."""
    images, make, epochs = images_of(case, case.batch).to(device), TwoViews(REF, case.size), itertools.count()
    return lambda: make(images, draw_table(case.batch, 2, 0, next(epochs)).to(device))


def views_of_kornia(case: Case, device: torch.device) -> Step:
    """kornia's batched augmentations, parameters of its own for each image."""
    import kornia.augmentation as k

    transform = k.AugmentationSequential(
        k.RandomRotation(REF.rotation_deg, p=REF.affine_prob),
        k.RandomResizedCrop((case.size, case.size), SCALE, RATIO, resample="BICUBIC"),
        k.RandomHorizontalFlip(p=REF.flip_prob),
        k.RandomBrightness((1 - REF.brightness, 1 + REF.brightness), p=REF.jitter_prob),  # ColorJiggle: colour alone
        k.RandomContrast((1 - REF.contrast, 1 + REF.contrast), p=REF.jitter_prob),
        k.RandomInvert(p=REF.invert_prob),
        same_on_batch=False,
    )
    images = images_of(case, case.batch).to(device)
    return _twice(lambda batch: transform(batch.float().div(255)), [images])


def _twice(transform: Callable[[Any], Any], inputs: list[Any]) -> Step:
    return lambda: deque(map(transform, [*inputs, *inputs]), maxlen=0)  # keeps none


def views_of_torchvision(case: Case, *, pil: bool) -> Step:
    """torchvision's v2 transforms, image by image, on PIL images or uint8 tensors."""
    convert = [v2.PILToTensor()] if pil else []
    transform = v2.Compose(
        [
            v2.RandomApply([v2.RandomRotation(REF.rotation_deg)], REF.affine_prob),
            v2.RandomResizedCrop(case.size, SCALE, RATIO, v2.InterpolationMode.BICUBIC),
            v2.RandomHorizontalFlip(REF.flip_prob),
            v2.RandomApply([v2.ColorJitter(REF.brightness, REF.contrast)], REF.jitter_prob),
            v2.RandomInvert(REF.invert_prob),
            *convert,
            v2.ToDtype(torch.float32, scale=True),
        ]
    )
    return _twice(transform, pictures_of(case, case.batch) if pil else list(images_of(case, case.batch)))


def views_of_albumentations(case: Case) -> Step:
    """albumentations on numpy images (OpenCV underneath), image by image."""
    import albumentations as a
    import cv2

    cv2.setNumThreads(torch.get_num_threads())
    transform = a.Compose(
        [
            a.Rotate(REF.rotation_deg, p=REF.affine_prob, border_mode=cv2.BORDER_CONSTANT),
            a.RandomResizedCrop((case.size, case.size), SCALE, RATIO, interpolation=cv2.INTER_CUBIC),
            a.HorizontalFlip(p=REF.flip_prob),
            a.RandomBrightnessContrast(REF.brightness, REF.contrast, p=REF.jitter_prob),
            a.InvertImg(p=REF.invert_prob),
            a.ToFloat(255),
        ]
    )
    arrays = [image.permute(1, 2, 0).contiguous().numpy() for image in images_of(case, case.batch)]
    return _twice(lambda array: transform(image=array)["image"], arrays)
