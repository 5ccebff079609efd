"""The command `coursework`. It works on the course tree in the current directory."""

from __future__ import annotations

import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer
from tqdm import tqdm

from coursework import cli_models, environment, running
from coursework._command_line import INTERRUPTED, PairsCommand, read_parameters, refuse

app = typer.Typer(help=__doc__, no_args_is_help=True, add_completion=False, pretty_exceptions_show_locals=False)
app.add_typer(cli_models.app)
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
Tree = Annotated[str, typer.Option(help="notebooks (as learners get them) or solutions")]
Timeout = Annotated[float, typer.Option(help="seconds that one cell may take")]
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
    store: Store = False,
) -> None:
    """Execute lessons, and say how each went."""
    options = {"tree": tree, "out": out, "jobs": jobs, "timeout": timeout, "store": store}
    try:
        outcomes = run_with_progress(here(), names or [], read_parameters(parameter or []), options)
    except running.RunError as error:
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


def run_with_progress(root: Path, names: list[str], parameters: dict[str, Any], options: dict) -> list[running.Outcome]:
    """Runs lessons with a line for each that is done, and a bar in a terminal."""
    with termination_interrupts(), tqdm(unit="lesson", disable=None, leave=False) as bar:

        def show(outcome: running.Outcome, n_lessons: int) -> None:
            bar.total = n_lessons
            bar.update()
            tqdm.write(f"{outcome.name}: {outcome.status}, {outcome.seconds:.1f} s {outcome.error}".rstrip())

        return running.run(root, names, parameters=parameters, on_outcome=show, **options)


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
