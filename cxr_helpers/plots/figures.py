"""Figures of runs: one style, one colour per method on every page. Data in, `Figure` out; nothing is written.

Lines are labelled where they end; with several seeds each is a thin line, their mean a bold one, their range a band.
"""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd
from matplotlib.figure import Figure

from ..report.tables import resampled_unit, rows_of
from .drawing import (
    COLOURS,
    OTHER_COLOUR,
    End,
    configurations,
    draw_lines,
    name_lines,
    panel_grid,
    reference_line,
    require,
    share_axis,
    styled,
)

__all__ = ["COLOURS", "plot_collapse", "plot_online", "plot_probe_curve", "plot_table_forest", "plot_training"]


# ---- training


TERMS = {"invariance": "invariance term", "variance": "variance term (hinge)", "covariance": "covariance term"}
_NOT_TERMS = {"loss", "online_loss"}


@styled
def plot_training(histories: pd.DataFrame) -> Figure:
    """Pretext loss of each method in its own panel, then its terms, then the learning rate.

    Losses of different methods share no unit, so they share no axis.

    Args:
        histories: `history_table`'s rows of one data set.
    """
    require(histories, ["label", "family", "seed", "epoch", "loss", "lr"])
    panels: list[tuple[pd.DataFrame, str, str]] = []
    for label, _, _ in configurations(histories):
        panels.append((histories[histories.label == label], "loss", f"{label} loss"))
    for label, _, _ in configurations(histories):
        rows = histories[histories.label == label]
        panels += [(rows, t, f"{label} {name}") for t, name in TERMS.items() if t in rows and rows[t].notna().any()]
    figure, axes = panel_grid(len(panels) + 1)
    for ax, (rows, column, name) in zip(axes, panels, strict=False):
        draw_lines(ax, rows, column)
        ax.set_ylabel(name.replace(" term", "\nterm"))
        ax.set_ylim(*_padded(rows[column], floor=0.0 if column != "loss" else None))
    ends = draw_lines(axes[-1], histories, "lr")
    axes[-1].set_ylabel("learning rate")
    axes[-1].ticklabel_format(axis="y", style="sci", scilimits=(-3, -3))
    return name_lines(figure, ends)


def _padded(values: pd.Series, floor: float | None = None) -> tuple[float, float]:
    low, high = float(values.min()), float(values.max())
    margin = 0.06 * (high - (low if floor is None else floor)) or 0.1 * abs(high) or 0.1
    return (low - margin if floor is None else floor), high + margin


def _metric_columns(data: pd.DataFrame, prefix: str) -> tuple[str, str]:
    """(column, its name) of the main metric: accuracy where the classes exclude each other, else AUC."""
    for metric, name in (("auc", "AUC"), ("accuracy", "accuracy")):
        if f"{prefix}_{metric}" in data and data[f"{prefix}_{metric}"].notna().any():
            return f"{prefix}_{metric}", name
    raise ValueError(f"a plot's data must have the column {prefix}_auc or {prefix}_accuracy, got neither")


@styled
def plot_online(histories: pd.DataFrame) -> Figure:
    """Online probe and kNN on val after each epoch.

    Args:
        histories: `history_table`'s rows of one data set.
    """
    require(histories, ["label", "family", "seed", "epoch"])
    figure, axes = panel_grid(2, panel=(3.6, 2.6))
    ends: list[End] = []
    for ax, prefix, what in zip(axes, ("online", "knn"), ("online probe", "kNN on features"), strict=True):
        column, name = _metric_columns(histories, prefix)
        ends = draw_lines(ax, histories, column)
        share_axis(ax, histories[column])
        ax.set_ylabel(f"val {name}, {what}")
    return name_lines(figure, ends)


@styled
def plot_collapse(histories: pd.DataFrame) -> Figure:
    """Five figures that show a collapse before any label does, with what their reference values mean.

    Args:
        histories: `history_table`'s rows of one data set; methods without two embeddings have no last three panels.
    """
    require(histories, ["label", "family", "seed", "epoch", "feature_std", "effective_rank"])
    figure, axes = panel_grid(5, panel=(2.9, 2.3))
    ends: list[End] = []
    panels: Sequence[tuple[str, str, float, str]] = (
        ("feature_std", "std of features\n(val, unit rows)", 0.0, "0: all images alike"),
        ("effective_rank", "effective rank\nof features (val)", 1.0, "1: a single direction"),
        ("projection_std", "std of projections\n(VICReg wants 1)", 1.0, ""),
        ("alignment", "alignment (squared\ndistance of views)", 2.0, "2: views unrelated"),
        ("uniformity", "uniformity\n(log potential)", -4.0, "−4: spread over the sphere"),
    )
    for ax, (column, name, value, meaning) in zip(axes, panels, strict=True):
        rows = histories[histories[column].notna()] if column in histories else histories.iloc[:0]
        drawn = draw_lines(ax, rows, column) if len(rows) else []
        ends += drawn if column in ("projection_std", "uniformity") else []
        low, high = _padded(pd.concat([rows[column], pd.Series([value])]) if len(rows) else pd.Series([0.0, value]))
        ax.set_ylim(low - 0.04 * (high - low), high + 0.1 * (high - low))
        reference_line(ax, value, meaning, above=value != -4.0)
        ax.set_ylabel(name)
    return name_lines(figure, ends)


@styled
def plot_probe_curve(curves: pd.DataFrame) -> Figure:
    """A linear probe trained by SGD on frozen features: metric and loss on val over its epochs.

    Args:
        curves: `probe_curve_table`'s rows of one data set.
    """
    require(curves, ["label", "family", "seed", "epoch", "val_auc", "val_loss"])
    figure, axes = panel_grid(2, panel=(3.6, 2.6))
    draw_lines(axes[0], curves, "val_auc")
    share_axis(axes[0], curves["val_auc"])
    axes[0].set_ylabel("val AUC, SGD probe")
    ends = draw_lines(axes[1], curves, "val_loss")
    axes[1].set_ylabel("val loss (nats per image)")
    for ax in axes:
        ax.set_xlabel("epoch of the probe")
    return name_lines(figure, ends)


# ---- results


@styled
def plot_table_forest(rows: pd.DataFrame, anchors: pd.DataFrame | None = None) -> Figure:
    """Test metric of every configuration with its interval, one dot per seed, and published figures apart.

    Args:
        rows: `summary_table`'s rows of one data set.
        anchors: published figures of that data set (`label, value, protocol`), drawn hollow, without an interval.
    """
    require(rows, ["label", "family", "test_mean", "test_low", "test_high", "test_by_seed", "test_patients", "metric"])
    ours = rows.sort_values("test_mean", ascending=False)
    others = pd.DataFrame(columns=["label", "value", "protocol"]) if anchors is None else anchors
    others = others.sort_values("value", ascending=False)
    count = len(ours) + len(others)
    figure = Figure(figsize=(7.2, 0.9 + 0.3 * count), layout="constrained")
    ax = figure.subplots()
    labels = []
    for y, row in enumerate(rows_of(ours)):
        colour = COLOURS.get(row.family, OTHER_COLOUR)
        ax.plot([row.test_low, row.test_high], [y, y], color=colour, linewidth=2.2, solid_capstyle="butt")
        if row.num_seeds > 1:
            ax.plot(row.test_by_seed, [y - 0.26] * row.num_seeds, "|", color=colour, markersize=6, alpha=0.8)
        ax.plot(row.test_mean, y, "o", color=colour, markersize=6.5)
        labels.append(f"{row.label}{f', {row.num_seeds} seeds' if row.num_seeds > 1 else ''}")
        text = f"{row.test_mean:.3f}  [{row.test_low:.3f}, {row.test_high:.3f}]"
        ax.annotate(text, (1.0, y), xycoords=("axes fraction", "data"), xytext=(6, 0), textcoords="offset points",
                    va="center", fontsize=8.5)  # fmt: skip
    for y, anchor in enumerate(rows_of(others), start=len(ours)):
        ax.plot(anchor.value, y, "D", color="#777777", markerfacecolor="white", markersize=5.5)
        labels.append(anchor.label)
        ax.annotate(f"{anchor.value:.3f}  published", (1.0, y), xycoords=("axes fraction", "data"), xytext=(6, 0),
                    textcoords="offset points", va="center", fontsize=8.5, color="#777777")  # fmt: skip
    if len(others):
        ax.axhline(len(ours) - 0.5, color="#999999", linewidth=0.8)
    ax.set_yticks(range(count), labels)
    for tick in ax.get_yticklabels()[len(ours) :]:
        tick.set_color("#777777")
    ax.set_ylim(count - 0.4, -0.6)
    ax.grid(axis="y", visible=False)
    metric = "accuracy" if ours.metric.iloc[0] == "accuracy" else "ROC-AUC"
    ax.set_xlabel(f"test {metric}\n(mean of seeds, one tick per seed, 95 % interval over {resampled_unit(ours)})")
    return figure
