"""Finding, choosing and resetting the lessons of a course tree: what `coursework run` and `coursework reset` do."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from coursework._files import check_folder
from coursework.run_tasks import Outcome, Task

TREES = ("notebooks", "solutions")
BOTH = "both"
RELEASED = ".released"  # fresh notebooks, in what students get: there is no solutions/


class RunError(ValueError):
    """The request cannot be carried out as it stands; nothing was executed. The message says why, a reason a line."""


# Finding lessons


def course_tree(folder: Path, *, complete: bool = False) -> Path:
    """Returns the folder if it is a course tree.

    Args:
        folder: where to look.
        complete: whether solutions/ must be there, which students do not get.

    Raises:
        RunError: if it lacks notebooks/ or solutions/.
    """
    missing = [f"{name}/" for name in TREES if not (folder / name).is_dir()]
    if missing == ["solutions/"] and (folder / RELEASED).is_dir():
        missing = missing if complete else []
    if missing:
        raise RunError(f"{folder} is not a course tree ({' and '.join(missing)} missing): go to the course's folder")
    return folder


def lessons(folder: Path) -> list[Path]:
    """Returns the lessons in a folder in order, without the copies that `reset` keeps (NAME.mine-1.ipynb)."""
    return sorted(path for path in folder.glob("[0-9]*.ipynb") if "." not in path.stem)


def matches(stem: str, name: str) -> bool:
    """Whether a lesson goes by this name: its number ("1", "01"), or how its name begins, with or without .ipynb."""
    wanted = Path(name).name.removesuffix(".ipynb")
    if wanted.isdecimal():
        return wanted.lstrip("0") == re.match(r"\d+", stem).group().lstrip("0")
    return bool(wanted) and stem.startswith(wanted)


def find_lessons(folder: Path, names: Iterable[str] = ()) -> list[Path]:
    """Returns the lessons that the names pick, in order; all of them without names.

    Raises:
        RunError: if a name picks none, or there are none at all.
    """
    there = lessons(folder)
    if not there:
        raise RunError(f"no lessons in {folder}")
    names = list(names)
    for name in names:
        if not any(matches(path.stem, name) for path in there):
            raise RunError(f"no lesson {name!r}; there are {', '.join(path.stem for path in there)}")
    return [path for path in there if not names or any(matches(path.stem, name) for name in names)]


# Executing


def plan(
    root: Path,
    names: Iterable[str] = (),
    *,
    tree: str = "notebooks",
    out: Path | None = None,
    parameters: Mapping[str, Any] | None = None,
    timeout: float = 300.0,
    lesson_timeout: float = math.inf,
    pages: Path | None = None,
    store: bool = False,
) -> list[Task]:
    """Returns the lessons of a course tree to execute, in order; nothing is executed.

    Args:
        root: the course tree.
        names: which lessons, by number or by how the name begins; all of them if empty.
        tree: "notebooks", "solutions" or "both".
        out: the folder for the executed lessons; build/executed by default, and solutions/ in it for that tree. With
            "both" it gets a folder solutions/ too.
        parameters: replace values of the lessons' `parameters` cells.
        timeout: seconds that a cell may take.
        lesson_timeout: seconds that a lesson may take.
        pages: the folder that gets each executed lesson as a page, TREE/LESSON.html.
        store: write the outputs of each lesson that runs to its end back into its source.

    Raises:
        RunError: if the request makes no sense, a name picks no lesson, or a lesson does not take a parameter.
        OSError: naming a folder that cannot be written to.
    """
    if tree not in (*TREES, BOTH):
        raise RunError(f"tree: expected one of {', '.join((*TREES, BOTH))}, got {tree!r}")
    for name, seconds in (("timeout", timeout), ("lesson_timeout", lesson_timeout)):
        if not seconds > 0:
            raise RunError(f"{name}: expected a positive number of seconds, got {seconds}")
    parameters, names = parameters or {}, list(names)
    if store and (tree != "solutions" or parameters):
        raise RunError("store: only for the tree solutions, with the lessons' own parameters")
    trees = TREES if tree == BOTH else (tree,)
    sources = {t: find_lessons(course_tree(root) / t, names) for t in trees}
    if parameters:
        from coursework import run_parameters

        problems = run_parameters.problems([path for paths in sources.values() for path in paths], parameters)
        if problems:
            raise RunError("\n".join(problems))
    folders = {t: output_folder(root, t, out, len(trees) > 1) for t in trees}
    for folder in folders.values():
        if folder.exists() and any(folder.samefile(root / t) for t in TREES):
            raise RunError(f"out: {folder} holds the lessons themselves; name another folder")
        check_folder(folder)
    return [
        Task(
            path.absolute(),
            folders[t] / path.name,
            parameters,
            timeout,
            lesson_timeout,
            pages.absolute() / t / f"{path.stem}.html" if pages else None,
            store,
        )
        for t in trees
        for path in sources[t]
    ]


def output_folder(root: Path, tree: str, out: Path | None, both: bool) -> Path:
    """Where the executed lessons of a tree go."""
    inner = "solutions" if tree == "solutions" and (both or out is None) else ""
    return ((out or root / "build" / "executed") / inner).absolute()


def label(task: Task, tasks: Sequence[Task]) -> str:
    """Returns the lesson's name, with its tree where the tasks are from both."""
    name = task.name.replace("\n", "\\n")
    return name if len({t.tree for t in tasks}) == 1 else f"{task.tree}/{name}"


def summary(outcomes: Sequence[Outcome]) -> str:
    """Returns the table that ends a run, in the order of the lessons."""
    outcomes = sorted(outcomes, key=lambda outcome: (outcome.task.tree, outcome.task.name))
    labels = [label(outcome.task, [o.task for o in outcomes]) for outcome in outcomes]
    width = max(len("lesson"), *map(len, labels))
    head = f"{'lesson':{width}}  status  seconds  passed  not attempted  wrong  error"
    rows = [
        f"{name:{width}}  {o.status:6}  {o.seconds:7.1f}  {o.passed:6}  {o.not_attempted:13}  {o.wrong:5}  {o.error}"
        for name, o in zip(labels, outcomes, strict=True)
    ]
    return "\n".join(line.rstrip() for line in [head, *rows])


# Resetting lessons


def reset(root: Path, name: str) -> tuple[Path, Path | None]:
    """Puts a fresh student copy of a lesson in place.

    Args:
        root: the course tree.
        name: the lesson's number, or how its name begins.

    Returns:
        The fresh copy, and where the old one is kept (None if there was none).

    Raises:
        RunError: if the name does not pick exactly one lesson.
        PublishError: if the lesson's source cannot be published.
        OSError: naming what cannot be written; the old copy is where it was.
    """
    from coursework import publishing

    complete = (course_tree(root) / "solutions").is_dir()
    picked = [path.stem for path in find_lessons(root / ("solutions" if complete else RELEASED), [name])]
    if len(picked) != 1:
        raise RunError(f"{name!r} picks several lessons: {', '.join(picked)}")
    released = root / RELEASED / f"{picked[0]}.ipynb"
    text = publishing.student_text(root, picked[0]) if complete else released.read_text(encoding="utf-8")
    path = root / "notebooks" / f"{picked[0]}.ipynb"
    return path, publishing.put(path, text, keep=True)
