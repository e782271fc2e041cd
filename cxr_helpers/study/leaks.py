"""What a score may owe to memory: patients in two splits."""

from __future__ import annotations

from itertools import permutations

import numpy as np
import pandas as pd

from ..data import Dataset

__all__ = ["shared_patients"]


def shared_patients(dataset: Dataset) -> pd.DataFrame:
    """`split, other, images, of, share, patients`: `images` of `split`'s `of` images show a patient of `other`."""
    groups = {name: split.groups for name, split in dataset.splits.items() if split.groups is not None}
    lines = []
    for a, b in permutations(groups, 2):
        both = np.isin(groups[a], groups[b])
        lines.append((a, b, both.sum(), len(both), both.mean(), len(np.unique(groups[a][both]))))
    return pd.DataFrame(lines, columns=["split", "other", "images", "of", "share", "patients"])
