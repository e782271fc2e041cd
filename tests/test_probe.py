"""Probes: exact solutions against scikit-learn, choices that never look at test, no gradient into a backbone."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.special import expit
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import log_loss
from torch import nn
from torch.nn import functional as F

from cxr_helpers.augment import Normalisation, eval_transform
from cxr_helpers.config import ProbeConfig
from cxr_helpers.data import Split, Task
from cxr_helpers.probe import (
    Features,
    OnlineProbe,
    auc_score,
    extract_features,
    knn_probe,
    linear_probe,
    pixel_features,
    sgd_probe,
)
from cxr_helpers.probe.logistic import (
    Logistic,
    choose_c,
    cross_validate,
    fit_head,
    one_standard_error,
    split_folds,
    standardisation,
)

CONFIG = ProbeConfig(cs=(1e-3, 1e-2, 1e-1, 1.0), sgd_epochs=4, sgd_lr=0.05, sgd_batch_size=64)
TASKS: tuple[Task, ...] = ("binary", "multiclass", "multilabel")


def make(task: Task, num: int = 240, dim: int = 12, seed: int = 0) -> Features:
    """Correlated features of uneven scale, labels that depend on them, three images a patient."""
    rules = np.random.default_rng(99)
    mix, weights = rules.normal(size=(dim, dim)), rules.normal(size=(dim, 3))
    rng = np.random.default_rng(seed)
    hidden = rng.normal(size=(num, dim))
    x = (hidden @ mix * np.geomspace(0.01, 10, dim) + 5).astype(np.float32)
    logits = hidden @ weights / 2
    if task == "multiclass":
        labels = (logits + rng.gumbel(size=logits.shape)).argmax(axis=1)
    else:
        labels = (logits + rng.logistic(size=logits.shape) > [0, 1, 2]).astype(np.int64)
        labels = labels[:, 0] if task == "binary" else labels
    return Features(x, labels, np.array([f"patient{i // 3}" for i in range(num)]))


def hide(features: Features, rows: slice) -> Features:
    labels = features.labels.copy()
    labels[rows] = -1
    return replace(features, labels=labels)


# ---- online probe


@pytest.mark.parametrize("task", TASKS)
def test_a_step_of_the_online_probe_leaves_features_and_their_graph_untouched(task: Task) -> None:
    data = make(task)
    backbone = nn.Linear(12, 12)
    h = backbone(torch.from_numpy(data.x))
    probe = OnlineProbe(12, task, 1 if task == "binary" else 3, torch.from_numpy(data.labels))
    before = probe.linear.weight.detach().clone()
    loss = probe.step(h, torch.from_numpy(data.labels))
    assert not loss.requires_grad
    assert backbone.weight.grad is None
    assert not torch.equal(before, probe.linear.weight)
    h.sum().backward()  # the graph is still whole
    assert backbone.weight.grad is not None


@pytest.mark.parametrize("task", TASKS)
def test_the_online_probe_learns_what_is_linear(task: Task) -> None:
    data = make(task)
    x = torch.from_numpy((data.x - data.x.mean(0)) / data.x.std(0))
    probe = OnlineProbe(12, task, 1 if task == "binary" else 3, torch.from_numpy(data.labels), lr=0.02)
    losses = [float(probe.step(x, torch.from_numpy(data.labels))) for _ in range(60)]
    assert losses[-1] < 0.9 * losses[0]
    scores = probe.scores(x)
    assert scores.shape == (240,) if task == "binary" else scores.shape == (240, 3)
    assert auc_score(data.labels, scores) > 0.65


def test_unlabelled_rows_do_not_move_the_online_probe() -> None:
    data = make("multilabel")
    part = hide(data, slice(100, None))
    x, y = torch.from_numpy(data.x), torch.from_numpy(part.labels)
    torch.manual_seed(0)
    masked = OnlineProbe(12, "multilabel", 3, y)
    cut = OnlineProbe(12, "multilabel", 3, y)
    cut.load_state_dict(masked.state_dict())
    for _ in range(3):
        assert float(masked.step(x, y)) == pytest.approx(float(cut.step(x[:100], y[:100])), rel=1e-5)
    torch.testing.assert_close(masked.linear.weight, cut.linear.weight, rtol=1e-4, atol=1e-6)


def test_a_batch_without_labels_makes_no_step() -> None:
    data = hide(make("binary"), slice(0, 100))
    x, y = torch.from_numpy(data.x), torch.from_numpy(data.labels)
    probe = OnlineProbe(12, "binary", 1, y)
    probe.step(x, y)  # there is momentum now
    before = probe.linear.weight.detach().clone()
    assert float(probe.step(x[:100], y[:100])) == 0
    assert torch.equal(before, probe.linear.weight)


def test_class_weights_are_negatives_over_positives_of_labelled_rows_and_capped() -> None:
    labels = torch.tensor([[1, 0, 0]] * 2 + [[0, 1, 0]] * 6 + [[0, 0, 0]] * 92 + [[-1, -1, -1]] * 50)
    probe = OnlineProbe(4, "multilabel", 3, labels, max_weight=20)
    torch.testing.assert_close(probe.pos_weight, torch.tensor([20.0, 94 / 6, 20.0]))
    x = torch.randn(100, 4)
    expected = F.binary_cross_entropy_with_logits(probe(x), labels[:100].float(), pos_weight=probe.pos_weight)
    torch.testing.assert_close(probe.loss(x, labels[:100]), expected)


def test_a_restored_online_probe_continues_identically() -> None:
    data = make("binary")
    x, y = torch.from_numpy(data.x), torch.from_numpy(data.labels)
    first, second = OnlineProbe(12, "binary", 1, y), OnlineProbe(12, "binary", 1, y)
    for _ in range(3):
        first.step(x, y)
    second.load_state_dict(first.state_dict())
    for probe in (first, second):  # one after the other: shared moments would show
        probe.step(x, y)
        probe.step(x, y)
    assert torch.equal(first.linear.weight, second.linear.weight)


def test_the_online_probe_computes_in_float32_under_autocast() -> None:
    data = make("binary")
    probe = OnlineProbe(12, "binary", 1, torch.from_numpy(data.labels))
    with torch.autocast("cpu", torch.bfloat16):
        assert probe(torch.from_numpy(data.x).bfloat16()).dtype == torch.float32


# ---- features


def small_split(num: int = 20) -> Split:
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (num, 1, 16, 16), dtype=torch.uint8, generator=generator)
    return Split(images=images, labels=torch.arange(num) % 2, groups=np.array([str(i // 2) for i in range(num)]))


def test_features_are_those_of_eval_mode_and_each_module_gets_its_mode_back() -> None:
    split, normalisation = small_split(), Normalisation((0.5,), (0.25,))
    backbone = nn.Sequential(nn.Flatten(), nn.Linear(256, 8), nn.BatchNorm1d(8), nn.Dropout(0.5))
    backbone[2].eval()  # frozen by somebody, and to stay so
    features = extract_features(backbone, split, normalisation, batch_size=7)
    assert [m.training for m in backbone] == [True, True, False, True]
    assert backbone.training
    backbone.eval()
    with torch.no_grad():
        expected = backbone(eval_transform(split.images, normalisation))
    np.testing.assert_allclose(features.x, expected.numpy(), atol=1e-6)
    assert features.x.dtype == np.float32
    np.testing.assert_array_equal(features.labels, split.labels)
    assert features.groups is split.groups


def test_a_bound_encode_puts_its_module_in_eval_mode() -> None:
    class Method(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.backbone = nn.Sequential(nn.Flatten(), nn.Dropout(0.5))

        def encode(self, x: torch.Tensor) -> torch.Tensor:
            assert not self.training
            return self.backbone(x)

    method, normalisation = Method(), Normalisation((0.0,), (1.0,))
    features = extract_features(method.encode, small_split(), normalisation)
    np.testing.assert_allclose(features.x, eval_transform(small_split().images, normalisation).flatten(1), atol=1e-6)
    assert method.training


def test_pixel_features_are_block_means() -> None:
    split = small_split()
    blocks = split.images[:, 0].double().reshape(20, 4, 4, 4, 4).mean(dim=(2, 4)) / 255
    np.testing.assert_allclose(pixel_features(split, side=4).x, blocks.flatten(1), atol=1e-6)


# ---- linear probe


@pytest.mark.parametrize("c", [1e-3, 1.0, 100.0])
def test_the_joint_fit_equals_sklearn_label_by_label(c: float) -> None:
    data = make("multilabel")
    mean, std = standardisation(data.x)
    x = (data.x - mean) / std
    model = Logistic(x, data.labels.astype(np.float64), softmax=False)
    assert model.fit(c / 10, max_iter=500)  # on the way along the path
    assert model.fit(c, max_iter=500)
    weights, bias = model.coefficients()
    for i in range(3):
        reference = LogisticRegression(C=c, tol=1e-10, max_iter=10_000, solver="newton-cholesky").fit(
            x, data.labels[:, i]
        )
        np.testing.assert_allclose(weights[:, i], reference.coef_[0], atol=1e-4)
        np.testing.assert_allclose(bias[i], reference.intercept_[0], atol=1e-4)


@pytest.mark.parametrize("c", [1e-3, 1.0])
def test_the_softmax_fit_equals_sklearn(c: float) -> None:
    data = make("multiclass")
    mean, std = standardisation(data.x)
    x = (data.x - mean) / std
    model = Logistic(x, np.eye(3)[data.labels], softmax=True)
    assert model.fit(c, max_iter=500)
    weights, bias = model.coefficients()
    reference = LogisticRegression(C=c, tol=1e-10, max_iter=10_000).fit(x, data.labels)
    np.testing.assert_allclose(weights.T, reference.coef_, atol=1e-4)
    np.testing.assert_allclose(bias, reference.intercept_ - reference.intercept_.mean(), atol=1e-4)


@pytest.mark.parametrize("c", [1e-3, 1.0, 100.0])
@pytest.mark.parametrize("classes", [2, 3])
def test_a_fit_on_fewer_rows_than_columns_equals_sklearn(classes: int, c: float) -> None:
    rng = np.random.default_rng(0)
    labels, x = np.arange(24) % classes, rng.normal(size=(24, 60))
    x[:, 0] += labels
    y = labels[:, None].astype(np.float64) if classes == 2 else np.eye(classes)[labels]
    model = Logistic(x, y, softmax=classes > 2)
    assert model.fit(c, max_iter=500)
    weights, bias = model.coefficients()
    reference = LogisticRegression(C=c, tol=1e-10, max_iter=10_000).fit(x, labels)
    np.testing.assert_allclose(weights.T, reference.coef_, atol=1e-4)
    centre = reference.intercept_.mean() if classes > 2 else 0.0
    np.testing.assert_allclose(
        bias, reference.intercept_ - centre, atol=1e-3
    )  # separable: the intercept hardly matters


def test_a_fit_cut_short_says_so() -> None:
    data = make("binary")
    x = (data.x - data.x.mean(0)) / data.x.std(0)
    assert not Logistic(x.astype(np.float64), data.labels[:, None].astype(float), softmax=False).fit(10.0, max_iter=2)


@pytest.mark.parametrize("task", TASKS)
def test_the_linear_probe_is_the_regression_it_describes(task: Task) -> None:
    train, val, test = (make(task, seed=s) for s in range(3))
    result = linear_probe(train, val, test, task=task, config=CONFIG)
    assert result.converged
    assert result.c in CONFIG.cs
    assert auc_score(val.labels, result.scores["val"]) == pytest.approx(result.metrics["val"]["auc"])
    assert result.metrics["test"]["auc"] > 0.65
    np.testing.assert_allclose(result.predict(test.x), result.scores["test"], atol=1e-12)
    np.testing.assert_allclose(result.predict(test.x[:3]), result.scores["test"][:3], atol=1e-12)  # each by itself
    np.testing.assert_allclose(result.mean, train.x.mean(axis=0, dtype=np.float64))
    assert [row["C"] for row in result.cv] == list(CONFIG.cs)
    chosen = fit_head(train.x, train.labels, task=task, num_outputs=len(result.bias), c=result.c, max_iter=1000)
    np.testing.assert_array_equal(result.weights, chosen.weights)
    assert result.c < CONFIG.cs[-1]  # else the largest would do as well


@pytest.mark.parametrize("task", TASKS)
def test_shuffled_test_labels_and_images_change_no_choice(task: Task) -> None:
    train, val, test = (make(task, seed=s) for s in range(3))
    rng = np.random.default_rng(0)
    shuffled = Features(test.x * 100, rng.permutation(test.labels))
    first = linear_probe(train, val, test, task=task, config=CONFIG)
    second = linear_probe(train, val, shuffled, task=task, config=CONFIG)
    third = linear_probe(train, val, task=task, config=CONFIG)
    for other in (second, third):
        assert (first.c, first.cv, first.metrics["val"]) == (other.c, other.cv, other.metrics["val"])
        for name in ("threshold", "weights", "bias", "mean", "std"):
            np.testing.assert_array_equal(getattr(first, name), getattr(other, name))
    assert list(third.metrics) == list(third.scores) == ["val"]
    assert first.metrics["test"] != second.metrics["test"]


def test_val_sets_the_threshold_and_nothing_else() -> None:
    train, val = make("binary"), make("binary", seed=1)
    first = linear_probe(train, val, task="binary", config=CONFIG)
    second = linear_probe(train, replace(val, labels=1 - val.labels), task="binary", config=CONFIG)
    assert first.c == second.c
    np.testing.assert_array_equal(first.weights, second.weights)
    assert first.threshold != second.threshold


def test_unlabelled_rows_are_as_good_as_absent() -> None:
    train, val = make("binary"), make("binary", seed=1)
    hidden = hide(train, slice(120, None))
    cut = train.take(np.arange(120))
    first, second = (linear_probe(t, val, task="binary", config=CONFIG) for t in (hidden, cut))
    np.testing.assert_array_equal(first.weights, second.weights)
    np.testing.assert_array_equal(knn_probe(hidden, val, task="binary", k=5), knn_probe(cut, val, task="binary", k=5))
    assert sgd_probe(hidden, val, task="binary", config=CONFIG) == sgd_probe(cut, val, task="binary", config=CONFIG)


def test_one_standard_error_rule_on_a_hand_made_table() -> None:
    errors = np.full(4, 0.02)
    assert one_standard_error(np.array([0.70, 0.79, 0.80, 0.75]), errors) == 1  # within .02 of .80
    assert one_standard_error(np.array([0.70, 0.77, 0.80, 0.75]), errors) == 2
    assert one_standard_error(np.array([0.80, 0.80, 0.80, 0.80]), 0 * errors) == 0  # a tie: the strongest
    assert one_standard_error(np.array([0.50, 0.79, 0.80, 0.81]), np.array([1, 1, 1, 0.005])) == 3  # the best's error


def test_the_standard_error_is_the_folds_spread_over_the_root_of_their_number() -> None:
    folds = np.array([[0.74, 0.78], [0.76, 0.80], [0.78, 0.82], [0.80, 0.84], [math.nan, 0.5]])
    c, cv = choose_c([0.1, 1.0], folds)
    spread = math.sqrt(0.0001 * (9 + 1 + 1 + 9) / 3)
    assert [row["se"] for row in cv] == pytest.approx([spread / 2, spread / 2])
    assert {row["num_folds"] for row in cv} == {4.0}
    assert c == 1.0  # .77 is within one spread of .81, but not within one standard error


@pytest.mark.parametrize("task", TASKS)
def test_folds_keep_patients_whole_and_balance_the_labels(task: Task) -> None:
    data = make(task)
    held = []
    for train, test in split_folds(data.labels, data.groups, folds=5, seed=0):
        assert data.groups is not None
        assert not set(data.groups[train]) & set(data.groups[test])
        share = (data.labels[test] == 1).mean(axis=0) - (data.labels == 1).mean(axis=0)
        assert np.abs(share).max() < 0.12
        held.append(test)
    assert sorted(np.concatenate(held)) == list(range(len(data)))


def test_fold_statistics_come_from_the_training_part_of_a_fold() -> None:
    data = make("binary")
    train, held = np.arange(200), np.arange(200, 240)
    spoilt = data.x.copy()
    spoilt[held] = spoilt[held] * 7 - 3  # an affine change of what is held out keeps no rank if it enters statistics
    options = {"task": "binary", "num_outputs": 1, "cs": (0.1,), "max_iter": 200}
    score = cross_validate(spoilt, data.labels, iter([(train, held)]), **options)  # type: ignore[arg-type]
    mean, std = standardisation(data.x[train])
    model = LogisticRegression(C=0.1, tol=1e-8).fit((data.x[train] - mean) / std, data.labels[train])
    expected = auc_score(data.labels[held], model.predict_proba((spoilt[held] - mean) / std)[:, 1])
    assert score[0, 0] == pytest.approx(expected, abs=1e-9)


def test_a_constant_feature_is_harmless() -> None:
    train, val = make("binary"), make("binary", seed=1)
    wide = [replace(f, x=np.hstack([f.x, np.full((len(f), 1), 0.1, np.float32)])) for f in (train, val)]
    result = linear_probe(*wide, task="binary", config=CONFIG)
    assert abs(result.weights[-1, 0]) < 1e-6
    assert result.metrics["val"]["auc"] == pytest.approx(
        linear_probe(train, val, task="binary", config=CONFIG).metrics["val"]["auc"], abs=1e-6
    )


def test_a_rare_label_that_some_folds_lack_is_skipped_there() -> None:
    train, val = make("multilabel"), make("multilabel", seed=1)
    train.labels[:, 2] = 0
    train.labels[:4, 2] = 1  # two patients for five folds
    result = linear_probe(train, val, task="multilabel", config=CONFIG)
    assert all(np.isfinite(row["mean"]) for row in result.cv)


@pytest.mark.parametrize("name", ["train", "val", "test"])
def test_a_single_class_split_is_named(name: str) -> None:
    splits = {n: make("binary", seed=i) for i, n in enumerate(("train", "val", "test"))}
    splits[name] = replace(splits[name], labels=np.ones(240, dtype=np.int64))
    with pytest.raises(ValueError, match=f"AUC needs both classes: the labelled {name} images have only 1"):
        linear_probe(splits["train"], splits["val"], splits["test"], task="binary", config=CONFIG)


def test_more_folds_than_patients_and_diverged_features_are_refused() -> None:
    train, val = make("binary"), make("binary", seed=1)
    few = replace(train, groups=np.array(["a", "b"] * 120))
    with pytest.raises(ValueError, match=r"folds must be at most the number of patients .*, got 5 folds of 2"):
        linear_probe(few, val, task="binary", config=CONFIG)
    val.x[0, 0] = np.nan
    with pytest.raises(ValueError, match="features must be finite, got nan or inf in val"):
        linear_probe(train, val, task="binary", config=CONFIG)


# ---- kNN and SGD


@pytest.mark.parametrize("task", TASKS)
def test_knn_equals_the_slow_loop(task: Task) -> None:
    train, query = make(task), make(task, num=30, seed=1)
    onehot = np.eye(3)[train.labels] if task == "multiclass" else train.labels.reshape(240, -1)
    unit = [
        f.x.astype(np.float64) / np.linalg.norm(f.x.astype(np.float64), axis=1, keepdims=True) for f in (train, query)
    ]
    expected = []
    for row in unit[1]:
        similarity = unit[0] @ row
        near = np.argsort(-similarity)[:7]
        weights = np.exp(similarity[near] / 0.1)
        expected.append((weights[:, None] * onehot[near]).sum(axis=0) / weights.sum())
    scores = knn_probe(train, query, task=task, k=7, temperature=0.1)
    np.testing.assert_allclose(scores.reshape(30, -1), np.array(expected), atol=1e-4)


def test_knn_with_a_bank_smaller_than_k_uses_all_of_it() -> None:
    train, query = make("binary", num=9), make("binary", num=5, seed=1)
    np.testing.assert_array_equal(
        knn_probe(train, query, task="binary", k=20), knn_probe(train, query, task="binary", k=9)
    )
    with pytest.raises(ValueError, match="needs labelled train rows"):
        knn_probe(hide(train, slice(None)), query, task="binary")


def test_the_sgd_probe_takes_the_steps_of_momentum_under_a_cosine() -> None:
    """Whole batches from weights of 0, step by step in float64."""
    train, val = make("binary", num=60), make("binary", num=30, seed=1)
    curve = sgd_probe(train, val, task="binary", config=replace(CONFIG, sgd_epochs=5, sgd_lr=0.5, sgd_batch_size=60))
    mean, std = standardisation(train.x)
    x, x_val = (np.column_stack([(split.x - mean) / std, np.ones(len(split))]) for split in (train, val))
    weights, velocity = np.zeros(13), np.zeros(13)
    for step, row in enumerate(curve):
        assert row["lr"] == pytest.approx(0.25 * (1 + math.cos(math.pi * step / 5)))
        assert row["train_loss"] == pytest.approx(log_loss(train.labels, expit(x @ weights)), rel=1e-5)
        velocity = 0.9 * velocity + x.T @ (expit(x @ weights) - train.labels) / 60
        weights = weights - row["lr"] * velocity
        assert row["val_loss"] == pytest.approx(log_loss(val.labels, expit(x_val @ weights)), rel=1e-5)


@pytest.mark.parametrize("task", TASKS)
def test_the_sgd_curve_falls_towards_the_exact_fit(task: Task) -> None:
    train, val = make(task), make(task, seed=1)
    curve = sgd_probe(train, val, task=task, config=replace(CONFIG, sgd_epochs=20))
    assert [row["epoch"] for row in curve] == list(range(1, 21))
    assert curve[-1]["train_loss"] < curve[0]["train_loss"]
    exact = linear_probe(train, val, task=task, config=replace(CONFIG, cs=(10.0,)))
    assert curve[-1]["val_auc"] == pytest.approx(exact.metrics["val"]["auc"], abs=0.03)
    assert curve == sgd_probe(train, val, task=task, config=replace(CONFIG, sgd_epochs=20))
