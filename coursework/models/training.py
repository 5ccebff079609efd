"""The training engine: one loop for a laptop's CPU, a GPU, and several processes (lesson 06).

Everything random in step i is drawn from (seed, i), for the whole batch of all processes; each process then takes its
share. So a run does not depend on how many processes it has, nor on how often it was stopped and resumed.
"""

import copy
import json
import math
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any, cast

import torch
from accelerate import Accelerator
from filelock import FileLock, Timeout
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim.swa_utils import get_ema_multi_avg_fn
from tqdm.auto import tqdm

from coursework import models
from coursework._arguments import at_least, number, unwatched
from coursework._files import write_atomically
from coursework.averaging import gamma_of, power_decay
from coursework.data import ImageData
from coursework.data import load as load_data
from coursework.devices import autocast
from coursework.latents import scale_factor, vae_losses
from coursework.models import checkpoints, snapshots
from coursework.models.batches import Batch, Batches, Pairs
from coursework.models.paths import Paths, begin_from
from coursework.models.recipes import Recipe
from coursework.nn import Autoencoder, Uncertainty
from coursework.preconditioning import loss_weight, uncertainty_loss
from coursework.score_matching import WEIGHTINGS, denoising_losses
from coursework.sdes import SDE

COLUMNS = ("step", "loss", "gradient_norm", "learning_rate", "seconds")
KEPT = 2  # checkpoints
MOMENTS = ("step", "exp_avg", "exp_avg_sq")  # AdamW's
LOG, TRAINED = "log.csv", "trained.safetensors"


class Interrupted(KeyboardInterrupt):
    """Training was asked to stop; it did so between two steps, and everything up to then is on disk."""


def train(
    recipe: Recipe,
    folder: Path | None = None,
    *,
    accelerator: Accelerator | None = None,
    data: ImageData | None = None,
    network: nn.Module | None = None,
    accumulate: int = 1,
    save_every: int = 500,
    look_every: int = 20,
    channels_last: bool | None = None,
    compiled: bool = False,
    show_progress: bool = True,
) -> nn.Module:
    """Train a recipe to its end and return the model with the averaged weights, in evaluation mode, on the CPU.

    folder: where `log.csv` (a row a step), checkpoints (`step-0000500.safetensors`, every `save_every` steps, the last
    two), the recipe's snapshots (`snapshot-0000500.safetensors`) and at last `trained.safetensors` are written; a run
    that is found there goes on where its last checkpoint stands, with the losses that it would have had. None: nothing
    is written. accelerator: the device and the processes (`default_accelerator()`). data: instead of the recipe's;
    network: instead of its U-Net (`models.make`), without a folder.
    accumulate: parts that each process computes its share of a batch in, to save memory. look_every: steps after which
    losses are fetched from the device. channels_last: memory layout; by default on GPUs. compiled: by `torch.compile`.

    Raises ValueError if the folder holds a run of another recipe, or a damaged checkpoint, or is in use;
    FloatingPointError, naming the step and the last good checkpoint, as soon as a loss or gradient is seen that is not
    finite; `Interrupted` at Ctrl-C or SIGTERM, after writing a checkpoint.
    """
    at_least(accumulate, 1, "accumulate")
    at_least(save_every, 1, "save_every")
    at_least(look_every, 1, "look_every")
    if network is not None and folder is not None:
        raise ValueError("network: a run in a folder is resumed by its recipe, which does not know this network")
    chosen = accelerator or default_accelerator()
    run = Run(recipe, folder, chosen, data, accumulate, channels_last, compiled, network)
    with run.alone():
        return _train(run, save_every, look_every, show_progress)


def _train(run: "Run", save_every: int, look_every: int, show_progress: bool) -> nn.Module:
    recipe, several = run.recipe, run.accelerator.num_processes > 1
    # a GPU would have to wait for its queue; on CPUs the question costs little beside a step, which may take seconds
    ask_every = look_every if several and run.accelerator.device.type == "cuda" else 1
    run.resume()
    bar = tqdm(
        total=recipe.n_steps,
        initial=run.step,
        unit="step",
        desc="training",
        leave=False,
        mininterval=0.1 if sys.stderr.isatty() else 30.0,
        disable=not (show_progress and run.accelerator.is_local_main_process),
    )
    with bar, _stop_requests() as stop:
        while run.step < recipe.n_steps:
            run.advance()
            bar.update()
            ended = run.step == recipe.n_steps
            kept = run.step in run.snapshot_steps
            looks = ended or kept or run.step % look_every == 0
            stopped = run.agree(stop.is_set()) if ended or run.step % ask_every == 0 else False
            if looks or stopped or run.step % save_every == 0:
                bar.set_postfix(loss=f"{run.look():.4f}")
            if kept:
                run.keep()
            if ended or stopped or run.step % save_every == 0:
                run.save()
            if stopped and not ended:
                raise Interrupted(f"stopped after step {run.step}; the same command goes on from there")
    return run.finish()


def default_accelerator(*, cpu: bool = False) -> Accelerator:
    """CUDA where there is one (unless cpu), else the CPU; as many processes as torchrun or `accelerate launch` started.

    Raises ValueError if fewer processes found one another than were started.
    """
    accelerator = Accelerator(cpu=cpu or not torch.cuda.is_available())
    started = int(os.environ.get("WORLD_SIZE", "1"))
    if accelerator.num_processes != started:
        raise ValueError(f"WORLD_SIZE: {started} processes were started, but each sees {accelerator.num_processes}")
    return accelerator


def leave(accelerator: Accelerator) -> None:
    """Ends this process's part in a group of processes, once all have come here; nothing happens to a single one.

    Call it last: gloo's threads may otherwise outlive the interpreter, which aborts the process at its exit.
    """
    if accelerator.num_processes > 1:
        accelerator.wait_for_everyone()
        accelerator.free_memory()
        accelerator.end_training()


class Run:
    """A training run between two steps: model, average, optimiser, step, and the losses not yet looked at."""

    def __init__(
        self,
        recipe: Recipe,
        folder: Path | None,
        accelerator: Accelerator,
        data: ImageData | None,
        accumulate: int,
        channels_last: bool | None,
        compiled: bool,
        network: nn.Module | None = None,
    ) -> None:
        self.recipe, self.folder, self.accelerator = recipe, folder, accelerator
        self.n_parts = accumulate
        shares = accelerator.num_processes * self.n_parts
        if recipe.batch_size % shares:
            raise ValueError(
                f"batch_size: expected a multiple of {accelerator.num_processes} processes times {self.n_parts} "
                f"accumulated parts, got {recipe.batch_size}"
            )
        device = accelerator.device
        bare = models.make(recipe, network).to(device)
        if channels_last or (channels_last is None and device.type == "cuda"):
            bare = bare.to(memory_format=torch.channels_last)
        self.sde: SDE | None = models.make_sde(recipe) if recipe.task in ("score", "distill") else None
        if recipe.task == "distill":
            if data is not None:
                raise ValueError("data: distilling sees paths of its teacher, no images")
            begin_from(bare, recipe)
        self.uncertainty = Uncertainty().to(device) if recipe.uncertainty else None
        groups: list[dict[str, Any]] = [{"params": list(bare.parameters())}]
        if self.uncertainty is not None:
            groups.append({"params": list(self.uncertainty.parameters()), "weight_decay": 0.0})
        optimizer = torch.optim.AdamW(groups, weight_decay=recipe.weight_decay, fused=True)
        self.bare, self.average = bare, copy.deepcopy(bare)
        self.weights: list[Tensor] = list(bare.parameters())
        self.averaged: list[Tensor] = list(self.average.parameters())
        self.profiles = [(gamma_of(width), copy.deepcopy(bare)) for width in recipe.profiles]
        self.snapshot_steps = snapshots.steps(recipe)
        self.model, self.optimizer = accelerator.prepare(torch.compile(bare) if compiled else bare, optimizer)
        self.labelled = recipe.task == "classify" or models.n_labels(recipe) is not None
        self.batches = Paths(recipe, device) if recipe.task == "distill" else self._images(data, device)
        self.step, self.seconds = 0, 0.0
        self.unseen: list[tuple[int, Tensor, Tensor, float]] = []  # step, loss, gradient norm, learning rate
        self.started = time.monotonic()

    def _images(self, data: ImageData | None, device: torch.device) -> Batches:
        """The data set's batches."""
        recipe, bare = self.recipe, self.bare
        data = models.prepared(recipe, load_data(recipe.data, device=device) if data is None else data)
        if recipe.batch_size > len(data):
            raise ValueError(f"batch_size: expected at most the {len(data)} training images, got {recipe.batch_size}")
        span = (self.sde.t_min, self.sde.T) if self.sde else (0.0, 1.0)
        noise_shape = bare.latent_shape if isinstance(bare, Autoencoder) else None
        return Batches(recipe, data, *span, models.make_law(recipe) if self.sde else None, noise_shape)

    # training

    def advance(self) -> None:
        """One optimiser step, on the next batch."""
        accelerator, recipe = self.accelerator, self.recipe
        rate = recipe.learning_rate * rate_factor(self.step, recipe)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        mine = self.batches[self.step].parts(accelerator.num_processes)[accelerator.process_index]
        parts, losses = mine.parts(self.n_parts), []
        for i, part in enumerate(parts):
            last = i == len(parts) - 1
            with nullcontext() if last else accelerator.no_sync(self.model):
                loss = self.loss(part) / self.n_parts
                accelerator.backward(loss)
            losses.append(loss.detach())
        norm = nn.utils.clip_grad_norm_(self.weights, recipe.clip)
        if self.uncertainty is not None and accelerator.num_processes > 1:  # the model's are averaged on their way back
            for parameter in self.uncertainty.parameters():
                parameter.grad = self._reduced(cast(Tensor, parameter.grad), "mean")
        self.optimizer.step()
        self.optimizer.zero_grad()
        get_ema_multi_avg_fn(average_decay(self.step, recipe.average))(self.averaged, self.weights, self.step)
        self.step += 1
        for gamma, profile in self.profiles:
            average = get_ema_multi_avg_fn(power_decay(self.step, gamma))
            average(list(profile.parameters()), self.weights, self.step)
        self.unseen.append((self.step, torch.stack(losses).sum(), norm, rate))

    def loss(self, part: Batch) -> Tensor:
        """The recipe's objective, per pixel, or the cross entropy of the classes."""
        with autocast(self.accelerator.device, self.recipe.precision), unwatched(waiting=False):
            if self.recipe.task == "autoencode":
                decoded, mean, log_variance = self.model(part.images, part.noise)
                losses = vae_losses(decoded, part.images, mean, log_variance, kl_weight=self.recipe.kl_weight)
                return losses.mean() / part.images[0].numel()
            if self.sde is None:
                return F.cross_entropy(self.model(part.images), part.labels)
            if isinstance(part, Pairs):
                return self._distilling(self.sde, part).mean()
            losses, n_pixels = self._denoising(self.sde, part), part.images[0].numel()
            if self.uncertainty is None:
                return losses.mean() / n_pixels
            ratio = self.sde.sigma(part.times) / self.sde.alpha(part.times)
            return uncertainty_loss(losses / n_pixels, self.uncertainty(torch.log(ratio) / 4))

    def _denoising(self, sde: SDE, part: Batch) -> Tensor:
        """The weighted loss of each image, (B,)."""
        recipe, scheme = self.recipe, self.recipe.weighting not in WEIGHTINGS
        losses = denoising_losses(
            self.model,
            sde,
            part.images,
            weighting="noise" if scheme else recipe.weighting,
            label=part.labels if self.labelled else None,
            times=part.times,
            noise=part.noise,
        )
        if not scheme:
            return losses
        return losses * loss_weight(
            sde.alpha(part.times),
            sde.sigma(part.times),
            prediction="noise",
            scheme=recipe.weighting,
            gamma=recipe.gamma,
            sigma_data=recipe.sigma_data,
        )

    def _distilling(self, sde: SDE, part: Pairs) -> Tensor:
        """The squared error of the velocity that the map goes along, per pixel, of each pair, (B,)."""
        value = self.model(part.noise, part.times, part.ends, part.labels if self.labelled else None)
        (alpha, sigma), (alpha_s, sigma_s) = ((sde.alpha(t), sde.sigma(t)) for t in (part.times, part.ends))
        turned = (sigma * alpha_s - alpha * sigma_s) / (alpha**2 + sigma**2)  # x changes by this times the velocity
        return (value - part.images).float().square().flatten(1).mean(1) / turned.float() ** 2

    def agree(self, stop: bool) -> bool:
        """Whether any process was asked to stop."""
        if self.accelerator.num_processes == 1:
            return stop
        return bool(self._reduced(torch.tensor(float(stop), device=self.accelerator.device), "sum") > 0)

    def _reduced(self, value: Tensor, how: str) -> Tensor:
        """The sum or mean of all processes' tensors."""
        return cast(Tensor, self.accelerator.reduce(value, how))  # of the kind that it was given

    def look(self) -> float:
        """Fetch the losses since the last look, write them to the log, refuse what is not finite; the last loss."""
        steps, losses, norms, rates = zip(*self.unseen, strict=True)
        self.unseen = []
        values = torch.stack([torch.stack(losses), torch.stack([norm.to(losses[0].dtype) for norm in norms])])
        losses, norms = self._reduced(values, "mean").double().cpu()
        now = time.monotonic()
        self.seconds, self.started = self.seconds + now - self.started, now
        rows = zip(steps, losses.tolist(), norms.tolist(), rates, strict=True)
        text = "".join(f"{i},{loss!r},{norm!r},{rate!r},{self.seconds:.1f}\n" for i, loss, norm, rate in rows)
        if self.own_folder is not None:
            with (self.own_folder / LOG).open("a", encoding="utf-8") as file:
                file.write(text)
        bad = ~(losses.isfinite() & norms.isfinite())
        if bad.any():
            saved = checkpoints_in(self.folder)
            advice = f"the last good checkpoint is {saved[-1]}" if saved else "there is no checkpoint yet"
            raise FloatingPointError(
                f"loss: not finite at step {steps[int(bad.int().argmax())]} (loss, gradient norm: "
                f"{losses[bad][0]:g}, {norms[bad][0]:g}); {advice}"
            )
        return float(losses[-1])

    # files

    @property
    def own_folder(self) -> Path | None:
        """The folder, in the one process that writes."""
        return self.folder if self.accelerator.is_main_process else None

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Keeps other runs out of the folder. Raises ValueError if one is in it."""
        folder = self.own_folder
        if folder is None:
            yield
            return
        folder.mkdir(parents=True, exist_ok=True)
        try:
            with FileLock(folder / ".lock", timeout=0):
                yield
        except Timeout:
            raise ValueError(f"{folder}: another training runs in this folder") from None

    def save(self) -> None:
        """Write a checkpoint, then delete all but the last two."""
        if self.own_folder is not None:
            path = self.own_folder / f"step-{self.step:07d}.safetensors"
            facts = {"recipe": self.recipe.to_json(), "step": self.step, "seconds": round(self.seconds, 1)}
            checkpoints.write(path, self._state(), facts)
            for old in checkpoints_in(self.own_folder)[:-KEPT]:
                old.unlink(missing_ok=True)
        self.accelerator.wait_for_everyone()

    def keep(self) -> None:
        """Write a snapshot of the power-function averages."""
        if self.own_folder is not None:
            snapshots.write(self.own_folder, self.recipe, self.step, [profile for _, profile in self.profiles])

    def resume(self) -> None:
        """Go on from the folder's last checkpoint, if it has one; rows of the log after it are taken out.

        What writes that were killed left behind is removed.
        """
        saved = checkpoints_in(self.folder)
        if saved:
            self._load(saved[-1], saved[-2] if len(saved) > 1 else None)
        if self.own_folder is not None:
            for left in self.own_folder.glob(".*.safetensors.*"):
                left.unlink(missing_ok=True)
            log = self.own_folder / LOG
            write_atomically(log, _rows_until(log, self.step))
        self.accelerator.wait_for_everyone()
        self.started = time.monotonic()

    def finish(self) -> nn.Module:
        """The averaged model on the CPU; with a folder it is written there too. An autoencoder gets its scale now."""
        if isinstance(self.average, Autoencoder) and isinstance(self.batches, Batches):
            latents = models.latents_of(self.average, self.batches.data.images)
            self.average.scale.mul_(scale_factor(latents, per_channel=True))
        if self.own_folder is not None:
            models.save_trained(self.average, self.recipe, self.own_folder / TRAINED)
        self.accelerator.wait_for_everyone()
        return self.average.cpu().to(memory_format=torch.contiguous_format).eval().requires_grad_(False)

    def _state(self) -> dict[str, Tensor]:
        """Everything that the next step depends on, by name."""
        moments = {
            f"optimizer.{kind}.{name}": value
            for name, parameter in self._trained()
            for kind, value in self.optimizer.state[parameter].items()
        }
        parts = {f"{part}.{name}": v for part, m in self._modules().items() for name, v in m.state_dict().items()}
        return {**parts, **moments}

    def _modules(self) -> dict[str, nn.Module]:
        """What a checkpoint holds the tensors of, by name."""
        profiles = {f"profile-{i}": profile for i, (_, profile) in enumerate(self.profiles)}
        others = {} if self.uncertainty is None else {"uncertainty": self.uncertainty}
        return {"model": self.bare, "average": self.average, **profiles, **others}

    def _trained(self) -> list[tuple[str, nn.Parameter]]:
        """The parameters in the optimiser's order, by name."""
        others = [] if self.uncertainty is None else self.uncertainty.named_parameters()
        return [*self.bare.named_parameters(), *((f"uncertainty.{name}", parameter) for name, parameter in others)]

    def _load(self, path: Path, older: Path | None) -> None:
        try:
            tensors, facts = checkpoints.read(path)
        except ValueError as error:
            raise ValueError(f"{error}; without it the run goes on from {older}" if older else str(error)) from None
        _same_recipe(self.recipe, models.recipe_of(facts, path), path)
        step = at_least(facts.get("step"), 0, f"{path}: step")
        seconds = number(facts.get("seconds"), f"{path}: seconds")
        if step > self.recipe.n_steps:
            raise ValueError(f"{path}: step: expected at most {self.recipe.n_steps}, got {step}")
        moments = checkpoints.part(tensors, "optimizer.")
        checkpoints.same_form(self._moments(), moments, path)
        for part, module in self._modules().items():
            checkpoints.load_into(module, checkpoints.part(tensors, f"{part}."), path)
        state = {
            i: {kind: moments[f"{kind}.{name}"] for kind in MOMENTS} for i, (name, _) in enumerate(self._trained())
        }
        self.optimizer.load_state_dict({"state": state, "param_groups": self.optimizer.state_dict()["param_groups"]})
        self.step, self.seconds = step, seconds

    def _moments(self) -> dict[str, Tensor]:
        """What the optimiser keeps of each parameter, in form, before the first step too."""
        return {
            f"{kind}.{name}": parameter if kind != "step" else torch.tensor(0.0)
            for name, parameter in self._trained()
            for kind in MOMENTS
        }


def rate_factor(step: int, recipe: Recipe) -> float:
    """The learning rate of step 0, 1, ... as a share of the recipe's: a linear rise, then half a cosine down to 0."""
    if step < recipe.warmup:
        return (step + 1) / recipe.warmup
    through = (step - recipe.warmup) / max(1, recipe.n_steps - recipe.warmup)
    return 0.5 * (1 + math.cos(math.pi * through))


def average_decay(step: int, decay: float) -> float:
    """The moving average's decay at step 0, 1, ...: 0, then short, so that the first weights are soon forgotten."""
    return min(decay, (1 + step) / (10 + step)) if step else 0.0


def checkpoints_in(folder: Path | None) -> list[Path]:
    """A run's checkpoints, the earliest first."""
    found = [] if folder is None else folder.glob("step-*.safetensors")
    return sorted((path for path in found if path.stem.removeprefix("step-").isdigit()), key=_step_of)


def _step_of(path: Path) -> int:
    return int(path.stem.removeprefix("step-"))


def _rows_until(log: Path, step: int) -> str:
    """The log's header and its rows up to the step."""
    lines = log.read_text(encoding="utf-8", errors="replace").splitlines() if log.is_file() else []
    rows = [(line.split(",")[0], line) for line in lines[1:] if line.count(",") == len(COLUMNS) - 1]
    kept = [line for first, line in rows if first.isdecimal() and int(first) <= step]
    return "\n".join([",".join(COLUMNS), *kept]) + "\n"


def _same_recipe(recipe: Recipe, saved: Recipe, path: Path) -> None:
    for name in vars(recipe):
        ours, theirs = (json.loads(r.to_json())[name] for r in (recipe, saved))
        if ours != theirs:
            what = "another architecture" if name == "network" else "another recipe"
            raise ValueError(f"{path}: from {what}: its {name} is {theirs}, here it is {ours}; use another folder")


@contextmanager
def _stop_requests() -> Iterator[threading.Event]:
    """An event that Ctrl-C and SIGTERM set; a second Ctrl-C interrupts at once. In other threads it is never set."""
    stop = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield stop
        return

    def request(number: int, frame: object) -> None:
        if stop.is_set():
            raise KeyboardInterrupt
        stop.set()

    before = {number: signal.signal(number, request) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
