"""Paths, velocities, the loss the family of SDEs: against closed forms on Gaussians and mixtures, and POT."""

import itertools
import math

import numpy as np
import ot
import pytest
import torch

from coursework.distributions import GaussianMixture, exact_score
from coursework.fast_solvers import dpm_solver, edm_heun, exponential_multistep
from coursework.flow_matching import (
    CosinePath,
    LinearPath,
    exact_velocity,
    flow_matching_loss,
    flow_velocity,
    interpolant_sde,
    ot_coupling,
    rates,
    schroedinger_gaussian,
    score_of_velocity,
)
from coursework.guidance import classifier_free_guidance
from coursework.inverse_problems import condition, posterior_score
from coursework.likelihood import log_likelihood
from coursework.predictions import convert
from coursework.probability_flow import decode, encode, euler, heun
from coursework.reverse_sde import euler_maruyama
from coursework.score_matching import denoising_losses
from coursework.sdes import VESDE, VPSDE, SubVPSDE, karras_times, uniform_times
from tests.helpers.laws import points, random_mixture

pytestmark = pytest.mark.usefixtures("one_thread")

OURS = {"linear": LinearPath(), "cosine": CosinePath()}
PATHS = {**OURS, "vp": VPSDE(), "ve": VESDE(0.01, 5.0), "sub-vp": SubVPSDE()}
each_path = pytest.mark.parametrize("path", PATHS.values(), ids=PATHS)
each_of_ours = pytest.mark.parametrize("path", OURS.values(), ids=OURS)
LAW = random_mixture("full", n_dims=3)
TIMES = torch.linspace(0.03, 0.97, 12, dtype=torch.float64)


def close(got, expected, tolerance=1e-10):
    torch.testing.assert_close(got, expected, rtol=tolerance, atol=tolerance)


def normal(mean, variance):
    """N(mean, variance) in one dimension."""
    return GaussianMixture(*(torch.tensor(v, dtype=torch.float64) for v in ([[mean]], [variance])))


def slope(function, t):
    """The derivative of function at every t, by autograd."""
    t = t.clone().requires_grad_()
    value = function(t)
    return torch.autograd.grad(value.sum(), t)[0] if value.requires_grad else torch.zeros_like(t)


# -- paths -----------------------------------------------------------------------------------------------------------


@each_path
def test_rates_are_the_derivatives_of_alpha_and_sigma(path):
    alpha_rate, sigma_rate = rates(path, TIMES)
    close(alpha_rate, slope(path.alpha, TIMES))
    close(sigma_rate, slope(path.sigma, TIMES))


@each_of_ours
def test_a_path_is_the_sde_whose_kernel_has_its_alpha_and_sigma(path):
    """alpha' = f alpha and (sigma^2)' = 2 f sigma^2 + g^2."""
    f, g = path.drift_coefficient(TIMES), path.diffusion(TIMES)
    close(slope(path.alpha, TIMES), f * path.alpha(TIMES))
    close(slope(lambda t: path.sigma(t) ** 2, TIMES), 2 * f * path.sigma(TIMES) ** 2 + g**2)


def test_the_two_paths_in_closed_form():
    linear, cosine, t = OURS["linear"], OURS["cosine"], TIMES
    close(linear.alpha(t), 1 - t)
    close(linear.sigma(t), t)
    close(linear.diffusion(t) ** 2, 2 * t / (1 - t))
    close(cosine.alpha(t), torch.cos(math.pi * t / 2))
    close(cosine.sigma(t), torch.sin(math.pi * t / 2))
    close(cosine.diffusion(t) ** 2, math.pi * torch.tan(math.pi * t / 2))
    for path in (linear, cosine):
        assert (path.T, path.t_min) == (0.999, 1e-3)
        assert path.prior_std == pytest.approx(float(path.sigma(0.999)), abs=1e-12)


def test_what_is_done_to_sigma_leaves_the_times_alone():
    t = torch.tensor([0.25, 0.5])
    OURS["linear"].sigma(t).mul_(2)
    assert t.tolist() == [0.25, 0.5]


# -- velocities ------------------------------------------------------------------------------------------------------


@each_path
@pytest.mark.parametrize("kind", ["full", "diagonal", "isotropic"])
def test_the_exact_velocity_is_that_of_the_exact_score(path, kind):
    law = random_mixture(kind, n_dims=3)
    x = points(len(TIMES), 3)
    v = exact_velocity(law, path)(x, TIMES)
    score = exact_score(law, path)(x, TIMES)
    close(flow_velocity(score, x, TIMES, path), v, 1e-9)
    close(score_of_velocity(v, x, TIMES, path), score, 1e-9)


@each_path
def test_velocity_and_score_there_and_back(path):
    x, value = points(len(TIMES), 3), points(len(TIMES), 3, seed=5)
    close(score_of_velocity(flow_velocity(value, x, TIMES, path), x, TIMES, path), value)
    close(flow_velocity(score_of_velocity(value, x, TIMES, path), x, TIMES, path), value)


@each_path
@pytest.mark.parametrize("source", ["noise", "data", "velocity"])
def test_every_prediction_gives_the_same_velocity(path, source):
    """v = alpha' x0_hat + sigma' noise_hat, from each language of `predictions`."""
    x, value = points(len(TIMES), 3), points(len(TIMES), 3, seed=5)
    alpha, sigma = path.alpha(TIMES), path.sigma(TIMES)
    said = {name: convert(value, x, alpha, sigma, source=source, target=name) for name in ("score", "noise", "data")}
    alpha_rate, sigma_rate = (rate[:, None] for rate in rates(path, TIMES))
    expected = alpha_rate * said["data"] + sigma_rate * said["noise"]
    got = flow_velocity(said["score"], x, TIMES, path)
    close(got, expected, 1e-9)
    close(score_of_velocity(expected, x, TIMES, path), said["score"], 1e-9)


def test_on_the_linear_path_in_closed_form():
    x, v, t = points(len(TIMES), 3), points(len(TIMES), 3, seed=5), TIMES[:, None]
    close(score_of_velocity(v, x, TIMES, OURS["linear"]), -(x + (1 - t) * v) / t)
    score = v
    close(flow_velocity(score, x, TIMES, OURS["linear"]), -(x + t * score) / (1 - t))


def test_on_the_cosine_path_u_is_half_pi_times_the_velocity_of_predictions():
    path, x, score = OURS["cosine"], points(len(TIMES), 3), points(len(TIMES), 3, seed=5)
    velocity = convert(score, x, path.alpha(TIMES), path.sigma(TIMES), source="score", target="velocity")
    close(flow_velocity(score, x, TIMES, path), math.pi / 2 * velocity)


@each_of_ours
def test_the_exact_velocity_is_finite_at_both_ends(path):
    """At t = 0 it is alpha' x_0; for a Gaussian the closed form, to the last digits where alpha vanishes."""
    x = points(7, 3)
    v = exact_velocity(LAW, path)
    close(v(x, torch.tensor(0.0).double()), float(path.alpha_rate(0.0)) * x)
    both = v(x[:2], torch.tensor([0.0, 1e-9]).double())
    close(both[0], float(path.alpha_rate(0.0)) * x[0])
    close(both[1], float(path.alpha_rate(0.0)) * x[1], 1e-6)
    m, s = 0.7, 0.4
    v = exact_velocity(normal(m, s**2), path)
    for t in torch.tensor([0.0, 0.3, 0.999], dtype=torch.float64):
        alpha, sigma, (alpha_rate, sigma_rate) = path.alpha(t), path.sigma(t), rates(path, t)
        rate = (alpha * alpha_rate * s**2 + sigma * sigma_rate) / (alpha**2 * s**2 + sigma**2)
        close(v(x[:, :1], t), alpha_rate * m + rate * (x[:, :1] - alpha * m), 1e-13)


# -- the loss --------------------------------------------------------------------------------------------------------


@each_path
def test_the_loss_by_hand(path):
    x, noise = points(len(TIMES), 3), points(len(TIMES), 3, seed=5)
    label = torch.arange(len(TIMES)) % 3

    def velocity(x, t, label):
        return torch.sin(x) + (t + label)[:, None]

    got = flow_matching_loss(velocity, path, x, noise=noise, times=TIMES, label=label)
    total = 0.0
    for point, z, t, y in zip(x, noise, TIMES, label, strict=True):
        x_t = path.alpha(t) * point + path.sigma(t) * z
        u = slope(path.alpha, t) * point + slope(path.sigma, t) * z
        total += float((torch.sin(x_t) + t + y - u).square().sum()) / len(x)
    assert float(got) == pytest.approx(total, rel=1e-12)


@each_path
def test_it_is_denoising_score_matching_with_another_weight(path):
    """|v - u|^2 = g^4 / 4 |s - score of the kernel|^2."""
    x, noise = points(len(TIMES), 3), points(len(TIMES), 3, seed=5)

    def score(x, t):
        return torch.sin(x) - t[:, None]

    got = flow_matching_loss(lambda x, t: flow_velocity(score(x, t), x, t, path), path, x, noise=noise, times=TIMES)
    losses = denoising_losses(score, path, x, weighting="uniform", noise=noise, times=TIMES)
    close(got, (path.diffusion(TIMES) ** 4 / 2 * losses).mean(), 1e-9)


@each_of_ours
def test_its_least_value_is_the_variance_of_u_given_x_t(path, generator):
    """N(m, s^2): Var[u | x_t] = s^2 (alpha' sigma - sigma' alpha)^2 / (alpha^2 s^2 + sigma^2), averaged over t."""
    m, s, n = 0.7, 0.4, 40_000
    law = normal(m, s**2)
    x = law.sample(n, generator=generator)
    t = torch.linspace(path.t_min, path.T, 4001, dtype=torch.float64)
    alpha, sigma, (alpha_rate, sigma_rate) = path.alpha(t), path.sigma(t), rates(path, t)
    variance = s**2 * (alpha_rate * sigma - sigma_rate * alpha) ** 2 / (alpha**2 * s**2 + sigma**2)
    floor = float(torch.trapezoid(variance, t) / (path.T - path.t_min))
    losses = []
    for piece in x.split(n // 20):
        losses.append(flow_matching_loss(exact_velocity(law, path), path, piece, generator=generator))
    losses = torch.stack(losses)
    assert abs(float(losses.mean()) - floor) < 4 * float(losses.std()) / 20**0.5
    shifted = flow_matching_loss(lambda x, t: exact_velocity(law, path)(x, t) + 0.5, path, x, generator=generator)
    assert float(shifted) == pytest.approx(floor + 0.25, abs=12 * float(losses.std()) / 20**0.5)


def test_times_are_uniform_from_t_min_to_T(generator):
    asked = []
    x = torch.zeros(4000, 1, dtype=torch.float64)
    flow_matching_loss(lambda x, t: asked.append(t) or x, OURS["linear"], x, generator=generator)
    (t,) = asked
    u = ((t - 1e-3) / 0.998).sort().values
    empirical = torch.arange(1, 4001, dtype=torch.float64) / 4000
    assert float((u - empirical).abs().max()) < 1.63 / 4000**0.5  # Kolmogorov and Smirnov, one percent
    assert float(t.min()) >= 1e-3
    assert float(t.max()) <= 0.999


# -- the family of SDEs ----------------------------------------------------------------------------------------------

NORMAL = normal(0.0, 0.3)


@each_path
def test_without_noise_it_is_euler_and_with_the_diffusion_of_the_sde_euler_maruyama(path):
    x, score = points(50, 3), exact_score(LAW, path)
    v, times = exact_velocity(LAW, path), uniform_times(path, 8, t_min=0.05)
    close(interpolant_sde(v, path, x, times, lambda t: 0.0), euler(score, path, x, times), 1e-9)
    streams = [torch.Generator().manual_seed(3) for _ in range(2)]
    got = interpolant_sde(v, path, x, times, path.diffusion, generator=streams[0])
    close(got, euler_maruyama(score, path, x, times, generator=streams[1]), 1e-8)


GAMMAS = {
    "0": lambda t: 0.0,
    "1": lambda t: 1.0,
    "2 sqrt t": lambda t: 2 * t.sqrt(),
    "sqrt(2 t)": lambda t: (2 * t).sqrt(),
}


@pytest.mark.parametrize("gamma", GAMMAS.values(), ids=GAMMAS)
@each_of_ours
def test_any_noise_gives_the_same_law(path, gamma):
    """The variance that the affine chain reaches, point for point, tends to the law's own with order 1."""
    errors = []
    for n_steps in (200, 400):
        times = karras_times(path, n_steps, t_min=1e-3, rho=3.0)
        t, h = times[:-1], -times.diff()
        g, v = torch.as_tensor(gamma(t)).expand(t.shape), exact_velocity(NORMAL, path)
        slopes = torch.stack([v(torch.ones(1, 1).double(), each) for each in t]).flatten()
        scores = torch.stack([exact_score(NORMAL, path)(torch.ones(1, 1).double(), each) for each in t]).flatten()
        variance = path.alpha(times[0]) ** 2 * 0.3 + path.sigma(times[0]) ** 2
        for i in range(n_steps):
            variance = (1 - h[i] * (slopes[i] - g[i] ** 2 / 2 * scores[i])) ** 2 * variance
            variance = variance + (g[i] ** 2 * h[i] if i < n_steps - 1 else 0)
        errors.append(abs(float(variance) - float(path.alpha(1e-3) ** 2 * 0.3 + path.sigma(1e-3) ** 2)))
        if n_steps == 200:
            stream = torch.Generator().manual_seed(7)
            x = float(path.alpha(times[0]) ** 2 * 0.3 + path.sigma(times[0]) ** 2) ** 0.5
            x = x * torch.randn(20_000, 1, generator=stream, dtype=torch.float64)
            x = interpolant_sde(v, path, x, times, gamma, generator=stream)
            assert abs(float(x.var() / variance) - 1) < 4.5 * (2 / 20_000) ** 0.5
    assert errors[0] < 0.03
    assert 0.3 < errors[1] / errors[0] < 0.6


def test_noise_without_its_drift_gives_another_law():
    """The circulating mistake: v dt + gamma dw, which adds variance that nothing takes away."""
    path, times = OURS["linear"], uniform_times(OURS["linear"], 500)
    v, stream = exact_velocity(NORMAL, path), torch.Generator().manual_seed(3)
    start = torch.randn(20_000, 1, generator=stream, dtype=torch.float64)
    right = interpolant_sde(v, path, start, times, lambda t: 1.0, generator=stream)
    assert float(right.var()) == pytest.approx(0.3, abs=4.5 * 0.3 * (2 / 20_000) ** 0.5 + 0.004)
    x = start
    for t, s in itertools.pairwise(times):
        x = x - (t - s) * v(x, t) + (t - s).sqrt() * torch.randn(x.shape, generator=stream, dtype=torch.float64)
    assert float(x.var()) > 0.5


# -- everything else runs on a path ----------------------------------------------------------------------------------


def test_euler_on_the_linear_path_is_ddim_and_on_others_it_is_not():
    x = points(50, 3)
    for name, path in PATHS.items():
        score, times = exact_score(LAW, path), uniform_times(path, 6, t_min=0.02)
        gap = (euler(score, path, x, times) - exponential_multistep(score, path, x, times, order=1)).abs().max()
        assert (float(gap) < 1e-12 * float(x.abs().max())) == (name == "linear"), name


@each_of_ours
@pytest.mark.parametrize(
    ("solver", "order"),
    [
        (heun, 2),
        (lambda *args: exponential_multistep(*args, order=3), 3),
        (lambda *args: dpm_solver(*args, order=3), 3),
        (edm_heun, 2),
    ],
    ids=["heun", "multistep 3", "dpm 3", "edm"],
)
def test_solvers_keep_their_order_on_a_learned_velocity(path, solver, order):
    """The score that they ask for is made of a velocity."""
    v = exact_velocity(LAW, path)
    x, errors = points(20, 3, scale=1.0), []

    def score(x, t):
        return score_of_velocity(v(x, t), x, t, path)

    exact = exponential_multistep(exact_score(LAW, path), path, x, karras_times(path, 1500, t_min=0.05), order=3)
    for n_steps in (24, 48):
        errors.append(float((solver(score, path, x, karras_times(path, n_steps, t_min=0.05)) - exact).abs().max()))
    assert order - 0.5 < math.log2(errors[0] / errors[1]) < order + 1.2


@each_of_ours
def test_likelihood_and_latents_on_a_path(path, generator):
    x = LAW.sample(50, generator=generator)
    score = exact_score(LAW, path)
    at = [LAW.diffuse(path.alpha(t), path.sigma(t)) for t in (path.t_min, path.T)]
    got = log_likelihood(score, path, x, prior_log_prob=at[1].log_prob)
    torch.testing.assert_close(got, at[0].log_prob(x), rtol=0, atol=2e-3)
    torch.testing.assert_close(decode(score, path, encode(score, path, x)), x, rtol=0, atol=1e-3)


@each_of_ours
def test_guidance_and_measurements_on_a_path(path):
    """Guiding scores is guiding velocities; given a measurement of a standard normal the pseudo-inverse is exact."""
    laws, x, t = (LAW, random_mixture("full", n_dims=3, seed=4)), points(9, 3), torch.tensor(0.4).double()

    def score(x, t, label):
        both = [exact_score(law, path)(x, t) for law in laws]
        return torch.where(label[:, None] == 0, *both)

    guided = classifier_free_guidance(score, 0, 2.5)(x, t)
    v_c, v_0 = (exact_velocity(law, path)(x, t) for law in laws)
    close(flow_velocity(guided, x, t, path), v_0 + 2.5 * (v_c - v_0), 1e-9)
    law = GaussianMixture(torch.zeros(1, 3).double(), torch.ones(1).double())
    operator, y = points(2, 3), torch.tensor([0.5, -0.25]).double()
    got = posterior_score(exact_score(law, path), path, operator, y, 0.2)(x, t)
    close(got, exact_score(condition(law, operator, y, 0.2), path)(x, t), 1e-9)


# -- couplings -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(1,), (3,), (1, 2, 2)])
def test_the_coupling_is_the_best_of_all_permutations(shape):
    x, z = (torch.randn(6, *shape, generator=torch.Generator().manual_seed(s), dtype=torch.float64) for s in (1, 2))
    costs = [float(((x - z[list(p)]) ** 2).sum()) for p in itertools.permutations(range(6))]
    got = ot_coupling(x, z)
    assert float(((x - got) ** 2).sum()) == pytest.approx(min(costs), rel=1e-12)
    assert sorted(got.flatten(1).tolist()) == sorted(z.flatten(1).tolist())


def test_in_one_dimension_it_sorts():
    x, z = points(200, 1), points(200, 1, seed=9)
    got = ot_coupling(x, z)
    assert torch.equal(got[x[:, 0].argsort()], z.sort(0).values)


# -- Schroedinger's bridge -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("variance", "expected"), [(0.01, 0.495), (0.25, 0.390), (1.0, 0.207), (4.0, 0.0616)])
def test_the_bridge_of_gaussians_by_sinkhorn(variance, expected):
    a, b = 1.0, 0.5
    got = float(schroedinger_gaussian(a, b, variance**0.5))
    assert got == pytest.approx(expected, abs=5e-4)
    if variance < 0.1:  # Sinkhorn's iteration would take long; the quadratic that c solves says the same
        assert got**2 + variance * got == pytest.approx(a**2 * b**2, rel=1e-12)
        return
    x = np.linspace(-6, 6, 161)
    weights = [np.exp(-(x**2) / (2 * s**2)) for s in (a, b)]
    weights = [w / w.sum() for w in weights]
    plan = ot.sinkhorn(*weights, (x[:, None] - x) ** 2 / 2, reg=variance, numItermax=5000, stopThr=1e-12)
    assert got == pytest.approx(float(x @ plan @ x), rel=1e-4)


def test_the_bridge_between_its_limits():
    a, b = torch.tensor([0.5, 1.0, 2.0]), torch.tensor([1.5, 0.25, 2.0])
    close(schroedinger_gaussian(a, b, 1e-6), (a * b).double(), 1e-9)
    close(schroedinger_gaussian(a, b, 1e4) * 1e8, (a * b).double() ** 2, 1e-6)


# -- devices and refusals --------------------------------------------------------------------------------------------


@pytest.mark.needs("gpu")
@each_path
def test_on_the_gpu(path):
    law, x, t = LAW.to("cuda"), points(12, 3), TIMES
    here, there = exact_velocity(LAW, path), exact_velocity(law, path)
    close(there(x.cuda(), t.cuda()).cpu(), here(x, t), 1e-9)
    close(score_of_velocity(x.cuda(), x.cuda(), t.cuda(), path).cpu(), score_of_velocity(x, x, t, path), 1e-9)
    noise = points(12, 3, seed=5)
    losses = [
        flow_matching_loss(v, path, x.to(d), noise=noise.to(d), times=t.to(d)).cpu()
        for v, d in ((here, "cpu"), (there, "cuda"))
    ]
    close(*losses, 1e-9)
    times = uniform_times(path, 5, t_min=0.1)
    ends = [interpolant_sde(v, path, x.to(d), times, lambda t: 0.0).cpu() for v, d in ((here, "cpu"), (there, "cuda"))]
    close(*ends, 1e-9)
    close(ot_coupling(x.cuda(), noise.cuda()).cpu(), ot_coupling(x, noise))


X, T, LINEAR = torch.ones(3, 2), torch.tensor([0.5, 0.25]), LinearPath()


def drawn(velocity, times, diffusion):
    """`interpolant_sde` from X."""
    return interpolant_sde(velocity, LINEAR, X, times, diffusion)


def loss(velocity, x=X, **settings):
    """`flow_matching_loss` on the linear path."""
    return flow_matching_loss(velocity, LINEAR, x, **settings)


@pytest.mark.parametrize(
    ("call", "match"),
    [
        (lambda: rates(VPSDE(), 0.0), r"^t: the score is asked where sigma is 0"),
        (lambda: rates(LINEAR, 1.0), r"^t: expected values in \[0, 0.999\]"),
        (lambda: flow_velocity(X, X[0], 0.5, LINEAR), r"^x: expected a batch"),
        (lambda: flow_velocity(X[:2], X, 0.5, LINEAR), r"^score_value: expected shape"),
        (lambda: score_of_velocity(X[:2], X, 0.5, LINEAR), r"^v: expected shape"),
        (lambda: score_of_velocity(X, X, 0.0, LINEAR), r"^t: the score is asked where sigma is 0"),
        (lambda: exact_velocity(torch.distributions.Normal(0, 1), LINEAR), r"^density: expected a GaussianMixture"),
        (lambda: loss(lambda x, t: x[:, :1]), r"^velocity's value: expected shape"),
        (lambda: loss(lambda x, t: x, times=T), r"^times: expected a number or shape"),
        (lambda: loss(lambda x, t: x, noise=X[:2]), r"^noise: expected shape"),
        (lambda: loss(lambda x, t: x, X[:0]), r"^x: expected at least one point"),
        (lambda: drawn(lambda x, t: x, T, 1.0), r"^diffusion: expected a function of t"),
        (lambda: drawn(lambda x, t: x, T, lambda t: -t), r"^diffusion's value: expected finite values >= 0"),
        (lambda: drawn(lambda x, t: x, T, lambda t: t[:0]), r"^diffusion's value: expected a number or shape"),
        (lambda: drawn(lambda x, t: x, T.flip(0), lambda t: t), r"^times: expected strictly decreasing"),
        (lambda: drawn(lambda x, t: x[:1], T, lambda t: t), r"^velocity's value: expected shape"),
        (lambda: drawn(1.0, T, lambda t: t), r"^velocity: expected a function"),
        (lambda: ot_coupling(X, X[:2]), r"^z: expected shape"),
        (lambda: schroedinger_gaussian(1.0, 0.0, 1.0), r"^b: expected values > 0"),
        (lambda: schroedinger_gaussian(1.0, 1.0, -1.0), r"^sigma: expected values > 0"),
    ],
)
def test_refusals(call, match):
    with pytest.raises((ValueError, TypeError), match=match):
        call()
