"""Which images of test and val an objection does not touch: no copy in train, no patient of train, MedMNIST's own."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from ..data import Dataset
from ..eda.duplicates import detail_vectors, official_copy
from ..eda.options import EDA

__all__ = ["is_medmnists_own", "nearest_in_train", "without_near_copies", "without_train_patients"]

SAME_FILM_R = 0.95
"""Correlation of grey levels at the official file's size from which an image is MedMNIST's own: between its own images
(.95 and more) and other films of the same class (below .9) our copy of PneumoniaMNIST has none."""


@torch.inference_mode()
def nearest_in_train(dataset: Dataset, split: str = "test") -> NDArray[np.float64]:
    """For each image of a split the highest correlation of its fine detail with any train image's: [N]."""
    train = detail_vectors(dataset.train.images.cpu())
    blocks = detail_vectors(dataset.splits[split].images.cpu()).split(EDA.image_block)
    return torch.cat([(block @ train.T).amax(dim=1) for block in blocks]).double().numpy()


def without_near_copies(dataset: Dataset, split: str = "test") -> NDArray[np.bool_]:
    """Images of a split that correlate with every train image below the threshold of notebook 01: bool [N]."""
    return nearest_in_train(dataset, split) < EDA.duplicate_r


def without_train_patients(dataset: Dataset, split: str = "val") -> NDArray[np.bool_] | None:
    """Images of a split whose patient has none in train: bool [N]; None where patients are not known."""
    groups, known = dataset.splits[split].groups, dataset.train.groups
    return None if groups is None or known is None else ~np.isin(groups, known)


@torch.inference_mode()
def is_medmnists_own(dataset: Dataset, split: str = "test") -> NDArray[np.bool_] | None:
    """Which images of a copy are those of MedMNIST's own file, by comparing with it at its 28 px: bool [N].

    A copy rebuilt from public films may hold other films in some rows; no list of them travels with the data, so it is
    derived: both images averaged to one size must correlate by `SAME_FILM_R`.

    Returns:
        None where there is nothing to compare: the data are MedMNIST's own, its 28 px file is not in the data folder,
        or the data were shortened.
    """
    other = official_copy(dataset)
    if other is None:
        return None
    ours, theirs = (_thumbnails(data.splits[split].images, other.size) for data in (dataset, other))
    return ((ours * theirs).sum(dim=1) >= SAME_FILM_R).numpy()


def _thumbnails(images: Tensor, side: int) -> Tensor:
    """Images averaged down, as vectors of mean 0 and length 1."""
    small = F.interpolate(images.float().mean(dim=1, keepdim=True), (side, side), mode="area").flatten(1)
    small = small - small.mean(dim=1, keepdim=True)
    return small / small.norm(dim=1, keepdim=True).clamp_min(1e-6)
