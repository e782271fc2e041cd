"""The claims of a notebook as its code has them, to be judged again with other results."""

import ast
import builtins
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from nbformat import NotebookNode


@dataclass(frozen=True)
class ClaimSource:
    """A claim as its cell has it: two expressions."""

    sentence: str
    condition: str

    def judge(self, names: Mapping[str, Any]) -> bool | None:
        """What the condition comes to with other results under the cell's names."""
        return eval(self.condition, dict(names))


def claims_of(notebook: NotebookNode) -> list[ClaimSource]:
    """Every claim in a notebook's code; one whose condition names no result is a ValueError."""
    found = []
    trees = [ast.parse(cell.source) for cell in notebook.cells if cell.cell_type == "code"]
    for call in (node for tree in trees for node in ast.walk(tree) if isinstance(node, ast.Call)):
        if ast.unparse(call.func).rpartition(".")[2] == "claim":
            sentence, condition = (*call.args, *(keyword.value for keyword in call.keywords))
            named = {node.id for node in ast.walk(condition) if isinstance(node, ast.Name)} - set(dir(builtins))
            if not named:
                raise ValueError(f"a claim's condition must name a result, got {ast.unparse(call)}")
            found.append(ClaimSource(ast.unparse(sentence), ast.unparse(condition)))
    return found
