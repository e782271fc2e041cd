"""What a fault is and how it is registered."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

Try = Callable[[Path, int], None]


@dataclass(frozen=True, kw_only=True)
class Fault:
    """One way in which things go wrong.

    Args:
        name: what goes wrong. category: the part of the project that must stand it.
        tries: in `make faults`. quick: how many of these in `make test`; with 0, all are slow tests.
        run: one try: given an empty folder and the number of the try (a seed), it causes the fault and raises
            (an assertion, or anything else) if something was lost.
    """

    name: str
    category: str
    tries: int
    quick: int = 1
    run: Try


FAULTS: list[Fault] = []


def fault(name: str, **options: object) -> Callable[[Try], Try]:
    """Register a function `(folder, seed) -> None` as a fault; the options are `Fault`'s."""

    def register(run: Try) -> Try:
        FAULTS.append(Fault(name=name, run=run, **options))  # type: ignore[arg-type]
        return run

    return register
