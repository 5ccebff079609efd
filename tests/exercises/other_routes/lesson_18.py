"""Other right answers to the exercises of lesson 18."""

import torch


def map_by_standardising(x, m, v, start, end):
    """The place in the standard normal stays."""
    place = (x - start[0] * m) / torch.hypot(start[0] * v.sqrt(), start[1])
    return end[0] * m + torch.hypot(end[0] * v.sqrt(), end[1]) * place


def target_in_parts(u, rate, slope, t, s):
    """The two parts of the derivative one after the other."""
    gap = torch.sub(t, s).reshape(-1, 1)
    return u - slope(gap * u) - rate * gap


def consistent_by_angle(network, y, q, e, d):
    """With columns made at the end."""
    above = q - e
    skip, out = 1 / (1 + (above / d) ** 2), above / torch.sqrt((q / d) ** 2 + 1)
    return torch.einsum("b,bd->bd", skip, y) + out.unsqueeze(1) * network(y, q)


def variance_by_recursion(v, sigmas):
    """Level by level, from the data upwards."""
    slope = 1.0
    levels = sigmas.tolist()
    for low, high in zip(levels[:0:-1], levels[-2::-1], strict=True):
        slope = slope * (float(v) + low * high) / (float(v) + high**2)
    return torch.tensor(slope**2 * (float(v) + levels[0] ** 2), dtype=sigmas.dtype)


def target_by_cross_products(x, x_end, alpha, sigma, alpha_end, sigma_end):
    """Numerator and denominator times sigma."""
    return (sigma * x_end - sigma_end * x) / (sigma * alpha_end - sigma_end * alpha)


def gradient_by_one_call_each(generated_score, score, y, noise, alpha, sigma):
    """The scores of a point that was made by torch."""
    point = torch.add(y * alpha, noise * sigma)
    return generated_score(point) * alpha - score(point).mul(alpha)


ROUTES = {
    "18.1": [map_by_standardising],
    "18.2": [target_in_parts],
    "18.3": [consistent_by_angle],
    "18.4": [variance_by_recursion],
    "18.5": [target_by_cross_products],
    "18.6": [gradient_by_one_call_each],
}
