"""Images that are there twice: exactly, by a hash of their bytes, or nearly, by the correlation of fine detail.

Near duplicates. Two films of a chest are alike at low resolution whoever was filmed: pose and exposure dominate. So
each image is averaged down to a thumbnail, a box blur of it is subtracted, and what is left (ribs, wires, edges of the
heart) is standardised per image; the cosine of two such vectors is the correlation of their detail. Every pair of
images is compared. Pairs of two patients show how high it gets among films that cannot be copies; the threshold lies
above them. A copy that was shifted, turned or mirrored is not found.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from ..data import MEDMNIST_FLAGS, Dataset, data_root, load_dataset
from .options import EDA

__all__ = [
    "Similarities",
    "compare_images",
    "confirm_pairs",
    "detail_vectors",
    "duplicate_summary",
    "exact_duplicates",
    "official_copy",
]

EXACT, NEAR, BELOW = "identical", "nearly identical", "below the threshold"


# ---- what is known about every image of the three splits, in one order


def _index(dataset: Dataset) -> pd.DataFrame:
    """`split, index` (in its split), `patient` (None where unknown) and `label` of every image, split after split."""
    parts = []
    for name, split in dataset.splits.items():
        labels = split.labels.reshape(len(split), -1).tolist()
        part = pd.DataFrame({"split": name, "index": np.arange(len(split)), "label": [tuple(row) for row in labels]})
        parts.append(part.assign(patient=None if split.groups is None else split.groups))
    return pd.concat(parts, ignore_index=True)


def exact_duplicates(dataset: Dataset) -> pd.DataFrame:
    """Images whose every pixel equals another's: `copies` (number of the set), `split, index, patient, label`.

    Sets are numbered from 0 in order of their first image; a set of three identical images has three rows.
    """
    index = _index(dataset)
    index["copies"] = _same_pixels(dataset)
    repeated = index[index.duplicated("copies", keep=False)].copy()
    repeated["copies"] = pd.factorize(repeated["copies"])[0]
    return repeated.sort_values("copies", kind="stable")[["copies", "split", "index", "patient", "label"]]


def _same_pixels(dataset: Dataset) -> NDArray[np.int64]:
    """A number per image of the three splits, equal where all pixels are equal."""
    rows = (row.numpy().tobytes() for split in dataset.splits.values() for row in split.images.cpu())
    known: dict[bytes, int] = {}
    return np.array([known.setdefault(_digest(row), len(known)) for row in rows], dtype=np.int64)


def _digest(content: bytes) -> bytes:
    return hashlib.blake2b(content, digest_size=16).digest()


# ---- near duplicates


@torch.inference_mode()
def detail_vectors(images: Tensor) -> Tensor:
    """Fine detail of each image as a vector of length 1 (0 for images without any).

    Args:
        images: uint8 [N, C, S, S].

    Returns:
        float32 [N, side²], side the smaller of S and `EDA.duplicate_side_px`; channels are averaged.
    """
    pad = EDA.detail_window_px // 2
    side = min(EDA.duplicate_side_px, images.shape[-1])
    blocks = []
    for block in images.split(EDA.image_block):
        small = F.adaptive_avg_pool2d(block.float().mean(dim=1, keepdim=True), side)
        blur = F.avg_pool2d(F.pad(small, (pad,) * 4, mode="replicate"), EDA.detail_window_px, stride=1)
        detail = (small - blur).flatten(1)
        detail = detail - detail.mean(dim=1, keepdim=True)
        strength = detail.norm(dim=1, keepdim=True)
        blocks.append(torch.where(strength > 1e-3, detail / strength.clamp_min(1e-3), 0.0))  # of 255 grey levels
    return torch.cat(blocks)


@dataclass(frozen=True, eq=False, kw_only=True)
class Similarities:
    """What comparing every image with every other found.

    Args:
        pairs: the pairs at or above the threshold and the nearest below it, by falling correlation: `split_a,
            index_a, patient_a, split_b, index_b, patient_b, r, kind, same_patient, same_label`. `same_patient` is
            None where the file names no patients.
        histogram: `r` (middle of the bin), `same`, `different`: numbers of pairs of one and of two patients. Where
            the file names no patients all pairs count as different.
        threshold: correlation from which a pair counts as nearly identical.
    """

    pairs: pd.DataFrame
    histogram: pd.DataFrame
    threshold: float

    @property
    def duplicates(self) -> pd.DataFrame:
        """The pairs at or above the threshold, identical ones among them."""
        return self.pairs[self.pairs.kind != BELOW]


@torch.inference_mode()
def compare_images(dataset: Dataset, *, threshold: float = EDA.duplicate_r) -> Similarities:
    """Correlate the detail of all pairs of images of the three splits, block by block.

    Args:
        dataset: any; N images cost N² S products and memory for two blocks.
        threshold: see `Similarities`.
    """
    index, same_pixels = _index(dataset), _same_pixels(dataset)
    where = "cuda" if torch.cuda.is_available() else "cpu"
    x = torch.cat([detail_vectors(split.images.cpu()) for split in dataset.splits.values()]).to(where)
    known = bool(index.patient.notna().all())
    numbers = pd.factorize(index.patient)[0] if known else np.arange(len(index))
    patients = torch.as_tensor(numbers, dtype=torch.int32, device=where)
    everyone, same = np.zeros(EDA.similarity_bins), np.zeros(EDA.similarity_bins)
    found = []
    for a, b, r, valid in _blocks(x):
        one = (patients[a : a + r.shape[0], None] == patients[None, b : b + r.shape[1]]) & valid
        everyone += _histogram(r[valid] if a == b else r.flatten())
        same += _histogram(r[one])
        found.append(_highest(torch.where(valid, r, -2.0), a, b, threshold))
    pairs = _described(np.concatenate(found), index, same_pixels, threshold, known)
    edges = np.linspace(-1, 1, EDA.similarity_bins + 1)
    histogram = pd.DataFrame({"r": (edges[1:] + edges[:-1]) / 2, "same": same, "different": everyone - same})
    return Similarities(pairs=pairs, histogram=histogram.astype({"same": int, "different": int}), threshold=threshold)


def _blocks(x: Tensor) -> Iterator[tuple[int, int, Tensor, Tensor]]:
    """(first row, first column, correlations, which of them are pairs not met before) of the upper triangle."""
    for a in range(0, len(x), EDA.image_block):
        for b in range(a, len(x), EDA.image_block):
            r = (x[a : a + EDA.image_block] @ x[b : b + EDA.image_block].T).clamp(-1, 1)
            valid = torch.ones_like(r, dtype=torch.bool)
            yield a, b, r, valid.triu(1) if a == b else valid


def _histogram(r: Tensor) -> NDArray[np.float64]:
    return torch.histc(r, EDA.similarity_bins, -1, 1).double().cpu().numpy()


def _highest(r: Tensor, a: int, b: int, threshold: float) -> NDArray[np.float64]:
    """Rows (i, j, r) of a block: every pair from the threshold up, and the nearest below it."""
    near = (r >= threshold).nonzero()
    below = torch.where(r < threshold, r, -2.0).flatten()
    top = below.topk(min(EDA.nearby_pairs, len(below)))
    rest = torch.stack([top.indices // r.shape[1], top.indices % r.shape[1]], dim=1)[top.values > -2]
    at = torch.cat([near, rest])
    return torch.column_stack([at[:, 0] + a, at[:, 1] + b, r[at[:, 0], at[:, 1]]]).double().cpu().numpy()


def _described(
    found: NDArray[np.float64], index: pd.DataFrame, same_pixels: NDArray[np.int64], threshold: float, known: bool
) -> pd.DataFrame:
    """The pairs kept, with what is known about both images."""
    order = np.argsort(-found[:, 2], kind="stable")
    count = int((found[:, 2] >= threshold).sum()) + EDA.nearby_pairs
    i, j = found[order, :2][:count].astype(int).T
    r = found[order, 2][:count]
    first, second = (index.iloc[k].reset_index(drop=True) for k in (i, j))
    pairs = pd.DataFrame({f"{c}_a": first[c] for c in ("split", "index", "patient")})
    pairs = pairs.assign(**{f"{c}_b": second[c] for c in ("split", "index", "patient")}, r=r)
    kinds = [same_pixels[i] == same_pixels[j], r >= threshold]
    pairs["kind"] = np.select(kinds, [EXACT, NEAR], BELOW)
    pairs["same_patient"] = (first.patient == second.patient) if known else None
    pairs["same_label"] = first.label == second.label
    return pairs


def duplicate_summary(pairs: pd.DataFrame) -> pd.DataFrame:
    """Pairs by kind and by where their images lie: `kind, splits, pairs, images, same_patient, other_label`.

    Args:
        pairs: `Similarities.duplicates`.

    Returns:
        One row per kind and pair of splits that has any. `same_patient` is nan where the file names no patients.
    """
    columns = ["kind", "splits", "pairs", "images", "same_patient", "other_label"]
    rows = []
    for (kind, a, b), part in pairs.groupby(["kind", "split_a", "split_b"], sort=False):
        images = {*zip(part.split_a, part.index_a, strict=True), *zip(part.split_b, part.index_b, strict=True)}
        same = np.nan if part.same_patient.isna().any() else float(part.same_patient.sum())
        other = int((~part.same_label.astype(bool)).sum())
        rows.append((kind, f"{a} and {b}" if a != b else f"within {a}", len(part), len(images), same, other))
    return pd.DataFrame(rows, columns=columns)


# ---- is it the source, or our copy of it?


def official_copy(dataset: Dataset) -> Dataset | None:
    """MedMNIST's own 28 px file of the same images, if it lies in the data folder; nothing is downloaded.

    None for data that is official itself, has no such file, or was shortened, so that rows do not match.
    """
    if dataset.name not in MEDMNIST_FLAGS or dataset.provenance["status"] == "official":
        return None
    if not (data_root() / f"{dataset.name}.npz").is_file():
        return None
    other = load_dataset(dataset.name, 28)
    labels = [(a.labels, b.labels) for a, b in zip(dataset.splits.values(), other.splits.values(), strict=True)]
    same = all(a.shape == b.shape and bool((a == b).all()) for a, b in labels)
    return other if same and other.provenance["status"] == "official" else None


def confirm_pairs(pairs: pd.DataFrame, other: Dataset) -> pd.DataFrame:
    """The pairs with `r_other` and `identical_other`: the same two images in another copy of the data.

    Args:
        pairs: of `Similarities`, by split and index.
        other: the same images in the same order, at any size.
    """
    rows = []
    for a, i, b, j in pairs[["split_a", "index_a", "split_b", "index_b"]].itertuples(index=False):
        both = torch.stack([other.splits[a].images[i], other.splits[b].images[j]])
        left, right = detail_vectors(both)
        rows.append({"r_other": float(left @ right), "identical_other": bool((both[0] == both[1]).all())})
    found = pd.DataFrame(rows, index=pairs.index, columns=["r_other", "identical_other"])
    return pd.concat([pairs, found], axis=1)
