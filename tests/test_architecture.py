"""The package's shape: imports go down one list, the loop knows no method, the public names are documented."""

import ast
import importlib
import inspect
import re
import subprocess
from importlib.util import resolve_name
from pathlib import Path

import pytest

import cxr_helpers
from cxr_helpers.methods import METHODS, load_method

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "cxr_helpers"
LIST = """
lazy fields config data augment models methods environment writing runs recipes command
probe loop evaluate pretrain detect study report
"""
ROOMS = LIST.split()
DOORS = (
    "augment",
    "data",
    "detect",
    "loop",
    "methods",
    "models",
    "probe",
    "study",
)  # their `__init__` is the only way in


def file_of(module: str) -> Path:
    """The source of a module or package of this package."""
    path = PACKAGE / module.replace(".", "/")
    return path / "__init__.py" if path.is_dir() else path.with_suffix(".py")


PATHS = [path.relative_to(PACKAGE).with_suffix("").as_posix() for path in PACKAGE.rglob("*.py")]
MODULES = sorted(path.removesuffix("/__init__").replace("/", ".") for path in PATHS if path != "__init__")
MEET_METHODS = ("config", "methods", "profiles", "study", "plans", "plots", "report")
PUBLIC = (
    "explore_augmentations",
    *("load_dataset", "POLICIES", "AugmentationPolicy", "TwoViews", "eval_transform"),
    *("nt_xent_loss", "vicreg_loss", "LARS", "lr_at", "PretrainConfig", "pretrain", "linear_probe", "knn_probe"),
)


def origin(module: str, node: ast.ImportFrom) -> set[str]:
    """The modules below cxr_helpers that one import statement of a module names."""
    here = f"cxr_helpers.{module}"
    package = here if file_of(module).name == "__init__.py" else here.rpartition(".")[0]
    found = resolve_name("." * node.level + (node.module or ""), package)
    if not found.startswith("cxr_helpers"):
        return set()
    names = [found] if node.module else [f"{found}.{alias.name}" for alias in node.names]
    return {name.partition(".")[2] or "__init__" for name in names}


def imported(module: str) -> set[str]:
    """The modules of this package that a module imports, but for annotations alone."""
    tree = ast.parse(file_of(module).read_text())
    blocks = [n for n in ast.walk(tree) if isinstance(n, ast.If) and ast.unparse(n.test) == "TYPE_CHECKING"]
    typing_only = {id(n) for block in blocks for n in ast.walk(block)}
    names: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and id(node) not in typing_only:
            names |= origin(module, node)
        elif isinstance(node, ast.Import):
            names |= {a.name.partition(".")[2] or "__init__" for a in node.names if a.name.startswith("cxr_helpers")}
    return names


def test_every_room_of_the_package_has_its_place() -> None:
    assert {m.split(".")[0] for m in MODULES} == set(ROOMS)


@pytest.mark.parametrize("module", MODULES)
def test_imports_go_down_the_rooms_and_through_their_doors(module: str) -> None:
    room = module.split(".")[0]
    for name in imported(module):
        other = name.split(".")[0]
        if other == room:
            continue
        assert ROOMS.index(other) < ROOMS.index(room), f"{module} imports {name} from above"
        assert other not in DOORS or name == other, f"{module} imports {name} past its door"


@pytest.mark.parametrize("module", [m for m in MODULES if m.split(".")[0] not in MEET_METHODS])
def test_a_module_below_the_methods_names_none_of_them(module: str) -> None:
    tree = ast.parse(file_of(module).read_text())
    docstrings = {id(n.value) for n in ast.walk(tree) if isinstance(n, ast.Expr) and isinstance(n.value, ast.Constant)}
    texts = {n.value for n in ast.walk(tree) if isinstance(n, ast.Constant) and id(n) not in docstrings}
    names = {n.id for n in ast.walk(tree) if isinstance(n, ast.Name)}
    others = {"rotation", "supervised" if module == "augment.catalogue" else ""}  # an angle; a policy
    assert not texts & (set(METHODS) - others)
    assert not names & {load_method(name).__name__ for name in METHODS}


@pytest.mark.parametrize("module", ["loop/fit.py", "loop/step.py", "pretrain.py"])
def test_the_loop_asks_a_method_for_nothing_outside_the_contract(module: str) -> None:
    text = (PACKAGE / module).read_text()
    assert "hasattr" not in text and "isinstance(t.method" not in text
    assert not re.search(r"if .*method ==", text)


def test_a_notebook_can_import_the_public_names() -> None:
    assert set(PUBLIC) <= set(cxr_helpers.__all__) and all(hasattr(cxr_helpers, name) for name in PUBLIC)


@pytest.mark.parametrize("module", MODULES)
def test_every_public_name_is_there_and_documented(module: str) -> None:
    loaded = importlib.import_module(f"cxr_helpers.{module}")
    assert (loaded.__doc__ or "").strip()
    for name in getattr(loaded, "__all__", []):
        value = getattr(loaded, name)
        if inspect.isfunction(value) or inspect.isclass(value):
            text = value.__doc__ or ""
            assert text.strip() and not text.startswith(f"{name}("), f"{module}.{name} has no docstring"


def test_a_function_can_be_seen_whole_and_a_file_has_one_idea_and_a_name_of_its_own() -> None:
    long = [
        f"{module}.{node.name}: {lines} lines"
        for module in MODULES
        for node in ast.walk(ast.parse(file_of(module).read_text()))
        if isinstance(node, ast.FunctionDef) and (lines := (node.end_lineno or 0) - node.lineno + 1) > 70
    ]
    assert not long
    own = [p for p in tracked() if PACKAGE in p.parents and p.suffix in SOURCE]
    assert {p.name: n for p in own if (n := lines_of(p)) > 300} == {}
    names = [p.name for p in own if p.name != "__init__.py"]
    assert len(names) == len(set(names))


def test_no_tracked_text_names_a_place_on_one_machine() -> None:
    place = re.compile(r"(?<![\w.])/(?:home|root|Users|work|mnt|scratch)/\w")
    kinds = {".py", ".md", ".toml", ".yml", ".yaml", ".json", ".csv", ".ipynb", ".lock", ".txt", ".html", ""}
    assert not [path for path in tracked() if path.suffix in kinds and place.search(path.read_text("utf-8"))]


# Budgets: they may fall, never rise but for a new system.
MOST_LINES = {"cxr_helpers": 11_950, "tests": 7_430, "benchmarks": 400, "train.py": 85, "detect.py": 104}
SOURCE = {".py", ".css", ".js", ".j2"}


def tracked() -> list[Path]:
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=False)
    if listed.returncode:
        pytest.skip("not a git checkout")
    return [ROOT / name for name in listed.stdout.splitlines() if (ROOT / name).is_file()]


def lines_of(path: Path) -> int:
    return path.read_text().count("\n")


@pytest.mark.parametrize("place", MOST_LINES)
def test_a_part_of_the_house_has_no_more_lines_than_it_may(place: str) -> None:
    own = [p for p in tracked() if p.relative_to(ROOT).as_posix().split("/")[0] == place and p.suffix in SOURCE]
    assert 0 < sum(map(lines_of, own)) <= MOST_LINES[place]


def test_the_words_around_the_report_are_few() -> None:
    pages = [p for p in tracked() if p.suffix == ".md"]
    assert (ROOT / "README.md").stat().st_size <= 12_000
    assert sum(p.stat().st_size for p in pages) <= 40_000
