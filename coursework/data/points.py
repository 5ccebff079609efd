"""Toy laws in the plane without a closed-form density.

Each is centred and divided by one constant, exact for the law and written beside it, so that `E x = 0` and
`E |x|^2 = 2` (the coordinates have unit variance on average) while angles and proportions stay as drawn.
All take `n >= 1`, a `torch.Generator` that decides every point, a floating `dtype` (torch's default if None) and a
`device` (the generator's if None), return an `(n, 2)` tensor, and raise ValueError or TypeError naming the argument.
"""

import math
from typing import TypedDict

import torch

from coursework._arguments import at_least
from coursework.data.checks import floating_dtype

_MOONS_NOISE = 0.05
_MOONS_SCALE = math.sqrt((21 / 16 - 1 / math.pi) / 2 + _MOONS_NOISE**2)

_ROLL_NOISE = 0.3
_ROLL_MEAN = (2.0, 2 / (3 * math.pi))
_ROLL_SCALE = math.sqrt((39 / 4 * math.pi**2 - 4 - 4 / (9 * math.pi**2)) / 2 + _ROLL_NOISE**2)

_BOARD_SCALE = 2 / math.sqrt(3)

_RINGS_NOISE = 0.1
_RINGS_SCALE = math.sqrt((14 / 3 + _RINGS_NOISE**2) / 2)

_SPIRALS_NOISE = 0.2
_SPIRALS_SCALE = math.sqrt(9 / 4 * math.pi**2 + _SPIRALS_NOISE**2)


def two_moons(
    n: int,
    *,
    generator: torch.Generator | None = None,
    dtype: torch.dtype | None = None,
    device: torch.device | str | None = None,
) -> torch.Tensor:
    """Two half circles that reach into each other.

    x = (c - (1/2, 1/4) + 0.05 z) / s, with z ~ N(0, I), A ~ U[0, pi] and a fair coin B:
    c = (cos A, sin A) if B = 0, c = (1 - cos A, 1/2 - sin A) if B = 1; s^2 = (21/16 - 1/pi) / 2 + 0.05^2.
    """
    options = _options(n, generator, dtype, device)
    angle = math.pi * torch.rand(n, **options)
    lower = torch.randint(2, (n,), **options)
    side = 1 - 2 * lower
    curve = torch.stack([lower - 0.5 + side * angle.cos(), lower / 2 - 0.25 + side * angle.sin()], dim=1)
    return (curve + _MOONS_NOISE * torch.randn(n, 2, **options)) / _MOONS_SCALE


def swiss_roll(
    n: int,
    *,
    generator: torch.Generator | None = None,
    dtype: torch.dtype | None = None,
    device: torch.device | str | None = None,
) -> torch.Tensor:
    """A strip rolled up: one and a half turns of Archimedes' spiral.

    x = (A (cos A, sin A) - m + 0.3 z) / s, with z ~ N(0, I) and A ~ U[3 pi / 2, 9 pi / 2];
    m = (2, 2 / (3 pi)), s^2 = (39 pi^2 / 4 - |m|^2) / 2 + 0.3^2.
    """
    options = _options(n, generator, dtype, device)
    angle = 1.5 * math.pi * (1 + 2 * torch.rand(n, **options))
    curve = torch.stack([angle * angle.cos() - _ROLL_MEAN[0], angle * angle.sin() - _ROLL_MEAN[1]], dim=1)
    return (curve + _ROLL_NOISE * torch.randn(n, 2, **options)) / _ROLL_SCALE


def checkerboard(
    n: int,
    *,
    generator: torch.Generator | None = None,
    dtype: torch.dtype | None = None,
    device: torch.device | str | None = None,
) -> torch.Tensor:
    """Uniform on the eight dark squares of a four by four board.

    x = c / s, with c uniform on the points of [-2, 2]^2 where floor(c_1) + floor(c_2) is even, s = 2 / sqrt(3).
    Both coordinates are uniform on [-sqrt(3), sqrt(3)]; their covariance is 3/16.
    """
    options = _options(n, generator, dtype, device)
    column = torch.randint(-2, 2, (n,), **options)
    row = 2 * torch.randint(-1, 1, (n,), **options) + column.remainder(2)
    return (torch.stack([column, row], dim=1) + torch.rand(n, 2, **options)) / _BOARD_SCALE


def rings(
    n: int,
    *,
    generator: torch.Generator | None = None,
    dtype: torch.dtype | None = None,
    device: torch.device | str | None = None,
) -> torch.Tensor:
    """Three concentric rings, equally likely.

    x = (K + 0.1 z) (cos A, sin A) / s, with K uniform on {1, 2, 3}, A ~ U[0, 2 pi] and one z ~ N(0, 1), so the noise
    is along the radius only; s^2 = (14/3 + 0.1^2) / 2.
    """
    options = _options(n, generator, dtype, device)
    angle = 2 * math.pi * torch.rand(n, **options)
    radius = torch.randint(1, 4, (n,), **options) + _RINGS_NOISE * torch.randn(n, **options)
    return radius[:, None] * torch.stack([angle.cos(), angle.sin()], dim=1) / _RINGS_SCALE


def spirals(
    n: int,
    *,
    generator: torch.Generator | None = None,
    dtype: torch.dtype | None = None,
    device: torch.device | str | None = None,
) -> torch.Tensor:
    """Two arms of a spiral, each one and a half turns, one the other turned by half a turn.

    x = (B A (cos A, sin A) + 0.2 z) / s, with z ~ N(0, I), B = -1 or 1 equally likely, A = 3 pi sqrt(U), U ~ U[0, 1],
    which spreads the points almost evenly along the arms; s^2 = 9 pi^2 / 4 + 0.2^2.
    """
    options = _options(n, generator, dtype, device)
    angle = 3 * math.pi * torch.rand(n, **options).sqrt()
    radius = angle * (2 * torch.randint(2, (n,), **options) - 1)
    curve = radius[:, None] * torch.stack([angle.cos(), angle.sin()], dim=1)
    return (curve + _SPIRALS_NOISE * torch.randn(n, 2, **options)) / _SPIRALS_SCALE


class _Options(TypedDict):
    generator: torch.Generator | None
    dtype: torch.dtype
    device: torch.device


def _options(
    n: int, generator: torch.Generator | None, dtype: torch.dtype | None, device: torch.device | str | None
) -> _Options:
    """What torch's random functions are to be given, after a check."""
    at_least(n, 1, "n")
    dtype = torch.get_default_dtype() if dtype is None else dtype
    floating_dtype(dtype, "dtype")
    if device is None:
        device = torch.get_default_device() if generator is None else generator.device
    device = torch.device(device)
    if generator is not None and generator.device.type != device.type:
        raise ValueError(f"generator: expected one on the device {device}, got one on {generator.device}")
    return {"generator": generator, "dtype": dtype, "device": device}
