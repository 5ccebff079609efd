"""Exercises of lesson 10, likelihood."""

import math
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import torch
from torch import Generator, Tensor

from coursework.exercises.draws import count, linear_sde, normal, number, sizes, time_of, uniform
from coursework.exercises.engine import Exercise, Misconception
from coursework.exercises.exercise import Observed
from coursework.exercises.uses import COEFFICIENTS
from coursework.sdes import SDE, VPSDE

Score = Callable[[Tensor, Tensor], Tensor]
Trace = Callable[[Tensor, Tensor], Tensor]


# -- what several exercises share --------------------------------------------------------------------------------------


class WavyScore:
    """s(x, t) = x M^T / (1 + t) + sin(3 t + x) with its trace: nonlinear, and different at every time."""

    def __init__(self, matrix: Tensor) -> None:
        self.matrix = matrix

    def __call__(self, x: Tensor, t: Tensor) -> Tensor:
        """Shapes: x (B, D), t () -> (B, D)."""
        return x @ self.matrix.T / (1 + t) + torch.sin(3 * t + x)

    def trace(self, x: Tensor, t: Tensor) -> Tensor:
        """tr ds/dx. Shapes: x (B, D), t () -> (B,)."""
        return self.matrix.trace() / (1 + t) + torch.cos(3 * t + x).sum(1)


# -- 10.1 the two rates ------------------------------------------------------------------------------------------------


def joint_rates(score: Score, trace: Trace, sde: SDE, x: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
    """v = f x - g^2 s / 2 and div v = f D - g^2 tr(ds/dx) / 2. Shapes: x (B, D), t () -> (B, D), (B,)."""
    f, g = sde.drift_coefficient(t), sde.diffusion(t)
    return f * x - 0.5 * g**2 * score(x, t), f * x.shape[1] - 0.5 * g**2 * trace(x, t)


def _draw_rates(generator: Generator) -> tuple[Score, Trace, SDE, Tensor, Tensor]:
    sde, (b, d) = linear_sde(generator), sizes(generator)
    score = WavyScore(0.7 * normal(generator, d, d))
    return score, score.trace, sde, normal(generator, b, d), time_of(generator, sde, 0.3, 0.8)


def _two(attempt: Callable[..., Any], args: tuple[Any, ...]) -> Observed:
    got = attempt(*args)
    if not isinstance(got, tuple | list) or len(got) != 2:
        raise TypeError("expected two tensors, `return velocity, divergence`")
    return {"velocity": got[0], "divergence": got[1]}


def _rates(
    pull: float = 0.5, power: int = 2, drift: float = 1.0, dims: Callable[[Tensor], float] = lambda x: x.shape[1]
) -> Callable[..., tuple[Tensor, Tensor]]:
    """Both rates with the same change in both; `dims` stands for D."""

    def rates(score: Score, trace: Trace, sde: SDE, x: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
        f, g = drift * sde.drift_coefficient(t), sde.diffusion(t)
        return f * x - pull * g**power * score(x, t), f * dims(x) - pull * g**power * trace(x, t)

    return rates


def _other_divergence(change: Callable[..., Tensor]) -> Callable[..., tuple[Tensor, Tensor]]:
    """The right velocity, and change(f, g^2, D, trace's value, x) for its divergence."""

    def rates(score: Score, trace: Trace, sde: SDE, x: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
        v, _ = joint_rates(score, trace, sde, x, t)
        return v, change(sde.drift_coefficient(t), sde.diffusion(t) ** 2, x.shape[1], trace(x, t), x)

    return rates


RATES = Exercise(
    id="10.1",
    title="the velocity and its divergence",
    reference=joint_rates,
    draw=_draw_rates,
    seed=20_021,
    observe=_two,
    uses=COEFFICIENTS,
    misconceptions=(
        Misconception(
            "the divergence of f x is f D, not f: every one of the D coordinates contributes f.",
            _rates(dims=lambda x: 1.0),
        ),
        Misconception(
            "the divergence of f x is missing: that is right for VE only, where f = 0.",
            _rates(dims=lambda x: 0.0),
        ),
        Misconception(
            "you multiply f with x in the divergence too: the derivative of f x with respect to x is f, so the sum is f D.",
            _other_divergence(lambda f, g2, d, trace, x: f * x.sum(1) - 0.5 * g2 * trace),
        ),
        Misconception(
            "you return minus the divergence, the rate of log p along the path. Here div v itself is asked for; its sign is "
            "used once, later.",
            _other_divergence(lambda f, g2, d, trace, x: -(f * d - 0.5 * g2 * trace)),
        ),
        Misconception(
            "the trace has the wrong sign: v = f x minus g^2 s / 2, and so has its divergence.",
            _other_divergence(lambda f, g2, d, trace, x: f * d + 0.5 * g2 * trace),
        ),
        Misconception(
            "the 1/2 is missing at the trace: the velocity takes half of the score, its divergence half of the trace.",
            _other_divergence(lambda f, g2, d, trace, x: f * d - g2 * trace),
        ),
        Misconception(
            "score and trace have the wrong sign: the velocity is f x minus g^2 s / 2.",
            _rates(pull=-0.5),
        ),
        Misconception(
            "you use the drift of the reverse SDE, with the whole score: the probability flow takes half of it.",
            _rates(pull=1.0),
        ),
        Misconception(
            "g is not squared.",
            _rates(power=1),
        ),
        Misconception(
            "the 1/2 stands at the score only: you halve f too.",
            _rates(drift=0.5),
        ),
        Misconception(
            "you sum the trace over the batch: one divergence for each point, shape (B,).",
            _other_divergence(lambda f, g2, d, trace, x: f * d - 0.5 * g2 * trace.sum().expand(len(x))),
        ),
        Misconception(
            "the 1/2 is missing at the score: your divergence takes half of the trace, your velocity the whole score.",
            lambda score, trace, sde, x, t: (
                _rates(pull=1.0)(score, trace, sde, x, t)[0],
                joint_rates(score, trace, sde, x, t)[1],
            ),
        ),
        Misconception(
            "you multiply f with the batch size: D is `x.shape[1]`.",
            _rates(dims=len),
        ),
    ),
    hints=(
        "The velocity is lesson 09's: f x - g^2 s / 2. f is `sde.drift_coefficient(t)`, g is `sde.diffusion(t)`.",
        "The divergence is linear: take that of f x and that of s apart. The first is the trace of f times the unit matrix.",
        "`divergence = f * x.shape[1] - 0.5 * g**2 * trace(x, t)`; then `return velocity, divergence`.",
    ),
)

# -- 10.2 Hutchinson's estimate ----------------------------------------------------------------------------------------


def hutchinson_divergence(velocity: Callable[[Tensor], Tensor], x: Tensor, probes: Tensor) -> Tensor:
    """The mean of v^T (dvelocity/dx) v over the probes. Shapes: x (B, D), probes (n, B, D) -> (B,)."""
    return _forms(velocity, x, probes).mean(0)


def _products(velocity: Callable[[Tensor], Tensor], x: Tensor, probes: Tensor) -> Tensor:
    """v^T J for every probe, (n, B, D)."""
    x = x.detach().requires_grad_()
    value = velocity(x)
    return torch.stack([torch.autograd.grad(value, x, v, retain_graph=True)[0] for v in probes])


def _forms(velocity: Callable[[Tensor], Tensor], x: Tensor, probes: Tensor) -> Tensor:
    return (_products(velocity, x, probes) * probes).sum(2)


def _draw_hutchinson(generator: Generator) -> tuple[Callable[[Tensor], Tensor], Tensor, Tensor]:
    """A velocity so fine that differences of its values are not near enough to derivatives."""
    (b, d), n = sizes(generator), count(generator, 1, 6)
    inner, outer = 20 * normal(generator, d, d), normal(generator, d, d)
    return lambda x: torch.sin(x @ inner.T) @ outer.T, normal(generator, b, d), normal(generator, n, b, d)


def _exact_divergence(velocity: Callable[[Tensor], Tensor], x: Tensor, probes: Tensor) -> Tensor:
    basis = torch.eye(x.shape[1], dtype=x.dtype)[:, None].expand(-1, len(x), -1)
    return _forms(velocity, x, basis).sum(0)


HUTCHINSON = Exercise(
    id="10.2",
    title="Hutchinson's estimate of the divergence",
    reference=hutchinson_divergence,
    draw=_draw_hutchinson,
    rtol=1e-11,
    misconceptions=(
        Misconception(
            "you sum over the probes: each is an estimate of the whole trace, so take their mean.",
            lambda velocity, x, probes: _forms(velocity, x, probes).sum(0),
        ),
        Misconception(
            "you average over the coordinates: v^T J v is a sum over them.",
            lambda velocity, x, probes: (_products(velocity, x, probes) * probes).mean((0, 2)),
        ),
        Misconception(
            "the second v is missing: v^T J is a vector; multiply it with v before you sum. Its plain sum has mean 0.",
            lambda velocity, x, probes: _products(velocity, x, probes).sum(2).mean(0),
        ),
        Misconception(
            "you square v^T J: that estimates the sum of all squared entries of J, not its trace.",
            lambda velocity, x, probes: (_products(velocity, x, probes) ** 2).sum(2).mean(0),
        ),
        Misconception(
            "you multiply the velocity itself with v: its derivative is asked for.",
            lambda velocity, x, probes: (velocity(x) * probes).sum(2).mean(0),
        ),
        Misconception(
            "you divide by the probe's squared length: E[v v^T] = I already makes the estimate unbiased.",
            lambda velocity, x, probes: (_forms(velocity, x, probes) / (probes**2).sum(2)).mean(0),
        ),
        Misconception(
            "you divide by |v|^2 and multiply with D: unbiased for Gaussian probes as well, but not v^T J v.",
            lambda velocity, x, probes: (_forms(velocity, x, probes) * x.shape[1] / (probes**2).sum(2)).mean(0),
        ),
        Misconception(
            "you add up the whole batch: one divergence for each point, shape (B,). A sum over points gives every point the "
            "others' divergences.",
            lambda velocity, x, probes: _forms(velocity, x, probes).mean(0).sum().expand(len(x)),
        ),
        Misconception(
            "you use the first probe only.",
            lambda velocity, x, probes: _forms(velocity, x, probes)[0],
        ),
        Misconception(
            "you average the probes first and use their mean as one probe: its covariance is I / n, so the estimate is n times "
            "too small on average.",
            lambda velocity, x, probes: _forms(velocity, x, probes.mean(0, keepdim=True))[0],
        ),
        Misconception(
            "this is the exact divergence: right, but with D backward passes. The estimate with the given probes is asked for.",
            _exact_divergence,
        ),
        Misconception(
            "you contract with ones first, then with v: both sides of J need the same v.",
            lambda velocity, x, probes: (_products(velocity, x, torch.ones_like(probes)) * probes).sum(2).mean(0),
        ),
    ),
    hints=(
        "Make a leaf of the points, `x = x.detach().requires_grad_()`, and compute `value = velocity(x)` once.",
        "`torch.autograd.grad(value, x, v, retain_graph=True)[0]` is v^T J at every point, (B, D).",
        "For each v: `(product * v).sum(1)`, (B,). Stack the results of all probes and take `.mean(0)`.",
    ),
)

# -- 10.3 the flow of a Gaussian ---------------------------------------------------------------------------------------


def gaussian_flow_log_prob(x: Tensor, variance: Tensor, variance_end: Tensor, prior_std: Tensor) -> Tensor:
    """log N(x_T; 0, prior_std^2 I) + D/2 log(V_T / V), x_T = sqrt(V_T / V) x. Shapes: x (B, D), () x 3 -> (B,)."""
    return _flowed(x, variance, variance_end, prior_std)


def _normal(x: Tensor, std: Tensor) -> Tensor:
    return -0.5 * (x**2).sum(1) / std**2 - x.shape[1] * (torch.log(std) + 0.5 * math.log(2 * math.pi))


def _flowed(
    x: Tensor, variance: Tensor, variance_end: Tensor, prior_std: Tensor, stretch: float = 0.5, change: float = 0.5
) -> Tensor:
    """log prior((V_T/V)^stretch x) + D change log(V_T/V)."""
    ratio = variance_end / variance
    return _normal(ratio**stretch * x, prior_std) + x.shape[1] * change * ratio.log()


def _draw_gaussian(generator: Generator) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    variance = uniform(generator, low=0.2, high=0.6)
    end = uniform(generator, low=1.5, high=3.0)
    prior_std = uniform(generator, low=1.8, high=2.5)
    return normal(generator, *sizes(generator)), variance, end, prior_std


GAUSSIAN = Exercise(
    id="10.3",
    title="the likelihood of a Gaussian's flow",
    reference=gaussian_flow_log_prob,
    draw=_draw_gaussian,
    seed=20_006,
    misconceptions=(
        Misconception(
            "the integral of the divergence has the wrong sign: a flow that spreads lowers the density on its way, so the "
            "density where it starts is higher. Add it.",
            lambda *a: _flowed(*a, change=-0.5),
        ),
        Misconception(
            "the integral of the divergence is missing: you give the prior's density at the end point only.",
            lambda *a: _flowed(*a, change=0.0),
        ),
        Misconception(
            "your divergence is twice too large: each coordinate grows at the rate V' / (2 V).",
            lambda *a: _flowed(*a, change=1.0),
        ),
        Misconception(
            "x is multiplied with the ratio of variances: points stretch by its root.",
            lambda *a: _flowed(*a, stretch=1.0),
        ),
        Misconception(
            "x goes the wrong way: from the data to T it is multiplied with sqrt(V_T / V), which is above 1 here.",
            lambda *a: _flowed(*a, stretch=-0.5),
        ),
        Misconception(
            "you ask the prior at x itself: its density belongs to the end point x_T.",
            lambda *a: _flowed(*a, stretch=0.0),
        ),
        Misconception(
            "this is the exact law N(0, V): what comes out if the law at T is N(0, V_T). The model starts from the prior.",
            lambda x, variance, end, prior_std: _normal(x, variance.sqrt()),
        ),
        Misconception(
            "the factor D is missing at the integral: the divergence is a sum over D coordinates.",
            lambda x, variance, end, prior_std: (
                _flowed(x, variance, end, prior_std, change=0.0) + 0.5 * (end / variance).log()
            ),
        ),
        Misconception(
            "you use N(0, I) for the prior: right for VP, wrong for VE. It is N(0, prior_std^2 I).",
            lambda x, variance, end, prior_std: _flowed(x, variance, end, torch.ones_like(prior_std)),
        ),
        Misconception(
            "you take prior_std for the variance: it is the standard deviation.",
            lambda x, variance, end, prior_std: _flowed(x, variance, end, prior_std.sqrt()),
        ),
        Misconception(
            "the prior's constant (D/2) log(2 pi) is missing: 0.919 nats for every dimension.",
            lambda x, variance, end, prior_std: (
                gaussian_flow_log_prob(x, variance, end, prior_std) + 0.5 * x.shape[1] * math.log(2 * math.pi)
            ),
        ),
        Misconception(
            "the prior's -D log prior_std is missing: it belongs to the constant of N(0, prior_std^2 I).",
            lambda x, variance, end, prior_std: _flowed(x, variance, end, prior_std) + x.shape[1] * prior_std.log(),
        ),
        Misconception(
            "the prior's -log prior_std and -(1/2) log(2 pi) stand there once: they count for each of D dimensions.",
            lambda x, variance, end, prior_std: (
                _flowed(x, variance, end, prior_std)
                + (x.shape[1] - 1) * (prior_std.log() + 0.5 * math.log(2 * math.pi))
            ),
        ),
    ),
    hints=(
        "With score -x / V and V' = 2 f V + g^2, the velocity is v = f x + g^2 x / (2 V) = V' / (2 V) x. Solve for x.",
        "x grows by sqrt(V_T / V), and div v = D V' / (2 V): its integral is (D/2) log(V_T / V).",
        "log N(x_T; 0, prior_std^2 I) = -|x_T|^2 / (2 prior_std^2) - D log prior_std - (D/2) log(2 pi), at "
        "x_T = sqrt(V_T / V) x. Add the integral.",
    ),
)

# -- 10.4 the sign -----------------------------------------------------------------------------------------------------


def flow_log_likelihood(score: Score, trace: Trace, sde: SDE, x: Tensor, times: Tensor) -> Tensor:
    """log prior(x_T) + sum h div v along Euler's steps. Shapes: x (B, D), times (n,) increasing -> (B,)."""
    end, change = _euler(score, trace, sde, x, times)
    return sde.prior_log_prob(end) + change


def _euler(
    score: Score,
    trace: Trace,
    sde: SDE,
    x: Tensor,
    times: Tensor,
    rates: Callable[..., tuple[Tensor, Tensor]] = joint_rates,
    late: bool = False,
) -> tuple[Tensor, Tensor]:
    """The end point and the sum of h div v, the divergence at a step's end where `late`."""
    change = x.new_zeros(len(x))
    for t, t_next in pairwise(times):
        v, divergence = rates(score, trace, sde, x, t)
        x = x + (t_next - t) * v
        if late:
            divergence = rates(score, trace, sde, x, t_next)[1]
        change = change + (t_next - t) * divergence
    return x, change


def _draw_likelihood(generator: Generator) -> tuple[Score, Trace, SDE, Tensor, Tensor]:
    sde, (b, d) = linear_sde(generator), sizes(generator)
    if isinstance(sde, VPSDE):
        sde.prior_std = number(generator, 1.4, 2.0)  # not 1, so that the prior's scale shows
    score, parts = (
        WavyScore(0.7 * normal(generator, d, d)),
        uniform(generator, count(generator, 4, 9), low=0.5, high=1.5),
    )
    return score, score.trace, sde, normal(generator, b, d), 0.6 * sde.T * torch.cumsum(parts, 0) / parts.sum()


def _assembled(combine: Callable[[SDE, Tensor, Tensor, Tensor], Tensor], **options: Any) -> Callable[..., Tensor]:
    """combine(sde, start, end, sum of h div)."""
    return lambda score, trace, sde, x, times: combine(sde, x, *_euler(score, trace, sde, x, times, **options))


def _right(sde: SDE, x: Tensor, end: Tensor, change: Tensor) -> Tensor:
    return sde.prior_log_prob(end) + change


def _backwards(score: Score, trace: Trace, sde: SDE, x: Tensor, times: Tensor) -> Tensor:
    return flow_log_likelihood(score, trace, sde, x, times.flip(0))


LIKELIHOOD = Exercise(
    id="10.4",
    title="a likelihood with the wrong sign",
    reference=flow_log_likelihood,
    draw=_draw_likelihood,
    seed=20_021,
    uses=(*COEFFICIENTS, "coursework.sdes.SDE.prior_log_prob", "coursework.sdes.SDE.prior_std"),
    misconceptions=(
        Misconception(
            "this is the circulating sign. log p falls by div v along the path, so at the start it is higher by the integral: add "
            "it to the prior's log-density.",
            _assembled(lambda sde, x, end, change: sde.prior_log_prob(end) - change),
        ),
        Misconception(
            "you evaluate the prior at the start: its density belongs to the end point x_T.",
            _assembled(lambda sde, x, end, change: sde.prior_log_prob(x) + change),
        ),
        Misconception(
            "N(0, I) is not every SDE's prior: `sde.prior_log_prob` knows its standard deviation.",
            _assembled(
                lambda sde, x, end, change: change - 0.5 * (end**2).sum(1) - 0.5 * end.shape[1] * math.log(2 * math.pi)
            ),
        ),
        Misconception(
            "the prior's constants are missing: -|x|^2 / (2 prior_std^2) alone is no log-density.",
            _assembled(lambda sde, x, end, change: change - 0.5 * (end**2).sum(1) / sde.prior_std**2),
        ),
        Misconception(
            "you return the integral of the divergence alone: add the prior's log-density at the end point.",
            _assembled(lambda sde, x, end, change: change),
        ),
        Misconception(
            "you return the prior's log-density at the end point alone: the change of volume on the way is missing.",
            _assembled(lambda sde, x, end, change: sde.prior_log_prob(end)),
        ),
        Misconception(
            "you take the divergence after the step: Euler's method takes both rates where the step starts.",
            _assembled(_right, late=True),
        ),
        Misconception(
            "you move with the whole score, the reverse SDE's drift: the flow takes half of it.",
            _assembled(_right, rates=_rates(pull=1.0)),
        ),
        Misconception(
            "the divergence of f x is f D: every coordinate contributes.",
            _assembled(_right, rates=_rates(dims=lambda x: 1.0)),
        ),
        Misconception(
            "you walk from T to the data: a likelihood starts at the data, along times as they are given.",
            _backwards,
        ),
        Misconception(
            "this is the code as it was printed: sign, prior and constant are all still wrong.",
            _assembled(lambda sde, x, end, change: -0.5 * (end**2).sum(1) - change),
        ),
        Misconception(
            "the sign is right now. The prior still has unit width and no constant: use `sde.prior_log_prob`.",
            _assembled(lambda sde, x, end, change: -0.5 * (end**2).sum(1) + change),
        ),
        Misconception(
            "the constant is there, but the sign is still minus and the prior N(0, I).",
            _assembled(
                lambda sde, x, end, change: -0.5 * (end**2).sum(1) - 0.5 * end.shape[1] * math.log(2 * math.pi) - change
            ),
        ),
        Misconception(
            "you take the batch's mean divergence: every point has its own.",
            _assembled(lambda sde, x, end, change: sde.prior_log_prob(end) + change.mean()),
        ),
    ),
    hints=(
        "Decide the sign with a case you know: v = x doubles all distances in a time ln 2. In one dimension the density at the "
        "start is then twice that at the end.",
        "In a loop over neighbouring times: both rates at (x, t) from `joint_rates`, then x + h v and change + h divergence.",
        "After the loop: `sde.prior_log_prob(x) + change`, x being the end point.",
    ),
)

# -- 10.5 bits per dimension -------------------------------------------------------------------------------------------


def bits(log_prob: Tensor, n_dims: int, n_levels: int, low: float, high: float) -> Tensor:
    """-log_prob / (D ln 2) - log2 of a level's width, (high - low) / n_levels. Shapes: (B,) -> (B,)."""
    return -log_prob / (n_dims * math.log(2)) - math.log2((high - low) / n_levels)


def _draw_bits(generator: Generator) -> tuple[Tensor, int, int, float, float]:
    n_dims, n_levels = count(generator, 3, 12), count(generator, 5, 40)
    low = float(uniform(generator, low=-1.5, high=-0.5))
    high = low + float(uniform(generator, low=1.5, high=3.5))
    return 4 * normal(generator, count(generator, 1, 9)), n_dims, n_levels, low, high


def _bits(offset: Callable[[int, float], float], scale: float = 1.0, sign: float = -1.0) -> Callable[..., Tensor]:
    """sign log_prob / (D ln 2) scale + offset(n_levels, high - low)."""
    return lambda log_prob, n_dims, n_levels, low, high: (
        sign * scale * log_prob / (n_dims * math.log(2)) + offset(n_levels, high - low)
    )


BITS = Exercise(
    id="10.5",
    title="bits per dimension",
    reference=bits,
    draw=_draw_bits,
    seed=20_006,
    misconceptions=(
        Misconception(
            "the width of a level is missing: without it you turn a density into bits, and the result depends on the data's scale.",
            _bits(lambda n, r: 0.0),
        ),
        Misconception(
            "your offset is log2 of the number of levels: right on [0, 1] only. A level has width (high - low) / n_levels.",
            _bits(lambda n, r: math.log2(n)),
        ),
        Misconception(
            "your offset has the wrong sign: the probability of a level is density times width, so -log2 of the width is added.",
            _bits(lambda n, r: -math.log2(n / r)),
        ),
        Misconception(
            "you multiply the number of levels with the range: a wider range makes wider levels, so divide.",
            _bits(lambda n, r: math.log2(n * r)),
        ),
        Misconception(
            "n_levels levels that share the range evenly have width range / n_levels, not range / (n_levels - 1).",
            _bits(lambda n, r: math.log2((n - 1) / r)),
        ),
        Misconception(
            "the log-probability needs a minus: a more probable image takes fewer bits.",
            _bits(lambda n, r: math.log2(n / r), sign=1.0),
        ),
        Misconception(
            "log_prob is in nats: divide by ln 2 to get bits.",
            _bits(lambda n, r: math.log2(n / r), scale=math.log(2)),
        ),
        Misconception(
            "you multiply with ln 2: nats become bits by dividing.",
            _bits(lambda n, r: math.log2(n / r), scale=math.log(2) ** 2),
        ),
        Misconception(
            "the offset is in nats: take log2 of the number of levels per unit.",
            _bits(lambda n, r: math.log(n / r)),
        ),
        Misconception(
            "these are bits per image: divide by the number of dimensions.",
            lambda log_prob, n_dims, n_levels, low, high: n_dims * bits(log_prob, n_dims, n_levels, low, high),
        ),
        Misconception(
            "you divide the offset by D too: it is there for every dimension already.",
            lambda log_prob, n_dims, n_levels, low, high: (
                -log_prob / (n_dims * math.log(2)) + math.log2(n_levels / (high - low)) / n_dims
            ),
        ),
        Misconception(
            "these are nats per dimension: divide the offset *and* the density's part by ln 2.",
            lambda *args: bits(*args) * math.log(2),
        ),
        Misconception(
            "all of it has the wrong sign: both the log-probability and log2 of the width need a minus.",
            lambda *args: -bits(*args),
        ),
        Misconception(
            "8 is the offset of 256 levels on [0, 1]: take n_levels and the range that are given.",
            _bits(lambda n, r: 8.0),
        ),
    ),
    hints=(
        "P(level) is about density times the volume of the level's cell, width ** n_dims. Take -log2, divide by n_dims.",
        "log2(a) = log(a) / log(2): so -log_prob / (n_dims * math.log(2)) is the density's part.",
        "The width is (high - low) / n_levels; -log2(width) = log2(n_levels / (high - low)) is added.",
    ),
)

# -- 10.6 dequantization -----------------------------------------------------------------------------------------------


def dequantize_levels(x: Tensor, n_levels: int, low: float, high: float, u: Tensor) -> Tensor:
    """x + width (u - 1/2), width = (high - low) / (n_levels - 1). Shapes: x, u (B, D) -> (B, D)."""
    return x + (high - low) / (n_levels - 1) * (u - 0.5)


def _draw_levels(generator: Generator) -> tuple[Tensor, int, float, float, Tensor]:
    n_levels, shape = count(generator, 4, 12), _shape(generator)
    low = float(uniform(generator, low=-1.5, high=-0.5))
    high = low + float(uniform(generator, low=1.3, high=3.0))
    k = torch.randint(n_levels, shape, generator=generator).double()
    return low + k * (high - low) / (n_levels - 1), n_levels, low, high, uniform(generator, *shape, low=0.0, high=1.0)


def _shape(generator: Generator) -> tuple[int, ...]:
    """A batch of vectors, grey images or colour images."""
    return count(generator, 1, 9), *(count(generator, 2, 5) for _ in range(count(generator, 1, 3)))


def _spread(width: Callable[[int, float], float], shift: float = 0.5, scale: float = 1.0) -> Callable[..., Tensor]:
    """x + scale width(n_levels, range) (u - shift)."""
    return lambda x, n, low, high, u: x + scale * width(n, high - low) * (u - shift)


def _gap(n: int, r: float) -> float:
    return r / (n - 1)


DEQUANTIZE = Exercise(
    id="10.6",
    title="dequantize",
    reference=dequantize_levels,
    draw=_draw_levels,
    seed=20_002,
    misconceptions=(
        Misconception(
            "from the first to the last of n_levels levels there are n_levels - 1 gaps: yours are too narrow and leave holes "
            "between the cells.",
            _spread(lambda n, r: r / n),
        ),
        Misconception(
            "u is not centred: x is the middle of its cell, so the noise is width (u - 1/2). Yours makes all images brighter by "
            "half a level.",
            _spread(_gap, shift=0.0),
        ),
        Misconception(
            "your noise covers two widths: 2u - 1 lies in [-1, 1], so neighbouring levels overlap. u - 1/2 is right.",
            _spread(_gap, scale=2.0),
        ),
        Misconception(
            "the range is missing: levels on [low, high] are (high - low) / (n_levels - 1) apart.",
            _spread(lambda n, r: 1 / (n - 1)),
        ),
        Misconception(
            "you add noise of the whole range: it must stay within one level's cell.",
            _spread(lambda n, r: r),
        ),
        Misconception(
            "half of the width is enough for no cell: the noise must fill the whole gap between two levels.",
            _spread(_gap, scale=0.5),
        ),
        Misconception(
            "u is subtracted. The law of the noise is the same, but here the result for the given u is asked for: + width (u - 1/2).",
            _spread(_gap, scale=-1.0),
        ),
        Misconception(
            "you clamp to [low, high]: then the darkest and the brightest level have half a cell, and density piles up at the "
            "ends. Let the outer cells reach beyond.",
            lambda x, n, low, high, u: dequantize_levels(x, n, low, high, u).clamp(low, high),
        ),
        Misconception(
            "you turn levels 0, 1, 2, ... into cells that share [low, high], as (k + u) / n_levels does for raw integers. Here the "
            "levels stay where they are, in the middle of their cells.",
            lambda x, n, low, high, u: low + ((x - low) / _gap(n, high - low) + u) * (high - low) / n,
        ),
        Misconception(
            "u is not scaled: a cell is (high - low) / (n_levels - 1) wide, not 1.",
            _spread(lambda n, r: 1.0),
        ),
        Misconception(
            "u is neither scaled nor centred: the noise is width (u - 1/2), and a cell is (high - low) / (n_levels - 1) wide.",
            _spread(lambda n, r: 1.0, shift=0.0),
        ),
        Misconception(
            "this noise suits levels at the lower edges of n_levels cells that share [low, high]. Here there are n_levels - 1 gaps, "
            "and a level is the middle of its cell.",
            _spread(lambda n, r: r / n, shift=0.0),
        ),
    ),
    hints=(
        "How far apart are two neighbouring levels, if n_levels of them reach from low to high, both included?",
        "The cell of a level is one gap wide and has the level in its middle. Where in it is u = 0, where u = 1?",
        "`x + (high - low) / (n_levels - 1) * (u - 0.5)`",
    ),
)

# -- 10.7 likelihood weighting -----------------------------------------------------------------------------------------


def likelihood_loss(noise_hat: Tensor, noise: Tensor, sde: SDE, t: Tensor) -> Tensor:
    """1/2 g^2 / sigma^2 |noise_hat - noise|^2. Shapes: noise_hat, noise (B, *S), t (B,) -> (B,)."""
    return 0.5 * (sde.diffusion(t) / sde.sigma(t)) ** 2 * ((noise_hat - noise) ** 2).flatten(1).sum(1)


def _draw_weights(generator: Generator) -> tuple[Tensor, Tensor, SDE, Tensor]:
    sde, shape = linear_sde(generator), _shape(generator)
    t = sde.T * uniform(generator, shape[0], low=0.2, high=0.9)
    return normal(generator, *shape), normal(generator, *shape), sde, t


def _weighted(weight: Callable[[SDE, Tensor], Tensor]) -> Callable[..., Tensor]:
    """weight(sde, t) times the squared error."""
    return lambda noise_hat, noise, sde, t: weight(sde, t) * ((noise_hat - noise) ** 2).flatten(1).sum(1)


LIKELIHOOD_WEIGHT = Exercise(
    id="10.7",
    title="the weighting that bounds the likelihood",
    reference=likelihood_loss,
    draw=_draw_weights,
    seed=20_021,
    uses=COEFFICIENTS,
    misconceptions=(
        Misconception(
            "g^2 weights the error of the score. The error of the noise is sigma times that, so its weight is g^2 / sigma^2.",
            _weighted(lambda sde, t: 0.5 * sde.diffusion(t) ** 2),
        ),
        Misconception(
            "you multiply with sigma^2: s = -noise / sigma, so the score's squared error is the noise's divided by sigma^2.",
            _weighted(lambda sde, t: 0.5 * sde.diffusion(t) ** 2 * sde.sigma(t) ** 2),
        ),
        Misconception(
            "one sigma is missing: the error is squared, so is its factor 1 / sigma.",
            _weighted(lambda sde, t: 0.5 * sde.diffusion(t) ** 2 / sde.sigma(t)),
        ),
        Misconception(
            "g / sigma has to be squared.",
            _weighted(lambda sde, t: 0.5 * sde.diffusion(t) / sde.sigma(t)),
        ),
        Misconception(
            "the weight is upside down: it is g^2 / sigma^2, large near the data.",
            _weighted(lambda sde, t: 0.5 * sde.sigma(t) ** 2 / sde.diffusion(t) ** 2),
        ),
        Misconception(
            "the 1/2 of the bound is missing.",
            _weighted(lambda sde, t: (sde.diffusion(t) / sde.sigma(t)) ** 2),
        ),
        Misconception(
            "this is the plain noise-prediction loss: weight 1, which is lambda = sigma^2 for the score and bounds no likelihood.",
            _weighted(lambda sde, t: 0.5 * torch.ones_like(t)),
        ),
        Misconception(
            "this is the uniform weighting of the score, 1 / sigma^2: g^2 is missing.",
            _weighted(lambda sde, t: 0.5 / sde.sigma(t) ** 2),
        ),
        Misconception(
            "you average over the dimensions: the bound is in nats for the whole point, a sum over them.",
            lambda noise_hat, noise, sde, t: likelihood_loss(noise_hat, noise, sde, t) / noise[0].numel(),
        ),
        Misconception(
            "you take the error unsquared: the squared length is asked for.",
            lambda noise_hat, noise, sde, t: (
                0.5 * (sde.diffusion(t) / sde.sigma(t)) ** 2 * ((noise_hat - noise) ** 2).flatten(1).sum(1).sqrt()
            ),
        ),
        Misconception(
            "this is the plain noise-prediction loss with weight 1: it bounds no likelihood.",
            _weighted(lambda sde, t: torch.ones_like(t)),
        ),
        Misconception(
            "g^2 alone, without the 1/2, weights the score's error: the noise's weight is g^2 / (2 sigma^2).",
            _weighted(lambda sde, t: sde.diffusion(t) ** 2),
        ),
        Misconception(
            "this is 1 / sigma^2 without g^2 / 2.",
            _weighted(lambda sde, t: 1 / sde.sigma(t) ** 2),
        ),
    ),
    hints=(
        "Lesson 04: the score that belongs to a predicted noise is -noise_hat / sigma. What is the score's squared error then?",
        "|s_hat - s|^2 = |noise_hat - noise|^2 / sigma^2. Multiply with g^2 / 2.",
        "Sum over all dimensions of a point, `.flatten(1).sum(1)`; the weight has one value a point, (B,).",
    ),
)

EXERCISES = (RATES, HUTCHINSON, GAUSSIAN, LIKELIHOOD, BITS, DEQUANTIZE, LIKELIHOOD_WEIGHT)
