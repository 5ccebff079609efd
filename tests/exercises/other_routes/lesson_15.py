"""Other right answers to the exercises of lesson 15."""

import math

import numpy as np
import torch


def factors_by_regression(q, sigma_d):
    """c_skip is the slope of the best linear estimate of x_0, c_out the root of what it leaves."""
    c_skip = 1 / (1 + (q / sigma_d) ** 2)
    left = (1 - c_skip) ** 2 * sigma_d**2 + c_skip**2 * q**2
    return c_skip, left.sqrt(), torch.hypot(q, torch.full_like(q, sigma_d)).reciprocal()


def loss_by_parts(v, q, sigma_d):
    """The signal's and the noise's part of the error, each with the slope."""
    slope = v / (v + q * q)
    variance = (1 - slope) ** 2 * v + slope**2 * q * q
    return variance * (q * q + sigma_d**2) / (q * sigma_d) ** 2


def weights_by_errors(noise_weight, alpha, sigma):
    """The noise's error that belongs to an error 1 of each other prediction, squared."""
    data = alpha / sigma
    velocity = data * sigma / (alpha * alpha + sigma * sigma)
    return tuple(noise_weight * error**2 for error in (sigma, data, velocity))


def sampler_by_softmax(weights, second_moments, widths):
    """Logarithms; the factor is the integral of w sqrt(E L^2), over sqrt(E L^2)."""
    logs = torch.log(weights * widths) + second_moments.log() / 2
    return logs.softmax(0), logs.logsumexp(0).exp() / second_moments**0.5


def bound_by_quadrature(variances, low, high):
    """Gauss-Legendre for half the integral of the sigmoids."""
    nodes, weights = (torch.as_tensor(a) for a in np.polynomial.legendre.leggauss(60))
    log_snr = low + (nodes + 1) / 2 * (high - low)
    errors = torch.sigmoid(variances.log()[:, None] + log_snr).sum(0)
    return (weights * errors).sum() * (high - low) / 4


def features_by_exponential(t, n, scale):
    """Frequencies equally spaced in the logarithm, waves as one complex exponential."""
    frequencies = torch.linspace(math.log(scale), math.log(scale / 1e4), n // 2, dtype=t.dtype).exp()
    waves = torch.exp(1j * torch.outer(t, frequencies))
    return torch.hstack([waves.imag, waves.real])


def average_by_shares(weights, gamma):
    """Every step's share is the profile's integral over it."""
    ends = (torch.arange(len(weights) + 1, dtype=weights.dtype) / len(weights)) ** (gamma + 1)
    return ends.diff() @ weights


ROUTES = {
    "15.1": [factors_by_regression],
    "15.2": [loss_by_parts],
    "15.3": [weights_by_errors],
    "15.4": [sampler_by_softmax],
    "15.5": [bound_by_quadrature],
    "15.6": [features_by_exponential],
    "15.7": [average_by_shares],
}
