"""Probes: exact solutions against scikit-learn, choices that never look at test, no gradient into a backbone."""

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from samples import random_bytes
from sklearn.linear_model import LogisticRegression
from torch import nn
from torch.nn import functional as F

from cxr_helpers import probe as probing
from cxr_helpers.augment import Normalisation, eval_transform
from cxr_helpers.config import ProbeConfig
from cxr_helpers.data import Split, Task
from cxr_helpers.probe import Features, OnlineProbe, auc_score, fit_head, knn_probe, linear_probe

CONFIG = ProbeConfig(cs=(1e-3, 1e-2, 1e-1, 1.0))
TASKS: tuple[Task, ...] = ("binary", "multiclass", "multilabel")
OUTPUTS = {"binary": 1, "multiclass": 3, "multilabel": 3}


def make(task: Task, num: int = 240, seed: int = 0) -> Features:
    """Correlated features of uneven scale, labels that depend on them, three images a patient."""
    rules, rng = np.random.default_rng(99), np.random.default_rng(seed)
    mix, weights = rules.normal(size=(12, 12)), rules.normal(size=(12, 3))
    hidden = rng.normal(size=(num, 12))
    x = (hidden @ mix * np.geomspace(0.01, 10, 12) + 5).astype(np.float32)
    logits = hidden @ weights / 2
    labels = (logits + rng.logistic(size=logits.shape) > [0, 1, 2]).astype(np.int64)
    if task == "multiclass":
        labels = (logits + rng.gumbel(size=logits.shape)).argmax(axis=1)
    return Features(x, labels[:, 0] if task == "binary" else labels, np.array([f"patient{i // 3}" for i in range(num)]))


def hide(features: Features, rows: slice) -> Features:
    labels = features.labels.copy()
    labels[rows] = -1
    return replace(features, labels=labels)


@pytest.mark.parametrize("bound", [True, False])
def test_features_are_those_of_eval_mode_and_each_module_gets_its_mode_back(bound: bool) -> None:
    images, normalisation = random_bytes(20), Normalisation((0.5,), (0.25,))
    split = Split(images=images, labels=torch.arange(20) % 2, groups=np.arange(20).astype(str))
    backbone = nn.Sequential(nn.Flatten(), nn.BatchNorm1d(256), nn.BatchNorm1d(256), nn.Dropout(0.5))
    backbone[2].eval()  # a part that somebody froze
    features = probing.extract_features(backbone.forward if bound else backbone, split, normalisation, batch_size=7)
    assert [m.training for m in backbone] == [True, True, False, True] and backbone.training
    expected = backbone.eval()(eval_transform(images, normalisation)).detach()
    np.testing.assert_allclose(features.x, expected, atol=1e-6)


def test_fused_features_are_blocks_standardised_by_train_side_by_side() -> None:
    first = {"train": make("binary"), "val": make("binary", 30, seed=1)}
    second = {name: replace(f, x=np.hstack([f.x[:, :2] ** 2, np.full((len(f), 1), 7.0)])) for name, f in first.items()}
    for name, split in probing.fuse([first, second]).items():
        for block, found in ((first, split.x[:, :12]), (second, split.x[:, 12:])):
            mean, std = block["train"].x.mean(axis=0), block["train"].x.std(axis=0)
            np.testing.assert_allclose(found, (block[name].x - mean) / np.maximum(std, 1e-9), atol=1e-4)
        assert split.x.dtype == np.float32 and not split.x[:, 14].any()  # a constant column
        assert split.labels is first[name].labels and split.groups is first[name].groups
    stranger = {**second, "train": replace(second["train"], groups=None)}
    with pytest.raises(ValueError, match="same images, got other train labels or groups"):
        probing.fuse([first, stranger])


@pytest.mark.parametrize("task", TASKS)
def test_the_online_probe_learns_what_is_linear_and_leaves_features_and_their_graph_untouched(task: Task) -> None:
    data, backbone = make(task), nn.Linear(12, 12)
    x, labels = torch.from_numpy((data.x - data.x.mean(0)) / data.x.std(0)), torch.from_numpy(data.labels)
    probe, h = OnlineProbe(12, task, OUTPUTS[task], labels, lr=0.02), backbone(x)
    losses = [probe.step(h, labels) for _ in range(60)]
    assert losses[-1] < 0.9 * losses[0] and not losses[0].requires_grad
    assert auc_score(data.labels, probe.scores(h)) > 0.65
    assert backbone.weight.grad is None
    h.sum().backward()  # the graph is still whole
    assert backbone.weight.grad is not None


def test_unlabelled_rows_do_not_move_the_online_probe_nor_its_class_weights_which_are_capped() -> None:
    part = hide(make("multilabel"), slice(100, None))
    x, y = torch.from_numpy(part.x), torch.from_numpy(part.labels)
    masked, cut = (OnlineProbe(12, "multilabel", 3, y) for _ in range(2))
    cut.load_state_dict(masked.state_dict())
    for _ in range(3):
        assert float(masked.step(x, y)) == pytest.approx(float(cut.step(x[:100], y[:100])), rel=1e-5)
    torch.testing.assert_close(masked.linear.weight, cut.linear.weight, rtol=1e-4, atol=1e-6)
    assert float(masked.step(x[100:], y[100:])) == 0
    labels = torch.tensor([[1, 0, 0]] * 2 + [[0, 1, 0]] * 16 + [[0, 0, 0]] * 82 + [[-1, -1, -1]] * 50)
    probe, x = OnlineProbe(4, "multilabel", 3, labels), torch.randn(100, 4)
    torch.testing.assert_close(probe.pos_weight, torch.tensor([10.0, 84 / 16, 10.0]))
    expected = F.binary_cross_entropy_with_logits(probe(x), labels[:100].float(), pos_weight=probe.pos_weight)
    torch.testing.assert_close(probe.loss(x, labels[:100]), expected)


@pytest.mark.parametrize("c", [1e-3, 1.0, 100.0])
@pytest.mark.parametrize(("num", "dim"), [(240, 12), (24, 60)])
@pytest.mark.parametrize("task", TASKS)
def test_a_fit_equals_scikit_learns_label_by_label(task: Task, num: int, dim: int, c: float) -> None:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(num, dim))
    logits = x[:, :3] + rng.normal(size=(num, 3))
    labels = logits.argmax(axis=1) if task == "multiclass" else (logits > 0).astype(np.int64)
    labels = labels[:, 0] if task == "binary" else labels
    head = fit_head(3 * x + 1, labels, task=task, num_outputs=OUTPUTS[task], c=c, max_iter=2000)
    assert head.converged
    x = (x - x.mean(axis=0)) / x.std(axis=0)
    fits = [LogisticRegression(C=c, tol=1e-10, max_iter=100_000).fit(x, column) for column in np.atleast_2d(labels.T)]
    centre = fits[0].intercept_.mean() if task == "multiclass" else 0.0
    np.testing.assert_allclose(head.weights.T, np.concatenate([fit.coef_ for fit in fits]), atol=1e-3)
    bias = np.concatenate([fit.intercept_ for fit in fits]) - centre
    np.testing.assert_allclose(head.bias, bias, atol=1e-3)  # where classes part, the intercept hardly matters


@pytest.mark.parametrize("task", TASKS)
def test_the_linear_probe_is_the_regression_it_describes_and_test_changes_no_choice(task: Task) -> None:
    train, val, test = (make(task, seed=s) for s in range(3))
    result = linear_probe(train, val, test, task=task, config=CONFIG)
    assert result.converged and result.c in CONFIG.cs and [row["C"] for row in result.cv] == list(CONFIG.cs)
    assert auc_score(val.labels, result.scores["val"]) == pytest.approx(result.metrics["val"]["auc"])
    assert result.metrics["test"]["auc"] > 0.65
    head = fit_head(train.x, train.labels, task=task, num_outputs=OUTPUTS[task], c=result.c, max_iter=CONFIG.max_iter)
    np.testing.assert_array_equal(result.weights, head.weights)
    np.testing.assert_allclose(probing.predict(head.logits(test.x[:3]), task), result.scores["test"][:3], atol=1e-12)
    np.testing.assert_allclose(result.mean, train.x.mean(axis=0, dtype=np.float64))
    shuffled = Features(test.x * 100, np.random.default_rng(0).permutation(test.labels))
    moved = linear_probe(train, val, shuffled, task=task, config=CONFIG)
    assert (result.c, result.cv, result.metrics["val"]) == (moved.c, moved.cv, moved.metrics["val"])
    for name in ("threshold", "weights", "bias", "mean", "std"):
        np.testing.assert_array_equal(getattr(result, name), getattr(moved, name))
    assert result.metrics["test"] != moved.metrics["test"]


def test_val_sets_the_threshold_and_nothing_else_and_unlabelled_rows_are_as_good_as_absent() -> None:
    train, val = make("binary"), make("binary", seed=1)
    hidden, cut = hide(train, slice(120, None)), train.take(np.arange(120))
    flipped = replace(val, labels=1 - val.labels)
    first, second, third = (
        linear_probe(*sides, task="binary", config=CONFIG) for sides in ((hidden, val), (cut, val), (cut, flipped))
    )
    np.testing.assert_array_equal(first.weights, second.weights)
    np.testing.assert_array_equal(second.weights, third.weights)
    assert second.c == third.c and second.threshold != third.threshold
    np.testing.assert_array_equal(knn_probe(hidden, val, task="binary", k=5), knn_probe(cut, val, task="binary", k=5))


@pytest.mark.parametrize(
    ("means", "errors", "chosen"),
    [
        ((0.70, 0.79, 0.80, 0.75), 0.02, 1),  # within .02 of .80
        ((0.80, 0.80, 0.80, 0.80), 0.0, 0),  # a tie: the strongest
        ((0.50, 0.79, 0.80, 0.81), (1, 1, 1, 0.005), 3),  # the best's error
    ],
)
def test_one_standard_error_rule_on_a_hand_made_table(means: Any, errors: Any, chosen: int) -> None:
    table = np.array(means) + np.outer([1, -1], np.broadcast_to(errors, 4))  # two folds so far apart have that error
    assert probing.choose_c([0.0, 1.0, 2.0, 3.0], table)[0] == chosen


def test_the_standard_error_is_the_folds_spread_over_the_root_of_their_number() -> None:
    folds = np.array([[0.74, 0.78], [0.76, 0.80], [0.78, 0.82], [0.80, 0.84], [math.nan, 0.5]])
    c, cv = probing.choose_c([0.1, 1.0], folds)
    spread = math.sqrt(0.0001 * (9 + 1 + 1 + 9) / 3)
    assert [row["se"] for row in cv] == pytest.approx([spread / 2, spread / 2])
    assert {row["num_folds"] for row in cv} == {4.0}
    assert c == 1.0  # .77 is within one spread of .81, but not within one standard error


@pytest.mark.parametrize("task", TASKS)
def test_folds_keep_patients_whole_and_balance_the_labels(task: Task) -> None:
    data = make(task)
    held = []
    for train, test in probing.split_folds(data.labels, data.groups, folds=5, seed=0):
        assert data.groups is not None and not set(data.groups[train]) & set(data.groups[test])
        share = (data.labels[test] == 1).mean(axis=0) - (data.labels == 1).mean(axis=0)
        assert np.abs(share).max() < 0.12
        held.append(test)
    assert sorted(np.concatenate(held)) == list(range(len(data)))


def test_fold_statistics_come_from_the_training_part_of_a_fold() -> None:
    data, train, held = make("binary"), np.arange(200), np.arange(200, 240)
    data.x[held] = data.x[held] * 7 - 3  # which changes ranks where it enters the statistics
    score = probing.cross_validate(data, [(train, held)], task="binary", num_outputs=1, cs=(0.1,), max_iter=200)
    mean, std = probing.standardisation(data.x[train])
    model = LogisticRegression(C=0.1, tol=1e-8).fit((data.x[train] - mean) / std, data.labels[train])
    expected = auc_score(data.labels[held], model.predict_proba((data.x[held] - mean) / std)[:, 1])
    assert score[0, 0] == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize("k", [7, 500])  # 500: all there are
@pytest.mark.parametrize("task", TASKS)
def test_knn_equals_the_slow_loop(task: Task, k: int) -> None:
    train, query = make(task), make(task, num=30, seed=1)
    votes = np.eye(3)[train.labels] if task == "multiclass" else train.labels.reshape(240, -1)
    bank, rows = (f.x / np.linalg.norm(f.x.astype(np.float64), axis=1, keepdims=True) for f in (train, query))
    expected = []
    for row in rows:
        near = np.argsort(-bank @ row)[:k]
        weights = np.exp(bank[near] @ row / 0.1)
        expected.append((weights[:, None] * votes[near]).sum(axis=0) / weights.sum())
    scores = knn_probe(train, query, task=task, k=k, temperature=0.1)
    np.testing.assert_allclose(scores.reshape(30, -1), np.array(expected), atol=1e-4)
