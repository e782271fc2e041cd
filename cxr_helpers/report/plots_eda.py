"""Figures of the data and of what a policy does to them: classes, labels that meet, greys, patients, duplicates."""

from __future__ import annotations

import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, NullFormatter, NullLocator, StrMethodFormatter

from .style import DOTTED, GREY, draw_lines, legend, panels, require, row_figure, styled

__all__ = ["plot_balance", "plot_cooccurrence", "plot_duplicates", "plot_effects", "plot_levels", "plot_patients"]

_PLAIN = StrMethodFormatter("{x:g}")


@styled
def plot_balance(counts: pd.DataFrame) -> Figure:
    """Share of each class in the splits, and its train images; `counts`: `split, class, images, share, low, high`."""
    data = require(counts, "split class images share low high")
    train = data[data["split"] == "train"].sort_values("share", ascending=False)
    order = train["class"].tolist()
    data = data.sort_values("class", key=lambda names: names.map(order.index), kind="stable")
    data = data.assign(value=100 * data["share"], low=100 * data["low"], high=100 * data["high"])
    text = "share of the split's images, %, 95 % interval; right: train images"
    beside = train["images"].map("{:,}".format).tolist()
    figure, ax = row_figure(data, "class", "split", text, step=0.3, beside=beside)
    if train["share"].max() > 20 * train["share"].min():
        ax.set_xscale("log")
        ax.xaxis.set_major_formatter(_PLAIN)
    legend(figure, data["split"].unique())
    return figure


@styled
def plot_cooccurrence(pairs: pd.DataFrame) -> Figure:
    """Which labels meet: hundredths of phi, 0 as often as by chance; `pairs`: `a, b, phi`, each pair once."""
    data = require(pairs, "a b phi")
    both = pd.concat([data, data.rename(columns={"a": "b", "b": "a"})])
    phi = (100 * both.pivot_table(index="a", columns="b", values="phi")).round() + 0.0  # no -0
    order = phi.sum().sort_values(ascending=False).index
    figure, (ax,) = panels(1, height=4.2)
    sns.heatmap(phi.loc[order, order], annot=True, fmt=".0f", cmap="RdBu_r", center=0, cbar=False, ax=ax)
    ax.set(xlabel="", ylabel="", title="correlation of two labels in train, hundredths")
    ax.tick_params(length=0)
    ax.grid(visible=False)
    return figure


@styled
def plot_levels(levels: pd.DataFrame) -> Figure:
    """Histograms of greys; `levels`: `panel` (a class, a policy), `line` (a split; images, views), `level, share`."""
    data = require(levels, "panel line level share").assign(share=100 * levels["share"])
    names = data["panel"].unique()
    columns = next((columns for columns in (3, 4, 2) if len(names) % columns == 0), 3)  # no empty corner, if possible
    height = 1.15 + 0.7 * columns / len(names)
    figure, axes = panels(len(names), columns=columns, height=height, sharex=True, sharey=True)
    for ax, name in zip(axes, names, strict=True):
        draw_lines(ax, data[data["panel"] == name], "level", "share", "line")
        ax.set(title=name, xlim=(0, 1), ylim=(0, 1.2 * data["share"].quantile(0.99)), xticks=[0, 0.5, 1])
        ax.xaxis.set_major_formatter(_PLAIN)
        ax.yaxis.set_major_locator(MaxNLocator(3))
    figure.supxlabel("grey level, 0 black to 1 white")
    figure.supylabel("pixels per bin, %")
    legend(figure, data["line"].unique())
    return figure


@styled
def plot_patients(images_each: pd.DataFrame) -> Figure:
    """How many images a patient has; `images_each`: `split, images_each, patients`."""
    data = require(images_each, "split images_each patients").sort_values("images_each", ascending=False)
    by_split = data.groupby("split")["patients"]
    share = 100 * by_split.cumsum() / by_split.transform("sum")
    figure, (ax,) = panels(1, height=2.2)
    draw_lines(ax, data.assign(share=share), "images_each", "share", "split")
    ax.set(xscale="log", yscale="log", xlabel="images of a patient, at least", title="share of the split's patients, %")
    for axis in (ax.xaxis, ax.yaxis):
        axis.set_major_formatter(_PLAIN)
        axis.set_minor_formatter(NullFormatter())
    legend(figure, sorted(data["split"].unique(), key=["train", "val", "test"].index))
    return figure


@styled
def plot_duplicates(histogram: pd.DataFrame, threshold: float) -> Figure:
    """How alike pairs of images are, of one patient and of two; `histogram`: `r, same, different` (counts)."""
    counts = require(histogram, "r same different").set_index("r").loc[lambda table: table.sum(axis=1) > 0]
    counts.columns = counts.columns.map({"same": "pairs of one patient", "different": "pairs of two patients"})
    shares = (100 * counts / counts.sum()).replace(0, np.nan).reset_index()
    shares = shares.melt("r", var_name="pairs", value_name="share")
    figure, (ax,) = panels(1, height=2.2)
    draw_lines(ax, shares.assign(low=shares["share"], high=shares["share"]), "r", "share", "pairs", bars=True)
    ax.axvline(threshold, color=GREY, lw=1, ls=DOTTED)
    ax.set(yscale="log", xlabel=f"correlation of fine detail; dotted: nearly identical from {threshold:g}",
           title="share of such pairs per bin, %")  # fmt: skip
    ax.yaxis.set_major_formatter(_PLAIN)
    ax.yaxis.set_minor_locator(NullLocator())
    legend(figure, counts.columns)
    return figure


@styled
def plot_effects(effects: pd.DataFrame, column: str = "apart") -> Figure:
    """What each operation of each policy does alone; `effects`: `policy, operation, mean_change, apart`.

    column: `mean_change` of a pixel when it acts, or `apart`: 1 − correlation of two views that it draws.
    """
    data = require(effects, f"policy operation {column}")
    table = data.pivot_table(index="operation", columns="policy", values=column, sort=False)
    titles = {"mean_change": "mean change of a pixel, % of black to white", "apart": "1 − correlation of two views, %"}
    figure, (ax,) = panels(1, height=0.24 * len(table) + 0.7)
    sns.heatmap(100 * table, annot=True, fmt=".1f", cmap="Blues", vmax=130 * table.max().max(), cbar=False, ax=ax)
    ax.set(xlabel="", ylabel="", title=titles[column])
    ax.tick_params(length=0)
    ax.grid(visible=False)
    return figure
