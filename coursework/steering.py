"""Steering samples towards a reward: the law p(x) e^{r(x)} / Z, exactly, by guesses and by particles (lesson 22).

A reward is a function r(x), (B, *S) -> (B,): larger is better. The exact drift is Doob's h-transform, with
h(x, t) = E[e^{r(x_0)} | x_t = x]: its score is grad log p_t + grad log h. Everything here gives a score that every
solver takes, or samples.
"""

import math
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from coursework._arguments import at_least, batch, expand, flat_sum, floating, number, one_of
from coursework._loops import (
    OnStep,
    TimedScore,
    after_step,
    check_generator,
    check_noisy,
    check_start,
    check_times,
    columns,
    normal_like,
    sampling,
    score_at,
    score_times,
)
from coursework.distributions import GaussianMixture
from coursework.guidance import classifier_guidance
from coursework.predictions import tweedie
from coursework.sdes import SDE, as_time

Reward = Callable[[Tensor], Tensor]
NODES = {1: 64, 2: 32}  # of quadrature, in each dimension
PLACES = ("x0_hat", "x_t")
WIDEST = 2**22  # numbers at once


def h_transform(
    score: TimedScore,
    sde: SDE,
    density: GaussianMixture,
    reward: Reward,
    *,
    n_draws: int = 1024,
    generator: torch.Generator | None = None,
) -> TimedScore:
    """s + grad log h, h(x, t) = E[e^{r(x_0)} | x_t = x]: the exact score of the law p e^r / Z after noise.

    The gradient needs none of r: grad log h = alpha / sigma^2 (E[x_0 e^r | x_t] / E[e^r | x_t] - E[x_0 | x_t]).
    The means are over the exact law of x_0 given x_t, data ~ `density`: by Gauss-Hermite quadrature for each component
    in one and two dimensions, to 1e-6 for quadratic rewards that are no narrower than that law; by n_draws points for
    each component in more, the same at all x and t.

    Shapes of the score: x (B, D), t 0-d or (B,) -> (B, D). Source: Doob 1957; for diffusion models Uehara et al. 2024.
    """
    if not isinstance(density, GaussianMixture):
        raise TypeError(f"density: expected a GaussianMixture, got {type(density).__name__}")
    nodes, log_shares = _quadrature(density, at_least(n_draws, 1, "n_draws"), generator)

    def tilted(x: Tensor, t: Tensor) -> Tensor:
        if x.shape[1:] != (density.n_dims,):
            raise ValueError(f"x: expected shape (B, {density.n_dims}) like the density's points, got {tuple(x.shape)}")
        value = score_at(score, x, t)
        time = as_time(t).to(x.device).double()
        alpha, sigma = (each.expand(len(x)) for each in (sde.alpha(time), sde.sigma(time)))
        rows = max(1, WIDEST // (density.n_components * nodes.numel()))
        shifts = [
            _shift(density, reward, nodes, log_shares, *part)
            for part in zip(x.split(rows), alpha.split(rows), sigma.split(rows), strict=True)
        ]
        return value + expand(alpha / sigma**2, x, "t") * torch.cat(shifts) if shifts else value

    return tilted


def reward_guidance(
    score: TimedScore, sde: SDE, reward: Reward, *, at: str = "x0_hat", scale: float = 1.0
) -> TimedScore:
    """s + scale grad_x r(x0_hat(x, t)), x0_hat = (x + sigma^2 s) / alpha: a guess at grad log h; at="x_t": grad r(x).

    The reward of the mean instead of the mean of e^r: exact only for a linear reward and a Gaussian. What a solver
    samples with it depends on the solver. The gradient goes through the score.
    Source: Chung et al. 2023 (there for measurements); Bansal et al. 2023.
    """
    one_of(at, PLACES, "at")

    def value(x: Tensor, t: Tensor) -> Tensor:
        place = x if at == "x_t" else tweedie(x, score_at(score, x, t), sde.alpha(t), sde.sigma(t))
        return _rewards(reward, place)[:, None]

    return classifier_guidance(score, value, 0, scale)


def particle_steering(
    score: TimedScore,
    sde: SDE,
    x: Tensor,
    times: Tensor,
    reward: Reward,
    *,
    proposal: TimedScore | None = None,
    threshold: float = 0.5,
    generator: torch.Generator | None = None,
    on_step: OnStep | None = None,
) -> tuple[Tensor, Tensor]:
    """B particles of the reverse SDE that are weighed by e^r and resampled on the way: samples, and their log-weights.

    With phi_i = r(x0_hat(x, t_i)), at the end r(x), a particle's weight starts as e^phi_0 and is multiplied in each
    step by e^{phi_{i+1} - phi_i}. Where the effective number (sum w)^2 / sum w^2 falls below threshold B, particles are
    drawn anew (systematic resampling) and all get the mean weight. Steps are Euler and Maruyama's, the last with noise
    too; by the drift of another score `proposal`, if there is one, and then weights are multiplied by
    N(x'; mean of score) / N(x'; mean of proposal).

    The mean of e^log_weights is an unbiased estimate of E[e^r] over the samples of the plain solver, for any threshold
    in [0, 1] (0: never resampled) and any proposal. A mean under p e^r / Z is sum w f(x) / sum w.

    Shapes: x (B, *S) at times[0] -> (B, *S) at times[-1], and (B,) in float64.
    Source: Del Moral 2004; for diffusion models Wu et al. 2023, Singhal et al. 2025.
    """
    times = check_times(times, sde)
    check_start(score, x, generator)
    check_noisy(times[:-1], sde)
    threshold = number(threshold, "threshold")
    if not 0 <= threshold <= 1:
        raise ValueError(f"threshold: expected a number in [0, 1], got {threshold:g}")
    t, h = times[:-1], -times.diff()
    f, g = sde.drift_coefficient(t), sde.diffusion(t)
    keep, gain, spread = columns(x, 1 - h * f, h * g**2, g * h.sqrt())
    alpha, sigma = columns(x, sde.alpha(t), sde.sigma(t))
    log_weights = torch.zeros(len(x), dtype=torch.float64, device=x.device)
    if not len(x):
        return x, log_weights
    before = torch.zeros_like(log_weights)
    each = score_times(x, t, sde)
    with sampling(x):
        for i, time in enumerate(each):
            slope = score_at(score, x, time)
            now = _rewards(reward, tweedie(x, slope, alpha[i], sigma[i])).double()
            log_weights, before = log_weights + now - before, now
            if effective_number(log_weights) < threshold * len(x):
                chosen = resample(log_weights, generator=generator)
                x, slope, before = x[chosen], slope[chosen], before[chosen]
                log_weights = (torch.logsumexp(log_weights, 0) - math.log(len(x))).expand(len(x))
            step = slope if proposal is None else score_at(proposal, x, time)
            noise = normal_like(x, generator)
            x = keep[i] * x + gain[i] * step + spread[i] * noise
            if proposal is not None:
                ahead = gain[i] / spread[i] * (step - slope)  # of the plain mean, in standard deviations
                log_weights = log_weights - 0.5 * (flat_sum((noise + ahead) ** 2) - flat_sum(noise**2)).double()
            x = after_step(on_step, i, times[i + 1], x)
        return x, log_weights + _rewards(reward, x).double() - before


def effective_number(log_weights: Tensor) -> float:
    """(sum w)^2 / sum w^2: how many equal weights are as good. Shapes: log_weights (B,). Source: Kong 1992."""
    _check_log_weights(log_weights)
    w = torch.exp(log_weights.detach().double() - log_weights.detach().double().max())
    return float(w.sum() ** 2 / (w**2).sum())


def resample(log_weights: Tensor, *, generator: torch.Generator | None = None) -> Tensor:
    """Systematic resampling: B indices, index b floor(B w_b) or one more times, and B w_b times in the mean.

    With one uniform u the k-th is where the cumulated weights pass (k + u) / B. Shapes: log_weights (B,) -> (B,) long.
    Source: Kitagawa 1996.
    """
    _check_log_weights(log_weights)
    check_generator(generator, log_weights)
    n, device = len(log_weights), log_weights.device
    u = torch.rand((), generator=generator, dtype=torch.float64, device=device)
    places = (torch.arange(n, dtype=torch.float64, device=device) + u) / n
    cumulated = log_weights.double().softmax(0).cumsum(0)
    return torch.searchsorted(cumulated, places * cumulated[-1], right=True).clamp(max=n - 1)


def best_of(x: Tensor, reward: Reward, n: int) -> Tensor:
    """Of each n points in a row the one with the largest reward: it has the law n F(r(x))^{n-1} p(x), F of r under p.

    Its divergence KL from p is log n - (n - 1) / n, whatever the reward. Shapes: x (n B, *S) -> (B, *S).
    Source: Stiennon et al. 2020; Beirami et al. 2024.
    """
    batch(x, "x")
    n = at_least(n, 1, "n")
    if len(x) % n:
        raise ValueError(f"x: expected a multiple of n = {n} points, got {len(x)}")
    best = _rewards(reward, x).reshape(-1, n).argmax(1) if len(x) else torch.zeros(0, dtype=torch.long)
    return x[best.to(x.device) + n * torch.arange(len(best), device=x.device)]


# How h is computed


def _quadrature(density: GaussianMixture, n_draws: int, generator: torch.Generator | None) -> tuple[Tensor, Tensor]:
    """Points (Q, D) and log-weights (Q,) for means over a standard normal law."""
    n_dims, device = density.n_dims, density.device
    if n_dims in NODES:
        points, weights = np.polynomial.hermite_e.hermegauss(NODES[n_dims])
        line, log_weight = (torch.tensor(each, device=device) for each in (points, np.log(weights / weights.sum())))
        nodes = torch.cartesian_prod(*[line] * n_dims).reshape(-1, n_dims)
        shares = torch.cartesian_prod(*[log_weight] * n_dims).reshape(-1, n_dims).sum(1)
        return nodes, shares
    check_generator(generator, density.means)
    nodes = torch.randn(n_draws, n_dims, generator=generator, dtype=torch.float64, device=device)
    return nodes, torch.full((n_draws,), -math.log(n_draws), dtype=torch.float64, device=device)


def _shift(
    density: GaussianMixture, reward: Reward, nodes: Tensor, log_shares: Tensor, x: Tensor, alpha: Tensor, sigma: Tensor
) -> Tensor:
    """E[x_0 e^r | x_t] / E[e^r | x_t] - E[x_0 | x_t], in x's dtype."""
    means, covariances = density.means.double(), density.covariances.double()
    a, s = alpha[:, None, None, None], sigma[:, None, None, None]
    noised = a**2 * covariances + s**2 * torch.eye(density.n_dims, dtype=torch.float64, device=x.device)
    gap = (x.double()[:, None] - alpha[:, None, None] * means)[..., None]
    factor = torch.linalg.cholesky(noised)
    white = torch.linalg.solve_triangular(factor, gap, upper=False)[..., 0]
    log_joint = density.weights.double().log() - 0.5 * white.square().sum(2) - factor.diagonal(0, 2, 3).log().sum(2)
    gain = a * torch.cholesky_solve(covariances.expand_as(noised), factor).mT
    centres = means + (gain @ gap)[..., 0]
    spread = torch.linalg.cholesky(s**2 * torch.cholesky_solve(covariances.expand_as(noised), factor))
    points = centres[:, :, None] + torch.einsum("bkde,qe->bkqd", spread, nodes)
    rewards = _rewards(reward, points.reshape(-1, density.n_dims).to(x.dtype)).double().reshape(points.shape[:3])
    plain = log_joint.log_softmax(1)[:, :, None] + log_shares
    after = (plain + rewards).flatten(1).softmax(1).reshape(plain.shape)
    return ((after - plain.exp())[..., None] * points).sum((1, 2)).to(x.dtype)


def _rewards(reward: Reward, x: Tensor) -> Tensor:
    """r(x), refused where it is not a number for each point."""
    value = reward(x)
    floating(value, "reward's value")
    if value.shape != x.shape[:1]:
        raise ValueError(f"reward's value: expected shape ({len(x)},), got {tuple(value.shape)}")
    return value


def _check_log_weights(log_weights: Tensor) -> None:
    floating(log_weights, "log_weights")
    if log_weights.ndim != 1 or not len(log_weights):
        raise ValueError(f"log_weights: expected shape (B,), got {tuple(log_weights.shape)}")
    if not torch.isfinite(log_weights).any() or torch.isnan(log_weights).any() or (log_weights == math.inf).any():
        raise ValueError("log_weights: expected finite numbers or -inf, and one that is finite")
