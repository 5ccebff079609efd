"""Linear measurements of images: blur, random projections, tomography; and blur undone exactly (lesson 13).

What is measured with one of these, A x_0 + noise_std n, goes into `inverse_problems` with it: all are linear functions
or matrices. A blur on a torus, with a Gaussian law that looks the same everywhere on it, has its posterior in closed
form in Fourier space, for pictures of any size.
"""

import math

import torch
from torch import Tensor

from coursework._arguments import (
    at_least,
    batch,
    expand,
    finite,
    floating,
    holds,
    like,
    ordinary,
    positive,
    positive_number,
    reals,
    some,
    wide,
)
from coursework._loops import check_generator


def gaussian_kernel(
    height: int,
    width: int,
    std: float,
    *,
    dtype: torch.dtype | None = None,
    device: torch.device | str | None = None,
) -> Tensor:
    """The kernel of a Gaussian blur on a torus, (H, W): its middle at [0, 0], std in pixels, the sum 1.

    exp(-(i^2 + j^2) / (2 std^2)), summed over the displacements i + n H, j + m W that are the same on the torus.
    """
    height, width, std = at_least(height, 1, "height"), at_least(width, 1, "width"), positive_number(std, "std")

    def wrapped(size: int) -> Tensor:
        n_turns = math.ceil(9 * std / size)
        turns = size * torch.arange(-n_turns, n_turns + 1, dtype=torch.float64, device="cpu")
        places = torch.arange(size, dtype=torch.float64, device="cpu")[:, None] + turns
        values = torch.exp(-0.5 * (places / std) ** 2).sum(1)
        return values / values.sum()

    return torch.outer(wrapped(height), wrapped(width)).to(device, dtype or torch.get_default_dtype())


def convolve(x: Tensor, kernel: Tensor) -> Tensor:
    """The circular convolution sum_d kernel[d] x[p - d], a linear function of x, by Fourier transforms.

    Shapes: x (B, *S, H, W), kernel (H, W) with its middle at [0, 0] -> like x.
    """
    batch(x, "x")
    _check_image(kernel, "kernel", x)
    return _filtered(wide(x), torch.fft.fft2(wide(kernel))).to(x.dtype)


def random_projections(
    n_measurements: int,
    n_elements: int,
    *,
    generator: torch.Generator | None = None,
    dtype: torch.dtype | None = None,
    device: torch.device | str | None = None,
) -> Tensor:
    """A matrix for compressed sensing, (M, D), of independent N(0, 1/M): E |A x|^2 = |x|^2, with variance 2 |x|^4 / M.

    Source: Candes & Tao 2006.
    """
    n_measurements, n_elements = at_least(n_measurements, 1, "n_measurements"), at_least(n_elements, 1, "n_elements")
    normal = torch.randn(n_measurements, n_elements, generator=generator, dtype=dtype, device=device)
    return normal / math.sqrt(n_measurements)


def radon_matrix(size: int, angles: Tensor, *, n_bins: int | None = None) -> Tensor:
    """Tomography: the lengths of the pieces that every pixel of a square picture cuts out of every ray.

    The ray of angle a and bin b is the points p with p . (cos a, sin a) = b - (n_bins - 1) / 2: p is (column, row) from
    the middle of the picture, in pixels. At angle 0 a ray is a column, so A x are its sums.
    Shapes: angles (A,), in radians -> (A n_bins, size^2), angle by angle. n_bins: default `size`.
    Source: Siddon 1985.
    """
    size, n_bins = at_least(size, 1, "size"), at_least(size if n_bins is None else n_bins, 1, "n_bins")
    floating(angles, "angles")
    finite(angles, "angles")
    if angles.ndim != 1:
        raise ValueError(f"angles: expected shape (A,), got {tuple(angles.shape)}")
    wide_angles = angles.double()
    normal = torch.stack([wide_angles.cos(), wide_angles.sin()], 1)[:, None, None]  # (A, 1, 1, 2)
    along = torch.stack([-normal[..., 1], normal[..., 0]], -1)
    bins = torch.arange(n_bins, device=angles.device).double() - 0.5 * (n_bins - 1)
    low = torch.arange(size, device=angles.device).double() - 0.5 * size  # the pixels' lower borders
    low = torch.stack(torch.meshgrid(low, low, indexing="xy"), -1).reshape(-1, 2)  # (column, row) of each, row by row
    start = bins[:, None, None] * normal  # the foot of the perpendicular, (A, n_bins, 1, 2)
    enters, leaves = _between(start, along, low)
    return (leaves - enters).clamp(min=0).flatten(0, 1).to(angles.dtype)


def _between(start: Tensor, along: Tensor, low: Tensor) -> tuple[Tensor, Tensor]:
    """Where the line start + s along is inside the squares low + [0, 1)^2: from s to s. Last dimension: 2."""
    still = along.abs() < 1e-12  # it runs along the border
    step = torch.where(still, 1.0, along)
    first, second = (low - start) / step, (low + 1 - start) / step
    inside = (low <= start) & (start < low + 1)
    enters = torch.where(still, torch.where(inside, -math.inf, math.inf), torch.minimum(first, second))
    leaves = torch.where(still, torch.where(inside, math.inf, -math.inf), torch.maximum(first, second))
    return enters.amax(-1), leaves.amin(-1)


# Gaussian laws on a torus


class StationaryGaussian:
    """A Gaussian law of images whose covariance of two pixels depends on the displacement alone, on a torus.

    The coefficients of its orthonormal Fourier transform are independent: their means are the mean's, their variances
    the `spectrum`. Channels are independent of each other, with one spectrum. A `Density`: solvers and `exact_score`
    take it as they take a mixture, for x of shape (B, *S, H, W).

    Shapes: mean (*S, H, W); spectrum (H, W), positive, equal at k and -k. Values are computed in float64 and rounded
    once. Raises ValueError for other shapes and spectra.
    """

    def __init__(self, mean: Tensor, spectrum: Tensor) -> None:
        floating(mean, "mean")
        finite(mean, "mean")
        if mean.ndim < 2 or 0 in mean.shape:
            raise ValueError(f"mean: expected shape (..., H, W), got {tuple(mean.shape)}")
        _check_image(spectrum, "spectrum", mean)
        positive(spectrum, "spectrum")
        opposite = spectrum.flip(0, 1).roll((1, 1), (0, 1))  # at -k
        if not torch.allclose(spectrum, opposite, rtol=max(1e-4, 8 * torch.finfo(spectrum.dtype).eps), atol=0):
            raise ValueError("spectrum: expected equal values at k and -k, those of a real picture")
        self.dtype, self.device = mean.dtype, mean.device
        with torch.inference_mode(False):
            self._mean, self._spectrum = ordinary(mean).double(), ordinary(spectrum + opposite).double() / 2
            self._alpha, self._sigma = self._mean.new_tensor(1.0), self._mean.new_tensor(0.0)

    @classmethod
    def fit(cls, images: Tensor) -> "StationaryGaussian":
        """The law with the images' mean, and with their mean square of every Fourier coefficient less that.

        Shapes: (N, *S, H, W), N at least 2; channels share the spectrum.
        """
        some(images, "images")
        if images.ndim < 3 or len(images) < 2:
            raise ValueError(f"images: expected at least two of shape (..., H, W), got {tuple(images.shape)}")
        mean = images.double().mean(0)
        power = _fourier(images.double() - mean).abs().square().flatten(0, -3).mean(0)
        return cls(mean.to(images.dtype), power.to(images.dtype))

    @property
    def mean(self) -> Tensor:
        """E[x], (*S, H, W); (B, *S, H, W) where the law was diffused point by point."""
        return (self._at_points(self._alpha) * self._mean).to(self.dtype)

    @property
    def spectrum(self) -> Tensor:
        """The variances of the Fourier coefficients, (H, W); (B, 1, ..., H, W) where diffused point by point."""
        return self._variance.to(self.dtype)

    @property
    def covariance(self) -> Tensor:
        """Cov(x[p], x[p + d]) for every displacement d, (H, W): at [0, 0] the variance of a pixel."""
        return torch.fft.ifft2(self._variance).real.to(self.dtype)

    def log_prob(self, x: Tensor) -> Tensor:
        """log p(x) = sum over coefficients of log N(x^; m^, lambda). Shapes: (B, *S, H, W) -> (B,)."""
        self._check_points(x)
        off = _fourier(x.double() - self._at_points(self._alpha) * self._mean).abs().square()
        terms = off / self._variance + self._variance.log() + math.log(2 * math.pi)
        return (-0.5 * terms.expand_as(x).flatten(1).sum(1)).to(x.dtype)

    def score(self, x: Tensor) -> Tensor:
        """grad log p(x) = -C^{-1} (x - m). Shapes: (B, *S, H, W) -> the same."""
        self._check_points(x)
        off = x.double() - self._at_points(self._alpha) * self._mean
        return -_filtered(off, 1 / self._variance).to(x.dtype)

    def sample(self, n: int, *, generator: torch.Generator | None = None) -> Tensor:
        """n independent draws, m + C^(1/2) z, (n, *S, H, W)."""
        n = at_least(n, 0, "n")
        check_generator(generator, self._mean)
        if self._alpha.ndim:
            raise ValueError("sample: expected a law that was not diffused point by point")
        z = torch.randn(n, *self._mean.shape, generator=generator, dtype=self.dtype, device=self.device).double()
        return (self._alpha * self._mean + _filtered(z, self._variance.sqrt())).to(self.dtype)

    def diffuse(self, alpha: float | Tensor, sigma: float | Tensor) -> "StationaryGaussian":
        """The exact law of alpha X + sigma noise: mean alpha m, spectrum alpha^2 lambda + sigma^2.

        alpha, sigma: numbers or 0-d; or (B,), for use point by point.
        """
        alpha, sigma = (ordinary(reals(v, "alpha, sigma").to(self.device, torch.float64)) for v in (alpha, sigma))
        if alpha.ndim > 1 or sigma.ndim > 1 or not holds(sigma >= 0):
            raise ValueError("alpha, sigma: expected numbers or shape (B,), sigma >= 0")
        other = object.__new__(StationaryGaussian)
        other.__dict__.update(self.__dict__)
        with torch.inference_mode(False):
            other._alpha, other._sigma = torch.broadcast_tensors(
                alpha * self._alpha, torch.hypot(alpha * self._sigma, sigma)
            )
        return other

    @property
    def _variance(self) -> Tensor:
        """alpha^2 lambda + sigma^2, (H, W) or (B, 1, ..., H, W)."""
        return self._at_points(self._alpha) ** 2 * self._spectrum + self._at_points(self._sigma) ** 2

    def _at_points(self, value: Tensor) -> Tensor:
        """A number as it is, (B,) as (B, 1, ..., 1)."""
        return value.reshape(-1, *[1] * self._mean.ndim) if value.ndim else value

    def _check_points(self, x: Tensor) -> None:
        batch(x, "x")
        if x.shape[1:] != self._mean.shape:
            raise ValueError(f"x: expected shape (B, {', '.join(map(str, self._mean.shape))}), got {tuple(x.shape)}")
        if x.device != self.device:
            raise ValueError(f"x: expected device {self.device} like the mean, got {x.device}")
        expand(self._alpha, x, "alpha and sigma of diffuse")


def deblur(density: StationaryGaussian, kernel: Tensor, y: Tensor, noise_std: float) -> StationaryGaussian:
    """The law of x_0 given y = kernel * x_0 + noise_std n: again Gaussian and stationary. Its mean is Wiener's filter.

    With h the kernel's transform, lambda the spectrum: mean m^ + lambda h' (y^ - h m^) / (|h|^2 lambda + noise_std^2),
    h' conjugate; spectrum lambda noise_std^2 / (|h|^2 lambda + noise_std^2).
    Shapes: kernel (H, W), y like the mean (*S, H, W).
    """
    noise_std = positive_number(noise_std, "noise_std")
    like(y, density.mean, "y", "the law's mean")
    finite(y, "y")
    _check_image(kernel, "kernel", y)
    h, mean, prior = torch.fft.fft2(kernel.double()), density.mean.double(), density.spectrum.double()
    seen = h.abs().square() * prior + noise_std**2
    restored = mean + _filtered(y.double() - _filtered(mean, h), prior * h.conj() / seen)
    return StationaryGaussian(restored.to(y.dtype), (prior * noise_std**2 / seen).to(y.dtype))


def _fourier(x: Tensor) -> Tensor:
    """The orthonormal transform; MKL refuses one of nothing."""
    return torch.fft.fft2(x, norm="ortho") if len(x) else x


def _filtered(x: Tensor, transfer: Tensor) -> Tensor:
    """x with every Fourier coefficient multiplied by `transfer`, (H, W), that of a real kernel."""
    return torch.fft.ifft2(torch.fft.fft2(x) * transfer).real if len(x) else x


def _check_image(value: Tensor, name: str, x: Tensor) -> None:
    """Refuse what is not one picture (H, W) like the last dimensions of x."""
    floating(value, name)
    finite(value, name)
    if x.ndim < 2 or value.shape != x.shape[-2:]:
        raise ValueError(f"{name}: expected shape {tuple(x.shape[-2:])}, got {tuple(value.shape)}")
    if value.dtype != x.dtype or value.device != x.device:
        raise ValueError(f"{name}: expected {x.dtype} on {x.device}, got {value.dtype} on {value.device}")
