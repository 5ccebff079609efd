"""Whose file it is, by the name that a learning management system gave to it: the system's part comes first.

What follows that part is the student's own name for the file, and is believed in nothing.
"""

import re
from dataclasses import dataclass

MOODLE = re.compile(
    r"(?P<name>.+?)_(?P<number>\d+)_assignsubmission_(?P<kind>file|onlinetext)(?:_|$)(?P<file>.*)", re.S
)
CANVAS = re.compile(r"(?P<name>.+?)_(?P<late>LATE_)?(?P<number>\d+)_\d+_(?P<file>.+)", re.S)
BLACKBOARD = re.compile(r"(?P<before>.+?)_attempt_(?P<time>\d{4}-\d\d-\d\d-\d\d-\d\d-\d\d)(?P<file>_.+|\.txt|$)", re.S)
RESUBMITTED = re.compile(r"(?: ?\((\d{1,3})\)|-(\d{1,3}))$")
COPY = re.compile(r"copy|checkpoint|\.mine-\d", re.IGNORECASE)


@dataclass(frozen=True)
class Named:
    """What a system's file or folder name says: the student's name or login, the system's number for the student, the
    student's own name for the file ("" for a folder), and what is known of the attempt."""

    system: str
    name: str = ""
    login: str = ""
    number: str = ""
    file: str = ""
    attempt: str = ""
    late: bool = False


def read_name(name: str) -> Named | None:
    """What a name says, None where no system has made it."""
    if found := MOODLE.fullmatch(name):
        return Named("moodle", found["name"], number=found["number"], file=found["file"])
    if found := BLACKBOARD.fullmatch(name):
        date, time = found["time"][:10], found["time"][11:].replace("-", ":")
        return Named("blackboard", login=found["before"], file=found["file"].lstrip("_"), attempt=f"{date} {time}")
    if found := CANVAS.fullmatch(name):
        late = found["late"] is not None
        return Named("canvas", found["name"], number=found["number"], file=found["file"], late=late)
    return None


def resubmission(stem: str) -> int:
    """The number that a browser, "name (1)", or Canvas, "name-1", puts to a file of the same name; 0 without one."""
    found = None if COPY.search(stem) else RESUBMITTED.search(stem)
    return int(found[1] or found[2]) if found else 0
