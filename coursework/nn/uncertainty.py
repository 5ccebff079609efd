"""How uncertain a loss is at a noise level: a small function that is trained along with the network (lesson 15)."""

import torch
from torch import Tensor, nn

from coursework.nn.embeddings import RandomFourierEmbedding


class Uncertainty(nn.Module):
    """u(c_noise) = b + w . features(c_noise), c_noise = ln(sigma / alpha) / 4; random Fourier features of scale 1.

    w and b start at 0, so at first every level has weight e^-u = 1. Shapes: c_noise (B,) -> (B,). In float32 under
    autocast too. Source: Karras et al. 2024 (EDM2).
    """

    def __init__(self, features: int = 64) -> None:
        super().__init__()
        self.embed = RandomFourierEmbedding(features, scale=1.0)
        self.weight, self.bias = nn.Parameter(torch.zeros(features)), nn.Parameter(torch.zeros(()))

    def forward(self, c_noise: Tensor) -> Tensor:
        """u at each level."""
        return self.bias + (self.embed(c_noise) * self.weight).sum(1)
