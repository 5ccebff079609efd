"""The log-likelihood of the probability-flow model, by the instantaneous change of variables (lesson 10).

Along a solution of dx/dt = v(x, t) the density changes by d log p_t(x(t)) / dt = -div v(x(t), t), so

log p_{t_min}(x) = log p_T(x(T)) + int_{t_min}^T div v(x(t), t) dt.

This is the likelihood of the ODE's model with the prior at T, not that of the SDE's sampler: they agree for an exact
score only. It is the density at t_min, that is of alpha(t_min) x_0 + sigma(t_min) noise.
"""

import math
from collections.abc import Callable

import torch
from torch import Tensor
from torchdiffeq import odeint

from coursework._arguments import (
    at_least,
    floating,
    like,
    n_dims,
    number,
    one_of,
    positive_number,
    wide,
    wide_dtype,
)
from coursework._loops import (
    TimedScore,
    check_noisy,
    check_start,
    derivatives,
    leaf,
    sampling,
    score_at,
    time_like,
    vector_jacobian,
)
from coursework.score_matching import Score, draw_probe
from coursework.sdes import SDE, as_time, end_time

DIVERGENCES = ("exact", "rademacher", "gaussian")
ROWS = 1 << 24  # entries of the Jacobian's rows that are computed at the same time: 128 MB in float64


def log_likelihood(
    score: TimedScore,
    sde: SDE,
    x: Tensor,
    *,
    divergence: str = "exact",
    n_probes: int = 1,
    rtol: float = 1e-6,
    atol: float = 1e-6,
    t_min: float | None = None,
    prior_log_prob: Callable[[Tensor], Tensor] | None = None,
    generator: torch.Generator | None = None,
) -> Tensor:
    """log p_{t_min}(x) in nats, of the probability-flow model of `score`. Shapes: x (B, *S) -> (B,).

    divergence: "exact", by `score.divergence(x, t)` where a score brings it, else by D backward passes in large
    batches; "rademacher" or "gaussian", Hutchinson's estimate with n_probes random v, the same along a whole
    trajectory: the integrand must be a smooth function of t. The estimate is unbiased. prior_log_prob: the law's
    log-density at T, (B, *S) -> (B,); by default the SDE's prior. rtol, atol: of Dormand and Prince's method, held by
    the worst point of the batch. t_min: where x is taken to lie (default: the SDE's).

    Where x asks for a gradient, autograd records through the solver: the gradient reaches x and the score's parameters
    (for a step of maximum-likelihood training let x ask for one). Parameters alone record nothing.

    Integrated are y = x / c, c^2 = alpha^2 + sigma^2, which stays of the data's size, and log p. Raises ValueError for
    an unknown divergence, tolerances <= 0, a t_min where sigma is 0, and a score whose value is cut off from x.
    Source: Chen et al. 2018, theorem 1; Song et al. 2021, appendix D.2.
    """
    check_start(score, x, generator)
    one_of(divergence, DIVERGENCES, "divergence")
    n_probes = at_least(n_probes, 1, "n_probes")
    rtol, atol = positive_number(rtol, "rtol"), positive_number(atol, "atol")
    start = end_time(sde, t_min)
    check_noisy(torch.tensor([start, sde.T], dtype=torch.float64, device="cpu"), sde)
    if not len(x):
        return x.new_zeros(0)
    probes = [] if divergence == "exact" else [draw_probe(x, divergence, generator) for _ in range(n_probes)]
    with sampling(x):
        y, integral = _integrate(score, sde, x, probes, start, rtol, atol)
    c = {t: math.hypot(float(sde.alpha(as_time(t))), float(sde.sigma(as_time(t)))) for t in (start, sde.T)}
    end = c[sde.T] * y
    log_prior = sde.prior_log_prob(end) if prior_log_prob is None else prior_log_prob(end)
    floating(log_prior, "prior_log_prob's value")
    like(log_prior, integral, "prior_log_prob's value", "one number a point")
    return log_prior + n_dims(x) * math.log(c[sde.T] / c[start]) + integral


def bits_per_dim(log_prob: Tensor, n_dims: int, *, n_levels: int = 256, low: float = -1.0, high: float = 1.0) -> Tensor:
    """-log_prob / (n_dims ln 2) + log2(n_levels / (high - low)): bits to tell a value's level, per dimension.

    log_prob, (B,), in nats, is the density of dequantized data whose n_levels levels share [low, high] evenly. The
    second term is the width of a level: 7 for 256 levels on [-1, 1], 8 on [0, 1]. A negative result says that the
    density is concentrated on less than a level: the data were not dequantized, or scaled otherwise.
    Source: Theis, van den Oord & Bethge 2016, section 3.1.
    """
    floating(log_prob, "log_prob")
    n_dims, n_levels = at_least(n_dims, 1, "n_dims"), at_least(n_levels, 2, "n_levels")
    low, high = number(low, "low"), number(high, "high")
    if not low < high:
        raise ValueError(f"low, high: expected low < high, got {low}, {high}")
    return -log_prob / (n_dims * math.log(2)) + math.log2(n_levels / (high - low))


def dequantize(images_uint8: Tensor, *, generator: torch.Generator | None = None) -> Tensor:
    """2 (k + u) / 256 - 1 with u uniform on [0, 1): levels 0 ... 255 as a density on [-1, 1). Shapes: any, float32.

    Its mean log-density bounds the log-probability of the levels from below (Theis et al. 2016, section 3.1).
    Raises TypeError for what is not uint8.
    """
    if not isinstance(images_uint8, Tensor) or images_uint8.dtype != torch.uint8:
        got = images_uint8.dtype if isinstance(images_uint8, Tensor) else type(images_uint8).__name__
        raise TypeError(f"images_uint8: expected a tensor of torch.uint8, got {got}")
    u = torch.rand(images_uint8.shape, generator=generator, device=images_uint8.device, dtype=torch.float64)
    value = ((images_uint8 + u) / 256 * 2 - 1).float()
    return value.clamp(max=1 - 2**-24)  # rounding to float32 must not reach the next level's end


def _integrate(
    score: TimedScore, sde: SDE, x: Tensor, probes: list[Tensor], start: float, rtol: float, atol: float
) -> tuple[Tensor, Tensor]:
    """y at T and int div dt, from x at `start`.

    The flow is dy/dt = -(g / c)^2 (c s + y) / 2, its divergence in y -(g / c)^2 (c^2 tr ds/dx + D) / 2.
    """
    dims = n_dims(x)

    def rate(t: Tensor, state: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        t = t.nan_to_num(start).clamp(start, sde.T)  # the search for the first step size may look beyond the end
        c2 = sde.alpha(t) ** 2 + sde.sigma(t) ** 2
        c, pull = c2.sqrt(), sde.diffusion(t) ** 2 / (2 * c2)
        y = state[0]
        value, trace = _score_and_divergence(score, (c * y).to(x.dtype), time_like(t, x), probes)
        return -pull.to(y.dtype) * (c.to(y.dtype) * value + y), -pull * (c2 * trace.double() + dims)

    def norm(error: tuple[Tensor, Tensor]) -> Tensor:
        worst = error[0].square().flatten(1).mean(1).max().sqrt()
        return torch.maximum(worst.double(), error[1].abs().max())

    times = torch.tensor([start, sde.T], dtype=torch.float64, device=x.device)
    first = float(sde.alpha(times[0]) ** 2 + sde.sigma(times[0]) ** 2) ** -0.5 * wide(x)
    state = (first, torch.zeros(len(x), dtype=torch.float64, device=x.device))
    try:
        y, change = odeint(
            rate, state, times, rtol=rtol, atol=atol, method="dopri5", options={"norm": norm, "step_t": times[1:]}
        )
    except AssertionError as error:
        raise ValueError(f"rtol, atol: the step size vanishes; too small, or the score fails ({error})") from None
    return y[-1].to(x.dtype), change[-1].to(x.dtype)  # torchdiffeq joins the state in one dtype


def _score_and_divergence(score: TimedScore, x: Tensor, t: Tensor, probes: list[Tensor]) -> tuple[Tensor, Tensor]:
    """score(x, t), and tr dscore/dx exactly (no probes) or by Hutchinson's estimate, (B,)."""
    known = getattr(score, "divergence", None)
    if known is not None and not probes:
        return score_at(score, x, t), known(x, t)
    keep_graph = torch.is_grad_enabled()
    with derivatives(x, t) as (x, t):
        x = leaf(x)
        value = score_at(score, x, t)
        trace = _trace(value, x, probes, lambda x: score(x, t), keep_graph)
    return (value, trace) if keep_graph else (value.detach(), trace)


def _trace(value: Tensor, x: Tensor, probes: list[Tensor], score: Score, keep_graph: bool) -> Tensor:
    """tr dvalue/dx at each point, (B,), exactly or the mean of v^T dvalue/dx v over the probes."""
    if probes:
        v = torch.stack(probes)
        return _quadratic_forms(value, x, v, score, keep_graph).mean(0)
    dims = n_dims(x)
    size = max(1, ROWS // x.numel())
    trace = x.new_zeros(len(x), dtype=wide_dtype(x))
    for rows in torch.arange(dims, device=x.device).split(size):
        basis = torch.nn.functional.one_hot(rows, dims).to(x.dtype)
        basis = basis[:, None].expand(-1, len(x), -1).reshape(len(rows), *x.shape)
        trace = trace + _quadratic_forms(value, x, basis, score, keep_graph).sum(0)
    return trace


def _quadratic_forms(value: Tensor, x: Tensor, v: Tensor, score: Score, keep_graph: bool) -> Tensor:
    """v^T dvalue/dx v for each of n vectors at each point: v (n, B, *S) -> (n, B)."""
    product = vector_jacobian(value, x, v, score, "score", keep_graph=keep_graph, batched=True)
    return (wide(product) * v).flatten(2).sum(2)
