"""Right answers to the exercises of lesson 09, the probability flow."""

from collections.abc import Callable

import torch
from torch import Tensor

from coursework.sdes import SDE

Score = Callable[[Tensor, Tensor], Tensor]


def velocity(score: Score, sde: SDE, x: Tensor, t: Tensor) -> Tensor:
    """f x - g^2 s / 2. Shapes: x (B, D), t () -> (B, D)."""
    return sde.drift(x, t) - 0.5 * sde.diffusion(t) ** 2 * score(x, t)


def euler_step(score: Score, sde: SDE, x: Tensor, t: Tensor, t_next: Tensor) -> Tensor:
    """x + (t' - t) v(x, t). Shapes: x (B, D), t and t_next () -> (B, D)."""
    h = t_next - t
    v = velocity(score, sde, x, t)
    return x + h * v


def heun_step(score: Score, sde: SDE, x: Tensor, t: Tensor, t_next: Tensor) -> Tensor:
    """x + h/2 (k1 + k2), k1 = v(x, t), k2 = v(x + h k1, t'). Shapes: x (B, D), t and t_next () -> (B, D)."""
    h = t_next - t
    k1 = velocity(score, sde, x, t)
    y = x + h * k1
    k2 = velocity(score, sde, y, t_next)
    return x + 0.5 * h * (k1 + k2)


def observed_order(coarse: Tensor, medium: Tensor, fine: Tensor, ratio: Tensor) -> Tensor:
    """log(|coarse - medium| / |medium - fine|) / log ratio, of the whole batch. Shapes: (B, D) x 3, () -> ()."""
    first, second = coarse - medium, medium - fine
    quotient = first.norm() / second.norm()
    return quotient.log() / ratio.log()


def karras_grid(sde: SDE, n_steps: int, rho: float) -> Tensor:
    """Times at which (sigma / alpha)^(1 / rho) is equally spaced, from T to t_min. Shape: (n_steps + 1,)."""
    t = torch.tensor([sde.T, sde.t_min], dtype=torch.float64)
    ends = sde.sigma(t) / sde.alpha(t)
    first, last = (ends ** (1 / rho)).tolist()
    steps = torch.linspace(first, last, n_steps + 1, dtype=torch.float64)
    levels = steps**rho
    return sde.time_of_log_snr(-2 * levels.log())


def flow_variance(variance: Tensor, sde: SDE, strength: Tensor) -> Tensor:
    """Variance at t_min of the flow with strength * score on N(0, variance), from the exact law at T. Shapes: () -> ().

    With y = variance + sigma^2 / alpha^2 at t_min and y_T at T: alpha^2 y_T (y / y_T)^strength.
    """
    t = torch.tensor([sde.t_min, sde.T], dtype=torch.float64)
    alpha = sde.alpha(t)
    y, y_T = variance + sde.sigma(t) ** 2 / alpha**2
    factor = (y / y_T) ** (strength / 2)
    u_variance = y_T * factor**2
    return alpha[0] ** 2 * u_variance


def great_circle(z_a: Tensor, z_b: Tensor, w: Tensor) -> Tensor:
    """(sin((1 - w) a) z_a + sin(w a) z_b) / sin a, a the angle between them. Shapes: (D,), (D,), (n,) -> (n, D)."""
    cosine = z_a @ z_b / (z_a.norm() * z_b.norm())
    angle = cosine.acos()
    w = w[:, None]
    from_a, from_b = torch.sin((1 - w) * angle), torch.sin(w * angle)
    mixed = from_a * z_a + from_b * z_b
    return mixed / torch.sin(angle)
