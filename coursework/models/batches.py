"""What a step of training sees, and the random streams that it is drawn from.

A stream is made from a key, so that a result does not depend on what was drawn before it, nor in which process.
"""

from dataclasses import dataclass, fields
from typing import Self

import numpy as np
import torch
from torch import Tensor

from coursework._arguments import unwatched
from coursework.data import ImageData
from coursework.models.recipes import Recipe
from coursework.preconditioning import TimeLaw, low_discrepancy


@dataclass(frozen=True)
class Batch:
    """What one step trains on: images (B, C, H, W) and noise like them (to autoencode: like latents), labels (B,), -1
    where dropped, times (B,).
    """

    images: Tensor
    labels: Tensor
    times: Tensor
    noise: Tensor

    def parts(self, n: int) -> list[Self]:
        """The batch in n equal parts."""
        columns = [getattr(self, field.name).chunk(n) for field in fields(self)]
        return [type(self)(*part) for part in zip(*columns, strict=True)]


@dataclass(frozen=True)
class Pairs(Batch):
    """Two points of each path: images at `ends`, noise at `times`, which is later. Shape: ends (B,)."""

    ends: Tensor


class Batches:
    """The batches of a recipe: step i's is a function of (recipe, data, i) alone."""

    def __init__(
        self,
        recipe: Recipe,
        data: ImageData,
        t_min: float,
        t_max: float,
        law: TimeLaw | None = None,
        noise_shape: tuple[int, ...] | None = None,  # None: the images'
    ) -> None:
        self.recipe, self.data, self.t_min, self.t_max = recipe, data, t_min, t_max
        self.law = None if law is None else law.to(data.images.device)  # None: t uniform on [t_min, t_max]
        self.noise_shape = tuple(data.images.shape[1:]) if noise_shape is None else noise_shape
        self._orders: dict[int, Tensor] = {}

    def __getitem__(self, step: int) -> Batch:
        recipe, device = self.recipe, self.data.images.device
        stream = stream_of(device, recipe.seed, 0, step)
        n = recipe.batch_size // 2 if recipe.antithetic else recipe.batch_size
        chosen = self._indices(step * n, n)
        images, labels = self.data.images[chosen], self.data.labels[chosen]
        if recipe.flip:
            mirrored = torch.rand(n, 1, 1, 1, generator=stream, device=device) < 0.5
            images = torch.where(mirrored, images.flip(-1), images)
        if recipe.label_dropout > 0:
            labels = labels.where(torch.rand(n, generator=stream, device=device) >= recipe.label_dropout, -1)
        times = self._times(n, stream).to(images.dtype)
        noise = torch.randn((n, *self.noise_shape), generator=stream, device=device, dtype=images.dtype)
        if recipe.antithetic:
            images, labels, times = images.repeat(2, 1, 1, 1), labels.repeat(2), times.repeat(2)
            noise = torch.cat([noise, -noise])
        return Batch(images, labels, times, noise)

    def _times(self, n: int, stream: torch.Generator) -> Tensor:
        """n times by the recipe's law, spread evenly over it."""
        if self.law is None:
            return spread_times(n, self.t_min, self.t_max, generator=stream)
        with unwatched():
            return self.law.times(low_discrepancy(n, generator=stream))

    def _indices(self, start: int, n: int) -> Tensor:
        """Places start to start + n in an endless row of shuffled epochs: each holds every image once."""
        size, device = len(self.data), self.data.images.device
        epochs = range(start // size, (start + n - 1) // size + 1)
        self._orders = {
            epoch: self._orders[epoch]
            if epoch in self._orders
            else torch.randperm(size, generator=stream_of(device, self.recipe.seed, 1, epoch), device=device)
            for epoch in epochs
        }
        row, offset = torch.cat(list(self._orders.values())), start - epochs[0] * size
        return row[offset : offset + n]


def spread_times(n: int, t_min: float, t_max: float, *, generator: torch.Generator) -> Tensor:
    """n times, each uniform on [t_min, t_max], together spread evenly over it: t_min + (t_max - t_min) frac(u + i/n).

    One u, uniform on [0, 1], for all: the loss's variance over times nearly vanishes. Shape: (n,), float64.
    Source: Kingma, Salimans, Poole & Ho 2021, appendix I.1.
    """
    return t_min + (t_max - t_min) * low_discrepancy(n, generator=generator)


def stream_of(device: torch.device | str, *key: int) -> torch.Generator:
    """A random stream on the device that depends on the key alone; keys of one length give independent streams.

    The key is one or more integers >= 0. Streams on the CPU and on GPUs differ.
    """
    seed = int(np.random.SeedSequence(key).generate_state(1)[0])
    return torch.Generator(device).manual_seed(seed)
