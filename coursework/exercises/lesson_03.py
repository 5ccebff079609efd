"""Exercises of lesson 03, sliced score matching."""

from collections.abc import Callable

import torch
from torch import Generator, Tensor

from coursework.exercises.draws import count, covariances, normal, sizes, uniform
from coursework.exercises.engine import Exercise, Misconception
from coursework.exercises.observers import value_and_gradient

# -- what several exercises share --------------------------------------------------------------------------------------


class WavyScore:
    """s(x) = x M^T + sin(x N^T): a smooth field with a Jacobian that is not symmetric; M and N are its parameters.

    N is so large that differences of values are not near enough to derivatives.
    """

    def __init__(self, parameters: Tensor) -> None:
        self.parameters = [matrix.clone().requires_grad_() for matrix in parameters]

    def __call__(self, x: Tensor) -> Tensor:
        """Shapes: (B, D) -> (B, D)."""
        return x @ self.parameters[0].T + torch.sin(x @ self.parameters[1].T)


def _draw_score(generator: Generator) -> tuple[WavyScore, Tensor]:
    b, d = sizes(generator)
    return WavyScore(torch.stack([0.7 * normal(generator, d, d), 20 * normal(generator, d, d)])), normal(
        generator, b, d
    )


def _value_and_product(score: WavyScore, x: Tensor, v: Tensor, keep_graph: bool = True) -> tuple[Tensor, Tensor]:
    """s(x) and v^T ds/dx at each point, both (B, D), by one backward pass."""
    with torch.enable_grad():
        x = x.detach().requires_grad_()
        value = score(x)
        (product,) = torch.autograd.grad(value, x, v, create_graph=keep_graph, retain_graph=True)
    return value, product


# -- 3.1 the Jacobian in one direction ---------------------------------------------------------------------------------


def quadratic_form(score: WavyScore, x: Tensor, v: Tensor) -> Tensor:
    """v^T (ds/dx) v at every row of x. Shapes: x, v (B, D) -> (B,)."""
    return (_value_and_product(score, x, v)[1] * v).sum(1)


def _draw_direction(generator: Generator) -> tuple[WavyScore, Tensor, Tensor]:
    score, x = _draw_score(generator)
    return score, x, normal(generator, *x.shape)


def _form_without_graph(score: WavyScore, x: Tensor, v: Tensor) -> Tensor:
    return (_value_and_product(score, x, v, keep_graph=False)[1] * v).sum(1)


FORM = Exercise(
    id="3.1",
    title="the Jacobian in one direction",
    reference=quadratic_form,
    draw=_draw_direction,
    observe=value_and_gradient,
    rtol=1e-11,
    misconceptions=(
        Misconception(
            "the values are right, but no gradient reaches the score's parameters: the product was computed without a "
            "graph. A loss made of it would train nothing. With `torch.autograd.grad` pass create_graph=True; do not detach.",
            _form_without_graph,
        ),
        Misconception(
            "this is v^T s, the value of the field along v. Asked for is how that changes when x moves along v: a "
            "derivative is missing.",
            lambda score, x, v: (score(x) * v).sum(1),
        ),
        Misconception(
            "you sum the entries of the product J v (or v^T J) instead of multiplying with v once more.",
            lambda score, x, v: _value_and_product(score, x, v)[1].sum(1),
        ),
        Misconception(
            "you take the exact trace: that is v^T J v summed over the D unit vectors, not in the direction given.",
            lambda score, x, v: sum(
                quadratic_form(score, x, e.expand_as(x)) for e in torch.eye(x.shape[1], dtype=x.dtype)
            ),
        ),
        Misconception(
            "you multiply J v by x: the second factor is v as well, x only says where the Jacobian is taken.",
            lambda score, x, v: (torch.func.jvp(score, (x,), (v,))[1] * x).sum(1),
        ),
        Misconception(
            "this is |J v|^2: multiply J v by v, not by itself.",
            lambda score, x, v: (torch.func.jvp(score, (x,), (v,))[1] ** 2).sum(1),
        ),
        Misconception(
            "you divide by |v|^2: v is used as it comes, its length matters.",
            lambda score, x, v: quadratic_form(score, x, v) / (v**2).sum(1),
        ),
        Misconception(
            "you take quotients of differences. They are near the derivative, not equal to it; `torch.func.jvp` is exact.",
            lambda score, x, v: ((score(x + 1e-4 * v) - score(x - 1e-4 * v)) * v).sum(1) / 2e-4,
        ),
        Misconception(
            "you return one number: keep a value for every point, shape (B,).",
            lambda score, x, v: quadratic_form(score, x, v).sum(),
        ),
    ),
    hints=(
        "Move x a little along v: how does s change? That change is J v. Then ask how much of it points along v again.",
        "v^T J v is the dot product of v with J v, point by point: multiply, then sum over dim 1.",
        "`torch.func.jvp(score, (x,), (v,))` returns the pair s(x), J v, both (B, D). (With `torch.autograd.grad` take "
        "x.detach().requires_grad_() first, and create_graph=True.)",
    ),
)

# -- 3.2 Hutchinson's estimate -----------------------------------------------------------------------------------------


def hutchinson(matrices: Tensor, probes: Tensor) -> Tensor:
    """Mean over m of v_m^T A v_m. Shapes: (B, D, D), (B, M, D) -> (B,)."""
    return ((probes @ matrices) * probes).sum(2).mean(1)


def _draw_hutchinson(generator: Generator) -> tuple[Tensor, Tensor]:
    (b, d), m = sizes(generator), count(generator, 1, 8)
    return normal(generator, b, d, d) + 1.0, normal(generator, b, m, d) + 0.5


def _averaged_first(matrices: Tensor, probes: Tensor) -> Tensor:
    return hutchinson(matrices, probes.mean(1, keepdim=True))


HUTCHINSON = Exercise(
    id="3.2",
    title="Hutchinson's estimate of a trace",
    reference=hutchinson,
    draw=_draw_hutchinson,
    misconceptions=(
        Misconception(
            "you sum over the probes: the estimate is their mean, otherwise it grows with M.",
            lambda matrices, probes: hutchinson(matrices, probes) * probes.shape[1],
        ),
        Misconception(
            "you average the probes first and take one quadratic form. v^T A v is not linear in v: the mean of probes "
            "tends to zero.",
            _averaged_first,
        ),
        Misconception(
            "you divide by D as well. With E[vv^T] = I the mean of v^T A v is the trace itself; a mean over coordinates "
            "(`.mean(-1)`) where a sum belongs does the same.",
            lambda matrices, probes: hutchinson(matrices, probes) / matrices.shape[-1],
        ),
        Misconception(
            "you use the diagonal of A only. It is what the estimate is after, but the point is to need products A v "
            "alone: the diagonal of a Jacobian costs D of them.",
            lambda matrices, probes: ((matrices.diagonal(dim1=1, dim2=2)[:, None] * probes) * probes).sum(2).mean(1),
        ),
        Misconception(
            "this is |v^T A|^2: multiply v^T A by v, not by itself.",
            lambda matrices, probes: ((probes @ matrices) ** 2).sum(2).mean(1),
        ),
        Misconception(
            "this is the exact trace, read off the diagonal. True, but for a Jacobian that nobody has written down the "
            "diagonal is what costs D products; estimate it from the probes alone.",
            lambda matrices, probes: matrices.diagonal(dim1=1, dim2=2).sum(1),
        ),
        Misconception(
            "you divide by |v|^2. The probes are used as they come: it is E[vv^T] = I that makes the estimate unbiased.",
            lambda matrices, probes: ((probes @ matrices * probes).sum(2) / (probes**2).sum(2)).mean(1),
        ),
        Misconception(
            "you use the first probe only: take the mean over all M of them.",
            lambda matrices, probes: hutchinson(matrices, probes[:, :1]),
        ),
        Misconception(
            "you sum the entries of v^T A: the second factor v is missing.",
            lambda matrices, probes: (probes @ matrices).sum(2).mean(1),
        ),
    ),
    hints=(
        "For one matrix and one probe it is a single number, v^T A v. Write that first; then M probes, then B matrices.",
        "v^T A v = sum_ij v_i A_ij v_j. Average over the probes m, keep the batch index b.",
        "Either `probes @ matrices` (shape (B, M, D)) times probes, summed over the last dimension; or "
        "`torch.einsum` with the three indices b, m and i, j.",
    ),
)

# -- 3.3 the variance of one probe -------------------------------------------------------------------------------------


def trace_variance(matrices: Tensor, fourth_moment: Tensor) -> Tensor:
    """Var[v^T A v] = 2 |S|_F^2 + (kappa - 3) sum_i a_ii^2, S = (A + A^T) / 2. Shapes: (B, D, D), () -> (B,)."""
    return 2 * _square(_symmetric(matrices)) + (fourth_moment - 3) * _diagonal_square(matrices)


def _symmetric(matrices: Tensor) -> Tensor:
    return (matrices + matrices.mT) / 2


def _square(matrices: Tensor) -> Tensor:
    return (matrices**2).sum((1, 2))


def _diagonal_square(matrices: Tensor) -> Tensor:
    return (matrices.diagonal(dim1=1, dim2=2) ** 2).sum(1)


def _trace(matrices: Tensor) -> Tensor:
    return matrices.diagonal(dim1=1, dim2=2).sum(1)


def _pairs_once(matrices: Tensor, fourth_moment: Tensor) -> Tensor:
    off_diagonal = _square(_symmetric(matrices)) - _diagonal_square(matrices)
    return 0.5 * off_diagonal + (fourth_moment - 1) * _diagonal_square(matrices)


def _two_terms_a_pair(matrices: Tensor, fourth_moment: Tensor) -> Tensor:
    return (fourth_moment - 1) * _diagonal_square(matrices) + _square(matrices) - _diagonal_square(matrices)


def _draw_variance(generator: Generator) -> tuple[Tensor, Tensor]:
    b, d = count(generator, 1, 9), count(generator, 2, 5)
    return normal(generator, b, d, d), uniform(generator, low=1.2, high=2.8)


VARIANCE = Exercise(
    id="3.3",
    title="the variance of one probe",
    reference=trace_variance,
    draw=_draw_variance,
    misconceptions=(
        Misconception(
            "you took the squared norm of A itself. v^T A v cannot see the antisymmetric part of A: replace A by its "
            "symmetric part S = (A + A^T) / 2 first. (For a symmetric A your formula is right.)",
            lambda a, k: 2 * _square(a) + (k - 3) * _diagonal_square(a),
        ),
        Misconception(
            "this is the Gaussian's variance, whatever kappa is: E[v_i^4] = 3 was taken for granted.",
            lambda a, k: 2 * _square(_symmetric(a)),
        ),
        Misconception(
            "this is Rademacher's variance, whatever kappa is: v_i^2 = 1 was taken for granted, so the diagonal adds nothing.",
            lambda a, k: 2 * (_square(_symmetric(a)) - _diagonal_square(a)),
        ),
        Misconception(
            "you count the diagonal twice. The part (kappa - 1) sum a_ii^2 goes with the off-diagonal entries alone; if you "
            "write 2 |S|^2 for all entries, it becomes kappa - 3.",
            lambda a, k: 2 * _square(_symmetric(a)) + (k - 1) * _diagonal_square(a),
        ),
        Misconception(
            "you count each pair i < j once: in v^T A v the term v_i v_j comes from a_ij and from a_ji, so its "
            "coefficient is 2 s_ij.",
            _pairs_once,
        ),
        Misconception(
            "you treat v_i v_j and v_j v_i as two uncorrelated terms. They are the same number: add the coefficients first, "
            "(a_ij + a_ji) v_i v_j for i < j, then square.",
            _two_terms_a_pair,
        ),
        Misconception(
            "you treat v_i v_j and v_j v_i as two uncorrelated terms, with coefficient s_ij each. They are the same number: "
            "for i < j the coefficient is 2 s_ij, its square 4 s_ij^2.",
            lambda a, k: _two_terms_a_pair(_symmetric(a), k),
        ),
        Misconception(
            "you took Var[v_i^2] = kappa. That is E[v_i^4]: subtract the squared mean, (E[v_i^2])^2 = 1.",
            lambda a, k: 2 * _square(_symmetric(a)) + (k - 2) * _diagonal_square(a),
        ),
        Misconception(
            "you use A + A^T without the factor 1/2: the symmetric part is S = (A + A^T) / 2, and has A's own diagonal.",
            lambda a, k: 8 * _square(_symmetric(a)) + (k - 3) * _diagonal_square(a),
        ),
        Misconception(
            "this is 2 |A|_F^2: the Gaussian's variance for a symmetric A. Kappa has to appear, and only the symmetric "
            "part of A counts.",
            lambda a, k: 2 * _square(a),
        ),
        Misconception(
            "this is E[(v^T A v)^2]: subtract the squared mean, (tr A)^2.",
            lambda a, k: trace_variance(a, k) + _trace(a) ** 2,
        ),
        Misconception(
            "this is the standard deviation; asked for is its square.", lambda a, k: trace_variance(a, k).sqrt()
        ),
    ),
    hints=(
        "Write v^T A v = sum_i a_ii v_i^2 + sum_{i<j} (a_ij + a_ji) v_i v_j. Only S = (A + A^T) / 2 appears.",
        "All these terms are uncorrelated with each other (coordinates are independent, with mean zero). So the variances "
        "add: Var[v_i^2] = kappa - 1, and Var[v_i v_j] = 1 for i < j.",
        "Sum: (kappa - 1) sum_i a_ii^2 + sum_{i<j} (2 s_ij)^2. The second sum is twice the sum over all i != j of s_ij^2; "
        "add and subtract the diagonal to write it with |S|_F^2.",
        "`matrices.mT` transposes each matrix of a stack, `matrices.diagonal(dim1=1, dim2=2)` gives the diagonals (B, D).",
    ),
)

# -- 3.4 the sliced objective ------------------------------------------------------------------------------------------


def ssm_loss(score: WavyScore, x: Tensor, v: Tensor) -> Tensor:
    """Mean over the batch of v^T (ds/dx) v + 1/2 (v^T s)^2. Shapes: x, v (B, D) -> ()."""
    value, product = _value_and_product(score, x, v)
    return ((product * v).sum(1) + 0.5 * (value * v).sum(1) ** 2).mean()


def _sliced(trace: float, power: int, weight: float) -> Callable[..., Tensor]:
    def wrong(score: WavyScore, x: Tensor, v: Tensor) -> Tensor:
        value, product = _value_and_product(score, x, v)
        return (trace * (product * v).sum(1) + weight * (value * v).sum(1) ** power).mean()

    return wrong


def _sliced_with_norm(score: WavyScore, x: Tensor, v: Tensor) -> Tensor:
    value, product = _value_and_product(score, x, v)
    return ((product * v).sum(1) + 0.5 * (value**2).sum(1)).mean()


def _sliced_squared_first(score: WavyScore, x: Tensor, v: Tensor) -> Tensor:
    value, product = _value_and_product(score, x, v)
    return ((product * v).sum(1) + 0.5 * ((value * v) ** 2).sum(1)).mean()


def _sliced_over_batch(score: WavyScore, x: Tensor, v: Tensor) -> Tensor:
    value, product = _value_and_product(score, x, v)
    return ((product * v).sum(1) + 0.5 * (value * v).sum() ** 2).mean()


def _sliced_without_graph(score: WavyScore, x: Tensor, v: Tensor) -> Tensor:
    value, product = _value_and_product(score, x, v)
    return ((product.detach() * v).sum(1) + 0.5 * (value * v).sum(1) ** 2).mean()


def _sliced_unit(score: WavyScore, x: Tensor, v: Tensor) -> Tensor:
    return ssm_loss(score, x, torch.nn.functional.normalize(v, dim=1))


SLICED = Exercise(
    id="3.4",
    title="the sliced objective",
    reference=ssm_loss,
    draw=_draw_direction,
    observe=value_and_gradient,
    rtol=1e-11,
    misconceptions=(
        Misconception(
            "no gradient flows through v^T J v: only the square would be trained, and the score shrinks to zero. Keep "
            "the graph (create_graph=True with `torch.autograd.grad`, no detach).",
            _sliced_without_graph,
        ),
        Misconception(
            "you put the 1/2 on v^T J v: it belongs to the square, where it comes from the 1/2 of the divergence.",
            _sliced(trace=0.5, power=2, weight=1.0),
        ),
        Misconception(
            "the 1/2 in front of the square is missing: the minimiser would be half of the score.",
            _sliced(trace=1.0, power=2, weight=1.0),
        ),
        Misconception(
            "v^T s is not squared: its mean over v is zero, so nothing would hold the score back.",
            _sliced(trace=1.0, power=1, weight=0.5),
        ),
        Misconception(
            "your square is |s|^2: that is the variance-reduced form of the next section. Here the field is seen through "
            "its projection v^T s alone.",
            _sliced_with_norm,
        ),
        Misconception(
            "you square before you sum over the coordinates: (v^T s)^2 is the square of a sum.",
            _sliced_squared_first,
        ),
        Misconception(
            "a 1/2 stands in front of v^T J v as well: it belongs to the square alone. The minimiser would be half of the score.",
            _sliced(trace=0.5, power=2, weight=0.5),
        ),
        Misconception(
            "(v * s).sum() without `dim=1` adds up the whole batch before it is squared: each point has a projection of its own.",
            _sliced_over_batch,
        ),
        Misconception(
            "you take the mean over the coordinates in v^T J v and in v^T s: a dot product is their sum.",
            lambda score, x, v: _sliced(trace=1 / x.shape[1], power=2, weight=0.5 / x.shape[1] ** 2)(score, x, v),
        ),
        Misconception(
            "you sum over the batch where its mean belongs.",
            lambda score, x, v: ssm_loss(score, x, v) * len(x),
        ),
        Misconception(
            "you normalise v: use the projections as they come.",
            _sliced_unit,
        ),
        Misconception(
            "the sign of v^T J v is turned.",
            _sliced(trace=-1.0, power=2, weight=0.5),
        ),
    ),
    hints=(
        "Three pieces for each point: v^T J v (exercise 3.1), the projection v^T s, and its square with a factor 1/2.",
        "v^T s is a sum over dim 1 of v * s, shape (B,). Square it after the sum, not before.",
        "`quadratic_form(score, x, v)` has the first piece, `(v * score(x)).sum(1)` the second; mean over the batch.",
    ),
)

# -- 3.5 the variance-reduced objective (spot the bug) -----------------------------------------------------------------


def ssm_vr_loss(score: WavyScore, x: Tensor, v: Tensor) -> Tensor:
    """Mean over batch and projections of v^T (ds/dx) v + 1/2 |s|^2. Shapes: x (B, D), v (M, B, D) -> ()."""
    return torch.stack([_sliced_with_norm(score, x, w) for w in v]).mean()


def _draw_directions(generator: Generator) -> tuple[WavyScore, Tensor, Tensor]:
    score, x = _draw_score(generator)
    return score, x, normal(generator, count(generator, 1, 5), *x.shape)


def _over_projections(loss: Callable[..., Tensor]) -> Callable[..., Tensor]:
    return lambda score, x, v: torch.stack([loss(score, x, w) for w in v]).mean()


def _reduced(trace: float, along: float, weight: float, keep_graph: bool = True) -> Callable[..., Tensor]:
    def wrong(score: WavyScore, x: Tensor, v: Tensor) -> Tensor:
        value, product = _value_and_product(score, x, v)
        product = product if keep_graph else product.detach()
        form, projection = (product * v).sum(1), (value * v).sum(1)
        return (trace * form + along * projection + weight * (value**2).sum(1)).mean()

    return _over_projections(wrong)


REDUCED = Exercise(
    id="3.5",
    title="the variance-reduced objective",
    reference=ssm_vr_loss,
    draw=_draw_directions,
    observe=value_and_gradient,
    rtol=1e-11,
    misconceptions=(
        Misconception(
            "this is the circulating formula, with 1/2 on v^T J v and an extra v^T s. Its minimiser is half of the score.",
            _reduced(trace=0.5, along=1.0, weight=0.5),
        ),
        Misconception(
            "the extra v^T s is gone, but 1/2 still stands in front of v^T J v: the minimiser is still half of the score.",
            _reduced(trace=0.5, along=0.0, weight=0.5),
        ),
        Misconception(
            "1/2 is where it belongs, but the extra v^T s is still there: its mean over v is zero, it only adds noise.",
            _reduced(trace=1.0, along=1.0, weight=0.5),
        ),
        Misconception(
            "the 1/2 in front of |s|^2 is missing: the minimiser would be half of the score.",
            _reduced(trace=1.0, along=0.0, weight=1.0),
        ),
        Misconception(
            "this is the plain sliced objective, with (v^T s)^2: its mean over v is |s|^2, which is known without any v.",
            _over_projections(ssm_loss),
        ),
        Misconception(
            "you use the first projection only: take the mean over all M of them.",
            lambda score, x, v: ssm_vr_loss(score, x, v[:1]),
        ),
        Misconception(
            "you average the projections first. v^T J v is not linear in v: take the form for each v[m], then the mean.",
            lambda score, x, v: ssm_vr_loss(score, x, v.mean(0, keepdim=True)),
        ),
        Misconception(
            "you add |s|^2 / 2 once for each projection, but only v^T J v is averaged over them: count it once.",
            lambda score, x, v: _reduced(trace=1.0, along=0.0, weight=0.5 * len(v))(score, x, v),
        ),
        Misconception(
            "the 1/2 stands in front of everything: it belongs to |s|^2 alone.",
            _reduced(trace=0.5, along=0.0, weight=0.25),
        ),
        Misconception(
            "you normalise v: use the projections as they come.",
            lambda score, x, v: ssm_vr_loss(score, x, torch.nn.functional.normalize(v, dim=2)),
        ),
        Misconception(
            "you sum over the projections where their mean belongs.",
            lambda score, x, v: ssm_vr_loss(score, x, v) * len(v),
        ),
        Misconception(
            "you take the mean over the coordinates of s^2: |s|^2 is their sum. With a mean the square is D times too weak.",
            lambda score, x, v: _reduced(trace=1.0, along=0.0, weight=0.5 / x.shape[1])(score, x, v),
        ),
        Misconception(
            "no gradient flows through v^T J v: only |s|^2 would be trained, and the score shrinks to zero. Keep the graph.",
            _reduced(trace=1.0, along=0.0, weight=0.5, keep_graph=False),
        ),
    ),
    hints=(
        "Start from the implicit objective, tr J + 1/2 |s|^2. Which of its two terms is dear? Replace only that one.",
        "Two repairs: the factor in front of v^T J v; and one term whose mean over v is zero.",
        "v has M projections in its first dimension: `for w in v` gives one of shape (B, D) at a time. |s|^2 needs none.",
        "Mean over m of `quadratic_form(score, x, v[m])`, a (B,) tensor, plus half of `(score(x) ** 2).sum(1)`; then the mean "
        "over the batch.",
    ),
)

# -- 3.6 projections of another length ---------------------------------------------------------------------------------


def fitted_slopes(covariance: Tensor, radius: Tensor) -> Tensor:
    """Minimisers a of SSM and SSM-VR for s = a x, x from N(0, covariance), |v| = radius. Shapes: (D, D), () -> (2,)."""
    dim = torch.full_like(radius, len(covariance))
    return -torch.stack([dim, radius**2]) / covariance.trace()


def _draw_slopes(generator: Generator) -> tuple[Tensor, Tensor]:
    return covariances(generator, 1, count(generator, 2, 9))[0], uniform(generator, low=0.5, high=1.6)


def _slopes(
    sliced: Callable[[Tensor, Tensor], Tensor], reduced: Callable[[Tensor, Tensor], Tensor]
) -> Callable[..., Tensor]:
    return lambda covariance, radius: torch.stack([sliced(covariance, radius), reduced(covariance, radius)])


def _right(covariance: Tensor, radius: Tensor) -> Tensor:
    return -len(covariance) / covariance.trace()


def _scaled(covariance: Tensor, radius: Tensor) -> Tensor:
    return -(radius**2) / covariance.trace()


def _mean_precision(covariance: Tensor, radius: Tensor) -> Tensor:
    return -torch.linalg.inv(covariance).trace() / len(covariance)


SLOPES = Exercise(
    id="3.6",
    title="projections of another length",
    reference=fitted_slopes,
    draw=_draw_slopes,
    misconceptions=(
        Misconception(
            "you let the length of v cancel in both. In SSM both terms carry two factors v; in SSM-VR only v^T J v does.",
            _slopes(_right, _right),
        ),
        Misconception(
            "you let the length of v act on both. In SSM the square is (v^T s)^2: its mean carries r^2 / D as well, and "
            "cancels.",
            _slopes(_scaled, _scaled),
        ),
        Misconception("you have the two the other way round: SSM first, SSM-VR second.", _slopes(_scaled, _right)),
        Misconception(
            "your SSM slope lacks the dimension: in E[(v^T x)^2] = (r^2 / D) tr(Sigma) a D stands below, and ends up above.",
            _slopes(lambda covariance, radius: -1 / covariance.trace(), _scaled),
        ),
        Misconception(
            "the radius enters squared: v^T J v has two factors v.",
            _slopes(_right, lambda covariance, radius: -radius / covariance.trace()),
        ),
        Misconception(
            "you took E|v|^2 = r^2 / D in SSM-VR. Every v on the sphere has |v|^2 = r^2; the D appears in E[vv^T] = (r^2 / D) I.",
            _slopes(_right, lambda covariance, radius: _scaled(covariance, radius) / len(covariance)),
        ),
        Misconception(
            "this holds for N(0, I) only: in general E|x|^2 is the trace of the covariance.",
            _slopes(lambda c, r: -torch.ones_like(r), lambda c, r: -(r**2) / len(c)),
        ),
        Misconception(
            "you averaged the eigenvalues of the inverse covariance. The best slope minimises a D + a^2 tr(Sigma) / 2: "
            "directions with much data count more.",
            _slopes(_mean_precision, lambda c, r: _mean_precision(c, r) * r**2 / len(c)),
        ),
        Misconception(
            "the sign is turned: a field that points away from the data has a positive slope.",
            lambda covariance, radius: -fitted_slopes(covariance, radius),
        ),
        Misconception(
            "both are half of the right slopes: the 1/2 sits on v^T J v, or is missing from the square.",
            lambda covariance, radius: fitted_slopes(covariance, radius) / 2,
        ),
    ),
    hints=(
        "For s = a x the Jacobian is a I, so v^T J v = a |v|^2, whatever the direction. What are E[|s|^2] and E[(v^T s)^2]?",
        "E|x|^2 = tr(Sigma). For a direction that is uniform on the sphere of radius r, E[vv^T] = (r^2 / D) I.",
        "SSM: a r^2 + a^2 (r^2 / D) tr(Sigma) / 2. SSM-VR: a r^2 + a^2 tr(Sigma) / 2. Set the derivative in a to zero.",
        "`torch.stack` makes a (2,) tensor of two 0-d ones.",
    ),
)

EXERCISES = (FORM, HUTCHINSON, VARIANCE, SLICED, REDUCED, SLOPES)
