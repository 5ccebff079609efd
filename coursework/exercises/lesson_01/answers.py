"""Right answers to the exercises of lesson 01, the score function."""

import math
from collections.abc import Callable

import torch
from torch import Tensor


def gaussian_score(x: Tensor, mean: Tensor, covariance: Tensor) -> Tensor:
    """-covariance^{-1} (x - mean). Shapes: (B, D), (D,), (D, D) -> (B, D)."""
    offset = x - mean
    return -torch.linalg.solve(covariance, offset.T).T


def mixture_score(x: Tensor, means: Tensor, covariances: Tensor, weights: Tensor) -> Tensor:
    """sum_k r_k(x) s_k(x), r_k = w_k N_k / p. Shapes: (B, D), (K, D), (K, D, D), (K,) -> (B, D)."""
    scores, log_probs = [], []
    for m, c in zip(means, covariances, strict=True):
        score = gaussian_score(x, m, c)
        exponent = 0.5 * (score * (x - m)).sum(1)
        scores.append(score)
        log_probs.append(exponent - 0.5 * torch.logdet(c) - 0.5 * len(m) * math.log(2 * math.pi))
    log_joint = weights.log() + torch.stack(log_probs, 1)
    responsibilities = torch.softmax(log_joint, 1)
    return (responsibilities[..., None] * torch.stack(scores, 1)).sum(1)


def energy_score(energy: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    """-grad E(x). Shapes: energy (B, D) -> (B,); x (B, D) -> (B, D)."""
    with torch.enable_grad():
        leaf = x.detach().requires_grad_()
        log_p = -energy(leaf)
        (gradient,) = torch.autograd.grad(log_p.sum(), leaf)
    return gradient


def jacobian(score: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    """The score's Jacobian at each point, the Hessian of log p. Shapes: (B, D) -> (B, D, D)."""

    def at_one_point(point: Tensor) -> Tensor:
        return score(point[None])[0]

    return torch.func.vmap(torch.func.jacrev(at_one_point))(x)


def ascending_directions(score: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    """Number of positive eigenvalues of the score's Jacobian. Shapes: x (B, D) -> (B,) long."""
    hessian = jacobian(score, x)
    eigenvalues = torch.linalg.eigvalsh(hessian)
    rises = eigenvalues > 0
    return rises.sum(1)


def noisy_score(x: Tensor, mean: Tensor, covariance: Tensor, alpha: Tensor, sigma: Tensor) -> Tensor:
    """Score of alpha X + sigma noise for Gaussian X. Shapes: (B, D), (D,), (D, D), (), () -> (B, D)."""
    noisy_mean = alpha * mean
    noise = sigma**2 * torch.eye(len(mean), dtype=x.dtype)
    noisy_covariance = alpha**2 * covariance + noise
    return gaussian_score(x, noisy_mean, noisy_covariance)


def merging_noise(offset: Tensor, std: Tensor) -> Tensor:
    """Noise at which 1/2 N(-offset, std^2) + 1/2 N(offset, std^2) becomes unimodal. Shapes: (), () -> ()."""
    total_variance = offset**2
    variance = total_variance - std**2
    return variance.sqrt()
