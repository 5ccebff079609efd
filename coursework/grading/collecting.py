"""Collecting what a learning management system gives out: whose file it is, of which lesson, and which one counts.

The result is nbgrader's tree, STUDENT/LESSON/LESSON.ipynb, and collected.csv, which says of every file what became of
it. Whose a file is, is said by the part of its name, or the folder, that the system or the instructor made.
"""

import errno
import os
from collections import Counter
from collections.abc import Iterable, Sequence
from contextlib import ExitStack, suppress
from dataclasses import astuple, dataclass, field, fields, replace
from pathlib import Path, PurePosixPath

from coursework._files import check_writable, write_atomically
from coursework.course.lines import shown
from coursework.grading.archives import Archive, ArchiveError
from coursework.grading.class_list import ClassList
from coursework.grading.collected import LATE, NOTHING, TABLE, Row, read_table
from coursework.grading.finding import choose
from coursework.grading.handin import Lesson
from coursework.grading.lms_names import Named, resubmission
from coursework.grading.names import distinct, safe_id, same, student_name
from coursework.grading.owners import QUIET, Handed, handed_in
from coursework.grading.tables import harmless, table

MOST_NOTEBOOKS = 200  # of one student
MOST_NOTES = 10  # on one student, that are printed
NOBODY = "its name does not say whose it is"
HOPELESS = (errno.ENOSPC, errno.EROFS, errno.EDQUOT)  # what one file fails by, all will


class CollectError(ValueError):
    """Nothing can be collected; the message says why."""


@dataclass
class Collection:
    """What was done: the rows of collected.csv, how many notebooks are new and as they were, which ones are newer than
    before, what an instructor should look at, and who of the class list handed in nothing."""

    rows: list[Row] = field(default_factory=list)
    new: int = 0
    newer: list[str] = field(default_factory=list)
    unchanged: int = 0
    notes: list[str] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)

    def add(self, row: Row, note: str = "") -> None:
        """Put a row to the table, with a note that is printed as well."""
        self.rows.append(replace(row, note=note) if note else row)
        if note:
            self.notes.append(f"{row.login + ': ' if row.login else ''}{row.file}: {note}")


def collect(
    sources: Sequence[Path], lessons: Sequence[Lesson], out: Path, people: ClassList | None = None, dry: bool = False
) -> Collection:
    """Collect archives and folders into a folder, and say what became of each file.

    What is there already is replaced by what is newer, and nothing is removed. dry: write nothing. Raises CollectError,
    OSError.
    """
    before, done, found = read_table(out / TABLE), Collection(), []
    with ExitStack() as stack:
        for path in sources:
            if path.is_dir() and (_within(path, out) or _within(out, path)):
                raise CollectError(f"{path} and {out}, which is written, lie in one another")
            try:
                archive = stack.enter_context(Archive(path))
            except ArchiveError as error:
                done.add(Row(source=shown(str(path)), file=shown(path.name)), str(error))
            else:
                found.append(list(handed_in(archive, lessons, people)))
        if not found:
            raise CollectError(done.rows[0].note)
        if not dry:
            check_writable(out / TABLE)
        for login, theirs in _by_login(found, people, before, done.notes).items():
            if login:
                if people is not None and login not in {person.login for person in people.people}:
                    done.notes.append(f"{login}: is nobody on the class list")
                number = len(done.notes)
                _Student(theirs, out, before, done, dry).collect(lessons)
                if len(done.notes) > number + MOST_NOTES:
                    done.notes[number + MOST_NOTES :] = [f"{login}: more notes on this student are in {TABLE}"]
            else:
                for handed, _ in theirs:
                    done.add(_row(handed), handed.note or NOBODY)
    _finish(done, before, people)
    if not dry:
        rows = [[column.name for column in fields(Row)], *(astuple(row) for row in done.rows)]
        write_atomically(out / TABLE, table(rows))
    return done


def _within(inner: Path, outer: Path) -> bool:
    return Path(os.path.realpath(inner)).is_relative_to(os.path.realpath(outer))


# -- whose they are -----------------------------------------------------------------------------------------------


def _by_login(
    found: Sequence[Sequence[Handed]], people: ClassList | None, before: Sequence[Row], notes: list[str]
) -> dict[str, list[tuple[Handed, Row]]]:
    """Everybody's files, by login; each with a row that names the student and the folder. Nobody's have login "".

    The login is the class list's; else what `_Numbers` says by the system's number; else the name.
    """
    numbers = _Numbers(before, {person.login for person in people.people} if people else set(), notes)
    folders = {row.login: row.folder for row in before if row.login and row.folder}
    result: dict[str, list[tuple[Handed, Row]]] = {}
    for files in found:
        of_number = numbers.logins(files, people)
        for handed in files:
            owner = handed.owner
            login = _known_login(owner, people) or of_number.get(_number(owner), "")
            login = login or student_name(owner.name or owner.login)
            if login and login not in folders:
                folders[login] = _free_folder(login, folders.values())
            row = replace(_row(handed), login=login, folder=folders.get(login, ""))
            result.setdefault(login, []).append((handed, row))
    return result


def _number(owner: Named) -> tuple[str, str, str]:
    return owner.system, owner.number, owner.name


class _Numbers:
    """Logins of those whom a system gave a number, by what was collected before and what is collected now.

    The login is what it was before; else the name. Two of one name in an archive have the numbers put to it, and so
    has one whose name two have had before, and one whose name another number has for the same lesson. For other lessons
    a name with another number is the same person: Moodle's numbers differ by assignment.
    """

    def __init__(self, before: Sequence[Row], listed: set[str], notes: list[str]) -> None:
        self._earlier: dict[tuple[str, str], str] = {}
        self._names: set[tuple[str, str]] = set()  # with their logins
        self._holders: dict[tuple[str, str], set[tuple[str, str]]] = {}  # numbers by login and lesson
        self._listed, self._notes = listed, notes
        for row in before:
            if row.id and row.login:
                self._keep((row.system, row.id), row.name, row.login, [row.lesson] if row.lesson else [])

    def logins(self, files: Sequence[Handed], people: ClassList | None) -> dict[tuple[str, str, str], str]:
        """The logins of those in an archive who have a number and are not on the class list."""
        lessons: dict[tuple[str, str, str], set[str]] = {}
        for handed in files:
            if handed.owner.number and not _known_login(handed.owner, people):
                own = lessons.setdefault(_number(handed.owner), set())
                own.update(handed.candidate.unanswered if handed.candidate else ())
        here = Counter(name for name, _ in {(same(handed.owner.name), handed.owner.number) for handed in files})
        here |= Counter(name for name, _ in self._names)
        result = {key: self._login(key, own, here[same(key[2])] > 1) for key, own in lessons.items()}
        for (system, number, name), login in result.items():
            self._keep((system, number), name, login, lessons[system, number, name])
        return result

    def _login(self, owner: tuple[str, str, str], lessons: set[str], has_namesake: bool) -> str:
        system, number, name = owner
        plain, numbered = student_name(name), student_name(f"{name}_{number}")
        login = self._earlier.get((system, number)) or (numbered if has_namesake or plain in self._listed else plain)
        free = [x for x in (login, numbered) if not self._is_anothers(x, (system, number), lessons)]
        result = (free or [student_name(f"{name}_{number}_{system}")])[0]
        if result != login:
            self._notes.append(f"{result}: is kept apart from {login}, who has another number for the same lesson")
        return result

    def _is_anothers(self, login: str, number: tuple[str, str], lessons: set[str]) -> bool:
        """Whether a login has one of these lessons from another number, and none from this."""
        holders = [self._holders.get((login, lesson), {number}) for lesson in lessons]
        return any(number not in each for each in holders)

    def _keep(self, number: tuple[str, str], name: str, login: str, lessons: Iterable[str]) -> None:
        self._earlier[number] = login
        self._names.add((same(name), login))
        for lesson in lessons:
            self._holders.setdefault((login, lesson), set()).add(number)


def _row(handed: Handed) -> Row:
    """A file's line in the table, as far as the file alone says it."""
    owner, item = handed.owner, handed.item
    time = owner.attempt or (item.time.isoformat(" ") if item.time else "")
    note = handed.note or (LATE if owner.late else "")
    own = {"system": owner.system, "id": owner.number, "name": shown(owner.name)}
    return Row(**own, time=time, source=handed.source, file=item.place, note=note)


def _known_login(owner: Named, people: ClassList | None) -> str:
    """The login on the class list, "" for nobody's."""
    name = owner.name or owner.login
    person = people.find(login=owner.login, name=name, number=owner.number) if people and name else None
    return person.login if person else ""


def _free_folder(login: str, taken: Iterable[str]) -> str:
    """A student's folder, which differs from all others also where capitals and small letters are the same."""
    folder = safe_id(login)
    return distinct(folder, login) if same(folder) in map(same, taken) else folder


# -- which one counts ------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Student:
    """A student's files, with their rows in the table, and where they are collected."""

    files: Sequence[tuple[Handed, Row]]
    out: Path
    before: Sequence[Row]
    done: Collection
    dry: bool

    def collect(self, lessons: Sequence[Lesson]) -> None:
        """Collect one notebook for each lesson, and put a row for every file to the table."""
        notebooks = [(handed, row) for handed, row in self.files if handed.candidate]
        for handed, row in self.files:
            if not handed.candidate:
                is_note = handed.note not in QUIET or not notebooks
                self.done.add(replace(row, note=handed.note), handed.note if is_note else "")
        for _, row in notebooks[MOST_NOTEBOOKS:]:
            self.done.add(row, f"not looked at: more than {MOST_NOTEBOOKS} notebooks of one student")
        for lesson in lessons:
            self._collect_lesson(lesson.name, notebooks[:MOST_NOTEBOOKS])
        if not notebooks and not self.dry:
            with suppress(FileExistsError):
                (self.out / self.files[0][1].folder).mkdir(parents=True, exist_ok=True)

    def _collect_lesson(self, lesson: str, notebooks: Sequence[tuple[Handed, Row]]) -> None:
        mine = [
            (handed, handed.candidate, replace(row, lesson=lesson))
            for handed, row in notebooks
            if handed.candidate is not None and lesson in handed.candidate.unanswered
        ]
        last = max((handed.owner.attempt for handed, *_ in mine), default="")
        chosen, _ = choose((candidate for handed, candidate, _ in mine if handed.owner.attempt == last), lesson)
        for handed, candidate, row in mine:
            if candidate is chosen:
                self._put(handed, row)
            elif chosen is None or handed.owner.attempt < last:
                self.done.add(row, "left out, it is an earlier attempt")
            else:
                self.done.add(row, f"left out, {shown(chosen.path.name)} counts")

    def _put(self, handed: Handed, row: Row) -> None:
        """Write a notebook where it is newer than what is there."""
        place = self.out / row.folder / row.lesson
        path = place / f"{row.lesson}.ipynb"
        old = next((r for r in self.before if r.counts and (r.folder, r.lesson) == (row.folder, row.lesson)), None)
        try:
            data = handed.item.read()
            there = path.read_bytes() if path.is_file() else None
            if there is not None and there != data and old is not None and _is_older(row, old):
                self.done.add(row, "left out, it is older than what was collected before")
                return
            if not self.dry and there != data:
                write_atomically(path, data)
            if not self.dry:
                _write_time(place / "timestamp.txt", row.time if handed.timed else "", changed=there != data)
        except (ArchiveError, OSError) as error:
            if getattr(error, "errno", None) in HOPELESS:
                raise
            self.done.add(row, f"not collected: {error}")
            return
        self.done.rows.append(row)
        self.done.new += there is None
        self.done.newer += [f"{row.login}/{row.lesson}"] if there not in (None, data) else []
        self.done.unchanged += there == data


def _write_time(path: Path, time: str, *, changed: bool) -> None:
    """Write when a notebook was handed in, for nbgrader; what it says of an earlier one goes where none is known."""
    if time:
        write_atomically(path, f"{time}\n")
    elif changed:
        path.unlink(missing_ok=True)


def _is_older(new: Row, old: Row) -> bool:
    """Whether a file is older than the one that counts, by their times, and else by the numbers of resubmissions."""
    if new.time and old.time and new.time != old.time:
        return new.time < old.time
    return resubmission(PurePosixPath(new.file).stem) < resubmission(PurePosixPath(old.file).stem)


def _finish(done: Collection, before: Sequence[Row], people: ClassList | None) -> None:
    """Put the rows from before to the table, and who of the class list handed in nothing."""
    here = {(harmless(row.source), harmless(row.file), row.lesson) for row in done.rows}
    replaced = {(row.folder, row.lesson) for row in done.rows if row.counts}
    for row in before:
        if row.file and (harmless(row.source), harmless(row.file), row.lesson) not in here:
            gone = row.counts and (row.folder, row.lesson) in replaced
            done.rows.append(replace(row, note="replaced by what was collected later") if gone else row)
    there = {row.login for row in done.rows if row.counts}
    for person in people.people if people else ():
        if person.login not in there:
            done.missing.append(person.login)
            done.rows.append(Row(login=person.login, name=person.name, note=NOTHING))
    done.rows.sort(key=lambda row: (not row.login, row.login, row.lesson, row.note != "", row.file))
