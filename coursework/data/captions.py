"""Captions of digits, made from their labels and from what can be measured in them (lesson 19)."""

import torch
from torch import Tensor

from coursework._arguments import floating, indices

DIGITS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
SLANTS = ("backward", "straight", "tilted")  # to the left of, among, to the right of most of this digit
STROKES = ("thin", "medium", "thick")
N_DESCRIPTIONS = len(SLANTS) * len(STROKES)  # captions of each digit
CAPTIONS = tuple(f"a {slant} {digit}, {stroke} strokes" for digit in DIGITS for slant in SLANTS for stroke in STROKES)
# Of each digit about a third of scikit-learn's training images lie below, between and above.
SLANT_ENDS = (
    (-0.055, -0.009),
    (-0.064, 0.017),
    (-0.17, -0.085),
    (-0.11, -0.036),
    (-0.021, 0.034),
    (-0.048, 0.027),
    (-0.235, -0.172),
    (0.113, 0.167),
    (-0.044, 0.035),
    (-0.126, -0.061),
)
INK_ENDS = (
    (0.287, 0.328),
    (0.291, 0.318),
    (0.294, 0.325),
    (0.279, 0.319),
    (0.298, 0.318),
    (0.283, 0.311),
    (0.282, 0.321),
    (0.284, 0.313),
    (0.312, 0.34),
    (0.282, 0.318),
)


def slant(images: Tensor) -> Tensor:
    """How far an image leans to the right: mu_xy / mu_yy of its ink, x to the right, y upwards; 0 without ink.

    The slope dx/dy of the regression of x on y. Shapes: images (N, 1, H, W) in [-1, 1] -> (N,).
    """
    weight = ink_map(images)
    _, height, width = weight.shape
    y = torch.arange(height, device=weight.device, dtype=weight.dtype).flip(0)[:, None]
    x = torch.arange(width, device=weight.device, dtype=weight.dtype)
    total = weight.sum((1, 2)).clamp(min=1e-6)
    mean_x, mean_y = (weight * x).sum((1, 2)) / total, (weight * y).sum((1, 2)) / total
    from_x, from_y = x - mean_x[:, None, None], y - mean_y[:, None, None]
    mixed, spread = (weight * from_x * from_y).sum((1, 2)), (weight * from_y**2).sum((1, 2))
    return mixed / spread.clamp(min=1e-6)


def ink(images: Tensor) -> Tensor:
    """The mean brightness, 0 for black, 1 for white. Shapes: images (N, 1, H, W) in [-1, 1] -> (N,)."""
    return ink_map(images).mean((1, 2))


def describe(images: Tensor, labels: Tensor) -> Tensor:
    """The number in CAPTIONS of each digit: its label, its slant and its ink. Shapes: (N, 1, H, W), (N,) -> (N,).

    The same image has the same caption, always. Raises ValueError for a label that is no digit.
    """
    labels = indices(labels, 0, len(DIGITS), "labels")
    lean, stroke = (
        (value[:, None] > torch.tensor(ends, device=value.device)[labels]).sum(1)
        for value, ends in ((slant(images), SLANT_ENDS), (ink(images), INK_ENDS))
    )
    return (labels * len(SLANTS) + lean) * len(STROKES) + stroke


def ink_map(images: Tensor) -> Tensor:
    """The ink of every pixel, from 0 to 1, (N, H, W). Raises ValueError for pictures in colour."""
    floating(images, "images")
    if images.ndim != 4 or images.shape[1] != 1:
        raise ValueError(f"images: expected shape (N, 1, H, W), got {tuple(images.shape)}")
    return (images[:, 0].float() + 1) / 2
