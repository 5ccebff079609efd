"""A small variational autoencoder for images (lesson 19): an image to a map of few numbers, and back."""

from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from coursework._arguments import at_least
from coursework.nn.blocks import GROUPS


class Block(nn.Module):
    """h + conv(SiLU(norm(conv(SiLU(norm(h)))))): a residual block that knows no time. Shapes: (B, C, H, W) twice."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.first = nn.Sequential(
            nn.GroupNorm(GROUPS, channels), nn.SiLU(), nn.Conv2d(channels, channels, 3, padding=1)
        )
        self.second = nn.Sequential(
            nn.GroupNorm(GROUPS, channels), nn.SiLU(), nn.Conv2d(channels, channels, 3, padding=1)
        )

    def forward(self, h: Tensor) -> Tensor:
        """h and what the block adds to it."""
        return h + self.second(self.first(h))


class Autoencoder(nn.Module):
    """An encoder x -> (mean, log variance) of a latent map, and a decoder z -> x_hat: a variational autoencoder.

    Each of len(widths) stages halves the image: (channels, S, S) -> (latent_channels, S / 2^k, S / 2^k). The decoder
    doubles by the nearest neighbour. `scale`, (latent_channels,), is stored with the weights and not trained: the model
    of the latents sees `to_latent(x)` = scale * mean, and `to_image(z)` decodes z / scale (`latents.scale_factor`).
    All arguments are kept in `configuration`.

    Shapes: x (B, channels, S, S) -> latents (B, *latent_shape). Raises ValueError for a size that 2^k does not divide,
    and for widths that 8 does not divide. Source: Kingma & Welling 2014; for latents Rombach et al. 2022.
    """

    scale: Tensor

    def __init__(
        self, image_size: int, channels: int = 1, *, widths: tuple[int, ...] = (32, 64), latent_channels: int = 4
    ) -> None:
        super().__init__()
        for value, name in ((image_size, "image_size"), (channels, "channels"), (latent_channels, "latent_channels")):
            at_least(value, 1, name)
        if not widths or any(w < 1 or w % (2 * GROUPS) for w in widths):
            raise ValueError(f"widths: expected positive multiples of {2 * GROUPS}, got {widths}")
        size, rest = divmod(image_size, 2 ** len(widths))
        if rest or not size:
            raise ValueError(f"image_size: expected a multiple of 2^{len(widths)}, got {image_size}")
        self.configuration = {
            "image_size": image_size,
            "channels": channels,
            "widths": tuple(widths),
            "latent_channels": latent_channels,
        }
        self.image_shape = (channels, image_size, image_size)
        self.latent_shape = (latent_channels, size, size)
        steps = list(pairwise(widths))
        self.stem = nn.Conv2d(channels, widths[0], 4, stride=2, padding=1)
        self.descent = nn.ModuleList(Block(w) for w in widths)
        self.down = nn.ModuleList(nn.Conv2d(fine, coarse, 4, stride=2, padding=1) for fine, coarse in steps)
        self.code = _head(widths[-1], 2 * latent_channels)
        self.enter = nn.Conv2d(latent_channels, widths[-1], 3, padding=1)
        self.ascent = nn.ModuleList(Block(w) for w in widths)
        self.up = nn.ModuleList(nn.Conv2d(coarse, fine, 3, padding=1) for fine, coarse in steps)
        self.widen = nn.Conv2d(widths[0], 2 * GROUPS, 3, padding=1)
        self.last = _head(2 * GROUPS, channels)
        self.register_buffer("scale", torch.ones(latent_channels))

    def encode(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and log variance of q(z | x), each (B, *latent_shape)."""
        if x.shape[1:] != self.image_shape:
            raise ValueError(f"x: expected shape (B, {', '.join(map(str, self.image_shape))}), got {tuple(x.shape)}")
        h = self.descent[0](self.stem(x))
        for down, block in zip(self.down, self.descent[1:], strict=True):
            h = block(down(h))
        mean, log_variance = self.code(h).chunk(2, dim=1)
        return mean, log_variance.clamp(-20.0, 10.0)  # exp stays finite, whatever a weight does

    def decode(self, z: Tensor) -> Tensor:
        """The image of each latent."""
        if z.shape[1:] != self.latent_shape:
            raise ValueError(f"z: expected shape (B, {', '.join(map(str, self.latent_shape))}), got {tuple(z.shape)}")
        h = self.ascent[-1](self.enter(z))
        for i in reversed(range(len(self.up))):
            h = self.ascent[i](self.up[i](_double(h)))
        return self.last(self.widen(_double(h)))

    def forward(self, x: Tensor, noise: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """x_hat, mean and log variance: what the objective needs, z = mean + exp(log variance / 2) noise."""
        mean, log_variance = self.encode(x)
        return self.decode(mean + torch.exp(0.5 * log_variance) * noise), mean, log_variance

    def to_latent(self, x: Tensor) -> Tensor:
        """scale * mean of q(z | x)."""
        return self.scale[:, None, None] * self.encode(x)[0]

    def to_image(self, z: Tensor) -> Tensor:
        """The image of a scaled latent."""
        return self.decode(z / self.scale[:, None, None])


def _double(h: Tensor) -> Tensor:
    return F.interpolate(h, scale_factor=2.0)


def _head(channels: int, out_channels: int) -> nn.Sequential:
    """Norm, SiLU, convolution."""
    return nn.Sequential(nn.GroupNorm(GROUPS, channels), nn.SiLU(), nn.Conv2d(channels, out_channels, 3, padding=1))
