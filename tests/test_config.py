"""Configurations: validation in one sentence, and names that follow every value."""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cxr_helpers import PretrainConfig, ProbeConfig, RuntimeConfig
from cxr_helpers.fields import KINDS, declare, help_of, kind_of, read, table
from cxr_helpers.methods import METHODS, load_method
from cxr_helpers.recipes import run_id

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
    return run_id({**asdict(config), "fingerprint": fingerprint})


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
        ("seed", 2**63),
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
        (RuntimeConfig, "measure_every", 0),
        (ProbeConfig, "cs", ()),
        (ProbeConfig, "cs", (0.0, 1.0)),
        (ProbeConfig, "folds", 1),
        (ProbeConfig, "seed", -1),
        (ProbeConfig, "seed", 2**32),
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


NAN, INF = float("nan"), float("inf")
OF_OTHER_KINDS: dict[str, tuple[Any, ...]] = {  # by the kind that an annotation names
    "str": (3, True, b"x", Path("x"), ["x"], {}),
    "bool": (0, 1, 1.0, "yes", None),
    "int": (0.0, 64.0, 1.5, NAN, True, False, "3", 3j, [3], np.int64(3), np.zeros((3, 3)), object()),
    "float": (NAN, INF, -INF, True, False, "1", 1j, (1.0,), np.float32(1), 10**400),
    "tuple[str, ...]": (None, 1.0, "1", {"1"}, (1.0,), ("1", None)),
    "tuple[float, ...]": (None, 1.0, "1", {1.0}, {1.0: 1.0}, (NAN, 1.0), (1.0, INF), (True,), ("1",), np.ones(2)),
    "Mapping[str, Any]": (None, [], "ab", [("a", 1.0)], {5: 1.0}),
}
CLASSES = (PretrainConfig, RuntimeConfig, ProbeConfig, *(load_method(name).Options for name in METHODS))


@pytest.mark.parametrize("kind", CLASSES, ids=lambda kind: kind.__qualname__)
def test_no_field_takes_a_value_of_another_kind_or_one_that_is_not_finite(kind: Any) -> None:
    assert set(OF_OTHER_KINDS) == set(KINDS)
    for f in fields(kind):
        others = OF_OTHER_KINDS[kind_of(f).removesuffix(" | None")]
        for value in others if "| None" in kind_of(f) else (*others, None):
            with pytest.raises(ValueError, match=rf"^(\w+ in )?{f.name} must be .+, got ") as error:
                kind(**{f.name: value})
            assert str(error.value).isprintable() and len(str(error.value)) < 400


def test_a_whole_number_may_stand_for_a_float_and_is_kept_as_one_so_that_both_name_one_run() -> None:
    config = PretrainConfig(lr=1, warmup_epochs=0)
    assert type(config.lr) is float and name_of(config) == name_of(PretrainConfig(lr=1.0, warmup_epochs=0.0))


@dataclass(frozen=True, kw_only=True)
class Toy:
    rate: float = declare(0.5, "how fast", unit="per step", low=0, above=True, high=1, below=True)
    kind: str = declare("a", "which", choices=("a", "b"))
    steps: tuple[float, ...] = declare((1.0,), "where", low=0)


def test_one_declaration_gives_range_help_and_the_row_of_a_table() -> None:
    rate, kind, _ = fields(Toy)
    assert help_of(rate) == "how fast (per step; above 0 and below 1)" and help_of(kind) == "which (one of a, b)"
    row = table(Toy(rate=0.25))[0]
    assert (row["name"], row["value"], row["default"], row["unit"], row["why"]) == (
        "rate", 0.25, 0.5, "per step", "how fast",
    )  # fmt: skip


@pytest.mark.parametrize(("text", "kind", "value"), [("0.5", "float", 0.5), ("3", "int", 3), ("True", "bool", True)])
def test_a_word_of_a_command_is_read_by_the_kind_of_its_field(text: str, kind: str, value: Any) -> None:
    assert read("rate", text, kind) == value and type(read("rate", text, kind)) is type(value)
    with pytest.raises(ValueError, match=r"^rate must be .+, got 'x'"):
        read("rate", "x", kind)
