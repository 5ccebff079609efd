"""Exercises of lesson 07, noising in continuous time."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Generator, Tensor

from coursework.exercises.draws import count, covariances, linear_sde, normal, sizes, time_of, uniform
from coursework.exercises.engine import Exercise, Misconception
from coursework.exercises.uses import COEFFICIENTS
from coursework.sdes import SDE, VPSDE

Function = Callable[[Tensor], Tensor]


def _values(names: tuple[str, ...], attempt: Callable[..., Any], args: tuple[Any, ...]) -> dict[str, Any]:
    """The several values that an attempt returns, by name."""
    answers = attempt(*args)
    if not isinstance(answers, tuple | list) or len(answers) != len(names):
        kind = f"{len(answers)} values" if isinstance(answers, tuple | list) else f"a {type(answers).__name__}"
        raise TypeError(f"expected {len(names)} values, `return {', '.join(names)}`; got {kind}")
    return dict(zip(names, answers, strict=True))


# -- 7.1 one step forwards ---------------------------------------------------------------------------------------------


def forward_step(sde: SDE, x: Tensor, t: Tensor, h: Tensor, noise: Tensor) -> Tensor:
    """x + h f(t) x + g(t) sqrt(h) noise. Shapes: x, noise (B, D), t, h () -> (B, D)."""
    return x + h * sde.drift(x, t) + sde.diffusion(t) * h.sqrt() * noise


def _draw_step(generator: Generator) -> tuple[SDE, Tensor, Tensor, Tensor, Tensor]:
    sde, (b, d) = linear_sde(generator), sizes(generator)
    t, h = time_of(generator, sde, 0.2, 0.7), time_of(generator, sde, 0.02, 0.2)
    return sde, normal(generator, b, d), t, h, normal(generator, b, d)


def _exact_step(sde: SDE, x: Tensor, t: Tensor, h: Tensor, noise: Tensor) -> Tensor:
    r = sde.alpha(t + h) / sde.alpha(t)
    return r * x + (sde.sigma(t + h) ** 2 - r**2 * sde.sigma(t) ** 2).sqrt() * noise


STEP = Exercise(
    id="7.1",
    title="one step forwards",
    reference=forward_step,
    draw=_draw_step,
    seed=20_021,
    uses=COEFFICIENTS,
    misconceptions=(
        Misconception(
            "you multiply the noise by h. Brownian motion moves by sqrt(h) z in a time h; with h z the noise of n steps adds up to "
            "a variance n h^2, which vanishes as the steps get smaller.",
            lambda sde, x, t, h, noise: x + h * sde.drift(x, t) + sde.diffusion(t) * h * noise,
        ),
        Misconception(
            "the noise does not know the step: in a time h it has the variance g^2 h, so its factor is g sqrt(h).",
            lambda sde, x, t, h, noise: x + h * sde.drift(x, t) + sde.diffusion(t) * noise,
        ),
        Misconception(
            "you multiply the noise by g^2, the rate at which variance grows. A standard deviation belongs there: g sqrt(h).",
            lambda sde, x, t, h, noise: x + h * sde.drift(x, t) + sde.diffusion(t) ** 2 * h.sqrt() * noise,
        ),
        Misconception(
            "the drift is a velocity: the way that it makes in a time h is h f(t) x. You left out the h.",
            lambda sde, x, t, h, noise: x + sde.drift(x, t) + sde.diffusion(t) * h.sqrt() * noise,
        ),
        Misconception(
            "the drift has the wrong sign. Forwards in time it is added; for VP f is negative, and x shrinks.",
            lambda sde, x, t, h, noise: x - h * sde.drift(x, t) + sde.diffusion(t) * h.sqrt() * noise,
        ),
        Misconception(
            "sde.drift(x, t) is f(t) x already: you multiply by x once more.",
            lambda sde, x, t, h, noise: x + h * sde.drift(x, t) * x + sde.diffusion(t) * h.sqrt() * noise,
        ),
        Misconception(
            "sde.drift_coefficient(t) is f(t) alone: multiply it by x, or take sde.drift(x, t).",
            lambda sde, x, t, h, noise: x + h * sde.drift_coefficient(t) + sde.diffusion(t) * h.sqrt() * noise,
        ),
        Misconception(
            "you ask f and g at t + h. Ito's integral, and Euler-Maruyama with it, uses the beginning of the step.",
            lambda sde, x, t, h, noise: x + h * sde.drift(x, t + h) + sde.diffusion(t + h) * h.sqrt() * noise,
        ),
        Misconception(
            "sqrt(h) belongs to the noise alone. The drift acts in one direction, so its way grows like h.",
            lambda sde, x, t, h, noise: x + h.sqrt() * (sde.drift(x, t) + sde.diffusion(t) * noise),
        ),
        Misconception(
            "the drift is missing: this is a step of pure Brownian motion.",
            lambda sde, x, t, h, noise: x + sde.diffusion(t) * h.sqrt() * noise,
        ),
        Misconception(
            "you take the root of g h. The variance of the noise is g^2 h; its root is g sqrt(h).",
            lambda sde, x, t, h, noise: x + h * sde.drift(x, t) + (sde.diffusion(t) * h).sqrt() * noise,
        ),
        Misconception(
            "sigma(t) is all the noise since time 0. What comes in per time is told by g(t).",
            lambda sde, x, t, h, noise: x + h * sde.drift(x, t) + sde.sigma(t) * h.sqrt() * noise,
        ),
        Misconception(
            "this is the SDE's exact transition from t to t + h (exercise 7.2). Euler-Maruyama is simpler: f and g count as "
            "constant during the step.",
            _exact_step,
        ),
        Misconception(
            "you return the change. The new position is x plus the change.",
            lambda sde, x, t, h, noise: h * sde.drift(x, t) + sde.diffusion(t) * h.sqrt() * noise,
        ),
    ),
    hints=(
        "Read dx = f x dt + g dw with a small but finite step: dt becomes h. What does dw become?",
        "dw over a time h is Gaussian with variance h: sqrt(h) times standard normal noise.",
        "`sde.drift(x, t)` is f(t) x, `sde.diffusion(t)` is g(t). The new x is the old one plus two terms.",
    ),
)

# -- 7.2 from s to t ---------------------------------------------------------------------------------------------------

Three = tuple[Tensor, Tensor, Tensor]


def from_s_to_t(alpha_s: Tensor, sigma_s: Tensor, alpha_t: Tensor, sigma_t: Tensor) -> Three:
    """r = alpha_t / alpha_s, G^2 = sigma_t^2 - r^2 sigma_s^2, Cov(x_s, x_t | x_0) = r sigma_s^2. Shapes: (L,) each."""
    r = alpha_t / alpha_s
    return r, sigma_t**2 - r**2 * sigma_s**2, r * sigma_s**2


def _draw_from_s_to_t(generator: Generator) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    n = count(generator, 1, 30)
    alpha_s, r = uniform(generator, n, low=0.5, high=0.95), uniform(generator, n, low=0.3, high=0.9)
    sigma_s, g2 = uniform(generator, n, low=0.3, high=0.9), uniform(generator, n, low=0.5, high=1.5)
    return alpha_s, sigma_s, r * alpha_s, (r**2 * sigma_s**2 + g2).sqrt()


def _three_values(attempt: Callable[..., Any], args: tuple[Any, ...]) -> dict[str, Any]:
    return _values(("r", "G2", "covariance"), attempt, args)


def _g2(r: Tensor, s: Tensor, t: Tensor) -> Tensor:
    return t**2 - r**2 * s**2


def _between(g2: Callable, covariance: Callable, ratio: Callable = lambda a_s, a_t: a_t / a_s) -> Callable[..., Three]:
    """The answer with one of its parts replaced; g2 and covariance get r, sigma_s, sigma_t."""

    def wrong(alpha_s: Tensor, sigma_s: Tensor, alpha_t: Tensor, sigma_t: Tensor) -> Three:
        r = ratio(alpha_s, alpha_t)
        return r, g2(r, sigma_s, sigma_t), covariance(r, sigma_s, sigma_t)

    return wrong


def _covariance(r: Tensor, s: Tensor, t: Tensor) -> Tensor:
    return r * s**2


FROM_S_TO_T = Exercise(
    id="7.2",
    title="from one time to a later one",
    reference=from_s_to_t,
    draw=_draw_from_s_to_t,
    seed=20_054,
    observe=_three_values,
    misconceptions=(
        Misconception(
            "r is upside down: x_t = r x_s + noise shrinks the data from alpha_s to alpha_t, so r = alpha_t / alpha_s.",
            _between(_g2, _covariance, lambda a_s, a_t: a_s / a_t),
        ),
        Misconception(
            "r starts from x_s, not from x_0: the factor alpha_s is in x_s already, so divide alpha_t by it.",
            _between(_g2, _covariance, lambda a_s, a_t: a_t),
        ),
        Misconception(
            "G^2 = sigma_t^2 - sigma_s^2 is right for VE only. Elsewhere the old noise shrinks too: its variance by r^2.",
            _between(lambda r, s, t: t**2 - s**2, _covariance),
        ),
        Misconception(
            "the old noise shrinks by the factor r, its variance by r^2: you take off r sigma_s^2.",
            _between(lambda r, s, t: t**2 - r * s**2, _covariance),
        ),
        Misconception(
            "you subtract standard deviations. Independent noises add up in their variances.",
            _between(lambda r, s, t: (t - r * s) ** 2, _covariance),
        ),
        Misconception(
            "you return G, the standard deviation, where the variance G^2 is asked.",
            _between(lambda r, s, t: _g2(r, s, t).sqrt(), _covariance),
        ),
        Misconception(
            "G^2 = 1 - r^2 is right for VP only, where alpha^2 + sigma^2 = 1. In general it is sigma_t^2 - r^2 sigma_s^2.",
            _between(lambda r, s, t: 1 - r**2, _covariance),
        ),
        Misconception(
            "the covariance misses the shrinking after s: Cov(x_s, r x_s) = r Var(x_s).",
            _between(_g2, lambda r, s, t: s**2),
        ),
        Misconception(
            "in Cov(x_s, r x_s) only one of the two factors carries an r: it comes once, not squared.",
            _between(_g2, lambda r, s, t: r**2 * s**2),
        ),
        Misconception(
            "what the two times share is the noise up to s, of variance sigma_s^2; the noise of the later time is too much.",
            _between(_g2, lambda r, s, t: r * t**2),
        ),
        Misconception(
            "this is the correlation. The covariance is not divided by the standard deviations.",
            _between(_g2, lambda r, s, t: r * s / t),
        ),
        Misconception(
            "sigma_s sigma_t would be the covariance if one and the same noise stood in both. Part of the noise at t is fresh.",
            _between(_g2, lambda r, s, t: s * t),
        ),
        Misconception(
            "this is the covariance over data of variance 1. Given x_0 the data is a constant, and alpha_s alpha_t Var(x_0) is 0.",
            lambda a_s, s_s, a_t, s_t: (*from_s_to_t(a_s, s_s, a_t, s_t)[:2], a_s * a_t + a_t / a_s * s_s**2),
        ),
    ),
    hints=(
        "Write x_t = r x_s + G z with fresh noise z, put x_s = alpha_s x_0 + sigma_s noise into it, and compare with the kernel at t.",
        "The factors of x_0 give r. The variances of the noise give sigma_t^2 = r^2 sigma_s^2 + G^2.",
        "Given x_0, Cov(x_s, r x_s + G z) = r Var(x_s | x_0), because z is independent of x_s.",
    ),
)

# -- 7.3 sub-VP's g ----------------------------------------------------------------------------------------------------


def sub_vp_diffusion(beta: Tensor, integrated_beta: Tensor) -> Tensor:
    """sqrt(beta (1 - exp(-2 B))). Shapes: (L,), (L,) -> (L,)."""
    return torch.sqrt(beta * -torch.expm1(-2 * integrated_beta))


def _draw_rates(generator: Generator) -> tuple[Tensor, Tensor]:
    n = count(generator, 1, 30)
    return uniform(generator, n, low=1.5, high=9.0), uniform(generator, n, low=0.1, high=0.9)


def _std(big_b: Tensor) -> Tensor:
    return 1 - torch.exp(-big_b)


SUB_VP = Exercise(
    id="7.3",
    title="sub-VP's g",
    reference=sub_vp_diffusion,
    draw=_draw_rates,
    seed=20_054,
    misconceptions=(
        Misconception(
            "this is the g that the exercise starts from, sqrt(beta (1 - alpha^2)). It comes out of v' = 2 f v + g^2 if the 2 is forgotten in the "
            "derivative of the square: v' = 2 (1 - exp(-B)) exp(-B) beta.",
            lambda beta, b: torch.sqrt(beta * _std(b)),
        ),
        Misconception(
            "this is VP's g, which makes the variance 1 - exp(-B). Here 1 - exp(-B) is the standard deviation: square it "
            "before you differentiate.",
            lambda beta, b: torch.sqrt(beta) + 0 * b,
        ),
        Misconception(
            "you return g^2; its root is asked.",
            lambda beta, b: beta * (1 - torch.exp(-2 * b)),
        ),
        Misconception(
            "alpha^4 is exp(-2B), because alpha = exp(-B/2): you took alpha for exp(-B).",
            lambda beta, b: torch.sqrt(beta * (1 - torch.exp(-4 * b))),
        ),
        Misconception(
            "the root must be taken of both factors, beta and 1 - exp(-2B).",
            lambda beta, b: torch.sqrt(beta) * (1 - torch.exp(-2 * b)),
        ),
        Misconception(
            "this is sqrt(beta) sigma. The variance's growth v' has to be paid too, not only what the drift takes off.",
            lambda beta, b: torch.sqrt(beta) * _std(b),
        ),
        Misconception(
            "you set g^2 = v', as for VE. The drift takes variance off, -beta v; g^2 has to make up for that too.",
            lambda beta, b: torch.sqrt(2 * beta * torch.exp(-b) * _std(b)),
        ),
        Misconception(
            "the drift takes off 2 f v = -beta v; you have half of it.",
            lambda beta, b: torch.sqrt(2 * beta * torch.exp(-b) * _std(b) + 0.5 * beta * _std(b) ** 2),
        ),
        Misconception(
            "the sign: g^2 = v' - 2 f v, and f is negative, so beta v is added.",
            lambda beta, b: torch.sqrt(2 * beta * torch.exp(-b) * _std(b) - beta * _std(b) ** 2),
        ),
        Misconception(
            "the inner derivative is missing: B' = beta, so v' = 2 (1 - exp(-B)) exp(-B) beta.",
            lambda beta, b: torch.sqrt(2 * torch.exp(-b) * _std(b) + beta * _std(b) ** 2),
        ),
        Misconception(
            "1 - exp(-2B) has the factors 1 - exp(-B) and 1 + exp(-B). The second is 2 at B = 0 only.",
            lambda beta, b: torch.sqrt(2 * beta * _std(b)),
        ),
    ),
    hints=(
        "Whatever g is, the variance obeys v' = 2 f v + g^2. Here v and f are given: solve for g^2.",
        "v = (1 - exp(-B))^2, and B' = beta. So v' = 2 (1 - exp(-B)) exp(-B) beta.",
        "g^2 = v' + beta v. Both terms have the factor beta (1 - exp(-B)): take it out and use (1 - y)(1 + y) = 1 - y^2.",
    ),
)

# -- 7.4 between VP and VE ---------------------------------------------------------------------------------------------


def claimed_variance(start: Tensor, gamma: Tensor, integrated_beta: Tensor) -> Tensor:
    """start exp(-B) + (1 - gamma)(1 - exp(-B)). Shapes: start (), gamma (L,), B () -> (L,)."""
    left = torch.exp(-integrated_beta)
    return start * left + (1 - gamma) * (1 - left)


def _draw_family(generator: Generator) -> tuple[Tensor, Tensor, Tensor]:
    gamma = uniform(generator, count(generator, 1, 30), low=0.1, high=0.8)
    return uniform(generator, low=1.5, high=3.0), gamma, uniform(generator, low=0.3, high=2.0)


FAMILY = Exercise(
    id="7.4",
    title="between VP and VE",
    reference=claimed_variance,
    draw=_draw_family,
    seed=20_054,
    misconceptions=(
        Misconception(
            "you keep all of the starting variance, which is right without a drift only. This drift shrinks it by exp(-B).",
            lambda v, gamma, b: v + (1 - gamma) * (1 - torch.exp(-b)),
        ),
        Misconception(
            "you shrink the starting variance by alpha = exp(-B/2). A variance shrinks by alpha^2.",
            lambda v, gamma, b: v * torch.exp(-b / 2) + (1 - gamma) * (1 - torch.exp(-b)),
        ),
        Misconception(
            "the noise's variance is g^2 = beta (1 - gamma); you have used (1 - gamma)^2.",
            lambda v, gamma, b: v * torch.exp(-b) + (1 - gamma) ** 2 * (1 - torch.exp(-b)),
        ),
        Misconception(
            "the noise counts with g^2 = beta (1 - gamma), and not with g: you have used sqrt(1 - gamma).",
            lambda v, gamma, b: v * torch.exp(-b) + (1 - gamma).sqrt() * (1 - torch.exp(-b)),
        ),
        Misconception(
            "you have swapped gamma and 1 - gamma: at gamma = 1 this family has no noise.",
            lambda v, gamma, b: v * torch.exp(-b) + gamma * (1 - torch.exp(-b)),
        ),
        Misconception(
            "the starting variance is missing: this is the kernel's variance, for a single point x_0.",
            lambda v, gamma, b: (1 - gamma) * (1 - torch.exp(-b)) + 0 * v,
        ),
        Misconception(
            "you return the standard deviation.",
            lambda v, gamma, b: claimed_variance(v, gamma, b).sqrt(),
        ),
        Misconception(
            "you have let gamma weaken the drift. In the formula of the exercise only the noise has a 1 - gamma.",
            lambda v, gamma, b: v * torch.exp(-(1 - gamma) * b) + (1 - torch.exp(-(1 - gamma) * b)) / (1 - gamma),
        ),
        Misconception(
            "the noise adds up as in VE. Here the drift shrinks old noise too, so its variance levels off at 1 - gamma.",
            lambda v, gamma, b: v * torch.exp(-b) + (1 - gamma) * b,
        ),
        Misconception(
            "v' = 2 f v with f = -beta/2 gives exp(-B), not exp(-2B).",
            lambda v, gamma, b: v * torch.exp(-2 * b) + (1 - gamma) * (1 - torch.exp(-2 * b)),
        ),
        Misconception(
            "at B = 0 this gives start + (1 - gamma), and no noise is there yet: its part is (1 - gamma)(1 - exp(-B)).",
            lambda v, gamma, b: v * torch.exp(-b) + (1 - gamma),
        ),
        Misconception(
            "this is the distance from rest, which shrinks to 0. The variance is that distance plus the value at rest, 1 - gamma.",
            lambda v, gamma, b: (v - (1 - gamma)) * torch.exp(-b),
        ),
        Misconception(
            "this is where the variance comes to rest. After a finite B a part exp(-B) of the distance from there is left.",
            lambda v, gamma, b: 1 - gamma + 0 * v,
        ),
    ),
    hints=(
        "The moment equation reads v' = -beta v + beta (1 - gamma). Measure time in B, B' = beta: dv/dB = -v + (1 - gamma).",
        "Where does v come to rest? Its distance from there shrinks like exp(-B).",
        "v = (1 - gamma) + (start - (1 - gamma)) exp(-B).",
    ),
)

# -- 7.5 DDPM's chain --------------------------------------------------------------------------------------------------


def chain_alpha_bar(beta_min: float, beta_max: float, n: int) -> Tensor:
    """prod_{j <= i} (1 - beta_j), beta_j = beta(j/n) / n. Shape: (n,), float64."""
    return torch.cumprod(1 - _betas(beta_min, beta_max, n), 0)


def _betas(beta_min: float, beta_max: float, n: int, first: int = 1) -> Tensor:
    t = torch.arange(first, n + first, dtype=torch.float64) / n
    return (beta_min + t * (beta_max - beta_min)) / n


def _draw_chain(generator: Generator) -> tuple[float, float, int]:
    low, high = uniform(generator, 2, low=0.0, high=1.0).tolist()
    return 0.1 + low, 5.0 + 10.0 * high, count(generator, 10, 60)


CHAIN = Exercise(
    id="7.5",
    title="DDPM's chain",
    reference=chain_alpha_bar,
    draw=_draw_chain,
    misconceptions=(
        Misconception(
            "the step size 1/N is missing: beta(t) is a rate, beta_i = beta(t_i)/N what happens in one step.",
            lambda low, high, n: torch.cumprod(1 - n * _betas(low, high, n), 0),
        ),
        Misconception(
            "you multiply the factors sqrt(1 - beta_i) of x_0. alpha_bar is the square of that product (lesson 12 uses that name).",
            lambda low, high, n: torch.cumprod(1 - _betas(low, high, n), 0).sqrt(),
        ),
        Misconception(
            "your times start at 0: beta_i belongs to the end of step i, t_i = i/N.",
            lambda low, high, n: torch.cumprod(1 - _betas(low, high, n, first=0), 0),
        ),
        Misconception(
            "your betas run from beta_min/N to beta_max/N, ends included, as in DDPM's own table. On the grid i/N the first is "
            "beta(1/N)/N. (The difference is of order 1/N.)",
            lambda low, high, n: torch.cumprod(1 - torch.linspace(low, high, n, dtype=torch.float64) / n, 0),
        ),
        Misconception(
            "exp(-sum of beta_i) is what the chain tends to as N grows. The chain itself is a product of 1 - beta_i.",
            lambda low, high, n: torch.exp(-torch.cumsum(_betas(low, high, n), 0)),
        ),
        Misconception(
            "this is the SDE's alpha(t)^2, exact in t. The chain differs from it by its finite steps, and that is the question.",
            lambda low, high, n: VPSDE(low, high).alpha(torch.arange(1, n + 1, dtype=torch.float64) / n) ** 2,
        ),
        Misconception(
            "you have Euler-Maruyama's factors 1 - beta_i/2, squared. DDPM's factor is sqrt(1 - beta_i), whose square is 1 - beta_i.",
            lambda low, high, n: torch.cumprod(1 - _betas(low, high, n) / 2, 0) ** 2,
        ),
        Misconception(
            "you subtract the sum of the betas from 1. Factors multiply: the product of 1 - beta_i.",
            lambda low, high, n: 1 - torch.cumsum(_betas(low, high, n), 0),
        ),
        Misconception(
            "this is 1 - alpha_bar, the variance of the chain's noise.",
            lambda low, high, n: 1 - chain_alpha_bar(low, high, n),
        ),
        Misconception(
            "you return the factors of the single steps; their running product is asked.",
            lambda low, high, n: 1 - _betas(low, high, n),
        ),
        Misconception(
            "your values start with a 1, before the first step. Asked is what is left after 1, 2, ..., n steps.",
            lambda low, high, n: chain_alpha_bar(low, high, n).roll(1).index_fill(0, torch.tensor([0]), 1.0),
        ),
    ),
    hints=(
        "How much of x_0 is left after i steps? Each step multiplies it by sqrt(1 - beta_j). Square that.",
        "The times are t_j = j/N for j = 1, ..., N: `torch.arange(1, n + 1, dtype=torch.float64) / n`.",
        "beta_j = (beta_min + t_j (beta_max - beta_min)) / N, then `torch.cumprod` of 1 - beta_j.",
    ),
)

# -- 7.6 how far from the prior ----------------------------------------------------------------------------------------


def kl_to_prior(mean: Tensor, covariance: Tensor, alpha: Tensor, sigma: Tensor, prior_std: Tensor) -> Tensor:
    """KL( N(alpha mean, alpha^2 covariance + sigma^2 I) || N(0, prior_std^2 I) ). Shapes: (D,), (D, D), () x 3 -> ()."""
    return _kl(alpha * mean, _noised(covariance, alpha**2, sigma**2), prior_std**2)


def _noised(covariance: Tensor, factor: Tensor, variance: Tensor) -> Tensor:
    return factor * covariance + variance * torch.eye(len(covariance), dtype=covariance.dtype)


def _kl(m: Tensor, c: Tensor, v: Tensor, trace: float = 1.0, log: float = 1.0, dims: float = 1.0) -> Tensor:
    """KL( N(m, c) || N(0, v I) ) with factors on three of its terms."""
    d = len(m)
    return 0.5 * (trace * c.trace() / v + (m @ m) / v - dims * d + log * (d * torch.log(v) - torch.logdet(c)))


def _reversed_kl(mean: Tensor, covariance: Tensor, alpha: Tensor, sigma: Tensor, prior_std: Tensor) -> Tensor:
    c, d = _noised(covariance, alpha**2, sigma**2), len(mean)
    inverse, m = torch.linalg.inv(c), alpha * mean
    return 0.5 * (prior_std**2 * inverse.trace() + m @ inverse @ m - d - d * torch.log(prior_std**2) + torch.logdet(c))


def _draw_kl(generator: Generator) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    alpha, sigma = uniform(generator, low=0.2, high=0.7), uniform(generator, low=0.5, high=0.9)
    d, prior_std = count(generator, 2, 12), uniform(generator, low=1.2, high=2.0)
    return normal(generator, d), covariances(generator, 1, d)[0], alpha, sigma, prior_std


KL = Exercise(
    id="7.6",
    title="how far from the prior",
    reference=kl_to_prior,
    draw=_draw_kl,
    misconceptions=(
        Misconception(
            "this is KL(prior || p_t). The divergence is not symmetric; asked is KL(p_t || prior).",
            _reversed_kl,
        ),
        Misconception(
            "the prior's determinant is missing: D log prior_std^2 belongs before -log det C, or equal Gaussians would not give 0.",
            lambda m, c, a, s, p: kl_to_prior(m, c, a, s, p) - 0.5 * len(m) * torch.log(p**2),
        ),
        Misconception(
            "the logarithm has the wrong sign: it is log(prior_std^(2D) / det C), large where p_t is narrow.",
            lambda m, c, a, s, p: _kl(a * m, _noised(c, a**2, s**2), p**2, log=-1.0),
        ),
        Misconception(
            "the -D is missing: for p_t equal to the prior the trace is D, and the divergence must be 0.",
            lambda m, c, a, s, p: _kl(a * m, _noised(c, a**2, s**2), p**2, dims=0.0),
        ),
        Misconception(
            "the factor 1/2 is missing.",
            lambda m, c, a, s, p: 2 * kl_to_prior(m, c, a, s, p),
        ),
        Misconception(
            "the mean of x_t is alpha times that of the data.",
            lambda m, c, a, s, p: _kl(m, _noised(c, a**2, s**2), p**2),
        ),
        Misconception(
            "the covariance of alpha x_0 is alpha^2 times that of x_0; you multiply by alpha.",
            lambda m, c, a, s, p: _kl(a * m, _noised(c, a, s**2), p**2),
        ),
        Misconception(
            "you add sigma to the covariance where its square belongs.",
            lambda m, c, a, s, p: _kl(a * m, _noised(c, a**2, s), p**2),
        ),
        Misconception(
            "the prior's variance is prior_std^2; you use prior_std for it.",
            lambda m, c, a, s, p: _kl(a * m, _noised(c, a**2, s**2), p),
        ),
        Misconception(
            "the prior's determinant is prior_std^(2D): its logarithm has a factor D.",
            lambda m, c, a, s, p: kl_to_prior(m, c, a, s, p) - 0.5 * (len(m) - 1) * torch.log(p**2),
        ),
        Misconception(
            "you add sigma^2 to every entry of the covariance. Noise in different coordinates is independent: sigma^2 times the "
            "identity, torch.eye.",
            lambda m, c, a, s, p: _kl(a * m, a**2 * c + s**2, p**2),
        ),
        Misconception(
            "prior_std does not appear: this is the divergence from N(0, I).",
            lambda m, c, a, s, p: _kl(a * m, _noised(c, a**2, s**2), torch.ones_like(p)),
        ),
        Misconception(
            "|m|^2 is measured in units of the prior too: divide it by prior_std^2, like the trace.",
            lambda m, c, a, s, p: _kl(a * m, _noised(c, a**2, s**2), p**2) + 0.5 * a**2 * (m @ m) * (1 - 1 / p**2),
        ),
    ),
    hints=(
        "x_t is Gaussian: what are its mean m and its covariance C?",
        "KL = E[log p_t - log q] under p_t. Both logarithms are quadratic; E of (x - m)^T C^{-1} (x - m) is D, and E|x|^2 = tr C + |m|^2.",
        "With v = prior_std^2: KL = 1/2 [ (tr C + |m|^2)/v - D + D log v - log det C ].",
        "`torch.logdet(C)` and `C.trace()`.",
    ),
)

# -- 7.7 an SDE of one's own -------------------------------------------------------------------------------------------


class Alpha:
    """t -> exp(-a t - b t^2)."""

    def __init__(self, a: float, b: float) -> None:
        self.a, self.b = a, b

    def __call__(self, t: Tensor) -> Tensor:
        """Shapes: (L,) -> (L,)."""
        return torch.exp(-self.a * t - self.b * t**2)


class One(Alpha):
    """VE's alpha, which is 1 at all times."""

    def __call__(self, t: Tensor) -> Tensor:
        """Shapes: (L,) -> (L,)."""
        return torch.ones_like(t)


class Sigma(Alpha):
    """t -> (c t + d t^2) exp(-a t - b t^2): the noise-to-signal ratio rises, so that g^2 is positive."""

    def __init__(self, a: float, b: float, c: float, d: float) -> None:
        super().__init__(a, b)
        self.c, self.d = c, d

    def __call__(self, t: Tensor) -> Tensor:
        """Shapes: (L,) -> (L,)."""
        return (self.c * t + self.d * t**2) * super().__call__(t)


def _slope(function: Function, t: Tensor) -> Tensor:
    with torch.enable_grad():
        t = t.detach().clone().requires_grad_()
        return torch.autograd.grad((function(t) + 0 * t).sum(), t)[0]  # 0 * t: a constant has a slope too


def coefficients(alpha: Function, sigma: Function, t: Tensor) -> tuple[Tensor, Tensor]:
    """f = alpha'/alpha and g^2 = (sigma^2)' - 2 f sigma^2. Shapes: t (L,) -> (L,), (L,)."""
    f = _slope(alpha, t) / alpha(t)
    return f, _slope(lambda u: sigma(u) ** 2, t) - 2 * f * sigma(t) ** 2


def _draw_schedule(generator: Generator) -> tuple[Alpha, Sigma, Tensor]:
    a, b, c, d = uniform(generator, 4, low=0.4, high=1.2).tolist()
    t = uniform(generator, count(generator, 1, 12), low=0.2, high=0.9)
    if count(generator, 0, 2) == 0:  # VE: alpha is constant
        return One(a, b), Sigma(0.0, 0.0, c, d), t
    return Alpha(a, b), Sigma(a, b, c, d), t


def _f_and_g2(attempt: Callable[..., Any], args: tuple[Any, ...]) -> dict[str, Any]:
    return _values(("f", "g2"), attempt, args)


def _with(f_of: Callable, g2_of: Callable) -> Callable[..., tuple[Tensor, Tensor]]:
    """f_of(alpha', alpha), g2_of(f, sigma', sigma)."""

    def wrong(alpha: Function, sigma: Function, t: Tensor) -> tuple[Tensor, Tensor]:
        f = f_of(_slope(alpha, t), alpha(t))
        return f, g2_of(f, _slope(sigma, t), sigma(t))

    return wrong


def _f(da: Tensor, a: Tensor) -> Tensor:
    return da / a


def _g_squared(f: Tensor, ds: Tensor, s: Tensor) -> Tensor:
    return 2 * s * ds - 2 * f * s**2


OWN = Exercise(
    id="7.7",
    title="an SDE of your own",
    reference=coefficients,
    draw=_draw_schedule,
    seed=20_023,
    observe=_f_and_g2,
    misconceptions=(
        Misconception(
            "f is alpha'/alpha: alpha' = f alpha, so the slope has to be divided by alpha.",
            _with(lambda da, a: da, _g_squared),
        ),
        Misconception(
            "f has the wrong sign. alpha falls, so f = alpha'/alpha is negative: the drift pulls to the origin.",
            _with(lambda da, a: -da / a, _g_squared),
        ),
        Misconception(
            "you differentiate log alpha^2, which gives 2 f.",
            _with(lambda da, a: 2 * da / a, _g_squared),
        ),
        Misconception(
            "g^2 = (sigma^2)' is right where there is no drift. What the drift takes off, -2 f sigma^2, has to be made up for.",
            _with(_f, lambda f, ds, s: 2 * s * ds),
        ),
        Misconception(
            "the sign: from v' = 2 f v + g^2 follows g^2 = v' - 2 f v.",
            _with(_f, lambda f, ds, s: 2 * s * ds + 2 * f * s**2),
        ),
        Misconception(
            "the 2 is missing in 2 f sigma^2: both factors of x^2 shrink.",
            _with(_f, lambda f, ds, s: 2 * s * ds - f * s**2),
        ),
        Misconception(
            "you use sigma where sigma^2 belongs: the equation for v' is one for the variance.",
            _with(_f, lambda f, ds, s: ds - 2 * f * s),
        ),
        Misconception(
            "the derivative of sigma^2 is 2 sigma sigma'; you have sigma'^2.",
            _with(_f, lambda f, ds, s: ds**2 - 2 * f * s**2),
        ),
        Misconception(
            "the derivative of sigma^2 is 2 sigma sigma'; the 2 is missing.",
            _with(_f, lambda f, ds, s: s * ds - 2 * f * s**2),
        ),
        Misconception(
            "you return g; g^2 is asked.",
            _with(_f, lambda f, ds, s: _g_squared(f, ds, s).sqrt()),
        ),
        Misconception(
            "the order is f, then g^2.",
            lambda alpha, sigma, t: coefficients(alpha, sigma, t)[::-1],
        ),
        Misconception(
            "g^2 = -2 f is right for VP only, where sigma^2 = 1 - alpha^2. In general it is (sigma^2)' - 2 f sigma^2.",
            _with(_f, lambda f, ds, s: -2 * f),
        ),
        Misconception(
            "the slope of (sigma/alpha)^2 is g^2/alpha^2, the speed of the clock: multiply it by alpha^2.",
            lambda alpha, sigma, t: (
                coefficients(alpha, sigma, t)[0],
                coefficients(alpha, sigma, t)[1] / alpha(t) ** 2,
            ),
        ),
    ),
    hints=(
        "Two equations of section 4: alpha' = f alpha, and v' = 2 f v + g^2 with v = sigma^2. Solve them for f and g^2.",
        "For a slope at every t: `t = t.detach().clone().requires_grad_()`, then `torch.autograd.grad(alpha(t).sum(), t)[0]`.",
        "(sigma^2)' is 2 sigma sigma', or the slope of `sigma(t) ** 2`. Then subtract 2 f sigma^2.",
        '"does not require grad" means that alpha is constant, as in VE: take the slope of `alpha(t) + 0 * t`, which is 0.',
    ),
)

EXERCISES = (STEP, FROM_S_TO_T, SUB_VP, FAMILY, CHAIN, KL, OWN)
