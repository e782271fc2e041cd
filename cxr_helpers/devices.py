"""Where a run is computed: one process on one device, in the precision that the device does faster."""

from __future__ import annotations

import logging
import os

import torch
from lightning_fabric import Fabric

from .config import RuntimeConfig

__all__ = ["make_fabric", "mixed_precision"]


def make_fabric(runtime: RuntimeConfig) -> Fabric:
    """Fabric for one process on one device, its precision resolved.

    Raises:
        ValueError: the device asked for is not there, or more than one process was started.
    """
    processes = int(os.environ.get("WORLD_SIZE", "1"))  # torchrun's; Fabric of one device would not look at it
    if processes != 1:
        raise ValueError(f"the number of processes must be 1, got {processes}; start one with --nproc-per-node 1")
    available = {"auto": True, "cpu": True, "cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    if not available[runtime.device]:
        raise ValueError(f"device must be one that this machine has, got {runtime.device!r}; use --device auto")
    if runtime.threads is not None:
        torch.set_num_threads(runtime.threads)
    logging.getLogger("lightning_fabric").setLevel(logging.WARNING)
    device = Fabric(accelerator=runtime.device, devices=1).device
    fabric = Fabric(accelerator=runtime.device, devices=1, precision=_precision(runtime.precision, device))  # type: ignore[arg-type]
    fabric.launch()
    return fabric


def _precision(wanted: str, device: torch.device) -> str:
    """bf16 autocast where the device multiplies bf16 faster than float32."""
    if wanted != "auto":
        return wanted
    if device.type == "cuda":
        return "bf16-mixed" if torch.cuda.is_bf16_supported(including_emulation=False) else "32-true"
    if device.type == "cpu" and torch.backends.mkldnn.is_available():
        return "bf16-mixed" if torch.ops.mkldnn._is_mkldnn_bf16_supported() else "32-true"
    return "32-true"


def mixed_precision(fabric: Fabric) -> str:
    """The precision of evaluation under this Fabric: that of training."""
    return "bf16-mixed" if fabric.strategy.precision.precision == "bf16-mixed" else "32-true"
