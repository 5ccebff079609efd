"""A worked lesson -> the notebook that the site shows: stubs, and hints and solutions in boxes that open on a click.

The student tree shows what learners get, with the pictures and numbers of the cells that are not theirs to write: an
untouched lesson runs on the references, so it prints the same. What a check says, the solutions and the known mistakes
are left out.
"""

import copy
import re
from collections.abc import Iterator

from nbformat import NotebookNode
from nbformat.v4 import new_code_cell, new_markdown_cell

from coursework.course import publishing
from coursework.exercises.exercise import Exercise, lesson_exercises

SPECIAL = re.compile(r"([\\`*_{}\[\]<>#|$~^!&])")
MARKS = re.compile(rf"^\s*({publishing.BEGIN}|{publishing.END})\n?", re.MULTILINE)
ANCHOR = re.compile(r"\]\([\w.]*#[\w-]+\)")  # of a lesson's heading: capital in JupyterLab, small on the site
GLOSSARY = ("(00_start_here.ipynb#glossary)", "(../site/glossary.md#glossary)")


def lesson_page(source: NotebookNode, number: int, *, worked: bool) -> NotebookNode:
    """Returns the page's notebook for the lesson `number`; `worked` shows solutions, checks and known mistakes."""
    exercises = {exercise.id: exercise for exercise in lesson_exercises(number)}
    page = copy.deepcopy(source)
    page.cells = []
    for cell, stub in zip(source.cells, publishing.student_notebook(source).cells, strict=True):
        role = cell.metadata.coursework
        page.cells += shown(stub if role.role == "exercise" else cell, worked or role.role != "check")
        if role.role == "exercise":
            boxes = exercise_boxes(exercises[role.id], cell, worked)
            page.cells.append(new_markdown_cell("\n\n".join(boxes), id=f"{cell.id}-boxes"))
    return page


def shown(cell: NotebookNode, with_outputs: bool) -> Iterator[NotebookNode]:
    """Yields a cell as it is shown, the code of a folded one to be opened on a click; and its pictures but the first.

    A cell of its own for each: the site's alternative text is one for all the pictures of a cell.
    """
    if cell.cell_type != "code":
        text = ANCHOR.sub(lambda link: link[0].lower(), cell.source).replace(*GLOSSARY)
        yield new_markdown_cell(text, id=cell.id)
        return
    folded = cell.metadata.get("jupyter", {}).get("source_hidden") or "hide-input" in cell.metadata.get("tags", ())
    tags = ["hide-input"] if folded and cell.metadata.coursework.role != "exercise" else []
    page = new_code_cell(cell.source, id=cell.id, metadata={"tags": tags})
    for output in cell.outputs if with_outputs else ():
        if alt := output.get("metadata", {}).get("image/png", {}).get("alt"):
            if "mystnb" in page.metadata:
                yield page
                page = new_code_cell(cell.source, id=f"{page.id}-more", metadata={"tags": ["remove-input"]})
            page.metadata["mystnb"] = {"image": {"alt": alt}}
        page.outputs.append(output)
    yield page


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
