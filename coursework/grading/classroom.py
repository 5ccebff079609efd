"""Grading all submissions of a class: what is left to do, by how many processes, and the tables at the end."""

import hashlib
import queue
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from pathlib import Path

from coursework._files import write_atomically
from coursework.grading import handin
from coursework.grading.finding import Submission
from coursework.grading.grader import Grader, Rules
from coursework.grading.handin import HandIn, HandInError, Lesson
from coursework.grading.points import Points
from coursework.grading.records import Record, Records, table

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
) -> Iterator[Record]:
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


def write_tables(
    records: Records, submissions: Sequence[Submission], lessons: Sequence[Lesson], points: Points
) -> list[Path]:
    """Write marks.csv, a line for each student and exercise, and totals.csv, one for each student. Returns both."""
    found = [record for submission in submissions if (record := records.read(submission)) is not None]
    marks, totals = records.folder / "marks.csv", records.folder / "totals.csv"
    write_atomically(marks, table(mark_rows(found, lessons, points)))
    write_atomically(totals, table(total_rows(found, lessons, points)))
    return [marks, totals]


HEADER = ("student", "lesson", "exercise", "outcome", "points", "out of", "misconception", "message", "flag", "seconds")


def mark_rows(records: Iterable[Record], lessons: Sequence[Lesson], points: Points) -> Iterator[Sequence]:
    """The rows of marks.csv."""
    by_name = {lesson.name: lesson for lesson in lessons}
    yield HEADER
    for record in records:
        lesson = by_name[record.submission.lesson]
        for mark in record.marks:
            worth = points.of(mark.exercise, lesson)
            earned = worth if mark.outcome == "passed" else 0.0
            where = (record.submission.student, lesson.name, mark.exercise, mark.outcome)
            yield (*where, f"{earned:g}", f"{worth:g}", mark.misconception, mark.message, mark.flag, mark.seconds)


def earned(record: Record, lesson: Lesson, points: Points) -> float:
    """The points of a submission."""
    return sum(points.of(mark.exercise, lesson) for mark in record.marks if mark.outcome == "passed")


def total_rows(records: Sequence[Record], lessons: Sequence[Lesson], points: Points) -> Iterator[Sequence]:
    """The rows of totals.csv: points by lesson, their sum, and its share of what all graded lessons are worth."""
    handed_in = {record.submission.lesson for record in records}
    graded = [lesson for lesson in lessons if lesson.name in handed_in]
    by_key = {(record.submission.student, record.submission.lesson): record for record in records}
    whole = sum(points.total(lesson) for lesson in graded)
    yield ("student", *(lesson.name for lesson in graded), "points", "out of", "percent")
    for student in sorted({record.submission.student for record in records}):
        scores = [
            earned(by_key[student, lesson.name], lesson, points) if (student, lesson.name) in by_key else 0.0
            for lesson in graded
        ]
        total = sum(scores)
        percent = 100 * total / whole if whole else 0.0
        yield (student, *(f"{score:g}" for score in scores), f"{total:g}", f"{whole:g}", f"{percent:.1f}")
