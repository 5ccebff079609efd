"""Right answers to the exercises of lesson 08, the reverse SDE."""

from collections.abc import Callable

import torch
from torch import Tensor


def euler_maruyama_step(x: Tensor, score_value: Tensor, f: Tensor, g: Tensor, h: Tensor, z: Tensor) -> Tensor:
    """x - h (f x - g^2 s) + g sqrt(h) z. Shapes: x, score_value, z (B, D), f, g, h () -> (B, D)."""
    drift = f * x - g**2 * score_value
    return x - h * drift + g * h.sqrt() * z


def halved_score_variance(data_variance: Tensor, total_beta: Tensor) -> Tensor:
    """v u with u = 1 + log(1 + (e^B - 1) / v). Shapes: data_variance (L,), total_beta () -> (L,)."""
    v = data_variance
    u = 1 + torch.log1p(torch.expm1(total_beta) / v)
    return v * u


def ancestral_step(
    x: Tensor, score_value: Tensor, alpha: Tensor, sigma: Tensor, alpha_next: Tensor, sigma_next: Tensor, z: Tensor
) -> Tensor:
    """(x + G^2 s) / r + G sigma' / sigma z. Shapes: x, score_value, z (B, D), the others () -> (B, D)."""
    r = alpha / alpha_next
    g2 = sigma**2 - r**2 * sigma_next**2
    return (x + g2 * score_value) / r + g2.sqrt() * sigma_next / sigma * z


def end_std(alpha: Tensor, sigma: Tensor, alpha_next: Tensor, sigma_next: Tensor) -> Tensor:
    """Standard deviations with and without the last step's noise: (sigma', r sigma'^2 / sigma). Shapes: () -> (2,)."""
    r = alpha / alpha_next
    g2 = sigma**2 - r**2 * sigma_next**2
    left = (1 - g2 / sigma**2) / r * sigma
    noise = g2.sqrt() * sigma_next / sigma
    return torch.stack([torch.hypot(left, noise), left])


def heun_step(
    drift: Callable[[Tensor, Tensor], Tensor],
    diffusion: Callable[[Tensor], Tensor],
    x: Tensor,
    t: Tensor,
    t_next: Tensor,
    z: Tensor,
) -> Tensor:
    """y = x - h a + n z; x - h/2 (a(x, t) + a(y, t')) + n z, n^2 = h/2 (g^2 + g'^2). Shapes: x, z (B, D) -> (B, D)."""
    h = t - t_next
    g, g_next = diffusion(t), diffusion(t_next)
    noise = (h / 2 * (g**2 + g_next**2)).sqrt() * z
    a = drift(x, t)
    y = x - h * a + noise
    b = drift(y, t_next)
    return x - h / 2 * (a + b) + noise


def corrector_step(x: Tensor, score_value: Tensor, z: Tensor, snr: float) -> Tensor:
    """x + e s + sqrt(2 e) z, e = 2 (snr |z| / |s|)^2 with mean lengths. Shapes: x, score_value, z (B, D) -> (B, D)."""
    ratio = z.norm(dim=1).mean() / score_value.norm(dim=1).mean()
    e = 2 * (snr * ratio) ** 2
    return x + e * score_value + (2 * e).sqrt() * z
