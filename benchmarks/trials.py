"""What pays in the step itself: variations of one training step, side by side in one run.

    python -m benchmarks.trials --sizes 64

Each row changes one thing of the step that `train.py` takes; `NOTES.md` holds what was expected of it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
import tyro

from cxr_helpers.config import RuntimeConfig
from cxr_helpers.loop.devices import make_fabric, mixed_precision
from cxr_helpers.pretrain import Pretext

from . import contenders
from .throughput import Contender, Settings, cases, keep, machine, race, table_of


def contiguous(training: Pretext) -> None:
    """Weights in torch's default layout, channels first."""
    training.method.to(memory_format=torch.contiguous_format)  # type: ignore[call-overload]


def optimizer_of(**options: Any) -> Callable[[Pretext], None]:
    """AdamW with another implementation."""

    def change(training: Pretext) -> None:
        for group in training.optimizer.param_groups:
            group |= options

    return change


def rows_for(case: contenders.Case, runtime: RuntimeConfig, precision: str) -> list[Contender]:
    """The step as it is, then each variation."""
    other = "32-true" if precision == "bf16-mixed" else "bf16-mixed"
    variations: list[tuple[str, RuntimeConfig, Callable[[Pretext], None] | None]] = [
        ("as it is: channels_last, foreach AdamW", runtime, None),
        ("channels first", runtime, contiguous),
        ("AdamW, a loop over tensors", runtime, optimizer_of(foreach=False)),
        ("AdamW, fused", runtime, optimizer_of(foreach=False, fused=True)),
        ("backbone compiled", replace(runtime, compile=True), None),
        (other, replace(runtime, precision=other), None),
        ("micro-batches of half the batch", replace(runtime, micro_batch=case.batch // 2), None),
        ("images copied a batch ahead", replace(runtime, images_gib=0.0), None),
    ]
    return [Contender(name=name, build=_build(case, changed, change)) for name, changed, change in variations]


def _build(
    case: contenders.Case, runtime: RuntimeConfig, change: Callable[[Pretext], None] | None
) -> Callable[[], Callable[[int], int]]:
    return lambda: contenders.ours(case, runtime, change)


def main(settings: Settings) -> None:
    """Time the variations, print the table and write it with the machine it was taken on."""
    runtime = RuntimeConfig(progress=False, threads=settings.threads)
    fabric = make_fabric(runtime)
    device, precision = fabric.device, mixed_precision(fabric)
    tables = []
    for case in cases(device, settings.sizes):
        rows = rows_for(case, runtime, precision)
        race(rows, settings, device, f"variations, {case.size} px")
        tables.append(table_of(rows, what="training, images/s", size=case.size, batch=case.batch))
    keep(tables, f"trials-{device.type}", machine(device, precision, settings, "trials"))


if __name__ == "__main__":
    main(tyro.cli(Settings, description=__doc__))
