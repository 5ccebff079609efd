"""Grading all submissions of a class: what is left to do, and by how many processes."""

import hashlib
import queue
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass

from coursework.grading import handin
from coursework.grading.finding import Submission
from coursework.grading.grader import Grader, Rules
from coursework.grading.handin import HandIn, HandInError, Lesson
from coursework.grading.records import Record, Records

UNPROTECTED = "learners' code is not fully shut in on this system"


@dataclass(frozen=True)
class Task:
    """A submission that is to be graded: its cells, and the digest and fingerprint that its record will bear."""

    submission: Submission
    lesson: Lesson
    handed_in: HandIn
    digest: str
    fingerprint: str


def open_tasks(
    submissions: Iterable[Submission], lessons: Sequence[Lesson], rules: Rules, records: Records, *, again: bool = False
) -> Iterator[Task]:
    """What is left to grade: all that has no record of the same file under the same rules, or everything if `again`."""
    by_name = {lesson.name: lesson for lesson in lessons}
    fingerprints = {lesson.name: rules.fingerprint(lesson) for lesson in lessons}
    for submission in submissions:
        lesson = by_name[submission.lesson]
        try:
            data = handin.content(submission.path)
            digest, handed_in = hashlib.sha256(data).hexdigest(), handin.parse(data, lesson)
        except HandInError as error:
            digest, handed_in = "", HandIn(problem=str(error))
        task = Task(submission, lesson, handed_in, digest, fingerprints[lesson.name])
        before = records.read(submission)
        if again or before is None or (before.digest, before.fingerprint) != (task.digest, task.fingerprint):
            yield task


def grade_task(task: Task, grader: Grader) -> Record:
    """The record of one submission."""
    marks, remarks = grader.grade(task.handed_in, task.lesson, f"{task.submission.key}/{task.digest}")
    return Record(task.submission, tuple(marks), tuple(remarks), task.digest, task.fingerprint)


def grade_here(
    tasks: Iterable[Task], rules: Rules, jobs: int = 1, on_missing: Callable[[str], None] = print
) -> Generator[Record]:
    """Grade on this machine, `jobs` submissions at a time, and yield each record as it comes.

    Each job has a sandbox of its own; on_missing is called with each protection that this system lacks. Closing the
    iterator, or an interrupt, ends them all.
    """
    free: queue.SimpleQueue[Grader] = queue.SimpleQueue()
    graders: list[Grader] = []

    def work(task: Task) -> Record:
        grader = free.get()
        try:
            return grade_task(task, grader)
        finally:
            free.put(grader)

    pool = ThreadPoolExecutor(jobs)
    try:
        for _ in range(jobs):
            graders.append(Grader(rules))
            free.put(graders[-1])
        for text in graders[0].missing:
            on_missing(text)
        waiting, running = iter(tasks), set[Future[Record]]()
        while True:
            for task in waiting:
                running.add(pool.submit(work, task))
                if len(running) >= 2 * jobs:
                    break
            if not running:
                return
            done, running = wait(running, return_when=FIRST_COMPLETED)
            for future in done:
                yield future.result()
    finally:
        pool.shutdown(wait=False, cancel_futures=True)
        for grader in graders:
            grader.close()
        pool.shutdown()
