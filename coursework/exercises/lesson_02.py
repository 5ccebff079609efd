"""Exercises of lesson 02, explicit score matching and its implicit form."""

from collections.abc import Callable

import torch
from torch import Generator, Tensor

from coursework.exercises.draws import count, covariances, normal, sizes, uniform
from coursework.exercises.engine import Exercise, Misconception
from coursework.exercises.exercise import Observed
from coursework.exercises.observers import value_and_gradient

# -- 2.1 the Fisher divergence between two Gaussians -------------------------------------------------------------------


def fisher_divergence(mean_p: Tensor, covariance_p: Tensor, mean_q: Tensor, covariance_q: Tensor) -> Tensor:
    """E_p[ 1/2 |s_q(x) - s_p(x)|^2 ]. Shapes: (D,), (D, D), (D,), (D, D) -> ()."""
    return 0.5 * (_spread_part(covariance_p, covariance_q) + _mean_part(mean_p, mean_q, covariance_q))


def _slope_gap(covariance_p: Tensor, covariance_q: Tensor) -> Tensor:
    return torch.linalg.inv(covariance_p) - torch.linalg.inv(covariance_q)


def _spread_part(covariance_p: Tensor, covariance_q: Tensor) -> Tensor:
    gap = _slope_gap(covariance_p, covariance_q)
    return torch.trace(gap @ covariance_p @ gap)


def _mean_part(mean_p: Tensor, mean_q: Tensor, covariance_q: Tensor) -> Tensor:
    return (torch.linalg.solve(covariance_q, mean_p - mean_q) ** 2).sum()


def _mahalanobis(mean_p: Tensor, covariance_p: Tensor, mean_q: Tensor, covariance_q: Tensor) -> Tensor:
    offset = mean_p - mean_q
    return 0.5 * (_spread_part(covariance_p, covariance_q) + offset @ torch.linalg.solve(covariance_q, offset))


def _flat_average(mean_p: Tensor, covariance_p: Tensor, mean_q: Tensor, covariance_q: Tensor) -> Tensor:
    gap = _slope_gap(covariance_p, covariance_q)
    return 0.5 * (torch.trace(gap @ gap) + _mean_part(mean_p, mean_q, covariance_q))


def _spread_of_q(mean_p: Tensor, covariance_p: Tensor, mean_q: Tensor, covariance_q: Tensor) -> Tensor:
    gap = _slope_gap(covariance_p, covariance_q)
    return 0.5 * (torch.trace(gap @ covariance_q @ gap) + _mean_part(mean_p, mean_q, covariance_q))


def _scores_of_p(mean_p: Tensor, covariance_p: Tensor, mean_q: Tensor, covariance_q: Tensor) -> Tensor:
    return 0.5 * (_spread_part(covariance_p, covariance_q) + _mean_part(mean_p, mean_q, covariance_p))


def _half_on_the_trace(mean_p: Tensor, covariance_p: Tensor, mean_q: Tensor, covariance_q: Tensor) -> Tensor:
    return 0.5 * _spread_part(covariance_p, covariance_q) + _mean_part(mean_p, mean_q, covariance_q)


def _kullback_leibler(mean_p: Tensor, covariance_p: Tensor, mean_q: Tensor, covariance_q: Tensor) -> Tensor:
    p, q = (torch.distributions.MultivariateNormal(*a) for a in ((mean_p, covariance_p), (mean_q, covariance_q)))
    return torch.distributions.kl_divergence(p, q)


def _draw_two_gaussians(generator: Generator) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    d = count(generator, 2, 12)
    covariance_p, covariance_q = covariances(generator, 2, d)
    return normal(generator, d), covariance_p, normal(generator, d), covariance_q


FISHER = Exercise(
    id="2.1",
    title="the Fisher divergence between two Gaussians",
    reference=fisher_divergence,
    draw=_draw_two_gaussians,
    misconceptions=(
        Misconception(
            "you left out the 1/2 in front of the square.",
            lambda *args: 2 * fisher_divergence(*args),
        ),
        Misconception(
            "your average is over q. In the Fisher divergence the points come from p, the data: swap the two laws and the "
            "number changes.",
            lambda mean_p, covariance_p, mean_q, covariance_q: fisher_divergence(
                mean_q, covariance_q, mean_p, covariance_p
            ),
        ),
        Misconception(
            "the difference of the means is missing: at x = mean_p the score of p is zero, that of q is not.",
            lambda mean_p, covariance_p, mean_q, covariance_q: 0.5 * _spread_part(covariance_p, covariance_q),
        ),
        Misconception(
            "you measure the difference of the means with the inverse covariance (as a KL divergence does). Here it is the "
            "length of a difference of scores: |covariance_q^{-1} (mean_p - mean_q)|^2.",
            _mahalanobis,
        ),
        Misconception(
            "you measure the difference of the means with the inverse of covariance_p. At x = mean_p the score of p is "
            "zero and the score that remains is that of q: use covariance_q.",
            _scores_of_p,
        ),
        Misconception(
            "your 1/2 stands in front of the trace only; it belongs to the whole square, so to |c|^2 as well.",
            _half_on_the_trace,
        ),
        Misconception(
            "with M the difference of the inverse covariances you take tr(M M): the offsets x - mean_p have covariance "
            "covariance_p, not I, so it is tr(M covariance_p M).",
            _flat_average,
        ),
        Misconception(
            "the offsets x - mean_p have the covariance of p, where the points come from; you took that of q.",
            _spread_of_q,
        ),
        Misconception(
            "this is the Kullback-Leibler divergence, which compares densities, not scores.", _kullback_leibler
        ),
    ),
    hints=(
        "Write both scores (exercise 1.1), subtract, and collect the terms with x - mean_p. What is random in the rest?",
        "s_q - s_p = M u + c with u = x - mean_p, M = covariance_p^{-1} - covariance_q^{-1}, "
        "c = -covariance_q^{-1} (mean_p - mean_q). E[u] = 0, E[u u^T] = covariance_p.",
        "E|M u + c|^2 = tr(M covariance_p M) + |c|^2. `torch.linalg.inv`, `torch.trace` and `@` do it.",
    ),
)

# -- 2.2 integration by parts ------------------------------------------------------------------------------------------


def cross_term(grid: Tensor, p: Tensor, s: Tensor, slope: Tensor) -> Tensor:
    """E_p[s* s] = [p s] - E_p[ds/dx] on an interval. Shapes: four times (N,) -> ()."""
    return p[-1] * s[-1] - p[0] * s[0] - torch.trapezoid(p * slope, grid)


def _derivative_of_the_density(grid: Tensor, p: Tensor, s: Tensor, slope: Tensor) -> Tensor:
    (difference,) = torch.gradient(p, spacing=(grid,))
    return torch.trapezoid(difference * s, grid)


def _draw_interval(generator: Generator) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """The law p = k e^{-rate u} on an interval, positive at both ends, on a coarse grid, and s of one sign.

    s is chosen such that p ds/dx = a + b u, a straight line: any quadrature is exact, differences of p are not.
    """
    low, length = normal(generator), uniform(generator, low=1.5, high=3.0)
    n = count(generator, 12, 40)
    u = length * torch.linspace(0, 1, n, dtype=torch.float64) ** uniform(generator, low=1.2, high=1.5)
    rate = uniform(generator, low=0.4, high=1.0)
    k = rate / (1 - torch.exp(-rate * length))
    start, a, b = uniform(generator, 3, low=0.3, high=0.8)
    growth = torch.exp(rate * u) / k
    s = start + (growth * (a + b * u - b / rate) - (a - b / rate) / k) / rate
    sign = torch.sign(normal(generator))
    return low + u, k * torch.exp(-rate * u), sign * s, sign * growth * (a + b * u)


BY_PARTS = Exercise(
    id="2.2",
    title="integration by parts",
    reference=cross_term,
    draw=_draw_interval,
    misconceptions=(
        Misconception(
            "the boundary term is missing: this law does not vanish at the ends of its interval.",
            lambda grid, p, s, slope: -torch.trapezoid(p * slope, grid),
        ),
        Misconception(
            "the integral has the wrong sign: the product rule gives p' s = (p s)' - p s'.",
            lambda grid, p, s, slope: p[-1] * s[-1] - p[0] * s[0] + torch.trapezoid(p * slope, grid),
        ),
        Misconception(
            "your boundary term is turned around: upper end minus lower end.",
            lambda grid, p, s, slope: p[0] * s[0] - p[-1] * s[-1] - torch.trapezoid(p * slope, grid),
        ),
        Misconception(
            "the density is missing in the boundary term: it is p s, not s.",
            lambda grid, p, s, slope: s[-1] - s[0] - torch.trapezoid(p * slope, grid),
        ),
        Misconception(
            "you average over the grid's points: an expectation is an integral, and this grid is not even.",
            lambda grid, p, s, slope: p[-1] * s[-1] - p[0] * s[0] - (p * slope).mean(),
        ),
        Misconception(
            "your integral does not know the spacing of the points: hand the grid over, `torch.trapezoid(values, grid)`.",
            lambda grid, p, s, slope: p[-1] * s[-1] - p[0] * s[0] - torch.trapezoid(p * slope),
        ),
        Misconception(
            "the density is missing in the integral: the expectation of the slope is the integral of p ds/dx.",
            lambda grid, p, s, slope: p[-1] * s[-1] - p[0] * s[0] - torch.trapezoid(slope, grid),
        ),
        Misconception(
            "you integrate differences of p, which are only near its derivative on this coarse grid. Move the derivative to "
            "s, whose slope you are given.",
            _derivative_of_the_density,
        ),
        Misconception(
            "you integrate differences of p (with edge_order=2), which are only near its derivative on this coarse grid. Move "
            "the derivative to s, whose slope you are given.",
            lambda grid, p, s, slope: torch.trapezoid(torch.gradient(p, spacing=(grid,), edge_order=2)[0] * s, grid),
        ),
        Misconception(
            "your integral takes the points to have even spacing; they have not: `torch.trapezoid(values, grid)`.",
            lambda grid, p, s, slope: p[-1] * s[-1] - p[0] * s[0] - (p * slope).sum() * (grid[1] - grid[0]),
        ),
        Misconception(
            "you add the values of p s at the two ends; the integral of a derivative is their difference.",
            lambda grid, p, s, slope: p[-1] * s[-1] + p[0] * s[0] - torch.trapezoid(p * slope, grid),
        ),
    ),
    hints=(
        "Under the integral p s* is just p': the unknown score disappears into a derivative. Move that derivative to s.",
        "p' s = (p s)' - p s'. Integrate both sides from one end of the grid to the other.",
        "The integral of (p s)' is p s at the last grid point minus p s at the first. `torch.trapezoid(values, grid)` "
        "integrates the rest.",
    ),
)

# -- 2.3 the trace of a Jacobian ---------------------------------------------------------------------------------------


class SmoothField:
    """fn(x) = sin(x A + b) C - d x with its parameters: a small network whose Jacobian is not symmetric.

    A is so large that differences of values are not near enough to derivatives.
    """

    def __init__(self, generator: Generator, n_dims: int, hidden: int) -> None:
        shapes = ((n_dims, hidden), (hidden,), (hidden, n_dims), ())
        scales = (20.0, 1.0, 1.0, 1.0)
        self.parameters = [
            (scale * normal(generator, *shape)).requires_grad_() for scale, shape in zip(scales, shapes, strict=True)
        ]

    def __call__(self, x: Tensor) -> Tensor:
        """Shapes: (B, D) -> (B, D)."""
        a, b, c, d = self.parameters
        return torch.sin(x @ a + b) @ c - d * x


def jacobian_trace(fn: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    """tr dfn/dx at every row. Shapes: fn (B, D) -> (B, D); x (B, D) -> (B,)."""
    return _jacobians(fn, x).diagonal(dim1=1, dim2=2).sum(1)


def _jacobians(fn: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    return torch.func.vmap(torch.func.jacrev(lambda point: fn(point[None])[0]))(x.detach())


def _draw_field(generator: Generator) -> tuple[SmoothField, Tensor]:
    b, d = sizes(generator)
    return SmoothField(generator, n_dims=d, hidden=count(generator, 2, 6)), normal(generator, b, d)


TRACE = Exercise(
    id="2.3",
    title="the trace of a Jacobian",
    reference=jacobian_trace,
    draw=_draw_field,
    observe=value_and_gradient,
    rtol=1e-11,
    misconceptions=(
        Misconception(
            "you add all D x D entries of the Jacobian. That is what one backward pass of the summed outputs gives; the "
            "trace needs the diagonal alone.",
            lambda fn, x: _jacobians(fn, x).sum((1, 2)),
        ),
        Misconception(
            "you add all D x D entries of the Jacobian, where the trace needs the diagonal alone; and the result is cut off "
            "from the parameters (`create_graph=True` is missing).",
            lambda fn, x: _jacobians(fn, x).sum((1, 2)).detach(),
        ),
        Misconception(
            "your trace is right but cut off from the parameters: nothing can be trained through it. Pass "
            "`create_graph=True`, and do not detach.",
            lambda fn, x: jacobian_trace(fn, x).detach(),
        ),
        Misconception(
            "you take quotients of differences. They are near the derivatives, not equal to them; `torch.autograd.grad` is "
            "exact.",
            lambda fn, x: sum(
                (fn(x + 1e-4 * e) - fn(x - 1e-4 * e)) @ e / 2e-4 for e in torch.eye(x.shape[1], dtype=x.dtype)
            ),
        ),
        Misconception(
            "you take the mean of the diagonal; the trace is its sum.",
            lambda fn, x: jacobian_trace(fn, x) / x.shape[1],
        ),
        Misconception(
            "you add the traces of all points: the answer is one number for each row, (B,).",
            lambda fn, x: jacobian_trace(fn, x).sum(),
        ),
        Misconception(
            "you average the traces over the points: the answer is one number for each row, (B,).",
            lambda fn, x: jacobian_trace(fn, x).mean(),
        ),
        Misconception(
            "you return the diagonal itself; add it up.",
            lambda fn, x: _jacobians(fn, x).diagonal(dim1=1, dim2=2),
        ),
    ),
    hints=(
        "One backward pass gives the gradient of one output. The diagonal needs output i and input i, for i = 1 to D.",
        "Row b of fn(x) depends on row b of x alone. So the gradient of `value[:, i].sum()` holds, for every row, all "
        "derivatives of output i. You want number i of them.",
        "In a loop over i: `torch.autograd.grad(value[:, i].sum(), x, create_graph=True)[0][:, i]`, with an x that "
        "requires a gradient (a detached copy of the caller's). Add these up.",
    ),
)

# -- 2.4 the implicit objective ----------------------------------------------------------------------------------------


def implicit_loss(score: SmoothField, x: Tensor) -> Tensor:
    """E[ tr ds/dx + 1/2 |s|^2 ]. Shapes: score (B, D) -> (B, D); x (B, D) -> ()."""
    return (jacobian_trace(score, x) + 0.5 * (score(x) ** 2).sum(1)).mean()


def _weighted(trace: float, square: float) -> Callable[[SmoothField, Tensor], Tensor]:
    def loss(score: SmoothField, x: Tensor) -> Tensor:
        return (trace * jacobian_trace(score, x) + square * (score(x) ** 2).sum(1)).mean()

    return loss


IMPLICIT = Exercise(
    id="2.4",
    title="the implicit objective",
    reference=implicit_loss,
    draw=_draw_field,
    observe=value_and_gradient,
    rtol=1e-11,
    misconceptions=(
        Misconception(
            "the 1/2 stands in front of both terms. It belongs to the square alone: the trace has the weight 1.",
            _weighted(0.5, 0.5),
        ),
        Misconception("the square lacks its 1/2.", _weighted(1.0, 1.0)),
        Misconception(
            "the 1/2 stands in front of the wrong term: it belongs to the square, not to the trace.",
            _weighted(0.5, 1.0),
        ),
        Misconception("the trace has the wrong sign.", _weighted(-1.0, 0.5)),
        Misconception(
            "you average over the D dimensions too. Sum over the dimensions, average over the points.",
            lambda score, x: implicit_loss(score, x) / x.shape[1],
        ),
        Misconception(
            "you average the squares over the D dimensions but add up the trace: sum both over the dimensions.",
            lambda score, x: jacobian_trace(score, x).mean() + 0.5 * (score(x) ** 2).mean(),
        ),
        Misconception(
            "you return one loss for each point; the expectation is their mean, a single number.",
            lambda score, x: jacobian_trace(score, x) + 0.5 * (score(x) ** 2).sum(1),
        ),
        Misconception(
            "you sum over the points; the expectation is their mean.",
            lambda score, x: implicit_loss(score, x) * len(x),
        ),
        Misconception(
            "you sum the squares over the points too: each point has its own |s|^2, the sum over dimension 1.",
            lambda score, x: jacobian_trace(score, x).mean() + 0.5 * (score(x) ** 2).sum(),
        ),
        Misconception(
            "you take the norm of the score where its square belongs.",
            lambda score, x: (jacobian_trace(score, x) + 0.5 * score(x).norm(dim=1)).mean(),
        ),
        Misconception(
            "the loss is right, but no gradient reaches the parameters through the trace: do not detach it.",
            lambda score, x: jacobian_trace(score, x).detach().mean() + 0.5 * (score(x) ** 2).sum(1).mean(),
        ),
        Misconception(
            "the number is right, but it is only a number: return the tensor itself, without `item` or `detach`, so that "
            "its gradient reaches the parameters.",
            lambda score, x: implicit_loss(score, x).detach(),
        ),
    ),
    hints=(
        "Two terms for every point, (B,) each; then the mean over the points.",
        "The trace is exercise 2.3. The square of the score's length is the sum of its squared entries over dimension 1.",
        "`(trace + 0.5 * square).mean()`, with both of shape (B,).",
    ),
)

# -- 2.5 the misplaced one half ----------------------------------------------------------------------------------------


def learned_slope(x: Tensor, trace_weight: Tensor) -> Tensor:
    """argmin_a of E[ w tr ds/dx + 1/2 |s|^2 ] for s(x) = a x. Shapes: x (B, D), trace_weight () -> ()."""
    return -trace_weight * x.shape[1] / (x**2).sum(1).mean()


def _draw_slope(generator: Generator) -> tuple[Tensor, Tensor]:
    spread = uniform(generator, low=0.6, high=1.8)
    return 0.4 + spread * normal(generator, *sizes(generator)), uniform(generator, low=0.3, high=0.8)


SLOPE = Exercise(
    id="2.5",
    title="the misplaced one half",
    reference=learned_slope,
    draw=_draw_slope,
    misconceptions=(
        Misconception(
            "this is the minimiser for the weight 1: you did not use `trace_weight`.",
            lambda x, trace_weight: learned_slope(x, 1.0),
        ),
        Misconception(
            "you took the trace of ds/dx to be a. The Jacobian of a x is a times the D x D identity: its trace is a D.",
            lambda x, trace_weight: learned_slope(x, trace_weight) / x.shape[1],
        ),
        Misconception(
            "the derivative of 1/2 a^2 |x|^2 with respect to a is a |x|^2: you kept the 1/2.",
            lambda x, trace_weight: 2 * learned_slope(x, trace_weight),
        ),
        Misconception("the sign is turned: the minimum lies at a negative slope.", lambda x, w: -learned_slope(x, w)),
        Misconception(
            "you centred the data. The model a x has its zero at the origin, so E|x|^2 about the origin decides.",
            lambda x, trace_weight: learned_slope(x - x.mean(0), trace_weight),
        ),
        Misconception(
            "you used a standard deviation where a variance belongs: the loss holds |x|^2.",
            lambda x, trace_weight: -trace_weight * x.shape[1] / (x**2).sum(1).mean().sqrt(),
        ),
        Misconception(
            "-trace_weight is right where E|x|^2 = D only, for data of mean 0 and variance 1, say. In general the data decides too.",
            lambda x, trace_weight: -trace_weight,
        ),
        Misconception(
            "`x.var()` is centred and divides by one less than the count of entries. The loss holds the plain mean of "
            "|x|^2, about the origin.",
            lambda x, trace_weight: -trace_weight / x.var(),
        ),
    ),
    hints=(
        "Put s(x) = a x into the loss. It becomes a parabola in a.",
        "ds/dx = a I, so its trace is a D. |s|^2 = a^2 |x|^2. The loss is w a D + 1/2 a^2 E|x|^2.",
        "Set its derivative w D + a E|x|^2 to zero. E|x|^2 is `(x**2).sum(1).mean()`.",
    ),
)

# -- 2.6 a Gaussian fitted by score matching ---------------------------------------------------------------------------


def gaussian_fit(x: Tensor) -> tuple[Tensor, Tensor]:
    """The minimiser (m, A) of the implicit objective for s(x) = -A (x - m). Shapes: (B, D) -> (D,), (D, D)."""
    return x.mean(0), torch.linalg.inv(_covariance(x))


def _covariance(x: Tensor) -> Tensor:
    centred = x - x.mean(0)
    return centred.T @ centred / len(x)


def _draw_cloud(generator: Generator) -> tuple[Tensor]:
    d = count(generator, 2, 6)
    factor = torch.linalg.cholesky(covariances(generator, 1, d)[0])
    return (normal(generator, d) + normal(generator, d + count(generator, 3, 11), d) @ factor.T,)


def _with_precision(precision: Callable[[Tensor], Tensor]) -> Callable[[Tensor], tuple[Tensor, Tensor]]:
    return lambda x: (x.mean(0), precision(x))


def _mean_and_precision(attempt: Callable[..., tuple[Tensor, Tensor]], args: tuple[Tensor]) -> Observed:
    value = attempt(*args)
    if not isinstance(value, tuple | list) or len(value) != 2:
        kind = f"{len(value)} values" if isinstance(value, tuple | list) else f"a {type(value).__name__}"
        raise TypeError(f"expected a pair, `return m, A`; got {kind}")
    return {"mean m": value[0], "matrix A": value[1]}


FIT = Exercise(
    id="2.6",
    title="a Gaussian fitted by score matching",
    reference=gaussian_fit,
    draw=_draw_cloud,
    observe=_mean_and_precision,
    misconceptions=(
        Misconception(
            "A is the covariance where its inverse belongs: a narrow law pulls hard.",
            _with_precision(_covariance),
        ),
        Misconception(
            "you divide by B - 1. The objective is a plain mean over the B points, and so is the covariance in its "
            "minimiser.",
            _with_precision(lambda x: torch.linalg.inv(torch.cov(x.T))),
        ),
        Misconception(
            "A is half of what it should be: the trace has the weight 1, see exercise 2.5.",
            _with_precision(lambda x: 0.5 * torch.linalg.inv(_covariance(x))),
        ),
        Misconception(
            "A is diagonal: the correlations between the coordinates are lost.",
            _with_precision(lambda x: torch.diag(1 / _covariance(x).diagonal())),
        ),
        Misconception(
            "A comes from second moments about the origin: subtract the mean first.",
            _with_precision(lambda x: torch.linalg.inv(x.T @ x / len(x))),
        ),
        Misconception(
            "1 / C divides entry by entry. The inverse of a matrix is `torch.linalg.inv(C)`.",
            _with_precision(lambda x: 1 / _covariance(x)),
        ),
        Misconception(
            "A has the wrong sign: the minus stands in the model already, s(x) = -A (x - m).",
            _with_precision(lambda x: -torch.linalg.inv(_covariance(x))),
        ),
    ),
    hints=(
        "Put s(x) = -A (x - m) into the implicit objective. The trace is -tr A. Which m makes the square smallest?",
        "With m the mean of the points and C their covariance (divided by B) the objective is "
        "-tr A + 1/2 tr(A C A^T). Its gradient with respect to A is -I + A C.",
        "Set the gradient to zero. `torch.linalg.inv` gives an inverse; return the pair (m, A).",
    ),
)

EXERCISES = (FISHER, BY_PARTS, TRACE, IMPLICIT, SLOPE, FIT)
