"""What an exercise is worth: defaults, and an instructor's points.yaml over them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from coursework._files import write_atomically
from coursework.exercises.exercise import Exercise, lesson_derivations, lesson_exercises
from coursework.exercises.mistakes import Derivation
from coursework.grading.handin import Lesson
from coursework.grading.standing import check_cell
from coursework.grading.writing import cell_name

EXERCISE, DERIVATION = 1.0, 2.0
WRITTEN = "derivation-"
FILE = "points.yaml"  # in a course directory: the points that its gradebook goes by
HEAD = "# What exercises are worth. `coursework points` and `coursework assign` write this file.\n"
KEYS = ("exercises", "lessons", "derivations", "default", "derivation_default")


class PointsError(ValueError):
    """points.yaml is not what it should be; the message names the entry."""


@dataclass(frozen=True)
class Points:
    """Points by exercise and by derivation.

    `exercises` and `derivations` map ids ("3.4") to points, `lessons` a lesson's number to what all its exercises
    together are worth, shared out evenly; whatever is not named is worth `default` or `derivation_default`. A
    derivation that is worth 0 is left out of the release.
    """

    exercises: Mapping[str, float] = field(default_factory=dict)
    lessons: Mapping[int, float] = field(default_factory=dict)
    derivations: Mapping[str, float] = field(default_factory=dict)
    default: float = EXERCISE
    derivation_default: float = DERIVATION

    def of(self, exercise: str, lesson: Lesson) -> float:
        """The points of an exercise."""
        if exercise in self.exercises:
            return self.exercises[exercise]
        if lesson.number not in self.lessons:
            return self.default
        named = [e for e in lesson.functions if e in self.exercises]
        rest = self.lessons[lesson.number] - sum(self.exercises[e] for e in named)
        return round(rest / (len(lesson.functions) - len(named)), 4)  # nobody asks where all of them are named

    def total(self, lesson: Lesson) -> float:
        """The points of all exercises of a lesson that are graded by the machine."""
        return sum(self.of(exercise, lesson) for exercise in lesson.functions)

    def check_cells(self, lesson: Lesson) -> dict[str, float]:
        """The points of the exercises, by the names of their checks' cells."""
        return {check_cell(exercise): self.of(exercise, lesson) for exercise in lesson.functions}

    def derivation_cells(self, lesson: Lesson) -> dict[str, float]:
        """The points of all derivations of a lesson, also those worth 0, by the names of their cells."""
        return {
            cell_name(d.id): self.derivations.get(d.id, self.derivation_default)
            for d in lesson_derivations(lesson.number)
        }

    def derivations_of(self, lesson: Lesson) -> list[tuple[Derivation, float]]:
        """The written derivations of a lesson, with their points."""
        worth = [(d, self.derivations.get(d.id, self.derivation_default)) for d in lesson_derivations(lesson.number)]
        return [(derivation, points) for derivation, points in worth if points > 0]


def read_points(path: Path | None) -> Points:
    """Points from a YAML file, the defaults without one. Raises PointsError, OSError."""
    return Points() if path is None else _points(_content(path), str(path))


def keep_points(path: Path | None, course: Path) -> bool:
    """Make a file, or the defaults, the points of a course directory; returns whether it had none or others.

    Without a file those that it has stay. Raises PointsError, OSError.
    """
    own = course / FILE
    if own.is_file() and (path is None or read_points(own) == read_points(path)):
        return False
    write_atomically(own, HEAD.encode() if path is None else path.read_bytes())
    return True


def changed(path: Path, changes: Sequence[str]) -> tuple[Points, str]:
    """The points of a file after changes, and what the file should hold: "3.3=0", "derivation-3-3=4".

    Raises PointsError, OSError.
    """
    import yaml

    content = _content(path)
    _points(content, str(path))
    for change in changes:
        name, equal, points = change.partition("=")
        if not equal:
            raise PointsError(f"expected an exercise and its points, such as 3.3=0 or derivation-3.3=4, got {change!r}")
        key, entry = (
            ("derivations", name[len(WRITTEN) :].replace("-", ".")) if name.startswith(WRITTEN) else ("exercises", name)
        )
        content[key] = {**(content.get(key) or {}), entry: points}
    worth = _points(content, str(path))
    return worth, HEAD + yaml.safe_dump(_plain(content), sort_keys=False)


def cell_of(name: str) -> str:
    """The cell of "3.3", or of "derivation-3.3"."""
    return name.replace(".", "-") if name.startswith(WRITTEN) else check_cell(name)


def _content(path: Path) -> dict[str, Any]:
    import yaml

    try:
        content = yaml.load(path.read_text(encoding="utf-8"), Loader=yaml.BaseLoader) or {}
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise PointsError(f"{path}: no YAML: {str(error).splitlines()[0]}") from None
    if not isinstance(content, dict):
        raise PointsError(f"{path}: expected `exercises:` and the like, got a {type(content).__name__}")
    return content


def _points(content: Mapping[str, Any], where: str) -> Points:
    unknown = [key for key in content if key not in KEYS]
    if unknown:
        raise PointsError(f"{where}: unknown entry {unknown[0]!r}; there are {', '.join(KEYS)}")
    plain = {
        key: _number(content[key], f"{where}: {key}") for key in ("default", "derivation_default") if key in content
    }
    tables = {key: _table(content.get(key), f"{where}: {key}") for key in ("exercises", "lessons", "derivations")}
    lessons = {_lesson(number, where): points for number, points in tables["lessons"].items()}
    _known(tables["exercises"], [e.id for e in _exercises(tables["exercises"])], f"{where}: exercises")
    written = [e.id for e in _exercises(tables["derivations"]) if e.derivation]
    _known(tables["derivations"], written, f"{where}: derivations")
    for number, points in lessons.items():
        alone = sum(worth for exercise, worth in tables["exercises"].items() if exercise.startswith(f"{number}."))
        if alone > points:
            raise PointsError(f"{where}: lesson {number}: its exercises alone are worth more than {points:g}")
    return Points(tables["exercises"], lessons, tables["derivations"], **plain)


def _plain(content: Any) -> Any:
    """What the loader read as texts, with numbers where they stand for points."""
    if isinstance(content, Mapping):
        return {key: _plain(value) for key, value in content.items() if value}
    worth = float(content)
    return int(worth) if worth == int(worth) else worth


def _table(content: Any, where: str) -> dict[str, float]:
    if content in (None, ""):
        return {}
    if not isinstance(content, Mapping):
        raise PointsError(f"{where}: expected a table of points, got {content!r}")
    return {str(key): _number(value, f"{where}: {key}") for key, value in content.items()}


def _number(value: Any, where: str) -> float:
    try:
        number = float(value)
    except (TypeError, ValueError):
        raise PointsError(f"{where}: expected a number of points, got {value!r}") from None
    if not 0 <= number < 1e6:  # also where it is NaN
        raise PointsError(f"{where}: expected a number of points that is not negative, got {value!r}")
    return number


def _lesson(number: str, where: str) -> int:
    if not number.isdigit() or not lesson_exercises(int(number)):
        raise PointsError(f"{where}: lessons: there is no lesson {number!r} with exercises")
    return int(number)


def _exercises(ids: Mapping[str, float]) -> list[Exercise]:
    """The exercises of the lessons that these ids name."""
    numbers = {number for number in (i.partition(".")[0] for i in ids) if number.isdigit()}
    return [exercise for number in numbers for exercise in lesson_exercises(int(number))]


def _known(given: Mapping[str, float], known: Sequence[str], where: str) -> None:
    for key in given:
        if key not in known:
            raise PointsError(f"{where}: there is no {key!r}")
