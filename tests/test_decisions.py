"""Predictions into tables, figures and sentences: equal to the records they come from, for one label and several."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import average_precision_score, confusion_matrix
from studies import make_run, make_study

from cxr_helpers import plots
from cxr_helpers import probe as metrics
from cxr_helpers.report import decisions, prose_decisions, tables
from cxr_helpers.runs import Run

FEW = {"num_resamples": 60}


def _frozen(root: Path, seeds: tuple[int, ...] = (0, 1), labels: int = 1) -> list[Run]:
    return decisions.frozen_encoders(make_study(root, seeds, labels))


def test_only_encoders_with_a_linear_probe_are_frozen_ones(tmp_path: Path) -> None:
    assert {tables.identity_of(run)["label"] for run in _frozen(tmp_path)} == {"SimCLR", "VICReg", "Random encoder"}


@pytest.mark.parametrize("labels", [1, 3])
def test_the_tables_repeat_the_record(tmp_path: Path, labels: int) -> None:
    runs = _frozen(tmp_path, labels=labels)
    operating = decisions.operating_table(runs, **FEW).set_index("label")
    summary = tables.summary_table(runs, num_resamples=60).set_index("label")
    np.testing.assert_allclose(operating["auc"], summary.loc[operating.index, "test_mean"])
    np.testing.assert_allclose(operating["auc_low"], operating["auc_low"].clip(upper=operating["auc"]))
    each = decisions.label_table(runs, **FEW)
    np.testing.assert_allclose(each.groupby("label")["auc"].mean()[operating.index], operating["auc"])
    assert each["support"].tolist() == [int(n) for n in each["support"]] and (each["low"] <= each["high"]).all()
    for kind, area in (("roc", "auc"), ("precision", "ap")):
        curve = decisions.curve_table(runs, kind, **FEW)
        for label, rows in curve.groupby("label"):
            assert np.trapezoid(rows["y"], rows["x"]) == pytest.approx(operating.loc[str(label), area], abs=0.015)
            assert (rows["low"] <= rows["y"] + 1e-9).all() and (rows["y"] <= rows["high"] + 1e-9).all()


def test_decisions_are_those_of_val_thresholds_counted_by_scikit_learn(tmp_path: Path) -> None:
    runs = [make_run(tmp_path, seed=seed) for seed in (0, 1)]
    row = decisions.operating_table(runs, **FEW).iloc[0]
    counts, precisions = [], []
    for run in runs:
        val, test = run.predictions("val"), run.predictions("test")
        threshold = metrics.threshold_from(val["label"], val["score/ill"])[0]
        counts.append(confusion_matrix(test["label"], test["score/ill"] >= threshold))
        precisions.append(average_precision_score(test["label"], test["score/ill"]))
    (tn, fp), (fn, tp) = np.mean(counts, axis=0)
    assert (row["tn"], row["fp"], row["fn"], row["tp"]) == (tn, fp, fn, tp)
    assert row["sensitivity"] == pytest.approx(tp / (tp + fn)) == row["point_sensitivity"]
    assert 1 - row["point_fpr"] == pytest.approx(tn / (tn + fp)) == row["specificity"]
    assert row["ap"] == pytest.approx(np.mean(precisions))
    eces = [
        metrics.expected_calibration_error(r.predictions("test")["label"], r.predictions("test")["score/ill"])
        for r in runs
    ]
    assert row["ece"] == pytest.approx(np.mean(eces)) and row["ece_floor"] < row["ece_floor_high"]
    assert row["sensitivity_low"] < row["sensitivity"] < row["sensitivity_high"]


def test_shuffled_test_labels_move_no_threshold(tmp_path: Path) -> None:
    run = make_run(tmp_path)
    before = decisions.operating_table([run], **FEW).iloc[0]
    table = run.predictions("test")
    table["label"] = table["label"].to_numpy()[np.random.default_rng(0).permutation(len(table))]
    table.to_csv(run.path / "predictions_test.csv.gz", index=False)
    after = decisions.operating_table([run], **FEW).iloc[0]
    assert after["threshold"] == before["threshold"] and after["auc"] < before["auc"]
    assert after["tp"] + after["fp"] == before["tp"] + before["fp"]  # as many are called


def test_curves_of_exclusive_classes_and_of_an_unknown_kind_are_refused(tmp_path: Path) -> None:
    run = make_run(tmp_path)
    with pytest.raises(ValueError, match="kind must be one of roc, precision, got 'lift'"):
        decisions.curve_table([run], "lift")
    for split in ("val", "test"):
        table = run.predictions(split)
        table.assign(**{"score/other": 1 - table["score/ill"]}).to_csv(
            run.path / f"predictions_{split}.csv.gz", index=False
        )
    with pytest.raises(ValueError, match="got exclusive classes"):
        decisions.operating_table([run])


@pytest.mark.parametrize(("labels", "seeds"), [(1, (0,)), (3, (0, 1))])
def test_every_figure_draws_its_labels_inside_and_its_figures_as_text(
    tmp_path: Path, labels: int, seeds: tuple[int, ...]
) -> None:
    runs = _frozen(tmp_path, seeds, labels)
    operating = decisions.operating_table(runs, **FEW)
    roc, precision = (decisions.curve_table(runs, kind, **FEW) for kind in ("roc", "precision"))
    figures = {
        "roc": plots.plot_roc_precision(roc, precision, operating),
        "calibration": plots.plot_calibration(decisions.calibration_table(runs), operating),
        "confusion": plots.plot_confusion(operating, ("well", "ill")),
        "labels": plots.plot_label_auc(decisions.label_table(runs, **FEW)),
    }
    for figure in figures.values():
        figure.savefig(io.BytesIO(), format="png", dpi=40)
    texts = {name: " ".join(t.get_text() for ax in figure.axes for t in ax.texts) for name, figure in figures.items()}
    for row in tables.rows_of(operating):
        assert f"{row.label}: {row.auc:.3f} [{row.auc_low:.3f}, {row.auc_high:.3f}]" in texts["roc"]
        assert f"{row.ap:.3f} [" in texts["roc"]
        assert f"ECE {row.ece:.3f}" in texts["calibration"]
        assert f"{100 * row.sensitivity:.1f} %" in texts["confusion"]
        assert row.label in texts["labels"]
    left = figures["roc"].axes[0]
    assert ("mean of 3 labels" in left.get_xlabel()) == (labels == 3)
    box = left.get_window_extent()
    for text in left.texts:
        assert text.get_window_extent().x0 > box.x0 - 1, text.get_text()


def test_the_prose_repeats_its_tables_and_concludes_only_what_they_hold(tmp_path: Path) -> None:
    operating = decisions.operating_table(_frozen(tmp_path), **FEW)
    text = prose_decisions.reading_of_operating(operating)
    for row in tables.rows_of(operating):
        assert f"AUC {row.auc:.3f} [{row.auc_low:.3f}, {row.auc_high:.3f}]" in text
    assert f"{operating['prevalence'].iloc[0]:.3f}, the prevalence." in text
    apart = operating.assign(sensitivity=0.95, specificity=0.55)
    assert "specificity is on average 40 points behind" in prose_decisions.reading_of_operating(apart)
    even = operating.assign(sensitivity=0.8, specificity=0.81)
    assert "keep about the balance" in prose_decisions.reading_of_operating(even)
    good = operating.assign(ece=0.02, ece_floor=0.02, ece_floor_high=0.03)
    assert "more than chance" not in prose_decisions.reading_of_calibration(good)
    bad = prose_decisions.reading_of_calibration(good.assign(ece=0.2))
    assert bad.count("**more than chance explains**") == len(good) and "calibration error 0.200" in bad
    for reading in (prose_decisions.reading_of_operating, prose_decisions.reading_of_calibration):
        assert "No finished run" in reading(pd.DataFrame())


def test_the_prose_of_labels_names_the_ends_and_what_cannot_be_told_from_chance() -> None:
    rows = [("a", 0.9, 0.8, 0.95, 50), ("b", 0.6, 0.45, 0.7, 12), ("c", np.nan, np.nan, np.nan, 0)]
    table = pd.DataFrame(rows, columns=["name", "auc", "low", "high", "support"]).assign(label="SimCLR", images=100)
    text = prose_decisions.reading_of_labels_one_by_one(table)
    assert "from a 0.900 [0.800, 0.950] down to b 0.600" in text and "mean 0.750" in text
    assert "Not above chance by its interval: b." in text and "b (12)" in text and "without an AUC: c." in text
