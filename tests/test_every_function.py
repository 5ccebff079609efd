"""All public functions and methods that take tensors, with every kind of input.

Each call gives the value that float64 gives, up to rounding, or a ValueError or TypeError that names the argument. What
there is to call is found, and called by the names of its arguments, which mean the same everywhere (DESIGN: notation):
a new function is in here as soon as it exists.
"""

import importlib
import inspect
import math
import pkgutil
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

import coursework
from coursework.distributions import GaussianMixture
from coursework.sdes import VESDE, VPSDE

pytestmark = pytest.mark.usefixtures("one_thread")

ROOMS = (
    "cli",
    "evidence",
    "exercises",
    "grading",
    "nn",
    "training",
    "generation",
    "models",
    "evaluation",
    "checkpoints",
    "recipes",
)
DEVICES = ["cpu", *(["cuda"] if torch.cuda.is_available() else [])]
N_DIMS = 3


# -- what there is to call -------------------------------------------------------------------------------------------


def is_public(name: str) -> bool:
    return not any(part.startswith("_") or part.split("_")[0] in ROOMS for part in name.split(".")[1:])


def is_exported(module: str, name: str) -> bool:
    """Whether the module's room says that the name is one to be called from outside, where it says such a thing."""
    room = importlib.import_module(module.rpartition(".")[0])
    return name in getattr(room, "__all__", [name])


def takes_tensors(function: Callable) -> bool:
    signature = inspect.signature(function)
    return any("Tensor" in str(p.annotation) or p.name in ("score", "sde") for p in signature.parameters.values())


def functions() -> dict[str, Callable[["Case"], Callable]]:
    """By name, what gives the function for a case: itself, or a method of an instance made for the case."""
    found = {}
    for info in pkgutil.walk_packages(coursework.__path__, "coursework."):
        if not is_public(info.name):
            continue
        module = importlib.import_module(info.name)
        for name, thing in vars(module).items():
            if name.startswith("_") or getattr(thing, "__module__", "") != info.name:
                continue
            if not is_exported(info.name, name):
                continue
            short = f"{info.name.removeprefix('coursework.')}.{name}"
            if inspect.isfunction(thing) and takes_tensors(thing):
                found[short] = lambda case, f=thing: f
            elif inspect.isclass(thing) and thing in MADE:
                for method, function in inspect.getmembers(thing, inspect.isfunction):
                    ours = function.__module__.startswith("coursework.") and not method.startswith("_")
                    if ours and takes_tensors(function):
                        found[f"{short}.{method}"] = lambda case, c=thing, m=method: getattr(MADE[c](case), m)
    return found


# -- with what it is called ------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Case:
    """What all tensors of a call are like."""

    dtype: torch.dtype = torch.float64
    batch: int = 5
    shape: tuple[int, ...] = (N_DIMS,)
    layout: str = "contiguous"
    device: str = "cpu"
    grad: bool = False

    def points(self, seed: int = 0) -> Tensor:
        x = torch.randn(7, *self.shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
        x = (0.5 + 0.3 * x)[: self.batch].to(self.device, self.dtype)
        if self.layout == "strided":
            x = x.repeat_interleave(2, 0)[::2]
        if self.layout == "channels last":
            x = x.contiguous(memory_format=torch.channels_last)
        return x.requires_grad_(self.grad)

    def number(self, value: Any) -> Tensor:
        return torch.tensor(value, dtype=self.dtype, device=self.device)


def score(x: Tensor, t: Tensor | None = None, label: Tensor | None = None) -> Tensor:
    """Linear in x, different at every time (also at an index up to 1000) and for every label."""
    factor = torch.ones((), dtype=torch.float64, device=x.device) if t is None else 1 / (1 + t.double())
    shift = 0.0 if label is None else 0.01 * label.to(x).reshape(-1, *[1] * (x.ndim - 1))
    return shift - factor.to(x.dtype).reshape(-1, *[1] * (x.ndim - 1)) * x


def flow_map(x: Tensor, t: Tensor, s: Tensor) -> Tensor:
    """Linear in x, different at every pair of times."""
    return score(x, 2 * t + s)


def mixture(case: Case) -> GaussianMixture:
    means = torch.tensor([[-1.0, 0.5, 0.25], [0.5, -0.5, 0.75]], dtype=case.dtype, device=case.device)
    return GaussianMixture(means, case.number([0.25, 0.5]), case.number([1.0, 2.0]))


def pictures(case: Case) -> Tensor:
    """Points as pictures of one row."""
    x = case.points()
    return x if x.ndim == 4 else x[:, None]


def images(case: Case) -> Tensor:
    """Points as images of one channel and one row."""
    x = case.points()
    return x if x.ndim == 4 else x[:, None, None]


def log_prob_label(x: Tensor, t: Tensor) -> Tensor:
    return torch.log_softmax(torch.stack([x.flatten(1).sum(1), 0 * x.flatten(1)[:, 0]], 1), 1)


points = [lambda c, seed=seed: c.points(seed) for seed in range(3)]
VALUES: dict[str, Callable[[Case], Any]] = {
    **dict.fromkeys(("x", "x0", "x_t", "x_known", "z", "real", "guided", "x0_hat", "shape_like"), points[0]),
    **dict.fromkeys(("noise", "score_value", "value", "y", "generated", "conditional", "reference"), points[1]),
    **dict.fromkeys(("train", "first"), points[1]),
    **dict.fromkeys(("held_out", "second"), points[2]),
    **dict.fromkeys(("x_a",), lambda c: c.points(0)[:1].reshape(c.shape) if c.batch else c.points(0)),
    **dict.fromkeys(("x_b",), lambda c: c.points(1)[:1].reshape(c.shape) if c.batch else c.points(0)),
    "worse_score": lambda c: lambda x, t: 0.5 * score(x, t),
    **dict.fromkeys(("score", "model", "fn", "noise_model", "conditional_score", "network"), lambda c: score),
    "velocity": lambda c: score,
    "path": lambda c: VPSDE(),
    "s": lambda c: c.number(0.25),
    "flow_map": lambda c: flow_map,
    "average_velocity": lambda c: flow_map,
    "consistency": lambda c: score,
    "generated_score": lambda c: lambda x, t: 0.5 * score(x, t),
    "diffusion": lambda c: lambda t: 0.5 + t,
    **dict.fromkeys(("v",), points[1]),
    **dict.fromkeys(("a", "b"), lambda c: c.number([0.5, 1.5])),
    "target": lambda c: lambda x: -0.5 * x,
    "solver": lambda c: importlib.import_module("coursework.fast_solvers").exponential_multistep,
    "density": mixture,
    "sde": lambda c: VPSDE(),
    "schedule": lambda c: MADE[importlib.import_module("coursework.ddpm").DiscreteSchedule](c),
    "betas": lambda c: torch.linspace(0.05, 0.3, 6, dtype=torch.float64),
    "times": lambda c: torch.linspace(1.0, 0.25, 4, dtype=torch.float64),
    "t": lambda c: c.number(0.5),
    "alpha": lambda c: c.number(0.75),
    "sigma": lambda c: c.number(0.5),
    "log_snr": lambda c: c.number(0.5),
    "sigmas": lambda c: torch.tensor([2.0, 1.0, 0.5], dtype=torch.float64),
    "mask": lambda c: torch.arange(math.prod(c.shape), device=c.device).reshape(c.shape) % 2 == 0,
    "operator": lambda c: torch.eye(math.prod(c.shape), dtype=c.dtype, device=c.device)[:2],
    "noise_std": lambda c: 0.5,
    "log_prob": lambda c: c.points().flatten(1).sum(1),
    "log_prob_label": lambda c: log_prob_label,
    "label": lambda c: 1,
    "logits": lambda c: c.points(),
    "images": lambda c: c.points(),
    "images_uint8": lambda c: (40 * c.points().detach().abs()).to(torch.uint8),
    "generator": lambda c: torch.Generator(c.device).manual_seed(3),
    "dtype": lambda c: c.dtype,
    "device": lambda c: c.device,
    "source": lambda c: "noise",
    "n": lambda c: c.batch,
    "reward": lambda c: lambda x: -x.flatten(1).square().sum(1),
    "log_weights": lambda c: c.points().flatten(1).sum(1),
    "n_tokens": lambda c: 3,
    "log_probs": lambda c: token_log_probs(c),
    "joint": lambda c: token_law(c),
    "unconditional": points[2],
    "amount": lambda c: c.number([0.5, 1.0]),
    "rates": lambda c: lambda x, t: token_rates(c, x),
    **dict.fromkeys(
        ("transition", "earlier", "later"), lambda c: (jump_rate(c).double() * 0.25).matrix_exp().to(c.dtype)
    ),
    "n_dims": lambda c: N_DIMS,
    "n_steps": lambda c: 3,
    "n_steps_each": lambda c: 2,
    "n_splits": lambda c: 2,
    "step_size": lambda c: 0.125,
    "scale": lambda c: 1.5,
    "share": lambda c: 0.5,
    "t_min": lambda c: 0.01,
    "k": lambda c: 1,
    "metric": lambda c: lambda x, y: x.double().mean() - y.double().mean(),
    "sizes": lambda c: (2, 3, 5),
    "n_groups": lambda c: 2,
    "kernel": lambda c: c.number([[0.5, 0.25, 0.125]]),
    "angles": lambda c: c.number([0.0, 0.5, 2.0]),
    "size": lambda c: 3,
    "rtol": lambda c: 1e-3,
    "atol": lambda c: 1e-3,
    "denoiser": lambda c: score,
    "sigma_data": lambda c: 0.5,
    "prediction": lambda c: "velocity",
    "scheme": lambda c: "edm",
    "losses": lambda c: c.points().flatten(1).square().sum(1),
    "uncertainty": lambda c: c.points(1).flatten(1).sum(1),
    "u": lambda c: c.points().flatten(1).sum(1).sigmoid(),
    "edges": lambda c: torch.tensor([0.125, 0.25, 0.5, 1.0], dtype=torch.float64, device=c.device),
    "second_moments": lambda c: torch.tensor([4.0, 1.0, 2.0], dtype=torch.float64, device=c.device),
    "weights": lambda c: c.points(),
    "gamma": lambda c: 2.0,
    **dict.fromkeys(("gamma_a", "gammas"), lambda c: torch.tensor([2.0, 7.0, 2.0, 7.0], dtype=torch.float64)),
    **dict.fromkeys(("gamma_b", "target_gamma"), lambda c: 4.0),
    **dict.fromkeys(("time_a", "time_b"), lambda c: torch.tensor([1.0, 2.0, 3.0, 4.0], dtype=torch.float64)),
    "target_time": lambda c: 0.75,
    "covariance": lambda c: c.number([[2.0, 0.5, 0.0], [0.5, 1.0, 0.25], [0.0, 0.25, 0.5]]),
    "q": lambda c: 2,
    "loadings": lambda c: c.number([[0.5, 0.25], [-1.0, 0.5], [0.25, 2.0]]),
    "mean": lambda c: c.number([0.25, -0.5, 1.0]),
    "axes": lambda c: c.number([[0.0, 1.0, 0.0], [1.0, 0.0, 0.0], [0.0, 0.0, 1.0]]),
    "noise_variance": lambda c: 0.25,
    "log_variance": points[2],
    **dict.fromkeys(("encoder", "decoder"), lambda c: lambda x: 1 + 0.5 * x),
    **dict.fromkeys(("tokens", "query"), points[0]),
    "decoded": points[1],
    "rank": lambda c: 2,
    "kl_weight": lambda c: 0.5,
    "labels": lambda c: torch.arange(c.batch, device=c.device),
    "snapshots": lambda c: [{"a": (i + 1) * c.points()} for i in range(4)],
}
OF_CHAINS = ("jump_posterior", "concrete_score", "score_entropy", "reverse_rates", "flow_rates")


def tokens(case: Case) -> Tensor:
    """Tokens of 0, 1, 2: three to a sequence."""
    return (torch.arange(21, device=case.device).reshape(7, 3) ** 2 % 5 % 3)[: case.batch]


def chances(case: Case) -> Tensor:
    """A law of three tokens for each place."""
    return (case.points().detach().flatten(1)[:, :3, None] * case.number([1.0, 2.0, 4.0])).softmax(2)


def token_log_probs(case: Case) -> Callable:
    table = case.number([[0.0, 1.0, 2.0], [1.0, 0.5, 0.0], [2.0, 0.25, 0.0], [0.5, 0.0, 0.25]]).log_softmax(1)
    return lambda x, t: table[x]


def token_law(case: Case) -> Tensor:
    p = torch.arange(1.0, 28.0, dtype=torch.float64, device=case.device)
    return (p / p.sum()).reshape(3, 3, 3).to(case.dtype)


def token_rates(case: Case, x: Tensor) -> Tensor:
    return case.number([[0.0, 1.0, 2.0], [0.5, 0.0, 1.0], [1.0, 1.5, 0.0]])[x]


def jump_rate(case: Case) -> Tensor:
    return case.number([[-1.0, 0.75, 0.25], [0.5, -1.0, 0.5], [0.25, 0.25, -0.5]])


# An argument that means something else in one function.
SPECIAL: dict[tuple[str, str], Callable[[Case], Any]] = {
    ("draw_probe", "kind"): lambda c: "sphere",
    ("convert", "target"): lambda c: "data",
    ("predict", "target"): lambda c: "score",
    ("posterior_score", "y"): lambda c: c.points(1)[0, :2] if c.batch else c.number([0.5, 0.25]),
    **{(f, "y"): lambda c: c.number([0.5, 0.25]) for f in ("condition", "posterior_variance", "ddrm")},
    **{(f, "x"): pictures for f in ("convolve", "StationaryGaussian.score", "StationaryGaussian.log_prob")},
    ("deblur", "y"): lambda c: c.number([[0.5, 0.25, -0.75]]),
    ("deblur", "density"): lambda c: MADE[importlib.import_module("coursework.measurements").StationaryGaussian](c),
    ("exponential_multistep", "prediction"): lambda c: "data",
    ("DiscreteSchedule.perturb", "t"): lambda c: torch.arange(c.batch, device=c.device) % 6,
    ("noise_conditional", "sde"): lambda c: VESDE(),
    ("adaptive_sde", "rtol"): lambda c: 0.5,
    ("adaptive_sde", "atol"): lambda c: 0.5,
    ("ot_coupling", "z"): points[1],
    ("gaussian_flow_map", "mean"): lambda c: torch.full(c.shape, 0.25, dtype=c.dtype, device=c.device),
    ("gaussian_flow_map", "variance"): lambda c: 0.5,
    ("consistency_loss", "target"): lambda c: score,
    ("progressive_target", "times"): lambda c: torch.tensor([1.0, 0.5, 0.25], dtype=torch.float64),
    ("Consistency.forward", "t"): lambda c: c.number(0.5),
    ("log_normal_law", "mean"): lambda c: -1.2,
    ("VelocityMap.forward", "t"): lambda c: c.number(0.5),
    ("VelocityMap.forward", "s"): lambda c: c.number(0.25),
    **{(f"latents.{f}", "mean"): points[1] for f in ("gaussian_kl", "vae_loss", "vae_losses")},
    ("latents.decode", "z"): points[0],
    **{("latents.attention", a): lambda c: c.number([[0.5, 0.25, -1.0], [1.0, 0.5, 0.25]]) for a in ("key", "value")},
    ("empirical_denoiser", "train"): lambda c: c.number(np.linspace(-1, 1, 2 * math.prod(c.shape))).reshape(
        2, *c.shape
    ),
    ("patchify", "x"): images,
    **{(f, "size"): lambda c: 1 for f in ("patchify", "unpatchify")},
    ("unpatchify", "tokens"): lambda c: images(c).flatten(2).transpose(1, 2),
    ("unpatchify", "shape"): lambda c: tuple(images(c).shape[1:]),
    ("best_of_rank", "prediction"): lambda c: "data",
    **{(f"captions.{f}", "images"): images for f in ("describe", "slant", "ink", "ink_map")},
    ("best_linear", "variance"): lambda c: c.number(0.375),
    ("importance_law", "weights"): lambda c: torch.tensor([1.0, 2.0, 4.0], dtype=torch.float64, device=c.device),
    **{(f, "x"): tokens for f in ("mask_tokens", "masked_bound", "masked_sample", "jump_sample")},
    **{(f, a): tokens for f in OF_CHAINS for a in ("x_t", "x_0")},
    **{(f, a): chances for f in OF_CHAINS for a in ("probs", "ratios")},
    **{(f, "rate"): jump_rate for f in (*OF_CHAINS, "transition_matrix")},
    ("mask_tokens", "rate"): lambda c: 0.5,
    ("flow_rates", "t"): lambda c: torch.full((c.batch,), 0.5, dtype=c.dtype, device=c.device),
    ("flow_rates", "noise"): lambda c: 0.5,
    ("guided_log_probs", "weight"): lambda c: 2.0,
    ("sdedit", "times"): lambda c: torch.linspace(0.75, 0.25, 4, dtype=torch.float64),
}
MADE: dict[type, Callable[[Case], Any]] = {}


def make_classes() -> None:
    from coursework.ddpm import DiscreteSchedule
    from coursework.flow_maps import Consistency, VelocityMap
    from coursework.flow_matching import CosinePath, LinearPath
    from coursework.measurements import StationaryGaussian
    from coursework.preconditioning import Preconditioned, TimedDenoiser, TimeLaw
    from coursework.predictions import ScoreModel
    from coursework.sdes import SubVPSDE

    MADE[GaussianMixture] = mixture
    MADE[StationaryGaussian] = lambda c: StationaryGaussian(c.number([[0.5, -0.25, 1.0]]), c.number([[2.0, 0.5, 0.5]]))
    MADE[DiscreteSchedule] = lambda c: DiscreteSchedule(VALUES["betas"](c))
    MADE[ScoreModel] = lambda c: ScoreModel(Linear(), VPSDE())
    MADE[Preconditioned] = lambda c: Preconditioned(Linear(), 0.5)
    MADE[Consistency] = lambda c: Consistency(score, VPSDE(), 0.5)
    MADE[VelocityMap] = lambda c: VelocityMap(lambda x, t, label, s: score(x, t), VPSDE())
    MADE[TimedDenoiser] = lambda c: TimedDenoiser(score, VPSDE())
    MADE[TimeLaw] = lambda c: TimeLaw(VALUES["edges"](c), VALUES["second_moments"](c))
    for kind in (VPSDE, VESDE, SubVPSDE, LinearPath, CosinePath):
        MADE[kind] = lambda c, kind=kind: kind()


class Linear(nn.Module):
    """`score` as a network."""

    def forward(self, x: Tensor, t: Tensor, label: Tensor | None = None) -> Tensor:
        return score(x, t, label)


make_classes()
FOUND = functions()
# Its arguments are no tensors that a user makes, or it is tried with all of these elsewhere.
NOT_HERE = ("plots.", "widgets.", "progress.", "image_features")


def arguments(name: str, case: Case) -> dict[str, Any]:
    """The values of a function's arguments, those without a default and the ones that the table knows."""
    values = {}
    for p in inspect.signature(FOUND[name](case)).parameters.values():
        special = [v for (function, argument), v in SPECIAL.items() if argument == p.name and name.endswith(function)]
        known = special or ([VALUES[p.name]] if p.name in VALUES else [])
        optional = p.default is not inspect.Parameter.empty
        if known and not (optional and p.name in ("label", "times", "noise", "density", "score_value", "n")):
            values[p.name] = known[0](case)
        elif not optional:
            raise LookupError(f"{name}: the table does not know the argument {p.name!r}; teach it what it means")
    return values


NAMES = [n for n in FOUND if not any(part in n for part in NOT_HERE)]
each = pytest.mark.parametrize("name", NAMES)


# -- what comes back -------------------------------------------------------------------------------------------------


class SameDraws(TorchFunctionMode):
    """Random numbers are drawn in float64 and rounded, so that all dtypes see the same ones."""

    def __torch_function__(self, function, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        if function in (torch.randn, torch.rand):
            dtype = kwargs.pop("dtype", None) or torch.get_default_dtype()
            return function(*args, dtype=torch.float64, **kwargs).to(dtype)
        return function(*args, **kwargs)


def numbers(result: Any, case: Case) -> list[Tensor]:
    """A result as tensors: what it holds, or what it answers when it is a score, a law or a moment."""
    if isinstance(result, Tensor):
        return [result]
    if isinstance(result, bool | int | float):
        return [torch.tensor(float(result), dtype=torch.float64)]
    if isinstance(result, tuple | list):
        return [t for part in result for t in numbers(part, case)]
    if isinstance(result, dict):
        return numbers(list(result.values()), case)
    if hasattr(result, "probabilities"):
        return [result.edges, result.probabilities]
    if hasattr(result, "covariance"):
        return [result.mean, result.covariance]
    if callable(result) and "x_t" in inspect.signature(result).parameters:
        return [result(3 - tokens(case), case.number(0.5)).exp()]  # of log-probabilities, where 3 is the mask
    if callable(result):
        times = [case.number(t) for t in (0.5, 0.25)][: len(inspect.signature(result).parameters) - 1]
        return numbers(result(case.points(2), *times), case)
    raise AssertionError(f"a result of another kind: {type(result).__name__}")


def called(name: str, case: Case, **changed: Any) -> list[Tensor]:
    with SameDraws():
        return numbers(FOUND[name](case)(**{**arguments(name, case), **changed}), case)


def check_refusal(name: str, error: Exception) -> None:
    """Fails unless an error is one line that names an argument, or what a function that was handed over gave."""
    known = [*inspect.signature(FOUND[name](Case())).parameters, "x", "score", "means"]
    named = any(re.match(rf"([\w, ]*\b)?{re.escape(argument)}\b[^:]*: ", str(error)) for argument in known)
    if not isinstance(error, ValueError | TypeError) or not named or "\n" in str(error):
        raise AssertionError(f"{type(error).__name__}: {error}") from error


def agree(got: list[Tensor], expected: list[Tensor], tolerance: float) -> None:
    assert len(got) == len(expected)
    for mine, wanted in zip(got, expected, strict=True):
        assert mine.shape == wanted.shape
        difference = (mine.detach().double().cpu() - wanted.detach().double().cpu()).abs()
        scale = 1 + (float(wanted.detach().abs().max()) if wanted.numel() else 0.0)
        assert not difference.numel() or float(difference.max()) <= tolerance * scale


def right_or_refused(name: str, call: Callable[[], list[Tensor]], expected: list[Tensor], tolerance: float) -> None:
    try:
        got = call()
    except Exception as error:
        check_refusal(name, error)
        return
    agree(got, expected, tolerance)


# -- kinds of input --------------------------------------------------------------------------------------------------

# Decisions that depend on rounding: accepting a proposal, the size of a random step.
CHAOTIC = ("mala", "adaptive_sde")
TOLERANCES = {torch.float32: 2e-4, torch.float16: 2e-2, torch.bfloat16: 1.2e-1}


@each
@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("dtype", TOLERANCES, ids=lambda d: str(d).removeprefix("torch."))
def test_every_precision_gives_the_value_of_float64(name, dtype, device):
    if dtype != torch.float32 and name.endswith(CHAOTIC):
        pytest.skip("which proposals and steps are accepted depends on rounding")
    expected = called(name, Case())
    right_or_refused(name, lambda: called(name, Case(dtype=dtype, device=device)), expected, TOLERANCES[dtype])


@each
def test_a_batch_of_none_is_empty_or_refused_and_one_of_one_is_the_first_of_five(name):
    five = called(name, Case())
    drawn = "generator" in arguments(name, Case())
    for batch in (0, 1):
        try:
            got = called(name, Case(batch=batch))
        except (ValueError, TypeError) as error:
            check_refusal(name, error)
            continue
        for mine, of_five in zip(got, five, strict=True):
            if of_five.ndim and len(of_five) == 5:
                assert len(mine) == batch
        together = "metrics" in name or name.endswith("ot_coupling")  # what it does to one point hangs on the others
        if batch == 1 and not drawn and not together and all(v.ndim and len(v) == 5 for v in five):
            agree(got, [v[:1] for v in five], 1e-3 if "adaptive" in name or "code" in name else 1e-9)


@each
@pytest.mark.parametrize("layout", ["strided", "channels last"])
def test_a_layout_in_memory_changes_nothing(name, layout):
    shape = (1, 1, 3) if layout == "channels last" else (3,)
    try:
        expected = called(name, Case(shape=shape))
    except (ValueError, TypeError) as error:
        check_refusal(name, error)
        return
    agree(called(name, Case(shape=shape, layout=layout)), expected, 1e-9)


@each
@pytest.mark.parametrize("mode", ["no_grad", "inference_mode", "made under inference_mode"])
def test_gradients_that_are_off_change_no_value(name, mode):
    expected = called(name, Case())
    if mode == "made under inference_mode":
        with torch.inference_mode():
            right_or_refused(name, lambda: called(name, Case()), expected, 1e-9)
        return
    function, values = FOUND[name](Case()), arguments(name, Case())
    with getattr(torch, mode)(), SameDraws():
        got = numbers(function(**values), Case())
    agree(got, expected, 1e-9)


@each
def test_points_that_ask_for_a_gradient_get_the_same_value(name):
    expected = called(name, Case())
    case = Case(grad=True)
    try:
        got = called(name, case)
    except (ValueError, TypeError) as error:
        check_refusal(name, error)
        return
    agree(got, expected, 1e-9)


@each
def test_numbers_of_numpy_are_numbers(name):
    values = arguments(name, Case())
    for argument, value in values.items():
        if isinstance(value, bool) or not isinstance(value, int | float):
            continue
        kinds = [np.int64, np.int32, np.uint8] if isinstance(value, int) else [np.float64, np.float32]
        for kind in kinds:
            try:
                agree(called(name, Case(), **{argument: kind(value)}), called(name, Case()), 1e-6)
            except TypeError as error:
                raise AssertionError(f"{argument}={kind.__name__}: {error}") from error


@each
@pytest.mark.parametrize("kind", ["integers", "a list", "None", "an array"])
def test_what_is_no_floating_point_tensor_is_right_or_refused_by_name(name, kind):
    values = arguments(name, Case())
    for argument, value in values.items():
        if not isinstance(value, Tensor):
            continue
        whole = value.ceil() if value.is_floating_point() else value
        wrong = {
            "integers": lambda v: v.long(),
            "a list": lambda v: v.tolist(),
            "None": lambda v: None,
            "an array": lambda v: v.numpy(),
        }[kind](whole)
        try:
            got = called(name, Case(), **{argument: wrong})
        except Exception as error:
            check_refusal(name, error)
            continue
        if kind != "None":
            agree(got, called(name, Case(), **{argument: whole}), 1e-9)


@each
@pytest.mark.parametrize("wrong", [-0.5, 500.0, math.nan])
def test_times_outside_the_sdes_interval_are_refused_wherever_they_enter(name, wrong):
    for argument, value in arguments(name, Case()).items():
        if argument not in ("t", "times", "t_min") or not (isinstance(value, Tensor) and value.is_floating_point()):
            continue
        if name == "sdes.as_time" or name.startswith("averaging."):  # of no SDE
            continue
        for bad in (value * 0 + wrong, wrong) if value.ndim == 0 else (value * 0 + wrong,):
            with pytest.raises(ValueError, match=rf"^{argument}: (expected|has NaN)"):
                called(name, Case(), **{argument: bad})


@each
def test_the_default_dtype_and_device_change_nothing(name):
    expected = called(name, Case(dtype=torch.float32))
    torch.set_default_dtype(torch.float64)
    try:
        agree(called(name, Case(dtype=torch.float32)), expected, 1e-5)
    finally:
        torch.set_default_dtype(torch.float32)
    function, values = FOUND[name](Case(dtype=torch.float32)), arguments(name, Case(dtype=torch.float32))
    with torch.device("meta"), SameDraws():
        result = function(**values)
        got = result if not callable(result) or hasattr(result, "covariance") else None
    if got is not None:
        agree(numbers(got, Case(dtype=torch.float32)), expected, 1e-5)
