"""Steering: tilted laws in closed form, the moments of each guess without random numbers, unbiased particles."""

import math

import pytest
import torch

from coursework import reverse_sde
from coursework import steering as module
from coursework.distributions import GaussianMixture, exact_score
from coursework.flow_matching import LinearPath
from coursework.inverse_problems import condition
from coursework.probability_flow import heun
from coursework.reverse_sde import stochastic_heun
from coursework.sdes import VESDE, VPSDE, uniform_times
from coursework.steering import best_of, effective_number, h_transform, particle_steering, resample, reward_guidance
from tests.helpers.chains import linear_moments, noise

pytestmark = pytest.mark.usefixtures("one_thread")
FLOAT = torch.float64
SDES = pytest.mark.parametrize("sde", [VPSDE(), VESDE(0.01, 10.0), LinearPath()], ids=lambda s: type(s).__name__)
NORMAL = GaussianMixture(torch.zeros(1, 1, dtype=FLOAT), torch.ones(1, dtype=FLOAT))


def square(x):
    """-(x - 2)^2 / (2 0.5): the tilted N(0, 1) has mean 4/3, variance 1/3, and Z = e^-1.8826."""
    return -((x[:, 0] - 2) ** 2)


def stream(seed=0):
    return torch.Generator().manual_seed(seed)


def mixture(n_dims):
    generator = stream(n_dims)
    means = torch.randn(3, n_dims, generator=generator, dtype=FLOAT)
    root = 0.4 * torch.randn(3, n_dims, n_dims, generator=generator, dtype=FLOAT)
    return GaussianMixture(
        means, root @ root.mT + 0.1 * torch.eye(n_dims, dtype=FLOAT), torch.tensor([0.2, 0.5, 0.3], dtype=FLOAT)
    )


def measurement(n_dims, std):
    """A reward -|y - A x|^2 / (2 std^2): the tilted law is a mixture again."""
    operator = torch.tensor([[1.0, -0.5, 0.25]], dtype=FLOAT)[:, :n_dims]
    y = torch.tensor([0.7], dtype=FLOAT)
    return (lambda x: -((y - x @ operator.T) ** 2).sum(1) / (2 * std**2)), (operator, y, std)


@SDES
@pytest.mark.parametrize("n_dims", [1, 2])
@pytest.mark.parametrize("t", [0.02, 0.4, 0.9])
def test_the_h_transform_gives_the_score_of_the_tilted_law(sde, n_dims, t):
    law = mixture(n_dims)
    reward, given = measurement(n_dims, 0.8)
    expected = exact_score(condition(law, *given), sde)
    x = law.diffuse(sde.alpha(t), sde.sigma(t)).sample(20, generator=stream(1))
    time = torch.full((20,), t, dtype=FLOAT)
    got = h_transform(exact_score(law, sde), sde, law, reward)(x, time)
    torch.testing.assert_close(got, expected(x, time), rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(
        h_transform(exact_score(law, sde), sde, law, reward)(x, time[0]), got, rtol=1e-12, atol=1e-12
    )


def test_times_may_differ_from_point_to_point_and_large_batches_are_cut(monkeypatch):
    sde, law = VPSDE(), mixture(2)
    reward, given = measurement(2, 0.8)
    x, t = law.sample(7, generator=stream()), torch.linspace(0.1, 0.9, 7, dtype=FLOAT)
    expected = exact_score(condition(law, *given), sde)(x, t)
    steered = h_transform(exact_score(law, sde), sde, law, reward)
    torch.testing.assert_close(steered(x, t), expected, rtol=1e-6, atol=1e-6)
    monkeypatch.setattr(module, "WIDEST", 3 * 32**2 * 3 * 2)
    torch.testing.assert_close(steered(x, t), expected, rtol=1e-6, atol=1e-6)
    assert steered(x[:0], t[:0]).shape == (0, 2)


def test_a_reward_with_a_step_has_no_gradient_and_is_reached_too():
    """r = log 3 where x > 0: h = 1 + 2 P(x_0 > 0 | x_t), its gradient by that of the normal distribution function.

    A step is the worst that quadrature can meet: the tolerance is its width between two nodes.
    """
    sde, t = VPSDE(), torch.tensor(0.5, dtype=FLOAT)
    a, s = sde.alpha(t), sde.sigma(t)
    x = torch.linspace(-2, 2, 9, dtype=FLOAT)[:, None]
    mean, std = a * x / (a**2 + s**2), s / (a**2 + s**2).sqrt()
    standard = torch.distributions.Normal(torch.zeros((), dtype=FLOAT), torch.ones((), dtype=FLOAT))
    z = mean / std
    h = 1 + 2 * standard.cdf(z)
    gradient = 2 * standard.log_prob(z).exp() * (a / (a**2 + s**2)) / std / h
    got = h_transform(exact_score(NORMAL, sde), sde, NORMAL, lambda x: math.log(3) * (x[:, 0] > 0).to(x.dtype))(x, t)
    torch.testing.assert_close(got, -x / (a**2 + s**2) + gradient, rtol=0.1, atol=0.05)


def test_in_more_dimensions_points_are_drawn():
    sde, law, t = VPSDE(), mixture(3), torch.tensor(0.4, dtype=FLOAT)
    reward, given = measurement(3, 0.8)
    x = law.diffuse(sde.alpha(t), sde.sigma(t)).sample(6, generator=stream(1))
    expected = exact_score(condition(law, *given), sde)(x, t)
    options = {"n_draws": 4000}
    tries = torch.stack(
        [h_transform(exact_score(law, sde), sde, law, reward, generator=stream(k), **options)(x, t) for k in range(12)]
    )
    errors = tries.std(0) / math.sqrt(12)
    assert ((tries.mean(0) - expected).abs() < 4.5 * errors + 2e-3).all()  # a ratio of means: biased by 1 / n_draws
    again = h_transform(exact_score(law, sde), sde, law, reward, generator=stream(0), **options)
    torch.testing.assert_close(again(x, t), again(x, t), rtol=0, atol=0)


# N(0, 1) under VP is N(0, 1) at every time: each steered score is affine, and the moments of what a solver makes exact


def moments(steered, monkeypatch, *, ode, sde, n_steps=300):
    times = uniform_times(sde, n_steps)
    if ode:
        mean, variance = linear_moments(lambda x: heun(steered, sde, x, times), 0.0, 1.0, 0, monkeypatch, reverse_sde)
    else:
        run = lambda x: stochastic_heun(steered, sde, x, times)  # noqa: E731
        mean, variance = linear_moments(run, 0.0, 1.0, n_steps, monkeypatch, reverse_sde)
    return mean, variance


@pytest.mark.parametrize("ode", [False, True])
@pytest.mark.parametrize(("sde", "tolerance"), [(LinearPath(), 0.003), (VPSDE(), 0.012)])
def test_the_exact_drift_reaches_the_tilted_law(sde, tolerance, ode, monkeypatch):
    """On VP up to where x_T is not quite independent of x_0, which the start N(0, 1) neglects."""
    steered = h_transform(exact_score(NORMAL, sde), sde, NORMAL, square)
    got = moments(steered, monkeypatch, ode=ode, sde=sde)
    assert got == pytest.approx((4 / 3, 1 / 3), abs=tolerance)


GUESSES = [  # the reward at x_t is another guess on another schedule
    (VPSDE(), "x0_hat", False, 1.729, 0.245),
    (VPSDE(), "x0_hat", True, 2.152, 0.135),
    (LinearPath(), "x0_hat", False, 1.729, 0.245),
    (LinearPath(), "x0_hat", True, 2.152, 0.135),
    (VPSDE(), "x_t", False, 1.6, 0.2),
    (VPSDE(), "x_t", True, 2.0, 0.0),
    (LinearPath(), "x_t", False, 1.839, 0.296),
    (LinearPath(), "x_t", True, 2.587, 0.0),
]


@pytest.mark.parametrize(("sde", "at", "ode", "mean", "variance"), GUESSES)
def test_what_the_guesses_sample_instead(sde, at, ode, mean, variance, monkeypatch):
    """Numbers by an own integration of the two moment equations with 20,000 midpoint steps."""
    steered = reward_guidance(exact_score(NORMAL, sde), sde, square, at=at)
    got = moments(steered, monkeypatch, ode=ode, sde=sde)
    assert got == pytest.approx((mean, variance), abs=0.012)


def test_the_guess_is_the_gradient_of_the_reward_of_the_mean():
    """x0_hat = alpha x for N(0, 1) on VP, so the chain rule gives -2 alpha (alpha x - 2) for the square."""
    sde, t = VPSDE(), torch.tensor(0.3, dtype=FLOAT)
    x, a = torch.linspace(-1, 1, 5, dtype=FLOAT)[:, None], sde.alpha(torch.tensor(0.3, dtype=FLOAT))
    score = exact_score(NORMAL, sde)
    got = reward_guidance(score, sde, square, scale=0.7)(x, t)
    torch.testing.assert_close(got, -x - 0.7 * 2 * a * (a * x - 2), rtol=1e-10, atol=1e-10)
    got = reward_guidance(score, sde, square, at="x_t")(x, t)
    torch.testing.assert_close(got, -x - 2 * (x - 2), rtol=1e-10, atol=1e-10)


# Particles


def plain_evidence(sde, times):
    """E e^r over Euler-Maruyama's own samples, in closed form: the chain of N(0, 1) is linear."""
    mean, variance = 0.0, 1.0
    t, h = times[:-1], -times.diff()
    f, g = sde.drift_coefficient(t), sde.diffusion(t)
    for i in range(len(t)):
        factor = float(1 - h[i] * f[i] - h[i] * g[i] ** 2)
        mean, variance = factor * mean, factor**2 * variance + float(h[i] * g[i] ** 2)
    return math.sqrt(0.5 / (0.5 + variance)) * math.exp(-((2 - mean) ** 2) / (2 * (0.5 + variance)))


@pytest.mark.parametrize(
    ("proposal", "threshold"), [("plain", 0.0), ("plain", 0.5), ("guess", 0.0), ("guess", 1.0), ("exact", 0.5)]
)
def test_the_mean_weight_is_an_unbiased_estimate_of_the_evidence(proposal, threshold):
    sde, times = VPSDE(), uniform_times(VPSDE(), 8)
    score = exact_score(NORMAL, sde)
    other = {
        "plain": None,
        "guess": reward_guidance(score, sde, square, scale=0.3),
        "exact": h_transform(score, sde, NORMAL, square),
    }[proposal]
    generator, n_tries = stream(1), 80
    found = torch.empty(n_tries, dtype=FLOAT)
    for k in range(n_tries):
        x = torch.randn(40, 1, generator=generator, dtype=FLOAT)
        out = particle_steering(score, sde, x, times, square, proposal=other, threshold=threshold, generator=generator)
        found[k] = out[1].exp().mean()
    error = float(found.std()) / math.sqrt(n_tries)
    exact = plain_evidence(sde, times)
    assert abs(float(found.mean()) - exact) < 4 * error
    assert error < 0.2 * exact


@pytest.mark.parametrize("threshold", [0.0, 0.5])
def test_weighed_particles_have_the_tilted_law(threshold):
    sde, times = VPSDE(), uniform_times(VPSDE(), 60)
    score, n = exact_score(NORMAL, sde), 20_000
    x = torch.randn(n, 1, generator=stream(2), dtype=FLOAT)
    steps = []
    x, log_weights = particle_steering(
        score, sde, x, times, square, threshold=threshold, generator=stream(3), on_step=lambda i, t, x: steps.append(i)
    )
    assert steps == list(range(60))
    w = log_weights.softmax(0)
    mean = float(w @ x[:, 0])
    variance = float(w @ (x[:, 0] - mean) ** 2)
    few = effective_number(log_weights) if threshold == 0 else 0.2 * n  # particles of one family are not independent
    assert abs(mean - 4 / 3) < 4 * math.sqrt(1 / 3 / few) + 0.01
    assert abs(variance - 1 / 3) < 4 * math.sqrt(2 / 9 / few) + 0.01


def test_without_resampling_and_guidance_it_is_euler_maruyama(monkeypatch):
    sde, times = VPSDE(), uniform_times(VPSDE(), 6)
    score, x = exact_score(NORMAL, sde), torch.linspace(-1, 1, 5, dtype=FLOAT)[:, None]
    draws = torch.randn(6, 5, 1, generator=stream(4), dtype=FLOAT)
    with noise(monkeypatch, reverse_sde, lambda i, x: draws[i]):
        expected = reverse_sde.euler_maruyama(score, sde, x, times, final_noise=True)
    with noise(monkeypatch, module, lambda i, x: draws[i]):
        got, log_weights = particle_steering(score, sde, x, times, square, threshold=0.0)
    torch.testing.assert_close(got, expected, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(log_weights, square(expected), rtol=1e-10, atol=1e-10)


def test_systematic_resampling():
    log_weights = torch.tensor([0.1, 0.4, 0.25, 0.25, 0.0], dtype=FLOAT).log()
    counts = torch.stack([torch.bincount(resample(log_weights, generator=stream(k)), minlength=5) for k in range(4000)])
    wanted = 5 * log_weights.exp()
    assert ((counts >= wanted.floor()) & (counts <= wanted.floor() + 1)).all()
    torch.testing.assert_close(counts.double().mean(0), wanted, rtol=0, atol=4 * 0.5 / math.sqrt(4000))
    assert effective_number(log_weights) == pytest.approx(1 / (0.01 + 0.16 + 0.0625 * 2))
    assert effective_number(torch.full((7,), 300.0)) == pytest.approx(7)


def test_the_best_of_n_has_its_law():
    """The largest of n uniform numbers: F(v) = v^n."""
    u = torch.rand(90_000, 1, generator=stream(5), dtype=FLOAT)
    best = best_of(u, lambda x: x[:, 0] ** 3, 3)
    torch.testing.assert_close(best[:, 0], u.reshape(-1, 3).amax(1), rtol=0, atol=0)
    for v in (0.3, 0.6, 0.9):
        share = float((best < v).double().mean())
        assert abs(share - v**3) < 4 * math.sqrt(v**3 * (1 - v**3) / 30_000)
    lowest = best_of(u, lambda x: -x[:, 0], 3)
    torch.testing.assert_close(lowest[:, 0], u.reshape(-1, 3).amin(1), rtol=0, atol=0)


SDE_, SCORE, X = VPSDE(), exact_score(NORMAL, VPSDE()), torch.ones(4, 1, dtype=FLOAT)
TIMES = torch.tensor([1.0, 0.5, 0.1], dtype=FLOAT)
REFUSED = {
    "density: expected a GaussianMixture": lambda: h_transform(SCORE, SDE_, SCORE, square),
    "n_draws: expected": lambda: h_transform(SCORE, SDE_, NORMAL, square, n_draws=0),
    "reward's value: expected shape": lambda: h_transform(SCORE, SDE_, NORMAL, lambda x: x)(X, TIMES[0]),
    "reward's value: expected a": lambda: reward_guidance(SCORE, SDE_, lambda x: 1.0)(X, TIMES[0]),
    "at: expected one of": lambda: reward_guidance(SCORE, SDE_, square, at="x0"),
    "scale: expected": lambda: reward_guidance(SCORE, SDE_, square, scale=math.nan),
    "threshold: expected": lambda: particle_steering(SCORE, SDE_, X, TIMES, square, threshold=2.0),
    "times: expected strictly": lambda: particle_steering(SCORE, SDE_, X, TIMES.flip(0), square),
    "log_weights: expected shape": lambda: resample(X),
    "log_weights: expected finite": lambda: effective_number(torch.full((3,), -math.inf)),
    "x: expected a multiple": lambda: best_of(X, square, 3),
    "n: expected": lambda: best_of(X, square, 0),
}


@pytest.mark.parametrize(("message", "call"), REFUSED.items(), ids=list(REFUSED))
def test_what_cannot_be_is_refused_in_one_line(message, call):
    with pytest.raises((ValueError, TypeError), match=f"^{message}") as caught:
        call()
    assert "\n" not in str(caught.value)


@pytest.mark.needs("gpu")
@pytest.mark.parametrize("n_dims", [1, 2])
def test_on_the_gpu(n_dims):
    sde, law = VPSDE(), mixture(n_dims)
    _, given = measurement(n_dims, 0.8)
    x, t = law.sample(20, generator=stream(1)), torch.linspace(0.1, 0.9, 20, dtype=FLOAT)
    there = law.to("cuda")
    operator, y = (each.cuda() for each in given[:2])
    steered = h_transform(
        exact_score(there, sde), sde, there, lambda x: -((y - x @ operator.T) ** 2).sum(1) / (2 * given[2] ** 2)
    )
    expected = exact_score(condition(law, *given), sde)(x, t)
    torch.testing.assert_close(steered(x.cuda(), t.cuda()).cpu(), expected, rtol=1e-6, atol=1e-6)
    start = torch.randn(4000, n_dims, generator=torch.Generator("cuda").manual_seed(0), dtype=FLOAT, device="cuda")
    out, log_weights = particle_steering(
        exact_score(there, sde),
        sde,
        start,
        uniform_times(sde, 60),
        lambda x: -((y - x @ operator.T) ** 2).sum(1) / (2 * given[2] ** 2),
        generator=torch.Generator("cuda").manual_seed(1),
    )
    assert out.device.type == "cuda"
    mean = log_weights.softmax(0) @ out
    exact = condition(law, *given)
    errors = 4 * (exact.covariance.diagonal() / 400).sqrt() + 0.03
    assert ((mean.cpu() - exact.mean).abs() < errors).all()
