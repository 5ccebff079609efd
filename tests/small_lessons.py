"""A whole lesson in this process and in seconds: few steps of training, small samples, none of its measured claims.

Its own sizes belong to its claims: with those it runs in a kernel. Here every cell runs, in order, on something small.
"""

import ast
import contextlib
import io
import warnings
from pathlib import Path

import matplotlib
import matplotlib.pyplot as plt
import nbformat

from tests.explorer_cells import ROOT, statements


class WithoutAsserts(ast.NodeTransformer):
    """Takes the assertions out of a cell."""

    def visit_Assert(self, node: ast.Assert) -> ast.Pass:
        """Nothing in its place."""
        return ast.copy_location(ast.Pass(), node)


def small(name: str, value: object) -> object:
    """The value that a parameter of a lesson gets here."""
    if "steps" in name:
        return 12  # with a tenth of 10 for its rise, torch's one-cycle schedule divides by 0
    return max(min(value, 10), value // 50) if name.startswith("n_") else value  # 10: as many as there are classes


def run(name: str, tree: str = "notebooks") -> str:
    """What the lesson's cells print."""
    path, space, printed = Path(ROOT, tree, f"{name}.ipynb"), {"__name__": "__main__"}, io.StringIO()
    cells = [cell for cell in nbformat.read(path, as_version=4).cells if cell.cell_type == "code"]
    with (
        contextlib.chdir(path.parent),
        contextlib.redirect_stdout(printed),
        matplotlib.rc_context(),
        warnings.catch_warnings(action="ignore"),
    ):
        for cell in cells:
            body = WithoutAsserts().visit(ast.Module(statements(cell.source), []))
            exec(compile(body, f"{name}, cell {cell.id}", "exec"), space)
            if "parameters" in cell.metadata.get("tags", []):
                space |= {key: small(key, value) for key, value in space.items()}
        plt.close("all")
    return printed.getvalue()
