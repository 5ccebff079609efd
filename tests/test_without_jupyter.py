"""The package without its extras: `pip install coursework` brings no Jupyter, and what needs it says so in one line."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
JUPYTER = ["IPython", "anywidget", "ipykernel", "ipywidgets", "jupyter_client", "jupyter_core", "jupyterlab"]
JUPYTER += ["nbclient", "nbconvert", "nbformat", "papermill", "traitlets"]
INSTRUCTOR = ["distributed", "jupytext", "nbgrader", "sqlalchemy"]
SUBJECTS = sorted(path.stem for path in (ROOT / "coursework").glob("*.py") if path.stem not in ("__main__", "widgets"))
ROOMS = ["data", "exercises", "metrics", "nn"]

WITHOUT = """
import sys

class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ABSENT:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, Absent())
"""


def run(code: str, *arguments: str, absent: list[str]) -> subprocess.CompletedProcess[str]:
    """Runs code in a Python without some packages, in the course tree."""
    command = [sys.executable, "-c", f"ABSENT = {absent}" + WITHOUT + code, *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)


def command(*arguments: str, absent: list[str]) -> subprocess.CompletedProcess[str]:
    """Runs the command `coursework` in a Python without some packages."""
    return run("from coursework.__main__ import main; main()", *arguments, absent=absent)


def test_every_subject_and_the_exercises_are_imported():
    names = [f"coursework.{name}" for name in [*SUBJECTS, *ROOMS]]
    done = run(f"import importlib\nfor name in {names}: importlib.import_module(name)", absent=JUPYTER + INSTRUCTOR)
    assert (done.returncode, done.stderr) == (0, "")


def test_a_check_and_a_hint_show_plain_lines():
    done = run(
        "from coursework.exercises import check, hint; check('4.2', lambda *x: None); hint('4.2')", absent=JUPYTER
    )
    assert done.returncode == 0, done.stderr
    assert "Exercise 4.2 (" in done.stdout
    assert "? Exercise 4.2, hint 1 of" in done.stdout


@pytest.mark.parametrize(
    "code",
    ["import coursework.widgets", "from coursework import plots; plots.show(plots.plt.figure(), 'nothing')"],
)
def test_what_needs_jupyter_says_how_to_get_it(code):
    done = run(code, absent=JUPYTER)
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1].endswith("is not installed, which comes with: pip install 'coursework[course]'")


def test_the_command_starts():
    done = command("--help", absent=JUPYTER + INSTRUCTOR)
    assert done.returncode == 0, done.stderr
    assert "evaluate" in done.stdout


@pytest.mark.parametrize(
    ("absent", "extra"), [(JUPYTER, "course"), (INSTRUCTOR, "instructor")], ids=["course", "class"]
)
def test_a_command_that_needs_an_extra_says_which(absent, extra):
    done = command("publish", "--check", absent=absent)
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert done.stderr.endswith(f"is not installed, which comes with: pip install 'coursework[{extra}]'\n")


def test_the_doctor_mends_what_lessons_lack():
    done = command("doctor", absent=JUPYTER)
    assert "lessons: No module named 'nbformat'\n        mend: pip install 'coursework[course]'\n" in done.stdout
