"""Exercises of lesson 04, denoising score matching."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Generator, Tensor

from coursework.exercises.draws import count, covariances, normal, sizes, uniform
from coursework.exercises.engine import Exercise, Misconception
from coursework.exercises.observers import on_its_device, on_the_cpu, value_and_gradient

Function = Callable[[Tensor], Tensor]


class Affine:
    """x -> x A^T + b: a score, or a denoiser, with two parameters to differentiate."""

    def __init__(self, matrix: Tensor, offset: Tensor) -> None:
        self.parameters = [matrix.requires_grad_(), offset.requires_grad_()]

    def __call__(self, x: Tensor) -> Tensor:
        """Shapes: (B, D) -> (B, D)."""
        matrix, offset = self.parameters
        return x @ matrix.T + offset


def _draw_affine(generator: Generator) -> tuple[Affine, Tensor, Tensor, Tensor]:
    b, d = sizes(generator)
    function = Affine(0.5 * normal(generator, d, d), normal(generator, d))
    sigma = uniform(generator, low=0.3, high=0.8)
    return function, 1 + normal(generator, b, d), sigma, normal(generator, b, d)


# -- 4.1 the denoising loss --------------------------------------------------------------------------------------------


def dsm_loss(score: Function, x: Tensor, sigma: Tensor, noise: Tensor) -> Tensor:
    """E[ 1/2 |s(x + sigma noise) + noise / sigma|^2 ]. Shapes: x, noise (B, D), sigma () -> ()."""
    return _residual_loss(score(x + sigma * noise) + noise / sigma)


def _residual_loss(residual: Tensor) -> Tensor:
    return 0.5 * (residual**2).sum(1).mean()


DSM = Exercise(
    id="4.1",
    title="the denoising loss",
    reference=dsm_loss,
    draw=_draw_affine,
    observe=value_and_gradient,
    misconceptions=(
        Misconception(
            "the target has the wrong sign. The label is -noise / sigma (back to where the point came from), so the residual "
            "is s - (-noise / sigma) = s + noise / sigma. With yours a perfectly trained network points away from the data.",
            lambda score, x, sigma, noise: _residual_loss(score(x + sigma * noise) - noise / sigma),
        ),
        Misconception(
            "you divide the noise by sigma squared. The label is -(x_t - x) / sigma^2, and x_t - x = sigma noise: one sigma "
            "cancels.",
            lambda score, x, sigma, noise: _residual_loss(score(x + sigma * noise) + noise / sigma**2),
        ),
        Misconception(
            "the factor 1/2 is missing.",
            lambda score, x, sigma, noise: 2 * dsm_loss(score, x, sigma, noise),
        ),
        Misconception(
            "you average over all elements. The squared length of a vector is a sum over its dimensions; only the batch is "
            "averaged.",
            lambda score, x, sigma, noise: dsm_loss(score, x, sigma, noise) / x.shape[1],
        ),
        Misconception(
            "this is mse_loss: a mean over all elements, without the 1/2. The squared length of a vector is a sum over its "
            "dimensions; only the batch is averaged; then comes the 1/2.",
            lambda score, x, sigma, noise: 2 * dsm_loss(score, x, sigma, noise) / x.shape[1],
        ),
        Misconception(
            "your noisy points are x + sigma^2 noise. Noise of variance sigma^2 is sigma times standard normal noise.",
            lambda score, x, sigma, noise: _residual_loss(score(x + sigma**2 * noise) + noise / sigma),
        ),
        Misconception(
            "you sum over the batch. The expectation over points is a mean; only a point's dimensions are summed.",
            lambda score, x, sigma, noise: dsm_loss(score, x, sigma, noise) * len(x),
        ),
        Misconception(
            "you average lengths, not squared lengths: their least value belongs to a median, not to the mean that is the score.",
            lambda score, x, sigma, noise: 0.5 * (score(x + sigma * noise) + noise / sigma).norm(dim=1).mean(),
        ),
        Misconception(
            "you evaluate the score at the clean x. The label belongs to the noisy point x + sigma noise; at x the noise is "
            "invisible and its best prediction is 0.",
            lambda score, x, sigma, noise: _residual_loss(score(x) + noise / sigma),
        ),
        Misconception(
            "the target is the bare noise. That is the target of a network that predicts the noise; a score is -noise / sigma.",
            lambda score, x, sigma, noise: _residual_loss(score(x + sigma * noise) + noise),
        ),
        Misconception(
            "your residual is sigma s + noise: this is the loss with the weight sigma^2 (section 5). Here the weight is 1.",
            lambda score, x, sigma, noise: sigma**2 * dsm_loss(score, x, sigma, noise),
        ),
    ),
    hints=(
        "Three steps: make the noisy points, ask the score there, compare with the label of each point.",
        "The label is -(x_t - x) / sigma^2. Put x_t = x + sigma noise into it: what is left?",
        "`(residual**2).sum(1)` is a squared length for every point, (B,); then the mean over the batch, and the 1/2.",
    ),
)

# -- 4.2 the floor of the loss -----------------------------------------------------------------------------------------


def loss_floor(covariance: Tensor, sigma: Tensor) -> Tensor:
    """1/2 (D / sigma^2 - tr (covariance + sigma^2 I)^{-1}). Shapes: (D, D), () -> ()."""
    eye = torch.eye(len(covariance), dtype=covariance.dtype)
    return 0.5 * (len(covariance) / sigma**2 - torch.linalg.inv(covariance + sigma**2 * eye).trace())


def _draw_floor(generator: Generator) -> tuple[Tensor, Tensor]:
    return covariances(generator, 1, count(generator, 2, 12))[0], uniform(generator, low=0.3, high=0.9)


def _score_square(covariance: Tensor, noise_variance: Tensor | float) -> Tensor:
    """E|grad log q|^2 of N(mean, covariance + noise_variance I)."""
    eye = torch.eye(len(covariance), dtype=covariance.dtype)
    return torch.linalg.inv(covariance + noise_variance * eye).trace()


FLOOR = Exercise(
    id="4.2",
    title="the floor of the loss",
    reference=loss_floor,
    draw=_draw_floor,
    misconceptions=(
        Misconception(
            "you subtract the squared score of the clean law. The loss lives on the noisy law, whose covariance is "
            "covariance + sigma^2 I. (Yours can even be negative, and a mean of squares cannot.)",
            lambda covariance, sigma: 0.5 * (len(covariance) / sigma**2 - _score_square(covariance, 0.0)),
        ),
        Misconception(
            "the inverse is missing: E|grad log q|^2 is the trace of C^{-1}, C = covariance + sigma^2 I. A wide law has a small "
            "score.",
            lambda covariance, sigma: (
                0.5 * (len(covariance) / sigma**2 - covariance.trace() - len(covariance) * sigma**2)
            ),
        ),
        Misconception(
            "you square the inverse: the score is -C^{-1}(x_t - mean), and its mean square is tr C^{-1} C C^{-1} = tr C^{-1}; the "
            "C in the middle takes one of the two away.",
            lambda covariance, sigma: (
                0.5
                * (
                    len(covariance) / sigma**2
                    - (torch.linalg.eigvalsh(covariance) + sigma**2).square().reciprocal().sum()
                )
            ),
        ),
        Misconception(
            "you add sigma to the covariance where its square belongs.",
            lambda covariance, sigma: 0.5 * (len(covariance) / sigma**2 - _score_square(covariance, sigma)),
        ),
        Misconception(
            "you add sigma^2 to every entry of the covariance. Independent noise adds to the diagonal only: sigma^2 I.",
            lambda covariance, sigma: (
                0.5 * (len(covariance) / sigma**2 - torch.linalg.inv(covariance + sigma**2).trace())
            ),
        ),
        Misconception("the factor 1/2 is missing.", lambda covariance, sigma: 2 * loss_floor(covariance, sigma)),
        Misconception(
            "this is the loss of the zero network, 1/2 E|target|^2. The exact score explains a part of the target: subtract "
            "1/2 E|grad log q|^2.",
            lambda covariance, sigma: 0.5 * len(covariance) / sigma**2,
        ),
        Misconception(
            "the two parts have to be subtracted: the target's mean square is that of its mean (the score) plus a variance, and "
            "the variance is the floor.",
            lambda covariance, sigma: 0.5 * (len(covariance) / sigma**2 + _score_square(covariance, sigma**2)),
        ),
        Misconception(
            "the target's mean square is a sum over all D dimensions, D / sigma^2.",
            lambda covariance, sigma: 0.5 * (1 / sigma**2 - _score_square(covariance, sigma**2)),
        ),
    ),
    hints=(
        "The floor is the loss of the exact score: half the variance that is left in the label once x_t is known.",
        "Use the formula above: you need E|grad log q|^2 for q = N(mean, covariance + sigma^2 I). What is that score?",
        "The score is -C^{-1}(x_t - mean) with C = covariance + sigma^2 I, and E|C^{-1}(x_t - mean)|^2 = tr C^{-1} C C^{-1}.",
        "`torch.linalg.inv(...).trace()`; D is `len(covariance)`.",
    ),
)

# -- 4.3 the loss of silence -------------------------------------------------------------------------------------------


def silent_loss(n_dims: int, sigma: Tensor, power: int) -> Tensor:
    """sigma^power / 2 E|noise / sigma|^2 = n_dims sigma^(power - 2) / 2. Shapes: sigma (L,) -> (L,)."""
    return 0.5 * n_dims * sigma ** (power - 2)


def _draw_silent(generator: Generator) -> tuple[int, Tensor, int]:
    n_dims = count(generator, 2, 60)
    power = (0, 3, 5, 6)[count(generator, 0, 3)]  # with others some mistakes coincide
    return n_dims, uniform(generator, count(generator, 1, 9), low=0.05, high=0.8), power


SILENT = Exercise(
    id="4.3",
    title="the loss of silence",
    reference=silent_loss,
    draw=_draw_silent,
    misconceptions=(
        Misconception(
            "the label scales with 1 / sigma, so its square scales with 1 / sigma^2: your exponent is that of the label itself.",
            lambda n_dims, sigma, power: 0.5 * n_dims * sigma ** (power - 1),
        ),
        Misconception(
            "the weight sigma^power stands before the square: it multiplies the loss once, and is not squared with the label.",
            lambda n_dims, sigma, power: 0.5 * n_dims * sigma ** (2 * power - 2),
        ),
        Misconception(
            "the weight is missing: multiply with sigma^power.",
            lambda n_dims, sigma, power: 0.5 * n_dims / sigma**2,
        ),
        Misconception(
            "E|noise|^2 is D; you use its root, a length where the squared length belongs.",
            lambda n_dims, sigma, power: 0.5 * n_dims**0.5 * sigma ** (power - 2),
        ),
        Misconception(
            "D is missing: |noise|^2 is a sum of D squares, each with mean 1.",
            lambda n_dims, sigma, power: 0.5 * sigma ** (power - 2),
        ),
        Misconception("the factor 1/2 is missing.", lambda n_dims, sigma, power: n_dims * sigma ** (power - 2)),
        Misconception(
            "the label is noise divided by sigma, not times sigma: the smaller the noise, the larger the label.",
            lambda n_dims, sigma, power: 0.5 * n_dims * sigma ** (power + 2),
        ),
        Misconception(
            "E|noise|^2 is D; you use D^2, the square of the sum where the sum of squares belongs.",
            lambda n_dims, sigma, power: 0.5 * n_dims**2 * sigma ** (power - 2),
        ),
    ),
    hints=(
        "With s = 0 the residual is the label alone. What is the mean square of -noise / sigma?",
        "|noise|^2 is a sum of n_dims squares of standard normal numbers: its mean is n_dims.",
        "Multiply 1/2 n_dims / sigma^2 with the weight sigma^power. `sigma` is a tensor of levels: no loop is needed.",
    ),
)

# -- 4.4 the denoiser that amplifies -----------------------------------------------------------------------------------


def denoiser_loss(denoiser: Function, x: Tensor, sigma: Tensor, noise: Tensor) -> Tensor:
    """E[ 1/2 |(h(x + sigma noise) - x) / sigma^2|^2 ]. Shapes: x, noise (B, D), sigma () -> ()."""
    return _residual_loss((denoiser(x + sigma * noise) - x) / sigma**2)


DENOISER = Exercise(
    id="4.4",
    title="the denoiser that amplifies",
    reference=denoiser_loss,
    draw=_draw_affine,
    observe=value_and_gradient,
    misconceptions=(
        Misconception(
            "this is the circulating loss (with its 1/2): it subtracts x where x_t belongs, and its best denoiser is E[x + noise | x_t].",
            lambda denoiser, x, sigma, noise: _residual_loss((x - denoiser(x + sigma * noise)) / sigma + noise / sigma),
        ),
        Misconception(
            "you divide h(x_t) - x_t by sigma. The score is (h(x_t) - x_t) / sigma^2: put that into the loss.",
            lambda denoiser, x, sigma, noise: _residual_loss(
                (denoiser(x + sigma * noise) - x - sigma * noise) / sigma + noise / sigma
            ),
        ),
        Misconception(
            "the right minimiser, but not the loss of exercise 4.1: the factor 1 / sigma^4 is missing.",
            lambda denoiser, x, sigma, noise: sigma**4 * denoiser_loss(denoiser, x, sigma, noise),
        ),
        Misconception(
            "the plain squared error: the right minimiser, but not the loss of exercise 4.1. The factors 1/2 and 1 / sigma^4 are "
            "missing.",
            lambda denoiser, x, sigma, noise: 2 * sigma**4 * denoiser_loss(denoiser, x, sigma, noise),
        ),
        Misconception(
            "you divide by sigma once: the residual of the score is (h(x_t) - x) / sigma^2. (Yours is the loss with weight sigma^2.)",
            lambda denoiser, x, sigma, noise: _residual_loss((denoiser(x + sigma * noise) - x) / sigma),
        ),
        Misconception(
            "you compare the output with the noisy input: the best such denoiser changes nothing.",
            lambda denoiser, x, sigma, noise: _residual_loss(
                (denoiser(x + sigma * noise) - x - sigma * noise) / sigma**2
            ),
        ),
        Misconception(
            "the factor 1/2 is missing.",
            lambda denoiser, x, sigma, noise: 2 * denoiser_loss(denoiser, x, sigma, noise),
        ),
        Misconception(
            "you show the clean x to the denoiser: then doing nothing is perfect.",
            lambda denoiser, x, sigma, noise: _residual_loss((denoiser(x) - x) / sigma**2),
        ),
    ),
    hints=(
        "Solve Tweedie's formula for the score: that is the score model which the denoiser stands for.",
        "Put s(x_t) = (h(x_t) - x_t) / sigma^2 into the residual s + noise / sigma, and x_t = x + sigma noise. Much cancels.",
        "What is left is (h(x_t) - x) / sigma^2: distance to the clean point. Half its mean squared length, as in 4.1.",
    ),
)

# -- 4.5 one answer, four languages ------------------------------------------------------------------------------------

Answers = tuple[Tensor, Tensor, Tensor]


def from_score(score_value: Tensor, x_t: Tensor, alpha: Tensor, sigma: Tensor) -> Answers:
    """Noise, data and velocity predictions from a score. Shapes: (B, D), (B, D), (B,), (B,) -> three times (B, D)."""
    alpha, sigma = alpha[:, None], sigma[:, None]
    noise = -sigma * score_value
    data = (x_t - sigma * noise) / alpha
    return noise, data, alpha * noise - sigma * data


def _three_answers(attempt: Callable[..., Any], args: tuple[Any, ...]) -> dict[str, Any]:
    answers = attempt(*args)
    if not isinstance(answers, tuple | list) or len(answers) != 3:
        kind = f"{len(answers)} values" if isinstance(answers, tuple | list) else f"a {type(answers).__name__}"
        raise TypeError(f"expected three values, `return noise, data, velocity`; got {kind}")
    return {"noise": answers[0], "data": answers[1], "velocity": answers[2]}


def _draw_conversion(generator: Generator) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """alpha^2 + sigma^2 is not 1 here: VP's shortcuts must not be needed."""
    b, d = sizes(generator)
    alpha, sigma = uniform(generator, b, low=0.3, high=0.9), uniform(generator, b, low=0.3, high=1.5)
    return normal(generator, b, d), normal(generator, b, d), alpha, sigma


def _translate(noise_of: Callable, data_of: Callable, velocity_of: Callable) -> Callable[..., Answers]:
    """A conversion with one of its three steps replaced."""

    def wrong(score_value: Tensor, x_t: Tensor, alpha: Tensor, sigma: Tensor) -> Answers:
        a, s = alpha[:, None], sigma[:, None]
        noise = noise_of(score_value, s)
        data = data_of(x_t, noise, a, s)
        return noise, data, velocity_of(noise, data, a, s)

    return wrong


def _noise(score_value: Tensor, s: Tensor) -> Tensor:
    return -s * score_value


def _data(x_t: Tensor, noise: Tensor, a: Tensor, s: Tensor) -> Tensor:
    return (x_t - s * noise) / a


def _velocity(noise: Tensor, data: Tensor, a: Tensor, s: Tensor) -> Tensor:
    return a * noise - s * data


CONVERSIONS = Exercise(
    id="4.5",
    title="one answer, four languages",
    reference=from_score,
    draw=_draw_conversion,
    observe=_three_answers,
    misconceptions=(
        Misconception(
            "the noise has the wrong sign: the score points back to the data, the noise points away from it.",
            _translate(lambda v, s: s * v, _data, _velocity),
        ),
        Misconception(
            "you take the noise for -score / sigma: the score is -noise / sigma, so the noise is -sigma times the score.",
            _translate(lambda v, s: -v / s, _data, _velocity),
        ),
        Misconception(
            "the noise is -sigma times the score: you multiply by sigma squared, which belongs in Tweedie's formula.",
            _translate(lambda v, s: -(s**2) * v, _data, _velocity),
        ),
        Misconception(
            "the division by alpha is missing: x_t - sigma noise estimates alpha x_0.",
            _translate(_noise, lambda x_t, noise, a, s: x_t - s * noise, _velocity),
        ),
        Misconception(
            "you divide only x_t by alpha: the whole of x_t - sigma noise has to be divided.",
            _translate(_noise, lambda x_t, noise, a, s: x_t / a - s * noise, _velocity),
        ),
        Misconception(
            "the data prediction from the score has sigma squared: (x_t + sigma^2 score) / alpha. With the noise instead of the "
            "score it is sigma.",
            _translate(_noise, lambda x_t, noise, a, s: (x_t - noise) / a, _velocity),
        ),
        Misconception(
            "the order is noise, data, velocity; you return the data first.",
            lambda score_value, x_t, alpha, sigma: (lambda noise, data, velocity: (data, noise, velocity))(
                *from_score(score_value, x_t, alpha, sigma)
            ),
        ),
        Misconception(
            "noise and data are swapped in the velocity: it is alpha noise - sigma x_0.",
            _translate(_noise, _data, lambda noise, data, a, s: a * data - s * noise),
        ),
        Misconception(
            "alpha and sigma are swapped in the velocity: it is alpha noise - sigma x_0.",
            _translate(_noise, _data, lambda noise, data, a, s: s * noise - a * data),
        ),
        Misconception(
            "the velocity's sign is turned: it is alpha noise - sigma x_0, towards the noise.",
            _translate(_noise, _data, lambda noise, data, a, s: s * data - a * noise),
        ),
    ),
    hints=(
        "Two equations hold them all together: x_t = alpha x_0 + sigma noise, and score = -noise / sigma.",
        "Noise first, from the second equation; then x_0 from the first one; then the velocity is a combination of both.",
        "alpha and sigma have one value a point, (B,). Write `alpha[:, None]` so that they multiply rows of (B, D).",
    ),
)

# -- 4.6 the Wiener denoiser -------------------------------------------------------------------------------------------


def wiener(x_t: Tensor, mean: Tensor, covariance: Tensor, alpha: Tensor, sigma: Tensor) -> Tensor:
    """E[x_0 | x_t] for x_0 from N(mean, covariance), also where the covariance is singular, as of pixels.

    Shapes: (B, D), (D,), (D, D), (), () -> (B, D).
    """
    noisy = alpha**2 * covariance + sigma**2 * torch.eye(len(mean), dtype=x_t.dtype, device=x_t.device)
    return mean + alpha * torch.linalg.solve(noisy, (x_t - alpha * mean).T).T @ covariance


def _draw_wiener(generator: Generator) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    b, d = sizes(generator)
    mean, covariance = 1 + normal(generator, d), covariances(generator, 1, d)[0]
    alpha, sigma = uniform(generator, low=0.3, high=0.9), uniform(generator, low=0.3, high=0.8)
    return normal(generator, b, d), mean, covariance, alpha, sigma


def _linear(centre: int, gain: int, signal: int, noise: int) -> Callable[..., Tensor]:
    """mean + alpha^gain C (alpha^signal C + sigma^noise I)^{-1} (x_t - alpha^centre mean)."""

    def denoise(x_t: Tensor, mean: Tensor, covariance: Tensor, alpha: Tensor, sigma: Tensor) -> Tensor:
        noisy = alpha**signal * covariance + sigma**noise * torch.eye(len(mean), dtype=x_t.dtype)
        return mean + alpha**gain * torch.linalg.solve(noisy, (x_t - alpha**centre * mean).T).T @ covariance

    return denoise


def _pixelwise(x_t: Tensor, mean: Tensor, covariance: Tensor, alpha: Tensor, sigma: Tensor) -> Tensor:
    return wiener(x_t, mean, torch.diag(covariance.diagonal()), alpha, sigma)


def _noise_everywhere(x_t: Tensor, mean: Tensor, covariance: Tensor, alpha: Tensor, sigma: Tensor) -> Tensor:
    centred = (x_t - alpha * mean).T
    return mean + alpha * torch.linalg.solve(alpha**2 * covariance + sigma**2, centred).T @ covariance


def _without_mean(x_t: Tensor, mean: Tensor, covariance: Tensor, alpha: Tensor, sigma: Tensor) -> Tensor:
    return wiener(x_t, torch.zeros_like(mean), covariance, alpha, sigma)


WIENER = Exercise(
    id="4.6",
    title="the Wiener denoiser",
    reference=wiener,
    draw=_draw_wiener,
    observe=on_its_device(),
    misconceptions=(
        on_the_cpu(_linear(centre=1, gain=1, signal=2, noise=2)),
        Misconception(
            "alpha and sigma have to be squared in the covariance of x_t: it is alpha^2 covariance + sigma^2 I.",
            _linear(centre=1, gain=1, signal=1, noise=1),
        ),
        Misconception(
            "the gain has one alpha: Cov(x_0, x_t) = alpha covariance. Both squares stand inside the inverse.",
            _linear(centre=1, gain=2, signal=2, noise=2),
        ),
        Misconception(
            "the clean mean stands outside without alpha: with a useless x_t the best guess is the mean itself.",
            lambda x_t, mean, covariance, alpha, sigma: (
                wiener(x_t, mean, covariance, alpha, sigma) + (alpha - 1) * mean
            ),
        ),
        Misconception(
            "the score has the wrong sign in Tweedie's formula: x_t - alpha mean is pulled back, not pushed away.",
            lambda x_t, mean, covariance, alpha, sigma: 2 * x_t / alpha - wiener(x_t, mean, covariance, alpha, sigma),
        ),
        Misconception(
            "you centre x_t with the clean mean: the mean of x_t is alpha times it.",
            _linear(centre=0, gain=1, signal=2, noise=2),
        ),
        Misconception(
            "you add sigma where its square belongs: variances add.",
            _linear(centre=1, gain=1, signal=2, noise=1),
        ),
        Misconception(
            "you divide x_t by alpha first and forget that this makes the noise larger: sigma / alpha.",
            lambda x_t, mean, covariance, alpha, sigma: wiener(
                x_t / alpha, mean, covariance, torch.ones_like(alpha), sigma
            ),
        ),
        Misconception(
            "you add sigma^2 to every entry of the covariance. Independent noise adds to the diagonal only: sigma^2 I.",
            _noise_everywhere,
        ),
        Misconception(
            "the factor alpha in front of the covariance is missing: Cov(x_0, x_t) = alpha covariance.",
            _linear(centre=1, gain=0, signal=2, noise=2),
        ),
        Misconception(
            "you scale the covariance inside the inverse with alpha: it is Cov(alpha x_0) = alpha^2 covariance.",
            _linear(centre=1, gain=1, signal=1, noise=2),
        ),
        Misconception(
            "you treat every coordinate by itself (the diagonal of the covariance): the neighbours know a lot about a pixel.",
            _pixelwise,
        ),
        Misconception(
            "the mean is missing: you shrink towards 0, and the data does not lie around 0.",
            _without_mean,
        ),
        Misconception(
            "this estimates alpha x_0: divide by alpha, as Tweedie's formula does.",
            lambda x_t, mean, covariance, alpha, sigma: alpha * wiener(x_t, mean, covariance, alpha, sigma),
        ),
    ),
    hints=(
        "For Gaussian data the law of x_t is Gaussian, with mean alpha mean and covariance alpha^2 covariance + sigma^2 I. Its "
        "score is known from lesson 01; Tweedie's formula turns it into the denoiser.",
        "As one formula: mean + alpha covariance (alpha^2 covariance + sigma^2 I)^{-1} (x_t - alpha mean).",
        "Points are rows: `torch.linalg.solve(C, centred.T).T` applies C^{-1} to each; then `@ covariance`, which is symmetric.",
    ),
)

EXERCISES = (DSM, FLOOR, SILENT, DENOISER, CONVERSIONS, WIENER)
