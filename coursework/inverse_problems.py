"""Linear inverse problems: the law of data given a measurement of it, and scores for it (lesson 13).

For y = A x_0 + noise_std n, Bayes' rule for scores is grad log p_t(x | y) = grad log p_t(x) + grad_x log p_t(y | x).
`posterior_score` takes a score and returns a score(x, t) that every solver takes; `inpaint` is a solver.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from coursework._arguments import (
    at_least,
    expand,
    finite,
    floating,
    n_dims,
    number,
    one_of,
    ordinary,
    positive_number,
    wide,
)
from coursework._loops import (
    OnStep,
    TimedScore,
    check_noisy,
    check_start,
    check_times,
    columns,
    derivatives,
    leaf,
    normal_like,
    score_at,
    score_times,
    walk,
)
from coursework.distributions import GaussianMixture, exact_score
from coursework.reverse_sde import transition
from coursework.sdes import SDE

Operator = Tensor | Callable[[Tensor], Tensor]
METHODS = ("pseudoinverse", "dps", "exact")


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
    noise_std = number(noise_std, "noise_std")
    if noise_std < 0 or (noise_std == 0 and method != "pseudoinverse"):
        raise ValueError(f"noise_std: expected a number > 0 (or 0 for 'pseudoinverse'), got {noise_std}")
    if method == "exact":
        if density is None:
            raise ValueError("density: the exact posterior needs the data's law, a GaussianMixture")
        return exact_score(condition(density, operator, y, noise_std), sde)
    measured = _Measurement(operator, y)

    def guided(x: Tensor, t: Tensor) -> Tensor:
        recording = torch.is_grad_enabled() and x.requires_grad
        with derivatives(x, sde.time(t)) as (inner, t):
            alpha, sigma = (expand(v, x, "t") for v in (sde.alpha(t), sde.sigma(t)))
            inner = leaf(inner)
            value = score_at(score, inner, t)
            x0_hat = (inner + sigma**2 * value) / alpha
            gap = measured.gap(x0_hat)
            if method == "dps":
                weighted = (wide(gap) / noise_std**2).to(gap.dtype)
            else:
                r2 = (sigma**2 / (alpha**2 + sigma**2)).reshape(-1, 1)
                weighted = measured.solve(gap, r2, noise_std, inner)
            # gap depends on x through x0_hat alone: -dgap/dx^T weighted is J^T A^T weighted
            (gradient,) = torch.autograd.grad(gap, inner, -weighted, create_graph=recording)
        return (value if recording else value.detach()) + (gradient if recording else gradient.detach())

    return guided


def condition(density: GaussianMixture, operator: Operator, y: Tensor, noise_std: float) -> GaussianMixture:
    """The law of x_0 given y = A x_0 + noise_std n: again a Gaussian mixture.

    With S_k = A Sigma_k A^T + noise_std^2 I and G_k = Sigma_k A^T S_k^{-1}: weights w_k N(y; A mu_k, S_k), means
    mu_k + G_k (y - A mu_k), covariances (I - G_k A) Sigma_k. Shapes: operator (M, D), y (M,).
    Source: Bishop 2006, eq. 2.116 and 2.117.
    """
    floating(y, "y")
    _check_operator(operator)
    a = _matrix(operator, density.means[:1]).double()
    if y.shape != a.shape[:1]:
        raise ValueError(f"y: expected shape ({len(a)},), got {tuple(y.shape)}")
    noise_std = positive_number(noise_std, "noise_std")
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
    n_resample = at_least(n_resample, 1, "n_resample")
    floating(x_known, "x_known")
    if not isinstance(mask, Tensor):
        raise TypeError(f"mask: expected a torch.Tensor, got {type(mask).__name__}")
    if mask.dtype != torch.bool or mask.shape not in (x_known.shape, x_known.shape[1:]):
        raise ValueError(f"mask: expected bool of shape {tuple(x_known.shape)}, got {mask.dtype} {tuple(mask.shape)}")
    if mask.device != x_known.device:
        raise ValueError(f"mask: expected device {x_known.device} like x_known, got {mask.device}")
    known = x_known.where(mask, 0.0)
    check_start(score, known, generator)
    times = check_times(times, sde)
    check_noisy(times[:-1], sde)
    t = score_times(x_known, times[:-1], sde)
    r, g2 = transition(sde, times)
    r, g2, g, alpha, sigma = columns(x_known, r, g2, g2.sqrt(), sde.alpha(times), sde.sigma(times))
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
    start.requires_grad_(known.requires_grad and torch.is_grad_enabled())  # so that the loop records
    return torch.where(mask, known, walk(step, start, times, on_step))


class _Measurement:
    """y = A x_0: the gap y - A x0_hat, and (r^2 A A^T + noise_std^2 I)^{-1} times it, in the eigenbasis of A A^T."""

    def __init__(self, operator: Operator, y: Tensor) -> None:
        _check_operator(operator)
        self.operator = ordinary(operator) if isinstance(operator, Tensor) else operator
        self.y = ordinary(y)
        self._basis: tuple[Tensor, Tensor] | None = None  # eigenvalues and eigenvectors of A A^T

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
            self._basis = values.clamp(min=0), vectors
        values, vectors = (part.to(wide(gap)) for part in self._basis)
        variance = wide(r2) * values + noise_std**2
        floor = 1e-10 * variance.max(1, keepdim=True).values
        inverse = torch.where(variance > floor, 1 / variance, 0.0)
        return (((wide(gap) @ vectors) * inverse) @ vectors.mT).to(gap.dtype)


def _check_operator(operator: Operator) -> None:
    if not isinstance(operator, Tensor) and not callable(operator):
        raise TypeError(f"operator: expected a tensor (M, D) or a function, got {type(operator).__name__}")


def _matrix(operator: Operator, x: Tensor) -> Tensor:
    """The operator as a matrix (M, D): a function is applied to each unit vector of x's shape, (1, *S)."""
    if isinstance(operator, Tensor):
        return operator
    basis = torch.eye(n_dims(x), dtype=x.dtype, device=x.device).reshape(-1, *x.shape[1:])
    with torch.no_grad():
        return operator(basis).flatten(1).mT
