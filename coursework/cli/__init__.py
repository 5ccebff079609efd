"""The command `coursework`. It works on the course tree in the current directory."""

import typer

from coursework.cli import checking, collecting, grading, lessons, models
from coursework.cli.terminal import Commands

app = typer.Typer(cls=Commands, help=__doc__, add_completion=False, pretty_exceptions_show_locals=False)
for room in (lessons, models, grading, collecting, checking):
    app.add_typer(room.app)
