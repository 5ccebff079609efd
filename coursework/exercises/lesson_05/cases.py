"""Cases of the exercises of lesson 05, Langevin dynamics."""

import torch
from torch import Generator, Tensor

from coursework.distributions import GaussianMixture
from coursework.exercises.draws import Curved, count, covariances, normal, number, sizes, uniform
from coursework.exercises.exercise import Exercise
from coursework.exercises.observers import named


def _step(generator: Generator) -> tuple[Curved, Tensor, float, Tensor]:
    b, d = sizes(generator)
    score, step_size = Curved(normal(generator, d, d)), number(generator, 0.1, 0.7)
    return score, normal(generator, b, d), step_size, normal(generator, b, d)


def _covariance(generator: Generator) -> tuple[Tensor, float]:
    covariance = covariances(generator, 1, count(generator, 2, 12))[0]
    limit = 4 * float(torch.linalg.eigvalsh(covariance).min())
    return covariance, number(generator, 0.2, 0.45) * limit


def _proposal(generator: Generator) -> tuple[GaussianMixture, Tensor, Tensor, float]:
    (b, d), k = sizes(generator), count(generator, 1, 4)
    density = GaussianMixture(normal(generator, k, d), covariances(generator, k, d))
    step_size, x = number(generator, 0.2, 0.7), normal(generator, b, d)
    return density, x, x + step_size / 2 * density.score(x) + step_size**0.5 * normal(generator, b, d), step_size


def _offset(generator: Generator) -> tuple[Tensor, Tensor, float, int]:
    d = count(generator, 2, 7)
    covariance, offset = covariances(generator, 1, d)[0], 1 + normal(generator, d)
    step_size = number(generator, 0.3, 0.8) * float(torch.linalg.eigvalsh(covariance).min())
    return offset, covariance, step_size, count(generator, 3, 8)


def _variances(generator: Generator) -> tuple[Tensor, float, float]:
    hot = bool(torch.rand((), generator=generator) < 0.5)
    temperature = number(generator, 1.4, 2.2) if hot else number(generator, 0.3, 0.7)
    return uniform(generator, count(generator, 1, 12), low=0.6, high=1.5), number(generator, 0.2, 0.8), temperature


def _modes(generator: Generator) -> tuple[Tensor, Tensor, float]:
    k = count(generator, 2, 12)
    weights = uniform(generator, k, low=0.5, high=3.0)
    hot = bool(torch.rand((), generator=generator) < 0.5)
    temperature = number(generator, 1.5, 3.0) if hot else number(generator, 0.3, 0.7)
    return weights / weights.sum(), uniform(generator, k, low=0.2, high=3.0), temperature


MIXTURE = ("coursework.distributions.GaussianMixture.log_prob", "coursework.distributions.GaussianMixture.score")

EXERCISES = (
    Exercise("5.1", "langevin_step", _step),
    Exercise("5.2", "chain_covariance", _covariance),
    Exercise("5.3", "log_ratio", _proposal, uses=MIXTURE),
    Exercise("5.4", "offset_left", _offset),
    Exercise("5.5", "tempered_variances", _variances, named("faulty", "right"), seed=20_001),
    Exercise("5.6", "tempered_weights", _modes),
)
