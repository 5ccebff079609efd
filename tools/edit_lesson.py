"""An editing aid for worked lessons: solutions/NAME.ipynb <-> build/edit/NAME.py (jupytext's percent format).

    python tools/edit_lesson.py open 01_score_function     writes build/edit/01_score_function.py
    python tools/edit_lesson.py save 01_score_function     writes solutions/01_score_function.ipynb from it

In the text a cell's header gives its role: `# %% role="setup"`, `# %% role="exercise" id="1.2"`,
`# %% role="check" id="1.2"`; without one it is "lesson". The tag "hide-input" folds a cell of code. Saving fills in
cell ids and nbgrader's metadata, and keeps the outputs of cells whose code is unchanged.
"""

import sys
from pathlib import Path

import jupytext
import nbformat
from nbformat import NotebookNode

from coursework import notebook_files
from coursework._files import write_atomically
from coursework.course.lines import first_line
from coursework.publishing import KERNEL

FORMAT = {"extension": ".py", "format_name": "percent"}


def open_lesson(notebook: NotebookNode) -> str:
    """The notebook as text, with roles in the headers and everything that can be derived left out."""
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


def main(verb: str, name: str) -> None:
    """Run one of the two verbs on the course tree in the current directory.

    Raises NotebookError, OSError or ValueError, and writes nothing, for what cannot be read, parsed or written.
    """
    source, text = Path("solutions", f"{name}.ipynb"), Path("build/edit", f"{name}.py")
    if verb == "open":
        write_atomically(text, open_lesson(notebook_files.read(source)))
        print(f"edit {text}, then: python tools/edit_lesson.py save {name}")
    elif verb == "save":
        before = notebook_files.read(source) if source.exists() else None
        notebook_files.write(source, save_lesson(text.read_text(encoding="utf-8"), before))
        print(f"wrote {source}")
    else:
        raise SystemExit(__doc__)


if __name__ == "__main__":
    if len(sys.argv) != 3:
        raise SystemExit(__doc__)
    try:
        main(*sys.argv[1:])
    except (OSError, ValueError, nbformat.ValidationError) as error:
        raise SystemExit(f"{sys.argv[2]}: {first_line(error)}") from None
