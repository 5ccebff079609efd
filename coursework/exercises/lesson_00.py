"""The practice exercise of lesson 00."""

import torch
from torch import Generator, Tensor

from coursework.exercises.draws import normal, sizes
from coursework.exercises.engine import Exercise, Misconception


def squared_norm(x: Tensor) -> Tensor:
    """|x|^2 of every row. Shapes: (B, D) -> (B,)."""
    return torch.einsum("bd,bd->b", x, x)


def _draw(generator: Generator) -> tuple[Tensor]:
    return (normal(generator, *sizes(generator)),)


SQUARED_NORM = Exercise(
    id="0.1",
    title="the squared length of every point",
    reference=squared_norm,
    draw=_draw,
    misconceptions=(
        Misconception(
            "you sum over the wrong axis: points are the rows of x, so add up along dim=1 and keep one number a point.",
            lambda x: (x**2).sum(0),
        ),
        Misconception(
            "you sum over everything: the batch stays, only the D coordinates of each point are added up.",
            lambda x: (x**2).sum(),
        ),
        Misconception("this is the length; the exercise asks for its square.", lambda x: x.norm(dim=1)),
        Misconception("you average over the coordinates where they are added up.", lambda x: (x**2).mean(1)),
        Misconception("you forgot to square the coordinates.", lambda x: x.sum(1)),
    ),
    hints=(
        "Square every coordinate, then add up the coordinates of each point.",
        "`(x**2)` has shape (B, D). Which axis has to go? `.sum(dim=...)` removes it.",
    ),
)

EXERCISES = (SQUARED_NORM,)
