"""What passes at home passes in grading: odd notebooks, run by IPython with the real check, and by the grader."""

import asyncio
import json
import socket
import sys
from types import SimpleNamespace

import pytest
import torch
from IPython.core.interactiveshell import InteractiveShell
from traitlets.config import Config

from coursework import exercises
from coursework.exercises import judging
from coursework.exercises.exercise import find
from coursework.grading import handin
from coursework.grading.dry_run import judge_here
from coursework.grading.grader import Grader, Rules
from coursework.grading.handin import Lesson
from coursework.grading.sandboxed.counting import NextDoor

SETUP = """
import torch
from torch import float64
from coursework.exercises import NotAttempted, case, check, hint
seed = 0
"""
LESSON = """
W1, W2 = torch.randn(2, 6, 3, generator=torch.Generator().manual_seed(seed), dtype=float64)
TABLE = {}
for power in (1, 2):
    TABLE[power] = float(power)
TWO = TABLE[1] + TABLE[1]
Matrix = torch.Tensor
"""
TRAINING = """
x = torch.ones(3)
for step in range(3):
    x = x - 0.1 * x
"""
KNOWN = {handin.digest(SETUP): "setup", handin.digest(LESSON): "lesson", handin.digest(TRAINING): "lesson"}
SMALL = Lesson("03_sliced_score_matching", {"3.2": "hutchinson", "3.3": "trace_variance"}, KNOWN)
MEAN = 'torch.einsum("bmi,bij,bmj->bm", probes, matrices, probes).mean(dim=1)'
RIGHT = f"def hutchinson(matrices, probes):\n    return {MEAN}\n"
INDENTED = RIGHT.replace("\n    ", "\n        ")
WRONG = RIGHT.replace(".mean(", ".sum(")
STUB = "def hutchinson(matrices, probes):\n    raise NotAttempted\n"
VARIANCE = """
def trace_variance(matrices, fourth_moment):
    S = (matrices + matrices.mT) / 2
    return TWO_ * (S**2).sum(dim=(1, 2)) + (fourth_moment - 3) * (S.diagonal(dim1=1, dim2=2) ** 2).sum(dim=1)
"""
RIGHT_VARIANCE = VARIANCE.replace("TWO_", "2")
CHECK, CHECK_VARIANCE = 'hutchinson = check("3.2", hutchinson)', 'trace_variance = check("3.3", trace_variance)'


def cell(source: str, role: str = "", exercise: str = "") -> dict:
    """A cell as the course marks it; without a role, a learner's own."""
    own = {"role": role, **({"id": exercise} if exercise else {})} if role else {}
    name = {"nbgrader": {"grade_id": f"{role}-{exercise.replace('.', '-')}"}} if exercise else {}
    metadata = ({"coursework": own} if own else {}) | name
    return {"cell_type": "code", "source": source, "metadata": metadata, "outputs": []}


def answer(source: str) -> dict:
    return cell(source, "exercise", "3.2")


def notebook(*given: dict | str) -> list[dict]:
    """The set-up and the lesson's cells, and these; a text is a learner's own cell."""
    before = [cell(SETUP, "setup"), cell(LESSON, "lesson"), cell(TRAINING, "lesson")]
    return before + [cell(one) if isinstance(one, str) else one for one in given]


CHECKED = cell(CHECK, "check", "3.2")
CHECKED_VARIANCE = cell(CHECK_VARIANCE, "check", "3.3")
VARIED = cell(RIGHT_VARIANCE, "exercise", "3.3")


def alone(source: str) -> list[dict]:
    """A notebook in which 3.2 is answered by one cell, and checked below."""
    return notebook(answer(source), CHECKED)


def beside(*own: str, source: str = RIGHT) -> list[dict]:
    """A notebook with own cells before the answer."""
    return notebook(*own, answer(source), CHECKED)


def with_line(line: str) -> str:
    return f"def hutchinson(matrices, probes):\n    {line}\n    return {MEAN}\n"


PASS: dict[str, list[dict]] = {
    "as it should be": alone(RIGHT),
    # -- one cell, several answers
    "two answers in one marked cell": notebook(answer(RIGHT + RIGHT_VARIANCE), CHECKED, CHECKED_VARIANCE),
    "all in one unmarked cell": notebook(f"{RIGHT}{RIGHT_VARIANCE}\n{CHECK}\n{CHECK_VARIANCE}"),
    "all in the other's cell, checks too": notebook(
        cell(f"{RIGHT}\n{CHECK}\n{RIGHT_VARIANCE}\n{CHECK_VARIANCE}", "exercise", "3.3")
    ),
    "answer and check in one cell": notebook(answer(f"{RIGHT}\n{CHECK}")),
    "the whole notebook in one cell": [cell(f"{SETUP}{LESSON}{RIGHT}{CHECK}")],
    "everything twice": notebook(answer(RIGHT), CHECKED, answer(RIGHT), CHECKED),
    # -- magics
    "%%time": alone(f"%%time\n{RIGHT}"),
    "%%time below blank lines": alone(f"\n  \n%%time\n\n{RIGHT}"),
    "%%capture with a name": alone(f"%%capture out\n{RIGHT}"),
    "%%capture with an option": alone(f"%%capture --no-stderr\n{RIGHT}"),
    "%%capture over %%time": alone(f"%%capture\n%%time\n{RIGHT}"),
    "%%prun": alone(f"%%prun -q\n{RIGHT}"),
    "%%time over the check": notebook(answer(RIGHT), cell(f"%%time\n{CHECK}", "check", "3.2")),
    "%time before a statement": beside("%time half = 0.5", source=with_line("assert half == 0.5")),
    "x = %time": beside("half = %time 1 / 2", source=with_line("assert half == 0.5")),
    "line magics, ! and ?": beside("%matplotlib agg\n!true\nhutchinson?", source=f"%pwd\n{RIGHT}\nhutchinson?"),
    "display": alone(with_line("display('inside')")),
    # -- own cells that change a name
    "items": beside("P = {}", "P['f'] = 'bmi,bij,bmj->bm'", source=RIGHT.replace('"bmi,bij,bmj->bm"', "P['f']")),
    "append": beside("F = []\nfor n in range(3):\n    F.append(n)", source=with_line("assert F == [0, 1, 2]")),
    "+=": beside("F = [0]", "F += [1]\nF[0] += 7", source=with_line("assert F == [7, 1]")),
    "attributes": beside(
        "class C: n = 1", "C.n += 1\nsetattr(C, 'm', 5)", source=with_line("assert (C.n, C.m) == (2, 5)")
    ),
    "defaults": notebook(
        answer(RIGHT.replace("probes)", "probes, k=1)", 1)), "hutchinson.__defaults__ = (2,)", CHECKED
    ),
    "a function that sets a global": beside(
        "def start():\n    global P\n    P = {}\n    P['x'] = 1", "start()", source=with_line("assert P == {'x': 1}")
    ),
    "a function that fills a table": beside(
        "T = {}\ndef register(n):\n    T[n] = n", "register(4)", source=with_line("assert T == {4: 4}")
    ),
    "a function that fills a table slowly": beside(
        "import time\nT = {}\ndef fill():\n    for n in range(10):\n        time.sleep(0.04)\n        T[n] = n",
        "fill()",
        source=with_line("assert len(T) == 10"),
    ),
    "a function that sets a global slowly": beside(
        "import time\ndef start():\n    global P\n    time.sleep(0.4)\n    P = 3",
        "start()",
        source=with_line("assert P == 3"),
    ),
    "much that the answer does not need": beside(
        *("import time\ntime.sleep(0.3)\nu = 1",) * 2, "K = 3\nK += 1", source=with_line("assert K == 4")
    ),
    "a closure": beside(
        f"def make(k):\n    def inner(matrices, probes):\n        return k * {MEAN}\n    return inner",
        source="hutchinson = make(1)",
    ),
    "a decorator that wraps": beside(
        "import functools\ndef same(f):\n    @functools.wraps(f)\n    def g(*a):\n        return f(*a)\n    return g",
        source=f"@same\n@torch.no_grad()\n{RIGHT}",
    ),
    "the check asserted": notebook(
        answer(RIGHT), cell('assert check("3.2", hutchinson) is hutchinson', "check", "3.2")
    ),
    "the check by its module": notebook(
        answer(RIGHT), cell('import coursework.exercises as ex\nex.check("3.2", hutchinson)', "check", "3.2")
    ),
    "the check in a function": notebook(
        answer(RIGHT), cell('def go():\n    return check("3.2", hutchinson)\nbest = go()', "check", "3.2")
    ),
    "the check tried": notebook(
        answer(RIGHT), cell('try:\n    check("3.2", hutchinson)\nfinally:\n    pass', "check", "3.2")
    ),
    "a decorator that registers": beside(
        "T = []\ndef register(f):\n    T.append(f)\n    return f",
        source=f"@register\n{RIGHT.replace('    return', '    assert len(T) == 1; return')}",
    ),
    "an alias that is changed": beside("P = {}\nQ = P", "Q['x'] = 1", source=with_line("assert P['x'] == 1")),
    "del": beside("P = {'a': 1, 'b': 2}", "del P['a']", source=with_line("assert list(P) == ['b']")),
    "with": beside(
        "import contextlib\nwith contextlib.suppress(KeyError):\n    K = 3", source=with_line("assert K == 3")
    ),
    "exec and globals()": beside("exec('K = 3')\nglobals()['M'] = 4", source=with_line("assert (K, M) == (3, 4)")),
    "a monkeypatch": beside(
        "torch.Tensor.quad = lambda v, A: torch.einsum('bmi,bij,bmj->bm', v, A, v)",
        source="def hutchinson(matrices, probes):\n    return probes.quad(matrices).mean(dim=1)\n",
    ),
    "default dtype": beside(
        "torch.set_default_dtype(torch.float64)", source=with_line("assert torch.ones(1).dtype == float64")
    ),
    "default dtype by a function": beside(
        "def wide():\n    torch.set_default_dtype(torch.float64)",
        "wide()",
        source=with_line("assert torch.ones(1).dtype == float64"),
    ),
    "recursion limit": beside(
        "import sys\nsys.setrecursionlimit(5000)",
        source=f"import sys\n{with_line('assert sys.getrecursionlimit() == 5000')}",
    ),
    "own cells that fail and print": beside("1 / 0", "print(undefined)", "raise SystemExit", "x = 5\nprint(x)"),
    "a cell that is no Python": beside("def f(:\n", "return 5", "break"),
    # -- a lesson's names
    "a lesson's value": notebook(cell(VARIANCE.replace("TWO_", "TWO"), "exercise", "3.3"), CHECKED_VARIANCE),
    "a lesson's table that a loop fills": notebook(
        cell(VARIANCE.replace("TWO_", "TABLE[2]"), "exercise", "3.3"), CHECKED_VARIANCE
    ),
    "a lesson's dtype": alone(with_line("matrices = matrices.to(W1.dtype)")),
    "a lesson's value as a default": notebook(
        cell(VARIANCE.replace("TWO_", "two").replace("moment)", "moment, two=TWO)"), "exercise", "3.3"),
        CHECKED_VARIANCE,
    ),
    "a lesson's type in an annotation": alone(RIGHT.replace("probes)", "probes: Matrix) -> Matrix", 1)),
    "an own value of a lesson's": beside("mine = W1.sum(0)", source=with_line("assert len(mine) == 3")),
    "a lesson's value that is set again later": notebook(
        cell(VARIANCE.replace("TWO_", "two").replace("moment)", "moment, two=TWO)"), "exercise", "3.3"),
        "TWO = 100",
        CHECKED_VARIANCE,
    ),
    "a lesson's cell that was edited": [
        cell(SETUP.replace("seed = 0", "seed = 0\nhalf = 0.5"), "setup"),
        answer(with_line("assert half == 0.5")),
        CHECKED,
    ],
    # -- checks
    "another name in the check": notebook(
        answer(STUB), RIGHT.replace("hutchinson", "mine"), cell('hutchinson = check("3.2", mine)', "check", "3.2")
    ),
    "a lambda in the check": notebook(
        answer(STUB), cell(f'hutchinson = check("3.2", lambda matrices, probes: {MEAN})', "check", "3.2")
    ),
    "a partial in the check": notebook(
        answer(RIGHT.replace("hutchinson(", "general(k, ")),
        cell('from functools import partial\ncheck("3.2", partial(general, 5))', "check", "3.2"),
    ),
    "keywords in the check": notebook(
        answer(RIGHT), cell('check(attempt=hutchinson, exercise_id="3.2")', "check", "3.2")
    ),
    "the check under another name": notebook(
        answer(RIGHT),
        cell('from coursework.exercises import check as verify\nverify("3.2", hutchinson)', "check", "3.2"),
    ),
    "the result under another name": notebook(answer(RIGHT), cell('best = check("3.2", hutchinson)', "check", "3.2")),
    "checks in a loop": notebook(
        answer(RIGHT),
        VARIED,
        'for number, f in {"3.2": hutchinson, "3.3": trace_variance}.items():\n    check(number, f)',
    ),
    "a check of one's own, the lesson's left alone": notebook(
        f'{RIGHT.replace("hutchinson", "mine")}\ncheck("3.2", mine)', answer(STUB), CHECKED
    ),
    "a wrong try checked before": notebook(answer(WRONG), CHECKED, RIGHT, cell(CHECK)),
    "a wrong try checked after": notebook(
        answer(RIGHT), CHECKED, WRONG.replace("hutch", "my_hutch"), 'check("3.2", my_hutchinson)'
    ),
    "defined anew after the check": notebook(answer(RIGHT), CHECKED, WRONG),
    "defined anew in the check's cell": notebook(answer(f"{RIGHT}\n{CHECK}\n{WRONG}")),
    "assigned from the check twice": notebook(answer(RIGHT), cell(f"{CHECK}\n{CHECK}", "check", "3.2")),
    # -- styles
    "a lambda": alone(f"hutchinson = lambda matrices, probes: {MEAN}"),
    "a class with __call__": alone(
        f"class H:\n    def __call__(self, matrices, probes):\n        return {MEAN}\nhutchinson = H()"
    ),
    "a method": alone(f"class H:\n    def m(self, matrices, probes):\n        return {MEAN}\nhutchinson = H().m"),
    "by exec": alone(f"exec({RIGHT!r})"),
    "in a loop": alone(f"for n in (1, 2):\n    {INDENTED}"),
    "if True": alone(f"if True:\n    {INDENTED}"),
    "try and except": alone(f"try:\n    import nothing_of_this_name\nexcept ImportError:\n    {INDENTED}"),
    "a walrus": alone(f"(hutchinson := lambda matrices, probes: {MEAN})"),
    "a tuple": alone(f"{RIGHT}hutchinson, other = hutchinson, 5"),
    "a star import": beside("from math import *", source=with_line("assert floor(1.5) == 1")),
    "future annotations": alone(
        f"from __future__ import annotations\n{RIGHT.replace('probes)', 'probes: NoSuchType)', 1)}"
    ),
    "future annotations in a cell before": beside(
        "from __future__ import annotations", source=RIGHT.replace("probes)", "probes: NoSuchType)", 1)
    ),
    "names that are not ASCII": beside(
        "σ = 1.0\ndef größe(v):\n    return σ", source=with_line("assert größe(1) == 1")
    ),
    "a helper below the answer": notebook(
        answer("def hutchinson(matrices, probes):\n    return quadratic(matrices, probes).mean(dim=1)\n"),
        f"def quadratic(matrices, probes):\n    return {MEAN.replace('.mean(dim=1)', '')}\n",
        CHECKED,
    ),
    "a helper that is set twice": beside(
        "k = 1\ndef f(n=k):\n    return n + k", "k = 2", source=with_line("assert f() == 3")
    ),
    "a name that is a lesson's variable": beside("x = [1]\nx.append(2)", source=with_line("assert x == [1, 2]")),
    "top-level await": beside(
        "import asyncio\nasync def get():\n    await asyncio.sleep(0)\n    return 3",
        "K = await get()",
        source=with_line("assert K == 3"),
    ),
    "a dataclass": beside(
        "from dataclasses import dataclass\n@dataclass\nclass S:\n    n: int = 3", source=with_line("assert S().n == 3")
    ),
    "recursion": alone(
        "def hutchinson(matrices, probes, deep=2):\n"
        f"    return hutchinson(matrices, probes, deep - 1) if deep else {MEAN}\n"
    ),
    "the marks of all cells lost": [
        cell(one["source"]) for one in notebook(answer(RIGHT), CHECKED, VARIED, CHECKED_VARIANCE)
    ],
}
FAIL: dict[str, list[dict]] = {
    "the stub": alone(STUB),
    "wrong": alone(WRONG),
    "%%timeit": alone(f"%%timeit -n 1 -r 1\n{RIGHT}"),
    "%%writefile": alone(f"%%writefile /dev/null\n{RIGHT}"),
    "%%html": alone(f"%%html\n{RIGHT}"),
    "only defined after the check": notebook(answer(WRONG), CHECKED, RIGHT.replace("hutchinson", "other")),
    "an own cell that spoils it": notebook(answer(RIGHT), f"{WRONG}", CHECKED),
    "no function": alone("hutchinson = 5"),
    "a cell that does not parse": alone(f"{RIGHT}\n)"),
    "an own table that is wrong": beside("F = [1]", "F.append(2)", source=with_line("assert F == [1]")),
}


@pytest.fixture(autouse=True)
def no_running_loop():
    """A browser that tests drive in this process leaves its event loop running, and awaiting needs one of its own."""
    before = asyncio.events._get_running_loop()
    asyncio.events._set_running_loop(None)
    yield
    asyncio.events._set_running_loop(before)


@pytest.fixture(scope="module")
def shell():
    """IPython's shell, as a notebook's kernel has it."""
    config = Config({"HistoryManager": {"enabled": False}, "InteractiveShell": {"colors": "nocolor"}})
    shell = InteractiveShell.instance(config=config)
    yield shell
    shell.restore_sys_module_state()  # its __main__ lacks what multiprocessing asks of one
    InteractiveShell.clear_instance()


def at_home(shell, found: list[dict], monkeypatch) -> dict[str, SimpleNamespace]:
    """What the checks of a notebook say when it runs from its top: for each exercise, whether one passed."""
    said: dict[str, SimpleNamespace] = {}

    def judge(exercise, attempt, **options):
        verdict = judging.judge(exercise, attempt, **options)
        before = said.get(exercise.id, SimpleNamespace(passed=False))
        said[exercise.id] = SimpleNamespace(passed=before.passed or verdict.outcome == "passed", verdict=verdict)
        return verdict

    monkeypatch.setattr(exercises, "judge", judge)
    shell.reset(new_session=True)
    try:
        for one in found:
            shell.run_cell(one["source"], store_history=False)
    finally:
        restore()
    return said


def restore() -> None:
    """What a notebook changes beyond its own names."""
    torch.set_default_dtype(torch.float32)
    sys.setrecursionlimit(1000)
    if hasattr(torch.Tensor, "quad"):
        del torch.Tensor.quad


def in_grading(found: list[dict]) -> dict[str, str]:
    """The outcome of each exercise by what the grader does, without its sandbox."""
    handed_in = handin.parse(json.dumps({"cells": found}).encode(), SMALL)
    try:
        return {mark.exercise: mark.outcome for mark in judge_here(handed_in, SMALL)}
    finally:
        restore()


@pytest.mark.parametrize("name", PASS)
def test_what_passes_at_home_passes_in_grading(name, shell, monkeypatch):
    home, graded = at_home(shell, PASS[name], monkeypatch), in_grading(PASS[name])
    assert any(said.passed for said in home.values())
    assert {e: said.passed for e, said in home.items()} == {e: graded[e] == "passed" for e in home}, (home, graded)


@pytest.mark.parametrize("name", FAIL)
def test_what_fails_at_home_fails_in_grading(name, shell, monkeypatch):
    home, graded = at_home(shell, FAIL[name], monkeypatch), in_grading(FAIL[name])
    assert not any(said.passed for said in home.values())
    assert graded["3.2"] != "passed"


def guided_by_vmap(conditional_score, label, scale, x, t):
    """One call in the source, over both labels; nothing of it can leave the process."""
    labels = torch.stack([torch.full_like(label, -1), label])
    free, conditional = torch.func.vmap(lambda value: conditional_score(x, t, value))(labels)
    return free + scale * (conditional - free)


def guided_by_a_list(conditional_score, label, scale, x, t):
    both = conditional_score(torch.cat([x, x]), torch.cat([t, t]), [-1] * len(label) + label.tolist())
    return both[: len(x)] + scale * (both[len(x) :] - both[: len(x)])


@pytest.mark.parametrize("attempt", [guided_by_vmap, guided_by_a_list])
def test_a_counted_function_refuses_here_what_cannot_be_sent_there(attempt):
    exercise = find("11.2")
    ours, theirs = socket.socketpair()
    with ours, theirs, pytest.raises(TypeError, match="label: this function is called with plain tensors") as refused:
        attempt(NextDoor(ours, 0, ["x", "t", "label"]), *judging.case("11.2")[1:])
    assert str(refused.value) in judging.judge(exercise, attempt).message


def test_the_sandbox_says_the_same():
    names = ("%%capture over %%time", "top-level await", "default dtype by a function", "checks in a loop")
    with Grader(Rules("a secret for tests")) as grader:
        for name in names:
            handed_in = handin.parse(json.dumps({"cells": PASS[name]}).encode(), SMALL)
            marks, _ = grader.grade(handed_in, SMALL)
            assert {mark.exercise: mark.outcome for mark in marks} == in_grading(PASS[name]), marks
            assert marks[0].outcome == "passed"
