"""Cases of the exercises of lesson 11, guidance."""

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Generator, Tensor

from coursework.exercises.attempt import plain_tensors
from coursework.exercises.draws import WavyTimedScore, count, normal, number, sizes, uniform
from coursework.exercises.exercise import Exercise, Observed
from coursework.exercises.observers import named


class WavyClassifier:
    """log p(label | x) of a classifier that knows the time, so fine that differences are not close to gradients."""

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


def _classifier(generator: Generator) -> tuple[WavyTimedScore, WavyClassifier, Tensor, float, Tensor, Tensor]:
    (b, d), n_classes = sizes(generator), count(generator, 3, 6)
    label, scale = torch.randint(n_classes, (b,), generator=generator), number(generator, 1.3, 3.0)
    score, classifier = WavyTimedScore(0.7 * normal(generator, d, d)), WavyClassifier(normal(generator, n_classes, d))
    return score, classifier, label, scale, normal(generator, b, d), uniform(generator, low=0.3, high=0.8)


def _labels(generator: Generator) -> tuple[CountedScore, Tensor, float, Tensor, Tensor]:
    b, n_labels = count(generator, 1, 9), count(generator, 3, 6)
    shape = [count(generator, 2, 4) for _ in range(count(generator, 1, 3))]
    d = math.prod(shape)
    pulls = normal(generator, n_labels + 2, d)  # the last one is for -1; nothing belongs to n_labels
    score = CountedScore(0.7 * normal(generator, d, d), pulls)
    label, scale = torch.randint(1, n_labels, (b,), generator=generator), number(generator, 1.3, 3.0)
    return score, label, scale, normal(generator, b, *shape), uniform(generator, b, low=0.2, high=0.9)


def _counted(attempt: Callable[..., Any], args: tuple[Any, ...]) -> Observed:
    before = args[0].n_calls
    value = attempt(*args)
    return {"result": value, "number of calls": torch.tensor(args[0].n_calls - before)}


def _noises(generator: Generator) -> tuple[Tensor, Tensor, Tensor, Tensor, float]:
    b, d = sizes(generator)
    noise_c, noise_0, gradient = normal(generator, 3, b, d)
    return noise_c, noise_0, gradient, uniform(generator, b, low=0.2, high=0.8), number(generator, 1.3, 3.0)


def _variances(generator: Generator) -> tuple[Tensor, float]:
    return uniform(generator, count(generator, 1, 30), low=0.15, high=0.7), number(generator, 1.4, 4.0)


def _levels(generator: Generator) -> tuple[Tensor, Tensor, Tensor]:
    k = count(generator, 1, 12)
    v, alpha = uniform(generator, k, low=0.2, high=3.0), uniform(generator, k, low=0.3, high=0.95)
    return v, alpha, uniform(generator, k, low=0.3, high=2.0)


def _step(generator: Generator) -> tuple[Tensor, Tensor, Tensor, Tensor, float, Tensor, Tensor]:
    b, d = sizes(generator)
    score_c, score_0, drift, z = normal(generator, 4, b, d)
    g, h = uniform(generator, low=0.5, high=2.0), uniform(generator, low=0.05, high=0.4)
    return score_c, score_0, drift, g, number(generator, 1.3, 3.0), h, z


def _models(generator: Generator) -> tuple[Tensor, Tensor, float, float]:
    k = count(generator, 1, 30)
    good = uniform(generator, k, low=0.3, high=2.0)
    bad = good + uniform(generator, k, low=0.5, high=2.0)
    return good, bad, number(generator, 1.3, 3.0), number(generator, 2.0, 6.0)


EXERCISES = (
    Exercise("11.1", "classifier_guided", _classifier, rtol=1e-11),
    Exercise("11.2", "free_guided", _labels, _counted, counts="number of calls", seed=20_002),
    Exercise("11.3", "guided_noises", _noises, named("free", "by_classifier")),
    Exercise("11.4", "guided_variances", _variances, named("flow", "tilted"), seed=20_054),
    Exercise("11.5", "left_of_the_input", _levels, named("by_sde", "by_flow"), seed=20_002),
    Exercise("11.6", "flow_and_langevin", _step, named("flow", "langevin")),
    Exercise("11.7", "autoguided_deviation", _models, seed=20_054),
)
