"""Reading what learners handed in: which notebooks there are, and the cells of each. Nothing here trusts a file."""

import json
import re
import stat
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

LARGEST = 20 << 20  # bytes of a notebook
LONGEST = 1 << 20  # characters of code in a notebook
LONGEST_ANSWER = 20_000  # characters of a written derivation; rendering brackets takes their number squared
MOST_CELLS = 2_000
MOST_FILES = 2_000  # that are looked through for one learner
ID = re.compile(r"(exercise|check)-(\d{1,2})-(\d{1,2})")


class HandInError(ValueError):
    """A file cannot be read as a submission; the message says why."""


@dataclass(frozen=True)
class Lesson:
    """A lesson that can be graded: its notebook's name without .ipynb, and its exercises' function names by id."""

    name: str
    functions: Mapping[str, str]

    @property
    def number(self) -> int:
        """The lesson's number."""
        return int(self.name[:2])


@dataclass(frozen=True)
class Submission:
    """A learner's notebook for one lesson."""

    student: str
    lesson: str
    path: Path

    @property
    def key(self) -> str:
        """What tells it from all others."""
        return f"{self.student}/{self.lesson}"


@dataclass(frozen=True)
class Cell:
    """A code cell: source, role ("setup", "lesson", "exercise", "check", or "" for a learner's own), and exercise."""

    source: str
    role: str = ""
    exercise: str = ""


@dataclass(frozen=True)
class HandIn:
    """The code cells of a submission, or why they cannot be read.

    `remarks` are for the instructor; `answers` are the written derivations, by their cells' names for nbgrader.
    """

    cells: tuple[Cell, ...] = ()
    problem: str = ""
    remarks: tuple[str, ...] = ()
    answers: Mapping[str, str] = field(default_factory=dict)


def course_lessons(root: Path) -> list[Lesson]:
    """The lessons of a course tree that have exercises, in order. Raises PublishError where one cannot be read."""
    from coursework import publishing

    found = [(path.stem, functions(publishing.read(path))) for path in publishing.sources(root)]
    return [Lesson(name, names) for name, names in found if names]


def functions(notebook: Mapping) -> dict[str, str]:
    """The function that each check of one of our notebooks is given, by the exercise's id."""
    found = {}
    for cell in notebook.cells:
        if cell.metadata.get("coursework", {}).get("role") == "check":
            name, number = re.search(r'^(\w+) = check\("([\d.]+)"', cell.source, re.MULTILINE).groups()
            found[number] = name
    return found


def find_submissions(folder: Path, lessons: list[Lesson]) -> tuple[list[Submission], list[str]]:
    """The submissions in a folder, and remarks on what was left out.

    The folder holds one folder for each student, with notebooks at any depth: nbgrader's submitted/STUDENT/ASSIGNMENT
    is one such. A notebook belongs to the lesson whose name it bears, as "03_sliced_score_matching.ipynb" does.
    """
    found, remarks = [], []
    for student in sorted(path for path in folder.iterdir() if path.is_dir() and not path.is_symlink()):
        if student.name.startswith("."):
            continue
        notebooks = list(_notebooks(student))
        for lesson in lessons:
            mine = sorted((p for p in notebooks if lesson_of(p, lessons) == lesson), key=lambda p: _rank(p, lesson))
            found += [Submission(student.name, lesson.name, mine[0])] if mine else []
            remarks += [f"{path}: left out, {mine[0].name} is graded" for path in mine[1:]]
        remarks += [f"{path}: belongs to no lesson" for path in notebooks if lesson_of(path, lessons) is None]
    return found, remarks


def _notebooks(folder: Path) -> Iterator[Path]:
    """Plain files NAME.ipynb below a folder, no links, none in hidden folders."""
    waiting, seen = [folder], 0
    while waiting and seen < MOST_FILES:
        for path in _entries(waiting.pop(0)):
            seen += 1
            try:
                kind = path.lstat().st_mode
            except OSError:
                continue
            if stat.S_ISDIR(kind) and not path.name.startswith(".") and path.name != "__pycache__":
                waiting.append(path)
            elif stat.S_ISREG(kind) and path.suffix == ".ipynb" and not path.name.startswith("."):
                yield path


def _entries(folder: Path) -> list[Path]:
    """What is in a folder, nothing where it cannot be read: a submission must not end the grading of others."""
    try:
        return sorted(folder.iterdir())
    except OSError:
        return []


def lesson_of(path: Path, lessons: list[Lesson]) -> Lesson | None:
    """The lesson whose notebook a file is, by its name."""
    exact = [lesson for lesson in lessons if lesson.name in path.stem]
    numbered = [lesson for lesson in lessons if re.match(rf"0?{lesson.number}(?!\d)", path.stem)]
    return next(iter(exact or numbered), None)


def _rank(path: Path, lesson: Lesson) -> tuple[bool, bool, int, str]:
    """The lesson's own name first, then what is not a copy, then the shortest path."""
    copy = re.search(r"copy|mine-\d|checkpoint", path.stem, re.IGNORECASE) is not None
    return path.stem != lesson.name, copy, len(path.parts), str(path)


def content(path: Path) -> bytes:
    """The bytes of a submission. Raises HandInError where there are none to be had."""
    try:
        if not stat.S_ISREG(path.lstat().st_mode):
            raise HandInError("it is no plain file")
        if path.stat().st_size > LARGEST:
            raise HandInError(f"it is larger than {LARGEST >> 20} MB")
        return path.read_bytes()
    except OSError as error:
        raise HandInError(f"it cannot be read: {error.strerror}") from None


def parse(data: bytes, lesson: Lesson) -> HandIn:
    """The code cells of a submission. One that is no notebook gives a HandIn that says so."""
    try:
        found = json.loads(data)["cells"]
        if len(found) > MOST_CELLS:
            return HandIn(problem=f"it holds more than {MOST_CELLS:,} cells")
        cells = [_cell(cell, lesson) for cell in found if cell.get("cell_type") == "code"]
        answers = dict(_answer(cell) for cell in found if cell.get("cell_type") == "markdown")
    except (ValueError, RecursionError, TypeError, KeyError, AttributeError):
        return HandIn(problem="it is not a notebook")
    if sum(len(cell.source) for cell in cells) > LONGEST:
        return HandIn(problem="it holds more than a million characters of code")
    answers = {name: text for name, text in answers.items() if name.startswith("derivation-")}
    return replace(_complete(cells, lesson), answers=answers)


def _source(cell: dict) -> str:
    source = cell.get("source", "")
    text = source if isinstance(source, str) else "".join(map(str, source)) if isinstance(source, list) else ""
    return text.encode("utf-8", "replace").decode()  # JSON can hold halves of characters, which no file can


def _answer(cell: dict) -> tuple[str, str]:
    name = str(_table(_table(cell.get("metadata")).get("nbgrader")).get("grade_id", ""))
    text = _source(cell)
    cut = f"\n\n(Cut off here, after {LONGEST_ANSWER:,} characters.)" if len(text) > LONGEST_ANSWER else ""
    return name, text[:LONGEST_ANSWER] + cut


def _cell(cell: dict, lesson: Lesson) -> Cell:
    text = _source(cell)
    metadata = _table(cell.get("metadata"))
    own, marked = (
        _table(metadata.get("coursework")),
        ID.fullmatch(str(_table(metadata.get("nbgrader")).get("grade_id"))),
    )
    role, exercise = own.get("role"), str(own.get("id", ""))
    if marked:
        role, exercise = marked[1], f"{int(marked[2])}.{int(marked[3])}"
    if role in ("check", "exercise"):
        return Cell(text, role, exercise) if exercise in lesson.functions else Cell(text)
    return Cell(text, role if role in ("setup", "lesson") else "")


def _table(value: object) -> dict:
    return value if isinstance(value, dict) else {}


def _complete(cells: list[Cell], lesson: Lesson) -> HandIn:
    """One cell for each exercise: the last that bears its mark, else the last that defines its function."""
    remarks, chosen = [], {}
    for number, name in lesson.functions.items():
        marked = [i for i, cell in enumerate(cells) if cell.role == "exercise" and cell.exercise == number]
        defining = [i for i, cell in enumerate(cells) if re.search(rf"^def {name}\b", cell.source, re.MULTILINE)]
        if len(marked) > 1:
            remarks.append(f"{number}: {len(marked)} cells bear its mark; the last one counts")
        if not marked and defining:
            remarks.append(f"{number}: its cell has lost its mark; the last one that defines {name} counts")
        if marked or defining:
            chosen[(marked or defining)[-1]] = number
    result = [
        Cell(cell.source, "exercise", chosen[i]) if i in chosen else
        Cell(cell.source) if cell.role == "exercise" else cell for i, cell in enumerate(cells)
    ]  # fmt: skip
    return HandIn(tuple(result), remarks=tuple(remarks))
