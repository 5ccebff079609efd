"""The command `coursework`. It works on the course tree in the current directory."""

from __future__ import annotations

import signal
import sys
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Annotated

import typer
from tqdm import tqdm

from coursework import cli_grading, cli_models, environment, running
from coursework._command_line import INTERRUPTED, PairsCommand, forgiving_output, read_parameters, refuse
from coursework.run_reports import ReportError, Reports

app = typer.Typer(
    help=__doc__,
    callback=forgiving_output,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_show_locals=False,
)
app.add_typer(cli_models.app)
app.add_typer(cli_grading.app)
MARKS = {"ok": "ok      ", "note": "note    ", "problem": "PROBLEM "}

Names = Annotated[list[str] | None, typer.Argument(help='lessons by number or name ("01", "01_score"); all if none')]
Out = Annotated[Path | None, typer.Option("--out", help="folder for the executed lessons [default: build/executed]")]
Pairs = Annotated[
    list[str] | None,
    typer.Option(
        "-p", "--parameter", metavar="NAME VALUE", help="replace a value of the `parameters` cell; repeatable"
    ),
]
Jobs = Annotated[int, typer.Option(help="lessons that run at the same time")]
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


def here() -> Path:
    """Returns the course tree in the current directory, or ends the command."""
    try:
        return running.course_tree(Path.cwd())
    except running.RunError as error:
        refuse(str(error))


@app.command()
def doctor() -> None:
    """Say what this machine can do, and how to mend what is wrong."""
    findings = environment.diagnose(here())
    for finding in findings:
        print(MARKS[finding.status] + finding.text)
        if finding.status == "problem":
            print(f"{'':8}mend: {finding.mend}")
    raise typer.Exit(int(any(finding.status == "problem" for finding in findings)))


@app.command()
def publish(check: Check = False) -> None:
    """Write notebooks/ from solutions/."""
    from coursework import publishing

    root = here()
    try:
        lines = publishing.out_of_sync(root) if check else publishing.publish(root)
    except publishing.PublishError as error:
        print(error, file=sys.stderr)
        raise typer.Exit(1) from None
    for line in lines:
        print(line.relative_to(root) if isinstance(line, Path) else line)
    raise typer.Exit(int(check and bool(lines)))


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
    limits = {"timeout": timeout, "lesson_timeout": lesson_timeout}
    parameters = read_parameters(parameter or [])
    try:
        tasks = running.plan(here(), names or [], tree=tree, out=out, parameters=parameters, **limits)
        outcomes = run_with_progress(tasks, running.run(tasks, jobs, store), Reports(tasks, junit, html))
    except (running.RunError, ReportError) as error:
        refuse(str(error))
    except KeyboardInterrupt:
        print("coursework: interrupted; no kernel is left running", file=sys.stderr)
        raise typer.Exit(INTERRUPTED) from None
    print("\n" + running.summary(outcomes))
    raise typer.Exit(int(any(outcome.error for outcome in outcomes)))


@contextmanager
def termination_interrupts() -> Iterator[None]:
    """Makes SIGTERM end a run like Ctrl-C does, so that no kernel is left behind."""
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def run_with_progress(
    tasks: Sequence[running.Task], done: Iterator[running.Outcome], reports: Reports
) -> list[running.Outcome]:
    """Runs lessons with a line for each that is done, a bar in a terminal, and reports that are always up to date."""
    outcomes = []
    with (
        termination_interrupts(),
        closing(done),
        tqdm(total=len(tasks), unit="lesson", disable=None, leave=False) as bar,
    ):
        for outcome in done:
            outcomes.append(outcome)
            reports.write(outcomes)
            bar.update()
            name = running.label(outcome.task, tasks)
            tqdm.write(f"{name}: {outcome.status}, {outcome.seconds:.1f} s {outcome.error}".rstrip())
    return outcomes


@app.command()
def reset(name: Annotated[str, typer.Argument(help="the lesson, by number or name")]) -> None:
    """Put a fresh student copy of a lesson in place; the old one is kept beside it."""
    from coursework import publishing

    try:
        path, kept = running.reset(here(), name)
    except (running.RunError, publishing.PublishError) as error:
        refuse(str(error))
    print(f"{path.relative_to(Path.cwd())} is fresh" + (f"; yours is now {kept.name}" if kept else ""))


if __name__ == "__main__":
    app()
