"""Running a learner's function so that nothing it does can take the kernel along.

It runs in a thread of its own. When the time is up, an exception is raised inside it: that stops any Python loop; a
single long native call ends when it ends, or when the learner interrupts the kernel.
"""

import ctypes
import io
import os
import sys
import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import redirect_stderr, redirect_stdout, suppress
from dataclasses import dataclass
from types import FunctionType
from typing import Any

from torch import Tensor
from torch._C._functorch import is_functorch_wrapped_tensor

PRINTED_MOST = 2_000
PACKAGE = os.path.dirname(os.path.dirname(os.path.abspath(__file__))) + os.sep


class TimeIsUp(BaseException):
    """Raised inside an attempt that runs too long. Not an Exception, so that `except Exception` does not stop it."""


@dataclass(frozen=True)
class Run:
    """What came of a run: a value or an error, the output's beginning, and Python's warnings."""

    value: Any = None
    error: BaseException | None = None
    printed: str = ""
    warned: tuple[str, ...] = ()


class _Beginning(io.TextIOBase):
    """A text stream that keeps its first characters and drops the rest."""

    def __init__(self) -> None:
        self.text, self.dropped = "", 0

    def writable(self) -> bool:
        return True

    def write(self, text: str) -> int:
        kept = text[: PRINTED_MOST - len(self.text)]
        self.text += kept
        self.dropped += len(text) - len(kept)
        return len(text)

    def summary(self) -> str:
        return self.text + (f"\n... and {self.dropped:,} characters more" if self.dropped else "")


def run(work: Callable[[], Any], seconds: float) -> Run:
    """Call `work()` for at most `seconds`, catching errors, output and warnings.

    After that the error is TimeIsUp. A KeyboardInterrupt stops the work and is raised again.
    """
    box: dict[str, Any] = {}

    def target() -> None:
        try:
            box["value"] = work()
        except BaseException as error:
            box["error"] = error

    out = _Beginning()
    thread = threading.Thread(target=target, name="attempt", daemon=True)
    with warnings.catch_warnings(record=True) as caught, redirect_stdout(out), redirect_stderr(out):
        warnings.simplefilter("always")
        thread.start()
        try:
            thread.join(seconds)
        finally:
            late = thread.is_alive()
            _stop(thread)
    error = TimeIsUp() if late else box.get("error")
    return Run(box.get("value"), error, out.summary(), tuple(dict.fromkeys(str(w.message) for w in caught)))


def _stop(thread: threading.Thread) -> None:
    """Raise TimeIsUp in the thread, again and again for up to a second: the attempt may catch the first ones."""
    for _ in range(20):
        if thread.ident is None or not thread.is_alive():
            return
        ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(thread.ident), ctypes.py_object(TimeIsUp))
        thread.join(0.05)


def place(error: BaseException) -> str:
    """Where in the learner's own code an error arose: "line 3: return x / 0", or "" where nothing is known."""
    import linecache

    found, trace = "", error.__traceback__
    while trace is not None:
        code = trace.tb_frame.f_code
        if not is_library(code.co_filename):
            line = linecache.getline(code.co_filename, trace.tb_lineno).strip()
            found = f"line {trace.tb_lineno}" + (f": {line}" if line else "")
        trace = trace.tb_next
    return found


def is_library(filename: str) -> bool:
    """Whether a source file is Python's, a package's or the course's own."""
    parts = filename.replace("\\", "/")
    return "site-packages" in parts or filename.startswith((PACKAGE, sys.base_prefix, "<frozen"))


def enclosed(function: FunctionType) -> Iterator[Any]:
    """What a function holds of the functions around it; a name that they have not given a value yet is left out."""
    for cell in function.__closure__ or ():
        with suppress(ValueError):
            yield cell.cell_contents


def plain_tensors(**arguments: Any) -> None:
    """Raise TypeError for an argument that cannot leave the learner's process, here as in grading, where calls do."""
    for name, value in arguments.items():
        if not isinstance(value, Tensor) or is_functorch_wrapped_tensor(value):
            raise TypeError(f"{name}: this function is called with plain tensors; torch.func.vmap hands over none")
