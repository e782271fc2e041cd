"""From run to record: scored once, chosen without test, read back without weights."""

from __future__ import annotations

import dataclasses
import importlib
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from conftest import TinyNet, texture_config, texture_dataset
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from sklearn.metrics import accuracy_score, roc_auc_score
from test_locks import OTHER, held_elsewhere

from cxr_helpers import evaluate as evaluate_run
from cxr_helpers.config import ProbeConfig, RuntimeConfig
from cxr_helpers.data import Dataset, keep_labels
from cxr_helpers.evaluate import probe_of, run_features, summary_line
from cxr_helpers.pretrain import pretrain
from cxr_helpers.probe import Features, expected_calibration_error, knn_probe, linear_probe
from cxr_helpers.runs import LockedError, Run

evaluating = importlib.import_module("cxr_helpers.evaluate")  # the package's `evaluate` is its function
pytestmark = pytest.mark.usefixtures("tiny_net")
PROBE = ProbeConfig(cs=(0.01, 1.0), folds=2, sgd_epochs=2, knn_k=5)


@pytest.fixture
def run(tiny_net: None, textures: Dataset, runtime: RuntimeConfig) -> Run:
    return pretrain(texture_config(), textures, runtime)


def without_weights(run: Run) -> None:
    for file in run.path.glob("*.safetensors"):
        file.unlink()


def files(run: Run) -> dict[str, bytes]:
    return {p.name: p.read_bytes() for p in run.path.iterdir()}


def test_patients_are_counted_only_where_they_are_known(textures: Dataset) -> None:
    split = Features(np.zeros((4, 1), np.float32), np.array([0, 0, 1, 1]), np.array(list("aabb")))
    scores = np.array([0.1, 0.2, 0.8, 0.9])
    assert evaluating._interval(textures, split, scores)["num_patients"] == 2
    assert "num_patients" not in evaluating._interval(textures, replace(split, groups=None), scores)


def test_the_record_holds_what_was_asked_for_with_intervals_around_it(
    run: Run, textures: Dataset, runtime: RuntimeConfig
) -> None:
    measured = evaluate_run(run, textures, runtime, PROBE, test=True)
    assert measured == run.metrics
    assert set(measured) == {"probe_config", "linear", "knn", "test_reads", "run"}
    for split in ("val", "test"):
        for probe in ("linear", "knn"):
            values = measured[probe][split]
            assert 0 <= values["auc_low"] <= values["auc"] <= values["auc_high"] <= 1
            assert values["num_patients"] == 12
        linear = measured["linear"][split]
        assert {"average_precision", "accuracy", "balanced_accuracy", "sensitivity", "specificity"} <= set(linear)
    assert measured["linear"]["c"] in PROBE.cs and len(measured["linear"]["threshold"]) == 1
    assert len(pd.read_csv(run.path / "probe_curve.csv")) == PROBE.sgd_epochs


@pytest.mark.parametrize("task", ["binary", "multiclass", "multilabel"])
def test_the_predictions_give_the_recorded_figures_in_every_task(task: Any, runtime: RuntimeConfig) -> None:
    dataset = texture_dataset(task)
    run = pretrain(texture_config(), dataset, runtime)
    measured = evaluate_run(run, dataset, runtime, PROBE, test=True)
    for name in ("val", "test"):
        split, table = getattr(dataset, name), run.predictions(name)
        assert split.groups is not None and list(table["group"]) == list(split.groups)
        labels = table.filter(regex="^label").to_numpy().squeeze()
        scores = table.filter(regex="^score/").to_numpy().squeeze()
        np.testing.assert_array_equal(labels, split.labels.numpy())
        recorded = measured["linear"][name]
        if task == "multiclass":
            assert accuracy_score(labels, scores.argmax(1)) == pytest.approx(recorded["accuracy"])
            assert list(table.filter(regex="^score/")) == ["score/a", "score/b", "score/c"]
            np.testing.assert_allclose(scores.sum(1), 1, rtol=1e-5)
        else:
            assert roc_auc_score(labels, scores) == pytest.approx(recorded["auc"])


def test_shuffled_test_labels_change_no_choice_and_no_figure_of_val(textures: Dataset, runtime: RuntimeConfig) -> None:
    labels = textures.test.labels
    shuffled = replace(textures, test=replace(textures.test, labels=labels[torch.arange(len(labels)) - 3]))
    records = []
    for dataset in (textures, shuffled):
        run = pretrain(texture_config(method="supervised"), dataset, runtime)
        records.append(evaluate_run(run, dataset, runtime, PROBE, test=True))
    a, b = records
    assert a["linear"]["test"] != b["linear"]["test"]
    for record in records:
        for probe in ("linear", "knn", "head"):
            del record[probe]["test"]
        record.pop("run")  # its own name
    assert a == b


def test_test_is_read_only_when_asked_for_and_each_reading_is_counted(
    run: Run, textures: Dataset, runtime: RuntimeConfig
) -> None:
    measured = evaluate_run(run, textures, runtime, PROBE)
    assert measured["test_reads"] == 0 and "test" not in measured["linear"]
    assert not (run.path / "features_test.safetensors").exists()
    assert not (run.path / "predictions_test.csv.gz").exists()
    assert evaluate_run(run, textures, runtime, PROBE, test=True)["test_reads"] == 1
    assert evaluate_run(run, textures, runtime, PROBE, test=True)["test_reads"] == 1  # the record, not a reading
    assert "test" in evaluate_run(run, textures, runtime, PROBE)["linear"]
    other = replace(PROBE, knn_k=3)
    assert evaluate_run(run, textures, runtime, other, test=True)["test_reads"] == 2


@pytest.mark.usefixtures("tiny_net")
def test_training_afresh_forgets_the_record_but_not_how_often_test_was_read(
    textures: Dataset, runtime: RuntimeConfig
) -> None:
    evaluate_run(pretrain(texture_config(), textures, runtime), textures, runtime, PROBE, test=True)
    again = pretrain(texture_config(), textures, runtime, fresh=True)
    assert again.metrics == {"test_reads": 1}
    assert evaluate_run(again, textures, runtime, PROBE, test=True)["test_reads"] == 2


def test_val_is_measured_alike_whether_or_not_test_is_read(run: Run, textures: Dataset, runtime: RuntimeConfig) -> None:
    alone = evaluate_run(run, textures, runtime, PROBE)
    both = evaluate_run(run, textures, runtime, PROBE, test=True)
    assert alone["linear"]["val"] == both["linear"]["val"] and alone["knn"]["val"] == both["knn"]["val"]
    assert alone["linear"]["threshold"] == both["linear"]["threshold"]


def test_a_second_call_returns_the_record_without_weights_or_features(
    run: Run, textures: Dataset, runtime: RuntimeConfig
) -> None:
    measured = evaluate_run(run, textures, runtime, PROBE)
    without_weights(run)
    before = files(run)
    assert evaluate_run(run, textures, runtime, PROBE) == measured
    assert files(run) == before


def test_a_new_measurement_without_weights_names_the_command_and_changes_nothing(
    run: Run, textures: Dataset, runtime: RuntimeConfig
) -> None:
    evaluate_run(run, textures, runtime, PROBE)
    without_weights(run)
    before = files(run)
    with pytest.raises(FileNotFoundError, match=r"not its weights here; make them anew with: python train\.py"):
        evaluate_run(run, textures, runtime, PROBE, test=True)
    assert files(run) == before


def flipped(textures: Dataset) -> Dataset:
    other = replace(textures.test, labels=1 - textures.test.labels)
    return replace(textures, test=other)


def test_a_run_on_other_data_has_a_record_of_its_own_and_leaves_the_runs(
    run: Run, textures: Dataset, runtime: RuntimeConfig
) -> None:
    measured = evaluate_run(run, flipped(textures), runtime, PROBE, test=True)
    there = probe_of(run, flipped(textures), runtime)
    assert run.metrics == {} and there.metrics == measured and there.path != run.path
    assert there.record["encoder"] == f"{run.id}/backbone.safetensors" and there.finished
    own = evaluate_run(run, textures, runtime, PROBE, test=True)
    assert measured["linear"]["test"]["auc"] == pytest.approx(1 - own["linear"]["test"]["auc"])
    assert there.environment["command"].startswith(f"python train.py --encoder results/runs/{run.id}/backbone")


def test_an_untrained_encoder_is_probed_by_its_seed_and_found_again(
    tiny_net: None, textures: Dataset, runtime: RuntimeConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = evaluate_run("random", textures, runtime, PROBE)
    found = probe_of("random", textures, runtime)
    assert found.finished and found.id.startswith("textures-64-random-s0-")
    assert found.environment["command"] == "python train.py --encoder random --dataset textures --size 64 --seed 0"
    assert evaluate_run("random", textures, runtime, PROBE, seed=1)["linear"]["val"] != first["linear"]["val"]
    monkeypatch.setattr(Run, "backbone", lambda _: pytest.fail("built again"))
    assert evaluate_run("random", textures, runtime, PROBE) == first


def test_imagenets_filters_are_summed_for_grey_films_and_its_record_names_both_digests(
    tiny_net: None, textures: Dataset, runtime: RuntimeConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.save(TinyNet().state_dict(), tmp_path / "weights.pth")
    monkeypatch.setenv("CXR_IMAGENET_WEIGHTS", str(tmp_path / "weights.pth"))
    evaluate_run("imagenet", textures, runtime, PROBE)
    found = probe_of("imagenet", textures, runtime)
    assert found.record["encoder_sha256"] != found.weights_sha256 and found.id.startswith("textures-64-imagenet-s0-")
    fused = probe_of(["imagenet", "random"], textures, runtime)
    evaluate_run(["imagenet", "random"], textures, runtime, PROBE)
    assert probe_of(["imagenet", "random"], textures, runtime).id == fused.id
    torch.save(TinyNet().state_dict(), tmp_path / "weights.pth")  # other weights are another encoder
    assert probe_of("imagenet", textures, runtime).id != found.id


def test_encoders_side_by_side_are_probed_on_standardised_blocks(
    run: Run, textures: Dataset, runtime: RuntimeConfig
) -> None:
    evaluate_run([run, "random"], textures, runtime, PROBE)
    fused = probe_of([run, "random"], textures, runtime)
    blocks = [
        {name: run_features(one, name, getattr(textures, name), runtime).x for name in ("train", "val")}
        for one in (run, probe_of("random", textures, runtime))
    ]
    spread = [np.where(b["train"].std(0) > 0, b["train"].std(0), 1) for b in blocks]  # some features are dead
    x = {
        name: np.hstack([(b[name] - b["train"].mean(0)) / std for b, std in zip(blocks, spread, strict=True)])
        for name in ("train", "val")
    }
    train, val = (Features(x[n], getattr(textures, n).labels.numpy(), getattr(textures, n).groups) for n in x)
    expected = linear_probe(train, val, config=PROBE, task="binary", num_outputs=1)
    np.testing.assert_allclose(fused.predictions("val")["score/pneumonia"], expected.scores["val"], rtol=1e-4)


@pytest.mark.parametrize("cached", [True, False])
def test_weights_that_are_not_the_records_replace_no_figure(
    run: Run, textures: Dataset, runtime: RuntimeConfig, cached: bool
) -> None:
    before = evaluate_run(run, textures, runtime, PROBE)
    noise = {k: torch.randn_like(v) if v.is_floating_point() else v for k, v in load_file(run.weights).items()}
    with safe_open(run.weights, "pt") as file:
        about = file.metadata()
    save_file(noise, run.weights, about)
    if cached:
        again = evaluate_run(run, textures, runtime, replace(PROBE, sgd_epochs=3))
        assert again["linear"]["val"] == before["linear"]["val"]  # from features of the weights on record
        return
    for file in run.path.glob("features_*"):
        file.unlink()
    with pytest.raises(ValueError, match="must have the weights of its record"):
        evaluate_run(run, textures, runtime, replace(PROBE, sgd_epochs=3))
    assert run.metrics == before


def test_a_cache_that_cannot_be_read_is_made_anew(run: Run, textures: Dataset, runtime: RuntimeConfig) -> None:
    first = run_features(run, "val", textures.val, runtime)
    cache = run.path / "features_val.safetensors"
    cache.write_bytes(cache.read_bytes()[:100])
    np.testing.assert_array_equal(run_features(run, "val", textures.val, runtime).x, first.x)


def test_a_supervised_runs_own_head_is_scored_and_its_predictions_kept(
    textures: Dataset, runtime: RuntimeConfig
) -> None:
    run = pretrain(texture_config(method="supervised"), textures, runtime)
    measured = evaluate_run(run, textures, runtime, PROBE, test=True)
    state = load_file(run.path / "head.safetensors")
    features = torch.from_numpy(run_features(run, "test", textures.test, runtime).x)
    scores = torch.nn.functional.linear(features, state["weight"], state["bias"]).sigmoid().squeeze(1).numpy()
    expected = roc_auc_score(textures.test.labels, scores)
    assert measured["head"]["test"]["auc"] == pytest.approx(expected)
    np.testing.assert_allclose(run.predictions("test")["score/pneumonia"], scores, rtol=1e-5)
    assert measured["linear"]["test"]["auc"] != measured["head"]["test"]["auc"]
    assert "trained head" in summary_line(run, measured)


def test_features_are_extracted_once(
    run: Run, textures: Dataset, runtime: RuntimeConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = run_features(run, "val", textures.val, runtime)
    run.weights.unlink()
    second = run_features(run, "val", textures.val, runtime)
    np.testing.assert_array_equal(first.x, second.x)
    assert first.x.shape == (24, 32) and first.x.dtype == second.x.dtype == np.float32


def test_cached_features_of_other_images_are_not_used(run: Run, textures: Dataset, runtime: RuntimeConfig) -> None:
    first = run_features(run, "val", textures.val, runtime)
    inverted = replace(textures.val, images=255 - textures.val.images)
    other = run_features(run, "val", inverted, runtime)
    assert len(other.x) == len(first.x) and not np.allclose(other.x, first.x)
    np.testing.assert_array_equal(run_features(run, "val", textures.val, runtime).x, first.x)
    save_file({"x": torch.zeros(24, 32)}, run.path / "features_val.safetensors")  # of nobody knows which images
    np.testing.assert_array_equal(run_features(run, "val", textures.val, runtime).x, first.x)


def test_a_run_on_part_of_the_labels_is_probed_on_the_same_part(textures: Dataset, runtime: RuntimeConfig) -> None:
    run = pretrain(texture_config(label_fraction=0.5), textures, runtime)
    measured = evaluate_run(run, textures, runtime, PROBE)
    hidden = keep_labels(textures, 0.5, 0)
    train, val = (run_features(run, name, getattr(hidden, name), runtime) for name in ("train", "val"))
    assert len(train.labelled()) < len(train)
    expected = linear_probe(train, val, task="binary", num_outputs=1, config=PROBE)
    assert measured["linear"]["c"] == expected.c
    np.testing.assert_allclose(run.predictions("val")["score/pneumonia"], expected.scores["val"], rtol=1e-5)


def test_the_neighbours_of_val_and_test_are_train_images(run: Run, textures: Dataset, runtime: RuntimeConfig) -> None:
    measured = evaluate_run(run, textures, runtime, PROBE, test=True)
    train, *others = (run_features(run, name, split, runtime) for name, split in textures.splits.items())
    for name, split in zip(("val", "test"), others, strict=True):
        scores = knn_probe(train, split, task="binary", k=PROBE.knn_k, temperature=PROBE.knn_temperature)
        assert measured["knn"][name]["ece"] == pytest.approx(expected_calibration_error(split.labels, scores))


def test_images_without_a_label_are_neither_scored_nor_written(textures: Dataset, runtime: RuntimeConfig) -> None:
    labels = textures.val.labels.clone()
    labels[::4] = -1
    dataset = replace(textures, val=replace(textures.val, labels=labels))
    run = pretrain(texture_config(), dataset, runtime)
    evaluate_run(run, dataset, runtime, PROBE)
    assert len(run.predictions("val")) == 18 and (run.predictions("val")["label"] >= 0).all()


def test_a_test_split_of_one_class_is_refused_and_no_reading_is_recorded(
    textures: Dataset, runtime: RuntimeConfig
) -> None:
    dataset = replace(textures, test=dataclasses.replace(textures.test, labels=torch.zeros(24, dtype=torch.int64)))
    run = pretrain(texture_config(), dataset, runtime)
    with pytest.raises(ValueError, match="AUC needs both classes: the labelled test images have only 0"):
        evaluate_run(run, dataset, runtime, PROBE, test=True)
    assert run.metrics == {}


def test_a_run_that_another_process_probes_is_not_measured_but_its_record_is_read(
    run: Run, textures: Dataset, runtime: RuntimeConfig
) -> None:
    measured = evaluate_run(run, textures, runtime, PROBE)
    before = files(run)
    with held_elsewhere(run.path / "lock.json", json.dumps(OTHER | {"doing": "probed"})):
        assert evaluate_run(run, textures, runtime, PROBE) == measured
        told = f"run {run.id} is being probed by process 7 on elsewhere since 2026-01-01T00:00:00.*: wait for its end"
        with pytest.raises(LockedError, match=told):
            evaluate_run(run, textures, runtime, PROBE, test=True)
        (run.path / "lock.json").unlink()
    assert files(run) == before


def test_what_another_process_measured_while_this_one_came_is_returned_and_its_readings_count(
    run: Run, textures: Dataset, runtime: RuntimeConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, first = evaluating.run_lock, [PROBE]

    def late(*arguments: Any, **named: Any) -> Any:
        if first:
            evaluate_run(run, textures, runtime, first.pop(0), test=True)  # another's, done before the lock is there
        return real(*arguments, **named)

    def read(probe: ProbeConfig) -> int:
        with monkeypatch.context() as patch:
            patch.setattr(evaluating, "run_lock", late)
            return evaluate_run(run, textures, runtime, probe, test=True)["test_reads"]

    assert read(PROBE) == 1  # it is what was wanted: no reading of its own
    first.append(replace(PROBE, knn_k=4))
    assert read(replace(PROBE, knn_k=3)) == 3


def test_a_run_is_not_trained_afresh_while_it_is_probed(
    run: Run, textures: Dataset, runtime: RuntimeConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, told = evaluating.linear_probe, f"{run.id} is being probed by process"

    def meanwhile(*arguments: Any, **named: Any) -> Any:
        with pytest.raises(LockedError, match=told):
            pretrain(texture_config(), textures, runtime, fresh=True)
        return real(*arguments, **named)

    monkeypatch.setattr(evaluating, "linear_probe", meanwhile)
    assert evaluate_run(run, textures, runtime, PROBE) == run.metrics and run.finished
    assert not (run.path / "lock.json").exists()


@pytest.mark.parametrize("written", range(5))  # the count, the curve, predictions of val and of test, the record
def test_a_kill_while_the_record_is_written_loses_no_reading_and_leaves_no_old_figures(
    written: int, run: Run, textures: Dataset, runtime: RuntimeConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    old = evaluate_run(run, textures, runtime, PROBE, test=True)
    names: list[str] = []

    def dying(name: str) -> Any:
        real = getattr(evaluating, name)

        def write(path: Path, value: Any) -> None:
            if len(names) == written:
                raise MemoryError
            names.append(path.name)
            real(path, value)

        return write

    with monkeypatch.context() as patch, pytest.raises(MemoryError):
        for name in ("write_json", "write_table"):
            patch.setattr(evaluating, name, dying(name))
        evaluate_run(run, textures, runtime, replace(PROBE, knn_k=3), test=True)
    order = ["metrics.json", "probe_curve.csv", "predictions_val.csv.gz", "predictions_test.csv.gz"]
    assert names == order[:written]
    assert run.metrics == ({"test_reads": 2} if written else old)
    again = evaluate_run(run, textures, runtime, replace(PROBE, knn_k=3), test=True)
    assert again["test_reads"] == (3 if written else 2) and again == run.metrics


def test_the_closing_line_names_the_folder_and_the_figures_of_val(
    run: Run, textures: Dataset, runtime: RuntimeConfig
) -> None:
    line = summary_line(run, evaluate_run(run, textures, runtime, PROBE))
    auc = run.metrics["linear"]["val"]["auc"]
    assert line.startswith(f"trained {run.path} · val auc {auc:.4f} [") and "(linear probe)" in line
    assert "kNN val auc" in line and "test" not in line.removeprefix(f"trained {run.path}")


def test_an_interrupted_evaluation_leaves_no_partial_cache(
    run: Run, textures: Dataset, runtime: RuntimeConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full_disk(descriptor: int) -> None:
        raise OSError("No space left on device")

    monkeypatch.setattr("os.fsync", full_disk)
    with pytest.raises(OSError, match="No space"):
        run_features(run, "val", textures.val, runtime)
    assert not list(Path(run.path).glob("features_val*"))
