"""One environment, said once: pyproject.toml, the lock file, environment.yml, the Makefile and CI agree."""

import re
import tomllib
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.version import Version

ROOT = Path(__file__).resolve().parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
PINS = dict(re.findall(r"^([a-z0-9._-]+)==([^ \n]+)", (ROOT / "requirements.lock").read_text(), re.MULTILINE))
WANTED = PROJECT["project"]["dependencies"] + PROJECT["project"]["optional-dependencies"]["dev"]


@pytest.mark.parametrize("wanted", [Requirement(text) for text in WANTED], ids=str)
def test_the_lock_file_pins_every_dependency_inside_its_range(wanted: Requirement) -> None:
    assert Version(PINS[wanted.name.lower()]) in wanted.specifier


def test_the_conda_environment_is_the_same_python_lock_file_and_package() -> None:
    conda = yaml.safe_load((ROOT / "environment.yml").read_text())
    python, pip, from_pip = conda["dependencies"]
    assert (python, pip) == ("python" + PROJECT["project"]["requires-python"], "pip")
    assert from_pip == {"pip": ["-r requirements.lock", "-e ."]}


def test_what_a_page_is_made_of_travels_with_the_package() -> None:
    listed = PROJECT["tool"]["setuptools"]["package-data"]["cxr_helpers.report"]
    folder = ROOT / "cxr_helpers" / "report"
    assert sorted(listed) == sorted(path.name for path in folder.iterdir() if path.is_file() and path.suffix != ".py")
