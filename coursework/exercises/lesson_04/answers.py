"""Right answers to the exercises of lesson 04, denoising score matching."""

from collections.abc import Callable

import torch
from torch import Tensor


def dsm_loss(score: Callable[[Tensor], Tensor], x: Tensor, sigma: Tensor, noise: Tensor) -> Tensor:
    """E[ 1/2 |s(x + sigma noise) + noise / sigma|^2 ]. Shapes: x, noise (B, D), sigma () -> ()."""
    x_t = x + sigma * noise
    label = -noise / sigma
    residual = score(x_t) - label
    return 0.5 * (residual**2).sum(1).mean()


def loss_floor(covariance: Tensor, sigma: Tensor) -> Tensor:
    """1/2 (D / sigma^2 - tr (covariance + sigma^2 I)^{-1}). Shapes: (D, D), () -> ()."""
    n_dims = len(covariance)
    eye = torch.eye(n_dims, dtype=covariance.dtype)
    noisy = covariance + sigma**2 * eye
    label_square = n_dims / sigma**2
    score_square = torch.linalg.inv(noisy).trace()
    return 0.5 * (label_square - score_square)


def silent_loss(n_dims: int, sigma: Tensor, power: int) -> Tensor:
    """sigma^power / 2 E|noise / sigma|^2 = n_dims sigma^(power - 2) / 2. Shapes: sigma (L,) -> (L,)."""
    weight = sigma**power
    label_square = n_dims / sigma**2
    return 0.5 * weight * label_square


def denoiser_loss(denoiser: Callable[[Tensor], Tensor], x: Tensor, sigma: Tensor, noise: Tensor) -> Tensor:
    """E[ 1/2 |(h(x + sigma noise) - x) / sigma^2|^2 ]. Shapes: x, noise (B, D), sigma () -> ()."""
    x_t = x + sigma * noise
    score = (denoiser(x_t) - x_t) / sigma**2
    residual = score + noise / sigma
    return 0.5 * (residual**2).sum(1).mean()


def from_score(score_value: Tensor, x_t: Tensor, alpha: Tensor, sigma: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Noise, data and velocity predictions from a score. Shapes: (B, D), (B, D), (B,), (B,) -> three times (B, D)."""
    a, s = alpha[:, None], sigma[:, None]
    noise = -s * score_value
    data = (x_t - s * noise) / a
    velocity = a * noise - s * data
    return noise, data, velocity


def wiener(x_t: Tensor, mean: Tensor, covariance: Tensor, alpha: Tensor, sigma: Tensor) -> Tensor:
    """E[x_0 | x_t] for x_0 from N(mean, covariance), also where the covariance is singular, as of pixels.

    Shapes: (B, D), (D,), (D, D), (), () -> (B, D).
    """
    eye = torch.eye(len(mean), dtype=x_t.dtype, device=x_t.device)
    noisy = alpha**2 * covariance + sigma**2 * eye
    centred = x_t - alpha * mean
    pull = torch.linalg.solve(noisy, centred.T).T
    return mean + alpha * pull @ covariance
