"""Other right answers to the exercises of lesson 09."""

import torch
from torchdiffeq import odeint

from coursework.distributions import GaussianMixture, exact_score
from coursework.probability_flow import decode


def velocity_by_autograd(score, sde, x, t):
    """f and g^2 from alpha and sigma alone: f = (log alpha)', g^2 = (sigma^2)' - 2 f sigma^2."""
    leaf = t.detach().clone().requires_grad_()
    (f,) = torch.autograd.grad(sde.alpha(leaf).log() + 0 * leaf, leaf)
    (growth,) = torch.autograd.grad(sde.sigma(leaf) ** 2, leaf)
    return f * x - (growth - 2 * f * sde.sigma(t) ** 2) / 2 * score(x, t)


def euler_by_torchdiffeq(score, sde, x, t, t_next):
    """One step of the Euler method of another package."""

    def velocity(t, x):
        return velocity_by_autograd(score, sde, x, t)

    return odeint(velocity, x, torch.stack([t, t_next]), method="euler")[-1]


def heun_by_corrections(score, sde, x, t, t_next):
    """Euler's end, then half of the change of velocity on the way: x + h k1 + h/2 (k2 - k1)."""
    predicted = euler_by_torchdiffeq(score, sde, x, t, t_next)
    change = velocity_by_autograd(score, sde, predicted, t_next) - velocity_by_autograd(score, sde, x, t)
    return predicted + (t_next - t) * change / 2


def order_by_regression(coarse, medium, fine, ratio):
    """The slope of log difference over log step, by least squares through both points."""
    differences = torch.stack([(coarse - medium).flatten(), (medium - fine).flatten()])
    logs = (differences @ differences.T).diagonal().log() / 2
    columns = torch.stack([torch.stack([torch.zeros_like(ratio), -ratio.log()]), torch.ones(2, dtype=ratio.dtype)], 1)
    return torch.linalg.lstsq(columns, logs[:, None]).solution[0, 0]


def karras_by_bisection(sde, n_steps, rho):
    """Level by level: halve [0, T] until sigma / alpha is the level."""
    first, last = (float(sde.sigma(t) / sde.alpha(t)) ** (1 / rho) for t in (sde.T, sde.t_min))
    times = []
    for i in range(n_steps + 1):
        level, low, high = (first + i / n_steps * (last - first)) ** rho, 0.0, sde.T
        for _ in range(45):
            middle = (low + high) / 2
            low, high = (middle, high) if sde.sigma(middle) / sde.alpha(middle) < level else (low, middle)
        times.append(high)
    return torch.tensor(times, dtype=torch.float64)


def variance_by_solver(variance, sde, strength):
    """The flow is linear: follow one point through an adaptive solver, and square the factor."""
    law = GaussianMixture(torch.zeros(1, 1, dtype=torch.float64), variance.reshape(1))
    exact, one = exact_score(law, sde), torch.ones(1, 1, dtype=torch.float64)
    factor = decode(lambda x, t: strength * exact(x, t), sde, one, rtol=1e-10, atol=1e-12).squeeze()
    end = torch.tensor(sde.T, dtype=torch.float64)
    return factor**2 * (sde.alpha(end) ** 2 * variance + sde.sigma(end) ** 2)


def circle_by_rotation(z_a, z_b, w):
    """Start at z_a and turn: cos(w a) z_a + sin(w a) d, where d is what brings w = 1 to z_b."""
    unit_a, unit_b = z_a / z_a.norm(), z_b / z_b.norm()
    angle = 2 * torch.atan2((unit_a - unit_b).norm(), (unit_a + unit_b).norm())
    direction = (z_b - torch.cos(angle) * z_a) / torch.sin(angle)
    return torch.stack([torch.cos(v * angle) * z_a + torch.sin(v * angle) * direction for v in w])


ROUTES = {
    "9.1": [euler_by_torchdiffeq],
    "9.2": [heun_by_corrections],
    "9.3": [order_by_regression],
    "9.4": [karras_by_bisection],
    "9.5": [variance_by_solver],
    "9.6": [circle_by_rotation],
}
