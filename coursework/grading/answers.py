"""Which cells of a notebook answer an exercise, and which check it. One cell may answer any number of them."""

import re
from collections.abc import Sequence
from typing import NamedTuple

from coursework.grading.handin import Cell, Lesson

MOST_TRIES = 4
# What a line sets. As every pattern for submitted text it takes time that grows as the text: nothing can be read in two
# ways, or again from each of many places.
ASSIGNED = re.compile(r"^([\w \t,]++)(?::[^=\n]++)?+=(?![ \t]*check\b|=)", re.MULTILINE)


class Place(NamedTuple):
    """Where to look for an answer: the numbers of the cell that holds it, and of the cell up to which all is read."""

    own: int
    until: int


def places(cells: Sequence[Cell], exercise: str, name: str) -> list[Place]:
    """Where an exercise's answer may stand, the likeliest first; none where nothing of it is in the notebook.

    An answer that passes anywhere counts: at the lesson's own check, at another one that a learner wrote, or in a cell
    below the last of them.
    """
    marked = [i for i, cell in enumerate(cells) if (cell.role, cell.exercise) == ("exercise", exercise)]
    defining = [i for i, cell in enumerate(cells) if cell.role != "lesson" and _defines(cell.source, name)]
    official = [i for i, cell in enumerate(cells) if (cell.role, cell.exercise) == ("check", exercise)]
    checking = [i for i, cell in enumerate(cells) if i not in official and _checks(cell.source, exercise)]
    if not (marked or defining or checking):
        return []
    own = (marked or defining or checking)[-1]
    ends = [*reversed(official), *reversed(checking)] or [own]
    ends += [i for i in [*defining, own][-1:] if i > max(ends)]
    return [Place(own, until) for until in dict.fromkeys(ends)][:MOST_TRIES]


def remarks(cells: Sequence[Cell], lesson: Lesson) -> list[str]:
    """What an instructor may want to know of where the answers stand."""
    found = []
    for exercise, name in lesson.functions.items():
        marked = sum((cell.role, cell.exercise) == ("exercise", exercise) for cell in cells)
        if marked > 1:
            found.append(f"{exercise}: {marked} cells bear its mark; the last one counts")
        if not marked and places(cells, exercise, name):
            found.append(f"{exercise}: its cell has lost its mark; the last one that defines {name} counts")
    return found


def _defines(source: str, name: str) -> bool:
    """Whether a cell sets the name to something of its own, as far as its text tells."""
    definition = rf"^[ \t]*(?:async[ \t]+)?(?:def|class)[ \t]+{name}\b|\({name}[ \t]*:="
    if re.search(definition, source, re.MULTILINE):
        return True
    targets = (found[1].rstrip().split(",") for found in ASSIGNED.finditer(source))
    return any(first == name or name in map(str.strip, others) for first, *others in targets)


def _checks(source: str, exercise: str) -> bool:
    """Whether a cell calls `check` for the exercise, or for one that its text does not tell."""
    named = rf"\bcheck\s*\(\s*(?:attempt\s*=[^=]+?,\s*)?(?:exercise_id\s*=\s*)?[\"']{re.escape(exercise)}[\"']"
    unnamed = r"\bcheck\s*\(\s*[^\W\d]\w*\s*[,)\[]"
    return re.search(f"{named}|{unnamed}", source) is not None
