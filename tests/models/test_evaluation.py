"""What `evaluate` says of samples that are known: darkened training digits, so that no number is the floor's."""

import pytest
import torch

from coursework import models
from coursework.data import load
from coursework.metrics import frechet_distance, inception_score, precision_recall
from coursework.models import evaluation

pytestmark = pytest.mark.usefixtures("one_thread")
N = 70


@pytest.fixture(scope="module")
def judged():
    """The numbers of the samples, and the samples."""
    darkened = -1 + 0.6 * (load("digits").images[:N] + 1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(evaluation, "generate", lambda *arguments, **options: darkened.clone())
        numbers, samples = evaluation.evaluate("digits-vp", n=N)
    assert torch.allclose(samples, darkened)
    return numbers, samples


def seen_by(classifier, images):
    """Features and logits, taken apart here."""
    features = classifier.features(images)
    return features, features @ classifier.head.weight.T + classifier.head.bias


def test_every_number_is_of_the_samples_or_of_as_many_held_out_images(judged):
    numbers, samples = judged
    classifier, train, held_out = models.load("digits-classifier"), load("digits"), load("digits", split="test")
    real, _ = seen_by(classifier, train.images)
    values = {}
    for prefix, images in (("", samples), ("floor_", held_out.images[:N])):
        features, logits = seen_by(classifier, images)
        every = [i * len(real) // N for i in range(N)]
        precision, recall = precision_recall(real[every], features)
        values |= {
            f"{prefix}frechet": frechet_distance(real, features),
            f"{prefix}inception": inception_score(logits),
            f"{prefix}precision": precision,
            f"{prefix}recall": recall,
            f"{prefix}confidence": float(logits.softmax(1).amax(1).mean()),
            f"{prefix}nearest": float(torch.cdist(images.flatten(1), train.images.flatten(1)).amin(1).mean()),
        }
        predicted = logits.argmax(1)
        if not prefix:
            values["label_accuracy"] = float((predicted == torch.arange(N) % 10).double().mean())
            values["rarest_class"] = min(int((predicted == c).sum()) for c in range(10)) / N
    assert numbers.n == N
    for name, value in values.items():
        assert getattr(numbers, name) == pytest.approx(value, rel=1e-4, abs=1e-6), name
        other = name.removeprefix("floor_") if name.startswith("floor_") else f"floor_{name}"
        if other in values:
            assert values[other] != pytest.approx(value, rel=1e-3), f"{name}: the samples are too good for this test"


def test_a_dictionary_of_numbers_has_five_digits(judged):
    numbers, _ = judged
    shown = numbers.as_dict()
    assert shown["n"] == N
    assert shown["frechet"] == float(f"{numbers.frechet:.5g}")
    assert shown["inception"] == [float(f"{value:.5g}") for value in numbers.inception]


@pytest.mark.parametrize("shown", [True, False])
def test_progress_is_shown_or_not_as_was_asked(shown, capsys):
    evaluation.evaluate("digits-vp", n=10, n_steps=1, show_progress=shown)
    err = capsys.readouterr().err
    assert ("sampling" in err, "features" in err) == (shown, shown)
