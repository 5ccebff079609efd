"""Guided scores against exact conditional laws of mixtures; editing against a known correlation."""

import math

import numpy as np
import pytest
import torch

from coursework.distributions import GaussianMixture, exact_score
from coursework.guidance import (
    autoguidance,
    classifier_free_guidance,
    classifier_guidance,
    dynamic_threshold,
    rescale,
    sdedit,
)
from coursework.langevin import langevin
from coursework.nn import UNet
from coursework.predictions import ScoreModel, convert
from coursework.probability_flow import adaptive, euler, heun
from coursework.reverse_sde import ancestral, euler_maruyama
from coursework.sdes import VESDE, VPSDE, SubVPSDE, log_snr_times, uniform_times
from tests.helpers.laws import random_mixture

pytestmark = pytest.mark.usefixtures("one_thread")

SDES = {"vp": VPSDE(), "ve": VESDE(0.01, 20.0), "sub-vp": SubVPSDE()}
each_sde = pytest.mark.parametrize("name", SDES)


def classes(n_dims=3):
    """Three classes, each a mixture, and the law of all."""
    parts = [random_mixture("full", 2, n_dims, seed=seed) for seed in (1, 2, 3)]
    share = torch.tensor([0.5, 0.3, 0.2]).double()
    weights = torch.cat([w * p.weights for w, p in zip(share, parts, strict=True)])
    whole = GaussianMixture(torch.cat([p.means for p in parts]), torch.cat([p.covariances for p in parts]), weights)
    return parts, share, whole


def classifier(parts, share, sde):
    """The exact log p_t(label | x)."""

    def log_prob_label(x, t):
        alpha, sigma = sde.alpha(t), sde.sigma(t)
        joint = [w.log() + p.diffuse(alpha, sigma).log_prob(x) for w, p in zip(share, parts, strict=True)]
        return torch.log_softmax(torch.stack(joint, 1), 1)

    return log_prob_label


def conditional(parts, whole, sde):
    """The exact score with a label, -1 for none."""
    scores = [exact_score(p, sde) for p in (*parts, whole)]

    def score(x, t, label):
        times = t.expand(len(x))
        return torch.stack([scores[int(k)](x[i : i + 1], times[i : i + 1])[0] for i, k in enumerate(label)])

    return score


# -- guidance ----------------------------------------------------------------------------------------------------------


@each_sde
@pytest.mark.parametrize("t", [torch.tensor(0.4).double(), torch.tensor([0.05, 0.2, 0.4, 0.6, 0.9]).double()])
def test_exact_classifier_with_scale_one_gives_the_conditional_score(name, t, generator):
    sde, (parts, share, whole) = SDES[name], classes()
    x = 1.5 * torch.randn(5, 3, generator=generator, dtype=torch.float64)
    for scale in (0.0, 1.0, 2.5):
        guided = classifier_guidance(exact_score(whole, sde), classifier(parts, share, sde), 1, scale)(x, t)
        unconditional, with_label = exact_score(whole, sde)(x, t), exact_score(parts[1], sde)(x, t)
        torch.testing.assert_close(guided, unconditional + scale * (with_label - unconditional), rtol=1e-6, atol=1e-8)


@each_sde
def test_both_ways_of_guidance_agree_on_exact_scores(name, generator):
    sde, (parts, share, whole) = SDES[name], classes()
    x, label = torch.randn(5, 3, generator=generator, dtype=torch.float64), torch.tensor([0, 2, 1, 1, 0])
    t = torch.tensor([0.1, 0.3, 0.5, 0.7, 0.9]).double()
    by_bayes = classifier_guidance(exact_score(whole, sde), classifier(parts, share, sde), label, 3.0)(x, t)
    free = classifier_free_guidance(conditional(parts, whole, sde), label, 3.0)(x, t)
    torch.testing.assert_close(free, by_bayes, rtol=1e-6, atol=1e-8)


def test_classifier_free_guidance_scales_and_calls_once(generator):
    calls, sde = [], VPSDE()
    parts, _, whole = classes()
    exact = conditional(parts, whole, sde)

    def watched(x, t, label):
        calls.append((len(x), label.tolist(), t.shape))
        return exact(x, t, label)

    x, t = torch.randn(4, 3, generator=generator, dtype=torch.float64), torch.tensor(0.3).double()
    for scale, expected in ((0.0, exact_score(whole, sde)), (1.0, exact_score(parts[2], sde))):
        torch.testing.assert_close(classifier_free_guidance(watched, 2, scale)(x, t), expected(x, t))
    assert calls == [(8, [2] * 4 + [-1] * 4, ())] * 2
    w = 1.5  # the other convention
    other = (1 + w) * exact_score(parts[2], sde)(x, t) - w * exact_score(whole, sde)(x, t)
    torch.testing.assert_close(classifier_free_guidance(exact, 2, 1 + w)(x, t), other)


def test_guidance_in_an_interval_of_times(generator):
    sde, (parts, _, whole) = VPSDE(), classes()
    exact = conditional(parts, whole, sde)
    x, t = torch.randn(3, 3, generator=generator, dtype=torch.float64), torch.tensor([0.1, 0.4, 0.8]).double()
    got = classifier_free_guidance(exact, 0, 4.0, interval=(0.3, 0.6))(x, t)
    torch.testing.assert_close(got[1], classifier_free_guidance(exact, 0, 4.0)(x, t)[1])
    torch.testing.assert_close(got[[0, 2]], exact_score(parts[0], sde)(x, t)[[0, 2]])


def test_what_guided_sampling_samples_is_not_the_tilted_law():
    """In 1-D: classes N(1, 0.5^2) and N(-1, 0.5^2); p(x) p(1 | x)^5 on a grid against the guided flow from a grid."""
    sde, scale = VPSDE(), 5.0
    parts = [GaussianMixture(torch.tensor([[m]]).double(), torch.tensor([0.25]).double()) for m in (1.0, -1.0)]
    whole = GaussianMixture(torch.tensor([[1.0], [-1.0]]).double(), torch.tensor([0.25, 0.25]).double())
    share = torch.tensor([0.5, 0.5]).double()
    score = classifier_guidance(exact_score(whole, sde), classifier(parts, share, sde), 0, scale)
    z = torch.distributions.Normal(0.0, 1.0).icdf((torch.arange(400).double()[:, None] + 0.5) / 400)
    guided = heun(score, sde, z, log_snr_times(sde, 60))
    grid = torch.linspace(-4, 6, 4001, dtype=torch.float64)[:, None]
    log_tilted = whole.log_prob(grid) + scale * (parts[0].log_prob(grid) + math.log(0.5) - whole.log_prob(grid))
    p = torch.softmax(log_tilted, 0)
    tilted_mean = float((p * grid[:, 0]).sum())
    assert float(guided.mean()) > tilted_mean + 0.3
    plain = heun(
        classifier_guidance(exact_score(whole, sde), classifier(parts, share, sde), 0, 1.0),
        sde,
        z,
        log_snr_times(sde, 60),
    )
    assert float(plain.mean()) == pytest.approx(1.0, abs=0.02)
    assert float(plain.std()) == pytest.approx(0.5, abs=0.02)


@each_sde
@pytest.mark.parametrize(("start", "end"), [(0.9, 0.7), (0.3, 0.29)])
def test_a_guided_reverse_sde_is_the_conditional_flow_and_langevin_dynamics(name, start, end, generator):
    """Of scale w: at every t the flow's drift, and Langevin's on p_c^w' p_0^(1-w'), w' = 2w - 1, with its noise."""
    sde, (parts, _, whole) = SDES[name], classes()
    exact = conditional(parts, whole, sde)
    x = torch.randn(5, 3, generator=generator, dtype=torch.float64)
    times = torch.tensor([start, end], dtype=torch.float64)
    t = times[0]
    size = float(sde.diffusion(t)) ** 2 * (start - end)
    flow = euler(exact_score(parts[1], sde), sde, x, times)
    for scale in (0.0, 1.0, 3.5):
        guided = classifier_free_guidance(exact, 1, scale)
        step = euler_maruyama(guided, sde, x, times, final_noise=True, generator=generator.manual_seed(2))
        value = classifier_free_guidance(exact, 1, 2 * scale - 1)(x, t)
        moved = langevin(lambda x, value=value: value, x, size, 1, generator=generator.manual_seed(2))
        torch.testing.assert_close(step, flow + moved - x, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(("worse", "scale", "deviation"), [(1.5, 2.0, 0.8165), (4.0, 2.0, 0.5), (4.0, 0.0, 2.0)])
def test_autoguidance_narrows_a_gaussian_as_its_formula_says(worse, scale, deviation):
    """v^(w/2) v_worse^((1-w)/2) for models of variance v = 1 and v_worse, VE; one point tells of a linear flow."""
    sde = VESDE(1e-3, 500.0)
    good, bad = (
        exact_score(GaussianMixture(torch.zeros(1, 1).double(), torch.tensor([v]).double()), sde) for v in (1.0, worse)
    )
    start = torch.full((1, 1), 500.0).double()
    end = adaptive(autoguidance(good, bad, scale), sde, start, t_start=1.0, t_end=0.0, rtol=1e-8, atol=1e-8)
    assert float(end) == pytest.approx(worse ** ((1 - scale) / 2), rel=1e-4)
    assert float(end) == pytest.approx(deviation, abs=2e-4)


@each_sde
def test_autoguidance_is_the_same_line_through_both_estimates_of_the_data(name, generator):
    sde = SDES[name]
    good, bad = (exact_score(random_mixture("full", 2, 3, seed=seed), sde) for seed in (1, 2))
    x, t = torch.randn(5, 3, generator=generator, dtype=torch.float64), torch.rand(5, generator=generator).double()

    def estimate(score):
        return convert(score(x, t), x, sde.alpha(t), sde.sigma(t), source="score", target="data")

    expected = estimate(bad) + 2.5 * (estimate(good) - estimate(bad))
    torch.testing.assert_close(estimate(autoguidance(good, bad, 2.5)), expected, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(autoguidance(good, bad, 1.0)(x, t), good(x, t))
    torch.testing.assert_close(autoguidance(good, bad, 0.0)(x, t), bad(x, t))


def test_guided_scores_run_in_solvers_and_on_networks(generator):
    sde, network = VPSDE(), UNet(8, widths=(8, 16), attention_at=(), n_classes=3, features=16)
    torch.nn.init.normal_(network.last.weight, std=0.1)
    model, x = ScoreModel(network, sde), torch.randn(2, 1, 8, 8, generator=generator)
    outs = [
        ancestral(
            classifier_free_guidance(model, 1, scale), sde, x, uniform_times(sde, 4), generator=generator.manual_seed(0)
        )
        for scale in (0.0, 1.0, 5.0)
    ]
    assert not torch.allclose(outs[0], outs[1])
    assert not torch.allclose(outs[1], outs[2])
    assert not outs[0].requires_grad


def test_rescale_and_dynamic_threshold(generator):
    conditional_value = torch.randn(4, 1, 5, 5, generator=generator)
    guided = 3 * conditional_value + 1
    full = rescale(guided, conditional_value, 1.0)
    torch.testing.assert_close(full.flatten(1).std(1), conditional_value.flatten(1).std(1))
    torch.testing.assert_close(rescale(guided, conditional_value, 0.0), guided)
    torch.testing.assert_close(rescale(guided, conditional_value, 0.3), 0.3 * full + 0.7 * guided)
    x0_hat = torch.linspace(-3, 3, 101)[None]
    torch.testing.assert_close(dynamic_threshold(x0_hat, 0.9), x0_hat.clamp(-2.7, 2.7) / 2.7)
    torch.testing.assert_close(dynamic_threshold(x0_hat / 4, 0.9), x0_hat / 4)


# -- editing -----------------------------------------------------------------------------------------------------------


def test_sdedit_keeps_more_the_earlier_it_starts(generator):
    """Correlation of input and output for N(0, 1) data: exactly alpha(t0)^2 for exact steps."""
    sde = VPSDE()
    score = exact_score(GaussianMixture(torch.zeros(1, 1).double(), torch.ones(1).double()), sde)
    x = torch.randn(20_000, 1, generator=generator, dtype=torch.float64)
    for start in (0.1, 0.3, 0.5):
        times = torch.linspace(start, sde.t_min, 60, dtype=torch.float64)
        out = sdedit(score, sde, x, times, generator=generator)
        correlation = float(torch.corrcoef(torch.cat([x, out], 1).T)[0, 1])
        assert correlation == pytest.approx(float(sde.alpha(start)) ** 2, abs=0.03)
        assert float(out.var()) == pytest.approx(1.0, abs=0.06)


# -- refusals ----------------------------------------------------------------------------------------------------------

X = torch.zeros(2, 3).double()
T = torch.tensor(0.5).double()
PLAIN = exact_score(GaussianMixture(torch.zeros(1, 3).double(), torch.ones(1).double()), VPSDE())


@pytest.mark.parametrize(
    ("call", "match"),
    [
        (lambda: classifier_guidance(PLAIN, lambda x, t: x[:, 0], 0, 1.0)(X, T), r"^log_prob_label's value: expected"),
        (lambda: classifier_guidance(PLAIN, lambda x, t: x, 0, math.nan), r"^scale: expected a finite number"),
        (
            lambda: classifier_guidance(PLAIN, lambda x, t: x, torch.zeros(3).long(), 1.0)(X, T),
            r"^label: expected one integer or shape \(2,\)",
        ),
        (lambda: classifier_free_guidance(lambda x, t, k: x, torch.zeros(2), 1.0), r"^label: expected integers, got"),
        (lambda: classifier_guidance(PLAIN, lambda x, t: x, None, 1.0), r"^label: expected integers, got NoneType"),
        (lambda: classifier_guidance(PLAIN, lambda x, t: x, "3", 1.0), r"^label: expected integers, got str"),
        (lambda: classifier_guidance(PLAIN, lambda x, t: x, -1, 1.0), r"^label: expected at least 0, got -1"),
        (lambda: classifier_guidance(PLAIN, lambda x, t: x, 3, 1.0)(X, T), r"^label: expected 0 to 2, got 3"),
        (lambda: classifier_free_guidance(lambda x, t, k: x, -2, 1.0), r"^label: expected at least -1, got -2"),
        (lambda: classifier_guidance(PLAIN, lambda x, t: x.detach(), 0, 1.0)(X, T), r"^log_prob_label: .* cut off"),
        (lambda: classifier_free_guidance(lambda x, t, k: x[:2], 0, 1.0)(X, T), r"^conditional_score's value"),
        (lambda: classifier_free_guidance(lambda x, t, k: x, 0, 1.0, interval=(0.5, 0.2)), r"^interval: expected"),
        (lambda: autoguidance(PLAIN, PLAIN, math.inf), r"^scale: expected a finite number"),
        (lambda: autoguidance(PLAIN, lambda x, t: x[:1], 2.0)(X, T), r"^worse_score's value: expected shape \(2, 3\)"),
        (lambda: rescale(X, X, 1.5), r"^share: expected a number in \[0, 1\]"),
        (lambda: dynamic_threshold(X, 0.0), r"^quantile: expected a number in \(0, 1\]"),
        (lambda: sdedit(PLAIN, VPSDE(), X, uniform_times(VPSDE(), 2)), r"^times: expected a start before T"),
    ],
)
def test_refusals(call, match):
    with pytest.raises((ValueError, TypeError), match=match):
        call()


# -- labels, modes, dtypes ---------------------------------------------------------------------------------------------


def labelled():
    return ScoreModel(UNet(4, widths=(8, 8), attention_at=(), n_classes=3, features=8), VPSDE())


@pytest.mark.parametrize("solver", [heun, ancestral, euler_maruyama])
@pytest.mark.parametrize("label", [3, 4, 2**40, -2])
def test_a_label_that_the_network_does_not_know_is_refused_inside_a_solver(solver, label):
    """3 would be the row of the null label."""
    model, x = labelled(), torch.randn(2, 1, 4, 4)
    with pytest.raises(ValueError, match=r"^label: expected (-1 to 2|at least -1), got"):
        solver(classifier_free_guidance(model, label, 2.0), model.sde, x, uniform_times(model.sde, 3))
    with pytest.raises(ValueError, match=r"^label: expected -1 to 2, got"):
        solver(lambda x, t: model(x, t, torch.full((2,), label)), model.sde, x, uniform_times(model.sde, 3))


def test_a_label_that_becomes_wrong_in_a_later_step_is_refused():
    model, calls = labelled(), []

    def score(x, t):
        calls.append(t)
        return model(x, t, torch.tensor([0, len(calls)]))

    with pytest.raises(ValueError, match=r"^label: expected -1 to 2, got 0 to 3"):
        euler_maruyama(score, model.sde, torch.randn(2, 1, 4, 4), uniform_times(model.sde, 6))
    assert len(calls) == 3


@pytest.mark.parametrize("label", [2, np.int64(2), [2, 2], np.array([2, 2]), torch.tensor([2, 2]).to(torch.uint8)])
def test_labels_are_integers_of_any_kind(label):
    model, x, t = labelled(), torch.randn(2, 1, 4, 4), torch.tensor(0.5)
    torch.nn.init.normal_(model.network.last.weight)
    with torch.no_grad():
        expected = model(x, t, torch.tensor([2, 2]))
        torch.testing.assert_close(model(x, t, label), expected)
        torch.testing.assert_close(classifier_free_guidance(model, label, 1.0)(x, t), expected, rtol=1e-4, atol=1e-5)
        assert not torch.allclose(model(x, t, torch.tensor([1, 1])), expected)
        nothing = classifier_free_guidance(model, None, 1.0)(x, t)
    torch.testing.assert_close(nothing, model(x, t).detach(), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_guidance_by_derivatives_is_the_same_under(mode):
    sde, law = VPSDE(), random_mixture("full", 2, 3)
    times, x = uniform_times(sde, 4), torch.randn(5, 3, dtype=torch.float64)

    def log_prob(x, t):
        return torch.log_softmax(x * t.reshape(-1, 1), 1)

    def guided():
        return heun(classifier_guidance(exact_score(law, sde), log_prob, 1, 2.0), sde, x, times)

    expected = guided()
    with mode():
        torch.testing.assert_close(guided(), expected)


def test_rescale_leaves_constant_points_and_single_numbers_as_they_are():
    constant = torch.full((2, 3), 0.7)
    torch.testing.assert_close(rescale(constant, torch.randn(2, 3), 1.0), constant)
    torch.testing.assert_close(rescale(torch.ones(4, 1), torch.zeros(4, 1), 0.5), torch.ones(4, 1))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_dynamic_threshold_in_half_precision(dtype):
    x = torch.tensor([[-3.0, 0.5, 1.5, 0.25], [0.5, -0.25, 0.75, 1.0]])
    torch.testing.assert_close(
        dynamic_threshold(x.to(dtype), 0.5).float(), dynamic_threshold(x, 0.5), rtol=0.02, atol=0.01
    )
    assert dynamic_threshold(x[:0].to(dtype)).shape == (0, 4)


def test_rescale_knows_rounding_from_a_deviation():
    nearly = torch.full((2, 784), 0.1)
    torch.testing.assert_close(rescale(nearly, torch.randn(2, 784), 1.0), nearly)


def test_where_labels_cannot_be_looked_at_none_but_minus_one_is_the_null_label():
    network, x = labelled().network, torch.randn(3, 1, 1, 4, 4)
    with pytest.raises(IndexError, match="out of range"):
        torch.func.vmap(lambda x, label: network(x, torch.tensor(0.5), label))(x, torch.tensor([[0], [3], [1]]))
