"""Right answers to the exercises of lesson 07, noising in continuous time."""

from collections.abc import Callable

import torch
from torch import Tensor

from coursework.sdes import SDE


def forward_step(sde: SDE, x: Tensor, t: Tensor, h: Tensor, noise: Tensor) -> Tensor:
    """x + h f(t) x + g(t) sqrt(h) noise. Shapes: x, noise (B, D), t, h () -> (B, D)."""
    drift, g = sde.drift(x, t), sde.diffusion(t)
    return x + h * drift + g * h.sqrt() * noise


def from_s_to_t(alpha_s: Tensor, sigma_s: Tensor, alpha_t: Tensor, sigma_t: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """r = alpha_t / alpha_s, G^2 = sigma_t^2 - r^2 sigma_s^2, Cov(x_s, x_t | x_0) = r sigma_s^2. Shapes: (L,) each."""
    r = alpha_t / alpha_s
    g2 = sigma_t**2 - r**2 * sigma_s**2
    covariance = r * sigma_s**2
    return r, g2, covariance


def sub_vp_diffusion(beta: Tensor, integrated_beta: Tensor) -> Tensor:
    """sqrt(v' - 2 f v), which is sqrt(beta (1 - exp(-2 B))). Shapes: (L,), (L,) -> (L,)."""
    left = torch.exp(-integrated_beta)
    v = (1 - left) ** 2
    v_slope = 2 * (1 - left) * left * beta
    f = -0.5 * beta
    g2 = v_slope - 2 * f * v
    return g2.sqrt()


def claimed_variance(start: Tensor, gamma: Tensor, integrated_beta: Tensor) -> Tensor:
    """start exp(-B) + (1 - gamma)(1 - exp(-B)). Shapes: start (), gamma (L,), B () -> (L,)."""
    left = torch.exp(-integrated_beta)
    rest = 1 - gamma
    variance = start * left + rest * (1 - left)
    return variance


def chain_alpha_bar(beta_min: float, beta_max: float, n: int) -> Tensor:
    """prod_{j <= i} (1 - beta_j), beta_j = beta(j/n) / n. Shape: (n,), float64."""
    t = torch.arange(1, n + 1, dtype=torch.float64) / n
    rates = beta_min + t * (beta_max - beta_min)
    betas = rates / n
    kept = 1 - betas
    return torch.cumprod(kept, 0)


def kl_to_prior(mean: Tensor, covariance: Tensor, alpha: Tensor, sigma: Tensor, prior_std: Tensor) -> Tensor:
    """KL(N(alpha mean, alpha^2 covariance + sigma^2 I) || N(0, prior_std^2 I)). Shapes: (D,), (D, D), () x 3 -> ()."""
    d = len(mean)
    m = alpha * mean
    noise = sigma**2 * torch.eye(d, dtype=mean.dtype)
    c = alpha**2 * covariance + noise
    v = prior_std**2
    square = (c.trace() + m @ m) / v
    log_ratio = d * v.log() - c.logdet()
    return 0.5 * (square - d + log_ratio)


def coefficients(
    alpha: Callable[[Tensor], Tensor], sigma: Callable[[Tensor], Tensor], t: Tensor
) -> tuple[Tensor, Tensor]:
    """f = alpha'/alpha and g^2 = (sigma^2)' - 2 f sigma^2. Shapes: t (L,) -> (L,), (L,)."""
    a, s = alpha(t), sigma(t)
    a_slope, s_slope = slope(alpha, t), slope(sigma, t)
    f = a_slope / a
    v_slope = 2 * s * s_slope
    g2 = v_slope - 2 * f * s**2
    return f, g2


def slope(function: Callable[[Tensor], Tensor], t: Tensor) -> Tensor:
    """function'(t). Shapes: t (L,) -> (L,)."""
    with torch.enable_grad():
        t = t.detach().clone().requires_grad_()
        values = function(t) + 0 * t  # a constant has a slope too
        return torch.autograd.grad(values.sum(), t)[0]
