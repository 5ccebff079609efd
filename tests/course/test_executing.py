"""One lesson's execution, with a papermill that runs no kernel: what goes wrong, and what is said and kept of it."""

import errno
import json
import math
import os

import nbformat
import papermill
import pytest
from nbclient.exceptions import CellTimeoutError, DeadKernelError
from nbformat import v4
from papermill import PapermillExecutionError

from coursework import _files
from coursework.course import executing, notebooks, pages
from coursework.course.executing import LONGEST, cell_limit, execute
from coursework.course.running import Task


@pytest.fixture
def task(tmp_path):
    """A lesson of two cells, with results of an earlier run."""
    places = {name: tmp_path / name for name in ("solutions", "out", "pages")}
    for folder in places.values():
        folder.mkdir()
    source = places["solutions"] / "01_a.ipynb"
    cells = [v4.new_code_cell(code, id=code) for code in ("first", "second")]
    nbformat.write(v4.new_notebook(cells=cells), source)
    for left in (places["out"] / source.name, places["pages"] / "01_a.html"):
        left.write_text("of an earlier run")
    return Task(source, places["out"] / source.name, {}, 300, 1800, places["pages"] / "01_a.html", store=True)


class Papermill:
    """Runs no kernel: prints "ran" in every cell, then raises `problem` if there is one, in the cell of that index."""

    def __init__(self, problem=None, at=1):
        self.problem, self.at, self.options = problem, at, {}

    def __call__(self, notebook, output, parameters, *, executed, **options):
        self.options = options
        assert output is None
        notebook.metadata["papermill"] = {}
        executed.append(notebook)
        for i, cell in enumerate(notebook.cells[: self.at + 1]):
            cell.metadata["papermill"] = {"start_time": "now"}
            cell.execution_count = i + 1
            cell.outputs = [v4.new_output("stream", name="stdout", text="ran\n")]
        if self.problem:
            raise self.problem


@pytest.fixture
def papermill_that(monkeypatch):
    """Puts a papermill in place of the real one."""

    def put(*arguments):
        fake = Papermill(*arguments)
        monkeypatch.setattr(papermill, "execute_notebook", fake)
        return fake

    return put


def printed(path):
    return [o["text"] for c in notebooks.read(path, mend_ids=True).cells for o in c.outputs]


def files(task):
    return sorted(p.name for folder in (task.output.parent, task.page.parent) for p in folder.iterdir())


def test_a_lesson_that_ran_is_in_all_its_places(task, papermill_that):
    papermill_that()
    ran = []
    outcome = execute(task, lambda outcome: ran.append((outcome.status, files(task))))
    assert (outcome.status, outcome.error) == ("ok", "")
    assert ran == [("ok", [])], "told before anything is written"
    assert printed(task.output) == printed(task.source) == ["ran\n", "ran\n"]
    assert "ran" in task.page.read_text()
    facts = nbformat.read(task.output, as_version=4).metadata.papermill
    assert (facts.input_path, facts.output_path) == ("01_a.ipynb", "01_a.ipynb")


def execution_error(**changes):
    facts = {"ename": "ZeroDivisionError", "evalue": "division by zero", "traceback": ["a\n\x1b[31mb\x1b[0m"]}
    return PapermillExecutionError(0, 2, "second", **{**facts, **changes})


@pytest.mark.parametrize(
    ("problem", "error", "details"),
    [
        (execution_error(), "cell [2]: ZeroDivisionError: division by zero", "cell [2]:\nsecond\n\na\nb"),
        (execution_error(evalue="e" * 10**6), f"cell [2]: ZeroDivisionError: {'e' * 300}...", "cell [2]:"),
        (execution_error(evalue=""), "cell [2]: ZeroDivisionError: ", "cell [2]:"),
        (CellTimeoutError("late"), "cell [2]: took more than 300 s", "cell [2]:\nsecond\n\ntook more than 300 s"),
        (DeadKernelError("Kernel died"), "cell [2]: DeadKernelError: Kernel died", "cell [2]:"),
        (RuntimeError("Kernel didn't respond in 60 seconds"), "cell [2]: RuntimeError: Kernel didn't", "cell [2]:"),
        (OSError(errno.ENOMEM, "Cannot allocate memory"), "cell [2]: Cannot allocate memory", "cell [2]:"),
    ],
    ids=lambda value: repr(value)[:40],
)
def test_the_reason_is_that_of_the_cell_and_what_ran_is_kept(task, papermill_that, problem, error, details):
    before = task.source.read_bytes()
    papermill_that(problem)
    outcome = execute(task)
    assert outcome.error.startswith(error)
    assert outcome.details.startswith(details)
    assert len(outcome.details) < 50_000
    assert printed(task.output) == ["ran\n", "ran\n"]
    assert "ran" in task.page.read_text()
    assert task.source.read_bytes() == before, "nothing of a lesson that failed is stored"


def test_a_lesson_that_is_late_as_a_whole_says_so(task, papermill_that, monkeypatch):
    papermill_that(CellTimeoutError("late"))
    ticks = iter([0.0, 1800.5, 1801.0])
    monkeypatch.setattr(executing.time, "perf_counter", lambda: next(ticks))
    outcome = execute(task)
    assert (outcome.error, outcome.seconds) == ("cell [2]: the lesson took more than 1800 s", 1801.0)


def full(temporary, path):
    """A write that the system refuses, as on a full disk."""
    raise OSError(errno.ENOSPC, "No space left on device")


@pytest.mark.parametrize("what", ["out", "pages", "solutions"])
def test_a_result_that_cannot_be_written_fails_the_lesson_with_the_reason(task, papermill_that, monkeypatch, what):
    papermill_that()
    replace, before = os.replace, task.source.read_bytes()
    monkeypatch.setattr(
        _files.os, "replace", lambda temporary, path: (full if path.parent.name == what else replace)(temporary, path)
    )
    outcome = execute(task)
    wanted = {"out": task.output, "pages": task.page, "solutions": task.source}[what]
    assert outcome.error == f"No space left on device: {wanted}"
    there = {"out": [], "pages": ["01_a.ipynb"], "solutions": ["01_a.html", "01_a.ipynb"]}[what]
    assert files(task) == there, "nothing half-written, and nothing of an earlier run"
    assert task.source.read_bytes() == before


def test_what_failed_first_is_the_reason_on_a_full_disk_too(task, papermill_that, monkeypatch):
    papermill_that(execution_error())
    monkeypatch.setattr(_files.os, "replace", full)
    assert execute(task).error == "cell [2]: ZeroDivisionError: division by zero"


def test_a_page_that_cannot_be_made_fails_the_lesson_with_the_reason(task, papermill_that, monkeypatch):
    papermill_that()
    monkeypatch.setattr(pages, "page", lambda *arguments: 1 / 0)
    assert execute(task).error == "ZeroDivisionError: division by zero"
    assert files(task) == ["01_a.ipynb"]


def test_where_a_folder_is_in_the_place_of_the_result_the_lesson_fails_and_says_so(task, papermill_that):
    papermill_that()
    task.output.unlink()
    task.output.mkdir()
    assert execute(task).error == f"Is a directory: {task.output}"


def test_limits_that_no_timer_takes_are_given_as_ones_that_it_takes(task, papermill_that):
    fake = papermill_that()
    execute(Task(task.source, task.output, {}, math.inf, math.inf))
    client = fake.options["client"]
    assert client["timeout_func"](None) == LONGEST
    assert client["iopub_timeout"] == LONGEST + 1
    assert fake.options["start_timeout"] == 60
    execute(Task(task.source, task.output, {}, 5, 7))
    assert fake.options["start_timeout"] == 7
    execute(Task(task.source, task.output, {}, 5, 0.2))
    assert (fake.options["start_timeout"], type(fake.options["start_timeout"])) == (1, int), "nbclient takes whole ones"
    execute(Task(task.source, task.output, {}, 5, 9e9))
    assert fake.options["client"]["timeout_func"](None) == 5


def test_a_cell_has_what_is_left_of_the_lessons_time():
    task = Task(None, None, {}, 5, 7)
    assert [cell_limit(task, seconds) for seconds in (0, 3, 6, 7, 100)] == [5, 4, 1, 0.1, 0.1]


# what is no lesson


def changed(edit):
    """A notebook of one cell, changed, as a file's content."""
    notebook = json.loads(nbformat.writes(v4.new_notebook(cells=[v4.new_code_cell("1", id="a")])))
    edit(notebook)
    return json.dumps(notebook).encode()


NO_LESSONS = {
    "empty": (b"", "no valid notebook: Notebook does not appear to be JSON: ''"),
    "cut off": (b'{"cells": [', "no valid notebook: Notebook does not appear to be JSON"),
    "a list": (b"[]", "no valid notebook: 'list' object"),
    "null": (b"null", "no valid notebook: 'NoneType' object"),
    "nested": (b"[" * 100_000, "no valid notebook: maximum recursion depth exceeded"),
    "latin-1": (b'{"\xe9": 1}', "no valid notebook: 'utf-8' codec can't decode byte 0xe9"),
    "id null": (changed(lambda n: n["cells"][0].update(id=None)), "no valid notebook: ['cells'][0]['id']: None is not"),
    "id 7": (changed(lambda n: n["cells"][0].update(id=7)), "no valid notebook: ['cells'][0]['id']: 7 is not of type"),
    "cells null": (changed(lambda n: n.update(cells=None)), "no valid notebook: 'NoneType' object is not iterable"),
    "format 99": (changed(lambda n: n.update(nbformat=99)), "no valid notebook: Unsupported nbformat version 99"),
    "format 3": (changed(lambda n: n.update(nbformat=3)), "no valid notebook: it: The notebook is invalid"),
    "metadata null": (changed(lambda n: n.update(metadata=None)), "no valid notebook: it: The notebook is invalid"),
    "source null": (changed(lambda n: n["cells"][0].update(source=None)), "no valid notebook: ['cells'][0]['source']"),
    "a cell": (changed(lambda n: n["cells"][0].update(cell_type="x")), "no valid notebook: ['cells'][0]: "),
}


@pytest.mark.parametrize(("content", "error"), NO_LESSONS.values(), ids=NO_LESSONS)
def test_what_is_no_notebook_says_why_and_leaves_nothing(task, content, error):
    task.source.write_bytes(content)
    outcome = execute(task)
    assert outcome.error.startswith(error)
    assert "\n" not in outcome.error
    assert len(outcome.error) < 400
    assert files(task) == []


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="there are no pipes in this system's folders")
@pytest.mark.parametrize(
    ("make", "error"),
    [
        (os.mkdir, "it is a folder"),
        (os.mkfifo, "it is no file"),
        (lambda path: os.symlink("nowhere", path), "No such file or directory"),
        (lambda path: os.symlink(path.name, path), "Too many levels of symbolic links"),
        (lambda path: None, "No such file or directory"),
    ],
    ids=["folder", "pipe", "dangling link", "loop", "nothing"],
)
def test_what_is_no_file_says_so_at_once(task, make, error):
    task.source.unlink()
    make(task.source)
    assert execute(task).error == error


@pytest.mark.parametrize("edit", [lambda cells: cells[1].update(id="first"), lambda cells: cells[1].pop("id")])
def test_ids_that_jupyter_mends_do_not_stop_a_lesson_but_are_not_stored(task, papermill_that, edit):
    papermill_that()
    notebook = json.loads(task.source.read_text())
    edit(notebook["cells"])
    task.source.write_text(json.dumps(notebook))
    outcome = execute(task)
    assert printed(task.output) == ["ran\n", "ran\n"]
    assert "cell id" in outcome.error or "missing an id" in outcome.error
    assert printed(task.source) == []


def test_half_of_a_pair_of_utf_16_is_written_and_read_again(tmp_path):
    notebook = v4.new_notebook(cells=[v4.new_markdown_cell("\ud83d and \U0001f600 and \u00e9", id="a")])
    notebooks.write(tmp_path / "a.ipynb", notebook)
    assert notebooks.read(tmp_path / "a.ipynb").cells[0].source == "\ud83d and \U0001f600 and \u00e9"
