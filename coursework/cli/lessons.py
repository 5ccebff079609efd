"""The commands around lessons: `coursework doctor`, `publish`, `edit`, `run` and `reset`."""

from __future__ import annotations

import sys
from collections.abc import Generator, Sequence
from contextlib import closing
from pathlib import Path
from typing import Annotated

import typer
from tqdm import tqdm

from coursework.cli.asked import here, parameters_of
from coursework.cli.terminal import PairsCommand, refuse, say
from coursework.course import running, workers
from coursework.course.lines import shown
from coursework.course.reports import ReportError, Reports
from coursework.course.tree import CourseError

app = typer.Typer()
MARKS = {"ok": "ok      ", "note": "note    ", "problem": "PROBLEM "}

Names = Annotated[list[str] | None, typer.Argument(help='lessons by number or name ("01", "01_score"); all if none')]
Out = Annotated[Path | None, typer.Option("--out", help="folder for the executed lessons [default: build/executed]")]
Pairs = Annotated[
    list[str] | None,
    typer.Option(
        "-p", "--parameter", metavar="NAME VALUE", help="replace a value of the `parameters` cell; repeatable"
    ),
]
Jobs = Annotated[int, typer.Option(min=1, help="lessons that run at the same time")]
Tree = Annotated[str, typer.Option(help="notebooks (as learners get them), solutions, or both")]
Timeout = Annotated[float, typer.Option(metavar="SECONDS", help="what one cell may take")]
LessonTimeout = Annotated[float, typer.Option(metavar="SECONDS", help="what one lesson may take")]
JUnit = Annotated[Path | None, typer.Option("--junit", metavar="FILE", help="write a report in JUnit's XML")]
Pages = Annotated[
    Path | None,
    typer.Option("--html", metavar="FOLDER", help="write a summary page, with each executed lesson as a page"),
]
Store = Annotated[bool, typer.Option("--store", help="write the outputs back (with --tree solutions)")]
Check = Annotated[bool, typer.Option("--check", help="write nothing; fail where notebooks/ are not up to date")]


@app.command()
def doctor() -> None:
    """Say what this machine can do, and how to mend what is wrong."""
    from coursework.course.doctor import diagnose

    findings = diagnose(here())
    for finding in findings:
        print(MARKS[finding.status] + shown(finding.text))
        if finding.status == "problem":
            print(f"{'':8}mend: {finding.mend}")
    raise typer.Exit(int(any(finding.status == "problem" for finding in findings)))


@app.command()
def publish(check: Check = False) -> None:
    """Write notebooks/ from solutions/."""
    from coursework.course import publishing

    root = here(complete=True)
    try:
        lines = publishing.out_of_sync(root) if check else publishing.publish(root)
    except CourseError as error:
        print(shown(str(error), keep="\n"), file=sys.stderr)
        raise typer.Exit(1) from None
    for line in lines:
        print(line.relative_to(root) if isinstance(line, Path) else line)
    raise typer.Exit(int(check and bool(lines)))


@app.command()
def edit(
    name: Annotated[str, typer.Argument(help="the lesson, by number or name")],
    save: Annotated[bool, typer.Option("--save", help="write the lesson from its text")] = False,
) -> None:
    """Write a worked lesson as text, to edit it; with --save, the lesson from its text.

    Needs the extra `instructor`.
    """
    from coursework.course import editing

    root = here(complete=True)
    try:
        path = editing.save_text(root, name) if save else editing.open_text(root, name)
    except CourseError as error:
        refuse(str(error))
    print(path.relative_to(root) if save else f"edit {path.relative_to(root)}, then: coursework edit {name} --save")


@app.command(cls=PairsCommand)
def run(
    names: Names = None,
    out: Out = None,
    parameter: Pairs = None,
    jobs: Jobs = 1,
    tree: Tree = "notebooks",
    timeout: Timeout = 300.0,
    lesson_timeout: LessonTimeout = 1800.0,
    store: Store = False,
    junit: JUnit = None,
    html: Pages = None,
) -> None:
    """Execute lessons, and say how each went."""
    try:
        tasks = running.plan(
            here(),
            names or [],
            tree=tree,
            out=out,
            parameters=parameters_of(parameter or []),
            pages=html,
            store=store,
            timeout=timeout,
            lesson_timeout=lesson_timeout,
        )
        reports = Reports(tasks, junit, html)
    except (CourseError, ReportError) as error:
        refuse(*str(error).split("\n"))
    try:
        outcomes, problem = run_with_progress(tasks, workers.execute_all(tasks, min(jobs, len(tasks))), reports)
    except KeyboardInterrupt:
        raise KeyboardInterrupt("interrupted; no kernel is left running") from None
    print("\n" + shown(running.summary(outcomes), keep="\n"))
    if problem:
        refuse(problem)
    raise typer.Exit(int(any(outcome.error for outcome in outcomes)))


def run_with_progress(
    tasks: Sequence[running.Task], done: Generator[running.Outcome], reports: Reports
) -> tuple[list[running.Outcome], str]:
    """Runs lessons with a line for each that is done, a bar in a terminal, and reports that are always up to date.

    Returns the outcomes, and why the last reports could not be written ("" if they are).
    """
    outcomes, problem = [], ""
    with closing(done), tqdm(total=len(tasks), unit="lesson", disable=None, leave=False) as bar:
        for outcome in done:
            outcomes.append(outcome)
            problem = reports.write(outcomes)
            bar.update()
            name = running.label(outcome.task, tasks)
            say(f"{name}: {outcome.status}, {outcome.seconds:.1f} s {outcome.error}".rstrip())
    return outcomes, problem


@app.command()
def reset(name: Annotated[str, typer.Argument(help="the lesson, by number or name")]) -> None:
    """Put a fresh student copy of a lesson in place; the old one is kept beside it."""
    from coursework.course import publishing

    try:
        path, kept = publishing.reset(here(), name)
    except CourseError as error:
        refuse(*str(error).split("\n"))
    print(f"{path.relative_to(Path.cwd())} is fresh" + (f"; yours is now {kept.name}" if kept else ""))
