"""What commands are asked to work on, read from their arguments; what makes no sense ends the command."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from coursework.cli.terminal import refuse
from coursework.course.tree import CourseError, course_tree, matches

if TYPE_CHECKING:
    from coursework.grading.class_list import ClassList
    from coursework.grading.handin import Lesson
    from coursework.grading.points import Points

Students = Annotated[
    Path | None,
    typer.Option("--students", metavar="LIST.csv", help="the class list: everybody has a row in the tables"),
]


def here(*, complete: bool = False) -> Path:
    """Returns the course tree in the current directory, or ends the command; complete: with solutions/."""
    try:
        return course_tree(Path.cwd(), complete=complete)
    except CourseError as error:
        refuse(str(error))


def parameters_of(pairs: list[str]) -> dict[str, Any]:
    """Turns NAME=VALUE pairs into parameters, or ends the command."""
    from coursework.course.parameters import parse_value

    values: dict[str, Any] = {}
    for pair in pairs:
        name, equals, value = pair.partition("=")
        if not name.isidentifier() or not equals:
            refuse(f"-p takes a name and a value (-p seed 1), got {pair!r}")
        if name in values:
            refuse(f"-p: {name} is given twice")
        values[name] = parse_value(value)
    return values


def course_lessons(root: Path) -> list[Lesson]:
    """The lessons of the course that have exercises, or the end of the command."""
    from coursework.grading import handin

    try:
        return handin.course_lessons(root)
    except CourseError as error:
        refuse(str(error))


def chosen(lessons: list[Lesson], names: list[str]) -> list[Lesson]:
    """Those of the lessons that the names pick, all without names, or the end of the command."""
    for name in names:
        if not any(matches(lesson.name, name) for lesson in lessons):
            refuse(f"no lesson {name!r} with exercises; there are {', '.join(lesson.name for lesson in lessons)}")
    return [lesson for lesson in lessons if not names or any(matches(lesson.name, name) for name in names)]


def points_of(path: Path | None, course: Path | None) -> Points:
    """The points of a file, without one those of the course directory, or the end of the command."""
    from coursework.grading.points import FILE, PointsError, read_points

    own = course / FILE if course is not None else None
    try:
        return read_points(path if path is not None or own is None or not own.is_file() else own)
    except (PointsError, OSError) as error:
        refuse(f"points: {error}")


def students_of(path: Path | None) -> ClassList | None:
    """The class list, None without one, or the end of the command."""
    from coursework.grading.class_list import ClassListError, read_class_list

    try:
        return read_class_list(path) if path is not None else None
    except (ClassListError, OSError) as error:
        refuse(f"students: {error}")
