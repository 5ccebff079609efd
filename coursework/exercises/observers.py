"""What is compared where the returned value does not tell enough: the gradient that training would follow."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from coursework.exercises.engine import Observed

GRADIENT = "gradient with respect to the parameters"


def value_and_gradient(attempt: Callable[..., Any], args: tuple[Any, ...]) -> Observed:
    """The returned value, and the flat gradient of its sum with respect to `args[0].parameters`, a list of tensors.

    The gradient is zero where the value does not depend on them, or was cut off from them.
    """
    value, parameters = attempt(*args), args[0].parameters
    gradients = [torch.zeros_like(p) for p in parameters]
    if isinstance(value, Tensor) and value.requires_grad:
        gradients = torch.autograd.grad(value.sum(), parameters, allow_unused=True, materialize_grads=True)
    return {"result": value, GRADIENT: torch.cat([g.flatten() for g in gradients])}
