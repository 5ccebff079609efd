"""Assigning lessons: a course directory for nbgrader, and a zip for students.

An assignment is a lesson; its name is the lesson's. The course directory is nbgrader's own: source and release trees,
nbgrader_config.py and gradebook.db, so that every command of nbgrader and its JupyterLab extension work in it.
"""

import copy
import io
import os
import re
import shutil
import sys
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stderr
from pathlib import Path
from typing import Any

import nbformat
from nbformat import NotebookNode, v4

from coursework._files import check_writable, write_atomically
from coursework.course import publishing, tree
from coursework.exercises.mistakes import Derivation
from coursework.grading.handin import Lesson
from coursework.grading.points import Points
from coursework.grading.writing import cell_name

CONFIG = '''"""nbgrader's settings for this course directory: run nbgrader's commands, or JupyterLab, in this folder."""

import importlib.util
import os

c = get_config()  # noqa: F821 (nbgrader defines it)
c.CourseDirectory.course_id = "score_based_generative_models"
c.ClearSolutions.code_stub = {"python": "raise NotAttempted"}
c.ClearSolutions.text_stub = "*Write your answer here.*"

# Collect with `coursework collect`, grade with `coursework grade submitted --course . --out graded`. nbgrader's own
# `autograde` executes whatever was handed in, without a sandbox, as the user who calls it; with this variable the
# course's checks raise for it.
os.environ["COURSEWORK_GRADING"] = "1"

# The rubric stands above the answer to a written derivation, on the Formgrader's pages alone.
if importlib.util.find_spec("coursework"):
    c.HTMLExporter.preprocessors = ["coursework.grading.rubric_beside.ShowRubric"]
'''
HAND_IN = """# {title}

## What is in here

- `notebooks/`: {lessons}
- `coursework/`, `pyproject.toml`, `requirements.lock`, `environment.yml`, `Makefile`, `tools/`: the course's package
  and environment.

## Set up, once

You need Python 3.11, 3.12 or 3.13.

- Linux and macOS: `make lab` in this folder. It sets everything up, then opens JupyterLab.
- Windows: `py tools\\set_up.py`, then `.venv\\Scripts\\jupyter lab notebooks`.
- conda: `conda env create -f environment.yml`, then `conda activate coursework`,
  `python tools/set_up.py --settings` and `jupyter lab notebooks`.

## Work

Write your code in the cells that say `raise NotAttempted`, and run the check below each. An exercise that you skip is
worth nothing, and the lesson goes on with the course's own solution. You may add cells, and functions of your own. A
check passes here and in grading alike, but grading uses other numbers, and runs no training. What it finds in your
notebook you see beforehand:

    .venv/bin/coursework check-submission notebooks/{first}.ipynb

(`.venv\\Scripts\\coursework` on Windows.)

| lesson | exercises | points | written derivation | points |
|---|---|---|---|---|
{table}

A written derivation is a text cell that begins with *Write your answer here*; formulas in LaTeX between dollar signs,
or pictures (PNG or JPEG, up to 5 MB) dragged into the cell. A person reads it.

A fresh copy of a lesson: `.venv/bin/coursework reset 03` (yours is kept beside it). What is wrong with the set-up:
`.venv/bin/coursework doctor`.

What counts is your function, not what the cell prints. A function that only calls the course's own solution counts as
not attempted. Each exercise has 8 seconds.

## Hand in

Before you hand in: *Kernel, Restart Kernel and Run All Cells*. Then save, and hand in the notebook {how}, named
`YOURNAME_` and its own name: {example}. Only the notebook is read, no other file.
"""
HOW = "as your course says"
PACKED_FILES = (
    *("pyproject.toml", "requirements.lock", "environment.yml", "Makefile", "LICENSE"),
    *("tools/set_up.py", "tools/jupyter_server_config.py"),
)
KEPT = ("__pycache__",)
OF_GRADING = (  # what `coursework check-submission` needs beside `sandboxed`
    *(
        "__init__",
        "answers",
        "class_list",
        "collected",
        "dry_run",
        "finding",
        "grader",
        "handin",
        "lms_names",
        "marking",
    ),
    *("names", "pictures", "service", "stage", "stripping", "writing"),
)
RUBRIC = re.compile(rb"^### Derivation\n.*?(?=^##|\Z)", re.MULTILINE | re.DOTALL)
WRITTEN = ("source", "release", "nbgrader_config.py", "gradebook.db", "rubric.md", "students.zip")


class AssignError(ValueError):
    """The release cannot be made; the message says why."""


def assign(
    root: Path, lessons: Sequence[Lesson], points: Points, out: Path, course: Sequence[Lesson] = ()
) -> list[Path]:
    """Write a release of lessons into a folder, and return what an instructor looks for there.

    root: the course tree; course: all lessons, by which those are known that were assigned there before. These stay,
    and so do the gradebook and nbgrader_config.py; a lesson that is assigned again is replaced. The zip and the rubrics
    are of all. Where it fails, the folder is what it was. Raises AssignError, CourseError, OSError.
    """
    check_place(out)
    worked = {lesson.name: publishing.read(root / "solutions" / f"{lesson.name}.ipynb") for lesson in lessons}
    sources = {lesson.name: source_notebook(worked[lesson.name], lesson, points) for lesson in lessons}
    packed = dict(packed_files(root))
    check_writable(out / "students.zip")
    with undone_on_failure(out, lessons):
        for name, source in sources.items():
            write_atomically(source_path(out, name), nbformat.writes(source) + "\n")
        if not (out / "nbgrader_config.py").exists():
            write_atomically(out / "nbgrader_config.py", CONFIG)
        for lesson in lessons:
            generate(out, lesson)
        there = assigned(out, course or lessons)
        write_atomically(out / "rubric.md", rubric(there, points))
        write_atomically(out / "students.zip", student_zip(packed, out, there, points))
    return [out / name for name in WRITTEN]


def check_place(course: Path) -> None:
    """Raises AssignError where nbgrader, or its database, would take the path of a course directory for another."""
    text = str(course.resolve())
    odd = next((c for c in text if c in "?%*[]" or not c.isprintable()), None)
    if odd is not None:
        raise AssignError(f"{course}: nbgrader takes no folder with {odd!r} in its path")


def source_path(course: Path, lesson: str) -> Path:
    """Where the source of a lesson lies in a course directory."""
    return course / "source" / lesson / f"{lesson}.ipynb"


def assigned(course: Path, lessons: Sequence[Lesson]) -> list[Lesson]:
    """Those of the lessons that are assigned in a course directory."""
    return [lesson for lesson in lessons if source_path(course, lesson.name).is_file()]


@contextmanager
def undone_on_failure(course: Path, lessons: Sequence[Lesson]) -> Iterator[None]:
    """Takes back what was written into a course directory for these lessons, unless all goes well."""
    made = [path for path in (course, *course.parents) if not path.exists()]
    before = {path: path.read_bytes() for lesson in lessons if (path := source_path(course, lesson.name)).is_file()}
    trees = [course / tree / lesson.name for tree in ("source", "release") for lesson in lessons]
    new = [path for path in (*trees, *(course / name for name in WRITTEN)) if not path.exists()]
    try:
        yield
    except BaseException:
        for path in [made[-1]] if made else new:
            shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
        for path, content in before.items():
            write_atomically(path, content)
        raise


def source_notebook(worked: NotebookNode, lesson: Lesson, points: Points) -> NotebookNode:
    """A worked lesson as nbgrader's source: points in its checks, written derivations after them, no outputs."""
    notebook = copy.deepcopy(worked)
    derivations = {derivation.id: (derivation, worth) for derivation, worth in points.derivations_of(lesson)}
    cells: list[NotebookNode] = []
    for cell in notebook.cells:
        if cell.cell_type == "code":
            cell.outputs, cell.execution_count = [], None
        cells.append(cell)
        own = cell.metadata.get("coursework", {})
        if own.get("role") == "check":
            cell.metadata.nbgrader.points = points.of(own["id"], lesson)
            if own["id"] in derivations:
                cells += derivation_cells(*derivations[own["id"]])
    notebook.cells = cells
    notebook.metadata = nbformat.from_dict({"kernelspec": publishing.KERNEL, "language_info": {"name": "python"}})
    return notebook


def derivation_cells(derivation: Derivation, worth: float) -> list[NotebookNode]:
    """A locked cell with what to derive, and the cell for the answer, which a person grades."""
    common = {"schema_version": 3, "task": False}
    name = cell_name(derivation.id)
    prompt = {"grade": False, "solution": False, "locked": True, "grade_id": f"{name}-prompt"}
    answer = {"grade": True, "solution": True, "locked": False, "points": worth, "grade_id": name}
    texts = (
        (f"**Written derivation {derivation.id}** ({worth:g} points). {derivation.prompt}", prompt),
        ("### BEGIN MARK SCHEME\n" + rubric_lines(derivation, worth) + "\n### END MARK SCHEME", answer),
    )
    return [
        v4.new_markdown_cell(
            text, id=own["grade_id"], metadata={"nbgrader": {**own, **common}, "coursework": {"role": "lesson"}}
        )
        for text, own in texts
    ]


def rubric_lines(derivation: Derivation, worth: float) -> str:
    """The rubric of a derivation, a line for each part of its points."""
    return "\n".join(f"- {share * worth:g}: {text}" for share, text in derivation.rubric)


def rubric(lessons: Sequence[Lesson], points: Points) -> str:
    """The rubrics of the lessons' derivations, as Markdown."""
    parts = ["# Rubrics of the written derivations"]
    for lesson in lessons:
        for derivation, worth in points.derivations_of(lesson):
            title = f"## {lesson.name}, {derivation.id} ({worth:g} points)"
            parts += [title, derivation.prompt, rubric_lines(derivation, worth)]
    return "\n\n".join(parts) + "\n"


def generate(course: Path, lesson: Lesson) -> None:
    """nbgrader's `generate_assignment` for a lesson. Raises AssignError."""
    with programs_of_this_python(), redirect_stderr(io.StringIO()):  # nbgrader logs tracebacks; the reason is one line
        result = course_api(course).generate_assignment(lesson.name, force=True, create=True)
    if "KeyboardInterrupt" in str(result.get("error", "")):  # nbgrader takes it for a failure of its own
        raise KeyboardInterrupt
    if not result["success"]:
        raise AssignError(f"{lesson.name}: nbgrader refuses it: {reason(result)}")


def course_api(course: Path, **directories: Path) -> Any:
    """nbgrader's programming interface for a course directory, with some of its trees elsewhere."""
    from nbgrader.apps import NbGraderAPI
    from nbgrader.coursedir import CourseDirectory
    from traitlets.config import Config
    from traitlets.config.loader import PyFileConfigLoader

    config, before = Config(), dict(os.environ)
    try:
        config.merge(PyFileConfigLoader("nbgrader_config.py", path=str(course)).load_config())
    except Exception as error:  # the file is an instructor's, and a program
        raise AssignError(f"{course / 'nbgrader_config.py'}: {type(error).__name__}: {error}") from None
    finally:  # what it sets is for nbgrader's own commands
        for name in set(os.environ) - set(before):
            del os.environ[name]
        os.environ.update(before)
    config.CourseDirectory.root = str(course.resolve())
    config.CourseDirectory.update({name: str(path) for name, path in directories.items()})
    return NbGraderAPI(CourseDirectory(config=config), config=config)


@contextmanager
def programs_of_this_python() -> Iterator[None]:
    """nbgrader starts a program, alembic, by its name: it is found although this environment is not activated."""
    before = os.environ.get("PATH")
    os.environ["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), before or os.defpath])
    try:
        yield
    finally:
        if before is None:
            del os.environ["PATH"]
        else:
            os.environ["PATH"] = before


def reason(result: dict) -> str:
    """Why nbgrader's interface failed, in a line."""
    lines = [line.strip() for key in ("log", "error") for line in (result.get(key) or "").strip().splitlines()]
    raised = [line for line in lines if re.match(r"[\w.]*(Error|Exception|Entry)\b.*:", line)]
    raised = [line for line in raised if "Please see the" not in line] or raised  # nbgrader, of what it has logged
    return (raised or lines or ["it does not say why"])[-1]


def student_zip(packed: Mapping[str, bytes], course: Path, lessons: Sequence[Lesson], points: Points) -> bytes:
    """The zip for students: released notebooks, the package with its environment files, and how to hand in.

    The notebooks are in it twice: `coursework reset` takes fresh ones from the second place.
    """
    files = dict(packed)
    for lesson in lessons:
        released = (course / "release" / lesson.name / f"{lesson.name}.ipynb").read_bytes()
        files |= {f"{folder}/{lesson.name}.ipynb": released for folder in ("notebooks", tree.RELEASED)}
    files["README.md"] = hand_in_text(lessons, points).encode()
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        for name in sorted(files):
            archive.writestr(zipfile.ZipInfo(f"coursework/{name}"), files[name], zipfile.ZIP_DEFLATED)
    return out.getvalue()


def packed_files(root: Path) -> Iterator[tuple[str, bytes]]:
    """The files of the course tree that students get besides the notebooks."""
    for name in PACKED_FILES:
        yield name, (root / name).read_bytes()
    for path in sorted((root / "coursework").rglob("*")):
        name = path.relative_to(root)
        kept = set(name.parts) & set(KEPT) or (name.match("grading/*.py") and name.stem not in OF_GRADING)
        if path.is_file() and not kept and not path.name.startswith("."):
            yield (
                name.as_posix(),
                RUBRIC.sub(b"", path.read_bytes()) if path.name == "mistakes.md" else path.read_bytes(),
            )


def hand_in_text(lessons: Sequence[Lesson], points: Points) -> str:
    """The README of the zip for students."""
    rows = []
    for lesson in lessons:
        written = points.derivations_of(lesson)
        asked = ", ".join(derivation.id for derivation, _ in written) or "none"
        worth = f"{sum(points for _, points in written):g}"
        rows.append(f"| {lesson.name} | {len(lesson.functions)} | {points.total(lesson):g} | {asked} | {worth} |")
    return HAND_IN.format(
        title="Score-based generative models: your assignment" + ("s" if len(lessons) > 1 else ""),
        lessons=", ".join(f"`{lesson.name}.ipynb`" for lesson in lessons),
        table="\n".join(rows),
        how=HOW,
        example=f"`anna_{lessons[0].name}.ipynb`",
        first=lessons[0].name,
    )
