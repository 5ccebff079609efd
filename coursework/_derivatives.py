"""For what differentiates by itself: derivatives are the same under `no_grad` and `inference_mode`."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

from coursework._watching import settled


@contextmanager
def derivatives(*tensors: Tensor) -> Iterator[tuple[Tensor, ...]]:
    """Inside, autograd records, under `no_grad` and `inference_mode` too. Inference tensors are handed over as copies.

    Raises ValueError where something else that is needed was made under `inference_mode`: it cannot be differentiated.
    """
    with torch.inference_mode(False), torch.enable_grad():
        try:
            yield tuple(ordinary(x) for x in tensors)
        except RuntimeError as error:
            if "nference tensor" not in str(error):
                raise
            raise ValueError(
                "score: it, or a network in it, was made under torch.inference_mode, and cannot be differentiated"
            ) from None


def ordinary(x: Tensor) -> Tensor:
    """x itself, or a copy of an inference tensor, which autograd could not work with."""
    with torch.inference_mode(False):
        return x.clone() if x.is_inference() else x


def leaf(x: Tensor) -> Tensor:
    """x itself where it asks for a gradient, else an alias that does."""
    return x if x.requires_grad else x.detach().requires_grad_()


def depends(value: Tensor, x: Tensor, function: Callable[[Tensor], Tensor], name: str) -> bool:
    """Whether autograd sees that value = function(x) depends on x.

    Raises ValueError where it sees none although the value changes with x: its derivative would be taken for 0.
    """
    if value.requires_grad:
        return True
    with torch.no_grad():
        moved = function(x.detach() + 0.5)
    if not settled(moved == value):
        raise ValueError(f"{name}: its value is cut off from x (by no_grad, detach or inference_mode inside it?)")
    return False
