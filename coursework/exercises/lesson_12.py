"""Exercises of lesson 12, DDPM and DDIM."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Generator, Tensor

from coursework.exercises.draws import count, normal, number, sizes, uniform
from coursework.exercises.engine import Exercise, Misconception
from coursework.exercises.observers import value_and_gradient

Two = tuple[Tensor, Tensor]


def _named(*names: str) -> Callable[[Callable[..., Any], tuple[Any, ...]], dict[str, Any]]:
    """Compare a tuple of values, each under its own name."""

    def observe(attempt: Callable[..., Any], args: tuple[Any, ...]) -> dict[str, Any]:
        answers = attempt(*args)
        if not isinstance(answers, tuple | list) or len(answers) != len(names):
            kind = f"{len(answers)} values" if isinstance(answers, tuple | list) else f"a {type(answers).__name__}"
            raise TypeError(f"expected {len(names)} values, `return {', '.join(names)}`; got {kind}")
        return dict(zip(names, answers, strict=True))

    return observe


# -- 12.1 many steps at once -------------------------------------------------------------------------------------------


def jump(betas: Tensor, x0: Tensor, t: Tensor, noise: Tensor) -> Tensor:
    """sqrt(alpha_bar_t) x_0 + sqrt(1 - alpha_bar_t) noise. Shapes: (N,), (B, D), (B,) long, (B, D) -> (B, D)."""
    return _mix(torch.cumprod(1 - betas, 0)[t], x0, noise)


def _mix(alpha_bar: Tensor, x0: Tensor, noise: Tensor) -> Tensor:
    return alpha_bar.sqrt()[:, None] * x0 + (1 - alpha_bar).sqrt()[:, None] * noise


def _draw_jump(generator: Generator) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    (b, d), n = sizes(generator), count(generator, 5, 12)
    t = torch.randint(n, (b,), generator=generator)
    t[1:2] = 0  # where t - 1 wraps
    return uniform(generator, n, low=0.03, high=0.1), 1 + normal(generator, b, d), t, normal(generator, b, d)


JUMP = Exercise(
    id="12.1",
    title="many steps at once",
    reference=jump,
    draw=_draw_jump,
    misconceptions=(
        Misconception(
            "both roots are missing: alpha_bar is a squared factor, and 1 - alpha_bar a variance.",
            lambda betas, x0, t, noise: (lambda a: a * x0 + (1 - a) * noise)(torch.cumprod(1 - betas, 0)[t][:, None]),
        ),
        Misconception(
            "the product is over 1 - beta, the factors that keep the signal; yours is over beta itself.",
            lambda betas, x0, t, noise: _mix(torch.cumprod(betas, 0)[t], x0, noise),
        ),
        Misconception(
            "you subtract the sum of the betas from 1. The factors 1 - beta multiply, step after step; their product is close "
            "to that only while it is close to 1.",
            lambda betas, x0, t, noise: _mix(1 - torch.cumsum(betas, 0)[t], x0, noise),
        ),
        Misconception(
            "your signal is alpha_bar x_0: the root is missing. alpha_bar is the product of the squared factors.",
            lambda betas, x0, t, noise: (lambda a: a * x0 + (1 - a).sqrt() * noise)(
                torch.cumprod(1 - betas, 0)[t][:, None]
            ),
        ),
        Misconception(
            "you multiply the noise with 1 - alpha_bar. That is its variance; standard normal noise is multiplied with the "
            "standard deviation.",
            lambda betas, x0, t, noise: (lambda a: a.sqrt() * x0 + (1 - a) * noise)(
                torch.cumprod(1 - betas, 0)[t][:, None]
            ),
        ),
        Misconception(
            "you multiply the noise with 1 - sqrt(alpha_bar). The variances add up to 1, not the factors: sqrt(1 - alpha_bar).",
            lambda betas, x0, t, noise: (lambda a: a.sqrt() * x0 + (1 - a.sqrt()) * noise)(
                torch.cumprod(1 - betas, 0)[t][:, None]
            ),
        ),
        Misconception(
            "you take alpha_bar[t - 1]: one step early, and at t = 0 Python's index -1 is the noisiest level of all. Index t "
            "has already taken the step with beta_t.",
            lambda betas, x0, t, noise: _mix(torch.cumprod(1 - betas, 0)[t - 1], x0, noise),
        ),
        Misconception(
            "you stop one step early: index t has already taken the step with beta_t, so the product includes it.",
            lambda betas, x0, t, noise: _mix(torch.cumprod(1 - betas, 0)[t] / (1 - betas[t]), x0, noise),
        ),
        Misconception(
            "this is one step of the chain, with beta_t alone. From x_0 to x_t all the factors up to t multiply.",
            lambda betas, x0, t, noise: _mix(1 - betas[t], x0, noise),
        ),
        Misconception(
            "you multiply the roots sqrt(1 - beta) and take the root again. alpha_bar is the product of 1 - beta; the root comes "
            "once.",
            lambda betas, x0, t, noise: _mix(torch.cumprod(1 - betas, 0).sqrt()[t], x0, noise),
        ),
        Misconception(
            "signal and noise are swapped: at small t nearly all of x_0 is left.",
            lambda betas, x0, t, noise: _mix(1 - torch.cumprod(1 - betas, 0)[t], x0, noise),
        ),
        Misconception(
            "exp(-sum of betas) is the continuous-time formula. The chain's own factors are 1 - beta, and they are a little "
            "smaller than exp(-beta).",
            lambda betas, x0, t, noise: _mix(torch.exp(-torch.cumsum(betas, 0))[t], x0, noise),
        ),
    ),
    hints=(
        "Two numbers for each point: how much of x_0 is left, and the standard deviation of all the noise so far.",
        "Each step multiplies the signal with sqrt(1 - beta). After steps 0 to t the factor is sqrt(alpha_bar_t).",
        "`torch.cumprod(1 - betas, 0)` holds alpha_bar for every index; `[t]` picks one for each point.",
        "Give it a second dimension, `[:, None]`, before it meets (B, D).",
    ),
)

# -- 12.2 one step back, if x_0 were known -----------------------------------------------------------------------------


def posterior(x0: Tensor, x_t: Tensor, beta: Tensor, before: Tensor) -> Two:
    """Mean and variance of q(x_{t-1} | x_t, x_0). Shapes: (B, D), (B, D), (), () -> (B, D), ()."""
    noise = 1 - before * (1 - beta)
    mean = before.sqrt() * beta / noise * x0 + (1 - beta).sqrt() * (1 - before) / noise * x_t
    return mean, beta * (1 - before) / noise


def _draw_posterior(generator: Generator) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    beta, before = uniform(generator, low=0.1, high=0.45), uniform(generator, low=0.55, high=0.9)
    b, d = sizes(generator)
    return 1 + normal(generator, b, d), normal(generator, b, d), beta, before


def _weights(data: Callable, noisy: Callable) -> Callable[..., Two]:
    """The right variance, and a mean with these weights, functions of beta, before and 1 - alpha_bar."""

    def wrong(x0: Tensor, x_t: Tensor, beta: Tensor, before: Tensor) -> Two:
        noise = 1 - before * (1 - beta)
        mean = data(beta, before, noise) * x0 + noisy(beta, before, noise) * x_t
        return mean, beta * (1 - before) / noise

    return wrong


def _data_weight(beta: Tensor, before: Tensor, noise: Tensor) -> Tensor:
    return before.sqrt() * beta / noise


def _noisy_weight(beta: Tensor, before: Tensor, noise: Tensor) -> Tensor:
    return (1 - beta).sqrt() * (1 - before) / noise


def _variance(wrong: Callable) -> Callable[..., Two]:
    return lambda x0, x_t, beta, before: (posterior(x0, x_t, beta, before)[0], wrong(beta, before))


def _square(precision: Callable, pull: Callable) -> Callable[..., Two]:
    """The completed square with another precision of x_t's part, and another factor of x_t: functions of beta."""

    def wrong(x0: Tensor, x_t: Tensor, beta: Tensor, before: Tensor) -> Two:
        variance = 1 / (1 / (1 - before) + precision(beta))
        return variance * (before.sqrt() * x0 / (1 - before) + pull(beta) * x_t), variance

    return wrong


POSTERIOR = Exercise(
    id="12.2",
    title="one step back, if x_0 were known",
    reference=posterior,
    draw=_draw_posterior,
    observe=_named("mean", "variance"),
    misconceptions=(
        Misconception(
            "the two weights of the mean are swapped: for a small beta nearly all the weight is on x_t, the neighbour.",
            _weights(_noisy_weight, _data_weight),
        ),
        Misconception(
            "your variance is beta, that of the step forward. Knowing x_0 as well makes it smaller: beta (1 - before) / (1 - "
            "alpha_bar).",
            _variance(lambda beta, before: beta),
        ),
        Misconception(
            "you return the standard deviation where the variance is asked for.",
            _variance(lambda beta, before: (beta * (1 - before) / (1 - before * (1 - beta))).sqrt()),
        ),
        Misconception(
            "the fraction in the variance is upside down: with yours, knowing x_0 makes x_{t-1} less certain.",
            _variance(lambda beta, before: beta * (1 - before * (1 - beta)) / (1 - before)),
        ),
        Misconception(
            "you average the two precisions. Precisions add: 1 / variance = (1 - beta) / beta + 1 / (1 - before).",
            _variance(lambda beta, before: 2 * beta * (1 - before) / (1 - before * (1 - beta))),
        ),
        Misconception(
            "the weight of x_0 has sqrt(alpha_bar_t); the prior of x_{t-1} has mean sqrt(alpha_bar_{t-1}) x_0, so it is "
            "sqrt(before).",
            _weights(lambda beta, before, noise: (before * (1 - beta)).sqrt() * beta / noise, _noisy_weight),
        ),
        Misconception(
            "the weight of x_0 lacks a root: x_{t-1} has mean sqrt(alpha_bar_{t-1}) x_0.",
            _weights(lambda beta, before, noise: before * beta / noise, _noisy_weight),
        ),
        Misconception(
            "the weight of x_t lacks a root: x_t has mean sqrt(1 - beta) x_{t-1}.",
            _weights(_data_weight, lambda beta, before, noise: (1 - beta) * (1 - before) / noise),
        ),
        Misconception(
            "you divide by the square root of 1 - alpha_bar. It comes from a variance, and stands without a root.",
            _weights(
                lambda beta, before, noise: before.sqrt() * beta / noise.sqrt(),
                lambda beta, before, noise: (1 - beta).sqrt() * (1 - before) / noise.sqrt(),
            ),
        ),
        Misconception(
            "your mean undoes the step forward, x_t / sqrt(1 - beta), and forgets x_0. The posterior mean weighs both.",
            _weights(lambda beta, before, noise: 0 * beta, lambda beta, before, noise: (1 - beta).rsqrt()),
        ),
        Misconception(
            "the square is not quite complete: x_{t-1} enters x_t as sqrt(1 - beta) x_{t-1}, so the precision that x_t adds is "
            "(1 - beta) / beta, not 1 / beta (and alpha_bar_t is before (1 - beta), not before - beta).",
            _square(lambda beta: 1 / beta, lambda beta: (1 - beta).sqrt() / beta),
        ),
        Misconception(
            "you observe x_t / sqrt(1 - beta) with the variance beta. Dividing x_t divides its noise as well: beta / (1 - beta).",
            _square(lambda beta: 1 / beta, lambda beta: (1 - beta).rsqrt() / beta),
        ),
        Misconception(
            "you take `before` for alpha_bar_t. It is alpha_bar_{t-1}, the level before the step; alpha_bar_t = before (1 - beta).",
            lambda x0, x_t, beta, before: posterior(x0, x_t, beta, before / (1 - beta)),
        ),
        Misconception(
            "your mean is the sum of precision times value, and is not yet multiplied with the variance.",
            lambda x0, x_t, beta, before: (lambda mean, variance: (mean / variance, variance))(
                *posterior(x0, x_t, beta, before)
            ),
        ),
        Misconception(
            "you return the precision; the variance is one over it.",
            _variance(lambda beta, before: 1 / (1 - before) + (1 - beta) / beta),
        ),
    ),
    hints=(
        "Bayes' rule: a prior N(sqrt(before) x_0, (1 - before) I) for x_{t-1}, and an observation x_t of sqrt(1 - beta) x_{t-1} "
        "with noise of variance beta.",
        "Precisions add: 1 / variance = 1 / (1 - before) + (1 - beta) / beta. Simplify with alpha_bar_t = before (1 - beta).",
        "mean = variance * ( sqrt(before) x_0 / (1 - before) + sqrt(1 - beta) x_t / beta ).",
    ),
)

# -- 12.3 one term of the bound ----------------------------------------------------------------------------------------


def kl_term(noise: Tensor, prediction: Tensor, beta: Tensor, before: Tensor, variance: Tensor) -> Tensor:
    """KL( q(x_{t-1} | x_t, x_0) || N(mu_t, variance I) ). Shapes: (B, D), (B, D), (), (), () -> (B,)."""
    return _kl(noise, prediction, beta, before, variance, 1.0, 1.0)


def _kl(
    noise: Tensor, prediction: Tensor, beta: Tensor, before: Tensor, variance: Tensor, spread: float, error: float
) -> Tensor:
    """The term of the variances times `spread`, and that of the means times `error`."""
    ratio = beta * (1 - before) / (1 - before * (1 - beta)) / variance
    weight = beta**2 / (2 * variance * (1 - beta) * (1 - before * (1 - beta)))
    variances = 0.5 * noise.shape[1] * (ratio - 1 - ratio.log())
    return spread * variances + error * weight * (noise - prediction).square().sum(1)


def _draw_kl(generator: Generator) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    beta, before = uniform(generator, low=0.1, high=0.45), uniform(generator, low=0.4, high=0.8)
    small, v = beta * (1 - before) / (1 - before * (1 - beta)), uniform(generator, low=0.5, high=0.9)
    variance = beta**v * small ** (1 - v)
    b, d = sizes(generator)
    return normal(generator, b, d), normal(generator, b, d), beta, before, variance


def _reversed_kl(noise: Tensor, prediction: Tensor, beta: Tensor, before: Tensor, variance: Tensor) -> Tensor:
    small = beta * (1 - before) / (1 - before * (1 - beta))
    ratio = variance / small
    return 0.5 * noise.shape[1] * (ratio - 1 - ratio.log()) + _error(noise, prediction, beta, before, small)


def _spread_of(ratio: Callable[[Tensor, Tensor, Tensor], Tensor]) -> Callable[..., Tensor]:
    """Another ratio of the variances, a function of beta, the posterior's variance and the model's."""

    def wrong(noise: Tensor, prediction: Tensor, beta: Tensor, before: Tensor, variance: Tensor) -> Tensor:
        r = ratio(beta, beta * (1 - before) / (1 - before * (1 - beta)), variance)
        return 0.5 * noise.shape[1] * (r - 1 - r.log()) + _error(noise, prediction, beta, before, variance)

    return wrong


def _error(noise: Tensor, prediction: Tensor, beta: Tensor, before: Tensor, variance: Tensor) -> Tensor:
    return _kl(noise, prediction, beta, before, variance, 0.0, 1.0)


def _spread(noise: Tensor, prediction: Tensor, beta: Tensor, before: Tensor, variance: Tensor) -> Tensor:
    return _kl(noise, prediction, beta, before, variance, 1.0, 0.0)


def _scaled_error(factor: Callable[[Tensor, Tensor, Tensor], Tensor]) -> Callable[..., Tensor]:
    """The means' term times a function of beta, before and variance."""
    return lambda noise, prediction, beta, before, variance: _kl(
        noise, prediction, beta, before, variance, 1.0, factor(beta, before, variance)
    )


KL = Exercise(
    id="12.3",
    title="one term of the bound",
    reference=kl_term,
    draw=_draw_kl,
    seed=20_006,
    misconceptions=(
        Misconception(
            "the term of the variances is missing. It is zero only where the model's variance is the posterior's.",
            _error,
        ),
        Misconception("the 1/2 of the squared mean error is missing.", _scaled_error(lambda beta, before, variance: 2)),
        Misconception(
            "the term of the variances counts once for each of the D dimensions; yours counts once.",
            lambda noise, *rest: _kl(noise, *rest, 1 / noise.shape[1], 1.0),
        ),
        Misconception(
            "KL divergence is not symmetric: yours is KL( model || posterior ). Here the posterior comes first.",
            _reversed_kl,
        ),
        Misconception(
            "you divide the mean's error by the posterior's variance. In KL( q || p ) it is p's, the model's.",
            lambda noise, prediction, beta, before, variance: (
                _spread(noise, prediction, beta, before, variance)
                + _error(noise, prediction, beta, before, beta * (1 - before) / (1 - before * (1 - beta)))
            ),
        ),
        Misconception(
            "the factor 1 - alpha_bar_t is missing in the denominator: mu_t has beta / sqrt(1 - alpha_bar_t) in front of the "
            "noise.",
            _scaled_error(lambda beta, before, variance: 1 - before * (1 - beta)),
        ),
        Misconception(
            "you use 1 - alpha_bar_{t-1} where 1 - alpha_bar_t belongs: the noise prediction is made at x_t.",
            _scaled_error(lambda beta, before, variance: (1 - before * (1 - beta)) / (1 - before)),
        ),
        Misconception(
            "the factor 1 / (1 - beta) is missing: mu_t divides everything by sqrt(1 - beta).",
            _scaled_error(lambda beta, before, variance: 1 - beta),
        ),
        Misconception(
            "you divide the squared error by the model's standard deviation; it is measured in units of the variance.",
            _scaled_error(lambda beta, before, variance: variance.sqrt()),
        ),
        Misconception(
            "you do not square the factor beta / sqrt(1 - alpha_bar_t) of the noise: a squared distance squares its factor.",
            _scaled_error(lambda beta, before, variance: (1 - before * (1 - beta)).sqrt() * (1 - beta).sqrt() / beta),
        ),
        Misconception(
            "you square the noise's error, but not its factor's beta: the distance has beta / sqrt((1 - beta)(1 - alpha_bar_t)), "
            "its square has beta squared.",
            _scaled_error(lambda beta, before, variance: 1 / beta),
        ),
        Misconception(
            "the ratio of the variances is upside down: in KL( q || p ) it is q's, the posterior's, over p's, the model's.",
            _spread_of(lambda beta, small, variance: variance / small),
        ),
        Misconception(
            "you take beta for the posterior's variance. That of exercise 12.2 is smaller: beta (1 - before) / (1 - alpha_bar_t).",
            _spread_of(lambda beta, small, variance: beta / variance),
        ),
        Misconception(
            "you average the squared error over the dimensions. Squared distances, and nats of independent dimensions, add.",
            lambda noise, *rest: _spread(noise, *rest) + _error(noise, *rest) / noise.shape[1],
        ),
        Misconception(
            "you average over the dimensions. Nats of independent dimensions add.",
            lambda noise, *rest: kl_term(noise, *rest) / noise.shape[1],
        ),
    ),
    hints=(
        "KL( N(m, a I) || N(mu, b I) ) = D/2 (a/b - 1 - log(a/b)) + |m - mu|^2 / (2 b). Which are a and b?",
        "a is the posterior variance of exercise 12.2, b the given variance.",
        "Both means are (x_t - beta / sqrt(1 - alpha_bar_t) e) / sqrt(1 - beta): with the true noise, and with the prediction. "
        "x_t drops out of the difference.",
        "|m - mu|^2 = beta^2 / ((1 - beta)(1 - alpha_bar_t)) |noise - prediction|^2, with alpha_bar_t = before (1 - beta).",
    ),
)

# -- 12.4 the loss that is stuck at 1 ----------------------------------------------------------------------------------


class NoiseModel:
    """(x, t) -> x A^T + b + t c: a noise model with three parameters to differentiate."""

    def __init__(self, matrix: Tensor, offset: Tensor, slope: Tensor) -> None:
        self.parameters = [matrix.requires_grad_(), offset.requires_grad_(), slope.requires_grad_()]

    def __call__(self, x: Tensor, t: Tensor) -> Tensor:
        """Shapes: (B, D), (B,) -> (B, D)."""
        matrix, offset, slope = self.parameters
        return x @ matrix.T + offset + t.to(x.dtype)[:, None] * slope


def simple_loss(noise_model: Callable, alpha_bar: Tensor, x0: Tensor, t: Tensor, generator: Generator) -> Tensor:
    """Mean of (noise - noise_model(x_t, t))^2. Shapes: (N,), (B, D), (B,) long -> ()."""
    noise = _noise_like(x0, generator)
    return (noise_model(_mix(alpha_bar[t], x0, noise), t) - noise).square().mean()


def _noise_like(x0: Tensor, generator: Generator) -> Tensor:
    return torch.randn(x0.shape, generator=generator, dtype=x0.dtype)


def _draw_simple(generator: Generator) -> tuple[NoiseModel, Tensor, Tensor, Tensor, Generator]:
    (b, d), n = sizes(generator), count(generator, 5, 12)
    model = NoiseModel(0.5 * normal(generator, d, d), normal(generator, d), 0.3 * normal(generator, d))
    alpha_bar = torch.cumprod(1 - uniform(generator, n, low=0.1, high=0.4), 0)
    x0, t = 1 + normal(generator, b, d), torch.randint(n, (b,), generator=generator)
    return model, alpha_bar, x0, t, Generator().manual_seed(count(generator, 0, 10_000))


def _observe_loss(attempt: Callable[..., Any], args: tuple[Any, ...]) -> dict[str, Any]:
    """Value and gradient, and a word where the noise came from elsewhere; the generator is set back."""
    generator = args[-1]
    before, seen = generator.get_state(), value_and_gradient(attempt, args)
    drawn = not torch.equal(before, generator.get_state())
    generator.set_state(before)
    if not drawn:
        raise ValueError("nothing is drawn from `generator`; is the noise torch.randn(..., generator=generator)?")
    return dict(seen)


def _loss_of(error: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """A loss whose squared error is made of the model, x_t, t, noise, x0 and a second draw of noise."""

    def wrong(noise_model: Callable, alpha_bar: Tensor, x0: Tensor, t: Tensor, generator: Generator) -> Tensor:
        noise, second = _noise_like(x0, generator), _noise_like(x0, generator)
        return error(noise_model, _mix(alpha_bar[t], x0, noise), t, noise, x0, second).square().mean()

    return wrong


def _loss_with(signal: Callable, spread: Callable, target: Callable = torch.ones_like) -> Callable[..., Tensor]:
    """The loss with other factors, functions of alpha_bar: of x_0, of the noise, and of the noise as the target."""

    def wrong(noise_model: Callable, alpha_bar: Tensor, x0: Tensor, t: Tensor, generator: Generator) -> Tensor:
        noise, a = _noise_like(x0, generator), alpha_bar[t][:, None]
        return (noise_model(signal(a) * x0 + spread(a) * noise, t) - target(a) * noise).square().mean()

    return wrong


SIMPLE = Exercise(
    id="12.4",
    title="the loss that is stuck at 1",
    reference=simple_loss,
    draw=_draw_simple,
    observe=_observe_loss,
    misconceptions=(
        Misconception(
            "this is the bug: the target is a second draw, and x_t knows nothing of it. The best prediction of independent noise "
            "is 0, and the loss is stuck at 1. Draw once, use it twice.",
            _loss_of(lambda model, x_t, t, noise, x0, second: model(x_t, t) - second),
        ),
        Misconception(
            "the sign: subtract the noise from the prediction. With yours the model learns minus the noise.",
            _loss_of(lambda model, x_t, t, noise, x0, second: model(x_t, t) + noise),
        ),
        Misconception(
            "the model sees the clean x_0, in which there is no noise to be found. Show it x_t.",
            _loss_of(lambda model, x_t, t, noise, x0, second: model(x0, t) - noise),
        ),
        Misconception(
            "your target is x_t - x_0: scaled noise, and a part of -x_0. The target is the noise itself, of variance 1 at every "
            "t.",
            _loss_of(lambda model, x_t, t, noise, x0, second: model(x_t, t) - (x_t - x0)),
        ),
        Misconception(
            "your target is x_0: that is a data prediction. Here the model predicts the noise.",
            _loss_of(lambda model, x_t, t, noise, x0, second: model(x_t, t) - x0),
        ),
        Misconception(
            "the model is told t + 1. Here t is the index from 0, the sampler will use the same.",
            _loss_of(lambda model, x_t, t, noise, x0, second: model(x_t, t + 1) - noise),
        ),
        Misconception(
            "both roots are missing in x_t: alpha_bar is a squared factor, 1 - alpha_bar a variance.",
            _loss_with(lambda a: a, lambda a: 1 - a),
        ),
        Misconception(
            "the noise's factor in x_t lacks its root: 1 - alpha_bar is a variance.",
            _loss_with(lambda a: a.sqrt(), lambda a: 1 - a),
        ),
        Misconception(
            "your target is the scaled noise sqrt(1 - alpha_bar) noise. The model predicts the noise itself, of variance 1 at "
            "every t.",
            _loss_with(lambda a: a.sqrt(), lambda a: (1 - a).sqrt(), lambda a: (1 - a).sqrt()),
        ),
        Misconception(
            "your target is the score, -noise / sqrt(1 - alpha_bar). Here the model predicts the noise.",
            _loss_with(lambda a: a.sqrt(), lambda a: (1 - a).sqrt(), lambda a: -(1 - a).rsqrt()),
        ),
        Misconception(
            "you add the noise to the unscaled x_0; the chain shrinks the signal by sqrt(alpha_bar) as the noise grows.",
            _loss_with(lambda a: 1, lambda a: (1 - a).sqrt()),
        ),
        Misconception(
            "you sum over the dimensions. L_simple in code is a mean over all elements, so that answering 0 has loss 1.",
            lambda model, alpha_bar, x0, t, generator: x0.shape[1] * simple_loss(model, alpha_bar, x0, t, generator),
        ),
        Misconception(
            "there is no 1/2 in L_simple.",
            lambda *args: 0.5 * simple_loss(*args),
        ),
    ),
    hints=(
        "How many times is torch.randn called in the circulating code? How many noises should there be?",
        "Draw the noise first; make x_t of it with exercise 12.1's formula; compare the prediction with the same noise.",
        "`alpha_bar[t][:, None]` has one value a point. The loss is `(prediction - noise).square().mean()`.",
    ),
)

# -- 12.5 one DDIM step ------------------------------------------------------------------------------------------------


def ddim_step(x_t: Tensor, prediction: Tensor, now: Tensor, later: Tensor, eta: float, z: Tensor) -> Tensor:
    """From alpha_bar `now` to the larger `later`. Shapes: (B, D), (B, D), (), (), a number, (B, D) -> (B, D)."""
    spread = _ddim_spread(now, later, eta)
    return _ddim(x_t, prediction, now, later, z, (1 - later - spread**2).sqrt(), spread)


def _ddim_spread(now: Tensor, later: Tensor, eta: float) -> Tensor:
    return eta * ((1 - later) / (1 - now) * (1 - now / later)).sqrt()


def _ddim(
    x_t: Tensor, prediction: Tensor, now: Tensor, later: Tensor, z: Tensor, rest: Tensor, spread: Tensor
) -> Tensor:
    x0 = (x_t - (1 - now).sqrt() * prediction) / now.sqrt()
    return later.sqrt() * x0 + rest * prediction + spread * z


def _draw_ddim(generator: Generator) -> tuple[Tensor, Tensor, Tensor, Tensor, float, Tensor]:
    # In these ranges the roots of the usual mistakes stay real: 1 - later > s, for one.
    now, later = uniform(generator, low=0.15, high=0.5), uniform(generator, low=0.55, high=0.7)
    (b, d), eta = sizes(generator), number(generator, 0.3, 0.5)
    return normal(generator, b, d), normal(generator, b, d), now, later, eta, normal(generator, b, d)


def _ddim_with(rest: Callable, spread: Callable) -> Callable[..., Tensor]:
    """Other factors in front of the prediction and of z: functions of now, later and eta."""
    return lambda x_t, prediction, now, later, eta, z: _ddim(
        x_t, prediction, now, later, z, rest(now, later, eta), spread(now, later, eta)
    )


def _rest(now: Tensor, later: Tensor, eta: float) -> Tensor:
    return (1 - later - _ddim_spread(now, later, eta) ** 2).sqrt()


DDIM = Exercise(
    id="12.5",
    title="one DDIM step",
    reference=ddim_step,
    draw=_draw_ddim,
    misconceptions=(
        Misconception(
            "you keep all the old noise, sqrt(1 - later), and add new noise: together they are too much. The variances of both "
            "must add up to 1 - later.",
            _ddim_with(lambda now, later, eta: (1 - later).sqrt(), _ddim_spread),
        ),
        Misconception(
            "you subtract s where its square belongs: variances add, standard deviations do not.",
            _ddim_with(
                lambda now, later, eta: (1 - later - _ddim_spread(now, later, eta)).sqrt(),
                _ddim_spread,
            ),
        ),
        Misconception(
            "you multiply z with s squared. s is the standard deviation.",
            _ddim_with(_rest, lambda now, later, eta: _ddim_spread(now, later, eta) ** 2),
        ),
        Misconception(
            "eta is missing: this is the step of eta = 1.",
            lambda x_t, prediction, now, later, eta, z: ddim_step(x_t, prediction, now, later, 1.0, z),
        ),
        Misconception(
            "z is missing: this is the deterministic step, eta = 0.",
            lambda x_t, prediction, now, later, eta, z: ddim_step(x_t, prediction, now, later, 0.0, z),
        ),
        Misconception(
            "z is never added, though you made room for it: a part of the noise is lost at each step.",
            _ddim_with(_rest, lambda now, later, eta: 0 * now),
        ),
        Misconception(
            "eta multiplies the standard deviation s, not the variance: with sqrt(eta) there is too much new noise.",
            lambda x_t, prediction, now, later, eta, z: ddim_step(x_t, prediction, now, later, eta**0.5, z),
        ),
        Misconception(
            "the division by sqrt(now) is missing: x_t - sqrt(1 - now) e estimates sqrt(now) x_0.",
            lambda x_t, prediction, now, later, eta, z: (
                ddim_step(x_t, prediction, now, later, eta, z)
                + later.sqrt() * (x_t - (1 - now).sqrt() * prediction) * (1 - now.rsqrt())
            ),
        ),
        Misconception(
            "x_0's estimate is multiplied with later; its root belongs there.",
            lambda x_t, prediction, now, later, eta, z: (
                ddim_step(x_t, prediction, now, later, eta, z)
                + (later - later.sqrt()) * (x_t - (1 - now).sqrt() * prediction) / now.sqrt()
            ),
        ),
        Misconception(
            "the noise that stays has the old level, sqrt(1 - now - s^2). At the end of the step it is the new level's.",
            _ddim_with(lambda now, later, eta: (1 - now - _ddim_spread(now, later, eta) ** 2).sqrt(), _ddim_spread),
        ),
        Misconception(
            "s lacks its second factor sqrt(1 - now / later): for a short step s must become small.",
            _ddim_with(
                lambda now, later, eta: (1 - later - eta**2 * (1 - later) / (1 - now)).sqrt(),
                lambda now, later, eta: eta * ((1 - later) / (1 - now)).sqrt(),
            ),
        ),
        Misconception(
            "s lacks its first factor sqrt((1 - later) / (1 - now)): with eta = 1 yours is DDPM's wider choice, beta.",
            _ddim_with(
                lambda now, later, eta: (1 - later - eta**2 * (1 - now / later)).sqrt(),
                lambda now, later, eta: eta * (1 - now / later).sqrt(),
            ),
        ),
        Misconception(
            "x_0's estimate has a plus: the noise is taken out of x_t, so it is subtracted.",
            lambda x_t, prediction, now, later, eta, z: (
                ddim_step(x_t, prediction, now, later, eta, z)
                + 2 * later.sqrt() * (1 - now).sqrt() * prediction / now.sqrt()
            ),
        ),
        Misconception(
            "`now` and `later` are swapped: `later` is nearer to the data and larger, and s has the root of a negative number.",
            lambda x_t, prediction, now, later, eta, z: ddim_step(x_t, prediction, later, now, eta, z),
        ),
    ),
    hints=(
        "Three parts: where x_0 seems to be, the old noise that stays, and new noise.",
        "x_0's estimate: solve x_t = sqrt(now) x_0 + sqrt(1 - now) e for x_0, with the prediction as e.",
        "s = eta sqrt((1 - later) / (1 - now)) sqrt(1 - now / later); the prediction's factor is sqrt(1 - later - s^2).",
    ),
)

# -- 12.6 the picture that keeps its noise -----------------------------------------------------------------------------


def ddim_levels(alpha_bar: Tensor, n_steps: int) -> Two:
    """alpha_bar before and after each step, from the noisiest on. Shapes: (N,) -> (n_steps,), (n_steps,)."""
    now = alpha_bar[len(alpha_bar) - 1 - torch.arange(n_steps) * (len(alpha_bar) // n_steps)]
    return now, torch.cat([now[1:], now.new_ones(1)])


def _draw_levels(generator: Generator) -> tuple[Tensor, int]:
    n_steps, stride = count(generator, 3, 12), count(generator, 3, 9)
    return torch.cumprod(1 - uniform(generator, n_steps * stride, low=0.02, high=0.2), 0), n_steps


def _levels_at(indices: Callable[[int, int], Tensor], last: Callable[[Tensor], Tensor] | None = None) -> Callable:
    """The levels of other indices, and another end."""

    def wrong(alpha_bar: Tensor, n_steps: int) -> Two:
        now = alpha_bar[indices(len(alpha_bar), n_steps)]
        return now, torch.cat([now[1:], last(alpha_bar) if last else now.new_ones(1)])

    return wrong


def _trailing(n: int, n_steps: int) -> Tensor:
    return n - 1 - torch.arange(n_steps) * (n // n_steps)


def _even(n: int, n_steps: int) -> Tensor:
    return torch.linspace(n - 1, 0, n_steps).round().long()


def _circulating(alpha_bar: Tensor, n_steps: int) -> Two:
    levels = alpha_bar[_even(len(alpha_bar), n_steps)]
    return levels[:-1], levels[1:]


LEVELS = Exercise(
    id="12.6",
    title="the picture that keeps its noise",
    reference=ddim_levels,
    draw=_draw_levels,
    observe=_named("now", "later"),
    misconceptions=(
        Misconception(
            "this is the circulating code: n indices give n - 1 steps, and the last one ends at alpha_bar[0], where a little "
            "noise is left.",
            _circulating,
        ),
        Misconception(
            "your last step ends at alpha_bar[0]. That is still a noisy level: the clean data has alpha_bar = 1.",
            _levels_at(_trailing, lambda alpha_bar: alpha_bar[:1]),
        ),
        Misconception(
            "your last step ends at alpha_bar = 0: that is pure noise. Clean data has alpha_bar = 1.",
            _levels_at(_trailing, lambda alpha_bar: torch.zeros_like(alpha_bar[:1])),
        ),
        Misconception(
            'this is the "leading" spacing, the multiples of N / n_steps. Its first step does not start at the last index, where '
            "the state that we draw belongs.",
            _levels_at(lambda n, n_steps: (torch.arange(n_steps) * (n // n_steps)).flip(0)),
        ),
        Misconception(
            "evenly from the last index to index 0: it ends at 1, but spends a whole network call on the tiny step from index 0.",
            _levels_at(_even),
        ),
        Misconception(
            "you space n_steps + 1 indices evenly and pair them: the number of steps is right, but the last one ends at "
            "alpha_bar[0], which is still noisy.",
            lambda alpha_bar, n_steps: _circulating(alpha_bar, n_steps + 1),
        ),
        Misconception(
            "your last step ends at alpha_bar[-1]: Python's index -1 is the noisiest level. Below index 0 lies clean data, 1.",
            _levels_at(_trailing, lambda alpha_bar: alpha_bar[-1:]),
        ),
        Misconception(
            "each step of yours ends one index further on. It has to reach the start of the next step, N / n_steps indices on.",
            lambda alpha_bar, n_steps: (
                ddim_levels(alpha_bar, n_steps)[0],
                torch.cat([alpha_bar.new_ones(1), alpha_bar])[_trailing(len(alpha_bar), n_steps)],
            ),
        ),
        Misconception(
            "you are one index too low: N steps count from 0 to N - 1, and the first step starts at N - 1.",
            _levels_at(lambda n, n_steps: _trailing(n, n_steps) - 1),
        ),
        Misconception(
            "you return the levels from the least noisy one on. Sampling starts at the noisiest.",
            lambda alpha_bar, n_steps: tuple(levels.flip(0) for levels in ddim_levels(alpha_bar, n_steps)),
        ),
        Misconception(
            "the two are swapped: `now` is the level before the step, with more noise and the smaller alpha_bar.",
            lambda alpha_bar, n_steps: ddim_levels(alpha_bar, n_steps)[::-1],
        ),
        Misconception(
            "you return the roots: the step wants alpha_bar itself.",
            lambda alpha_bar, n_steps: tuple(levels.sqrt() for levels in ddim_levels(alpha_bar, n_steps)),
        ),
    ),
    hints=(
        "Count: n_steps steps have n_steps starts and n_steps ends. Each end is the next start. What is the last end?",
        "The starts are the indices N - 1, N - 1 - N / n_steps, N - 1 - 2 N / n_steps, ...",
        "`later` is `now` without its first entry, followed by a 1: clean data.",
    ),
)

# -- 12.7 three losses, one weighting ----------------------------------------------------------------------------------


def min_snr_weights(alpha_bar: Tensor, gamma: float) -> tuple[Tensor, Tensor, Tensor]:
    """Weights of the noise, data and velocity losses. Shapes: (B,) -> three times (B,)."""
    snr = alpha_bar / (1 - alpha_bar)
    capped = snr.clamp(max=gamma)
    return capped / snr, capped, capped / (snr + 1)


def _draw_weights(generator: Generator) -> tuple[Tensor, float]:
    low = uniform(generator, count(generator, 1, 6), low=0.1, high=0.55)
    high = uniform(generator, count(generator, 1, 6), low=0.9, high=0.97)
    return torch.cat([low, high]), number(generator, 2.0, 6.0)


def _weights_of(noise: Callable, data: Callable, velocity: Callable) -> Callable[..., tuple[Tensor, Tensor, Tensor]]:
    """Three functions of the SNR and of gamma."""

    def wrong(alpha_bar: Tensor, gamma: float) -> tuple[Tensor, Tensor, Tensor]:
        snr = alpha_bar / (1 - alpha_bar)
        return noise(snr, gamma), data(snr, gamma), velocity(snr, gamma)

    return wrong


def _capped(snr: Tensor, gamma: float) -> Tensor:
    return snr.clamp(max=gamma)


def _noise_weight(snr: Tensor, gamma: float) -> Tensor:
    return _capped(snr, gamma) / snr


def _velocity_weight(snr: Tensor, gamma: float) -> Tensor:
    return _capped(snr, gamma) / (snr + 1)


def _weights_at(alpha_bar: Tensor, snr: Tensor, gamma: float) -> tuple[Tensor, Tensor, Tensor]:
    return min_snr_weights(snr / (1 + snr), gamma)


WEIGHTS = Exercise(
    id="12.7",
    title="three losses, one weighting",
    reference=min_snr_weights,
    draw=_draw_weights,
    observe=_named("noise", "data", "velocity"),
    misconceptions=(
        Misconception(
            "the noise loss gets the data loss's weight. The squared noise error is the SNR times the squared data error: divide "
            "by it.",
            _weights_of(_capped, _capped, _velocity_weight),
        ),
        Misconception(
            "you give all three losses the data loss's weight. The noise's squared error is SNR times the data's, the velocity's "
            "SNR + 1 times: divide by these.",
            _weights_of(_capped, _capped, _capped),
        ),
        Misconception(
            "noise and velocity are swapped: the noise's squared error is SNR times the data's, the velocity's SNR + 1 times.",
            _weights_of(_velocity_weight, _capped, _noise_weight),
        ),
        Misconception(
            "you multiply with SNR and SNR + 1. Where the error is larger the weight has to be smaller: divide.",
            _weights_of(
                lambda snr, gamma: _capped(snr, gamma) * snr,
                _capped,
                lambda snr, gamma: _capped(snr, gamma) * (snr + 1),
            ),
        ),
        Misconception(
            "you divide by 1 + 1/SNR, or multiply with alpha_bar: that is the velocity's squared error in units of the "
            "noise's. The weight is the data loss's.",
            _weights_of(_noise_weight, _capped, lambda snr, gamma: _capped(snr, gamma) / (1 + 1 / snr)),
        ),
        Misconception(
            "the noise weight is multiplied with the SNR where it has to be divided by it.",
            _weights_of(lambda snr, gamma: _capped(snr, gamma) * snr, _capped, _velocity_weight),
        ),
        Misconception(
            "the velocity loss gets the noise loss's weight. The squared velocity error is SNR + 1 times the squared data error.",
            _weights_of(_noise_weight, _capped, _noise_weight),
        ),
        Misconception(
            "the velocity loss gets the data loss's weight. The squared velocity error is SNR + 1 times the squared data error.",
            _weights_of(_noise_weight, _capped, _capped),
        ),
        Misconception(
            "the cap is on the SNR alone: min(SNR, gamma), and then the division by SNR + 1.",
            _weights_of(_noise_weight, _capped, lambda snr, gamma: (snr + 1).clamp(max=gamma) / (snr + 1)),
        ),
        Misconception(
            "that is a maximum: min-SNR caps the weight of the nearly clean points.",
            _weights_of(
                lambda snr, gamma: snr.clamp(min=gamma) / snr,
                lambda snr, gamma: snr.clamp(min=gamma),
                lambda snr, gamma: snr.clamp(min=gamma) / (snr + 1),
            ),
        ),
        Misconception(
            "your SNR is a ratio of standard deviations. It is the ratio of the variances, alpha_bar / (1 - alpha_bar).",
            lambda alpha_bar, gamma: _weights_at(alpha_bar, (alpha_bar / (1 - alpha_bar)).sqrt(), gamma),
        ),
        Misconception(
            "your SNR is squared once too often: alpha_bar is a squared factor already.",
            lambda alpha_bar, gamma: _weights_at(alpha_bar, alpha_bar**2 / (1 - alpha_bar**2), gamma),
        ),
        Misconception(
            "your SNR is upside down, noise over signal.",
            lambda alpha_bar, gamma: min_snr_weights(1 - alpha_bar, gamma),
        ),
        Misconception(
            "the order is noise, data, velocity; you return the data first.",
            _weights_of(_capped, _noise_weight, _velocity_weight),
        ),
    ),
    hints=(
        "Start from the data loss: its weight is min(SNR, gamma), with SNR = alpha_bar / (1 - alpha_bar).",
        "How does an error of x_0 change the noise that goes with it? x_t is fixed: sqrt(alpha_bar) dx_0 = -sqrt(1 - alpha_bar) "
        "de.",
        "So |de|^2 = SNR |dx_0|^2, and for the velocity |dv|^2 = (SNR + 1) |dx_0|^2. The products weight times error agree.",
        "`snr.clamp(max=gamma)` is the minimum.",
    ),
)

EXERCISES = (JUMP, POSTERIOR, KL, SIMPLE, DDIM, LEVELS, WEIGHTS)
