"""Distances between samples against scipy, POT, scikit-learn and closed forms, and under equal laws."""

import math

import numpy as np
import ot
import pytest
import scipy.linalg
import scipy.stats
import torch
from sklearn.neighbors import NearestNeighbors

from coursework.metrics import (
    energy_distance,
    energy_test,
    frechet_distance,
    image_features,
    inception_score,
    nearest_distances,
    precision_recall,
    sliced_wasserstein,
)
from coursework.nn import Classifier

pytestmark = pytest.mark.usefixtures("one_thread")


def normal(generator, *shape, shift=0.0):
    return torch.randn(shape, generator=generator, dtype=torch.float64) + shift


def test_energy_distance_is_scipys_but_for_the_pairs_of_a_point_with_itself(generator):
    x, y = normal(generator, 40, 1), 1.5 * normal(generator, 70, 1, shift=0.4)
    biased = scipy.stats.energy_distance(x[:, 0].numpy(), y[:, 0].numpy()) ** 2
    within = [float(torch.cdist(v, v).mean()) for v in (x, y)]  # with the zeros on the diagonal
    unbiased = biased + within[0] + within[1] - within[0] * 40 / 39 - within[1] * 70 / 69
    assert float(energy_distance(x, y)) == pytest.approx(unbiased, rel=1e-10)


def test_energy_distance_of_two_gaussians_has_its_closed_form(generator):
    """In one dimension E|N(m, s^2)| is known: s sqrt(2/pi) exp(-m^2/2s^2) + m erf(m / (s sqrt 2))."""
    m, s = 0.7, math.sqrt(2)
    across = s * math.sqrt(2 / math.pi) * math.exp(-(m**2) / (2 * s**2)) + m * math.erf(m / (s * math.sqrt(2)))
    exact = 2 * across - 2 * 2 / math.sqrt(math.pi)
    values = torch.stack(
        [energy_distance(normal(generator, 200, 1, shift=m), normal(generator, 150, 1)) for _ in range(300)]
    )
    assert abs(float(values.mean()) - exact) < 4 * float(values.std()) / 300**0.5


def test_energy_distance_of_equal_laws_has_mean_zero(generator):
    values = torch.stack([energy_distance(normal(generator, 50, 3), normal(generator, 80, 3)) for _ in range(400)])
    assert abs(float(values.mean())) < 4 * float(values.std()) / 400**0.5
    assert float(values.min()) < 0


def test_energy_test_agrees_with_the_distance_and_is_uniform_under_equal_laws(generator):
    p_values = []
    for _ in range(150):
        x, y = normal(generator, 40, 2), normal(generator, 60, 2)
        distance, p = energy_test(x, y, n_permutations=99, generator=generator)
        assert distance == pytest.approx(float(energy_distance(x, y)), rel=1e-9)
        p_values.append(p)
    assert scipy.stats.kstest(p_values, "uniform").pvalue > 0.01
    assert energy_test(x, y + 100, n_permutations=99, generator=generator)[1] == pytest.approx(0.01)


@pytest.mark.parametrize("change", ["shift", "scale", "weights"])
def test_energy_test_sees_a_difference(change, generator):
    x, y = normal(generator, 1500, 2), normal(generator, 1500, 2)
    sign = torch.where(torch.rand(1500, 1, generator=generator) < 0.5, 4.0, -4.0)
    other = torch.where(torch.rand(1500, 1, generator=generator) < 0.58, 4.0, -4.0)
    x, y = {"shift": (x, y + 0.2), "scale": (x, 1.15 * y), "weights": (x + sign, y + other)}[change]
    assert energy_test(x, y, n_permutations=300, generator=generator)[1] < 0.01


def test_sliced_wasserstein_equals_pot_on_the_same_directions(generator):
    x, y = normal(generator, 60, 3), 1.4 * normal(generator, 60, 3, shift=0.5)
    state = generator.get_state()
    got = sliced_wasserstein(x, y, n_projections=20, generator=generator)
    generator.set_state(state)
    directions = torch.randn(3, 20, generator=generator, dtype=torch.float64)
    directions = (directions / directions.norm(dim=0)).numpy()
    expected = ot.sliced_wasserstein_distance(x.numpy(), y.numpy(), projections=directions, p=2)
    assert float(got) == pytest.approx(float(expected), rel=1e-9)


def test_sliced_wasserstein_of_a_shift_is_its_mean_projection(generator):
    """x and x + v: W2 of a projection is |v . theta|, and E (v . theta)^2 = |v|^2 / D."""
    x, v = normal(generator, 10, 4), torch.tensor([1.0, -2.0, 0.5, 3.0]).double()
    got = float(
        sliced_wasserstein(
            x, (x + v)[torch.randperm(10, generator=generator)], n_projections=20_000, generator=generator
        )
    )
    assert got == pytest.approx(float(v.norm()) / 2, rel=0.02)
    assert float(sliced_wasserstein(x, x.flip(0), generator=generator)) < 1e-15


def test_sliced_wasserstein_in_one_dimension_is_wasserstein(generator):
    x, y = normal(generator, 30, 1), 2 * normal(generator, 30, 1)
    expected = np.sqrt(ot.wasserstein_1d(x[:, 0].numpy(), y[:, 0].numpy(), p=2))
    assert float(sliced_wasserstein(x, y, n_projections=1, generator=generator)) == pytest.approx(
        float(expected), rel=1e-9
    )


@pytest.mark.parametrize("distance", [energy_distance, energy_test, sliced_wasserstein])
def test_refusals(distance):
    x = torch.zeros(5, 3)
    for bad, match in (
        (x[:, :2], r"^y: expected dimension, dtype and device of x"),
        (x.double(), r"^y: expected dimension, dtype and device of x"),
        (x * math.nan, r"^y: has NaN"),
        (x[:1], r"^y: expected at least two points \(N, D\), got shape \(1, 3\)"),
        (x[None], r"^y: expected at least two points"),
    ):
        with pytest.raises(ValueError, match=match):
            distance(x, bad)
    with pytest.raises(ValueError, match=r"^y: expected 5 points like x, got 4"):
        sliced_wasserstein(x, x[:4])


# -- images ------------------------------------------------------------------------------------------------------------


def test_frechet_distance_is_its_formula_by_scipy(generator):
    a = normal(generator, 300, 5) @ normal(generator, 5, 5) + 1
    b = normal(generator, 200, 5) @ normal(generator, 5, 5)
    mean, covariance = [v.mean(0).numpy() for v in (a, b)], [np.cov(v.numpy().T) for v in (a, b)]
    root = scipy.linalg.sqrtm(covariance[0] @ covariance[1]).real
    expected = ((mean[0] - mean[1]) ** 2).sum() + np.trace(covariance[0] + covariance[1] - 2 * root)
    assert frechet_distance(a, b) == pytest.approx(expected, rel=1e-8)
    assert frechet_distance(a.float(), b.float()) == pytest.approx(expected, rel=1e-4)
    assert frechet_distance(a, a) == pytest.approx(0, abs=1e-6)


def test_frechet_distance_of_two_gaussians_tends_to_its_closed_form(generator):
    """N(0, I) and N(m, s^2 I) in D dimensions: |m|^2 + D (s - 1)^2, plus a bias of order 1/n."""
    m, s, n = torch.tensor([1.0, 0.0, 2.0]).double(), 1.5, 40_000
    got = frechet_distance(normal(generator, n, 3), s * normal(generator, n, 3) + m)
    assert got == pytest.approx(5 + 3 * 0.25, abs=4 * 2 * s * math.sqrt(5 * 2 / n))


def test_inception_score_is_its_formula(generator):
    """Rows that are sure and evenly spread give the number of classes, equal rows give 1, any row the formula."""
    sure = 50 * torch.eye(4).double().repeat(100, 1)
    assert inception_score(sure, n_splits=1)[0] == pytest.approx(4)
    assert inception_score(torch.zeros(100, 4).double())[0] == pytest.approx(1)
    logits = 2 * normal(generator, 60, 4)
    p = logits.softmax(1).numpy()
    expected = math.exp(np.mean([scipy.stats.entropy(row, p.mean(0)) for row in p]))
    assert inception_score(logits, n_splits=1)[0] == pytest.approx(expected, rel=1e-9)
    state = torch.get_rng_state()
    assert inception_score(logits) == inception_score(logits)
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize("k", [1, 3])
def test_precision_and_recall_are_their_definition(k, generator):
    """By scikit-learn's neighbours, point by point; the sets differ in size and in spread."""
    real, generated = normal(generator, 80, 2), 0.6 * normal(generator, 50, 2) + 0.5

    def share(x, points):
        radii = NearestNeighbors(n_neighbors=k + 1).fit(points.numpy()).kneighbors(points.numpy())[0][:, -1]
        gaps = np.linalg.norm(x[:, None].numpy() - points.numpy(), axis=-1)
        return (gaps <= radii).any(1).mean()

    expected = share(generated, real), share(real, generated)
    assert precision_recall(real, generated, k=k) == pytest.approx(expected, abs=1e-12)
    assert expected[0] != pytest.approx(expected[1])


def test_precision_falls_with_bad_samples_and_recall_with_missing_ones(generator):
    real = normal(generator, 400, 2)
    bad = torch.cat([normal(generator, 200, 2), normal(generator, 200, 2) + 50])
    missing = normal(generator, 400, 2)
    missing = missing[missing[:, 0] > 0]
    assert precision_recall(real, bad)[0] == pytest.approx(0.5, abs=0.05)
    precision, recall = precision_recall(real, missing)
    assert precision > 0.9
    assert recall < 0.7


def test_nearest_distances_are_scikit_learns(generator):
    x, reference = normal(generator, 30, 1, 3, 2), normal(generator, 1200, 1, 3, 2)
    expected = NearestNeighbors(n_neighbors=1).fit(reference.flatten(1)).kneighbors(x.flatten(1))[0][:, 0]
    torch.testing.assert_close(nearest_distances(x, reference), torch.from_numpy(expected), rtol=1e-9, atol=1e-9)
    assert float(nearest_distances(reference[:5], reference).max()) < 1e-6


def test_features_come_batch_by_batch(generator):
    classifier, images = Classifier(3, widths=(8, 16)), torch.randn(7, 1, 8, 8, generator=generator)
    features, logits = image_features(classifier, images, batch_size=3)
    torch.testing.assert_close(logits, classifier(images))
    torch.testing.assert_close(features, classifier.features(images))
    assert not features.requires_grad


@pytest.mark.parametrize(
    ("call", "match"),
    [
        (lambda x: frechet_distance(x, x[:, :2]), r"^generated: expected shape"),
        (lambda x: frechet_distance(x[:1], x), r"^real: expected features of at least two images"),
        (lambda x: precision_recall(x, x[:3]), r"^k: expected less than 3, the smaller set's size, got 3"),
        (lambda x: precision_recall(x, x, k=0), r"^k: expected at least 1"),
        (lambda x: inception_score(x), r"^logits: expected shape \(N, K\) with N at least 10, got \(5, 3\)"),
        (lambda x: nearest_distances(x, x[:, :2]), r"^reference: expected points of shape \(3,\), got \(2,\)"),
    ],
)
def test_image_refusals(call, match):
    with pytest.raises(ValueError, match=match):
        call(torch.arange(15.0).reshape(5, 3))


def test_copies_are_at_distance_zero_and_near_copies_at_theirs(generator):
    """|x|^2 + |y|^2 - 2 x.y would give up to 0.016 for a copy of 784 numbers."""
    reference = torch.rand(2000, 1, 28, 28, generator=generator) * 2 - 1
    copies = reference[:300].clone()
    assert float(nearest_distances(copies, reference).max()) == 0
    copies[:, 0, 3, 4] += 1e-3
    torch.testing.assert_close(nearest_distances(copies, reference), torch.full((300,), 1e-3), rtol=1e-3, atol=0)
    far = torch.rand(40, 1, 28, 28, generator=generator) * 2 - 1
    exact = (far.double().flatten(1)[:, None] - reference.double().flatten(1)).norm(dim=2).min(1).values
    torch.testing.assert_close(nearest_distances(far, reference).double(), exact, rtol=1e-6, atol=0)


def test_precision_of_copies_of_tight_pairs(generator):
    """Pairs 1e-4 apart, far from one another: each copy is inside, whatever the size of the features."""
    centres = 100 * torch.randn(20, 64, generator=generator)
    real = torch.cat([centres, centres + 1e-4])
    assert precision_recall(real, real.clone(), k=1) == (1.0, 1.0)
    assert precision_recall(real, real + 0.01, k=1) == (0.0, 0.0)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_distances_in_half_precision_are_those_of_the_rounded_points(dtype, generator):
    x, y = (torch.randn(40, 3, generator=generator).to(dtype) for _ in range(2))
    torch.testing.assert_close(energy_distance(x, y), energy_distance(x.float(), y.float()))
    torch.testing.assert_close(nearest_distances(x, y), nearest_distances(x.float(), y.float()).to(dtype))
    assert precision_recall(x, y) == precision_recall(x.float(), y.float())


def test_copies_among_many_near_neighbours_and_far_from_the_origin(generator):
    """More points than candidates lie within the shortcut's rounding."""
    centre = torch.rand(1, 784, generator=generator) * 2 - 1
    close = centre + 1e-4 * torch.randn(500, 784, generator=generator)
    assert float(nearest_distances(close[:100], close).max()) == 0
    reference, x = (1e4 + torch.randn(n, 2, generator=generator) for n in (2000, 300))
    exact = (x[:, None] - reference).norm(dim=2).min(1).values
    torch.testing.assert_close(nearest_distances(x, reference), exact, rtol=1e-5, atol=1e-6)
    two_places = torch.cat([reference, -reference])  # where no centre helps the shortcut
    torch.testing.assert_close(nearest_distances(x, two_places), exact, rtol=1e-5, atol=1e-6)
    few = (x[:, None] - reference[:5]).norm(dim=2).min(1).values
    torch.testing.assert_close(nearest_distances(x, reference[:5]), few, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("metric", [precision_recall, frechet_distance, energy_distance])
def test_what_is_not_a_number_is_refused_by_metrics(metric):
    x = torch.randn(20, 2)
    broken = x.clone()
    broken[3, 1] = math.nan
    for pair in ((broken, x), (x, broken)):
        with pytest.raises(ValueError, match=r"has NaN or infinite values$"):
            metric(*pair)
