"""One truth: whatever happened in whatever order, tables, gradebook, feedback pages and imports say the same.

The judge is a stub that looks for a word, so that nothing here starts a sandbox; the course directory is made by
nbgrader's programming interface from notebooks of a few lines.
"""

import csv
import random
import re
from pathlib import Path

import nbformat
import pytest
from nbformat import v4
from typer.testing import CliRunner

from coursework.cli import app
from coursework.exercises.exercise import lesson_derivations
from coursework.grading import classroom, gradebook, handin, lms, pages
from coursework.grading.feedback import page
from coursework.grading.handin import Lesson
from coursework.grading.marking import Mark
from coursework.grading.names import safe_id
from coursework.grading.standing import check_cell
from coursework.grading.tables import harmless
from coursework.grading.writing import cell_name
from tests.helpers import ROOT

pytestmark = pytest.mark.extra("instructor")

HELLO = Lesson("00_start_here", {"0.1": "squared_norm"})
FUNCTIONS = {"3.1": "quadratic_form", "3.2": "hutchinson", "3.3": "trace_variance"}
SLICED = Lesson("03_sliced_score_matching", FUNCTIONS, prompts={d.id: d.prompt for d in lesson_derivations(3)})
LESSONS = [HELLO, SLICED]
DERIVATION = "derivation-3-3"
REAL = pages.Worker
CELLS = {lesson.name: [check_cell(exercise) for exercise in lesson.functions] for lesson in LESSONS}
CELLS[SLICED.name].append(DERIVATION)


class Judge:
    """In the place of the sandbox: an answer is right that says so. It can be interrupted, and counts its calls."""

    missing, calls, fuse = (), 0, -1

    def __init__(self, rules):
        self.rules = rules

    def grade(self, handed_in, lesson, *_):
        Judge.calls += 1
        burn(Judge)
        right = {cell.exercise for cell in handed_in.cells if cell.role == "exercise" and "right" in cell.source}
        right |= set(self.rules.allowed)
        marks = [Mark(e, "passed" if e in right else "wrong", "a message") for e in lesson.functions]
        return marks, [cell.source for cell in handed_in.cells if "remark" in cell.source]

    def close(self):
        pass


class Worker:
    """In the place of a process: pages are made here."""

    fuse = -1

    def ask(self, arguments, plain):
        burn(Worker)
        return page(*arguments, plain=plain)

    def close(self):
        pass


def burn(of) -> None:
    """Interrupts where the fuse ends."""
    of.fuse -= 1
    if of.fuse == 0:
        raise KeyboardInterrupt


def opened(course: Path):
    """nbgrader's own gradebook of a course directory."""
    from nbgrader.api import Gradebook

    return Gradebook(f"sqlite:///{course / 'gradebook.db'}", "course")


def solution(name: str, kind: str, source: str, points: float | None = None):
    from nbgrader.utils import compute_checksum

    own = {"schema_version": 3, "grade_id": name, "locked": False, "solution": True, "grade": points is not None}
    own |= {"task": False} | ({"points": points} if points is not None else {})
    cell = v4.new_code_cell(source) if kind == "code" else v4.new_markdown_cell(source)
    cell.metadata.update({"nbgrader": own, "coursework": {"role": "exercise", "id": name[9:].replace("-", ".")}})
    cell.metadata.nbgrader["checksum"] = compute_checksum(cell)
    return cell


def check(exercise: str):
    own = {"schema_version": 3, "grade_id": check_cell(exercise), "locked": True, "solution": False, "grade": True}
    cell = v4.new_code_cell(f'f = check("{exercise}", f)')
    cell.metadata.update(nbgrader=own | {"points": 1.0, "task": False}, coursework={"role": "check", "id": exercise})
    return cell


@pytest.fixture(scope="module")
def template(tmp_path_factory):
    """A course directory with a short release of both lessons."""
    folder = tmp_path_factory.mktemp("course")
    (folder / "nbgrader_config.py").write_text(
        'c = get_config()\nc.CourseDirectory.course_id = "course"\nc.LateSubmissionPlugin.penalty_method = "zero"\n'
    )
    with (
        gradebook.programs_of_this_python(),
        opened(folder) as book,
    ):
        for lesson in LESSONS:
            cells = [v4.new_markdown_cell(f"# {lesson.name}\n\nA formula $x^2$.")]
            for exercise in lesson.functions:
                stub = solution(check_cell(exercise).replace("check", "exercise"), "code", "raise NotAttempted")
                cells += [stub, check(exercise)]
            cells += [
                solution(cell_name(d.id), "markdown", "*Write your answer here.*", 2.0)
                for d in lesson_derivations(lesson.number)
            ]
            path = folder / "release" / lesson.name / f"{lesson.name}.ipynb"
            path.parent.mkdir(parents=True)
            nbformat.write(v4.new_notebook(cells=cells), path)
            book.add_assignment(lesson.name, course_id="course")
            book.add_notebook(lesson.name, lesson.name)
            for cell in cells[1:]:
                own = cell.metadata.nbgrader
                if own.grade:
                    worth = {"max_score": own.points, "cell_type": cell.cell_type}
                    book.add_grade_cell(own.grade_id, lesson.name, lesson.name, **worth)
                if own.solution:
                    book.add_solution_cell(own.grade_id, lesson.name, lesson.name)
    (folder / "points.yaml").write_text("default: 1\n")
    return folder


class School:
    """A class, its course directory and its grading, driven by the commands."""

    def __init__(self, folder: Path, template: Path) -> None:
        self.submissions, self.course, self.out = folder / "in", folder / "course", folder / "out"
        self.submissions.mkdir()
        for path in template.rglob("*"):
            if path.is_file():
                target = self.course / path.relative_to(template)
                target.parent.mkdir(parents=True, exist_ok=True)
                target.write_bytes(path.read_bytes())

    def hand_in(self, student: str, lesson: Lesson, right: set[str], derivation: str = "", extra: str = "") -> Path:
        """Writes a notebook in which these exercises are right."""
        cells = [
            solution(check_cell(e).replace("check", "exercise"), "code", "right" if e in right else "not so")
            for e in lesson.functions
        ]
        cells += [
            solution(cell_name(d.id), "markdown", derivation, 2.0)
            for d in lesson_derivations(lesson.number)
            if derivation
        ]
        cells += [v4.new_code_cell(extra)] if extra else []
        path = self.submissions / student / f"{lesson.name}.ipynb"
        path.parent.mkdir(exist_ok=True)
        nbformat.write(v4.new_notebook(cells=cells), path)
        return path

    def grade(self, *options, course: bool = True, status: int = 0):
        where = ["--course", self.course] if course else []
        return self.call("grade", self.submissions, "--out", self.out, *where, *options, status=status)

    def points(self, *options, status: int = 0):
        return self.call("points", *options, "--course", self.course, "--out", self.out, status=status)

    def call(self, *arguments, status: int = 0):
        result = CliRunner().invoke(app, list(map(str, arguments)))
        assert result.exit_code == status, result.output
        return result

    def book(self):
        return opened(self.course)

    def by_hand(self, student: str, lesson: Lesson, cell: str, **values) -> None:
        """What a person does in the Formgrader."""
        with self.book() as book:
            grade = book.find_grade(cell, lesson.name, lesson.name, safe_id(student))
            for name, value in values.items():
                setattr(grade, name, value)
            grade.needs_manual_grade = False
            book.db.commit()

    def comment(self, student: str, text: str) -> None:
        with self.book() as book:
            comment = book.find_comment(DERIVATION, SLICED.name, SLICED.name, safe_id(student))
            comment.manual_comment = text
            book.db.commit()

    def rows(self, name: str) -> list[list[str]]:
        with (self.out / f"{name}.csv").open(encoding="utf-8", newline="") as file:
            return list(csv.reader(file))

    def scores(self) -> dict[tuple[str, str], tuple[float, float]]:
        """Points and their most by student and lesson; fails where any table, page or the gradebook says another."""
        marks: dict = {}
        for student, lesson, _, outcome, points, most, *_ in self.rows("marks")[1:]:
            if outcome == "nothing handed in":
                continue
            had = marks.get((student, lesson), (0.0, 0.0))
            marks[student, lesson] = had[0] + float(points), had[1] + float(most)
        whole: dict = {}
        for name, start in (("totals", 1), ("moodle", 1), ("blackboard", 1), ("canvas", 2)):
            header, *lines = self.rows(name)
            columns = [(i, cell.partition(" ")[0]) for i, cell in enumerate(header) if cell.startswith(("00_", "03_"))]
            found = {(r[0], lesson): float(r[i]) for r in lines[start - 1 :] for i, lesson in columns if r[i] != ""}
            if name == "totals":
                assert {key: found[key] for key in marks} == pytest.approx({key: marks[key][0] for key in marks})
                assert all(not value for key, value in found.items() if key not in marks)
                for row in lines:
                    mine = [value for (student, _), value in found.items() if student == row[0]]
                    assert float(row[-4]) == pytest.approx(sum(mine))
                whole = {row[0]: int(row[-1]) for row in lines}
            else:
                assert found == pytest.approx({key: value[0] for key, value in marks.items()}), name
        with self.book() as book:
            waiting = dict.fromkeys(whole, 0)
            for (student, lesson), (points, most) in marks.items():
                submission = book.find_submission(lesson, safe_id(student))
                (notebook,) = submission.notebooks
                assert submission.score - (submission.late_submission_penalty or 0) == pytest.approx(points)
                assert submission.max_score == pytest.approx(most)
                waiting[student] += sum(grade.needs_manual_grade for grade in notebook.grades)
                text = self.page(student, lesson)
                shown = re.search(r"Score: <strong>([\d.]+) of ([\d.]+)</strong>", text)
                assert (float(shown[1]), float(shown[2])) == pytest.approx((points, most))
                comments = [c.manual_comment for c in notebook.comments if c.manual_comment]
                assert [comment in text for comment in comments] == [True] * len(comments)
        assert waiting == whole
        return marks

    def page(self, student: str, lesson: str) -> str:
        path = self.course / "feedback" / safe_id(student) / lesson / f"{lesson}.html"
        return path.read_text(encoding="utf-8")


@pytest.fixture
def school(tmp_path, template, monkeypatch):
    monkeypatch.chdir(ROOT)
    monkeypatch.setattr(classroom, "Grader", Judge)
    monkeypatch.setattr(pages, "Worker", Worker)
    monkeypatch.setattr(handin, "course_lessons", lambda root: LESSONS)
    Judge.calls, Judge.fuse, Worker.fuse = 0, -1, -1
    return School(tmp_path, template)


def walk(school: School, seed: int, steps: int) -> None:
    """Random operations. After a grading that was not interrupted all agree, after one of everything with the model."""
    chance = random.Random(seed)
    students = ["anna", "ben [2]", "Zoë"]
    right: dict = {}
    hand: dict = {}  # share of its worth that a person gave a cell
    extra: dict = {}
    worth = dict.fromkeys([cell for cells in CELLS.values() for cell in cells], 1.0) | {DERIVATION: 2.0}
    in_book: list = []

    def expected() -> dict:
        return {
            (student, lesson): (
                sum(
                    worth[cell] * hand.get((student, cell), float(cell in answers)) + extra.get((student, cell), 0.0)
                    for cell in CELLS[lesson]
                ),
                sum(worth[cell] for cell in CELLS[lesson]),
            )
            for (student, lesson), answers in right.items()
        }

    def hand_in() -> None:
        student, lesson = chance.choice(students), chance.choice(LESSONS)
        answers = {exercise for exercise in lesson.functions if chance.random() < 0.5}
        right[student, lesson.name] = {check_cell(exercise) for exercise in answers}
        school.hand_in(student, lesson, answers, chance.choice(["", "Because.", "Since."]), f"# {chance.random()}")

    def by_hand() -> None:
        student, name = chance.choice(in_book)
        lesson = next(lesson for lesson in LESSONS if lesson.name == name)
        cell = chance.choice(CELLS[name])
        if worth[cell]:
            hand[student, cell], extra[student, cell] = chance.choice([0.0, 0.5, 1.0]), chance.choice([0.0, 0.25])
            score = hand[student, cell] * worth[cell]
            school.by_hand(student, lesson, cell, manual_score=score, extra_credit=extra[student, cell])
            if lesson is SLICED:
                school.comment(student, f"Well done {chance.random()}")

    def weigh() -> None:
        cell = chance.choice(list(worth))
        worth[cell] = chance.choice([0.0, 1.0, 2.0, 3.0])
        kind, *number = cell.split("-")
        entry = f"{'derivation-' if kind == 'derivation' else ''}{'.'.join(number)}={worth[cell]:g}"
        school.points(entry)
        school.scores()

    for _ in range(3):
        hand_in()
    school.grade()
    for _ in range(steps):
        in_book = sorted(school.scores())
        what = chance.randrange(7)
        if what < 2:
            hand_in()
        elif what == 2:
            by_hand()
        elif what == 3:
            weigh()
        elif what == 4:
            school.grade(course=False)
        elif what == 5:
            chance.choice([Judge, Worker]).fuse = chance.randint(1, 3)
            result = CliRunner().invoke(
                app, ["grade", str(school.submissions), "--out", str(school.out), "--course", str(school.course)]
            )
            blown = 0 in (Judge.fuse, Worker.fuse)
            Judge.fuse = Worker.fuse = -1
            assert result.exit_code == (130 if blown else 0), result.output
        else:
            student, lesson = chance.choice(sorted(right))
            school.grade(*chance.choice([("--student", student), ("--lesson", lesson), ("--again",)]))
            school.scores()
        if chance.random() < 0.5:
            school.grade()
            assert school.scores() == {key: pytest.approx(value) for key, value in expected().items()}
        else:
            school.points()
    school.grade()
    assert school.scores() == {key: pytest.approx(value) for key, value in expected().items()}


@pytest.mark.parametrize("seed", [1, 2])
def test_all_agree_after_any_sequence(seed, school):
    walk(school, seed, 14)


@pytest.mark.parametrize("stage", ["grading", "gradebook", "pages"])
def test_an_interrupt_ends_with_130_and_the_same_command_goes_on(stage, school, monkeypatch):
    school.hand_in("anna", SLICED, {"3.1", "3.2"})
    school.grade()
    school.hand_in("anna", SLICED, {"3.1"})
    if stage == "gradebook":
        with monkeypatch.context() as patch:
            patch.setattr(gradebook.Gradebook, "_rebuilt", interrupted)
            result = school.grade(status=130)
    else:
        (Judge if stage == "grading" else Worker).fuse = 1
        result = school.grade(status=130)
    assert result.stderr.endswith("coursework: interrupted; the same command goes on where it stopped\n")
    if stage == "pages":  # the tables were there before them
        assert school.rows("totals")[1] == ["anna", "1", "1", "5", "20.0", "0"]
    school.grade()
    assert school.scores() == {("anna", SLICED.name): (1.0, 5.0)}


def interrupted(*_):
    raise KeyboardInterrupt


def test_points_change_without_grading_and_ask_nobody_to_look_again(school):
    school.hand_in("anna", SLICED, {"3.1", "3.2"}, "Because.")
    school.grade()
    assert school.rows("totals")[1] == ["anna", "2", "2", "5", "40.0", "1"]
    school.by_hand("anna", SLICED, DERIVATION, manual_score=1.5)
    school.by_hand("anna", SLICED, "check-3-3", manual_score=0.5)
    calls = Judge.calls
    for changes, points, most in (
        (["3.2=0", "3.1=8"], 10.0, 11.0),
        (["derivation-3.3=0", "3.3=0"], 8.0, 8.0),
        (["derivation-3.3=4", "3.3=2"], 12.0, 14.0),
    ):
        school.points(*changes)
        assert school.scores() == {("anna", SLICED.name): (points, most)}
        assert school.rows("totals")[1][-1] == "0"
    assert Judge.calls == calls
    school.grade()
    assert school.scores() == {("anna", SLICED.name): (12.0, 14.0)}
    assert Judge.calls == calls


def test_points_of_a_file_become_the_courses(school, tmp_path):
    school.hand_in("anna", SLICED, {"3.1"})
    (tmp_path / "mine.yaml").write_text("exercises:\n  3.1: 4\n")
    result = school.grade("--points", tmp_path / "mine.yaml")
    assert f"{school.course / 'points.yaml'} is now what {tmp_path / 'mine.yaml'} says" in result.stderr
    school.grade()
    assert school.scores() == {("anna", SLICED.name): (4.0, 8.0)}
    assert "no exercise" not in school.points("3.9=1", status=2).stderr
    assert "points: derivation-0.1 is not assigned" not in school.points("derivation-0.1=1", status=2).stderr
    result = school.points("derivation-4.2=1", status=2)
    assert result.stderr == f"coursework: points: derivation-4.2 is not assigned in {school.course}\n"
    (school.course / "points.yaml").unlink()
    assert "has no points.yaml: say by --points what exercises are worth" in school.grade(status=2).stderr


def test_points_that_somebody_else_changed_are_the_courses_again_and_that_is_said(school):
    school.hand_in("anna", SLICED, {"3.1"}, "Because.")
    school.grade()
    school.by_hand("anna", SLICED, DERIVATION, manual_score=1.5)
    with school.book() as book:
        book.find_grade_cell(DERIVATION, SLICED.name, SLICED.name).max_score = 8.0
        book.db.commit()
    change = f"{SLICED.name}: {DERIVATION} was worth 8 in the gradebook, and is worth 2, as the course's points say"
    assert f"note: {change}" in school.grade().stderr
    assert school.scores() == {("anna", SLICED.name): (2.5, 5.0)}


def test_what_a_person_graded_is_marked_for_another_look_after_a_resubmission(school):
    school.hand_in("anna", SLICED, set(), "Because.")
    school.grade()
    school.by_hand("anna", SLICED, DERIVATION, manual_score=1.5)
    school.comment("anna", "<b>why?</b>")
    school.grade("--again")
    assert school.rows("totals")[1][-1] == "0"
    assert school.rows("marks")[4][2:6] == ["derivation 3.3", "graded", "1.5", "2"]
    page = school.page("anna", SLICED.name)
    assert "&lt;b&gt;why?&lt;/b&gt;" in page
    assert "<b>why?</b>" not in page
    school.hand_in("anna", SLICED, set(), "Because, and so.")
    school.grade()
    assert school.rows("totals")[1][1:] == ["1.5", "1.5", "5", "30.0", "1"]
    assert "1.5 of 2, to be looked at again" in school.page("anna", SLICED.name)


def test_a_page_names_its_exercises_says_what_is_open_and_asks_nothing_of_the_internet(school):
    school.hand_in("anna", SLICED, {"3.1"}, "Because $x$, see ![a picture](https://example.org/a.png).", "own = 1")
    school.grade()
    page = school.page("anna", SLICED.name)
    assert re.findall(r'<li><a href="#[^"]+">([^<]+)</a>: ([^<]+)</li>', page) == [
        ("Exercise 3.1", "1 of 1"),
        ("Exercise 3.2", "0 of 1"),
        ("Exercise 3.3", "0 of 1"),
        ("Derivation 3.3", "not yet graded, 2 points"),
    ]
    assert "Score: <strong>1 of 5</strong>; not yet graded: 1." in page
    assert "default-src 'none'; img-src data:" in page
    assert not re.search(r'<(script|link|iframe)[^>]*(src|href)="(?!\.\./)', page)
    (script,) = re.findall(r'<script[^>]*src="([^"]*)"', page) or [""]
    assert script in ("", "../../tex-svg.js")
    assert bool(script) == (school.course / "feedback" / "tex-svg.js").is_file()


def test_a_page_that_takes_too_long_is_a_plain_one_and_keeps_no_other_from_being_made(school, monkeypatch):
    monkeypatch.setattr(pages, "Worker", REAL)
    monkeypatch.setattr(pages, "SECONDS", 10.0)
    school.hand_in("anna", SLICED, {"3.1"}, extra="x = 1\n" + " \n" * 20_000)
    school.hand_in("ben", SLICED, {"3.1"}, extra="y = 2")
    school.grade("--jobs", "2")
    assert school.scores() == {(name, SLICED.name): (1.0, 5.0) for name in ("anna", "ben")}
    assert school.rows("notes")[1:] == [["anna", SLICED.name, pages.PLAIN]]
    assert "<pre>x = 1" in school.page("anna", SLICED.name)
    assert '<span class="n">y</span>' in school.page("ben", SLICED.name)
    monkeypatch.setattr(pages, "Worker", Worker)
    Worker.fuse = 1  # nothing is made again
    school.grade()
    assert school.rows("notes")[1:] == [["anna", SLICED.name, pages.PLAIN]]


def test_one_submission_that_cannot_be_saved_keeps_no_other_from_the_gradebook(school, monkeypatch):
    for student in ("anna", "ben", "cleo"):
        school.hand_in(student, SLICED, {"3.1"})
    rebuilt = gradebook.Gradebook._rebuilt

    def fails(book, record, *rest):
        if record.submission.student == "ben":
            raise UnicodeEncodeError("utf-8", "\ud800", 0, 1, "surrogates not allowed")
        return rebuilt(book, record, *rest)

    with monkeypatch.context() as patch:
        patch.setattr(gradebook.Gradebook, "_rebuilt", fails)
        assert f"note: ben/{SLICED.name}: not in the gradebook: UnicodeEncodeError" in school.grade().stderr
    with school.book() as book:
        assert {s.student.id for s in book.find_assignment(SLICED.name).submissions if s.score} == {"anna", "cleo"}
    school.grade()
    assert len(school.scores()) == 3
    assert school.rows("notes") == [["student", "lesson", "note"]]


def test_a_file_that_changes_while_it_is_graded_is_graded_again(school, monkeypatch):
    path = school.hand_in("anna", SLICED, {"3.1"})
    grade = Judge.grade

    def slow(self, *given):
        found = grade(self, *given)
        school.hand_in("anna", SLICED, {"3.1", "3.2", "3.3"})
        return found

    with monkeypatch.context() as patch:
        patch.setattr(Judge, "grade", slow)
        result = school.grade(course=False)
    assert f"note: anna/{SLICED.name}: its file changed while it was graded; call this again" in result.stderr
    school.grade()
    assert school.scores() == {("anna", SLICED.name): (3.0, 5.0)}
    path.unlink()  # what was graded is kept
    school.points("3.1=2")
    assert school.scores() == {("anna", SLICED.name): (4.0, 6.0)}


def test_references_that_may_be_called_are_kept_and_are_the_lessons_own(school):
    school.hand_in("anna", HELLO, set())
    school.hand_in("anna", SLICED, set())
    school.grade(course=False)
    calls = Judge.calls
    school.grade("--allow-reference", "3.2", course=False)
    assert Judge.calls == calls + 1
    result = school.grade(course=False)
    assert Judge.calls == calls + 1
    assert "references that may be called, as said before: 3.2 (--forbid-reference takes one back)" in result.stderr
    assert school.rows("totals")[1][:4] == ["anna", "0", "1", "1"]
    school.grade("--forbid-reference", "3.2", course=False)
    assert Judge.calls == calls + 2
    assert school.rows("totals")[1][:4] == ["anna", "0", "0", "0"]
    assert school.grade(course=False).stderr.count("references") == 0


def test_notes_and_rows_of_all_are_there_whatever_was_graded_last(school):
    school.hand_in("anna", SLICED, {"3.1"}, extra="# a remark of the judge")
    copy = school.hand_in("ben", SLICED, {"3.1"})
    (copy.parent / "old.ipynb").write_bytes(copy.read_bytes())
    (school.submissions / "cleo").mkdir()
    school.hand_in("dora", HELLO, {"0.1"})
    school.grade()
    before = {name: school.rows(name) for name in ("marks", "totals", "notes", "moodle")}
    assert [row[:2] for row in before["notes"][1:]] == [["anna", SLICED.name], ["ben", SLICED.name]]
    assert "ipynb: left out, ben/" in before["notes"][2][2]
    assert [row[0] for row in before["totals"][1:]] == ["anna", "ben", "cleo", "dora"]
    assert [
        "cleo",
        SLICED.name,
        "",
        "nothing handed in",
        "0",
        "5",
        "",
        "an empty folder",
        "nothing handed in",
        "",
    ] in before["marks"]
    assert {row[8] for row in before["marks"] if row[:2] == ["ben", SLICED.name]} == {"several files", ""}
    for options in (("--student", "dora"), ("--lesson", "0"), ("--student", "anna", "--lesson", "3")):
        result = school.grade(*options)
        assert "left out" not in result.stderr
        assert {name: school.rows(name) for name in before} == before
    assert "student: " in school.grade("--student", "zoe", status=2).stderr


@pytest.mark.parametrize("name", ["a [1]", "b*?", "c<img src=x onerror=alert(1)>", "=1+1", "Points Possible", "d;=1+1"])
def test_names_of_all_kinds_are_in_the_gradebook_by_a_safe_id(name, school):
    school.hand_in(name, SLICED, {"3.1"})
    school.grade()
    row = school.rows("totals")[1]
    assert (row[0].replace("'", ""), row[1]) == (name, "1")
    with school.book() as book:
        ((submission,)) = book.find_assignment(SLICED.name).submissions
        assert (submission.student.id, submission.score) == (safe_id(name), 1.0)
    is_login = name[0] in "abc"
    assert school.rows("moodle")[1:] == ([[name, "1"]] if is_login else [])
    assert len(school.rows("canvas")) == 2 + is_login
    assert [row[1:] for row in school.rows("notes")[1:]] == ([] if is_login else [["", lms.NO_LOGIN]])


def test_lateness_is_known_where_it_was_collected_and_costs_the_same_everywhere(school):
    with school.book() as book:
        book.update_or_create_assignment(SLICED.name, duedate="2026-01-01 12:00:00 UTC")
        book.update_or_create_assignment(HELLO.name, duedate="2026-01-01 12:00:00 UTC")
    school.submissions = school.course / "submitted"
    times = {"anna": "2026-01-01 13:00:00 UTC", "ben": "2026-01-01 11:00:00 UTC", "cleo": "no date \udce9"}
    for student, time in times.items():
        path = school.submissions / student / SLICED.name / f"{SLICED.name}.ipynb"
        path.parent.mkdir(parents=True)
        path.write_bytes(school.hand_in(student, SLICED, {"3.1", "3.2"}).read_bytes())
        (school.submissions / student / f"{SLICED.name}.ipynb").unlink()
        (path.parent / "timestamp.txt").write_bytes(time.encode(errors="surrogateescape"))
    own = school.hand_in("dora", SLICED, {"3.1"}).parent / "timestamp.txt"
    own.write_text("2026-01-01 13:00:00 UTC")  # not where a collector writes it
    school.grade()
    assert {student: points for (student, _), (points, _) in school.scores().items()} == {
        "anna": 0.0,
        "ben": 2.0,
        "cleo": 2.0,
        "dora": 1.0,
    }
    assert ["anna", SLICED.name, "late", "late", "-2", "0", "", "", "", ""] in school.rows("marks")
    ((note,),) = [[row for row in school.rows("notes")[1:]]]
    assert note == ["cleo", SLICED.name, "its timestamp.txt holds no date: it is not known when it was handed in"]
    school.points("3.1=5")
    assert school.scores()["anna", SLICED.name] == (0.0, 9.0)


@pytest.mark.parametrize(
    ("cell", "shown"),
    [
        ("x;=1+1", "x;'=1+1"),
        ('x;"=1+1', "x;'\"=1+1"),
        ("x; =1", "x;' =1"),
        ("＝1", "'＝1"),
        ("＋1", "'＋1"),
        ("－1", "'－1"),
        ("＠x", "'＠x"),
        ("a\n=1", "a\n'=1"),
        ("a\t-1", "a\t'-1"),
        ("a\r@x", "a\r'@x"),
        ("a|+1", "a|'+1"),
        ("a\u2028=1", "a\u2028'=1"),
        ("\tx", "'\tx"),
        ("", ""),
        ("expected 2, got -2; see 3.1", "expected 2, got -2; see 3.1"),
        ("M\udcfcller", "M\\udcfcller"),
    ],
)
def test_no_cell_is_a_formula_whatever_separates_cells(cell, shown):
    assert harmless(cell) == shown


def test_a_cell_of_separators_takes_no_time():
    assert len(harmless(";" * 50_000 + "\n" * 50_000 + " " * 50_000)) == 150_000
