"""Cases of the exercises of lesson 06, noise-conditional score networks."""

from collections.abc import Callable

import torch
from torch import Generator, Tensor

from coursework.exercises.draws import count, normal, number, sizes, uniform
from coursework.exercises.exercise import Exercise
from coursework.exercises.observers import value_and_gradient

LevelScore = Callable[[Tensor, Tensor], Tensor]


class LevelAffine:
    """(x, sigma) -> x A^T + sigma b: a score that knows the level, with two parameters to differentiate."""

    def __init__(self, matrix: Tensor, offset: Tensor) -> None:
        self.parameters = [matrix.requires_grad_(), offset.requires_grad_()]

    def __call__(self, x: Tensor, sigma: Tensor) -> Tensor:
        """Shapes: x (B, D), sigma (B,) or 0-d -> (B, D)."""
        if sigma.ndim > 1:
            raise ValueError(f"the score expects sigma of shape (B,), one level for each point, got {(*sigma.shape,)}")
        matrix, offset = self.parameters
        return x @ matrix.T + sigma.expand(len(x))[:, None] * offset


def _ladder(generator: Generator) -> tuple[float, float, int]:
    return number(generator, 2.0, 30.0), number(generator, 0.05, 0.5), count(generator, 4, 40)


def _overlap(generator: Generator) -> tuple[Tensor, int]:
    n_dims = count(generator, 20, 300)
    return 1 + uniform(generator, count(generator, 1, 9), low=0.5, high=4.0) / (2 * n_dims) ** 0.5, n_dims


def _loss(generator: Generator) -> tuple[LevelAffine, Tensor, Tensor, Tensor]:
    b, d = sizes(generator)
    score = LevelAffine(0.5 * normal(generator, d, d), normal(generator, d))
    sigma = uniform(generator, b, low=0.3, high=2.5)
    return score, 1 + normal(generator, b, d), sigma, normal(generator, b, d)


def _step(generator: Generator) -> tuple[LevelScore, Tensor, Tensor, Tensor, float, Tensor]:
    b, d = sizes(generator)
    centre, v = normal(generator, d), number(generator, 0.5, 1.5)
    sigma, last = uniform(generator, low=1.2, high=3.0), uniform(generator, low=0.3, high=0.8)

    def score(x: Tensor, level: Tensor) -> Tensor:
        return (torch.sin(x) + centre - x) / (v + level**2)

    return score, 2 * normal(generator, b, d), sigma, last, number(generator, 0.02, 0.06), normal(generator, b, d)


def _variance(generator: Generator) -> tuple[Tensor, float | Tensor, int]:
    """A step for all, or each its own."""
    low, high = (2.4, 3.0) if count(generator, 0, 1) else (0.3, 1.1)
    k = count(generator, 1, 9)
    a = uniform(generator, k, low=low, high=high) if count(generator, 0, 1) else number(generator, low, high)
    return uniform(generator, k, low=1.3, high=6.0), a, count(generator, 2, 7)


def _best(generator: Generator) -> tuple[float, int, Tensor]:
    """The candidates differ from case to case; the best is far from both ends, and the worst is either end."""
    n_steps, ratio, gap = count(generator, 3, 9), number(generator, 1.1, 1.6), number(generator, 0.003, 0.006)
    n = int(number(generator, 1.6, 1.95) / gap)
    return ratio, n_steps, gap * (number(generator, 0.3, 1.0) + torch.arange(n, dtype=torch.float64))


def _hold(generator: Generator) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    b, d = count(generator, 1, 9), count(generator, 3, 12)
    known = torch.randperm(d, generator=generator) < count(generator, 1, d - 1)
    sigma = uniform(generator, low=0.3, high=0.8)
    return 2 * normal(generator, b, d), normal(generator, b, d), known, sigma, normal(generator, b, d)


EXERCISES = (
    Exercise("6.1", "ladder", _ladder, rtol=1e-9),
    Exercise("6.2", "overlap", _overlap, seed=20_002),
    Exercise("6.3", "ncsn_loss", _loss, observe=value_and_gradient),
    Exercise("6.4", "ladder_step", _step),
    Exercise("6.5", "level_variance", _variance, seed=20_002),
    Exercise("6.6", "best_step", _best),
    Exercise("6.7", "hold_known", _hold),
)
