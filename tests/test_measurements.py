"""Measurements against scipy and brute force; deblurring by Fourier transforms against the matrices that it avoids."""

import math

import numpy as np
import pytest
import scipy.ndimage
import torch

from coursework.distributions import GaussianMixture, exact_score
from coursework.inverse_problems import condition, posterior_score
from coursework.measurements import (
    StationaryGaussian,
    convolve,
    deblur,
    gaussian_kernel,
    radon_matrix,
    random_projections,
)
from coursework.probability_flow import heun
from coursework.sdes import VESDE, VPSDE, SubVPSDE, log_snr_times

pytestmark = pytest.mark.usefixtures("one_thread")

SDES = {"vp": VPSDE(), "ve": VESDE(0.01, 20.0), "sub-vp": SubVPSDE()}
H, W = 4, 5


def texture(*channels, height=H, width=W, seed=0):
    """A law of pictures with more variance at low frequencies, and a mean of its own for every pixel."""
    stream = torch.Generator().manual_seed(seed)
    frequency = torch.fft.fftfreq(height)[:, None] ** 2 + 2 * torch.fft.fftfreq(width) ** 2
    spectrum = 0.1 + 2 / (1 + 30 * frequency.double()) ** 2
    mean = 0.5 * torch.randn(*channels, height, width, generator=stream, dtype=torch.float64)
    return StationaryGaussian(mean, spectrum)


def matrix_of(function, *shape):
    """A linear function of pictures as a matrix."""
    basis = torch.eye(math.prod(shape)).double().reshape(-1, *shape)
    return function(basis).flatten(1).T


def as_mixture(law):
    """A stationary law of one channel by its covariance matrix: that of pixels p and q is a function of p - q."""
    rows = torch.arange(H * W)
    place = torch.stack([rows // W, rows % W], 1)
    apart = place[:, None] - place
    covariance = law.covariance[apart[..., 0] % H, apart[..., 1] % W]
    return GaussianMixture(law.mean.reshape(1, -1), covariance[None])


# -- blur --------------------------------------------------------------------------------------------------------------


def test_a_circular_convolution_is_scipys(generator):
    x, kernel = (torch.randn(*s, generator=generator, dtype=torch.float64) for s in ((3, 2, 6, 7), (6, 7)))
    expected = np.zeros((3, 2, 6, 7))
    for i in range(6):
        for j in range(7):
            expected += kernel[i, j].item() * np.roll(x.numpy(), (i, j), (2, 3))
    torch.testing.assert_close(convolve(x, kernel), torch.from_numpy(expected))


def test_a_gaussian_kernel_blurs_as_scipys_filter_does_that_goes_round():
    x = torch.arange(48.0).double().reshape(1, 6, 8).sin()
    for std in (0.7, 2.5):
        blurred = convolve(x, gaussian_kernel(6, 8, std, dtype=torch.float64))[0]
        other = scipy.ndimage.gaussian_filter(x[0].numpy(), std, mode="wrap", truncate=9.5)
        torch.testing.assert_close(blurred, torch.from_numpy(other), rtol=1e-9, atol=1e-9)


# -- projections and rays ----------------------------------------------------------------------------------------------


def test_random_projections_keep_lengths_in_the_mean(generator):
    """|A x|^2 / |x|^2 is chi-square with M degrees of freedom, over M."""
    x, n = torch.tensor([1.0, -2.0, 0.5]).double(), 4000
    projections = [random_projections(7, 3, generator=generator, dtype=torch.float64) for _ in range(n)]
    squares = torch.stack([(a @ x).square().sum() for a in projections]) / x.square().sum()
    assert abs(float(squares.mean()) - 1) < 4 * (2 / 7 / n) ** 0.5
    assert float(squares.var()) == pytest.approx(2 / 7, rel=0.15)
    assert projections[0].shape == (7, 3)


def test_rays_measure_lengths_as_many_small_steps_do():
    """3000 steps on each ray of the smaller circle, and the pixel that each is in."""
    size, angles, n_bins = 5, torch.tensor([0.0, 0.3, 1.1, math.pi / 2, 2.5]).double(), 7
    matrix = radon_matrix(size, angles, n_bins=n_bins).reshape(5, n_bins, size, size)
    s = (torch.arange(3000).double() + 0.5) / 3000 * 12 - 6
    for a, angle in enumerate(angles):
        for b in range(n_bins):
            column = (b - 3) * torch.cos(angle) - s * torch.sin(angle) + size / 2
            row = (b - 3) * torch.sin(angle) + s * torch.cos(angle) + size / 2
            inside = (column >= 0) & (column < size) & (row >= 0) & (row < size)
            lengths = torch.zeros(size, size).double()
            lengths.index_put_((row[inside].long(), column[inside].long()), torch.tensor(12 / 3000.0).double(), True)
            torch.testing.assert_close(matrix[a, b], lengths, rtol=0, atol=0.013)


def test_rays_along_the_axes_are_sums_and_all_rays_of_one_angle_see_the_mass(generator):
    x = torch.rand(6, 6, generator=generator).double()
    seen = (radon_matrix(6, torch.tensor([0.0, math.pi / 2]).double()) @ x.flatten()).reshape(2, 6)
    torch.testing.assert_close(seen, torch.stack([x.sum(0), x.sum(1)]))
    edge = radon_matrix(6, torch.zeros(1).double(), n_bins=5) @ x.flatten()  # rays on the borders of pixels
    torch.testing.assert_close(edge, x.sum(0)[1:])
    disc = torch.zeros(32, 32).double()
    place = torch.arange(32).double() - 15.5
    disc[(place[:, None] - 4) ** 2 + place**2 < 49] = 1
    angles = torch.linspace(0, 3, 9).double()
    masses = (radon_matrix(32, angles) @ disc.flatten()).reshape(9, 32).sum(1)
    torch.testing.assert_close(masses, disc.sum().expand(9), rtol=0.02, atol=0)


# -- stationary laws ---------------------------------------------------------------------------------------------------


def test_a_stationary_law_is_the_gaussian_with_its_covariance_matrix(generator):
    law, x = texture(), torch.randn(6, H, W, generator=generator, dtype=torch.float64)
    alpha, sigma = torch.rand(6, generator=generator).double() + 0.2, torch.rand(6, generator=generator).double()
    for mine, full in ((law, as_mixture(law)), (law.diffuse(alpha, sigma), as_mixture(law).diffuse(alpha, sigma))):
        torch.testing.assert_close(mine.log_prob(x), full.log_prob(x.flatten(1)), rtol=1e-9, atol=1e-9)
        torch.testing.assert_close(mine.score(x).flatten(1), full.score(x.flatten(1)), rtol=1e-8, atol=1e-8)
    noisy, again = law.diffuse(0.8, 0.5).diffuse(0.5, 0.3), as_mixture(law).diffuse(0.4, math.hypot(0.25, 0.3))
    torch.testing.assert_close(as_mixture(noisy).covariance, again.covariance)
    torch.testing.assert_close(noisy.mean.flatten(), again.mean)


def test_samples_have_the_laws_mean_and_spectrum_and_the_fit_finds_them(generator):
    law, n = texture(2), 6000
    x = law.sample(n, generator=generator)
    error = (law.covariance[0, 0] / n) ** 0.5
    assert float((x.mean(0) - law.mean).abs().max()) < 4.5 * error
    fitted = StationaryGaussian.fit(x)
    torch.testing.assert_close(fitted.mean, x.mean(0))
    # a complex coefficient and its conjugate, or a real one, in two channels: variance at most that of 2 n squares
    assert float((fitted.spectrum / law.spectrum - 1).abs().max()) < 4.5 / n**0.5
    corner = ((x - x.mean(0))[..., 0, 0] * (x - x.mean(0))[..., 1, 2]).mean()
    assert float(corner) == pytest.approx(float(law.covariance[1, 2]), abs=4.5 * float(law.covariance[0, 0]) / n**0.5)


# -- deblurring --------------------------------------------------------------------------------------------------------


def blurred(law, noise_std=0.3, std=0.8, seed=4):
    """A kernel that is not symmetric, and a noisy measurement of a sample."""
    stream = torch.Generator().manual_seed(seed)
    kernel = gaussian_kernel(*law.mean.shape[-2:], std, dtype=torch.float64)
    kernel = (kernel + 0.3 * kernel.roll((1, 2), (0, 1))) / 1.3
    x = convolve(law.sample(1, generator=stream), kernel)[0]
    return kernel, x + noise_std * torch.randn(x.shape, generator=stream, dtype=torch.float64), noise_std


def test_the_posterior_in_fourier_space_is_that_of_the_matrices():
    law = texture()
    kernel, y, noise_std = blurred(law)
    operator = matrix_of(lambda x: convolve(x, kernel), H, W)
    exact = condition(as_mixture(law), operator, y.flatten(), noise_std)
    posterior = as_mixture(deblur(law, kernel, y, noise_std))
    torch.testing.assert_close(posterior.mean, exact.mean, rtol=1e-8, atol=1e-8)
    torch.testing.assert_close(posterior.covariance, exact.covariance, rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize("name", SDES)
def test_the_score_of_the_noisy_posterior_is_the_exact_one(name, generator):
    sde, law = SDES[name], texture()
    kernel, y, noise_std = blurred(law)
    x, t = torch.randn(5, H, W, generator=generator, dtype=torch.float64), torch.rand(5, generator=generator).double()
    got = exact_score(deblur(law, kernel, y, noise_std), sde)(x, t)
    operator = matrix_of(lambda x: convolve(x, kernel), H, W)
    exact = posterior_score(None, sde, operator, y.flatten(), noise_std, method="exact", density=as_mixture(law))
    torch.testing.assert_close(got.flatten(1), exact(x.flatten(1), t), rtol=1e-6, atol=1e-6)


def test_the_pseudo_inverse_is_exact_for_white_pictures(generator):
    """Also with a blur as the operator, a function of pictures."""
    sde, white = VPSDE(), StationaryGaussian(torch.zeros(1, H, W).double(), torch.ones(H, W).double())
    kernel, y, noise_std = blurred(white)
    x, t = torch.randn(3, 1, H, W, generator=generator, dtype=torch.float64), torch.tensor(0.4).double()
    got = posterior_score(exact_score(white, sde), sde, lambda x: convolve(x, kernel), y.flatten(), noise_std)(x, t)
    exact = exact_score(deblur(white, kernel, y, noise_std), sde)(x, t)
    torch.testing.assert_close(got, exact, rtol=1e-6, atol=1e-6)


def test_deblurring_by_sampling_has_the_closed_posterior():
    """Mean and Fourier variances of 1500 samples of pictures of 16 x 16, by the flow from the prior."""
    sde, law, n = VPSDE(), texture(1, height=16, width=16), 1500
    kernel, y, noise_std = blurred(law, std=1.5)
    posterior = deblur(law, kernel, y, noise_std)
    start = sde.prior_sample((n, 1, 16, 16), generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    x = heun(exact_score(posterior, sde), sde, start, log_snr_times(sde, 40))
    target = posterior.diffuse(sde.alpha(sde.t_min), sde.sigma(sde.t_min))
    off = (x - target.mean).mean(0) / (target.covariance[0, 0] / n) ** 0.5
    assert float(off.abs().max()) < 4.5
    ratio = StationaryGaussian.fit(x).spectrum / target.spectrum
    assert float((ratio - 1).abs().max()) < 4.5 * (2 / n) ** 0.5 + 0.01
    assert float(target.covariance[0, 0]) < 0.8 * float(law.covariance[0, 0])


def test_no_pictures_are_no_pictures():
    law, nothing = texture(), torch.zeros(0, H, W).double()
    assert law.log_prob(nothing).shape == (0,)
    assert law.score(nothing).shape == convolve(nothing, torch.ones(H, W).double()).shape == (0, H, W)
    assert law.sample(0).shape == (0, H, W)


# -- refusals ----------------------------------------------------------------------------------------------------------

X, K = torch.zeros(2, 1, H, W), torch.ones(H, W)


@pytest.mark.parametrize(
    ("call", "match"),
    [
        (lambda: gaussian_kernel(4, 5, 0.0), r"^std: expected values > 0"),
        (lambda: gaussian_kernel(0, 5, 1.0), r"^height: expected at least 1"),
        (lambda: convolve(X, K[:2]), r"^kernel: expected shape \(4, 5\), got \(2, 5\)"),
        (lambda: convolve(X, K.double()), r"^kernel: expected torch.float32 on cpu, got torch.float64 on cpu"),
        (lambda: random_projections(0, 3), r"^n_measurements: expected at least 1"),
        (lambda: radon_matrix(4, torch.tensor(0.5)), r"^angles: expected shape \(A,\), got \(\)"),
        (lambda: radon_matrix(4, torch.tensor([math.nan])), r"^angles: has NaN"),
        (lambda: StationaryGaussian(X[0], K * 0), r"^spectrum: expected values > 0"),
        (lambda: StationaryGaussian(X[0], K.cumsum(0)), r"^spectrum: expected equal values at k and -k"),
        (lambda: StationaryGaussian(X[0, 0, 0], K), r"^mean: expected shape \(..., H, W\)"),
        (lambda: StationaryGaussian(X[0], K).score(X[:, :, :2]), r"^x: expected shape \(B, 1, 4, 5\), got"),
        (lambda: StationaryGaussian(X[0], K).diffuse(1.0, -1.0), r"^alpha, sigma: expected numbers"),
        (lambda: StationaryGaussian(X[0], K).diffuse(torch.ones(3), 1.0).sample(2), r"^sample: expected a law"),
        (lambda: StationaryGaussian.fit(X[:1]), r"^images: expected at least two"),
        (lambda: deblur(StationaryGaussian(X[0], K), K, X, 0.1), r"^y: expected shape \(1, 4, 5\) like the law's mean"),
        (lambda: deblur(StationaryGaussian(X[0], K), K, X[0], 0.0), r"^noise_std: expected values > 0"),
    ],
)  # fmt: skip
def test_refusals(call, match):
    with pytest.raises((ValueError, TypeError), match=match):
        call()
