"""Deny by default: in a learner's process the package has code only where the exercise's list says so."""

import functools
import importlib
import inspect
import pkgutil
import sys
import warnings
from dataclasses import replace
from types import FunctionType

import pytest
import torch

import coursework
from coursework.exercises.exercise import find, lesson_exercises
from coursework.exercises.judging import agree, judge
from coursework.grading import handin
from coursework.grading.sandboxed import cases, withheld
from coursework.grading.sandboxed.withheld import Refused
from tests.exercises.other_routes import OTHER_ROUTES
from tests.grading.hostile.package import ANSWERS
from tests.helpers import ROOT

EXERCISES = [exercise for lesson in range(20) for exercise in lesson_exercises(lesson)]
FUNCTIONS = {exercise: name for lesson in handin.course_lessons(ROOT) for exercise, name in lesson.functions.items()}
every_exercise = pytest.mark.parametrize("exercise", EXERCISES, ids=lambda e: e.id)

# Routes that take the package's own answer, which no lesson offers.
BY_PACKAGE = {
    "wiener_by_mixture", "step_by_package", "ladder_by_ve", "kl_by_diffusion", "euler_maruyama_by_the_solver",
    "corrector_by_langevin", "variance_by_solver", "rates_by_autograd", "likelihood_by_odds", "loss_by_objective",
    "noises_by_scores", "pseudoinverse_by_package", "deblurred_by_package",
}  # fmt: skip
# What keeps the kept methods of mixtures and SDEs going.
BENEATH = {
    "coursework.sdes.as_time",
    "coursework.sdes.SDE.time",
    "coursework.distributions.GaussianMixture.__init__",
    "coursework.distributions.GaussianMixture.score",
    "coursework.distributions.GaussianMixture.mean",
    "coursework.distributions.GaussianMixture.n_dims",
    "coursework.distributions.GaussianMixture.n_components",
    "coursework.distributions.GaussianMixture.to",
}


def dotted(function: FunctionType) -> str:
    return f"{function.__module__}.{function.__qualname__}"


def package() -> dict[FunctionType, str]:
    """Every function of the package that a module or a class of it holds, properties and wrapped ones included."""
    found: dict[FunctionType, str] = {}

    def note(thing):
        if isinstance(thing, FunctionType):
            found[thing] = dotted(thing)
            note(getattr(thing, "__wrapped__", None))
        elif isinstance(thing, staticmethod | classmethod):
            note(thing.__func__)
        elif isinstance(thing, property):
            note(thing.fget)
        elif isinstance(thing, functools.cached_property):
            note(thing.func)

    for module in pkgutil.walk_packages(coursework.__path__, "coursework."):
        if module.name.startswith(("coursework.cli", "coursework.grading")):
            continue
        space = vars(importlib.import_module(module.name))
        for thing in space.values():
            note(thing)
            if inspect.isclass(thing) and thing.__module__.startswith("coursework"):
                for member in vars(thing).values():
                    note(member)
    return {f: name for f, name in found.items() if f.__globals__["__name__"].startswith("coursework")}


@pytest.fixture(scope="module")
def shelf():
    """The package's functions, everything imported."""
    functions = package()
    with warnings.catch_warnings(action="ignore"):  # torch's own, at the first use of forward mode
        torch.func.jvp(torch.sin, (torch.ones(1),), (torch.ones(1),))
    withheld.take_stock()
    yield functions
    withheld._stock.clear()


@pytest.fixture
def deny(shelf):
    """Withholds for an exercise, and gives everything back at the end of the test."""
    codes = {function: function.__code__ for function, _ in withheld._stock}
    yield withheld.withhold
    for function, code in codes.items():
        function.__code__ = code
    withheld.touched.clear()


@pytest.fixture
def as_they_are():
    """Puts back what an attack patches in the package's modules."""
    modules = [(module, dict(vars(module))) for name, module in sys.modules.items() if name.startswith("coursework")]
    yield
    for module, before in modules:
        vars(module).update(before)


@every_exercise
def test_all_is_withheld_but_what_the_exercise_names_and_its_arguments_are(exercise, shelf, deny):
    drawn = [exercise.case(3 + i) for i in range(6)]
    kept = withheld.needed(exercise, drawn)
    named = {dotted(f) for name in exercise.uses for f in withheld._named(name) if isinstance(f, FunctionType)}
    for function in kept - {exercise.observe}:
        module, public = function.__module__, "._" not in dotted(function)
        assert (
            not public
            or dotted(function) in BENEATH | named | {"coursework.sdes.SDE.prior_std"}
            or (module.startswith("coursework.exercises."))
        ), dotted(function)
    deny(exercise, drawn)
    with_code = {f for f in shelf if f.__code__.co_name != "refuse" and not withheld._ours(f)}
    assert with_code <= kept, {dotted(f) for f in with_code - kept}
    assert exercise.reference not in kept


@every_exercise
def test_right_answers_need_no_more_than_what_is_left(exercise, deny):
    recorded = [cases.record(exercise.draw, 5 + i) for i in range(2)]
    expected = [exercise.observe(exercise.reference, case) for case, _ in recorded]
    drawn = [cases.play(exercise.draw, numbers) for _, numbers in recorded]
    deny(exercise, drawn)
    for route in OTHER_ROUTES[exercise.id]:
        if route.__name__ in BY_PACKAGE:
            with pytest.raises(Refused):
                exercise.observe(route, drawn[0])
            continue
        for case, wanted in zip(drawn, expected, strict=True):
            assert agree(exercise.observe(route, case), wanted, exercise.rtol), route.__name__


@pytest.mark.parametrize(
    ("exercise", "number"), [(e, i) for e, answers in ANSWERS.items() for i in range(len(answers))]
)
def test_what_the_package_would_answer_is_right_at_home_and_refused_in_grading(exercise, number, deny, as_they_are):
    source, reached = ANSWERS[exercise][number]
    exercise, space = find(exercise), {"torch": torch, "__name__": "__main__"}
    exec(source, space)
    attempt = space[FUNCTIONS[exercise.id]]
    verdict = judge(exercise, attempt)
    assert verdict.outcome == "passed", verdict.message  # it is an answer, so that refusing it means something
    drawn = [exercise.case(3)]
    deny(exercise, drawn)
    with pytest.raises(Refused):
        exercise.observe(attempt, drawn[0])
    assert withheld.touched[0] == reached


def test_a_name_that_the_package_does_not_have_is_no_permission():
    exercise = find("1.1")
    wrong = replace(exercise, uses=("coursework.sdes.SDE.nothing",))
    with pytest.raises(ValueError, match=r"uses: the package has no coursework\.sdes\.SDE\.nothing"):
        withheld.needed(wrong, [])


def test_references_are_plain_and_answer_nothing_else_of_the_package():
    """A reference stands in for a skipped exercise, so it may use what that exercise's answers may, and no more."""
    for exercise in EXERCISES:
        home = exercise.reference.__module__.removesuffix(".answers")
        assert home == f"coursework.exercises.lesson_{exercise.lesson:02d}"
