"""The rubric beside a written derivation, for the person who grades it in nbgrader's Formgrader, and for nobody else.

nbgrader_config.py names `ShowRubric` for every page that nbgrader makes of a notebook. It adds the rubric where the
page is the Formgrader's; no notebook file and no feedback page ever holds one.
"""

import re
from typing import Any

from nbconvert.preprocessors import Preprocessor
from nbformat import NotebookNode, v4

from coursework.exercises.exercise import lesson_derivations
from coursework.grading.release import rubric_lines
from coursework.grading.writing import cell_name

LESSON = re.compile(r"derivation-(\d+)-")


class ShowRubric(Preprocessor):
    """Adds the rubric of a derivation above its answer, in the Formgrader."""

    def preprocess(self, nb: NotebookNode, resources: dict[str, Any]) -> tuple[NotebookNode, dict[str, Any]]:
        """The notebook as it is shown."""
        if "submission_id" not in resources:  # what the Formgrader's own pages have, and feedback has not
            return nb, resources
        cells: list[NotebookNode] = []
        for cell in nb.cells:
            own = cell.metadata.get("nbgrader", {})
            named = LESSON.match(own.get("grade_id", ""))
            written = {cell_name(d.id): d for d in lesson_derivations(int(named[1]))} if named else {}
            if own.get("grade") and own.get("grade_id") in written:
                lines = rubric_lines(written[own["grade_id"]], float(own.get("points", 0)))
                cells.append(v4.new_markdown_cell(f"**Rubric**, for you alone:\n\n{lines}"))
            cells.append(cell)
        return NotebookNode({**nb, "cells": cells}), resources
