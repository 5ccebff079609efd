"""Random ingredients of exercise cases, in float64. Sizes are drawn too: no answer may depend on one shape."""

import torch
from torch import Generator, Tensor, eye, float64, rand, randint, randn

from coursework.sdes import SDE, VESDE, VPSDE, SubVPSDE, as_time


def normal(generator: Generator, *shape: int) -> Tensor:
    """Standard normal numbers."""
    return randn(shape, generator=generator, dtype=float64)


def uniform(generator: Generator, *shape: int, low: float, high: float) -> Tensor:
    """Uniform numbers in [low, high); no shape gives a 0-d tensor."""
    return low + (high - low) * rand(shape, generator=generator, dtype=float64)


def number(generator: Generator, low: float, high: float) -> float:
    """One uniform number in [low, high)."""
    return float(uniform(generator, low=low, high=high))


def count(generator: Generator, low: int, high: int) -> int:
    """A whole number from low to high, both included."""
    return int(randint(low, high + 1, (), generator=generator))


def sizes(generator: Generator) -> tuple[int, int]:
    """B points, 1 to 9, in D dimensions, 2 to 7."""
    return count(generator, 1, 9), count(generator, 2, 7)


def covariances(generator: Generator, k: int, d: int) -> Tensor:
    """Well-conditioned covariance matrices of different sizes and orientations, (k, d, d)."""
    factor = normal(generator, k, d, d)
    scale = uniform(generator, k, 1, 1, low=0.3, high=1.5)
    return scale * (factor @ factor.mT / d + 0.3 * eye(d, dtype=float64))


def points_near(generator: Generator, n: int, centres: Tensor) -> Tensor:
    """n points around randomly chosen centres (K, D), (n, D)."""
    chosen = randint(len(centres), (n,), generator=generator)
    return centres[chosen] + normal(generator, n, centres.shape[1])


class OwnSDE(SDE):
    """An SDE as a user writes it: alpha = 1 / (1 + a t), sigma^2 = b t (1 + t); alpha^2 + sigma^2 is not 1."""

    def __init__(self, a: float, b: float) -> None:
        self.a, self.b = a, b

    def alpha(self, t: float | Tensor) -> Tensor:
        """1 / (1 + a t)."""
        return 1 / (1 + self.a * as_time(t))

    def sigma(self, t: float | Tensor) -> Tensor:
        """sqrt(b t (1 + t))."""
        t = as_time(t)
        return torch.sqrt(self.b * t * (1 + t))

    def drift_coefficient(self, t: float | Tensor) -> Tensor:
        """-a / (1 + a t)."""
        return -self.a * self.alpha(t)

    def diffusion(self, t: float | Tensor) -> Tensor:
        """g^2 = (sigma^2)' - 2 f sigma^2."""
        t = as_time(t)
        return torch.sqrt(self.b * (1 + 2 * t) + 2 * self.a * self.alpha(t) * self.sigma(t) ** 2)


class WavyTimedScore:
    """s(x, t) = x M^T / (1 + t) + sin(3 t + x): nonlinear, and different at every time."""

    def __init__(self, matrix: Tensor) -> None:
        self.matrix = matrix

    def __call__(self, x: Tensor, t: Tensor) -> Tensor:
        """Shapes: x (B, D), t () or (B,) -> (B, D)."""
        t = t[:, None] if t.ndim else t
        return x @ self.matrix.T / (1 + t) + torch.sin(3 * t + x)

    def to(self, device: str) -> "WavyTimedScore":
        """The same score on another device."""
        return WavyTimedScore(self.matrix.to(device))


class Curved:
    """x -> x A^T - x^3: a score that is not linear, so that the point where it is asked matters."""

    def __init__(self, matrix: Tensor) -> None:
        self.matrix = matrix

    def __call__(self, x: Tensor) -> Tensor:
        """Shapes: (B, D) -> (B, D)."""
        return x @ self.matrix.T - x**3


def linear_sde(generator: Generator) -> SDE:
    """VP, sub-VP, VE or an SDE of one's own, with a T that is not 1 and a t_min of its own."""
    kind = count(generator, 1, 5)
    low, high = uniform(generator, 2, low=0.0, high=1.0).tolist()
    if kind <= 2:
        sde: SDE = (VPSDE, SubVPSDE)[kind - 1](0.3 + 0.6 * low, 2.0 + 3.0 * high)
    elif kind == 3:
        sde = VESDE(0.1 + 0.2 * low, 2.0 + 3.0 * high)
    else:
        sde = OwnSDE(0.5 + 1.5 * low, 0.3 + high)
    sde.T = number(generator, 0.8, 0.95) if count(generator, 0, 1) else number(generator, 1.05, 1.3)
    sde.t_min = number(generator, 0.002, 0.02)
    return sde


def time_of(generator: Generator, sde: SDE, low: float, high: float) -> Tensor:
    """A time of the SDE, between these shares of its T. Shape: ()."""
    return sde.T * uniform(generator, low=low, high=high)
