"""Linear SDEs dx = f(t) x dt + g(t) dw, t from 0 (data) to 1 (noise), and time grids for their solvers (lesson 07).

Given x_0, the law of x_t is N(alpha(t) x_0, sigma(t)^2 I). A subclass supplies `alpha`, `sigma`,
`drift_coefficient` (f) and `diffusion` (g), which get `t` as a tensor; everything else is derived here.
"""

import math

import torch
from torch import Tensor

from coursework._arguments import (
    at_least,
    batch,
    expand,
    flat_sum,
    floating,
    like,
    positive_number,
    real,
    remember,
    remembered,
    settled,
    usable,
    wide,
)


def as_time(t: float | Tensor, name: str = "t") -> Tensor:
    """Return `t` as a floating-point tensor; a Python number becomes float64, so that coefficients lose nothing."""
    if not isinstance(t, Tensor):
        return torch.tensor(real(t, name), dtype=torch.float64, device="cpu")
    floating(t, name)
    return t


class SDE:
    """A linear SDE. `t` is a number, 0-d or (B,); coefficients come back in t's shape and dtype.

    `t_min` is where solvers and likelihoods stop near the data; `prior_std` the standard deviation of the prior at T.
    Methods raise ValueError for t outside [0, T], NaN among them, TypeError for what is no time.
    """

    T: float = 1.0
    t_min: float = 1e-3
    _prior_std: float | None = None  # what the SDE says of it

    def alpha(self, t: float | Tensor) -> Tensor:
        """alpha(t), the scale of the data: E[x_t | x_0] = alpha(t) x_0."""
        raise NotImplementedError("alpha: an SDE supplies its own")

    def sigma(self, t: float | Tensor) -> Tensor:
        """sigma(t), the standard deviation of x_t given x_0."""
        raise NotImplementedError("sigma: an SDE supplies its own")

    def drift_coefficient(self, t: float | Tensor) -> Tensor:
        """f(t), in 1 / time."""
        raise NotImplementedError("drift_coefficient: an SDE supplies its own")

    def diffusion(self, t: float | Tensor) -> Tensor:
        """g(t), in 1 / sqrt(time)."""
        raise NotImplementedError("diffusion: an SDE supplies its own")

    def time(self, t: float | Tensor, name: str = "t", *, noisy: bool = False) -> Tensor:
        """`t` as `as_time` gives it, refused outside [0, T] up to rounding, and if `noisy` where sigma(t) is 0."""
        t = usable(as_time(t, name))
        if torch.compiler.is_compiling() or remembered(t, self, noisy=noisy):
            return t
        if not settled((t >= 0) & (t <= self.T * (1 + 4 * torch.finfo(t.dtype).eps))):
            got = f"{t.min():g} to {t.max():g}" if t.ndim else f"{t:g}"
            raise ValueError(f"{name}: expected values in [0, {self.T}], got {got}")
        if noisy and not settled(torch.as_tensor(self.sigma(t)) > 0):
            raise ValueError(f"{name}: the score is asked where sigma is 0; stop at a later time, say {self.t_min}")
        t = t.clone()  # our own: what a caller does to his changes nothing
        remember(t, self, noisy=noisy)
        return t

    @property
    def prior_std(self) -> float:
        """Standard deviation of the prior N(0, prior_std^2 I): sigma(T), unless the SDE says otherwise."""
        return float(self.sigma(as_time(self.T))) if self._prior_std is None else self._prior_std

    @prior_std.setter
    def prior_std(self, value: float) -> None:
        self._prior_std = positive_number(value, "prior_std")

    def drift(self, x: Tensor, t: float | Tensor) -> Tensor:
        """f(t) x. Shapes: x (B, *S) -> (B, *S)."""
        floating(x, "x")
        return expand(self.drift_coefficient(self.time(t)), x, "t") * x

    def log_snr(self, t: float | Tensor) -> Tensor:
        """log(alpha(t)^2 / sigma(t)^2), decreasing in t; infinite where sigma(t) is 0."""
        t = self.time(t)
        alpha, sigma = (torch.as_tensor(scale(t), dtype=t.dtype, device=t.device) for scale in (self.alpha, self.sigma))
        return 2 * (torch.log(alpha) - torch.log(sigma))

    def time_of_log_snr(self, log_snr: float | Tensor) -> Tensor:
        """The t in [0, T] with log_snr(t) = log_snr, by bisection in float64 to about 1e-16.

        Raises ValueError where no t in [0, T] has that log-SNR.
        """
        given = as_time(log_snr, "log_snr")
        target = given.double()
        ends = torch.tensor([0.0, self.T], dtype=torch.float64, device=target.device)
        most, least = self.log_snr(ends)
        slack = max(1e-9, 8 * torch.finfo(given.dtype).eps) * (1 + target.abs())
        if not bool(((target <= most + slack) & (target >= least - slack)).all()):
            got = f"{target.min():.6g} to {target.max():.6g}" if target.ndim else f"{target:.6g}"
            raise ValueError(f"log_snr: expected values in [{least:.6g}, {most:.6g}], got {got}")
        low, high = torch.zeros_like(target), torch.full_like(target, self.T)
        for _ in range(64):
            middle = (low + high) / 2
            remember(middle, self)
            earlier = self.log_snr(middle) > target
            low, high = torch.where(earlier, middle, low), torch.where(earlier, high, middle)
        return ((low + high) / 2).to(given.dtype)

    def perturb(self, x0: Tensor, t: float | Tensor, noise: Tensor) -> Tensor:
        """x_t = alpha(t) x_0 + sigma(t) noise. Shapes: x0, noise (B, *S) -> (B, *S)."""
        floating(x0, "x0")
        like(noise, x0, "noise", "x0")
        t = self.time(t)
        return expand(self.alpha(t), x0, "t") * x0 + expand(self.sigma(t), x0, "t") * noise

    def kernel_score(self, x_t: Tensor, x0: Tensor, t: float | Tensor) -> Tensor:
        """Score of the kernel, grad_{x_t} log p(x_t | x_0) = -(x_t - alpha(t) x_0) / sigma(t)^2, where sigma(t) > 0."""
        floating(x_t, "x_t")
        like(x0, x_t, "x0", "x_t")
        t = self.time(t, noisy=True)
        return -(x_t - expand(self.alpha(t), x_t, "t") * x0) / expand(self.sigma(t), x_t, "t") ** 2

    def reverse_drift(self, x: Tensor, t: float | Tensor, score_value: Tensor) -> Tensor:
        """Drift of the reverse-time SDE, f(t) x - g(t)^2 s, for dt < 0 (Anderson 1982; Song et al. 2021, eq. 6)."""
        floating(x, "x")
        like(score_value, x, "score_value", "x")
        t = self.time(t)
        return self.drift(x, t) - expand(self.diffusion(t), x, "t") ** 2 * score_value

    def probability_flow(self, x: Tensor, t: float | Tensor, score_value: Tensor) -> Tensor:
        """Right-hand side of the probability-flow ODE, f(t) x - g(t)^2 s / 2 (Song et al. 2021, eq. 13)."""
        floating(x, "x")
        like(score_value, x, "score_value", "x")
        t = self.time(t)
        return self.drift(x, t) - 0.5 * expand(self.diffusion(t), x, "t") ** 2 * score_value

    def prior_sample(
        self,
        shape: tuple[int, ...],
        *,
        generator: torch.Generator | None = None,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> Tensor:
        """Draw from the prior N(0, prior_std^2 I). Shape: (B, *S)."""
        return self.prior_std * torch.randn(shape, generator=generator, device=device, dtype=dtype)

    def prior_log_prob(self, x: Tensor) -> Tensor:
        """log N(x; 0, prior_std^2 I) in nats, summed over dimensions. Shapes: (B, *S) -> (B,)."""
        batch(x, "x")
        constant = 0.5 * x[0].numel() * math.log(2 * math.pi * self.prior_std**2) if len(x) else 0.0
        return (-0.5 * flat_sum(wide(x) ** 2) / self.prior_std**2 - constant).to(x.dtype)


class VPSDE(SDE):
    """Variance preserving, dx = -beta(t)/2 x dt + sqrt(beta(t)) dw, beta linear in t (Song et al. 2021, eq. 11).

    With B(t) = beta_min t + (beta_max - beta_min) t^2 / 2: alpha = exp(-B/2), sigma^2 = 1 - exp(-B).
    """

    _prior_std = 1.0

    def __init__(self, beta_min: float = 0.1, beta_max: float = 20.0) -> None:
        self.beta_min, self.beta_max = real(beta_min, "beta_min"), real(beta_max, "beta_max")
        if not 0 < self.beta_min <= self.beta_max < math.inf:
            raise ValueError(f"beta_min, beta_max: expected 0 < beta_min <= beta_max, got {beta_min}, {beta_max}")

    def beta(self, t: float | Tensor) -> Tensor:
        """beta(t) = beta_min + t (beta_max - beta_min), in 1 / time."""
        return self.beta_min + self.time(t) * (self.beta_max - self.beta_min)

    def integrated_beta(self, t: float | Tensor) -> Tensor:
        """B(t), the integral of beta from 0 to t."""
        t = self.time(t)
        return self.beta_min * t + 0.5 * (self.beta_max - self.beta_min) * t**2

    def alpha(self, t: float | Tensor) -> Tensor:
        """exp(-B(t) / 2)."""
        return torch.exp(-0.5 * self.integrated_beta(t))

    def sigma(self, t: float | Tensor) -> Tensor:
        """sqrt(1 - exp(-B(t)))."""
        return torch.sqrt(-torch.expm1(-self.integrated_beta(t)))

    def drift_coefficient(self, t: float | Tensor) -> Tensor:
        """-beta(t) / 2."""
        return -0.5 * self.beta(t)

    def diffusion(self, t: float | Tensor) -> Tensor:
        """sqrt(beta(t))."""
        return torch.sqrt(self.beta(t))


class SubVPSDE(VPSDE):
    """Sub-VP, dx = -beta/2 x dt + sqrt(beta (1 - exp(-2B))) dw (Song et al. 2021, eq. 12).

    The same alpha as VP, and sigma = 1 - exp(-B): a standard deviation, not a variance, and never above VP's.
    """

    def sigma(self, t: float | Tensor) -> Tensor:
        """1 - exp(-B(t))."""
        return -torch.expm1(-self.integrated_beta(t))

    def diffusion(self, t: float | Tensor) -> Tensor:
        """sqrt(beta(t) (1 - exp(-2 B(t)))), that is sqrt(beta (1 - alpha^4))."""
        return torch.sqrt(self.beta(t) * -torch.expm1(-2 * self.integrated_beta(t)))


class VESDE(SDE):
    """Variance exploding, dx = sqrt(d sigma^2 / dt) dw, sigma(t) = sigma_min (sigma_max / sigma_min)^t.

    Song et al. 2021, eq. 9 and appendix C. As in their code sigma(0) = sigma_min counts as part of the data's law:
    the kernel from time 0 has variance sigma(t)^2, where the SDE alone would add sigma(t)^2 - sigma_min^2.
    """

    t_min = 1e-5

    def __init__(self, sigma_min: float = 0.01, sigma_max: float = 50.0) -> None:
        self.sigma_min, self.sigma_max = real(sigma_min, "sigma_min"), real(sigma_max, "sigma_max")
        if not 0 < self.sigma_min < self.sigma_max < math.inf:
            raise ValueError(f"sigma_min, sigma_max: expected 0 < sigma_min < sigma_max, got {sigma_min}, {sigma_max}")

    def alpha(self, t: float | Tensor) -> Tensor:
        """1."""
        return torch.ones_like(self.time(t))

    def sigma(self, t: float | Tensor) -> Tensor:
        """sigma_min (sigma_max / sigma_min)^t."""
        return self.sigma_min * torch.exp(self.time(t) * math.log(self.sigma_max / self.sigma_min))

    def drift_coefficient(self, t: float | Tensor) -> Tensor:
        """0."""
        return torch.zeros_like(self.time(t))

    def diffusion(self, t: float | Tensor) -> Tensor:
        """sigma(t) sqrt(2 ln(sigma_max / sigma_min))."""
        return self.sigma(t) * math.sqrt(2 * math.log(self.sigma_max / self.sigma_min))


def uniform_times(sde: SDE, n_steps: int, *, t_min: float | None = None) -> Tensor:
    """Times equally spaced from T down to t_min (default: the SDE's). Shape: (n_steps + 1,), float64."""
    n_steps, t_min = _grid(sde, n_steps, t_min)
    return torch.linspace(sde.T, t_min, n_steps + 1, dtype=torch.float64, device="cpu")


def log_snr_times(sde: SDE, n_steps: int, *, t_min: float | None = None) -> Tensor:
    """Times from T down to t_min, equally spaced in log-SNR (Lu et al. 2022). Shape: (n_steps + 1,), float64."""
    n_steps, t_min = _grid(sde, n_steps, t_min)
    first, last = _end_log_snrs(sde, t_min)
    inner = torch.linspace(first, last, n_steps + 1, dtype=torch.float64, device="cpu")[1:-1]
    return _with_ends(sde, inner, t_min)


def karras_times(sde: SDE, n_steps: int, *, t_min: float | None = None, rho: float = 7.0) -> Tensor:
    """Times at which r = sigma / alpha has r^(1/rho) equally spaced (Karras et al. 2022, eq. 5), from T to t_min.

    Shape: (n_steps + 1,), float64. Raises ValueError for rho <= 0.
    """
    rho = positive_number(rho, "rho")
    n_steps, t_min = _grid(sde, n_steps, t_min)
    first, last = (math.exp(-end / 2) ** (1 / rho) for end in _end_log_snrs(sde, t_min))
    ratio = torch.linspace(first, last, n_steps + 1, dtype=torch.float64, device="cpu")[1:-1] ** rho
    return _with_ends(sde, -2 * torch.log(ratio), t_min)


def _grid(sde: SDE, n_steps: int, t_min: float | None) -> tuple[int, float]:
    return at_least(n_steps, 1, "n_steps"), end_time(sde, t_min)


def end_time(sde: SDE, t_min: float | None) -> float:
    """t_min, the SDE's own where it is None; refused unless 0 <= t_min < T."""
    t_min = sde.t_min if t_min is None else real(t_min, "t_min")
    if not 0 <= t_min < sde.T:
        raise ValueError(f"t_min: expected 0 <= t_min < {sde.T}, got {t_min}")
    return t_min


def _end_log_snrs(sde: SDE, t_min: float) -> tuple[float, float]:
    last = float(sde.log_snr(t_min))
    if not math.isfinite(last):
        raise ValueError(f"t_min: the log-SNR is infinite at t = {t_min}; expected a time with noise, say {sde.t_min}")
    return float(sde.log_snr(sde.T)), last


def _with_ends(sde: SDE, log_snrs: Tensor, t_min: float) -> Tensor:
    ends = torch.tensor([sde.T, t_min], dtype=torch.float64, device="cpu")
    return torch.cat([ends[:1], sde.time_of_log_snr(log_snrs), ends[1:]])
