"""From a notebook's cells to one function: only the statements that it needs are run.

Runs in the sandboxed process. Nothing of a lesson's training or plotting is executed: imports, functions and classes
are taken from any cell, other assignments from the set-up cells and from the learner's own, each only where the
function needs its name, directly or through others.
"""

import ast
import builtins
import dis
import linecache
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import CodeType
from typing import Any

from coursework.grading.withheld import Refused

LOOK_UPS = ("LOAD_NAME", "LOAD_GLOBAL", "LOAD_FROM_DICT_OR_GLOBALS")
DEFINITIONS = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef, ast.Import, ast.ImportFrom)


class CellError(Exception):
    """The function cannot be had from the cells; the message says why."""


@dataclass(frozen=True)
class Statement:
    """A statement at the top level of a cell, and the names that it binds."""

    cell: int
    node: ast.stmt
    binds: frozenset[str]


def define(
    cells: Sequence[Mapping[str, str]], own: int, until: int, name: str, given: Mapping[str, str]
) -> tuple[Any, list[str]]:
    """Run what `name` needs and return what it stands for then, and remarks on what was passed over.

    cells: with "source" and "role" ("setup", "exercise", "lesson", "check", or "" for a learner's own), in order; own:
    the number of the exercise's cell; until: of its check, or `own`; given: sources of functions, by name, that stand
    for what the cells define under it. Raises CellError, and whatever the statements raise.
    """
    usable = [s for number, cell in enumerate(cells) for s in _statements(number, cell, number == own)]
    chosen = _needed(usable, until, name, given)
    last = max((s.node.lineno for s in chosen if s.cell == own), default=0)
    beside = [
        s for s in usable if s.cell == own and s.node.lineno < last and s not in chosen and not s.binds & set(given)
    ]
    space: dict[str, Any] = {"__name__": "__main__", "__builtins__": builtins}
    space |= {function: from_source(function, source) for function, source in given.items()}
    remarks = _run(sorted([*chosen, *beside], key=lambda s: (s.cell, s.node.lineno)), chosen, space)
    if name not in space:
        raise CellError(f"no cell defines {name}")
    return space[name], remarks


def _statements(number: int, cell: Mapping[str, str], own: bool) -> Iterator[Statement]:
    """The statements of a cell that may be run. Raises CellError where the exercise's own cell does not parse."""
    try:
        body = _parse(cell["source"], f"<cell {number + 1}>")
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        if own:
            line = getattr(error, "lineno", None)
            where = f" (line {line})" if line else ""
            raise CellError(f"the cell does not parse: {getattr(error, 'msg', None) or error}{where}") from None
        return
    for node in body:
        if own or isinstance(node, DEFINITIONS) or cell["role"] not in ("lesson", "check"):
            yield Statement(number, node, frozenset(_bound(node)))


def _parse(source: str, file: str) -> list[ast.stmt]:
    from IPython.core.inputtransformer2 import TransformerManager

    text = TransformerManager().transform_cell(source)
    linecache.cache[file] = (len(text), None, text.splitlines(keepends=True), file)
    return ast.parse(text).body


def _bound(node: ast.AST) -> Iterator[str]:
    """The names that a statement binds in the module, "*" for a star import."""
    if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
        yield node.name
    elif isinstance(node, ast.Import | ast.ImportFrom):
        yield from (alias.asname or alias.name.partition(".")[0] for alias in node.names)
    elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
        yield node.id
    elif not isinstance(node, ast.Lambda):
        for child in ast.iter_child_nodes(node):
            yield from _bound(child)


def _used(node: ast.stmt) -> set[str]:
    """The module's names that a statement looks up, now or when what it defines is called."""
    waiting, found = [compile(ast.Module([node], []), "<statement>", "exec", dont_inherit=True)], set()
    while waiting:
        code = waiting.pop()
        found |= {step.argval for step in dis.get_instructions(code) if step.opname in LOOK_UPS}
        waiting += [constant for constant in code.co_consts if isinstance(constant, CodeType)]
    return found


def _needed(usable: Sequence[Statement], until: int, name: str, given: Mapping[str, str]) -> list[Statement]:
    """The statements that bind `name` and, in turn, every name that these use."""
    chosen = [s for s in usable if "*" in s.binds and s.cell <= until]
    waiting, seen = [name], set(given)
    while waiting:
        wanted = waiting.pop()
        if wanted in seen:
            continue
        seen.add(wanted)
        for statement in _binding(usable, until, wanted):
            if statement not in chosen:
                chosen.append(statement)
                waiting += _used(statement.node) | statement.binds
    return chosen


def _binding(usable: Sequence[Statement], until: int, name: str) -> list[Statement]:
    """The statements of the last cell up to `until` that binds the name, or of the first one after it.

    Where one of them uses the name itself, as `f = check("1.1", f)` does, those of the cell before are there as well.
    """
    by_cell: dict[int, list[Statement]] = {}
    for statement in usable:
        if name in statement.binds:
            by_cell.setdefault(statement.cell, []).append(statement)
    found: list[Statement] = []
    for cell in sorted((c for c in by_cell if c <= until), reverse=True) or sorted(by_cell)[:1]:
        found += by_cell[cell]
        first = by_cell[cell][0].node
        if isinstance(first, DEFINITIONS) or name not in _used(first):
            break
    return found


def from_source(name: str, source: str) -> Any:
    """The function of that name in a module of its own."""
    space: dict[str, Any] = {"__name__": "given"}
    exec(compile(source, "<given>", "exec"), space)
    return space[name]


def _run(statements: Sequence[Statement], needed: Sequence[Statement], space: dict[str, Any]) -> list[str]:
    """Run statements in order; one that nothing needs may fail. Returns what failed."""
    remarks = []
    for statement in statements:
        code = compile(ast.Module([statement.node], []), f"<cell {statement.cell + 1}>", "exec", dont_inherit=True)
        try:
            exec(code, space)
        except (Exception, Refused) as error:
            if statement in needed:
                raise
            remarks.append(f"line {statement.node.lineno} was passed over: {type(error).__name__}: {error}"[:300])
    return remarks
