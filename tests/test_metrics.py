"""Distances between samples against scipy, POT and closed forms, and under the hypothesis of equal laws."""

import math

import numpy as np
import ot
import pytest
import scipy.stats
import torch

from coursework.metrics import energy_distance, energy_test, sliced_wasserstein

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
