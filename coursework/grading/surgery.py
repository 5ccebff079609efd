"""Exercises in their old form: references are cut out of their modules. This file goes with the last of them."""

import ast
import inspect
import sys
from collections.abc import Iterable, Iterator
from functools import cache
from types import ModuleType

from coursework.exercises.exercise import Exercise, folder

WITHHELD_ARGUMENTS = ("reference", "misconceptions", "hints")


def is_old(exercise: Exercise) -> bool:
    """Whether an exercise has the old form."""
    return not folder(exercise.lesson).is_dir()


def without_references(source: str, module: str) -> str:
    """An exercises module with what draws and observes cases, and without references and misconceptions."""
    tree = ast.parse(source)
    for call in exercise_calls(tree):
        for keyword in call.keywords:
            if keyword.arg in WITHHELD_ARGUMENTS:
                stand_in = "_withheld.refuse" if keyword.arg == "reference" else "()"
                keyword.value = ast.parse(stand_in, mode="eval").body
    bound = {name for node in tree.body for name in names_bound(node)}
    needed = closure(tree, ["EXERCISES"])
    kept = [node for node in tree.body if node in needed or is_import(node)]
    gone = sorted(bound - {name for node in needed for name in names_bound(node)})
    guard = [
        "from coursework.grading.sandboxed import withheld as _withheld",
        f"__getattr__ = _withheld.missing({module!r}, {gone!r})",
    ]
    imports = [node for node in kept if is_import(node)]
    rest = [node for node in kept if not is_import(node)]
    return ast.unparse(ast.Module([*imports, *ast.parse("\n".join(guard)).body, *rest], [])) + "\n"


def source_of(exercise: Exercise, name: str = "") -> str:
    """Source that defines an exercise's reference, with what it needs, under this name or its own."""
    function = exercise.reference
    alias = f"{name} = {function.__name__}\n" if name and name != function.__name__ else ""
    tree = _tree(sys.modules[function.__module__])
    needed = closure(tree, [function.__name__])
    return ast.unparse(ast.Module([node for node in tree.body if node in needed or is_import(node)], [])) + f"\n{alias}"


@cache
def _tree(module: ModuleType) -> ast.Module:
    return ast.parse(inspect.getsource(module))


def exercise_calls(tree: ast.Module) -> Iterator[ast.Call]:
    """The calls `Exercise(...)` in a module."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "Exercise":
            yield node


def closure(tree: ast.Module, names: Iterable[str]) -> list[ast.stmt]:
    """The module's statements that bind these names or, in turn, a name that one of them uses."""
    chosen: list[ast.stmt] = []
    waiting, seen = list(names), set()
    while waiting:
        name = waiting.pop()
        if name in seen:
            continue
        seen.add(name)
        for node in tree.body:
            if name in names_bound(node) and node not in chosen and not is_import(node):
                chosen.append(node)
                waiting += [n.id for n in ast.walk(node) if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Load)]
    return chosen


def names_bound(node: ast.stmt) -> list[str]:
    """The names that a statement of one of our modules binds."""
    if isinstance(node, ast.FunctionDef | ast.ClassDef):
        return [node.name]
    targets = node.targets if isinstance(node, ast.Assign) else [node.target] if isinstance(node, ast.AnnAssign) else []
    return [name.id for target in targets for name in ast.walk(target) if isinstance(name, ast.Name)]


def is_import(node: ast.stmt) -> bool:
    """Whether a statement imports."""
    return isinstance(node, ast.Import | ast.ImportFrom)
