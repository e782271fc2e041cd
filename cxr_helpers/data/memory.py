"""Memory needed against memory there: a data set that does not fit is refused before the first byte of it is read."""

from __future__ import annotations

__all__ = ["available_bytes", "require_memory"]

import os
import re
from pathlib import Path

MEMINFO = Path("/proc/meminfo")
LIMITS = (  # of a container: what it may use and what it uses, control groups version 2, then 1
    (Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory.current"), Path("/sys/fs/cgroup/memory.stat")),
    (
        Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"),
        Path("/sys/fs/cgroup/memory/memory.usage_in_bytes"),
        Path("/sys/fs/cgroup/memory/memory.stat"),
    ),
)
CACHE = re.compile(r"^(?:total_)?inactive_file (\d+)$", re.MULTILINE)  # of files: given back when memory is wanted


def available_bytes() -> int | None:
    """Memory that a process may still take without swapping, by the machine and by its container; None if unknown."""
    found = [_machine_bytes(), *(_container_bytes(*files) for files in LIMITS)]
    known = [count for count in found if count is not None]
    return min(known) if known else None


def _machine_bytes() -> int | None:
    said = re.search(r"^MemAvailable:\s+(\d+) kB$", MEMINFO.read_text(), re.MULTILINE) if MEMINFO.is_file() else None
    if said:
        return int(said[1]) * 1024
    try:  # not Linux: all the memory there is, where that is known
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (OSError, ValueError, AttributeError):
        return None


def _container_bytes(limit: Path, usage: Path, stat: Path) -> int | None:
    try:
        most, used = int(limit.read_text()), int(usage.read_text())  # "max" is no number: no limit
        cache = CACHE.search(stat.read_text())
    except (OSError, ValueError):
        return None
    return max(0, most - used + (int(cache[1]) if cache else 0))


def require_memory(what: str, needed: int, way_out: str) -> None:
    """Refuse what does not fit.

    Args:
        what: the subject of the sentence, e.g. "images of chestmnist_224.npz".
        needed: bytes at the worst moment.
        way_out: how to need less, as the sentence's end.

    Raises:
        ValueError: fewer bytes are available.
    """
    there = available_bytes()
    if there is not None and needed > there:
        raise ValueError(
            f"{what} must fit into memory, got {_text(needed)} needed and {_text(there)} available: {way_out}"
        )


def _text(count: int) -> str:
    for unit, size in (("TB", 10**12), ("GB", 10**9), ("MB", 10**6)):
        if count >= size:
            return f"{count / size:.3g} {unit}"
    return f"{count / 1e3:.3g} kB"
