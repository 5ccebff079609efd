"""Grading on several machines: Dask's distributed scheduler hands submissions out, this process writes the records.

A worker that dies loses nothing: what it had is given to another, and each record is written once, here.
"""

import socket
import threading
from collections.abc import Callable, Generator, Sequence

from coursework.grading.classroom import Task, grade_task
from coursework.grading.grader import Grader, Rules
from coursework.grading.records import Record
from coursework.grading.service import SandboxError

CONNECT_SECONDS = 30
_mine = threading.local()


def grade_by_scheduler(
    tasks: Sequence[Task], rules: Rules, address: str, on_missing: Callable[[str], None]
) -> Generator[Record]:
    """Grade with the workers of the scheduler at an address ("tcp://host:8786") and yield each record as it comes.

    on_missing is called with each protection that a worker's system lacks. Closing the iterator cancels what is left.
    Raises SandboxError where a worker cannot grade, OSError where no scheduler answers.
    """
    from distributed import Client, as_completed
    from distributed.scheduler import KilledWorker

    with Client(address, timeout=CONNECT_SECONDS) as client:
        futures = client.map(grade_on_worker, list(tasks), rules=rules, pure=False)
        told: set[str] = set()
        try:
            for future in as_completed(futures):
                record, missing = future.result()
                for text in set(missing) - told:
                    on_missing(text)
                told |= set(missing)
                future.release()
                yield record
        except KilledWorker as error:
            raise SandboxError(f"several workers died over one submission: {error}") from None
        finally:
            client.cancel(futures, force=True)


def grade_on_worker(task: Task, rules: Rules) -> tuple[Record, tuple[str, ...]]:
    """What a worker does with one submission: the record, and what its system does not allow to protect."""
    if rules.fingerprint(task.lesson) != task.fingerprint:
        raise SandboxError(f"the worker on {socket.gethostname()} has another version of the course")
    grader = _grader(rules)
    return grade_task(task, grader), grader.missing


def _grader(rules: Rules) -> Grader:
    """This worker thread's grader: made once, and ended with the worker by its sandbox itself."""
    if getattr(_mine, "rules", None) != rules:
        if hasattr(_mine, "grader"):
            _mine.grader.close()
        _mine.grader, _mine.rules = Grader(rules), rules
    return _mine.grader
