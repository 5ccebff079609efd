"""A whole lesson in this process: small and in seconds, or with its own sizes and another seed.

Its measured claims belong to its own sizes. Where it is small, every cell runs, in order, and nothing is claimed.
"""

import ast
import contextlib
import hashlib
import io
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from unittest import mock

import matplotlib
import matplotlib.pyplot as plt
import nbformat
from matplotlib.figure import Figure
from nbformat import NotebookNode

from coursework import evidence, plots, widgets
from tests.helpers import ROOT
from tests.helpers.explorer_cells import statements


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


def run_with_its_claims(name: str, seed: int) -> str:
    """What the worked lesson's cells print with its own sizes and this seed. Raises where a claim does not hold."""
    with _lesson(name, "solutions", {"seed": seed}) as (cells, execute):
        return "".join(map(execute, cells))


def run_again(name: str) -> dict[str, tuple[str, str]]:
    """What each cell of an untouched lesson prints and draws, and when it is run again after the last one, by its id.

    A learner's choice of parameters is none of a cell's results: their cell is not run again.
    """
    with _lesson(name, "notebooks") as (cells, execute), mock.patch.object(evidence, "_stop_unless"):
        first = {cell.id: execute(cell) for cell in cells}
        return {cell.id: (first[cell.id], execute(cell)) for cell in cells if not _sets_parameters(cell)}


@contextlib.contextmanager
def _lesson(
    name: str, tree: str, chosen: dict[str, int] | None = None
) -> Iterator[tuple[list[NotebookNode], Callable[[NotebookNode], str]]]:
    """The lesson's cells of code, and what executes one of them and returns its text, with a digest of each picture."""
    path, space = Path(ROOT, tree, f"{name}.ipynb"), {"__name__": "__main__"}
    cells = [cell for cell in nbformat.read(path, as_version=4).cells if cell.cell_type == "code"]

    def execute(cell: NotebookNode) -> str:
        body = ast.Module(statements(cell.source), [])
        body = WithoutAsserts().visit(body) if chosen is None else body
        with contextlib.redirect_stdout(io.StringIO()) as printed:
            exec(compile(body, f"{name}, cell {cell.id}", "exec"), space)
        if _sets_parameters(cell):
            space.update(chosen or {key: small(key, value) for key, value in space.items()})
        return printed.getvalue()

    with (
        contextlib.chdir(path.parent),
        mock.patch.object(plots, "png", _png),
        mock.patch.object(widgets, "png", _png),
        matplotlib.rc_context(),
        warnings.catch_warnings(action="ignore"),
    ):
        yield cells, execute
        plt.close("all")


def _sets_parameters(cell: NotebookNode) -> bool:
    return "parameters" in cell.metadata.get("tags", [])


def _png(figure: Figure, png: Callable[[Figure], bytes] = plots.png) -> bytes:
    """The picture; what it shows is told by a digest."""
    data = png(figure)
    print("picture", hashlib.sha256(data).hexdigest())
    return data
