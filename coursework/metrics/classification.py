"""The classifier two-sample test: can samples be told from data? (lesson 16)."""

from collections.abc import Callable

import torch
from torch import Tensor

from coursework._arguments import finite, floating
from coursework._loops import normal_like
from coursework.metrics.checks import order, two_samples

N_FOLDS = 5
N_FEATURES = 128
RIDGE = 1e-2


@torch.no_grad()
def classifier_two_sample(
    x: Tensor,
    y: Tensor,
    *,
    classifier: Callable[[Tensor], Tensor] | None = None,
    generator: torch.Generator | None = None,
) -> float:
    """The accuracy with which points of x and of y, equally many, are told apart: 1/2 where both laws are equal.

    The best one, which calls "x" where p(x) > q(x), has 1/2 + TV/2, TV = 1/2 int |p - q| the total variation distance.
    classifier: a function (B, D) -> (B,), above 0 for x; it must not have seen the points. By default one is learned:
    the least-squares estimate of E[+1 for x, -1 for y | point] = (p - q) / (p + q) by a linear function and a layer of
    random ReLUs, on four fifths of the points, five times, and tested on the rest. It stays below the best, the more
    so the fewer points and the more dimensions there are: 1/2 shows that this one sees no difference. By chance it
    varies by about 1 / sqrt(2 (N + M)) where N = M. In float64. Shapes: x (N, D), y (M, D), N and M at least 2.
    Source: Lopez-Paz & Oquab 2017.
    """
    x, y = (points.double() for points in two_samples(x, y))
    both, first = torch.cat([x, y]), torch.arange(len(x) + len(y), device=x.device) < len(x)
    if classifier is None:
        value = _held_out_values(both, first, generator)
    else:
        value = classifier(both)
        floating(value, "classifier's value")
        if value.shape != both.shape[:1]:
            raise ValueError(f"classifier's value: expected shape ({len(both)},), got {tuple(value.shape)}")
        finite(value, "classifier's value")
    right = (value > 0) == first
    return float((right[first].double().mean() + right[~first].double().mean()) / 2)


def _held_out_values(both: Tensor, first: Tensor, generator: torch.Generator | None) -> Tensor:
    """For each point the value of a regression on the other folds, each of which has its share of x and of y; (N,)."""
    n, m = int(first.sum()), int((~first).sum())
    n_folds = min(N_FOLDS, n, m)
    fold = torch.cat([order(size, generator) % n_folds for size in (n, m)]).to(both.device)
    features = _random_features(both, generator)
    ridge = RIDGE * torch.eye(features.shape[1], dtype=both.dtype, device=both.device)
    sign, value = torch.where(first, 1.0, -1.0).to(both), both.new_empty(len(both))
    for i in range(n_folds):
        kept = fold != i
        weight = 0.5 / torch.where(first, (kept & first).sum(), (kept & ~first).sum())
        weighted = (weight[:, None] * features)[kept]
        fitted = torch.linalg.solve(weighted.mT @ features[kept] + ridge, weighted.mT @ sign[kept])
        value[~kept] = features[~kept] @ fitted
    return value


def _random_features(x: Tensor, generator: torch.Generator | None) -> Tensor:
    """1, x and ReLUs of random directions of it, each with mean 0 and variance 1. Shapes: (N, D) -> (N, 1 + D + K)."""
    x = _standard(x)
    directions = normal_like(x.new_empty(x.shape[1], N_FEATURES), generator)
    offsets = normal_like(x.new_empty(N_FEATURES), generator)
    hidden = torch.relu(x @ (directions / directions.norm(dim=0)) + offsets)
    return torch.cat([torch.ones_like(x[:, :1]), x, _standard(hidden)], 1)


def _standard(x: Tensor) -> Tensor:
    """Columns with mean 0 and variance 1, or 0 where they are constant up to rounding."""
    centred = x - x.mean(0)
    spread = centred.square().mean(0).sqrt()
    varies = spread > 32 * torch.finfo(x.dtype).eps * x.abs().amax(0)
    return torch.where(varies, centred / spread, 0.0)
