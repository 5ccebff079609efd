"""Other right answers to the exercises of lesson 04."""

import numpy as np
import torch

from coursework.distributions import GaussianMixture


def dsm_by_kernel_score(score, x, sigma, noise):
    """The label by automatic differentiation of the kernel's log-density."""
    x_t = (x + sigma * noise).detach().requires_grad_()
    (label,) = torch.autograd.grad(torch.distributions.Normal(x, sigma).log_prob(x_t).sum(), x_t)
    return sum(((s - y) ** 2).sum() for s, y in zip(score(x_t.detach()), label, strict=True)) / (2 * len(x))


def floor_by_posterior_variance(covariance, sigma):
    """The label -(x_t - x) / sigma^2 varies with x alone once x_t is known: tr Cov[x | x_t] / (2 sigma^4)."""
    precision = torch.linalg.inv(covariance) + torch.eye(len(covariance), dtype=covariance.dtype) / sigma**2
    return (1 / torch.linalg.eigvalsh(precision)).sum() / (2 * sigma**4)


def silent_by_chi_square(n_dims, sigma, power):
    """|noise|^2 is chi-squared with n_dims degrees of freedom."""
    mean = torch.distributions.Chi2(torch.tensor(float(n_dims), dtype=sigma.dtype)).mean
    return torch.stack([s**power * mean / s**2 / 2 for s in sigma])


def denoiser_by_score(denoiser, x, sigma, noise):
    """The loss of exercise 4.1 for the score that Tweedie's formula makes of the denoiser."""
    return dsm_by_kernel_score(lambda x_t: (denoiser(x_t) - x_t) / sigma**2, x, sigma, noise)


def conversions_by_linear_systems(score_value, x_t, alpha, sigma):
    """Solve x_t = alpha x_0 + sigma noise and -sigma score = noise for (x_0, noise) at each point."""
    rows = []
    for s, y, a, b in zip(score_value, x_t, alpha, sigma, strict=True):
        matrix = torch.stack([torch.stack([a, b]), torch.stack([torch.zeros_like(a), torch.ones_like(b)])])
        data, noise = torch.linalg.solve(matrix, torch.stack([y, -b * s]))
        rows.append(torch.stack([noise, data, torch.stack([a, -b]) @ torch.stack([noise, data])]))
    return tuple(torch.stack(rows).unbind(1))


def wiener_by_tweedie(x_t, mean, covariance, alpha, sigma):
    """Tweedie's formula with the score by automatic differentiation."""
    noisy = alpha**2 * covariance + sigma**2 * torch.eye(len(mean)).to(mean)
    leaf = x_t.detach().requires_grad_()
    law = torch.distributions.MultivariateNormal(alpha * mean, noisy)
    (score,) = torch.autograd.grad(law.log_prob(leaf).sum(), leaf)
    return (x_t + sigma**2 * score) / alpha


def wiener_by_mixture(x_t, mean, covariance, alpha, sigma):
    """The package's exact posterior of a mixture with one component."""
    return GaussianMixture(mean[None], covariance[None]).posterior(x_t, alpha, sigma).mean


def wiener_by_least_squares(x_t, mean, covariance, alpha, sigma):
    """The minimiser of |x_t - alpha x|^2 / sigma^2 + (x - mean)^T covariance^{-1} (x - mean), by stacked rows."""
    root = torch.linalg.cholesky(torch.linalg.inv(covariance)).T
    rows = torch.cat([alpha / sigma * torch.eye(len(mean)).to(mean), root])
    targets = torch.cat([x_t.T / sigma, (root @ mean)[:, None].expand(-1, len(x_t))])
    return torch.linalg.lstsq(rows, targets).solution.T


def wiener_by_numbers(x_t, mean, covariance, alpha, sigma):
    """Python's numbers for alpha and sigma: it needs values."""
    a, b = float(alpha), sigma.item()
    noisy = a**2 * covariance + b**2 * torch.eye(len(mean)).to(mean)
    return mean + a * (x_t - a * mean) @ torch.linalg.inv(noisy) @ covariance


def wiener_by_numpy(x_t, mean, covariance, alpha, sigma):
    """numpy's arrays, and back: it needs values."""
    x_t, mean, covariance, alpha, sigma = (value.numpy() for value in (x_t, mean, covariance, alpha, sigma))
    noisy = alpha**2 * covariance + sigma**2 * np.eye(len(mean))
    return torch.from_numpy(mean + alpha * (x_t - alpha * mean) @ np.linalg.inv(noisy) @ covariance)


ROUTES = {
    "4.1": [dsm_by_kernel_score],
    "4.2": [floor_by_posterior_variance],
    "4.3": [silent_by_chi_square],
    "4.4": [denoiser_by_score],
    "4.5": [conversions_by_linear_systems],
    "4.6": [wiener_by_tweedie, wiener_by_mixture, wiener_by_least_squares, wiener_by_numbers, wiener_by_numpy],
}
