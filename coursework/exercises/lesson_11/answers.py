"""Right answers to the exercises of lesson 11, guidance."""

from collections.abc import Callable

import torch
from torch import Tensor

Function = Callable[[Tensor, Tensor], Tensor]


def classifier_guided(
    score: Function, log_prob_label: Function, label: Tensor, scale: float, x: Tensor, t: Tensor
) -> Tensor:
    """s + scale grad log p_t(label | x). Shapes: x (B, D), label (B,), t () -> (B, D)."""
    leaf = x.detach().requires_grad_()
    log_prob = log_prob_label(leaf, t)
    chosen = log_prob.gather(1, label[:, None]).sum()
    (gradient,) = torch.autograd.grad(chosen, leaf)
    return score(x, t) + scale * gradient


def free_guided(
    conditional_score: Callable[[Tensor, Tensor, Tensor], Tensor], label: Tensor, scale: float, x: Tensor, t: Tensor
) -> Tensor:
    """s_0 + scale (s_c - s_0), one call. Shapes: x (B, D), label (B,), t (B,) -> (B, D)."""
    none = torch.full_like(label, -1)
    both = conditional_score(torch.cat([x, x]), torch.cat([t, t]), torch.cat([label, none]))
    s_c, s_0 = both.chunk(2)
    return s_0 + scale * (s_c - s_0)


def guided_noises(noise_c: Tensor, noise_0: Tensor, gradient: Tensor, sigma: Tensor, w: float) -> tuple[Tensor, Tensor]:
    """noise_0 + w (noise_c - noise_0), noise_0 - w sigma gradient. Shapes: (B, D) each, sigma (B,)."""
    free = noise_0 + w * (noise_c - noise_0)
    pull = -sigma[:, None] * gradient
    by_classifier = noise_0 + w * pull
    return free, by_classifier


def guided_variances(variance: Tensor, w: float) -> tuple[Tensor, Tensor]:
    """v^w for the flow, v / (v + w (1 - v)) for the tilted law. Shapes: (K,) -> (K,), (K,)."""
    v = variance
    flow = v**w
    precision = (1 - w) + w / v
    return flow, 1 / precision


def left_of_the_input(data_variance: Tensor, alpha: Tensor, sigma: Tensor) -> tuple[Tensor, Tensor]:
    """rho^2 by the SDE, rho by the flow, rho^2 = alpha^2 v / (alpha^2 v + sigma^2). Shapes: (K,) each -> (K,), (K,)."""
    signal = alpha**2 * data_variance
    share = signal / (signal + sigma**2)
    rho = share.sqrt()
    return rho**2, rho


def flow_and_langevin(
    score_c: Tensor, score_0: Tensor, drift: Tensor, diffusion: Tensor, w: float, h: Tensor, z: Tensor
) -> tuple[Tensor, Tensor]:
    """-h (f - g^2/2 s_c), and g^2 h/2 s' + g sqrt(h) z, s' = s_0 + (2w - 1)(s_c - s_0). Shapes: (B, D), g, h ()."""
    g = diffusion
    flow = -h * (drift - 0.5 * g**2 * score_c)
    scale = 2 * w - 1
    followed = score_0 + scale * (score_c - score_0)
    step_size = g**2 * h
    langevin = 0.5 * step_size * followed + step_size.sqrt() * z
    return flow, langevin


def autoguided_deviation(good: Tensor, bad: Tensor, w: float, sigma_max: float) -> Tensor:
    """sigma_max (good / (good + sigma_max^2))^(w/2) (bad / (bad + sigma_max^2))^((1-w)/2). Shapes: (K,) -> (K,)."""
    by_good = good / (good + sigma_max**2)
    by_bad = bad / (bad + sigma_max**2)
    shrunk = by_good**w * by_bad ** (1 - w)
    return sigma_max * shrunk.sqrt()
