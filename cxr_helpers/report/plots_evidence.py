"""Figures of what stands behind a result: curves, decisions, labels one by one, rival explanations.

Bars and bands are 95 % intervals over patients; dotted is what chance or a perfect encoder would do.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.figure import Figure

from .style import DOTTED, GREY, colour_of, draw_lines, legend, panels, require, row_figure, styled

__all__ = ["plot_calibration", "plot_confusion", "plot_controls", "plot_labels"]

KINDS = {"measured": "", "removed": "the objection removed", "alone": "the objection alone", "nothing": "no signal"}


@styled
def plot_confusion(operating: pd.DataFrame, classes: Sequence[str] = ("negative", "positive")) -> Figure:
    """Decisions at the threshold chosen on val: whole counts (the mean of seeds, rounded) and shares of the true class.

    operating: `encoder, tp, fn, fp, tn`.
    classes: the negative and the positive one.
    """
    data = require(operating, "encoder tp fn fp tn")
    figure, axes = panels(len(data), height=2.0)
    for ax, row in zip(axes, data.to_dict("records"), strict=True):
        found = np.array([[row["tp"], row["fn"]], [row["fp"], row["tn"]]])
        shares = found / found.sum(axis=1, keepdims=True)
        text = [f"{n:,.0f}\n{100 * share:.1f} %" for n, share in zip(found.flat, shares.flat, strict=True)]
        style = {"cmap": "Blues", "vmin": 0, "vmax": 1.2, "cbar": False, "ax": ax, "xticklabels": classes[::-1]}
        sns.heatmap(shares, annot=np.reshape(text, (2, 2)), fmt="", yticklabels=classes[::-1], **style)
        ax.set_title(row["encoder"], color=colour_of(row["encoder"]))
        ax.set(xlabel="called", ylabel="true")
        ax.tick_params(length=0, pad=3)
    return figure


@styled
def plot_calibration(calibration: pd.DataFrame, operating: pd.DataFrame) -> Figure:
    """How often a probability comes true, and the expected calibration error.

    calibration: `encoder, probability, frequency, low, high`.
    operating: `encoder, ece`.
    """
    data, errors = require(calibration, "encoder probability frequency low high"), operating.set_index("encoder")["ece"]
    names = data["encoder"].unique()
    figure, axes = panels(len(names), height=1.75, sharex=True, sharey=True)
    for ax, name in zip(axes, names, strict=True):
        draw_lines(ax, data[data["encoder"] == name], "probability", "frequency", bars=True)
        ax.plot([0, 1], [0, 1], color=GREY, lw=1, ls=DOTTED)
        ax.set_title(f"{name}: error {errors[name]:.3f}", color=colour_of(name))
    figure.supxlabel("predicted probability")
    figure.supylabel("share that came true")
    return figure


@styled
def plot_labels(labels: pd.DataFrame) -> Figure:
    """AUC of every label, the one that works best on top.

    labels: `encoder, name, auc, low, high, support` (positives in test); the first encoder sets the order.
    """
    data = require(labels, "encoder name auc low high support").rename(columns={"auc": "value"})
    encoders = list(data["encoder"].unique())
    order = data[data["encoder"] == encoders[0]].sort_values("value", ascending=False)["name"].tolist()
    data = data.sort_values("name", key=lambda names: names.map(order.index), kind="stable")
    data["name"] += data["support"].map(" ({:,.0f})".format)
    text = "test ROC-AUC, 95 % interval; in brackets: positives in test"
    figure, ax = row_figure(data, "name", "encoder", text, step=0.13 + 0.09 * len(encoders))
    for y in range(0, len(order), 2):
        ax.axhspan(y - 0.5, y + 0.5, color="#f5f5f5", lw=0, zorder=0)
    ax.axvline(0.5, color=GREY, lw=1, ls=DOTTED, zorder=1)
    legend(figure, encoders)
    return figure


@styled
def plot_controls(controls: pd.DataFrame) -> Figure:
    """Test AUC under every rival explanation, beside the encoders as measured (lines) and chance.

    controls: `encoder, control, kind` (one of `KINDS`), `split, auc, low, high`; equal rows use no encoder.
    """
    data = require(controls, "encoder control kind split auc low high").rename(columns={"auc": "value"})
    data, alike, parts = data[data["split"] == "test"], ["control", "value", "low", "high"], []
    data = data.assign(encoder=data["encoder"].mask(data.duplicated(alike, keep=False), "no encoder"))
    data = data.drop_duplicates(alike)
    for kind, head in KINDS.items():
        rows = data[data["kind"] == kind]
        parts += [rows.head(1).assign(control=head, value=np.nan)] * bool(head) + [rows]
    figure, ax = row_figure(pd.concat(parts, ignore_index=True), "control", "encoder", "test ROC-AUC, 95 % interval")
    ax.set_xlim(right=min(1.0, ax.get_xlim()[1]))
    for tick in ax.get_yticklabels():
        tick.set_color(GREY if tick.get_text() in KINDS.values() else "black")
    for row in data[data["kind"] == "measured"].to_dict("records"):
        ax.axvline(row["value"], color=colour_of(row["encoder"]), lw=0.8, alpha=0.6, zorder=1)
    ax.axvline(0.5, color=GREY, lw=1, ls=DOTTED, zorder=1)
    legend(figure, data["encoder"].unique())
    return figure
