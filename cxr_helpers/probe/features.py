"""Features of a split under the one `eval_transform`: extracted once, then values for every probe."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from ..augment import eval_transform
from ..fields import require

if TYPE_CHECKING:
    from ..augment import Normalisation
    from ..data import Split


def labelled_rows(labels: Any) -> Any:
    """Bool [N] of a tensor or array [N] or [N, L]: rows with a label."""
    return labels >= 0 if labels.ndim == 1 else (labels >= 0).all(1)


@dataclass(frozen=True, eq=False)
class Features:
    """Features of one split; a value that every probe reads."""

    x: NDArray[np.float32]  # [N, D]
    labels: NDArray[np.int64]  # [N] or [N, L], -1 = not labelled
    groups: NDArray[Any] | None = None  # [N], the patient

    def __len__(self) -> int:
        return len(self.x)

    def take(self, rows: NDArray[Any]) -> Features:
        """The rows at these indices, or where this mask is true."""
        return Features(self.x[rows], self.labels[rows], None if self.groups is None else self.groups[rows])

    def labelled(self) -> Features:
        """The rows that have a label."""
        keep = labelled_rows(self.labels)
        return self if keep.all() else self.take(keep)


@contextmanager
def evaluating(module: nn.Module) -> Iterator[None]:
    """A module in eval mode; afterwards each submodule is back in the mode it had."""
    modes = {m: m.training for m in module.modules()}
    module.eval()
    try:
        yield
    finally:
        for m, mode in modes.items():
            m.training = mode


def _of_stage(backbone: Any, x: Tensor, stage: str) -> Tensor:
    """The mean over positions of a stage's map, [B, C]."""
    maps = backbone.stages(x)
    require(stage in maps, "stage", f"one of {', '.join(maps)}", stage)
    return maps[stage].mean((2, 3))


@torch.inference_mode()
def extract_features(
    encode: Callable[[Tensor], Tensor],
    split: Split,
    normalisation: Normalisation,
    *,
    batch_size: int = 512,
    device: torch.device | str | None = None,
    precision: str = "32-true",
    stage: str | None = None,
) -> Features:
    """Features of every image of a split under `eval_transform`, in eval mode.

    Args:
        encode: a backbone, or a method's bound `encode`; [B, C, S, S] to [B, D].
        normalisation: the backbone's.
        device: where to compute; None is where the backbone is.
        stage: of a backbone, whose map's mean over positions is taken; None takes what `encode` gives.
        precision: "bf16-mixed" runs under autocast; the features are float32 in any case.
    """
    module: Any = getattr(encode, "__self__", encode)
    where, chunks = torch.device(device or next(module.parameters()).device), []
    with evaluating(module):
        for images in split.images.split(batch_size):
            images = images.expand(-1, max(images.shape[1], len(normalisation.mean)), -1, -1)  # grey as colour
            x = eval_transform(images.to(where, non_blocking=True), normalisation)
            with torch.autocast(where.type, torch.bfloat16, enabled=precision == "bf16-mixed"):
                chunks.append((encode(x) if stage is None else _of_stage(module, x, stage)).float())
    h = torch.cat(chunks).cpu().numpy()
    return Features(h, split.labels.cpu().numpy(), split.groups)


def standardisation(x: NDArray[Any]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Mean and standard deviation [D] of the columns; the latter 1 for a constant column, which becomes 0."""
    mean, std = x.mean(axis=0, dtype=np.float64), x.std(axis=0, dtype=np.float64)
    return mean, np.where(std > 1e-6 * np.abs(mean) + 1e-12, std, 1.0)


def fuse(blocks: Sequence[Mapping[str, Features]]) -> dict[str, Features]:
    """Features of several encoders side by side, each block standardised by its train mean and deviation.

    Args:
        blocks: per encoder its splits by name, `train` among them, [N, D_i]; the same images in each.
    Returns:
        By split, features [N, D_1 + D_2 + ...].
    Raises:
        ValueError: splits of other images: labels or groups that differ.
    """
    fused = {}
    statistics = [standardisation(block["train"].x) for block in blocks]
    for name, first in blocks[0].items():
        for other in (block[name] for block in blocks):
            if not all(np.array_equal(getattr(first, key), getattr(other, key)) for key in ("labels", "groups")):
                raise ValueError(f"blocks must be features of the same images, got other {name} labels or groups")
        scaled = [(block[name].x - mean) / std for block, (mean, std) in zip(blocks, statistics, strict=True)]
        fused[name] = replace(first, x=np.hstack(scaled, dtype=np.float32, casting="same_kind"))
    return fused


def reduced(features: Mapping[str, Features], count: int) -> dict[str, Features]:
    """Their first principal components of train, at most so many: by split, [N, count]."""
    mean, _ = standardisation(features["train"].x)
    centred = features["train"].x - mean
    axes = np.linalg.eigh(centred.T @ centred)[1][:, ::-1][:, :count]  # eigh sorts upwards
    return {name: replace(f, x=((f.x - mean) @ axes).astype(np.float32)) for name, f in features.items()}
