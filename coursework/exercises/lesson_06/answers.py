"""Right answers to the exercises of lesson 06, noise-conditional score networks."""

import math
from collections.abc import Callable

import torch
from torch import Tensor

LevelScore = Callable[[Tensor, Tensor], Tensor]


def ladder(sigma_max: float, sigma_min: float, n: int) -> Tensor:
    """sigma_max (sigma_min / sigma_max)^(i / (n - 1)), i = 0 ... n - 1. Shape: (n,), float64."""
    exponents = torch.arange(n, dtype=torch.float64) / (n - 1)
    return sigma_max * (sigma_min / sigma_max) ** exponents


def overlap(ratio: Tensor, n_dims: int) -> Tensor:
    """Phi(sqrt(2 D) (ratio - 1) + 3 ratio) - Phi(sqrt(2 D) (ratio - 1) - 3 ratio). Shapes: (K,) -> (K,)."""
    shift = math.sqrt(2 * n_dims) * (ratio - 1)
    half = 3 * ratio
    upper = shift + half
    lower = shift - half
    return torch.special.ndtr(upper) - torch.special.ndtr(lower)


def ncsn_loss(score: LevelScore, x: Tensor, sigma: Tensor, noise: Tensor) -> Tensor:
    """E[ 1/2 |sigma s(x + sigma noise, sigma) + noise|^2 ]. Shapes: x, noise (B, D), sigma (B,) -> ()."""
    column = sigma[:, None]
    x_t = x + column * noise
    s = score(x_t, sigma)
    residual = column * s + noise
    squares = (residual**2).sum(1)
    return 0.5 * squares.mean()


def ladder_step(score: LevelScore, x: Tensor, sigma: Tensor, sigma_last: Tensor, step_size: float, z: Tensor) -> Tensor:
    """x + h/2 s(x, sigma) + sqrt(h) z, h = step_size sigma^2 / sigma_last^2. Shapes: x, z (B, D) -> (B, D)."""
    h = step_size * (sigma / sigma_last) ** 2
    pull = h / 2 * score(x, sigma)
    push = h**0.5 * z
    return x + pull + push


def level_variance(start: Tensor, a: float | Tensor, n_steps: int) -> Tensor:
    """(1 - a/2)^(2 n) (start - 1/(1 - a/4)) + 1/(1 - a/4). Shapes: (K,) -> (K,)."""
    factor = 1 - a / 2
    limit = 1 / (1 - a / 4)
    kept = factor ** (2 * n_steps)
    return kept * (start - limit) + limit


def best_step(ratio: float, n_steps: int, candidates: Tensor) -> Tensor:
    """The candidate a with the smallest `level_variance` from ratio^2. Shapes: candidates (N,) -> ()."""
    start = candidates.new_tensor(ratio**2)
    variances = level_variance(start, candidates, n_steps)
    place = variances.argmin()
    return candidates[place]


def hold_known(x: Tensor, x_known: Tensor, known: Tensor, sigma: Tensor, noise: Tensor) -> Tensor:
    """x_known + sigma noise where known, x elsewhere. Shapes: x, x_known, noise (B, D), known (D,) bool -> (B, D)."""
    noisy = x_known + sigma * noise
    return torch.where(known, noisy, x)
