"""Maximum mean discrepancies: how far two laws' means of a kernel's features are apart (lesson 16).

MMD^2 = E k(x, x') + E k(y, y') - 2 E k(x, y), all points independent. Estimates are unbiased, so they may be negative.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from coursework._arguments import at_least, positive_number
from coursework.metrics.checks import two_samples, two_sets_of_features
from coursework.metrics.distances import CHUNK, distances

Kernel = Callable[[Tensor, Tensor], Tensor]


@torch.no_grad()
def kernel_distance(real: Tensor, generated: Tensor, *, degree: int = 3) -> float:
    """MMD^2 of two sets of features with the kernel (x.y / F + 1)^degree: KID. Unbiased, so sizes need not be equal.

    It sees the laws' moments up to `degree`, and nothing else. Of all pairs, where the paper averages over subsets; in
    float64. Shapes: (N, F), (M, F), N and M at least 2. Source: Binkowski et al. 2018.
    """
    degree = at_least(degree, 1, "degree")
    real, generated = (x.double() for x in two_sets_of_features(real, generated))
    return float(_mmd(lambda x, y: (x @ y.mT / x.shape[1] + 1) ** degree, real, generated))


def mmd(x: Tensor, y: Tensor, *, bandwidth: float | None = None) -> Tensor:
    """MMD^2 with the Gaussian kernel exp(-|x - y|^2 / (2 bandwidth^2)): 0 if and only if both laws are equal; 0-d.

    bandwidth, in the unit of x: by default the median distance of all points, which is usual but not always right; it
    is chosen on the same points, so the estimate is then not quite unbiased. Shapes: x (N, D), y (M, D), N and M at
    least 2. Source: Gretton et al. 2012, lemma 6.
    """
    x, y = two_samples(x, y)
    if bandwidth is None:
        bandwidth = float(torch.pdist(torch.cat([x, y]).detach()).median())
        if bandwidth == 0:
            raise ValueError("bandwidth: half of the distances are 0; give one")
    scale = positive_number(bandwidth, "bandwidth")
    return _mmd(lambda x, y: torch.exp(-0.5 * (distances(x, y) / scale) ** 2), x, y)


def _mmd(kernel: Kernel, x: Tensor, y: Tensor) -> Tensor:
    across = sum(kernel(part, y).sum() for part in x.split(CHUNK)) / (len(x) * len(y))
    return _within(kernel, x) + _within(kernel, y) - 2 * across


def _within(kernel: Kernel, x: Tensor) -> Tensor:
    """The mean of k(x, x') over pairs of different points."""
    total = x.new_zeros(())
    for i, part in enumerate(x.split(CHUNK)):
        values = kernel(part, x)
        total = total + values.sum() - values.diagonal(i * CHUNK).sum()
    return total / (len(x) * (len(x) - 1))
