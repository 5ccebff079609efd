"""The part of a lesson that its explorer needs: its cell, the statements that define what it uses, and so on back.

Pictures, printed evidence and training loops of the lesson are left out, so that an explorer is ready in seconds.
"""

import ast
import symtable

import nbformat
from IPython.core.inputtransformer2 import TransformerManager

from tests.helpers import ROOT

FEW_STEPS = 3  # of training, where the explorer shows a network's work: it draws as fast as a trained one


def names(statement):
    """The names that a statement binds at the top level, and those that it uses from elsewhere, in functions too."""
    table = symtable.symtable(ast.unparse(statement), "statement", "exec")
    bound = {s.get_name() for s in table.get_symbols() if s.is_assigned() or s.is_imported()}
    used, inner = {s.get_name() for s in table.get_symbols() if s.is_referenced()}, table.get_children()
    while inner:
        scope = inner.pop()
        used |= {s.get_name() for s in scope.get_symbols() if s.is_global() and s.is_referenced()}
        inner += scope.get_children()
    targets = [statement.target] if isinstance(statement, ast.For) else []
    return bound, used - {n.id for target in targets for n in ast.walk(target) if isinstance(n, ast.Name)}


def statements(source):
    """The statements of a cell; a magic line is one."""
    return ast.parse(TransformerManager().transform_cell(source)).body


def needed(earlier, last):
    """Those of the earlier statements that the last ones need."""
    kept, wanted = [], set()
    for statement in reversed([*earlier, *last]):
        bound, used = names(statement)
        if bound & wanted or statement in last:
            kept.insert(0, statement)
            wanted = (wanted - bound) | used
    return kept


def explorer_cells(name, tree="notebooks"):
    """The sources of code cells that show a lesson's explorer, the last of them; its set-up cells come first.

    Numbers of training steps are replaced by a few.
    """
    cells = [c for c in nbformat.read(ROOT / tree / f"{name}.ipynb", as_version=4).cells if c.cell_type == "code"]
    at = next(i for i, cell in enumerate(cells) if "Explorer(" in cell.source)
    before = [cell for cell in cells[:at] if cell.metadata["coursework"]["role"] != "setup"]
    setup = [cell.source for cell in cells[:at] if cell not in before]
    steps = [n for source in setup[:1] for statement in statements(source) for n in names(statement)[0] if "steps" in n]
    setup.insert(1, "\n".join(f"{n} = {FEW_STEPS}" for n in steps))
    body = needed([s for cell in before for s in statements(cell.source)], statements(cells[at].source))
    kept = body[: -len(statements(cells[at].source))]
    return [source for source in (*setup, "\n".join(map(ast.unparse, kept)), cells[at].source) if source]
