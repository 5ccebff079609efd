"""What is compared where the returned value does not tell enough."""

import dis
import functools
import re
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from coursework.exercises.attempt import is_library
from coursework.exercises.draws import OwnSDE
from coursework.exercises.exercise import Observed, result
from coursework.sdes import SDE

GRADIENT = "gradient with respect to the parameters"
DEVICE = "number of mixtures of devices"
NO_VALUES = re.compile("meta (tensor|device)|register_meta", re.IGNORECASE)


def named(*names: str) -> Callable[[Callable[..., Any], tuple[Any, ...]], Observed]:
    """An observer of a function that returns several values: each is compared under its own name."""

    def observed(attempt: Callable[..., Any], args: tuple[Any, ...]) -> Observed:
        answers = attempt(*args)
        if not isinstance(answers, tuple | list) or len(answers) != len(names):
            kind = f"{len(answers)} values" if isinstance(answers, tuple | list) else f"a {type(answers).__name__}"
            raise TypeError(f"expected {len(names)} values, `return {', '.join(names)}`; got {kind}")
        return dict(zip(names, answers, strict=True))

    return observed


def value_and_gradient(attempt: Callable[..., Any], args: tuple[Any, ...]) -> Observed:
    """The returned value, and the flat gradient of its sum with respect to `args[0].parameters`, a list of tensors.

    The gradient is zero where the value does not depend on them, or was cut off from them.
    """
    value, parameters = attempt(*args), args[0].parameters
    gradients = [torch.zeros_like(p) for p in parameters]
    if isinstance(value, Tensor) and value.requires_grad:
        gradients = torch.autograd.grad(value.sum(), parameters, allow_unused=True, materialize_grads=True)
    return {"result": value, GRADIENT: torch.cat([g.flatten() for g in gradients])}


def on_its_device(observe: Callable[..., Observed] = result) -> Callable[..., Observed]:
    """An observer that also counts failures, 0 or 1, where the arguments lie on another device than the CPU.

    torch's device "meta" stands for any: every machine has it, and it has shapes without values. An attempt that needs
    values, as torch says in an error, passes; one that raises anything else there does not.
    What `observe` sees is `inspect.unwrap` of it, and takes less time.
    """

    asked: dict[str, Any] = {}  # the same for every case, so each attempt is asked once

    @functools.wraps(observe, assigned=(), updated=())
    def observed(attempt: Callable[..., Any], args: tuple[Any, ...]) -> Observed:
        seen = observe(attempt, args)
        if asked.get("attempt") is not attempt:
            asked.update(attempt=attempt, mixed=_mixes_devices(attempt, args))
        return {**seen, DEVICE: torch.tensor(int(asked["mixed"]))}

    return observed


def _mixes_devices(attempt: Callable[..., Any], args: tuple[Any, ...]) -> bool:
    try:
        value = attempt(*(_moved(value) for value in args))
    except Exception as error:
        return not _needs_values(error)
    return isinstance(value, Tensor) and value.device.type != "meta"


def _needs_values(error: Exception) -> bool:
    """Whether torch says that a tensor on "meta" has no values; what the attempt raises by itself says nothing."""
    where = error.__traceback__
    while where and where.tb_next:
        where = where.tb_next
    if where is None:
        return False
    code = where.tb_frame.f_code
    raised_here = code.co_code[where.tb_lasti] == dis.opmap["RAISE_VARARGS"]
    by_torch = is_library(code.co_filename) or not raised_here
    return by_torch and isinstance(error, RuntimeError | TypeError) and bool(NO_VALUES.search(str(error)))


def _moved(value: Any) -> Any:
    """A tensor, or a function with a method `to`, on the device "meta"; for an SDE, one that does not look at times."""
    if isinstance(value, SDE):
        return OwnSDE(1.0, 1.0)
    return value.to("meta") if hasattr(value, "to") else value
