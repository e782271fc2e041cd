"""A value declared once: its default, legal range, unit and reason serve validation, `--help`, sliders and tables."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import MISSING, Field, dataclass, field, fields
from typing import Any

__all__ = ["Checked", "Spec", "check", "declare", "help_of", "kind_of", "read", "require", "spec_of", "table"]


@dataclass(frozen=True, kw_only=True)
class Spec:
    """What is known of one field beyond its type and default."""

    why: str  # what it is, and why it has this value
    unit: str = ""
    low: float = -math.inf  # legal from here ...
    high: float = math.inf  # ... to here
    above: bool = False  # `low` itself is not legal
    below: bool = False  # `high` itself is not legal
    choices: tuple[str, ...] = ()
    slider: tuple[float, float] | None = None  # the part of the legal range that is worth trying
    group: str = ""  # what it belongs to, such as the operation of an augmentation

    @property
    def expected(self) -> str:
        """The legal values in words."""
        low = f"{'above' if self.above else 'at least'} {self.low:g}" if self.low > -math.inf else ""
        high = f"{'below' if self.below else 'at most'} {self.high:g}" if self.high < math.inf else ""
        choices = f"one of {', '.join(self.choices)}" if self.choices else ""
        return " and ".join(part for part in (choices, low, high) if part)

    def holds(self, value: Any) -> bool:
        """Whether a value of the right type is legal; every element of a tuple must be."""
        if isinstance(value, (tuple, list)):
            return all(map(self.holds, value)) and (len(value) > 0 or self.low == -math.inf)
        if self.choices:
            return value in self.choices
        if not _is_number(value):
            return True
        low = value > self.low if self.above else value >= self.low
        return low and (value < self.high if self.below else value <= self.high)


def declare(default: Any, why: str, **spec: Any) -> Any:
    """A dataclass field with its `Spec`; a mutable default is given as its factory (`dict`)."""
    start: dict[str, Any] = {"default_factory": dict} if default is dict else {"default": default}
    return field(**start, metadata={"spec": Spec(why=why, **spec)})


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


def _are(values: object, hold: Callable[[object], bool]) -> bool:
    return isinstance(values, (tuple, list)) and all(map(hold, values))


KINDS: dict[str, tuple[str, Callable[[Any], bool]]] = {  # by annotation: what is expected, whether a value is that
    "str": ("text (a str)", lambda value: isinstance(value, str)),
    "bool": ("True or False", lambda value: isinstance(value, bool)),
    "int": ("a whole number (an int)", lambda value: isinstance(value, int) and not isinstance(value, bool)),
    "float": ("a finite number (an int or a float)", _is_number),
    "tuple[str, ...]": ("a tuple of words", lambda value: _are(value, lambda one: isinstance(one, str))),
    "tuple[int, ...]": ("a tuple of whole numbers", lambda value: _are(value, lambda one: type(one) is int)),
    "tuple[float, ...]": ("a tuple of finite numbers", lambda value: _are(value, _is_number)),
    "Mapping[str, Any]": (
        "names with their values, such as {'temperature': 0.1}",
        lambda value: isinstance(value, Mapping) and all(isinstance(name, str) for name in value),
    ),
}


def require(condition: bool, name: str, expected: str, got: object) -> None:
    """Refuse a value in the one sentence that this package uses for it.

    Raises:
        ValueError: "<name> must be <expected>, got <value>".
    """
    if not condition:
        shown = " ".join(repr(got).split())[:200]  # an array's takes several lines
        raise ValueError(f"{name} must be {expected}, got {shown}")


def spec_of(item: Field[Any]) -> Spec:
    """The declared `Spec` of a dataclass field."""
    return item.metadata["spec"]


def kind_of(item: Field[Any]) -> str:
    """A dataclass field's annotation as text, also where its module does not postpone annotations."""
    return item.type.__name__ if isinstance(item.type, type) else str(item.type)


def check(config: Any) -> None:
    """Refuse a frozen dataclass with a value of another type than declared, or outside its range.

    Whole values of float fields become floats, so that 1 and 1.0 are one value.

    Raises:
        ValueError: the first field that does not hold.
    """
    for item in (f for f in fields(config) if "spec" in f.metadata):
        value, kind = getattr(config, item.name), kind_of(item)
        if value is None and kind.endswith(" | None"):
            continue
        kind = kind.removesuffix(" | None")
        expected, holds = KINDS[kind]
        require(holds(value), item.name, expected, value)
        require(spec_of(item).holds(value), item.name, spec_of(item).expected, value)
        if kind == "float":
            object.__setattr__(config, item.name, float(value))


class Checked:
    """What a dataclass of declared fields inherits to be checked when it is made."""

    def __post_init__(self) -> None:
        check(self)


def read(name: str, text: str, kind: str) -> Any:
    """A value from a command line's word, by the annotation of its field.

    Raises:
        ValueError: the word is not of that kind.
    """
    truth = {"true": True, "false": False}
    readers: dict[str, Callable[[str], Any]] = {"int": int, "float": float, "bool": lambda word: truth[word.lower()]}
    try:
        return readers.get(kind, str)(text)
    except (KeyError, ValueError):
        raise ValueError(f"{name} must be {KINDS[kind][0]}, got {text!r}") from None


def help_of(item: Field[Any]) -> str:
    """The sentence of `--help`: what it is, its unit, legal range and default."""
    spec = spec_of(item)
    default = "" if item.default in (MISSING, None, ()) else f"default {item.default}"
    notes = "; ".join(note for note in (spec.unit, spec.expected, default) if note)
    return f"{spec.why} ({notes})" if notes else spec.why


def table(config: Any) -> list[dict[str, Any]]:
    """One row per declared field of a configuration: name, value, default, unit, range, why."""
    rows = []
    for item in (f for f in fields(config) if "spec" in f.metadata):
        spec, default = spec_of(item), {} if item.default is MISSING else item.default
        row = {"name": item.name, "value": getattr(config, item.name), "default": default}
        rows.append({**row, "unit": spec.unit, "range": spec.expected, "why": spec.why})
    return rows
