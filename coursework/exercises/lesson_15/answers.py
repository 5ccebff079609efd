"""Right answers to the exercises of lesson 15, what to train, and how."""

import torch
from torch import Tensor


def edm_factors(q: Tensor, sigma_d: float) -> tuple[Tensor, Tensor, Tensor]:
    """c_skip, c_out, c_in: unit variances with the least c_out. Shapes: q (B,) -> three (B,)."""
    total = q**2 + sigma_d**2
    c_skip = sigma_d**2 / total
    c_out = q * sigma_d / total.sqrt()
    c_in = 1 / total.sqrt()
    return c_skip, c_out, c_in


def linear_loss(v: Tensor, q: Tensor, sigma_d: float) -> Tensor:
    """E (D - x_0)^2 / c_out^2 of the best linear network along a direction of variance v. Shapes: v, q (B,)."""
    error = v * q**2 / (v + q**2)
    weight = 1 / q**2 + 1 / sigma_d**2
    return weight * error


def same_loss(noise_weight: Tensor, alpha: Tensor, sigma: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The weights of the score's, the data's and the velocity's squared error. Shapes: all (B,)."""
    score = noise_weight * sigma**2
    data = noise_weight * alpha**2 / sigma**2
    velocity = noise_weight * (alpha / (alpha**2 + sigma**2)) ** 2
    return score, data, velocity


def best_sampler(weights: Tensor, second_moments: Tensor, widths: Tensor) -> tuple[Tensor, Tensor]:
    """Cells' probabilities with the least variance, and the factor of a draw. Shapes: all (K,)."""
    density = weights * second_moments.sqrt()
    sizes = density * widths
    probabilities = sizes / sizes.sum()
    factors = weights * widths / probabilities
    return probabilities, factors


def gaussian_bound(variances: Tensor, low: Tensor, high: Tensor) -> Tensor:
    """1/2 int E|noise - noise_hat|^2 dl of Gaussian data, l the log-SNR. Shapes: variances (D,), low, high ()."""
    upper = torch.log1p(variances * high.exp())
    lower = torch.log1p(variances * low.exp())
    return 0.5 * (upper - lower).sum()


def time_features(t: Tensor, n: int, scale: float) -> Tensor:
    """[sin, cos] of n/2 frequencies from scale down to scale / 10000. Shapes: t (B,) -> (B, n)."""
    k = torch.arange(n // 2, dtype=t.dtype)
    frequencies = scale * 10_000 ** (-k / (n // 2 - 1))
    angles = t[:, None] * frequencies
    return torch.cat([angles.sin(), angles.cos()], 1)


def power_average(weights: Tensor, gamma: float) -> Tensor:
    """Decays (1 - 1/step)^(gamma + 1) of a running average. Shapes: weights (n, P) -> (P,)."""
    average = torch.zeros_like(weights[0])
    for i in range(len(weights)):
        step = i + 1
        decay = (1 - 1 / step) ** (gamma + 1)
        average = decay * average + (1 - decay) * weights[i]
    return average
