"""Deny by default: what of the package has code in a learner's process.

The server finds every function of the package once. In the process of an exercise the code of each is replaced,
whoever holds the function, except for what the exercise's `uses` names, what its arguments are and what its `observe`
needs, with all that these look up. What stands there instead raises, and is remembered.
"""

import functools
import gc
import importlib
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from types import CodeType, FunctionType, MethodType, ModuleType
from typing import Any

from coursework.exercises.attempt import enclosed

PACKAGE = "coursework"
OURS = tuple(  # they ask and answer
    f"coursework.{name}" for name in ("grading", "exercises.attempt", "exercises.exercise", "exercises.judging")
)
HARMLESS = {"__repr__", "__str__", "__eq__", "__hash__", "__getattr__"}
CALLED = {"__call__"}
MADE = ("__new__", "__init__", "__post_init__")
NAME = "the reference"

touched: list[str] = []
_stock: list[tuple[FunctionType, CodeType]] = []


class Refused(BaseException):
    """Raised by a call of a withheld function. Not an Exception, so that `except Exception` does not hide it."""


def refuse(*args: object, **kwargs: object) -> Any:
    """Stands for a withheld function."""
    from coursework.grading.sandboxed.withheld import touch

    touch("the reference")


def touch(name: str) -> None:
    """Remember that a withheld function was called, and end the call. Raises Refused."""
    touched.append(name)
    raise Refused(name)


def missing(module: str, names: Iterable[str] | None = None) -> Callable[[str], Any]:
    """A module's `__getattr__` that gives a refusing function for withheld names, by default for every one.

    Raises AttributeError for others.
    """
    withheld = None if names is None else frozenset(names)

    def get(name: str) -> Any:
        if not name.startswith("__") if withheld is None else name in withheld:
            return FunctionType(_refusal(f"{module}.{name}"), {})
        raise AttributeError(f"module {module!r} has no attribute {name!r}")

    return get


def _refusal(name: str, free: tuple[str, ...] = ()) -> CodeType:
    """The code of `refuse` for a function of this name, which may be a closure over `free`."""
    code = refuse.__code__
    return code.replace(co_consts=tuple(name if c == NAME else c for c in code.co_consts), co_freevars=free)


def take_stock() -> None:
    """Find all functions of the package that there are. Call it once, when everything is imported."""
    _stock[:] = [
        (thing, _refusal(f"{thing.__module__}.{thing.__qualname__}", thing.__code__.co_freevars))
        for thing in gc.get_objects()
        if type(thing) is FunctionType and _of_package(thing) and not _ours(thing)
    ]


def withhold(exercise: Any, cases: Sequence[tuple]) -> None:
    """Take the code out of all that an answer to this exercise may not call; `cases` are its drawn arguments."""
    kept = needed(exercise, cases)
    for function, refusal in _stock:
        if function not in kept:
            function.__code__ = refusal


def needed(exercise: Any, cases: Sequence[tuple]) -> set[FunctionType]:
    """The functions of the package that stay for an exercise."""
    search = _Search()
    search.reach([exercise.observe, cases])
    search.names |= CALLED
    for dotted in exercise.uses:
        search.reach(_named(dotted))
    return search.functions()


def _of_package(thing: Any) -> bool:
    name = thing.__globals__.get("__name__") if type(thing) is FunctionType else getattr(thing, "__module__", None)
    return isinstance(name, str) and (name == PACKAGE or name.startswith(f"{PACKAGE}."))


def _ours(function: FunctionType) -> bool:
    return function.__globals__["__name__"].startswith(OURS) or function.__name__ in HARMLESS


def _named(dotted: str) -> list[Any]:
    """What a dotted name stands for: a function, or a method with those that subclasses have in its place."""
    path = dotted.split(".")
    holders = [importlib.import_module(".".join(p for p in path[:-1] if p[0].islower()))]
    if path[-2][0].isupper():
        holders = _family(getattr(holders[0], path[-2]))
    found = [vars(holder)[path[-1]] for holder in holders if path[-1] in vars(holder)]
    if not found:
        raise ValueError(f"uses: the package has no {dotted}")
    return found


def _family(kind: type) -> list[type]:
    return [kind, *(heir for child in kind.__subclasses__() for heir in _family(child))]


class _Search:
    """What can be reached from some objects through the names that the package's code looks up."""

    def __init__(self) -> None:
        self.names: set[str] = set()
        self.kept: set[FunctionType] = set()
        self.classes: set[type] = set()
        self._seen: dict[int, Any] = {}

    def functions(self) -> set[FunctionType]:
        """All functions that are reached, once the methods that they name are."""
        before = -1
        while before != len(self.kept):
            before = len(self.kept)
            for kind in [base for live in self.classes for base in live.__mro__ if _of_package(base)]:
                self.reach([value for name, value in vars(kind).items() if name in self.names])
        return self.kept

    def reach(self, thing: Any) -> None:
        """Note the package's functions and classes in a thing, and all that these hold and look up."""
        if id(thing) in self._seen:
            return
        self._seen[id(thing)] = thing
        for part in self._parts(thing):
            self.reach(part)

    def _parts(self, thing: Any) -> Iterator[Any]:
        if isinstance(thing, FunctionType):
            yield from enclosed(thing)
            if _of_package(thing):
                self.kept.add(thing)
                yield from (thing.__defaults__ or (), thing.__kwdefaults__ or {})
                yield from self._looked_up(thing)
        elif isinstance(thing, MethodType):
            yield from (thing.__func__, thing.__self__)
        elif isinstance(thing, functools.partial):
            yield from (thing.func, thing.args, thing.keywords)
        elif isinstance(thing, property | functools.cached_property | classmethod | staticmethod):
            yield from (getattr(thing, part, None) for part in ("fget", "fset", "func", "__func__"))
        elif isinstance(thing, tuple | list | set | frozenset):
            yield from thing
        elif isinstance(thing, dict):
            yield from thing.values()
        elif not isinstance(thing, type | ModuleType) and _of_package(type(thing)):
            self.classes.add(type(thing))
            yield from getattr(thing, "__dict__", {}).values()

    def _looked_up(self, function: FunctionType) -> Iterator[Any]:
        """What a function's code names: its module's things, those of modules that it imports, and methods, by name."""
        names = set(_names(function.__code__))
        self.names |= names
        spaces = [function.__globals__]
        spaces += [vars(sys.modules[name]) for name in names if name.startswith(f"{PACKAGE}.") and name in sys.modules]
        found = [space[name] for space in spaces for name in names if name in space]
        modules = [thing for thing in found if isinstance(thing, ModuleType) and thing.__name__.startswith(PACKAGE)]
        found += [vars(module)[name] for module in modules for name in names if name in vars(module)]
        for thing in found:
            if isinstance(thing, type) and _of_package(thing):
                self.classes.add(thing)
                self.names.update(MADE)
            elif not isinstance(thing, ModuleType):
                yield thing


def _names(code: CodeType) -> Iterator[str]:
    yield from code.co_names
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from _names(constant)
