"""The command `coursework` over tiny lessons made here."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from xml.etree import ElementTree

import nbformat
import papermill
import psutil
import pytest
from nbformat import v4
from typer.testing import CliRunner

from coursework.cli import app
from coursework.cli.terminal import join_pairs
from coursework.course import doctor, executing, notebooks, publishing, running, workers
from coursework.course.doctor import Finding
from coursework.course.reports import Reports
from coursework.course.tree import TREES, CourseError, find_lessons, lessons
from tests.helpers import ROOT

PARAMETERS = "seed = 0\nsize: int = 3\nlow, high = 0, 1"


def write_lesson(path: Path, *cells: str, parameters: str | None = PARAMETERS) -> None:
    """Writes a notebook of code cells, the first one tagged `parameters`."""
    tagged = [v4.new_code_cell(parameters, id="parameters", metadata={"tags": ["parameters"]})] if parameters else []
    code = [v4.new_code_cell(source, id=f"cell-{i}") for i, source in enumerate(cells)]
    nbformat.write(v4.new_notebook(cells=[*tagged, *code]), path)


def make_tree(root: Path) -> Path:
    """Makes an empty course tree."""
    for name in TREES:
        (root / name).mkdir()
    return root


@pytest.fixture
def tree(tmp_path, monkeypatch):
    """An empty course tree, as the current directory."""
    monkeypatch.chdir(make_tree(tmp_path))
    return tmp_path


def call(*arguments: str):
    """Runs the command in this process; its outputs are in `.stdout` and `.stderr`."""
    return CliRunner().invoke(app, list(arguments))


def printed(path: Path) -> str:
    """What an executed lesson printed."""
    return "".join(executing.texts(nbformat.read(path, as_version=4)))


# The tree


@pytest.mark.parametrize(
    "command", [["doctor"], ["publish"], ["publish", "--check"], ["run"], ["reset", "01"], ["edit", "01"]]
)
def test_outside_a_course_tree_every_command_says_so(tmp_path, monkeypatch, command):
    monkeypatch.chdir(tmp_path)
    result = call(*command)
    assert result.exit_code == 2
    assert "is not a course tree (notebooks/ and solutions/ missing)" in result.stderr
    assert result.stderr.count("\n") == 1


# doctor


def test_doctor_without_problems(tree, monkeypatch):
    monkeypatch.setattr(doctor, "diagnose", lambda root: [Finding("ok", "Python 3"), Finding("note", "no data")])
    result = call("doctor")
    assert result.exit_code == 0
    assert result.stdout.splitlines() == ["ok      Python 3", "note    no data"]


def test_doctor_prints_the_mend_of_each_problem_and_fails(tree, monkeypatch):
    findings = [Finding("problem", "this", "do that"), Finding("ok", "fine"), Finding("problem", "these", "do those")]
    monkeypatch.setattr(doctor, "diagnose", lambda root: findings)
    result = call("doctor")
    assert result.exit_code == 1
    assert re.findall("mend: (.*)", result.stdout) == ["do that", "do those"]
    assert result.stdout.count("PROBLEM ") == 2


def test_doctor_finds_the_problems_of_an_empty_tree(tree):
    result = call("doctor")
    assert result.exit_code == 1
    assert "PROBLEM requirements.lock is missing\n        mend: git checkout requirements.lock" in result.stdout
    assert "PROBLEM lessons: " in result.stdout
    assert result.stdout.count("PROBLEM") == result.stdout.count("mend: ")


# publish


def test_publish_prints_what_it_wrote(tree, monkeypatch):
    monkeypatch.setattr(publishing, "publish", lambda root: [root / "notebooks" / "01_a.ipynb"])
    result = call("publish")
    assert (result.exit_code, result.stdout) == (0, f"{Path('notebooks/01_a.ipynb')}\n")


@pytest.mark.parametrize(("problems", "status"), [([], 0), (["01_a: stale", "02_b: missing"], 1)])
def test_publish_check_fails_where_the_trees_differ(tree, monkeypatch, problems, status):
    monkeypatch.setattr(publishing, "out_of_sync", lambda root: problems)
    result = call("publish", "--check")
    assert (result.exit_code, result.stdout.splitlines()) == (status, problems)


@pytest.mark.parametrize("arguments", [["publish"], ["publish", "--check"]])
def test_publish_prints_every_problem_of_the_sources(tree, monkeypatch, arguments):
    def fail(root):
        raise CourseError("first\nsecond")

    monkeypatch.setattr(publishing, "publish", fail)
    monkeypatch.setattr(publishing, "out_of_sync", fail)
    result = call(*arguments)
    assert (result.exit_code, result.stderr) == (1, "first\nsecond\n")


# edit


def test_edit_writes_a_text_and_the_lesson_from_it(tree):
    write_lesson(tree / "solutions" / "01_a.ipynb", "1 + 1")
    done = call("edit", "1")
    assert done.stdout == "edit build/edit/01_a.py, then: coursework edit 1 --save\n"
    text = tree / "build" / "edit" / "01_a.py"
    text.write_text(text.read_text() + "\n# %%\n2 + 2\n")
    assert call("edit", "1", "--save").stdout == "solutions/01_a.ipynb\n"
    assert [c.source for c in nbformat.read(tree / "solutions" / "01_a.ipynb", 4).cells][-2:] == ["1 + 1", "2 + 2"]


def test_edit_refuses_a_name_that_picks_nothing_in_one_line(tree):
    done = call("edit", "1")
    assert (done.exit_code, done.stderr) == (2, f"coursework: no lessons in {tree / 'solutions'}\n")


# run: names and parameters


def names(tree: Path, *wanted: str) -> list[str]:
    """The lessons that these names pick."""
    return [path.stem for path in find_lessons(tree / "notebooks", wanted)]


def test_names_pick_lessons_by_number_or_beginning(tree):
    for name in ("00_start", "01_score", "10_likelihood", "01_score.mine-1"):
        write_lesson(tree / "notebooks" / f"{name}.ipynb")
    assert names(tree) == ["00_start", "01_score", "10_likelihood"]
    assert names(tree, "1") == names(tree, "01") == names(tree, "01_sc") == ["01_score"]
    assert names(tree, "notebooks/01_score.ipynb", "0") == ["00_start", "01_score"]
    for unknown in ("2", "score", "100", ""):
        with pytest.raises(CourseError, match=r"no lesson .*; there are 00_start, 01_score, 10_likelihood"):
            names(tree, unknown)


def test_an_unknown_name_is_refused_in_one_line(tree):
    write_lesson(tree / "notebooks" / "01_a.ipynb")
    result = call("run", "7")
    assert (result.exit_code, result.stderr) == (2, "coursework: no lesson '7'; there are 01_a\n")


def test_pairs_are_joined_and_nothing_else():
    assert join_pairs(["01", "-p", "a", "-1", "--jobs", "2", "--parameter", "b", "c=d"]) == [
        *("01", "-p", "a=-1", "--jobs", "2", "--parameter", "b=c=d")
    ]
    assert join_pairs(["-p", "a"]) == ["-p", "a"]


def test_unknown_parameters_are_refused_before_anything_runs(tree):
    write_lesson(tree / "notebooks" / "01_a.ipynb")
    write_lesson(tree / "notebooks" / "02_b.ipynb", parameters=None)
    write_lesson(tree / "notebooks" / "03_c.ipynb", parameters="other = 1")
    result = call("run", "-p", "seed", "3")
    assert result.exit_code == 2
    assert result.stderr.splitlines() == [
        "coursework: 02_b has no cell tagged 'parameters', so it takes none",
        "03_c has no parameter 'seed'; it has other = 1",
    ]
    assert not (tree / "build").exists()


@pytest.mark.parametrize(
    ("arguments", "part"),
    [
        (["-p", "seed"], "-p"),
        (["-p", "0seed", "1"], "-p takes a name and a value"),
        (["--tree", "lessons"], "tree: expected one of notebooks, solutions, both, got 'lessons'"),
        (["--jobs", "0"], "Invalid value for '--jobs': Input should be greater than or equal to 1"),
        (["--timeout", "0"], "timeout: expected a positive number"),
        (["--lesson-timeout", "-1"], "lesson_timeout: expected a positive number"),
        (["--out", "notebooks"], "notebooks holds the lessons themselves"),
        (["--out", ".", "--tree", "both"], "solutions holds the lessons themselves"),
        (["--junit", "notebooks/01_a.ipynb"], "--junit: expected a .xml, got notebooks/01_a.ipynb"),
        (["-p", "seed", "1", "-p", "seed", "2"], "-p: seed is given twice"),
        (["-p", "size", "many"], "01_a: size takes a value of type int, got 'many' of type str; it has seed = 0"),
        (["--store"], "store: only for the tree solutions"),
        (["--store", "--tree", "solutions", "-p", "seed", "1"], "store: only for the tree solutions"),
    ],
)
def test_options_that_make_no_sense_are_refused(tree, arguments, part):
    write_lesson(tree / "notebooks" / "01_a.ipynb")
    write_lesson(tree / "solutions" / "01_a.ipynb")
    result = call("run", *arguments)
    assert result.exit_code == 2
    assert part in result.stderr
    assert result.stderr.count("\n") == 1


def test_an_empty_tree_is_refused(tree):
    result = call("run")
    assert result.exit_code == 2
    assert "no lessons in" in result.stderr


# run: executing


VERDICTS = """print("✓ Exercise 1.1 (a): passed")
print("○ Exercise 1.2 (b): not attempted\\n  Write: passed")
from IPython.display import display
class Box:
    __repr__ = lambda self: "✗ Exercise 1.3 (c: d): wrong\\n  Case 1"
display(Box())
Box()"""


@pytest.fixture(scope="module")
def executed(tmp_path_factory):
    """One run of five lessons, two at a time, each ending in another way."""
    root = make_tree(tmp_path_factory.mktemp("course"))
    folder = root / "notebooks"
    write_lesson(folder / "00_fine.ipynb", VERDICTS, "import os; print(os.getcwd(), os.environ.get('MKL_NUM_THREADS'))")
    write_lesson(folder / "01_fails.ipynb", "print('before')", "1 / 0", "print('after')")
    write_lesson(folder / "02_hangs.ipynb", "print('before')", "import time; time.sleep(60)")
    write_lesson(folder / "03_dies.ipynb", "import os; os._exit(3)")
    write_lesson(folder / "04_plain.ipynb", "print('plain')", parameters=None)
    before = Path.cwd()
    os.chdir(root)
    try:
        yield root, call("run", "--jobs", "2", "--timeout", "4")
    finally:
        os.chdir(before)


def test_a_lesson_that_dies_stops_no_other(executed):
    _, result = executed
    assert result.exit_code == 1
    table = result.stdout.rpartition("\n\n")[2].splitlines()
    assert re.split(r"\s{2,}", table[0]) == [
        *("lesson", "status", "seconds", "passed", "not attempted", "wrong", "error")
    ]
    assert [line.split()[:2] for line in table[1:]] == [
        *(["00_fine", "ok"], ["01_fails", "failed"], ["02_hangs", "failed"], ["03_dies", "failed"], ["04_plain", "ok"])
    ]


def test_the_table_gives_the_first_line_of_each_error(executed):
    _, result = executed
    errors = dict(re.findall(r"^(\d\d_\w+) +failed(?: +\S+){4}  (.*)$", result.stdout, re.MULTILINE))
    assert errors["01_fails"] == "cell [3]: ZeroDivisionError: division by zero"
    assert errors["02_hangs"] == "cell [3]: took more than 4 s"
    assert "Kernel died" in errors["03_dies"]


def test_the_table_counts_the_checks(executed):
    _, result = executed
    fine = next(line for line in result.stdout.splitlines() if re.match("00_fine +ok", line))
    assert fine.split()[3:] == ["1", "1", "2"]


def test_every_lesson_leaves_what_it_got_to(executed):
    root, _ = executed
    folder = root / "build" / "executed"
    assert sorted(path.name for path in folder.iterdir()) == [path.name for path in lessons(root / "notebooks")]
    assert "before" in printed(folder / "01_fails.ipynb")
    assert "after" not in printed(folder / "01_fails.ipynb")
    assert "before" in printed(folder / "02_hangs.ipynb")


def test_lessons_run_in_their_folder_and_choose_their_threads_themselves(executed):
    root, _ = executed
    assert f"{root / 'notebooks'} {os.environ.get('MKL_NUM_THREADS')}\n" in printed(
        root / "build" / "executed" / "00_fine.ipynb"
    )


def test_parameters_reach_the_lesson_and_out_is_respected(tree):
    write_lesson(tree / "notebooks" / "01_a.ipynb", "print(seed, size, low)")
    result = call("run", "1", "-p", "seed", "-7", "-p", "size", "20", "--out", "elsewhere")
    assert result.exit_code == 0
    assert printed(tree / "elsewhere" / "01_a.ipynb") == "-7 20 0\n"
    assert not (tree / "build").exists()


@pytest.fixture
def without_kernels(monkeypatch):
    """Lessons run in this process, and a cell's source is what it prints; "1 / 0" fails."""

    def execute_notebook(notebook, output, parameters, *, executed, **options):
        notebook.metadata["papermill"] = {}
        executed.append(notebook)
        for cell in notebook.cells:
            cell.metadata["papermill"] = {"start_time": "now"}
            if cell.source == "1 / 0":
                raise papermill.PapermillExecutionError(0, 2, cell.source, "ZeroDivisionError", "division by zero", [])
            cell.outputs = [v4.new_output("stream", name="stdout", text=cell.source)]

    monkeypatch.setattr(papermill, "execute_notebook", execute_notebook)
    monkeypatch.setattr(workers, "execute_all", lambda tasks, jobs: (executing.execute(task) for task in tasks))


def test_both_trees_in_one_run(tree, without_kernels):
    write_lesson(tree / "notebooks" / "01_a.ipynb", "student")
    write_lesson(tree / "notebooks" / "02_b.ipynb", "1 / 0")
    write_lesson(tree / "solutions" / "01_a.ipynb", "worked")
    (tree / "solutions" / "02_b.ipynb").write_text("no notebook")
    result = call("run", "--tree", "both", "--jobs", "2", "--junit", "build/report.xml", "--html", "build/pages")
    assert result.exit_code == 1
    assert re.findall(r"^(\w+/\w+) +(ok|failed)", result.stdout, re.MULTILINE) == [
        *[
            ("notebooks/01_a", "ok"),
            ("notebooks/02_b", "failed"),
            ("solutions/01_a", "ok"),
            ("solutions/02_b", "failed"),
        ]
    ]
    assert printed(tree / "build" / "executed" / "01_a.ipynb") == f"{PARAMETERS}student"
    assert printed(tree / "build" / "executed" / "solutions" / "01_a.ipynb") == f"{PARAMETERS}worked"
    cases = ElementTree.parse(tree / "build" / "report.xml").iter("testcase")
    assert [(case.get("classname"), case.get("name"), [i.get("message") for i in case]) for case in cases] == [
        ("notebooks", "01_a", []),
        ("notebooks", "02_b", ["cell [*]: ZeroDivisionError: division by zero"]),
        ("solutions", "01_a", []),
        ("solutions", "02_b", ["no valid notebook: Notebook does not appear to be JSON: 'no notebook'"]),
    ]
    pages = {str(path.relative_to(tree / "build" / "pages")) for path in (tree / "build" / "pages").rglob("*.html")}
    assert pages == {"index.html", "notebooks/01_a.html", "notebooks/02_b.html", "solutions/01_a.html"}
    assert "student" in (tree / "build" / "pages" / "notebooks" / "01_a.html").read_text()


def test_where_the_last_reports_cannot_be_written_the_run_goes_on_and_says_so(tree, without_kernels, monkeypatch):
    for name in ("01_a", "02_b"):
        write_lesson(tree / "notebooks" / f"{name}.ipynb", "printed")
    write, written = Reports.write, []

    def refuse(self, outcomes):
        written.append(len(outcomes))
        return "cannot write the report r.xml: No space left on device" if outcomes else write(self, outcomes)

    monkeypatch.setattr(Reports, "write", refuse)
    result = call("run", "--junit", "r.xml")
    assert (result.exit_code, result.stderr) == (
        2,
        "coursework: cannot write the report r.xml: No space left on device\n",
    )
    assert written == [0, 1, 2]
    assert re.findall(r"^(\w+) +ok ", result.stdout, re.MULTILINE) == ["01_a", "02_b"]


def test_names_pick_from_both_trees_and_one_that_is_in_one_only_is_refused(tree):
    write_lesson(tree / "notebooks" / "01_a.ipynb")
    write_lesson(tree / "solutions" / "01_a.ipynb")
    write_lesson(tree / "solutions" / "02_b.ipynb")
    tasks = running.plan(tree, ["1"], tree="both")
    assert [(task.tree, task.name) for task in tasks] == [("notebooks", "01_a"), ("solutions", "01_a")]
    with pytest.raises(CourseError, match="no lesson '2'; there are 01_a"):
        running.plan(tree, ["2"], tree="both")


def test_store_writes_outputs_back_and_nothing_that_changes(tree):
    path = tree / "solutions" / "01_a.ipynb"
    write_lesson(path, "draw()")
    before = nbformat.read(path, as_version=4)
    view = {"application/vnd.jupyter.widget-view+json": {"model_id": "random"}}
    executed = nbformat.read(path, as_version=4)
    executed.metadata["papermill"] = {"start_time": "now"}
    for i, cell in enumerate(executed.cells, 1):
        cell.execution_count, cell.metadata["execution"] = i, {"started": "now"}
    executed.cells[1].outputs = [
        v4.new_output("stream", name="stdout", text="0.0\n"),
        v4.new_output("display_data", {**view, "text/plain": "HBox()"}),
        v4.new_output("display_data", {**view, "text/html": "picture", "text/plain": "HBox()"}),
    ]
    notebooks.store_outputs(path, executed)
    after = nbformat.read(path, as_version=4)
    assert [cell.execution_count for cell in after.cells] == [1, 2]
    assert [output.get("text") or output.data for output in after.cells[1].outputs] == [
        "0.0\n",
        {"text/html": "picture", "text/plain": "HBox()"},
    ]
    for cell, old in zip(after.cells, before.cells, strict=True):
        assert (cell.id, cell.source, cell.metadata) == (old.id, old.source, old.metadata)
    assert after.metadata == before.metadata


@pytest.mark.skipif(os.name == "nt", reason="sends POSIX signals")
@pytest.mark.parametrize(("jobs", "sent"), [(1, signal.SIGINT), (2, signal.SIGTERM)])
def test_an_interrupt_leaves_no_kernel_behind(tree, jobs, sent):
    for name in ("01_a", "02_b")[:jobs]:
        code = f"import os, time; open('{name}.pid', 'w').write(str(os.getpid())); time.sleep(60)"
        write_lesson(tree / "notebooks" / f"{name}.ipynb", code)
    (tree / "notebooks" / "00_done.ipynb").write_text("no notebook, which takes no kernel to see")
    command = [
        sys.executable,
        "-m",
        "coursework",
        "run",
        "--jobs",
        str(jobs),
        "--junit",
        "report.xml",
        "--html",
        "pages",
    ]
    environ = {**os.environ, "PYTHONPATH": str(ROOT)}
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environ) as process:
        kernels = [kernel_of(tree / "notebooks" / f"{name}.pid") for name in ("01_a", "02_b")[:jobs]]
        process.send_signal(sent)
        _, error = process.communicate(timeout=60)
    assert process.returncode == 130
    assert error.splitlines() == ["coursework: interrupted; no kernel is left running"]
    assert not psutil.wait_procs(kernels, timeout=3)[1]
    assert not (tree / "build").exists()
    cases = {c.get("name"): [inner.tag for inner in c] for c in ElementTree.parse("report.xml").iter("testcase")}
    assert cases == {"00_done": ["failure"], **{name: ["skipped"] for name in ("01_a", "02_b")[:jobs]}}
    page = (tree / "pages" / "index.html").read_text()
    assert f"0 ok, 1 failed, {jobs} not run" in page
    assert page.endswith("</html>")


def kernel_of(path: Path) -> psutil.Process:
    """The process whose id a lesson writes into a file."""
    for _ in range(1200):
        if path.exists() and path.read_text():
            return psutil.Process(int(path.read_text()))
        time.sleep(0.05)
    raise AssertionError(f"{path} did not appear")


# reset


@pytest.fixture
def published(tree, monkeypatch):
    """A tree with one lesson, whose student copy is the text "fresh"."""
    write_lesson(tree / "solutions" / "01_a.ipynb")
    monkeypatch.setattr(publishing, "student_text", lambda root, name: f"fresh {name}")
    return tree


def test_reset_keeps_every_old_copy(published):
    path = published / "notebooks" / "01_a.ipynb"
    for n in (1, 2, 3):
        path.write_text(f"mine {n}")
        result = call("reset", "01")
        assert (result.exit_code, path.read_text()) == (0, "fresh 01_a")
        assert f"yours is now 01_a.mine-{n}.ipynb" in result.stdout
    kept = {p.name: p.read_text() for p in path.parent.iterdir() if p != path}
    assert kept == {f"01_a.mine-{n}.ipynb": f"mine {n}" for n in (1, 2, 3)}


def test_reset_brings_back_a_lesson_that_is_missing(published):
    result = call("reset", "01_a")
    assert result.stdout == f"{Path('notebooks/01_a.ipynb')} is fresh\n"
    assert (published / "notebooks" / "01_a.ipynb").read_text() == "fresh 01_a"


def test_reset_touches_nothing_where_the_source_cannot_be_published(published, monkeypatch):
    def fail(root, name):
        raise CourseError("01_a: no ids")

    monkeypatch.setattr(publishing, "student_text", fail)
    (published / "notebooks" / "01_a.ipynb").write_text("mine")
    result = call("reset", "01")
    assert (result.exit_code, result.stderr) == (2, "coursework: 01_a: no ids\n")
    assert [p.read_text() for p in (published / "notebooks").iterdir()] == ["mine"]


def test_reset_refuses_names_that_pick_no_lesson_or_several(published):
    write_lesson(published / "solutions" / "01_b.ipynb")
    for name, part in (("7", "no lesson '7'"), ("01", "picks several lessons: 01_a, 01_b")):
        result = call("reset", name)
        assert result.exit_code == 2
        assert part in result.stderr
    assert json.loads((published / "solutions" / "01_a.ipynb").read_text())
