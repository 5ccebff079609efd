"""Noise-conditional score networks (lesson 06). Here a score is a function of x and the noise level: score(x, sigma).

The law at level sigma is that of x + sigma noise, noise ~ N(0, I).
"""

import math
from collections.abc import Callable

import torch
from torch import Tensor

from coursework._arguments import (
    at_least,
    expand,
    flat_sum,
    floating,
    like,
    number,
    positive,
    positive_number,
    reals,
    remember,
    settled,
    some,
    wide,
)
from coursework._loops import OnStep, check_start, columns, normal_like, sampling, score_at, time_like, walk
from coursework.sdes import VESDE

LevelScore = Callable[[Tensor, Tensor], Tensor]


def geometric_noise_levels(sigma_max: float, sigma_min: float, n: int) -> Tensor:
    """sigma_i = sigma_max (sigma_min / sigma_max)^((i - 1) / (n - 1)), i = 1 ... n: from wide to narrow, one ratio.

    Shape: (n,), float64. Raises ValueError unless sigma_max > sigma_min > 0 and n >= 2.
    Source: Song & Ermon 2019, section 4.1.
    """
    n, sigma_max, sigma_min = at_least(n, 2, "n"), number(sigma_max, "sigma_max"), number(sigma_min, "sigma_min")
    if not 0 < sigma_min < sigma_max:
        raise ValueError(f"sigma_max, sigma_min: expected sigma_max > sigma_min > 0, got {sigma_max}, {sigma_min}")
    ends = torch.tensor([sigma_max, sigma_min], dtype=torch.float64, device="cpu")
    inner = torch.linspace(math.log(sigma_max), math.log(sigma_min), n, dtype=torch.float64, device="cpu").exp()[1:-1]
    return torch.cat([ends[:1], inner, ends[1:]])


def level_overlap(ratio: float, n_dims: int) -> float:
    """The share of |x| that two neighbouring levels have in common, for a point of data at 0, in n_dims dimensions.

    |x| at level sigma is about N(sqrt(D) sigma, sigma^2 / 2). The share of the narrower level's law that lies within
    three standard deviations of the mean of the wider one's, `ratio` times as wide:
    Phi(sqrt(2 D) (ratio - 1) + 3 ratio) - Phi(sqrt(2 D) (ratio - 1) - 3 ratio).
    Raises ValueError for ratio <= 1. Source: Song & Ermon 2020, section 3.2.
    """
    n_dims, ratio = at_least(n_dims, 1, "n_dims"), number(ratio, "ratio")
    if not ratio > 1:
        raise ValueError(f"ratio: expected a finite value > 1, got {ratio}")
    shift = math.sqrt(2 * n_dims) * (ratio - 1)
    return _normal_cdf(shift + 3 * ratio) - _normal_cdf(shift - 3 * ratio)


def n_levels(sigma_max: float, sigma_min: float, n_dims: int, *, overlap: float = 0.5) -> int:
    """The fewest geometric levels whose neighbours overlap by at least `overlap` (`level_overlap`).

    Raises ValueError unless sigma_max > sigma_min > 0, 0 < overlap < 1 and n_dims >= 5: in fewer dimensions |x| is
    spread so widely that any two levels overlap, and the rule says nothing. Source: Song & Ermon 2020, technique 2.
    """
    n_dims, overlap = at_least(n_dims, 5, "n_dims"), number(overlap, "overlap")
    geometric_noise_levels(sigma_max, sigma_min, 2)
    if not 0 < overlap < 1:
        raise ValueError(f"overlap: expected a number between 0 and 1, got {overlap}")
    low, high = 0.0, math.log(sigma_max / sigma_min)  # of log(ratio): the overlap falls with it
    if level_overlap(math.exp(high), n_dims) >= overlap:
        return 2
    for _ in range(100):
        middle = (low + high) / 2
        low, high = (middle, high) if level_overlap(math.exp(middle), n_dims) >= overlap else (low, middle)
    return 1 + math.ceil(math.log(sigma_max / sigma_min) / low)


def langevin_step_size(sigmas: Tensor, n_steps_each: int) -> float:
    """The step size with which n_steps_each steps best bring one level's variance to the next's.

    For a point of data at 0 the variance of x, as a multiple of sigma_i^2, starts a level at gamma^2, gamma the levels'
    ratio, and with a = step_size / sigma_L^2 comes to
    v(a) = (1 - a/2)^(2 n_steps_each) (gamma^2 - 1/(1 - a/4)) + 1/(1 - a/4), never below 1. Returned is the a in (0, 2)
    that makes it smallest, to 1e-5, times sigma_L^2. Shapes: sigmas (L,), decreasing, one ratio.
    Source: Song & Ermon 2020, technique 4 (their epsilon is half of it: their step is epsilon s + sqrt(2 epsilon) z).
    """
    n_steps_each = at_least(n_steps_each, 1, "n_steps_each")
    levels = _levels(sigmas, "sigmas")
    ratios = levels[:-1] / levels[1:]
    decreasing = len(levels) > 1 and settled(levels.diff() < 0)
    if not decreasing or float(ratios.max() - ratios.min()) > 1e-4 * float(ratios[0]):
        raise ValueError(
            "sigmas: expected at least two decreasing levels with one ratio, as geometric_noise_levels gives"
        )
    a = torch.arange(1, 200_000, dtype=torch.float64, device="cpu") * 1e-5
    limit = 1 / (1 - a / 4)
    variance = (1 - a / 2) ** (2 * n_steps_each) * (ratios[0] ** 2 - limit) + limit
    return float(a[variance.argmin()] * levels[-1] ** 2)


def ncsn_loss(score: LevelScore, x: Tensor, sigmas: Tensor, *, generator: torch.Generator | None = None) -> Tensor:
    """E[ sigma^2/2 |s(x + sigma noise, sigma) + noise / sigma|^2 ], sigma drawn from the levels for each point.

    Summed over dimensions, averaged over the batch; the weight sigma^2 gives every level the same say. Its gradient
    reaches the score's parameters. Shapes: x (B, *S); sigmas (L,), > 0 -> ().
    Source: Song & Ermon 2019, eq. 5 and 6 with lambda = sigma^2.
    """
    some(x, "x")
    levels = time_like(_levels(sigmas, "sigmas"), x)
    chosen = levels[torch.randint(len(levels), (len(x),), generator=generator, device=x.device)]
    noise, sigma = normal_like(x, generator), expand(chosen, x, "sigmas")
    value = score(x + sigma * noise, chosen)
    like(value, x, "score's value", "x")
    return 0.5 * flat_sum(wide(sigma * value + noise) ** 2).mean()


def annealed_langevin(
    score: LevelScore,
    x: Tensor,
    sigmas: Tensor,
    *,
    step_size: float,
    n_steps_each: int,
    temperature: float = 1.0,
    denoise: bool = True,
    generator: torch.Generator | None = None,
    on_step: OnStep | None = None,
) -> Tensor:
    """Langevin dynamics at each level in turn, from the widest to the narrowest.

    alpha_i = step_size sigma_i^2 / sigma_L^2; n_steps_each times
    x <- x + alpha_i/2 s(x, sigma_i) + sqrt(alpha_i temperature) z, z ~ N(0, I). With `denoise` a last
    x <- x + sigma_L^2 s(x, sigma_L), Tweedie's formula, takes the last level's noise out. alpha_i / sigma_i^2 is the
    same at every level, so each forgets its start at the same rate; at 4 and above the chain diverges on a point of
    data. A temperature below 1 narrows the law of every level, to about p^(1/temperature).

    Shapes: x (B, *S), the start, noise as wide as sigma_1; sigmas (L,), decreasing -> (B, *S).
    `on_step(i, sigma, x)` gets the level at which the step was taken; i counts all L n_steps_each steps.
    Raises ValueError for sigmas that do not decrease, step_size <= 0, temperature <= 0, n_steps_each < 1.
    Source: Song & Ermon 2019, algorithm 1; the last step: Jolicoeur-Martineau et al. 2021, and Song & Ermon 2020.
    """
    check_start(score, x, generator)
    levels = _levels(sigmas, "sigmas")
    if not settled(levels.diff() < 0):
        raise ValueError("sigmas: expected strictly decreasing values")
    n_steps_each = at_least(n_steps_each, 1, "n_steps_each")
    step_size, temperature = positive_number(step_size, "step_size"), positive_number(temperature, "temperature")
    alpha = step_size * (levels / levels[-1]) ** 2
    half, size = columns(x, alpha / 2, (alpha * temperature).sqrt())
    sigma = time_like(levels, x).unbind()  # one tensor a level: the score may look at each once

    def step(i: int, x: Tensor) -> Tensor:
        k = i // n_steps_each
        return x + half[k] * score_at(score, x, sigma[k]) + size[k] * normal_like(x, generator)

    every = levels.repeat_interleave(n_steps_each)
    x = walk(step, x, time_like(torch.cat([every[:1], every]), x), on_step)
    if not denoise or not len(x):
        return x
    with sampling(x):
        return x + (sigma[-1] ** 2).to(x.dtype) * score_at(score, x, sigma[-1])


def noise_conditional(model: Callable[..., Tensor], sde: VESDE) -> LevelScore:
    """A score in time under the VE SDE as a score in sigma: score(x, sigma) = model(x, t), where sigma(t) = sigma.

    t = ln(sigma / sigma_min) / ln(sigma_max / sigma_min). Raises TypeError for another SDE; the score raises ValueError
    for a sigma outside [sigma_min, sigma_max].
    """
    if not isinstance(sde, VESDE):
        raise TypeError(f"sde: expected a VESDE, got {type(sde).__name__}")
    width = math.log(sde.sigma_max / sde.sigma_min)

    def score(x: Tensor, sigma: float | Tensor) -> Tensor:
        sigma = reals(sigma, "sigma")
        t = torch.log(sigma / sde.sigma_min) / width
        slack = 16 * torch.finfo(t.dtype).eps
        if not settled((t > -slack) & (t < 1 + slack)):
            got = f"{sigma.min():g} to {sigma.max():g}" if sigma.ndim else f"{sigma:g}"
            raise ValueError(f"sigma: expected values in [{sde.sigma_min}, {sde.sigma_max}], got {got}")
        t = t.clamp(0, 1)
        remember(t, sde, noisy=True)
        return model(x, t)

    return score


def _levels(sigmas: Tensor, name: str) -> Tensor:
    """The noise levels in float64 on the CPU; refused unless (L,) and > 0."""
    floating(sigmas, name)
    if sigmas.ndim != 1 or not len(sigmas):
        raise ValueError(f"{name}: expected shape (L,) with at least one level, got {tuple(sigmas.shape)}")
    positive(sigmas, name)
    return sigmas.detach().double().cpu()


def _normal_cdf(z: float) -> float:
    return 0.5 * math.erfc(-z / math.sqrt(2))
