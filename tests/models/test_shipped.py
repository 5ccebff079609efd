"""Models from recipes, and the trained ones that come with the package: what their cards claim is true."""

import re

import pytest
import torch

from coursework import models
from coursework.data import load
from coursework.data.captions import ink, slant
from coursework.models import checkpoints, evaluation
from coursework.models.evaluation import evaluate
from coursework.models.generation import generate
from coursework.models.recipes import RECIPES, Recipe
from coursework.nn import Classifier, ScaledInput, UNet
from coursework.sdes import VESDE, SubVPSDE

SHIPPED = (
    "digits-classifier",
    "digits-few-step",
    "digits-ncsn",
    "digits-one-step",
    "digits-text",
    "digits-vp",
    "fashion-classifier",
    "fashion-latent",
    "fashion-ncsn",
    "fashion-vae",
    "fashion-vp",
)


def test_a_recipe_makes_its_model():
    recipe = Recipe("score", "mnist", 1, network={"widths": (8, 16), "attention_at": ()}, sde={"kind": "sub-vp"})
    model = models.make(recipe)
    assert isinstance(model.sde, SubVPSDE)
    assert isinstance(model.network, UNet)
    assert (model.network.image_shape, model.network.configuration["widths"]) == ((1, 28, 28), (8, 16))
    recipe = Recipe("score", "cifar10", 1, network={"widths": (8, 16), "attention_at": ()}, sde={"kind": "ve"})
    model = models.make(recipe)
    assert isinstance(model.sde, VESDE)
    assert isinstance(model.network, ScaledInput)
    assert model.network.network.image_shape == (3, 32, 32)
    assert isinstance(models.make(Recipe("classify", "cifar10", 1)), Classifier)


def test_the_seed_decides_the_first_weights_and_nothing_else_is_seeded():
    recipe = RECIPES["digits-classifier"]
    state = torch.get_rng_state()
    first = models.make(recipe)
    assert torch.equal(torch.get_rng_state(), state)
    torch.rand(3)
    assert all(map(torch.equal, first.parameters(), models.make(recipe).parameters()))


def test_labels_for_sampling():
    assert models.labels_for(RECIPES["digits-vp"], 12).tolist() == [*range(10), 0, 1]
    assert models.labels_for(RECIPES["digits-vp"], 2, -1).tolist() == [-1, -1]
    assert models.labels_for(RECIPES["digits-ncsn"], 2) is None


def test_what_is_saved_is_loaded(tmp_path):
    recipe = Recipe("score", "digits", 1, network={"widths": (8,), "attention_at": ()}, sde={"kind": "ve"})
    model = models.make(recipe)
    models.save_trained(model, recipe, tmp_path / "m.safetensors")
    again, its_recipe = models.load_with_recipe(tmp_path / "m.safetensors")
    assert its_recipe == recipe
    x, t = torch.randn(3, 1, 8, 8), torch.tensor(0.5)
    assert torch.equal(again(x, t), model(x, t))
    assert not again.training
    assert not any(p.requires_grad for p in again.parameters())


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"recipe": None}, "there is no recipe in it"),
        ({"recipe": "{}"}, "recipe: data, n_steps, task missing"),
        ({"recipe": "[1"}, "recipe: expected JSON"),
        ({"recipe": '{"task": "score", "data": "digits", "n_steps": "5"}'}, "n_steps: expected an integer, got str"),
        ({"recipe": '{"task": "score", "data": "digits", "n_steps": 1, "network": {"foo": 1}}'}, "network: .*'foo'"),
        (
            {"recipe": '{"task": "score", "data": "digits", "n_steps": 1, "network": {"attention_at": []}}'},
            "from another architecture: it lacks",
        ),
    ],
)
def test_a_foreign_file_is_refused_by_its_name(tmp_path, changes, words):
    checkpoints.write(tmp_path / "foreign.safetensors", {"average.a": torch.zeros(1)}, changes)
    with pytest.raises(ValueError, match=rf"foreign\.safetensors: {words}"):
        models.load(tmp_path / "foreign.safetensors")


# -- the shipped ones --------------------------------------------------------------------------------------------------


def test_shipped_models_are_small_and_made_by_the_recipes_of_the_package():
    assert models.names() == list(SHIPPED)
    assert sum(path.stat().st_size for path in models.FOLDER.iterdir()) <= 40e6
    for name in SHIPPED:
        tensors, facts = checkpoints.read(models.where(name))
        assert Recipe.from_json(facts["recipe"]) == RECIPES[name], name
        assert set(facts) == {"recipe"}
        assert all(key.startswith("average.") for key in tensors)


@pytest.mark.parametrize("name", SHIPPED)
def test_every_model_has_a_card(name):
    card = (models.FOLDER / f"{name}.md").read_text(encoding="utf-8")
    assert f"coursework train {name}" in card
    for fact in (
        "## Data",
        "## Training",
        "## Numbers",
        f"seed {RECIPES[name].seed}",
        f"{RECIPES[name].n_steps:,} steps",
    ):
        assert fact in card, fact
    for picture in re.findall(r"\]\(([\w-]+\.png)\)", card):
        assert (models.FOLDER / picture).is_file()
    assert ("png" in card) == (RECIPES[name].task != "classify")


@pytest.mark.parametrize(
    ("name", "data", "least"),
    [
        ("digits-classifier", "digits", 0.95),
        pytest.param("fashion-classifier", "fashion-mnist", 0.9, marks=pytest.mark.needs("fashion-mnist")),
    ],
)
def test_classifiers_know_their_classes(name, data, least):
    classifier, held_out = models.load(name), load(data, split="test", n=2_000 if data == "fashion-mnist" else None)
    predicted = torch.cat([classifier(part).argmax(1) for part in held_out.images.split(1000)])
    assert float((predicted == held_out.labels).double().mean()) >= least


def test_captions_decide_digit_slant_and_strokes():
    """Two digits of every caption, made with the words in equal numbers."""
    model, recipe = models.load_with_recipe("digits-text")
    labels = models.labels_for(recipe, 180)
    images = generate(model, (180, 1, 8, 8), labels=labels, n_steps=12, show_progress=False).clamp(-1, 1)
    predicted = models.load("digits-classifier")(images).argmax(1)
    assert float((predicted == models.classes_of(recipe, labels)).double().mean()) >= 0.85
    kinds = labels.reshape(2, 10, 3, 3)  # by digit, slant and strokes
    for value, axis in ((slant(images), 2), (ink(images), 3)):
        by_word = value.reshape(kinds.shape).movedim(axis, 0).flatten(1)
        means, error = by_word.mean(1), float(by_word.std(1).max()) / 60**0.5
        assert float(means[2] - means[0]) > 3 * error
        assert means.tolist() == sorted(means.tolist())


def test_decoded_latents_are_mostly_of_the_class_that_was_asked_for():
    """63% of 1,000 on the card."""
    model, recipe = models.load_with_recipe("fashion-latent")
    labels = models.labels_for(recipe, 60)
    z = generate(model, (60, *models.sample_shape(recipe)), labels=labels, n_steps=10, show_progress=False)
    predicted = models.load("fashion-classifier")(models.images_of(recipe, z).clamp(-1, 1)).argmax(1)
    assert float((predicted == labels).double().mean()) >= 0.4


@pytest.mark.needs("fashion-mnist")
def test_the_autoencoder_keeps_clothing_and_its_scale():
    model, train, held_out = (
        models.load("fashion-vae"),
        load("fashion-mnist", n=500),
        load("fashion-mnist", split="test"),
    )
    x = held_out.images[:500]
    assert float((model.to_image(model.to_latent(x)) - x).square().mean()) < 0.1 * float(x.var())
    deviation = model.to_latent(train.images).movedim(1, 0).flatten(1).std(1)
    torch.testing.assert_close(deviation, torch.ones(4), atol=0.1, rtol=0)


@pytest.mark.parametrize("name", ["digits-vp", "digits-ncsn"])
def test_digits_are_sure_varied_and_no_copies(name):
    """90% confidence, all classes, inside the real set, covering it, as far from training images as held-out ones."""
    numbers, _ = evaluate(name, **({"solver": "ancestral", "n_steps": 120} if name == "digits-ncsn" else {}))
    assert numbers.confidence >= 0.9
    assert numbers.rarest_class >= 0.03
    assert numbers.recall >= numbers.floor_recall - 0.1
    assert numbers.nearest >= 0.9 * numbers.floor_nearest
    if name == "digits-vp":
        assert numbers.label_accuracy >= 0.95
        assert numbers.precision >= numbers.floor_precision - 0.1
        assert numbers.frechet < 1.5 * numbers.floor_frechet
    else:
        assert numbers.precision >= numbers.floor_precision - 0.2
        assert numbers.frechet < 10 * numbers.floor_frechet


@pytest.mark.parametrize(("name", "calls"), [("digits-one-step", 1), ("digits-few-step", 2), ("digits-few-step", 4)])
def test_distilled_digits_are_as_good_as_their_cards_say_in_that_many_calls(name, calls, monkeypatch):
    asked, forward = [], UNet.forward
    monkeypatch.setattr(UNet, "forward", lambda self, x, *rest: asked.append(len(x)) or forward(self, x, *rest))
    numbers, _ = evaluate(name, n_steps=calls)
    assert sum(asked) == calls * numbers.n
    assert numbers.label_accuracy >= 0.95
    assert numbers.confidence >= 0.9
    assert numbers.frechet < 1.6 * numbers.floor_frechet
    assert numbers.recall >= numbers.floor_recall - 0.2
    assert numbers.nearest >= 0.9 * numbers.floor_nearest


@pytest.mark.needs("fashion-mnist")
@pytest.mark.parametrize(("name", "most", "confidence"), [("fashion-ncsn", 5, 0.75), ("fashion-vp", 1.5, 0.85)])
def test_fashion_images_are_near_the_floor(name, most, confidence, monkeypatch):
    """200 images only, where both distances have the bias of 200 images, beside 4,000 training images."""
    sizes = {"train": 4_000, "test": 200}
    monkeypatch.setattr(evaluation, "load_data", lambda data, split: load(data, split=split, n=sizes[split]))
    numbers, _ = evaluate(name, n=200, n_steps=20, precision="bfloat16")
    assert numbers.frechet < most * numbers.floor_frechet
    assert numbers.confidence > confidence
    assert numbers.nearest >= 0.8 * numbers.floor_nearest
    if name == "fashion-vp":
        assert numbers.label_accuracy >= 0.8
