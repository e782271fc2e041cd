"""Where a run is computed: on how many processes and which device, in the precision that the device does faster."""

from __future__ import annotations

import atexit
import logging
import os
from typing import Any

import torch
from lightning_fabric import Fabric
from lightning_fabric.plugins.environments import TorchElasticEnvironment

from ..config import RuntimeConfig

__all__ = ["make_fabric", "mixed_precision"]


def make_fabric(runtime: RuntimeConfig) -> Fabric:
    """Fabric on one device per process, its precision resolved; under torchrun one of all the processes it started.

    Raises:
        ValueError: the device asked for is not there, or processes were started by something else than torchrun.
    """
    processes, local = (int(os.environ.get(name, "1")) for name in ("WORLD_SIZE", "LOCAL_WORLD_SIZE"))
    missing = [v for v in ("RANK", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "MASTER_ADDR") if v not in os.environ]
    if processes > 1 and missing:
        raise ValueError(f"processes must be started by torchrun, got WORLD_SIZE {processes} without {missing[0]}")
    available = {"auto": True, "cpu": True, "cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    if not available[runtime.device]:
        raise ValueError(f"device must be one that this machine has, got {runtime.device!r}; use --device auto")
    if runtime.threads is not None:
        torch.set_num_threads(runtime.threads)
    logging.getLogger("lightning_fabric").setLevel(logging.WARNING)
    device = Fabric(accelerator=runtime.device, devices=1).device
    how: dict[str, Any] = {"accelerator": device.type, "precision": _precision(runtime.precision, device)}
    if processes > 1:
        how |= {"strategy": "ddp", "plugins": [TorchElasticEnvironment()], "num_nodes": processes // local}
    fabric = Fabric(devices=local if processes > 1 else 1, **how)
    fabric.launch()
    if processes > 1:  # without it, one of several on CPUs now and then aborts at its end
        atexit.register(lambda: torch.distributed.is_initialized() and torch.distributed.destroy_process_group())
    return fabric


def _precision(wanted: str, device: torch.device) -> str:
    """bf16 autocast where the device multiplies bf16 faster than float32."""
    fast = False
    if device.type == "cuda":
        fast = torch.cuda.is_bf16_supported(including_emulation=False)
    if device.type == "cpu" and torch.backends.mkldnn.is_available():
        fast = torch.ops.mkldnn._is_mkldnn_bf16_supported()
    return wanted if wanted != "auto" else "bf16-mixed" if fast else "32-true"


def mixed_precision(fabric: Fabric) -> str:
    """The precision of evaluation under this Fabric: that of training."""
    return "bf16-mixed" if fabric.strategy.precision.precision == "bf16-mixed" else "32-true"
