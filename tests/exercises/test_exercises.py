"""Every exercise: the reference passes, the stub does not, mistakes are named, another route passes."""

import functools
import inspect
import itertools
import re
from collections import Counter

import pytest
import torch
import torch._dynamo  # torch.func does so at its first use, and a busy machine not within an attempt's time

from coursework.exercises import NotAttempted
from coursework.exercises.exercise import SEED, find, lesson_exercises
from coursework.exercises.judging import GIVEN_NUMBERS, N_CASES, agree, judge, observe_wrong
from coursework.sdes import SDE
from tests.exercises.other_routes import OTHER_ROUTES
from tests.exercises.wrong_answers import WRONG_ANSWERS

EXERCISES = [exercise for lesson in range(20) for exercise in lesson_exercises(lesson)]
FRESH = SEED + 1_000_003

every_exercise = pytest.mark.parametrize("exercise", EXERCISES, ids=lambda e: e.id)


def not_attempted(*args):
    raise NotAttempted


def from_nowhere(*args):
    """A function as the sandbox defines it: of no module."""
    return None


from_nowhere.__module__ = None


@every_exercise
def test_reference_passes_on_fresh_cases(exercise):
    verdict = judge(exercise, exercise.reference, seed=FRESH)
    assert verdict.outcome == "passed", verdict.message


@every_exercise
def test_stub_is_not_attempted(exercise):
    assert judge(exercise, not_attempted).outcome == "not attempted"


@every_exercise
def test_an_answer_of_no_module_is_looked_at(exercise):
    assert "AttributeError" not in judge(exercise, from_nowhere).message


@every_exercise
def test_another_route_passes(exercise):
    routes = OTHER_ROUTES[exercise.id]
    assert routes
    for route in routes:
        for seed in (exercise.seed, FRESH):
            verdict = judge(exercise, route, seed=seed)
            assert verdict.outcome == "passed", verdict.message


@every_exercise
def test_no_constant_is_right(exercise):
    first, *others = (exercise.observe(exercise.reference, exercise.case(FRESH + i)) for i in range(4))
    assert not all(agree(first, other, exercise.rtol) for other in others)


@every_exercise
def test_record_is_complete(exercise):
    assert len(exercise.mistakes) >= 3
    assert len(exercise.hints) >= 2
    assert find(exercise.id) is exercise


@pytest.mark.parametrize("seed", [None, FRESH, FRESH + 50])
@every_exercise
def test_each_mistake_is_rejected_and_named(exercise, seed):
    for mistake in exercise.mistakes:
        verdict = judge(exercise, mistake.wrong, seed=seed)
        assert verdict.outcome == "wrong", mistake.name
        assert verdict.misconception == mistake.name


@every_exercise
def test_mistakes_differ_pairwise_on_three_fresh_cases(exercise):
    wrongs = {mistake.name: mistake.wrong for mistake in exercise.mistakes} | {"the reference": exercise.reference}
    seen = [[observe_wrong(exercise, wrong, FRESH + i) for i in range(6)] for wrong in wrongs.values()]
    for (a, of_a), (b, of_b) in itertools.combinations(zip(wrongs, seen, strict=True), 2):
        told_apart = [x is None or not agree(x, y, exercise.rtol) for x, y in zip(of_a, of_b, strict=True)]
        assert sum(told_apart) >= 3, f"{a} / {b}"


FRESH_SEEDS = tuple(range(FRESH, FRESH + 1000, 100))

WITHOUT_SIZES = {
    "1.6": "two modes on a line: two numbers",
    "8.4": "one step: four numbers",
    "9.5": "two numbers and an SDE",
}
ONE_POINT_IS_NOTHING = {
    "2.6": "the covariance of one point has no inverse",
}
SQUARE = re.compile("covariance|matri")


def sizes_of(value):
    """The sizes in a case: shapes of tensors, and whole numbers."""
    if isinstance(value, torch.Tensor):
        return tuple(value.shape)
    if isinstance(value, tuple | list):
        return tuple(sizes_of(v) for v in value)
    return value if type(value) is int else None


@functools.cache
def cases(exercise_id, seed):
    return [find(exercise_id).case(seed + i) for i in range(N_CASES)]


def drawn_cases(exercise):
    """The cases that `check` tries, and those of fresh seeds."""
    return [cases(exercise.id, seed) for seed in (exercise.seed, *FRESH_SEEDS)]


@every_exercise
def test_sizes_vary_within_the_cases_of_a_seed(exercise):
    """At least three of four cases have different sizes; now and then, by chance, two."""
    different = [len({sizes_of(case) for case in four}) for four in drawn_cases(exercise)]
    if exercise.id in WITHOUT_SIZES:
        assert max(different) == 1
        return
    assert min(different) >= 2
    assert different[0] >= 3
    assert sum(n >= 3 for n in different) >= len(FRESH_SEEDS)


@every_exercise
def test_each_axis_and_each_whole_number_varies(exercise):
    names = list(inspect.signature(exercise.reference).parameters)
    drawn = drawn_cases(exercise)
    for position, name in enumerate(names):
        whole = [[case[position] for case in four if type(case[position]) is int] for four in drawn]
        tensors = [[case[position] for case in four if isinstance(case[position], torch.Tensor)] for four in drawn]
        assert not any(whole) or (len({n for four in whole for n in four}) >= 3 and len(set(whole[0])) > 1), name
        for axis in range(min((t.ndim for four in tensors for t in four), default=0)):
            seen = [[t.shape[axis] for t in four] for four in tensors]
            assert len({size for four in seen for size in four}) >= 3, f"{name}, axis {axis}"
            assert len(set(seen[0])) > 1, f"{name}, axis {axis}"
        equal = [t.shape[0] == t.shape[-1] for four in tensors for t in four if t.ndim > 1 and not SQUARE.search(name)]
        assert not equal or sum(equal) < len(equal) / 2, name


BATCHES = {"x", "x_t", "x0", "noise", "coarse", "noise_hat", "log_prob", "matrices"}


@every_exercise
def test_one_point_is_a_batch_too(exercise):
    names = list(inspect.signature(exercise.reference).parameters)
    for position, name in enumerate(names):
        if name in BATCHES and exercise.id not in ONE_POINT_IS_NOTHING:
            assert any(len(case[position]) == 1 for four in drawn_cases(exercise) for case in four), name


def kinds(value, place):
    """What a value in a case is, beside its numbers: types, axes, axes of length one, and the SDE in an object."""
    found = {(place, type(value))}
    if isinstance(value, torch.Tensor):
        found |= {
            (place, value.dtype),
            (place, value.ndim),
            *((place, axis, 1) for axis, n in enumerate(value.shape) if n == 1),
        }
    elif isinstance(value, tuple | list):
        found |= {(place, len(value) == 1)}.union(*(kinds(v, f"{place}[{i}]") for i, v in enumerate(value)))
    elif type(value) is int:
        found |= {(place, value == 1)}
    elif hasattr(value, "__dict__"):
        found |= {(place, type(held)) for held in vars(value).values() if isinstance(held, SDE)}
    return found


@every_exercise
def test_what_grading_draws_is_among_the_public_cases(exercise):
    """What is in more than 2 % of 300 fresh cases: an answer that cannot do it must not pass at home."""
    names = inspect.signature(exercise.reference).parameters

    def of_case(case):
        return set().union(*(kinds(value, name) for name, value in zip(names, case, strict=True)))

    seen = Counter(kind for i in range(300) for kind in of_case(exercise.case(FRESH + i)))
    public = set().union(*(of_case(case) for case in cases(exercise.id, exercise.seed)))
    assert {kind for kind, times in seen.items() if times > 6} <= public


WITH_NUMBERS = [e for e in EXERCISES if set(GIVEN_NUMBERS) & set(inspect.signature(e.reference).parameters)]


@pytest.mark.parametrize("exercise", WITH_NUMBERS, ids=lambda e: e.id)
def test_own_random_numbers_are_named(exercise):
    names = list(inspect.signature(exercise.reference).parameters)

    def own(*args):
        given = dict(zip(names, args, strict=True))
        for name in set(GIVEN_NUMBERS) & set(names):
            given[name] = None if name == "generator" else torch.randn_like(given[name])
        return exercise.reference(**given)

    verdict = judge(exercise, own, seed=FRESH)
    assert verdict.outcome == "wrong"
    said = verdict.misconception or verdict.message
    assert "random numbers of your own" in said or "nothing is drawn from `generator`" in said


@every_exercise
def test_plausible_wrong_answers_do_not_pass(exercise):
    for number, wrong in enumerate(WRONG_ANSWERS.get(exercise.id, [])):
        for seed in (None, FRESH, FRESH + 50):
            assert judge(exercise, wrong, seed=seed).outcome == "wrong", number


def test_ids_are_unique_and_in_order():
    ids = [e.id for e in EXERCISES]
    assert len(set(ids)) == len(ids)
    assert ids == sorted(ids, key=lambda i: tuple(map(int, i.split("."))))
    assert set(OTHER_ROUTES) == set(ids) >= set(WRONG_ANSWERS)
    assert torch.get_default_dtype() == torch.float32
