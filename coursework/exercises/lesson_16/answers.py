"""Right answers to the exercises of lesson 16, evaluation."""

import torch
from torch import Tensor


def gaussian_frechet(mean_a: Tensor, covariance_a: Tensor, mean_b: Tensor, covariance_b: Tensor) -> Tensor:
    """|mu - mu'|^2 + tr(C + C' - 2 (C C')^(1/2)). Shapes: means (D,), covariances (D, D); ()."""
    gap = mean_a - mean_b
    overlap = torch.linalg.eigvals(covariance_a @ covariance_b).real.clamp(min=0).sqrt().sum()
    return gap @ gap + covariance_a.trace() + covariance_b.trace() - 2 * overlap


def frechet_floor(n_dims: int, n: int, m: int) -> Tensor:
    """What two samples of N(0, I) have on average, to first order in 1/n and 1/m. Shape: ()."""
    per_point = n_dims + n_dims * (n_dims + 1) / 4
    return torch.tensor(per_point * (1 / n + 1 / m), dtype=torch.float64)


def cubic(a: Tensor, b: Tensor) -> Tensor:
    """The kernel (a . b / D + 1)^3 of all pairs. Shapes: a (N, D), b (M, D); (N, M)."""
    return (a @ b.T / a.shape[1] + 1) ** 3


def pairs_mean(matrix: Tensor) -> Tensor:
    """The mean over pairs of different points. Shape: (N, N); ()."""
    n = len(matrix)
    return (matrix.sum() - matrix.trace()) / (n * (n - 1))


def kernel_distance(real: Tensor, generated: Tensor) -> Tensor:
    """E k(x, x') + E k(y, y') - 2 E k(x, y), unbiased. Shapes: (N, D), (M, D); ()."""
    return pairs_mean(cubic(real, real)) + pairs_mean(cubic(generated, generated)) - 2 * cubic(real, generated).mean()


def inside(x: Tensor, points: Tensor, k: int) -> Tensor:
    """The share of x within the k-nearest-neighbour balls of the points. Shapes: (N, D), (M, D); ()."""
    radii = torch.cdist(points, points).sort(1).values[:, k]
    near = torch.cdist(x, points) <= radii
    return near.any(1).to(x.dtype).mean()


def precision_recall(real: Tensor, generated: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """The share of generated points in the real set, and of real ones in the generated set. Shapes: (N, D), (M, D)."""
    return inside(generated, real, k), inside(real, generated, k)


def expected_coverage(n_real: int, n_generated: int, k: int) -> Tensor:
    """The chance that one of a real point's k nearest neighbours among all others is a generated one. Shape: ()."""
    gone = torch.arange(k, dtype=torch.float64)
    next_is_real = (n_real - 1 - gone) / (n_real - 1 + n_generated - gone)
    return 1 - next_is_real.prod()


def best_accuracy(mean_a: Tensor, mean_b: Tensor, covariance: Tensor) -> Tensor:
    """The best classifier's accuracy on two Gaussians of one covariance. Shapes: (D,), (D,), (D, D); ()."""
    gap = mean_a - mean_b
    distance = (gap @ torch.linalg.solve(covariance, gap)).sqrt()
    return torch.special.ndtr(distance / 2)


def paired_difference(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    """The mean of a - b and its standard error. Shapes: (R,), (R,); two ()."""
    gaps = a - b
    return gaps.mean(), gaps.std() / len(gaps) ** 0.5
