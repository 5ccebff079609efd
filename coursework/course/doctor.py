"""What this machine offers to the course: `coursework doctor` and lesson 00 print it.

Functions return plain data; heavy imports happen inside them, so that a broken installation can still be reported.
"""

from __future__ import annotations

import os
import re
import sys
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Literal

from coursework.course.lines import first_line
from coursework.extras import remedy

OLDEST_PYTHON, NEWEST_PYTHON = (3, 11), (3, 13)
LITTLE_MEMORY = 2e9  # bytes; the largest lesson needs about half of it
CUDA_ONLY = re.compile(r"(nvidia|cuda)-|triton$")
SET_UP_AFRESH = "python3 tools/set_up.py --fresh  (Windows: py tools\\set_up.py --fresh)"
FASHION_HINT = "it is fetched at first use; on Debian and Ubuntu: sudo apt install dataset-fashion-mnist"


@dataclass(frozen=True)
class Finding:
    """One thing that the doctor looked at: a status, what was found and, for a problem, what mends it."""

    status: Literal["ok", "note", "problem"]
    text: str
    mend: str = ""


def versions() -> dict[str, str | None]:
    """Returns the versions of Python, torch and torchvision; None for what is not installed."""
    python = ".".join(map(str, sys.version_info[:3]))
    return {"python": python, "torch": installed("torch"), "torchvision": installed("torchvision")}


def installed(package: str) -> str | None:
    """Returns a package's installed version, or None."""
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def cores() -> int:
    """Returns how many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def free_memory() -> int:
    """Returns the bytes of memory that are free for programs."""
    import psutil

    return psutil.virtual_memory().available


def data_sets() -> dict[str, str | None]:
    """Returns where each data set of the course was found, None for those that were not."""
    from coursework import data

    return data.available()


def locked(lock: str) -> dict[str, str]:
    """Returns the versions that a lock file pins for this Python and platform, by package.

    lock: the text of the lock file, one requirement with its marker a line.
    """
    from packaging.requirements import Requirement

    requirements = [Requirement(line) for line in lock.splitlines() if line.strip() and not line.startswith("#")]
    here = [r for r in requirements if r.marker is None or r.marker.evaluate()]
    return {r.name: next(iter(r.specifier)).version for r in here}


def lock_differences(lock: str) -> list[str]:
    """Returns, for each package of the lock that is missing or at another version, one line.

    A torch without CUDA does not need the packages that only serve CUDA, and may have a local version ("+cpu").
    """
    pins = locked(lock)
    if (installed("torch") or "").endswith("+cpu"):
        pins = {name: pin for name, pin in pins.items() if not CUDA_ONLY.match(name)}
    here = {name: installed(name) for name in pins}
    wrong = {name: found for name, found in here.items() if found is None or found.split("+")[0] != pins[name]}
    return [f"{name} {pins[name]}: {f'{found} is installed' if found else 'missing'}" for name, found in wrong.items()]


def python_finding() -> Finding:
    """Reports this Python, and whether the course supports it."""
    text = f"Python {versions()['python']}"
    if OLDEST_PYTHON <= sys.version_info[:2] <= NEWEST_PYTHON:
        return Finding("ok", text)
    return Finding("problem", f"{text}: the course needs 3.11 to 3.13", "make lab PYTHON=python3.12")


def torch_finding() -> Finding:
    """Reports torch and torchvision, and whether they can be imported."""
    found = versions()
    text = f"torch {found['torch']}, torchvision {found['torchvision']}"
    try:
        import torch  # noqa: F401
        import torchvision  # noqa: F401
    except Exception as error:  # a half-installed torch fails in many ways
        return Finding("problem", f"{text}: {type(error).__name__}: {first_line(error)}", SET_UP_AFRESH)
    return Finding("ok", text)


def device_finding() -> Finding:
    """Reports the device that "auto" means, and the others."""
    try:
        from coursework.devices import devices, pick_device

        found = devices()
        return Finding("ok", f"device {pick_device()} (found: {', '.join(found)})")
    except Exception as error:  # as in torch_finding
        return Finding("problem", f"no device: {first_line(error)}", SET_UP_AFRESH)


def memory_finding() -> Finding:
    """Reports cores and free memory."""
    free = free_memory()
    text = f"{cores()} cores, {free / 1e9:.1f} GB of memory free"
    return Finding("ok", text) if free >= LITTLE_MEMORY else Finding("note", f"{text}: close other programs first")


def data_findings() -> list[Finding]:
    """Reports each data set with its place; one that is missing is a note, since the digits come with the packages."""
    try:
        found = data_sets()
    except Exception as error:
        return [Finding("problem", f"data sets: {type(error).__name__}: {first_line(error)}", SET_UP_AFRESH)]
    return [data_finding(name, place) for name, place in found.items()]


def data_finding(name: str, place: Path | str | None) -> Finding:
    """Reports one data set."""
    if place is not None:
        return Finding("ok", f"data {name}: {place}")
    return Finding("note", f"data {name}: not here; {FASHION_HINT if name == 'fashion-mnist' else 'fetched when used'}")


def lock_finding(root: Path) -> Finding:
    """Reports whether the installed packages are those of requirements.lock."""
    mend = "git checkout requirements.lock"
    try:
        text = (root / "requirements.lock").read_text(encoding="utf-8")
        wrong = lock_differences(text)
    except FileNotFoundError:
        return Finding("problem", "requirements.lock is missing", mend)
    except Exception as error:  # not readable, not text, no requirements
        return Finding("problem", f"requirements.lock cannot be read: {first_line(error)}", mend)
    if not wrong:
        return Finding("ok", f"packages as in requirements.lock ({len(locked(text))})")
    more = f" and {len(wrong) - 3} more" if len(wrong) > 3 else ""
    return Finding("problem", f"packages differ from requirements.lock: {'; '.join(wrong[:3])}{more}", SET_UP_AFRESH)


def tree_findings(root: Path) -> list[Finding]:
    """Reports each lesson of notebooks/ that is missing or out of date; a learner's own work in one is fine."""
    try:
        from coursework.course import publishing, tree

        if not (root / "solutions").is_dir():
            return released_findings(tree.lessons(root / tree.RELEASED), root)
        problems = publishing.outdated(root)
    except ModuleNotFoundError as error:
        return [Finding("problem", f"lessons: {first_line(error)}", remedy(error))]
    except Exception as error:
        mend = "read the message, mend that lesson in solutions/, then: coursework publish"
        return [Finding("problem", f"lessons: {first_line(error)}", mend)]
    in_sync = Finding("ok", "lessons: notebooks/ are in sync with solutions/")
    mend = "coursework publish  (a notebook that you worked in is kept beside its fresh copy)"
    return [Finding("problem", f"lessons: {text}", mend) for text in problems] or [in_sync]


def released_findings(released: list[Path], root: Path) -> list[Finding]:
    """Reports each lesson of a students' tree that is missing."""
    missing = [path for path in released if not (root / "notebooks" / path.name).exists()]
    problems = [
        Finding("problem", f"lessons: notebooks/{p.name}: missing", f"coursework reset {p.stem}") for p in missing
    ]
    return problems or [Finding("ok", "lessons: all that were given out are in notebooks/")]


def diagnose(root: Path) -> list[Finding]:
    """Looks at everything that a course tree needs: one finding a subject; problems carry what mends them."""
    machine = [python_finding(), torch_finding(), device_finding(), memory_finding()]
    return [*machine, lock_finding(root), *data_findings(), *tree_findings(root)]
