"""Log-likelihoods against exact densities of mixtures under three SDEs; bits per dimension against sums over levels."""

import math

import pytest
import scipy.integrate
import torch
from torch import nn
from torch.distributions import MultivariateNormal

from coursework.distributions import GaussianMixture, exact_score
from coursework.likelihood import bits_per_dim, dequantize, log_likelihood
from coursework.nn import TimeMLP
from coursework.predictions import ScoreModel
from coursework.score_matching import hutchinson_trace
from coursework.sdes import VESDE, VPSDE, SubVPSDE
from tests.helpers.laws import Cosine, random_mixture

pytestmark = pytest.mark.usefixtures("one_thread")

SDES = {"vp": VPSDE(), "ve": VESDE(), "sub-vp": SubVPSDE()}
each_sde = pytest.mark.parametrize("name", SDES)


def at(law, sde, t):
    """The exact law at t."""
    return law.diffuse(sde.alpha(t), sde.sigma(t))


def without_divergence(score):
    """The same score as a bare function: its divergence has to be computed."""
    return lambda x, t: score(x, t)


@each_sde
@pytest.mark.parametrize("n_dims", [2, 8])
@pytest.mark.parametrize("kind", ["full", "diagonal", "isotropic"])
def test_exact_on_mixtures_to_two_thousandths_of_a_nat(name, n_dims, kind, generator):
    sde, law = SDES[name], random_mixture(kind, n_components=5, n_dims=n_dims)
    x = at(law, sde, sde.t_min).sample(1000, generator=generator)
    score = exact_score(law, sde)
    got = log_likelihood(score, sde, x, prior_log_prob=at(law, sde, 1.0).log_prob)
    assert float((got - at(law, sde, sde.t_min).log_prob(x)).abs().max()) < 2e-3
    computed = log_likelihood(without_divergence(score), sde, x[:50], prior_log_prob=at(law, sde, 1.0).log_prob)
    torch.testing.assert_close(computed, got[:50], rtol=0, atol=1e-3)


@each_sde
def test_tighter_tolerances_are_more_exact(name, generator):
    sde, law = SDES[name], random_mixture("full", n_dims=3)
    x = at(law, sde, sde.t_min).sample(200, generator=generator)
    errors = []
    for tolerance in (1e-3, 1e-8):
        got = log_likelihood(
            exact_score(law, sde), sde, x, rtol=tolerance, atol=tolerance, prior_log_prob=at(law, sde, 1.0).log_prob
        )
        errors.append(float((got - at(law, sde, sde.t_min).log_prob(x)).abs().max()))
    assert errors[1] < 1e-6
    assert errors[0] > 20 * errors[1]


@each_sde
def test_the_gap_of_the_prior_is_all_that_remains(name, generator):
    """With the SDE's own prior: log prior(x_T) less the exact law's log-density at x_T, found by the flow itself."""
    sde, law = SDES[name], random_mixture("full", n_dims=8)
    x = at(law, sde, sde.t_min).sample(100, generator=generator)
    ends = []
    score = exact_score(law, sde)
    standard = log_likelihood(score, sde, x)
    exact = log_likelihood(
        score, sde, x, prior_log_prob=lambda end: ends.append(end) or at(law, sde, 1.0).log_prob(end)
    )
    gap = sde.prior_log_prob(ends[0]) - at(law, sde, 1.0).log_prob(ends[0])
    torch.testing.assert_close(standard - exact, gap, rtol=0, atol=1e-9)
    assert float(gap.abs().max()) > 1e-3


@each_sde
def test_total_mass_is_one_in_one_dimension(name):
    sde, law = SDES[name], GaussianMixture(torch.tensor([[-2.0], [1.0]]).double(), torch.tensor([0.1, 0.4]).double())
    x = torch.linspace(-6, 6, 2001, dtype=torch.float64)[:, None]
    density = log_likelihood(exact_score(law, sde), sde, x).exp()
    assert scipy.integrate.simpson(density.numpy(), x=x[:, 0].numpy()) == pytest.approx(1.0, abs=2e-3)


@each_sde
@pytest.mark.parametrize("n_dims", [64])
def test_gaussian_in_many_dimensions(name, n_dims, generator):
    sde = SDES[name]
    factor = torch.randn(n_dims, n_dims, generator=generator, dtype=torch.float64) / 8
    covariance = factor @ factor.T + 0.05 * torch.eye(n_dims, dtype=torch.float64)
    law = GaussianMixture(torch.ones(1, n_dims).double(), covariance[None])
    x = at(law, sde, sde.t_min).sample(20, generator=generator)
    for score in (exact_score(law, sde), without_divergence(exact_score(law, sde))):
        got = log_likelihood(score, sde, x, prior_log_prob=at(law, sde, 1.0).log_prob)
        assert float((got - at(law, sde, sde.t_min).log_prob(x)).abs().max()) < 2e-3


@pytest.mark.parametrize("divergence", ["rademacher", "gaussian"])
@pytest.mark.parametrize("n_probes", [1, 4])
def test_hutchinsons_estimate_is_unbiased_and_improves_with_probes(divergence, n_probes, generator):
    sde, law = VPSDE(), random_mixture("full", n_dims=4)
    x = at(law, sde, sde.t_min).sample(1, generator=generator).expand(3000, -1)
    options = {"rtol": 1e-4, "atol": 1e-4, "prior_log_prob": at(law, sde, 1.0).log_prob}
    values = log_likelihood(
        exact_score(law, sde), sde, x, divergence=divergence, n_probes=n_probes, generator=generator, **options
    )
    exact = float(at(law, sde, sde.t_min).log_prob(x[:1])[0])
    deviation = float(values.std())
    assert abs(float(values.mean()) - exact) < 4 * deviation / math.sqrt(3000) + 2e-3
    one = log_likelihood(exact_score(law, sde), sde, x, divergence=divergence, generator=generator, **options)
    assert deviation / float(one.std()) == pytest.approx(n_probes**-0.5, rel=0.12)


def test_the_estimate_keeps_one_probe_along_a_trajectory(generator):
    """The vectors that the score's Jacobian is multiplied with: the same at every call."""
    seen = []

    class Watched(torch.autograd.Function):
        generate_vmap_rule = True

        @staticmethod
        def forward(x):
            return -x

        @staticmethod
        def setup_context(ctx, inputs, output):
            pass

        @staticmethod
        def backward(ctx, v):
            seen.append(v)
            return -v

    x = torch.randn(3, 2, generator=generator, dtype=torch.float64)
    log_likelihood(lambda x, t: Watched.apply(x), VPSDE(), x, divergence="gaussian", generator=generator)
    log_likelihood(lambda x, t: Watched.apply(x), VPSDE(), x, divergence="gaussian", generator=generator)
    assert len(seen) > 20


class Wave(nn.Module):
    """A smooth noise prediction on images whose Jacobian is full."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(1, 1, 3, padding=1)
        nn.init.normal_(self.conv.weight, std=0.4, generator=torch.Generator().manual_seed(2))

    def forward(self, x, t):
        return x + torch.sin(self.conv(x)) * torch.sin(2 * t)


def test_images_and_networks(generator):
    """A network on images: exact and estimated divergence agree, float32 and float64 too."""
    sde, network, options = VPSDE(), Wave(), {"rtol": 1e-4, "atol": 1e-4}
    x = torch.randn(3, 1, 4, 4, generator=generator)
    single = log_likelihood(ScoreModel(network, sde), sde, x, **options)
    model = ScoreModel(network.double(), sde)
    exact = log_likelihood(model, sde, x.double(), **options)
    assert (single.shape, single.dtype, exact.dtype) == ((3,), torch.float32, torch.float64)
    torch.testing.assert_close(single.double(), exact, rtol=0, atol=2e-2)
    many = x.double()[:1].expand(400, -1, -1, -1)
    values = log_likelihood(model, sde, many, divergence="rademacher", generator=generator, **options)
    assert abs(float(values.mean() - exact[0])) < 4 * float(values.std()) / 20 + 5e-3
    assert all(p.grad is None for p in network.parameters())


def test_laplacian_of_a_mixture_is_the_trace_of_its_hessian(generator):
    for kind in ("full", "diagonal", "isotropic"):
        law = random_mixture(kind, n_dims=3).diffuse(0.8, 0.3)
        x = torch.randn(7, 3, generator=generator, dtype=torch.float64)
        hessian = torch.func.vmap(torch.func.jacrev(lambda x, law=law: law.score(x[None])[0]))(x)
        expected = hessian.diagonal(dim1=1, dim2=2).sum(1)
        torch.testing.assert_close(law.laplacian(x), expected, rtol=1e-8, atol=1e-8)
    sde, t = VPSDE(), torch.rand(7, generator=generator, dtype=torch.float64)
    score = exact_score(law, sde)
    estimate = hutchinson_trace(lambda x: score(x, t), x, n_probes=4000, generator=generator).detach()
    assert float((score.divergence(x, t) - estimate).abs().max()) < 0.2 * float(estimate.abs().max())


# -- bits per dimension ------------------------------------------------------------------------------------------------


def test_bits_per_dim_is_the_sum_over_levels_in_one_dimension():
    """Levels k of width 2/8: -sum_k P_k log2 P_k for a density that is constant on each level."""
    p = torch.tensor([0.05, 0.1, 0.2, 0.3, 0.15, 0.1, 0.06, 0.04]).double()
    density = p / (2 / 8)
    bits = bits_per_dim(density.log(), 1, n_levels=8)
    assert float((p * bits).sum()) == pytest.approx(float(-(p * p.log2()).sum()), rel=1e-12)


def test_bits_per_dim_of_a_smooth_law_bounds_the_levels_from_above():
    """Numerically: the mean over dequantized data is at least the cross entropy of the levels, and near."""
    law = torch.distributions.Normal(torch.tensor(0.1).double(), torch.tensor(0.3).double())
    edges = torch.linspace(-1, 1, 257, dtype=torch.float64)
    p = law.cdf(edges).diff()
    p = p / p.sum()
    cell = edges[:-1, None] + (2 / 256) * (torch.arange(50, dtype=torch.float64) + 0.5) / 50
    bits = bits_per_dim(law.log_prob(cell).flatten(), 1).reshape(256, 50).mean(1)
    cross = float(-(p * (law.cdf(edges[1:]) - law.cdf(edges[:-1])).log2()).sum())
    assert cross <= float((p * bits).sum()) <= cross + 1e-3


def test_uniform_noise_has_eight_bits_on_both_scales():
    for low, high in ((-1.0, 1.0), (0.0, 1.0)):
        log_prob = torch.full((3,), 5 * math.log(1 / (high - low)))
        torch.testing.assert_close(bits_per_dim(log_prob, 5, low=low, high=high), torch.full((3,), 8.0))


def test_dequantize_fills_each_level_evenly(generator):
    images = torch.tensor([0, 17, 255], dtype=torch.uint8).repeat(30_000, 1)
    x = dequantize(images, generator=generator)
    assert x.dtype == torch.float32
    levels = ((x.double() + 1) * 128).floor()
    assert torch.equal(levels, images.double())
    inside = (x.double() + 1) * 128 - levels
    assert float((inside.mean(0) - 0.5).abs().max()) < 4 / math.sqrt(12 * 30_000)
    assert torch.allclose(inside.var(0), torch.tensor(1 / 12).double(), rtol=0.04)
    assert float(x.max()) < 1


@pytest.mark.parametrize(
    ("call", "error", "match"),
    [
        (
            lambda: run(divergence="trace"),
            ValueError,
            r"^divergence: expected one of 'exact', 'rademacher', 'gaussian'",
        ),
        (lambda: run(n_probes=0), ValueError, r"^n_probes: expected at least 1"),
        (lambda: run(rtol=0.0), ValueError, r"^rtol: expected values > 0"),
        (lambda: run(t_min=1.0), ValueError, r"^t_min: expected 0 <= t_min < 1.0"),
        (lambda: run(t_min=0.0), ValueError, r"^times: the score is asked where sigma is 0"),
        (lambda: run(prior_log_prob=lambda x: x), ValueError, r"^prior_log_prob's value: expected shape \(2,\)"),
        (lambda: run(score=lambda x, t: x[:1]), ValueError, r"^score's value: expected shape"),
        (lambda: run(x=torch.zeros(3)), ValueError, r"^x: expected a batch"),
        (lambda: bits_per_dim(torch.zeros(2), 0), ValueError, r"^n_dims: expected at least 1"),
        (lambda: bits_per_dim(torch.zeros(2), 1, low=1.0, high=1.0), ValueError, r"^low, high: expected low < high"),
        (lambda: bits_per_dim(torch.zeros(2), 1, n_levels=1), ValueError, r"^n_levels: expected at least 2"),
        (
            lambda: dequantize(torch.zeros(2)),
            TypeError,
            r"^images_uint8: expected a tensor of torch.uint8, got torch.f",
        ),
    ],
)
def test_refusals(call, error, match):
    with pytest.raises(error, match=match):
        call()


def run(score=lambda x, t: -x, x=None, **options):
    return log_likelihood(score, VPSDE(), torch.zeros(2, 3) if x is None else x, **options)


# -- modes and gradients -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("divergence", ["exact", "rademacher"])
def test_inference_mode_changes_nothing(divergence):
    """-1.838 for the standard normal law at 0, which once came out as -11.888."""
    x = torch.zeros(1, 2)
    with torch.inference_mode():
        got = log_likelihood(lambda x, t: -x, VPSDE(), x, divergence=divergence)
        made_inside = log_likelihood(lambda x, t: -x, VPSDE(), torch.zeros(1, 2), divergence=divergence)
        trace = hutchinson_trace(lambda x: -x, torch.randn(3, 2))
    assert got.item() == pytest.approx(-math.log(2 * math.pi), abs=1e-4)
    assert made_inside.item() == pytest.approx(-math.log(2 * math.pi), abs=1e-4)
    torch.testing.assert_close(trace, torch.full((3,), -2.0))


def test_a_network_has_its_likelihood_under_inference_mode(generator):
    torch.manual_seed(0)
    model, x = ScoreModel(TimeMLP(2, hidden=8), VPSDE()), torch.randn(3, 2, generator=generator)
    with torch.no_grad():
        expected = log_likelihood(model, VPSDE(), x)
    with torch.inference_mode():
        torch.testing.assert_close(log_likelihood(model, VPSDE(), x), expected, rtol=1e-4, atol=1e-4)
        made_inside = ScoreModel(TimeMLP(2, hidden=8), VPSDE())
        with pytest.raises(ValueError, match=r"^score: .* made under torch.inference_mode"):
            log_likelihood(made_inside, VPSDE(), x)


@pytest.mark.parametrize("cut", [torch.no_grad(), torch.inference_mode()])
@pytest.mark.parametrize("divergence", ["exact", "gaussian"])
def test_a_score_that_hides_its_derivative_is_refused(cut, divergence):
    with pytest.raises(ValueError, match=r"^score: its value is cut off from x"):
        log_likelihood(cut(lambda x, t: -x), VPSDE(), torch.zeros(2, 2), divergence=divergence)
    zero = log_likelihood(lambda x, t: torch.zeros_like(x), VPSDE(), torch.zeros(2, 2))  # no derivative: the trace is 0
    integrated_beta = float(VPSDE().integrated_beta(1.0) - VPSDE().integrated_beta(1e-3))
    torch.testing.assert_close(zero, torch.full((2,), -math.log(2 * math.pi) - integrated_beta), rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize("divergence", ["exact", "rademacher"])
def test_gradients_of_x_and_of_the_scores_parameters_are_those_of_differences(divergence):
    """Through the solver; the same probes in every call."""
    sde, width = VPSDE(), torch.tensor([0.8], dtype=torch.float64, requires_grad=True)

    def score(x, t):
        v = width**2 * sde.alpha(t) ** 2 + sde.sigma(t) ** 2
        return -x / v - 0.1 * torch.sin(x)

    def value(x):
        stream = torch.Generator().manual_seed(1)
        return log_likelihood(score, sde, x, divergence=divergence, rtol=1e-9, atol=1e-9, generator=stream).sum()

    x = torch.tensor([[0.3, -0.7], [1.1, 0.2]], dtype=torch.float64, requires_grad=True)
    of_x, of_width = torch.autograd.grad(value(x), (x, width))
    with torch.no_grad():
        step = torch.zeros_like(x)
        step[0, 1] = 1e-4
        difference = (value(x + step) - value(x - step)) / 2e-4
        assert float(of_x[0, 1]) == pytest.approx(float(difference), rel=1e-4)
        width += 1e-4
        above = value(x)
        width -= 2e-4
        below = value(x)
        assert float(of_width) == pytest.approx(float((above - below) / 2e-4), rel=1e-4)
    assert not log_likelihood(score, sde, x.detach()).requires_grad  # parameters alone record nothing


def test_an_sde_of_a_readers_own_has_a_likelihood():
    """Its coefficients get tensors: alpha = cos, sigma = sin keeps N(0, I)."""
    normal = MultivariateNormal(torch.zeros(3).double(), torch.eye(3).double())
    x = torch.tensor([[0.0, 0.0, 0.0], [0.3, -1.2, 0.8]], dtype=torch.float64)
    got = log_likelihood(lambda x, t: -x, Cosine(), x, prior_log_prob=normal.log_prob)
    torch.testing.assert_close(got, normal.log_prob(x), rtol=1e-4, atol=1e-4)
