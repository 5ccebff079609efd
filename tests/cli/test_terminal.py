"""Every option of every command with values that make no sense, and streams and signals at their worst.

Commands and options are found in the program itself: a new one is in these tests without being listed.
"""

import os
import signal
import subprocess
import sys
import types
import typing
from dataclasses import replace
from pathlib import Path

import nbformat
import pytest
import torch
import typer
from nbformat import v4
from typer.testing import CliRunner

from coursework import __main__, models
from coursework.cli import app, terminal
from coursework.course import publishing, workers
from coursework.course.running import Outcome
from coursework.course.tree import TREES
from coursework.models import evaluation, generation, training
from coursework.models.recipes import RECIPES
from tests.helpers import ROOT

pytestmark = pytest.mark.usefixtures("one_thread")

COMMANDS = typer.main.get_command(app).commands
SMALL = {"widths": (8,), "attention_at": (), "n_classes": 10, "features": 16}
RECIPE = replace(RECIPES["digits-vp"], n_steps=1, batch_size=8, network=SMALL)

# What a command needs so that it has little to do; another one gets a folder or a name for each argument.
ENOUGH = {
    "train": {"recipe": "small.json"},
    "sample": {"name": "small.safetensors", "n": "2", "steps": "1"},
    "evaluate": {"name": "small.safetensors", "n": "10", "steps": "1"},
    "reset": {"name": "00"},
}
SUFFIXES = {("sample", "out"): ".png", ("evaluate", "out"): ".json", ("run", "junit"): ".xml"}
NUMBERS = ["-1", "0", "nan", "inf", "1e400", str(10**30), "1.5", "", "x", "\u0663"]
TEXTS = ["", "x", "\x1b[31m", "a\nb", "..", "-", "\u00e9\udce9", "9" * 5000]
PATHS = ["", ".", "/", "file", "file/inside", "x" * 5000, "a\nb/\x1b[31m", "\udce9", "loop", "/proc/none/x", "none"]


def options():
    """Command and name of every option and argument that takes a value."""
    return [(c, p.name) for c, command in COMMANDS.items() for p in command.params if not getattr(p, "is_flag", False)]


def parameter(command, name):
    return next(p for p in COMMANDS[command].params if p.name == name)


def kind(command, name):
    """The type that an option has in the function behind the command."""
    functions = {f.name or f.callback.__name__.replace("_", "-"): f.callback for f in app.registered_commands}
    for group in app.registered_groups:
        registered = group.typer_instance.registered_commands
        functions |= {f.name or f.callback.__name__.replace("_", "-"): f.callback for f in registered}
    hint = typing.get_type_hints(functions[command])[name]
    kinds = {int, float, Path, str} & {hint, *typing.get_args(hint), *map(_inner, typing.get_args(hint))}
    assert len(kinds) == 1, (command, name, hint)
    return kinds.pop()


def _inner(hint):
    return next(iter(typing.get_args(hint)), None)


def values(command, name):
    if kind(command, name) in (int, float):
        return NUMBERS
    if kind(command, name) is str:
        return TEXTS
    return [value + SUFFIXES.get((command, name), "") for value in PATHS]


def arguments(command, name, value):
    """The command with one value that makes no sense, and enough beside it."""
    given, filler = {**ENOUGH.get(command, {}), name: value}, {Path: "there", str: "00", int: "1", float: "1"}
    line, words = [command], []
    for p in COMMANDS[command].params:
        if p.name in given or p.required:
            text = given.get(p.name, filler[kind(command, p.name)] if p.required else "")
            if p.param_type_name == "argument":
                words.append(text)
            else:
                line += [p.opts[0], "seed", text] if p.name == "parameter" else [p.opts[0], text]
    return [*line, "--", *words]


@pytest.fixture(scope="module")
def course(tmp_path_factory):
    """A course tree of one lesson, with a small model that learnt nothing."""
    root = tmp_path_factory.mktemp("course")
    for tree in TREES:
        (root / tree).mkdir()
        tagged = v4.new_code_cell("seed = 0", id="a", metadata={"tags": ["parameters"]})
        nbformat.write(v4.new_notebook(cells=[tagged]), root / tree / "00_a.ipynb")
    (root / "there").mkdir()
    (root / "file").write_text("no folder")
    (root / "loop").symlink_to("loop")
    (root / "small.json").write_text(RECIPE.to_json())
    models.save_trained(models.make(RECIPE), RECIPE, root / "small.safetensors")
    return root


@pytest.fixture
def call(course, monkeypatch):
    """Runs a command in the course tree, where no lesson is executed and nothing computed for long."""
    monkeypatch.chdir(course)
    monkeypatch.setattr(training, "_train", lambda run, *options: run.finish())
    monkeypatch.setattr(generation, "in_shares", lambda function, items, *options: [torch.zeros(len(items), 1, 8, 8)])
    monkeypatch.setattr(evaluation, "_features", lambda _, images, __: (torch.zeros(len(images), 2),) * 2)
    monkeypatch.setattr(workers, "execute_all", lambda tasks, jobs: (Outcome(task, 1.0) for task in tasks))
    monkeypatch.setattr(
        publishing, "student_text", lambda root, name: (root / "notebooks" / f"{name}.ipynb").read_text()
    )
    return lambda *arguments: CliRunner().invoke(app, list(arguments))


def refused(result):
    """What is wrong with how a command ended, or nothing."""
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        return repr(result.exception)
    if result.exit_code not in (0, 1, 2) or "Traceback" in result.output:
        return f"status {result.exit_code}: {result.output}"
    lines = result.stderr.splitlines()
    if result.exit_code == 2 and (not lines or not lines[-1].startswith("coursework: ") or "\x1b" in result.stderr):
        return f"refused by {lines}"
    if result.exit_code == 2 and len([line for line in lines if not line.startswith("note: ")]) != 1:
        return f"refused in more than a line: {lines}"
    return None


@pytest.mark.parametrize(("command", "name"), options())
def test_values_that_make_no_sense_end_in_one_line(call, command, name):
    before = {path: path.read_bytes() for path in Path("notebooks").iterdir()}
    for value in values(command, name):
        result = call(*arguments(command, name, value))
        assert refused(result) is None, f"{value[:50]!r}: {refused(result)}"
        if kind(command, name) in (int, float) and value in ("", "x", "nan"):
            assert result.exit_code == 2, f"{value!r} is taken"
            assert name in result.stderr.replace("-", "_"), f"{value!r}: the option is not named: {result.stderr}"
    left = [path.name for path in Path().rglob(f".*.{os.getpid()}")]
    assert left == [], "a write was begun and not ended"
    assert {path: path.read_bytes() for path in Path("notebooks").iterdir()} == before


# how a command ends


TINY = """
import errno, os, signal, sys, typer
from coursework.cli.terminal import Commands, refuse, say

tiny = typer.Typer(cls=Commands)
ENDS = {
    "read-only": OSError(errno.EROFS, "Read-only file system", "course\\n/notebooks"),
    "full": OSError(errno.ENOSPC, "No space left on device"),
    "interrupted": KeyboardInterrupt(),
    "stopped": KeyboardInterrupt("stopped after step 3"),
    "nobody reads": BrokenPipeError(errno.EPIPE, "Broken pipe"),
    "loop": RuntimeError("Symlink loop from 'a'"),
    "seven": typer.Exit(7),
    "fault": ZeroDivisionError("division by zero"),
}

@tiny.command()
def end(how: str, number: int = 0):
    if how == "terminated":
        os.kill(os.getpid(), signal.SIGTERM)
    elif how == "refused":
        refuse("first\\x1b[31m", "second")
    else:
        raise ENDS[how]

@tiny.command()
def talk(lines: int):
    for i in range(lines):
        print("Jos\u00e9", i)
    say("Jos\\udce9")

if __name__ == "__main__":
    tiny()
"""


@pytest.fixture(scope="module")
def tiny():
    """A program of two commands that ends in every way."""
    names = {"__name__": "tiny"}
    exec(TINY, names)
    return names["tiny"]


@pytest.mark.parametrize(
    ("arguments", "status", "error"),
    [
        (["end", "read-only"], 2, "coursework: course\\x0a/notebooks: Read-only file system\n"),
        (["end", "full"], 2, "coursework: No space left on device\n"),
        (["end", "loop"], 2, "coursework: Symlink loop from 'a'\n"),
        (["end", "interrupted"], 130, "coursework: interrupted\n"),
        (["end", "stopped"], 130, "coursework: stopped after step 3\n"),
        (["end", "terminated"], 130, "coursework: interrupted\n"),
        (["end", "nobody reads"], 141, ""),
        (["end", "refused"], 2, "coursework: first\\x1b[31m\nsecond\n"),
        (["end", "seven"], 7, ""),
        (["end", "seven", "--number", "x"], 2, "coursework: Invalid value for '--number': "),
        (["end", "seven", "--numbr", "1"], 2, "coursework: No such option: --numbr"),
        (["end"], 2, "coursework: Missing argument 'how'"),
        (["ende"], 2, "coursework: No such command 'ende'. Did you mean 'end'?\n"),
        ([], 0, ""),
        (["talk", "1"], 0, ""),
    ],
    ids=str,
)
def test_a_command_ends_with_its_status_and_at_most_one_line(tiny, arguments, status, error):
    before = signal.getsignal(signal.SIGTERM)
    result = CliRunner().invoke(tiny, arguments)
    assert (result.exit_code, result.stderr[: len(error)]) == (status, error)
    assert len(result.stderr.splitlines()) == len(error.splitlines())
    assert ("Usage" in result.stdout) == (not arguments)
    assert signal.getsignal(signal.SIGTERM) is before


def test_a_fault_of_the_program_itself_is_not_hidden(tiny):
    with pytest.raises(ZeroDivisionError):
        CliRunner().invoke(tiny, ["end", "fault"], catch_exceptions=False)


def test_all_commands_end_that_way():
    assert type(typer.main.get_command(app)) is terminal.Commands


@pytest.mark.skipif(os.name == "nt", reason="needs a POSIX shell")
@pytest.mark.parametrize(
    ("shell", "status", "output"),
    [
        ("{} talk 3 >&-", 0, ""),
        ("{} talk 3 2>&-", 0, "Jos\u00e9 0\nJos\u00e9 1\nJos\u00e9 2\nJos\\xe9\n"),
        ("{} talk 3 <&- >&- 2>&-", 0, ""),
        ("{} end refused >&- 2>&-", 2, ""),
        ("set -o pipefail; {} talk 99999 | head -1", 141, "Jos\u00e9 0\n"),
        ("PYTHONIOENCODING=ascii {} talk 1", 0, "Jos\\xe9 0\nJos\\xe9\n"),
        ("{} talk 99999 > /dev/full", 2, "coursework: No space left on device\n"),
        ("{} talk 1 > /dev/full", 2, "coursework: No space left on device\n"),
    ],
)
def test_streams_at_their_worst(tmp_path, shell, status, output):
    if "/dev/full" in shell and not Path("/dev/full").exists():
        pytest.skip("this system has no /dev/full")
    (tmp_path / "tiny.py").write_text(TINY, encoding="utf-8")
    command = shell.format(f"'{sys.executable}' '{tmp_path / 'tiny.py'}'")
    environ = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONUTF8": "1"}
    options = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "encoding": "utf-8"}
    done = subprocess.run(["bash", "-c", command], env=environ, check=False, **options)
    assert (done.returncode, done.stdout) == (status, output)


def test_an_interrupt_while_a_line_is_parsed_is_one_line(tiny, monkeypatch):
    def interrupted(*arguments, **options):
        raise KeyboardInterrupt

    monkeypatch.setattr(terminal.Commands, "make_context", interrupted)
    result = CliRunner().invoke(tiny, ["talk", "1"])
    assert (result.exit_code, result.stderr) == (130, "coursework: interrupted\n")


def test_an_interrupt_while_the_program_is_loaded_is_one_line(monkeypatch, capsys):
    class Loading(types.ModuleType):
        def __getattr__(self, name):
            raise KeyboardInterrupt

    monkeypatch.setitem(sys.modules, "coursework.cli", Loading("coursework.cli"))
    with pytest.raises(SystemExit) as end:
        __main__.main()
    assert (end.value.code, capsys.readouterr().err) == (130, "coursework: interrupted\n")
