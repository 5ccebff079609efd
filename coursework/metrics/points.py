"""Distances between two samples of points: how far a sampler's law is from the exact one (lessons 08, 09 and 16)."""

import torch
from torch import Tensor

from coursework._arguments import at_least
from coursework._loops import normal_like
from coursework.metrics.checks import two_samples
from coursework.metrics.distances import distances


def energy_distance(x: Tensor, y: Tensor) -> Tensor:
    """2 E|x - y| - E|x - x'| - E|y - y'|, 0 if and only if both laws are equal; an unbiased estimate, 0-d.

    Shapes: x (N, D), y (M, D), N and M at least 2; being unbiased it can be negative. Values have the unit of x.
    Source: Szekely & Rizzo 2013, eq. 5.
    """
    x, y = two_samples(x, y)
    across, within_x, within_y = distances(x, y).mean(), _mean_distance(x), _mean_distance(y)
    return 2 * across - within_x - within_y


def energy_test(
    x: Tensor, y: Tensor, *, n_permutations: int = 500, generator: torch.Generator | None = None
) -> tuple[float, float]:
    """The energy distance of two samples, and the share of random relabellings whose distance is not smaller.

    That share is the p-value of "both have the same law": uniform on [0, 1] if so, near 0 if not (at least
    1 / (n_permutations + 1)). Shapes: x (N, D), y (M, D). Memory: (N + M)^2 numbers. Source: Szekely & Rizzo 2013.
    """
    x, y = two_samples(x, y)
    n_permutations = at_least(n_permutations, 1, "n_permutations")
    both = torch.cat([x, y])
    apart = distances(both, both)
    device = generator.device if generator is not None else both.device
    orders = [torch.randperm(len(both), generator=generator, device=device) for _ in range(n_permutations)]
    first = torch.zeros(n_permutations + 1, len(both), dtype=both.dtype, device=both.device)
    first[0, : len(x)] = 1
    for row, order in zip(first[1:], orders, strict=True):
        row[order[: len(x)].to(both.device)] = 1
    statistics = _energies(apart, first)
    p_value = (statistics >= statistics[0]).double().mean()
    return float(statistics[0].detach()), float(p_value)


def sliced_wasserstein(
    x: Tensor, y: Tensor, *, n_projections: int = 128, generator: torch.Generator | None = None
) -> Tensor:
    """The root of the mean over directions of W2^2 between the projected samples, 0-d, in the unit of x.

    In one dimension W2 couples the sorted points. Shapes: x, y (N, D). Directions are uniform on the sphere.
    Source: Bonneel, Rabin, Peyre & Pfister 2015.
    """
    x, y = two_samples(x, y)
    n_projections = at_least(n_projections, 1, "n_projections")
    if len(x) != len(y):
        raise ValueError(f"y: expected {len(x)} points like x, got {len(y)}")
    directions = normal_like(x.new_empty(x.shape[1], n_projections), generator)
    directions = directions / directions.norm(dim=0)
    gaps = (x @ directions).sort(dim=0).values - (y @ directions).sort(dim=0).values
    return gaps.square().mean().sqrt()


def _mean_distance(x: Tensor) -> Tensor:
    """E|x - x'| over pairs of different points."""
    return torch.pdist(x).mean()


def _energies(distances: Tensor, first: Tensor) -> Tensor:
    """Energy distances between the points marked 1 and the others. Shapes: (N, N), marks (P, N) -> (P,)."""
    n, m = first[0].sum(), (1 - first[0]).sum()
    sums = first @ distances
    within_x, within_y = (sums * first).sum(1), ((distances.sum(0) - sums) * (1 - first)).sum(1)
    across = (sums * (1 - first)).sum(1)
    return 2 * across / (n * m) - within_x / (n * (n - 1)) - within_y / (m * (m - 1))
