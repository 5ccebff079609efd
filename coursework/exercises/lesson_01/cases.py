"""Cases of the exercises of lesson 01, the score function."""

from collections.abc import Callable

import torch
from torch import Generator, Tensor

from coursework.distributions import GaussianMixture
from coursework.exercises.draws import count, covariances, normal, points_near, sizes, uniform
from coursework.exercises.exercise import Exercise


def _gaussian(generator: Generator) -> tuple[Tensor, Tensor, Tensor]:
    b, d = sizes(generator)
    mean = normal(generator, d)
    return mean + normal(generator, b, d), mean, covariances(generator, 1, d)[0]


def _mixture(generator: Generator) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    (b, d), k = sizes(generator), count(generator, 2, 5)
    means, weights = 1.5 * normal(generator, k, d), uniform(generator, k, low=0.2, high=1.0)
    return points_near(generator, b, means), means, covariances(generator, k, d), weights / weights.sum()


def _near_and_far(attempt: Callable[..., Tensor], args: tuple[Tensor, ...]) -> dict[str, Tensor]:
    """Near the modes, and 200 away from all of them, where every density underflows."""
    x, *law = args
    far = 200 * torch.nn.functional.normalize(x, dim=1)
    return {"result": attempt(x, *law), "score far from all modes": attempt(far, *law)}


class Energy:
    """E(x) = 1/2 x^T A x + c sum cos(20 x) + level, an energy whose normaliser nobody knows.

    The ripple is so fine that differences of E are not near enough to its derivatives.
    """

    def __init__(self, matrix: Tensor, ripple: Tensor, level: float) -> None:
        self.matrix, self.ripple, self.level = matrix, ripple, level

    def __call__(self, x: Tensor) -> Tensor:
        """Shapes: (B, D) -> (B,)."""
        return 0.5 * ((x @ self.matrix) * x).sum(1) + self.ripple * torch.cos(20 * x).sum(1) + self.level


def _energy(generator: Generator) -> tuple[Energy, Tensor]:
    """In half of the cases, and for points that lie far out, exp(-E) is too small for a number."""
    b, d = sizes(generator)
    level = 1000.0 * count(generator, 0, 1)
    energy = Energy(covariances(generator, 1, d)[0], uniform(generator, low=0.05, high=0.1), level)
    far = uniform(generator, b, 1, low=0.0, high=1.0) < 0.25
    return energy, torch.where(far, 40.0, 1.0) * normal(generator, b, d)


class MixtureScore:
    """The score of a mixture as a plain function (B, D) -> (B, D)."""

    def __init__(self, mixture: GaussianMixture) -> None:
        self.mixture = mixture

    def __call__(self, x: Tensor) -> Tensor:
        """Shapes: (B, D) -> (B, D)."""
        return self.mixture.score(x)


def _zeros(generator: Generator) -> tuple[MixtureScore, Tensor]:
    """Modes at the corners of a box with random axes, far from the origin: points near corners, edges, faces, middle.

    Half-way between two corners log p rises along that axis, if they lie further apart than two standard deviations.
    """
    b, d = count(generator, 1, 12), count(generator, 3, 8)
    m = count(generator, 2, 3)
    std, centre, axes = uniform(generator, low=0.4, high=0.8), 3 * normal(generator, d), _axes(generator, m, d)
    box = std * uniform(generator, m, 1, low=1.1, high=2.4) * axes
    box[0] = torch.where(uniform(generator, low=0.0, high=1.0) < 0.2, 0.5, 1.0) * box[0]  # at times the modes merge
    signs = torch.cartesian_prod(*m * [torch.tensor([-1.0, 1.0], dtype=box.dtype)]).reshape(-1, m)
    mixture = GaussianMixture(centre + signs @ box, (std**2).expand(len(signs)))
    places = torch.randint(-1, 2, (b, m), generator=generator) * (torch.rand(b, m, generator=generator) < 0.5)
    return MixtureScore(mixture), centre + places.double() @ box + 0.1 * std * normal(generator, b, d)


def _axes(generator: Generator, m: int, d: int) -> Tensor:
    """m random directions at right angles to each other, (m, d)."""
    return torch.linalg.qr(normal(generator, d, d))[0][:m]


def _noisy(generator: Generator) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    return *_gaussian(generator), uniform(generator, low=0.3, high=0.9), uniform(generator, low=0.3, high=0.8)


def _merging(generator: Generator) -> tuple[Tensor, Tensor]:
    offset = uniform(generator, low=0.3, high=4.0)
    return offset, offset * uniform(generator, low=0.05, high=0.45)


EXERCISES = (
    Exercise("1.1", "gaussian_score", _gaussian),
    Exercise("1.2", "mixture_score", _mixture, observe=_near_and_far),
    Exercise("1.3", "energy_score", _energy, rtol=1e-11),
    Exercise("1.4", "ascending_directions", _zeros),
    Exercise("1.5", "noisy_score", _noisy),
    Exercise("1.6", "merging_noise", _merging),
)
