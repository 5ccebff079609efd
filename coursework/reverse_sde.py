"""Solvers of the reverse-time SDE dx = (f x - g^2 s) dt + g dw, dt < 0: from noise to data (lesson 08).

All take any score(x, t), any linear SDE, and a state x (B, *S) at times[0], and return the state at times[-1].
`times` (n_steps + 1,) decreases strictly. Without `final_noise` the last step adds no noise: what it would add is noise
in the result. Every solver's formula is one step from t to s < t, with h = t - s, z ~ N(0, I), and, for any linear SDE,
r = alpha_t / alpha_s and G^2 = sigma_t^2 - r^2 sigma_s^2: x_t given x_s is N(r x_s, G^2 I).

`on_step(i, t, x)` is called after each step, with the time t that x has then; a tensor that it returns takes x's place.

All raise ValueError or TypeError for an x that is not a finite batch, times that do not decrease strictly or leave
[0, T], a generator on another device, and scores whose value is not a tensor like x.
"""

import math
from typing import Protocol

import torch
from torch import Tensor

from coursework._arguments import at_least, positive_number, wide_dtype
from coursework._loops import (
    OnStep,
    Step,
    TimedScore,
    after_step,
    check_noisy,
    check_start,
    check_times,
    columns,
    normal_like,
    sampling,
    score_at,
    score_times,
    time_like,
    walk,
)
from coursework.sdes import SDE, as_time, end_time

ROUNDING = 1e-13  # differences of times below it are rounding errors


class Solver(Protocol):
    """The signature that the fixed-grid solvers of this module share."""

    def __call__(
        self,
        score: TimedScore,
        sde: SDE,
        x: Tensor,
        times: Tensor,
        *,
        final_noise: bool = False,
        generator: torch.Generator | None = None,
        on_step: OnStep | None = None,
    ) -> Tensor:
        """The state at times[-1]."""
        ...


def euler_maruyama(
    score: TimedScore,
    sde: SDE,
    x: Tensor,
    times: Tensor,
    *,
    final_noise: bool = False,
    generator: torch.Generator | None = None,
    on_step: OnStep | None = None,
) -> Tensor:
    """Euler-Maruyama, weak order 1: x <- x - h (f(t) x - g(t)^2 s(x, t)) + g(t) sqrt(h) z.

    Shapes: x (B, *S) at times[0] -> (B, *S) at times[-1]. Source: Song et al. 2021, eq. 6, discretised.
    """
    times = _checked(score, sde, x, times, generator)
    t, h = times[:-1], -times.diff()
    f, g = sde.drift_coefficient(t), sde.diffusion(t)
    return _linear(score, sde, x, times, (1 - h * f, h * g**2, g * h.sqrt()), final_noise, generator, on_step)


def reverse_diffusion(
    score: TimedScore,
    sde: SDE,
    x: Tensor,
    times: Tensor,
    *,
    final_noise: bool = False,
    generator: torch.Generator | None = None,
    on_step: OnStep | None = None,
) -> Tensor:
    """Reverse diffusion, weak order 1: x <- (2 - r) x + G^2 s(x, t) + G z, the forward kernel's own r and G.

    Shapes: x (B, *S) at times[0] -> (B, *S) at times[-1]. Source: Song et al. 2021, appendix E: there the
    forward step is x_t = x_s + f_s(x_s) + G z, and f = (r - 1) x is taken off again.
    """
    times = _checked(score, sde, x, times, generator)
    r, g2 = transition(sde, times)
    return _linear(score, sde, x, times, (2 - r, g2, g2.sqrt()), final_noise, generator, on_step)


def ancestral(
    score: TimedScore,
    sde: SDE,
    x: Tensor,
    times: Tensor,
    *,
    final_noise: bool = False,
    generator: torch.Generator | None = None,
    on_step: OnStep | None = None,
) -> Tensor:
    """Ancestral sampling, weak order 1: x <- (x + G^2 s(x, t)) / r + G (sigma_s / sigma_t) z.

    That is q(x_s | x_t, x_0) with Tweedie's estimate in the place of x_0: on VP the sampler of DDPM with its smaller
    variance. Exact for data that is a single point, whatever the grid.
    Shapes: x (B, *S) at times[0] -> (B, *S) at times[-1].
    Source: Ho et al. 2020, eqs. 6 and 7; Song et al. 2021, appendix F.
    """
    times = _checked(score, sde, x, times, generator)
    r, g2 = transition(sde, times)
    sigma = sde.sigma(times)
    noise = g2.sqrt() * sigma[1:] / sigma[:-1]
    return _linear(score, sde, x, times, (1 / r, g2 / r, noise), final_noise, generator, on_step)


def stochastic_heun(
    score: TimedScore,
    sde: SDE,
    x: Tensor,
    times: Tensor,
    *,
    final_noise: bool = False,
    generator: torch.Generator | None = None,
    on_step: OnStep | None = None,
) -> Tensor:
    """Stochastic Heun, weak order 2, two score calls a step. With the reverse drift a(x, t) = f(t) x - g(t)^2 s(x, t):

    y = x - h a(x, t) + n z,  x <- x - h/2 (a(x, t) + a(y, s)) + n z,  n^2 = h/2 (g(t)^2 + g(s)^2), the same z twice.

    Shapes: x (B, *S) at times[0] -> (B, *S) at times[-1]. Also raises where sigma(times[-1]) is 0: the score is asked
    there. Source: Kloeden & Platen 1992, section 15.1, whose order needs no more than that for noise without x in it.
    """
    times = _checked(score, sde, x, times, generator)
    h, g2 = -times.diff(), sde.diffusion(times) ** 2
    drift = _reverse_drift(score, sde, x, times)
    h, n = columns(x, h, torch.sqrt(0.5 * h * (g2[:-1] + g2[1:])))
    last = len(h) - 1

    def step(i: int, x: Tensor) -> Tensor:
        noise = n[i] * normal_like(x, generator) if final_noise or i < last else 0.0
        a = drift(i, x)
        y = x - h[i] * a + noise
        return x - 0.5 * h[i] * (a + drift(i + 1, y)) + noise

    return walk(step, x, times, on_step)


def predictor_corrector(
    score: TimedScore,
    sde: SDE,
    x: Tensor,
    times: Tensor,
    *,
    predictor: Solver = reverse_diffusion,
    n_corrector_steps: int = 1,
    snr: float = 0.16,
    generator: torch.Generator | None = None,
    on_step: OnStep | None = None,
) -> Tensor:
    """At every time t of the grid: Langevin steps on p_t (the corrector), then one predictor step from t to s.

    Corrector: x <- x + e s(x, t) + sqrt(2 e) z,  e = 2 r^2 (snr |z| / |s|)^2, with |z| and |s| averaged over the batch;
    no step where the score is 0 everywhere. On VP r^2 is 1 - beta_i, on VE 1. The last predictor step adds no noise.
    Because snr is fixed, the corrector's own law is too wide: on N(0, v I) its variance is v (1 + snr^2) in large
    batches, 1.026 v at snr = 0.16.

    `predictor` is a solver of this module, or another that goes on with the state that its `on_step` returns.

    Shapes: x (B, *S) at times[0] -> (B, *S) at times[-1]. Also raises for n_corrector_steps < 0 and snr <= 0.
    Score calls: n_steps (n_corrector_steps + those of one predictor step).
    Source: Song et al. 2021, algorithms 4 and 5; the order and the batch means are those of their code.
    """
    times = _checked(score, sde, x, times, generator)
    n_corrector_steps, snr = at_least(n_corrector_steps, 0, "n_corrector_steps"), positive_number(snr, "snr")
    t, (r,) = score_times(x, times[:-1], sde), columns(x, transition(sde, times)[0])

    def correct(i: int, x: Tensor) -> Tensor:
        for _ in range(n_corrector_steps):
            s, z = score_at(score, x, t[i]), normal_like(x, generator)
            size = _mean_norm(s)
            ratio = _mean_norm(z) / size.where(size > 0, math.inf)  # a score of 0 everywhere moves nothing
            e = (2 * (r[i] * snr * ratio) ** 2).to(x.dtype)
            x = x + e * s + torch.sqrt(2 * e) * z
        return x

    def correct_next(i: int, time: Tensor, x: Tensor) -> Tensor:
        x = after_step(on_step, i, time, x)
        return correct(i + 1, x) if i + 1 < len(t) else x

    if not len(x):
        return x
    with sampling(x):
        return predictor(score, sde, correct(0, x), times, generator=generator, on_step=correct_next)


def adaptive_sde(
    score: TimedScore,
    sde: SDE,
    x: Tensor,
    *,
    rtol: float,
    atol: float,
    t_min: float | None = None,
    generator: torch.Generator | None = None,
    on_step: OnStep | None = None,
) -> tuple[Tensor, int]:
    """From T to t_min by stochastic Heun steps whose size follows their distance to the Euler-Maruyama step.

    With y the Euler-Maruyama and x' the Heun step of the same noise, e = rms((x' - y) / (atol + rtol max(|x|, |x'|)))
    of each point, and E the largest e of the batch: E <= 1 accepts x', and h <- h min(5, max(1/5, 0.9 E^(-2/3))) in any
    case, because the two steps differ by O(h^(3/2)). A rejected step keeps its noise: the shorter one's is drawn from
    the Brownian bridge, the rest is used later; fresh noise would prefer small draws. The last step may be a long one,
    so it adds its noise too; what is left at t_min is taken off by x <- x + sigma^2 s(x, t_min).

    Shapes: x (B, *S) at T -> the state at t_min (B, *S), and the number of score calls: one for each accepted step, one
    for each attempt, one at the end. Raises ValueError for tolerances <= 0, and where the step size vanishes.
    Source: the pair of Jolicoeur-Martineau et al. 2021, algorithm 1; the bridge of Rackauckas & Nie 2017.
    """
    check_start(score, x, generator)
    rtol, atol = positive_number(rtol, "rtol"), positive_number(atol, "atol")
    end = end_time(sde, t_min)
    times = check_times(torch.tensor([sde.T, end], dtype=torch.float64, device="cpu"), sde)
    check_noisy(times, sde)
    if not len(x):
        return x, 0
    path = _BrownianPath(x, generator)
    t, h_next, n_steps, n_calls, drift = sde.T, (sde.T - end) / 100, 0, 0, None
    with sampling(x):
        while t > end:
            h = min(h_next, t - end)
            s = t - h if t - h > end + ROUNDING else end
            w = path.draw(h)
            if drift is None:
                drift, n_calls = _drift(score, sde, x, t), n_calls + 1
            noise = math.sqrt(0.5 * (_g2(sde, t) + _g2(sde, s))) * w
            y = x - h * drift + noise
            x_next, n_calls = x - 0.5 * h * (drift + _drift(score, sde, y, s)) + noise, n_calls + 1
            error = _error(x_next - y, atol + rtol * torch.maximum(x.abs(), x_next.abs()))
            h_next = h * min(5.0, max(0.2, 0.9 * max(error, 1e-6) ** (-2 / 3)))
            if error <= 1:
                x, t, drift, n_steps = x_next, s, None, n_steps + 1
                x = after_step(on_step, n_steps - 1, as_time(t), x)
                continue
            path.put_back()
            if h_next < ROUNDING:
                raise ValueError(f"rtol, atol: the step size vanishes at t = {t:g}; too small, or the score fails")
        time = as_time(end)
        x = x + float(sde.sigma(time)) ** 2 * score_at(score, x, time_like(time, x))
    return x, n_calls + 1


class _BrownianPath:
    """Increments of one Brownian path in the order of time; what was put back comes again, cut by Brownian bridges."""

    def __init__(self, x: Tensor, generator: torch.Generator | None) -> None:
        self.x, self.generator = x.detach(), generator
        self.ahead: list[tuple[float, Tensor]] = []  # (duration, increment (B, *S)) of pieces known, the nearest last
        self.used: list[tuple[float, Tensor]] = []  # the pieces of the last draw

    def draw(self, h: float) -> Tensor:
        """The next increment over a time h, (B, *S)."""
        self.used = []
        while h > ROUNDING or not self.used:
            self.used.append(self._piece(h))
            h -= self.used[-1][0]
        return sum((w for _, w in self.used), torch.zeros_like(self.x))

    def put_back(self) -> None:
        """Let the pieces of the last draw come again, each as it was: a decision hung on their values."""
        self.ahead.extend(reversed(self.used))

    def _piece(self, h: float) -> tuple[float, Tensor]:
        """A fresh piece, or the nearest known one, cut at h."""
        if not self.ahead:
            return h, math.sqrt(h) * normal_like(self.x, self.generator)
        known, w = self.ahead.pop()
        if h > known - ROUNDING:
            return known, w
        part = h / known * w + math.sqrt(h * (known - h) / known) * normal_like(self.x, self.generator)
        self.ahead.append((known - h, w - part))
        return h, part


def _drift(score: TimedScore, sde: SDE, x: Tensor, t: float) -> Tensor:
    """f(t) x - g(t)^2 s(x, t)."""
    time = as_time(t)
    value = score_at(score, x, time_like(time, x))
    return float(sde.drift_coefficient(time)) * x - _g2(sde, t) * value


def _g2(sde: SDE, t: float) -> float:
    return float(sde.diffusion(as_time(t))) ** 2


def _error(difference: Tensor, scale: Tensor) -> float:
    """The largest root mean square over the batch; infinite where something is not a number."""
    error = float((difference / scale).detach().square().flatten(1).mean(1).max().sqrt())
    return math.inf if math.isnan(error) else error


def _checked(score: TimedScore, sde: SDE, x: Tensor, times: Tensor, generator: torch.Generator | None) -> Tensor:
    check_start(score, x, generator)
    return check_times(times, sde)


def transition(sde: SDE, times: Tensor) -> tuple[Tensor, Tensor]:
    """r = alpha_t / alpha_s and G^2 = sigma_t^2 - r^2 sigma_s^2 of every step, (n_steps,) each: q(x_t | x_s)'s.

    Raises what the solvers raise for times.
    """
    times = check_times(times, sde)
    alpha, sigma = sde.alpha(times), sde.sigma(times)
    r = alpha[:-1] / alpha[1:]
    return r, sigma[:-1] ** 2 - (r * sigma[1:]) ** 2


def _linear(
    score: TimedScore,
    sde: SDE,
    x: Tensor,
    times: Tensor,
    coefficients: tuple[Tensor, Tensor, Tensor],
    final_noise: bool,
    generator: torch.Generator | None,
    on_step: OnStep | None,
) -> Tensor:
    """x <- a x + b s(x, t) + c z with (a, b, c) for every step: what solvers with one score call have in common."""
    t = score_times(x, times[:-1], sde)
    a, b, c = columns(x, *coefficients)
    last = len(a) - 1

    def step(i: int, x: Tensor) -> Tensor:
        x = a[i] * x + b[i] * score_at(score, x, t[i])
        return x + c[i] * normal_like(x, generator) if final_noise or i < last else x

    return walk(step, x, times, on_step)


def _reverse_drift(score: TimedScore, sde: SDE, x: Tensor, times: Tensor) -> Step:
    """(i, x) -> f(t_i) x - g(t_i)^2 s(x, t_i)."""
    check_noisy(times, sde)
    t = score_times(x, times, sde)
    f, g2 = columns(x, sde.drift_coefficient(times), sde.diffusion(times) ** 2)
    return lambda i, x: f[i] * x - g2[i] * score_at(score, x, t[i])


def _mean_norm(x: Tensor) -> Tensor:
    return torch.linalg.vector_norm(x.flatten(1), dim=1, dtype=wide_dtype(x)).mean()
