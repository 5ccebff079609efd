"""Random mixtures in the three covariance forms, the same laws as torch.distributions sees them, and a reader's SDE."""

import math

import torch
from torch import Tensor
from torch.distributions import Categorical, MixtureSameFamily, MultivariateNormal

from coursework.distributions import GaussianMixture
from coursework.sdes import SDE

KINDS = ("full", "diagonal", "isotropic")


def random_parameters(kind: str, n_components: int = 3, n_dims: int = 4, *, seed: int = 0) -> tuple[Tensor, ...]:
    """Means, covariances in the given form and weights, float64, none of them symmetric or equal by accident."""
    generator = torch.Generator().manual_seed(seed)
    k, d = n_components, n_dims
    means = 1.5 * torch.randn(k, d, generator=generator, dtype=torch.float64)
    weights = 0.5 + torch.rand(k, generator=generator, dtype=torch.float64)
    if kind == "full":
        factor = torch.randn(k, d, d, generator=generator, dtype=torch.float64) / d**0.5
        covariances = factor @ factor.mT + 0.3 * torch.eye(d, dtype=torch.float64)
    else:
        shape = (k, d) if kind == "diagonal" else (k,)
        covariances = 0.3 + torch.rand(shape, generator=generator, dtype=torch.float64)
    return means, covariances, weights


def random_mixture(
    kind: str, n_components: int = 3, n_dims: int = 4, *, seed: int = 0, dtype: torch.dtype = torch.float64
) -> GaussianMixture:
    """A GaussianMixture with `random_parameters`."""
    return GaussianMixture(*(p.to(dtype) for p in random_parameters(kind, n_components, n_dims, seed=seed)))


def full_covariances(covariances: Tensor, n_dims: int) -> Tensor:
    """Any of the three forms as (K, D, D)."""
    if covariances.ndim == 3:
        return covariances
    if covariances.ndim == 1:
        covariances = covariances[:, None].expand(-1, n_dims)
    return torch.diag_embed(covariances)


def by_torch(means: Tensor, covariances: Tensor, weights: Tensor) -> MixtureSameFamily:
    """The same law by torch.distributions: an independent implementation."""
    components = MultivariateNormal(means, full_covariances(covariances, means.shape[1]))
    return MixtureSameFamily(Categorical(weights), components)


def points(n: int, n_dims: int, *, seed: int = 1, scale: float = 2.0, dtype: torch.dtype = torch.float64) -> Tensor:
    """n points, (n, D), that cover the random mixtures and a little more."""
    generator = torch.Generator().manual_seed(seed)
    return scale * torch.randn(n, n_dims, generator=generator, dtype=torch.float64).to(dtype)


class Cosine(SDE):
    """alpha = cos, sigma = sin of pi t / 2, up to T = 0.98: an SDE of ten lines, as a reader would write it."""

    T = 0.98

    def alpha(self, t):
        return torch.cos(math.pi / 2 * t)

    def sigma(self, t):
        return torch.sin(math.pi / 2 * t)

    def drift_coefficient(self, t):
        return -math.pi / 2 * torch.tan(math.pi / 2 * t)

    def diffusion(self, t):
        return torch.sqrt(math.pi * torch.tan(math.pi / 2 * t))
