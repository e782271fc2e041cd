"""A few tries of every fault; all of them where `CXR_FUZZ` is set, as `make faults` does."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from faults import FAULTS, Fault

TRIES = [
    pytest.param(item, seed, id=f"{item.category}: {item.name} ({seed})", marks=[pytest.mark.slow] * (not item.quick))
    for item in FAULTS
    for seed in range(item.tries if "CXR_FUZZ" in os.environ else item.quick or item.tries)
]


@pytest.mark.parametrize(("item", "seed"), TRIES)
def test_nothing_is_lost_to(item: Fault, seed: int, tmp_path: Path) -> None:
    item.run(tmp_path, seed)
