"""What a grading keeps: for each submission a record and the notebook that was graded, and what all of them share."""

import hashlib
import json
import secrets
from collections.abc import Collection, Iterable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from coursework._files import write_atomically
from coursework.grading import handin
from coursework.grading.finding import Intake, Note, Submission
from coursework.grading.handin import HandIn, HandInError, Lesson
from coursework.grading.marking import Mark


@dataclass(frozen=True)
class Record:
    """The marks of one submission, and what they were made from: the file's digest and the rules' fingerprint."""

    submission: Submission
    marks: tuple[Mark, ...]
    remarks: tuple[str, ...]
    digest: str
    fingerprint: str

    def content(self) -> dict[str, Any]:
        """The record as plain data."""
        return {
            "digest": self.digest,
            "fingerprint": self.fingerprint,
            "remarks": list(self.remarks),
            "marks": [mark.as_dict() for mark in self.marks],
        }


class Records:
    """The folder of a grading: `records/STUDENT/LESSON.json`, each beside the notebook that was graded, and what is of
    the whole class: `grading.json` with the secret, `found.json` with what else the submitted files were."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def secret(self) -> str:
        """The secret of this grading, made at its first use and kept, so that grading again draws the same cases."""
        settings = self._settings()
        if "secret" not in settings:
            settings["secret"] = secrets.token_hex(16)
            self._keep_settings(settings)
        return settings["secret"]

    def allowed(self) -> tuple[str, ...]:
        """The exercises whose reference may be called, as the instructor said before."""
        return tuple(self._settings().get("allowed", ()))

    def allow(self, exercises: Iterable[str]) -> None:
        """Keep the exercises whose reference may be called."""
        settings, exercises = self._settings(), sorted(set(exercises))
        if settings.get("allowed", []) != exercises:
            self._keep_settings(settings | {"allowed": exercises})

    def _settings(self) -> dict[str, Any]:
        path = self.folder / "grading.json"
        return json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}

    def _keep_settings(self, settings: dict[str, Any]) -> None:
        path = self.folder / "grading.json"
        write_atomically(path, json.dumps(settings) + "\n")
        path.chmod(0o600)

    def path(self, submission: Submission) -> Path:
        """Where a submission's record lies."""
        return self.folder / "records" / submission.student / f"{submission.lesson}.json"

    def notebook(self, record: Record) -> Path:
        """Where the notebook lies that a record is of."""
        return self.path(record.submission).with_name(f"{record.submission.lesson}-{record.digest[:16]}.ipynb")

    def all(self, lessons: Iterable[Lesson]) -> list[Record]:
        """The records of these lessons, of all students that were ever graded here, by student and lesson."""
        names = {lesson.name for lesson in lessons}
        paths = sorted((self.folder / "records").glob("*/*.json"))
        found = [Submission(path.parent.name, path.stem, Path()) for path in paths if path.stem in names]
        return [record for submission in found if (record := self.read(submission)) is not None]

    def read(self, submission: Submission) -> Record | None:
        """The record of a submission, with the path of what was graded, None where there is none yet, or no notebook
        with it."""
        try:
            content = json.loads(self.path(submission).read_text(encoding="utf-8"))
            marks = tuple(Mark(**mark) for mark in content["marks"])
            graded = replace(submission, path=Path(content["path"]))
            record = Record(graded, marks, tuple(content["remarks"]), content["digest"], content["fingerprint"])
            return record if not record.digest or self.notebook(record).is_file() else None
        except (OSError, ValueError, TypeError, KeyError):
            return None

    def keep_path(self, submission: Submission) -> None:
        """Keep where the notebook of a record lies now; it may have been collected anew."""
        record = self.read(submission)
        if record is not None and record.submission.path != submission.path.absolute():
            self._keep(replace(record, submission=submission))

    def write(self, record: Record) -> None:
        """Keep a record and its notebook, whole or not at all.

        Raises HandInError where the file that was graded is another by now: it has to be graded again.
        """
        if record.digest:
            data = handin.content(record.submission.path)
            if hashlib.sha256(data).hexdigest() != record.digest:
                raise HandInError("its file changed while it was graded")
            write_atomically(self.notebook(record), data)
        path = self._keep(record)
        for old in path.parent.glob(f"{record.submission.lesson}-*.ipynb"):
            if old != self.notebook(record):
                old.unlink()

    def handed_in(self, record: Record, lesson: Lesson) -> HandIn:
        """What was graded. Raises HandInError."""
        return handin.parse(handin.content(self.notebook(record)), lesson) if record.digest else HandIn()

    def _keep(self, record: Record) -> Path:
        path = self.path(record.submission)
        content = record.content() | {"path": str(record.submission.path.absolute())}
        write_atomically(path, json.dumps(content, indent=1) + "\n")
        return path

    def found(self) -> Intake:
        """Who is in the class, who handed in nothing, and notes on files: as they were when they were looked for."""
        try:
            content = json.loads((self.folder / "found.json").read_text(encoding="utf-8"))
        except FileNotFoundError:
            return Intake([], [], {}, [])
        missing = {(student, lesson): reason for student, lesson, reason in content["missing"]}
        notes = [Note(**note) for note in content["notes"]]
        return Intake([], content["students"], missing, notes, content.get("canvas", {}))

    def keep_found(self, intake: Intake, lessons: Collection[str], *, everybody: bool = True) -> None:
        """Keep what was found of some students and lessons; what was known of others stays.

        everybody: whether the notes that are on no student are of now, too.
        """
        before, who = self.found(), {*intake.students, *([""] if everybody else [])}
        notes = [n for n in before.notes if n.student not in who or (n.lesson and n.lesson not in lessons)]
        missing = {key: why for key, why in before.missing.items() if key[0] not in who or key[1] not in lessons}
        missing |= {key: why for key, why in intake.missing.items() if key[1] in lessons}
        content = {
            "students": sorted({*before.students, *intake.students}),
            "missing": [[*key, why] for key, why in sorted(missing.items())],
            "notes": [asdict(note) for note in [*notes, *intake.notes]],
            "canvas": {**before.canvas, **intake.canvas},
        }
        write_atomically(self.folder / "found.json", json.dumps(content, indent=1) + "\n")
