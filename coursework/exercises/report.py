"""How a verdict and a hint look: a box in a notebook, plain lines elsewhere."""

from collections.abc import Iterable
from dataclasses import dataclass
from html import escape

from coursework.exercises.exercise import Exercise
from coursework.exercises.judging import TWO, Verdict

STYLES = {
    "passed": ("✓", "#0072b2"),
    "not attempted": ("○", "#7f7f7f"),
    "wrong": ("✗", "#d55e00"),
    "hint": ("?", "#009e73"),
}
GOES_ON = "The lesson goes on with the reference implementation."


@dataclass(frozen=True)
class Box:
    """A message with a headline; `kind` is an outcome or "hint"."""

    kind: str
    headline: str
    lines: tuple[str, ...] = ()

    def __repr__(self) -> str:
        mark = STYLES[self.kind][0]
        return "\n".join([f"{mark} {self.headline}", *(f"  {line}" for line in self.lines)])

    def _repr_html_(self) -> str:
        mark, colour = STYLES[self.kind]
        body = "".join(f'<div style="white-space: pre-wrap">{_code(escape(line))}</div>' for line in self.lines)
        return (
            f'<div role="status" style="border-left: 5px solid {colour}; padding: 4px 10px; margin: 4px 0">'
            f'<strong><span aria-hidden="true" style="color: {colour}">{mark}</span> {escape(self.headline)}</strong>'
            f"{body}</div>"
        )


def _code(text: str) -> str:
    """`code` in backticks as <code>."""
    parts = text.split("`")
    if len(parts) % 2 == 0:
        return text
    return "".join(f"<code>{p}</code>" if i % 2 else p for i, p in enumerate(parts))


def verdict_box(verdict: Verdict, remarks: Iterable[str] = ()) -> Box:
    """The box that `check` shows; remarks: lines for one that passed."""
    exercise = verdict.exercise
    headline = _headline(exercise, verdict.outcome)
    if verdict.outcome == "passed":
        return Box("passed", headline, ("The lesson goes on with your function.", *remarks, *_printed(verdict)))
    if verdict.outcome == "not attempted":
        todo = "Write your code in place of `raise NotAttempted` in the cell above, run it, then run this cell again."
        return Box("not attempted", headline, (todo, f'Stuck? `hint("{exercise.id}")` gives the first hint.', GOES_ON))
    look = f'To look inside, run your function\'s cell again and call it with `*case("{exercise.id}", n)`, n the case.'
    more = f'{look} `hint("{exercise.id}")` gives the next hint.'
    return Box(
        "wrong", headline, (*looks_like(verdict.misconception), verdict.message, *_printed(verdict), more, GOES_ON)
    )


def looks_like(misconception: str) -> tuple[str, ...]:
    """The line that names a mistake; none where it has no name."""
    kind = "" if misconception.startswith(TWO) else "a known mistake: "
    return (f"This looks like {kind}{misconception}",) if misconception else ()


def reference_box(exercise: Exercise) -> Box:
    """The box for a check that is handed the reference: its cell was run again, and the learner's cell was not."""
    stands = "The name stands for the reference now, because the last attempt did not pass or was none."
    todo = "Run the cell with your function, then this one."
    return Box("not attempted", _headline(exercise, "not attempted"), (stands, todo, GOES_ON))


def show(box: Box) -> None:
    """Show a box: in a notebook as such, where there is no Jupyter as its lines."""
    try:
        from IPython.display import display
    except ModuleNotFoundError:
        print(box)
    else:
        display(box)


def _headline(exercise: Exercise, outcome: str) -> str:
    return f"Exercise {exercise.id} ({exercise.title}): {outcome}"


def _printed(verdict: Verdict) -> tuple[str, ...]:
    return (f"Your function printed:\n{verdict.printed.strip()}",) if verdict.printed.strip() else ()
