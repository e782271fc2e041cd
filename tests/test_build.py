"""One command runs the notebooks in order; what is finished stays, what fails is named, what is stale is not shown."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import nbformat
import pytest
from reports import HEAD, Parsed, assert_self_contained, code, notebook, write_notebooks

from cxr_helpers.planning import project_root
from cxr_helpers.profiles import get_profile
from cxr_helpers.report import build as building
from cxr_helpers.report.build import NotebookError, build, main
from cxr_helpers.report.index import read_build

SMOKE = get_profile("smoke")
WRITE = """
import os
from pathlib import Path
from IPython.display import Markdown, display
folder = Path(os.environ["CXR_REPORT"])
(folder / "figures").mkdir(parents=True, exist_ok=True)
(folder / "figures" / "00_written.png").write_text(os.environ["CXR_PROFILE"])
(folder / "answers").mkdir(exist_ok=True)
written = (folder / "answers" / "00_answer.md").write_text(f"It runs in {Path.cwd().name}.")
handle = display(Markdown("starting"), display_id=True)
handle.update(Markdown("epoch 1"))
"""
SAY_HEAD = (
    "from IPython.display import Markdown, display\n\n"
    f"display(Markdown({HEAD.format(profile='smoke', commit='abc')!r}))"
)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkout with three notebooks, the second of which fails, after one build."""
    root = tmp_path_factory.mktemp("checkout")
    first = notebook(code(SAY_HEAD), code(WRITE), number="00", title="First")
    first.cells[-1].metadata["execution"] = {"iopub.status.idle": "a time that an earlier build left"}
    failing = notebook(code("x = 1"), code("\nx / 0  # divide\ny = 2"), code("z = 3"), number="01", title="Second")
    write_notebooks(root, n00_first=first, n01_second=failing, n02_third=notebook(code("x = 1"), number="02"))
    stale = root / "report" / "smoke" / "figures"
    stale.mkdir(parents=True)
    (stale / "01_stale.png").write_text("old")
    (stale / "02_older.png").write_text("old")
    with pytest.raises(NotebookError) as error:
        build(SMOKE, root=root, shown=False)
    (root / "error").write_text(str(error.value))
    return root


def test_a_failure_names_the_notebook_the_cell_its_first_line_and_the_error(site: Path) -> None:
    said = "01_second, code cell 2 of 3 (`x / 0  # divide`), failed with ZeroDivisionError: division by zero"
    assert (site / "error").read_text() == said
    index = Parsed((site / "report/smoke/index.html").read_text())
    assert f"{said}." in index.text and "02_third has not been run" in index.text


def test_finished_pages_stay_and_later_notebooks_are_not_run(site: Path) -> None:
    folder = site / "report" / "smoke"
    page = assert_self_contained((folder / "00_first.html").read_text())
    assert "\nepoch 1\n" in page.text and "\nstarting\n" not in page.text and "commit abc" in page.text
    assert not (folder / "01_second.html").exists() and not (folder / "02_third.html").exists()
    assert {path.name for path in (folder / "notebooks").iterdir()} == {"00_first.ipynb", "01_second.ipynb"}
    pages = read_build(folder)["pages"]
    assert [pages[stem]["state"] for stem in sorted(pages)] == ["done", "failed", "waiting"]
    assert pages["00_first"]["commit"] == "abc" and pages["00_first"]["data"][0] == {
        "data": "Phantom", "px": "64", "status": "drawn",
    }  # fmt: skip


def test_a_kernel_works_at_the_root_and_is_told_profile_and_folder_without_a_path(site: Path) -> None:
    folder = site / "report" / "smoke"
    assert (folder / "figures" / "00_written.png").read_text() == "smoke"
    assert f"It runs in {site.name}." in Parsed((folder / "index.html").read_text()).text
    assert str(site) not in (folder / "notebooks" / "00_first.ipynb").read_text()


def test_what_an_earlier_build_made_of_a_notebook_goes_when_it_is_run_again(site: Path) -> None:
    figures = {path.name for path in (site / "report/smoke/figures").iterdir()}
    assert figures == {"00_written.png", "02_older.png"}  # the third was not reached


def test_an_executed_notebook_has_the_same_cells_and_no_times(site: Path) -> None:
    executed = nbformat.read(site / "report/smoke/notebooks/00_first.ipynb", as_version=4)
    original = nbformat.read(site / "notebooks/00_first.ipynb", as_version=4)
    assert building.sources(executed) == building.sources(original)
    assert not [cell for cell in executed.cells if "execution" in cell.metadata]


def test_only_one_notebook_can_be_run_and_the_others_keep_their_pages_marked_as_earlier(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ran = fake_execution(monkeypatch)
    write_notebooks(tmp_path, n00_a=notebook(code("a"), number="00"), n03_b=notebook(code("b"), number="03"))
    monkeypatch.setattr(building, "now", iter([f"time {i}" for i in range(99)]).__next__)
    build(SMOKE, root=tmp_path, shown=False)
    assert "incomplete" not in Parsed((tmp_path / "report/smoke/index.html").read_text()).text
    build(SMOKE, root=tmp_path, only=["03"], shown=False)
    assert ran == ["00_a", "03_b", "03_b"]
    index = Parsed((tmp_path / "report/smoke/index.html").read_text()).text
    assert "incomplete: 00_a ran in an earlier build (time 0)" in index
    with pytest.raises(ValueError, match="notebooks must be among 00_a, 03_b, got 07"):
        build(SMOKE, root=tmp_path, only=["07"], shown=False)
    (tmp_path / "notebooks" / "00_a.ipynb").unlink()
    build(SMOKE, root=tmp_path, shown=False)
    assert not (tmp_path / "report/smoke/00_a.html").exists()


def fake_execution(monkeypatch: pytest.MonkeyPatch, fail: type[BaseException] | None = None) -> list[str]:
    """No kernel: notebooks are 'executed' as they are, or raise at the notebook 03."""
    ran: list[str] = []

    def execute(content: nbformat.NotebookNode, progress: building.Progress, **_: object) -> None:
        ran.append(progress.stem)
        if fail and progress.stem.startswith("03"):
            raise fail

    monkeypatch.setattr(building, "execute", execute)
    return ran


def test_an_interruption_leaves_finished_pages_and_says_where_it_stopped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    fake_execution(monkeypatch, KeyboardInterrupt)
    monkeypatch.setattr(building, "project_root", lambda: tmp_path)
    write_notebooks(tmp_path, n00_a=notebook(number="00"), n03_b=notebook(number="03"), n04_c=notebook(number="04"))
    assert main(["--profile", "smoke"]) == 130
    folder = tmp_path / "report" / "smoke"
    assert "Interrupted. Finished pages stay" in capsys.readouterr().err and (folder / "00_a.html").is_file()
    states = {stem: entry["state"] for stem, entry in read_build(folder)["pages"].items()}
    assert states == {"00_a": "done", "03_b": "interrupted", "04_c": "waiting"}
    assert json.loads((folder / "build.json").read_text())["finished"] is None
    assert "03_b was interrupted" in Parsed((folder / "index.html").read_text()).text


def test_a_page_that_cannot_be_made_fails_like_a_notebook(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    fake_execution(monkeypatch)
    monkeypatch.setattr(building, "project_root", lambda: tmp_path)
    write_notebooks(tmp_path, n03_b=notebook("![x](https://example.org/x.png)", number="03"))
    assert main(["--profile", "smoke", "--only", "03"]) == 1
    assert "03_b could not be made a page: a page must load nothing from elsewhere" in capsys.readouterr().err


def test_a_notebook_counts_as_committed_while_its_cells_are_those_of_the_last_commit(tmp_path: Path) -> None:
    write_notebooks(tmp_path, n00_a=notebook(code("a")))
    path = tmp_path / "notebooks" / "00_a.ipynb"
    assert not building._is_committed(path, nbformat.read(path, as_version=4))
    author = ["-c", "user.name=a", "-c", "user.email=a@b"]
    for command in (["init", "-q"], ["add", "."], [*author, "commit", "-q", "-m", "Add"]):
        subprocess.run(["git", *command], cwd=tmp_path, check=True)
    run = nbformat.read(path, as_version=4)
    run.cells[1].execution_count = 7
    assert building._is_committed(path, run)
    run.cells[1].source = "b"
    assert not building._is_committed(path, run)


@pytest.mark.parametrize(
    ("goal", "given", "expected"),
    [
        ("report", [], 'report.build --profile "quick"'),
        ("report", ["PROFILE=smoke", "ONLY=03"], 'report.build --profile "smoke" --only 03'),
        ("publish", [], 'report.publish --profile "cpu"'),
    ],
)
def test_make_has_a_default_profile_for_each_goal(
    goal: str, given: list[str], expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("PROFILE", "CXR_PROFILE", "ONLY", "MAKEFLAGS"):
        monkeypatch.delenv(name, raising=False)
    command = ["make", "-n", goal, *given]
    shown = subprocess.run(command, cwd=project_root(), capture_output=True, text=True, check=True).stdout
    assert expected in shown


@pytest.mark.parametrize(("given", "source"), [(["--profile", "huge"], "profile"), ([], "CXR_PROFILE")])
def test_an_unknown_profile_is_one_sentence_and_exit_status_1(
    given: list[str], source: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("CXR_PROFILE", "huge")
    assert main(given) == 1
    assert capsys.readouterr().err == f"{source} must be one of smoke, quick, cpu, full, got 'huge'.\n"


def test_the_bar_names_notebook_cell_and_what_the_cell_says(capsys: pytest.CaptureFixture[str]) -> None:
    content = notebook(code("\nruns = train()"), code("show()"))
    progress = building.Progress(2)
    progress.open(content, "04_full")
    for index in (1, 2):
        progress.start(content.cells[index], index)
        progress.say("2 of 10: SimCLR, seed 0, epoch 3")
        progress.end(content.cells[index], index)
    progress.close("1 notebook done")
    shown = capsys.readouterr().err
    for text in ("04_full cell 1/2", "runs = train()", "04_full cell 2/2", "SimCLR, seed 0, epoch 3", "100%", "done"):
        assert text in shown
