"""Cases of the exercises of lesson 16, evaluation."""

import torch
from torch import Generator, Tensor

from coursework.exercises.draws import count, covariances, normal, uniform
from coursework.exercises.exercise import Exercise
from coursework.exercises.observers import named


def _two_gaussians(generator: Generator) -> tuple[Tensor, ...]:
    d = count(generator, 2, 12)
    first, second = covariances(generator, 2, d)
    return normal(generator, d), first, normal(generator, d), second


def _sizes_of_sets(generator: Generator) -> tuple[int, int, int]:
    return count(generator, 2, 60), count(generator, 20, 500), count(generator, 20, 500)


def _two_sets(generator: Generator) -> tuple[Tensor, Tensor]:
    """Of different or equal size; half of them nearly copies, where most estimates are below 0."""
    n, d, m, kind = count(generator, 2, 9), count(generator, 2, 7), count(generator, 2, 9), count(generator, 0, 3)
    real, copies = normal(generator, n, d), kind > 1
    m = n if kind in (1, 2) else m
    noise = normal(generator, m, d)
    if copies:
        return real, real[torch.arange(m) % n] + 0.3 * noise
    return real, 0.5 * normal(generator, d) + uniform(generator, low=0.5, high=1.5) * noise


def _overlapping_sets(generator: Generator) -> tuple[Tensor, Tensor, int]:
    d, k = count(generator, 2, 5), count(generator, 2, 5)
    n, m = count(generator, 25, 60), count(generator, 25, 60)
    shift, scale = 0.6 * normal(generator, d), uniform(generator, low=0.7, high=1.4)
    return normal(generator, n, d), shift + scale * normal(generator, m, d), k


def _points_and_neighbours(generator: Generator) -> tuple[int, int, int]:
    return count(generator, 8, 60), count(generator, 8, 60), count(generator, 2, 5)


def _equal_covariances(generator: Generator) -> tuple[Tensor, ...]:
    d = count(generator, 2, 12)
    return normal(generator, d), normal(generator, d), 2 * covariances(generator, 1, d)[0]


def _paired(generator: Generator) -> tuple[Tensor, Tensor]:
    """Two scores of the same sets: what the sets have in common is in both."""
    n = count(generator, 3, 12)
    common = normal(generator, n)
    return common + 0.5 * normal(generator, n), common + 0.4 + 0.5 * normal(generator, n)


EXERCISES = (
    Exercise("16.1", "gaussian_frechet", _two_gaussians),
    Exercise("16.2", "frechet_floor", _sizes_of_sets),
    Exercise("16.3", "kernel_distance", _two_sets),
    Exercise("16.4", "precision_recall", _overlapping_sets, named("precision", "recall")),
    Exercise("16.5", "expected_coverage", _points_and_neighbours),
    Exercise("16.6", "best_accuracy", _equal_covariances),
    Exercise("16.7", "paired_difference", _paired, named("mean", "standard error")),
)
