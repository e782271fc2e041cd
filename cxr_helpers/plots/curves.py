"""Figures of predictions: ROC and precision-recall with bands, reliability, confusion, labels one by one.

Data in (`report.decisions`' tables of one data set), `Figure` out. One colour per encoder, as everywhere.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator

from ..report.tables import rows_of
from .drawing import configurations, panel_grid, reference_line, require, styled

__all__ = ["plot_calibration", "plot_confusion", "plot_label_auc", "plot_roc_precision"]

MOST_PANELS = 4  # encoders side by side; more are drawn in further rows
_BAND_ALPHA = 0.16


def _interval(value: float, low: float, high: float) -> str:
    return f"{value:.3f} [{low:.3f}, {high:.3f}]"


def _block(ax: Axes, lines: Sequence[tuple[str, str]], *, right: bool, top: bool) -> None:
    """Lines of (text, colour) in a corner of the axes, on white."""
    step = 1.32 * 8.5 / 72 / (ax.get_window_extent().height / ax.figure.dpi)  # of a line, in parts of the axes
    for i, (text, colour) in enumerate(lines):
        y = 0.97 - i * step if top else 0.03 + (len(lines) - 1 - i) * step
        ax.text(
            0.97 if right else 0.03, y, text, transform=ax.transAxes, color=colour, fontsize=8.5, zorder=5,
            ha="right" if right else "left", va="top" if top else "bottom",
            bbox={"facecolor": "white", "edgecolor": "none", "alpha": 0.85, "pad": 0.4},
        )  # fmt: skip


def _short(label: str) -> str:
    """A name without what all encoders of these figures are."""
    return label.removesuffix(", frozen")


def _of_labels(operating: pd.DataFrame) -> str:
    count = int(operating["num_labels"].iloc[0])
    return f"\n(mean of {count} labels)" if count > 1 else ""


# ---- ROC and precision-recall


@styled
def plot_roc_precision(roc: pd.DataFrame, precision: pd.DataFrame, operating: pd.DataFrame) -> Figure:
    """ROC and precision-recall of every encoder with 95 % bands, areas, chance, and where its val threshold puts it.

    Bands and intervals are over patients, the former pointwise.

    Args:
        roc, precision: `curve_table`'s rows of either kind. operating: `operating_table`'s.
    """
    for table in (roc, precision):
        require(table, ["label", "family", "x", "y", "low", "high"])
    require(operating, ["label", "auc", "ap", "prevalence", "point_fpr", "point_sensitivity", "point_precision"])
    figure, (left, right) = panel_grid(2, panel=(3.9, 3.5))
    of_labels = _of_labels(operating)
    for ax, table in ((left, roc), (right, precision)):
        for label, colour, dashes in configurations(table):
            rows = table[table["label"] == label]
            ax.fill_between(rows["x"], rows["low"], rows["high"], color=colour, alpha=_BAND_ALPHA, linewidth=0)
            ax.plot(rows["x"], rows["y"], color=colour, linestyle=dashes, linewidth=1.6)
        ax.set_xlim(-0.01, 1.01)
    points = operating.set_index("label")
    for label, colour, _ in configurations(roc):
        style: dict[str, Any] = {
            "color": colour,
            "markerfacecolor": "white",
            "markersize": 6,
            "markeredgewidth": 1.6,
            "zorder": 4,
        }
        at = points.loc[label]
        left.plot(at["point_fpr"], at["point_sensitivity"], "o", **style)
        right.plot(at["point_sensitivity"], at["point_precision"], "o", **style)
    left.plot([0, 1], [0, 1], color="#555555", linewidth=0.9, linestyle=(0, (1, 2)), zorder=1)
    left.set_ylim(-0.01, 1.02)
    left.set_xlabel(f"1 − specificity{of_labels}")
    left.set_ylabel(f"sensitivity{of_labels}")
    prevalence = float(operating["prevalence"].iloc[0])
    top = max(float(precision["high"].max()), prevalence)
    low = float(precision.loc[precision["x"] == 0.5, "y"].mean()) < 0.5  # rare findings: the curves lie at the bottom
    right.set_ylim(0, min(1.02, 1.3 * top) if low else 1.02)
    reference_line(right, prevalence, f"chance: prevalence {100 * prevalence:.1f} %", above=False)
    right.set_xlabel(f"recall (sensitivity){of_labels}")
    right.set_ylabel(f"precision{of_labels}")
    figure.draw_without_rendering()
    colours = {label: colour for label, colour, _ in configurations(roc)}
    for ax, name, area in ((left, "AUC", "auc"), (right, "AP", "ap")):
        lines = [
            (f"{_short(row.label)}: {_interval(*(getattr(row, c) for c in (area, f'{area}_low', f'{area}_high')))}",
             colours[row.label])
            for row in rows_of(operating.sort_values(area, ascending=False))
        ]  # fmt: skip
        lines = [(f"{name} [95 %]    ○ val's threshold", "#555555"), *lines]
        _block(ax, lines, right=ax is left or low, top=ax is right and low)
    left.annotate(
        "chance", (0.4, 0.4), rotation=45, rotation_mode="anchor", ha="center", va="bottom", fontsize=7.5,
        color="#555555", transform_rotates_text=True,
    )  # fmt: skip
    return figure


# ---- calibration


@styled
def plot_calibration(calibration: pd.DataFrame, operating: pd.DataFrame) -> Figure:
    """How often a probability comes true, one panel per encoder, with the number of decisions of each bin below.

    Bars are Wilson's 95 % intervals on the patients of a bin. The dotted line is perfect calibration.

    Args:
        calibration: `calibration_table`'s rows. operating: `operating_table`'s, for the error.
    """
    require(calibration, ["label", "family", "probability", "frequency", "low", "high", "count"])
    require(operating, ["label", "ece", "ece_floor"])
    drawn = configurations(calibration)
    columns = min(MOST_PANELS, len(drawn))
    rows = -(-len(drawn) // columns)
    figure = Figure(figsize=(0.5 + 2.15 * columns, 3.0 * rows), layout="constrained")
    grid = figure.subplots(2 * rows, columns, squeeze=False, height_ratios=[3.2, 1] * rows, sharex=True)
    errors, most = {row.label: row for row in rows_of(operating)}, float(calibration["count"].max())
    top = max(0.2, min(1.0, 1.08 * float(calibration["probability"].max())))
    for i, (label, colour, _) in enumerate(drawn):
        upper, lower = (grid[2 * (i // columns) + part, i % columns] for part in (0, 1))
        part = calibration[calibration["label"] == label]
        _reliability(upper, part, colour, top)
        upper.set_title(_short(label), color=colour)
        text = f"ECE {errors[label].ece:.3f}\n(if calibrated {errors[label].ece_floor:.3f})"
        upper.text(0.04, 0.96, text, transform=upper.transAxes, va="top", fontsize=8.5)
        lower.bar(part["probability"], part["count"], width=0.03 * top, color=colour, alpha=0.7)
        lower.set_yscale("log")
        lower.set_ylim(0.3, 3 * most)
        lower.yaxis.set_major_formatter(FuncFormatter(lambda v, _: f"{v:,.0f}"))
        lower.set_xlabel("predicted probability")
        if i % columns == 0:
            upper.set_ylabel("observed frequency")
            lower.set_ylabel("decisions")
        else:
            upper.tick_params(labelleft=False)
            lower.tick_params(labelleft=False)
    for spare in range(len(drawn), rows * columns):
        for ax in grid[2 * (spare // columns) : 2 * (spare // columns) + 2, spare % columns]:
            ax.remove()
    return figure


def _reliability(ax: Axes, rows: pd.DataFrame, colour: str, top: float) -> None:
    ax.plot([0, 1], [0, 1], color="#555555", linewidth=0.9, linestyle=(0, (1, 2)), zorder=1)
    spread = [rows["frequency"] - rows["low"], rows["high"] - rows["frequency"]]
    ax.errorbar(
        rows["probability"], rows["frequency"], spread, fmt="o", color=colour, markersize=4, linewidth=1.2, capsize=0
    )
    ax.set_xlim(-0.02 * top, 1.02 * top)
    ax.set_ylim(-0.03, 1.03)
    ax.xaxis.set_major_locator(MaxNLocator(4, steps=[1, 2, 2.5, 5, 10]))


# ---- decisions


@styled
def plot_confusion(operating: pd.DataFrame, names: Sequence[str] = ("negative", "positive")) -> Figure:
    """The confusion matrix of every encoder at its val threshold: counts, and rates of each true class.

    Args:
        operating: `operating_table`'s rows; counts are means over seeds, several labels are pooled.
        names: of the negative and the positive class.
    """
    require(operating, ["label", "family", "tp", "fn", "fp", "tn", "sensitivity", "specificity"])
    drawn = configurations(operating)
    figure, axes = panel_grid(len(drawn), MOST_PANELS, panel=(2.35, 2.35))
    for i, (ax, (label, colour, _)) in enumerate(zip(axes, drawn, strict=True)):
        row = operating[operating["label"] == label].iloc[0]
        counts = np.array([[row["tp"], row["fn"]], [row["fp"], row["tn"]]])
        rates = counts / counts.sum(axis=1, keepdims=True)
        ax.imshow(rates, cmap="Blues", vmin=0, vmax=1.25)
        for (y, x), count in np.ndenumerate(counts):
            dark = rates[y, x] > 0.7
            text = f"{count:,.0f}" if row["num_seeds"] == 1 else f"{count:,.1f}"
            if x == y:
                name = ("sensitivity", "specificity")[y]
                low, high = row[f"{name}_low"], row[f"{name}_high"]
                text += f"\n{name}\n{100 * rates[y, x]:.1f} %\n[{100 * low:.1f}, {100 * high:.1f}]"
            else:
                text += f"\n{100 * rates[y, x]:.1f} %"
            ax.text(x, y, text, ha="center", va="center", fontsize=8.5, color="white" if dark else "#222222")
        ax.set_title(_short(label), color=colour)
        ax.set_xticks([0, 1], [f"called\n{names[1]}", f"called\n{names[0]}"])
        ax.set_yticks([0, 1], [f"true {names[1]}", f"true {names[0]}"] if i % MOST_PANELS == 0 else ["", ""])
        ax.set_yticklabels(ax.get_yticklabels(), rotation=90, va="center")
        ax.tick_params(length=0)
        ax.grid(visible=False)
        for spine in ax.spines.values():
            spine.set_visible(False)
    return figure


# ---- labels


@styled
def plot_label_auc(labels: pd.DataFrame) -> Figure:
    """AUC of each label with its interval, encoders side by side, best label on top, its positives beside it.

    Args:
        labels: `label_table`'s rows of one data set.
    """
    require(labels, ["name", "label", "family", "auc", "low", "high", "support", "images"])
    drawn = configurations(labels)
    best = labels.groupby("label", sort=False)["auc"].mean().idxmax()  # its order of labels
    order = labels[labels["label"] == best].sort_values("auc", ascending=False)["name"].tolist()
    support = labels.groupby("name")["support"].first()
    height = 0.16 + 0.13 * len(drawn)
    figure = Figure(figsize=(6.4, 1.0 + height * len(order)), layout="constrained")
    ax = figure.subplots()
    steps = np.linspace(-0.5, 0.5, len(drawn) + 2)[1:-1] if len(drawn) > 1 else np.zeros(1)
    for (label, colour, _), step in zip(drawn, steps, strict=True):
        rows = labels[labels["label"] == label].set_index("name").loc[order]
        y = np.arange(len(order)) + step
        ax.hlines(y, rows["low"], rows["high"], color=colour, linewidth=1.6)
        ax.plot(rows["auc"], y, "o", color=colour, markersize=4.5)
    for y, name in enumerate(order):
        ax.annotate(f"{support[name]:,}", (1.0, y), xycoords=("axes fraction", "data"), xytext=(36, 0),
                    textcoords="offset points", ha="right", va="center", fontsize=8.5)  # fmt: skip
        if y % 2:
            ax.axhspan(y - 0.5, y + 0.5, color="#f4f4f4", zorder=0, linewidth=0)
    ax.annotate(f"positives of\n{labels['images'].iloc[0]:,} test\nimages", (1.0, -0.5), fontsize=8.5, va="bottom",
                xycoords=("axes fraction", "data"), xytext=(4, 3), textcoords="offset points")  # fmt: skip
    ax.axvline(0.5, color="#555555", linewidth=0.9, linestyle=(0, (1, 2)), zorder=1)
    ax.annotate("chance", (0.5, len(order) - 0.55), xytext=(3, 0), textcoords="offset points",
                fontsize=8, color="#555555")  # fmt: skip
    x = 0.0
    for label, colour, _ in drawn:  # the names, in a row above the axes
        ax.annotate(f"● {label}", (x, 1.0), xycoords="axes fraction", xytext=(0, 4), textcoords="offset points",
                    color=colour, fontsize=8.5, va="bottom")  # fmt: skip
        x += 0.07 + 0.0145 * len(label)
    ax.set_yticks(range(len(order)), order)
    ax.set_ylim(len(order) - 0.5, -0.5)
    ax.grid(axis="y", visible=False)
    ax.xaxis.set_major_formatter(FuncFormatter(lambda v, _: f"{v:g}"))
    ax.set_xlabel("test ROC-AUC (mean of seeds, 95 % interval over patients)")
    return figure
