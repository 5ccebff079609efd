"""Cases of the exercises of lesson 14, fast solvers."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Generator, Tensor

from coursework.exercises.attempt import plain_tensors
from coursework.exercises.draws import count, normal, sizes, uniform
from coursework.exercises.exercise import Exercise, Observed


def _coefficients(generator: Generator) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """alpha and sigma at t, then at t' < t, of no SDE in particular: alpha^2 + sigma^2 is not 1."""
    alpha, sigma = uniform(generator, low=0.3, high=0.6), uniform(generator, low=0.5, high=0.9)
    alpha_next, sigma_next = uniform(generator, low=0.65, high=0.9), uniform(generator, low=0.1, high=0.4)
    return alpha, sigma, alpha_next, sigma_next


def _step(generator: Generator) -> tuple[Tensor, ...]:
    b, d = sizes(generator)
    return normal(generator, b, d), normal(generator, b, d), *_coefficients(generator)


def _and_the_last(attempt: Callable[..., Tensor], args: tuple[Any, ...]) -> Observed:
    """The step, and the one from the same x to sigma' = 0."""
    *first, sigma_next = args
    return {"result": attempt(*args), "last step, sigma' = 0": attempt(*first, torch.zeros_like(sigma_next))}


def _two_estimates(generator: Generator) -> tuple[Tensor, ...]:
    b, d = sizes(generator)
    h_before = uniform(generator, low=0.1, high=3.0)  # shorter than the step, or longer
    return (
        normal(generator, b, d),
        normal(generator, b, d),
        normal(generator, b, d),
        h_before,
        *_coefficients(generator),
    )


def _both_ends(generator: Generator) -> tuple[Tensor, ...]:
    b, d = sizes(generator)
    return normal(generator, b, d), normal(generator, b, d), normal(generator, b, d), *_coefficients(generator)


class Denoiser:
    """D(y, q) = y M^T / (1 + q) + sin(3 q + y), which counts its calls."""

    def __init__(self, matrix: Tensor) -> None:
        self.matrix, self.n_calls = matrix, 0

    def __call__(self, y: Tensor, q: Tensor) -> Tensor:
        """Shapes: y (B, D), q () -> (B, D)."""
        plain_tensors(y=y, q=q)
        self.n_calls += 1
        return y @ self.matrix.T / (1 + q) + torch.sin(3 * q + y)


def _levels(generator: Generator) -> tuple[Denoiser, Tensor, Tensor, Tensor]:
    b, d = sizes(generator)
    q, q_next = uniform(generator, low=0.8, high=2.0), uniform(generator, low=0.2, high=0.6)
    return Denoiser(0.5 * normal(generator, d, d)), normal(generator, b, d), q, q_next


def _counted(attempt: Callable[..., Tensor], args: tuple[Any, ...]) -> Observed:
    """The step, the one from the same y to q' = 0, and the calls of both together."""
    denoise, y, q, q_next = args
    before = denoise.n_calls
    seen = {"result": attempt(*args), "last step, q' = 0": attempt(denoise, y, q, torch.zeros_like(q_next))}
    return {**seen, "number of calls": torch.tensor(denoise.n_calls - before)}


def _churn(generator: Generator) -> tuple[Any, ...]:
    denoise, y, q, q_next = _levels(generator)
    return denoise, y, q, q_next, uniform(generator, low=0.2, high=1.0), normal(generator, *y.shape)


def _errors(generator: Generator) -> tuple[Tensor, Tensor, int, int]:
    m = count(generator, 6, 20)
    lambdas = normal(generator) + torch.cumsum(uniform(generator, m, low=0.2, high=1.0), 0)
    return lambdas, uniform(generator, m, low=0.1, high=2.0) ** 3, count(generator, 3, 12), count(generator, 2, 4)


EXERCISES = (
    Exercise("14.1", "data_step", _step, _and_the_last),
    Exercise("14.2", "two_m_step", _two_estimates),
    Exercise("14.3", "corrected_step", _both_ends),
    Exercise("14.4", "heun_step", _levels, _counted, counts="number of calls"),
    Exercise("14.5", "churned_step", _churn),
    Exercise("14.6", "equal_error_grid", _errors),
)
