"""Exercises of lesson 11, guidance."""

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Generator, Tensor

from coursework.exercises.attempt import plain_tensors
from coursework.exercises.draws import WavyTimedScore, count, normal, number, sizes, uniform
from coursework.exercises.engine import Exercise, Misconception
from coursework.exercises.exercise import Observed

Score = Callable[[Tensor, Tensor], Tensor]

# -- what several exercises share --------------------------------------------------------------------------------------


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
        self.score, self.pulls, self.n_calls = WavyTimedScore(matrix), pulls, 0

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
    score, classifier = WavyTimedScore(0.7 * normal(generator, d, d)), WavyClassifier(normal(generator, n_classes, d))
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
            "these are the lines as printed. Try w = 0 and w = 1 in the first; put s = -noise / sigma into Bayes' rule for the second.",
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
            "the first line is right, the second is still the printed one: noise = -sigma score, so the gradient comes with -sigma.",
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

# -- 11.5 what editing leaves of its input -----------------------------------------------------------------------------


def left_of_the_input(data_variance: Tensor, alpha: Tensor, sigma: Tensor) -> tuple[Tensor, Tensor]:
    """rho^2 by the SDE, rho by the flow, rho^2 = alpha^2 v / (alpha^2 v + sigma^2). Shapes: (K,) each -> (K,), (K,)."""
    signal = alpha**2 * data_variance
    share = signal / (signal + sigma**2)
    return share, share.sqrt()


def _draw_editing(generator: Generator) -> tuple[Tensor, Tensor, Tensor]:
    k = count(generator, 1, 12)
    v, alpha = uniform(generator, k, low=0.2, high=3.0), uniform(generator, k, low=0.3, high=0.95)
    return v, alpha, uniform(generator, k, low=0.3, high=2.0)


def _pair_of_correlations(attempt: Callable[..., Any], args: tuple[Any, ...]) -> Observed:
    got = attempt(*args)
    if not isinstance(got, tuple | list) or len(got) != 2:
        raise TypeError("expected two tensors, `return by_sde, by_flow`")
    return {"correlation by the SDE": got[0], "correlation by the flow": got[1]}


def _share(v: Tensor, a: Tensor, s: Tensor) -> Tensor:
    return a**2 * v / (a**2 * v + s**2)


def _correlations(
    share: Callable[[Tensor, Tensor, Tensor], Tensor] = _share,
    by_sde: Callable[[Tensor], Tensor] = lambda share: share,
    by_flow: Callable[[Tensor], Tensor] = torch.sqrt,
) -> Callable[..., tuple[Tensor, Tensor]]:
    return lambda v, a, s: (by_sde(share(v, a, s)), by_flow(share(v, a, s)))


EDITING = Exercise(
    id="11.5",
    title="what editing leaves of its input",
    reference=left_of_the_input,
    draw=_draw_editing,
    seed=20_002,
    observe=_pair_of_correlations,
    misconceptions=(
        Misconception(
            "by the SDE the output is no function of x_t: it is another draw from p(x_0 | x_t). Input and output each have the "
            "correlation rho with x_t, and rho^2 with one another.",
            _correlations(by_sde=torch.sqrt),
        ),
        Misconception(
            "the flow draws nothing: its output is a rising linear function of x_t, and so as correlated with the input as x_t is.",
            _correlations(by_flow=lambda share: share),
        ),
        Misconception(
            "the two answers come in the wrong order: `return by_sde, by_flow`.",
            lambda *args: left_of_the_input(*args)[::-1],
        ),
        Misconception(
            "alpha^2 and alpha hold for data of variance 1 and alpha^2 + sigma^2 = 1: divide by the standard deviation of x_t.",
            _correlations(lambda v, a, s: a**2),
        ),
        Misconception(
            "the data's variance is missing: the signal in x_t has the variance alpha^2 v.",
            _correlations(lambda v, a, s: a**2 / (a**2 + s**2)),
        ),
        Misconception(
            "this is the share of the noise in the variance of x_t: the input's share is what is left of it.",
            _correlations(lambda v, a, s: s**2 / (a**2 * v + s**2)),
        ),
        Misconception(
            "variances add: alpha^2 v and sigma^2, not alpha v and sigma.",
            _correlations(lambda v, a, s: a * v / (a * v + s)),
        ),
        Misconception(
            "the data has the variance v, not the standard deviation v.",
            _correlations(lambda v, a, s: (a * v) ** 2 / ((a * v) ** 2 + s**2)),
        ),
        Misconception(
            "a correlation is at most 1 because it is divided by both standard deviations: these are covariances.",
            lambda v, a, s: tuple(v * rho for rho in left_of_the_input(v, a, s)),
        ),
        Misconception(
            "the flow leads back from x_t, not from the input: the noise that was added stays in the output.",
            _correlations(by_flow=torch.ones_like),
        ),
        Misconception(
            "both are squared once too often: rho^2 by the SDE, rho by the flow.",
            _correlations(by_sde=torch.square, by_flow=lambda share: share),
        ),
    ),
    hints=(
        "First the correlation rho of the input x and x_t = alpha x + sigma z: cov(x, x_t) = alpha v; divide by both standard "
        "deviations.",
        "The flow's output is a rising linear function of x_t. A correlation does not notice such a function.",
        "Given x_t, the SDE's output and the input are two independent draws from p(x_0 | x_t). So their covariance is the "
        "variance of E[x | x_t], which is rho^2 v.",
    ),
)

EXERCISES = (CLASSIFIER, FREE, NOISES, LAWS, EDITING)
