"""Fast solvers of the probability flow: the linear part is exact, the rest is a polynomial (lesson 14).

With lambda = log(alpha / sigma), x0_hat = (x + sigma^2 s) / alpha and noise = -sigma s, between times t and t' < t:

x' / sigma' = x / sigma + int e^lambda x0_hat dlambda,   x' / alpha' = x / alpha - int e^-lambda noise dlambda.

All solvers take any score(x, t), any linear SDE and a state x (B, *S) at times[0], and return the state at times[-1].
`times` (n_steps + 1,) decreases strictly and may end where sigma is 0: the last step returns x0_hat there, for one
call. In the formulas i counts the steps, h = lambda_{i+1} - lambda_i.

`on_step(i, t, x)` is called after each step, with the time t that x has then; a tensor that it returns takes x's place.

All raise ValueError or TypeError for an x that is not a finite batch, times that do not decrease strictly, leave
[0, T], or have no finite log-SNR before the last one, and scores whose value is not a tensor like x.
"""

import math
from collections.abc import Callable

import torch
from torch import Tensor

from coursework._arguments import at_least, function_or_none, like, number, one_of, real, settled, some, truth
from coursework._loops import (
    OnStep,
    Step,
    TimedScore,
    check_noisy,
    check_start,
    check_times,
    columns,
    normal_like,
    score_at,
    score_times,
    walk,
)
from coursework.sdes import SDE, end_time

PREDICTIONS = ("data", "noise")
ROUNDING = 1e-12  # relative differences of sigma / alpha below it are rounding errors
SHORT = 0.01  # a step this much shorter than the next one gives the polynomial no slope there
KEPT, N_KNOTS, NUDGE = 0.99, 8, 1e-3  # of `fit_times`: the share of points that counts, knots, and their differences
CENTRE, WIDTH = 0.5, 4.0  # of `default_times`, in lambda
FlowSolver = Callable[[TimedScore, SDE, Tensor, Tensor], Tensor]
OnRound = Callable[[int, Tensor, float], object]
FirstCallStep = Callable[[int, Tensor, Tensor], Tensor]  # (i, x, noise(x, t_i)) -> the state at t_{i+1}


def exponential_multistep(
    score: TimedScore,
    sde: SDE,
    x: Tensor,
    times: Tensor,
    *,
    order: int = 2,
    prediction: str = "data",
    corrector: bool = False,
    on_step: OnStep | None = None,
) -> Tensor:
    """The integral of the polynomial in lambda through the last `order` predictions v_i, v_{i-1}, ..., one call a step:

    "data":  x <- sigma_{i+1} / sigma_i x + alpha_{i+1} sum_j w_j x0_hat_j,  w_j = int e^{-(h-u)} l_j(u) du,
    "noise": x <- alpha_{i+1} / alpha_i x - sigma_{i+1} sum_j w_j noise_j,   w_j = int e^{h-u} l_j(u) du,

    u from 0 to h, l_j Lagrange's polynomials of the nodes lambda_j - lambda_i. Order 1 is DDIM, either way; "data" is
    DPM-Solver++(2M) and (3M), "noise" DEIS in lambda. (2M) takes h/2 int e^{-(h-u)} du for int u e^{-(h-u)} du.

    corrector: once v_{i+1} is known, x_{i+1} is replaced by the step's integral of the polynomial through v_{i+1} too
    (UniC): order + 1 without a further call, v_{i+1} stays. The state at times[-1] is not corrected.

    order: 1, 2 or 3. It grows from 1 in the first steps, so that 3 is seen where x0_hat is flat in lambda at the first
    step, as at T; from a middle time the first step limits the order to 2. It grows anew after a step that is less than
    1% of the next one: the slope between two times that all but coincide would be noise, a hundred times enlarged.
    Shapes: x (B, *S) at times[0] -> (B, *S) at times[-1].
    Source: Lu et al. 2022b, algorithm 2; Zhang & Chen 2023; Zhao et al. 2023.
    """
    order = at_least(order, 1, "order")
    if order > 3:
        raise ValueError(f"order: expected 1, 2 or 3, got {order}")
    one_of(prediction, PREDICTIONS, "prediction")
    corrector = truth(corrector, "corrector")
    times, alpha, sigma, lam = _checked(score, sde, x, times)
    predict = (_data if prediction == "data" else _noise)(score, sde, x, times[:-1])
    keep, table = _multistep(alpha, sigma, lam, order, prediction, corrector)
    a, weights = columns(x, keep, table)
    weights = [row.unbind() for row in weights]
    past: list[Tensor] = []

    def step(i: int, x: Tensor) -> Tensor:
        past.insert(0, predict(i, x))
        del past[order + corrector :]
        return sum((w * v for w, v in zip(weights[i], past, strict=False)), a[i] * x)

    return walk(step, x, times, on_step)


def dpm_solver(
    score: TimedScore, sde: SDE, x: Tensor, times: Tensor, *, order: int = 2, on_step: OnStep | None = None
) -> Tensor:
    """DPM-Solver-2 and -3: single steps of `order` calls each. With e_0 = noise(x, t_i), s_r at lambda_i + r h,

    u_1 = alpha_{s_1} / alpha_i x - sigma_{s_1} (e^{r_1 h} - 1) e_0,  e_1 = noise(u_1, s_1), and with r_1 = 1/2

    2:  x <- alpha_{i+1} / alpha_i x - sigma_{i+1} (e^h - 1) e_1;  with r_1 = 1/3, r_2 = 2/3, p(z) = (e^z - 1) / z - 1:
    3:  u_2 = alpha_{s_2} / alpha_i x - sigma_{s_2} ((e^{r_2 h} - 1) e_0 + r_2 / r_1 p(r_2 h) (e_1 - e_0)),
        x <- alpha_{i+1} / alpha_i x - sigma_{i+1} ((e^h - 1) e_0 + p(h) / r_2 (noise(u_2, s_2) - e_0)).

    Shapes: x (B, *S) at times[0] -> (B, *S) at times[-1]. Calls: order n_steps, and one in a last step to sigma = 0.
    Also raises for an order that is not 2 or 3.
    Source: Lu et al. 2022, algorithms 1 and 2.
    """
    order = at_least(order, 2, "order")
    if order > 3:
        raise ValueError(f"order: expected 2 or 3, got {order}")
    times, alpha, sigma, lam = _checked(score, sde, x, times)
    full = (_dpm_2 if order == 2 else _dpm_3)(score, sde, x, alpha, sigma, lam)
    noise = _noise(score, sde, x, times[:-1])
    a, b = columns(x, *_noise_step(alpha[:-1], sigma[:-1], alpha[1:], sigma[1:]))

    def step(i: int, x: Tensor) -> Tensor:
        e_0 = noise(i, x)
        return full(i, x, e_0) if i < len(lam) - 1 else a[i] * x + b[i] * e_0

    return walk(step, x, times, on_step)


def edm_heun(
    score: TimedScore,
    sde: SDE,
    x: Tensor,
    times: Tensor,
    *,
    churn: float = 0.0,
    s_min: float = 0.0,
    s_max: float = math.inf,
    s_noise: float = 1.0,
    generator: torch.Generator | None = None,
    on_step: OnStep | None = None,
) -> Tensor:
    """Heun's method for y = x / alpha in s = sigma / alpha, order 2, after noise that lifts y from s_i to s_hat:

    s_hat = (1 + gamma) s_i,  gamma = min(churn / n_steps, sqrt(2) - 1) where s_min <= s_i <= s_max, else 0,
    y_hat = y + sqrt(s_hat^2 - s_i^2) s_noise z,  d = noise(y_hat, t_hat),  t_hat the time of s_hat,
    y' = y_hat + (s_{i+1} - s_hat) d,  y <- y_hat + (s_{i+1} - s_hat) (d + noise(y', t_{i+1})) / 2,  y' if s_{i+1} = 0.

    d = dy/ds = (y_hat - x0_hat) / s_hat. s_hat stays at most sigma(T) / alpha(T). 2 n_steps calls, one less if the last
    sigma is 0. Shapes: x (B, *S) at times[0] -> (B, *S) at times[-1].
    Raises ValueError for churn, s_min or s_noise < 0 and s_max < s_min. Source: Karras et al. 2022, algorithm 2.
    """
    times, alpha, sigma, lam = _checked(score, sde, x, times, generator)
    churn, s_min, s_noise = (_not_negative(*v) for v in ((churn, "churn"), (s_min, "s_min"), (s_noise, "s_noise")))
    s_max = real(s_max, "s_max")
    if not s_max >= s_min:
        raise ValueError(f"s_max: expected at least s_min = {s_min:g}, got {s_max:g}")
    n, s = len(times) - 1, (sigma / alpha)[:-1]
    gamma = min(churn / n, math.sqrt(2) - 1) * ((s >= s_min) & (s <= s_max)).double()
    s_hat = ((1 + gamma) * s).clamp(max=math.exp(-0.5 * float(sde.log_snr(sde.T))))
    lifts = s_hat > (1 + ROUNDING) * s
    t_hat = torch.where(lifts, sde.time_of_log_snr(-2 * s_hat.log()), times[:-1]) if churn > 0 else times[:-1]
    alpha_hat, sigma_hat = _scales(sde, t_hat)
    added = alpha_hat * s_noise * ((sigma_hat / alpha_hat) ** 2 - s**2).clamp(min=0).sqrt()
    up, added, a, b = columns(
        x, alpha_hat / alpha[:-1], added, *_noise_step(alpha_hat, sigma_hat, alpha[1:], sigma[1:])
    )
    noise, noise_after = _noise(score, sde, x, t_hat), _noise(score, sde, x, times[1 : len(lam)])

    lifted = lifts.tolist()

    def step(i: int, x: Tensor) -> Tensor:
        if lifted[i]:
            x = up[i] * x + added[i] * normal_like(x, generator)
        d = noise(i, x)
        y = a[i] * x + b[i] * d
        return a[i] * x + 0.5 * b[i] * (d + noise_after(i, y)) if i < len(lam) - 1 else y

    return walk(step, x, times, on_step)


def default_times(sde: SDE, n_steps: int) -> Tensor:
    """Times for n_steps calls of `exponential_multistep` (order 3, corrector) and one x0_hat at the last time.

    lambda_i = 1/2 + 4 tan(a_i), a_i equally spaced, from T to sigma / alpha = 1 / (2 n_steps), but not below t_min:
    steps are short where x0_hat of data of variance about 1 is decided, long where it is flat in lambda, and what
    x0_hat leaves out at the last time falls with the solver's error. Shape: (n_steps + 1,), float64.
    """
    n_steps = at_least(n_steps, 1, "n_steps")
    start, most = 0.5 * float(sde.log_snr(sde.T)), 0.5 * float(sde.log_snr(sde.t_min))
    end = min(most, max(math.log(2 * n_steps), start + math.log(2)))
    first, last = (math.atan((lam - CENTRE) / WIDTH) for lam in (start, end))
    inner = torch.linspace(first, last, n_steps + 1, dtype=torch.float64, device="cpu")[1:].tan()
    times = sde.time_of_log_snr(2 * (CENTRE + WIDTH * inner)).clamp(min=sde.t_min)
    return torch.cat([times.new_tensor([sde.T]), times])


def fit_times(
    solver: FlowSolver,
    score: TimedScore,
    sde: SDE,
    x: Tensor,
    n_steps: int,
    *,
    denoise: bool = True,
    t_min: float | None = None,
    n_rounds: int = 10,
    on_round: OnRound | None = None,
) -> Tensor:
    """The times, end included, whose solver(score, sde, x, times), followed by one x0_hat at times[-1] if `denoise`,
    has the least root mean square error to the exact flow's end at the data, over the 99% of x with the least error.

    The exact end: `exponential_multistep` with 14 steps for each halving of sigma / alpha, down to t_min (the SDE's),
    and x0_hat extrapolated from there to sigma = 0. The times: the steps in lambda of `default_times` times e^theta,
    theta linear between min(n_steps, 8) knots, moved by Levenberg and Marquardt's method, slopes by differences.
    A point that ends on another component would decide everything alone: hence the 99%.

    Calls: in each round one run of the solver for each knot and mostly one more. on_round(n_calls, times, error) is
    called before the first round and after each, n_calls all that were made so far. It ends early where a round gains
    less than 0.1%. Shapes: x (B, *S) at T, a pilot batch -> (n_steps + 1,), float64.
    Raises for half precision, no points, n_steps < 1, n_rounds < 1, a solver whose value is not a tensor like x, and
    FloatingPointError for one that diverges.
    Source: the aim is that of Sabour et al. 2024.
    """
    check_start(score, x)
    some(x, "x")
    if x.dtype not in (torch.float32, torch.float64):
        raise TypeError(f"x: expected float32 or float64, in which a fit sees its slopes, got {x.dtype}")
    if not callable(solver):
        raise TypeError(f"solver: expected a function, got {type(solver).__name__}")
    function_or_none(on_round, "on_round")
    n_steps, n_rounds = at_least(n_steps, 1, "n_steps"), at_least(n_rounds, 1, "n_rounds")
    end, n_calls, x = end_time(sde, t_min), 0, x.detach()
    for name, t in (("T", sde.T), ("t_min", end)):
        if not math.isfinite(float(sde.log_snr(t))):
            raise ValueError(f"{name}: expected a time with a finite log-SNR, got {t}")

    def counted(x: Tensor, t: Tensor) -> Tensor:
        nonlocal n_calls
        n_calls += 1
        return score(x, t)

    def tried(theta: Tensor) -> _Trial:
        times = _times(sde, increments * torch.exp(theta @ knots), end)
        got = solver(counted, sde, x, times)
        like(got, x, "solver's value", "x")
        got = _data(counted, sde, x, times[-1:])(0, got) if denoise else got
        return _Trial(theta, times, (got - exact).flatten(1).double())

    with torch.no_grad():
        exact = _end_at_the_data(counted, sde, x, end)
        increments, knots = 0.5 * sde.log_snr(default_times(sde, n_steps)).diff(), _knots(n_steps)
        each = torch.eye(len(knots), dtype=torch.float64, device="cpu")
        best, damping = tried(0 * each[0]), 1e-2
        if not math.isfinite(best.error):
            raise FloatingPointError("solver: its end on the first grid, default_times, is not finite")
        report = on_round or (lambda *_: None)
        report(n_calls, best.times, best.error)
        for _ in range(n_rounds):
            before = best.error
            nudged = (tried(best.theta + nudge).errors for nudge in NUDGE * each)
            slopes = torch.stack([(errors - best.errors)[best.kept].flatten() / NUDGE for errors in nudged])
            best, damping = _downhill(tried, best, slopes, damping)
            report(n_calls, best.times, best.error)
            if best.error > 0.999 * before:
                break
    return best.times


class _Trial:
    """A grid's parameters theta, its times, its errors (B, D), which points count, and their root mean square."""

    def __init__(self, theta: Tensor, times: Tensor, errors: Tensor) -> None:
        self.theta, self.times, self.errors = theta, times, errors
        squares = errors.square().mean(1)
        self.kept = squares.argsort()[: math.ceil(KEPT * len(squares))]
        self.error = float(squares[self.kept].mean().sqrt())


def _downhill(tried: Callable[[Tensor], _Trial], best: _Trial, slopes: Tensor, damping: float) -> tuple[_Trial, float]:
    """Levenberg and Marquardt's step for slopes (K, N), shortened until it helps, and the damping to go on with."""
    products = (slopes @ slopes.T).cpu()
    downhill = -(slopes @ best.errors[best.kept].flatten()).cpu()
    diagonal = products.diag() + 1e-6 * products.diag().max()
    if not 0 < float(diagonal.max()) < math.inf:  # no grid is better than another, or a nudge made the solver diverge
        return best, damping
    for _ in range(5):
        move = torch.linalg.solve(products + damping * diagonal.diag(), downhill)
        trial = tried(best.theta + move.clamp(-1, 1))
        if trial.error < best.error:
            return trial, damping / 4
        damping *= 6
    return best, damping


def _knots(n_steps: int) -> Tensor:
    """(K, n_steps): the hat functions of K equally spaced knots, 1 at their own and 0 at the others'."""
    k = min(n_steps, N_KNOTS)
    place = torch.linspace(0, k - 1, n_steps, dtype=torch.float64, device="cpu")
    return (1 - (place - torch.arange(k, device="cpu")[:, None]).abs()).clamp(min=0)


def _times(sde: SDE, increments: Tensor, end: float) -> Tensor:
    """The times from T on whose steps in lambda are these, all shortened alike where they would pass `end`."""
    first, last = 0.5 * float(sde.log_snr(sde.T)), 0.5 * float(sde.log_snr(end))
    passed = increments.cumsum(0)
    passed = passed * min(1.0, (last - first) / float(passed[-1]))
    times = sde.time_of_log_snr(2 * (first + passed)).clamp(min=end)
    return torch.cat([times.new_tensor([sde.T]), times])


def _end_at_the_data(score: TimedScore, sde: SDE, x: Tensor, end: float) -> Tensor:
    """Where the flow from x at T ends as s = sigma / alpha tends to 0: x0_hat at three times, a parabola in s^2."""
    first, last = 0.5 * float(sde.log_snr(sde.T)), 0.5 * float(sde.log_snr(end))
    h = min(math.log(2) / 14, (last - first) / 15)
    n = math.ceil((last - first) / h - ROUNDING)
    lam = last - h * torch.arange(n - 1, -1, -1, dtype=torch.float64, device="cpu")
    times = sde.time_of_log_snr(2 * lam).clamp(min=end)
    seen: dict[int, Tensor] = {}
    chosen = torch.tensor([n - 1, n - 8, n - 15], device="cpu")

    def keep(i: int, t: Tensor, x: Tensor) -> None:
        if i in chosen.tolist():
            seen[i] = x

    grid = torch.cat([times.new_tensor([sde.T]), times])
    exponential_multistep(score, sde, x, grid, order=3, corrector=True, on_step=keep)
    s2 = torch.exp(-2 * lam[chosen])
    total = torch.zeros_like(x)
    x0_hat = _data(score, sde, x, times[chosen])
    for k, i in enumerate(chosen.tolist()):
        others = torch.cat([s2[:k], s2[k + 1 :]])
        total = total + float((others / (others - s2[k])).prod()) * x0_hat(k, seen[i])
    return total


def _checked(
    score: TimedScore, sde: SDE, x: Tensor, times: Tensor, generator: torch.Generator | None = None
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """times, alpha, sigma (n_steps + 1,), and lambda of the times with noise: all, or all but the last."""
    check_start(score, x, generator)
    times = check_times(times, sde)
    check_noisy(times[:-1], sde)
    alpha, sigma = _scales(sde, times)
    noisy = len(times) if settled(sigma[-1] > 0) else len(times) - 1
    lam = torch.log(alpha[:noisy]) - torch.log(sigma[:noisy])
    if not (settled(torch.isfinite(lam)) and settled(lam.diff() > 0)):
        raise ValueError("times: expected a finite log-SNR that rises in every step; start where alpha is not 0")
    return times, alpha, sigma, lam


def _scales(sde: SDE, times: Tensor) -> tuple[Tensor, Tensor]:
    """alpha and sigma at times (n,), (n,) each, also where an SDE says a constant as one number."""
    scales = (torch.as_tensor(scale(times), dtype=times.dtype, device=times.device) for scale in (sde.alpha, sde.sigma))
    alpha, sigma = (scale.expand_as(times) for scale in scales)
    return alpha, sigma


def _noise(score: TimedScore, sde: SDE, x: Tensor, times: Tensor) -> Step:
    """(i, x) -> the noise prediction -sigma s(x, t_i), the coefficients for all t_i computed here."""
    t, (sigma,) = score_times(x, times, sde), columns(x, _scales(sde, times)[1])
    return lambda i, x: -sigma[i] * score_at(score, x, t[i])


def _data(score: TimedScore, sde: SDE, x: Tensor, times: Tensor) -> Step:
    """(i, x) -> the data prediction x0_hat = (x + sigma^2 s(x, t_i)) / alpha; sigma^2 may be too large for float16."""
    alpha, sigma = _scales(sde, times)
    t, (scale, sigma) = score_times(x, times, sde), columns(x, 1 / alpha, sigma)
    return lambda i, x: scale[i] * (x + sigma[i] * (sigma[i] * score_at(score, x, t[i])))


def _noise_step(alpha: Tensor, sigma: Tensor, alpha_next: Tensor, sigma_next: Tensor) -> tuple[Tensor, Tensor]:
    """a, b of x' = alpha' x0_hat + sigma' noise = a x + b noise (DDIM); b = -sigma' (e^h - 1)."""
    a = alpha_next / alpha
    return a, sigma_next - a * sigma


def _multistep(
    alpha: Tensor, sigma: Tensor, lam: Tensor, order: int, prediction: str, corrector: bool
) -> tuple[Tensor, Tensor]:
    """a (n_steps,) and c (n_steps, order + 1) of x <- a_i x + sum_j c_ij v_{i-j}: correct x_i, then step to t_{i+1}."""
    data = prediction == "data"
    level, other = (sigma, alpha) if data else (alpha, sigma)
    keep = level[1:] / level[:-1]
    table = torch.zeros(len(keep), order + 1, dtype=torch.float64, device="cpu")
    table[:, 0] = other[1:] - keep * other[:-1]  # DDIM: all that is left where sigma_{i+1} is 0
    n = len(lam) - 1
    predicted, corrected = torch.zeros(2, n, order + 1, dtype=torch.float64, device="cpu")  # of v_{i+1}, v_i, ...
    for q in range(1, min(order, n) + 1):
        nodes = lam.unfold(0, q + 1, 1).flip(1)
        gaps = -nodes.diff()
        rows = q - 1 + (gaps > SHORT * gaps[:, :1]).all(1).nonzero()[:, 0]
        nodes = nodes[rows - (q - 1)]
        predicted[rows, 1 : q + 1] = _integrals(nodes[:, 1:], nodes[:, 1], nodes[:, 0], data)
        corrected[rows, : q + 1] = _integrals(nodes, nodes[:, 1], nodes[:, 0], data)
    scale = (other if data else -other)[1 : n + 1, None]
    table[:n, :order] = scale * predicted[:, 1:]
    if corrector:
        table[1:n] += keep[1:n, None] * (scale * (corrected - predicted))[:-1]
    return keep, table


def _integrals(nodes: Tensor, start: Tensor, end: Tensor, data: bool) -> Tensor:
    """int e^{-(end - u)} l_j(u) du from start to end (e^{end - u} for noise), l_j(nodes_k) = 1 if j = k else 0.

    Shapes: nodes (n, q), start and end (n,) -> (n, q). The powers of v = (u - start) / h have the integrals
    h k! phi_{k+1}(-h), with phi_0(z) = e^z, phi_{k+1}(z) = (phi_k(z) - 1/k!) / z.
    """
    q, h = nodes.shape[1], end - start
    k = torch.arange(q, dtype=torch.float64, device="cpu")
    moments = h[:, None] * torch.exp(torch.lgamma(k + 1)) * _phi(-h if data else h, q)
    if data and q == 2:
        moments[:, 1] = moments[:, 0] / 2  # as (2M) and the corrector of its first step are published
    powers = ((nodes - start[:, None]) / h[:, None])[..., None] ** k
    return torch.linalg.solve(powers.mT, moments)


def _phi(z: Tensor, q: int) -> Tensor:
    """phi_1(z), ..., phi_q(z), (n,) -> (n, q): the first row of exp of the matrix with z in its corner and 1s above the
    diagonal, without the cancellation of their recurrence (Al-Mohy & Higham 2011)."""
    matrix = torch.diag(torch.ones(q, dtype=torch.float64, device="cpu"), 1).repeat(len(z), 1, 1)
    matrix[:, 0, 0] = z
    return torch.linalg.matrix_exp(matrix)[:, 0, 1:]


def _dpm_2(score: TimedScore, sde: SDE, x: Tensor, alpha: Tensor, sigma: Tensor, lam: Tensor) -> FirstCallStep:
    n = len(lam) - 1
    noise_1, alpha_1, sigma_1 = _inside(score, sde, x, lam, 1 / 2)
    a_1, b_1 = columns(x, *_noise_step(alpha[:n], sigma[:n], alpha_1, sigma_1))
    a, b = columns(x, *_noise_step(alpha[:n], sigma[:n], alpha[1 : n + 1], sigma[1 : n + 1]))
    return lambda i, x, e_0: a[i] * x + b[i] * noise_1(i, a_1[i] * x + b_1[i] * e_0)


def _dpm_3(score: TimedScore, sde: SDE, x: Tensor, alpha: Tensor, sigma: Tensor, lam: Tensor) -> FirstCallStep:
    n, h, r_1, r_2 = len(lam) - 1, lam.diff(), 1 / 3, 2 / 3
    noise_1, alpha_1, sigma_1 = _inside(score, sde, x, lam, r_1)
    noise_2, alpha_2, sigma_2 = _inside(score, sde, x, lam, r_2)
    a_1, b_1 = columns(x, *_noise_step(alpha[:n], sigma[:n], alpha_1, sigma_1))
    a_2, b_2 = columns(x, *_noise_step(alpha[:n], sigma[:n], alpha_2, sigma_2))
    a, b = columns(x, *_noise_step(alpha[:n], sigma[:n], alpha[1 : n + 1], sigma[1 : n + 1]))
    c_2, c = columns(x, sigma_2 * r_2 / r_1 * _p(r_2 * h), sigma[1 : n + 1] / r_2 * _p(h))
    b_2, b = b_2 + c_2, b + c  # what multiplies e_0

    def step(i: int, x: Tensor, e_0: Tensor) -> Tensor:
        e_1 = noise_1(i, a_1[i] * x + b_1[i] * e_0)
        e_2 = noise_2(i, a_2[i] * x + b_2[i] * e_0 - c_2[i] * e_1)
        return a[i] * x + b[i] * e_0 - c[i] * e_2

    return step


def _inside(score: TimedScore, sde: SDE, x: Tensor, lam: Tensor, r: float) -> tuple[Step, Tensor, Tensor]:
    """At the times of lambda_i + r h, (n_steps,): the noise prediction, alpha and sigma."""
    s = sde.time_of_log_snr(2 * (lam[:-1] + r * lam.diff()))
    return _noise(score, sde, x, s), *_scales(sde, s)


def _p(z: Tensor) -> Tensor:
    """(e^z - 1) / z - 1."""
    return torch.expm1(z) / z - 1


def _not_negative(value: object, name: str) -> float:
    value = number(value, name)
    if value < 0:
        raise ValueError(f"{name}: expected a number >= 0, got {value:g}")
    return value
