"""Cases of the exercises of lesson 09, the probability flow."""

from collections.abc import Callable

import torch
from torch import Generator, Tensor

from coursework.exercises.draws import count, linear_sde, normal, number, sizes, time_of, uniform
from coursework.exercises.exercise import Exercise, Observed
from coursework.exercises.uses import COEFFICIENTS
from coursework.sdes import SDE


class WavyScore:
    """s(x, t) = x M^T / (1 + t) + sin(3 t + x): nonlinear, and different at every time."""

    def __init__(self, matrix: Tensor) -> None:
        self.matrix = matrix

    def __call__(self, x: Tensor, t: Tensor) -> Tensor:
        """Shapes: x (B, D), t () or (B,) -> (B, D)."""
        t = t.reshape(-1, 1) if t.ndim else t
        return x @ self.matrix.T / (1 + t) + torch.sin(3 * t + x)


def _step(generator: Generator) -> tuple[WavyScore, SDE, Tensor, Tensor, Tensor]:
    """A step from t to t' < t, towards the data; `_both_ways` takes it back as well."""
    sde, (b, d) = linear_sde(generator), sizes(generator)
    score, x = WavyScore(0.7 * normal(generator, d, d)), normal(generator, b, d)
    t, h = time_of(generator, sde, 0.5, 0.7), time_of(generator, sde, 0.1, 0.3)
    return score, sde, x, t, t - h


def _both_ways(attempt: Callable[..., Tensor], args: tuple[WavyScore, SDE, Tensor, Tensor, Tensor]) -> Observed:
    """The step from t to t', and one from the same x at t' to t: a flow runs in both directions."""
    score, sde, x, t, t_next = args
    return {
        "result": attempt(*args),
        "step with t and t' exchanged, towards the noise": attempt(score, sde, x, t_next, t),
    }


def _three_runs(generator: Generator) -> tuple[Tensor, ...]:
    """Results with an error C h^p at h, h / ratio, h / ratio^2, and a little of the next power."""
    exact, leading, rest = normal(generator, 3, *sizes(generator))
    order = count(generator, 1, 4)
    ratio = uniform(generator, low=1.4, high=1.9) if order % 2 else uniform(generator, low=2.2, high=3.5)
    h = uniform(generator, low=0.2, high=0.4)
    results = [exact + leading * (h / ratio**i) ** order + 0.1 * rest * (h / ratio**i) ** (order + 1) for i in range(3)]
    return *results, ratio


def _grid(generator: Generator) -> tuple[SDE, int, float]:
    return linear_sde(generator), count(generator, 4, 40), number(generator, 2.5, 8.0)


def _strength(generator: Generator) -> tuple[Tensor, SDE, Tensor]:
    variance = uniform(generator, low=0.2, high=0.6)
    strength = uniform(generator, low=0.7, high=0.9) + 0.5 * (uniform(generator, low=0.0, high=1.0) < 0.5)
    return variance, linear_sde(generator), strength


def _latents(generator: Generator) -> tuple[Tensor, Tensor, Tensor]:
    """Latents of different lengths, and weights that do not include the ends only."""
    d, n = count(generator, 3, 12), count(generator, 1, 9)
    return 1.3 * normal(generator, d), 0.7 * normal(generator, d), uniform(generator, n, low=0.05, high=0.95)


EXERCISES = (
    Exercise("9.1", "euler_step", _step, _both_ways, uses=COEFFICIENTS, seed=20_021),
    Exercise("9.2", "heun_step", _step, _both_ways, uses=COEFFICIENTS, seed=20_021),
    Exercise("9.3", "observed_order", _three_runs),
    Exercise("9.4", "karras_grid", _grid, uses=(*COEFFICIENTS, "coursework.sdes.SDE.time_of_log_snr"), seed=20_021),
    Exercise("9.5", "flow_variance", _strength, uses=COEFFICIENTS, seed=20_013),
    Exercise("9.6", "great_circle", _latents, seed=20_002),
)
