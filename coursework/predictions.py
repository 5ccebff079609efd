"""Four ways to say the same thing about x_t = alpha x_0 + sigma noise: score, noise, data, velocity (lesson 04)."""

from typing import TYPE_CHECKING

from torch import Tensor, nn

from coursework._arguments import batch, expand, finite, floating, holds, like, one_of, positive, reals, wide_dtype

if TYPE_CHECKING:
    from coursework.sdes import SDE

PREDICTIONS = ("score", "noise", "data", "velocity")


def convert(
    value: Tensor, x_t: Tensor, alpha: float | Tensor, sigma: float | Tensor, *, source: str, target: str
) -> Tensor:
    """Turn one prediction at x_t into another.

    With x_t = alpha x_0 + sigma noise:  score = -noise / sigma,  velocity = alpha noise - sigma x_0, hence
    x_0 = (alpha x_t - sigma velocity) / (alpha^2 + sigma^2),
    noise = (sigma x_t + alpha velocity) / (alpha^2 + sigma^2).

    Shapes: value, x_t (B, *S); alpha, sigma numbers, 0-d or (B,) -> (B, *S). `source` and `target` are each one of
    "score", "noise", "data", "velocity". Raises ValueError for other names, shapes that differ, sigma <= 0, or
    alpha = 0 where noise or score would have to tell x_0.
    Source: Salimans & Ho 2022, section 4 and appendix D (velocity); the divisor is 1 only where alpha^2 + sigma^2 = 1.
    """
    one_of(source, PREDICTIONS, "source")
    one_of(target, PREDICTIONS, "target")
    batch(x_t, "x_t")
    like(value, x_t, "value", "x_t")
    alpha = reals(alpha, "alpha")
    finite(alpha, "alpha")
    positive(sigma, "sigma")
    if source in ("score", "noise") and target in ("data", "velocity") and not holds(alpha != 0):
        raise ValueError(f"alpha: expected values other than 0 to turn {source} into {target}, got 0")
    return _convert(value, x_t, alpha, sigma, source, target)


def _convert(
    value: Tensor, x_t: Tensor, alpha: float | Tensor, sigma: float | Tensor, source: str, target: str
) -> Tensor:
    if source == target:
        return value
    alpha, sigma = expand(alpha, x_t, "alpha"), expand(sigma, x_t, "sigma")
    data, noise = _data_and_noise(value, x_t, alpha, sigma, source)
    if target == "data":
        return data
    if target == "noise":
        return noise
    return -noise / sigma if target == "score" else alpha * noise - sigma * data


def _data_and_noise(value: Tensor, x_t: Tensor, alpha: Tensor, sigma: Tensor, source: str) -> tuple[Tensor, Tensor]:
    if source == "data":
        return value, (x_t - alpha * value) / sigma
    if source == "velocity":
        scale = alpha**2 + sigma**2
        return (alpha * x_t - sigma * value) / scale, (sigma * x_t + alpha * value) / scale
    noise = value if source == "noise" else -sigma * value
    return (x_t - sigma * noise) / alpha, noise


def tweedie(x_t: Tensor, score_value: Tensor, alpha: float | Tensor, sigma: float | Tensor) -> Tensor:
    """E[x_0 | x_t] = (x_t + sigma^2 s(x_t)) / alpha, s the score of the law of x_t (Robbins 1956; Efron 2011).

    Shapes: x_t, score_value (B, *S); alpha, sigma numbers, 0-d or (B,) -> (B, *S).
    """
    batch(x_t, "x_t")
    like(score_value, x_t, "score_value", "x_t")
    return convert(score_value, x_t, alpha, sigma, source="score", target="data")


class ScoreModel(nn.Module):
    """A network as a score: `model(x, t, label=None)` -> grad log p_t(x), of x's shape.

    `network(x, t)`, or `network(x, t, label)` where a label is given, predicts what `prediction` names at times of
    `sde`. Shapes: x (B, *S); t 0-d or (B,), handed on in x's dtype (float32 where that is half precision);
    label long (B,), -1 = no label. Raises ValueError for t outside [0, T] and where sigma is 0.
    """

    def __init__(self, network: nn.Module, sde: "SDE", prediction: str = "noise") -> None:
        super().__init__()
        one_of(prediction, PREDICTIONS, "prediction")
        self.network, self.sde, self.prediction = network, sde, prediction

    def forward(self, x: Tensor, t: float | Tensor, label: Tensor | None = None) -> Tensor:
        """The score at (x, t)."""
        return self.predict(x, t, "score", label)

    def predict(self, x: Tensor, t: float | Tensor, target: str, label: Tensor | None = None) -> Tensor:
        """The network's answer at (x, t) as `target`: "score", "noise", "data" or "velocity"."""
        one_of(target, PREDICTIONS, "target")
        floating(x, "x")
        t = self.sde.time(t, noisy=True)
        expand(t, x, "t")
        time = t.to(x.device, wide_dtype(x))
        value = self.network(x, time) if label is None else self.network(x, time, label)
        floating(value, "network's value")
        value = value.to(x.dtype)  # autocast gives bfloat16
        like(value, x, "network's value", "x")
        return _convert(value, x, self.sde.alpha(t), self.sde.sigma(t), self.prediction, target)
