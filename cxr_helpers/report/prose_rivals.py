"""Sentences about controls: which rival explanation of an AUC survives; every number comes from a table of `rivals`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from scipy import stats

from ..data import MEDMNIST_FLAGS, Dataset
from ..rivals.inputs import ALONE
from ..rivals.measure import AS_MEASURED, NO_ENCODER, OWN_IMAGES, SHUFFLED, SHUFFLED_BEST, STRANGERS
from .evidence import Found
from .prose import points
from .prose_evidence import absent_text
from .report import to_markdown
from .tables import rows_of

__all__ = ["controls_table", "reading_of_controls", "reading_of_correlations", "survivors"]

NO_CONTROLS = "No encoder has been put under controls yet."


def _difference(row: Any) -> str:
    return f"{points(row.difference)} points [{points(row.difference_low)}, {points(row.difference_high)}]"


def _auc(row: Any) -> str:
    return f"{row.auc:.3f} [{row.low:.3f}, {row.high:.3f}]"


def _half_width(row: Any) -> float:
    """Half of the 95 % t interval of a mean over shuffles."""
    return float(stats.t.ppf(0.975, row.draws - 1) * row.draw_sd / np.sqrt(row.draws))


def _over_shuffles(row: Any) -> str:
    half = _half_width(row)
    return f"{row.auc:.3f} [{row.auc - half:.3f}, {row.auc + half:.3f}] over {row.draws:.0f} shuffles"


def controls_table(summary: pd.DataFrame) -> str:
    """`control_summary` for readers: controls down, encoders across, each AUC with its interval and difference."""
    rows = []
    for (control, split), members in summary.groupby(["control", "split"], sort=False):
        row = {"control": control if split == "test" else f"{control} (val)"}
        row |= {"images / patients": f"{members['images'].iloc[0]:,} / {members['patients'].iloc[0]:,}"}
        for one in rows_of(members):
            change = "" if control == AS_MEASURED else f"; {_difference(one).replace(' points', '')}"
            row[one.name] = f"{_over_shuffles(one) if control == SHUFFLED else _auc(one)}{change}"
        rows.append(row)
    return to_markdown(pd.DataFrame(rows))


def reading_of_controls(summary: pd.DataFrame, found: Found, dataset: Dataset) -> str:
    """Which rival explanation survives, objection by objection: alone it must stay at chance, removed it must not cost.

    Args:
        summary: `control_summary`'s rows of one data set. found: where they are from. dataset: the data set.
    """
    if summary.empty:
        return absent_text(found.absent) or NO_CONTROLS
    test = summary[summary["split"] == "test"]
    reads = summary.groupby("name")["control_reads"].first()
    tail = (
        f"Intervals resample patients; differences, in points of AUC, are to the probe as it was measured. These are "
        f"controls: they read test {reads.max():.0f} times for each encoder, which its record counts, after its figure "
        "was known, and nothing was chosen on them."
    )
    lines = [
        _survivors(test),
        _on_choice(summary),
        _on_parts(test),
        _on_statistics(test),
        _on_removal(summary, dataset),
    ]
    return "\n\n".join(
        filter(None, [controls_table(summary), "\n".join(filter(None, lines)), tail, absent_text(found.absent)])
    )


def _survivors(test: pd.DataFrame) -> str:
    verdicts = "\n\n".join(survivors(test))
    caution = (
        "What a frame or the exposure tells may be the patient's state (a film taken in bed, a child turned) and no "
        "artefact. Exposure and narrow frames are not the finding in the lungs; the widest frame, three quarters of a "
        "film, still shows part of them."
    )
    return f"{verdicts}\n\n{caution}\n"


def survivors(summary: pd.DataFrame) -> list[str]:
    """The verdict on the first of each trained encoder, then of the untrained, in `control_summary`'s rows."""
    test = summary[summary["split"] == "test"]
    firsts = test.drop_duplicates("label")
    names = [*firsts[firsts["family"] != "random"]["name"], *firsts[firsts["family"] == "random"]["name"]]
    return [_verdict(test[test["name"] == name]) for name in names]


def _verdict(mine: pd.DataFrame) -> str:
    """What reaches more than chance alone, whether it could be all, and what costs when it is taken away."""
    measured = rows_of(mine[mine["control"] == AS_MEASURED])[0]
    above = [r for r in rows_of(mine[mine["kind"] == "alone"].sort_values("auc", ascending=False)) if r.low > 0.5]
    costs = [r for r in rows_of(mine[mine["kind"] == "removed"]) if r.difference_high < 0]
    seeded = measured.family != "imagenet" and measured.name == measured.label
    name = f"{measured.name}, seed {measured.seed}" if seeded else measured.name
    text = f"**{name}, {_auc(measured)}: what survives.** "
    if above:
        listed = ", ".join(f"{r.control} {r.auc:.3f}" for r in above)
        text += f"Alone, more than chance is reached by: {listed}. "
        equal = [r.control for r in above if r.difference_high >= 0]
        if equal:
            text += f"Not told apart from the measured AUC: {', '.join(equal)}, so that this may be all there is. "
        else:
            text += "Each stays below the measured AUC: none of them, as far as a linear probe reads it, is all of it. "
    else:
        text += "No objection reaches more than chance alone. "
    if costs:
        return text + f"What costs AUC: {', '.join(f'{r.control} ({points(r.difference)} points)' for r in costs)}."
    return text + "Removing none of them costs AUC that could be shown."


def _on_choice(summary: pd.DataFrame) -> str:
    """Chance: the mean over shuffles with its t interval; choice: the shuffle that val likes best."""
    parts = []
    for row in rows_of(summary[summary["control"] == SHUFFLED]):
        half = _half_width(row)
        word = "chance" if abs(row.auc - 0.5) <= half else "**not chance**"
        text = f"{row.name} has a mean of {row.auc:.3f} over {row.draws:.0f} shuffles (95 % t interval "
        text += f"{row.auc - half:.3f} to {row.auc + half:.3f}: {word}), 95 % of them within {row.draw_low:.3f} to "
        text += f"{row.draw_high:.3f}"
        best = summary[(summary["control"] == SHUFFLED_BEST) & (summary["name"] == row.name)].set_index("split")
        if {"val", "test"} <= set(best.index):
            text += f"; the one that val likes best ({best.loc['val', 'auc']:.3f} there) has "
            text += f"{best.loc['test', 'auc']:.3f} on test"
        parts.append(text)
    if not parts:
        return ""
    return (
        f"- **Shuffled labels.** {'. '.join(parts)}. What val's pick has on test is what choosing alone is worth; the "
        "mean is what must be one half."
    )


def _listed(test: pd.DataFrame, names: Sequence[str]) -> list[str]:
    parts = []
    for name, members in test.groupby("name", sort=False):
        measured = float(members.loc[members["control"] == AS_MEASURED, "auc"].iloc[0])
        rows = rows_of(members[members["control"].isin(names)])
        if rows:
            best = max(rows, key=lambda row: row.auc)
            way = (best.auc - 0.5) / (measured - 0.5) if measured > 0.5 else float("nan")
            listed = ", ".join(f"{row.control} {_auc(row)}" for row in rows)
            text = f"{name} {listed}"
            parts.append(text + (f" ({100 * way:.0f} % of the way from chance to its AUC)" if np.isfinite(way) else ""))
    return parts


def _on_parts(test: pd.DataFrame) -> str:
    parts = _listed(test, list(ALONE))
    if not parts:
        return ""
    return f"- **The border alone**, the rest black, the probe fitted on such images: {'; '.join(parts)}."


def _on_statistics(test: pd.DataFrame) -> str:
    first = test[test["name"] == test["name"].iloc[0]]
    rows = rows_of(first[first["control"].isin(NO_ENCODER)])
    if not rows:
        return ""
    listed = ", ".join(f"{row.control} {_auc(row)}" for row in rows)
    gains = []
    for name, members in test[test["control"].isin(NO_ENCODER)].groupby("name", sort=False):
        best = rows_of(members.sort_values("auc", ascending=False))[0]
        gains.append(f"{name} {points(-best.difference)} points [{points(-best.difference_high)}, "
                     f"{points(-best.difference_low)}]")  # fmt: skip
    return f"- **Exposure and size, without any encoder**: {listed}. Against the best of them: {'; '.join(gains)}."


def _on_removal(summary: pd.DataFrame, dataset: Dataset) -> str:
    """What is left without each objection, and what could not be asked of these data."""
    lines, whole = [], summary[summary["control"] == AS_MEASURED].groupby("split")["images"].first()
    for _, members in summary[summary["kind"] == "removed"].groupby("control", sort=False):
        parts = [f"{row.name} {_auc(row)}, {_difference(row)}{_moved(row)}" for row in rows_of(members)]
        first = rows_of(members)[0]
        count = f"{first.images:,} of {whole[first.split]:,} {first.split} images, {first.patients:,} patients"
        lines.append(f"- **{first.control[0].upper()}{first.control[1:]}** ({count}): {'; '.join(parts)}.")
    asked = set(summary["control"])
    if OWN_IMAGES not in asked and dataset.name in MEDMNIST_FLAGS:
        official = dataset.provenance.get("status") == "official"
        why = "all are: this is MedMNIST's own file" if official else (
            "not derivable here, for MedMNIST's own 28 px file of the same images is not in the data folder"
        )  # fmt: skip
        lines.append(f"- **Which images are MedMNIST's own**: {why}.")
    if STRANGERS not in asked:
        lines.append("- **Patients on both sides**: the file names no patients.")
    return "\n".join(lines)


def _moved(row: Any) -> str:
    if row.difference_high < 0:
        return ", **a loss**"
    return ", a gain" if row.difference_low > 0 else ""


def reading_of_correlations(summary: pd.DataFrame) -> str:
    """Whether scores follow exposure or sharpness among images of one class."""
    if summary.empty:
        return ""
    lines = []
    for name, members in summary.groupby("name", sort=False):
        rows = rows_of(members.reindex(members["rho"].abs().sort_values(ascending=False).index))
        listed = ", ".join(
            f"{row.statistic} {_signed(row.rho)} [{_signed(row.low)}, {_signed(row.high)}]" for row in rows
        )
        clear = [row.statistic for row in rows if row.low > 0 or row.high < 0]
        word = f"it follows {', '.join(clear)}" if clear else "it follows none of them that could be shown"
        lines.append(f"- **{name}**: {listed}: {word}.")
    head = "Spearman's correlation of the score with exposure and sharpness among test images of one class, so that the"
    return "\n".join(
        [f"{head} class itself is not the reason (what else varies within it, as severity, may be):", "", *lines]
    )


def _signed(value: float) -> str:
    return f"{value:+.2f}".replace("-", "−")
