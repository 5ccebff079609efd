"""What samplers and objectives share: the check at the door, a loop that never waits for the device, derivatives."""

from collections.abc import Callable, Generator
from contextlib import contextmanager

import torch
from torch import Tensor

from coursework._arguments import (
    batch,
    expand,
    finite,
    floating,
    function_or_none,
    like,
    ordinary,
    remember,
    settled,
    unwatched,
    usable,
    wide_dtype,
)
from coursework.sdes import SDE

TimedScore = Callable[[Tensor, Tensor], Tensor]
OnStep = Callable[[int, Tensor, Tensor], object]
Step = Callable[[int, Tensor], Tensor]


def check_start(score: Callable[..., Tensor], x: Tensor, generator: torch.Generator | None = None) -> None:
    """Refuse what no sampler can start from: no function, no finite batch, a generator on another device."""
    if not callable(score):
        raise TypeError(f"score: expected a function, got {type(score).__name__}")
    batch(x, "x")
    check_generator(generator, x)


def check_generator(generator: torch.Generator | None, x: Tensor) -> None:
    """Refuse what is no generator, and one on another device than x."""
    if generator is not None and not isinstance(generator, torch.Generator):
        raise TypeError(f"generator: expected a torch.Generator or None, got {type(generator).__name__}")
    if generator is not None and generator.device.type != x.device.type:
        raise ValueError(f"generator: expected one on {x.device.type} like x, got one on {generator.device.type}")


def check_times(times: Tensor, sde: SDE, *, upwards: bool = False) -> Tensor:
    """The time grid in float64 on the CPU; refused unless strictly decreasing (or, if `upwards`, either way)."""
    floating(times, "times")
    if times.ndim != 1 or len(times) < 2:
        raise ValueError(f"times: expected shape (n_steps + 1,) with at least one step, got {tuple(times.shape)}")
    finite(times, "times")
    slack = 4 * torch.finfo(times.dtype).eps * sde.T
    times = usable(times).detach().double().cpu()
    if not (settled(times.diff() < 0) or (upwards and settled(times.diff() > 0))):
        raise ValueError(f"times: expected strictly {'monotone' if upwards else 'decreasing'} values")
    if not settled((times >= 0) & (times <= sde.T + slack)):
        raise ValueError(f"times: expected values in [0, {sde.T}], got {times.min():g} to {times.max():g}")
    return times.clamp(max=sde.T)


def check_noisy(times: Tensor, sde: SDE) -> None:
    """Refuse times at which a score is asked although there is no noise and hence no score."""
    if not settled(torch.as_tensor(sde.sigma(times)) > 0):
        raise ValueError(f"times: the score is asked where sigma is 0; stop at a later time, say {sde.t_min}")


def columns(x: Tensor, *values: Tensor) -> list[Tensor]:
    """Coefficients for a whole grid, (n,) float64 each, in x's dtype and on its device."""
    return [value.to(x.device, x.dtype) for value in values]


def time_like(t: Tensor, x: Tensor) -> Tensor:
    """Times as a score gets them: on x's device, in its dtype, in float32 where that is half precision."""
    return t.to(x.device, wide_dtype(x))


def score_times(x: Tensor, times: Tensor, sde: SDE) -> tuple[Tensor, ...]:
    """The times of a checked grid at which the score is asked, 0-d each, so that no loop looks at them again."""
    each = time_like(times, x).unbind()
    for t in each:
        remember(t, sde, noisy=True)
    return each


def score_at(score: TimedScore, x: Tensor, t: Tensor) -> Tensor:
    """score(x, t), refused where it is not a tensor like x: it would broadcast silently."""
    value = score(x, t)
    like(value, x, "score's value", "x")
    return value


def value_at(score: Callable[[Tensor], Tensor], x: Tensor, name: str = "score") -> Tensor:
    """score(x), refused where it is not a tensor like x: it would broadcast silently."""
    value = score(x)
    like(value, x, f"{name}'s value", "x")
    return value


def normal_like(x: Tensor, generator: torch.Generator | None) -> Tensor:
    """Standard normal noise of x's shape, dtype and device."""
    check_generator(generator, x)
    return torch.randn(x.shape, generator=generator, dtype=x.dtype, device=x.device)


def times_of(sde: SDE, x: Tensor, times: Tensor | None, generator: torch.Generator | None) -> Tensor:
    """A time with noise for each point of x, (B,), uniform on [t_min, T]; or `times`, 0-d or (B,), checked."""
    if times is not None:
        floating(times, "times")
        expand(times, x, "times")
        return sde.time(times.to(wide_dtype(x)), "times", noisy=True)
    check_generator(generator, x)
    u = torch.rand(len(x), generator=generator, dtype=wide_dtype(x), device=x.device)
    t = sde.t_min + (sde.T - sde.t_min) * u
    remember(t, sde, noisy=True)
    return t


@contextmanager
def sampling(x: Tensor) -> Generator[None]:
    """Inside a sampler's loop: values are not looked at, and autograd records only where x asks for it.

    A network's parameters alone do not make it record: a trajectory's graph would fill the memory.
    """
    with unwatched(), torch.set_grad_enabled(torch.is_grad_enabled() and x.requires_grad):
        yield


def walk(step: Step, x: Tensor, times: Tensor, on_step: OnStep | None) -> Tensor:
    """x <- step(i, x) for every step of `times`, (n_steps + 1,), each followed by `after_step` at the time x has then.

    No state but the last is kept. An empty batch comes back as it is.
    """
    if not len(x):
        return x
    with sampling(x):
        for i, t in enumerate(times[1:].unbind()):
            with unwatched(waiting=i == 0):
                x = step(i, x)
            x = after_step(on_step, i, t, x)
    return x


def after_step(on_step: OnStep | None, i: int, t: Tensor, x: Tensor) -> Tensor:
    """The state to go on with: what on_step(i, t, x) returns if that is a tensor (it must be like x), else x."""
    function_or_none(on_step, "on_step")
    changed = on_step(i, t, x) if on_step is not None else None
    if not isinstance(changed, Tensor):
        return x
    like(changed, x, "on_step's value", "x")
    return changed


# For what differentiates by itself: derivatives are the same under `no_grad` and `inference_mode`


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
