"""Fewer labels and feature maps: the curve equals probes by hand, is measured once, and is compared draw by draw."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from conftest import texture_config, texture_dataset
from studies import make_run

from cxr_helpers import analysis, plots, report
from cxr_helpers.config import ProbeConfig, RuntimeConfig
from cxr_helpers.data import keep_labels
from cxr_helpers.evaluate import evaluate, run_features
from cxr_helpers.pretrain import pretrain
from cxr_helpers.probe import linear_probe
from cxr_helpers.probe.features import Features
from cxr_helpers.profiles import get_profile
from cxr_helpers.report import labels, prose_study
from cxr_helpers.report.lineage import configuration
from cxr_helpers.runs import Run

PROBE = ProbeConfig(cs=(0.01, 1.0), folds=2, sgd_epochs=1)


@pytest.fixture
def run(tiny_net: None, runtime: RuntimeConfig) -> Run:
    return pretrain(texture_config(epochs=0, policy="none"), texture_dataset(), runtime)


def test_a_draw_of_the_curve_is_the_linear_probe_on_the_labels_that_are_kept(run: Run, runtime: RuntimeConfig) -> None:
    data = texture_dataset()
    evaluate(run, data, runtime, PROBE, test=True)
    curve = analysis.label_curve(run, data, (0.5, 1.0), 2, runtime, PROBE, test=True)
    assert list(zip(curve.fraction, curve.draw, strict=True)) == [(0.5, 0), (0.5, 1), (1.0, 0)]
    kept = keep_labels(data, 0.5, 1).train
    features = {name: run_features(run, name, split, runtime) for name, split in data.splits.items()}
    train = Features(features["train"].x, kept.labels.numpy(), kept.groups)
    found = linear_probe(train, features["val"], features["test"], task="binary", config=PROBE)
    row = curve.iloc[1]
    assert (row.val, row.test) == pytest.approx((found.metrics["val"]["auc"], found.metrics["test"]["auc"]))
    assert row.num_labels == int(kept.labelled.sum()) and row.num_patients == row.num_labels / 2
    assert curve.test.iloc[2] == run.metrics["linear"]["test"]["auc"] and curve.num_labels.iloc[2] == 40


def test_a_curve_that_was_measured_needs_neither_weights_nor_features(run: Run, runtime: RuntimeConfig) -> None:
    data = texture_dataset()
    evaluate(run, data, runtime, PROBE)
    first = analysis.label_curve(run, data, (0.5,), 2, runtime, PROBE)
    assert "label_reads" not in run.metrics  # val alone was asked for
    analysis.label_curve(run, data, (0.5,), 2, runtime, PROBE, test=True)
    assert evaluate(run, data, runtime, dataclasses.replace(PROBE, folds=3))["label_reads"] == 2
    for file in run.path.glob("*.safetensors"):
        file.unlink()
    again = analysis.label_curve(run, data, (0.5, 1.0), 2, runtime, PROBE)
    assert run.metrics["label_reads"] == 2
    pd.testing.assert_frame_equal(again[list(first)].iloc[:2], first, rtol=1e-6)
    assert analysis.label_curve(run, data, (0.5,), 1, runtime, PROBE).draw.tolist() == [0]
    with pytest.raises(FileNotFoundError, match="not its weights"):
        analysis.label_curve(run, data, (0.25,), 1, runtime, PROBE)


def test_a_curve_on_other_data_is_refused(run: Run, runtime: RuntimeConfig) -> None:
    other = texture_dataset(counts=(38, 24, 24))
    with pytest.raises(ValueError, match=r"must be the one that run .* was trained on"):
        analysis.label_curve(run, other, (0.5,), 1, runtime, PROBE)


@pytest.mark.parametrize(("task", "names"), [("binary", {"normal", "pneumonia"}), ("multilabel", {"finding", "none"})])
def test_a_feature_map_has_a_place_and_a_class_for_every_val_image_and_is_kept(
    tiny_net: None, runtime: RuntimeConfig, task: str, names: set[str]
) -> None:
    data = texture_dataset(task)  # type: ignore[arg-type]
    run = pretrain(texture_config(epochs=0, policy="none"), data, runtime)
    table = analysis.feature_map(run, data, runtime)
    assert len(table) == 24 and set(table.label) <= names and np.isfinite(table[["x", "y"]].to_numpy()).all()
    run.weights.unlink()
    pd.testing.assert_frame_equal(analysis.feature_map(run, data, runtime), table, rtol=1e-5, check_dtype=False)
    assert len(plots.plot_feature_maps({"a": table, "b": table}).axes) == 2


def _curve(values: dict[tuple[float, int], float]) -> pd.DataFrame:
    rows = [{"fraction": f, "draw": d, "num_labels": 100 * f, "val": v, "test": v} for (f, d), v in values.items()]
    return pd.DataFrame(rows)


def test_encoders_are_compared_with_supervised_training_draw_by_draw(tmp_path: Path) -> None:
    common = {"method": "supervised", "policy": "supervised"}
    supervised = [make_run(tmp_path, **common, label_fraction=0.1, seed=d, quality=1.0 + d) for d in (0, 1)]
    supervised.append(make_run(tmp_path, **common, quality=3.0, epochs=7))
    known = [run.metrics["head"]["test"]["auc"] for run in supervised]
    simclr = [make_run(tmp_path, method="simclr", seed=s) for s in (0, 1)]
    gains = ((0.02, 0.06), (0.04, 0.08))  # of two seeds on two draws: means .03 and .07
    frozen = [
        (run, _curve({(0.1, 0): known[0] + a, (0.1, 1): known[1] + b, (1.0, 0): known[2] - 0.01}))
        for run, (a, b) in zip(simclr, gains, strict=True)
    ]
    curves = labels.label_curves(frozen, supervised)
    assert set(curves.label) == {"SimCLR", "Supervised"} and curves.num_labels.notna().all()
    summary = labels.label_summary(curves).set_index(["label", "fraction"])
    part = summary.loc[("SimCLR", 0.1)]
    assert (part.draws, part.common_draws) == (2, 2) and part.difference == pytest.approx(0.05)
    half = 12.706205 * 0.02  # t quantile of one degree of freedom, half the distance of the draws
    assert (part.low, part.high) == pytest.approx((0.05 - half, 0.05 + half), rel=1e-5)
    whole = summary.loc[("SimCLR", 1.0)]
    assert whole.difference == pytest.approx(-0.01) and whole.low == -np.inf
    text = prose_study.reading_of_labels(summary.reset_index())
    assert "**10 %** (10 labels): SimCLR +5.0" in text and "SimCLR −1.0." in text
    figure = plots.plot_label_curve(summary.reset_index())
    assert {t.get_text() for t in figure.axes[0].texts} == {"SimCLR", "Supervised"}


def test_supervised_training_is_drawn_at_the_number_of_labels_of_its_own_data_set(tmp_path: Path) -> None:
    """Encoders of several data sets lie in one table, and each data set has its own number of labelled images."""
    frozen, supervised = [], []
    for count, dataset in ((40, "pneumoniamnist"), (70, "chestmnist")):
        alike = {"dataset": dataset, "fingerprint": dataset}
        curve = _curve({(1.0, 0): 0.9}).assign(num_labels=count)
        frozen.append((make_run(tmp_path, **alike), curve))
        supervised.append(make_run(tmp_path, method="supervised", policy="supervised", **alike))
    curves = labels.label_curves(frozen, supervised)
    for count, dataset in ((40, "pneumoniamnist"), (70, "chestmnist")):
        assert set(curves[curves.dataset == dataset].num_labels) == {count}
    alone = labels.label_curves(frozen[:1], supervised)  # of the other data set nothing says how many
    assert alone[alone.dataset == "chestmnist"].num_labels.isna().all()


def test_a_row_that_does_not_know_its_number_of_labels_stands_where_the_others_of_its_part_do() -> None:
    row = {"family": "simclr", "sd": 0.0}
    rows = [{"label": "a", "fraction": f, "num_labels": n, "mean": 0.8, **row} for f, n in ((0.1, 50.0), (1.0, 500.0))]
    rows += [{"label": "b", "fraction": f, "num_labels": np.nan, "mean": 0.7, **row} for f in (0.1, 1.0)]
    both = plots.plot_label_curve(pd.DataFrame(rows)).axes[0].get_lines()
    places = [np.array(line.get_xdata(), float) for line in both if line.get_linestyle() != "None"]
    assert len(places) == 2 and np.allclose(*places, rtol=0.05)
    ax = plots.plot_label_curve(pd.DataFrame(rows[2:])).axes[0]
    assert np.allclose(np.array(ax.get_lines()[0].get_xdata(), float), [0.1, 1.0], rtol=0.05)
    assert [label.get_text() for label in ax.get_xticklabels()] == ["10 %", "100 %"]


def test_a_page_trains_what_its_label_curve_lacks_and_leaves_out_encoders_without_weights(
    tiny_net: None, runtime: RuntimeConfig
) -> None:
    data = texture_dataset()
    tiny = dataclasses.replace(get_profile("smoke"), epochs=1, batch_size=8, label_fractions=(0.5, 1.0), label_draws=1)
    runs = [pretrain(texture_config(epochs=0, policy="none", seed=seed), data, runtime) for seed in (0, 1)]
    for run in runs:
        evaluate(run, data, runtime, PROBE, test=True)
        for table in run.path.glob("features_*.safetensors"):
            table.unlink()
    runs[1].weights.unlink()
    listed = labels.few_labels(tiny, runs, {data.name: data}, runtime, train_missing=False)
    assert listed.absent == (runs[1],) and runs[1].environment["command"] in report.absent_text(listed.absent)
    assert report.absent_text(()) == "" and "--label-fraction 0.5" in listed.missing.command.item()
    assert "difference" not in listed.of(data.name)
    found = labels.few_labels(tiny, runs[:1], {data.name: data}, runtime)
    summary = found.of(data.name)
    assert found.missing.empty and not found.absent and found.of("other").empty
    assert set(summary.label[summary.fraction == 0.5]) == {"Random encoder", "Supervised"}
    assert summary["difference"].notna().sum() == 1


def test_without_a_supervised_run_there_is_a_curve_but_no_comparison(tmp_path: Path) -> None:
    curves = labels.label_curves([(make_run(tmp_path), _curve({(0.1, 0): 0.8, (1.0, 0): 0.9}))], [])
    summary = labels.label_summary(curves)
    assert list(summary["mean"]) == [0.8, 0.9] and "difference" not in summary
    assert "nothing to compare" in prose_study.reading_of_labels(summary)
    assert labels.label_curves([], []).empty and labels.label_summary(labels.label_curves([], [])).empty


def test_supervised_runs_on_parts_of_the_labels_are_seeds_of_one_configuration(
    tiny_net: None, runtime: RuntimeConfig
) -> None:
    data = texture_dataset()
    part = texture_config(method="supervised", label_fraction=0.5, batch_size=8)
    runs = [pretrain(dataclasses.replace(part, seed=seed), data, runtime) for seed in (0, 1)]
    assert runs[0].record["fingerprint"] == runs[1].record["fingerprint"] == data.fingerprint
    assert configuration(runs[0]) == configuration(runs[1])
    for run in runs:
        evaluate(run, data, runtime, PROBE)
    assert pretrain(part, data, runtime).status == "loaded"


def test_a_fine_tuned_record_is_found_where_only_the_records_of_its_parent_are(
    tiny_net: None, runtime: RuntimeConfig
) -> None:
    data = texture_dataset()
    parent = pretrain(texture_config(), data, runtime)
    tuned = texture_config(method="supervised", init=str(parent.weights))
    first = pretrain(tuned, data, runtime)
    parent.weights.unlink()
    again = pretrain(tuned, data, runtime)
    assert again.status == "loaded" and again.id == first.id
    with pytest.raises(FileNotFoundError, match="does not exist"):
        pretrain(dataclasses.replace(tuned, seed=5), data, runtime)
