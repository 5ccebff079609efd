"""When values may be looked at: to look at a value on a device, a loop has to wait for it."""

from collections.abc import Generator, MutableMapping
from contextlib import contextmanager
from contextvars import ContextVar

import torch
from torch import Tensor
from torch._C._functorch import get_unwrapped, is_batchedtensor, is_functorch_wrapped_tensor
from torch.utils.weak import WeakIdKeyDictionary

_looking = ContextVar("looking", default=True)
_waiting = ContextVar("waiting", default=True)
# tensors whose values have passed checks: the version that they had, and for each check its owner and if it was strict
_passed: MutableMapping[Tensor, tuple[int, tuple[tuple[object, bool], ...]]] = WeakIdKeyDictionary()


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
