"""Cases of the exercises of lesson 07, noising in continuous time."""

import torch
from torch import Generator, Tensor

from coursework.exercises.draws import count, covariances, linear_sde, normal, sizes, time_of, uniform
from coursework.exercises.exercise import Exercise
from coursework.exercises.observers import named
from coursework.exercises.uses import COEFFICIENTS
from coursework.sdes import SDE


def _step(generator: Generator) -> tuple[SDE, Tensor, Tensor, Tensor, Tensor]:
    sde, (b, d) = linear_sde(generator), sizes(generator)
    t, h = time_of(generator, sde, 0.2, 0.7), time_of(generator, sde, 0.02, 0.2)
    return sde, normal(generator, b, d), t, h, normal(generator, b, d)


def _two_times(generator: Generator) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    n = count(generator, 1, 30)
    alpha_s, r = uniform(generator, n, low=0.5, high=0.95), uniform(generator, n, low=0.3, high=0.9)
    sigma_s, g2 = uniform(generator, n, low=0.3, high=0.9), uniform(generator, n, low=0.5, high=1.5)
    return alpha_s, sigma_s, r * alpha_s, (r**2 * sigma_s**2 + g2).sqrt()


def _rates(generator: Generator) -> tuple[Tensor, Tensor]:
    n = count(generator, 1, 30)
    return uniform(generator, n, low=1.5, high=9.0), uniform(generator, n, low=0.1, high=0.9)


def _family(generator: Generator) -> tuple[Tensor, Tensor, Tensor]:
    gamma = uniform(generator, count(generator, 1, 30), low=0.1, high=0.8)
    return uniform(generator, low=1.5, high=3.0), gamma, uniform(generator, low=0.3, high=2.0)


def _chain(generator: Generator) -> tuple[float, float, int]:
    low, high = uniform(generator, 2, low=0.0, high=1.0).tolist()
    return 0.1 + low, 5.0 + 10.0 * high, count(generator, 10, 60)


def _gaussian(generator: Generator) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    alpha, sigma = uniform(generator, low=0.2, high=0.7), uniform(generator, low=0.5, high=0.9)
    d, prior_std = count(generator, 2, 12), uniform(generator, low=1.2, high=2.0)
    return normal(generator, d), covariances(generator, 1, d)[0], alpha, sigma, prior_std


class Alpha:
    """t -> exp(-a t - b t^2)."""

    def __init__(self, a: float, b: float) -> None:
        self.a, self.b = a, b

    def __call__(self, t: Tensor) -> Tensor:
        """Shapes: (L,) -> (L,)."""
        return torch.exp(-self.a * t - self.b * t**2)


class One(Alpha):
    """VE's alpha, which is 1 at all times."""

    def __call__(self, t: Tensor) -> Tensor:
        """Shapes: (L,) -> (L,)."""
        return torch.ones_like(t)


class Sigma(Alpha):
    """t -> (c t + d t^2) exp(-a t - b t^2): the noise-to-signal ratio rises, so that g^2 is positive."""

    def __init__(self, a: float, b: float, c: float, d: float) -> None:
        super().__init__(a, b)
        self.c, self.d = c, d

    def __call__(self, t: Tensor) -> Tensor:
        """Shapes: (L,) -> (L,)."""
        return (self.c * t + self.d * t**2) * super().__call__(t)


def _schedule(generator: Generator) -> tuple[Alpha, Sigma, Tensor]:
    a, b, c, d = uniform(generator, 4, low=0.4, high=1.2).tolist()
    t = uniform(generator, count(generator, 1, 12), low=0.2, high=0.9)
    if count(generator, 0, 2) == 0:  # VE: alpha is constant
        return One(a, b), Sigma(0.0, 0.0, c, d), t
    return Alpha(a, b), Sigma(a, b, c, d), t


EXERCISES = (
    Exercise("7.1", "forward_step", _step, uses=COEFFICIENTS, seed=20_021),
    Exercise("7.2", "from_s_to_t", _two_times, named("r", "G2", "covariance"), seed=20_054),
    Exercise("7.3", "sub_vp_diffusion", _rates, seed=20_054),
    Exercise("7.4", "claimed_variance", _family, seed=20_054),
    Exercise("7.5", "chain_alpha_bar", _chain),
    Exercise("7.6", "kl_to_prior", _gaussian),
    Exercise("7.7", "coefficients", _schedule, named("f", "g2"), seed=20_023),
)
