"""The instructor's guide: what follows from lessons and exercises is up to date, and its plans cover the course."""

from coursework.course import guide
from coursework.course.heads import heads
from coursework.exercises.exercise import lesson_exercises
from tests.helpers import LESSONS, ROOT

TEXT = (ROOT / "docs" / "instructors.md").read_text(encoding="utf-8")


def test_the_guide_is_up_to_date():
    assert guide.updated(TEXT, ROOT) == TEXT, "run: make publish"


def test_the_plans_name_each_lesson_once_in_order():
    for plan, skipped in ((guide.SIX_WEEKS, {3, 13, 14, 15, 16, 17, 18}), (guide.TWELVE_WEEKS, set())):
        chosen = [lesson for week, _ in plan for lesson in week]
        assert chosen == sorted(set(chosen))
        assert {int(name[:2]) for name in LESSONS} - set(chosen) == skipped
    assert (len(guide.SIX_WEEKS), len(guide.TWELVE_WEEKS)) == (6, 12)


def test_every_exercise_has_its_misconceptions_in_the_guide():
    for head in heads(ROOT):
        for exercise in lesson_exercises(head.number):
            assert f"**{exercise.id}, {exercise.title}**" in TEXT
            assert exercise.mistakes[0].name[1:] in TEXT
