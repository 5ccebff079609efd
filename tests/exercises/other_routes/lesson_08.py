"""Other right answers to the exercises of lesson 08."""

import math

import torch

from coursework.langevin import langevin
from coursework.reverse_sde import euler_maruyama
from coursework.sdes import SDE


class _Constant(SDE):
    """f and g that do not change."""

    def __init__(self, f, g):
        self.f, self.g = f, g

    def drift_coefficient(self, t):
        return self.f.expand(t.shape)

    def diffusion(self, t):
        return self.g.expand(t.shape)


def euler_maruyama_by_the_solver(x, score_value, f, g, h, z):
    """One step of the package's solver, which leaves its last noise out, from t = h to 0."""
    times = torch.stack([h, torch.zeros_like(h)])
    mean = euler_maruyama(lambda x, t: score_value, _Constant(f, g), x, times)
    return mean + math.sqrt(g**2 * h) * z


def euler_maruyama_by_autograd(x, score_value, f, g, h, z):
    """The drift as the gradient of f |x|^2 / 2 - g^2 <s, x>."""
    leaf = x.detach().requires_grad_()
    (drift,) = torch.autograd.grad((0.5 * f * leaf**2 - g**2 * score_value * leaf).sum(), leaf)
    return torch.lerp(x, x - drift, h) + torch.sqrt(h * g**2) * z


def halved_score_by_runge_kutta(data_variance, total_beta):
    """The variance equation in reversed B, from the law at T, in 400 steps of the classical method."""
    n, v = 400, data_variance
    h = total_beta / n

    def slope(elapsed, variance):
        v_t = 1 + (v - 1) * torch.exp(elapsed - total_beta)
        return (1 - 1 / v_t) * variance + 1

    variance = 1 + (v - 1) * torch.exp(-total_beta)
    for i in range(n):
        k1 = slope(i * h, variance)
        k2 = slope((i + 0.5) * h, variance + h / 2 * k1)
        k3 = slope((i + 0.5) * h, variance + h / 2 * k2)
        k4 = slope((i + 1) * h, variance + h * k3)
        variance = variance + h / 6 * (k1 + 2 * k2 + 2 * k3 + k4)
    return variance


def _joint(alpha, sigma, alpha_next, sigma_next):
    """Covariance of (x_t', x_t) given x_0, (2, 2): x_t = r x_t' + noise."""
    across = alpha / alpha_next * sigma_next**2
    return torch.stack([torch.stack([sigma_next**2, across]), torch.stack([across, sigma**2])])


def ancestral_by_conditioning(x, score_value, alpha, sigma, alpha_next, sigma_next, z):
    """Gaussian conditioning of x_t' on x_t, both given x_0 = Tweedie's estimate."""
    x0 = (x + sigma**2 * score_value) / alpha
    covariance = _joint(alpha, sigma, alpha_next, sigma_next)
    gain = covariance[0, 1] / covariance[1, 1]
    variance = 1 / torch.linalg.inv(covariance)[0, 0]
    return alpha_next * x0 + gain * (x - alpha * x0) + variance.sqrt() * z


def ancestral_by_posterior_coefficients(x, score_value, alpha, sigma, alpha_next, sigma_next, z):
    """The product of two Gaussians, with weights on x_t and x_0 as in DDPM."""
    r = alpha / alpha_next
    g2 = sigma**2 - (r * sigma_next) ** 2
    variance = 1 / (r**2 / g2 + 1 / sigma_next**2)
    x0 = (x + sigma**2 * score_value) / alpha
    return variance * (r / g2 * x + alpha_next / sigma_next**2 * x0) + variance.sqrt() * z


def end_std_by_regression(alpha, sigma, alpha_next, sigma_next):
    """The law of total variance: the conditional mean of x_t' given x_t varies by |covariance| / sigma."""
    covariance = _joint(alpha, sigma, alpha_next, sigma_next)
    explained = covariance[0, 1] / covariance[1, 1].sqrt()
    rest = covariance[0, 0] - explained**2
    return torch.stack([torch.hypot(explained, rest.sqrt()), explained])


def heun_by_two_euler_steps(drift, diffusion, x, t, t_next, z):
    """Half of x and half of two Euler steps in a row (Shu and Osher's form), and half of the noise."""
    h = t - t_next
    noise = torch.sqrt(torch.stack([diffusion(t), diffusion(t_next)]).square().mean() * h) * z
    once = x - h * drift(x, t) + noise
    twice = once - h * drift(once, t_next)
    return (x + twice + noise) / 2


def corrector_by_langevin(x, score_value, z, snr):
    """The package's Langevin step of size 2 e with fixed noise, its pull and its size found by hand."""
    lengths = [sum(math.sqrt(sum(v**2 for v in row)) for row in rows.tolist()) for rows in (z, score_value)]
    e = 2 * (snr * lengths[0] / lengths[1]) ** 2
    step = langevin(lambda x: score_value, x, 2 * e, 1, generator=torch.Generator().manual_seed(3))
    used = torch.randn(x.shape, generator=torch.Generator().manual_seed(3), dtype=x.dtype)
    return step + 2 * math.sqrt(e / 2) * (z - used)


ROUTES = {
    "8.1": [euler_maruyama_by_the_solver, euler_maruyama_by_autograd],
    "8.2": [halved_score_by_runge_kutta],
    "8.3": [ancestral_by_conditioning, ancestral_by_posterior_coefficients],
    "8.4": [end_std_by_regression],
    "8.5": [heun_by_two_euler_steps],
    "8.6": [corrector_by_langevin],
}
