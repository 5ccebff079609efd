"""What the commands share: how they refuse, end and print, and -p NAME VALUE."""

from __future__ import annotations

import io
import os
import signal
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import IO, Any, NoReturn

import typer
from tqdm import tqdm
from typer.core import TyperCommand, TyperGroup

from coursework.course.lines import shown
from coursework.extras import lacking

REFUSED, INTERRUPTED, NOBODY_READS = 2, 130, 141


def say(line: str, file: IO[str] | None = None) -> None:
    """Prints a line beside a progress bar: what strangers named or wrote is in it, and nothing of it is obeyed.

    file: where to; the standard output where it is None.
    """
    tqdm.write(shown(line), file=file)


def refuse(*lines: str) -> NoReturn:
    """Ends the command with a message and status 2."""
    tell("\n".join(map(shown, lines)))
    raise typer.Exit(REFUSED)


def tell(message: str) -> None:
    """Says what the command itself has to say."""
    tqdm.write(f"coursework: {shown(message, keep=chr(10))}", file=sys.stderr)


def in_one_line(error: OSError) -> str:
    """What the system refused, and of which file."""
    reason = error.strerror or str(error) or type(error).__name__
    return f"{error.filename}: {reason}" if error.filename is not None else reason


class Commands(TyperGroup):
    """All commands. However one ends, it does so with at most one line, and no traceback but for a fault of its own.

    Status 2: refused, by the parser too, or the system refused a file. 130: Ctrl-C or SIGTERM. 141: nobody reads what
    it prints.
    """

    last_words = "interrupted"

    def main(self, args: Sequence[str] | None = None, **options: Any) -> NoReturn:
        """Runs a command and exits."""
        mend_streams()
        args = list(sys.argv[1:] if args is None else args) or ["--help"]
        try:
            status = super().main(args, **{**options, "standalone_mode": False})
        except typer.TyperException as error:  # of the parser
            tell(" ".join(error.format_message().split()))
            status = REFUSED
        if status == INTERRUPTED:  # in the command, or before it was known
            tell(self.last_words)
        sys.exit(status)

    def invoke(self, ctx: typer.Context) -> Any:
        """Runs a command."""
        try:
            with termination_interrupts():
                result = super().invoke(ctx)
            sys.stdout.flush()
            return result
        except KeyboardInterrupt as stop:
            self.last_words = str(stop) or self.last_words
            raise typer.Exit(INTERRUPTED) from None
        except BrokenPipeError:
            print_no_more()
            raise typer.Exit(NOBODY_READS) from None
        except OSError as error:
            print_no_more()
            refuse(in_one_line(error))
        except ModuleNotFoundError as error:
            if (error.name or "coursework").startswith("coursework"):
                raise
            refuse(str(lacking(error)))
        except RuntimeError as error:
            if "Symlink loop" not in str(error):  # Path.resolve's, before Python 3.13
                raise
            refuse(str(error))


def mend_streams() -> None:
    """Makes printing safe: a stream that is closed takes anything, and what an encoding lacks is an escape."""
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, mode))  # noqa: SIM115 (until the end)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def print_no_more() -> None:
    """Drops what standard output still holds and cannot get rid of: the interpreter would try again at its end."""
    try:
        sys.stdout.flush()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


@contextmanager
def termination_interrupts() -> Iterator[None]:
    """Makes SIGTERM end a command like Ctrl-C does, so that nothing of it is left behind."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


class PairsCommand(TyperCommand):
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
