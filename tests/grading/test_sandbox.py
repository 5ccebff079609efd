"""The sandbox where the system allows less, and what comes over the wire from a process that nobody trusts."""

import fcntl
import json
import os
import struct
import sys
import sysconfig
import tempfile
import time

import psutil
import pytest
import torch

from coursework.grading import stage
from coursework.grading.grader import WALL, WALL_RESERVED, Grader, Rules
from coursework.grading.handin import Cell, HandIn, Lesson
from coursework.grading.sandboxed import sandbox, wire
from coursework.grading.service import PREFIX, Reply, Sandbox, SandboxError, _sweep
from tests.grading.hostile import HOSTILES, RIGHT
from tests.grading.test_hostile import LESSON, hand_in

WITHOUT_NAMESPACES = """

_allowed = _call


def _call(name, *arguments):
    if name in ("unshare", "mount"):
        raise OSError(1, "Operation not permitted")
    _allowed(name, *arguments)
"""
STILL_HARMLESS = (
    "an endless loop that catches everything",
    "a fork bomb",
    "a bomb of threads",
    "100 GB in one piece",
    "1 GB on the disk",
    "it leaves a process behind",
    "it raises its limits",
    "a forged answer of the right form",
    "it hides the call",
)


@pytest.fixture(scope="module")
def bare():
    """A grader on a system without namespaces: the staged sandbox finds that they are not permitted."""

    def staged(folder, write=stage.write_stage):
        write(folder)
        path = folder / "coursework" / "grading" / "sandboxed" / "sandbox.py"
        path.write_text(path.read_text(encoding="utf-8") + WITHOUT_NAMESPACES, encoding="utf-8")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(stage, "write_stage", staged)
        patch.setattr("coursework.grading.grader.LONGEST", 2.0)
        with Grader(Rules("a secret for tests")) as grader:
            yield grader


def test_without_namespaces_it_says_what_is_missing(bare):
    assert [text.partition(" (")[0] for text in bare.missing] == [
        "processes are not separated",
        "the network is not cut off",
        "files are not hidden",
    ]


@pytest.mark.parametrize("hostile", [h for h in HOSTILES if h.name in STILL_HARMLESS], ids=lambda h: h.name)
def test_without_namespaces_attacks_still_earn_nothing_and_leave_nothing(hostile, bare):
    marks, _ = bare.grade(hand_in(hostile.source), LESSON)
    assert [mark.outcome == "passed" for mark in marks] == [hostile.earned, True], marks
    server = psutil.Process(bare._sandbox._process.pid)
    _, left = psutil.wait_procs(server.children(recursive=True), timeout=5)
    assert left == []
    assert list((bare._sandbox._folder / "root").iterdir()) == []
    if os.geteuid() == 0:
        strangers = [
            p for p in psutil.process_iter() if p.uids().real > 60_000 and p.create_time() > server.create_time()
        ]
        _, left = psutil.wait_procs(strangers, timeout=5)
        assert not [p for p in left if p.is_running() and server in p.parents()]


def test_a_server_that_dies_is_started_again(bare):
    psutil.Process(bare._sandbox._process.pid).kill()
    marks, _ = bare.grade(hand_in(RIGHT), LESSON)
    assert [mark.outcome for mark in marks] == ["passed", "passed"]


def test_a_closed_sandbox_answers_nothing():
    sandbox = Sandbox()
    folder = sandbox._folder
    sandbox.close()
    assert not folder.exists()
    with pytest.raises(SandboxError, match="closed"):
        sandbox.ask({"wall": 1.0})


def test_a_system_without_fork_is_refused(monkeypatch):
    monkeypatch.delattr(os, "fork")
    with pytest.raises(SandboxError, match="on Windows use WSL"):
        Sandbox()


def test_a_sandbox_that_cannot_start_says_why(monkeypatch):
    def broken(folder):
        (folder / "coursework").mkdir(parents=True)
        (folder / "coursework" / "__init__.py").write_text("raise RuntimeError('the disk is broken')")

    monkeypatch.setattr(stage, "write_stage", broken)
    with pytest.raises(SandboxError, match="the sandbox did not start: RuntimeError: the disk is broken"):
        Sandbox()


# -- the wire ------------------------------------------------------------------------------------------------------

NAMES = ["result", "gradient"]


def packed(**changes):
    case = {"result": torch.arange(3.0), "gradient": None}
    return wire.pack("done", [case, case], **{"touched": ["a.b"], "error": "", "printed": "", "remarks": []} | changes)


def test_what_is_packed_comes_out_again():
    case = {"result": torch.tensor([1.5, float("nan")], dtype=torch.float64), "gradient": 2}
    other = {"result": "text", "gradient": torch.ones(2, 0, dtype=torch.bool)}
    data = wire.pack("done", [case, other], touched=["a.b"], error="e", printed="p\x1b[2J", remarks=["r"])
    answer = wire.unpack(data, [NAMES] * 2)
    assert torch.equal(answer.cases[0]["result"], case["result"]) is False  # NaN
    assert answer.cases[0]["result"].tolist()[0] == 1.5
    assert answer.cases[0]["result"].dtype == torch.float64
    assert answer.cases[0]["gradient"] == 2.0
    assert answer.cases[1]["result"] == wire.Thing("str")
    assert answer.cases[1]["gradient"].shape == (2, 0)
    assert (answer.state, answer.touched, answer.error, answer.printed) == ("done", ("a.b",), "e", "p?[2J")
    assert answer.remarks == ("r",)


@pytest.mark.parametrize(
    "tensor",
    [
        torch.ones(wire.ELEMENTS_MOST + 1),
        torch.ones(3, dtype=torch.complex64),
        torch.eye(3).to_sparse(),
        torch.ones(3, device="meta"),
    ],
    ids=["large", "complex", "sparse", "meta"],
)
def test_what_is_no_small_plain_tensor_is_only_described(tensor):
    answer = wire.unpack(wire.pack("done", [{"result": tensor}]), [["result"]])
    assert isinstance(answer.cases[0]["result"], wire.Thing)
    assert "tensor of shape" in answer.cases[0]["result"].text


def remade(head=None, table=None, tail=b""):
    """A packed answer with parts of its head, or its table of tensors, replaced."""
    data = packed()
    length, _ = wire.SIZES.unpack_from(data)
    old, blob = json.loads(data[8 : 8 + length]), data[8 + length :]
    if table is not None:
        size = struct.unpack("<Q", blob[:8])[0]
        new = json.dumps({**json.loads(blob[8 : 8 + size]), **table}).encode()
        blob = struct.pack("<Q", len(new)) + new + blob[8 + size :]
    new = json.dumps({**old, **(head or {})}).encode()
    return wire.SIZES.pack(len(new), len(blob)) + new + blob + tail


F32 = {"dtype": "F32", "shape": [3], "data_offsets": [0, 12]}


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\0" * 7,
        b"\xff" * 100,
        packed()[:-1],
        remade(tail=b"x"),
        remade({"state": "passed"}),
        remade({"cases": []}),
        remade({"cases": [{}] * 2}),
        remade({"cases": [{"result": {"kind": "tensor"}, "gradient": {"kind": "tensor"}}] * 2}),
        remade({"cases": [{"result": {"kind": "none"}, "gradient": {"kind": "none"}}] * 3}),
        remade(table={"0/result": F32 | {"shape": [10**15]}}),
        remade(table={"0/result": F32 | {"shape": [-3]}}),
        remade(table={"0/result": F32 | {"shape": [True]}}),
        remade(table={"0/result": F32 | {"shape": [1] * 30}}),
        remade(table={"0/result": F32 | {"shape": [99_999, 99_999]}}),
        remade(table={"0/result": F32 | {"dtype": "F8_E4M3"}}),
        remade(table={"0/result": F32 | {"data_offsets": [0, 10**15]}}),
        remade(table={"0/result": F32 | {"data_offsets": [4, 16]}}),
        remade(table={"2/result": F32}),
        remade(table={"__metadata__": {"a": "b"}}),
    ],
    ids=range(20),
)
def test_what_is_not_an_answer_is_refused(data):
    with pytest.raises(wire.BadAnswer):
        wire.unpack(data, [NAMES] * 2)


# -- what is in sight --------------------------------------------------------------------------------------------------


def in_a_process(work):
    """What work() returns, from a forked process; None where it dies."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.write(writer, json.dumps(work()).encode())
        finally:
            os._exit(0)
    os.close(writer)
    with os.fdopen(reader) as answer:
        said = answer.read()
    os.waitpid(child, 0)
    return json.loads(said) if said else None


@pytest.fixture
def school(tmp_path):
    """A course with its environment, and the submissions, beneath a folder that learners' code may read."""
    for path in ("course/solutions/03.ipynb", "course/.venv/lib/torch.py", "submitted/anna/03.ipynb", "package/x.py"):
        (tmp_path / "opt" / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "opt" / path).write_text("text")
    for path in (tmp_path, *tmp_path.parents):
        if path.stat().st_uid == os.getuid():
            path.chmod(path.stat().st_mode | 0o055)
    (tmp_path / "root").mkdir()
    (tmp_path / "opt" / "link").symlink_to("submitted")
    return tmp_path / "opt"


def seen_from_inside(view: sandbox.View, folder) -> list[str] | None:
    """The files beneath a folder, as learners' code sees them."""

    def look():
        missing = sandbox.separate(view, sandbox.stranger(view.root))
        return missing or sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())

    def outside():
        missing = sandbox.new_process_space()
        return [missing] if missing else in_a_process(look)

    return in_a_process(outside)


@pytest.mark.needs("namespaces")
def test_a_course_and_submissions_in_a_visible_folder_are_hidden_and_its_environment_is_not(school):
    hidden = tuple(str(school / name) for name in ("course", "link", "later"))
    view = sandbox.View(str(school.parent / "root"), (str(school), str(school / "course" / ".venv" / "lib")), hidden)
    assert seen_from_inside(view, school) == ["course/.venv/lib/torch.py", "package/x.py"]


def test_the_sandbox_may_read_python_and_no_copy_of_the_course(monkeypatch, tmp_path):
    places = stage.readable()
    assert sysconfig.get_paths()["purelib"] in places
    assert not {"/usr", "/usr/local", "/opt", sys.prefix, str(stage.PACKAGE.parent)} & set(places)
    assert not {"/usr", "/opt"} & set(sandbox.SYSTEM)
    for copy in ("lib/python3.99/site-packages/coursework", "site-packages/coursework"):
        (tmp_path / copy).mkdir(parents=True)
    monkeypatch.setattr(stage, "readable", lambda: [str(tmp_path / "lib"), str(tmp_path / "site-packages")])
    copies = {str(path) for path in tmp_path.rglob("coursework")}
    assert set(stage.hidden()) == {str(stage.PACKAGE), str(stage.PACKAGE.parent)} | copies
    monkeypatch.setattr(stage, "PACKAGE", tmp_path / "site-packages" / "coursework")
    assert set(stage.hidden()) == copies  # and not all of site-packages


# -- limits --------------------------------------------------------------------------------------------------------


def watched(work, limits: sandbox.Limits) -> list:
    """How a process that does some work ends under limits, and its CPU seconds."""

    def watcher():
        sandbox.adopt_orphans()
        child = os.fork()
        if child == 0:
            work()
            os._exit(0)
        return sandbox.watch(child, limits, lambda: False)

    return in_a_process(watcher)


def fork_and_wait(n: int, work) -> None:
    for _ in range(n):
        if os.fork() == 0:
            work()
            os._exit(0)
    for _ in range(n):
        os.wait()


def spin() -> None:
    while True:
        pass


def test_the_cpu_time_of_all_descendants_counts():
    ended, cpu = watched(lambda: fork_and_wait(8, spin), sandbox.Limits(cpu=0.8, wall=60))
    assert ended == "time"
    assert cpu >= 0.8


@pytest.mark.skipif(not os.path.exists("/proc/self/smaps_rollup"), reason="Linux alone tells shares of memory")
def test_memory_that_forked_processes_share_counts_once():
    held = bytearray(os.urandom(1) * (150 << 20))  # 20 processes with this are 3 GB, if each counts all of it
    limits = sandbox.Limits(cpu=60, wall=60, memory=1 << 30)
    assert watched(lambda: fork_and_wait(20, lambda: time.sleep(0.5)), limits)[0] == "exit"
    own = lambda: (bytearray(os.urandom(1) * len(held)), time.sleep(60))  # noqa: E731
    assert watched(lambda: fork_and_wait(20, own), limits)[0] == "memory"


class Sleepers:
    """In the sandbox's place: every exercise sleeps for as long as it may."""

    missing = ()

    def __init__(self, hidden):
        self.walls = []

    def ask(self, request):
        self.walls.append(request["wall"])
        return Reply(b"", "time", 0.0, request["wall"])

    def close(self):
        pass


def test_a_submission_that_sleeps_in_every_exercise_ends_in_time(monkeypatch):
    monkeypatch.setattr("coursework.grading.grader.Sandbox", Sleepers)
    exercises = {"3.1": "f", "3.2": "f", "3.3": "f", "3.4": "f", "3.5": "f", "3.6": "f"}
    cells = tuple(Cell("import time; time.sleep(1e6)", "exercise", exercise) for exercise in exercises)
    grader = Grader(Rules("a secret for tests"))
    marks, _ = grader.grade(HandIn(cells), Lesson(LESSON.name, exercises))
    assert all("stopped after" in mark.message for mark in marks)
    assert sum(grader._sandbox.walls) == pytest.approx(WALL)
    assert min(grader._sandbox.walls) == WALL_RESERVED


def test_what_a_killed_grading_left_is_swept_away_and_what_another_one_holds_is_not(monkeypatch, tmp_path):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    left, held, new = (tmp_path / f"{PREFIX}{name}" for name in ("left", "held", "new"))
    for folder in (left, held, new):
        (folder / "root").mkdir(parents=True)
    for folder in (left, held):
        os.utime(folder, (1, 1))
    (tmp_path / f"{PREFIX}link").symlink_to(held)
    holder = os.open(held, os.O_RDONLY)
    fcntl.flock(holder, fcntl.LOCK_EX)
    _sweep()
    os.close(holder)
    assert sorted(path.name for path in tmp_path.iterdir()) == [f"{PREFIX}{name}" for name in ("held", "link", "new")]
