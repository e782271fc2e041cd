"""Plans: what a dict of rows means on a data set, what is loaded, trained or listed, and which profile allows what."""

import dataclasses
from pathlib import Path

import pytest
import torch
from conftest import texture_config, texture_dataset

from cxr_helpers import study
from cxr_helpers.config import PretrainConfig, RuntimeConfig
from cxr_helpers.data import Dataset
from cxr_helpers.evaluate import summary_line
from cxr_helpers.pretrain import pretrain
from cxr_helpers.recipes import resolve
from cxr_helpers.study import few_labels, finetune, get_profile, load_data, probes, run_all, sweep
from cxr_helpers.study import profiles as module


def test_few_labels_are_seen_longer_at_the_same_rate_in_batches_that_fit() -> None:
    data, base = texture_dataset(counts=(4000, 8, 8)), PretrainConfig(size=64, epochs=30)
    whole = resolve(PretrainConfig(method="supervised"))
    for fraction in (0.01, 0.5):
        found = [resolve(c) for c in few_labels(base, data, fraction)]
        assert [c.seed for c in found] == list(range(5)) and {c.label_fraction for c in found} == {fraction}
        assert all(c.batch_size <= fraction * 4000 for c in found)  # type: ignore[operator]
        assert all(c.lr * c.batch_size == pytest.approx(whole.lr * whole.batch_size, rel=1e-3) for c in found)  # type: ignore[operator]
        assert found[0].epochs == (60 if fraction == 0.5 else 150)


@pytest.mark.usefixtures("tiny_net")
def test_a_plan_is_trained_once_probed_everywhere_and_loaded_without_weights(runtime: RuntimeConfig) -> None:
    others = dataclasses.replace(texture_dataset(counts=(36, 20, 20)), name="others")
    one, other = {"textures": texture_dataset()}, {"others": others}
    simclr = sweep(texture_config(), seed=(0, 1))
    plan = {"SimCLR": simclr, "tuned": finetune(simclr, 1), "Untrained": probes("random")}
    listed = run_all(plan, one, runtime, train=False, test=False)
    assert [len(row.runs) for row in listed] == [0, 0, 1]
    assert study.missing(listed).encoder.tolist() == ["SimCLR"] * 2 + ["tuned"] * 2
    rows = run_all(plan, one, runtime)
    assert [(row.label, len(row.runs)) for row in rows] == [("SimCLR", 2), ("tuned", 2), ("Untrained", 1)]
    for start, tuned in zip(rows[0].runs, rows[1].runs, strict=True):
        assert tuned.record["init"] == f"{start.id}/backbone.safetensors" and tuned.record["backbone_lr_factor"] == 0.1
        assert tuned.record["seed"] == start.record["seed"] and tuned.record["method"] == "supervised"
    again = run_all(plan, one, runtime, train=False)
    assert [[run.id for run in row.runs] for row in again] == [[run.id for run in row.runs] for row in rows]
    assert all(run.metrics["test_reads"] == 1 for row in again[:2] for run in row.runs)
    (carried,) = run_all({"carried": probes(*rows[0].runs)}, other, runtime)
    table = study.summarise([*again, carried], num_resamples=20).set_index("encoder")
    assert table.init.to_dict() == {"SimCLR": "random", "tuned": "file", "Untrained": "random", "carried": "file"}
    first = rows[0].runs[0]
    for file in first.path.glob("*.safetensors"):
        file.unlink()
    kept, tuned = run_all({"SimCLR": simclr[:1], "tuned": finetune(simclr[:1], 2)}, one, runtime)
    assert kept.runs[0].id == first.id and f"--init results/runs/{first.id}/" in tuned.missing[0]


@pytest.mark.usefixtures("tiny_net")
def test_several_encoders_are_one_row_and_what_sets_its_own_task_needs_no_probe(runtime: RuntimeConfig) -> None:
    data, other = texture_dataset(), texture_dataset(counts=(36, 20, 20))
    hidden = dataclasses.replace(data.train, labels=torch.full_like(data.train.labels, -1))
    unlabelled = {"textures": dataclasses.replace(data, train=hidden)}
    others = {"others": dataclasses.replace(other, name="others")}
    plan = {"rotation": sweep(texture_config(method="rotation"), seed=(0, 1))}
    (trained,) = run_all(plan, unlabelled, runtime, probe=False, test=False)
    assert len(trained.runs) == 2 and trained.runs[0].metrics == {}
    start = pretrain(texture_config(method="rotation", epochs=0), unlabelled["textures"], runtime)
    assert summary_line(start, {}).endswith(f"{start.id} · no labels, nothing probed · not trained")
    joined = {"both": probes(trained.runs), "each": probes(*trained.runs), "pca": probes(trained.runs, join="pca")}
    joined |= {"early": probes(*trained.runs, stage="layer2")}
    rows = run_all(joined, others, runtime)
    assert [len(row.runs) for row in rows] == [1, 2, 1, 2]
    assert rows[2].runs[0].record["join"] == "pca" and rows[3].runs[1].record["stage"] == "layer2"
    assert rows[0].runs[0].environment["command"].count("backbone.safetensors") == 2
    again = run_all(joined, others, runtime, train=False)
    assert [run.id for row in again for run in row.runs] == [run.id for row in rows for run in row.runs]


def test_an_image_folder_that_is_not_there_is_stood_in_for_or_asked_for(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("CXR_DATA", str(tmp_path))
    found = load_data(get_profile("smoke"), "mini_mias_512", most=20)
    assert list(found) == ["phantom_multilabel_anomaly"] and len(found["phantom_multilabel_anomaly"].train) == 20
    with pytest.raises(FileNotFoundError, match="the data folder must hold the image folder mini_mias_512"):
        load_data(get_profile("cpu"), "mini_mias_512")


def test_drawn_films_stand_in_only_where_nothing_is_evidence(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def load(name: str, size: int, **_: object) -> Dataset:
        asked.append((name, size))
        if not name.startswith("phantom") and (name, size) != ("chestmnist", 128):
            raise FileNotFoundError(name)
        return dataclasses.replace(texture_dataset(), name=name)

    monkeypatch.setattr(module, "load_dataset", load)
    assert list(load_data(get_profile("smoke"))) == ["phantom", "phantom_multilabel"] and len(asked) == 2
    assert list(load_data(get_profile("quick"), "pneumoniamnist", "cifar10")) == ["phantom"]
    assert asked[-1] == ("phantom", 32)
    assert list(load_data(get_profile("full"), "chestmnist")) == ["chestmnist"] and asked[-1] == ("chestmnist", 128)
    with pytest.raises(FileNotFoundError):
        load_data(get_profile("cpu"), "pneumoniamnist")
