"""Exercises of lesson 08, the reverse SDE."""

from collections.abc import Callable

import torch
from torch import Generator, Tensor

from coursework.exercises.draws import count, normal, number, sizes, uniform
from coursework.exercises.engine import Exercise, Misconception
from coursework.exercises.observers import own_numbers, steady

TimedFunction = Callable[[Tensor, Tensor], Tensor]

# -- 8.1 one step backwards --------------------------------------------------------------------------------------------


def euler_maruyama_step(x: Tensor, score_value: Tensor, f: Tensor, g: Tensor, h: Tensor, z: Tensor) -> Tensor:
    """x - h (f x - g^2 s) + g sqrt(h) z. Shapes: x, score_value, z (B, D), f, g, h () -> (B, D)."""
    return x - h * (f * x - g**2 * score_value) + g * h.sqrt() * z


def _draw_step(generator: Generator) -> tuple[Tensor, ...]:
    f, g = -uniform(generator, low=0.4, high=2.0), uniform(generator, low=1.2, high=2.5)
    h = uniform(generator, low=0.05, high=0.3)
    b, d = sizes(generator)
    return normal(generator, b, d), normal(generator, b, d), f, g, h, normal(generator, b, d)


EULER_MARUYAMA = Exercise(
    id="8.1",
    title="one step backwards",
    reference=euler_maruyama_step,
    draw=_draw_step,
    seed=20_006,
    observe=steady(),
    misconceptions=(
        Misconception(
            "the drift has the wrong sign. Time falls by h, so dt = -h: the step is x MINUS h times the reverse drift. Test: with "
            "s = 0 and f = -1 data shrinks on its way to noise, so it must grow on its way back.",
            lambda x, score_value, f, g, h, z: x + h * (f * x - g**2 * score_value) + g * h.sqrt() * z,
        ),
        Misconception(
            "f x has the sign of the forward step. Both parts of the drift are multiplied by dt = -h: -h f x and + h g^2 s.",
            lambda x, score_value, f, g, h, z: x + h * (f * x + g**2 * score_value) + g * h.sqrt() * z,
        ),
        Misconception(
            "the score has the wrong sign: a step backwards goes up the score, by + h g^2 s. Yours flees the data.",
            lambda x, score_value, f, g, h, z: x - h * (f * x + g**2 * score_value) + g * h.sqrt() * z,
        ),
        Misconception(
            "this is the forward step: it has no score in it. Whatever the data, it stays with the noise.",
            lambda x, score_value, f, g, h, z: x + h * f * x + g * h.sqrt() * z,
        ),
        Misconception(
            "the score is halved. f x - g^2 s / 2 is the drift of the probability-flow ODE (lesson 09), which has no noise; with "
            "noise the factor is 1.",
            lambda x, score_value, f, g, h, z: x - h * (f * x - g**2 * score_value / 2) + g * h.sqrt() * z,
        ),
        Misconception(
            "g before the score where its square belongs.",
            lambda x, score_value, f, g, h, z: x - h * (f * x - g * score_value) + g * h.sqrt() * z,
        ),
        Misconception(
            "you subtract the noise. z and -z have the same law, so your samples would be right; but the check hands you z and "
            "compares number by number: add it.",
            lambda x, score_value, f, g, h, z: x - h * (f * x - g**2 * score_value) - g * h.sqrt() * z,
        ),
        Misconception(
            "you took the root of dt = -h, which is not a number. Noise has no direction in time: over a step of length h its "
            "standard deviation is sqrt(h).",
            lambda x, score_value, f, g, h, z: x - h * (f * x - g**2 * score_value) + g * (-h).sqrt() * z,
        ),
        Misconception(
            "the noise is multiplied by h. Brownian motion moves by sqrt(h) z in a time h: its variance is h.",
            lambda x, score_value, f, g, h, z: x - h * (f * x - g**2 * score_value) + g * h * z,
        ),
        Misconception(
            "g squared before the noise: the noise has standard deviation g sqrt(h); g^2 h is its variance.",
            lambda x, score_value, f, g, h, z: x - h * (f * x - g**2 * score_value) + g**2 * h.sqrt() * z,
        ),
        Misconception(
            "the noise is missing. Without it the drift must be another one (lesson 09); with this drift everything is drawn "
            "together too much.",
            lambda x, score_value, f, g, h, z: x - h * (f * x - g**2 * score_value),
        ),
        Misconception(
            "the score's term is not multiplied by h: h stands before the whole bracket.",
            lambda x, score_value, f, g, h, z: x - h * f * x + g**2 * score_value + g * h.sqrt() * z,
        ),
        Misconception(
            "the noise is not multiplied by g.",
            lambda x, score_value, f, g, h, z: x - h * (f * x - g**2 * score_value) + h.sqrt() * z,
        ),
        own_numbers("z", euler_maruyama_step),
    ),
    hints=(
        "Put dt = -h into dx = (f x - g^2 s) dt + g dw.",
        "The increment of Brownian motion over a time h is sqrt(h) z, whatever the sign of dt.",
        "x - h (f x - g^2 s) + g sqrt(h) z. `h` is a tensor: `h.sqrt()`.",
    ),
)

# -- 8.2 half of the score ---------------------------------------------------------------------------------------------


def halved_score_variance(data_variance: Tensor, total_beta: Tensor) -> Tensor:
    """v (1 + log(1 + (e^B - 1) / v)). Shapes: data_variance (L,), total_beta () -> (L,)."""
    return data_variance * (1 + _noise_budget(data_variance, total_beta))


def _noise_budget(v: Tensor, total_beta: Tensor) -> Tensor:
    """The integral of beta / v_t over all times, v_t = 1 + (v - 1) e^{-B(t)}."""
    return torch.log1p(torch.expm1(total_beta) / v)


def _draw_variances(generator: Generator) -> tuple[Tensor, Tensor]:
    low = uniform(generator, count(generator, 1, 6), low=0.2, high=0.7)
    high = uniform(generator, count(generator, 1, 6), low=1.5, high=3.0)
    return torch.cat([low, high]), uniform(generator, low=1.0, high=4.0)


HALVED_SCORE = Exercise(
    id="8.2",
    title="half of the score",
    reference=halved_score_variance,
    draw=_draw_variances,
    misconceptions=(
        Misconception(
            "that is the variance of the data, where the right sampler ends. With half of the score and all of the noise the chain "
            "ends wider.",
            lambda data_variance, total_beta: data_variance + 0 * total_beta,
        ),
        Misconception(
            "you add the variance of all the noise, B, as though nothing pulled on it afterwards (or took v_t = v throughout). The "
            "noise of an early step is drawn together by all later ones.",
            lambda data_variance, total_beta: data_variance + total_beta,
        ),
        Misconception(
            "this holds for v = 1 only, where v_t = 1 at all times.",
            lambda data_variance, total_beta: 1 + total_beta + 0 * data_variance,
        ),
        Misconception(
            "you took v_t = 1 in the integral of beta / v_t. It changes with t: v_t = 1 + (v - 1) e^{-B(t)}.",
            lambda data_variance, total_beta: data_variance * (1 + total_beta),
        ),
        Misconception(
            "this is u at the end. The variance is V = v_t u, and at the end v_t = v.",
            lambda data_variance, total_beta: halved_score_variance(data_variance, total_beta) / data_variance,
        ),
        Misconception(
            "this is what the noise adds; the chain also starts with a variance: u begins at 1.",
            lambda data_variance, total_beta: data_variance * _noise_budget(data_variance, total_beta),
        ),
        Misconception(
            "you multiply u by v_t at the noisy end. The chain ends at the data, where v_t = v.",
            lambda data_variance, total_beta: (
                (1 + (data_variance - 1) * (-total_beta).exp()) * (1 + _noise_budget(data_variance, total_beta))
            ),
        ),
        Misconception(
            "that is the standard deviation; its square is asked for.",
            lambda data_variance, total_beta: halved_score_variance(data_variance, total_beta).sqrt(),
        ),
        Misconception(
            "your noise has the variance beta / 2 a unit of time. The noise is sqrt(beta) dw, in full: u' = beta / v_t.",
            lambda data_variance, total_beta: data_variance * (1 + _noise_budget(data_variance, total_beta) / 2),
        ),
        Misconception(
            "the integral of dB e^B / (e^B + v - 1) is log(e^B + v - 1) between both ends; the lower end gives log v, which you left out.",
            lambda data_variance, total_beta: data_variance * (1 + torch.log(total_beta.exp() + data_variance - 1)),
        ),
        Misconception(
            "you multiply e^B - 1 by v. Between its ends log(e^B + v - 1) is log((e^B + v - 1) / v): e^B - 1 is divided by v.",
            lambda data_variance, total_beta: (
                data_variance * (1 + torch.log1p(torch.expm1(total_beta) * data_variance))
            ),
        ),
        Misconception(
            "you have 1 - e^-B, which is sigma(1)^2, where e^B - 1 belongs: 1 / v_t = e^B / (e^B + v - 1).",
            lambda data_variance, total_beta: (
                data_variance * (1 + torch.log1p(-torch.expm1(-total_beta) / data_variance))
            ),
        ),
    ),
    hints=(
        "In reversed time the drift is beta/2 (x + s) with s = -x / v_t: a linear SDE with a = beta/2 (1 - 1/v_t) and b^2 = beta.",
        "So V' = beta (1 - 1/v_t) V + beta. In reversed time v_t' = beta (v_t - 1). Write V = v_t u: what remains for u?",
        "u' = beta / v_t and u = 1 at the start. Integrate with B as the variable: dB = beta dt, v_t = 1 + (v - 1) e^{-B}.",
        "1 / v_t = e^B / (e^B + v - 1), and that has the antiderivative log(e^B + v - 1). At the end V = v u.",
    ),
)

# -- 8.3 the ancestral step --------------------------------------------------------------------------------------------


def ancestral_step(
    x: Tensor, score_value: Tensor, alpha: Tensor, sigma: Tensor, alpha_next: Tensor, sigma_next: Tensor, z: Tensor
) -> Tensor:
    """(x + G^2 s) / r + G sigma' / sigma z. Shapes: x, score_value, z (B, D), the others () -> (B, D)."""
    r, g2 = _kernel(alpha, sigma, alpha_next, sigma_next)
    return (x + g2 * score_value) / r + g2.sqrt() * sigma_next / sigma * z


def _kernel(alpha: Tensor, sigma: Tensor, alpha_next: Tensor, sigma_next: Tensor) -> tuple[Tensor, Tensor]:
    r = alpha / alpha_next
    return r, sigma**2 - r**2 * sigma_next**2


def _draw_levels(generator: Generator) -> tuple[Tensor, ...]:
    """alpha, sigma, alpha_next, sigma_next; alpha^2 + sigma^2 is not 1: VP's shortcuts must not be needed."""
    alpha, sigma = uniform(generator, low=0.3, high=0.6), uniform(generator, low=0.8, high=1.4)
    alpha_next, sigma_next = uniform(generator, low=0.65, high=0.9), uniform(generator, low=0.3, high=0.7)
    return alpha, sigma, alpha_next, sigma_next


def _draw_ancestral(generator: Generator) -> tuple[Tensor, ...]:
    b, d = sizes(generator)
    return normal(generator, b, d), normal(generator, b, d), *_draw_levels(generator), normal(generator, b, d)


def _ancestral_with(mean: Callable[..., Tensor], noise: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """An ancestral step with its own mean(x, s, r, G^2) and size of the noise(G^2, sigma, sigma')."""

    def wrong(
        x: Tensor, score_value: Tensor, alpha: Tensor, sigma: Tensor, alpha_next: Tensor, sigma_next: Tensor, z: Tensor
    ) -> Tensor:
        r, g2 = _kernel(alpha, sigma, alpha_next, sigma_next)
        return mean(x, score_value, r, g2) + noise(g2, sigma, sigma_next) * z

    return wrong


def _mean(x: Tensor, s: Tensor, r: Tensor, g2: Tensor) -> Tensor:
    return (x + g2 * s) / r


def _noise(g2: Tensor, sigma: Tensor, sigma_next: Tensor) -> Tensor:
    return g2.sqrt() * sigma_next / sigma


def _ancestral_with_g2(g2_of: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """An ancestral step with another G^2, a function of (sigma, sigma', r)."""

    def wrong(
        x: Tensor, score_value: Tensor, alpha: Tensor, sigma: Tensor, alpha_next: Tensor, sigma_next: Tensor, z: Tensor
    ) -> Tensor:
        r = alpha / alpha_next
        g2 = g2_of(sigma, sigma_next, r)
        return _mean(x, score_value, r, g2) + _noise(g2, sigma, sigma_next) * z

    return wrong


def _renoise(
    x: Tensor, score_value: Tensor, alpha: Tensor, sigma: Tensor, alpha_next: Tensor, sigma_next: Tensor, z: Tensor
) -> Tensor:
    return alpha_next * (x + sigma**2 * score_value) / alpha + sigma_next * z


ANCESTRAL = Exercise(
    id="8.3",
    title="the ancestral step",
    reference=ancestral_step,
    draw=_draw_ancestral,
    observe=steady(),
    misconceptions=(
        Misconception(
            "the noise is too large: G is the standard deviation of the step when only its start is known. Here both ends are (x_t, "
            "and x_0 by its estimate), which leaves G sigma' / sigma.",
            _ancestral_with(_mean, lambda g2, sigma, sigma_next: g2.sqrt()),
        ),
        Misconception(
            "your noise has the factor (G sigma' / sigma)^2: that is the variance; a standard deviation multiplies z.",
            _ancestral_with(_mean, lambda g2, sigma, sigma_next: g2 * sigma_next**2 / sigma**2),
        ),
        Misconception(
            "the ratio of the noise levels is upside down: sigma' / sigma, which is below 1, stands beside G.",
            _ancestral_with(_mean, lambda g2, sigma, sigma_next: g2.sqrt() * sigma / sigma_next),
        ),
        Misconception(
            "the noise is missing.", _ancestral_with(_mean, lambda g2, sigma, sigma_next: torch.zeros_like(g2))
        ),
        Misconception(
            "the mean is multiplied by r. Going forwards multiplies by r, so going backwards divides.",
            _ancestral_with(lambda x, s, r, g2: (x + g2 * s) * r, _noise),
        ),
        Misconception(
            "only x is divided by r: the whole of x + G^2 s has to be.",
            _ancestral_with(lambda x, s, r, g2: x / r + g2 * s, _noise),
        ),
        Misconception(
            "the score has the wrong sign: a step backwards goes up the score.",
            _ancestral_with(lambda x, s, r, g2: (x - g2 * s) / r, _noise),
        ),
        Misconception(
            "G before the score where its square belongs: the mean is (x + G^2 s) / r.",
            _ancestral_with(lambda x, s, r, g2: (x + g2.sqrt() * s) / r, _noise),
        ),
        Misconception(
            "this is the step of reverse diffusion, (2 - r) x + G^2 s + G z: equal to the ancestral one only for short steps.",
            _ancestral_with(lambda x, s, r, g2: (2 - r) * x + g2 * s, lambda g2, sigma, sigma_next: g2.sqrt()),
        ),
        Misconception(
            "your G^2 is 1 - r^2 (DDPM's beta). That needs alpha^2 + sigma^2 = 1; for any linear SDE it is sigma^2 - r^2 sigma'^2.",
            _ancestral_with_g2(lambda sigma, sigma_next, r: 1 - r**2),
        ),
        Misconception(
            "your G^2 is sigma^2 - sigma'^2. The noise that was there at t' is scaled by r on the way to t: r^2 sigma'^2 has to be "
            "taken off.",
            _ancestral_with_g2(lambda sigma, sigma_next, r: sigma**2 - sigma_next**2),
        ),
        Misconception(
            "your G^2 is sigma^2 - r sigma'^2: a factor r on x is a factor r^2 on its variance.",
            _ancestral_with_g2(lambda sigma, sigma_next, r: sigma**2 - r * sigma_next**2),
        ),
        Misconception(
            "you denoise and add fresh noise of the new level, alpha' x0_hat + sigma' z. The level is right, but x_t knows more than "
            "x0_hat does: q(x_t' | x_t, x_0) leans on both.",
            _renoise,
        ),
        own_numbers("z", ancestral_step),
    ),
    hints=(
        "First the kernel of the step: r = alpha / alpha_next and G^2 = sigma^2 - r^2 sigma_next^2.",
        "Multiply two Gaussians in x': N(x; r x', G^2) and N(x'; alpha' x_0, sigma'^2). Precisions add: r^2/G^2 + 1/sigma'^2. With "
        "r^2 sigma'^2 + G^2 = sigma^2 that is sigma^2 / (G sigma')^2.",
        "The mean is the variance times (r x / G^2 + alpha' x_0 / sigma'^2). Put in x_0 = (x + sigma^2 s) / alpha and simplify.",
        "What is left: (x + G^2 s) / r for the mean, G sigma' / sigma for the standard deviation.",
    ),
)

# -- 8.4 noise in the last step ----------------------------------------------------------------------------------------


def end_std(alpha: Tensor, sigma: Tensor, alpha_next: Tensor, sigma_next: Tensor) -> Tensor:
    """Standard deviations with and without the last step's noise: (sigma', r sigma'^2 / sigma). Shapes: () -> (2,)."""
    return torch.stack([sigma_next, alpha / alpha_next * sigma_next**2 / sigma])


def _without(value: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """The right answer with noise, and value(r, G^2, sigma, sigma') without."""

    def wrong(alpha: Tensor, sigma: Tensor, alpha_next: Tensor, sigma_next: Tensor) -> Tensor:
        r, g2 = _kernel(alpha, sigma, alpha_next, sigma_next)
        return torch.stack([sigma_next, value(r, g2, sigma, sigma_next)])

    return wrong


def _with(value: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """The right answer without noise, and value(r, G^2, sigma, sigma') with it."""

    def wrong(alpha: Tensor, sigma: Tensor, alpha_next: Tensor, sigma_next: Tensor) -> Tensor:
        r, g2 = _kernel(alpha, sigma, alpha_next, sigma_next)
        return torch.stack([value(r, g2, sigma, sigma_next), r * sigma_next**2 / sigma])

    return wrong


def _both(factor: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """Both answers of a step that multiplies the deviation by factor(r, G^2, sigma)."""

    def wrong(alpha: Tensor, sigma: Tensor, alpha_next: Tensor, sigma_next: Tensor) -> Tensor:
        r, g2 = _kernel(alpha, sigma, alpha_next, sigma_next)
        left = factor(r, g2, sigma) * sigma
        return torch.stack([torch.hypot(left, g2.sqrt() * sigma_next / sigma), left])

    return wrong


END_STD = Exercise(
    id="8.4",
    title="noise in the last step",
    reference=end_std,
    draw=_draw_levels,
    misconceptions=(
        Misconception(
            "without the noise you expect no spread at all. The last step's mean still leans on x_t, whose noise is not wholly gone.",
            _without(lambda r, g2, sigma, sigma_next: torch.zeros_like(sigma)),
        ),
        Misconception(
            "the order is: with the noise first, then without.",
            lambda alpha, sigma, alpha_next, sigma_next: end_std(alpha, sigma, alpha_next, sigma_next).flip(0),
        ),
        Misconception(
            "the factor r is missing without the noise: 1 - G^2 / sigma^2 = r^2 sigma'^2 / sigma^2, and one r is divided off.",
            _without(lambda r, g2, sigma, sigma_next: sigma_next**2 / sigma),
        ),
        Misconception(
            "the division by r is missing in the deviation's part, in both answers: the step takes d to (d + G^2 s) / r.",
            _both(lambda r, g2, sigma: 1 - g2 / sigma**2),
        ),
        Misconception(
            "you divide by r^2, in both answers. One r is divided off: the step takes d to (d + G^2 s) / r.",
            _both(lambda r, g2, sigma: (1 - g2 / sigma**2) / r**2),
        ),
        Misconception(
            "the score has the wrong sign, in both answers: for a point s = -d / sigma^2, so that d shrinks.",
            _both(lambda r, g2, sigma: (1 + g2 / sigma**2) / r),
        ),
        Misconception(
            "the score is left out, in both answers: d / r alone. It is the score, s = -d / sigma^2, that shrinks the deviation.",
            _both(lambda r, g2, sigma: 1 / r),
        ),
        Misconception(
            "without the noise you give the size of the noise that was left out, G sigma' / sigma. What stays is the other part.",
            _without(lambda r, g2, sigma, sigma_next: g2.sqrt() * sigma_next / sigma),
        ),
        Misconception(
            "without the noise you forget that x_t deviates by sigma: the factor of the step alone is r sigma'^2 / sigma^2.",
            _without(lambda r, g2, sigma, sigma_next: r * sigma_next**2 / sigma**2),
        ),
        Misconception(
            "you add the noise to a state of standard deviation sigma'. With the noise the step arrives at sigma'; without, below.",
            _with(lambda r, g2, sigma, sigma_next: (sigma_next**2 + g2 * sigma_next**2 / sigma**2).sqrt()),
        ),
        Misconception(
            "with the noise you add two standard deviations. Independent parts add their variances.",
            _with(lambda r, g2, sigma, sigma_next: r * sigma_next**2 / sigma + g2.sqrt() * sigma_next / sigma),
        ),
        Misconception(
            "with the noise you use G for its size: it is G sigma' / sigma in an ancestral step.",
            _with(lambda r, g2, sigma, sigma_next: ((r * sigma_next**2 / sigma) ** 2 + g2).sqrt()),
        ),
        Misconception(
            "these are variances; standard deviations are asked for.",
            lambda alpha, sigma, alpha_next, sigma_next: end_std(alpha, sigma, alpha_next, sigma_next) ** 2,
        ),
    ),
    hints=(
        "Write x_t = alpha c + d, with a deviation d of standard deviation sigma. For a point the score is s = -d / sigma^2.",
        "Put that into the ancestral step: (d + G^2 s) / r = d (1 - G^2 / sigma^2) / r. Use G^2 = sigma^2 - r^2 sigma'^2.",
        "Without noise: r sigma'^2 / sigma. With it: add the variance (G sigma' / sigma)^2 to the square of that, and simplify.",
    ),
)

# -- 8.5 the stochastic Heun step --------------------------------------------------------------------------------------


def heun_step(
    drift: TimedFunction, diffusion: Callable[[Tensor], Tensor], x: Tensor, t: Tensor, t_next: Tensor, z: Tensor
) -> Tensor:
    """y = x - h a + n z; x - h/2 (a(x, t) + a(y, t')) + n z, n^2 = h/2 (g^2 + g'^2). Shapes: x, z (B, D) -> (B, D)."""
    h = t - t_next
    noise = _rms(diffusion(t), diffusion(t_next)) * h.sqrt() * z
    a = drift(x, t)
    y = x - h * a + noise
    return x - h / 2 * (a + drift(y, t_next)) + noise


def _rms(g: Tensor, g_next: Tensor) -> Tensor:
    return ((g**2 + g_next**2) / 2).sqrt()


def _draw_heun(generator: Generator) -> tuple:
    b, d = sizes(generator)
    matrix, offset = normal(generator, d, d), normal(generator, d)
    low, high = uniform(generator, low=0.5, high=1.0), uniform(generator, low=2.0, high=4.0)
    t = uniform(generator, low=0.6, high=0.9)

    def drift(x: Tensor, time: Tensor) -> Tensor:
        return torch.tanh(x @ matrix.T) - (1 + time**2) * x + time * offset

    def diffusion(time: Tensor) -> Tensor:
        return low + high * time**2  # neither g nor g^2 is linear: the midpoint must not pass for a mean of both ends

    t_next = t - uniform(generator, low=0.1, high=0.4)
    return drift, diffusion, normal(generator, b, d), t, t_next, normal(generator, b, d)


def _heun_with(
    size: Callable[..., Tensor] = lambda g, g_next, h: _rms(g, g_next) * h.sqrt(),
    guess: Callable[..., Tensor] = lambda x, h, a, noise: x - h * a + noise,
    second: Callable[..., Tensor] = lambda drift, x, y, t, t_next: drift(y, t_next),
    end: Callable[..., Tensor] = lambda x, y, h, a, b, noise: x - h / 2 * (a + b) + noise,
) -> Callable[..., Tensor]:
    """A Heun step with one of its parts replaced."""

    def wrong(
        drift: TimedFunction, diffusion: Callable[[Tensor], Tensor], x: Tensor, t: Tensor, t_next: Tensor, z: Tensor
    ) -> Tensor:
        h = t - t_next
        noise = size(diffusion(t), diffusion(t_next), h) * z
        a = drift(x, t)
        y = guess(x, h, a, noise)
        return end(x, y, h, a, second(drift, x, y, t, t_next), noise)

    return wrong


HEUN = Exercise(
    id="8.5",
    title="the stochastic Heun step",
    reference=heun_step,
    draw=_draw_heun,
    observe=steady(),
    misconceptions=(
        Misconception(
            "your trial point y has no noise. The second drift is to be asked where the step really ends: with its noise.",
            _heun_with(guess=lambda x, h, a, noise: x - h * a),
        ),
        Misconception(
            "you ask the second drift at y but still at the time t. It belongs to the end of the step: t_next.",
            _heun_with(second=lambda drift, x, y, t, t_next: drift(y, t)),
        ),
        Misconception(
            "you ask the second drift at x. It belongs to the trial point y.",
            _heun_with(second=lambda drift, x, y, t, t_next: drift(x, t_next)),
        ),
        Misconception(
            "the 1/2 is missing: the step uses the mean of both drifts.",
            _heun_with(end=lambda x, y, h, a, b, noise: x - h * (a + b) + noise),
        ),
        Misconception(
            "this is y, an Euler-Maruyama step. It only tells where to ask the second drift; return the corrected step.",
            _heun_with(end=lambda x, y, h, a, b, noise: y),
        ),
        Misconception(
            "the signs of the drift are those of forward time. Here time falls: minus h in both places.",
            _heun_with(
                guess=lambda x, h, a, noise: x + h * a + noise,
                end=lambda x, y, h, a, b, noise: x + h / 2 * (a + b) + noise,
            ),
        ),
        Misconception(
            "your noise uses g at t only: order 2 needs both ends, n^2 = h/2 (g(t)^2 + g(t')^2).",
            _heun_with(size=lambda g, g_next, h: g * h.sqrt()),
        ),
        Misconception(
            "your noise uses g at t_next only: order 2 needs both ends, n^2 = h/2 (g(t)^2 + g(t')^2).",
            _heun_with(size=lambda g, g_next, h: g_next * h.sqrt()),
        ),
        Misconception(
            "your noise is multiplied by h where sqrt(h) belongs: n^2 = h/2 (g(t)^2 + g(t')^2).",
            _heun_with(size=lambda g, g_next, h: _rms(g, g_next) * h),
        ),
        Misconception(
            "you average g. Variances add, so their mean counts: n^2 = h/2 (g(t)^2 + g(t')^2).",
            _heun_with(size=lambda g, g_next, h: (g + g_next) / 2 * h.sqrt()),
        ),
        Misconception(
            "the 1/2 in the noise's variance is missing: n^2 = h/2 (g(t)^2 + g(t')^2).",
            _heun_with(size=lambda g, g_next, h: (h * (g**2 + g_next**2)).sqrt()),
        ),
        Misconception(
            "the square root is missing: n^2 = h/2 (g(t)^2 + g(t')^2) is a variance, and n multiplies z.",
            _heun_with(size=lambda g, g_next, h: h / 2 * (g**2 + g_next**2)),
        ),
        Misconception(
            "the corrected step has lost its noise: the same n z stands in both lines.",
            _heun_with(end=lambda x, y, h, a, b, noise: x - h / 2 * (a + b)),
        ),
        own_numbers("z", heun_step),
    ),
    hints=(
        "h = t - t_next, and n^2 = h/2 (g(t)^2 + g(t_next)^2). Compute n z once: it is used in both lines.",
        "Trial point: y = x - h drift(x, t) + n z, an Euler-Maruyama step.",
        "Then start again at x, with the mean of drift(x, t) and drift(y, t_next), and the same n z.",
    ),
)

# -- 8.6 the corrector -------------------------------------------------------------------------------------------------


def corrector_step(x: Tensor, score_value: Tensor, z: Tensor, snr: float) -> Tensor:
    """x + e s + sqrt(2 e) z, e = 2 (snr |z| / |s|)^2, batch means of lengths. Shapes: x, score_value, z (B, D) -> (B, D)."""
    return _langevin(x, score_value, z, 2 * (snr * _length(z) / _length(score_value)) ** 2)


def _langevin(x: Tensor, score_value: Tensor, z: Tensor, e: Tensor | float) -> Tensor:
    return x + e * score_value + (2 * torch.as_tensor(e)).sqrt() * z


def _length(x: Tensor) -> Tensor:
    return x.norm(dim=1).mean()


def _draw_corrector(generator: Generator) -> tuple[Tensor, Tensor, Tensor, float]:
    b, d = sizes(generator)
    lengths, snr = uniform(generator, b, 1, low=0.3, high=2.0), number(generator, 0.1, 0.4)
    return normal(generator, b, d), lengths * normal(generator, b, d), normal(generator, b, d), snr


def _corrector_with(size: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """A corrector step with another step size e(s, z, snr)."""
    return lambda x, score_value, z, snr: _langevin(x, score_value, z, size(score_value, z, snr))


CORRECTOR = Exercise(
    id="8.6",
    title="the corrector's step",
    reference=corrector_step,
    draw=_draw_corrector,
    observe=steady(),
    misconceptions=(
        Misconception(
            "snr is not squared and the 2 is missing: snr (|z| / |s|)^2. The pull is e |s| and the noise sqrt(2 e) |z|; set their "
            "ratio to snr and solve for e.",
            _corrector_with(lambda s, z, snr: snr * (_length(z) / _length(s)) ** 2),
        ),
        Misconception(
            "you put the noise's standard deviation, 1, for its length |z|, which is about sqrt(D). In many dimensions the step "
            "becomes tiny, and the corrector idle.",
            _corrector_with(lambda s, z, snr: (snr / _length(s)) ** 2),
        ),
        Misconception(
            "the factor 2 in e is missing. It comes from the 2 in sqrt(2 e). (Or you took the right e in lesson 05's convention, "
            "e/2 s + sqrt(e) z; here the step is e s + sqrt(2 e) z.)",
            _corrector_with(lambda s, z, snr: (snr * _length(z) / _length(s)) ** 2),
        ),
        Misconception(
            "snr is not squared: solving e |s| = snr sqrt(2 e) |z| for e squares it.",
            _corrector_with(lambda s, z, snr: 2 * snr * (_length(z) / _length(s)) ** 2),
        ),
        Misconception(
            "the ratio of the lengths is not squared.",
            _corrector_with(lambda s, z, snr: 2 * snr**2 * _length(z) / _length(s)),
        ),
        Misconception(
            "nothing is squared: e = 2 snr |z| / |s|. From e |s| = snr sqrt(2 e) |z| follows sqrt(e) = snr sqrt(2) |z| / |s|: "
            "square all of it.",
            _corrector_with(lambda s, z, snr: 2 * snr * _length(z) / _length(s)),
        ),
        Misconception(
            "you average the absolute values of single coordinates. |z| and |s| are the lengths of whole points.",
            _corrector_with(lambda s, z, snr: 2 * (snr * z.abs().mean() / s.abs().mean()) ** 2),
        ),
        Misconception(
            "the ratio is upside down: a long score asks for a short step.",
            _corrector_with(lambda s, z, snr: 2 * (snr * _length(s) / _length(z)) ** 2),
        ),
        Misconception(
            "each point gets a step size of its own. It then depends on where the point is, and Langevin dynamics with such a step "
            "goes to another law. Average the lengths over the batch.",
            _corrector_with(
                lambda s, z, snr: 2 * (snr * z.norm(dim=1, keepdim=True) / s.norm(dim=1, keepdim=True)) ** 2
            ),
        ),
        Misconception(
            "you average squared lengths (or take one length of the whole batch). Here, as in the papers' code, lengths are averaged.",
            _corrector_with(lambda s, z, snr: 2 * snr**2 * z.square().sum() / s.square().sum()),
        ),
        Misconception(
            "the noise has sqrt(e). A Langevin step with e s before it has sqrt(2 e) (lesson 05: the same step with step size 2 e).",
            lambda x, score_value, z, snr: (
                x
                + (e := 2 * (snr * _length(z) / _length(score_value)) ** 2) * score_value
                + torch.as_tensor(e).sqrt() * z
            ),
        ),
        Misconception(
            "the noise has the factor 2 e: that is its variance. Its standard deviation is sqrt(2 e).",
            lambda x, score_value, z, snr: (
                x + (e := 2 * (snr * _length(z) / _length(score_value)) ** 2) * score_value + 2 * e * z
            ),
        ),
        Misconception(
            "the pull has the wrong sign: Langevin dynamics climbs the score.",
            lambda x, score_value, z, snr: _langevin(
                x, -score_value, z, 2 * (snr * _length(z) / _length(score_value)) ** 2
            ),
        ),
        own_numbers("z", corrector_step),
    ),
    hints=(
        "snr is the length of the pull, e |s|, over the length of the noise, sqrt(2 e) |z|. Solve for e.",
        "e^2 |s|^2 = snr^2 2 e |z|^2. Divide by e.",
        "`z.norm(dim=1).mean()` is |z|, averaged over the batch; likewise |s|. Then one step x + e s + sqrt(2 e) z.",
    ),
)

EXERCISES = (EULER_MARUYAMA, HALVED_SCORE, ANCESTRAL, END_STD, HEUN, CORRECTOR)
