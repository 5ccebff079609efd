"""Sampling a model with known answers: the law, the labels, the last step, batches shared by processes."""

import math

import numpy as np
import pytest
import torch
from PIL import Image

from coursework import devices, models
from coursework.flow_maps import VelocityMap
from coursework.models.batches import stream_of
from coursework.models.generation import GRIDS, SOLVERS, generate, in_shares, save_grid
from coursework.models.recipes import PRECISIONS
from coursework.predictions import ScoreModel
from coursework.sdes import VESDE, VPSDE

pytestmark = pytest.mark.usefixtures("one_thread")


class Exact(torch.nn.Module):
    """The noise prediction of N(label, 0.3^2 I), label -1 for none."""

    def __init__(self, sde):
        super().__init__()
        self.sde, self.labels = sde, []

    def forward(self, x, t, label=None):
        self.labels.append(label)
        alpha, sigma = self.sde.alpha(t), self.sde.sigma(t)
        mean = -1.0 if label is None else label.to(x.dtype)[:, None, None, None]
        return sigma * (x - alpha * mean) / (0.3**2 * alpha**2 + sigma**2)


def model(sde):
    return ScoreModel(Exact(sde), sde)


@pytest.mark.parametrize("solver", SOLVERS)
@pytest.mark.parametrize("sde", [VPSDE(), VESDE(0.01, 20.0)], ids=["vp", "ve"])
def test_samples_have_the_law_less_the_last_noise(solver, sde):
    """Mean -1; the last step, to E[x_0 | x], leaves 0.3^2 (1 - share of noise in x) of the variance."""
    n, steps = 500, 1500 if solver == "euler" else 200
    x = generate(model(sde), (n, 1, 4, 4), solver=solver, n_steps=steps, show_progress=False).double()
    alpha, sigma = float(sde.alpha(sde.t_min)), float(sde.sigma(sde.t_min))
    expected = 0.3**2 * (0.3 * alpha) ** 2 / ((0.3 * alpha) ** 2 + sigma**2)
    assert float(x.mean()) == pytest.approx(-1.0, abs=4 * 0.3 / math.sqrt(16 * n) + 0.004)
    assert float(x.var()) == pytest.approx(expected, rel=4 * math.sqrt(2 / (16 * n)) + 0.03)


def test_labels_reach_the_samples_they_belong_to():
    labels = torch.arange(7)
    exact = model(VPSDE())
    x = generate(exact, (7, 1, 6, 6), labels=labels, batch_size=3, n_steps=12, show_progress=False)
    assert float((x.mean((1, 2, 3)) - labels).abs().max()) < 0.3
    assert {tuple(label.tolist()) for label in exact.network.labels} == {(0, 1, 2), (3, 4, 5), (6,)}


@pytest.mark.parametrize("grid", GRIDS)
def test_the_same_samples_for_the_same_seed(grid):
    first, again, other = (
        generate(model(VPSDE()), (5, 1, 2, 2), grid=grid, n_steps=5, seed=seed, batch_size=2, show_progress=False)
        for seed in (1, 1, 2)
    )
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert not torch.equal(first[:2], first[2:4])


def test_bfloat16_is_near_float32_in_the_network_alone(monkeypatch):
    monkeypatch.setattr(devices, "has_bfloat16", lambda device: True)
    trained = models.load("digits-vp")
    options = {"labels": torch.arange(20) % 10, "n_steps": 10, "show_progress": False}
    exact, near = (generate(trained, (20, 1, 8, 8), precision=p, **options) for p in ("float32", "bfloat16"))
    assert near.dtype == torch.float32
    assert 1e-4 < float((near - exact).abs().mean()) < 0.02
    analytic = [generate(model(VPSDE()), (5, 1, 2, 2), precision=p, show_progress=False) for p in PRECISIONS]
    assert torch.equal(*analytic), "without products of matrices nothing is rounded"


def test_a_device_without_bfloat16_computes_in_float32(monkeypatch):
    monkeypatch.setattr(devices, "has_bfloat16", lambda device: False)
    trained = models.load("digits-vp")
    exact, same = (generate(trained, (5, 1, 8, 8), precision=p, n_steps=2, show_progress=False) for p in PRECISIONS)
    assert torch.equal(exact, same)


def test_a_map_is_sampled_by_its_calls_and_a_score_by_its_solvers():
    """Network -label: x_{t_min} = cos x + sin label; two calls turn x less and add more."""
    sde, calls = VPSDE(), []

    def network(x, t, label, s):
        calls.append(len(x))
        return -label[:, None, None, None].expand_as(x).to(x.dtype)

    labels, shape = torch.arange(5), (5, 1, 2, 2)
    options = {"labels": labels, "batch_size": 3, "show_progress": False, "seed": 4}
    one = generate(VelocityMap(network, sde, one_end=True), shape, **options)
    assert calls == [3, 2]
    whole = math.atan2(float(sde.sigma(1.0)), float(sde.alpha(1.0)))
    angle = whole - math.atan2(float(sde.sigma(sde.t_min)), float(sde.alpha(sde.t_min)))
    noise = torch.cat([torch.randn((n, 1, 2, 2), generator=stream_of("cpu", 4, i)) for i, n in ((0, 3), (3, 2))])
    goal = labels[:, None, None, None]
    torch.testing.assert_close(one, math.cos(angle) * noise + math.sin(angle) * goal, rtol=1e-4, atol=1e-4)
    four = generate(VelocityMap(network, sde), shape, **options)
    assert len(calls) == 2 + 8
    c, s = math.cos(angle / 4), math.sin(angle / 4)
    torch.testing.assert_close(four, c**4 * noise + s * (1 + c + c**2 + c**3) * goal, rtol=1e-4, atol=1e-4)
    with pytest.raises(ValueError, match=r"^solver: expected one of 'map', 'restart', got 'heun'"):
        generate(VelocityMap(network, sde), shape, solver="heun")
    with pytest.raises(ValueError, match=r"^solver: expected one of 'euler'"):
        generate(model(sde), shape, solver="map")


def test_samples_that_are_not_finite_are_refused():
    class Broken(Exact):
        def forward(self, x, t, label=None):
            return super().forward(x, t).index_fill(0, torch.tensor([1, 3]), math.nan)

    broken = ScoreModel(Broken(VPSDE()), VPSDE())
    with pytest.raises(FloatingPointError, match=r"^model: 2 of 5 samples are not finite"):
        generate(broken, (5, 1, 2, 2), n_steps=2, show_progress=False)


def test_what_is_no_score_model_is_refused_by_name():
    averaged = torch.optim.swa_utils.AveragedModel(model(VPSDE()))
    with pytest.raises(TypeError, match=r"^model: expected a ScoreModel, got AveragedModel; its .module is one$"):
        generate(averaged, (5, 1, 2, 2))
    assert generate(averaged.module, (5, 1, 2, 2), n_steps=1, show_progress=False).shape == (5, 1, 2, 2)
    with pytest.raises(TypeError, match=r"^model: expected a ScoreModel, got Exact$"):
        generate(Exact(VPSDE()), (5, 1, 2, 2))


def test_shares_of_several_processes_come_together_in_order():
    class One:
        num_processes, is_local_main_process = 3, False

        def __init__(self, index):
            self.process_index = index

    seen = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("coursework.models.generation.gather_object", lambda numbered: seen.extend(numbered) or seen)
        results = [in_shares(lambda i: 10 * i, range(8), One(index), None) for index in range(3)]
    assert results[-1] == [10 * i for i in range(8)]
    assert sorted(seen) == [(i, 10 * i) for i in range(8)]


def test_a_picture_of_samples(tmp_path):
    images = torch.stack([torch.full((1, 4, 4), v) for v in (-1.0, 0.0, 1.0, 5.0)])
    save_grid(images, tmp_path / "new" / "grid.png", columns=2)
    with Image.open(tmp_path / "new" / "grid.png") as picture:
        pixels = np.asarray(picture.convert("L"))
    assert pixels.shape == (3 * 14, 3 * 14)  # two images of 4 pixels and three gaps of 2, times three
    assert [int(pixels[r, c]) for r, c in ((12, 12), (12, 30), (30, 12), (30, 30), (0, 0))] == [
        0,
        128,
        255,
        255,
        255,
    ]


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"solver": "dpm"}, r"^solver: expected one of 'euler', 'heun'"),
        ({"grid": "cosine"}, r"^grid: expected one of 'uniform', 'log-snr', 'karras', 'angle', got 'cosine'"),
        ({"labels": torch.zeros(3).long()}, r"^labels: expected shape \(5,\), got \(3,\)"),
        ({"batch_size": 0}, r"^batch_size: expected at least 1"),
        ({"precision": "half"}, r"^precision: expected one of 'float32', 'bfloat16', got 'half'"),
        ({"seed": -1}, r"^seed: expected at least 0, got -1"),
        ({"n_steps": 0}, r"^n_steps: expected at least 1"),
    ],
)
def test_refusals(options, match):
    with pytest.raises(ValueError, match=match):
        generate(model(VPSDE()), (5, 1, 2, 2), show_progress=False, **options)
