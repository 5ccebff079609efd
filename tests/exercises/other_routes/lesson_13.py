"""Other right answers to the exercises of lesson 13."""

import math

import torch
from torch.distributions import MultivariateNormal

from coursework.inverse_problems import posterior_score
from coursework.measurements import StationaryGaussian, deblur


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


def langevin_by_gradient(score, operator, y, noise_std, x, eta, z):
    """log p(y | x) by torch, differentiated."""
    leaf = x.detach().requires_grad_()
    log_prob = torch.distributions.Normal(leaf @ operator.T, noise_std).log_prob(y.expand(len(x), -1)).sum()
    (pull,) = torch.autograd.grad(log_prob, leaf)
    return x + eta * score(x) + eta * pull + math.sqrt(2 * eta) * z


def deblurred_by_matrices(y, kernel, mean, spectrum, noise_std):
    """Section 2's formula with the matrices of the blur and of the covariance; the spectrum by a transform of P."""
    height, width = y.shape
    unit = torch.eye(height * width, dtype=y.dtype).reshape(-1, height, width)

    def matrix(transfer):
        return torch.fft.ifft2(torch.fft.fft2(unit) * transfer).real.flatten(1).T

    a, c = matrix(torch.fft.fft2(kernel)), matrix(spectrum)
    gain = c @ a.T @ torch.linalg.inv(a @ c @ a.T + noise_std**2 * torch.eye(height * width, dtype=y.dtype))
    restored = mean.flatten() + gain @ (y.flatten() - a @ mean.flatten())
    left = (c - gain @ a @ c)[:, 0].reshape(height, width)
    return restored.reshape(height, width), torch.fft.fft2(left).real


def deblurred_by_package(y, kernel, mean, spectrum, noise_std):
    """The package's."""
    posterior = deblur(StationaryGaussian(mean, spectrum), kernel, y, noise_std)
    return posterior.mean, posterior.spectrum


def error_by_elements(covariance, n):
    """Of each element: the variance of a difference of two independent numbers."""
    return sum(variance + variance / n for variance in covariance.diagonal())


ROUTES = {
    "13.1": [posterior_by_joint_law, posterior_by_precisions],
    "13.2": [pseudoinverse_by_jacobian, pseudoinverse_by_package],
    "13.3": [replace_by_matrices],
    "13.4": [langevin_by_gradient],
    "13.5": [deblurred_by_matrices, deblurred_by_package],
    "13.6": [error_by_elements],
}
