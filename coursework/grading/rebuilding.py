"""A learner's notebook rebuilt on the released one: the answers in their cells, and the outcome under each check."""

import html
import re
from collections.abc import Iterable

from nbformat import NotebookNode, v4

from coursework.exercises.engine import Verdict, find
from coursework.exercises.report import Box, verdict_box
from coursework.grading.handin import HandIn
from coursework.grading.marking import Mark


def rebuilt(released: NotebookNode, handed_in: HandIn, marks: Iterable[Mark]) -> NotebookNode:
    """The released notebook with a learner's answers and extra cells, and the outcome as the output of each check."""
    by_exercise = {mark.exercise: mark for mark in marks}
    before: dict[str, list[str]] = {}
    extra: list[str] = []
    sources: dict[str, str] = {}
    for cell in handed_in.cells:
        if cell.role == "exercise":
            sources[cell.exercise], before[cell.exercise], extra = cell.source, extra, []
        elif cell.role == "" and cell.source.strip():
            extra.append(cell.source)
    cells = []
    for cell in released.cells:
        own, name = cell.metadata.get("coursework", {}), cell.metadata.get("nbgrader", {}).get("grade_id")
        if own.get("role") == "exercise" and own["id"] in sources:
            cells += [v4.new_code_cell(text) for text in before[own["id"]]]
            cell.source = sources[own["id"]]
        elif own.get("role") == "check" and own["id"] in by_exercise:
            cell.outputs = [output(by_exercise[own["id"]])]
        elif name in handed_in.answers and cell.metadata.nbgrader.get("solution"):
            cell.source = without_html(handed_in.answers[name])
        cells.append(cell)
    cells += [v4.new_code_cell(text) for text in extra]
    released.cells = cells
    return released


def without_html(text: str) -> str:
    """Markdown whose HTML tags are shown, not obeyed: feedback pages are opened in an instructor's browser."""
    while (plain := html.unescape(text)) != text:
        text = plain
    text = re.sub(r"<(?=[A-Za-z/!?])", "< ", text)  # "&lt;" would be wrong in a formula
    return re.sub(r"(?i)(script|data)(\\*):", r"\1\2 :", text)  # no link runs a script


def output(mark: Mark) -> NotebookNode:
    """What stands under a check: the outcome as a text, as an error where it earns nothing."""
    text = repr(box(mark))
    if mark.outcome == "passed":
        return v4.new_output("stream", name="stdout", text=text + "\n")
    return v4.new_output("error", ename="CheckFailed", evalue=mark.message or mark.outcome, traceback=text.splitlines())


def box(mark: Mark) -> Box:
    """The box that the exercise's check would show, without what a learner could do next in a notebook.

    What a function printed is shown where it passed: elsewhere it could be the cases. The record keeps all of it.
    """
    printed = mark.printed.strip() if mark.outcome == "passed" else ""
    verdict = Verdict(find(mark.exercise), mark.outcome, mark.message, mark.misconception or None, printed)
    shown = verdict_box(verdict)
    lines = [f"This looks like a known mistake: {mark.misconception}"] if mark.misconception else []
    lines += [mark.message] if mark.message else []
    lines += [f"Your function printed:\n{printed}"] if printed else []
    return Box(shown.kind, shown.headline, tuple(lines))
