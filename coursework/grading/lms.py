"""Grades as the usual learning management systems import them. A student's folder name is the login there."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from coursework._files import write_atomically
from coursework.grading.classroom import earned
from coursework.grading.handin import Lesson
from coursework.grading.points import Points
from coursework.grading.records import Record, table

Scores = Mapping[tuple[str, str], float]


def scores_of(records: Sequence[Record], lessons: Sequence[Lesson], points: Points) -> dict[tuple[str, str], float]:
    """Points by student and lesson, as the machine gave them."""
    by_name = {lesson.name: lesson for lesson in lessons}
    return {
        (record.submission.student, record.submission.lesson): earned(record, by_name[record.submission.lesson], points)
        for record in records
    }


def gradebook_scores(course: Path) -> tuple[dict[tuple[str, str], float], dict[str, float]]:
    """Points by student and lesson from nbgrader's gradebook, with what a person gave and what lateness cost; and the
    most that each lesson gives."""
    from nbgrader.api import Gradebook

    from coursework.grading.release import programs_of_this_python

    scores, most = {}, {}
    with programs_of_this_python(), Gradebook(f"sqlite:///{(course / 'gradebook.db').resolve()}") as gradebook:
        for assignment in gradebook.assignments:
            most[assignment.name] = assignment.max_score
            for submission in assignment.submissions:
                late = submission.late_submission_penalty or 0.0
                scores[submission.student.id, assignment.name] = max(0.0, submission.score - late)
    return scores, most


def write_imports(folder: Path, scores: Scores, most: Mapping[str, float]) -> list[Path]:
    """Write moodle.csv, canvas.csv and blackboard.csv; returns their paths.

    scores: points by student and lesson; most: the most that a lesson gives. A student without a submission of a lesson
    has no entry for it: the system then leaves that grade as it is.
    """
    lessons = [lesson for lesson in most if any(key[1] == lesson for key in scores)]
    students = sorted({student for student, _ in scores})
    formats = {"moodle": moodle, "canvas": canvas, "blackboard": blackboard}
    written = []
    for name, rows in formats.items():
        written.append(folder / f"{name}.csv")
        write_atomically(written[-1], table(rows(students, lessons, scores, most)))
    return written


def moodle(
    students: Sequence[str], lessons: Sequence[str], scores: Scores, most: Mapping[str, float]
) -> Iterator[list]:
    """Moodle: Grades, Import, CSV file; map "username" to the user name and each column to its grade item."""
    yield ["username", *lessons]
    for student in students:
        yield [student, *(_score(scores, student, lesson) for lesson in lessons)]


def canvas(
    students: Sequence[str], lessons: Sequence[str], scores: Scores, most: Mapping[str, float]
) -> Iterator[list]:
    """Canvas: Grades, Import; students are matched by their login, assignments by their name."""
    yield ["Student", "ID", "SIS User ID", "SIS Login ID", "Section", *lessons]
    yield ["    Points Possible", "", "", "", "", *(f"{most[lesson]:g}" for lesson in lessons)]
    for student in students:
        yield [student, "", "", student, "", *(_score(scores, student, lesson) for lesson in lessons)]


def blackboard(
    students: Sequence[str], lessons: Sequence[str], scores: Scores, most: Mapping[str, float]
) -> Iterator[list]:
    """Blackboard: Gradebook, Upload; a column says its name and its points."""
    yield ["Username", *(f"{lesson} [Total Pts: {most[lesson]:g} Score]" for lesson in lessons)]
    for student in students:
        yield [student, *(_score(scores, student, lesson) for lesson in lessons)]


def _score(scores: Scores, student: str, lesson: str) -> str:
    return f"{scores[student, lesson]:g}" if (student, lesson) in scores else ""
