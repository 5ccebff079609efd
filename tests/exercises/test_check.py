"""The exercise engine: whatever a learner's function does, the message is clear and the kernel lives."""

import contextlib
import functools
import re
import threading
import time
import warnings
from types import SimpleNamespace

import pytest
import torch

from coursework import exercises
from coursework.exercises import CheckFailed, NotAttempted, case, check, hint
from coursework.exercises.attempt import PRINTED_MOST, TimeIsUp, run
from coursework.exercises.exercise import find
from coursework.exercises.judging import difference, judge
from coursework.exercises.portable import remarks
from coursework.exercises.report import Box, verdict_box
from coursework.sdes import VPSDE

GAUSSIAN = find("1.1")
gaussian_score = GAUSSIAN.reference


def verdict(attempt):
    return judge(GAUSSIAN, attempt)


def wrong(attempt):
    judged = verdict(attempt)
    assert judged.outcome == "wrong"
    return judged


def loops_forever(x, mean, covariance):
    while True:
        pass


def loops_and_catches_everything(x, mean, covariance):
    while True:
        with contextlib.suppress(BaseException):
            time.sleep(0.01)


@pytest.mark.parametrize("attempt", [loops_forever, loops_and_catches_everything])
def test_an_endless_loop_ends_within_ten_seconds(attempt):
    """By the limit that the message names: a busy machine ends it later."""
    assert re.search(r"stopped after \d s\. Is there a loop that never ends\?", wrong(attempt).message)


def test_output_of_megabytes_is_cut():
    def prints(x, mean, covariance):
        for _ in range(30):
            print("y" * 1_000_000)
        return gaussian_score(x, mean, covariance)

    judged = verdict(prints)
    assert judged.outcome == "passed"
    assert len(judged.printed) < PRINTED_MOST + 100
    assert "characters more" in judged.printed


def test_mutated_argument_is_noticed():
    def mutates(x, mean, covariance):
        result = gaussian_score(x, mean, covariance)
        x -= mean
        return result

    assert "in place" in wrong(mutates).message


@pytest.mark.parametrize(
    ("attempt", "words"),
    [
        (lambda x, mean, covariance: x * float("nan"), r"(\d+) of \1 values are NaN"),
        (
            lambda x, mean, covariance: gaussian_score(x, mean, covariance).float(),
            r"values are right, so .to\(torch.float64",
        ),
        (
            lambda x, mean, covariance: gaussian_score(x, mean, covariance)[0],
            r"expected shape \(\d, (\d)\), got \(\1,\)",
        ),
        (lambda x, mean, covariance: None, "Is a `return` missing"),
        (lambda x, mean, covariance: gaussian_score(x, mean, covariance).numpy(), "torch.Tensor, got ndarray"),
        (lambda x, mean, covariance: 1 / 0, "raises ZeroDivisionError: division by zero"),
        (lambda x: x, "raises TypeError"),
        (lambda x, mean, covariance: exit(1), "raises SystemExit"),
        (lambda x, mean, covariance: 3 * gaussian_score(x, mean, covariance), "3 times the expected"),
        (lambda x, mean, covariance: gaussian_score(x, mean, covariance) + 1e-3, r"expected .*, got .* at \[0, 0\]"),
        (torch.zeros(3), "check needs a function, got a torch.Tensor"),
        (None, "check needs a function, got NoneType"),
    ],
)
def test_message_says_what_is_wrong(attempt, words):
    assert re.search(words, wrong(attempt).message)


def test_error_names_the_learners_line(tmp_path):
    path = tmp_path / "cell.py"
    path.write_text("def attempt(x, mean, covariance):\n    y = x - mean\n    return y @ y @ y\n")
    scope = {}
    exec(compile(path.read_text(), str(path), "exec"), scope)
    assert "line 3: return y @ y @ y" in wrong(scope["attempt"]).message


def test_endless_recursion_is_an_error_like_any_other():
    def recurses(x, mean, covariance):
        return recurses(x, mean, covariance)

    assert "RecursionError" in wrong(recurses).message


def test_warnings_reach_the_learner_and_not_the_kernel():
    def warns(x, mean, covariance):
        import warnings

        warnings.warn("look here", stacklevel=1)
        return -gaussian_score(x, mean, covariance)

    assert "look here" in wrong(warns).printed


def test_a_number_is_accepted_where_a_0d_tensor_is_expected():
    assert judge(find("1.6"), lambda distance, std: float((distance**2 - std**2) ** 0.5)).outcome == "passed"


def test_interrupt_stops_the_attempt_and_is_raised_again(monkeypatch):
    before = set(threading.enumerate())
    join, interrupts = threading.Thread.join, iter([KeyboardInterrupt])

    def interrupted(thread, timeout=None):
        for interrupt in interrupts:
            raise interrupt
        return join(thread, timeout)

    monkeypatch.setattr(threading.Thread, "join", interrupted)
    with pytest.raises(KeyboardInterrupt):
        run(lambda: loops_forever(0, 0, 0), 60)
    assert set(threading.enumerate()) <= before


def test_time_limit_counts_all_cases_together():
    got = run(lambda: [time.sleep(0.05) for _ in range(1000)], 0.3)
    assert isinstance(got.error, TimeIsUp)


def test_the_right_answer_goes_first(monkeypatch):
    """What torch imports at the first use of a function, seconds of work, is then no part of an attempt's time."""
    called = []
    monkeypatch.setitem(vars(GAUSSIAN), "reference", lambda *args: called.append("right") or gaussian_score(*args))
    verdict(lambda *args: called.append("mine") or gaussian_score(*args))
    assert called[0] == "right"


def warns(function):
    """The function, and a warning as torch gives one at the first use of a part of its own."""

    @functools.wraps(function)
    def warning(*args):
        warnings.warn("a part of torch is deprecated", FutureWarning, stacklevel=1)
        return function(*args)

    return warning


def test_what_torch_warns_of_in_our_own_answers_reaches_nobody(monkeypatch):
    monkeypatch.setitem(vars(GAUSSIAN), "reference", warns(gaussian_score))
    mistakes = [SimpleNamespace(name=m.name, wrong=warns(m.wrong), edits=()) for m in GAUSSIAN.mistakes]
    monkeypatch.setitem(vars(GAUSSIAN), "record", SimpleNamespace(mistakes=mistakes))
    assert verdict(GAUSSIAN.mistakes[-1].wrong.__wrapped__).misconception == mistakes[-1].name


def test_check_returns_the_learners_function_where_it_is_right(capsys):
    def mine(x, mean, covariance):
        return gaussian_score(x, mean, covariance)

    assert check("1.1", mine) is mine
    assert "passed" in capsys.readouterr().out


@pytest.mark.parametrize(
    "attempt", [lambda x, mean, covariance: -gaussian_score(x, mean, covariance), lambda *a: stub()]
)
def test_check_falls_back_to_the_reference_and_says_so(attempt, capsys):
    assert check("1.1", attempt) is GAUSSIAN.reference
    assert "goes on with the reference implementation" in capsys.readouterr().out


def stub():
    raise NotAttempted


def test_running_a_check_again_after_a_fallback_is_no_pass(capsys):
    reference = check("1.1", stub)
    capsys.readouterr()
    assert check("1.1", reference) is reference
    assert "1.1 (the score of a Gaussian): not attempted" in capsys.readouterr().out


def test_the_reference_is_no_attempt_in_grading(monkeypatch):
    monkeypatch.setenv("COURSEWORK_GRADING", "1")
    with pytest.raises(CheckFailed, match="not attempted"):
        check("1.1", GAUSSIAN.reference)


def test_named_misconception_reaches_the_learner(capsys):
    check("1.1", lambda x, mean, covariance: (x - mean) @ torch.linalg.inv(covariance))
    assert "the sign is turned" in capsys.readouterr().out


@pytest.mark.parametrize("attempt", [lambda *a: stub(), lambda *a: None, lambda x, m, c: -gaussian_score(x, m, c)])
def test_grading_raises_for_anything_but_a_pass(attempt, monkeypatch):
    monkeypatch.setenv("COURSEWORK_GRADING", "1")
    with pytest.raises(CheckFailed):
        check("1.1", attempt)


def test_grading_is_silent_about_a_pass_and_draws_fresh_cases(monkeypatch, capsys):
    monkeypatch.setenv("COURSEWORK_GRADING", "1")
    seen = []

    def mine(x, mean, covariance):
        seen.append(x.clone())
        return gaussian_score(x, mean, covariance)

    check("1.1", mine)
    check("1.1", mine)
    assert capsys.readouterr().out == capsys.readouterr().err == ""
    one, other = seen[:5], seen[5:]  # each check calls the first case twice
    assert torch.equal(one[0], one[4])
    assert not any(torch.equal(a, b) for a in one for b in other)
    monkeypatch.setenv("COURSEWORK_GRADING_SEED", "5")
    seen.clear()
    check("1.1", mine)
    first = seen.copy()
    seen.clear()
    check("1.1", mine)
    assert all(torch.equal(a, b) for a, b in zip(first, seen, strict=True))


def test_hints_come_one_at_a_time(capsys, monkeypatch):
    monkeypatch.setattr(exercises, "_hints_given", {})
    shown = []
    for _ in range(len(GAUSSIAN.hints) + 1):
        hint("1.1")
        shown.append(capsys.readouterr().out)
    assert [h in s for h, s in zip(GAUSSIAN.hints, shown, strict=False)] == [True] * len(GAUSSIAN.hints)
    assert GAUSSIAN.hints[1] not in shown[0]
    assert GAUSSIAN.hints[-1] in shown[-1]


def test_case_gives_the_arguments_of_a_failure():
    message = wrong(lambda x, mean, covariance: gaussian_score(x, mean, covariance) + (x.sum() > 0)).message
    number = int(message.split()[1].rstrip(":"))
    x, mean, covariance = case("1.1", number)
    assert x.sum() > 0
    assert f"{gaussian_score(x, mean, covariance)[0, 0].item():.6g}" in message


@pytest.mark.parametrize("number", [0, 5, -1])
def test_case_refuses_a_number_that_is_not_tried(number):
    with pytest.raises(ValueError, match="number: expected 1 to 4"):
        case("1.1", number)


def test_switching_on_gradients_in_the_argument_is_a_change():
    def grabs(energy, x):
        x.requires_grad_()
        return -torch.autograd.grad(energy(x).sum(), x)[0]

    assert "in place" in judge(find("1.3"), grabs).message


def test_a_loss_without_a_gradient_is_noticed():
    exercise = find("4.1")
    message = judge(exercise, lambda *args: exercise.reference(*args).detach()).message
    assert "All of it is 0: leave out .detach()" in message


@pytest.mark.parametrize("kind", [list, str, lambda value: None, torch.Tensor.tolist])
def test_one_of_several_values_that_is_no_tensor_is_named(kind):
    exercise = find("4.5")
    judged = judge(exercise, lambda *args: (kind(exercise.reference(*args)[0]), *exercise.reference(*args)[1:]))
    assert judged.outcome == "wrong"
    complaint = "(expected a torch.Tensor, got (list; torch.stack of|str$)|your function returns None)"
    assert re.match(f"Case 1: the noise: {complaint}", judged.message)


def test_a_value_of_zero_that_is_no_gradient_gets_no_remark_on_detach():
    exercise = find("4.5")
    judged = judge(exercise, lambda *args: tuple(0 * value for value in exercise.reference(*args)))
    assert judged.outcome == "wrong"
    assert "detach" not in judged.message


@pytest.mark.parametrize("got", [3.7, float("inf"), float("nan"), 1e308, 2**60])
def test_a_number_for_an_integer_is_compared_and_not_cut_off(got):
    assert difference(got, torch.tensor(3), 1e-6)
    assert not difference(3.0, torch.tensor(3), 1e-6)
    assert not difference(3, torch.tensor(3), 1e-6)


@pytest.mark.parametrize("bad", ["1.99", "77.1", "one", ""])
def test_unknown_exercise_is_refused(bad):
    with pytest.raises(ValueError, match="id: no exercise"):
        check(bad, gaussian_score)


def test_box_escapes_html_and_marks_code():
    box = Box("wrong", "a < b", ("use `x < 1` & <script>",))
    assert "<script>" not in box._repr_html_()
    assert "<code>x &lt; 1</code>" in box._repr_html_()
    assert repr(box).splitlines() == ["✗ a < b", "  use `x < 1` & <script>"]


def test_box_of_a_pass_shows_what_was_printed():
    def prints(x, mean, covariance):
        print("hello")
        return gaussian_score(x, mean, covariance)

    assert "hello" in repr(verdict_box(verdict(prints)))


# -- what grading will not have ----------------------------------------------------------------------------------------


def from_notebook(source: str, **names):
    """What a cell defines."""
    space = {"__name__": "__main__", **names}
    exec(compile(source, "<cell>", "exec"), space)
    return space["mine"]


def test_what_passes_here_and_cannot_in_grading_is_said(tmp_path, monkeypatch):
    (tmp_path / "coursework").mkdir()  # students get a folder of this name
    (tmp_path / "coursework" / "my_helpers.py").write_text("K = 3\ndef helper(x):\n    return K * x\n")
    monkeypatch.syspath_prepend(tmp_path / "coursework")
    import my_helpers

    network = torch.nn.Linear(2, 2)
    file = "comes from a file of yours: grading has your notebook alone, so put it into a cell."
    package = "is of the course's package: in grading this answer may not use it."
    cases = {
        "def mine(x): return my_helpers.helper(x)": [f"`my_helpers` {file}"],
        "def mine(x): return other(x)\ndef other(x): return helper(x)": [f"`helper` {file}"],
        "from functools import partial\nmine = partial(lambda k, x: helper(x), 5)": [f"`helper` {file}"],
        "class A:\n    def __call__(self, x): return helper(x)\nmine = A()": [f"`helper` {file}"],
        "def mine(x): return network(x)": [
            "`network` is a network of the notebook: grading trains nothing, so do without it."
        ],
        "def mine(x): return sde.alpha(x)": [f"`sde` {package}"],
        "from coursework import sdes\ndef mine(x): return sdes.VPSDE().alpha(x)": [f"`sdes` {package}"],
        "from coursework.sdes import karras_times\ndef mine(x): return karras_times(x, 5)": [
            f"`karras_times` {package}"
        ],
        "import math\ndef mine(x): return torch.sin(x) + math.pi + half\nhalf = 0.5": [],
        "def mine(x):\n    return mine(x - 1) if x else gaussian_score": [],
        "from math import floor\ndef mine(x): return floor(x)": [],
        "from operator import itemgetter\nfirst = itemgetter(0)\ndef mine(x): return first(x)": [],
        "length = [].__len__\ndef mine(x): return length() + str.upper(x) + add(x, x)\nadd = int.__add__": [],
        "mine = lambda x: mine(x)\nmine.again = mine": [],
        "mine = 5": [],
    }
    names = {"my_helpers": my_helpers, "helper": my_helpers.helper, "network": network, "torch": torch, "sde": VPSDE()}
    for source, expected in cases.items():
        assert remarks(from_notebook(source, gaussian_score=gaussian_score, **names), 0.1) == expected, source


def test_what_the_exercise_lists_of_the_package_is_no_remark():
    mine = from_notebook("from coursework.sdes import karras_times\ndef mine(x): return karras_times(x, 5)")
    assert remarks(mine, 0.1, ("coursework.sdes.karras_times",)) == []


def test_a_slow_answer_is_told_what_grading_allows(capsys, monkeypatch):
    assert remarks(gaussian_score, 5.2) == [
        "It took 5 s here: grading has 15 s for all exercises of a notebook together."
    ]
    monkeypatch.setattr(exercises, "remarks", lambda attempt, seconds, uses: ["a remark"])
    check("1.1", lambda x, mean, covariance: gaussian_score(x, mean, covariance))
    assert "a remark" in capsys.readouterr().out
    check("1.1", lambda x, mean, covariance: -gaussian_score(x, mean, covariance))
    assert "a remark" not in capsys.readouterr().out


def test_a_complex_value_is_told_from_a_wrong_one():
    right = torch.tensor([1.0, 2.0], dtype=torch.float64)
    said = difference(right + 0j, right, 1e-6)
    assert said.startswith("expected dtype torch.float64, got torch.complex128")
    assert said.endswith(".real is all that is missing")
    assert "missing" not in difference(2 * right + 0j, right, 1e-6)
