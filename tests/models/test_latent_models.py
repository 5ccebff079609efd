"""Autoencoders, models of latents and of captions through the one engine: trained, saved, sampled, judged."""

import pytest
import torch

from coursework import models
from coursework.data import load
from coursework.data.captions import CAPTIONS, describe
from coursework.latents import vae_losses
from coursework.models import card, evaluation
from coursework.models.generation import generate
from coursework.models.recipes import Recipe
from coursework.models.training import Run, default_accelerator, train
from coursework.nn import Autoencoder, CaptionedUNet, DiT, UNet

pytestmark = pytest.mark.usefixtures("one_thread")
VAE = Recipe("autoencode", "digits", 5, network={"widths": (8,)}, kl_weight=0.25, batch_size=16, warmup=1)
SMALL = {"widths": (8,), "attention_at": (), "features": 16}
LATENT = Recipe("score", "digits", 2, network={**SMALL, "n_classes": 10}, latent="small-vae", batch_size=16)
TEXT = Recipe("score", "digits", 2, network={"kind": "captioned", **SMALL}, batch_size=16, label_dropout=0.5)


@pytest.fixture(scope="module")
def vae() -> Autoencoder:
    return train(VAE, show_progress=False)


@pytest.fixture
def package(vae, tmp_path, monkeypatch):
    """A package whose one model is the small autoencoder."""
    monkeypatch.setattr(models, "FOLDER", tmp_path)
    models.save_trained(vae, VAE, tmp_path / "small-vae.safetensors")
    return tmp_path


def run_of(recipe: Recipe) -> Run:
    return Run(recipe, None, default_accelerator(cpu=True), None, 1, None, False)


def test_the_loss_is_the_objective_a_pixel():
    run = run_of(VAE)
    part = run.batches[0]
    assert part.noise.shape == (16, 4, 4, 4)
    decoded, mean, log_variance = run.bare(part.images, part.noise)
    expected = vae_losses(decoded, part.images, mean, log_variance, kl_weight=0.25).mean() / 64
    torch.testing.assert_close(run.loss(part), expected)
    assert not torch.allclose(expected, vae_losses(decoded, part.images, mean, log_variance).mean() / 64)


def test_a_trained_autoencoder_knows_its_scale(vae, package):
    z = vae.to_latent(load("digits").images)
    torch.testing.assert_close(z.movedim(1, 0).flatten(1).std(1, correction=0), torch.ones(4), atol=1e-4, rtol=0)
    again = models.load("small-vae")
    assert isinstance(again, Autoencoder)
    torch.testing.assert_close(again.scale, vae.scale)
    assert not torch.allclose(vae.scale, torch.ones(4))


def test_a_model_of_latents_is_trained_on_them_and_decoded(vae, package):
    run, data = run_of(LATENT), load("digits")
    torch.testing.assert_close(run.batches.data.images, vae.to_latent(data.images))
    assert torch.equal(run.batches.data.labels, data.labels)
    assert models.sample_shape(LATENT) == (4, 4, 4)
    model = train(LATENT, show_progress=False)
    z = generate(model, (3, 4, 4, 4), labels=torch.arange(3), n_steps=2, show_progress=False)
    torch.testing.assert_close(models.images_of(LATENT, z), vae.decode(z / vae.scale[:, None, None]))
    assert torch.equal(models.images_of(VAE, z), z)  # what are no latents stays


def test_latents_of_what_is_no_autoencoder_are_refused(package):
    models.save_trained(models.make(TEXT), TEXT, package / "text.safetensors")
    with pytest.raises(ValueError, match=r"^latent: expected the name of an autoencoder"):
        models.sample_shape(Recipe("score", "digits", 1, latent="text"))
    with pytest.raises(ValueError, match=r"^name: expected one of"):
        models.sample_shape(Recipe("score", "digits", 1, latent="nobody"))


def test_evaluate_judges_decoded_latents(vae, package, monkeypatch):
    trained = train(LATENT, show_progress=False)
    models.save_trained(trained, LATENT, package / "latent.safetensors")
    monkeypatch.setitem(evaluation.CLASSIFIERS, "digits", str(SHIPPED / "digits-classifier.safetensors"))
    numbers, samples = evaluation.evaluate("latent", n=20, n_steps=2, show_progress=False)
    assert samples.shape == (20, 1, 8, 8)
    assert numbers.label_accuracy is not None


SHIPPED = models.FOLDER


def test_captions_are_the_labels_of_a_model_that_reads():
    run, data = run_of(TEXT), load("digits")
    assert isinstance(run.bare.network, CaptionedUNet)
    assert torch.equal(run.batches.data.labels, describe(data.images, data.labels))
    assert run.labelled
    assert models.n_labels(TEXT) == len(CAPTIONS) == 90
    labels = models.labels_for(TEXT, 91)
    assert torch.equal(models.classes_of(TEXT, labels), torch.arange(91) % 90 // 9)
    assert torch.equal(models.classes_of(LATENT, labels), labels)
    with pytest.raises(ValueError, match=r"^label: expected -1 \(none\) to 89"):
        models.labels_for(TEXT, 2, 90)
    model = train(TEXT, show_progress=False)
    x = generate(model, (3, 1, 8, 8), labels=torch.tensor([0, 89, -1]), n_steps=2, show_progress=False)
    assert x.shape == (3, 1, 8, 8)


def test_the_kind_chooses_the_network():
    assert isinstance(models.make(Recipe("score", "digits", 1, network={"kind": "unet", **SMALL})).network, UNet)
    network = {"kind": "dit", "patch_size": 2, "features": 16, "depth": 1}
    made = models.make(Recipe("score", "digits", 1, network=network)).network
    assert isinstance(made, DiT)
    assert made.configuration["patch_size"] == 2


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"task": "score", "network": {"kind": "mlp"}}, "network's kind: expected one of"),
        ({"task": "autoencode", "kl_weight": 0.0}, "kl_weight: expected values > 0"),
        ({"task": "autoencode", "latent": "fashion-vae"}, "latent: only score models"),
        ({"task": "autoencode", "uncertainty": True}, "uncertainty: only score models"),
    ],
)
def test_recipes_that_cannot_be_are_refused(arguments, words):
    with pytest.raises(ValueError, match=f"^{words}"):
        Recipe(data="digits", n_steps=1, **arguments)


def test_an_autoencoders_card_has_what_is_lost(package, monkeypatch):
    monkeypatch.setattr(card, "RECIPES", {"fashion-vae": VAE})
    train(VAE, package / "run", show_progress=False)
    text = card.ship("fashion-vae", package / "run").read_text()
    model, held_out = models.load("fashion-vae"), load("digits", split="test").images
    error = float((model.decode(model.encode(held_out)[0]) - held_out).square().mean())
    assert "A latent has 4 x 4 x 4 numbers." in text
    assert f"mean squared error is {error:.4f} a pixel, {error / float(held_out.var()):.1%} of their variance" in text
    assert "The KL term has weight 0.25." in text
    assert (models.FOLDER / "fashion-vae.png").is_file()
