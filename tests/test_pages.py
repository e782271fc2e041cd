"""One command runs the notebooks in order into pages that need nothing but themselves; what fails is named."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import nbformat
import pytest
from bs4 import BeautifulSoup
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

from cxr_helpers.report import pages as building
from cxr_helpers.report.offline import OUTSIDE, WIDGET, settle, to_html
from cxr_helpers.report.pages import NotebookError, build, problems, publish
from cxr_helpers.study import get_profile

SMOKE = get_profile("smoke")
STUDY = replace(SMOKE, name="study", is_evidence=True)
SAYS = """
import os
from matplotlib.figure import Figure
from cxr_helpers.report.show import claim, save_figure
save_figure(Figure(figsize=(1, 1)), "00_dot", caption=f"A dot in {os.environ['CXR_PROFILE']}.")
claim("It *helps*.", False)
claim("It runs.", True)
print(os.environ["CXR_REPORT"])
"""


def write(root: Path, name: str, *cells: str, title: str = "Title") -> Path:
    """A notebook of code cells below a heading."""
    path = root / "notebooks" / f"{name}.ipynb"
    path.parent.mkdir(exist_ok=True)
    nbformat.write(new_notebook(cells=[new_markdown_cell(f"# {title}"), *map(new_code_cell, cells)]), path)
    return path


def page(root: Path, name: str, profile: str = "smoke") -> BeautifulSoup:
    return BeautifulSoup((root / "report" / profile / f"{name}.html").read_text(), "html.parser")


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkout after one build, whose second notebook fails."""
    root = tmp_path_factory.mktemp("checkout")
    write(root, "00_first", SAYS, title="00 · First")
    write(root, "01_second", "x = 1", "\nx / 0  # divide\ny = 2", "z = 3")
    write(root, "index", "1", title="The answers")
    before = [path.read_bytes() for path in sorted((root / "notebooks").iterdir())]
    stale = root / "report/smoke/figures/01_stale.png"
    stale.parent.mkdir(parents=True)
    stale.write_text("old")
    said = r"01_second, code cell 2 of 3 \(`x / 0  # divide`\), failed with ZeroDivisionError: division by zero$"
    with pytest.raises(NotebookError, match=said):
        build(SMOKE, root=root, shown=False)
    assert [path.read_bytes() for path in sorted((root / "notebooks").iterdir())] == before and not stale.exists()
    return root


def test_a_page_shows_what_its_notebook_says_and_needs_nothing_but_itself(site: Path) -> None:
    soup = page(site, "00_first")
    assert soup.find("script") is None and "default-src 'none'; img-src data:" in str(soup.head)
    assert soup.select_one(".banner").text == "Profile smoke: not evidence"
    assert soup.title.text == "00 · First"
    assert soup.select_one("details.code:not([open]) .highlight") and soup.img["alt"] == "A dot in smoke."
    assert soup.select_one(".caption").text.strip() == "A dot in smoke."
    assert "report/smoke" in soup.text and str(site) not in str(soup)


def test_the_index_lists_what_failed_and_every_claim_that_does_not_hold_with_its_place(site: Path) -> None:
    index = page(site, "index")
    assert "01_second, code cell 2 of 3" in index.text and "index has not been run" in index.text
    (listed,) = [item for item in index.find_all("li") if item.find("a")]
    assert listed.text == "✗ It helps. (00_first)" and "It runs" not in index.text
    name, _, anchor = listed.a["href"].partition("#")
    assert name == "00_first.html" and "It helps" in page(site, "00_first").find(id=anchor).text
    assert not (site / "report/smoke/01_second.html").exists()
    assert "ZeroDivisionError" in (site / "report/smoke/notebooks/01_second.ipynb").read_text()


def test_sigterm_stops_the_kernel_and_says_so(tmp_path: Path) -> None:
    write(tmp_path, "00_slow", "import os, time\nopen('pid', 'w').write(str(os.getpid()))\ntime.sleep(600)")
    code = f"import sys, pathlib, {building.__name__} as b; b.project_root = lambda: pathlib.Path({str(tmp_path)!r})"
    command = [sys.executable, "-c", f"{code}; b.run_command('report', b.main)", "--profile", "smoke"]
    child = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 120
    while not (tmp_path / "pid").is_file() or not (tmp_path / "pid").read_text():
        assert time.monotonic() < deadline and child.poll() is None
        time.sleep(0.1)
    assert "00_slow is running, or was cut off" in page(tmp_path, "index").text
    child.send_signal(signal.SIGTERM)
    said = "00_slow, code cell 1 of 1 (`import os, time`), was stopped, or its kernel died"
    assert said in child.communicate(timeout=60)[1] and child.returncode == 1
    with pytest.raises(ProcessLookupError):
        os.kill(int((tmp_path / "pid").read_text()), 0)
    assert "was stopped, or its kernel died" in page(tmp_path, "index").text


LOADING = (
    '<script src="https://cdn.example/x.js"></script>',
    '<link rel="stylesheet" href="//cdn.example/x.css">',
    '<img srcset="http://example.org/x.png 2x">',
    "<style>@import 'https://example.org/x.css';</style>",
    "<p style=\"background: url('http://example.org/x.png')\">x</p>",
    '<svg><use xlink:href="x.svg#a"></use></svg>',
)
STILL = """<img src="data:image/png;base64,AA"><a href="https://a.org">x</a><svg><use href="#a"></use></svg>
<script>const text = "https://example.org";</script>"""


@pytest.mark.parametrize("loading", LOADING)
def test_a_page_that_would_load_something_is_refused_and_links_to_click_are_not(loading: str) -> None:
    assert not OUTSIDE.search(STILL)
    shown = new_code_cell("f()", outputs=[new_output("display_data", {"text/html": loading})])
    with pytest.raises(ValueError, match="page 00_a must load nothing from elsewhere"):
        to_html(new_notebook(cells=[shown]), "00_a", [])


def test_widgets_and_progress_bars_go() -> None:
    view = {WIDGET: {"model_id": "1"}, "text/plain": "decoding:  0%|   | 0/40"}
    cell = new_code_cell("f()", outputs=[new_output("display_data", data) for data in (view, {"text/plain": "1"})])
    settle(new_notebook(cells=[cell]))
    assert [output.data for output in cell.outputs] == [{"text/plain": "1"}]


# ---- publishing


def no_kernel(notebook: nbformat.NotebookNode, path: Path, *_: Any) -> None:
    """In place of `execute`: every notebook saves a table."""
    table = path.parents[1] / "report/study/tables" / f"{path.stem.split('_')[0]}_scores.csv"
    table.parent.mkdir(exist_ok=True)
    table.write_text("auc\n1\n")
    notebook.cells[-1].outputs = [new_output("display_data", {"text/html": "<p>ran</p>"})]


def rebuild(root: Path, patch: pytest.MonkeyPatch, time_: str, **options: Any) -> None:
    patch.setattr(building, "execute", no_kernel)
    patch.setattr(building, "commit_record", lambda: {"commit": "0123456789", "dirty": False})
    patch.setattr(building, "now", lambda: time_)
    build(STUDY, root=root, shown=False, **options)


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkout with a finished, committed study."""
    root = tmp_path_factory.mktemp("study")
    for name in ("03_a", "04_b", "index"):
        write(root, name, "run()")
    author = ["-c", "user.name=a", "-c", "user.email=a@b"]
    for command in (["init", "-q"], ["add", "."], [*author, "commit", "-q", "-m", "Add"]):
        subprocess.run(["git", *command], cwd=root, check=True)
    with pytest.MonkeyPatch.context() as patch:
        rebuild(root, patch, "first")
    return root


@pytest.fixture
def built(study: Path, tmp_path: Path) -> Path:
    return shutil.copytree(study, tmp_path / "copy")


def test_a_study_goes_to_the_tracked_folders_and_what_it_lacks_goes_from_there(
    built: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rebuild(built, monkeypatch, "second", only=("03",))
    assert problems(STUDY, built) == ["04_b is of an earlier build", "index is of an earlier build"]
    rebuild(built, monkeypatch, "third")
    written = publish(STUDY, root=built)
    assert written == [
        *("results/html/03_a.html", "results/html/04_b.html", "results/html/index.html"),
        *("notebooks/03_a.ipynb", "notebooks/04_b.ipynb", "notebooks/index.ipynb"),
        *("results/tables/03_scores.csv", "results/tables/04_scores.csv", "results/tables/index_scores.csv"),
    ]
    assert "<p>ran</p>" in (built / "notebooks/04_b.ipynb").read_text()  # with its outputs
    (built / "results/tables/04_trials.csv").write_text("written by hand")
    (built / "notebooks/03_a.ipynb").unlink()
    rebuild(built, monkeypatch, "fourth")
    publish(STUDY, root=built)
    left = {path.name for path in (built / "results").rglob("*.*")}
    assert "04_trials.csv" in left and not {"03_scores.csv", "03_a.html"} & left


REPORT = "report/study/"
REFUSED: dict[str, dict[str, Any] | Callable[[Path], Any]] = {  # what the record says of 04, or what is done
    "there is no build of profile study": lambda root: (root / REPORT / "build.json").unlink(),
    "04_b failed": {"error": "04_b failed"},
    "05_c is not built": lambda root: write(root, "05_c", "run()"),
    "04_b was made with changes that are not committed": {"dirty": True},
    "pages were made at different commits: 0123456789, abc": {"commit": "abc"},
    "04_b has changed since it was executed": lambda root: write(root, "04_b", "run(2)"),
    "04_b has files that its build did not make so: 04_b.html": lambda root: (root / REPORT / "04_b.html").unlink(),
    "make so: tables/04_scores.csv": lambda root: (root / REPORT / "tables/04_scores.csv").write_text("2"),
}


@pytest.mark.parametrize("reason", REFUSED)
def test_a_report_is_refused_and_nothing_is_copied(built: Path, reason: str) -> None:
    assert problems(STUDY, built) == []
    change, file = REFUSED[reason], built / REPORT / "build.json"
    if callable(change):
        change(built)
    else:
        record = json.loads(file.read_text())
        record["pages"]["04_b"] |= change
        file.write_text(json.dumps(record))
    with pytest.raises(ValueError, match="report study must not be published: ") as error:
        publish(STUDY, root=built)
    assert reason in str(error.value) and not (built / "results").exists()


def test_what_is_no_evidence_or_not_committed_is_refused(built: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert problems(replace(STUDY, is_evidence=False), built) == ["profile study is not evidence"]
    write(built, "04_b", "run(2)")
    rebuild(built, monkeypatch, "second")
    assert problems(STUDY, built) == ["04_b was made with changes that are not committed"]
