"""Rows into tables: seeds, intervals, pairs, verdicts and decisions agree with the records and with hand counts."""

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import confusion_matrix
from studies import make_run

from cxr_helpers import study
from cxr_helpers.probe import bootstrap_ci, difference_of, expected_calibration_error, holm, seed_spread, threshold_from
from cxr_helpers.runs import Run
from cxr_helpers.study import Row, calibration, compare, family, histories, mean_interval, operating, pick, summarise
from cxr_helpers.study.scores import is_trained, resampled, stacked
from cxr_helpers.writing import write_json

FEW = {"num_resamples": 60}


def rows_of(root: Path, seeds: tuple[int, ...] = (0, 1), **common: Any) -> list[Row]:
    quality = {"SimCLR": ("simclr", 3.0), "VICReg": ("vicreg", 2.4)}
    rows = [
        Row(label, "pneumoniamnist", tuple(make_run(root, method=m, quality=q, seed=s, **common) for s in seeds))
        for label, (m, q) in quality.items()
    ]
    supervised = make_run(root, method="supervised", policy="supervised", quality=3.2, **common)
    untrained = [make_run(root, epochs=0, policy="none", quality=0.5, seed=s, **common) for s in seeds]
    return [
        *rows,
        Row("Supervised", "pneumoniamnist", (supervised,)),
        Row("Untrained", "pneumoniamnist", (*untrained,)),
    ]


@pytest.mark.parametrize("labels", [1, 3])
def test_a_summary_repeats_the_records_and_resamples_their_predictions(tmp_path: Path, labels: int) -> None:
    rows = rows_of(tmp_path, labels=labels)
    table = summarise(rows, **FEW).set_index("encoder")
    for row in rows:
        values = [run.metrics["linear"]["test"]["auc"] for run in row.runs]
        line = table.loc[row.label]
        assert line["values"] == tuple(values) and line.auc == line.value == pytest.approx(np.mean(values))
        assert line.seeds == len(values) and line.run_ids == tuple(run.id for run in row.runs)
        stack = np.stack([run.predictions("test").filter(like="score/").to_numpy() for run in row.runs])
        truth = row.runs[0].predictions("test").filter(like="label").to_numpy()
        found = bootstrap_ci(truth, stack, row.runs[0].predictions("test")["group"], num_resamples=60)
        assert (line.low, line.high, line.patients) == (found.low, found.high, 60)
    assert table.sd["SimCLR"] == pytest.approx(np.std(table["values"]["SimCLR"], ddof=1))
    assert np.isnan(table.sd["Supervised"])
    assert table.protocol.to_dict() == {"SimCLR": "frozen", "VICReg": "frozen", "Supervised": "end to end"} | {
        "Untrained": "frozen"
    }
    assert set(table.init) == {"random"} and set(table.commits) == {"0123456789"}


def test_a_row_is_said_to_be_points_above_another_and_rows_without_that_split_are_left_out(tmp_path: Path) -> None:
    rows = rows_of(tmp_path)
    unread = make_run(tmp_path, method="simclr", epochs=7)
    write_json(unread.path / "metrics.json", {k: {"val": v["val"]} if k == "linear" else v for k, v in
                                              unread.metrics.items()})  # fmt: skip
    table = summarise([*rows, Row("Unread", "pneumoniamnist", (unread,)), Row("None", "x", ())], "Untrained", **FEW)
    assert list(table.encoder) == [row.label for row in rows]
    found = compare(rows, "SimCLR", "Untrained", **FEW)
    assert tuple(table.iloc[0][["gain", "gain_low", "gain_high"]]) == (found.difference, found.low, found.high)
    assert np.isnan(table.gain.iloc[-1])


def test_a_row_is_refused_unless_metrics_are_the_predictions_and_runs_are_of_one_configuration(tmp_path: Path) -> None:
    run = make_run(tmp_path, seed=9)
    metrics = run.metrics
    metrics["linear"]["test"]["auc"] -= 0.01
    write_json(run.path / "metrics.json", metrics)
    with pytest.raises(ValueError, match="metrics and predictions of A must agree"):
        summarise([Row("A", "x", (run,))], **FEW)
    first = make_run(tmp_path, method="simclr")
    for other in (make_run(tmp_path, method="simclr", lr=1.0, seed=1), make_run(tmp_path, method="vicreg", seed=1)):
        with pytest.raises(ValueError, match="must be seeds of one configuration"):
            stacked(Row("A", "x", (first, other)))
    tuned = [make_run(tmp_path, method="supervised", init=f"run-{s}/backbone.safetensors", seed=s) for s in (0, 1)]
    assert stacked(Row("A", "x", tuple(tuned))).stack.shape == (2, 120)
    elsewhere = make_run(tmp_path, method="simclr", seed=1)
    table = elsewhere.predictions("test")
    table["group"] = table["group"].iloc[::-1].to_numpy()
    table.to_csv(elsewhere.path / "predictions_test.csv.gz", index=False)
    with pytest.raises(ValueError, match="must be scored on the same test images"):
        stacked(Row("A", "x", (first, elsewhere)))


def test_a_difference_is_over_patients_and_what_all_trained_rows_say_of_seeds(tmp_path: Path) -> None:
    rows = rows_of(tmp_path, (0, 1, 2))
    uneven = tuple(make_run(tmp_path, method="vicreg", lr=1.0, quality=1 + s, seed=s) for s in (0, 1, 2))
    rows[1] = Row("VICReg", "pneumoniamnist", uneven)
    drawn = [resampled(row, num_resamples=400) for row in rows]
    assert drawn[0] is resampled(rows[0], num_resamples=400)  # once for all comparisons
    for a, b, i, j in (("SimCLR", "VICReg", 0, 1), ("Supervised", "Untrained", 2, 3)):
        found = compare(rows, a, b, num_resamples=400)
        expected = difference_of(drawn[i], drawn[j], seed_spread(drawn[:2]))  # untrained seeds are not of a training
        points = (100 * expected.difference, 100 * expected.low, 100 * expected.high)
        assert (found.difference, found.low, found.high) == pytest.approx(points)
        assert found.p == expected.p_value and found.seeds_known and found.seeds_b == 3
    pooled = compare(rows, ("SimCLR", "VICReg"), "Supervised", num_resamples=400)  # the mean over both
    singles = [compare(rows, one, "Supervised", num_resamples=400).difference for one in ("SimCLR", "VICReg")]
    assert pooled.difference == pytest.approx(np.mean(singles)) and pooled.seeds_a == 6 and pooled.a == "SimCLR, VICReg"
    alone = compare([rows[2], rows[3]], "Supervised", "Untrained", num_resamples=400)
    assert not alone.seeds_known and alone.high - alone.low < found.high - found.low


def test_an_encoder_read_from_a_file_is_trained_if_its_run_was(tmp_path: Path) -> None:
    trained, start = make_run(tmp_path, method="simclr"), make_run(tmp_path, method="simclr", epochs=0)
    files = {f"{trained.id}/a.safetensors": True, f"{start.id}/a.safetensors": False, "elsewhere/a.pth": True}
    for encoder, known in {**files, "random": False, "imagenet": False}.items():
        assert is_trained(Run(path=tmp_path / "runs" / "probe", record={"encoder": encoder})) is known, encoder
    assert is_trained(trained) and not is_trained(start)


def test_verdicts_follow_the_interval_and_are_none_where_nothing_was_measured(tmp_path: Path) -> None:
    rows = rows_of(tmp_path)
    up, down = compare(rows, "SimCLR", "Untrained", **FEW), compare(rows, "Untrained", "SimCLR", **FEW)
    assert (up.better, up.worse, up.tie) == (True, False, False) and (down.better, down.worse) == (False, True)
    assert up.difference == pytest.approx(-down.difference) and up.text.startswith("+") and down.text.startswith("−")
    tie = dataclasses.replace(up, difference=0.2, low=-0.9, high=1.2)
    assert tie.tie and not tie.better and not tie.worse and tie.text == "+0.2 [−0.9, +1.2]"
    assert (tie.within(1.3), tie.within(1.0), dataclasses.replace(tie, low=-1.3).within(1.2)) == (True, False, False)
    for absent in (compare(rows, "SimCLR", "nobody"), compare([*rows, Row("x", "x", ())], "SimCLR", "x", "x")):
        assert (absent.better, absent.worse, absent.tie, absent.within(1)) == (None,) * 4


def test_rows_of_two_data_sets_or_on_other_images_are_not_compared(tmp_path: Path) -> None:
    rows = rows_of(tmp_path)
    both = [*rows, *(dataclasses.replace(row, dataset="other") for row in rows)]
    with pytest.raises(ValueError, match="must be rows of one data set"):
        compare(both, "SimCLR", "VICReg")
    assert compare(both, "SimCLR", "VICReg", "other", **FEW) == compare(rows, "SimCLR", "VICReg", **FEW)
    run = rows[1].runs[0]
    run.predictions("test").iloc[::-1].to_csv(run.path / "predictions_test.csv.gz", index=False)
    with pytest.raises(ValueError, match="must be scored on the same test images"):
        compare([rows[0], Row("VICReg", "pneumoniamnist", (run,))], "SimCLR", "VICReg")


def test_a_family_is_corrected_for_its_own_number_by_holm(tmp_path: Path) -> None:
    rows = rows_of(tmp_path)
    pairs = [("SimCLR", "VICReg"), ("SimCLR", "Untrained"), ("SimCLR", "nobody"), ("VICReg", "Supervised")]
    table = family(rows, pairs, **FEW)
    assert list(zip(table.a, table.b, strict=True)) == [pairs[0], pairs[1], pairs[3]]
    np.testing.assert_allclose(table.p_holm, holm(table.p))
    assert (table.tie == ((table.low <= 0) & (table.high >= 0))).all() and family(rows, pairs[2:3]).empty


def test_histories_name_their_run_and_the_rows_are_picked_in_the_order_asked(tmp_path: Path) -> None:
    rows = rows_of(tmp_path)
    table = histories(pick(rows, "VICReg", "SimCLR"))
    assert list(dict.fromkeys(table.encoder)) == ["VICReg", "SimCLR"] and len(table) == 4 * 6
    one = table[(table.encoder == "SimCLR") & (table.seed == 1)]
    np.testing.assert_allclose(one.loss, rows[0].runs[1].history.loss)
    assert histories([]).empty and pick(rows, dataset="other") == []


def test_a_search_is_scored_on_its_last_epochs_and_paired_by_seed(tmp_path: Path) -> None:
    rows = rows_of(tmp_path, (0, 1, 2))[:2]
    scores = study.policy_scores(rows)
    first: Run = rows[0].runs[0]
    assert scores.online[0] == pytest.approx(first.history.online_auc.tail(3).mean())
    assert scores.knn[0] == first.history.knn_auc.iloc[-1] and scores.linear[0] == first.metrics["linear"]["val"]["auc"]
    scores["online"] = [0.93, 0.94, 0.95, 0.96, 0.971, 0.98]
    table = study.paired(scores, "SimCLR").set_index("policy")
    assert list(table.index) == ["VICReg", "SimCLR"]
    row = table.loc["VICReg"]
    expected = mean_interval(np.array([3.0, 3.1, 3.0]))
    assert (row.difference, row.low, row.high) == pytest.approx(expected) and row.pairs == 3
    fewer = study.paired(pd.concat([scores.head(1), scores.tail(3)]), "SimCLR").set_index("policy").loc["VICReg"]
    assert fewer.pairs == 1 and np.isnan(fewer.low)


def test_the_interval_of_a_mean_is_students_and_not_known_for_one_value() -> None:
    half = 4.302653 / np.sqrt(3)  # t quantile .975 with 2 degrees of freedom, sd 1
    assert mean_interval([1.0, 2.0, 3.0]) == pytest.approx((2.0, 2 - half, 2 + half), rel=1e-6)
    assert np.isnan(mean_interval([0.5])[1])


def test_the_labels_aucs_repeat_the_record_and_a_row_without_runs_has_no_line(tmp_path: Path) -> None:
    rows = [*rows_of(tmp_path, labels=3)[:2], Row("simclr from elsewhere", "d", (), ("python train.py",))]
    summary = summarise(rows, num_resamples=20).set_index("encoder")
    each = study.label_scores(rows, num_resamples=40)
    np.testing.assert_allclose(each.groupby("encoder").auc.mean(), summary.value, atol=1e-6)
    assert len(each) == 6 and (each.low <= each.auc).all() and (each.auc <= each.high).all()
    assert set(calibration(rows).encoder) == set(operating(rows).encoder) == {"SimCLR", "VICReg"}


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
