"""What two sets cover of each other, by nearest neighbours, and whether samples are copies (lessons 06 and 16)."""

import math

import torch
from torch import Tensor

from coursework._arguments import at_least, batch, like, some, wide
from coursework.metrics.checks import two_sets_of_features
from coursework.metrics.distances import CHUNK, distances, nearest


def precision_recall(real: Tensor, generated: Tensor, *, k: int = 3) -> tuple[float, float]:
    """Precision, the share of generated points inside the real set, and recall, of real ones inside the generated set.

    A point is inside a set if it is at most as far from one of its points as that point's k-th nearest neighbour in the
    set is. Low precision: bad samples; low recall: missing ones. The fewer points a set has, the more room it takes:
    compare equally many. Shapes: features (N, F), (M, F), N, M > k.
    Source: Kynkaanniemi et al. 2019, eq. 1 and 2.
    """
    k = at_least(k, 1, "k")
    real, generated = two_sets_of_features(real, generated)
    fewest = min(len(real), len(generated))
    if fewest <= k:
        raise ValueError(f"k: expected less than {fewest}, the smaller set's size, got {k}")
    return _share_inside(generated, real, k), _share_inside(real, generated, k)


def density_coverage(real: Tensor, generated: Tensor, *, k: int = 5) -> tuple[float, float]:
    """Density, how many real balls a generated point lies in, over k, and coverage, the share of balls that hold one.

    A real point's ball reaches to its k-th nearest neighbour among the other real ones. Under equal laws density has
    mean 1, and coverage 1 - (N-1)...(N-k) / (N+M-1)...(N+M-k), near 1 - 2^-k for N = M, whatever the law and the
    dimension. Low density: bad samples (it may exceed 1); low coverage: missing ones. Unlike precision it is not misled
    by a far point of the real set. Shapes: features (N, F), (M, F), N > k. Source: Naeem et al. 2020.
    """
    k = at_least(k, 1, "k")
    real, generated = two_sets_of_features(real, generated)
    if len(real) <= k:
        raise ValueError(f"k: expected less than {len(real)}, the real set's size, got {k}")
    radii = _radii(real, k)
    held = torch.stack([(distances(part, real) <= radii).sum(0) for part in generated.split(CHUNK)]).sum(0).double()
    return float(held.sum() / (k * len(generated))), float((held > 0).double().mean())


def memorisation(x: Tensor, train: Tensor, held_out: Tensor) -> tuple[float, float]:
    """The share of pairs in which a sample is nearer to the training set than a held-out point is, and its z.

    Distances are those to the nearest training point; equal ones count half. Where samples are like held-out data the
    share has mean 1/2, and z, its excess in standard deviations, mean 0 and variance near 1. If a share q of the
    samples are copies it is (1 + q) / 2. Well below 1/2: samples are far from all data. (Mann-Whitney's test.)
    Shapes: (N, *S), (M, *S), (L, *S). Source: Meehan, Chaudhuri & Dasgupta 2020.
    """
    for value, name in ((x, "x"), (train, "train"), (held_out, "held_out")):
        some(value, name)
        like(value[:1], x[:1], name, "x")
    of_x, of_held_out = (nearest_distances(wide(points), wide(train)) for points in (x, held_out))
    n, m = len(x), len(held_out)
    below = torch.searchsorted(of_x.sort().values, of_held_out)
    up_to = torch.searchsorted(of_x.sort().values, of_held_out, right=True)
    share = float((below + up_to).double().mean()) / (2 * n)
    _, ties = torch.cat([of_x, of_held_out]).unique(return_counts=True)
    tied = float((ties.double() ** 3 - ties).sum()) / ((n + m) * (n + m - 1))
    variance = (n + m + 1 - tied) / (12 * n * m)
    return share, (share - 0.5) / math.sqrt(variance) if variance > 0 else 0.0


def nearest_distances(x: Tensor, reference: Tensor) -> Tensor:
    """The Euclidean distance of each x to the nearest point of the reference. Shapes: (N, *S), (M, *S) -> (N,).

    Samples that are nearer to the training set than held-out data are may be copies of it.
    """
    for value, name in ((x, "x"), (reference, "reference")):
        batch(value, name)
    if x.shape[1:] != reference.shape[1:]:
        raise ValueError(f"reference: expected points of shape {tuple(x.shape[1:])}, got {tuple(reference.shape[1:])}")
    like(reference[:0], x[:0], "reference", "x")
    if not len(reference):
        raise ValueError("reference: expected at least one point")
    return nearest(wide(x).flatten(1), wide(reference).flatten(1)).to(x.dtype)


def _radii(points: Tensor, k: int) -> Tensor:
    """Each point's distance to its k-th nearest neighbour among the others, (N,)."""
    # the nearest of all is the point itself
    return torch.cat([distances(part, points).kthvalue(k + 1).values for part in points.split(CHUNK)])


def _share_inside(x: Tensor, points: Tensor, k: int) -> float:
    """The share of x inside the set of points."""
    radii = _radii(points, k)
    inside = [(distances(part, points) <= radii).any(1) for part in x.split(CHUNK)]
    return float(torch.cat(inside).double().mean())
