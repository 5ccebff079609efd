"""Gaussian mixtures against torch.distributions, scikit-learn, autograd, quadrature and their own identities."""

import math

import numpy as np
import pytest
import torch
from scipy.stats import chisquare, multivariate_normal
from sklearn.mixture import GaussianMixture as SklearnMixture
from torch.func import jacrev, vmap

import coursework.distributions as module
from coursework.distributions import GaussianMixture, exact_score
from coursework.sdes import VESDE, VPSDE, SubVPSDE
from tests.helpers.laws import KINDS, by_torch, full_covariances, points, random_mixture, random_parameters

pytestmark = pytest.mark.usefixtures("one_thread")
IDENTITY = torch.eye(4, dtype=torch.float64)
SDES = (VPSDE(), VESDE(), SubVPSDE())
TOLERANCE = {torch.float32: {"rtol": 3e-6, "atol": 3e-6}, torch.float64: {"rtol": 1e-11, "atol": 1e-11}}


def gradient(density, x):
    """grad log p by autograd, (B, D)."""
    x = x.detach().clone().requires_grad_()
    return torch.autograd.grad(density.log_prob(x).sum(), x)[0]


def jacobian(density, x):
    """d score / dx at each point, (B, D, D)."""
    return vmap(jacrev(lambda point: density.score(point[None])[0]))(x)


def hessian_of_log_prob(density, x):
    """The second derivative of log p at each point, (B, D, D)."""
    return vmap(jacrev(jacrev(lambda point: density.log_prob(point[None])[0])))(x)


def standard_errors(values, expected):
    """How many standard errors the mean over the first axis is away from what is expected."""
    return (values.mean(0) - expected).abs() / (values.std(0) / len(values) ** 0.5)


# -- log_prob ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_log_prob_equals_torch_distributions(kind, dtype):
    parameters = random_parameters(kind)
    x = points(7, 4)
    expected = by_torch(*parameters).log_prob(x)
    result = random_mixture(kind, dtype=dtype).log_prob(x.to(dtype))
    assert result.dtype == dtype
    torch.testing.assert_close(result.double(), expected, **TOLERANCE[dtype])


@pytest.mark.parametrize(("kind", "sklearn_kind"), [("full", "full"), ("diagonal", "diag"), ("isotropic", "spherical")])
def test_log_prob_and_responsibilities_equal_scikit_learn(kind, sklearn_kind):
    means, covariances, weights = random_parameters(kind, n_components=3, n_dims=2)
    reference = SklearnMixture(3, covariance_type=sklearn_kind)
    reference.means_, reference.weights_ = means.numpy(), (weights / weights.sum()).numpy()
    reference.covariances_ = covariances.numpy()
    precisions = torch.linalg.inv(torch.linalg.cholesky(covariances)).mT if kind == "full" else covariances**-0.5
    reference.precisions_cholesky_ = precisions.numpy()
    mixture, x = GaussianMixture(means, covariances, weights), points(9, 2)
    np.testing.assert_allclose(mixture.log_prob(x), reference.score_samples(x.numpy()), rtol=1e-11)
    (piece,) = mixture._pieces(x)
    np.testing.assert_allclose(piece.responsibilities, reference.predict_proba(x.numpy()), atol=1e-12)


def test_log_prob_of_one_gaussian_equals_scipy():
    means, covariances, _ = random_parameters("full", n_components=1, n_dims=3)
    x = points(5, 3)
    expected = multivariate_normal(means[0].numpy(), covariances[0].numpy()).logpdf(x.numpy())
    np.testing.assert_allclose(GaussianMixture(means, covariances).log_prob(x), expected, rtol=1e-12)


def test_density_integrates_to_one():
    mixture = random_mixture("isotropic", n_components=3, n_dims=1)
    x = torch.linspace(-15, 15, 20_001, dtype=torch.float64)
    mass = torch.trapezoid(mixture.log_prob(x[:, None]).exp(), x)
    assert abs(float(mass) - 1) < 1e-12


@pytest.mark.parametrize("kind", KINDS)
def test_weights_are_normalised_and_equal_by_default(kind):
    means, covariances, weights = random_parameters(kind)
    x = points(5, 4)
    a, b = (GaussianMixture(means, covariances, w) for w in (weights, 7 * weights))
    torch.testing.assert_close(a.weights, weights / weights.sum())
    torch.testing.assert_close(a.log_prob(x), b.log_prob(x), rtol=1e-13, atol=1e-13)
    torch.testing.assert_close(GaussianMixture(means, covariances).weights, torch.full((3,), 1 / 3).double())


def test_the_three_forms_of_one_covariance_agree():
    means, variances, weights = random_parameters("isotropic", n_components=3, n_dims=4)
    x = points(7, 4)
    forms = (variances, variances[:, None].expand(3, 4), full_covariances(variances, 4))
    iso, diagonal, full = (GaussianMixture(means, form, weights).diffuse(0.7, 0.4) for form in forms)
    for other in (diagonal, full):
        torch.testing.assert_close(other.log_prob(x), iso.log_prob(x), rtol=1e-12, atol=1e-12)
        torch.testing.assert_close(other.score(x), iso.score(x), rtol=1e-12, atol=1e-12)
        torch.testing.assert_close(other.covariance, iso.covariance, rtol=1e-12, atol=1e-12)


# -- score ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_score_is_the_gradient_of_log_prob(kind, dtype):
    mixture, x = random_mixture(kind, dtype=dtype), points(7, 4, dtype=dtype)
    assert mixture.score(x).dtype == dtype
    torch.testing.assert_close(mixture.score(x), gradient(mixture, x), **TOLERANCE[dtype])


@pytest.mark.parametrize("kind", KINDS)
def test_score_is_the_gradient_of_torch_distributions_log_prob(kind):
    reference, x = by_torch(*random_parameters(kind)), points(7, 4)
    torch.testing.assert_close(random_mixture(kind).score(x), gradient(reference, x), rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize("kind", KINDS)
def test_score_jacobian_is_symmetric_and_equals_finite_differences(kind):
    mixture, x = random_mixture(kind), points(5, 4)
    exact = jacobian(mixture, x)
    torch.testing.assert_close(exact, exact.mT, rtol=1e-11, atol=1e-11)
    h = 1e-5
    steps = h * IDENTITY
    columns = [(mixture.score(x + e) - mixture.score(x - e)) / (2 * h) for e in steps]
    torch.testing.assert_close(exact, torch.stack(columns, -1), rtol=1e-7, atol=1e-7)


@pytest.mark.parametrize("kind", KINDS)
def test_hessian_of_log_prob_is_the_score_jacobian_also_at_the_means(kind):
    mixture = random_mixture(kind)
    x = torch.cat([mixture.means, points(4, 4)])
    torch.testing.assert_close(hessian_of_log_prob(mixture, x), jacobian(mixture, x), rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("kind", KINDS)
def test_score_has_mean_zero_and_the_fisher_identity_holds(kind, generator):
    mixture = random_mixture(kind, n_components=3, n_dims=2)
    x = mixture.sample(20_000, generator=generator)
    score = mixture.score(x)
    assert standard_errors(score, 0).max() < 4
    # E[s s^T] = -E[hess log p]: the difference has mean zero
    assert standard_errors(score[:, :, None] * score[:, None, :] + jacobian(mixture, x), 0).max() < 4


def test_score_of_a_gaussian_is_linear_and_zero_at_its_mean():
    means, covariances, _ = random_parameters("full", n_components=1)
    x = points(6, 4)
    score = GaussianMixture(means, covariances).score(x)
    torch.testing.assert_close(score, torch.linalg.solve(covariances[0], (means - x).T).T, rtol=1e-11, atol=1e-11)
    assert GaussianMixture(means, covariances).score(means).abs().max() < 1e-13


@pytest.mark.parametrize("kind", KINDS)
def test_midpoint_of_two_equal_modes_is_a_saddle(kind):
    m = torch.tensor([2.0, 0.0, 0.0], dtype=torch.float64)
    variance = torch.full((2,), 0.5, dtype=torch.float64)
    forms = {"isotropic": variance, "diagonal": variance[:, None].expand(2, 3), "full": full_covariances(variance, 3)}
    mixture = GaussianMixture(torch.stack([m, -m]), forms[kind])
    x = torch.zeros(1, 3, dtype=torch.float64)
    assert mixture.score(x).abs().max() < 1e-13
    # along the line of the modes -1/v + |m|^2/v^2, across it -1/v
    expected = torch.tensor([-1 / 0.5, -1 / 0.5, -1 / 0.5 + 4 / 0.25], dtype=torch.float64)
    torch.testing.assert_close(torch.linalg.eigvalsh(jacobian(mixture, x)[0]), expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("distance", [50.0, 1e3])
def test_far_away_in_float32_the_nearest_component_decides(kind, distance):
    means = torch.tensor([[-2.0, 0.0, 0.0], [2.0, 0.0, 0.0]])
    variance = torch.tensor([0.7, 0.7])
    forms = {"isotropic": variance, "diagonal": variance[:, None].expand(2, 3), "full": full_covariances(variance, 3)}
    mixture = GaussianMixture(means, forms[kind], torch.tensor([0.9, 0.1]))
    x = torch.tensor([[distance, distance, -distance]])
    torch.testing.assert_close(mixture.score(x), (means[1:] - x) / 0.7, rtol=1e-6, atol=0)
    square = float(((means[1].double() - x.double()) ** 2).sum())
    expected = math.log(0.1) - square / (2 * float(variance[0])) - 1.5 * math.log(2 * math.pi * 0.7)
    assert float(mixture.log_prob(x)) == pytest.approx(expected, rel=1e-6)


# -- moments and samples -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_mean_and_covariance_equal_the_sums_over_components(kind):
    means, covariances, weights = random_parameters(kind)
    mixture, w = random_mixture(kind), weights / weights.sum()
    mean = (w[:, None] * means).sum(0)
    second = full_covariances(covariances, 4) + means[:, :, None] * means[:, None, :]
    covariance = (w[:, None, None] * second).sum(0) - torch.outer(mean, mean)
    torch.testing.assert_close(mixture.mean, mean)
    torch.testing.assert_close(mixture.covariance, covariance)
    noised = mixture.diffuse(0.6, 0.9)
    torch.testing.assert_close(noised.mean, 0.6 * mean)
    torch.testing.assert_close(noised.means, 0.6 * means)
    torch.testing.assert_close(noised.covariance, 0.36 * covariance + 0.81 * IDENTITY)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("diffused", [False, True])
def test_samples_have_the_exact_mean_and_covariance(kind, diffused, generator):
    mixture = random_mixture(kind)
    mixture = mixture.diffuse(-0.7, 1.0) if diffused else mixture
    x = mixture.sample(30_000, generator=generator)
    assert standard_errors(x, mixture.mean).max() < 4
    centred = x - mixture.mean
    assert standard_errors(centred[:, :, None] * centred[:, None, :], mixture.covariance).max() < 4


def test_components_are_drawn_with_their_weights(generator):
    weights = torch.tensor([1.0, 2.0, 3.0, 4.0], dtype=torch.float64)
    mixture = GaussianMixture(100 * IDENTITY, torch.ones(4).double(), weights)
    counts = torch.bincount(mixture.sample(10_000, generator=generator).argmax(1), minlength=4)
    assert chisquare(counts.numpy(), 1000 * weights.numpy()).pvalue > 1e-3


def test_samples_of_each_component_have_its_own_covariance(generator):
    means, covariances, weights = random_parameters("full", n_components=2, n_dims=3)
    means = means + torch.tensor([[100.0], [-100.0]])
    x = GaussianMixture(means, covariances, weights).sample(20_000, generator=generator)
    for sign, mean, covariance in zip((1, -1), means, covariances, strict=True):
        centred = x[sign * x[:, 0] > 0] - mean
        assert standard_errors(centred[:, :, None] * centred[:, None, :], covariance).max() < 4


def test_a_generator_fixes_the_samples_and_their_dtype_is_that_of_the_means():
    mixture = random_mixture("full", dtype=torch.float32)
    a, b = (mixture.sample(5, generator=torch.Generator().manual_seed(3)) for _ in range(2))
    assert a.dtype == torch.float32
    assert torch.equal(a, b)
    assert mixture.sample(0).shape == (0, 4)


# -- diffusion -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_diffuse_is_the_mixture_with_scaled_means_and_covariances(kind):
    means, covariances, weights = random_parameters(kind)
    x, alpha, sigma = points(7, 4), -0.6, 0.8
    covariances = alpha**2 * full_covariances(covariances, 4) + sigma**2 * IDENTITY
    reference, noised = by_torch(alpha * means, covariances, weights), random_mixture(kind).diffuse(alpha, sigma)
    torch.testing.assert_close(noised.log_prob(x), reference.log_prob(x), rtol=1e-11, atol=1e-11)
    torch.testing.assert_close(noised.score(x), gradient(reference, x), rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("n", [4, 7])
def test_diffusing_point_by_point_equals_one_law_per_point(kind, n):
    mixture, x = random_mixture(kind), points(n, 4)
    alpha, sigma = torch.linspace(0.2, 1, n).double(), torch.linspace(1.5, 0.3, n).double()
    noised = mixture.diffuse(alpha, sigma)
    laws = [mixture.diffuse(a, s) for a, s in zip(alpha, sigma, strict=True)]
    rows = list(zip(laws, x[:, None], strict=True))
    torch.testing.assert_close(noised.log_prob(x), torch.cat([law.log_prob(row) for law, row in rows]))
    torch.testing.assert_close(noised.score(x), torch.cat([law.score(row) for law, row in rows]))
    torch.testing.assert_close(noised.mean, torch.stack([law.mean for law in laws]))
    torch.testing.assert_close(noised.means, torch.stack([law.means for law in laws]))
    torch.testing.assert_close(noised.covariance, torch.stack([law.covariance for law in laws]))
    only_sigma = mixture.diffuse(0.5, sigma)
    laws = [mixture.diffuse(0.5, float(s)) for s in sigma]
    expected = torch.cat([law.score(row) for law, row in zip(laws, x[:, None], strict=True)])
    torch.testing.assert_close(only_sigma.score(x), expected)


@pytest.mark.parametrize("kind", KINDS)
def test_two_diffusions_equal_the_one_step_law(kind):
    mixture, x = random_mixture(kind), points(6, 4)
    a1, s1, a2, s2 = 0.8, 0.5, 0.6, 0.9
    two, one = mixture.diffuse(a1, s1).diffuse(a2, s2), mixture.diffuse(a1 * a2, math.hypot(a2 * s1, s2))
    torch.testing.assert_close(two.log_prob(x), one.log_prob(x), rtol=1e-13, atol=1e-13)
    torch.testing.assert_close(two.score(x), one.score(x), rtol=1e-13, atol=1e-13)
    alpha = torch.linspace(0.2, 1, 6).double()
    two, one = (
        mixture.diffuse(a1, s1).diffuse(alpha, s2),
        mixture.diffuse(a1 * alpha, torch.hypot(alpha * s1, s2 + 0 * alpha)),
    )
    torch.testing.assert_close(two.score(x), one.score(x), rtol=1e-13, atol=1e-13)


def test_diffuse_equals_the_convolution_by_quadrature():
    mixture, alpha, sigma = random_mixture("isotropic", n_dims=1), 0.7, 0.5
    x0 = torch.linspace(-15, 15, 20_001, dtype=torch.float64)
    x = points(5, 1)
    kernel = torch.exp(-0.5 * ((x - alpha * x0) / sigma) ** 2) / (sigma * math.sqrt(2 * math.pi))
    expected = torch.trapezoid(mixture.log_prob(x0[:, None]).exp() * kernel, x0).log()
    torch.testing.assert_close(mixture.diffuse(alpha, sigma).log_prob(x), expected, rtol=1e-10, atol=1e-10)


def test_samples_diffused_point_by_point_have_each_point_its_own_law(generator):
    mixture = random_mixture("full", n_components=2, n_dims=3)
    alpha = torch.tensor([0.2, 0.9]).repeat(10_000).double()
    sigma = torch.tensor([1.5, 0.1]).repeat(10_000).double()
    x = mixture.diffuse(alpha, sigma).sample(20_000, generator=generator)
    for i in (0, 1):
        law, group = mixture.diffuse(alpha[i], sigma[i]), x[i::2]
        assert standard_errors(group, law.mean).max() < 4
        centred = group - law.mean
        assert standard_errors(centred[:, :, None] * centred[:, None, :], law.covariance).max() < 4


@pytest.mark.parametrize("kind", KINDS)
def test_diffuse_is_differentiable_in_alpha_and_sigma(kind):
    mixture, x = random_mixture(kind), points(5, 4)
    ends = torch.tensor([0.8, 0.6], dtype=torch.float64)
    exact = jacrev(lambda c: mixture._diffuse(c[0], c[1]).log_prob(x))(ends)
    h = 1e-5
    for i in (0, 1):
        step = h * torch.eye(2).double()[i]
        up, down = (mixture.diffuse(*(ends + s)).log_prob(x) for s in (step, -step))
        torch.testing.assert_close(exact[:, i], (up - down) / (2 * h), rtol=1e-7, atol=1e-7)


# -- posterior -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("per_point", [False, True])
def test_posterior_moments_are_tweedies_first_and_second_order(kind, per_point):
    mixture, x = random_mixture(kind), points(4, 4)  # B == D
    alpha, sigma = torch.tensor(0.7).double(), torch.tensor(0.9).double()
    if per_point:
        alpha, sigma = torch.linspace(0.3, 1, 4).double(), torch.linspace(1.4, 0.4, 4).double()
    noised, posterior = mixture.diffuse(alpha, sigma), mixture.posterior(x, alpha, sigma)
    a, s = alpha.reshape(-1, 1), sigma.reshape(-1, 1)
    mean = (x + s**2 * noised.score(x)) / a
    torch.testing.assert_close(posterior.mean, mean, rtol=1e-11, atol=1e-11)
    pairs = zip(a.expand(4, 1)[:, 0], s.expand(4, 1)[:, 0], strict=True)
    curvature = [jacobian(mixture.diffuse(*pair), x[i : i + 1])[0] for i, pair in enumerate(pairs)]
    a, s = a[..., None], s[..., None]
    covariance = s**2 / a**2 * (IDENTITY + s**2 * torch.stack(curvature))
    torch.testing.assert_close(posterior.covariance, covariance, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("kind", KINDS)
def test_posterior_equals_quadrature_in_one_dimension(kind):
    mixture, alpha, sigma = random_mixture(kind, n_dims=1), 0.6, 0.8
    x_t = points(5, 1)
    x0 = torch.linspace(-15, 15, 20_001, dtype=torch.float64)
    density = mixture.log_prob(x0[:, None]) - 0.5 * ((x_t - alpha * x0) / sigma) ** 2  # (B, grid)
    density = density.exp() / torch.trapezoid(density.exp(), x0)[:, None]
    mean = torch.trapezoid(density * x0, x0)
    variance = torch.trapezoid(density * (x0 - mean[:, None]) ** 2, x0)
    posterior = mixture.posterior(x_t, alpha, sigma)
    torch.testing.assert_close(posterior.mean[:, 0], mean, rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(posterior.covariance[:, 0, 0], variance, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("kind", KINDS)
def test_posterior_of_a_diffused_mixture_equals_that_of_the_mixture_it_is(kind):
    means, covariances, weights = random_parameters(kind)
    a, s = 0.5, 0.7
    spelled_out = GaussianMixture(a * means, a**2 * full_covariances(covariances, 4) + s**2 * IDENTITY, weights)
    mixture, x = random_mixture(kind), points(7, 4)
    mixture.score(x)
    posterior, expected = mixture.diffuse(a, s).posterior(x, 0.8, 0.6), spelled_out.posterior(x, 0.8, 0.6)
    torch.testing.assert_close(posterior.mean, expected.mean, rtol=1e-11, atol=1e-11)
    torch.testing.assert_close(posterior.covariance, expected.covariance, rtol=1e-11, atol=1e-11)


def test_posterior_of_pure_noise_is_the_prior_where_alpha_is_zero():
    mixture, x = random_mixture("full"), points(5, 4)
    posterior = mixture.posterior(x, 0.0, 1.0)
    torch.testing.assert_close(posterior.mean, mixture.mean.expand(5, 4))
    torch.testing.assert_close(posterior.covariance, mixture.covariance.expand(5, 4, 4))


def test_posterior_after_all_data_was_lost_is_that_of_a_gaussian():
    noise = random_mixture("full").diffuse(0.0, 2.0)  # N(0, 4 I)
    x = points(5, 4)
    posterior = noise.posterior(x, 0.5, 1.0)
    torch.testing.assert_close(posterior.mean, 0.5 * 4 / (0.25 * 4 + 1) * x)
    torch.testing.assert_close(posterior.covariance, (4 / (0.25 * 4 + 1) * IDENTITY).expand(5, 4, 4))


# -- size ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("per_point", [False, True])
def test_pieces_do_not_change_the_values(kind, per_point, monkeypatch):
    mixture, x = random_mixture(kind), points(11, 4)
    alpha = torch.linspace(0.3, 1, 11).double() if per_point else 0.6
    sigma = torch.linspace(1, 0.3, 11).double() if per_point else 0.5
    noised = mixture.diffuse(alpha, sigma)

    def everything():
        posterior = mixture.posterior(x, alpha, sigma)
        sample = noised.sample(11, generator=torch.Generator().manual_seed(0))
        return noised.log_prob(x), noised.score(x), posterior.mean, posterior.covariance, sample

    whole = everything()
    monkeypatch.setattr(module, "CHUNK", 36)  # 3 points at a time
    assert len(noised._pieces(x, 4)) == 4
    for a, b in zip(whole, everything(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("kind", ["diagonal", "isotropic"])
def test_a_training_set_of_images_as_a_mixture_stays_small(kind, monkeypatch):
    """K = 2000 points in D = 784 as components. One (B, K, D) tensor of 5 points holds 8 million numbers."""
    means = points(2000, 784, seed=3, scale=1.0, dtype=torch.float32)
    mixture = GaussianMixture(means, torch.full((2000, 784) if kind == "diagonal" else (2000,), 0.01))
    x = means[:5] + 0.01
    largest = []
    for name in ("offsets", "distances"):
        inner = getattr(module._Points, name).func

        def spy(points, inner=inner):
            value = inner(points)
            largest.append(value.numel())
            return value

        monkeypatch.setattr(module._Points, name, property(spy))
    # every other component is |mu_i - mu_j|^2 / (2 * 0.01) ~ 78400 nats away: its own component decides
    score = (means[:5] - x) / 0.01
    torch.testing.assert_close(mixture.score(x), score, rtol=1e-5, atol=1e-5)
    mean = mixture.posterior(x, 1.0, 0.1).mean
    torch.testing.assert_close(mean, (means[:5] + x) / 2, rtol=1e-6, atol=1e-6)
    expected = -math.log(2000) - 392 * math.log(2 * math.pi * 0.01) - 784 * 0.01**2 / 0.02
    torch.testing.assert_close(mixture.log_prob(x), torch.full((5,), expected), rtol=1e-5, atol=0)
    assert max(largest) <= module.CHUNK


# -- dtype, device, transforms -------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_values_have_the_dtype_of_x_and_moments_that_of_the_means(kind):
    mixture, x = random_mixture(kind, dtype=torch.float32), points(5, 4)
    assert mixture.log_prob(x).dtype == mixture.score(x).dtype == torch.float64
    assert mixture.mean.dtype == mixture.covariance.dtype == mixture.weights.dtype == torch.float32
    assert mixture.to(dtype=torch.float64).sample(2).dtype == torch.float64
    posterior = mixture.posterior(x.float(), 0.5, 0.5)
    assert posterior.mean.dtype == posterior.covariance.dtype == torch.float32


@pytest.mark.parametrize("kind", KINDS)
def test_moving_to_another_device_moves_what_was_computed_already(kind):
    mixture, x = random_mixture(kind), points(5, 4)
    mixture.score(x)
    moved = mixture.to("meta")  # refuses to mix with tensors of the CPU
    assert moved.score(x.to("meta")).device.type == "meta"
    assert moved.posterior(x.to("meta"), 0.5, 0.5).mean.device.type == "meta"
    assert mixture.score(x).device.type == "cpu"
    with pytest.raises(ValueError, match=r"^x: expected device meta like the mixture, got cpu"):
        moved.score(x)


@pytest.mark.parametrize("kind", KINDS)
def test_a_mixture_first_used_inside_a_transform_or_inference_mode_works_outside(kind):
    x = points(5, 4)
    expected = random_mixture(kind).score(x)
    mixture, other = random_mixture(kind), random_mixture(kind)
    jacobian(mixture, x)
    with torch.inference_mode():
        other.score(x)
    for used in (mixture, other):
        torch.testing.assert_close(gradient(used, x), expected)
        torch.testing.assert_close(used.score(x), expected)


def test_gradients_reach_x_through_the_score():
    mixture, x = random_mixture("full"), points(5, 4).requires_grad_()
    (product,) = torch.autograd.grad((mixture.score(x) * x.detach()).sum(), x)
    expected = torch.einsum("bij,bi->bj", jacobian(mixture, x.detach()), x.detach())
    torch.testing.assert_close(product, expected)


# -- exact_score ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("sde", SDES, ids=lambda sde: type(sde).__name__)
@pytest.mark.parametrize("kind", KINDS)
def test_exact_score_is_the_gradient_of_the_noisy_log_density(sde, kind):
    mixture, x = random_mixture(kind), points(4, 4)  # B == D
    score = exact_score(mixture, sde)
    for t in (0.001, torch.tensor(0.3).double(), torch.tensor([0.1, 0.4, 0.7, 1.0]).double()):
        noised = mixture.diffuse(sde.alpha(t), sde.sigma(t))
        torch.testing.assert_close(score(x, t), gradient(noised, x), rtol=1e-9, atol=1e-9)
    single = torch.cat([score(x[i : i + 1], t[i]) for i in range(4)])
    torch.testing.assert_close(score(x, t), single)


def test_exact_score_takes_any_density():
    class Normal:
        """N(0, v I) that knows nothing of mixtures."""

        def __init__(self, variance):
            self.variance = variance

        def diffuse(self, alpha, sigma):
            return Normal(alpha**2 * self.variance + sigma**2)

        def score(self, x):
            return -x / self.variance

    x, t = points(5, 3), torch.tensor(0.4).double()
    mixture = GaussianMixture(torch.zeros(1, 3).double(), torch.tensor([2.0]).double())
    torch.testing.assert_close(exact_score(Normal(2.0), VPSDE())(x, t), exact_score(mixture, VPSDE())(x, t))


def test_exact_score_at_time_zero_is_the_score_of_the_data():
    mixture, x = random_mixture("full"), points(5, 4)
    torch.testing.assert_close(exact_score(mixture, VPSDE())(x, 0.0), mixture.score(x))


# -- refusals ------------------------------------------------------------------------------------------------------

MEANS, EYE = torch.zeros(2, 3), torch.eye(3).expand(2, 3, 3)
ASYMMETRIC = torch.eye(3).repeat(2, 1, 1)
ASYMMETRIC[0, 0, 1] = 0.5
NAN = float("nan")


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        (([[0.0]], torch.ones(1)), TypeError, "means: expected a torch.Tensor, got list"),
        ((torch.zeros(2, 3).long(), torch.ones(2)), TypeError, "means: expected a floating-point tensor"),
        ((torch.zeros(3), torch.ones(3)), ValueError, "means: expected shape (K, D), got (3,)"),
        ((torch.zeros(0, 3), torch.ones(0)), ValueError, "means: expected shape (K, D), got (0, 3)"),
        ((MEANS + NAN, torch.ones(2)), ValueError, "means: has NaN or infinite values"),
        ((MEANS, torch.ones(3)), ValueError, "covariances: expected shape (2, 3, 3) or (2, 3) or (2,)"),
        ((MEANS, torch.ones(2, 3, 2)), ValueError, "covariances: expected shape"),
        ((MEANS, torch.ones(2).long()), TypeError, "covariances: expected a floating-point tensor"),
        ((MEANS, torch.tensor([1.0, NAN])), ValueError, "covariances: has NaN"),
        ((MEANS, torch.tensor([1.0, -1.0])), ValueError, "covariances: expected values > 0, got -1"),
        ((MEANS, torch.zeros(2, 3)), ValueError, "covariances: expected values > 0, got 0"),
        ((MEANS, ASYMMETRIC), ValueError, "covariances: expected symmetric"),
        ((MEANS, EYE - 2 * torch.ones(3, 3)), ValueError, "covariances: expected positive definite"),
        ((MEANS, torch.ones(2, 3, 3)), ValueError, "covariances: expected positive definite"),
        ((MEANS, torch.zeros(2, 3, 3)), ValueError, "covariances: expected positive definite, got an eigenvalue 0"),
        ((MEANS, EYE.to("meta")), ValueError, "covariances: expected device cpu like means, got meta"),
        ((MEANS, EYE, torch.ones(3)), ValueError, "weights: expected shape (2,)"),
        ((MEANS, EYE, torch.tensor([1.0, 0.0])), ValueError, "weights: expected values > 0, got 0"),
        ((MEANS, EYE, torch.tensor([1.0, NAN])), ValueError, "weights: has NaN"),
        ((MEANS, EYE, torch.tensor([1, 1])), TypeError, "weights: expected a floating-point tensor"),
    ],
)
def test_a_mixture_refuses(arguments, error, message):
    with pytest.raises(error) as refusal:
        GaussianMixture(*arguments)
    assert str(refusal.value).startswith(message)
    assert "\n" not in str(refusal.value)


def test_a_mixture_refuses_too_many_full_covariances(monkeypatch):
    monkeypatch.setattr(module, "LARGEST_FULL", 17)
    with pytest.raises(ValueError, match=r"^covariances: K D\^2 = 18 entries; at most 2e\+01, or use \(K, D\)"):
        GaussianMixture(MEANS, EYE)


@pytest.mark.parametrize("verb", ["log_prob", "score"])
@pytest.mark.parametrize(
    ("x", "error", "message"),
    [
        (torch.zeros(5, 2), ValueError, r"^x: expected shape \(B, 3\), got \(5, 2\)"),
        (torch.zeros(3), ValueError, r"^x: expected a batch"),
        (torch.zeros(5, 3, 1), ValueError, r"^x: expected shape \(B, 3\)"),
        (torch.zeros(5, 3).long(), TypeError, "^x: expected a floating-point tensor"),
        (torch.full((5, 3), NAN), ValueError, "^x: has NaN"),
        (torch.full((5, 3), math.inf), ValueError, "^x: has NaN or infinite"),
        (torch.zeros(5, 3, device="meta"), ValueError, "^x: expected device cpu"),
        ([0.0], TypeError, "^x: expected a torch.Tensor, got list"),
    ],
)
def test_points_are_refused(verb, x, error, message):
    mixture = GaussianMixture(MEANS, EYE)
    with pytest.raises(error, match=message):
        getattr(mixture, verb)(x)


@pytest.mark.parametrize(
    ("alpha", "sigma", "message"),
    [
        (NAN, 1.0, "^alpha: has NaN"),
        (1.0, math.inf, "^sigma: has NaN or infinite"),
        (1.0, -0.1, "^sigma: expected values >= 0"),
        (torch.ones(2, 2), 1.0, r"^alpha: expected a number or shape \(B,\), got \(2, 2\)"),
        (torch.ones(3), torch.ones(5), "^alpha, sigma: expected numbers or one shape"),
        (torch.ones(1), torch.ones(5), "^alpha, sigma: expected numbers or one shape"),
        (0.0, 0.0, "^alpha, sigma: both are 0"),
    ],
)
def test_diffuse_refuses(alpha, sigma, message):
    with pytest.raises(ValueError, match=message):
        GaussianMixture(MEANS, EYE).diffuse(alpha, sigma)


def test_a_mixture_diffused_point_by_point_wants_that_many_points():
    mixture = GaussianMixture(MEANS, EYE).diffuse(torch.ones(5), 0.5)
    with pytest.raises(ValueError, match=r"^alpha and sigma of diffuse: .*shape \(4,\)"):
        mixture.score(torch.zeros(4, 3))
    with pytest.raises(ValueError, match=r"^n: this mixture was diffused with 5 values, got n = 4"):
        mixture.sample(4)
    with pytest.raises(ValueError, match=r"^posterior: "):
        mixture.posterior(torch.zeros(5, 3), 1.0, 1.0)
    with pytest.raises(ValueError, match=r"^alpha, sigma: expected numbers or one shape"):
        mixture.diffuse(torch.ones(4), 1.0)


def test_sample_and_posterior_refuse():
    mixture = GaussianMixture(MEANS, EYE)
    with pytest.raises(ValueError, match=r"^n: expected at least 0"):
        mixture.sample(-1)
    with pytest.raises(TypeError, match=r"^n: expected an integer, got float"):
        mixture.sample(2.0)
    with pytest.raises(ValueError, match=r"^sigma: expected values > 0"):
        mixture.posterior(torch.zeros(5, 3), 1.0, 0.0)
    with pytest.raises(ValueError, match=r"^x: expected shape"):
        mixture.posterior(torch.zeros(5, 2), 1.0, 1.0)


@pytest.mark.parametrize("kind", KINDS)
def test_covariances_of_a_mixture_diffused_point_by_point(kind):
    law = random_mixture(kind, n_components=2, n_dims=3)
    alpha, sigma = torch.tensor([0.5, 0.9, 0.2]).double(), torch.tensor([0.3, 0.2, 1.0]).double()
    got = law.diffuse(alpha, sigma).covariances
    expected = torch.stack([law.diffuse(a, s).covariances for a, s in zip(alpha, sigma, strict=True)])
    torch.testing.assert_close(got, expected)
    full = alpha[:, None, None, None] ** 2 * law.covariances + sigma[:, None, None, None] ** 2 * torch.eye(3).double()
    torch.testing.assert_close(got, full)
