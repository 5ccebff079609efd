"""Other right answers to the exercises of lesson 11."""

import torch
from torch.distributions import MultivariateNormal

from coursework.guidance import posterior_score
from coursework.predictions import convert


def classifier_by_jacobian(score, log_prob_label, label, scale, x, t):
    """The whole Jacobian of all log-probabilities, point by point; then the row of the label."""
    rows = torch.func.vmap(torch.func.jacrev(lambda point: log_prob_label(point[None], t)[0]))(x)
    return score(x, t) + scale * rows[torch.arange(len(x)), label]


def classifier_by_potential(score, log_prob_label, label, scale, x, t):
    """One scalar whose gradient is all of it: <score, x> + scale log p, the score held fixed."""
    leaf, held = x.detach().requires_grad_(), score(x, t)
    chosen = torch.nn.functional.nll_loss(log_prob_label(leaf, t), label, reduction="sum")
    return torch.autograd.grad((held * leaf).sum() - scale * chosen, leaf)[0]


def free_interleaved(conditional_score, label, scale, x, t):
    """Pairs side by side in the batch, weighted by a matrix product."""
    labels = torch.stack([label, torch.full_like(label, -1)], 1).flatten()
    value = conditional_score(x.repeat_interleave(2, 0), t.repeat_interleave(2), labels)
    return torch.einsum("k,bk...->b...", torch.tensor([scale, 1 - scale], dtype=x.dtype), value.unflatten(0, (-1, 2)))


def noises_by_scores(noise_c, noise_0, gradient, sigma, w):
    """To scores, guided there, and back."""
    point, one = torch.zeros_like(noise_0), torch.ones_like(sigma)
    score_c, score_0 = (convert(v, point, one, sigma, source="noise", target="score") for v in (noise_c, noise_0))
    guided = torch.lerp(score_0, score_c, w), score_0 + w * gradient
    return tuple(convert(v, point, one, sigma, source="score", target="noise") for v in guided)


def variances_by_quadrature(variance, w):
    """The flow in u = alpha^2 by Simpson's rule; the tilted law's second moment on a grid."""
    n = 2000
    u = torch.linspace(0, 1, 2 * n + 1, dtype=variance.dtype)[:, None]
    rate = -0.5 * w * (1 - variance) / (1 - u * (1 - variance))  # d log distance / du
    weights = torch.ones_like(u)
    weights[1:-1:2], weights[2:-1:2] = 4, 2
    flow = torch.exp(2 * (weights * rate).sum(0) / (6 * n))
    x = torch.linspace(-12, 12, 8001, dtype=variance.dtype)[:, None]
    log_p, log_c = -0.5 * x**2, -0.5 * x**2 / variance
    masses = torch.softmax(log_p + w * (log_c - log_p), 0)
    return flow, (masses * x**2).sum(0)


def posterior_by_joint_law(x, alpha, sigma, mean, covariance, operator, y, noise_std):
    """The gradient with respect to x of the joint log-density of (x_t, y)."""
    n, m = len(mean), len(y)
    joint = torch.cat([alpha * torch.eye(n, dtype=x.dtype), operator])
    noise = torch.diag(torch.cat([sigma.square().expand(n), noise_std.square().expand(m)]))
    law = MultivariateNormal(joint @ mean, joint @ covariance @ joint.T + noise)
    leaf = x.detach().requires_grad_()
    log_prob = law.log_prob(torch.cat([leaf, y.expand(len(x), m)], 1))
    return torch.autograd.grad(log_prob.sum(), leaf)[0]


def posterior_by_precisions(x, alpha, sigma, mean, covariance, operator, y, noise_std):
    """Information form: precisions add; then the noise."""
    precision = torch.linalg.inv(covariance)
    narrowed = torch.linalg.inv(precision + operator.T @ operator / noise_std**2)
    centre = narrowed @ (precision @ mean + operator.T @ y / noise_std**2)
    noisy = alpha**2 * narrowed + sigma**2 * torch.eye(len(mean), dtype=x.dtype)
    return (alpha * centre - x) @ torch.linalg.inv(noisy)


def pseudoinverse_by_jacobian(score, sde, operator, y, noise_std, x, t):
    """J^T A^T S^{-1} (y - A x0_hat) with the Jacobian of Tweedie's formula, point by point."""

    def x0_hat(point):
        return (point + sde.sigma(t) ** 2 * score(point[None], t)[0]) / sde.alpha(t)

    r2 = 1 / (1 + sde.log_snr(t).exp())
    variance = r2 * operator @ operator.T + noise_std**2 * torch.eye(len(operator)).to(x)
    rows = []
    for point, seen in zip(x, y.expand(len(x), -1), strict=True):
        jacobian = torch.autograd.functional.jacobian(x0_hat, point)
        pull = jacobian.T @ operator.T @ torch.linalg.inv(variance) @ (seen - operator @ x0_hat(point))
        rows.append(score(point[None], t)[0] + pull)
    return torch.stack(rows)


def pseudoinverse_by_package(score, sde, operator, y, noise_std, x, t):
    """The package's, which works in the eigenbasis of A A^T."""
    return posterior_score(score, sde, operator, y, float(noise_std))(x, t)


def replace_by_matrices(x, known, mask, sde, t, s, z, z_back):
    """Selection by diagonal matrices; the way back by its mean and variance given x_s."""
    choose = torch.diag(mask.to(x.dtype))
    state = sde.perturb(known, s, z) @ choose + x @ (torch.eye(len(mask), dtype=x.dtype) - choose)
    log_ratio = sde.alpha(t).log() - sde.alpha(s).log()
    gained = sde.sigma(t) ** 2 - (2 * log_ratio).exp() * sde.sigma(s) ** 2
    return state, torch.addcmul(log_ratio.exp() * state, gained.sqrt(), z_back)


ROUTES = {
    "11.1": [classifier_by_jacobian, classifier_by_potential],
    "11.2": [free_interleaved],
    "11.3": [noises_by_scores],
    "11.4": [variances_by_quadrature],
    "11.5": [posterior_by_joint_law, posterior_by_precisions],
    "11.6": [pseudoinverse_by_jacobian, pseudoinverse_by_package],
    "11.7": [replace_by_matrices],
}
