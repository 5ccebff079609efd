"""An image classifier, whose features also compare sets of images (lesson 06)."""

from itertools import pairwise

from torch import Tensor, nn
from torch.nn import functional as F

from coursework._arguments import at_least
from coursework.nn.blocks import GROUPS


class Classifier(nn.Module):
    """Class scores of an image: convolutions at len(widths) resolutions, the mean over the pixels, one linear layer.

    Shapes: x (B, C, H, W) -> logits (B, n_classes); `features(x)` is the mean over the pixels, (B, widths[-1]).
    All arguments are kept in `configuration`. Raises ValueError for widths that 8 does not divide.
    """

    def __init__(self, n_classes: int, channels: int = 1, *, widths: tuple[int, ...] = (32, 64, 128)) -> None:
        super().__init__()
        at_least(n_classes, 2, "n_classes")
        at_least(channels, 1, "channels")
        if not widths or any(w < 1 or w % (2 * GROUPS) for w in widths):
            raise ValueError(f"widths: expected positive multiples of {2 * GROUPS}, got {widths}")
        self.configuration = {"n_classes": n_classes, "channels": channels, "widths": tuple(widths)}
        self.stem = nn.Conv2d(channels, widths[0], 3, padding=1)
        self.stages = nn.ModuleList(_stage(w, w, 1) for w in widths)
        self.down = nn.ModuleList(_stage(fine, coarse, 2) for fine, coarse in pairwise(widths))
        self.norm = nn.GroupNorm(GROUPS, widths[-1])
        self.head = nn.Linear(widths[-1], n_classes)

    def features(self, x: Tensor) -> Tensor:
        """What the last layer sees of each image."""
        h = self.stages[0](self.stem(x))
        for down, stage in zip(self.down, self.stages[1:], strict=True):
            h = stage(down(h))
        return F.silu(self.norm(h)).mean((2, 3))

    def forward(self, x: Tensor) -> Tensor:
        """The class scores, before the softmax."""
        return self.head(self.features(x))


def _stage(channels: int, out_channels: int, stride: int) -> nn.Sequential:
    """Norm, SiLU, convolution."""
    return nn.Sequential(
        nn.GroupNorm(GROUPS, channels), nn.SiLU(), nn.Conv2d(channels, out_channels, 3, stride=stride, padding=1)
    )
