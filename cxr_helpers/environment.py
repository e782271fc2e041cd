"""What a reader needs to judge and repeat a figure: versions, machine, commit, time."""

from __future__ import annotations

import platform
import subprocess
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import torch

__all__ = ["commit_record", "environment_record", "now"]


def _git(*arguments: str) -> str:
    try:
        folder = Path(__file__).resolve().parent
        done = subprocess.run(["git", *arguments], cwd=folder, capture_output=True, text=True, timeout=10, check=True)
        return done.stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return ""


def _processor() -> str:
    """The processor's marketing name; where the kernel hides it, the architecture."""
    info = Path("/proc/cpuinfo")  # Linux alone has it
    lines = info.read_text().splitlines() if info.is_file() else []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def commit_record() -> dict[str, Any]:
    """The commit of the package's checkout and whether its code differed from it."""
    return {
        "commit": _git("rev-parse", "HEAD") or "unknown",
        "dirty": bool(_git("status", "--porcelain", "--untracked-files=no", "--", ":/cxr_helpers", ":/train.py")),
    }


def now() -> str:
    """The time in UTC to the second, ISO 8601."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def environment_record(device: torch.device, precision: str) -> dict[str, Any]:
    """What a reader needs to judge and repeat a run's figures: versions, machine, threads, commit, start."""
    import lightning_fabric
    import torch
    import torchvision

    name = torch.cuda.get_device_name(device) if device.type == "cuda" else _processor()
    return {
        "device": device.type,
        "device_name": name,
        "cpu_capability": torch.backends.cpu.get_cpu_capability(),
        "threads": torch.get_num_threads(),
        "precision": precision,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "torchvision": torchvision.__version__,
        "lightning_fabric": lightning_fabric.__version__,
        "numpy": np.__version__,
        "system": f"{platform.system()} {platform.machine()}",
        **commit_record(),
        "started": now(),
    }
