"""All that is made of a grading's records: the gradebook, the tables, the feedback pages. They say the same."""

from collections.abc import Callable, Iterable, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

from coursework.grading import lms
from coursework.grading.finding import Note
from coursework.grading.gradebook import Gradebook
from coursework.grading.handin import Lesson
from coursework.grading.pages import NONE, PLAIN, Page, make
from coursework.grading.points import Points
from coursework.grading.records import Record, Records
from coursework.grading.standing import Standing, by_machine
from coursework.grading.tables import write_notes, write_tables

T = TypeVar("T")
Follow = Callable[[Iterable[T], int, str], Iterable[T]]  # wraps what is followed, with its number and its unit


@dataclass
class Report:
    """What was written, remarks on the whole, and notes on submissions."""

    paths: list[Path] = field(default_factory=list)
    remarks: list[str] = field(default_factory=list)
    notes: list[Note] = field(default_factory=list)


def report(
    kept: Records,
    lessons: Sequence[Lesson],
    points: Points,
    course: Path | None = None,
    *,
    jobs: int = 1,
    follow: Follow = lambda steps, number, unit: steps,
) -> Report:
    """Bring all that is made of the records up to date, tables before pages.

    course: the course directory, for its gradebook and pages; jobs: pages that are made at the same time. Nothing is
    graded. Raises GradebookError, OSError.
    """
    records, found = kept.all(lessons), kept.found()
    names = sorted({*found.students, *(record.submission.student for record in records)})
    done = Report()
    standings = {
        (r.submission.student, r.submission.lesson): by_machine(r, _lesson(r, lessons), points) for r in records
    }
    pages: list[Page] = []
    if course is not None:
        with Gradebook(course) as book:
            assigned = [lesson for lesson in lessons if book.has(lesson)]
            done.remarks += book.weigh(assigned, points)
            theirs = [record for record in records if _lesson(record, lessons) in assigned]
            saved = book.save(theirs, lessons, points, kept)
            for record, standing, notes in follow(saved, len(theirs), "mark"):
                done.notes += notes
                if standing is not None:
                    standings[record.submission.student, record.submission.lesson] = standing
                    pages.append(_page(record, standing, book))
    remarks = [Note(r.submission.student, r.submission.lesson, text) for r in records for text in r.remarks]
    done.paths += write_tables(kept.folder, names, lessons, records, standings, found)
    imports, without_login = lms.write_imports(kept.folder, names, lessons, standings, found.canvas)
    done.notes += without_login
    known = [*found.notes, *remarks]
    done.paths += [write_notes(kept.folder, [*known, *done.notes]), *imports]
    if pages:
        done.notes += _bring_up_to_date(pages, jobs, follow)
        write_notes(kept.folder, [*known, *done.notes])
    return done


def _lesson(record: Record, lessons: Sequence[Lesson]) -> Lesson:
    return next(lesson for lesson in lessons if lesson.name == record.submission.lesson)


def _page(record: Record, standing: Standing, book: Gradebook) -> Page:
    where = record.submission.student, record.submission.lesson
    return Page(record, standing, book.path("autograded", *where, ".ipynb"), book.path("feedback", *where, ".html"))


def _bring_up_to_date(pages: Sequence[Page], jobs: int, follow: Follow) -> list[Note]:
    """Make the pages that are missing or of something else; returns notes on those that are not as they should be."""
    stale = [page for page in pages if page.made()[0] != page.origin()]
    if stale:
        root = pages[0].path.parents[2]
        with closing(make(stale, root, jobs)) as made:
            for _ in follow(made, len(stale), "page"):
                pass
    kinds = [(page, page.made()) for page in pages]
    return [page.note(PLAIN if origin else NONE) for page, (origin, plain) in kinds if plain or not origin]
