"""`benchmarks/recipes.py`: who runs when, what is kept, and that each contestant trains and samples as it says."""

import argparse
import importlib.util
import json
import math
import sys
from pathlib import Path

import pytest
import torch

from coursework.data import ImageData
from coursework.data import load as load_data
from coursework.models.evaluation import evaluate
from coursework.nn import UNet

BENCHMARKS = Path(__file__).parent.parent / "benchmarks"
RIVALS = ("diffusers", "lucidrains")


@pytest.fixture
def benchmark(monkeypatch):
    """The script as a module."""
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    spec = importlib.util.spec_from_file_location("recipes_benchmark", BENCHMARKS / "recipes.py")
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "recipes_benchmark", module)
    spec.loader.exec_module(module)
    return module


def options(out, **changes):
    values = {"data": "digits", "seconds": 1.0, "threads": 1, "n": 10, "calls": 5, "seeds": 3, "out": out}
    return argparse.Namespace(**{**values, "who": ["coursework", "diffusers"], **changes})


def job(benchmark, who, **changes):
    values = {"rate": 1, "seed": 0, "data": "digits", "seconds": 1.0, "threads": 1, "n": 10, "calls": 5}
    return benchmark.Job(who, **{**values, **changes})


def result(benchmark, job, distances):
    found = {"n_parameters": 1000, "n_steps": 7, "cpu_seconds": 1.0, "floor": 0.5, "frechet": distances}
    return {"job": benchmark.asdict(job), **found}


class Fake:
    """Runs that take no time: rate x 3 is the best; the one after `until` is interrupted."""

    def __init__(self, benchmark, until=math.inf):
        self.benchmark, self.until, self.done = benchmark, until, []

    def __call__(self, job):
        if len(self.done) == self.until:
            raise KeyboardInterrupt
        self.done.append((job.who, job.rate, job.seed))
        value = {1: 3.0, 3: 2.0, 10: None}[job.rate] if job.who == "diffusers" else 1.0
        return result(self.benchmark, job, {"DDIM": value and [value + job.seed / 10]})


ALL = [("coursework", 1, seed) for seed in range(3)]
ALL += [("diffusers", rate, 0) for rate in (1, 3, 10)] + [("diffusers", 3, 1), ("diffusers", 3, 2)]


@pytest.mark.parametrize("until", range(len(ALL)))
def test_an_interrupted_benchmark_goes_on_where_it_stopped(benchmark, monkeypatch, tmp_path, until):
    out = tmp_path / "results.jsonl"
    monkeypatch.setattr(benchmark, "execute", Fake(benchmark, until))
    monkeypatch.setattr(sys, "argv", ["recipes.py", "--out", str(out), "--data", "digits", "--only", *options(out).who])
    with pytest.raises(SystemExit, match="stopped; the same command goes on from there"):
        benchmark.main()
    first = benchmark.execute.done
    assert len(benchmark.read(out)) == until
    monkeypatch.setattr(benchmark, "execute", Fake(benchmark))
    benchmark.main()
    assert sorted(first + benchmark.execute.done) == sorted(ALL)
    assert len(out.read_text().splitlines()) == len(ALL)
    assert list(tmp_path.iterdir()) == [out]


def test_other_budgets_in_the_file_are_kept_and_not_counted(benchmark, monkeypatch, tmp_path):
    out = tmp_path / "results.jsonl"
    out.write_text(json.dumps(result(benchmark, job(benchmark, "coursework", seconds=2.0), {"heun": [9.0]})) + "\n")
    monkeypatch.setattr(benchmark, "execute", Fake(benchmark))
    results = benchmark.run_all(options(out))
    assert sorted(benchmark.execute.done) == sorted(ALL)
    assert len(results) == len(ALL) + 1
    assert len(benchmark.chosen(options(out), results)) == len(ALL)


def test_the_table_has_means_errors_and_the_ratio_to_the_best_rival(benchmark, tmp_path):
    ours = [
        result(benchmark, job(benchmark, "coursework", seed=i), {"heun": [v]}) for i, v in enumerate((1.0, 1.2, 1.1))
    ]
    slow = result(benchmark, job(benchmark, "diffusers", rate=1), {"DDPM": [9.0], "DDIM": [8.0]})
    pairs = enumerate(((2.5, 3.5), (2.5, 3.9), (2.5, 4.3)))
    best = [
        result(benchmark, job(benchmark, "diffusers", rate=3, seed=i), {"DDPM": [a, a + 0.2], "DDIM": [b]})
        for i, (a, b) in pairs
    ]
    lines = benchmark.table(options(tmp_path), [*ours, slow, *best]).splitlines()
    assert lines[2].endswith("| 0.001 | heun | 0.600 ± 0.058 |")  # 0.1 / sqrt(3)
    assert lines[3].endswith("| 0.0003 | DDPM | 2.100 ± 0.000 |")
    assert lines[4].endswith("| 0.0003 | DDIM | 3.400 ± 0.231 |")  # 0.4 / sqrt(3)
    assert lines[6] == "The course's distance is 0.29 times the best rival's."  # 0.6 / 2.1


def test_a_rival_that_is_missing_is_left_out_in_one_line(benchmark, monkeypatch, tmp_path, capsys):
    out = tmp_path / "results.jsonl"
    monkeypatch.setattr(benchmark, "execute", Fake(benchmark))
    monkeypatch.setattr(benchmark, "PACKAGES", {"lucidrains": "no_such_package"})
    monkeypatch.setattr(sys, "argv", ["recipes.py", "--out", str(out), "--data", "digits", "--only", "lucidrains"])
    benchmark.main()
    assert capsys.readouterr().out.splitlines()[0] == "lucidrains: no_such_package is not installed, left out"
    assert benchmark.execute.done == []


def test_a_run_has_its_own_process_and_its_failure_is_one_line(benchmark, monkeypatch, tmp_path):
    script = tmp_path / "script.py"
    monkeypatch.setattr(benchmark, "__file__", str(script))
    script.write_text(
        "import json, os, sys\nprint('noise')\nprint(json.dumps([sys.argv[1:], os.environ['OMP_NUM_THREADS']]))"
    )
    asked = job(benchmark, "coursework", threads=3)
    assert benchmark.execute(asked) == [["--job", benchmark.key(asked)], "3"]
    script.write_text("raise ValueError('data: expected another')")
    with pytest.raises(RuntimeError, match=r"^coursework: ValueError: data: expected another$"):
        benchmark.execute(asked)


def contestant_of(benchmark, who):
    """The function of a contestant; skips where its package is missing."""
    if not benchmark.installed(who):
        pytest.skip(f"{who}'s package is not installed")
    return getattr(benchmark, who)


@pytest.mark.parametrize("who", RIVALS)
def test_networks_are_of_equal_size(benchmark, who):
    contestant_of(benchmark, who)
    make = getattr(benchmark, f"{who}_network")
    ours = benchmark.size(benchmark.models.make(benchmark.our_recipe("digits")))
    assert benchmark.size(make("digits", benchmark.equal_width(who, "digits"))) == pytest.approx(ours, rel=0.03)


@pytest.fixture
def small(benchmark, monkeypatch):
    """The benchmark with small networks, and 64 digits."""
    monkeypatch.setattr(benchmark, "equal_width", lambda who, data: {"diffusers": (16, 16), "lucidrains": 16}[who])
    recipe = benchmark.replace(benchmark.our_recipe("digits"), network={"widths": [16, 16], "attention_at": [4]})
    monkeypatch.setattr(benchmark, "our_recipe", lambda data: recipe)
    data = load_data("digits")
    return benchmark, ImageData(data.images[:64], data.labels[:64], data.class_names)


@pytest.mark.parametrize("who", ["coursework", *RIVALS])
def test_samplers_make_the_calls_that_are_asked_for(small, who):
    benchmark, data = small
    network, train, samplers = contestant_of(benchmark, who)(job(benchmark, who), 1, data)
    train()
    kind = UNet if who == "coursework" else type(network)
    for sample in samplers.values():
        calls = []
        handle = torch.nn.modules.module.register_module_forward_hook(
            lambda module, *_, calls=calls: calls.append(module) if isinstance(module, kind) else None
        )
        images = sample(3)
        handle.remove()
        assert images.shape == (3, 1, 8, 8)
        assert len(calls) == 5


@pytest.mark.parametrize(("who", "n_steps", "factor"), [("diffusers", 2, 2**-0.75 / 500), ("lucidrains", 1, 1.0)])
@pytest.mark.parametrize("rate", [1, 10])
def test_rivals_step_by_their_documented_rate(small, who, n_steps, factor, rate):
    # Adam's first step at a rate above 0 is as large as that rate. diffusers' warm-up starts with 0, then 1/500 of the
    # rate; its average has then the decay 1 - 2^-0.75
    benchmark, data = small
    torch.manual_seed(0)
    network, train, _ = contestant_of(benchmark, who)(job(benchmark, who, rate=rate), n_steps, data)
    before = [p.detach().clone() for p in network.parameters()]
    train()
    step = max((a - b.detach()).abs().max().item() for a, b in zip(before, network.parameters(), strict=True))
    assert step == pytest.approx(rate * factor * benchmark.documented_rate(who, "digits"), rel=0.02)


def test_the_score_is_that_of_evaluate(benchmark, tmp_path):
    numbers, samples = evaluate("digits-vp", n=20, n_steps=2)
    found = benchmark.scores(job(benchmark, "coursework", n=20), {"heun": lambda n: samples})
    assert found["floor"] == pytest.approx(numbers.floor_frechet, rel=1e-9)
    assert found["frechet"]["heun"] == [pytest.approx(numbers.frechet, rel=1e-9)]


def test_samples_beyond_the_held_out_images_count_in_parts(benchmark):
    images = load_data("digits").images
    found = benchmark.scores(job(benchmark, "coursework", n=1000), {"heun": lambda n: images[:n]})
    assert len(found["frechet"]["heun"]) == 3
    assert benchmark.scores(job(benchmark, "coursework"), {"heun": lambda n: images[:n] * math.nan})["frechet"] == {
        "heun": None
    }
