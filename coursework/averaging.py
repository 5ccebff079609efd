"""Averages of the weights over training, and any of them afterwards from a few that were stored (lesson 15).

A power-function average at time t has the profile p(tau) = (gamma + 1) tau^gamma / t^(gamma + 1) on [0, t]: how much
the weights of time tau count in it. sigma_rel, the profile's standard deviation over t, tells its width.
Source of all: Karras et al. 2024 (EDM2), section 3.
"""

import math
from collections.abc import Iterable, Mapping, Sequence

import torch
from torch import Tensor

from coursework._arguments import at_least, floating, like, number, positive, positive_number, reals, settled, wide

WIDEST = 1 / math.sqrt(12)  # sigma_rel of gamma = 0, the plain mean


def sigma_rel_of(gamma: float) -> float:
    """sqrt((gamma + 1) / ((gamma + 2)^2 (gamma + 3))): the profile's standard deviation over t. gamma >= 0."""
    gamma = _exponent(gamma, "gamma")
    return math.sqrt((gamma + 1) / (gamma + 3)) / (gamma + 2)


def gamma_of(sigma_rel: float) -> float:
    """The gamma >= 0 whose profile has standard deviation sigma_rel t, 0 < sigma_rel <= 1 / sqrt(12) = 0.2887."""
    sigma_rel = positive_number(sigma_rel, "sigma_rel")
    if sigma_rel > WIDEST * (1 + 1e-12):
        raise ValueError(f"sigma_rel: expected at most 1 / sqrt(12) = {WIDEST:.4f}, got {sigma_rel:g}")
    low, high = 0.0, 1 / sigma_rel  # sigma_rel_of falls, and is below 1 / (gamma + 2)
    for _ in range(100):
        middle = (low + high) / 2
        low, high = (middle, high) if sigma_rel_of(middle) > sigma_rel else (low, middle)
    return low


def power_decay(step: int, gamma: float) -> float:
    """beta_t = (1 - 1/t)^(gamma + 1), the decay of step t = 1, 2, ...: it is 0 in the first step.

    average_t = beta_t average_{t-1} + (1 - beta_t) weights_t gives the weights of step tau the share
    (tau^(gamma + 1) - (tau - 1)^(gamma + 1)) / t^(gamma + 1): exactly the profile's integral over [tau - 1, tau].
    """
    step, gamma = at_least(step, 1, "step"), _exponent(gamma, "gamma")
    return (1 - 1 / step) ** (gamma + 1)


def power_average(weights: Tensor | Iterable[Tensor], gamma: float) -> Tensor:
    """The power-function average of weights_1, weights_2, ..., one after the other with `power_decay`.

    Each is read before the next is asked for: a training loop may hand over the same tensor, changed, in every step.
    Shapes: weights (n_steps, *S), or n_steps tensors of shape *S -> *S. Raises ValueError for none.
    """
    gamma, average, first = _exponent(gamma, "gamma"), None, None
    if not isinstance(weights, Iterable):
        raise TypeError(f"weights: expected tensors, got {type(weights).__name__}")
    if isinstance(weights, Tensor) and not weights.ndim:
        raise ValueError("weights: expected shape (n_steps, *S), got ()")
    for step, value in enumerate(weights, start=1):
        floating(value, "weights")
        first = value if first is None else first
        like(value, first, "weights", "the first step's")
        average = wide(value).clone() if average is None else torch.lerp(wide(value), average, power_decay(step, gamma))
    if average is None or first is None:
        raise ValueError("weights: expected at least one step, got none")
    return average.to(first.dtype)


def profile_product(
    gamma_a: float | Tensor, time_a: float | Tensor, gamma_b: float | Tensor, time_b: float | Tensor
) -> Tensor:
    """The integral of the product of two profiles, (gamma_a, time_a) and (gamma_b, time_b).

    (gamma_a + 1) (gamma_b + 1) r / ((gamma_a + gamma_b + 1) max(time_a, time_b)), where
    r = (time_a / time_b)^gamma_b for time_a < time_b, else (time_a / time_b)^-gamma_a.
    Shapes: numbers, or tensors that broadcast, float64 -> their common shape.
    """
    a, b = _exponents(gamma_a, "gamma_a"), _exponents(gamma_b, "gamma_b")
    positive(time_a, "time_a")
    positive(time_b, "time_b")
    s, t = reals(time_a, "time_a").double(), reals(time_b, "time_b").double()
    ratio = (s / t) ** torch.where(s < t, b, -a)
    return (a + 1) * (b + 1) * ratio / ((a + b + 1) * torch.maximum(s, t))


def profile_coefficients(
    times: Sequence[float] | Tensor, gammas: Sequence[float] | Tensor, target_gamma: float, target_time: float
) -> Tensor:
    """The x with sum(x) = 1 for which sum_i x_i p_i is nearest to the target's profile, in the L2 norm.

    [A 1; 1^T 0] [x; mu] = [b; 1],  A_ij = <p_i, p_j>, b_i = <p_i, p>. Of weights that never change the average is
    exact, since the x sum to 1. Of several solutions (a profile given twice) the least.

    Shapes: times, gammas (n,) -> (n,), float64. Raises ValueError for a target later than the last of times.
    """
    s, g, target_gamma, target_time = _profiles(times, gammas, target_gamma, target_time)
    s = s / target_time
    n = len(s)
    matrix = torch.ones(n + 1, n + 1, dtype=torch.float64, device="cpu")
    matrix[:n, :n] = profile_product(g[:, None], s[:, None], g, s)
    matrix[n, n] = 0
    right = torch.ones(n + 1, dtype=torch.float64, device="cpu")
    right[:n] = profile_product(g, s, target_gamma, 1.0)
    return torch.linalg.lstsq(matrix, right[:, None], driver="gelsd").solution[:n, 0]


def profile_error(
    times: Sequence[float] | Tensor, gammas: Sequence[float] | Tensor, target_gamma: float, target_time: float
) -> float:
    """How far `profile_coefficients` stay from the target: |sum_i x_i p_i - p| / |p| in the L2 norm."""
    x = profile_coefficients(times, gammas, target_gamma, target_time)
    s, g, target_gamma, target_time = _profiles(times, gammas, target_gamma, target_time)
    x, g = torch.cat([x, -x.new_ones(1)]), torch.cat([g, g.new_tensor([target_gamma])])
    s = torch.cat([s / target_time, s.new_ones(1)])
    square = x @ profile_product(g[:, None], s[:, None], g, s) @ x
    return math.sqrt(max(0.0, float(square / profile_product(target_gamma, 1.0, target_gamma, 1.0))))


def reconstruct(
    snapshots: Iterable[Mapping[str, Tensor]],
    times: Sequence[float] | Tensor,
    gammas: Sequence[float] | Tensor,
    target_gamma: float,
    target_time: float,
) -> dict[str, Tensor]:
    """The average with target_gamma at target_time, from stored ones: sum_i x_i snapshots_i (`profile_coefficients`).

    snapshots: state dicts, the i-th an average with gammas[i] at times[i] (in steps, say). Sums are in float64.
    What is no floating-point tensor, a counter say, is the latest snapshot's. Raises ValueError for snapshots that
    differ in names or shapes, or are not as many as times, and for a target later than the last of them.
    """
    x = profile_coefficients(times, gammas, target_gamma, target_time).tolist()
    snapshots = _state_dicts(snapshots)
    if len(snapshots) != len(x):
        raise ValueError(f"snapshots: expected {len(x)}, one for each of times, got {len(snapshots)}")
    moments = reals(times, "times").tolist()
    latest = snapshots[max(range(len(x)), key=lambda i: moments[i])]
    for snapshot in snapshots:
        if snapshot.keys() != latest.keys():
            name = sorted(snapshot.keys() ^ latest.keys())[0]
            raise ValueError(f"snapshots: expected the same names in all, {name!r} is not in all")
        for name, value in snapshot.items():
            if value.shape != latest[name].shape:
                shapes = f"{tuple(latest[name].shape)} and {tuple(value.shape)}"
                raise ValueError(f"snapshots: expected the same shapes in all, {name!r} has {shapes}")
            if value.is_floating_point() != latest[name].is_floating_point():
                kinds = f"{latest[name].dtype} and {value.dtype}"
                raise ValueError(f"snapshots: expected the same kind of number in all, {name!r} has {kinds}")
    return {
        name: sum(
            (c * snapshot[name].detach().double() for c, snapshot in zip(x, snapshots, strict=True)),
            start=torch.zeros((), dtype=torch.float64, device=value.device),
        ).to(value.dtype)
        if value.is_floating_point()
        else value.clone()
        for name, value in latest.items()
    }


def _state_dicts(snapshots: object) -> list[Mapping[str, Tensor]]:
    """State dicts, refused where they are none."""
    if isinstance(snapshots, Mapping) or not isinstance(snapshots, Iterable):
        raise TypeError(f"snapshots: expected several state dicts, got {type(snapshots).__name__}")
    found = list(snapshots)
    for snapshot in found:
        if not isinstance(snapshot, Mapping):
            raise TypeError(f"snapshots: expected state dicts, got {type(snapshot).__name__}")
        for name, value in snapshot.items():
            if not isinstance(value, Tensor):
                raise TypeError(f"snapshots: expected tensors, {name!r} is of type {type(value).__name__}")
    return found


def _profiles(
    times: Sequence[float] | Tensor, gammas: Sequence[float] | Tensor, target_gamma: float, target_time: float
) -> tuple[Tensor, Tensor, float, float]:
    """Stored profiles and the target, checked; the first two (n,) float64 on the CPU."""
    s, g = (reals(value, name).detach().double().cpu() for value, name in ((times, "times"), (gammas, "gammas")))
    if s.ndim != 1 or not len(s):
        raise ValueError(f"times: expected shape (n,) of at least one, got {tuple(s.shape)}")
    positive(s, "times")
    if g.shape != s.shape:
        raise ValueError(f"gammas: expected shape ({len(s)},) like times, got {tuple(g.shape)}")
    _exponents(g, "gammas")
    target_gamma, target_time = _exponent(target_gamma, "target_gamma"), positive_number(target_time, "target_time")
    if target_time > float(s.max()) * (1 + 1e-12):
        raise ValueError(f"target_time: expected at most {s.max():g}, the last of times, got {target_time:g}")
    return s, g, target_gamma, target_time


def _exponent(gamma: float, name: str) -> float:
    """A gamma >= 0."""
    gamma = number(gamma, name)
    if gamma < 0:
        raise ValueError(f"{name}: expected values >= 0, got {gamma:g}")
    return gamma


def _exponents(gamma: float | Tensor, name: str) -> Tensor:
    """Gammas >= 0, float64."""
    values = reals(gamma, name).double()
    if not settled((values >= 0) & torch.isfinite(values)):
        raise ValueError(f"{name}: expected finite values >= 0, got {values.min():g} to {values.max():g}")
    return values
