"""Cases of the exercises of lesson 08, the reverse SDE."""

import torch
from torch import Generator, Tensor

from coursework.exercises.draws import count, normal, number, sizes, uniform
from coursework.exercises.exercise import Exercise


def _step(generator: Generator) -> tuple[Tensor, ...]:
    f, g = -uniform(generator, low=0.4, high=2.0), uniform(generator, low=1.2, high=2.5)
    h = uniform(generator, low=0.05, high=0.3)
    b, d = sizes(generator)
    return normal(generator, b, d), normal(generator, b, d), f, g, h, normal(generator, b, d)


def _variances(generator: Generator) -> tuple[Tensor, Tensor]:
    low = uniform(generator, count(generator, 1, 6), low=0.2, high=0.7)
    high = uniform(generator, count(generator, 1, 6), low=1.5, high=3.0)
    return torch.cat([low, high]), uniform(generator, low=1.0, high=4.0)


def _levels(generator: Generator) -> tuple[Tensor, ...]:
    """alpha, sigma, alpha_next, sigma_next; alpha^2 + sigma^2 is not 1: VP's shortcuts must not be needed."""
    alpha, sigma = uniform(generator, low=0.3, high=0.6), uniform(generator, low=0.8, high=1.4)
    alpha_next, sigma_next = uniform(generator, low=0.65, high=0.9), uniform(generator, low=0.3, high=0.7)
    return alpha, sigma, alpha_next, sigma_next


def _ancestral(generator: Generator) -> tuple[Tensor, ...]:
    b, d = sizes(generator)
    return normal(generator, b, d), normal(generator, b, d), *_levels(generator), normal(generator, b, d)


def _heun(generator: Generator) -> tuple:
    b, d = sizes(generator)
    matrix, offset = normal(generator, d, d), normal(generator, d)
    low, high = uniform(generator, low=0.5, high=1.0), uniform(generator, low=2.0, high=4.0)
    t = uniform(generator, low=0.6, high=0.9)

    def drift(x: Tensor, time: Tensor) -> Tensor:
        return torch.tanh(x @ matrix.T) - (1 + time**2) * x + time * offset

    def diffusion(time: Tensor) -> Tensor:
        return low + high * time**2  # neither g nor g^2 is linear: the midpoint must not pass for a mean of both ends

    t_next = t - uniform(generator, low=0.1, high=0.4)
    return drift, diffusion, normal(generator, b, d), t, t_next, normal(generator, b, d)


def _corrector(generator: Generator) -> tuple[Tensor, Tensor, Tensor, float]:
    b, d = sizes(generator)
    lengths, snr = uniform(generator, b, 1, low=0.3, high=2.0), number(generator, 0.1, 0.4)
    return normal(generator, b, d), lengths * normal(generator, b, d), normal(generator, b, d), snr


EXERCISES = (
    Exercise("8.1", "euler_maruyama_step", _step, seed=20_006),
    Exercise("8.2", "halved_score_variance", _variances),
    Exercise("8.3", "ancestral_step", _ancestral),
    Exercise("8.4", "end_std", _levels),
    Exercise("8.5", "heun_step", _heun),
    Exercise("8.6", "corrector_step", _corrector),
)
