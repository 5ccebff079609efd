"""Conditions on a score: guidance, linear inverse problems, inpainting, editing (lesson 11).

Bayes' rule for scores: grad log p_t(x | y) = grad log p_t(x) + grad_x log p_t(y | x). The functions down to
`posterior_score` take a score and return a score(x, t) that every solver takes; `inpaint` and `sdedit` are solvers.
The guidance scale w: 0 is unconditional, 1 conditional, above 1 amplified.
"""

import math
from collections.abc import Callable

import torch
from torch import Tensor

from coursework._arguments import at_least, expand, finite, floating, like, one_of
from coursework._loops import (
    OnStep,
    TimedScore,
    check_noisy,
    check_start,
    check_times,
    columns,
    normal_like,
    score_at,
    walk,
)
from coursework.distributions import GaussianMixture, exact_score
from coursework.reverse_sde import stochastic_heun, transition
from coursework.sdes import SDE

ConditionalScore = Callable[[Tensor, Tensor, Tensor], Tensor]
Operator = Tensor | Callable[[Tensor], Tensor]
METHODS = ("pseudoinverse", "dps", "exact")


def classifier_guidance(score: TimedScore, log_prob_label: TimedScore, label: Tensor | int, scale: float) -> TimedScore:
    """s + scale grad_x log p_t(label | x), p_t a classifier of noisy points.

    log_prob_label(x, t) -> (B, n_classes): log-probabilities of a point that is noisy as at t; label long (B,), or one
    for all. With scale 1 and the exact classifier this is the conditional score. With another scale w it is the score
    of p_t(x) p_t(label | x)^w at every t, but these are not the noisy laws of p_0(x) p_0(label | x)^w: what a solver
    samples is not that law. Source: Dhariwal & Nichol 2021, algorithm 1; Song et al. 2021, eq. 14.
    """
    _number(scale, "scale")

    def guided(x: Tensor, t: Tensor) -> Tensor:
        value = score_at(score, x, t)
        recording = torch.is_grad_enabled()
        with torch.enable_grad():
            leaf = x if x.requires_grad else x.detach().requires_grad_()
            log_prob = log_prob_label(leaf, t)
            if log_prob.ndim != 2 or len(log_prob) != len(x):
                raise ValueError(
                    f"log_prob_label's value: expected shape ({len(x)}, n_classes), got {tuple(log_prob.shape)}"
                )
            chosen = log_prob.gather(1, _labels(label, x)[:, None]).sum()
            (gradient,) = torch.autograd.grad(chosen, leaf, create_graph=recording and x.requires_grad)
        return value + scale * gradient

    return guided


def classifier_free_guidance(
    conditional_score: ConditionalScore,
    label: Tensor | int,
    scale: float,
    *,
    interval: tuple[float, float] | None = None,
) -> TimedScore:
    """s_0 + scale (s_c - s_0), s_c the score with the label, s_0 the one without: one call on twice the batch.

    conditional_score(x, t, label), label long, -1 for none. The other convention, (1 + w) s_c - w s_0, has
    w = scale - 1. interval: times (low, high) between which the scale holds; outside it is 1 (Kynkaanniemi et al.
    2024). Source: Ho & Salimans 2022, eq. 6.
    """
    _number(scale, "scale")
    if interval is not None and not 0 <= interval[0] < interval[1]:
        raise ValueError(f"interval: expected 0 <= low < high, got {interval}")

    def guided(x: Tensor, t: Tensor) -> Tensor:
        labels = _labels(label, x)
        both = torch.cat([labels, torch.full_like(labels, -1)])
        twice = torch.cat([x, x])
        value = conditional_score(twice, t if t.ndim == 0 else torch.cat([t, t]), both)
        like(value, twice, "conditional_score's value", "x twice")
        conditional, unconditional = value.chunk(2)
        weight = torch.full_like(t, scale)
        if interval is not None:
            weight = weight.where((t >= interval[0]) & (t <= interval[1]), 1.0)
        return unconditional + expand(weight, x, "t") * (conditional - unconditional)

    return guided


def rescale(guided: Tensor, conditional: Tensor, share: float) -> Tensor:
    """Give a guided prediction the conditional one's standard deviation over each point's elements, in part:

    share guided std(conditional) / std(guided) + (1 - share) guided. Strong guidance enlarges it, which saturates
    images. Shapes: (B, *S) each. Source: Lin et al. 2024, eq. 15 and 16.
    """
    like(guided, conditional, "guided", "conditional")
    if not 0 <= share <= 1:
        raise ValueError(f"share: expected a number in [0, 1], got {share}")
    ratio = conditional.flatten(1).std(1) / guided.flatten(1).std(1)
    return share * expand(ratio, guided, "guided") * guided + (1 - share) * guided


def dynamic_threshold(x0_hat: Tensor, quantile: float = 0.995) -> Tensor:
    """Clip each estimate of the data to [-s, s] and divide by s, s = max(1, the quantile of |x0_hat|).

    For data in [-1, 1]. Shapes: (B, *S) -> (B, *S). Source: Saharia et al. 2022, section 2.3.
    """
    floating(x0_hat, "x0_hat")
    if not 0 < quantile <= 1:
        raise ValueError(f"quantile: expected a number in (0, 1], got {quantile}")
    s = expand(x0_hat.flatten(1).abs().quantile(quantile, dim=1).clamp(min=1), x0_hat, "x0_hat")
    return x0_hat.clamp(-s, s) / s


def posterior_score(
    score: TimedScore,
    sde: SDE,
    operator: Operator,
    y: Tensor,
    noise_std: float,
    *,
    method: str = "pseudoinverse",
    density: GaussianMixture | None = None,
) -> TimedScore:
    """The score of p_t(x | y) for a linear measurement y = A x_0 + noise_std n, n ~ N(0, I): exact, or approximated.

    With x0_hat = E[x_0 | x] by Tweedie and its Jacobian J = dx0_hat/dx, added to s(x, t) are
    "dps":            J^T A^T (y - A x0_hat) / noise_std^2  (x_0 as if it were x0_hat exactly);
    "pseudoinverse":  J^T A^T (r^2 A A^T + noise_std^2 I)^{-1} (y - A x0_hat), r^2 = sigma^2 / (alpha^2 + sigma^2), the
                      variance of x_0 given x for data of unit variance: exact for N(0, I), else an approximation;
    "exact":          for x_0 from `density`: the exact score of the noisy law of the mixture given y; `score` is not
                      called.

    operator: (M, D), or a linear function (B, *S) -> (B, ...); y: (M,), or (B, M) for measurements of their own (not
    for "exact"). noise_std > 0, or 0 for "pseudoinverse". Shapes: x (B, *S), flattened for a matrix.
    With a trained network start a solver where alpha is about 0.1, not at T: x0_hat divides the network's error by
    alpha, which is 0.0066 at T for VP, and the run may overflow. "dps" is stiff: a step h has to keep g^2 h |A J|^2
    below about noise_std^2.
    Source: Chung et al. 2023, eq. 16 (dps, with its step 1 / noise_std^2); Song, Vahdat, Mardani & Kautz 2023, eq. 7
    and 8.
    """
    one_of(method, METHODS, "method")
    floating(y, "y")
    finite(y, "y")
    if not 0 <= noise_std < math.inf or (noise_std == 0 and method != "pseudoinverse"):
        raise ValueError(f"noise_std: expected a number > 0 (or 0 for 'pseudoinverse'), got {noise_std}")
    if method == "exact":
        if density is None:
            raise ValueError("density: the exact posterior needs the data's law, a GaussianMixture")
        return exact_score(condition(density, operator, y, noise_std), sde)
    measured = _Measurement(operator, y)

    def guided(x: Tensor, t: Tensor) -> Tensor:
        alpha, sigma = (expand(v, x, "t") for v in (sde.alpha(t), sde.sigma(t)))
        recording = torch.is_grad_enabled() and x.requires_grad
        with torch.enable_grad():
            leaf = x if x.requires_grad else x.detach().requires_grad_()
            value = score_at(score, leaf, t)
            x0_hat = (leaf + sigma**2 * value) / alpha
            gap = measured.gap(x0_hat)
            if method == "dps":
                weighted = gap.detach() / noise_std**2
            else:
                r2 = (sigma**2 / (alpha**2 + sigma**2)).reshape(-1, 1)
                weighted = measured.solve(gap.detach(), r2, noise_std, x)
            # gap depends on x through x0_hat alone: the gradient of -gap . weighted is J^T A^T weighted
            (gradient,) = torch.autograd.grad(-(gap * weighted).sum(), leaf, create_graph=recording)
        return (value if recording else value.detach()) + gradient

    return guided


def condition(density: GaussianMixture, operator: Operator, y: Tensor, noise_std: float) -> GaussianMixture:
    """The law of x_0 given y = A x_0 + noise_std n: again a Gaussian mixture.

    With S_k = A Sigma_k A^T + noise_std^2 I and G_k = Sigma_k A^T S_k^{-1}: weights w_k N(y; A mu_k, S_k), means
    mu_k + G_k (y - A mu_k), covariances (I - G_k A) Sigma_k. Shapes: operator (M, D), y (M,).
    Source: Bishop 2006, eq. 2.116 and 2.117.
    """
    a = _matrix(operator, density.means[:1]).double()
    if y.shape != a.shape[:1]:
        raise ValueError(f"y: expected shape ({len(a)},), got {tuple(y.shape)}")
    if not 0 < noise_std < math.inf:
        raise ValueError(f"noise_std: expected a number > 0, got {noise_std}")
    means, covariances = density.means.double(), density.covariances.double()
    noise = noise_std**2 * torch.eye(len(a), dtype=a.dtype, device=a.device)
    seen = a @ covariances @ a.mT + noise  # (K, M, M)
    gain = torch.linalg.solve(seen, a @ covariances).mT  # (K, D, M)
    gap = y.double() - means @ a.mT
    evidence = torch.distributions.MultivariateNormal(means @ a.mT, seen, validate_args=False).log_prob(y.double())
    weights = torch.softmax(density.weights.double().log() + evidence, 0).clamp(min=1e-300)
    narrowed = covariances - gain @ a @ covariances
    return GaussianMixture(
        (means + (gain @ gap[..., None])[..., 0]).to(density.means.dtype),
        (0.5 * (narrowed + narrowed.mT)).to(density.means.dtype),
        weights.to(density.means.dtype),
    )


def inpaint(
    score: TimedScore,
    sde: SDE,
    x_known: Tensor,
    mask: Tensor,
    times: Tensor,
    *,
    n_resample: int = 1,
    generator: torch.Generator | None = None,
    on_step: OnStep | None = None,
) -> Tensor:
    """Fill in the unknown elements: steps of reverse diffusion from the prior; after each the known ones are replaced
    by alpha x_known + sigma z at the new time.

    n_resample 1: replacement alone, which is biased: the unknown part never hears of the known part's future. More:
    each step is taken n_resample times, going back from s to t by x <- r x + G z in between, so that both parts agree
    (RePaint). The known elements come back as they were given.

    Shapes: x_known (B, *S), its unknown elements are not looked at; mask bool, (B, *S) or (*S), True where known.
    Source: Song et al. 2021, appendix I.2; Lugmayr et al. 2022, algorithm 1.
    """
    at_least(n_resample, 1, "n_resample")
    if mask.dtype != torch.bool or mask.shape not in (x_known.shape, x_known.shape[1:]):
        raise ValueError(f"mask: expected bool of shape {tuple(x_known.shape)}, got {mask.dtype} {tuple(mask.shape)}")
    known = x_known.where(mask, 0.0)
    check_start(score, known, generator)
    times = check_times(times, sde)
    check_noisy(times[:-1], sde)
    r, g2 = transition(sde, times)
    t, r, g2, g, alpha, sigma = columns(x_known, times, r, g2, g2.sqrt(), sde.alpha(times), sde.sigma(times))
    last = len(times) - 2

    def step(i: int, x: Tensor) -> Tensor:
        for again in reversed(range(n_resample)):
            x = (2 - r[i]) * x + g2[i] * score_at(score, x, t[i])
            if i < last:
                x = x + g[i] * normal_like(x, generator)
            x = torch.where(mask, alpha[i + 1] * known + sigma[i + 1] * normal_like(x, generator), x)
            if again:
                x = r[i] * x + g[i] * normal_like(x, generator)
        return x

    start = sde.prior_sample(x_known.shape, generator=generator, device=x_known.device, dtype=x_known.dtype)
    return torch.where(mask, known, walk(step, start, times, on_step))


def sdedit(
    score: TimedScore,
    sde: SDE,
    x: Tensor,
    times: Tensor,
    *,
    generator: torch.Generator | None = None,
    on_step: OnStep | None = None,
) -> Tensor:
    """Noise x to times[0] < T, then solve the reverse SDE from there: the earlier times[0], the closer to x.

    Steps of stochastic Heun. Shapes: x (B, *S) -> (B, *S). Source: Meng et al. 2022, algorithm 1.
    """
    check_start(score, x, generator)
    times = check_times(times, sde)
    if float(times[0]) >= sde.T:
        raise ValueError(f"times: expected a start before T = {sde.T}, where nothing of x is left, got {times[0]:g}")
    noisy = sde.perturb(x, times[0].to(x.device, x.dtype), normal_like(x, generator))
    return stochastic_heun(score, sde, noisy, times, generator=generator, on_step=on_step)


class _Measurement:
    """y = A x_0: the gap y - A x0_hat, and (r^2 A A^T + noise_std^2 I)^{-1} times it, in the eigenbasis of A A^T."""

    def __init__(self, operator: Operator, y: Tensor) -> None:
        self.operator, self.y, self._basis = operator, y, None

    def gap(self, x0_hat: Tensor) -> Tensor:
        """y - A x0_hat, (B, M)."""
        flat = x0_hat.flatten(1)
        if isinstance(self.operator, Tensor):
            if self.operator.ndim != 2 or self.operator.shape[1] != flat.shape[1]:
                raise ValueError(f"operator: expected shape (M, {flat.shape[1]}), got {tuple(self.operator.shape)}")
            value = flat @ self.operator.to(flat).mT
        else:
            value = self.operator(x0_hat).flatten(1)
        y = self.y.to(flat)
        y = y.reshape(1, -1) if y.ndim == 1 else y.flatten(1)
        if y.shape[1] != value.shape[1] or len(y) not in (1, len(flat)):
            raise ValueError(
                f"y: expected shape ({value.shape[1]},) or {tuple(value.shape)}, got {tuple(self.y.shape)}"
            )
        return y - value

    def solve(self, gap: Tensor, r2: Tensor, noise_std: float, x: Tensor) -> Tensor:
        """(r^2 A A^T + noise_std^2 I)^{-1} gap, r2 (B, 1) or (1, 1); without noise the pseudo-inverse."""
        if self._basis is None:
            matrix = _matrix(self.operator, x[:1]).double()
            values, vectors = torch.linalg.eigh(matrix @ matrix.mT)
            self._basis = values.clamp(min=0).to(gap), vectors.to(gap)
        values, vectors = self._basis
        variance = r2 * values + noise_std**2
        floor = 1e-10 * variance.max(1, keepdim=True).values
        return ((gap @ vectors) / variance.clamp(min=floor)) @ vectors.mT


def _matrix(operator: Operator, x: Tensor) -> Tensor:
    """The operator as a matrix (M, D): a function is applied to each unit vector of x's shape, (1, *S)."""
    if isinstance(operator, Tensor):
        return operator
    n_dims = x[0].numel()
    basis = torch.eye(n_dims, dtype=x.dtype, device=x.device).reshape(n_dims, *x.shape[1:])
    with torch.no_grad():
        return operator(basis).flatten(1).mT


def _labels(label: Tensor | int, x: Tensor) -> Tensor:
    """Labels (B,) on x's device."""
    labels = torch.as_tensor(label, device=x.device)
    if labels.dtype != torch.long or labels.shape not in ((), x.shape[:1]):
        raise ValueError(f"label: expected long ({len(x)},) or one integer, got {labels.dtype} {tuple(labels.shape)}")
    return labels.expand(len(x))


def _number(value: float, name: str) -> None:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
        raise ValueError(f"{name}: expected a finite number, got {value!r}")
