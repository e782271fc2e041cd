"""Which films a round of training shows: those of rare findings more often, as many at any number of labels."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

__all__ = ["draw_films_of_round", "labelled_part", "repeat_factors"]


def labelled_part(num_films: int, fraction: float, seed: int) -> NDArray[np.int64]:
    """The films whose boxes are used, [K]: those of a smaller fraction are among those of a larger one."""
    drawn = np.random.default_rng([seed, 0]).permutation(num_films)
    return np.sort(drawn[: max(1, round(fraction * num_films))])


def repeat_factors(labels: NDArray[np.int64], below: float) -> NDArray[np.float64]:
    """How often each film is shown in a pass, [N], 1 or more.

    A finding in a share f of the films asks for max(1, sqrt(below / f)), a film for the most that its findings ask for.

    Args:
        labels: [N, L], 1 where a film has a finding. below: findings in at least this share are not repeated.
    Source:
        LVIS, arXiv 1908.03195.
    """
    share = labels.mean(axis=0)
    asked = np.sqrt(np.maximum(1.0, below / np.where(share > 0, share, 1.0)))
    return np.where(labels > 0, asked, 1.0).max(axis=1)


def draw_films_of_round(factors: NDArray[np.float64], count: int, seed: int, epoch: int) -> NDArray[np.int64]:
    """Rows [count] of the films of a round, by (seed, epoch) alone: whole passes in random order, the last one cut.

    In a pass a film of factor 1.7 is shown once, and with a chance of .7 twice.
    """
    rng, drawn = np.random.default_rng([seed, 1, epoch]), list[np.int64]()
    while len(drawn) < count:
        times = (factors + rng.random(len(factors))).astype(np.int64)
        drawn.extend(rng.permutation(np.repeat(np.arange(len(factors)), times)))
    return np.array(drawn[:count])
