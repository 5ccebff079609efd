"""Objectives whose minimiser is a score: explicit, implicit, sliced, denoising (lessons 02, 03 and 04).

A score here is a function of x alone, (B, *S) -> (B, *S), applied to each point by itself. Losses sum over a point's
dimensions and average over the batch. Their gradients reach the score's parameters.
"""

from collections.abc import Callable
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from coursework._arguments import (
    at_least,
    batch,
    expand,
    flat_sum,
    floating,
    like,
    n_dims,
    one_of,
    positive,
    some,
    wide,
)
from coursework._loops import check_generator, derivatives, leaf, normal_like, times_of, value_at, vector_jacobian

if TYPE_CHECKING:
    from coursework.sdes import SDE

Score = Callable[[Tensor], Tensor]
PROBES = ("rademacher", "gaussian", "sphere")
WEIGHTINGS = ("noise", "likelihood", "uniform")


def explicit_score_matching(score: Score, x: Tensor, target: Score) -> Tensor:
    """Fisher divergence to a known score, E[ 1/2 |s(x) - target(x)|^2 ]. Shapes: x (B, *S) -> ().

    Source: Vincent 2011, section 3 (his name: explicit score matching).
    """
    some(x, "x")
    return 0.5 * flat_sum(wide(value_at(score, x) - value_at(target, x, "target")) ** 2).mean()


def implicit_score_matching(score: Score, x: Tensor) -> Tensor:
    """Hyvarinen's objective, E[ tr ds/dx + 1/2 |s|^2 ], with the exact trace: D backward passes. Shapes: (B, *S) -> ().

    Equals the Fisher divergence to the law of x less 1/2 E|grad log p|^2, if p s vanishes at infinity.
    Source: Hyvarinen 2005, theorem 1. Many texts call this objective explicit; Vincent 2011 calls it implicit.
    """
    some(x, "x")
    keep_graph = torch.is_grad_enabled()
    with derivatives(x) as (x,):
        x = leaf(x)
        value = value_at(score, x)
        trace = _exact_trace(value, x, score, keep_graph)
    return (trace + 0.5 * flat_sum(wide(value) ** 2)).mean()


def sliced_score_matching(
    score: Score,
    x: Tensor,
    *,
    n_projections: int = 1,
    variance_reduced: bool = True,
    projection: str = "rademacher",
    generator: torch.Generator | None = None,
) -> Tensor:
    """Sliced score matching with random directions v, E[vv^T] = I. Shapes: x (B, *S) -> ().

    variance_reduced (SSM-VR):  E[ v^T (ds/dx) v + 1/2 |s|^2 ];  else (SSM):  E[ v^T (ds/dx) v + 1/2 (v^T s)^2 ].
    `projection` is "rademacher" (entries +-1), "gaussian" or "sphere" (radius sqrt(D)). One forward pass and
    `n_projections` backward passes. Source: Song, Garg, Shi & Ermon 2019, section 3.
    """
    some(x, "x")
    n_projections = at_least(n_projections, 1, "n_projections")
    one_of(projection, PROBES, "projection")
    keep_graph = torch.is_grad_enabled()
    with derivatives(x) as (x,):
        x = leaf(x)
        value = value_at(score, x)
        losses = []
        for _ in range(n_projections):
            v = draw_probe(x, projection, generator)
            square = wide(value) ** 2 if variance_reduced else flat_sum(v * value)[:, None] ** 2
            losses.append(_quadratic_form(value, x, v, score, "score", keep_graph) + 0.5 * flat_sum(square))
    return torch.stack(losses).mean()


def denoising_score_matching(
    score: Score, x: Tensor, sigma: float | Tensor, *, generator: torch.Generator | None = None
) -> Tensor:
    """E[ 1/2 |s(x + sigma noise) + noise / sigma|^2 ], whose minimiser is the score of the law of x + sigma noise.

    Shapes: x (B, *S); sigma a number, 0-d or (B,), > 0 -> (). Its minimum is not 0 but the floor
    1/2 (D / sigma^2 - E|grad log p_sigma|^2). Source: Vincent 2011, section 4.
    """
    some(x, "x")
    positive(sigma, "sigma")
    sigma = expand(sigma, x, "sigma")
    noise = normal_like(x, generator)
    return 0.5 * flat_sum(wide(value_at(score, x + sigma * noise) + noise / sigma) ** 2).mean()


def hutchinson_trace(
    fn: Score, x: Tensor, *, n_probes: int = 1, probe: str = "rademacher", generator: torch.Generator | None = None
) -> Tensor:
    """Unbiased estimate of tr dfn/dx at each point: the mean of v^T (dfn/dx) v over probes with E[vv^T] = I.

    Shapes: x (B, *S) -> (B,). `probe` is "rademacher", "gaussian" or "sphere" (radius sqrt(D)). For a symmetric
    Jacobian A one probe has variance 2 (|A|_F^2 - sum_i A_ii^2) (Rademacher) or 2 |A|_F^2 (Gaussian).
    Source: Hutchinson 1990; Skilling 1989.
    """
    batch(x, "x")
    n_probes = at_least(n_probes, 1, "n_probes")
    one_of(probe, PROBES, "probe")
    keep_graph = torch.is_grad_enabled()
    with derivatives(x) as (x,):
        x = leaf(x)
        value = value_at(fn, x, "fn")
        probes = [draw_probe(x, probe, generator) for _ in range(n_probes)]
        forms = [_quadratic_form(value, x, v, fn, "fn", keep_graph) for v in probes]
    return torch.stack(forms).mean(0)


def denoising_objective(
    model: Callable[..., Tensor],
    sde: "SDE",
    x: Tensor,
    *,
    weighting: str = "noise",
    label: Tensor | None = None,
    times: Tensor | None = None,
    noise: Tensor | None = None,
    generator: torch.Generator | None = None,
) -> Tensor:
    """E_t[ lambda(t)/2 |s(x_t, t) + noise / sigma(t)|^2 ] with x_t = alpha x + sigma noise. Shapes: x (B, *S) -> ().

    `model(x_t, t)` or `model(x_t, t, label)` is a score. t is uniform on [t_min, T] for each point, or `times`, 0-d or
    (B,); the noise is standard normal, or `noise`, (B, *S). weighting: "noise" (lambda = sigma^2: the noise-prediction
    loss), "likelihood" (lambda = g^2: a bound on the log-likelihood, Song, Durkan, Murray & Ermon 2021, theorem 1),
    "uniform" (lambda = 1). Raises ValueError for times outside [0, T] and where sigma is 0.
    Source: Song et al. 2021, eq. 7, with a factor 1/2.
    """
    return denoising_losses(
        model, sde, x, weighting=weighting, label=label, times=times, noise=noise, generator=generator
    ).mean()


def denoising_losses(
    model: Callable[..., Tensor],
    sde: "SDE",
    x: Tensor,
    *,
    weighting: str = "noise",
    label: Tensor | None = None,
    times: Tensor | None = None,
    noise: Tensor | None = None,
    generator: torch.Generator | None = None,
) -> Tensor:
    """lambda(t)/2 |s(x_t, t) + noise / sigma(t)|^2 at each point, of which `denoising_objective` is the mean.

    Arguments and refusals are those of `denoising_objective`. Shapes: x (B, *S) -> (B,).
    """
    some(x, "x")
    one_of(weighting, WEIGHTINGS, "weighting")
    t = times_of(sde, x, times, generator)
    noise = normal_like(x, generator) if noise is None else noise
    x_t = sde.perturb(x, t, noise)
    value = model(x_t, t) if label is None else model(x_t, t, label)
    like(value, x_t, "model's value", "x_t")
    sigma = expand(sde.sigma(t), x, "times")
    error = wide(sigma * value + noise) ** 2
    if weighting != "noise":
        weight = sde.diffusion(t) ** 2 if weighting == "likelihood" else torch.ones_like(t)
        error = expand(weight / sde.sigma(t) ** 2, error, "times") * error
    return 0.5 * flat_sum(error)


def _quadratic_form(value: Tensor, x: Tensor, v: Tensor, fn: Score, name: str, keep_graph: bool) -> Tensor:
    """v^T (dvalue/dx) v at each point, (B,)."""
    return flat_sum(vector_jacobian(value, x, v, fn, name, keep_graph=keep_graph) * v)


def _exact_trace(value: Tensor, x: Tensor, score: Score, keep_graph: bool) -> Tensor:
    basis = torch.eye(n_dims(x), dtype=x.dtype, device=x.device)
    rows = (e.expand(len(x), -1).reshape(x.shape) for e in basis)
    return torch.stack([_quadratic_form(value, x, e, score, "score", keep_graph) for e in rows]).sum(0)


def draw_probe(x: Tensor, kind: str, generator: torch.Generator | None) -> Tensor:
    """A random v like x with E[vv^T] = I at each point; kind is one of PROBES."""
    floating(x, "x")
    one_of(kind, PROBES, "kind")
    check_generator(generator, x)
    if kind == "rademacher":
        return torch.randint(0, 2, x.shape, generator=generator, device=x.device).to(x.dtype) * 2 - 1
    v = normal_like(x, generator)
    if kind == "gaussian":
        return v
    norm = expand(torch.linalg.vector_norm(v.flatten(1), dim=1), v, "v")
    return v * (n_dims(x) ** 0.5 / norm)
