"""Configurations: validation in one sentence, and names that follow every value."""

from __future__ import annotations

from dataclasses import asdict, fields, replace
from typing import Any

import pytest

from cxr_helpers import PretrainConfig, ProbeConfig, RuntimeConfig
from cxr_helpers.config import canonical_json, run_id

CHANGED: dict[str, Any] = {
    "dataset": "chestmnist",
    "size": 64,
    "method": "vicreg",
    "options": {"temperature": 0.5},
    "policy": "ref",
    "policy_changes": {"gamma": 0.1},
    "backbone": "resnet50",
    "init": "imagenet",
    "epochs": 3,
    "batch_size": 32,
    "optimizer": "lars",
    "lr": 0.1,
    "weight_decay": 0.2,
    "warmup_epochs": 1,
    "backbone_lr_factor": 0.1,
    "label_fraction": 0.5,
    "online_lr": 0.2,
    "seed": 7,
}


def name_of(config: PretrainConfig, fingerprint: str = "data") -> str:
    return run_id(asdict(config), fingerprint)


def test_the_changes_below_cover_every_field() -> None:
    assert set(CHANGED) == {f.name for f in fields(PretrainConfig)}


@pytest.mark.parametrize("field", CHANGED)
def test_any_changed_field_changes_the_runs_name(field: str) -> None:
    assert name_of(replace(PretrainConfig(), **{field: CHANGED[field]})) != name_of(PretrainConfig())


def test_other_data_change_the_runs_name_and_equal_ones_do_not() -> None:
    assert name_of(PretrainConfig(), "other") != name_of(PretrainConfig())
    assert name_of(PretrainConfig()) == name_of(PretrainConfig())


def test_the_order_of_options_does_not_change_the_runs_name() -> None:
    a = PretrainConfig(options={"temperature": 0.1, "hidden_dim": 64})
    b = PretrainConfig(options={"hidden_dim": 64, "temperature": 0.1})
    assert name_of(a) == name_of(b)


def test_the_name_of_a_run_on_a_folder_stays_inside_the_results() -> None:
    name = name_of(PretrainConfig(dataset="../some folder/x;y"))
    assert not set(name) & set("/; .")


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("size", 4),
        ("backbone", "vgg16"),
        ("epochs", -1),
        ("batch_size", 1),
        ("optimizer", "adam"),
        ("lr", 0.0),
        ("lr", float("nan")),
        ("weight_decay", -0.1),
        ("warmup_epochs", -1),
        ("backbone_lr_factor", -1),
        ("label_fraction", 0.0),
        ("label_fraction", 1.5),
        ("online_lr", 0.0),
        ("seed", -1),
    ],
)
def test_a_value_out_of_range_is_refused_with_its_name_the_range_and_the_value(field: str, value: Any) -> None:
    with pytest.raises(ValueError, match=f"^{field} must be .+, got "):
        PretrainConfig(**{field: value})


@pytest.mark.parametrize(
    ("kind", "field", "value"),
    [
        (RuntimeConfig, "device", "gpu"),
        (RuntimeConfig, "precision", "16"),
        (RuntimeConfig, "threads", 0),
        (RuntimeConfig, "knn_bank", 0),
        (ProbeConfig, "cs", ()),
        (ProbeConfig, "cs", (0.0, 1.0)),
        (ProbeConfig, "folds", 1),
        (ProbeConfig, "max_iter", 0),
        (ProbeConfig, "knn_k", 0),
        (ProbeConfig, "knn_temperature", 0.0),
        (ProbeConfig, "sgd_epochs", 0),
        (ProbeConfig, "sgd_lr", -1.0),
        (ProbeConfig, "sgd_batch_size", 0),
    ],
)
def test_runtime_and_probe_values_out_of_range_are_refused_likewise(kind: type, field: str, value: Any) -> None:
    with pytest.raises(ValueError, match=f"^{field} must be .+, got "):
        kind(**{field: value})


def test_canonical_json_writes_equal_values_as_equal_text_and_refuses_objects() -> None:
    assert canonical_json({"b": (1, 2), "a": ProbeConfig()}) == canonical_json({"a": ProbeConfig(), "b": [1, 2]})
    with pytest.raises(TypeError, match="cannot write object as JSON"):
        canonical_json({"a": object()})
