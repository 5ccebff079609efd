"""From a notebook's cells to one function: what the exercise's check is given, when the notebook runs from its top.

Runs in the sandboxed process. A learner's own cells run as they stand, up to the check. Of a lesson's cells only the
imports, functions and classes do, and what the answer needs by its name, directly or through others: no training, no
plots. A statement that the answer does not need may fail, and may not take long.
"""

import __future__

import ast
import asyncio
import builtins
import dis
import inspect
import linecache
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from types import CodeType
from typing import Any

from coursework import exercises
from coursework.exercises.attempt import TimeIsUp, run
from coursework.grading.sandboxed.magics import Shell, plain
from coursework.grading.sandboxed.withheld import Refused

LOOK_UPS = ("LOAD_NAME", "LOAD_GLOBAL", "LOAD_FROM_DICT_OR_GLOBALS")
BINDINGS = ("STORE_NAME", "STORE_GLOBAL")
DEFINITIONS = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef, ast.Import, ast.ImportFrom)
IMPORTS = (ast.Import, ast.ImportFrom)
MAYBE = (ast.If, ast.For, ast.AsyncFor, ast.While, ast.Try, ast.With, ast.AsyncWith, ast.Match)  # may bind nothing
AT_ONCE = ("<listcomp>", "<setcomp>", "<dictcomp>", "<genexpr>")  # code of its own that runs where it stands
FUTURE = __future__.annotations.compiler_flag  # the others are Python's own by now
NOT_CHECKS = ("case", "hint")
SHORTEST, LONGEST = 0.02, 0.25  # seconds for a statement that is not needed: those that are kept for each, the most


class CellError(Exception):
    """The function cannot be had from the cells; the message says why."""


@dataclass(frozen=True)
class Wanted:
    """Whose function is looked for: the exercise, its function's name, and the cells that answer and check it.

    `whole`: a learner's cells run as they stand, and not only what the answer needs of them.
    """

    exercise: str
    name: str
    own: int
    until: int
    whole: bool = True


@dataclass(frozen=True)
class Statement:
    """A statement at the top level of a cell: the names it looks up now, or when what it defines is called, and sets.

    `changes` are names of which an item or attribute is set, or a method called; `lesson` says that it is a lesson's
    and no definition; `checks` that it hands a function to `check`.
    """

    cell: int
    node: ast.stmt
    code: CodeType
    lesson: bool
    checks: bool
    now: frozenset[str]
    later: frozenset[str]
    binds: frozenset[str]
    changes: frozenset[str]


def define(
    cells: Sequence[Mapping[str, str]], wanted: Wanted, given: Sequence[Mapping[str, str]], seconds: float
) -> tuple[Any, list[str]]:
    """Run the cells up to a check and return what it is given there, and remarks on what was passed over.

    cells: with "source" and "role" ("setup", "exercise", "lesson", "check", or "" for a learner's own), in order;
    given: earlier exercises that did not pass, with "exercise", "name" and a "source" for which the name stands;
    seconds: what the whole answer may take. Raises CellError, and whatever the statements raise.
    """
    statements, broken = read(cells)
    target, end = _end(statements, wanted)
    stand_ins = {entry["exercise"]: from_source(entry["name"], entry["source"]) for entry in given}
    by_name = {entry["name"]: stand_ins[entry["exercise"]] for entry in given}
    needed = _needed(statements, target, end, wanted.name, by_name)
    beside = (
        i < end and not s.lesson and (wanted.whole or isinstance(s.node, IMPORTS)) for i, s in enumerate(statements)
    )
    chosen = [s for i, (s, too) in enumerate(zip(statements, beside, strict=True)) if too or i in needed]
    handed_over: dict[str, Any] = {}

    def check(exercise_id: str, attempt: Any) -> Any:
        handed_over[str(exercise_id)] = attempt
        return stand_ins.get(str(exercise_id), attempt)

    space = {"__name__": "__main__", "__builtins__": builtins, **Shell.names(), **by_name}
    runner = Runner(space, [statements[i] for i in sorted(needed)], wanted.own, seconds)
    before, exercises.check = exercises.check, check
    try:
        runner.run(chosen)
    except NameError:
        if wanted.own in broken:
            raise CellError(broken[wanted.own]) from None
        raise
    finally:
        exercises.check = before
    space.update(by_name)
    if target is not None and wanted.exercise in handed_over:
        return handed_over[wanted.exercise], runner.remarks
    if wanted.name not in space:
        raise CellError(broken.get(wanted.own, f"no cell defines {wanted.name}"))
    return space[wanted.name], runner.remarks


# -- reading -----------------------------------------------------------------------------------------------------------


def read(cells: Sequence[Mapping[str, str]]) -> tuple[list[Statement], dict[int, str]]:
    """The statements of all cells, and what is wrong with cells that do not parse, by their numbers."""
    statements, broken, flags = [], {}, ast.PyCF_ALLOW_TOP_LEVEL_AWAIT
    for number, cell in enumerate(cells):
        file = f"<cell {number + 1}>"
        try:
            body = _parse(cell["source"], file)
            for node in body:
                code = compile(ast.Module([node], []), file, "exec", flags, dont_inherit=True)
                flags |= code.co_flags & FUTURE
                statements.append(_statement(number, cell["role"], node, code))
        except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
            line = getattr(error, "lineno", None)
            where = f" (line {line})" if line else ""
            broken[number] = f"the cell does not parse: {getattr(error, 'msg', None) or error}{where}"
    return _with_effects(statements), broken


def _with_effects(statements: Sequence[Statement]) -> list[Statement]:
    """The statements, of which those that call a function change what it changes of the module's names."""
    effects: dict[str, set[str]] = {}
    for statement in statements:
        if isinstance(statement.node, ast.FunctionDef | ast.AsyncFunctionDef):
            inside = {name for part in statement.node.body for name in _changed(part)} & statement.later
            declared = {n for part in ast.walk(statement.node) if isinstance(part, ast.Global) for n in part.names}
            effects.setdefault(statement.node.name, set()).update(inside | declared)
    return [
        replace(s, changes=s.changes.union(*(effects[name] for name in s.now if name in effects))) for s in statements
    ]


def _parse(source: str, file: str) -> list[ast.stmt]:
    text = plain(source)
    linecache.cache[file] = (len(text), None, text.splitlines(keepends=True), file)
    return ast.parse(text).body


def _statement(cell: int, role: str, node: ast.stmt, code: CodeType) -> Statement:
    binds, now, later = _names(code)
    checks = _checks(node)
    lesson = role in ("lesson", "check") and not isinstance(node, DEFINITIONS) and not (role == "check" and checks)
    sets = (frozenset(names) for names in (now, later, binds, _changed(node)))
    return Statement(cell, node, code, lesson, checks, *sets)


def _names(code: CodeType) -> tuple[set[str], set[str], set[str]]:
    """The names that a statement sets, looks up when it runs, and looks up when a function of it is called."""
    binds, now, later = set[str](), set[str](), set[str]()
    waiting = [(code, now)]
    while waiting:
        one, names = waiting.pop()
        for step in dis.get_instructions(one):
            if step.opname in LOOK_UPS:
                names.add(step.argval)
            elif one is code and step.opname in BINDINGS:
                binds.add(step.argval)
        for part in one.co_consts:
            if isinstance(part, CodeType):
                at_once = part.co_name in AT_ONCE or not part.co_flags & inspect.CO_OPTIMIZED  # a class's body
                waiting.append((part, names if at_once else later))
    return binds, now, later


def _changed(node: ast.AST) -> Iterator[str]:
    """Names whose objects a statement changes: `P["x"] = 1`, `del f.a`, `F.append(2)`."""
    if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef | ast.Lambda):
        return
    changed: list[ast.AST] = []
    if isinstance(node, ast.Attribute | ast.Subscript) and isinstance(node.ctx, ast.Store | ast.Del):
        changed = [node]
    elif isinstance(node, ast.Expr) and isinstance(node.value, ast.Call):
        changed = [node.value.func]
    for part in changed:
        nested = isinstance(part, ast.Attribute | ast.Subscript)
        while isinstance(part, ast.Attribute | ast.Subscript):
            part = part.value
        if nested and isinstance(part, ast.Name):
            yield part.id
    for child in ast.iter_child_nodes(node):
        yield from _changed(child)


def _checks(node: ast.stmt, exercise: str = "") -> bool:
    """Whether a statement hands a function to the check of this exercise (of any), as far as its text tells."""
    return not isinstance(node, DEFINITIONS) and any(
        _is_check(call, exercise) for call in ast.walk(node) if isinstance(call, ast.Call)
    )


def _is_check(call: ast.Call, exercise: str) -> bool:
    name = getattr(call.func, "attr", getattr(call.func, "id", ""))
    texts = [a.value for a in (*call.args, *(k.value for k in call.keywords)) if isinstance(a, ast.Constant)]
    if exercise and texts:  # under another name as well: `from coursework.exercises import check as verify`
        return exercise in texts and name not in NOT_CHECKS
    return name == "check"


# -- choosing ----------------------------------------------------------------------------------------------------------


def _end(statements: Sequence[Statement], wanted: Wanted) -> tuple[int | None, int]:
    """The number of the statement that checks the exercise in the last cell that counts, and where reading ends."""
    inside = [i for i, s in enumerate(statements) if s.cell == wanted.until]
    checks = [i for i in inside if _checks(statements[i].node, wanted.exercise)]
    if checks:
        return checks[-1], checks[-1] + 1
    return None, sum(s.cell <= wanted.until for s in statements)


def _needed(
    statements: Sequence[Statement], target: int | None, end: int, name: str, given: Mapping[str, Any]
) -> set[int]:
    """The numbers of the statements that the answer needs: those that set and change its names, and theirs in turn."""
    if target is None:
        chosen, waiting = set[int](), [(name, end)]
    else:
        chosen = {target}
        waiting = [(used, target) for used in statements[target].now | statements[target].later]
    seen = set()
    while waiting:
        wanted, at = waiting.pop()
        if wanted in given or (wanted, at) in seen:
            continue
        seen.add((wanted, at))
        for number in _sources(statements, wanted, at, end):
            if number not in chosen:
                chosen.add(number)
                statement = statements[number]
                waiting += [(used, number) for used in statement.now] + [(used, end) for used in statement.later]
    return chosen


def _sources(statements: Sequence[Statement], name: str, at: int, end: int) -> list[int]:
    """The statements that a name's value at a place comes from: the last that sets it before, else the first after.

    What may set nothing, as a loop, does not end the search. What changes the value counts up to the check.
    """
    found = []
    for number in range(at - 1, -1, -1):
        if name in statements[number].binds:
            found.append(number)
            if not isinstance(statements[number].node, MAYBE):
                break
    found = found or [i for i in range(at + 1, len(statements)) if name in statements[i].binds][:1]
    if found and isinstance(statements[found[-1]].node, IMPORTS):
        return found
    first = found[-1] + 1 if found else 0
    return found + [i for i in range(first, end) if name in statements[i].changes]


# -- running -----------------------------------------------------------------------------------------------------------


class Runner:
    """Runs statements in the names of one notebook: what the answer needs as long as it takes, all else briefly."""

    def __init__(self, space: dict[str, Any], needed: Sequence[Statement], own: int, seconds: float) -> None:
        self.space, self.own = space, own
        self.needed = {id(statement) for statement in needed}
        self.remarks: list[str] = []
        self._left = {"lesson": seconds / 2, "beside": seconds / 8}

    def run(self, statements: Sequence[Statement]) -> None:
        """Run statements in order, and those that failed and must not again after the others, while that helps."""
        waiting = list(statements)
        while waiting:
            failed = [(s, error) for s in waiting if (error := self._failure(s)) is not None]
            if len(failed) == len(waiting):
                raise failed[0][1]
            waiting = [statement for statement, _ in failed]

    def _failure(self, statement: Statement) -> Exception | None:
        """The error of a statement that must not fail; those of others become remarks."""
        needed = id(statement) in self.needed
        if statement.lesson or not (needed or isinstance(statement.node, DEFINITIONS)):
            self._briefly(statement, needed)
            return None
        must = needed and bool(statement.binds or statement.checks)
        try:
            _execute(statement.code, self.space)
        except Refused as error:
            if must:
                raise
            self._pass_over(statement, error)
        except Exception as error:
            if must:
                return error
            self._pass_over(statement, error)
        return None

    def _briefly(self, statement: Statement, needed: bool) -> None:
        """Run a statement for a while. What it prints is dropped."""
        started = time.monotonic()
        kind = "lesson" if needed else "beside"
        limit = self._left[kind] if needed else max(SHORTEST, min(LONGEST, self._left[kind]))
        got = run(lambda: _execute(statement.code, self.space), limit)
        self._left[kind] -= time.monotonic() - started
        if got.error is not None:
            self._pass_over(statement, got.error)

    def _pass_over(self, statement: Statement, error: BaseException) -> None:
        """Remember what failed where it may matter: in the answer's own cell, or where the answer needs it."""
        if statement.cell != self.own and id(statement) not in self.needed:
            return
        why = "it takes too long here" if isinstance(error, TimeIsUp) else f"{type(error).__name__}: {error}"
        where = f"cell {statement.cell + 1}, line {statement.node.lineno}"
        self.remarks.append(f"{where} was passed over: {why}"[:300])


def _execute(code: CodeType, space: dict[str, Any]) -> None:
    value = eval(code, space)
    if code.co_flags & inspect.CO_COROUTINE:
        asyncio.run(value)


def from_source(name: str, source: str) -> Callable[..., Any]:
    """The function of that name in a module of its own."""
    space: dict[str, Any] = {"__name__": "given"}
    exec(compile(source, "<given>", "exec"), space)
    return space[name]
