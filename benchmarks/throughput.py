"""Images per second of this package and of its peers, timed side by side in one run, and the memory of a step.

    python -m benchmarks.throughput                                  # on the accelerator, or on the CPU's cores
    python -m benchmarks.throughput --only training --methods simclr --sizes 64 --batch 128 --threads 2
    python -m benchmarks.throughput --only memory                    # counted, nothing timed; needs no accelerator

Contenders take turns: each round asks every one of them for the same steps again, so that a machine whose speed drifts
drifts for all. A line gives median and range of the rounds' rates, and of this package's rate over the contender's,
round by round. Peers come with the extra `bench`; one that is not there is left out with a sentence.
"""

from __future__ import annotations

import itertools
import os
import shlex
import sys
import time
from collections.abc import Mapping
from dataclasses import astuple, dataclass, replace
from importlib.metadata import distributions
from pathlib import Path

import pandas as pd
import torch
from torch import Tensor
from tqdm import tqdm

from cxr_helpers.command import parse, run_command
from cxr_helpers.config import RuntimeConfig
from cxr_helpers.environment import environment_record
from cxr_helpers.fields import Checked, declare
from cxr_helpers.loop.devices import make_fabric, mixed_precision
from cxr_helpers.writing import write_json, write_table

from .contenders import Build, Case, Step, augmentation, pretext, training

Tables = dict[tuple[str, str, int, int], pd.DataFrame]
FOLDER = Path(__file__).resolve().parents[1] / "results" / "benchmarks"
CPU_BATCH = {224: 16, 128: 32, 64: 64, 32: 32}  # images that train in a second or a few
TABLES, PAIR = ("training", "augmentation", "memory"), ("simclr", "vicreg")
PEERS = ("lightly", "kornia", "albumentations", "torchvision")


@dataclass(frozen=True, kw_only=True)
class Settings(Checked):
    """What is timed, how often and for how long."""

    only: str | None = declare(None, "which table; None times training and augmentation", choices=TABLES)
    rounds: int = declare(5, "turns of each contender", low=1)
    seconds: float = declare(6.0, "length of a turn, about; at least two steps", unit="s", low=0)
    methods: tuple[str, ...] = declare(PAIR, "methods of training and memory", choices=PAIR)
    sizes: tuple[int, ...] = declare(
        (224, 64, 32), "sides of training and memory; below 64 with CIFAR's stem and three channels", unit="px", low=1
    )
    batch: int | None = declare(None, "images of a batch; None takes 256, and fewer where a CPU is timed", low=1)
    threads: int | None = declare(None, "CPU threads; None leaves torch's choice", low=1)


def seconds_of(step: Step, steps: int, device: torch.device) -> float:
    """Duration of that many steps, the device's work included."""
    wait = torch.cuda.synchronize if device.type == "cuda" else lambda: None
    wait()
    begin = time.perf_counter()
    for _ in range(steps):
        step()
    wait()
    return time.perf_counter() - begin


def race(rows: Mapping[str, Build], images: int, settings: Settings, device: torch.device) -> pd.DataFrame:
    """Let the contenders take turns; `images` (or views) are dealt with in a step."""
    ready, steps = {}, {}
    for name, build in rows.items():
        try:
            ready[name] = build()
        except ImportError as error:
            print(f"{name} is left out: {error.name} is not installed (python -m pip install -e '.[bench]')")
            continue
        seconds_of(ready[name], 2, device)  # first calls allocate and choose kernels
        steps[name] = max(2, round(settings.seconds / seconds_of(ready[name], 1, device)))
    rounds = [
        {name: images * steps[name] / seconds_of(step, steps[name], device) for name, step in ready.items()}
        for _ in tqdm(range(settings.rounds))
    ]
    return table_of(pd.DataFrame(rounds)).assign(steps=list(steps.values()))


def table_of(rates: pd.DataFrame) -> pd.DataFrame:
    """By contender, of its rates [rounds, contenders] and of the first one's rate over its own: median and range."""
    ratios = rates.rdiv(rates.iloc[:, 0], axis=0)
    table = pd.concat([of.agg(["median", "min", "max"]).T for of in (rates, ratios)], axis=1)
    table.columns = pd.Index(["per_second", "slowest", "fastest", "ours_over_it", "ratio_low", "ratio_high"])
    return table.rename_axis("contender").reset_index().assign(rounds=len(rates))


def kept_bytes(case: Case, precision: str) -> int:
    """What autograd keeps for the backward pass of one batch, each storage once, parameters left out."""
    task = pretext(case, RuntimeConfig(device="cpu", precision=precision))
    kept: dict[int, Tensor] = {}  # by storage, and held: a freed one's address could come back

    def pack(tensor: Tensor) -> Tensor:
        kept.setdefault(tensor.untyped_storage().data_ptr(), tensor)
        return tensor

    batch = next(task.batches(0))
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        task.method.loss(task.model(batch))
    own = {parameter.untyped_storage().data_ptr() for parameter in task.method.parameters()}
    return sum(tensor.untyped_storage().nbytes() for place, tensor in kept.items() if place not in own)


def memory(case: Case, precision: str) -> pd.DataFrame:
    """GiB of a step by micro-batch: activations, and with weights, their gradients, AdamW's moments and the views.

    Two batches give the part that grows with the images of a pass and the part that does not (weights cast to bf16).
    A GPU needs its convolutions' workspace and its allocator's slack besides.
    """
    four, eight = (kept_bytes(replace(case, batch=batch), precision) for batch in (4, 8))
    model = pretext(replace(case, batch=4), RuntimeConfig(device="cpu")).method
    weights = 4 * sum(parameter.nbytes for parameter in model.parameters())
    views = 2 * case.batch * case.channels * case.size**2 * 4
    table = pd.DataFrame({"micro_batch": [case.batch // parts for parts in (1, 2, 4, 8)]})
    activations = four + (eight - four) / 4 * (table.micro_batch - 4)
    return table.assign(activations_gib=activations / 2**30, sum_gib=(activations + weights + views) / 2**30)


def keep(tables: Tables, what: str, name: str, device: torch.device, precision: str) -> None:
    """Print the tables as one, by `what`, method, size and batch, and write it with where it was taken beside it."""
    table = pd.concat(tables, names=[what, "method", "size", "batch"]).reset_index().drop(columns="level_4")
    print(table.to_string(index=False, float_format="%.3g"))
    record = {
        **environment_record(device, precision),
        "cores": os.cpu_count(),
        "peers": {found.name: found.version for found in distributions() if found.name in PEERS},
        "command": shlex.join(["python", "-m", "benchmarks.throughput", *sys.argv[1:]]),
    }
    FOLDER.mkdir(parents=True, exist_ok=True)
    write_table(FOLDER / f"{name}.csv", table)
    write_json(FOLDER / f"{name}.json", record)


def main(words: list[str]) -> None:
    """Take the table asked for, print and write it."""
    (settings,) = parse({Settings: ""}, words, program="throughput", description=__doc__)
    runtime = RuntimeConfig(progress=False, threads=settings.threads)
    fabric = make_fabric(runtime)
    device, precision = fabric.device, mixed_precision(fabric)
    batches = CPU_BATCH if device.type == "cpu" and settings.only != "memory" else {}
    pairs = itertools.product(settings.methods, settings.sizes)
    cases = [Case(method=method, size=size, batch=settings.batch or batches.get(size, 256)) for method, size in pairs]
    if settings.only == "memory":
        counted = {(kind, *astuple(case)): memory(case, kind) for kind in ("bf16-mixed", "32-true") for case in cases}
        return keep(counted, "precision", "memory", device, "both")
    tables: Tables = {}
    for case in cases if settings.only != "augmentation" else ():
        rows = training(case, runtime, device, precision)
        tables["training, images/s", *astuple(case)] = race(rows, case.batch, settings, device)
    if settings.only != "training":
        case = Case(size=224, batch=settings.batch or 2 * batches.get(224, 128))
        rows = augmentation(case, device)
        tables["augmentation, views/s", "", 224, case.batch] = race(rows, 2 * case.batch, settings, device)
    name = "-".join(filter(None, ["throughput", device.type, settings.only]))
    keep(tables, "what", name, device, precision)


if __name__ == "__main__":
    run_command("throughput", main)
