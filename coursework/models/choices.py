"""What a choice of lesson 15 buys: a small model of the digits, retrained once for each (lesson 15).

`read` gives what `benchmarks/choices.py` measured. A run takes seconds, so that it can be repeated: the numbers say
what a choice does to a short training, not what it does in the end.
"""

import csv
import dataclasses
import time
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from coursework import models
from coursework._arguments import one_of
from coursework.data import load as load_data
from coursework.metrics import frechet_distance, image_features
from coursework.models.batches import stream_of
from coursework.models.generation import generate
from coursework.models.recipes import Recipe
from coursework.models.training import default_accelerator, train
from coursework.nn import TimeMLP
from coursework.nn.classifier import Classifier
from coursework.nn.embeddings import SinusoidalEmbedding
from coursework.preconditioning import log_snr_law, low_discrepancy
from coursework.predictions import ScoreModel
from coursework.score_matching import denoising_losses

FILE = Path(__file__).parent / "trained" / "choices.csv"
BASE = Recipe("score", "digits", 250, batch_size=64, learning_rate=3e-3, warmup=25, average=0.98)
CHOICES: dict[str, Mapping[str, Any]] = {
    "base": {},
    "predict and weight the data": {"prediction": "data", "weighting": "data"},
    "times: uniform log-SNR": {"times": {"kind": "log-snr"}},
    "EDM: factors, weight, times": {
        "prediction": "preconditioned",
        "weighting": "edm",
        "sigma_data": 0.55,
        "times": {"kind": "log-normal"},
    },
    "no average of the weights": {"average": 0.0},
    "learning rate / 10": {"learning_rate": 3e-4},
    "time features of scale 1": {},
}


@dataclass(frozen=True)
class Measured:
    """A run. frechet: of 355 samples to the training images, in the classifier's features; bound: `bound`, in nats.

    seconds are the CPU's, of the training alone.
    """

    choice: str
    seed: int
    frechet: float
    bound: float
    seconds: float


COLUMNS = tuple(field.name for field in dataclasses.fields(Measured))


class FlatMLP(nn.Module):
    """A perceptron of all pixels. Shapes: x (B, 1, 8, 8), t 0-d or (B,) -> like x."""

    def __init__(self, scale: float) -> None:
        super().__init__()
        self.mlp = TimeMLP(64, hidden=256, depth=3, time_features=64)
        self.mlp.embed = SinusoidalEmbedding(64, scale)

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        """The prediction at every image and its time."""
        return self.mlp(x.flatten(1), t).reshape(x.shape)


def measure(choice: str, seed: int = 0, **changes: Any) -> Measured:
    """Train a choice on the CPU and measure it. changes: of the recipe, a smaller n_steps say."""
    one_of(choice, tuple(CHOICES), "choice")
    recipe = dataclasses.replace(BASE, **{**CHOICES[choice], **changes}, seed=seed)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = FlatMLP(1.0 if choice == "time features of scale 1" else 1000.0)
    accelerator, start = default_accelerator(cpu=True), time.process_time()
    model = train(recipe, accelerator=accelerator, network=network, show_progress=False)
    seconds = time.process_time() - start
    assert isinstance(model, ScoreModel)
    shape = (355, *models.SHAPES["digits"])
    samples = generate(model, shape, n_steps=16, seed=seed, accelerator=accelerator, show_progress=False)
    return Measured(choice, seed, distance(samples.clamp(-1, 1)), bound(model), seconds)


def distance(images: Tensor) -> float:
    """The Frechet distance of images to the training ones, in the features of the classifier that comes along."""
    classifier, real = _judge()
    return frechet_distance(real, image_features(classifier, images)[0])


@cache
def _judge() -> tuple[Classifier, Tensor]:
    """The classifier, and the training images' features."""
    classifier = models.load("digits-classifier")
    assert isinstance(classifier, Classifier)
    return classifier, image_features(classifier, load_data("digits").images)[0]


def bound(model: ScoreModel, *, n_repeats: int = 4) -> float:
    """The part of the variational bound that depends on the network, on the held-out digits, in nats a pixel.

    1/2 int E|noise - noise_hat|^2 d(log-SNR) / D, with the same times and the same noise for every model.
    """
    sde, stream = model.sde, stream_of("cpu", 15)
    x = load_data("digits", split="test").images.repeat(n_repeats, 1, 1, 1)
    times = log_snr_law(sde).times(low_discrepancy(len(x), generator=stream)).to(x.dtype)
    times = times[torch.randperm(len(x), generator=stream)]  # neighbours in the set see times that are far apart
    with torch.no_grad():
        losses = denoising_losses(model, sde, x, times=times, generator=stream)
    most, least = sde.log_snr(torch.tensor([sde.t_min, sde.T], dtype=torch.float64)).tolist()
    return (most - least) * float(losses.double().mean()) / x[0].numel()


def read(path: Path = FILE) -> list[Measured]:
    """The runs in a file that `benchmarks/choices.py` wrote."""
    with path.open(encoding="utf-8", newline="") as file:
        return [
            Measured(row["choice"], int(row["seed"]), *(float(row[name]) for name in COLUMNS[2:]))
            for row in csv.DictReader(file)
        ]
