"""Feedback pages, several at a time. Each is made in a process that ends itself after a limit of CPU time."""

from __future__ import annotations

import hashlib
import multiprocessing
import os
import signal
from collections.abc import Generator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path
from queue import SimpleQueue
from typing import TYPE_CHECKING, Any

from coursework._files import write_atomically
from coursework.grading.finding import Note
from coursework.grading.standing import Standing

if TYPE_CHECKING:  # the processes that make pages need no torch
    from multiprocessing.process import BaseProcess

    from coursework.grading.records import Record

SECONDS = 20.0  # CPU time for one page
PLAIN = "its feedback page shows text and code as they are: setting them failed, or took too long"
NONE = "it has no feedback page: making it failed, or took too long"
SOURCES = ("feedback", "pages", "tables", "standing")


@dataclass(frozen=True)
class Page:
    """A page to be made: from a rebuilt notebook, of a submission that stands so, at a path."""

    record: Record
    standing: Standing
    notebook: Path
    path: Path

    def origin(self) -> str:
        """Changes whenever the page would have to be made again."""
        programs = [Path(__file__).with_name(f"{name}.py").read_bytes() for name in SOURCES]
        parts = [self.notebook.read_bytes(), repr(self.standing).encode(), *programs]
        return hashlib.sha256(b"\0".join(parts)).hexdigest()

    def made(self) -> tuple[str, bool]:
        """What the page at the path was made from, "" without one, and whether it is a plain one."""
        from coursework.grading.feedback import ORIGIN

        try:
            with self.path.open(encoding="utf-8", errors="replace") as file:
                found = ORIGIN.search(file.read(1000))
        except OSError:
            found = None
        origin, _, kind = found[1].partition(" ") if found else ("", "", "")
        return origin, kind == "plain"

    def note(self, text: str) -> Note:
        """A note on the submission."""
        return Note(self.record.submission.student, self.record.submission.lesson, text)


def make(pages: Sequence[Page], root: Path, jobs: int = 1) -> Generator[Page]:
    """Make pages, `jobs` at a time, and yield each when it is written, or cannot be.

    root: the folder that all pages are in; MathJax is put there. Closing the iterator, or an interrupt, ends all.
    """
    mathjax = _mathjax(root)
    free: SimpleQueue[Worker] = SimpleQueue()
    workers = [Worker() for _ in range(min(jobs, len(pages)))]
    for worker in workers:
        free.put(worker)

    def work(page: Page) -> Page:
        worker = free.get()
        try:
            relative = os.path.relpath(mathjax, page.path.parent) if mathjax else ""
            _make_one(page, relative, worker)
        finally:
            free.put(worker)
        return page

    pool = ThreadPoolExecutor(max(1, len(workers)))
    try:
        for future in as_completed([pool.submit(work, page) for page in pages]):
            yield future.result()
    finally:
        for worker in workers:
            worker.close()
        pool.shutdown(cancel_futures=True)


def _make_one(page: Page, mathjax: str, worker: Worker) -> None:
    origin, notebook = page.origin(), page.notebook.read_text(encoding="utf-8")
    for plain in (False, True):
        made_from = f"{origin} plain" if plain else origin
        text = worker.ask((notebook, page.standing, made_from, mathjax), plain)
        if text is not None:
            write_atomically(page.path, text)
            return
    page.path.unlink(missing_ok=True)  # no page is better than one with other points


def _mathjax(root: Path) -> Path | None:
    """Where MathJax is, a file for all pages; None where no installed package brings it."""
    from coursework.course import reports

    path = root / reports.MATHJAX
    try:
        if not path.is_file():
            reports.put_mathjax(root)
    except (ImportError, OSError):
        return None
    return path


class Worker:
    """A process that makes pages, and another one in its place where it ended."""

    def __init__(self) -> None:
        self._closed = False
        self._process: BaseProcess | None = None

    def _start(self) -> None:
        context = multiprocessing.get_context("spawn")
        self._connection, theirs = context.Pipe()
        process = context.Process(target=_serve, args=(theirs, SECONDS), daemon=True)
        process.start()
        self._process = process  # only now: `close`, in another thread, kills what has been started
        theirs.close()

    def ask(self, arguments: tuple[Any, ...], plain: bool) -> str | None:
        """The page of these arguments, None where it failed or the process ended over it."""
        if self._closed:
            raise EOFError
        if self._process is None:
            self._start()
        try:
            self._connection.send((arguments, plain))
            return self._connection.recv()
        except (EOFError, OSError):
            if self._closed:
                raise
            if self._process is not None:
                self._process.join()
                self._process = None
            return None

    def close(self) -> None:
        """End the process, also while it makes a page."""
        self._closed = True
        process = self._process  # `ask`, in another thread, forgets one that has ended
        if process is not None:
            process.kill()
            process.join()


def _serve(connection, seconds: float) -> None:
    """Make pages until the other end is closed. An interrupt is for the other end; SIGPROF ends this process."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    from coursework.grading.feedback import page

    while True:
        try:
            arguments, plain = connection.recv()
        except EOFError:
            return
        signal.setitimer(signal.ITIMER_PROF, seconds)
        try:
            answer = page(*arguments, plain=plain)
        except Exception:  # whatever a learner's text does to it: a plain page follows
            answer = None
        signal.setitimer(signal.ITIMER_PROF, 0)
        connection.send(answer)
