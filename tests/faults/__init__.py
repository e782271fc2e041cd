"""The campaign of faults: what may go wrong is made to go wrong, many times, and nothing may be lost.

A module of this folder registers its faults with `@fault(...)` and stands in `PARTS` below: that one line is all that
a new part needs. `make faults` runs every try and prints the table, `make test` runs a few of each.
"""

from __future__ import annotations

import sys
from importlib import import_module
from pathlib import Path

from .registry import FAULTS, Fault, Tally, campaign, fault, markdown, try_once

__all__ = ["FAULTS", "PARTS", "Fault", "Tally", "campaign", "fault", "markdown", "try_once"]

PARTS = (
    "archives",
    "images",
    "downloads",
    "code",
    "training",
)  # fmt: skip

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # what tests share: conftest, reports, samples, studies
for _part in PARTS:
    import_module(f".{_part}", __name__)
