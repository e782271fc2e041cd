"""One command runs the notebooks in order into pages that need nothing but themselves; what fails is named."""

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import nbformat
import pytest
from bs4 import BeautifulSoup
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

from cxr_helpers.report import pages as building
from cxr_helpers.report.offline import WIDGET, to_html
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


def page(root: Path, name: str) -> BeautifulSoup:
    return BeautifulSoup((root / f"report/smoke/{name}.html").read_text(), "html.parser")


def test_pages_need_nothing_else_and_the_index_lists_failures_and_claims_that_do_not_hold(tmp_path: Path) -> None:
    write(tmp_path, "00_first", SAYS, title="00 · First")
    write(tmp_path, "01_second", "x = 1", "\nx / 0  # divide\ny = 2", "z = 3")
    write(tmp_path, "index", "1", title="The answers")
    said = r"01_second, code cell 2 of 3 \(`x / 0  # divide`\), failed with ZeroDivisionError: division by zero$"
    with pytest.raises(NotebookError, match=said):
        build(SMOKE, root=tmp_path)
    first, index = page(tmp_path, "00_first"), page(tmp_path, "index")
    assert first.find("script") is None and "default-src 'none'; img-src data:" in str(first.head)
    assert first.select_one(".banner").text == "Profile smoke: not evidence" and first.title.text == "00 · First"
    assert first.select_one("details.code:not([open]) .highlight") and first.img["alt"] == "A dot in smoke."
    assert first.select_one(".caption").text.strip() == "A dot in smoke."
    assert "report/smoke" in first.text and str(tmp_path) not in str(first)
    assert "01_second, code cell 2 of 3" in index.text and "index has not been run" in index.text
    (listed,) = [item for item in index.find_all("li") if item.find("a")]
    assert listed.text == "✗ It helps. (00_first)" and "It runs" not in index.text
    name, _, anchor = listed.a["href"].partition("#")
    assert name == "00_first.html" and "It helps" in first.find(id=anchor).text
    assert not (tmp_path / "report/smoke/01_second.html").exists()


def test_sigterm_stops_the_kernel_and_says_so(tmp_path: Path) -> None:
    write(tmp_path, "00_slow", "import os, time\nopen('pid', 'w').write(str(os.getpid()))\ntime.sleep(600)")
    code = f"import sys, pathlib, {building.__name__} as b; b.project_root = lambda: pathlib.Path({str(tmp_path)!r})"
    command = [sys.executable, "-c", f"{code}; b.run_command('report', b.main)", "--profile", "smoke"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as child:
        while not (tmp_path / "pid").is_file() or not (tmp_path / "pid").read_text():
            assert child.poll() is None
            time.sleep(0.1)
        child.send_signal(signal.SIGTERM)
        said = "00_slow, code cell 1 of 1 (`import os, time`), was stopped, or its kernel died"
        assert said in child.communicate(timeout=60)[1] and child.returncode == 1
    with pytest.raises(ProcessLookupError):
        os.kill(int((tmp_path / "pid").read_text()), 0)


@pytest.mark.parametrize(
    "loading",
    [
        '<link rel="stylesheet" href="//cdn.example/x.css">',
        "<style>@import 'https://example.org/x.css';</style>",
        "<p style=\"background: url('http://example.org/x.png')\">x</p>",
    ],
)
def test_a_page_that_would_load_something_is_refused_and_links_to_click_are_not(loading: str) -> None:
    still = '<img src="data:image/png;base64,AA"><a href="https://a.org">x</a><svg><use href="#a"></use></svg>'
    cells = [new_code_cell("f()", outputs=[new_output("display_data", {"text/html": x})]) for x in (still, loading)]
    assert "https://a.org" in to_html(new_notebook(cells=cells[:1]), "00_a", [])
    with pytest.raises(ValueError, match="page 00_a must load nothing from elsewhere"):
        to_html(new_notebook(cells=cells), "00_a", [])


def no_kernel(notebook: nbformat.NotebookNode, path: Path, *_: Any) -> list[float]:
    """In place of `execute`: every notebook saves a table and shows a widget and what stays of it."""
    table = path.parents[1] / "report/study/tables" / f"{path.stem.split('_')[0]}_scores.csv"
    table.parent.mkdir(exist_ok=True)
    table.write_text("auc\n1\n")
    shown = ({WIDGET: {"model_id": "1"}}, {"text/html": "<p>ran</p>"})
    notebook.cells[-1].outputs = [new_output("display_data", data) for data in shown]
    return [1.0]


def rebuild(root: Path, patch: pytest.MonkeyPatch, time_: str, **options: Any) -> None:
    patch.setattr(building, "execute", no_kernel)
    patch.setattr(building, "commit_record", lambda: {"commit": "0123456789", "dirty": False})
    patch.setattr(building, "now", lambda: time_)
    build(STUDY, root=root, **options)


@pytest.fixture
def built(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A checkout with a finished study."""
    for name in ("03_a", "04_b", "index"):
        write(tmp_path, name, "run()")
    rebuild(tmp_path, monkeypatch, "first")
    return tmp_path


def test_a_study_goes_to_the_tracked_folders_and_replaces_all(built: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rebuild(built, monkeypatch, "second", only=("03",))
    assert problems(STUDY, built) == ["04_b is of an earlier build", "index is of an earlier build"]
    rebuild(built, monkeypatch, "third")
    written = publish(STUDY, root=built)
    assert len(written) == 9 and {"results/html/03_a.html", "results/tables/03_scores.csv"} < set(written)
    executed = (built / "notebooks/04_b.ipynb").read_text()
    assert "<p>ran</p>" in executed and WIDGET not in executed
    (built / "results/tables/04_trials.csv").write_text("written by hand")
    (built / "notebooks/03_a.ipynb").unlink()
    rebuild(built, monkeypatch, "fourth")
    publish(STUDY, root=built)
    left = {path.name for path in (built / "results").rglob("*.*")}
    assert "04_trials.csv" in left and not {"03_scores.csv", "03_a.html"} & left


def test_a_report_is_refused_and_nothing_is_copied(built: Path) -> None:
    file = built / "report/study/build.json"
    assert problems(STUDY, built) == [] != problems(replace(STUDY, is_evidence=False), built)
    record = json.loads(file.read_text())
    record["pages"]["04_b"] |= {"dirty": True, "commit": "abc"}
    record["pages"]["03_a"]["error"] = "03_a failed"
    file.write_text(json.dumps(record))
    write(built, "04_b", "run(2)")
    with pytest.raises(ValueError, match="report study must not be published: 03_a failed; ") as error:
        publish(STUDY, root=built)
    for reason in ("with changes that are not committed", "changed since it was executed", "different commits: 01234"):
        assert reason in str(error.value)
    assert not (built / "results").exists()
