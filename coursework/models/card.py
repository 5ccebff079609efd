"""A finished training run becomes a model that comes with the package: weights, evaluated, with a card and a picture.

The samples of the picture are the first ones that the seed of the evaluation gives.
"""

import shutil
from pathlib import Path

import torch

from coursework import models
from coursework._arguments import one_of
from coursework._files import write_atomically
from coursework.data import load
from coursework.flow_maps import VelocityMap
from coursework.latents import gaussian_kl
from coursework.models import checkpoints
from coursework.models.evaluation import Evaluation, evaluate
from coursework.models.generation import save_grid, usual
from coursework.models.recipes import PRECONDITIONED, RECIPES, Recipe
from coursework.models.training import COLUMNS, TRAINED
from coursework.nn import Autoencoder

DATA = {
    "digits": "scikit-learn's digits, 8x8: 1,442 training images; 355 held out (every fifth of each class)",
    "fashion-mnist": "Fashion-MNIST, 28x28: 60,000 training images; the 10,000 of its test set held out",
}
PURPOSE = {
    "digits-classifier": "Tells the ten digits apart; its features judge samples of the digits models.",
    "fashion-classifier": "Tells ten kinds of clothing apart; its features judge samples of the Fashion-MNIST models.",
    "digits-vp": "Draws digits, of a class that is asked for or of any.",
    "digits-ncsn": "Draws digits: a noise-conditional score network.",
    "fashion-vae": "Makes 196 numbers of a picture of clothing, and the picture of them again.",
    "fashion-latent": "Draws latents that `fashion-vae` decodes. Trained briefly: far worse than `fashion-vp`.",
    "digits-text": "Draws the digit that a caption asks for: its kind, its slant and its strokes.",
    "digits-one-step": "Draws digits in one call: a map from noise to data, distilled from digits-vp.",
    "digits-few-step": "Draws digits in two or four calls: a map between any two times, distilled from digits-vp.",
    "fashion-vp": "Draws pictures of clothing, of a class that is asked for or of any.",
    "fashion-ncsn": "Draws pictures of clothing: a noise-conditional score network.",
}
SAMPLERS = {  # VE models, which are trained without labels, need noise on the way
    "vp": ("heun", "karras", 30),
    "ve": ("ancestral", "karras", 120),
}
SAMPLED = ("score", "distill")
SHOWN = 60
KINDS = {
    "classify": "convolutional classifier",
    "autoencode": "convolutional variational autoencoder",
    "distill": "U-Net that predicts the velocity of a map",
}
PAIRS = "The first 30 held-out images, in rows of ten, and below each row what the decoder makes of their latents."


def sampler(recipe: Recipe) -> tuple[str, str, int]:
    """Solver, grid and steps that a model of a recipe is evaluated with."""
    model = models.make(recipe)
    return usual(model) if isinstance(model, VelocityMap) else SAMPLERS[recipe.sde["kind"]]


def ship(name: str, run: Path, n: int | None = None) -> Path:
    """Copy the run's weights into the package, write the card beside them, and return where it is.

    run: the folder that `coursework train` filled. n: samples to evaluate (default: as many as held-out images). Raises
    ValueError for a name that is not to be shipped, and for a run of another recipe.
    """
    one_of(name, tuple(PURPOSE), "name")
    recipe = RECIPES[name]
    _, facts = checkpoints.read(run / TRAINED)
    if models.recipe_of(facts, run / TRAINED) != recipe:
        raise ValueError(f"{run}: is not a run of {name}")
    last = dict(zip(COLUMNS, (run / "log.csv").read_text(encoding="utf-8").splitlines()[-1].split(","), strict=True))
    weights = models.FOLDER / f"{name}.safetensors"
    weights.parent.mkdir(exist_ok=True)
    shutil.copy(run / TRAINED, weights)
    picture = None
    if recipe.task in SAMPLED:
        solver, grid, n_steps = sampler(recipe)
        numbers, samples = evaluate(weights, n=n, solver=solver, grid=grid, n_steps=n_steps, precision=recipe.precision)
        picture = models.FOLDER / f"{name}.png"
        save_grid(samples[:SHOWN], picture)
        table = score_numbers(name, numbers, recipe)
    elif recipe.task == "autoencode":
        picture = models.FOLDER / f"{name}.png"
        table = autoencoder_numbers(weights, recipe, picture)
    else:
        table = classifier_numbers(weights, recipe)
    path = models.FOLDER / f"{name}.md"
    write_atomically(path, card(name, recipe, float(last["seconds"]), table, picture))
    return path


def card(name: str, recipe: Recipe, seconds: float, table: str, picture: Path | None) -> str:
    """The model card."""
    model = models.make(recipe)
    size = sum(p.numel() for p in model.parameters())
    preconditioned = recipe.prediction == PRECONDITIONED
    unet = "preconditioned U-Net" if preconditioned else f"U-Net that predicts the {recipe.prediction}"
    kind = KINDS.get(recipe.task, unet)
    network = ", ".join(f"{key} {value}" for key, value in recipe.network.items()) or "the constructor's defaults"
    sde = ", ".join(f"{key} {value}" for key, value in recipe.sde.items() if key != "kind")
    law = f" The SDE is {recipe.sde['kind'].upper()}{f' ({sde})' if sde else ''}." if recipe.task in SAMPLED else ""
    labels = f" {recipe.label_dropout:.0%} of the labels are dropped." if recipe.label_dropout else ""
    labels += f" The KL term has weight {recipe.kl_weight:g}." if recipe.task == "autoencode" else ""
    took = f"{seconds / 60:.0f} minutes" if seconds > 100 else f"{seconds:.0f} seconds"
    seen, unit = f"{DATA[recipe.data]}. No augmentation.", "images"
    if recipe.task == "distill":
        seen, unit = f"No images: paths of {recipe.teacher}, {recipe.n_path} steps each. Its data: {seen}", "pairs"
    samples = ""
    if picture:
        text = f"The first {SHOWN} of the evaluation, none left out." if recipe.task in SAMPLED else PAIRS
        samples = f"\n## Samples\n\n{text}\n\n![samples]({picture.name})\n"
    return f"""# {name}

{PURPOSE[name]} A {kind}, {size:,} parameters ({network}).{law}

## Data

{seen}

## Training

{recipe.n_steps:,} steps of {recipe.batch_size} {unit}, seed {recipe.seed}, AdamW at {recipe.learning_rate:g}, \
{recipe.precision}; the weights are an average with decay {recipe.average:g}.{labels} It took {took} on two CPU cores \
that had other work too. To make it again:

```
coursework train {name}
```

## Numbers

{table}
{samples}"""


def score_numbers(name: str, numbers: Evaluation, recipe: Recipe) -> str:
    """The table of a score model, and the command that makes it."""
    n, (solver, grid, n_steps) = numbers.as_dict(), sampler(recipe)
    how = f"{n_steps} steps on the grid of Karras et al." if grid == "karras" else calls(n_steps)
    rows = [
        ("Frechet distance of the classifier's features to the training set", "frechet", "floor_frechet"),
        ("inception score with the classifier (mean, deviation over ten parts)", "inception", "floor_inception"),
        ("precision", "precision", "floor_precision"),
        ("recall", "recall", "floor_recall"),
        ("mean largest probability of the classifier", "confidence", "floor_confidence"),
        ("mean distance to the nearest training image", "nearest", "floor_nearest"),
    ]
    lines = [f"| {text} | {shown(n[ours])} | {shown(n[floor])} |" for text, ours, floor in rows]
    times = numbers.frechet / numbers.floor_frechet
    more = f"The rarest class has {numbers.rarest_class:.1%} of the samples."
    if numbers.label_accuracy is not None:
        more += f" {numbers.label_accuracy:.1%} of the samples are classified as the label that was asked for."
    return "\n".join(
        [
            f"{numbers.n:,} samples ({solver}, {how}, {recipe.precision}) beside {numbers.n:,} held-out images:",
            "",
            "| | samples | held-out images |",
            "|---|---|---|",
            *lines,
            "",
            f"The Frechet distance is {times:.1f} times that of held-out images. {more} To measure again:",
            "",
            "```",
            f"coursework evaluate {name} --solver {solver} --steps {n_steps}"
            f"{'' if grid == 'karras' else f' --grid {grid}'} --precision {recipe.precision} -n {numbers.n}",
            "```",
        ]
    )


def calls(n: int) -> str:
    """A number of calls of the network in words."""
    return f"{n} call" + ("s" if n > 1 else "")


def shown(value: object) -> str:
    """A number as the card shows it; a pair is a mean and a deviation."""
    return " ± ".join(f"{v:.3g}" for v in (value if isinstance(value, list) else [value]))


@torch.no_grad()
def classifier_numbers(weights: Path, recipe: Recipe) -> str:
    """The accuracy on held-out images."""
    classifier, held_out = models.load(weights), load(recipe.data, split="test")
    predicted = torch.cat([classifier(part).argmax(1) for part in held_out.images.split(1000)])
    right = float((predicted == held_out.labels).double().mean())
    return f"Accuracy on the {len(held_out):,} held-out images: {right:.2%}."


@torch.no_grad()
def autoencoder_numbers(weights: Path, recipe: Recipe, picture: Path) -> str:
    """What is lost on held-out images, what a latent costs, and the scale; writes the picture of both."""
    model, held_out = models.load(weights), load(recipe.data, split="test")
    if not isinstance(model, Autoencoder):
        raise TypeError(f"{weights}: expected an autoencoder, got {type(model).__name__}")
    parts = [(model.decode(mean), gaussian_kl(mean, lv)) for mean, lv in map(model.encode, held_out.images.split(500))]
    decoded, kl = (torch.cat(column) for column in zip(*parts, strict=True))
    error = float((decoded - held_out.images).square().mean())
    rows = [half[i : i + 10] for i in range(0, 30, 10) for half in (held_out.images, decoded)]
    save_grid(torch.cat(rows), picture)
    size, variance = model.latent_shape, float(held_out.images.var())
    scale = ", ".join(f"{value:.3g}" for value in model.scale.tolist())
    return (
        f"A latent has {size[0]} x {size[1]} x {size[2]} numbers. On the {len(held_out):,} held-out images the mean "
        f"squared error is {error:.4f} a pixel, {error / variance:.1%} of their variance; the KL term is "
        f"{float(kl.mean()):.0f} nats an image. The scale of the channels, 1 / standard deviation over the "
        f"training set, is {scale}."
    )
