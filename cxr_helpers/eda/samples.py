"""Which images a sheet shows: drawn, not picked."""

from __future__ import annotations

import numpy as np
import pandas as pd

from ..data import Dataset
from .labels import NONE, positives
from .options import EDA

__all__ = ["draw_samples"]


def draw_samples(dataset: Dataset, split: str = "train", *, per_class: int | None = None) -> pd.DataFrame:
    """A draw of images of every class with `EDA.sample_seed`, no two of one class from the same patient.

    Args:
        dataset: any.
        split: drawn from.
        per_class: images of each class, fewer where there are not as many; None takes `EDA.samples_per_class`.

    Returns:
        `class, index` (in the split), `others` (the image's other labels, joined by commas); multi-label data has the
        class `none of them`, too. An image comes twice only where a label has too few others.
    """
    part, wanted = dataset.splits[split], per_class or EDA.samples_per_class
    at = np.flatnonzero(part.labelled.cpu().numpy())
    columns, names = positives(part, len(dataset.class_names)), list(dataset.class_names)
    order = np.random.default_rng(EDA.sample_seed).permutation(len(at))
    empty = [(NONE, ~columns.any(axis=1))] if dataset.task == "multilabel" else []
    rows: list[dict[str, object]] = []
    shown: set[int] = set()
    for label, column in [*empty, *zip(names, columns.T, strict=True)]:
        members = order[column[order]]
        fresh = ~np.isin(members, list(shown))
        chosen = pd.DataFrame({"row": np.concatenate([members[fresh], members[~fresh]])})
        chosen["patient"] = chosen.row if part.groups is None else part.groups[at[chosen.row]]
        for row in chosen.drop_duplicates("patient").row[:wanted]:
            others = [name for name, on in zip(names, columns[row], strict=True) if on and name != label]
            shown.add(int(row))
            rows.append({"class": label, "index": int(at[row]), "others": ", ".join(others)})
    return pd.DataFrame(rows)
