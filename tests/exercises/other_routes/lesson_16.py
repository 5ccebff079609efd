"""Other right answers to the exercises of lesson 16."""

from fractions import Fraction
from math import comb

import numpy
import torch
from scipy.linalg import sqrtm
from scipy.stats import norm, sem


def frechet_by_roots(mean_a, covariance_a, mean_b, covariance_b):
    """C^(1/2) C' C^(1/2) is symmetric; its root's trace is the nuclear norm of C^(1/2) C'^(1/2)."""

    def root(matrix):
        values, vectors = torch.linalg.eigh(matrix)
        return vectors @ torch.diag(values.sqrt()) @ vectors.T

    overlap = torch.linalg.matrix_norm(root(covariance_a) @ root(covariance_b), ord="nuc")
    return (mean_a - mean_b).square().sum() + (covariance_a + covariance_b).trace() - 2 * overlap


def frechet_by_scipy(mean_a, covariance_a, mean_b, covariance_b):
    """scipy's root of the product."""
    root = torch.from_numpy(numpy.real(sqrtm((covariance_a @ covariance_b).numpy())))
    return torch.dist(mean_a, mean_b) ** 2 + torch.trace(covariance_a + covariance_b - 2 * root)


def floor_by_entries(n_dims, n, m):
    """Entry by entry: the means, then the covariances with twice the variance on the diagonal."""
    variances = torch.ones(n_dims, n_dims, dtype=torch.float64) + torch.eye(n_dims, dtype=torch.float64)
    return (n_dims + variances.sum() / 4) * (n + m) / (n * m)


def floor_as_a_number(n_dims, n, m):
    return float(Fraction(n_dims * (n_dims + 5), 4) * (Fraction(1, n) + Fraction(1, m)))


def kernel_by_pairs(real, generated):
    """Sums over pairs in loops."""

    def mean(a, b, same):
        chosen = [(x, y) for i, x in enumerate(a) for j, y in enumerate(b) if not (same and i == j)]
        return sum((1 + x @ y / len(x)) ** 3 for x, y in chosen) / len(chosen)

    return mean(real, real, True) + mean(generated, generated, True) - 2 * mean(real, generated, False)


def neighbours_by_loops(real, generated, k):
    """Point by point, with the k-th smallest distance to the others."""

    def share(x, points):
        radii = []
        for i, point in enumerate(points):
            others = torch.cat([points[:i], points[i + 1 :]])
            radii.append((others - point).norm(dim=1).kthvalue(k).values)
        inside = [any((p - c).norm() <= r for c, r in zip(points, radii, strict=True)) for p in x]
        return torch.tensor(inside).double().mean()

    return share(generated, real), share(real, generated)


def coverage_by_counting(n_real, n_generated, k):
    """Which k of all others are nearest: those choices that are all real, out of all."""
    return 1 - comb(n_real - 1, k) / comb(n_real - 1 + n_generated, k)


def coverage_by_logarithms(n_real, n_generated, k):
    """The falling factorials as gamma functions."""
    a, b = (torch.tensor(float(n), dtype=torch.float64) for n in (n_real, n_real + n_generated))
    return -torch.expm1(a.lgamma() - (a - k).lgamma() - b.lgamma() + (b - k).lgamma())


def accuracy_by_whitening(mean_a, mean_b, covariance):
    """After whitening the distance is Euclidean."""
    factor = torch.linalg.cholesky(covariance)
    gap = torch.linalg.solve_triangular(factor, (mean_a - mean_b)[:, None], upper=False)
    return (1 + torch.erf(gap.norm() / 8**0.5)) / 2


def accuracy_by_scipy(mean_a, mean_b, covariance):
    """The discriminant's mean over its standard deviation, under one of the laws."""
    w = torch.linalg.inv(covariance) @ (mean_a - mean_b)
    margin = w @ (mean_a - (mean_a + mean_b) / 2)
    return float(norm.cdf(float(margin / (w @ covariance @ w).sqrt())))


def paired_by_sums(a, b):
    """Sums of squares."""
    n, gaps = len(a), a - b
    square = (gaps @ gaps - gaps.sum() ** 2 / n) / (n - 1)
    return a.mean() - b.mean(), (square / n).sqrt()


def paired_by_scipy(a, b):
    gaps = (a - b).numpy()
    return float(gaps.mean()), float(sem(gaps))


ROUTES = {
    "16.1": [frechet_by_roots, frechet_by_scipy],
    "16.2": [floor_by_entries, floor_as_a_number],
    "16.3": [kernel_by_pairs],
    "16.4": [neighbours_by_loops],
    "16.5": [coverage_by_counting, coverage_by_logarithms],
    "16.6": [accuracy_by_whitening, accuracy_by_scipy],
    "16.7": [paired_by_sums, paired_by_scipy],
}
