"""A small convolutional denoiser for images (lesson 04): a U-Net of residual blocks that know the time."""

from itertools import pairwise

from torch import Tensor, nn
from torch.nn import functional as F

from coursework._arguments import at_least
from coursework.nn.blocks import GROUPS, ResidualBlock
from coursework.nn.embeddings import SinusoidalEmbedding


class Denoiser(nn.Module):
    """A function of an image and its time with the image's shape, for example the noise in it.

    A U-Net (Ronneberger et al. 2015; with time, Ho et al. 2020) of len(widths) resolutions, each half the one before
    it, any odd size included. What a resolution holds on the way down is added on the way up. The last layer starts at
    zero, so an untrained denoiser answers 0.

    Shapes: x (B, C, H, W), t 0-d or (B,) -> (B, C, H, W). Raises ValueError for widths that 8 does not divide.
    """

    def __init__(self, channels: int = 1, widths: tuple[int, ...] = (16, 32, 64), time_features: int = 64) -> None:
        super().__init__()
        at_least(channels, 1, "channels")
        if not widths or any(w < 1 or w % (2 * GROUPS) for w in widths):
            raise ValueError(f"widths: expected positive multiples of {2 * GROUPS}, got {widths}")
        steps = list(pairwise(widths))
        self.embed = nn.Sequential(
            SinusoidalEmbedding(time_features), nn.Linear(time_features, time_features), nn.SiLU()
        )
        self.stem = nn.Conv2d(channels, widths[0], 3, padding=1)
        self.descent = nn.ModuleList(ResidualBlock(w, time_features) for w in widths)
        self.down = nn.ModuleList(nn.Conv2d(fine, coarse, 3, stride=2, padding=1) for fine, coarse in steps)
        self.up = nn.ModuleList(nn.Conv2d(coarse, fine, 1) for fine, coarse in steps)
        self.ascent = nn.ModuleList(ResidualBlock(w, time_features) for w in widths)
        self.norm = nn.GroupNorm(GROUPS, widths[0])
        self.last = nn.Conv2d(widths[0], channels, 3, padding=1)
        for parameter in self.last.parameters():
            nn.init.zeros_(parameter)

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        """The network at every image and its time."""
        time = self.embed(t.expand(len(x)))
        h = self.stem(x)
        skips = []
        for i, block in enumerate(self.descent):
            h = block(h if i == 0 else self.down[i - 1](h), time)
            skips.append(h)
        h = self.ascent[-1](h, time)
        for i in reversed(range(len(self.up))):
            h = F.interpolate(self.up[i](h), size=skips[i].shape[-2:])  # to the skip's size: 7 -> 4 -> 7 works too
            h = self.ascent[i](skips[i] + h, time)
        return self.last(F.silu(self.norm(h)))
