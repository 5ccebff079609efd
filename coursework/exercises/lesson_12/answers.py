"""Right answers to the exercises of lesson 12, DDPM and DDIM."""

from collections.abc import Callable

import torch
from torch import Generator, Tensor


def jump(betas: Tensor, x0: Tensor, t: Tensor, noise: Tensor) -> Tensor:
    """sqrt(alpha_bar_t) x_0 + sqrt(1 - alpha_bar_t) noise. Shapes: (N,), (B, D), (B,) long, (B, D) -> (B, D)."""
    alpha_bar = torch.cumprod(1 - betas, 0)[t][:, None]
    signal = alpha_bar.sqrt()
    spread = (1 - alpha_bar).sqrt()
    return signal * x0 + spread * noise


def posterior(x0: Tensor, x_t: Tensor, beta: Tensor, before: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and variance of q(x_{t-1} | x_t, x_0). Shapes: (B, D), (B, D), (), () -> (B, D), ()."""
    alpha_bar = before * (1 - beta)
    noise = 1 - alpha_bar
    data_weight = before.sqrt() * beta / noise
    noisy_weight = (1 - beta).sqrt() * (1 - before) / noise
    mean = data_weight * x0 + noisy_weight * x_t
    variance = beta * (1 - before) / noise
    return mean, variance


def kl_term(noise: Tensor, prediction: Tensor, beta: Tensor, before: Tensor, variance: Tensor) -> Tensor:
    """KL( q(x_{t-1} | x_t, x_0) || N(mu_t, variance I) ). Shapes: (B, D), (B, D), (), (), () -> (B,)."""
    level = 1 - before * (1 - beta)
    small = beta * (1 - before) / level
    ratio = small / variance
    spread = 0.5 * noise.shape[1] * (ratio - 1 - ratio.log())
    weight = beta**2 / ((1 - beta) * level)
    error = weight * (noise - prediction).square().sum(1)
    return spread + error / (2 * variance)


def simple_loss(noise_model: Callable, alpha_bar: Tensor, x0: Tensor, t: Tensor, generator: Generator) -> Tensor:
    """Mean of (noise - noise_model(x_t, t))^2. Shapes: (N,), (B, D), (B,) long -> ()."""
    noise = torch.randn(x0.shape, generator=generator, dtype=x0.dtype)
    a = alpha_bar[t][:, None]
    signal, spread = a.sqrt(), (1 - a).sqrt()
    x_t = signal * x0 + spread * noise
    error = noise_model(x_t, t) - noise
    return error.square().mean()


def ddim_step(x_t: Tensor, prediction: Tensor, now: Tensor, later: Tensor, eta: float, z: Tensor) -> Tensor:
    """From alpha_bar `now` to the larger `later`. Shapes: (B, D), (B, D), (), (), a number, (B, D) -> (B, D)."""
    x0 = (x_t - (1 - now).sqrt() * prediction) / now.sqrt()
    levels = (1 - later) / (1 - now)
    forgotten = 1 - now / later
    s = eta * (levels * forgotten).sqrt()
    rest = (1 - later - s**2).sqrt()
    return later.sqrt() * x0 + rest * prediction + s * z


def ddim_levels(alpha_bar: Tensor, n_steps: int) -> tuple[Tensor, Tensor]:
    """alpha_bar before and after each step, from the noisiest on. Shapes: (N,) -> (n_steps,), (n_steps,)."""
    n = len(alpha_bar)
    starts = n - 1 - torch.arange(n_steps) * (n // n_steps)
    now = alpha_bar[starts]
    clean = alpha_bar.new_ones(1)
    later = torch.cat([now[1:], clean])
    return now, later


def min_snr_weights(alpha_bar: Tensor, gamma: float) -> tuple[Tensor, Tensor, Tensor]:
    """Weights of the noise, data and velocity losses. Shapes: (B,) -> three times (B,)."""
    snr = alpha_bar / (1 - alpha_bar)
    capped = snr.clamp(max=gamma)
    noise = capped / snr
    velocity = capped / (snr + 1)
    return noise, capped, velocity
