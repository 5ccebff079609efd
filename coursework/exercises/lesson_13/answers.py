"""Right answers to the exercises of lesson 13, inverse problems."""

from collections.abc import Callable

import torch
from torch import Tensor

from coursework.sdes import SDE


def gaussian_posterior_score(
    x: Tensor,
    alpha: Tensor,
    sigma: Tensor,
    mean: Tensor,
    covariance: Tensor,
    operator: Tensor,
    y: Tensor,
    noise_std: Tensor,
) -> Tensor:
    """Score of alpha X + sigma noise, X from N(mean, covariance) given y. Shapes: x (B, D), operator (M, D); (B, D)."""
    a, c = operator, covariance
    seen = a @ c @ a.T + noise_std**2 * torch.eye(len(a), dtype=x.dtype)
    gain = c @ a.T @ torch.linalg.inv(seen)
    m = mean + gain @ (y - a @ mean)
    p = c - gain @ a @ c
    noisy = alpha**2 * p + sigma**2 * torch.eye(len(m), dtype=x.dtype)
    return -torch.linalg.solve(noisy, (x - alpha * m).T).T


def pseudoinverse_guided(
    score: Callable[[Tensor, Tensor], Tensor],
    sde: SDE,
    operator: Tensor,
    y: Tensor,
    noise_std: float | Tensor,
    x: Tensor,
    t: Tensor,
) -> Tensor:
    """s + grad log N(y; A x0_hat(x), r^2 A A^T + noise_std^2 I). Shapes: x (B, D), operator (M, D), t () -> (B, D)."""
    alpha, sigma = sde.alpha(t), sde.sigma(t)
    leaf = x.detach().requires_grad_()
    value = score(leaf, t)
    x0_hat = (leaf + sigma**2 * value) / alpha
    gap = y - x0_hat @ operator.T
    r2 = sigma**2 / (alpha**2 + sigma**2)
    eye = torch.eye(len(operator)).to(x)
    variance = r2 * operator @ operator.T + noise_std**2 * eye
    weighted = torch.linalg.solve(variance, gap.T).T
    (pull,) = torch.autograd.grad(-0.5 * (gap * weighted).sum(), leaf)
    return value.detach() + pull


def replace_and_return(
    x: Tensor, known: Tensor, mask: Tensor, sde: SDE, t: Tensor, s: Tensor, z: Tensor, z_back: Tensor
) -> tuple[Tensor, Tensor]:
    """The state at s with its known part replaced, and this led back to t. Shapes: x, known, z (B, D), mask (D,)."""
    noised = sde.alpha(s) * known + sde.sigma(s) * z
    x_s = torch.where(mask, noised, x)
    r = sde.alpha(t) / sde.alpha(s)
    g2 = sde.sigma(t) ** 2 - r**2 * sde.sigma(s) ** 2
    x_t = r * x_s + g2.sqrt() * z_back
    return x_s, x_t


def measured_langevin_step(
    score: Callable[[Tensor], Tensor],
    operator: Tensor,
    y: Tensor,
    noise_std: float,
    x: Tensor,
    eta: float,
    z: Tensor,
) -> Tensor:
    """x + eta grad log p(x | y) + sqrt(2 eta) z. Shapes: operator (M, D), y (M,), x, z (B, D) -> (B, D)."""
    gap = y - x @ operator.T
    pull = gap @ operator / noise_std**2
    return x + eta * (score(x) + pull) + (2 * eta) ** 0.5 * z


def deblurred(y: Tensor, kernel: Tensor, mean: Tensor, spectrum: Tensor, noise_std: float) -> tuple[Tensor, Tensor]:
    """The posterior's mean and spectrum, coefficient by coefficient. Shapes: all (H, W)."""
    h = torch.fft.fft2(kernel)
    seen = h.abs() ** 2 * spectrum + noise_std**2
    gap = torch.fft.fft2(y) - h * torch.fft.fft2(mean)
    gain = spectrum * h.conj() / seen
    left = spectrum * noise_std**2 / seen
    return mean + torch.fft.ifft2(gain * gap).real, left


def error_of_mean(covariance: Tensor, n: int) -> Tensor:
    """E |mean of n posterior samples - x_0|^2: both are off the posterior's mean. Shapes: (D, D) -> ()."""
    of_truth = covariance.trace()
    of_mean = covariance.trace() / n
    return of_truth + of_mean
