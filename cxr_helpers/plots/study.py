"""Figures of a study's questions: policies compared, labels saved, features mapped. Data in, `Figure` out."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

from .drawing import COLOURS, OTHER_COLOUR, End, configurations, name_lines, panel_grid, require, share_axis, styled

__all__ = ["plot_feature_maps", "plot_label_curve", "plot_policy_scores"]

SCORES = (
    ("online", "online probe\n(chosen on)"),
    ("knn", "kNN,\nlast epoch"),
    ("linear", "linear probe,\nfrozen"),
)


@styled
def plot_policy_scores(scores: pd.DataFrame) -> Figure:
    """Three views of every policy on val: the online probe, kNN and the offline probe; a tick per seed, a dot the mean.

    Args:
        scores: `policy_scores`'s rows of one data set.
    """
    require(scores, ["policy", "seed", "metric", *(column for column, _ in SCORES)])
    order = scores.groupby("policy")["online"].mean().sort_values(ascending=False).index
    figure = Figure(figsize=(7.6, 0.9 + 0.34 * len(order)), layout="constrained")
    axes = list(np.ravel(figure.subplots(1, len(SCORES), sharey=True, squeeze=False)))
    for ax, (column, name) in zip(axes, SCORES, strict=True):
        for y, policy in enumerate(order):
            values = scores.loc[scores["policy"] == policy, column]
            colour = COLOURS.get(f"policy:{policy}", OTHER_COLOUR)
            ax.plot(values, [y] * len(values), "|", color=colour, markersize=9, alpha=0.8)
            ax.plot(values.mean(), y, "o", color=colour, markersize=6)
        ax.set_xlabel(f"val {'accuracy' if scores.metric.iloc[0] == 'accuracy' else 'AUC'}, {name}")
        ax.grid(axis="y", visible=False)
        ax.locator_params(axis="x", nbins=4)
    axes[0].set_yticks(range(len(order)), order)
    axes[0].set_ylim(len(order) - 0.5, -0.5)
    return figure


@styled
def plot_label_curve(summary: pd.DataFrame, metric: str = "test AUC") -> Figure:
    """A metric against the number of training labels: mean over draws, bars of one sd, names at the right end.

    Args:
        summary: `label_summary`'s rows of one data set.
        metric: what the axis calls it.
    """
    require(summary, ["label", "family", "fraction", "num_labels", "mean", "sd"])
    figure, axes = panel_grid(1, panel=(5.2, 3.4))
    ax, ends = axes[0], []
    drawn = configurations(summary)
    counts = summary.groupby("fraction")["num_labels"].mean()
    ticks = counts.fillna(counts.index.to_series())
    places = summary["num_labels"].fillna(summary["fraction"].map(ticks))
    for i, (label, colour, dashes) in enumerate(drawn):
        rows = summary[summary["label"] == label].sort_values("fraction")
        x = places[rows.index] * 1.03 ** (i - (len(drawn) - 1) / 2)  # side by side, not atop
        ax.errorbar(
            x, rows["mean"], rows["sd"].fillna(0), color=colour, linestyle=dashes, marker="o", markersize=4, capsize=2
        )
        ends.append(End(ax, label, colour, float(x.iloc[-1]), float(rows["mean"].iloc[-1])))
    _label_axis(ax, counts, ticks)
    share_axis(ax, pd.concat([summary["mean"] - summary["sd"].fillna(0), summary["mean"] + summary["sd"].fillna(0)]))
    ax.set_ylabel(f"{metric} (mean, sd over label draws)")
    return name_lines(figure, ends)


def _label_axis(ax: Axes, counts: pd.Series, places: pd.Series) -> None:
    """Ticks at the places of each fraction, named by its count of labels where that is known."""
    ax.set_xscale("log")
    ax.xaxis.set_major_locator(FixedLocator(list(places)))
    ax.xaxis.set_minor_locator(NullLocator())
    names = {}
    for fraction, place, count in zip(places.index, places, counts, strict=True):
        share = f"{100 * fraction:g} %"
        names[float(place)] = share if np.isnan(count) else f"{count:,.0f}\n({share})"
    ax.xaxis.set_major_formatter(FuncFormatter(lambda value, _: names.get(float(value), f"{value:g}")))
    ax.set_xlabel("labelled training images")


@styled
def plot_feature_maps(maps: Mapping[str, pd.DataFrame]) -> Figure:
    """Val features of each encoder in two dimensions, one panel each, coloured by class.

    Args:
        maps: {encoder: `feature_map`'s rows}; all of one data set.
    """
    if not maps:
        raise ValueError("a plot's data must have at least one encoder's map, got none")
    figure, axes = panel_grid(len(maps), panel=(2.7, 2.5))
    classes = sorted({name for table in maps.values() for name in table["label"]})
    few = len(classes) <= 3
    palette = dict(zip(classes, sns.color_palette("colorblind" if few else "husl", len(classes)), strict=True))
    for ax, (label, table) in zip(axes, maps.items(), strict=True):
        shuffled = table.sample(frac=1, random_state=0)  # no class lies on top
        ax.scatter(
            shuffled["x"], shuffled["y"], s=6, c=[palette[v] for v in shuffled["label"]], alpha=0.7, linewidths=0
        )
        ax.set_title(label)
        ax.set_xticks([])
        ax.set_yticks([])
        sns.despine(ax=ax, left=True, bottom=True)
    handles = [axes[0].scatter([], [], s=18, color=palette[name], label=name) for name in classes]
    figure.legend(handles=handles, loc="outside lower center", ncols=min(5, len(classes)), frameon=False, fontsize=8.5)
    return figure
