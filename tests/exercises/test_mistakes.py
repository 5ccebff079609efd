"""Mistakes as edits of the right answer: how they are read, applied, shown, and named two at a time."""

import itertools
import math
import random
import re
import types

import pytest
import torch

from coursework.exercises import case, check, judging, with_mistake
from coursework.exercises.attempt import TimeIsUp
from coursework.exercises.exercise import find, folder, lesson_exercises
from coursework.exercises.mistakes import Answer, read

LESSONS = [number for number in range(30) if folder(number).is_dir()]
EXERCISES = [exercise for number in LESSONS for exercise in lesson_exercises(number)]
FRESH = 2_000_003
PAIRS = 10  # random pairs of an exercise's mistakes

every_exercise = pytest.mark.parametrize("exercise", EXERCISES, ids=lambda e: e.id)

SOURCE = '''
import math

from torch import Tensor

HALF = 0.5


def helper(x: Tensor, scale: float = 2.0) -> Tensor:
    """Twice x."""
    return scale * x


def unused(x):
    return x


def answer(x: Tensor, h: Tensor, *, power: int = 2) -> Tensor:
    """x - h helper(x)."""
    a = helper(x) + HALF * math.pi
    return x - h * a**power
'''
TEXT = """HALF = 0.5


def helper(x, scale=2.0):
    return scale * x


def answer(x, h, *, power=2):
    a = helper(x) + HALF * math.pi
    return x - h * a**power
"""
FILE = """# Mistakes

## 7.1 a small step

- `x - h` → `x + h`: the sign `-` is turned: time
  runs `x - h` backwards.
- `+ HALF * math.pi` → nothing, `scale * x` → `x`: two places.
- another way altogether.

  ```python
  def answer(x, h):
      return helper(x)
  ```

### Hints

1. Read.
2. Read
   again.

### Derivation

Derive $x$, and
say why.

- 40%: The beginning.
- 60%: The end: $x$.

## 7.2 nothing yet
"""


@pytest.fixture
def answer(tmp_path, monkeypatch):
    """The right answer of `SOURCE`."""
    path = tmp_path / "answers_of_a_test.py"
    path.write_text(SOURCE)
    monkeypatch.syspath_prepend(tmp_path)
    module = types.ModuleType("answers_of_a_test")
    module.__file__ = str(path)
    exec(compile(SOURCE, str(path), "exec"), vars(module))
    return Answer(module, "answer")


@pytest.fixture
def record(answer, tmp_path):
    path = tmp_path / "mistakes.md"
    path.write_text(FILE)
    return read(path, {"7.1": answer, "7.2": answer})["7.1"]


def test_an_answer_is_its_function_and_what_it_uses_without_docstrings_and_types(answer):
    assert answer.text == TEXT
    assert answer.imports.splitlines() == ["import math", "from torch import Tensor"]
    assert answer.function(answer.text)(1.0, 2.0) == 1 - 2 * (2 + math.pi / 2) ** 2


def test_a_file_is_read(record):
    assert record.title == "a small step"
    assert [mistake.name for mistake in record.mistakes] == [
        "the sign `-` is turned: time runs `x - h` backwards.",
        "two places.",
        "another way altogether.",
    ]
    assert record.mistakes[1].edits == (("+ HALF * math.pi", ""), ("scale * x", "x"))
    assert record.hints == ("Read.", "Read again.")
    assert record.derivation.prompt == "Derive $x$, and say why."
    assert record.derivation.rubric == ((0.4, "The beginning."), (0.6, "The end: $x$."))


def test_edits_are_made(record):
    texts = [mistake.text for mistake in record.mistakes]
    assert texts[0] == TEXT.replace("x - h", "x + h")
    assert texts[1] == TEXT.replace("+ HALF * math.pi", "").replace("scale * x", "x")
    assert texts[2] == TEXT.partition("def answer")[0] + "def answer(x, h):\n    return helper(x)\n"
    assert [mistake.wrong(1.0, 2.0) for mistake in record.mistakes] == [1 + 2 * (2 + math.pi / 2) ** 2, -1.0, 2.0]


def test_two_mistakes_in_different_places_go_together(record):
    sign, places, another = record.mistakes
    assert sign.and_also(places)(1.0, 2.0) == places.and_also(sign)(1.0, 2.0) == 3.0
    assert sign.and_also(another) is another.and_also(sign) is None
    assert sign.and_also(sign) is None


@pytest.mark.parametrize(
    ("one", "other", "together"),
    [
        ("`x - h` → `x + h`", "`h * a**power` → `h`", True),  # what stays of an edit may be in another
        ("`a**power` → `a`", "`h * a` → `a`", True),
        ("`a**power` → `a`", "`h * a**power` → `h`", False),
        ("`x - h` → `x - 2 * h`", "`- h` → `- h**2`", True),
        ("`x - h` → `x - 2 * h`", "`- h` → `- 3 * h`", False),
        ("`* a**power` → nothing", "`power` → `power + 1`", False),
        ("`- h` → `-`", "`h *` → `h`", True),  # each makes sense
        ("`x - h * ` → nothing", "`a**power` → `- a`", True),
        ("`x - h` → `(x - h`", "`a**power` → `a`", False),  # makes no sense
    ],
)
def test_edits_of_one_place_do_not_go_together(one, other, together, answer, tmp_path):
    path = tmp_path / "mistakes.md"
    path.write_text(f"## 7.1 a\n\n- {one}: a.\n- {other}: b.\n")
    a, b = read(path, {"7.1": answer})["7.1"].mistakes
    assert (a.and_also(b) is not None) == (b.and_also(a) is not None) == together


@pytest.mark.parametrize(
    ("item", "words"),
    [
        ("`x` → `y`: a.", "`x` stands in 3 places, not in one"),
        ("`x - g` → `y`: a.", "`x - g` stands in 0 places"),
        ("`Twice` → `y`: a.", "`Twice` stands in 0 places"),
        ("`x, h` → `y`: a.", "`x, h` stands in 0 places"),  # the head of a function is none of its places
        ("`x - h` → `y` a.", "neither `old` → `new`: nor a function"),
        ("a.", "neither `old` → `new`: nor a function"),
    ],
)
def test_what_does_not_fit_is_refused(item, words, answer, tmp_path):
    path = tmp_path / "mistakes.md"
    path.write_text(f"## 7.1 a\n\n- {item}\n")
    with pytest.raises(ValueError, match=re.escape(words)):
        _ = read(path, {"7.1": answer})["7.1"].mistakes[0].text


# -- the course's own --------------------------------------------------------------------------------------------------


@every_exercise
def test_each_mistake_is_shown_as_code_that_makes_it(exercise):
    right = with_mistake(exercise.id, 0)
    for number, mistake in enumerate(exercise.mistakes, 1):
        text = with_mistake(exercise.id, number)
        assert text != right
        space = {}
        exec(f"{exercise.answer.imports}\n{text}", space)
        shown, made = (judging.observe_wrong(exercise, f, FRESH) for f in (space[exercise.name], mistake.wrong))
        assert shown is not None
        assert judging.agree(shown, made, 1e-9)


def test_a_mistake_that_is_not_recorded_is_refused():
    count = len(find("8.1").mistakes)
    with pytest.raises(ValueError, match=f"number: expected 0 to {count}, got {count + 1}"):
        with_mistake("8.1", count + 1)


@pytest.mark.parametrize("lesson", LESSONS)
def test_two_mistakes_at_once_are_named(lesson, monkeypatch):
    """In at least 90 % of random pairs that touch different places; what is named gives the same values."""
    monkeypatch.setattr(judging, "PAIRS", math.inf)
    named = []
    for exercise in lesson_exercises(lesson):
        pairs = list(itertools.combinations(exercise.mistakes, 2))
        for one, other in random.Random(lesson).sample(pairs, len(pairs)):
            both = one.and_also(other)
            if both is None or judging.observe_wrong(exercise, both, FRESH) is None:
                continue
            verdict = judging.judge(exercise, both, seed=FRESH)
            if verdict.outcome == "wrong":
                named.append((exercise.id, bool(verdict.misconception), verdict.misconception.startswith(judging.TWO)))
            if sum(number == exercise.id for number, *_ in named) == PAIRS:
                break
    share = sum(known for _, known, _ in named) / len(named)
    print(f"lesson {lesson:02d}: {share:.1%} of {len(named)} pairs are named, {sum(two for *_, two in named)} as two")
    assert len(named) >= 5 * len(lesson_exercises(lesson))
    assert share >= 0.9


def test_both_names_reach_the_learner(capsys):
    def mine(x, score_value, f, g, h, z):
        return x + h * (f * x - g**2 * score_value) + g * h * z

    check("8.1", mine)
    said = capsys.readouterr().out
    assert "This looks like two known mistakes at once. First: the drift has the wrong sign." in said
    assert "Second: the noise is multiplied by h." in said


def test_looking_for_two_mistakes_ends(monkeypatch):
    monkeypatch.setattr(judging, "PAIRS", -1.0)
    exercise = find("8.1")
    one, other = exercise.mistakes[3], exercise.mistakes[8]
    assert judging.judge(exercise, one.and_also(other)).misconception == ""


def own_numbers(name):
    """A right answer to 8.1, but for small random numbers of its own."""
    import random

    import numpy

    draws = {
        "torch": lambda: torch.randn(()).item(),
        "numpy": lambda: numpy.random.default_rng().normal(),
        "random": random.random,
    }
    return lambda *args: find("8.1").reference(*args) + draws[name]()


@pytest.mark.parametrize("name", ["torch", "numpy", "random"])
def test_a_function_that_draws_its_own_numbers_is_found(name):
    verdict = judging.judge(find("8.1"), own_numbers(name))
    assert verdict.outcome == "wrong"
    assert verdict.misconception.startswith("you draw random numbers of your own: two calls with the same arguments")
    assert verdict.misconception.endswith("Use the argument `z`.")


def test_a_function_that_is_right_at_first_and_not_again_is_wrong():
    called = []

    def mine(*args):
        called.append(args)
        return find("8.1").reference(*args) + (len(called) > 4)

    verdict = judging.judge(find("8.1"), mine)
    assert (verdict.outcome, verdict.message) == ("wrong", judging.AGAIN)
    assert all(torch.equal(a, b) for a, b in zip(called[0], called[4], strict=True))
    assert torch.equal(called[0][0], case("8.1", 1)[0])


def test_an_error_when_it_is_called_again_is_told():
    called = []

    def mine(*args):
        called.append(args)
        if len(called) > 4:
            raise KeyError("again")
        return find("8.1").reference(*args)

    message = judging.judge(find("8.1"), mine).message
    assert message.startswith("Case 1, called again: your function raises KeyError: 'again'")


def test_an_answer_that_has_time_for_all_cases_once_passes():
    called = []

    def mine(*args):
        called.append(args)
        if len(called) > 4:
            raise TimeIsUp
        return find("8.1").reference(*args)

    assert judging.judge(find("8.1"), mine).outcome == "passed"


def test_random_numbers_that_change_nothing_are_no_mistake():
    def mine(*args):
        return find("8.1").reference(*args) + 0 * torch.randn(())

    assert judging.judge(find("8.1"), mine).outcome == "passed"
