"""Steps that are not finite are left out as if they had not been; collapse is seen; finite steps are not touched."""

from __future__ import annotations

import copy
import importlib
import math
import warnings
from collections.abc import Mapping
from typing import Any

import pandas as pd
import pytest
import torch
from conftest import texture_config
from torch import Tensor

from cxr_helpers.config import RuntimeConfig
from cxr_helpers.data import Dataset
from cxr_helpers.loop.guards import Ahead, DivergedError, Progress, StepGuard, signs_of_collapse, stop_if_diverged
from cxr_helpers.methods import METHODS
from cxr_helpers.methods.joint import SimCLR
from cxr_helpers.methods.supervised import Supervised
from cxr_helpers.pretrain import pretrain
from cxr_helpers.runs import Run, RunWarning

loop = importlib.import_module("cxr_helpers.loop.loop")
pytestmark = pytest.mark.usefixtures("tiny_net")
CPU = torch.device("cpu")
FOUR = {"batch_size": 10, "epochs": 2}  # four steps an epoch


def spoil(monkeypatch: pytest.MonkeyPatch, steps: set[int], where: str = "loss") -> list[dict[str, Any]]:
    """Make the loss, or only its gradient, not finite at these steps (from 1); returns the state before each step."""
    seen: list[dict[str, Any]] = []
    real_loss, real_remember = SimCLR.loss, StepGuard.remember

    def remember(self: StepGuard) -> None:
        training = loop.training_of_test
        parts = {"method": training.method, "optimizer": training.optimizer, "probe": training.probe}
        seen.append({name: copy.deepcopy(part.state_dict()) for name, part in parts.items()})
        real_remember(self)

    def loss(self: SimCLR, outputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        terms = real_loss(self, outputs)
        if len(seen) not in steps:
            return terms
        if where == "gradient":
            outputs["z_a"].register_hook(lambda gradient: gradient * math.inf)
            return terms
        return {name: value * math.nan for name, value in terms.items()}

    def build(*arguments: Any) -> Any:
        loop.training_of_test = real_build(*arguments)
        return loop.training_of_test

    pretraining = importlib.import_module("cxr_helpers.pretrain")
    real_build = pretraining.build_training
    monkeypatch.setattr(loop, "training_of_test", None, raising=False)
    monkeypatch.setattr(pretraining, "build_training", build)
    monkeypatch.setattr(StepGuard, "remember", remember)
    monkeypatch.setattr(SimCLR, "loss", loss)
    return seen


def same(a: Any, b: Any) -> bool:
    if isinstance(a, Tensor):
        return torch.equal(a, b)
    if isinstance(a, Mapping):
        return a.keys() == b.keys() and all(same(a[key], b[key]) for key in a)
    if isinstance(a, list | tuple):
        return len(a) == len(b) and all(map(same, a, b))
    return a == b


@pytest.mark.parametrize("where", ["loss", "gradient"])
def test_a_step_that_is_not_finite_changes_nothing_but_the_count(
    where: str, textures: Dataset, runtime: RuntimeConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = spoil(monkeypatch, {3}, where)
    history = pretrain(texture_config(**FOUR), textures, runtime).history
    weightless = [{**state, "optimizer": state["optimizer"]["state"]} for state in seen]  # its rates are set by step
    assert same(weightless[2], weightless[3])
    assert not same(weightless[1], weightless[2]) and not same(weightless[3], weightless[4])
    assert list(history["skipped_steps"]) == [1, 0] and history.notna().all(axis=None)


def test_the_means_are_those_of_the_steps_that_count(
    textures: Dataset, runtime: RuntimeConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    losses: list[float] = []
    real = Progress.count

    def count(self: Progress, terms: Mapping[str, Tensor]) -> None:
        losses.append(float(terms["loss"].detach()))
        real(self, terms)

    monkeypatch.setattr(Progress, "count", count)
    spoil(monkeypatch, {1, 6})
    history = pretrain(texture_config(**FOUR), textures, runtime).history
    assert len(losses) == 6
    assert history["loss"].tolist() == pytest.approx([sum(losses[:3]) / 3, sum(losses[3:]) / 3], rel=1e-6)
    assert history["first_loss"].tolist() == pytest.approx([losses[0], losses[3]], rel=1e-6)


def test_five_in_a_row_stop_the_run_also_across_epochs(
    textures: Dataset, runtime: RuntimeConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    spoil(monkeypatch, {6, 7, 8, 9, 10})
    with pytest.raises(DivergedError) as caught:
        pretrain(texture_config(**FOUR | {"epochs": 3}), textures, runtime)
    text = str(caught.value)
    assert text.startswith(
        "5 steps in a row had a loss or gradient that is not finite, the last of them in epoch 3, step 2"
    )
    assert "(loss nan, norm of the gradient nan): try a lower --lr" in text
    assert text.endswith("; the checkpoint of epoch 1 is kept")  # epoch 2 ended in a skipped step


def test_four_in_a_row_twice_do_not(textures: Dataset, runtime: RuntimeConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    spoil(monkeypatch, {1, 2, 3, 4, 6, 7, 8})  # a whole epoch without a step that counts
    history = pretrain(texture_config(**FOUR), textures, runtime).history
    assert list(history["skipped_steps"]) == [4, 3]
    assert history["loss"].isna().tolist() == [True, False]


def test_what_was_measured_after_an_epoch_stops_the_run_if_it_is_not_finite() -> None:
    stop_if_diverged({"feature_std": 1.0}, 0, 0, 0.1)
    with pytest.raises(
        DivergedError, match=r"feature_std became nan in epoch 1, step 3, at .* 0\.1 \(feature_std nan\)"
    ):
        stop_if_diverged({"feature_std": math.nan}, 0, 2, 0.1)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_the_answer_of_a_gpu_is_that_of_a_cpu() -> None:
    layer = torch.nn.Linear(4, 1, device="cuda")
    optimizer = torch.optim.SGD(layer.parameters(), lr=0.1)
    guard = StepGuard(layer, optimizer)
    for factor, finite in ((1.0, True), (math.inf, False), (math.nan, False), (1.0, True)):
        optimizer.zero_grad()
        loss = layer(torch.ones(2, 4, device="cuda")).sum() * factor
        loss.backward()
        guard.look(loss)
        assert guard.finite() is finite


def test_a_progress_is_read_back_as_it_was() -> None:
    progress = Progress(epoch=3)
    for loss in (1.0, 0.1, 0.7):
        progress.count({"loss": torch.tensor(loss), "online_loss": torch.tensor(2 * loss)})
        progress.step += 1
    progress.skipped = 2
    torch.manual_seed(5)
    state = progress.state(CPU, 12.5)
    expected = torch.rand(3)
    again = Progress.read(state, CPU)
    again.restore_generators(CPU)
    assert torch.equal(torch.rand(3), expected)
    assert again.means() == progress.means() and again.first_loss == 1.0 and again.seconds == 12.5
    assert (again.epoch, again.step, again.counted, again.skipped, again.trained) == (3, 3, 3, 2, None)


def test_an_iterator_can_be_asked_ahead_without_changing_what_comes() -> None:
    made: list[int] = []
    ahead = Ahead(made.append(i) or i for i in range(3))  # type: ignore[func-returns-value]
    ahead.prepare()
    ahead.prepare()
    assert made == [0]
    found = []
    for item in ahead:
        found.append(item)
        ahead.prepare()
        assert len(made) == min(item + 2, 3)
    assert found == [0, 1, 2]


# ---- collapse


@pytest.mark.parametrize(
    ("row", "attainable", "signs"),
    [
        ({"feature_std": 0.12, "effective_rank": 190.0, "uniformity": -1.6}, 512, 0),
        ({"feature_std": 0.009, "effective_rank": 190.0}, 512, 1),
        ({"feature_std": 0.12, "effective_rank": 5.0}, 512, 1),
        ({"feature_std": 0.12, "effective_rank": 5.2}, 512, 0),
        ({"feature_std": 0.12, "effective_rank": 5.0}, 31, 0),
        ({"feature_std": 0.12, "effective_rank": 1.9}, 31, 1),
        ({"feature_std": 0.0, "effective_rank": 0.0, "uniformity": 0.0}, None, 3),
        ({"uniformity": -0.09}, None, 1),
        ({"uniformity": math.nan}, None, 0),
        ({}, None, 0),
    ],
)
def test_bounds_of_collapse(row: dict[str, float], attainable: int | None, signs: int) -> None:
    assert len(signs_of_collapse(row, attainable)) == signs


class CollapsedSimCLR(SimCLR):
    """All images at almost one point of the unit sphere."""

    def encode(self, x: Tensor) -> Tensor:
        return super().encode(x) + 1e3


class CollapsedSupervised(Supervised):
    """The same for a method that learns from labels."""

    def encode(self, x: Tensor) -> Tensor:
        return super().encode(x) + 1e3


def collapsed_run(method: str, dataset: Dataset, runtime: RuntimeConfig, monkeypatch: pytest.MonkeyPatch) -> Run:
    monkeypatch.setitem(METHODS, "simclr", CollapsedSimCLR)
    monkeypatch.setitem(METHODS, "supervised", CollapsedSupervised)
    return pretrain(texture_config(method=method, epochs=2), dataset, runtime)


def test_a_collapse_is_warned_of_once_and_stands_in_history_and_bar(
    textures: Dataset, runtime: RuntimeConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    titles: list[str] = []
    monkeypatch.setattr(loop.tqdm, "set_description", lambda self, title: titles.append(title))
    with pytest.warns(RunWarning, match=r"textures-.* collapses in epoch 1: feature std .* below 0\.01") as warned:
        history = collapsed_run("simclr", textures, runtime, monkeypatch).history
    assert len([w for w in warned if w.category is RunWarning]) == 1
    assert (history["collapsed"] >= 1).all()
    assert [title.endswith("COLLAPSED") for title in titles] == [False, True]


def test_features_learnt_from_labels_may_lie_on_few_points(
    textures: Dataset, runtime: RuntimeConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error", RunWarning)
        history = collapsed_run("supervised", textures, runtime, monkeypatch).history
    assert isinstance(history, pd.DataFrame) and (history["collapsed"] == 0).all()
