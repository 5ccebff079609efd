"""Objectives against closed forms on linear scores, against one another on one law, and against exact floors."""

import math

import pytest
import torch
from scipy.integrate import quad
from scipy.stats import kstest

import coursework.score_matching as module
from coursework.distributions import GaussianMixture, exact_score
from coursework.score_matching import (
    denoising_objective,
    denoising_score_matching,
    explicit_score_matching,
    hutchinson_trace,
    implicit_score_matching,
    sliced_score_matching,
)
from coursework.sdes import VESDE, VPSDE, SubVPSDE
from tests.helpers.laws import points, random_mixture

pytestmark = pytest.mark.usefixtures("one_thread")
PROBES = ("rademacher", "gaussian", "sphere")
SDES = (VPSDE(), VESDE(), SubVPSDE())
each_sde = pytest.mark.parametrize("sde", SDES, ids=lambda sde: type(sde).__name__)
each_probe = pytest.mark.parametrize("probe", PROBES)

MATRIX = torch.tensor(  # not symmetric, not diagonal
    [[-1.0, 0.7, 0.2], [0.1, 0.5, -0.9], [-0.6, 0.4, -2.0]], dtype=torch.float64
)
SYMMETRIC = (MATRIX + MATRIX.T) / 2
OFFSET = torch.tensor([0.3, -0.5, 0.8], dtype=torch.float64)


def linear(x):
    """s(x) = A x + b."""
    return x @ MATRIX.T + OFFSET


def cube(x):
    """s(x) = x^3, whose Jacobian is diagonal."""
    return x**3


def squares(x):
    """|x|^2 of each point."""
    return (x**2).flatten(1).sum(1)


def standard_errors(values, expected=0.0):
    """How many standard errors the mean over the first axis is away from what is expected."""
    return (values.mean(0) - expected).abs() / (values.std(0) / len(values) ** 0.5)


def over_batches(loss, x, n_batches=50):
    """`loss` of each of n batches: independent values whose spread gives the standard error of their mean."""
    return torch.stack([loss(piece) for piece in x.chunk(n_batches)])


# -- closed forms --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(5, 3), (3, 3), (4, 2, 3, 3)])
def test_explicit_is_half_the_mean_squared_distance_summed_over_dimensions(shape):
    x = points(math.prod(shape), 1).reshape(shape)
    result = explicit_score_matching(lambda x: -0.7 * x + 1, x, lambda x: -2 * x)
    expected = 0.5 * sum(float(((1.3 * point + 1) ** 2).sum()) for point in x) / len(x)
    assert float(result) == pytest.approx(expected, rel=1e-12)


def test_implicit_of_a_linear_score_is_trace_plus_half_square():
    x = points(5, 3)
    expected = MATRIX.trace() + 0.5 * squares(linear(x)).mean()
    torch.testing.assert_close(implicit_score_matching(linear, x), expected, rtol=1e-12, atol=0)


@pytest.mark.parametrize("shape", [(5, 3), (3, 3), (4, 2, 3, 3), (1, 2), (2, 1)])
def test_implicit_takes_the_trace_at_each_point_and_in_any_shape(shape):
    x = points(math.prod(shape), 1).reshape(shape)
    expected = (3 * squares(x) + 0.5 * squares(x**3)).mean()
    torch.testing.assert_close(implicit_score_matching(cube, x), expected, rtol=1e-12, atol=0)


def test_implicit_on_a_standard_normal_is_d_times_half_a_squared_plus_a(generator):
    x, d = torch.randn(20_000, 3, generator=generator, dtype=torch.float64), 3
    for a in (-2.0, -1.0, 0.5):
        values = over_batches(lambda piece, a=a: implicit_score_matching(lambda x: a * x, piece), x)
        assert standard_errors(values, d * (a**2 / 2 + a)) < 4


def test_hutchinson_with_rademacher_probes_is_exact_for_a_diagonal_jacobian(generator):
    x = points(7, 3)
    result = hutchinson_trace(cube, x, generator=generator)
    torch.testing.assert_close(result, 3 * squares(x), rtol=1e-12, atol=0)
    image = points(36, 2).reshape(4, 2, 3, 3)
    torch.testing.assert_close(hutchinson_trace(cube, image, generator=generator), 3 * squares(image))


@pytest.mark.parametrize("probe", ["rademacher", "sphere"])
def test_probes_of_fixed_length_are_exact_for_multiples_of_the_identity(probe, generator):
    x = points(7, 3)
    result = hutchinson_trace(lambda x: -0.7 * x, x, probe=probe, n_probes=2, generator=generator)
    torch.testing.assert_close(result, torch.full((7,), -2.1, dtype=torch.float64), rtol=1e-12, atol=0)
    loss = sliced_score_matching(lambda x: -0.7 * x, x, projection=probe, generator=generator)
    torch.testing.assert_close(loss, -2.1 + 0.245 * squares(x).mean(), rtol=1e-12, atol=0)


# -- probes, sliced and Hutchinson ---------------------------------------------------------------------------------


@each_probe
def test_probes_are_uncorrelated_with_unit_variance(probe, generator):
    d = 3
    v = module.draw_probe(torch.zeros(40_000, d, dtype=torch.float64), probe, generator)
    assert standard_errors(v).max() < 4
    assert (
        standard_errors(v[:, :, None] * v[:, None, :] - torch.eye(d, dtype=torch.float64))[~torch.eye(d).bool()].max()
        < 4
    )
    fourth = {"rademacher": 1.0, "gaussian": 3.0, "sphere": 3 * d / (d + 2)}[probe]
    torch.testing.assert_close((v**2).mean(0), torch.ones(d).double(), rtol=0.03, atol=0)
    torch.testing.assert_close((v**4).mean(0), torch.full((d,), fourth).double(), rtol=0.08, atol=0)
    if probe != "gaussian":
        torch.testing.assert_close(squares(v), torch.full((len(v),), float(d)).double(), rtol=1e-12, atol=0)


@each_probe
def test_probes_differ_between_points_and_have_their_dtype_and_shape(probe, generator):
    x = torch.zeros(4, 2, 3, 3)
    v = module.draw_probe(x, probe, generator)
    assert (v.shape, v.dtype) == (x.shape, x.dtype)
    assert all(not torch.equal(v[i], v[j]) for i in range(4) for j in range(i))


@pytest.mark.parametrize("variance_reduced", [True, False])
def test_sliced_is_its_formula_for_given_directions(variance_reduced, monkeypatch):
    x, directions = points(5, 3), points(10, 3, seed=9).reshape(2, 5, 3)
    stream = iter(directions)
    monkeypatch.setattr(module, "draw_probe", lambda *_: next(stream))
    result = sliced_score_matching(linear, x, n_projections=2, variance_reduced=variance_reduced)
    s = linear(x)
    values = [
        v @ MATRIX @ v + (0.5 * s[i] @ s[i] if variance_reduced else 0.5 * (v @ s[i]) ** 2)
        for direction in directions
        for i, v in enumerate(direction)
    ]
    torch.testing.assert_close(result, torch.stack(values).mean(), rtol=1e-12, atol=0)


@each_probe
@pytest.mark.parametrize("variance_reduced", [True, False])
def test_sliced_has_the_implicit_objective_as_its_mean(probe, variance_reduced, generator):
    x = points(3, 3).repeat(4000, 1)
    expected = MATRIX.trace() + 0.5 * squares(linear(x)).mean()
    values = over_batches(
        lambda piece: sliced_score_matching(
            linear, piece, variance_reduced=variance_reduced, projection=probe, n_projections=2, generator=generator
        ),
        x,
        n_batches=100,
    )
    assert standard_errors(values, expected) < 4


@each_probe
def test_hutchinson_has_the_trace_as_its_mean_and_the_stated_variance(probe, generator):
    x, d = torch.zeros(40_000, 3, dtype=torch.float64), 3
    for matrix in (SYMMETRIC, MATRIX):  # only the symmetric part matters
        values = hutchinson_trace(lambda x, m=matrix: x @ m.T, x, probe=probe, generator=generator)
        assert standard_errors(values, matrix.trace()) < 4
        norm, trace = (SYMMETRIC**2).sum(), SYMMETRIC.trace()
        variance = {
            "rademacher": 2 * (norm - (SYMMETRIC.diagonal() ** 2).sum()),
            "gaussian": 2 * norm,
            "sphere": 2 * (d * norm - trace**2) / (d + 2),
        }[probe]
        assert standard_errors((values - matrix.trace()) ** 2, variance) < 4


def test_more_probes_divide_the_variance(generator):
    x, variance = torch.zeros(20_000, 3, dtype=torch.float64), 2 * (SYMMETRIC**2).sum()
    for n in (1, 4):
        values = hutchinson_trace(linear, x, n_probes=n, probe="gaussian", generator=generator)
        assert standard_errors((values - MATRIX.trace()) ** 2, variance / n) < 4


def test_more_projections_divide_the_variance(generator):
    x = points(1, 3)
    expected = MATRIX.trace() + 0.5 * squares(linear(x)).mean()
    variance = 2 * ((SYMMETRIC**2).sum() - (SYMMETRIC.diagonal() ** 2).sum())
    for n in (1, 8):
        values = [sliced_score_matching(linear, x, n_projections=n, generator=generator) for _ in range(400)]
        assert standard_errors((torch.stack(values) - expected) ** 2, variance / n) < 4


def test_a_generator_fixes_every_random_objective():
    x, sde = points(5, 3), VPSDE()
    for loss in (
        lambda g: sliced_score_matching(linear, x, generator=g),
        lambda g: hutchinson_trace(linear, x, generator=g).sum(),
        lambda g: denoising_score_matching(linear, x, 0.5, generator=g),
        lambda g: denoising_objective(lambda x, t: linear(x), sde, x, generator=g),
    ):
        a, b, c = (loss(torch.Generator().manual_seed(seed)).item() for seed in (1, 1, 2))
        assert a == b
        assert a != c


# -- the four objectives on one law --------------------------------------------------------------------------------


def test_explicit_is_implicit_plus_half_the_fisher_information(generator):
    mixture = random_mixture("full", n_dims=2)
    x = mixture.sample(20_000, generator=generator)

    def model(x):
        return -0.4 * x + torch.tanh(x)

    def difference(x):
        explicit = explicit_score_matching(model, x, mixture.score)
        return explicit - implicit_score_matching(model, x) - 0.5 * squares(mixture.score(x)).mean()

    assert standard_errors(over_batches(difference, x)) < 4


def test_all_objectives_have_the_gradient_of_the_explicit_one_on_the_noisy_law(generator):
    sigma, mixture = 1.0, random_mixture("full", n_dims=2)
    noisy = mixture.diffuse(1.0, sigma)
    theta = torch.tensor([-0.4, 0.7, 0.2], dtype=torch.float64, requires_grad=True)

    def model(x):
        return theta[0] * x + theta[1] * torch.tanh(x) + theta[2] * x.flip(1)

    def gradients(loss, x):
        return over_batches(lambda piece: torch.autograd.grad(loss(piece), theta)[0], x)

    x = mixture.sample(20_000, generator=generator)
    x_noisy = x + sigma * torch.randn(x.shape, generator=generator, dtype=torch.float64)
    explicit = gradients(lambda x: explicit_score_matching(model, x, noisy.score), x_noisy)
    others = {
        "implicit": gradients(lambda x: implicit_score_matching(model, x), x_noisy),
        "sliced": gradients(
            lambda x: sliced_score_matching(model, x, variance_reduced=False, generator=generator), x_noisy
        ),
        "reduced": gradients(lambda x: sliced_score_matching(model, x, generator=generator), x_noisy),
        "denoising": gradients(lambda x: denoising_score_matching(model, x, sigma, generator=generator), x),
    }
    for name, gradient in others.items():
        assert standard_errors(gradient - explicit).max() < 4, name
    # and that is not the gradient on the clean law: the two laws are far apart at this sigma
    clean = gradients(lambda x: explicit_score_matching(model, x, mixture.score), x)
    assert standard_errors(others["denoising"] - clean).max() > 10


# -- denoising -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(5, 3), (3, 3), (4, 2, 3, 3)])
@pytest.mark.parametrize("per_point", [True, False])
def test_denoising_is_its_formula_on_the_same_noise(shape, per_point):
    x = points(math.prod(shape), 1).reshape(shape)
    sigma = torch.linspace(0.5, 2, shape[0]).double() if per_point else torch.tensor(0.7).double()
    result = denoising_score_matching(cube, x, sigma, generator=torch.Generator().manual_seed(4))
    noise = torch.randn(shape, generator=torch.Generator().manual_seed(4), dtype=torch.float64)
    losses = []
    for point, e, s in zip(x, noise, sigma.expand(len(x)), strict=True):
        losses.append(0.5 * (((point + s * e) ** 3 + e / s) ** 2).sum())
    torch.testing.assert_close(result, torch.stack(losses).mean(), rtol=1e-12, atol=0)


@pytest.mark.parametrize("sigma", [0.3, 1.0])
def test_denoising_ends_at_its_floor_and_not_at_zero(sigma, generator):
    """At the exact score 1/2 (D / sigma^2 - E|grad log q_sigma|^2), the second term by quadrature."""
    mixture = random_mixture("isotropic", n_dims=1)
    noisy = mixture.diffuse(1.0, sigma)
    grid = torch.linspace(-20, 20, 20_001, dtype=torch.float64)[:, None]
    fisher = torch.trapezoid(noisy.log_prob(grid).exp() * noisy.score(grid)[:, 0] ** 2, grid[:, 0])
    floor = 0.5 * (1 / sigma**2 - fisher)
    x = mixture.sample(20_000, generator=generator)
    values = over_batches(lambda x: denoising_score_matching(noisy.score, x, sigma, generator=generator), x)
    assert floor > 0.1
    assert standard_errors(values, floor) < 4
    # any other score is as far above the floor as its Fisher divergence says
    wrong = over_batches(
        lambda x: denoising_score_matching(lambda y: 0.5 * noisy.score(y), x, sigma, generator=generator), x
    )
    assert standard_errors(wrong, floor + 0.125 * fisher) < 4


def test_denoising_floor_of_a_gaussian_in_closed_form(generator):
    x = 2 * torch.randn(20_000, 3, generator=generator, dtype=torch.float64)
    for sigma in (0.5, 2.0):
        values = over_batches(
            lambda x, v=4 + sigma**2, s=sigma: denoising_score_matching(lambda y: -y / v, x, s, generator=generator), x
        )
        assert standard_errors(values, 1.5 * (1 / sigma**2 - 1 / (4 + sigma**2))) < 4


# -- the objective over times --------------------------------------------------------------------------------------


@each_sde
@pytest.mark.parametrize("weighting", ["noise", "likelihood", "uniform"])
@pytest.mark.parametrize("shape", [(5, 3), (3, 3), (4, 2, 3, 3)])
def test_denoising_objective_is_its_formula_on_the_same_noise(sde, weighting, shape):
    x = points(math.prod(shape), 1).reshape(shape)
    for times in (torch.linspace(0.1, 1, shape[0]).double(), torch.tensor(0.3).double()):
        stream = torch.Generator().manual_seed(4)

        def model(x_t, t):
            return torch.tanh(x_t) * (1 + t).reshape(-1, *[1] * (x_t.ndim - 1))

        result = denoising_objective(model, sde, x, weighting=weighting, times=times, generator=stream)
        noise = torch.randn(shape, generator=torch.Generator().manual_seed(4), dtype=torch.float64)
        losses = []
        for point, e, t in zip(x, noise, times.expand(len(x)), strict=True):
            alpha, sigma = float(sde.alpha(t)), float(sde.sigma(t))
            score = torch.tanh(alpha * point + sigma * e) * (1 + t)
            weight = {"noise": sigma**2, "likelihood": float(sde.diffusion(t)) ** 2, "uniform": 1.0}[weighting]
            losses.append(weight / 2 * ((score + e / sigma) ** 2).sum())
        torch.testing.assert_close(result, torch.stack(losses).mean(), rtol=1e-10, atol=0)


@each_sde
def test_the_zero_network_scores_what_the_weighting_says(sde, generator):
    """s = 0 costs D/2 E_t[lambda / sigma^2]; times from 0.05 on, where the mean of 1 / sigma^2 is tame."""
    sde, x = type(sde)(), points(20_000, 3)
    sde.t_min = 0.05
    integrands = {
        "noise": lambda t: 1.0,
        "likelihood": lambda t: float(sde.diffusion(t) / sde.sigma(t)) ** 2,
        "uniform": lambda t: float(sde.sigma(t)) ** -2,
    }
    for weighting, integrand in integrands.items():
        expected = 1.5 * quad(integrand, 0.05, 1.0)[0] / 0.95
        values = over_batches(
            lambda x, w=weighting: denoising_objective(
                lambda x, t: torch.zeros_like(x), sde, x, weighting=w, generator=generator
            ),
            x,
        )
        assert standard_errors(values, expected) < 4


@each_sde
def test_times_are_uniform_from_t_min_to_the_end(sde, generator):
    sde = type(sde)()
    sde.t_min, seen = 0.2, []

    def model(x, t):
        seen.append(t)
        return x

    denoising_objective(model, sde, points(5000, 2), generator=generator)
    assert seen[0].shape == (5000,)
    assert kstest((seen[0].numpy() - 0.2) / 0.8, "uniform").pvalue > 1e-3
    assert float(seen[0].min()) >= 0.2
    assert float(seen[0].max()) <= 1


def test_times_follow_an_sde_that_ends_elsewhere(generator):
    sde, seen = VPSDE(), []
    sde.T = 3.0
    denoising_objective(lambda x, t: seen.append(t) or x, sde, points(5000, 2), generator=generator)
    assert kstest(seen[0].numpy() / 3, "uniform").pvalue > 1e-3


@each_sde
@pytest.mark.parametrize("weighting", ["noise", "likelihood", "uniform"])
def test_the_exact_score_is_the_minimiser(sde, weighting, generator):
    mixture, sde = random_mixture("full", n_dims=2), type(sde)()
    sde.t_min = 0.05
    exact = exact_score(mixture, sde)
    delta = torch.zeros(2, dtype=torch.float64, requires_grad=True)

    def model(x, t):
        return (1 + delta[0]) * exact(x, t) + delta[1] * torch.sin(x) / sde.sigma(t)[:, None]

    x = mixture.sample(10_000, generator=generator)

    def gradient(x):
        loss = denoising_objective(model, sde, x, weighting=weighting, generator=generator)
        return torch.autograd.grad(loss, delta)[0]

    assert standard_errors(over_batches(gradient, x, 20)).max() < 4


def test_a_wrong_score_costs_its_weighted_fisher_divergence_more(generator):
    """For s = c times the exact score of N(0, I) under VP, the excess is (1 - c)^2 D / 2 E_t[lambda], p_t = N(0, I)."""
    sde, x = VPSDE(), torch.randn(20_000, 3, generator=generator, dtype=torch.float64)
    sde.t_min = 0.05
    for weighting, weight in (
        ("noise", lambda t: float(sde.sigma(t)) ** 2),
        ("likelihood", lambda t: float(sde.beta(t))),
    ):
        expected = 0.5**2 * 1.5 * quad(weight, 0.05, 1)[0] / 0.95

        def excess(x, weighting=weighting):
            state = generator.get_state()
            losses = []
            for c in (0.5, 1.0):
                generator.set_state(state)
                losses.append(
                    denoising_objective(lambda x, t, c=c: -c * x, sde, x, weighting=weighting, generator=generator)
                )
            return losses[0] - losses[1]

        assert standard_errors(over_batches(excess, x), expected) < 4


def test_labels_reach_the_model_only_where_given():
    seen, x, label = [], points(5, 3), torch.tensor([0, 1, -1, 2, 0])

    def model(x, t, *rest):
        seen.append(rest)
        return x

    denoising_objective(model, VPSDE(), x)
    denoising_objective(model, VPSDE(), x, label=label)
    assert seen == [(), (label,)]


# -- gradients and graphs ------------------------------------------------------------------------------------------


def test_gradients_reach_the_parameters_with_their_exact_values(generator):
    x = points(5, 3)
    a = torch.tensor(-0.7, dtype=torch.float64, requires_grad=True)
    m = squares(x).mean()

    def model(x):
        return a * x

    cases = {
        "explicit": (explicit_score_matching(model, x, lambda x: -2 * x), (a + 2) * m),
        "implicit": (implicit_score_matching(model, x), 3 + a * m),
        "sliced": (sliced_score_matching(model, x, generator=generator), 3 + a * m),
        "trace": (hutchinson_trace(model, x, generator=generator).mean(), 3 + 0 * m),
    }
    for name, (loss, expected) in cases.items():
        (gradient,) = torch.autograd.grad(loss, a)
        torch.testing.assert_close(gradient, expected.detach(), msg=name, rtol=1e-12, atol=0)


@pytest.mark.parametrize("variance_reduced", [True, False])
def test_gradients_of_a_network_equal_finite_differences(variance_reduced):
    network = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.Tanh(), torch.nn.Linear(4, 3)).double()
    x, weight = points(5, 3), network[0].weight

    def losses():
        stream = torch.Generator().manual_seed(2)
        return (
            implicit_score_matching(network, x)
            + sliced_score_matching(network, x, variance_reduced=variance_reduced, n_projections=2, generator=stream)
            + hutchinson_trace(network, x, probe="gaussian", n_probes=2, generator=stream).mean()
            + denoising_score_matching(network, x, 0.5, generator=stream)
            + denoising_objective(lambda x, t: network(x), VPSDE(), x, generator=stream)
        )

    (gradient,) = torch.autograd.grad(losses(), weight)
    with torch.no_grad():
        h = 1e-5
        weight[1, 2] += h
        up = losses()
        weight[1, 2] -= 2 * h
        down = losses()
    assert float(gradient[1, 2]) == pytest.approx(float(up - down) / (2 * h), rel=1e-5)


@pytest.mark.parametrize("disabled", [torch.no_grad, torch.enable_grad])
def test_without_gradients_the_values_are_the_same_and_carry_no_graph(disabled):
    network = torch.nn.Linear(3, 3).double()
    x = points(5, 3)

    def values():
        stream = torch.Generator().manual_seed(2)
        return [
            explicit_score_matching(network, x, lambda x: -x),
            implicit_score_matching(network, x),
            sliced_score_matching(network, x, generator=stream),
            sliced_score_matching(network, x, variance_reduced=False, n_projections=3, generator=stream),
            hutchinson_trace(network, x, n_probes=2, generator=stream),
            denoising_score_matching(network, x, 0.5, generator=stream),
            denoising_objective(lambda x, t: network(x), VPSDE(), x, generator=stream),
        ]

    expected = values()
    implicit = network.weight.trace() + 0.5 * squares(network(x)).mean()
    torch.testing.assert_close(expected[1], implicit, rtol=1e-12, atol=0)
    with disabled():
        result = values()
    for a, b in zip(result, expected, strict=True):
        assert torch.equal(a, b)
        assert a.requires_grad == (disabled is torch.enable_grad)
    assert not x.requires_grad


def test_gradients_reach_x_where_x_asks_for_them():
    x = points(5, 3).requires_grad_()
    (gradient,) = torch.autograd.grad(implicit_score_matching(lambda x: -0.7 * x, x), x)
    torch.testing.assert_close(gradient, 0.49 * x.detach() / 5)


@pytest.mark.parametrize("graph", [torch.no_grad, torch.enable_grad])
def test_a_score_may_be_the_gradient_of_an_energy(graph):
    x, precision = points(5, 3), SYMMETRIC @ SYMMETRIC

    def score(x):
        energy = 0.5 * torch.einsum("bi,ij,bj->", x, precision, x) + (x**4).sum() / 12
        return -torch.autograd.grad(energy, x, create_graph=True)[0]

    s = -(x @ precision + x**3 / 3)
    expected = (-precision.trace() - squares(x) + 0.5 * squares(s)).mean()
    with graph():
        torch.testing.assert_close(implicit_score_matching(score, x).detach(), expected, rtol=1e-11, atol=0)
        precision = torch.diag(SYMMETRIC.diagonal())  # one Rademacher probe is exact for a diagonal Hessian
        trace = hutchinson_trace(score, x).detach()
        torch.testing.assert_close(trace, -precision.trace() - squares(x), rtol=1e-11, atol=0)


def test_a_score_that_does_not_depend_on_x_has_no_trace():
    x, b = points(5, 3), OFFSET.clone().requires_grad_()
    loss = implicit_score_matching(lambda x: b.expand_as(x), x)
    torch.testing.assert_close(loss, 0.5 * (b**2).sum())
    torch.testing.assert_close(torch.autograd.grad(loss, b)[0], OFFSET)
    fixed = sliced_score_matching(lambda x: OFFSET.expand_as(x), x)
    torch.testing.assert_close(fixed, 0.5 * (OFFSET**2).sum())
    assert torch.equal(hutchinson_trace(lambda x: OFFSET.expand_as(x), x), torch.zeros(5, dtype=torch.float64))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_losses_keep_the_dtype_of_x(dtype):
    x = points(5, 3, dtype=dtype)
    mixture = GaussianMixture(torch.zeros(1, 3), torch.ones(1))  # float32 means serve either dtype
    for loss in (
        explicit_score_matching(mixture.score, x, lambda x: -x),
        implicit_score_matching(mixture.score, x),
        sliced_score_matching(mixture.score, x),
        denoising_score_matching(mixture.score, x, torch.tensor(0.5)),
        denoising_objective(exact_score(mixture, VPSDE()), VPSDE(), x, times=torch.tensor(0.5).double()),
    ):
        assert loss.dtype == dtype
        assert loss.shape == ()
    torch.testing.assert_close(implicit_score_matching(mixture.score, x), -3 + 0.5 * squares(x).mean())
    assert hutchinson_trace(mixture.score, x).dtype == dtype


# -- refusals ------------------------------------------------------------------------------------------------------


def on_every_objective(score, x):
    """Each objective as a call without arguments."""
    return [
        lambda: explicit_score_matching(score, x, score),
        lambda: implicit_score_matching(score, x),
        lambda: sliced_score_matching(score, x),
        lambda: denoising_score_matching(score, x, 0.5),
        lambda: hutchinson_trace(score, x),
        lambda: denoising_objective(lambda x, t: score(x), VPSDE(), x),
    ]


@pytest.mark.parametrize(
    ("x", "error", "message"),
    [
        (torch.zeros(3), ValueError, r"^x: expected a batch of shape \(B, ...\), got \(3,\)"),
        (torch.zeros(5, 3).long(), TypeError, r"^x: expected a floating-point tensor, got torch.int64"),
        (torch.full((5, 3), math.nan), ValueError, r"^x: has NaN or infinite values"),
        ([[0.0]], TypeError, r"^x: expected a torch.Tensor, got list"),
    ],
)
def test_points_are_refused(x, error, message):
    for call in on_every_objective(lambda x: x, x):
        with pytest.raises(error, match=message):
            call()


def test_scores_of_another_shape_or_dtype_are_refused():
    x = torch.zeros(5, 3)
    for call in on_every_objective(lambda x: x[:, :1], x):
        with pytest.raises(
            ValueError, match=r"^(score|model|fn)'s value: expected shape \(5, 3\) like x\w*, got \(5, 1\)"
        ):
            call()
    for call in on_every_objective(lambda x: x.double(), x):
        with pytest.raises(ValueError, match=r"'s value: expected dtype torch.float32 like x\w*, got torch.float64"):
            call()
    with pytest.raises(ValueError, match=r"^target's value: expected shape \(5, 3\) like x, got \(5, 1\)"):
        explicit_score_matching(lambda x: x, x, lambda x: x[:, :1])


def test_options_are_refused():
    x = torch.zeros(5, 3)
    options = "'rademacher', 'gaussian', 'sphere'"
    with pytest.raises(ValueError, match=f"^projection: expected one of {options}, got 'normal'"):
        sliced_score_matching(linear, x, projection="normal")
    with pytest.raises(ValueError, match=f"^probe: expected one of {options}, got 'normal'"):
        hutchinson_trace(linear, x, probe="normal")
    with pytest.raises(ValueError, match=r"^weighting: expected one of 'noise', 'likelihood', 'uniform', got 'snr'"):
        denoising_objective(lambda x, t: x, VPSDE(), x, weighting="snr")
    with pytest.raises(ValueError, match=r"^n_projections: expected at least 1, got 0"):
        sliced_score_matching(linear, x, n_projections=0)
    with pytest.raises(TypeError, match=r"^n_probes: expected an integer, got bool"):
        hutchinson_trace(linear, x, n_probes=True)


@pytest.mark.parametrize(
    ("sigma", "message"),
    [
        (0.0, r"^sigma: expected values > 0, got 0"),
        (-1.0, r"^sigma: expected values > 0, got -1"),
        (math.nan, r"^sigma: has NaN"),
        (torch.ones(3), r"^sigma: expected a number or shape \(5,\) like the batch, got \(3,\)"),
        (torch.ones(5, 1), r"^sigma: expected a number or shape \(5,\) like the batch, got \(5, 1\)"),
    ],
)
def test_noise_levels_are_refused(sigma, message):
    with pytest.raises(ValueError, match=message):
        denoising_score_matching(lambda x: x, torch.zeros(5, 3), sigma)


def test_times_are_refused():
    x = torch.zeros(5, 3)
    with pytest.raises(ValueError, match=r"^times: expected a number or shape \(5,\) like the batch, got \(3,\)"):
        denoising_objective(lambda x, t: x, VPSDE(), x, times=torch.full((3,), 0.5))
    with pytest.raises(TypeError, match=r"^times: expected a floating-point tensor, got torch.int64"):
        denoising_objective(lambda x, t: x, VPSDE(), x, times=torch.tensor(1))
    with pytest.raises(TypeError, match=r"^times: expected a torch.Tensor, got float"):
        denoising_objective(lambda x, t: x, VPSDE(), x, times=0.5)


@pytest.mark.parametrize(
    "times", [torch.full((4,), 500.0), torch.full((4,), -0.5), torch.tensor(math.nan), torch.tensor(0.0)]
)
def test_the_denoising_objective_refuses_times_without_noise_or_outside(times):
    with pytest.raises(ValueError, match=r"^times: (expected values in|the score is asked where sigma is 0)"):
        denoising_objective(lambda x, t: -x, VPSDE(), torch.ones(4, 2), times=times)


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_objectives_with_derivatives_are_the_same_under(mode):
    x = torch.tensor([[0.3, -0.7], [1.1, 0.2]])

    def values():
        stream = torch.Generator().manual_seed(0)
        return (
            implicit_score_matching(lambda x: -(x**3), x),
            sliced_score_matching(lambda x: -(x**3), x, generator=stream),
            hutchinson_trace(lambda x: -(x**3), x, generator=stream),
        )

    expected = values()
    with mode():
        got = values()
    torch.testing.assert_close(got, expected)
    assert float(expected[0].detach()) == pytest.approx(float((-3 * x**2 + 0.5 * x**6).sum(1).mean()), rel=1e-5)


@pytest.mark.parametrize("objective", [implicit_score_matching, sliced_score_matching, hutchinson_trace])
def test_a_score_that_is_cut_off_from_x_is_refused(objective):
    with pytest.raises(ValueError, match=r"^(score|fn): its value is cut off from x"):
        objective(lambda x: -x.detach(), torch.ones(3, 2))


@pytest.mark.parametrize("objective", [implicit_score_matching, sliced_score_matching])
def test_the_mean_over_no_points_is_refused(objective):
    with pytest.raises(ValueError, match=r"^x: expected at least one point, got shape \(0, 2\)"):
        objective(lambda x: -x, torch.zeros(0, 2))


@pytest.mark.parametrize("objective", [implicit_score_matching, sliced_score_matching, hutchinson_trace])
def test_a_network_that_is_cut_off_from_x_is_refused_too(objective):
    """Its value asks for a gradient, of the weights alone."""
    network = torch.nn.Linear(2, 2)
    with pytest.raises(ValueError, match=r"^(score|fn): its value is cut off from x"):
        objective(lambda x: network(x.detach()), torch.ones(3, 2))


def test_a_generator_is_a_generator():
    for call in (
        lambda: sliced_score_matching(lambda x: -x, torch.ones(3, 2), generator=0),
        lambda: hutchinson_trace(lambda x: -x, torch.ones(3, 2), generator=0),
        lambda: denoising_score_matching(lambda x: -x, torch.ones(3, 2), 0.5, generator=0),
        lambda: denoising_objective(lambda x, t: -x, VPSDE(), torch.ones(3, 2), generator=0),
    ):
        with pytest.raises(TypeError, match=r"^generator: expected a torch.Generator or None, got int"):
            call()


def test_sums_of_half_precision_do_not_overflow():
    x = 12 * torch.ones(3, 500)
    for dtype in (torch.float16, torch.bfloat16):
        value = implicit_score_matching(lambda x: -x, x.to(dtype)).detach()
        assert float(value) == pytest.approx(500 * (0.5 * 144 - 1), rel=0.02)
        assert float(VESDE().prior_log_prob((50 * torch.ones(2, 784)).to(dtype))[0]) == pytest.approx(
            float(VESDE().prior_log_prob(50 * torch.ones(2, 784))[0]), rel=0.01
        )
