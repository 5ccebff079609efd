"""The processes of a run, with work that needs no kernel: each outcome comes, in time, whatever a process does."""

import multiprocessing
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from coursework.course import workers
from coursework.course.running import Outcome, Task
from coursework.course.workers import execute_all


def work(task, sender):
    """What a lesson's name says."""
    if task.name == "dies":
        os._exit(3)
    if task.name == "dies while it is written":
        sender.send((False, Outcome(task, 1.0, "cell [2]: ZeroDivisionError: division by zero", "the cell", passed=2)))
        os._exit(3)
    if task.name.startswith("hangs"):
        sender.send((False, Outcome(task, 1.0, passed=7)))
        if task.name == "hangs and listens to nobody":
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
        child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
        Path(f"{task.output}.part").write_text(f"{os.getpid()} {child.pid}")
        os.rename(f"{task.output}.part", task.output)
        time.sleep(600)
    sender.send((True, Outcome(task, 1.0, passed=1)))


@pytest.fixture(autouse=True)
def plain_processes(monkeypatch):
    """Processes that start with this file alone, and little patience."""
    monkeypatch.setattr(workers, "process_context", lambda: multiprocessing.get_context("spawn"))
    monkeypatch.setattr(workers, "work", work)
    monkeypatch.setattr(workers, "SLACK", 0.0)
    monkeypatch.setattr(workers, "GRACE", 2.0)


def task(folder, name, lesson_timeout=600):
    return Task(folder / f"{name}.ipynb", folder / f"{name}.out", {}, 300, lesson_timeout)


def pids(path):
    """The processes of a hanging lesson, once it has written which they are."""
    while not path.exists():
        time.sleep(0.02)
    return [int(pid) for pid in path.read_text().split()]


def alive(numbers):
    """Which of the processes have not ended, after a while."""
    return psutil.wait_procs([psutil.Process(n) for n in numbers if psutil.pid_exists(n)], timeout=5)[1]


def test_one_that_dies_or_hangs_stops_no_other(tmp_path):
    """A lesson's limit holds for its process, also where that listens to nobody; what it has started ends with it."""
    names = ["fine", "dies", "hangs and listens to nobody", "dies while it is written", "last"]
    tasks = [task(tmp_path, name, 8 if name.startswith("hangs") else 600) for name in names]
    outcomes = {outcome.task.name: outcome for outcome in execute_all(tasks, 2)}
    assert {name: outcome.error for name, outcome in outcomes.items()} == {
        "fine": "",
        "dies": "the worker process died (exit code 3)",
        "hangs and listens to nobody": "the lesson took more than 8 s",
        "dies while it is written": "cell [2]: ZeroDivisionError: division by zero",
        "last": "",
    }
    assert alive(pids(tasks[2].output)) == []
    assert outcomes["hangs and listens to nobody"].passed == 7, "what it got to is known"
    assert outcomes["dies while it is written"].details == "the cell"
    assert outcomes["fine"].passed == 1


def test_closing_the_iterator_ends_what_runs(tmp_path):
    tasks = [task(tmp_path, "fine"), task(tmp_path, "hangs")]
    done = execute_all(tasks, 2)
    assert next(done).task.name == "fine"
    hanging = pids(tasks[1].output)
    done.close()
    assert alive(hanging) == []


def test_where_no_process_can_be_started_the_lesson_fails_with_the_reason(tmp_path, monkeypatch):
    start = workers.start_worker

    def refuse(task):
        if task.name == "first":
            raise BlockingIOError(11, "Resource temporarily unavailable")
        return start(task)

    monkeypatch.setattr(workers, "start_worker", refuse)
    first, second = execute_all([task(tmp_path, "first"), task(tmp_path, "second")])
    assert first.error == "no process for it: [Errno 11] Resource temporarily unavailable"
    assert (second.error, second.passed) == ("", 1)
