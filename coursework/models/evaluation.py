"""What a trained model's samples are like, in numbers: `coursework evaluate`."""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Unpack

import torch
from accelerate import Accelerator
from torch import Tensor

from coursework import models
from coursework.data import load as load_data
from coursework.flow_maps import VelocityMap
from coursework.metrics import (
    frechet_distance,
    image_features,
    inception_score,
    nearest_distances,
    precision_recall,
)
from coursework.models.generation import Sampling, generate, in_shares
from coursework.models.training import default_accelerator
from coursework.nn import Classifier
from coursework.predictions import ScoreModel

CLASSIFIERS = {"digits": "digits-classifier", "fashion-mnist": "fashion-classifier"}


@dataclass(frozen=True)
class Evaluation:
    """Numbers of n samples, and of as many held-out images (`floor_...`), against the training set.

    frechet: the Frechet distance of the classifier's features. inception: the inception score and its deviation over
    parts. precision, recall: with 3 nearest neighbours, of equally many images of both sets, at most 10,000: the
    training set's are spread evenly over it. confidence: the mean of the classifier's largest probability.
    label_accuracy: the share of samples that the classifier gives the class they were asked for; None without labels.
    rarest_class: the share of the class that comes out least often. nearest: the mean Euclidean distance, in pixels'
    unit, of the first 1,000 to the nearest training image.
    """

    n: int
    frechet: float
    floor_frechet: float
    inception: tuple[float, float]
    floor_inception: tuple[float, float]
    precision: float
    recall: float
    floor_precision: float
    floor_recall: float
    confidence: float
    floor_confidence: float
    label_accuracy: float | None
    rarest_class: float
    nearest: float
    floor_nearest: float

    def as_dict(self) -> dict[str, object]:
        """The numbers by name, rounded to five digits."""
        return {name: _rounded(value) for name, value in asdict(self).items()}


def evaluate(
    name: str | Path,
    *,
    n: int | None = None,
    accelerator: Accelerator | None = None,
    seed: int = 0,
    **sampling: Unpack[Sampling],
) -> tuple[Evaluation, Tensor]:
    """Evaluate a trained score model or map on n samples (default: as many as held-out images), and return these too.

    n: from 10, the parts of the inception score. With labels in the network every one is asked for equally often.
    Latents are decoded. `sampling` goes to `generation.generate` (solver, grid, n_steps, batch_size, precision). Raises
    ValueError for a classifier, and for data without one.
    """
    accelerator = accelerator or default_accelerator()
    model, recipe = models.load_with_recipe(name, device=accelerator.device)
    if not isinstance(model, ScoreModel | VelocityMap) or recipe.data not in CLASSIFIERS:
        known = " or ".join(CLASSIFIERS)
        raise ValueError(
            f"name: expected a score model or a map of {known}, got a recipe to {recipe.task} {recipe.data}"
        )
    train, held_out = (load_data(recipe.data, split=split) for split in ("train", "test"))
    n = len(held_out) if n is None else n
    if not 10 <= n <= len(held_out):
        raise ValueError(f"n: expected 10 to {len(held_out)}, the number of held-out images, got {n}")
    labels = models.labels_for(recipe, n)
    shape = (n, *models.sample_shape(recipe))
    generated = generate(model, shape, labels=labels, seed=seed, accelerator=accelerator, **sampling)
    samples = models.images_of(recipe, generated).clamp(-1, 1)
    classifier = _classifier(recipe.data, accelerator.device)
    description = "features" if sampling.get("show_progress", True) else None
    real, _ = _features(classifier, train.images, accelerator, description)
    seen, logits = _features(classifier, samples, accelerator, description)
    floor, floor_logits = _features(classifier, held_out.images[:n], accelerator, description)
    predicted = logits.argmax(1)
    asked = None if labels is None else models.classes_of(recipe, labels)
    equally_many = min(n, len(real), PRECISION_POINTS)
    some = real[torch.arange(equally_many) * len(real) // equally_many]
    precision, recall = precision_recall(some, seen[:equally_many])
    floor_precision, floor_recall = precision_recall(some, floor[:equally_many])
    numbers = Evaluation(
        n=n,
        frechet=frechet_distance(real, seen),
        floor_frechet=frechet_distance(real, floor),
        inception=inception_score(logits),
        floor_inception=inception_score(floor_logits),
        precision=precision,
        recall=recall,
        floor_precision=floor_precision,
        floor_recall=floor_recall,
        confidence=_confidence(logits),
        floor_confidence=_confidence(floor_logits),
        label_accuracy=None if asked is None else float((predicted == asked).double().mean()),
        rarest_class=float(predicted.bincount(minlength=models.N_CLASSES).min()) / n,
        nearest=float(nearest_distances(samples[:NEAREST_POINTS], train.images).mean()),
        floor_nearest=float(nearest_distances(held_out.images[:n][:NEAREST_POINTS], train.images).mean()),
    )
    return numbers, samples


PRECISION_POINTS = 10_000  # all distances between them are computed
NEAREST_POINTS = 1000


def _classifier(data: str, device: torch.device) -> Classifier:
    """The classifier that comes with the package for a data set."""
    found = models.load(CLASSIFIERS[data], device=device)
    if not isinstance(found, Classifier):
        raise TypeError(f"{CLASSIFIERS[data]}: expected a classifier, got {type(found).__name__}")
    return found


def _features(
    classifier: Classifier, images: Tensor, accelerator: Accelerator, description: str | None
) -> tuple[Tensor, Tensor]:
    def part(images: Tensor) -> tuple[Tensor, Tensor]:
        features, logits = image_features(classifier, images.to(accelerator.device))
        return features.cpu(), logits.cpu()

    parts = in_shares(part, list(images.split(1000)), accelerator, description)
    features, logits = zip(*parts, strict=True)
    return torch.cat(features), torch.cat(logits)


def _confidence(logits: Tensor) -> float:
    return float(logits.softmax(1).max(1).values.mean())


def _rounded(value: object) -> object:
    if isinstance(value, float):
        return float(f"{value:.5g}")
    return [_rounded(v) for v in value] if isinstance(value, tuple) else value
