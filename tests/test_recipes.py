"""Names of runs: what differs from the declared defaults and the data, and nothing else."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from cxr_helpers import POLICIES, PretrainConfig
from cxr_helpers.recipes import differing, find_run, record_of, resolve, run_id
from cxr_helpers.runs import start_run


def record(**changes: Any) -> dict[str, Any]:
    data: Any = SimpleNamespace(name="phantom", fingerprint="data")
    return record_of(resolve(PretrainConfig(dataset="phantom", size=64, **changes)), data)


def test_a_record_without_a_field_that_was_added_later_names_the_same_run() -> None:
    whole = record()
    older = {key: value for key, value in whole.items() if key != "backbone_lr_factor"}
    older["options"] = {key: value for key, value in whole["options"].items() if key != "output_dim"}
    older["policy_fields"] = {key: v for key, v in whole["policy_fields"].items() if key != "randaugment_magnitude"}
    assert run_id(older) == run_id(whole)


def test_a_value_that_is_spelt_out_names_the_same_run_as_the_recipes_own() -> None:
    assert run_id(record(lr=2e-3, options={"temperature": 0.2})) == run_id(record())
    assert run_id(record(policy_changes={"gamma": 0.1})) == run_id(record(policy_changes={"gamma": "0.1"}))


def test_only_what_differs_from_the_declared_defaults_is_hashed() -> None:
    chosen = differing(record(policy="none", epochs=50))
    assert chosen == {
        "dataset": "phantom", "size": 64, "policy": "none", "fingerprint": "data",
        "optimizer": "adamw", "lr": 2e-3, "weight_decay": 1e-4, "batch_size": 256, "warmup_epochs": 3.0,
    }  # fmt: skip


def test_a_changed_number_of_the_policy_renames_the_run_and_a_reworded_reason_does_not(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    before = run_id(record())
    monkeypatch.setitem(POLICIES, "ssl", type(POLICIES["ssl"])(**{**asdict_of("ssl"), "reason": "another"}))
    assert run_id(record()) == before
    monkeypatch.setitem(POLICIES, "ssl", type(POLICIES["ssl"])(**{**asdict_of("ssl"), "flip_prob": 0.25}))
    assert run_id(record()) != before


def asdict_of(name: str) -> dict[str, Any]:
    return {key: getattr(POLICIES[name], key) for key in asdict(POLICIES[name])}


def test_looking_for_a_run_writes_nothing(tmp_path: Path) -> None:
    assert not find_run(tmp_path / "results", record()).finished
    assert not (tmp_path / "results").exists()


def test_a_folder_that_holds_another_record_is_refused_and_one_with_absent_defaults_is_not(tmp_path: Path) -> None:
    run = find_run(tmp_path, record())
    start_run(run, fresh=False)
    file = run.path / "config.json"
    stored = json.loads(file.read_text())
    file.write_text(json.dumps({key: value for key, value in stored.items() if key != "online_lr"}))
    assert find_run(tmp_path, record()).path == run.path
    file.write_text(json.dumps({**stored, "seed": 1}))
    with pytest.raises(ValueError, match="must hold the configuration that names it, got another; move it away"):
        find_run(tmp_path, record())
