"""Cases of the exercises of lesson 17, flow matching."""

from typing import Any

import torch
from torch import Generator, Tensor

from coursework.exercises.draws import WavyTimedScore, count, normal, sizes, uniform
from coursework.exercises.exercise import Exercise
from coursework.exercises.observers import named


def _pairs(generator: Generator) -> tuple[Tensor, Tensor, Tensor]:
    b, d = sizes(generator)
    return normal(generator, b, d), normal(generator, b, d), uniform(generator, b, low=0.05, high=0.95)


def _velocity_at(generator: Generator) -> tuple[Tensor, Tensor, Tensor]:
    b, d = sizes(generator)
    return normal(generator, b, d), normal(generator, b, d), uniform(generator, low=0.1, high=0.9)


def _rates(generator: Generator) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """alpha and sigma of no path in particular, and rates of the usual signs."""
    b = count(generator, 1, 9)
    alpha, sigma = uniform(generator, b, low=0.3, high=0.9), uniform(generator, b, low=0.2, high=1.5)
    return alpha, sigma, -uniform(generator, b, low=0.2, high=2.0), uniform(generator, b, low=0.2, high=2.0)


def _noisy(generator: Generator) -> tuple[Tensor, ...]:
    v, x, t = _velocity_at(generator)
    h, g = uniform(generator, low=0.02, high=0.1), uniform(generator, low=0.5, high=2.0)
    return v, x, t, h, g, normal(generator, *x.shape)


def _flow(generator: Generator) -> tuple[Any, ...]:
    b, d = sizes(generator)
    steps = uniform(generator, count(generator, 2, 5), low=0.2, high=1.0)
    times = torch.cat([torch.zeros(1, dtype=steps.dtype), steps.cumsum(0) / steps.sum()]).flip(0)
    return WavyTimedScore(0.5 * normal(generator, d, d)), normal(generator, b, d), times


def _ends(generator: Generator) -> tuple[Tensor, Tensor, Tensor]:
    b = count(generator, 1, 9)
    a, spread = uniform(generator, b, low=0.3, high=2.0), uniform(generator, b, low=0.3, high=2.0)
    return a, spread, uniform(generator, b, low=0.1, high=4.0)


EXERCISES = (
    Exercise("17.1", "line", _pairs, named("point", "velocity")),
    Exercise("17.2", "guesses", _velocity_at, named("data", "noise", "score")),
    Exercise("17.3", "weights", _rates, named("noise", "data")),
    Exercise("17.4", "noisy_step", _noisy),
    Exercise("17.5", "reflow_pairs", _flow, named("data", "noise")),
    Exercise("17.6", "bridge_covariance", _ends),
)
