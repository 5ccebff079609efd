"""One lesson, executed: what a process of `coursework run` does, and what it says of how it went."""

from __future__ import annotations

import logging
import re
import time
from collections.abc import Callable, Iterator
from dataclasses import replace

import papermill
from nbclient.exceptions import CellTimeoutError
from nbformat import NotebookNode
from papermill import PapermillExecutionError

from coursework.course import notebooks, outputs, pages
from coursework.course.lines import begin, first_line
from coursework.course.running import Outcome, Task

ESCAPES = re.compile(r"\x1b\[[0-9;]*[A-Za-z]")  # colours in a traceback
LAST_LINES, LONG_LINE, LONG_CELL = 20, 2000, 20_000  # of an error, and characters, in an outcome's details
VERDICT = re.compile(r"^\S Exercise \S+ .*: (passed|not attempted|wrong)$", re.MULTILINE)
QUIET_KERNEL = ["--IPKernelApp.log_level=50"]  # its log would go to the terminal; a cell's errors are in the lesson
START = 60  # seconds that a kernel may take to start
LONGEST = 10_000_000  # seconds: timers take no more

logging.getLogger("papermill").addHandler(logging.NullHandler())  # what it logs is in the outcomes


def execute(task: Task, ran: Callable[[Outcome], None] = lambda outcome: None) -> Outcome:
    """Executes one lesson in a fresh kernel, in the lesson's own folder, and writes the result, complete or failed.

    Whatever goes wrong with the lesson, or with writing what it gave, is in the outcome and not raised. No file is half
    written, and none is left of an earlier run. `ran` gets the outcome of the cells, before anything is written.
    """
    started, executed, problem = time.perf_counter(), [], None
    try:
        for left in (task.output, task.page):  # of an earlier run
            if left is not None:
                left.unlink(missing_ok=True)
        run_notebook(task, started, executed)
    except Exception as error:
        problem = error
    outcome = Outcome(task, time.perf_counter() - started, reason(problem) if problem else "")
    if executed:
        outcome = describe(count_checks(outcome, executed[0]), executed[0], problem)
        ran(outcome)
        outcome = keep(outcome, executed[0])
    return replace(outcome, seconds=time.perf_counter() - started)


def run_notebook(task: Task, started: float, executed: list[NotebookNode]) -> None:
    """Runs a lesson's cells by papermill; `executed` gets the notebook, also where a cell fails."""
    client = {
        "timeout_func": lambda cell: cell_limit(task, time.perf_counter() - started),
        "iopub_timeout": int(min(task.timeout, task.lesson_timeout, LONGEST)) + 1,  # for what is printed, but not read
        "extra_arguments": list(QUIET_KERNEL),
    }
    papermill.execute_notebook(
        notebooks.read(task.source, mend_ids=True),
        None,
        dict(task.parameters),
        engine_name=outputs.ENGINE,
        kernel_name="python3",
        language="python",
        progress_bar=False,
        start_timeout=int(max(1, min(START, task.lesson_timeout))),
        cwd=task.source.parent,
        executed=executed,
        client=client,
    )


def cell_limit(task: Task, seconds: float) -> float:
    """Returns how long the next cell may take where the lesson has taken this many seconds."""
    return min(task.timeout, max(task.lesson_timeout - seconds, 0.1), LONGEST)  # 0 would mean: no limit


def reason(problem: Exception) -> str:
    """Returns why something failed, in one line."""
    if isinstance(problem, notebooks.NotebookError):
        return str(problem)
    if isinstance(problem, OSError) and problem.strerror:
        return f"{problem.strerror}: {problem.filename}" if problem.filename else problem.strerror
    return f"{type(problem).__name__}: {first_line(problem)}"


def keep(outcome: Outcome, notebook: NotebookNode) -> Outcome:
    """Writes what a lesson gave to all the places where it belongs; the first that cannot be written is the reason."""
    task = outcome.task
    notebook.metadata.papermill.update(input_path=task.source.name, output_path=task.output.name)
    try:
        notebooks.write(task.output, notebook)
        if task.page is not None:
            pages.write(task.page, notebook)
        if task.store and outcome.status == "ok":
            notebooks.store_outputs(task.source, notebook)
    except Exception as error:  # nbconvert fails in many ways on what a cell displayed
        return outcome.failed(reason(error))
    return outcome


def describe(outcome: Outcome, notebook: NotebookNode, problem: Exception | None) -> Outcome:
    """Adds what happened in which cell."""
    cell = last_started(notebook)
    if cell is None or problem is None:
        return outcome
    where, error, lines = f"cell [{cell.execution_count or '*'}]", outcome.error, [outcome.error]
    if isinstance(problem, PapermillExecutionError):
        error, lines = f"{problem.ename}: {begin(str(problem.evalue))}", "\n".join(problem.traceback).splitlines()
    elif isinstance(problem, CellTimeoutError):
        task = outcome.task
        late = outcome.seconds >= task.lesson_timeout
        error = f"the lesson took more than {task.lesson_timeout:g} s" if late else f"took more than {task.timeout:g} s"
        lines = [error]
    last = "\n".join(begin(ESCAPES.sub("", line), LONG_LINE) for line in lines[-LAST_LINES:])
    details = f"{where}:\n{cell.source[:LONG_CELL]}\n\n{last}"
    return replace(outcome, error=f"{where}: {error}", details=details)


def last_started(notebook: NotebookNode) -> NotebookNode | None:
    """Returns the last code cell that papermill started; None if it got to none."""
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    return next((cell for cell in reversed(code) if cell.metadata.get("papermill", {}).get("start_time")), None)


def count_checks(outcome: Outcome, notebook: NotebookNode) -> Outcome:
    """Adds how many checks passed, were not attempted and were wrong, read from what they displayed."""
    found = [verdict for text in texts(notebook) for verdict in VERDICT.findall(text)]
    counts = {"passed": "passed", "not_attempted": "not attempted", "wrong": "wrong"}
    return replace(outcome, **{field: found.count(verdict) for field, verdict in counts.items()})


def texts(notebook: NotebookNode) -> Iterator[str]:
    """Yields the plain text of every output of a notebook."""
    for cell in notebook.cells:
        for output in cell.get("outputs", []):
            yield output.get("text", "") or output.get("data", {}).get("text/plain", "")
