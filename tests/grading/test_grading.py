"""Grading: what is right earns its points, whatever stands around it, and the same submission always earns the same."""

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import warnings
from pathlib import Path

import psutil
import pytest
import torch
from typer.testing import CliRunner

from coursework.cli import app
from coursework.exercises import judging
from coursework.exercises.exercise import Exercise, find, lesson_exercises
from coursework.grading import finding, handin, stage
from coursework.grading.classroom import grade_here, open_tasks
from coursework.grading.grader import BUDGET, Grader, Rules
from coursework.grading.handin import Cell, HandIn, Lesson
from coursework.grading.marking import Exam
from coursework.grading.records import Records
from coursework.grading.sandboxed import wire
from coursework.grading.tables import table
from tests.grading.hostile.package import ANSWERS
from tests.helpers import ROOT

RULES = Rules("a secret for tests")
LESSONS = handin.course_lessons(ROOT)
EXERCISES = [exercise for lesson in LESSONS for exercise in lesson_exercises(lesson.number)]
SLICED = next(lesson for lesson in LESSONS if lesson.number == 3)
SETUP = "import torch\nfrom torch.func import jvp\nfrom coursework.exercises import NotAttempted, check"

every_exercise = pytest.mark.parametrize("exercise", EXERCISES, ids=lambda e: e.id)
every_lesson = pytest.mark.parametrize("lesson", LESSONS, ids=lambda lesson: lesson.name)


@pytest.fixture(scope="module", autouse=True)
def forward_mode():
    """torch complains about a part of its own at the first use of forward mode: here, and not in a judged mistake."""
    with warnings.catch_warnings(action="ignore"):
        torch.func.jvp(torch.sin, (torch.ones(1),), (torch.ones(1),))


@pytest.fixture(scope="module")
def grader():
    with Grader(RULES) as grader:
        yield grader


@pytest.fixture(scope="module")
def lenient():
    """A grader for an instructor who allows every reference to be called."""
    with Grader(Rules(RULES.secret, tuple(exercise.id for exercise in EXERCISES))) as grader:
        yield grader


def outcomes(marks):
    return {mark.exercise: mark.outcome for mark in marks}


def tree_notebook(tree: str, lesson: Lesson) -> dict:
    return json.loads((ROOT / tree / f"{lesson.name}.ipynb").read_text(encoding="utf-8"))


def grade(grader, notebook: dict, lesson: Lesson = SLICED):
    return grader.grade(handin.parse(json.dumps(notebook).encode(), lesson), lesson)


def change_cell(notebook: dict, role: str, exercise: str, source: str) -> None:
    wanted = {"role": role, "id": exercise}
    (cell,) = (cell for cell in notebook["cells"] if cell["metadata"].get("coursework") == wanted)
    cell["source"] = source


# -- invariants ------------------------------------------------------------------------------------------------------


@pytest.mark.lessons
@every_lesson
def test_the_solutions_score_everything_and_a_blank_lesson_nothing(lesson, grader):
    started = time.process_time()
    marks, remarks = grade(grader, tree_notebook("solutions", lesson), lesson)
    assert set(outcomes(marks).values()) == {"passed"}, marks
    assert [mark.flag for mark in marks] == [""] * len(marks), marks
    assert remarks == []
    marks, remarks = grade(grader, tree_notebook("notebooks", lesson), lesson)
    assert set(outcomes(marks).values()) == {"not attempted"}, marks
    assert [mark.flag for mark in marks] == [""] * len(marks), marks
    assert time.process_time() - started < BUDGET


def answer_of(exercise: Exercise, function, exam: Exam) -> bytes:
    """What the sandbox would send for a function, without the sandbox."""
    drawn = [exercise.case(seed) for seed in exam.seeds]
    return wire.pack("done", [{**exercise.observe(function, case), **judging.leaves(case)} for case in drawn])


def calls_of(exercise: Exercise, function, exam: Exam) -> list[int]:
    """What the process next door would have counted: the number of the case, once for each call."""
    drawn = [exercise.case(seed) for seed in exam.seeds]
    counted = [int(exercise.observe(function, case).get(exercise.counts, 0)) for case in drawn]
    return [number for number, calls in enumerate(counted) for _ in range(calls)]


@every_exercise
def test_each_mistake_loses_its_points_and_is_named_and_the_reference_passes(exercise):
    exam = Exam(exercise, "another secret")
    calls = calls_of(exercise, exercise.reference, exam)
    assert exam.judge(answer_of(exercise, exercise.reference, exam), "exit", 8.0, calls).outcome == "passed"
    for mistake in exercise.mistakes:
        try:
            answer = answer_of(exercise, mistake.wrong, exam)
            calls = calls_of(exercise, mistake.wrong, exam)
        except Exception:  # a mistake that raises has no values to be recognised by
            continue
        mark = exam.judge(answer, "exit", 8.0, calls)
        assert (mark.outcome, mark.misconception) == ("wrong", mistake.name)


def altered(answer: bytes, change) -> bytes:
    """The same answer of `3.2`, its arguments changed: what stands beside the results."""
    exercise = find("3.2")
    names = [[*exercise.observe(exercise.reference, case), *judging.leaves(case)] for case in drawn_of(exercise)]
    found = wire.unpack(answer, names)
    return wire.pack(
        "done", [{n: change(v) if n.startswith("argument") else v for n, v in c.items()} for c in found.cases]
    )


def drawn_of(exercise: Exercise) -> list:
    exam = Exam(exercise, "another secret")
    return [exercise.case(seed) for seed in exam.seeds]


@pytest.mark.parametrize("rounding", [1e-15, -1e-13, 1e-11])
def test_arguments_that_the_sandbox_rounds_otherwise_are_not_changed(rounding):
    """Its environment is empty, so its processor may take other instructions than ours."""
    exercise = find("3.2")
    exam = Exam(exercise, "another secret")
    answer = answer_of(exercise, exercise.reference, exam)
    rounded = altered(answer, lambda v: v * (1 + rounding) if isinstance(v, torch.Tensor) else v)
    assert exam.judge(rounded, "exit", 8.0).outcome == "passed"


@pytest.mark.parametrize("change", [lambda v: v + 1e-6, lambda v: v.float(), lambda v: v[:0], lambda v: None])
def test_arguments_that_an_answer_changed_are_told(change):
    exercise = find("3.2")
    exam = Exam(exercise, "another secret")
    answer = answer_of(exercise, exercise.reference, exam)
    mark = exam.judge(altered(answer, lambda v: change(v) if isinstance(v, torch.Tensor) else v), "exit", 8.0)
    assert mark.outcome == "wrong"
    assert "changes its arguments in place" in mark.message


@pytest.mark.lessons
def test_a_mistake_in_a_notebook_loses_exactly_its_points(grader):
    lesson = next(lesson for lesson in LESSONS if lesson.number == 8)
    blank = handin.parse(json.dumps(tree_notebook("solutions", lesson)).encode(), lesson)
    for exercise in lesson_exercises(8):
        for mistake in exercise.mistakes:
            source = f"{exercise.answer.imports}\n{mistake.text}"
            cells = tuple(
                Cell(source, "exercise", exercise.id) if (c.role, c.exercise) == ("exercise", exercise.id) else c
                for c in blank.cells
            )
            (mark,), _ = grader.grade(HandIn(cells), Lesson(lesson.name, {exercise.id: exercise.name}))
            assert (mark.outcome, mark.misconception) == ("wrong", mistake.name)


def test_two_mistakes_at_once_are_named(grader):
    (exercise, *_) = lesson_exercises(8)
    wrong = "x + h * (f * x - g**2 * score_value) + h * g * z"
    source = f"def euler_maruyama_step(x, score_value, f, g, h, z):\n    return {wrong}"
    lesson = Lesson("08_reverse_sde", {exercise.id: exercise.name})
    (mark,), _ = grader.grade(HandIn((Cell(source, "exercise", exercise.id),)), lesson)
    first, second = exercise.mistakes[0].name, exercise.mistakes[8].name
    assert mark.misconception == f"{judging.TWO} First: {first} Second: {second}"


def test_one_mistake_costs_one_exercise_and_nothing_else(grader):
    notebook = tree_notebook("solutions", SLICED)
    change_cell(notebook, "exercise", "3.1", "def quadratic_form(score, x, v):\n    return (score(x) * v).sum(1)\n")
    marks, _ = grade(grader, notebook)
    assert outcomes(marks) == {e: "wrong" if e == "3.1" else "passed" for e in SLICED.functions}
    assert "a derivative is missing" in marks[0].misconception


def test_the_same_submission_scores_the_same_and_warnings_lose_nothing(grader):
    notebook = tree_notebook("solutions", SLICED)
    noisy = (
        "import sys, warnings\nwarnings.warn('at the top')\n"
        "def fitted_slopes(covariance, radius):\n"
        "    warnings.warn('inside'); print('to the error stream', file=sys.stderr)\n"
        "    noise = torch.randn(3).sum() * 0\n"
        "    return -torch.stack([torch.full_like(radius, len(covariance)), radius**2]) / covariance.trace() + noise\n"
    )
    change_cell(notebook, "exercise", "3.6", noisy)
    first, _ = grade(grader, notebook)
    second, _ = grade(grader, notebook)
    assert outcomes(first) == outcomes(second) == dict.fromkeys(SLICED.functions, "passed")
    assert "to the error stream" in first[-1].printed
    assert "Python warned: inside" in first[-1].printed


def test_other_secrets_students_and_files_draw_other_cases():
    exercise = find("3.4")
    others = [("b", "anna/1"), ("a", "anna/2"), ("a", "ben/1"), ("a", "")]  # another secret, file, student
    exams = [Exam(exercise, *other) for other in [("a", "anna/1"), *others]] + [Exam(find("3.5"), "a", "anna/1")]
    assert len({exam.seed for exam in exams} | {exam.noise for exam in exams}) == 12
    assert Exam(exercise, "a", "anna/1").seed == exams[0].seed
    assert not torch.equal(Exam(exercise, "a").expected[0]["result"], Exam(exercise, "b").expected[0]["result"])


# -- what is run, and what is not ------------------------------------------------------------------------------------


def test_training_cells_are_not_run_and_helpers_are(grader):
    notebook = tree_notebook("solutions", SLICED)
    for cell in notebook["cells"]:
        if cell["metadata"].get("coursework", {}).get("role") == "lesson" and cell["cell_type"] == "code":
            cell["source"] = "raise SystemExit('a training cell was run')"
    helper = {
        "cell_type": "code",
        "metadata": {},
        "source": "half = 0.5\ndef square(a):\n    return a**2\n%matplotlib inline",
    }
    notebook["cells"].insert(6, helper)
    source = (
        "def ssm_loss(score, x, v):\n    value, product = jvp(score, (x,), (v,))\n"
        "    return ((product * v).sum(1) + half * square((value * v).sum(1))).mean()\n"
        "print(ssm_loss(a_score_that_was_trained, x, v))\n"
    )
    change_cell(notebook, "exercise", "3.4", source)
    marks, _ = grade(grader, notebook)
    assert outcomes(marks) == dict.fromkeys(SLICED.functions, "passed"), marks


def test_an_exercise_may_build_on_one_that_was_skipped_as_in_the_notebook(grader):
    lesson = next(lesson for lesson in LESSONS if lesson.number == 2)
    notebook, blank = tree_notebook("solutions", lesson), tree_notebook("notebooks", lesson)
    for exercise in ("2.3", "2.4"):
        (source,) = (
            c["source"]
            for c in blank["cells"]
            if c["metadata"].get("coursework") == {"role": "exercise", "id": exercise}
        )
        change_cell(notebook, "exercise", exercise, source)
    marks, _ = grade(grader, notebook, lesson)
    expected = {e: "not attempted" if e in ("2.3", "2.4") else "passed" for e in lesson.functions}
    assert outcomes(marks) == expected, marks
    change_cell(
        notebook,
        "exercise",
        "2.4",
        "def implicit_loss(score, x):\n    return (0.5 * (score(x)**2).sum(1) + jacobian_trace(score, x)).mean()\n",
    )
    marks, _ = grade(grader, notebook, lesson)
    assert outcomes(marks) == expected | {"2.4": "passed"}, marks


def test_the_message_names_the_learners_line(grader):
    notebook = tree_notebook("solutions", SLICED)
    change_cell(notebook, "exercise", "3.3", "def trace_variance(matrices, fourth_moment):\n    return matrices @ 5\n")
    mark = next(mark for mark in grade(grader, notebook)[0] if mark.exercise == "3.3")
    assert "Case 1: your function raises TypeError" in mark.message
    assert "line 2: return matrices @ 5" in mark.message
    change_cell(notebook, "exercise", "3.3", "def trace_variance(matrices, fourth_moment):\n    return (\n")
    mark = next(mark for mark in grade(grader, notebook)[0] if mark.exercise == "3.3")
    assert mark.message == "the cell does not parse: '(' was never closed (line 2)"


# -- the reference ---------------------------------------------------------------------------------------------------


REACHES = {
    "9.1": ANSWERS["9.1"][1],
    "9.2": ANSWERS["9.2"][0],
    "9.4": (f"from {find('9.4').reference.__module__} import karras_grid", "the reference"),
    "9.6": (
        """
from coursework.probability_flow import interpolate  # never mind importlib.reload(lesson_09)
interpolate(None, None, None)  # nothing needs this line: it is passed over
def great_circle(z_a, z_b, w):
    "The reference of coursework.exercises.lesson_09 and euler, heun, open (these words accuse nobody)."
    cosine = (z_a / z_a.norm()) @ (z_b / z_b.norm())
    angle = torch.arccos(cosine)
    return (torch.sin((1 - w) * angle)[:, None] * z_a + torch.sin(w * angle)[:, None] * z_b) / torch.sin(angle)
""",
        "",
    ),
}


def test_calling_the_package_is_no_attempt_and_its_name_is_told(grader, lenient):
    lesson = next(lesson for lesson in LESSONS if lesson.number == 9)
    lesson = Lesson(lesson.name, {exercise: lesson.functions[exercise] for exercise in REACHES})
    cells = [Cell(source, "exercise", exercise) for exercise, (source, _) in REACHES.items()]
    handed_in = HandIn((Cell("import torch", "setup"), *cells))
    marks, _ = grader.grade(handed_in, lesson)
    for mark, (_, name) in zip(marks, REACHES.values(), strict=True):
        expected = ("not attempted", f"calls {name}") if name else ("passed", "")
        assert (mark.outcome, mark.flag) == expected, mark
        assert name in mark.message or name == "the reference"
    marks, _ = lenient.grade(handed_in, lesson)
    assert [(mark.outcome, mark.flag) for mark in marks] == [("passed", "")] * 4, marks


def test_the_reference_cannot_be_loaded_afresh(grader):
    source = """
import importlib
from coursework import score_matching
def implicit_loss(score, x):
    return importlib.reload(score_matching).implicit_score_matching(score, x)
"""
    one = Lesson("02_explicit_score_matching", {"2.4": "implicit_loss"})
    (mark,), _ = grader.grade(HandIn((Cell(source, "exercise", "2.4"),)), one)
    assert mark.outcome == "wrong", mark
    assert "module 'coursework.score_matching'" in mark.message or "spec not found" in mark.message


# -- a class ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def school(tmp_path):
    """Three learners' submissions of lessons 00 and 03, in nbgrader's layout and in plain folders."""
    folder = tmp_path / "submissions"
    for student, tree, path in (
        ("anna", "solutions", "ps1"),
        ("ben", "notebooks", "."),
        ("cem", "solutions", "deep/er"),
    ):
        (folder / student / path).mkdir(parents=True)
        for lesson in ("00_start_here", "03_sliced_score_matching"):
            data = (ROOT / tree / f"{lesson}.ipynb").read_bytes()
            (folder / student / path / f"{lesson}.ipynb").write_bytes(data)
    return folder


def call(*arguments):
    return CliRunner().invoke(app, ["grade", *map(str, arguments)])


def rows(path: Path) -> list[list[str]]:
    return [line.split(",") for line in path.read_text(encoding="utf-8").splitlines()]


def without_seconds(path: Path) -> list[list[str]]:
    return [row[:-1] for row in rows(path)]


def test_a_class_is_graded_once_and_only_what_changed_again(school, tmp_path, monkeypatch):
    monkeypatch.chdir(ROOT)
    (tmp_path / "scratch").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "scratch"))
    out, options = tmp_path / "out", ("--lesson", "0", "--lesson", "3")
    result = call(school, "--out", out, *options)
    assert result.exit_code == 0, result.output
    assert rows(out / "totals.csv")[1:] == [
        ["anna", "1", "6", "7", "7", "100.0", "0"],
        ["ben", "0", "0", "0", "7", "0.0", "0"],
        ["cem", "1", "6", "7", "7", "100.0", "0"],
    ]
    marks = without_seconds(out / "marks.csv")
    result = call(school, "--out", out, *options)
    assert "6 of 6 submissions are graded already" in result.stderr
    assert "passed" not in result.stdout
    with (school / "ben" / "00_start_here.ipynb").open("ab") as file:
        file.write(b"\n")
    result = call(school, "--out", out, *options)
    assert result.stdout.count("passed") == 1
    assert "ben/00_start_here: 0 of 1 passed" in result.stdout
    result = call(school, "--out", out, *options, "--again", "--jobs", "2")
    assert result.stdout.count("passed") == 6
    assert without_seconds(out / "marks.csv") == marks
    assert list((tmp_path / "scratch").iterdir()) == []


def test_a_corrected_exercise_is_graded_again_and_no_other(school, tmp_path, monkeypatch):
    lessons = [lesson for lesson in LESSONS if lesson.number in (0, 3)]
    submissions = finding.find_submissions(school, lessons).submissions
    records = Records(tmp_path / "out")
    for record in grade_here(open_tasks(submissions, lessons, RULES, records), RULES):
        records.write(record)
    assert list(open_tasks(submissions, lessons, RULES, records)) == []
    package = tmp_path / "package"
    shutil.copytree(stage.PACKAGE / "exercises", package / "exercises")
    with (package / "exercises" / "lesson_00" / "mistakes.md").open("a") as file:
        file.write("3. Or look it up.\n")
    monkeypatch.setattr(stage, "PACKAGE", package)
    again = [task.submission.key for task in open_tasks(submissions, lessons, RULES, records)]
    assert again == ["anna/00_start_here", "ben/00_start_here", "cem/00_start_here"]


def test_points_are_the_instructors(school, tmp_path, monkeypatch):
    monkeypatch.chdir(ROOT)
    points = tmp_path / "points.yaml"
    points.write_text("exercises:\n  3.4: 10\n  3.5: 0.5\nlessons:\n  0: 4\ndefault: 2\n")
    result = call(school, "--out", tmp_path / "out", "--points", points)
    assert result.exit_code == 0, result.output
    assert rows(tmp_path / "out" / "totals.csv")[1] == ["anna", "4", "18.5", "22.5", "22.5", "100.0", "0"]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("nowhere", "--out", "out"), "submissions: nowhere is no folder"),
        ((".", "--out", "out", "--jobs", "0"), "jobs: expected at least 1, got 0"),
        ((".", "--out", "out", "--lesson", "77"), "no lesson '77' with exercises"),
        ((".", "--out", "out", "--allow-reference", "3.99"), "allow-reference: no exercise '3.99'"),
        (("tests/exercises", "--out", "out"), "tests/exercises holds no notebook of 00_start_here"),
        ((".", "--out", "out", "--points", "pyproject.toml"), "points: pyproject.toml: "),
    ],
)
def test_bad_requests_are_refused_in_one_line(arguments, words, monkeypatch, tmp_path):
    monkeypatch.chdir(ROOT)
    result = call(*[str(tmp_path / "out") if a == "out" else a for a in arguments])
    assert result.exit_code == 2
    assert words in result.stderr
    assert result.stderr.count("\n") == 1
    assert not (tmp_path / "out" / "marks.csv").exists()


def test_no_cell_of_a_table_is_a_formula():
    text = table([["=HYPERLINK(1)", "+1", "-1", "@x", "plain", 5, "a,b\nc"]])
    assert text == "'=HYPERLINK(1),'+1,'-1,'@x,plain,5,\"a,b\nc\"\n"


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGKILL])
def test_a_grading_that_is_stopped_leaves_nothing_behind_and_goes_on(how, school, tmp_path, monkeypatch):
    for student in ("dora", "emil", "fred"):
        (school / student).mkdir()
        notebook = tree_notebook("solutions", SLICED)
        change_cell(notebook, "exercise", "3.1", "def quadratic_form(score, x, v):\n    while True: pass\n")
        (school / student / f"{SLICED.name}.ipynb").write_text(json.dumps(notebook))
    scratch = tmp_path / "scratch"
    scratch.mkdir(mode=0o755)
    scratch.parent.chmod(0o755)
    command = [
        sys.executable,
        "-m",
        "coursework",
        "grade",
        str(school),
        "--out",
        str(tmp_path / "out"),
        "--lesson",
        "3",
    ]
    environment = os.environ | {"TMPDIR": str(scratch)}
    with subprocess.Popen(command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline().startswith("anna/03")
        for _ in range(3):
            line = process.stdout.readline()
            if line.startswith("cem"):
                break
        time.sleep(1)  # dora's endless loop is running
        family = psutil.Process(process.pid).children(recursive=True)
        assert len(family) >= 2
        process.send_signal(how)
        assert process.wait(120) == {signal.SIGTERM: 130, signal.SIGKILL: -9}[how]
    _, left = psutil.wait_procs(family, timeout=60)
    assert left == []
    assert list(scratch.iterdir()) == []
    graded = sorted(path.parent.name for path in (tmp_path / "out" / "records").glob("*/*.json"))
    assert graded == ["anna", "ben", "cem"]
    monkeypatch.chdir(ROOT)
    monkeypatch.setattr("coursework.grading.grader.LONGEST", 1.0)
    result = call(school, "--out", tmp_path / "out", "--lesson", "3")
    assert "3 of 6 submissions are graded already" in result.stderr
    assert rows(tmp_path / "out" / "totals.csv")[4][0:2] == ["dora", "5"]
