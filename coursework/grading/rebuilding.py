"""A learner's notebook rebuilt on the released one: the answers in their cells, and the outcome under each check."""

import html
import re
from collections.abc import Iterable

import nbformat
from nbformat import NotebookNode, v4

from coursework.exercises.exercise import find
from coursework.exercises.judging import Verdict
from coursework.exercises.report import Box, looks_like, verdict_box
from coursework.grading.answers import places
from coursework.grading.handin import HandIn, Lesson, digest
from coursework.grading.marking import Mark
from coursework.grading.writing import cell_name

LONG_NUMBER = re.compile(r"&#(?=[0-9]{8})")  # no character's; Python refuses to read more than 4,300 digits


def rebuilt(released: NotebookNode, handed_in: HandIn, lesson: Lesson, marks: Iterable[Mark]) -> NotebookNode:
    """The released notebook with a learner's answers and extra cells, and the outcome as the output of each check."""
    by_exercise = {mark.exercise: mark for mark in marks}
    sources, before, after = _own_cells(released, handed_in, lesson)
    answers = {cell_name(number): answer for number, answer in handed_in.answers.items() if answer.text}
    cells = []
    for cell in released.cells:
        own, name = cell.metadata.get("coursework", {}), cell.metadata.get("nbgrader", {}).get("grade_id")
        if own.get("role") == "exercise" and own["id"] in sources:
            cells += [v4.new_code_cell(text) for text in before[own["id"]]]
            cell.source = sources[own["id"]]
        elif own.get("role") == "check" and own["id"] in by_exercise:
            cell.outputs = [output(by_exercise[own["id"]])]
        elif name in answers and cell.metadata.nbgrader.get("solution"):
            cell.source = without_html(answers[name].text)
            cell.attachments = nbformat.from_dict(answers[name].pictures)
        cells.append(cell)
    cells += [v4.new_code_cell(text) for text in after]
    released.cells = cells
    return released


def _own_cells(
    released: NotebookNode, handed_in: HandIn, lesson: Lesson
) -> tuple[dict[str, str], dict[str, list[str]], list[str]]:
    """The answers by exercise, and the other code that is a learner's: what stands before each, and after the last.

    All that grading may execute is there: also a cell that says that it is the lesson's, and a check that was edited.
    """
    answering: dict[int, list[str]] = {}
    for exercise, name in lesson.functions.items():
        for place in places(handed_in.cells, exercise, name)[:1]:
            answering.setdefault(place.own, []).append(exercise)
    ours = {digest(cell.source) for cell in released.cells}
    sources: dict[str, str] = {}
    before: dict[str, list[str]] = {}
    extra: list[str] = []
    for number, cell in enumerate(handed_in.cells):
        for exercise in answering.get(number, ()):
            sources[exercise], before[exercise], extra = cell.source, extra, []
        if number not in answering and cell.source.strip() and digest(cell.source) not in ours:
            extra.append(cell.source)
    return sources, before, extra


def without_html(text: str) -> str:
    """Markdown whose HTML tags are shown, not obeyed: feedback pages are opened in an instructor's browser."""
    while (plain := html.unescape(LONG_NUMBER.sub("& #", text))) != text:
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
    verdict = Verdict(find(mark.exercise), mark.outcome, mark.message, mark.misconception, printed)
    shown = verdict_box(verdict)
    lines = list(looks_like(mark.misconception))
    lines += [mark.message] if mark.message else []
    lines += [f"Your function printed:\n{printed}"] if printed else []
    return Box(shown.kind, shown.headline, tuple(lines))
