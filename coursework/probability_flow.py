"""Solvers of the probability-flow ODE dx/dt = v(x, t) = f(t) x - g(t)^2 s(x, t) / 2, in either direction (lesson 09).

Its solutions have the marginal laws of the SDE. All solvers take any score(x, t), any linear SDE and a state x (B, *S),
and return a state (B, *S). Without noise they are maps: from data to latents (upwards in t) and back.

`on_step(i, t, x)` is called after each step, with the time t that x has then; a tensor that it returns takes x's place.

All raise ValueError or TypeError for an x that is not a finite batch, times that are not strictly monotone or leave
[0, T], times at which the score is asked and sigma is 0, and scores whose value is not a tensor like x.
"""

import torch
from torch import Tensor
from torchdiffeq import odeint

from coursework._arguments import at_least, finite, floating, like, number, positive_number, wide
from coursework._loops import (
    OnStep,
    Step,
    TimedScore,
    check_noisy,
    check_start,
    check_times,
    columns,
    sampling,
    score_at,
    score_times,
    time_like,
    walk,
)
from coursework.sdes import SDE


def euler(score: TimedScore, sde: SDE, x: Tensor, times: Tensor, *, on_step: OnStep | None = None) -> Tensor:
    """Euler's method, order 1, one score call a step: x <- x + h v(x, t), h = t' - t (negative towards the data).

    Shapes: x (B, *S) at times[0], times (n_steps + 1,) -> (B, *S) at times[-1]. Source: Song et al. 2021, eq. 13.
    """
    times = _checked(score, sde, x, times)
    v = _velocity(score, sde, x, times[:-1])
    (h,) = columns(x, times.diff())
    return walk(lambda i, x: x + h[i] * v(i, x), x, times, on_step)


def heun(score: TimedScore, sde: SDE, x: Tensor, times: Tensor, *, on_step: OnStep | None = None) -> Tensor:
    """Heun's method, order 2, two score calls a step: k1 = v(x, t), k2 = v(x + h k1, t'), x <- x + h/2 (k1 + k2).

    Shapes: x (B, *S) at times[0], times (n_steps + 1,) -> (B, *S) at times[-1]. Source: Karras et al. 2022, algorithm 1
    (there in sigma as the time).
    """
    times = _checked(score, sde, x, times)
    v = _velocity(score, sde, x, times)
    (h,) = columns(x, times.diff())

    def step(i: int, x: Tensor) -> Tensor:
        k1 = v(i, x)
        k2 = v(i + 1, x + h[i] * k1)
        return x + 0.5 * h[i] * (k1 + k2)

    return walk(step, x, times, on_step)


def rk4(score: TimedScore, sde: SDE, x: Tensor, times: Tensor, *, on_step: OnStep | None = None) -> Tensor:
    """The classical Runge-Kutta method, order 4, four score calls a step; with m = (t + t') / 2:

    k1 = v(x, t), k2 = v(x + h/2 k1, m), k3 = v(x + h/2 k2, m), k4 = v(x + h k3, t'),
    x <- x + h/6 (k1 + 2 k2 + 2 k3 + k4).

    Shapes: x (B, *S) at times[0], times (n_steps + 1,) -> (B, *S) at times[-1].
    """
    times = _checked(score, sde, x, times)
    v = _velocity(score, sde, x, times)
    v_middle = _velocity(score, sde, x, 0.5 * (times[:-1] + times[1:]))
    (h,) = columns(x, times.diff())

    def step(i: int, x: Tensor) -> Tensor:
        k1 = v(i, x)
        k2 = v_middle(i, x + 0.5 * h[i] * k1)
        k3 = v_middle(i, x + 0.5 * h[i] * k2)
        k4 = v(i + 1, x + h[i] * k3)
        return x + h[i] / 6 * (k1 + 2 * k2 + 2 * k3 + k4)

    return walk(step, x, times, on_step)


def adaptive(
    score: TimedScore,
    sde: SDE,
    x: Tensor,
    *,
    t_start: float | None = None,
    t_end: float | None = None,
    rtol: float = 1e-5,
    atol: float = 1e-5,
) -> Tensor:
    """Dormand and Prince's method of order 5 with step size control (torchdiffeq), from t_start (T) to t_end (t_min).

    A step is accepted if every point's root mean square of error / (atol + rtol |x|) is at most 1.

    Shapes: x (B, *S) at t_start -> (B, *S) at t_end. Also raises for tolerances <= 0, and where the step size vanishes.
    Source: Dormand & Prince 1980.
    """
    check_start(score, x)
    rtol, atol = positive_number(rtol, "rtol"), positive_number(atol, "atol")
    start = sde.T if t_start is None else number(t_start, "t_start")
    end = sde.t_min if t_end is None else number(t_end, "t_end")
    times = check_times(torch.tensor([start, end], dtype=torch.float64, device="cpu"), sde, upwards=True)
    check_noisy(times, sde)
    if not len(x):
        return x
    low, high = float(times.min()), float(times.max())

    def v(t: Tensor, y: Tensor) -> Tensor:
        t = t.nan_to_num(low).clamp(low, high)  # the search for the first step size may look beyond the end
        t = time_like(t, y)
        return sde.probability_flow(y, t, score_at(score, y.to(x.dtype), t).to(y.dtype))

    # `step_t` stops the last step at the end: torchdiffeq would step past it, perhaps to where sigma is not defined
    options = {"norm": lambda error: error.square().flatten(1).mean(1).max().sqrt(), "step_t": times[1:].to(x.device)}
    with sampling(x):
        try:
            y = odeint(v, wide(x), times.to(x.device), rtol=rtol, atol=atol, method="dopri5", options=options)[-1]
        except AssertionError as error:
            raise ValueError(f"rtol, atol: the step size vanishes; too small, or the score fails ({error})") from None
    return y.to(x.dtype)


def encode(
    score: TimedScore, sde: SDE, x: Tensor, *, t_min: float | None = None, rtol: float = 1e-5, atol: float = 1e-5
) -> Tensor:
    """The latent z at T of data x at t_min, along the probability flow. Shapes: (B, *S) -> (B, *S).

    Source: Song et al. 2021, appendix D.
    """
    return adaptive(score, sde, x, t_start=sde.t_min if t_min is None else t_min, t_end=sde.T, rtol=rtol, atol=atol)


def decode(
    score: TimedScore, sde: SDE, z: Tensor, *, t_min: float | None = None, rtol: float = 1e-5, atol: float = 1e-5
) -> Tensor:
    """The data x at t_min of a latent z at T, along the probability flow: `encode` backwards. Shapes: (B, *S) each."""
    return adaptive(score, sde, z, t_start=sde.T, t_end=t_min, rtol=rtol, atol=atol)


def interpolate(
    score: TimedScore,
    sde: SDE,
    x_a: Tensor,
    x_b: Tensor,
    n: int,
    *,
    t_min: float | None = None,
    rtol: float = 1e-5,
    atol: float = 1e-5,
) -> Tensor:
    """n points from x_a to x_b, both included: encoded, joined on a great circle, decoded. Shapes: (*S) -> (n, *S).

    With the angle a between the latents and w from 0 to 1: z_w = (sin((1 - w) a) z_a + sin(w a) z_b) / sin a, a line
    where sin a is 0. The circle keeps |z| near sqrt(D), where the prior's samples are; a line does not.
    Raises ValueError for n < 2 and for x_a and x_b of different shapes. Source: Song et al. 2021, appendix D.
    """
    for value, name in ((x_a, "x_a"), (x_b, "x_b")):
        floating(value, name)
        finite(value, name)
    like(x_b, x_a, "x_b", "x_a")
    n = at_least(n, 2, "n")
    z_a, z_b = encode(score, sde, torch.stack([x_a, x_b]), t_min=t_min, rtol=rtol, atol=atol)
    w = torch.linspace(0, 1, n, dtype=x_a.dtype, device=x_a.device).reshape(-1, *[1] * x_a.ndim)
    return decode(score, sde, _great_circle(z_a, z_b, w), t_min=t_min, rtol=rtol, atol=atol)


def _great_circle(z_a: Tensor, z_b: Tensor, w: Tensor) -> Tensor:
    cosine = torch.nn.functional.cosine_similarity(z_a.flatten(), z_b.flatten(), dim=0)
    angle = torch.acos(cosine.clamp(-1, 1))
    if float(angle.sin().detach()) < 1e-4 or not bool(z_a.any()) or not bool(z_b.any()):
        return (1 - w) * z_a + w * z_b
    return (torch.sin((1 - w) * angle) * z_a + torch.sin(w * angle) * z_b) / angle.sin()


def _checked(score: TimedScore, sde: SDE, x: Tensor, times: Tensor) -> Tensor:
    check_start(score, x)
    return check_times(times, sde, upwards=True)


def _velocity(score: TimedScore, sde: SDE, x: Tensor, times: Tensor) -> Step:
    """(i, x) -> v(x, t_i), the coefficients for all t_i computed here."""
    check_noisy(times, sde)
    t = score_times(x, times, sde)
    f, half_g2 = columns(x, sde.drift_coefficient(times), 0.5 * sde.diffusion(times) ** 2)
    return lambda i, x: f[i] * x - half_g2[i] * score_at(score, x, t[i])
