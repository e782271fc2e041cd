"""Data sets as values: uint8 images, labels, patients, and a record of where they came from."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..fields import require
from .stratify import carve, choose_labelled

__all__ = [
    *("Dataset", "Split", "Task", "draw_images", "keep_labels"),
    *("call_a_draw", "carve_missing", "fixed_draw", "with_note"),
]

Task = Literal["binary", "multiclass", "multilabel"]
CARVED = {"test": 0.2, "val": 0.1}  # share of train, where a data set lacks a split; val's is MedMNIST's own
CARVE_SEED = 0


@dataclass(frozen=True, eq=False, kw_only=True)
class Split:
    """Images of one split with what is known about each.

    Args:
        images: uint8 `[N, C, S, S]`, C 1 or 3.
        labels: int64 `[N]`, or `[N, L]` where multi-label; -1 means not labelled (a whole row of -1).
        groups: the patient of each image, strings `[N]`; None where no patients are known.
        masks: bool `[N, L or 1, S, S]`, where each finding is; None where that is not known.
        boxes: of each image float32 `[n, 5]`: left, top, right, bottom as fractions of the side, label; or None.
    """

    images: Tensor
    labels: Tensor
    groups: np.ndarray | None = None
    masks: Tensor | None = None
    boxes: tuple[Tensor, ...] | None = None

    def __post_init__(self) -> None:
        images, labels = self.images, self.labels
        require(images.dtype == torch.uint8, "images", "uint8", images.dtype)
        square = images.ndim == 4 and images.shape[1] in (1, 3) and images.shape[2] == images.shape[3]
        require(square, "images", "[N, 1 or 3, S, S]", [*images.shape])
        whole = labels.dtype == torch.int64 and labels.ndim in (1, 2)
        require(whole, "labels", "int64 [N] or [N, L]", [labels.dtype, *labels.shape])
        require(self.groups is None or self.groups.dtype.kind == "U", "groups", "strings [N]", self.groups)
        for name, value in vars(self).items():
            own = len(images) if value is None else len(value)
            require(own == len(images), name, f"as many as images, {len(images)}", own)

    def __len__(self) -> int:
        return len(self.images)

    @property
    def labelled(self) -> Tensor:
        """Which images have labels, bool `[N]`."""
        return self.labels >= 0 if self.labels.ndim == 1 else (self.labels >= 0).all(dim=1)

    def take(self, indices: Tensor | np.ndarray | Sequence[int]) -> Split:
        """The images at `indices` (integers in 0..N-1, or bool `[N]`), in that order, as copies."""
        index = torch.as_tensor(indices).cpu()
        index = index.nonzero().flatten() if index.dtype == torch.bool else index.long()
        groups = None if self.groups is None else self.groups[index.numpy()]
        masks = None if self.masks is None else self.masks[index]
        boxes = None if self.boxes is None else tuple(self.boxes[i] for i in index.tolist())
        return Split(images=self.images[index], labels=self.labels[index], groups=groups, masks=masks, boxes=boxes)


@dataclass(frozen=True, eq=False, kw_only=True)
class Dataset:
    """Three splits of one task, with names and provenance.

    Args:
        name: what `load_dataset` was asked for.
        size: side of the images, px.
        task: images without classes are "multiclass" with one class and labels -1.
        class_names: negative and positive where binary; K classes; L labels.
        train, val, test: fitted on, chosen on, read once.
        provenance: JSON-able record: source, status, digests, notes; no absolute paths.

    Raises:
        ValueError: splits disagree with each other, with `size`, or labels with `task` and `class_names`.
    """

    name: str
    size: int
    task: Task
    class_names: tuple[str, ...]
    train: Split
    val: Split
    test: Split
    provenance: dict[str, Any]

    def __post_init__(self) -> None:
        many, count = self.task == "multilabel", len(self.class_names)
        highest, width = (1, [count]) if many else (count - 1, [])
        for name, split in self.splits.items():
            images, labels = [*split.images.shape], split.labels
            shape = [len(split), self.channels, self.size, self.size]
            require(images == shape, f"{name} images", str(shape), images)
            shape = [len(split), *width]
            require([*labels.shape] == shape, f"{name} labels", f"{shape} for a {self.task} task", [*labels.shape])
            legal = bool(((labels >= -1) & (labels <= highest)).all())
            require(legal, f"{name} labels", f"0 to {highest}, or -1 where not labelled", labels.unique().tolist())
            whole = bool((labels[~split.labelled] == -1).all())
            require(whole, f"{name} labels", "-1 in a whole row or nowhere in it", "rows that are partly -1")

    @property
    def splits(self) -> dict[str, Split]:
        """The three splits by name."""
        return {"train": self.train, "val": self.val, "test": self.test}

    @property
    def channels(self) -> int:
        """Channels of the images: 1 (grey) or 3 (RGB)."""
        return self.train.images.shape[1]

    @property
    def num_outputs(self) -> int:
        """Logits a classifier needs: 1 where binary, else one per class or label."""
        return 1 if self.task == "binary" else len(self.class_names)

    @property
    def has_labels(self) -> bool:
        """Whether any image of train is labelled: without one, no probe can be fitted."""
        return bool(self.train.labelled.any())

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 hex over images, labels and groups of all splits, and boxes where there are any."""
        digest = hashlib.sha256()
        for name, split in self.splits.items():
            for part in (split.images, split.labels):
                digest.update(f"{name} {part.dtype} {tuple(part.shape)}\n".encode())
                digest.update(part.detach().cpu().contiguous().numpy().data)
            groups = "" if split.groups is None else "\n".join(split.groups.tolist())
            digest.update(f"groups {len(groups)}\n{groups}".encode())
            for boxes in split.boxes or ():
                digest.update(f"boxes {len(boxes)}\n".encode())
                digest.update(boxes.contiguous().numpy().data)
        return digest.hexdigest()


def fixed_draw(count: int, most: int | None) -> NDArray[np.int64]:
    """Indices of at most that many of so many images: always the same ones, in order; None takes all."""
    if most is None or count <= most:
        return np.arange(count)
    return np.sort(np.random.default_rng(0).permutation(count)[:most])


def draw_images(dataset: Dataset, max_train_images: int | None, max_eval_images: int | None) -> Dataset:
    """At most so many images of train, and of val and test each (`fixed_draw`), as the notes say; None takes all."""
    most = {"train": max_train_images, "val": max_eval_images, "test": max_eval_images}
    rows = {name: fixed_draw(len(split), most[name]) for name, split in dataset.splits.items()}
    drawn = {name: split.take(rows[name]) for name, split in dataset.splits.items() if len(rows[name]) < len(split)}
    if not drawn:
        return dataset
    return call_a_draw(replace(dataset, **drawn), max_train_images, max_eval_images)  # type: ignore[arg-type]


def call_a_draw(dataset: Dataset, max_train_images: int | None, max_eval_images: int | None) -> Dataset:
    """Say in its provenance that a data set holds a draw only, and of how many: a command can repeat it."""
    drawn = {"max_train_images": max_train_images, "max_eval_images": max_eval_images}
    dataset = replace(dataset, provenance={**dataset.provenance, "drawn": drawn})
    return with_note(dataset, f"a fixed draw of {' / '.join(str(len(s)) for s in dataset.splits.values())} images")


def with_note(dataset: Dataset, note: str) -> Dataset:
    """The data set with one more note in its provenance."""
    notes = [*dataset.provenance.get("notes", []), note]
    return replace(dataset, provenance={**dataset.provenance, "notes": notes})


def keep_labels(dataset: Dataset, fraction: float, seed: int) -> Dataset:
    """Hide train labels except a fraction, drawn by class and by whole patients where they are known.

    A larger fraction with the same seed keeps all that a smaller one keeps, and every class keeps an image;
    val and test stay as they are. Hidden labels are -1, whole rows where multi-label.

    Args:
        fraction: share of train's labelled images that keep their labels, in (0, 1].
    Raises:
        ValueError: fraction out of range, or no label in train.
    """
    require(0 < fraction <= 1, "fraction of labels", "above 0 and at most 1", fraction)
    require(dataset.has_labels, f"train of {dataset.name}", "labelled to keep a fraction of its labels", "none")
    train = dataset.train
    kept = torch.from_numpy(choose_labelled(train.labels.cpu().numpy(), train.groups, fraction, seed))
    labels = train.labels.clone()
    labels[~kept] = -1
    share = f"{int(kept.sum())} of {int(train.labelled.sum())} train images"
    hidden = replace(dataset, train=replace(train, labels=labels))
    return with_note(hidden, f"labels kept for {share} (fraction {fraction:g}, seed {seed})")


def carve_missing(splits: dict[str, Split], dataset: str) -> tuple[dict[str, Split], list[str]]:
    """Carve test, then val, from train where they are missing, by class and whole patients, with a note on each."""
    found, notes = dict(splits), []
    for name in (name for name in CARVED if name not in splits):
        train = found["train"]
        taken = carve(train.labels.numpy(), train.groups, CARVED[name], CARVE_SEED)
        expected = f"two images (of two patients) of a class or more to carve {name} from, or a folder {name}"
        require(bool(taken.any()), f"train of {dataset}", expected, "fewer")
        found[name], found["train"] = train.take(taken), train.take(~taken)
        how = "class (no patients are known)" if train.groups is None else "class and whole patients"
        share = f"{int(taken.sum())} of {len(taken)} images"
        notes.append(f"{name} carved from train: {share}, by {how}, seed {CARVE_SEED}")
    return {name: found[name] for name in ("train", "val", "test")}, notes
