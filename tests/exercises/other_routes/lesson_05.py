"""Other right answers to the exercises of lesson 05."""

import torch

from coursework.langevin import langevin


def step_by_normal_law(score, x, step_size, z):
    """The z-quantile of N(x + h/2 s, h), coordinate by coordinate."""
    law = torch.distributions.Normal(x + score(x) * step_size / 2, torch.tensor(step_size, dtype=x.dtype).sqrt())
    return law.icdf(torch.special.ndtr(z))


def covariance_by_kronecker(covariance, step_size):
    """S = A S A^T + h I as one linear system for the entries of S."""
    n = len(covariance)
    pull = torch.eye(n, dtype=covariance.dtype) - step_size / 2 * torch.linalg.inv(covariance)
    system = torch.eye(n * n, dtype=covariance.dtype) - torch.kron(pull, pull)
    noise = step_size * torch.eye(n, dtype=covariance.dtype).flatten()
    return torch.linalg.solve(system, noise).reshape(n, n)


def covariance_by_running(covariance, step_size):
    """Push the covariance through the chain until it stands still."""
    pull = torch.eye(len(covariance), dtype=covariance.dtype) - step_size / 2 * torch.linalg.inv(covariance)
    state, noise = torch.zeros_like(covariance), step_size * torch.eye(len(covariance), dtype=covariance.dtype)
    for _ in range(5000):
        state = pull @ state @ pull.T + noise
    return state


def ratio_by_distributions(density, x, y, step_size):
    """The proposal as a multivariate normal law of torch."""
    noise = step_size * torch.eye(x.shape[1], dtype=x.dtype)
    there = torch.distributions.MultivariateNormal(x + step_size / 2 * density.score(x), noise)
    back = torch.distributions.MultivariateNormal(y + step_size / 2 * density.score(y), noise)
    return density.log_prob(y) + back.log_prob(x) - density.log_prob(x) - there.log_prob(y)


def ratio_by_trapezoid(density, x, y, step_size):
    """The squares multiplied out: the error of the trapezoidal rule for the line integral of the score, and a rest."""
    s_x, s_y = density.score(x), density.score(y)
    rule = 0.5 * ((y - x) * (s_x + s_y)).sum(1)
    return density.log_prob(y) - density.log_prob(x) - rule - step_size / 8 * ((s_y**2).sum(1) - (s_x**2).sum(1))


def offset_by_steps(offset, covariance, step_size, n_steps):
    """The mean, step by step."""
    for _ in range(n_steps):
        offset = offset - step_size / 2 * torch.linalg.solve(covariance, offset)
    return offset


def offset_by_eigenvectors(offset, covariance, step_size, n_steps):
    """Each principal direction shrinks by a factor of its own."""
    values, vectors = torch.linalg.eigh(covariance)
    return vectors @ ((1 - step_size / (2 * values)) ** n_steps * (vectors.T @ offset))


def tempered_by_running(variance, step_size, temperature):
    """Push both variances through their chains until they stand still."""
    circulating, right = torch.zeros_like(variance), torch.zeros_like(variance)
    warm = step_size * temperature
    for _ in range(5000):
        circulating = (1 - warm / 2 / variance) ** 2 * circulating + warm * temperature
        right = (1 - step_size / 2 / variance) ** 2 * right + step_size * temperature
    return circulating, right


def weights_by_quadrature(weights, variances, temperature):
    """Integrate (w_k N_k)^(1/T), every component by itself."""
    x = torch.linspace(-60, 60, 60_001, dtype=weights.dtype)
    terms = weights[:, None] * torch.distributions.Normal(0.0, variances.sqrt()[:, None]).log_prob(x).exp()
    mass = (terms ** (1 / temperature)).sum(1)
    return mass / mass.sum()


def step_by_package(score, x, step_size, z):
    """The package's chain for one step, with the noise taken out and ours put in."""
    stream = torch.Generator().manual_seed(7)
    drawn = torch.randn(x.shape, generator=stream, dtype=x.dtype)
    moved = langevin(score, x, step_size, 1, generator=stream.manual_seed(7))
    return moved + step_size**0.5 * (z - drawn)


ROUTES = {
    "5.1": [step_by_normal_law, step_by_package],
    "5.2": [covariance_by_kronecker, covariance_by_running],
    "5.3": [ratio_by_distributions, ratio_by_trapezoid],
    "5.4": [offset_by_steps, offset_by_eigenvectors],
    "5.5": [tempered_by_running],
    "5.6": [weights_by_quadrature],
}
