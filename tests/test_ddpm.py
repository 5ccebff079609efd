"""Schedules, losses, the bound and the samplers: against diffusers step by step, and closed forms on Gaussians."""

import math

import numpy as np
import pytest
import torch
from diffusers import DDIMScheduler, DDPMScheduler

from coursework import ddpm as module
from coursework.ddpm import (
    DiscreteSchedule,
    cosine_betas,
    ddim_invert,
    ddim_sample,
    ddpm_loss,
    ddpm_sample,
    linear_betas,
    variational_bound,
)
from coursework.probability_flow import rk4
from coursework.sdes import VPSDE
from tests.helpers.chains import linear_moments

pytestmark = pytest.mark.usefixtures("one_thread")

TABLES = {"linear": linear_betas(), "cosine": cosine_betas(1000), "short": linear_betas(20, 0.01, 0.3)}
each_table = pytest.mark.parametrize("name", TABLES)
MEAN, VARIANCE = 0.7, 0.3


def exact(schedule, mean=MEAN, variance=VARIANCE):
    """The best noise prediction for data N(mean, variance I)."""

    def noise_model(x, t):
        a = schedule.alpha_bar[t].to(x.dtype).reshape(-1, 1)
        return (1 - a).sqrt() * (x - a.sqrt() * mean) / (a * variance + 1 - a)

    return noise_model


def curved(x, t):
    """A noise model that is nonlinear in x and depends on t and on all of x."""
    return torch.sin(x + 0.01 * t.to(x.dtype).reshape(-1, *[1] * (x.ndim - 1))) + 0.1 * x.roll(1, -1)


def theirs(kind, name, **options):
    """A scheduler of diffusers with our table in float64; its own is float32."""
    scheduler = kind(num_train_timesteps=len(TABLES[name]), clip_sample=False, prediction_type="epsilon", **options)
    schedule = DiscreteSchedule(TABLES[name])
    scheduler.betas, scheduler.alphas = schedule.betas, 1 - schedule.betas
    scheduler.alphas_cumprod = schedule.alpha_bar
    scheduler.one = scheduler.final_alpha_cumprod = torch.tensor(1.0, dtype=torch.float64)
    return scheduler, schedule


# -- schedules ---------------------------------------------------------------------------------------------------------


def test_published_values():
    alpha_bar = DiscreteSchedule(linear_betas()).alpha_bar
    assert [float(alpha_bar[i - 1]) for i in (1, 100, 500, 1000)] == pytest.approx(
        [0.9999, 0.89702, 0.078587, 4.036e-5], rel=2e-4
    )


@each_table
def test_tables_are_diffusers(name):
    kinds = {
        "linear": DDPMScheduler(1000),
        "cosine": DDPMScheduler(1000, beta_schedule="squaredcos_cap_v2"),
        "short": DDPMScheduler(20, beta_start=0.01, beta_end=0.3),
    }
    torch.testing.assert_close(TABLES[name], kinds[name].betas.double(), rtol=2e-5, atol=1e-8)
    assert TABLES[name].dtype == torch.float64


def test_cosine_table_is_its_formula_up_to_the_clip():
    n, s = 50, 0.02
    alpha_bar = DiscreteSchedule(cosine_betas(n, s)).alpha_bar
    f = [math.cos((t / n + s) / (1 + s) * math.pi / 2) ** 2 for t in range(n)]
    torch.testing.assert_close(alpha_bar[:-1], torch.tensor(f[1:], dtype=torch.float64) / f[0], rtol=1e-12, atol=0)
    assert float(cosine_betas(n, s)[-1]) == 0.999


@each_table
def test_posterior_is_bayes_rule_in_one_dimension(name):
    """N(x_{t-1}; sqrt(a') x0, 1 - a') N(x_t; sqrt(1 - b) x_{t-1}, b), completed to a square in x_{t-1}."""
    schedule, x0, x_t = DiscreteSchedule(TABLES[name]), 0.8, -1.3
    for i in (1, 7, len(schedule) - 1):
        b, before = float(schedule.betas[i]), float(schedule.alpha_bar[i - 1])
        precision = 1 / (1 - before) + (1 - b) / b
        mean = (math.sqrt(before) * x0 / (1 - before) + math.sqrt(1 - b) * x_t / b) / precision
        got = float(schedule.posterior_data[i]) * x0 + float(schedule.posterior_noisy[i]) * x_t
        assert got == pytest.approx(mean, rel=1e-9)
        assert float(schedule.posterior_variance[i]) == pytest.approx(1 / precision, rel=1e-9)
    first = [float(v[0]) for v in (schedule.posterior_data, schedule.posterior_noisy, schedule.posterior_variance)]
    assert first == pytest.approx([1, 0, 0], abs=1e-9)


def test_perturb_takes_an_index_for_each_point(generator):
    schedule = DiscreteSchedule(TABLES["short"])
    x0, noise = torch.randn(2, 3, 4, generator=generator, dtype=torch.float64)
    t = torch.tensor([0, 19, 5])
    for i in range(3):
        a = float(torch.prod(1 - schedule.betas[: int(t[i]) + 1]))
        torch.testing.assert_close(schedule.perturb(x0, t, noise)[i], a**0.5 * x0[i] + (1 - a) ** 0.5 * noise[i])
    torch.testing.assert_close(schedule.perturb(x0, torch.tensor(5), noise)[2], schedule.perturb(x0, t, noise)[2])


def test_chain_tends_to_the_vp_sde():
    """alpha_bar_i and exp(-B(i/N)) differ by O(1/N): halving the step halves the gap."""
    sde, gaps = VPSDE(), []
    for n in (500, 1000, 2000):
        betas = sde.beta(torch.arange(1, n + 1, dtype=torch.float64) / n) / n
        middle = DiscreteSchedule(betas).alpha_bar[n // 2 - 1]
        gaps.append(abs(float(middle / sde.alpha(0.5) ** 2) - 1))
    assert gaps[0] / gaps[1] == pytest.approx(2, rel=0.02)
    assert gaps[1] / gaps[2] == pytest.approx(2, rel=0.02)


# -- the loss ----------------------------------------------------------------------------------------------------------


def test_loss_of_the_exact_model_is_its_floor(generator):
    """E|noise - E[noise | x_t]|^2 per dimension: a v / (a v + 1 - a), the mean over the indices."""
    schedule = DiscreteSchedule(TABLES["short"])
    a = schedule.alpha_bar
    floor = float((a * VARIANCE / (a * VARIANCE + 1 - a)).mean())
    x = MEAN + VARIANCE**0.5 * torch.randn(100, 1000, 3, generator=generator, dtype=torch.float64)
    values = torch.stack([ddpm_loss(exact(schedule), schedule, part, generator=generator) for part in x])
    assert abs(float(values.mean()) - floor) < 4 * float(values.std()) / 10
    silence = torch.stack([ddpm_loss(lambda x, t: 0 * x, schedule, part, generator=generator) for part in x])
    assert abs(float(silence.mean()) - 1) < 4 * float(silence.std()) / 10


def test_loss_hands_out_each_index_and_its_noise_level(generator):
    schedule, seen = DiscreteSchedule(linear_betas(4, 0.1, 0.6)), []

    def noise_model(x, t):
        seen.append((x, t))
        return x

    ddpm_loss(noise_model, schedule, torch.zeros(8000, 2), generator=generator)
    x, t = seen[0]
    assert t.dtype == torch.long
    for i in range(4):
        chosen = x[t == i]
        assert abs(len(chosen) - 2000) < 4 * math.sqrt(8000 * 3 / 16)
        assert float(chosen.var()) == pytest.approx(1 - float(schedule.alpha_bar[i]), rel=0.1)


# -- samplers ----------------------------------------------------------------------------------------------------------


@each_table
@pytest.mark.parametrize(("variance", "kind"), [("posterior", "fixed_small"), ("beta", "fixed_large")])
def test_ddpm_is_diffusers_step_by_step(name, variance, kind, generator):
    scheduler, schedule = theirs(DDPMScheduler, name, variance_type=kind)
    x = torch.randn(4, 3, generator=generator, dtype=torch.float64)
    state, steps = generator.get_state(), []
    ddpm_sample(curved, schedule, x, variance=variance, generator=generator, on_step=lambda i, t, x: steps.append(x))
    generator.set_state(state)
    y = x
    for i, t in enumerate(range(len(schedule) - 1, -1, -1)):
        y = scheduler.step(curved(y, torch.tensor(t)), t, y, generator=generator).prev_sample
        torch.testing.assert_close(steps[i], y, rtol=1e-5, atol=1e-5)


@each_table
@pytest.mark.parametrize("eta", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("n_steps", [5, 10, 20])
def test_ddim_is_diffusers_step_by_step(name, eta, n_steps, generator):
    scheduler, schedule = theirs(DDIMScheduler, name, timestep_spacing="trailing", set_alpha_to_one=True)
    scheduler.set_timesteps(n_steps)
    x, steps = torch.randn(4, 3, generator=generator, dtype=torch.float64), []
    state = generator.get_state()
    ddim_sample(
        curved, schedule, x, n_steps=n_steps, eta=eta, generator=generator, on_step=lambda i, t, x: steps.append(x)
    )
    generator.set_state(state)
    y = x
    for i, t in enumerate(scheduler.timesteps):
        y = scheduler.step(curved(y, t), int(t), y, eta=eta, generator=generator).prev_sample
        torch.testing.assert_close(steps[i], y, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("eta", [0.0, 0.7])
def test_ddim_on_any_subsequence_is_the_papers_recursion(eta, generator):
    schedule = DiscreteSchedule(TABLES["linear"])
    indices = torch.tensor([999, 998, 640, 77, 76, 3])
    x = torch.randn(4, 3, generator=generator, dtype=torch.float64)
    state = generator.get_state()
    got = ddim_sample(curved, schedule, x, indices=indices, eta=eta, generator=generator)
    generator.set_state(state)
    a = [float(schedule.alpha_bar[i]) for i in indices] + [1.0]
    for k, i in enumerate(indices):
        e = curved(x, i)
        sigma = eta * math.sqrt((1 - a[k + 1]) / (1 - a[k])) * math.sqrt(1 - a[k] / a[k + 1])
        x0 = (x - math.sqrt(1 - a[k]) * e) / math.sqrt(a[k])
        x = math.sqrt(a[k + 1]) * x0 + math.sqrt(max(0, 1 - a[k + 1] - sigma**2)) * e
        if eta and k < 5:
            x = x + sigma * torch.randn(x.shape, generator=generator, dtype=torch.float64)
    torch.testing.assert_close(got, x, rtol=1e-9, atol=1e-9)


@each_table
def test_ddim_with_eta_one_on_all_indices_is_ddpm(name, generator):
    schedule, x = DiscreteSchedule(TABLES[name]), torch.randn(4, 3, generator=generator, dtype=torch.float64)
    state = generator.get_state()
    first = ddpm_sample(curved, schedule, x, generator=generator)
    generator.set_state(state)
    second = ddim_sample(curved, schedule, x, n_steps=len(schedule), eta=1.0, generator=generator)
    torch.testing.assert_close(first, second, rtol=1e-7, atol=1e-7)


@pytest.mark.parametrize("variance", ["posterior", "beta"])
def test_exact_moments_of_ddpm_on_a_gaussian(variance, monkeypatch):
    """Mean and variance by the chain's own recursion, written for the two moments."""
    schedule = DiscreteSchedule(TABLES["short"])
    mean, v = 0.0, 1.0
    for t in reversed(range(20)):
        b, a = float(schedule.betas[t]), float(schedule.alpha_bar[t])
        before = float(schedule.alpha_bar[t - 1]) if t else 1.0
        slope = b / (a * VARIANCE + 1 - a)  # of beta / sqrt(1 - a) times the noise prediction
        mean = (mean - slope * (mean - math.sqrt(a) * MEAN)) / math.sqrt(1 - b)
        noise = 0.0 if t == 0 else (b if variance == "beta" else b * (1 - before) / (1 - a))
        v = ((1 - slope) ** 2 * v) / (1 - b) + noise
    got = linear_moments(
        lambda x: ddpm_sample(exact(schedule), schedule, x, variance=variance), 0.0, 1.0, 19, monkeypatch, module
    )
    assert got == pytest.approx((mean, v), rel=1e-9)


def test_ddim_is_the_exponential_integrator_of_the_probability_flow():
    """DDIM along an SDE's own table ends where RK4 ends on its probability flow, but for a gap that falls like 1/n."""
    sde, start = VPSDE(), torch.tensor([[-1.5], [0.2], [2.0]], dtype=torch.float64)

    def score(x, t):
        a, s = sde.alpha(t), sde.sigma(t)
        return -(x - a * MEAN) / (a**2 * VARIANCE + s**2)

    def end(n):
        times = torch.linspace(0.1, 1, n + 1, dtype=torch.float64)
        alpha_bar = sde.alpha(times) ** 2
        betas = 1 - torch.cat([alpha_bar[:1], alpha_bar[1:] / alpha_bar[:-1]])
        schedule, out = DiscreteSchedule(betas), []
        noise_model = lambda x, t: -sde.sigma(times[t[0]]) * score(x, times[t[0]])  # noqa: E731
        ddim_sample(noise_model, schedule, start, n_steps=n + 1, on_step=lambda i, t, x: out.append(x))
        return out[-2]  # at index 0, that is t = 0.1

    exact_end = rk4(score, sde, start, torch.linspace(1, 0.1, 400, dtype=torch.float64))
    gaps = [float((end(n) - exact_end).abs().max()) for n in (50, 100, 200)]
    assert gaps[0] / gaps[1] == pytest.approx(2, rel=0.1)
    assert gaps[1] / gaps[2] == pytest.approx(2, rel=0.1)


def test_inversion_leads_back_and_better_with_more_steps(generator):
    schedule = DiscreteSchedule(TABLES["linear"])
    x0 = MEAN + VARIANCE**0.5 * torch.randn(5, 3, generator=generator, dtype=torch.float64)
    model = exact(schedule)
    errors = []
    for n in (50, 100, 200):
        z = ddim_invert(model, schedule, x0, n_steps=n)
        back = ddim_sample(model, schedule, z, n_steps=n)
        errors.append(float((back - x0).abs().max()))
    assert errors[0] < 0.1
    assert errors[0] / errors[1] == pytest.approx(2, rel=0.25)
    assert errors[1] / errors[2] == pytest.approx(2, rel=0.25)
    z = ddim_invert(model, schedule, x0, n_steps=1000)
    expected = (x0 - MEAN) / VARIANCE**0.5  # the flow's map from N(m, v) to N(0, 1)
    assert float((z - expected).abs().max()) < 0.05


def test_steps_calls_and_indices(generator):
    schedule, calls, seen = DiscreteSchedule(TABLES["linear"]), [], []

    def noise_model(x, t):
        calls.append((t.tolist(), t.dtype, torch.is_grad_enabled()))
        return curved(x, t)

    x = torch.randn(2, 1, 3, 3, generator=generator)
    out = ddim_sample(noise_model, schedule, x, n_steps=4, on_step=lambda i, t, x: seen.append((i, float(t))))
    assert calls == [([t, t], torch.long, False) for t in (999, 749, 499, 249)]
    assert seen == [(0, 749.0), (1, 499.0), (2, 249.0), (3, -1.0)]
    assert (out.shape, out.dtype) == (x.shape, x.dtype)
    calls.clear()
    ddpm_sample(noise_model, DiscreteSchedule(TABLES["short"]), x)
    assert [call[0] for call in calls] == [[t, t] for t in range(19, -1, -1)]


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_indices_are_exact_whatever_the_states_dtype(dtype):
    """bfloat16 has no 999, float16 no 3001."""
    schedule, x, seen = DiscreteSchedule(linear_betas(4000, 1e-5, 5e-3)), torch.randn(2, 3).to(dtype), []

    def noise_model(x, t):
        seen.append(t.tolist())
        return 0 * x

    ddpm_sample(noise_model, schedule, x)
    assert seen == [[t, t] for t in range(3999, -1, -1)]
    seen.clear()
    ddim_sample(noise_model, schedule, x, n_steps=8)
    ddim_invert(noise_model, schedule, x, n_steps=8)
    down = [3999, 3499, 2999, 2499, 1999, 1499, 999, 499]
    assert [t[0] for t in seen] == [*down, *reversed(down)]
    seen.clear()
    variational_bound(noise_model, schedule, x)
    assert sorted(t[0] for t in seen) == list(range(4000))
    seen.clear()
    ddpm_loss(noise_model, schedule, torch.zeros(5000, 1, dtype=dtype), generator=torch.Generator().manual_seed(0))
    assert len(set(seen[0])) > 2700  # of 4,000 (1 - exp(-5/4)) = 2,854; bfloat16 tells 500 apart


@pytest.mark.parametrize(
    "t",
    [3, np.int64(3), [3, 3, 3, 3], torch.full((4,), 3, dtype=torch.uint8), torch.tensor(3, dtype=torch.int16),
     torch.tensor(3, dtype=torch.uint8), np.full(4, 3, np.int32)],
)  # fmt: skip
def test_perturb_takes_integers_of_every_kind(t):
    """A tensor of bytes is no mask."""
    schedule, x0 = DiscreteSchedule(linear_betas(4, 0.1, 0.4)), torch.ones(4, 2, dtype=torch.float64)
    signal = schedule.perturb(x0, t, 0 * x0)
    torch.testing.assert_close(signal, schedule.alpha_bar[3].sqrt().expand(4, 2))


@pytest.mark.parametrize("t", [True, torch.ones(4, dtype=torch.bool), 1.0, [1.0] * 4, "3", None, torch.ones(4)])
def test_perturb_refuses_what_is_no_index(t):
    with pytest.raises(TypeError, match=r"^t: expected integers, got"):
        SHORT.perturb(torch.ones(4, 2), t, torch.ones(4, 2))


def test_the_bound_of_no_points_is_empty_and_the_loss_refused():
    empty = torch.zeros(0, 3)
    assert variational_bound(curved, SHORT, empty).shape == (0, 21)
    with pytest.raises(ValueError, match=r"^x: expected at least one point"):
        ddpm_loss(curved, SHORT, empty)


def test_point_mass_is_recovered_exactly():
    """E[noise | x_t] for a point: the last step ends at alpha_bar = 1, so nothing of the noise is left."""
    schedule = DiscreteSchedule(TABLES["short"])
    out = ddim_sample(exact(schedule, 0.7, 0.0), schedule, torch.randn(50, 2).double(), n_steps=7, eta=0.5)
    torch.testing.assert_close(out, torch.full_like(out, 0.7), rtol=0, atol=1e-12)


# -- the bound ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("variance", ["posterior", "beta"])
def test_bound_of_the_exact_model_is_its_closed_form(variance, generator):
    """Term by term, averaged over data N(m, v I) in 3 dimensions: KL divergences between Gaussians."""
    schedule, d, n = DiscreteSchedule(TABLES["short"]), 3, 60_000
    x = MEAN + VARIANCE**0.5 * torch.randn(n, d, generator=generator, dtype=torch.float64)
    terms = variational_bound(exact(schedule), schedule, x, variance=variance, generator=generator)
    assert terms.shape == (n, 21)
    a = float(schedule.alpha_bar[-1])
    expected = [0.5 * d * (a * (MEAN**2 + VARIANCE) - a - math.log(1 - a))]
    for t in reversed(range(20)):
        b, a = float(schedule.betas[t]), float(schedule.alpha_bar[t])
        before = float(schedule.alpha_bar[t - 1]) if t else 1.0
        posterior = b * (1 - before) / (1 - a)
        chosen = b if variance == "beta" or t == 0 else posterior
        # E|x0 - E[x0 | x_t]|^2 per dimension, times the square of x0's coefficient in the posterior's mean
        error = (math.sqrt(before) * b / (1 - a)) ** 2 * VARIANCE * (1 - a) / (a * VARIANCE + 1 - a)
        if t:
            ratio = posterior / chosen
            expected.append(0.5 * d * (ratio - 1 - math.log(ratio) + error / chosen))
        else:
            expected.append(0.5 * d * (math.log(2 * math.pi * b) + error / b))
    deviations = terms.std(0) / n**0.5
    assert bool(((terms.mean(0) - torch.tensor(expected).double()).abs() < 4 * deviations + 1e-9).all())
    entropy = 0.5 * d * math.log(2 * math.pi * math.e * VARIANCE)
    assert sum(expected) > entropy, "a bound"


def test_bound_is_tight_for_many_small_steps_with_the_right_variance(generator):
    """For Gaussian data the reverse steps' variance is nearly beta; with the posterior's, 1.37 nats are lost in 3-D."""
    schedule = DiscreteSchedule(TABLES["linear"])
    x = MEAN + VARIANCE**0.5 * torch.randn(400, 3, generator=generator, dtype=torch.float64)
    nll = 0.5 * ((x - MEAN) ** 2 / VARIANCE + math.log(2 * math.pi * VARIANCE)).sum(1)
    for variance, low, high in (("beta", 0.0, 0.05), ("posterior", 0.5, 2.0)):
        bound = variational_bound(exact(schedule), schedule, x, variance=variance, generator=generator).sum(1)
        gap, error = float((bound - nll).mean()), float((bound - nll).std()) / 20
        assert low - 4 * error < gap < high + 4 * error, variance


# -- refusals ----------------------------------------------------------------------------------------------------------

SHORT = DiscreteSchedule(TABLES["short"])
X = torch.zeros(2, 3)


@pytest.mark.parametrize(
    ("call", "match"),
    [
        (lambda: linear_betas(0), r"^n: expected at least 1"),
        (lambda: linear_betas(5, 0.3, 0.2), r"^start, end: expected 0 < start <= end < 1"),
        (lambda: cosine_betas(5, 0.0), r"^s: expected values > 0"),
        (
            lambda: DiscreteSchedule(torch.tensor([0.1, 1.0])),
            r"^betas: expected shape \(N,\) with values between 0 and 1",
        ),
        (lambda: DiscreteSchedule(torch.ones(2, 2) / 2), r"^betas"),
        (lambda: SHORT.perturb(X, torch.tensor([0, 20]), X), r"^t: expected 0 to 19, got 0 to 20"),
        (lambda: SHORT.perturb(X, torch.tensor([0.0, 1.0]), X), r"^t: expected integers"),
        (lambda: ddpm_loss(lambda x, t: x[:1], SHORT, X), r"^score's value|^noise_model's value"),
        (lambda: ddpm_sample(curved, SHORT, X, variance="large"), r"^variance: expected one of 'posterior', 'beta'"),
        (lambda: ddpm_sample(curved, SHORT, X / 0), r"^x: has NaN"),
        (lambda: ddim_sample(curved, SHORT, X, n_steps=21), r"^n_steps: expected at most the schedule's 20, got 21"),
        (lambda: ddim_sample(curved, SHORT, X, n_steps=0), r"^n_steps: expected at least 1"),
        (lambda: ddim_sample(curved, SHORT, X, n_steps=5, eta=1.5), r"^eta: expected a number in \[0, 1\]"),
        (
            lambda: ddim_sample(curved, SHORT, X, indices=torch.tensor([3, 5])),
            r"^indices: expected strictly decreasing",
        ),
        (
            lambda: ddim_sample(curved, SHORT, X, indices=torch.tensor([20, 5])),
            r"^indices: expected 0 to 19, got 5 to 20",
        ),
        (lambda: ddim_sample(curved, SHORT, X, indices=torch.tensor([5.0])), r"^indices: expected integers"),
        (lambda: variational_bound(curved, SHORT, X, variance="learned"), r"^variance"),
    ],
)
def test_refusals(call, match):
    with pytest.raises((ValueError, TypeError), match=match):
        call()
