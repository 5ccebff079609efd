"""Refusals and expansions that every public door shares. Each message is one line that names the argument.

Below them: when values may be looked at at all, and what is remembered of those that were.
"""

import math
from collections.abc import Generator, MutableMapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from numbers import Integral, Real

import numpy as np
import torch
from torch import Tensor
from torch._C._functorch import get_unwrapped, is_batchedtensor, is_functorch_wrapped_tensor
from torch.utils.weak import WeakIdKeyDictionary

_looking = ContextVar("looking", default=True)
_waiting = ContextVar("waiting", default=True)
# tensors whose values have passed checks: the version that they had, and for each check its owner and if it was strict
_passed: MutableMapping[Tensor, tuple[int, tuple[tuple[object, bool], ...]]] = WeakIdKeyDictionary()


def expand(value: float | Tensor, x: Tensor, name: str) -> Tensor:
    """Return `value`, a number, 0-d or (B,), as a tensor of x's dtype that broadcasts against `x` of shape (B, *S).

    A (B,) tensor becomes (B, 1, ..., 1). Raises ValueError for any other shape or another device.
    """
    value = usable(reals(value, name)).to(x.dtype)
    if value.ndim == 0:
        return value
    if value.shape != x.shape[:1]:
        raise ValueError(f"{name}: expected a number or shape ({len(x)},) like the batch, got {tuple(value.shape)}")
    if value.device != x.device:
        raise ValueError(f"{name}: expected device {x.device} like the batch, got {value.device}")
    return value.reshape(-1, *[1] * (x.ndim - 1))


def flat_sum(x: Tensor) -> Tensor:
    """Sum over everything but the batch, in float32 where x is in half precision: (B, *S) -> (B,)."""
    return wide(x).flatten(1).sum(1)


def floating(x: Tensor, name: str) -> None:
    """Refuse what is not a floating-point tensor (TypeError)."""
    if not isinstance(x, Tensor):
        raise TypeError(f"{name}: expected a torch.Tensor, got {type(x).__name__}")
    if not x.is_floating_point():
        raise TypeError(f"{name}: expected a floating-point tensor, got {x.dtype}")


def batch(x: Tensor, name: str) -> None:
    """Refuse what is not a finite floating-point batch (B, *S)."""
    floating(x, name)
    if x.ndim < 2:
        raise ValueError(f"{name}: expected a batch of shape (B, ...), got {tuple(x.shape)}")
    if not n_dims(x):
        raise ValueError(f"{name}: expected points of at least one element, got shape {tuple(x.shape)}")
    finite(x, name)


def some(x: Tensor, name: str) -> None:
    """Refuse what is not a finite floating-point batch (B, *S) of at least one point: a mean over none is nothing."""
    batch(x, name)
    if not len(x):
        raise ValueError(f"{name}: expected at least one point, got shape {tuple(x.shape)}")


def wide(x: Tensor) -> Tensor:
    """x itself, in float32 where it is in half precision."""
    return x.to(wide_dtype(x))


def wide_dtype(x: Tensor) -> torch.dtype:
    """x's dtype, float32 where that is half precision: that of times, and of sums that would overflow."""
    return torch.promote_types(x.dtype, torch.float32)


def n_dims(x: Tensor) -> int:
    """D, the number of elements of one point of a batch (B, *S)."""
    return math.prod(x.shape[1:])


def finite(x: Tensor, name: str) -> None:
    """Refuse NaN and infinity."""
    if not holds(torch.isfinite(x)):
        raise ValueError(f"{name}: has NaN or infinite values")


def positive(value: float | Tensor, name: str) -> None:
    """Refuse numbers and tensors that are not finite and > 0 everywhere."""
    value = reals(value, name)
    finite(value, name)
    if not holds(value > 0):
        raise ValueError(f"{name}: expected values > 0, got {value.min().item():g}")


def like(value: Tensor, x: Tensor, name: str, x_name: str) -> None:
    """Refuse a tensor whose shape, dtype or device differs from x's."""
    floating(value, name)
    for what in ("shape", "dtype", "device"):
        got, expected = getattr(value, what), getattr(x, what)
        if got != expected:
            raise ValueError(f"{name}: expected {what} {_plain(expected)} like {x_name}, got {_plain(got)}")


def one_of(value: object, options: Sequence[str], name: str) -> None:
    """Refuse a string outside a closed set."""
    if value not in options:
        raise ValueError(f"{name}: expected one of {', '.join(map(repr, options))}, got {value!r}")


def truth(value: object, name: str) -> bool:
    """True or False of any kind (Python's, NumPy's) as Python's. Refuse what is none: "no" would count as true."""
    if not isinstance(value, bool | np.bool_):
        raise TypeError(f"{name}: expected True or False, got {value!r}")
    return bool(value)


def function_or_none(value: object, name: str) -> None:
    """Refuse a callback that cannot be called."""
    if value is not None and not callable(value):
        raise TypeError(f"{name}: expected a function or None, got {type(value).__name__}")


def at_least(value: object, least: int, name: str) -> int:
    """An integer of any kind (Python's, NumPy's, a 0-d tensor) as Python's. Refuse what is none, or below `least`."""
    if isinstance(value, Tensor) and value.ndim == 0 and is_integer(value):
        value = value.item()
    if not isinstance(value, Integral) or isinstance(value, bool):
        raise TypeError(f"{name}: expected an integer, got {type(value).__name__}")
    if value < least:
        raise ValueError(f"{name}: expected at least {least}, got {value}")
    return int(value)


def real(value: object, name: str) -> float:
    """A real number of any kind (Python's, NumPy's, a 0-d tensor) as Python's. Refuse what is none."""
    if isinstance(value, Tensor) and value.ndim == 0 and value.dtype != torch.bool and not value.is_complex():
        value = value.item()
    if not isinstance(value, Real) or isinstance(value, bool):
        raise TypeError(f"{name}: expected a number, got {value!r}")
    return float(value)


def reals(value: object, name: str) -> Tensor:
    """Real numbers of any kind (a number, a list, a NumPy array, a tensor) as a tensor. Refuse what is none."""
    try:
        given = value if isinstance(value, Tensor) else torch.as_tensor(value, device="cpu")
    except (TypeError, ValueError, RuntimeError):
        raise TypeError(f"{name}: expected a number or a tensor, got {type(value).__name__}") from None
    if given.dtype == torch.bool or given.is_complex():
        raise TypeError(f"{name}: expected real numbers, got {given.dtype}")
    # as exact as it was given: Python's numbers, alone or in a list, have float64's digits
    return given if isinstance(value, Tensor) else torch.as_tensor(value, dtype=torch.float64, device="cpu")


def number(value: object, name: str) -> float:
    """A finite real number of any kind as Python's. Refuse what is none."""
    value = real(value, name)
    if not math.isfinite(value):
        raise ValueError(f"{name}: expected a finite number, got {value}")
    return value


def positive_number(value: object, name: str) -> float:
    """A finite number > 0 of any kind as Python's. Refuse what is none."""
    value = number(value, name)
    if value <= 0:
        raise ValueError(f"{name}: expected values > 0, got {value:g}")
    return value


def is_integer(x: Tensor) -> bool:
    """Whether a tensor holds integers, of any width."""
    return not (x.is_floating_point() or x.is_complex() or x.dtype == torch.bool)


def indices(value: object, least: int, end: int | None, name: str) -> Tensor:
    """Integers of any kind (numbers, lists, NumPy arrays, tensors) as a long tensor on the device where they are.

    Refuse what is none, and what is not in least ... end - 1 (no end: least or more).
    """
    try:
        value = value if isinstance(value, Tensor) else torch.as_tensor(value, device="cpu")
    except (TypeError, ValueError, RuntimeError):
        raise TypeError(f"{name}: expected integers, got {type(value).__name__}") from None
    if not is_integer(value):
        raise TypeError(f"{name}: expected integers, got {value.dtype}")
    value = value.long()
    if not settled(value >= least) or not settled(value < (2**63 - 1 if end is None else end)):
        got = f"{value.min()} to {value.max()}" if value.ndim else f"{value}"
        raise ValueError(
            f"{name}: expected " + (f"at least {least}" if end is None else f"{least} to {end - 1}") + f", got {got}"
        )
    return value


def seed_number(value: int, name: str = "seed") -> None:
    """Refuse what is not an integer that a random stream can start from."""
    if at_least(value, 0, name) >= 2**63:
        raise ValueError(f"{name}: expected less than 2^63, got {value}")


def _plain(value: object) -> object:
    return tuple(value) if isinstance(value, torch.Size) else value


# When values may be looked at: to look at a value on a device, a loop has to wait for it


def holds(condition: Tensor) -> bool:
    """Whether a condition is true everywhere. Where values cannot be looked at it is taken as true.

    That is inside `torch.func.vmap`, inside `torch.compile`, on the device "meta", and inside `unwatched`.
    """
    return not _looking.get() or not _has_values(condition) or bool(condition.all())


def settled(condition: Tensor) -> bool:
    """`holds`, for what does not change in a loop (labels, times): not switched off by `unwatched`.

    Only where looking would mean to wait for the device, the steps after a loop's first are not looked at.
    """
    if not _has_values(condition) or not (_waiting.get() or condition.device.type == "cpu"):
        return True
    return bool(condition.all())


def _has_values(x: Tensor) -> bool:
    """Whether Python can ask for x's values."""
    if torch.compiler.is_compiling() or x.is_meta:
        return False
    while is_functorch_wrapped_tensor(x):
        if is_batchedtensor(x):
            return False
        x = get_unwrapped(x)
    return True


def remember(value: Tensor, owner: object, *, noisy: bool = False) -> None:
    """Note that this very tensor, one of our own that nobody else changes, has passed its owner's check.

    owner: the SDE whose time it is; noisy: whether the check asked for noise there too.
    """
    if not torch.compiler.is_compiling():
        version, checks = _passed.get(value, (None, ()))
        now = _version(value)
        _passed[value] = now, (*(checks if version == now else ()), (owner, noisy))


def remembered(value: Tensor, owner: object, *, noisy: bool = False) -> bool:
    """Whether this very tensor, unchanged since, has passed its owner's check, at least as strict a one."""
    if torch.compiler.is_compiling():
        return False
    version, checks = _passed.get(value, (None, ()))
    return any(who is owner and strict >= noisy for who, strict in checks) and version == _version(value)


def _version(x: Tensor) -> int:
    """How often x was changed in place; inference tensors do not count it."""
    return -1 if x.is_inference() else x._version


@contextmanager
def unwatched(*, waiting: bool = True) -> Generator[None]:
    """Inside, what changes in a loop is not looked at: a loop would have to wait for the device.

    What does not change (`settled`) still is; without `waiting` only where that needs no waiting.
    """
    tokens = _looking.set(False), _waiting.set(_waiting.get() and waiting)
    try:
        yield
    finally:
        _looking.reset(tokens[0])
        _waiting.reset(tokens[1])


# Tensors that were made under inference_mode


def ordinary(x: Tensor) -> Tensor:
    """x itself, or a copy of an inference tensor, which autograd could not work with."""
    if torch.compiler.is_compiling() or not x.is_inference():
        return x
    with torch.inference_mode(False):
        return x.clone()


def usable(x: Tensor) -> Tensor:
    """x itself, or a copy of an inference tensor where inference mode is over: autograd can work with it."""
    return x if torch.is_inference_mode_enabled() else ordinary(x)
