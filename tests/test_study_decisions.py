"""Predictions into curves and decisions: equal to the records they come from, and to views planted by hand."""

from pathlib import Path

import numpy as np
import pytest
from samples import as_bytes, smooth_images
from sklearn.metrics import confusion_matrix
from studies import make_run

from cxr_helpers.augment import POLICIES
from cxr_helpers.probe import expected_calibration_error, threshold_from
from cxr_helpers.study import Row, calibration, label_scores, operating, similarity, summarise


def rows_of(root: Path, labels: int = 1) -> list[Row]:
    return [
        Row(name, "d", tuple(make_run(root, method=name, quality=q, seed=s, labels=labels) for s in (0, 1)))
        for name, q in (("simclr", 3.0), ("vicreg", 2.0))
    ]


def test_the_labels_aucs_repeat_the_record_and_a_row_without_runs_has_no_line(tmp_path: Path) -> None:
    rows = [*rows_of(tmp_path, 3), Row("simclr from elsewhere", "d", (), ("python train.py",))]
    summary = summarise(rows, num_resamples=20).set_index("encoder")
    each = label_scores(rows, num_resamples=40)
    np.testing.assert_allclose(each.groupby("encoder").auc.mean(), summary.value, atol=1e-6)
    assert len(each) == 6 and (each.low <= each.auc).all() and (each.auc <= each.high).all()
    assert set(calibration(rows).encoder) == set(operating(rows).encoder) == {"simclr", "vicreg"}


def test_decisions_are_those_of_val_thresholds_counted_by_scikit_learn(tmp_path: Path) -> None:
    rows = rows_of(tmp_path)[:1]
    row, counts, errors = operating(rows).iloc[0], [], []
    for run in rows[0].runs:
        val, test = run.predictions("val"), run.predictions("test")
        threshold = threshold_from(val["label"], val["score/ill"])[0]
        counts.append(confusion_matrix(test["label"], test["score/ill"] >= threshold))
        errors.append(expected_calibration_error(test["label"], test["score/ill"]))
    (tn, fp), (fn, tp) = np.mean(counts, axis=0)
    assert (row["tn"], row["fp"], row["fn"], row["tp"]) == (tn, fp, fn, tp)
    assert (row["sensitivity"], row["specificity"]) == pytest.approx((tp / (tp + fn), tn / (tn + fp)))
    assert row["ece"] == pytest.approx(np.mean(errors)) and calibration(rows)["count"].sum() == pytest.approx(120)
    for run in rows[0].runs:
        table = run.predictions("test")
        table["label"] = table["label"].to_numpy()[np.random.default_rng(0).permutation(len(table))]
        table.to_csv(run.path / "predictions_test.csv.gz", index=False)
    after = operating(rows).iloc[0]
    assert after["tp"] + after["fp"] == tp + fp and after["tp"] < tp  # the truth of test moves no decision


def test_identical_views_are_wholly_alike() -> None:
    images = as_bytes(smooth_images(6, 64))
    images[5] = 7
    table = similarity.view_similarities([POLICIES["none"]], images, 64)
    assert table.same[:5].to_numpy() == pytest.approx(1, abs=1e-4) and table.found[:5].all()
    a, b = (images[i].numpy().ravel() for i in (0, 1))
    assert table.different[0] == pytest.approx(np.corrcoef(a, b)[0, 1], abs=1e-5)
    assert table.same[5] == 0  # a flat view
