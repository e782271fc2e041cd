"""Notebooks keep their shape: question and answer first, a plan, calls instead of code, claims with reasons."""

import ast
import builtins
import os
import re
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import nbformat
import pytest
from nbclient import NotebookClient
from nbformat.v4 import new_code_cell, new_notebook

from cxr_helpers.study import Comparison, project_root

NOTEBOOKS = sorted((project_root() / "notebooks").glob("*.ipynb"))
MOST_LINES, MOST_WORDS, MOST_FIGURES, MOST_NAMES = 15, 2500, 10, 60
RESULT = re.compile(r"\d+\.\d{3,}|\d+\.\d+ %|±\s*\d")  # how a measured figure is written
PUBLISHED = re.compile(r"arXiv \d+\.\d+|\b10\.\d{4,}/\S+|published ResNet-18 at 224 px has 0\.956")


def claims_of(notebook: nbformat.NotebookNode) -> list[str]:
    """The condition of every claim in a notebook's code, to be judged again with other results; it must name one."""
    found = []
    trees = [ast.parse(cell.source) for cell in notebook.cells if cell.cell_type == "code"]
    for call in (node for tree in trees for node in ast.walk(tree) if isinstance(node, ast.Call)):
        if ast.unparse(call.func).rpartition(".")[2] == "claim":
            _, condition = (*call.args, *(keyword.value for keyword in call.keywords))
            named = {node.id for node in ast.walk(condition) if isinstance(node, ast.Name)} - set(dir(builtins))
            if not named:
                raise ValueError(f"a claim's condition must name a result, got {ast.unparse(call)}")
            found.append(ast.unparse(condition))
    return found


each_notebook = pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda p: p.stem)


@pytest.mark.parametrize("literal", ["True", "1 < 2", "bool(1)"])
def test_a_claims_condition_must_name_a_result(literal: str) -> None:
    with pytest.raises(ValueError, match="a claim's condition must name a result, got claim"):
        claims_of(new_notebook(cells=[new_code_cell(f'claim("Yes.", {literal})')]))


def read(path: Path) -> nbformat.NotebookNode:
    return nbformat.read(path, as_version=4)


def code_of(path: Path) -> list[str]:
    return [cell.source for cell in read(path).cells if cell.cell_type == "code"]


def prose_of(path: Path) -> str:
    return "\n\n".join(cell.source for cell in read(path).cells if cell.cell_type == "markdown")


@each_notebook
def test_a_notebook_opens_with_question_imports_and_parameters_and_ends_with_a_conclusion(path: Path) -> None:
    first, prose = read(path).cells[0].source, prose_of(path)
    if path.stem != "index":
        assert first.startswith(f"# {path.stem[:2]} ") and "## Conclusion" in prose
        assert all(f"**{part}.**" in first for part in ("Question", "Answer", "What goes in"))
    imports, parameters, *_ = (cell for cell in read(path).cells if cell.cell_type == "code")
    assert all(isinstance(node, ast.Import | ast.ImportFrom) for node in ast.parse(imports.source).body)
    assert parameters.metadata["tags"] == ["parameters"]
    assert "get_profile()" in parameters.source  # the build names the profile


@each_notebook
def test_cells_and_pages_are_short_define_nothing_type_no_result_and_rest_claims_on_one(path: Path) -> None:
    for source in code_of(path):
        nodes = list(ast.walk(ast.parse(source)))
        assert source.startswith(("from ", "import ")) or len(source.splitlines()) <= MOST_LINES, source
        assert not [n for n in nodes if isinstance(n, ast.FunctionDef | ast.ClassDef | ast.Lambda | ast.While)], source
        assert not {n.attr for n in nodes if isinstance(n, ast.Attribute)} & {"savefig", "to_csv", "write_text"}, source
        assert not {n.id for n in nodes if isinstance(n, ast.Name)} & {"open"}, source
    prose = prose_of(path)
    assert len(prose.split()) <= MOST_WORDS and "".join(code_of(path)).count("save_figure(") <= MOST_FIGURES
    assert not RESULT.findall(PUBLISHED.sub("", prose))
    assert claims_of(read(path))


def test_the_assignments_notebooks_need_few_names_of_the_package() -> None:
    names: set[str] = set()
    for path in (path for path in NOTEBOOKS if path.stem[:2] <= "05"):
        nodes = [node for source in code_of(path) for node in ast.walk(ast.parse(source))]
        imports = [n for n in nodes if isinstance(n, ast.ImportFrom) and str(n.module).startswith("cxr_helpers")]
        places = {alias.name: f"{node.module}.{alias.name}" for node in imports for alias in node.names}
        modules = {name for name, place in places.items() if find_spec(place)}
        attributes = {ast.unparse(n): ast.unparse(n.value) for n in nodes if isinstance(n, ast.Attribute)}
        names |= {*places, *(name for name, of in attributes.items() if of in modules)}
    assert 40 < len(names) <= MOST_NAMES, sorted(names)


def test_a_claim_about_a_comparison_turns_with_the_results_and_says_when_there_are_none() -> None:
    none, seeds = Comparison(a="a", b="b"), {"seeds_a": 3, "seeds_b": 3}
    results = [replace(none, difference=d, low=d - 1, high=d + 1, **seeds) for d in (2.0, -2.0, 0.1)]
    expected = {"better": [True, False, False], "worse": [False, True, False], "tie": [False, False, True]}
    compared = ("versus", "start", "floor", "ceiling", "plain", "asked", "alone", "after")
    claims = [claim for path in NOTEBOOKS for claim in claims_of(read(path))]
    judged = [claim for claim in claims if claim.rpartition(".")[2] in expected and "." in claim]
    assert len(judged) >= 15
    for claim in judged:
        found = []
        for result in (*results, none):
            names: dict[str, Any] = dict.fromkeys(compared, result)
            names |= {name: [] for name in ("film", "chest", "here_too", "rows", "first")}
            names |= {"compare": lambda *_, result=result, **__: result, "pick": lambda *_, **__: []}
            found.append(eval(claim, names))
        assert found == [*expected[claim.rpartition(".")[2]], None], claim


@pytest.mark.slow
@each_notebook
def test_a_notebook_runs_on_the_smoke_profile(path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"PROFILE": "smoke", "RESULTS": tmp_path / "results", "REPORT": tmp_path / "report"}.items():
        monkeypatch.setenv(f"CXR_{name}", str(value))
    notebook = read(path)
    client = NotebookClient(notebook, timeout=1200, kernel_name="python3", env=dict(os.environ))
    client.resources = {"metadata": {"path": str(project_root())}}
    client.execute()
    assert list((tmp_path / "report" / "tables").glob(f"{path.stem.split('_')[0]}_*.csv"))
    assert str(tmp_path) not in str([cell.get("outputs") for cell in notebook.cells])
