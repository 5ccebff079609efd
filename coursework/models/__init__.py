"""Models made from recipes, and the trained ones that come with the package (lesson 06)."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from coursework._arguments import at_least, one_of
from coursework.data.captions import CAPTIONS, N_DESCRIPTIONS, describe
from coursework.data.images import SHAPES, ImageData
from coursework.flow_maps import VelocityMap
from coursework.models import checkpoints
from coursework.models.recipes import LAWS, PRECONDITIONED, SDES, Recipe
from coursework.nn import Autoencoder, CaptionedUNet, Classifier, DiT, ScaledInput, UNet
from coursework.preconditioning import Preconditioned, TimeLaw, as_score_model
from coursework.predictions import ScoreModel
from coursework.sdes import SDE

Model = ScoreModel | VelocityMap | Classifier | Autoencoder
FOLDER = Path(__file__).parent / "trained"
N_CLASSES = 10  # every image set of the course has ten


def make_sde(recipe: Recipe) -> SDE:
    """The SDE of a recipe."""
    try:
        return SDES[recipe.sde["kind"]](**{name: value for name, value in recipe.sde.items() if name != "kind"})
    except TypeError as error:
        raise TypeError(f"sde: {error}") from None


def make_law(recipe: Recipe) -> TimeLaw | None:
    """The law that a recipe draws its times from; None for uniform ones."""
    law = LAWS[recipe.times["kind"]]
    options = {name: value for name, value in recipe.times.items() if name != "kind"}
    if law is None:
        if options:
            raise TypeError(f"times: uniform ones have no arguments, got {', '.join(options)}")
        return None
    try:
        return law(make_sde(recipe), **options)
    except TypeError as error:
        raise TypeError(f"times: {error}") from None


def make(recipe: Recipe, network: nn.Module | None = None) -> Model:
    """The untrained model of a recipe: the same weights for the same seed; torch's own random state stays as it is.

    network: what predicts, instead of the recipe's U-Net: network(x, t), or network(x, t, label) with classes.
    Raises ValueError or TypeError for a network that cannot be, and for one with fewer classes than the data.
    """
    n_classes = recipe.network.get("n_classes")
    if recipe.task in ("score", "distill") and isinstance(n_classes, int) and n_classes < N_CLASSES:
        raise ValueError(f"network: n_classes is {n_classes}, {recipe.data} has {N_CLASSES}")
    channels, size, _ = sample_shape(recipe)
    with torch.random.fork_rng(devices=[]), torch.device("cpu"), torch.inference_mode(False):
        torch.manual_seed(recipe.seed)
        try:
            if recipe.task == "classify":
                return Classifier(N_CLASSES, channels, **recipe.network)
            if recipe.task == "autoencode":
                return Autoencoder(size, channels, **recipe.network)
            network = _network(recipe, size, channels) if network is None else network
        except TypeError as error:
            raise TypeError(f"network: {error}") from None
    sde = make_sde(recipe)
    if recipe.task == "distill":
        return VelocityMap(network, sde, one_end=not recipe.network.get("two_times", False))
    if recipe.prediction == PRECONDITIONED:
        return as_score_model(Preconditioned(network, recipe.sigma_data), sde)
    return ScoreModel(ScaledInput(network, sde) if recipe.sde["kind"] == "ve" else network, sde, recipe.prediction)


def _network(recipe: Recipe, size: int, channels: int) -> nn.Module:
    options = {name: value for name, value in recipe.network.items() if name != "kind"}
    kind = recipe.network.get("kind", "unet")
    if kind == "captioned":
        return CaptionedUNet(size, channels, captions=CAPTIONS, **options)
    return (DiT if kind == "dit" else UNet)(size, channels, **options)


def sample_shape(recipe: Recipe) -> tuple[int, int, int]:
    """The shape of what a recipe's model sees: an image's, or a latent's."""
    return autoencoder_of(recipe).latent_shape if recipe.latent else SHAPES[recipe.data]


def autoencoder_of(recipe: Recipe) -> Autoencoder:
    """The trained autoencoder whose latents a recipe models. Raises ValueError if it is none."""
    found = load(recipe.latent)
    if not isinstance(found, Autoencoder):
        raise ValueError(f"latent: expected the name of an autoencoder, got {recipe.latent!r}")
    return found


@torch.no_grad()
def latents_of(autoencoder: Autoencoder, images: torch.Tensor) -> torch.Tensor:
    """The scaled latents of many images."""
    return torch.cat([autoencoder.to_latent(part) for part in images.split(500)])


@torch.no_grad()
def images_of(recipe: Recipe, samples: torch.Tensor) -> torch.Tensor:
    """A model's samples as images: decoded where they are latents."""
    if not recipe.latent:
        return samples
    autoencoder = autoencoder_of(recipe).to(samples.device)
    return torch.cat([autoencoder.to_image(part) for part in samples.split(500)])


def prepared(recipe: Recipe, data: ImageData) -> ImageData:
    """The data as a recipe's model sees them: latents for images, the numbers of captions for labels."""
    images, labels = data.images, data.labels
    if recipe.network.get("kind") == "captioned":
        labels = describe(images, labels)
    if recipe.latent:
        images = latents_of(autoencoder_of(recipe).to(images.device), images)
    return ImageData(images, labels, data.class_names)


def n_labels(recipe: Recipe) -> int | None:
    """How many labels a recipe's model tells apart: classes, or captions; None for a network without."""
    if recipe.network.get("kind") == "captioned":
        return len(CAPTIONS)
    return None if recipe.network.get("n_classes") is None else N_CLASSES


def classes_of(recipe: Recipe, labels: torch.Tensor) -> torch.Tensor:
    """The classes that labels stand for: a caption's, or the label itself."""
    return labels // N_DESCRIPTIONS if recipe.network.get("kind") == "captioned" else labels


def labels_for(recipe: Recipe, n: int, label: int | None = None) -> torch.Tensor | None:
    """n labels for sampling: `label` for all, or all in turn; None for a network without labels.

    Raises ValueError for a label that the network does not know, and for n below 1.
    """
    at_least(n, 1, "n")
    known = n_labels(recipe)
    if known is None:
        if label is not None:
            raise ValueError(f"label: this model was trained without labels, got {label}")
        return None
    if label is not None and not -1 <= label < known:
        raise ValueError(f"label: expected -1 (none) to {known - 1}, got {label}")
    return torch.arange(n) % known if label is None else torch.full((n,), label)


def names() -> list[str]:
    """The trained models that come with the package."""
    return sorted(path.stem for path in FOLDER.glob("*.safetensors"))


def load(name: str | Path, *, device: torch.device | str = "cpu") -> Model:
    """A trained model, ready to use: in float32 and evaluation mode, its parameters asking for no gradient.

    name: one of `names()`, or the path of a file that `coursework train` wrote. A ScoreModel for a recipe whose task is
    "score": model(x, t, label=None), x as `data.load` scales it, or a latent. A Classifier for "classify": model(x) ->
    logits. An Autoencoder for "autoencode". A VelocityMap for "distill": model(x, t, s, label=None).
    Raises ValueError for an unknown name and for a damaged file.
    """
    return load_with_recipe(name, device=device)[0]


def load_with_recipe(name: str | Path, *, device: torch.device | str = "cpu") -> tuple[Model, Recipe]:
    """A trained model as `load` gives it, and the recipe it was trained by."""
    path = where(name)
    tensors, facts = checkpoints.read(path)
    recipe = recipe_of(facts, path)
    try:
        model = make(recipe)
    except (ValueError, TypeError) as error:
        raise ValueError(f"{path}: {error}") from None
    checkpoints.load_into(model, checkpoints.part(tensors, "average."), path)
    return model.to(device, torch.float32).eval().requires_grad_(False), recipe


def recipe_of(facts: Mapping[str, Any], path: Path) -> Recipe:
    """The recipe among a checkpoint's facts. Raises ValueError naming the file if there is none that fits."""
    if not isinstance(facts.get("recipe"), str):
        raise ValueError(f"{path}: there is no recipe in it")
    try:
        return Recipe.from_json(facts["recipe"])
    except (ValueError, TypeError) as error:
        raise ValueError(f"{path}: {error}") from None


def where(name: str | Path) -> Path:
    """The file of a trained model: the path itself, or the shipped model's."""
    if isinstance(name, Path) or str(name).endswith(".safetensors"):
        return Path(name)
    one_of(name, names(), "name")
    return FOLDER / f"{name}.safetensors"


def save_trained(model: nn.Module, recipe: Recipe, path: Path) -> None:
    """Write the weights of a finished run, and its recipe beside them, for `load`."""
    tensors = {f"average.{name}": value for name, value in model.state_dict().items()}
    checkpoints.write(path, tensors, {"recipe": recipe.to_json()})
