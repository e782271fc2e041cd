"""Signals are noted and acted on where nothing is half done; what was there before is put back."""

from __future__ import annotations

import os
import signal
import threading
from types import SimpleNamespace
from typing import Any

import pytest

from cxr_helpers.loop.interrupts import SIGNALS, StoppedError, StopSignals

ALONE: Any = SimpleNamespace(world_size=1)  # a Fabric of one process


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_is_noted_and_a_second_one_acts_at_once(number: signal.Signals, status: int) -> None:
    before = [signal.signal(signal.SIGTERM, lambda *_: None), *map(signal.getsignal, SIGNALS)]
    try:
        with StopSignals() as stop:
            assert stop.asked(ALONE) is None
            signal.raise_signal(number)
            assert stop.asked(ALONE) == number
            with pytest.raises(StoppedError, match=f"stopped by {number.name}") as caught:
                signal.raise_signal(number)
        assert caught.value.status == status and isinstance(caught.value, KeyboardInterrupt)
        assert list(map(signal.getsignal, SIGNALS)) == before[1:]
    finally:
        signal.signal(signal.SIGTERM, before[0])


def test_where_nothing_changes_a_signal_acts_at_once_even_one_noted_before() -> None:
    with StopSignals() as stop:
        with pytest.raises(StoppedError), stop.at_once():
            signal.raise_signal(signal.SIGINT)
        with pytest.raises(StoppedError), stop.at_once():
            raise AssertionError("begun although a signal was noted")
    with StopSignals() as stop:
        with stop.at_once():
            pass
        signal.raise_signal(signal.SIGINT)
        assert stop.asked(ALONE) == signal.SIGINT


def test_an_ignored_signal_stays_ignored() -> None:
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with StopSignals() as stop:
            signal.raise_signal(signal.SIGINT)
            assert stop.received is None
        assert signal.getsignal(signal.SIGINT) == signal.SIG_IGN
    finally:
        signal.signal(signal.SIGINT, before)


def test_a_thread_other_than_the_main_one_installs_nothing() -> None:
    seen = []

    def inside() -> None:
        with StopSignals():
            seen.extend(map(signal.getsignal, SIGNALS))

    before = list(map(signal.getsignal, SIGNALS))
    thread = threading.Thread(target=inside)
    thread.start()
    thread.join()
    assert seen == before


def test_sigterm_still_ends_a_process_that_has_no_plans_of_its_own() -> None:
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
            with StopSignals():
                signal.raise_signal(signal.SIGTERM)
                os.write(write, b"saved")
            os.write(write, b" and went on")
        finally:
            os._exit(0)
    os.close(write)
    status = os.waitpid(child, 0)[1]
    assert os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGTERM
    assert os.read(read, 100) == b"saved"
    os.close(read)
