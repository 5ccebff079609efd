"""Flow maps: where the path through x at time t is at time s, in one call, and losses that learn it (lesson 18).

A map is a function map(x, t, s) with the three identities of the probability flow dx/dt = v(x, t):

semigroup X_{r->s}(X_{t->r}(x)) = X_{t->s}(x),  Lagrangian d_s X_{t->s}(x) = v(X_{t->s}(x), s),
Eulerian d_t X_{t->s}(x) + (grad X_{t->s}(x)) v(x, t) = 0.

An average velocity is a function w(x, t, s) = (x - X_{t->s}(x)) / (t - s), which is v(x, t) where s = t. A consistency
function f(x, t) is the map to the last time t_min, X_{t->t_min}(x). Times run from 0 (data) to T (noise), s <= t.
Losses sum over a point's dimensions and average over the batch; targets have no gradient.
"""

import math
import warnings
from collections.abc import Callable

import torch
from torch import Tensor, nn

from coursework._arguments import (
    at_least,
    batch,
    expand,
    flat_sum,
    floating,
    indices,
    like,
    positive,
    positive_number,
    reals,
    remember,
    settled,
    some,
    truth,
    wide,
    wide_dtype,
)
from coursework._loops import (
    OnStep,
    TimedScore,
    check_generator,
    check_noisy,
    check_start,
    check_times,
    columns,
    normal_like,
    score_at,
    time_like,
    times_of,
    walk,
)
from coursework.fast_solvers import exponential_multistep
from coursework.flow_matching import rates
from coursework.predictions import convert, tweedie
from coursework.sdes import SDE, end_time

FlowMap = Callable[[Tensor, Tensor, Tensor], Tensor]
AverageVelocity = Callable[[Tensor, Tensor, Tensor], Tensor]


def gaussian_flow_map(mean: Tensor, variance: float | Tensor, path: SDE) -> FlowMap:
    """The exact map for data N(mean, variance): X_{t->s}(x) = alpha_s m + (S_s / S_t) (x - alpha_t m).

    S^2 = alpha^2 variance + sigma^2. Shapes: mean (*S), variance a number, 0-d or (*S); the map takes x (B, *S) and
    t, s 0-d or (B,) -> (B, *S). Raises ValueError for a variance that is not positive, and for times outside [0, T].
    """
    floating(mean, "mean")
    positive(variance, "variance")
    variance = reals(variance, "variance").to(mean)
    if variance.ndim and variance.shape != mean.shape:
        raise ValueError(f"variance: expected a number or shape {tuple(mean.shape)}, got {tuple(variance.shape)}")

    def moments(x: Tensor, t: Tensor, name: str) -> tuple[Tensor, Tensor]:
        t = path.time(t, name)
        alpha, sigma = expand(path.alpha(t), x, name), expand(path.sigma(t), x, name)
        return alpha * mean.to(x), (alpha**2 * variance.to(x) + sigma**2).sqrt()

    def flow(x: Tensor, t: Tensor, s: Tensor) -> Tensor:
        batch(x, "x")
        (now, spread), (then, spread_then) = moments(x, t, "t"), moments(x, s, "s")
        return then + spread_then / spread * (x - now)

    return flow


def map_of(average_velocity: AverageVelocity) -> FlowMap:
    """X_{t->s}(x) = x - (t - s) w(x, t, s): the map that an average velocity stands for."""

    def flow(x: Tensor, t: Tensor, s: Tensor) -> Tensor:
        w = average_velocity(x, t, s)
        like(w, x, "average_velocity's value", "x")
        return x - expand(t - s, x, "t") * w

    return flow


def angle_times(path: SDE, n_steps: int, *, t_min: float | None = None) -> Tensor:
    """Times at which the angle arctan(sigma / alpha) is equally spaced, from T to t_min (default: the path's).

    Along a path with alpha^2 + sigma^2 = 1 each step then turns (x_0, noise) by the same angle.
    Shape: (n_steps + 1,), float64. Raises ValueError where sigma is 0 at t_min.
    """
    at_least(n_steps, 1, "n_steps")
    ends = torch.tensor([path.T, end_time(path, t_min)], dtype=torch.float64, device="cpu")
    check_noisy(ends, path)
    first, last = torch.atan2(path.sigma(ends), path.alpha(ends)).tolist()
    inner = torch.linspace(first, last, n_steps + 1, dtype=torch.float64, device="cpu")[1:-1]
    return torch.cat([ends[:1], path.time_of_log_snr(-2 * torch.log(torch.tan(inner))), ends[1:]])


def sample_with_map(flow_map: FlowMap, path: SDE, x: Tensor, times: Tensor, *, on_step: OnStep | None = None) -> Tensor:
    """x <- X_{t->s}(x) from each time to the next, one call a step.

    Shapes: x (B, *S) at times[0], times (n_steps + 1,) decreasing -> (B, *S) at times[-1].
    """
    times, each = _grid(flow_map, path, x, times)

    def step(i: int, x: Tensor) -> Tensor:
        value = flow_map(x, each[i], each[i + 1])
        like(value, x, "flow_map's value", "x")
        return value

    return walk(step, x, times, on_step)


def restart(
    flow_map: FlowMap,
    path: SDE,
    x: Tensor,
    times: Tensor,
    *,
    generator: torch.Generator | None = None,
    on_step: OnStep | None = None,
) -> Tensor:
    """Multistep consistency sampling: down to the last time e in one call, up to the next time with fresh noise, again.

    y <- X_{t->e}(x), x <- r y + sqrt(sigma_s^2 - r^2 sigma_e^2) z with r = alpha_s / alpha_e: x has the law of x_s
    where y has that of x_e. n_steps calls; the last step adds no noise.
    Shapes: x (B, *S) at times[0], times (n_steps + 1,) decreasing -> (B, *S) at e = times[-1].
    Source: Song et al. 2023 (consistency models), algorithm 1.
    """
    times, each = _grid(flow_map, path, x, times)
    check_generator(generator, x)
    alpha, sigma = path.alpha(times), path.sigma(times)
    ratio = alpha / alpha[-1]
    keep, add = columns(x, ratio, (sigma**2 - ratio**2 * sigma[-1] ** 2).clamp(min=0).sqrt())
    last = len(times) - 2

    def step(i: int, x: Tensor) -> Tensor:
        y = flow_map(x, each[i], each[-1])
        like(y, x, "flow_map's value", "x")
        return y if i == last else keep[i + 1] * y + add[i + 1] * normal_like(x, generator)

    return walk(step, x, times, on_step)


class VelocityMap(nn.Module):
    """X_{t->s}(x) = alpha_s x0_hat + sigma_s noise_hat: one DDIM step with a velocity F(x, t, s) that knows its end s.

    x0_hat, noise_hat as `predictions.convert` has them from F. X_{t->t}(x) = x whatever F is, so that X_{t->t_min} is a
    consistency function. With alpha = cos(a), sigma = sin(a): X = cos(a_t - a_s) x - sin(a_t - a_s) F.
    `network(x, t, label, s)` is called with x's times (B,), label None without labels, s None with one_end=True: then
    the map is to t_min alone and other s are refused. Shapes: x (B, *S), t, s 0-d or (B,), in [0, T] -> (B, *S).
    Source: with F for one end, Lu & Song 2024 (TrigFlow).
    """

    def __init__(self, network: Callable[..., Tensor], path: SDE, *, one_end: bool = False) -> None:
        super().__init__()
        self.network, self.path, self.one_end = network, path, truth(one_end, "one_end")

    def forward(self, x: Tensor, t: float | Tensor, s: float | Tensor, label: Tensor | None = None) -> Tensor:
        """Where the path through x at t is at s."""
        floating(x, "x")
        t, s = self.path.time(t, "t", noisy=True), self.path.time(s, "s")
        if self.one_end and not settled((s - self.path.t_min).abs() <= 1e-6 * self.path.T):
            raise ValueError(f"s: this map ends at t_min = {self.path.t_min} alone")
        begin, end = (time.to(x.device, wide_dtype(x)).expand(len(x)) for time in (t, s))
        value = self.network(x, begin, label, None if self.one_end else end)
        floating(value, "network's value")
        value = value.to(x.dtype)  # autocast gives bfloat16
        like(value, x, "network's value", "x")
        data, noise = (
            convert(value, x, self.path.alpha(t), self.path.sigma(t), source="velocity", target=target)
            for target in ("data", "noise")
        )
        return expand(self.path.alpha(s), x, "s") * data + expand(self.path.sigma(s), x, "s") * noise


class Consistency(nn.Module):
    """f(x, t) = c_skip y + c_out F(c_in y, (1/4) log q), y = x / alpha, q = sigma / alpha: with f(x, t_min) = y.

    c_skip = d^2 / ((q - e)^2 + d^2), c_out = d (q - e) / sqrt(q^2 + d^2), c_in = 1 / sqrt(q^2 + d^2), with d the data's
    standard deviation and e = q(t_min). Without this boundary condition a constant f is consistent.
    Shapes: x (B, *S), t 0-d or (B,), in [t_min, T] -> (B, *S). Raises ValueError for other times.
    Source: Song et al. 2023, eqs. 5 and appendix C (there alpha = 1).
    """

    def __init__(self, network: Callable[..., Tensor], path: SDE, sigma_data: float) -> None:
        super().__init__()
        self.network, self.path, self.sigma_data = network, path, positive_number(sigma_data, "sigma_data")
        self.least = math.exp(-float(path.log_snr(path.t_min)) / 2)

    def forward(self, x: Tensor, t: float | Tensor, label: Tensor | None = None) -> Tensor:
        """The data at the end of the path through x at t."""
        floating(x, "x")
        t = self.path.time(t, noisy=True)
        alpha = self.path.alpha(t)
        q = self.path.sigma(t) / alpha
        if not settled(q >= self.least * (1 - 1e-6)):
            raise ValueError(f"t: expected values of at least t_min = {self.path.t_min}")
        above, total, d = (q - self.least).clamp(min=0), (q**2 + self.sigma_data**2).sqrt(), self.sigma_data
        c_skip, c_out = d**2 / (above**2 + d**2), d * above / total
        y, told = x / expand(alpha, x, "t"), (q.log() / 4).to(x.device, wide_dtype(x))
        seen = y / expand(total, x, "t")
        value = self.network(seen, told) if label is None else self.network(seen, told, label)
        like(value, x, "network's value", "x")
        return expand(c_skip, x, "t") * y + expand(c_out, x, "t") * value


def consistency_loss(
    consistency: Callable[..., Tensor],
    path: SDE,
    x: Tensor,
    times: Tensor,
    *,
    target: Callable[..., Tensor] | None = None,
    score: TimedScore | None = None,
    weight: Callable[[Tensor, Tensor], Tensor] | None = None,
    noise: Tensor | None = None,
    steps: Tensor | None = None,
    label: Tensor | None = None,
    generator: torch.Generator | None = None,
) -> Tensor:
    """E w(t, s) |f(x_t, t) - f_target(x_s, s)|^2 for neighbours s < t of a grid, x_t = alpha x + sigma noise.

    Consistency training: x_s = alpha_s x + sigma_s noise, with the *same* noise. Distillation, if a score is given: x_s
    is one DDIM step from x_t, alpha_s x0_hat + sigma_s noise_hat. f_target is `target`, by default f itself, without
    gradient. `weight` takes t and s, (B,) each; the default is 1. times (N,) decreasing; `steps` says which pair each
    point has, integers (B,) from 0 to N - 2, drawn uniformly by default. Shapes: x (B, *S) -> ().
    Raises ValueError where sigma is 0 at one of the times. Source: Song et al. 2023, eqs. 7 and 10.
    """
    some(x, "x")
    times = check_times(times, path)
    check_noisy(times, path)
    check_generator(generator, x)
    if steps is None:
        steps = torch.randint(len(times) - 1, (len(x),), generator=generator, device=x.device)
    steps = indices(steps, 0, len(times) - 1, "steps").to(x.device)
    expand(steps, x, "steps")
    t, s = (time_like(times, x)[steps + k] for k in (0, 1))
    for each in (t, s):
        remember(each, path, noisy=True)
    noise = normal_like(x, generator) if noise is None else noise
    x_t = path.perturb(x, t, noise)
    given = () if label is None else (label,)
    value = consistency(x_t, t, *given)
    like(value, x, "consistency's value", "x")
    with torch.no_grad():
        if score is None:
            x_s = path.perturb(x, s, noise)
        else:
            slope = score(x_t, t)
            like(slope, x, "score's value", "x")
            x0_hat = tweedie(x_t, slope, path.alpha(t), path.sigma(t))
            x_s = path.perturb(x0_hat, s, -expand(path.sigma(t), x, "t") * slope)
        wanted = (target or consistency)(x_s, s, *given)
        like(wanted, x, "target's value", "x")
    errors = flat_sum(wide(value - wanted) ** 2)
    return (errors if weight is None else weight(t, s) * errors).mean()


def meanflow_loss(
    average_velocity: AverageVelocity,
    path: SDE,
    x: Tensor,
    *,
    noise: Tensor | None = None,
    times: Tensor | None = None,
    ends: Tensor | None = None,
    generator: torch.Generator | None = None,
) -> Tensor:
    """E |w(x_t, t, s) - target|^2, target = u - (t - s) (d_t w + (grad w) u), u = alpha' x + sigma' noise.

    The total derivative of w along the line is one forward-mode product with the tangent (u, 1, 0) for (x, t, s). With
    s = t it is flow matching. The minimiser is the average velocity, since w is linear in its own target's u.
    t is uniform on [t_min, T] for each point and s on [t_min, t], or `times` and `ends`, (B,). Shapes: x (B, *S) -> ().
    Source: Geng et al. 2025 (mean flows), eqs. 6, 10 and 11 (there r is s, and time runs from data to noise as here).
    """
    x_t, t, s, u = _line(path, x, noise, times, ends, generator)
    value = average_velocity(x_t, t, s)
    like(value, x, "average_velocity's value", "x")
    with torch.no_grad():
        tangents = (u.to(x.dtype), torch.ones_like(t), torch.zeros_like(s))
        with warnings.catch_warnings():  # torch's own, of what it loads for the first product of a process
            warnings.simplefilter("ignore", FutureWarning)
            total = torch.func.jvp(average_velocity, (x_t, t, s), tangents)[1]
        target = u - expand(t - s, u, "times") * total
    return flat_sum((wide(value) - target) ** 2).mean()


def shortcut_loss(
    average_velocity: AverageVelocity,
    path: SDE,
    x: Tensor,
    *,
    noise: Tensor | None = None,
    times: Tensor | None = None,
    ends: Tensor | None = None,
    generator: torch.Generator | None = None,
) -> Tensor:
    """E |w(x_t, t, s) - target|^2: one step equals two of half the length, m = (t + s) / 2.

    target = (w(x_t, t, m) + w(x_m, m, s)) / 2 with x_m = x_t - (t - m) w(x_t, t, m). It knows no data: add
    `flow_matching_loss` of w(x, t, t). Arguments as in `meanflow_loss`. Shapes: x (B, *S) -> ().
    Source: Frans et al. 2025 (shortcut models), eqs. 4 and 5, with s in the place of the step size.
    """
    x_t, t, s, _ = _line(path, x, noise, times, ends, generator)
    value = average_velocity(x_t, t, s)
    like(value, x, "average_velocity's value", "x")
    with torch.no_grad():
        m = (t + s) / 2
        first = average_velocity(x_t, t, m)
        second = average_velocity(x_t - expand(t - m, x, "times") * first, m, s)
    return flat_sum(wide(value - (first + second) / 2) ** 2).mean()


def progressive_target(score: TimedScore, path: SDE, x: Tensor, times: Tensor) -> Tensor:
    """The data that one DDIM step has to see to do what two of the teacher's do: x (B, *S) at times[0] of three.

    With x'' two DDIM steps from x and r = sigma'' / sigma: target = (x'' - r x) / (alpha'' - r alpha).
    Shapes: x (B, *S), times (3,) decreasing -> (B, *S). Source: Salimans & Ho 2022, algorithm 2.
    """
    check_start(score, x)
    times = check_times(times, path)
    if len(times) != 3:
        raise ValueError(f"times: expected three times, got {len(times)}")
    end = exponential_multistep(score, path, x, times, order=1)
    alpha, sigma = path.alpha(times).tolist(), path.sigma(times).tolist()
    ratio = sigma[2] / sigma[0]
    return (end - ratio * x) / (alpha[2] - ratio * alpha[0])


def distribution_matching_gradient(
    score: TimedScore,
    generated_score: TimedScore,
    path: SDE,
    x: Tensor,
    *,
    weight: Callable[[Tensor], Tensor] | None = None,
    noise: Tensor | None = None,
    times: Tensor | None = None,
    generator: torch.Generator | None = None,
) -> Tensor:
    """w(t) alpha(t) (s_q(x_t, t) - s_p(x_t, t)) at x_t = alpha x + sigma noise: grad_x of KL(q_t | p_t), one sample.

    x are outputs of a generator, q their law, s_q = `generated_score` its score, s_p = `score` that of the data. Use
    x.backward(gradient / len(x)). Score distillation (SDS, Poole et al. 2023) has the score of the kernel, -noise /
    sigma, for s_q: its particles end on the modes. t uniform on [t_min, T], or `times`. Shapes: x (B, *S) -> (B, *S).
    Source: Wang et al. 2023 (variational score distillation), eq. 9; Yin et al. 2024 (distribution matching), eq. 7.
    """
    some(x, "x")
    x = x.detach()
    t = times_of(path, x, times, generator)
    noise = normal_like(x, generator) if noise is None else noise
    with torch.no_grad():
        x_t = path.perturb(x, t, noise)
        difference = score_at(generated_score, x_t, t) - score_at(score, x_t, t)
        scale = path.alpha(t) if weight is None else weight(t) * path.alpha(t)
        return expand(scale, x, "times") * difference


def _grid(flow_map: FlowMap, path: SDE, x: Tensor, times: Tensor) -> tuple[Tensor, tuple[Tensor, ...]]:
    check_start(flow_map, x)
    times = check_times(times, path)
    return times, time_like(times, x).unbind()


def _line(
    path: SDE,
    x: Tensor,
    noise: Tensor | None,
    times: Tensor | None,
    ends: Tensor | None,
    generator: torch.Generator | None,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """x_t, t, s and u of a batch."""
    some(x, "x")
    t = times_of(path, x, times, generator).expand(len(x)).contiguous()
    if ends is None:
        share = torch.rand(len(x), generator=generator, dtype=t.dtype, device=t.device)
        s = path.t_min + share * (t - path.t_min)
    else:
        s = times_of(path, x, ends, None).expand(len(x)).contiguous()
        if not settled(s <= t):
            raise ValueError("ends: expected values of at most those of times")
    noise = normal_like(x, generator) if noise is None else noise
    x_t = path.perturb(x, t, noise)
    alpha_rate, sigma_rate = (expand(rate, wide(x), "times") for rate in rates(path, t))
    return x_t, t, s, alpha_rate * wide(x) + sigma_rate * wide(noise)
