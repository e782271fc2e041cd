"""Where a run is computed: its processes, its device and precision, and the memory its images lie in."""

from __future__ import annotations

import atexit
import logging
import os

import torch
from lightning_fabric import Fabric
from lightning_fabric.plugins.environments import TorchElasticEnvironment
from torch import Tensor

from ..config import RuntimeConfig

__all__ = ["make_fabric", "mixed_precision", "place_images"]

SHARE = 0.5  # of the device's free memory, for the images; the rest is for the model and its activations


def make_fabric(runtime: RuntimeConfig) -> Fabric:
    """Fabric on one device per process, its precision resolved; under torchrun one of all the processes it started.

    Raises:
        ValueError: the device asked for is not there, or processes were started by something else than torchrun.
    """
    processes, local = (int(os.environ.get(name, "1")) for name in ("WORLD_SIZE", "LOCAL_WORLD_SIZE"))
    if processes > 1 and not TorchElasticEnvironment.detect():
        raise ValueError(f"processes must be started by torchrun, got WORLD_SIZE {processes} without it")
    available = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    if not available.get(runtime.device, True):
        raise ValueError(f"device must be one that this machine has, got {runtime.device!r}; use --device auto")
    cores = os.cpu_count() or 1
    if (runtime.threads or 1) > cores:
        raise ValueError(f"threads must be at most the {cores} cores of this machine, got {runtime.threads}")
    if runtime.threads is not None:
        torch.set_num_threads(runtime.threads)
    logging.getLogger("lightning_fabric").setLevel(logging.WARNING)
    device = Fabric(accelerator=runtime.device, devices=1).device
    fabric = Fabric(
        accelerator=device.type,
        precision=_precision(runtime.precision, device),  # type: ignore[arg-type]
        devices=local,
        num_nodes=processes // local,
        strategy="ddp" if processes > 1 else "auto",
        plugins=[TorchElasticEnvironment()] if processes > 1 else None,
    )
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


def place_images(images: Tensor, device: torch.device, limit_gib: float | None = None) -> Tensor:
    """A split's images, uint8 [N, C, S, S], in the device's memory if they fit, else where they are.

    Args:
        limit_gib: most memory of the device that they may take, in GiB; None takes half of what is free.
    """
    free = torch.cuda.mem_get_info(device)[0] if device.type == "cuda" else float("inf")  # else it is the host's
    limit = SHARE * free if limit_gib is None else limit_gib * 2**30
    return images.to(device) if images.nbytes <= limit else images
