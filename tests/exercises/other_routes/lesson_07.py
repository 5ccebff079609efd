"""Other right answers to the exercises of lesson 07."""

import torch
from torch.distributions import MultivariateNormal, Normal, kl_divergence

from coursework.distributions import GaussianMixture


def step_by_quantile(sde, x, t, h, noise):
    """The quantile of N((1 + f h) x, g^2 h) at the level that the noise has in N(0, 1)."""
    law = Normal((1 + sde.drift_coefficient(t) * h) * x, (sde.diffusion(t) ** 2 * h).sqrt())
    return law.icdf(Normal(torch.zeros_like(x), torch.ones_like(x)).cdf(noise))


def between_by_clock(alpha_s, sigma_s, alpha_t, sigma_t):
    """x / alpha is Brownian motion with the clock (sigma / alpha)^2: all comes from differences of the clock."""
    clock_s, clock_t = (sigma_s / alpha_s) ** 2, (sigma_t / alpha_t) ** 2
    return torch.exp(alpha_t.log() - alpha_s.log()), alpha_t**2 * (clock_t - clock_s), alpha_s * alpha_t * clock_s


def between_by_regression(alpha_s, sigma_s, alpha_t, sigma_t):
    """r and G^2 by regression of x_t on x_s for data N(0, I), from their joint covariance."""
    covariance = alpha_t / alpha_s * sigma_s**2
    joint, at_s = alpha_s * alpha_t + covariance, alpha_s**2 + sigma_s**2
    slope = joint / at_s
    return slope, alpha_t**2 + sigma_t**2 - slope * joint, covariance


def sub_vp_by_autograd(beta, integrated_beta):
    """(sigma^2)' + beta sigma^2, with d/dt = beta d/dB by automatic differentiation."""
    b = integrated_beta.clone().requires_grad_()
    (slope,) = torch.autograd.grad(((1 - torch.exp(-b)) ** 2).sum(), b)
    return torch.sqrt(beta * (slope + (1 - torch.exp(-integrated_beta)) ** 2))


def claimed_by_integration(start, gamma, integrated_beta):
    """dv/dB = -v + (1 - gamma), by Runge-Kutta steps of order 4."""
    v, n = start.expand_as(gamma), 200
    h = integrated_beta / n

    def slope(v):
        return -v + (1 - gamma)

    for _ in range(n):
        k1 = slope(v)
        k2 = slope(v + h / 2 * k1)
        k3 = slope(v + h / 2 * k2)
        v = v + h / 6 * (k1 + 2 * k2 + 2 * k3 + slope(v + h * k3))
    return v


def chain_by_variance(beta_min, beta_max, n):
    """The variance of the chain from a single point: v <- (1 - beta_i) v + beta_i, and alpha_bar = 1 - v."""
    v, values = torch.zeros((), dtype=torch.float64), []
    for i in range(1, n + 1):
        b = (beta_min + i / n * (beta_max - beta_min)) / n
        v = (1 - b) * v + b
        values.append(1 - v)
    return torch.stack(values)


def kl_by_torch(mean, covariance, alpha, sigma, prior_std):
    """torch.distributions' own divergence."""
    eye = torch.eye(len(mean), dtype=mean.dtype)
    law = MultivariateNormal(alpha * mean, alpha**2 * covariance + sigma**2 * eye)
    return kl_divergence(law, MultivariateNormal(0 * mean, prior_std**2 * eye))


def kl_by_axes(mean, covariance, alpha, sigma, prior_std):
    """One divergence of one-dimensional Gaussians for each principal axis."""
    values, axes = torch.linalg.eigh(covariance)
    law = Normal(alpha * (axes.T @ mean), (alpha**2 * values + sigma**2).sqrt())
    return kl_divergence(law, Normal(torch.zeros_like(values), prior_std.expand_as(values))).sum()


def kl_by_diffusion(mean, covariance, alpha, sigma, prior_std):
    """-entropy minus the mean log-density of the prior, with the moments of the package's noisy law."""
    law = GaussianMixture(mean[None], covariance[None]).diffuse(alpha, sigma)
    prior = Normal(torch.zeros_like(mean), prior_std.expand_as(mean))
    entropy = MultivariateNormal(law.mean, law.covariance).entropy()
    quadratic = (law.covariance.trace() + law.mean @ law.mean) / (2 * prior_std**2)
    return -entropy + quadratic - prior.log_prob(torch.zeros_like(mean)).sum()


def coefficients_by_complex_step(alpha, sigma, t):
    """Slopes of log alpha and of the clock (sigma / alpha)^2 from a tiny imaginary step."""
    z = t + 1e-30j
    f = torch.log(alpha(z)).imag / 1e-30
    return f, alpha(t) ** 2 * ((sigma(z) / alpha(z)) ** 2).imag / 1e-30


def coefficients_by_vmap(alpha, sigma, t):
    """One derivative a time, by torch.func; g^2 = 2 sigma^2 (log sigma - log alpha)'."""

    def slope(fn):
        return torch.func.vmap(torch.func.grad(lambda u: fn(u).log()))(t)

    return slope(alpha), 2 * sigma(t) ** 2 * (slope(sigma) - slope(alpha))


ROUTES = {
    "7.1": [step_by_quantile],
    "7.2": [between_by_clock, between_by_regression],
    "7.3": [sub_vp_by_autograd],
    "7.4": [claimed_by_integration],
    "7.5": [chain_by_variance],
    "7.6": [kl_by_torch, kl_by_axes, kl_by_diffusion],
    "7.7": [coefficients_by_complex_step, coefficients_by_vmap],
}
