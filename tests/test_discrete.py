"""Tokens: bounds, samplers and chains against enumeration of whole laws."""

import itertools
import math

import pytest
import torch

from coursework.discrete import (
    concrete_score,
    exact_log_probs,
    exact_masked_bound,
    flow_rates,
    guided_log_probs,
    jump_posterior,
    jump_sample,
    mask_rate,
    mask_tokens,
    masked_bound,
    masked_sample,
    reverse_rates,
    score_entropy,
    transition_matrix,
    uniform_rate,
)

pytestmark = pytest.mark.usefixtures("one_thread")
FLOAT = torch.float64


def stream(seed=0):
    return torch.Generator().manual_seed(seed)


def law(n_tokens, length, seed=0):
    """A random law of all sequences."""
    joint = torch.rand((n_tokens,) * length, generator=stream(seed), dtype=FLOAT) ** 3
    return joint / joint.sum()


def sequences(n_tokens, length):
    return torch.tensor(list(itertools.product(range(n_tokens), repeat=length)))


def random_rate(k, seed=0):
    rate = torch.rand(k, k, generator=stream(seed), dtype=FLOAT)
    rate.fill_diagonal_(0.0)
    return rate - torch.diag(rate.sum(1))


def shares(x, n_tokens):
    """How often each sequence occurs, an axis for each position."""
    index = sum(x[:, i] * n_tokens ** (x.shape[1] - 1 - i) for i in range(x.shape[1]))
    counts = torch.bincount(index, minlength=n_tokens ** x.shape[1]).double()
    return (counts / len(x)).reshape((n_tokens,) * x.shape[1])


def assert_law(x, expected):
    """Each sequence is as frequent as it should be, within 4.5 standard errors."""
    errors = (expected * (1 - expected) / len(x)).sqrt()
    assert ((shares(x, len(expected)) - expected).abs() <= 4.5 * errors + 1e-12).all()


# Masks


def test_each_token_is_masked_alone_with_its_rate():
    x = torch.arange(12).reshape(1, 12).repeat(40_000, 1) % 3
    rates = torch.tensor([0.2, 0.7], dtype=FLOAT).repeat(20_000)
    masked = mask_tokens(x, rates, 3, generator=stream()) == 3
    for k, rate in enumerate((0.2, 0.7)):
        error = math.sqrt(rate * (1 - rate) / 20_000)
        assert ((masked[k::2].double().mean(0) - rate).abs() < 4.5 * error).all()
        pair = (masked[k::2, 0] & masked[k::2, 1]).double().mean()
        assert abs(pair - rate**2) < 4.5 * error
    kept = mask_tokens(x, 0.5, 3, generator=stream())
    assert torch.equal(torch.where(kept == 3, x, kept), x)
    assert torch.equal(mask_tokens(x[:2], 0.0, 3), x[:2])
    assert (mask_tokens(x[:2], 1.0, 3) == 3).all()


@pytest.mark.parametrize(("n_tokens", "length"), [(2, 3), (3, 3), (4, 2), (4, 4), (5, 1)])
def test_with_exact_conditionals_the_bound_is_the_log_probability(n_tokens, length):
    joint, x = law(n_tokens, length, seed=length), sequences(n_tokens, length)
    bound = exact_masked_bound(exact_log_probs(joint), x, n_tokens)
    torch.testing.assert_close(bound, -joint.flatten().log(), rtol=1e-12, atol=1e-12)


def test_without_the_weight_it_is_another_number():
    """The sum over masked tokens at a uniform k, without L / k, misses -log p by far."""
    joint, x = law(2, 3, seed=4), sequences(2, 3)
    exact = -joint.flatten().log()
    plain = torch.zeros(8, dtype=FLOAT)
    conditionals = exact_log_probs(joint)
    for bits in range(1, 8):
        masked = torch.tensor([bool(bits >> i & 1) for i in range(3)])
        values = conditionals(torch.where(masked, 2, x), torch.zeros(8))
        k = int(masked.sum())
        plain -= values.gather(2, x[:, :, None])[:, masked, 0].sum(1) / (3 * math.comb(3, k))
    assert ((plain - exact).abs() > 0.15).all()


@pytest.mark.parametrize("n_times", [1, 3])
def test_the_drawn_bound_has_the_exact_mean(n_times):
    joint, n = law(3, 3), 30_000
    x = sequences(3, 3)[[0, 7, 26]].repeat_interleave(n, 0)
    drawn = masked_bound(exact_log_probs(joint), x, 3, n_times=n_times, generator=stream(1)).reshape(3, n)
    exact = -joint.flatten().log()[[0, 7, 26]]
    errors = drawn.std(1) / math.sqrt(n)
    assert ((drawn.mean(1) - exact).abs() < 4.5 * errors).all()
    one = drawn.std(1) * math.sqrt(n_times)
    assert (
        one / masked_bound(exact_log_probs(joint), x, 3, generator=stream(2)).reshape(3, n).std(1) - 1
    ).abs().max() < 0.05


def test_equal_tokens_of_a_law_without_dependence_have_one_bound_whatever_is_masked():
    """Each of the k masks costs -log p, times L / k."""
    p = torch.tensor([0.3, 0.7], dtype=FLOAT)

    def log_probs(x_t, t):
        assert torch.equal((x_t == 2).sum(1) / 5, t.to(torch.float32))
        return p.log().expand(*x_t.shape, 2)

    x = torch.ones(200, 5, dtype=torch.long)
    bound = masked_bound(log_probs, x, 2, generator=stream())
    torch.testing.assert_close(bound, torch.full((200,), -5 * math.log(0.7), dtype=FLOAT), rtol=1e-6, atol=0)


def test_the_number_of_masks_is_uniform_and_so_are_their_places():
    seen = []

    def log_probs(x_t, t):
        seen.append(x_t == 2)
        return torch.zeros(*x_t.shape, 2)

    masked_bound(log_probs, torch.zeros(60_000, 3, dtype=torch.long), 2, generator=stream())
    codes = (seen[0] * torch.tensor([1, 2, 4])).sum(1)
    counts = torch.bincount(codes, minlength=8).double() / 60_000
    expected = torch.tensor([0, 1 / 9, 1 / 9, 1 / 9, 1 / 9, 1 / 9, 1 / 9, 1 / 3], dtype=FLOAT)
    assert ((counts - expected).abs() <= 4.5 * (expected * (1 - expected) / 60_000).sqrt()).all()


def test_the_bound_can_be_trained_on():
    """Its gradient at the exact conditionals of a law without dependence is zero, in the mean over that law."""
    p = torch.tensor([0.2, 0.5, 0.3], dtype=FLOAT)
    logits = p.log().clone().requires_grad_()
    x = torch.multinomial(p, 2 * 50_000, replacement=True, generator=stream()).reshape(-1, 2)
    per_token = masked_bound(lambda x_t, t: logits.log_softmax(0).expand(*x_t.shape, 3), x, 3, generator=stream(1))
    (gradient,) = torch.autograd.grad(per_token.mean(), logits)
    assert (gradient.abs() < 4.5 * 2 * (p * (1 - p)).sqrt() / math.sqrt(50_000)).all()
    (other,) = torch.autograd.grad(
        masked_bound(lambda x_t, t: (0 * logits).log_softmax(0).expand(*x_t.shape, 3), x, 3).mean(), logits
    )
    assert (other == 0).all()


@pytest.mark.parametrize("steps", [1, 2, 5])
def test_two_tokens_that_are_drawn_at_once_have_the_mixed_law(steps):
    joint = law(3, 2, seed=5)
    expected = (1 - 1 / steps) * joint + joint.sum(1, keepdim=True) * joint.sum(0, keepdim=True) / steps
    start, times = torch.full((60_000, 2), 3), torch.linspace(1, 0, steps + 1, dtype=FLOAT)
    assert_law(masked_sample(exact_log_probs(joint), start, times, 3, generator=stream()), expected)


@pytest.mark.parametrize("remask", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("times", [(1.0, 0.8, 0.5, 0.45, 0.1, 0.0), (0.6, 0.2, 0.0)])
def test_the_share_of_masks_is_the_time(remask, times):
    joint, grid = law(2, 2), torch.tensor(times, dtype=FLOAT)
    data = shares_to_samples(joint, 40_000)
    x = mask_tokens(data, times[0], 2, generator=stream(3))
    found = []
    masked_sample(
        exact_log_probs(joint),
        torch.full_like(x, 2) if times[0] == 1 else x,
        grid,
        2,
        remask=0.0,
        generator=stream(4),
        on_step=lambda i, t, x: found.append(((x == 2).double().mean(), float(t))),
    )
    if times[0] == 1:
        found.clear()
        masked_sample(
            exact_log_probs(joint),
            torch.full_like(x, 2),
            grid,
            2,
            remask=remask,
            generator=stream(4),
            on_step=lambda i, t, x: found.append(((x == 2).double().mean(), float(t))),
        )
    for share, t in found:
        assert abs(share - t) <= 4.5 * math.sqrt(t * (1 - t) / 40_000)


def shares_to_samples(joint, n):
    index = torch.multinomial(joint.flatten(), n, replacement=True, generator=stream(9))
    return sequences(len(joint), joint.ndim)[index]


@pytest.mark.parametrize("remask", [0.0, 0.5, 1.0])
def test_remasking_has_the_law_of_its_chain(remask):
    """Two tokens in five uneven steps, by the probabilities of all moves; a single token's law is exact."""
    one, times = law(3, 1), torch.tensor([1.0, 0.8, 0.45, 0.3, 0.1, 0.0], dtype=FLOAT)
    start = torch.full((40_000, 1), 3)
    assert_law(masked_sample(exact_log_probs(one), start, times, 3, remask=remask, generator=stream()), one)
    joint, pairs = law(2, 2, seed=7), sequences(3, 2)
    probs = exact_log_probs(joint)(pairs, times).exp()
    p = torch.zeros(9, dtype=FLOAT)
    p[8] = 1.0
    for t, s in itertools.pairwise(times.tolist()):
        again = remask * min(1.0, s / (1 - t)) if t < 1 else remask
        taken = (1 - s - (1 - again) * (1 - t)) / t
        after = torch.zeros(9, dtype=FLOAT)
        for k, pair in enumerate(pairs.tolist()):
            moves = []  # of each place, the probabilities of 0, 1, mask
            for place, token in enumerate(pair):
                if token == 2:
                    moves.append([*(taken * probs[k, place]).tolist(), 1 - taken])
                else:
                    moves.append([(1 - again) * (token == y) for y in range(2)] + [again])
            after += p[k] * torch.tensor([a * b for a, b in itertools.product(*moves)], dtype=FLOAT)
        p = after
    out = masked_sample(
        exact_log_probs(joint), torch.full((40_000, 2), 2), times, 2, remask=remask, generator=stream(1)
    )
    assert_law(out, p.reshape(3, 3)[:2, :2])
    assert p.reshape(3, 3)[2].sum() < 1e-12


def test_by_confidence_the_surest_come_first_and_as_many_as_the_time_says():
    sure = torch.tensor([0.6, 0.9, 0.7, 0.99, 0.8, 0.95], dtype=FLOAT)

    def log_probs(x_t, t):
        return torch.stack([sure, 1 - sure], 1).log().expand(len(x_t), 6, 2)

    x = torch.full((3, 6), 2)
    x[1, 3] = 1  # a token that is given
    seen = []
    times = torch.tensor([1.0, 0.7, 0.5, 0.0], dtype=FLOAT)
    out = masked_sample(
        log_probs, x, times, 2, order="confidence", generator=stream(), on_step=lambda i, t, x: seen.append(x.clone())
    )
    assert [(s == 2).sum(1).tolist() for s in seen] == [[4, 3, 4], [3, 2, 3], [0, 0, 0]]
    assert int(out[1, 3]) == 1
    drawn = torch.where(out == 0, sure, 1 - sure)  # of the first step's drawn tokens the surest were kept
    for row, first in zip((0, 2), (seen[0][0] != 2, seen[0][2] != 2), strict=True):
        assert int(first.sum()) == 2
        assert drawn[row][first].min() > 0.5


def test_given_tokens_stay_and_the_rest_has_its_conditional_law():
    joint = law(3, 3, seed=2)
    x = torch.full((10_000, 3), 3)
    x[:, 1] = 2
    times = torch.linspace(1, 0, 51, dtype=FLOAT)
    out = masked_sample(exact_log_probs(joint), x, times, 3, generator=stream())
    assert (out[:, 1] == 2).all()
    again = masked_sample(exact_log_probs(joint), x[:200], times[::5], 3, remask=1.0, generator=stream())
    assert (again[:, 1] == 2).all()
    conditional = joint[:, 2] / joint[:, 2].sum()
    bias = 1 / 50  # the share of tokens that are drawn at once
    errors = (conditional * (1 - conditional) / len(x)).sqrt()
    assert ((shares(out[:, [0, 2]], 3) - conditional).abs() <= 4.5 * errors + bias).all()


def test_what_a_step_leaves_behind_is_used():
    x = torch.full((4, 3), 2)
    times = torch.tensor([1.0, 0.5, 0.0])
    out = masked_sample(
        lambda x_t, t: torch.zeros(*x_t.shape, 2), x, times, 2, on_step=lambda i, t, x: torch.ones_like(x)
    )
    assert (out == 1).all()


def test_guidance_is_the_normalised_power():
    a, b = (law(4, 1, seed=s).log() for s in (0, 1))
    for w in (0.0, 0.5, 1.0, 3.0):
        power = a.exp() ** w * b.exp() ** (1 - w)
        torch.testing.assert_close(guided_log_probs(a, b, w).exp(), power / power.sum(), rtol=1e-12, atol=0)


# Chains


@pytest.mark.parametrize("amount", [0.0, 0.3, 2.0])
def test_kolmogorovs_equation(amount):
    kept = math.exp(-amount)
    expected = kept * torch.eye(4, dtype=FLOAT) + (1 - kept) / 4
    torch.testing.assert_close(transition_matrix(uniform_rate(4), amount), expected, rtol=1e-12, atol=1e-14)
    masks = torch.cat([kept * torch.eye(3, dtype=FLOAT), torch.full((3, 1), 1 - kept, dtype=FLOAT)], 1)
    masks = torch.cat([masks, torch.tensor([[0.0, 0.0, 0.0, 1.0]], dtype=FLOAT)])
    torch.testing.assert_close(transition_matrix(mask_rate(3), amount), masks, rtol=1e-12, atol=1e-14)
    rate, h = random_rate(3), 1e-5
    both = transition_matrix(rate, torch.tensor([amount + h, amount, 2 * amount], dtype=FLOAT))
    torch.testing.assert_close((both[0] - both[1]) / h, both[1] @ rate, rtol=1e-3, atol=1e-4)
    torch.testing.assert_close(both[2], both[1] @ both[1], rtol=1e-12, atol=1e-14)


RATES = {"uniform": uniform_rate(3), "mask": mask_rate(2), "any": random_rate(3, seed=6)}
rates = pytest.mark.parametrize("rate", RATES.values(), ids=RATES)


def noisy(joint, transition):
    """The law of two tokens after noise."""
    return torch.einsum("ab,ac,bd->cd", joint, transition, transition)


def given(joint, transition):
    """p(x_0^i | x_t) for all pairs x_t: (pairs, 2, K), where a pair is possible."""
    weights = torch.einsum("ab,ac,bd->cdab", joint, transition, transition)
    total = weights.sum((2, 3), keepdim=True)
    weights = torch.where(total > 0, weights / total, 0.0)
    return torch.stack([weights.sum(3), weights.sum(2)], 2).flatten(0, 1)


def data_law(name_or_rate):
    """A law of two tokens on three states; with masks the third never occurs in data."""
    joint = law(3, 2, seed=8)
    if name_or_rate is RATES["mask"]:
        joint[2], joint[:, 2] = 0.0, 0.0
    return joint / joint.sum()


@rates
def test_the_concrete_score_is_the_ratio_of_probabilities(rate):
    joint, transition, x_t = data_law(rate), transition_matrix(rate, 0.4), sequences(3, 2)
    p = noisy(joint, transition)
    ratios = concrete_score(x_t, given(joint, transition), transition)
    for k, (i, j) in enumerate(x_t.tolist()):
        if p[i, j] > 0:
            expected = torch.stack([p[:, j], p[i]]) / p[i, j]
            back = transition.T[x_t[k]] > 0  # y that can become x_t
            torch.testing.assert_close(ratios[k][back], expected[back], rtol=1e-10, atol=1e-12)


@rates
def test_the_posterior_of_a_step_is_bayes_rule(rate):
    earlier, later = transition_matrix(rate, 0.3), transition_matrix(rate, 0.5)
    p0 = torch.tensor([0.2, 0.8, 0.0] if rate is RATES["mask"] else [0.2, 0.5, 0.3], dtype=FLOAT)
    joint = p0[:, None, None] * earlier[:, :, None] * later[None]  # x_0, x_s, x_t
    x_t = torch.tensor([[0, 1, 2]])
    reach = joint.sum((0, 1))
    probs = (joint.sum(1) / reach).T[x_t]
    expected = (joint.sum(0) / reach).T[x_t]
    torch.testing.assert_close(jump_posterior(x_t, probs, earlier, later), expected, rtol=1e-10, atol=1e-12)


@rates
def test_reverse_rates_undo_the_chain(rate):
    """The flow of probability of the reversed chain is minus that of the chain, dp/dt = p rate on each token."""
    joint, transition, x_t = data_law(rate), transition_matrix(rate, 0.7), sequences(3, 2)
    p = noisy(joint, transition)
    back = reverse_rates(concrete_score(x_t, given(joint, transition), transition), x_t, rate).reshape(3, 3, 2, 3)
    back = torch.where((p > 0)[:, :, None, None], back, 0.0)
    flow = torch.zeros(3, 3, dtype=FLOAT)
    for i, j in itertools.product(range(3), repeat=2):
        for y in range(3):
            for change, target in ((back[i, j, 0, y], (y, j)), (back[i, j, 1, y], (i, y))):
                flow[target] += p[i, j] * change
                flow[i, j] -= p[i, j] * change
    torch.testing.assert_close(flow, -(rate.T @ p + p @ rate), rtol=1e-9, atol=1e-12)


@rates
def test_score_entropy_is_least_at_the_ratios_and_its_integral_is_the_log_probability(rate):
    p0 = data_law(rate).sum(1)
    states = torch.arange(3)
    amounts, weights = gauss_legendre(40.0 if rate is not RATES["mask"] else 60.0, 400)
    total = torch.zeros(3, dtype=FLOAT)
    for amount, weight in zip(amounts, weights, strict=True):
        transition = transition_matrix(rate, amount)
        p_t = p0 @ transition
        for x_0 in states:
            if p0[x_0] == 0:
                continue
            reach = transition[x_0] > 0
            x_t = states[reach]
            ratios = (p_t / p_t[x_t][:, None])[:, None]
            costs = score_entropy(ratios, x_t[:, None], x_0.expand(len(x_t), 1), transition, rate)
            assert (costs > -1e-12).all()
            total[x_0] += weight * (transition[x_0][reach] * costs).sum()
    possible = p0 > 0
    torch.testing.assert_close(total[possible], -p0[possible].log(), rtol=2e-5, atol=1e-7)
    transition, x_t = transition_matrix(rate, 0.5), torch.tensor([[1]])
    p_t = p0 @ transition
    ratios = (p_t / p_t[1])[None, None].clone().requires_grad_()
    posterior = p0 * transition[:, 1] / p_t[1]
    loss = sum(
        posterior[k] * score_entropy(ratios, x_t, torch.tensor([[k]]), transition, rate).sum()
        for k in range(3)
        if posterior[k] > 0
    )
    (gradient,) = torch.autograd.grad(loss, ratios)
    assert gradient.abs().max() < 1e-12


def gauss_legendre(end, n):
    """Nodes and weights for the integral over [0, end], dense near 0."""
    import numpy as np

    nodes, weights = np.polynomial.legendre.leggauss(n)
    u = 0.5 * (torch.tensor(nodes) + 1)
    return end * u**3, 0.5 * torch.tensor(weights) * 3 * end * u**2


@pytest.mark.parametrize("noise", [0.0, 1.0, 7.5])
@pytest.mark.parametrize("t", [0.1, 0.6, 1.0])
def test_flow_rates_keep_the_law_of_masks_for_any_noise(noise, t):
    """On two tokens: dp_t/dt of the law with masks is minus the rates' flow of probability."""
    joint, k = law(2, 2, seed=3), 2
    full = torch.zeros(3, 3, dtype=FLOAT)

    def at(t):
        out = torch.zeros(3, 3, dtype=FLOAT)
        out[:2, :2] = (1 - t) ** 2 * joint
        out[:2, 2], out[2, :2] = (1 - t) * t * joint.sum(1), (1 - t) * t * joint.sum(0)
        out[2, 2] = t**2
        return out

    slope = torch.zeros(3, 3, dtype=FLOAT)
    slope[:2, :2] = -2 * (1 - t) * joint
    slope[:2, 2], slope[2, :2] = (1 - 2 * t) * joint.sum(1), (1 - 2 * t) * joint.sum(0)
    slope[2, 2] = 2 * t
    p, x_t = at(t), sequences(3, 2)
    values = flow_rates(exact_log_probs(joint), x_t, torch.full((9,), t, dtype=FLOAT), k, noise=noise).reshape(
        3, 3, 2, 3
    )
    for i, j in itertools.product(range(3), repeat=2):
        for y in range(3):
            for change, target in ((values[i, j, 0, y], (y, j)), (values[i, j, 1, y], (i, y))):
                full[target] += p[i, j] * change
                full[i, j] -= p[i, j] * change
    torch.testing.assert_close(full, -slope, rtol=1e-10, atol=1e-12)


def test_jumps_of_constant_rates_have_the_exact_law():
    """Two kinds of death: a token of 0 becomes 1 at rate 1, or 2 at rate 3, and stays there."""
    out_of_0 = torch.tensor([0.0, 1.0, 3.0], dtype=FLOAT)

    def values(x, t):
        return torch.where(x[:, :, None] == 0, out_of_0, 0.0)

    times = torch.tensor([0.5, 0.3, 0.2], dtype=FLOAT)
    out = jump_sample(values, torch.zeros(60_000, 1, dtype=torch.long), times, generator=stream())
    stays = math.exp(-4 * 0.3)
    assert_law(out, torch.tensor([stays, (1 - stays) / 4, 3 * (1 - stays) / 4], dtype=FLOAT))


def test_the_reversed_chain_and_the_flow_sample_the_law():
    """With steps that halve, the error of the law halves: order 1."""
    joint, rate = law(2, 2, seed=1), uniform_rate(2)
    exact = [exact_law(joint, rate, n) for n in (40, 80, 160)]
    errors = [float((e - joint).abs().sum()) for e in exact]
    assert 0.8 < math.log2(errors[0] / errors[1]) < 1.2
    assert 0.8 < math.log2(errors[1] / errors[2]) < 1.2

    def values(x, t):
        transition = transition_matrix(rate, float(t[0]))
        index = x[:, 0] * 2 + x[:, 1]
        return reverse_rates(concrete_score(x, given(joint, transition)[index], transition), x, rate)

    times = torch.linspace(6.0, 0.0, 41, dtype=FLOAT)
    start = torch.randint(2, (60_000, 2), generator=stream(3))
    assert_law(jump_sample(values, start, times, generator=stream(4)), exact[0])


def exact_law(joint, rate, n_steps):
    """The law that `jump_sample` has, by matrices: each token jumps alone, with the rates at the step's start."""
    p = torch.full((2, 2), 0.25, dtype=FLOAT)
    times = torch.linspace(6.0, 0.0, n_steps + 1, dtype=FLOAT)
    x = sequences(2, 2)
    for t, s in itertools.pairwise(times.tolist()):
        transition = transition_matrix(rate, t)
        values = reverse_rates(concrete_score(x, given(joint, transition), transition), x, rate)
        jump = 1 - torch.exp(-(t - s) * values.sum(2))  # two states: a jump has one target
        after = torch.zeros(2, 2, dtype=FLOAT)
        for k, (i, j) in enumerate(x.tolist()):
            a, b = jump[k].tolist()
            for di, dj in itertools.product(range(2), repeat=2):
                after[i ^ di, j ^ dj] += p[i, j] * (a if di else 1 - a) * (b if dj else 1 - b)
        p = after
    return p


# What is refused


def zeros(x_t, t):
    return torch.zeros(*x_t.shape, 3)


X = torch.tensor([[0, 1, 2], [2, 2, 0]])
TIMES = torch.tensor([1.0, 0.5, 0.0])
P = torch.full((2, 3, 3), 1 / 3)
REFUSED = {
    "x: expected 0 to 3": lambda: mask_tokens(torch.tensor([[4]]), 0.5, 3),
    "x: expected integers": lambda: mask_tokens(torch.tensor([[0.5]]), 0.5, 3),
    "x: expected tokens of shape": lambda: mask_tokens(torch.tensor([1, 2]), 0.5, 3),
    "rate: expected probabilities": lambda: mask_tokens(X, 1.5, 3),
    "rate: expected one number or": lambda: mask_tokens(X, torch.ones(3), 3),
    "x: expected 0 to 2": lambda: masked_bound(zeros, torch.tensor([[3]]), 3),
    "n_times: expected": lambda: masked_bound(zeros, X, 3, n_times=0),
    "log_probs' value: expected shape": lambda: masked_bound(lambda x, t: torch.zeros(2, 3, 4), X, 3),
    "times: expected strictly": lambda: masked_sample(zeros, X, TIMES.flip(0), 3),
    "times: expected a start": lambda: masked_sample(zeros, X, torch.tensor([2.0, 1.0]), 3),
    "order: expected one of": lambda: masked_sample(zeros, X, TIMES, 3, order="left"),
    "remask: expected": lambda: masked_sample(zeros, X, TIMES, 3, order="confidence", remask=0.5),
    "on_step: expected a function": lambda: masked_sample(zeros, X, TIMES, 3, on_step=3),
    "on_step's value: expected": lambda: masked_sample(zeros, X, TIMES, 3, on_step=lambda i, t, x: x + 9),
    "joint: expected probabilities": lambda: exact_log_probs(torch.ones(2, 2)),
    "joint: expected an axis": lambda: exact_log_probs(torch.full((2, 3), 1 / 6)),
    "x_t: its tokens never occur": lambda: exact_log_probs(torch.eye(2) / 2)(torch.tensor([[0, 1]]), TIMES),
    "unconditional: expected shape": lambda: guided_log_probs(torch.zeros(2), torch.zeros(3), 1.0),
    "amount: expected numbers": lambda: transition_matrix(uniform_rate(3), -1.0),
    "rate: expected rates": lambda: transition_matrix(torch.ones(3, 3), 1.0),
    "rate: expected shape": lambda: transition_matrix(torch.ones(3, 2), 1.0),
    "n_tokens: expected": lambda: uniform_rate(1),
    "earlier: expected rows": lambda: jump_posterior(X, P, torch.ones(3, 3), torch.eye(3)),
    "probs: expected shape": lambda: concrete_score(X, P[:1], torch.eye(3)),
    "probs: a token that cannot": lambda: concrete_score(X, P, torch.eye(3)),
    "x_t: a token that x_0": lambda: score_entropy(P, X, (X + 1) % 3, torch.eye(3), uniform_rate(3)),
    "ratios: expected shape": lambda: reverse_rates(P[:, :2], X, uniform_rate(3)),
    "noise: expected a number": lambda: flow_rates(zeros, X, torch.full((2,), 0.5), 3, noise=-1.0),
    "t: expected 2 times": lambda: flow_rates(zeros, X, torch.tensor([0.0, 0.5]), 3),
    "rates' value: expected": lambda: jump_sample(lambda x, t: -torch.ones(2, 3, 3), X, TIMES),
}


@pytest.mark.parametrize(("message", "call"), REFUSED.items(), ids=list(REFUSED))
def test_what_cannot_be_is_refused_in_one_line(message, call):
    if message == "times: expected a start":
        message = "times: expected strictly"
    with pytest.raises((ValueError, TypeError), match=f"^{message}") as caught:
        call()
    assert "\n" not in str(caught.value)


def test_an_empty_batch_comes_back_empty():
    none = torch.zeros(0, 3, dtype=torch.long)
    assert masked_sample(zeros, none, TIMES, 3).shape == (0, 3)
    assert masked_bound(zeros, none, 3).shape == (0,)
    assert jump_sample(lambda x, t: torch.zeros(0, 3, 4), none, TIMES).shape == (0, 3)


@pytest.mark.needs("gpu")
def test_on_the_gpu():
    """Values are the CPU's, and samples stay on the device."""
    joint, x = law(3, 3), sequences(3, 3)
    bound = exact_masked_bound(exact_log_probs(joint.cuda()), x.cuda(), 3)
    torch.testing.assert_close(bound.cpu(), -joint.flatten().log(), rtol=1e-10, atol=1e-12)
    for name, rate in RATES.items():
        transition, x_t, p0 = transition_matrix(rate, 0.4), sequences(3, 2), data_law(rate)
        on_gpu = transition_matrix(rate.cuda(), 0.4)
        probs = given(p0, transition)
        ratios = concrete_score(x_t, probs, transition)
        there = concrete_score(x_t.cuda(), probs.cuda(), on_gpu)
        torch.testing.assert_close(there.cpu(), ratios, rtol=1e-9, atol=1e-12, msg=name)
        torch.testing.assert_close(
            reverse_rates(there, x_t.cuda(), rate.cuda()).cpu(), reverse_rates(ratios, x_t, rate), rtol=1e-9, atol=1e-12
        )
    generator = torch.Generator("cuda").manual_seed(0)
    start, times = torch.full((60_000, 2), 3, device="cuda"), torch.linspace(1, 0, 4, dtype=FLOAT)
    two = law(3, 2, seed=5)
    out = masked_sample(exact_log_probs(two.cuda()), start, times, 3, generator=generator)
    assert out.device.type == "cuda"
    assert_law(out.cpu(), two * 2 / 3 + two.sum(1, keepdim=True) * two.sum(0, keepdim=True) / 3)
    drawn = masked_bound(exact_log_probs(joint.cuda()), x.cuda().repeat(2000, 1), 3, generator=generator)
    means, errors = drawn.reshape(2000, 27).mean(0).cpu(), drawn.reshape(2000, 27).std(0).cpu() / math.sqrt(2000)
    assert ((means + joint.flatten().log()).abs() < 4.5 * errors).all()


@pytest.mark.parametrize(("t", "s", "most"), [(0.5, 0.2, 0.4), (0.8, 0.45, 1.0)])
def test_a_filled_token_becomes_a_mask_again_at_its_rate(t, s, most):
    """With all masks filled in at t the share of masks at s is remask min(1, s / (1 - t))."""
    shares_of_masks = []

    def fill(i, time, x):
        shares_of_masks.append(float((x == 2).double().mean()))
        return torch.zeros_like(x)

    x, times = torch.full((20_000, 2), 2), torch.tensor([1.0, t, s], dtype=FLOAT)
    log_probs = exact_log_probs(law(2, 2))
    masked_sample(log_probs, x, times, 2, remask=0.5, generator=stream(), on_step=fill)
    assert shares_of_masks[1] == pytest.approx(0.5 * most, abs=4.5 * 0.5 / math.sqrt(40_000))
