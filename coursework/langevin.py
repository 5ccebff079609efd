"""Langevin dynamics: samples from a score that knows no time (lesson 05). Here a score is a function of x alone."""

import math
from collections.abc import Callable

import torch
from torch import Tensor

from coursework._arguments import at_least, flat_sum, positive_number, wide
from coursework._loops import OnStep, check_start, normal_like, value_at, walk
from coursework.distributions import Density


def langevin(
    score: Callable[[Tensor], Tensor],
    x: Tensor,
    step_size: float,
    n_steps: int,
    *,
    temperature: float = 1.0,
    generator: torch.Generator | None = None,
    on_step: OnStep | None = None,
) -> Tensor:
    """Unadjusted Langevin algorithm, x <- x + step_size/2 s(x) + sqrt(step_size temperature) z, z ~ N(0, I).

    The Euler-Maruyama scheme of dx = s(x)/2 dt + sqrt(temperature) dw, whose invariant law is p^(1/temperature) where
    s = grad log p. With eta = step_size / 2 the same step reads x + eta s + sqrt(2 eta temperature) z. At a fixed step
    the chain's own law differs from it: on N(0, v) its variance is v / (1 - step_size / (4 v)), for step_size < 4 v.

    Shapes: x (B, *S) -> (B, *S). `on_step(i, t, x)` gets the SDE's time t = (i + 1) step_size.
    Raises ValueError for step_size <= 0, n_steps < 1, temperature <= 0, x that is not finite.
    Source: Roberts & Tweedie 1996, section 1.4.1 (temperature 1).
    """
    check_start(score, x, generator)
    step_size, times = _elapsed(step_size, n_steps)
    temperature = positive_number(temperature, "temperature")
    size = math.sqrt(step_size * temperature)

    def step(_: int, x: Tensor) -> Tensor:
        return x + 0.5 * step_size * value_at(score, x) + size * normal_like(x, generator)

    return walk(step, x, times, on_step)


def mala(
    density: Density,
    x: Tensor,
    step_size: float,
    n_steps: int,
    *,
    generator: torch.Generator | None = None,
    on_step: OnStep | None = None,
) -> tuple[Tensor, Tensor]:
    """Metropolis-adjusted Langevin algorithm: the law `density` is exactly invariant, at any step size.

    Propose y = x + step_size/2 s(x) + sqrt(step_size) z; accept it with probability
    min(1, p(y) q(x | y) / (p(x) q(y | x))), q(y | x) = N(y; x + step_size/2 s(x), step_size I); otherwise stay at x.

    Shapes: x (B, *S) -> the chains' states (B, *S), and the share of accepted proposals over all chains and steps, 0-d
    (NaN for an empty batch). Raises ValueError for step_size <= 0, n_steps < 1, x that is not finite.
    Source: Roberts & Tweedie 1996, section 1.4.1.
    """
    check_start(density.score, x, generator)
    step_size, times = _elapsed(step_size, n_steps)
    dtype, x = x.dtype, wide(x)  # acceptance compares small differences of large numbers
    accepted = x.new_zeros(len(x))
    current, log_p, value = x, density.log_prob(x), value_at(density.score, x)

    def log_q(y: Tensor, x: Tensor, value: Tensor) -> Tensor:
        return -flat_sum((y - x - 0.5 * step_size * value) ** 2) / (2 * step_size)

    def step(_: int, x: Tensor) -> Tensor:
        nonlocal current, log_p, value, accepted
        if x is not current:  # on_step changed it
            log_p, value = density.log_prob(x), value_at(density.score, x)
        y = x + 0.5 * step_size * value + math.sqrt(step_size) * normal_like(x, generator)
        log_p_y, value_y = density.log_prob(y), value_at(density.score, y)
        log_ratio = log_p_y - log_p + log_q(x, y, value_y) - log_q(y, x, value)
        u = torch.rand(len(x), generator=generator, dtype=x.dtype, device=x.device)
        accept = u.log() < log_ratio
        log_p = torch.where(accept, log_p_y, log_p)
        value, accepted = _choose(accept, value_y, value), accepted + accept
        current = _choose(accept, y, x)
        return current

    x = walk(step, x, times, on_step)
    return x.to(dtype), accepted.mean() / (len(times) - 1)


def _elapsed(step_size: float, n_steps: int) -> tuple[float, Tensor]:
    """step_size, and the times 0, step_size, ..., n_steps step_size, after a check of both."""
    n_steps, step_size = at_least(n_steps, 1, "n_steps"), positive_number(step_size, "step_size")
    return step_size, step_size * torch.arange(n_steps + 1, dtype=torch.float64, device="cpu")


def _choose(condition: Tensor, a: Tensor, b: Tensor) -> Tensor:
    """a where the point's condition (B,) holds, b elsewhere."""
    return torch.where(condition.reshape(-1, *[1] * (a.ndim - 1)), a, b)
