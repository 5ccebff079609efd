"""Features of the time t that a network can tell apart."""

import math

import torch
from torch import Tensor, nn


class SinusoidalEmbedding(nn.Module):
    """[sin(w_k s t), cos(w_k s t)], w_k = 10000^(-k / (dim/2 - 1)), s = `scale`.

    After Vaswani et al. 2017, section 3.5; this exponent and order are those of the code of Ho et al. 2020.

    Shapes: t (B,) -> (B, dim). With t in [0, 1] and s = 1 nearly all features would be constant; s = 1000 spreads them.
    Raises ValueError for a dim that is odd or below 4.
    """

    frequencies: Tensor

    def __init__(self, dim: int, scale: float = 1000.0) -> None:
        super().__init__()
        if dim % 2 or dim < 4:
            raise ValueError(f"dim: expected an even number >= 4, got {dim}")
        self.dim, self.scale = dim, scale
        self.register_buffer("frequencies", self._exact(), persistent=False)

    def _exact(self, device: torch.device | None = None) -> Tensor:
        k = torch.arange(self.dim // 2, device=device, dtype=torch.float32)
        return self.scale * torch.exp(-math.log(10_000) * k / (self.dim // 2 - 1))

    def forward(self, t: Tensor) -> Tensor:
        """The features of each t. In a half-precision network the frequencies, up to `scale`, stay exact."""
        half = self.frequencies.dtype.itemsize < 4
        return _waves(t, self._exact(t.device) if half else self.frequencies).to(self.frequencies.dtype)


class RandomFourierEmbedding(nn.Module):
    """[sin(2 pi w_k t), cos(2 pi w_k t)], w_k ~ N(0, scale^2), drawn once from `seed`.

    Source: Tancik et al. 2020; for times Song et al. 2021, appendix H.2 (scale 16).
    Shapes: t (B,) -> (B, dim). The frequencies are stored with the weights and not trained. Raises ValueError for a dim
    that is odd or below 4.
    """

    frequencies: Tensor

    def __init__(self, dim: int, scale: float = 16.0, seed: int = 0) -> None:
        super().__init__()
        if dim % 2 or dim < 4:
            raise ValueError(f"dim: expected an even number >= 4, got {dim}")
        stream = torch.Generator().manual_seed(seed)
        self.register_buffer("frequencies", scale * torch.randn(dim // 2, generator=stream))

    def forward(self, t: Tensor) -> Tensor:
        """The features of each t."""
        return _waves(2 * math.pi * t, self.frequencies)


def _waves(t: Tensor, frequencies: Tensor) -> Tensor:
    """[sin(w_k t), cos(w_k t)] in w's dtype; half precision and integers are computed in float32. Shapes: (B, 2 n)."""
    dtype = torch.promote_types(torch.promote_types(t.dtype, frequencies.dtype), torch.float32)
    angles = t.to(dtype)[:, None] * frequencies.to(dtype)
    return torch.cat([angles.sin(), angles.cos()], dim=1).to(frequencies.dtype)
