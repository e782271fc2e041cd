"""What stands around a step's arithmetic: whether the step counts, where the epoch stands, whether the features live.

On steps whose loss and gradient are finite nothing here touches a number.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

import torch
from torch import Tensor, nn

__all__ = ["Ahead", "DivergedError", "Progress", "StepGuard", "signs_of_collapse", "stop_if_diverged"]

MOST_SKIPPED = 5  # in a row: one bad batch or overflow passes, weights that have left the finite do not come back
ADVICE = "try a lower --lr, more --warmup-epochs or --precision 32-true"

# Bounds of collapse. On the recorded data sets an untrained ResNet-18 has a feature std of .12 to .13 and an effective
# rank of 190 to 245, a trained one .4 and 135 to 155: a quarter or more of what 512 features of 524 images can have.
# After one epoch their embeddings have a uniformity of -1 to -3.
FEATURE_STD_MIN = 0.01  # less than a tenth of what no training at all gives: all images are almost one point
EFFECTIVE_RANK_MIN = 2.0  # two directions: below, a linear probe sees hardly more than one number per image ...
EFFECTIVE_RANK_SHARE = 0.01  # ... and not below 1 % of what that many images and features could have
UNIFORMITY_MAX = -0.1  # all embeddings at a mean cosine similarity above .975, whatever their scale


class DivergedError(RuntimeError):
    """A loss, gradient or feature stopped being a number; the message says where, with which terms, and what to try."""


def _diverged(what: str, epoch: int, step: int, lr: float, values: Mapping[str, float]) -> DivergedError:
    terms = ", ".join(f"{name} {value:.3g}" for name, value in values.items())
    return DivergedError(f"{what} in epoch {epoch + 1}, step {step + 1}, at learning rate {lr:.3g} ({terms}): {ADVICE}")


def stop_if_diverged(values: Mapping[str, float], epoch: int, step: int, lr: float) -> None:
    """Raise unless every value is finite.

    Args:
        values: what was measured after an epoch.
        epoch, step: counted from 0.
        lr: the rate of that step.
    Raises:
        DivergedError: a value is nan or infinite.
    """
    for name, value in values.items():
        if not math.isfinite(value):
            raise _diverged(f"{name} became {value}", epoch, step, lr, values)


@dataclass(kw_only=True)
class Progress:
    """Where a run stands inside an epoch: what a checkpoint holds beside weights, optimizers and finished rows.

    Attributes:
        epoch, step: whole epochs done, and steps done of the next one, skipped ones included.
        counted, skipped: of these steps.
        in_a_row: steps skipped since the last that counted; goes on from epoch to epoch.
        sums: of each term over the steps that count, float32 scalars on the device.
        first_loss: of the first step that counts.
        seconds: that the epoch's training took in earlier sittings.
        trained: what `train_epoch` returned, once it has.
        random: states of torch's generators at this step, in a progress read from a checkpoint.
    """

    epoch: int
    step: int = 0
    counted: int = 0
    skipped: int = 0
    in_a_row: int = 0
    sums: dict[str, Tensor] = field(default_factory=dict)
    first_loss: float = math.nan
    seconds: float = 0.0
    trained: dict[str, float] | None = None
    random: dict[str, Tensor] = field(default_factory=dict)

    def count(self, terms: Mapping[str, Tensor]) -> None:
        """Add the terms of a step that counts."""
        if not self.counted:
            self.first_loss = float(terms["loss"].detach())
        for name, value in terms.items():
            zero = torch.zeros((), device=value.device)
            self.sums[name] = self.sums.get(name, zero) + value.detach().float()
        self.counted, self.in_a_row = self.counted + 1, 0

    def skip(self, terms: Mapping[str, Tensor], lr: float) -> None:
        """Count a step that was left out.

        Raises:
            DivergedError: it was the last of `MOST_SKIPPED` in a row.
        """
        self.skipped, self.in_a_row = self.skipped + 1, self.in_a_row + 1
        if self.in_a_row >= MOST_SKIPPED:
            what = f"{MOST_SKIPPED} steps in a row had a loss or gradient that is not finite, the last of them"
            raise _diverged(what, self.epoch, self.step, lr, {name: float(value) for name, value in terms.items()})

    def means(self) -> dict[str, float]:
        """Of each term over the steps that count; a loss of nan where none does."""
        return {name: float(value) / self.counted for name, value in self.sums.items()} or {"loss": math.nan}

    def state(self, device: torch.device, seconds: float) -> dict[str, Any]:
        """Plain values and tensors on the CPU, with the states of torch's generators."""
        values = {name: getattr(self, name) for name in ("epoch", "step", "counted", "skipped", "in_a_row")}
        values |= {"first_loss": self.first_loss, "seconds": seconds, "trained": self.trained}
        sums = {name: value.cpu() for name, value in self.sums.items()}
        return {**values, "sums": sums, "random": _generators(device)}

    @classmethod
    def read(cls, state: Mapping[str, Any], device: torch.device) -> Progress:
        """The progress that `state` described."""
        sums = {name: value.to(device) for name, value in state["sums"].items()}
        return cls(**{**state, "sums": sums})

    def restore_generators(self, device: torch.device) -> None:
        """Put torch's generators where a checkpoint found them; nothing to do at an epoch's start."""
        if "cpu" in self.random:
            torch.set_rng_state(self.random["cpu"])
        if device.type == "cuda" and "cuda" in self.random:
            torch.cuda.set_rng_state(self.random["cuda"], device)
        if device.type == "mps" and "mps" in self.random:
            torch.mps.set_rng_state(self.random["mps"])


def _generators(device: torch.device) -> dict[str, Tensor]:
    states = {"cpu": torch.get_rng_state()}
    if device.type == "cuda":
        states["cuda"] = torch.cuda.get_rng_state(device)
    if device.type == "mps":
        states["mps"] = torch.mps.get_rng_state()
    return states


T = TypeVar("T")


class Ahead(Generic[T]):
    """An iterator whose next item can be made before it is asked for."""

    def __init__(self, items: Iterator[T]) -> None:
        self._items, self._ready = items, []  # type: tuple[Iterator[T], list[T]]

    def prepare(self) -> None:
        """Make the next item now, if there is one."""
        if not self._ready:
            self._ready += [item for _, item in zip(range(1), self._items, strict=False)]

    def __iter__(self) -> Iterator[T]:
        return self

    def __next__(self) -> T:
        return self._ready.pop() if self._ready else next(self._items)


class StepGuard:
    """Leaves out steps whose loss or gradient is not finite, as if their batch had not been there.

    In a step: `remember`, forward, backward, `look`, then something else for the device to do (the next batch's views),
    then `finite`, and either the optimizer's step or `restore`, which puts the running statistics back that the
    forward has moved; weights, moments and the online probe were not touched yet.

    The host must know the answer before the optimizer's step, so it waits for the device once a step. The answer is
    copied behind the backward pass alone: a GPU makes the next views meanwhile and never runs dry. Restoring weights
    on the device instead would wait for nothing and cost two more copies of weights and moments a step.

    Args:
        method: its buffers are what a forward moves.
        optimizer: its gradients are looked at. Under several processes they are already gathered, the loss is of the
            whole batch, and every process comes to the same answer.
    """

    def __init__(self, method: nn.Module, optimizer: Any) -> None:
        self.optimizer = optimizer
        buffers: dict[torch.dtype, list[Tensor]] = {}
        for buffer in method.buffers():
            buffers.setdefault(buffer.dtype, []).append(buffer)
        self._kept = [([b.clone() for b in group], group) for group in buffers.values()]
        self._answer = torch.empty(0)
        self._copied: torch.cuda.Event | None = None

    def remember(self) -> None:
        """Before a forward: keep the buffers."""
        for kept, live in self._kept:
            torch._foreach_copy_(kept, live)

    def look(self, loss: Tensor) -> None:
        """After the backward: ask whether loss and gradient are finite, without waiting for the answer."""
        gradients = [p.grad for group in self.optimizer.param_groups for p in group["params"] if p.grad is not None]
        self._norm = nn.utils.get_total_norm(gradients)
        answer = torch.isfinite(self._norm) & torch.isfinite(loss.detach())
        if answer.device.type != "cuda":
            self._answer = answer
            return
        self._answer = torch.empty((), dtype=torch.bool, pin_memory=True)
        self._answer.copy_(answer, non_blocking=True)
        self._copied = torch.cuda.Event()
        self._copied.record()

    def finite(self) -> bool:
        """The answer to `look`; waits for it."""
        if self._copied is not None:
            self._copied.synchronize()
        return bool(self._answer)

    def forget(self) -> None:
        """Leave nothing of a forward or backward behind: buffers as they were remembered, no gradients."""
        for kept, live in self._kept:
            torch._foreach_copy_(live, kept)
        self.optimizer.zero_grad()

    def restore(self) -> dict[str, Tensor]:
        """Instead of the optimizer's step: forget the pass; returns the gradient's norm, by its name."""
        self.forget()
        return {"norm of the gradient": self._norm}


def signs_of_collapse(row: Mapping[str, float], attainable_rank: int | None = None) -> list[str]:
    """The bounds that an epoch's features and embeddings break, each as a few words; empty for healthy ones.

    Args:
        row: of the history; what it does not hold is not judged.
        attainable_rank: the largest rank that this many images and features can have, if known.
    """
    rank_min = max(EFFECTIVE_RANK_MIN, EFFECTIVE_RANK_SHARE * (attainable_rank or 0))
    std, rank, uniformity = (float(row.get(k, math.nan)) for k in ("feature_std", "effective_rank", "uniformity"))
    signs = []  # comparisons with nan are false
    if std < FEATURE_STD_MIN:
        signs.append(f"feature std {std:.2g} below {FEATURE_STD_MIN:g}")
    if rank < rank_min:
        signs.append(f"effective rank {rank:.1f} below {rank_min:.3g}")
    if uniformity > UNIFORMITY_MAX:
        signs.append(f"uniformity of the embeddings {uniformity:.2f} above {UNIFORMITY_MAX:g}")
    return signs
