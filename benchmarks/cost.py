"""What a run costs: memory of a step by batch, image size and micro-batch, and the hours of a large study.

    python -m benchmarks.cost                          # counts what autograd keeps; no accelerator needed
    python -m benchmarks.cost --images 1000000 --rate 2500 --gpus 8 --epochs 100

Activations are counted, not guessed: every tensor that autograd keeps for the backward pass of one CPU step, each
storage once, parameters left out. Two batch sizes give the part that grows with the images of a pass and the part that
does not (weights cast to bf16). A GPU needs its convolutions' workspace, the gradients under way and its allocator's
slack besides; where there is one, the peak is measured, too.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pandas as pd
import torch
import tyro
from torch import Tensor

from cxr_helpers.config import PretrainConfig, RuntimeConfig
from cxr_helpers.environment import environment_record
from cxr_helpers.pretrain import Pretext
from cxr_helpers.recipes import resolve

from .contenders import POLICY, Case, dataset_of
from .throughput import keep

GIB, MIB = 2**30, 2**20
HEAD = {"simclr": {}, "vicreg": {"hidden_dim": 1024, "output_dim": 64}}


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What is counted, and the study whose hours are estimated."""

    sizes: tuple[int, ...] = (224, 64, 32)
    """Sides in px."""
    batch: int = 256
    """Images of a batch in the table."""
    micro_batches: tuple[int, ...] = (128, 64, 32)
    """Images of one pass."""
    images: int = 1_000_000
    """Images of the large study."""
    size: int = 224
    """Their side in px."""
    epochs: int = 100
    """Its epochs."""
    gpus: int = 8
    """Its GPUs."""
    rate: float | None = None
    """Images per second of one GPU, two views each; None leaves the hours open."""
    efficiency: float = 0.9
    """Share of that rate that is left of each GPU beside the others, an assumption."""


class _Counter:
    """Counts the storages that autograd keeps, once each."""

    def __init__(self, model: torch.nn.Module) -> None:
        self.known = {p.untyped_storage().data_ptr() for p in model.parameters()}
        self.bytes = 0
        self.alive: list[Tensor] = []  # a freed storage's address could come back

    def pack(self, tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in self.known:
            self.known.add(storage.data_ptr())
            self.alive.append(tensor)
            self.bytes += storage.nbytes()
        return tensor


def training_of(case: Case, method: str, runtime: RuntimeConfig) -> Pretext:
    """A run on random images, ready for its first step."""
    options = HEAD[method]
    config = PretrainConfig(
        dataset="benchmark",
        size=case.size,
        method=method,
        policy=POLICY,
        batch_size=case.batch,
        epochs=1,
        options=options,
    )
    return Pretext(resolve(config), dataset_of(case, case.batch), runtime)


def kept_bytes(case: Case, method: str, precision: str) -> int:
    """Bytes that autograd keeps for the backward pass of one whole batch, counted on the CPU."""
    training = training_of(case, method, RuntimeConfig(device="cpu", precision=precision, progress=False))
    training.method.train()
    batch = next(training.batches(0))
    counter = _Counter(training.method)
    with torch.autograd.graph.saved_tensors_hooks(counter.pack, lambda kept: kept):
        terms = training.method.loss(training.model(batch))
    assert terms["loss"].requires_grad
    return counter.bytes


def fixed_bytes(case: Case, method: str) -> int:
    """Weights, their gradients and AdamW's two moments, in float32."""
    training = training_of(case, method, RuntimeConfig(device="cpu", progress=False))
    return sum(4 * p.nbytes for p in training.method.parameters())


def memory_table(settings: Settings, precision: str) -> pd.DataFrame:
    """Activations, weights and views of one step, by side, method and micro-batch, in GiB."""
    rows: list[dict[str, Any]] = []
    for size in settings.sizes:
        channels = 3 if size < 64 else 1
        small, twice = (Case(size=size, channels=channels, batch=b) for b in (4, 8))
        for method in HEAD:
            one, two = kept_bytes(small, method, precision), kept_bytes(twice, method, precision)
            per_image = (two - one) / 4
            constant = one - 4 * per_image
            fixed = fixed_bytes(small, method)
            views = 2 * settings.batch * channels * size**2 * 4
            for passed in (settings.batch, *settings.micro_batches):
                rows.append(
                    {
                        "size": size,
                        "method": method,
                        "precision": precision,
                        "batch": settings.batch,
                        "micro_batch": passed,
                        "mib_per_image": per_image / MIB,
                        "constant_mib": constant / MIB,
                        "activations_gib": per_image * passed / GIB,
                        "weights_gib": fixed / GIB,
                        "views_gib": views / GIB,
                        "sum_gib": (per_image * passed + constant + fixed + views) / GIB,
                        "measured_gib": measured_peak(size, channels, method, settings.batch, passed),
                    }
                )
    return pd.DataFrame(rows)


def measured_peak(size: int, channels: int, method: str, batch: int, micro_batch: int) -> float:
    """Peak memory of two steps on a CUDA device in GiB, nan without one."""
    if not torch.cuda.is_available():
        return float("nan")
    runtime = RuntimeConfig(device="cuda", progress=False, micro_batch=micro_batch)
    training = training_of(Case(size=size, channels=channels, batch=batch), method, runtime)
    training.method.train()
    torch.cuda.reset_peak_memory_stats()
    ready = next(training.batches(0))
    for _ in range(2):
        training.step(ready, 1)
    return torch.cuda.max_memory_allocated() / GIB


def estimate(settings: Settings) -> str:
    """The arithmetic of the large study, line by line."""
    stored = settings.images * settings.size**2
    draws = settings.images * 2 * 40 * 4
    seen = settings.images * settings.epochs
    lines = [
        f"images in memory: {settings.images:,} x {settings.size}^2 bytes = {stored / GIB:.1f} GiB, in every process",
        f"draws of an epoch: {settings.images:,} x 2 views x 40 x 4 bytes = {draws / GIB:.2f} GiB, in every process",
        f"images seen: {settings.images:,} x {settings.epochs} = {seen:,}",
    ]
    if settings.rate is None:
        lines.append("hours: images seen / (GPUs x images per second of one x efficiency); pass --rate")
    else:
        together = settings.gpus * settings.rate * settings.efficiency
        hours = seen / together / 3600
        lines.append(
            f"hours: {seen:,} / ({settings.gpus} x {settings.rate:g}/s x {settings.efficiency:g}) / 3600 = {hours:.2f}"
        )
    return "\n".join(lines)


def main(settings: Settings) -> None:
    """Print and write the memory table, print the estimate."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    tables = [memory_table(settings, precision) for precision in ("bf16-mixed", "32-true")]
    keep(tables, "memory", environment_record(device, "both"))
    print(estimate(settings))


if __name__ == "__main__":
    main(tyro.cli(Settings, description=__doc__))
