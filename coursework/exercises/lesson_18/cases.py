"""Cases of the exercises of lesson 18, few steps."""

from typing import Any

import torch
from torch import Generator, Tensor

from coursework.exercises.draws import Curved, WavyTimedScore, count, normal, number, sizes, uniform
from coursework.exercises.exercise import Exercise


def _times(generator: Generator) -> tuple[Any, ...]:
    """alpha and sigma of no path in particular, at two times."""
    b, d = sizes(generator)
    start = uniform(generator, low=0.2, high=0.6), uniform(generator, low=0.6, high=1.5)
    end = uniform(generator, low=0.7, high=0.95), uniform(generator, low=0.1, high=0.5)
    return normal(generator, b, d), normal(generator, d), uniform(generator, low=0.2, high=2.0), start, end


class Slope:
    """direction -> matrix times direction: the product of a Jacobian with a direction."""

    def __init__(self, matrix: Tensor) -> None:
        self.matrix = matrix

    def __call__(self, direction: Tensor) -> Tensor:
        """Shapes: (B, D) -> (B, D)."""
        return direction @ self.matrix.T


def _rates(generator: Generator) -> tuple[Any, ...]:
    b, d = sizes(generator)
    s = uniform(generator, b, low=0.0, high=0.4)
    t = s + uniform(generator, b, low=0.1, high=0.6)
    return normal(generator, b, d), normal(generator, b, d), Slope(normal(generator, d, d)), t, s


class Network(WavyTimedScore):
    """A network of y and q, q a column."""

    def __call__(self, x: Tensor, t: Tensor) -> Tensor:
        """Shapes: x (B, D), t (B, 1) or (B,) -> (B, D)."""
        return super().__call__(x, t.reshape(-1))


def _noisy(generator: Generator) -> tuple[Any, ...]:
    b, d = sizes(generator)
    least = number(generator, 0.02, 0.2)
    q = least + uniform(generator, b, low=0.0, high=3.0) * (torch.rand(b, generator=generator) < 0.8)
    return Network(normal(generator, d, d)), normal(generator, b, d), q, least, number(generator, 0.4, 1.5)


def _levels(generator: Generator) -> tuple[Tensor, Tensor]:
    steps = uniform(generator, count(generator, 3, 16), low=0.2, high=1.5)
    return uniform(generator, low=0.2, high=2.0), steps.cumsum(0).flip(0)


def _two_steps(generator: Generator) -> tuple[Tensor, ...]:
    b, d = sizes(generator)
    _, _, _, start, end = _times(generator)
    return normal(generator, b, d), normal(generator, b, d), *start, *end


def _generated(generator: Generator) -> tuple[Any, ...]:
    b, d = sizes(generator)
    scores = Curved(normal(generator, d, d)), Curved(normal(generator, d, d))
    _, _, _, (alpha, sigma), _ = _times(generator)
    return *scores, normal(generator, b, d), normal(generator, b, d), alpha, sigma


EXERCISES = (
    Exercise("18.1", "gauss_map", _times),
    Exercise("18.2", "mean_target", _rates),
    Exercise("18.3", "consistent", _noisy),
    Exercise("18.4", "one_step_variance", _levels),
    Exercise("18.5", "student_target", _two_steps),
    Exercise("18.6", "matching_gradient", _generated),
)
