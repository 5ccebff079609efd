"""The instructor's guide: what follows from lessons and exercises is up to date, and its plans cover the course."""

import importlib.util
from pathlib import Path

ROOT = Path(__file__).parent.parent
spec = importlib.util.spec_from_file_location("instructors_guide", ROOT / "tools" / "instructors_guide.py")
guide = importlib.util.module_from_spec(spec)
spec.loader.exec_module(guide)


def test_the_guide_is_up_to_date():
    text = guide.GUIDE.read_text(encoding="utf-8")
    assert guide.updated(text) == text, "run: .venv/bin/python tools/instructors_guide.py"


def test_the_plans_name_each_lesson_once_in_order():
    for plan, skipped in ((guide.SIX_WEEKS, {3}), (guide.TWELVE_WEEKS, set())):
        chosen = [lesson for week, _ in plan for lesson in week]
        assert chosen == sorted(set(chosen))
        assert set(range(13)) - set(chosen) == skipped
    assert (len(guide.SIX_WEEKS), len(guide.TWELVE_WEEKS)) == (6, 12)


def test_every_exercise_has_its_misconceptions_in_the_guide():
    text = guide.GUIDE.read_text(encoding="utf-8")
    for number in guide.heads():
        for exercise in guide.lesson_exercises(number):
            assert f"**{exercise.id}, {exercise.title}**" in text
            assert exercise.misconceptions[0].name[1:] in text
