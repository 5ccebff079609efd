"""Exercises of lesson 09, the probability flow."""

import math
from collections.abc import Callable

import torch
from torch import Generator, Tensor

from coursework import sdes
from coursework.exercises.draws import count, linear_sde, normal, number, sizes, time_of, uniform
from coursework.exercises.engine import Exercise, Misconception
from coursework.exercises.exercise import Observed
from coursework.exercises.uses import COEFFICIENTS
from coursework.sdes import SDE

Score = Callable[[Tensor, Tensor], Tensor]


# -- what several exercises share --------------------------------------------------------------------------------------


class WavyScore:
    """s(x, t) = x M^T / (1 + t) + sin(3 t + x): nonlinear, and different at every time."""

    def __init__(self, matrix: Tensor) -> None:
        self.matrix = matrix

    def __call__(self, x: Tensor, t: Tensor) -> Tensor:
        """Shapes: x (B, D), t () or (B,) -> (B, D)."""
        t = t.reshape(-1, 1) if t.ndim else t
        return x @ self.matrix.T / (1 + t) + torch.sin(3 * t + x)


def _draw_step(generator: Generator) -> tuple[WavyScore, SDE, Tensor, Tensor, Tensor]:
    """A step from t to t' < t, towards the data; `_both_ways` takes it back as well."""
    sde, (b, d) = linear_sde(generator), sizes(generator)
    score, x = WavyScore(0.7 * normal(generator, d, d)), normal(generator, b, d)
    t, h = time_of(generator, sde, 0.5, 0.7), time_of(generator, sde, 0.1, 0.3)
    return score, sde, x, t, t - h


def _both_ways(attempt: Callable[..., Tensor], args: tuple[Score, SDE, Tensor, Tensor, Tensor]) -> Observed:
    """The step from t to t', and one from the same x at t' to t: a flow runs in both directions."""
    score, sde, x, t, t_next = args
    return {
        "result": attempt(*args),
        "step with t and t' exchanged, towards the noise": attempt(score, sde, x, t_next, t),
    }


def _stepping(
    drift: float = 1.0, pull: float = -0.5, power: int = 2, late: bool = False
) -> Callable[[Score, SDE, Tensor, Tensor, Tensor, Tensor], Tensor]:
    """h (drift f x + pull g^power s), the score and coefficients at t, or at t' where `late`; h is handed over."""

    def move(score: Score, sde: SDE, x: Tensor, t: Tensor, t_next: Tensor, h: Tensor) -> Tensor:
        at = t_next if late else t
        return h * (drift * sde.drift(x, at) + pull * sde.diffusion(at) ** power * score(x, at))

    return move


# -- 9.1 one Euler step ------------------------------------------------------------------------------------------------


def euler_step(score: Score, sde: SDE, x: Tensor, t: Tensor, t_next: Tensor) -> Tensor:
    """x + (t' - t) (f x - g^2 s / 2). Shapes: x (B, D), t and t_next () -> (B, D)."""
    return x + (t_next - t) * _v(score, sde, x, t)


def _euler(move: Callable[..., Tensor], step: Callable[[Tensor], Tensor] = lambda h: h) -> Callable[..., Tensor]:
    return lambda score, sde, x, t, t_next: x + move(score, sde, x, t, t_next, step(t_next - t))


EULER = Exercise(
    id="9.1",
    title="one step along the flow",
    reference=euler_step,
    draw=_draw_step,
    seed=20_021,
    observe=_both_ways,
    uses=COEFFICIENTS,
    misconceptions=(
        Misconception(
            "you use the drift of the reverse SDE, f x - g^2 s, with the whole score. Its noise would widen the cloud again; "
            "without noise half of the score is right.",
            _euler(_stepping(pull=-1.0)),
        ),
        Misconception(
            "the score has the wrong sign. The velocity is f x minus g^2 s / 2; with h < 0 that moves points towards the data.",
            _euler(_stepping(pull=0.5)),
        ),
        Misconception(
            "your step has the wrong sign: h = t' - t. It is negative towards the data, and the formula needs no other sign.",
            _euler(_stepping(), step=lambda h: -h),
        ),
        Misconception(
            "you force the direction with -|h|: right towards the data, but the step must also go upwards. h = t' - t has its "
            "sign already.",
            _euler(_stepping(), step=lambda h: -h.abs()),
        ),
        Misconception(
            "you force the direction with |h|: every step goes towards the noise. h = t' - t has its sign already.",
            _euler(_stepping(), step=lambda h: h.abs()),
        ),
        Misconception(
            "g is not squared. g dw is a random step, but what moves the density is its variance g^2.",
            _euler(_stepping(power=1)),
        ),
        Misconception(
            "the 1/2 stands at the score only: you halve the drift f x too.",
            _euler(_stepping(drift=0.5)),
        ),
        Misconception(
            "the drift f x is missing: that is right for VE only, where f = 0.",
            _euler(_stepping(drift=0.0)),
        ),
        Misconception(
            "you scale with the root of the step. Roots of h belong to noise; a velocity is multiplied with h itself.",
            _euler(_stepping(), step=lambda h: h.sign() * h.abs().sqrt()),
        ),
        Misconception(
            "you take score and coefficients at t', where the step ends. Euler's method uses the velocity where x is now, at t.",
            _euler(_stepping(late=True)),
        ),
        Misconception(
            "you return the movement h v alone: add it to x.",
            lambda score, sde, x, t, t_next: euler_step(score, sde, x, t, t_next) - x,
        ),
        Misconception(
            "you return the velocity: multiply it with h = t' - t and add the product to x.",
            lambda score, sde, x, t, t_next: sde.probability_flow(x, t, score(x, t)),
        ),
    ),
    hints=(
        "Write the velocity v = f x - g^2 s / 2 at (x, t) first. f x is `sde.drift(x, t)`, g is `sde.diffusion(t)`.",
        "The step is h = t_next - t, with its sign; then x + h v.",
        "`v = sde.drift(x, t) - 0.5 * sde.diffusion(t) ** 2 * score(x, t)`",
    ),
)

# -- 9.2 two samplers that run away ------------------------------------------------------------------------------------


def heun_step(score: Score, sde: SDE, x: Tensor, t: Tensor, t_next: Tensor) -> Tensor:
    """x + h/2 (k1 + k2), k1 = v(x, t), k2 = v(x + h k1, t'). Shapes: x (B, D), t and t_next () -> (B, D)."""
    h, k1 = t_next - t, _v(score, sde, x, t)
    return x + 0.5 * h * (k1 + _v(score, sde, x + h * k1, t_next))


def _v(score: Score, sde: SDE, x: Tensor, t: Tensor) -> Tensor:
    return sde.drift(x, t) - 0.5 * sde.diffusion(t) ** 2 * score(x, t)


def _heun(
    step_of: Callable[[Tensor], Tensor] = lambda h: h,
    first: float = 1.0,
    mean: float = 0.5,
    second_time: str = "end",
    score_time: str = "same",
) -> Callable[..., Tensor]:
    """Heun's step with some part of it changed."""

    def step(score: Score, sde: SDE, x: Tensor, t: Tensor, t_next: Tensor) -> Tensor:
        h = step_of(t_next - t)
        k1 = _v(score, sde, x, t)
        y = x + first * h * k1
        t2 = t_next if second_time == "end" else t
        k2 = _v(score, sde, y, t2) if score_time == "same" else sde.probability_flow(y, t2, score(x, t))
        return x + mean * h * (k1 + k2)

    return step


def _other_velocity(pull: float, drift: float = 1.0) -> Callable[..., Tensor]:
    """Heun's step for drift f x + pull g^2 s."""

    def step(score: Score, sde: SDE, x: Tensor, t: Tensor, t_next: Tensor) -> Tensor:
        h, v = t_next - t, lambda x, t: drift * sde.drift(x, t) + pull * sde.diffusion(t) ** 2 * score(x, t)
        k1 = v(x, t)
        return x + 0.5 * h * (k1 + v(x + h * k1, t_next))

    return step


def _midpoint(score: Score, sde: SDE, x: Tensor, t: Tensor, t_next: Tensor) -> Tensor:
    h = t_next - t
    return x + h * _v(score, sde, x + 0.5 * h * _v(score, sde, x, t), 0.5 * (t + t_next))


def _end_only(score: Score, sde: SDE, x: Tensor, t: Tensor, t_next: Tensor) -> Tensor:
    h = t_next - t
    return x + h * _v(score, sde, x + h * _v(score, sde, x, t), t_next)


def _on_top(score: Score, sde: SDE, x: Tensor, t: Tensor, t_next: Tensor) -> Tensor:
    h = t_next - t
    k1 = _v(score, sde, x, t)
    return x + h * k1 + 0.5 * h * (k1 + _v(score, sde, x + h * k1, t_next))


HEUN = Exercise(
    id="9.2",
    title="two samplers that run away",
    reference=heun_step,
    draw=_draw_step,
    seed=20_021,
    observe=_both_ways,
    uses=COEFFICIENTS,
    misconceptions=(
        Misconception(
            "this is the first circulating sampler: with h = t - t' > 0 and a plus it walks away from where it should go. "
            "h is t' - t.",
            _heun(step_of=lambda h: -h),
        ),
        Misconception(
            "the score has the wrong sign, as in the second circulating sampler: the velocity is f x minus g^2 s / 2.",
            _other_velocity(0.5),
        ),
        Misconception(
            "you use the whole score, the drift of the reverse SDE: the flow takes half of it.",
            _other_velocity(-1.0),
        ),
        Misconception(
            "you force the direction with -|h|: right towards the data, but the step must also go upwards. h = t' - t has its "
            "sign already.",
            _heun(step_of=lambda h: -h.abs()),
        ),
        Misconception(
            "the drift f x is missing: that is right for VE only, where f = 0.",
            _other_velocity(-0.5, drift=0.0),
        ),
        Misconception(
            "the second velocity is taken at t: the predicted point belongs to t', where the step ends.",
            _heun(second_time="start"),
        ),
        Misconception(
            "the second velocity is taken at the old x: it belongs to the predicted point x + h k1.",
            _heun(first=0.0),
        ),
        Misconception(
            "you reuse the first score in the second velocity: ask the score again, at the predicted point and at t'.",
            _heun(score_time="old"),
        ),
        Misconception(
            "the mean of the two velocities needs its 1/2: as it stands you step twice as far.",
            _heun(mean=1.0),
        ),
        Misconception(
            "this is the midpoint method: order 2 as well, but not Heun's. Predict to the end of the step, then average both "
            "velocities.",
            _midpoint,
        ),
        Misconception(
            "you step with the second velocity alone: that is of order 1. Average it with the first.",
            _end_only,
        ),
        Misconception(
            "you add the averaged step to the predicted point: it starts at the old x.",
            _on_top,
        ),
        Misconception(
            "this is Euler's step: the second velocity is missing.",
            euler_step,
        ),
    ),
    hints=(
        "Decide the sign with a case you know: no score and f = -1, so dx/dt = -x. Going back in time x must grow.",
        "Write a small function v(x, t) for the velocity. Then k1 = v(x, t), and k2 = v at the point and time where Euler ends.",
        "h = t_next - t; k1 = v(x, t); k2 = v(x + h k1, t_next); the answer is x + h/2 (k1 + k2).",
    ),
)

# -- 9.3 the order of a method -----------------------------------------------------------------------------------------


def observed_order(coarse: Tensor, medium: Tensor, fine: Tensor, ratio: Tensor) -> Tensor:
    """log(|coarse - medium| / |medium - fine|) / log ratio, of the whole batch. Shapes: (B, D) three times, () -> ()."""
    return torch.log((coarse - medium).norm() / (medium - fine).norm()) / torch.log(ratio)


def _draw_order(generator: Generator) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Results with an error C h^p at h, h / ratio, h / ratio^2, and a little of the next power."""
    exact, leading, rest = normal(generator, 3, *sizes(generator))
    order = count(generator, 1, 4)
    ratio = uniform(generator, low=1.4, high=1.9) if order % 2 else uniform(generator, low=2.2, high=3.5)
    h = uniform(generator, low=0.2, high=0.4)
    results = [exact + leading * (h / ratio**i) ** order + 0.1 * rest * (h / ratio**i) ** (order + 1) for i in range(3)]
    return *results, ratio


def _order_of(measure: Callable[[Tensor], Tensor]) -> Callable[..., Tensor]:
    """The order with another measure of the differences."""
    return lambda coarse, medium, fine, ratio: (
        torch.log(measure(coarse - medium) / measure(medium - fine)) / ratio.log()
    )


ORDER = Exercise(
    id="9.3",
    title="the order of a method, without the exact answer",
    reference=observed_order,
    draw=_draw_order,
    misconceptions=(
        Misconception(
            "you divide by log 2: that is right when the step is halved. Here it shrinks by `ratio`.",
            lambda coarse, medium, fine, ratio: observed_order(coarse, medium, fine, ratio) * ratio.log() / math.log(2),
        ),
        Misconception(
            "the logarithm's base is missing: the log of the quotient is p log(ratio); divide.",
            lambda coarse, medium, fine, ratio: observed_order(coarse, medium, fine, ratio) * ratio.log(),
        ),
        Misconception(
            "the quotient is upside down: the coarse pair differs more, so the order comes out negative.",
            lambda coarse, medium, fine, ratio: -observed_order(coarse, medium, fine, ratio),
        ),
        Misconception(
            "you take the fine result for the exact one, in both differences. It has an error of its own: compare neighbours, "
            "coarse with medium and medium with fine.",
            lambda coarse, medium, fine, ratio: ((coarse - fine).norm() / (medium - fine).norm()).log() / ratio.log(),
        ),
        Misconception(
            "you return the quotient itself, ratio^p: take its logarithm and divide by that of the ratio.",
            lambda coarse, medium, fine, ratio: (coarse - medium).norm() / (medium - fine).norm(),
        ),
        Misconception(
            "you compare squared distances: that doubles the order.",
            _order_of(lambda d: d.square().sum()),
        ),
        Misconception(
            "coordinates of different sign cancel in a plain sum or mean: use the length of the differences.",
            _order_of(lambda d: d.sum().abs()),
        ),
        Misconception(
            "you average the points' distances: a fair estimate too, but here the length over the whole batch is asked for, "
            "`.norm()` of all coordinates together.",
            _order_of(lambda d: d.norm(dim=1).mean()),
        ),
        Misconception(
            "you average absolute differences: a fair estimate too, but here the length over the whole batch is asked for, "
            "`.norm()`.",
            _order_of(lambda d: d.abs().mean()),
        ),
        Misconception(
            "you divide by |coarse - fine|: that is the sum of the two neighbouring differences. Compare coarse - medium with "
            "medium - fine.",
            lambda coarse, medium, fine, ratio: ((coarse - medium).norm() / (coarse - fine).norm()).log() / ratio.log(),
        ),
        Misconception(
            "you subtract lengths. Two results can differ a lot and have the same length: take the length of the difference.",
            lambda coarse, medium, fine, ratio: (
                ((coarse.norm() - medium.norm()) / (medium.norm() - fine.norm())).abs().log() / ratio.log()
            ),
        ),
        Misconception(
            "you divide by the ratio where its logarithm belongs.",
            lambda coarse, medium, fine, ratio: observed_order(coarse, medium, fine, ratio) * ratio.log() / ratio,
        ),
    ),
    hints=(
        "Put x_h = x + C h^p into the two differences. What is left of x? What is their quotient?",
        "x_h - x_{h/b} = C h^p (1 - b^{-p}), and the next difference is b^{-p} times that. So the quotient is b^p.",
        "`torch.log((coarse - medium).norm() / (medium - fine).norm())`, divided by `torch.log(ratio)`.",
    ),
)

# -- 9.4 a time grid ---------------------------------------------------------------------------------------------------


def karras_grid(sde: SDE, n_steps: int, rho: float) -> Tensor:
    """Times at which (sigma / alpha)^(1 / rho) is equally spaced, from T to t_min. Shape: (n_steps + 1,)."""
    first, last = (_levels(sde) ** (1 / rho)).tolist()
    levels = torch.linspace(first, last, n_steps + 1, dtype=torch.float64) ** rho
    return sde.time_of_log_snr(-2 * levels.log())


def _draw_grid(generator: Generator) -> tuple[SDE, int, float]:
    return linear_sde(generator), count(generator, 4, 40), number(generator, 2.5, 8.0)


def _levels(sde: SDE) -> Tensor:
    """sigma / alpha at T and at t_min, (2,)."""
    return torch.exp(-0.5 * sde.log_snr(torch.tensor([sde.T, sde.t_min], dtype=torch.float64)))


def _spaced(
    forth: Callable[[Tensor, float], Tensor], back: Callable[[Tensor, float], Tensor], extra: int = 1
) -> Callable[[SDE, int, float], Tensor]:
    """Times with forth(sigma / alpha, rho) equally spaced; `back` undoes forth."""

    def grid(sde: SDE, n_steps: int, rho: float) -> Tensor:
        first, last = forth(_levels(sde), rho).tolist()
        levels = back(torch.linspace(first, last, n_steps + extra, dtype=torch.float64), rho)
        return sde.time_of_log_snr(-2 * levels.log())

    return grid


def _without_two(sde: SDE, n_steps: int, rho: float) -> Tensor:
    """Karras levels, read as times with log SNR = -log(sigma / alpha)."""
    first, last = (_levels(sde) ** (1 / rho)).tolist()
    levels = torch.linspace(first, last, n_steps + 1, dtype=torch.float64) ** rho
    return sde.time_of_log_snr(-levels.log())


def _by_sigma(sde: SDE, n_steps: int, rho: float) -> Tensor:
    """sigma in the place of sigma / alpha, the way back as if it were that."""
    ends = sde.sigma(torch.tensor([sde.T, sde.t_min], dtype=torch.float64)) ** (1 / rho)
    sigma = torch.linspace(*ends.tolist(), n_steps + 1, dtype=torch.float64) ** rho
    return sde.time_of_log_snr(-2 * sigma.log())


def _in_time(sde: SDE, n_steps: int, rho: float) -> Tensor:
    ends = torch.tensor([sde.T, sde.t_min], dtype=torch.float64) ** (1 / rho)
    return torch.linspace(*ends.tolist(), n_steps + 1, dtype=torch.float64) ** rho


KARRAS = Exercise(
    id="9.4",
    title="a grid of times",
    reference=karras_grid,
    draw=_draw_grid,
    seed=20_021,
    uses=(*COEFFICIENTS, "coursework.sdes.SDE.time_of_log_snr"),
    misconceptions=(
        Misconception(
            "rho is upside down: q^(1 / rho) is equally spaced, not q^rho. Yours crowds the large levels.",
            _spaced(lambda r, rho: r**rho, lambda u, rho: u ** (1 / rho)),
        ),
        Misconception(
            "one time is missing: n_steps steps have n_steps + 1 ends.",
            _spaced(lambda r, rho: r ** (1 / rho), lambda u, rho: u**rho, extra=0),
        ),
        Misconception(
            "the order is reversed: samplers start at T, so the times decrease.",
            lambda sde, n_steps, rho: karras_grid(sde, n_steps, rho).flip(0),
        ),
        Misconception(
            "this is the grid uniform in log-SNR (the limit of a large rho): take powers, not logarithms.",
            lambda sde, n_steps, rho: sdes.log_snr_times(sde, n_steps),
        ),
        Misconception(
            "this is equally spaced in q itself (rho = 1): nearly all steps go to the large levels.",
            _spaced(lambda r, rho: r, lambda u, rho: u),
        ),
        Misconception(
            "this is the uniform grid in t.",
            lambda sde, n_steps, rho: sdes.uniform_times(sde, n_steps),
        ),
        Misconception(
            "you apply the power to t. Times depend on the SDE's clock; the level q = sigma / alpha does not.",
            _in_time,
        ),
        Misconception(
            "you space sigma instead of q = sigma / alpha. On VP sigma stays near 1 for half of the time; q goes on growing.",
            _by_sigma,
        ),
        Misconception(
            "log SNR = log(alpha^2 / sigma^2) = -2 log q: the 2 is missing.",
            _without_two,
        ),
        Misconception(
            "you space the SNR's power, SNR^(1 / rho). The SNR is q^(-2): it is q^(1 / rho) that is equally spaced.",
            _spaced(lambda r, rho: r ** (-2 / rho), lambda u, rho: u ** (-rho / 2)),
        ),
        Misconception(
            "the way back to levels is missing: the equal steps are in q^(1 / rho), so take the power rho of each.",
            _spaced(lambda r, rho: r ** (1 / rho), lambda u, rho: u),
        ),
        Misconception(
            "you return the levels q: the times that have them are asked for.",
            lambda sde, n_steps, rho: torch.exp(-0.5 * sde.log_snr(karras_grid(sde, n_steps, rho))),
        ),
    ),
    hints=(
        "Three steps: the levels q at both ends, equal steps between their powers 1/rho, and back from levels to times.",
        "`sde.sigma(t) / sde.alpha(t)` gives q at t = sde.T and t = sde.t_min; torch.linspace makes n_steps + 1 values.",
        "SNR = alpha^2 / sigma^2 = q^(-2), so t = sde.time_of_log_snr(-2 log q). Keep float64.",
    ),
)

# -- 9.5 a score that is too strong ------------------------------------------------------------------------------------


def flow_variance(variance: Tensor, sde: SDE, strength: Tensor) -> Tensor:
    """Variance at t_min of the flow with strength * score, on N(0, variance), from the exact law at T. Shapes: (), () -> ().

    With y = variance + sigma^2 / alpha^2 at t_min and y_T at T: alpha^2 y (y_T / y)^(1 - strength).
    """
    alpha, y, _, y_T = _scaled(variance, sde)
    return alpha**2 * y * (y_T / y) ** (1 - strength)


def _scaled(variance: Tensor, sde: SDE) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """alpha and y at t_min, alpha and y at T."""
    t = torch.tensor([sde.t_min, sde.T], dtype=torch.float64)
    alpha, y = sde.alpha(t), variance + sde.sigma(t) ** 2 / sde.alpha(t) ** 2
    return alpha[0], y[0], alpha[1], y[1]


def _draw_variance(generator: Generator) -> tuple[Tensor, SDE, Tensor]:
    variance = uniform(generator, low=0.2, high=0.6)
    strength = uniform(generator, low=0.7, high=0.9) + 0.5 * (uniform(generator, low=0.0, high=1.0) < 0.5)
    return variance, linear_sde(generator), strength


def _variance(power: Callable[[Tensor], Tensor], start: str = "law", scale: int = 2) -> Callable[..., Tensor]:
    """alpha^scale Y (y / y_T)^power(strength), Y the variance at T: of u (law), of the prior's u, of x_t, or left out."""

    def formula(variance: Tensor, sde: SDE, strength: Tensor) -> Tensor:
        alpha, y, alpha_T, y_T = _scaled(variance, sde)
        begin = {"law": y_T, "prior": sde.prior_std**2 / alpha_T**2, "x": alpha_T**2 * y_T, "none": 1.0}
        return alpha**scale * begin[start] * (y / y_T) ** power(strength)

    return formula


def _reverse_sde_variance(variance: Tensor, sde: SDE, strength: Tensor) -> Tensor:
    alpha, y, _, y_T = _scaled(variance, sde)
    a = 2 * strength - 1
    return alpha**2 * y / a * (1 + (a - 1) * (y / y_T) ** a)


def _without_clock(variance: Tensor, sde: SDE, strength: Tensor) -> Tensor:
    alpha, y, alpha_T, y_T = _scaled(variance, sde)
    return alpha_T**2 * y_T * (alpha**2 * y / (alpha_T**2 * y_T)) ** strength


VARIANCE = Exercise(
    id="9.5",
    title="a score that is too strong",
    reference=flow_variance,
    draw=_draw_variance,
    seed=20_013,
    uses=COEFFICIENTS,
    misconceptions=(
        Misconception(
            "you answer with the exact variance of the law at t_min: that is what strength = 1 gives.",
            _variance(torch.ones_like),
        ),
        Misconception(
            "your exponent belongs to the standard deviation. u is multiplied by (y / y_T)^(kappa / 2), its variance by the square.",
            _variance(lambda k: 0.5 * k),
        ),
        Misconception(
            "your exponent is twice too large: the 1/2 in front of y' is lost. u is multiplied by (y / y_T)^(kappa / 2).",
            _variance(lambda k: 2 * k),
        ),
        Misconception(
            "your quotient is upside down: towards the data y falls, and the points contract by (y / y_T)^(kappa / 2).",
            _variance(lambda k: -k),
        ),
        Misconception(
            "this is the variance of the reverse SDE with that score. Without noise there is no such equilibrium: just follow u.",
            _reverse_sde_variance,
        ),
        Misconception(
            "you scale x_t, not u = x_t / alpha: the drift f x is exact whatever the score is, only the score's part is too strong.",
            _without_clock,
        ),
        Misconception(
            "this is the variance of u = x / alpha: multiply with alpha^2 at t_min to come back to x.",
            _variance(lambda k: k, scale=0),
        ),
        Misconception(
            "you start from the prior: here the start is the exact law, where u has variance y at T.",
            _variance(lambda k: k, start="prior"),
        ),
        Misconception(
            "you start with the variance of x_t: u = x_t / alpha has variance y at T.",
            _variance(lambda k: k, start="x"),
        ),
        Misconception(
            "the variance at the start is missing: the factor for u is squared and multiplied with y at T.",
            _variance(lambda k: k, start="none"),
        ),
        Misconception(
            "you come back from u with alpha: a variance takes alpha^2.",
            _variance(lambda k: k, scale=1),
        ),
        Misconception(
            "this is the standard deviation: the variance is asked for.",
            lambda variance, sde, strength: flow_variance(variance, sde, strength).sqrt(),
        ),
        Misconception(
            "you multiply the exact variance with the strength. The velocity is too strong at every moment: its effect adds up "
            "over the whole way.",
            lambda variance, sde, strength: strength * _variance(torch.ones_like)(variance, sde, strength),
        ),
    ),
    hints=(
        "With the score kappa times the exact one, u' = kappa y' / (2 y) u. That is (log u)' = (kappa / 2) (log y)': integrate.",
        "From T to t_min the points are multiplied by (y / y_T)^(kappa / 2). So their variance, y_T at the start, becomes "
        "y_T (y / y_T)^kappa.",
        "y = variance + sigma^2 / alpha^2 at t_min, y_T the same at T (`sde.T`); at the end multiply with alpha^2 at t_min, "
        "because x = alpha u.",
    ),
)

# -- 9.6 the great circle ----------------------------------------------------------------------------------------------


def great_circle(z_a: Tensor, z_b: Tensor, w: Tensor) -> Tensor:
    """(sin((1 - w) a) z_a + sin(w a) z_b) / sin a, a the angle between them. Shapes: (D,), (D,), (n,) -> (n, D)."""
    return _circle(z_a, z_b, w, _angle(z_a, z_b))


def _angle(z_a: Tensor, z_b: Tensor) -> Tensor:
    return torch.acos(z_a @ z_b / (z_a.norm() * z_b.norm()))


def _circle(z_a: Tensor, z_b: Tensor, w: Tensor, angle: Tensor) -> Tensor:
    w = w[:, None]
    return (torch.sin((1 - w) * angle) * z_a + torch.sin(w * angle) * z_b) / torch.sin(angle)


def _draw_circle(generator: Generator) -> tuple[Tensor, Tensor, Tensor]:
    """Latents of different lengths, and weights that do not include the ends only."""
    d, n = count(generator, 3, 12), count(generator, 1, 9)
    return 1.3 * normal(generator, d), 0.7 * normal(generator, d), uniform(generator, n, low=0.05, high=0.95)


def _line(z_a: Tensor, z_b: Tensor, w: Tensor) -> Tensor:
    return (1 - w)[:, None] * z_a + w[:, None] * z_b


def _rescaled_line(z_a: Tensor, z_b: Tensor, w: Tensor) -> Tensor:
    line = _line(z_a, z_b, w)
    lengths = (1 - w) * z_a.norm() + w * z_b.norm()
    return line * (lengths / line.norm(dim=1))[:, None]


def _line_at_one_length(z_a: Tensor, z_b: Tensor, w: Tensor) -> Tensor:
    line = _line(z_a, z_b, w)
    return line * (z_a.norm() / line.norm(dim=1))[:, None]


def _unit_circle(z_a: Tensor, z_b: Tensor, w: Tensor) -> Tensor:
    return great_circle(z_a / z_a.norm(), z_b / z_b.norm(), w)


def _root_weights(z_a: Tensor, z_b: Tensor, w: Tensor) -> Tensor:
    return (1 - w).sqrt()[:, None] * z_a + w.sqrt()[:, None] * z_b


CIRCLE = Exercise(
    id="9.6",
    title="along the great circle",
    reference=great_circle,
    draw=_draw_circle,
    seed=20_002,
    misconceptions=(
        Misconception(
            "this is the straight line: its middle is too short to look like a latent.",
            _line,
        ),
        Misconception(
            "a and b are exchanged: w = 0 is z_a.",
            lambda z_a, z_b, w: great_circle(z_b, z_a, w),
        ),
        Misconception(
            "the division by sin a is missing: at w = 0 the weight of z_a must be 1.",
            lambda z_a, z_b, w: great_circle(z_a, z_b, w) * torch.sin(_angle(z_a, z_b)),
        ),
        Misconception(
            "your angle is the arccosine of the bare dot product: divide it by both lengths first (where it is above 1, acos is NaN).",
            lambda z_a, z_b, w: _circle(z_a, z_b, w, torch.acos(z_a @ z_b)),
        ),
        Misconception(
            "the cosine of the angle is not yet the angle: take torch.acos.",
            lambda z_a, z_b, w: _circle(z_a, z_b, w, torch.cos(_angle(z_a, z_b))),
        ),
        Misconception(
            "you take asin: the dot product of unit vectors is the cosine of their angle, so torch.acos.",
            lambda z_a, z_b, w: _circle(z_a, z_b, w, math.pi / 2 - _angle(z_a, z_b)),
        ),
        Misconception(
            "you take a right angle for granted. Random directions in high dimension are nearly orthogonal, yet not exactly; and "
            "in few dimensions not at all.",
            lambda z_a, z_b, w: _circle(z_a, z_b, w, torch.tensor(math.pi / 2, dtype=z_a.dtype)),
        ),
        Misconception(
            "this is the line with its points brought to the right length: the same directions, but unevenly spaced.",
            _rescaled_line,
        ),
        Misconception(
            "this is the line with all its points brought to the length of z_a: at w = 1 it must be z_b, and the angle turns "
            "unevenly.",
            _line_at_one_length,
        ),
        Misconception(
            "you bring z_b to the length of z_a first: at w = 1 it must be z_b itself. The formula takes both as they are.",
            lambda z_a, z_b, w: great_circle(z_a, z_b * (z_a.norm() / z_b.norm()), w),
        ),
        Misconception(
            "you normalise the latents and lose their lengths: the formula takes z_a and z_b as they are.",
            _unit_circle,
        ),
        Misconception(
            "weights sqrt(1 - w) and sqrt(w) keep the length of orthogonal latents only, and do not turn evenly.",
            _root_weights,
        ),
    ),
    hints=(
        "First the angle between the two latents, from their dot product and their lengths.",
        "`torch.acos(z_a @ z_b / (z_a.norm() * z_b.norm()))`",
        "w has shape (n,), the latents (D,): write w[:, None], and the result has shape (n, D).",
    ),
)

EXERCISES = (EULER, HEUN, ORDER, KARRAS, VARIANCE, CIRCLE)
