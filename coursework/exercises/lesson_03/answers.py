"""Right answers to the exercises of lesson 03, sliced score matching."""

from collections.abc import Callable

import torch
from torch import Tensor

Score = Callable[[Tensor], Tensor]


def value_and_product(score: Score, x: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
    """s(x) and v^T ds/dx at each point, both (B, D), by one backward pass."""
    leaf = x.detach().requires_grad_()
    value = score(leaf)
    (product,) = torch.autograd.grad(value, leaf, v, create_graph=True)
    return value, product


def quadratic_form(score: Score, x: Tensor, v: Tensor) -> Tensor:
    """v^T (ds/dx) v at every row of x. Shapes: x, v (B, D) -> (B,)."""
    _, product = value_and_product(score, x, v)
    return (product * v).sum(1)


def hutchinson(matrices: Tensor, probes: Tensor) -> Tensor:
    """Mean over m of v_m^T A v_m. Shapes: (B, D, D), (B, M, D) -> (B,)."""
    products = probes @ matrices
    forms = (products * probes).sum(2)
    return forms.mean(1)


def trace_variance(matrices: Tensor, fourth_moment: Tensor) -> Tensor:
    """Var[v^T A v] = 2 |S|_F^2 + (kappa - 3) sum_i a_ii^2, S = (A + A^T) / 2. Shapes: (B, D, D), () -> (B,)."""
    S = (matrices + matrices.mT) / 2
    square = (S**2).sum((1, 2))
    diagonal = (matrices.diagonal(dim1=1, dim2=2) ** 2).sum(1)
    return 2 * square + (fourth_moment - 3) * diagonal


def ssm_loss(score: Score, x: Tensor, v: Tensor) -> Tensor:
    """Mean over the batch of v^T (ds/dx) v + 1/2 (v^T s)^2. Shapes: x, v (B, D) -> ()."""
    value, product = value_and_product(score, x, v)
    form = (product * v).sum(1)
    projection = (value * v).sum(1)
    return (form + 0.5 * projection**2).mean()


def ssm_vr_loss(score: Score, x: Tensor, v: Tensor) -> Tensor:
    """Mean over batch and projections of v^T (ds/dx) v + 1/2 |s|^2. Shapes: x (B, D), v (M, B, D) -> ()."""
    losses = []
    for direction in v:
        value, product = value_and_product(score, x, direction)
        form = (product * direction).sum(1)
        square = (value**2).sum(1)
        losses.append(form + 0.5 * square)
    return torch.stack(losses).mean()


def fitted_slopes(covariance: Tensor, radius: Tensor) -> Tensor:
    """Minimisers a of SSM and SSM-VR for s = a x, x from N(0, covariance), |v| = radius. Shapes: (D, D), () -> (2,)."""
    dim = len(covariance)
    trace = covariance.trace()
    ssm = -dim / trace
    ssm_vr = -(radius**2) / trace
    return torch.stack([ssm, ssm_vr])
