"""Many samples from a trained model, over several processes: the same ones, however many processes there are."""

import io
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TypedDict, TypeVar

import torch
from accelerate import Accelerator
from accelerate.utils import gather_object
from PIL import Image
from torch import Tensor
from torchvision.utils import make_grid
from tqdm.auto import tqdm

from coursework import probability_flow, reverse_sde
from coursework._arguments import at_least, one_of, seed_number
from coursework._files import write_atomically
from coursework.devices import autocast
from coursework.flow_maps import VelocityMap, angle_times, restart, sample_with_map
from coursework.models.batches import stream_of
from coursework.models.recipes import PRECISIONS
from coursework.predictions import ScoreModel
from coursework.sdes import karras_times, log_snr_times, uniform_times

SOLVERS = {
    "euler": probability_flow.euler,
    "heun": probability_flow.heun,
    "rk4": probability_flow.rk4,
    "euler-maruyama": reverse_sde.euler_maruyama,
    "reverse-diffusion": reverse_sde.reverse_diffusion,
    "ancestral": reverse_sde.ancestral,
    "stochastic-heun": reverse_sde.stochastic_heun,
}
MAPPERS = {"map": sample_with_map, "restart": restart}  # for a map, which is no score
WITHOUT_NOISE = ("euler", "heun", "rk4", "map")
GRIDS = {"uniform": uniform_times, "log-snr": log_snr_times, "karras": karras_times, "angle": angle_times}

Item = TypeVar("Item")
Result = TypeVar("Result")


class Sampling(TypedDict, total=False):
    """How `generate` samples: what its callers may hand on to it."""

    solver: str | None
    grid: str | None
    n_steps: int | None
    batch_size: int
    precision: str
    show_progress: bool


def usual(model: ScoreModel | VelocityMap) -> tuple[str, str, int]:
    """The solver, grid and number of steps that a model is sampled with where nothing else is said."""
    if isinstance(model, VelocityMap):
        return ("restart", "angle", 1) if model.one_end else ("map", "angle", 4)
    return "heun", "karras", 30


def generate(
    model: ScoreModel | VelocityMap,
    shape: tuple[int, ...],
    *,
    labels: Tensor | None = None,
    solver: str | None = None,
    grid: str | None = None,
    n_steps: int | None = None,
    seed: int = 0,
    batch_size: int = 250,
    precision: str = "float32",
    accelerator: Accelerator | None = None,
    show_progress: bool = True,
) -> Tensor:
    """Samples of the given shape (N, C, H, W), on the CPU, on every process.

    From the prior along the solver to t_min, then with a score one last step to E[x_0 | x], which takes the remaining
    noise out. solver, grid, n_steps: by default `usual(model)`; a map takes "map" or "restart", a score the others.
    Batch i starts from noise that depends on (seed, i) alone, so the processes may share the batches in any way.
    labels: long (N,), -1 = no label; None: the unconditional model. precision: "bfloat16" computes the network in it
    where the device can (`devices.autocast`); the solver stays in float32. The model is moved to the accelerator's
    device.
    Raises TypeError for what is neither ScoreModel nor VelocityMap; FloatingPointError if samples are not finite.
    """
    if not isinstance(model, VelocityMap) and not hasattr(model, "predict"):
        inner = "; its .module is one" if isinstance(getattr(model, "module", None), ScoreModel) else ""
        raise TypeError(f"model: expected a ScoreModel, got {type(model).__name__}{inner}")
    usual_solver, usual_grid, usual_steps = usual(model)
    solver = usual_solver if solver is None else solver
    grid = usual_grid if grid is None else grid
    n_steps = usual_steps if n_steps is None else n_steps
    one_of(solver, tuple(MAPPERS if isinstance(model, VelocityMap) else SOLVERS), "solver")
    one_of(grid, tuple(GRIDS), "grid")
    one_of(precision, PRECISIONS, "precision")
    at_least(shape[0], 1, "shape's number of samples")
    at_least(batch_size, 1, "batch_size")
    seed_number(seed)
    if labels is not None and labels.shape != shape[:1]:
        raise ValueError(f"labels: expected shape ({shape[0]},), got {tuple(labels.shape)}")
    accelerator = accelerator or Accelerator(cpu=not torch.cuda.is_available())
    device, sde = accelerator.device, model.path if isinstance(model, VelocityMap) else model.sde
    model = model.to(device)
    times = GRIDS[grid](sde, n_steps)
    starts = range(0, shape[0], batch_size)

    @torch.no_grad()
    @autocast(device, precision)
    def batch(start: int) -> Tensor:
        stream = stream_of(device, seed, start)
        size = min(batch_size, shape[0] - start)
        x = sde.prior_sample((size, *shape[1:]), generator=stream, device=device)
        label = None if labels is None else labels[start : start + size].to(device)
        given = () if label is None else (label,)
        noise = {} if solver in WITHOUT_NOISE else {"generator": stream}
        if isinstance(model, VelocityMap):
            return MAPPERS[solver](lambda x, t, s: model(x, t, s, *given), sde, x, times, **noise).cpu()
        x = SOLVERS[solver](lambda x, t: model(x, t, *given), sde, x, times, **noise)
        return model.predict(x, times[-1].to(x), "data", *given).cpu()

    samples = torch.cat(in_shares(batch, starts, accelerator, "sampling" if show_progress else None))
    bad = len(samples) - int(samples.flatten(1).isfinite().all(1).sum())
    if bad:
        raise FloatingPointError(f"model: {bad} of {len(samples)} samples are not finite: network or solver diverges")
    return samples


def save_grid(images: Tensor, path: Path, *, columns: int = 10) -> None:
    """Write images (N, C, H, W) in [-1, 1] as one .png, row by row, each pixel three times as large."""
    grid = make_grid(images.clamp(-1, 1), nrow=columns, normalize=True, value_range=(-1, 1), pad_value=1.0)
    grid = grid.repeat_interleave(3, 1).repeat_interleave(3, 2)
    pixels = (grid * 255).round().to(torch.uint8).permute(1, 2, 0).numpy()
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "png")
    write_atomically(path, file.getvalue())


def in_shares(
    function: Callable[[Item], Result], items: Sequence[Item], accelerator: Accelerator, description: str | None
) -> list[Result]:
    """[function(item) for item in items], each process doing its share; every process gets all results, in order."""
    mine = list(items)[accelerator.process_index :: accelerator.num_processes]
    done = list(enumerate(function(item) for item in _watched(mine, accelerator, description)))
    if accelerator.num_processes == 1:
        return [result for _, result in done]
    numbered = [(i * accelerator.num_processes + accelerator.process_index, result) for i, result in done]
    return [result for _, result in sorted(gather_object(numbered), key=lambda pair: pair[0])]


def _watched(items: list[Item], accelerator: Accelerator, description: str | None) -> Iterator[Item]:
    hidden = description is None or not accelerator.is_local_main_process
    return iter(tqdm(items, desc=description, unit="batch", leave=False, disable=hidden))
