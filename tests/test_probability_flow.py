"""Probability-flow solvers: measured orders, closed-form flows, scipy, marginals along time, round trips."""

import math

import numpy as np
import pytest
import torch
from scipy.integrate import solve_ivp

from coursework.data import load
from coursework.distributions import GaussianMixture, exact_score
from coursework.metrics import energy_test
from coursework.probability_flow import adaptive, decode, encode, euler, heun, interpolate, rk4
from coursework.sdes import VESDE, VPSDE, SubVPSDE, karras_times, log_snr_times, uniform_times
from tests.helpers.chains import orders
from tests.helpers.laws import random_mixture
from tests.test_reverse_sde import RING, assert_is_the_ring, ring_score

pytestmark = pytest.mark.usefixtures("one_thread")

SDES = (VPSDE(), VESDE(), SubVPSDE())
ORDERS = {euler: 1, heun: 2, rk4: 4}
each_sde = pytest.mark.parametrize("sde", SDES, ids=lambda sde: type(sde).__name__)
each_solver = pytest.mark.parametrize("solver", ORDERS)

COVARIANCE = torch.tensor([[0.12, 0.05], [0.05, 0.04]], dtype=torch.float64)
GAUSSIAN = GaussianMixture(torch.tensor([[0.6, -0.3]]).double(), COVARIANCE[None])
MIXTURE = GaussianMixture(
    torch.tensor([[-1.2, 0.2], [0.9, 0.7], [0.3, -1.0]]).double(),
    torch.stack([6 * COVARIANCE, 0.3 * torch.eye(2), 5 * COVARIANCE.flip(0, 1)]).double(),
    torch.tensor([0.2, 0.5, 0.3]).double(),
)


def at_T(law, sde, n, generator):
    return law.diffuse(sde.alpha(1.0), sde.sigma(1.0)).sample(n, generator=generator)


def gaussian_flow(sde, x, t, u):
    """Along the flow of N(m, C) the standardised point (alpha^2 C + sigma^2 I)^(-1/2) (x - alpha m) stays."""
    values, vectors = torch.linalg.eigh(COVARIANCE)

    def width(t):
        return torch.sqrt(sde.alpha(t) ** 2 * values + sde.sigma(t) ** 2)

    m = torch.tensor([0.6, -0.3]).double()
    z = (x - sde.alpha(t) * m) @ vectors / width(t)
    return sde.alpha(u) * m + z * width(u) @ vectors.T


def by_scipy(sde, law, x, t, u, rtol=1e-12):
    """DOP853 on the probability flow, its right-hand side written out here."""
    score = exact_score(law, sde)

    def rhs(t, flat):
        x = torch.as_tensor(flat).reshape(-1, 2)
        t = torch.tensor(t, dtype=torch.float64)
        v = float(sde.drift_coefficient(t)) * x - 0.5 * float(sde.diffusion(t)) ** 2 * score(x, t)
        return v.flatten().numpy()

    done = solve_ivp(rhs, (t, u), x.flatten().numpy(), method="DOP853", rtol=rtol, atol=1e-13)
    return torch.as_tensor(done.y[:, -1]).reshape(x.shape)


# -- orders ----------------------------------------------------------------------------------------------------------


@each_sde
@pytest.mark.parametrize("law", ["Gaussian", "mixture"])
@each_solver
def test_order_of_convergence(sde, law, solver, generator):
    """Root mean square error at t = 0.05, from t = 1, for three step counts that double."""
    density = {"Gaussian": GAUSSIAN, "mixture": MIXTURE}[law]
    x = at_T(density, sde, 60, generator)
    exact = gaussian_flow(sde, x, 1.0, 0.05) if law == "Gaussian" else by_scipy(sde, density, x, 1.0, 0.05)
    errors, n = [], {euler: 400, heun: 120, rk4: 200 if law == "Gaussian" else 100}[solver]
    for steps in (n, 2 * n, 4 * n):
        got = solver(exact_score(density, sde), sde, x, uniform_times(sde, steps, t_min=0.05))
        errors.append(float((got - exact).square().mean().sqrt()))
    assert errors[-1] > 2e-12  # above rounding
    assert orders(errors) == pytest.approx([ORDERS[solver]] * 2, abs=0.15)


@each_sde
@each_solver
def test_one_step_is_the_stated_one_in_both_directions(sde, solver):
    """Against the textbook tableau on a score that is no law's."""
    a, b, c = {
        euler: ([[]], [1.0], [0.0]),
        heun: ([[], [1.0]], [0.5, 0.5], [0.0, 1.0]),
        rk4: ([[], [0.5], [0.0, 0.5], [0.0, 0.0, 1.0]], [1 / 6, 1 / 3, 1 / 3, 1 / 6], [0.0, 0.5, 0.5, 1.0]),
    }[solver]
    x = torch.tensor([[1.2, -0.4], [0.3, 0.9], [-2.0, 0.1]], dtype=torch.float64)

    def score(x, t):
        return -0.7 * x * (1 + t) + 0.1 * x.roll(1, dims=1) ** 2

    for t, u in ((0.5, 0.45), (0.45, 0.5)):
        k = []
        for row, node in zip(a, c, strict=True):
            y = x + (u - t) * sum((w * v for w, v in zip(row, k, strict=True)), torch.zeros_like(x))
            time = torch.tensor(t + node * (u - t), dtype=torch.float64)
            k.append(sde.probability_flow(y, time, score(y, time)))
        expected = x + (u - t) * sum(w * v for w, v in zip(b, k, strict=True))
        got = solver(score, sde, x, torch.tensor([t, u], dtype=torch.float64))
        torch.testing.assert_close(got, expected, rtol=1e-12, atol=1e-12)


# -- adaptive --------------------------------------------------------------------------------------------------------


@each_sde
def test_adaptive_equals_scipys_dop853(sde, generator):
    law = random_mixture("full", 3, 2)
    x = at_T(law, sde, 7, generator)
    got = adaptive(exact_score(law, sde), sde, x, rtol=1e-9, atol=1e-9)
    expected = by_scipy(sde, law, x, 1.0, sde.t_min, rtol=1e-11)
    torch.testing.assert_close(got, expected, rtol=0, atol=1e-6)
    torch.testing.assert_close(
        adaptive(exact_score(law, sde), sde, got, t_start=sde.t_min, t_end=0.7, rtol=1e-9, atol=1e-9),
        by_scipy(sde, law, got, sde.t_min, 0.7, rtol=1e-11),
        rtol=1e-7,
        atol=1e-6,
    )


@each_sde
def test_adaptive_is_the_gaussians_closed_form(sde, generator):
    x = at_T(GAUSSIAN, sde, 50, generator)
    got = adaptive(exact_score(GAUSSIAN, sde), sde, x, rtol=1e-8, atol=1e-8)
    torch.testing.assert_close(got, gaussian_flow(sde, x, 1.0, sde.t_min), rtol=0, atol=2e-6)


def test_easy_points_do_not_hide_a_hard_one():
    """The error is the worst point's: 500 points at rest change nothing about the steps that one point needs."""
    hard, calls = torch.tensor([[1.5, -2.0]], dtype=torch.float64), []
    for x in (hard, torch.cat([torch.zeros(500, 2, dtype=torch.float64), hard])):
        count = []

        def score(x, t, count=count):
            count.append(1)
            return -x / (VPSDE().alpha(t) ** 2 * 0.01 + VPSDE().sigma(t) ** 2)

        adaptive(score, VPSDE(), x, rtol=1e-6, atol=1e-6)
        calls.append(len(count))
    assert calls[0] == calls[1] > 50


@each_sde
def test_adaptive_never_asks_outside_its_interval(sde):
    """Nearly at rest at T, so that the search for a first step looks far ahead: it must not look beyond the end."""
    seen = []

    def score(x, t):
        seen.append(float(t))
        return x * (2 * sde.drift_coefficient(t) / sde.diffusion(t) ** 2 + 1e-3)

    adaptive(score, sde, torch.ones(3, 2, dtype=torch.float64), t_end=0.01)
    assert min(seen) == pytest.approx(0.01)
    assert max(seen) == 1.0


def test_adaptive_refuses_and_says_when_the_score_fails():
    sde, x, score = VPSDE(), torch.ones(3, 2), lambda x, t: -x
    for name in ("rtol", "atol"):
        with pytest.raises(ValueError, match=rf"^{name}: expected values > 0"):
            adaptive(score, sde, x, **{name: 0.0})
    with pytest.raises(ValueError, match=r"^times: the score is asked where sigma is 0; .* 0.001"):
        adaptive(score, sde, x, t_end=0.0)
    with pytest.raises(ValueError, match=r"^times: expected strictly monotone"):
        adaptive(score, sde, x, t_start=0.5, t_end=0.5)
    with pytest.raises(ValueError, match=r"^rtol, atol: the step size vanishes"):
        adaptive(lambda x, t: x * math.nan, sde, x)


# -- laws ------------------------------------------------------------------------------------------------------------


def evenly_from_the_prior(sde):
    """4,096 points that fill the law at T evenly: what a flow makes of them has the exact law's variance to 0.2%."""
    cube = torch.quasirandom.SobolEngine(2, scramble=True, seed=1).draw(4_096, dtype=torch.float64)
    return (sde.prior_std * torch.special.ndtri(cube)).float()


@each_sde
@pytest.mark.parametrize(("solver", "n"), [(heun, 60), (rk4, 30)])
def test_flow_reaches_the_law_of_eight_modes(sde, solver, n, generator):
    start = evenly_from_the_prior(sde)
    assert_is_the_ring(solver(ring_score(sde), sde, start, log_snr_times(sde, n)), generator, within=0.01)


@each_sde
def test_euler_and_adaptive_reach_the_law_of_eight_modes(sde, generator):
    start, score = evenly_from_the_prior(sde), ring_score(sde)
    assert_is_the_ring(adaptive(score, sde, start, rtol=1e-4, atol=1e-4), generator, within=0.01)
    n = 1200 if isinstance(sde, VESDE) else 300
    assert_is_the_ring(euler(score, sde, start, log_snr_times(sde, n)), generator, within=0.01)


@each_sde
@pytest.mark.parametrize("upwards", [True, False])
def test_marginals_along_time_are_those_of_the_sde(sde, upwards, generator):
    """2,000 points carried by the flow against 2,000 fresh exact ones at four times, from either end."""
    score, n, kept = exact_score(RING, sde), 2_000, {}
    times = uniform_times(sde, 200, t_min=0.02)
    times = times.flip(0) if upwards else times
    start = RING.diffuse(sde.alpha(times[0]), sde.sigma(times[0])).sample(n, generator=generator)
    heun(score, sde, start, times, on_step=lambda i, t, x: kept.update({i: (t, x)}))
    for i in (49, 99, 149, 199):
        t, x = kept[i]
        fresh = RING.diffuse(sde.alpha(t), sde.sigma(t)).sample(n, generator=generator)
        _, p_value = energy_test(x, fresh, n_permutations=200, generator=generator)
        assert p_value > 0.01, float(t)


def test_a_wrong_prior_ruins_the_flow(generator):
    """VE from N(0, I): the law of the start is never forgotten (its sampler in ERRATA ends with variance 0.0002)."""
    sde = VESDE()
    law = GaussianMixture(torch.zeros(1, 1).double(), torch.ones(1).double())
    x = torch.randn(5_000, 1, generator=generator, dtype=torch.float64)
    wrong = heun(exact_score(law, sde), sde, x, uniform_times(sde, 200))
    expected = (1 + 0.01**2) / (1 + 50**2)
    assert float(wrong.var()) == pytest.approx(expected, rel=4 * (2 / 5000) ** 0.5)


# -- encode, decode, interpolate -------------------------------------------------------------------------------------


def smoothed_images(name):
    """Up to 2,000 training images as a mixture of Gaussians of standard deviation 0.1."""
    images = load(name, n=None if name == "digits" else 2_000).images.flatten(1).double()
    return GaussianMixture(images, torch.full((len(images),), 0.01, dtype=torch.float64))


@pytest.mark.parametrize("name", ["digits", pytest.param("fashion-mnist", marks=pytest.mark.needs("fashion-mnist"))])
def test_images_survive_the_round_trip(name, generator):
    """Error relative to |x|: at most 1e-6 in float64 and 5e-5 in float32, with tolerances to match."""
    law, sde = smoothed_images(name), VPSDE()
    score = exact_score(law, sde)
    x = law.sample(4, generator=generator)
    for dtype, tolerance, bound in ((torch.float64, 1e-7, 1e-6), (torch.float32, 1e-6, 5e-5)):
        z = encode(score, sde, x.to(dtype), rtol=tolerance, atol=tolerance)
        back = decode(score, sde, z, rtol=tolerance, atol=tolerance)
        assert back.dtype == dtype
        assert float(((back - x).norm(dim=1) / x.norm(dim=1)).max()) < bound
        assert float((z - x).norm()) > float(x.norm()) / 2


@each_sde
def test_latents_of_data_follow_the_law_at_T(sde, generator):
    n = 20_000
    z = encode(exact_score(RING, sde), sde, RING.diffuse(1.0, sde.sigma(sde.t_min)).sample(n, generator=generator))
    law = RING.diffuse(sde.alpha(1.0), sde.sigma(1.0))
    assert ((z.mean(0) - law.mean).abs() / (z.std(0) / n**0.5)).max() < 4.5
    assert (z.var(0) / law.covariance.diag() - 1).abs().max() < 4.5 * (2 / n) ** 0.5


@each_sde
def test_interpolation_has_its_ends_and_the_great_circles_middle(sde):
    score, shape = exact_score(GAUSSIAN, sde), (2,)
    x_a, x_b = torch.tensor([1.0, -0.5]).double(), torch.tensor([-0.2, 0.9]).double()
    path = interpolate(score, sde, x_a, x_b, 5, rtol=1e-9, atol=1e-9)
    assert path.shape == (5, *shape)
    torch.testing.assert_close(path[0], x_a, rtol=0, atol=1e-6)
    torch.testing.assert_close(path[-1], x_b, rtol=0, atol=1e-6)
    z_a, z_b = (gaussian_flow(sde, x[None], sde.t_min, 1.0)[0] for x in (x_a, x_b))
    angle = math.acos(float(z_a @ z_b / z_a.norm() / z_b.norm()))
    for w, x in zip(np.linspace(0, 1, 5), path, strict=True):
        z = (math.sin((1 - w) * angle) * z_a + math.sin(w * angle) * z_b) / math.sin(angle)
        torch.testing.assert_close(x, gaussian_flow(sde, z[None], 1.0, sde.t_min)[0], rtol=0, atol=1e-5)


def test_interpolation_between_parallel_latents_is_a_line():
    sde = VPSDE()
    law = GaussianMixture(torch.zeros(1, 1).double(), torch.ones(1).double())  # its flow on VP is the identity
    path = interpolate(exact_score(law, sde), sde, torch.tensor([1.0]).double(), torch.tensor([-1.0]).double(), 3)
    torch.testing.assert_close(path[:, 0], torch.tensor([1.0, 0.0, -1.0]).double(), rtol=0, atol=1e-6)


def test_interpolation_takes_images_and_refuses():
    sde, x = VPSDE(), torch.ones(1, 4, 4)
    score = lambda x, t: -x  # noqa: E731
    assert interpolate(score, sde, x, -x.roll(1), 4).shape == (4, 1, 4, 4)
    with pytest.raises(ValueError, match=r"^n: expected at least 2, got 1"):
        interpolate(score, sde, x, x, 1)
    with pytest.raises(ValueError, match=r"^x_b: expected shape \(1, 4, 4\) like x_a, got \(4, 4\)"):
        interpolate(score, sde, x, x[0], 3)
    with pytest.raises(ValueError, match=r"^x_a: has NaN"):
        interpolate(score, sde, x * math.nan, x, 3)


# -- grids -----------------------------------------------------------------------------------------------------------


def test_where_the_steps_lie_matters(generator):
    """Ten Heun steps on VE: Karras' grid beats the uniform one, which is also the one that is uniform in log-SNR."""
    sde = VESDE()
    x = at_T(RING, sde, 200, generator)
    exact = by_scipy(sde, RING, x, 1.0, sde.t_min, rtol=1e-9)
    errors = [
        float((heun(exact_score(RING, sde), sde, x, grid(sde, 10)) - exact).square().mean().sqrt())
        for grid in (uniform_times, log_snr_times, karras_times)
    ]
    assert errors[1] == pytest.approx(errors[0], rel=1e-6)
    assert errors[2] < 0.6 * errors[0]
