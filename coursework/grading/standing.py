"""Where a submission stands: what each of its parts earned, whoever gave the points. All tables and pages show this."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # what makes pages needs a standing, and no torch
    from coursework.grading.handin import Lesson
    from coursework.grading.points import Points
    from coursework.grading.records import Record


@dataclass(frozen=True)
class Grade:
    """What a check or a derivation earned of what it is worth.

    `by_hand` says that a person set the points, `waits` that a person has still to look at it.
    """

    score: float
    most: float
    by_hand: bool = False
    waits: bool = False


@dataclass(frozen=True)
class Standing:
    """The grades of a submission and the comments on it, by the names of cells, and what lateness costs."""

    grades: Mapping[str, Grade]
    comments: Mapping[str, str] = field(default_factory=dict)
    penalty: float = 0.0

    @property
    def total(self) -> float:
        """The points of the submission."""
        return max(0.0, sum(grade.score for grade in self.grades.values()) - self.penalty)

    @property
    def most(self) -> float:
        """What it could earn."""
        return sum(grade.most for grade in self.grades.values())

    @property
    def waiting(self) -> int:
        """How many grades a person has still to give."""
        return sum(grade.waits for grade in self.grades.values())


Standings = Mapping[tuple[str, str], Standing]  # by student and lesson


def worth_of(lessons: Sequence[Lesson], standings: Standings) -> dict[str, float]:
    """What each lesson of which anything was handed in is worth, by its name, in the lessons' order."""
    most: dict[str, float] = {}
    for (_, lesson), standing in standings.items():
        most[lesson] = max(standing.most, most.get(lesson, 0.0))
    return {lesson.name: most[lesson.name] for lesson in lessons if lesson.name in most}


def check_cell(exercise: str) -> str:
    """The name of the cell that an exercise's grade belongs to: "check-3-1"."""
    return f"check-{exercise.replace('.', '-')}"


def earned(record: Record, lesson: Lesson, points: Points) -> dict[str, float]:
    """The points that the machine gives, by the names of cells."""
    passed = {check_cell(mark.exercise) for mark in record.marks if mark.outcome == "passed"}
    return {name: worth if name in passed else 0.0 for name, worth in points.check_cells(lesson).items()}


def by_machine(record: Record, lesson: Lesson, points: Points) -> Standing:
    """Where a submission stands without a gradebook: nobody reads its derivations, so they count for nothing."""
    worth = points.check_cells(lesson)
    return Standing({name: Grade(score, worth[name]) for name, score in earned(record, lesson, points).items()})
