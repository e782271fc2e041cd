"""Exclusive classes: scores as scikit-learn has them, and what a careless reader looks like."""

from pathlib import Path

import numpy as np
import pytest
from sklearn.metrics import classification_report, roc_auc_score

from cxr_helpers.runs import Run
from cxr_helpers.study import (
    Row,
    class_scores,
    confusion,
    decisions,
)
from cxr_helpers.study.scores import Scores


def test_exclusive_classes_are_scored_as_scikit_learn_does_and_beside_one_constant_answer() -> None:
    rng, names = np.random.default_rng(0), ("no finding", "pneumonia", "other")
    labels = rng.choice(3, 400, p=(0.5, 0.05, 0.45))
    stack = rng.dirichlet(np.ones(3), (2, 400)) + 0.4 * np.eye(3)[labels]
    stack /= stack.sum(axis=2, keepdims=True)
    found = decisions._classified(labels, stack[0], names)
    called = stack[0].argmax(axis=1)
    report = classification_report(labels, called, target_names=names, output_dict=True, zero_division=0)
    assert found["macro_f1"] == pytest.approx(report["macro avg"]["f1-score"])
    assert found["weighted_f1"] == pytest.approx(report["weighted avg"]["f1-score"])
    assert [found[f"recall {name}"] for name in names] == pytest.approx([report[name]["recall"] for name in names])
    assert found["auc"] == pytest.approx(roc_auc_score(labels, stack[0], multi_class="ovr"))
    assert found["auc not no finding"] == pytest.approx(roc_auc_score(labels > 0, 1 - stack[0][:, 0]))
    assert found["loss"] == pytest.approx(-np.log(stack[0][np.arange(400), labels]).mean())


def test_a_reader_that_never_says_pneumonia_looks_good_by_weighted_f1_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    labels = np.repeat([0, 1, 2], [483, 45, 472])
    scores = np.eye(3)[np.where(labels == 1, 2, labels)][None] * 0.98 + 0.005
    monkeypatch.setattr(
        decisions, "stacked", lambda row: Scores(labels, labels, scores, ("none", "pneumonia", "other"))
    )
    row = Row("careless", "d", (Run(path=Path(), record={}),))
    careless, constant = class_scores([row]).to_dict("records")
    assert careless["accuracy"] > 0.95 and careless["weighted_f1"] > 0.93
    assert careless["macro_f1"] < 0.67 and careless["recall pneumonia"] == 0 and careless["recall none"] == 1
    assert constant["accuracy"] == 0.483 and constant["balanced_accuracy"] == pytest.approx(1 / 3)
    table = confusion([row]).set_index("true")
    assert table.loc["pneumonia", ["called none", "called pneumonia", "called other"]].tolist() == [0, 0, 45]
