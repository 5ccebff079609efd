"""Langevin chains against the closed form of their own law on Gaussians; MALA against the exact law at large steps."""

import math

import numpy as np
import pytest
import torch

from coursework import langevin as module
from coursework.distributions import GaussianMixture
from coursework.langevin import langevin, mala
from tests.helpers.chains import linear_moments, noise
from tests.helpers.laws import random_mixture

pytestmark = pytest.mark.usefixtures("one_thread")

SKEWED = GaussianMixture(
    torch.tensor([[-1.5], [0.5]]).double(), torch.tensor([0.3, 0.8]).double(), torch.tensor([0.3, 0.7]).double()
)


def gaussian(mean, variance):
    return GaussianMixture(torch.tensor([[mean]]).double(), torch.tensor([variance]).double())


@pytest.mark.parametrize("variance", [0.25, 1.0, 3.0])
@pytest.mark.parametrize("share", [0.05, 0.3, 0.9])  # of the largest stable step, 4 variance
@pytest.mark.parametrize("temperature", [1.0, 0.3, 2.0])
def test_stationary_law_on_a_gaussian(variance, share, temperature, monkeypatch):
    """Mean m and variance T v / (1 - h / (4 v)): the fixed point of V <- (1 - h / (2v))^2 V + h T."""
    law, h = gaussian(0.7, variance), share * 4 * variance
    expected = temperature * variance / (1 - h / (4 * variance))

    def chain(x):
        return langevin(law.score, x, h, 300, temperature=temperature)

    mean, stationary = linear_moments(chain, -5.0, 9.0, 300, monkeypatch, module)
    assert mean == pytest.approx(0.7, abs=1e-6)
    assert stationary == pytest.approx(expected, rel=1e-6)


def test_mean_and_variance_after_a_few_steps(monkeypatch):
    """Far from stationarity: (1 - h / (2v))^n of the offset is left."""
    v, h, n = 2.0, 0.5, 7
    rate = 1 - h / (2 * v)
    mean, variance = linear_moments(
        lambda x: langevin(gaussian(1.0, v).score, x, h, n), 4.0, 0.0, n, monkeypatch, module
    )
    assert mean == pytest.approx(1 + rate**n * 3, rel=1e-12)
    assert variance == pytest.approx(h * (1 - rate ** (2 * n)) / (1 - rate**2), rel=1e-12)


def test_chains_with_the_same_noise_approach_at_the_rate_of_the_curvature(generator):
    v, h, n = 2.0, 0.01, 400
    law, seed = gaussian(0.0, v), 5
    ends = [
        langevin(law.score, torch.full((1, 1), a).double(), h, n, generator=generator.manual_seed(seed))
        for a in (-3.0, 5.0)
    ]
    assert float(ends[1] - ends[0]) / 8 == pytest.approx(math.exp(-h * n / (2 * v)), rel=2e-3)


def test_small_steps_sample_a_mixture_of_full_covariances(generator):
    """One long law: 20,000 chains from exact samples stay within 4 standard errors of the exact moments."""
    law, n = random_mixture("full", 2, 3), 20_000
    x = langevin(law.score, law.sample(n, generator=generator), 1e-3, 100, generator=generator)
    assert ((x.mean(0) - law.mean).abs() / (x.std(0) / n**0.5)).max() < 4
    products = (x - law.mean)[:, :, None] * (x - law.mean)[:, None, :]
    assert ((products.mean(0) - law.covariance).abs() / (products.std(0) / n**0.5)).max() < 4


def test_mala_keeps_a_skewed_law_where_langevin_does_not(generator):
    n, h = 200_000, 0.6
    start = SKEWED.sample(n, generator=generator)
    exact = {k: float((SKEWED.sample(2_000_000, generator=generator) ** k).mean()) for k in (1, 2, 3, 4)}

    def standard_errors_off(x):
        return max(abs(float((x**k).mean()) - m) / (float((x**k).std()) / n**0.5) for k, m in exact.items())

    adjusted, _ = mala(SKEWED, start, h, 5, generator=generator)
    assert standard_errors_off(adjusted) < 4.5
    assert standard_errors_off(langevin(SKEWED.score, start, h, 5, generator=generator)) > 20


def test_mala_reaches_the_law_from_far_away(generator):
    n, law = 20_000, gaussian(1.0, 0.5)
    x, _ = mala(law, torch.full((n, 1), -2.0).double(), 0.8, 60, generator=generator)
    assert abs(float(x.mean()) - 1) < 4 * (0.5 / n) ** 0.5
    assert abs(float(x.var()) - 0.5) < 4 * 0.5 * (2 / n) ** 0.5


def test_acceptance_rate_equals_its_double_integral(generator):
    """E min(1, p(y) q(x|y) / (p(x) q(y|x))) over x ~ p and y ~ q(.|x), by quadrature."""
    h, n = 1.5, 400_000
    z, weight = np.polynomial.hermite_e.hermegauss(200)
    x = torch.as_tensor(z)[:, None]
    y = x - h / 2 * x + math.sqrt(h) * torch.as_tensor(z)[None, :]
    log_p = torch.distributions.Normal(0.0, 1.0).log_prob
    log_q = lambda b, a: torch.distributions.Normal(a * (1 - h / 2), math.sqrt(h)).log_prob(b)  # noqa: E731
    accept = (log_p(y) + log_q(x, y) - log_p(x) - log_q(y, x)).exp().clamp(max=1)
    w = torch.as_tensor(weight / weight.sum())
    expected = float(w @ accept @ w)
    start = torch.randn(n, 1, generator=generator, dtype=torch.float64)
    _, rate = mala(gaussian(0.0, 1.0), start, h, 1, generator=generator)
    assert rate.shape == ()
    assert abs(float(rate) - expected) < 4 * (expected * (1 - expected) / n) ** 0.5 + 1e-4  # the kink costs quadrature
    assert 0.5 < expected < 0.95
    assert float(mala(gaussian(0.0, 1.0), start[:5000], 1e-4, 10, generator=generator)[1]) == pytest.approx(1, abs=1e-3)


def test_mala_goes_on_from_the_state_that_on_step_returns(generator):
    """Moved to 2 after the first step, the second proposes and judges from there."""
    law, n = gaussian(0.0, 1.0), 20_000
    x, _ = mala(
        law,
        torch.zeros(n, 1).double(),
        0.5,
        2,
        generator=generator,
        on_step=lambda i, t, x: torch.full_like(x, 2.0) if i == 0 else None,
    )
    fresh, _ = mala(law, torch.full((n, 1), 2.0).double(), 0.5, 1, generator=generator)
    error = ((x.var() + fresh.var()) / n) ** 0.5
    assert abs(x.mean() - fresh.mean()) < 4 * error
    assert abs((x == 2).double().mean() - (fresh == 2).double().mean()) < 4 * (0.5 / n) ** 0.5


def test_on_step_gets_the_diffusions_time(monkeypatch):
    seen = []
    with noise(monkeypatch, module, lambda i, x: torch.zeros_like(x)):
        langevin(
            gaussian(0.0, 1.0).score,
            torch.ones(3, 1).double(),
            0.2,
            4,
            on_step=lambda i, t, x: seen.append((i, float(t), float(x[0, 0]))),
        )
    assert seen == [(i, pytest.approx(0.2 * (i + 1)), pytest.approx(0.9 ** (i + 1))) for i in range(4)]


@pytest.mark.parametrize(
    "sampler", [lambda x, **k: langevin(SKEWED.score, x, **k), lambda x, **k: mala(SKEWED, x, **k)[0]]
)
def test_refusals(sampler):
    x, good = torch.zeros(5, 1), {"step_size": 0.1, "n_steps": 2}
    for bad, message in (
        ({"step_size": 0.0}, "step_size: expected values > 0"),
        ({"step_size": math.nan}, "step_size: expected a finite number"),
        ({"n_steps": 0}, "n_steps: expected at least 1"),
    ):
        with pytest.raises(ValueError, match=f"^{message}"):
            sampler(x, **{**good, **bad})
    with pytest.raises(ValueError, match=r"^x: has NaN"):
        sampler(x * math.nan, **good)
    with pytest.raises(ValueError, match=r"^x: expected a batch"):
        sampler(x[0], **good)
    assert sampler(x[:0], **good).shape == (0, 1)


def test_langevin_refuses():
    x = torch.zeros(5, 2)
    with pytest.raises(ValueError, match=r"^temperature: expected values > 0"):
        langevin(lambda x: -x, x, 0.1, 2, temperature=0.0)
    with pytest.raises(ValueError, match=r"^score's value: expected shape \(5, 2\) like x, got \(5, 1\)"):
        langevin(lambda x: -x[:, :1], x, 0.1, 2)
    with pytest.raises(TypeError, match=r"^score: expected a function, got Tensor"):
        langevin(x, x, 0.1, 2)


def test_langevin_on_images_in_float32_and_the_same_stream_twice(generator):
    x = torch.zeros(4, 2, 3, 3)
    runs = [langevin(lambda x: -x, x, 0.1, 200, generator=generator.manual_seed(3)) for _ in range(2)]
    assert runs[0].dtype == torch.float32
    assert torch.equal(*runs)
    many = langevin(lambda x: -x, torch.zeros(4000, 2, 3), 0.1, 200, generator=generator)
    assert float(many.var()) == pytest.approx(1 / (1 - 0.1 / 4), abs=4 * (2 / many.numel()) ** 0.5)


def test_mala_in_half_precision_counts_and_accepts_like_float32():
    """A count in bfloat16 ends at 256; differences of log-densities in 300 dimensions are rounded away."""
    law = GaussianMixture(torch.zeros(1, 300), torch.ones(1))
    x = law.sample(50, generator=torch.Generator().manual_seed(0))
    rates = [
        float(mala(law, x.to(dtype), 0.02, 400, generator=torch.Generator().manual_seed(1))[1])
        for dtype in (torch.float32, torch.bfloat16)
    ]
    assert rates[0] > 0.9
    assert rates[1] == pytest.approx(rates[0], abs=0.02)
