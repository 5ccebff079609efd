"""Other right answers to the exercises of lesson 14."""

import numpy as np
import torch


def step_by_noise(x, x0_hat, alpha, sigma, alpha_next, sigma_next):
    """DDIM as lesson 12 has it: guess data and noise, noise the data again."""
    noise = (x - alpha * x0_hat) / sigma
    return alpha_next * x0_hat + sigma_next * noise


def step_by_lambda(x, x0_hat, alpha, sigma, alpha_next, sigma_next):
    """alpha' (1 - e^{-h}) x0_hat, with h = infinity at the last step."""
    h = torch.log(alpha_next / sigma_next) - torch.log(alpha / sigma)
    return sigma_next / sigma * x - alpha_next * torch.expm1(-h) * x0_hat


def two_m_by_slope(x, x0_hat, x0_before, h_before, alpha, sigma, alpha_next, sigma_next):
    """The line at the middle, as a point that is held constant."""
    snr, snr_next = (alpha / sigma) ** 2, (alpha_next / sigma_next) ** 2
    slope = (x0_hat - x0_before) / h_before
    middle = x0_hat + slope * torch.log(snr_next / snr) / 4
    return step_by_noise(x, middle, alpha, sigma, alpha_next, sigma_next)


def corrected_by_quadrature(x, x0_hat, x0_next, alpha, sigma, alpha_next, sigma_next):
    """Gauss-Legendre for the integral of e^lambda times the line."""
    nodes, weights = (torch.as_tensor(v) for v in np.polynomial.legendre.leggauss(12))
    start, end = torch.log(alpha / sigma), torch.log(alpha_next / sigma_next)
    share = (nodes[:, None, None] + 1) / 2
    line = x0_hat + share * (x0_next - x0_hat)
    at = torch.exp(start + share * (end - start))
    integral = (weights[:, None, None] * at * line).sum(0) * (end - start) / 2
    return sigma_next * (x / sigma + integral)


def heun_by_noise(denoise, y, q, q_next):
    """The noise prediction at both ends; the mean at the last step is that of one."""

    def noise(y, q):
        return (y - denoise(y, q)) / q

    first = noise(y, q)
    if not q_next > 0:
        return torch.lerp(y, y - first, q)
    second = noise(torch.addcmul(y, q_next - q, first), q_next)
    return y + torch.stack([first, second]).mean(0) * (q_next - q)


def churned_by_mixing(denoise, y, q, q_next, gamma, z):
    """Euler's step as a mixture of the point and its denoised estimate."""
    high = q + gamma * q
    noisy = y + q * torch.sqrt(gamma * (2 + gamma)) * z
    return torch.lerp(denoise(noisy, high), noisy, q_next / high)


def grid_by_numpy(lambdas, errors, n_steps, order):
    """numpy's interpolation of the inverse."""
    lam, root = lambdas.numpy(), errors.numpy() ** (1 / (1 + order))
    integral = np.concatenate([[0], np.cumsum(np.diff(lam) * (root[1:] + root[:-1]) / 2)])
    return torch.as_tensor(np.interp(np.arange(n_steps + 1) / n_steps * integral[-1], integral, lam))


ROUTES = {
    "14.1": [step_by_noise, step_by_lambda],
    "14.2": [two_m_by_slope],
    "14.3": [corrected_by_quadrature],
    "14.4": [heun_by_noise],
    "14.5": [churned_by_mixing],
    "14.6": [grid_by_numpy],
}
