"""Posterior scores against exact laws of mixtures given a measurement; inpainting against known conditional laws."""

import math

import numpy as np
import pytest
import torch

from coursework.distributions import GaussianMixture, exact_score
from coursework.inverse_problems import condition, ddrm, inpaint, posterior_score, posterior_variance
from coursework.likelihood import log_likelihood
from coursework.nn import UNet
from coursework.predictions import ScoreModel
from coursework.probability_flow import heun
from coursework.score_matching import implicit_score_matching
from coursework.sdes import VESDE, VPSDE, SubVPSDE, log_snr_times, uniform_times
from tests.helpers.laws import random_mixture

pytestmark = pytest.mark.usefixtures("one_thread")

SDES = {"vp": VPSDE(), "ve": VESDE(0.01, 20.0), "sub-vp": SubVPSDE()}
each_sde = pytest.mark.parametrize("name", SDES)


# -- linear inverse problems -------------------------------------------------------------------------------------------


def problem(n_dims=4, n_seen=2, noise_std=0.4, seed=3):
    stream = torch.Generator().manual_seed(seed)
    operator = torch.randn(n_seen, n_dims, generator=stream, dtype=torch.float64)
    return operator, torch.randn(n_seen, generator=stream, dtype=torch.float64), noise_std


def test_conditioned_mixture_is_bayes_rule(generator):
    """log p(x | y) - log p(x) - log p(y | x) is one constant, whatever x."""
    law, (operator, y, noise_std) = random_mixture("full", n_dims=4), problem()
    posterior = condition(law, operator, y, noise_std)
    x = torch.randn(50, 4, generator=generator, dtype=torch.float64)
    likelihood = -((y - x @ operator.T) ** 2).sum(1) / (2 * noise_std**2)
    constant = posterior.log_prob(x) - law.log_prob(x) - likelihood
    assert float(constant.max() - constant.min()) < 1e-8


@each_sde
def test_exact_posterior_score_is_that_of_the_noisy_posterior(name, generator):
    sde, law = SDES[name], random_mixture("full", n_dims=4)
    operator, y, noise_std = problem()
    x, t = torch.randn(5, 4, generator=generator, dtype=torch.float64), torch.rand(5, generator=generator).double()
    got = posterior_score(None, sde, operator, y, noise_std, method="exact", density=law)(x, t)
    for i in range(5):  # p(x_t | y) is a mixture over x_t and y, conditioned by hand
        alpha, sigma = float(sde.alpha(t[i])), float(sde.sigma(t[i]))
        joint = torch.cat([alpha * torch.eye(4).double(), operator])
        covariances = joint @ law.covariances @ joint.T
        covariances = covariances + torch.diag(torch.tensor([sigma**2] * 4 + [noise_std**2] * 2).double())
        both = GaussianMixture(law.means @ joint.T, covariances, law.weights)
        expected = both.score(torch.cat([x[i], y])[None])[0, :4]
        torch.testing.assert_close(got[i], expected, rtol=1e-6, atol=1e-7)


@each_sde
@pytest.mark.parametrize("form", ["matrix", "function"])
def test_pseudoinverse_is_exact_for_a_standard_normal_law(name, form, generator):
    sde, law = SDES[name], GaussianMixture(torch.zeros(1, 4).double(), torch.ones(1).double())
    matrix, y, noise_std = problem()
    operator = matrix if form == "matrix" else lambda x: x @ matrix.T
    x, t = torch.randn(5, 4, generator=generator, dtype=torch.float64), torch.rand(5, generator=generator).double()
    got = posterior_score(exact_score(law, sde), sde, operator, y, noise_std)(x, t)
    exact = posterior_score(None, sde, matrix, y, noise_std, method="exact", density=law)(x, t)
    torch.testing.assert_close(got, exact, rtol=1e-7, atol=1e-8)


@each_sde
def test_dps_is_its_formula(name, generator):
    """s + J^T A^T (y - A x0_hat) / noise_std^2, J by autograd of Tweedie's formula row by row."""
    sde, law = SDES[name], random_mixture("full", n_dims=4)
    operator, y, noise_std = problem()
    score, t = exact_score(law, sde), torch.tensor(0.4).double()
    x = torch.randn(3, 4, generator=generator, dtype=torch.float64)
    got = posterior_score(score, sde, operator, y, noise_std, method="dps")(x, t)

    def x0_hat(x):
        return ((x + sde.sigma(t) ** 2 * score(x[None], t)[0]) / sde.alpha(t)).reshape(4)

    for i in range(3):
        jacobian = torch.func.jacrev(x0_hat)(x[i])
        expected = score(x[i : i + 1], t)[0] + jacobian.T @ operator.T @ (y - operator @ x0_hat(x[i])) / noise_std**2
        torch.testing.assert_close(got[i], expected, rtol=1e-6, atol=1e-7)


def test_measurements_of_their_own_and_images(generator):
    """y (B, M), an operator on images: a 2 x 2 mean; each row as if it were alone."""
    sde, network = VPSDE(), UNet(8, widths=(8, 16), attention_at=(), features=16)
    torch.nn.init.normal_(network.last.weight, std=0.1)
    model = ScoreModel(network.double(), sde)
    operator = torch.nn.AvgPool2d(2)
    x = torch.randn(3, 1, 8, 8, generator=generator, dtype=torch.float64)
    y, t = operator(torch.randn(3, 1, 8, 8, generator=generator, dtype=torch.float64)), torch.tensor(0.3).double()
    for method in ("pseudoinverse", "dps"):
        together = posterior_score(model, sde, operator, y, 0.1, method=method)(x, t)
        assert together.shape == x.shape
        assert not together.requires_grad
        for i in range(3):
            alone = posterior_score(model, sde, operator, y[i].flatten(), 0.1, method=method)(x[i : i + 1], t)
            torch.testing.assert_close(together[i], alone[0], rtol=1e-6, atol=1e-8)


def test_noiseless_pseudoinverse_ignores_directions_that_are_not_seen(generator):
    """A row twice: A A^T is singular; the answer is that of the row once with both values."""
    sde, law = VPSDE(), GaussianMixture(torch.zeros(1, 3).double(), torch.ones(1).double())
    row, x, t = torch.tensor([[1.0, 2.0, 0.0]]).double(), torch.randn(4, 3).double(), torch.tensor(0.5).double()
    once = posterior_score(exact_score(law, sde), sde, row, torch.tensor([0.7]).double(), 0.0)(x, t)
    twice = posterior_score(exact_score(law, sde), sde, torch.cat([row, row]), torch.tensor([0.7, 0.7]).double(), 0.0)(
        x, t
    )
    torch.testing.assert_close(once, twice, rtol=1e-6, atol=1e-8)


@each_sde
def test_sampling_the_posterior_with_its_exact_score(name):
    """Gaussian data, random A: mean and covariance within 3 standard errors, from the quantiles of the flow."""
    sde, stream = SDES[name], torch.Generator().manual_seed(11)
    factor = torch.randn(3, 3, generator=stream, dtype=torch.float64)
    covariance = factor @ factor.T + 0.2 * torch.eye(3).double()
    law = GaussianMixture(torch.tensor([[0.5, -1.0, 0.3]]).double(), covariance[None])
    operator, y, noise_std = problem(3, 2)
    exact = condition(law, operator, y, noise_std)
    score = posterior_score(None, sde, operator, y, noise_std, method="exact", density=law)
    n = 4000
    x = heun(score, sde, sde.prior_sample((n, 3), generator=stream, dtype=torch.float64), log_snr_times(sde, 120))
    target = exact.diffuse(sde.alpha(sde.t_min), sde.sigma(sde.t_min))
    spread = target.covariance.diagonal().sqrt()
    assert bool(((x.mean(0) - target.mean).abs() < 3 * spread / n**0.5 + 5e-3).all())
    error = (torch.outer(spread, spread) ** 2 + target.covariance**2).sqrt() / n**0.5
    assert bool(((x.T.cov() - target.covariance).abs() < 3.5 * error + 5e-3).all())


def test_the_map_of_uncertainty_is_the_posteriors_variance(generator):
    """A Gaussian's by adding precisions; a mixture's by Bayes' rule on draws of the whole."""
    (operator, y, noise_std), n = problem(), 400_000
    root = torch.randn(4, 4, generator=generator, dtype=torch.float64)
    covariance = root @ root.T + 0.2 * torch.eye(4).double()
    precision = covariance.inverse() + operator.T @ operator / noise_std**2
    gaussian = GaussianMixture(torch.ones(1, 4).double(), covariance[None])
    got = posterior_variance(gaussian, operator, y, noise_std)
    torch.testing.assert_close(got, precision.inverse().diagonal(), rtol=1e-9, atol=1e-9)
    mixture = random_mixture("full", n_dims=4)
    x = mixture.sample(n, generator=generator)
    weight = torch.softmax(-((y - x @ operator.T) ** 2).sum(1) / (2 * noise_std**2), 0)
    off = (x - weight @ x) ** 2
    variance = weight @ off
    error = ((weight**2) @ (off - variance) ** 2).sqrt()
    assert bool(((posterior_variance(mixture, operator, y, noise_std) - variance).abs() < 4 * error).all())


# -- by singular values ------------------------------------------------------------------------------------------------


@each_sde
@pytest.mark.parametrize("noise_std", [0.0, 0.25])
@pytest.mark.parametrize(("eta", "eta_b"), [(0.85, 1.0), (0.3, 0.5)])
def test_a_ddrm_step_keeps_the_law_of_the_noise_where_the_clean_point_is_known(name, noise_std, eta, eta_b):
    """x_t is N(alpha x_0, sigma^2 I) at every time if x0_hat is x_0: once unseen, once seen well, once seen badly."""
    sde, n, stream = SDES[name], 20_000, torch.Generator().manual_seed(9)
    basis = torch.linalg.qr(torch.randn(3, 3, generator=stream, dtype=torch.float64)).Q
    rotation = torch.linalg.qr(torch.randn(2, 2, generator=stream, dtype=torch.float64)).Q
    operator = rotation @ torch.diag(torch.tensor([2.0, 0.3]).double()) @ basis[:, :2].T  # noise 0.125 and 0.83
    x_0 = torch.tensor([0.7, -1.2, 0.4]).double().expand(n, 3)

    def normal(*shape):
        return torch.randn(*shape, generator=stream, dtype=torch.float64)

    y = x_0 @ operator.T + noise_std * normal(n, 2)
    times = sde.time_of_log_snr(torch.tensor([-2.0, -0.5, 0.0, 2.0, 5.0]).double())
    alpha, sigma = sde.alpha(times), sde.sigma(times)
    start = sigma[0] * normal(n, 3)
    unseen = basis[:, 2:] @ basis[:, 2:].T
    start = start + alpha[0] * x_0 @ unseen  # the rest starts from y
    if noise_std / 0.3 > sigma[0] / alpha[0]:
        raise AssertionError("the first time has to be noisier than what is seen")
    states = []  # those that the score is asked at, the first one included, and the last

    def score(x, t):
        states.append(x)
        return sde.kernel_score(x, x_0, t)

    states.append(ddrm(score, sde, operator, y, noise_std, start, times, eta=eta, eta_b=eta_b, generator=stream))
    assert len(states) == len(times)
    for i, x in enumerate(states):
        z = (x - alpha[i] * x_0) / sigma[i]
        assert float(z.mean(0).abs().max()) < 4.5 / n**0.5
        assert float((z.T.cov() - torch.eye(3).double()).abs().max()) < 4.5 * (2 / n) ** 0.5


def test_ddrm_without_noise_ends_on_the_measurement_and_takes_functions_and_images(generator):
    sde, operator = VPSDE(), torch.nn.AvgPool2d(2)
    law = GaussianMixture(torch.zeros(1, 16).double(), torch.ones(1).double())
    flat = exact_score(law, sde)
    y = operator(torch.randn(3, 1, 4, 4, generator=generator, dtype=torch.float64))
    start = sde.prior_sample((3, 1, 4, 4), generator=generator, dtype=torch.float64)
    calls = []

    def score(x, t):
        calls.append(t)
        return flat(x.flatten(1), t).reshape(x.shape)

    times = torch.linspace(1.0, 0.0, 9).double()
    x = ddrm(score, sde, operator, y, 0.0, start, times, generator=generator)
    torch.testing.assert_close(operator(x), y)
    assert len(calls) == 8
    matrix = operator(torch.eye(16).double().reshape(16, 1, 4, 4)).flatten(1).T
    again = ddrm(flat, sde, matrix, y.flatten(1), 0.0, start.flatten(1), times, generator=generator.manual_seed(0))
    once = ddrm(score, sde, operator, y, 0.0, start, times, generator=generator.manual_seed(0))
    torch.testing.assert_close(once.flatten(1), again, rtol=1e-8, atol=1e-8)


# -- inpainting --------------------------------------------------------------------------------------------------------

PAIR = GaussianMixture(torch.zeros(1, 2).double(), torch.tensor([[[1.0, 0.9], [0.9, 1.0]]]).double())


def fill(n_resample, n=3000, sde=None, n_steps=100):
    """The unknown second coordinate for a known first one of 1.5: exactly N(1.35, 0.19)."""
    sde, generator = sde or VPSDE(), torch.Generator().manual_seed(5)
    known = torch.tensor([[1.5, math.nan]]).double().expand(n, 2)
    mask = torch.tensor([True, False])
    x = inpaint(
        exact_score(PAIR, sde),
        sde,
        known,
        mask,
        uniform_times(sde, n_steps),
        n_resample=n_resample,
        generator=generator,
    )
    assert bool((x[:, 0] == 1.5).all())
    return x[:, 1]


def test_replacement_is_biased_and_resampling_mends_it():
    replaced, resampled = fill(1), fill(10)
    assert float(replaced.mean()) < 1.15  # exact 1.35; more steps do not help
    assert float(fill(1, n_steps=400).mean()) < 1.15
    assert float(resampled.mean()) == pytest.approx(1.35, abs=0.06)
    assert float(resampled.var()) == pytest.approx(0.19, abs=0.025)


@each_sde
def test_known_elements_have_the_noise_of_the_time_that_a_step_ends_at(name, generator):
    sde, n = SDES[name], 4_000
    known = torch.full((n, 2), 1.5, dtype=torch.float64)
    seen = {}
    inpaint(
        lambda x, t: torch.zeros_like(x),
        sde,
        known,
        torch.tensor([True, False]),
        uniform_times(sde, 5),
        generator=generator,
        on_step=lambda i, t, x: seen.update({i: (sde.alpha(t), sde.sigma(t), x[:, 0])}),
    )
    for alpha, sigma, x in seen.values():
        assert abs(x.mean() - alpha * 1.5) < 4 * sigma / n**0.5
        assert abs(x.std() / sigma - 1) < 4 / (2 * n) ** 0.5


def test_inpainting_counts_its_calls_and_sees_no_unknown_value(generator):
    calls, sde = [], VESDE(0.01, 10.0)

    def score(x, t):
        calls.append(float(t))
        assert bool(torch.isfinite(x).all())
        return -x / (1 + sde.sigma(t) ** 2)

    known = torch.full((2, 1, 3, 3), math.nan)
    known[..., 0] = 0.5
    mask = torch.zeros(1, 3, 3, dtype=torch.bool)
    mask[..., 0] = True
    seen = []
    out = inpaint(
        score, sde, known, mask, uniform_times(sde, 4), n_resample=3, generator=generator,
        on_step=lambda i, t, x: seen.append(i),
    )  # fmt: skip
    assert seen == [0, 1, 2, 3]
    assert len(calls) == 12
    assert bool((out[..., 0] == 0.5).all())
    assert out.shape == known.shape


def test_what_is_filled_in_depends_on_what_is_known():
    """Its gradient is that of differences, the noise being the same."""
    sde = VPSDE()
    law = GaussianMixture(torch.zeros(1, 2).double(), torch.tensor([[[1.0, 0.8], [0.8, 1.0]]]).double())
    mask, times = torch.tensor([True, False]), uniform_times(sde, 40)

    def filled(first):
        x = torch.stack([first, first.new_zeros(())])[None]
        return inpaint(exact_score(law, sde), sde, x, mask, times, generator=torch.Generator().manual_seed(0))[0, 1]

    first = torch.tensor(0.7, dtype=torch.float64, requires_grad=True)
    (gradient,) = torch.autograd.grad(filled(first), first)
    with torch.no_grad():
        difference = (filled(first + 1e-5) - filled(first - 1e-5)) / 2e-5
    assert float(gradient) == pytest.approx(float(difference), rel=1e-5)
    assert float(gradient) > 0.1


# -- refusals ----------------------------------------------------------------------------------------------------------

X = torch.zeros(2, 3).double()
T = torch.tensor(0.5).double()
PLAIN = exact_score(GaussianMixture(torch.zeros(1, 3).double(), torch.ones(1).double()), VPSDE())
MASK = torch.tensor([True, False, False])


def posterior(operator=None, y=None, noise_std=0.1, **options):
    operator = torch.ones(1, 3).double() if operator is None else operator
    y = torch.zeros(1).double() if y is None else y
    return posterior_score(PLAIN, VPSDE(), operator, y, noise_std, **options)(X, T)


def restored(y=None, noise_std=0.1, **options):
    y, operator = torch.zeros(1).double() if y is None else y, torch.ones(1, 3).double()
    return ddrm(PLAIN, VPSDE(), operator, y, noise_std, X, uniform_times(VPSDE(), 2), **options)


@pytest.mark.parametrize(
    ("call", "match"),
    [
        (
            lambda: posterior(operator=np.ones((1, 3))),
            r"^operator: expected a tensor \(M, D\) or a function, got ndarray",
        ),
        (lambda: inpaint(PLAIN, VPSDE(), X, [True], uniform_times(VPSDE(), 2)), r"^mask: expected a torch.Tensor, got"),
        (lambda: inpaint(PLAIN, VPSDE(), X.long(), MASK, uniform_times(VPSDE(), 2)), r"^x_known: expected a floating"),
        (lambda: posterior(method="ddrm"), r"^method: expected one of 'pseudoinverse', 'dps', 'exact'"),
        (lambda: posterior(method="exact"), r"^density: the exact posterior needs"),
        (lambda: posterior(noise_std=0.0, method="dps"), r"^noise_std: expected a number > 0"),
        (lambda: posterior(noise_std=-1.0), r"^noise_std"),
        (lambda: posterior(operator=torch.ones(1, 4).double()), r"^operator: expected shape \(M, 3\), got \(1, 4\)"),
        (lambda: posterior_variance(None, np.ones((1, 3)), torch.zeros(1), 0.1), r"^operator: expected a tensor"),
        (lambda: restored(noise_std=-0.1), r"^noise_std: expected a number >= 0"),
        (lambda: restored(eta=1.5), r"^eta: expected a number in \[0, 1\], got 1.5"),
        (lambda: restored(eta_b=-0.5), r"^eta_b: expected a number in \[0, 1\]"),
        (lambda: restored(y=torch.zeros(2).double()), r"^y: expected shape \(1,\) or \(2, 1\), got \(2,\)"),
        (lambda: posterior(y=torch.zeros(2).double()), r"^y: expected shape \(1,\) or \(2, 1\), got \(2,\)"),
        (lambda: inpaint(PLAIN, VPSDE(), X, MASK[:2], uniform_times(VPSDE(), 2)), r"^mask: expected bool of shape"),
        (lambda: inpaint(PLAIN, VPSDE(), X, MASK.double(), uniform_times(VPSDE(), 2)), r"^mask: expected bool"),
        (lambda: inpaint(PLAIN, VPSDE(), X, MASK, uniform_times(VPSDE(), 2), n_resample=0), r"^n_resample"),
    ],
)
def test_refusals(call, match):
    with pytest.raises((ValueError, TypeError), match=match):
        call()


# -- modes, dtypes, derivatives ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_a_posterior_score_is_the_same_under(mode):
    sde, law = VPSDE(), random_mixture("full", 2, 3)
    times, x = uniform_times(sde, 4), torch.randn(5, 3, dtype=torch.float64)
    operator, y = torch.ones(1, 3).double(), torch.tensor([0.3]).double()

    def sampled():
        return heun(posterior_score(exact_score(law, sde), sde, operator, y, 0.5), sde, x, times)

    expected = sampled()
    with mode():
        torch.testing.assert_close(sampled(), expected)


def test_a_posterior_score_serves_every_dtype_and_mode_in_turn():
    sde, law = VPSDE(), random_mixture("full", 2, 3)
    score = posterior_score(exact_score(law, sde), sde, torch.ones(1, 3), torch.tensor([0.3]), 0.5)
    x, t = torch.randn(4, 3).double(), torch.tensor(0.5)
    with torch.inference_mode():
        first = score(x.float(), t)
    torch.testing.assert_close(score(x, t.double()).float(), first, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(score(x.float(), t), first, rtol=1e-4, atol=1e-4)
    (gradient,) = torch.autograd.grad(score(x.requires_grad_(), t.double()).sum(), x)
    assert float(gradient.abs().min()) > 0


def test_a_posterior_score_has_derivatives_of_its_own():
    """On N(0, I) the pseudo-inverse is exact, so are the likelihoods and objectives that differentiate it."""
    sde, law = VPSDE(), GaussianMixture(torch.zeros(1, 2).double(), torch.ones(1).double())
    operator, y = torch.tensor([[1.0, 0.5]]).double(), torch.tensor([0.3]).double()
    bare = lambda x, t: exact_score(law, sde)(x, t)  # noqa: E731
    known = [
        posterior_score(bare, sde, operator, y, 0.5, method=method, density=law)
        for method in ("pseudoinverse", "exact")
    ]
    x, t = torch.tensor([[0.3, -0.7], [1.1, 0.2]]).double(), torch.tensor(0.4).double()
    likelihoods = [log_likelihood(score, sde, x) for score in known]
    torch.testing.assert_close(*likelihoods, rtol=1e-4, atol=1e-4)
    losses = [implicit_score_matching(lambda x, score=score: score(x, t), x) for score in known]
    torch.testing.assert_close(*losses)


def test_the_pseudo_inverse_of_nothing_is_nothing():
    sde, x, t = VPSDE(), torch.randn(3, 2), torch.tensor(0.5)
    score = posterior_score(lambda x, t: -x, sde, torch.zeros(2, 2), torch.ones(2), 0.0)
    torch.testing.assert_close(score(x, t), -x)
    half = posterior_score(lambda x, t: -x, sde, torch.ones(2, 2).half(), torch.ones(2).half(), 0.0)
    wide = posterior_score(lambda x, t: -x, sde, torch.ones(2, 2), torch.ones(2), 0.0)
    torch.testing.assert_close(half(x.half(), t).float(), wide(x, t), rtol=0.05, atol=0.05)
