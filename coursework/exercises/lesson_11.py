"""Exercises of lesson 11, guidance and inverse problems."""

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Generator, Tensor

from coursework.exercises.attempt import plain_tensors
from coursework.exercises.draws import count, covariances, linear_sde, normal, number, sizes, time_of, uniform
from coursework.exercises.engine import Exercise, Misconception
from coursework.exercises.exercise import Observed
from coursework.exercises.observers import on_its_device, on_the_cpu
from coursework.exercises.uses import COEFFICIENTS
from coursework.sdes import SDE

Score = Callable[[Tensor, Tensor], Tensor]

# -- what several exercises share --------------------------------------------------------------------------------------


class WavyScore:
    """s(x, t) = x M^T / (1 + t) + sin(3 t + x): nonlinear, and different at every time."""

    def __init__(self, matrix: Tensor) -> None:
        self.matrix = matrix

    def __call__(self, x: Tensor, t: Tensor) -> Tensor:
        """Shapes: x (B, D), t () or (B,) -> (B, D)."""
        t = t[:, None] if t.ndim else t
        return x @ self.matrix.T / (1 + t) + torch.sin(3 * t + x)

    def to(self, device: str) -> "WavyScore":
        """The same score on another device."""
        return WavyScore(self.matrix.to(device))


class WavyClassifier:
    """log p(label | x) of a classifier that knows the time, so fine that differences are not near enough to gradients."""

    def __init__(self, weights: Tensor) -> None:
        self.weights = weights

    def __call__(self, x: Tensor, t: Tensor) -> Tensor:
        """Shapes: x (B, D), t () or (B,) -> (B, n_classes)."""
        t = t.reshape(-1, 1)
        return torch.log_softmax((x + torch.sin(20 * x + 2 * t)) @ self.weights.T / (0.5 + t), 1)


class CountedScore:
    """A score with labels, -1 for none, that counts its calls."""

    def __init__(self, matrix: Tensor, pulls: Tensor) -> None:
        self.score, self.pulls, self.n_calls = WavyScore(matrix), pulls, 0

    def __call__(self, x: Tensor, t: Tensor, label: Tensor) -> Tensor:
        """Shapes: x (B, *S), t (B,), label (B,) long -> (B, *S)."""
        plain_tensors(x=x, t=t, label=label)
        if len(t) != len(x) or len(label) != len(x):
            raise ValueError(f"{len(x)} points need as many times and labels, got {len(t)} and {len(label)}")
        self.n_calls += 1
        return (self.score(x.flatten(1), t) + self.pulls[label] / (0.3 + t[:, None])).view_as(x)


# -- 11.1 guidance by a classifier -------------------------------------------------------------------------------------


def classifier_guided(score: Score, log_prob_label: Score, label: Tensor, scale: float, x: Tensor, t: Tensor) -> Tensor:
    """s + scale grad log p_t(label | x). Shapes: x (B, D), label (B,), t () -> (B, D)."""
    return score(x, t) + scale * _gradient(log_prob_label, label, x, t)


def _gradient(
    log_prob_label: Score, label: Tensor, x: Tensor, t: Tensor, chosen: Callable[[Tensor], Tensor] = lambda v: v
) -> Tensor:
    leaf = x.detach().requires_grad_()
    value = log_prob_label(leaf, t).gather(1, label[:, None])
    return torch.autograd.grad(chosen(value).sum(), leaf)[0]


def _draw_classifier(generator: Generator) -> tuple[Score, Score, Tensor, float, Tensor, Tensor]:
    (b, d), n_classes = sizes(generator), count(generator, 3, 6)
    label, scale = torch.randint(n_classes, (b,), generator=generator), number(generator, 1.3, 3.0)
    score, classifier = WavyScore(0.7 * normal(generator, d, d)), WavyClassifier(normal(generator, n_classes, d))
    return score, classifier, label, scale, normal(generator, b, d), uniform(generator, low=0.3, high=0.8)


def _all_labels(log_prob_label: Score, x: Tensor, t: Tensor) -> Tensor:
    leaf = x.detach().requires_grad_()
    return torch.autograd.grad(log_prob_label(leaf, t).sum(), leaf)[0]


def _table_of_labels(log_prob_label: Score, label: Tensor, x: Tensor, t: Tensor) -> Tensor:
    leaf = x.detach().requires_grad_()
    return torch.autograd.grad(log_prob_label(leaf, t)[:, label].sum(), leaf)[0]


CLASSIFIER = Exercise(
    id="11.1",
    title="guidance by a classifier",
    reference=classifier_guided,
    draw=_draw_classifier,
    rtol=1e-11,
    misconceptions=(
        Misconception(
            "you walk away from the label: log p(x | label) = log p(x) + log p(label | x) + constant, with a plus.",
            lambda s, c, label, w, x, t: classifier_guided(s, c, label, -w, x, t),
        ),
        Misconception(
            "the scale is missing: it multiplies the classifier's gradient.",
            lambda s, c, label, w, x, t: classifier_guided(s, c, label, 1.0, x, t),
        ),
        Misconception(
            "you scale the whole sum. That is the score of a power of the conditional law; only the classifier's part is scaled.",
            lambda s, c, label, w, x, t: w * classifier_guided(s, c, label, 1.0, x, t),
        ),
        Misconception(
            "your scale is one too large: this is the other convention's w on top of a conditional score. Here scale 1 is conditional.",
            lambda s, c, label, w, x, t: classifier_guided(s, c, label, 1 + w, x, t),
        ),
        Misconception(
            "you differentiate the probability. Bayes' rule for scores has the gradient of its logarithm.",
            lambda s, c, label, w, x, t: s(x, t) + w * _gradient(c, label, x, t, torch.exp),
        ),
        Misconception(
            "you sum the log-probabilities of all labels: pick the asked one for each point, with gather.",
            lambda s, c, label, w, x, t: s(x, t) + w * _all_labels(c, x, t),
        ),
        Misconception(
            "log_prob[:, label] is a (B, B) table: every point meets all labels of the batch. Use gather, or "
            "log_prob[torch.arange(B), label].",
            lambda s, c, label, w, x, t: s(x, t) + w * _table_of_labels(c, label, x, t),
        ),
        Misconception(
            "every point has its own label: you use the first one for all.",
            lambda s, c, label, w, x, t: classifier_guided(s, c, label[:1].expand(len(x)), w, x, t),
        ),
        Misconception(
            "you average over the batch before differentiating: each point's gradient comes out divided by B. Use the sum.",
            lambda s, c, label, w, x, t: classifier_guided(s, c, label, w / len(x), x, t),
        ),
        Misconception(
            "you ask the classifier at time 0. The point is noisy, and so must be what the classifier was trained on: pass t.",
            lambda s, c, label, w, x, t: s(x, t) + w * _gradient(c, label, x, torch.zeros_like(t)),
        ),
        Misconception(
            "you blend, (1 - w) s + w gradient: the unconditional score keeps its factor 1, whatever the scale.",
            lambda s, c, label, w, x, t: (1 - w) * s(x, t) + w * _gradient(c, label, x, t),
        ),
    ),
    hints=(
        "Take the gradient of log p(x | label) = log p(x) + log p(label | x) - log p(label). Which term has no x?",
        "`leaf = x.detach().requires_grad_()`, then the classifier's log-probabilities there, (B, n_classes).",
        "`log_prob.gather(1, label[:, None])` picks one column a point; the gradient of its sum is every point's own.",
        "`(gradient,) = torch.autograd.grad(chosen.sum(), leaf)`; then score(x, t) + scale * gradient.",
    ),
)

# -- 11.2 classifier-free guidance -------------------------------------------------------------------------------------


def free_guided(conditional_score: CountedScore, label: Tensor, scale: float, x: Tensor, t: Tensor) -> Tensor:
    """s_0 + scale (s_c - s_0), one call. Shapes: x (B, D), label (B,), t (B,) -> (B, D)."""
    return _free(lambda c, u, w: u + w * (c - u))(conditional_score, label, scale, x, t)


def _free(combine: Callable[[Tensor, Tensor, float], Tensor], null: int | None = -1) -> Callable[..., Tensor]:
    """combine(s_c, s_0, w) of one call on [x, x] with [label, null]; null None: the label twice."""

    def guided(conditional_score: CountedScore, label: Tensor, scale: float, x: Tensor, t: Tensor) -> Tensor:
        other = label if null is None else torch.full_like(label, null)
        both = conditional_score(torch.cat([x, x]), torch.cat([t, t]), torch.cat([label, other]))
        return combine(*both.chunk(2), scale)

    return guided


def _free_in_two_calls(conditional_score: CountedScore, label: Tensor, scale: float, x: Tensor, t: Tensor) -> Tensor:
    c, u = (conditional_score(x, t, value) for value in (label, torch.full_like(label, -1)))
    return u + scale * (c - u)


def _free_wrong_times(conditional_score: CountedScore, label: Tensor, scale: float, x: Tensor, t: Tensor) -> Tensor:
    labels = torch.cat([label, torch.full_like(label, -1)])
    c, u = conditional_score(torch.cat([x, x]), t.repeat_interleave(2), labels).chunk(2)
    return u + scale * (c - u)


def _free_in_pairs(conditional_score: CountedScore, label: Tensor, scale: float, x: Tensor, t: Tensor) -> Tensor:
    labels = torch.cat([label, torch.full_like(label, -1)])
    both = conditional_score(torch.cat([x, x]), torch.cat([t, t]), labels)
    return both[1::2] + scale * (both[::2] - both[1::2])


def _draw_free(generator: Generator) -> tuple[CountedScore, Tensor, float, Tensor, Tensor]:
    b, n_labels = count(generator, 1, 9), count(generator, 3, 6)
    shape = [count(generator, 2, 4) for _ in range(count(generator, 1, 2))]
    d = math.prod(shape)
    score = CountedScore(0.7 * normal(generator, d, d), normal(generator, n_labels + 1, d))  # the last one is for -1
    label, scale = torch.randint(1, n_labels, (b,), generator=generator), number(generator, 1.3, 3.0)
    return score, label, scale, normal(generator, b, *shape), uniform(generator, b, low=0.2, high=0.9)


def _counted(attempt: Callable[..., Any], args: tuple[Any, ...]) -> Observed:
    before = args[0].n_calls
    value = attempt(*args)
    return {"result": value, "number of calls": torch.tensor(args[0].n_calls - before)}


FREE = Exercise(
    id="11.2",
    title="classifier-free guidance in one call",
    reference=free_guided,
    draw=_draw_free,
    observe=_counted,
    counts="number of calls",
    misconceptions=(
        Misconception(
            "this is Ho and Salimans' convention, (1 + w) s_c - w s_0: its w = 0 is conditional. Here w = 0 is unconditional, so use "
            "s_0 + w (s_c - s_0).",
            _free(lambda c, u, w: (1 + w) * c - w * u),
        ),
        Misconception(
            "conditional and unconditional are exchanged: with yours w = 0 is conditional, and w > 1 flees from the label.",
            _free(lambda c, u, w: c + w * (u - c)),
        ),
        Misconception(
            "right, but in two calls: join the inputs, call once, and cut the answer in two. A GPU is then used better.",
            _free_in_two_calls,
        ),
        Misconception(
            "label 0 is a class like the others. 'No label' is -1.",
            _free(lambda c, u, w: u + w * (c - u), null=0),
        ),
        Misconception(
            "both halves have the label, so their difference is zero and the scale does nothing: the second half's labels are -1.",
            _free(lambda c, u, w: u + w * (c - u), null=None),
        ),
        Misconception(
            "you add the scaled conditional score to the unconditional one. What is scaled is the difference of the two.",
            _free(lambda c, u, w: u + w * c),
        ),
        Misconception(
            "you scale the conditional score and leave the unconditional one out.",
            _free(lambda c, u, w: w * c),
        ),
        Misconception(
            "the times do not fit the points: torch.cat([x, x]) needs torch.cat([t, t]); repeat_interleave gives t_1, t_1, t_2, ...",
            _free_wrong_times,
        ),
        Misconception(
            "you joined the halves with cat and take every second row: after cat the first half has the label, use chunk(2).",
            _free_in_pairs,
        ),
        Misconception(
            "your scale is one too small: s_0 + (w - 1)(s_c - s_0). Here w = 1 is conditional.",
            _free(lambda c, u, w: u + (w - 1) * (c - u)),
        ),
        Misconception(
            "you flee from the label: s_0 - w (s_c - s_0) has a minus where a plus belongs.",
            _free(lambda c, u, w: u - w * (c - u)),
        ),
    ),
    hints=(
        "Twice the batch: points [x, x], times [t, t], labels [label, -1, -1, ...]. One call, then cut in two.",
        "`torch.cat`, `torch.full_like(label, -1)`, and `value.chunk(2)`, which gives the halves in order.",
        "w = 0 must give the half without a label, w = 1 the half with it; it is linear in w.",
    ),
)

# -- 11.3 spot the bug: guidance in the language of noise --------------------------------------------------------------


def guided_noises(noise_c: Tensor, noise_0: Tensor, gradient: Tensor, sigma: Tensor, w: float) -> tuple[Tensor, Tensor]:
    """noise_0 + w (noise_c - noise_0), noise_0 - w sigma gradient. Shapes: (B, D) each, sigma (B,)."""
    return noise_0 + w * (noise_c - noise_0), noise_0 - w * sigma[:, None] * gradient


def _draw_noises(generator: Generator) -> tuple[Tensor, Tensor, Tensor, Tensor, float]:
    b, d = sizes(generator)
    return *normal(generator, 3, b, d), uniform(generator, b, low=0.2, high=0.8), number(generator, 1.3, 3.0)


def _pair_of_noises(attempt: Callable[..., Any], args: tuple[Any, ...]) -> Observed:
    got = attempt(*args)
    if not isinstance(got, tuple | list) or len(got) != 2:
        raise TypeError("expected two tensors, `return free, by_classifier`")
    return {"classifier-free noise": got[0], "noise with a classifier": got[1]}


def _noises(
    free: Callable[[Tensor, Tensor, float], Tensor] = lambda c, u, w: u + w * (c - u),
    factor: Callable[[Tensor], Tensor] = lambda s: -s,
    start: Callable[[Tensor, Tensor], Tensor] = lambda c, u: u,
) -> Callable[..., tuple[Tensor, Tensor]]:
    return lambda c, u, g, s, w: (free(c, u, w), start(c, u) + w * factor(s[:, None]) * g)


NOISES = Exercise(
    id="11.3",
    title="guidance in the language of noise",
    reference=guided_noises,
    draw=_draw_noises,
    observe=_pair_of_noises,
    misconceptions=(
        Misconception(
            "these are the circulating lines. Try w = 0 and w = 1 in the first; put s = -noise / sigma into Bayes' rule for the second.",
            _noises(lambda c, u, w: (1 + w) * c - w * u, torch.ones_like),
        ),
        Misconception(
            "the classifier's line is right. The first one still is conditional at w = 0: it belongs to the other convention.",
            _noises(lambda c, u, w: (1 + w) * c - w * u),
        ),
        Misconception(
            "the first line is right. The second has the sign of a score: noise = -sigma score, so the gradient comes with -sigma.",
            _noises(factor=lambda s: s),
        ),
        Misconception(
            "the first line is right, the second is the circulating one: noise = -sigma score, so the gradient comes with -sigma.",
            _noises(factor=torch.ones_like),
        ),
        Misconception(
            "sign right, factor missing: noise = -sigma score, so the gradient of log p is multiplied with sigma.",
            _noises(factor=lambda s: -torch.ones_like(s)),
        ),
        Misconception(
            "one sigma too many: noise = -sigma score. (sigma^2 belongs to x0_hat, times 1 / alpha.)",
            _noises(factor=lambda s: -(s**2)),
        ),
        Misconception(
            "you divide by sigma. That turns noise into score; the gradient is a score and has to become noise: times sigma.",
            _noises(factor=lambda s: -1 / s),
        ),
        Misconception(
            "the classifier is added to the conditional noise: then the label counts w + 1 times. Start from noise_0.",
            _noises(start=lambda c, u: c),
        ),
        Misconception(
            "in the first line the label and no label are exchanged: w = 1 must be conditional.",
            _noises(lambda c, u, w: c + w * (u - c)),
        ),
        Misconception(
            "these are the guided scores. Asked is the guided noise: multiply with -sigma.",
            lambda c, u, g, s, w: tuple(-v / s[:, None] for v in guided_noises(c, u, g, s, w)),
        ),
        Misconception(
            "the two answers come in the wrong order: `return free, by_classifier`.",
            lambda *args: guided_noises(*args)[::-1],
        ),
    ),
    hints=(
        "First line: what is it at w = 0, what at w = 1? The comment says something else.",
        "A linear function of w that is noise_0 at w = 0 and noise_c at w = 1.",
        "Second line: start from score_0 + w gradient and multiply with -sigma. `sigma` is (B,): sigma[:, None].",
    ),
)

# -- 11.4 the law of guided sampling -----------------------------------------------------------------------------------


def guided_variances(variance: Tensor, w: float) -> tuple[Tensor, Tensor]:
    """v^w for the flow, v / (v + w (1 - v)) for the tilted law. Shapes: (K,) -> (K,), (K,)."""
    return variance**w, variance / (variance + w * (1 - variance))


def _draw_variances(generator: Generator) -> tuple[Tensor, float]:
    return uniform(generator, count(generator, 1, 30), low=0.15, high=0.7), number(generator, 1.4, 4.0)


def _pair_of_variances(attempt: Callable[..., Any], args: tuple[Any, ...]) -> Observed:
    got = attempt(*args)
    if not isinstance(got, tuple | list) or len(got) != 2:
        raise TypeError("expected two tensors, `return flow, tilted`")
    return {"flow's variance": got[0], "tilted law's variance": got[1]}


def _variances(
    flow: Callable[[Tensor, float], Tensor] = lambda v, w: v**w,
    tilted: Callable[[Tensor, float], Tensor] = lambda v, w: v / (v + w * (1 - v)),
) -> Callable[..., tuple[Tensor, Tensor]]:
    return lambda v, w: (flow(v, w), tilted(v, w))


LAWS = Exercise(
    id="11.4",
    title="the law of guided sampling",
    reference=guided_variances,
    draw=_draw_variances,
    seed=20_054,
    observe=_pair_of_variances,
    misconceptions=(
        Misconception(
            "the flow's answer is a standard deviation: points are drawn together by v^(w/2), the variance is its square.",
            _variances(flow=lambda v, w: v ** (w / 2)),
        ),
        Misconception(
            "you took the flow's law for the tilted one. It is not: compute how much the flow draws two points together.",
            _variances(flow=lambda v, w: v / (v + w * (1 - v))),
        ),
        Misconception(
            "you took the tilted law for the flow's. For a product of Gaussian powers, add the precisions (1 / variance).",
            _variances(tilted=lambda v, w: v**w),
        ),
        Misconception(
            "the two answers come in the wrong order: `return flow, tilted`.",
            lambda v, w: guided_variances(v, w)[::-1],
        ),
        Misconception(
            "v / w belongs to p(x | c)^w alone. The tilted law is p(x)^(1 - w) p(x | c)^w: the first factor's precision is 1 - w.",
            _variances(tilted=lambda v, w: v / w),
        ),
        Misconception(
            "you multiplied p(x) with p(x | c)^w. The classifier is p(c | x) = p(x | c) p(c) / p(x): one p(x) less for every w.",
            _variances(tilted=lambda v, w: 1 / (1 + w / v)),
        ),
        Misconception(
            "the tilted law's precision, 1 + w (1 / v - 1): its variance is one over that.",
            _variances(tilted=lambda v, w: 1 + w * (1 / v - 1)),
        ),
        Misconception(
            "variances do not interpolate, precisions do: 1 / variance = (1 - w) + w / v.",
            _variances(tilted=lambda v, w: 1 + w * (v - 1)),
        ),
        Misconception(
            "both are for the other convention: here w = 1 is conditional and must give v twice.",
            _variances(lambda v, w: v ** (1 + w), lambda v, w: v / (v + (1 + w) * (1 - v))),
        ),
        Misconception(
            "this is the reverse SDE's variance, (v - v^2w) / ((1 - v)(2w - 1)). Asked is the flow's: no noise is added there.",
            _variances(flow=lambda v, w: (v - v ** (2 * w)) / ((1 - v) * (2 * w - 1))),
        ),
        Misconception(
            "the tilted law's answer is a standard deviation: the variance is its square.",
            _variances(tilted=lambda v, w: (v / (v + w * (1 - v))).sqrt()),
        ),
        Misconception(
            "both are standard deviations: the variances are their squares.",
            lambda v, w: tuple(value.sqrt() for value in guided_variances(v, w)),
        ),
        Misconception(
            "p(x) p(c | x)^w holds p(x) to the power 1 - w, not -w: the precision is (1 - w) + w / v.",
            _variances(tilted=lambda v, w: 1 / (w / v - w)),
        ),
        Misconception(
            "the flow's variance is squared once too often: v^(w/2) is the factor for distances, v^w that for the variance.",
            _variances(flow=lambda v, w: v ** (2 * w)),
        ),
    ),
    hints=(
        "Tilted: p(x) p(c | x)^w is proportional to p(x)^(1 - w) p(x | c)^w. A power of a Gaussian multiplies its precision.",
        "Flow: the distance d of two points obeys dd/dt = -beta/2 (d + [s_w(a) - s_w(b)]), and the scores' difference is "
        "-d + w (d - d / V).",
        "So d log d / dt = -(beta w / 2)(1 - 1 / V). With V' = beta (1 - V) that is (w / 2) V' / V.",
        "From t = T, where V = 1, down to t = 0, where V = v, distances shrink by v^(w/2). Both answers are v at w = 1.",
    ),
)

# -- 11.5 the exact posterior score of a Gaussian ----------------------------------------------------------------------


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
    id="11.5",
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

# -- 11.6 pseudo-inverse guidance --------------------------------------------------------------------------------------


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
    score, x = WavyScore(0.4 * normal(generator, d, d)), normal(generator, b, d)
    t = time_of(generator, sde, 0.3, 0.7)
    return score, sde, normal(generator, m, d), y, float(noise_std) if count(generator, 0, 1) else noise_std, x, t


PSEUDOINVERSE = Exercise(
    id="11.6",
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

# -- 11.7 replacement, and the way back --------------------------------------------------------------------------------


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
    id="11.7",
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

EXERCISES = (CLASSIFIER, FREE, NOISES, LAWS, POSTERIOR, PSEUDOINVERSE, REPLACE)
