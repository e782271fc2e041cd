"""The campaign of faults: what may go wrong is made to go wrong, many times, and nothing may be lost.

A module of this folder registers its faults with `@fault(...)` and stands in the tuple below: that one line is all that
a new part needs. `tests/test_faults.py` runs them: a few tries of each in `make test`, all in `make faults`.
"""

from __future__ import annotations

from importlib import import_module

from .registry import FAULTS, Fault, fault

__all__ = ["FAULTS", "Fault", "fault"]

for _part in ("files", "downloads"):
    import_module(f".{_part}", __name__)
