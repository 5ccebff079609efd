"""The ladder, the objective and annealed Langevin dynamics against closed forms on Gaussians and mixtures."""

import math

import pytest
import scipy.integrate
import scipy.stats
import torch

from coursework import ncsn as module
from coursework.distributions import GaussianMixture, exact_score
from coursework.ncsn import (
    annealed_langevin,
    geometric_noise_levels,
    langevin_step_size,
    level_overlap,
    n_levels,
    ncsn_loss,
    noise_conditional,
)
from coursework.sdes import VESDE, VPSDE
from tests.helpers.chains import linear_moments
from tests.helpers.laws import random_mixture

pytestmark = pytest.mark.usefixtures("one_thread")


def by_level(law):
    """The exact score(x, sigma) of law + sigma noise."""
    return lambda x, sigma: law.diffuse(torch.ones_like(sigma), sigma).score(x)


# -- the ladder --------------------------------------------------------------------------------------------------------


def test_levels_are_geometric():
    sigmas = geometric_noise_levels(50.0, 0.01, 232)
    assert sigmas.shape == (232,)
    assert sigmas.dtype == torch.float64
    assert (float(sigmas[0]), float(sigmas[-1])) == (50.0, 0.01)
    i = torch.arange(1, 233, dtype=torch.float64)
    torch.testing.assert_close(sigmas, 50.0 * (0.01 / 50.0) ** ((i - 1) / 231), rtol=1e-13, atol=0)


@pytest.mark.parametrize(("ratio", "n_dims"), [(1.038, 3072), (1.3, 50), (1.1, 300)])
def test_overlap_is_the_share_of_the_narrow_law_within_three_deviations_of_the_wide_one(ratio, n_dims):
    """By scipy on the two Gaussians that |x| is close to; and close to the share of the chi law itself."""
    wide = scipy.stats.norm(ratio * n_dims**0.5, ratio / 2**0.5)
    ends = [wide.mean() - 3 * wide.std(), wide.mean() + 3 * wide.std()]
    narrow = scipy.stats.norm(n_dims**0.5, 0.5**0.5)
    assert level_overlap(ratio, n_dims) == pytest.approx(narrow.cdf(ends[1]) - narrow.cdf(ends[0]), abs=1e-12)
    chi = scipy.stats.chi(n_dims)
    assert level_overlap(ratio, n_dims) == pytest.approx(chi.cdf(ends[1]) - chi.cdf(ends[0]), abs=0.03)


def test_number_of_levels_is_the_least_that_overlaps_enough():
    for sigma_max, n_dims in ((50.0, 3072), (42.0, 784), (10.0, 64), (8.0, 5)):
        n = n_levels(sigma_max, 0.01, n_dims)
        ratios = [(sigma_max / 0.01) ** (1 / (k - 1)) for k in (n, n - 1)]
        assert level_overlap(ratios[0], n_dims) >= 0.5 > level_overlap(ratios[1], n_dims)
    assert abs(n_levels(50.0, 0.01, 3072) - 232) < 15  # Song & Ermon 2020 use 232 for CIFAR-10
    assert n_levels(0.02, 0.01, 5) == 2
    assert n_levels(50.0, 0.01, 3072, overlap=0.9) > n_levels(50.0, 0.01, 3072)


def test_step_size_is_the_published_one():
    """Song & Ermon 2020 on CIFAR-10: 50 to 0.01, L = 232, T = 5, epsilon = 6.2e-6, which is half our step size."""
    assert langevin_step_size(geometric_noise_levels(50.0, 0.01, 232), 5) / 2 == pytest.approx(6.2e-6, rel=0.005)


def test_step_size_is_best_by_the_chain_itself(monkeypatch):
    """Variance after one level that starts with the level before's, by the exact moments of the sampler."""
    sigmas = geometric_noise_levels(3.0, 0.3, 12)
    ratio = float(sigmas[0] / sigmas[1])

    def after(step_size):
        def chain(x):
            return annealed_langevin(
                lambda x, s: -x / s**2, x, sigmas[-1:], step_size=step_size, n_steps_each=4, denoise=False
            )

        return linear_moments(chain, 0.0, (ratio * 0.3) ** 2, 4, monkeypatch, module)[1]

    best = langevin_step_size(sigmas, 4)
    assert after(best) < min(after(1.02 * best), after(0.98 * best))


# -- the objective -----------------------------------------------------------------------------------------------------


def test_loss_of_silence_is_half_the_dimension(generator):
    """sigma^2/2 |noise / sigma|^2: every level counts the same, whatever its sigma."""
    values = [
        float(ncsn_loss(lambda x, s: 0 * x, torch.zeros(4000, 3).double(), sigmas, generator=generator))
        for sigmas in (torch.tensor([20.0, 0.01]), torch.tensor([0.5]).double(), geometric_noise_levels(5, 0.1, 7))
    ]
    for value in values:
        assert abs(value - 1.5) < 4 * math.sqrt(1.5 / 4000)


def test_loss_of_the_exact_score_is_its_floor(generator):
    """1/2 (D - sigma^2 E|s|^2), the mean over levels, E|s|^2 by quadrature."""
    law = GaussianMixture(torch.tensor([[-2.0], [1.0]]).double(), torch.tensor([0.2, 0.5]).double())
    sigmas = geometric_noise_levels(4.0, 0.2, 4)

    def floor(sigma):
        noisy = law.diffuse(1.0, sigma)

        def integrand(x):
            point = torch.tensor([[x]]).double()
            return float(noisy.log_prob(point).exp() * noisy.score(point)[0, 0] ** 2)

        return 0.5 * (1 - float(sigma) ** 2 * scipy.integrate.quad(integrand, -40, 40, limit=200, points=[-2, 1])[0])

    expected = sum(floor(s) for s in sigmas) / 4
    x = law.sample(100_000, generator=generator)
    values = torch.stack([ncsn_loss(by_level(law), part, sigmas, generator=generator) for part in x.split(1000)])
    assert abs(float(values.mean()) - expected) < 4 * float(values.std()) / 10


def test_gradient_points_to_the_exact_score(generator):
    """Around s + c b the mean gradient in c is c E[sigma^2 b^2], zero at the exact score."""
    law = random_mixture("full", n_dims=3)
    sigmas, x = geometric_noise_levels(2.0, 0.5, 3), law.sample(200_000, generator=generator)
    expected = float((sigmas**2).mean()) * 3 * 0.7**2
    for c in (0.0, 0.4):
        slopes = []
        for part in x.split(4000):
            offset = torch.tensor(c, dtype=torch.float64, requires_grad=True)
            loss = ncsn_loss(lambda y, s, o=offset: by_level(law)(y, s) + 0.7 * o, part, sigmas, generator=generator)
            slopes.append(torch.autograd.grad(loss, offset)[0])
        slopes = torch.stack(slopes)
        assert abs(float(slopes.mean()) - c * expected) < 4 * float(slopes.std()) / 50**0.5


def test_score_gets_the_level_of_each_point(generator):
    seen, sigmas = [], torch.tensor([3.0, 1.0, 0.1])

    def score(x, sigma):
        seen.append((x.clone(), sigma))
        return -x / sigma[:, None] ** 2

    ncsn_loss(score, torch.zeros(6000, 2), sigmas, generator=generator)
    x, sigma = seen[0]
    for level in sigmas:
        chosen = x[sigma == level]
        assert abs(len(chosen) - 2000) < 4 * math.sqrt(6000 * 2 / 9)
        assert float(chosen.std()) == pytest.approx(float(level), rel=4 / math.sqrt(4 * len(chosen)))


# -- annealed Langevin dynamics ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("denoise", [True, False])
@pytest.mark.parametrize("temperature", [1.0, 0.4])
def test_exact_moments_on_a_gaussian(denoise, temperature, monkeypatch):
    """Data N(m, v): at level i  V <- (1 - a_i / (2 (v + s_i^2)))^2 V + a_i T, a_i = step_size s_i^2 / s_L^2."""
    m, v, step_size, n_each = 0.7, 0.3, 0.02, 5
    sigmas = geometric_noise_levels(3.0, 0.4, 4)
    law = GaussianMixture(torch.tensor([[m]], dtype=torch.float64), torch.tensor([v], dtype=torch.float64))

    def chain(x):
        return annealed_langevin(
            by_level(law), x, sigmas, step_size=step_size, n_steps_each=n_each, temperature=temperature, denoise=denoise
        )

    mean, variance = -4.0, 2.5
    for s in (3.0 * (0.4 / 3.0) ** (i / 3) for i in range(4)):
        a = step_size * s**2 / 0.4**2
        for _ in range(n_each):
            rate = 1 - a / (2 * (v + s**2))
            mean, variance = m + rate * (mean - m), rate**2 * variance + a * temperature
    if denoise:
        shrink = v / (v + 0.4**2)
        mean, variance = m + shrink * (mean - m), shrink**2 * variance
    got = linear_moments(chain, -4.0, 2.5, 4 * n_each, monkeypatch, module)
    assert got == pytest.approx((mean, variance), rel=1e-10)


def test_two_modes_get_their_weights_where_one_level_fails(generator):
    """Weights 1/4 and 3/4, far apart: right with the ladder, left as started with the narrow level alone."""
    law = GaussianMixture(
        torch.tensor([[-5.0, 0.0], [5.0, 0.0]]).double(), torch.tensor([0.3, 0.3]).double(), torch.tensor([0.25, 0.75])
    )
    sigmas, n = geometric_noise_levels(10.0, 0.1, 25), 4000
    start = 10 * torch.randn(n, 2, generator=generator, dtype=torch.float64)

    def share(levels):
        x = annealed_langevin(
            by_level(law), start, levels, step_size=0.1 * 0.1**2, n_steps_each=60, generator=generator
        )
        return float((x[:, 0] > 0).double().mean())

    assert abs(share(sigmas) - 0.75) < 0.03  # slow mixing of the middle levels leaves about 0.01
    assert abs(share(sigmas[-1:]) - 0.5) < 4 * math.sqrt(0.25 / n)


def test_on_step_sees_each_level_and_may_change_the_state(generator):
    seen, sigmas = [], torch.tensor([2.0, 1.0, 0.5]).double()

    def hold(i, sigma, x):
        seen.append((i, float(sigma)))
        return torch.cat([torch.full_like(x[:, :1], 7.0), x[:, 1:]], 1)

    out = annealed_langevin(
        lambda x, s: -x, torch.zeros(4, 3).double(), sigmas, step_size=0.01, n_steps_each=2, denoise=False,
        generator=generator, on_step=hold,
    )  # fmt: skip
    assert seen == list(enumerate([2.0, 2.0, 1.0, 1.0, 0.5, 0.5]))
    assert bool((out[:, 0] == 7).all())
    assert not bool((out[:, 1] == 7).any())


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_dtype_levels_and_gradients(dtype, generator):
    seen = []

    def score(x, sigma):
        seen.append((sigma.dtype, sigma.ndim, torch.is_grad_enabled()))
        return -x

    x = torch.randn(3, 1, 4, 4, dtype=dtype, generator=generator)
    out = annealed_langevin(score, x, torch.tensor([1.0, 0.5]), step_size=0.1, n_steps_each=2, generator=generator)
    assert (out.shape, out.dtype) == (x.shape, dtype)
    assert set(seen) == {(dtype, 0, False)}
    assert annealed_langevin(score, x[:0], torch.tensor([1.0, 0.5]), step_size=0.1, n_steps_each=2).shape == (
        0,
        1,
        4,
        4,
    )


def test_score_in_time_as_a_score_in_sigma():
    sde, law = VESDE(0.02, 30.0), random_mixture("full", n_dims=3)
    x, t = torch.randn(5, 3).double(), torch.linspace(0.1, 0.9, 5).double()
    timed = exact_score(law, sde)
    torch.testing.assert_close(noise_conditional(timed, sde)(x, sde.sigma(t)), timed(x, t), rtol=1e-9, atol=1e-9)
    with pytest.raises(TypeError, match=r"^sde: expected a VESDE, got VPSDE"):
        noise_conditional(timed, VPSDE())


# -- refusals ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("call", "match"),
    [
        (lambda: geometric_noise_levels(1.0, 2.0, 5), r"^sigma_max, sigma_min: expected sigma_max > sigma_min > 0"),
        (lambda: geometric_noise_levels(1.0, 0.0, 5), r"^sigma_max, sigma_min"),
        (lambda: geometric_noise_levels(1.0, 0.1, 1), r"^n: expected at least 2"),
        (lambda: level_overlap(1.0, 5), r"^ratio: expected a finite value > 1"),
        (lambda: n_levels(2.0, 1.0, 5, overlap=1.0), r"^overlap: expected a number between 0 and 1"),
        (lambda: n_levels(2.0, 1.0, 4), r"^n_dims: expected at least 5"),
        (lambda: langevin_step_size(torch.tensor([3.0, 1.0, 0.5]), 5), r"^sigmas: .* one ratio"),
        (lambda: langevin_step_size(torch.tensor([3.0]), 5), r"^sigmas: .* one ratio"),
        (lambda: ncsn_loss(lambda x, s: x, torch.zeros(2, 3), -torch.ones(2)), r"^sigmas: expected values > 0"),
        (lambda: ncsn_loss(lambda x, s: x, torch.zeros(2, 3), torch.ones(1, 1)), r"^sigmas: expected shape \(L,\)"),
        (lambda: ncsn_loss(lambda x, s: x[:, :1], torch.zeros(2, 3), torch.ones(1)), r"^score's value: expected shape"),
        (lambda: ald(sigmas=torch.tensor([1.0, 2.0])), r"^sigmas: expected strictly decreasing"),
        (lambda: ald(step_size=0.0), r"^step_size: expected values > 0"),
        (lambda: ald(n_steps_each=0), r"^n_steps_each: expected at least 1"),
        (lambda: ald(temperature=-1.0), r"^temperature: expected values > 0"),
        (lambda: ald(x=torch.full((2, 3), math.nan)), r"^x: has NaN"),
        (lambda: ald(score=lambda x, s: x[:1]), r"^score's value: expected shape"),
    ],
)  # fmt: skip
def test_refusals(call, match):
    with pytest.raises(ValueError, match=match):
        call()


def ald(score=lambda x, s: -x, x=None, sigmas=None, step_size=0.1, n_steps_each=1, **options):
    x = torch.zeros(2, 3) if x is None else x
    sigmas = torch.tensor([2.0, 1.0]) if sigmas is None else sigmas
    return annealed_langevin(score, x, sigmas, step_size=step_size, n_steps_each=n_steps_each, **options)
