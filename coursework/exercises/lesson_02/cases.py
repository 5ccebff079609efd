"""Cases of the exercises of lesson 02, explicit score matching and its implicit form."""

import torch
from torch import Generator, Tensor

from coursework.exercises.draws import count, covariances, normal, sizes, uniform
from coursework.exercises.exercise import Exercise
from coursework.exercises.observers import named, value_and_gradient


def _two_gaussians(generator: Generator) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    d = count(generator, 2, 12)
    covariance_p, covariance_q = covariances(generator, 2, d)
    return normal(generator, d), covariance_p, normal(generator, d), covariance_q


def _interval(generator: Generator) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """The law p = k e^{-rate u} on an interval, positive at both ends, on a coarse grid, and s of one sign.

    s is chosen such that p ds/dx = a + b u, a straight line: any quadrature is exact, differences of p are not.
    """
    low, length = normal(generator), uniform(generator, low=1.5, high=3.0)
    n = count(generator, 12, 40)
    u = length * torch.linspace(0, 1, n, dtype=torch.float64) ** uniform(generator, low=1.2, high=1.5)
    rate = uniform(generator, low=0.4, high=1.0)
    k = rate / (1 - torch.exp(-rate * length))
    start, a, b = uniform(generator, 3, low=0.3, high=0.8)
    growth = torch.exp(rate * u) / k
    s = start + (growth * (a + b * u - b / rate) - (a - b / rate) / k) / rate
    sign = torch.sign(normal(generator))
    return low + u, k * torch.exp(-rate * u), sign * s, sign * growth * (a + b * u)


class SmoothField:
    """fn(x) = sin(x A + b) C - d x with its parameters: a small network whose Jacobian is not symmetric.

    A is so large that differences of values are not near enough to derivatives.
    """

    def __init__(self, generator: Generator, n_dims: int, hidden: int) -> None:
        shapes = ((n_dims, hidden), (hidden,), (hidden, n_dims), ())
        scales = (20.0, 1.0, 1.0, 1.0)
        self.parameters = [
            (scale * normal(generator, *shape)).requires_grad_() for scale, shape in zip(scales, shapes, strict=True)
        ]

    def __call__(self, x: Tensor) -> Tensor:
        """Shapes: (B, D) -> (B, D)."""
        a, b, c, d = self.parameters
        return torch.sin(x @ a + b) @ c - d * x


def _field(generator: Generator) -> tuple[SmoothField, Tensor]:
    b, d = sizes(generator)
    return SmoothField(generator, n_dims=d, hidden=count(generator, 2, 6)), normal(generator, b, d)


def _slope(generator: Generator) -> tuple[Tensor, Tensor]:
    spread = uniform(generator, low=0.6, high=1.8)
    return 0.4 + spread * normal(generator, *sizes(generator)), uniform(generator, low=0.3, high=0.8)


def _cloud(generator: Generator) -> tuple[Tensor]:
    d = count(generator, 2, 6)
    factor = torch.linalg.cholesky(covariances(generator, 1, d)[0])
    return (normal(generator, d) + normal(generator, d + count(generator, 3, 11), d) @ factor.T,)


EXERCISES = (
    Exercise("2.1", "fisher_divergence", _two_gaussians),
    Exercise("2.2", "cross_term", _interval),
    Exercise("2.3", "jacobian_trace", _field, observe=value_and_gradient, rtol=1e-11),
    Exercise("2.4", "implicit_loss", _field, observe=value_and_gradient, rtol=1e-11),
    Exercise("2.5", "learned_slope", _slope),
    Exercise("2.6", "gaussian_fit", _cloud, observe=named("m", "A")),
)
