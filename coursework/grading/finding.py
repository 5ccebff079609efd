"""Which notebooks learners handed in, and who handed in none: everybody who has a folder or is on the class list.

A notebook belongs to the lessons whose exercises it holds, whatever its file is called. Nothing here trusts a file.
"""

import itertools
import os
import re
import stat
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from coursework.course.lines import shown
from coursework.grading import handin
from coursework.grading.class_list import ClassList
from coursework.grading.collected import Row, known_folders
from coursework.grading.handin import HandInError, Lesson
from coursework.grading.lms_names import COPY, read_name, resubmission
from coursework.grading.names import is_name, same, student_name

MOST_FILES = 2_000  # that are looked through for one learner
MOST_ENTRIES = 100_000  # of a folder that are listed
MOST_NOTEBOOKS, MOST_BYTES = 200, 200 << 20  # that are read for one learner
NO_FOLDERS = ("__pycache__", "__MACOSX")
DEFINED = re.compile(r"^(?:async def|def|class) (\w+)", re.MULTILINE)
NOTEBOOK = re.compile(r"\.ipynb(\.json|\.txt)?$", re.IGNORECASE)  # some browsers put to it what they think it is
STUB = re.compile(r"^[ \t]*raise NotAttempted\b", re.MULTILINE)
LIMIT = "more than "
SEVERAL = "several files"  # a flag: which one is graded was chosen
EXPECTED = "one folder for each student is expected (`coursework collect` makes them)"


class FindingError(ValueError):
    """The folder does not hold submissions; the message says why."""


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
class Note:
    """What an instructor should know of a student's files; lesson "" where it is of none, `flag` for the marks."""

    student: str
    lesson: str
    text: str
    flag: str = ""

    def __str__(self) -> str:
        return ": ".join(filter(None, ("/".join(filter(None, (self.student, self.lesson))), self.text)))


@dataclass(frozen=True)
class Intake:
    """What a class handed in.

    `students` is everybody; `missing` says for each student and lesson without a submission why there is none; `canvas`
    has the numbers that Canvas knows students by.
    """

    submissions: list[Submission]
    students: list[str]
    missing: Mapping[tuple[str, str], str]
    notes: list[Note]
    canvas: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Candidate:
    """A notebook that may be a submission.

    `unanswered` has the lessons that it hands in, each with the number of exercises that are not answered in it.
    """

    path: Path
    unanswered: Mapping[str, int]
    modified: float = 0.0

    def rank(self, lesson: str) -> tuple:
        """The lower, the rather it is graded: what is answered, then what is newer, then what is no copy."""
        stem = self.path.stem
        newest = (-resubmission(stem), COPY.search(stem) is not None, -self.modified)
        return self.unanswered[lesson], *newest, lesson not in stem, len(self.path.parts), str(self.path)


@dataclass(frozen=True)
class Home:
    """A student's folder: the notebooks in it, and what else there is."""

    path: Path
    notebooks: list[Candidate] = field(default_factory=list)
    others: list[str] = field(default_factory=list)


def find_submissions(
    folder: Path, lessons: Sequence[Lesson], course: Sequence[Lesson] = (), people: ClassList | None = None
) -> Intake:
    """What is in a folder of submissions, with one folder for each student or sections of such folders.

    lessons: those that are asked for; course: all that there are, so that another lesson's notebook is known for what
    it is; people: the class list. Raises FindingError where notebooks lie there without students' folders, and for a
    course directory.
    """
    course = course or lessons
    if (folder / "nbgrader_config.py").is_file():
        raise FindingError(f"{folder} is a course directory: what was handed in lies in {folder / 'submitted'}")
    homes = [look_through(path, course) for path in _folders(folder)]
    if _are_sections(homes, course, people):
        homes = [look_through(path, course) for home in homes for path in _folders(home.path)]
    loose = [path.name for path in _entries(folder) if is_notebook(path.name) and _is_file(path)]
    if loose and not any(home.notebooks for home in homes):
        raise FindingError(f"{folder} holds notebooks, no folders: {EXPECTED}")
    known = known_folders(folder)
    by_student = _by_student(homes, people, known)
    notes = [Note("", "", f"{shown(name)}: lies in no student's folder") for name in loose]
    notes += _notes_on_names(by_student, people)
    found: list[Submission] = []
    for student, theirs in by_student.items():
        candidates = [candidate for home in theirs for candidate in home.notebooks]
        for lesson in lessons:
            chosen, left = choose(candidates, lesson.name)
            if chosen is not None:
                found.append(Submission(student, lesson.name, chosen.path))
                text = f"left out, {_place(chosen.path, folder)} is graded"
                notes += [Note(student, lesson.name, f"{_place(c.path, folder)}: {text}", SEVERAL) for c in left]
        strange = [candidate for candidate in candidates if not candidate.unanswered]
        notes += [Note(student, "", f"{_place(c.path, folder)}: belongs to no lesson") for c in strange]
        notes += [Note(student, "", text) for home in theirs for text in home.others if text.startswith(LIMIT)]
    students = sorted({*by_student, *(person.login for person in (people.people if people else ()))})
    canvas = {student: number for student, theirs in by_student.items() if (number := _canvas_number(theirs, known))}
    return Intake(found, students, _missing(found, students, by_student), notes, canvas)


def choose(candidates: Iterable[Candidate], lesson: str) -> tuple[Candidate | None, list[Candidate]]:
    """The notebook that is graded for a lesson, None without one, and those that are left out."""
    mine = sorted((c for c in candidates if lesson in c.unanswered), key=lambda c: c.rank(lesson))
    return (mine[0] if mine else None), mine[1:]


def _missing(
    found: Sequence[Submission], students: Sequence[str], by_student: Mapping[str, Sequence[Home]]
) -> dict[tuple[str, str], str]:
    """Why there is no submission, for each student and each lesson that anybody handed in."""
    there = {(submission.student, submission.lesson) for submission in found}
    lessons = sorted({submission.lesson for submission in found})
    return {
        (student, lesson): _reason(by_student.get(student, ()))
        for student in students
        for lesson in lessons
        if (student, lesson) not in there
    }


def _reason(homes: Sequence[Home]) -> str:
    """Why none of somebody's folders holds a submission."""
    if not homes:
        return "no folder of this name"
    if any(home.notebooks for home in homes):
        return "no notebook of this lesson"
    others = sorted(
        {text for home in homes for text in home.others}, key=lambda text: (not text.startswith(LIMIT), text)
    )
    if not others:
        return "an empty folder"
    if others[0].startswith(LIMIT):
        return f"no notebook among its files, which are {others[0]}"
    more = f" and {len(others) - 3} more" if len(others) > 3 else ""
    opened = " (`coursework collect` opens zips)" if any(text.lower().endswith(".zip") for text in others) else ""
    return f"no notebook, only {', '.join(others[:3])}{more}{opened}"


# -- folders -------------------------------------------------------------------------------------------------------


def _folders(folder: Path) -> list[Path]:
    """The folders that are students', or sections of them. A link is one too: it has a row, and nothing behind it."""
    return [
        path
        for path in _entries(folder)
        if (_is_folder(path) or path.is_symlink()) and path.name not in NO_FOLDERS and not path.name.startswith(".")
    ]


def _by_student(homes: Sequence[Home], people: ClassList | None, known: Mapping[str, Row]) -> dict[str, list[Home]]:
    """Everybody's folders, by login where the class list or collected.csv knows it, else by the folder's name."""
    found: dict[str, list[Home]] = {}
    own = Counter(home.path.name for home in homes)  # some in two sections
    labels = [f"{x.path.parent.name} {x.path.name}" if own[x.path.name] > 1 else x.path.name for x in homes]
    alike = Counter(labels)  # "A B/C" and "A/B C"
    for home, label in zip(homes, labels, strict=True):
        folder = home.path.name
        login = known[folder].login if folder in known and is_name(known[folder].login) else ""
        name = login or student_name(label if alike[label] == 1 else f"{home.path.parent.name}/{folder}")
        found.setdefault(person_of(login or folder, people) or name, []).append(home)
    return found


def _canvas_number(homes: Sequence[Home], known: Mapping[str, Row]) -> str:
    rows = [known[home.path.name] for home in homes if home.path.name in known]
    return next((row.id for row in rows if row.system == "canvas"), "")


def person_of(folder: str, people: ClassList | None) -> str:
    """The login of somebody on the class list by the name of a folder, "" for nobody."""
    if people is None:
        return ""
    named = read_name(folder)
    if named is not None and not named.file:
        person = people.find(login=named.login, name=named.name, number=named.number)
    else:
        person = people.find(login=folder, name=folder, number=folder)
    return person.login if person else ""


def _notes_on_names(by_student: Mapping[str, Sequence[Home]], people: ClassList | None) -> list[Note]:
    """What is odd about the names of folders."""
    notes, listed = [], {person.login for person in people.people} if people else None
    alike: dict[str, list[str]] = {}
    for student in by_student:
        alike.setdefault(same(student), []).append(student)
        if listed is not None and student not in listed:
            notes.append(Note(student, "", "is nobody on the class list"))
    for names in alike.values():
        text = "differs from {} only in case, spaces or how letters are composed"
        notes += [Note(name, "", text.format(names[0])) for name in names[1:]]
    return notes


def _are_sections(homes: Sequence[Home], course: Sequence[Lesson], people: ClassList | None) -> bool:
    """Whether the folders are sections, or groups, that hold students' folders.

    They are where the class list knows folders in most of them and none of themselves; without a list where most of
    them hold the same lesson in several folders and no notebook lies higher.
    """
    full = [home for home in homes if home.notebooks]
    if people is not None:
        inside = sum(any(person_of(path.name, people) for path in _folders(home.path)) for home in homes)
        return not any(person_of(home.path.name, people) for home in homes) and 2 * inside > len(homes)
    return bool(full) and 2 * sum(_is_section(home, course) for home in full) > len(full)


def _is_section(home: Home, course: Sequence[Lesson]) -> bool:
    below = [(c.path.relative_to(home.path).parts[:-1], c) for c in home.notebooks]
    if any(not parts or by_name(parts[0], course) for parts, _ in below):
        return False
    return any(len({parts[0] for parts, c in below if lesson.name in c.unanswered}) > 1 for lesson in course)


def look_through(folder: Path, course: Sequence[Lesson]) -> Home:
    """What a student's folder holds: plain files NAME.ipynb at any depth, none behind links or in hidden folders."""
    home = Home(folder)
    if folder.is_symlink():
        home.others.append("a link")
        return home
    size = 0
    for path in _notebooks(folder, home.others):
        found = path.lstat()
        size += min(found.st_size, handin.LARGEST)  # no more of a file is read
        if len(home.notebooks) == MOST_NOTEBOOKS or size > MOST_BYTES:
            home.others.append(f"{LIMIT}{MOST_NOTEBOOKS} notebooks, or {MOST_BYTES >> 20} MB of them")
            break
        home.notebooks.append(Candidate(path, lessons_of_file(path, course), found.st_mtime))
    return home


def _notebooks(folder: Path, others: list[str]) -> Iterator[Path]:
    """The notebooks below a folder; whatever else is there is written down in `others`."""
    waiting, seen = [folder], 0
    while waiting:
        for path in _entries(waiting.pop(0), others):
            seen += 1
            if seen > MOST_FILES:
                others.append(f"{LIMIT}{MOST_FILES:,} files")
                return
            try:
                kind = path.lstat().st_mode
            except OSError:
                continue
            if stat.S_ISDIR(kind) and not path.name.startswith(".") and path.name not in NO_FOLDERS:
                waiting.append(path)
            elif stat.S_ISREG(kind) and is_notebook(path.name) and not path.name.startswith("."):
                yield path
            else:
                others.append(_what(path, kind))


def _what(path: Path, kind: int) -> str:
    """What something is that is no notebook."""
    name = shown(path.name)
    if stat.S_ISLNK(kind):
        return f"the link {name}"
    if path.name.startswith("."):
        return name if path.name == ".ipynb_checkpoints" else f"the hidden {name}"
    return name if stat.S_ISREG(kind) or stat.S_ISDIR(kind) else f"{name}, which is no plain file"


def _entries(folder: Path, others: list[str] | None = None) -> list[Path]:
    """What is in a folder, nothing where it cannot be read: a submission must not end the grading of others."""
    try:
        with os.scandir(folder) as entries:
            return sorted(folder / entry.name for entry in itertools.islice(entries, MOST_ENTRIES))
    except OSError as error:
        if others is not None:
            others.append(f"a folder that cannot be read ({error.strerror})")
        return []


def _is_folder(path: Path) -> bool:
    return _mode(path, stat.S_ISDIR)


def _is_file(path: Path) -> bool:
    return _mode(path, stat.S_ISREG)


def _mode(path: Path, is_kind: Callable[[int], bool]) -> bool:
    try:
        return is_kind(path.lstat().st_mode)
    except OSError:
        return False


def _place(path: Path, folder: Path) -> str:
    return shown(str(path.relative_to(folder)))


# -- lessons -------------------------------------------------------------------------------------------------------


def lessons_of_file(path: Path, course: Sequence[Lesson]) -> dict[str, int]:
    """As `lessons_of`; where the file cannot be read its name is all that there is."""
    try:
        data = handin.content(path)
    except HandInError:
        data = b""
    return lessons_of(data, path.stem, course)


def lessons_of(data: bytes, stem: str, course: Sequence[Lesson]) -> dict[str, int]:
    """The lessons that a notebook hands in, each with the number of its exercises that are not answered in it.

    By the marks of its cells; where it has none by the functions that it defines; by the file's name where it has
    neither. It hands in a lesson of which it holds half of the exercises, or else the one of which it holds most.
    """
    try:
        cells = [cell for cell in handin.cells_of(data) if cell.get("cell_type") == "code"]
    except HandInError:
        cells = []
    sources = [(handin.mark_of(cell), handin.source_of(cell)) for cell in cells]
    marked = {exercise for (role, exercise), _ in sources if role in ("exercise", "check")}
    defined = {name for _, text in sources for name in DEFINED.findall(text)}
    held = {lesson.name: sum(exercise in marked for exercise in lesson.functions) for lesson in course}
    if not any(held.values()):
        held = {lesson.name: sum(name in defined for name in lesson.functions.values()) for lesson in course}
    most = max(held.values(), default=0)
    if not most:
        lesson = by_name(stem, course)
        return {lesson.name: len(lesson.functions) + (not cells)} if lesson else {}
    halves = [lesson for lesson in course if 2 * held[lesson.name] >= len(lesson.functions)]
    handed_in = halves or [lesson for lesson in course if held[lesson.name] == most][:1]
    return {
        lesson.name: sum(not _answered(sources, *pair) for pair in lesson.functions.items()) for lesson in handed_in
    }


def _answered(sources: Sequence[tuple[tuple[str, str], str]], exercise: str, function: str) -> bool:
    """Whether a cell answers an exercise: one that bears its mark, or defines its function, and is no stub any more."""
    return any(
        text.strip() and not STUB.search(text)
        for mark, text in sources
        if mark == ("exercise", exercise) or (mark[0] != "lesson" and function in DEFINED.findall(text))
    )


def is_notebook(name: str) -> bool:
    """Whether a file's name is that of a notebook."""
    return NOTEBOOK.search(name) is not None


def by_name(stem: str, course: Sequence[Lesson]) -> Lesson | None:
    """The lesson that a file or folder is called after: "03_sliced_score_matching", "anna_03_sliced...", "3 mine".

    A date, "03.10.2024 homework", is no number of a lesson.
    """
    exact = [lesson for lesson in course if lesson.name in stem]
    numbered = [lesson for lesson in course if re.match(rf"0?{lesson.number}(?!\d)(?![-._ /]*\d)", stem)]
    return next(iter(exact or numbered), None)
