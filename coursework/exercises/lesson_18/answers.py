"""Right answers to the exercises of lesson 18, few steps."""

from collections.abc import Callable

from torch import Tensor


def gauss_map(x: Tensor, m: Tensor, v: Tensor, start: tuple[Tensor, Tensor], end: tuple[Tensor, Tensor]) -> Tensor:
    """X_{t->s}(x) for N(m, v), with (alpha, sigma) at start and end. Shapes: x (B, D), m (D,), others 0-d -> (B, D)."""
    alpha, sigma = start
    alpha_s, sigma_s = end
    spread = (alpha**2 * v + sigma**2).sqrt()
    spread_s = (alpha_s**2 * v + sigma_s**2).sqrt()
    return alpha_s * m + spread_s / spread * (x - alpha * m)


def mean_target(u: Tensor, rate: Tensor, slope: Callable[[Tensor], Tensor], t: Tensor, s: Tensor) -> Tensor:
    """u - (t - s) (d_t w + (grad w) u). Shapes: u, rate (B, D), slope (B, D) -> (B, D), t, s (B,) -> (B, D)."""
    total = rate + slope(u)
    gap = (t - s)[:, None]
    return u - gap * total


def consistent(network: Callable[[Tensor, Tensor], Tensor], y: Tensor, q: Tensor, e: float, d: float) -> Tensor:
    """c_skip y + c_out network(y, q), which is y at q = e. Shapes: y (B, D), q (B,) -> (B, D)."""
    q = q[:, None]
    c_skip = d**2 / ((q - e) ** 2 + d**2)
    c_out = d * (q - e) / (q**2 + d**2).sqrt()
    return c_skip * y + c_out * network(y, q)


def one_step_variance(v: Tensor, sigmas: Tensor) -> Tensor:
    """The variance of f(x) for x ~ N(0, v + sigmas[0]^2). Shapes: v 0-d, sigmas (N,) decreasing -> 0-d."""
    high, low = sigmas[:-1], sigmas[1:]
    factor = ((v + high * low) / (v + high**2)).prod()
    return factor**2 * (v + sigmas[0] ** 2)


def student_target(
    x: Tensor, x_end: Tensor, alpha: Tensor, sigma: Tensor, alpha_end: Tensor, sigma_end: Tensor
) -> Tensor:
    """The data guess with which one DDIM step leads from x to x_end. Shapes: x, x_end (B, D), others 0-d -> (B, D)."""
    ratio = sigma_end / sigma
    return (x_end - ratio * x) / (alpha_end - ratio * alpha)


def matching_gradient(
    generated_score: Callable[[Tensor], Tensor],
    score: Callable[[Tensor], Tensor],
    y: Tensor,
    noise: Tensor,
    alpha: Tensor,
    sigma: Tensor,
) -> Tensor:
    """alpha (s_q(y_t) - s_p(y_t)) at y_t = alpha y + sigma noise. Shapes: y, noise (B, D), others 0-d -> (B, D)."""
    y_t = alpha * y + sigma * noise
    return alpha * (generated_score(y_t) - score(y_t))
