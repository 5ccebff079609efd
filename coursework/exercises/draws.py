"""Random ingredients of exercise cases, in float64."""

from torch import Generator, Tensor, eye, float64, rand, randint, randn


def normal(generator: Generator, *shape: int) -> Tensor:
    """Standard normal numbers."""
    return randn(shape, generator=generator, dtype=float64)


def uniform(generator: Generator, *shape: int, low: float, high: float) -> Tensor:
    """Uniform numbers in [low, high); no shape gives a 0-d tensor."""
    return low + (high - low) * rand(shape, generator=generator, dtype=float64)


def covariances(generator: Generator, k: int, d: int) -> Tensor:
    """Well-conditioned covariance matrices of different sizes and orientations, (k, d, d)."""
    factor = normal(generator, k, d, d)
    scale = uniform(generator, k, 1, 1, low=0.3, high=1.5)
    return scale * (factor @ factor.mT / d + 0.3 * eye(d, dtype=float64))


def points_near(generator: Generator, n: int, centres: Tensor) -> Tensor:
    """n points around randomly chosen centres (K, D), (n, D)."""
    chosen = randint(len(centres), (n,), generator=generator)
    return centres[chosen] + normal(generator, n, centres.shape[1])
