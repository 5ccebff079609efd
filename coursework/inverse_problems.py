"""Linear inverse problems: the law of data given a measurement of it, and scores for it (lesson 13).

For y = A x_0 + noise_std n, Bayes' rule for scores is grad log p_t(x | y) = grad log p_t(x) + grad_x log p_t(y | x).
`posterior_score` takes a score and returns a score(x, t) that every solver takes; `ddrm` and `inpaint` are solvers.
"""

import math
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
    wide_dtype,
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


def posterior_variance(density: GaussianMixture, operator: Operator, y: Tensor, noise_std: float) -> Tensor:
    """Var[x_0 | y] of every element, (D,), the map of what the measurement leaves uncertain: as in `condition`.

    sum_k w_k (P_k + (m_k - m)^2), P_k the diagonals of the components' covariances: what is uncertain within each of
    them, and which of them it is.
    """
    posterior = condition(density, operator, y, noise_std)
    weights, means = posterior.weights[:, None], posterior.means
    within = posterior.covariances.diagonal(dim1=-2, dim2=-1)
    return (weights * (within + (means - posterior.mean).square())).sum(0)


def ddrm(
    score: TimedScore,
    sde: SDE,
    operator: Operator,
    y: Tensor,
    noise_std: float,
    x: Tensor,
    times: Tensor,
    *,
    eta: float = 0.85,
    eta_b: float = 1.0,
    generator: torch.Generator | None = None,
    on_step: OnStep | None = None,
) -> Tensor:
    """Sample given y = A x_0 + noise_std n, one number after the other in the basis of the SVD, A = U diag(a) V^T.

    With u = V^T x / alpha, d = V^T x0_hat, s = sigma / alpha: U^T y / a is a look at V^T x_0 with noise b = noise_std /
    a. A step from t to the next time, at which s and z are taken, q = sqrt(1 - eta^2):
    unseen (a = 0):    u <- d + s (q (u - d) / s_t + eta z),  s_t that of t;
    seen, s < b:       u <- d + s (q (U^T y / a - d) / b + eta z);
    seen, s >= b:      u <- (1 - eta_b) d + eta_b U^T y / a + sqrt(s^2 - eta_b^2 b^2) z.
    If d were V^T x_0, u would have the law N(V^T x_0, s^2 I) at all times; with x0_hat it is an approximation.

    x: noise (B, *S) at times[0], from the prior; what is seen at all starts from y. operator: (M, D), or a linear
    function; y: (M,), or (B, M). noise_std, eta and eta_b: at least 0, the latter at most 1. One score call a step.
    Source: Kawar, Elad, Ermon & Song 2022, section 3.
    """
    check_start(score, x, generator)
    noise_std, shares = number(noise_std, "noise_std"), {"eta": number(eta, "eta"), "eta_b": number(eta_b, "eta_b")}
    if noise_std < 0:
        raise ValueError(f"noise_std: expected a number >= 0, got {noise_std}")
    for name, share in shares.items():
        if not 0 <= share <= 1:
            raise ValueError(f"{name}: expected a number in [0, 1], got {share}")
    eta, eta_b = shares.values()
    times = check_times(times, sde)
    check_noisy(times[:-1], sde)
    floating(y, "y")
    finite(y, "y")
    measured = _Measurement(operator, y)
    if not len(x):
        return x
    look, seen, b, basis = measured.decoupled(x, noise_std)
    t = score_times(x, times[:-1], sde)
    alpha, sigma = columns(wide(x), sde.alpha(times), sde.sigma(times))
    s, q = sigma / alpha, math.sqrt(1 - eta**2)

    def turned(x: Tensor, i: int) -> Tensor:
        return wide(x).flatten(1) @ basis / alpha[i]

    def back(u: Tensor, i: int) -> Tensor:
        return (alpha[i] * u @ basis.mT).reshape(x.shape).to(x.dtype)

    def step(i: int, x: Tensor) -> Tensor:
        u, d = turned(x, i), turned(x + (sigma[i] ** 2).to(x.dtype) * score_at(score, x, t[i]), i)
        z = normal_like(u, generator)
        free = d + s[i + 1] * (q * (u - d) / s[i] + eta * z)
        blurred = d + s[i + 1] * (q * (look - d) / b.where(b > 0, 1.0) + eta * z)
        clear = (1 - eta_b) * d + eta_b * look + (s[i + 1] ** 2 - (eta_b * b) ** 2).clamp(min=0).sqrt() * z
        return back(torch.where(seen, torch.where(s[i + 1] < b, blurred, clear), free), i + 1)

    u = turned(x, 0)
    from_y = look + (1 - (b / s[0]) ** 2).clamp(min=0).sqrt() * u
    return walk(step, back(torch.where(seen & (s[0] >= b), from_y, u), 0), times, on_step)


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

    def decoupled(self, x: Tensor, noise_std: float) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """In the basis V of A = U diag(a) V^T: U^T y / a (B, D), where a > 0 (D,), noise_std / a (D,); and V (D, D).

        Where a is 0 (up to rounding), these are 0.
        """
        y, matrix = self.gap(torch.zeros_like(wide(x))), _matrix(self.operator, x[:1])
        left, values, right = torch.linalg.svd(matrix.double())
        least = torch.finfo(wide_dtype(matrix)).eps * max(matrix.shape) * values.max()
        rank = int((values > least).sum())
        look, b = y.new_zeros(len(y), len(right)), y.new_zeros(len(right))
        look[:, :rank] = (y.double() @ left[:, :rank] / values[:rank]).to(y.dtype)
        b[:rank] = (noise_std / values[:rank]).to(y.dtype)
        return look, torch.arange(len(right), device=y.device) < rank, b, right.mT.to(y.dtype)


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
