"""`coursework train`, `sample` and `evaluate` on a model that learns for a few steps."""

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace

import pytest
from PIL import Image
from typer.testing import CliRunner

from coursework.cli import app
from coursework.models.recipes import RECIPES, Recipe
from coursework.models.training import checkpoints_in

pytestmark = pytest.mark.usefixtures("one_thread")

RECIPE = replace(
    RECIPES["digits-vp"],
    n_steps=6,
    batch_size=8,
    network={"widths": (8, 16), "attention_at": (), "n_classes": 10, "features": 16},
)


@pytest.fixture
def recipe(tmp_path, monkeypatch):
    """A recipe's file in the current directory, which is empty otherwise."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "small.json").write_text(RECIPE.to_json())
    (tmp_path / "latin.json").write_bytes(RECIPE.to_json().encode() + "\u00e9".encode("latin-1"))
    return "small.json"


def call(*arguments):
    return CliRunner().invoke(app, list(arguments))


def test_train_sample_evaluate(recipe, tmp_path):
    done = call("train", recipe, "--save-every", "4", "-p", "seed", "3")
    assert done.exit_code == 0, done.output
    assert "runs/small/trained.safetensors is ready: coursework sample" in done.stdout
    names = sorted(p.name for p in (tmp_path / "runs" / "small").iterdir())
    assert names == [".lock", "log.csv", "step-0000004.safetensors", "step-0000006.safetensors", "trained.safetensors"]

    done = call("sample", "runs/small/trained.safetensors", "--n", "13", "--steps", "2", "--out", "pictures/a.png")
    assert (done.exit_code, done.stdout.strip()) == (0, "pictures/a.png"), done.output
    with Image.open("pictures/a.png") as picture:
        assert picture.size == (3 * (10 * 10 + 2), 3 * (2 * 10 + 2))

    options = ("--n", "20", "--steps", "2", "--precision", "bfloat16", "--out", "numbers.json")
    done = call("evaluate", "runs/small/trained.safetensors", *options)
    assert done.exit_code == 0, done.output
    numbers = json.loads((tmp_path / "numbers.json").read_text())
    assert numbers["n"] == 20
    assert numbers["frechet"] > 2 * numbers["floor_frechet"] > 0, "six steps make no digits"
    for key, value in numbers.items():
        assert f"{key:18} {value}" in done.stdout


def test_a_finished_run_is_left_as_it_is_and_another_recipe_refused(recipe, tmp_path):
    call("train", recipe, "--out", "run")
    before = (tmp_path / "run" / "trained.safetensors").read_bytes()
    assert call("train", recipe, "--out", "run").exit_code == 0
    assert (tmp_path / "run" / "trained.safetensors").read_bytes() == before
    done = call("train", recipe, "--out", "run", "-p", "learning_rate", "0.5")
    assert done.exit_code == 2
    assert "from another recipe: its learning_rate is 0.001, here it is 0.5; use another folder" in done.stderr


@pytest.mark.skipif(os.name == "nt", reason="signals")
def test_ctrl_c_saves_and_the_same_command_goes_on(recipe, tmp_path):
    (tmp_path / "long.json").write_text(replace(RECIPE, n_steps=100_000).to_json())
    command = [sys.executable, "-m", "coursework", "train", "long.json"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=environment) as process:
        log = tmp_path / "runs" / "long" / "log.csv"
        while not (log.exists() and log.read_text().count("\n") > 5):
            assert process.poll() is None, process.stderr.read()
            time.sleep(0.05)
        process.send_signal(signal.SIGINT)
        errors = process.communicate(timeout=60)[1]
    assert process.returncode == 130, errors
    last = errors.splitlines()[-1]
    step = int(checkpoints_in(log.parent)[-1].stem.removeprefix("step-"))
    assert last.endswith(f"coursework: stopped after step {step}; the same command goes on from there")
    assert "Traceback" not in errors
    assert step > 5


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["train", "fashion"], "recipe: expected one of 'digits-classifier'"),
        (["train", "none.json"], "none.json: No such file or directory"),
        (["train", "small.json", "-p", "steps", "5"], "-p's name: expected one of 'task'"),
        (["train", "small.json", "-p", "n_steps", "0"], "n_steps: expected at least 1, got 0"),
        (["train", "small.json", "--save-every", "0"], "'--save-every': Input should be greater than or equal to 1"),
        (["train", "small.json", "-p", "network", "5"], "network: expected a table of arguments, got 5"),
        (["train", "small.json", "-p", "network", '{"foo": 1}'], "got an unexpected keyword argument 'foo'"),
        (["train", "small.json", "-p", "network", '{"n_classes": 3}'], "network: n_classes is 3, digits has 10"),
        (["train", "small.json", "-p", "sde", '{"kind": "vp", "foo": 1}'], "sde: VPSDE.__init__() got an unexpected"),
        (["train", "small.json", "-p", "batch_size", "2000"], "batch_size: expected at most the 1442 training images"),
        (["train", "latin.json"], "recipe: latin.json is not text in UTF-8"),
        (["sample", "digits-vp", "--out", "a.jpg"], "--out: expected a .png, got a.jpg"),
        (["sample", "digits-vp", "--out", "small.json/a.png"], "small.json/a.png: Not a directory"),
        (["evaluate", "digits-vp", "--out", "small.json/a.json"], "small.json/a.json: Not a directory"),
        (["evaluate", "digits-vp", "--out", "digits-vp"], "--out: expected a .json, got digits-vp"),
        (["sample", "digits-vp", "-n", "-3"], "'-n' / '--n': Input should be greater than or equal to 1"),
        (["sample", "digits-vp", "-n", "1000000"], "'-n' / '--n': Input should be less than or equal to 10000"),
        (["sample", "digits-vp", "--seed", "-1"], "'--seed': Input should be greater than or equal to 0"),
        (["sample", "digits"], "name: expected one of"),
        (
            ["sample", "digits-classifier"],
            "name: expected a score model or a map, digits-classifier was trained to classify",
        ),
        (["sample", "none.safetensors"], "none.safetensors: there is no such checkpoint"),
        (["sample", "digits-vp", "--label", "10"], "label: expected -1 (none) to 9, got 10"),
        (["sample", "digits-ncsn", "--label", "1"], "label: this model was trained without labels, got 1"),
        (["sample", "digits-vp", "--solver", "dpm"], "solver: expected one of 'euler'"),
        (["evaluate", "digits-classifier"], "name: expected a score model or a map of digits or fashion-mnist"),
        (["evaluate", "digits-vp", "--n", "356"], "n: expected 10 to 355, the number of held-out images, got 356"),
    ],
)
def test_refusals(recipe, arguments, message):
    done = call(*arguments)
    assert done.exit_code == 2, done.output
    assert message in done.stderr
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize("command", ["sample", "evaluate"])
def test_what_memory_does_not_hold_is_refused_and_other_faults_are_not_hidden(recipe, monkeypatch, command):
    def fail(*arguments, **options):
        raise RuntimeError(f"[enforce fail at alloc_cpu.cpp:121] {words}: you tried to allocate 10^18 bytes")

    monkeypatch.setattr("coursework.models.load_with_recipe", fail)
    words = "DefaultCPUAllocator: can't allocate memory"
    done = call(command, "digits-vp")
    assert (done.exit_code, done.stderr) == (
        2,
        "coursework: there is not enough memory for that: smaller batches or networks need less\n",
    )
    words = "mat1 and mat2 shapes cannot be multiplied"
    assert isinstance(call(command, "digits-vp").exception, RuntimeError)


def test_every_recipe_of_the_package_can_be_named():
    assert set(RECIPES) == {
        *("digits-classifier", "fashion-classifier", "digits-vp", "digits-ncsn", "fashion-vp", "fashion-ncsn"),
        *("digits-one-step", "digits-few-step", "digits-text", "fashion-vae", "fashion-latent", "cifar-vp"),
    }
    assert all(isinstance(recipe, Recipe) for recipe in RECIPES.values())
