"""What a fault is, how it is registered, and how its tries are counted."""

from __future__ import annotations

import signal
import tempfile
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType

__all__ = ["FAULTS", "Fault", "Tally", "campaign", "fault", "markdown", "try_once"]

Try = Callable[[Path, int], None]
MOST_SECONDS = 600.0  # of one try: a hang is a loss, too


@dataclass(frozen=True, kw_only=True)
class Fault:
    """One way in which things go wrong.

    Args:
        name: what goes wrong, as the table's row says it.
        category: the part of the project that must stand it; faults of one category stand together.
        tries: in the full campaign (`make faults`).
        quick: of these, in `make test`; 0 leaves the fault to the full campaign.
        run: one try: given an empty folder and the number of the try (a seed), it causes the fault and raises
            (an assertion, or anything else) if something was lost.
        most_seconds: after which a try counts as lost.
    """

    name: str
    category: str
    tries: int
    quick: int
    run: Try
    most_seconds: float = MOST_SECONDS


FAULTS: list[Fault] = []


def fault(name: str, *, category: str, tries: int, quick: int = 1, most_seconds: float = MOST_SECONDS) -> Callable:
    """Register a function `(folder, seed) -> None` as a fault; the arguments are `Fault`'s."""

    def register(run: Try) -> Try:
        if any(name == other.name for other in FAULTS):
            raise ValueError(f"a fault's name must be its own, got {name!r} twice")
        if not 0 <= quick <= tries or tries < 1:
            raise ValueError(f"tries of {name!r} must be at least 1, quick ones among them, got {tries} and {quick}")
        FAULTS.append(Fault(name=name, category=category, tries=tries, quick=quick, run=run, most_seconds=most_seconds))
        return run

    return register


@contextmanager
def _limit(seconds: float) -> Iterator[None]:
    """Raise TimeoutError in the main thread when the time is up (elsewhere there are no alarms: no limit)."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def expire(signum: int, frame: FrameType | None) -> None:
        raise TimeoutError(f"still not done after {seconds:g} s")

    before = signal.signal(signal.SIGALRM, expire)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def try_once(item: Fault, seed: int) -> str | None:
    """Cause a fault once in a fresh folder; None where it was survived, else what was lost."""
    with tempfile.TemporaryDirectory(prefix="fault-", ignore_cleanup_errors=True) as folder:
        try:
            with _limit(item.most_seconds):
                item.run(Path(folder), seed)
        except Exception as error:
            said = (str(error).strip().splitlines() or [""])[0]
            return f"try {seed}: {type(error).__name__}: {said}"[:300]
    return None


@dataclass(frozen=True, kw_only=True)
class Tally:
    """What came of the tries of one fault."""

    fault: Fault
    tries: int
    losses: list[str] = field(default_factory=list)

    @property
    def lost(self) -> int:
        """Tries in which something was lost."""
        return len(self.losses)

    @property
    def survived(self) -> int:
        """Tries in which nothing was."""
        return self.tries - self.lost


def campaign(faults: Iterable[Fault], *, quick: bool = False) -> Iterator[Tally]:
    """Run every try of every fault, one tally at a time; a loss stops nothing."""
    for item in faults:
        tries = item.quick if quick else item.tries
        if tries:
            outcomes = [try_once(item, seed) for seed in range(tries)]
            yield Tally(fault=item, tries=tries, losses=[said for said in outcomes if said is not None])


def markdown(tallies: Iterable[Tally]) -> str:
    """The table (part, fault, tries, survived, lost), categories together in order of appearance, totals last."""
    listed = list(tallies)
    order = list(dict.fromkeys(tally.fault.category for tally in listed))
    listed.sort(key=lambda tally: order.index(tally.fault.category))
    rows = [(t.fault.category, t.fault.name, t.tries, t.survived, t.lost) for t in listed]
    totals = [sum(row[i] for row in rows) for i in (2, 3, 4)]  # type: ignore[misc]
    lines = ["| part | fault | tries | survived | lost |", "| --- | --- | ---: | ---: | ---: |"]
    lines += [f"| {' | '.join(map(str, row))} |" for row in rows]
    return "\n".join([*lines, f"| all | {len(rows)} faults | {' | '.join(map(str, totals))} |"])
