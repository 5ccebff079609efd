"""What an exercise is: what is drawn and observed of it; its answer and its record are read when they are needed."""

import importlib
import importlib.util
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cache, cached_property
from pathlib import Path
from types import ModuleType
from typing import Any

from torch import Generator

from coursework.exercises.mistakes import Answer, Derivation, Mistake, Record, read

SEED = 20_000  # of the cases that `check` tries, where an exercise has no seed of its own

Observed = Mapping[str, Any]


class NotAttempted(Exception):
    """Raised by an exercise's stub. The check then says so, and the lesson goes on with the reference."""


def result(attempt: Callable[..., Any], args: tuple[Any, ...]) -> Observed:
    """What most exercises compare: the value that the function returns."""
    return {"result": attempt(*args)}


@dataclass(frozen=True)
class Exercise:
    """One exercise. `name` is that of its function, in the lesson and in the lesson's `answers.py`.

    `draw(generator)` gives the arguments of a fresh case. `observe(function, arguments)` returns the tensors that are
    compared, by name; the default is the returned value. Values count as equal within `rtol` times the largest expected
    value. `uses` is what an answer may call of this package beside its arguments themselves: dotted names of functions
    and methods, "coursework.sdes.SDE.alpha". `counts` is the observed value, if any, that is the number of calls of the
    first argument, a function of tensors. `seed` gives the cases that `check` tries: among them is every kind that
    grading draws, as one point and each SDE.

    The right answer, `reference`, stands in `answers.py`; title, mistakes, hints and the written derivation stand in
    `mistakes.md` beside it.
    """

    id: str
    name: str
    draw: Callable[[Generator], tuple[Any, ...]]
    observe: Callable[[Callable[..., Any], tuple[Any, ...]], Observed] = field(default=result)
    rtol: float = 1e-6
    uses: tuple[str, ...] = ()
    counts: str = ""
    seed: int = SEED

    @property
    def lesson(self) -> int:
        """The lesson's number."""
        return int(self.id.partition(".")[0])

    @cached_property
    def reference(self) -> Callable[..., Any]:
        """The right answer."""
        return getattr(_answers(self.lesson), self.name)

    @cached_property
    def answer(self) -> Answer:
        """The right answer as text."""
        return Answer(_answers(self.lesson), self.name)

    @cached_property
    def record(self) -> Record:
        """What `mistakes.md` says of the exercise."""
        return _records(self.lesson)[self.id]

    @property
    def title(self) -> str:
        """What the exercise is about, in a few words."""
        return self.record.title

    @property
    def mistakes(self) -> tuple[Mistake, ...]:
        """The recorded mistakes, the most common ones first."""
        return self.record.mistakes

    @property
    def hints(self) -> tuple[str, ...]:
        """The hints, in the order in which they are given."""
        return self.record.hints

    @property
    def derivation(self) -> Derivation | None:
        """The written derivation that goes with the exercise, if any."""
        return self.record.derivation

    def case(self, seed: int) -> tuple[Any, ...]:
        """The arguments that a seed gives, drawn afresh."""
        return self.draw(Generator().manual_seed(seed))


def folder(lesson: int) -> Path:
    """Where a lesson's exercises stand."""
    return Path(__file__).parent / f"lesson_{lesson:02d}"


def lesson_exercises(lesson: int) -> tuple[Exercise, ...]:
    """The exercises of a lesson, in order; () for a lesson without any."""
    name = f"coursework.exercises.lesson_{lesson:02d}"
    return importlib.import_module(f"{name}.cases").EXERCISES if importlib.util.find_spec(name) else ()


def lesson_derivations(lesson: int) -> tuple[Derivation, ...]:
    """The written derivations of a lesson."""
    return tuple(e.derivation for e in lesson_exercises(lesson) if e.derivation is not None)


def find(exercise_id: str) -> Exercise:
    """The exercise "4.2". Raises ValueError for an id that does not exist."""
    number = str(exercise_id).partition(".")[0]
    known = lesson_exercises(int(number)) if number.isdigit() else ()
    for exercise in known:
        if exercise.id == exercise_id:
            return exercise
    there = ", ".join(e.id for e in known) or "none in that lesson"
    raise ValueError(f"id: no exercise {exercise_id!r}; there is {there}")


@cache
def _records(lesson: int) -> dict[str, Record]:
    return read(folder(lesson) / "mistakes.md", {e.id: e.answer for e in lesson_exercises(lesson)})


def _answers(lesson: int) -> ModuleType:
    return importlib.import_module(f"coursework.exercises.lesson_{lesson:02d}.answers")
