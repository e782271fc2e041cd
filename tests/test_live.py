"""The live figure: one output, replaced in place, cheap, and gone when the plan is through."""

from __future__ import annotations

import nbformat
import pandas as pd
import pytest
from nbclient import NotebookClient
from studies import history

from cxr_helpers import plots
from cxr_helpers.report import live

CELL = """
import pandas as pd
from cxr_helpers.report import LiveFigure
figure = LiveFigure(epochs=3, name="a run", family="simclr")
rows = [dict(epoch=e, loss=5.0 - e, online_auc=.7, knn_auc=.6, effective_rank=9.0, seconds=1.0) for e in (1, 2, 3)]
for count in (1, 2, 3):
    figure.epoch(pd.DataFrame(rows[:count]))
"""


@pytest.fixture
def shown(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, object]]:
    calls: list[tuple[str, object]] = []

    class Handle:
        def display(self, content: object, raw: bool = False) -> None:
            calls.append(("display", content))

        def update(self, content: object, raw: bool = False) -> None:
            calls.append(("update", content))

    monkeypatch.setattr(live, "DisplayHandle", Handle)
    return calls


def test_one_output_is_displayed_once_and_then_replaced(shown: list[tuple[str, dict[str, str]]]) -> None:
    figure, epochs = live.LiveFigure(epochs=6, name="SimCLR, seed 0", family="simclr"), history(6, "simclr", 0)
    for count in range(1, 7):
        figure.epoch(epochs.iloc[:count])
    figure.say("6 epochs.")
    assert [kind for kind, _ in shown] == ["display"] + ["update"] * 6
    first, last = shown[0][1], shown[5][1]
    assert first["text/html"].count("<img ") == 1 and "data:image/png;base64," in first["text/html"]
    assert "SimCLR, seed 0, epoch 6 of 6: loss 4." in last["text/markdown"] and "online val 0." in last["text/plain"]
    assert "text/html" not in vars(shown[6][1])


def test_an_epoch_after_which_val_was_not_looked_at_has_its_loss_and_no_gap_in_the_curves(
    shown: list[tuple[str, dict[str, str]]],
) -> None:
    epochs = history(4, "simclr", 0)
    measured = [column for column in epochs if column.startswith(("online_auc", "knn_", "effective_", "feature_"))]
    epochs.loc[epochs["epoch"] % 2 == 1, measured] = float("nan")
    figure = live.LiveFigure(epochs=4)
    figure.epoch(epochs.iloc[:1].drop(columns=measured))
    figure.epoch(epochs.iloc[:3])
    figure.epoch(epochs)
    texts = [content["text/plain"] for _, content in shown]
    assert ["online val" in text for text in texts] == [False, False, True] and "nan" not in "".join(texts)
    axes = plots.plot_progress(epochs, earlier=[epochs]).axes
    online = [line for line in axes[1].get_lines() if len(line.get_xdata())]
    assert len(online) == 4 and all(list(line.get_xdata()) == [2, 4] for line in online)
    assert list(axes[0].get_lines()[-1].get_xdata()) == [1, 2, 3, 4]


def test_drawing_waits_until_it_is_cheap_but_every_epoch_has_its_line(
    shown: list[tuple[str, dict[str, str]]], monkeypatch: pytest.MonkeyPatch
) -> None:
    clock, drawn = [0.0], []

    def draw(table: pd.DataFrame, **options: object) -> object:
        drawn.append(len(table))
        clock[0] += 1.0  # a second a drawing
        return plots.plot_progress(table)

    monkeypatch.setattr(live.time, "monotonic", lambda: clock[0])
    monkeypatch.setattr(live, "plot_progress", draw)
    figure, epochs = live.LiveFigure(), history(6, "simclr", 0)
    for count in range(1, 7):
        figure.epoch(epochs.iloc[:count])
        clock[0] += 8.0  # seconds an epoch
    assert drawn == [1, 4] and len(shown) == 6
    assert all("<img " in content["text/html"] for _, content in shown)
    clock[0] = 30.0  # not yet time
    figure.follow(name="the next")
    figure.epoch(epochs.iloc[:1])
    assert "text/html" not in shown[-1][1]  # the last run's curves are not shown as the next one's


def test_the_curves_are_those_of_the_history_and_earlier_seeds_are_grey() -> None:
    now, before = history(4, "vicreg", 0).iloc[:2], history(4, "vicreg", 1)
    figure = plots.plot_progress(now, epochs=4, family="vicreg", earlier=[before])
    loss, labels, rank = figure.axes
    assert [len(line.get_xdata()) for line in loss.lines] == [4, 2] and loss.lines[1].get_color() == plots.COLOURS[
        "vicreg"
    ]
    assert list(loss.lines[1].get_ydata()) == now["loss"].tolist() and loss.get_xlim() == (0, 4)
    assert labels.get_ylabel() == "val AUC" and {t.get_text() for t in labels.texts} == {"online probe", "kNN"}
    assert "rank" in rank.get_ylabel() and all(ax.get_xlabel() == "epoch of 4" for ax in figure.axes)
    several = now.rename(columns={"online_auc": "online_accuracy", "knn_auc": "knn_accuracy"})
    assert plots.plot_progress(several).axes[1].get_ylabel() == "val accuracy"


@pytest.mark.slow
def test_under_nbclient_a_cell_that_trains_has_a_single_output() -> None:
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(CELL)])
    NotebookClient(notebook, timeout=300, kernel_name="python3").execute()
    outputs = notebook.cells[0].outputs
    assert len(outputs) == 1 and outputs[0].output_type == "display_data"
    assert "epoch 3 of 3: loss 2.000" in outputs[0].data["text/markdown"] and "<img " in outputs[0].data["text/html"]
