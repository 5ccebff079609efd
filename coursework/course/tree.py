"""The course tree, and which lessons are in it."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

TREES = ("notebooks", "solutions")
RELEASED = ".released"  # fresh notebooks, in what students get: there is no solutions/


class CourseError(ValueError):
    """What is asked of a course tree cannot be done; nothing was. The message says why, a reason a line."""


def course_tree(folder: Path, *, complete: bool = False) -> Path:
    """The folder itself, if it is a course tree; if `complete` with solutions/, which students do not get.

    Raises CourseError if it lacks notebooks/ or solutions/.
    """
    missing = [f"{name}/" for name in TREES if not (folder / name).is_dir()]
    if missing == ["solutions/"] and (folder / RELEASED).is_dir():
        missing = missing if complete else []
    if missing:
        raise CourseError(f"{folder} is not a course tree ({' and '.join(missing)} missing): go to the course's folder")
    return folder


def lessons(folder: Path, suffix: str = ".ipynb") -> list[Path]:
    """The lessons in a folder in order, without the copies that `reset` keeps (NAME.mine-1.ipynb)."""
    return sorted(path for path in folder.glob(f"[0-9]*{suffix}") if "." not in path.stem)


def matches(stem: str, name: str) -> bool:
    """Whether a lesson goes by this name: its number ("1", "01"), or how its name begins, with or without .ipynb."""
    wanted = Path(name).name.removesuffix(".ipynb")
    if wanted.isdecimal():
        return wanted.lstrip("0") in [number.lstrip("0") for number in re.findall(r"^\d+", stem)]
    return bool(wanted) and stem.startswith(wanted)


def find_lessons(folder: Path, names: Iterable[str] = (), suffix: str = ".ipynb") -> list[Path]:
    """The lessons that the names pick, in order; all of them without names.

    Raises CourseError if a name picks none, or there are none at all.
    """
    there = lessons(folder, suffix)
    if not there:
        raise CourseError(f"no lessons in {folder}")
    names = list(names)
    for name in names:
        if not any(matches(path.stem, name) for path in there):
            raise CourseError(f"no lesson {name!r}; there are {', '.join(path.stem for path in there)}")
    return [path for path in there if not names or any(matches(path.stem, name) for name in names)]


def find_lesson(folder: Path, name: str, suffix: str = ".ipynb") -> Path:
    """The lesson that the name picks. Raises CourseError if it picks none, or several."""
    picked = find_lessons(folder, [name], suffix)
    if len(picked) != 1:
        raise CourseError(f"{name!r} picks several lessons: {', '.join(path.stem for path in picked)}")
    return picked[0]
