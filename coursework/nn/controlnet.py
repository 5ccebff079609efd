"""A picture as a condition for a trained U-Net (lesson 19): a copy of its way down, joined by convolutions of zeros."""

import copy

import torch
from torch import Tensor, nn

from coursework._arguments import at_least
from coursework.nn.unet import UNet


class ControlNet(nn.Module):
    """A frozen U-Net whose way up also gets what a trainable copy of its way down makes of a hint.

    h_i + Z_i(c_i) in place of each h_i that the way up gets, c_i the copy's features of x with Z(hint) added after the
    stem; all Z are 1x1 convolutions of zeros (the first behind a 3x3 one): at first the U-Net is unchanged, whatever
    the hint. Only the copy and the Z are trained.

    Shapes: x (B, *image_shape), t 0-d or (B,), label as the U-Net's, hint (B, hint_channels, H, W) -> like x.
    Source: Zhang, Rao & Agrawala 2023, section 3.
    """

    def __init__(self, network: UNet, hint_channels: int = 1) -> None:
        super().__init__()
        widths, n_blocks = network.configuration["widths"], network.configuration["n_blocks"]
        at_least(hint_channels, 1, "hint_channels")
        self.network, self.hint_channels = copy.deepcopy(network).requires_grad_(False), hint_channels
        self.copy = copy.deepcopy(network).requires_grad_(True)
        for unused in ("up", "ascent", "norm", "last"):  # the copy goes down only
            delattr(self.copy, unused)
        self.hint = nn.Sequential(
            nn.Conv2d(hint_channels, widths[0], 3, padding=1), nn.SiLU(), zero_convolution(widths[0])
        )
        self.zeros = nn.ModuleList(zero_convolution(w) for w in widths for _ in range(n_blocks))
        self.middle = zero_convolution(widths[-1])

    def forward(self, x: Tensor, t: Tensor, label: Tensor | None = None, *, hint: Tensor) -> Tensor:
        """The U-Net at every image, its time, its label and its hint."""
        if hint.shape != (len(x), self.hint_channels, *x.shape[2:]):
            expected = (len(x), self.hint_channels, *x.shape[2:])
            raise ValueError(f"hint: expected shape {expected}, got {tuple(hint.shape)}")
        condition = self.network.condition(x, t, label)
        h, skips = self.network.encode(x, condition)
        c, told = self.copy.encode(x, self.copy.condition(x, t, label), self.hint(hint))
        skips = [skip + zero(value) for skip, zero, value in zip(skips, self.zeros, told, strict=True)]
        return self.network.decode(h + self.middle(c), skips, condition)

    def trained(self) -> list[nn.Parameter]:
        """The parameters that are trained: the copy's and the convolutions'."""
        return [p for p in self.parameters() if p.requires_grad]

    def told(self, hint: Tensor) -> nn.Module:
        """The network with its hint: told(x, t, label), for `ScoreModel`."""
        return Told(self, hint)


class Told(nn.Module):
    """A ControlNet and the hint that it is given at every call. Shapes: those of the ControlNet."""

    def __init__(self, control: ControlNet, hint: Tensor) -> None:
        super().__init__()
        self.control, self.hint = control, hint

    def forward(self, x: Tensor, t: Tensor, label: Tensor | None = None) -> Tensor:
        """The ControlNet at the hint."""
        return self.control(x, t, label, hint=self.hint)


def zero_convolution(channels: int) -> nn.Conv2d:
    """A 1x1 convolution whose weights and shifts are 0."""
    layer = nn.Conv2d(channels, channels, 1)
    for parameter in layer.parameters():
        nn.init.zeros_(parameter)
    return layer


def edges(images: Tensor) -> Tensor:
    """How fast the brightness changes at each pixel: |gradient| of Sobel's filters, borders repeated, in units of 1/8.

    A ramp of slope 1 has the value 1. Shapes: (B, C, H, W) -> (B, C, H, W). Source: Sobel & Feldman 1968.
    """
    padded = nn.functional.pad(images, (1, 1, 1, 1), mode="replicate")
    across = padded[..., 2:] - padded[..., :-2]
    down = padded[..., 2:, :] - padded[..., :-2, :]
    dx = across[..., :-2, :] + 2 * across[..., 1:-1, :] + across[..., 2:, :]
    dy = down[..., :-2] + 2 * down[..., 1:-1] + down[..., 2:]
    return torch.hypot(dx, dy) / 8
