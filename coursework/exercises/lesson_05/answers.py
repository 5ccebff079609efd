"""Right answers to the exercises of lesson 05, Langevin dynamics."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor


def langevin_step(score: Callable[[Tensor], Tensor], x: Tensor, step_size: float, z: Tensor) -> Tensor:
    """x + h/2 s(x) + sqrt(h) z, h the step_size. Shapes: x, z (B, D) -> (B, D)."""
    h = step_size
    drift = 0.5 * h * score(x)
    noise = h**0.5 * z
    return x + drift + noise


def chain_covariance(covariance: Tensor, step_size: float) -> Tensor:
    """C (I - step_size/4 C^{-1})^{-1}. Shapes: (D, D) -> (D, D)."""
    eye = torch.eye(len(covariance), dtype=covariance.dtype)
    precision = torch.linalg.inv(covariance)
    shrink = eye - step_size / 4 * precision
    return torch.linalg.solve(shrink, covariance)


def log_ratio(density: Any, x: Tensor, y: Tensor, step_size: float) -> Tensor:
    """log p(y) + log q(x | y) - log p(x) - log q(y | x) for q(b | a) = N(b; a + h/2 s(a), h I). Shape: (B,)."""
    there = _proposal(density, y, x, step_size)
    back = _proposal(density, x, y, step_size)
    target = density.log_prob(y) - density.log_prob(x)
    return target + back - there


def _proposal(density: Any, to: Tensor, start: Tensor, step_size: float) -> Tensor:
    """log q(to | start), without the constant that cancels. Shapes: (B, D) -> (B,)."""
    mean = start + step_size / 2 * density.score(start)
    return -((to - mean) ** 2).sum(1) / (2 * step_size)


def offset_left(offset: Tensor, covariance: Tensor, step_size: float, n_steps: int) -> Tensor:
    """(I - step_size/2 C^{-1})^n_steps offset. Shapes: (D,), (D, D) -> (D,)."""
    eye = torch.eye(len(covariance), dtype=covariance.dtype)
    precision = torch.linalg.inv(covariance)
    pull = eye - step_size / 2 * precision
    return torch.linalg.matrix_power(pull, n_steps) @ offset


def tempered_variances(variance: Tensor, step_size: float, temperature: float) -> tuple[Tensor, Tensor]:
    """On N(0, v): T v / (1 - h T / (4 v)) with h T in the drift, T v / (1 - h / (4 v)) as it should be. (K,) each."""
    faulty_step = step_size * temperature
    faulty = temperature * variance / (1 - faulty_step / (4 * variance))
    right = temperature * variance / (1 - step_size / (4 * variance))
    return faulty, right


def tempered_weights(weights: Tensor, variances: Tensor, temperature: float) -> Tensor:
    """w^(1/T) v^((1 - 1/T)/2), normalised. Shapes: (K,), (K,) -> (K,)."""
    power = 1 / temperature
    widths = variances ** ((1 - power) / 2)
    mass = weights**power * widths
    return mass / mass.sum()
