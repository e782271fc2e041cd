"""What a fault is and how it is registered."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

Try = Callable[[Path, int], None]


class Fault(NamedTuple):
    """One way in which things go wrong: `run(folder, seed)` causes it and raises if something was lost.

    Args:
        category: the part of the project that must stand it.
        tries: in `make faults`. quick: how many of these in `make test`; with 0, all are slow tests.
    """

    run: Try
    name: str
    category: str
    tries: int
    quick: int = 1


FAULTS: list[Fault] = []


def fault(name: str, category: str, tries: int, quick: int = 1) -> Callable[[Try], None]:
    """Register a function `(folder, seed) -> None` as a fault."""
    return lambda run: FAULTS.append(Fault(run, name, category, tries, quick))
