"""Parameters of lessons: how a value is read from the command line, and what a lesson takes."""

from __future__ import annotations

import ast
import json
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from coursework.course import notebooks


@dataclass(frozen=True)
class Parameter:
    """A name that a lesson's cell tagged `parameters` assigns, the code of its value, and the value where it is known.

    A value that is computed (3 * size) is not known before the lesson runs; any value may then replace it.
    """

    name: str
    code: str
    known: bool
    value: Any = None

    def takes(self, value: Any) -> bool:
        """Whether a value is of this parameter's type."""
        return not self.known or same_type(value, self.value)

    def __str__(self) -> str:
        return f"{self.name} = {self.code}"


def parse_value(text: str) -> Any:
    """Reads a parameter's value: a JSON or Python literal ("3", "1e-3", "true", "[1, 2]"), else the text itself."""
    for read in (json.loads, ast.literal_eval):
        with suppress(ValueError, SyntaxError, RecursionError, MemoryError):  # the last two: nested too deeply
            return read(text)
    return text


def same_type(value: Any, default: Any) -> bool:
    """Whether a value can stand where a lesson has this default.

    A whole number can stand for a float; a list or tuple for another, if each entry can stand for one of its entries;
    anything for None.
    """
    if default is None:
        return True
    if isinstance(default, list | tuple):
        entries = isinstance(value, list | tuple) and all(any(same_type(v, d) for d in default) for v in value)
        return entries or (not default and isinstance(value, list | tuple))
    if isinstance(default, bool) or isinstance(value, bool):
        return type(value) is type(default)
    return isinstance(value, (int, float) if isinstance(default, float) else type(default))


def parameters_of(notebook: Path) -> dict[str, Parameter] | None:
    """Returns the parameters that a lesson takes, by name; None where it has no cell tagged `parameters`.

    Raises NotebookError for a lesson that cannot be read, SyntaxError where that cell does not parse.
    """
    cells = notebooks.read(notebook, mend_ids=True).cells
    tagged = [cell for cell in cells if "parameters" in cell.metadata.get("tags", [])]
    return {p.name: p for p in assignments(tagged[0].source)} if tagged else None


def assignments(source: str) -> Iterator[Parameter]:
    """Yields what the statements of a cell assign."""
    for node in ast.parse(source).body:
        if isinstance(node, ast.Assign | ast.AnnAssign) and node.value:
            for target in node.targets if isinstance(node, ast.Assign) else [node.target]:
                yield from assigned(target, node.value)


def assigned(target: ast.expr, value: ast.expr) -> Iterator[Parameter]:
    """Yields the parameters of one assignment; "low, high = 0, 1" makes two."""
    if isinstance(target, ast.Name):
        try:
            yield Parameter(target.id, ast.unparse(value), True, ast.literal_eval(value))
        except ValueError:
            yield Parameter(target.id, ast.unparse(value), False)
    elif isinstance(target, ast.Tuple | ast.List):
        for i, part in enumerate(target.elts):
            if isinstance(value, ast.Tuple | ast.List) and len(value.elts) == len(target.elts):
                yield from assigned(part, value.elts[i])
            else:
                yield from assigned(part, ast.Subscript(value, ast.Constant(i), ast.Load()))


def problems(lessons: Iterable[Path], parameters: Mapping[str, Any]) -> list[str]:
    """Returns a line for each parameter that a lesson does not take: papermill itself would only warn.

    A line names the lesson, what is wrong (no such name, or a value of another type), and the parameters there are.
    """
    return [text for path in lessons for text in problems_of(path, parameters)] if parameters else []


def problems_of(notebook: Path, parameters: Mapping[str, Any]) -> Iterator[str]:
    """Yields a line for each parameter that one lesson does not take; none for a lesson that cannot run anyway."""
    try:
        there = parameters_of(notebook)
    except (notebooks.NotebookError, SyntaxError):
        return
    if there is None:
        yield f"{notebook.stem} has no cell tagged 'parameters', so it takes none"
        return
    it_has = f"it has {', '.join(map(str, there.values()))}"
    for name, value in parameters.items():
        if name not in there:
            yield f"{notebook.stem} has no parameter {name!r}; {it_has}"
        elif not there[name].takes(value):
            wanted, got = type(there[name].value).__name__, type(value).__name__
            yield f"{notebook.stem}: {name} takes a value of type {wanted}, got {value!r} of type {got}; {it_has}"
