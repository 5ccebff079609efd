"""Cases of the practice exercise of lesson 00."""

from torch import Generator, Tensor

from coursework.exercises.draws import normal, sizes
from coursework.exercises.exercise import Exercise


def _points(generator: Generator) -> tuple[Tensor]:
    return (normal(generator, *sizes(generator)),)


EXERCISES = (Exercise("0.1", "squared_norm", _points),)
