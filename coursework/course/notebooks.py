"""Notebooks on disk: read with one line for whatever is wrong, written whole or not at all."""

from __future__ import annotations

import warnings
from pathlib import Path

import nbformat
from nbformat import NotebookNode

from coursework._files import write_atomically
from coursework.course.lines import first_line

WIDGET_VIEW = "application/vnd.jupyter.widget-view+json"


class NotebookError(ValueError):
    """A file that cannot be read as a notebook. The message is one line; it does not name the file."""


def read(path: Path, *, mend_ids: bool = False) -> NotebookNode:
    """Reads a notebook of format 4.

    mend_ids: whether cell ids that are missing or stand twice are replaced in memory, as Jupyter does. Raises
    NotebookError for a file that is missing, out of reach or no file, and for what is no valid notebook.
    """
    try:
        if path.exists() and not path.is_file():  # to open a pipe would wait for somebody who writes
            raise NotebookError("it is a folder" if path.is_dir() else "it is no file")
        with warnings.catch_warnings(action="ignore" if mend_ids else "error"):
            notebook = nbformat.reads(path.read_text(encoding="utf-8-sig"), as_version=4)
            nbformat.validate(notebook)
    except OSError as error:
        raise NotebookError(error.strerror or first_line(error)) from None
    except nbformat.ValidationError as error:
        place = "".join(f"[{part!r}]" for part in error.absolute_path)
        raise NotebookError(f"no valid notebook: {place or 'it'}: {first_line(error)}") from None
    except Warning as warning:  # of the ids
        raise NotebookError(first_line(warning).partition(". Corrected")[0]) from None
    except NotebookError:
        raise
    except Exception as error:  # nbformat fails in many ways on what is no notebook
        raise NotebookError(f"no valid notebook: {first_line(error)}") from None
    return notebook


def write(path: Path, notebook: NotebookNode) -> None:
    """Writes a notebook, whole or not at all. Raises OSError naming the file."""
    # half of a pair of UTF-16, which a cell may print, is no character; JSON writes it as an escape
    write_atomically(path, (nbformat.writes(notebook) + "\n").encode("utf-8", "backslashreplace"))


def store_outputs(source: Path, executed: NotebookNode) -> None:
    """Copies the outputs of an executed lesson into its source, and nothing else (no timing, no widget state)."""
    notebook = read(source)
    for cell, run_cell in zip(notebook.cells, executed.cells, strict=True):
        if cell.cell_type == "code":
            cell.outputs = [lasting for output in run_cell.outputs if (lasting := without_widget(output))]
            cell.execution_count = run_cell.execution_count
    write(source, notebook)


def without_widget(output: NotebookNode) -> NotebookNode | None:
    """Returns an output without the live widget's random id; None where nothing else is in it.

    A widget's picture or text beside it stays: a stored page has no kernel that could draw the widget.
    """
    if WIDGET_VIEW not in output.get("data", {}):
        return output
    data = {kind: value for kind, value in output.data.items() if kind != WIDGET_VIEW}
    return NotebookNode(output, data=nbformat.from_dict(data)) if set(data) - {"text/plain"} else None
