"""A dry run of grading for learners: their own notebook as the grader reads it, on the cases that `check` tries."""

from collections.abc import Iterator, Sequence
from pathlib import Path

from coursework.course import publishing, tree
from coursework.exercises.attempt import TimeIsUp
from coursework.exercises.exercise import Exercise, NotAttempted, lesson_exercises
from coursework.exercises.judging import SECONDS, judge
from coursework.exercises.report import looks_like
from coursework.grading import answers, handin
from coursework.grading.finding import lessons_of
from coursework.grading.grader import Grader, Rules
from coursework.grading.handin import HandIn, HandInError, Lesson
from coursework.grading.marking import PUBLIC, Mark
from coursework.grading.sandboxed import cells
from coursework.grading.service import SandboxError
from coursework.grading.stage import source_of

OPEN = "without a sandbox: what calls the course's own solution is not noticed"


def known_lessons(root: Path) -> list[Lesson]:
    """The lessons of a course tree, or of what students were given of one."""
    if (root / "solutions").is_dir():
        return handin.course_lessons(root)
    released = tree.lessons(root / tree.RELEASED)
    return [handin.released_lesson(path.stem, publishing.read(path)) for path in released]


def check_file(path: Path, lessons: Sequence[Lesson]) -> Iterator[str]:
    """What grading would say of a notebook, a line each. Raises HandInError where it cannot be read or is no lesson."""
    data = handin.content(path)
    handin.cells_of(data)  # raises where it is no notebook
    found = lessons_of(data, path.stem, lessons)
    handed_in = [(lesson, handin.parse(data, lesson)) for lesson in lessons if lesson.name in found]
    problems = [one.problem for _, one in handed_in if one.problem]
    if problems or not handed_in:
        raise HandInError(problems[0] if problems else "it holds no lesson of this course")
    try:
        with Grader(Rules(PUBLIC)) as grader:
            for lesson, one in handed_in:
                yield from report(lesson, one, *grader.grade(one, lesson))
    except SandboxError as error:
        yield f"note: {OPEN} ({error})"
        for lesson, one in handed_in:
            yield from report(lesson, one, judge_here(one, lesson), [*one.remarks, *answers.remarks(one.cells, lesson)])


def report(lesson: Lesson, handed_in: HandIn, marks: Sequence[Mark], remarks: Sequence[str]) -> Iterator[str]:
    """The lines for one lesson."""
    yield lesson.name
    for mark in marks:
        refused = mark.outcome == "not attempted" and mark.flag.startswith("calls ")
        yield f"{mark.exercise:5} {'refused' if refused else mark.outcome}{f': {mark.message}' if mark.message else ''}"
        for line in looks_like(mark.misconception):
            yield f"      {line}"
    for number, answer in handed_in.answers.items():
        pictures = f", {len(answer.pictures)} pictures" if answer.pictures else ""
        written = f"found, {len(answer.text):,} characters{pictures}" if answer.text else "nothing is written"
        yield f"derivation {number}: {written}"
    yield from (f"note: {remark}" for remark in remarks)
    yield f"{sum(mark.outcome == 'passed' for mark in marks)} of {len(marks)} passed"


def judge_here(handed_in: HandIn, lesson: Lesson) -> list[Mark]:
    """The marks without a sandbox, in this process: for one's own notebook alone."""
    sources = [{"source": cell.source, "role": cell.role} for cell in handed_in.cells]
    marks: list[Mark] = []
    given: list[dict[str, str]] = []
    for exercise in lesson_exercises(lesson.number):
        if exercise.id not in lesson.functions:
            continue
        name = lesson.functions[exercise.id]
        tries = []
        for place in answers.places(handed_in.cells, exercise.id, name):
            tries.append(_judged(exercise, sources, cells.Wanted(exercise.id, name, *place), given))
            if tries[-1].outcome == "passed":
                break
        missing = Mark(exercise.id, "not attempted", "its cell is not in the notebook", flag="cell missing")
        marks.append(next((mark for mark in tries if mark.outcome == "passed"), (tries or [missing])[0]))
        if marks[-1].outcome != "passed":
            given.append({"exercise": exercise.id, "name": name, "source": source_of(exercise)})
    return marks


def _judged(
    exercise: Exercise, sources: list[dict[str, str]], wanted: cells.Wanted, given: list[dict[str, str]]
) -> Mark:
    """The mark of what stands in one place."""
    try:
        function, remarks = cells.define(sources, wanted, given, SECONDS)
    except NotAttempted:
        return Mark(exercise.id, "not attempted")
    except cells.CellError as error:
        return Mark(exercise.id, "wrong", str(error))
    except (Exception, TimeIsUp) as error:
        return Mark(exercise.id, "wrong", f"your cell raises {type(error).__name__}: {error}")
    verdict = judge(exercise, function)
    printed = "\n".join(filter(None, (verdict.printed, *remarks)))
    return Mark(exercise.id, verdict.outcome, verdict.message, verdict.misconception, printed=printed)
