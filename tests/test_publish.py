"""Only a finished, committed, unmixed report of an evidence profile is published, all of it or nothing."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nbformat
import pytest
from reports import code, head_output, notebook, write_notebooks

from cxr_helpers.profiles import get_profile
from cxr_helpers.report import publish as publishing
from cxr_helpers.report.index import entry_of, files_of, read_build
from cxr_helpers.report.pages import notebook_page
from cxr_helpers.report.publish import main, problems, publish
from cxr_helpers.runs import write_json

CPU = get_profile("cpu")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A checkout with two notebooks and a finished report of them for the cpu profile."""
    folder = tmp_path / "report" / "cpu"
    for kind in ("figures", "tables", "notebooks"):
        (folder / kind).mkdir(parents=True)
    pages = {}
    for number in ("03", "04"):
        stem, content = f"{number}_tiny", notebook(code("run()"), number=number)
        write_notebooks(tmp_path, **{stem: content})
        content.cells[1].outputs = [head_output()]
        nbformat.write(content, folder / "notebooks" / f"{stem}.ipynb")
        page = notebook_page(content, CPU)
        (folder / f"{stem}.html").write_text(page.html)
        (folder / "figures" / f"{number}_curve.png").write_bytes(b"png")
        (folder / "tables" / f"{number}_scores.csv").write_text("a\n1\n")
        made = {"build": "today", "committed": True, "made": "now", "seconds": 1, "files": files_of(folder, stem)}
        pages[stem] = entry_of(page) | made
    (folder / "tables" / "99_other.csv").write_text("of no notebook here")
    (folder / "index.html").write_text("index")
    record = {"profile": "cpu", "started": "today", "finished": "today", "commit": "0", "dirty": False, "pages": pages}
    write_json(folder / "build.json", record)
    return tmp_path


def tracked(root: Path) -> dict[str, bytes]:
    """Everything outside the ignored report folder."""
    files = (path for path in root.rglob("*") if path.is_file())
    return {
        name: path.read_bytes() for path in files if not (name := str(path.relative_to(root))).startswith("report/")
    }


def test_a_study_goes_to_notebooks_figures_tables_and_pages(root: Path) -> None:
    written = publish(CPU, root=root)
    assert written == sorted(
        [f"{part}/{n}_{end}" for n in ("03", "04") for part, end in (
            ("figures", "curve.png"), ("notebooks", "tiny.ipynb"), ("results/html", "tiny.html"),
            ("results/tables", "scores.csv"),
        )] + ["results/html/index.html"]
    )  # fmt: skip
    assert "Phantom" in (root / "notebooks" / "04_tiny.ipynb").read_text()
    manifest = json.loads((root / "results/html/published.json").read_text())
    assert manifest["commit"] == "0123456789" and manifest["files"] == written
    assert publish(CPU, root=root) == written  # outputs differ now, cells do not


def test_what_the_last_publication_wrote_and_this_report_lacks_is_removed_and_nothing_else(root: Path) -> None:
    publish(CPU, root=root)
    kept = root / "results" / "tables" / "04_trials.csv"
    kept.write_text("written by hand")
    for name in ("figures/04_curve.png", "tables/03_scores.csv"):
        (root / "report" / "cpu" / name).unlink()
    publish(CPU, root=root)
    assert kept.is_file() and (root / "figures" / "03_curve.png").is_file()
    assert not (root / "figures" / "04_curve.png").exists()
    assert not (root / "results" / "tables" / "03_scores.csv").exists()


def _entry(root: Path, **changes: Any) -> None:
    """Change the record of notebook 04."""
    folder = root / "report" / "cpu"
    record = read_build(folder)
    record["pages"]["04_tiny"] |= changes
    write_json(folder / "build.json", record)


def _unfinished(root: Path) -> None:
    _entry(root, state="failed", error="04_tiny, code cell 1 of 1, failed")
    file = root / "report" / "cpu" / "build.json"
    write_json(file, json.loads(file.read_text()) | {"finished": None})


def _without_commit(root: Path) -> None:
    file = root / "report" / "cpu" / "build.json"
    record = json.loads(file.read_text())
    del record["pages"]["04_tiny"]["commit"]
    write_json(file, record)


def _changed_cells(root: Path) -> None:
    write_notebooks(root, n04_tiny=notebook(code("run(2)"), number="04"))


def _another_notebook(root: Path) -> None:
    write_notebooks(root, n05_more=notebook(number="05"))


def _large_file(root: Path) -> None:
    with (root / "report/cpu/figures/04_curve.png").open("wb") as handle:
        handle.truncate(publishing.MOST_BYTES + 1)


REFUSED: dict[str, tuple[Callable[[Path], Any], str]] = {
    "failed": (_unfinished, "did not finish; 04_tiny, code cell 1 of 1, failed"),
    "one page missing": (lambda root: _entry(root, state="waiting"), "04_tiny is waiting"),
    "notebook never built": (_another_notebook, "05_more is not built"),
    "earlier build": (lambda root: _entry(root, build="yesterday"), "04_tiny is of an earlier build"),
    "another commit": (lambda root: _entry(root, commit="abcdef"), "different commits: 0123456789, abcdef"),
    "dirty tree": (lambda root: _entry(root, dirty=True), "04_tiny was made with changes that are not committed"),
    "notebook not committed": (lambda root: _entry(root, committed=False), "from a notebook that is not committed"),
    "another profile": (lambda root: _entry(root, profile="quick"), "04_tiny was made with profile quick"),
    "no provenance": (_without_commit, "04_tiny does not say which commit made it"),
    "changed cells": (_changed_cells, "the cells of 04_tiny.ipynb have changed since it was executed"),
    "a figure written by hand": (
        lambda root: (root / "report/cpu/figures/04_curve.png").write_bytes(b"other"),
        "04_tiny was built without figures/04_curve.png",
    ),
    "a table nobody built": (
        lambda root: (root / "report/cpu/tables/03_more.csv").write_text("a"),
        "03_tiny was built without tables/03_more.csv",
    ),
    "other data under one name": (
        lambda root: _entry(root, data=[{"data": "Phantom", "px": "64", "content": "feedface00"}]),
        "pages were made from different data under one name: Phantom 64 px: None, feedface00",
    ),
    "large file": (_large_file, "figures/04_curve.png has more than 20,000,000 bytes"),
    "lost page": (lambda root: (root / "report/cpu/04_tiny.html").unlink(), "results/html/04_tiny.html is not there"),
    "lost notebook": (
        lambda root: (root / "report/cpu/notebooks/04_tiny.ipynb").unlink(),
        "04_tiny.ipynb is not there",
    ),
    "no build": (lambda root: (root / "report/cpu/build.json").unlink(), "there is no build of profile cpu"),
}


@pytest.mark.parametrize("reason", REFUSED)
def test_a_report_is_refused_and_nothing_is_copied(root: Path, reason: str) -> None:
    spoil, message = REFUSED[reason]
    assert problems(CPU, root, root / "report" / "cpu") == []
    spoil(root)
    before = tracked(root)
    with pytest.raises(ValueError, match="report cpu must not be published: ") as error:
        publish(CPU, root=root)
    assert message in str(error.value)
    assert tracked(root) == before


@pytest.mark.parametrize("name", ["smoke", "quick"])
def test_a_profile_that_is_not_evidence_is_refused_however_complete_its_build(root: Path, name: str) -> None:
    (root / "report" / "cpu").rename(root / "report" / name)
    with pytest.raises(ValueError, match=f"profile {name} is not evidence"):
        publish(get_profile(name), root=root)


def test_the_command_says_why_in_one_line_and_exits_with_1(
    root: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(publishing, "project_root", lambda: root)
    assert main(["--profile", "huge"]) == 1
    assert capsys.readouterr().err == "profile must be one of smoke, quick, cpu, full, got 'huge'.\n"
    assert main(["--profile", "smoke"]) == 1
    assert capsys.readouterr().err == "report smoke must not be published: profile smoke is not evidence.\n"
    assert main([]) == 0
    assert "9 files published" in capsys.readouterr().out
