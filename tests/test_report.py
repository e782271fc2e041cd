"""Tables never mix records, verdicts follow intervals, prose repeats the tables, and writes are whole."""

from __future__ import annotations

import dataclasses
import io
import re
from pathlib import Path

import numpy as np
import pandas as pd
import PIL.Image
import pytest
import torch
import torchvision
from conftest import texture_config, texture_dataset
from matplotlib.figure import Figure
from studies import SPLITS, make_run, make_study

from cxr_helpers import plots, report, study
from cxr_helpers.config import PretrainConfig, RuntimeConfig
from cxr_helpers.evaluate import evaluate
from cxr_helpers.models.backbones import imagenet_state
from cxr_helpers.pretrain import pretrain
from cxr_helpers.probe import holm
from cxr_helpers.probe.intervals import paired_bootstrap
from cxr_helpers.profiles import get_profile
from cxr_helpers.report import comparisons, lineage, prose, tables
from cxr_helpers.report.markup import Body
from cxr_helpers.report.published import PUBLISHED, published_table
from cxr_helpers.report.report import with_palette
from cxr_helpers.runs import write_json

FEW = {"num_resamples": 200}


# ---- grouping


def test_a_summary_has_one_row_per_configuration_and_counts_its_seeds(tmp_path: Path) -> None:
    summary = tables.summary_table(make_study(tmp_path), **FEW)
    assert list(summary.label) == ["SimCLR", "VICReg", "Supervised", "Random encoder"]
    assert set(summary.seeds) == {(0, 1, 2)}


@pytest.mark.parametrize(
    "other",
    [
        {"dataset": "chestmnist"},
        {"size": 128},
        {"epochs": 7},
        {"policy": "ref"},
        {"lr": 5e-4},
        {"options": {"temperature": 0.5}},
        {"batch_size": 32},
        {"fingerprint": "other images"},
    ],
    ids=lambda change: next(iter(change)),
)
def test_runs_that_differ_in_more_than_the_seed_never_share_a_row(tmp_path: Path, other: dict) -> None:  # type: ignore[type-arg]
    runs = [make_run(tmp_path, seed=0), make_run(tmp_path / "other", seed=1, **other)]
    summary = tables.summary_table(runs, **FEW)
    assert list(summary.num_seeds) == [1, 1]
    assert len(summary[["dataset", "size", "label"]].drop_duplicates()) == 2
    curves = tables.history_table(runs)
    assert len(curves[["dataset", "size", "label"]].drop_duplicates()) == 2


def test_runs_probed_differently_never_share_a_row(tmp_path: Path) -> None:
    runs = [make_run(tmp_path, seed=s) for s in (0, 1)]
    metrics = runs[1].metrics
    metrics["probe_config"]["cs"] = [2.0]
    write_json(runs[1].path / "metrics.json", metrics)
    assert list(tables.summary_table(runs, **FEW).num_seeds) == [1, 1]


def test_the_same_seed_twice_counts_once(tmp_path: Path) -> None:
    runs = [make_run(tmp_path, seed=0), make_run(tmp_path / "copy", seed=0)]
    assert list(tables.summary_table(runs, **FEW).num_seeds) == [1]


def test_mean_and_sd_are_over_seeds_and_the_interval_holds_the_mean(tmp_path: Path) -> None:
    runs = [make_run(tmp_path, seed=s) for s in range(3)]
    row = tables.summary_table(runs, **FEW).iloc[0]
    values = [run.metrics["linear"]["test"]["auc"] for run in runs]
    assert row.test_mean == pytest.approx(np.mean(values)) and row.test_sd == pytest.approx(np.std(values, ddof=1))
    assert row.test_low < row.test_mean < row.test_high
    assert (row.test_images, row.test_patients) == (SPLITS["test"], SPLITS["test"] // 2)


def test_a_supervised_run_is_judged_by_its_own_head_and_says_so(tmp_path: Path) -> None:
    table = tables.runs_table(make_study(tmp_path, (0,)))
    assert table.set_index("label").protocol.to_dict()["Supervised"] == "trained head"
    assert set(table[table.label != "Supervised"].protocol) == {"linear probe"}


def test_unfinished_and_unprobed_runs_are_not_collected(tmp_path: Path) -> None:
    keep, unfinished, unprobed = (make_run(tmp_path, seed=s) for s in range(3))
    (unfinished.path / "environment.json").unlink()
    (unprobed.path / "metrics.json").unlink()
    assert [run.id for run in tables.collect_runs(tmp_path)] == [keep.id]


def test_what_a_run_is_called_tells_init_labels_and_refitted_weights() -> None:
    base = {**vars(PretrainConfig()), "init_sha256": None}
    assert lineage.label_of(base) == "SimCLR"
    assert lineage.label_of({**base, "epochs": 0}) == "Random encoder"
    assert lineage.label_of({**base, "init": "imagenet", "method": "vicreg"}) == "VICReg from ImageNet"
    refit = {**base, "epochs": 0, "init": "imagenet", "init_sha256": lineage.LAYER4_REFIT}
    assert lineage.label_of(refit) == "ImageNet (layer4 refit), frozen"
    assert lineage.label_of({**base, "label_fraction": 0.1}).endswith("10 % of labels")


# ---- pairs


def test_a_better_scorer_is_called_better_and_the_other_way_round_worse(tmp_path: Path) -> None:
    runs = make_study(tmp_path)
    pairs = comparisons.paired_table(runs, [("SimCLR", "Random encoder"), ("Random encoder", "SimCLR")], **FEW)
    assert list(pairs.verdict) == ["better", "worse"]
    assert pairs.low[0] > 0 and pairs.high[1] < 0


def test_a_pairs_interval_is_of_patients_and_seeds(tmp_path: Path) -> None:
    qualities = {"simclr": (0.5, 2.0, 5.0), "vicreg": (2.0, 2.2, 2.4)}
    runs = [make_run(tmp_path, method=m, seed=i, quality=q) for m, qs in qualities.items() for i, q in enumerate(qs)]
    row = tables.rows_of(comparisons.paired_table(runs, [("SimCLR", "VICReg")], **FEW))[0]
    test = [run.predictions("test") for run in runs]
    scores = np.stack([table["score/ill"] for table in test])
    fixed, drawn = (
        paired_bootstrap(test[0].label, scores[:3], scores[3:], test[0].group, resample_seeds=seeds, **FEW)
        for seeds in (False, True)
    )
    assert (row.low, row.high, row.p_value) == (drawn.low, drawn.high, drawn.p_value)
    assert drawn.high - drawn.low > 1.5 * (fixed.high - fixed.low)


def test_identical_scorers_are_not_distinguishable(tmp_path: Path) -> None:
    runs = [make_run(tmp_path, method=m, seed=s, noise=s) for m in ("simclr", "vicreg") for s in (0, 1, 2)]
    row = tables.rows_of(comparisons.paired_table(runs, [("SimCLR", "VICReg")], **FEW))[0]
    assert row.verdict == "not distinguishable" and row.difference == 0
    assert "**not distinguishable**" in prose.verdict(row) and "better" not in prose.verdict(row)


def test_a_verdict_states_interval_seeds_data_size_and_split(tmp_path: Path) -> None:
    pairs = comparisons.paired_table(make_study(tmp_path), [("SimCLR", "Random encoder")], **FEW)
    row, text = tables.rows_of(pairs)[0], prose.verdicts(pairs)
    for part in ("3 seeds each", "PneumoniaMNIST, 64 px", "120 test images of 60 patients", f"{row.mean_a:.3f}"):
        assert part in text
    assert f"{100 * row.low:+.1f}" in text and "sets of weights" not in text
    assert "paired over patients and seeds" in text
    assert "paired over images and seeds" in prose.verdicts(pairs.assign(patients=pairs.images))  # none are known


def test_what_does_not_outlive_the_number_of_comparisons_is_named(tmp_path: Path) -> None:
    runs = make_study(tmp_path)
    asked = [("SimCLR", name) for name in ("VICReg", "Random encoder", "Supervised")]
    pairs = comparisons.paired_table(runs, asked, **FEW)
    assert pairs.p_holm.tolist() == holm(pairs.p_value).tolist() and (pairs.p_holm >= pairs.p_value).all()
    pairs = pairs.assign(verdict=["worse", "better", "not distinguishable"], p_holm=[0.06, 0.05, 0.9])
    text = prose.verdicts(pairs)
    assert text.endswith("(Holm), 1 of the 2 that are told apart stay so; not SimCLR against VICReg (p = 0.06).")
    assert "\n\nEach interval is at 95 %" in text  # a paragraph, not the end of the last bullet
    assert prose.after_correction(pairs.assign(p_holm=0.01)).endswith("all 2 that are told apart stay so.")
    assert prose.after_correction(pairs[1:]).endswith("the one that is told apart stays so.")
    close = prose.after_correction(pairs.assign(p_holm=[0.0503, 0.0997, 0.9]))
    assert "none of the 2 that" in close and "(p = 0.0503)" in close and "(p = 0.0997)" in close
    assert "none stays told apart: not SimCLR against R" in prose.after_correction(pairs[1:].assign(p_holm=0.06))
    assert prose.after_correction(pairs[:1]) == prose.after_correction(pairs[2:]) == ""
    assert prose.after_correction(pairs.assign(verdict="not distinguishable")) == ""
    assert "| p, Holm of 3 |" in report.shown_pairs(pairs) and "| 0.060 |" in report.shown_pairs(pairs)


@pytest.mark.parametrize(("p", "shown"), [(1 / 2001, "< 0.001"), (0.0013, "0.001"), (0.5, "0.500")])
def test_no_table_shows_a_p_value_of_zero(p: float, shown: str, tmp_path: Path) -> None:
    pairs = comparisons.paired_table(make_study(tmp_path, (0,)), [("SimCLR", "Random encoder")], **FEW)
    assert f"| {shown} |" in report.shown_pairs(pairs.assign(p_value=p))


def test_fewer_than_three_seeds_are_called_weights_not_methods(tmp_path: Path) -> None:
    pairs = comparisons.paired_table(make_study(tmp_path, (0,)), [("SimCLR", "Random encoder")], **FEW)
    assert "compares sets of weights, not methods" in prose.verdicts(pairs)


def test_pairs_on_other_images_or_data_are_refused(tmp_path: Path) -> None:
    runs = [make_run(tmp_path, method="simclr"), make_run(tmp_path, method="vicreg", labels=3)]
    with pytest.raises(ValueError, match="same test images"):
        comparisons.paired_table(runs, [("SimCLR", "VICReg")], **FEW)
    runs = [make_run(tmp_path / "a", size=128), make_run(tmp_path, method="vicreg", seed=9)]
    with pytest.raises(ValueError, match="one data set at one size"):
        comparisons.paired_table(runs, [("SimCLR", "VICReg")], **FEW)


def test_a_pair_with_a_missing_side_is_left_out_and_the_prose_stays_open(tmp_path: Path) -> None:
    pairs = comparisons.paired_table([make_run(tmp_path)], [("SimCLR", "VICReg")], **FEW)
    assert pairs.empty and "No comparison yet" in prose.verdicts(pairs)


# ---- what readers see


def test_markdown_tables_are_rectangular_and_escape_bars() -> None:
    text = report.to_markdown(pd.DataFrame({"a": ["x|y", None], "b": [1.5, float("nan")]}))
    lines = text.splitlines()
    assert lines == ["| a | b |", "| --- | ---: |", "| x\\|y | 1.5 |", "| – | – |"]
    for name in (r"x\|y", r"x\\|y", "|", "\\"):  # as a page shows it, it is the name again
        shown = Body().markdown(report.to_markdown(pd.DataFrame({"a": [name]})))
        assert f">{name}</td>" in shown, shown


def test_the_shown_table_keeps_published_figures_apart_and_marked(tmp_path: Path) -> None:
    published = published_table("pneumoniamnist")
    text = report.shown_summary(tables.summary_table([make_run(tmp_path)], **FEW), published)
    ours, *others = text.splitlines()[2:]
    assert "SimCLR" in ours and len(others) == len(published)
    assert all("published, other protocol" in line for line in others)


@pytest.mark.parametrize(("unit", "other"), [("patients", "images"), ("images", "patients")])
def test_a_table_and_a_figure_say_what_their_intervals_resample(tmp_path: Path, unit: str, other: str) -> None:
    run = make_run(tmp_path)
    if unit == "images":  # as of a data set whose images have no patients
        predictions = pd.read_csv(run.path / "predictions_test.csv.gz")
        predictions.assign(group=range(len(predictions))).to_csv(run.path / "predictions_test.csv.gz", index=False)
    summary = tables.summary_table([run], **FEW)
    said = [report.shown_summary(summary), plots.plot_table_forest(summary).axes[0].get_xlabel()]
    assert all(unit in text and other not in text for text in said), said


def test_published_figures_have_a_source_and_a_protocol() -> None:
    assert all(p.source and p.protocol and 0.5 < p.value < 1 for p in PUBLISHED)


def test_a_collapse_and_steps_left_out_are_sentences_with_seed_and_epoch(tmp_path: Path) -> None:
    histories = tables.history_table(make_study(tmp_path))
    pretext = histories[histories.family == "simclr"]
    assert "**collapsed** (seed 0 from epoch 1 on: feature std 0 below 0.01" in prose.reading_of_collapse(
        pretext.assign(feature_std=0.0)
    )
    early = pretext.assign(uniformity=np.where(pretext.epoch == 1, 0.0, pretext.uniformity))
    assert "in epoch 1, but not at the end: uniformity of the embeddings 0.00" in prose.reading_of_collapse(early)
    by_rank = pretext.assign(collapsed=1)  # judged by how many images and features there were
    assert re.search(r"from epoch 1 on: effective rank \d", prose.reading_of_collapse(by_rank))
    assert "left out" not in prose.reading_of_curves(pretext)
    bad = prose.reading_of_curves(pretext.assign(skipped_steps=np.where(pretext.epoch == 1, 3, 0)))
    assert "**Steps were left out** because their loss or gradient was not finite (seed 0: 3 in epoch 1" in bad


def test_prose_repeats_the_numbers_of_its_table(tmp_path: Path) -> None:
    runs = make_study(tmp_path)
    summary, histories = tables.summary_table(runs, **FEW), tables.history_table(runs)
    best = summary.sort_values("test_mean").iloc[-1]
    assert (
        f"{best.test_mean:.3f} [{best.test_low:.3f}, {best.test_high:.3f}]: {best.label} "
        in prose.reading_of_scores(summary)
    )
    pretext = histories[histories.family == "simclr"]
    last = pretext[pretext.epoch == pretext.epoch.max()]
    assert f"{last.loss.mean():.3f}" in prose.reading_of_curves(pretext)
    assert f"{np.log(511):.3f}" in prose.reading_of_curves(pretext)
    assert f"{last.online_auc.mean():.3f}" in prose.reading_of_online(pretext)
    assert "no collapse" in prose.reading_of_collapse(pretext)
    assert "**collapsed**" in prose.reading_of_collapse(pretext.assign(feature_std=0.0))


def test_a_best_encoder_that_is_untrained_is_said_to_have_learnt_nothing(tmp_path: Path) -> None:
    runs = [make_run(tmp_path, quality=0.5), make_run(tmp_path, quality=4.0, epochs=0)]
    assert "nothing here was learnt" in prose.reading_of_scores(tables.summary_table(runs, **FEW))


def test_hyperparameters_are_read_from_the_code_that_sets_them() -> None:
    plan = [PretrainConfig(method=m, epochs=30) for m in ("simclr", "vicreg")] + [PretrainConfig(epochs=0)]
    table = report.hyperparameter_table(plan).set_index("parameter")
    assert table.loc["temperature", "SimCLR"] == 0.2 and "CIFAR" in table.loc["temperature", "what it is and why"]
    assert table.loc["epochs", "VICReg"] == 30
    assert "per 256 images" in table.loc["lr", "what it is and why"]
    assert "mediastinum" in table.loc["policy", "what it is and why"]
    assert table.loc["folds", "probes"] == 5
    assert not {"Supervised", "Random encoder"} & set(table.columns)


def test_a_fine_tuned_run_is_named_after_its_parent_and_its_seeds_belong_together(tmp_path: Path) -> None:
    parents = [make_run(tmp_path, method="simclr", seed=s) for s in (0, 1)]
    other = make_run(tmp_path, method="vicreg")
    common = {"method": "supervised", "policy": "supervised"}
    tuned = [make_run(tmp_path, init=f"{p.id}/backbone.safetensors", seed=p.record["seed"], **common) for p in parents]
    third = make_run(tmp_path, init=f"{other.id}/backbone.safetensors", **common)
    assert [lineage.run_label(run) for run in (*tuned, third)] == ["SimCLR, fine-tuned"] * 2 + ["VICReg, fine-tuned"]
    assert lineage.parent_of(tuned[1]).id == parents[1].id and lineage.parent_of(parents[0]) is None
    assert lineage.configuration(tuned[0]) == lineage.configuration(tuned[1]) != lineage.configuration(third)
    summary = tables.summary_table(tuned, num_resamples=20)
    assert list(summary.num_seeds) == [2]
    path = str(tmp_path / "runs" / other.id / "backbone.safetensors")  # as a plan names it
    assert lineage.label_of({**vars(PretrainConfig(init=path, **common)), "init_sha256": None}) == "VICReg, fine-tuned"
    lost = {**tuned[0].record, "init": "nowhere/backbone.safetensors"}
    assert lineage.label_of(lost, tmp_path / "runs") == "given weights, fine-tuned"


def test_a_subset_is_always_called_one() -> None:
    assert lineage.dataset_name("chestmnist", ["subset of 1/2 images"]) == "ChestMNIST (subset)"
    assert lineage.dataset_name("chestmnist") == "ChestMNIST"


# ---- writes


def test_a_picture_is_kept_in_256_colours_unless_that_shows() -> None:
    figure = Figure(figsize=(4, 3))
    ax = figure.subplots()
    for shift in range(3):
        ax.plot(np.linspace(0, 9, 50), np.sin(np.linspace(0, 9, 50) + shift))
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=160)
    drawn, kept = PIL.Image.open(buffer).convert("RGB"), PIL.Image.open(io.BytesIO(with_palette(buffer.getvalue())))
    assert kept.mode == "P" and kept.size == drawn.size
    assert len(with_palette(buffer.getvalue())) < 0.6 * len(buffer.getvalue())
    moved = np.abs(np.asarray(kept.convert("RGB"), int) - np.asarray(drawn, int))
    assert moved.mean() < 0.5 and np.median(moved) == 0
    noise = io.BytesIO()
    many = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)  # more colours than 256 can stand for
    PIL.Image.fromarray(many).save(noise, format="png")
    assert with_palette(noise.getvalue()) == noise.getvalue()


def test_figures_and_tables_go_below_the_report_folder_and_nowhere_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CXR_REPORT", str(tmp_path))
    shown = report.save_figure(Figure(figsize=(1, 1)), "04_name", get_profile("smoke"))
    report.save_table(pd.DataFrame({"a": [1]}), "04_name", get_profile("smoke"))
    files = {str(p.relative_to(tmp_path)) for p in tmp_path.rglob("*") if p.is_file()}
    assert files == {"figures/04_name.png", "tables/04_name.csv"}
    assert shown.data == (tmp_path / "figures/04_name.png").read_bytes()
    for slug in ("name", "4_name", "04_../x", "04 name"):
        with pytest.raises(ValueError, match="slug must be"):
            report.save_figure(Figure(), slug, get_profile("smoke"))


def test_an_answer_is_left_for_the_index_and_shown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CXR_REPORT", str(tmp_path))
    shown = report.save_answer(
        "04_methods", "SimCLR is **not distinguishable**.\n\n| a |\n|---|\n", get_profile("smoke")
    )
    assert (tmp_path / "answers/04_methods.md").read_text() == str(shown.data).strip() + "\n"
    with pytest.raises(ValueError, match="an answer must say something, got ' '"):
        report.save_answer("04_methods", " ", get_profile("smoke"))
    with pytest.raises(ValueError, match="slug must be"):
        report.save_answer("methods", "Yes.", get_profile("smoke"))


def test_without_variables_reports_are_ignored_by_git_and_only_evidence_reaches_results(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("CXR_REPORT", raising=False)
    monkeypatch.delenv("CXR_RESULTS", raising=False)
    root = study.project_root()
    assert report.report_folder(get_profile("quick")) == root / "report" / "quick"
    assert study.study_runtime(get_profile("smoke")).results == str(root / "report" / "smoke")
    assert study.study_runtime(get_profile("cpu")).results == str(root / "results")
    assert "/report/" in (root / ".gitignore").read_text().splitlines()


# ---- the work list


def test_seeds_that_are_planned_and_done_share_the_name_their_weights_give(
    tmp_path: Path, runtime: RuntimeConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.save(torchvision.models.resnet18().state_dict(), tmp_path / "weights.pth")
    monkeypatch.setenv("CXR_IMAGENET_WEIGHTS", str(tmp_path / "weights.pth"))
    monkeypatch.setattr(lineage, "LAYER4_REFIT", imagenet_state("resnet18")[1])
    data = {"textures": texture_dataset()}
    plan = [texture_config(method="supervised", init="imagenet", seed=seed) for seed in (0, 1)]
    pretrain(plan[0], data["textures"], runtime)
    work = report.work_list(plan, data, runtime)
    assert set(work.label) == {"ImageNet (layer4 refit), fine-tuned"}
    assert "0: loaded" in report.shown_work(work) and "1: not run yet" in report.shown_work(work)


@pytest.mark.usefixtures("tiny_net")
def test_the_work_list_finds_finished_runs_and_gives_commands_for_the_others(runtime: RuntimeConfig) -> None:
    data = {"textures": texture_dataset()}
    plan = [texture_config(seed=s) for s in (0, 1)] + [texture_config(epochs=0)]
    run = pretrain(plan[0], data["textures"], runtime)
    work = report.work_list(plan, data, runtime)
    assert list(work.status) == ["loaded", "not run yet", "nothing to train"]
    assert list(work.ready) == [True, False, True]
    assert "--seed 1" in work.command[1] and work.command[1] in prose.missing_text(work[~work.ready])
    more = report.work_list([texture_config(seed=s) for s in (1, 4)], data, runtime)
    assert all(command.endswith(" --test") for command in more.command)
    silent = report.work_list(plan, data, runtime, test=False)  # a page that chooses leaves test alone
    assert not any("--test" in command for command in silent.command)
    left = report.run_plan(plan[1:2], data, runtime, train_missing=False, test=False)
    assert list(left.missing.command) == [silent.command[1]]
    alone = prose.missing_text(left.missing)
    assert alone.startswith("**1 run of the plan is not there**") and "To make it:" in alone
    grouped = prose.missing_text(more)
    assert "**2 runs" in grouped and "--seed N" in grouped and "with N = 1, 4" in grouped
    found = study.planned_run(plan[0], data["textures"], runtime)
    assert found.id == run.id and found.finished
    other = dataclasses.replace(data["textures"], test=data["textures"].val)
    absent = study.planned_run(plan[0], other, runtime)
    assert absent.id != run.id and not absent.finished and absent.history.empty and not absent.path.exists()
    evaluate(run, data["textures"], runtime, test=True)
    assert list(tables.runs_table([run]).run_id) == [run.id]
