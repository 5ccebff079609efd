"""The package as the sandbox sees it: the same modules, but no exercise's right answer and no recorded mistake."""

import sys
import sysconfig
from pathlib import Path

import coursework
from coursework._files import write_atomically
from coursework.exercises.exercise import Exercise
from coursework.grading.sandboxed import sandbox

PACKAGE = Path(coursework.__file__).parent
COPIES = ("coursework", "python3*/*-packages/coursework")
LEFT_OUT = ("cli", "course", "trained", "__pycache__")
ANSWERS = """from coursework.grading.sandboxed import withheld

__getattr__ = withheld.missing(__name__)
"""


def write_stage(folder: Path) -> None:
    """Write the sandbox's copy of the package into an empty folder."""
    for path in sorted(PACKAGE.rglob("*.py")):
        relative = path.relative_to(PACKAGE)
        ours = relative.match("grading/*.py") and path.name != "__init__.py"
        if ours or set(relative.parts) & set(LEFT_OUT):
            continue
        text = ANSWERS if path.match("exercises/lesson_*/answers.py") else path.read_text(encoding="utf-8")
        write_atomically(folder / "coursework" / relative, text)


def readable() -> list[str]:
    """The folders that a learner's code may read: Python's own libraries and the packages installed beside them."""
    paths = sysconfig.get_paths()
    places = {paths[name] for name in ("stdlib", "platstdlib", "purelib", "platlib")}
    places |= {f"{prefix}/{part}" for prefix in (sys.prefix, sys.base_prefix) for part in ("lib", "lib64")}
    return sorted(str(Path(place).absolute()) for place in places)


def hidden() -> list[str]:
    """The folders that it may not read, wherever they lie: the course, and all installed copies of the package."""
    places = {Path(place) for place in (*readable(), *sandbox.SYSTEM)}
    copies = {copy for place in places for name in COPIES for copy in place.glob(name)}
    return sorted(str(place) for place in {PACKAGE, PACKAGE.parent, *copies} - places)


def source_of(exercise: Exercise) -> str:
    """Source that defines an exercise's right answer, with what it needs."""
    return f"{exercise.answer.imports}\n\n\n{exercise.answer.text}"
