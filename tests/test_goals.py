"""Goals beside results: what counts as reached, what as open, and that the best row that may count does."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from studies import make_run, make_study

from cxr_helpers.report import comparisons, tables
from cxr_helpers.report.goals import GOALS, Goal, goal_table, reading_of_goals, shown_goals

PNEUMONIA = "pneumoniamnist"


STARTS = (" from ImageNet", " from ImageNet (layer4 refit)")


def summary_of(**figures: tuple[float, float, float]) -> pd.DataFrame:
    """Rows of `summary_table` as far as goals read them, by label (underscores for blanks)."""
    rows = [
        {
            "dataset": PNEUMONIA,
            "data": "PneumoniaMNIST",
            "size": 64,
            "content": "a",
            "label": label.replace("__", ", ").replace("_", "-"),
            "protocol": "trained head" if "tuned" in label else "linear probe",
            "num_seeds": 3,
            **dict(zip(("test_low", "test_mean", "test_high"), figure, strict=True)),
        }
        for label, figure in figures.items()
    ]
    return pd.DataFrame(rows)


def labels_of(**differences: tuple[float, float, float]) -> pd.DataFrame:
    """Rows of `label_summary` at one in ten labels."""
    rows = [
        {"label": label, "fraction": 0.1, "low": low, "difference": value, "high": high, "common_draws": 5}
        for label, (low, value, high) in differences.items()
    ]
    return pd.DataFrame(rows)


def verdicts(table: pd.DataFrame) -> dict[str, str]:
    return dict(zip(table["what"], table["verdict"], strict=True))


def test_a_value_is_reached_by_the_mean_open_inside_the_interval_and_missed_beyond_it() -> None:
    summary = summary_of(
        SimCLR=(0.960, 0.970, 0.980), VICReg=(0.955, 0.9647, 0.975), VICReg__fine_tuned=(0.96, 0.97, 0.98)
    )
    table = goal_table(PNEUMONIA, 64, summary)
    found = verdicts(table)
    assert found["SimCLR, frozen, linear probe"] == "reached"
    assert found["VICReg, frozen, linear probe"] == "open"
    assert found["pretrained by either method, then fine-tuned"] == "missed"
    short = table.set_index("what")["short"]
    assert short["SimCLR, frozen, linear probe"] == 0
    assert short["VICReg, frozen, linear probe"] == pytest.approx(0.0053)
    assert "VICReg, frozen, linear probe by 0.5" in reading_of_goals(table)
    assert "1 reached, 1 open, 2 missed, 4 not measured" in reading_of_goals(table)


def test_the_best_frozen_row_counts_in_whichever_way_it_was_read() -> None:
    what = "best frozen ResNet-18, however read"
    summary = summary_of(SimCLR=(0.96, 0.97, 0.98), VICReg__fine_tuned=(0.98, 0.99, 0.995))
    row = goal_table(PNEUMONIA, 64, summary).set_index("what").loc[what]
    assert row.label == "SimCLR" and row.verdict == "missed"  # a fine-tuned encoder is not frozen
    other = pd.DataFrame(
        [{"label": "ImageNet", "readout": "last two stages", "seeds": (0,), "test": 0.99, "low": 0.98, "high": 0.995}]
    )
    row = goal_table(PNEUMONIA, 64, summary, rereads=other).set_index("what").loc[what]
    assert (row.label, row.seeds, row.verdict) == ("ImageNet, last two stages", 1, "reached")


@pytest.mark.parametrize(
    ("interval", "verdict"),
    [
        ((0.01, 0.02, 0.03), "reached"),
        ((-0.01, 0.02, 0.05), "open"),
        ((-0.03, -0.02, -0.01), "missed"),
        ((-np.inf, 0.02, np.inf), "open"),
    ],
)
def test_being_above_needs_the_whole_interval(interval: tuple[float, float, float], verdict: str) -> None:
    table = goal_table(PNEUMONIA, 64, pd.DataFrame(), labels=labels_of(SimCLR=interval))
    found = verdicts(table)
    assert found["SimCLR, either start, above supervised with 10 % of labels"] == verdict
    assert found["SimCLR, either start, above supervised with 1 % of labels"] == "not measured"  # another fraction
    assert found["VICReg, either start, above supervised with 10 % of labels"] == "not measured"
    shown = shown_goals(table)
    assert "| SimCLR (" in shown and " of labels) |" in shown
    assert ("(one draw)" in shown) == (not np.isfinite(interval[0])) and "inf" not in shown


def test_a_goal_for_one_size_is_not_asked_of_another() -> None:
    values = {size: goal_table(PNEUMONIA, size, pd.DataFrame()).set_index("what")["goal"] for size in (64, 128, 224)}
    assert [values[size].get("SimCLR, frozen, linear probe") for size in (64, 128, 224)] == [0.970, None, 0.980]
    assert goal_table("phantom", 64, pd.DataFrame()).empty
    assert reading_of_goals(goal_table("phantom", 64, pd.DataFrame())).startswith("No goal was set")
    assert shown_goals(goal_table("phantom", 64, pd.DataFrame())) == ""


def test_goals_are_measured_on_real_records(tmp_path: Path) -> None:
    runs = make_study(tmp_path, seeds=(0, 1), labels=14)
    summary = tables.summary_table(runs)
    pairs = comparisons.paired_table(runs, comparisons.method_pairs(summary, "SimCLR", "VICReg"))
    table = goal_table("chestmnist", 64, summary, pairs=pairs).set_index("what")
    value = table.loc["pretrained by either method, either start, frozen"]
    best = summary.set_index("label").loc["SimCLR"]
    assert (value.label, value.reached, value.seeds) == ("SimCLR", best.test_mean, 2)
    beaten = table.loc["pretrained by either method, either start, frozen, above supervised"]
    pair = pairs[(pairs.a == beaten.label) & (pairs.b == "Supervised")].iloc[0]
    assert beaten.reached == pair.difference and beaten.low == pair.low
    shown = shown_goals(table.reset_index())
    assert f"{value.reached:.3f} [" in shown and "| SimCLR (2 seeds) |" in shown


def test_every_goal_names_rows_that_the_study_can_have(tmp_path: Path) -> None:
    made = [make_run(tmp_path, method=m, dataset=PNEUMONIA) for m in ("simclr", "vicreg")]
    made.append(make_run(tmp_path, method="supervised", policy="supervised", dataset=PNEUMONIA))
    names = set(tables.summary_table(made).label)
    names |= {f"{name}{start}" for name in names for start in STARTS}
    names |= {f"{name}, fine-tuned" for name in names}
    assert {label for goal in GOALS for label in (*goal.labels, goal.above) if label} <= names


def test_a_goal_is_either_a_value_or_a_row_to_be_above_of() -> None:
    with pytest.raises(ValueError, match="either a value or a row"):
        Goal(dataset=PNEUMONIA, what="nothing")
    with pytest.raises(ValueError, match="either a value or a row"):
        Goal(dataset=PNEUMONIA, what="both", value=0.9, above="Supervised")
