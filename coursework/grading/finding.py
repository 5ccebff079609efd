"""Which notebooks learners handed in: a submission for each student and lesson. Nothing here trusts a file."""

import re
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from coursework.grading.handin import Lesson

MOST_FILES = 2_000  # that are looked through for one learner


@dataclass(frozen=True)
class Submission:
    """A learner's notebook for one lesson."""

    student: str
    lesson: str
    path: Path

    @property
    def key(self) -> str:
        """What tells it from all others."""
        return f"{self.student}/{self.lesson}"


def find_submissions(folder: Path, lessons: list[Lesson]) -> tuple[list[Submission], list[str]]:
    """The submissions in a folder, and remarks on what was left out.

    The folder holds one folder for each student, with notebooks at any depth: nbgrader's submitted/STUDENT/ASSIGNMENT
    is one such. A notebook belongs to the lesson whose name it bears, as "03_sliced_score_matching.ipynb" does.
    """
    found, remarks = [], []
    for student in sorted(path for path in folder.iterdir() if path.is_dir() and not path.is_symlink()):
        if student.name.startswith("."):
            continue
        notebooks = list(_notebooks(student))
        for lesson in lessons:
            mine = sorted((p for p in notebooks if lesson_of(p, lessons) == lesson), key=lambda p: _rank(p, lesson))
            found += [Submission(student.name, lesson.name, mine[0])] if mine else []
            remarks += [f"{path}: left out, {mine[0].name} is graded" for path in mine[1:]]
        remarks += [f"{path}: belongs to no lesson" for path in notebooks if lesson_of(path, lessons) is None]
    return found, remarks


def _notebooks(folder: Path) -> Iterator[Path]:
    """Plain files NAME.ipynb below a folder, no links, none in hidden folders."""
    waiting, seen = [folder], 0
    while waiting and seen < MOST_FILES:
        for path in _entries(waiting.pop(0)):
            seen += 1
            try:
                kind = path.lstat().st_mode
            except OSError:
                continue
            if stat.S_ISDIR(kind) and not path.name.startswith(".") and path.name != "__pycache__":
                waiting.append(path)
            elif stat.S_ISREG(kind) and path.suffix == ".ipynb" and not path.name.startswith("."):
                yield path


def _entries(folder: Path) -> list[Path]:
    """What is in a folder, nothing where it cannot be read: a submission must not end the grading of others."""
    try:
        return sorted(folder.iterdir())
    except OSError:
        return []


def lesson_of(path: Path, lessons: list[Lesson]) -> Lesson | None:
    """The lesson whose notebook a file is, by its name."""
    exact = [lesson for lesson in lessons if lesson.name in path.stem]
    numbered = [lesson for lesson in lessons if re.match(rf"0?{lesson.number}(?!\d)", path.stem)]
    return next(iter(exact or numbered), None)


def _rank(path: Path, lesson: Lesson) -> tuple[bool, bool, int, str]:
    """The lesson's own name first, then what is not a copy, then the shortest path."""
    copy = re.search(r"copy|mine-\d|checkpoint", path.stem, re.IGNORECASE) is not None
    return path.stem != lesson.name, copy, len(path.parts), str(path)
