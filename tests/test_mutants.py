"""The list of one-line mutations fits the code: whether a test notices each, `python -m tests.guards.mutants` shows."""

import ast

import pytest
from guards.mutants import CORE, MUTANTS, Mutant


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.name)
def test_a_mutants_text_stands_once_in_the_package_and_its_change_can_be_read(mutant: Mutant) -> None:
    assert mutant.files and (mutant.words or set(mutant.files) <= set(CORE))
    source = mutant.file().read_text().replace(mutant.old, mutant.new)
    assert ast.parse(source)


def test_mutants_have_names_of_their_own() -> None:
    names = [mutant.name for mutant in MUTANTS]
    assert len(set(names)) == len(names) >= 70
