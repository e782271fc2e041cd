"""What a reader needs to judge and repeat a figure: versions, machine, commit, time."""

from __future__ import annotations

import platform
import subprocess
from datetime import UTC, datetime
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch

__all__ = ["commit_record", "environment_record", "now"]


def _git(*arguments: str) -> str:
    command = ["git", "-C", str(Path(__file__).parent), *arguments]
    try:
        return subprocess.check_output(command, stderr=subprocess.DEVNULL, text=True, timeout=10).strip()
    except (OSError, subprocess.SubprocessError):  # no git, or no checkout
        return ""


def _processor() -> str:
    """The processor's marketing name; where the kernel hides it, the architecture."""
    info = Path("/proc/cpuinfo")  # Linux alone has it
    lines = info.read_text().splitlines() if info.is_file() else []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def commit_record() -> dict[str, Any]:
    """The commit of the package's checkout and whether its code differed from it."""
    changed = _git("status", "--porcelain", "--untracked-files=no", "--", ":/cxr_helpers", ":/train.py")
    return {"commit": _git("rev-parse", "HEAD") or "unknown", "dirty": bool(changed)}


def now() -> str:
    """The time in UTC to the second, ISO 8601."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def environment_record(device: torch.device, precision: str) -> dict[str, Any]:
    """Versions, machine, threads, commit and start of a run."""
    import torch

    return {
        "device": device.type,
        "device_name": torch.cuda.get_device_name(device) if device.type == "cuda" else _processor(),
        "cpu_capability": torch.backends.cpu.get_cpu_capability(),
        "threads": torch.get_num_threads(),
        "precision": precision,
        "python": platform.python_version(),
        **{name: import_module(name).__version__ for name in ("torch", "torchvision", "lightning_fabric", "numpy")},
        "system": f"{platform.system()} {platform.machine()}",
        **commit_record(),
        "started": now(),
    }
