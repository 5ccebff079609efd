"""The sandbox where the system allows less, and what comes over the wire from a process that nobody trusts."""

import json
import os
import struct
import sys

import psutil
import pytest
import torch

from coursework.grading import stage, wire
from coursework.grading.grader import Grader, Rules
from coursework.grading.service import Sandbox, SandboxError
from tests.hostile import HOSTILES, RIGHT
from tests.test_grading_hostile import LESSON, hand_in

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
        path = folder / "coursework" / "grading" / "sandbox.py"
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


def test_the_sandbox_may_read_python_and_not_the_course():
    places = stage.readable()
    assert sys.prefix in places
    assert str(stage.PACKAGE.parent) not in places
