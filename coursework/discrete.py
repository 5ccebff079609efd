"""Diffusion of tokens: masks and other noise on finite alphabets (lesson 20).

Tokens are integers (B, L) in 0 ... K - 1; with masks, the integer K is the mask. Time runs from 0 (data) to 1 (all
masks): at t each token is masked with probability t, alone. `log_probs(x_t, t)` answers, for t (B,), with
log p(x_0^i | x_t) for every position i, (B, L, K); what it says where a token can be seen is not used.

A noise that is no mask is a chain of jumps, the same for every token: `rate` (K, K), where rate[a, b] is that of the
jump from a to b and rows sum to 0, and `transition_matrix` (K, K), where row a is the law of a token that was a.
"""

import math
from collections.abc import Callable

import torch
from torch import Tensor

from coursework._arguments import at_least, finite, floating, function_or_none, indices, number, one_of, reals, wide
from coursework._loops import OnStep, check_generator

LogProbs = Callable[[Tensor, Tensor], Tensor]
Rates = Callable[[Tensor, Tensor], Tensor]
ORDERS = ("random", "confidence")


# Masks


def mask_tokens(x: Tensor, rate: float | Tensor, n_tokens: int, *, generator: torch.Generator | None = None) -> Tensor:
    """x_t: each token of x becomes the mask, the integer `n_tokens`, with probability `rate`, alone.

    Shapes: x (B, L), rate one number or (B,) -> (B, L). Raises ValueError for tokens outside 0 ... n_tokens (masks stay
    masks), and for a rate outside [0, 1]. Source: Austin et al. 2021, section 3.1; Sahoo et al. 2024, eq. 3.
    """
    x = _tokens(x, at_least(n_tokens, 1, "n_tokens") + 1, "x")
    rate = _share(rate, x, "rate")
    return torch.where(_uniform(x, generator) < rate, n_tokens, x)


def masked_bound(
    log_probs: LogProbs, x: Tensor, n_tokens: int, *, n_times: int = 1, generator: torch.Generator | None = None
) -> Tensor:
    """A draw of the bound -log p(x) <= int_0^1 (1/t) E[sum_{i masked at t} -log p(x_i | x_t)] dt, in nats.

    The integral is the mean of L/k sum_{i masked} -log p(x_i | x_t) over k uniform on 1 ... L and k random positions
    that are masked, with t = k/L: that is what is drawn, n_times times for each sequence. With the exact conditionals
    the mean *is* -log p(x): it is the chain rule, averaged over all orders. Its mean over a batch is the training loss.

    Shapes: x (B, L), no masks -> (B,), differentiable in what `log_probs` answers.
    Source: Sahoo et al. 2024, eq. 10; Shi et al. 2024, eq. 8; in this form Ou et al. 2025, section 3.
    """
    x = _tokens(x, at_least(n_tokens, 1, "n_tokens"), "x")
    n_times, (n, length) = at_least(n_times, 1, "n_times"), x.shape
    check_generator(generator, x)
    total = torch.zeros(n, device=x.device)
    for _ in range(n_times):
        k = torch.randint(1, length + 1, (n, 1), generator=generator, device=x.device)
        masked = _uniform(x, generator).argsort(1) < k  # a random order's ranks
        values = _answer(log_probs, torch.where(masked, n_tokens, x), k[:, 0] / length, n_tokens)
        surprise = -values.gather(2, x[:, :, None])[:, :, 0]
        total = total + (length / k * torch.where(masked, surprise, 0.0)).sum(1)
    return total / n_times


def exact_masked_bound(log_probs: LogProbs, x: Tensor, n_tokens: int) -> Tensor:
    """The mean of `masked_bound`, by all 2^L - 1 sets of masks: a set of k counts 1 / (k binomial(L, k)).

    Shapes: x (B, L), no masks -> (B,).
    """
    x = _tokens(x, at_least(n_tokens, 1, "n_tokens"), "x")
    length = x.shape[1]
    total = torch.zeros(len(x), device=x.device)
    for bits in range(1, 2**length):
        masked = torch.tensor([bits >> i & 1 for i in range(length)], dtype=torch.bool, device=x.device)
        k = int(masked.sum())
        values = _answer(log_probs, torch.where(masked, n_tokens, x), x.new_full((len(x),), k) / length, n_tokens)
        surprise = -values.gather(2, x[:, :, None])[:, :, 0]
        total = total + surprise[:, masked].sum(1) / (k * math.comb(length, k))
    return total


def masked_sample(
    log_probs: LogProbs,
    x: Tensor,
    times: Tensor,
    n_tokens: int,
    *,
    order: str = "random",
    remask: float = 0.0,
    generator: torch.Generator | None = None,
    on_step: OnStep | None = None,
) -> Tensor:
    """Fill in the masks of x along `times`, decreasing in [0, 1]; tokens that x has are kept: x may be all masks.

    From t to s, tokens x_0^i ~ p(. | x_t) are drawn for all masks at once, each alone. order "random": a mask is
    replaced by its token with probability (t - s) / t. "confidence": of the m masks at the start floor(m s / times[0])
    remain, and the tokens with the largest p are taken. The price of drawing at once: two tokens in T equal steps have
    the law (1 - 1/T) p + (1/T) p_1 p_2.

    remask, a share of the most that is possible: with random order, a token that was filled in becomes a mask again
    with probability r = remask min(1, s / (1 - t)), and a mask is replaced with probability
    (1 - s - (1 - r) (1 - t)) / t, so that the share of masks at s is the same.

    Shapes: x (B, L) -> (B, L). Raises ValueError for times that do not fall in [0, 1], and for remasking by confidence.
    Source: Sahoo et al. 2024, eq. 7; order by confidence Chang et al. 2022, section 3.2; remasking Wang et al. 2025.
    """
    x = _tokens(x, at_least(n_tokens, 1, "n_tokens") + 1, "x")
    times, remask = _check_times(times, 1.0), number(remask, "remask")
    if float(times[0]) == 0.0:
        raise ValueError("times: expected a start later than 0, where nothing is masked")
    one_of(order, ORDERS, "order")
    function_or_none(on_step, "on_step")
    if not 0 <= remask <= 1 or (remask and order != "random"):
        raise ValueError(f"remask: expected a number in [0, 1], and 0 unless order is 'random', got {remask:g}")
    check_generator(generator, x)
    free = x == n_tokens
    at_start = free.sum(1, keepdim=True)
    for i, (t, s) in enumerate(zip(times[:-1].tolist(), times[1:].tolist(), strict=True)):
        values = _answer(log_probs, x, torch.full((len(x),), t, device=x.device), n_tokens)
        drawn, masked = _draw(values.softmax(2), generator), x == n_tokens
        if order == "random":
            again = remask * min(1.0, s / (1 - t)) if t < 1 else remask
            back = free & ~masked & (_uniform(x, generator) < again)
            taken = masked & (_uniform(x, generator) < (1 - s - (1 - again) * (1 - t)) / t)
        else:
            confidence = values.gather(2, drawn[:, :, None])[:, :, 0].masked_fill(~masked, -math.inf)
            remain = (at_start * s / float(times[0])).floor()
            rank = confidence.argsort(dim=1, descending=True, stable=True).argsort(1)
            taken, back = masked & (rank < masked.sum(1, keepdim=True) - remain), torch.zeros_like(masked)
        x = torch.where(taken, drawn, torch.where(back, n_tokens, x))
        x = _after_step(on_step, i, times[i + 1], x, n_tokens + 1)
    return x


def exact_log_probs(joint: Tensor) -> LogProbs:
    """The conditionals of a law that is given whole: log p(x_0^i | the tokens that x_t shows), at every time the same.

    joint: probabilities (K, ..., K), an axis for each of the L positions; K^L numbers. Where a token is shown, its own
    probability is 1. The answer raises ValueError for shown tokens that never occur together.
    """
    floating(joint, "joint")
    finite(joint, "joint")
    if not joint.ndim or len(set(joint.shape)) != 1:
        raise ValueError(f"joint: expected an axis of K for each position, got shape {tuple(joint.shape)}")
    if not (joint >= 0).all() or not torch.isclose(joint.sum(), joint.new_tensor(1.0)):
        raise ValueError("joint: expected probabilities that sum to 1")
    length, n_tokens = joint.ndim, len(joint)
    each = torch.arange(n_tokens, device=joint.device)
    sequences = torch.cartesian_prod(*[each] * length).reshape(-1, length)
    indicator = (sequences[:, :, None] == each).to(joint.dtype)

    def log_probs(x_t: Tensor, t: Tensor) -> Tensor:
        fits = ((x_t[:, None] == sequences) | (x_t[:, None] == n_tokens)).all(2)
        weights = fits * joint.flatten()
        total = weights.sum(1, keepdim=True)
        if not (total > 0).all():
            raise ValueError("x_t: its tokens never occur together")
        return torch.einsum("bn,nlk->blk", weights / total, indicator).log()

    return log_probs


def guided_log_probs(conditional: Tensor, unconditional: Tensor, weight: float) -> Tensor:
    """log of p_u^(1 - w) p_c^w, normalised for each token: guidance. w = 1 is the conditional.

    Shapes: log-probabilities (..., K) twice -> (..., K). Source: Schiff et al. 2025, section 3; Ho & Salimans 2022.
    """
    weight = number(weight, "weight")
    for value, name in ((conditional, "conditional"), (unconditional, "unconditional")):
        floating(value, name)
    if conditional.shape != unconditional.shape:
        shapes = tuple(conditional.shape), tuple(unconditional.shape)
        raise ValueError(f"unconditional: expected shape {shapes[0]} like conditional, got {shapes[1]}")
    return torch.log_softmax(weight * wide(conditional) + (1 - weight) * wide(unconditional), -1)


# Any noise: chains of jumps


def uniform_rate(n_tokens: int) -> Tensor:
    """Every token jumps to every other one at rate 1/K: rate (K, K) = 1/K - identity, float64.

    After `amount` a token is kept with probability e^-amount, and else drawn uniformly from all K.
    """
    k = at_least(n_tokens, 2, "n_tokens")
    return torch.full((k, k), 1 / k, dtype=torch.float64) - torch.eye(k, dtype=torch.float64)


def mask_rate(n_tokens: int) -> Tensor:
    """Every token jumps to the mask, the last state, at rate 1: rate (K + 1, K + 1), float64."""
    k = at_least(n_tokens, 1, "n_tokens")
    rate = -torch.eye(k + 1, dtype=torch.float64)
    rate[:, k] += 1.0
    return rate


def transition_matrix(rate: Tensor, amount: float | Tensor) -> Tensor:
    """Kolmogorov's equation dP/da = P rate, P_0 = 1: P = exp(amount rate), P[a, b] = Prob(b later | a now).

    Shapes: rate (K, K), amount one number or (B,), >= 0 -> (K, K) or (B, K, K). Raises ValueError for what is no rate
    matrix. Source: Campbell et al. 2022, section 2.
    """
    rate = _check_rate(rate)
    amount = reals(amount, "amount").to(rate)
    finite(amount, "amount")
    if amount.ndim > 1 or (amount < 0).any():
        raise ValueError(f"amount: expected numbers >= 0, one or (B,), got {amount.tolist()}")
    return torch.linalg.matrix_exp(wide(amount)[..., None, None] * wide(rate)).to(rate.dtype)


def jump_posterior(x_t: Tensor, probs: Tensor, earlier: Tensor, later: Tensor) -> Tensor:
    """The law of x_s given x_t, s < t, for a token that was x_0 ~ probs: D3PM's reverse step.

    q(x_s | x_t) = sum_{x_0} probs(x_0) q(x_s | x_t, x_0),
    q(x_s | x_t, x_0) = P_s[x_0, x_s] P_ts[x_s, x_t] / P_t[x_0, x_t].

    earlier: P_s (K, K), from 0 to s; later: P_ts, from s to t. probs[..., x_0] must be 0 where x_0 cannot become x_t.
    Shapes: x_t (B, L), probs (B, L, K) -> (B, L, K). Source: Austin et al. 2021, eqs. 3 and 4.
    """
    earlier, later = _check_transition(earlier, "earlier"), _check_transition(later, "later")
    x_t = _tokens(x_t, len(earlier), "x_t")
    probs = _check_probs(probs, x_t, len(earlier))
    ends = (earlier.to(probs) @ later.to(probs)).T[x_t]  # P_t[x_0, x_t], (B, L, K)
    if not ((ends > 0) | (probs == 0)).all():
        raise ValueError("probs: a token that cannot become x_t has a positive probability")
    weights = torch.where(ends > 0, probs / ends, 0.0)
    return (weights @ earlier.to(probs)) * later.T.to(probs)[x_t]


def concrete_score(x_t: Tensor, probs: Tensor, transition: Tensor) -> Tensor:
    """The ratios p_t(x_t with its token i replaced by y) / p_t(x_t), from the law of x_0^i given x_t:

    sum_{x_0} probs(x_0) P_t[x_0, y] / P_t[x_0, x_t^i],

    for every y that can become x_t^i: `reverse_rates` needs no other. (From a mask there is no way back: where x_t^i is
    a token, all others have ratio 0 here.)

    Shapes: x_t (B, L), probs (B, L, K), transition P_t (K, K) -> (B, L, K), 1 at the token itself.
    Source: Meng et al. 2022; Lou et al. 2024, section 3.
    """
    transition = _check_transition(transition, "transition")
    x_t = _tokens(x_t, len(transition), "x_t")
    probs = _check_probs(probs, x_t, len(transition))
    ends = transition.to(probs).T[x_t]
    if not ((ends > 0) | (probs == 0)).all():
        raise ValueError("probs: a token that cannot become x_t has a positive probability")
    return torch.where(ends > 0, probs / ends, 0.0) @ transition.to(probs)


def score_entropy(ratios: Tensor, x_t: Tensor, x_0: Tensor, transition: Tensor, rate: Tensor) -> Tensor:
    """Denoising score entropy, which the concrete score minimises and which is never negative:

    sum_i sum_{y != x_t^i} rate[y, x_t^i] (s_y - r_y log s_y + r_y (log r_y - 1)),
    r_y = P_t[x_0^i, y] / P_t[x_0^i, x_t^i].

    With the exact ratios the integral of its mean over the amount of noise, from 0 to where the law is the noise's, is
    -log p(x_0). Shapes: ratios (B, L, K), x_t, x_0 (B, L), transition, rate (K, K) -> (B,).
    Source: Lou et al. 2024, eq. 8 and theorem 3.6.
    """
    transition, rate = _check_transition(transition, "transition"), _check_rate(rate)
    x_t, x_0 = _tokens(x_t, len(rate), "x_t"), _tokens(x_0, len(rate), "x_0")
    if x_0.shape != x_t.shape:
        raise ValueError(f"x_0: expected shape {tuple(x_t.shape)} like x_t, got {tuple(x_0.shape)}")
    ratios = _check_shape(ratios, x_t, len(rate), "ratios")
    there = transition.to(ratios)[x_0]
    here = there.gather(2, x_t[:, :, None])
    if not (here > 0).all():
        raise ValueError("x_t: a token that x_0 cannot become")
    wanted = there / here
    costs = ratios - torch.xlogy(wanted, ratios) + torch.xlogy(wanted, wanted) - wanted
    jumps = rate.to(ratios).T[x_t].scatter(2, x_t[:, :, None], 0.0)
    return torch.where(jumps > 0, jumps * costs, 0.0).sum((1, 2))


def reverse_rates(ratios: Tensor, x_t: Tensor, rate: Tensor) -> Tensor:
    """The rates of the chain run backwards: from x_t^i to y, rate[y, x_t^i] p_t(y) / p_t(x_t^i); 0 at the token itself.

    Shapes: ratios (B, L, K), x_t (B, L), rate (K, K) -> (B, L, K).
    Source: Kelly 1979; Campbell et al. 2022, proposition 1; Lou et al. 2024, eq. 3.
    """
    rate = _check_rate(rate)
    x_t = _tokens(x_t, len(rate), "x_t")
    ratios = _check_shape(ratios, x_t, len(rate), "ratios")
    return (ratios * rate.to(ratios).T[x_t]).scatter(2, x_t[:, :, None], 0.0)


def flow_rates(log_probs: LogProbs, x_t: Tensor, t: Tensor, n_tokens: int, *, noise: float = 0.0) -> Tensor:
    """Discrete flow matching with masks: rates towards the data that keep the law of x_t, for any `noise` eta >= 0.

    From a mask to the token y: (1 + eta (1 - t)) / t p(y | x_t);  from a token to the mask: eta.

    With eta = 0 a token never changes again. States are 0 ... n_tokens, the mask the last.
    Shapes: x_t (B, L), t (B,), 0 < t <= 1 -> (B, L, n_tokens + 1).
    Source: Campbell et al. 2024, section 4 (there t runs from noise to data).
    """
    x_t = _tokens(x_t, at_least(n_tokens, 1, "n_tokens") + 1, "x_t")
    noise = number(noise, "noise")
    if noise < 0:
        raise ValueError(f"noise: expected a number >= 0, got {noise:g}")
    t = reals(t, "t").to(x_t.device)
    if t.shape != x_t.shape[:1] or not ((t > 0) & (t <= 1)).all():
        raise ValueError(f"t: expected {len(x_t)} times in (0, 1], got {t.tolist()}")
    probs = _answer(log_probs, x_t, t, n_tokens).exp()
    masked = (x_t == n_tokens)[:, :, None]
    t = t.to(probs)[:, None, None]
    to_tokens = torch.where(masked, (1 + noise * (1 - t)) / t * probs, 0.0)
    return torch.cat([to_tokens, torch.where(masked, 0.0, noise).to(probs)], 2)


def jump_sample(
    rates: Rates,
    x: Tensor,
    times: Tensor,
    *,
    generator: torch.Generator | None = None,
    on_step: OnStep | None = None,
) -> Tensor:
    """Jumps along `times`, decreasing: in a step h a token stays with probability e^{-h R}, R the sum of its rates.

    Otherwise it jumps to y with probability rate_y / R. Rates are those at the step's start, for every token alone: an
    error of order h, as of Euler's method. rates(x, t), t (B,) -> (B, L, n_states), 0 at the token itself.
    Shapes: x (B, L) -> (B, L). Source: Gillespie 2001; for tokens Campbell et al. 2022, section 4.3.
    """
    x = _tokens(x, None, "x")
    times = _check_times(times, math.inf)
    function_or_none(on_step, "on_step")
    check_generator(generator, x)
    for i, (t, s) in enumerate(zip(times[:-1].tolist(), times[1:].tolist(), strict=True)):
        values = wide(rates(x, torch.full((len(x),), t, device=x.device)))
        if values.shape[:2] != x.shape or not (values >= 0).all():
            raise ValueError(f"rates' value: expected numbers >= 0 of shape (B, L, states), got {tuple(values.shape)}")
        total = values.sum(2)
        jumps = _uniform(x, generator) < -torch.expm1(-(t - s) * total)
        drawn = _draw(torch.where(jumps[:, :, None], values, 1.0), generator)
        x = _after_step(on_step, i, times[i + 1], torch.where(jumps, drawn, x), None)
    return x


# Arguments


def _tokens(x: Tensor, end: int | None, name: str) -> Tensor:
    """Tokens (B, L) as a long tensor."""
    x = indices(x, 0, end, name)
    if x.ndim != 2 or not x.shape[1]:
        raise ValueError(f"{name}: expected tokens of shape (B, L), got {tuple(x.shape)}")
    return x


def _share(value: float | Tensor, x: Tensor, name: str) -> Tensor:
    """Probabilities, one or (B,), as a column."""
    value = reals(value, name).to(x.device)
    finite(value, name)
    if value.shape not in ((), x.shape[:1]):
        raise ValueError(f"{name}: expected one number or ({len(x)},), got shape {tuple(value.shape)}")
    if not ((value >= 0) & (value <= 1)).all():
        raise ValueError(f"{name}: expected probabilities in [0, 1], got {value.min():g} to {value.max():g}")
    return value.reshape(-1, 1)


def _check_times(times: Tensor, most: float) -> Tensor:
    """A grid that falls, in float64 on the CPU."""
    floating(times, "times")
    finite(times, "times")
    if times.ndim != 1 or len(times) < 2:
        raise ValueError(f"times: expected shape (n_steps + 1,) with at least one step, got {tuple(times.shape)}")
    times = times.detach().double().cpu()
    if not (times.diff() < 0).all() or times[-1] < 0 or times[0] > most:
        raise ValueError(f"times: expected strictly decreasing values in [0, {most:g}], got {times.tolist()}")
    return times


def _check_rate(rate: Tensor) -> Tensor:
    """A rate matrix: no negative rate, rows that sum to 0."""
    floating(rate, "rate")
    finite(rate, "rate")
    if rate.ndim != 2 or rate.shape[0] != rate.shape[1] or not len(rate):
        raise ValueError(f"rate: expected shape (K, K), got {tuple(rate.shape)}")
    slack = 1e-5 * float(rate.abs().max())
    if (rate - torch.diag(rate.diagonal()) < 0).any() or (rate.sum(1).abs() > slack).any():
        raise ValueError("rate: expected rates >= 0 beside the diagonal, and rows that sum to 0")
    return rate


def _check_transition(transition: Tensor, name: str) -> Tensor:
    """A matrix whose rows are laws."""
    floating(transition, name)
    finite(transition, name)
    if transition.ndim != 2 or transition.shape[0] != transition.shape[1] or not len(transition):
        raise ValueError(f"{name}: expected shape (K, K), got {tuple(transition.shape)}")
    if (transition < -1e-6).any() or ((transition.sum(1) - 1).abs() > 1e-3).any():
        raise ValueError(f"{name}: expected rows of probabilities")
    return transition.clamp(min=0)


def _check_shape(value: Tensor, x: Tensor, n: int, name: str) -> Tensor:
    floating(value, name)
    if value.shape != (*x.shape, n):
        raise ValueError(f"{name}: expected shape {(*x.shape, n)}, got {tuple(value.shape)}")
    return wide(value)


def _check_probs(probs: Tensor, x: Tensor, n: int) -> Tensor:
    probs = _check_shape(probs, x, n, "probs")
    finite(probs, "probs")
    if (probs < 0).any():
        raise ValueError("probs: expected numbers >= 0")
    return probs


def _answer(log_probs: LogProbs, x_t: Tensor, t: Tensor, n_tokens: int) -> Tensor:
    """What a model answers, refused where it has another shape: the mask has no probability."""
    values = log_probs(x_t, t)
    if not isinstance(values, Tensor) or values.shape != (*x_t.shape, n_tokens):
        got = tuple(values.shape) if isinstance(values, Tensor) else type(values).__name__
        raise ValueError(f"log_probs' value: expected shape {(*x_t.shape, n_tokens)}, got {got}")
    return wide(values)


def _uniform(x: Tensor, generator: torch.Generator | None) -> Tensor:
    check_generator(generator, x)
    return torch.rand(x.shape, generator=generator, dtype=torch.float64, device=x.device)


def _draw(weights: Tensor, generator: torch.Generator | None) -> Tensor:
    """Tokens (B, L) by their weights (B, L, K), which need not sum to 1; one of weight 0 is never drawn."""
    sums = weights.double().cumsum(2)
    u = _uniform(sums[:, :, 0], generator)[:, :, None]
    return (sums <= u * sums[:, :, -1:]).sum(2).clamp(max=weights.shape[2] - 1)


def _after_step(on_step: OnStep | None, i: int, t: Tensor, x: Tensor, end: int | None) -> Tensor:
    """The tokens to go on with: what on_step(i, t, x) returns if that is a tensor, else x."""
    changed = None if on_step is None else on_step(i, t, x)
    if not isinstance(changed, Tensor):
        return x
    changed = _tokens(changed, end, "on_step's value")
    if changed.shape != x.shape:
        raise ValueError(f"on_step's value: expected shape {tuple(x.shape)} like x, got {tuple(changed.shape)}")
    return changed
