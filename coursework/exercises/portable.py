"""What passes at home and grading will not have: files beside the notebook, trained networks, most of the package."""

import dis
import functools
import os
import sys
from collections.abc import Iterator, Sequence
from types import CodeType, FunctionType, MethodType, ModuleType
from typing import Any

import torch

from coursework.exercises.attempt import enclosed, is_library

LONG = 3.0  # seconds
ALL = 15  # seconds that grading has for all exercises of a notebook


def remarks(attempt: Any, seconds: float, uses: Sequence[str] = ()) -> list[str]:
    """A line for each thing that grading will miss.

    seconds: how long the attempt took here; uses: what of the package an answer may call (`Exercise.uses`).
    """
    found = {}
    for name, value in _used(attempt):
        file = getattr(value, "__file__", None) if isinstance(value, ModuleType) else _file(value)
        if file and not is_library(file) and file.endswith(".py"):
            found[name] = (
                f"`{name}` comes from a file of yours: grading has your notebook alone, so put it into a cell."
            )
        elif isinstance(value, torch.nn.Module):
            found[name] = f"`{name}` is a network of the notebook: grading trains nothing, so do without it."
        elif (of_package := _of_package(value)) and of_package not in uses:
            found[name] = f"`{name}` is of the course's package: in grading this answer may not use it."
    slow = f"It took {seconds:.0f} s here: grading has {ALL} s for all exercises of a notebook together."
    return [*found.values(), *([slow] if seconds > LONG else [])]


def _file(value: Any) -> str | None:
    """The file in which a function or class was written, None for another thing, or one that a cell defines."""
    if isinstance(value, FunctionType):
        file = value.__code__.co_filename
        return file if os.path.isfile(file) and "ipykernel" not in file else None  # as cells are called
    if isinstance(value, type) and value.__module__ != "__main__":
        return getattr(sys.modules.get(value.__module__), "__file__", None)
    return None


def _of_package(value: Any) -> str:
    """The dotted name of a function, class or object's class of the package, "" for what is none of its subjects."""
    kind = value if isinstance(value, FunctionType | type) else type(value)
    module = value.__name__ if isinstance(value, ModuleType) else str(kind.__module__)
    if not module.startswith("coursework.") or module.startswith("coursework.exercises"):
        return ""
    return f"{module}.{kind.__qualname__}"


def _used(attempt: Any) -> Iterator[tuple[str, Any]]:
    """The names of a notebook that a function looks up, directly or through other functions, and their values."""
    waiting, seen = [attempt], set()
    while waiting:
        thing = waiting.pop()
        if id(thing) in seen:
            continue
        seen.add(id(thing))
        if isinstance(thing, functools.partial):
            waiting.append(thing.func)
        elif isinstance(thing, MethodType):
            waiting.append(thing.__func__)
        elif isinstance(thing, FunctionType):
            if (thing.__module__ or "").startswith("coursework.") or is_library(_source(thing)):
                continue
            found = {n: thing.__globals__[n] for n in _names(thing.__code__) if n in thing.__globals__}
            yield from ((thing.__name__, thing), *found.items())
            waiting += [*found.values(), *enclosed(thing)]
        elif not isinstance(thing, type) and "__call__" in vars(type(thing)):
            waiting.append(vars(type(thing))["__call__"])


def _source(function: FunctionType) -> str:
    return function.__code__.co_filename


def _names(code: CodeType) -> Iterator[str]:
    yield from (step.argval for step in dis.get_instructions(code) if step.opname == "LOAD_GLOBAL")
    for part in code.co_consts:
        if isinstance(part, CodeType):
            yield from _names(part)
