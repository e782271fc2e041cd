"""Figures of the data: balance, labels that meet, pixels, similarity, patients. Tables in, `Figure` out.

One colour and one mark per split on every figure, so that it is named once.
"""

from __future__ import annotations

import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, MaxNLocator, NullFormatter, NullLocator

from ..eda.labels import NONE
from ..eda.pixels import ALL
from ..report.tables import rows_of
from .drawing import panel_grid, require, styled

__all__ = [
    "plot_balance",
    "plot_cardinality",
    "plot_cooccurrence",
    "plot_duplicate_similarity",
    "plot_levels",
    "plot_patients",
    "plot_pixels",
]

_PALETTE = sns.color_palette("colorblind").as_hex()
SPLIT_STYLE = {"train": ("#333333", "o"), "val": (_PALETTE[1], "^"), "test": (_PALETTE[9], "s")}
_SHIFT = {"train": -0.24, "val": 0.0, "test": 0.24}  # rows apart, so that three intervals do not cover each other


def _handles(*, lines: bool = False, marks: bool = True) -> list[Line2D]:
    """What stands for each split in a legend."""
    return [
        Line2D([], [], color=colour, marker=mark if marks else "", linestyle="-" if lines else "none", markersize=5,
               label=name)
        for name, (colour, mark) in SPLIT_STYLE.items()
    ]  # fmt: skip


def _legend(ax: Axes, *, lines: bool = False) -> None:
    """The splits in their order, in one row above the axes."""
    handles = _handles(lines=lines)
    ax.legend(
        handles=handles, loc="lower left", bbox_to_anchor=(0, 1), ncols=3, frameon=False, fontsize=8.5,
        handletextpad=0.4, columnspacing=1.4, borderaxespad=0.1,
    )  # fmt: skip


def _rows_axis(ax: Axes, names: list[str]) -> None:
    ax.set_yticks(range(len(names)), names)
    ax.set_ylim(len(names) - 0.4, -0.6)
    ax.grid(axis="y", visible=False)


@styled
def plot_balance(counts: pd.DataFrame) -> Figure:
    """Share of each class in the three splits with 95 % intervals, and the numbers of images beside it.

    Args:
        counts: `class_counts`'s rows; a logarithmic axis where the classes lie further apart than 1 to 20.
    """
    require(counts, ["split", "class", "images", "share", "low", "high"])
    train = counts[counts.split == "train"].set_index("class").share
    names = [str(name) for name in train.drop(NONE, errors="ignore").sort_values(ascending=False).index]
    names += [NONE] if NONE in train else []
    figure = Figure(figsize=(7.2, 1.1 + 0.36 * len(names)), layout="constrained")
    ax = figure.subplots()
    for row in rows_of(counts.rename(columns={"class": "label"})):
        colour, mark = SPLIT_STYLE[row.split]
        y = names.index(row.label) + _SHIFT[row.split]
        ax.plot([100 * row.low, 100 * row.high], [y, y], color=colour, linewidth=1.6, solid_capstyle="butt")
        ax.plot(100 * row.share, y, mark, color=colour, markersize=4.5)
    for y, name in enumerate(names):
        images = counts[counts["class"] == name].set_index("split").images
        text = " / ".join(f"{images[split]:,}" for split in SPLIT_STYLE)
        ax.annotate(text, (1, y), xycoords=("axes fraction", "data"), xytext=(6, 0), textcoords="offset points",
                    va="center", fontsize=8)  # fmt: skip
    ax.annotate("images: train / val / test", (1, 1), xycoords="axes fraction", xytext=(6, 3),
                textcoords="offset points", va="bottom", fontsize=8, color="#555555")  # fmt: skip
    found = counts.share[counts.share > 0]
    if found.max() > 20 * found.min():
        ax.set_xscale("log")
        ax.xaxis.set_major_formatter(FuncFormatter(lambda v, _: f"{v:g}"))
        ax.xaxis.set_minor_formatter(NullFormatter())
    else:
        ax.set_xlim(left=0)
    _rows_axis(ax, names)
    ax.set_xlabel("share of the split's images (%), 95 % interval")
    _legend(ax)
    return figure


# ---- several labels


@styled
def plot_cardinality(table: pd.DataFrame) -> Figure:
    """Share of images with 0, 1, 2 … labels, per split, on a logarithmic axis.

    Args:
        table: `cardinality_table`'s rows.
    """
    require(table, ["split", "labels", "share"])
    figure = Figure(figsize=(4.4, 2.7), layout="constrained")
    ax = figure.subplots()
    for split, (colour, mark) in SPLIT_STYLE.items():
        rows = table[(table.split == split) & (table.share > 0)]
        ax.plot(rows.labels, 100 * rows.share, color=colour, marker=mark, markersize=4.5, linewidth=1.3)
    ax.set_yscale("log")
    ax.yaxis.set_major_formatter(FuncFormatter(lambda v, _: f"{v:g}"))
    ax.yaxis.set_minor_locator(NullLocator())
    ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    ax.set_xlabel("labels of an image")
    ax.set_ylabel("share of the split's images (%)")
    _legend(ax, lines=True)
    return figure


@styled
def plot_cooccurrence(pairs: pd.DataFrame, counts: pd.DataFrame, split: str = "train") -> Figure:
    """Which labels meet: colour is phi (0: as often as by chance), the number is images with both.

    Args:
        pairs: `cooccurrence_table`'s rows.
        counts: `class_counts`'s rows of the same data; the most frequent label comes first.
        split: the one that `pairs` counts.
    """
    require(pairs, ["a", "b", "both", "phi"])
    own = counts[(counts.split == split) & (counts["class"] != NONE)].sort_values("images", ascending=False)
    names = [str(name) for name in own["class"]]
    at = {name: i for i, name in enumerate(names)}
    phi = np.full((len(names), len(names)), np.nan)
    side = max(4.2, 0.42 * len(names) + 1.4)
    figure = Figure(figsize=(side, 0.92 * side), layout="constrained")
    ax = figure.subplots()
    limit = max(float(pairs.phi.abs().max()), 1e-3)
    for row in rows_of(pairs):
        low, high = sorted((at[row.a], at[row.b]))
        phi[high, low] = row.phi
        dark = abs(row.phi) > 0.6 * limit
        ax.text(low, high, f"{row.both}", ha="center", va="center", fontsize=7.5, color="white" if dark else "#333333")
    for name, images in zip(names, own.images, strict=True):
        ax.text(
            at[name], at[name], f"{images:,}", ha="center", va="center", fontsize=7.5, color="#333333", weight="bold"
        )
    image = ax.imshow(phi, cmap="RdBu_r", vmin=-limit, vmax=limit)
    ax.set_xticks(range(len(names)), names, rotation=45, ha="right", rotation_mode="anchor")
    ax.set_yticks(range(len(names)), names)
    ax.grid(visible=False)
    ax.tick_params(length=0)
    for spine in ax.spines.values():
        spine.set_visible(False)
    inset = ax.inset_axes((0.5, 0.9, 0.44, 0.03))
    bar = figure.colorbar(image, cax=inset, orientation="horizontal")
    bar.outline.set_visible(False)  # type: ignore[operator]
    bar.ax.tick_params(labelsize=7.5, length=2)
    bar.ax.xaxis.set_major_locator(MaxNLocator(nbins=5, symmetric=True))
    ax.text(0.5, 0.945, "phi, correlation of the two labels", transform=ax.transAxes, fontsize=8)
    ax.text(0.5, 0.80, f"number: {split} images with both;\ndiagonal: images with the label", va="top",
            transform=ax.transAxes, fontsize=8)  # fmt: skip
    return figure


# ---- pixels


@styled
def plot_levels(levels: pd.DataFrame) -> Figure:
    """Histogram of the pixels: all images first, then each class over a grey shade of all train images.

    Args:
        levels: `level_table`'s rows.
    """
    require(levels, ["split", "class", "level", "share"])
    names = [str(name) for name in levels["class"].unique()]
    columns = 3 if len(names) <= 3 else 4
    figure, axes = panel_grid(len(names), columns, (2.4, 1.9) if columns == 3 else (1.8, 1.4))
    everyone = levels[(levels.split == "train") & (levels["class"] == ALL)]
    top = 130 * float(levels.share.quantile(0.99))  # room for the name; a bin of black borders may stand out of it
    rows = -(-len(names) // columns)
    for i, (ax, name) in enumerate(zip(axes, names, strict=True)):
        ax.fill_between(everyone.level, 100 * everyone.share, color="#dddddd", linewidth=0)
        for split, (colour, _) in SPLIT_STYLE.items():
            part = levels[(levels.split == split) & (levels["class"] == name)]
            ax.plot(part.level, 100 * part.share, color=colour, linewidth=1.2)
        ax.text(0.04, 0.95, name, transform=ax.transAxes, fontsize=8.5, va="top")
        ax.set_xlim(0, 1)
        ax.set_ylim(0, top)
        ax.set_xticks([0, 0.5, 1], ["0", ".5", "1"])
        ax.yaxis.set_major_locator(MaxNLocator(nbins=3, integer=True))
        ax.tick_params(labelleft=i % columns == 0, labelbottom=i // columns == rows - 1 or i + columns >= len(names))
    figure.supxlabel("grey level (0 black, 1 white); shade: all train images", fontsize=9.5)
    figure.supylabel("pixels per bin (%)", fontsize=9.5)
    figure.legend(handles=_handles(lines=True, marks=False), loc="outside upper left", ncols=3, frameon=False)
    return figure


@styled
def plot_pixels(table: pd.DataFrame) -> Figure:
    """Brightness (mean) and contrast (sd) of the images per class and split, each averaged over images, with its sd.

    Args:
        table: `pixel_table`'s rows; the channels of colour images are averaged.
    """
    require(table, ["split", "class", *(values := ["mean", "mean_sd", "contrast", "contrast_sd"])])
    names = [str(name) for name in table["class"].unique()]
    figure = Figure(figsize=(7.2, 1.1 + 0.32 * len(names)), layout="constrained")
    axes = figure.subplots(1, 2, sharey=True)
    averaged = table.groupby(["split", "class"], sort=False)[values].mean().reset_index()
    for row in rows_of(averaged.rename(columns={"class": "label"})):
        colour, mark = SPLIT_STYLE[row.split]
        y = names.index(row.label) + _SHIFT[row.split]
        for ax, centre, sd in zip(axes, (row.mean, row.contrast), (row.mean_sd, row.contrast_sd), strict=True):
            ax.plot([centre - sd, centre + sd], [y, y], color=colour, linewidth=1.4, alpha=0.6, solid_capstyle="butt")
            ax.plot(centre, y, mark, color=colour, markersize=4.5)
    _rows_axis(axes[0], names)
    axes[1].grid(axis="y", visible=False)
    axes[1].tick_params(labelleft=False)
    axes[0].set_xlabel("brightness: mean of an image's pixels\n(bar: ± sd between images)")
    axes[1].set_xlabel("contrast: sd of an image's pixels\n(bar: ± sd between images)")
    _legend(axes[0])
    return figure


# ---- duplicates and patients


@styled
def plot_duplicate_similarity(histogram: pd.DataFrame, threshold: float) -> Figure:
    """How similar pairs of images are: of one patient, and of two.

    Args:
        histogram: of `Similarities`.
        threshold: of `Similarities`.
    """
    require(histogram, ["r", "same", "different"])
    figure = Figure(figsize=(5.4, 2.8), layout="constrained")
    ax = figure.subplots()
    known = bool(histogram.same.any())
    kinds = {"different": (_PALETTE[9], "pairs of two patients" if known else "all pairs (patients unknown)")}
    kinds |= {"same": (_PALETTE[3], "pairs of one patient")} if known else {}
    for column, (colour, name) in kinds.items():
        shares = histogram[column] / histogram[column].sum()
        label = f"{name} ({int(histogram[column].sum()):,})"
        ax.plot(histogram.r, shares.where(shares > 0), ".-", color=colour, markersize=4, linewidth=1, label=label)
    ax.axvline(threshold, color="#555555", linewidth=0.9, linestyle=(0, (1, 2)))
    ax.annotate(f"nearly identical\nfrom {threshold:g}", (threshold, 1), xycoords=("data", "axes fraction"),
                xytext=(-3, -2), textcoords="offset points", ha="right", va="top", fontsize=7.5,
                color="#555555")  # fmt: skip
    ax.set_yscale("log")
    ax.yaxis.set_minor_locator(NullLocator())
    met = histogram.r[histogram.same + histogram.different > 0]
    ax.set_xlim(float(met.min()) - 0.02, 1.02)
    ax.set_xlabel("correlation of fine detail")
    ax.set_ylabel("share of such pairs\nper bin")
    ax.legend(loc="lower left", bbox_to_anchor=(0, 1), frameon=False, fontsize=8.5, borderaxespad=0.1)
    return figure


@styled
def plot_patients(images_each: pd.DataFrame, shared: pd.DataFrame) -> Figure:
    """How many images a patient has, and how many images of a split show a patient of another one.

    Args:
        images_each: `images_per_patient`'s rows.
        shared: `shared_patients`'s rows.
    """
    require(images_each, ["split", "images_each", "patients"])
    require(shared, ["split", "other", "images", "of", "share"])
    figure = Figure(figsize=(7.2, 2.7), layout="constrained")
    left, right = figure.subplots(1, 2, width_ratios=(1, 1.15))
    for split, (colour, mark) in SPLIT_STYLE.items():
        rows = images_each[images_each.split == split].sort_values("images_each")
        at_least = rows.patients[::-1].cumsum()[::-1] / rows.patients.sum()
        left.plot(rows.images_each, 100 * at_least, color=colour, marker=mark, markersize=3.5, linewidth=1)
    left.set_xscale("log")
    left.set_yscale("log")
    for axis in (left.xaxis, left.yaxis):
        axis.set_major_formatter(FuncFormatter(lambda v, _: f"{v:g}"))
        axis.set_minor_formatter(NullFormatter())
    left.set_xlabel("images of a patient, at least")
    left.set_ylabel("share of the split's patients (%)")
    _legend(left, lines=True)
    for y, row in enumerate(rows_of(shared)):
        right.barh(y, 100 * row.share, height=0.55, color=SPLIT_STYLE[row.split][0])
        right.annotate(f"{row.images:,} of {row.of:,}", (100 * row.share, y), xytext=(4, 0), va="center",
                       textcoords="offset points", fontsize=8)  # fmt: skip
    _rows_axis(right, [f"{row.split}, patient in {row.other}" for row in rows_of(shared)])
    right.set_xlim(0, max(10.0, 140 * float(shared.share.max())))
    right.set_xlabel("share of the split's images (%)")
    return figure
