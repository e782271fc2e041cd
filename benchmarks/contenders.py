"""What `throughput.py` times: training steps of this package and of its peers, and their augmentations alone.

A contender is built once and then asked again and again to work through some images. Every training contender trains
a ResNet-18 with SimCLR's loss from uint8 images in memory: one that reads files would measure the disk.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn
from torchvision.models import resnet18

from cxr_helpers.augment import POLICIES, TwoViews, draw_table
from cxr_helpers.config import PretrainConfig, RuntimeConfig
from cxr_helpers.data import Dataset, Split
from cxr_helpers.methods import Batch
from cxr_helpers.pretrain import Pretext
from cxr_helpers.recipes import resolve

POLICY = "imagenet"  # the nearest to lightly's own SimCLR transform: crop, flip, jitter, grey, blur


@dataclass(frozen=True, kw_only=True)
class Case:
    """One setting: side of the images in px, their channels, images of a batch."""

    size: int
    channels: int
    batch: int


def images_of(case: Case, count: int) -> Tensor:
    """Smooth random images, uint8 [count, C, S, S]."""
    generator = torch.Generator().manual_seed(0)
    coarse = torch.rand(count, case.channels, 8, 8, generator=generator)
    smooth = nn.functional.interpolate(coarse, size=case.size, mode="bicubic", align_corners=False)
    return smooth.clamp(0, 1).mul(255).to(torch.uint8)


def dataset_of(case: Case, count: int) -> Dataset:
    """A labelled data set of such images, 64 different ones over and over; val and test as small as can be."""
    labels = torch.arange(count) % 2
    images = images_of(case, 64)

    def part(rows: int) -> Split:
        return Split(images=images[torch.arange(rows) % 64], labels=labels[:rows])

    splits = {"train": part(count), "val": part(4), "test": part(4)}
    names = ("a", "b")
    return Dataset(name="benchmark", size=case.size, task="binary", class_names=names, provenance={}, **splits)


# ---- training


def ours(
    case: Case,
    runtime: RuntimeConfig,
    change: Callable[[Pretext], None] | None = None,
    *,
    count: int | None = None,
) -> Callable[[int], int]:
    """The whole step from uint8: choice of the batch, two views, forward, loss, backward, update, online probe.

    `change` is done to the training before its first step; `count` is the number of images, else eight batches.
    """
    training = _training(case, runtime, count)
    if change is not None:
        change(training)
    training.method.train()
    endless = itertools.chain.from_iterable(training.batches(epoch) for epoch in itertools.count())
    return lambda steps: _steps(training, itertools.islice(endless, steps))


def ceiling(case: Case, runtime: RuntimeConfig) -> Callable[[int], int]:
    """The same step on one batch of views that are there already: what no input could make faster."""
    training = _training(case, runtime)
    training.method.train()
    ready = next(training.batches(0))
    return lambda steps: _steps(training, itertools.repeat(ready, steps))


def _training(case: Case, runtime: RuntimeConfig, count: int | None = None) -> Pretext:
    config = PretrainConfig(dataset="benchmark", size=case.size, policy=POLICY, batch_size=case.batch, epochs=1)
    return Pretext(resolve(config), dataset_of(case, count or 8 * case.batch), runtime)


def _steps(training: Pretext, some: Iterator[Batch]) -> int:
    images = 0
    for batch in some:
        training.step(batch, 1)
        images += len(batch.indices)
    return images


class _Pictures(torch.utils.data.Dataset):
    def __init__(self, case: Case, transform: Callable[[Any], Any]) -> None:
        self.images, self.transform = images_of(case, 8 * case.batch).numpy(), transform

    def __len__(self) -> int:
        return 1_000_000  # the images over and over: no end of an epoch inside a measurement

    def __getitem__(self, index: int) -> Any:
        image = self.images[index % len(self.images)]
        picture = Image.fromarray(image[0] if len(image) == 1 else np.moveaxis(image, 0, -1))
        return self.transform(picture)


def lightly(
    case: Case, device: torch.device, workers: int, precision: str, channels_last: bool
) -> Callable[[int], int]:
    """lightly's SimCLR as its examples write it: its transform on PIL images, DataLoader, projection head, loss."""
    from lightly.loss import NTXentLoss
    from lightly.models.modules import SimCLRProjectionHead
    from lightly.transforms import SimCLRTransform

    grey = case.channels == 1
    transform = SimCLRTransform(
        input_size=case.size,
        gaussian_blur=0.0 if case.size <= 32 else 0.5,  # as its CIFAR example does
        normalize={"mean": [0.5], "std": [0.25]} if grey else {"mean": [0.5] * 3, "std": [0.25] * 3},
    )
    loader = torch.utils.data.DataLoader(
        _Pictures(case, transform),
        batch_size=case.batch,
        num_workers=workers,
        pin_memory=device.type == "cuda",
        drop_last=True,
    )
    net = _torchvision_net(case)
    model = nn.Sequential(net, nn.Flatten(1), SimCLRProjectionHead(512, 512, 128)).to(device)
    memory = torch.channels_last if channels_last else torch.contiguous_format
    model = model.to(memory_format=memory)  # type: ignore[call-overload]
    optimizer = torch.optim.SGD(model.parameters(), lr=0.06, momentum=0.9, weight_decay=5e-4)
    criterion = NTXentLoss(temperature=0.5)

    def run(steps: int) -> int:
        images = 0
        for views in itertools.islice(loader, steps):
            x = [v.to(device, non_blocking=True, memory_format=memory) for v in views]
            with torch.autocast(device.type, torch.bfloat16, enabled=precision == "bf16-mixed"):
                loss = criterion(model(x[0]), model(x[1]))
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            images += len(x[0])
        return images

    return run


def _torchvision_net(case: Case) -> nn.Module:
    net = resnet18()
    net.conv1 = nn.Conv2d(case.channels, 64, 7, 2, 3, bias=False)
    if case.size < 64:
        net.conv1, net.maxpool = nn.Conv2d(case.channels, 64, 3, 1, 1, bias=False), nn.Identity()  # type: ignore[assignment]
    return nn.Sequential(*list(net.children())[:-1])


# ---- augmentation alone: the assignment's reference policy


def views_of_ours(case: Case, device: torch.device) -> Callable[[int], int]:
    """This package's batched views."""
    images = images_of(case, case.batch).to(device)
    make = TwoViews(POLICIES["ref"], case.size)
    epochs = itertools.count()

    def run(batches_: int) -> int:
        for _ in range(batches_):
            make(images, draw_table(case.batch, 2, 0, next(epochs)).to(device))
        return 2 * batches_ * case.batch

    return run


def _one_by_one(images: list[Any], transform: Callable[[Any], Any]) -> Callable[[int], int]:
    def run(batches_: int) -> int:
        for _ in range(batches_):
            for image in images:
                transform(image), transform(image)
        return 2 * batches_ * len(images)

    return run


def views_of_torchvision(case: Case, kind: str) -> Callable[[int], int]:
    """torchvision's v2 transforms, image by image, on PIL images or uint8 tensors."""
    from torchvision.transforms import InterpolationMode, v2

    p = POLICIES["ref"]
    convert = [v2.PILToTensor()] if kind == "pil" else []
    transform = v2.Compose(
        [
            v2.RandomApply([v2.RandomRotation(p.rotation_deg)], p.affine_prob),
            v2.RandomResizedCrop(
                case.size,
                (p.crop_scale_min, p.crop_scale_max),
                (p.crop_ratio_min, p.crop_ratio_max),
                InterpolationMode.BICUBIC,
            ),
            v2.RandomHorizontalFlip(p.flip_prob),
            v2.RandomApply([v2.ColorJitter(p.brightness, p.contrast)], p.jitter_prob),
            v2.RandomInvert(p.invert_prob),
            *convert,
            v2.ToDtype(torch.float32, scale=True),
        ]
    )
    images = images_of(case, case.batch)
    pictures = [Image.fromarray(x[0].numpy()) for x in images] if kind == "pil" else list(images)
    return _one_by_one(pictures, transform)


def views_of_albumentations(case: Case) -> Callable[[int], int]:
    """albumentations on numpy images (OpenCV underneath)."""
    import albumentations as a
    import cv2

    cv2.setNumThreads(torch.get_num_threads())
    p = POLICIES["ref"]
    transform = a.Compose(
        [
            a.Rotate(p.rotation_deg, p=p.affine_prob, border_mode=cv2.BORDER_CONSTANT),
            a.RandomResizedCrop(
                (case.size, case.size),
                (p.crop_scale_min, p.crop_scale_max),
                (p.crop_ratio_min, p.crop_ratio_max),
                interpolation=cv2.INTER_CUBIC,
            ),
            a.HorizontalFlip(p=p.flip_prob),
            a.RandomBrightnessContrast(p.brightness, p.contrast, p=p.jitter_prob),
            a.InvertImg(p=p.invert_prob),
            a.ToFloat(255),
        ]
    )
    pictures = [np.moveaxis(x.numpy(), 0, -1) for x in images_of(case, case.batch)]
    return _one_by_one(pictures, lambda picture: transform(image=picture)["image"])


def _kornia_ref(case: Case) -> Callable[[Tensor], Tensor]:
    import kornia.augmentation as k

    p = POLICIES["ref"]
    return k.AugmentationSequential(
        k.RandomRotation(p.rotation_deg, p=p.affine_prob),
        k.RandomResizedCrop(
            (case.size, case.size),
            (p.crop_scale_min, p.crop_scale_max),
            (p.crop_ratio_min, p.crop_ratio_max),
            resample="BICUBIC",
        ),
        k.RandomHorizontalFlip(p=p.flip_prob),
        k.RandomBrightness((1 - p.brightness, 1 + p.brightness), p=p.jitter_prob),  # ColorJiggle takes colour alone
        k.RandomContrast((1 - p.contrast, 1 + p.contrast), p=p.jitter_prob),
        k.RandomInvert(p=p.invert_prob),
        same_on_batch=False,
    )


def views_of_kornia(case: Case, device: torch.device) -> Callable[[int], int]:
    """kornia's batched augmentations, parameters of its own for each image."""
    transform, images = _kornia_ref(case), images_of(case, case.batch).to(device)

    def run(batches_: int) -> int:
        for _ in range(batches_):
            for _ in range(2):
                transform(images.float().div(255))
        return 2 * batches_ * case.batch

    return run


def kornia(case: Case, runtime: RuntimeConfig) -> Callable[[int], int]:
    """This package's step on views that kornia makes on the device: what another batched pipeline would cost."""
    training, transform = _training(case, runtime), _kornia_ref(case)
    training.method.train()
    images = training.feed.images
    rows = torch.arange(case.batch, device=images.device)

    def made() -> Iterator[Batch]:
        for step in itertools.count():
            indices = (rows + step * case.batch) % len(images)
            x = images[indices].float().div(255)
            yield Batch(views=(transform(x), transform(x)), indices=indices, labels=training.labels[indices])

    endless = made()
    return lambda steps: _steps(training, itertools.islice(endless, steps))
