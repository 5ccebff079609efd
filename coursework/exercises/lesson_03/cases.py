"""Cases of the exercises of lesson 03, sliced score matching."""

import torch
from torch import Generator, Tensor

from coursework.exercises.draws import count, covariances, normal, sizes, uniform
from coursework.exercises.exercise import Exercise
from coursework.exercises.observers import value_and_gradient


class WavyScore:
    """s(x) = x M^T + sin(x N^T): a smooth field with a Jacobian that is not symmetric; M and N are its parameters.

    N is so large that differences of values are not near enough to derivatives.
    """

    def __init__(self, parameters: Tensor) -> None:
        self.parameters = [matrix.clone().requires_grad_() for matrix in parameters]

    def __call__(self, x: Tensor) -> Tensor:
        """Shapes: (B, D) -> (B, D)."""
        return x @ self.parameters[0].T + torch.sin(x @ self.parameters[1].T)


def _score(generator: Generator) -> tuple[WavyScore, Tensor]:
    b, d = sizes(generator)
    parameters = torch.stack([0.7 * normal(generator, d, d), 20 * normal(generator, d, d)])
    return WavyScore(parameters), normal(generator, b, d)


def _direction(generator: Generator) -> tuple[WavyScore, Tensor, Tensor]:
    score, x = _score(generator)
    return score, x, normal(generator, *x.shape)


def _directions(generator: Generator) -> tuple[WavyScore, Tensor, Tensor]:
    score, x = _score(generator)
    return score, x, normal(generator, count(generator, 1, 5), *x.shape)


def _probes(generator: Generator) -> tuple[Tensor, Tensor]:
    (b, d), m = sizes(generator), count(generator, 1, 8)
    return normal(generator, b, d, d) + 1.0, normal(generator, b, m, d) + 0.5


def _matrices(generator: Generator) -> tuple[Tensor, Tensor]:
    b, d = count(generator, 1, 9), count(generator, 2, 5)
    return normal(generator, b, d, d), uniform(generator, low=1.2, high=2.8)


def _covariance(generator: Generator) -> tuple[Tensor, Tensor]:
    return covariances(generator, 1, count(generator, 2, 9))[0], uniform(generator, low=0.5, high=1.6)


EXERCISES = (
    Exercise("3.1", "quadratic_form", _direction, observe=value_and_gradient, rtol=1e-11),
    Exercise("3.2", "hutchinson", _probes),
    Exercise("3.3", "trace_variance", _matrices),
    Exercise("3.4", "ssm_loss", _direction, observe=value_and_gradient, rtol=1e-11),
    Exercise("3.5", "ssm_vr_loss", _directions, observe=value_and_gradient, rtol=1e-11),
    Exercise("3.6", "fitted_slopes", _covariance),
)
