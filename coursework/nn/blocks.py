"""What image networks are made of: modulation by the time, residual blocks, self-attention."""

from torch import Tensor, nn
from torch.nn import functional as F

GROUPS = 4  # of at least two channels each: a group of one would forget its channel's mean


class FiLM(nn.Module):
    """Group norm, then scale and shift of every channel by the time: (1 + a(t)) norm(h) + b(t) (Perez et al. 2018).

    After the norm, not before it: a group norm would take out again what a group's channels share. Dhariwal & Nichol
    2021 call the same thing adaptive group normalisation. Shapes: h (B, C, H, W), time (B, F) -> (B, C, H, W).
    """

    def __init__(self, channels: int, time_features: int) -> None:
        super().__init__()
        self.norm = nn.GroupNorm(GROUPS, channels, affine=False)
        self.scale_and_shift = nn.Linear(time_features, 2 * channels)

    def forward(self, h: Tensor, time: Tensor) -> Tensor:
        """The modulated features."""
        scale, shift = self.scale_and_shift(time)[:, :, None, None].chunk(2, dim=1)
        return (1 + scale) * self.norm(h) + shift


class ResidualBlock(nn.Module):
    """P h + conv(SiLU(FiLM(conv(SiLU(norm(h)))))), P a 1x1 convolution where the widths differ, else the identity.

    Shapes: h (B, C, H, W), time (B, F) -> (B, C_out, H, W); C_out = C by default.
    """

    def __init__(self, channels: int, time_features: int, out_channels: int | None = None) -> None:
        super().__init__()
        out = channels if out_channels is None else out_channels
        self.norm = nn.GroupNorm(GROUPS, channels)
        self.first = nn.Conv2d(channels, out, 3, padding=1, bias=False)  # FiLM shifts every channel anyway
        self.film = FiLM(out, time_features)
        self.second = nn.Conv2d(out, out, 3, padding=1)
        self.project = nn.Identity() if out == channels else nn.Conv2d(channels, out, 1, bias=False)

    def forward(self, h: Tensor, time: Tensor) -> Tensor:
        """h and what the block adds to it."""
        change = self.first(F.silu(self.norm(h)))
        return self.project(h) + self.second(F.silu(self.film(change, time)))


class SelfAttention(nn.Module):
    """h + W softmax(q k^T / sqrt(d)) v: every pixel looks at every other, in `heads` independent ways.

    q, k, v are linear in norm(h); d = C / heads. W starts at zero: at first nothing is added.
    Shapes: (B, C, H, W) -> (B, C, H, W). Source: Vaswani et al. 2017, eq. 1; in a U-Net, Ho et al. 2020.
    """

    def __init__(self, channels: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm = nn.GroupNorm(GROUPS, channels)
        self.query_key_value = nn.Conv2d(channels, 3 * channels, 1)
        self.out = nn.Conv2d(channels, channels, 1)
        for parameter in self.out.parameters():
            nn.init.zeros_(parameter)

    def forward(self, h: Tensor) -> Tensor:
        """h and what its pixels tell one another."""
        batch, channels, height, width = h.shape
        q, k, v = (
            self.query_key_value(self.norm(h))
            .reshape(batch, 3, self.heads, channels // self.heads, height * width)
            .transpose(-1, -2)  # (B, 3, heads, pixels, d)
            .unbind(1)
        )
        seen = F.scaled_dot_product_attention(q, k, v)
        return h + self.out(seen.transpose(-1, -2).reshape(h.shape))
