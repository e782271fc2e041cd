"""From run to record: scored once, chosen without test, read back without weights."""

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
from scipy.special import expit, logit
from sklearn.decomposition import PCA
from sklearn.metrics import accuracy_score, roc_auc_score

from cxr_helpers import evaluate as evaluate_run
from cxr_helpers import writing
from cxr_helpers.augment import eval_transform
from cxr_helpers.config import ProbeConfig, RuntimeConfig
from cxr_helpers.data import Dataset, keep_labels
from cxr_helpers.evaluate import probe_of, run_features, summary_line
from cxr_helpers.pretrain import pretrain
from cxr_helpers.probe import expected_calibration_error, extract_features, fuse, knn_probe, linear_probe
from cxr_helpers.runs import LockedError, Run, run_lock

evaluating = importlib.import_module("cxr_helpers.evaluate")  # the package's `evaluate` is its function
pytestmark = pytest.mark.usefixtures("tiny_net")
PROBE = ProbeConfig(cs=(0.01, 1.0), folds=2, knn_k=5)
OTHERWISE = replace(PROBE, knn_k=3)


@pytest.fixture
def run(tiny_net: None, textures: Dataset, runtime: RuntimeConfig) -> Run:
    return pretrain(texture_config(), textures, runtime)


def test_the_record_has_intervals_around_its_figures(run: Run, textures: Dataset, runtime: RuntimeConfig) -> None:
    measured = evaluate_run(run, textures, runtime, PROBE, test=True)
    assert measured == run.metrics and set(measured) == {"probe_config", "linear", "knn", "test_reads", "run"}
    for values in (measured[probe][split] for split in ("val", "test") for probe in ("linear", "knn")):
        assert 0 <= values["auc_low"] <= values["auc"] <= values["auc_high"] <= 1 and values["num_patients"] == 12
        assert {"average_precision", "accuracy", "balanced_accuracy", "sensitivity", "specificity"} <= set(values)
    assert measured["linear"]["c"] in PROBE.cs and len(measured["linear"]["threshold"]) == 1
    line, auc = summary_line(run, measured), measured["linear"]["val"]["auc"]
    assert line.startswith(f"trained {run.path} · val auc {auc:.4f} [") and "(linear probe)" in line
    assert "kNN val auc" in line


@pytest.mark.parametrize("task", ["binary", "multiclass", "multilabel"])
def test_the_predictions_give_the_recorded_figures_in_every_task(task: Any, runtime: RuntimeConfig) -> None:
    dataset = texture_dataset(task)
    run = pretrain(texture_config(), dataset, runtime)
    recorded = evaluate_run(run, dataset, runtime, PROBE, test=True)["linear"]["test"]
    table = run.predictions("test")
    assert dataset.test.groups is not None and list(table["group"]) == list(dataset.test.groups)
    labels = table.filter(regex="^label").to_numpy().squeeze()
    scores = table.filter(regex="^score/").to_numpy().squeeze()
    np.testing.assert_array_equal(labels, dataset.test.labels.numpy())
    if task == "multiclass":
        assert accuracy_score(labels, scores.argmax(1)) == pytest.approx(recorded["accuracy"])
        assert list(table.filter(regex="^score/")) == ["score/a", "score/b", "score/c"]
    else:
        assert roc_auc_score(labels, scores) == pytest.approx(recorded["auc"])


def test_a_supervised_runs_own_head_makes_its_predictions(textures: Dataset, runtime: RuntimeConfig) -> None:
    run = pretrain(texture_config(method="supervised"), textures, runtime)
    measured = evaluate_run(run, textures, runtime, PROBE, test=True)
    state = load_file(run.path / "head.safetensors")
    features = torch.from_numpy(run_features(run, "test", textures.test, runtime).x)
    scores = torch.nn.functional.linear(features, state["weight"], state["bias"]).sigmoid().squeeze(1).numpy()
    assert measured["head"]["test"]["auc"] == pytest.approx(roc_auc_score(textures.test.labels, scores))
    np.testing.assert_allclose(run.predictions("test")["score/pneumonia"], scores, rtol=1e-5)
    assert "trained head" in summary_line(run, measured)


def test_a_run_on_part_of_the_labels_is_probed_on_the_same_part(textures: Dataset, runtime: RuntimeConfig) -> None:
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


def test_test_is_read_when_asked_for_and_counted(run: Run, textures: Dataset, runtime: RuntimeConfig) -> None:
    alone = evaluate_run(run, textures, runtime, PROBE)
    assert alone["test_reads"] == 0 and "test" not in alone["linear"]
    assert not list(run.path.glob("*_test*"))
    both = evaluate_run(run, textures, runtime, PROBE, test=True)
    assert both["test_reads"] == 1 and alone["linear"]["val"] == both["linear"]["val"]
    assert evaluate_run(run, textures, runtime, PROBE, test=True)["test_reads"] == 1  # the record, not a reading
    again = pretrain(texture_config(), textures, runtime, fresh=True)
    assert again.metrics == {"test_reads": 1}
    assert evaluate_run(again, textures, runtime, PROBE, test=True)["test_reads"] == 2


def test_a_record_is_returned_where_weights_are_away(run: Run, textures: Dataset, runtime: RuntimeConfig) -> None:
    evaluate_run(run, textures, runtime, PROBE)
    for file in run.path.glob("*.safetensors"):
        file.unlink()
    older = run.metrics | {"probe_config": run.metrics["probe_config"] | {"sgd_epochs": 30}}  # of a field that is gone
    (run.path / "metrics.json").write_text(json.dumps(older))
    assert evaluate_run(run, textures, runtime, PROBE) == older
    with pytest.raises(FileNotFoundError, match=r"not its weights here; make them anew with: python train\.py"):
        evaluate_run(run, textures, runtime, PROBE, test=True)
    assert run.metrics == older


def test_cached_features_serve_no_other_images(run: Run, textures: Dataset, runtime: RuntimeConfig) -> None:
    first, cache = run_features(run, "val", textures.val, runtime).x, run.path / "features_val.safetensors"
    inverted = replace(textures.val, images=255 - textures.val.images)
    assert not np.allclose(run_features(run, "val", inverted, runtime).x, first)
    other_images, cut = (lambda: None), (lambda: cache.write_bytes(cache.read_bytes()[:100]))
    for spoil in (other_images, cut, run.weights.unlink):
        spoil()
        np.testing.assert_array_equal(run_features(run, "val", textures.val, runtime).x, first)


def test_a_run_on_other_data_has_another_record(run: Run, textures: Dataset, runtime: RuntimeConfig) -> None:
    flipped = replace(textures, test=replace(textures.test, labels=1 - textures.test.labels))
    measured = evaluate_run(run, flipped, runtime, PROBE, test=True)
    there = probe_of(run, flipped, runtime)
    assert run.metrics == {} and there.metrics == measured and there.path != run.path
    own = evaluate_run(run, textures, runtime, PROBE, test=True)
    assert measured["linear"]["test"]["auc"] == pytest.approx(1 - own["linear"]["test"]["auc"])
    assert there.environment["command"].startswith(f"python train.py --encoder results/runs/{run.id}/backbone")


@pytest.mark.parametrize("encoder", ["random", "imagenet"])
def test_an_encoder_as_it_is_is_named_by_its_weights_and_found_again(
    encoder: str, textures: Dataset, runtime: RuntimeConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CXR_IMAGENET_WEIGHTS", str(tmp_path / "weights.pth"))
    torch.save(TinyNet().state_dict(), tmp_path / "weights.pth")
    first, found = evaluate_run(encoder, textures, runtime, PROBE), probe_of(encoder, textures, runtime)
    assert found.finished and found.id.startswith(f"textures-64-{encoder}-s0-")
    assert found.environment["command"].startswith(f"python train.py --encoder {encoder} --dataset textures --size 64")
    with monkeypatch.context() as patch:
        patch.setattr(Run, "backbone", lambda _: pytest.fail("built again"))
        assert evaluate_run(encoder, textures, runtime, PROBE) == first
    torch.save(TinyNet().state_dict(), tmp_path / "weights.pth")  # other weights are another encoder
    assert probe_of(encoder, textures, runtime, seed=1).id != found.id


def test_a_run_is_locked_while_it_is_probed_and_its_record_read_where_another_process_has_it(
    run: Run, textures: Dataset, runtime: RuntimeConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    def locked(*arguments: Any, **named: Any) -> Any:
        with pytest.raises(LockedError, match=f"{run.id} is being probed by process"):
            pretrain(texture_config(), textures, runtime, fresh=True)
        return linear_probe(*arguments, **named)

    monkeypatch.setattr(evaluating, "linear_probe", locked)
    measured = evaluate_run(run, textures, runtime, PROBE)
    with run_lock(run):
        assert evaluate_run(run, textures, runtime, PROBE) == measured
        with pytest.raises(LockedError, match=f"run {run.id} is being trained by process"):
            evaluate_run(run, textures, runtime, PROBE, test=True)


@pytest.mark.parametrize("written", range(4))  # the count, predictions of val and of test, the record
def test_a_kill_while_the_record_is_written_loses_no_reading_and_leaves_no_old_figures(
    written: int, run: Run, textures: Dataset, runtime: RuntimeConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    old, done, write = evaluate_run(run, textures, runtime, PROBE, test=True), iter(range(written)), writing.write_bytes

    def dying(path: Path, content: bytes) -> None:
        if next(done, None) is None:
            raise MemoryError
        write(path, content)

    with monkeypatch.context() as patch, pytest.raises(MemoryError):
        patch.setattr(writing, "write_bytes", dying)
        evaluate_run(run, textures, runtime, OTHERWISE, test=True)
    assert run.metrics == ({"test_reads": 2} if written else old)
    again = evaluate_run(run, textures, runtime, OTHERWISE, test=True)
    assert again["test_reads"] == (3 if written else 2) and again == run.metrics


@pytest.mark.parametrize("cached", [True, False])
def test_weights_of_others_replace_no_figure(run: Run, textures: Dataset, runtime: RuntimeConfig, cached: bool) -> None:
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


def test_encoders_side_by_side_are_probed_fused(run: Run, textures: Dataset, runtime: RuntimeConfig) -> None:
    evaluate_run([run, "random"], textures, runtime, PROBE)
    fused, alone = probe_of([run, "random"], textures, runtime), (run, probe_of("random", textures, runtime))
    splits = {name: getattr(textures, name) for name in ("train", "val")}
    blocks = [{name: run_features(one, name, split, runtime) for name, split in splits.items()} for one in alone]
    expected = linear_probe(*fuse(blocks).values(), config=PROBE, task="binary", num_outputs=1)
    np.testing.assert_allclose(fused.predictions("val")["score/pneumonia"], expected.scores["val"], rtol=1e-4)


def test_a_stage_is_probed_by_the_mean_of_its_map(run: Run, textures: Dataset, runtime: RuntimeConfig) -> None:
    evaluate_run(run, textures, runtime, PROBE, stage="layer1")
    record = probe_of(run, textures, runtime, stage="layer1")
    assert record.path != run.path and record.environment["command"].endswith(" --stage layer1")
    x = eval_transform(textures.val.images, run.backbone().normalisation)
    with torch.no_grad():
        expected = run.backbone().eval().stages(x)["layer1"].mean((2, 3)).numpy()
    np.testing.assert_allclose(run_features(record, "val", textures.val, runtime).x, expected, rtol=1e-4, atol=1e-5)
    pair = [run, "random"]  # read at a stage they are another encoder than read at their end
    records = [probe_of(pair, textures, runtime, stage=one) for one in (None, "layer1", "layer2")]
    assert len({record.id for record in records}) == 3
    with pytest.raises(ValueError, match="stage must be one of layer1, layer2, layer3, layer4, got 'layer9'"):
        evaluate_run(run, textures, runtime, PROBE, stage="layer9")


def test_several_encoders_as_one_by_components_or_by_the_mean_of_their_logits(
    run: Run, textures: Dataset, runtime: RuntimeConfig
) -> None:
    pair, splits = [run, probe_of("random", textures, runtime)], {n: textures.splits[n] for n in ("train", "val")}
    for join in ("pca", "logits"):
        evaluate_run([run, "random"], textures, runtime, PROBE, join=join)
    blocks = [{n: run_features(one, n, split, runtime) for n, split in splits.items()} for one in pair]
    about: dict[str, Any] = {"config": PROBE, "task": "binary", "num_outputs": 1}
    fused = fuse(blocks)
    pca = PCA(32).fit(fused["train"].x)
    parts = {n: replace(f, x=pca.transform(f.x)) for n, f in fused.items()}
    expected = {"pca": linear_probe(parts["train"], parts["val"], **about).scores["val"]}
    logits = [logit(linear_probe(b["train"], b["val"], **about).scores["val"]) for b in blocks]
    expected["logits"] = expit(np.mean(logits, axis=0))
    for join, scores in expected.items():
        record = probe_of([run, "random"], textures, runtime, join=join)
        np.testing.assert_allclose(record.predictions("val")["score/pneumonia"], scores, atol=2e-3)
    for encoder, join, said in ((run, "pca", "left out for a single"), (pair, "sum", "one of pca, logits, got 'sum'")):
        with pytest.raises(ValueError, match=f"join must be {said}"):
            evaluate_run(encoder, textures, runtime, PROBE, join=join)


def test_an_encoder_of_colour_takes_grey_films_and_not_the_other_way_round(
    textures: Dataset, runtime: RuntimeConfig
) -> None:
    colour = texture_dataset(channels=3)
    run = pretrain(texture_config(method="rotation", channels=3), textures, runtime)
    grey = pretrain(texture_config(), textures, runtime)
    evaluate_run(run, textures, runtime, PROBE)
    backbone, grey_films = run.backbone(), textures.val
    thrice = replace(grey_films, images=grey_films.images.expand(-1, 3, -1, -1))
    of_grey, of_thrice = (extract_features(backbone, s, backbone.normalisation).x for s in (grey_films, thrice))
    np.testing.assert_array_equal(of_grey, of_thrice)
    with pytest.raises(ValueError, match="images must be with the 1 channels of the encoder, or grey, got 3"):
        evaluate_run(grey.weights, colour, runtime, PROBE)


def test_images_without_a_label_are_not_scored_nor_patients_counted(textures: Dataset, runtime: RuntimeConfig) -> None:
    labels = textures.val.labels.clone()
    labels[::4] = -1
    dataset = replace(textures, val=replace(textures.val, labels=labels, groups=None))
    run = pretrain(texture_config(), dataset, runtime)
    assert "num_patients" not in evaluate_run(run, dataset, runtime, PROBE)["linear"]["val"]
    assert len(run.predictions("val")) == 18 and (run.predictions("val")["label"] >= 0).all()
