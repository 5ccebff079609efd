"""Flow maps on Gaussians, where they are exact: identities to rounding, and each loss at its exact minimiser."""

import pytest
import torch

from coursework.distributions import GaussianMixture, exact_score
from coursework.fast_solvers import exponential_multistep
from coursework.flow_maps import (
    Consistency,
    VelocityMap,
    angle_times,
    consistency_loss,
    distribution_matching_gradient,
    gaussian_flow_map,
    map_of,
    meanflow_loss,
    progressive_target,
    restart,
    sample_with_map,
    shortcut_loss,
)
from coursework.flow_matching import CosinePath, LinearPath, exact_velocity, flow_matching_loss, rates
from coursework.predictions import convert
from coursework.sdes import VESDE, VPSDE, karras_times
from tests.helpers.laws import points, random_mixture

pytestmark = [
    pytest.mark.usefixtures("one_thread"),
    pytest.mark.filterwarnings(
        "ignore:`torch.jit.script`:FutureWarning"
    ),  # of the first product that torch.func.jvp makes
]

PATHS = {"linear": LinearPath(), "cosine": CosinePath(), "vp": VPSDE(), "ve": VESDE(0.01, 5.0)}
each_path = pytest.mark.parametrize("path", PATHS.values(), ids=PATHS)
MEAN = torch.tensor([0.5, -1.0, 2.0], dtype=torch.float64)
VARIANCE = torch.tensor([0.25, 1.0, 2.0], dtype=torch.float64)
LAW = GaussianMixture(MEAN[None], VARIANCE[None])
V = 0.25  # of the one-dimensional law N(0, V)


def close(got, expected, tolerance=1e-12):
    torch.testing.assert_close(torch.as_tensor(got), torch.as_tensor(expected), rtol=tolerance, atol=tolerance)


def time(t):
    return torch.tensor(t, dtype=torch.float64)


def whitened(n=64, seed=3):
    """Data and noise whose second moments are exactly V, 1 and 0: what is quadratic in them has its expectation."""
    z = torch.randn(n, 2, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    z = z - z.mean(0)
    z = z @ torch.linalg.inv(torch.linalg.cholesky(z.T @ z / n)).T
    return V**0.5 * z[:, :1], z[:, 1:]


def spread(path, t):
    """The standard deviation of x_t for data N(0, V)."""
    return (path.alpha(t) ** 2 * V + path.sigma(t) ** 2).sqrt()


def average(path):
    """The exact average velocity for data N(0, V)."""

    def w(x, t, s):
        t, s = t.reshape(-1, 1), s.reshape(-1, 1)
        return x * (1 - spread(path, s) / spread(path, t)) / (t - s)

    return w


# -- maps ------------------------------------------------------------------------------------------------------------


@each_path
def test_the_three_identities(path):
    flow, v, x = gaussian_flow_map(MEAN, VARIANCE, path), exact_velocity(LAW, path), points(7, 3)
    t, r, s = time(0.8), time(0.55), time(0.2)
    end = flow(x, t, s)
    close(flow(flow(x, t, r), r, s), end)
    close(flow(flow(x, t, s), s, t), x)
    one = torch.ones_like(t)
    close(torch.func.jvp(lambda s: flow(x, t, s), (s,), (one,))[1], v(end, s), 1e-10)
    total = torch.func.jvp(lambda x, t: flow(x, t, s), (x, t), (v(x, t), one))[1]
    close(total, torch.zeros_like(x), 1e-10)


@each_path
def test_the_gaussian_map_is_the_flow(path):
    x, times = points(7, 3, scale=1.0), karras_times(path, 400, t_min=0.05)
    by_solver = exponential_multistep(exact_score(LAW, path), path, x, times, order=3)
    close(gaussian_flow_map(MEAN, VARIANCE, path)(x, times[0], times[-1]), by_solver, 1e-5)


@each_path
def test_steps_of_a_map_end_where_one_does_and_each_point_may_have_its_times(path):
    flow, x, times = gaussian_flow_map(MEAN, 0.7, path), points(5, 3), time([0.9, 0.6, 0.3, 0.1])
    close(sample_with_map(flow, path, x, times), flow(x, times[0], times[-1]))
    t, s = time([0.9, 0.8, 0.7, 0.6, 0.5]), time([0.1, 0.2, 0.3, 0.4, 0.45])
    each = torch.cat([flow(x[i : i + 1], t[i], s[i]) for i in range(5)])
    close(flow(x, t, s), each)
    w = lambda x, t, s: (x - flow(x, t, s)) / (t - s).reshape(-1, 1)  # noqa: E731
    close(map_of(w)(x, t, s), each)


@each_path
def test_restarts_keep_the_law(path, generator):
    flow, n = gaussian_flow_map(torch.zeros(1).double(), V, path), 40_000
    times = time([0.95, 0.7, 0.5, 0.3, 0.1])
    x = spread(path, times[0]) * torch.randn(n, 1, generator=generator, dtype=torch.float64)
    states = []
    end = restart(flow, path, x, times, generator=generator, on_step=lambda i, t, x: states.append(x))
    close(end, states[-1])
    for t, state in zip(times[1:], states, strict=True):
        assert abs(float(state.var() / spread(path, t) ** 2) - 1) < 4.5 * (2 / n) ** 0.5


# -- consistency -----------------------------------------------------------------------------------------------------


@each_path
def test_a_consistency_function_returns_the_last_point_and_its_factors_are_edms_further_up(path):
    network = lambda x, told: torch.sin(3 * x) + told.reshape(-1, 1)  # noqa: E731
    f, x, d = Consistency(network, path, 0.5), points(5, 2), 0.5
    least = time(path.t_min)
    close(f(x, least), x / path.alpha(least), 1e-9)
    t = time([0.3, 0.5, 0.7, 0.8, 0.9])
    q = (path.sigma(t) / path.alpha(t))[:, None]
    e = float(path.sigma(least) / path.alpha(least))
    y = x / path.alpha(t)[:, None]
    scale = (q**2 + d**2).sqrt()
    expected = d**2 / ((q - e) ** 2 + d**2) * y + d * (q - e) / scale * network(y / scale, q[:, 0].log() / 4)
    close(f(x, t), expected, 1e-9)


class Linear:
    """f(x, t) = k x at one time, 1.3 x at all others."""

    def __init__(self, k, at):
        self.k, self.at = k, at

    def __call__(self, x, t):
        return torch.where((t == self.at)[:, None], self.k, 1.3) * x


@each_path
@pytest.mark.parametrize("how", ["training", "distillation"])
def test_its_minimiser_among_linear_functions(path, how):
    """f(x, t) = k_t x: the best k_t is k_s (alpha_t alpha_s V + sigma_t sigma_s) / (alpha_t^2 V + sigma_t^2).

    Training with the same noise and distillation by one DDIM step have it in common. On VE that is the factor
    (V + sigma_s sigma_t) / (V + sigma_t^2).
    """
    x, noise = whitened()
    times = time([0.9, 0.6, 0.35, 0.1])
    alpha, sigma = path.alpha(times), path.sigma(times)
    factors = (alpha[:-1] * alpha[1:] * V + sigma[:-1] * sigma[1:]) / (alpha[:-1] ** 2 * V + sigma[:-1] ** 2)
    score = None if how == "training" else exact_score(GaussianMixture(torch.zeros(1, 1).double(), time([V])), path)
    for i, factor in enumerate(factors):
        slopes = []
        for start in (float(factor), 0.9 * float(factor)):
            k = torch.tensor(1.3 * start, dtype=torch.float64, requires_grad=True)
            f, steps = Linear(k, times[i]), torch.full((len(x),), i)
            loss = consistency_loss(f, path, x, times, score=score, noise=noise, steps=steps)
            slopes.append(abs(float(torch.autograd.grad(loss, k)[0])))
        assert slopes[0] < 1e-10
        assert slopes[1] > 1e-3


def test_one_step_variances_of_consistency_training():
    """N times on Karras' grid from 80 to 0.002: 0.133, 0.185, 0.216, 0.241, 0.249 of 0.25, order 1 in N."""
    found = []
    for n in (10, 20, 40, 160, 1280):
        sigma = torch.linspace(80 ** (1 / 7), 0.002 ** (1 / 7), n, dtype=torch.float64) ** 7
        factors = (V + sigma[:-1] * sigma[1:]) / (V + sigma[:-1] ** 2)
        found.append(float(factors.prod() ** 2 * (V + 80**2)))
    assert found == pytest.approx([0.133, 0.185, 0.216, 0.241, 0.249], abs=6e-4)
    assert (V - found[-2]) / (V - found[-1]) == pytest.approx(8, rel=0.1)


def test_the_pairs_weights_and_targets_of_the_consistency_loss(generator):
    path, times, asked = VPSDE(), time([0.9, 0.5, 0.2]), []
    x = torch.zeros(4000, 1, dtype=torch.float64)

    def f(x, t):
        asked.append(t)
        return 0 * x + t[:, None]

    loss = consistency_loss(f, path, x, times, weight=lambda t, s: 10 * t + s, generator=generator)
    t, s = asked
    assert {(float(a), float(b)) for a, b in zip(t, s, strict=True)} == {(0.9, 0.5), (0.5, 0.2)}
    assert abs(float((t == 0.9).double().mean()) - 0.5) < 4.5 * 0.5 / 4000**0.5
    close(loss, ((10 * t + s) * (t - s) ** 2).mean())
    twice = consistency_loss(f, path, x[:2], times, target=lambda x, t: 0 * x, steps=torch.tensor([0, 1]))
    close(twice, time((0.9**2 + 0.5**2) / 2))


# -- mean flows and shortcuts ----------------------------------------------------------------------------------------


@each_path
def test_the_average_velocity_is_stationary_for_meanflow(path):
    """d/dk of the loss of k w is 0 at k = 1, exactly so by whitened moments, and nowhere near."""
    x, noise = whitened()
    t, s, w = time([0.8]).repeat(64), time([0.3]).repeat(64), average(path)
    k = torch.ones((), dtype=torch.float64, requires_grad=True)
    slopes = {}
    for name, wrong in {"right": 0.0, "wrong": 0.2}.items():
        fn = lambda x, t, s, wrong=wrong: (k + wrong) * w(x, t, s)  # noqa: E731
        loss = meanflow_loss(fn, path, x, noise=noise, times=t, ends=s)
        (slopes[name],) = torch.autograd.grad(loss, k)
    assert abs(float(slopes["right"])) < 1e-9
    assert abs(float(slopes["wrong"])) > 1e-3


@each_path
def test_meanflow_by_hand(path):
    x, noise = points(5, 2), points(5, 2, seed=4)
    t, s = time([0.9, 0.8, 0.7, 0.6, 0.5]), time([0.1, 0.8, 0.3, 0.2, 0.4])

    def w(x, t, s):
        return torch.sin(x) * t.reshape(-1, 1) ** 2 + s.reshape(-1, 1)

    alpha_rate, sigma_rate = (rate[:, None] for rate in rates(path, t))
    x_t, u = path.perturb(x, t, noise), alpha_rate * x + sigma_rate * noise
    total = torch.cos(x_t) * u * t[:, None] ** 2 + 2 * torch.sin(x_t) * t[:, None]
    expected = (w(x_t, t, s) - u + (t - s)[:, None] * total).square().sum(1).mean()
    close(meanflow_loss(w, path, x, noise=noise, times=t, ends=s), expected, 1e-10)
    same = meanflow_loss(w, path, x, noise=noise, times=t, ends=t)
    close(same, flow_matching_loss(lambda x, t: w(x, t, t), path, x, noise=noise, times=t), 1e-10)


@each_path
def test_two_half_steps_are_one_for_the_average_velocity_alone(path):
    x, noise = whitened()
    t, s, w = time([0.8]).repeat(64), time([0.3]).repeat(64), average(path)
    assert float(shortcut_loss(w, path, x, noise=noise, times=t, ends=s)) < 1e-24

    def other(x, t, s):
        return x * (t + 2 * s).reshape(-1, 1)

    m = (t + s) / 2
    x_t = path.perturb(x, t, noise)
    first = other(x_t, t, m)
    second = other(x_t - (t - m)[:, None] * first, m, s)
    expected = (other(x_t, t, s) - (first + second) / 2).square().sum(1).mean()
    close(shortcut_loss(other, path, x, noise=noise, times=t, ends=s), expected)


# -- distillation ----------------------------------------------------------------------------------------------------


@each_path
def test_a_student_that_sees_the_target_does_two_of_the_teachers_steps(path):
    law, x, times = random_mixture("full", n_dims=3), points(7, 3), time([0.9, 0.6, 0.25])
    score = exact_score(law, path)
    target = progressive_target(score, path, x, times)
    alpha, sigma = path.alpha(times), path.sigma(times)
    student = alpha[2] * target + sigma[2] * (x - alpha[0] * target) / sigma[0]
    close(student, exponential_multistep(score, path, x, times, order=1), 1e-10)


@each_path
def test_distribution_matching_is_the_derivative_of_the_divergence(path):
    """G(z) = a z + b, data N(m, V): dKL/da = E[gradient z], dKL/db = E[gradient], at one time, by autograd of KL."""
    a, b = (time(value).requires_grad_() for value in (0.8, 0.3))
    t, m = time(0.6), 2.0
    alpha, sigma = path.alpha(t), path.sigma(t)
    spread_q, spread_p = alpha**2 * a**2 + sigma**2, alpha**2 * V + sigma**2
    divergence = 0.5 * (spread_q / spread_p + alpha**2 * (b - m) ** 2 / spread_p - 1 - torch.log(spread_q / spread_p))
    expected = torch.autograd.grad(divergence, (a, b))
    laws = [
        GaussianMixture(torch.tensor([[c]]).double(), torch.tensor([v]).double()) for c, v in ((2.0, V), (0.0, 1.0))
    ]
    p = exact_score(laws[0], path)
    q = lambda x, t: -(x - alpha * b.detach()) / spread_q.detach()  # noqa: E731
    data, noise = whitened(seed=8)
    x = a * data / V**0.5 + b
    gradient = distribution_matching_gradient(p, q, path, x, noise=noise, times=t)
    x.backward(gradient / len(x))
    close(a.grad, expected[0], 1e-9)
    close(b.grad, expected[1], 1e-9)
    twice = distribution_matching_gradient(p, q, path, x, noise=noise, times=t, weight=lambda t: 2 + 0 * t)
    close(twice, 2 * gradient)


# -- devices and refusals --------------------------------------------------------------------------------------------


@pytest.mark.needs("gpu")
@each_path
def test_on_the_gpu(path):
    x, noise, times = points(6, 3), points(6, 3, seed=4), time([0.9, 0.5, 0.1])
    here, there = (gaussian_flow_map(MEAN.to(d), VARIANCE.to(d), path) for d in ("cpu", "cuda"))
    close(sample_with_map(there, path, x.cuda(), times).cpu(), sample_with_map(here, path, x, times), 1e-9)
    f = lambda x, t: torch.sin(x) * t[:, None]  # noqa: E731
    steps = torch.tensor([0, 1, 0, 1, 0, 1])
    losses = [
        consistency_loss(f, path, x.to(d), times, noise=noise.to(d), steps=steps.to(d)).cpu() for d in ("cpu", "cuda")
    ]
    close(*losses, 1e-9)
    w = lambda x, t, s: torch.sin(x) * (t + s)[:, None]  # noqa: E731
    t, s = time([0.9] * 6), time([0.4] * 6)
    step = VelocityMap(lambda x, t, label, s: torch.sin(x) * (t + s)[:, None], path)
    close(step(x.cuda(), t.cuda(), s.cuda()).cpu(), step(x, t, s), 1e-9)
    for loss in (meanflow_loss, shortcut_loss):
        both = [loss(w, path, x.to(d), noise=noise.to(d), times=t.to(d), ends=s.to(d)).cpu() for d in ("cpu", "cuda")]
        close(*both, 1e-9)


def velocity_prediction(path, x, t):
    """alpha noise_hat - sigma x0_hat of the exact score of LAW."""
    s = exact_score(LAW, path)(x, t)
    return convert(s, x, path.alpha(t), path.sigma(t), source="score", target="velocity")


@each_path
def test_a_velocity_map_is_one_ddim_step_and_leaves_x_where_it_is(path):
    x, t, s = points(6, 3), time(0.7), time(0.2)
    step = VelocityMap(lambda x, t, label, s: velocity_prediction(path, x, t), path)
    close(step(x, t, s), exponential_multistep(exact_score(LAW, path), path, x, torch.stack([t, s]), order=1), 1e-10)
    anything = VelocityMap(lambda x, t, label, s: torch.sin(5 * x) + s[:, None] - t[:, None], path)
    each = torch.linspace(0.1, 0.9, 6, dtype=torch.float64)
    close(anything(x, each, each), x, 1e-10)


@each_path
def test_a_velocity_map_begins_along_the_flow(path):
    """d_s X_{t->s} at s = t is v(x, t), by a central difference of second order."""
    x, t, h = points(6, 3), time(0.6), 1e-4
    step = VelocityMap(lambda x, t, label, s: velocity_prediction(path, x, t), path)
    rate = (step(x, t, t + h) - step(x, t, t - h)) / (2 * h)
    close(rate, exact_velocity(LAW, path)(x, t), 1e-5)


def test_a_velocity_map_turns_by_the_angle_and_hands_on_what_the_network_asks_for():
    path, x, seen = VPSDE(), points(4, 2), []

    def network(x, t, label, s):
        seen.append((t, label, s))
        return 2 * x + 1

    t, s, label = torch.tensor([0.9, 0.5, 0.4, 0.3], dtype=torch.float64), time(0.1), torch.arange(4)
    angle = torch.atan2(path.sigma(t), path.alpha(t)) - torch.atan2(path.sigma(s), path.alpha(s))
    expected = angle.cos()[:, None] * x - angle.sin()[:, None] * (2 * x + 1)
    close(VelocityMap(network, path)(x, t, s, label), expected)
    close(VelocityMap(network, path, one_end=True)(x, 0.5, path.t_min), VelocityMap(network, path)(x, 0.5, path.t_min))
    (t_seen, label_seen, s_seen), (_, no_label, no_s), _ = seen
    close(t_seen, t)
    close(s_seen, s.expand(4))
    assert label_seen is label
    assert no_label is None
    assert no_s is None


@each_path
def test_angles_are_evenly_spaced(path):
    times = angle_times(path, 7, t_min=0.02)
    angles = torch.atan2(path.sigma(times), path.alpha(times))
    assert times[[0, -1]].tolist() == [path.T, 0.02]
    close(angles.diff(), (angles[-1] - angles[0]).expand(7) / 7, 1e-9)


X, GRID, PATH = torch.ones(3, 2), torch.tensor([0.9, 0.5, 0.1]), VPSDE()


@pytest.mark.parametrize(
    ("call", "match"),
    [
        (lambda: gaussian_flow_map(torch.zeros(2), -1.0, PATH), r"^variance: expected values > 0"),
        (lambda: gaussian_flow_map(torch.zeros(2), torch.ones(3), PATH), r"^variance: expected a number or shape"),
        (lambda: gaussian_flow_map(torch.zeros(2), 1.0, PATH)(X, 1.5, 0.5), r"^t: expected values in"),
        (lambda: gaussian_flow_map(torch.zeros(2), 1.0, PATH)(X, 0.5, 1.5), r"^s: expected values in"),
        (lambda: sample_with_map(lambda x, t, s: x[:1], PATH, X, GRID), r"^flow_map's value: expected shape"),
        (lambda: sample_with_map(lambda x, t, s: x, PATH, X, GRID.flip(0)), r"^times: expected strictly decreasing"),
        (lambda: restart(lambda x, t, s: x[:1], PATH, X, GRID), r"^flow_map's value: expected shape"),
        (lambda: Consistency(lambda x, t: x, PATH, 0.0), r"^sigma_data: expected values > 0"),
        (lambda: Consistency(lambda x, t: x, PATH, 0.5)(X, 1e-5), r"^t: expected values of at least t_min"),
        (lambda: Consistency(lambda x, t: x[:1], PATH, 0.5)(X, 0.5), r"^network's value: expected shape"),
        (lambda: VelocityMap(lambda x, t, label, s: x, PATH, one_end=1), r"^one_end: expected"),
        (lambda: VelocityMap(lambda x, t, label, s: x, PATH, one_end=True)(X, 0.5, 0.1), r"^s: this map ends at t_min"),
        (lambda: VelocityMap(lambda x, t, label, s: x, PATH)(X, 0.0, 0.0), r"^t: .*0"),
        (lambda: VelocityMap(lambda x, t, label, s: x[:1], PATH)(X, 0.5, 0.1), r"^network's value: expected shape"),
        (lambda: angle_times(PATH, 0), r"^n_steps: expected at least 1"),
        (lambda: angle_times(PATH, 3, t_min=0.0), r"^times: "),
        (lambda: consistency_loss(lambda x, t: x[:1], PATH, X, GRID), r"^consistency's value: expected shape"),
        (
            lambda: consistency_loss(lambda x, t: x, PATH, X, GRID, steps=torch.tensor([0, 1, 2])),
            r"^steps: expected 0 to",
        ),
        (lambda: consistency_loss(lambda x, t: x, PATH, X, GRID - 0.1), r"^times: the score is asked where sigma is 0"),
        (lambda: meanflow_loss(lambda x, t, s: x[:1], PATH, X), r"^average_velocity's value: expected shape"),
        (
            lambda: meanflow_loss(lambda x, t, s: x, PATH, X, times=GRID, ends=GRID.flip(0)),
            r"^ends: expected values of",
        ),
        (lambda: shortcut_loss(lambda x, t, s: x[:1], PATH, X), r"^average_velocity's value: expected shape"),
        (lambda: progressive_target(lambda x, t: x, PATH, X, GRID[:2]), r"^times: expected three times, got 2"),
        (
            lambda: distribution_matching_gradient(lambda x, t: x, lambda x, t: x[:1], PATH, X),
            r"^score's value: expected shape",
        ),
    ],
)
def test_refusals(call, match):
    with pytest.raises((ValueError, TypeError), match=match):
        call()


def test_an_average_velocity_with_the_wrong_sign_of_the_correction_is_another_law():
    """The mean of the targets at the exact w: right w, and with + (t - s) D w something else."""
    path, (x, noise), w = LinearPath(), whitened(), average(LinearPath())
    t, s = time([0.8]).repeat(64), time([0.3]).repeat(64)
    x_t, u = path.perturb(x, t, noise), noise - x
    total = torch.func.jvp(w, (x_t, t, s), (u, torch.ones_like(t), torch.zeros_like(s)))[1]
    for sign, right in ((-1, True), (1, False)):
        target = u + sign * 0.5 * total
        slope = (target * x_t).mean() / (x_t * x_t).mean()
        assert (abs(float(slope - w(time([[1.0]]), t[:1], s[:1]))) < 1e-10) == right
