"""What a choice of lesson 15 buys: the digits model retrained once for each, everything else the same (lesson 15).

`measured` reads what `benchmarks/choices.py` wrote. A run is short, so that it can be repeated: numbers of one choice
beside another, not what a choice does in the end.
"""

import csv
import dataclasses
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from coursework import models
from coursework._arguments import one_of
from coursework.data import load as load_data
from coursework.models.batches import stream_of
from coursework.models.evaluation import evaluate
from coursework.models.recipes import Recipe
from coursework.models.training import default_accelerator, train
from coursework.preconditioning import log_snr_law, low_discrepancy
from coursework.predictions import ScoreModel
from coursework.score_matching import denoising_losses
from coursework.sdes import SDE

FILE = Path(__file__).parent / "trained" / "choices.csv"
NETWORK = {"widths": (16, 32), "attention_at": (4,), "n_classes": 10, "features": 64}
BASE = Recipe("score", "digits", 700, NETWORK, batch_size=32, learning_rate=3e-3, warmup=50, average=0.99)
EDM: Mapping[str, Any] = {
    "prediction": "preconditioned",
    "weighting": "edm",
    "sigma_data": 0.75,
    "times": {"kind": "log-normal"},
}
CHOICES: dict[str, Mapping[str, Any]] = {
    "base": {},
    "predict the data": {"prediction": "data"},
    "predict the velocity": {"prediction": "velocity"},
    "predict and weight the data": {"prediction": "data", "weighting": "data"},
    "predict and weight the velocity": {"prediction": "velocity", "weighting": "velocity"},
    "min-SNR": {"weighting": "min-snr"},
    "times: log-SNR": {"times": {"kind": "log-snr"}},
    "times: log-normal": {"times": {"kind": "log-normal"}},
    "EDM": EDM,
    "EDM, uncertainty": {**EDM, "uncertainty": True},
    "antithetic pairs": {"antithetic": True},
    "no average": {"average": 0.0},
    "Fourier embedding": {"network": {**NETWORK, "embedding": "fourier"}},
    "no attention": {"network": {**NETWORK, "attention_at": ()}},
    "learning rate / 10": {"learning_rate": 3e-4},
    "learning rate x 10": {"learning_rate": 3e-2},
    "no clipping": {"clip": 1e9},
}


@dataclass(frozen=True)
class Measured:
    """A run. frechet: the distance of its samples to the training images, as in `evaluation.Evaluation`; bound: nats.

    bound is `diffusion_loss` on held-out images; seconds are the CPU's, of the training alone.
    """

    choice: str
    seed: int
    frechet: float
    bound: float
    seconds: float


COLUMNS = tuple(field.name for field in dataclasses.fields(Measured))


def recipe_of(choice: str, seed: int = 0) -> Recipe:
    """BASE with a choice of CHOICES and a seed."""
    one_of(choice, tuple(CHOICES), "choice")
    return dataclasses.replace(BASE, **CHOICES[choice], seed=seed)


def measure(choice: str, seed: int = 0, **changes: Any) -> Measured:
    """Train a choice on the CPU and measure it. changes: of the recipe, a smaller n_steps say."""
    recipe, accelerator = dataclasses.replace(recipe_of(choice, seed), **changes), default_accelerator(cpu=True)
    start = time.process_time()
    model = train(recipe, accelerator=accelerator, show_progress=False)
    seconds = time.process_time() - start
    assert isinstance(model, ScoreModel)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "trained.safetensors"
        models.save_trained(model, recipe, path)
        numbers, _ = evaluate(path, accelerator=accelerator, seed=seed, n_steps=20, show_progress=False)
    return Measured(choice, seed, numbers.frechet, diffusion_loss(model, model.sde), round(seconds, 1))


def diffusion_loss(model: ScoreModel, sde: SDE, *, n_repeats: int = 8) -> float:
    """The variational bound's part that depends on the network, on the held-out digits, in nats a pixel.

    1/2 int E|noise - noise_hat|^2 d(log-SNR) / D: times by `log_snr_law`, the same ones and the same noise for all.
    """
    data, stream = load_data("digits", split="test"), stream_of("cpu", 15)
    x, label = data.images.repeat(n_repeats, 1, 1, 1), data.labels.repeat(n_repeats)
    # neighbours in the set see times that are far apart
    times = log_snr_law(sde).times(low_discrepancy(len(x), generator=stream)).to(x.dtype)
    times = times[torch.randperm(len(x), generator=stream)]
    with torch.no_grad():
        losses = denoising_losses(model, sde, x, label=label, times=times, generator=stream)
    log_snr = sde.log_snr(torch.tensor([sde.t_min, sde.T], dtype=torch.float64))
    return float((log_snr[0] - log_snr[1]) * losses.double().mean() / x[0].numel())


def read(path: Path = FILE) -> list[Measured]:
    """The runs in a file that `benchmarks/choices.py` wrote."""
    with path.open(encoding="utf-8", newline="") as file:
        return [
            Measured(row["choice"], int(row["seed"]), *(float(row[name]) for name in COLUMNS[2:]))
            for row in csv.DictReader(file)
        ]
