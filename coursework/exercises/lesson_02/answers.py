"""Right answers to the exercises of lesson 02, explicit score matching and its implicit form."""

from collections.abc import Callable

import torch
from torch import Tensor


def fisher_divergence(mean_p: Tensor, covariance_p: Tensor, mean_q: Tensor, covariance_q: Tensor) -> Tensor:
    """E_p[ 1/2 |s_q(x) - s_p(x)|^2 ]. Shapes: (D,), (D, D), (D,), (D, D) -> ()."""
    slope = torch.linalg.inv(covariance_p) - torch.linalg.inv(covariance_q)
    offset = torch.linalg.solve(covariance_q, mean_p - mean_q)
    spread = torch.trace(slope @ covariance_p @ slope)
    square = offset @ offset
    return 0.5 * (spread + square)


def cross_term(grid: Tensor, p: Tensor, s: Tensor, slope: Tensor) -> Tensor:
    """E_p[s* s] = [p s] - E_p[ds/dx] on an interval. Shapes: four times (N,) -> ()."""
    upper, lower = p[-1] * s[-1], p[0] * s[0]
    boundary = upper - lower
    integral = torch.trapezoid(p * slope, grid)
    return boundary - integral


def jacobian_trace(fn: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    """tr dfn/dx at every row. Shapes: fn (B, D) -> (B, D); x (B, D) -> (B,)."""
    leaf = x.detach().requires_grad_()
    value = fn(leaf)
    diagonal = []
    for i in range(x.shape[1]):
        (gradient,) = torch.autograd.grad(value[:, i].sum(), leaf, create_graph=True)
        diagonal.append(gradient[:, i])
    return torch.stack(diagonal, 1).sum(1)


def implicit_loss(score: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    """E[ tr ds/dx + 1/2 |s|^2 ]. Shapes: score (B, D) -> (B, D); x (B, D) -> ()."""
    trace = jacobian_trace(score, x)
    square = (score(x) ** 2).sum(1)
    return (trace + 0.5 * square).mean()


def learned_slope(x: Tensor, trace_weight: Tensor) -> Tensor:
    """argmin_a of E[ w tr ds/dx + 1/2 |s|^2 ] for s(x) = a x. Shapes: x (B, D), trace_weight () -> ()."""
    trace = x.shape[1]
    square = (x**2).sum(1).mean()
    return -trace_weight * trace / square


def gaussian_fit(x: Tensor) -> tuple[Tensor, Tensor]:
    """The minimiser (m, A) of the implicit objective for s(x) = -A (x - m). Shapes: (B, D) -> (D,), (D, D)."""
    m = x.mean(0)
    centred = x - m
    covariance = centred.T @ centred / len(x)
    return m, torch.linalg.inv(covariance)
