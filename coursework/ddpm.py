"""Diffusion models in N discrete steps: schedules, losses, the variational bound, DDPM and DDIM sampling (lesson 12).

x_t = sqrt(alpha_bar_t) x_0 + sqrt(1 - alpha_bar_t) noise for the indices t = 0 ... N - 1, from the least noisy to the
noisiest; the papers count them from 1. A noise model is called as noise_model(x, t) with x (B, *S) and the indices t,
long (B,), and answers like x.
"""

import math
from collections.abc import Callable

import torch
from torch import Tensor

from coursework._arguments import (
    at_least,
    expand,
    finite,
    flat_sum,
    floating,
    indices,
    like,
    n_dims,
    number,
    one_of,
    positive_number,
    settled,
    some,
    wide,
)
from coursework._loops import OnStep, check_generator, check_start, columns, normal_like, sampling, score_at, walk

NoiseModel = Callable[[Tensor, Tensor], Tensor]
VARIANCES = ("posterior", "beta")


def linear_betas(n: int = 1000, start: float = 1e-4, end: float = 0.02) -> Tensor:
    """beta_t equally spaced from start to end. Shape: (n,), float64. Source: Ho et al. 2020, section 4."""
    n, start, end = at_least(n, 1, "n"), number(start, "start"), number(end, "end")
    if not 0 < start <= end < 1:
        raise ValueError(f"start, end: expected 0 < start <= end < 1, got {start}, {end}")
    return torch.linspace(start, end, n, dtype=torch.float64, device="cpu")


def cosine_betas(n: int, s: float = 0.008) -> Tensor:
    """beta_t = min(1 - alpha_bar_t / alpha_bar_{t-1}, 0.999), alpha_bar_t = f(t) / f(0), t = 1 ... n.

    f(t) = cos^2( (t/n + s) / (1 + s) pi/2 ). Shape: (n,), float64. Source: Nichol & Dhariwal 2021, eq. 17.
    """
    n, s = at_least(n, 1, "n"), positive_number(s, "s")
    t = torch.arange(n + 1, dtype=torch.float64, device="cpu") / n
    f = torch.cos((t + s) / (1 + s) * math.pi / 2) ** 2
    return (1 - f[1:] / f[:-1]).clamp(max=0.999)


class DiscreteSchedule:
    """What follows from beta_0 ... beta_{N-1}: (N,) float64 tensors on the CPU, index 0 the least noisy.

    alpha_bar_t = prod_{s <= t} (1 - beta_s), and 1 before index 0. q(x_{t-1} | x_t, x_0) is the Gaussian of mean
    `posterior_data` x_0 + `posterior_noisy` x_t and variance `posterior_variance`:
    sqrt(alpha_bar_{t-1}) beta_t / (1 - alpha_bar_t),  sqrt(1 - beta_t) (1 - alpha_bar_{t-1}) / (1 - alpha_bar_t),
    beta_t (1 - alpha_bar_{t-1}) / (1 - alpha_bar_t), the last one 0 at index 0.
    Raises ValueError unless betas is (N,) with values in (0, 1). Source: Ho et al. 2020, eq. 4, 6 and 7.
    """

    def __init__(self, betas: Tensor) -> None:
        floating(betas, "betas")
        finite(betas, "betas")
        if betas.ndim != 1 or not len(betas) or not settled((betas > 0) & (betas < 1)):
            raise ValueError(f"betas: expected shape (N,) with values between 0 and 1, got {_describe(betas)}")
        self.betas = betas.detach().double().cpu()
        self.alpha_bar = torch.cumprod(1 - self.betas, 0)
        self.alpha_bar_before = torch.cat([self.alpha_bar.new_ones(1), self.alpha_bar[:-1]])
        before, noise = self.alpha_bar_before, 1 - self.alpha_bar
        self.posterior_data = before.sqrt() * self.betas / noise
        self.posterior_noisy = (1 - self.betas).sqrt() * (1 - before) / noise
        self.posterior_variance = self.betas * (1 - before) / noise

    def __len__(self) -> int:
        return len(self.betas)

    def perturb(self, x0: Tensor, t: Tensor, noise: Tensor) -> Tensor:
        """x_t = sqrt(alpha_bar_t) x_0 + sqrt(1 - alpha_bar_t) noise. Shapes: x0, noise (B, *S).

        t: integers of any kind from 0 to N - 1, one or (B,).
        """
        floating(x0, "x0")
        like(noise, x0, "noise", "x0")
        alpha_bar = self._at(t, x0)
        return expand(alpha_bar.sqrt(), x0, "t") * x0 + expand((1 - alpha_bar).sqrt(), x0, "t") * noise

    def _at(self, t: Tensor | int, x: Tensor) -> Tensor:
        t = indices(t, 0, len(self), "t")
        return self.alpha_bar.to(t.device)[t].to(x.device)


def ddpm_loss(
    noise_model: NoiseModel, schedule: DiscreteSchedule, x: Tensor, *, generator: torch.Generator | None = None
) -> Tensor:
    """L_simple = E |noise - noise_model(x_t, t)|^2, t uniform on the indices, mean over all elements.

    Shapes: x (B, *S) -> (). Its gradient reaches the model's parameters. Source: Ho et al. 2020, eq. 14.
    """
    some(x, "x")
    check_generator(generator, x)
    t = torch.randint(len(schedule), (len(x),), generator=generator, device=x.device)
    noise = normal_like(x, generator)
    value = score_at(noise_model, schedule.perturb(x, t, noise), t)
    return (noise - value).square().mean()


def ddpm_sample(
    noise_model: NoiseModel,
    schedule: DiscreteSchedule,
    x: Tensor,
    *,
    variance: str = "posterior",
    generator: torch.Generator | None = None,
    on_step: OnStep | None = None,
) -> Tensor:
    """Ancestral sampling, N network calls from the last index to the first:

    x <- (x - beta_t / sqrt(1 - alpha_bar_t) noise_model(x, t)) / sqrt(1 - beta_t) + sigma_t z, z ~ N(0, I), no noise in
    the last step. variance: sigma_t^2 is the posterior's, beta_t (1 - alpha_bar_{t-1}) / (1 - alpha_bar_t), or "beta".

    Shapes: x (B, *S), from N(0, I) -> (B, *S). `on_step(i, t, x)` gets the index that x has then, -1 at the end.
    Source: Ho et al. 2020, algorithm 2.
    """
    check_start(noise_model, x, generator)
    one_of(variance, VARIANCES, "variance")
    sigma = (schedule.posterior_variance if variance == "posterior" else schedule.betas).sqrt()
    sigma = torch.cat([sigma.new_zeros(1), sigma[1:]])
    scale, weight = (1 - schedule.betas).rsqrt(), schedule.betas / (1 - schedule.alpha_bar).sqrt()
    t = torch.arange(len(schedule) - 1, -2, -1, device=x.device)
    scale, weight, sigma = columns(x, *(v.flip(0) for v in (scale, weight, sigma)))

    def step(i: int, x: Tensor) -> Tensor:
        mean = scale[i] * (x - weight[i] * score_at(noise_model, x, t[i].expand(len(x))))
        return mean + sigma[i] * normal_like(x, generator) if i < len(schedule) - 1 else mean

    return walk(step, x, t, on_step)


def ddim_sample(
    noise_model: NoiseModel,
    schedule: DiscreteSchedule,
    x: Tensor,
    *,
    n_steps: int = 50,
    indices: Tensor | None = None,
    eta: float = 0.0,
    generator: torch.Generator | None = None,
    on_step: OnStep | None = None,
) -> Tensor:
    """DDIM along a sub-sequence of the indices: from index t to the next, t', with a = alpha_bar and e the noise model,

    x0_hat = (x - sqrt(1 - a_t) e) / sqrt(a_t);  x <- sqrt(a_t') x0_hat + sqrt(1 - a_t' - s^2) e + s z,
    s = eta sqrt((1 - a_t') / (1 - a_t)) sqrt(1 - a_t / a_t'). After the last index a_t' = 1: x0_hat itself.
    eta = 0 needs no random numbers; eta = 1 on all indices is `ddpm_sample`.

    indices: decreasing integers (n,); else n_steps of them, round(N - k N / n_steps) - 1, k = 0, 1, ... ("trailing"
    spacing, from the last index on). Shapes: x (B, *S), from N(0, I) where the first index is the last one -> (B, *S).
    `on_step(i, t, x)` gets the index that x has then, -1 at the end. Source: Song, Meng & Ermon 2021, eq. 12 and 16.
    """
    check_start(noise_model, x, generator)
    eta = number(eta, "eta")
    if not 0 <= eta <= 1:
        raise ValueError(f"eta: expected a number in [0, 1], got {eta}")
    chosen = _trailing(schedule, n_steps) if indices is None else _decreasing(indices, schedule)
    now = schedule.alpha_bar[chosen]
    later = torch.cat([now[1:], now.new_ones(1)])
    spread = eta * ((1 - later) / (1 - now)).sqrt() * (1 - now / later).sqrt()
    rest = (1 - later - spread**2).clamp(min=0).sqrt()
    forget, signal, keep, s, rest = columns(x, (1 - now).sqrt(), now.rsqrt(), later.sqrt(), spread, rest)
    t = torch.cat([chosen, chosen.new_tensor([-1])]).to(x.device)

    def step(i: int, x: Tensor) -> Tensor:
        noise = score_at(noise_model, x, t[i].expand(len(x)))
        x = keep[i] * signal[i] * (x - forget[i] * noise) + rest[i] * noise
        return x + s[i] * normal_like(x, generator) if eta > 0 and i < len(chosen) - 1 else x

    return walk(step, x, t, on_step)


def ddim_invert(noise_model: NoiseModel, schedule: DiscreteSchedule, x0: Tensor, *, n_steps: int) -> Tensor:
    """DDIM (eta = 0) backwards, from data to the last index: `ddim_sample` with as many steps leads back to about x0.

    A step of the sampler from t to t' uses the noise model at its start, which its inverse does not know yet: it takes
    e = noise_model(x_t', t) instead: x_t = sqrt(a_t) (x_t' - sqrt(1 - a_t') e) / sqrt(a_t') + sqrt(1 - a_t) e. The
    error vanishes as n_steps grows. Shapes: (B, *S) -> (B, *S). Source: Song, Meng & Ermon 2021, section 4.3.
    """
    check_start(noise_model, x0)
    upwards = _trailing(schedule, n_steps).flip(0)
    later = schedule.alpha_bar[upwards]
    now = torch.cat([later.new_ones(1), later[:-1]])
    forget, signal, keep, rest = columns(x0, (1 - now).sqrt(), now.rsqrt(), later.sqrt(), (1 - later).sqrt())
    t = torch.cat([upwards[:1], upwards]).to(x0.device)

    def step(i: int, x: Tensor) -> Tensor:
        noise = score_at(noise_model, x, t[i + 1].expand(len(x)))
        return keep[i] * signal[i] * (x - forget[i] * noise) + rest[i] * noise

    return walk(step, x0, t, None)


def variational_bound(
    noise_model: NoiseModel,
    schedule: DiscreteSchedule,
    x: Tensor,
    *,
    variance: str = "posterior",
    generator: torch.Generator | None = None,
) -> Tensor:
    """The terms of a bound on -log p(x), in nats, (B, N + 1): their sum is the bound, each from one random x_t.

    Column 0: KL( q(x_{N-1} | x) || N(0, I) ). Columns 1 ... N - 1, from the noisiest index t = N - 1 down to 1:
    KL( q(x_{t-1} | x_t, x) || N(mu_t, sigma_t^2 I) ), mu_t `ddpm_sample`'s mean, sigma_t^2 its variance. Column N: the
    decoder, -log N(x; mu_0, beta_0 I). N network calls, without a graph. Shapes: x (B, *S) -> (B, N + 1).
    Source: Ho et al. 2020, eq. 5; Sohl-Dickstein et al. 2015.
    """
    check_start(noise_model, x, generator)
    one_of(variance, VARIANCES, "variance")
    x = x.detach()
    if not len(x):
        return x.new_zeros(0, len(schedule) + 1)
    dims, last = n_dims(x), schedule.alpha_bar[-1]
    chosen = schedule.posterior_variance if variance == "posterior" else schedule.betas
    chosen = torch.cat([schedule.betas[:1], chosen[1:]])
    ratio = schedule.posterior_variance / chosen
    excess = 0.5 * dims * (ratio - 1 - torch.where(ratio > 0, ratio, 1).log())
    excess[0] = 0.5 * dims * math.log(2 * math.pi * float(schedule.betas[0]))  # of the decoder's density
    # The mean's error is posterior_data times that of x_0, which is sqrt((1 - a) / a) times that of the noise.
    weight = schedule.posterior_data**2 * (1 - schedule.alpha_bar) / schedule.alpha_bar / (2 * chosen)
    scale, spread, weight, excess = columns(
        x, schedule.alpha_bar.sqrt(), (1 - schedule.alpha_bar).sqrt(), weight, excess
    )
    t = torch.arange(len(schedule), device=x.device)
    prior = 0.5 * (flat_sum(wide(x) ** 2) * last + dims * (-last - torch.log1p(-last)))
    terms = [prior.to(x.dtype)]
    with sampling(x):
        for i in reversed(range(len(schedule))):
            noise = normal_like(x, generator)
            value = score_at(noise_model, scale[i] * x + spread[i] * noise, t[i].expand(len(x)))
            terms.append(weight[i] * flat_sum((noise - value) ** 2) + excess[i])
    return torch.stack(terms, 1)


def _trailing(schedule: DiscreteSchedule, n_steps: int) -> Tensor:
    n_steps = at_least(n_steps, 1, "n_steps")
    n = len(schedule)
    if n_steps > n:
        raise ValueError(f"n_steps: expected at most the schedule's {n}, got {n_steps}")
    return torch.round(n - torch.arange(n_steps, dtype=torch.float64, device="cpu") * n / n_steps).long() - 1


def _decreasing(value: Tensor, schedule: DiscreteSchedule) -> Tensor:
    value = indices(value, 0, len(schedule), "indices").cpu()
    if value.ndim != 1 or not len(value):
        raise ValueError(f"indices: expected integers (n,), got shape {tuple(value.shape)}")
    if not settled(value.diff() < 0):
        raise ValueError("indices: expected strictly decreasing values")
    return value


def _describe(value: object) -> str:
    if not isinstance(value, Tensor):
        return type(value).__name__
    return f"{value.dtype} {tuple(value.shape)}" + (f", {value.min():g} to {value.max():g}" if value.numel() else "")
