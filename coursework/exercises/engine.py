"""What an exercise is, and how an attempt at it is judged: three outcomes, and mistakes that have a name."""

import importlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from coursework.exercises.attempt import Run, TimeIsUp, place, run

SECONDS = 8.0  # for all cases of one attempt together
N_CASES = 4
SEED = 20_000  # of the cases that `check` tries, where an exercise has no seed of its own

Observed = Mapping[str, Any]


class NotAttempted(Exception):
    """Raised by an exercise's stub. The check then says so, and the lesson goes on with the reference."""


def result(attempt: Callable[..., Any], args: tuple[Any, ...]) -> Observed:
    """What most exercises compare: the value that the function returns."""
    return {"result": attempt(*args)}


@dataclass(frozen=True)
class Misconception:
    """A known mistake: the sentence that names it, and a function that makes it (with the reference's signature)."""

    name: str
    wrong: Callable[..., Any]


@dataclass(frozen=True)
class Exercise:
    """One exercise. `draw(generator)` gives the arguments of a fresh case; `reference(*arguments)` the exact answer.

    `observe(function, arguments)` returns the tensors that are compared, by name; the default is the returned value.
    Values count as equal within `rtol` times the largest expected value. `uses` is what an answer may call of this
    package beside its arguments themselves: dotted names of functions and methods, "coursework.sdes.SDE.alpha".
    `counts` is the observed value, if any, that is the number of calls of the first argument, a function of tensors.
    `seed` gives the cases that `check` tries: among them is every kind that grading draws, as one point and each SDE.
    """

    id: str
    title: str
    reference: Callable[..., Any]
    draw: Callable[[torch.Generator], tuple[Any, ...]]
    misconceptions: tuple[Misconception, ...]
    hints: tuple[str, ...]
    observe: Callable[[Callable[..., Any], tuple[Any, ...]], Observed] = field(default=result)
    rtol: float = 1e-6
    uses: tuple[str, ...] = ()
    counts: str = ""
    seed: int = SEED


@dataclass(frozen=True)
class Verdict:
    """The outcome ("passed", "not attempted" or "wrong"), what to tell the learner, and a misconception's name."""

    exercise: Exercise
    outcome: str
    message: str = ""
    misconception: str | None = None
    printed: str = ""


def lesson_exercises(lesson: int) -> tuple[Exercise, ...]:
    """The exercises of a lesson, in order; () for a lesson without any."""
    name = f"coursework.exercises.lesson_{lesson:02d}"
    if importlib.util.find_spec(name) is None:
        return ()
    return importlib.import_module(name).EXERCISES


def find(exercise_id: str) -> Exercise:
    """The exercise "4.2". Raises ValueError for an id that does not exist."""
    number = str(exercise_id).partition(".")[0]
    known = lesson_exercises(int(number)) if number.isdigit() else ()
    for exercise in known:
        if exercise.id == exercise_id:
            return exercise
    there = ", ".join(e.id for e in known) or "none in that lesson"
    raise ValueError(f"id: no exercise {exercise_id!r}; there is {there}")


def case(exercise_id: str, number: int = 1) -> tuple[Any, ...]:
    """The arguments of one of the cases that `check` tries, to look at a failure: `my_function(*case("1.2", 3))`."""
    if number not in range(1, N_CASES + 1):
        raise ValueError(f"number: expected 1 to {N_CASES}, got {number}")
    exercise = find(exercise_id)
    return _draw(exercise, exercise.seed, number - 1)


def _draw(exercise: Exercise, seed: int, number: int) -> tuple[Any, ...]:
    return exercise.draw(torch.Generator().manual_seed(seed + number))


def judge(exercise: Exercise, attempt: Any, *, seed: int | None = None, n_cases: int = N_CASES) -> Verdict:
    """Run an attempt on `n_cases` cases drawn from `seed`, by default the exercise's own, and say what it is."""
    seed = exercise.seed if seed is None else seed
    if not callable(attempt):
        return Verdict(exercise, "wrong", f"check needs a function, got {_kind(attempt)}. {_NAME_ONLY}")
    cases = [_draw(exercise, seed, i) for i in range(n_cases)]
    done: list[Observed] = []
    got = run(lambda: [done.append(exercise.observe(attempt, args)) for args in cases], SECONDS)
    if isinstance(got.error, NotAttempted):
        return Verdict(exercise, "not attempted", printed=got.printed)
    expected = [exercise.observe(exercise.reference, _draw(exercise, seed, i)) for i in range(n_cases)]
    complaint = _complaint(exercise, got, done, cases, expected, seed)
    if complaint is None:
        return Verdict(exercise, "passed", printed=got.printed)
    misconception = None if got.error else _misconception(exercise, done, seed)
    return Verdict(exercise, "wrong", complaint, misconception, _printed(got))


_IN_PLACE = (
    "your function changes its arguments in place. Work on new tensors: y = x + 1, not x += 1; "
    "x.detach().requires_grad_(), not x.requires_grad_()."
)
_NAME_ONLY = "Hand over the function itself, by its name, without parentheses."


def _printed(got: Run) -> str:
    return got.printed + "".join(f"\nPython warned: {w}" for w in got.warned)


def _complaint(
    exercise: Exercise, got: Run, done: list[Observed], cases: list[tuple], expected: list[Observed], seed: int
) -> str | None:
    """What is wrong with the first case that is, or None."""
    for i, wanted in enumerate(expected):
        if i == len(done):
            return f"Case {i + 1}: {_error(got.error)}"
        if not _same(cases[i], _draw(exercise, seed, i)):
            return f"Case {i + 1}: {_IN_PLACE}"
        for name, value in wanted.items():
            difference = _difference(done[i][name], value, exercise.rtol)
            if difference:
                remark = _common_factor(done, expected, name) or _cut_off(done[i][name], name)
                return f"Case {i + 1}: {'' if name == 'result' else f'the {name}: '}{difference}{remark}"
    return None


def _error(error: BaseException | None) -> str:
    if isinstance(error, TimeIsUp):
        return f"stopped after {SECONDS:.0f} s. Is there a loop that never ends?"
    where = place(error)
    return f"your function raises {type(error).__name__}: {error}" + (f" ({where})" if where else "")


def _difference(got: Any, expected: Any, rtol: float) -> str:
    """One line on how `got` differs from `expected`, or ""."""
    if isinstance(got, int | float) and not isinstance(got, bool) and expected.ndim == 0:
        fits = expected.dtype.is_floating_point or (float(got).is_integer() and abs(got) < 2**53)
        got = torch.tensor(got, dtype=expected.dtype if fits else torch.float64)
    if got is None:
        return "your function returns None. Is a `return` missing?"
    if not isinstance(got, Tensor):
        note = "; torch.stack of tensors, or torch.tensor of numbers, makes one of it" if isinstance(got, list) else ""
        return f"expected a torch.Tensor, got {_kind(got)}{note}"
    for what in ("shape", "dtype", "device"):
        mine, wanted = getattr(got, what), getattr(expected, what)
        if mine != wanted:
            note = _dtype_note(got, expected, rtol) if what == "dtype" else ""
            return f"expected {what} {_plain(wanted)}, got {_plain(mine)}{note}"
    wrong = ~_close(got, expected, rtol)
    if not bool(wrong.any()):
        return ""
    if bool(torch.isnan(got).any()):
        return f"{int(torch.isnan(got).sum())} of {got.numel()} values are NaN"
    at = tuple(int(v) for v in wrong.nonzero()[0])
    where = f" at {list(at)}" if at else ""
    count = f" ({int(wrong.sum())} of {got.numel()} values differ)" if got.numel() > 1 else ""
    return f"expected {expected[at].item():.6g}, got {got[at].item():.6g}{where}{count}"


def _dtype_note(got: Tensor, expected: Tensor, rtol: float) -> str:
    if bool(_close(got, expected, max(rtol, 1e-5)).all()):
        return f"; the values are right, so .to({expected.dtype}) is all that is missing"
    return ""


def _close(got: Tensor, expected: Tensor, rtol: float) -> Tensor:
    got, expected = got.detach().double(), expected.detach().double()
    scale = float(expected.abs().nan_to_num().max()) if expected.numel() else 0.0
    return torch.isclose(got, expected, rtol=0.0, atol=rtol * scale + 1e-12, equal_nan=True)


def _common_factor(done: list[Observed], expected: list[Observed], name: str) -> str:
    """A remark where every value of every case is the same multiple of the expected one."""
    values = [(d[name], e[name]) for d, e in zip(done, expected, strict=False)]
    if any(not isinstance(g, Tensor) or g.shape != e.shape or not g.dtype.is_floating_point for g, e in values):
        return ""
    got, wanted = (torch.cat([v.detach().flatten().double() for v in side]) for side in zip(*values, strict=True))
    factor = float(got @ wanted / (wanted @ wanted))
    if not torch.allclose(got, factor * wanted, rtol=1e-6, atol=1e-12) or len(values) < 2:
        return ""
    if abs(factor) < 1e-6 or abs(factor - 1) < 1e-6:
        return ""
    return f". Every value is {factor:.4g} times the expected one"


def _cut_off(got: Any, name: str) -> str:
    """A remark where a gradient that is compared beside the result is zero throughout."""
    if "gradient" not in name or not isinstance(got, Tensor) or bool(got.any()):
        return ""
    return ". All of it is 0: leave out .detach(), .item() and no_grad"


def _misconception(exercise: Exercise, done: list[Observed], seed: int) -> str | None:
    """The name of the recorded mistake that gives the same values in every case, or None."""
    for misconception in exercise.misconceptions:
        if all(
            _agree(d, observe_wrong(exercise, misconception, _draw(exercise, seed, i)), exercise.rtol)
            for i, d in enumerate(done)
        ):
            return misconception.name
    return None


def observe_wrong(exercise: Exercise, misconception: Misconception, args: tuple[Any, ...]) -> Observed | None:
    """What a recorded mistake gives for one case; None where it raises."""
    try:
        return exercise.observe(misconception.wrong, args)
    except Exception:
        return None


def _agree(got: Observed, other: Observed | None, rtol: float) -> bool:
    """Whether two observations are the same; where `other` has None, anything will do."""
    return other is not None and all(v is None or not _difference(got[k], v, rtol) for k, v in other.items())


def _same(a: Any, b: Any) -> bool:
    """Whether two drawn cases hold the same tensors and numbers (functions among the arguments are not compared)."""
    if isinstance(a, Tensor):
        alike = all(getattr(a, what) == getattr(b, what) for what in ("shape", "dtype", "requires_grad"))
        return alike and bool(torch.equal(a, b))
    if isinstance(a, tuple | list):
        return len(a) == len(b) and all(_same(x, y) for x, y in zip(a, b, strict=True))
    return a == b if isinstance(a, int | float | str) else True


def _kind(value: Any) -> str:
    return f"a torch.Tensor of shape {tuple(value.shape)}" if isinstance(value, Tensor) else type(value).__name__


def _plain(value: Any) -> Any:
    return tuple(value) if isinstance(value, torch.Size) else value
