"""Whose a file in an archive is, and which notebook it is.

Whose it is, is said by the part of its name, or the folder, that the system or the instructor made; nothing that a
student named is believed.
"""

import itertools
import re
from collections.abc import Collection, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath

from coursework.course.lines import shown
from coursework.grading.archives import EMPTY, HIDDEN, Archive, ArchiveError, Item, is_hidden
from coursework.grading.class_list import ClassList
from coursework.grading.finding import Candidate, by_name, is_notebook, lessons_of
from coursework.grading.handin import Lesson
from coursework.grading.lms_names import Named, read_name

NO_NOTEBOOK = "no notebook"
QUIET = (NO_NOTEBOOK, HIDDEN, EMPTY)  # of interest only where there is nothing else
RECEIPT = re.compile(r"[^\r\n]*\(([^()\r\n]+)\)\s*[\r\n]")


@dataclass(frozen=True)
class Handed:
    """A file, what its name says of its owner, and the notebook that it is, None where it is none.

    `timed` says whether the system told when it was handed in.
    """

    owner: Named
    item: Item
    source: str
    candidate: Candidate | None
    note: str
    timed: bool


def handed_in(archive: Archive, lessons: Sequence[Lesson], people: ClassList | None) -> Iterator[Handed]:
    """The files of an archive with their owners."""
    looked = [(item, *_look(item, lessons)) for item in archive.items()]
    depth = _depth([(item.parts, found) for item, found, note in looked if note not in QUIET[1:]], lessons, people)
    looked = [each for each in looked if not is_hidden(each[0].parts[: depth + 1])]
    owners = [_owner(item.parts[depth:] or item.parts, lessons, people) for item, *_ in looked]
    assignment = _assignment([owner.login for owner in owners if owner.system == "blackboard"])
    receipts = dict(_receipts(item, owner) for (item, *_), owner in zip(looked, owners, strict=True))
    for (item, candidate, note), owner in zip(looked, owners, strict=True):
        if owner.system == "blackboard":
            login = receipts.get((owner.login, owner.attempt)) or _login(owner.login, assignment, people)
            owner = replace(owner, login=login)
        timed = bool(owner.attempt or (archive.is_zip and item.time))
        yield Handed(owner, item, shown(str(archive.path)), candidate, note, timed)


def _look(item: Item, lessons: Sequence[Lesson]) -> tuple[Candidate | None, str]:
    """The notebook of a lesson that a file is, None where it is none; and why."""
    if item.problem or not is_notebook(item.name):
        return None, item.problem or NO_NOTEBOOK
    try:
        data = item.read()
    except ArchiveError as error:
        return None, str(error)
    path = Path(*item.parts, *item.inside)
    unanswered = lessons_of(data, path.stem, lessons)
    modified = item.time.timestamp() if item.time else 0.0
    return (Candidate(path, unanswered, modified), "") if unanswered else (None, "belongs to no lesson")


Paths = Sequence[tuple[tuple[str, ...], Candidate | None]]


def _depth(looked: Paths, lessons: Sequence[Lesson], people: ClassList | None) -> int:
    """How many folders lie above the students': 0, or 1 where there are sections, or one folder that holds it all.

    Each folder has one vote, so that no student's own files turn the others into sections.
    """
    below: dict[str, set[str]] = {parts[0]: set() for parts, _ in looked}
    for parts, _ in looked:
        below[parts[0]] |= set(parts[1:2])
    files = [parts[0] for parts, candidate in looked if len(parts) == 1 and (candidate or read_name(parts[0]))]
    if files or any(_is_moodles(top) for top in below):
        return 0
    if people is not None and any(people.find(login=top, name=top) for top in below):
        return 0
    votes = [
        _are_of_a_system(names)
        or (people is not None and any(people.find(login=name, name=name) for name in names))
        or (len(below) == 1 and _are_files_of_several(top, looked, lessons, people))
        or _holds_students(top, looked, lessons)
        for top, names in below.items()
    ]
    return int(2 * sum(votes) > len(votes))


def _are_of_a_system(names: Collection[str]) -> bool:
    return 2 * sum(read_name(name) is not None for name in names) > len(names)


def _are_files_of_several(top: str, looked: Paths, lessons: Sequence[Lesson], people: ClassList | None) -> bool:
    names = [parts[1] for parts, _ in looked if parts[0] == top and len(parts) == 2]
    return len({_plain_login(name, lessons, people) for name in names} - {""}) > 1


def _holds_students(top: str, looked: Paths, lessons: Sequence[Lesson]) -> bool:
    """Whether a folder has the same lesson in several folders, and no notebook beside them."""
    below = [(parts[1:-1], candidate) for parts, candidate in looked if parts[0] == top and candidate]
    if any(not parts or by_name(parts[0], lessons) for parts, _ in below):
        return False
    return any(len({parts[0] for parts, c in below if lesson.name in c.unanswered}) > 1 for lesson in lessons)


def _is_moodles(folder: str) -> bool:
    """Whether a folder is of those that Moodle makes, one for each student."""
    named = read_name(folder)
    return named is not None and named.system == "moodle"


def _owner(parts: tuple[str, ...], lessons: Sequence[Lesson], people: ClassList | None) -> Named:
    """Whose file it is, by the first part of its path below the sections; without name and login for nobody's."""
    first = parts[0]
    named = read_name(first)
    if named is not None and (len(parts) == 1 or named.system == "moodle"):
        return named
    return Named("", login=first if len(parts) > 1 else _plain_login(first, lessons, people))


def _plain_login(name: str, lessons: Sequence[Lesson], people: ClassList | None) -> str:
    """The login before the lesson's name, as in "j_smith_01_score_function.ipynb"; "" where there is none."""
    starts = [name.index(lesson.name) for lesson in lessons if lesson.name in name]
    if starts:
        return name[: min(starts)].strip(" _-")
    stem = PurePosixPath(name).stem
    logins = [person.login for person in people.people] if people else []
    return max((x for x in logins if stem == x or stem.startswith((f"{x}_", f"{x}-", f"{x} "))), key=len, default="")


def _assignment(names: Sequence[str]) -> str:
    """What Blackboard's names of files begin with, the assignment: the words that all share, of one name all but its
    last."""
    words = [name.split("_")[:-1] for name in sorted(set(names))]
    return "_".join(group[0] for group in itertools.takewhile(lambda g: len(set(g)) == 1, zip(*words, strict=False)))


def _login(before: str, assignment: str, people: ClassList | None) -> str:
    """The login at the end of Blackboard's "PS1_j_smith", after the assignment's name."""
    words = before.split("_")
    ends = ["_".join(words[i:]) for i in range(1, len(words))]
    known = [end for end in ends if people is not None and people.find(login=end)]
    return next(iter(known), before.removeprefix(f"{assignment}_"))


def _receipts(item: Item, owner: Named) -> tuple[tuple[str, str], str]:
    """The login that a text file of Blackboard's own names, "Name: Ann Lee (al1)", by what tells its attempt; or ""."""
    found = None
    if owner.system == "blackboard" and owner.file == ".txt" and not item.problem:
        with suppress(ArchiveError):
            found = RECEIPT.match(item.read()[:500].decode("utf-8-sig", "replace"))
    return ((owner.login, owner.attempt), found[1]) if found else (("", ""), "")
