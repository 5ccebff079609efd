"""Other right answers to the exercises of lesson 06."""

import math

import torch

from coursework.ncsn import annealed_langevin
from coursework.sdes import VESDE


def ladder_by_multiplying(sigma_max, sigma_min, n):
    """One ratio, again and again."""
    ratio = (sigma_min / sigma_max) ** (1 / (n - 1))
    levels = [float(sigma_max)]
    while len(levels) < n:
        levels.append(levels[-1] * ratio)
    return torch.tensor(levels, dtype=torch.float64)


def ladder_by_ve(sigma_max, sigma_min, n):
    """sigma(t) of the VE SDE at equally spaced times from 1 to 0."""
    return VESDE(sigma_min, sigma_max).sigma(torch.linspace(1, 0, n, dtype=torch.float64))


def overlap_by_integration(ratio, n_dims):
    """The narrow law's density, summed over the wide law's band."""
    shares = []
    for r in ratio:
        narrow = torch.distributions.Normal(torch.tensor(n_dims**0.5).double(), torch.tensor(0.5**0.5).double())
        ends = n_dims**0.5 * r - 3 * r / 2**0.5, n_dims**0.5 * r + 3 * r / 2**0.5
        x = torch.linspace(*(float(e) for e in ends), 20_001, dtype=torch.float64)
        shares.append(torch.trapezoid(narrow.log_prob(x).exp(), x))
    return torch.stack(shares)


def overlap_by_distributions(ratio, n_dims):
    """Differences of torch's own distribution function."""
    root = torch.tensor(n_dims, dtype=ratio.dtype).sqrt()
    narrow = torch.distributions.Normal(root, torch.tensor(0.5, dtype=ratio.dtype).sqrt())
    half = 3 * ratio / 2**0.5
    return narrow.cdf(root * ratio + half) - narrow.cdf(root * ratio - half)


def loss_point_by_point(score, x, sigma, noise):
    """One point after the other, weight and label as they stand in the paper."""
    total = 0.0
    for i in range(len(x)):
        x_t = x[i : i + 1] + sigma[i] * noise[i : i + 1]
        label = -(x_t - x[i : i + 1]) / sigma[i] ** 2
        total = total + sigma[i] ** 2 / 2 * (score(x_t, sigma[i : i + 1]) - label).square().sum()
    return total / len(x)


def loss_by_denoiser(score, x, sigma, noise):
    """Tweedie's denoiser against the clean point, divided by sigma^2."""
    x_t = torch.addcmul(x, sigma.unsqueeze(1), noise)
    denoised = x_t + sigma.square().unsqueeze(1) * score(x_t, sigma)
    return ((denoised - x).square().sum(-1) / (2 * sigma**2)).mean()


def step_by_normal_law(score, x, sigma, sigma_last, step_size, z):
    """The z-quantile of N(x + alpha/2 s, alpha)."""
    alpha = step_size * sigma**2 / sigma_last**2
    law = torch.distributions.Normal(x + score(x, sigma) * alpha / 2, alpha.sqrt())
    return law.icdf(torch.special.ndtr(z))


def step_by_package(score, x, sigma, sigma_last, step_size, z):
    """The package's first of two levels, with its noise taken out and ours put in."""
    states, stream = [], torch.Generator().manual_seed(7)
    drawn = torch.randn(x.shape, generator=stream, dtype=x.dtype)
    annealed_langevin(
        score, x, torch.stack([sigma, sigma_last]), step_size=step_size, n_steps_each=1, denoise=False,
        generator=stream.manual_seed(7), on_step=lambda i, level, y: states.append(y),
    )  # fmt: skip
    return states[0] + (step_size**0.5 * sigma / sigma_last) * (z - drawn)


def variance_by_steps(start, a, n_steps):
    """The recursion."""
    for _ in range(n_steps):
        start = (1 - a / 2) ** 2 * start + a
    return start


def variance_by_sum(start, a, n_steps):
    """The start and the noise of each step, each shrunk by the steps that follow it."""
    factor = 1 - a / 2
    return factor ** (2 * n_steps) * start + a * sum(factor ** (2 * k) for k in range(n_steps))


def best_by_recursion(ratio, n_steps, candidates):
    """Run every candidate's variance, look for the one nearest to 1."""
    variance = torch.full_like(candidates, ratio**2)
    for _ in range(n_steps):
        variance = variance + candidates * (1 - variance) + candidates**2 / 4 * variance
    return min(zip((variance - 1).abs().tolist(), candidates, strict=True), key=lambda pair: pair[0])[1]


def best_by_newton(ratio, n_steps, candidates):
    """The zero of the derivative by bisection, then the better of its two neighbours."""

    def variance(a):
        return (1 - a / 2) ** (2 * n_steps) * (ratio**2 - 1 / (1 - a / 4)) + 1 / (1 - a / 4)

    def slope(a):
        return variance(a + 1e-6) - variance(a - 1e-6)

    low, high = 1e-4, 1.9
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if slope(middle) < 0 else (low, middle)
    two = candidates[(candidates - low).abs().argsort()[:2]]
    return two[0] if variance(float(two[0])) < variance(float(two[1])) else two[1]


def hold_by_arithmetic(x, x_known, known, sigma, noise):
    """A weighted sum with weights 0 and 1."""
    weight = known.to(x.dtype)
    return weight * x_known + sigma * weight * noise + (1 - weight) * x


def hold_by_assignment(x, x_known, known, sigma, noise):
    """Column by column, into a copy."""
    out = x.clone()
    for j in range(x.shape[1]):
        if bool(known[j]):
            out[:, j] = x_known[:, j] + math.sqrt(float(sigma) ** 2) * noise[:, j]
    return out


ROUTES = {
    "6.1": [ladder_by_multiplying, ladder_by_ve],
    "6.2": [overlap_by_integration, overlap_by_distributions],
    "6.3": [loss_point_by_point, loss_by_denoiser],
    "6.4": [step_by_normal_law, step_by_package],
    "6.5": [variance_by_steps, variance_by_sum],
    "6.6": [best_by_recursion, best_by_newton],
    "6.7": [hold_by_arithmetic, hold_by_assignment],
}
