"""Checkpoints of unfinished runs: written beside the last one, verified, then put in its place; read back or refused.

    checkpoint.pt            the latest
    checkpoint.previous.pt   the one before it, taken where the latest is damaged or was not finished

A file is torch's own (tensors and plain values, read without running code) and a last line with its SHA-256: torch
itself would notice a file cut short, but not one changed byte.
"""

from __future__ import annotations

import hashlib
import io
import os
import pickle
import time
import warnings
import zipfile
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch

from ..runs import Run, RunWarning, whole_file

__all__ = ["Keeper", "discard_checkpoints", "load_checkpoint", "save_checkpoint"]

LATEST, PREVIOUS = "checkpoint.pt", "checkpoint.previous.pt"
SEAL = b"\nsha256:"
SEAL_BYTES = len(SEAL) + 64
REQUIRED = ("method", "optimizer", "probe", "rows", "sessions")  # what the first format had, and every later one has
MOST_SHARE = 0.05  # of the time may go into checkpoints: after one that took 1 s, the next comes 20 s later
MOST_SECONDS = 600.0  # of training that a kill may cost where an epoch is longer than that


class DamagedError(ValueError):
    """A file that is no whole checkpoint."""


def save_checkpoint(run: Run, state: Mapping[str, Any]) -> None:
    """Write a run's latest checkpoint; the one before it is kept until the next is written and verified.

    Verified means read back from the file system and compared by SHA-256, not by its meaning: for a ResNet-18's 140 MB
    0.1 to 0.4 s, a fraction of writing them.

    Raises:
        OSError: it cannot be written, or does not read back as written; the one before it is still there.
    """
    buffer = io.BytesIO()
    torch.save(dict(state), buffer)
    content = buffer.getbuffer()
    digest = hashlib.sha256(content).hexdigest()
    latest = run.path / LATEST
    if latest.is_file():
        os.replace(latest, run.path / PREVIOUS)  # never more than two on the disk, one of them verified
    with whole_file(latest) as handle:
        handle.write(content)
        handle.write(SEAL + digest.encode())
        handle.flush()
        _verify(Path(handle.name), len(content), digest)


def _verify(file: Path, size: int, digest: str) -> None:
    found = hashlib.sha256()
    with open(file, "rb") as handle:
        left = size
        while block := handle.read(min(left, 1 << 20)):
            found.update(block)
            left -= len(block)
        sealed = handle.read() == SEAL + digest.encode()
    if left or found.hexdigest() != digest or not sealed:
        raise OSError("it does not read back as it was written")


def load_checkpoint(run: Run) -> dict[str, Any] | None:
    """The latest whole checkpoint of a run, or None. Only tensors and plain values are read, no code.

    A damaged latest one is removed and the one before it taken, with a warning that names the file.

    Raises:
        ValueError: no file is whole, or one holds more than tensors and plain values, or another thing.
    """
    damaged: list[str] = []
    for name in (LATEST, PREVIOUS):
        file = run.path / name
        if not file.is_file():
            continue
        try:
            state = _read(file)
        except DamagedError as error:
            damaged.append(f"{file} must be a checkpoint of this run ({error})")
            continue
        if damaged:
            warnings.warn(f"{damaged[0]}; going on from the one before it, {name}", RunWarning, stacklevel=2)
            (run.path / LATEST).unlink(missing_ok=True)  # else the next save would put it in the whole one's place
        return state
    if damaged:
        raise ValueError(f"{damaged[0]}; start again with --fresh")
    return None


def _read(file: Path) -> dict[str, Any]:
    try:
        content = file.read_bytes()
    except OSError as error:
        raise DamagedError(f"it cannot be read: {error.strerror or error}") from None
    seal = content[-SEAL_BYTES:]
    if seal.startswith(SEAL):
        content = content[:-SEAL_BYTES]
        if hashlib.sha256(content).hexdigest() != seal[len(SEAL) :].decode("ascii", "replace"):
            raise DamagedError("its bytes are not those that were written")
    if not zipfile.is_zipfile(io.BytesIO(content)):
        raise DamagedError("it is cut short or no file of torch's")
    try:
        state = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise _refusal(file, "it holds more than tensors and plain values") from error
    except Exception as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise DamagedError(reason) from None
    missing = [name for name in REQUIRED if not isinstance(state, dict) or name not in state]
    if missing:
        raise _refusal(file, f"it lacks {', '.join(missing)}")
    return state


def _refusal(file: Path, reason: str) -> ValueError:
    return ValueError(f"{file} must be a checkpoint of this run ({reason}); start again with --fresh")


def discard_checkpoints(run: Run) -> None:
    """Remove the checkpoints of a finished run; in a folder that cannot be written they stay."""
    for file in run.path.glob("checkpoint*"):
        with suppress(OSError):
            file.unlink()


class Keeper:
    """Writes the checkpoints of one sitting: often enough to lose little, seldom enough to cost little.

    Epochs of a second would be slowed down by 140 MB each; resuming repeats what a checkpoint lacks bit for bit, so
    that fewer checkpoints cost time after a kill and nothing else.

    Args:
        writes: False for processes that leave writing to another.
    """

    def __init__(self, run: Run, *, writes: bool = True) -> None:
        self.run, self.writes = run, writes
        self.ended = time.perf_counter()  # of the last one; not the time of day, which may be set back
        self.cost = 0.0  # seconds that the last one took
        self.kept: tuple[int, int] | None = None  # epochs and steps done at the last one

    def due(self, *, within_epoch: bool) -> bool:
        """Whether it is time for one, at an epoch's end or within an epoch."""
        wait = self.cost / MOST_SHARE
        return time.perf_counter() - self.ended >= (max(wait, MOST_SECONDS) if within_epoch else wait)

    def save(self, state: Mapping[str, Any], kept: tuple[int, int]) -> None:
        """Write one.

        Args:
            kept: whole epochs done, and steps done of the next one.
        """
        begin = time.perf_counter()
        if self.writes:
            save_checkpoint(self.run, state)
        self.ended = time.perf_counter()
        self.cost, self.kept = self.ended - begin, kept

    def kept_text(self) -> str:
        """What is kept, as the end of a sentence."""
        if self.kept is None or self.kept == (0, 0):
            return "nothing was kept"
        epochs, steps = self.kept
        return f"the checkpoint of {f'step {steps} of epoch {epochs + 1}' if steps else f'epoch {epochs}'} is kept"
