"""Grades as the usual learning management systems import them. A student's folder name is the login there."""

from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path

from coursework._files import write_atomically
from coursework.grading.finding import Note
from coursework.grading.handin import Lesson
from coursework.grading.standing import Standings, worth_of
from coursework.grading.tables import harmless, number, table

Scores = Mapping[tuple[str, str], float]


def write_imports(
    folder: Path,
    students: Sequence[str],
    lessons: Sequence[Lesson],
    standings: Standings,
    numbers: Mapping[str, str],
) -> tuple[list[Path], list[Note]]:
    """Write moodle.csv, canvas.csv and blackboard.csv; returns their paths, and notes on who is in none of them.

    numbers: what Canvas knows students by, as far as they are known. A student without a submission of a lesson has no
    entry for it: the system then leaves that grade as it is.
    """
    scores = {key: standing.total for key, standing in standings.items()}
    most = worth_of(lessons, standings)
    logins = [student for student in students if is_login(student)]
    written = []
    for name, rows in {"moodle": moodle, "canvas": partial(canvas, numbers), "blackboard": blackboard}.items():
        written.append(folder / f"{name}.csv")
        write_atomically(written[-1], table(rows(logins, list(most), scores, most)))
    return written, [Note(student, "", NO_LOGIN) for student in students if not is_login(student)]


NO_LOGIN = "is in no table for import: no system has such a login"


def is_login(name: str) -> bool:
    """Whether a name can be a login. A spreadsheet would calculate some, or a system take them for another row."""
    return (
        harmless(name) == name
        and name.isprintable()
        and "\\" not in name
        and name.strip().casefold() not in ("", "points possible")
    )


def moodle(
    students: Sequence[str], lessons: Sequence[str], scores: Scores, most: Mapping[str, float]
) -> Iterator[list]:
    """Moodle: Grades, Import, CSV file; map "username" to the user name and each column to its grade item."""
    yield ["username", *lessons]
    for student in students:
        yield [student, *(_score(scores, student, lesson) for lesson in lessons)]


def canvas(
    numbers: Mapping[str, str],
    students: Sequence[str],
    lessons: Sequence[str],
    scores: Scores,
    most: Mapping[str, float],
) -> Iterator[list]:
    """Canvas: Grades, Import; students are matched by its number, else by their login, assignments by their name."""
    yield ["Student", "ID", "SIS User ID", "SIS Login ID", "Section", *lessons]
    yield ["    Points Possible", "", "", "", "", *(number(most[lesson]) for lesson in lessons)]
    for student in students:
        yield [
            student,
            numbers.get(student, ""),
            "",
            student,
            "",
            *(_score(scores, student, lesson) for lesson in lessons),
        ]


def blackboard(
    students: Sequence[str], lessons: Sequence[str], scores: Scores, most: Mapping[str, float]
) -> Iterator[list]:
    """Blackboard: Gradebook, Upload; a column says its name and its points."""
    yield ["Username", *(f"{lesson} [Total Pts: {number(most[lesson])} Score]" for lesson in lessons)]
    for student in students:
        yield [student, *(_score(scores, student, lesson) for lesson in lessons)]


def _score(scores: Scores, student: str, lesson: str) -> int | float | str:
    return number(scores[student, lesson]) if (student, lesson) in scores else ""
