"""What to train, and how: preconditioned networks, weights of the loss, laws of the time (lesson 15).

A denoiser D(x; sigma) estimates x_0 from x = x_0 + sigma noise. Any linear SDE is this after a division by alpha: its
x_t / alpha is x_0 with noise of standard deviation sigma / alpha, and SNR = alpha^2 / sigma^2.
"""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from coursework._arguments import (
    at_least,
    expand,
    finite,
    floating,
    holds,
    like,
    number,
    one_of,
    positive,
    positive_number,
    reals,
    settled,
    usable,
    wide,
    wide_dtype,
)
from coursework.predictions import PREDICTIONS, ScoreModel
from coursework.sdes import SDE, as_time, end_time

SCHEMES = ("noise", "data", "velocity", "likelihood", "min-snr", "edm")


def edm_coefficients(sigma: float | Tensor, sigma_data: float) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """(c_skip, c_out, c_in, c_noise) of D(x; sigma) = c_skip x + c_out F(c_in x; c_noise).

    c_skip = sigma_data^2 / (sigma^2 + sigma_data^2),  c_out = sigma sigma_data / sqrt(sigma^2 + sigma_data^2),
    c_in = 1 / sqrt(sigma^2 + sigma_data^2),  c_noise = ln(sigma) / 4. For data of standard deviation sigma_data, F's
    input c_in x and its target (x_0 - c_skip x) / c_out have unit variance, and c_out is the least possible.

    Shapes: sigma a number, 0-d or (B,), > 0 -> four like sigma. Raises ValueError for sigma or sigma_data <= 0.
    Source: Karras et al. 2022, table 1 and appendix B.6.
    """
    positive(sigma, "sigma")
    sigma, sigma_data = _decimal(sigma, "sigma"), positive_number(sigma_data, "sigma_data")
    s = wide(sigma)
    total = torch.hypot(s, torch.full_like(s, sigma_data))
    c_skip, c_out, c_in = (sigma_data / total) ** 2, s * (sigma_data / total), 1 / total
    return c_skip.to(sigma.dtype), c_out.to(sigma.dtype), c_in.to(sigma.dtype), (s.log() / 4).to(sigma.dtype)


class Preconditioned(nn.Module):
    """A network as a denoiser: `model(x, sigma, label=None)` -> E[x_0 | x] for x = x_0 + sigma noise, of x's shape.

    D(x; sigma) = c_skip x + c_out network(c_in x, c_noise), with `edm_coefficients`; `network(x, c_noise, label)` where
    a label is given. Shapes: x (B, *S); sigma a number, 0-d or (B,), > 0; c_noise 0-d or (B,), in x's dtype (float32
    where that is half precision). Source: Karras et al. 2022, eq. 7.
    """

    def __init__(self, network: Callable[..., Tensor], sigma_data: float) -> None:
        super().__init__()
        self.network, self.sigma_data = network, positive_number(sigma_data, "sigma_data")

    def forward(self, x: Tensor, sigma: float | Tensor, label: Tensor | None = None) -> Tensor:
        """The denoised x."""
        floating(x, "x")
        expand(sigma, x, "sigma")
        positive(sigma, "sigma")
        sigma = usable(reals(sigma, "sigma")).to(x.device, wide_dtype(x))
        c_skip, c_out, c_in, c_noise = edm_coefficients(sigma, self.sigma_data)
        scaled = expand(c_in, x, "sigma") * x
        value = self.network(scaled, c_noise) if label is None else self.network(scaled, c_noise, label)
        floating(value, "network's value")
        value = value.to(x.dtype)  # autocast gives bfloat16
        like(value, x, "network's value", "x")
        return expand(c_skip, x, "sigma") * x + expand(c_out, x, "sigma") * value


class TimedDenoiser(nn.Module):
    """A denoiser at the times of an SDE: E[x_0 | x_t] = D(x_t / alpha; sigma / alpha), a data prediction.

    `denoiser(x, sigma)`, or `denoiser(x, sigma, label)` where a label is given. Shapes: x (B, *S), t 0-d or (B,).
    """

    def __init__(self, denoiser: Callable[..., Tensor], sde: SDE) -> None:
        super().__init__()
        self.denoiser, self.sde = denoiser, sde

    def forward(self, x: Tensor, t: float | Tensor, label: Tensor | None = None) -> Tensor:
        """The denoised x_t."""
        floating(x, "x")
        t = self.sde.time(t, noisy=True)
        alpha = self.sde.alpha(t)
        scaled, sigma = x / expand(alpha, x, "t"), self.sde.sigma(t) / alpha
        return self.denoiser(scaled, sigma) if label is None else self.denoiser(scaled, sigma, label)


def as_score_model(denoiser: Callable[..., Tensor], sde: SDE) -> ScoreModel:
    """A denoiser D(x, sigma), such as `Preconditioned`, as the score model of an SDE: model(x, t, label=None) -> score.

    s(x_t, t) = (alpha D(x_t / alpha; sigma / alpha) - x_t) / sigma^2.
    """
    if not callable(denoiser):
        raise TypeError(f"denoiser: expected a function, got {type(denoiser).__name__}")
    return ScoreModel(TimedDenoiser(denoiser, sde), sde, "data")


def best_linear(variance: float | Tensor, sigma: float | Tensor, sigma_data: float) -> tuple[Tensor, Tensor]:
    """(slope, loss) of the best linear F(z) = slope z in a direction in which the data's variance is `variance` = v.

    slope = (v / (v + sigma^2) - c_skip) / (c_in c_out),  which is 0 where v = sigma_data^2;
    loss = E[(D - x_0)^2] / c_out^2 = v (sigma^2 + sigma_data^2) / (sigma_data^2 (v + sigma^2)).
    The loss is 1 where v = sigma_data^2, at every sigma. For Gaussian data no other F does better.

    Shapes: variance, sigma numbers, 0-d or (B,), > 0 -> two like variance.
    """
    positive(variance, "variance")
    positive(sigma, "sigma")
    v, s = _pair(variance, sigma, "variance", "sigma")
    c_skip, c_out, c_in, _ = edm_coefficients(s, sigma_data)
    wiener = v / (v + s**2)
    return (wiener - c_skip) / (c_in * c_out), wiener * s**2 / c_out**2


# Weights of the loss


def loss_weight(
    alpha: float | Tensor,
    sigma: float | Tensor,
    *,
    prediction: str,
    scheme: str,
    gamma: float = 5.0,
    sigma_data: float = 0.5,
) -> Tensor:
    """The weight of a prediction's squared error: one scheme is one loss, in whichever language the network predicts.

    With errors |noise|^2 = sigma^2 |score|^2 = SNR |data|^2 = alpha^2 / (alpha^2 + sigma^2)^2 |velocity|^2, the schemes
    weight the noise error by
    "noise" 1;  "data" 1 / SNR;  "velocity" (alpha^2 + sigma^2)^2 / alpha^2;  "min-snr" min(SNR, gamma) / SNR;
    "likelihood" 1/2, per unit of log-SNR (per unit of t: times -d log_snr / dt = g^2 / sigma^2);
    "edm" 1 + 1 / (SNR sigma_data^2), which is 1 / c_out^2 on the data error.

    Shapes: alpha, sigma numbers, 0-d or (B,), > 0 -> like alpha. `prediction` is one of "score", "noise", "data",
    "velocity". Raises ValueError for other names, values <= 0, or shapes that differ.
    Source: Salimans & Ho 2022, section 4; Kingma et al. 2021, section 5; Hang et al. 2023 ("min-snr"); Karras et
    al. 2022, table 1 ("edm").
    """
    one_of(prediction, PREDICTIONS, "prediction")
    one_of(scheme, SCHEMES, "scheme")
    gamma, sigma_data = positive_number(gamma, "gamma"), positive_number(sigma_data, "sigma_data")
    positive(alpha, "alpha")
    positive(sigma, "sigma")
    a, s = _pair(alpha, sigma, "alpha", "sigma")
    dtype, a, s = a.dtype, wide(a), wide(s)
    snr, one = (a / s) ** 2, torch.ones_like(a * s)
    of_noise_error = {
        "noise": one,
        "data": 1 / snr,
        "velocity": (a + s**2 / a) ** 2,
        "likelihood": 0.5 * one,
        "min-snr": (gamma / snr).clamp(max=1),
        "edm": 1 + 1 / (snr * sigma_data**2),
    }
    noise_error = {"noise": one, "score": s**2, "data": snr, "velocity": (a / (a**2 + s**2)) ** 2}
    return (of_noise_error[scheme] * noise_error[prediction]).to(dtype)


def uncertainty_loss(losses: Tensor, uncertainty: Tensor) -> Tensor:
    """E[ e^{-u} L + u ], L a point's loss, u a function of the noise level that is trained along with the network.

    The best u has e^u = E[L] at each level: every level then counts with weight 1 / E[L], and the value is
    E[ 1 + log E L ]. Shapes: losses, uncertainty (B,) -> (). Source: Karras et al. 2024 (EDM2).
    """
    floating(losses, "losses")
    if losses.ndim != 1 or not len(losses):
        raise ValueError(f"losses: expected shape (B,) of at least one point, got {tuple(losses.shape)}")
    finite(losses, "losses")
    like(uncertainty, losses, "uncertainty", "losses")
    u = wide(uncertainty)
    return (torch.exp(-u) * wide(losses) + u).mean()


# Laws of the time


def low_discrepancy(n: int, *, generator: torch.Generator | None = None, device: torch.device | str = "cpu") -> Tensor:
    """n numbers, each uniform on [0, 1), together spread evenly over it: frac(u + i / n), one uniform u for all.

    Shape: (n,), float64. Source: Kingma et al. 2021, appendix I.1.
    """
    n = at_least(n, 1, "n")
    device = generator.device if generator is not None else device
    u = torch.rand((), generator=generator, device=device, dtype=torch.float64)
    return (u + torch.arange(n, device=device, dtype=torch.float64) / n).frac()


class TimeLaw:
    """A law of t with a density that is constant on each of K cells: a probability for each.

    `times(low_discrepancy(n))` draws from it. Shapes: edges (K + 1,), strictly increasing; probabilities (K,), > 0,
    normalised inside, equal by default. Raises ValueError for other edges or probabilities.
    """

    def __init__(self, edges: Tensor, probabilities: Tensor | None = None) -> None:
        floating(edges, "edges")
        if edges.ndim != 1 or len(edges) < 2:
            raise ValueError(f"edges: expected shape (K + 1,) with at least one cell, got {tuple(edges.shape)}")
        finite(edges, "edges")
        self.edges = usable(edges).detach().double()
        self.widths = self.edges.diff()
        if not settled(self.widths > 0):
            raise ValueError("edges: expected strictly increasing values")
        shares = torch.ones_like(self.widths)
        if probabilities is not None:
            positive(probabilities, "probabilities")
            shares = usable(reals(probabilities, "probabilities")).detach().to(shares)
        if shares.shape != self.widths.shape:
            raise ValueError(f"probabilities: expected shape ({len(self.widths)},), got {tuple(shares.shape)}")
        ends = torch.cat([shares.new_zeros(1), shares.cumsum(0)])
        self.distribution = ends / ends[-1]  # at the edges
        self.probabilities = shares / ends[-1]

    def times(self, u: Tensor) -> Tensor:
        """The times at which the distribution function is u: those of a uniform u follow the law. Shapes: like u."""
        floating(u, "u")
        if not holds((u >= 0) & (u <= 1)):
            raise ValueError(f"u: expected values in [0, 1], got {u.min():g} to {u.max():g}")
        edges, widths, distribution, probabilities = self._on(u)
        v = u.double()
        k = (torch.searchsorted(distribution, v, right=True) - 1).clamp(0, len(widths) - 1)
        share = ((v - distribution[k]) / probabilities[k]).clamp(0, 1)
        return (edges[k] + share * widths[k]).clamp(max=edges[-1]).to(u.dtype)

    def density(self, t: float | Tensor) -> Tensor:
        """p(t). Shapes: like t. Raises ValueError for t outside the law's range."""
        t = usable(as_time(t))
        edges, widths, _, probabilities = self._on(t)
        v, slack = t.double(), 4 * torch.finfo(t.dtype).eps * float(self.edges.abs().max())
        if not holds((v >= edges[0] - slack) & (v <= edges[-1] + slack)):
            raise ValueError(f"t: expected values in [{edges[0]:g}, {edges[-1]:g}], got {t.min():g} to {t.max():g}")
        k = (torch.searchsorted(edges, v, right=True) - 1).clamp(0, len(widths) - 1)
        return (probabilities[k] / widths[k]).to(t.dtype)

    def weight(self, t: float | Tensor) -> Tensor:
        """1 / (p(t) (b - a)) on the law's range [a, b]: E[weight(t) f(t)] is the mean of f over t uniform on it."""
        return 1 / (self.density(t) * float(self.edges[-1] - self.edges[0]))

    def to(self, device: torch.device | str) -> "TimeLaw":
        """The same law, with what it holds on a device: a loop there need not wait for it."""
        return TimeLaw(self.edges.to(device), self.probabilities.to(device))

    def _on(self, x: Tensor) -> tuple[Tensor, ...]:
        return tuple(v.to(x.device) for v in (self.edges, self.widths, self.distribution, self.probabilities))


def log_normal_law(
    sde: SDE, *, mean: float = -1.2, std: float = 1.2, t_min: float | None = None, n_cells: int = 1024
) -> TimeLaw:
    """The law of t for which ln(sigma / alpha) ~ N(mean, std^2), cut to [t_min, T] and to six standard deviations.

    Its cells are equally wide in the log-SNR. Raises ValueError where nothing is left of the law.
    Source: Karras et al. 2022, table 1 (P_mean, P_std).
    """
    mean, std = number(mean, "mean"), positive_number(std, "std")
    ends = _log_ratios(sde, t_min)
    ends = ends.clamp(mean - 6 * std, mean + 6 * std)
    if not ends[0] < ends[1]:
        raise ValueError(f"mean: a log-normal law of mean {mean:g} and std {std:g} has nothing in the SDE's [t_min, T]")
    edges, ratios = _edges(sde, ends, t_min, n_cells)
    return TimeLaw(edges, torch.special.ndtr((ratios - mean) / std).diff())


def log_snr_law(sde: SDE, *, t_min: float | None = None, n_cells: int = 1024) -> TimeLaw:
    """The law of t on [t_min, T] for which the log-SNR is uniform: p(t) proportional to g^2 / sigma^2.

    -d log_snr / dt = g^2 / sigma^2 is the likelihood's weight of the noise error: under this law it is constant.
    Source: Song, Durkan, Murray & Ermon 2021 (importance sampling for likelihood weighting).
    """
    return TimeLaw(_edges(sde, _log_ratios(sde, t_min), t_min, n_cells)[0])


def importance_law(edges: Tensor, weights: Tensor, second_moments: Tensor) -> TimeLaw:
    """The law with p(t) proportional to lambda(t) sqrt(E[L_t^2]): lambda L / p, t ~ p, has the least variance.

    weights: lambda in each cell; second_moments: E[L_t^2], L_t the loss at a time of the cell. The second moment of
    lambda L / p is then (int lambda sqrt(E L^2) dt)^2. Shapes: edges (K + 1,); weights, second_moments (K,), > 0.
    Source: Nichol & Dhariwal 2021, section 3.3.
    """
    floating(edges, "edges")
    sizes = []
    for value, name in ((weights, "weights"), (second_moments, "second_moments")):
        floating(value, name)
        if edges.ndim != 1 or value.shape != (len(edges) - 1,):
            raise ValueError(f"{name}: expected one value for each cell of edges, got shape {tuple(value.shape)}")
        positive(value, name)
        sizes.append(usable(value).detach().to(edges.device, torch.float64))
    return TimeLaw(edges, sizes[0] * sizes[1].sqrt() * usable(edges).detach().double().diff())


def _log_ratios(sde: SDE, t_min: float | None) -> Tensor:
    """ln(sigma / alpha) at t_min and T, (2,) float64."""
    start = end_time(sde, t_min)
    ends = -0.5 * sde.log_snr(torch.tensor([start, sde.T], dtype=torch.float64, device="cpu"))
    if not settled(torch.isfinite(ends)):
        raise ValueError(f"t_min: the log-SNR is infinite at t = {start} or T; expected times with noise and data")
    return ends


def _edges(sde: SDE, ends: Tensor, t_min: float | None, n_cells: int) -> tuple[Tensor, Tensor]:
    """Edges of cells that are equally wide in ln(sigma / alpha) from ends[0] to ends[1]: times, and that logarithm."""
    n_cells = at_least(n_cells, 1, "n_cells")
    ratios = torch.linspace(float(ends[0]), float(ends[1]), n_cells + 1, dtype=torch.float64, device="cpu")
    return sde.time_of_log_snr(-2 * ratios).clamp(end_time(sde, t_min), sde.T), ratios


# Pairs of numbers


def _decimal(value: float | Tensor, name: str) -> Tensor:
    """A number or tensor as a floating-point tensor."""
    value = usable(reals(value, name))
    return value if value.is_floating_point() else value.double()


def _pair(a: float | Tensor, b: float | Tensor, a_name: str, b_name: str) -> tuple[Tensor, Tensor]:
    """Two numbers, 0-d or (B,) tensors, in the dtype of the first that is a tensor."""
    first, second = _decimal(a, a_name), _decimal(b, b_name)
    if first.ndim and second.ndim:
        like(second, second.new_empty(first.shape, device=first.device), b_name, a_name)
    dtype = first.dtype if isinstance(a, Tensor) or not isinstance(b, Tensor) else second.dtype
    return first.to(dtype), second.to(dtype)
