"""Exercises of lesson 06, noise-conditional score networks."""

import math
from collections.abc import Callable

import torch
from torch import Generator, Tensor

from coursework.exercises.draws import count, normal, number, sizes, uniform
from coursework.exercises.engine import Exercise, Misconception
from coursework.exercises.observers import value_and_gradient

LevelScore = Callable[[Tensor, Tensor], Tensor]


# -- 6.1 a geometric ladder --------------------------------------------------------------------------------------------


def ladder(sigma_max: float, sigma_min: float, n: int) -> Tensor:
    """sigma_max (sigma_min / sigma_max)^(i / (n - 1)), i = 0 ... n - 1. Shape: (n,), float64."""
    return _powers(sigma_max, sigma_min, torch.arange(n, dtype=torch.float64) / (n - 1))


def _powers(sigma_max: float, sigma_min: float, exponents: Tensor) -> Tensor:
    return sigma_max * (sigma_min / sigma_max) ** exponents


def _draw_ladder(generator: Generator) -> tuple[float, float, int]:
    return number(generator, 2.0, 30.0), number(generator, 0.05, 0.5), count(generator, 4, 40)


LADDER = Exercise(
    id="6.1",
    title="a geometric ladder",
    reference=ladder,
    draw=_draw_ladder,
    rtol=1e-9,
    misconceptions=(
        Misconception(
            "your ladder goes up. The walk starts at the widest level: sigma_1 = sigma_max comes first.",
            lambda sigma_max, sigma_min, n: ladder(sigma_max, sigma_min, n).flip(0),
        ),
        Misconception(
            "your levels have equal differences, not equal ratios: nearly all of them are wide, and the last step is huge in ratio.",
            lambda sigma_max, sigma_min, n: torch.linspace(sigma_max, sigma_min, n, dtype=torch.float64),
        ),
        Misconception(
            "your ladder stops before sigma_min: with n levels there are n - 1 steps, so the exponent is (i - 1) / (n - 1).",
            lambda sigma_max, sigma_min, n: _powers(sigma_max, sigma_min, torch.arange(n, dtype=torch.float64) / n),
        ),
        Misconception(
            "your ladder leaves out sigma_max: the first exponent is 0.",
            lambda sigma_max, sigma_min, n: _powers(
                sigma_max, sigma_min, torch.arange(1, n + 1, dtype=torch.float64) / n
            ),
        ),
        Misconception(
            "your first exponent is 1 / (n - 1), not 0: the text counts from i = 1, so it is (i - 1) / (n - 1).",
            lambda sigma_max, sigma_min, n: _powers(
                sigma_max, sigma_min, torch.arange(1, n + 1, dtype=torch.float64) / (n - 1)
            ),
        ),
        Misconception(
            "the ratio is upside down and your levels grow above sigma_max: sigma_min / sigma_max is below 1.",
            lambda sigma_max, sigma_min, n: _powers(
                sigma_max, sigma_min, -torch.arange(n, dtype=torch.float64) / (n - 1)
            ),
        ),
        Misconception(
            "you give n + 1 levels: n counts the levels, not the steps between them.",
            lambda sigma_max, sigma_min, n: ladder(sigma_max, sigma_min, n + 1),
        ),
        Misconception(
            "these are the variances sigma^2. A level is a standard deviation.",
            lambda sigma_max, sigma_min, n: ladder(sigma_max, sigma_min, n) ** 2,
        ),
        Misconception(
            "torch.logspace takes exponents: hand it log10(sigma), not sigma.",
            lambda sigma_max, sigma_min, n: torch.logspace(sigma_max, sigma_min, n, dtype=torch.float64),
        ),
        Misconception(
            "natural logarithms with base 10: torch.logspace raises 10 to your exponents, so they must be log10(sigma).",
            lambda sigma_max, sigma_min, n: torch.logspace(
                math.log(sigma_max), math.log(sigma_min), n, dtype=torch.float64
            ),
        ),
        Misconception(
            "you give the logarithms of the levels. Take exp.",
            lambda sigma_max, sigma_min, n: ladder(sigma_max, sigma_min, n).log(),
        ),
    ),
    hints=(
        "One ratio between neighbours: the logarithms of the levels have equal differences.",
        "n levels, n - 1 steps: each multiplies by (sigma_min / sigma_max)^(1 / (n - 1)).",
        "`torch.arange(n, dtype=torch.float64) / (n - 1)` are the exponents, from 0 to 1.",
    ),
)

# -- 6.2 how much two levels overlap -----------------------------------------------------------------------------------


def overlap(ratio: Tensor, n_dims: int) -> Tensor:
    """Phi(sqrt(2 D) (ratio - 1) + 3 ratio) - Phi(sqrt(2 D) (ratio - 1) - 3 ratio). Shapes: (K,) -> (K,)."""
    return _band((2 * n_dims) ** 0.5 * (ratio - 1), 3 * ratio)


def _band(shift: Tensor, half: Tensor | float) -> Tensor:
    return torch.special.ndtr(shift + half) - torch.special.ndtr(shift - half)


def _draw_overlap(generator: Generator) -> tuple[Tensor, int]:
    n_dims = count(generator, 20, 300)
    return 1 + uniform(generator, count(generator, 1, 9), low=0.5, high=4.0) / (2 * n_dims) ** 0.5, n_dims


OVERLAP = Exercise(
    id="6.2",
    title="how much two levels overlap",
    reference=overlap,
    draw=_draw_overlap,
    seed=20_002,
    misconceptions=(
        Misconception(
            "sqrt(D) where sqrt(2 D) belongs: the means differ by sqrt(D) sigma (ratio - 1), and the narrow law's standard deviation "
            "is sigma / sqrt(2). Divide.",
            lambda ratio, n_dims: _band(n_dims**0.5 * (ratio - 1), 3 * ratio),
        ),
        Misconception(
            "you put lengths into Phi. Divide by the narrow law's standard deviation, sigma / sqrt(2), first.",
            lambda ratio, n_dims: _band(n_dims**0.5 * (ratio - 1), 3 * ratio / 2**0.5),
        ),
        Misconception(
            "you take three standard deviations of the narrow law. The band belongs to the wide one: its half-width is 3 ratio in "
            "the narrow law's units.",
            lambda ratio, n_dims: _band((2 * n_dims) ** 0.5 * (ratio - 1), 3.0),
        ),
        Misconception(
            "you swapped the roles: this is the share of the wide law in the narrow law's band. We go down: the points arrive in the "
            "wide level's shell, and the narrow level must have seen points there. Asked is the share of the narrow law in the wide band.",
            lambda ratio, n_dims: _band((2 * n_dims) ** 0.5 * (ratio - 1) / ratio, 3 / ratio),
        ),
        Misconception(
            "sigma^2 / 2 is the variance of |x|; its standard deviation is sigma / sqrt(2), not sigma / 2.",
            lambda ratio, n_dims: _band(2 * n_dims**0.5 * (ratio - 1), 3 * ratio),
        ),
        Misconception(
            "one standard deviation on either side instead of three.",
            lambda ratio, n_dims: _band((2 * n_dims) ** 0.5 * (ratio - 1), ratio),
        ),
        Misconception(
            "this is the share outside the band. Subtract it from 1.",
            lambda ratio, n_dims: 1 - overlap(ratio, n_dims),
        ),
        Misconception(
            "the square root is missing: |x| is about sqrt(D) sigma, |x|^2 is about D sigma^2.",
            lambda ratio, n_dims: _band(2**0.5 * n_dims * (ratio - 1), 3 * ratio),
        ),
        Misconception(
            "the dimension is missing: |x| grows like sqrt(D), its spread does not.",
            lambda ratio, n_dims: _band(2**0.5 * (ratio - 1), 3 * ratio),
        ),
        Misconception(
            "an error function is not a normal distribution function: Phi(z) = (1 + erf(z / sqrt(2))) / 2, `torch.special.ndtr`.",
            lambda ratio, n_dims: (
                torch.erf((2 * n_dims) ** 0.5 * (ratio - 1) + 3 * ratio)
                - torch.erf((2 * n_dims) ** 0.5 * (ratio - 1) - 3 * ratio)
            ),
        ),
    ),
    hints=(
        "Two normal laws on the line, N(sqrt(D) sigma, sigma^2 / 2) and the same with ratio * sigma. Set sigma = 1: it cancels.",
        "The band: from sqrt(D) ratio - 3 ratio / sqrt(2) to sqrt(D) ratio + 3 ratio / sqrt(2). What is its probability under "
        "N(sqrt(D), 1/2)?",
        "Subtract sqrt(D) from both ends, divide by 1 / sqrt(2): sqrt(2 D) (ratio - 1) plus and minus 3 ratio.",
        "`torch.special.ndtr(upper) - torch.special.ndtr(lower)`.",
    ),
)

# -- 6.3 the loss for all levels ---------------------------------------------------------------------------------------


class LevelAffine:
    """(x, sigma) -> x A^T + sigma b: a score that knows the level, with two parameters to differentiate."""

    def __init__(self, matrix: Tensor, offset: Tensor) -> None:
        self.parameters = [matrix.requires_grad_(), offset.requires_grad_()]

    def __call__(self, x: Tensor, sigma: Tensor) -> Tensor:
        """Shapes: x (B, D), sigma (B,) or 0-d -> (B, D)."""
        matrix, offset = self.parameters
        return x @ matrix.T + sigma.expand(len(x))[:, None] * offset


def ncsn_loss(score: LevelScore, x: Tensor, sigma: Tensor, noise: Tensor) -> Tensor:
    """E[ 1/2 |sigma s(x + sigma noise, sigma) + noise|^2 ]. Shapes: x, noise (B, D), sigma (B,) -> ()."""
    return _half_square(_residual(score, x, sigma, noise))


def _residual(score: LevelScore, x: Tensor, sigma: Tensor, noise: Tensor) -> Tensor:
    s = sigma[:, None]
    return s * score(x + s * noise, sigma) + noise


def _half_square(residual: Tensor) -> Tensor:
    return 0.5 * (residual**2).sum(1).mean()


def _weighted(power: float) -> Callable[..., Tensor]:
    """The loss with weight sigma^power."""
    return lambda score, x, sigma, noise: _half_square(
        sigma[:, None] ** (power / 2 - 1) * _residual(score, x, sigma, noise)
    )


def _draw_loss(generator: Generator) -> tuple[LevelAffine, Tensor, Tensor, Tensor]:
    b, d = sizes(generator)
    score = LevelAffine(0.5 * normal(generator, d, d), normal(generator, d))
    sigma = uniform(generator, b, low=0.3, high=2.5)
    return score, 1 + normal(generator, b, d), sigma, normal(generator, b, d)


LOSS = Exercise(
    id="6.3",
    title="the loss for all levels",
    reference=ncsn_loss,
    draw=_draw_loss,
    observe=value_and_gradient,
    misconceptions=(
        Misconception(
            "the weight sigma^2 is missing: the narrowest levels then drown all others.",
            _weighted(0),
        ),
        Misconception("you weight with sigma; it is sigma squared.", _weighted(1)),
        Misconception(
            "your weight is sigma^4: sigma^2 stands before the square. Inside the norm it is sigma.",
            _weighted(4),
        ),
        Misconception(
            "the sign of the target: the score points back, so the label is -noise / sigma and the residual sigma s + noise.",
            lambda score, x, sigma, noise: _half_square(
                sigma[:, None] * score(x + sigma[:, None] * noise, sigma) - noise
            ),
        ),
        Misconception(
            "after pulling sigma into the norm the label is noise, no longer noise / sigma.",
            lambda score, x, sigma, noise: _half_square(
                sigma[:, None] * score(x + sigma[:, None] * noise, sigma) + noise / sigma[:, None]
            ),
        ),
        Misconception(
            "a length where its square belongs.",
            lambda *args: 0.5 * _residual(*args).norm(dim=1).mean(),
        ),
        Misconception("the factor 1/2 is missing.", lambda *args: 2 * ncsn_loss(*args)),
        Misconception(
            "you average over all elements: a squared length is a sum over dimensions; only the batch is averaged.",
            lambda score, x, sigma, noise: ncsn_loss(score, x, sigma, noise) / x.shape[1],
        ),
        Misconception(
            "this is mse_loss: a mean over all elements, without the 1/2.",
            lambda score, x, sigma, noise: 2 * ncsn_loss(score, x, sigma, noise) / x.shape[1],
        ),
        Misconception(
            "you sum over the batch. Points are averaged.",
            lambda score, x, sigma, noise: ncsn_loss(score, x, sigma, noise) * len(x),
        ),
        Misconception(
            "your noisy points are x + noise: the noise has to be scaled by each point's own sigma.",
            lambda score, x, sigma, noise: _half_square(sigma[:, None] * score(x + noise, sigma) + noise),
        ),
        Misconception(
            "your noisy points are x + sigma^2 noise. Noise of variance sigma^2 is sigma times standard normal noise.",
            lambda score, x, sigma, noise: _half_square(
                sigma[:, None] * score(x + sigma[:, None] ** 2 * noise, sigma) + noise
            ),
        ),
        Misconception(
            "one sigma for the whole batch: every point has a level of its own.",
            lambda score, x, sigma, noise: ncsn_loss(score, x, sigma[:1].expand(len(x)), noise),
        ),
        Misconception(
            "you ask the score at the clean point. The label belongs to x + sigma noise.",
            lambda score, x, sigma, noise: _half_square(sigma[:, None] * score(x, sigma) + noise),
        ),
    ),
    hints=(
        "Lesson 04's loss, with a sigma for each point and the weight sigma^2. Pull the weight into the norm first.",
        "sigma^2/2 |s + noise / sigma|^2 = 1/2 |sigma s + noise|^2.",
        "`sigma[:, None]` multiplies rows of (B, D); the score itself gets `sigma`, shape (B,).",
        "`(residual**2).sum(dim=1).mean() / 2`.",
    ),
)

# -- 6.4 one step of the walk ------------------------------------------------------------------------------------------


def ladder_step(score: LevelScore, x: Tensor, sigma: Tensor, sigma_last: Tensor, step_size: float, z: Tensor) -> Tensor:
    """x + alpha/2 s(x, sigma) + sqrt(alpha) z, alpha = step_size sigma^2 / sigma_last^2. Shapes: x, z (B, D)."""
    return _step(score, x, sigma, _alpha(sigma, sigma_last, step_size), z)


def _alpha(sigma: Tensor, sigma_last: Tensor, step_size: float) -> Tensor:
    return step_size * (sigma / sigma_last) ** 2


def _step(score: LevelScore, x: Tensor, sigma: Tensor, alpha: Tensor, z: Tensor) -> Tensor:
    return x + alpha / 2 * score(x, sigma) + alpha**0.5 * z


def _draw_step(generator: Generator) -> tuple[LevelScore, Tensor, Tensor, Tensor, float, Tensor]:
    b, d = sizes(generator)
    centre, v = normal(generator, d), number(generator, 0.5, 1.5)
    sigma, last = uniform(generator, low=1.2, high=3.0), uniform(generator, low=0.3, high=0.8)

    def score(x: Tensor, level: Tensor) -> Tensor:
        return (torch.sin(x) + centre - x) / (v + level**2)

    return score, 2 * normal(generator, b, d), sigma, last, number(generator, 0.02, 0.06), normal(generator, b, d)


STEP = Exercise(
    id="6.4",
    title="one step of the walk",
    reference=ladder_step,
    draw=_draw_step,
    misconceptions=(
        Misconception(
            "the same step at every level. step_size is the last level's; a wider level takes a longer one, by (sigma / sigma_last)^2.",
            lambda score, x, sigma, last, h, z: _step(score, x, sigma, torch.tensor(h, dtype=x.dtype), z),
        ),
        Misconception(
            "the ratio of the levels has to be squared: a step is a variance.",
            lambda score, x, sigma, last, h, z: _step(score, x, sigma, h * sigma / last, z),
        ),
        Misconception(
            "the ratio is upside down: wide levels take long steps.",
            lambda score, x, sigma, last, h, z: _step(score, x, sigma, h * (last / sigma) ** 2, z),
        ),
        Misconception(
            "you multiply with sigma^2 and do not divide by sigma_last^2.",
            lambda score, x, sigma, last, h, z: _step(score, x, sigma, h * sigma**2, z),
        ),
        Misconception(
            "the 1/2 in front of the score is missing: noise of variance alpha belongs to a pull of alpha/2.",
            lambda score, x, sigma, last, h, z: (
                _step(score, x, sigma, _alpha(sigma, last, h), z) + _alpha(sigma, last, h) / 2 * score(x, sigma)
            ),
        ),
        Misconception(
            "this is the other convention, alpha s + sqrt(2 alpha) z: a step twice as long (lesson 05).",
            lambda score, x, sigma, last, h, z: _step(score, x, sigma, 2 * _alpha(sigma, last, h), z),
        ),
        Misconception(
            "alpha z: the noise's variance is alpha, so its factor is sqrt(alpha).",
            lambda score, x, sigma, last, h, z: (
                x + _alpha(sigma, last, h) / 2 * score(x, sigma) + _alpha(sigma, last, h) * z
            ),
        ),
        Misconception(
            "your noise has still the last level's step: alpha belongs in both places, pull and noise.",
            lambda score, x, sigma, last, h, z: x + _alpha(sigma, last, h) / 2 * score(x, sigma) + h**0.5 * z,
        ),
        Misconception(
            "your pull has still the last level's step: alpha belongs in both places, pull and noise.",
            lambda score, x, sigma, last, h, z: x + h / 2 * score(x, sigma) + _alpha(sigma, last, h) ** 0.5 * z,
        ),
        Misconception(
            "you mix the two conventions: alpha/2 goes with sqrt(alpha).",
            lambda score, x, sigma, last, h, z: (
                x + _alpha(sigma, last, h) / 2 * score(x, sigma) + (2 * _alpha(sigma, last, h)) ** 0.5 * z
            ),
        ),
        Misconception(
            "this is the change of x, not the new x. Add x.",
            lambda score, x, sigma, last, h, z: _step(score, x, sigma, _alpha(sigma, last, h), z) - x,
        ),
        Misconception(
            "without noise all chains climb to the modes. Add sqrt(alpha) z.",
            lambda score, x, sigma, last, h, z: _step(score, x, sigma, _alpha(sigma, last, h), 0 * z),
        ),
        Misconception(
            "minus the score: that walks away from the data.",
            lambda score, x, sigma, last, h, z: _step(lambda y, s: -score(y, s), x, sigma, _alpha(sigma, last, h), z),
        ),
        Misconception(
            "you ask the score at sigma_last. The step is one of the present level.",
            lambda score, x, sigma, last, h, z: _step(score, x, last, _alpha(sigma, last, h), z),
        ),
        Misconception(
            "the noise of the step is not the level's noise: its factor is sqrt(alpha), not sigma.",
            lambda score, x, sigma, last, h, z: x + _alpha(sigma, last, h) / 2 * score(x, sigma) + sigma * z,
        ),
    ),
    hints=(
        "First the step alpha of this level, then exercise 5.1 with alpha for h.",
        "alpha = step_size * sigma**2 / sigma_last**2.",
        "`x + alpha / 2 * score(x, sigma) + alpha**0.5 * z`.",
    ),
)

# -- 6.5 a step too long -----------------------------------------------------------------------------------------------


def level_variance(start: Tensor, a: float, n_steps: int) -> Tensor:
    """(1 - a/2)^(2 n) (start - 1/(1 - a/4)) + 1/(1 - a/4). Shapes: (K,) -> (K,)."""
    return _relaxed(start, (1 - a / 2) ** (2 * n_steps), 1 / (1 - a / 4))


def _relaxed(start: Tensor, left: float, limit: float) -> Tensor:
    return left * (start - limit) + limit


def _draw_variance(generator: Generator) -> tuple[Tensor, float | Tensor, int]:
    """A step for all, or each its own."""
    low, high = (2.4, 3.0) if count(generator, 0, 1) else (0.3, 1.1)
    k = count(generator, 1, 9)
    a = uniform(generator, k, low=low, high=high) if count(generator, 0, 1) else number(generator, low, high)
    return uniform(generator, k, low=1.3, high=6.0), a, count(generator, 2, 7)


VARIANCE = Exercise(
    id="6.5",
    title="a step too long",
    reference=level_variance,
    draw=_draw_variance,
    seed=20_002,
    misconceptions=(
        Misconception(
            "the power is n_steps: a variance shrinks by the square of the factor, in every step.",
            lambda start, a, n: _relaxed(start, (1 - a / 2) ** n, 1 / (1 - a / 4)),
        ),
        Misconception(
            "a variance is multiplied by the square of the factor: v <- (1 - a/2)^2 v + a in every step.",
            lambda start, a, n: _relaxed(start, (1 - a / 2) ** n, 2.0),
        ),
        Misconception(
            "you add the whole limit; only the share 1 - (1 - a/2)^(2n) of it has arrived.",
            lambda start, a, n: (1 - a / 2) ** (2 * n) * start + 1 / (1 - a / 4),
        ),
        Misconception(
            "your limit is 1, that of a vanishing step. A finite step adds noise that is not pulled back: 1 / (1 - a/4).",
            lambda start, a, n: _relaxed(start, (1 - a / 2) ** (2 * n), 1.0),
        ),
        Misconception(
            "a/2 where a/4 belongs in the limit: 1 - (1 - a/2)^2 = a (1 - a/4).",
            lambda start, a, n: _relaxed(start, (1 - a / 2) ** (2 * n), 1 / (1 - a / 2)),
        ),
        Misconception(
            "the factor of one step is 1 - a/2, not 1 - a: the score has alpha/2 in front of it.",
            lambda start, a, n: _relaxed(start, (1 - a) ** (2 * n), a / (1 - (1 - a) ** 2)),
        ),
        Misconception(
            "this is the other convention, a step twice as long: alpha s + sqrt(2 alpha) z. Here it is alpha/2 and sqrt(alpha).",
            lambda start, a, n: level_variance(start, 2 * a, n),
        ),
        Misconception(
            "the noise of a step has variance a; you add a/2.",
            lambda start, a, n: _relaxed(start, (1 - a / 2) ** (2 * n), 0.5 / (1 - a / 4)),
        ),
        Misconception(
            "this is one step. Repeat it n_steps times.",
            lambda start, a, n: level_variance(start, a, 1),
        ),
        Misconception(
            "this is the limit of many steps. After n_steps a part of the start is left.",
            lambda start, a, n: _relaxed(start, 0.0, 1 / (1 - a / 4)),
        ),
        Misconception(
            "only the start, shrunk: the noise of the steps is missing.",
            lambda start, a, n: (1 - a / 2) ** (2 * n) * start,
        ),
        Misconception(
            "these are standard deviations.",
            lambda start, a, n: level_variance(start, a, n).abs().sqrt(),
        ),
        Misconception(
            "exp(-a n) is the limit of small steps. With steps of this length it is (1 - a/2)^(2n).",
            lambda start, a, n: _relaxed(start, torch.as_tensor(-a * n).exp(), 1 / (1 - a / 4)),
        ),
        Misconception(
            "this is the law of vanishing steps, in time a n. A step of this length multiplies by 1 - a/2, and its limit is 1 / (1 - a/4).",
            lambda start, a, n: _relaxed(start, torch.as_tensor(-a * n).exp(), 1.0),
        ),
    ),
    hints=(
        "With s = -x / sigma^2 and alpha = a sigma^2 a step is x <- (1 - a/2) x + sqrt(a) sigma z.",
        "In units of sigma^2 the variance goes v <- (1 - a/2)^2 v + a. Which v stays as it is?",
        "v* = 1 / (1 - a/4). The distance v - v* is multiplied by (1 - a/2)^2 in every step.",
    ),
)

# -- 6.6 the step size of a ladder -------------------------------------------------------------------------------------


def best_step(ratio: float, n_steps: int, candidates: Tensor) -> Tensor:
    """The candidate a for which `level_variance` from ratio^2 is smallest. Shapes: candidates (N,) -> ()."""
    return candidates[_ends(ratio**2, n_steps, candidates).argmin()]


def _ends(start: float, power: float, a: Tensor) -> Tensor:
    limit = 1 / (1 - a / 4)
    return (1 - a / 2) ** (2 * power) * (start - limit) + limit


def _draw_best(generator: Generator) -> tuple[float, int, Tensor]:
    """The candidates differ from case to case; the best is far from both ends, and the worst is either end."""
    n_steps, ratio, gap = count(generator, 3, 9), number(generator, 1.1, 1.6), number(generator, 0.003, 0.006)
    n = int(number(generator, 1.6, 1.95) / gap)
    return ratio, n_steps, gap * (number(generator, 0.3, 1.0) + torch.arange(n, dtype=torch.float64))


BEST = Exercise(
    id="6.6",
    title="the step size of a ladder",
    reference=best_step,
    draw=_draw_best,
    misconceptions=(
        Misconception(
            "you start at the ratio: the level before was ratio times as wide, so its variance is ratio^2.",
            lambda ratio, n, a: a[_ends(ratio, n, a).argmin()],
        ),
        Misconception(
            "the smallest candidate wins only if you start at 1, this level's own variance, or below it. The points come from the "
            "level before, which is wider: start at ratio^2.",
            lambda ratio, n, a: a[_ends(1.0, n, a).argmin()],
        ),
        Misconception(
            "the ratio is upside down: the level before was wider, ratio > 1, and so is the variance at the start.",
            lambda ratio, n, a: a[(_ends(ratio**-2, n, a) - 1).abs().argmin()],
        ),
        Misconception(
            "the power n_steps where 2 n_steps belongs.",
            lambda ratio, n, a: a[_ends(ratio**2, n / 2, a).argmin()],
        ),
        Misconception(
            "you choose the largest variance.",
            lambda ratio, n, a: a[_ends(ratio**2, n, a).argmax()],
        ),
        Misconception(
            "you return the variance. Asked for is the candidate that gives it.",
            lambda ratio, n, a: _ends(ratio**2, n, a).min(),
        ),
        Misconception(
            "you return the place in the list. Take candidates[place].",
            lambda ratio, n, a: _ends(ratio**2, n, a).argmin(),
        ),
        Misconception(
            "this is NCSNv2's epsilon (over sigma^2), half of our a: their step is epsilon s + sqrt(2 epsilon) z.",
            lambda ratio, n, a: best_step(ratio, n, a) / 2,
        ),
        Misconception(
            "with the limit 1 of tiny steps, a = 2 looks perfect: it forgets everything in one step. Its own variance is 2: use "
            "exercise 6.5.",
            lambda ratio, n, a: a[((1 - a / 2) ** (2 * n) * (ratio**2 - 1) + 1).argmin()],
        ),
        Misconception(
            "one step only. A level has n_steps of them.",
            lambda ratio, n, a: a[_ends(ratio**2, 1, a).argmin()],
        ),
    ),
    hints=(
        "In units of this level's sigma^2: the variance starts at ratio^2, and 1 is wanted. Exercise 6.5 says where it ends.",
        "For 0 < a < 2 it never ends below 1. So the best candidate has the smallest variance.",
        "`level_variance(start, a, n_steps)` takes one a; a list over the candidates will do, or write its formula for all at once.",
        "`candidates[variances.argmin()]`.",
    ),
)

# -- 6.7 pictures with a hole ------------------------------------------------------------------------------------------


def hold_known(x: Tensor, x_known: Tensor, known: Tensor, sigma: Tensor, noise: Tensor) -> Tensor:
    """x_known + sigma noise where known, x elsewhere. Shapes: x, x_known, noise (B, D), known (D,) bool -> (B, D)."""
    return torch.where(known, x_known + sigma * noise, x)


def _draw_hold(generator: Generator) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    b, d = count(generator, 1, 9), count(generator, 3, 12)
    known = torch.randperm(d, generator=generator) < count(generator, 1, d - 1)
    sigma = uniform(generator, low=0.3, high=0.8)
    return 2 * normal(generator, b, d), normal(generator, b, d), known, sigma, normal(generator, b, d)


HOLD = Exercise(
    id="6.7",
    title="pictures with a hole",
    reference=hold_known,
    draw=_draw_hold,
    misconceptions=(
        Misconception(
            "the mask is the wrong way round: True means known.",
            lambda x, y, known, sigma, noise: hold_known(x, y, ~known, sigma, noise),
        ),
        Misconception(
            "you put the known pixels in clean. At level sigma the network expects all pixels with noise of that level.",
            lambda x, y, known, sigma, noise: torch.where(known, y, x),
        ),
        Misconception(
            "noise of variance sigma^2 is sigma times standard normal noise; you multiply with sigma^2.",
            lambda x, y, known, sigma, noise: torch.where(known, y + sigma**2 * noise, x),
        ),
        Misconception(
            "the noise has to be scaled by the level's sigma.",
            lambda x, y, known, sigma, noise: torch.where(known, y + noise, x),
        ),
        Misconception(
            "here the data are not shrunk: x_known + sigma noise.",
            lambda x, y, known, sigma, noise: torch.where(known, (1 - sigma**2).sqrt() * y + sigma * noise, x),
        ),
        Misconception(
            "only noise is left where the pixels are known: add x_known.",
            lambda x, y, known, sigma, noise: torch.where(known, sigma * noise, x),
        ),
        Misconception(
            "you add the noise to the unknown pixels too. They carry the level's noise already.",
            lambda x, y, known, sigma, noise: torch.where(known, y, x) + sigma * noise,
        ),
        Misconception(
            "you renew the noise of the chain's own pixels. The known ones start from x_known.",
            lambda x, y, known, sigma, noise: torch.where(known, x + sigma * noise, x),
        ),
        Misconception(
            "you add the known pixels to the chain's. Replace them.",
            lambda x, y, known, sigma, noise: x + known * (y + sigma * noise),
        ),
        Misconception(
            "the unknown pixels are gone: keep the chain's x there.",
            lambda x, y, known, sigma, noise: known * (y + sigma * noise),
        ),
        Misconception(
            "all pixels are replaced: nothing is left of the chain.",
            lambda x, y, known, sigma, noise: y + sigma * noise,
        ),
    ),
    hints=(
        "Two cases, pixel by pixel: known, or not.",
        "`torch.where(mask, a, b)` takes a where the mask is True, and b elsewhere.",
        "a is the known image at this level: x_known + sigma * noise.",
    ),
)

EXERCISES = (LADDER, OVERLAP, LOSS, STEP, VARIANCE, BEST, HOLD)
