"""What a learner's code meets in the place of a reference: nothing to call.

The sandboxed process has no implementation of the reference; a call raises, and is remembered.
"""

import importlib
from collections.abc import Callable, Iterable
from typing import Any

touched: list[str] = []


class ReferenceCalled(BaseException):
    """Raised by a call of a withheld function. Not an Exception, so that `except Exception` does not hide it."""


def refuse(*args: object, **kwargs: object) -> Any:
    """Stands for a withheld function."""
    from coursework.grading.withheld import ReferenceCalled, touched

    touched.append("reference")
    raise ReferenceCalled


def missing(module: str, names: Iterable[str]) -> Callable[[str], Any]:
    """A module's `__getattr__` that gives `refuse` for withheld names. Raises AttributeError for others."""
    withheld = frozenset(names)

    def get(name: str) -> Any:
        if name in withheld:
            return refuse
        raise AttributeError(f"module {module!r} has no attribute {name!r}")

    return get


def withhold(dotted: str) -> None:
    """Take the code out of a function of the package, whoever holds it: "coursework.sdes.karras_times"."""
    *path, name = dotted.split(".")
    holder = importlib.import_module(".".join(part for part in path if not part[0].isupper()))  # a class is no module
    for part in path:
        holder = getattr(holder, part) if part[0].isupper() else holder
    getattr(holder, name).__code__ = refuse.__code__
