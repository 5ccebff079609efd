"""Gaussian mixtures with exact densities, scores, samples and diffusion: what everything else is tested against.

Lesson 01. Values are computed in float64 and rounded once, to the dtype of `x`.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Protocol

import torch
from torch import Tensor

from coursework._arguments import at_least, batch, expand, finite, floating, holds, ordinary, positive, reals

if TYPE_CHECKING:
    from coursework.sdes import SDE

LARGEST_FULL = 50_000_000  # entries of full covariances, K D^2
CHUNK = 1 << 22  # entries of one (B, K, D) work tensor: 32 MB in float64


class Density(Protocol):
    """What a density knows: log_prob(x) -> (B,), score(x) -> (B, D), sample(n) -> (n, D), diffuse(alpha, sigma)."""

    def log_prob(self, x: Tensor) -> Tensor:
        """log p(x)."""
        ...

    def score(self, x: Tensor) -> Tensor:
        """grad log p(x)."""
        ...

    def sample(self, n: int, *, generator: torch.Generator | None = None) -> Tensor:
        """n independent draws."""
        ...

    def diffuse(self, alpha: float | Tensor, sigma: float | Tensor) -> "Density":
        """The law of alpha X + sigma noise."""
        ...


class GaussianMixture:
    """p(x) = sum_k w_k N(x; mu_k, Sigma_k).

    Shapes: means (K, D); covariances (K, D, D) full, or (K, D) diagonal variances, or (K,) isotropic variances;
    weights (K,), positive, normalised here, equal by default. All on one device; samples have the dtype of `means`.

    Raises ValueError for shapes that disagree, values that are not finite, weights that are not positive, covariances
    that are not symmetric positive definite, and full covariances with K D^2 > 5e7 (use diagonal ones).
    """

    def __init__(self, means: Tensor, covariances: Tensor, weights: Tensor | None = None) -> None:
        floating(means, "means")
        if means.ndim != 2 or 0 in means.shape:
            raise ValueError(f"means: expected shape (K, D), got {tuple(means.shape)}")
        finite(means, "means")
        weights = means.new_ones(len(means)) if weights is None else weights
        _check_like_means(weights, means, "weights", [means.shape[:1]])
        positive(weights, "weights")
        self.dtype, self.device = means.dtype, means.device
        with torch.inference_mode(False):  # a mixture that is made there has derivatives elsewhere
            self._means, weights = ordinary(means).double(), ordinary(weights).double()
            self._eigenvalues, self._eigenvectors = _decompose(covariances, means)
            self._rotated_means = self._means  # Q_k^T mu_k, (K, D)
            if self._eigenvectors is not None:
                self._rotated_means = torch.einsum("dke,kd->ke", self._eigenvectors, self._means)
            self._log_weights = torch.log(weights / weights.sum())
            self._alpha = self._means.new_tensor(1.0)
            self._sigma = self._means.new_tensor(0.0)

    # -- what the mixture is ---------------------------------------------------------------------------------------

    @property
    def n_components(self) -> int:
        """K."""
        return len(self._means)

    @property
    def n_dims(self) -> int:
        """D."""
        return self._means.shape[1]

    @property
    def weights(self) -> Tensor:
        """w, (K,), summing to 1."""
        return self._log_weights.exp().to(self.dtype)

    @property
    def means(self) -> Tensor:
        """The components' means, (K, D); (B, K, D) where the mixture was diffused point by point."""
        return (self._alpha[..., None, None] * self._means).to(self.dtype)

    @property
    def covariances(self) -> Tensor:
        """The components' covariances in full, (K, D, D); (B, K, D, D) where it was diffused point by point."""
        alpha, sigma = self._alpha[..., None, None], self._sigma[..., None, None]
        values = (alpha**2 * self._eigenvalues + sigma**2).expand(*self._alpha.shape, -1, self.n_dims)
        if self._eigenvectors is None:
            return torch.diag_embed(values).to(self.dtype)
        vectors = self._eigenvectors
        return torch.einsum("dke,...ke,fke->...kdf", vectors, values, vectors).to(self.dtype)

    @property
    def mean(self) -> Tensor:
        """E[x] = sum_k w_k mu_k, (D,); (B, D) where the mixture was diffused point by point."""
        return (self._alpha[..., None] * (self._log_weights.exp() @ self._means)).to(self.dtype)

    @property
    def covariance(self) -> Tensor:
        """Cov[x] = sum_k w_k (Sigma_k + mu_k mu_k^T) - E[x] E[x]^T, (D, D); (B, D, D) point by point."""
        w = self._log_weights.exp()
        centred = self._means - w @ self._means
        spread = centred.T @ (w[:, None] * centred)
        within = self._rotate_back(w[:, None] * self._eigenvalues.expand(-1, self.n_dims))
        noise = torch.eye(self.n_dims, dtype=torch.float64, device=self.device)
        alpha, sigma = self._alpha[..., None, None], self._sigma[..., None, None]
        return (alpha**2 * (spread + within) + sigma**2 * noise).to(self.dtype)

    # -- the four verbs --------------------------------------------------------------------------------------------

    def log_prob(self, x: Tensor) -> Tensor:
        """log p(x) in nats. Shapes: (B, D) -> (B,), in x's dtype."""
        self._check_points(x)
        return torch.cat([torch.logsumexp(p.log_joint, 1) for p in self._pieces(x)]).to(x.dtype)

    def score(self, x: Tensor) -> Tensor:
        """grad log p(x) = sum_k r_k(x) Sigma_k^{-1} (mu_k - x), r_k(x) = p(k | x). Shapes: (B, D) -> (B, D)."""
        self._check_points(x)
        return self._score(x)

    def laplacian(self, x: Tensor) -> Tensor:
        """The Laplacian of log p, that is the divergence tr d score/dx of the score. Shapes: (B, D) -> (B,)."""
        self._check_points(x)
        return self._laplacian(x)

    def sample(self, n: int, *, generator: torch.Generator | None = None) -> Tensor:
        """n independent draws, (n, D), in the dtype of the means. Diffused point by point, n must be that B."""
        n = at_least(n, 0, "n")
        if self._alpha.ndim and n != len(self._alpha):
            raise ValueError(f"n: this mixture was diffused with {len(self._alpha)} values, got n = {n}")
        weights = self._log_weights.exp()
        k = torch.multinomial(weights, max(n, 1), replacement=True, generator=generator)[:n]
        x = self._means[k] + self._component_noise(k, self._normal(n, generator))
        alpha, sigma = expand(self._alpha, x, "alpha"), expand(self._sigma, x, "sigma")
        noise = self._normal(n, generator) if bool((sigma != 0).any()) else torch.zeros_like(x)
        return (alpha * x + sigma * noise).to(self.dtype)

    def diffuse(self, alpha: float | Tensor, sigma: float | Tensor) -> "GaussianMixture":
        """The exact law of alpha X + sigma noise: means alpha mu_k, covariances alpha^2 Sigma_k + sigma^2 I.

        alpha, sigma: numbers or 0-d; or (B,), and then the result is B mixtures, the b-th for the b-th point of x.
        Raises ValueError for other shapes, values that are not finite, sigma < 0, or alpha = sigma = 0.
        """
        shapes = {tuple(self._alpha.shape)}
        for name, value in (("alpha", alpha), ("sigma", sigma)):
            value = reals(value, name)
            finite(value, name)
            if value.ndim > 1:
                raise ValueError(f"{name}: expected a number or shape (B,), got {tuple(value.shape)}")
            shapes.add(tuple(value.shape))
        if len(shapes - {()}) > 1:
            raise ValueError(f"alpha, sigma: expected numbers or one shape (B,), got {sorted(shapes - {()})}")
        if not holds(reals(sigma, "sigma") >= 0):
            raise ValueError("sigma: expected values >= 0")
        noised = self._diffuse(alpha, sigma)
        if not holds((noised._alpha != 0) | (noised._sigma > 0)):
            raise ValueError("alpha, sigma: both are 0, which leaves a point and no density")
        return noised

    def posterior(self, x_t: Tensor, alpha: float | Tensor, sigma: float | Tensor) -> "Posterior":
        """The exact p(x_0 | x_t) for x_t = alpha x_0 + sigma noise: its `.mean` (B, D) and `.covariance` (B, D, D).

        Component k has r_k(x_t) = p(k | x_t), mean mu_k + A_k (x_t - alpha mu_k), covariance (I - alpha A_k) Sigma_k
        and gain A_k = alpha Sigma_k (alpha^2 Sigma_k + sigma^2 I)^{-1}. Raises ValueError for sigma <= 0.
        """
        positive(sigma, "sigma")
        if self._alpha.ndim:
            raise ValueError("posterior: expected a mixture that was not diffused point by point")
        prior = self._settled()
        noised = prior.diffuse(alpha, sigma)
        noised._check_points(x_t)
        return Posterior(prior, noised, x_t)

    def to(self, device: torch.device | str | None = None, dtype: torch.dtype | None = None) -> "GaussianMixture":
        """The same mixture on another device, or with samples of another dtype."""
        other = self._copy()
        for name, value in list(vars(other).items()):
            if isinstance(value, Tensor):
                setattr(other, name, value.to(device))
        other.device, other.dtype = other._means.device, dtype or self.dtype
        return other

    # -- how ------------------------------------------------------------------------------------------------------
    # Sigma_k = Q_k diag(l_k) Q_k^T is decomposed once. At (alpha, sigma) the eigenvectors stay and the eigenvalues
    # become alpha^2 l_k + sigma^2, so that nothing of shape (B, K, D, D) is ever needed. Nothing is cached later than
    # in __init__: a tensor first computed inside a torch.func transform or inference mode is of no use outside it.

    def _copy(self) -> "GaussianMixture":
        other = object.__new__(GaussianMixture)
        other.__dict__.update(self.__dict__)
        return other

    def _diffuse(self, alpha: float | Tensor, sigma: float | Tensor) -> "GaussianMixture":
        alpha, sigma = (ordinary(reals(v, "alpha, sigma").to(self.device, torch.float64)) for v in (alpha, sigma))
        other = self._copy()
        with torch.inference_mode(False):  # a law that is made there has derivatives elsewhere
            other._alpha = alpha * self._alpha
            other._sigma = torch.hypot(alpha * self._sigma, sigma)
            other._alpha, other._sigma = torch.broadcast_tensors(other._alpha, other._sigma)
        return other

    def _settled(self) -> "GaussianMixture":
        """The same law with its alpha and sigma (0-d) worked into the components."""
        other = self._copy()
        other._means, other._rotated_means = self._alpha * self._means, self._alpha * self._rotated_means
        other._eigenvalues = self._alpha**2 * self._eigenvalues + self._sigma**2
        other._alpha, other._sigma = torch.ones_like(self._alpha), torch.zeros_like(self._sigma)
        return other

    def _check_points(self, x: Tensor) -> None:
        batch(x, "x")
        self._check_form(x)

    def _check_form(self, x: Tensor) -> None:
        """What `_check_points` refuses without a look at values."""
        floating(x, "x")
        if x.ndim != 2 or x.shape[1] != self.n_dims:
            raise ValueError(f"x: expected shape (B, {self.n_dims}), got {tuple(x.shape)}")
        if x.device != self.device:
            raise ValueError(f"x: expected device {self.device} like the mixture, got {x.device}")
        expand(self._alpha, x, "alpha and sigma of diffuse")

    def _score(self, x: Tensor) -> Tensor:
        return torch.cat([p.score() for p in self._pieces(x)]).to(x.dtype)

    def _laplacian(self, x: Tensor) -> Tensor:
        return torch.cat([p.laplacian() for p in self._pieces(x)]).to(x.dtype)

    def _pieces(self, x: Tensor, width: int | None = None) -> list["_Points"]:
        """x in pieces of CHUNK entries (b, K, width); log_prob and score of isotropic mixtures need width 1 only."""
        width = width or self._eigenvalues.shape[1]
        size = max(1, CHUNK // (self.n_components * width))
        alphas = self._alpha.split(size) if self._alpha.ndim else None
        sigmas = self._sigma.split(size) if self._sigma.ndim else None
        return [
            _Points(self, piece, alphas[i] if alphas else self._alpha, sigmas[i] if sigmas else self._sigma)
            for i, piece in enumerate(x.double().split(size))
        ]

    def _normal(self, n: int, generator: torch.Generator | None) -> Tensor:
        return torch.randn(n, self.n_dims, generator=generator, dtype=self.dtype, device=self.device).double()

    def _component_noise(self, k: Tensor, z: Tensor) -> Tensor:
        """Q_k sqrt(l_k) z: (n,), (n, D) -> (n, D)."""
        z = self._eigenvalues[k].sqrt() * z
        if self._eigenvectors is None:
            return z
        size = max(1, CHUNK // self.n_dims**2)
        pieces = zip(k.split(size), z.split(size), strict=True)
        return torch.cat([torch.einsum("dne,ne->nd", self._eigenvectors[:, i], v) for i, v in pieces])

    def _rotate(self, x: Tensor) -> Tensor:
        """Q_k^T x for every k: (n, D) -> (n, K, D)."""
        if self._eigenvectors is None:
            return x[:, None, :]
        return (x @ self._eigenvectors.flatten(1)).unflatten(1, (self.n_components, self.n_dims))

    def _rotate_back(self, diagonal: Tensor) -> Tensor:
        """sum_k Q_k diag(d_k) Q_k^T: (K, D) -> (D, D)."""
        if self._eigenvectors is None:
            return torch.diag(diagonal.sum(0))
        basis = self._eigenvectors.flatten(1)
        return (basis * diagonal.flatten()) @ basis.T


class _Points:
    """A mixture at points x (b, D), alpha and sigma 0-d or (b,): the quantities that all verbs share."""

    def __init__(self, mixture: GaussianMixture, x: Tensor, alpha: Tensor, sigma: Tensor) -> None:
        self.mixture, self.x = mixture, x
        self.alpha, self.sigma = alpha.reshape(-1, 1, 1), sigma.reshape(-1, 1, 1)
        self.variances = self.alpha**2 * mixture._eigenvalues + self.sigma**2  # (b or 1, K, 1 or D)

    @cached_property
    def offsets(self) -> Tensor:
        """Q_k^T (x - alpha mu_k), (b, K, D)."""
        return self.mixture._rotate(self.x) - self.alpha * self.mixture._rotated_means

    @cached_property
    def distances(self) -> Tensor:
        """(x - alpha mu_k)^T Sigma_k^{-1} (x - alpha mu_k) at this alpha and sigma, (b, K)."""
        if not self.isotropic:
            return (self.offsets**2 / self.variances).sum(-1)
        origin = self.mixture._means.mean(0)
        x, means = self.x - self.alpha[:, 0] * origin, self.mixture._means - origin
        square = (x**2).sum(1, keepdim=True) - 2 * self.alpha[:, 0] * (x @ means.T)
        return (square + self.alpha[:, 0] ** 2 * (means**2).sum(1)) / self.variances[..., 0]

    @property
    def isotropic(self) -> bool:
        """Whether every component's covariance is a multiple of I."""
        return self.mixture._eigenvalues.shape[1] == 1

    @cached_property
    def log_joint(self) -> Tensor:
        """log w_k + log N(x; mu_k, Sigma_k), (b, K)."""
        d = self.mixture.n_dims
        log_det = self.variances.log().sum(-1) * (d if self.isotropic else 1)
        return self.mixture._log_weights - 0.5 * (self.distances + log_det + d * math.log(2 * math.pi))

    @cached_property
    def responsibilities(self) -> Tensor:
        """r_k(x) = p(k | x), (b, K)."""
        return torch.softmax(self.log_joint, 1)

    def score(self) -> Tensor:
        """sum_k r_k Sigma_k^{-1} (alpha mu_k - x), (b, D)."""
        if self.isotropic:
            pull = self.responsibilities / self.variances[..., 0]
            return self.alpha[:, 0] * (pull @ self.mixture._means) - self.x * pull.sum(1, keepdim=True)
        return -self.combine(self.responsibilities[..., None] * self.offsets / self.variances)

    def laplacian(self) -> Tensor:
        """sum_k r_k (|Sigma_k^{-1} (x - alpha mu_k)|^2 - tr Sigma_k^{-1}) - |score|^2, (b,)."""
        if self.isotropic:
            precision = 1 / self.variances[..., 0]
            within = self.distances * precision - self.mixture.n_dims * precision
        else:
            within = (self.offsets**2 / self.variances**2).sum(-1) - (1 / self.variances).sum(-1)
        return (self.responsibilities * within).sum(1) - self.score().square().sum(1)

    def combine(self, values: Tensor) -> Tensor:
        """sum_k Q_k v_k, (b, K, D) -> (b, D)."""
        if self.mixture._eigenvectors is None:
            return values.sum(1)
        return values.flatten(1) @ self.mixture._eigenvectors.flatten(1).T


@dataclass(frozen=True)
class Posterior:
    """Moments of p(x_0 | x_t): see `GaussianMixture.posterior`."""

    prior: GaussianMixture
    noised: GaussianMixture
    x_t: Tensor

    @cached_property
    def mean(self) -> Tensor:
        """E[x_0 | x_t], (B, D)."""
        return torch.cat([self._mean(p) for p in self._pieces]).to(self.x_t.dtype)

    @cached_property
    def covariance(self) -> Tensor:
        """Cov[x_0 | x_t], (B, D, D)."""
        return torch.cat([self._covariance(p) for p in self._pieces]).to(self.x_t.dtype)

    @cached_property
    def _pieces(self) -> list["_Points"]:
        return self.noised._pieces(self.x_t, self.prior.n_dims)

    def _gain(self, p: "_Points") -> Tensor:
        """alpha l_k / (alpha^2 l_k + sigma^2), l_k the prior's eigenvalues."""
        return p.alpha * self.prior._eigenvalues / p.variances

    def _mean(self, p: "_Points") -> Tensor:
        r = p.responsibilities
        return r @ self.prior._means + p.combine(r[..., None] * self._gain(p) * p.offsets)

    def _covariance(self, p: "_Points") -> Tensor:
        """sum_k r_k (C_k + (m_k - m)(m_k - m)^T), one point at a time."""
        gain = self._gain(p)
        within = p.responsibilities[..., None] * (1 - p.alpha * gain) * self.prior._eigenvalues
        centres = self.prior._rotated_means + gain * p.offsets
        mean = self._mean(p)
        rows = zip(p.responsibilities, within.expand_as(centres), centres, mean, strict=True)
        found = [self._point_covariance(*row) for row in rows]
        return torch.stack(found) if found else mean.new_zeros(0, mean.shape[1], mean.shape[1])

    def _point_covariance(self, r: Tensor, within: Tensor, centres: Tensor, mean: Tensor) -> Tensor:
        """Shapes: (K,), (K, D), (K, D), (D,) -> (D, D)."""
        vectors = self.prior._eigenvectors
        centred = (centres if vectors is None else torch.einsum("dke,ke->kd", vectors, centres)) - mean
        return self.prior._rotate_back(within) + centred.T @ (r[:, None] * centred)


def exact_score(density: Density, sde: "SDE") -> Callable[[Tensor, Tensor], Tensor]:
    """The score of the noisy law, score(x, t) = grad log p_t(x), for x_0 from `density` under `sde`.

    Shapes: x (B, D), t 0-d or (B,), in [0, T] -> (B, D). A GaussianMixture's values are not looked at here, so that a
    solver's loop never waits for the device, and its score brings `score.divergence(x, t)`, (B,), in closed form.
    """
    if isinstance(density, GaussianMixture):
        return _MixtureScore(density, sde)

    def score(x: Tensor, t: Tensor) -> Tensor:
        t = sde.time(t)
        return density.diffuse(sde.alpha(t), sde.sigma(t)).score(x)

    return score


class _MixtureScore:
    """score(x, t) of a noisy mixture, and its divergence; only the form of x is checked."""

    def __init__(self, density: GaussianMixture, sde: "SDE") -> None:
        self.density, self.sde = density, sde

    def __call__(self, x: Tensor, t: Tensor) -> Tensor:
        noised = self._noised(t)
        self.density._check_form(x)
        return noised._score(x)

    def divergence(self, x: Tensor, t: Tensor) -> Tensor:
        """tr dscore/dx, (B, D), 0-d or (B,) -> (B,)."""
        return self._noised(t)._laplacian(x)

    def _noised(self, t: Tensor) -> GaussianMixture:
        t = self.sde.time(t)
        return self.density._diffuse(self.sde.alpha(t), self.sde.sigma(t))


def _check_like_means(value: Tensor, means: Tensor, name: str, shapes: list[tuple[int, ...]]) -> None:
    floating(value, name)
    if tuple(value.shape) not in [tuple(s) for s in shapes]:
        expected = " or ".join(str(tuple(s)) for s in shapes)
        raise ValueError(f"{name}: expected shape {expected} for means {tuple(means.shape)}, got {tuple(value.shape)}")
    if value.device != means.device:
        raise ValueError(f"{name}: expected device {means.device} like means, got {value.device}")
    finite(value, name)


def _decompose(covariances: Tensor, means: Tensor) -> tuple[Tensor, Tensor | None]:
    """Eigenvalues (K, 1) or (K, D) and, for full covariances, all eigenvectors: (D, K, D), Q_k at [:, k]."""
    k, d = means.shape
    _check_like_means(covariances, means, "covariances", [(k, d, d), (k, d), (k,)])
    if covariances.ndim < 3:
        positive(covariances, "covariances")
        return ordinary(covariances).double().reshape(k, -1), None
    if k * d * d > LARGEST_FULL:
        raise ValueError(f"covariances: K D^2 = {k * d * d:.3g} entries; at most {LARGEST_FULL:.0e}, or use (K, D)")
    if not torch.allclose(covariances, covariances.mT, rtol=1e-4, atol=1e-6 * float(covariances.abs().max())):
        raise ValueError("covariances: expected symmetric matrices")
    eigenvalues, eigenvectors = torch.linalg.eigh(ordinary(covariances).double())
    if not bool((eigenvalues > 0).all()):
        raise ValueError(f"covariances: expected positive definite, got an eigenvalue {eigenvalues.min().item():.3g}")
    return eigenvalues, eigenvectors.transpose(0, 1).contiguous()
