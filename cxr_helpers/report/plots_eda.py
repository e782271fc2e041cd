"""Figures of the data and of what a policy does to them: classes, labels that meet, greys, patients, duplicates."""

from __future__ import annotations

import pandas as pd
from matplotlib.figure import Figure

from .style import heat, legend, panels, require, row_figure, styled

__all__ = ["plot_balance", "plot_cooccurrence", "plot_effects"]


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
        ax.xaxis.set_major_formatter("{x:g}")
    legend(figure, data["split"].unique())
    return figure


@styled
def plot_cooccurrence(pairs: pd.DataFrame) -> Figure:
    """Which labels meet: hundredths of phi, 0 as often as by chance; `pairs`: `a, b, phi`, each pair once."""
    data = require(pairs, "a b phi")
    both = pd.concat([data, data.rename(columns={"a": "b", "b": "a"})])
    phi = (100 * both.pivot_table(index="a", columns="b", values="phi")).round() + 0.0  # no -0
    order = phi.sum().sort_values(ascending=False).index
    title = "correlation of two labels in train, hundredths"
    figure, (ax,) = panels(1, height=4.2)
    heat(ax, phi.loc[order, order], title, fmt=".0f", cmap="RdBu_r", center=0)
    return figure


@styled
def plot_effects(effects: pd.DataFrame) -> Figure:
    """How unlike each operation of each policy makes two views alone; `effects`: `policy, operation, apart`."""
    data = require(effects, "policy operation apart")
    table = 100 * data.pivot_table(index="operation", columns="policy", values="apart", sort=False)
    figure, (ax,) = panels(1, height=0.24 * len(table) + 0.7)
    title = "1 − correlation of two views, %"
    heat(ax, table, title, fmt=".1f", cmap="Blues", vmax=1.3 * table.max().max())
    return figure
