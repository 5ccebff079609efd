"""Assigning, collecting and giving back, by nbgrader's own commands around ours."""

import contextlib
import io
import json
import os
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path
from types import SimpleNamespace

import nbformat
import pytest
from typer.testing import CliRunner

from coursework._files import write_atomically
from coursework.cli import app
from coursework.course import doctor, publishing
from coursework.exercises.exercise import lesson_derivations
from coursework.grading import gradebook, release
from coursework.grading.points import Points, PointsError, read_points
from coursework.grading.rebuilding import without_html
from coursework.grading.release import CONFIG, course_api, programs_of_this_python
from tests.grading.test_grading import LESSONS, ROOT, SLICED, rows
from tests.grading.test_writing import PNG

pytestmark = pytest.mark.extra("instructor")

HELLO, FIRST, NAME = "00_start_here", "01_score_function", SLICED.name
POINTS = "default: 2\nlessons:\n  3: 12\nexercises:\n  3.4: 2\nderivations:\n  3.3: 4\n"


def call(*arguments):
    return CliRunner().invoke(app, list(map(str, arguments)))


@pytest.fixture(scope="module")
def course(tmp_path_factory):
    """A course directory with lessons 00 and 03 assigned, as the command makes it."""
    folder = tmp_path_factory.mktemp("course") / "ps 1 #ü (a)"
    folder.mkdir()
    (folder / "points.yaml").write_text(POINTS)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(ROOT)
        result = call("assign", "0", "3", "--points", folder / "points.yaml", "--out", folder)
    assert result.exit_code == 0, result.output
    return folder


def notebook(course: Path, tree: str, lesson: str = NAME):
    return nbformat.read(course / tree / lesson / f"{lesson}.ipynb", as_version=4)


def by_grade_id(found):
    return {cell.metadata.nbgrader.grade_id: cell for cell in found.cells if "nbgrader" in cell.metadata}


def nbgrader(course: Path, *arguments: str) -> str:
    """Runs a command of nbgrader in the course directory and returns what it prints."""
    command = [sys.executable, "-m", "nbgrader", *arguments]
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    environment = {key: value for key, value in os.environ.items() if key != "COURSEWORK_GRADING"} | {"PATH": path}
    done = subprocess.run(command, cwd=course, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout + done.stderr


def test_the_release_has_the_students_cells_and_the_instructors_points(course):
    released, student = by_grade_id(notebook(course, "release")), publishing.read(ROOT / "notebooks" / f"{NAME}.ipynb")
    for name, cell in by_grade_id(student).items():
        assert released[name].source == cell.source
    points = {name: cell.metadata.nbgrader.points for name, cell in released.items() if cell.metadata.nbgrader.grade}
    assert points == {f"check-3-{i}": 2.0 for i in range(1, 7)} | {"derivation-3-3": 4.0}
    assert by_grade_id(notebook(course, "release", HELLO))["check-0-1"].metadata.nbgrader.points == 2.0
    assert released["exercise-3-4"].source.rstrip().endswith("raise NotAttempted")


def test_the_rubric_stays_with_the_instructor(course):
    (derivation,) = lesson_derivations(3)
    source, released = by_grade_id(notebook(course, "source")), by_grade_id(notebook(course, "release"))
    assert "- 1.2: All products" in source["derivation-3-3"].source
    assert released["derivation-3-3"].source == "*Write your answer here.*"
    assert derivation.prompt in released["derivation-3-3-prompt"].source
    text = (course / "release" / NAME / f"{NAME}.ipynb").read_text(encoding="utf-8")
    worked = publishing.read(ROOT / "solutions" / f"{NAME}.ipynb")
    assert all(json.dumps(words)[1:-1] not in text for _, words in derivation.rubric)
    assert list(publishing.leaks(worked, notebook(course, "release"))) == []
    assert "- 1.2: All products" in (course / "rubric.md").read_text(encoding="utf-8")


def test_nbgrader_knows_the_assignments_and_makes_them_again(course):
    nbgrader(course, "generate_assignment", HELLO, "--force")
    with programs_of_this_python():
        found = {entry["name"]: entry for entry in course_api(course).get_assignments()}
    assert {name: entry["max_score"] for name, entry in found.items()} == {HELLO: 2.0, NAME: 16.0}
    assert all(entry["status"] == "draft" for entry in found.values())
    assert found[NAME]["max_written_score"] == 4.0


@pytest.mark.lessons
def test_nbgrader_validates_the_release_and_a_solved_lesson(course, tmp_path):
    untouched = course / "release" / HELLO / f"{HELLO}.ipynb"
    solved = tmp_path / f"{HELLO}.ipynb"
    solved.write_bytes((ROOT / "solutions" / f"{HELLO}.ipynb").read_bytes())
    assert "Success! Your notebook passes all the tests." in nbgrader(course, "validate", str(solved))
    assert "The following" in nbgrader(course, "validate", str(untouched))


def test_the_zip_holds_what_a_student_needs_and_no_solutions(course, tmp_path):
    with zipfile.ZipFile(io.BytesIO((course / "students.zip").read_bytes())) as archive:
        names = set(archive.namelist())
        readme = archive.read("coursework/README.md").decode()
        for lesson in (HELLO, NAME):
            released = (course / "release" / lesson / f"{lesson}.ipynb").read_bytes()
            assert archive.read(f"coursework/notebooks/{lesson}.ipynb") == released
        archive.extractall(tmp_path)
    program = "import sys; sys.path.insert(0, '.'); import coursework.cli as c; print(c.__file__); c.app(sys.argv[1:])"
    done = subprocess.run(
        [sys.executable, "-c", program, "check-submission", f"notebooks/{NAME}.ipynb"],
        cwd=tmp_path / "coursework",
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout.startswith(str(tmp_path)), done.stderr
    said = [NAME, *(f"3.{i}   not attempted" for i in range(1, 7)), "derivation 3.3: nothing is written"]
    assert done.stdout.splitlines()[1:] == [*said, "0 of 6 passed"]
    needed = (
        "pyproject.toml",
        "requirements.lock",
        "environment.yml",
        "Makefile",
        "tools/set_up.py",
        "tools/jupyter_server_config.py",
    )
    assert {f"coursework/{name}" for name in (*needed, "coursework/exercises/lesson_03/cases.py")} <= names
    kept = ("solutions", "source", "derivations", "release.py", "gradebook", "records", ".db", "__pycache__")
    assert not [name for name in names if any(word in name for word in kept)]
    texts = [path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()]
    assert all(words.encode() not in text for text in texts for _, words in lesson_derivations(3)[0].rubric)
    assert f"| {NAME} | 6 | 12 | 3.3 | 4 |" in readme
    assert f"`anna_{HELLO}.ipynb`" in readme
    assert "{" not in readme


def answered(course: Path) -> dict:
    """A notebook: 3.1 is a known mistake, 3.2 is right, a derivation with a picture stands below its cell."""
    found = notebook(course, "release")
    cells, solved = by_grade_id(found), by_grade_id(publishing.read(ROOT / "solutions" / f"{NAME}.ipynb"))
    cells["exercise-3-1"].source = "def quadratic_form(score, x, v):\n    return (score(x) * v).sum(1)\n"
    cells["exercise-3-2"].source = solved["exercise-3-2"].source
    cells["check-3-2"].metadata.nbgrader.points = 1000
    written = nbformat.v4.new_markdown_cell("Because $a<b$. <script>alert(1)</script> ![](attachment:my photo.png)")
    written["attachments"] = {"my photo.png": {"image/png": PNG}}
    found.cells.insert(found.cells.index(cells["derivation-3-3"]) + 1, written)
    found.cells = [cell for cell in found.cells if cell.metadata.get("nbgrader", {}).get("grade_id") != "check-3-1"]
    return found


@pytest.fixture(scope="module")
def graded(course, tmp_path_factory):
    """The course after two students' files were collected and graded."""
    anna = tmp_path_factory.mktemp("in") / f"anna_{NAME}.ipynb"
    nbformat.write(answered(course), anna)
    moodle = tmp_path_factory.mktemp("moodle") / f"Ben Low_1234_assignsubmission_file_{NAME}.ipynb"
    moodle.write_bytes((ROOT / "solutions" / f"{NAME}.ipynb").read_bytes())
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(ROOT)
        result = call("collect", anna, moodle, "--course", course)
    assert result.exit_code == 0, result.output
    out = tmp_path_factory.mktemp("graded")
    command = ["grade", course / "submitted", "--out", out, "--course", course, "--points", course / "points.yaml"]
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(ROOT)
        result = call(*command, "--lesson", "3")
    assert result.exit_code == 0, result.output
    assert "note" not in result.stderr
    return course, out, [*command, "--lesson", "3"]


def test_collected_files_are_graded_into_the_gradebook(graded):
    course, out, _ = graded
    assert rows(out / "totals.csv")[1:] == [
        ["Ben Low", "12", "12", "16", "75.0", "0"],
        ["anna", "2", "2", "16", "12.5", "1"],
    ]
    with programs_of_this_python():
        found = {s["student"]: s for s in course_api(course).get_submissions(NAME)}
    assert {name: s["score"] for name, s in found.items()} == {"Ben Low": 12.0, "anna": 2.0}
    assert all(s["max_score"] == 16.0 for s in found.values())
    assert found["anna"]["needs_manual_grade"]
    exported = nbgrader(course, "export", "--to", str(out / "export.csv"))
    assert "Exporting" in exported
    assert "anna" in (out / "export.csv").read_text()


def test_feedback_names_the_mistake_and_runs_nothing_of_the_learners(graded):
    course, _, _ = graded
    page = (course / "feedback" / "anna" / NAME / f"{NAME}.html").read_text(encoding="utf-8")
    assert "This looks like a known mistake: this is v^T s" in page
    assert re.search(r"Exercise 3\.2 \(Hutchinson.*passed", page)
    assert "<script>alert(1)" not in page
    assert "&lt; script&gt;alert(1)" in page
    assert f"data:image/png;base64,{PNG}" in page
    assert "All products of two different terms" not in page
    assert "COURSEWORK_GRADING" not in os.environ


def test_points_that_a_person_gives_reach_the_tables_for_import(graded, monkeypatch):
    from nbgrader.api import Gradebook

    course, out, command = graded
    with programs_of_this_python(), Gradebook(f"sqlite:///{course / 'gradebook.db'}") as gradebook:
        grade = gradebook.find_grade("derivation-3-3", NAME, NAME, "anna")
        grade.manual_score, grade.needs_manual_grade = 3.0, False
        gradebook.db.commit()
    monkeypatch.chdir(ROOT)
    result = call(*command)
    assert "2 of 2 submissions are graded already" in result.stderr
    assert [row[2:] for row in rows(out / "totals.csv")[1:]] == [["12", "16", "75.0", "0"], ["5", "16", "31.2", "0"]]
    page = (course / "feedback" / "anna" / NAME / f"{NAME}.html").read_text(encoding="utf-8")
    assert "Score: <strong>5 of 16</strong>." in page
    assert rows(out / "moodle.csv") == [["username", NAME], ["Ben Low", "12"], ["anna", "5"]]
    assert rows(out / "canvas.csv")[1:] == [
        ["    Points Possible", "", "", "", "", "16"],
        ["Ben Low", "", "", "Ben Low", "", "12"],
        ["anna", "", "", "anna", "", "5"],
    ]
    assert rows(out / "blackboard.csv")[0] == ["Username", f"{NAME} [Total Pts: 16 Score]"]


def test_a_folder_that_is_no_course_directory_is_refused(graded, tmp_path, monkeypatch):
    course, _, _ = graded
    monkeypatch.chdir(ROOT)
    result = call("grade", course / "submitted", "--out", tmp_path / "out", "--lesson", "3", "--course", tmp_path)
    assert result.exit_code == 2
    assert "is no course directory: `coursework assign` makes one" in result.stderr
    shutil.copytree(course / "submitted" / "anna" / NAME, tmp_path / "in" / "anna")
    (tmp_path / "in" / "anna" / "05_langevin_dynamics.ipynb").write_text("{}")
    result = call("grade", tmp_path / "in", "--out", tmp_path / "out", "--course", course)
    assert "05_langevin_dynamics is not assigned in" in result.stderr


def test_html_tags_are_shown_and_formulas_stay():
    assert without_html("$a<b$, a < b <b>x</b><!-- -->") == "$a< b$, a < b < b>x< /b>< !-- -->"
    assert without_html("&lt;b> &amp;lt;b>") == "< b> < b>"  # formulas are decoded again by the page
    assert without_html("[x](JavaScript:alert) $\\href{data:text}{x}$ data") == (
        "[x](JavaScript :alert) $\\href{data :text}{x}$ data"
    )


# -- assigning more, and what cannot be assigned -----------------------------------------------------------------------


@pytest.fixture
def quick(monkeypatch):
    """Assigns without nbgrader: a lesson's release is its source."""

    def generate(course, lesson):
        text = release.source_path(course, lesson.name).read_text()
        write_atomically(course / "release" / lesson.name / f"{lesson.name}.ipynb", text)
        write_atomically(course / "gradebook.db", "")

    monkeypatch.setattr(release, "generate", generate)
    monkeypatch.chdir(ROOT)


def contents(folder: Path) -> dict:
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_a_lesson_that_is_added_leaves_the_instructors_settings_and_is_given_out_with_the_others(quick, tmp_path):
    out = tmp_path / "ps1"
    assert call("assign", "3", "--out", out).exit_code == 0
    config = CONFIG + "c.LateSubmissionPlugin.penalty_method = 'zero'\n"
    (out / "nbgrader_config.py").write_text(config)
    assert call("assign", "1", "--out", out).exit_code == 0
    assert (out / "nbgrader_config.py").read_text() == config
    assert "## 03_sliced_score_matching, 3.3" in (out / "rubric.md").read_text()
    assert "## 01_score_function, 1.2" in (out / "rubric.md").read_text()
    with zipfile.ZipFile(out / "students.zip") as archive:
        names = {name for name in archive.namelist() if name.endswith(".ipynb")}
        readme = archive.read("coursework/README.md").decode()
    assert names == {
        f"coursework/{folder}/{lesson}.ipynb" for folder in ("notebooks", ".released") for lesson in (FIRST, NAME)
    }
    assert f"| {FIRST} | 6 | 6 | 1.2 | 2 |" in readme
    assert f"| {NAME} | 6 | 6 | 3.3 | 2 |" in readme
    before = contents(out)
    assert call("assign", "1", "--out", out).exit_code == 0
    assert contents(out) == before


def test_an_assignment_that_fails_leaves_the_folder_as_it_was(quick, tmp_path, monkeypatch):
    out = tmp_path / "above" / "ps1"
    assert call("assign", "3", "--out", out).exit_code == 0
    before = contents(out)
    (out / "source" / NAME / f"{NAME}.ipynb").write_text("mine")
    before = contents(out)

    def fails(course, lesson):
        raise release.AssignError("nbgrader refuses it")

    monkeypatch.setattr(release, "generate", fails)
    for folder in (out, tmp_path / "new" / "deep"):
        result = call("assign", "1", "3", "--out", folder)
        assert (result.exit_code, result.stderr) == (2, "coursework: nbgrader refuses it\n")
    assert contents(out) == before
    assert not (out / "source" / FIRST).exists()
    assert [path.name for path in tmp_path.iterdir()] == ["above"]


@pytest.mark.parametrize("name", ["week?1", "ps%20", "100%", "ps[1]", "a*", "tab\t", os.fsdecode(b"M\xfc")])
def test_a_path_that_nbgrader_mistakes_is_refused_before_anything_is_written(name, tmp_path, monkeypatch):
    monkeypatch.chdir(ROOT)
    for out in (tmp_path / name, tmp_path / name / "ps1"):
        result = call("assign", "0", "--out", out)
        assert result.exit_code == 2
        assert result.stderr.count("\n") == 1
        assert "nbgrader takes no folder with" in result.stderr
        with pytest.raises(gradebook.GradebookError, match="nbgrader takes no folder with"):
            gradebook.check_course(out, [])
    assert list(tmp_path.iterdir()) == []


def test_a_place_that_cannot_be_written_is_refused_in_a_line(tmp_path, monkeypatch):
    monkeypatch.chdir(ROOT)
    (tmp_path / "file").touch()
    result = call("assign", "0", "--out", tmp_path / "file")
    assert result.exit_code == 2
    assert result.stderr.count("\n") == 1
    assert (tmp_path / "file").read_bytes() == b""


@pytest.mark.parametrize(
    ("result", "raised", "words"),
    [
        ({"error": "Traceback\nKeyboardInterrupt"}, KeyboardInterrupt, "^$"),
        (
            {
                "log": "[ERROR] x\nsqlite3.OperationalError: disk is full\n",
                "error": "a.NbGraderException: Please see the",
            },
            release.AssignError,
            "03_sliced_score_matching: nbgrader refuses it: sqlite3.OperationalError: disk is full",
        ),
    ],
)
def test_what_nbgrader_fails_by_is_said_in_a_line_and_an_interrupt_is_one(result, raised, words, monkeypatch, tmp_path):
    api = SimpleNamespace(generate_assignment=lambda *given, **options: {"success": False} | result)
    monkeypatch.setattr(release, "course_api", lambda course: api)
    with pytest.raises(raised, match=words):
        release.generate(tmp_path, SLICED)


def test_a_configuration_that_is_no_program_is_refused_by_name(tmp_path):
    (tmp_path / "nbgrader_config.py").write_text("c = (\n")
    with pytest.raises(release.AssignError, match=r"nbgrader_config\.py: SyntaxError"):
        course_api(tmp_path)


@pytest.mark.parametrize("ending", ["", "raise ValueError('no')"])
def test_what_a_configuration_sets_stays_with_nbgrader(ending, tmp_path, monkeypatch):
    monkeypatch.setenv("COURSEWORK_GRADING_SEED", "5")
    lines = "import os", "os.environ['COURSEWORK_GRADING'] = '1'", "del os.environ['COURSEWORK_GRADING_SEED']", ending
    (tmp_path / "nbgrader_config.py").write_text("\n".join(lines))
    before = dict(os.environ)
    with pytest.raises(release.AssignError) if ending else contextlib.nullcontext():
        course_api(tmp_path)
    assert dict(os.environ) == before


# -- what students get -------------------------------------------------------------------------------------------------


@pytest.fixture
def students_tree(quick, tmp_path, monkeypatch):
    """The unpacked zip of lesson 03, as the current directory."""
    assert call("assign", "3", "--out", tmp_path / "ps1").exit_code == 0
    with zipfile.ZipFile(tmp_path / "ps1" / "students.zip") as archive:
        archive.extractall(tmp_path)
    monkeypatch.chdir(tmp_path / "coursework")
    return tmp_path / "coursework"


def test_students_get_a_fresh_lesson_from_what_was_given_out(students_tree):
    mine, fresh = students_tree / "notebooks" / f"{NAME}.ipynb", students_tree / ".released" / f"{NAME}.ipynb"
    mine.write_text("my work")
    result = call("reset", "3")
    assert result.exit_code == 0, result.output
    assert mine.read_bytes() == fresh.read_bytes()
    assert mine.with_name(f"{NAME}.mine-1.ipynb").read_text() == "my work"
    assert "no lesson '5'" in call("reset", "5").stderr


def test_the_doctor_misses_lessons_that_were_given_out_and_no_others(students_tree, monkeypatch):
    monkeypatch.setattr(doctor, "lock_finding", lambda root: doctor.Finding("ok", "packages"))
    result = call("doctor")
    assert result.exit_code == 0, result.output
    assert "lessons: all that were given out are in notebooks/" in result.stdout
    (students_tree / "notebooks" / f"{NAME}.ipynb").unlink()
    result = call("doctor")
    assert result.exit_code == 1
    assert f"mend: coursework reset {NAME}" in result.stdout


@pytest.mark.parametrize(
    "command",
    [
        ("publish",),
        ("assign", "3", "--out", "x"),
        ("grade", ".", "--out", "x"),
        ("collect", ".", "--out", "x"),
        ("points", "3.1=2", "--course", ".", "--out", "x"),
    ],
)
def test_what_needs_the_solutions_says_so_first(command, students_tree, monkeypatch):
    for name in ("records", "release", "gradebook", "points", "collecting", "tables"):
        monkeypatch.setitem(sys.modules, f"coursework.grading.{name}", None)
    result = call(*command)
    assert result.exit_code == 2
    assert "is not a course tree (solutions/ missing)" in result.stderr


@pytest.mark.needs("make")
def test_make_lab_opens_the_first_lesson_that_is_there(students_tree):
    done = subprocess.run(["make", "-n", "lab"], cwd=students_tree, capture_output=True, text=True, check=True)
    assert f"default_url=/lab/tree/notebooks/{NAME}.ipynb" in done.stdout


# -- points --------------------------------------------------------------------------------------------------------


def test_points_of_a_lesson_are_shared_out():
    points = Points(exercises={"3.4": 2.0}, lessons={3: 12.0})
    assert [points.of(exercise, SLICED) for exercise in SLICED.functions] == [2.0] * 6
    assert points.total(SLICED) == 12.0
    assert Points().total(SLICED) == 6.0


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("exercises: [1]", "exercises: expected a table of points"),
        ("exercises:\n  3.99: 1", "exercises: there is no '3.99'"),
        ("exercises:\n  3.1: lots", "exercises: 3.1: expected a number of points, got 'lots'"),
        ("exercises:\n  3.1: -1", "not negative, got '-1'"),
        ("lessons:\n  77: 1", "lessons: there is no lesson '77'"),
        ("lessons:\n  3: 1\nexercises:\n  3.1: 2", "lesson 3: its exercises alone are worth more than 1"),
        ("derivations:\n  3.1: 1", "derivations: there is no '3.1'"),
        ("point: 1", "unknown entry 'point'"),
        ("- 1", "expected `exercises:` and the like, got a list"),
        ("a: [", "no YAML"),
        ("default: nan", "not negative, got 'nan'"),
    ],
)
def test_points_that_make_no_sense_are_refused(text, words, tmp_path):
    path = tmp_path / "points.yaml"
    path.write_text(text)
    with pytest.raises(PointsError, match=re.escape(words)):
        read_points(path)


def test_an_exercise_like_3_10_is_not_read_as_a_number(tmp_path):
    path = tmp_path / "points.yaml"
    path.write_text("exercises:\n  3.1: 5\n  10.1: 7\n")
    assert read_points(path).exercises == {"3.1": 5.0, "10.1": 7.0}


def test_every_rubric_adds_up_and_goes_with_an_exercise():
    derivations = {n: lesson_derivations(n) for n in range(20)}
    for derivation in (one for found in derivations.values() for one in found):
        assert sum(share for share, _ in derivation.rubric) == pytest.approx(1.0)
        assert any(derivation.id in lesson.functions for lesson in LESSONS), derivation.id
    assert {n for n, found in derivations.items() if found} == {int(lesson.name[:2]) for lesson in LESSONS} - {0}


@pytest.mark.parametrize("arguments", [("77",), ("3", "--points", "pyproject.toml")])
def test_a_bad_request_writes_nothing(arguments, tmp_path, monkeypatch):
    monkeypatch.chdir(ROOT)
    result = call("assign", *arguments, "--out", tmp_path / "out")
    assert result.exit_code == 2
    assert result.stderr.count("\n") == 1
    assert not (tmp_path / "out").exists()
