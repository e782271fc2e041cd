"""Figures: every one of one and of three seeds, for each task, with named axes, fixed colours and no open state."""

from __future__ import annotations

import io
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import matplotlib as mpl
import numpy as np
import pandas as pd
import pytest
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from studies import make_run, make_study

from cxr_helpers import plots
from cxr_helpers.plots import drawing
from cxr_helpers.report import tables
from cxr_helpers.report.published import published_table


def _figures(runs: list) -> dict[str, Figure]:  # type: ignore[type-arg]
    histories = tables.history_table(runs)
    pretext = histories[histories.family.isin(["simclr", "vicreg"])]
    summary = tables.summary_table(runs, num_resamples=50)
    return {
        "training": plots.plot_training(pretext),
        "online": plots.plot_online(histories),
        "collapse": plots.plot_collapse(pretext),
        "probe": plots.plot_probe_curve(tables.probe_curve_table(runs)),
        "forest": plots.plot_table_forest(summary, published_table("pneumoniamnist")),
    }


@pytest.mark.parametrize(("seeds", "labels"), [((0, 1, 2), 1), ((0,), 3)])
def test_every_figure_of_a_study_draws_and_names_its_axes(tmp_path: Path, seeds: tuple[int, ...], labels: int) -> None:
    for name, figure in _figures(make_study(tmp_path, seeds, labels)).items():
        figure.savefig(io.BytesIO(), format="png", dpi=40)
        assert figure.axes, name
        for ax in figure.axes:
            assert ax.get_xlabel(), name
            assert ax.get_ylabel() or name == "forest", name
            assert not ax.get_title(), name


def test_plots_leave_no_open_figure_and_no_changed_style(tmp_path: Path) -> None:
    from matplotlib import pyplot

    before, opened = dict(mpl.rcParams), pyplot.get_fignums()
    _figures(make_study(tmp_path, (0,)))
    assert pyplot.get_fignums() == opened and dict(mpl.rcParams) == before


def _colours(figure: Figure) -> set[str]:
    return {to_hex(line.get_color()) for ax in figure.axes for line in ax.lines}


def test_a_method_has_the_same_colour_in_every_figure(tmp_path: Path) -> None:
    figures = _figures([make_run(tmp_path, method="vicreg", seed=s) for s in (0, 1)])
    for name, figure in figures.items():
        colours = _colours(figure) - {to_hex("#555555"), to_hex("#999999"), to_hex("#777777")}
        assert colours == {to_hex(drawing.COLOURS["vicreg"])}, name
    kinds = [[c for name, c in drawing.COLOURS.items() if name.startswith("policy:") == kind] for kind in (True, False)]
    assert all(len(set(colours)) == len(colours) for colours in kinds)  # encoders and policies share no figure


def test_an_encoder_has_the_same_dashes_whatever_comes_first() -> None:
    rows = [(name, "simclr") for name in ("SimCLR from ImageNet", "SimCLR", "SimCLR, longer")] + [("VICReg", "vicreg")]
    table = pd.DataFrame(rows, columns=["label", "family"])
    there = plots.configurations(table)
    back = plots.configurations(table.iloc[::-1])
    assert [label for label, _, _ in there] == list(table.label) and there == back[::-1]
    looks = {label: dashes for label, _, dashes in there}
    assert looks["SimCLR"] == looks["VICReg"] == "-" and len({str(d) for d in looks.values()}) == 3


def test_the_two_losses_never_share_an_axis(tmp_path: Path) -> None:
    histories = tables.history_table(make_study(tmp_path, (0,)))
    figure = plots.plot_training(histories[histories.family.isin(["simclr", "vicreg"])])
    for ax in figure.axes:
        if "loss" in ax.get_ylabel() or "term" in ax.get_ylabel():
            assert len({to_hex(line.get_color()) for line in ax.lines}) == 1


def test_the_bold_line_is_the_mean_of_the_seeds(tmp_path: Path) -> None:
    histories = tables.history_table([make_run(tmp_path, seed=s) for s in range(3)])
    axis = plots.plot_training(histories).axes[0]
    bold = max(axis.lines, key=lambda line: line.get_linewidth())
    expected = histories.groupby("epoch").loss.mean()
    np.testing.assert_allclose(np.asarray(bold.get_ydata(), dtype=float), expected.to_numpy())
    assert len(axis.lines) == 4


def test_names_at_the_ends_of_lines_do_not_touch() -> None:
    rows = [
        {"label": f"encoder {i}", "family": "simclr", "seed": 0, "epoch": e, "val_auc": 0.9 + 1e-4 * i, "val_loss": 1.0}
        for i in range(5)
        for e in (1, 2)
    ]
    figure = plots.plot_probe_curve(pd.DataFrame(rows))
    figure.draw_without_rendering()
    boxes = sorted((t.get_window_extent() for t in figure.axes[1].texts), key=lambda box: box.y0)
    assert len(boxes) == 5
    assert all(low.y1 <= high.y0 + 1 for low, high in pairwise(boxes))


@pytest.mark.parametrize(("low", "high"), [(0.38, 0.996), (0.97, 0.999), (0.55, 0.62), (0.5, 1.0), (0.7, 0.7)])
def test_an_axis_of_shares_holds_all_values_with_at_least_two_ticks(low: float, high: float) -> None:
    axis = Figure().subplots()
    drawing.share_axis(axis, pd.Series([low, high]))
    bottom, top = axis.get_ylim()
    assert bottom <= low and top >= min(high, 0.9995)
    assert sum(bottom <= tick <= top for tick in axis.get_yticks()) >= 2


def test_the_forest_draws_published_figures_hollow_and_without_interval(tmp_path: Path) -> None:
    summary = tables.summary_table([make_run(tmp_path)], num_resamples=50)
    anchors = published_table("pneumoniamnist")
    axis = plots.plot_table_forest(summary, anchors).axes[0]
    hollow = [line for line in axis.lines if line.get_marker() == "D"]
    assert len(hollow) == len(anchors)
    assert all(line.get_markerfacecolor() == "white" for line in hollow)
    assert (
        len([line for line in axis.lines if len(np.asarray(line.get_xdata())) == 2 and line.get_linewidth() > 2]) == 1
    )


@pytest.mark.parametrize("plot", [plots.plot_training, plots.plot_online, plots.plot_collapse, plots.plot_probe_curve])
def test_two_data_sets_are_never_drawn_into_one_figure(tmp_path: Path, plot: Callable[..., Figure]) -> None:
    runs = [make_run(tmp_path, dataset=name) for name in ("phantom", "pneumoniamnist")]
    table = tables.probe_curve_table(runs) if plot is plots.plot_probe_curve else tables.history_table(runs)
    with pytest.raises(ValueError, match="one data set at one size"):
        plot(table)


def test_a_plot_without_rows_is_refused_in_words() -> None:
    with pytest.raises(ValueError, match="must have rows"):
        plots.plot_online(pd.DataFrame())
