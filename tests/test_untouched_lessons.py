"""The lessons as learners get them, small: they run to their end, and any of their cells may be run again."""

import functools

import pytest

from coursework.course import executing
from coursework.exercises.exercise import lesson_exercises
from tests.helpers import LESSONS, small_lessons

pytestmark = [
    pytest.mark.lessons,
    pytest.mark.usefixtures("one_thread"),
    pytest.mark.parametrize("name", LESSONS),
]

run = functools.cache(small_lessons.run_again)


def test_an_untouched_lesson_runs_to_its_end_with_every_check_not_attempted(name):
    """The references take the places of all answers: every cell runs on what they give."""
    verdicts = executing.VERDICT.findall("".join(first for first, _ in run(name).values()))
    assert verdicts == ["not attempted"] * len(lesson_exercises(int(name[:2])))


def test_a_cell_that_is_run_again_after_the_last_one_gives_the_same(name):
    assert {cell: texts for cell, texts in run(name).items() if texts[0] != texts[1]} == {}
