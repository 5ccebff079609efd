"""The command `coursework collect`: what a learning management system gives out, as folders that can be graded."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from coursework.cli.asked import Students, course_lessons, here, students_of
from coursework.cli.terminal import refuse, say

if TYPE_CHECKING:
    from coursework.grading.collecting import Collection

app = typer.Typer()


@app.command()
def collect(
    sources: Annotated[list[Path], typer.Argument(help="zips and folders, as the system gives them out")],
    course: Annotated[
        Path | None, typer.Option("--course", help="nbgrader's course directory: its folder submitted/ is written")
    ] = None,
    out: Annotated[Path | None, typer.Option("--out", help="another folder, in place of a course directory")] = None,
    students: Students = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="write nothing, say what would be done")] = False,
) -> None:
    """Sort what was handed in by student and lesson. The same command again takes what is newer.

    Understands the zips of Moodle, Canvas and Blackboard, files named LOGIN_LESSON.ipynb, a folder for each student,
    and sections of them. Nothing that was collected before is removed; collected.csv says what became of each file.
    """
    root = here(complete=True)
    from coursework.grading.collected import TABLE
    from coursework.grading.collecting import CollectError
    from coursework.grading.collecting import collect as collect_all

    lessons = course_lessons(root)
    folder, people = target(course, out), students_of(students)
    try:
        done = collect_all(sources, lessons, folder, people, dry=dry_run)
    except CollectError as error:
        refuse(str(error))
    for note in done.notes:
        say(f"note: {note}", sys.stderr)
    if done.missing:
        say(f"note: nothing from {len(done.missing)} of the class list: {', '.join(done.missing)}", sys.stderr)
    for key in done.newer:
        say(f"{key}: {'would be' if dry_run else 'was'} replaced by a newer one")
    say(summary(done, dry_run))
    say(f"{folder / TABLE}{' is not written' if dry_run else ''}")


def target(course: Path | None, out: Path | None) -> Path:
    """The folder to collect into, or the end of the command."""
    if course is None and out is not None:
        return out
    if course is None or out is not None:
        refuse("one of --course and --out is needed")
    if not (course / "nbgrader_config.py").is_file():
        refuse(f"course: {course} is no course directory: `coursework assign` makes one")
    return course / "submitted"


def summary(done: Collection, dry: bool) -> str:
    """What was done, in numbers."""
    students = len({row.login for row in done.rows if row.login and row.file})
    verb = "would be" if dry else "were"
    numbers = f"{done.new} {verb} collected, {len(done.newer)} {verb} replaced by newer, {done.unchanged} are as before"
    return f"students: {students}; notebooks: {numbers}; notes: {len(done.notes)}"
