"""The class list: everybody's login, and the names and numbers by which a learning management system calls them.

Lists of participants and grades as Moodle, Canvas and Blackboard export them are read as they are.
"""

import csv
import io
import re
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from coursework.course.lines import shown
from coursework.grading.names import same, student_name

MOST_BYTES = 20 << 20
TEST_STUDENT = "student, test"  # is in every export of Canvas
HEADINGS: Mapping[str, tuple[str, ...]] = {
    "login": ("login", "username", "user name", "sis login id", "login id", "benutzername", "anmeldename"),
    "name": ("name", "student", "full name", "student name", "vollständiger name"),
    "first": ("first name", "vorname", "given name", "firstname"),
    "last": ("last name", "surname", "nachname", "family name", "lastname"),
    "number": ("id", "identifier", "id number", "sis user id", "student id", "user id", "matriculation number"),
    "address": ("email", "email address", "e-mail", "e-mail-adresse", "e-mail address"),
}  # fmt: skip


class ClassListError(ValueError):
    """The class list cannot be used; the message says why."""


@dataclass(frozen=True)
class Person:
    """Somebody on the class list: login, name, and the numbers of the systems."""

    login: str
    name: str = ""
    numbers: tuple[str, ...] = ()


@dataclass(frozen=True)
class ClassList:
    """Everybody in a class."""

    people: tuple[Person, ...]

    def find(self, *, login: str = "", name: str = "", number: str = "") -> Person | None:
        """Who it is: by login, else by a system's number, else by name; None where nobody or more than one fits.

        A number is believed where the name does not speak against it: lists have numbers of several kinds.
        """
        logins, spelt, numbers, names = self._index
        of_name = names.get(squeezed(name), [])
        of_number = [p for p in numbers.get(number, []) if not p.name or not name or p in of_name]
        ways = logins.get(login, []), spelt.get(same(login), []), of_number, of_name
        fitting = next((way for way in ways if way), [])
        return fitting[0] if len(fitting) == 1 else None

    @cached_property
    def _index(self) -> tuple[dict[str, list[Person]], ...]:
        """People by login, by login however it is spelt, by number and by name."""
        keys = (
            lambda person: {person.login},
            lambda person: {same(person.login)},
            lambda person: set(person.numbers),
            lambda person: orders(person.name),
        )
        index: tuple[dict[str, list[Person]], ...] = ({}, {}, {}, {})
        for person in self.people:
            for kind, keys_of in zip(index, keys, strict=True):
                for key in keys_of(person) - {""}:
                    kind.setdefault(key, []).append(person)
        return index


def squeezed(name: str) -> str:
    """The letters and digits of a name, as Canvas puts them into the names of files."""
    return "".join(c for c in unicodedata.normalize("NFKC", name).casefold() if c.isalnum())


def orders(name: str) -> set[str]:
    """A name squeezed, in every order that begins with another of its words: "Ann Lee", "Lee, Ann"."""
    words = name.split()
    return {squeezed("".join(words[i:] + words[:i])) for i in range(len(words))}


def read_class_list(path: Path) -> ClassList:
    """Everybody on a list with headings, whatever separates its columns. Raises ClassListError, OSError."""
    with path.open("rb") as file:
        text = _text(file.read(MOST_BYTES))
    first = next((line for line in text.splitlines() if line.strip()), "")
    try:
        rows = list(csv.reader(io.StringIO(text), delimiter=max(",;\t|", key=first.count)))
    except csv.Error as error:
        raise ClassListError(f"{path}: no table: {error}") from None
    rows = [row for row in rows if any(cell.strip() for cell in row)]
    columns = _columns(rows[0]) if rows else {"login": [0]}
    if "login" not in columns and max(map(len, rows)) == 1:
        rows, columns = [[], *rows], {"login": [0]}  # logins alone, without a heading
    if "login" not in columns:
        raise ClassListError(
            f"{path}: no heading names a login; expected login, username, SIS Login ID or Email address"
        )
    people = [_person(row, columns) for row in rows[1:]]
    known: dict[str, Person] = {}
    for person in people:
        if person.login and same(person.name) != TEST_STUDENT and known.setdefault(person.login, person) != person:
            raise ClassListError(f"{path}: the login {person.login!r} stands there for two people")
    if not known:
        raise ClassListError(f"{path}: it names nobody")
    return ClassList(tuple(known.values()))


def _text(data: bytes) -> str:
    if data.startswith((b"\xff\xfe", b"\xfe\xff")):
        return data.decode("utf-16", "replace")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError:
        return data.decode("cp1252", "replace")


def _columns(heading: Sequence[str]) -> dict[str, list[int]]:
    """The columns by what they hold. Without a login, a number of the institution or an address is one."""
    cells = [same(cell) for cell in heading]
    columns = {
        kind: [i for name in names for i, c in enumerate(cells) if c == name] for kind, names in HEADINGS.items()
    }
    if not columns["login"]:
        columns["login"] = columns["address"][:1] or columns["number"][:1] or columns["name"][:1]
    return {kind: found for kind, found in columns.items() if found}


def _person(row: Sequence[str], columns: Mapping[str, Sequence[int]]) -> Person:
    def cell(kind: str) -> str:
        return next((row[i].strip() for i in columns.get(kind, ()) if i < len(row) and row[i].strip()), "")

    numbers = [row[i].strip() for kind in ("number", "address") for i in columns.get(kind, ()) if i < len(row)]
    numbers = [re.sub(r"^\D+ (?=\d+$)", "", number) for number in numbers if number]  # Moodle's "Participant 123"
    name = cell("name") or f"{cell('first')} {cell('last')}".strip()
    return Person(student_name(cell("login")), shown(name), tuple(numbers))
