"""Parameters of lessons: how values are read, what a lesson takes, and what is refused in which words."""

from pathlib import Path

import nbformat
import pytest
from nbformat import v4

from coursework.course import parameters
from coursework.course.parameters import Parameter, parameters_of, problems, same_type
from tests.helpers import ROOT


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("3", 3),
        ("-1", -1),
        ("1e-3", 0.001),
        ("true", True),
        ("True", True),
        ("null", None),
        ("None", None),
        ("[1, 2]", [1, 2]),
        ("(1, 2)", (1, 2)),
        ("'a b'", "a b"),
        ('{"a": 1}', {"a": 1}),
        ("cpu", "cpu"),
        ("cuda:1", "cuda:1"),
        ("", ""),
        ("[" * 100_000, "[" * 100_000),
        ("9" * 5000, "9" * 5000),
    ],
    ids=lambda value: repr(value)[:20],
)
def test_values_of_parameters(text, value):
    assert parameters.parse_value(text) == value
    assert type(parameters.parse_value(text)) is type(value)


def lesson(folder: Path, source: str) -> Path:
    """A lesson whose `parameters` cell is this one; a cell after it assigns another name."""
    cells = [v4.new_code_cell(source, metadata={"tags": ["parameters"]}), v4.new_code_cell("later = 1")]
    nbformat.write(v4.new_notebook(cells=cells), folder / "01_a.ipynb")
    return folder / "01_a.ipynb"


def test_the_parameters_are_what_the_tagged_cell_assigns(tmp_path):
    source = "seed = 0\nrate: float = 1e-3\nlow, high = -1, 1\nsizes = [1,\n  2]\nprint()\ntwice = 2 * seed\na, b = f()"
    assert list(parameters_of(lesson(tmp_path, source)).values()) == [
        Parameter("seed", "0", True, 0),
        Parameter("rate", "0.001", True, 0.001),
        Parameter("low", "-1", True, -1),
        Parameter("high", "1", True, 1),
        Parameter("sizes", "[1, 2]", True, [1, 2]),
        Parameter("twice", "2 * seed", False),
        Parameter("a", "f()[0]", False),
        Parameter("b", "f()[1]", False),
    ]


@pytest.mark.parametrize(
    ("default", "fit", "misfit"),
    [
        (3, [0, -1], [1.0, "1", True, None, [1]]),
        (0.5, [1, 2.5, float("inf")], ["1", True, None]),
        (True, [False], [1, 0, "true"]),
        ("auto", ["cpu", ""], [0, None, ["cpu"]]),
        ([1, 2], [[5], (7, 8), []], [3, "[1]", [1.5], ["a"], [True]]),
        ((0.1, "a"), [[1], ["b", 2.0]], [[None], 0.1]),
        ([], [[1], ["a"], ()], [1, "a"]),
        ({"a": 1}, [{}], [[], "a"]),
        (None, [None, 1, "a", [2]], []),
    ],
)
def test_which_values_can_stand_for_a_default(default, fit, misfit):
    assert [value for value in fit if not same_type(value, default)] == []
    assert [value for value in misfit if same_type(value, default)] == []


def test_a_refusal_names_what_there_is(tmp_path):
    path = lesson(tmp_path, "seed = 0\nname = 'x'\ntwice = 2 * seed")
    it_has = "it has seed = 0, name = 'x', twice = 2 * seed"
    assert problems([path], {"sede": 1}) == [f"01_a has no parameter 'sede'; {it_has}"]
    assert problems([path], {"seed": "one", "name": 2}) == [
        f"01_a: seed takes a value of type int, got 'one' of type str; {it_has}",
        f"01_a: name takes a value of type str, got 2 of type int; {it_has}",
    ]
    assert problems([path], {"seed": 7, "name": "y", "twice": "anything"}) == []


@pytest.mark.parametrize("content", ["", "[]", '{"cells": [', None])
def test_a_lesson_that_cannot_run_is_no_parameters_fault(tmp_path, content):
    path = lesson(tmp_path, "seed = = 1")
    if content is not None:
        path.write_text(content)
    assert problems([path], {"seed": 1}) == []


@pytest.mark.parametrize("path", sorted((ROOT / "solutions").glob("[0-9]*.ipynb")), ids=lambda path: path.stem)
def test_the_lessons_parameters_have_known_types_that_take_their_own_values(path):
    parameters = parameters_of(path)
    assert {"seed", "device"} <= set(parameters)
    assert [p.name for p in parameters.values() if not p.known] == []
    assert problems([path], {p.name: p.value for p in parameters.values()}) == []
