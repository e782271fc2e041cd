"""From run to record: scored once, chosen without test, read back without weights."""

from __future__ import annotations

import importlib
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
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
PROBE = ProbeConfig(cs=(0.01, 1.0), folds=2, knn_k=5)
OTHERWISE = replace(PROBE, knn_k=3)


@pytest.fixture
def run(tiny_net: None, textures: Dataset, runtime: RuntimeConfig) -> Run:
    return pretrain(texture_config(), textures, runtime)


def files(run: Run) -> dict[str, bytes]:
    return {p.name: p.read_bytes() for p in run.path.iterdir()}


# ---- what the record holds


def test_the_record_and_its_closing_line_hold_what_was_asked_for_with_intervals_around_it(
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
    del measured["linear"]["test"]
    line, auc = summary_line(run, measured), measured["linear"]["val"]["auc"]
    assert line.startswith(f"trained {run.path} · val auc {auc:.4f} [") and "(linear probe)" in line
    assert "kNN val auc" in line and "test" not in line.removeprefix(f"trained {run.path}")


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


def test_a_supervised_runs_own_head_is_scored_and_its_predictions_kept(
    textures: Dataset, runtime: RuntimeConfig
) -> None:
    run = pretrain(texture_config(method="supervised"), textures, runtime)
    measured = evaluate_run(run, textures, runtime, PROBE, test=True)
    state = load_file(run.path / "head.safetensors")
    features = torch.from_numpy(run_features(run, "test", textures.test, runtime).x)
    scores = torch.nn.functional.linear(features, state["weight"], state["bias"]).sigmoid().squeeze(1).numpy()
    assert measured["head"]["test"]["auc"] == pytest.approx(roc_auc_score(textures.test.labels, scores))
    np.testing.assert_allclose(run.predictions("test")["score/pneumonia"], scores, rtol=1e-5)
    assert measured["linear"]["test"]["auc"] != measured["head"]["test"]["auc"]
    assert "trained head" in summary_line(run, measured)


def test_a_run_on_part_of_the_labels_is_probed_on_the_same_part_where_its_neighbours_are(
    textures: Dataset, runtime: RuntimeConfig
) -> None:
    run = pretrain(texture_config(label_fraction=0.5), textures, runtime)
    measured = evaluate_run(run, textures, runtime, PROBE)
    hidden = keep_labels(textures, 0.5, 0)
    train, val = (run_features(run, name, getattr(hidden, name), runtime) for name in ("train", "val"))
    assert len(train.labelled()) < len(train)
    expected = linear_probe(train, val, task="binary", num_outputs=1, config=PROBE)
    assert measured["linear"]["c"] == expected.c
    np.testing.assert_allclose(run.predictions("val")["score/pneumonia"], expected.scores["val"], rtol=1e-5)
    near = knn_probe(train, val, task="binary", k=PROBE.knn_k, temperature=PROBE.knn_temperature)
    assert measured["knn"]["val"]["ece"] == pytest.approx(expected_calibration_error(val.labels, near))


def test_images_without_a_label_are_neither_scored_nor_written_and_unknown_patients_not_counted(
    textures: Dataset, runtime: RuntimeConfig
) -> None:
    labels = textures.val.labels.clone()
    labels[::4] = -1
    dataset = replace(textures, val=replace(textures.val, labels=labels, groups=None))
    run = pretrain(texture_config(), dataset, runtime)
    assert "num_patients" not in evaluate_run(run, dataset, runtime, PROBE)["linear"]["val"]
    assert len(run.predictions("val")) == 18 and (run.predictions("val")["label"] >= 0).all()


# ---- test is read once, and chooses nothing


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


def test_test_is_read_only_when_asked_for_and_each_reading_is_counted_also_after_training_afresh(
    run: Run, textures: Dataset, runtime: RuntimeConfig
) -> None:
    alone = evaluate_run(run, textures, runtime, PROBE)
    assert alone["test_reads"] == 0 and "test" not in alone["linear"]
    assert not list(run.path.glob("*_test*"))
    both = evaluate_run(run, textures, runtime, PROBE, test=True)
    assert both["test_reads"] == 1 and alone["linear"]["val"] == both["linear"]["val"]
    assert evaluate_run(run, textures, runtime, PROBE, test=True)["test_reads"] == 1  # the record, not a reading
    assert "test" in evaluate_run(run, textures, runtime, PROBE)["linear"]
    assert evaluate_run(run, textures, runtime, OTHERWISE, test=True)["test_reads"] == 2
    again = pretrain(texture_config(), textures, runtime, fresh=True)
    assert again.metrics == {"test_reads": 2}
    assert evaluate_run(again, textures, runtime, PROBE, test=True)["test_reads"] == 3


def test_a_test_split_of_one_class_is_refused_and_no_reading_is_recorded(
    textures: Dataset, runtime: RuntimeConfig
) -> None:
    dataset = replace(textures, test=replace(textures.test, labels=torch.zeros(24, dtype=torch.int64)))
    run = pretrain(texture_config(), dataset, runtime)
    with pytest.raises(ValueError, match="AUC needs both classes: the labelled test images have only 0"):
        evaluate_run(run, dataset, runtime, PROBE, test=True)
    assert run.metrics == {}


# ---- a second call, and weights that are away or others


def test_a_record_is_returned_without_weights_and_a_new_measurement_names_the_command_that_makes_them(
    run: Run, textures: Dataset, runtime: RuntimeConfig
) -> None:
    evaluate_run(run, textures, runtime, PROBE)
    for file in run.path.glob("*.safetensors"):
        file.unlink()
    older = run.metrics | {"probe_config": run.metrics["probe_config"] | {"sgd_epochs": 30}}  # of a field that is gone
    (run.path / "metrics.json").write_text(json.dumps(older))
    before = files(run)
    assert evaluate_run(run, textures, runtime, PROBE) == older
    with pytest.raises(FileNotFoundError, match=r"not its weights here; make them anew with: python train\.py"):
        evaluate_run(run, textures, runtime, PROBE, test=True)
    assert files(run) == before


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
        again = evaluate_run(run, textures, runtime, OTHERWISE)
        assert again["linear"]["val"] == before["linear"]["val"]  # from features of the weights on record
        return
    for cache in run.path.glob("features_*"):
        cache.unlink()
    with pytest.raises(ValueError, match="must have the weights of its record"):
        evaluate_run(run, textures, runtime, OTHERWISE)
    assert run.metrics == before


def test_features_are_extracted_once_and_their_cache_serves_no_other_images(
    run: Run, textures: Dataset, runtime: RuntimeConfig
) -> None:
    first, cache = run_features(run, "val", textures.val, runtime).x, run.path / "features_val.safetensors"
    assert first.shape == (24, 32) and first.dtype == np.float32
    inverted = replace(textures.val, images=255 - textures.val.images)
    assert not np.allclose(run_features(run, "val", inverted, runtime).x, first)
    for spoil in (
        lambda: None,  # of other images
        lambda: save_file({"x": torch.zeros(24, 32)}, cache),  # of nobody knows which
        lambda: cache.write_bytes(cache.read_bytes()[:100]),
        run.weights.unlink,
    ):
        spoil()
        np.testing.assert_array_equal(run_features(run, "val", textures.val, runtime).x, first)


# ---- other encoders, other data


def test_a_run_on_other_data_has_a_record_of_its_own_and_leaves_the_runs(
    run: Run, textures: Dataset, runtime: RuntimeConfig
) -> None:
    flipped = replace(textures, test=replace(textures.test, labels=1 - textures.test.labels))
    measured = evaluate_run(run, flipped, runtime, PROBE, test=True)
    there = probe_of(run, flipped, runtime)
    assert run.metrics == {} and there.metrics == measured and there.path != run.path
    assert there.record["encoder"] == f"{run.id}/backbone.safetensors" and there.finished
    own = evaluate_run(run, textures, runtime, PROBE, test=True)
    assert measured["linear"]["test"]["auc"] == pytest.approx(1 - own["linear"]["test"]["auc"])
    assert there.environment["command"].startswith(f"python train.py --encoder results/runs/{run.id}/backbone")


def test_an_untrained_encoder_is_probed_by_its_seed_and_found_again(
    textures: Dataset, runtime: RuntimeConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = evaluate_run("random", textures, runtime, PROBE)
    found = probe_of("random", textures, runtime)
    assert found.finished and found.id.startswith("textures-64-random-s0-")
    assert found.environment["command"] == "python train.py --encoder random --dataset textures --size 64 --seed 0"
    assert evaluate_run("random", textures, runtime, PROBE, seed=1)["linear"]["val"] != first["linear"]["val"]
    monkeypatch.setattr(Run, "backbone", lambda _: pytest.fail("built again"))
    assert evaluate_run("random", textures, runtime, PROBE) == first


def test_imagenets_filters_are_summed_for_grey_films_and_its_record_names_both_digests(
    textures: Dataset, runtime: RuntimeConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
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
    fused, names = probe_of([run, "random"], textures, runtime), ("train", "val")
    alone = (run, probe_of("random", textures, runtime))
    blocks = [{name: run_features(one, name, getattr(textures, name), runtime).x for name in names} for one in alone]
    for block in blocks:
        mean, spread = block["train"].mean(0), block["train"].std(0)
        block |= {name: (block[name] - mean) / np.where(spread > 0, spread, 1) for name in names}  # some are dead
    splits = [getattr(textures, name) for name in names]
    train, val = (
        Features(np.hstack([block[name] for block in blocks]), split.labels.numpy(), split.groups)
        for name, split in zip(names, splits, strict=True)
    )
    expected = linear_probe(train, val, config=PROBE, task="binary", num_outputs=1)
    np.testing.assert_allclose(fused.predictions("val")["score/pneumonia"], expected.scores["val"], rtol=1e-4)


# ---- several processes, and a kill


def test_a_run_is_locked_while_it_is_probed_and_only_its_record_is_read_where_another_process_probes_it(
    run: Run, textures: Dataset, runtime: RuntimeConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    def locked(*arguments: Any, **named: Any) -> Any:
        with pytest.raises(LockedError, match=f"{run.id} is being probed by process"):
            pretrain(texture_config(), textures, runtime, fresh=True)
        return linear_probe(*arguments, **named)

    monkeypatch.setattr(evaluating, "linear_probe", locked)
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

    monkeypatch.setattr(evaluating, "run_lock", late)
    assert evaluate_run(run, textures, runtime, PROBE, test=True)["test_reads"] == 1  # what was wanted: no own reading
    first.append(replace(PROBE, knn_k=4))
    assert evaluate_run(run, textures, runtime, OTHERWISE, test=True)["test_reads"] == 3


@pytest.mark.parametrize("written", range(4))  # the count, predictions of val and of test, the record
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
        evaluate_run(run, textures, runtime, OTHERWISE, test=True)
    assert names == ["metrics.json", "predictions_val.csv.gz", "predictions_test.csv.gz"][:written]
    assert run.metrics == ({"test_reads": 2} if written else old)
    again = evaluate_run(run, textures, runtime, OTHERWISE, test=True)
    assert again["test_reads"] == (3 if written else 2) and again == run.metrics
