"""Cases of the exercises of lesson 12, DDPM and DDIM."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Generator, Tensor

from coursework.exercises.draws import count, normal, number, sizes, uniform
from coursework.exercises.exercise import Exercise, Observed
from coursework.exercises.observers import named, value_and_gradient


def _jump(generator: Generator) -> tuple[Tensor, ...]:
    (b, d), n = sizes(generator), count(generator, 5, 12)
    t = torch.randint(n, (b,), generator=generator)
    t[1:2] = 0  # where t - 1 wraps
    return uniform(generator, n, low=0.03, high=0.1), 1 + normal(generator, b, d), t, normal(generator, b, d)


def _posterior(generator: Generator) -> tuple[Tensor, ...]:
    beta, before = uniform(generator, low=0.1, high=0.45), uniform(generator, low=0.55, high=0.9)
    b, d = sizes(generator)
    return 1 + normal(generator, b, d), normal(generator, b, d), beta, before


def _term(generator: Generator) -> tuple[Tensor, ...]:
    beta, before = uniform(generator, low=0.1, high=0.45), uniform(generator, low=0.4, high=0.8)
    small, v = beta * (1 - before) / (1 - before * (1 - beta)), uniform(generator, low=0.5, high=0.9)
    variance = beta**v * small ** (1 - v)
    b, d = sizes(generator)
    return normal(generator, b, d), normal(generator, b, d), beta, before, variance


class NoiseModel:
    """(x, t) -> x A^T + b + t c: a noise model with three parameters to differentiate."""

    def __init__(self, matrix: Tensor, offset: Tensor, slope: Tensor) -> None:
        self.parameters = [matrix.requires_grad_(), offset.requires_grad_(), slope.requires_grad_()]

    def __call__(self, x: Tensor, t: Tensor) -> Tensor:
        """Shapes: (B, D), (B,) -> (B, D)."""
        matrix, offset, slope = self.parameters
        return x @ matrix.T + offset + t.to(x.dtype)[:, None] * slope


def _batch(generator: Generator) -> tuple[NoiseModel, Tensor, Tensor, Tensor, Generator]:
    (b, d), n = sizes(generator), count(generator, 5, 12)
    model = NoiseModel(0.5 * normal(generator, d, d), normal(generator, d), 0.3 * normal(generator, d))
    alpha_bar = torch.cumprod(1 - uniform(generator, n, low=0.1, high=0.4), 0)
    x0, t = 1 + normal(generator, b, d), torch.randint(n, (b,), generator=generator)
    return model, alpha_bar, x0, t, Generator().manual_seed(count(generator, 0, 10_000))


def _loss(attempt: Callable[..., Any], args: tuple[Any, ...]) -> Observed:
    """Value and gradient, and a word where the noise came from elsewhere; the generator is set back."""
    generator = args[-1]
    before, seen = generator.get_state(), value_and_gradient(attempt, args)
    drawn = not torch.equal(before, generator.get_state())
    generator.set_state(before)
    if not drawn:
        raise ValueError("nothing is drawn from `generator`; is the noise torch.randn(..., generator=generator)?")
    return seen


def _step(generator: Generator) -> tuple[Tensor, Tensor, Tensor, Tensor, float, Tensor]:
    # In these ranges the roots of the usual mistakes stay real: 1 - later > s, for one.
    now, later = uniform(generator, low=0.15, high=0.5), uniform(generator, low=0.55, high=0.7)
    (b, d), eta = sizes(generator), number(generator, 0.3, 0.5)
    return normal(generator, b, d), normal(generator, b, d), now, later, eta, normal(generator, b, d)


def _levels(generator: Generator) -> tuple[Tensor, int]:
    n_steps, stride = count(generator, 3, 12), count(generator, 3, 9)
    return torch.cumprod(1 - uniform(generator, n_steps * stride, low=0.02, high=0.2), 0), n_steps


def _weights(generator: Generator) -> tuple[Tensor, float]:
    low = uniform(generator, count(generator, 1, 6), low=0.1, high=0.55)
    high = uniform(generator, count(generator, 1, 6), low=0.9, high=0.97)
    return torch.cat([low, high]), number(generator, 2.0, 6.0)


EXERCISES = (
    Exercise("12.1", "jump", _jump),
    Exercise("12.2", "posterior", _posterior, observe=named("mean", "variance")),
    Exercise("12.3", "kl_term", _term, seed=20_006),
    Exercise("12.4", "simple_loss", _batch, observe=_loss),
    Exercise("12.5", "ddim_step", _step),
    Exercise("12.6", "ddim_levels", _levels, observe=named("now", "later")),
    Exercise("12.7", "min_snr_weights", _weights, observe=named("noise", "data", "velocity")),
)
