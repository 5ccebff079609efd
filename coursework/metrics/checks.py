"""What the metrics of two sets refuse, and random orders."""

import torch
from torch import Tensor

from coursework._arguments import batch, finite, floating, like, wide


def two_sets_of_features(real: Tensor, generated: Tensor) -> tuple[Tensor, Tensor]:
    """Features of two sets of images, (N, F) and (M, F), N and M at least 2; half precision in float32."""
    for value, name in ((real, "real"), (generated, "generated")):
        floating(value, name)
        finite(value, name)
        if value.ndim != 2 or len(value) < 2:
            raise ValueError(f"{name}: expected features of at least two images (N, F), got {tuple(value.shape)}")
    like(generated[:1], real[:1], "generated", "real")
    return wide(real), wide(generated)


def two_samples(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """Points of two samples, (N, D) and (M, D), N and M at least 2; half precision in float32."""
    batch(x, "x")
    batch(y, "y")
    for value, name in ((x, "x"), (y, "y")):
        if value.ndim != 2 or len(value) < 2:
            raise ValueError(f"{name}: expected at least two points (N, D), got shape {tuple(value.shape)}")
    if x.shape[1] != y.shape[1] or x.dtype != y.dtype or x.device != y.device:
        raise ValueError(f"y: expected dimension, dtype and device of x, got {tuple(y.shape)}, {y.dtype}, {y.device}")
    return wide(x), wide(y)


def order(n: int, generator: torch.Generator | None) -> Tensor:
    """0 ... n - 1 in random order, on the generator's device."""
    return torch.randperm(n, generator=generator, device="cpu" if generator is None else generator.device)
