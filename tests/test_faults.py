"""The campaign of faults in short, and the frame that runs and counts it."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
from faults import FAULTS, Fault, campaign, fault, markdown, try_once
from faults.__main__ import main, write_readme


def made_up(run: object, **changes: object) -> Fault:
    return Fault(**({"name": "made up", "category": "data", "tries": 3, "quick": 1, "run": run} | changes))  # type: ignore[arg-type]


def lose_odd_tries(folder: Path, seed: int) -> None:
    assert list(folder.iterdir()) == [], "a try must begin with an empty folder"
    (folder / "left").write_text("behind")
    assert seed % 2 == 0, "an odd try\nwith details"


@pytest.mark.parametrize("item", [item for item in FAULTS if item.quick], ids=lambda item: item.name)
def test_nothing_is_lost_to(item: Fault) -> None:
    assert [said for seed in range(item.quick) if (said := try_once(item, seed))] == []


def test_tries_are_counted_and_a_loss_stops_nothing() -> None:
    tally, fine = campaign([made_up(lose_odd_tries), made_up(lambda folder, seed: None, name="fine", tries=2)])
    assert (tally.tries, tally.survived, tally.lost) == (3, 2, 1)
    assert tally.losses == ["try 1: AssertionError: an odd try"]
    assert markdown([tally, fine]).splitlines()[2:] == [
        "| data | made up | 3 | 2 | 1 |",
        "| data | fine | 2 | 2 | 0 |",
        "| all | 2 faults | 5 | 4 | 1 |",
    ]


def test_a_try_that_hangs_is_a_loss() -> None:
    said = try_once(made_up(lambda folder, seed: time.sleep(30), most_seconds=0.05), 0)
    assert said is not None and "TimeoutError" in said


def test_the_quick_campaign_makes_fewer_tries_and_leaves_some_faults_out() -> None:
    faults = [made_up(lose_odd_tries), made_up(lose_odd_tries, name="slow", quick=0)]
    assert [(tally.fault.name, tally.tries) for tally in campaign(faults, quick=True)] == [("made up", 1)]


def test_two_faults_of_one_name_are_refused() -> None:
    with pytest.raises(ValueError, match="must be its own"):
        fault(FAULTS[0].name, category="data", tries=1)(lambda folder, seed: None)


def test_the_command_prints_the_table_and_fails_on_a_loss(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.setattr("faults.__main__.FAULTS", [made_up(lose_odd_tries)])
    readme = tmp_path / "README.md"
    readme.write_text("# A\n<!-- faults: here -->\nold\n<!-- /faults -->\nB\n")
    assert main(["--quick"]) == 0
    assert main(["--readme", str(readme)]) == 1
    captured = capsys.readouterr()
    assert "| data | made up | 3 | 2 | 1 |" in captured.out
    assert "LOST, try 1: AssertionError: an odd try" in captured.err
    assert "| data | made up | 3 | 2 | 1 |" in readme.read_text() and "old" not in readme.read_text()
    assert main(["--only", "elsewhere"]) == 2


def test_a_readme_without_the_markers_is_refused(tmp_path: Path) -> None:
    (tmp_path / "README.md").write_text("nothing")
    with pytest.raises(ValueError, match="must hold the lines <!-- faults"):
        write_readme(tmp_path / "README.md", "table")
