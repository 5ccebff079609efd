"""Power-function averages against their closed forms; reconstruction against direct averaging and quadrature."""

import math

import pytest
import torch
from scipy import integrate
from torch import nn

from coursework.averaging import (
    gamma_of,
    power_average,
    power_decay,
    profile_coefficients,
    profile_error,
    profile_product,
    reconstruct,
    sigma_rel_of,
)

pytestmark = pytest.mark.usefixtures("one_thread")

STORED = (0.05, 0.10)


def doubles(*values):
    return torch.tensor(values, dtype=torch.float64)


def stored(n, last=1.0):
    """Times and gammas of n snapshots of the two stored profiles."""
    times = [last * (k + 1) / n for k in range(n) for _ in STORED]
    return times, [gamma_of(s) for _ in range(n) for s in STORED]


def profile(gamma, time):
    return lambda tau: (gamma + 1) * tau**gamma / time ** (gamma + 1) if tau <= time else 0.0


# -- one average -------------------------------------------------------------------------------------------------------


def test_gamma_of_the_papers_widths_and_back():
    assert [gamma_of(s) for s in (0.05, 0.10)] == pytest.approx([16.97, 6.94], abs=0.005)
    for gamma in (0.0, 0.3, 2.0, 6.94, 100.0):
        assert gamma_of(sigma_rel_of(gamma)) == pytest.approx(gamma, rel=1e-9, abs=1e-6)
    assert sigma_rel_of(0) == pytest.approx(1 / math.sqrt(12), rel=1e-14)


@pytest.mark.parametrize("gamma", [0.0, 1.7, 6.94])
def test_sigma_rel_is_the_profiles_standard_deviation(gamma):
    p = profile(gamma, 1.0)
    mass, mean, square = (integrate.quad(lambda t, k=k: t**k * p(t), 0, 1, epsabs=1e-13)[0] for k in range(3))
    assert mass == pytest.approx(1, abs=1e-11)
    assert sigma_rel_of(gamma) == pytest.approx(math.sqrt(square - mean**2), rel=1e-9)


@pytest.mark.parametrize("gamma", [0.0, 1.0, 6.94])
def test_the_decay_gives_every_step_its_share_of_the_profile(gamma):
    n = 12
    shares = power_average(torch.eye(n, dtype=torch.float64), gamma)
    steps = torch.arange(1, n + 1).double()
    expected = (steps ** (gamma + 1) - (steps - 1) ** (gamma + 1)) / n ** (gamma + 1)
    torch.testing.assert_close(shares, expected, rtol=1e-12, atol=1e-15)
    p = profile(gamma, float(n))
    integrals = [integrate.quad(p, k, k + 1, epsabs=1e-13)[0] for k in range(n)]
    torch.testing.assert_close(shares, doubles(*integrals), rtol=1e-9, atol=1e-12)
    if gamma == 0:
        torch.testing.assert_close(shares, torch.full((n,), 1 / n).double())
    if gamma == 1:
        torch.testing.assert_close(shares, (2 * steps - 1) / n**2)
    assert power_decay(1, gamma) == 0.0


def test_an_average_takes_steps_one_by_one_and_in_any_precision(generator):
    weights = torch.randn(9, 2, 3, generator=generator, dtype=torch.float64)
    expected = power_average(weights, 3.0)
    torch.testing.assert_close(power_average((w for w in weights), 3.0), expected)
    low = power_average(weights.half(), 3.0)
    assert low.dtype == torch.float16
    torch.testing.assert_close(low.double(), expected, rtol=0, atol=3e-3)
    assert power_average(weights[:1], 3.0).equal(weights[0])


def test_a_training_loop_may_change_the_weights_in_place():
    def training():
        w = torch.zeros(3)
        for _ in range(4):
            w += 1
            yield w

    torch.testing.assert_close(power_average(training(), 0.0), torch.full((3,), 2.5))
    weights = torch.ones(1, 3)
    average = power_average(weights, 1.0)
    average += 5
    assert torch.equal(weights, torch.ones(1, 3))


# -- others from it ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("gamma_a", "time_a", "gamma_b", "time_b"), [
    (16.97, 1.0, 6.94, 0.6), (6.94, 0.25, 16.97, 1.0), (0.0, 2.0, 3.0, 2.0), (1.5, 0.7, 0.5, 3.0), (4.0, 5.0, 4.0, 5.0),
])  # fmt: skip
def test_products_of_profiles_are_their_integrals(gamma_a, time_a, gamma_b, time_b):
    a, b = profile(gamma_a, time_a), profile(gamma_b, time_b)
    exact, _ = integrate.quad(lambda t: a(t) * b(t), 0, min(time_a, time_b), epsabs=1e-14, epsrel=1e-12, limit=200)
    got = profile_product(gamma_a, time_a, gamma_b, time_b)
    assert float(got) == pytest.approx(exact, rel=1e-10)
    assert float(profile_product(gamma_b, time_b, gamma_a, time_a)) == pytest.approx(exact, rel=1e-10)


def test_eight_snapshots_rebuild_other_profiles_as_well_as_said():
    times, gammas = stored(8)
    widths = (0.075, 0.10, 0.125, 0.15, 0.20, 0.25)
    errors = [profile_error(times, gammas, gamma_of(s), 1.0) for s in widths]
    assert errors == pytest.approx([0.0125, 0.0, 0.0162, 0.0331, 0.0771, 0.1804], abs=6e-5)
    later = [profile_error([1000 * t for t in times], gammas, gamma_of(s), 1000) for s in widths]
    assert later == pytest.approx(errors, abs=1e-6)
    assert profile_error(*stored(16), gamma_of(0.2), 1.0) < 0.5 * profile_error(times, gammas, gamma_of(0.2), 1.0)


def test_errors_and_coefficients_against_quadrature():
    times, gammas = stored(4)
    target = gamma_of(0.15)
    x = profile_coefficients(times, gammas, target, 1.0)
    assert float(x.sum()) == pytest.approx(1, abs=1e-12)

    def distance(x):
        def square(tau):
            sum_ = sum(float(c) * profile(g, t)(tau) for c, g, t in zip(x, gammas, times, strict=True))
            return (sum_ - profile(target, 1.0)(tau)) ** 2

        parts = [integrate.quad(square, k / 4, (k + 1) / 4, epsabs=1e-12)[0] for k in range(4)]
        return sum(parts) / float(profile_product(target, 1.0, target, 1.0))

    least = distance(x)
    assert math.sqrt(least) == pytest.approx(profile_error(times, gammas, target, 1.0), rel=1e-6)
    for i in range(0, 8, 3):
        moved = x.clone()
        moved[i] += 0.02
        moved[(i + 1) % 8] -= 0.02
        assert distance(moved) > least, "it is the least of those whose sum is 1"


def test_reconstruction_of_averages_that_are_known():
    """Of weights tau^k the average is (gamma + 1) / (gamma + k + 1) t^k; a profile off by e is off by at most
    e |p| |tau^k| in it (Cauchy and Schwarz), and by nothing in what never changes."""
    times, gammas = stored(8)

    def averages(gamma, t):
        return {f"w{k}": doubles((gamma + 1) / (gamma + k + 1) * t**k) for k in range(4)}

    snapshots = [averages(g, t) for g, t in zip(gammas, times, strict=True)]
    for width in (0.05, 0.075, 0.15, 0.25):
        target = gamma_of(width)
        got, exact = reconstruct(snapshots, times, gammas, target, 1.0), averages(target, 1.0)
        error = profile_error(times, gammas, target, 1.0)
        size = math.sqrt(float(profile_product(target, 1.0, target, 1.0)))
        assert float(got["w0"]) == pytest.approx(1, abs=1e-10)
        for k in range(1, 4):
            bound = error * size / math.sqrt(2 * k + 1) + 1e-6
            assert abs(float(got[f"w{k}"] - exact[f"w{k}"])) <= bound, (width, k)
    earlier = reconstruct(snapshots, times, gammas, gamma_of(0.1), 0.5)
    assert float(earlier["w2"]) == pytest.approx(float(averages(gamma_of(0.1), 0.5)["w2"]), abs=1e-7)


def test_reconstruction_of_a_training_run(generator):
    """The weights of a random walk with a drift, averaged on the way, then a third average from the stored ones."""
    n, every = 800, 100
    walk = 5 + 0.05 * torch.randn(n, 40, generator=generator, dtype=torch.float64).cumsum(0)
    times, gammas = stored(8, last=n)
    snapshots = [
        {"layer.weight": power_average(walk[: int(t)], g).reshape(8, 5).float(), "count": torch.tensor(int(t))}
        for t, g in zip(times, gammas, strict=True)
    ]
    assert {int(t) % every for t in times} == {0}
    for width, tolerance in ((0.075, 0.01), (0.10, 1e-4), (0.15, 0.03)):
        got = reconstruct(snapshots, times, gammas, gamma_of(width), n)
        direct = power_average(walk, gamma_of(width)).reshape(8, 5)
        moved = float((walk[-1].reshape(8, 5) - direct).square().mean().sqrt())
        assert float((got["layer.weight"].double() - direct).square().mean().sqrt()) < tolerance * moved + 1e-5
        assert (got["layer.weight"].dtype, int(got["count"])) == (torch.float32, n)


def test_a_profile_that_was_stored_comes_back_also_when_it_was_stored_twice():
    a, b = ({"w": doubles(v)} for v in (1.0, 2.0))
    for snapshots, times, gammas in (([a, b], [1.0, 2.0], [3.0, 5.0]), ([b, a, b], [2.0, 1.0, 2.0], [5.0, 3.0, 5.0])):
        assert float(reconstruct(snapshots, times, gammas, 5.0, 2.0)["w"]) == pytest.approx(2.0, abs=1e-9)


def test_state_dicts_go_back_into_a_network():
    net = nn.Sequential(nn.Linear(3, 2), nn.BatchNorm1d(2))
    states = [{k: v + i for k, v in net.state_dict().items()} for i in (1, 2)]
    got = reconstruct(states, [10, 20], [2.0, 2.0], 2.0, 20)
    net.load_state_dict(got)
    for name, value in got.items():
        torch.testing.assert_close(value, states[1][name], rtol=1e-6, atol=1e-6)
    assert int(got["1.num_batches_tracked"]) == 2


# -- refusals ----------------------------------------------------------------------------------------------------------

TWO = [{"w": torch.ones(2)}, {"w": torch.ones(2)}]


@pytest.mark.parametrize(
    ("call", "match"),
    [
        (lambda: gamma_of(0.3), r"^sigma_rel: expected at most 1 / sqrt\(12\) = 0.2887, got 0.3"),
        (lambda: gamma_of(0.0), r"^sigma_rel: expected values > 0"),
        (lambda: sigma_rel_of(-1.0), r"^gamma: expected values >= 0, got -1"),
        (lambda: power_decay(0, 1.0), r"^step: expected at least 1, got 0"),
        (lambda: power_average([], 1.0), r"^weights: expected at least one step"),
        (lambda: power_average(torch.tensor(1.0), 1.0), r"^weights: expected shape \(n_steps, \*S\)"),
        (lambda: power_average([torch.ones(2), torch.ones(3)], 1.0), r"^weights: expected shape \(2,\) like the first"),
        (lambda: profile_product(-1.0, 1.0, 1.0, 1.0), r"^gamma_a: expected finite values >= 0"),
        (lambda: profile_product(1.0, 1.0, 1.0, 0.0), r"^time_b: expected values > 0"),
        (lambda: reconstruct(TWO, [1.0], [2.0], 2.0, 1.0), r"^snapshots: expected 1, one for each of times, got 2"),
        (lambda: reconstruct(TWO, [1.0, 2.0], [2.0], 2.0, 1.0), r"^gammas: expected shape \(2,\) like times"),
        (lambda: reconstruct(TWO, [1.0, 2.0], [2.0, 2.0], 2.0, 3.0), r"^target_time: expected at most 2"),
        (lambda: reconstruct(TWO, [0.0, 2.0], [2.0, 2.0], 2.0, 1.0), r"^times: expected values > 0"),
        (
            lambda: reconstruct([TWO[0], {"v": torch.ones(2)}], [1.0, 2.0], [2.0, 2.0], 2.0, 1.0),
            r"^snapshots: expected the same names in all, 'v' is not in all",
        ),
        (
            lambda: reconstruct([TWO[0], {"w": torch.ones(3)}], [1.0, 2.0], [2.0, 2.0], 2.0, 1.0),
            r"^snapshots: expected the same shapes in all, 'w' has \(3,\) and \(2,\)",
        ),
    ],
)
def test_refusals(call, match):
    with pytest.raises(ValueError, match=match):
        call()


@pytest.mark.parametrize(
    ("snapshots", "match"),
    [
        (TWO[0], "expected several state dicts, got dict"),
        (3, "expected several state dicts, got int"),
        ([[torch.ones(2)], [torch.ones(2)]], "expected state dicts, got list"),
        ([TWO[0], {"w": 1.0}], "expected tensors, 'w' is of type float"),
        (
            [TWO[0], {"w": torch.ones(2).long()}],
            "expected the same kind of number in all, 'w' has torch.int64 and torch.float32",
        ),
    ],
)
def test_what_is_no_state_dict_is_refused(snapshots, match):
    with pytest.raises((TypeError, ValueError), match=f"^snapshots: {match}$"):
        reconstruct(snapshots, [1.0, 2.0], [2.0, 2.0], 2.0, 1.0)
    got = reconstruct(iter(TWO), [1.0, 2.0], [2.0, 2.0], 2.0, 1.0)
    torch.testing.assert_close(got["w"], torch.ones(2))
