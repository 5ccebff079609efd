"""Cases of the exercises of lesson 15, what to train, and how."""

from torch import Generator, Tensor

from coursework.exercises.draws import count, normal, number, uniform
from coursework.exercises.exercise import Exercise
from coursework.exercises.observers import named


def _levels(generator: Generator) -> tuple[Tensor, float]:
    b = count(generator, 1, 9)
    return normal(generator, b).exp(), number(generator, 0.3, 1.7)


def _directions(generator: Generator) -> tuple[Tensor, Tensor, float]:
    b = count(generator, 1, 9)
    return normal(generator, b).exp(), normal(generator, b).exp(), number(generator, 0.3, 1.7)


def _weights(generator: Generator) -> tuple[Tensor, ...]:
    b = count(generator, 1, 9)
    return tuple(uniform(generator, 3, b, low=0.3, high=2.0))  # alpha^2 + sigma^2 is not 1


def _cells(generator: Generator) -> tuple[Tensor, Tensor, Tensor]:
    k = count(generator, 2, 12)
    weights, moments, widths = uniform(generator, 3, k, low=0.1, high=2.0)
    return weights, 4 * moments**2, widths


def _spectrum(generator: Generator) -> tuple[Tensor, Tensor, Tensor]:
    d = count(generator, 1, 9)
    variances = normal(generator, d).exp()
    return variances, -uniform(generator, low=1.0, high=4.0), uniform(generator, low=0.5, high=4.0)


def _times(generator: Generator) -> tuple[Tensor, int, float]:
    b = count(generator, 1, 9)
    return uniform(generator, b, low=0.02, high=1.0), 2 * count(generator, 2, 9), number(generator, 5.0, 40.0)


def _trajectory(generator: Generator) -> tuple[Tensor, float]:
    n, p = count(generator, 3, 12), count(generator, 2, 5)
    return 1.0 + normal(generator, n, p), number(generator, 0.5, 8.0)


EXERCISES = (
    Exercise("15.1", "edm_factors", _levels, named("c_skip", "c_out", "c_in")),
    Exercise("15.2", "linear_loss", _directions),
    Exercise("15.3", "same_loss", _weights, named("score", "data", "velocity")),
    Exercise("15.4", "best_sampler", _cells, named("probabilities", "factors")),
    Exercise("15.5", "gaussian_bound", _spectrum),
    Exercise("15.6", "time_features", _times, rtol=1e-9),
    Exercise("15.7", "power_average", _trajectory),
)
