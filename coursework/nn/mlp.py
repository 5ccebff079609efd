"""Multilayer perceptrons for points in R^D."""

from itertools import pairwise

import torch
from torch import Tensor, nn

from coursework._arguments import at_least
from coursework.nn.embeddings import SinusoidalEmbedding


def _layers(n_in: int, hidden: int, depth: int, n_out: int) -> nn.Sequential:
    """`depth` hidden layers with SiLU, then a linear one. SiLU is smooth: score matching differentiates twice."""
    at_least(hidden, 1, "hidden")
    at_least(depth, 1, "depth")
    sizes = [n_in] + [hidden] * depth
    hidden_layers = [layer for a, b in pairwise(sizes) for layer in (nn.Linear(a, b), nn.SiLU())]
    return nn.Sequential(*hidden_layers, nn.Linear(hidden, n_out))


class MLP(nn.Module):
    """A smooth function of x alone. Shapes: (B, D) -> (B, D)."""

    def __init__(self, dim: int, hidden: int = 64, depth: int = 3) -> None:
        super().__init__()
        self.layers = _layers(dim, hidden, depth, dim)

    def forward(self, x: Tensor) -> Tensor:
        """The network at every row of x."""
        return self.layers(x)


class TimeMLP(nn.Module):
    """A smooth function of x and t, t through sinusoidal features. Shapes: x (B, D), t 0-d or (B,) -> (B, D)."""

    def __init__(self, dim: int, hidden: int = 128, depth: int = 3, time_features: int = 32) -> None:
        super().__init__()
        self.embed = SinusoidalEmbedding(time_features)
        self.layers = _layers(dim + time_features, hidden, depth, dim)

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        """The network at every row of x and its time."""
        return self.layers(torch.cat([x, self.embed(t.expand(len(x)))], dim=1))
