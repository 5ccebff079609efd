"""Guidance: a score steered towards a label, and editing (lesson 11).

Bayes' rule for scores: grad log p_t(x | c) = grad log p_t(x) + grad_x log p_t(c | x). Guidance takes a score and gives
a score(x, t) that every solver takes; `sdedit` is a solver. The scale w: 0 is unconditional, 1 conditional, above 1
amplified.
"""

import math
from collections.abc import Callable

import torch
from torch import Tensor

from coursework._arguments import batch, expand, floating, indices, like, number, ordinary, wide
from coursework._loops import (
    OnStep,
    TimedScore,
    check_start,
    check_times,
    derivatives,
    leaf,
    normal_like,
    score_at,
    vector_jacobian,
)
from coursework.reverse_sde import stochastic_heun
from coursework.sdes import SDE, as_time

ConditionalScore = Callable[[Tensor, Tensor, Tensor], Tensor]


def classifier_guidance(score: TimedScore, log_prob_label: TimedScore, label: Tensor | int, scale: float) -> TimedScore:
    """s + scale grad_x log p_t(label | x), p_t a classifier of noisy points.

    log_prob_label(x, t) -> (B, n_classes): log-probabilities of a point that is noisy as at t; label long (B,), or one
    for all. With scale 1 and the exact classifier this is the conditional score. With another scale w it is the score
    of p_t(x) p_t(label | x)^w at every t, but these are not the noisy laws of p_0(x) p_0(label | x)^w: what a solver
    samples is not that law. Source: Dhariwal & Nichol 2021, algorithm 1; Song et al. 2021, eq. 14.
    """
    scale, label = number(scale, "scale"), ordinary(indices(label, 0, None, "label"))

    def guided(x: Tensor, t: Tensor) -> Tensor:
        value = score_at(score, x, t)
        recording = torch.is_grad_enabled() and x.requires_grad
        with derivatives(x, as_time(t)) as (inner, time):
            inner = leaf(inner)
            log_prob = log_prob_label(inner, time)
            floating(log_prob, "log_prob_label's value")
            if log_prob.ndim != 2 or len(log_prob) != len(x):
                raise ValueError(
                    f"log_prob_label's value: expected shape ({len(x)}, n_classes), got {tuple(log_prob.shape)}"
                )
            chosen = torch.zeros_like(log_prob)
            chosen.scatter_(1, _labels(indices(label, 0, log_prob.shape[1], "label"), x)[:, None], 1.0)
            gradient = vector_jacobian(
                log_prob, inner, chosen, lambda x: log_prob_label(x, time), "log_prob_label", keep_graph=recording
            )
        return value + scale * gradient

    return guided


def classifier_free_guidance(
    conditional_score: ConditionalScore,
    label: Tensor | int | None,
    scale: float,
    *,
    interval: tuple[float, float] | None = None,
) -> TimedScore:
    """s_0 + scale (s_c - s_0), s_c the score with the label, s_0 the one without: one call on twice the batch.

    conditional_score(x, t, label), label long, -1 (or None) for none. The other convention, (1 + w) s_c - w s_0, has
    w = scale - 1. interval: times (low, high) between which the scale holds; outside it is 1 (Kynkaanniemi et al.
    2024). Source: Ho & Salimans 2022, eq. 6.
    """
    scale, label = number(scale, "scale"), ordinary(indices(-1 if label is None else label, -1, None, "label"))
    low, high = (0.0, math.inf) if interval is None else (number(end, "interval") for end in interval)
    if not 0 <= low < high:
        raise ValueError(f"interval: expected 0 <= low < high, got {interval}")

    def guided(x: Tensor, t: Tensor) -> Tensor:
        labels, t = _labels(label, x), as_time(t)
        both = torch.cat([labels, torch.full_like(labels, -1)])
        twice = torch.cat([x, x])
        value = conditional_score(twice, t if t.ndim == 0 else torch.cat([t, t]), both)
        like(value, twice, "conditional_score's value", "x twice")
        conditional, unconditional = value.chunk(2)
        weight = torch.full_like(t, scale)
        if interval is not None:
            weight = weight.where((t >= low) & (t <= high), 1.0)
        return unconditional + expand(weight, x, "t") * (conditional - unconditional)

    return guided


def autoguidance(score: TimedScore, worse_score: TimedScore, scale: float) -> TimedScore:
    """s_worse + scale (s - s_worse): away from a worse model of the same law, with the same condition or none.

    Both estimates of the data are combined alike, D = D_worse + scale (D - D_worse), the weights being 1 in sum. For
    models of N(0, v) and N(0, v_worse), on VE from a large sigma_max, the flow ends with the standard deviation
    v^(scale/2) v_worse^((1 - scale)/2): narrower than v.
    Source: Karras et al. 2024 (guiding a diffusion model with a bad version of itself).
    """
    scale = number(scale, "scale")

    def guided(x: Tensor, t: Tensor) -> Tensor:
        value, worse = score_at(score, x, t), worse_score(x, t)
        like(worse, x, "worse_score's value", "x")
        return worse + scale * (value - worse)

    return guided


def rescale(guided: Tensor, conditional: Tensor, share: float) -> Tensor:
    """Give a guided prediction the conditional one's standard deviation over each point's elements, in part:

    share guided std(conditional) / std(guided) + (1 - share) guided; a constant one stays as it is. Strong guidance
    enlarges it, which saturates images. Shapes: (B, *S) each. Source: Lin et al. 2024, eq. 15 and 16.
    """
    batch(conditional, "conditional")
    like(guided, conditional, "guided", "conditional")
    share = number(share, "share")
    if not 0 <= share <= 1:
        raise ValueError(f"share: expected a number in [0, 1], got {share}")
    wanted, spread = (_deviation(wide(x).flatten(1)) for x in (conditional, guided))
    rounding = 8 * torch.finfo(spread.dtype).eps * wide(guided).flatten(1).abs().amax(1)
    ratio = torch.where(spread > rounding, wanted / spread, 1.0)
    return share * expand(ratio, guided, "guided") * guided + (1 - share) * guided


def _deviation(x: Tensor) -> Tensor:
    """The standard deviation of each row, 0 for one element. Shapes: (B, D) -> (B,)."""
    return (x - x.mean(1, keepdim=True)).square().mean(1).sqrt()


def dynamic_threshold(x0_hat: Tensor, quantile: float = 0.995) -> Tensor:
    """Clip each estimate of the data to [-s, s] and divide by s, s = max(1, the quantile of |x0_hat|).

    For data in [-1, 1]. Shapes: (B, *S) -> (B, *S). Source: Saharia et al. 2022, section 2.3.
    """
    batch(x0_hat, "x0_hat")
    quantile = number(quantile, "quantile")
    if not 0 < quantile <= 1:
        raise ValueError(f"quantile: expected a number in (0, 1], got {quantile}")
    if not x0_hat.numel():
        return x0_hat
    s = expand(wide(x0_hat).flatten(1).abs().quantile(quantile, dim=1).clamp(min=1), x0_hat, "x0_hat")
    return x0_hat.clamp(-s, s) / s


def sdedit(
    score: TimedScore,
    sde: SDE,
    x: Tensor,
    times: Tensor,
    *,
    generator: torch.Generator | None = None,
    on_step: OnStep | None = None,
) -> Tensor:
    """Noise x to times[0] < T, then solve the reverse SDE from there: the earlier times[0], the closer to x.

    Steps of stochastic Heun. Shapes: x (B, *S) -> (B, *S). Source: Meng et al. 2022, algorithm 1.
    """
    check_start(score, x, generator)
    times = check_times(times, sde)
    if float(times[0]) >= sde.T:
        raise ValueError(f"times: expected a start before T = {sde.T}, where nothing of x is left, got {times[0]:g}")
    noisy = sde.perturb(x, times[0].to(x.device, x.dtype), normal_like(x, generator))
    return stochastic_heun(score, sde, noisy, times, generator=generator, on_step=on_step)


def _labels(labels: Tensor, x: Tensor) -> Tensor:
    """Labels for each point, (B,) on x's device, of one label or as many."""
    if labels.shape not in ((), x.shape[:1]):
        raise ValueError(f"label: expected one integer or shape ({len(x)},) like the batch, got {tuple(labels.shape)}")
    return labels.to(x.device).expand(len(x))
