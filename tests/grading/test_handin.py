"""Reading what was handed in: nothing in one submission may end the grading of the others."""

import html
import json

import pytest

from coursework.grading import handin
from coursework.grading.rebuilding import without_html
from coursework.grading.sandboxed.wire import BadAnswer, _value

LESSON = handin.Lesson("03_sliced_score_matching", {"3.4": "ssm_loss"}, {}, {"3.3": "Derive it."})


def cell(source, name="exercise-3-4"):
    return {"cell_type": "code", "source": source, "metadata": {"nbgrader": {"grade_id": name}}, "outputs": []}


def test_half_a_character_becomes_one_that_a_file_can_hold():
    read = handin.parse(json.dumps({"cells": [cell("x = '\ud800'")]}).encode(), LESSON)
    assert [part.source for part in read.cells if part.source.startswith("x")] == ["x = '?'"]


def test_a_notebook_of_too_many_cells_is_not_graded():
    cells = [cell("pass", f"mine-{i}") for i in range(handin.MOST_CELLS + 1)]
    assert handin.parse(json.dumps({"cells": cells}).encode(), LESSON).problem == "it holds more than 2,000 cells"
    assert "more than" not in handin.parse(json.dumps({"cells": cells[:-1]}).encode(), LESSON).problem


def test_a_long_derivation_is_cut_off_and_says_so():
    def answer(text):
        written = {"cell_type": "markdown", "source": text, "metadata": {"nbgrader": {"grade_id": "derivation-3-3"}}}
        return handin.parse(json.dumps({"cells": [written]}).encode(), LESSON).answers["3.3"].text

    assert answer("[" * 20_000) == "[" * 20_000
    assert answer("[" * 20_001) == "[" * 20_000 + "\n\n(Cut off here, after 20,000 characters.)"


def test_a_number_that_no_float_can_hold_is_a_bad_answer():
    assert _value({"kind": "number", "value": 3}, None) == 3.0
    with pytest.raises(BadAnswer, match="a number is too large"):
        _value({"kind": "number", "value": 10**400}, None)


def test_an_entity_does_not_bring_a_script_back():
    assert "script:" not in html.unescape(without_html("[x](java&#115;cript:alert(1))")).lower()
