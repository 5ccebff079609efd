"""Other right answers to the exercises of lesson 10."""

from itertools import pairwise

import torch
from torch.distributions import MultivariateNormal, Normal

from coursework.score_matching import denoising_objective


def rates_by_autograd(score, trace, sde, x, t):
    """The package's velocity; its divergence as the trace of the full Jacobian at every point."""

    def velocity(x):
        return sde.probability_flow(x, t, score(x, t))

    jacobian = torch.func.vmap(torch.func.jacrev(lambda point: velocity(point[None])[0]))(x)
    return velocity(x), jacobian.diagonal(dim1=1, dim2=2).sum(1)


def hutchinson_by_jacobians(velocity, x, probes):
    """The full Jacobian of every point, then the quadratic forms."""
    jacobian = torch.func.vmap(torch.func.jacfwd(lambda point: velocity(point[None])[0]))(x)
    return torch.einsum("nbi,bij,nbj->b", probes, jacobian, probes) / len(probes)


def gaussian_by_map(x, variance, variance_end, prior_std):
    """A linear map takes N(0, prior_std^2 I) from T to the data: a Gaussian of another width."""
    shrunk = prior_std**2 * variance / variance_end
    return MultivariateNormal(x.new_zeros(x.shape[1]), shrunk * torch.eye(x.shape[1], dtype=x.dtype)).log_prob(x)


def likelihood_by_odds(score, trace, sde, x, times):
    """Runs over log p itself, downwards: log p falls by h div v in each step, from a value found at the end."""
    falls = []
    for t, t_next in pairwise(times):
        v, divergence = rates_by_autograd(score, trace, sde, x, t)
        falls.append((t - t_next) * divergence)
        x = x - (t - t_next) * v
    log_prob = Normal(0.0, sde.prior_std).log_prob(x).sum(1)
    for fall in reversed(falls):
        log_prob = log_prob - fall
    return log_prob


def bits_by_probability(log_prob, n_dims, n_levels, low, high):
    """-log2 of the probability of a level's cell, the geometric mean over the dimensions."""
    cell = ((high - low) / n_levels) ** n_dims
    return -torch.log2((log_prob.exp() * cell) ** (1 / n_dims))


def dequantize_by_edges(x, n_levels, low, high, u):
    """Between the edges of the cell: a weighted mean of them."""
    levels = torch.linspace(low, high, n_levels, dtype=x.dtype)
    gap = levels.diff().mean()
    edges = torch.cat([levels - gap / 2, levels[-1:] + gap / 2])
    k = (x[..., None] - levels).abs().argmin(-1)
    return torch.lerp(edges[k], edges[k + 1], u)


def loss_by_objective(noise_hat, noise, sde, t):
    """The package's objective, point by point: a score whose noise is noise_hat."""
    losses = []
    for i in range(len(t)):
        shape = noise_hat[i : i + 1]
        losses.append(
            denoising_objective(
                lambda x, time, i=i: -noise_hat[i : i + 1] / sde.sigma(t[i]),
                sde,
                torch.zeros_like(shape),
                weighting="likelihood",
                times=t[i : i + 1],
                noise=noise[i : i + 1],
            )
        )
    return torch.stack(losses)


def loss_by_clock(noise_hat, noise, sde, t):
    """g^2 / sigma^2 is the rate of -log SNR: by autograd."""
    leaf = t.detach().clone().requires_grad_()
    (rate,) = torch.autograd.grad(-sde.log_snr(leaf).sum(), leaf)
    return rate * torch.linalg.vector_norm((noise_hat - noise).flatten(1), dim=1) ** 2 / 2


ROUTES = {
    "10.1": [rates_by_autograd],
    "10.2": [hutchinson_by_jacobians],
    "10.3": [gaussian_by_map],
    "10.4": [likelihood_by_odds],
    "10.5": [bits_by_probability],
    "10.6": [dequantize_by_edges],
    "10.7": [loss_by_objective, loss_by_clock],
}
