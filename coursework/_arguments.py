"""Refusals and expansions that every public door shares. Each message is one line that names the argument."""

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar

import torch
from torch import Tensor

_looking = ContextVar("looking", default=True)


def expand(value: float | Tensor, x: Tensor, name: str) -> Tensor:
    """Return `value`, a number, 0-d or (B,), as a tensor of x's dtype that broadcasts against `x` of shape (B, *S).

    A (B,) tensor becomes (B, 1, ..., 1). Raises ValueError for any other shape or another device.
    """
    value = torch.as_tensor(value, dtype=x.dtype)
    if value.ndim == 0:
        return value
    if value.shape != x.shape[:1]:
        raise ValueError(f"{name}: expected a number or shape ({len(x)},) like the batch, got {tuple(value.shape)}")
    if value.device != x.device:
        raise ValueError(f"{name}: expected device {x.device} like the batch, got {value.device}")
    return value.reshape(-1, *[1] * (x.ndim - 1))


def flat_sum(x: Tensor) -> Tensor:
    """Sum over everything but the batch: (B, *S) -> (B,)."""
    return x.flatten(1).sum(1)


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
    finite(x, name)


def finite(x: Tensor, name: str) -> None:
    """Refuse NaN and infinity."""
    if not holds(torch.isfinite(x)):
        raise ValueError(f"{name}: has NaN or infinite values")


def positive(value: float | Tensor, name: str) -> None:
    """Refuse numbers and tensors that are not finite and > 0 everywhere."""
    value = torch.as_tensor(value)
    finite(value, name)
    if not holds(value > 0):
        raise ValueError(f"{name}: expected values > 0, got {value.min().item():g}")


def holds(condition: Tensor) -> bool:
    """Whether a condition is true everywhere. Where values cannot be looked at it is taken as true.

    That is inside `torch.func.vmap`, inside `torch.compile` and inside `unwatched`.
    """
    if torch.compiler.is_compiling() or not _looking.get():
        return True
    try:
        return bool(condition.all())
    except RuntimeError:
        return True


@contextmanager
def unwatched() -> Iterator[None]:
    """Inside, checks look at shapes and types only: to look at values, a loop would have to wait for the device."""
    token = _looking.set(False)
    try:
        yield
    finally:
        _looking.reset(token)


def like(value: Tensor, x: Tensor, name: str, x_name: str) -> None:
    """Refuse a tensor whose shape, dtype or device differs from x's."""
    floating(value, name)
    for what in ("shape", "dtype", "device"):
        got, expected = getattr(value, what), getattr(x, what)
        if got != expected:
            raise ValueError(f"{name}: expected {what} {_plain(expected)} like {x_name}, got {_plain(got)}")


def one_of(value: str, options: Sequence[str], name: str) -> None:
    """Refuse a string outside a closed set."""
    if value not in options:
        raise ValueError(f"{name}: expected one of {', '.join(map(repr, options))}, got {value!r}")


def at_least(value: int, least: int, name: str) -> None:
    """Refuse what is not an integer >= least."""
    if not isinstance(value, int) or isinstance(value, bool):
        raise TypeError(f"{name}: expected an integer, got {type(value).__name__}")
    if value < least:
        raise ValueError(f"{name}: expected at least {least}, got {value}")


def number(value: object, name: str) -> None:
    """Refuse what is not a finite plain number."""
    if not isinstance(value, int | float) or isinstance(value, bool):
        raise TypeError(f"{name}: expected a number, got {value!r}")
    if not math.isfinite(value):
        raise ValueError(f"{name}: expected a finite number, got {value}")


def seed_number(value: int, name: str = "seed") -> None:
    """Refuse what is not an integer that a random stream can start from."""
    at_least(value, 0, name)
    if value >= 2**63:
        raise ValueError(f"{name}: expected less than 2^63, got {value}")


def _plain(value: object) -> object:
    return tuple(value) if isinstance(value, torch.Size) else value
