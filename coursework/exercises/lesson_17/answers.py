"""Right answers to the exercises of lesson 17, flow matching."""

from collections.abc import Callable
from itertools import pairwise

from torch import Tensor


def line(x0: Tensor, noise: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
    """x_t = (1 - t) x0 + t noise and its derivative in t. Shapes: x0, noise (B, D), t (B,) -> twice (B, D)."""
    t = t[:, None]
    x_t = (1 - t) * x0 + t * noise
    u = noise - x0
    return x_t, u


def guesses(v: Tensor, x: Tensor, t: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """x0_hat, noise_hat and the score from v = noise_hat - x0_hat and x = (1 - t) x0_hat + t noise_hat."""
    x0_hat = x - t * v
    noise_hat = x + (1 - t) * v
    score = -noise_hat / t
    return x0_hat, noise_hat, score


def weights(alpha: Tensor, sigma: Tensor, alpha_rate: Tensor, sigma_rate: Tensor) -> tuple[Tensor, Tensor]:
    """The factors of the squared errors of noise and data in |v - u|^2. Shapes: (B,) -> twice (B,)."""
    noise_factor = sigma_rate - sigma * alpha_rate / alpha
    data_factor = alpha_rate - alpha * sigma_rate / sigma
    return noise_factor**2, data_factor**2


def noisy_step(v: Tensor, x: Tensor, t: Tensor, h: Tensor, g: Tensor, z: Tensor) -> Tensor:
    """Euler-Maruyama for dx = (v - g^2 s / 2) dt + g dw towards the data. Shapes: v, x, z (B, D), others 0-d."""
    score = -(x + (1 - t) * v) / t
    drift = v - g**2 / 2 * score
    return x - h * drift + g * h.sqrt() * z


def reflow_pairs(velocity: Callable[[Tensor, Tensor], Tensor], noise: Tensor, times: Tensor) -> tuple[Tensor, Tensor]:
    """Euler's end points of the flow, and where they started. Shapes: noise (B, D), times (n + 1,) -> twice (B, D)."""
    x = noise
    for t, t_next in pairwise(times):
        x = x + (t_next - t) * velocity(x, t)
    return x, noise


def bridge_covariance(a: Tensor, b: Tensor, variance: Tensor) -> Tensor:
    """The positive root of c^2 + sigma^2 c = a^2 b^2. Shapes: (B,) each -> (B,)."""
    product = a**2 * b**2
    root = (variance**2 + 4 * product).sqrt()
    return (root - variance) / 2
