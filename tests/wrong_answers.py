"""Plausible answers that are wrong and must not pass, by exercise: shortcuts, and formulas for a special case."""

import torch


def central_differences(fn, x, v, h):
    """(fn(x + h v) - fn(x - h v)) / (2 h)."""
    return (fn(x + h * v) - fn(x - h * v)) / (2 * h)


def energy_by_differences(energy, x, h):
    basis = torch.eye(x.shape[1], dtype=x.dtype)
    return -torch.stack([central_differences(energy, x, e, h) for e in basis], 1)


def energy_of_the_density(energy, x):
    x = x.detach().requires_grad_()
    return torch.autograd.grad(torch.log(torch.exp(-energy(x))).sum(), x)[0]


def energy_of_the_guarded_density(energy, x):
    x = x.detach().requires_grad_()
    return torch.autograd.grad(torch.log(torch.exp(-energy(x)) + 1e-12).sum(), x)[0]


def merging_of_well_separated_modes(offset, std):
    """sqrt(a^2 - b^2) is near a - b^2 / (2 a) for a small b."""
    return offset - std**2 / (2 * offset)


# Steps of differences: too long, best and too short.
STEPS = (1e-3, 1e-4, 3e-5, 1e-5, 3e-6, 1e-6, 3e-7, 1e-7, 1e-8)

WRONG_ANSWERS = {
    "0.1": [lambda x: x[:, 0] ** 2 + x[:, 1] ** 2 + x[:, 2] ** 2, lambda x: 3 * (x**2).mean(1)],
    "1.3": [
        energy_of_the_density,
        energy_of_the_guarded_density,
        *(lambda energy, x, h=h: energy_by_differences(energy, x, h) for h in STEPS),
    ],
    "1.4": [
        lambda score, x: (x.norm(dim=1) < 1).long(),
        lambda score, x: (score(x).norm(dim=1) < 1).long(),
        lambda score, x: torch.ones(len(x), dtype=torch.long),
        lambda score, x: torch.tensor([x.shape[1]]).expand(len(x)),
    ],
    "1.6": [merging_of_well_separated_modes],
}
