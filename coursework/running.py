"""Finding, executing and resetting the lessons of a course tree: what `coursework run` and `coursework reset` do."""

from __future__ import annotations

import logging
import math
import multiprocessing
import os
import re
import signal
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass, replace
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any

import nbformat

from coursework import run_parameters
from coursework._files import write_atomically
from coursework.environment import cores, first_line

TREES = ("notebooks", "solutions")
BOTH = "both"
THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "VECLIB_MAXIMUM_THREADS")
ESCAPES = re.compile(r"\x1b\[[0-9;]*[A-Za-z]")  # colours in a traceback
LAST_LINES = 20  # of an error, in an outcome's details
VERDICT = re.compile(r"^\S Exercise \S+ .*: (passed|not attempted|wrong)$", re.MULTILINE)
WIDGET_VIEW = "application/vnd.jupyter.widget-view+json"
QUIET_KERNEL = ["--IPKernelApp.log_level=50"]  # its log would go to the terminal; a cell's errors are in the lesson
GRACE = 15.0  # seconds that an interrupted worker has to shut its kernel down

logging.getLogger("papermill").addHandler(logging.NullHandler())  # what it logs is in the outcomes


class RunError(ValueError):
    """The request cannot be carried out as it stands; nothing was executed. The message says why, a reason a line."""


@dataclass(frozen=True)
class Task:
    """One lesson to execute: where from, where to, and how. `timeout` seconds a cell, `lesson_timeout` for them all."""

    source: Path
    output: Path
    parameters: Mapping[str, Any]
    timeout: float
    lesson_timeout: float = math.inf

    @property
    def name(self) -> str:
        """The lesson's name, such as 01_score_function."""
        return self.source.stem

    @property
    def tree(self) -> str:
        """The folder that the lesson is in, "notebooks" or "solutions"."""
        return self.source.parent.name

    @property
    def part(self) -> Path:
        """The file that grows while the lesson runs."""
        return self.output.with_name(f".{self.name}.part.ipynb")


@dataclass(frozen=True)
class Outcome:
    """How a lesson went: seconds, the error's first line (empty if it ran to its end), and how many checks ended how.

    `details` are the code of the cell that failed and the error's last lines.
    """

    task: Task
    seconds: float
    error: str = ""
    details: str = ""
    passed: int = 0
    not_attempted: int = 0
    wrong: int = 0

    @property
    def status(self) -> str:
        """ "ok" or "failed"."""
        return "failed" if self.error else "ok"


# Finding lessons


def course_tree(folder: Path) -> Path:
    """Returns the folder if it is a course tree.

    Raises:
        RunError: if it lacks solutions/ or notebooks/.
    """
    missing = [f"{name}/" for name in TREES if not (folder / name).is_dir()]
    if missing:
        raise RunError(f"{folder} is not a course tree ({' and '.join(missing)} missing): go to the course's folder")
    return folder


def lessons(folder: Path) -> list[Path]:
    """Returns the lessons in a folder in order, without the copies that `reset` keeps (NAME.mine-1.ipynb)."""
    return sorted(path for path in folder.glob("[0-9]*.ipynb") if "." not in path.stem)


def matches(stem: str, name: str) -> bool:
    """Whether a lesson goes by this name: its number ("1", "01"), or how its name begins, with or without .ipynb."""
    wanted = Path(name).name.removesuffix(".ipynb")
    if wanted.isdigit():
        return int(wanted) == int(re.match(r"\d+", stem).group())
    return bool(wanted) and stem.startswith(wanted)


def find_lessons(folder: Path, names: Iterable[str] = ()) -> list[Path]:
    """Returns the lessons that the names pick, in order; all of them without names.

    Raises:
        RunError: if a name picks none, or there are none at all.
    """
    there = lessons(folder)
    if not there:
        raise RunError(f"no lessons in {folder}")
    names = list(names)
    for name in names:
        if not any(matches(path.stem, name) for path in there):
            raise RunError(f"no lesson {name!r}; there are {', '.join(path.stem for path in there)}")
    return [path for path in there if not names or any(matches(path.stem, name) for name in names)]


# Executing


def execute(task: Task) -> Outcome:
    """Executes one lesson in a fresh kernel, in the lesson's own folder, and writes the result, complete or failed.

    The output appears under its name when it is complete. An error in the lesson is reported, not raised.
    """
    import papermill

    started = time.perf_counter()
    kernel = {"cwd": task.source.parent, "kernel_name": "python3", "extra_arguments": list(QUIET_KERNEL)}
    options = {**kernel, "language": "python", "progress_bar": False, "coalesce_streams": True}
    options["timeout_func"] = lambda cell: cell_limit(task, time.perf_counter() - started)
    problem = None
    for left in (task.part, task.output):  # of an earlier run
        left.unlink(missing_ok=True)
    try:
        papermill.execute_notebook(task.source, task.part, dict(task.parameters), **options)
    except Exception as error:
        problem = error
    except BaseException:
        task.part.unlink(missing_ok=True)
        raise
    return finish(task, time.perf_counter() - started, problem)


def cell_limit(task: Task, seconds: float) -> float:
    """Returns how long the next cell may take where the lesson has taken this many seconds."""
    return min(task.timeout, max(task.lesson_timeout - seconds, 0.1))  # 0 would mean: no limit


def finish(task: Task, seconds: float, problem: Exception | None) -> Outcome:
    """Puts the executed lesson in its place, and returns its outcome with what the file says about it."""
    outcome = Outcome(task, seconds, error=f"{type(problem).__name__}: {first_line(problem)}" if problem else "")
    if not task.part.exists():  # it did not even start
        return outcome
    os.replace(task.part, task.output)
    notebook = nbformat.read(task.output, as_version=4)
    outcome = count_checks(outcome, notebook)
    return describe(outcome, notebook, problem) if problem else outcome


def describe(outcome: Outcome, notebook: nbformat.NotebookNode, problem: Exception) -> Outcome:
    """Adds what happened in which cell."""
    from nbclient.exceptions import CellTimeoutError
    from papermill import PapermillExecutionError

    cell = last_started(notebook)
    if cell is None:
        return outcome
    where, error, lines = f"cell [{cell.execution_count or '*'}]", outcome.error, [outcome.error]
    if isinstance(problem, PapermillExecutionError):
        reason = (str(problem.evalue).strip().splitlines() or [""])[0]
        error, lines = f"{problem.ename}: {reason}", "\n".join(problem.traceback).splitlines()
    elif isinstance(problem, CellTimeoutError):
        task = outcome.task
        late = outcome.seconds >= task.lesson_timeout
        error = f"the lesson took more than {task.lesson_timeout:g} s" if late else f"took more than {task.timeout:g} s"
        lines = [error]
    last = "\n".join(ESCAPES.sub("", line) for line in lines[-LAST_LINES:])
    return replace(outcome, error=f"{where}: {error}", details=f"{where}:\n{cell.source}\n\n{last}")


def last_started(notebook: nbformat.NotebookNode) -> nbformat.NotebookNode | None:
    """Returns the last code cell that papermill started; None if it got to none."""
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    return next((cell for cell in reversed(code) if cell.metadata.get("papermill", {}).get("start_time")), None)


def count_checks(outcome: Outcome, notebook: nbformat.NotebookNode) -> Outcome:
    """Adds how many checks passed, were not attempted and were wrong, read from what they displayed."""
    found = [verdict for text in texts(notebook) for verdict in VERDICT.findall(text)]
    counts = {"passed": "passed", "not_attempted": "not attempted", "wrong": "wrong"}
    return replace(outcome, **{field: found.count(verdict) for field, verdict in counts.items()})


def texts(notebook: nbformat.NotebookNode) -> Iterator[str]:
    """Yields the plain text of every output of a notebook."""
    for cell in notebook.cells:
        for output in cell.get("outputs", []):
            yield output.get("text", "") or output.get("data", {}).get("text/plain", "")


def execute_all(tasks: Sequence[Task], jobs: int = 1) -> Iterator[Outcome]:
    """Executes lessons and yields each outcome as it comes; with jobs > 1, that many worker processes share the cores.

    Closing the iterator, or an interrupt, ends the workers and their kernels.
    """
    if jobs == 1:
        yield from map(execute, tasks)
    else:
        yield from execute_in_processes(list(tasks), jobs)


def execute_in_processes(waiting: list[Task], jobs: int) -> Iterator[Outcome]:
    """Executes each lesson in a process of its own, `jobs` at a time: one that dies takes no other with it."""
    running: dict[Connection, Worker] = {}
    try:
        while waiting or running:
            while waiting and len(running) < jobs:
                worker = start_worker(waiting.pop(0), max(1, cores() // jobs))
                running[worker.results] = worker
            for connection in wait(list(running)):
                yield running.pop(connection).outcome()
    finally:
        end_workers(running.values())


@dataclass(frozen=True)
class Worker:
    """A process that executes one lesson and sends its outcome."""

    task: Task
    process: multiprocessing.process.BaseProcess
    results: Connection
    started: float

    def outcome(self) -> Outcome:
        """Returns what the process sent, or that it died."""
        try:
            result = self.results.recv()
            self.process.join()
        except EOFError:
            self.process.join()
            died = RuntimeError(f"the worker process died (exit code {self.process.exitcode})")
            result = finish(self.task, time.perf_counter() - self.started, died)
        return result


def process_context() -> multiprocessing.context.BaseContext:
    """Returns the way to start worker processes: from a server that has papermill ready, where there is one."""
    if "forkserver" not in multiprocessing.get_all_start_methods():
        return multiprocessing.get_context("spawn")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["papermill"])
    return context


def start_worker(task: Task, threads: int) -> Worker:
    """Starts a process for one lesson, whose kernel computes with this many threads."""
    context = process_context()
    results, sender = context.Pipe(duplex=False)
    process = context.Process(target=work, args=(task, threads, sender), daemon=True)
    process.start()
    sender.close()
    return Worker(task, process, results, time.perf_counter())


def work(task: Task, threads: int, sender: Connection) -> None:
    """What a worker process does. The parent ends it with SIGTERM; an interrupt from the terminal is the parent's."""
    signal.signal(signal.SIGINT, lambda *_: None)  # not SIG_IGN, which the kernel would inherit
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    os.environ.update(dict.fromkeys(THREADS, str(threads)))
    with suppress(KeyboardInterrupt):
        sender.send(execute(task))


def end_workers(workers: Iterable[Worker]) -> None:
    """Ends worker processes; each shuts its kernel down first."""
    workers = list(workers)
    for worker in workers:
        worker.process.terminate()
    for worker in workers:
        worker.process.join(GRACE)
        worker.process.kill()


def plan(
    root: Path,
    names: Iterable[str] = (),
    *,
    tree: str = "notebooks",
    out: Path | None = None,
    parameters: Mapping[str, Any] | None = None,
    timeout: float = 300.0,
    lesson_timeout: float = math.inf,
) -> list[Task]:
    """Returns the lessons of a course tree to execute, in order; nothing is executed.

    Args:
        root: the course tree.
        names: which lessons, by number or by how the name begins; all of them if empty.
        tree: "notebooks", "solutions" or "both".
        out: the folder for the executed lessons; build/executed by default, and solutions/ in it for that tree. With
            "both" it gets a folder solutions/ too.
        parameters: replace values of the lessons' `parameters` cells.
        timeout: seconds that a cell may take.
        lesson_timeout: seconds that a lesson may take.

    Raises:
        RunError: if the request makes no sense, a name picks no lesson, or a lesson does not take a parameter.
    """
    if tree not in (*TREES, BOTH):
        raise RunError(f"tree: expected one of {', '.join((*TREES, BOTH))}, got {tree!r}")
    for name, seconds in (("timeout", timeout), ("lesson_timeout", lesson_timeout)):
        if not seconds > 0:
            raise RunError(f"{name}: expected a positive number of seconds, got {seconds}")
    parameters, names = parameters or {}, list(names)
    trees = TREES if tree == BOTH else (tree,)
    sources = {t: find_lessons(course_tree(root) / t, names) for t in trees}
    problems = run_parameters.problems([path for paths in sources.values() for path in paths], parameters)
    if problems:
        raise RunError("\n".join(problems))
    if out is not None and out.resolve() in [(root / t).resolve() for t in TREES]:
        raise RunError(f"out: {out} holds the lessons themselves; name another folder")
    folders = {t: output_folder(root, t, out, len(trees) > 1) for t in trees}
    return [
        Task(path.resolve(), folders[t] / path.name, parameters, timeout, lesson_timeout)
        for t in trees
        for path in sources[t]
    ]


def output_folder(root: Path, tree: str, out: Path | None, both: bool) -> Path:
    """Where the executed lessons of a tree go."""
    inner = "solutions" if tree == "solutions" and (both or out is None) else ""
    return ((out or root / "build" / "executed") / inner).resolve()


def run(tasks: Sequence[Task], jobs: int = 1, store: bool = False) -> Iterator[Outcome]:
    """Executes lessons and yields each outcome as it comes; a lesson that fails does not stop the others.

    Args:
        tasks: what to execute, from `plan`.
        jobs: how many lessons run at the same time.
        store: write the outputs of each lesson that ran to its end back into solutions/.

    Closing the iterator, or an interrupt, ends what runs, its kernels too.

    Raises:
        RunError: if the options make no sense; nothing was executed then.
    """
    if jobs < 1:
        raise RunError(f"jobs: expected at least 1, got {jobs}")
    if store and any(task.tree != "solutions" or task.parameters for task in tasks):
        raise RunError("store: only for the tree solutions, with the lessons' own parameters")
    for task in tasks:
        task.output.parent.mkdir(parents=True, exist_ok=True)
    return _run(tasks, min(jobs, len(tasks)), store)


def _run(tasks: Sequence[Task], jobs: int, store: bool) -> Iterator[Outcome]:
    with closing(execute_all(tasks, jobs)) as done:
        for outcome in done:
            if store and outcome.status == "ok":
                store_outputs(outcome.task.source, outcome.task.output)
            yield outcome


def label(task: Task, tasks: Sequence[Task]) -> str:
    """Returns the lesson's name, with its tree where the tasks are from both."""
    return task.name if len({t.tree for t in tasks}) == 1 else f"{task.tree}/{task.name}"


def summary(outcomes: Sequence[Outcome]) -> str:
    """Returns the table that ends a run, in the order of the lessons."""
    outcomes = sorted(outcomes, key=lambda outcome: (outcome.task.tree, outcome.task.name))
    labels = [label(outcome.task, [o.task for o in outcomes]) for outcome in outcomes]
    width = max(len("lesson"), *map(len, labels))
    head = f"{'lesson':{width}}  status  seconds  passed  not attempted  wrong  error"
    rows = [
        f"{name:{width}}  {o.status:6}  {o.seconds:7.1f}  {o.passed:6}  {o.not_attempted:13}  {o.wrong:5}  {o.error}"
        for name, o in zip(labels, outcomes, strict=True)
    ]
    return "\n".join(line.rstrip() for line in [head, *rows])


# Storing outputs and resetting lessons


def store_outputs(source: Path, executed: Path) -> None:
    """Copies the outputs of an executed lesson into its source, and nothing else (no timing, no widget state)."""
    notebook, done = nbformat.read(source, as_version=4), nbformat.read(executed, as_version=4)
    for cell, run_cell in zip(notebook.cells, done.cells, strict=True):
        if cell.cell_type == "code":
            cell.outputs = [lasting for output in run_cell.outputs if (lasting := without_widget(output))]
            cell.execution_count = run_cell.execution_count
    write_atomically(source, nbformat.writes(notebook) + "\n")


def without_widget(output: nbformat.NotebookNode) -> nbformat.NotebookNode | None:
    """Returns an output without the live widget's random id; None where nothing else is in it.

    A widget's picture or text beside it stays: a stored page has no kernel that could draw the widget.
    """
    if WIDGET_VIEW not in output.get("data", {}):
        return output
    data = {kind: value for kind, value in output.data.items() if kind != WIDGET_VIEW}
    return nbformat.from_dict({**output, "data": data}) if set(data) - {"text/plain"} else None


def reset(root: Path, name: str) -> tuple[Path, Path | None]:
    """Puts a fresh student copy of a lesson in place.

    Args:
        root: the course tree.
        name: the lesson's number, or how its name begins.

    Returns:
        The fresh copy, and where the old one is kept (None if there was none).

    Raises:
        RunError: if the name does not pick exactly one lesson.
        PublishError: if the lesson's source cannot be published.
    """
    from coursework import publishing

    picked = [path.stem for path in find_lessons(course_tree(root) / "solutions", [name])]
    if len(picked) != 1:
        raise RunError(f"{name!r} picks several lessons: {', '.join(picked)}")
    text = publishing.student_text(root, picked[0])
    path = root / "notebooks" / f"{picked[0]}.ipynb"
    kept = publishing.keep_copy(path) if path.exists() else None
    write_atomically(path, text)
    return path, kept
