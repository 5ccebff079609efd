"""Right answers to the exercises of lesson 14, fast solvers."""

from collections.abc import Callable

import torch
from torch import Tensor


def data_step(
    x: Tensor, x0_hat: Tensor, alpha: Tensor, sigma: Tensor, alpha_next: Tensor, sigma_next: Tensor
) -> Tensor:
    """x'/sigma' = x/sigma + int e^lambda x0_hat dlambda, x0_hat held constant; sigma' may be 0. Shapes: x (B, D)."""
    keep = sigma_next / sigma
    weight = alpha_next - keep * alpha
    return keep * x + weight * x0_hat


def two_m_step(
    x: Tensor,
    x0_hat: Tensor,
    x0_before: Tensor,
    h_before: Tensor,
    alpha: Tensor,
    sigma: Tensor,
    alpha_next: Tensor,
    sigma_next: Tensor,
) -> Tensor:
    """The same with the value that the line through the last two estimates has in the middle of the step."""
    h = (alpha_next / sigma_next).log() - (alpha / sigma).log()
    r = h_before / h
    middle = x0_hat + (x0_hat - x0_before) / (2 * r)
    return sigma_next / sigma * x - alpha_next * torch.expm1(-h) * middle


def corrected_step(
    x: Tensor,
    x0_hat: Tensor,
    x0_next: Tensor,
    alpha: Tensor,
    sigma: Tensor,
    alpha_next: Tensor,
    sigma_next: Tensor,
) -> Tensor:
    """The integral of the line from x0_hat at lambda to x0_next at lambda'."""
    h = (alpha_next / sigma_next).log() - (alpha / sigma).log()
    constant = -torch.expm1(-h)
    rising = 1 - constant / h
    integral = constant * x0_hat + rising * (x0_next - x0_hat)
    return sigma_next / sigma * x + alpha_next * integral


def heun_step(denoise: Callable[[Tensor, Tensor], Tensor], y: Tensor, q: Tensor, q_next: Tensor) -> Tensor:
    """Heun's step of dy/dq = (y - D(y, q)) / q; Euler's where q' is 0. Shapes: y (B, D), q and q_next 0-d."""
    slope = (y - denoise(y, q)) / q
    trial = y + (q_next - q) * slope
    if q_next == 0:
        return trial
    slope_next = (trial - denoise(trial, q_next)) / q_next
    return y + (q_next - q) * 0.5 * (slope + slope_next)


def churned_step(
    denoise: Callable[[Tensor, Tensor], Tensor], y: Tensor, q: Tensor, q_next: Tensor, gamma: Tensor, z: Tensor
) -> Tensor:
    """Noise up to q_hat = (1 + gamma) q, then Euler's step from there down to q'. Shapes: y, z (B, D), others 0-d."""
    q_hat = (1 + gamma) * q
    added = (q_hat**2 - q**2).sqrt()
    y_hat = y + added * z
    slope = (y_hat - denoise(y_hat, q_hat)) / q_hat
    return y_hat + (q_next - q_hat) * slope


def equal_error_grid(lambdas: Tensor, errors: Tensor, n_steps: int, order: int) -> Tensor:
    """Equal parts of the integral of errors^(1/(order+1)). Shapes: lambdas, errors (M,) -> (n_steps + 1,)."""
    density = errors ** (1 / (order + 1))
    pieces = (density[1:] + density[:-1]) / 2 * lambdas.diff()
    so_far = torch.cat([pieces.new_zeros(1), pieces.cumsum(0)])
    wanted = torch.linspace(0, 1, n_steps + 1, dtype=pieces.dtype) * so_far[-1]
    i = torch.searchsorted(so_far, wanted).clamp(1, len(so_far) - 1)
    share = (wanted - so_far[i - 1]) / (so_far[i] - so_far[i - 1])
    return lambdas[i - 1] + share * (lambdas[i] - lambdas[i - 1])
