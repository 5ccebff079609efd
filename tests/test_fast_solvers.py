"""Fast solvers: measured orders on even and uneven grids, quadrature, diffusers step by step, counts, churn, grids."""

import math
from functools import cache, partial
from itertools import pairwise

import numpy as np
import pytest
import torch
from diffusers import (
    DEISMultistepScheduler,
    DPMSolverMultistepScheduler,
    HeunDiscreteScheduler,
    KDPM2DiscreteScheduler,
    UniPCMultistepScheduler,
)
from scipy.optimize import minimize

from coursework import fast_solvers as module
from coursework.ddpm import DiscreteSchedule, ddim_sample, linear_betas
from coursework.distributions import GaussianMixture, exact_score
from coursework.fast_solvers import default_times, dpm_solver, edm_heun, exponential_multistep, fit_times
from coursework.flow_matching import LinearPath
from coursework.predictions import convert, tweedie
from coursework.probability_flow import euler
from coursework.sdes import VESDE, VPSDE, SubVPSDE, uniform_times
from tests.helpers.benchmarks import script
from tests.helpers.chains import linear_moments, noise, orders
from tests.test_probability_flow import COVARIANCE, GAUSSIAN, by_scipy, gaussian_flow

pytestmark = pytest.mark.usefixtures("one_thread")


Table = script("solvers").Table  # DDPM's linear one
SDES = (VPSDE(), VESDE(), SubVPSDE(), LinearPath())
MEANS = torch.tensor([[-1.2, 0.2], [0.9, 0.7], [0.3, -1.0]], dtype=torch.float64)
WEIGHTS = torch.tensor([0.2, 0.5, 0.3], dtype=torch.float64)
LAWS = {"Gaussian": GAUSSIAN, "mixture": GaussianMixture(MEANS, torch.full((3,), 0.16, dtype=torch.float64), WEIGHTS)}


@cache
def scales(sde, t):
    t = torch.tensor(t, dtype=torch.float64)
    return float(sde.alpha(t)), float(sde.sigma(t))


@cache
def precision(alpha, sigma):
    return torch.linalg.inv(alpha**2 * COVARIANCE + sigma**2 * torch.eye(2, dtype=torch.float64))


def quick_score(law, sde):
    """The laws' scores, written out: an order takes thousands of calls."""

    def score(x, t):
        alpha, sigma = scales(sde, float(t))
        if law == "Gaussian":
            return (alpha * GAUSSIAN.mean - x) @ precision(alpha, sigma)
        variance = 0.16 * alpha**2 + sigma**2
        logits = (alpha * x @ MEANS.T - alpha**2 / 2 * MEANS.square().sum(1)) / variance
        return (alpha * torch.softmax(logits + WEIGHTS.log(), 1) @ MEANS - x) / variance

    return score


each_sde = pytest.mark.parametrize("sde", SDES, ids=lambda sde: type(sde).__name__)
each_law = pytest.mark.parametrize("law", LAWS)

MULTISTEP = {
    f"{prediction} {order}{' corrected' * corrector}": partial(
        exponential_multistep, order=order, prediction=prediction, corrector=corrector
    )
    for prediction in ("data", "noise")
    for order in (1, 2, 3)
    for corrector in (False, True)
}
SINGLE = {"dpm 2": partial(dpm_solver, order=2), "dpm 3": partial(dpm_solver, order=3), "heun": edm_heun}
SOLVERS = MULTISTEP | SINGLE
each_solver = pytest.mark.parametrize("name", SOLVERS)
EVEN, UNEVEN = (1.0,), (0.6, 1.7, 0.7)  # the pattern of the steps in lambda


def expected_order(name):
    return 2 if name == "heun" else int(name.split()[1]) + ("corrected" in name)


def lambda_times(sde, n, *, start=None, pattern=EVEN):
    """n steps in lambda down to sigma / alpha = 0.4 that follow a pattern again and again: their ratios stay."""
    start = sde.T if start is None else start
    first = 0.5 * float(sde.log_snr(start))
    steps = torch.tensor([pattern[i % len(pattern)] for i in range(n)], dtype=torch.float64).cumsum(0)
    inner = sde.time_of_log_snr(2 * (first + (-math.log(0.4) - first) * steps / steps[-1]))
    return torch.cat([inner.new_tensor([start]), inner])


@cache
def flow(sde, law, start):
    """40 points at `start` and where the exact flow takes them."""
    density, generator, end = LAWS[law], torch.Generator().manual_seed(5), float(lambda_times(sde, 1)[-1])
    alpha, sigma = scales(sde, start)
    x = density.diffuse(alpha, sigma).sample(40, generator=generator)
    return x, gaussian_flow(sde, x, start, end) if law == "Gaussian" else by_scipy(sde, density, x, start, end)


def errors(solver, sde, law, start, counts, pattern):
    x, exact = flow(sde, law, start)
    grids = [lambda_times(sde, n, start=start, pattern=pattern) for n in counts]
    ends = [solver(quick_score(law, sde), sde, x, times) for times in grids]
    return [float((end - exact).square().mean().sqrt()) for end in ends]


# -- orders ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("law", "pattern"), [("Gaussian", EVEN), ("mixture", UNEVEN)], ids=["even", "uneven"])
@each_sde
@each_solver
def test_order_of_convergence_from_T(sde, law, name, pattern):
    got = errors(SOLVERS[name], sde, law, sde.T, (60, 120), pattern)
    assert got[-1] > 1e-9  # above rounding
    assert orders(got)[0] > expected_order(name) - 0.45


@pytest.mark.parametrize("name", ["data 3", "noise 3"])
def test_from_a_middle_time_the_first_step_limits_the_order_to_2(name):
    got = errors(MULTISTEP[name], VPSDE(), "mixture", 0.5, (80, 160), UNEVEN)
    assert orders(got)[0] == pytest.approx(2, abs=0.3)


def test_the_quick_scores_are_those_of_the_laws():
    x, t = torch.linspace(-2, 2, 10, dtype=torch.float64).reshape(5, 2), torch.tensor(0.4, dtype=torch.float64)
    for name, law in LAWS.items():
        for sde in SDES:
            torch.testing.assert_close(
                quick_score(name, sde)(x, t), exact_score(law, sde)(x, t), rtol=1e-10, atol=1e-12
            )


# -- the formulas ------------------------------------------------------------------------------------------------------


def curved(x, t):
    """A score of no law, nonlinear in x and dependent on t and on all of x."""
    return -x / (0.3 + t) + 0.3 * torch.sin(2 * x.roll(1, -1) + 3 * t)


START = torch.tensor([[1.2, -0.4], [0.3, 0.9], [-2.0, 0.1]], dtype=torch.float64)
GRID = torch.tensor([0.95, 0.8, 0.72, 0.5, 0.41, 0.2], dtype=torch.float64)


def by_quadrature(sde, times, x, order, prediction, corrector):
    """The integrals by Gauss and Legendre, the polynomials by interpolation, the corrector from the state before."""
    alpha, sigma = sde.alpha(times), sde.sigma(times)
    lam = torch.log(alpha / sigma).tolist()
    data = prediction == "data"
    level, other, sign = (sigma, alpha, 1) if data else (alpha, -sigma, -1)
    u, weights = np.polynomial.legendre.leggauss(24)

    def advance(x, i, nodes, values):
        h = lam[i + 1] - lam[i]
        place, width = lam[i] + h / 2 * (u + 1), weights * h / 2
        kernel = np.exp(-sign * (lam[i + 1] - place))
        if data and len(nodes) == 2:
            place = np.full_like(place, lam[i] + h / 2)
        total = torch.zeros_like(x)
        for j, value in enumerate(values):
            others = [node for k, node in enumerate(nodes) if k != j]
            lagrange = np.prod([(place - node) / (nodes[j] - node) for node in others], axis=0)
            total = total + float((width * kernel * lagrange).sum()) * value
        return level[i + 1] / level[i] * x + other[i + 1] * total

    values, before = [], x
    for i, t in enumerate(times[:-1]):
        values.append(convert(curved(x, t), x, alpha[i], sigma[i], source="score", target=prediction))
        if corrector and i:
            q = min(order, i) + 1
            x = advance(before, i - 1, lam[: i + 1][-q:], values[-q:])
        q = min(order, i + 1)
        before, x = x, advance(x, i, lam[: i + 1][-q:], values[-q:])
    return x


@each_sde
@pytest.mark.parametrize("name", MULTISTEP)
def test_multistep_is_the_integral_of_the_interpolating_polynomial(sde, name):
    options = MULTISTEP[name].keywords
    got = MULTISTEP[name](curved, sde, START, GRID)
    torch.testing.assert_close(got, by_quadrature(sde, GRID, START, **options), rtol=1e-10, atol=1e-10)


@each_sde
def test_single_steps_are_the_published_ones(sde):
    """DPM-Solver's algorithms 1 and 2 from t to s, lambda by lambda."""
    t, s = torch.tensor([0.6, 0.45], dtype=torch.float64)
    lam_t, lam_s = 0.5 * sde.log_snr(t), 0.5 * sde.log_snr(s)
    h = lam_s - lam_t

    def at(r):
        time = sde.time_of_log_snr(2 * (lam_t + r * h))
        return time, sde.alpha(time) / sde.alpha(t), sde.sigma(time)

    def e(x, time):
        return -sde.sigma(time) * curved(x, time)

    middle, ratio, sigma = at(0.5)
    u = ratio * START - sigma * torch.expm1(h / 2) * e(START, t)
    expected = sde.alpha(s) / sde.alpha(t) * START - sde.sigma(s) * torch.expm1(h) * e(u, middle)
    times = torch.stack([t, s])
    torch.testing.assert_close(dpm_solver(curved, sde, START, times, order=2), expected, rtol=1e-10, atol=1e-10)

    (s_1, ratio_1, sigma_1), (s_2, ratio_2, sigma_2) = at(1 / 3), at(2 / 3)
    u_1 = ratio_1 * START - sigma_1 * torch.expm1(h / 3) * e(START, t)
    d_1 = e(u_1, s_1) - e(START, t)
    u_2 = ratio_2 * START - sigma_2 * torch.expm1(2 * h / 3) * e(START, t)
    u_2 = u_2 - sigma_2 * 2 * (torch.expm1(2 * h / 3) / (2 * h / 3) - 1) * d_1
    d_2 = e(u_2, s_2) - e(START, t)
    expected = sde.alpha(s) / sde.alpha(t) * START - sde.sigma(s) * torch.expm1(h) * e(START, t)
    expected = expected - sde.sigma(s) * 1.5 * (torch.expm1(h) / h - 1) * d_2
    torch.testing.assert_close(dpm_solver(curved, sde, START, times, order=3), expected, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("name", SOLVERS)
@pytest.mark.parametrize("end", [0.1, 0.0])
@pytest.mark.parametrize("sde", [VPSDE(), LinearPath()], ids=lambda sde: type(sde).__name__)
def test_data_that_is_one_point_is_exact(sde, name, end):
    """x0_hat and noise never change along the flow."""
    point, times = torch.tensor([0.7, -0.2], dtype=torch.float64), torch.tensor([0.95, 0.6, 0.5, 0.2, end]).double()
    alpha, sigma = sde.alpha(times), sde.sigma(times)

    def score(x, t):
        return (sde.alpha(t) * point - x) / sde.sigma(t) ** 2

    e = (START - alpha[0] * point) / sigma[0]
    got = SOLVERS[name](score, sde, START, times)
    torch.testing.assert_close(got, alpha[-1] * point + sigma[-1] * e, rtol=1e-9, atol=1e-9)


@each_solver
def test_what_changes_with_the_schedule_is_the_clock_only(name):
    """At the same sigma / alpha, x / alpha is the same on every SDE; for Euler's method it is not."""
    ends = {SOLVERS[name]: [], euler: []}
    for sde in SDES:
        ratio = torch.tensor([40.0, 9.0, 4.0, 1.5, 0.8, 0.3], dtype=torch.float64)
        times = sde.time_of_log_snr(-2 * ratio.log())
        score = exact_score(LAWS["mixture"], sde)
        for solver, found in ends.items():
            found.append(solver(score, sde, 40 * sde.alpha(times[0]) * START, times) / sde.alpha(times[-1]))
    ours, eulers = ends.values()
    for other in ours[1:]:
        torch.testing.assert_close(other, ours[0], rtol=1e-8, atol=1e-8)
    assert min(float((other - eulers[0]).abs().max()) for other in eulers[1:]) > 0.01


# -- other implementations ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("prediction", ["data", "noise"])
def test_order_1_is_ddim(prediction):
    """On DDPM's table, from its last step down to alpha_bar = 1."""
    sde, schedule = Table(), DiscreteSchedule(linear_betas())
    indices = torch.tensor([999, 700, 650, 333, 100, 20, 0])
    times = torch.cat([(indices + 1).double() / 1000, torch.zeros(1, dtype=torch.float64)])

    def noise_model(x, t):
        t = (t[0] + 1).double() / 1000
        return -sde.sigma(t) * curved(x, t)

    expected = ddim_sample(noise_model, schedule, START, indices=indices)
    got = exponential_multistep(curved, sde, START, times, order=1, prediction=prediction)
    torch.testing.assert_close(got, expected, rtol=1e-9, atol=1e-9)


numpy_2 = pytest.mark.filterwarnings("ignore::DeprecationWarning")  # diffusers still asks NumPy 2 in its old ways


def theirs(scheduler, sde, x, times, *, flow=False):
    """A scheduler of diffusers on our grid: it knows sigma / alpha, or with `flow` sigma of the linear path."""
    alpha, sigma = sde.alpha(times), sde.sigma(times)
    scheduler.set_timesteps(len(times) - 1)
    scheduler.sigmas, scheduler.timesteps = sigma if flow else sigma / alpha, torch.arange(len(times) - 1)
    scheduler.set_begin_index(0)
    for i, t in enumerate(times[:-1]):
        e = -sigma[i] * curved(x, t)
        value = e - (x - sigma[i] * e) / alpha[i] if flow else e
        x = scheduler.step(value, i, x, return_dict=False)[0]
    return x


def flow_options(flow):
    return {"use_flow_sigmas": True, "prediction_type": "flow_prediction"} if flow else {}


@numpy_2
@pytest.mark.parametrize("flow", [False, True], ids=["VP", "linear path"])
@pytest.mark.parametrize("order", [1, 2, 3])
def test_the_corrector_is_unipcs(flow, order):
    scheduler = UniPCMultistepScheduler(
        solver_order=order, solver_type="bh2", lower_order_final=False, **flow_options(flow)
    )
    sde = LinearPath() if flow else VPSDE()
    got = exponential_multistep(curved, sde, START, GRID, order=order, corrector=True)
    torch.testing.assert_close(got, theirs(scheduler, sde, START, GRID, flow=flow), rtol=1e-6, atol=1e-6)


@numpy_2
@pytest.mark.parametrize("flow", [False, True], ids=["VP", "linear path"])
def test_order_2_is_dpm_solver_2m(flow):
    """In float32, as theirs. Their third order is not compared: it halves the quadratic term and has order 2."""
    scheduler = DPMSolverMultistepScheduler(
        solver_order=2, lower_order_final=False, final_sigmas_type="sigma_min", **flow_options(flow)
    )
    sde = LinearPath() if flow else VPSDE()
    got = exponential_multistep(curved, sde, START, GRID, order=2)
    torch.testing.assert_close(got, theirs(scheduler, sde, START, GRID, flow=flow), rtol=0, atol=5e-6)


@numpy_2
@pytest.mark.parametrize("order", [1, 2, 3])
def test_the_noise_prediction_is_deis(order):
    scheduler = DEISMultistepScheduler(solver_order=order, lower_order_final=False)
    got = exponential_multistep(curved, VPSDE(), START, GRID, order=order, prediction="noise")
    torch.testing.assert_close(got, theirs(scheduler, VPSDE(), START, GRID), rtol=1e-9, atol=1e-9)


def in_pairs(scheduler, sde, x, times, middle):
    """Two calls a step, in y = x / alpha; the second one at `middle` (n_steps,)."""
    s = (sde.sigma(times) / sde.alpha(times)).repeat_interleave(2)[1:]
    scheduler.set_timesteps(len(times) - 1)
    scheduler.sigmas, scheduler.timesteps = s, torch.arange(len(s))
    scheduler.set_begin_index(0)
    between = (sde.sigma(middle) / sde.alpha(middle)).repeat_interleave(2)
    scheduler.sigmas_interpol = torch.cat([between, between[-1:]])
    y = x / sde.alpha(times[0])
    for i, t in enumerate(torch.stack([times[:-1], middle], 1).flatten()):
        y = scheduler.step(-sde.sigma(t) * curved(sde.alpha(t) * y, t), i, y, return_dict=False)[0]
    return sde.alpha(times[-1]) * y


@numpy_2
@each_sde
def test_two_calls_a_step_as_in_diffusers(sde):
    lam = 0.5 * sde.log_snr(GRID)
    middle = sde.time_of_log_snr(lam[:-1] + lam[1:])
    expected = in_pairs(KDPM2DiscreteScheduler(), sde, START, GRID, middle)
    torch.testing.assert_close(dpm_solver(curved, sde, START, GRID), expected, rtol=1e-9, atol=1e-9)
    expected = in_pairs(HeunDiscreteScheduler(), sde, START, GRID, GRID[1:])
    torch.testing.assert_close(edm_heun(curved, sde, START, GRID), expected, rtol=1e-9, atol=1e-9)


# -- the last step, calls ----------------------------------------------------------------------------------------------


@each_solver
@pytest.mark.parametrize("sde", [VPSDE(), LinearPath(), Table()], ids=lambda sde: type(sde).__name__)
def test_where_sigma_is_0_the_last_step_returns_x0_hat(sde, name):
    seen, times = [START], torch.cat([GRID, torch.zeros(1, dtype=torch.float64)])
    got = SOLVERS[name](curved, sde, START, times, on_step=lambda i, t, x: seen.append(x))
    t = GRID[-1]
    expected = tweedie(seen[-2], curved(seen[-2], t), sde.alpha(t), sde.sigma(t))
    torch.testing.assert_close(got, expected, rtol=1e-9, atol=1e-9)
    got = SOLVERS[name](curved, sde, START, times[-2:])
    torch.testing.assert_close(got, tweedie(START, curved(START, t), sde.alpha(t), sde.sigma(t)), rtol=1e-9, atol=1e-9)


@each_solver
def test_calls(name):
    a_step = {"dpm 2": 2, "dpm 3": 3, "heun": 2}.get(name, 1)
    for times, n_calls in ((GRID, 5 * a_step), (torch.cat([GRID, torch.zeros(1).double()]), 5 * a_step + 1)):
        asked = []

        def score(x, t, asked=asked):
            asked.append(float(t))
            return curved(x, t)

        SOLVERS[name](score, VPSDE(), START, times)
        assert len(asked) == n_calls
        assert asked[::a_step][:5] == GRID[:-1].tolist()
        assert min(asked) >= float(GRID[-1])


# -- inputs at the edge ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("gap", [1e-4, 1e-8, 1e-14])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@each_solver
def test_times_that_all_but_coincide_change_little(name, gap, dtype):
    """A slope between two of them would be rounding errors, or the corrector's jump, over nothing."""
    sde, times = VPSDE(), lambda_times(VPSDE(), 20)
    twice = torch.cat([times[:9], times[8:9] - gap, times[9:]])
    x, score = START.to(dtype), exact_score(LAWS["mixture"], sde)
    got, expected = (SOLVERS[name](score, sde, x, grid) for grid in (twice, times))
    assert float((got - expected).abs().max()) < 0.02


@pytest.mark.parametrize("prediction", ["data", "noise"])
@pytest.mark.parametrize("share", [0.009, 0.011])
def test_the_order_grows_anew_after_a_step_below_one_hundredth_of_the_next(share, prediction):
    """The rest of the run is one that starts there."""
    sde, seen = VPSDE(), []
    lam = torch.tensor([-1.0, -0.6, -0.2, -0.2 + 0.5 * share, 0.3 + 0.5 * share, 0.9, 1.4], dtype=torch.float64)
    times = sde.time_of_log_snr(2 * lam)
    run = partial(exponential_multistep, curved, sde, order=3, prediction=prediction)
    got = run(START, times, on_step=lambda i, t, x: seen.append(x))
    assert (float((got - run(seen[2], times[3:])).abs().max()) < 1e-9) == (share < 0.01)


class ByNumbers(VESDE):
    """alpha as one number, whatever the shape of t."""

    def alpha(self, t):
        return 1.0


@each_solver
def test_an_sde_may_say_a_constant_as_one_number(name):
    ve, numbers = VESDE(), ByNumbers()
    times = torch.cat([default_times(numbers, 5), torch.zeros(1, dtype=torch.float64)])
    expected = SOLVERS[name](curved, ve, START, torch.cat([default_times(ve, 5), torch.zeros(1, dtype=torch.float64)]))
    torch.testing.assert_close(SOLVERS[name](curved, numbers, START, times), expected, rtol=1e-12, atol=1e-12)


@each_solver
def test_half_precision_where_the_square_of_sigma_overflows(name):
    """300^2 is beyond float16."""
    sde = VESDE(0.01, 300.0)
    x = 300 * torch.randn(200, 2, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    score, times = exact_score(LAWS["Gaussian"], sde), default_times(sde, 20)
    got, exact = (SOLVERS[name](score, sde, x.to(dtype), times).double() for dtype in (torch.float16, torch.float64))
    assert float((got - exact).abs().median()) < 5e-3


# -- churn -------------------------------------------------------------------------------------------------------------


def tame(sde):
    """A nonlinear score of the size that a law of variance 1 has at any sigma."""

    def score(x, t):
        alpha, sigma = sde.alpha(t), sde.sigma(t)
        return -(x + 0.3 * torch.sin(2 * x.roll(1, -1) + 3 * t)) / (alpha**2 + sigma**2)

    return score


def textbook(score, sde, x, times, draws, churn, s_min, s_max, s_noise):
    """Karras et al. 2022, algorithm 2, in y = x / alpha and s = sigma / alpha; s_hat at most that of T."""
    s = (sde.sigma(times) / sde.alpha(times)).tolist()
    y, n = x / sde.alpha(times[0]), len(times) - 1

    def denoised(y, s):
        t = sde.time_of_log_snr(-2 * math.log(s))
        return tweedie(sde.alpha(t) * y, score(sde.alpha(t) * y, t), sde.alpha(t), sde.sigma(t))

    for i in range(n):
        gamma = min(churn / n, math.sqrt(2) - 1) if s_min <= s[i] <= s_max else 0.0
        s_hat = min(s[i] * (1 + gamma), float(sde.sigma(sde.T) / sde.alpha(sde.T)))
        if s_hat > s[i] * (1 + 1e-9):
            y = y + math.sqrt(s_hat**2 - s[i] ** 2) * s_noise * next(draws)
        d = (y - denoised(y, s_hat)) / s_hat
        ahead = y + (s[i + 1] - s_hat) * d
        if s[i + 1] > 0:
            d = (d + (ahead - denoised(ahead, s[i + 1])) / s[i + 1]) / 2
        y = y + (s[i + 1] - s_hat) * d
    return sde.alpha(times[-1]) * y


@pytest.mark.parametrize(
    ("churn", "s_min", "s_max", "s_noise"),
    [(1.0, 0.0, math.inf, 1.0), (1.0, 0.5, 30.0, 1.007), (40.0, 0.0, math.inf, 0.9), (0.0, 0.0, 1.0, 1.0)],
)
@pytest.mark.parametrize("sde", [VPSDE(), VESDE(), SubVPSDE()], ids=lambda sde: type(sde).__name__)
def test_churn_is_the_published_algorithm(sde, churn, s_min, s_max, s_noise, generator, monkeypatch):
    times = torch.tensor([1.0, 0.97, 0.8, 0.5, 0.3, 0.0], dtype=torch.float64)
    draws = torch.randn(5, 3, 2, generator=generator, dtype=torch.float64)
    expected = textbook(tame(sde), sde, START, times, iter(draws), churn, s_min, s_max, s_noise)
    with noise(monkeypatch, module, lambda i, x: draws[i]):
        got = edm_heun(tame(sde), sde, START, times, churn=churn, s_min=s_min, s_max=s_max, s_noise=s_noise)
    torch.testing.assert_close(got, expected, rtol=1e-9, atol=1e-9)


def test_churn_asks_the_score_at_the_lifted_time():
    sde, asked = VPSDE(), []
    times = torch.tensor([0.9, 0.6, 0.3], dtype=torch.float64)

    def score(x, t):
        asked.append(float(sde.sigma(t) / sde.alpha(t)))
        return curved(x, t)

    edm_heun(score, sde, START, times, churn=0.5, generator=torch.Generator())
    s = (sde.sigma(times) / sde.alpha(times)).tolist()
    assert asked == pytest.approx([1.25 * s[0], s[1], 1.25 * s[1], s[2]], rel=1e-9)


def test_churn_keeps_a_gaussian(monkeypatch):
    """Exact mean and variance at the end: the error falls as n^-2; noise 10% too strong is 15% too much variance."""
    sde, mean, variance = VPSDE(), 0.7, 0.3
    law = GaussianMixture(torch.tensor([[mean]]).double(), torch.tensor([variance], dtype=torch.float64))
    first, last = (law.diffuse(sde.alpha(t), sde.sigma(t)) for t in (0.9, 0.05))

    def moments(n, s_noise=1.0):
        times = lambda_times_between(sde, 0.9, 0.05, n)

        def run(x):
            return edm_heun(exact_score(law, sde), sde, x, times, churn=20.0, s_noise=s_noise)

        return linear_moments(run, float(first.mean), float(first.covariance), n, monkeypatch, module)

    (mean_50, variance_50), (mean_100, variance_100) = moments(50), moments(100)
    exact = float(last.covariance)
    assert [mean_50, mean_100] == pytest.approx([float(last.mean)] * 2, rel=1e-9)
    assert orders([variance_50 - exact, variance_100 - exact])[0] == pytest.approx(2, abs=0.3)
    assert variance_100 == pytest.approx(exact, rel=1e-2)
    assert moments(100, 1.1)[1] > 1.15 * exact


def lambda_times_between(sde, start, end, n):
    ends = [float(sde.log_snr(t)) for t in (start, end)]
    inner = sde.time_of_log_snr(torch.linspace(*ends, n + 1, dtype=torch.float64)[1:-1])
    return torch.cat([inner.new_tensor([start]), inner, inner.new_tensor([end])])


# -- the door ----------------------------------------------------------------------------------------------------------


class ToTheEnd(LinearPath):
    T = 1.0


def test_true_of_any_kind():
    got = (exponential_multistep(curved, VPSDE(), START, GRID, corrector=yes) for yes in (True, np.True_))
    assert torch.equal(*got)


def test_refusals():
    sde, times = VPSDE(), uniform_times(VPSDE(), 4)

    def refuses(match, solver, kind=ValueError, sde=sde, times=times, **options):
        with pytest.raises(kind, match=match):
            solver(curved, sde, START, times, **options)

    refuses(r"^order: expected 1, 2 or 3, got 4$", exponential_multistep, order=4)
    refuses(r"^order: expected at least 1, got 0$", exponential_multistep, order=0)
    refuses(r"^order: expected an integer, got float$", exponential_multistep, TypeError, order=2.0)
    for corrector in ("no", 2, -1, None, 0.5):
        match = rf"^corrector: expected True or False, got {corrector!r}$"
        refuses(match, exponential_multistep, TypeError, corrector=corrector)
    refuses(r"^prediction: expected one of 'data', 'noise', got 'score'$", exponential_multistep, prediction="score")
    refuses(r"^order: expected at least 2, got 1$", dpm_solver, order=1)
    refuses(r"^order: expected 2 or 3, got 4$", dpm_solver, order=4)
    for name in ("churn", "s_min", "s_noise"):
        refuses(rf"^{name}: expected a number >= 0, got -1$", edm_heun, **{name: -1.0})
        refuses(rf"^{name}: expected a finite number, got nan$", edm_heun, **{name: math.nan})
    refuses(r"^s_max: expected at least s_min = 2, got 1$", edm_heun, s_min=2.0, s_max=1.0)
    refuses(r"^s_max: expected at least s_min = 0, got nan$", edm_heun, s_max=math.nan)
    refuses(r"^generator: expected a torch.Generator or None, got int$", edm_heun, TypeError, generator=3)
    for solver in (exponential_multistep, dpm_solver, edm_heun):
        refuses(r"^times: expected a finite log-SNR", solver, sde=ToTheEnd(), times=times)
    with pytest.raises(ValueError, match=r"^n_steps: expected at least 1, got 0$"):
        default_times(sde, 0)


# -- default_times -----------------------------------------------------------------------------------------------------


@each_sde
@pytest.mark.parametrize("n", [1, 2, 9, 39, 500])
def test_default_times_are_their_formula(sde, n):
    times = default_times(sde, n)
    assert (times.shape, times.dtype, float(times[0])) == ((n + 1,), torch.float64, sde.T)
    assert (times.diff() < 0).all()
    least = math.exp(-0.5 * float(sde.log_snr(sde.t_min)))
    ratio = (sde.sigma(times) / sde.alpha(times)).tolist()
    assert ratio[-1] == pytest.approx(max(1 / (2 * n), least), rel=1e-6)
    assert float(times[-1]) >= sde.t_min
    angles = [math.atan((-math.log(r) - 0.5) / 4) for r in ratio]
    assert angles == pytest.approx(np.linspace(angles[0], angles[-1], n + 1).tolist(), abs=1e-6)


def test_default_times_of_little_noise_end_at_half_of_it():
    sde = VPSDE(0.1, 0.1)
    times = default_times(sde, 1)
    ratio = sde.sigma(times) / sde.alpha(times)
    assert float(ratio[1]) == pytest.approx(float(ratio[0]) / 2, rel=1e-9)


def ring(generator):
    angles = torch.arange(8, dtype=torch.float64) * math.pi / 4
    means = 1.4 * torch.stack([angles.cos(), angles.sin()], 1)
    weights = 0.1 + torch.rand(8, generator=generator, dtype=torch.float64)
    return GaussianMixture(means, torch.full((8,), 0.15**2, dtype=torch.float64), weights)


def cluster(generator):
    means = torch.randn(10, 64, generator=generator, dtype=torch.float64)
    return GaussianMixture(means, (0.1 + 0.3 * torch.rand(10, generator=generator, dtype=torch.float64)) ** 2)


BEST = partial(exponential_multistep, order=3, corrector=True)
# Root mean square errors of the best of 25 solvers of other libraries with 10, 20 and 40 calls.
PEERS = {ring: (0.067, 0.0187, 0.00185), cluster: (0.048, 0.0059, 0.00112)}


def denoised(score, sde, x, times):
    """BEST, and x0_hat at the last time."""
    x, t = BEST(score, sde, x, times), times[-1]
    return tweedie(x, score(x, t), sde.alpha(t), sde.sigma(t))


def error(got, exact):
    """Root mean square over the 99% of points with the least error."""
    squares = (got - exact).square().mean(1).sort().values
    return float(squares[: math.ceil(0.99 * len(squares))].mean().sqrt())


@cache
def at_the_data(make):
    """A law, its score, points at T and where the flow takes them."""
    sde, generator = Table(), torch.Generator().manual_seed(11)
    law = make(generator)
    score = exact_score(law, sde)
    x = law.diffuse(*scales(sde, 1.0)).sample(1024, generator=generator)
    fine = sde.time_of_log_snr(torch.linspace(float(sde.log_snr(1.0)), -2 * math.log(1e-3), 251).double()[1:])
    return score, sde, x, denoised(score, sde, x, torch.cat([fine.new_tensor([1.0]), fine]))


@pytest.mark.parametrize("make", PEERS)
def test_default_times_are_as_good_as_the_best_peer(make):
    score, sde, x, exact = at_the_data(make)
    for n_calls, peer in zip((10, 20, 40), PEERS[make], strict=True):
        assert error(denoised(score, sde, x, default_times(sde, n_calls - 1)), exact) < peer


# -- fit_times ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("make", PEERS)
def test_fitted_times_halve_the_error_of_the_best_peer(make):
    """On other points of the law than those of the fit."""
    score, sde, x, exact = at_the_data(make)
    pilot, reports = x[:512], []
    times = fit_times(BEST, score, sde, pilot, 9, on_round=lambda *report: reports.append(report))
    assert error(denoised(score, sde, x[512:], times), exact[512:]) < PEERS[make][0] / 2
    assert all(after[2] <= before[2] for before, after in pairwise(reports))
    assert reports[-1][2] == pytest.approx(error(denoised(score, sde, pilot, times), exact[:512]), rel=0.02)
    assert torch.equal(reports[-1][1], times)


def gaussian_end(sde, x):
    """Where the flow takes x at T as sigma tends to 0."""
    values, vectors = torch.linalg.eigh(COVARIANCE)
    alpha, sigma = scales(sde, sde.T)
    z = (x - alpha * GAUSSIAN.mean) @ vectors / torch.sqrt(alpha**2 * values + sigma**2)
    return GAUSSIAN.mean + z * values.sqrt() @ vectors.T


@each_sde
@pytest.mark.parametrize("denoise", [True, False])
def test_errors_are_those_to_the_flows_end_and_calls_are_counted(sde, denoise):
    x = GAUSSIAN.diffuse(*scales(sde, sde.T)).sample(100, generator=torch.Generator().manual_seed(3))
    score, calls, reports = quick_score("Gaussian", sde), [], []

    def counted(x, t):
        calls.append(float(t))
        return score(x, t)

    def on_round(n_calls, times, rms):
        reports.append((n_calls, len(calls), float(times[-1])))
        got = denoised(score, sde, x, times) if denoise else BEST(score, sde, x, times)
        assert rms == pytest.approx(error(got, gaussian_end(sde, x)), rel=2e-3, abs=2e-5)

    times = fit_times(BEST, counted, sde, x, 4, denoise=denoise, n_rounds=2, on_round=on_round)
    assert [n for n, _, _ in reports] == [n for _, n, _ in reports]
    assert len(reports) in (2, 3)
    assert reports[1][0] - reports[0][0] >= 5 * (4 + denoise)  # four knots and a step
    assert (times.shape, times.dtype, float(times[0])) == ((5,), torch.float64, sde.T)
    assert (times.diff() < 0).all()
    assert min(calls) >= sde.t_min
    assert reports[-1][2] == float(times[-1])


@each_sde
def test_an_exact_solver_is_told_no_error_wherever_the_reference_ends(sde):
    """Down to sigma / alpha = 0.05 only, the rest is extrapolated: x0_hat is a series in its square."""
    x = GAUSSIAN.diffuse(*scales(sde, sde.T)).sample(50, generator=torch.Generator().manual_seed(3))
    reports = []
    fit_times(
        lambda score, sde, x, times: gaussian_end(sde, x),
        quick_score("Gaussian", sde),
        sde,
        x,
        2,
        denoise=False,
        t_min=float(sde.time_of_log_snr(torch.tensor(-2 * math.log(0.05), dtype=torch.float64))),
        n_rounds=1,
        on_round=lambda n_calls, times, rms: reports.append(rms),
    )
    assert max(reports) < 1e-3


def test_fitted_times_are_the_least_error_that_a_search_finds():
    """Two steps, by Nelder and Mead's method on a law whose flow is closed."""
    sde = VPSDE()
    x = GAUSSIAN.diffuse(*scales(sde, 1.0)).sample(100, generator=torch.Generator().manual_seed(3))
    score, exact = quick_score("Gaussian", sde), gaussian_end(sde, x)

    def rms(lam):
        lam = torch.as_tensor(lam)
        if not float(0.5 * sde.log_snr(1.0)) < float(lam[0]) < float(lam[1]) < float(0.5 * sde.log_snr(sde.t_min)):
            return 1e3
        times = torch.cat([torch.ones(1).double(), sde.time_of_log_snr(2 * lam)])
        return error(denoised(score, sde, x, times), exact)

    least = minimize(rms, (0.5 * sde.log_snr(default_times(sde, 2)))[1:].numpy(), method="Nelder-Mead").fun
    times = fit_times(BEST, score, sde, x, 2, n_rounds=30)
    assert error(denoised(score, sde, x, times), exact) == pytest.approx(least, rel=0.02)


def test_a_fit_refuses():
    sde, x = VPSDE(), torch.ones(3, 2, dtype=torch.float64)

    def refuses(match, kind=ValueError, solver=BEST, x=x, n_steps=2, sde=sde, **options):
        with pytest.raises(kind, match=match):
            fit_times(solver, curved, sde, x, n_steps, **options)

    refuses(r"^x: expected at least one point", x=x[:0])
    refuses(r"^x: expected float32 or float64, .* got torch.float16$", TypeError, x=x.half())
    refuses(r"^solver: expected a function, got str$", TypeError, solver="heun")
    diverges = lambda score, sde, x, times: x * math.nan  # noqa: E731
    refuses(r"^solver: its end on the first grid, default_times, is not finite$", FloatingPointError, solver=diverges)
    for value, match in (
        (lambda x: x[:1], r"shape \(3, 2\) like x, got \(1, 2\)$"),
        (lambda x: x.float(), "dtype torch.float64 like x"),
    ):
        refuses(f"^solver's value: expected {match}", solver=lambda score, sde, x, times, value=value: value(x))
    for value in (lambda x: (x, x), lambda x: None, lambda x: x.numpy()):
        wrong = lambda score, sde, x, times, value=value: value(x)  # noqa: E731
        refuses(r"^solver's value: expected a torch.Tensor, got", TypeError, solver=wrong)
    refuses(r"^on_round: expected a function or None, got int$", TypeError, on_round=3)
    refuses(r"^n_steps: expected at least 1, got 0$", n_steps=0)
    refuses(r"^n_rounds: expected at least 1, got 0$", n_rounds=0)
    refuses(r"^t_min: expected 0 <= t_min < 1.0, got 1.0$", t_min=1.0)
    refuses(r"^t_min: expected a time with a finite log-SNR, got 0.0$", t_min=0.0)
    refuses(r"^T: expected a time with a finite log-SNR, got 1.0$", sde=ToTheEnd())
