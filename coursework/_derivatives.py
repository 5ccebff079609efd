"""For what differentiates by itself: derivatives are the same under `no_grad` and `inference_mode`."""

from collections.abc import Callable, Generator
from contextlib import contextmanager

import torch
from torch import Tensor

from coursework._watching import settled


@contextmanager
def derivatives(*tensors: Tensor) -> Generator[tuple[Tensor, ...]]:
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
    if torch.compiler.is_compiling() or not x.is_inference():
        return x
    with torch.inference_mode(False):
        return x.clone()


def usable(x: Tensor) -> Tensor:
    """x itself, or a copy of an inference tensor where inference mode is over: autograd can work with it."""
    return x if torch.is_inference_mode_enabled() else ordinary(x)


def leaf(x: Tensor) -> Tensor:
    """x itself where it asks for a gradient, else an alias that does."""
    return x if x.requires_grad else x.detach().requires_grad_()


def vector_jacobian(
    value: Tensor,
    x: Tensor,
    v: Tensor,
    function: Callable[[Tensor], Tensor],
    name: str,
    *,
    keep_graph: bool,
    batched: bool = False,
) -> Tensor:
    """v^T dvalue/dx for value = function(x), like v; with `batched` for each of n vectors v, (n, B, *S).

    0 where the value does not depend on x. Raises ValueError where autograd sees no dependence although the value
    changes with x.
    """
    product = None
    if value.requires_grad:
        (product,) = torch.autograd.grad(
            value, x, v, retain_graph=True, create_graph=keep_graph, allow_unused=True, is_grads_batched=batched
        )
    if product is not None:
        return product
    with torch.no_grad():
        moved = function(x.detach() + 0.5)
    if not settled(moved == value):
        raise ValueError(f"{name}: its value is cut off from x (by no_grad, detach or inference_mode inside it?)")
    return torch.zeros_like(x).expand(len(v), *x.shape) if batched else torch.zeros_like(x)
