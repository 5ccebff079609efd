"""Cases of the exercises of lesson 13, inverse problems."""

from typing import Any

import torch
from torch import Generator, Tensor

from coursework.exercises.draws import (
    Curved,
    WavyTimedScore,
    count,
    covariances,
    linear_sde,
    normal,
    number,
    sizes,
    time_of,
    uniform,
)
from coursework.exercises.exercise import Exercise
from coursework.exercises.observers import named, on_its_device
from coursework.exercises.uses import COEFFICIENTS


def _posterior(generator: Generator) -> tuple[Tensor, ...]:
    alpha, sigma = uniform(generator, low=0.4, high=0.8), uniform(generator, low=0.3, high=0.8)
    b, d = sizes(generator)
    m = min(count(generator, 1, 4), d)  # A C A^T has an inverse
    law = normal(generator, d), covariances(generator, 1, d)[0]
    measured = normal(generator, m, d), normal(generator, m), uniform(generator, low=0.2, high=0.7)
    return normal(generator, b, d), alpha, sigma, *law, *measured


def _measured(generator: Generator) -> tuple[Any, ...]:
    """The noise as a number or a tensor; one measurement for all points, or for each its own."""
    sde, (b, d) = linear_sde(generator), sizes(generator)
    m = min(count(generator, 1, 4), d)  # A A^T has an inverse
    y = normal(generator, b, m) if count(generator, 0, 1) else normal(generator, m)
    noise_std = uniform(generator, low=0.2, high=0.7)
    score, x = WavyTimedScore(0.4 * normal(generator, d, d)), normal(generator, b, d)
    t = time_of(generator, sde, 0.3, 0.7)
    return score, sde, normal(generator, m, d), y, float(noise_std) if count(generator, 0, 1) else noise_std, x, t


def _mask(generator: Generator) -> tuple[Any, ...]:
    sde, b, d = linear_sde(generator), count(generator, 1, 9), count(generator, 3, 8)
    s = time_of(generator, sde, 0.2, 0.5)
    t = s + time_of(generator, sde, 0.1, 0.3)
    mask = torch.randperm(d, generator=generator) < count(generator, 1, d - 1)
    x, known, z, z_back = normal(generator, 4, b, d)
    return x, known, mask, sde, t, s, z, z_back


def _langevin(generator: Generator) -> tuple[Any, ...]:
    b, d = sizes(generator)
    m = count(generator, 1, 5)
    score, x, z = Curved(normal(generator, d, d)), normal(generator, b, d), normal(generator, b, d)
    noise_std, eta = number(generator, 0.3, 0.8), number(generator, 0.05, 0.3)
    return score, normal(generator, m, d), normal(generator, m), noise_std, x, eta, z


def _blurred(generator: Generator) -> tuple[Any, ...]:
    """A kernel without symmetry, so that its transform is complex, and of any sum; a spectrum equal at k and -k."""
    h, w = count(generator, 2, 7), count(generator, 3, 8)
    y, kernel, mean = normal(generator, h, w), uniform(generator, h, w, low=0.0, high=1.0), normal(generator, h, w)
    spectrum = uniform(generator, h, w, low=0.2, high=2.0)
    opposite = spectrum.flip(0, 1).roll((1, 1), (0, 1))
    kernel = number(generator, 0.5, 1.5) * kernel / kernel.sum()
    return y, kernel, mean, (spectrum + opposite) / 2, number(generator, 0.2, 0.7)


def _restorations(generator: Generator) -> tuple[Tensor, int]:
    return covariances(generator, 1, count(generator, 2, 12))[0], count(generator, 2, 30)


PERTURB = "coursework.sdes.SDE.perturb"

EXERCISES = (
    Exercise("13.1", "gaussian_posterior_score", _posterior, seed=20_026),
    Exercise("13.2", "pseudoinverse_guided", _measured, on_its_device(), rtol=1e-11, uses=COEFFICIENTS, seed=20_021),
    Exercise("13.3", "replace_and_return", _mask, named("x_s", "x_t"), uses=(*COEFFICIENTS, PERTURB), seed=20_021),
    Exercise("13.4", "measured_langevin_step", _langevin, seed=20_004),
    Exercise("13.5", "deblurred", _blurred, named("mean", "spectrum")),
    Exercise("13.6", "error_of_mean", _restorations),
)
