"""Euclidean distances that are right for equal and nearly equal points: copies are what metrics look for."""

import torch
from torch import Tensor

CHUNK = 1000  # points whose distances to all others are held at a time
CANDIDATES = 16


def distances(x: Tensor, y: Tensor) -> Tensor:
    """|x_i - y_j|, (N, M), without the shortcut through |x|^2 + |y|^2 - 2 x.y that spoils small distances.

    Shapes: x (N, D), y (M, D).
    """
    return torch.cdist(x, y, compute_mode="donot_use_mm_for_euclid_dist")


def nearest(x: Tensor, y: Tensor) -> Tensor:
    """min_j |x_i - y_j|, (N,). The shortcut chooses candidates among many points, their distances are computed without.

    Where more points than those are within its rounding error, all distances are computed. Shapes: x (N, D), y (M, D),
    M at least 1.
    """
    centre = y.mean(0)
    return torch.cat([_nearest(part, y, centre) for part in x.split(CHUNK)])


def _nearest(x: Tensor, y: Tensor, centre: Tensor) -> Tensor:
    near_x, near_y = x - centre, y - centre
    rough = torch.cdist(near_x, near_y, compute_mode="use_mm_for_euclid_dist")
    rough, found = rough.topk(min(CANDIDATES, len(y)), dim=1, largest=False)
    best = torch.linalg.vector_norm(x[:, None] - y[found], dim=2).min(1).values
    rounding = 32 * torch.finfo(x.dtype).eps * (near_x.square().sum(1) + near_y.square().sum(1).max())
    doubtful = (rough[:, -1] ** 2 <= best**2 + rounding) & (len(y) > CANDIDATES)
    best[doubtful] = distances(x[doubtful], y).min(1).values if bool(doubtful.any()) else best[doubtful]
    return best
