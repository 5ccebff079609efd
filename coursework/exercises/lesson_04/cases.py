"""Cases of the exercises of lesson 04, denoising score matching."""

from torch import Generator, Tensor

from coursework.exercises.draws import count, covariances, normal, sizes, uniform
from coursework.exercises.exercise import Exercise
from coursework.exercises.observers import named, on_its_device, value_and_gradient


class Affine:
    """x -> x A^T + b: a score, or a denoiser, with two parameters to differentiate."""

    def __init__(self, matrix: Tensor, offset: Tensor) -> None:
        self.parameters = [matrix.requires_grad_(), offset.requires_grad_()]

    def __call__(self, x: Tensor) -> Tensor:
        """Shapes: (B, D) -> (B, D)."""
        matrix, offset = self.parameters
        return x @ matrix.T + offset


def _affine(generator: Generator) -> tuple[Affine, Tensor, Tensor, Tensor]:
    b, d = sizes(generator)
    function = Affine(0.5 * normal(generator, d, d), normal(generator, d))
    sigma = uniform(generator, low=0.3, high=0.8)
    return function, 1 + normal(generator, b, d), sigma, normal(generator, b, d)


def _covariance(generator: Generator) -> tuple[Tensor, Tensor]:
    return covariances(generator, 1, count(generator, 2, 12))[0], uniform(generator, low=0.3, high=0.9)


def _levels(generator: Generator) -> tuple[int, Tensor, int]:
    n_dims = count(generator, 2, 60)
    power = (0, 3, 5, 6)[count(generator, 0, 3)]  # with others some mistakes coincide
    return n_dims, uniform(generator, count(generator, 1, 9), low=0.05, high=0.8), power


def _scores(generator: Generator) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """alpha^2 + sigma^2 is not 1 here: VP's shortcuts must not be needed."""
    b, d = sizes(generator)
    alpha, sigma = uniform(generator, b, low=0.3, high=0.9), uniform(generator, b, low=0.3, high=1.5)
    return normal(generator, b, d), normal(generator, b, d), alpha, sigma


def _gaussian(generator: Generator) -> tuple[Tensor, ...]:
    b, d = sizes(generator)
    mean, covariance = 1 + normal(generator, d), covariances(generator, 1, d)[0]
    alpha, sigma = uniform(generator, low=0.3, high=0.9), uniform(generator, low=0.3, high=0.8)
    return normal(generator, b, d), mean, covariance, alpha, sigma


EXERCISES = (
    Exercise("4.1", "dsm_loss", _affine, value_and_gradient),
    Exercise("4.2", "loss_floor", _covariance),
    Exercise("4.3", "silent_loss", _levels),
    Exercise("4.4", "denoiser_loss", _affine, value_and_gradient),
    Exercise("4.5", "from_score", _scores, named("noise", "data", "velocity")),
    Exercise("4.6", "wiener", _gaussian, on_its_device()),
)
