"""The commands around a class: `coursework assign`, `coursework grade` and `coursework points`."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TypeVar

import typer

from coursework.cli.asked import Students, chosen, course_lessons, here, points_of, students_of
from coursework.cli.terminal import refuse, say
from coursework.course.tree import CourseError

if TYPE_CHECKING:
    from coursework.grading.class_list import ClassList
    from coursework.grading.classroom import Task
    from coursework.grading.finding import Intake, Submission
    from coursework.grading.grader import Rules
    from coursework.grading.handin import Lesson
    from coursework.grading.points import Points
    from coursework.grading.records import Records

app = typer.Typer()
T = TypeVar("T")

PointsFile = Annotated[
    Path | None,
    typer.Option("--points", help="points.yaml; without it the course directory's, else every exercise is worth 1"),
]
Out = Annotated[Path, typer.Option("--out", help="the folder for records, tables and notes")]
Ids = Annotated[
    list[str] | None,
    typer.Option("--allow-reference", metavar="ID", help="an exercise whose reference may be called; kept; repeatable"),
]
Taken = Annotated[
    list[str] | None,
    typer.Option("--forbid-reference", metavar="ID", help="takes an --allow-reference back; repeatable"),
]


def keep_points(path: Path | None, course: Path) -> None:
    """Makes a file the points of a course directory, which has some from then on, and says so where it had others."""
    from coursework.grading.points import FILE, keep_points

    had = (course / FILE).is_file()
    if keep_points(path, course) and had:
        say(f"{course / FILE} is now what {path} says", file=sys.stderr)


@contextmanager
def going_on() -> Iterator[None]:
    """Says at an interrupt that nothing is lost."""
    try:
        yield
    except KeyboardInterrupt:
        raise KeyboardInterrupt("interrupted; the same command goes on where it stopped") from None


@app.command()
def assign(
    names: Annotated[list[str], typer.Argument(help='lessons by number or name ("03", "03_sliced")')],
    out: Annotated[Path, typer.Option("--out", help="nbgrader's course directory; made, or added to")],
    points: PointsFile = None,
) -> None:
    """Make a release: a course directory for nbgrader, and a zip for students."""
    root = here(complete=True)
    from coursework.grading.gradebook import Gradebook, GradebookError
    from coursework.grading.release import AssignError
    from coursework.grading.release import assign as release

    worth, lessons = points_of(points, out), course_lessons(root)
    asked = chosen(lessons, names)
    added_to = (out / "gradebook.db").is_file()
    try:
        with going_on():
            written = release(root, asked, worth, out, lessons)
            keep_points(points, out)
            if added_to:  # what a person gave before goes along with the points
                with Gradebook(out) as book:
                    book.weigh([lesson for lesson in lessons if book.has(lesson)], worth)
    except (AssignError, GradebookError, CourseError, OSError) as error:
        refuse(str(error))
    for path in written:
        say(str(path))


@app.command()
def grade(
    submissions: Annotated[Path, typer.Argument(help="a folder with one folder of notebooks for each student")],
    out: Out,
    lesson: Annotated[list[str] | None, typer.Option("--lesson", help="only this lesson; repeatable")] = None,
    student: Annotated[list[str] | None, typer.Option("--student", help="only this student; repeatable")] = None,
    points: PointsFile = None,
    students: Students = None,
    jobs: Annotated[int, typer.Option(help="submissions, and pages, that are worked on at the same time")] = 1,
    scheduler: Annotated[str, typer.Option(help="address of a Dask scheduler whose workers grade")] = "",
    course: Annotated[
        Path | None, typer.Option("--course", help="nbgrader's course directory, for its gradebook and feedback pages")
    ] = None,
    allow_reference: Ids = None,
    forbid_reference: Taken = None,
    again: Annotated[bool, typer.Option("--again", help="grade everything anew, also what is up to date")] = False,
) -> None:
    """Grade what learners handed in. The same command again goes on where it stopped.

    A submission is graded anew when its file, an exercise of its lesson or an option changed. The tables are of all
    that was ever graded into --out.
    """
    root = here(complete=True)
    from coursework.grading.grader import Rules
    from coursework.grading.records import Records

    if not submissions.is_dir():
        refuse(f"submissions: {submissions} is no folder")
    if jobs < 1:
        refuse(f"jobs: expected at least 1, got {jobs}")
    with going_on():
        worth, people, lessons = points_of(points, course), students_of(students), course_lessons(root)
        asked = chosen(lessons, lesson or [])
        for option, ids in (("allow-reference", allow_reference), ("forbid-reference", forbid_reference)):
            check_exercises(option, ids or [], lessons)
        records = Records(out)
        found = find(submissions, records, lessons, asked, people, student or [])
        handed_in = [each for each in asked if each.name in {submission.lesson for submission in found}]
        check_course(course, handed_in, points)
        allowed = allow(records, allow_reference or [], forbid_reference or [], lessons)
        hidden = tuple(str(path.absolute()) for path in (root, submissions, out, course) if path is not None)
        rules = Rules(records.secret(), allowed, hidden)
        grade_class(found, lessons, rules, records, jobs, scheduler, again=again)
        report(records, lessons, worth, course, jobs)


@app.command()
def points(
    course: Annotated[Path, typer.Option("--course", help="nbgrader's course directory, whose points change")],
    out: Out,
    changes: Annotated[
        list[str] | None, typer.Argument(metavar="ID=POINTS", help="such as 3.3=0, or derivation-3.3=4")
    ] = None,
    jobs: Annotated[int, typer.Option(min=1, help="pages that are made at the same time")] = 1,
) -> None:
    """Change what exercises are worth, and make gradebook, tables and pages again. Nothing is graded anew.

    An exercise that is worth 0 is dropped. Points that a person gave keep their share of what the exercise is worth.
    """
    root = here(complete=True)
    from coursework._files import write_atomically
    from coursework.grading.points import FILE, PointsError, changed
    from coursework.grading.records import Records

    with going_on():
        check_course(course, [], None)
        lessons = course_lessons(root)
        try:
            worth, text = changed(course / FILE, changes or [])
        except (PointsError, OSError) as error:
            refuse(f"points: {error}")
        check_released(course, lessons, worth, changes or [])
        if changes:
            write_atomically(course / FILE, text)
        report(Records(out), lessons, worth, course, jobs)


def check_exercises(option: str, ids: list[str], lessons: list[Lesson]) -> None:
    """Ends the command for an id that none of the lessons has."""
    known = [exercise for lesson in lessons for exercise in lesson.functions]
    for exercise in ids:
        if exercise not in known:
            refuse(f"{option}: no exercise {exercise!r}; there are {', '.join(known)}")


def check_course(course: Path | None, lessons: list[Lesson], points: Path | None) -> None:
    """Ends the command where a course directory is named that cannot be used; makes its points those of a file."""
    from coursework.grading.gradebook import GradebookError, check_course
    from coursework.grading.points import FILE

    if course is None:
        return
    try:
        check_course(course, lessons)
    except GradebookError as error:
        refuse(f"course: {error}")
    if points is None and not (course / FILE).is_file():
        refuse(f"course: {course} has no {FILE}: say by --points what exercises are worth")
    if points is not None:
        keep_points(points, course)


def check_released(course: Path, lessons: list[Lesson], worth: Points, changes: list[str]) -> None:
    """Ends the command for a change of what is not in the course directory's release."""
    from coursework.grading.gradebook import Gradebook, GradebookError
    from coursework.grading.points import cell_of

    try:
        with Gradebook(course) as book:
            known = {name for lesson in lessons if book.has(lesson) for name in book.worth(lesson, worth)}
    except GradebookError as error:
        refuse(f"course: {error}")
    for change in changes:
        name = change.partition("=")[0]
        if cell_of(name) not in known:
            refuse(f"points: {name} is not assigned in {course}")


def find(
    folder: Path,
    records: Records,
    lessons: list[Lesson],
    asked: list[Lesson],
    people: ClassList | None,
    students: list[str],
) -> list[Submission]:
    """The submissions of these lessons and students, all without names, or the end of the command.

    What is in the folder besides them is kept, and notes are printed.
    """
    from coursework.grading.finding import FindingError, find_submissions

    try:
        intake = find_submissions(folder, asked, lessons, people)
    except FindingError as error:
        refuse(f"submissions: {error}")
    for student in students:
        if student not in intake.students:
            refuse(f"student: {folder} holds no folder of {student!r}")
    if students:
        intake = of_students(intake, students)
    if not intake.submissions:
        refuse(f"submissions: {folder} holds no notebook of {', '.join(lesson.name for lesson in asked)}")
    records.keep_found(intake, [lesson.name for lesson in asked], everybody=not students)
    for note in intake.notes:
        say(f"note: {note}", file=sys.stderr)
    return intake.submissions


def of_students(intake: Intake, students: list[str]) -> Intake:
    """What these students handed in."""
    from coursework.grading.finding import Intake

    return Intake(
        [submission for submission in intake.submissions if submission.student in students],
        students,
        {key: reason for key, reason in intake.missing.items() if key[0] in students},
        [note for note in intake.notes if note.student in students],
    )


def allow(records: Records, more: list[str], less: list[str], lessons: list[Lesson]) -> tuple[str, ...]:
    """The exercises whose reference may be called: what was said before, and now. They are kept."""
    before = records.allowed()
    kept = tuple(sorted({*before, *more} - set(less)))
    records.allow(kept)
    remembered = [exercise for exercise in kept if exercise in before and exercise not in more]
    if remembered:
        taken = "--forbid-reference takes one back"
        print(f"references that may be called, as said before: {', '.join(remembered)} ({taken})", file=sys.stderr)
    return kept


def grade_class(
    found: list[Submission],
    lessons: list[Lesson],
    rules: Rules,
    records: Records,
    jobs: int,
    scheduler: str,
    *,
    again: bool,
) -> None:
    """Grades what is to be graded of a class."""
    from coursework.grading.classroom import open_tasks

    tasks = list(open_tasks(found, lessons, rules, records, again=again))
    for submission in found:
        records.keep_path(submission)
    if len(tasks) < len(found):
        print(f"{len(found) - len(tasks)} of {len(found)} submissions are graded already", file=sys.stderr)
    follow(tasks, rules, records, jobs, scheduler)


def follow(tasks: list[Task], rules: Rules, records: Records, jobs: int, scheduler: str) -> None:
    """Grades with a progress bar, and writes each record as it comes."""
    from contextlib import closing

    from tqdm import tqdm

    from coursework.grading.classroom import UNPROTECTED, grade_here
    from coursework.grading.handin import HandInError
    from coursework.grading.service import SandboxError

    def warn(missing: str) -> None:
        say(f"warning: {UNPROTECTED}: {missing}", file=sys.stderr)

    if not tasks:
        return
    if scheduler:
        from coursework.grading.cluster import grade_by_scheduler

        graded = grade_by_scheduler(tasks, rules, scheduler, warn)
    else:
        graded = grade_here(tasks, rules, min(jobs, len(tasks)), warn)
    try:
        with closing(graded), tqdm(total=len(tasks), unit="submission", disable=None, leave=False) as bar:
            for record in graded:
                bar.update()
                try:
                    records.write(record)
                except HandInError as error:
                    say(f"note: {record.submission.key}: {error}; call this again", file=sys.stderr)
                    continue
                passed = sum(mark.outcome == "passed" for mark in record.marks)
                flags = "".join(f", {mark.exercise} {mark.flag}" for mark in record.marks if mark.flag)
                say(f"{record.submission.key}: {passed} of {len(record.marks)} passed{flags}")
                for remark in record.remarks:
                    say(f"note: {record.submission.key}: {remark}", file=sys.stderr)
    except (SandboxError, OSError) as error:
        refuse(str(error))


def report(records: Records, lessons: list[Lesson], worth: Points, course: Path | None, jobs: int) -> None:
    """Makes all that is made of the records, and prints where the tables are."""
    from tqdm import tqdm

    from coursework.grading.gradebook import GradebookError
    from coursework.grading.reporting import report

    def bar(steps: Iterable[T], number: int, unit: str) -> Iterable[T]:
        return tqdm(steps, total=number, unit=unit, disable=None, leave=False)

    try:
        done = report(records, lessons, worth, course, jobs=jobs, follow=bar)
    except GradebookError as error:
        refuse(f"course: {error}")
    for remark in [*done.remarks, *done.notes]:
        say(f"note: {remark}", file=sys.stderr)
    for path in done.paths:
        say(str(path))
