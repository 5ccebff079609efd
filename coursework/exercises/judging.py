"""How an attempt is judged: three outcomes, and mistakes that have a name. At home and in grading it is the same."""

import inspect
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain, combinations, repeat
from typing import Any

import torch
from torch import Tensor

from coursework.exercises.attempt import Run, TimeIsUp, place, run
from coursework.exercises.exercise import Exercise, NotAttempted, Observed, find

SECONDS = 8.0  # for all cases of one attempt together
N_CASES = 4
PAIRS = 1.0  # seconds of computing in which two mistakes at once are looked for
GIVEN_NUMBERS = ("noise", "z", "z_back", "u", "v", "probes", "generator")  # what random arguments are called
IN_PLACE = (
    "your function changes its arguments in place. Work on new tensors: y = x + 1, not x += 1; "
    "x.detach().requires_grad_(), not x.requires_grad_()."
)
AGAIN = "Case 1, called again: your function gives another answer to the same arguments."
TWO = "two known mistakes at once."
NAME_ONLY = "Hand over the function itself, by its name, without parentheses."


@dataclass(frozen=True)
class Verdict:
    """The outcome ("passed", "not attempted" or "wrong"), what to tell the learner, and a mistake's name, if known."""

    exercise: Exercise
    outcome: str
    message: str = ""
    misconception: str = ""
    printed: str = ""


@dataclass(frozen=True)
class Thing:
    """Stands for what is no plain tensor or number where only its description is at hand."""

    text: str


def case(exercise_id: str, number: int = 1) -> tuple[Any, ...]:
    """The arguments of one of the cases that `check` tries, to look at a failure: `my_function(*case("1.2", 3))`."""
    if number not in range(1, N_CASES + 1):
        raise ValueError(f"number: expected 1 to {N_CASES}, got {number}")
    exercise = find(exercise_id)
    return exercise.case(exercise.seed + number - 1)


def seeds(first: int, n_cases: int = N_CASES) -> list[int]:
    """The seeds of the cases that an attempt is tried on. The first one comes again at the end.

    By that a function is found that answers the same question in two ways: it draws random numbers of its own.
    """
    return [*range(first, first + n_cases), first]


def judge(exercise: Exercise, attempt: Any, *, seed: int | None = None, n_cases: int = N_CASES) -> Verdict:
    """Run an attempt on `n_cases` cases drawn from `seed`, by default the exercise's own, and say what it is."""
    if not callable(attempt):
        return Verdict(exercise, "wrong", f"check needs a function, got {_kind(attempt)}. {NAME_ONLY}")
    numbers = seeds(exercise.seed if seed is None else seed, n_cases)
    cases, drawn = ([exercise.case(number) for number in numbers] for _ in range(2))
    # Before the attempt: what torch imports at the first use of a function takes none of its time.
    expected = [observe_right(exercise, args) for args in drawn]
    done: list[Observed] = []
    got = run(lambda: [done.append(exercise.observe(attempt, args)) for args in cases], SECONDS)
    if isinstance(got.error, NotAttempted):
        return Verdict(exercise, "not attempted", printed=got.printed)
    in_place = [changed(leaves(args), leaves(before)) for args, before in zip(cases, drawn, strict=True)]
    late_again = isinstance(got.error, TimeIsUp) and len(done) == n_cases  # there was time for all cases once
    error = error_text(got.error) if got.error and not late_again else ""
    message, named = compare(exercise, numbers, done, expected, in_place, error)
    return Verdict(
        exercise, "wrong" if message else "passed", message, named, _printed(got) if message else got.printed
    )


def compare(
    exercise: Exercise,
    numbers: Sequence[int],
    done: Sequence[Observed],
    expected: Sequence[Observed],
    in_place: Sequence[bool],
    error: str,
) -> tuple[str, str]:
    """What is wrong with an attempt, and the name of the mistake; "" where nothing is, or it has none.

    numbers: the seeds of its cases, as `seeds` gives them; done: what was observed of it, case by case, up to an error,
    and expected: of the right answer; in_place: whether it changed its arguments.
    """
    n_cases = len(numbers) - 1
    message = _complaint(done[:n_cases], expected, in_place, exercise.rtol)
    if error:
        where = f"Case {len(done) + 1}: " if len(done) < n_cases else "Case 1, called again: "
        return message or f"{where}{error}", ""
    if len(done) > n_cases and not _steady(done[0], done[-1], exercise.rtol):
        return message or AGAIN, own_numbers(exercise)
    return message, _recognised(exercise, numbers[:-1], done) if message else ""


def error_text(error: BaseException) -> str:
    """The sentence on an error that ended an attempt."""
    if isinstance(error, TimeIsUp):
        return f"stopped after {SECONDS:.0f} s. Is there a loop that never ends?"
    where = place(error)
    return f"your function raises {type(error).__name__}: {error}" + (f" ({where})" if where else "")


def own_numbers(exercise: Exercise) -> str:
    """The name of the mistake of drawing random numbers of one's own."""
    given = [name for name in inspect.signature(exercise.reference).parameters if name in GIVEN_NUMBERS]
    use = f" Use the argument `{given[0]}`." if given else " The exact answer needs none."
    return f"you draw random numbers of your own: two calls with the same arguments give two answers.{use}"


def _steady(a: Observed, b: Observed, rtol: float) -> bool:
    """Whether two answers to the same question are the same."""
    for name, value in a.items():
        value = torch.tensor(value, dtype=torch.float64) if type(value) in (int, float) else value
        if isinstance(value, Tensor) and difference(b[name], value, rtol):
            return False
    return True


def _printed(got: Run) -> str:
    return got.printed + "".join(f"\nPython warned: {w}" for w in got.warned)


# -- arguments ---------------------------------------------------------------------------------------------------------


def leaves(case: tuple[Any, ...]) -> dict[str, Tensor | float]:
    """The tensors and numbers in a case's arguments, by names; functions and objects among them are left out."""
    return {f"argument {i}": value for i, value in enumerate(_leaves(case))}


def _leaves(thing: Any) -> Iterator[Tensor | float]:
    if isinstance(thing, Tensor):
        yield thing.detach()
        yield float(thing.requires_grad)
    elif isinstance(thing, tuple | list):
        yield float(len(thing))
        for part in thing:
            yield from _leaves(part)
    elif isinstance(thing, int | float):
        yield float(thing)


def changed(got: Mapping[str, Any], drawn: Mapping[str, Tensor | float]) -> bool:
    """Whether an argument is not what it was when it was handed over.

    Up to rounding: the sandbox drew it with another environment, which may choose other instructions of the processor.
    """
    for name, value in drawn.items():
        single = isinstance(value, Tensor) and value.dtype.is_floating_point and value.dtype != torch.float64
        wanted = value if isinstance(value, Tensor) else torch.tensor(value, dtype=torch.float64)
        if difference(got.get(name), wanted, 1e-5 if single else 1e-9):
            return True
    return False


# -- values ------------------------------------------------------------------------------------------------------------


def _complaint(done: Sequence[Observed], expected: Sequence[Observed], in_place: Sequence[bool], rtol: float) -> str:
    """What is wrong with the first case that is, or ""."""
    for i, (got, wanted) in enumerate(zip(done, expected, strict=False)):
        if in_place[i]:
            return f"Case {i + 1}: {IN_PLACE}"
        for name, value in wanted.items():
            found = difference(got[name], value, rtol)
            if found:
                remark = _common_factor(done, expected, name) or _cut_off(got[name], name)
                return f"Case {i + 1}: {'' if name == 'result' else f'the {name}: '}{found}{remark}"
    return ""


def difference(got: Any, expected: Tensor, rtol: float) -> str:
    """One line on how `got` differs from `expected`, or ""."""
    if isinstance(got, int | float) and not isinstance(got, bool) and expected.ndim == 0:
        fits = expected.dtype.is_floating_point or (float(got).is_integer() and abs(got) < 2**53)
        got = torch.tensor(got, dtype=expected.dtype if fits else torch.float64)
    if got is None:
        return "your function returns None. Is a `return` missing?"
    if not isinstance(got, Tensor):
        kind = _kind(got)
        note = "; torch.stack of tensors, or torch.tensor of numbers, makes one of it" if kind == "list" else ""
        return f"expected a torch.Tensor, got {kind}{note}"
    for what in ("shape", "dtype", "device"):
        mine, wanted = getattr(got, what), getattr(expected, what)
        if mine != wanted:
            note = _dtype_note(got, expected, rtol) if what == "dtype" else ""
            mine, wanted = (tuple(v) if what == "shape" else v for v in (mine, wanted))
            return f"expected {what} {wanted}, got {mine}{note}"
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
    real, wanted = (got.real, ".real") if got.is_complex() else (got, f".to({expected.dtype})")
    if bool(_close(real, expected, max(rtol, 1e-5)).all()):
        return f"; the values are right, so {wanted} is all that is missing"
    return ""


def _close(got: Tensor, expected: Tensor, rtol: float) -> Tensor:
    got, expected = got.detach().double(), expected.detach().double()
    scale = float(expected.abs().nan_to_num().max()) if expected.numel() else 0.0
    return torch.isclose(got, expected, rtol=0.0, atol=rtol * scale + 1e-12, equal_nan=True)


def _common_factor(done: Sequence[Observed], expected: Sequence[Observed], name: str) -> str:
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


def _kind(value: Any) -> str:
    if isinstance(value, Thing):
        return value.text
    return f"a torch.Tensor of shape {tuple(value.shape)}" if isinstance(value, Tensor) else type(value).__name__


# -- the mistake's name ------------------------------------------------------------------------------------------------


def _recognised(exercise: Exercise, numbers: Sequence[int], done: Sequence[Observed]) -> str:
    """The name of the recorded mistake that gives the same values in every case, of two that do together, or ""."""

    values = inspect.unwrap(exercise.observe)  # sees them alone, and by them most mistakes differ in the first case

    def fits(wrong: Callable[..., Any] | None) -> bool:
        looks = chain([values], repeat(exercise.observe))
        return wrong is not None and all(
            agree(seen, observe_wrong(exercise, wrong, number, look), exercise.rtol)
            for number, seen, look in zip(numbers, done, looks, strict=False)
        )

    for mistake in exercise.mistakes:
        if fits(mistake.wrong):
            return mistake.name
    end = time.thread_time() + PAIRS
    for one, other in combinations([mistake for mistake in exercise.mistakes if mistake.edits], 2):
        if fits(one.and_also(other)):
            return f"{TWO} First: {one.name} Second: {other.name}"
        if time.thread_time() > end:
            break
    return ""


def observe_right(exercise: Exercise, args: tuple[Any, ...]) -> Observed:
    """What the right answer gives. What torch warns of at the first use of a function is none of the caller's."""
    with warnings.catch_warnings(action="ignore"):
        return exercise.observe(exercise.reference, args)


def observe_wrong(
    exercise: Exercise, wrong: Callable[..., Any], seed: int, observe: Callable[..., Observed] | None = None
) -> Observed | None:
    """What a function that makes a mistake gives for one case, as the exercise observes it; None where it raises."""
    try:
        with warnings.catch_warnings(action="ignore"):
            return (observe or exercise.observe)(wrong, exercise.case(seed))
    except Exception:
        return None


def agree(got: Observed, other: Observed | None, rtol: float) -> bool:
    """Whether all that the other observation has is the same; one that is missing is none."""
    return other is not None and all(not difference(got[k], v, rtol) for k, v in other.items())
