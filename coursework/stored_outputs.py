"""Outputs of an executed lesson that may be stored: without what is another on every run."""

from pathlib import Path

import nbformat
from nbformat import NotebookNode

from coursework import notebook_files

WIDGET_VIEW = "application/vnd.jupyter.widget-view+json"


def store(source: Path, executed: NotebookNode) -> None:
    """Copies the outputs of an executed lesson into its source, and nothing else (no timing, no widget state)."""
    notebook = notebook_files.read(source)
    for cell, run_cell in zip(notebook.cells, executed.cells, strict=True):
        if cell.cell_type == "code":
            cell.outputs = [lasting for output in run_cell.outputs if (lasting := without_widget(output))]
            cell.execution_count = run_cell.execution_count
    notebook_files.write(source, notebook)


def without_widget(output: NotebookNode) -> NotebookNode | None:
    """Returns an output without the live widget's random id; None where nothing else is in it.

    A widget's picture or text beside it stays: a stored page has no kernel that could draw the widget.
    """
    if WIDGET_VIEW not in output.get("data", {}):
        return output
    data = {kind: value for kind, value in output.data.items() if kind != WIDGET_VIEW}
    return nbformat.from_dict({**output, "data": data}) if set(data) - {"text/plain"} else None
