"""One step's gradient: the whole batch's, in parts or shared by two processes."""

import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
from conftest import TinyNet, new_run
from lightning_fabric import Fabric
from shares import SHARED, Alone, frozen_task, in_float64, weights_of
from torch import Tensor, nn

from cxr_helpers.augment import Normalisation
from cxr_helpers.loop import fit, step_gradient
from cxr_helpers.loop.step import split_batch
from cxr_helpers.methods import METHODS, Batch, Method, Target, get_options, load_method
from cxr_helpers.models import build_backbone

IMAGES = 10
HERE = Path(__file__).resolve().parent
WIDE = in_float64(Fabric(accelerator="cpu", devices=1, precision="64-true"))


@pytest.fixture(autouse=True)
def methods(tiny_net: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(METHODS, "alone", Alone)


def method_of(name: str, *, dropout: float = 0.0) -> Method:
    normalisation = Normalisation(mean=(0.5,), std=(0.25,))
    backbone = build_backbone("resnet18", channels=1, size=64, init="random", normalisation=normalisation, seed=0)
    options = {} if name == "supervised" else {"hidden_dim": 16, "output_dim": 8}
    torch.manual_seed(1)
    method = load_method(name)(backbone, get_options(name, options), Target(task="multiclass", num_outputs=3))
    method.head = nn.Sequential(nn.Dropout(dropout), method.head)
    return method.double()


def batch_of(method: str) -> Batch:
    torch.manual_seed(2)
    views = tuple(torch.randn(IMAGES, 1, 64, 64, dtype=torch.float64) for _ in range(1 + (method != "supervised")))
    draws = torch.rand(IMAGES, 2, dtype=torch.float64)
    return Batch(views=views, indices=torch.arange(IMAGES), labels=torch.arange(IMAGES) % 3, draws=draws)


def gradients(method: nn.Module) -> dict[str, Tensor]:
    return {name: p.grad.clone() for name, p in method.named_parameters() if p.grad is not None}


def close(a: Mapping[str, Tensor], b: Mapping[str, Tensor], atol: float = 1e-13) -> None:
    assert a.keys() == b.keys()
    for name in a:
        torch.testing.assert_close(a[name], b[name], rtol=1e-10, atol=atol, msg=lambda text, n=name: f"{n}: {text}")


def step(method: Method, batch: Batch, micro_batch: int | None) -> tuple[Any, Any, dict[str, Tensor]]:
    method.zero_grad()
    options: dict[str, Any] = {"fabric": WIDE, "micro_batch": micro_batch, "pairwise": method.pairwise}
    outputs, terms = step_gradient(WIDE.setup(method), method.loss, batch, **options)
    return outputs, terms, gradients(method)


@pytest.mark.parametrize("name", ["simclr", "vicreg", "supervised", "alone"])
@pytest.mark.parametrize("micro_batch", [3, 7])
def test_parts_have_the_whole_batchs_gradient(name: str, micro_batch: int) -> None:
    method, batch = method_of(name).eval(), batch_of(name)
    before = {name: b.clone() for name, b in method.named_buffers()}
    whole = step(method, batch, None)
    Alone.passes = 0
    for found, expected in zip(step(method, batch, micro_batch), whole, strict=True):
        close(found, expected)
    assert max(float(g.abs().max()) for g in whole[2].values()) > 1e-6
    assert name != "alone" or Alone.passes == len(split_batch(batch, micro_batch))  # once each
    assert all(torch.equal(b, before[name]) for name, b in method.named_buffers())  # frozen statistics stay


@pytest.mark.parametrize("name", ["simclr", "vicreg"])
def test_in_training_the_parts_equal_one_graph_over_all_of_them(name: str) -> None:
    """With dropout and each part's own BatchNorm statistics: the reference keeps every part's activations at once."""
    method, batch = method_of(name, dropout=0.5).train(), batch_of(name)
    state = torch.get_rng_state()
    outputs = [method(part) for part in split_batch(batch, 4)]
    terms = method.loss({key: torch.cat([o[key] for o in outputs]) for key in outputs[0]})
    terms["loss"].backward()
    expected = gradients(method)
    torch.set_rng_state(state)
    cached = step(method, batch, 4)
    close({k: v.detach() for k, v in terms.items()}, cached[1])
    close(expected, cached[2])


@pytest.mark.parametrize(("name", "usual"), [("simclr", 0.1), ("simclr", None), ("alone", 0.1)])
def test_running_statistics_move_once_by_the_mean_of_the_parts(name: str, usual: float | None) -> None:
    method, batch = method_of(name).train(), batch_of(name)
    net = method.backbone.net
    assert isinstance(net, TinyNet)
    with torch.no_grad():
        net.bn1.momentum = usual
        net.bn1.running_mean.fill_(3.0)
        net.bn1.num_batches_tracked.fill_(4)
        parts = [net.conv1(torch.cat(part.views)).mean((0, 2, 3)) for part in split_batch(batch, 4)]
    step(method, batch, 4)
    weight = 1 / 5 if usual is None else usual
    torch.testing.assert_close(net.bn1.running_mean, 3 + weight * (torch.stack(parts).mean(0) - 3))
    assert int(net.bn1.num_batches_tracked) == 5 and net.bn1.momentum == usual


@pytest.mark.parametrize(("size", "sizes"), [(10, [10]), (9, [5, 5]), (4, [4, 3, 3])])
def test_a_batch_is_split_evenly(size: int, sizes: list[int]) -> None:
    parts = split_batch(batch_of("simclr"), size)
    assert [len(part.indices) for part in parts] == sizes
    assert torch.cat([part.indices for part in parts]).tolist() == list(range(IMAGES))


def test_activations_are_kept_for_one_part_only() -> None:
    kept, peaks = [0], []

    class Kept:
        def __init__(self, tensor: Tensor) -> None:
            self.tensor = tensor
            kept[0] += tensor.nbytes
            peaks[-1] = max(peaks[-1], kept[0])

        def __del__(self) -> None:
            kept[0] -= self.tensor.nbytes

    for micro_batch in (None, 2):
        peaks.append(0)
        with torch.autograd.graph.saved_tensors_hooks(Kept, lambda kept: kept.tensor):
            step(method_of("simclr").train(), batch_of("simclr"), micro_batch)
    assert peaks[1] == pytest.approx(peaks[0] / 5, rel=0.05)


@pytest.mark.slow
def test_two_processes_take_the_steps_of_one(tmp_path: Path) -> None:
    """The same losses and weights after an epoch in float64 with BatchNorm frozen; one process goes on from there."""
    launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    command = [sys.executable, *launcher, str(HERE / "shares.py"), str(tmp_path)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(HERE.parent)}
    subprocess.run(command, cwd=HERE.parent, env=environment, timeout=900, check=True)
    for name in SHARED:
        whole, shared = frozen_task(name, None), frozen_task(name, None)
        start, runs = weights_of(whole), [new_run(tmp_path / part) for part in (f"{name}-whole", name)]
        assert [fit(task, run, 2, progress=False) for task, run in zip((whole, shared), runs, strict=True)] == [1, 2]
        histories = [run.history[["loss", "online_loss", "gradient_norm", "lr"]] for run in runs]
        pd.testing.assert_frame_equal(*histories, rtol=1e-6)
        after = weights_of(shared)
        close(weights_of(whole), after, atol=1e-9)  # views are float32, their last bit depends on their batch
        assert max(float((value - start[key]).abs().max()) for key, value in after.items()) > 1e-5
