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
from nbgrader.api import Gradebook
from nbgrader.utils import compute_checksum
from typer.testing import CliRunner

from coursework._names import safe_id
from coursework.cli import app
from coursework.grading import classroom, gradebook, handin, pages
from coursework.grading.derivations import of_lesson
from coursework.grading.feedback import page
from coursework.grading.handin import Lesson
from coursework.grading.marking import Mark
from coursework.grading.points import check_cell

HELLO = Lesson("00_start_here", {"0.1": "squared_norm"})
SLICED = Lesson("03_sliced_score_matching", {"3.1": "quadratic_form", "3.2": "hutchinson", "3.3": "trace_variance"})
LESSONS = [HELLO, SLICED]
DERIVATION = "derivation-3-3"
ROOT = Path(__file__).parent.parent
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


def solution(name: str, kind: str, source: str, points: float | None = None):
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
        Gradebook(f"sqlite:///{folder / 'gradebook.db'}", "course") as book,
    ):
        for lesson in LESSONS:
            cells = [v4.new_markdown_cell(f"# {lesson.name}\n\nA formula $x^2$.")]
            for exercise in lesson.functions:
                stub = solution(check_cell(exercise).replace("check", "exercise"), "code", "raise NotAttempted")
                cells += [stub, check(exercise)]
            cells += [
                solution(d.grade_id, "markdown", "*Write your answer here.*", 2.0) for d in of_lesson(lesson.number)
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
        cells += [solution(d.grade_id, "markdown", derivation, 2.0) for d in of_lesson(lesson.number) if derivation]
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
        return Gradebook(f"sqlite:///{self.course / 'gradebook.db'}", "course")

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


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_all_agree_after_any_sequence(seed, school):
    walk(school, seed, 20)
