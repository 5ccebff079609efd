"""solutions/*.ipynb -> notebooks/*.ipynb: the worked lessons, with the answers taken out.

The student tree is generated, byte for byte reproducibly. Its metadata holds two digests: of the source's cells, so
that any change of a source without a new publication is noticed, and of its own cells, so that a learner's work is.
"""

import ast
import copy
import hashlib
import json
import re
from collections import Counter
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import nbformat
from IPython.core.inputtransformer2 import TransformerManager
from nbformat import NotebookNode

from coursework._files import write_atomically
from coursework.course import notebooks
from coursework.course.heads import between, heads, long_table, short_table
from coursework.course.lines import first_line
from coursework.course.tree import RELEASED, CourseError, course_tree, find_lesson, find_lessons, lessons
from coursework.exercises.exercise import lesson_exercises

ROLES = ("setup", "lesson", "exercise", "check")
BEGIN, END = "### BEGIN SOLUTION", "### END SOLUTION"
STUB = "raise NotAttempted"
KERNEL = {"display_name": "Python 3 (ipykernel)", "language": "python", "name": "python3"}
FAULTY = "spot-the-bug"  # tag of a cell whose code is wrong, and mostly right: it may show lines of the solution
TABLE = "<!-- begin lessons -->"
LEAK_LENGTH = 16  # a solution's line of at least this many characters, spaces aside, is looked for elsewhere


def publish(root: Path) -> list[Path]:
    """Write what follows from solutions/, and return the files that changed.

    That is notebooks/, the parts of the guide, and the tables of lessons in README and lesson 00.

    A notebook that somebody has worked in is kept beside its fresh copy. Raises CourseError, and writes nothing, if
    any source has a problem; OSError naming a file that cannot be written.
    """
    changed = {path: text for path, text in _all_texts(root).items() if not _holds(path, text)}
    for path, text in changed.items():
        put(path, text, keep=path.parent.name == "notebooks" and is_edited(path))
    return list(changed)


def out_of_sync(root: Path) -> list[str]:
    """Every way in which files are not exactly what `publish` writes, a line each. Raises CourseError."""
    texts = _all_texts(root)
    problems = [
        f"{path.relative_to(root)}: missing"
        if not path.exists()
        else f"{path.relative_to(root)}: differs from its source"
        for path, text in texts.items()
        if not _holds(path, text)
    ]
    orphans = [p for p in lessons(root / "notebooks") if p not in texts]
    return problems + [f"{p.relative_to(root)}: has no source" for p in orphans]


def outdated(root: Path) -> list[str]:
    """Lessons in notebooks/ that are missing or made from another version of their source, a line each.

    A learner's own work in a notebook is fine here.
    """
    problems = []
    for source in find_lessons(root / "solutions"):
        path = root / "notebooks" / source.name
        if not path.exists():
            problems.append(f"notebooks/{path.name}: missing")
        elif _own_metadata(path).get("source") != digest(read(source)):
            problems.append(f"notebooks/{path.name}: made from another version of its source")
    return problems


def student_text(root: Path, name: str) -> str:
    """The student notebook of the lesson `name` ("01_score_function") as it stands in the file. Raises CourseError."""
    path = root / "solutions" / f"{name}.ipynb"
    source = _with_table(root, path)
    try:
        problems = list(source_problems(source, int(name[:2])))
        if not problems:
            student = student_notebook(source)
            problems = list(student_problems(source, student))
    except ModuleNotFoundError:
        raise
    except Exception as error:  # nbgrader fails in many ways on odd metadata
        problems = [f"{type(error).__name__}: {first_line(error)}"]
    if problems:
        raise CourseError("\n".join(f"{path.name}: {problem}" for problem in problems))
    return nbformat.writes(student) + "\n"


def student_notebook(source: NotebookNode) -> NotebookNode:
    """The source without answers and outputs, by nbgrader's preprocessors."""
    from nbconvert.exporters.exporter import ResourcesDict
    from nbgrader.preprocessors import CheckCellMetadata, ClearOutput, ClearSolutions, ComputeChecksums, LockCells

    notebook = copy.deepcopy(source)
    for cell in notebook.cells:
        cell.metadata = nbformat.from_dict(_lasting(cell.metadata))
    for step in (
        LockCells(),
        ClearSolutions(code_stub={"python": STUB}, text_stub="*Write your answer here.*"),
        ClearOutput(),
        CheckCellMetadata(),
        ComputeChecksums(),
    ):
        notebook, _ = step.preprocess(notebook, ResourcesDict())
    digests = {"source": digest(source), "cells": digest(notebook)}
    metadata = {"kernelspec": KERNEL, "language_info": {"name": "python"}, "coursework": digests}
    notebook.metadata = nbformat.from_dict(metadata)
    return notebook


def digest(notebook: NotebookNode) -> str:
    """SHA-256 over the cells' ids, types, sources and metadata, without what an execution leaves behind."""
    cells = [[c.get("id"), c.cell_type, c.source, _lasting(c.metadata)] for c in notebook.cells]
    return hashlib.sha256(json.dumps(cells, sort_keys=True).encode()).hexdigest()


def _lasting(metadata: NotebookNode) -> dict:
    return {k: v for k, v in metadata.items() if k in ("coursework", "nbgrader", "tags", "jupyter")}


def reset(root: Path, name: str) -> tuple[Path, Path | None]:
    """Put a fresh student copy of the lesson that the name picks in place.

    Returns the fresh copy, and where the old one is kept (None if there was none). Raises CourseError if the name does
    not pick exactly one lesson, or its source cannot be published; OSError naming what cannot be written: then the old
    copy is where it was.
    """
    complete = (course_tree(root) / "solutions").is_dir()
    source = find_lesson(root / ("solutions" if complete else RELEASED), name)
    text = student_text(root, source.stem) if complete else source.read_text(encoding="utf-8")
    path = root / "notebooks" / source.name
    return path, put(path, text, keep=True)


# -- what is refused -------------------------------------------------------------------------------------------------


def source_problems(source: NotebookNode, lesson: int) -> Iterator[str]:
    """What is wrong with a worked lesson: roles, ids, and exercises that the package does not know."""
    for cell in source.cells:
        yield from _cell_problems(cell)
    known = [e.id for e in lesson_exercises(lesson)]
    for role in ("exercise", "check"):
        ids = [_role(c).get("id") for c in source.cells if _role(c).get("role") == role]
        yield from (f"{role} {i}: stands {n} times" for i, n in Counter(ids).items() if n > 1)
        yield from (f"{role} {i}: the package has no such exercise" for i in ids if i not in known)
        yield from (f"{role} {i}: missing" for i in known if i not in ids)


def _cell_problems(cell: NotebookNode) -> Iterator[str]:
    role, where = _role(cell), f"cell {cell.get('id')}"
    if role.get("role") not in ROLES:
        yield f"{where}: metadata.coursework.role is {role.get('role')!r}, expected one of {', '.join(ROLES)}"
    marks = cell.source.count(BEGIN), cell.source.count(END)
    if role.get("role") == "exercise" and marks != (1, 1):
        yield f"{where}: an exercise has one {BEGIN} and one {END}, got {marks}"
    if role.get("role") != "exercise" and marks != (0, 0):
        yield f"{where}: a solution outside an exercise"
    if role.get("role") in ("exercise", "check") and "nbgrader" not in cell.metadata:
        yield f"{where}: no nbgrader metadata"
    if role.get("role") == "check" and f'check("{role.get("id")}"' not in cell.source:
        yield f'{where}: does not call check("{role.get("id")}", ...)'


def student_problems(source: NotebookNode, student: NotebookNode) -> Iterator[str]:
    """What is wrong with a generated notebook: code that does not parse, leaks, public names that changed."""
    for before, after in zip(source.cells, student.cells, strict=True):
        if after.cell_type != "code":
            continue
        try:
            wanted, names = _public_names(before.source), _public_names(after.source)
        except SyntaxError as error:
            yield f"cell {after.id}: the code does not parse: {error.msg} in line {error.lineno}"
            continue
        if names != wanted:
            yield f"cell {after.id}: public names change from {wanted} to {names}"
    yield from leaks(source, student)


def leaks(source: NotebookNode, student: NotebookNode) -> Iterator[str]:
    """Lines of a solution that the student's notebook shows, outside the cell that they were taken out of too."""
    told = [cell for cell in student.cells if FAULTY not in cell.metadata.get("tags", [])]
    shown = {re.sub(r"\s", "", line): cell.id for cell in told for line in cell.source.splitlines()}
    for cell in source.cells:
        for line in _solution_lines(cell.source):
            if line in shown:
                yield f"cell {shown[line]}: shows a line of the solution in cell {cell.id}: {line}"
    for cell in student.cells:
        if BEGIN in cell.source or END in cell.source:
            yield f"cell {cell.id}: a solution's mark is left"


def _solution_lines(text: str) -> list[str]:
    inside = re.search(f"{BEGIN}(.*?){END}", text, re.DOTALL)
    lines = [re.sub(r"\s", "", line) for line in inside[1].splitlines()] if inside else []
    return [line for line in lines if len(line) >= LEAK_LENGTH and not line.startswith("#")]


def _public_names(code: str) -> list[str]:
    """Functions with their arguments, classes and variables that a cell defines at its top level."""
    names = []
    for node in ast.parse(TransformerManager().transform_cell(code)).body:
        if isinstance(node, ast.FunctionDef):
            names.append(f"{node.name}({ast.unparse(node.args)})")
        elif isinstance(node, ast.ClassDef):
            names.append(node.name)
        elif isinstance(node, ast.Assign):
            names += [ast.unparse(t) for t in node.targets]
    return names


# -- files -------------------------------------------------------------------------------------------------------------


def read(path: Path) -> NotebookNode:
    """Read a notebook. Raises CourseError for a file that is missing, is none, or whose cell ids are not unique."""
    try:
        return notebooks.read(path)
    except notebooks.NotebookError as error:
        raise CourseError(f"{path.name}: {error}") from None


def is_edited(path: Path) -> bool:
    """Whether somebody has changed a cell since the notebook was generated (or nobody can tell)."""
    try:
        notebook = read(path)
    except CourseError:
        return True
    return notebook.metadata.get("coursework", {}).get("cells") != digest(notebook)


def keep_copy(path: Path) -> Path:
    """Rename a notebook to NAME.mine-1.ipynb, or the first number that is free, and return the new path."""
    number = 1
    while (kept := path.with_name(f"{path.stem}.mine-{number}.ipynb")).exists():
        number += 1
    return path.rename(kept)


def put(path: Path, text: str, *, keep: bool) -> Path | None:
    """Write a notebook; what was there is kept beside it, if wanted, and where the new one cannot be written stays.

    Returns where the old one is kept, None if there was none. Raises OSError naming the file.
    """
    kept = keep_copy(path) if keep and path.exists() else None
    try:
        write_atomically(path, text)
    except OSError:
        if kept is not None:
            kept.rename(path)
        raise
    return kept


def _holds(path: Path, text: str) -> bool:
    return path.is_file() and path.read_bytes() == text.encode("utf-8")


def _all_texts(root: Path) -> dict[Path, str]:
    """What `publish` writes, by file."""
    texts = _all_student_texts(root)
    for source in find_lessons(root / "solutions"):
        if TABLE in source.read_text(encoding="utf-8"):
            texts[source] = nbformat.writes(_with_table(root, source)) + "\n"
    readme, guide = root / "README.md", root / "docs" / "instructors.md"
    if readme.is_file() and TABLE in (text := readme.read_text(encoding="utf-8")):
        texts[readme] = between(text, {"lessons": lambda: long_table(heads(root))}, readme.name)
    if guide.is_file():
        from coursework.course.guide import updated

        texts[guide] = updated(guide.read_text(encoding="utf-8"), root)
    return texts


def _with_table(root: Path, path: Path) -> NotebookNode:
    """A worked lesson, with the table of the other lessons made anew where it has one."""
    source = read(path)
    for cell in source.cells:
        if TABLE in cell.source:
            others = [head for head in heads(root) if head.name != path.stem]
            cell.source = between(cell.source, {"lessons": partial(short_table, others)}, path.name)
    return source


def _all_student_texts(root: Path) -> dict[Path, str]:
    texts, problems = {}, []
    for source in find_lessons(root / "solutions"):
        try:
            texts[root / "notebooks" / source.name] = student_text(root, source.stem)
        except CourseError as error:
            problems.append(str(error))
    if problems:
        raise CourseError("\n".join(problems))
    return texts


def _own_metadata(path: Path) -> dict:
    try:
        return read(path).metadata.get("coursework", {})
    except CourseError:
        return {}


def _role(cell: NotebookNode) -> dict:
    return cell.metadata.get("coursework", {})
