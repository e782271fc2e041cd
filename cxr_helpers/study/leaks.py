"""What a score may owe to memory: patients in two splits, and images that are there twice, exactly or nearly.

Two films of a chest are alike at low resolution whoever was filmed: pose and exposure dominate. So each image is
averaged down, a box blur of it is subtracted, and what is left (ribs, wires, edges of the heart) is standardised; the
cosine of two such vectors is the correlation of their detail. A copy that was shifted, turned or mirrored is not found.
"""

from __future__ import annotations

import hashlib
from itertools import permutations

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from ..data import MEDMNIST_FLAGS, Dataset, Split, data_root, load_dataset

__all__ = [
    "COPY_R", "detail_vectors", "nearest_in_train", "nearest_pairs",
    "official_copy", "own_images", "patient_table", "shared_patients",
]  # fmt: skip

COPY_R = 0.9  # correlation of a copy: above all but a handful of the 86 million pairs of two patients in the study
SAME_FILM_R = 0.95  # of grey levels at the official file's size: no image of our PneumoniaMNIST lies between .9 and .95
SIDE_PX, BLUR_PX = 32, 5  # ribs and wires are still there; brightness and pose of the chest go
BLOCK = 512  # rows of pairs worked on at a time


# ---- patients


def _images_each(dataset: Dataset) -> pd.DataFrame:
    """`split, patient, images, kinds` (of labels) of every patient; no line where any split names no patients."""
    parts = [
        pd.DataFrame({"split": name, "patient": split.groups, "label": [str(row) for row in split.labels.tolist()]})
        for name, split in dataset.splits.items()
        if all(other.groups is not None for other in dataset.splits.values())
    ]
    people = pd.concat(parts) if parts else pd.DataFrame(columns=["split", "patient", "label"])
    return people.groupby(["split", "patient"], sort=False)["label"].agg(images="size", kinds="nunique").reset_index()


def patient_table(dataset: Dataset) -> pd.DataFrame:
    """By split: `images, patients, most_images` (of one patient), `mixed_labels` (patients with different labels)."""
    each = _images_each(dataset).groupby("split", sort=False)
    table = each.agg(images=("images", "sum"), patients=("images", "size"), most_images=("images", "max"))
    return table.assign(mixed_labels=each["kinds"].agg(lambda kinds: (kinds > 1).sum())).reset_index()


def shared_patients(dataset: Dataset) -> pd.DataFrame:
    """`split, other, images, of, share, patients`: `images` of `split`'s `of` images show a patient of `other`."""
    each = dict(iter(_images_each(dataset).groupby("split", sort=False)))
    lines = []
    for a, b in permutations(each, 2):
        count, both = each[a]["images"], each[a]["patient"].isin(each[b]["patient"])
        lines.append((a, b, count[both].sum(), count.sum(), count[both].sum() / count.sum(), both.sum()))
    return pd.DataFrame(lines, columns=["split", "other", "images", "of", "share", "patients"])


# ---- copies


def _unit(x: Tensor) -> Tensor:
    """Rows with mean 0 and length 1; 0 for a flat one."""
    x = x - x.mean(dim=1, keepdim=True)
    length = x.norm(dim=1, keepdim=True)
    return torch.where(length > 1e-3, x / length.clamp_min(1e-3), 0.0)  # of 255 grey levels


def _small(images: Tensor, side: int) -> Tensor:
    return F.adaptive_avg_pool2d(images.float().mean(dim=1, keepdim=True), side)


@torch.inference_mode()
def detail_vectors(images: Tensor) -> Tensor:
    """Fine detail of uint8 images [N, C, S, S] as vectors of length 1, 0 without any: float32 [N, D]."""
    blocks = []
    for block in images.cpu().split(BLOCK):
        small = _small(block, min(SIDE_PX, block.shape[-1]))
        blur = F.avg_pool2d(F.pad(small, (BLUR_PX // 2,) * 4, mode="replicate"), BLUR_PX, stride=1)
        blocks.append(_unit((small - blur).flatten(1)))
    return torch.cat(blocks)


@torch.inference_mode()
def _most_alike(x: Tensor, bank: Tensor, *, among_themselves: bool = False) -> tuple[Tensor, Tensor]:
    """For each row of x the largest product with a row of the bank, and which row that is; never its own number."""
    found = []
    for a in range(0, len(x), BLOCK):
        r = x[a : a + BLOCK] @ bank.T
        if among_themselves:
            r[torch.arange(len(r)), torch.arange(a, a + len(r))] = -1
        found.append(r.max(dim=1))
    return torch.cat([best.values for best in found]), torch.cat([best.indices for best in found])


def nearest_pairs(dataset: Dataset) -> pd.DataFrame:
    """Every image of the three splits with the one whose fine detail is most alike, each pair once, by falling r.

    Returns:
        `split_a, index_a, patient_a, split_b, index_b, patient_b`; `r`, the correlation; `kind`: identical (by a hash
        of the bytes), nearly identical (from `COPY_R` up) or other; `same_patient`, `same_label`.
    """
    index = pd.concat([_index(name, split) for name, split in dataset.splits.items()], ignore_index=True)
    x = torch.cat([detail_vectors(split.images) for split in dataset.splits.values()])
    r, other = _most_alike(x, x, among_themselves=True)
    pairs = pd.DataFrame(np.sort(np.stack([np.arange(len(x)), other.numpy()], axis=1)), columns=["a", "b"])
    pairs = pairs.assign(r=r.double().numpy()).drop_duplicates(["a", "b"])
    first, second = (index.iloc[pairs[side]].reset_index(drop=True) for side in "ab")
    table = first.add_suffix("_a").join(second.add_suffix("_b")).assign(r=pairs["r"].to_numpy())
    kinds = [table.pop("pixels_a") == table.pop("pixels_b"), table["r"] >= COPY_R]
    table["kind"] = np.select(kinds, ["identical", "nearly identical"], "other")
    table["same_patient"] = table["patient_a"].notna() & (table["patient_a"] == table["patient_b"])
    table["same_label"] = table.pop("label_a") == table.pop("label_b")
    return table.sort_values("r", ascending=False, kind="stable", ignore_index=True)


def _index(name: str, split: Split) -> pd.DataFrame:
    table = pd.DataFrame({"split": name, "index": range(len(split)), "patient": split.groups})
    table["label"] = [str(row) for row in split.labels.tolist()]
    return table.assign(pixels=[hashlib.sha256(image.numpy().tobytes()).digest() for image in split.images.cpu()])


def nearest_in_train(dataset: Dataset, split: str = "test") -> NDArray[np.float64]:
    """For each image of a split the highest correlation of its fine detail with any train image's: [N]."""
    both = (detail_vectors(dataset.splits[name].images) for name in (split, "train"))
    return _most_alike(*both)[0].double().numpy()


def official_copy(dataset: Dataset) -> Dataset | None:
    """MedMNIST's own 28 px file of the same images, if it lies in the data folder; nothing is downloaded.

    None for data that is official itself, has no such file, or was shortened, so that rows do not match.
    """
    if dataset.name not in MEDMNIST_FLAGS or dataset.provenance["status"] == "official":
        return None
    if not (data_root() / f"{dataset.name}.npz").is_file():
        return None
    other = load_dataset(dataset.name, 28)
    same = all(
        torch.equal(a.labels, b.labels) for a, b in zip(dataset.splits.values(), other.splits.values(), strict=True)
    )
    return other if same and other.provenance["status"] == "official" else None


@torch.inference_mode()
def own_images(dataset: Dataset, split: str = "test") -> NDArray[np.bool_] | None:
    """Which images of a rebuilt copy are those of MedMNIST's own file, by comparing at its 28 px: bool [N].

    A copy may hold other films in some rows, and no list of them travels with the data. None without that file.
    """
    other = official_copy(dataset)
    if other is None:
        return None
    ours, theirs = (_unit(_small(data.splits[split].images, other.size).flatten(1)) for data in (dataset, other))
    return ((ours * theirs).sum(dim=1) >= SAME_FILM_R).numpy()
