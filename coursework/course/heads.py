"""What each lesson says of itself in its first cell, and the tables of lessons that follow from it.

A table stands between `<!-- begin lessons -->` and `<!-- end lessons -->`; `coursework publish` writes it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from coursework.course import notebooks
from coursework.course.tree import CourseError, find_lessons

PARTS = {
    "title": r"^# Lesson \d+: (.+)$",
    "question": r"^\*\*What this lesson answers:\*\* (.+)$",
    "needs": r"^\*\*Prerequisites:\*\* (.+)$",
    "minutes": r"^\*\*Time:\*\* about (\d+) minutes",
    "seconds": r"^\*\*Time:\*\* .*; the code runs in about (\d+) seconds",
}


@dataclass(frozen=True)
class Head:
    """A lesson's head: its name ("01_score_function"), title, question, times, and what it needs."""

    name: str
    title: str
    question: str
    minutes: int
    seconds: int
    needs: str

    @property
    def number(self) -> int:
        """The lesson's number."""
        return int(self.name[:2])

    @property
    def heading(self) -> str:
        """ "01 The score function"."""
        return f"{self.number:02d} {self.title[0].upper()}{self.title[1:]}"


def heads(root: Path) -> list[Head]:
    """The heads of the worked lessons, in order.

    Raises CourseError, a line each for what a head lacks.
    """
    found, problems = [], []
    for path in find_lessons(root / "solutions"):
        try:
            found.append(head(path.stem, notebooks.read(path).cells[0].source))
        except (notebooks.NotebookError, CourseError, IndexError) as error:
            problems.append(f"{path.name}: {error}")
    if problems:
        raise CourseError("\n".join(problems))
    return found


def head(name: str, text: str) -> Head:
    """The head of a lesson whose first cell has this text. Raises CourseError naming what it lacks."""
    found = {part: re.search(pattern, text, re.MULTILINE) for part, pattern in PARTS.items()}
    lacking = [part for part, match in found.items() if match is None]
    if lacking:
        raise CourseError(f"the head lacks {', '.join(lacking)} (see the heads of other lessons)")
    parts = {part: match[1].strip() for part, match in found.items() if match}
    return Head(
        name, parts["title"], parts["question"], int(parts["minutes"]), int(parts["seconds"]), needs(parts["needs"])
    )


def needs(prerequisites: str) -> str:
    """The numbers of the lessons that are linked; where there are none, the text."""
    numbers = sorted(set(re.findall(r"\]\((\d\d)_\w+\.ipynb\)", prerequisites.partition(";")[0])))
    return ", ".join(numbers) or prerequisites.rstrip(".")


def between(text: str, parts: Mapping[str, Callable[[], str]], where: str) -> str:
    """The text with what stands between its marks, `<!-- begin NAME -->` and `<!-- end NAME -->`, made anew.

    Raises CourseError for a mark that is missing.
    """
    for name, make in parts.items():
        before, begin, rest = text.partition(f"<!-- begin {name} -->\n")
        _, end, after = rest.partition(f"<!-- end {name} -->")
        if not begin or not end:
            raise CourseError(f"{where}: the marks of {name!r} are missing")
        text = before + begin + make() + "\n" + end + after
    return text


def long_table(lessons: list[Head]) -> str:
    """All that a reader wants to know of each lesson; links lead into notebooks/."""
    rows = [
        f"| [{lesson.heading}](notebooks/{lesson.name}.ipynb) | {lesson.question} | {lesson.minutes} min "
        f"| {lesson.seconds} s | {lesson.needs} |"
        for lesson in lessons
    ]
    return "\n".join(["| lesson | question | to work through | code runs in | needs |", "|---|---|---|---|---|", *rows])


def short_table(lessons: list[Head]) -> str:
    """Each lesson with its question, as it stands in one of them."""
    rows = [f"| [{lesson.heading}]({lesson.name}.ipynb) | {lesson.question} |" for lesson in lessons]
    return "\n".join(["| lesson | question |", "|---|---|", *rows])
