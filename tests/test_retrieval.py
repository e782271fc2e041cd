"""Neighbours: cosine by hand, never the query's own patient, shares of the right kind, and what a page says of them."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from conftest import texture_config, texture_dataset
from matplotlib.patches import Rectangle

from cxr_helpers import attribution, plots, retrieval
from cxr_helpers.config import ProbeConfig, RuntimeConfig
from cxr_helpers.evaluate import evaluate
from cxr_helpers.pretrain import pretrain
from cxr_helpers.probe.features import Features
from cxr_helpers.report import evidence, prose_evidence
from cxr_helpers.runs import Run

PROBE = ProbeConfig(cs=(0.01, 1.0), folds=2, sgd_epochs=1)


def _features(x: list[list[float]], groups: list[str] | None = None) -> Features:
    names = None if groups is None else np.array(groups)
    return Features(np.array(x, np.float32), np.zeros(len(x), np.int64), names)


def test_the_nearest_is_the_one_of_smallest_angle_whatever_its_length() -> None:
    bank, query = _features([[10, 1], [0.1, 0.2], [-1, 0]]), _features([[1, 1], [-3, 0.1]])
    rows, similarity = retrieval.nearest(bank, query, 2)
    assert rows.tolist() == [[1, 0], [2, 1]]
    assert similarity[0, 0] == pytest.approx(0.3 / np.sqrt(0.05 * 2), abs=1e-6)


def test_a_querys_own_patient_is_never_found_even_where_nothing_else_is_near() -> None:
    bank = _features([[1, 0], [0, 1], [-1, 0]], ["p", "q", "r"])
    rows, _ = retrieval.nearest(bank, _features([[1, 0]], ["p"]), 2)
    assert rows.tolist() == [[1, 2]]
    with pytest.raises(ValueError, match="must have 3 images of other patients"):
        retrieval.nearest(bank, _features([[1, 0]], ["p"]), 3)


def test_images_of_several_labels_are_alike_when_they_share_a_finding_or_have_none() -> None:
    query = np.array([[1, 0, 1], [0, 0, 0]])
    found = np.array([[[0, 0, 1], [0, 1, 0], [0, 0, 0]]] * 2)
    assert retrieval.relevance(query, found).tolist() == [[True, False, False], [False, False, True]]
    assert retrieval.relevance(np.array([1]), np.array([[1, 0]])).tolist() == [[True, False]]


@pytest.fixture
def run(tiny_net: None, runtime: RuntimeConfig) -> Run:
    run = pretrain(texture_config(epochs=0, policy="none"), texture_dataset(), runtime)
    evaluate(run, texture_dataset(), runtime, PROBE, test=True)
    return run


@pytest.mark.parametrize("task", ["binary", "multilabel"])
def test_chance_is_what_a_random_pick_would_have(tiny_net: None, runtime: RuntimeConfig, task: str) -> None:
    data = texture_dataset(task)  # type: ignore[arg-type]
    run = pretrain(texture_config(epochs=0, policy="none"), data, runtime)
    table = retrieval.neighbours(run, data, runtime)
    measured = retrieval.relevance_table(table, data)
    rng = np.random.default_rng(0)
    picked = rng.integers(0, 40, (len(table), 4000))
    random = retrieval.relevance(data.test.labels.numpy(), data.train.labels.numpy()[picked]).mean(axis=1)
    np.testing.assert_allclose(measured["chance"], random, atol=0.04)
    near = table[[f"near_{i}" for i in range(5)]].to_numpy()
    right = retrieval.relevance(data.test.labels.numpy(), data.train.labels.numpy()[near])
    np.testing.assert_allclose(measured["precision"], right.mean(axis=1))
    assert measured["group"].nunique() == 12 and (np.diff(table.filter(like="similarity"), axis=1) <= 0).all()


def test_neighbours_that_were_found_need_no_weights_and_belong_to_their_data(run: Run, runtime: RuntimeConfig) -> None:
    first = retrieval.neighbours(run, texture_dataset(), runtime)
    for file in run.path.glob("*.safetensors"):
        file.unlink()
    pd.testing.assert_frame_equal(retrieval.neighbours(run, texture_dataset(), runtime), first, check_dtype=False)
    with pytest.raises(ValueError, match="must be the one that run"):
        retrieval.neighbours(run, texture_dataset(counts=(38, 24, 24)), runtime)


def test_queries_are_drawn_from_every_kind() -> None:
    data = texture_dataset()
    rows = retrieval.drawn_queries(data)
    assert data.test.labels[rows].tolist() == [1, 1, 0, 0] and rows == retrieval.drawn_queries(data)
    several = texture_dataset("multilabel")
    assert several.test.labels[retrieval.drawn_queries(several)].any(dim=1).tolist() == [True, True, False, False]


def test_a_page_shows_frames_where_the_kind_differs_and_repeats_the_shares(run: Run, runtime: RuntimeConfig) -> None:
    data = texture_dataset()
    found = evidence.retrieve([run], data, runtime)
    queries = retrieval.drawn_queries(data)
    ill, well = (int((data.train.labels == kind).nonzero()[0]) for kind in (1, 0))
    table = found.beside_random["Random encoder"].assign(near_3=ill, near_4=well)  # one of them is of the other kind
    figure = plots.plot_neighbours({"Random encoder": table}, data, queries)
    figure.savefig(io.BytesIO(), format="png", dpi=40)
    frames = [p for ax in figure.axes for p in ax.patches if isinstance(p, Rectangle)]
    assert len(frames) == len(queries) == len([t for ax in figure.axes for t in ax.texts if t.get_text()[0] == "≠"])
    assert [p.get_x() for p in frames] == [4, 4, 3, 3]  # two ill queries, then two well ones
    summary = evidence.retrieval_summary(found, data)
    text = prose_evidence.reading_of_retrieval(summary, found, several_labels=False)
    assert f"{100 * summary['precision'].iloc[0]:.1f} % of the 5" in text and "24 test images of 12 patients" in text
    with pytest.raises(ValueError, match="must have encoders and queries"):
        plots.plot_neighbours({}, data, queries)


def test_without_weights_a_page_names_what_it_leaves_out_and_how_to_make_it(run: Run, runtime: RuntimeConfig) -> None:
    for file in run.path.glob("*.safetensors"):
        file.unlink()
    data = texture_dataset()
    for measure in (evidence.retrieve, evidence.explain):
        found = measure([run], data, runtime)
        assert not found and found.absent == (run,)
    empty = evidence.retrieval_summary(evidence.retrieve([run], data, runtime), data)
    said = prose_evidence.reading_of_retrieval(empty, evidence.retrieve([run], data, runtime), several_labels=False)
    assert "Random encoder (seed 0)" in said and "--fresh`" in said
    assert "No maps here." in prose_evidence.reading_of_maps(evidence.explain([run], data, runtime), 64)


def test_scores_of_maps_become_rows_figures_and_a_verdict_that_needs_the_interval(run: Run, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    rows = pd.DataFrame({"films": "phantom", "image": np.arange(200), "group": (np.arange(200) // 2).astype(str)})
    rows = rows.assign(name="pneumonia", called=rng.random(200) < 0.6, hit_usual=0.3, iou_usual=0.1, iou_best=0.4)
    parts = []
    for stage, cells, rate in (("layer4", 2, 0.25), ("layer3", 4, 0.6)):
        hit, chance = (rng.random(200) < rate).astype(float), 1 / cells**2
        part = rows.assign(stage=stage, cells=cells, hit=hit, hit_special=hit, hit_random=chance)
        parts.append(part.assign(iou=rate / 2, iou_special=rate / 2, iou_random=chance / 2))
    found = evidence.Found(((run, pd.concat(parts)),), ())
    summary = evidence.localisation_summary(found).set_index("stage")
    assert summary.loc["layer3", "hit"] == parts[1]["hit"].mean()
    assert summary.loc["layer3", "hit_low"] < summary.loc["layer3", "hit"] < summary.loc["layer3", "hit_high"]
    called = parts[1][parts[1]["called"]]["hit"].mean()
    assert summary.loc["layer3", "hit_called"] == pytest.approx(called)
    text = prose_evidence.reading_of_localisation(summary.reset_index(), found)
    last, finer = (line for line in text.splitlines() if line.startswith("| Random encoder"))
    assert "layer4, 2 × 2" in last and last.endswith("| neither |") and finer.endswith("| chance and habit |")
    assert f"{100 * called:.0f} % of those the probe calls" in text
    assert "drawn, so that the truth is known" in text and "200 findings in test films of 100 patients" in text
    figure = plots.plot_localisation(summary.reset_index())
    figure.savefig(io.BytesIO(), format="png", dpi=40)
    assert "IoU" in figure.axes[1].get_xlabel() and attribution.STAGES[0] in figure.axes[0].texts[0].get_text()
