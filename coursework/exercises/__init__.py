"""Exercises that check themselves: `check("4.2", my_function)`, `hint`, `case`; and their answers, `with_mistake`.

In grading mode (environment variable COURSEWORK_GRADING=1) anything but a pass raises, and fresh cases are drawn.
"""

import os
import secrets
import time
from collections.abc import Callable
from typing import Any

from coursework.exercises.exercise import Exercise, NotAttempted, find
from coursework.exercises.judging import Verdict, case, judge
from coursework.exercises.portable import remarks
from coursework.exercises.report import Box, reference_box, show, verdict_box

__all__ = ["CheckFailed", "NotAttempted", "case", "check", "hint", "with_mistake"]

_hints_given: dict[str, int] = {}


class CheckFailed(AssertionError):
    """Raised by `check` in grading mode for an attempt that did not pass."""


def check(exercise_id: str, attempt: Callable[..., Any]) -> Callable[..., Any]:
    """Judge an attempt, show the outcome, and return the function that the rest of the lesson uses.

    That is the learner's own where it is right, and the reference where it is wrong or was not attempted. With
    COURSEWORK_GRADING=1 there is no fallback: anything but a pass raises CheckFailed. Raises ValueError for an unknown
    exercise.
    """
    exercise = find(exercise_id)
    grading = os.environ.get("COURSEWORK_GRADING") == "1"
    if attempt is exercise.reference:
        return _refused(exercise, grading)
    if grading:
        return _graded(judge(exercise, attempt, seed=_grading_seed()), attempt)
    started = time.monotonic()
    verdict = judge(exercise, attempt)
    show(verdict_box(verdict, remarks(attempt, time.monotonic() - started, exercise.uses)))
    return attempt if verdict.outcome == "passed" else exercise.reference


def hint(exercise_id: str) -> None:
    """Show the exercise's next hint; the last one stays."""
    exercise = find(exercise_id)
    number = min(_hints_given.get(exercise_id, 0) + 1, len(exercise.hints))
    _hints_given[exercise_id] = number
    show(Box("hint", f"Exercise {exercise_id}, hint {number} of {len(exercise.hints)}", (exercise.hints[number - 1],)))


def with_mistake(exercise_id: str, number: int) -> str:
    """The right answer with the exercise's mistake of this number in it, as code; number 0 is the right answer.

    Raises ValueError for a mistake that is not recorded.
    """
    exercise = find(exercise_id)
    if number not in range(len(exercise.mistakes) + 1):
        raise ValueError(f"number: expected 0 to {len(exercise.mistakes)}, got {number}")
    return exercise.mistakes[number - 1].text if number else exercise.answer.text


def _refused(exercise: Exercise, grading: bool) -> Callable[..., Any]:
    """The reference is nobody's attempt."""
    box = reference_box(exercise)
    if grading:
        raise CheckFailed(repr(box))
    show(box)
    return exercise.reference


def _graded(verdict: Verdict, attempt: Callable[..., Any]) -> Callable[..., Any]:
    if verdict.outcome == "passed":
        return attempt
    raise CheckFailed(repr(verdict_box(verdict)))


def _grading_seed() -> int:
    """COURSEWORK_GRADING_SEED where the grader sets it, otherwise one that nobody can know beforehand."""
    given = os.environ.get("COURSEWORK_GRADING_SEED")
    return int(given) if given else secrets.randbelow(2**40)
