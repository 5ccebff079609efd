"""Worked lessons as text that authors edit: solutions/NAME.ipynb <-> build/edit/NAME.py, in jupytext's percent format.

In the text a cell's header gives its role: `# %% role="setup"`, `# %% role="exercise" id="1.2"`,
`# %% role="check" id="1.2"`; without one it is "lesson". The tag "hide-input" folds a cell of code. Saving fills in
cell ids and nbgrader's metadata, and keeps the outputs of cells whose code is unchanged.
"""

from pathlib import Path

import nbformat
from nbformat import NotebookNode

from coursework._files import write_atomically
from coursework.course import notebooks
from coursework.course.lines import first_line
from coursework.course.publishing import KERNEL, read
from coursework.course.tree import CourseError, find_lesson

TEXTS = Path("build", "edit")
FORMAT = {"extension": ".py", "format_name": "percent"}


def open_lesson(notebook: NotebookNode) -> str:
    """The notebook as text, with roles in the headers and everything that can be derived left out."""
    import jupytext

    for cell in notebook.cells:
        role = cell.metadata.pop("coursework", {})
        cell.metadata.pop("nbgrader", None)
        cell.metadata.pop("jupyter", None)
        if role.get("role") != "lesson":
            cell.metadata.update(role)
        cell.pop("id", None)
        cell.outputs, cell.execution_count = [], None
    notebook.metadata = NotebookNode({"jupytext": {"notebook_metadata_filter": "-all", "cell_metadata_filter": "all"}})
    return jupytext.writes(notebook, FORMAT)


def save_lesson(text: str, before: NotebookNode | None) -> NotebookNode:
    """The text as a notebook, with ids, roles, nbgrader's metadata and the outputs that `before` holds."""
    import jupytext

    notebook = jupytext.reads(text, FORMAT)
    notebook.metadata = NotebookNode({"kernelspec": KERNEL, "language_info": {"name": "python"}})
    ran = {c.source: c for c in before.cells if c.cell_type == "code"} if before else {}
    for number, cell in enumerate(notebook.cells, 1):
        _complete(cell, number)
        if cell.cell_type == "code" and cell.source in ran:
            cell.outputs, cell.execution_count = ran[cell.source].outputs, ran[cell.source].execution_count
    notebook.nbformat, notebook.nbformat_minor = 4, 5
    nbformat.validate(notebook)
    return notebook


def _complete(cell: NotebookNode, number: int) -> None:
    role, tags = cell.metadata.pop("role", "lesson"), cell.metadata.get("tags")
    exercise = cell.metadata.pop("id", None)
    cell.id = f"cell-{number:03d}"
    own = {"role": role, **({"id": exercise} if exercise else {})}
    folded = {"jupyter": {"source_hidden": True}} if "hide-input" in (tags or ()) else {}
    cell.metadata = NotebookNode({"coursework": own, **({"tags": tags} if tags else {}), **folded})
    if exercise:
        cell.metadata["nbgrader"] = _nbgrader(role, exercise)


def _nbgrader(role: str, exercise: str) -> dict:
    is_check = role == "check"
    points = {"points": 1} if is_check else {}
    return {
        "grade": is_check,
        "grade_id": f"{role}-{exercise.replace('.', '-')}",
        "locked": is_check,
        "schema_version": 3,
        "solution": not is_check,
        "task": False,
        **points,
    }


def open_text(root: Path, name: str) -> Path:
    """Write the lesson that the name picks as text, and return where.

    Raises CourseError, and writes nothing, for what cannot be found or read.
    """
    source = find_lesson(root / "solutions", name)
    path = root / TEXTS / f"{source.stem}.py"
    write_atomically(path, open_lesson(read(source)))
    return path


def save_text(root: Path, name: str) -> Path:
    """Write the lesson whose text the name picks, a new one too, and return where.

    Raises CourseError, and writes nothing, for what cannot be found, read or parsed.
    """
    text = find_lesson(root / TEXTS, name, ".py")
    path = root / "solutions" / f"{text.stem}.ipynb"
    before = read(path) if path.exists() else None
    try:
        lesson = save_lesson(text.read_text(encoding="utf-8"), before)
    except (ValueError, nbformat.ValidationError) as error:
        raise CourseError(f"{text.name}: {first_line(error)}") from None
    notebooks.write(path, lesson)
    return path
