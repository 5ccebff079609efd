"""Everything that decides a training run: `coursework train NAME` follows the recipe of that name."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from coursework._arguments import at_least, number, one_of, positive, seed_number
from coursework.averaging import gamma_of
from coursework.data.images import NAMES
from coursework.preconditioning import SCHEMES, log_normal_law, log_snr_law
from coursework.predictions import PREDICTIONS
from coursework.score_matching import WEIGHTINGS
from coursework.sdes import VESDE, VPSDE, SubVPSDE

TASKS = ("score", "classify", "autoencode", "distill")
SDES = {"vp": VPSDE, "ve": VESDE, "sub-vp": SubVPSDE}
NETWORKS = ("unet", "dit", "captioned")
PRECISIONS = ("float32", "bfloat16")
PRECONDITIONED = "preconditioned"  # what a network inside `Preconditioned` predicts
WEIGHTS = (*WEIGHTINGS, *(scheme for scheme in SCHEMES if scheme not in WEIGHTINGS))
POSITIVE = ("learning_rate", "clip", "sigma_data", "gamma", "kl_weight")
LAWS = {"uniform": None, "log-normal": log_normal_law, "log-snr": log_snr_law}


@dataclass(frozen=True)
class Recipe:
    """A training run, from the data to the last step. Two runs of one recipe on one machine give the same weights.

    task: "score" trains a network with denoising score matching under `sde`, "classify" a classifier, "autoencode" a
    variational autoencoder, whose KL term has weight kl_weight, "distill" a `VelocityMap` on paths of the score model
    `teacher` (as `models.load` knows it), n_path steps each, beginning with its weights: to every s if the network has
    two times, else to t_min. data: a name that `data.load` knows. latent: the name
    of a trained autoencoder whose scaled latents are modelled, instead of the images ("": none). network: its `kind`
    ("unet", the default, "dit", or "captioned": a U-Net that reads captions of the images) and the arguments of its
    class, of `nn.Classifier` or `nn.Autoencoder`, but for those that the data decide. sde: its
    kind ("vp", "ve" or "sub-vp") and its arguments. prediction: as in `ScoreModel`, or "preconditioned": the network is
    inside `preconditioning.Preconditioned`, for data of standard deviation sigma_data. weighting: as in
    `denoising_objective`, or a scheme of `preconditioning.loss_weight` (with gamma, sigma_data), times 1/2. times: the
    law that t is drawn from, by its kind and its arguments: "uniform" on [t_min, T], "log-normal" or "log-snr"
    (`log_normal_law`, `log_snr_law`). The loss is the mean over it: weighting "noise" under "log-snr" is "likelihood"
    by importance sampling, up to a factor. uncertainty: losses are weighted by a trained function of the noise level
    (`uncertainty_loss`). label_dropout: the share of labels that are replaced by the null label; without classes in the
    network, labels are not used. flip: mirror each image with probability 1/2. antithetic: the second half of a batch
    repeats images and times of the first with the opposite noise. batch_size: of all processes together. warmup: steps
    of linear growth of the learning rate, which then falls to 0 along a cosine. clip: the gradient's largest norm.
    average: decay of the moving average of the weights, which is what a trained model is. profiles: the sigma_rel of
    power-function averages that are stored n_snapshots times, evenly over training, so that any other can be made
    afterwards (`snapshots.rebuild`). precision: "bfloat16" computes the network in it where the device can. seed: of
    everything random.
    """

    task: str
    data: str
    n_steps: int
    network: Mapping[str, Any] = field(default_factory=dict)
    sde: Mapping[str, Any] = field(default_factory=lambda: {"kind": "vp"})
    prediction: str = "noise"
    weighting: str = "noise"
    sigma_data: float = 0.5
    gamma: float = 5.0
    kl_weight: float = 1.0
    latent: str = ""
    times: Mapping[str, Any] = field(default_factory=lambda: {"kind": "uniform"})
    uncertainty: bool = False
    label_dropout: float = 0.0
    flip: bool = False
    antithetic: bool = False
    batch_size: int = 128
    learning_rate: float = 1e-3
    weight_decay: float = 0.0
    warmup: int = 200
    clip: float = 1.0
    average: float = 0.999
    profiles: tuple[float, ...] = ()
    n_snapshots: int = 8
    precision: str = "float32"
    seed: int = 0
    teacher: str | None = None
    n_path: int = 8

    def __post_init__(self) -> None:
        for name in ("network", "sde", "times"):
            if not isinstance(getattr(self, name), Mapping):
                raise TypeError(f"{name}: expected a table of arguments, got {getattr(self, name)!r}")
        for name in ("flip", "antithetic", "uncertainty"):
            if not isinstance(getattr(self, name), bool):
                raise TypeError(f"{name}: expected true or false, got {getattr(self, name)!r}")
        for name in (*POSITIVE, "weight_decay", "label_dropout", "average"):
            number(getattr(self, name), name)
        # JSON has no tuples: the same recipe is equal to itself on the way back
        network = {name: tuple(value) if isinstance(value, list) else value for name, value in self.network.items()}
        object.__setattr__(self, "network", network)
        if not isinstance(self.profiles, list | tuple):
            raise TypeError(f"profiles: expected a list of numbers, got {self.profiles!r}")
        object.__setattr__(self, "profiles", tuple(number(value, "profiles") for value in self.profiles))
        one_of(self.task, TASKS, "task")
        one_of(self.data, NAMES, "data")
        one_of(self.prediction, (*PREDICTIONS, PRECONDITIONED), "prediction")
        one_of(self.weighting, WEIGHTS, "weighting")
        one_of(self.precision, PRECISIONS, "precision")
        one_of(self.sde.get("kind"), tuple(SDES), "sde's kind")
        one_of(self.times.get("kind"), tuple(LAWS), "times' kind")
        for name in ("n_steps", "batch_size", "n_snapshots", "n_path"):
            at_least(getattr(self, name), 1, name)
        at_least(self.warmup, 0, "warmup")
        seed_number(self.seed)
        for name in POSITIVE:
            positive(getattr(self, name), name)
        for name, most in (("label_dropout", 1.0), ("average", 1.0)):
            if not 0 <= getattr(self, name) < most:
                raise ValueError(f"{name}: expected a number in [0, {most}), got {getattr(self, name)}")
        if self.task == "score":
            one_of(self.network.get("kind", "unet"), NETWORKS, "network's kind")
        if not isinstance(self.latent, str):
            raise TypeError(f"latent: expected the name of an autoencoder, got {self.latent!r}")
        if self.latent and self.task != "score":
            raise ValueError(f"latent: only score models are trained on latents, got {self.latent!r}")
        if self.task == "classify" and self.label_dropout:
            raise ValueError(f"label_dropout: a classifier needs every label, got {self.label_dropout}")
        if self.task != "score" and self.uncertainty:
            raise ValueError("uncertainty: only score models know a noise level, got True")
        if (self.task == "distill") != isinstance(self.teacher, str):
            raise ValueError(f"teacher: expected a model's name to distill, and none else, got {self.teacher!r}")
        for name in NOT_DISTILLED if self.task == "distill" else ():
            if getattr(self, name) != getattr(PLAIN, name):
                raise ValueError(f"{name}: distilling does not use it, got {getattr(self, name)!r}")
        for width in self.profiles:
            try:
                gamma_of(width)
            except ValueError as error:
                raise ValueError(f"profiles: {error}") from None
        if len(set(self.profiles)) < len(self.profiles):
            raise ValueError(f"profiles: expected different numbers, got {self.profiles}")
        if self.profiles and self.n_snapshots > self.n_steps:
            raise ValueError(f"n_snapshots: expected at most the {self.n_steps} steps, got {self.n_snapshots}")
        if self.antithetic and self.batch_size % 2:
            raise ValueError(f"batch_size: expected an even number with antithetic=True, got {self.batch_size}")

    def to_json(self) -> str:
        """The recipe as JSON, keys in a fixed order."""
        return json.dumps(dataclasses.asdict(self), sort_keys=True)

    @classmethod
    def from_json(cls, text: str) -> Recipe:
        """The recipe of a JSON object. Raises ValueError naming a key that is unknown or missing."""
        try:
            values = json.loads(text)
        except (json.JSONDecodeError, RecursionError) as error:
            raise ValueError(f"recipe: expected JSON, got {text[:40]!r} ({error})") from None
        known = {f.name for f in fields(cls)}
        if not isinstance(values, dict) or set(values) - known:
            unknown = ", ".join(sorted(set(values) - known)) if isinstance(values, dict) else type(values).__name__
            raise ValueError(f"recipe: expected an object with keys among {', '.join(sorted(known))}, got {unknown}")
        missing = {"task", "data", "n_steps"} - set(values)
        if missing:
            raise ValueError(f"recipe: {', '.join(sorted(missing))} missing")
        return cls(**values)


PLAIN = Recipe("score", "digits", 1, n_snapshots=1)
NOT_DISTILLED = ("prediction", "weighting", "times", "uncertainty", "flip", "antithetic")
RECIPES = {
    "digits-classifier": Recipe("classify", "digits", 1500, batch_size=64, warmup=100, weight_decay=0.05),
    "fashion-classifier": Recipe("classify", "fashion-mnist", 3000, weight_decay=0.05, precision="bfloat16"),
    "digits-vp": Recipe(
        "score",
        "digits",
        4000,
        network={"widths": [32, 64], "attention_at": [4], "n_classes": 10},
        label_dropout=0.15,
        batch_size=64,
        average=0.998,
    ),
    "digits-one-step": Recipe(
        "distill",
        "digits",
        500,
        network={"widths": [32, 64], "attention_at": [4], "n_classes": 10},
        label_dropout=0.1,
        batch_size=64,
        warmup=100,
        average=0.99,
        teacher="digits-vp",
    ),
    "digits-few-step": Recipe(
        "distill",
        "digits",
        800,
        network={"widths": [32, 64], "attention_at": [4], "n_classes": 10, "two_times": True},
        label_dropout=0.1,
        batch_size=64,
        warmup=100,
        average=0.99,
        teacher="digits-vp",
    ),
    "digits-ncsn": Recipe(
        "score",
        "digits",
        4000,
        network={"widths": [32, 64], "attention_at": [4]},
        sde={"kind": "ve", "sigma_min": 0.01, "sigma_max": 10.0},
        batch_size=64,
        average=0.998,
    ),
    "fashion-vp": Recipe(
        "score",
        "fashion-mnist",
        6500,
        network={"widths": [32, 64, 128], "attention_at": [7], "n_classes": 10},
        label_dropout=0.15,
        precision="bfloat16",
    ),
    "fashion-ncsn": Recipe(
        "score",
        "fashion-mnist",
        3500,
        network={"widths": [32, 64, 96], "attention_at": [7]},
        sde={"kind": "ve", "sigma_min": 0.01, "sigma_max": 42.0},
        precision="bfloat16",
    ),
    "fashion-vae": Recipe(
        "autoencode", "fashion-mnist", 1200, network={"widths": [16, 32]}, kl_weight=0.003, batch_size=64
    ),
    "fashion-latent": Recipe(
        "score",
        "fashion-mnist",
        1500,
        network={"widths": [32, 64], "attention_at": [7], "n_classes": 10},
        latent="fashion-vae",
        label_dropout=0.15,
        batch_size=64,
    ),
    "digits-text": Recipe(
        "score",
        "digits",
        1200,
        network={"kind": "captioned", "widths": [32, 64], "attention_at": [4]},
        label_dropout=0.15,
        batch_size=64,
        average=0.998,
    ),
    "cifar-vp": Recipe(
        "score",
        "cifar10",
        200_000,
        network={"widths": [64, 128, 192, 256], "n_blocks": 2, "attention_at": [16, 8], "n_classes": 10},
        label_dropout=0.15,
        flip=True,
        learning_rate=2e-4,
        warmup=5000,
        average=0.9999,
        precision="bfloat16",
    ),
}


def read_recipe(name: str, changes: Mapping[str, Any]) -> Recipe:
    """The recipe of that name, or of that .json file, with some values replaced.

    Raises ValueError for an unknown name, here or among the changes, and for a file that holds no recipe.
    """
    if name.endswith(".json"):
        try:
            recipe = Recipe.from_json(Path(name).read_text(encoding="utf-8"))
        except UnicodeDecodeError:
            raise ValueError(f"recipe: {name} is not text in UTF-8") from None
    else:
        one_of(name, tuple(RECIPES), "recipe")
        recipe = RECIPES[name]
    for key in changes:
        one_of(key, tuple(f.name for f in fields(Recipe)), "-p's name")
    return dataclasses.replace(recipe, **changes)
