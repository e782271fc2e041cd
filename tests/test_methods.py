"""One contract for every method, and a new method that needs one line."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from conftest import TinyNet, texture_config
from torch import Tensor, nn

from cxr_helpers.augment import NUM_DRAWS, POLICIES, AugmentationPolicy, Normalisation, OneView
from cxr_helpers.config import PretrainConfig, RuntimeConfig
from cxr_helpers.data import Dataset
from cxr_helpers.methods import methods
from cxr_helpers.methods.methods import METHODS, Batch, Method, Target, get_options, projection_head
from cxr_helpers.models import backbones
from cxr_helpers.models.backbones import Backbone
from cxr_helpers.pretrain import pretrain

BINARY = Target(task="binary", num_outputs=1, positive_weight=torch.tensor([0.5]))
NUM_VIEWS = {"simclr": 2, "vicreg": 2, "supervised": 1}
BIG = "hidden_dim", "output_dim"


def build(name: str, target: Target = BINARY, seed: int = 0, **changes: float) -> Method:
    """The method on a real ResNet-18, its heads made narrow."""
    narrow = {f.name: 32 for f in fields(METHODS[name].Options) if f.name in BIG}
    torch.manual_seed(seed)
    backbone = Backbone("resnet18", 1, "imagenet", Normalisation((0.5,), (0.5,)))
    return METHODS[name](backbone, get_options(name, narrow | changes), target)


def batch_for(method: Method, count: int = 4, labels: Tensor | None = None) -> Batch:
    views = method.views(POLICIES["ssl"], 64)
    generator = torch.Generator().manual_seed(1)
    images = torch.randint(0, 256, (count, 1, 64, 64), dtype=torch.uint8, generator=generator)
    draws = torch.rand(count, views.num_views, NUM_DRAWS, generator=generator)
    labels = torch.arange(count) % 2 if labels is None else labels
    return Batch(views=views(images, draws, generator), indices=torch.arange(count), labels=labels)


@pytest.mark.parametrize("name", METHODS)
def test_every_method_keeps_the_contract(name: str) -> None:
    method = build(name)
    batch = batch_for(method)
    assert len(batch.views) == NUM_VIEWS[name]
    assert method.needs_labels is (name == "supervised")

    outputs = method(batch)
    assert outputs["features"].shape == (4, method.backbone.feature_dim)
    terms = method.loss(outputs)
    assert all(term.ndim == 0 and torch.isfinite(term) for term in terms.values())
    terms["loss"].backward()
    without = [parameter for parameter, value in method.named_parameters() if value.grad is None]
    assert not without
    method.after_step()
    assert method.encode(batch.views[0]).shape == (4, method.backbone.feature_dim)


@pytest.mark.parametrize("name", METHODS)
def test_every_methods_state_dict_reproduces_its_outputs(name: str) -> None:
    method, other = build(name, seed=0), build(name, seed=1)
    batch = batch_for(method)
    method(batch)  # running statistics of its own
    method.eval(), other.eval()
    with torch.no_grad():
        expected = method(batch)
        assert not torch.equal(expected["features"], other(batch)["features"])
        other.load_state_dict(method.state_dict())
        for key, value in other(batch).items():
            assert torch.equal(value, expected[key]), key


@pytest.mark.parametrize("name", METHODS)
def test_the_features_of_a_method_are_those_of_the_first_view(name: str) -> None:
    method = build(name).eval()
    batch = batch_for(method)
    with torch.no_grad():
        torch.testing.assert_close(method(batch)["features"], method.encode(batch.views[0]))


@pytest.mark.parametrize("name", METHODS)
def test_all_views_pass_the_backbone_as_one_batch(name: str) -> None:
    method = build(name)
    seen: list[int] = []
    method.backbone.register_forward_hook(lambda module, args, output: seen.append(len(args[0])))
    method(batch_for(method))
    assert seen == [4 * NUM_VIEWS[name]]


@pytest.mark.parametrize("name", METHODS)
def test_a_recipe_names_configuration_fields_and_the_methods_own_options(name: str) -> None:
    recipe = dict(METHODS[name].recipe)
    get_options(name, recipe.pop("options", {}))
    open_fields = {f.name for f in fields(PretrainConfig) if f.default is None}
    assert set(recipe) == open_fields


@pytest.mark.parametrize("name", METHODS)
def test_an_unknown_option_is_refused_with_the_list_of_those_there_are(name: str) -> None:
    known = ", ".join(f.name for f in fields(METHODS[name].Options))
    with pytest.raises(ValueError, match=f"options of {name} must be among {known}, got temprature"):
        get_options(name, {"temprature": 1.0})


def test_an_unknown_method_is_refused_with_the_list() -> None:
    with pytest.raises(ValueError, match=f"method must be one of {', '.join(METHODS)}, got 'simclrv2'"):
        get_options("simclrv2", {})


@pytest.mark.parametrize(
    ("name", "option", "value", "expected"),
    [
        ("simclr", "temperature", 0.0, "temperature must be above 0, got 0.0"),
        ("simclr", "temperature", -1.0, "temperature must be above 0"),
        ("simclr", "temperature", float("nan"), "temperature must be a finite number"),
        ("simclr", "output_dim", 12.5, "output_dim must be a whole number .*, got 12.5"),
        ("simclr", "output_dim", 0, "output_dim must be at least 1, got 0"),
        ("simclr", "hidden_dim", float("inf"), "hidden_dim must be a whole number .*, got inf"),
        ("vicreg", "covariance_weight", -1.0, "covariance_weight must be at least 0, got -1.0"),
        ("supervised", "label_smoothing", 1.0, "label_smoothing must be at least 0 and below 1"),
    ],
)
def test_an_option_out_of_range_is_refused_with_its_range(name: str, option: str, value: float, expected: str) -> None:
    with pytest.raises(ValueError, match=expected):
        get_options(name, {option: value})


def test_words_become_numbers_and_a_term_may_be_switched_off() -> None:
    options = get_options("vicreg", {"output_dim": "64", "covariance_weight": 0.0})
    assert options.output_dim == 64 and isinstance(options.output_dim, int)
    assert options.covariance_weight == 0


def linear_sizes(head: nn.Module) -> list[tuple[int, int]]:
    return [(m.in_features, m.out_features) for m in head.modules() if isinstance(m, nn.Linear)]


def test_projection_heads_have_the_papers_dimensions_by_default() -> None:
    backbone = Backbone("resnet18", 1, "imagenet", Normalisation((0.5,), (0.5,)))
    simclr = METHODS["simclr"](backbone, get_options("simclr", {}), BINARY)
    assert linear_sizes(simclr.head) == [(512, 512), (512, 128)]
    wide = get_options("vicreg", {"hidden_dim": 2048, "output_dim": 2048})
    assert linear_sizes(METHODS["vicreg"](backbone, wide, BINARY).head) == [(512, 2048), (2048, 2048), (2048, 2048)]


def test_a_projection_head_normalises_between_its_layers_and_not_after_the_last() -> None:
    kinds = [type(layer) for layer in projection_head((8, 16, 16, 4), norm=True)]
    assert kinds == [nn.Linear, nn.BatchNorm1d, nn.ReLU, nn.Linear, nn.BatchNorm1d, nn.ReLU, nn.Linear]
    head = projection_head((8, 16, 4), norm=False)
    assert [type(layer) for layer in head] == [nn.Linear, nn.ReLU, nn.Linear]
    assert head[0].bias is not None and head(torch.zeros(2, 8)).shape == (2, 4)


TASKS = {
    "binary": (1, torch.tensor([0, 1, 1, 1])),
    "multiclass": (3, torch.tensor([0, 1, 2, 1])),
    "multilabel": (2, torch.tensor([[0, 1], [1, 1], [0, 0], [1, 0]])),
}


@pytest.mark.parametrize("task", TASKS)
def test_the_supervised_loss_is_torchs_on_labels_of_every_task(task: str) -> None:
    outputs, labels = TASKS[task]
    weight = None if task == "multiclass" else torch.linspace(0.5, 2, outputs)
    method = build("supervised", Target(task=task, num_outputs=outputs, positive_weight=weight))
    result = method(batch_for(method, labels=labels))
    logits = result["logits"].double()
    if task == "multiclass":
        expected = -logits.log_softmax(1)[torch.arange(4), labels].mean()
    else:
        assert weight is not None
        y, p = labels.reshape(4, outputs).double(), logits.sigmoid()
        expected = -(weight.double() * y * p.log() + (1 - y) * (1 - p).log()).mean()
    torch.testing.assert_close(method.loss(result)["loss"].double(), expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("task", TASKS)
def test_label_smoothing_moves_the_optimum_off_certainty(task: str) -> None:
    outputs, labels = TASKS[task]
    target = Target(task=task, num_outputs=outputs)
    plain, smooth = (build("supervised", target, label_smoothing=s) for s in (0.0, 0.2))
    certain = 50.0 * (F.one_hot(labels, 3) if task == "multiclass" else 2 * labels.reshape(4, -1) - 1).float()
    result = {"logits": certain, "labels": labels}
    assert float(plain.loss(result)["loss"]) < 1e-6
    assert float(smooth.loss(result)["loss"]) > 1
    odds = 0.8667 / 0.0667 if task == "multiclass" else 9.0  # of the label against another, of .9 against .1
    best = (certain / 50 * math.log(odds)).requires_grad_()
    smooth.loss({"logits": best, "labels": labels})["loss"].backward()
    assert best.grad is not None and best.grad.abs().max() < 1e-4


def test_only_a_supervised_method_has_a_classifier() -> None:
    assert [name for name in METHODS if build(name).classifier() is not None] == ["supervised"]


class Rotation(Method):
    """A new pretext task: which quarter turn was an image given? One view, its own head, draws of its own."""

    @dataclass(frozen=True, kw_only=True)
    class Options:
        turns: int = 4

    recipe: ClassVar[dict[str, Any]] = {
        "optimizer": "sgd",
        "lr": 0.5,
        "weight_decay": 0.0,
        "batch_size": 8,
        "warmup_epochs": 0,
    }

    def make_head(self) -> nn.Module:
        return nn.Linear(self.backbone.feature_dim, self.options.turns)

    def views(self, policy: AugmentationPolicy, size: int) -> OneView:
        return OneView(policy, size)

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        (x,) = batch.views
        turns = torch.randint(self.options.turns, (len(x),), device=x.device)
        features = self.backbone(torch.stack([image.rot90(int(k), (1, 2)) for image, k in zip(x, turns, strict=True)]))
        return {"features": features, "logits": self.head(features), "turns": turns}

    def loss(self, outputs: Any) -> dict[str, Tensor]:
        right = (outputs["logits"].argmax(1) == outputs["turns"]).float().mean()
        return {"loss": F.cross_entropy(outputs["logits"], outputs["turns"]), "rotation_accuracy": right}


class StopError(Exception):
    pass


def test_a_new_method_trains_logs_and_resumes_after_one_line_in_methods(
    monkeypatch: pytest.MonkeyPatch, tiny_net: None, textures: Dataset, runtime: RuntimeConfig
) -> None:
    monkeypatch.setitem(methods.METHODS, "rotation", Rotation)
    config = texture_config(method="rotation", options={}, batch_size=None, warmup_epochs=None, epochs=3)

    def interrupt(history: Any) -> None:
        if len(history) == 1:
            raise StopError

    run = pretrain(config, textures, runtime)
    assert run.record["batch_size"] == 8 and run.record["options"] == {"turns": 4}
    assert list(run.history["epoch"]) == [1, 2, 3]
    assert run.history["loss"].nunique() == 3
    assert run.history["rotation_accuracy"].between(0, 1).all()
    assert {"online_auc", "knn_auc", "feature_std"} <= set(run.history)
    assert "alignment" not in run.history

    loss = run.history["loss"]
    with pytest.raises(StopError):
        pretrain(config, textures, runtime, fresh=True, on_epoch=interrupt)
    resumed = pretrain(config, textures, runtime)
    assert resumed.status == "resumed"
    np.testing.assert_array_equal(resumed.history["loss"], loss)  # draws inside the method come from the epoch's seed


def test_the_tiny_network_of_these_tests_stands_in_for_a_resnet(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(backbones._BUILDERS, "resnet18", TinyNet)
    backbone = Backbone("resnet18", 1, "imagenet", Normalisation((0.5,), (0.5,)))
    assert backbone(torch.zeros(2, 1, 64, 64)).shape == (2, backbone.feature_dim)
