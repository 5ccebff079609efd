"""Evidence: a measured number printed beside the exact one, and an error where the two are too far apart.

A lesson computes; these functions show what came of it, always with both numbers, and stop the lesson where it stopped
being true. One line each:

    variance, your sampler                        2.031   exact 2.026   (to 0.02)

A cost is measured by `matrix_products`, not by a clock: it is the same on every machine.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

WIDTH = 42  # of the column that says what was measured
SHOWN = 5  # numbers of a tensor that are printed one by one
Numbers = float | Tensor | Sequence[float]
PRODUCTS = ("mm", "addmm", "bmm", "baddbmm")  # torch's operations that multiply matrices


class Disagreement(AssertionError):
    """Raised where measured and exact numbers are not as far apart, or as close, as a lesson says."""


def agree(what: str, measured: Numbers, exact: Numbers, *, error: float, digits: int = 4) -> None:
    """Print `measured` beside `exact`. Raises Disagreement unless |measured - exact| <= error everywhere.

    Shapes: numbers or tensors of one shape; `exact` may be one number for all. A long tensor shows the pair that is
    furthest apart. `digits` are significant ones. Raises ValueError for other shapes and for an error that is not > 0.
    """
    measured, exact = _pair(measured, exact)
    allowed = _positive(error, "error")
    shown = _both(what, measured, exact, digits)
    print(f"{shown}   (to {allowed:.2g})")
    _stop_unless(bool(((measured - exact).abs() <= allowed).all()), f"{shown}: further apart than {allowed:.3g}")


def differ(what: str, measured: Numbers, exact: Numbers, *, by: float, digits: int = 4) -> None:
    """Print `measured` beside the `exact` number that it misses. Raises Disagreement unless they differ by `by`.

    This convicts a wrong formula: |measured - exact| >= by everywhere. Shapes and errors as in `agree`.
    """
    measured, exact = _pair(measured, exact)
    apart = _positive(by, "by")
    shown = _both(what, measured, exact, digits)
    print(f"{shown}   (off by more than {apart:.2g})")
    _stop_unless(bool(((measured - exact).abs() >= apart).all()), f"{shown}: closer than {apart:.3g}")


def mean_agrees(what: str, values: Tensor, exact: float | Tensor, *, within: float = 4.0, digits: int = 4) -> None:
    """Print the mean of independent draws, with its standard error, beside its exact expectation.

    The standard error is the draws' standard deviation over sqrt(n). A variance is a mean too: of (x - x.mean())^2.
    Raises Disagreement where the mean is more than `within` standard errors off. Shapes: values (n,), n >= 2, or any
    shape whose entries are all independent draws. Raises ValueError for fewer, and for `within` <= 0.
    """
    draws = _tensor(values, "values").flatten()
    if len(draws) < 2:
        raise ValueError(f"values: expected at least 2 draws, got {len(draws)}")
    expected = _tensor(exact, "exact")
    if expected.numel() != 1:
        raise ValueError(f"exact: expected one number, got shape {tuple(expected.shape)}")
    within = _positive(within, "within")
    mean, standard_error = float(draws.mean()), float(draws.std()) / math.sqrt(len(draws))
    off = abs(mean - float(expected))
    shown = (
        f"{what:<{WIDTH}} {_text(mean, digits)} ± {_text(standard_error, 2)}   exact {_text(float(expected), digits)}"
    )
    print(f"{shown}   ({off / standard_error if standard_error else 0.0:.1f} standard errors off)")
    _stop_unless(off <= within * standard_error, f"{shown}: more than {within:g} standard errors off")


def matrix_products(work: Callable[[], object]) -> int:
    """How many matrix products torch executes in work(): one for every linear layer that a pass goes through.

    What a training step costs, as a number that is the same on every machine. A product of stacked matrices is one.
    """
    with _Products() as products:
        work()
    return products.count


class _Products(TorchDispatchMode):
    """Sees every operation as torch executes it, and counts the products."""

    count = 0

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Runs the operation."""
        self.count += func.overloadpacket.__name__ in PRODUCTS
        return func(*args, **(kwargs or {}))


def _both(what: str, measured: Tensor, exact: Tensor, digits: int) -> str:
    """`what`, the measured and the exact numbers, or those furthest apart where there are many."""
    if measured.ndim and measured.numel() > SHOWN:
        at = int((measured - exact).abs().nan_to_num(nan=math.inf).argmax())
        what = f"{what} (worst of {measured.numel()})"
        measured, exact = measured.flatten()[at], exact.flatten()[at]
    return f"{what:<{WIDTH}} {_list(measured, digits)}   exact {_list(exact, digits)}"


def _list(values: Tensor, digits: int) -> str:
    return ", ".join(_text(v, digits) for v in values.flatten().tolist())


def _text(value: float, digits: int) -> str:
    return f"{value + 0.0:.{digits}g}"  # + 0.0: no "-0"


def _pair(measured: Numbers, exact: Numbers) -> tuple[Tensor, Tensor]:
    """Both as float64 on the CPU, of one shape."""
    left, right = _tensor(measured, "measured"), _tensor(exact, "exact")
    if not left.numel():
        raise ValueError("measured: expected at least one number, got none")
    if right.numel() == 1:
        right = right.reshape(()).expand_as(left)
    if left.shape != right.shape:
        raise ValueError(f"exact: expected shape {tuple(left.shape)} like measured, got {tuple(right.shape)}")
    return left, right


def _tensor(value: Numbers, name: str) -> Tensor:
    try:
        return torch.as_tensor(value).detach().to("cpu", torch.float64)
    except (TypeError, ValueError, RuntimeError) as error:
        raise ValueError(f"{name}: expected a number or a tensor of numbers, got {type(value).__name__}") from error


def _positive(value: float, name: str) -> float:
    number = float(value)
    if not 0 < number < math.inf:
        raise ValueError(f"{name}: expected a number > 0, got {value}")
    return number


def _stop_unless(holds: bool, message: str) -> None:
    if not holds:
        raise Disagreement(message)
