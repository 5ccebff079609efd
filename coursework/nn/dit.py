"""A diffusion transformer (lesson 19): an image as a row of patches, blocks that start as the identity."""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from coursework._arguments import at_least
from coursework.latents import patchify, unpatchify
from coursework.nn.embeddings import SinusoidalEmbedding
from coursework.nn.labels import label_features, label_table


class TransformerBlock(nn.Module):
    """h + g_1 attention(m_1(h)), then h + g_2 MLP(m_2(h)), m_i(h) = (1 + a_i) norm(h) + b_i.

    a, b, g (the gate), each of F numbers for each half, are linear in the condition, and start at zero (adaLN-Zero): at
    first a block is the identity. Shapes: h (B, N, F), condition (B, F) -> (B, N, F). Source: Peebles & Xie 2023,
    section 3.2.
    """

    def __init__(self, features: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm = nn.LayerNorm(features, elementwise_affine=False)
        self.query_key_value = nn.Linear(features, 3 * features)
        self.out = nn.Linear(features, features)
        self.mlp = nn.Sequential(
            nn.Linear(features, 4 * features), nn.GELU(approximate="tanh"), nn.Linear(4 * features, features)
        )
        self.modulation = nn.Linear(features, 6 * features)
        for parameter in self.modulation.parameters():
            nn.init.zeros_(parameter)

    def forward(self, h: Tensor, condition: Tensor) -> Tensor:
        """The tokens after both halves."""
        a_1, b_1, g_1, a_2, b_2, g_2 = self.modulation(F.silu(condition))[:, None].chunk(6, dim=-1)
        h = h + g_1 * self.attention((1 + a_1) * self.norm(h) + b_1)
        return h + g_2 * self.mlp((1 + a_2) * self.norm(h) + b_2)

    def attention(self, h: Tensor) -> Tensor:
        """Every token looks at every other, in `heads` independent ways."""
        q, k, v = self.query_key_value(h).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        return self.out(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))


class DiT(nn.Module):
    """A function of a noisy image (or latent), its time and its label with the image's shape.

    Patches of patch_size x patch_size pixels become tokens of `features` numbers, each with a vector for its place
    (sines and cosines of row and column, not trained); `depth` transformer blocks follow, and a linear layer that gives
    each token its patch. Time and label go into every block by adaLN-Zero; label -1, or None, is the null label with a
    vector of its own. The last layer starts at zero, so an untrained network answers 0. All arguments are kept in
    `configuration`.

    Shapes: x (B, channels, image_size, image_size), t 0-d or (B,), label integers, one or (B,), in [-1, n_classes) ->
    like x. Raises ValueError for a size that patch_size does not divide, for features that 4 or `heads` does not
    divide, and for a label that the network has no vector for. Source: Peebles & Xie 2023.
    """

    places: Tensor

    def __init__(
        self,
        image_size: int,
        channels: int = 1,
        *,
        patch_size: int = 1,
        features: int = 128,
        depth: int = 4,
        heads: int = 4,
        n_classes: int | None = None,
    ) -> None:
        super().__init__()
        for value, name in (
            (image_size, "image_size"),
            (channels, "channels"),
            (patch_size, "patch_size"),
            (depth, "depth"),
            (heads, "heads"),
            (features, "features"),
        ):
            at_least(value, 1, name)
        if image_size % patch_size:
            raise ValueError(f"patch_size: expected a divisor of {image_size}, got {patch_size}")
        if features % 4 or features < 8 or features % heads:
            raise ValueError(f"features: expected a multiple of 4, from 8, and of heads={heads}, got {features}")
        self.configuration = {
            "image_size": image_size,
            "channels": channels,
            "patch_size": patch_size,
            "features": features,
            "depth": depth,
            "heads": heads,
            "n_classes": n_classes,
        }
        self.image_shape, self.patch_size = (channels, image_size, image_size), patch_size
        self.embed = nn.Sequential(
            SinusoidalEmbedding(features), nn.Linear(features, features), nn.SiLU(), nn.Linear(features, features)
        )
        self.label = label_table(n_classes, features)
        self.enter = nn.Linear(channels * patch_size**2, features)
        self.register_buffer("places", places(image_size // patch_size, features), persistent=False)
        self.blocks = nn.ModuleList(TransformerBlock(features, heads) for _ in range(depth))
        self.norm = nn.LayerNorm(features, elementwise_affine=False)
        self.modulation = nn.Linear(features, 2 * features)
        self.last = nn.Linear(features, channels * patch_size**2)
        for layer in (self.modulation, self.last):
            for parameter in layer.parameters():
                nn.init.zeros_(parameter)

    def forward(self, x: Tensor, t: Tensor, label: Tensor | None = None) -> Tensor:
        """The network at every image, its time and its label."""
        if x.shape[1:] != self.image_shape:
            raise ValueError(f"x: expected shape (B, {', '.join(map(str, self.image_shape))}), got {tuple(x.shape)}")
        condition = self.embed(t.expand(len(x))) + label_features(self.label, label, x)
        h = self.enter(patchify(x, self.patch_size)) + self.places
        for block in self.blocks:
            h = block(h, condition)
        scale, shift = self.modulation(F.silu(condition))[:, None].chunk(2, dim=-1)
        return unpatchify(self.last((1 + scale) * self.norm(h) + shift), self.patch_size, self.image_shape)


def places(size: int, features: int) -> Tensor:
    """A vector for each place of a size x size grid, row by row: sines and cosines of the row, then of the column.

    Shape: (size^2, features). Source: Vaswani et al. 2017, section 3.5, for each of two coordinates.
    """
    frequencies = torch.exp(-math.log(10_000) * torch.arange(features // 4, device="cpu") / (features // 4))
    angles = torch.arange(size, device="cpu")[:, None] * frequencies
    waves = torch.cat([angles.sin(), angles.cos()], dim=1)  # (size, features / 2)
    rows, columns = waves[:, None].expand(-1, size, -1), waves[None].expand(size, -1, -1)
    return torch.cat([rows, columns], dim=2).flatten(0, 1).float()
