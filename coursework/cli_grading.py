"""The commands around a class: `coursework assign` and `coursework grade`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from coursework import running
from coursework._command_line import INTERRUPTED, refuse, say

if TYPE_CHECKING:
    from coursework.grading.class_list import ClassList
    from coursework.grading.classroom import Task
    from coursework.grading.finding import Intake, Submission
    from coursework.grading.grader import Rules
    from coursework.grading.handin import Lesson
    from coursework.grading.points import Points
    from coursework.grading.records import Records

app = typer.Typer()

Students = Annotated[
    Path | None,
    typer.Option("--students", metavar="LIST.csv", help="the class list: everybody has a row in the tables"),
]
PointsFile = Annotated[Path | None, typer.Option("--points", help="points.yaml; every exercise is worth 1 without it")]


def course_root() -> Path:
    """The course tree in the current directory, or the end of the command."""
    try:
        return running.course_tree(Path.cwd(), complete=True)
    except running.RunError as error:
        refuse(str(error))


def read_points(path: Path | None) -> Points:
    """The points, or the end of the command."""
    from coursework.grading.points import PointsError, read_points

    try:
        return read_points(path)
    except (PointsError, OSError) as error:
        refuse(f"points: {error}")


def lessons_named(root: Path, names: list[str]) -> list[Lesson]:
    """The lessons of the course that the names pick, all without names, or the end of the command."""
    from coursework.grading.handin import course_lessons
    from coursework.publishing import PublishError

    try:
        return chosen(course_lessons(root), names)
    except PublishError as error:
        refuse(str(error))


def chosen(lessons: list[Lesson], names: list[str]) -> list[Lesson]:
    """Those of the lessons that the names pick, all without names, or the end of the command."""
    for name in names:
        if not any(running.matches(lesson.name, name) for lesson in lessons):
            refuse(f"no lesson {name!r} with exercises; there are {', '.join(lesson.name for lesson in lessons)}")
    return [lesson for lesson in lessons if not names or any(running.matches(lesson.name, name) for name in names)]


def read_students(path: Path | None) -> ClassList | None:
    """The class list, None without one, or the end of the command."""
    from coursework.grading.class_list import ClassListError, read_class_list

    try:
        return read_class_list(path) if path is not None else None
    except (ClassListError, OSError) as error:
        refuse(f"students: {error}")


@app.command()
def assign(
    names: Annotated[list[str], typer.Argument(help='lessons by number or name ("03", "03_sliced")')],
    out: Annotated[Path, typer.Option("--out", help="nbgrader's course directory; made, or added to")],
    points: PointsFile = None,
) -> None:
    """Make a release: a course directory for nbgrader, and a zip for students."""
    from coursework.grading.release import AssignError
    from coursework.grading.release import assign as release
    from coursework.publishing import PublishError

    root = course_root()
    worth, course = read_points(points), lessons_named(root, [])
    try:
        written = release(root, chosen(course, names), worth, out, course)
    except (AssignError, PublishError, OSError) as error:
        refuse(str(error))
    for path in written:
        say(str(path))


@app.command()
def grade(
    submissions: Annotated[Path, typer.Argument(help="a folder with one folder of notebooks for each student")],
    out: Annotated[Path, typer.Option("--out", help="the folder for records, tables and feedback")],
    lesson: Annotated[list[str] | None, typer.Option("--lesson", help="only this lesson; repeatable")] = None,
    points: PointsFile = None,
    students: Students = None,
    jobs: Annotated[int, typer.Option(help="submissions that are graded at the same time")] = 1,
    scheduler: Annotated[str, typer.Option(help="address of a Dask scheduler whose workers grade")] = "",
    course: Annotated[
        Path | None, typer.Option("--course", help="nbgrader's course directory, for its gradebook and feedback pages")
    ] = None,
    allow_reference: Annotated[
        list[str] | None,
        typer.Option("--allow-reference", metavar="ID", help="an exercise whose reference may be called; repeatable"),
    ] = None,
    again: Annotated[bool, typer.Option("--again", help="grade everything anew, also what is up to date")] = False,
) -> None:
    """Grade what learners handed in. The same command again goes on where it stopped.

    A submission is graded anew when its file, an exercise of its lesson or an option changed.
    """
    root = course_root()
    if not submissions.is_dir():
        refuse(f"submissions: {submissions} is no folder")
    if jobs < 1:
        refuse(f"jobs: expected at least 1, got {jobs}")
    worth, people, course_lessons = read_points(points), read_students(students), lessons_named(root, [])
    lessons = chosen(course_lessons, lesson or [])
    check_exercises(allow_reference or [], lessons)
    intake = find(submissions, lessons, course_lessons, people)
    options = {"jobs": jobs, "scheduler": scheduler, "course": course, "again": again}
    try:
        grade_class(intake, out, lessons, worth, allow_reference or [], **options)
    except KeyboardInterrupt:
        print("coursework: interrupted; the same command goes on where it stopped", file=sys.stderr)
        raise typer.Exit(INTERRUPTED) from None


def find(folder: Path, lessons: list[Lesson], course: list[Lesson], people: ClassList | None) -> Intake:
    """What is in the folder of submissions, or the end of the command; notes are printed."""
    from coursework.grading.finding import FindingError, find_submissions

    try:
        intake = find_submissions(folder, lessons, course, people)
    except FindingError as error:
        refuse(f"submissions: {error}")
    if not intake.submissions:
        refuse(f"submissions: {folder} holds no notebook of {', '.join(lesson.name for lesson in lessons)}")
    for note in intake.notes:
        say(f"note: {note}", file=sys.stderr)
    return intake


def check_exercises(ids: list[str], lessons: list[Lesson]) -> None:
    """Ends the command for an id that none of the lessons has."""
    known = [exercise for lesson in lessons for exercise in lesson.functions]
    for exercise in ids:
        if exercise not in known:
            refuse(f"allow-reference: no exercise {exercise!r}; there are {', '.join(known)}")


def grade_class(
    intake: Intake,
    out: Path,
    lessons: list[Lesson],
    worth: Points,
    allowed: list[str],
    *,
    jobs: int,
    scheduler: str,
    course: Path | None,
    again: bool,
) -> None:
    """Grades a class and prints where the tables are."""
    from coursework._command_line import termination_interrupts
    from coursework.grading.classroom import open_tasks, write_tables
    from coursework.grading.grader import Rules
    from coursework.grading.records import Records

    records, found = Records(out), intake.submissions
    handed_in = [lesson for lesson in lessons if lesson.name in {submission.lesson for submission in found}]
    check_course(course, handed_in)
    rules = Rules(records.secret(), tuple(sorted(allowed)))
    tasks = list(open_tasks(found, lessons, rules, records, again=again))
    if len(tasks) < len(found):
        print(f"{len(found) - len(tasks)} of {len(found)} submissions are graded already", file=sys.stderr)
    with termination_interrupts():
        graded = follow(tasks, rules, records, jobs, scheduler)
        if course is not None:
            save_grades(records, found, graded, handed_in, course)
    tables = write_tables(records, found, lessons, worth)
    tables += write_imports(records, found, lessons, worth, course)
    for path in tables:
        say(str(path))


def write_imports(
    records: Records, found: list[Submission], lessons: list[Lesson], worth: Points, course: Path | None
) -> list[Path]:
    """Writes the tables for learning management systems, from the gradebook where there is one."""
    from coursework.grading import lms

    if course is not None:
        return lms.write_imports(records.folder, *lms.gradebook_scores(course))
    kept = [record for submission in found if (record := records.read(submission)) is not None]
    most = {lesson.name: worth.total(lesson) for lesson in lessons}
    return lms.write_imports(records.folder, lms.scores_of(kept, lessons, worth), most)


def check_course(course: Path | None, lessons: list[Lesson]) -> None:
    """Ends the command where a course directory is named that cannot be used."""
    from coursework.grading.gradebook import GradebookError, check_course

    try:
        if course is not None:
            check_course(course, lessons)
    except GradebookError as error:
        refuse(f"course: {error}")


def follow(tasks: list[Task], rules: Rules, records: Records, jobs: int, scheduler: str) -> set[str]:
    """Grades with a progress bar, writes each record as it comes, and returns the keys of what was graded."""
    from contextlib import closing

    from tqdm import tqdm

    from coursework.grading.classroom import UNPROTECTED, grade_here
    from coursework.grading.service import SandboxError

    def warn(missing: str) -> None:
        say(f"warning: {UNPROTECTED}: {missing}", file=sys.stderr)

    done: set[str] = set()
    if not tasks:
        return done
    if scheduler:
        from coursework.grading.cluster import grade_by_scheduler

        graded = grade_by_scheduler(tasks, rules, scheduler, warn)
    else:
        graded = grade_here(tasks, rules, min(jobs, len(tasks)), warn)
    try:
        with closing(graded), tqdm(total=len(tasks), unit="submission", disable=None, leave=False) as bar:
            for record in graded:
                records.write(record)
                done.add(record.submission.key)
                bar.update()
                passed = sum(mark.outcome == "passed" for mark in record.marks)
                flags = "".join(f", {mark.exercise} {mark.flag}" for mark in record.marks if mark.flag)
                say(f"{record.submission.key}: {passed} of {len(record.marks)} passed{flags}")
                for remark in record.remarks:
                    say(f"note: {record.submission.key}: {remark}", file=sys.stderr)
    except (SandboxError, OSError) as error:
        refuse(str(error))
    return done


def save_grades(
    records: Records, found: list[Submission], graded: set[str], lessons: list[Lesson], course: Path
) -> None:
    """Puts what was graded, and what the gradebook lacks, into the gradebook."""
    from tqdm import tqdm

    from coursework.grading.gradebook import save

    lacking = [
        submission
        for submission in found
        if submission.key in graded or not (course / "feedback" / submission.student / submission.lesson).is_dir()
    ]
    kept = [record for submission in lacking if (record := records.read(submission)) is not None]

    def note(problem: str) -> None:
        say(f"note: {problem}", file=sys.stderr)

    for _ in tqdm(save(kept, lessons, course, note), total=len(kept), unit="page", disable=None, leave=False):
        pass
