"""Configurations: what is declared of a value serves its validation in one sentence, its help and its table."""

from __future__ import annotations

from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cxr_helpers import PretrainConfig, ProbeConfig, RuntimeConfig
from cxr_helpers.fields import KINDS, Checked, declare, help_of, kind_of, read, table
from cxr_helpers.methods import METHODS, load_method


@pytest.mark.parametrize(
    ("kind", "field", "value"),
    [
        *((PretrainConfig, "size", value) for value in (4, 0)),
        *((PretrainConfig, name, "another") for name in ("backbone", "optimizer")),
        *((PretrainConfig, name, -1) for name in ("epochs", "weight_decay", "warmup_epochs", "backbone_lr_factor")),
        *((PretrainConfig, name, 0) for name in ("lr", "label_fraction", "online_lr")),
        *((PretrainConfig, "label_fraction", 1.5), (PretrainConfig, "batch_size", 1), (PretrainConfig, "seed", 2**63)),
        *((RuntimeConfig, name, "another") for name in ("device", "precision")),
        *((RuntimeConfig, name, 0) for name in ("threads", "knn_bank", "measure_every")),
        *((ProbeConfig, "cs", value) for value in ((), (0.0, 1.0))),
        *((ProbeConfig, "folds", 1), (ProbeConfig, "seed", 2**32)),
        *((ProbeConfig, name, 0) for name in ("max_iter", "knn_k", "knn_temperature")),
    ],
)
def test_a_value_out_of_range_is_refused_with_its_name_the_range_and_the_value(
    kind: type, field: str, value: Any
) -> None:
    with pytest.raises(ValueError, match=f"^{field} must be .+, got "):
        kind(**{field: value})


NAN, INF = float("nan"), float("inf")
OF_OTHER_KINDS: dict[str, tuple[Any, ...]] = {  # by the kind that an annotation names
    "str": (3, True, b"x", Path("x"), ["x"], {}),
    "bool": (0, 1, 1.0, "yes", None),
    "int": (0.0, 64.0, 1.5, NAN, True, False, "3", 3j, [3], np.int64(3), np.zeros((3, 3)), object()),
    "float": (NAN, INF, -INF, True, False, "1", 1j, (1.0,), np.float32(1)),
    "tuple[str, ...]": (None, 1.0, "1", {"1"}, (1.0,), ("1", None)),
    "tuple[int, ...]": (None, 1, "1", {1}, (1.0,), (True,), ("1",)),
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


@dataclass(frozen=True, kw_only=True)
class Toy(Checked):
    rate: float = declare(0.5, "how fast", unit="per step", low=0, above=True, high=1, below=True)
    kind: str = declare("a", "which", choices=("a", "b"))
    steps: tuple[float, ...] = declare((1.0,), "where", low=0)


def test_one_declaration_gives_range_help_and_the_row_of_a_table() -> None:
    with pytest.raises(ValueError, match=r"^rate must be above 0 and below 1, got 1\.0$"):
        Toy(rate=1.0)
    rate, kind, _ = fields(Toy)
    assert help_of(rate) == "how fast (per step; above 0 and below 1; default 0.5)"
    assert help_of(kind) == "which (one of a, b; default a)"
    row = table(Toy(rate=0.25))[0]
    assert (row["name"], row["value"], row["default"], row["unit"], row["why"]) == (
        "rate", 0.25, 0.5, "per step", "how fast",
    )  # fmt: skip


@pytest.mark.parametrize(("text", "kind", "value"), [("0.5", "float", 0.5), ("3", "int", 3), ("True", "bool", True)])
def test_a_word_of_a_command_is_read_by_the_kind_of_its_field(text: str, kind: str, value: Any) -> None:
    assert read("rate", text, kind) == value and type(read("rate", text, kind)) is type(value)
    with pytest.raises(ValueError, match=r"^rate must be .+, got 'x'"):
        read("rate", "x", kind)
