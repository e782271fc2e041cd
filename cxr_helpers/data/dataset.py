"""Data sets as values: uint8 images, labels, patients, and a record of where they came from."""

from __future__ import annotations

__all__ = ["Dataset", "Split", "Task", "call_a_draw", "draw_images", "fixed_draw", "keep_labels", "take_images"]

import dataclasses
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal, get_args

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from .stratify import choose_labelled

Task = Literal["binary", "multiclass", "multilabel"]


@dataclass(frozen=True, eq=False, kw_only=True)
class Split:
    """Images of one split with what is known about each.

    Args:
        images: uint8 `[N, C, S, S]`, C 1 or 3.
        labels: int64 `[N]`, or `[N, L]` where multi-label; -1 means not labelled (a whole row of -1).
        groups: the patient of each image, strings `[N]`.
        masks: bool `[N, L or 1, S, S]`, where each finding is.
        boxes: per image, float `[n, 4]`, x0 y0 x1 y1 in px.
        box_labels: per image, int64 `[n]`, the class or label of each box.

    Raises:
        ValueError: a dtype, shape or length is not as above.
    """

    images: Tensor
    labels: Tensor
    groups: np.ndarray | None = None
    masks: Tensor | None = None
    boxes: tuple[Tensor, ...] | None = None
    box_labels: tuple[Tensor, ...] | None = None

    def __post_init__(self) -> None:
        shape = tuple(self.images.shape)
        if self.images.dtype != torch.uint8:
            raise ValueError(f"images must be uint8, got {self.images.dtype}")
        if len(shape) != 4 or shape[1] not in (1, 3) or shape[2] != shape[3]:
            raise ValueError(f"images must be [N, 1 or 3, S, S], got {list(shape)}")
        if self.labels.dtype != torch.int64 or self.labels.ndim not in (1, 2):
            raise ValueError(f"labels must be int64 [N] or [N, L], got {self.labels.dtype} {list(self.labels.shape)}")
        groups, masks = self.groups, self.masks
        if groups is not None and (groups.dtype.kind != "U" or groups.ndim != 1):
            raise ValueError(f"groups must be strings [N], got {groups.dtype} {list(groups.shape)}")
        if masks is not None and (masks.dtype != torch.bool or masks.ndim != 4 or masks.shape[2:] != shape[2:]):
            raise ValueError(
                f"masks must be bool [N, L, {shape[2]}, {shape[3]}], got {masks.dtype} {list(masks.shape)}"
            )
        for name in ("labels", "groups", "masks", "boxes", "box_labels"):
            value = getattr(self, name)
            if value is not None and len(value) != shape[0]:
                raise ValueError(f"{name} must be as many as images, {shape[0]}, got {len(value)}")

    def __len__(self) -> int:
        return len(self.images)

    @property
    def labelled(self) -> Tensor:
        """Which images have labels, bool `[N]`."""
        return self.labels >= 0 if self.labels.ndim == 1 else (self.labels >= 0).all(dim=1)

    def take(self, indices: Tensor | np.ndarray | Sequence[int]) -> Split:
        """The images at `indices` (integers, or bool `[N]`), in that order.

        Args:
            indices: integers in 0..N-1, or a bool per image.

        Returns:
            A split of copies.
        """
        index = torch.as_tensor(indices).cpu()
        index = index.nonzero().flatten() if index.dtype == torch.bool else index.long()
        rows = index.tolist()
        return Split(
            images=self.images[index],
            labels=self.labels[index],
            groups=None if self.groups is None else self.groups[index.numpy()],
            masks=None if self.masks is None else self.masks[index],
            boxes=None if self.boxes is None else tuple(self.boxes[i] for i in rows),
            box_labels=None if self.box_labels is None else tuple(self.box_labels[i] for i in rows),
        )


@dataclass(frozen=True, eq=False, kw_only=True)
class Dataset:
    """Three splits of one task, with names and provenance.

    Args:
        name: what `load_dataset` was asked for.
        size: side of the images, px.
        task: "binary", "multiclass" or "multilabel".
        class_names: negative and positive where binary; K classes; L labels.
        train: fitted on.
        val: chosen on.
        test: read once.
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
        if self.task not in get_args(Task):
            raise ValueError(f"task must be one of {', '.join(get_args(Task))}, got {self.task!r}")
        if self.task == "binary" and len(self.class_names) != 2:
            raise ValueError(f"class_names must be (negative, positive) for a binary task, got {self.class_names}")
        for name, split in self.splits.items():
            self._check_split(name, split)

    def _check_split(self, name: str, split: Split) -> None:
        expected = (self.channels, self.size, self.size)
        if tuple(split.images.shape[1:]) != expected:
            raise ValueError(
                f"{name} images must be [N, {self.channels}, {self.size}, {self.size}], got {list(split.images.shape)}"
            )
        count = len(self.class_names)
        shape, highest = ((count,), 1) if self.task == "multilabel" else ((), count - 1)
        if tuple(split.labels.shape[1:]) != shape:
            raise ValueError(
                f"{name} labels must be [N{', ' + str(count) if shape else ''}] for a {self.task} task, "
                f"got {list(split.labels.shape)}"
            )
        if not len(split):
            return
        low, high = int(split.labels.min()), int(split.labels.max())
        if low < -1 or high > highest:
            raise ValueError(f"{name} labels must be 0 to {highest}, or -1 where not labelled, got {low} to {high}")
        if shape and ((split.labels < 0).any(1) != (split.labels < 0).all(1)).any():
            raise ValueError(f"{name} labels must be -1 in a whole row or nowhere in it, got rows that are partly -1")

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

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 hex over images, labels and groups of all splits."""
        digest = hashlib.sha256()
        for name, split in self.splits.items():
            for part in (split.images, split.labels):
                digest.update(f"{name} {part.dtype} {tuple(part.shape)}\n".encode())
                digest.update(part.detach().cpu().contiguous().numpy().data)
            groups = "" if split.groups is None else "\n".join(split.groups.tolist())
            digest.update(f"groups {len(groups)}\n{groups}".encode())
        return digest.hexdigest()


def fixed_draw(count: int, most: int | None) -> NDArray[np.int64]:
    """Indices of at most that many of so many images: always the same ones, in order; None takes all."""
    if most is None or count <= most:
        return np.arange(count)
    return np.sort(np.random.default_rng(0).permutation(count)[:most])


def take_images(split: Split, most: int | None) -> Split:
    """At most that many images of a split (`fixed_draw`)."""
    return split if most is None or len(split) <= most else split.take(fixed_draw(len(split), most))


def draw_images(dataset: Dataset, max_train_images: int | None, max_eval_images: int | None) -> Dataset:
    """At most so many images of each split (`fixed_draw`).

    Args:
        dataset: any data set.
        max_train_images: of train; None takes all.
        max_eval_images: of val and of test, each.

    Returns:
        The data set itself where it holds no more than that; else a part, which its provenance calls a draw.
    """
    train = take_images(dataset.train, max_train_images)
    val, test = (take_images(split, max_eval_images) for split in (dataset.val, dataset.test))
    if (train, val, test) == tuple(dataset.splits.values()):
        return dataset
    return call_a_draw(dataclasses.replace(dataset, train=train, val=val, test=test), max_train_images, max_eval_images)


def call_a_draw(dataset: Dataset, max_train_images: int | None, max_eval_images: int | None) -> Dataset:
    """Say in its provenance that a data set holds a draw only, and of how many: a command can repeat it."""
    counts = " / ".join(str(len(split)) for split in dataset.splits.values())
    provenance = {
        **dataset.provenance,
        "notes": [*dataset.provenance.get("notes", []), f"a fixed draw of {counts} images"],
        "drawn": {"max_train_images": max_train_images, "max_eval_images": max_eval_images},
    }
    return dataclasses.replace(dataset, provenance=provenance)


def keep_labels(dataset: Dataset, fraction: float, seed: int) -> Dataset:
    """Hide train labels except a fraction, drawn by class and by whole patients where they are known.

    A larger fraction with the same seed keeps all that a smaller one keeps, and every class keeps an image;
    val and test stay as they are.

    Args:
        dataset: any data set.
        fraction: share of train's labelled images that keep their labels, in (0, 1].
        seed: of the draw, 0 or more.

    Returns:
        The data set with hidden labels -1 (whole rows where multi-label).

    Raises:
        ValueError: fraction or seed out of range, or no label in train.
    """
    if not 0 < fraction <= 1:
        raise ValueError(f"fraction of labels must be above 0 and at most 1, got {fraction}")
    if seed < 0:
        raise ValueError(f"seed must be 0 or more, got {seed}")
    train = dataset.train
    num_labelled = int(train.labelled.sum())
    if not num_labelled:
        raise ValueError(f"train of {dataset.name} must hold labels to keep a fraction of, got none")
    kept = torch.from_numpy(choose_labelled(train.labels.cpu().numpy(), train.groups, fraction, seed))
    labels = train.labels.clone()
    labels[~kept] = -1
    share = f"{int(kept.sum())} of {num_labelled} train images"
    note = f"labels kept for {share} (fraction {fraction:g}, seed {seed})"
    provenance = {**dataset.provenance, "notes": [*dataset.provenance.get("notes", []), note]}
    return dataclasses.replace(dataset, train=dataclasses.replace(train, labels=labels), provenance=provenance)
