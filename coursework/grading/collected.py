"""collected.csv: what became of each file that was collected, and whose folder is whose."""

import csv
import io
import re
from dataclasses import dataclass, fields
from pathlib import Path

TABLE = "collected.csv"  # beside the students' folders
FORMULA = re.compile(r"^'(?=[=+\-@＝＋－＠])")  # what was put to a cell that would be one
NOTHING, LATE = "nothing handed in", "late"


@dataclass(frozen=True)
class Row:
    """A line of collected.csv: a file, whose it is, and what became of it; `note` is empty for one that counts.

    `folder` is the student's in the collected tree, `id` the system's number for the student.
    """

    folder: str = ""
    login: str = ""
    name: str = ""
    system: str = ""
    id: str = ""
    lesson: str = ""
    time: str = ""
    source: str = ""
    file: str = ""
    note: str = ""

    @property
    def counts(self) -> bool:
        """Whether it is the file that is graded for its student and lesson."""
        return bool(self.lesson) and self.note in ("", LATE)


def read_table(path: Path) -> list[Row]:
    """The rows of a collected.csv, none where there is none or it is another table."""
    try:
        rows = list(csv.DictReader(io.StringIO(path.read_text(encoding="utf-8-sig"))))
        return [Row(**{c.name: FORMULA.sub("", row[c.name] or "") for c in fields(Row)}) for row in rows]
    except (OSError, ValueError, KeyError, csv.Error):
        return []


def known_folders(folder: Path) -> dict[str, Row]:
    """What was said of each student's folder when it was collected, a row by the folder's name."""
    rows = [row for row in read_table(folder / TABLE) if row.folder]
    return {row.folder: row for row in sorted(rows, key=lambda row: (row.id, row.name))}  # the fullest one is left
