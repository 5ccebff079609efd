"""Reverse-SDE solvers: published forms, weak orders without random numbers, the exact law of a mixture."""

import math
from itertools import pairwise

import numpy as np
import pytest
import torch
from scipy.stats import chisquare

from coursework import reverse_sde as module
from coursework.distributions import GaussianMixture, exact_score
from coursework.metrics import energy_test
from coursework.reverse_sde import (
    adaptive_sde,
    ancestral,
    euler_maruyama,
    predictor_corrector,
    reverse_diffusion,
    stochastic_heun,
)
from coursework.sdes import VESDE, VPSDE, SubVPSDE, log_snr_times, uniform_times
from tests.helpers.chains import exact_expectation, expectation, linear_moments, noise, orders

pytestmark = pytest.mark.usefixtures("one_thread")

SDES = (VPSDE(), VESDE(), SubVPSDE())
ONE_CALL = (euler_maruyama, reverse_diffusion, ancestral)
each_sde = pytest.mark.parametrize("sde", SDES, ids=lambda sde: type(sde).__name__)
each_one_call = pytest.mark.parametrize("solver", ONE_CALL)


def scaled(sde, means, variances, weights=None):
    """A law in one dimension whose width suits the noise that is left at t = 0.05.

    VE has next to none there: on a law of width 1 the error's leading term cancels, and the order would be too good.
    """
    c = 0.02 if isinstance(sde, VESDE) else 1.0
    means, variances = torch.tensor(means, dtype=torch.float64), torch.tensor(variances, dtype=torch.float64)
    weights = None if weights is None else torch.tensor(weights, dtype=torch.float64)
    return GaussianMixture(c * means[:, None], c**2 * variances, weights), c


def line(a, b):
    """A score that knows no law: a x + b. Its slope is free, so no identity of exact scores can hide a mistake."""
    return lambda x, t: a * x + b


# -- one step of each solver, against its formula written out from f, g, alpha and sigma -----------------------------


def one_step(name, sde, x, s, t, u, z):
    """The step from t to u of the docstrings, in plain floats; f, g, alpha, sigma by quadrature-tested coefficients."""
    f, g = float(sde.drift_coefficient(t)), float(sde.diffusion(t))
    alpha_t, alpha_u, sigma_t, sigma_u = (float(c(v)) for c in (sde.alpha, sde.sigma) for v in (t, u))
    r, h = alpha_t / alpha_u, t - u
    g2 = sigma_t**2 - r**2 * sigma_u**2
    if name == "euler_maruyama":
        return x - h * (f * x - g**2 * s) + g * math.sqrt(h) * z
    if name == "reverse_diffusion":
        return (2 - r) * x + g2 * s + math.sqrt(g2) * z
    # the exact posterior q(x_u | x_t, x_0) with x_0 from Tweedie's formula
    x0 = (x + sigma_t**2 * s) / alpha_t
    precision = 1 / sigma_u**2 + r**2 / g2
    mean = (alpha_u * x0 / sigma_u**2 + r * x / g2) / precision
    return mean + math.sqrt(1 / precision) * z


@each_sde
@each_one_call
@pytest.mark.parametrize("final_noise", [True, False])
def test_steps_are_the_stated_ones(sde, solver, final_noise, monkeypatch):
    times, z = torch.tensor([0.9, 0.55, 0.3], dtype=torch.float64), [1.3, -0.8]
    x = 1.7
    with noise(monkeypatch, module, lambda i, x: torch.full_like(x, z[i])):
        got = solver(line(-0.4, 0.3), sde, torch.full((3, 1), x, dtype=torch.float64), times, final_noise=final_noise)
    for i, (t, u) in enumerate(zip(times[:-1].tolist(), times[1:].tolist(), strict=True)):
        x = one_step(solver.__name__, sde, x, -0.4 * x + 0.3, t, u, z[i] if i == 0 or final_noise else 0.0)
    assert got[:, 0].tolist() == pytest.approx([x] * 3, rel=1e-12)


@each_sde
@pytest.mark.parametrize("final_noise", [True, False])
def test_a_stochastic_heun_step_is_the_stated_one(sde, final_noise, monkeypatch):
    t, u, x, z = 0.8, 0.5, 1.7, -0.6
    with noise(monkeypatch, module, lambda i, x: torch.full_like(x, z)):
        got = stochastic_heun(
            line(-0.4, 0.3),
            sde,
            torch.full((3, 1), x, dtype=torch.float64),
            torch.tensor([t, u], dtype=torch.float64),
            final_noise=final_noise,
        )
    h, a = t - u, lambda x, t: float(sde.drift_coefficient(t)) * x - float(sde.diffusion(t)) ** 2 * (-0.4 * x + 0.3)
    n = math.sqrt(h * (float(sde.diffusion(t)) ** 2 + float(sde.diffusion(u)) ** 2) / 2) * z * final_noise
    y = x - h * a(x, t) + n
    expected = x - h / 2 * (a(x, t) + a(y, u)) + n
    assert got[:, 0].tolist() == pytest.approx([expected] * 3, rel=1e-12)


def test_vp_steps_are_those_of_the_discrete_chain():
    """With beta = 1 - r^2: ancestral has the mean of DDPM's sampler, reverse diffusion its 2 - sqrt(1 - beta)."""
    sde, t, u = VPSDE(), 0.5, 0.499
    alpha_bar_t, alpha_bar_u = float(sde.alpha(t)) ** 2, float(sde.alpha(u)) ** 2
    beta = 1 - alpha_bar_t / alpha_bar_u
    x = torch.tensor([[1.2]], dtype=torch.float64)
    times, s = torch.tensor([t, u], dtype=torch.float64), -0.4 * 1.2 + 0.3
    eps = -math.sqrt(1 - alpha_bar_t) * s
    expected = (1.2 - beta / math.sqrt(1 - alpha_bar_t) * eps) / math.sqrt(1 - beta)  # Ho et al. 2020, eq. 11
    assert float(ancestral(line(-0.4, 0.3), sde, x, times)) == pytest.approx(expected, rel=1e-10)
    expected = (2 - math.sqrt(1 - beta)) * 1.2 + beta * s
    assert float(reverse_diffusion(line(-0.4, 0.3), sde, x, times)) == pytest.approx(expected, rel=1e-10)


def test_ve_ancestral_is_the_published_one(monkeypatch):
    """x + (a^2 - b^2) s + sqrt(b^2 (a^2 - b^2) / a^2) z, a = sigma_t, b = sigma_u (Song et al. 2021, appendix F)."""
    sde, times = VESDE(), torch.tensor([0.7, 0.6], dtype=torch.float64)
    a, b = (float(sde.sigma(t)) for t in times)
    with noise(monkeypatch, module, lambda i, x: torch.full_like(x, 0.8)):
        got = ancestral(line(-0.1, 0.3), sde, torch.tensor([[1.2]], dtype=torch.float64), times, final_noise=True)
    expected = 1.2 + (a**2 - b**2) * (-0.1 * 1.2 + 0.3) + math.sqrt(b**2 * (a**2 - b**2) / a**2) * 0.8
    assert float(got) == pytest.approx(expected, rel=1e-12)


# -- a point of data -------------------------------------------------------------------------------------------------


@each_sde
@pytest.mark.parametrize("n_steps", [1, 3, 10])
def test_ancestral_is_exact_for_a_point_on_any_grid(sde, n_steps, monkeypatch):
    """x_t given the point has mean alpha x_0 and variance sigma^2, at every time of every grid."""
    point = 1.5
    times = uniform_times(sde, n_steps, t_min=0.1)
    sigma, alpha = sde.sigma(times), sde.alpha(times)

    def run(x):
        return ancestral(lambda x, t: -(x - sde.alpha(t) * point) / sde.sigma(t) ** 2, sde, x, times, final_noise=True)

    mean, variance = linear_moments(run, float(alpha[0]) * point, float(sigma[0]) ** 2, n_steps, monkeypatch, module)
    assert mean == pytest.approx(float(alpha[-1]) * point, rel=1e-9)
    assert variance == pytest.approx(float(sigma[-1]) ** 2, rel=1e-9)


@pytest.mark.parametrize("solver", [euler_maruyama, reverse_diffusion])
def test_final_noise_adds_its_variance_and_nothing_else(solver, monkeypatch):
    sde, n_steps = VPSDE(), 10
    times, variance = uniform_times(sde, n_steps), {}
    for final_noise in (True, False):

        def run(x, final_noise=final_noise):
            return solver(lambda x, t: -x / sde.sigma(t) ** 2, sde, x, times, final_noise=final_noise)

        variance[final_noise] = linear_moments(run, 0.0, 1.0, n_steps - (not final_noise), monkeypatch, module)[1]
    t, u = times[-2:]
    added = {
        euler_maruyama: sde.diffusion(t) ** 2 * (t - u),
        reverse_diffusion: sde.sigma(t) ** 2 - (sde.alpha(t) / sde.alpha(u) * sde.sigma(u)) ** 2,
    }[solver]
    assert variance[True] - variance[False] == pytest.approx(float(added), rel=1e-9)


# -- weak orders -----------------------------------------------------------------------------------------------------


@each_sde
@pytest.mark.parametrize(("solver", "order", "n"), [(s, 1, 320) for s in ONE_CALL] + [(stochastic_heun, 2, 160)])
def test_weak_order_on_a_gaussian(sde, solver, order, n, monkeypatch):
    """Mean and variance at t = 0.05 from the exact law at 1, both exact: three step counts that double."""
    law, c = scaled(sde, [0.6], [0.5])
    score, errors = exact_score(law, sde), []
    start, end = (law.diffuse(sde.alpha(t), sde.sigma(t)) for t in (1.0, 0.05))
    for steps in (n, 2 * n, 4 * n):

        def run(x, steps=steps):
            return solver(score, sde, x, uniform_times(sde, steps, t_min=0.05), final_noise=True)

        got = linear_moments(run, float(start.mean), float(start.covariance), steps, monkeypatch, module)
        errors.append([got[0] - float(end.mean), got[1] - float(end.covariance)])
    for error in zip(*errors, strict=True):
        if max(map(abs, error)) > 1e-9 * c:  # VE's mean does not move
            assert orders(error) == pytest.approx([order, order], abs=0.15)


@each_sde
@pytest.mark.parametrize(("solver", "order", "n"), [(euler_maruyama, 1, 80), (stochastic_heun, 2, 40)])
def test_weak_order_on_a_mixture(sde, solver, order, n, monkeypatch):
    """E phi(x) at t = 0.05 for two moments and eight waves, by quadrature: no paths and no standard errors."""
    law, c = scaled(sde, [-1.5, 1.0], [0.25, 0.4], [0.3, 0.7])
    score, errors = exact_score(law, sde), []

    def functions(x):
        waves = [wave(k * x / c) for k in (0.5, 1.0, 2.0, 3.0) for wave in (np.sin, np.cos)]
        return np.stack([x / c, (x / c) ** 2, *waves], axis=1)

    for steps in (n, 2 * n, 4 * n):
        times = uniform_times(sde, steps, t_min=0.05)
        got = expectation(solver, sde, law, score, times, functions, monkeypatch, module)
        errors.append(np.linalg.norm(got - exact_expectation(law, sde, 0.05, functions)))
    assert orders(errors) == pytest.approx([order, order], abs=0.15)


# -- the exact law of eight modes --------------------------------------------------------------------------------------

ANGLES = torch.arange(8).double() * math.pi / 4
RING = GaussianMixture(
    2 * torch.stack([ANGLES.cos(), ANGLES.sin()], 1), torch.full((8,), 0.04).double(), torch.arange(4.0, 12.0).double()
)
N, N_FEW = 20_000, 4_000
STEPS = {
    "euler_maruyama": 200,
    "reverse_diffusion": 250,
    "ancestral": 500,
    "stochastic_heun": 60,
    "predictor_corrector": 120,
}


def ring_score(sde):
    """exact_score(RING, sde), many times faster: all modes have one variance and one distance from 0."""
    means, log_weights = RING.means.float(), RING.weights.log().float()

    def score(x, t):
        alpha, variance = sde.alpha(t), sde.alpha(t) ** 2 * 0.04 + sde.sigma(t) ** 2
        shares = torch.softmax(x @ (alpha / variance * means).T + log_weights, dim=1)
        return (alpha * shares @ means - x) / variance

    return score


@each_sde
def test_the_fast_score_of_the_ring_is_the_exact_one(sde, generator):
    for t in (sde.t_min, 0.1, 0.5, 1.0):
        t = torch.tensor(t)
        x = RING.diffuse(sde.alpha(t), sde.sigma(t)).sample(500, generator=generator).float()
        torch.testing.assert_close(ring_score(sde)(x, t), exact_score(RING, sde)(x, t), rtol=2e-4, atol=2e-4)


def assert_is_the_ring(x, generator, within=0.02):
    """Variance (0.02 is 4 standard errors of N points), weights of the modes by chi-squared, energy distance."""
    x = x.double()
    assert (x.var(0) / RING.covariance.diag() - 1).abs().max() < within
    few = x[:N_FEW]
    counts = torch.cdist(few, RING.means).argmin(1).bincount(minlength=8)
    assert chisquare(counts.numpy(), len(few) * RING.weights.numpy()).pvalue > 1e-3
    fewer, fresh = few[:1500], RING.sample(1500, generator=generator)
    distance, p_value = energy_test(fewer, fresh, n_permutations=200, generator=generator)
    assert p_value > 0.01, distance


@each_sde
@pytest.mark.parametrize("name", STEPS)
def test_solvers_reach_the_law_of_eight_modes(sde, name, generator):
    solver = {f.__name__: f for f in (*ONE_CALL, stochastic_heun, predictor_corrector)}[name]
    start = sde.prior_sample((N, 2), generator=generator)
    times = log_snr_times(sde, STEPS[name])
    assert_is_the_ring(solver(ring_score(sde), sde, start, times, generator=generator), generator)


@each_sde
def test_adaptive_steps_reach_the_law_of_eight_modes(sde, generator):
    start = sde.prior_sample((N, 2), generator=generator)
    x, n_calls = adaptive_sde(ring_score(sde), sde, start, rtol=0.03, atol=0.03, generator=generator)
    assert_is_the_ring(x, generator)
    assert 40 < n_calls < 1500


# -- predictor-corrector -----------------------------------------------------------------------------------------------


def stay(score, sde, x, times, *, final_noise=False, generator=None, on_step=None):
    """A predictor that does nothing: what is left is the corrector."""
    for i, t in enumerate(times[1:]):
        x = on_step(i, t, x)
    return x


@pytest.mark.parametrize("snr", [0.16, 0.5])
@pytest.mark.parametrize("scale", [0.2, 3.0])
def test_the_correctors_own_variance_is_too_large_by_a_known_factor(snr, scale, generator):
    """On N(0, v I) the chain's variance is v (1 + snr^2), whatever v and the dimension.

    With variance V the score's length is |z| sqrt(V) / v, so e = 2 snr^2 v^2 / V; V = (1 - e/v)^2 V + 2 e gives it.
    """
    n, dims = 20_000, 10
    x = scale * torch.randn(n, dims, generator=generator, dtype=torch.float64)
    times, sde = torch.linspace(1e-4, 9e-5, 120).double(), VPSDE()  # r is 1 to five digits
    x = predictor_corrector(lambda x, t: -x / scale**2, sde, x, times, predictor=stay, snr=snr, generator=generator)
    expected = scale**2 * (1 + snr**2)
    assert abs(float(x.var()) / expected - 1) < 5 * (2 / x.numel()) ** 0.5


@each_sde
def test_corrector_step_is_the_published_one(sde, monkeypatch):
    """e = 2 r^2 (snr |z| / |s|)^2 with batch means of the norms; at the time that x has; before each predictor step."""
    times, z = torch.tensor([0.9, 0.6, 0.3], dtype=torch.float64), [[0.5, -1.0], [2.0, 0.3], [-0.7, 0.4]]
    seen, x = [], torch.tensor([[1.0, 2.0], [-0.5, 0.8], [0.3, -1.1]], dtype=torch.float64)

    def score(x, t):
        seen.append(float(t))
        return -0.4 * x + 0.3

    with noise(monkeypatch, module, lambda i, x: torch.tensor(z, dtype=torch.float64) * (1 + i)):
        got = predictor_corrector(score, sde, x, times, predictor=stay, n_corrector_steps=2, snr=0.3)
    expected, draws = x, iter(range(4))
    for t, u in ((0.9, 0.6), (0.6, 0.3)):
        r = float(sde.alpha(t) / sde.alpha(u))
        for _ in range(2):
            s, noise_now = -0.4 * expected + 0.3, torch.tensor(z, dtype=torch.float64) * (1 + next(draws))
            e = 2 * (r * 0.3 * noise_now.norm(dim=1).mean() / s.norm(dim=1).mean()) ** 2
            expected = expected + e * s + (2 * e).sqrt() * noise_now
    torch.testing.assert_close(got, expected, rtol=1e-12, atol=0)
    assert seen == [0.9, 0.9, 0.6, 0.6]


@each_sde
@each_one_call
def test_without_corrector_steps_the_predictor_is_left(sde, solver, generator):
    x, times, score = torch.randn(50, 2, generator=generator).double(), uniform_times(sde, 7), exact_score(RING, sde)
    alone = solver(score, sde, x, times, generator=generator.manual_seed(1))
    got = predictor_corrector(
        score, sde, x, times, predictor=solver, n_corrector_steps=0, generator=generator.manual_seed(1)
    )
    assert torch.equal(alone, got)


def test_predictor_corrector_calls_and_on_step(generator):
    sde, calls, seen = VPSDE(), [], []
    score = exact_score(RING, sde)

    def counted(x, t):
        calls.append(float(t))
        return score(x, t)

    times = uniform_times(sde, 5)
    x = predictor_corrector(
        counted,
        sde,
        torch.randn(6, 2, generator=generator).double(),
        times,
        n_corrector_steps=3,
        generator=generator,
        on_step=lambda i, t, x: seen.append((i, float(t), x)),
    )
    assert calls == [t for t in times[:-1].tolist() for _ in range(4)]
    assert [s[:2] for s in seen] == list(enumerate(times[1:].tolist()))
    assert torch.equal(seen[-1][2], x)


# -- adaptive steps ----------------------------------------------------------------------------------------------------


def test_adaptive_calls_are_counted_and_tolerance_buys_accuracy(generator):
    sde, calls, errors = VPSDE(), [], []
    score = exact_score(scaled(sde, [0.6], [0.5])[0], sde)
    for tolerance in (0.3, 0.03, 0.003):
        count = []

        def counted(x, t, count=count):
            count.append(1)
            return score(x, t)

        x = sde.prior_sample((20_000, 1), generator=generator.manual_seed(1), dtype=torch.float64)
        x, n_calls = adaptive_sde(counted, sde, x, rtol=tolerance, atol=tolerance, generator=generator)
        assert n_calls == len(count)
        calls.append(n_calls)
        errors.append(abs(float(x.var()) - 0.5))
    assert calls[0] < calls[1] < calls[2]
    assert errors[2] < 4 * 0.5 * (2 / 20_000) ** 0.5


def test_a_rejected_step_keeps_its_noise(generator):
    """The path is one path, whatever is put back on the way: pieces known are cut by Brownian bridges."""
    path = module._BrownianPath(torch.zeros(40_000, 1, dtype=torch.float64), generator)
    w = path.draw(0.4)
    path.put_back()
    first = path.draw(0.1)  # a quarter of the rejected step
    path.put_back()
    pieces = [path.draw(0.05), path.draw(0.05)]
    torch.testing.assert_close(pieces[0] + pieces[1], first)
    pieces.append(path.draw(0.7))  # the rest of the rejected step, 0.3, and 0.4 of fresh noise
    path.put_back()
    pieces[2:] = [path.draw(0.3), path.draw(0.4), path.draw(0.2)]
    torch.testing.assert_close(pieces[0] + pieces[1] + pieces[2], w)
    durations, increments = torch.tensor([0.05, 0.05, 0.3, 0.4, 0.2], dtype=torch.float64), torch.cat(pieces, 1)
    covariance = torch.cov(increments.T)
    errors = torch.sqrt(torch.outer(durations, durations) / len(increments) * (1 + torch.eye(5)))
    assert ((covariance - durations.diag()).abs() / errors).max() < 4.5


def test_rejections_do_not_choose_the_noise(generator):
    """One point at a time, so that its own noise decides: fresh noise makes the variance 1.6 times too large."""
    law, sde, n = GaussianMixture(torch.zeros(1, 1), torch.tensor([0.05])), VPSDE(), 200
    score, ends = lambda x, t: -x / (sde.alpha(t) ** 2 * 0.05 + sde.sigma(t) ** 2), []
    for _ in range(n):
        x = torch.randn(1, 1, generator=generator, dtype=torch.float64)
        ends.append(adaptive_sde(score, sde, x, rtol=1e-9, atol=0.02, generator=generator)[0])
    assert abs(float(torch.cat(ends).var() / law.covariance) - 1) < 4 * (2 / n) ** 0.5


def test_steps_are_those_of_stochastic_heun_and_the_end_is_denoised(monkeypatch):
    """With tolerances that accept everything, and the noise known: h grows fivefold; then x + sigma^2 s."""
    score, sde, states = exact_score(RING, VPSDE()), VPSDE(), [(1.0, torch.ones(5, 2).double())]
    with noise(monkeypatch, module, lambda i, x: torch.full_like(x, 0.3 * (i + 1))):
        x, n_calls = adaptive_sde(
            score, sde, states[0][1], rtol=9.0, atol=9.0, on_step=lambda i, t, x: states.append((float(t), x))
        )
    assert [a[0] - b[0] for a, b in pairwise(states)][:3] == pytest.approx([0.00999, 0.04995, 0.24975])
    for i, ((t, before), (t_next, after)) in enumerate(pairwise(states)):
        with noise(monkeypatch, module, lambda _, x, i=i: torch.full_like(x, 0.3 * (i + 1))):
            times = torch.tensor([t, t_next], dtype=torch.float64)
            alone = stochastic_heun(score, sde, before, times, final_noise=True)
        torch.testing.assert_close(after, alone, rtol=1e-9, atol=1e-9)
    end, last = states[-1]
    torch.testing.assert_close(x, last + float(sde.sigma(end)) ** 2 * score(last, torch.tensor(end)))
    assert n_calls == 2 * (len(states) - 1) + 1


def test_easy_points_do_not_hide_a_hard_one(monkeypatch):
    """The error is the worst point's: 500 points at rest change nothing about the steps that one point needs."""
    hard, calls = torch.tensor([[1.5, -2.0]], dtype=torch.float64), []
    with noise(monkeypatch, module, lambda i, x: torch.zeros_like(x)):
        for x in (hard, torch.cat([torch.zeros(500, 2, dtype=torch.float64), hard])):
            calls.append(adaptive_sde(lambda x, t: -x / VPSDE().sigma(t) ** 2, VPSDE(), x, rtol=0.01, atol=0.01)[1])
    assert calls[0] == calls[1] > 20


def test_adaptive_ends_exactly_at_t_min_and_shows_its_steps(generator):
    sde, seen = SubVPSDE(), []
    x = sde.prior_sample((100, 2), generator=generator, dtype=torch.float64)
    adaptive_sde(
        exact_score(RING, sde),
        sde,
        x,
        rtol=0.1,
        atol=0.1,
        t_min=0.02,
        generator=generator,
        on_step=lambda i, t, x: seen.append((i, float(t))),
    )
    assert [i for i, _ in seen] == list(range(len(seen)))
    assert all(a[1] > b[1] for a, b in pairwise(seen))
    assert seen[-1][1] == 0.02


def test_adaptive_says_when_the_score_fails(generator):
    with pytest.raises(ValueError, match=r"^rtol, atol: the step size vanishes at t = 1; "):
        adaptive_sde(lambda x, t: x * math.nan, VPSDE(), torch.ones(3, 2), rtol=0.1, atol=0.1, generator=generator)
    for name in ("rtol", "atol"):
        with pytest.raises(ValueError, match=rf"^{name}: expected values > 0"):
            adaptive_sde(line(-1.0, 0.0), VPSDE(), torch.ones(3, 2), **{"rtol": 0.1, "atol": 0.1, name: 0.0})


def test_predictor_corrector_refuses():
    arguments = line(-1.0, 0.0), VPSDE(), torch.ones(3, 2), uniform_times(VPSDE(), 3)
    with pytest.raises(ValueError, match=r"^n_corrector_steps: expected at least 0, got -1"):
        predictor_corrector(*arguments, n_corrector_steps=-1)
    with pytest.raises(ValueError, match=r"^snr: expected values > 0"):
        predictor_corrector(*arguments, snr=0.0)
