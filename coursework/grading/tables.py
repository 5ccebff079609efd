"""The tables of a grading. Each is made of the same standings, so that they agree."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from coursework._files import write_atomically
from coursework.grading.standing import Standings, check_cell, worth_of

if TYPE_CHECKING:  # a page is made without torch
    from coursework.grading.finding import Intake, Note
    from coursework.grading.handin import Lesson
    from coursework.grading.records import Record

# What a spreadsheet would calculate: at the start of a cell, or where one that separates by other signs starts one.
FORMULA = re.compile(r'(^|[;|\t\r\n\v\f\x85\u2028\u2029])(?=[ \xa0"]*[=+\-@＝＋－＠])|^(?=[\t\r])')
HEADER = ("student", "lesson", "exercise", "outcome", "points", "out of", "misconception", "message", "flag", "seconds")


def write_tables(
    folder: Path,
    students: Sequence[str],
    lessons: Sequence[Lesson],
    records: Sequence[Record],
    standings: Standings,
    found: Intake,
) -> list[Path]:
    """Write marks.csv, a line for each exercise of each record and each lesson without one, and totals.csv, a line for
    each of the students. Returns their paths."""
    marks, totals = folder / "marks.csv", folder / "totals.csv"
    write_atomically(marks, table(mark_rows(lessons, records, standings, found)))
    write_atomically(totals, table(total_rows(students, lessons, standings)))
    return [marks, totals]


def write_notes(folder: Path, notes: Sequence[Note]) -> Path:
    """Write notes.csv, a line for each note, and return its path."""
    path = folder / "notes.csv"
    write_atomically(path, table(note_rows(notes)))
    return path


def mark_rows(
    lessons: Sequence[Lesson], records: Iterable[Record], standings: Standings, found: Intake
) -> Iterator[Sequence]:
    """The rows of marks.csv. The points of a submission's rows add up to its total."""
    yield HEADER
    flags = {(note.student, note.lesson): note.flag for note in found.notes if note.flag}
    rows = {(r.submission.student, r.submission.lesson): [*_rows_of(r, standings, flags)] for r in records}
    for lesson, most in worth_of(lessons, standings).items():
        for student in {student for student, missed in found.missing if missed == lesson}:
            nothing = student, lesson, "", NOTHING, 0, number(most), "", found.missing[student, lesson], NOTHING, ""
            rows.setdefault((student, lesson), [nothing])
    for _, own in sorted(rows.items()):
        yield from own


def _rows_of(record: Record, standings: Standings, flags: Mapping[tuple[str, str], str]) -> Iterator[Sequence]:
    where = record.submission.student, record.submission.lesson
    standing, shown = standings[where], set()
    for mark in record.marks:
        grade = standing.grades[check_cell(mark.exercise)]
        shown.add(check_cell(mark.exercise))
        flag = "; ".join(filter(None, (mark.flag, flags.get(where, ""), BY_HAND if grade.by_hand else "")))
        points = number(grade.score), number(grade.most)
        yield *where, mark.exercise, mark.outcome, *points, mark.misconception, mark.message, flag, mark.seconds
    for name, grade in standing.grades.items():
        if name not in shown:
            outcome = "not yet graded" if grade.waits else "graded" if grade.by_hand else "no answer"
            yield *where, written(name), outcome, number(grade.score), number(grade.most), "", "", "", ""
    if standing.penalty:
        lost = standing.total - sum(grade.score for grade in standing.grades.values())
        yield *where, "late", "late", number(lost), 0, "", "", "", ""


NOTHING = "nothing handed in"
BY_HAND = "points set by hand"


def written(name: str) -> str:
    """A cell's name as a table shows it: "derivation 3.3"."""
    return re.sub(r"-(\d+)-(\d+)$", r" \1.\2", name)


def total_rows(students: Sequence[str], lessons: Sequence[Lesson], standings: Standings) -> Iterator[Sequence]:
    """The rows of totals.csv: points by lesson, their sum, its share of what these lessons are worth, and how much a
    person has still to grade."""
    graded = worth_of(lessons, standings)
    whole = sum(graded.values())
    yield ("student", *graded, "points", "out of", "percent", "not yet graded")
    for student in students:
        own = [standings.get((student, name)) for name in graded]
        scores = [standing.total if standing else 0.0 for standing in own]
        percent = 100 * sum(scores) / whole if whole else 0.0
        waiting = sum(standing.waiting for standing in own if standing)
        yield student, *map(number, scores), number(sum(scores)), number(whole), f"{percent:.1f}", waiting


def note_rows(notes: Iterable[Note]) -> Iterator[Sequence]:
    """The rows of notes.csv."""
    yield "student", "lesson", "note"
    for note in sorted(notes, key=lambda note: (note.student, note.lesson)):
        yield note.student, note.lesson, note.text


def number(value: float) -> int | float:
    """Points as a table shows them: 4 decimals at most."""
    value = round(value, 4)
    return int(value) if value == int(value) else value


def table(rows: Iterable[Sequence[Any]]) -> str:
    """Rows as CSV in which no cell is a formula."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerows([harmless(cell) for cell in row] for row in rows)
    return out.getvalue()


def harmless(cell: Any) -> Any:
    """A cell that a spreadsheet shows as it is, whatever separates its cells, and that any file can hold."""
    return FORMULA.sub(r"\1'", cell.encode(errors="backslashreplace").decode()) if isinstance(cell, str) else cell
