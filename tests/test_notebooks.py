"""Notebooks keep their shape: question and answer first, a plan, calls instead of code, claims with reasons."""

from __future__ import annotations

import ast
import os
import re
from pathlib import Path

import nbformat
import pytest
from claims import claims_of
from nbclient import NotebookClient

from cxr_helpers.study import Comparison, project_root

NOTEBOOKS = sorted((project_root() / "notebooks").glob("*.ipynb"))
MOST_LINES, MOST_WORDS, MOST_FIGURES, MOST_NAMES = 15, 2500, 10, 60
RESULT = re.compile(r"\d+\.\d{3,}|\d+\.\d+ %|±\s*\d")  # how a measured figure is written
PUBLISHED = re.compile(r"arXiv \d+\.\d+|\b10\.\d{4,}/\S+|published ResNet-18 at 224 px has 0\.956")

each_notebook = pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda p: p.stem)


def read(path: Path) -> nbformat.NotebookNode:
    return nbformat.read(path, as_version=4)


def code_of(path: Path) -> list[str]:
    return [cell.source for cell in read(path).cells if cell.cell_type == "code"]


def prose_of(path: Path) -> str:
    return "\n\n".join(cell.source for cell in read(path).cells if cell.cell_type == "markdown")


@each_notebook
def test_a_notebook_opens_with_its_question_and_answer_and_ends_with_a_conclusion(path: Path) -> None:
    first = read(path).cells[0].source
    if path.stem != "index":
        assert first.startswith(f"# {path.stem[:2]} ")
        assert all(f"**{part}.**" in first for part in ("Question", "Answer", "What goes in"))
        assert "## Conclusion" in prose_of(path)


@each_notebook
def test_imports_come_first_and_then_the_cell_of_parameters(path: Path) -> None:
    cells = [cell for cell in read(path).cells if cell.cell_type == "code"]
    assert all(isinstance(node, ast.Import | ast.ImportFrom) for node in ast.parse(cells[0].source).body)
    assert [i for i, cell in enumerate(cells) if "parameters" in cell.metadata.get("tags", [])] == [1]
    assert "get_profile()" in cells[1].source  # the build names the profile


@each_notebook
def test_cells_are_short_define_nothing_and_write_through_show_alone(path: Path) -> None:
    for source in code_of(path):
        nodes = list(ast.walk(ast.parse(source)))
        assert source.startswith(("from ", "import ")) or len(source.splitlines()) <= MOST_LINES, source
        assert not [n for n in nodes if isinstance(n, ast.FunctionDef | ast.ClassDef | ast.Lambda | ast.While)], source
        assert not {n.attr for n in nodes if isinstance(n, ast.Attribute)} & {"savefig", "to_csv", "write_text"}, source
        assert not {n.id for n in nodes if isinstance(n, ast.Name)} & {"open"}, source


@each_notebook
def test_a_page_is_short_enough_to_be_read(path: Path) -> None:
    assert len(prose_of(path).split()) <= MOST_WORDS
    assert "".join(code_of(path)).count("save_figure(") <= MOST_FIGURES


@each_notebook
def test_prose_types_no_result(path: Path) -> None:
    assert not RESULT.findall(PUBLISHED.sub("", prose_of(path)))


@each_notebook
def test_no_output_names_a_place_on_one_machine(path: Path) -> None:
    text = path.read_text()
    assert str(project_root()) not in text and str(Path.home()) + "/" not in text and "file:///" not in text


@each_notebook
def test_every_claim_names_what_it_rests_on(path: Path) -> None:
    assert claims_of(read(path)) or path.stem.startswith("02")


def test_a_claim_about_a_comparison_turns_with_the_results_and_says_when_there_are_none() -> None:
    better = Comparison(a="a", b="b", difference=2.0, low=1.0, high=3.0, seeds_a=3, seeds_b=3)
    swapped = Comparison(a="b", b="a", difference=-2.0, low=-3.0, high=-1.0, seeds_a=3, seeds_b=3)
    close = Comparison(a="a", b="b", difference=0.1, low=-1.0, high=1.0, seeds_a=3, seeds_b=3)
    none = Comparison(a="a", b="b")
    judged = 0
    for path in NOTEBOOKS:
        for claim in claims_of(read(path)):
            kind = claim.condition.rpartition(".")[2]
            if "." in claim.condition and kind in ("better", "worse", "tie"):
                names = {"film": [], "chest": [], "here_too": [], "rows": [], "first": "", "pick": lambda *_, **__: []}
                found = [
                    claim.judge({**names, **dict.fromkeys(("versus", "start", "floor", "ceiling", "plain", "asked"), c),
                                 "compare": lambda *_, result=c, **__: result})
                    for c in (better, swapped, close, none)
                ]  # fmt: skip
                expected = {"better": [True, False, False], "worse": [False, True, False], "tie": [False, False, True]}
                assert found == [*expected[kind], None], claim
                judged += 1
    assert judged >= 15


def test_the_notebooks_need_few_names_of_the_package() -> None:
    used = set()
    assignment = [path for path in NOTEBOOKS if path.stem[:2] <= "05"]
    for source in (source for path in assignment for source in code_of(path)):
        nodes = list(ast.walk(ast.parse(source)))
        used |= {a.name for n in nodes if isinstance(n, ast.ImportFrom) and "cxr" in str(n.module) for a in n.names}
        modules = {"plots", "plots_eda", "plots_evidence", "pictures", "show", "eda", "leaks", "similarity", "controls"}
        modules |= {"decisions", "frozen"}
        attributes = [n for n in nodes if isinstance(n, ast.Attribute) and isinstance(n.value, ast.Name)]
        used |= {n.attr for n in attributes if n.value.id in modules}  # type: ignore[attr-defined]
    assert len(used) <= MOST_NAMES, sorted(used)


@pytest.mark.slow
@each_notebook
def test_a_notebook_runs_top_to_bottom_on_the_smoke_profile(
    path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in {"PROFILE": "smoke", "RESULTS": tmp_path / "results", "REPORT": tmp_path / "report"}.items():
        monkeypatch.setenv(f"CXR_{name}", str(value))
    notebook = read(path)
    client = NotebookClient(notebook, timeout=1200, kernel_name="python3", env=dict(os.environ))
    client.resources = {"metadata": {"path": str(project_root())}}
    client.execute()
    assert list((tmp_path / "report" / "tables").glob(f"{path.stem.split('_')[0]}_*.csv"))
    assert str(tmp_path) not in str([cell.get("outputs") for cell in notebook.cells])
