"""Notebooks keep their shape: a question first, one tagged parameters cell, calls instead of code, no typed results."""

from __future__ import annotations

import ast
import os
import re
from pathlib import Path

import nbformat
import pytest
from cxr_helpers.planning import project_root
from nbclient import NotebookClient

NOTEBOOKS = sorted((project_root() / "notebooks").glob("*.ipynb"))
MOST_LINES = 14
RESULT = re.compile(r"\d*\.\d{2,}|\d\s*%|±\s*\d")  # how a measured figure is written
NOT_RESULTS = re.compile(r"arXiv \d+\.\d+|\b10\.\d{4,}/\S+|95 %|https?://\S+")

pytestmark = pytest.mark.skipif(not NOTEBOOKS, reason="no notebooks")
each_notebook = pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda p: p.stem)


def _read(path: Path) -> nbformat.NotebookNode:
    return nbformat.read(path, as_version=4)


def _code(path: Path) -> list[str]:
    return [cell.source for cell in _read(path).cells if cell.cell_type == "code"]


@each_notebook
def test_a_notebook_opens_with_its_question_what_goes_in_what_comes_out_and_how_long(path: Path) -> None:
    first = _read(path).cells[0]
    assert first.cell_type == "markdown" and first.source.startswith(f"# {path.stem[:2]} ")
    for part in ("Question", "goes in", "comes out", "How long"):
        assert part in first.source


@each_notebook
def test_imports_come_first_and_then_one_cell_tagged_parameters(path: Path) -> None:
    cells = [cell for cell in _read(path).cells if cell.cell_type == "code"]
    imports = [isinstance(node, ast.Import | ast.ImportFrom) for node in ast.parse(cells[0].source).body]
    assert all(imports)
    assert [i for i, cell in enumerate(cells) if "parameters" in cell.metadata.get("tags", [])] == [1]


@each_notebook
def test_cells_call_and_define_nothing(path: Path) -> None:
    for source in _code(path):
        nodes = list(ast.walk(ast.parse(source)))
        defined = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef, ast.Lambda, ast.While)
        assert not [node for node in nodes if isinstance(node, defined)], source
        used = {node.attr for node in nodes if isinstance(node, ast.Attribute)}
        assert not used & {"backward", "zero_grad", "set_xlabel", "set_ylabel", "rcParams", "savefig", "to_csv"}, source


@each_notebook
def test_code_cells_are_short(path: Path) -> None:
    for source in _code(path):
        assert len([line for line in source.splitlines() if line.strip()]) <= MOST_LINES, source


@each_notebook
def test_no_cell_names_a_path(path: Path) -> None:
    for source in _code(path):
        strings = [
            n.value for n in ast.walk(ast.parse(source)) if isinstance(n, ast.Constant) and isinstance(n.value, str)
        ]
        assert not [s for s in strings if re.match(r"(/|~|\.\.?/|[A-Za-z]:\\)", s)], source


@each_notebook
def test_no_output_carries_a_path_of_the_machine_that_made_it(path: Path) -> None:
    text = path.read_text()
    assert str(project_root()) not in text and str(Path.home()) + "/" not in text and "file:///" not in text


@each_notebook
def test_prose_cells_state_no_measured_figure(path: Path) -> None:
    for cell in _read(path).cells:
        if cell.cell_type == "markdown":
            quoted = "\n".join(line for line in cell.source.splitlines() if not line.startswith(">"))
            found = RESULT.findall(NOT_RESULTS.sub("", quoted))
            assert not found, f"{found} in: {cell.source[:80]}"


@each_notebook
def test_every_code_cell_with_a_result_follows_a_question_or_a_reason(path: Path) -> None:
    cells = _read(path).cells
    words = sum(len(cell.source.split()) for cell in cells if cell.cell_type == "markdown")
    lines = sum(len(source.splitlines()) for source in _code(path))
    assert words >= 6 * lines


@each_notebook
def test_only_the_report_writes_files(path: Path) -> None:
    for source in _code(path):
        called = {
            n.func.id for n in ast.walk(ast.parse(source)) if isinstance(n, ast.Call) and isinstance(n.func, ast.Name)
        }
        assert "open" not in called, source


@pytest.mark.slow
@each_notebook
def test_a_notebook_runs_top_to_bottom_on_the_smoke_profile(
    path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in {"PROFILE": "smoke", "RESULTS": tmp_path / "results", "REPORT": tmp_path / "report"}.items():
        monkeypatch.setenv(f"CXR_{name}", str(value))
    before = set(project_root().glob("report/smoke/**/*"))
    notebook = _read(path)
    client = NotebookClient(notebook, timeout=1200, kernel_name="python3", env=dict(os.environ))
    client.resources = {"metadata": {"path": str(project_root())}}
    client.execute()
    number = path.stem[:2]
    assert sorted((tmp_path / "report/figures").glob(f"{number}_*.png"))
    assert sorted((tmp_path / "report/tables").glob(f"{number}_*.csv"))
    assert set(project_root().glob("report/smoke/**/*")) == before
    shown = str([cell.get("outputs") for cell in notebook.cells])
    assert "Not evidence" in shown and str(tmp_path) not in shown
