"""The command `coursework check-submission`: a dry run of grading, for learners."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from coursework.cli.asked import here
from coursework.cli.terminal import refuse, say
from coursework.course.tree import CourseError

app = typer.Typer()


@app.command("check-submission")
def check_submission(file: Annotated[Path, typer.Argument(help="the notebook that you want to hand in")]) -> None:
    """Say what grading finds in your notebook: each exercise, the derivations, and what is odd.

    It reads the file as grading does, so save first. The numbers are those of the checks in the notebook; grading takes
    others.
    """
    from coursework.grading.dry_run import check_file, known_lessons
    from coursework.grading.handin import HandInError

    try:
        for line in check_file(file, known_lessons(here())):
            say(line)
    except CourseError as error:
        refuse(str(error))
    except HandInError as error:
        refuse(f"{file}: {error}")
