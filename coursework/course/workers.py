"""The processes that `coursework run` executes lessons in: each lesson has its own, whose end it does not outlive."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Generator, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from typing import TYPE_CHECKING

import psutil

from coursework.course.lines import first_line
from coursework.course.running import Outcome, Task

if TYPE_CHECKING:
    from multiprocessing.context import ForkServerContext, SpawnContext

SLACK = 10.0  # seconds after its time that a lesson has to stop its kernel and to write what it did
GRACE = 15.0  # seconds that an interrupted worker has to shut its kernel down


def execute_all(tasks: Sequence[Task], jobs: int = 1) -> Generator[Outcome]:
    """Executes lessons, `jobs` at a time, and yields each outcome as it comes.

    Each has a process of its own: one that dies takes no other with it, and the time limit holds for all that happens
    for a lesson. Closing the iterator, or an interrupt, ends the processes and their kernels.
    """
    waiting, running = list(tasks), {}
    try:
        while waiting or running:
            while waiting and len(running) < jobs:
                try:
                    worker = start_worker(waiting[0])
                except (OSError, EOFError) as error:  # no memory, or nothing left of the server
                    yield Outcome(waiting.pop(0), 0.0, f"no process for it: {first_line(error)}")
                    continue
                running[worker.results] = worker
                waiting.pop(0)
            left = min((worker.time_left() for worker in running.values()), default=0.0)
            done = wait(list(running), max(0.0, left)) if running else []
            late = [connection for connection, worker in running.items() if worker.time_left() <= 0]
            for connection in done or late:
                outcome = running[connection].outcome(late=connection not in done)
                if outcome is not None:
                    del running[connection]
                    yield outcome
    finally:
        end_workers(running.values())


@dataclass
class Worker:
    """A process that executes one lesson and sends how its cells went, and at its end the outcome."""

    task: Task
    process: BaseProcess
    results: Connection
    started: float
    ran: Outcome | None = None

    def time_left(self) -> float:
        """Returns the seconds until the process is ended: `wait` takes no more than a month."""
        return min(self.started + self.task.lesson_timeout + SLACK - time.perf_counter(), 2e6)

    def outcome(self, *, late: bool) -> Outcome | None:
        """Returns what the process sent at its end, that it died, or that it was late; afterwards it has ended.

        None where it only sent how the cells went, and goes on. What failed first is the reason.
        """
        seconds, result = time.perf_counter() - self.started, self.ran or Outcome(self.task, 0.0)
        if late:
            result = result.failed(f"the lesson took more than {self.task.lesson_timeout:g} s")
        else:
            try:
                ended, result = self.results.recv()
                if not ended:
                    self.ran = result
                    return None
                self.process.join(GRACE)
            except EOFError:
                self.process.join(GRACE)
                result = result.failed(f"the worker process died (exit code {self.process.exitcode})")
        end_workers([self])
        self.results.close()
        return replace(result, seconds=seconds)


def process_context() -> ForkServerContext | SpawnContext:
    """Returns the way to start worker processes: from a server that has papermill ready, where there is one."""
    if "forkserver" not in multiprocessing.get_all_start_methods():
        return multiprocessing.get_context("spawn")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["coursework.course.executing"])
    return context


def start_worker(task: Task) -> Worker:
    """Starts a process for one lesson."""
    context = process_context()
    results, sender = context.Pipe(duplex=False)
    process = context.Process(target=work, args=(task, sender), daemon=True)
    process.start()
    sender.close()
    return Worker(task, process, results, time.perf_counter())


def work(task: Task, sender: Connection) -> None:
    """What a worker process does. The parent ends it with SIGTERM; an interrupt from the terminal is the parent's."""
    signal.signal(signal.SIGINT, lambda *_: None)  # not SIG_IGN, which the kernel would inherit
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    with suppress(KeyboardInterrupt):
        threading.Thread(target=end_with_parent, daemon=True).start()
        try:
            from coursework.course.executing import execute

            outcome = execute(task, lambda outcome: sender.send((False, outcome)))
        except Exception as error:  # where a package is missing, for one
            outcome = Outcome(task, 0.0, f"{type(error).__name__}: {first_line(error)}")
        sender.send((True, outcome))


def end_with_parent() -> None:
    """Interrupts this process when its parent has ended, killed without a chance to end it."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
    os.kill(os.getpid(), signal.SIGTERM)


def end_workers(workers: Iterable[Worker]) -> None:
    """Ends worker processes: each may shut its kernel down first; then whatever it has started is killed."""
    workers = [worker for worker in workers if worker.process.is_alive()]
    families = [family(worker.process) for worker in workers]
    for worker in workers:
        worker.process.terminate()
    deadline = time.monotonic() + GRACE
    for worker, members in zip(workers, families, strict=True):
        worker.process.join(max(0.0, deadline - time.monotonic()))
        worker.process.kill()
        worker.process.join()
        for member in members:
            with suppress(psutil.NoSuchProcess):
                member.kill()


def family(process: BaseProcess) -> list[psutil.Process]:
    """Returns what a process has started, and what that has."""
    try:
        return psutil.Process(process.pid).children(recursive=True)
    except psutil.NoSuchProcess:
        return []
