"""Figures of trainings, of what they reached and what stands behind it: tidy tables in, a figure out, nothing written.

Lines are means over seeds and bands their range; bars are 95 % intervals, where an axis says nothing else; dotted is
what chance or a perfect encoder would do.
"""

from __future__ import annotations

from collections.abc import Sequence
from textwrap import fill

import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, NullLocator

from .style import DOTTED, GREY, Ends, colour_of, draw_lines, legend, name_lines, panels, require, row_figure, styled

__all__ = [
    *("plot_calibration", "plot_confusion", "plot_controls", "plot_forest", "plot_grid", "plot_label_curve"),
    *("plot_labels", "plot_methods", "plot_online", "plot_policies", "plot_slopes", "plot_training"),
]

METRICS = {"auc": "ROC-AUC", "accuracy": "accuracy"}
PROBES = {"online": "online probe", "knn": "kNN", "linear": "linear probe"}
STARTS = {"SimCLR": "SimCLR from ImageNet*", "VICReg": "VICReg from ImageNet*", "Supervised": "ImageNet* fine-tuned",
          "Untrained": "ImageNet*"}  # from random weights: the same from ImageNet's  # fmt: skip
TERMS = ("invariance", "variance", "covariance")
KINDS = {"measured": "", "removed": "the objection removed", "alone": "the objection alone", "nothing": "no signal"}
_SHARES = (0.5, 0.8, 0.9, 0.95, 0.98, 0.99, 0.995, 0.998)  # far enough apart on a logit axis
TEXT = "test ROC-AUC, 95 % interval; in brackets: positives in test"


def _draw_epochs(ax: Axes, histories: pd.DataFrame, column: str, title: str) -> Ends:
    """Mean and range over seeds of a column, per encoder; where the lines end. Shares near 1 get a logit axis."""
    share = column.endswith(tuple(METRICS))
    known = histories.assign(shown=histories[column].clip(upper=0.9995 if share else None)).dropna(subset=["shown"])
    found = known.groupby(["encoder", "epoch"], sort=False)["shown"]
    ends = draw_lines(ax, found.agg(value="mean", low="min", high="max").reset_index(), "epoch", "value")
    ax.set(xlabel="epoch", title=title)
    ax.xaxis.set_major_locator(MaxNLocator(4, integer=True, steps=[1, 2, 5, 10]))
    low, high = ax.dataLim.intervaly
    if share and high > 0.9:
        ax.set_yscale("logit")
        ticks = [tick for tick in _SHARES if low <= tick <= high] or [low, high]
        ax.set_yticks(ticks, [f"{tick:.4g}" for tick in ticks])
        ax.yaxis.set_minor_locator(NullLocator())
    return ends


def _metric_of(data: pd.DataFrame) -> str:
    """What the online probe measured: accuracy where classes exclude each other, else AUC."""
    return "accuracy" if "online_accuracy" in data else "auc"


@styled
def plot_training(histories: pd.DataFrame) -> Figure:
    """Each encoder's loss in a panel of its own, as losses share no unit, its terms, and the learning rate.

    histories: `encoder, seed, epoch, loss, lr` and the losses' terms.
    """
    data, losses, split = require(histories, "encoder seed epoch loss lr"), {}, {}
    for name, rows in data.groupby("encoder", sort=False):
        losses[fill(f"{name} loss", 22)] = rows
        terms = rows[["seed", "epoch", *(term for term in TERMS if term in rows)]].dropna(axis=1)
        if len(terms.columns) > 2:
            long = terms.melt(["seed", "epoch"], value_name="loss")
            split[f"{name} terms"] = long.assign(encoder=f"{name} " + long["variable"])
    split["learning rate, thousandths"] = data.assign(loss=1000 * data["lr"])
    figure, axes = panels(len(losses) + len(split))
    drawn = zip(axes, (losses | split).items(), strict=True)
    ends = {ax: _draw_epochs(ax, rows, "loss", title) for ax, (title, rows) in drawn}
    name_lines(figure, {ax: ends[ax] for ax in axes[len(losses) :]})
    return figure


@styled
def plot_online(histories: pd.DataFrame) -> Figure:
    """The online probe on val after each epoch; encoders that learn from labels in a panel of their own.

    histories: `encoder, seed, epoch` and the probe's figure.
    """
    data = require(histories, "encoder seed epoch")
    metric, groups = _metric_of(data), list(data.groupby(data["encoder"].str.contains("Supervised|fine-tuned")))
    figure, axes = panels(len(groups), columns=1, height=0.8 + 0.3 * max(4, data["encoder"].nunique() / len(groups)))
    ends = {}
    for ax, (labelled, rows) in zip(axes, groups, strict=True):
        kind = f", trained {'with' if labelled else 'without'} labels" if len(groups) > 1 else ""
        ends[ax] = _draw_epochs(ax, rows, f"online_{metric}", f"val {METRICS[metric]} by online probe{kind}")
    name_lines(figure, ends)
    return figure


@styled
def plot_methods(histories: pd.DataFrame) -> Figure:
    """Methods side by side: loss as a share of its first epoch's, online probe, effective rank, minutes of training.

    histories: `encoder, seed, epoch, loss, effective_rank, seconds` and the online probe's figure.
    """
    data = require(histories, "encoder seed epoch loss effective_rank seconds").sort_values("epoch", kind="stable")
    metric, runs = _metric_of(data), data.groupby(["encoder", "seed"], sort=False)
    share = 100 * data["loss"] / runs["loss"].transform("first")
    figure, axes = panels(4, height=1.7)
    _draw_epochs(axes[0], data.assign(loss=share), "loss", "loss, % of epoch 1")
    _draw_epochs(axes[1], data, f"online_{metric}", f"val {METRICS[metric]}, online probe")
    _draw_epochs(axes[2], data, "effective_rank", "effective rank of features")
    minutes = runs["seconds"].sum().div(60).reset_index()
    colours = {name: colour_of(name) for name in minutes["encoder"]}
    sns.stripplot(minutes, x="encoder", y="seconds", hue="encoder", palette=colours, jitter=False, ax=axes[3])
    axes[3].set(title="minutes of training", xlabel="a dot per seed", ylabel="")
    axes[3].set_ylim(0, 1.1 * minutes["seconds"].max())
    legend(figure, colours)
    return figure


def _in_pairs(summary: pd.DataFrame) -> pd.DataFrame:
    """Best first; an encoder and the same from ImageNet's weights below each other."""
    rows = summary.assign(pair=summary["encoder"].replace({imagenet: random for random, imagenet in STARTS.items()}))
    rows["best"] = rows.groupby("pair")["value"].transform("max")
    rows["name"] = rows["encoder"] + np.where(rows["values"].str.len() == 1, "†", "")
    return rows.sort_values(["best", "pair", "value"], ascending=False).reset_index(drop=True)


@styled
def plot_forest(summary: pd.DataFrame) -> Figure:
    """Test figure of every encoder with interval and seeds; random and ImageNet starts are joined.

    summary: `encoder, metric, value, low, high, values` of one data set.
    """
    rows = _in_pairs(require(summary, "encoder metric value low high values"))
    text = f"test {METRICS[rows['metric'].iloc[0]]}, 95 % interval; ticks: seeds; †: one seed"
    figure, ax = row_figure(rows, "name", "encoder", text, beside=rows["value"].map("{:.3f}".format).tolist())
    for name, pair in rows.groupby("pair"):
        ax.plot(pair["value"], pair.index, color=colour_of(str(name)), lw=0.8, ls=DOTTED, zorder=1)
    for y, (encoder, seeds) in enumerate(zip(rows["encoder"], rows["values"], strict=True)):
        if len(seeds) > 1:
            ax.plot(seeds, [y - 0.32] * len(seeds), "|", color=colour_of(encoder), ms=3.5, mew=0.9)
    return figure


@styled
def plot_slopes(summary: pd.DataFrame) -> Figure:
    """From random to ImageNet's weights: a line per method whose two ends are there, a panel per data set.

    summary: `encoder, dataset, metric, value, low, high`.
    """
    datasets, ends = summary["dataset"].unique(), {}
    figure, axes = panels(len(datasets), height=2.6)
    for ax, dataset in zip(axes, datasets, strict=True):
        found = require(summary[summary["dataset"] == dataset], "encoder metric value low high").set_index("encoder")
        pairs = [found.loc[list(pair)].assign(method=pair[0], x=[0.05 * i, 1 + 0.05 * i])
                 for i, pair in enumerate(STARTS.items()) if set(pair) <= set(found.index)]  # fmt: skip
        if pairs:
            ends[ax] = draw_lines(ax, pd.concat(pairs), "x", "value", "method", bars=True)
        ax.set_xticks([0.07, 1.07], ["random\nstart", "ImageNet*\nstart"])
        ax.set(title=f"{dataset}\ntest {METRICS[found['metric'].iloc[0]]}", xlim=(-0.15, 1.3))
    name_lines(figure, ends)
    return figure


@styled
def plot_grid(table: pd.DataFrame, rows: str, columns: str, text: str) -> Figure:
    """A heat map of `value` with its interval from `low` to `high` in every cell, one cell per row of the table.

    rows, columns: names of the table's columns that name them, in the order in which they come. text: what is shown.
    """
    data = require(table, f"{rows} {columns} value low high")
    words = data["value"].map("{:.3f}".format) + "\n[" + data["low"].map("{:.3f}".format) + ",\n"
    cells = data.assign(words=words + data["high"].map("{:.3f}".format) + "]")
    down, across = data[rows].unique(), data[columns].unique()
    grid, said = (cells.pivot(index=rows, columns=columns, values=v).loc[down, across] for v in ("value", "words"))
    figure, (ax,) = panels(1, height=0.62 * len(grid) + 0.7)
    sns.heatmap(grid.astype(float), annot=said, fmt="", cmap="crest", cbar=False, linewidths=2, ax=ax)
    ax.set(xlabel="", ylabel="", title=text)
    ax.tick_params(length=0, rotation=0)
    return figure


@styled
def plot_policies(scores: pd.DataFrame) -> Figure:
    """Each policy on val by three probes: a dot per seed, a line at their mean.

    scores: `policy, seed, metric, online, knn, linear`.
    """
    data = require(scores, "policy seed metric online knn linear")
    order = data.groupby("policy")["online"].mean().sort_values(ascending=False).index
    figure, axes = panels(3, columns=3, height=0.24 * len(order) + 0.65, sharey=True)
    for ax, (column, name) in zip(axes, PROBES.items(), strict=True):
        style = {"x": column, "y": "policy", "hue": "policy", "order": order, "legend": False, "ax": ax}
        style["palette"] = {policy: colour_of(policy) for policy in order}
        sns.stripplot(data, **style, jitter=False, size=4.5, alpha=0.6)
        sns.pointplot(data, **style, ls="none", marker="|", ms=13, mew=1.8, errorbar=None)
        ax.set(ylabel="", xlabel=f"{name},\nval {METRICS[data['metric'].iloc[0]]}")
        ax.xaxis.set_major_locator(MaxNLocator(2))
    return figure


@styled
def plot_label_curve(curve: pd.DataFrame) -> Figure:
    """Test AUC by the number of labelled images; curve: `encoder, fraction, num_labels, mean, sd` (over draws)."""
    data = require(curve, "encoder fraction num_labels mean sd").sort_values("fraction", kind="stable")
    counts, rank = data.groupby("fraction")["num_labels"].mean(), data["encoder"].factorize()[0]
    x = data["fraction"].map(counts) * 1.06 ** (rank - rank.max() / 2)  # beside, not on each other
    figure, (ax,) = panels(1, height=2.6)
    spread = data.assign(x=x, low=data["mean"] - data["sd"], high=data["mean"] + data["sd"])
    ends = draw_lines(ax, spread, "x", "mean", bars=True)
    ax.set(xscale="log", xlabel="labelled training images", title="test ROC-AUC, mean ± sd over draws of labels")
    shares = (100 * counts.index).map("({:g} %)".format)
    ax.set_xticks(counts, [f"{count:,.0f}\n{share}" for count, share in zip(counts, shares, strict=True)])
    ax.xaxis.set_minor_locator(NullLocator())
    name_lines(figure, {ax: ends})
    return figure


# ---- what stands behind a result


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
def plot_labels(labels: pd.DataFrame, text: str = TEXT) -> Figure:
    """AUC, or another `value`, of every label, best on top: `encoder, name, auc, low, high, support` (the first's)."""
    data = require(labels.rename(columns={"auc": "value"}), "encoder name value low high support")
    encoders = list(data["encoder"].unique())
    first = data[data["encoder"] == encoders[0]].sort_values("value", ascending=False).set_index("name")["support"]
    data = data.sort_values("name", key=lambda names: names.map([*first.index].index), kind="stable")
    data["name"] += data["name"].map(first.map(" ({:,.0f})".format))
    figure, ax = row_figure(data, "name", "encoder", text, step=0.13 + 0.09 * len(encoders))
    for y in range(0, len(first), 2):
        ax.axhspan(y - 0.5, y + 0.5, color="#f5f5f5", lw=0, zorder=0)
    if "auc" in labels:
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
