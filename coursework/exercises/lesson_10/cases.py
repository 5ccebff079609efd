"""Cases of the exercises of lesson 10, likelihood."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Generator, Tensor

from coursework.exercises.draws import count, linear_sde, normal, number, sizes, time_of, uniform
from coursework.exercises.exercise import Exercise, Observed
from coursework.exercises.uses import COEFFICIENTS
from coursework.sdes import SDE, VPSDE


class WavyScore:
    """s(x, t) = x M^T / (1 + t) + sin(3 t + x) with its trace: nonlinear, and different at every time."""

    def __init__(self, matrix: Tensor) -> None:
        self.matrix = matrix

    def __call__(self, x: Tensor, t: Tensor) -> Tensor:
        """Shapes: x (B, D), t () -> (B, D)."""
        return x @ self.matrix.T / (1 + t) + torch.sin(3 * t + x)

    def trace(self, x: Tensor, t: Tensor) -> Tensor:
        """tr ds/dx. Shapes: x (B, D), t () -> (B,)."""
        return self.matrix.trace() / (1 + t) + torch.cos(3 * t + x).sum(1)


def _rates(generator: Generator) -> tuple:
    sde, (b, d) = linear_sde(generator), sizes(generator)
    score = WavyScore(0.7 * normal(generator, d, d))
    return score, score.trace, sde, normal(generator, b, d), time_of(generator, sde, 0.3, 0.8)


def _two(attempt: Callable[..., Any], args: tuple[Any, ...]) -> Observed:
    got = attempt(*args)
    if not isinstance(got, tuple | list) or len(got) != 2:
        raise TypeError("expected two tensors, `return velocity, divergence`")
    return {"velocity": got[0], "divergence": got[1]}


def _velocity(generator: Generator) -> tuple[Callable[[Tensor], Tensor], Tensor, Tensor]:
    """A velocity so fine that differences of its values are not near enough to derivatives."""
    (b, d), n = sizes(generator), count(generator, 1, 4)
    inner, outer = 20 * normal(generator, d, d), normal(generator, d, d)
    return lambda x: torch.sin(x @ inner.T) @ outer.T, normal(generator, b, d), normal(generator, n, b, d)


def _gaussian(generator: Generator) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    variance = uniform(generator, low=0.2, high=0.6)
    end = uniform(generator, low=1.5, high=3.0)
    prior_std = uniform(generator, low=1.8, high=2.5)
    return normal(generator, *sizes(generator)), variance, end, prior_std


def _path(generator: Generator) -> tuple:
    sde, (b, d) = linear_sde(generator), sizes(generator)
    if isinstance(sde, VPSDE):
        sde.prior_std = number(generator, 1.4, 2.0)  # not 1, so that the prior's scale shows
    score = WavyScore(0.7 * normal(generator, d, d))
    parts = uniform(generator, count(generator, 3, 6), low=0.5, high=1.5)
    return score, score.trace, sde, normal(generator, b, d), 0.6 * sde.T * torch.cumsum(parts, 0) / parts.sum()


def _log_probs(generator: Generator) -> tuple[Tensor, int, int, float, float]:
    n_dims, n_levels = count(generator, 3, 12), count(generator, 5, 40)
    low = float(uniform(generator, low=-1.5, high=-0.5))
    high = low + float(uniform(generator, low=1.5, high=3.5))
    return 4 * normal(generator, count(generator, 1, 9)), n_dims, n_levels, low, high


def _shape(generator: Generator) -> tuple[int, ...]:
    """A batch of vectors, grey images or colour images."""
    return count(generator, 1, 9), *(count(generator, 2, 5) for _ in range(count(generator, 1, 3)))


def _levels(generator: Generator) -> tuple[Tensor, int, float, float, Tensor]:
    n_levels, shape = count(generator, 4, 12), _shape(generator)
    low = float(uniform(generator, low=-1.5, high=-0.5))
    high = low + float(uniform(generator, low=1.3, high=3.0))
    k = torch.randint(n_levels, shape, generator=generator).double()
    return low + k * (high - low) / (n_levels - 1), n_levels, low, high, uniform(generator, *shape, low=0.0, high=1.0)


def _noises(generator: Generator) -> tuple[Tensor, Tensor, SDE, Tensor]:
    sde, shape = linear_sde(generator), _shape(generator)
    t = sde.T * uniform(generator, shape[0], low=0.2, high=0.9)
    return normal(generator, *shape), normal(generator, *shape), sde, t


PRIOR = ("coursework.sdes.SDE.prior_log_prob", "coursework.sdes.SDE.prior_std")
EXERCISES = (
    Exercise("10.1", "joint_rates", _rates, _two, uses=COEFFICIENTS, seed=20_021),
    Exercise("10.2", "hutchinson_divergence", _velocity, rtol=1e-11),
    Exercise("10.3", "gaussian_flow_log_prob", _gaussian, seed=20_006),
    Exercise("10.4", "flow_log_likelihood", _path, uses=(*COEFFICIENTS, *PRIOR), seed=20_021),
    Exercise("10.5", "bits", _log_probs, seed=20_006),
    Exercise("10.6", "dequantize_levels", _levels, seed=20_002),
    Exercise("10.7", "likelihood_loss", _noises, uses=COEFFICIENTS, seed=20_021),
)
