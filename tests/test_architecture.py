"""The package's shape: imports go down one list, the loop knows no method, the public names are documented."""

from __future__ import annotations

import ast
import importlib
import inspect
import re
import subprocess
from pathlib import Path

import pytest

import cxr_helpers
from cxr_helpers.methods import METHODS

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "cxr_helpers"
LIST = """
config profiles policy policies
phantom_shapes phantom_chest phantom download archives stratify folders sources data
geometry photometric randaugment augment
backbones losses methods optim metrics bootstrap features logistic probe
runs devices recipes monitor pretrain evaluate
tables prose published study drawing plots explorer report
"""
ORDER = LIST.split()
MODULES = sorted(path.stem for path in PACKAGE.glob("*.py") if path.stem != "__init__")
MEET_METHODS = {"config", "methods", "profiles", "tables", "prose", "published", "study", "drawing", "plots", "report"}
PUBLIC = (  # explore_augmentations joins them with the explorer
    *("load_dataset", "POLICIES", "AugmentationPolicy", "TwoViews", "eval_transform"),
    *("nt_xent_loss", "vicreg_loss", "LARS", "lr_at", "PretrainConfig", "pretrain", "linear_probe", "knn_probe"),
)


def imported(module: str) -> set[str]:
    """The modules of this package that a module imports, wherever in it."""
    names: set[str] = set()
    for node in ast.walk(ast.parse((PACKAGE / f"{module}.py").read_text())):
        if isinstance(node, ast.ImportFrom) and node.level == 1:
            names |= {node.module.split(".")[0]} if node.module else {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and (node.module or "").startswith("cxr_helpers"):
            names.add((node.module or "").partition(".")[2] or "__init__")
        elif isinstance(node, ast.Import):
            names |= {a.name.partition(".")[2] or "__init__" for a in node.names if a.name.startswith("cxr_helpers")}
    return names


def only_for_types(module: str) -> set[str]:
    """What a module imports under TYPE_CHECKING alone: names in annotations, which nothing runs."""
    tree = ast.parse((PACKAGE / f"{module}.py").read_text())
    blocks = [n for n in ast.walk(tree) if isinstance(n, ast.If) and ast.unparse(n.test) == "TYPE_CHECKING"]
    inside = {n for block in blocks for n in ast.walk(block) if isinstance(n, ast.ImportFrom)}
    outside = {n for n in ast.walk(tree) if isinstance(n, ast.ImportFrom)} - inside
    return {n.module or "" for n in inside} - {n.module or "" for n in outside}


def test_every_module_of_the_package_has_its_place_in_the_list() -> None:
    assert not set(MODULES) - set(ORDER)
    assert len(ORDER) == len(set(ORDER))


@pytest.mark.parametrize("module", MODULES)
def test_a_module_imports_only_from_those_above_it_in_the_list(module: str) -> None:
    above = set(ORDER[: ORDER.index(module)])
    assert imported(module) - only_for_types(module) <= above


@pytest.mark.parametrize("module", [m for m in MODULES if m not in MEET_METHODS])
def test_a_module_below_the_methods_names_none_of_them(module: str) -> None:
    tree = ast.parse((PACKAGE / f"{module}.py").read_text())
    docstrings = {id(n.value) for n in ast.walk(tree) if isinstance(n, ast.Expr) and isinstance(n.value, ast.Constant)}
    texts = {
        n.value
        for n in ast.walk(tree)
        if isinstance(n, ast.Constant) and isinstance(n.value, str) and id(n) not in docstrings
    }
    names = {n.id for n in ast.walk(tree) if isinstance(n, ast.Name)}
    policies = {"supervised"} if module == "policies" else set()  # a policy has this name, too
    assert not texts & (set(METHODS) - policies)
    assert not names & {cls.__name__ for cls in METHODS.values()}


def test_the_loop_asks_a_method_for_nothing_outside_the_contract() -> None:
    text = (PACKAGE / "pretrain.py").read_text()
    assert "hasattr" not in text and "isinstance(t.method" not in text
    assert not re.search(r"if .*method ==", text)


@pytest.mark.parametrize("name", PUBLIC)
def test_a_notebook_can_import_the_public_names(name: str) -> None:
    assert hasattr(cxr_helpers, name) and name in cxr_helpers.__all__


@pytest.mark.parametrize("module", MODULES)
def test_every_public_name_is_there_and_documented(module: str) -> None:
    loaded = importlib.import_module(f"cxr_helpers.{module}")
    assert (loaded.__doc__ or "").strip()
    for name in getattr(loaded, "__all__", []):
        value = getattr(loaded, name)
        if inspect.isfunction(value) or inspect.isclass(value):
            text = value.__doc__ or ""
            assert text.strip() and not text.startswith(f"{name}("), f"{module}.{name} has no docstring"


def test_no_function_is_longer_than_can_be_seen_whole() -> None:
    long = [
        f"{module}.{node.name}: {lines} lines"
        for module in MODULES
        for node in ast.walk(ast.parse((PACKAGE / f"{module}.py").read_text()))
        if isinstance(node, ast.FunctionDef) and (lines := (node.end_lineno or 0) - node.lineno + 1) > 70
    ]
    assert not long


def test_no_tracked_text_names_a_place_on_one_machine() -> None:
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=False)
    if listed.returncode:
        pytest.skip("not a git checkout")
    place = re.compile(r"(?<![\w.])/(?:home|root|Users|work|mnt|scratch)/\w")
    kinds = {".py", ".md", ".toml", ".yml", ".yaml", ".json", ".csv", ".ipynb", ".lock", ".txt", ".html", ""}
    found = [
        name
        for name in listed.stdout.splitlines()
        if (ROOT / name).is_file() and Path(name).suffix in kinds and place.search((ROOT / name).read_text("utf-8"))
    ]
    assert not found
