"""Hostile submissions earn exactly what their correct exercises earn, and harm nobody."""

import json
import os
import shutil
import socket
import tempfile
import threading
from pathlib import Path

import psutil
import pytest

from coursework.exercises.exercise import find
from coursework.grading import finding, handin, stage
from coursework.grading.grader import Grader, Rules
from coursework.grading.handin import Cell, HandIn, Lesson
from coursework.grading.stage import PACKAGE
from tests.grading.hostile import HOSTILES, RIGHT, WRONG, Hostile

pytestmark = pytest.mark.needs("namespaces")

LESSON = Lesson("03_sliced_score_matching", {"3.4": "ssm_loss", "3.6": "fitted_slopes"})
SETUP = "import torch\nfrom torch.func import jvp\nfrom coursework.exercises import NotAttempted, check\n"
NEIGHBOUR = """
def fitted_slopes(covariance, radius):
    dim = torch.full_like(radius, len(covariance))
    return -torch.stack([dim, radius**2]) / covariance.trace()
"""
MARK = "what anna wrote 5d1c0b7a93"
SEARCH = """
import ctypes

def found(first, rest):  # in two pieces, because memory holds what it looks for as well
    with open("/proc/self/maps") as maps:
        lines = maps.read().splitlines()
    for line in lines:
        place, mode, *_ = line.split()
        low, high = (int(end, 16) for end in place.split("-"))
        if mode.startswith("rw") and "[v" not in line and high - low < 1 << 28:
            data, at = ctypes.string_at(low, high - low), 0
            while (at := data.find(rest, at + 1)) > 0:
                if data[at - 1 : at] == first:
                    return True
    return False

ours = bytearray(b"what eve keeps ")
ours += b"5d1c0b7a93"
if not found(b"w", b"hat eve keeps 5d1c0b7a93"):
    raise SystemExit("the search is blind")
if found(b"w", b"hat anna wrote 5d1c0b7a93") or found(b"a", b" secret for tests"):
    raise SystemExit("it found what others sent")
"""
SECRET = "CANARY_SECRET_" + "5" * 12


@pytest.fixture(scope="module")
def canary():
    """What the attacks are after: files that everybody may write, and a secret in the environment."""
    folder = Path(tempfile.mkdtemp(prefix="canary-"))
    for name in ("gradebook.db", "marks.csv", "other/03_sliced_score_matching.ipynb"):
        (folder / name).parent.mkdir(exist_ok=True, mode=0o777)
        (folder / name).write_text(SECRET)
        (folder / name).chmod(0o666)
    for path in (folder, folder / "other"):
        path.chmod(0o777)
    before = os.environ.get("SECRET_OF_THE_GRADER")
    os.environ["SECRET_OF_THE_GRADER"] = SECRET
    yield folder
    os.environ.pop("SECRET_OF_THE_GRADER") if before is None else os.environ.update(SECRET_OF_THE_GRADER=before)
    shutil.rmtree(folder)


@pytest.fixture(scope="module")
def listener():
    """A port on this machine that counts who connects."""
    calls = []
    with socket.create_server(("127.0.0.1", 0)) as server:

        def listen():
            while True:
                try:
                    line, address = server.accept()
                    line.close()
                    calls.append(address)
                except OSError:
                    return

        thread = threading.Thread(target=listen, daemon=True)
        thread.start()
        yield server.getsockname()[1], calls
        server.shutdown(socket.SHUT_RDWR)
        thread.join(5)


@pytest.fixture(scope="module")
def grader(canary):
    """One grader for all of them: what one does must not reach the next."""
    with pytest.MonkeyPatch.context() as patch, Grader(Rules("a secret for tests")) as grader:
        patch.setattr("coursework.grading.grader.LONGEST", 2.0)
        assert grader.missing == ()
        yield grader


def hand_in(source: str) -> HandIn:
    cells = (Cell(SETUP, "setup"), Cell(source, "exercise", "3.4"), Cell(NEIGHBOUR, "exercise", "3.6"))
    return HandIn(cells)


def marks_of(grader, source):
    marks, _ = grader.grade(hand_in(source), LESSON)
    return {mark.exercise: mark for mark in marks}


def state_of(folder):
    return {str(path.relative_to(folder)): path.read_text() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("hostile", HOSTILES, ids=lambda h: h.name)
def test_an_attack_earns_what_is_right_and_harms_nobody(hostile: Hostile, grader, canary, listener):
    port, calls = listener
    source = hostile.source.replace("CANARY/", f"{canary}/").replace("PORT", str(port))
    source = source.replace('"COURSE"', repr(str(PACKAGE.parent)))
    files, server = state_of(canary), grader._sandbox._process.pid
    marks = marks_of(grader, source)
    assert (marks["3.4"].outcome == "passed") is hostile.earned, marks["3.4"]
    assert hostile.says in f"{marks['3.4'].message} {marks['3.4'].flag}", marks["3.4"]
    assert marks["3.6"].outcome == "passed", marks["3.6"]
    assert state_of(canary) == files
    assert calls == []
    assert grader._sandbox._process.pid == server
    _, left = psutil.wait_procs(psutil.Process(server).children(recursive=True), timeout=5)
    assert left == []
    assert list((grader._sandbox._folder / "root").iterdir()) == []


def test_there_are_enough_attacks_and_they_differ():
    assert len(HOSTILES) >= 25
    assert len({h.name for h in HOSTILES}) == len({h.source for h in HOSTILES}) == len(HOSTILES)


def test_memory_holds_nothing_of_others(grader):
    """What a submission sent is looked for by the next one: its own process was forked from the same server."""
    sent = RIGHT + f"# {MARK}\n" * 1000
    assert marks_of(grader, sent)["3.4"].outcome == "passed"
    mark = marks_of(grader, SEARCH + RIGHT)["3.4"]
    assert mark.outcome == "passed", mark


TWICE = """
def free_guided(conditional_score, label, scale, x, t):
    once = conditional_score(x, t, label)
    again = conditional_score(x, t=t, label=torch.full_like(label, -1))
    conditional_score.n_calls -= 1
    return again + scale * (once - again)
"""
ONCE = """
def free_guided(conditional_score, label, scale, x, t):
    labels = torch.cat([label, torch.full_like(label, -1)])
    once, again = conditional_score(torch.cat([x, x]), t=torch.cat([t, t]), label=labels).chunk(2)
    return again + scale * (once - again)
"""


@pytest.mark.parametrize(("source", "message"), [(ONCE, ""), (TWICE, "the number of calls: expected 1, got 2")])
def test_calls_are_counted_out_of_reach(source, message, grader):
    """The function whose calls count is in another process, with all that it is made of: there is nothing to copy."""
    lesson = Lesson("11_guidance", {"11.2": "free_guided"})
    cells = (Cell("import torch", "setup"), Cell(source, "exercise", "11.2"))
    (mark,), _ = grader.grade(HandIn(cells), lesson)
    assert (mark.outcome == "passed") is not bool(message), mark
    assert message in mark.message


def test_without_an_attack_right_is_right_and_wrong_is_wrong(grader):
    assert marks_of(grader, RIGHT)["3.4"].outcome == "passed"
    assert marks_of(grader, WRONG)["3.4"].outcome == "wrong"
    assert marks_of(grader, "def ssm_loss(score, x, v):\n    raise NotAttempted\n")["3.4"].outcome == "not attempted"


# -- hostile notebooks -----------------------------------------------------------------------------------------------


def solved() -> dict:
    return json.loads(Path("solutions/03_sliced_score_matching.ipynb").read_text(encoding="utf-8"))


def whole_lesson() -> Lesson:
    return next(lesson for lesson in handin.course_lessons(Path()) if lesson.name == LESSON.name)


def is_check(cell: dict) -> bool:
    return cell["metadata"].get("coursework", {}).get("role") == "check"


def without_checks(notebook):
    notebook["cells"] = [cell for cell in notebook["cells"] if not is_check(cell)]


def edited_checks(notebook):
    for cell in filter(is_check, notebook["cells"]):
        cell["source"] = "import os; os._exit(0)"


def edited_points(notebook):
    for cell in filter(is_check, notebook["cells"]):
        cell["metadata"]["nbgrader"]["points"] = 1000


def lost_marks(notebook):
    for cell in notebook["cells"]:
        cell["metadata"] = {}


def claims_all(notebook):
    for cell in notebook["cells"]:
        cell["metadata"]["coursework"] = {"role": "exercise", "id": "99.9"}


def odd_types(notebook):
    notebook["cells"] += [{"cell_type": "code", "source": 5}, {"cell_type": "code", "source": None, "metadata": None}]


@pytest.mark.parametrize("edit", [without_checks, edited_checks, edited_points, lost_marks, claims_all, odd_types])
def test_an_edited_notebook_earns_what_its_exercises_earn(edit, grader):
    notebook, lesson = solved(), whole_lesson()
    edit(notebook)
    marks, _ = grader.grade(handin.parse(json.dumps(notebook).encode(), lesson), lesson)
    assert [mark.outcome for mark in marks] == ["passed"] * 6, marks


@pytest.mark.parametrize(
    "data",
    [b"", b"[" * 200_000, b"{}", b'{"cells": 5}', b'{"cells": [5]}', b"\xff\xfe", b'{"cells": [{"cell_type": "code"}]'],
)
def test_what_is_no_notebook_is_not_attempted(data, grader):
    marks, remarks = grader.grade(handin.parse(data, LESSON), LESSON)
    assert [mark.outcome for mark in marks] == ["not attempted"] * 2
    assert remarks == ["the notebook cannot be graded: it is not a notebook"]


def test_links_pipes_and_huge_files_are_not_read(tmp_path):
    student = tmp_path / "school" / "eve"
    student.mkdir(parents=True)
    (tmp_path / "secret.ipynb").write_text(json.dumps(solved()))
    (student / "03_sliced_score_matching.ipynb").symlink_to(tmp_path / "secret.ipynb")
    (student / "folder").symlink_to(tmp_path)
    os.mkfifo(student / "03.ipynb")
    intake = finding.find_submissions(student.parent, [LESSON])
    assert (intake.submissions, intake.students, intake.notes) == ([], ["eve"], [])
    with pytest.raises(handin.HandInError, match="no plain file"):
        handin.content(student / "03.ipynb")
    with (student / "03 large.ipynb").open("wb") as file:
        file.truncate(handin.LARGEST_FILE + 1)
    with pytest.raises(handin.HandInError, match="larger than 200 MB"):
        handin.content(student / "03 large.ipynb")


def test_the_sandbox_holds_no_reference_and_no_misconception(grader, tmp_path):
    assert not (grader._sandbox._folder / "stage").exists()  # the server has it in memory
    stage.write_stage(tmp_path)
    text = "".join(path.read_text() for path in (tmp_path / "coursework" / "exercises").glob("lesson_*.py"))
    exercise = find("3.4")
    assert "def ssm_loss" not in text
    assert exercise.mistakes[0].name[:40] not in text
    assert exercise.hints[0][:40] not in text
    assert not (tmp_path / "coursework" / "grading" / "marking.py").exists()
