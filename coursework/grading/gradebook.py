"""Marks into nbgrader's gradebook, and its feedback pages. Nothing of a learner's is executed for this.

Each submission is rebuilt on the released notebook: the learner's answers in their cells, and the outcome under each
check. nbgrader's `autograde` then saves the grades from it, without its execution, and makes the feedback.
"""

import hashlib
import re
import shutil
import tempfile
import warnings
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import nbformat

from coursework._files import write_atomically
from coursework.grading import handin
from coursework.grading.handin import HandIn, HandInError, Lesson
from coursework.grading.rebuilding import rebuilt
from coursework.grading.records import Record
from coursework.grading.release import course_api, programs_of_this_python, reason


class GradebookError(ValueError):
    """The course directory cannot be used; the message says why."""


def check_course(course: Path, lessons: Iterable[Lesson]) -> None:
    """Raises GradebookError unless the folder is a course directory in which these lessons are assigned."""
    if not (course / "nbgrader_config.py").is_file() or not (course / "gradebook.db").is_file():
        raise GradebookError(f"{course} is no course directory: `coursework assign` makes one")
    missing = [lesson.name for lesson in lessons if not _released(course, lesson).is_file()]
    if missing:
        raise GradebookError(
            f"{', '.join(missing)} is not assigned in {course}: `coursework assign`, or choose by --lesson"
        )


def _released(course: Path, lesson: Lesson) -> Path:
    return course / "release" / lesson.name / f"{lesson.name}.ipynb"


def save(
    records: Iterable[Record], lessons: Iterable[Lesson], course: Path, on_problem: Callable[[str], None]
) -> Iterator[Record]:
    """Put records into the course's gradebook, and write feedback pages; yields each record when that is done.

    on_problem is called with what could not be done, a line each.
    """
    by_name = {lesson.name: lesson for lesson in lessons}
    with tempfile.TemporaryDirectory(prefix="coursework-gradebook-") as folder, programs_of_this_python():
        api = course_api(course, submitted_directory=Path(folder))
        _without_execution(api)
        for record in records:
            try:
                problem = _save_one(record, by_name[record.submission.lesson], course, Path(folder), api)
            except Exception as error:  # of one submission; the others are saved
                problem = f"{type(error).__name__}: {error}"
            if problem:
                on_problem(f"{record.submission.key}: not in the gradebook: {problem}")
            yield record


def _without_execution(api) -> None:
    from nbgrader.preprocessors import (
        AssignLatePenalties,
        CheckCellMetadata,
        OverwriteCells,
        OverwriteKernelspec,
        SaveAutoGrades,
    )

    api.config.Autograde.sanitize_preprocessors = [OverwriteKernelspec, OverwriteCells, CheckCellMetadata]
    api.config.Autograde.autograde_preprocessors = [SaveAutoGrades, AssignLatePenalties, CheckCellMetadata]


def _save_one(record: Record, lesson: Lesson, course: Path, folder: Path, api) -> str:
    """Returns what went wrong, or ""."""
    from sqlalchemy.exc import SAWarning

    student = record.submission.student
    if re.search(r"[*?\[\]]", student):
        return "nbgrader takes no student whose name holds one of * ? [ ]"
    try:
        handed_in = _as_graded(record, lesson)
    except HandInError as error:
        return str(error)
    notebook = rebuilt(nbformat.read(_released(course, lesson), as_version=4), handed_in, lesson, record.marks)
    place = folder / student / lesson.name
    write_atomically(place / f"{lesson.name}.ipynb", nbformat.writes(notebook) + "\n")
    timestamp = record.submission.path.parent / "timestamp.txt"
    if timestamp.is_file() and not timestamp.is_symlink() and timestamp.stat().st_size < 1000:
        shutil.copyfile(timestamp, place / "timestamp.txt")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", SAWarning)  # nbgrader's own
        for step in (api.autograde, api.generate_feedback):
            result = step(lesson.name, student, force=True)
            if not result["success"]:
                return reason(result)
    return ""


def _as_graded(record: Record, lesson: Lesson) -> HandIn:
    """The submission that was graded. Raises HandInError where its file has changed since."""
    try:
        data = handin.content(record.submission.path)
    except HandInError as error:
        return HandIn(problem=str(error))
    if hashlib.sha256(data).hexdigest() != record.digest:
        raise HandInError("its file has changed since it was graded")
    return handin.parse(data, lesson)
