"""Figures hold the data they are given, show an encoder alike everywhere, and keep their words apart and readable."""

import io
from itertools import combinations

import matplotlib as mpl
import numpy as np
import pandas as pd
import pytest
from matplotlib.axes import Axes
from matplotlib.colors import to_hex
from matplotlib.figure import Figure

from cxr_helpers.report import plots, plots_eda, style

TWO = ("SimCLR", "VICReg")
SIX = (*TWO, "SimCLR from ImageNet*", "ImageNet* fine-tuned", "Supervised", "Untrained")


def history(*encoders: str) -> pd.DataFrame:
    epochs, parts = np.arange(1.0, 7), []
    for i, encoder in enumerate(encoders):
        for seed in (0, 1):
            rows = {"epoch": epochs, "loss": 6 - epochs / 2 + seed, "lr": epochs / 1000, "effective_rank": 90 - epochs}
            rows |= {"online_auc": 1 - (0.5 + 0.01 * i) / epochs}
            rows |= {"variance": 1 / epochs, "covariance": 2} if encoder == "VICReg" else {}
            parts.append(pd.DataFrame({**rows, "encoder": encoder, "seed": seed, "seconds": 60}))
    return pd.concat(parts)


def summary(*encoders: str, dataset: str = "phantom") -> pd.DataFrame:
    value = np.linspace(0.99, 0.9, len(encoders))
    table = pd.DataFrame({"encoder": encoders, "dataset": dataset, "metric": "auc", "value": value})
    table = table.assign(low=value - 0.01)
    return table.assign(high=value + 0.005, values=[(v,) if i == 0 else (v, v + 0.002) for i, v in enumerate(value)])


@pytest.fixture(scope="module")
def shown() -> dict[str, Figure]:
    few = [(e, f, 1000 * f, 0.9 + 0.001 * i + 0.05 * f, 0.01) for i, e in enumerate(SIX) for f in (0.01, 0.1, 1.0)]
    curve = pd.DataFrame(few, columns=["encoder", "fraction", "num_labels", "mean", "sd"])
    labels = pd.DataFrame({"encoder": "SimCLR", "name": ["hernia", "edema"], "auc": [0.6, 0.9], "support": [25, 1068]})
    control = pd.DataFrame({"control": ["as measured", "frame", "greys"], "kind": ["measured", "removed", "alone"]})
    control = pd.concat([control.assign(encoder=e, auc=[v, v, 0.7]) for e, v in zip(TWO, (0.9, 0.8), strict=True)])
    counts = pd.DataFrame({"split": ["train", "test"] * 2, "class": np.repeat(["ill", "well"], 2), "images": 900})
    operating = pd.DataFrame({"encoder": TWO, "tp": 380.67, "fn": 9.33, "fp": 70.33, "tn": 163.67, "ece": 0.1})
    return {
        "training": plots.plot_training(history(*TWO)),
        "online": plots.plot_online(history(*SIX)),
        "methods": plots.plot_methods(history(*TWO)),
        "forest": plots.plot_forest(summary(*SIX)),
        "slopes": plots.plot_slopes(pd.concat([summary(*SIX), summary(*SIX, dataset="other")])),
        "label curve": plots.plot_label_curve(curve),
        "confusion": plots.plot_confusion(operating),
        "labels": plots.plot_labels(labels.assign(low=0.5, high=0.95)),
        "controls": plots.plot_controls(control.assign(split="test", low=0.6, high=0.95)),
        "balance": plots_eda.plot_balance(counts.assign(share=[0.9, 0.8, 0.02, 0.05], low=0.01, high=0.95)),
    }


def words(figure: Figure) -> dict[mpl.text.Text, mpl.transforms.Bbox]:
    """Every text that is seen, and its place without the line that ties it to its point."""
    figure.draw_without_rendering()
    unseen: set[mpl.text.Text] = set()
    for axis in (axis for ax in figure.axes for axis in (ax.xaxis, ax.yaxis)):
        low, high = sorted(axis.get_view_interval())
        ticks = zip(axis.get_ticklabels(), axis.get_ticklocs(), strict=False)
        unseen |= {label for label, at in ticks if not low <= at <= high}
    found = {text for text in figure.findobj(mpl.text.Text) if text.get_text() and text.get_visible()} - unseen
    places = {text: mpl.text.Text.get_window_extent(text) for text in found}
    return {text: box for text, box in places.items() if box.width > 1}


def drawn(ax: Axes, colour: str) -> list[np.ndarray]:
    return [np.asarray(line.get_xydata(), float) for line in ax.lines if to_hex(line.get_color()) == colour]


def test_words_are_apart_inside_and_readable_on_a_phone_in_every_figure(shown: dict[str, Figure]) -> None:
    for name, figure in shown.items():
        found = words(figure)
        for (a, box), (b, other) in combinations(found.items(), 2):
            assert not box.padded(-1).overlaps(other.padded(-1)), f"{name}: {a.get_text()!r} and {b.get_text()!r}"
        assert all(box.x0 > -1 and box.x1 < figure.bbox.x1 + 1 for box in found.values()), name
        assert figure.get_figwidth() == style.WIDTH, name
        assert min(float(text.get_fontsize()) for text in found) / 72 * (390 - 32) / style.WIDTH >= 9, name


def test_lines_are_means_a_forest_marks_single_seeds_and_cells_are_whole_images(shown: dict[str, Figure]) -> None:
    upper, lower = shown["online"].axes
    mean = history("SimCLR").groupby("epoch")["online_auc"].mean()
    np.testing.assert_allclose(drawn(upper, style.colour_of("SimCLR"))[0][:, 1], mean)
    assert not drawn(lower, style.colour_of("SimCLR")) and drawn(lower, style.colour_of("Supervised"))
    ax = shown["forest"].axes[0]
    assert [label.get_text() for label in ax.get_yticklabels()][:2] == ["SimCLR†", "SimCLR from ImageNet*"]
    assert [text.get_text() for text in ax.texts] == ["0.990", "0.954", "0.972", "0.936", "0.918", "0.900"]
    cells = [text.get_text().split("\n")[0] for text in shown["confusion"].axes[0].texts]
    assert cells == ["381", "9", "70", "164"]


def test_data_that_a_figure_cannot_show_are_refused_in_words() -> None:
    with pytest.raises(ValueError, match="must have rows with encoder seed epoch, got 0 rows"):
        plots.plot_online(pd.DataFrame())


def test_a_figure_is_the_same_to_the_byte_every_time_and_leaves_no_style_behind() -> None:
    before, pictures = dict(mpl.rcParams), []
    for _ in range(2):
        buffer = io.BytesIO()
        plots.plot_online(history(*SIX)).savefig(buffer, format="png")
        pictures.append(buffer.getvalue())
    assert pictures[0] == pictures[1] and dict(mpl.rcParams) == before


def test_findings_have_a_row_each_whoever_is_drawn_with_the_first_ones_boxes() -> None:
    table = pd.DataFrame({"encoder": ["detector"] * 2 + ["reader"] * 2, "name": ["a", "b"] * 2,
                          "support": [3, 4, 9, 12], "value": [0.5, 0.4] * 2, "low": 0.3, "high": 0.6})  # fmt: skip
    (ax,) = plots.plot_labels(table, "AP").axes
    assert [tick.get_text() for tick in ax.get_yticklabels()] == ["a (3)", "b (4)"]
