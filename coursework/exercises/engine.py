"""The old form of an exercise, for lessons that are not yet folders (CONTRIBUTING.md): this file goes with the last."""

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from coursework.exercises.exercise import Exercise as NewExercise
from coursework.exercises.mistakes import Record


@dataclass(frozen=True)
class Misconception:
    """A known mistake: the sentence that names it, and a function that makes it (with the reference's signature)."""

    name: str
    wrong: Callable[..., Any]
    edits = ()


def Exercise(
    *,
    id: str,
    title: str,
    reference: Callable[..., Any],
    misconceptions: tuple[Misconception, ...],
    hints: tuple[str, ...],
    **rest: Any,
) -> NewExercise:
    """An exercise in its old form."""
    exercise, written = NewExercise(id, reference.__name__, **rest), {}
    with suppress(ImportError):  # students do not get it, nor does the sandbox
        from coursework.grading.derivations import DERIVATIONS

        written = {derivation.id: derivation for derivation in DERIVATIONS}
    vars(exercise).update(reference=reference, record=Record(title, misconceptions, hints, written.get(id)))
    return exercise
