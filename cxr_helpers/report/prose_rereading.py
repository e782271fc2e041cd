"""Tables and sentences about ways of reading a frozen encoder; every number comes from `rereading`."""

from __future__ import annotations

import pandas as pd

from .claims import one_data_set
from .prose import points
from .report import to_markdown
from .rereading import Reread
from .tables import rows_of

__all__ = ["reading_of_rereading", "shown_rereading", "shown_trials"]


def _gain(value: float, low: float, high: float) -> str:
    return f"{points(value)} [{points(low)}, {points(high)}]"


def shown_trials(found: Reread) -> str:
    """Every way that was tried, on folds of train and on val, mean over seeds; the chosen one of an encoder is bold."""
    if found.trials.empty:
        return to_markdown(found.trials)
    chosen = dict(zip(found.summary["label"], found.summary["readout"], strict=True))
    means = found.trials.groupby(["label", "readout"], sort=False)[["cv", "val"]].mean()
    rows = []
    for readout in found.trials["readout"].unique():
        row = {"features": readout}
        for label in chosen:
            text = f"{means.cv[label, readout]:.4f} / {means.val[label, readout]:.4f}"
            row[label] = f"**{text}**" if chosen[label] == readout else text
        rows.append(row)
    return to_markdown(pd.DataFrame(rows))


def shown_rereading(found: Reread) -> str:
    """The way chosen for every encoder and its test score beside the last stage's."""
    if found.summary.empty:
        return to_markdown(found.summary)
    rows = [
        {
            "encoder": row.label,
            "seeds": str(len(row.seeds)),
            "chosen on train": row.readout,
            "features": row.dims,
            "test, last stage": f"{row.test_last:.3f}",
            "test, chosen": f"{row.test:.3f} [{row.low:.3f}, {row.high:.3f}]",
            "gain, points": _gain(row.difference, row.difference_low, row.difference_high),
        }
        for row in rows_of(one_data_set(found.summary).sort_values("test", ascending=False))
    ]
    return to_markdown(pd.DataFrame(rows))


def reading_of_rereading(found: Reread) -> str:
    """Which encoders gain by being read otherwise, which lose, of which neither can be said, and the best."""
    if found.summary.empty:
        return "No encoder's weights are here, and no record of how else it was read."
    table = one_data_set(found.summary)
    groups = {"gain": table.difference_low > 0, "lose": table.difference_high < 0}
    told = []
    for verb, mask in groups.items():
        names = [f"{row.label} ({points(row.difference)})" for row in rows_of(table[mask])]
        if names:
            told.append(f"{', '.join(names)} {verb if len(names) > 1 else verb + 's'}")
    rest = table[~(groups["gain"] | groups["lose"])]
    if len(rest):
        told.append(f"{', '.join(rest.label)}: no difference to the last stage can be told from none")
    text = f"On test, {'; '.join(told)}. "
    best = rows_of(table.sort_values("test", ascending=False))[0]
    text += f"The best is {best.label}, {best.readout}: {best.test:.3f} [{best.low:.3f}, {best.high:.3f}]"
    text += f" on {best.images:,} test images of {best.patients:,} patients, 95 % intervals resample patients."
    if found.absent:
        absent = ", ".join(run.id for run in found.absent)
        text += f" Left out, for neither weights nor a record of this are here: {absent}."
    return text
