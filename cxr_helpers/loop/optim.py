"""Optimisers and the learning-rate schedule: LARS, and a warm-up cosine counted in steps."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor

__all__ = ["LARS", "build_optimizer", "lr_at"]


class LARS(torch.optim.Optimizer):
    """Layer-wise adaptive rate scaling over SGD with momentum.

    A matrix p with gradient g takes the step of SGD with gradient `trust * (g + weight_decay * p)`, where
    `trust = eta * |p| / (|g| + weight_decay * |p|)`, or 1 where either norm is 0. Parameters with one dimension
    (norms, biases) get neither trust ratio nor weight decay.

    Args:
        lr, momentum, weight_decay, eta: 0 or more; lr is 0 in the first step of a warm-up, which moves nothing.
        clip: limit the trust ratio to `min(trust / lr, 1)`, i.e. never above plain SGD at rate 1 (solo-learn's recipe).
    Source:
        arXiv 1708.03888; exclusions as in facebookresearch/vicreg.
    """

    def __init__(
        self,
        params: Iterable[Tensor] | Iterable[dict[str, Any]],
        lr: float,
        momentum: float = 0.9,
        weight_decay: float = 0.0,
        eta: float = 0.001,
        clip: bool = False,
    ) -> None:
        defaults = {"lr": lr, "momentum": momentum, "weight_decay": weight_decay, "eta": eta, "clip": clip}
        for name, value in defaults.items():
            if not 0 <= value < math.inf:
                raise ValueError(f"{name} must be 0 or more and finite, got {value}")
        super().__init__(params, defaults)

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        """Perform one step; `closure`, if given, re-evaluates the loss first and its value is returned."""
        loss = None if closure is None else torch.enable_grad()(closure)()
        for group in self.param_groups:
            for p in group["params"]:
                if p.grad is None:
                    continue
                update = p.grad
                if p.ndim > 1:
                    update = self._scaled(p, update, group)
                if not self.state[p]:
                    self.state[p]["momentum_buffer"] = torch.zeros_like(p)
                velocity = self.state[p]["momentum_buffer"]
                velocity.mul_(group["momentum"]).add_(update)
                p.add_(velocity, alpha=-group["lr"])
        return loss

    @staticmethod
    def _scaled(p: Tensor, grad: Tensor, group: dict[str, Any]) -> Tensor:
        p_norm, g_norm = p.norm(), grad.norm()
        trust = group["eta"] * p_norm / (g_norm + group["weight_decay"] * p_norm)
        if group["clip"] and group["lr"] > 0:
            trust = (trust / group["lr"]).clamp(max=1.0)
        trust = torch.where((p_norm > 0) & (g_norm > 0), trust, torch.ones_like(trust))
        return grad.add(p, alpha=group["weight_decay"]).mul_(trust)


def lr_at(
    step: int, *, base_lr: float, warmup_steps: int, total_steps: int, start_lr: float = 0.0, final_lr: float = 0.0
) -> float:
    """Learning rate of one step: linear from `start_lr` to `base_lr`, then half a cosine down to `final_lr`.

    Args:
        step: optimizer steps already taken, from 0; step `warmup_steps` has `base_lr`, any from `total_steps` the last.
        warmup_steps, total_steps: in optimizer steps, with `0 <= warmup_steps <= total_steps`, else a ValueError.
    Source:
        SGDR's cosine (arXiv 1608.03983) after Goyal et al.'s warm-up (arXiv 1706.02677).
    """
    if step < 0:
        raise ValueError(f"step must be 0 or more, got {step}")
    if not 0 <= warmup_steps <= total_steps:
        raise ValueError(f"warmup_steps must be between 0 and total_steps ({total_steps}), got {warmup_steps}")
    if step < warmup_steps:
        return start_lr + (base_lr - start_lr) * step / warmup_steps
    if step >= total_steps:
        return final_lr
    progress = (step - warmup_steps) / (total_steps - warmup_steps)
    return final_lr + (base_lr - final_lr) * 0.5 * (1 + math.cos(math.pi * progress))


def build_optimizer(name: str, groups: list[dict[str, Any]], lr: float) -> torch.optim.Optimizer:
    """The optimiser of a run over prepared groups: `sgd`, `lars`, both with momentum .9, `adamw`, or `adamw95`."""
    if name == "sgd":
        return torch.optim.SGD(groups, lr=lr, momentum=0.9, foreach=True)
    if name == "lars":
        return LARS(groups, lr=lr)
    assert name in ("adamw", "adamw95")  # the configuration offers these four
    return torch.optim.AdamW(groups, lr=lr, betas=(0.9, 0.95 if name == "adamw95" else 0.999), foreach=True)
