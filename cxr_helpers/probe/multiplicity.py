"""Several comparisons at once: p-values corrected for how many there are."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

__all__ = ["holm"]


def holm(p_values: ArrayLike) -> NDArray[np.float64]:
    """p-values of several comparisons, corrected for their number (Holm 1979, Scand. J. Stat. 6:65).

    Calling those at or below .05 real keeps the chance of one false call among all of them below 5 %, however the
    comparisons depend on each other.

    Args:
        p_values: [N], each in 0 to 1.
    Returns:
        [N], in the given order, none below its own p-value.
    Raises:
        ValueError: a value outside 0 to 1, or not one dimension.
    """
    p = np.asarray(p_values, dtype=np.float64)
    if p.ndim != 1 or not ((p >= 0) & (p <= 1)).all():
        raise ValueError(f"p_values must be a list of numbers from 0 to 1, got {p_values!r}")
    order = np.argsort(p, kind="stable")
    corrected = np.empty_like(p)
    corrected[order] = np.minimum(1.0, np.maximum.accumulate(p[order] * np.arange(len(p), 0, -1)))
    return corrected
