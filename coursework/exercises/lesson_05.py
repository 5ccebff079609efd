"""Exercises of lesson 05, Langevin dynamics."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Generator, Tensor

from coursework.distributions import GaussianMixture
from coursework.exercises.draws import count, covariances, normal, number, sizes, uniform
from coursework.exercises.engine import Exercise, Misconception

Function = Callable[[Tensor], Tensor]


class Curved:
    """x -> x A^T - x^3: a score that is not linear, so that the point where it is asked matters."""

    def __init__(self, matrix: Tensor) -> None:
        self.matrix = matrix

    def __call__(self, x: Tensor) -> Tensor:
        """Shapes: (B, D) -> (B, D)."""
        return x @ self.matrix.T - x**3


# -- 5.1 one step ------------------------------------------------------------------------------------------------------


def langevin_step(score: Function, x: Tensor, step_size: float, z: Tensor) -> Tensor:
    """x + step_size/2 s(x) + sqrt(step_size) z. Shapes: x, z (B, D) -> (B, D)."""
    return x + 0.5 * step_size * score(x) + step_size**0.5 * z


def _draw_step(generator: Generator) -> tuple[Curved, Tensor, float, Tensor]:
    b, d = sizes(generator)
    score, step_size = Curved(normal(generator, d, d)), number(generator, 0.1, 0.7)
    return score, normal(generator, b, d), step_size, normal(generator, b, d)


def _step(drift: Callable[[float], float], size: Callable[[float], float]) -> Callable[..., Tensor]:
    """A step with other factors before the score and the noise."""
    return lambda score, x, step_size, z: x + drift(step_size) * score(x) + size(step_size) * z


STEP = Exercise(
    id="5.1",
    title="one Langevin step",
    reference=langevin_step,
    draw=_draw_step,
    misconceptions=(
        Misconception(
            "you multiply the noise with step_size. Variances add up over time, so the noise of a step has variance step_size "
            "and standard deviation sqrt(step_size). With yours the chain hardly spreads: it climbs to a mode.",
            _step(lambda h: 0.5 * h, lambda h: h),
        ),
        Misconception(
            "the factor 1/2 before the score is missing. With noise sqrt(step_size) z your chain samples p squared, which is "
            "too narrow.",
            _step(lambda h: h, lambda h: h**0.5),
        ),
        Misconception(
            "you mix two conventions: step_size/2 before the score goes with sqrt(step_size), step_size before the score with "
            "sqrt(2 step_size). Your chain samples the square root of p, which is too wide.",
            _step(lambda h: 0.5 * h, lambda h: (2 * h) ** 0.5),
        ),
        Misconception(
            "this is the other convention, x + eta s + sqrt(2 eta) z, with eta = step_size. It samples p too, but your step is "
            "twice as long: eta is step_size / 2.",
            _step(lambda h: h, lambda h: (2 * h) ** 0.5),
        ),
        Misconception(
            "the sign: you walk against the score, out into the tails. (Energies go downhill, log-densities uphill.)",
            _step(lambda h: -0.5 * h, lambda h: h**0.5),
        ),
        Misconception(
            "the noise is missing: this is gradient ascent, and every chain ends on top of a mode.",
            _step(lambda h: 0.5 * h, lambda h: 0.0),
        ),
        Misconception(
            "the 1/2 belongs to the score only: the noise is sqrt(step_size) z, not sqrt(step_size / 2) z.",
            _step(lambda h: 0.5 * h, lambda h: (0.5 * h) ** 0.5),
        ),
        Misconception(
            "you add the noise first and ask the score there. Score and noise of one step both belong to the old x.",
            lambda score, x, step_size, z: langevin_step(score, x + step_size**0.5 * z, step_size, torch.zeros_like(z)),
        ),
        Misconception(
            "you return the change of x. The step starts at x: add it.",
            lambda score, x, step_size, z: langevin_step(score, x, step_size, z) - x,
        ),
        Misconception(
            "the bracket: step_size / 2 multiplies the score alone. You multiply x with it as well.",
            lambda score, x, step_size, z: 0.5 * step_size * (x + score(x)) + step_size**0.5 * z,
        ),
        Misconception(
            "the noise needs a size: `torch.randn` has variance 1, a step of step_size needs variance step_size. Multiply z with "
            "its square root.",
            _step(lambda h: 0.5 * h, lambda h: 1.0),
        ),
        Misconception(
            "the bracket: 1/2 belongs to the score alone, and you halve the noise too, which quarters its variance. Your chain "
            "samples p to the power 4, which is far too narrow.",
            _step(lambda h: 0.5 * h, lambda h: 0.5 * h**0.5),
        ),
    ),
    hints=(
        "Three terms: where you are, a pull, a push.",
        "The SDE dx = s/2 dt + dw over a short time h: the drift does s/2 times h, the Brownian motion moves by N(0, h I).",
        "N(0, h I) is a standard normal z times a standard deviation. Which one? `step_size ** 0.5` is a square root.",
    ),
)

# -- 5.2 the chain's own covariance ------------------------------------------------------------------------------------


def chain_covariance(covariance: Tensor, step_size: float) -> Tensor:
    """C (I - step_size/4 C^{-1})^{-1}. Shapes: (D, D) -> (D, D)."""
    eye = torch.eye(len(covariance), dtype=covariance.dtype)
    return torch.linalg.solve(eye - step_size / 4 * torch.linalg.inv(covariance), covariance)


def _draw_covariance(generator: Generator) -> tuple[Tensor, float]:
    covariance = covariances(generator, 1, count(generator, 2, 12))[0]
    limit = 4 * float(torch.linalg.eigvalsh(covariance).min())
    return covariance, number(generator, 0.2, 0.45) * limit


def _shrunk(factor: float) -> Callable[..., Tensor]:
    return lambda covariance, step_size: chain_covariance(covariance, factor * step_size)


def _one_step(covariance: Tensor, step_size: float) -> Tensor:
    eye = torch.eye(len(covariance), dtype=covariance.dtype)
    shrink = eye - step_size / 2 * torch.linalg.inv(covariance)
    return shrink @ covariance @ shrink + step_size * eye


def _c_for_inverse(covariance: Tensor, step_size: float) -> Tensor:
    eye = torch.eye(len(covariance), dtype=covariance.dtype)
    return torch.linalg.solve(eye - step_size / 4 * covariance, covariance)


def _from_every_entry(covariance: Tensor, step_size: float) -> Tensor:
    return torch.linalg.solve(1 - step_size / 4 * torch.linalg.inv(covariance), covariance)


CHAIN = Exercise(
    id="5.2",
    title="the covariance of the chain",
    reference=chain_covariance,
    draw=_draw_covariance,
    misconceptions=(
        Misconception(
            "this is the target's covariance. The chain's differs from it at every step_size > 0: keep the term with step_size "
            "squared in A S A^T.",
            lambda covariance, step_size: covariance.clone(),
        ),
        Misconception(
            "step_size/2 where step_size/4 belongs. The matrix A holds step_size/2; its square contributes step_size^2/4, and one "
            "step_size cancels.",
            _shrunk(2.0),
        ),
        Misconception(
            "the sign: the noise of a step is not pulled back within it, so the chain is wider than the target, not narrower.",
            _shrunk(-1.0),
        ),
        Misconception(
            "you expand in step_size and keep the first term. Right for small steps; solve S = A S A^T + step_size I exactly.",
            lambda covariance, step_size: (
                covariance + step_size / 4 * torch.eye(len(covariance), dtype=covariance.dtype)
            ),
        ),
        Misconception(
            "this is the covariance after one step from the target. Stationary means that a step changes nothing: solve "
            "S = A S A^T + step_size I for S.",
            _one_step,
        ),
        Misconception(
            "C where its inverse belongs: the score is -C^{-1}(x - mean), so wide directions are pulled weakly.",
            _c_for_inverse,
        ),
        Misconception(
            "you treat every coordinate by itself. Correlated coordinates share one matrix: use C^{-1}, not 1/variance.",
            lambda covariance, step_size: torch.diag(
                covariance.diagonal() / (1 - step_size / 4 / covariance.diagonal())
            ),
        ),
        Misconception(
            "the noise of a step has covariance step_size I; yours has step_size^2 I.",
            lambda covariance, step_size: step_size * chain_covariance(covariance, step_size),
        ),
        Misconception(
            "you subtract from a matrix full of ones. The identity matrix is `torch.eye`.",
            _from_every_entry,
        ),
        Misconception(
            "the last factor is missing: C times (I - step_size/4 C^{-1})^{-1}.",
            lambda covariance, step_size: torch.linalg.solve(covariance, chain_covariance(covariance, step_size)),
        ),
        Misconception(
            "the formula is right for numbers, but you divide matrices entry by entry. Use matrix products and `torch.linalg.inv`.",
            lambda covariance, step_size: covariance / (1 - step_size / 4 / covariance),
        ),
        Misconception(
            "your A is I - step_size C^{-1}: the score has the factor step_size/2.",
            lambda covariance, step_size: chain_covariance(covariance, 2 * step_size) / 2,
        ),
        Misconception(
            "you solve S = A S + step_size I. A covariance takes A from both sides: A S A^T, so A squared.",
            lambda covariance, step_size: 2 * covariance,
        ),
    ),
    hints=(
        "Write one step for x - mean: a matrix A times x - mean, plus noise. What is A?",
        "A = I - step_size/2 C^{-1}. Stationary: S = A S A^T + step_size I. A and C commute, so look for an S that commutes with "
        "them as well.",
        "In one dimension: S (1 - a^2) = h with a = 1 - h/(2v), and 1 - a^2 = (h/v)(1 - h/(4v)).",
        "With C for v: S = C (I - step_size/4 C^{-1})^{-1}. `torch.linalg.inv`, `torch.eye`.",
    ),
)

# -- 5.3 the acceptance ratio ------------------------------------------------------------------------------------------


def log_ratio(density: Any, x: Tensor, y: Tensor, step_size: float) -> Tensor:
    """log p(y) + log q(x | y) - log p(x) - log q(y | x), q(b | a) = N(b; a + step_size/2 s(a), step_size I). -> (B,)."""
    return (
        density.log_prob(y)
        - density.log_prob(x)
        + _proposal(density, x, y, step_size)
        - _proposal(density, y, x, step_size)
    )


def _proposal(density: Any, to: Tensor, start: Tensor, step_size: float) -> Tensor:
    """log q(to | start), without the constant that cancels. Shapes: (B, D) -> (B,)."""
    return _kernel(to, start, density.score(start), step_size / 2, 2 * step_size)


def _kernel(to: Tensor, start: Tensor, value: Tensor, drift: float, width: float) -> Tensor:
    return -((to - start - drift * value) ** 2).sum(1) / width


def _draw_ratio(generator: Generator) -> tuple[GaussianMixture, Tensor, Tensor, float]:
    (b, d), k = sizes(generator), count(generator, 1, 4)
    density = GaussianMixture(normal(generator, k, d), covariances(generator, k, d))
    step_size, x = number(generator, 0.2, 0.7), normal(generator, b, d)
    return density, x, x + step_size / 2 * density.score(x) + step_size**0.5 * normal(generator, b, d), step_size


def _ratio(target: int, proposal: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """target * (log p(y) - log p(x)) + proposal(x from y) - proposal(y from x)."""

    def wrong(density: Any, x: Tensor, y: Tensor, step_size: float) -> Tensor:
        back, forth = proposal(density, x, y, step_size), proposal(density, y, x, step_size)
        return target * (density.log_prob(y) - density.log_prob(x)) + back - forth

    return wrong


RATIO = Exercise(
    id="5.3",
    title="the acceptance ratio",
    reference=log_ratio,
    draw=_draw_ratio,
    uses=("coursework.distributions.GaussianMixture.log_prob", "coursework.distributions.GaussianMixture.score"),
    misconceptions=(
        Misconception(
            "the proposal's densities are missing (or cancel). They do not cancel: the way from x to y uses the score at x, the "
            "way back the score at y.",
            _ratio(1, lambda density, to, start, step_size: torch.zeros_like(to[:, 0])),
        ),
        Misconception(
            "the proposal is upside down: q(x | y), the way back, belongs into the numerator beside p(y).",
            _ratio(1, lambda *args: -_proposal(*args)),
        ),
        Misconception(
            "the whole ratio is upside down: p(y), the new point, belongs into the numerator.",
            lambda *args: -log_ratio(*args),
        ),
        Misconception(
            "the scores are exchanged: q(y | x) starts at x and uses the score at x, q(x | y) the score at y.",
            _ratio(1, lambda d, to, start, h: _kernel(to, start, d.score(to), h / 2, 2 * h)),
        ),
        Misconception(
            "the way back is x - y - step_size/2 s(y), not y - x - step_size/2 s(y): it starts at y and ends at x.",
            lambda d, x, y, h: (
                d.log_prob(y)
                - d.log_prob(x)
                + _kernel(y, x, d.score(y), h / 2, 2 * h)
                - _kernel(y, x, d.score(x), h / 2, 2 * h)
            ),
        ),
        Misconception(
            "this is the other convention: mean a + eta s(a), variance 2 eta, with eta = step_size. Here eta is step_size / 2.",
            lambda d, x, y, h: log_ratio(d, x, y, 2 * h),
        ),
        Misconception(
            "the proposal's mean is a + step_size/2 s(a); you move by step_size s(a).",
            _ratio(1, lambda d, to, start, h: _kernel(to, start, d.score(start), h, 2 * h)),
        ),
        Misconception(
            "a Gaussian of variance step_size has the exponent -|...|^2 / (2 step_size): the 2 is missing.",
            _ratio(1, lambda d, to, start, h: _kernel(to, start, d.score(start), h / 2, h)),
        ),
        Misconception(
            "the proposal's variance is step_size. You divide by 2 step_size^2, as if step_size were the standard deviation.",
            _ratio(1, lambda d, to, start, h: _kernel(to, start, d.score(start), h / 2, 2 * h**2)),
        ),
        Misconception(
            "the way back starts at y: it uses the score at y. You use the same score for both ways.",
            lambda d, x, y, h: (
                d.log_prob(y)
                - d.log_prob(x)
                + _kernel(x, y, d.score(x), h / 2, 2 * h)
                - _kernel(y, x, d.score(x), h / 2, 2 * h)
            ),
        ),
        Misconception(
            "you average over the dimensions. The log-density of a vector is a sum over its coordinates.",
            _ratio(1, lambda d, to, start, h: _kernel(to, start, d.score(start), h / 2, 2 * h) / to.shape[1]),
        ),
        Misconception(
            "this is the acceptance probability, min(1, e^r). Asked is r itself, not cut off.",
            lambda *args: log_ratio(*args).exp().clamp(max=1.0),
        ),
        Misconception(
            "this is the ratio; its logarithm is wanted (the ratio overflows easily).",
            lambda *args: log_ratio(*args).exp(),
        ),
    ),
    hints=(
        "Four logarithms, two with a plus (new point, way back), two with a minus (old point, way there).",
        "log q(b | a) = -|b - a - step_size/2 s(a)|^2 / (2 step_size) + a constant that is the same for both ways.",
        "The way back runs from y to x: log q(x | y) contains `x - y - step_size / 2 * density.score(y)`.",
        "A helper `log_q(b, a)` inside your function keeps the two ways apart. Sum over `dim=1`: one number a chain.",
    ),
)

# -- 5.4 how much of the start is left ---------------------------------------------------------------------------------


def offset_left(offset: Tensor, covariance: Tensor, step_size: float, n_steps: int) -> Tensor:
    """(I - step_size/2 C^{-1})^n_steps offset. Shapes: (D,), (D, D) -> (D,)."""
    return torch.linalg.matrix_power(_pull(covariance, step_size), n_steps) @ offset


def _pull(covariance: Tensor, step_size: float) -> Tensor:
    eye = torch.eye(len(covariance), dtype=covariance.dtype)
    return eye - step_size / 2 * torch.linalg.inv(covariance)


def _draw_offset(generator: Generator) -> tuple[Tensor, Tensor, float, int]:
    d = count(generator, 2, 7)
    covariance, offset = covariances(generator, 1, d)[0], 1 + normal(generator, d)
    step_size = number(generator, 0.3, 0.8) * float(torch.linalg.eigvalsh(covariance).min())
    return offset, covariance, step_size, count(generator, 3, 8)


OFFSET = Exercise(
    id="5.4",
    title="how much of the start is left",
    reference=offset_left,
    draw=_draw_offset,
    misconceptions=(
        Misconception(
            "this is the SDE's answer, an exponential. Asked is the chain's, which multiplies with I - step_size/2 C^{-1} at each step.",
            lambda offset, covariance, step_size, n_steps: (
                torch.linalg.matrix_exp(-n_steps * step_size / 2 * torch.linalg.inv(covariance)) @ offset
            ),
        ),
        Misconception(
            "step_size/2, not step_size, stands before the score in our convention.",
            lambda offset, covariance, step_size, n_steps: offset_left(offset, covariance, 2 * step_size, n_steps),
        ),
        Misconception(
            "C where its inverse belongs: the wider the target, the weaker the pull.",
            lambda offset, covariance, step_size, n_steps: offset_left(
                offset, torch.linalg.inv(covariance), step_size, n_steps
            ),
        ),
        Misconception(
            "you raise every entry to the power n_steps. A matrix acts n_steps times: `torch.linalg.matrix_power`.",
            lambda offset, covariance, step_size, n_steps: _pull(covariance, step_size) ** n_steps @ offset,
        ),
        Misconception(
            "you take the same pull n_steps times. It weakens as the offset shrinks: multiply, do not subtract.",
            lambda offset, covariance, step_size, n_steps: _pull(covariance, n_steps * step_size) @ offset,
        ),
        Misconception(
            "one step too few.",
            lambda offset, covariance, step_size, n_steps: offset_left(offset, covariance, step_size, n_steps - 1),
        ),
        Misconception(
            "the offset shrinks with I - step_size/2 C^{-1} once a step; you apply it twice. (Covariances take it from both sides.)",
            lambda offset, covariance, step_size, n_steps: offset_left(offset, covariance, step_size, 2 * n_steps),
        ),
        Misconception(
            "you treat every coordinate by itself. Correlated coordinates share one matrix: use C^{-1}, not 1/variance.",
            lambda offset, covariance, step_size, n_steps: offset_left(
                offset, torch.diag(covariance.diagonal()), step_size, n_steps
            ),
        ),
        Misconception(
            "the sign: a plus drives the mean away from the target's.",
            lambda offset, covariance, step_size, n_steps: offset_left(offset, covariance, -step_size, n_steps),
        ),
        Misconception(
            "this is what is gone. Asked is what is left.",
            lambda offset, covariance, step_size, n_steps: offset - offset_left(offset, covariance, step_size, n_steps),
        ),
        Misconception(
            "C is missing: 1 - step_size/2 is the factor for N(mean, I) only. In general it is I - step_size/2 C^{-1}.",
            lambda offset, covariance, step_size, n_steps: (1 - step_size / 2) ** n_steps * offset,
        ),
        Misconception(
            "you keep the diagonal of C^{-1} only. The rest mixes the coordinates: use the whole matrix.",
            lambda offset, covariance, step_size, n_steps: (
                (1 - step_size / 2 * torch.linalg.inv(covariance).diagonal()) ** n_steps * offset
            ),
        ),
    ),
    hints=(
        "Take the mean of one step. The noise has mean zero, the score is linear: which matrix multiplies the offset?",
        "I - step_size/2 C^{-1}, once a step. There are n_steps of them.",
        "`torch.linalg.matrix_power(A, n_steps) @ offset`, or a loop.",
    ),
)

# -- 5.5 a temperature that explodes -----------------------------------------------------------------------------------

Pair = tuple[Tensor, Tensor]


def tempered_variances(variance: Tensor, step_size: float, temperature: float) -> Pair:
    """Stationary variances on N(0, variance): T v / (1 - h T / (4 v)) circulating, T v / (1 - h / (4 v)) right. (K,) each."""
    return _tempered(variance, step_size * temperature, temperature), _tempered(variance, step_size, temperature)


def _tempered(variance: Tensor, step_size: float, temperature: float) -> Tensor:
    return temperature * variance / (1 - step_size / (4 * variance))


def _two_answers(attempt: Callable[..., Any], args: tuple[Any, ...]) -> dict[str, Any]:
    answers = attempt(*args)
    if not isinstance(answers, tuple | list) or len(answers) != 2:
        kind = f"{len(answers)} values" if isinstance(answers, tuple | list) else f"a {type(answers).__name__}"
        raise TypeError(f"expected two values, `return circulating, right`; got {kind}")
    return {"circulating variance": answers[0], "right variance": answers[1]}


def _draw_tempered(generator: Generator) -> tuple[Tensor, float, float]:
    hot = bool(torch.rand((), generator=generator) < 0.5)
    temperature = number(generator, 1.4, 2.2) if hot else number(generator, 0.3, 0.7)
    return uniform(generator, count(generator, 1, 12), low=0.6, high=1.5), number(generator, 0.2, 0.8), temperature


TEMPERED = Exercise(
    id="5.5",
    title="a temperature that explodes",
    reference=tempered_variances,
    draw=_draw_tempered,
    seed=20_001,
    observe=_two_answers,
    misconceptions=(
        Misconception(
            "your right variance is that of a vanishing step, T v. At a finite step it has the factor 1 / (1 - h / (4 v)) of "
            "exercise 5.2.",
            lambda v, h, T: (_tempered(v, h * T, T), T * v),
        ),
        Misconception(
            "your circulating variance lacks the T of the noise: h T enlarges the step, and the noise has another T beside it.",
            lambda v, h, T: (_tempered(v, h * T, 1.0), _tempered(v, h, T)),
        ),
        Misconception(
            "your circulating variance is the right one: the drift, too, has h T in place of h.",
            lambda v, h, T: (_tempered(v, h, T), _tempered(v, h, T)),
        ),
        Misconception(
            "you call the circulating chain right. A temperature belongs to the noise alone; the step in the drift stays h.",
            lambda v, h, T: (_tempered(v, h * T, T), _tempered(v, h * T, T)),
        ),
        Misconception(
            "you forgot that the circulating chain's drift is larger too: noise of variance h T^2 against a pull of h T, not h.",
            lambda v, h, T: (_tempered(v, h, T**2), _tempered(v, h, T)),
        ),
        Misconception(
            "in the order circulating, right; yours are swapped.",
            lambda v, h, T: tempered_variances(v, h, T)[::-1],
        ),
        Misconception(
            "h/2 where h/4 belongs: the factor of one step is 1 - h/(2v), and 1 minus its square is (h/v)(1 - h/(4v)).",
            lambda v, h, T: tempered_variances(v, 2 * h, T),
        ),
        Misconception(
            "the sign in the denominators: a chain with large steps is too wide.",
            lambda v, h, T: tempered_variances(v, -h, T),
        ),
        Misconception(
            "these are standard deviations.",
            lambda v, h, T: tuple(answer.sqrt() for answer in tempered_variances(v, h, T)),
        ),
        Misconception(
            "you put T^2 into the right variance: sqrt(h T) z has variance h T.",
            lambda v, h, T: (_tempered(v, h * T, T), _tempered(v, h, T**2)),
        ),
        Misconception(
            "your right variance lacks T: this is the chain of exercise 5.2. The noise now has variance h T.",
            lambda v, h, T: (_tempered(v, h * T, T), _tempered(v, h, 1.0)),
        ),
        Misconception(
            "the factor is not squared: a variance obeys S = factor^2 S + size^2, and 1 - factor^2 is not 1 - factor.",
            lambda v, h, T: (2 * T * v, 2 * T * v),
        ),
    ),
    hints=(
        "On N(0, v) the score is -x/v. Write both steps as (factor) x + (size) z.",
        "A stationary variance S solves S = factor^2 S + size^2.",
        "Circulating: factor 1 - h T / (2 v), and size^2 = h T * T. What is 1 - factor^2?",
        "The right step has factor 1 - h / (2 v) and size^2 = h T. Return both as `return circulating, right`.",
    ),
)

# -- 5.6 what temperature does to the weights --------------------------------------------------------------------------


def tempered_weights(weights: Tensor, variances: Tensor, temperature: float) -> Tensor:
    """w^(1/T) v^((1 - 1/T)/2), normalised. Shapes: (K,), (K,) -> (K,)."""
    return _normalised(weights ** (1 / temperature) * variances ** ((1 - 1 / temperature) / 2))


def _normalised(mass: Tensor) -> Tensor:
    return mass / mass.sum()


def _draw_weights(generator: Generator) -> tuple[Tensor, Tensor, float]:
    k = count(generator, 2, 12)
    weights = _normalised(uniform(generator, k, low=0.5, high=3.0))
    hot = bool(torch.rand((), generator=generator) < 0.5)
    temperature = number(generator, 1.5, 3.0) if hot else number(generator, 0.3, 0.7)
    return weights, uniform(generator, k, low=0.2, high=3.0), temperature


def _weights(power_w: Callable[[float], float], power_v: Callable[[float], float]) -> Callable[..., Tensor]:
    return lambda weights, variances, temperature: _normalised(
        weights ** power_w(temperature) * variances ** power_v(temperature)
    )


WEIGHTS = Exercise(
    id="5.6",
    title="what temperature does to the weights",
    reference=tempered_weights,
    draw=_draw_weights,
    misconceptions=(
        Misconception(
            "these are the weights of p. The mass of each mode changes with the power.",
            _weights(lambda T: 1, lambda T: 0),
        ),
        Misconception(
            "the widths are missing: a Gaussian to the power 1/T changes its mass, by a factor that depends on its variance.",
            _weights(lambda T: 1 / T, lambda T: 0),
        ),
        Misconception(
            "the power is 1/T; you use T. A low temperature sharpens.",
            _weights(lambda T: T, lambda T: (1 - T) / 2),
        ),
        Misconception(
            "you take the variance for the standard deviation: its power is (1 - 1/T)/2.",
            _weights(lambda T: 1 / T, lambda T: 1 - 1 / T),
        ),
        Misconception(
            "the sign of the variance's power: at a low temperature the narrow, tall modes win.",
            _weights(lambda T: 1 / T, lambda T: (1 / T - 1) / 2),
        ),
        Misconception(
            "you compare the heights of the modes. Mass is height times width, and the tempered width is sqrt(T v).",
            _weights(lambda T: 1 / T, lambda T: -1 / (2 * T)),
        ),
        Misconception(
            "you forgot that the Gaussian's own factor (2 pi v)^(-1/2) goes to the power 1/T as well.",
            _weights(lambda T: 1 / T, lambda T: 0.5),
        ),
        Misconception(
            "the weight goes to the power 1/T too, together with its Gaussian.",
            _weights(lambda T: 1, lambda T: (1 - 1 / T) / 2),
        ),
        Misconception(
            "not normalised: weights sum to one.",
            lambda w, v, T: w ** (1 / T) * v ** ((1 - 1 / T) / 2),
        ),
        Misconception(
            "softmax(w / T) is for logits. The weights themselves go to the power 1/T, together with their Gaussians.",
            lambda w, v, T: torch.softmax(w / T, 0),
        ),
        Misconception(
            "right up to the normalisation: you kept the factors with 2 pi and T. Divide by the sum, weights sum to one.",
            lambda w, v, T: (w / (2 * torch.pi * v) ** 0.5) ** (1 / T) * (2 * torch.pi * T * v) ** 0.5,
        ),
        Misconception(
            "the power 1/T on the weights is right, but the variance has T where 1/T belongs: its power is (1 - 1/T)/2.",
            _weights(lambda T: 1 / T, lambda T: (1 - T) / 2),
        ),
    ),
    hints=(
        "Where mode k stands, only its own term counts: p^(1/T) is about (w_k N_k)^(1/T). What is the integral of that?",
        "N(x; mu, v)^(1/T) = (2 pi v)^(-1/(2T)) exp(-(x - mu)^2 / (2 T v)), and the exponential integrates to sqrt(2 pi T v).",
        "Factors without k (those with 2 pi and T alone) drop out when you normalise.",
        "What is left is w^(1/T) v^((1 - 1/T)/2), divided by its sum.",
    ),
)

EXERCISES = (STEP, CHAIN, RATIO, OFFSET, TEMPERED, WEIGHTS)
