"""A finished run becomes a model of the package: its weights, a card whose numbers are true, a picture."""

import pytest
import torch

from coursework import models
from coursework.data import load
from coursework.models import card
from coursework.models.evaluation import Evaluation
from coursework.models.recipes import Recipe
from coursework.models.training import train

CLASSIFIER = Recipe("classify", "digits", 3, batch_size=16, warmup=1)
SCORE = Recipe("score", "digits", 2, network={"widths": (8,), "attention_at": (), "n_classes": 10, "features": 16})


@pytest.fixture
def package(tmp_path, monkeypatch):
    """A package without models, whose recipes are these small ones."""
    monkeypatch.setattr(models, "FOLDER", tmp_path / "trained")
    monkeypatch.setattr(card, "RECIPES", {"digits-classifier": CLASSIFIER, "digits-vp": SCORE})
    return tmp_path


def test_a_classifiers_card_has_its_accuracy(package):
    train(CLASSIFIER, package / "run", show_progress=False)
    path = card.ship("digits-classifier", package / "run")
    assert path == models.FOLDER / "digits-classifier.md"
    classifier, held_out = models.load("digits-classifier"), load("digits", split="test")
    with torch.no_grad():
        right = float((classifier(held_out.images).argmax(1) == held_out.labels).double().mean())
    assert f"Accuracy on the 355 held-out images: {right:.2%}." in path.read_text()


def test_a_score_models_card_has_its_numbers_how_to_measure_them_and_a_picture(package, monkeypatch):
    train(SCORE, package / "run", show_progress=False)
    numbers = Evaluation(
        10, 3.0, 2.0, (4.0, 0.5), (5.0, 0.6), 0.11, 0.12, 0.13, 0.14, 0.15, 0.16, 0.17, 0.18, 0.19, 0.2
    )

    def evaluate(weights, **options):
        assert options == {"n": 10, "solver": "heun", "grid": "karras", "n_steps": 30, "precision": "float32"}
        return numbers, torch.zeros(10, 1, 8, 8)

    monkeypatch.setattr(card, "evaluate", evaluate)
    text = card.ship("digits-vp", package / "run", 10).read_text()
    assert "| precision | 0.11 | 0.13 |" in text
    assert "| inception score with the classifier (mean, deviation over ten parts) | 4 ± 0.5 | 5 ± 0.6 |" in text
    assert "The Frechet distance is 1.5 times that of held-out images." in text
    assert "coursework evaluate digits-vp --solver heun --steps 30 --precision float32 -n 10\n" in text
    assert "![samples](digits-vp.png)" in text
    assert (models.FOLDER / "digits-vp.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("name", "words"), [("digits-vp", "run: is not a run of digits-vp"), ("mine", "name: expected one of")]
)
def test_what_is_none_of_the_packages_runs_is_refused(package, name, words):
    train(CLASSIFIER, package / "run", show_progress=False)
    with pytest.raises(ValueError, match=words):
        card.ship(name, package / "run")
    assert not models.FOLDER.exists()
