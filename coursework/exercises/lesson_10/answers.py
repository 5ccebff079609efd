"""Right answers to the exercises of lesson 10, likelihood."""

import math
from collections.abc import Callable
from itertools import pairwise

import torch
from torch import Tensor

from coursework.sdes import SDE

Score = Callable[[Tensor, Tensor], Tensor]
Trace = Callable[[Tensor, Tensor], Tensor]


def joint_rates(score: Score, trace: Trace, sde: SDE, x: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
    """v = f x - g^2 s / 2 and div v = f D - g^2 tr(ds/dx) / 2. Shapes: x (B, D), t () -> (B, D), (B,)."""
    f, g = sde.drift_coefficient(t), sde.diffusion(t)
    n_dims = x.shape[1]
    velocity = f * x - 0.5 * g**2 * score(x, t)
    divergence = f * n_dims - 0.5 * g**2 * trace(x, t)
    return velocity, divergence


def hutchinson_divergence(velocity: Callable[[Tensor], Tensor], x: Tensor, probes: Tensor) -> Tensor:
    """The mean of q^T (dvelocity/dx) q over the probes. Shapes: x (B, D), probes (n, B, D) -> (B,)."""
    x = x.detach().requires_grad_()
    value = velocity(x)
    products = torch.stack([torch.autograd.grad(value, x, q, retain_graph=True)[0] for q in probes])
    forms = (products * probes).sum(2)
    return forms.mean(0)


def gaussian_flow_log_prob(x: Tensor, variance: Tensor, variance_end: Tensor, prior_std: Tensor) -> Tensor:
    """log N(x_T; 0, prior_std^2 I) + D/2 log(V_T / V), x_T = sqrt(V_T / V) x. Shapes: x (B, D), () x 3 -> (B,)."""
    n_dims = x.shape[1]
    ratio = variance_end / variance
    end = ratio.sqrt() * x
    constant = torch.log(prior_std) + 0.5 * math.log(2 * math.pi)
    log_prior = -0.5 * (end**2).sum(1) / prior_std**2 - n_dims * constant
    integral = 0.5 * n_dims * torch.log(ratio)
    return log_prior + integral


def flow_log_likelihood(score: Score, trace: Trace, sde: SDE, x: Tensor, times: Tensor) -> Tensor:
    """log prior(x_T) + sum h div v along Euler's steps. Shapes: x (B, D), times (n,) increasing -> (B,)."""
    change = torch.zeros_like(x[:, 0])
    for t, t_next in pairwise(times):
        h = t_next - t
        v, div = joint_rates(score, trace, sde, x, t)
        x = x + h * v
        change = change + h * div
    log_prior = sde.prior_log_prob(x)
    return log_prior + change


def bits(log_prob: Tensor, n_dims: int, n_levels: int, low: float, high: float) -> Tensor:
    """-log_prob / (D ln 2) - log2 of a level's width, (high - low) / n_levels. Shapes: (B,) -> (B,)."""
    nats = -log_prob / n_dims
    width = (high - low) / n_levels
    return nats / math.log(2) - math.log2(width)


def dequantize_levels(x: Tensor, n_levels: int, low: float, high: float, u: Tensor) -> Tensor:
    """x + gap (u - 1/2), gap = (high - low) / (n_levels - 1). Shapes: x, u (B, *S) -> (B, *S)."""
    gap = (high - low) / (n_levels - 1)
    noise = gap * (u - 0.5)
    return x + noise


def likelihood_loss(noise_hat: Tensor, noise: Tensor, sde: SDE, t: Tensor) -> Tensor:
    """1/2 g^2 / sigma^2 |noise_hat - noise|^2. Shapes: noise_hat, noise (B, *S), t (B,) -> (B,)."""
    g, sigma = sde.diffusion(t), sde.sigma(t)
    error = ((noise_hat - noise) ** 2).flatten(1).sum(1)
    weight = g**2 / sigma**2
    return 0.5 * weight * error
