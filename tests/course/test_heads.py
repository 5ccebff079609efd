"""Heads of lessons, the tables made from them, and a lesson that is added by CONTRIBUTING's recipe."""

import os
import re
import shutil
import subprocess
import sys

import pytest

from coursework.course.heads import between, head, heads, needs
from coursework.course.tree import CourseError
from tests.helpers import LESSONS, ROOT

HEAD = """# Lesson 98: a throwaway

**What this lesson answers:** how is a lesson added?

**Objectives.** After this lesson you can
- add one.

**Prerequisites:** [lesson 12](12_ddpm_ddim.ipynb), and [lesson 04](04_denoising_score_matching.ipynb); patience.

**Time:** about 15 minutes to work through; the code runs in about 3 seconds on two CPU cores.

Previous: [12 DDPM and DDIM](12_ddpm_ddim.ipynb)"""


def test_a_head_is_read():
    found = head("98_throwaway", HEAD)
    assert (found.number, found.heading) == (98, "98 A throwaway")
    assert (found.question, found.minutes, found.seconds) == ("how is a lesson added?", 15, 3)
    assert found.needs == "04, 12"
    assert needs("Python and patience.") == "Python and patience"


def test_every_lesson_has_its_head():
    assert [head.name for head in heads(ROOT)] == LESSONS


@pytest.mark.parametrize(
    ("line", "part"),
    [("# Lesson", "title"), ("**What", "question"), ("**Prereq", "needs"), ("**Time", "minutes, seconds")],
)
def test_what_a_head_lacks_is_named(line, part):
    text = "\n".join(each for each in HEAD.splitlines() if not each.startswith(line))
    with pytest.raises(CourseError, match=f"the head lacks {part} "):
        head("98_throwaway", text)


def test_what_stands_between_the_marks_is_made_anew_and_nothing_else():
    text = "before\n<!-- begin a -->\nold\n<!-- end a -->\nafter"
    assert between(text, {"a": lambda: "new"}, "x.md") == text.replace("old", "new")
    with pytest.raises(CourseError, match=r"^x.md: the marks of 'b' are missing$"):
        between(text, {"b": lambda: "new"}, "x.md")


# Adding a lesson: its text, and its exercises, found by their number

TEXT = f"""# %% [markdown] role="setup"
{re.sub("^", "# ", HEAD, flags=re.MULTILINE)}

# %% role="setup" tags=["parameters"]
seed = 0

# %% role="setup"
from coursework.exercises import NotAttempted, check

# %% role="exercise" id="98.1"
def doubled(x):
    ### BEGIN SOLUTION
    return x + x
    ### END SOLUTION

# %% role="check" id="98.1"
doubled = check("98.1", doubled)
"""
EXERCISES = {
    "__init__.py": '"""The exercise of lesson 98."""\n',
    "answers.py": "def doubled(x):\n    return 2 * x\n",
    "cases.py": """from coursework.exercises.draws import normal, sizes
from coursework.exercises.exercise import Exercise


def _points(generator):
    return (normal(generator, *sizes(generator)),)


EXERCISES = (Exercise("98.1", "doubled", _points),)
""",
    "mistakes.md": """# Mistakes in the exercise of lesson 98

## 98.1 twice every number

- `2 * x` → `x**2`: you square where twice is asked for.
- `2 * x` → `3 * x`: three times is once too often.
- `2 * x` → `x`: this is x itself.

### Hints

1. Add x to itself.
""",
}


@pytest.fixture
def course(tmp_path):
    """A copy of the course, and how a command of it is called."""
    for name in ("solutions", "notebooks", "docs"):
        shutil.copytree(ROOT / name, tmp_path / name)
    shutil.copytree(
        ROOT / "coursework", tmp_path / "coursework", ignore=shutil.ignore_patterns("trained", "__pycache__")
    )
    shutil.copy(ROOT / "README.md", tmp_path)
    return tmp_path


def call(course, *command):
    """Runs Python in the copy; what it printed."""
    environ = {**os.environ, "PYTHONPATH": str(course), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, *command], cwd=course, env=environ, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_a_lesson_is_added_by_its_text_and_its_folder_of_exercises(course):
    folder = course / "coursework" / "exercises" / "lesson_98"
    folder.mkdir()
    for name, content in EXERCISES.items():
        (folder / name).write_text(content, encoding="utf-8")
    (course / "build" / "edit").mkdir(parents=True)
    (course / "build" / "edit" / "98_throwaway.py").write_text(TEXT)
    assert call(course, "-m", "coursework", "edit", "98", "--save") == "solutions/98_throwaway.ipynb\n"
    written = call(course, "-m", "coursework", "publish").split()
    assert {"notebooks/98_throwaway.ipynb", "README.md", "solutions/00_start_here.ipynb"} <= {*written}
    assert call(course, "-m", "coursework", "publish", "--check") == ""
    row = "| [98 A throwaway](notebooks/98_throwaway.ipynb) | how is a lesson added? | 15 min | 3 s | 04, 12 |"
    assert row in (course / "README.md").read_text(encoding="utf-8")
    assert "[98 A throwaway](98_throwaway.ipynb)" in (course / "notebooks" / f"{LESSONS[0]}.ipynb").read_text()
    assert "**98.1, twice every number**" in (course / "docs" / "instructors.md").read_text(encoding="utf-8")
    assert "raise NotAttempted" in (course / "notebooks" / "98_throwaway.ipynb").read_text()
    said = call(course, "-c", "from coursework.exercises import check; check('98.1', lambda x: x**2)")
    assert "you square where twice is asked for" in said
