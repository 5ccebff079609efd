"""Preconditioning from its definition, one loss in four languages, laws of the time against quadrature."""

import math

import pytest
import torch
from scipy import integrate
from scipy.stats import truncnorm

from coursework.distributions import GaussianMixture, exact_score
from coursework.preconditioning import (
    SCHEMES,
    Preconditioned,
    TimedDenoiser,
    TimeLaw,
    as_score_model,
    best_linear,
    edm_coefficients,
    importance_law,
    log_normal_law,
    log_snr_law,
    loss_weight,
    low_discrepancy,
    uncertainty_loss,
)
from coursework.predictions import PREDICTIONS, convert
from coursework.probability_flow import heun
from coursework.score_matching import denoising_objective
from coursework.sdes import VESDE, VPSDE, SubVPSDE, log_snr_times
from tests.helpers.laws import Cosine, points, random_mixture

pytestmark = pytest.mark.usefixtures("one_thread")


def doubles(*values):
    return torch.tensor(values, dtype=torch.float64)


SDES = {"vp": VPSDE(), "ve": VESDE(0.01, 20.0), "sub-vp": SubVPSDE(), "cosine": Cosine()}
each_sde = pytest.mark.parametrize("name", SDES)
SIGMAS = doubles(1e-3, 0.02, 0.3, 0.5, 1.7, 9.0, 80.0)


def close(got, expected, tolerance=1e-10):
    torch.testing.assert_close(got, expected, rtol=tolerance, atol=tolerance)


# -- preconditioning ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("sigma_data", [0.5, 1.0, 2.3])
def test_input_and_target_have_unit_variance_and_the_output_scale_is_least(sigma_data):
    c_skip, c_out, c_in, c_noise = edm_coefficients(SIGMAS, sigma_data)
    data, noise = sigma_data**2, SIGMAS**2
    one = torch.ones_like(SIGMAS)
    close(c_in**2 * (data + noise), one)
    target = ((1 - c_skip) ** 2 * data + c_skip**2 * noise) / c_out**2  # (x_0 - c_skip (x_0 + sigma noise)) / c_out
    close(target, one)
    for change in (-0.01, 0.01):
        other = c_skip + change
        assert bool(((1 - other) ** 2 * data + other**2 * noise > c_out**2).all())
    close(c_noise, SIGMAS.log() / 4)
    weight = loss_weight(one, SIGMAS, prediction="data", scheme="edm", sigma_data=sigma_data)
    close(weight * c_out**2, one)


def test_unit_variance_of_what_the_network_really_gets(generator):
    x0 = 0.7 * torch.randn(40_000, 3, generator=generator, dtype=torch.float64)
    noise = torch.randn(x0.shape, generator=generator, dtype=torch.float64)
    for sigma in (0.05, 0.7, 6.0):
        seen = []
        model = Preconditioned(lambda x, c, seen=seen: (seen.append((x, c)), 0 * x)[1], 0.7)
        x = x0 + sigma * noise
        skipped = model(x, sigma)
        [(scaled, c_noise)] = seen
        target = (x0 - skipped) / edm_coefficients(sigma, 0.7)[1]
        for value in (scaled, target):
            assert abs(float(value.square().mean()) - 1) < 4 * math.sqrt(2 / value.numel())
        assert float(c_noise) == pytest.approx(math.log(sigma) / 4, abs=1e-15)
        assert c_noise.shape == ()


def test_a_denoiser_is_put_together_point_by_point(generator):
    def network(x, c_noise, label=None):
        return torch.tanh(x) + c_noise[:, None, None] + (0.0 if label is None else label[:, None, None].to(x))

    x = torch.randn(4, 3, 2, generator=generator, dtype=torch.float64)
    sigma, label = doubles(0.1, 0.4, 2.0, 30.0), torch.tensor([0, 3, -1, 2])
    model = Preconditioned(network, 0.6)
    for labels in (None, label):
        got = model(x, sigma) if labels is None else model(x, sigma, labels)
        for i in range(4):
            total = float(sigma[i]) ** 2 + 0.36
            value = torch.tanh(x[i] / total**0.5) + math.log(sigma[i]) / 4 + (0 if labels is None else int(label[i]))
            close(got[i], 0.36 / total * x[i] + float(sigma[i]) * 0.6 / total**0.5 * value)


def test_the_best_linear_network_in_closed_form():
    sigma_data = 0.5
    for v in (0.01, 0.25, 3.0):
        variance = torch.full_like(SIGMAS, v)
        slope, loss = best_linear(variance, SIGMAS, sigma_data)
        c_skip, c_out, c_in, _ = edm_coefficients(SIGMAS, sigma_data)

        def measured(slope, v=v, c=(c_skip, c_out, c_in)):
            """E[(D - x_0)^2] / c_out^2 of D = (c_skip + c_out slope c_in) x, by hand."""
            gain = c[0] + c[1] * slope * c[2]
            return ((1 - gain) ** 2 * v + gain**2 * SIGMAS**2) / c[1] ** 2

        close(measured(slope), loss)
        assert bool((measured(slope + 0.01) > loss).all()), "it is the minimum"
        assert bool((measured(slope - 0.01) > loss).all())
        close(loss, v * (SIGMAS**2 + 0.25) / (0.25 * (v + SIGMAS**2)))
        close(c_skip + c_out * slope * c_in, v / (v + SIGMAS**2))
        if v == 0.25:
            close(slope, torch.zeros_like(SIGMAS))
            close(loss, torch.ones_like(SIGMAS))


@each_sde
def test_a_perfect_denoiser_is_the_exact_score_of_any_sde(name):
    """F made from the exact denoiser of a mixture: D(x, sigma) = x + sigma^2 grad log (p * N(0, sigma^2))(x)."""
    sde, law = SDES[name], random_mixture("full", 3, 3)

    def network(z, c_noise):
        sigma = torch.exp(4 * c_noise)
        c_skip, c_out, c_in, _ = (c[:, None] for c in edm_coefficients(sigma, 0.8))
        x = z / c_in
        denoised = x + sigma[:, None] ** 2 * law.diffuse(torch.ones_like(sigma), sigma).score(x)
        return (denoised - c_skip * x) / c_out

    model, exact = as_score_model(Preconditioned(network, 0.8), sde), exact_score(law, sde)
    x, t = points(5, 3), doubles(0.05, 0.2, 0.5, 0.8, 0.95) * sde.T
    torch.testing.assert_close(model(x, t), exact(x, t), rtol=1e-7, atol=1e-8)
    expected = convert(exact(x, t), x, sde.alpha(t), sde.sigma(t), source="score", target="data")
    torch.testing.assert_close(model.predict(x, t, "data"), expected, rtol=1e-7, atol=1e-8)


def test_a_preconditioned_network_of_nothing_solves_the_gaussian(generator):
    """With F = 0 the denoiser is exact for N(0, sigma_data^2): the flow of T ends at that law."""
    sde = VPSDE()
    model = as_score_model(Preconditioned(lambda x, c: 0 * x, 0.5), sde)
    z = torch.randn(3, 2, generator=generator, dtype=torch.float64)
    law = GaussianMixture(torch.zeros(1, 2).double(), doubles(0.25))
    t = torch.tensor(0.4, dtype=torch.float64)
    close(model(z, t), exact_score(law, sde)(z, t), 1e-9)
    first, last = (float(0.25 * sde.alpha(t) ** 2 + sde.sigma(t) ** 2) for t in (1.0, sde.t_min))
    got = heun(model, sde, z, log_snr_times(sde, 100))
    torch.testing.assert_close(got, (last / first) ** 0.5 * z, rtol=2e-3, atol=1e-5)


# -- weights -----------------------------------------------------------------------------------------------------------


@each_sde
@pytest.mark.parametrize("scheme", SCHEMES)
def test_one_scheme_is_one_loss_in_every_language(name, scheme, generator):
    sde = SDES[name]
    t = doubles(0.02, 0.3, 0.6, 0.97) * sde.T
    alpha, sigma = sde.alpha(t), sde.sigma(t)
    x0, noise, guess = (torch.randn(4, 3, generator=generator, dtype=torch.float64) for _ in range(3))
    x_t = sde.perturb(x0, t, noise)
    losses = []
    for prediction in PREDICTIONS:
        mine = convert(guess, x_t, alpha, sigma, source="noise", target=prediction)
        truth = convert(noise, x_t, alpha, sigma, source="noise", target=prediction)
        weight = loss_weight(alpha, sigma, prediction=prediction, scheme=scheme, gamma=2.0, sigma_data=0.7)
        losses.append(weight * (mine - truth).square().sum(1))
    for loss in losses[1:]:
        close(loss / losses[0], torch.ones(4).double())
    own = {"noise": "noise", "data": "data", "velocity": "velocity"}
    if scheme in own:
        close(loss_weight(alpha, sigma, prediction=own[scheme], scheme=scheme), torch.ones(4).double())


def test_the_published_weights():
    sde, t = VPSDE(), torch.linspace(0.01, 1, 7).double()
    alpha, sigma = sde.alpha(t), sde.sigma(t)
    snr, most = alpha**2 / sigma**2, torch.full((7,), 5.0).double()
    for prediction, expected in (
        ("data", torch.minimum(snr, most)),
        ("noise", torch.minimum(snr, most) / snr),
        ("velocity", torch.minimum(snr, most) / (snr + 1)),
    ):
        close(loss_weight(alpha, sigma, prediction=prediction, scheme="min-snr"), expected)
    ratio = sigma / alpha
    expected = (ratio**2 + 0.25) / (0.5 * ratio) ** 2  # Karras et al. 2022, table 1
    close(loss_weight(alpha, sigma, prediction="data", scheme="edm") / expected, torch.ones(7).double())


@each_sde
def test_the_likelihood_scheme_per_unit_of_t_is_half_g_squared_on_the_score(name):
    sde = SDES[name]
    t = (doubles(0.1, 0.4, 0.7, 0.9) * sde.T).requires_grad_()
    (slope,) = torch.autograd.grad(sde.log_snr(t).sum(), t)
    weight = loss_weight(sde.alpha(t), sde.sigma(t), prediction="score", scheme="likelihood").detach()
    close(-slope * weight, sde.diffusion(t.detach()) ** 2 / 2, 1e-8)


def test_numbers_and_tensors_mix_as_said():
    batch = torch.tensor([0.5, 2.0])
    for alpha, sigma in ((1.0, batch), (torch.ones(2), batch), (torch.tensor(1.0), batch)):
        got = loss_weight(alpha, sigma, prediction="score", scheme="noise")
        assert (got.dtype, got.tolist()) == (torch.float32, [0.25, 4.0])
    assert loss_weight(1, 2, prediction="score", scheme="noise").dtype == torch.float64
    assert loss_weight(1, 2, prediction="score", scheme="noise").item() == 4.0
    assert edm_coefficients(3, 4.0)[2].item() == pytest.approx(0.2, abs=1e-15)


# -- uncertainty -------------------------------------------------------------------------------------------------------


def test_the_best_uncertainty_is_the_logarithm_of_the_mean_loss():
    losses = doubles(0.3, 1.1, 4.0, 0.2, 2.0, 0.9)
    level = torch.tensor([0, 0, 0, 1, 1, 1])
    means = torch.stack([losses[level == k].mean() for k in (0, 1)])
    best = means.log()
    value = uncertainty_loss(losses, best[level])
    close(value, (1 + best).mean())
    u = best.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(uncertainty_loss(losses, u[level]), u)
    close(gradient, torch.zeros(2).double(), 1e-12)
    for change in (torch.tensor([0.1, 0.0]), torch.tensor([0.0, -0.1])):
        assert float(uncertainty_loss(losses, (best + change)[level])) > float(value)
    scaled = losses.clone().requires_grad_()
    (weights,) = torch.autograd.grad(uncertainty_loss(scaled, best[level]), scaled)
    close(weights, 1 / means[level] / 6)


# -- laws of the time --------------------------------------------------------------------------------------------------


def test_low_discrepancy_numbers_are_uniform_each_and_even_together(generator):
    draws = torch.stack([low_discrepancy(8, generator=generator) for _ in range(4000)])
    cells = (8 * draws).floor().sort(1).values
    assert torch.equal(cells, torch.arange(8.0).double().expand(4000, 8)), "one in every eighth"
    for column in draws.T:
        assert abs(float(column.mean()) - 0.5) < 4 / math.sqrt(12 * 4000)
        assert abs(float(column.square().mean()) - 1 / 3) < 4 * math.sqrt(4 / 45 / 4000)
    spread = float((draws**2).mean(1).var())  # (f(1) - f(0))^2 / (12 n^2), to leading order
    assert spread == pytest.approx(1 / (12 * 64), rel=0.08)


def test_a_time_law_is_its_density_and_its_distribution():
    edges, shares = (
        doubles(0.1, 0.2, 0.5, 1.0),
        doubles(1.0, 3.0, 4.0),
    )
    law = TimeLaw(edges, shares)
    close(
        law.times(doubles(0.0, 1 / 16, 1 / 8, 5 / 16, 1 / 2, 3 / 4, 1.0)),
        doubles(0.1, 0.15, 0.2, 0.35, 0.5, 0.75, 1.0),
    )
    middle = doubles(0.15, 0.35, 0.75)
    close(law.density(middle), doubles(1.25, 1.25, 1.0))
    close((law.density(middle) * edges.diff()).sum(), torch.tensor(1.0, dtype=torch.float64))
    # E[weight f] under the law is the mean of f over uniform t
    close(
        (law.weight(middle) * law.density(middle) * edges.diff() * middle**2).sum(),
        (middle**2 * edges.diff()).sum() / 0.9,
    )
    close(TimeLaw(edges).density(middle), 1 / (3 * edges.diff()))
    assert float(law.times(torch.tensor(1.0))) <= 1.0


@each_sde
def test_log_normal_law_against_scipy(name):
    sde = SDES[name]
    law = log_normal_law(sde, mean=-1.0, std=0.8)
    low, high = (float(-0.5 * sde.log_snr(t)) for t in (sde.t_min, sde.T))
    exact = truncnorm((max(low, -5.8) + 1) / 0.8, (min(high, 3.8) + 1) / 0.8, loc=-1.0, scale=0.8)
    u = (torch.arange(4096).double() + 0.5) / 4096
    ratios = -0.5 * sde.log_snr(law.times(u))
    torch.testing.assert_close(ratios, torch.from_numpy(exact.ppf(u.numpy())), rtol=0, atol=2e-3)
    assert float(ratios.mean()) == pytest.approx(exact.mean(), abs=1e-4)
    assert float(ratios.var()) == pytest.approx(exact.var(), rel=1e-3)
    t = sde.time_of_log_snr(doubles(3.0, 2.0, 0.5))
    jacobian = sde.diffusion(t) ** 2 / sde.sigma(t) ** 2 / 2  # d ln(sigma / alpha) / dt
    density = torch.from_numpy(exact.pdf((-0.5 * sde.log_snr(t)).numpy())) * jacobian
    torch.testing.assert_close(law.density(t), density, rtol=1e-2, atol=0)


@each_sde
def test_log_snr_law_has_the_likelihoods_weight_as_its_density(name):
    sde = SDES[name]
    law = log_snr_law(sde, n_cells=16)
    assert (float(law.edges[0]), float(law.edges[-1])) == pytest.approx((sde.t_min, sde.T), rel=1e-12)

    def weight(t):
        t = torch.tensor(t, dtype=torch.float64)
        return float(sde.diffusion(t) ** 2 / sde.sigma(t) ** 2)

    parts = [
        integrate.quad(weight, float(a), float(b), epsabs=0, epsrel=1e-11)[0]
        for a, b in zip(law.edges[3:7], law.edges[4:8], strict=True)
    ]
    total = float(sde.log_snr(sde.t_min) - sde.log_snr(sde.T))
    torch.testing.assert_close(doubles(*parts) / total, law.probabilities[3:7], rtol=1e-9, atol=0)


def test_likelihood_training_by_importance_has_the_same_mean_and_less_variance(generator):
    """E over uniform t of g^2/2 |s + noise/sigma|^2 = E over the law of weight(t) times that, which is nearly flat."""
    sde, law = VPSDE(), log_snr_law(VPSDE())
    model = exact_score(GaussianMixture(torch.zeros(1, 2).double(), doubles(0.5)), sde)
    n = 40_000
    x0 = 0.5**0.5 * torch.randn(n, 2, generator=generator, dtype=torch.float64)
    noise, u = (f(n, *s, generator=generator, dtype=torch.float64) for f, s in ((torch.randn, (2,)), (torch.rand, ())))

    def losses(t):
        error = model(sde.perturb(x0, t, noise), t) + noise / sde.sigma(t)[:, None]
        return sde.diffusion(t) ** 2 / 2 * error.square().sum(1)

    plain, t = losses(sde.t_min + (sde.T - sde.t_min) * u), law.times(u)
    weighted = law.weight(t) * losses(t)

    def exact(t):  # E |s + noise/sigma|^2 = D (1 / sigma^2 - 1 / variance)
        t = torch.tensor(t, dtype=torch.float64)
        v = 0.5 * sde.alpha(t) ** 2 + sde.sigma(t) ** 2
        return float(sde.diffusion(t) ** 2 * (1 / sde.sigma(t) ** 2 - 1 / v))

    mean = integrate.quad(exact, sde.t_min, sde.T, limit=200)[0] / (sde.T - sde.t_min)
    for values in (plain, weighted):
        assert abs(float(values.mean()) - mean) < 4 * float(values.std()) / math.sqrt(n)
    assert float(weighted.var()) < 0.3 * float(plain.var())
    objective = denoising_objective(model, sde, x0, weighting="noise", times=t, noise=noise)
    total = float(sde.log_snr(sde.t_min) - sde.log_snr(sde.T)) / (sde.T - sde.t_min)
    assert float(objective) * total == pytest.approx(float(weighted.mean()), rel=1e-2)


def test_importance_law_has_the_least_second_moment():
    edges = doubles(0.0, 0.1, 0.4, 1.0)
    weights, moments = (
        doubles(3.0, 1.0, 0.5),
        doubles(0.25, 4.0, 1.0),
    )
    law, widths = importance_law(edges, weights, moments), edges.diff()

    def second_moment(p):
        """E[(lambda L / p)^2] for a density p on each cell."""
        return (weights**2 * moments / p * widths).sum()

    p = law.density((edges[1:] + edges[:-1]) / 2)
    close(second_moment(p), (weights * moments.sqrt() * widths).sum() ** 2)
    for i, j in ((0, 1), (1, 2), (2, 0)):
        moved = p.clone()
        moved[i] += 0.01 / widths[i]
        moved[j] -= 0.01 / widths[j]
        assert float(second_moment(moved)) > float(second_moment(p))


@pytest.mark.needs("gpu")
def test_on_the_gpu():
    law, u = log_normal_law(VPSDE()), torch.linspace(0.01, 0.99, 9, dtype=torch.float64)
    close(law.times(u.cuda()).cpu(), law.times(u))
    close(law.density(law.times(u).cuda()).cpu(), law.density(law.times(u)))
    model = as_score_model(Preconditioned(lambda x, c: torch.tanh(x) * c[:, None], 0.5), VPSDE())
    x = points(9, 2)
    close(model(x.cuda(), u.cuda()).cpu(), model(x, u))


# -- refusals ----------------------------------------------------------------------------------------------------------

ONE = torch.ones(2)


@pytest.mark.parametrize(
    ("call", "match"),
    [
        (lambda: edm_coefficients(0.0, 0.5), r"^sigma: expected values > 0, got 0"),
        (lambda: edm_coefficients(1.0, -0.5), r"^sigma_data: expected values > 0, got -0.5"),
        (lambda: Preconditioned(lambda x, c: x, math.nan), r"^sigma_data: expected a finite number"),
        (lambda: Preconditioned(lambda x, c: x, 0.5)(torch.ones(3, 2), torch.ones(2)), r"^sigma: expected a number or"),
        (
            lambda: Preconditioned(lambda x, c: x[:, :1], 0.5)(torch.ones(3, 2), 1.0),
            r"^network's value: expected",
        ),
        (lambda: TimedDenoiser(lambda x, s: x, VPSDE())(torch.ones(3, 2), 1.5), r"^t: expected values in \[0, 1.0\]"),
        (lambda: loss_weight(ONE, ONE, prediction="epsilon", scheme="edm"), r"^prediction: expected one of 'score'"),
        (lambda: loss_weight(ONE, ONE, prediction="data", scheme="snr"), r"^scheme: expected one of 'noise', 'data'"),
        (lambda: loss_weight(0.0, 1.0, prediction="data", scheme="edm"), r"^alpha: expected values > 0"),
        (lambda: loss_weight(ONE, torch.ones(3), prediction="data", scheme="edm"), r"^sigma: expected shape \(2,\)"),
        (lambda: loss_weight(ONE, ONE, prediction="data", scheme="edm", gamma=0.0), r"^gamma: expected values > 0"),
        (lambda: uncertainty_loss(torch.ones(0), torch.ones(0)), r"^losses: expected shape \(B,\) of at least one"),
        (lambda: uncertainty_loss(ONE, torch.ones(2, 1)), r"^uncertainty: expected shape \(2,\) like losses"),
        (lambda: low_discrepancy(0), r"^n: expected at least 1"),
        (lambda: TimeLaw(torch.tensor([0.0, 0.5, 0.5])), r"^edges: expected strictly increasing"),
        (lambda: TimeLaw(torch.tensor([0.0])), r"^edges: expected shape \(K \+ 1,\)"),
        (lambda: TimeLaw(torch.tensor([0.0, 1.0]), torch.tensor([0.0])), r"^probabilities: expected values > 0"),
        (lambda: TimeLaw(torch.tensor([0.0, 1.0]), ONE), r"^probabilities: expected shape \(1,\), got \(2,\)"),
        (lambda: TimeLaw(torch.tensor([0.0, 1.0])).times(torch.tensor([1.5])), r"^u: expected values in \[0, 1\]"),
        (lambda: log_normal_law(VPSDE(), mean=90.0), r"^mean: a log-normal law of mean 90 .* has nothing"),
        (lambda: log_normal_law(VPSDE(), std=0.0), r"^std: expected values > 0"),
        (lambda: log_snr_law(VPSDE(), t_min=0.0), r"^t_min: the log-SNR is infinite"),
        (lambda: importance_law(torch.tensor([0.0, 1.0]), ONE, ONE), r"^weights: expected one value for each cell"),
    ],
)
def test_refusals(call, match):
    with pytest.raises(ValueError, match=match):
        call()
