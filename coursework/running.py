"""Finding, executing and resetting the lessons of a course tree: what `coursework run` and `coursework reset` do."""

from __future__ import annotations

import ast
import json
import logging
import multiprocessing
import os
import re
import signal
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass, replace
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any

import nbformat

from coursework._files import write_atomically
from coursework.environment import cores, first_line

TREES = ("notebooks", "solutions")
THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "VECLIB_MAXIMUM_THREADS")
VERDICT = re.compile(r"^\S Exercise \S+ .*: (passed|not attempted|wrong)$", re.MULTILINE)
WIDGET_VIEW = "application/vnd.jupyter.widget-view+json"
QUIET_KERNEL = ["--IPKernelApp.log_level=50"]  # its log would go to the terminal; a cell's errors are in the lesson
GRACE = 15.0  # seconds that an interrupted worker has to shut its kernel down

logging.getLogger("papermill").addHandler(logging.NullHandler())  # what it logs is in the outcomes


class RunError(ValueError):
    """The request cannot be carried out as it stands; nothing was executed. The message says why, a reason a line."""


@dataclass(frozen=True)
class Task:
    """One lesson to execute: where from, where to, and how."""

    source: Path
    output: Path
    parameters: Mapping[str, Any]
    timeout: float

    @property
    def name(self) -> str:
        """The lesson's name, such as 01_score_function."""
        return self.source.stem


@dataclass(frozen=True)
class Outcome:
    """How a lesson went: the error's first line (empty if it ran), seconds, and how many checks ended how."""

    name: str
    output: Path
    seconds: float
    error: str = ""
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


# Parameters


def parse_value(text: str) -> Any:
    """Reads a parameter's value: a JSON or Python literal ("3", "1e-3", "true", "[1, 2]"), else the text itself."""
    for read in (json.loads, ast.literal_eval):
        with suppress(ValueError, SyntaxError):
            return read(text)
    return text


def defined_parameters(notebook: Path) -> set[str] | None:
    """Returns the names that a lesson's cell tagged `parameters` assigns; None where it has no such cell."""
    cells = nbformat.read(notebook, as_version=4).cells
    tagged = [cell for cell in cells if "parameters" in cell.metadata.get("tags", [])]
    return set(assigned_names(tagged[0].source)) if tagged else None


def assigned_names(source: str) -> Iterator[str]:
    """Yields the names that the statements of a cell assign."""
    for node in ast.parse(source).body:
        if isinstance(node, ast.Assign | ast.AnnAssign):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            yield from (name.id for target in targets for name in ast.walk(target) if isinstance(name, ast.Name))


def check_parameters(notebooks: Iterable[Path], parameters: Mapping[str, Any]) -> None:
    """Makes sure that each lesson defines each parameter: papermill itself would only warn.

    Raises:
        RunError: naming each lesson without a `parameters` cell and each unknown name.
    """
    problems = [text for path in notebooks for text in unknown_parameters(path, parameters)] if parameters else []
    if problems:
        raise RunError("\n".join(problems))


def unknown_parameters(notebook: Path, parameters: Mapping[str, Any]) -> list[str]:
    """Returns a line for each parameter that a lesson does not define."""
    there = defined_parameters(notebook)
    if there is None:
        return [f"{notebook.stem} has no cell tagged 'parameters', so it takes none"]
    unknown = [name for name in parameters if name not in there]
    return [f"{notebook.stem} has no parameter {name!r}; it has {', '.join(sorted(there))}" for name in unknown]


# Executing


def execute(task: Task) -> Outcome:
    """Executes one lesson in a fresh kernel, in the lesson's own folder, and writes the result, complete or failed.

    The output appears under its name when it is complete. An error in the lesson is reported, not raised.
    """
    import papermill

    started = time.perf_counter()
    part = task.output.with_name(f".{task.name}.part.ipynb")
    kernel = {"cwd": task.source.parent, "kernel_name": "python3", "extra_arguments": list(QUIET_KERNEL)}
    options = {**kernel, "language": "python", "progress_bar": False, "coalesce_streams": True}
    error = ""
    try:
        papermill.execute_notebook(task.source, part, dict(task.parameters), execution_timeout=task.timeout, **options)
    except Exception as problem:
        error = describe(problem)
    except BaseException:
        part.unlink(missing_ok=True)
        raise
    if part.exists():
        os.replace(part, task.output)
    return count_checks(Outcome(task.name, task.output, time.perf_counter() - started, error))


def describe(problem: Exception) -> str:
    """Returns one line on why a lesson did not run to its end."""
    from papermill import PapermillExecutionError

    if isinstance(problem, PapermillExecutionError):
        reason = (str(problem.evalue).strip().splitlines() or [""])[0]
        return f"cell [{problem.exec_count}]: {problem.ename}: {reason}"
    return f"{type(problem).__name__}: {first_line(problem)}"


def count_checks(outcome: Outcome) -> Outcome:
    """Adds how many checks passed, were not attempted and were wrong, read from what they displayed."""
    with suppress(OSError, ValueError):
        found = [
            verdict for text in texts(nbformat.read(outcome.output, as_version=4)) for verdict in VERDICT.findall(text)
        ]
        counts = {"passed": "passed", "not_attempted": "not attempted", "wrong": "wrong"}
        return replace(outcome, **{field: found.count(verdict) for field, verdict in counts.items()})
    return outcome


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
        except EOFError:
            seconds = time.perf_counter() - self.started
            result = Outcome(self.task.name, self.task.output, seconds, "the worker process died")
        self.process.join()
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


def run(
    root: Path,
    names: Iterable[str] = (),
    *,
    tree: str = "notebooks",
    out: Path | None = None,
    parameters: Mapping[str, Any] | None = None,
    jobs: int = 1,
    timeout: float = 300.0,
    store: bool = False,
    on_outcome: Callable[[Outcome, int], None] | None = None,
) -> list[Outcome]:
    """Executes lessons of a course tree.

    Args:
        root: the course tree.
        names: which lessons, by number or by how the name begins; all of them if empty.
        tree: "notebooks" or "solutions".
        out: the folder for the executed lessons; build/executed by default, and solutions/ in it for that tree.
        parameters: replace values of the lessons' `parameters` cells.
        jobs: how many lessons run at the same time.
        timeout: seconds that a cell may take.
        store: write the outputs of each lesson that ran to its end back into solutions/.
        on_outcome: called after each lesson with its outcome and the number of lessons.

    Returns:
        The outcomes in the order of the lessons; a lesson that fails does not stop the others.

    Raises:
        RunError: if the request is refused; nothing was executed then.
    """
    parameters = parameters or {}
    refuse_options(tree, parameters, jobs, timeout, store)
    sources = find_lessons(course_tree(root) / tree, names)
    check_parameters(sources, parameters)
    folder = (out or default_folder(root, tree)).resolve()
    folder.mkdir(parents=True, exist_ok=True)
    tasks = [Task(path.resolve(), folder / path.name, parameters, timeout) for path in sources]
    outcomes = []
    with closing(execute_all(tasks, min(jobs, len(tasks)))) as done:
        for outcome in done:
            if store and outcome.status == "ok":
                store_outputs(root / tree / outcome.output.name, outcome.output)
            outcomes.append(outcome)
            if on_outcome:
                on_outcome(outcome, len(tasks))
    return sorted(outcomes, key=lambda outcome: outcome.name)


def refuse_options(tree: str, parameters: Mapping[str, Any], jobs: int, timeout: float, store: bool) -> None:
    """Raises RunError for options that make no sense, alone or together."""
    if tree not in TREES:
        raise RunError(f"tree: expected one of {', '.join(TREES)}, got {tree!r}")
    if jobs < 1:
        raise RunError(f"jobs: expected at least 1, got {jobs}")
    if not timeout > 0:
        raise RunError(f"timeout: expected a positive number of seconds, got {timeout}")
    if store and (tree != "solutions" or parameters):
        raise RunError("store: only for the tree solutions, with the lessons' own parameters")


def default_folder(root: Path, tree: str) -> Path:
    """Where executed lessons go unless told otherwise."""
    return root / "build" / "executed" / ("" if tree == "notebooks" else tree)


def summary(outcomes: Sequence[Outcome]) -> str:
    """Returns the table that ends a run."""
    width = max(len("lesson"), *(len(o.name) for o in outcomes))
    head = f"{'lesson':{width}}  status  seconds  passed  not attempted  wrong  error"
    rows = [
        f"{o.name:{width}}  {o.status:6}  {o.seconds:7.1f}  {o.passed:6}  {o.not_attempted:13}  {o.wrong:5}  {o.error}"
        for o in outcomes
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
