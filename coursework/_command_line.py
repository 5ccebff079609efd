"""What the commands share: one-line refusals, and -p NAME VALUE."""

from __future__ import annotations

import io
import sys
from typing import IO, Any, NoReturn

import typer
from tqdm import tqdm

from coursework import run_parameters
from coursework._names import shown

REFUSED, INTERRUPTED = 2, 130


def say(line: str, file: IO[str] | None = None) -> None:
    """Prints a line beside a progress bar: what strangers named or wrote is in it, and nothing of it is obeyed.

    file: where to; the standard output where it is None.
    """
    tqdm.write(shown(line), file=file)


def forgiving_output() -> None:
    """Lets the terminal's encoding refuse no character: what it lacks is written out."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def refuse(message: str) -> NoReturn:
    """Ends the command with a message and status 2."""
    say(f"coursework: {message}", sys.stderr)
    raise typer.Exit(REFUSED)


class PairsCommand(typer.core.TyperCommand):
    """A command whose -p takes two values, NAME VALUE, as papermill's does."""

    def parse_args(self, ctx: typer.Context, args: list[str]) -> list[str]:
        """Joins each NAME VALUE to NAME=VALUE before the arguments are parsed."""
        return super().parse_args(ctx, join_pairs(args))


def join_pairs(args: list[str]) -> list[str]:
    """Replaces "-p", NAME, VALUE by "-p", NAME=VALUE; a pair that lacks its value stays as it is."""
    joined, rest = [], list(args)
    while rest:
        joined.append(rest.pop(0))
        if joined[-1] in ("-p", "--parameter") and len(rest) > 1:
            joined.append(f"{rest.pop(0)}={rest.pop(0)}")
    return joined


def read_parameters(pairs: list[str]) -> dict[str, Any]:
    """Turns NAME=VALUE pairs into parameters, or ends the command."""
    for pair in pairs:
        if not pair.partition("=")[0].isidentifier() or "=" not in pair:
            refuse(f"-p takes a name and a value (-p seed 1), got {pair!r}")
    return {name: run_parameters.parse_value(value) for name, _, value in (pair.partition("=") for pair in pairs)}
