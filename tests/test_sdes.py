"""Coefficients, kernels, drifts and time grids against identities, quadrature and the Fokker-Planck equation."""

import math

import numpy as np
import pytest
import torch
from scipy.integrate import quad, solve_ivp
from torch.distributions import Independent, Normal
from torch.func import jacrev, vmap

from coursework.distributions import GaussianMixture, exact_score
from coursework.probability_flow import heun
from coursework.sdes import SDE, VESDE, VPSDE, SubVPSDE, karras_times, log_snr_times, uniform_times
from tests.helpers.laws import points, random_mixture

pytestmark = pytest.mark.usefixtures("one_thread")


class OrnsteinUhlenbeck(SDE):
    """dx = -x dt + sqrt(2) dw up to T = 3, as a reader of the course would write it."""

    T = 3.0

    def alpha(self, t):
        return torch.exp(-torch.as_tensor(t, dtype=torch.float64))

    def sigma(self, t):
        return torch.sqrt(-torch.expm1(-2 * torch.as_tensor(t, dtype=torch.float64)))

    def drift_coefficient(self, t):
        return -torch.ones_like(torch.as_tensor(t, dtype=torch.float64))

    def diffusion(self, t):
        return torch.full_like(torch.as_tensor(t, dtype=torch.float64), math.sqrt(2))


SDES = (VPSDE(), VESDE(), SubVPSDE(), OrnsteinUhlenbeck(), VPSDE(0.3, 7.0), VESDE(0.1, 5.0), SubVPSDE(0.3, 7.0))
GRIDS = (uniform_times, log_snr_times, karras_times)
each_sde = pytest.mark.parametrize("sde", SDES, ids=lambda sde: type(sde).__name__)
each_grid = pytest.mark.parametrize("grid", GRIDS)


def times_of(sde, n=40):
    return torch.linspace(0.001, sde.T, n, dtype=torch.float64)


def derivative(fn, t):
    """d fn / dt at each t, by autograd."""
    t = t.clone().requires_grad_()
    return torch.autograd.grad(fn(t).sum(), t, materialize_grads=True, allow_unused=True)[0]


# -- coefficients ------------------------------------------------------------------------------------------------------


@each_sde
def test_alpha_and_sigma_solve_the_moment_equations(sde):
    t = times_of(sde)
    f, g, alpha, sigma = sde.drift_coefficient(t), sde.diffusion(t), sde.alpha(t), sde.sigma(t)
    torch.testing.assert_close(derivative(lambda t: sde.alpha(t) + 0 * t, t), f * alpha, rtol=1e-10, atol=1e-12)
    expected = 2 * f * sigma**2 + g**2
    torch.testing.assert_close(derivative(lambda t: sde.sigma(t) ** 2, t), expected, rtol=1e-10, atol=1e-12)


@each_sde
def test_at_time_zero_there_is_only_data(sde):
    assert float(sde.alpha(0.0)) == 1
    assert float(sde.sigma(0.0)) == pytest.approx(getattr(sde, "sigma_min", 0.0), rel=1e-15)


@pytest.mark.parametrize("t", [1e-3, 0.05, 0.1, 0.5, 1.0])
def test_vp_and_sub_vp_equal_quadrature_of_beta(t):
    def beta(u):
        return 0.1 + 19.9 * u

    integral = quad(beta, 0, t, epsabs=1e-14)[0]
    for sde in (VPSDE(), SubVPSDE()):
        assert float(sde.beta(t)) == pytest.approx(beta(t), rel=1e-14)
        assert float(sde.integrated_beta(t)) == pytest.approx(integral, rel=1e-12)
        assert float(sde.alpha(t)) == pytest.approx(math.exp(-integral / 2), rel=1e-12)
        assert float(sde.drift_coefficient(t)) == pytest.approx(-beta(t) / 2, rel=1e-14)
    assert float(VPSDE().diffusion(t)) == pytest.approx(math.sqrt(beta(t)), rel=1e-14)
    # variance by v' = -beta v + g^2, from 0
    for sde, g2 in (
        (VPSDE(), beta),
        (SubVPSDE(), lambda u: beta(u) * (1 - math.exp(-2 * (0.1 * u + 9.95 * u**2)))),
    ):
        path = solve_ivp(lambda u, v, g2=g2: -beta(u) * v + g2(u), (0, t), [0.0], rtol=1e-10, atol=1e-13)
        assert float(sde.sigma(t)) ** 2 == pytest.approx(path.y[0, -1], rel=1e-6)


@pytest.mark.parametrize("t", [1e-5, 0.1, 0.5, 1.0])
def test_ve_equals_its_geometric_schedule_and_the_integral_of_its_noise(t):
    sde = VESDE()
    assert float(sde.sigma(t)) == pytest.approx(0.01 * 5000**t, rel=1e-12)
    g2 = quad(lambda u: 2 * math.log(5000) * (0.01 * 5000**u) ** 2, 0, t, epsabs=0, epsrel=1e-12)[0]
    assert float(sde.sigma(t)) ** 2 == pytest.approx(0.01**2 + g2, rel=1e-10)
    assert float(sde.alpha(t)) == 1
    assert float(sde.drift_coefficient(t)) == 0


def test_vp_ends_where_the_published_table_says():
    alpha_bar = VPSDE().alpha(torch.tensor([0.1, 0.5, 1.0]).double()) ** 2
    expected = torch.tensor([0.89628, 0.079064, 4.319e-5]).double()
    torch.testing.assert_close(alpha_bar, expected, rtol=1e-4, atol=0)
    # the product of 1 - beta_i over the 1000 steps of DDPM is close to it and not equal
    discrete = torch.cumprod(1 - torch.linspace(1e-4, 0.02, 1000).double(), 0)[[99, 499, 999]]
    expected = torch.tensor([0.89702, 0.078587, 4.036e-5]).double()
    torch.testing.assert_close(discrete, expected, rtol=1e-4, atol=0)
    torch.testing.assert_close(alpha_bar, discrete, rtol=0.08, atol=0)


def test_vp_preserves_variance_and_sub_vp_stays_below():
    t = times_of(VPSDE(), 200)
    vp, sub_vp = VPSDE(), SubVPSDE()
    torch.testing.assert_close(vp.alpha(t) ** 2 + vp.sigma(t) ** 2, torch.ones_like(t))
    assert (sub_vp.sigma(t) < vp.sigma(t)).all()
    torch.testing.assert_close(sub_vp.sigma(t), vp.sigma(t) ** 2)  # its standard deviation is VP's variance


@pytest.mark.parametrize("sde", SDES[:3], ids=lambda sde: type(sde).__name__)
def test_float32_times_lose_no_more_than_rounding_even_near_the_data(sde):
    t = torch.logspace(-6, 0, 30, dtype=torch.float32)
    for fn in (sde.alpha, sde.sigma, sde.drift_coefficient, sde.diffusion):
        assert fn(t).dtype == torch.float32
        torch.testing.assert_close(fn(t).double(), fn(t.double()), rtol=4e-6, atol=0)


@pytest.mark.parametrize("sde", SDES[:3], ids=lambda sde: type(sde).__name__)
def test_numbers_0d_and_batches_of_times_agree(sde):
    t = torch.tensor([0.2, 0.7], dtype=torch.float64)
    for fn in (sde.alpha, sde.sigma, sde.drift_coefficient, sde.diffusion, sde.log_snr):
        for i, number in enumerate(t.tolist()):
            assert float(fn(number)) == pytest.approx(float(fn(t)[i]), rel=1e-13)
            assert float(fn(t[i])) == pytest.approx(float(fn(t)[i]), rel=1e-13)
        assert fn(t[0]).shape == ()


@each_sde
def test_euler_maruyama_paths_have_the_kernels_mean_and_variance(sde, generator):
    n_steps, n_paths, end, x0 = 250, 20_000, 0.3, 1.5
    dt = end / n_steps
    x = torch.full((n_paths, 1), x0, dtype=torch.float64)
    # VE's law at time 0 already has the variance sigma_min^2: the paths start from there, or they would end without it
    x = x + sde.sigma(0.0) * torch.randn(x.shape, generator=generator, dtype=torch.float64)
    mean, variance = x0, float(sde.sigma(0.0)) ** 2  # of the scheme itself, exactly
    for i in range(n_steps):
        t = i * dt
        noise = torch.randn(x.shape, generator=generator, dtype=torch.float64)
        x = x + sde.drift(x, t) * dt + sde.diffusion(t) * dt**0.5 * noise
        f, g = float(sde.drift_coefficient(t)), float(sde.diffusion(t))
        mean, variance = (1 + f * dt) * mean, (1 + f * dt) ** 2 * variance + g**2 * dt
    # the scheme is first order: within 2% of the kernel at this step
    assert mean == pytest.approx(float(sde.alpha(end)) * x0, rel=0.02)
    assert variance == pytest.approx(float(sde.sigma(end)) ** 2, rel=0.02)
    # and the paths follow the scheme up to 4 standard errors
    assert abs(float(x.mean()) - mean) < 4 * math.sqrt(variance / n_paths)
    assert abs(float(x.var()) - variance) < 4 * variance * math.sqrt(2 / n_paths)


# -- log-SNR -----------------------------------------------------------------------------------------------------------


@each_sde
def test_log_snr_is_that_of_alpha_and_sigma_and_decreases(sde):
    t = times_of(sde)
    expected = torch.log(sde.alpha(t) ** 2 / sde.sigma(t) ** 2)
    torch.testing.assert_close(sde.log_snr(t), expected, rtol=1e-10, atol=1e-10)
    assert (sde.log_snr(t).diff() < 0).all()


@each_sde
def test_time_of_log_snr_inverts_log_snr(sde):
    t = times_of(sde)
    torch.testing.assert_close(sde.time_of_log_snr(sde.log_snr(t)), t, rtol=0, atol=1e-10)
    assert float(sde.time_of_log_snr(float(sde.log_snr(sde.T)))) == pytest.approx(sde.T, abs=1e-10)
    float32 = sde.time_of_log_snr(sde.log_snr(t).float())
    assert float32.dtype == torch.float32
    torch.testing.assert_close(float32.double(), t, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("sigma_min", [0.01, 0.02, 0.03, 0.04, 0.05])
def test_time_of_log_snr_takes_ends_that_float32_rounded_outwards(sigma_min):
    sde, ends = VESDE(sigma_min, 7.0), torch.tensor([0.0, 1.0])
    result = sde.time_of_log_snr(sde.log_snr(ends.double()).float())
    torch.testing.assert_close(result, ends, rtol=0, atol=1e-6)


def test_time_of_log_snr_equals_the_closed_forms():
    log_snr = torch.linspace(-5, 5, 21).double()
    b = torch.nn.functional.softplus(-log_snr)  # alpha^2 = sigmoid(log_snr) = exp(-B)
    vp = (-0.1 + torch.sqrt(0.01 + 2 * 19.9 * b)) / 19.9
    torch.testing.assert_close(VPSDE().time_of_log_snr(log_snr), vp, rtol=0, atol=1e-12)
    ve = (-log_snr / 2 - math.log(0.01)) / math.log(5000)
    torch.testing.assert_close(VESDE().time_of_log_snr(log_snr), ve, rtol=0, atol=1e-12)
    torch.testing.assert_close(OrnsteinUhlenbeck().time_of_log_snr(log_snr), b / 2, rtol=0, atol=1e-12)


@each_sde
def test_time_of_log_snr_refuses_what_no_time_has(sde):
    end = float(sde.log_snr(sde.T))
    with pytest.raises(ValueError, match=rf"^log_snr: expected values in \[{end:.6g}, .*\], got {end - 0.01:.6g}$"):
        sde.time_of_log_snr(end - 0.01)
    with pytest.raises(ValueError, match=rf"\], got {end - 1:.6g} to {end + 1:.6g}$"):
        sde.time_of_log_snr(torch.tensor([end - 1, end + 1], dtype=torch.float64))
    with pytest.raises(ValueError, match=r"^log_snr: expected values in \["):
        sde.time_of_log_snr(float("nan"))
    with pytest.raises(TypeError, match=r"^log_snr: expected a floating-point tensor"):
        sde.time_of_log_snr(torch.tensor([1]))
    if hasattr(sde, "sigma_min"):
        with pytest.raises(ValueError, match=r"^log_snr: expected values in \["):
            sde.time_of_log_snr(torch.tensor([0.0, float(sde.log_snr(0.0)) + 0.01]))


# -- kernel ------------------------------------------------------------------------------------------------------------


@each_sde
@pytest.mark.parametrize("shape", [(5, 3), (3, 3), (4, 2, 3, 3)])
def test_perturb_and_kernel_score_point_by_point(sde, shape):
    x0, noise = points(math.prod(shape), 2).T.reshape(2, *shape)
    t = torch.linspace(0.1, sde.T, shape[0]).double()
    x_t = sde.perturb(x0, t, noise)
    for i in range(shape[0]):
        alpha, sigma = float(sde.alpha(t[i])), float(sde.sigma(t[i]))
        torch.testing.assert_close(x_t[i], alpha * x0[i] + sigma * noise[i])
        leaf = x_t[i].clone().requires_grad_()
        (score,) = torch.autograd.grad(Normal(alpha * x0[i], sigma).log_prob(leaf).sum(), leaf)
        torch.testing.assert_close(sde.kernel_score(x_t, x0, t)[i], score)
        torch.testing.assert_close(sde.kernel_score(x_t[i : i + 1], x0[i : i + 1], t[i])[0], score)
    assert sde.perturb(x0.float(), t, noise.float()).dtype == torch.float32


@each_sde
def test_perturbed_data_follow_the_exact_noisy_law(sde, generator):
    mixture, n = random_mixture("full", n_dims=2), 20_000
    x0, t = mixture.sample(n, generator=generator), 0.4
    x_t = sde.perturb(x0, t, torch.randn(n, 2, generator=generator, dtype=torch.float64))
    law = mixture.diffuse(sde.alpha(t), sde.sigma(t))
    assert ((x_t.mean(0) - law.mean).abs() / (x_t.std(0) / n**0.5)).max() < 4
    products = (x_t - law.mean)[:, :, None] * (x_t - law.mean)[:, None, :]
    assert ((products.mean(0) - law.covariance).abs() / (products.std(0) / n**0.5)).max() < 4


# -- drifts ------------------------------------------------------------------------------------------------------------


@each_sde
@pytest.mark.parametrize("t", [0.05, 0.3, 0.9])
def test_drifts_solve_the_fokker_planck_equation(sde, t):
    """On an exact mixture in the plane, with s = grad log p, div s = trace of its Jacobian.

    d/dt log p = -(div f + f.s) + g^2/2 (div s + |s|^2) forwards; the same with -g^2/2 and the reverse drift, because
    time runs backwards there; and without the last term for the probability flow.
    """
    mixture, x = random_mixture("full", n_dims=2), points(6, 2)
    t = torch.tensor(t, dtype=torch.float64)
    score = exact_score(mixture, sde)
    rate = jacrev(lambda t: mixture._diffuse(sde.alpha(t), sde.sigma(t)).log_prob(x))(t)

    def transport(drift):
        divergence = vmap(jacrev(lambda point: drift(point[None])[0]))(x).diagonal(dim1=1, dim2=2).sum(1)
        return -(divergence + (drift(x) * score(x, t)).sum(1))

    s = score(x, t)
    divergence = vmap(jacrev(lambda point: score(point[None], t)[0]))(x).diagonal(dim1=1, dim2=2).sum(1)
    diffusion = 0.5 * sde.diffusion(t) ** 2 * (divergence + (s**2).sum(1))
    forward = transport(lambda x: sde.drift(x, t)) + diffusion
    backward = transport(lambda x: sde.reverse_drift(x, t, score(x, t))) - diffusion
    flow = transport(lambda x: sde.probability_flow(x, t, score(x, t)))
    for result in (forward, backward, flow):
        torch.testing.assert_close(result, rate, rtol=1e-8, atol=1e-8)


@each_sde
@pytest.mark.parametrize("shape", [(5, 3), (3, 3), (4, 2, 3, 3)])
def test_drifts_take_a_time_for_each_point(sde, shape):
    x, s = points(math.prod(shape), 2).T.reshape(2, *shape)
    t = torch.linspace(0.1, sde.T, shape[0]).double()
    f, g = sde.drift_coefficient(t), sde.diffusion(t)
    for i in range(shape[0]):
        torch.testing.assert_close(sde.drift(x, t)[i], f[i] * x[i])
        torch.testing.assert_close(sde.reverse_drift(x, t, s)[i], f[i] * x[i] - g[i] ** 2 * s[i])
        torch.testing.assert_close(sde.probability_flow(x, t, s)[i], f[i] * x[i] - g[i] ** 2 * s[i] / 2)


def test_a_reverse_step_of_ve_from_far_away_moves_towards_the_data():
    sde, x = VESDE(), torch.tensor([[30.0, -40.0]]).double()
    s = exact_score(random_mixture("full", n_dims=2), sde)(x, 0.8)
    step = sde.reverse_drift(x, 0.8, s) * -0.01
    assert float((step * x).sum()) < 0


@each_sde
def test_values_that_do_not_match_x_are_refused(sde):
    x, t = torch.zeros(5, 3), 0.5
    for call in (sde.reverse_drift, sde.probability_flow):
        with pytest.raises(ValueError, match=r"^score_value: expected shape \(5, 3\) like x, got \(5, 1\)"):
            call(x, t, torch.zeros(5, 1))
        with pytest.raises(ValueError, match=r"^score_value: expected dtype torch.float32 like x"):
            call(x, t, torch.zeros(5, 3).double())
        with pytest.raises(ValueError, match=r"^t: expected a number or shape \(5,\) like the batch, got \(3,\)"):
            call(x, torch.full((3,), 0.5), x)
    with pytest.raises(ValueError, match=r"^noise: expected shape \(5, 3\) like x0, got \(3,\)"):
        sde.perturb(x, t, torch.zeros(3))
    with pytest.raises(ValueError, match=r"^x0: expected shape \(5, 3\) like x_t, got \(1, 3\)"):
        sde.kernel_score(x, torch.zeros(1, 3), t)
    with pytest.raises(ValueError, match=r"^t: expected a number or shape \(5,\)"):
        sde.perturb(x, torch.full((5, 1), 0.5), x)


@pytest.mark.parametrize("sde", SDES[:3], ids=lambda sde: type(sde).__name__)
def test_integer_times_are_refused(sde):
    with pytest.raises(TypeError, match=r"^t: expected a floating-point tensor, got torch.int64"):
        sde.alpha(torch.tensor([0, 1]))


# -- prior -------------------------------------------------------------------------------------------------------------


@each_sde
@pytest.mark.parametrize("shape", [(5, 3), (4, 2, 3, 3)])
def test_prior_log_prob_equals_torch_distributions(sde, shape):
    std = {VPSDE: 1.0, SubVPSDE: 1.0, VESDE: getattr(sde, "sigma_max", 0)}.get(type(sde), math.sqrt(-math.expm1(-6)))
    assert sde.prior_std == pytest.approx(std, rel=1e-12)
    x = std * points(math.prod(shape), 1).reshape(shape)
    zero = torch.zeros(shape[1:], dtype=torch.float64)
    expected = Independent(Normal(zero, std), len(shape) - 1).log_prob(x)
    torch.testing.assert_close(sde.prior_log_prob(x), expected, rtol=1e-12, atol=1e-12)


@each_sde
def test_prior_samples_have_the_priors_standard_deviation(sde, generator):
    n = 40_000
    x = sde.prior_sample((n // 4, 4), generator=generator, dtype=torch.float64)
    assert x.dtype == torch.float64
    assert abs(float(x.mean())) < 4 * sde.prior_std / n**0.5
    assert abs(float((x**2).mean()) / sde.prior_std**2 - 1) < 4 * (2 / n) ** 0.5
    assert sde.prior_sample((2, 3), device="meta").device.type == "meta"


@pytest.mark.parametrize("sde", SDES[:4], ids=lambda sde: type(sde).__name__)
def test_a_law_of_unit_variance_ends_with_the_priors_variance(sde):
    assert float(sde.alpha(sde.T) ** 2 + sde.sigma(sde.T) ** 2) == pytest.approx(sde.prior_std**2, rel=3e-3)


@pytest.mark.parametrize("sde", [VPSDE(), VESDE()], ids=lambda sde: type(sde).__name__)
def test_another_prior_can_be_set_for_one_sde(sde):
    sde.prior_std = 1.7
    x = points(6, 2)
    expected = Normal(0 * x, 1.7).log_prob(x).sum(1)
    torch.testing.assert_close(sde.prior_log_prob(x), expected, rtol=1e-12, atol=1e-12)
    with pytest.raises(ValueError, match=r"^prior_std: expected values > 0, got -1"):
        sde.prior_std = -1.0
    assert type(sde)().prior_std != 1.7


def test_prior_log_prob_refuses_and_takes_an_empty_batch():
    assert VPSDE().prior_log_prob(torch.zeros(0, 3)).shape == (0,)
    with pytest.raises(ValueError, match=r"^x: expected a batch of shape \(B, ...\), got \(3,\)"):
        VPSDE().prior_log_prob(torch.zeros(3))
    with pytest.raises(ValueError, match=r"^x: has NaN"):
        VPSDE().prior_log_prob(torch.full((5, 3), math.nan))


# -- time grids --------------------------------------------------------------------------------------------------------


@each_sde
@each_grid
@pytest.mark.parametrize("n_steps", [1, 2, 37, 500])
@pytest.mark.parametrize("t_min", [None, 0.02])
def test_grids_are_strictly_decreasing_and_their_ends_exact(sde, grid, n_steps, t_min):
    times = grid(sde, n_steps, t_min=t_min)
    assert times.shape == (n_steps + 1,)
    assert times.dtype == torch.float64
    assert float(times[0]) == sde.T
    assert float(times[-1]) == (sde.t_min if t_min is None else t_min)
    assert (times.diff() < 0).all()


@each_sde
def test_grids_are_uniform_in_the_variable_that_they_name(sde):
    def spacing_error(values):
        steps = values.diff()
        return float((steps - steps.mean()).abs().max() / steps.mean().abs())

    assert spacing_error(uniform_times(sde, 20)) < 1e-12
    assert spacing_error(sde.log_snr(log_snr_times(sde, 20))) < 1e-8
    for rho in (7.0, 3.0):
        times = karras_times(sde, 20, rho=rho)
        assert spacing_error((sde.sigma(times) / sde.alpha(times)) ** (1 / rho)) < 1e-8


def test_karras_grid_on_ve_is_the_published_one():
    sde, n = VESDE(0.002, 80.0), 18
    i = torch.arange(n).double()
    sigmas = (80 ** (1 / 7) + i / (n - 1) * (0.002 ** (1 / 7) - 80 ** (1 / 7))) ** 7
    torch.testing.assert_close(sde.sigma(karras_times(sde, n - 1, t_min=0.0)), sigmas, rtol=1e-9, atol=0)


def test_where_grids_stop_near_the_data():
    assert (VPSDE().t_min, SubVPSDE().t_min, VESDE().t_min) == (1e-3, 1e-3, 1e-5)
    assert VPSDE().T == SubVPSDE().T == VESDE().T == 1.0
    assert float(uniform_times(VPSDE(), 3, t_min=0.0)[-1]) == 0


@each_grid
def test_grids_refuse(grid):
    sde = VPSDE()
    with pytest.raises(ValueError, match=r"^n_steps: expected at least 1, got 0"):
        grid(sde, 0)
    with pytest.raises(TypeError, match=r"^n_steps: expected an integer, got float"):
        grid(sde, 10.0)
    for t_min in (-0.1, 1.0, 1.5, math.nan):
        with pytest.raises(ValueError, match=r"^t_min: expected 0 <= t_min < 1.0"):
            grid(sde, 10, t_min=t_min)


@pytest.mark.parametrize("grid", [log_snr_times, karras_times])
def test_grids_in_log_snr_refuse_a_time_without_noise(grid):
    with pytest.raises(ValueError, match=r"^t_min: the log-SNR is infinite at t = 0.0; .* 0.001"):
        grid(VPSDE(), 10, t_min=0.0)
    assert float(grid(VESDE(), 10, t_min=0.0)[-1]) == 0


@pytest.mark.parametrize("rho", [0.0, -1.0, math.inf, math.nan])
def test_karras_times_refuses_rho(rho):
    with pytest.raises(ValueError, match=r"^rho: expected (values > 0|a finite number), got"):
        karras_times(VPSDE(), 10, rho=rho)


@pytest.mark.parametrize("cls", [VPSDE, SubVPSDE])
@pytest.mark.parametrize("betas", [(0.0, 1.0), (2.0, 1.0), (-1.0, 1.0), (0.1, math.inf), (math.nan, 1.0)])
def test_vp_refuses_rates(cls, betas):
    with pytest.raises(ValueError, match=r"^beta_min, beta_max: expected 0 < beta_min <= beta_max"):
        cls(*betas)


def test_a_constant_rate_is_allowed():
    assert float(VPSDE(2.0, 2.0).alpha(0.5)) == pytest.approx(math.exp(-0.5), rel=1e-15)


@pytest.mark.parametrize("sigmas", [(0.0, 1.0), (1.0, 1.0), (2.0, 1.0), (0.1, math.inf), (0.1, math.nan)])
def test_ve_refuses_noise_levels(sigmas):
    with pytest.raises(ValueError, match=r"^sigma_min, sigma_max: expected 0 < sigma_min < sigma_max"):
        VESDE(*sigmas)


def test_an_sde_without_coefficients_says_what_is_missing():
    for name in ("alpha", "sigma", "drift_coefficient", "diffusion"):
        with pytest.raises(NotImplementedError, match=name):
            getattr(SDE(), name)(0.5)


# -- times -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("sde", [VPSDE(), VESDE(), SubVPSDE()], ids=lambda s: type(s).__name__)
@pytest.mark.parametrize("wrong", [-1e-6, -0.1, 1.0001, 2.0, 500.0, math.nan, math.inf, torch.tensor([0.5, 1.5])])
def test_times_outside_the_interval_are_refused(sde, wrong):
    for coefficient in (sde.alpha, sde.sigma, sde.drift_coefficient, sde.diffusion, sde.log_snr):
        with pytest.raises(ValueError, match=r"^t: expected values in \[0, 1.0\], got"):
            coefficient(wrong)


def test_rounding_does_not_put_the_last_time_outside():
    class Short(VPSDE):
        T = 0.98

    for dtype in (torch.float64, torch.float32, torch.float16, torch.bfloat16):
        assert float(Short().sigma(torch.tensor(0.98, dtype=dtype))) == pytest.approx(
            float(Short().sigma(0.98)), rel=0.02
        )


def test_where_there_is_no_noise_there_is_no_kernel_score():
    x = torch.ones(3, 2)
    for sde in (VPSDE(), SubVPSDE()):
        with pytest.raises(ValueError, match=r"^t: the score is asked where sigma is 0"):
            sde.kernel_score(x, x, torch.tensor([0.5, 0.0, 0.5]))
        torch.testing.assert_close(sde.perturb(x, 0.0, x), x)
    assert float(VESDE().kernel_score(x + 0.01, x, 0.0)[0, 0]) == pytest.approx(-0.01 / 0.01**2, rel=1e-4)


@pytest.mark.parametrize("t", ["0.5", None, True, [0.5], torch.tensor(1), torch.tensor(0.5 + 0j)])
def test_what_is_no_time_is_refused(t):
    with pytest.raises(TypeError, match=r"^t: expected a"):
        VPSDE().alpha(t)


def test_times_and_mixtures_made_under_inference_mode_serve_outside():
    with torch.inference_mode():
        times, law = karras_times(VPSDE(), 5), GaussianMixture(torch.zeros(1, 2).double(), torch.ones(1).double())
        noised = law.diffuse(0.5, 0.5)
    x = torch.ones(3, 2, dtype=torch.float64, requires_grad=True)
    (gradient,) = torch.autograd.grad(heun(lambda x, t: -x * t, VPSDE(), x, times).sum(), x)
    assert float(gradient.abs().min()) > 0
    torch.testing.assert_close(torch.autograd.grad(noised.score(x).sum(), x)[0], torch.full((3, 2), -2.0).double())


def test_a_time_that_its_owner_changes_behind_torchs_back_is_looked_at_again():
    values = np.full(3, 0.5, np.float32)
    t = torch.from_numpy(values)
    VPSDE().alpha(t)
    values[:] = 500
    with pytest.raises(ValueError, match=r"^t: expected values in"):
        VPSDE().alpha(t)


def test_a_float32_grid_of_an_sde_whose_end_is_no_float32():
    class Short(VPSDE):
        T = 0.999

    x = heun(lambda x, t: -x, Short(), torch.ones(2, 3), uniform_times(Short(), 3).float())
    torch.testing.assert_close(x, heun(lambda x, t: -x, Short(), torch.ones(2, 3), uniform_times(Short(), 3)))
