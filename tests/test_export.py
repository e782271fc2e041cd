"""Exports: others load the weights without this package, the JSON says what they are, and nothing is spoilt."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
import torchvision
from conftest import texture_config, texture_dataset
from safetensors.torch import load_file

import train
from cxr_helpers.config import RuntimeConfig
from cxr_helpers.models import export_run, load_backbone
from cxr_helpers.pretrain import pretrain
from cxr_helpers.recipes import command_of
from cxr_helpers.runs import Run


def run_of(runtime: RuntimeConfig, **changes: Any) -> Run:
    data = texture_dataset(counts=(16, 12, 12), channels=changes.pop("channels", 1))
    return pretrain(texture_config(epochs=0, policy="none", **changes), data, runtime)


@pytest.mark.parametrize(("channels", "target"), [(1, "out"), (3, "out.pth")])
def test_torchvision_takes_every_key_of_an_export(
    channels: int, target: str, runtime: RuntimeConfig, tmp_path: Path
) -> None:
    run = run_of(runtime, channels=channels)
    file = export_run(run, tmp_path / target)
    state = load_file(file) if file.suffix == ".safetensors" else torch.load(file, weights_only=True)
    net = torchvision.models.resnet18()
    if channels == 1:
        net.conv1 = torch.nn.Conv2d(1, 64, 7, 2, 3, bias=False)
    assert net.load_state_dict(state, strict=False) == (["fc.weight", "fc.bias"], [])
    net.fc = torch.nn.Identity()
    x = torch.randn(2, channels, 64, 64)
    with torch.inference_mode():
        assert torch.equal(net.eval()(x), run.backbone().eval()(x))
        assert torch.equal(load_backbone(file).eval()(x), net(x))
    said = json.loads(file.with_suffix(".json").read_text())
    assert said["run"] == run.id and said["command"] == run.environment["command"] and said["channels"] == channels


def test_only_an_export_is_replaced(tiny_net: None, runtime: RuntimeConfig, tmp_path: Path) -> None:
    run = run_of(runtime)
    for _ in range(2):
        export_run(run, tmp_path / "out")
    (tmp_path / "mine.json").write_text("my notes")
    for target in (run.path, tmp_path / "mine.pth"):
        with pytest.raises(ValueError, match=r"--export must name a new folder or \.pth file, or an earlier"):
            export_run(run, target)
    assert (tmp_path / "mine.json").read_text() == "my notes"


def test_the_command_refuses_to_export_before_it_trains(tmp_path: Path) -> None:
    (tmp_path / "taken.json").write_text("my notes")
    words = [*command_of(texture_config(dataset="phantom", epochs=0)).split()[2:], "--results", str(tmp_path / "runs")]
    with pytest.raises(ValueError, match="--export must name"):
        train.train([*words, "--export", str(tmp_path / "taken.pth")])
    assert not (tmp_path / "runs").exists()
