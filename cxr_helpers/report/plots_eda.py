"""Figures of the data and of what a policy does to them: classes, labels that meet, greys, patients, duplicates."""

from __future__ import annotations

import pandas as pd
import seaborn as sns
from matplotlib.figure import Figure
from matplotlib.ticker import StrMethodFormatter

from .style import legend, panels, require, row_figure, styled

__all__ = [
    "plot_balance",
    "plot_cooccurrence",
    "plot_effects",
]

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
