"""Configurations: what is declared of a value serves its validation in one sentence, its help and its table."""

from __future__ import annotations

from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from samples import one_sentence

from cxr_helpers import PretrainConfig, ProbeConfig, RuntimeConfig
from cxr_helpers.fields import KINDS, Checked, declare, help_of, kind_of, read, table
from cxr_helpers.methods import METHODS, load_method

OUT_OF_RANGE: dict[type, dict[str, Any]] = {
    PretrainConfig: {"size": 4, "backbone": "another", "epochs": -1, "lr": 0, "label_fraction": 1.5, "batch_size": 1},
    RuntimeConfig: {"device": "another", "precision": "another", "threads": 0, "measure_every": 0},
    ProbeConfig: {"cs": (0.0, 1.0), "folds": 1, "seed": 2**32, "knn_k": 0, "knn_temperature": 0},
}


@pytest.mark.parametrize(("kind", "field"), [(kind, field) for kind in OUT_OF_RANGE for field in OUT_OF_RANGE[kind]])
def test_a_value_out_of_range_is_refused_with_its_name_the_range_and_the_value(kind: type, field: str) -> None:
    with pytest.raises(ValueError, match=f"^{field} must be .+, got "):
        kind(**{field: OUT_OF_RANGE[kind][field]})


NAN = float("nan")
OF_OTHER_KINDS: dict[str, tuple[Any, ...]] = {  # by the kind that an annotation names
    "str": (3, True, Path("x"), ["x"]),
    "bool": (0, "yes"),
    "int": (64.0, 1.5, NAN, True, "3", np.zeros((3, 3))),
    "float": (NAN, float("inf"), True, "1", (1.0,)),
    "tuple[str, ...]": (1.0, "1", (1.0,)),
    "tuple[float, ...]": (1.0, "1", (NAN, 1.0), (True,), ("1",)),
    "Mapping[str, Any]": ([], "ab", {5: 1.0}),
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
            assert one_sentence(error.value)


@dataclass(frozen=True, kw_only=True)
class Toy(Checked):
    rate: float = declare(0.5, "how fast", unit="per step", low=0, above=True, high=1, below=True)
    kind: str = declare("a", "which", choices=("a", "b"))


def test_one_declaration_gives_range_help_and_the_row_of_a_table() -> None:
    with pytest.raises(ValueError, match=r"^rate must be above 0 and below 1, got 1\.0$"):
        Toy(rate=1.0)
    assert help_of(fields(Toy)[0]) == "how fast (per step; above 0 and below 1; default 0.5)"
    assert help_of(fields(Toy)[1]) == "which (one of a, b; default a)"
    row = {"name": "rate", "value": 0.25, "default": 0.5, "unit": "per step", "why": "how fast"}
    assert row.items() <= table(Toy(rate=0.25))[0].items()


@pytest.mark.parametrize(("text", "kind", "value"), [("0.5", "float", 0.5), ("3", "int", 3), ("True", "bool", True)])
def test_a_word_of_a_command_is_read_by_the_kind_of_its_field(text: str, kind: str, value: Any) -> None:
    assert read("rate", text, kind) == value and type(read("rate", text, kind)) is type(value)
    with pytest.raises(ValueError, match=r"^rate must be .+, got 'x'"):
        read("rate", "x", kind)
