"""Stopping a run from outside: signals are noted, and acted on where nothing is half done."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from lightning_fabric import Fabric

from ..runs import StoppedError

__all__ = ["StopSignals"]

SIGNALS = (signal.SIGINT, signal.SIGTERM)


class StopSignals:
    """Within this context SIGINT and SIGTERM are noted, not acted on; a second one raises `StoppedError` at once.

    Handlers belong to the main thread: elsewhere nothing is installed, and a signal does there what it always did. One
    that was ignored before (`nohup`, a shell's background job) stays ignored.
    """

    def __init__(self) -> None:
        self.received: int | None = None
        self._before: dict[int, Any] = {}
        self._waits = True

    def __enter__(self) -> StopSignals:
        if threading.current_thread() is threading.main_thread():
            found = {number: signal.getsignal(number) for number in SIGNALS}
            self._before = {k: v for k, v in found.items() if v not in (None, signal.SIG_IGN)}  # None: set by C code
            for number in self._before:
                signal.signal(number, self._note)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _note(self, signum: int, frame: object) -> None:
        waits, self.received = self._waits and self.received is None, signum
        if not waits:
            raise StoppedError(signum)

    @contextmanager
    def at_once(self) -> Iterator[None]:
        """A stretch in which nothing changes, so that a signal (one noted before it, too) need not wait for its end."""
        if self.received is not None:
            raise StoppedError(self.received)
        try:
            self._waits = False
            yield
        finally:
            self._waits = True

    def asked(self, fabric: Fabric) -> int | None:
        """The signal that any process of the run has received, or None; every process gets the same answer.

        A collective call where there are several: each must make it at the same step, or the others would wait forever.
        """
        if fabric.world_size > 1:
            number = fabric.all_reduce(torch.tensor(self.received or 0, device=fabric.device), reduce_op="max")
            self.received = int(number) or None  # type: ignore[arg-type]
        return self.received
