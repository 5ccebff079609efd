"""Standard errors of what is measured on sets, and which of two samplers is nearer (lesson 16).

The jackknife cuts the sets into G groups and measures G times without one of them: with d of all and d_1 ... d_G,
value = G d - (G - 1) mean(d_i), free of a bias of order 1/n, and error^2 = (G - 1)/G sum (d_i - mean(d_i))^2.
It is for what is smooth in the laws (Frechet and kernel distances, energy, means), not for nearest neighbours.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from coursework._arguments import at_least, number, some
from coursework.metrics.checks import order

Metric = Callable[[Tensor, Tensor], float | Tensor]


def standard_error(
    metric: Metric, real: Tensor, generated: Tensor, *, n_groups: int = 20, generator: torch.Generator | None = None
) -> tuple[float, float]:
    """metric(real, generated) without its bias of order 1/n, and the standard error of that, by the jackknife.

    Groups are random and of equal size; N mod n_groups points of a set are left out. Shapes: (N, *S), (M, *S), N and M
    at least n_groups. Source: Efron & Tibshirani 1993, chapter 11.
    """
    _check({"real": real, "generated": generated})
    return _jackknife(metric, (real, generated), n_groups, generator)


def paired_difference(
    metric: Metric,
    real: Tensor,
    first: Tensor,
    second: Tensor,
    *,
    n_groups: int = 20,
    generator: torch.Generator | None = None,
) -> tuple[float, float]:
    """metric(real, first) - metric(real, second), negative where the first sampler is nearer, and its standard error.

    By the jackknife, as `standard_error`. first[i] and second[i] stay together: from the same noise, the same label and
    beside the same real set, what they have in common does not count as error. Shapes: (N, *S), (M, *S), (M, *S).
    """
    _check({"real": real, "first": first, "second": second})
    if len(first) != len(second):
        raise ValueError(f"second: expected {len(first)} points like first, got {len(second)}")

    def difference(real: Tensor, first: Tensor, second: Tensor) -> float:
        return number(metric(real, first), "metric's value") - number(metric(real, second), "metric's value")

    return _jackknife(difference, (real, first, second), n_groups, generator)


def _check(sets: dict[str, Tensor]) -> None:
    for name, value in sets.items():
        some(value, name)


def _jackknife(
    statistic: Callable[..., float | Tensor],
    sets: tuple[Tensor, ...],
    n_groups: int,
    generator: torch.Generator | None,
) -> tuple[float, float]:
    """The statistic without its bias and its standard error; sets of equal size are cut alike."""
    n_groups, fewest = at_least(n_groups, 2, "n_groups"), min(map(len, sets))
    if n_groups > fewest:
        raise ValueError(f"n_groups: expected at most {fewest}, the smallest set's size, got {n_groups}")
    orders = {n: order(n, generator)[: n // n_groups * n_groups] for n in dict.fromkeys(map(len, sets))}
    groups = [x[orders[len(x)].to(x.device)].unflatten(0, (n_groups, -1)) for x in sets]

    def measured(kept: Tensor) -> float:
        return number(statistic(*(x[kept.to(x.device)].flatten(0, 1) for x in groups)), "metric's value")

    numbers = torch.arange(n_groups, device="cpu")
    whole = measured(numbers)
    without = torch.tensor([measured(numbers[numbers != i]) for i in numbers], dtype=torch.float64, device="cpu")
    value = n_groups * whole - (n_groups - 1) * without.mean()
    error = ((n_groups - 1) * without.var(correction=0)).sqrt()
    return float(value), float(error)
