"""What a grading writes: a record for each submission as soon as it is graded, and the tables made of all of them."""

import csv
import io
import json
import secrets
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from coursework._files import write_atomically
from coursework.grading.finding import Submission
from coursework.grading.marking import Mark

FORMULA = ("=", "+", "-", "@", "\t", "\r")  # a spreadsheet would calculate a cell that begins with one of these


@dataclass(frozen=True)
class Record:
    """The marks of one submission, and what they were made from: the file's digest and the rules' fingerprint."""

    submission: Submission
    marks: tuple[Mark, ...]
    remarks: tuple[str, ...]
    digest: str
    fingerprint: str


class Records:
    """The folder of a grading: `records/STUDENT/LESSON.json`, `grading.json` with the secret, and the tables."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def secret(self) -> str:
        """The secret of this grading, made at its first use and kept, so that grading again draws the same cases."""
        path = self.folder / "grading.json"
        if not path.exists():
            write_atomically(path, json.dumps({"secret": secrets.token_hex(16)}) + "\n")
            path.chmod(0o600)
        return json.loads(path.read_text(encoding="utf-8"))["secret"]

    def path(self, submission: Submission) -> Path:
        """Where a submission's record lies."""
        return self.folder / "records" / submission.student / f"{submission.lesson}.json"

    def read(self, submission: Submission) -> Record | None:
        """The record of a submission, None where there is none yet."""
        try:
            content = json.loads(self.path(submission).read_text(encoding="utf-8"))
            marks = tuple(Mark(**mark) for mark in content["marks"])
            return Record(submission, marks, tuple(content["remarks"]), content["digest"], content["fingerprint"])
        except (OSError, ValueError, TypeError, KeyError):
            return None

    def write(self, record: Record) -> None:
        """Write a record, whole or not at all."""
        content = {
            "digest": record.digest,
            "fingerprint": record.fingerprint,
            "remarks": list(record.remarks),
            "marks": [mark.as_dict() for mark in record.marks],
        }
        write_atomically(self.path(record.submission), json.dumps(content, indent=1) + "\n")


def table(rows: Iterable[Sequence[Any]]) -> str:
    """Rows as CSV in which no cell is a formula."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerows([harmless(cell) for cell in row] for row in rows)
    return out.getvalue()


def harmless(cell: Any) -> Any:
    """A cell that a spreadsheet shows as it is."""
    return f"'{cell}" if isinstance(cell, str) and cell.startswith(FORMULA) else cell
