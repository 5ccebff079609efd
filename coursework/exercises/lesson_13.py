"""Exercises of lesson 13, inverse problems."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Generator, Tensor

from coursework.exercises.draws import WavyTimedScore, count, covariances, linear_sde, normal, sizes, time_of, uniform
from coursework.exercises.engine import Exercise, Misconception
from coursework.exercises.exercise import Observed
from coursework.exercises.observers import on_its_device, on_the_cpu
from coursework.exercises.uses import COEFFICIENTS
from coursework.sdes import SDE

Score = Callable[[Tensor, Tensor], Tensor]

# -- 13.1 the exact posterior score of a Gaussian ----------------------------------------------------------------------


def posterior_score(
    x: Tensor, alpha: Tensor, sigma: Tensor, mean: Tensor, covariance: Tensor, operator: Tensor, y: Tensor, std: Tensor
) -> Tensor:
    """Score of alpha X + sigma noise, X from N(mean, covariance) given y. Shapes: x (B, D), operator (M, D) -> (B, D)."""
    return _posterior()(x, alpha, sigma, mean, covariance, operator, y, std)


def _posterior(
    power: int = 2,
    narrow: float = 1.0,
    shift: float = 1.0,
    scales: tuple[int, int, int] = (1, 2, 2),
    noise: tuple[float, float] = (1.0, 1.0),
    diagonal: bool = True,
) -> Callable[..., Tensor]:
    """The reference with std**power, narrow and shift times the correction of covariance and mean, exponents of alpha
    on the mean, of alpha on the covariance, of sigma on I, factors of the measurement's noise and of the added one; the
    latter on the diagonal, or on every element."""

    def score(
        x: Tensor, alpha: Tensor, sigma: Tensor, mean: Tensor, cov: Tensor, a: Tensor, y: Tensor, std: Tensor
    ) -> Tensor:
        seen = a @ cov @ a.T + noise[0] * std**power * torch.eye(len(a), dtype=x.dtype)
        gain = cov @ a.T @ torch.linalg.inv(seen)
        m, c = mean + shift * gain @ (y - a @ mean), cov - narrow * gain @ a @ cov
        where = torch.eye(len(mean), dtype=x.dtype) if diagonal else 1.0
        noisy = alpha ** scales[1] * c + noise[1] * sigma ** scales[2] * where
        return -torch.linalg.solve(noisy, (x - alpha ** scales[0] * m).T).T

    return score


def _naive(clean: bool) -> Callable[..., Tensor]:
    """The prior's noisy score plus the likelihood's score at x_t, or at x_t / alpha."""

    def score(
        x: Tensor, alpha: Tensor, sigma: Tensor, mean: Tensor, cov: Tensor, a: Tensor, y: Tensor, std: Tensor
    ) -> Tensor:
        prior = _posterior(narrow=0.0, shift=0.0)(x, alpha, sigma, mean, cov, a, y, std)
        point = x / alpha if clean else x
        return prior + (y - point @ a.T) @ a / std**2 / (alpha if clean else 1.0)

    return score


def _draw_posterior(generator: Generator) -> tuple[Tensor, ...]:
    alpha, sigma = uniform(generator, low=0.4, high=0.8), uniform(generator, low=0.3, high=0.8)
    (b, d), m = sizes(generator), count(generator, 1, 4)
    law = normal(generator, d), covariances(generator, 1, d)[0]
    measured = normal(generator, m, d), normal(generator, m), uniform(generator, low=0.2, high=0.7)
    return normal(generator, b, d), alpha, sigma, *law, *measured


POSTERIOR = Exercise(
    id="13.1",
    title="the exact posterior score",
    reference=posterior_score,
    draw=_draw_posterior,
    seed=20_026,
    misconceptions=(
        Misconception(
            "this is the score without the measurement: y changes the mean and narrows the covariance.",
            _posterior(narrow=0.0, shift=0.0),
        ),
        Misconception(
            "the mean is the posterior's, the covariance still the prior's: a measurement also narrows, C - K A C.",
            _posterior(narrow=0.0),
        ),
        Misconception(
            "the covariance is narrowed, but the mean did not move: mean + K (y - A mean).",
            _posterior(shift=0.0),
        ),
        Misconception(
            "the measurement's noise has the variance noise_std squared.",
            _posterior(power=1),
        ),
        Misconception(
            "the mean moves the wrong way: towards the measurement, + K (y - A mean).",
            _posterior(shift=-1.0),
        ),
        Misconception(
            "you add the likelihood's score at the noisy x_t. y speaks of x_0, and x_t is not x_0: at high noise this is far too sure. "
            "Condition x_0 on y first, then add the noise.",
            _naive(clean=False),
        ),
        Misconception(
            "x_t / alpha is not x_0 either: it still has the noise in it, and this takes it for exact.",
            _naive(clean=True),
        ),
        Misconception(
            "the covariance at time t is alpha squared times the posterior's, plus sigma^2 I.",
            _posterior(scales=(1, 1, 2)),
        ),
        Misconception(
            "alpha also shrinks the mean: x_t is centred at alpha times the posterior mean.",
            _posterior(scales=(0, 2, 2)),
        ),
        Misconception(
            "the noise adds sigma squared to the covariance's diagonal.",
            _posterior(scales=(1, 2, 1)),
        ),
        Misconception(
            "`+ sigma**2` adds to every element of the matrix. The noise's covariance is sigma^2 I: use torch.eye.",
            _posterior(diagonal=False),
        ),
        Misconception(
            "the signal shrinks on the way to t: its covariance comes with alpha squared.",
            _posterior(scales=(1, 0, 2)),
        ),
        Misconception(
            "the measurement has noise of its own: S = A C A^T + noise_std^2 I.",
            _posterior(noise=(0.0, 1.0)),
        ),
        Misconception(
            "this is the score of x_0 given y. Asked is that of x_t: mean alpha m, covariance alpha^2 P + sigma^2 I.",
            _posterior(scales=(0, 0, 2), noise=(1.0, 0.0)),
        ),
    ),
    hints=(
        "Two steps: the law of x_0 given y, a Gaussian; then that of alpha x_0 + sigma noise, another one.",
        "S = A C A^T + noise_std^2 I and K = C A^T S^{-1}: mean m = mu + K (y - A mu), covariance P = (I - K A) C.",
        "The score of N(alpha m, alpha^2 P + sigma^2 I) at x is -(alpha^2 P + sigma^2 I)^{-1} (x - alpha m).",
        "`torch.linalg.solve(noisy, (x - alpha * m).T).T` does it for all rows of x.",
    ),
)

# -- 13.2 pseudo-inverse guidance --------------------------------------------------------------------------------------


def pseudoinverse_guided(
    score: Score, sde: SDE, operator: Tensor, y: Tensor, noise_std: Tensor, x: Tensor, t: Tensor
) -> Tensor:
    """s + grad log N(y; A x0_hat(x), r^2 A A^T + noise_std^2 I). Shapes: x (B, D), operator (M, D), t () -> (B, D)."""
    alpha, sigma = sde.alpha(t), sde.sigma(t)
    leaf = x.detach().requires_grad_()
    value = score(leaf, t)
    gap = y - (leaf + sigma**2 * value) / alpha @ operator.T
    variance = _ratio(alpha, sigma) * operator @ operator.T + noise_std**2 * torch.eye(len(operator)).to(x)
    log_likelihood = -0.5 * (gap * torch.linalg.solve(variance, gap.T).T).sum()
    return value.detach() + torch.autograd.grad(log_likelihood, leaf)[0]


def _ratio(alpha: Tensor, sigma: Tensor) -> Tensor:
    return sigma**2 / (alpha**2 + sigma**2)


def _pseudoinverse(
    r2: Callable[[Tensor, Tensor], Tensor] = _ratio,
    estimate: Callable[..., Tensor] = lambda x, s, alpha, sigma: (x + sigma**2 * s) / alpha,
    factor: float = 1.0,
    power: int = 2,
    product: bool = True,
) -> Callable[..., Tensor]:
    """The reference with other r^2, estimate of x_0, factor, power of noise_std, or I in the place of A A^T."""

    def guided(score: Score, sde: SDE, a: Tensor, y: Tensor, noise_std: Tensor, x: Tensor, t: Tensor) -> Tensor:
        alpha, sigma = sde.alpha(t), sde.sigma(t)
        leaf = x.detach().requires_grad_()
        value = score(leaf, t)
        gap = y - estimate(leaf, value, alpha, sigma) @ a.T
        identity = torch.eye(len(a), dtype=x.dtype)
        variance = r2(alpha, sigma) * (a @ a.T if product else identity) + noise_std**power * identity
        log_likelihood = -0.5 * (gap * torch.linalg.solve(variance, gap.T).T).sum()
        return value.detach() + factor * torch.autograd.grad(log_likelihood, leaf)[0]

    return guided


def _without_jacobian(
    score: Score, sde: SDE, a: Tensor, y: Tensor, noise_std: Tensor, x: Tensor, t: Tensor, *, over_alpha: bool = False
) -> Tensor:
    alpha, sigma = sde.alpha(t), sde.sigma(t)
    gap = y - (x + sigma**2 * score(x, t)) / alpha @ a.T
    variance = _ratio(alpha, sigma) * a @ a.T + noise_std**2 * torch.eye(len(a), dtype=x.dtype)
    return score(x, t) + torch.linalg.solve(variance, gap.T).T @ a / (alpha if over_alpha else 1.0)


def _draw_pseudoinverse(generator: Generator) -> tuple[Any, ...]:
    """The noise as a number or a tensor; one measurement for all points, or for each its own."""
    sde, (b, d), m = linear_sde(generator), sizes(generator), count(generator, 1, 4)
    y = normal(generator, b, m) if count(generator, 0, 1) else normal(generator, m)
    noise_std = uniform(generator, low=0.2, high=0.7)
    score, x = WavyTimedScore(0.4 * normal(generator, d, d)), normal(generator, b, d)
    t = time_of(generator, sde, 0.3, 0.7)
    return score, sde, normal(generator, m, d), y, float(noise_std) if count(generator, 0, 1) else noise_std, x, t


PSEUDOINVERSE = Exercise(
    id="13.2",
    title="pseudo-inverse guidance",
    reference=pseudoinverse_guided,
    draw=_draw_pseudoinverse,
    seed=20_021,
    observe=on_its_device(),
    rtol=1e-11,
    uses=COEFFICIENTS,
    misconceptions=(
        on_the_cpu(_pseudoinverse()),
        Misconception(
            "this is DPS: it takes x_0 for its estimate exactly. Pseudo-inverse guidance adds r^2 A A^T to the variance.",
            _pseudoinverse(r2=lambda alpha, sigma: torch.zeros_like(sigma)),
        ),
        Misconception(
            "the chain rule is missing: x0_hat depends on x through the score too. Differentiate with respect to x.",
            _without_jacobian,
        ),
        Misconception(
            "you differentiate x / alpha only. The score inside x0_hat depends on x as well: no detach() there.",
            lambda *args: _without_jacobian(*args, over_alpha=True),
        ),
        Misconception(
            "the factor 1/2 of the Gaussian's exponent is missing: your pull is twice as strong.",
            _pseudoinverse(factor=2.0),
        ),
        Misconception(
            "you climb down: add the gradient of the log-likelihood, -1/2 gap^T S^{-1} gap, not of the misfit.",
            _pseudoinverse(factor=-1.0),
        ),
        Misconception(
            "r^2 = sigma^2 is the variance of the noise in x_t. Of x_0 given x_t, for data of variance 1, it is "
            "sigma^2 / (alpha^2 + sigma^2).",
            _pseudoinverse(r2=lambda alpha, sigma: sigma**2),
        ),
        Misconception(
            "r^2 = sigma^2 / alpha^2 is the variance of x_t / alpha around x_0; the data's own variance narrows it to "
            "sigma^2 / (alpha^2 + sigma^2).",
            _pseudoinverse(r2=lambda alpha, sigma: sigma**2 / alpha**2),
        ),
        Misconception(
            "this is r^2 where alpha = 1 (VE), as the paper prints it. With a factor alpha it is sigma^2 / (alpha^2 + sigma^2).",
            _pseudoinverse(r2=lambda alpha, sigma: sigma**2 / (1 + sigma**2)),
        ),
        Misconception(
            "you use r where r^2 belongs.",
            _pseudoinverse(r2=lambda alpha, sigma: _ratio(alpha, sigma).sqrt()),
        ),
        Misconception(
            "the measurement's noise has the variance noise_std squared.",
            _pseudoinverse(power=1),
        ),
        Misconception(
            "r^2 is a variance of x_0: A x_0 has the covariance r^2 A A^T, not r^2 I.",
            _pseudoinverse(product=False),
        ),
        Misconception(
            "you compare y with A x_t. The measurement was made on x_0: compare with A x0_hat.",
            _pseudoinverse(estimate=lambda x, s, alpha, sigma: x),
        ),
        Misconception(
            "the division by alpha is missing in Tweedie's formula.",
            _pseudoinverse(estimate=lambda x, s, alpha, sigma: x + sigma**2 * s),
        ),
        Misconception(
            "Tweedie's formula has sigma squared: x0_hat = (x + sigma^2 score) / alpha.",
            _pseudoinverse(estimate=lambda x, s, alpha, sigma: (x + sigma * s) / alpha),
        ),
        Misconception(
            "you average over the batch before differentiating: each point's pull comes out divided by B. Use the sum.",
            lambda *args: _pseudoinverse(factor=1 / len(args[-2]))(*args),
        ),
        Misconception(
            "this is the pull alone: Bayes' rule adds it to the score.",
            lambda score, *args: pseudoinverse_guided(score, *args) - score(*args[-2:]),
        ),
    ),
    hints=(
        "Tweedie: x0_hat = (x + sigma^2 score) / alpha, computed from a leaf, leaf = x.detach().requires_grad_().",
        "gap = y - x0_hat A^T, (B, M); its covariance is S = r^2 A A^T + noise_std^2 I, (M, M).",
        "log N = -1/2 gap^T S^{-1} gap + constant; `torch.linalg.solve(S, gap.T).T` is S^{-1} gap for every row.",
        "`torch.autograd.grad(log_likelihood.sum(), leaf)` carries the Jacobian of x0_hat by itself. Add the score.",
    ),
)

# -- 13.3 replacement, and the way back --------------------------------------------------------------------------------


def replace_and_return(
    x: Tensor, known: Tensor, mask: Tensor, sde: SDE, t: Tensor, s: Tensor, z: Tensor, z_back: Tensor
) -> tuple[Tensor, Tensor]:
    """The state at s with its known part replaced, and the same led back to t. Shapes: x, known, z (B, D), mask (D,)."""
    return _replace()(x, known, mask, sde, t, s, z, z_back)


def _replace(
    known_part: Callable[..., Tensor] = lambda known, sde, t, s, z: sde.alpha(s) * known + sde.sigma(s) * z,
    ratio: Callable[..., Tensor] = lambda sde, t, s: sde.alpha(t) / sde.alpha(s),
    spread: Callable[..., Tensor] = lambda sde, t, s: _kernel_variance(sde, t, s).sqrt(),
    swap: bool = False,
    from_before: bool = False,
) -> Callable[..., tuple[Tensor, Tensor]]:
    def step(
        x: Tensor, known: Tensor, mask: Tensor, sde: SDE, t: Tensor, s: Tensor, z: Tensor, z_back: Tensor
    ) -> tuple[Tensor, Tensor]:
        mixed = torch.where(~mask if swap else mask, known_part(known, sde, t, s, z), x)
        return mixed, ratio(sde, t, s) * (x if from_before else mixed) + spread(sde, t, s) * z_back

    return step


def _kernel_variance(sde: SDE, t: Tensor, s: Tensor) -> Tensor:
    """sigma_t^2 - r^2 sigma_s^2."""
    return sde.sigma(t) ** 2 - (sde.alpha(t) / sde.alpha(s)) ** 2 * sde.sigma(s) ** 2


def _draw_replace(generator: Generator) -> tuple[Any, ...]:
    sde, b, d = linear_sde(generator), count(generator, 1, 9), count(generator, 3, 8)
    s = time_of(generator, sde, 0.2, 0.5)
    t = s + time_of(generator, sde, 0.1, 0.3)
    mask = torch.randperm(d, generator=generator) < count(generator, 1, d - 1)
    x, known, z, z_back = normal(generator, 4, b, d)
    return x, known, mask, sde, t, s, z, z_back


def _two_states(attempt: Callable[..., Any], args: tuple[Any, ...]) -> Observed:
    got = attempt(*args)
    if not isinstance(got, tuple | list) or len(got) != 2:
        raise TypeError("expected two tensors, `return x_s, x_t`")
    return {"state at s": got[0], "state led back to t": got[1]}


REPLACE = Exercise(
    id="13.3",
    title="replacement, and the way back",
    reference=replace_and_return,
    draw=_draw_replace,
    seed=20_021,
    observe=_two_states,
    uses=(*COEFFICIENTS, "coursework.sdes.SDE.perturb"),
    misconceptions=(
        Misconception(
            "the known part is noised to t, but after the step the state is at the time s.",
            _replace(lambda known, sde, t, s, z: sde.alpha(t) * known + sde.sigma(t) * z),
        ),
        Misconception(
            "you put the clean known part into a noisy state: the score has never seen such points. Noise it to s.",
            _replace(lambda known, sde, t, s, z: known),
        ),
        Misconception(
            "the known part is noised but not scaled: alpha_s known + sigma_s z.",
            _replace(lambda known, sde, t, s, z: known + sde.sigma(s) * z),
        ),
        Misconception(
            "the known part is scaled but not noised: alpha_s known + sigma_s z.",
            _replace(lambda known, sde, t, s, z: sde.alpha(s) * known),
        ),
        Misconception(
            "you use sigma squared, a variance, where the standard deviation belongs.",
            _replace(lambda known, sde, t, s, z: sde.alpha(s) * known + sde.sigma(s) ** 2 * z),
        ),
        Misconception(
            "the mask is the wrong way round: True where known.",
            _replace(swap=True),
        ),
        Misconception(
            "the way back starts from the state before the replacement: then nothing of the known part reaches the rest.",
            _replace(from_before=True),
        ),
        Misconception(
            "the way back treats x_s as clean data, alpha_t x_s + sigma_t z: it has noise already. From s to t the factor is "
            "r = alpha_t / alpha_s.",
            _replace(ratio=lambda sde, t, s: sde.alpha(t), spread=lambda sde, t, s: sde.sigma(t)),
        ),
        Misconception(
            "r is upside down: going towards noise shrinks the signal, r = alpha_t / alpha_s < 1.",
            _replace(ratio=lambda sde, t, s: sde.alpha(s) / sde.alpha(t)),
        ),
        Misconception(
            "the noise that is there at s shrinks with r too: G^2 = sigma_t^2 - r^2 sigma_s^2.",
            _replace(spread=lambda sde, t, s: (sde.sigma(t) ** 2 - sde.sigma(s) ** 2).sqrt()),
        ),
        Misconception(
            "G^2 is a variance: multiply the noise with its root.",
            _replace(spread=_kernel_variance),
        ),
        Misconception(
            "sqrt(1 - r^2) is VP's G. In general it is sqrt(sigma_t^2 - r^2 sigma_s^2).",
            _replace(spread=lambda sde, t, s: (1 - (sde.alpha(t) / sde.alpha(s)) ** 2).sqrt()),
        ),
        Misconception(
            "x_s has noise already: what is added on the way back is less than sigma_t, G^2 = sigma_t^2 - r^2 sigma_s^2.",
            _replace(spread=lambda sde, t, s: sde.sigma(t)),
        ),
        Misconception(
            "z and z_back are exchanged: z noises the known part, z_back the way back.",
            lambda *args: replace_and_return(*args[:-2], args[-1], args[-2]),
        ),
        Misconception(
            "the two answers come in the wrong order: `return x_s, x_t`.",
            lambda *args: replace_and_return(*args)[::-1],
        ),
    ),
    hints=(
        "The kernel of lesson 07 leads from clean data to any time: alpha_s known + sigma_s z is the known part at s.",
        "`torch.where(mask, noised_known, x)` takes the first where the mask is True.",
        "Lesson 08: from s up to t, x <- r x + G z with r = alpha_t / alpha_s and G^2 = sigma_t^2 - r^2 sigma_s^2.",
    ),
)

EXERCISES = (POSTERIOR, PSEUDOINVERSE, REPLACE)
