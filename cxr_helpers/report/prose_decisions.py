"""Sentences about decisions, probabilities and labels; every number comes from a table of `report.decisions`."""

from __future__ import annotations

import pandas as pd

from .tables import rows_of

__all__ = ["reading_of_calibration", "reading_of_labels_one_by_one", "reading_of_operating"]

NO_TEST = "No finished run has been scored on test yet."
_FEW = 30  # positives below which an interval of an AUC is called wide


def _seeds(number: int) -> str:
    return f"{number} seed{'s' if number != 1 else ''}"


def _percent(value: float, low: float, high: float) -> str:
    return f"{100 * value:.1f} % [{100 * low:.1f}, {100 * high:.1f}]"


def reading_of_operating(operating: pd.DataFrame) -> str:
    """What the val threshold does on test, encoder by encoder, and whether it keeps the balance it was chosen for."""
    if operating.empty:
        return NO_TEST
    pooled = operating["num_labels"].iloc[0] > 1
    lines = []
    for row in rows_of(operating.sort_values("auc", ascending=False)):
        text = (
            f"- **{row.label}** ({_seeds(row.num_seeds)}): AUC {row.auc:.3f} [{row.auc_low:.3f}, {row.auc_high:.3f}],"
        )
        text += f" average precision {row.ap:.3f} [{row.ap_low:.3f}, {row.ap_high:.3f}]. At val's threshold"
        text += f"{'s, all labels pooled,' if pooled else ''} sensitivity is "
        text += f"{_percent(row.sensitivity, row.sensitivity_low, row.sensitivity_high)}, specificity "
        text += f"{_percent(row.specificity, row.specificity_low, row.specificity_high)}."
        lines.append(text)
    first = rows_of(operating)[0]
    gap = (operating["sensitivity"] - operating["specificity"]).mean()
    tail = f"Chance would have an average precision of {first.prevalence:.3f}, the prevalence"
    tail += f" (mean of {first.num_labels:.0f} labels). " if pooled else ". "
    if abs(gap) > 0.1:  # ten points: more than an interval's half on a few hundred images
        less = "specificity" if gap > 0 else "sensitivity"
        tail += (
            f"The thresholds were chosen for sensitivity and specificity together, yet on test {less} is on average "
            f"{100 * abs(gap):.0f} points behind: a threshold does not travel from val as well as a ranking does."
        )
    else:
        tail += "On test the thresholds keep about the balance of sensitivity and specificity they were chosen for."
    return "\n".join([*lines, "", tail])


def reading_of_calibration(operating: pd.DataFrame) -> str:
    """Whether the probabilities can be taken at their word, against the error that true probabilities would have."""
    if operating.empty:
        return NO_TEST
    lines = []
    for row in rows_of(operating.sort_values("ece")):
        text = (
            f"- **{row.label}**: calibration error {row.ece:.3f}; true probabilities would have {row.ece_floor:.3f} on"
        )
        text += f" as many images (up to {row.ece_floor_high:.3f} in 95 % of draws): "
        lines.append(
            text + ("**more than chance explains**." if row.ece > row.ece_floor_high else "chance explains it.")
        )
    return "\n".join(lines)


def reading_of_labels_one_by_one(labels: pd.DataFrame) -> str:
    """The easiest and the hardest label, those that cannot be told from chance, and those with few positives."""
    if labels.empty:
        return NO_TEST
    measured = labels[labels["auc"].notna()]
    lines = []
    for label, rows in measured.groupby("label", sort=False):
        ranked = rows.sort_values("auc", ascending=False)
        best, worst = rows_of(ranked)[0], rows_of(ranked)[-1]
        text = f"- **{label}**: from {best.name} {best.auc:.3f} [{best.low:.3f}, {best.high:.3f}] down to {worst.name} "
        text += f"{worst.auc:.3f} [{worst.low:.3f}, {worst.high:.3f}]; mean {rows['auc'].mean():.3f}."
        chance = [row.name for row in rows_of(ranked) if not row.low > 0.5]
        if chance:
            text += f" Not above chance by its interval: {', '.join(chance)}."
        lines.append(text)
    support = labels.groupby("name", sort=False)["support"].first()
    few = [f"{name} ({count})" for name, count in support.items() if count < _FEW]
    if few:
        lines.append(f"\nFewer than {_FEW} positives in test, so that an interval is wide: {', '.join(few)}.")
    skipped = sorted(set(labels["name"]) - set(measured["name"]))
    if skipped:
        lines.append(f"\nWithout both classes in test, so without an AUC: {', '.join(skipped)}.")
    return "\n".join(lines)
