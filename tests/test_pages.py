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
from cxr_helpers.report.offline import WIDGET, outside_references, settle, to_html
from cxr_helpers.report.pages import NotebookError, build
from cxr_helpers.report.publish import MOST_BYTES, problems, publish
from cxr_helpers.study import get_profile

SMOKE = get_profile("smoke")
STUDY = replace(SMOKE, name="study", is_evidence=True)
PAGE: dict[str, Any] = {"name": "00_a", "links": {}, "banner": "", "made": ""}
SAYS = """
import os
from matplotlib.figure import Figure
from cxr_helpers.report.show import claim, save_figure
save_figure(Figure(figsize=(1, 1)), "00_dot", caption=f"A dot in {os.environ['CXR_PROFILE']}.", alt="a dot")
claim("It *helps*.", False)
claim("It runs.", True)
print(os.environ["CXR_REPORT"])
"""


def write(root: Path, name: str, *cells: str, title: str = "Title") -> Path:
    """A notebook of code cells below a heading with a formula."""
    head = new_markdown_cell(f"# {title}\n\nWith $\\tau < 1$, not $\\frac{{1}}{{$.")
    path = root / "notebooks" / f"{name}.ipynb"
    path.parent.mkdir(exist_ok=True)
    nbformat.write(new_notebook(cells=[head, *map(new_code_cell, cells)]), path)
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
    before = {path: path.read_bytes() for path in root.rglob("*.ipynb")}
    stale = root / "report/smoke/figures/01_stale.png"
    stale.parent.mkdir(parents=True)
    stale.write_text("old")
    with pytest.raises(NotebookError) as error:
        build(SMOKE, root=root, shown=False)
    assert str(error.value) == (
        "01_second, code cell 2 of 3 (`x / 0  # divide`), failed with ZeroDivisionError: division by zero"
    )
    assert all(path.read_bytes() == content for path, content in before.items()) and not stale.exists()
    return root


def test_a_page_shows_what_its_notebook_says_and_needs_nothing_but_itself(site: Path) -> None:
    soup, html = page(site, "00_first"), (site / "report/smoke/00_first.html").read_text()
    assert outside_references(html) == [] and soup.find("script") is None
    assert soup.select_one(".banner").text == "Profile smoke: not evidence"
    assert soup.title.text == "00 · First" and soup.find("math").text == "τ<1"
    assert soup.find("code", string="\\frac{1}{")  # what is no formula stays text
    assert soup.select_one("details.code:not([open]) .highlight") and soup.img["alt"] == "a dot"
    assert soup.select_one(".caption").text.strip() == "A dot in smoke."
    assert soup.pre and "report/smoke" in soup.text and str(site) not in html
    assert (
        "default-src 'none'; img-src data:" in soup.find("meta", {"http-equiv": "Content-Security-Policy"})["content"]
    )


def test_the_index_lists_what_failed_and_every_claim_that_does_not_hold_with_its_place(site: Path) -> None:
    index = page(site, "index")
    assert "01_second, code cell 2 of 3" in index.text and "index has not been run" in index.text
    (listed,) = [item for item in index.find_all("li") if item.find("a")]
    assert listed.text == "✗ It helps. (00_first)" and "It runs" not in index.text
    name, _, anchor = listed.a["href"].partition("#")
    assert name == "00_first.html" and "It helps" in page(site, "00_first").find(id=anchor).text
    pages = json.loads((site / "report/smoke/build.json").read_text())["pages"]
    assert {stem: entry["state"] for stem, entry in pages.items()} == {
        "00_first": "done", "01_second": "failed", "index": "waiting",
    }  # fmt: skip
    assert not (site / "report/smoke/01_second.html").exists()


def test_sigterm_stops_the_kernel_and_says_so(tmp_path: Path) -> None:
    write(tmp_path, "00_slow", "import os, time\nopen('pid', 'w').write(str(os.getpid()))\ntime.sleep(600)")
    code = f"import sys, pathlib, {building.__name__} as b; b.project_root = lambda: pathlib.Path({str(tmp_path)!r})"
    command = [sys.executable, "-c", f"{code}; sys.exit(b.main('smoke'))"]
    child = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 120
    while not (tmp_path / "pid").is_file() or not (tmp_path / "pid").read_text():
        assert time.monotonic() < deadline and child.poll() is None
        time.sleep(0.1)
    child.send_signal(signal.SIGTERM)
    assert "Stopped by SIGTERM. Finished pages stay." in child.communicate(timeout=60)[1] and child.returncode == 143
    with pytest.raises(ProcessLookupError):
        os.kill(int((tmp_path / "pid").read_text()), 0)
    assert "00_slow is running, or was cut off" in page(tmp_path, "index").text


OUTSIDE = """<script src="https://cdn.example/x.js"></script>
<link rel="stylesheet" href="//cdn.example/x.css">
<img srcset="http://example.org/x.png 2x">
<style>@import 'https://example.org/x.css';</style>
<p style="background: url('http://example.org/x.png')">x</p>
<meta http-equiv="refresh" content="0; url=https://example.org">
<svg><use xlink:href="x.svg#a"></use></svg>"""
INSIDE = """<img src="data:image/png;base64,AA"><a href="https://a.org">x</a><svg><use href="#a"></use></svg>
<script>const text = "https://example.org";</script>"""


def test_a_page_that_would_load_something_is_refused_and_links_to_click_are_not() -> None:
    assert outside_references(INSIDE) == []
    for outside in OUTSIDE.splitlines():
        shown = new_code_cell("f()", outputs=[new_output("display_data", {"text/html": outside})])
        with pytest.raises(ValueError, match="page 00_a must load nothing from elsewhere"):
            to_html(new_notebook(cells=[shown]), **PAGE)


def test_widgets_become_a_sentence_and_progress_bars_go() -> None:
    view = {WIDGET: {"model_id": "1"}}
    texts = ("Explorer of films", "decoding:  0%|   | 0/40 [00:00<?, ?img/s]")
    cell = new_code_cell("f()", outputs=[new_output("display_data", {**view, "text/plain": text}) for text in texts])
    settle(new_notebook(cells=[cell]))
    (kept,) = cell.outputs
    assert kept.data["text/plain"] == "Interactive in JupyterLab; what follows works without a kernel."


# ---- publishing


def no_kernel(notebook: nbformat.NotebookNode, progress: building.Progress, *, root: Path, environment: Any) -> None:
    """In place of `execute`: every notebook saves a table and rests on the same data."""
    table = root / environment["CXR_REPORT"] / "tables" / f"{progress.stem.split('_')[0]}_scores.csv"
    table.parent.mkdir(exist_ok=True)
    table.write_text("auc\n1\n")
    about = {"cxr": {"kind": "provenance", "data": {"films 64 px": "abc"}}}
    notebook.cells[-1].outputs = [new_output("display_data", {"text/html": "<p></p>"}, metadata=about)]


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


def rebuild(root: Path, patch: pytest.MonkeyPatch, time_: str, **options: Any) -> None:
    patch.setattr(building, "execute", no_kernel)
    patch.setattr(building, "commit_record", lambda: {"commit": "0123456789", "dirty": False})
    patch.setattr(building, "now", lambda: time_)
    build(STUDY, root=root, shown=False, **options)


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
    assert "films 64 px" in (built / "notebooks/04_b.ipynb").read_text()  # with its outputs
    (built / "results/tables/04_trials.csv").write_text("written by hand")
    (built / "notebooks/03_a.ipynb").unlink()
    rebuild(built, monkeypatch, "fourth")
    publish(STUDY, root=built)
    left = {path.name for path in (built / "results").rglob("*.*")}
    assert "04_trials.csv" in left and not {"03_scores.csv", "03_a.html"} & left


def spoil(**changes: Any) -> Callable[[Path], Any]:
    """Change what the record says of notebook 04; with an error, its build did not finish."""

    def change(root: Path) -> None:
        record = json.loads((root / "report/study/build.json").read_text())
        record["pages"]["04_b"] |= changes
        record["finished"] = record["finished"] if "error" not in changes else None
        (root / "report/study/build.json").write_text(json.dumps(record))

    return change


def scores(root: Path) -> Path:
    return root / "report/study/tables/04_scores.csv"


REFUSED: dict[str, Callable[[Path], Any]] = {
    "there is no build of profile study": lambda root: (root / "report/study/build.json").unlink(),
    "the last build did not finish; 04_b failed": spoil(state="failed", error="04_b failed"),
    "05_c is not built": lambda root: write(root, "05_c", "run()"),
    "04_b was made with changes that are not committed": spoil(dirty=True),
    "04_b was made from a notebook that is not committed": spoil(committed=False),
    "04_b does not say which commit made it": spoil(commit="unknown"),
    "pages were made at different commits: 0123456789, abc": spoil(commit="abc"),
    "04_b has changed since it was executed": lambda root: write(root, "04_b", "run(2)"),
    "04_b has files that its build did not make so: tables/04_scores.csv": lambda root: scores(root).write_text("2"),
    "04_b has files that its build did not make so: 04_b.html": lambda root: (root / "report/study/04_b.html").unlink(),
    "pages rest on different data under one name": spoil(told=[{"data": {"films 64 px": "other"}}]),
    f"tables/04_scores.csv has more than {MOST_BYTES:,} bytes": lambda root: os.truncate(scores(root), MOST_BYTES + 1),
}


@pytest.mark.parametrize("reason", REFUSED)
def test_a_report_is_refused_and_nothing_is_copied(built: Path, reason: str) -> None:
    assert problems(STUDY, built) == []
    REFUSED[reason](built)
    with pytest.raises(ValueError, match="report study must not be published: ") as error:
        publish(STUDY, root=built)
    assert reason in str(error.value) and not (built / "results").exists()


def test_a_profile_that_is_no_evidence_is_refused_however_complete_its_build(built: Path) -> None:
    assert problems(replace(STUDY, is_evidence=False), built) == ["profile study is not evidence"]
