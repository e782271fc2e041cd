"""Images per second of this package, of its own ceiling and of its peers, side by side in one run.

    python -m benchmarks.throughput                    # on the accelerator, or on the CPU's cores
    python -m benchmarks.throughput --rounds 7 --only augmentation

Contenders take turns: each round asks every one of them for the same number of steps, so that a machine whose speed
drifts drifts for all. The table gives the median of the rounds and their range. Needs the extra `bench`; a peer that is
not installed has a row that says so.
"""

from __future__ import annotations

import os
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Literal

import pandas as pd
import torch
import tyro
from tqdm import tqdm

from cxr_helpers.config import RuntimeConfig
from cxr_helpers.environment import environment_record
from cxr_helpers.loop.devices import make_fabric, mixed_precision
from cxr_helpers.writing import write_json, write_table

from . import contenders
from .contenders import Case

FOLDER = Path(__file__).resolve().parents[1] / "results" / "benchmarks"
PEERS = ("lightly", "kornia", "albumentations", "torchvision")


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What is timed, how often and for how long."""

    rounds: int = 5
    """Turns of each contender; the median is reported."""
    seconds: float = 6.0
    """Length of a turn, about; at least two steps."""
    only: Literal["all", "training", "augmentation"] = "all"
    """Which table."""
    sizes: tuple[int, ...] = (224, 64, 32)
    """Sides in px of the training cases; 32 with the CIFAR stem and three channels."""
    threads: int | None = None
    """CPU threads; None leaves torch's choice."""


@dataclass(kw_only=True)
class Contender:
    """A row of the table: a name, how it is built, and what came of it."""

    name: str
    build: Callable[[], Callable[[int], int]]
    run: Callable[[int], int] | None = None
    steps: int = 2
    rates: list[float] | None = None
    missing: str = ""


def timed(contender: Contender, steps: int, device: torch.device) -> float:
    """Images (or views) per second of that many steps, the device's work included."""
    assert contender.run is not None
    _wait(device)
    begin = time.perf_counter()
    count = contender.run(steps)
    _wait(device)
    return count / (time.perf_counter() - begin)


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def race(rows: list[Contender], settings: Settings, device: torch.device, what: str) -> None:
    """Build, warm up, then let each take its turn in every round."""
    for row in rows:
        try:
            row.run, row.rates = row.build(), []
            timed(row, 2, device)  # first calls allocate, choose kernels, compile
            begin = time.perf_counter()
            timed(row, 1, device)
            row.steps = max(2, round(settings.seconds / max(time.perf_counter() - begin, 1e-6)))
        except ImportError as error:
            row.missing = f"{error.name} is not installed"
    with tqdm(total=settings.rounds * len(rows), desc=what) as bar:
        for _ in range(settings.rounds):
            for row in rows:
                if not row.missing and row.rates is not None:
                    row.rates.append(timed(row, row.steps, device))
                bar.update()


def training_rows(case: Case, runtime: RuntimeConfig, device: torch.device, precision: str) -> list[Contender]:
    """This package, its ceiling, and lightly in its default and in this package's precision."""
    rows = [
        Contender(name="this package", build=lambda: contenders.ours(case, runtime)),
        Contender(name="its ceiling: views ready, model alone", build=lambda: contenders.ceiling(case, runtime)),
    ]
    if device.type == "cuda":
        rows.append(
            Contender(name="kornia's views, this package's step", build=lambda: contenders.kornia(case, runtime))
        )
    workers = (4, 16) if device.type == "cuda" else (0, 2)
    for count in workers:
        for kind, channels_last in (("32-true", False), (precision, True)):
            memory = ", channels_last" if channels_last else ", its default"
            name = f"lightly, {kind}{memory}, {count} loader processes"
            rows.append(Contender(name=name, build=_lightly(case, device, count, kind, channels_last)))
    return rows


def _lightly(case: Case, device: torch.device, workers: int, precision: str, channels_last: bool) -> Callable:
    return lambda: contenders.lightly(case, device, workers, precision, channels_last)


def augmentation_rows(case: Case, device: torch.device) -> list[Contender]:
    """Two views of policy `ref` by each library."""
    rows = [
        Contender(name="this package", build=lambda: contenders.views_of_ours(case, device)),
        Contender(name="kornia", build=lambda: contenders.views_of_kornia(case, device)),
    ]
    if device.type == "cpu":
        rows += [
            Contender(name="torchvision v2, PIL", build=lambda: contenders.views_of_torchvision(case, "pil")),
            Contender(name="torchvision v2, tensor", build=lambda: contenders.views_of_torchvision(case, "tensor")),
            Contender(name="albumentations", build=lambda: contenders.views_of_albumentations(case)),
        ]
    return rows


def table_of(rows: list[Contender], **columns: object) -> pd.DataFrame:
    """One line per contender: median, range, and the ratio of this package's median to it, round by round."""
    ours = rows[0].rates or []
    lines = []
    for row in rows:
        rates = row.rates if row.rates and not row.missing else []
        ratios = [a / b for a, b in zip(ours, rates, strict=True)] if rates else []
        lines.append(
            {
                **columns,
                "contender": row.name,
                "per_second": statistics.median(rates) if rates else float("nan"),
                "slowest": min(rates, default=float("nan")),
                "fastest": max(rates, default=float("nan")),
                "ours_over_it": statistics.median(ratios) if ratios else float("nan"),
                "rounds": len(rates),
                "steps": row.steps,
                "note": row.missing,
            }
        )
    return pd.DataFrame(lines)


def cases(device: torch.device, sizes: tuple[int, ...]) -> list[Case]:
    """Batches that fill the device: 256 as in the study on a GPU, what takes about a second on a CPU."""
    cpu = {224: 16, 128: 32, 64: 64, 32: 32}
    return [
        Case(size=size, channels=3 if size < 64 else 1, batch=256 if device.type == "cuda" else cpu.get(size, 16))
        for size in sizes
    ]


def main(settings: Settings) -> None:
    """Time everything asked for, print the table and write it with the machine it was taken on."""
    runtime = RuntimeConfig(progress=False, threads=settings.threads)
    fabric = make_fabric(runtime)
    device, precision = fabric.device, mixed_precision(fabric)
    tables = []
    if settings.only != "augmentation":
        for case in cases(device, settings.sizes):
            rows = training_rows(case, runtime, device, precision)
            race(rows, settings, device, f"training, {case.size} px")
            tables.append(table_of(rows, what="training, images/s", size=case.size, batch=case.batch))
    if settings.only != "training":
        case = Case(size=224, channels=1, batch=256 if device.type == "cuda" else 32)
        rows = augmentation_rows(case, device)
        race(rows, settings, device, "augmentation, 224 px")
        tables.append(table_of(rows, what="augmentation, views/s", size=case.size, batch=case.batch))
    part = "" if settings.only == "all" else f"-{settings.only}"
    keep(tables, f"throughput-{device.type}{part}", machine(device, precision, settings, "throughput"))


def keep(tables: list[pd.DataFrame], name: str, where: dict[str, object]) -> None:
    """Print the tables as one and write it as `name.csv`, with `name.json` beside it that says where it was taken."""
    table = pd.concat(tables, ignore_index=True)
    print(table.to_string(index=False, float_format="%.3g"))
    FOLDER.mkdir(parents=True, exist_ok=True)
    write_table(FOLDER / f"{name}.csv", table)
    write_json(FOLDER / f"{name}.json", where)


def machine(device: torch.device, precision: str, settings: Settings, module: str) -> dict[str, object]:
    """Where the figures were taken: device, versions, threads, date, the command."""
    peers = {}
    for peer in PEERS:
        try:
            peers[peer] = version(peer)
        except PackageNotFoundError:
            peers[peer] = "not installed"
    command = f"python -m benchmarks.{module} --rounds {settings.rounds} --seconds {settings.seconds:g}"
    return {**environment_record(device, precision), "cores": os.cpu_count(), "peers": peers, "command": command}


if __name__ == "__main__":
    main(tyro.cli(Settings, description=__doc__))
