"""What a learner hands in is read in time that grows as its length: no text holds up the grading of a class."""

import json
import subprocess
import sys

import pytest

from coursework.grading import handin
from coursework.grading.answers import places
from coursework.grading.finding import lessons_of
from coursework.grading.handin import Cell, Lesson
from coursework.grading.rebuilding import without_html

LESSON = Lesson("03_sliced_score_matching", {"3.4": "ssm_loss"}, {}, {"3.3": "Derive (it) well."})
TITLE = "Written derivation 3.3"
CPU = 40  # seconds of a processor for all texts; one that is scanned from each of many places takes longer alone
SIZE = 200_000  # characters

# What a text begins with, and what follows again and again.
TEXTS = [
    *(("LABELS = [\n    ", piece) for piece in ("0, 1, ", "x,", "ssm_loss, ", "a ", "(ssm_loss", "a:")),
    *(("", piece) for piece in ("ssm_loss, ", "[", "(", "\\", "'", " ", "\n", "\n  ", "def ", "async ", "raise ")),
    *(("", piece) for piece in ("check", "check(", "check (", "check(attempt=", "check(a ", "check(attempt ")),
    *(("check(", " "), ("check(attempt=", "a, "), ("check(attempt=", "exercise_id "), ("check(a", " ")),
    *(("", piece) for piece in ("%", "%%time\n", "%time ", "=%time ", "= ")),
    *(("", piece) for piece in ("*", "`", "` ", TITLE, f"{TITLE}(", f"{TITLE} (", f"{TITLE}. Derive ")),
    *((TITLE, piece) for piece in ("*", " ", "(", " (", "\n", ".")),
    *(("", piece) for piece in ("<img ", "<img src", "<img src=attachment:x ", "src=data:", "attachment:")),
    *(("<img ", piece) for piece in ("src ", "src=attachment:x ", "src=attachment:", "<", " ")),
    *(("", piece) for piece in ("data:image/", "data:image/png;base64,", "data:image/a;base64,A!")),
    *(("data:image/", piece) for piece in ("a", "png;base64,A", ";")),
    *(("", piece) for piece in ("&", "&#", "&#1", "&amp;", "javascript", "script\\", "<")),
    *(("&", "amp;"), ("&#", "9"), ("script", "\\")),
    *(('"', '\\"'), ("", '"'), ("", '\\"'), ("", '"outputs" '), ("", '"outputs":'), ('"outputs":[', '"')),
]


def read(text: str) -> None:
    """Read a text as code, as a written answer, beside a prompt, and as what a file holds."""
    written = {"nbgrader": {"grade_id": "derivation-3-3"}}
    cells = [
        {"cell_type": kind, "source": text, "metadata": metadata, "attachments": {"a": {"image/png": text}}}
        for kind, metadata in (("code", {}), ("markdown", {}), ("markdown", written))
    ]
    data = json.dumps({"cells": cells}).encode()
    lessons_of(data, "mine", [LESSON])
    found = handin.parse(data, LESSON)
    assert found.problem == ""
    places(found.cells, "3.4", "ssm_loss")
    without_html(found.answers["3.3"].text)
    for start in (b"", b'{"cells": [{"outputs": ['):
        assert handin.parse(start + text.encode(), LESSON).problem == "it is not a notebook"


def test_a_long_text_is_read_in_linear_time():
    program = (
        f"import resource; resource.setrlimit(resource.RLIMIT_CPU, ({CPU}, {CPU}))\n"
        "from tests.grading.test_text import SIZE, TEXTS, read\n"
        "for start, piece in TEXTS:\n"
        "    print(repr(start), repr(piece), flush=True)\n"
        "    read(start + piece * (SIZE // len(piece)))\n"
    )
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert ended.returncode == 0, (ended.stdout.splitlines()[-1:], ended.stderr[-1000:])


@pytest.mark.parametrize(
    ("source", "defines"),
    [
        ("ssm_loss = mine", True),
        ("ssm_loss: Callable = mine", True),
        ("a,  ssm_loss , b = f()", True),
        ("x = 1\nssm_loss, a = f()", True),
        ("print(ssm_loss := mine)", True),
        ("    async  def ssm_loss(x):", True),
        ("ssm_loss =check('3.4', ssm_loss)", False),
        ("ssm_loss == mine", False),
        ("    ssm_loss = inside_of_a_function", False),
        ("my_ssm_loss = 1\nssm_loss_2 = 2\nx = ssm_loss", False),
    ],
)
def test_which_cells_define_a_function(source, defines):
    assert bool(places([Cell(source)], "3.4", "ssm_loss")) == (defines or "check" in source)
    assert bool(places([Cell(source, "lesson")], "3.4", "ssm_loss")) == ("check" in source)


@pytest.mark.parametrize("number", ["&#" + "9" * 5000 + ";", "&amp;#" + "0" * 5000 + "60;script"])
def test_a_number_of_thousands_of_digits_is_no_character(number):
    assert without_html(number).startswith("& #")
