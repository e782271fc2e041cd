"""A run whose steps two processes share: `torchrun --nproc-per-node 2 tests/shares.py FOLDER` writes what they did."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import torch
from conftest import TinyNet, texture_config, texture_dataset
from lightning_fabric import Fabric
from torch import Tensor, nn

from cxr_helpers.config import RuntimeConfig
from cxr_helpers.loop import devices, loop
from cxr_helpers.models import resnet
from cxr_helpers.recipes import resolve

METHODS = {"simclr": None, "vicreg": 3}


def in_float64(fabric: Fabric) -> Fabric:
    """Fabric's `64-true` without its cast of a network's outputs to float32."""
    fabric.strategy.precision.convert_output = lambda data: data  # type: ignore[method-assign]
    return fabric


def frozen_training(method: str, micro_batch: int | None) -> loop.Training:
    """A run in float64 whose BatchNorm layers stay at their initial statistics; no pixel noise.

    SGD: AdamW divides tiny gradients by their own size and so magnifies the rounding of sums in another order.
    """
    usual, devices._precision = devices._precision, lambda *_: "64-true"
    try:
        config = resolve(texture_config(method=method, optimizer="sgd", lr=0.3, policy_changes={"noise_prob": 0.0}))
        runtime = RuntimeConfig(device="cpu", threads=1, micro_batch=micro_batch, progress=False)
        training = loop.build_training(config, texture_dataset(), runtime)
    finally:
        devices._precision = usual
    in_float64(training.fabric)
    object.__setattr__(training.method, "train", lambda mode=True: nn.Module.train(training.method, False))
    return training


def weights_of(training: loop.Training) -> dict[str, Tensor]:
    """The method's parameters and buffers, copied."""
    return {name: value.clone() for name, value in training.method.state_dict().items()}


def main(folder: Path) -> None:
    """One epoch of each method, its state written by the first process."""
    resnet.BUILDERS["resnet18"] = TinyNet
    for method, micro_batch in METHODS.items():
        training = frozen_training(method, micro_batch)
        row = loop.train_epoch(training, 0, loop.tqdm(disable=True))
        state: dict[str, Any] = {
            **{key: row[key] for key in ("loss", "online_loss")},
            **{key: getattr(training, key).state_dict() for key in ("method", "optimizer", "probe")},
            "world_size": training.fabric.world_size,
        }
        if training.writes:
            torch.save(state, folder / f"{method}.pt")
        training.fabric.barrier()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
