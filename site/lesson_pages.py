"""A worked lesson -> the notebook that the site shows: stubs, and hints and solutions in boxes that open on a click.

The student tree shows what learners get, with the pictures and numbers of the cells that are not theirs to write: an
untouched lesson runs on the references, so it prints the same. What a check says, the solutions and the known mistakes
are left out.
"""

import copy
import re

from nbformat import NotebookNode
from nbformat.v4 import new_markdown_cell

from coursework.course import publishing
from coursework.exercises.exercise import Exercise, lesson_exercises

SPECIAL = re.compile(r"([\\`*_{}\[\]<>#|$~^!&])")
MARKS = re.compile(rf"^\s*({publishing.BEGIN}|{publishing.END})\n?", re.MULTILINE)
COMPARED = re.compile(r"^# NBVAL_CHECK_OUTPUT\n", re.MULTILINE)


def lesson_page(source: NotebookNode, number: int, *, worked: bool) -> NotebookNode:
    """Returns the page's notebook for the lesson `number`; `worked` shows solutions, checks and known mistakes."""
    exercises = {exercise.id: exercise for exercise in lesson_exercises(number)}
    page = copy.deepcopy(source)
    page.cells = []
    for cell, stub in zip(source.cells, publishing.student_notebook(source).cells, strict=True):
        role = cell.metadata.coursework
        page.cells.append(shown_cell(cell, stub, worked))
        if role.role == "exercise":
            boxes = exercise_boxes(exercises[role.id], cell, worked)
            page.cells.append(new_markdown_cell("\n\n".join(boxes), id=f"{cell.id}-boxes"))
    return page


def shown_cell(cell: NotebookNode, stub: NotebookNode, worked: bool) -> NotebookNode:
    """Returns a cell without metadata that only machines read, and without outputs that the tree does not show."""
    role = cell.metadata.coursework.role
    shown = copy.deepcopy(stub if role == "exercise" else cell)
    shown.metadata = NotebookNode()
    if shown.cell_type != "code":
        return shown
    shown.source = COMPARED.sub("", shown.source)
    if role == "exercise" or (role == "check" and not worked):
        shown.outputs = []
    return shown


def exercise_boxes(exercise: Exercise, cell: NotebookNode, worked: bool) -> list[str]:
    """Returns what stands below an exercise, in Markdown: hints, and for `worked` the solution and known mistakes."""
    hints = [box("hint", f"Hint {i}", plain(text)) for i, text in enumerate(exercise.hints, 1)]
    if not worked:
        return hints
    solution = MARKS.sub("", cell.source)
    fenced = f"```python\n{solution}\n```" if cell.cell_type == "code" else solution
    mistakes = "\n".join(f"- {plain(m.name[0].upper() + m.name[1:])}" for m in exercise.mistakes)
    return [
        *hints,
        box("solution", "Solution", fenced),
        box("mistakes", "Mistakes that the check knows by name", mistakes),
    ]


def box(kind: str, title: str, content: str) -> str:
    """Returns a box that is closed until somebody clicks on its title."""
    return f'<details class="{kind}"><summary>{title}</summary>\n\n{content}\n\n</details>'


def plain(text: str) -> str:
    """Returns plain text, with code in backticks, as Markdown."""
    parts = text.split("`")
    if len(parts) % 2 == 0:
        return SPECIAL.sub(r"\\\1", text)
    return "".join(f"`{part}`" if i % 2 else SPECIAL.sub(r"\\\1", part) for i, part in enumerate(parts))
