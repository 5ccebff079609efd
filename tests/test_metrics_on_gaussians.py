"""The metrics of lesson 16 against closed forms on Gaussians, also at finite n, and against other implementations."""

import math

import numpy as np
import pytest
import scipy.stats
import torch
from sklearn.linear_model import Ridge
from sklearn.metrics.pairwise import rbf_kernel
from sklearn.neighbors import NearestNeighbors
from torchmetrics.image.kid import KernelInceptionDistance

from coursework import metrics
from coursework.metrics import (
    classifier_two_sample,
    density_coverage,
    frechet_distance,
    frechet_extrapolated,
    kernel_distance,
    memorisation,
    mmd,
    paired_difference,
    sliced_wasserstein,
    standard_error,
)

pytestmark = pytest.mark.usefixtures("one_thread")


def normal(generator, *shape, shift=0.0, scale=1.0):
    return scale * torch.randn(shape, generator=generator, dtype=torch.float64) + shift


def mean_is(values, exact, *, slack=0.0):
    """The mean of independent values is the exact one within four standard errors (and a known remainder)."""
    values = torch.as_tensor(values, dtype=torch.float64)
    assert float((values.mean() - exact).abs()) < 4 * float(values.std()) / len(values) ** 0.5 + slack


# -- the Frechet distance at finite n ----------------------------------------------------------------------------------


def test_frechet_distance_of_equal_laws_in_one_dimension_has_its_exact_mean(generator):
    """E (m - m')^2 + E (s - s')^2 = 2/n + 2 (1 - c^2), c = E s, the root of a chi-square law's mean."""
    n = 12
    c = math.sqrt(2 / (n - 1)) * math.gamma(n / 2) / math.gamma((n - 1) / 2)
    values = [frechet_distance(normal(generator, n, 1), normal(generator, n, 1)) for _ in range(250)]
    mean_is(values, 2 / n + 2 * (1 - c**2))


@pytest.mark.parametrize(("d", "n", "bias"), [(8, 256, 0.203), (64, 1000, 2.21), (64, 4000, 0.552)])
def test_bias_of_the_frechet_distance(d, n, bias, generator):
    """(d + d (d + 1) / 4) 2/n for two sets of n from N(0, I), up to a share d/n of it."""
    exact = (d + d * (d + 1) / 4) * 2 / n
    assert exact == pytest.approx(bias, rel=5e-3)
    values = [frechet_distance(normal(generator, n, d), normal(generator, n, d)) for _ in range(20)]
    mean_is(values, exact, slack=exact * d / n / 2)


def test_extrapolation_recovers_the_distance_that_the_bias_hides(generator):
    """|m|^2 = 0.64 in 64 dimensions, where 250 images and 250 have 9.5."""
    shift, values, plain = 0.1, [], []
    for _ in range(16):
        real, generated = normal(generator, 2000, 64), normal(generator, 2000, 64, shift=shift)
        values.append(frechet_extrapolated(real, generated, (500, 1000, 2000), generator=generator))
        plain.append(frechet_distance(real, generated))
    mean_is(values, 0.64)
    assert np.mean(plain) > 1.6


def test_extrapolation_is_the_line_through_the_means_of_disjoint_parts(generator):
    """By numpy's least squares; the sizes leave out a rest, and the larger set's points beyond the smaller's size."""
    real, generated = normal(generator, 33, 2), normal(generator, 40, 2, shift=1.0)
    got = frechet_extrapolated(real, generated, [5, 10, 16], generator=torch.Generator().manual_seed(4))
    stream = torch.Generator().manual_seed(4)
    real, generated = (x[torch.randperm(len(x), generator=stream)] for x in (real, generated))
    means = []
    for n in (5, 10, 16):
        starts = range(0, 33 // n * n, n)
        means.append(np.mean([frechet_distance(real[i : i + n], generated[i : i + n]) for i in starts]))
    assert got == pytest.approx(np.polyfit([1 / 5, 1 / 10, 1 / 16], means, 1)[1], rel=1e-9)
    assert frechet_extrapolated(real, generated, (33, 5, 5)) != pytest.approx(got)


# -- kernels -----------------------------------------------------------------------------------------------------------


@pytest.mark.filterwarnings("ignore:Metric `Kernel Inception Distance` will save all")
def test_kernel_distance_is_torchmetrics_of_one_subset_that_is_all(generator):
    real, generated = normal(generator, 50, 6, shift=0.3), normal(generator, 50, 6, scale=1.3)
    for degree in (2, 3):
        other = KernelInceptionDistance(feature=Features(), subsets=1, subset_size=50, degree=degree)
        other.update(real, real=True)
        other.update(generated, real=False)
        expected = float(other.compute()[0])
        assert kernel_distance(real, generated, degree=degree) == pytest.approx(expected, rel=1e-6)


class Features(torch.nn.Module):
    """For torchmetrics: what it gets are features, of six numbers."""

    num_features = 6

    def forward(self, x):
        return x


def third_moments(mean, covariance):
    """E x x x of a Gaussian, (D, D, D)."""
    mixed = torch.einsum("ij,k->ijk", covariance, mean)
    sums = mixed + mixed.permute(0, 2, 1) + mixed.permute(2, 1, 0)
    return torch.einsum("i,j,k->ijk", mean, mean, mean) + sums


def test_kernel_distance_of_two_gaussians_has_its_closed_form_as_mean(generator):
    """(z + 1)^3, z = x.y / F, has the mean of 1 + 3 z + 3 z^2 + z^3: products of moments. Sizes differ."""
    roots = [torch.eye(3).double(), torch.tensor([[1.2, 0, 0], [0.5, 0.7, 0], [0, 0.3, 1.0]]).double()]
    means = [torch.tensor([0.2, -0.4, 0.0]).double(), torch.tensor([0.5, 0.1, 0.3]).double()]
    covariances = [root @ root.T for root in roots]
    seconds = [c + torch.outer(m, m) for m, c in zip(means, covariances, strict=True)]
    thirds = [third_moments(m, c) for m, c in zip(means, covariances, strict=True)]

    def expected(i, j):
        z = [(moments[i] * moments[j]).sum() / 3**power for power, moments in ((1, means), (2, seconds), (3, thirds))]
        return float(1 + 3 * z[0] + 3 * z[1] + z[2])

    exact = expected(0, 0) + expected(1, 1) - 2 * expected(0, 1)
    sets = [
        [normal(generator, n, 3) @ r.T + m for n, r, m in zip((20, 35), roots, means, strict=True)] for _ in range(500)
    ]
    mean_is([kernel_distance(*pair) for pair in sets], exact)


@pytest.mark.parametrize("distance", [kernel_distance, lambda x, y: float(mmd(x, y, bandwidth=1.5))])
def test_discrepancies_of_equal_laws_have_mean_zero(distance, generator):
    values = [distance(normal(generator, 15, 4), normal(generator, 25, 4)) for _ in range(500)]
    mean_is(values, 0.0)
    assert min(values) < 0


def test_mmd_is_scikit_learns_kernel_averaged(generator):
    x, y = normal(generator, 31, 3), normal(generator, 42, 3, shift=0.5)
    both = torch.cat([x, y]).numpy()
    for bandwidth in (0.8, None):  # 73 points have an even number of pairs: the lower median
        h = bandwidth or np.sort(scipy.spatial.distance.pdist(both))[(73 * 72 // 2 - 1) // 2]
        within = [(rbf_kernel(v, gamma=1 / (2 * h**2)).sum() - len(v)) / (len(v) * (len(v) - 1)) for v in (x, y)]
        expected = sum(within) - 2 * rbf_kernel(x, y, gamma=1 / (2 * h**2)).mean()
        assert float(mmd(x, y, bandwidth=bandwidth)) == pytest.approx(expected, rel=1e-9)


def test_mmd_of_two_gaussians_has_its_closed_form_as_mean(generator):
    """E k = det(I + C/h^2)^(-1/2) exp(-m^T (C + h^2 I)^{-1} m / 2), m and C those of x - y."""
    h, scale, shift = 0.9, 1.6, torch.tensor([0.7, -0.3]).double()

    def expected(variance, m):
        return math.exp(-0.5 * float(m @ m) / (variance + h**2)) / (1 + variance / h**2)

    exact = expected(2, 0 * shift) + expected(2 * scale**2, 0 * shift) - 2 * expected(1 + scale**2, shift)
    values = [
        float(mmd(normal(generator, 30, 2), normal(generator, 20, 2, scale=scale) + shift, bandwidth=h))
        for _ in range(500)
    ]
    mean_is(values, exact)


def test_mmd_can_be_differentiated(generator):
    x, y = normal(generator, 6, 2).requires_grad_(), normal(generator, 5, 2)
    assert torch.autograd.gradcheck(lambda x: mmd(x, y, bandwidth=1.2), x)


def test_in_pieces_kernels_and_coverage_are_the_same(generator, monkeypatch):
    x, y = normal(generator, 23, 3), normal(generator, 17, 3, shift=0.4)
    whole = kernel_distance(x, y), float(mmd(x, y)), *density_coverage(x, y)
    monkeypatch.setattr(metrics.kernels, "CHUNK", 5)
    monkeypatch.setattr(metrics.neighbours, "CHUNK", 5)
    assert (kernel_distance(x, y), float(mmd(x, y)), *density_coverage(x, y)) == pytest.approx(whole, rel=1e-10)


def test_sliced_wasserstein_of_gaussians_tends_to_its_closed_form(generator):
    """N(0, I) and N(m, s^2 I): every projection has (m . theta)^2 + (1 - s)^2, so |m|^2 / D + (1 - s)^2."""
    m, s, n = torch.tensor([1.0, 0.0, 2.0]).double(), 1.5, 4000
    squares = [
        float(sliced_wasserstein(normal(generator, n, 3), s * normal(generator, n, 3) + m, generator=generator)) ** 2
        for _ in range(8)
    ]
    mean_is(squares, 5 / 3 + 0.25, slack=4e-3)


# -- neighbours --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("k", [1, 4])
def test_density_and_coverage_are_their_definition(k, generator):
    """By scikit-learn's neighbours, point by point; the sets differ in size and in spread."""
    real, generated = normal(generator, 80, 2), normal(generator, 50, 2, scale=0.6, shift=0.5)
    radii = NearestNeighbors(n_neighbors=k + 1).fit(real.numpy()).kneighbors(real.numpy())[0][:, -1]
    inside = np.linalg.norm(generated[:, None].numpy() - real.numpy(), axis=-1) <= radii
    expected = inside.sum() / (k * 50), inside.any(0).mean()
    assert density_coverage(real, generated, k=k) == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize(("n", "m", "k", "d"), [(30, 30, 5, 2), (40, 15, 3, 10)])
def test_density_and_coverage_of_equal_laws_have_their_exact_means(n, m, k, d, generator):
    """Whatever the law: a generated point's rank among the real ones around a real one is uniform."""
    values = torch.tensor([density_coverage(normal(generator, n, d), normal(generator, m, d), k=k) for _ in range(500)])
    empty = math.prod((n - i) / (n + m - i) for i in range(1, k + 1))
    mean_is(values[:, 0], 1.0)
    mean_is(values[:, 1], 1 - empty)


def test_density_and_coverage_of_nested_gaussians_have_their_exact_means(generator):
    """N(0, 1) real, N(0, 1/4) generated: both means as integrals over a real point and its ball's radius."""
    n, m, k, s = 25, 40, 3, 0.5
    law = scipy.stats.norm

    def mass(x, r, scale):
        return law.cdf((x + r) / scale) - law.cdf((x - r) / scale)

    grid = np.linspace(-6, 6, 401)
    x, y = np.meshgrid(grid, grid / 2, indexing="ij")
    near = scipy.stats.binom.cdf(k - 1, n - 1, mass(x, abs(x - y), 1))
    inner = np.trapezoid(near * law.pdf(y, scale=s), grid / 2, axis=1)
    density = n / k * np.trapezoid(inner * law.pdf(grid), grid)
    r = np.linspace(0, 14, 1401)
    x, r_grid = np.meshgrid(grid, r, indexing="ij")
    within = scipy.stats.beta.cdf(mass(x, r_grid, 1), k, n - k)  # the law of the ball's radius
    empty = (1 - mass(x, r_grid, s)) ** m
    missed = ((within[:, 1:] - within[:, :-1]) * (empty[:, 1:] + empty[:, :-1]) / 2).sum(1)
    coverage = 1 - np.trapezoid(missed * law.pdf(grid), grid)
    values = [density_coverage(normal(generator, n, 1), normal(generator, m, 1, scale=s), k=k) for _ in range(1000)]
    values = torch.tensor(values)
    mean_is(values[:, 0], density)
    mean_is(values[:, 1], coverage)
    assert density > 1.04
    assert coverage < 0.85


def test_density_and_coverage_of_disjoint_laws_are_zero(generator):
    real, far = normal(generator, 60, 3), normal(generator, 60, 3, shift=50.0)
    assert density_coverage(real, far) == (0.0, 0.0)
    assert density_coverage(real, torch.cat([real, far]))[1] == 1.0  # a copy is in its own point's ball


def test_a_share_of_copies_is_seen_as_such(generator):
    """q of the samples are copies, the others like held-out data: (1 + q) / 2, and z near 0 at q = 0."""
    q, shares, z = 0.3, [], []
    for _ in range(150):
        train, held_out, new = (normal(generator, n, 2, 2) for n in (60, 50, 70))
        copies = train[torch.randperm(60, generator=generator)[:30]]
        shares.append(memorisation(torch.cat([new, copies]), train, held_out)[0])
        z.append(memorisation(new, train, held_out)[1])
    mean_is(shares, (1 + q) / 2)
    mean_is(z, 0.0)
    assert scipy.stats.kstest(z, "norm").pvalue > 0.01
    assert memorisation(train, train, held_out) == (1.0, pytest.approx(math.sqrt(3 * 60 * 50 / 111), rel=0.1))
    assert memorisation(held_out, train, held_out) == (0.5, 0.0)


def test_memorisation_is_the_test_of_mann_and_whitney_by_scipy(generator):
    """With ties: points on a grid."""
    x, train, held_out = (normal(generator, n, 2).mul(2).round() for n in (30, 20, 40))
    distance = [torch.cdist(v, train).min(1).values.numpy() for v in (held_out, x)]
    other = scipy.stats.mannwhitneyu(*distance, method="asymptotic", use_continuity=False, alternative="greater")
    share, z = memorisation(x, train, held_out)
    assert share == pytest.approx(other.statistic / 1200, abs=1e-12)
    assert scipy.stats.norm.sf(z) == pytest.approx(other.pvalue, rel=1e-9)
    ones = torch.ones(4, 2)
    assert memorisation(ones, 0 * ones, ones) == (0.5, 0.0)


# -- a classifier ------------------------------------------------------------------------------------------------------


def laws(shift, scale, n_dims):
    """Total variation between N(0, I) and N(shift, scale^2 I), and log p - log q."""

    def log_ratio(x):
        far = ((x - shift) ** 2).sum(1) / (2 * scale**2)
        return far - (x**2).sum(1) / 2 + n_dims * math.log(scale)

    if scale == 1:
        return math.erf(shift * n_dims**0.5 / (2 * math.sqrt(2))), log_ratio
    edge = 2 * n_dims * math.log(scale) / (1 - scale**-2)  # both densities are equal at |x|^2 = edge
    chi2 = scipy.stats.chi2(n_dims)
    return chi2.cdf(edge) - chi2.cdf(edge / scale**2), log_ratio


@pytest.mark.parametrize(("shift", "scale", "n_dims"), [(0.7, 1, 2), (0.0, 2, 3), (0.0, 1.25, 16)])
def test_the_best_classifier_has_half_and_half_the_total_variation(shift, scale, n_dims, generator):
    total_variation, log_ratio = laws(shift, scale, n_dims)
    n = 20_000
    x, y = normal(generator, n, n_dims), normal(generator, n // 2, n_dims, shift=shift, scale=scale)
    best = classifier_two_sample(x, y, classifier=log_ratio)
    assert best == pytest.approx(0.5 + total_variation / 2, abs=4 * 0.5 * (0.25 / n + 0.5 / n) ** 0.5)
    assert classifier_two_sample(x, y, classifier=lambda v: -log_ratio(v)) == pytest.approx(1 - best)


@pytest.mark.parametrize(
    ("shift", "scale", "n_dims", "short"), [(0.7, 1, 2, 0.01), (0.0, 2, 2, 0.02), (0.0, 1.25, 16, 0.05)]
)
def test_a_learned_classifier_comes_near_the_best(shift, scale, n_dims, short, generator):
    total_variation, _ = laws(shift, scale, n_dims)
    values = []
    for _ in range(6):
        x, y = normal(generator, 900, n_dims), normal(generator, 700, n_dims, shift=shift, scale=scale)
        values.append(classifier_two_sample(x, y, generator=generator))
    error = 4 * 0.5 / 1600**0.5 / 6**0.5
    best = 0.5 + total_variation / 2
    assert best - short - error < np.mean(values) < best + error


@pytest.mark.parametrize(("n", "m"), [(100, 100), (40, 160)])
def test_a_learned_classifier_has_one_half_on_equal_laws(n, m, generator):
    values = [
        classifier_two_sample(normal(generator, n, 3), normal(generator, m, 3), generator=generator) for _ in range(80)
    ]
    mean_is(values, 0.5, slack=0.005)


def test_a_learned_classifier_counts_both_sets_alike(generator):
    """Six times as many of one law: the boundary stays in the middle. Unweighted it would give 0.65, not Phi(0.75)."""
    x, y = normal(generator, 1200, 1), normal(generator, 200, 1, shift=1.5)
    best = scipy.stats.norm.cdf(0.75)
    error = 0.5 * (best * (1 - best) * (1 / 1200 + 1 / 200)) ** 0.5
    assert classifier_two_sample(x, y, generator=generator) == pytest.approx(best, abs=4 * error)


def test_a_learned_classifier_sees_shapes(generator):
    """A ring and eight spots on it have equal means and covariances."""
    angle = torch.rand(800, 2, generator=generator).double()
    angle[:, 1] = (8 * angle[:, 1]).floor() / 8
    rings = torch.stack([torch.cos(2 * math.pi * angle), torch.sin(2 * math.pi * angle)], -1)
    x, y = rings.unbind(1)
    assert classifier_two_sample(x, y + normal(generator, 800, 2, scale=0.1), generator=generator) > 0.6


def test_the_learned_classifier_is_a_ridge_regression_on_the_other_folds_by_scikit_learn(generator):
    x, y = normal(generator, 12, 2, shift=3.0), normal(generator, 8, 2, scale=2.0)
    got = classifier_two_sample(x, y, generator=torch.Generator().manual_seed(8))
    stream = torch.Generator().manual_seed(8)
    fold = torch.cat([torch.randperm(n, generator=stream) % 5 for n in (12, 8)]).numpy()
    both = torch.cat([x, y]).numpy()
    both = (both - both.mean(0)) / both.std(0)
    directions = torch.randn(2, 128, generator=stream, dtype=torch.float64)
    offsets = torch.randn(128, generator=stream, dtype=torch.float64).numpy()
    hidden = np.maximum(both @ (directions / directions.norm(dim=0)).numpy() + offsets, 0)
    spread = hidden.std(0)
    hidden = np.where(spread > 0, (hidden - hidden.mean(0)) / np.where(spread > 0, spread, 1), 0)
    features, sign = np.hstack([np.ones((20, 1)), both, hidden]), np.repeat([1.0, -1.0], [12, 8])
    right = np.zeros(20)
    for i in range(5):
        kept = fold != i
        weight = 0.5 / np.where(sign > 0, (kept & (sign > 0)).sum(), (kept & (sign < 0)).sum())
        fitted = Ridge(1e-2, fit_intercept=False).fit(features[kept], sign[kept], sample_weight=weight[kept])
        right[~kept] = fitted.predict(features[~kept]) * sign[~kept] > 0
    assert got == pytest.approx((right[:12].mean() + right[12:].mean()) / 2)


# -- standard errors ---------------------------------------------------------------------------------------------------


def gap(x, y):
    """A linear metric: the difference of means."""
    return (y.mean() - x.mean()).item()


def test_the_jackknife_of_a_difference_of_means_is_the_textbooks(generator):
    """One point a group: the difference itself, and s^2/n + s'^2/n where both sets are cut alike."""
    x, y = normal(generator, 30, 1), normal(generator, 30, 1, shift=0.5, scale=2.0)
    value, error = standard_error(gap, x, y, n_groups=30)
    assert value == pytest.approx(gap(x, y), rel=1e-9)
    assert error == pytest.approx(float((y - x).std() / 30**0.5), rel=1e-9)


def test_the_jackknifes_groups_are_random(generator):
    """Points in the order of their values: groups of neighbours would give an error three times too large."""
    x, y = normal(generator, 400, 1).sort(dim=0).values, normal(generator, 400, 1)
    _, error = standard_error(gap, x, y, generator=generator)
    assert error < (1 + 4 / (2 * 19) ** 0.5) * (2 / 400) ** 0.5


def test_what_two_samplers_have_in_common_is_no_error(generator):
    """Pairs with correlation 0.95: the error of the difference is that of the pairs' differences."""
    real, first = normal(generator, 50, 1), normal(generator, 40, 1)
    second = 0.95 * first + normal(generator, 40, 1, scale=(1 - 0.95**2) ** 0.5, shift=0.1)
    value, error = paired_difference(gap, real, first, second, n_groups=40, generator=generator)
    assert value == pytest.approx(float((first - second).mean()), rel=1e-9)
    assert error == pytest.approx(float((first - second).std() / 40**0.5), rel=1e-9)
    shuffled = second[torch.randperm(40, generator=generator)]
    assert paired_difference(gap, real, first, shuffled, n_groups=40)[1] > 2 * error
    assert paired_difference(gap, real, first, first) == (0.0, 0.0)


def test_the_jackknife_takes_off_the_bias_of_order_one_over_n_and_knows_its_error(generator):
    """|mean|^2 of n points of N(0, I) is biased by D/n. With its mean off by m: z has mean 0 and variance 1."""
    values, errors = [], []
    for _ in range(200):
        x, y = normal(generator, 120, 3), normal(generator, 103, 3, shift=0.5)
        value, error = standard_error(lambda x, y: (x.mean(0) - y.mean(0)).square().sum(), x, y, generator=generator)
        values.append(value)
        errors.append(error)
    mean_is(values, 0.75)
    assert np.mean(np.square(errors)) == pytest.approx(np.var(values), rel=4 * (2 / 200) ** 0.5)


def test_the_jackknife_of_a_frechet_distance_is_nearly_free_of_bias(generator):
    values = [
        standard_error(frechet_distance, normal(generator, 200, 4), normal(generator, 200, 4), generator=generator)[0]
        for _ in range(12)
    ]
    bias = (4 + 4 * 5 / 4) * 2 / 200
    mean_is(values, 0.0, slack=0.05 * bias)


def test_two_samplers_are_compared_by_any_metric(generator):
    """The one that is off by 0.1 is further by |m|^2 = 0.03, up to the product of both means' errors."""
    real, noise = normal(generator, 400, 3), normal(generator, 400, 3)
    for metric in (frechet_distance, kernel_distance, mmd):
        difference, error = paired_difference(metric, real, noise + 0.5, noise, generator=generator)
        assert difference > 4 * error > 0


# -- refusals ----------------------------------------------------------------------------------------------------------

X = torch.arange(15.0).reshape(5, 3)


@pytest.mark.parametrize(
    ("call", "match"),
    [
        (lambda: frechet_extrapolated(X, X, (3,)), r"^sizes: expected at least two different ones, got \[3\]"),
        (lambda: frechet_extrapolated(X, X, (3, 3)), r"^sizes: expected at least two different ones"),
        (lambda: frechet_extrapolated(X, X[:4], (3, 5)), r"^sizes: expected 2 to 4, got 3 to 5"),
        (lambda: frechet_extrapolated(X, X, (1, 5)), r"^sizes: expected 2 to 5, got 1 to 5"),
        (lambda: frechet_extrapolated(X, X[:, :2], (2, 5)), r"^generated: expected shape"),
        (lambda: kernel_distance(X, X, degree=0), r"^degree: expected at least 1"),
        (lambda: kernel_distance(X[:1], X), r"^real: expected features of at least two images"),
        (lambda: mmd(X, X[:, :2]), r"^y: expected dimension"),
        (lambda: mmd(X, X, bandwidth=-1.0), r"^bandwidth: expected values > 0"),
        (lambda: mmd(X * 0, X * 0), r"^bandwidth: half of the distances are 0; give one"),
        (lambda: density_coverage(X, X), r"^k: expected less than 5, the real set's size, got 5"),
        (lambda: memorisation(X, X[:, :2], X), r"^train: expected shape \(1, 3\) like x, got \(1, 2\)"),
        (lambda: memorisation(X, X, X.double()), r"^held_out: expected dtype"),
        (lambda: memorisation(X, X[:0], X), r"^train: expected at least one point"),
        (lambda: classifier_two_sample(X, X[:1]), r"^y: expected at least two points"),
        (lambda: classifier_two_sample(X, X, classifier=lambda x: x), r"^classifier's value: expected shape \(10,\)"),
        (lambda: classifier_two_sample(X, X, classifier=lambda x: 1), r"^classifier's value: expected a torch.Tensor"),
        (lambda: standard_error(gap, X, X), r"^n_groups: expected at most 5, the smallest set's size, got 20"),
        (lambda: standard_error(gap, X, X, n_groups=1), r"^n_groups: expected at least 2"),
        (lambda: standard_error(gap, X, X * math.nan), r"^generated: has NaN"),
        (lambda: standard_error(lambda x, y: math.nan, X, X, n_groups=2), r"^metric's value: expected a finite number"),
        (lambda: standard_error(lambda x, y: "1", X, X, n_groups=2), r"^metric's value: expected a number"),
        (lambda: paired_difference(gap, X, X, X[:4], n_groups=2), r"^second: expected 5 points like first, got 4"),
    ],
)  # fmt: skip
def test_refusals(call, match):
    with pytest.raises((ValueError, TypeError), match=match):
        call()
