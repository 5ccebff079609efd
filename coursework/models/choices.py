"""What a choice of lesson 15 buys: the digits' U-Net, retrained once for each with few steps (lesson 15).

`read` gives what `benchmarks/choices.py` measured. A run takes less than a minute, so that it can be repeated: the
numbers say what a choice does to a short training, not what it does in the end.
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
from torch import Tensor

from coursework import models
from coursework._arguments import one_of
from coursework.data import load as load_data
from coursework.metrics import frechet_distance, image_features
from coursework.models.batches import stream_of
from coursework.models.generation import generate
from coursework.models.recipes import Recipe
from coursework.models.training import default_accelerator, train
from coursework.nn import UNet
from coursework.nn.classifier import Classifier
from coursework.nn.embeddings import SinusoidalEmbedding
from coursework.preconditioning import log_snr_law, low_discrepancy
from coursework.predictions import ScoreModel
from coursework.score_matching import denoising_losses

FILE = Path(__file__).parent / "trained" / "choices.csv"
NETWORK = {"widths": (32, 64), "attention_at": (4,)}
BASE = Recipe("score", "digits", 500, network=NETWORK, batch_size=64, warmup=50, average=0.99)
CHOICES: dict[str, Mapping[str, Any]] = {
    "base": {},
    "predict and weight the data": {"prediction": "data", "weighting": "data"},
    "predict the velocity": {"prediction": "velocity", "weighting": "velocity"},
    "times: uniform log-SNR": {"times": {"kind": "log-snr"}},
    "EDM: factors, weight, times": {
        "prediction": "preconditioned",
        "weighting": "edm",
        "sigma_data": 0.55,
        "times": {"kind": "log-normal"},
    },
    "uncertainty weighting": {"uncertainty": True},
    "antithetic pairs": {"antithetic": True},
    "no attention": {"network": {**NETWORK, "attention_at": ()}},
    "time features of scale 1": {},
    "no average of the weights": {"average": 0.0},
    "learning rate / 10": {"learning_rate": 1e-4},
}


@dataclass(frozen=True)
class Measured:
    """A run. frechet: of the samples to the training images, in the classifier's features; bound: `bound`, in nats.

    seconds are the CPU's, of the training alone.
    """

    choice: str
    seed: int
    frechet: float
    bound: float
    seconds: float


COLUMNS = tuple(field.name for field in dataclasses.fields(Measured))


def measure(choice: str, seed: int = 0, *, n: int = 355, **changes: Any) -> Measured:
    """Train a choice on the CPU and measure it with n samples. changes: of the recipe, a smaller n_steps say."""
    one_of(choice, tuple(CHOICES), "choice")
    recipe = dataclasses.replace(BASE, **{**CHOICES[choice], **changes}, seed=seed)
    accelerator, start = default_accelerator(cpu=True), time.process_time()
    model = train(recipe, accelerator=accelerator, network=network_of(choice, recipe), show_progress=False)
    seconds = time.process_time() - start
    assert isinstance(model, ScoreModel)
    shape = (n, *models.SHAPES["digits"])
    samples = generate(model, shape, n_steps=16, seed=seed, accelerator=accelerator, show_progress=False)
    return Measured(choice, seed, distance(samples.clamp(-1, 1)), bound(model), seconds)


def network_of(choice: str, recipe: Recipe) -> UNet:
    """The recipe's untrained U-Net; all choices of one seed start with the same weights, as far as they have them."""
    channels, size, _ = models.SHAPES["digits"]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(recipe.seed)
        network = UNet(size, channels, **recipe.network)
    if choice == "time features of scale 1":
        network.embed[0] = SinusoidalEmbedding(network.configuration["features"], 1.0)
    return network


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
