"""Every exercise: the reference passes, the stub does not, misconceptions are named, another route passes."""

import itertools

import pytest
import torch

from coursework.exercises import NotAttempted
from coursework.exercises.engine import (
    SEED,
    Misconception,
    _agree,
    _draw,
    find,
    judge,
    lesson_exercises,
    observe_wrong,
)
from tests.other_routes import OTHER_ROUTES

EXERCISES = [exercise for lesson in range(20) for exercise in lesson_exercises(lesson)]
FRESH = SEED + 1_000_003

every_exercise = pytest.mark.parametrize("exercise", EXERCISES, ids=lambda e: e.id)


def not_attempted(*args):
    raise NotAttempted


@every_exercise
def test_reference_passes_on_fresh_cases(exercise):
    verdict = judge(exercise, exercise.reference, seed=FRESH)
    assert verdict.outcome == "passed", verdict.message


@every_exercise
def test_stub_is_not_attempted(exercise):
    assert judge(exercise, not_attempted).outcome == "not attempted"


@every_exercise
def test_another_route_passes(exercise):
    routes = OTHER_ROUTES[exercise.id]
    assert routes
    for route in routes:
        for seed in (SEED, FRESH):
            verdict = judge(exercise, route, seed=seed)
            assert verdict.outcome == "passed", verdict.message


@every_exercise
def test_no_constant_is_right(exercise):
    first, *others = (exercise.observe(exercise.reference, _draw(exercise, FRESH, i)) for i in range(4))
    assert not all(_agree(first, other, exercise.rtol) for other in others)


@every_exercise
def test_record_is_complete(exercise):
    assert len(exercise.misconceptions) >= 3
    assert len(exercise.hints) >= 2
    assert find(exercise.id) is exercise


@pytest.mark.parametrize("seed", [SEED, FRESH, FRESH + 50])
@every_exercise
def test_each_misconception_is_rejected_and_named(exercise, seed):
    for misconception in exercise.misconceptions:
        verdict = judge(exercise, misconception.wrong, seed=seed)
        assert verdict.outcome == "wrong", misconception.name
        assert verdict.misconception == misconception.name


@every_exercise
def test_misconceptions_differ_pairwise_on_three_fresh_cases(exercise):
    wrongs = (*exercise.misconceptions, Misconception("the reference", exercise.reference))
    for a, b in itertools.combinations(wrongs, 2):
        told_apart = 0
        for i in range(6):
            seen = [observe_wrong(exercise, m, _draw(exercise, FRESH, i)) for m in (a, b)]
            told_apart += seen[0] is None or not _agree(seen[0], seen[1], exercise.rtol)
        assert told_apart >= 3, f"{a.name} / {b.name}"


def test_ids_are_unique_and_in_order():
    ids = [e.id for e in EXERCISES]
    assert len(set(ids)) == len(ids)
    assert ids == sorted(ids, key=lambda i: tuple(map(int, i.split("."))))
    assert set(OTHER_ROUTES) == set(ids)
    assert torch.get_default_dtype() == torch.float32
