"""Recipes: refusals that name the value, and the way to JSON and back."""

import json
import math

import pytest

from coursework import models
from coursework.models.recipes import RECIPES, Recipe


@pytest.mark.parametrize("name", RECIPES)
def test_every_recipe_makes_a_model_and_survives_json(name):
    recipe = RECIPES[name]
    assert Recipe.from_json(recipe.to_json()) == recipe
    model = models.make(recipe)
    assert sum(p.numel() for p in model.parameters()) > 10_000


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"task": "draw"}, r"^task: expected one of 'score', 'classify', 'autoencode', 'distill', got 'draw'"),
        ({"data": "imagenet"}, r"^data: expected one of"),
        ({"sde": {"kind": "vpsde"}}, r"^sde's kind: expected one of 'vp', 've', 'sub-vp'"),
        ({"sde": {}}, r"^sde's kind"),
        ({"prediction": "epsilon"}, r"^prediction"),
        ({"weighting": "snr"}, r"^weighting"),
        ({"precision": "float16"}, r"^precision: expected one of 'float32', 'bfloat16'"),
        ({"n_steps": 0}, r"^n_steps: expected at least 1"),
        ({"batch_size": -3}, r"^batch_size: expected at least 1"),
        ({"seed": -1}, r"^seed: expected at least 0"),
        ({"learning_rate": 0.0}, r"^learning_rate: expected values > 0"),
        ({"clip": math.nan}, r"^clip: expected a finite number, got nan"),
        ({"label_dropout": 1.0}, r"^label_dropout: expected a number in \[0, 1.0\), got 1.0"),
        ({"average": -0.1}, r"^average: expected a number in \[0, 1.0\)"),
        ({"label_dropout": 0.5, "task": "classify"}, r"^label_dropout: a classifier needs every label, got 0.5"),
        ({"seed": 2**63}, r"^seed: expected less than 2\^63"),
        ({"sigma_data": 0.0}, r"^sigma_data: expected values > 0"),
        ({"gamma": -1.0}, r"^gamma: expected values > 0"),
        ({"times": {"kind": "normal"}}, r"^times' kind: expected one of 'uniform', 'log-normal', 'log-snr'"),
        ({"uncertainty": True, "task": "classify"}, r"^uncertainty: only score models know a noise level"),
        ({"profiles": (0.1, 0.3)}, r"^profiles: sigma_rel: expected at most 1 / sqrt\(12\)"),
        ({"profiles": (0.1, 0.1)}, r"^profiles: expected different numbers"),
        ({"profiles": (0.1,), "n_snapshots": 6}, r"^n_snapshots: expected at most the 5 steps, got 6"),
        ({"n_snapshots": 0}, r"^n_snapshots: expected at least 1"),
        ({"task": "distill"}, r"^teacher: expected a model's name to distill, and none else, got None"),
        ({"teacher": "digits-vp"}, r"^teacher: expected a model's name to distill, and none else, got 'digits-vp'"),
        ({"task": "distill", "teacher": "a", "flip": True}, r"^flip: distilling does not use it, got True"),
        ({"task": "distill", "teacher": "a", "weighting": "data"}, r"^weighting: distilling does not use it"),
        ({"task": "distill", "teacher": "a", "times": {"kind": "log-snr"}}, r"^times: distilling does not use it"),
        ({"n_path": 0}, r"^n_path: expected at least 1"),
        ({"antithetic": True, "batch_size": 7}, r"^batch_size: expected an even number with antithetic=True, got 7"),
    ],
)
def test_refusals(change, match):
    with pytest.raises(ValueError, match=match):
        Recipe(**{"task": "score", "data": "digits", "n_steps": 5, **change})


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"network": 5}, r"^network: expected a table of arguments, got 5"),
        ({"network": None}, r"^network: expected a table of arguments, got None"),
        ({"sde": "vp"}, r"^sde: expected a table of arguments, got 'vp'"),
        ({"times": "uniform"}, r"^times: expected a table of arguments, got 'uniform'"),
        ({"uncertainty": 1}, r"^uncertainty: expected true or false, got 1"),
        ({"profiles": 0.1}, r"^profiles: expected a list of numbers, got 0.1"),
        ({"profiles": ("0.1",)}, r"^profiles: expected a number, got '0.1'"),
        ({"sigma_data": None}, r"^sigma_data: expected a number, got None"),
        ({"flip": "no"}, r"^flip: expected true or false, got 'no'"),
        ({"antithetic": 1}, r"^antithetic: expected true or false, got 1"),
        ({"learning_rate": None}, r"^learning_rate: expected a number, got None"),
        ({"weight_decay": True}, r"^weight_decay: expected a number, got True"),
        ({"average": "abc"}, r"^average: expected a number, got 'abc'"),
        ({"n_steps": 2.5}, r"^n_steps: expected an integer, got float"),
    ],
)
def test_wrong_types(change, match):
    with pytest.raises(TypeError, match=match):
        Recipe(**{"task": "score", "data": "digits", "n_steps": 5, **change})


@pytest.mark.parametrize(
    ("text", "match"),
    [
        ("{", r"^recipe: expected JSON, got '\{'"),
        ("[" * 100_000, r"^recipe: expected JSON, got '\[\[\["),
        ("[1]", r"^recipe: expected an object with keys among .*, got list"),
        (
            '{"task": "score", "data": "digits", "steps": 3}',
            r"^recipe: expected an object with keys among .*, got steps",
        ),
        ('{"task": "score"}', r"^recipe: data, n_steps missing"),
    ],
)
def test_json_that_is_no_recipe(text, match):
    with pytest.raises(ValueError, match=match):
        Recipe.from_json(text)


def test_json_may_leave_out_what_has_a_default():
    text = json.dumps({"task": "classify", "data": "mnist", "n_steps": 3, "network": {"widths": [8, 16]}})
    assert Recipe.from_json(text) == Recipe("classify", "mnist", 3, network={"widths": (8, 16)})


def test_a_recipe_with_everything_survives_json_and_one_from_before_is_what_it_was():
    rich = Recipe(
        "score",
        "digits",
        8,
        prediction="preconditioned",
        weighting="min-snr",
        times={"kind": "log-normal", "std": 1.0},
        uncertainty=True,
        profiles=(0.05, 0.1),
    )
    again = Recipe.from_json(rich.to_json())
    assert again == rich
    assert again.profiles == (0.05, 0.1)
    assert models.make_law(again) is not None
    before = json.loads(Recipe("score", "digits", 8).to_json())
    for name in ("sigma_data", "gamma", "times", "uncertainty", "profiles", "n_snapshots"):
        del before[name]
    assert Recipe.from_json(json.dumps(before)) == Recipe("score", "digits", 8)
    assert models.make_law(Recipe.from_json(json.dumps(before))) is None


def test_arguments_of_a_law_that_it_does_not_have():
    for times in ({"kind": "uniform", "mean": 1.0}, {"kind": "log-snr", "mean": 1.0}):
        with pytest.raises(TypeError, match=r"^times: .*mean"):
            models.make_law(Recipe("score", "digits", 8, times=times))
