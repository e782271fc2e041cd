"""What notebook 02 says about augmentations: lessons, decisions and readings of what `similarity` measured."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from ..augment import (
    ALL_OPERATIONS,
    AugmentationPolicy,
    alone,
    changed_fields,
    describe,
    every_operation,
    fields_of,
    magnitude_fields,
)
from ..data import Dataset
from .tables import rows_of

__all__ = [
    "decisions_table",
    "example_images",
    "lessons_table",
    "policies_table",
    "reading_of_decisions",
    "reading_of_effects",
    "reading_of_greys",
    "reading_of_overlaps",
    "reading_of_similarity",
    "reading_of_values",
]


@dataclass(frozen=True)
class Lesson:
    """What stands behind an operation on a chest film."""

    varies: str
    destroys: str


LESSONS: dict[str, Lesson] = {
    "affine": Lesson(
        "patients stand or lie a few degrees askew, off-centre, nearer to or farther from the detector",
        "large angles look like no film; black corners tell that a view was turned",
    ),
    "crop": Lesson(
        "collimation and inspiration: how much of the thorax is on the film",
        "the finding, if it lies outside; small windows may share no lung, and ask that heart and apex look alike",
    ),
    "flip": Lesson(
        "which lung is ill; films themselves are not mirrored",
        "laterality: heart, aortic arch and stomach bubble change sides",
    ),
    "brightness": Lesson("exposure", "clips: the mediastinum becomes white, or the lungs black"),
    "contrast": Lesson("tube voltage and the window of the viewer", "faint opacities sink into the lung's grey"),
    "saturation": Lesson("nothing: a film has no colour", "nothing"),
    "hue": Lesson("nothing: a film has no colour", "nothing"),
    "grayscale": Lesson("nothing: a film has no colour", "nothing"),
    "gamma": Lesson(
        "the response curve of film or detector, and the maker's processing",
        "black, white and the order of greys stay; strong values flatten lung or bone",
    ),
    "blur": Lesson("focal spot, motion, pitch of the detector", "fine texture: interstitial lines, small nodules"),
    "noise": Lesson("quantum noise, by dose", "faint, even opacities and fine texture"),
    "solarize": Lesson("nothing", "the order of greys: dense tissue takes the greys of air"),
    "invert": Lesson(
        "the polarity in which films are stored (MONOCHROME1 or 2)", "that dense is bright, the sign of an opacity"
    ),
    "randaugment": Lesson(
        "whatever is drawn: some of the above, and posterizing, equalizing, shearing", "the same as what is drawn"
    ),
}


# ---- tables


def lessons_table(channels: int) -> pd.DataFrame:
    """Each operation: the invariance it teaches, what in a film varies that way, what it could destroy."""
    rows = []
    for row in describe(every_operation(), channels):
        lesson = LESSONS[row.operation]
        rows.append(
            {
                "operation": row.operation,
                "teaches not to look at": row.invariance,
                "what varies so between films": lesson.varies,
                "what it can destroy": lesson.destroys,
                f"effect on {channels} channel{'s' if channels > 1 else ''}": row.effect,
            }
        )
    return pd.DataFrame(rows)


def decisions_table(before: AugmentationPolicy, after: AugmentationPolicy, channels: int = 1) -> pd.DataFrame:
    """What was done with each operation on the way from one policy to another, and why.

    Returns:
        Operation, both settings, decision (removed, added, weaker or rarer …, kept) and reason.
    """
    settings = [{row.operation: row for row in describe(p, channels)} for p in (before, after)]
    rows = []
    for operation in ALL_OPERATIONS:
        old, new = (found.get(operation) for found in settings)
        if old is None and new is None:
            continue
        changes = changed_fields(alone(before, operation), alone(after, operation))
        decision = "removed" if new is None else "added" if old is None else "changed" if changes else "kept"
        fields = [change.field for change in changes] or fields_of(operation)
        reasons = dict.fromkeys(item.metadata["reason"] for item in magnitude_fields() if item.name in fields)
        why = f"risk: {LESSONS[operation].destroys}" if decision == "removed" else "; ".join(reasons)
        if old is not None and old.effect == "none":
            why = "cannot change such an image"
        rows.append(
            {
                "operation": operation,
                before.name: _setting(old),
                after.name: _setting(new),
                "decision": decision,
                "why": why,
            }
        )
    return pd.DataFrame(rows)


def _setting(row: object) -> str:
    return "–" if row is None else f"{row.magnitude}; p {row.probability:g}"  # type: ignore[attr-defined]


def policies_table(policies: Sequence[AugmentationPolicy]) -> pd.DataFrame:
    """Every number of the policies with its unit, the range for chest X-rays and the reason for that range."""
    used = {name for p in policies for operation in p.enabled_operations() for name in fields_of(operation)}
    rows = []
    for item in magnitude_fields():
        if item.name not in used:
            continue
        meta = item.metadata
        values = {p.name: f"{getattr(p, item.name):.3g}" if _uses(p, item.name) else "–" for p in policies}
        limits = {"unit": meta["unit"], "range for CXR": f"{meta['low']:.3g} to {meta['high']:.3g}"}
        rows.append({"field": item.name, **values, **limits, "why this range": meta["reason"]})
    return pd.DataFrame(rows)


def _uses(policy: AugmentationPolicy, field: str) -> bool:
    return any(field in fields_of(operation) for operation in policy.enabled_operations())


def example_images(dataset: Dataset) -> dict[str, int]:
    """{caption: index in train} of two images, the first of each class, or one without and one with a label."""
    labels = dataset.train.labels
    if labels.ndim == 1:
        found = {name: (labels == k).nonzero().flatten() for k, name in enumerate(dataset.class_names[:2])}
    else:
        marks = labels.clamp(min=0).sum(dim=1)
        found = {"no finding": (marks == 0).nonzero().flatten(), "with a finding": (marks > 0).nonzero().flatten()}
    return {name: int(rows[0]) for name, rows in found.items() if len(rows)}


# ---- readings


def _listed(names: Iterable[str], none: str = "none") -> str:
    items = [f"`{name}`" for name in names]
    return " and ".join(filter(None, [", ".join(items[:-1]), items[-1]])) if items else none


def _shown(value: float) -> str:
    """Two digits, a true minus, and no minus before zero."""
    return f"{round(value, 2) + 0.0:.2f}".replace("-", "−")


def reading_of_values(values: pd.DataFrame, num_images: int) -> str:
    """Whether views are in [0, 1], and what the encoder gets of them."""
    low, high, undone = values.low.min(), values.high.max(), values.undone.max()
    wide = rows_of(values.loc[[(values.encoder_high - values.encoder_low).idxmax()]])[0]
    reach = f"{_shown(wide.encoder_low)} to {_shown(wide.encoder_high)} under `{wide.policy}`"
    return (
        f"Views of {num_images} images under {len(values)} policies lie between {low:.2f} and {high:.2f}: they are "
        "drawn as the transform returns them, before normalisation, black 0 and white 1. The encoder gets "
        f"(x − mean) / std, which reaches from {reach}; undoing it gives the views back to within {undone:.0e}. "
        "Normalisation is thus no augmentation: it loses nothing."
    )


def reading_of_greys(values: pd.DataFrame, before: pd.DataFrame) -> str:
    """What share of the pixels a policy leaves without information, at black or at white.

    Args:
        values: `view_values`' rows of the policies.
        before: its row of the policy that does nothing.
    """
    own, worst = rows_of(before)[0], rows_of(values.loc[[(values.black + values.white).idxmax()]])[0]
    parts = "; ".join(f"`{row.policy}` {100 * row.black:.1f} % and {100 * row.white:.1f} %" for row in rows_of(values))
    return (
        f"At black and at white lie {100 * own.black:.1f} % and {100 * own.white:.1f} % of the images' pixels; of the "
        f"views' pixels, {parts}. Most is lost under `{worst.policy}`, where {100 * (worst.black + worst.white):.1f} % "
        "are at one of the two ends."
    )


def reading_of_effects(effects: pd.DataFrame, num_images: int) -> str:
    """Which operations do nothing, by measurement and by description, and which do most."""
    still = list(effects[effects.max_change == 0].operation.unique())
    stated = list(effects[effects.effect == "none"].operation.unique())
    if set(still) == set(stated):
        agree = "just as `describe` states" if still else "and `describe` names none"
    else:
        agree = f"while `describe` names {_listed(stated)}: **one of the two is wrong**"
    where = ", ".join(dict.fromkeys(effects[effects.max_change == 0].policy))
    lines = [
        f"- **Nothing at all** (not one pixel of {num_images} images moved): {_listed(still)}, {agree}."
        + (f" Enabled in: {where}." if where else "")
    ]
    grey = rows_of(effects.sort_values("mean_change", ascending=False))[0]
    lines.append(
        f"- **Most change of greys:** `{grey.operation}` in `{grey.policy}`, {100 * grey.mean_change:.1f} % of the "
        f"range per pixel whenever it acts (p {grey.probability:g})."
    )
    far = effects.sort_values("apart", ascending=False).drop_duplicates("policy")
    parts = ", ".join(f"`{row.policy}` {row.operation} ({row.apart:.2f})" for row in rows_of(far))
    lines.append(f"- **What takes two views farthest apart**, policy by policy (1 − correlation): {parts}.")
    blind = effects[(effects.mean_change > 0.02) & (effects.apart < 0.01)].operation.unique()
    lines.append(
        f"- **Large in grey, invisible to correlation:** {_listed(blind)}. They move all greys together and "
        "leave the pattern: what they take away is the mean grey, by which an encoder could otherwise match views."
    )
    return "\n".join(lines)


def reading_of_similarity(summary: pd.DataFrame) -> str:
    """Which policy's views are most alike, and how much of the pretext task is solved without learning."""
    lines = []
    for measure, rows in summary.groupby("measure", sort=False):
        ranked = rows_of(rows.sort_values("same", ascending=False))
        first, last = ranked[0], ranked[-1]
        easy, hard = (rows_of(rows.loc[[getattr(rows.found, pick)()]])[0] for pick in ("idxmax", "idxmin"))
        lines.append(
            f"- **{str(measure).capitalize()}**: two views of one image are most alike under `{first.policy}` (mean "
            f"{_shown(first.same)}, against {_shown(first.different)} for two images) and least under `{last.policy}` "
            f"({_shown(last.same)} against {_shown(last.different)}). The other view is found among {first.images} by "
            f"that measure alone for {100 * easy.found:.0f} % of the images under `{easy.policy}` and "
            f"{100 * hard.found:.0f} % under `{hard.policy}`; guessing finds {100 / first.images:.1f} %."
        )
    return "\n".join(lines)


LITTLE = 0.1  # shared over union: below it two crops show different parts of the thorax


def reading_of_overlaps(overlaps: pd.DataFrame) -> str:
    """How often the crops of two views share little, per policy."""
    pairs = int(overlaps.groupby("policy").size().iloc[0])
    rows = []
    for policy, part in overlaps.groupby("policy", sort=False):
        iou = part.iou.to_numpy()
        rows.append((float(np.median(iou)), f"`{policy}`", (iou < LITTLE).mean(), (iou == 0).mean()))
    parts = "; ".join(
        f"{name} {median:.2f} ({100 * little:.1f} %, {100 * nothing:.1f} %)"
        for median, name, little, nothing in sorted(rows)
    )
    return (
        f"Median overlap of the two crops over {pairs:,} pairs (in brackets: pairs with less than {LITTLE:g}, pairs "
        f"with nothing in common): {parts}."
    )


def reading_of_decisions(decisions: pd.DataFrame, effects: pd.DataFrame) -> str:
    """What was removed, added and changed between the two policies of a decisions table."""
    before, after = decisions.columns[1:3]
    groups = {name: list(rows.operation) for name, rows in decisions.groupby("decision", sort=False)}
    still = set(effects[effects.max_change == 0].operation)
    removed = groups.get("removed", [])
    text = f"From `{before}` to `{after}`: removed {_listed(removed)}"
    idle = [name for name in removed if name in still]
    if idle:
        text += f" ({_listed(idle)} changed no pixel, so nothing is lost)"
    return text + (
        f"; added {_listed(groups.get('added', []))}; changed {_listed(groups.get('changed', []))}; "
        f"kept {_listed(groups.get('kept', []))}. Whether that makes better features is not decided here: "
        "notebook 03 asks the online probe."
    )
