"""Reading a notebook that a learner handed in: its cells and written answers. Nothing here trusts a file."""

import hashlib
import json
import re
import stat
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from coursework.grading.stripping import without_outputs
from coursework.grading.writing import Part, Written, written

if TYPE_CHECKING:
    from nbformat import NotebookNode

LARGEST_FILE = 200 << 20  # bytes of a notebook
LARGEST = 20 << 20  # of it without its outputs
LONGEST = 1 << 20  # characters of code in a notebook
MOST_CELLS = 2_000
ID = re.compile(r"(exercise|check)-(\d{1,2})-(\d{1,2})")
PROMPT = re.compile(r"\*\*Written derivation ([\d.]+)\*\* \([^)]*\)\. (.*)", re.DOTALL)


class HandInError(ValueError):
    """A file cannot be read as a submission; the message says why."""


@dataclass(frozen=True)
class Lesson:
    """A lesson that can be graded: its notebook's name without .ipynb, and its exercises' function names by id.

    `known` has the role of each of its own cells by the digest of its source (see `digest`): "lesson" or "setup";
    `prompts` what its written derivations ask for, by id.
    """

    name: str
    functions: Mapping[str, str]
    known: Mapping[str, str] = field(default_factory=dict)
    prompts: Mapping[str, str] = field(default_factory=dict)

    @property
    def number(self) -> int:
        """The lesson's number."""
        return int(self.name[:2])


@dataclass(frozen=True)
class Cell:
    """A code cell: source, role ("setup", "lesson", "exercise", "check", or "" for a learner's own), and exercise."""

    source: str
    role: str = ""
    exercise: str = ""


@dataclass(frozen=True)
class HandIn:
    """The code cells of a submission, or why they cannot be read.

    `remarks` are for the instructor and the learner; `answers` are the written derivations by id, "" where one
    is asked for and nothing is written.
    """

    cells: tuple[Cell, ...] = ()
    problem: str = ""
    remarks: tuple[str, ...] = ()
    answers: Mapping[str, Written] = field(default_factory=dict)


def course_lessons(root: Path) -> list[Lesson]:
    """The lessons of a course tree that have exercises, in order. Raises CourseError where one cannot be read."""
    from coursework.course.publishing import read
    from coursework.course.tree import find_lessons

    found = [_lesson(path.stem, read(path)) for path in find_lessons(root / "solutions")]
    return [lesson for lesson in found if lesson.functions]


def _lesson(name: str, notebook: "NotebookNode") -> Lesson:
    from coursework.exercises.exercise import lesson_derivations

    prompts = {derivation.id: derivation.prompt for derivation in lesson_derivations(int(name[:2]))}
    return Lesson(name, functions(notebook), known(notebook), prompts)


def functions(notebook: "NotebookNode") -> dict[str, str]:
    """The function that each check of one of our notebooks is given, by the exercise's id."""
    found = {}
    for cell in notebook.cells:
        if cell.metadata.get("coursework", {}).get("role") == "check":
            for name, number in re.findall(r'^(\w+) = check\("([\d.]+)"', cell.source, re.MULTILINE):
                found[number] = name
    return found


def released_lesson(name: str, notebook: "NotebookNode") -> Lesson:
    """A lesson by the notebook that students got; what its derivations ask for stands in it."""
    texts = [cell.source for cell in notebook.cells if _name(cell).endswith("-prompt")]
    found = [PROMPT.fullmatch(text) for text in texts]
    return Lesson(name, functions(notebook), known(notebook), {one[1]: one[2] for one in found if one})


def known(notebook: "NotebookNode") -> dict[str, str]:
    """The roles of the cells of one of our notebooks that learners need not touch, by the digest of their sources."""
    cells = [cell for cell in notebook.cells if not _name(cell).startswith("derivation-")]
    roles = {digest(cell.source): cell.metadata.get("coursework", {}).get("role") for cell in cells}
    return {key: role for key, role in roles.items() if role in ("lesson", "setup")}


def digest(source: str) -> str:
    """What tells a cell's source from others, whatever its white space."""
    return hashlib.sha256("".join(source.split()).encode()).hexdigest()[:16]


def content(path: Path) -> bytes:
    """The bytes of a submission. Raises HandInError where there are none to be had."""
    try:
        if not stat.S_ISREG(path.lstat().st_mode):
            raise HandInError("it is no plain file")
        if path.stat().st_size > LARGEST_FILE:
            raise HandInError(f"it is larger than {LARGEST_FILE >> 20} MB; clear its outputs")
        return path.read_bytes()
    except OSError as error:
        raise HandInError(f"it cannot be read: {error.strerror}") from None


def parse(data: bytes, lesson: Lesson) -> HandIn:
    """The code cells of a submission. One that is no notebook gives a HandIn that says so."""
    try:
        found = cells_of(data)
    except HandInError as error:
        return HandIn(problem=str(error))
    cells = [_cell(cell, lesson) for cell in found if cell.get("cell_type") == "code"]
    if sum(len(cell.source) for cell in cells) > LONGEST:
        return HandIn(problem="it holds more than a million characters of code")
    answers, remarks = written([_part(cell, lesson) for cell in found], lesson.prompts)
    return HandIn(tuple(cells), remarks=tuple(remarks), answers=answers)


def cells_of(data: bytes) -> list[dict]:
    """The cells of a notebook, without outputs. Raises HandInError where it is none."""
    try:
        data = without_outputs(data)
    except ValueError as error:
        raise HandInError(str(error)) from None
    if len(data) > LARGEST:
        raise HandInError(f"it is larger than {LARGEST >> 20} MB without its outputs")
    try:
        found = json.loads(data)["cells"]
    except (ValueError, RecursionError, TypeError, KeyError):
        found = None
    if not isinstance(found, list) or not all(isinstance(cell, dict) for cell in found):
        raise HandInError("it is not a notebook")
    if len(found) > MOST_CELLS:
        raise HandInError(f"it holds more than {MOST_CELLS:,} cells")
    return found


def source_of(cell: dict) -> str:
    """The text of a cell."""
    source = cell.get("source", "")
    text = source if isinstance(source, str) else "".join(map(str, source)) if isinstance(source, list) else ""
    return text.encode("utf-8", "replace").decode()  # JSON can hold halves of characters, which no file can


def mark_of(cell: dict) -> tuple[str, str]:
    """The role and the exercise's id that a cell bears, of the course's marks or nbgrader's; "" for what it lacks."""
    metadata = _table(cell.get("metadata"))
    marked = ID.fullmatch(_name(cell))
    if marked:
        return marked[1], f"{int(marked[2])}.{int(marked[3])}"
    own = _table(metadata.get("coursework"))
    return str(own.get("role", "")), str(own.get("id", ""))


def _cell(cell: dict, lesson: Lesson) -> Cell:
    """A code cell. A lesson's is one that has a lesson's source: what its metadata say makes none of another."""
    text = source_of(cell)
    role, exercise = mark_of(cell)
    if role in ("check", "exercise") and exercise in lesson.functions:
        return Cell(text, role, exercise)
    return Cell(text, lesson.known.get(digest(text), ""))


def _name(cell: Mapping) -> str:
    """nbgrader's name of a cell, "" without one."""
    return str(_table(_table(cell.get("metadata")).get("nbgrader")).get("grade_id", ""))


def _part(cell: dict, lesson: Lesson) -> Part:
    """A cell as far as written answers go."""
    kind, text, (role, exercise) = str(cell.get("cell_type")), source_of(cell), mark_of(cell)
    name = _name(cell)
    known = digest(text) in lesson.known or (role in ("check", "exercise") and exercise in lesson.functions)
    edited = role == "lesson" and not known and not name.startswith("derivation-")
    return Part(kind, text, name, known, edited, cell.get("attachments"))


def _table(value: object) -> dict:
    return value if isinstance(value, dict) else {}
