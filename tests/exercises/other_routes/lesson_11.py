"""Other right answers to the exercises of lesson 11."""

import torch

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


def left_by_the_joint_law(data_variance, alpha, sigma):
    """Covariance matrices of (input, x_t), and of (input, output) for an output that has the posterior's law."""
    pairs = []
    for v, a, s in zip(data_variance, alpha, sigma, strict=True):
        with_noisy = torch.stack([torch.stack([v, a * v]), torch.stack([a * v, a**2 * v + s**2])])
        weight = with_noisy[0, 1] / with_noisy[1, 1]  # E[x | x_t] = weight x_t
        shared = weight**2 * with_noisy[1, 1]
        pairs.append((shared / v, with_noisy[0, 1] / (with_noisy[0, 0] * with_noisy[1, 1]).sqrt()))
    by_sde, by_flow = zip(*pairs, strict=True)
    return torch.stack(by_sde), torch.stack(by_flow)


def parts_by_difference(score_c, score_0, drift, diffusion, w, h, z):
    """Langevin's part as what the whole step has more than the flow's."""
    guided = torch.lerp(score_0, score_c, w)
    whole = h * (diffusion**2 * guided - drift) + diffusion * torch.sqrt(h) * z
    flow = h * (diffusion**2 * score_c / 2 - drift)
    return flow, whole - flow


def deviation_by_quadrature(good, bad, w, sigma_max):
    """The integral of d log x / d sigma by Simpson's rule."""
    n = 2000
    sigma = torch.linspace(0, 1, 2 * n + 1, dtype=good.dtype)[:, None] * sigma_max
    rate = sigma * (w / (good + sigma**2) + (1 - w) / (bad + sigma**2))
    weights = torch.ones_like(sigma)
    weights[1:-1:2], weights[2:-1:2] = 4, 2
    return sigma_max * torch.exp(-(weights * rate).sum(0) * sigma_max / (6 * n))


ROUTES = {
    "11.1": [classifier_by_jacobian, classifier_by_potential],
    "11.2": [free_interleaved],
    "11.3": [noises_by_scores],
    "11.4": [variances_by_quadrature],
    "11.5": [left_by_the_joint_law],
    "11.6": [parts_by_difference],
    "11.7": [deviation_by_quadrature],
}
