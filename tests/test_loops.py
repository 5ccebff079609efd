"""What all solvers promise alike: the door, dtypes, devices, batches, callbacks, memory, and no waiting in the loop."""

import math
import weakref

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from coursework.distributions import GaussianMixture, exact_score
from coursework.fast_solvers import dpm_solver, edm_heun, exponential_multistep
from coursework.langevin import langevin
from coursework.nn import Denoiser
from coursework.predictions import ScoreModel
from coursework.probability_flow import adaptive, euler, heun, rk4
from coursework.reverse_sde import (
    adaptive_sde,
    ancestral,
    euler_maruyama,
    predictor_corrector,
    reverse_diffusion,
    stochastic_heun,
)
from coursework.sdes import VESDE, VPSDE, SubVPSDE, karras_times, log_snr_times, uniform_times
from tests.helpers.laws import Cosine

pytestmark = pytest.mark.usefixtures("one_thread")

BOTH_WAYS = (euler, heun, rk4)
FLOWS = (*BOTH_WAYS, exponential_multistep, dpm_solver, edm_heun)
STOCHASTIC = (euler_maruyama, reverse_diffusion, ancestral, stochastic_heun, predictor_corrector)
each_solver = pytest.mark.parametrize("solver", FLOWS + STOCHASTIC)
each_flow = pytest.mark.parametrize("solver", FLOWS)
each_stochastic = pytest.mark.parametrize("solver", STOCHASTIC)


LAW = GaussianMixture(
    torch.tensor([[-1.0, 0.3, 0.2], [0.8, -0.5, 0.1]]).double(),
    torch.tensor([0.2, 0.4]).double(),
    torch.tensor([1.0, 2.0]).double(),
)


def linear_score(x, t):
    return -x / (1 + t)


def adaptively(score, sde, x, times, *, generator=None, on_step=None):
    return adaptive_sde(
        score, sde, x, rtol=0.5, atol=0.5, t_min=float(times[-1]), generator=generator, on_step=on_step
    )[0]


def by_ode(score, sde, x, times, **_):
    return adaptive(score, sde, x, t_end=float(times[-1]))


ALL = (*FLOWS, *STOCHASTIC, adaptively, by_ode)
each = pytest.mark.parametrize("solver", ALL)

# -- batches, dtypes, devices ------------------------------------------------------------------------------------------


@each
@pytest.mark.parametrize("shape", [(0, 3), (0, 1, 8, 8)])
def test_an_empty_batch_comes_back_empty_without_asking_the_score(solver, shape):
    def never(x, t):
        raise AssertionError("the score was asked")

    out = solver(never, VPSDE(), torch.zeros(shape), uniform_times(VPSDE(), 4))
    assert out.shape == shape


@each
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("shape", [(1, 3), (5, 3), (2, 1, 4, 6)])
def test_shape_dtype_and_what_the_score_receives(solver, dtype, shape):
    seen = []

    def score(x, t):
        seen.append((x.shape, x.dtype, t.shape, t.dtype))
        return linear_score(x, t)

    out = solver(score, VPSDE(), torch.ones(shape, dtype=dtype), uniform_times(VPSDE(), 4))
    assert (out.shape, out.dtype) == (shape, dtype)
    assert set(seen) == {(shape, dtype, (), dtype)}


@pytest.mark.parametrize("solver", [*FLOWS, by_ode])
def test_points_of_a_batch_do_not_touch_each_other(solver):
    """Each point alone gives what it gives among others; the batch is as large as the dimension."""
    x, times = torch.linspace(-1, 1, 9).double().reshape(3, 3), uniform_times(VPSDE(), 6)
    together = solver(exact_score(LAW, VPSDE()), VPSDE(), x, times)
    for i in range(3):
        torch.testing.assert_close(
            together[i], solver(exact_score(LAW, VPSDE()), VPSDE(), x[i : i + 1], times)[0], rtol=1e-4, atol=1e-4
        )


@each_solver
def test_float32_differs_from_float64_by_rounding_only(solver, generator):
    """The grid is float64 in both, only the state is float32; the noise is the same."""
    x, times = torch.randn(200, 3, generator=generator), log_snr_times(VPSDE(), 40)
    kwargs = {} if solver in FLOWS else {"generator": generator}
    out = []
    for dtype in (torch.float32, torch.float64):
        generator.manual_seed(1)
        if kwargs:
            draws = torch.randn(200, 200, 3, generator=generator)
            kwargs = {"generator": None}
            stream = iter(draws)
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr("coursework.reverse_sde.normal_like", lambda x, _, s=stream: next(s).to(x))
                out.append(solver(exact_score(LAW, VPSDE()), VPSDE(), x.to(dtype), times, **kwargs))
        else:
            out.append(solver(exact_score(LAW, VPSDE()), VPSDE(), x.to(dtype), times))
    assert (out[0].double() - out[1]).abs().max() < 2e-4


@pytest.mark.needs("gpu")
@each_solver
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_on_the_gpu_without_a_synchronisation(solver, dtype):
    device, sde = torch.device("cuda"), VPSDE()
    model = ScoreModel(Denoiser().to(device, dtype), sde)
    x, times = torch.randn(8, 1, 28, 28, device=device, dtype=dtype), uniform_times(sde, 5)

    def on_step(i, t, x):
        if i == 0:
            torch.cuda.set_sync_debug_mode("error")

    try:
        out = solver(model, sde, x, times, on_step=on_step)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert (out.device.type, out.dtype) == ("cuda", dtype)
    assert torch.isfinite(out).all()


# -- the loop never waits ----------------------------------------------------------------------------------------------


class Watch(TorchDispatchMode):
    """Counts what would make the host wait for a device, or copy to it. On the device "meta" there are no values."""

    WAITING = ("_local_scalar_dense", "is_nonzero", "equal", "nonzero", "masked_select", "_to_copy", "item")

    def __init__(self):
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        self.count += function.overloadpacket.__name__ in self.WAITING
        return function(*args, **(kwargs or {}))


@each_solver
@pytest.mark.parametrize("kind", ["network", "mixture"])
def test_no_value_is_looked_at_and_nothing_copied_between_steps(solver, kind):
    """Counts at the end of each step, with a network and with the exact score; the first one holds the door's."""
    counts, sde = [], VPSDE()
    score, x = {
        "network": (ScoreModel(Denoiser(), sde), torch.randn(4, 1, 8, 8)),
        "mixture": (exact_score(LAW, sde), torch.randn(5, 3).double()),
    }[kind]
    with Watch() as watch:
        solver(score, sde, x, uniform_times(sde, 6), on_step=lambda i, t, x: counts.append(watch.count))
    assert counts[0] > 0  # the door looks
    assert len(set(counts)) == 1


@each_solver
def test_solvers_run_where_values_cannot_be_seen(solver):
    """On the device "meta" every look at a value raises."""
    sde, calls = VPSDE(), []

    def score(x, t):
        calls.append(t.device.type)
        return linear_score(x, t)

    out = solver(score, sde, torch.zeros(5, 3, device="meta"), uniform_times(sde, 6))
    assert out.device.type == "meta"
    assert set(calls) == {"meta"}


def test_the_package_checks_values_again_after_the_loop():
    heun(linear_score, VPSDE(), torch.ones(3, 2), uniform_times(VPSDE(), 2))
    with pytest.raises(ValueError, match=r"^x: has NaN"):
        LAW.score(torch.full((3, 3), math.nan).double())
    with pytest.raises(ZeroDivisionError):
        heun(lambda x, t: 1 / 0, VPSDE(), torch.ones(3, 2), uniform_times(VPSDE(), 2))
    with pytest.raises(ValueError, match=r"^x: has NaN"):
        LAW.score(torch.full((3, 3), math.nan).double())


@pytest.mark.parametrize("solver", [*FLOWS, *STOCHASTIC, adaptively])
def test_earlier_states_are_let_go(solver):
    alive, most = [], 0

    def on_step(i, t, x):
        nonlocal most
        alive.append(weakref.ref(x))
        most = max(most, sum(r() is not None for r in alive))

    solver(linear_score, VPSDE(), torch.ones(6, 3), uniform_times(VPSDE(), 8), on_step=on_step)
    assert len(alive) >= 5
    assert most == 1


# -- gradients ---------------------------------------------------------------------------------------------------------


@each
def test_a_networks_parameters_alone_record_no_graph(solver):
    network = torch.nn.Linear(3, 3)
    out = solver(lambda x, t: network(x), VPSDE(), torch.ones(6, 3), uniform_times(VPSDE(), 4))
    assert not out.requires_grad


@each_flow
def test_gradients_reach_an_x_that_asks_for_them(solver):
    """d x_end / d x_start by autograd against central differences."""
    sde, times = VPSDE(), uniform_times(VPSDE(), 12)
    score = exact_score(LAW, sde)
    x = torch.tensor([[0.3, -0.2, 0.5], [1.0, 0.1, -0.4]]).double().requires_grad_()
    (gradient,) = torch.autograd.grad(solver(score, sde, x, times).sum(), x)
    for i in range(3):
        step = torch.zeros(3).double()
        step[i] = 1e-5
        difference = solver(score, sde, (x + step).detach(), times) - solver(score, sde, (x - step).detach(), times)
        torch.testing.assert_close(difference.sum(1) / 2e-5, gradient[:, i], rtol=1e-6, atol=1e-8)


def test_a_guided_score_may_differentiate_inside():
    """A score that calls autograd itself works although the loop records nothing."""

    def score(x, t):
        with torch.enable_grad():
            x = x.detach().requires_grad_()
            return torch.autograd.grad(-(x**2).sum() / (2 * (1 + t)), x)[0]

    times = uniform_times(VPSDE(), 5)
    x = torch.ones(4, 2)
    torch.testing.assert_close(euler(score, VPSDE(), x, times), euler(linear_score, VPSDE(), x, times))


# -- on_step -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("solver", ALL[:-1])
def test_an_on_step_that_is_no_function_is_refused(solver):
    with pytest.raises(TypeError, match=r"^on_step: expected a function or None, got int$"):
        solver(linear_score, VPSDE(), torch.ones(4, 3), uniform_times(VPSDE(), 3), on_step=3)


@each_solver
def test_on_step_sees_every_state_with_its_time(solver):
    seen, times = [], karras_times(VPSDE(), 5)
    x = solver(linear_score, VPSDE(), torch.ones(4, 3).double(), times, on_step=lambda i, t, x: seen.append((i, t, x)))
    assert [i for i, _, _ in seen] == [0, 1, 2, 3, 4]
    assert [float(t) for _, t, _ in seen] == times[1:].tolist()
    assert torch.equal(seen[-1][2], x)
    one_step_less = []
    if solver in FLOWS:
        solver(
            linear_score,
            VPSDE(),
            torch.ones(4, 3).double(),
            times[:-1],
            on_step=lambda i, t, x: one_step_less.append(x),
        )
        assert torch.equal(seen[3][2], one_step_less[-1])


@each_solver
def test_a_state_that_on_step_returns_is_gone_on_with(solver):
    times = uniform_times(VPSDE(), 4)
    kwargs = {} if solver in FLOWS else {"generator": torch.Generator().manual_seed(1)}
    x = solver(
        linear_score,
        VPSDE(),
        torch.ones(4, 3),
        times,
        **kwargs,
        on_step=lambda i, t, x: torch.full_like(x, 7.0) if i == 3 else True,
    )
    assert torch.equal(x, torch.full_like(x, 7.0))
    with pytest.raises(ValueError, match=r"^on_step's value: expected shape \(4, 3\) like x, got \(4,\)"):
        solver(linear_score, VPSDE(), torch.ones(4, 3), times, on_step=lambda i, t, x: x[:, 0])


# -- the same noise twice ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("solver", [*STOCHASTIC, adaptively])
def test_the_generator_decides_the_noise(solver):
    times = uniform_times(VPSDE(), 4)
    runs = [
        solver(linear_score, VPSDE(), torch.ones(4, 3), times, generator=torch.Generator().manual_seed(seed))
        for seed in (1, 1, 2)
    ]
    assert torch.equal(runs[0], runs[1])
    assert not torch.equal(runs[0], runs[2])


# -- the door ----------------------------------------------------------------------------------------------------------


@each_solver
def test_refusals(solver):
    sde, x, times = VPSDE(), torch.ones(4, 3), uniform_times(VPSDE(), 4)
    upwards = solver in BOTH_WAYS

    def refuses(match, kind=ValueError, score=linear_score, **changed):
        arguments = {"x": x, "times": times, **changed}
        with pytest.raises(kind, match=match):
            solver(score, sde, **arguments)

    refuses(r"^x: has NaN or infinite", x=x * math.inf)
    refuses(r"^x: expected a batch of shape \(B, ...\), got \(4,\)", x=x[:, 0])
    refuses(r"^x: expected a floating-point tensor, got torch.int64", TypeError, x=x.long())
    refuses(r"^score: expected a function, got Tensor", TypeError, score=x)
    refuses(r"^score's value: expected shape \(4, 3\) like x, got \(4, 1\)", score=lambda x, t: x[:, :1])
    refuses(r"^score's value: expected dtype torch.float32 like x, got torch.float64", score=lambda x, t: x.double())
    refuses(r"^times: expected shape \(n_steps \+ 1,\) with at least one step, got \(1,\)", times=times[:1])
    refuses(r"^times: expected shape", times=times[None])
    refuses(r"^times: expected a floating-point tensor, got torch.int64", TypeError, times=torch.tensor([1, 0]))
    refuses(r"^times: expected a torch.Tensor, got list", TypeError, times=[1.0, 0.5])
    refuses(r"^times: has NaN", times=times * math.nan)
    kind = "monotone" if upwards else "decreasing"
    refuses(rf"^times: expected strictly {kind} values", times=torch.tensor([1.0, 0.5, 0.5]))
    refuses(rf"^times: expected strictly {kind} values", times=torch.tensor([1.0, 0.4, 0.5]))
    if not upwards:
        refuses(r"^times: expected strictly decreasing values", times=times.flip(0))
    refuses(r"^times: expected values in \[0, 1.0\], got 0.5 to 1.5", times=torch.tensor([1.5, 0.5]))
    refuses(r"^times: expected values in \[0, 1.0\], got -0.5 to 1", times=torch.tensor([1.0, -0.5]))


@pytest.mark.parametrize("solver", [heun, rk4, stochastic_heun])
def test_methods_that_ask_the_score_at_the_end_refuse_an_end_without_noise(solver):
    with pytest.raises(
        ValueError, match=r"^times: the score is asked where sigma is 0; stop at a later time, say 0.001"
    ):
        solver(linear_score, VPSDE(), torch.ones(4, 3), torch.tensor([1.0, 0.5, 0.0]))
    solver(linear_score, VESDE(), torch.ones(4, 3), torch.tensor([1.0, 0.5, 0.0]))  # sigma(0) = sigma_min
    for other in (euler, euler_maruyama, ancestral):
        assert torch.isfinite(other(linear_score, VPSDE(), torch.ones(4, 3), torch.tensor([1.0, 0.5, 0.0]))).all()


@pytest.mark.needs("gpu")
def test_a_generator_of_another_device_is_refused_on_the_gpu():
    with pytest.raises(ValueError, match=r"^generator: expected one on cpu like x, got one on cuda"):
        euler_maruyama(
            linear_score, VPSDE(), torch.ones(4, 3), uniform_times(VPSDE(), 2), generator=torch.Generator("cuda")
        )


def test_a_generator_of_another_device_is_refused():
    x = torch.ones(4, 3, device="meta")
    for call in (
        lambda g: euler_maruyama(linear_score, VPSDE(), x, uniform_times(VPSDE(), 2), generator=g),
        lambda g: langevin(lambda x: -x, x, 0.1, 2, generator=g),
    ):
        with pytest.raises(ValueError, match=r"^generator: expected one on meta like x, got one on cpu"):
            call(torch.Generator())


# -- a reader's own SDE ------------------------------------------------------------------------------------------------


@each
def test_an_sde_of_ten_lines_works_in_every_solver(solver, generator):
    """Mean and covariance of an exact mixture within 4.5 standard errors, and a little for the solvers' bias."""
    sde, n = Cosine(), 20_000
    x = sde.prior_sample((n, 3), generator=generator, dtype=torch.float64)
    kwargs = {} if solver in (*FLOWS, by_ode) else {"generator": generator}
    if solver is adaptively:
        x = adaptive_sde(exact_score(LAW, sde), sde, x, rtol=0.05, atol=0.05, generator=generator)[0]
    else:
        x = solver(exact_score(LAW, sde), sde, x, log_snr_times(sde, 150), **kwargs)
    assert ((x.mean(0) - LAW.mean).abs() < 4.5 * x.std(0) / n**0.5 + 0.02).all()
    centred = x - LAW.mean
    products = centred[:, :, None] * centred[:, None, :]
    bound = 4.5 * products.std(0) / n**0.5 + 0.03 * LAW.covariance.diag().max()
    assert ((products.mean(0) - LAW.covariance).abs() < bound).all()


@pytest.mark.parametrize("sde", [SubVPSDE(), Cosine()], ids=lambda s: type(s).__name__)
def test_an_sde_gets_tensors_whatever_the_caller_gave(sde):
    x, noise = torch.ones(4, 3), torch.zeros(4, 3)
    for t in (0.5, torch.tensor(0.5), torch.full((4,), 0.5)):
        assert sde.perturb(x, t, noise).shape == (4, 3)
        assert sde.kernel_score(x, noise, t).shape == (4, 3)
        assert sde.reverse_drift(x, t, x).shape == (4, 3)
        assert sde.probability_flow(x, t, x).shape == (4, 3)
        assert torch.isfinite(torch.as_tensor(sde.log_snr(t))).all()
    assert sde.prior_std == pytest.approx(float(sde.sigma(torch.tensor(sde.T))), rel=1e-2)


# -- a score of nothing, times of half precision -----------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.float16])
def test_a_corrector_leaves_points_alone_where_the_score_is_zero(dtype):
    """Then the sampler is its predictor, which a score of 0 makes x <- (2 - r) x."""
    sde = VPSDE()
    times, x = karras_times(sde, 3), torch.randn(3, 2).to(dtype)
    alpha = sde.alpha(times)
    scale = float((2 - alpha[:-1] / alpha[1:]).prod())
    got = predictor_corrector(
        lambda x, t: torch.zeros_like(x),
        sde,
        x,
        times,
        predictor=lambda *a, generator, on_step: euler_free(*a, on_step),
    )
    torch.testing.assert_close(
        got.double(), scale * x.double(), rtol=2e-2 if dtype == torch.float16 else 1e-5, atol=1e-3
    )


def euler_free(score, sde, x, times, on_step):
    """Reverse diffusion without its noise."""
    alpha = sde.alpha(times)
    for i, t in enumerate(times[1:]):
        x = (2 - alpha[i] / alpha[i + 1]).to(x.dtype) * x
        changed = on_step(i, t, x)
        x = x if changed is None else changed
    return x


@each
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_scores_get_times_in_float32_where_the_state_is_half(solver, dtype):
    seen, times = [], uniform_times(VPSDE(), 4)

    def score(x, t):
        seen.append((x.dtype, t.dtype, float(t)))
        return linear_score(x, t.to(x.dtype))

    solver(score, VPSDE(), torch.ones(2, 3, dtype=dtype), times)
    assert {s[:2] for s in seen} == {(dtype, torch.float32)}
    if solver in (euler, euler_maruyama):
        assert [t for *_, t in seen] == pytest.approx(times[:-1].tolist(), rel=1e-6)
