"""What `coursework run` is to execute, and how it went."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from coursework._files import check_folder
from coursework.course.tree import TREES, CourseError, course_tree, find_lessons

BOTH = "both"


@dataclass(frozen=True)
class Task:
    """One lesson to execute: where from, where to, and how. `timeout` seconds a cell, `lesson_timeout` for them all.

    page: where it is written as a page too. store: whether its outputs are written back into its source.
    """

    source: Path
    output: Path
    parameters: Mapping[str, Any]
    timeout: float
    lesson_timeout: float = math.inf
    page: Path | None = None
    store: bool = False

    @property
    def name(self) -> str:
        """The lesson's name, such as 01_score_function."""
        return self.source.stem

    @property
    def tree(self) -> str:
        """The folder that the lesson is in, "notebooks" or "solutions"."""
        return self.source.parent.name


@dataclass(frozen=True)
class Outcome:
    """How a lesson went: seconds, the error's first line (empty if it ran to its end), and how many checks ended how.

    `details` are the code of the cell that failed and the error's last lines.
    """

    task: Task
    seconds: float
    error: str = ""
    details: str = ""
    passed: int = 0
    not_attempted: int = 0
    wrong: int = 0

    @property
    def status(self) -> str:
        """ "ok" or "failed"."""
        return "failed" if self.error else "ok"

    def failed(self, reason: str) -> Outcome:
        """This outcome with a reason why the lesson failed after all; the first one stays."""
        return self if self.error else replace(self, error=reason)


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

    names: which lessons, by number or by how the name begins; all of them if empty. tree: "notebooks", "solutions" or
    "both". out: the folder for the executed lessons; by default build/executed, solutions/ in it for that tree; with
    "both" it gets a folder solutions/ too. parameters: replace values of the lessons' `parameters` cells. timeout,
    lesson_timeout: seconds that a cell and a lesson may take. pages: the folder that gets each executed lesson as a
    page, TREE/LESSON.html. store: write the outputs of each lesson that runs to its end back into its source.

    Raises CourseError if the request makes no sense, a name picks no lesson, or a lesson does not take a parameter;
    OSError naming a folder that cannot be written to.
    """
    if tree not in (*TREES, BOTH):
        raise CourseError(f"tree: expected one of {', '.join((*TREES, BOTH))}, got {tree!r}")
    for name, seconds in (("timeout", timeout), ("lesson_timeout", lesson_timeout)):
        if not seconds > 0:
            raise CourseError(f"{name}: expected a positive number of seconds, got {seconds}")
    parameters, names = parameters or {}, list(names)
    if store and (tree != "solutions" or parameters):
        raise CourseError("store: only for the tree solutions, with the lessons' own parameters")
    trees = TREES if tree == BOTH else (tree,)
    sources = {t: find_lessons(course_tree(root) / t, names) for t in trees}
    if parameters:
        from coursework.course.parameters import problems

        found = problems([path for paths in sources.values() for path in paths], parameters)
        if found:
            raise CourseError("\n".join(found))
    folders = {t: output_folder(root, t, out, len(trees) > 1) for t in trees}
    for folder in folders.values():
        if folder.exists() and any(folder.samefile(root / t) for t in TREES):
            raise CourseError(f"out: {folder} holds the lessons themselves; name another folder")
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
