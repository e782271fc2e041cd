"""Exports: the card's code gives the run's features bit for bit, its figures are the record's, nothing is spoilt."""

from __future__ import annotations

import dataclasses
import os
import re
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from conftest import texture_config, texture_dataset
from cxr_helpers.export import CARD, WEIGHTS, export_run, model_card, require_target

import train
from cxr_helpers.augment import eval_transform
from cxr_helpers.config import ProbeConfig, RuntimeConfig
from cxr_helpers.evaluate import evaluate
from cxr_helpers.pretrain import pretrain
from cxr_helpers.recipes import command_of
from cxr_helpers.runs import Run, write_json

PROBE = ProbeConfig(cs=(0.01, 1.0), folds=2, sgd_epochs=1)


def _run(runtime: RuntimeConfig, *, test: bool = True, **changes: Any) -> Run:
    data = texture_dataset(counts=(16, 12, 12), channels=changes.pop("channels", 1))
    run = pretrain(texture_config(**{"epochs": 0, "policy": "none", **changes}), data, runtime)
    evaluate(run, data, runtime, PROBE, test=test)
    return run


def _front_matter(card: str) -> dict[str, Any]:
    return yaml.safe_load(card.split("---\n")[1])


@pytest.mark.parametrize("channels", [1, pytest.param(3, marks=pytest.mark.slow)])
def test_the_cards_code_gives_the_runs_features_bit_for_bit(
    channels: int, runtime: RuntimeConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = _run(runtime, channels=channels)
    folder = export_run(run, tmp_path / "out")
    assert (folder / WEIGHTS).read_bytes() == run.weights.read_bytes()
    images = torch.randint(0, 256, (5, channels, 64, 64), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    backbone = run.backbone().eval()
    with torch.inference_mode():
        expected = backbone(eval_transform(images, backbone.normalisation))
    monkeypatch.chdir(folder)
    blocks = re.findall(r"```python\n(.*?)```", (folder / CARD).read_text(), re.DOTALL)
    assert len(blocks) == 2 and "cxr_helpers" in blocks[0] and "cxr_helpers" not in blocks[1]
    for block in blocks:
        names: dict[str, Any] = {"images": images}
        exec(block, names)
        assert torch.equal(names["features"], expected)


def test_a_backbone_with_the_small_stem_loads_without_this_package(runtime: RuntimeConfig, tmp_path: Path) -> None:
    run = _run(runtime)
    about = {"backbone": "resnet18", "channels": 1, "stem": "cifar", "mean": [0.5], "std": [0.5], "features": 512}
    block = re.findall(r"```python\n(.*?)```", model_card(run, about), re.DOTALL)[1]
    names: dict[str, Any] = {}
    exec("\n".join(line for line in block.splitlines() if "load" not in line and "features" not in line
                   and "with " not in line), names)  # fmt: skip
    assert names["net"].conv1.weight.shape == (64, 1, 3, 3) and isinstance(names["net"].maxpool, torch.nn.Identity)


def test_the_yaml_parses_and_holds_what_was_measured(tiny_net: None, runtime: RuntimeConfig, tmp_path: Path) -> None:
    run = _run(runtime, epochs=1, policy="ssl", method="vicreg")
    card = (export_run(run, tmp_path / "out") / CARD).read_text()
    about = _front_matter(card)
    assert about["license"] == "mit" and about["datasets"] == ["textures"] and about["metrics"] == ["roc_auc"]
    assert about["tags"] == ["resnet18", "vicreg", "self-supervised-learning"]
    (model,) = about["model-index"]
    found = {(r["task"]["name"], r["dataset"]["split"]): r["metrics"][0] for r in model["results"]}
    test = run.metrics["linear"]["test"]
    assert len(found) == 4 and model["name"] == run.id
    assert found["linear probe on frozen features", "test"]["value"] == test["auc"]
    interval = f"[{test['auc_low']:.4f}, {test['auc_high']:.4f}]"
    assert interval in found["linear probe on frozen features", "test"]["name"]
    assert f"| {test['auc']:.4f} | {interval} | 12 | 6 |" in card
    assert "arXiv 2105.04906" in card and run.environment["commit"] in card and run.environment["command"] in card
    assert "Test was read 1 times" in card and "Not a medical device" in card and "random textures" in card
    assert run.environment["backbone_sha256"] in card and "| batch_size | `16` |" in card


def test_a_card_claims_no_more_than_the_record(tiny_net: None, runtime: RuntimeConfig) -> None:
    run = _run(runtime, test=False)
    card = model_card(run, {**run.backbone().describe(), "features": 32})
    assert "Test has not been read" in card and "| test |" not in card and "not trained here" in card
    assert _front_matter(card)["tags"] == ["resnet18", "random", "untrained"]
    known = dataclasses.replace(run, record={**run.record, "dataset": "pneumoniamnist", "label_fraction": 0.1})
    card = model_card(known, {**run.backbone().describe(), "features": 32})
    assert "pediatric chest X-Ray" in card and "10 % of the training labels" in card and "Yang et al." in card


def test_only_an_export_is_replaced_and_nothing_else_touched(
    tiny_net: None, runtime: RuntimeConfig, tmp_path: Path
) -> None:
    run, folder = _run(runtime), tmp_path / "out"
    export_run(run, folder)
    (folder / "notes.txt").write_text("mine")
    (folder / CARD).write_text((folder / CARD).read_text() + "old")
    export_run(run, folder)
    assert "old" not in (folder / CARD).read_text()[-5:] and (folder / "notes.txt").read_text() == "mine"
    assert sorted(p.name for p in folder.iterdir()) == [CARD, WEIGHTS, "notes.txt"]
    before = run.weights.read_bytes()
    with pytest.raises(ValueError, match=r"with a backbone.safetensors that no export wrote"):
        export_run(run, run.path)
    assert run.weights.read_bytes() == before and not (run.path / CARD).exists()
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / CARD).write_text("# my project")
    with pytest.raises(ValueError, match=r"new or empty folder or an earlier export, got .*mine with a README.md"):
        export_run(run, tmp_path / "mine")
    with pytest.raises(ValueError, match="must name a folder, got the file"):
        require_target(tmp_path / "mine" / CARD)
    assert (tmp_path / "mine" / CARD).read_text() == "# my project"


def test_what_fails_half_way_leaves_nothing_or_the_export_before(
    tiny_net: None, runtime: RuntimeConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = _run(runtime)
    earlier = export_run(run, tmp_path / "earlier")
    before = {p.name: p.read_bytes() for p in earlier.iterdir()}

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    for folder in (tmp_path / "new", earlier):
        with pytest.raises(OSError, match="could not be written: No space left"):
            export_run(run, folder)
    assert not (tmp_path / "new").exists()
    assert {p.name: p.read_bytes() for p in earlier.iterdir()} == before


def test_weights_of_another_training_are_not_exported(tiny_net: None, runtime: RuntimeConfig, tmp_path: Path) -> None:
    run = _run(runtime)
    write_json(run.path / "environment.json", {**run.environment, "backbone_sha256": "0" * 64})
    with pytest.raises(ValueError, match="must have the weights of its record"):
        export_run(run, tmp_path / "out")
    run.weights.unlink()
    with pytest.raises(FileNotFoundError, match="make them anew with"):
        export_run(run, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_the_command_exports_what_it_probed_and_refuses_before_it_trains(
    tiny_net: None,
    runtime: RuntimeConfig,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("cxr_helpers.data.load_dataset", lambda *_, **__: texture_dataset(counts=(16, 12, 12)))
    config = texture_config(epochs=0, policy="none")
    taken = tmp_path / "taken"
    taken.mkdir()
    (taken / CARD).write_text("# my project")
    words = [*command_of(config).split()[2:], "--results", str(runtime.results), "--no-progress", "--threads", "1"]
    words += ["--probe.folds", "2", "--probe.sgd-epochs", "1", "--device", "cpu"]
    with pytest.raises(ValueError, match="--export must name"):
        train.train([*words, "--export", str(taken)])
    assert not Path(str(runtime.results)).exists()
    line = train.train([*words, "--export", str(tmp_path / "out")])
    assert line is not None and line.startswith("trained ")
    assert capsys.readouterr().out == f"exported to {tmp_path / 'out'}\n"
    assert _front_matter((tmp_path / "out" / CARD).read_text())["datasets"] == ["textures"]
