"""Marks in nbgrader's gradebook, and what a person changed there. Nothing of a learner's is executed for this.

The gradebook is asked what it has, and gets what it lacks: so it does not matter in which order things happened before.
Each submission is rebuilt on the released notebook for the Formgrader, with the learner's answers in their cells and
the outcome under each check. That notebook says which record it was made from.
"""

import hashlib
import json
import re
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, Self, cast

import nbformat
from nbformat import NotebookNode

from coursework._files import write_atomically
from coursework.grading import handin, rebuilding
from coursework.grading.finding import Note
from coursework.grading.handin import HandInError, Lesson
from coursework.grading.names import safe_id
from coursework.grading.points import Points
from coursework.grading.records import Record, Records
from coursework.grading.release import AssignError, check_place, course_api, programs_of_this_python
from coursework.grading.standing import Grade, Standing, earned


class GradebookError(ValueError):
    """The course directory cannot be used; the message says why."""


def check_course(course: Path, lessons: Iterable[Lesson]) -> None:
    """Raises GradebookError unless the folder is a course directory in which these lessons are assigned."""
    try:
        check_place(course)
    except AssignError as error:
        raise GradebookError(str(error)) from None
    if not (course / "nbgrader_config.py").is_file() or not (course / "gradebook.db").is_file():
        raise GradebookError(f"{course} is no course directory: `coursework assign` makes one")
    missing = [lesson.name for lesson in lessons if not _released(course, lesson.name).is_file()]
    if missing:
        raise GradebookError(
            f"{', '.join(missing)} is not assigned in {course}: `coursework assign`, or choose by --lesson"
        )


def _released(course: Path, lesson: str) -> Path:
    return course / "release" / lesson / f"{lesson}.ipynb"


class Gradebook:
    """The gradebook of a course directory; a context manager, because it holds the database.

    Raises GradebookError where the database cannot be used.
    """

    def __init__(self, course: Path) -> None:
        from nbgrader.api import Gradebook
        from nbgrader.preprocessors import AssignLatePenalties

        self.course = course
        with programs_of_this_python(), _database(course):
            try:
                api = course_api(course)
            except AssignError as error:
                raise GradebookError(str(error)) from None
            self._directory = api.coursedir
            self._book = Gradebook(api.coursedir.db_url, api.coursedir.course_id)
            self._book.db().expire_on_commit = False  # nobody else changes a row while it is looked at
        self._submitted = course / "submitted"
        lateness = AssignLatePenalties(config=api.config)
        lateness.init_plugin()
        self._penalty = cast(Any, lateness.plugin_inst).late_submission_penalty  # the class is the course's own

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._book.close()

    def has(self, lesson: Lesson) -> bool:
        """Whether a lesson is assigned."""
        return _released(self.course, lesson.name).is_file() and self._notebook(lesson) is not None

    def _notebook(self, lesson: Lesson) -> Any:
        from nbgrader.api import MissingEntry

        try:
            return self._book.find_notebook(lesson.name, lesson.name)
        except MissingEntry:
            return None

    def path(self, tree: str, student: str, lesson: str, suffix: str) -> Path:
        """Where a student's file lies in one of nbgrader's trees: "autograded", "feedback"."""
        folder = getattr(self._directory, f"{tree}_directory")
        return Path(self._directory.format_path(folder, safe_id(student), lesson)) / f"{lesson}{suffix}"

    # -- points ----------------------------------------------------------------------------------------------------

    def worth(self, lesson: Lesson, points: Points) -> dict[str, float]:
        """What the cells of a lesson are worth by these points, as far as it was released with them."""
        worth = points.check_cells(lesson) | points.derivation_cells(lesson)
        return {cell.name: worth[cell.name] for cell in self._notebook(lesson).grade_cells if cell.name in worth}

    def weigh(self, lessons: Sequence[Lesson], points: Points) -> list[str]:
        """Set what the cells of these lessons are worth; returns remarks.

        Points that a person gave keep their share of what the cell is worth. Where it becomes worth nothing they are
        put aside, and come back with its worth.
        """
        remarks: list[str] = []
        with _database(self.course):
            weights = Weights(self._book.db)
            for lesson in lessons:
                worth = self.worth(lesson, points)
                for cell in self._notebook(lesson).grade_cells:
                    if cell.name not in worth:
                        continue
                    old, new = weights.last(lesson.name, cell), worth[cell.name]
                    if old != new:
                        _scale(cell, old, new, weights)
                    elif cell.max_score != new:
                        change = f"was worth {cell.max_score:g} in the gradebook, and is worth {new:g}"
                        remarks.append(f"{lesson.name}: {cell.name} {change}, as the course's points say")
                    cell.max_score = new
                    weights.set(lesson.name, cell)
            self._book.db.commit()
        for lesson in lessons:
            self._weigh_source(lesson, self.worth(lesson, points))
        return remarks

    def _weigh_source(self, lesson: Lesson, worth: Mapping[str, float]) -> None:
        """Set the points in the source, so that `nbgrader generate_assignment` does not bring others back."""
        path = self.course / "source" / lesson.name / f"{lesson.name}.ipynb"
        if not path.is_file():
            return
        notebook = nbformat.read(path, as_version=4)
        own = [cell.metadata.nbgrader for cell in notebook.cells if "nbgrader" in cell.metadata]
        stale = [cell for cell in own if cell.get("points") != worth.get(cell.grade_id, cell.get("points"))]
        for cell in stale:
            cell.points = worth[cell.grade_id]
        if stale:
            write_atomically(path, nbformat.writes(notebook) + "\n")

    # -- marks -----------------------------------------------------------------------------------------------------

    def save(
        self, records: Iterable[Record], lessons: Iterable[Lesson], points: Points, kept: Records
    ) -> Iterator[tuple[Record, Standing | None, list[Note]]]:
        """Put records of assigned lessons into the gradebook where it has others; yields where each stands then.

        The standing is None where the record cannot be saved; a note says why.
        """
        by_name = {lesson.name: lesson for lesson in lessons}
        for record in records:
            lesson, notes = by_name[record.submission.lesson], []
            try:
                with _database(self.course):
                    standing = self._save(record, lesson, points, kept, notes)
            except GradebookError:
                raise
            except Exception as error:  # of one submission; the others are saved
                self._book.db.rollback()
                standing = None
                notes.append(f"not in the gradebook: {type(error).__name__}: {error}")
            where = record.submission.student, record.submission.lesson
            yield record, standing, [Note(*where, text) for text in notes]

    def _save(self, record: Record, lesson: Lesson, points: Points, kept: Records, notes: list[str]) -> Standing:
        submission = self._submission(record)
        (notebook,) = submission.notebooks
        path = self.path("autograded", record.submission.student, lesson.name, ".ipynb")
        made, made_from = _made_from(path), self._origin(record, lesson)
        fresh = made != made_from
        machine = earned(record, lesson, points)
        if fresh:
            graded = self._rebuilt(record, lesson, kept)
            graded.metadata["coursework"] = made_from
            again = made is not None and made["digest"] != record.digest
            _enter(notebook, graded, machine, again)
        for grade in notebook.grades:
            _settle(grade, machine)
        time = self._collected(record, notes)
        if submission.timestamp != time:
            submission.timestamp = time
        self._make_late(submission, notebook)
        standing = _standing(notebook)
        self._book.db.commit()
        if fresh:
            write_atomically(path, nbformat.writes(graded) + "\n")
        return standing

    def _submission(self, record: Record) -> Any:
        from nbgrader.api import MissingEntry

        student, lesson = safe_id(record.submission.student), record.submission.lesson
        try:
            return self._book.find_submission(lesson, student)
        except MissingEntry:
            self._book.update_or_create_student(student)
            return self._book.add_submission(lesson, student)

    def _origin(self, record: Record, lesson: Lesson) -> dict[str, str]:
        """What the rebuilt notebook of a record is made from."""
        released = _released(self.course, lesson.name).read_bytes()
        parts = json.dumps(record.content()).encode(), released, Path(rebuilding.__file__).read_bytes()
        return {"digest": record.digest, "made_from": hashlib.sha256(b"\0".join(parts)).hexdigest()}

    def _rebuilt(self, record: Record, lesson: Lesson, kept: Records) -> NotebookNode:
        released = nbformat.read(_released(self.course, lesson.name), as_version=4)
        return rebuilding.rebuilt(released, kept.handed_in(record, lesson), lesson, record.marks)

    def _collected(self, record: Record, notes: list[str]):
        """When the notebook was handed in, if it is the one that was collected into the course directory."""
        from nbgrader.utils import parse_utc

        folder = record.submission.path.parent
        path = folder / "timestamp.txt"  # of any other folder it could be the learner's own
        collected = folder.parts[-1:] == (record.submission.lesson,) and _is(folder.parent.parent, self._submitted)
        if not collected or not path.is_file() or _digest(record.submission.path) != record.digest:
            return None
        try:
            return parse_utc(handin.content(path)[:1000].decode().strip())
        except (HandInError, ValueError, OverflowError, TypeError, AttributeError, ArithmeticError):
            notes.append("its timestamp.txt holds no date: it is not known when it was handed in")
            return None

    def _make_late(self, submission, notebook) -> None:
        """Set what lateness costs, by the course's configuration and the points of now."""
        penalty = None
        if submission.assignment.duedate is not None and submission.total_seconds_late > 0:
            score = sum(map(_score, notebook.grades))
            penalty = self._penalty(submission.student.id, score, submission.total_seconds_late)
            penalty = None if penalty is None else min(max(penalty, 0.0), score)
        if notebook.late_submission_penalty != penalty:
            notebook.late_submission_penalty = penalty


@contextmanager
def _database(course: Path) -> Iterator[None]:
    """Raises GradebookError where the database fails."""
    from sqlalchemy.exc import SAWarning, SQLAlchemyError

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", SAWarning)  # nbgrader's own
        try:
            yield
        except SQLAlchemyError as error:
            raise GradebookError(f"{course / 'gradebook.db'}: {str(error).splitlines()[0]}") from None


class Weights:
    """Two tables of ours in the gradebook: what each cell was worth when its points were last set, and what points of a
    person are put aside while their cell is worth nothing. They change with the gradebook, or not at all."""

    TABLES = (
        "coursework_worth (assignment TEXT, cell TEXT, worth REAL, PRIMARY KEY (assignment, cell))",
        "coursework_aside (grade TEXT PRIMARY KEY, share REAL)",
    )

    def __init__(self, database) -> None:
        self._database = database
        for table in self.TABLES:
            self._run(f"CREATE TABLE IF NOT EXISTS {table}")
        rows = self._run("SELECT assignment, cell, worth FROM coursework_worth")
        self._worth = {(assignment, cell): worth for assignment, cell, worth in rows}
        self._aside = {grade: share for grade, share in self._run("SELECT grade, share FROM coursework_aside")}

    def _run(self, statement: str, **values: object):
        from sqlalchemy import text

        return self._database.execute(text(statement), values)

    def last(self, lesson: str, cell) -> float:
        """What a cell was worth when its points were last set; what the gradebook says where they never were."""
        return self._worth.get((lesson, cell.name), cell.max_score)

    def set(self, lesson: str, cell) -> None:
        """Remember what a cell is worth."""
        if self._worth.get((lesson, cell.name)) != cell.max_score:
            key = {"assignment": lesson, "cell": cell.name}
            self._run("DELETE FROM coursework_worth WHERE assignment = :assignment AND cell = :cell", **key)
            self._run("INSERT INTO coursework_worth VALUES (:assignment, :cell, :worth)", **key, worth=cell.max_score)

    def put_aside(self, grade, share: float) -> None:
        """Remember the share of its cell's worth that a person gave."""
        self._run("DELETE FROM coursework_aside WHERE grade = :grade", grade=grade.id)
        self._run("INSERT INTO coursework_aside VALUES (:grade, :share)", grade=grade.id, share=share)

    def aside(self, grade) -> float | None:
        """The share that was put aside."""
        return self._aside.get(grade.id)


def _scale(cell, old: float, new: float, weights: Weights) -> None:
    """Give points that a person set the same share of a cell's new worth."""
    for grade in cell.grades:
        if grade.manual_score is None:
            continue
        if new == 0:
            weights.put_aside(grade, grade.manual_score / old)
            grade.manual_score = 0.0
        elif old > 0:
            grade.manual_score = round(grade.manual_score * new / old, 6)
        elif grade.manual_score == 0 and (share := weights.aside(grade)) is not None:
            grade.manual_score = round(share * new, 6)


def _enter(notebook, graded: NotebookNode, machine: Mapping[str, float], again: bool) -> None:
    """Take over another record: its scores, and which grades of a person want another look.

    again: whether another file was handed in than the one that the gradebook had.
    """
    from nbgrader.utils import compute_checksum, determine_grade

    cells = {cell.metadata.nbgrader.grade_id: cell for cell in graded.cells if "nbgrader" in cell.metadata}
    for grade in notebook.grades:
        had = bool(grade.auto_score)
        if grade.cell.name not in machine:
            grade.auto_score = determine_grade(cells[grade.cell.name])[0]
        elif grade.manual_score is not None and had != bool(machine[grade.cell.name]):
            grade.needs_manual_grade = True
        if again and grade.manual_score is not None:
            grade.needs_manual_grade = True
    for comment in notebook.comments:
        cell = cells[comment.cell.name]
        comment.auto_comment = "No response." if cell.metadata.nbgrader.checksum == compute_checksum(cell) else None


def _settle(grade, machine: Mapping[str, float]) -> None:
    """Set the machine's points, and whether a person's are still to come."""
    if grade.cell.name in machine and grade.auto_score != machine[grade.cell.name]:
        grade.auto_score = machine[grade.cell.name]
    if grade.manual_score is None:
        waits = grade.auto_score is None and grade.cell.max_score > 0
        if grade.needs_manual_grade != waits:
            grade.needs_manual_grade = waits


def _score(grade) -> float:
    given = grade.auto_score if grade.manual_score is None else grade.manual_score
    return (given or 0.0) + (grade.extra_credit or 0.0)


def _standing(notebook) -> Standing:
    """Where a submission stands by its rows in the database."""
    grades = {
        grade.cell.name: Grade(
            _score(grade),
            grade.cell.max_score,
            grade.manual_score is not None or bool(grade.extra_credit),
            bool(grade.needs_manual_grade),
        )
        for grade in sorted(notebook.grades, key=lambda grade: _place(grade.cell.name))
    }
    said = {comment.cell.name: comment.manual_comment or comment.auto_comment or "" for comment in notebook.comments}
    return Standing(
        grades, {name: text for name, text in said.items() if text}, notebook.late_submission_penalty or 0.0
    )


def _place(name: str) -> tuple[str, list[int]]:
    """The order of cells: checks first, each kind by number."""
    return name.partition("-")[0], [int(number) for number in re.findall(r"\d+", name)]


def _is(folder: Path, other: Path) -> bool:
    return other.is_dir() and folder.is_dir() and folder.samefile(other)


def _digest(path: Path) -> str:
    try:
        return hashlib.sha256(handin.content(path)).hexdigest()
    except HandInError:
        return ""


def _made_from(path: Path) -> dict[str, str] | None:
    """What a rebuilt notebook was made from, None where there is none of ours."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))["metadata"]["coursework"]
        return {"digest": found["digest"], "made_from": found["made_from"]}
    except (OSError, ValueError, KeyError, TypeError):
        return None
