"""LARS against a step by hand, the schedule at its corners."""

import math
from typing import Any

import pytest
import torch
from torch import nn

from cxr_helpers import LARS, lr_at
from cxr_helpers.loop import build_optimizer

SCHEDULE = {"base_lr": 0.8, "warmup_steps": 10, "total_steps": 110}


def parameter(values: list[list[float]] | list[float], grad: list[list[float]] | list[float]) -> nn.Parameter:
    p = nn.Parameter(torch.tensor(values, dtype=torch.float64))
    p.grad = torch.tensor(grad, dtype=torch.float64)
    return p


def test_lars_takes_the_step_computed_by_hand_twice() -> None:
    """|p| = 5, |g| = 13, weight decay .1: trust = .02 * 5 / (13 + .5) and the update is trust * (g + .1 p)."""
    p = parameter([[3.0, 4.0]], [[5.0, 12.0]])
    optimizer = LARS([p], lr=0.5, momentum=0.9, weight_decay=0.1, eta=0.02)
    optimizer.step()
    trust = 0.02 * 5 / (13 + 0.1 * 5)
    velocity = [trust * (5 + 0.3), trust * (12 + 0.4)]
    first = [3 - 0.5 * velocity[0], 4 - 0.5 * velocity[1]]
    assert p.tolist()[0] == pytest.approx(first, rel=1e-14)

    p.grad = torch.tensor([[0.0, 2.0]], dtype=torch.float64)
    optimizer.step()
    norm = math.hypot(*first)
    trust = 0.02 * norm / (2 + 0.1 * norm)
    update = [trust * (0.1 * first[0]), trust * (2 + 0.1 * first[1])]
    velocity = [0.9 * v + u for v, u in zip(velocity, update, strict=True)]
    assert p.tolist()[0] == pytest.approx([f - 0.5 * v for f, v in zip(first, velocity, strict=True)], rel=1e-14)


@pytest.mark.parametrize(
    ("values", "grad", "options", "after"),
    [
        ([3.0, 4.0], [5.0, 12.0], {"lr": 0.5, "weight_decay": 0.1, "eta": 0.02}, [0.5, -2.0]),  # vectors: plain SGD
        ([[3.0, 4.0]], [[5.0, 12.0]], {"lr": 0.0, "weight_decay": 0.1, "clip": True}, [[3.0, 4.0]]),
        ([[3.0, 4.0]], [[5.0, 12.0]], {"lr": 0.5, "eta": 10.0, "clip": True}, [[0.5, -2.0]]),  # 50 / 13 over .5: 1
        ([[0.0, 0.0]], [[1.0, 0.0]], {"lr": 0.1}, [[-0.1, 0.0]]),  # no weight, no gradient: no ratio of norms
        ([[1.0, 0.0]], [[0.0, 0.0]], {"lr": 0.1}, [[1.0, 0.0]]),
    ],
)
def test_where_no_ratio_of_norms_is_taken_the_step_is_sgds(values: Any, grad: Any, options: Any, after: Any) -> None:
    p = parameter(values, grad)
    LARS([p], **options).step()
    torch.testing.assert_close(p.detach(), torch.tensor(after, dtype=torch.float64))


def test_the_schedule_starts_peaks_and_ends_where_it_says() -> None:
    corners = {0: 0.0, 5: 0.4, 10: 0.8, 35: 0.4 * (1 + math.sqrt(0.5)), 60: 0.4, 110: 0.0, 500: 0.0}
    assert {step: lr_at(step, **SCHEDULE) for step in corners} == pytest.approx(corners)
    assert lr_at(0, **SCHEDULE, start_lr=0.1) == pytest.approx(0.1)
    assert lr_at(60, **SCHEDULE, final_lr=0.2) == pytest.approx(0.5)
    assert lr_at(0, base_lr=0.3, warmup_steps=0, total_steps=7) == pytest.approx(0.3)  # without warm-up
    with pytest.raises(ValueError, match="must be"):
        lr_at(0, **SCHEDULE | {"warmup_steps": 200})


@pytest.mark.parametrize("name", ["sgd", "lars"])
def test_the_second_step_carries_nine_tenths_of_the_first(name: str) -> None:
    p = parameter([0.0], [1.0])
    optimizer = build_optimizer(name, [{"params": [p], "weight_decay": 0.0, "lr_factor": 1.0}], 0.1)
    optimizer.step()
    optimizer.step()
    assert p.tolist() == pytest.approx([-0.1 - 0.19])


def test_adamw95_is_adamw_with_the_betas_of_masked_autoencoding() -> None:
    for name, betas in (("adamw", (0.9, 0.999)), ("adamw95", (0.9, 0.95))):
        optimizer = build_optimizer(name, [{"params": [parameter([0.0], [1.0])], "weight_decay": 0.05}], 0.1)
        assert isinstance(optimizer, torch.optim.AdamW) and optimizer.param_groups[0]["betas"] == betas
