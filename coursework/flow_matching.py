"""Flow matching: paths from data to noise, their velocities, and the SDEs that share their marginals (lesson 17).

A path is x_t = alpha(t) x_0 + sigma(t) noise; a dash is the derivative in t. Its velocity, given both ends, is
u = alpha' x_0 + sigma' noise; the marginal one, v(x, t) = E[u | x_t = x], moves the law of x_t along dx/dt = v(x, t).
Every linear SDE is a path, with alpha' = f alpha and sigma' = f sigma + g^2 / (2 sigma), and its v is its probability
flow. The other way round, a path is the SDE with f = alpha' / alpha and g^2 = 2 sigma (sigma' - f sigma), and all
solvers, likelihoods and guidance take it. Time still runs from 0 (data) to 1 (noise).
"""

import math
from collections.abc import Callable

import torch
from torch import Tensor

from coursework._arguments import batch, expand, flat_sum, like, positive, reals, some, wide
from coursework._loops import (
    OnStep,
    check_noisy,
    check_start,
    check_times,
    columns,
    normal_like,
    score_times,
    times_of,
    walk,
)
from coursework.distributions import GaussianMixture
from coursework.sdes import SDE

Velocity = Callable[[Tensor, Tensor], Tensor]


class Path(SDE):
    """A path as an SDE, f = alpha' / alpha, g^2 = 2 sigma (sigma' - f sigma); a subclass supplies all four functions.

    T = 0.999: where alpha is 0, f and the log-SNR are infinite. The prior is N(0, sigma(T)^2 I). Raises ValueError for
    times outside [0, T]. Source: Albergo, Boffi & Vanden-Eijnden 2023; Lipman et al. 2023, section 4.1.
    """

    T = 0.999

    def alpha_rate(self, t: float | Tensor) -> Tensor:
        """alpha'(t), in 1 / time."""
        raise NotImplementedError("alpha_rate: a path supplies its own")

    def sigma_rate(self, t: float | Tensor) -> Tensor:
        """sigma'(t), in 1 / time."""
        raise NotImplementedError("sigma_rate: a path supplies its own")

    def drift_coefficient(self, t: float | Tensor) -> Tensor:
        """f = alpha' / alpha."""
        return self.alpha_rate(t) / self.alpha(t)

    def diffusion(self, t: float | Tensor) -> Tensor:
        """g = sqrt(2 sigma (sigma' - f sigma))."""
        sigma = self.sigma(t)
        return torch.sqrt(2 * sigma * (self.sigma_rate(t) - self.drift_coefficient(t) * sigma))


class LinearPath(Path):
    """alpha = 1 - t, sigma = t, so that u = noise - x_0 at every t (Lipman et al. 2023; Liu et al. 2023)."""

    def alpha(self, t: float | Tensor) -> Tensor:
        """1 - t."""
        return 1 - self.time(t)

    def sigma(self, t: float | Tensor) -> Tensor:
        """t."""
        return self.time(t).clone()

    def alpha_rate(self, t: float | Tensor) -> Tensor:
        """-1."""
        return -torch.ones_like(self.time(t))

    def sigma_rate(self, t: float | Tensor) -> Tensor:
        """1."""
        return torch.ones_like(self.time(t))


class CosinePath(Path):
    """alpha = cos(pi t / 2), sigma = sin(pi t / 2), so that alpha^2 + sigma^2 = 1.

    Here u is pi/2 times the velocity of `predictions`.
    Source: Albergo & Vanden-Eijnden 2023, the trigonometric interpolant.
    """

    def alpha(self, t: float | Tensor) -> Tensor:
        """cos(pi t / 2)."""
        return torch.cos(0.5 * math.pi * self.time(t))

    def sigma(self, t: float | Tensor) -> Tensor:
        """sin(pi t / 2)."""
        return torch.sin(0.5 * math.pi * self.time(t))

    def alpha_rate(self, t: float | Tensor) -> Tensor:
        """-(pi / 2) sin(pi t / 2)."""
        return -0.5 * math.pi * self.sigma(t)

    def sigma_rate(self, t: float | Tensor) -> Tensor:
        """(pi / 2) cos(pi t / 2)."""
        return 0.5 * math.pi * self.alpha(t)


def rates(path: SDE, t: float | Tensor) -> tuple[Tensor, Tensor]:
    """(alpha', sigma') = (f alpha, f sigma + g^2 / (2 sigma)) of any linear SDE, a `Path`'s as it supplies them.

    Shapes: t a number, 0-d or (B,) -> like t. Raises ValueError for t outside [0, T], and for an SDE that is no `Path`
    where sigma is 0.
    """
    if isinstance(path, Path):
        return path.alpha_rate(t), path.sigma_rate(t)
    t = path.time(t, noisy=True)
    f, sigma = path.drift_coefficient(t), path.sigma(t)
    return f * path.alpha(t), f * sigma + path.diffusion(t) ** 2 / (2 * sigma)


def flow_velocity(score_value: Tensor, x: Tensor, t: float | Tensor, path: SDE) -> Tensor:
    """v = (alpha' / alpha) x - (sigma sigma' - sigma^2 alpha' / alpha) s, the right-hand side of the probability flow.

    Shapes: score_value, x (B, *S); t 0-d or (B,) -> (B, *S). Raises ValueError for t outside [0, T].
    Source: Song et al. 2021, eq. 13; Albergo, Boffi & Vanden-Eijnden 2023.
    """
    batch(x, "x")
    return path.probability_flow(x, t, score_value)


def score_of_velocity(v: Tensor, x: Tensor, t: float | Tensor, path: SDE) -> Tensor:
    """s = ((alpha' / alpha) x - v) / (sigma sigma' - sigma^2 alpha' / alpha), `flow_velocity` solved for the score.

    On the linear path s = -(x + (1 - t) v) / t. Shapes: v, x (B, *S); t 0-d or (B,) -> (B, *S).
    Raises ValueError for t outside [0, T] and where sigma is 0: there v says nothing of the score.
    """
    batch(x, "x")
    like(v, x, "v", "x")
    t = path.time(t, noisy=True)
    return 2 * (path.drift(x, t) - v) / expand(path.diffusion(t), x, "t") ** 2


def exact_velocity(density: GaussianMixture, path: SDE) -> Velocity:
    """v(x, t) = alpha' E[x_0 | x_t = x] + sigma' E[noise | x_t = x] for x_0 from a mixture: finite at both ends.

    E[noise | x_t] = -sigma s, and where sigma is 0, x_t is x_0 itself and the noise has mean 0.
    Shapes: x (B, D), t 0-d or (B,), in [0, T] -> (B, D). Raises TypeError for what is no GaussianMixture.
    """
    if not isinstance(density, GaussianMixture):
        raise TypeError(f"density: expected a GaussianMixture, got {type(density).__name__}")

    def v(x: Tensor, t: Tensor) -> Tensor:
        t = path.time(t)
        alpha, sigma = path.alpha(t), path.sigma(t)
        alpha_rate, sigma_rate = (expand(rate, x, "t") for rate in rates(path, t))
        data = density.posterior(x, alpha, torch.where(sigma > 0, sigma, 1.0)).mean
        noise = -expand(sigma, x, "t") * density.diffuse(alpha, sigma).score(x)
        return alpha_rate * torch.where(expand(sigma, x, "t") > 0, data, x) + sigma_rate * noise

    return v


def flow_matching_loss(
    velocity: Callable[..., Tensor],
    path: SDE,
    x: Tensor,
    *,
    noise: Tensor | None = None,
    times: Tensor | None = None,
    label: Tensor | None = None,
    generator: torch.Generator | None = None,
) -> Tensor:
    """E |velocity(x_t, t) - u|^2 with u = alpha' x + sigma' noise, summed over dimensions, averaged over the batch.

    Its minimiser is the marginal velocity E[u | x_t], and its least value is the variance of u given x_t, not 0.
    `velocity(x_t, t)` or `velocity(x_t, t, label)`; t is uniform on [t_min, T] for each point, or `times`, 0-d or (B,);
    the noise is standard normal, or `noise`, (B, *S): coupled with x as the caller pleases. Shapes: x (B, *S) -> ().
    Source: Lipman et al. 2023, eq. 9 (there time runs the other way).
    """
    some(x, "x")
    t = times_of(path, x, times, generator)
    noise = normal_like(x, generator) if noise is None else noise
    x_t = path.perturb(x, t, noise)
    value = velocity(x_t, t) if label is None else velocity(x_t, t, label)
    like(value, x_t, "velocity's value", "x_t")
    alpha_rate, sigma_rate = (expand(rate, wide(x), "times") for rate in rates(path, t))
    u = alpha_rate * wide(x) + sigma_rate * wide(noise)
    return flat_sum((wide(value) - u) ** 2).mean()


def interpolant_sde(
    velocity: Velocity,
    path: SDE,
    x: Tensor,
    times: Tensor,
    diffusion: Callable[[Tensor], float | Tensor],
    *,
    generator: torch.Generator | None = None,
    on_step: OnStep | None = None,
) -> Tensor:
    """Euler-Maruyama for dx = [v - gamma^2 s / 2] dt + gamma dw, dt < 0: any gamma(t) >= 0 gives the path's marginals.

    One step: x <- x - h (v - gamma(t)^2 s / 2) + gamma(t) sqrt(h) z, with s from `score_of_velocity`, one call of
    `velocity` a step; the last step adds no noise. gamma = 0 is Euler's method for the flow, gamma = g the reverse SDE.
    `diffusion(t)` is gamma, asked once with all times (n_steps,). Shapes: x (B, *S) at times[0], times (n_steps + 1,)
    decreasing -> (B, *S) at times[-1]. `on_step(i, t, x)` as in `reverse_sde`. Raises ValueError where sigma is 0 at
    a time before the last, and for a gamma that is negative or not finite.
    Source: Albergo, Boffi & Vanden-Eijnden 2023, section 2; Song et al. 2021, appendix G (gamma^2 = g^2 is theirs).
    """
    if not callable(velocity):
        raise TypeError(f"velocity: expected a function, got {type(velocity).__name__}")
    check_start(velocity, x, generator)
    times = check_times(times, path)
    check_noisy(times[:-1], path)
    t, h = times[:-1], -times.diff()
    gamma = _gammas(diffusion, t)
    f, g2 = path.drift_coefficient(t), path.diffusion(t) ** 2
    share = gamma**2 / g2  # v - gamma^2 s / 2 = v - share (f x - v)
    a, b, c = columns(x, 1 + h * share * f, h * (1 + share), gamma * h.sqrt())
    asked, last = score_times(x, t, path), len(t) - 1

    def step(i: int, x: Tensor) -> Tensor:
        v = velocity(x, asked[i])
        like(v, x, "velocity's value", "x")
        x = a[i] * x - b[i] * v
        return x + c[i] * normal_like(x, generator) if i < last else x

    return walk(step, x, times, on_step)


def ot_coupling(x: Tensor, z: Tensor) -> Tensor:
    """z in the order that makes sum_b |x_b - z_b|^2 least: optimal transport between the two batches.

    The marginals stay; for a finite batch the joint law is not that of the two laws' transport, but nearer to it the
    larger B. Shapes: x, z (B, *S) -> (B, *S). Cost O(B^3), in scipy, on the CPU.
    Source: Pooladian et al. 2023; Tong et al. 2024.
    """
    from scipy.optimize import linear_sum_assignment

    batch(x, "x")
    batch(z, "z")
    like(z, x, "z", "x")
    cost = torch.cdist(wide(x).flatten(1).double(), wide(z).flatten(1).double()) ** 2
    _, order = linear_sum_assignment(cost.detach().cpu().numpy())
    return z[torch.as_tensor(order, device=z.device)]


def schroedinger_gaussian(a: float | Tensor, b: float | Tensor, sigma: float | Tensor) -> Tensor:
    """Covariance c of the ends of the Schroedinger bridge between N(., a^2) and N(., b^2).

    c = (sqrt(sigma^4 + 4 a^2 b^2) - sigma^2) / 2. The reference is a Brownian motion that gains the variance sigma^2
    between the ends; the bridge is the coupling with these marginals that is nearest to it in Kullback-Leibler
    divergence: optimal transport with cost |x - z|^2 / 2 and entropy times sigma^2. For sigma -> 0, c is a b, optimal
    transport; for sigma -> infinity 0, independence.

    Shapes: numbers or tensors that broadcast -> float64. Raises ValueError unless all are positive.
    Source: Janati et al. 2020; Bunne et al. 2023.
    """
    for name, value in (("a", a), ("b", b), ("sigma", sigma)):
        positive(value, name)
    a, b, sigma = (reals(value, "a, b, sigma").double() for value in (a, b, sigma))
    product = 2 * a**2 * b**2
    return product / ((sigma**4 + 2 * product).sqrt() + sigma**2)


def _gammas(diffusion: Callable[[Tensor], float | Tensor], t: Tensor) -> Tensor:
    if not callable(diffusion):
        raise TypeError(f"diffusion: expected a function of t, got {type(diffusion).__name__}")
    gamma = reals(diffusion(t.clone()), "diffusion's value").detach().cpu().double()
    if gamma.shape not in (torch.Size(), t.shape):
        raise ValueError(f"diffusion's value: expected a number or shape {tuple(t.shape)}, got {tuple(gamma.shape)}")
    if not bool((torch.isfinite(gamma) & (gamma >= 0)).all()):
        raise ValueError("diffusion's value: expected finite values >= 0")
    return gamma.expand(t.shape)
