"""The parts of docs/instructors.md that follow from the lessons, exercises and rubrics.

`coursework publish` writes them; each stands between `<!-- begin NAME -->` and `<!-- end NAME -->`.
"""

from collections.abc import Callable
from functools import partial
from pathlib import Path

from coursework.course.heads import between, heads
from coursework.exercises.exercise import lesson_derivations, lesson_exercises

SHOWN = 3  # misconceptions of an exercise; the first ones are the most common

SIX_WEEKS = (
    ((0, 1, 2), "the score, and learning it without knowing it"),
    ((4,), "denoising score matching; the objective that everything later uses"),
    ((5, 6), "sampling with a score, and why many noise levels are needed"),
    ((7, 8), "stochastic differential equations, forwards and backwards"),
    ((9, 10), "the probability flow and likelihood"),
    ((11, 12), "guidance; DDPM and DDIM as the discrete case"),
)
TWELVE_WEEKS = (
    ((0, 1), "how the course works; the score function"),
    ((2, 3), "Fisher divergence, the implicit objective, and slicing in high dimension"),
    ((4,), "denoising score matching and Tweedie's formula"),
    ((5,), "Langevin dynamics"),
    ((6,), "noise-conditional score networks"),
    ((7,), "SDEs that turn data into noise"),
    ((8,), "the reverse SDE and its solvers"),
    ((9, 10), "the probability flow; likelihood"),
    ((11,), "guidance"),
    ((12, 13, 14), "DDPM and DDIM; inverse problems; fast solvers"),
    ((15, 16), "what to train, and how; evaluation"),
    ((17, 18), "flow matching; few steps"),
)


def plan(root: Path, weeks: tuple[tuple[tuple[int, ...], str], ...]) -> str:
    """A table of weeks: which lessons, what about, and how many hours of a learner's time."""
    known = {head.number: head for head in heads(root)}
    lines = ["| week | lessons | about | hours of work |", "|---|---|---|---|"]
    for number, (chosen, about) in enumerate(weeks, 1):
        hours = sum(known[lesson].minutes for lesson in chosen) / 60
        lines.append(f"| {number} | {', '.join(f'{lesson:02d}' for lesson in chosen)} | {about} | {hours:.1f} |")
    return "\n".join(lines)


def rubrics(root: Path) -> str:
    """The written derivations and what each share of their points is for."""
    lines = []
    for derivation in (d for head in heads(root) for d in lesson_derivations(head.number)):
        lines.append(f"- **{derivation.id}.** {derivation.prompt}")
        lines += [f"  - {share:.0%}: {text}" for share, text in derivation.rubric]
    return "\n".join(lines)


def misconceptions(root: Path) -> str:
    """The first recorded misconceptions of every exercise, as the checks name them."""
    parts = []
    for head in heads(root):
        exercises = lesson_exercises(head.number)
        if not exercises:
            continue
        parts.append(f"### {head.heading}\n\n{head.minutes} minutes, {counted(len(exercises), 'exercise')}.")
        for exercise in exercises:
            named = [f"  - {m.name[0].upper()}{m.name[1:]}" for m in exercise.mistakes[:SHOWN]]
            parts.append("\n".join([f"- **{exercise.id}, {exercise.title}**", *named]))
    return "\n\n".join(parts)


def counted(n: int, noun: str) -> str:
    """ "1 exercise", "6 exercises"."""
    return f"{n} {noun}" + ("" if n == 1 else "s")


PARTS: dict[str, Callable[[Path], str]] = {
    "six weeks": lambda root: plan(root, SIX_WEEKS),
    "twelve weeks": lambda root: plan(root, TWELVE_WEEKS),
    "rubrics": rubrics,
    "misconceptions": misconceptions,
}


def updated(text: str, root: Path) -> str:
    """The guide with its generated parts as they should be. Raises CourseError."""
    return between(text, {name: partial(make, root) for name, make in PARTS.items()}, "instructors.md")
