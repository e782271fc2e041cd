"""Policies taken apart: one operation alone, which fields differ, which do nothing, the code that makes a change."""

from __future__ import annotations

from dataclasses import Field, dataclass
from typing import Any

from ..fields import spec_of
from .catalogue import POLICIES
from .policy import COLOUR_ONLY, AugmentationPolicy, magnitude_fields

__all__ = [
    "ALL_OPERATIONS",
    "Change",
    "alone",
    "changed_fields",
    "code_line",
    "every_operation",
    "field_groups",
    "fields_of",
    "inert_fields",
    "range_notes",
]

_JITTER = ("brightness", "contrast", "saturation", "hue")  # four operations under one probability


def _range(item: Field[Any]) -> tuple[float, float]:
    """The range of a number that is sensible on chest X-rays."""
    return spec_of(item).slider or (0.0, 1.0)


def every_operation() -> AugmentationPolicy:
    """A policy in which no operation is off: every number at the upper end of its range for chest X-rays."""
    numbers: dict[str, Any] = {item.name: _range(item)[1] for item in magnitude_fields()}
    return AugmentationPolicy(name="every operation", reason="to list them", **numbers)


ALL_OPERATIONS: tuple[str, ...] = every_operation().enabled_operations()  # in the order in which they act


def field_groups() -> dict[str, tuple[Field[Any], ...]]:
    """The policy's fields by the operation in whose group they are set, in the order of their definition."""
    groups: dict[str, tuple[Field[Any], ...]] = {}
    for item in magnitude_fields():
        groups[spec_of(item).group] = (*groups.get(spec_of(item).group, ()), item)
    return groups


def fields_of(operation: str) -> tuple[str, ...]:
    """Names of the fields that one of `ALL_OPERATIONS` reads.

    Raises:
        ValueError: for another name.
    """
    if operation not in ALL_OPERATIONS:
        raise ValueError(f"operation must be one of {', '.join(ALL_OPERATIONS)}, got {operation!r}")
    if operation in _JITTER:
        return ("jitter_prob", operation)
    return tuple(item.name for item in field_groups()[operation])


def alone(policy: AugmentationPolicy, operation: str, *, always: bool = False) -> AugmentationPolicy:
    """A policy that does one operation of another and nothing else.

    Args:
        policy: where its numbers come from.
        operation: one of `ALL_OPERATIONS`.
        always: with probability 1 instead of the policy's, where it has one.
    """
    values = {name: getattr(policy, name) for name in fields_of(operation)}
    if always:
        values |= {name: 1.0 for name in values if name.endswith("_prob")}
    return AugmentationPolicy(
        name=f"{operation} of {policy.name}", reason=policy.reason, normalisation=policy.normalisation, **values
    )


def inert_fields(channels: int) -> tuple[str, ...]:
    """Names of the fields that change nothing in an image of that many channels."""
    if channels != 1:
        return ()
    return tuple(name for operation in COLOUR_ONLY for name in fields_of(operation) if name != "jitter_prob")


@dataclass(frozen=True)
class Change:
    """One field in which two policies differ."""

    field: str
    operation: str
    unit: str
    before: float
    after: float
    reason: str


def changed_fields(before: AugmentationPolicy, after: AugmentationPolicy) -> tuple[Change, ...]:
    """The fields whose numbers differ, in the order of their definition."""
    return tuple(
        Change(
            field=item.name,
            operation=spec_of(item).group,
            unit=spec_of(item).unit,
            before=getattr(before, item.name),
            after=getattr(after, item.name),
            reason=spec_of(item).why,
        )
        for item in magnitude_fields()
        if getattr(before, item.name) != getattr(after, item.name)
    )


def code_line(base: str, policy: AugmentationPolicy) -> str:
    """The expression that makes a policy's numbers from those of the catalogue's `base`, in one line."""
    changes = [f", {c.field}={c.after!r}" for c in changed_fields(POLICIES[base], policy)]
    return f'replace(POLICIES["{base}"]{"".join(changes)})'


def range_notes(policy: AugmentationPolicy) -> dict[str, str]:
    """What to say beside each field whose number is outside of the range sensible on chest X-rays."""
    notes = {}
    for item in magnitude_fields():
        low, high = _range(item)
        if not low - 1e-9 <= getattr(policy, item.name) <= high + 1e-9:
            notes[item.name] = f"outside {low:.3g} to {high:.3g}, the range for chest X-rays: {spec_of(item).why}"
    return notes
