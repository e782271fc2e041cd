"""Throughput against batch, image and data set size: what grows with a study, and what does not.

    python -m benchmarks.scale

The first row of each block is what the others are compared with. ChestMNIST whole has 78,468 training images: 3.9 GB at
224 px, drawn here, which costs the same to train on.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import torch
import tyro

from cxr_helpers.config import RuntimeConfig
from cxr_helpers.loop.devices import make_fabric, mixed_precision

from . import contenders
from .contenders import Case
from .throughput import Contender, Settings, cases, keep, machine, race, table_of

CHESTMNIST = 78_468  # its training images, MedMNIST's INFO
SMALL = 1_024  # of the order of a batch: what reading a large table of images or draws costs would show


def blocks(device: torch.device, runtime: RuntimeConfig) -> dict[str, list[Contender]]:
    """By what varies: batch size at 64 px, image size at one batch, and the number of images at 224 px."""
    middle, large = cases(device, (64, 224))
    batch = [replace(middle, batch=max(2, int(middle.batch * factor))) for factor in (1, 0.25, 2)]
    side = [Case(size=size, channels=1, batch=large.batch) for size in (64, 128, 224)]
    return {
        "batch size, 64 px": [_row(f"{case.batch} images a batch", case, 8 * case.batch, runtime) for case in batch],
        "image size": [_row(f"{case.size} px", case, 8 * case.batch, runtime) for case in side],
        "data set size, 224 px": [_row(f"{n:,} images", large, n, runtime) for n in (SMALL, CHESTMNIST)],
    }


def _row(name: str, case: Case, count: int, runtime: RuntimeConfig) -> Contender:
    def build() -> Callable[[int], int]:
        return contenders.ours(case, runtime, count=count)

    return Contender(name=name, build=build)


def main(settings: Settings) -> None:
    """Time the blocks, print the table and write it with the machine it was taken on."""
    runtime = RuntimeConfig(progress=False, threads=settings.threads)
    fabric = make_fabric(runtime)
    device, precision = fabric.device, mixed_precision(fabric)
    tables = []
    for what, rows in blocks(device, runtime).items():
        race(rows, settings, device, what)
        tables.append(table_of(rows, what="training, images/s", block=what))
    keep(tables, f"scale-{device.type}", machine(device, precision, settings, "scale"))


if __name__ == "__main__":
    main(tyro.cli(Settings, description=__doc__))
