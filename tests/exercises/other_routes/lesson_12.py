"""Other right answers to the exercises of lesson 12."""

import torch


def jump_by_walking(betas, x0, t, noise):
    """The chain's own recursion for the factor of x_0 and for the variance, point by point."""
    rows = []
    for x, i, z in zip(x0, t, noise, strict=True):
        signal, variance = torch.ones((), dtype=x0.dtype), torch.zeros((), dtype=x0.dtype)
        for beta in betas[: int(i) + 1]:
            signal, variance = (1 - beta).sqrt() * signal, (1 - beta) * variance + beta
        rows.append(signal * x + variance.sqrt() * z)
    return torch.stack(rows)


def posterior_by_conditioning(x0, x_t, beta, before):
    """Condition the joint Gaussian of (x_{t-1}, x_t) given x_0 on x_t."""
    covariance = (1 - beta).sqrt() * (1 - before)
    spread = (1 - beta) * (1 - before) + beta
    mean_before = before.sqrt() * x0
    gain = covariance / spread
    return mean_before + gain * (x_t - (1 - beta).sqrt() * mean_before), (1 - before) - gain * covariance


def posterior_by_least_squares(x0, x_t, beta, before):
    """Newton's step on the negative log of prior times likelihood: one step solves a quadratic."""
    x = torch.zeros_like(x_t, requires_grad=True)
    energy = ((x - before.sqrt() * x0) ** 2 / (1 - before) + (x_t - (1 - beta).sqrt() * x) ** 2 / beta).sum() / 2
    (gradient,) = torch.autograd.grad(energy, x, create_graph=True)
    (curvature,) = torch.autograd.grad(gradient.sum(), x)
    return -(gradient / curvature).detach(), 1 / curvature[0, 0]


def kl_by_torch(noise, prediction, beta, before, variance):
    """torch's own divergence between the two Gaussians, at an x_t made of the noise and x_0 = 0."""
    level = 1 - before * (1 - beta)
    x_t = level.sqrt() * noise
    mean, spread = posterior_by_conditioning(torch.zeros_like(noise), x_t, beta, before)
    mu = (x_t - beta / level.sqrt() * prediction) / (1 - beta).sqrt()
    q, p = torch.distributions.Normal(mean, spread.sqrt()), torch.distributions.Normal(mu, variance.sqrt())
    return torch.distributions.kl_divergence(q, p).sum(1)


def loss_point_by_point(noise_model, alpha_bar, x0, t, generator):
    """One noise for all, then a loop over the points."""
    noise = torch.randn(x0.shape, generator=generator, dtype=x0.dtype)
    total = 0.0
    for i in range(len(x0)):
        angle = torch.acos(alpha_bar[t[i]].sqrt())
        x_t = torch.cos(angle) * x0[i] + torch.sin(angle) * noise[i]
        total = total + torch.nn.functional.mse_loss(noise_model(x_t[None], t[i : i + 1])[0], noise[i])
    return total / len(x0)


def ddim_by_the_posterior_of_a_skip(x_t, prediction, now, later, eta, z):
    """eta = 1 is a DDPM step with the skip's own beta; the rest of the variance moves along the prediction."""
    beta = 1 - now / later
    x0 = (x_t - (1 - now).sqrt() * prediction) / now.sqrt()
    variance = eta**2 * posterior_by_conditioning(x0, x_t, beta, later)[1]
    return (
        later.sqrt() * x0
        + (1 - later - variance).sqrt() * (x_t - now.sqrt() * x0) / (1 - now).sqrt()
        + variance**0.5 * z
    )


def levels_by_a_loop(alpha_bar, n_steps):
    """From the clean end: each step's end is known, its start lies N / n_steps indices further on."""
    padded = [1.0, *alpha_bar.tolist()]
    stride = len(alpha_bar) // n_steps
    pairs = [(padded[k + stride], padded[k]) for k in range(0, len(alpha_bar), stride)]
    now, later = zip(*reversed(pairs), strict=True)
    return torch.tensor(now, dtype=alpha_bar.dtype), torch.tensor(later, dtype=alpha_bar.dtype)


def weights_by_error_ratios(alpha_bar, gamma):
    """An error of 1 in x_0 at fixed x_t, turned into errors of noise and velocity."""
    alpha, sigma = alpha_bar.sqrt(), (1 - alpha_bar).sqrt()
    noise_error = -alpha / sigma
    velocity_error = alpha * noise_error - sigma
    data = torch.tensor([min(float(a / (1 - a)), gamma) for a in alpha_bar], dtype=alpha_bar.dtype)
    return data / noise_error**2, data, data / velocity_error**2


ROUTES = {
    "12.1": [jump_by_walking],
    "12.2": [posterior_by_conditioning, posterior_by_least_squares],
    "12.3": [kl_by_torch],
    "12.4": [loss_point_by_point],
    "12.5": [ddim_by_the_posterior_of_a_skip],
    "12.6": [levels_by_a_loop],
    "12.7": [weights_by_error_ratios],
}
