"""The U-Net of the image models (lesson 06): time, label, and attention at chosen resolutions."""

from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from coursework._arguments import at_least, one_of
from coursework.nn.blocks import GROUPS, ResidualBlock, SelfAttention
from coursework.nn.embeddings import RandomFourierEmbedding, SinusoidalEmbedding
from coursework.nn.labels import label_features, label_table

EMBEDDINGS = {"sinusoidal": SinusoidalEmbedding, "fourier": RandomFourierEmbedding}


class Level(nn.Module):
    """One residual block and, where asked for, self-attention after it. Shapes: (B, C, H, W) -> (B, C_out, H, W)."""

    def __init__(self, channels: int, out_channels: int, features: int, heads: int | None) -> None:
        super().__init__()
        self.block = ResidualBlock(channels, features, out_channels)
        self.attention = nn.Identity() if heads is None else SelfAttention(out_channels, heads)

    def forward(self, h: Tensor, condition: Tensor) -> Tensor:
        """The features that the next block gets."""
        return self.attention(self.block(h, condition))


class UNet(nn.Module):
    """A function of a noisy image, its time and its label with the image's shape, for example the noise in it.

    len(widths) resolutions, each half the one before it, rounded up: 28 -> 14 -> 7 -> 4. At each, `n_blocks` residual
    blocks on the way down and as many on the way up, and one in the middle, at the coarsest; what a block gives on the
    way down is concatenated to what its partner gets on the way up. Going up, a map is enlarged to its partner's size,
    so that odd sizes need no padding. Self-attention of `heads` heads follows the blocks at the resolutions in
    `attention_at`, counted in pixels. The time, as sinusoidal or random Fourier features, and the label, as a vector of
    its own, go through FiLM into every block; label -1, or None, is the null label with a vector of its own too. The
    last layer starts at zero, so an untrained network answers 0. With two_times there is a second time s: its features
    are added to the first one's, by a layer that starts at zero too. All arguments are kept in `configuration`:
    UNet(**network.configuration) is a network like it.

    Shapes: x (B, channels, image_size, image_size), t and s 0-d or (B,), label integers, one or (B,), in
    [-1, n_classes) -> like x.
    Raises ValueError for widths that 8 or `heads` does not divide, for a resolution in `attention_at` that does not
    occur, for other shapes, for a label that the network has no vector for, and for s without two_times, or none with.
    Source: Ronneberger et al. 2015; with time Ho et al. 2020; FiLM and attention at resolutions Dhariwal & Nichol 2021.
    """

    def __init__(
        self,
        image_size: int,
        channels: int = 1,
        *,
        widths: tuple[int, ...] = (32, 64, 96),
        n_blocks: int = 1,
        attention_at: tuple[int, ...] = (7,),
        heads: int = 4,
        n_classes: int | None = None,
        embedding: str = "sinusoidal",
        features: int = 128,
        two_times: bool = False,
    ) -> None:
        super().__init__()
        for value, name in ((image_size, "image_size"), (channels, "channels"), (n_blocks, "n_blocks")):
            at_least(value, 1, name)
        at_least(1 if n_classes is None else n_classes, 1, "n_classes")
        at_least(heads, 1, "heads")
        one_of(embedding, tuple(EMBEDDINGS), "embedding")
        if not widths or any(w < 1 or w % (2 * GROUPS) or w % heads for w in widths):
            raise ValueError(f"widths: expected positive multiples of {2 * GROUPS} and of heads={heads}, got {widths}")
        sizes = resolutions(image_size, len(widths))
        if set(attention_at) - set(sizes):
            raise ValueError(f"attention_at: expected resolutions among {sizes}, got {tuple(attention_at)}")
        self.configuration = {
            "image_size": image_size,
            "channels": channels,
            "widths": tuple(widths),
            "n_blocks": n_blocks,
            "attention_at": tuple(attention_at),
            "heads": heads,
            "n_classes": n_classes,
            "embedding": embedding,
            "features": features,
            "two_times": two_times,
        }
        self.image_shape, self.n_classes = (channels, image_size, image_size), n_classes
        self.embed = _embedding(embedding, features)
        self.label = label_table(n_classes, features)
        at = [heads if size in attention_at else None for size in sizes]
        self.stem = nn.Conv2d(channels, widths[0], 3, padding=1)
        self.descent = nn.ModuleList(
            nn.ModuleList(Level(w, w, features, h) for _ in range(n_blocks)) for w, h in zip(widths, at, strict=True)
        )
        self.down = nn.ModuleList(nn.Conv2d(fine, coarse, 3, stride=2, padding=1) for fine, coarse in pairwise(widths))
        self.middle = Level(widths[-1], widths[-1], features, at[-1])
        self.up = nn.ModuleList(nn.Conv2d(coarse, fine, 1) for fine, coarse in pairwise(widths))
        self.ascent = nn.ModuleList(
            nn.ModuleList(Level(2 * w, w, features, h) for _ in range(n_blocks))
            for w, h in zip(widths, at, strict=True)
        )
        self.norm = nn.GroupNorm(GROUPS, widths[0])
        self.last = nn.Conv2d(widths[0], channels, 3, padding=1)
        for parameter in self.last.parameters():
            nn.init.zeros_(parameter)
        self.embed_second = _embedding(embedding, features) if two_times else None
        if self.embed_second is not None:
            for parameter in self.embed_second[-1].parameters():
                nn.init.zeros_(parameter)

    def forward(self, x: Tensor, t: Tensor, label: Tensor | None = None, s: Tensor | None = None) -> Tensor:
        """The network at every image, its time, its label and its second time."""
        if x.shape[1:] != self.image_shape:
            raise ValueError(f"x: expected shape (B, {', '.join(map(str, self.image_shape))}), got {tuple(x.shape)}")
        condition = self.condition(x, t, label, s)
        return self.decode(*self.encode(x, condition), condition)

    def condition(self, x: Tensor, t: Tensor, label: Tensor | None = None, s: Tensor | None = None) -> Any:
        """What every block is told of time, label and second time, (B, features)."""
        time = self.embed(t.expand(len(x))) + self._second_features(s, x)
        return F.silu(time + label_features(self.label, label, x))

    def encode(self, x: Tensor, condition: Any, more: Tensor | float = 0.0) -> tuple[Tensor, list[Tensor]]:
        """The middle's features, and what the blocks on the way down give; `more` is added to the stem's."""
        h, skips = self.stem(x) + more, []
        for i, levels in enumerate(self.descent):
            h = h if i == 0 else self.down[i - 1](h)
            for level in levels.children():
                h = level(h, condition)
                skips.append(h)
        return self.middle(h, condition), skips

    def decode(self, h: Tensor, skips: list[Tensor], condition: Any) -> Tensor:
        """The way up from what `encode` gave."""
        left = list(skips)
        for i in reversed(range(len(self.ascent))):
            for level in self.ascent[i].children():
                h = level(torch.cat([h, left.pop()], dim=1), condition)
            if i > 0:
                h = F.interpolate(self.up[i - 1](h), size=left[-1].shape[-2:])
        return self.last(F.silu(self.norm(h)))

    def _second_features(self, s: Tensor | None, x: Tensor) -> Tensor | float:
        """What the second time adds to the first one's features, (B, F)."""
        if (self.embed_second is None) != (s is None):
            made = "without" if self.embed_second is None else "with"
            raise ValueError(f"s: this network was made {made} a second time (two_times={s is None})")
        return 0.0 if self.embed_second is None or s is None else self.embed_second(s.expand(len(x)))


def _embedding(kind: str, features: int) -> nn.Sequential:
    """A time's features, two layers deep. Shapes: (B,) -> (B, features)."""
    return nn.Sequential(
        EMBEDDINGS[kind](features), nn.Linear(features, features), nn.SiLU(), nn.Linear(features, features)
    )


def resolutions(image_size: int, n_levels: int) -> list[int]:
    """The resolutions of a U-Net: each half the one before it, rounded up."""
    sizes = [image_size]
    for _ in range(n_levels - 1):
        sizes.append((sizes[-1] + 1) // 2)
    return sizes
