"""Other right answers to the exercises of lesson 01."""

import torch


def by_autograd(log_prob, x):
    x = x.detach().requires_grad_()
    return torch.autograd.grad(log_prob(x).sum(), x)[0]


def gaussian_by_autograd(x, mean, covariance):
    law = torch.distributions.MultivariateNormal(mean, covariance)
    return by_autograd(law.log_prob, x)


def mixture_by_autograd(x, means, covariances, weights):
    components = torch.distributions.MultivariateNormal(means, covariances)
    law = torch.distributions.MixtureSameFamily(torch.distributions.Categorical(weights), components)
    return by_autograd(law.log_prob, x)


def energy_by_forward_mode(energy, x):
    basis = torch.eye(x.shape[1], dtype=x.dtype)
    columns = [torch.func.jvp(energy, (x,), (e.expand_as(x),))[1] for e in basis]
    return -torch.stack(columns, dim=1)


def zeros_by_differences(score, x):
    h, basis = 1e-5, torch.eye(x.shape[1], dtype=x.dtype)
    rows = torch.stack([(score(x + h * e) - score(x - h * e)) / (2 * h) for e in basis], dim=1)
    return (torch.linalg.eigvals(rows).real > 0).sum(1)


def noisy_by_autograd(x, mean, covariance, alpha, sigma):
    noise = sigma**2 * torch.eye(len(mean), dtype=x.dtype)
    law = torch.distributions.MultivariateNormal(alpha * mean, alpha**2 * covariance + noise)
    return by_autograd(law.log_prob, x)


def merging_by_bisection(distance, std):
    low, high = torch.zeros_like(distance), 2 * distance
    for _ in range(200):
        sigma = (low + high) / 2
        variance = std**2 + sigma**2
        slope = (-1 + distance**2 / variance) / variance
        low, high = (sigma, high) if slope > 0 else (low, sigma)
    return low


ROUTES = {
    "1.1": [gaussian_by_autograd],
    "1.2": [mixture_by_autograd],
    "1.3": [energy_by_forward_mode],
    "1.4": [zeros_by_differences],
    "1.5": [noisy_by_autograd],
    "1.6": [merging_by_bisection],
}
