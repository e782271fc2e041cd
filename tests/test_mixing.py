"""A page, a table or a sentence cannot be made from runs of another profile, data set or commit than it claims."""

from __future__ import annotations

import importlib
import json
import shutil
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest
from conftest import texture_dataset
from matplotlib.figure import Figure
from reports import code, head_output, notebook
from studies import make_run

from cxr_helpers.analysis import feature_map, label_curve
from cxr_helpers.data import load_dataset
from cxr_helpers.profiles import get_profile
from cxr_helpers.report import choice, comparisons, labels, pages, prose, readme, report, tables
from cxr_helpers.report.claims import PAGE
from cxr_helpers.report.lineage import configuration, label_of, parent_of, run_label
from cxr_helpers.report.published import published_table
from cxr_helpers.runs import Run, read_json, write_json, write_table

evaluating = importlib.import_module("cxr_helpers.evaluate")  # the package's `evaluate` is its function
CURVE = pd.DataFrame({"fraction": [0.1], "draw": [0], "num_labels": [9], "val": [0.8], "test": [0.8]})
SMOKE, CPU = get_profile("smoke"), get_profile("cpu")


@pytest.fixture(scope="module", params=["another data set", "another size", "other images under the same name"])
def runs(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> list[Run]:
    """Two encoders on one data set, then one of them on something else; nothing is written into their folders."""
    return runs_of_two(tmp_path_factory.mktemp("runs"), **OTHERS[request.param])


def runs_of_two(root: Path, **other: object) -> list[Run]:
    """Two encoders on one data set, and one of them on another."""
    first = [make_run(root, method=method) for method in ("simclr", "vicreg")]
    return [*first, make_run(root, method="simclr", **({"dataset": "chestmnist"} | other))]


OTHERS = {
    "another data set": {"dataset": "chestmnist"},
    "another size": {"dataset": "pneumoniamnist", "size": 128},
    "other images under the same name": {"dataset": "pneumoniamnist", "fingerprint": "other"},
}
JOINING = {  # everything that makes one thing of several rows
    "the result table": lambda runs: report.shown_summary(tables.summary_table(runs, num_resamples=20)),
    "the result's reading": lambda runs: prose.reading_of_scores(tables.summary_table(runs, num_resamples=20)),
    "pairs": lambda runs: comparisons.paired_table(runs, [("SimCLR", "VICReg")], num_resamples=20),
    "the curves' reading": lambda runs: prose.reading_of_curves(tables.history_table(runs)),
    "the online probe's reading": lambda runs: prose.reading_of_online(tables.history_table(runs)),
    "the collapse reading": lambda runs: prose.reading_of_collapse(tables.history_table(runs)),
    "the probe curve's reading": lambda runs: prose.reading_of_probe_curve(tables.probe_curve_table(runs)),
    "the choice of a policy": lambda runs: choice.choose_policy(choice.policy_scores(runs), "ssl", ["ssl"]),
    "the policies' table": lambda runs: choice.policy_summary(choice.policy_scores(runs), "ssl"),
}


@pytest.mark.parametrize("what", JOINING)
def test_runs_on_several_data_make_no(what: str, runs: list[Run]) -> None:
    JOINING[what](runs[:2])
    with pytest.raises(ValueError, match="must be of one data set at one size with one content, got pneumoniamnist 64"):
        JOINING[what](runs)


def test_a_curve_of_labels_takes_one_data_set(tmp_path: Path) -> None:
    runs = runs_of_two(tmp_path)
    assert len(labels.label_summary(labels.label_curves([(run, CURVE) for run in runs[:2]], []))) == 2
    with pytest.raises(ValueError, match="one data set"):
        labels.label_summary(labels.label_curves([(run, CURVE) for run in runs], []))


# ---- what the head claims


def claim(profile: str = "cpu") -> None:
    """Display a head over data of this content."""
    provenance = {"status": "drawn", "notes": []}
    data = replace(texture_dataset(), name="pneumoniamnist", provenance=provenance)
    data.__dict__["fingerprint"] = "data"  # that of `make_run`
    prose.page_head(get_profile(profile), {data.name: data}, imagenet=True, commit="0")


TABLES = {
    "runs": lambda runs: tables.runs_table(runs),
    "summary": lambda runs: tables.summary_table(runs, num_resamples=20),
    "curves": lambda runs: tables.history_table(runs),
    "probe curves": lambda runs: tables.probe_curve_table(runs),
    "policies": lambda runs: choice.policy_scores(runs),
    "labels": lambda runs: labels.label_curves([(run, CURVE) for run in runs], []),
}


@pytest.mark.parametrize("what", TABLES)
def test_a_page_has_no_table_of_runs_on_data_its_head_does_not_name(what: str, runs: list[Run]) -> None:
    claim()
    assert len(TABLES[what](runs[:2]))
    with pytest.raises(ValueError, match=r"runs of this page must be on the data its head names .*content data"):
        TABLES[what](runs[2:])


def test_a_page_writes_nothing_for_another_profile_than_its_heads(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CXR_REPORT", str(tmp_path))
    claim()
    report.save_answer("04_a", "text", CPU)
    for save in (
        lambda: report.save_answer("04_b", "text", SMOKE),
        lambda: report.save_table(pd.DataFrame({"a": [1]}), "04_b", SMOKE),
        lambda: report.save_figure(Figure(), "04_b", SMOKE),
    ):
        with pytest.raises(ValueError, match="profile must be cpu, which the page's head names, got smoke"):
            save()
    assert [path.name for path in tmp_path.rglob("04_*")] == ["04_a.md"]


def test_a_build_writes_nothing_for_another_profile_than_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CXR_REPORT", str(tmp_path))
    monkeypatch.setenv("CXR_PROFILE", "smoke")
    with pytest.raises(ValueError, match="profile must be smoke, whose report is being built, got cpu"):
        report.save_answer("04_a", "text", CPU)


def test_a_page_is_refused_whose_head_names_another_profile_or_two_things() -> None:
    with pytest.raises(ValueError, match="must be made with profile cpu, its head says smoke"):
        pages.notebook_page(notebook(code("head()", head_output("smoke"))), CPU)
    two = notebook(code("head()", head_output("cpu")), code("head()", head_output("cpu", commit="feedface00")))
    with pytest.raises(ValueError, match="must say one thing of what made it, got 2 different heads"):
        pages.notebook_page(two, CPU)


def test_every_row_and_pair_names_its_data_and_its_commits(tmp_path: Path) -> None:
    runs = [make_run(tmp_path, method=method, seed=seed) for method in ("simclr", "vicreg") for seed in (0, 1)]
    environment = runs[1].environment
    write_json(runs[1].path / "environment.json", {**environment, "commit": "fedcba9876", "dirty": True})
    pairs = comparisons.paired_table(runs, [("SimCLR", "VICReg")], num_resamples=20)
    assert pairs["commits"].iloc[0] == "0123456789, fedcba9876+" and "fedcba9876+" in report.shown_pairs(pairs)
    summary = tables.summary_table(runs, num_resamples=20)
    assert list(summary["commits"]) == ["0123456789, fedcba9876+", "0123456789"]
    for table in (tables.runs_table(runs), tables.history_table(runs), tables.probe_curve_table(runs)):
        assert set(table["commit"]) == {"0123456789", "fedcba9876+"} and set(table["content"]) == {"data"}
    policies = choice.policy_summary(choice.policy_scores(runs[:2]), "ssl")
    assert "fedcba9876+" in choice.shown_policies(policies)


# ---- records that are not what their folders say


def test_a_renamed_copied_or_edited_run_folder_is_refused(tmp_path: Path) -> None:
    run = make_run(tmp_path, method="simclr")
    assert [found.id for found in tables.collect_runs(tmp_path)] == [run.id]
    copy = run.path.with_name("pneumoniamnist-64-vicreg-s0-0123456789")
    shutil.copytree(run.path, copy)
    with pytest.raises(
        ValueError, match=f"run folder {copy.name} must hold the record of that name, got that of {run.id}"
    ):
        tables.collect_runs(tmp_path)
    shutil.rmtree(copy)
    config = run.path / "config.json"
    write_json(config, {**read_json(config), "dataset": "chestmnist"})
    with pytest.raises(ValueError, match=r"got that of chestmnist-64-simclr-s0"):
        tables.collect_runs(tmp_path)
    config.write_text(json.dumps({"dataset": "chestmnist"}))
    with pytest.raises(ValueError, match="must hold a whole record"):
        tables.collect_runs(tmp_path)


def test_metrics_of_another_run_are_refused(tmp_path: Path) -> None:
    good, poor = make_run(tmp_path, method="simclr", quality=4.0), make_run(tmp_path, method="vicreg", quality=0.5)
    metrics = good.metrics
    write_json(poor.path / "metrics.json", metrics)  # its predictions stay
    with pytest.raises(ValueError, match=f"metrics and predictions of {poor.id} must agree, got val auc"):
        tables.summary_table([poor], num_resamples=20)
    for split in ("val", "test"):
        shutil.copy(good.path / f"predictions_{split}.csv.gz", poor.path)
    write_json(poor.path / "metrics.json", {**metrics, "run": good.id})
    with pytest.raises(ValueError, match=f"metrics of run {poor.id} must be its own, got those of {good.id}"):
        tables.summary_table([poor], num_resamples=20)


def test_seeds_scored_on_other_images_make_no_row(tmp_path: Path) -> None:
    runs = [make_run(tmp_path, seed=seed) for seed in (0, 1)]
    table = runs[1].predictions("test").iloc[::-1]
    write_table(runs[1].path / "predictions_test.csv.gz", table)
    with pytest.raises(ValueError, match=f"predictions of {runs[1].id} must be of the test images of {runs[0].id}"):
        tables.summary_table(runs, num_resamples=20)


def test_a_run_answers_only_for_its_own_data(tmp_path: Path) -> None:
    run, data = make_run(tmp_path), texture_dataset()
    write_json(run.path / "metrics.json", {**run.metrics, "probe_config": evaluating._plain(evaluating.ProbeConfig())})
    write_table(run.path / "feature_map.csv", pd.DataFrame({"x": [0.0], "y": [0.0], "label": ["a"]}))
    for ask in (
        lambda: feature_map(run, data),
        lambda: label_curve(run, data, [0.1], 1),
    ):
        with pytest.raises(ValueError, match=f"dataset must be the one that run {run.id} was trained on"):
            ask()


def test_a_fine_tuned_run_is_not_named_after_a_parent_with_other_weights(tmp_path: Path) -> None:
    parent = make_run(tmp_path, method="vicreg")
    child = make_run(tmp_path, method="supervised", policy="supervised", init=f"{parent.id}/backbone.safetensors")
    child = Run(path=child.path, record={**child.record, "init_sha256": "a" * 64})
    for digest, name in (("a" * 64, "VICReg, fine-tuned"), ("b" * 64, "given weights, fine-tuned")):
        write_json(parent.path / "environment.json", {**parent.environment, "backbone_sha256": digest})
        assert run_label(child) == name
    assert parent_of(child) is None and configuration(child) != configuration(parent)
    assert label_of({**child.record, "init_sha256": None}, child.path.parent) == "VICReg, fine-tuned"  # not yet known


def test_the_readme_keeps_other_images_of_one_name_apart_and_calls_a_part_a_part(tmp_path: Path) -> None:
    make_run(tmp_path, method="simclr")
    make_run(tmp_path, method="vicreg", fingerprint="other")
    part = make_run(tmp_path, method="simclr", fingerprint="part", seed=1)
    data = {"notes": ["a fixed draw of 768 / 524 / 624 images"]}
    write_json(part.path / "environment.json", {**part.environment, "data": data})
    section = readme.result_section(readme.films_first(tmp_path))
    titles = [line.partition(", test")[0] for line in section.splitlines() if line.startswith("**")]
    assert sorted(titles) == [
        "**PneumoniaMNIST (subset), 64 px",
        "**PneumoniaMNIST, 64 px, content data",
        "**PneumoniaMNIST, 64 px, content other",
    ]
    assert " is " not in section and "distinguishable" not in section  # nothing is compared across them


def test_a_folder_called_like_a_data_set_is_not_taken_for_it(tmp_path: Path) -> None:
    from PIL import Image

    for split in ("train", "val", "test"):
        (tmp_path / "pneumoniamnist" / split / "a").mkdir(parents=True)
        Image.new("L", (8, 8)).save(tmp_path / "pneumoniamnist" / split / "a" / "x.png")
    dataset = load_dataset(f"{tmp_path}/pneumoniamnist", 8)
    assert dataset.name == "pneumoniamnist-folder" and len(published_table(dataset.name)) == 0
    assert "PneumoniaMNIST" not in prose.heading(dataset)
    assert prose.heading(dataset, "goals") == f"{prose.heading(dataset)}: goals"  # two of a page are told apart


def test_a_claim_ends_with_its_page(tmp_path: Path) -> None:
    claim("quick")
    assert PAGE.profile == "quick" and PAGE.data == {("pneumoniamnist", 64): "data"}
    claim("cpu")
    assert PAGE.profile == "cpu"
    PAGE.profile = None
    assert len(tables.runs_table([make_run(tmp_path, dataset="chestmnist")]))  # without a head nothing is claimed
