"""Other right answers to the exercises of lesson 03."""

import itertools

import torch


def jacobians(score, x):
    """Explicit Jacobians (B, D, D) by reverse mode, one output at a time."""
    x = x.detach().requires_grad_()
    value = score(x)
    rows = [torch.autograd.grad(value[:, i].sum(), x, create_graph=True)[0] for i in range(x.shape[1])]
    return torch.stack(rows, dim=1)


def form_by_forward_mode(score, x, v):
    return torch.einsum("bi,bi->b", v, torch.func.jvp(score, (x,), (v,))[1])


def form_by_full_jacobian(score, x, v):
    return torch.einsum("bi,bij,bj->b", v, jacobians(score, x), v)


def form_on_a_line(score, x, v):
    h = torch.zeros(len(x), dtype=x.dtype, requires_grad=True)
    along = (score(x + h[:, None] * v) * v).sum()
    return torch.autograd.grad(along, h, create_graph=True)[0]


def hutchinson_by_second_moment(matrices, probes):
    moment = torch.einsum("bmi,bmj->bij", probes, probes) / probes.shape[1]
    return (matrices * moment.mT).sum((1, 2))


def hutchinson_by_loops(matrices, probes):
    return torch.stack([torch.stack([v @ a @ v for v in p]).mean() for a, p in zip(matrices, probes, strict=True)])


def variance_by_enumeration(matrices, fourth_moment):
    """The three-point law 0, +-sqrt(kappa) has mean 0, variance 1 and fourth moment kappa: sum over all its vectors."""
    value, tail = fourth_moment.sqrt(), 1 / (2 * fourth_moment)
    points = [(-value, tail), (0 * value, 1 - 2 * tail), (value, tail)]
    mean, square = torch.zeros_like(matrices[:, 0, 0]), torch.zeros_like(matrices[:, 0, 0])
    for choice in itertools.product(points, repeat=matrices.shape[-1]):
        v = torch.stack([c[0] for c in choice])
        weight = torch.stack([c[1] for c in choice]).prod()
        form = torch.einsum("i,bij,j->b", v, matrices, v)
        mean, square = mean + weight * form, square + weight * form**2
    return square - mean**2


def ssm_by_forward_mode(score, x, v):
    value, product = torch.func.jvp(score, (x,), (v,))
    return (torch.einsum("bi,bi->b", v, product) + torch.einsum("bi,bi->b", v, value) ** 2 / 2).mean()


def ssm_by_trace(score, x, v):
    """<J + 1/2 s s^T, v v^T>, the Frobenius product."""
    value = score(x)
    matrix = jacobians(score, x) + 0.5 * value[:, :, None] * value[:, None, :]
    return (matrix * (v[:, :, None] * v[:, None, :])).sum() / len(x)


def vr_by_full_jacobian(score, x, v):
    forms = torch.einsum("mbi,bij,mbj->", v, jacobians(score, x), v) / (v.shape[0] * v.shape[1])
    return forms + 0.5 * torch.einsum("bi,bi->", score(x), score(x)) / len(x)


def vr_on_a_repeated_batch(score, x, v):
    repeated, flat = x.repeat(len(v), 1), v.flatten(0, 1)
    value, product = torch.func.jvp(score, (repeated,), (flat,))
    return ((flat * product).sum(1) + 0.5 * (value**2).sum(1)).mean()


def slopes_by_newton(covariance, radius):
    """The losses on points that have exactly these second moments; both are parabolas, so one Newton step is enough."""
    dim = len(covariance)
    x = dim**0.5 * torch.linalg.cholesky(covariance).T
    v = radius * torch.eye(dim, dtype=x.dtype)
    x, v = x.repeat_interleave(dim, 0), v.repeat(dim, 1)
    slopes = []
    for projected in (True, False):
        a = torch.zeros((), dtype=x.dtype, requires_grad=True)
        square = (v * a * x).sum(1) ** 2 if projected else ((a * x) ** 2).sum(1)
        loss = (a * (v**2).sum(1) + square / 2).mean()
        (first,) = torch.autograd.grad(loss, a, create_graph=True)
        (second,) = torch.autograd.grad(first, a)
        slopes.append((-first / second).detach())
    return torch.stack(slopes)


ROUTES = {
    "3.1": [form_by_forward_mode, form_by_full_jacobian, form_on_a_line],
    "3.2": [hutchinson_by_second_moment, hutchinson_by_loops],
    "3.3": [variance_by_enumeration],
    "3.4": [ssm_by_forward_mode, ssm_by_trace],
    "3.5": [vr_by_full_jacobian, vr_on_a_repeated_batch],
    "3.6": [slopes_by_newton],
}
